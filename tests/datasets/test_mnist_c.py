"""MNIST-C, from a folder as published or from one file."""

import numpy as np
import pytest

from skrobust.datasets import fetch_mnist_c
from skrobust.datasets._mnist_c import CORRUPTIONS
from tests.datasets._files import save


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
    make_corrupted(tmp_path, CORRUPTIONS)
    everything = fetch_mnist_c(data_home=tmp_path)
    assert tuple(everything.data) == CORRUPTIONS
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


def test_empty_corruption(tmp_path):
    make_corrupted(tmp_path, ["fog"], **{"fog/test_images": np.zeros((0, 28, 28), np.uint8)})
    with pytest.raises(ValueError, match="but expected one image at least"):
        fetch_mnist_c(corruption="fog", data_home=tmp_path)


def test_flag_that_is_no_bool(tmp_path):
    with pytest.raises(ValueError, match=r"^Got return_X_y='no', but expected True or False.$"):
        fetch_mnist_c(data_home=tmp_path, return_X_y="no")
