"""OpenML is asked where there is no file, and what is missing is described."""

from urllib.error import URLError

import numpy as np
import pytest
from sklearn.utils import Bunch

from skrobust.datasets import fetch_cifar10, fetch_fashion_mnist, fetch_gtsrb, fetch_mnist
from skrobust.datasets._download import download
from skrobust.datasets._sources import Source
from tests.datasets._files import CASES, make_arrays, save, use_openml

ON_OPENML = [
    pytest.param(fetch_mnist, "mnist_784", 60_000, 784, id="mnist"),
    pytest.param(fetch_fashion_mnist, "Fashion-MNIST", 60_000, 784, id="fashion"),
    pytest.param(fetch_cifar10, "CIFAR_10", 50_000, 3072, id="cifar10"),
]


def openml_answer(n_train, n_pixels):
    """Return rows as OpenML gives them, which take no memory; labels are text."""
    n = n_train + 4
    pixels = np.broadcast_to(np.arange(n_pixels) % 256, (n, n_pixels))
    target = np.array(["1"] * n_train + ["2"] * 4, dtype=object)
    return Bunch(data=pixels, target=target)


@pytest.mark.parametrize(("fetch", "name", "n_train", "n_pixels"), ON_OPENML)
def test_download_splits_canonically(tmp_path, monkeypatch, fetch, name, n_train, n_pixels):
    answer = openml_answer(n_train, n_pixels)
    calls = use_openml(monkeypatch, answer)
    bunch = fetch(subset="test", data_home=tmp_path)
    assert bunch.data.shape == (4, n_pixels)
    assert (bunch.data.dtype, bunch.target.dtype) == (np.float32, np.int64)
    # Rows at OpenML are channels first already.
    np.testing.assert_array_equal(bunch.data, answer.data[:4].astype(np.float32) / 255)
    np.testing.assert_array_equal(bunch.target, [2, 2, 2, 2])
    assert f"OpenML, {name}" in bunch.DESCR
    [(asked, options)] = calls
    assert asked == name
    assert options["version"] == 1
    assert options["data_home"] == tmp_path


@pytest.mark.parametrize(("subset", "n"), [("train", 2), ("test", 4), ("all", 6)])
def test_download_of_each_subset(tmp_path, monkeypatch, subset, n):
    small = Source(
        title="Small",
        description="",
        files=("small.npz",),
        image_shape=(2, 2),
        target_names=tuple("012"),
        openml="small",
        n_train=2,
    )
    use_openml(monkeypatch, openml_answer(2, 4))
    X, y = download(small, subset, [tmp_path / "small.npz"], True)
    assert X.shape == (n, 4)
    expected = {"train": [1, 1], "test": [2] * 4, "all": [1, 1, 2, 2, 2, 2]}
    np.testing.assert_array_equal(y, expected[subset])


def test_file_is_preferred_to_download(tmp_path):
    save(tmp_path / "mnist.npz", make_arrays((28, 28)))
    fetch_mnist(data_home=tmp_path, download_if_missing=True)  # a download would fail the test


def test_download_of_another_shape_is_refused(tmp_path, monkeypatch):
    use_openml(monkeypatch, openml_answer(2, 9))
    with pytest.raises(ValueError, match=r"Got data of shape \(6, 9\) in OpenML's mnist_784"):
        fetch_mnist(data_home=tmp_path)


@pytest.mark.parametrize(
    "fault",
    [URLError("no route"), PermissionError("read-only"), ValueError("md5"), ImportError("pandas")],
    ids=lambda fault: type(fault).__name__,
)
def test_failed_download_says_why_and_what_to_do(tmp_path, monkeypatch, fault):
    use_openml(monkeypatch, fault)
    with pytest.raises(FileNotFoundError) as caught:
        fetch_mnist(data_home=tmp_path)
    assert f"the download failed with {type(fault).__name__}" in str(caught.value)
    assert str(tmp_path / "mnist.npz") in str(caught.value)
    assert caught.value.__cause__ is fault


@pytest.mark.parametrize(("fetch", "file", "image_shape", "input_shape"), CASES)
def test_missing_file_is_described(tmp_path, fetch, file, image_shape, input_shape):
    with pytest.raises(FileNotFoundError) as caught:
        fetch(data_home=tmp_path, download_if_missing=False)
    message = str(caught.value)
    assert str(tmp_path / file) in message
    shape = ", ".join(map(str, image_shape))
    assert f"shape (n, {shape})" in message
    for part in ("X_train", "y_train", "X_test", "y_test", "data_home", "SKROBUST_DATA"):
        assert part in message


def test_missing_gtsrb_is_never_downloaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot be downloaded"):
        fetch_gtsrb(data_home=tmp_path, download_if_missing=True)


def test_missing_cifar10_names_all_paths_tried(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        fetch_cifar10(data_home=tmp_path, download_if_missing=False)
    for file in ("cifar10.npz", "cifar10_subset.npz"):
        assert str(tmp_path / file) in str(caught.value)
