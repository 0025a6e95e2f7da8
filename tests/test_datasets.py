"""Tests of skrobust.datasets: files made here, and no network."""

from urllib.error import URLError

import numpy as np
import pytest
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.utils import Bunch

from skrobust import datasets
from skrobust.datasets import (
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_gtsrb,
    fetch_mnist,
    fetch_mnist_c,
    load_digits,
)

# fetcher, file, shape of an image in the file, input_shape, has OpenML the data
CASES = [
    pytest.param(fetch_mnist, "mnist.npz", (28, 28), (1, 28, 28), id="mnist"),
    pytest.param(fetch_fashion_mnist, "fashion_mnist.npz", (28, 28), (1, 28, 28), id="fashion"),
    pytest.param(fetch_cifar10, "cifar10.npz", (32, 32, 3), (3, 32, 32), id="cifar10"),
    pytest.param(fetch_gtsrb, "gtsrb10.npz", (48, 48), (1, 48, 48), id="gtsrb"),
]
ON_OPENML = [
    pytest.param(fetch_mnist, "mnist_784", 60_000, 784, id="mnist"),
    pytest.param(fetch_fashion_mnist, "Fashion-MNIST", 60_000, 784, id="fashion"),
    pytest.param(fetch_cifar10, "CIFAR_10", 50_000, 3072, id="cifar10"),
]
N_TRAIN, N_TEST = 5, 3


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Let no test reach the network or the data folders of whoever runs it."""

    def refuse(*args, **kwargs):
        pytest.fail("fetch_openml was called")

    monkeypatch.setattr(datasets, "fetch_openml", refuse)
    monkeypatch.delenv("SKROBUST_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "scikit_learn_data"))


def make_arrays(image_shape, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, n in (("train", N_TRAIN), ("test", N_TEST)):
        arrays[f"X_{split}"] = rng.integers(0, 256, (n, *image_shape), dtype=np.uint8)
        arrays[f"y_{split}"] = rng.integers(0, 10, n, dtype=np.uint8)
    return arrays


def save(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def use_openml(monkeypatch, answer):
    """Replace the download by `answer`, and return the list of calls."""
    calls = []

    def fetch_openml(name, **kwargs):
        calls.append((name, kwargs))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "fetch_openml", fetch_openml)
    return calls


# ---- digits ------------------------------------------------------------------------------


def test_digits_are_scaled_to_the_unit_interval():
    digits = load_digits()
    raw = load_sklearn_digits()
    np.testing.assert_array_equal(digits.data * 16, raw.data)
    np.testing.assert_array_equal(digits.target, raw.target)
    assert (digits.data.min(), digits.data.max()) == (0, 1)
    assert (digits.data.dtype, digits.target.dtype) == (np.float32, np.int64)
    assert digits.input_shape == (1, 8, 8)
    np.testing.assert_array_equal(digits.images.reshape(-1, 64), digits.data)
    assert digits.target_names == list("0123456789")
    assert "Digits" in digits.DESCR


def test_digits_as_a_pair():
    X, y = load_digits(return_X_y=True)
    digits = load_digits()
    np.testing.assert_array_equal(X, digits.data)
    np.testing.assert_array_equal(y, digits.target)


# ---- reading a file ----------------------------------------------------------------------


@pytest.mark.parametrize(("fetch", "file", "image_shape", "input_shape"), CASES)
@pytest.mark.parametrize("subset", ["train", "test", "all"])
def test_file_is_read(tmp_path, fetch, file, image_shape, input_shape, subset):
    arrays = make_arrays(image_shape)
    save(tmp_path / file, arrays)
    bunch = fetch(subset=subset, data_home=tmp_path)

    splits = ["train", "test"] if subset == "all" else [subset]
    images = np.concatenate([arrays[f"X_{split}"] for split in splits])
    target = np.concatenate([arrays[f"y_{split}"] for split in splits])
    assert (bunch.data.dtype, bunch.target.dtype) == (np.float32, np.int64)
    assert bunch.input_shape == input_shape
    assert bunch.data.shape == (len(images), np.prod(input_shape))
    np.testing.assert_array_equal(bunch.target, target)
    shaped = bunch.data.reshape(-1, *input_shape)
    expected = images if images.ndim == 4 else images[..., np.newaxis]
    np.testing.assert_array_equal(
        shaped.transpose(0, 2, 3, 1), expected.astype(np.float32) / np.float32(255)
    )


@pytest.mark.parametrize(("fetch", "file", "image_shape", "input_shape"), CASES)
def test_bunch_names_classes_and_origin(tmp_path, fetch, file, image_shape, input_shape):
    save(tmp_path / file, make_arrays(image_shape))
    bunch = fetch(data_home=tmp_path)
    assert len(set(bunch.target_names)) == 10
    assert file in bunch.DESCR
    assert f"{N_TRAIN} images" in bunch.DESCR


@pytest.mark.parametrize(("fetch", "file", "image_shape", "input_shape"), CASES)
def test_pair_equals_bunch(tmp_path, fetch, file, image_shape, input_shape):
    save(tmp_path / file, make_arrays(image_shape))
    X, y = fetch(data_home=tmp_path, return_X_y=True)
    bunch = fetch(data_home=tmp_path)
    np.testing.assert_array_equal(X, bunch.data)
    np.testing.assert_array_equal(y, bunch.target)


def test_pixels_use_the_whole_unit_interval(tmp_path):
    arrays = make_arrays((28, 28))
    arrays["X_train"][0, 0, :2] = 0, 255
    save(tmp_path / "mnist.npz", arrays)
    data = fetch_mnist(data_home=tmp_path).data
    assert (data.min(), data.max()) == (0, 1)


def test_file_of_wide_integers_reads_the_same(tmp_path):
    arrays = make_arrays((28, 28))
    save(tmp_path / "narrow" / "mnist.npz", arrays)
    save(tmp_path / "wide" / "mnist.npz", {k: v.astype(np.int64) for k, v in arrays.items()})
    X_narrow, y_narrow = fetch_mnist(data_home=tmp_path / "narrow", return_X_y=True)
    X_wide, y_wide = fetch_mnist(data_home=tmp_path / "wide", return_X_y=True)
    assert X_wide.dtype == np.float32
    np.testing.assert_array_equal(X_narrow, X_wide)
    np.testing.assert_array_equal(y_narrow, y_wide)


def test_whole_cifar10_is_preferred_to_the_subset(tmp_path):
    whole, part = make_arrays((32, 32, 3)), make_arrays((32, 32, 3), seed=1)
    save(tmp_path / "cifar10_subset.npz", part)
    only_part = fetch_cifar10(data_home=tmp_path)
    save(tmp_path / "cifar10.npz", whole)
    both = fetch_cifar10(data_home=tmp_path)
    np.testing.assert_array_equal(only_part.target, part["y_train"])
    assert "cifar10_subset.npz" in only_part.DESCR
    np.testing.assert_array_equal(both.target, whole["y_train"])
    assert "cifar10_subset.npz" not in both.DESCR


def test_only_the_wanted_split_is_checked(tmp_path):
    arrays = make_arrays((28, 28)) | {"y_test": np.array([99])}
    save(tmp_path / "mnist.npz", arrays)
    assert len(fetch_mnist(data_home=tmp_path).data) == N_TRAIN
    with pytest.raises(ValueError, match="y_test"):
        fetch_mnist(data_home=tmp_path, subset="all")


# ---- where files are looked for ----------------------------------------------------------


def test_order_of_folders(tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("argument", "environment", "sklearn")}
    for n, folder in enumerate(folders.values()):
        arrays = make_arrays((28, 28)) | {"y_train": np.full(N_TRAIN, n)}
        save(folder / "mnist.npz", arrays)

    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(folders["sklearn"]))
    assert fetch_mnist().target[0] == 2
    monkeypatch.setenv("SKROBUST_DATA", str(folders["environment"]))
    assert fetch_mnist().target[0] == 1
    assert fetch_mnist(data_home=folders["argument"]).target[0] == 0
    assert fetch_mnist(data_home=str(folders["argument"])).target[0] == 0


def test_empty_environment_variable_counts_as_unset(tmp_path, monkeypatch):
    save(tmp_path / "home" / "mnist.npz", make_arrays((28, 28)))
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("SKROBUST_DATA", "")
    assert len(fetch_mnist().data) == N_TRAIN


# ---- downloading -------------------------------------------------------------------------


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
    small = datasets._Source(
        title="Small",
        description="",
        files=("small.npz",),
        image_shape=(2, 2),
        target_names=tuple("012"),
        openml="small",
        n_train=2,
    )
    use_openml(monkeypatch, openml_answer(2, 4))
    X, y = datasets._fetch(small, subset, tmp_path, True, True)
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


# ---- errors ------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("fetch", "file", "image_shape", "input_shape"), CASES)
def test_unknown_subset(tmp_path, fetch, file, image_shape, input_shape):
    message = "^Got subset='x', but expected one of 'train', 'test', 'all'.$"
    with pytest.raises(ValueError, match=message):
        fetch(subset="x", data_home=tmp_path)


@pytest.mark.parametrize("name", ["X_train", "y_train", "X_test", "y_test"])
def test_missing_array(tmp_path, name):
    arrays = make_arrays((28, 28))
    del arrays[name]
    save(tmp_path / "mnist.npz", arrays)
    with pytest.raises(ValueError, match=rf"mnist\.npz, but expected also {name}\.$"):
        fetch_mnist(data_home=tmp_path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"X_train": np.zeros((5, 28, 27), np.uint8)}, r"X_train of shape \(5, 28, 27\)"),
        ({"X_train": np.zeros((5, 784), np.uint8)}, r"expected shape \(n, 28, 28\)"),
        ({"X_train": np.uint8(0)}, r"X_train of shape \(\)"),
        ({"X_train": np.zeros((5, 28, 28))}, "X_train of dtype float64"),
        ({"X_train": np.full((5, 28, 28), 256)}, "X_train with values from 256 to 256"),
        ({"X_train": np.full((5, 28, 28), -1)}, "X_train with values from -1 to -1"),
        ({"y_train": np.zeros(4, np.uint8)}, r"y_train of shape \(4,\)"),
        ({"y_train": np.full(5, 10)}, r"y_train with the values \[10\]"),
        ({"y_train": np.full(5, -1)}, r"y_train with the values \[-1\]"),
        ({"y_train": np.zeros(5)}, r"y_train with the values \[0.0\]"),
        ({"y_train": np.array([None] * 5)}, "y_train, which NumPy cannot read"),
    ],
)
def test_array_that_is_not_as_expected(tmp_path, broken, message):
    save(tmp_path / "mnist.npz", make_arrays((28, 28)) | broken)
    with pytest.raises(ValueError, match=message) as caught:
        fetch_mnist(data_home=tmp_path)
    assert str(tmp_path / "mnist.npz") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_file_that_is_no_archive(tmp_path, content):
    (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(ValueError, match="but expected an npz file"):
        fetch_mnist(data_home=tmp_path)


def test_file_that_holds_a_single_array(tmp_path):
    with open(tmp_path / "mnist.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="Got a single array"):
        fetch_mnist(data_home=tmp_path)


def test_damaged_array_is_named(tmp_path):
    path = tmp_path / "mnist.npz"
    save(path, make_arrays((28, 28)))
    content = bytearray(path.read_bytes())
    content[1000] ^= 255  # within the pixels of X_train
    path.write_bytes(content)
    with pytest.raises(ValueError, match="X_train, which NumPy cannot read"):
        fetch_mnist(data_home=tmp_path)


def test_gtsrb_with_other_classes_is_refused(tmp_path):
    right = {"class_ids": np.array([1, 2, 4, 5, 9, 10, 12, 13, 25, 38])}
    save(tmp_path / "gtsrb10.npz", make_arrays((48, 48)) | right)
    assert len(fetch_gtsrb(data_home=tmp_path).data) == N_TRAIN
    save(tmp_path / "gtsrb10.npz", make_arrays((48, 48)) | {"class_ids": np.arange(10)})
    with pytest.raises(ValueError, match="Got class_ids"):
        fetch_gtsrb(data_home=tmp_path)


# ---- MNIST-C -----------------------------------------------------------------------------


def make_corrupted(folder, names, n=4, channels=True, **changed):
    """Write a folder as published; return its arrays."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", n + 2), ("test", n)):
        labels = rng.integers(0, 10, size)
        for name in names:
            shape = (size, 28, 28, 1) if channels else (size, 28, 28)
            images = rng.integers(0, 256, shape, dtype=np.uint8)
            arrays |= {f"{name}/{split}_images": images, f"{name}/{split}_labels": labels}
    for path, array in (arrays | changed).items():
        if array is not None:
            file = folder / "mnist_c" / f"{path}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, array)
    return arrays


@pytest.mark.parametrize("subset", ["train", "test", "all"])
@pytest.mark.parametrize("channels", [True, False])
def test_one_corruption_of_the_published_folder(tmp_path, subset, channels):
    arrays = make_corrupted(tmp_path, ["fog", "identity"], channels=channels)
    fog = fetch_mnist_c(corruption="fog", subset=subset, data_home=tmp_path)
    splits = ["train", "test"] if subset == "all" else [subset]
    images = np.concatenate([arrays[f"fog/{split}_images"] for split in splits])
    expected = images.reshape(-1, 784).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(fog.data, expected)
    labels = np.concatenate([arrays[f"fog/{split}_labels"] for split in splits])
    np.testing.assert_array_equal(fog.target, labels)
    assert (fog.data.dtype, fog.target.dtype) == (np.float32, np.int64)
    assert fog.input_shape == (1, 28, 28)
    assert f"corrupted: fog.\n\nSubset {subset!r}, {len(labels)} images" in fog.DESCR
    pair = fetch_mnist_c(corruption="fog", subset=subset, data_home=tmp_path, return_X_y=True)
    np.testing.assert_array_equal(pair[0], fog.data)
    clean = fetch_mnist_c(corruption="identity", subset=subset, data_home=tmp_path)
    assert (clean.data != fog.data).any()


def test_several_corruptions_are_a_dict(tmp_path):
    make_corrupted(tmp_path, datasets._CORRUPTIONS)
    everything = fetch_mnist_c(data_home=tmp_path)
    assert tuple(everything.data) == datasets._CORRUPTIONS
    assert len(everything.data) == 15
    some = fetch_mnist_c(corruption=["zigzag", "fog"], data_home=tmp_path)
    assert list(some.data) == ["zigzag", "fog"]
    for name, images in some.data.items():
        one = fetch_mnist_c(corruption=name, data_home=tmp_path)
        np.testing.assert_array_equal(one.data, images)
        np.testing.assert_array_equal(one.target, some.target)


def test_corruptions_in_one_file(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 28, 28), dtype=np.uint8)
    save(tmp_path / "mnist_c.npz", {"fog": images[0], "stripe": images[1], "y": [3, 1, 4]})
    monkeypatch.setenv("SKROBUST_DATA", str(tmp_path))
    found = fetch_mnist_c(corruption=["stripe", "fog"])
    np.testing.assert_array_equal(found.data["fog"] * 255, images[0].reshape(3, 784))
    assert found.target.tolist() == [3, 1, 4]
    with pytest.raises(ValueError, match=r"subset='train'.*but expected subset='test'"):
        fetch_mnist_c(corruption="fog", subset="train")
    with pytest.raises(ValueError, match=r"Got the arrays .* but expected also shot_noise"):
        fetch_mnist_c()
    # The published folder comes first.
    make_corrupted(tmp_path, ["fog"], n=2)
    assert len(fetch_mnist_c(corruption="fog").target) == 2


def test_missing_corruptions_are_described(tmp_path):
    with pytest.raises(FileNotFoundError, match="MNIST-C was not found") as info:
        fetch_mnist_c(data_home=tmp_path)
    for part in (str(tmp_path / "mnist_c.npz"), "SKROBUST_DATA"):
        assert part in str(info.value)
    make_corrupted(tmp_path, ["fog"])
    with pytest.raises(FileNotFoundError, match=r"MNIST-C lacks .*stripe.test_images\.npy"):
        fetch_mnist_c(corruption=["fog", "stripe"], data_home=tmp_path)


@pytest.mark.parametrize(
    ("path", "array", "message"),
    [
        ("fog/test_images", np.zeros((4, 8, 8), np.uint8), r"test_images of shape \(4, 8, 8\)"),
        ("fog/test_images", np.zeros((4, 28, 28)), "test_images of dtype float64"),
        ("fog/test_labels", np.zeros(3, int), r"labels of test_images of shape \(3,\)"),
        ("fog/test_labels", np.full(4, 11), r"labels of test_images with the values \[11\]"),
        ("fog/test_labels", np.arange(4), "other labels for fog.* but expected those for stripe"),
    ],
)
def test_corrupted_arrays_are_checked(tmp_path, path, array, message):
    make_corrupted(tmp_path, ["fog", "stripe"], **{path: array})
    with pytest.raises(ValueError, match=message):
        fetch_mnist_c(corruption=["stripe", "fog"], data_home=tmp_path)


def test_damaged_corruption(tmp_path):
    make_corrupted(tmp_path, ["fog"])
    (tmp_path / "mnist_c" / "fog" / "test_images.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"bytes that NumPy cannot read.*an npy file"):
        fetch_mnist_c(corruption="fog", data_home=tmp_path)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"corruption": "rain"},
            "Got corruption='rain', but expected one of 'identity', 'shot_noise'",
        ),
        ({"corruption": ["fog", 3]}, "Got corruption=3, but expected one of"),
        ({"corruption": []}, r"Got corruption=\[\], but expected at least one name"),
        ({"subset": "validation"}, "Got subset='validation', but expected one of"),
    ],
)
def test_unknown_corruptions(tmp_path, params, message):
    with pytest.raises(ValueError, match=message):
        fetch_mnist_c(data_home=tmp_path, **params)
