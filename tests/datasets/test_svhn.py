"""SVHN, from the published files, which are MATLAB's, or from one npz."""

import hashlib
import io
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
from scipy.io import savemat

from skrobust.datasets import _download, _svhn, fetch_svhn
from skrobust.datasets._sources import SVHN
from tests.datasets._files import make_arrays, save


def published(n, seed=0):
    """Return arrays as they are published: images last, labels from 1 to 10."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
    return {"X": X, "y": (1 + np.arange(n) % 10).astype(np.uint8)[:, None]}


def write(folder, **splits):
    folder.mkdir(parents=True, exist_ok=True)
    for split, arrays in splits.items():
        savemat(folder / f"{split}_32x32.mat", arrays)


@pytest.mark.parametrize("folder", ["", "svhn"])
@pytest.mark.parametrize("subset", ["train", "test", "all"])
def test_published_files(tmp_path, folder, subset):
    parts = {"train": published(12), "test": published(3, seed=1)}
    write(tmp_path / folder, **parts)
    svhn = fetch_svhn(subset=subset, data_home=tmp_path)
    chosen = list(parts.values()) if subset == "all" else [parts[subset]]
    X = np.concatenate([part["X"] for part in chosen], axis=3)
    y = np.concatenate([part["y"] for part in chosen])
    assert svhn.data.shape == (len(y), 3072)
    assert (svhn.data.dtype, svhn.target.dtype) == (np.float32, np.int64)
    shaped = svhn.data.reshape(-1, *svhn.input_shape)
    for i, channel, row, column in [(0, 0, 3, 5), (len(y) - 1, 2, 31, 0)]:
        assert shaped[i, channel, row, column] == np.float32(X[row, column, channel, i] / 255)
    np.testing.assert_array_equal(svhn.target, y[:, 0] % 10)
    assert svhn.target_names[svhn.target[0]] == "1"
    assert "_32x32.mat" in svhn.DESCR and f"{len(y)} images" in svhn.DESCR
    pair = fetch_svhn(subset=subset, data_home=tmp_path, return_X_y=True)
    np.testing.assert_array_equal(pair[0], svhn.data)


def test_the_npz_comes_first(tmp_path):
    write(tmp_path, train=published(4))
    save(tmp_path / "svhn.npz", make_arrays((32, 32, 3)))
    assert "svhn.npz" in fetch_svhn(data_home=tmp_path).DESCR


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((32, 32, 3), np.uint8)}, r"Got X of shape \(32, 32, 3\)"),
        ({"X": np.zeros((28, 28, 3, 4), np.uint8)}, r"images first, of shape \(4, 28, 28, 3\)"),
        ({"X": np.zeros((32, 32, 3, 4))}, "images first, of dtype float64"),
        ({"y": np.ones((3, 1), np.uint8)}, r"Got y of shape \(3, 1\) and dtype uint8"),
        ({"y": np.full((4, 1), 0.5)}, "Got y of shape .* and dtype float64"),
        ({"y": np.full((4, 1), 11)}, r"with the values \[11\]"),
        ({"y": None}, "Got other arrays .* expected also y"),
    ],
)
def test_files_with_something_else(tmp_path, change, message):
    arrays = {name: value for name, value in (published(4) | change).items() if value is not None}
    write(tmp_path, train=arrays)
    with pytest.raises(ValueError, match=message):
        fetch_svhn(data_home=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not of MATLAB" * 50, b"cut"])
def test_files_that_are_none(tmp_path, content):
    write(tmp_path, train=published(4))
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:2000] if content == b"cut" else content)
    with pytest.raises(ValueError, match=r"Got bytes that SciPy cannot read in .*train_32x32"):
        fetch_svhn(data_home=tmp_path)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Serve published files from memory; return the list of addresses that were asked for."""
    asked, contents = [], {}
    for split, n in (("train", 5), ("test", 2)):
        buffer = io.BytesIO()
        savemat(buffer, published(n))
        contents[f"{split}_32x32.mat"] = buffer.getvalue()

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO(contents[url.rsplit("/", 1)[1]])

    sums = {
        split: (name, hashlib.md5(contents[name], usedforsecurity=False).hexdigest())
        for split, (name, _) in SVHN.published.items()
    }
    monkeypatch.setattr(_download, "urlopen", urlopen)
    monkeypatch.setattr(_svhn, "SVHN", replace(SVHN, published=sums))
    return asked


def test_download(tmp_path, site):
    page = "http://ufldl.stanford.edu/housenumbers"
    assert len(fetch_svhn(subset="test", data_home=tmp_path / "new").target) == 2
    assert site == [f"{page}/test_32x32.mat"]
    assert len(fetch_svhn(subset="all", data_home=tmp_path / "new").target) == 7
    # What is there is not asked for again.
    assert site == [f"{page}/test_32x32.mat", f"{page}/train_32x32.mat"]
    assert sorted(path.name for path in (tmp_path / "new" / "svhn").iterdir()) == [
        "test_32x32.mat",
        "train_32x32.mat",
    ]


def test_a_broken_transfer_leaves_nothing(tmp_path, site, monkeypatch):
    monkeypatch.setattr(_svhn, "SVHN", SVHN)  # with the sums of the real files
    with pytest.raises(FileNotFoundError, match=r"OSError: what came has the MD5 sum"):
        fetch_svhn(data_home=tmp_path)
    assert list((tmp_path / "svhn").iterdir()) == []


def test_without_network(tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise URLError("no route")

    monkeypatch.setattr(_download, "urlopen", urlopen)
    with pytest.raises(FileNotFoundError, match=r"the download failed with URLError") as caught:
        fetch_svhn(data_home=tmp_path)
    for part in ("train_32x32.mat", "http://ufldl.stanford.edu/housenumbers", "SKROBUST_DATA"):
        assert part in str(caught.value)
    with pytest.raises(FileNotFoundError, match="download_if_missing=False"):
        fetch_svhn(data_home=tmp_path, download_if_missing=False)


def test_where_no_folder_can_be(tmp_path, site):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(FileNotFoundError, match="the download failed with NotADirectoryError"):
        fetch_svhn(data_home=tmp_path / "taken")
    assert site == []
