"""Files are looked for in order, and refused by name where they are not as they should be."""

import numpy as np
import pytest

from skrobust.datasets import fetch_gtsrb, fetch_mnist
from tests.datasets._files import N_TRAIN, make_arrays, save


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


@pytest.mark.parametrize("data_home", [3, ["folder"], b"folder"])
def test_data_home_that_is_no_path(data_home):
    with pytest.raises(TypeError, match=r"^Got data_home=.*, but expected a path, or None.$"):
        fetch_mnist(data_home=data_home)


def test_file_of_wide_integers_reads_the_same(tmp_path):
    arrays = make_arrays((28, 28))
    save(tmp_path / "narrow" / "mnist.npz", arrays)
    save(tmp_path / "wide" / "mnist.npz", {k: v.astype(np.int64) for k, v in arrays.items()})
    X_narrow, y_narrow = fetch_mnist(data_home=tmp_path / "narrow", return_X_y=True)
    X_wide, y_wide = fetch_mnist(data_home=tmp_path / "wide", return_X_y=True)
    assert X_wide.dtype == np.float32
    np.testing.assert_array_equal(X_narrow, X_wide)
    np.testing.assert_array_equal(y_narrow, y_wide)


def test_only_the_wanted_split_is_checked(tmp_path):
    arrays = make_arrays((28, 28)) | {"y_test": np.array([99])}
    save(tmp_path / "mnist.npz", arrays)
    assert len(fetch_mnist(data_home=tmp_path).data) == N_TRAIN
    with pytest.raises(ValueError, match="y_test"):
        fetch_mnist(data_home=tmp_path, subset="all")


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
        ({"X_train": np.zeros((0, 28, 28), np.uint8)}, "but expected one image at least"),
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


MOST_FREQUENT_SIGNS = [1, 2, 4, 5, 9, 10, 12, 13, 25, 38]


@pytest.mark.parametrize("others", [np.arange(10), np.array(MOST_FREQUENT_SIGNS)])
def test_gtsrb_with_other_classes_is_refused(tmp_path, others):
    right = {"class_ids": np.array([3, 5, 6, 11, 12, 13, 14, 32, 38, 39])}
    save(tmp_path / "gtsrb10.npz", make_arrays((48, 48)) | right)
    assert len(fetch_gtsrb(data_home=tmp_path).data) == N_TRAIN
    save(tmp_path / "gtsrb10.npz", make_arrays((48, 48)) | {"class_ids": others})
    with pytest.raises(ValueError, match=r"Got class_ids .* expected \(3, 5, 6, 11, 12, 13, 14"):
        fetch_gtsrb(data_home=tmp_path)
