"""The loaders return what the files hold, as a Bunch or a pair."""

import numpy as np
import pytest
from sklearn.datasets import load_digits as load_sklearn_digits

from skrobust.datasets import fetch_cifar10, fetch_mnist, load_digits
from tests.datasets._files import CASES, N_TRAIN, make_arrays, save


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


@pytest.mark.parametrize(("fetch", "file", "image_shape", "input_shape"), CASES)
def test_unknown_subset(tmp_path, fetch, file, image_shape, input_shape):
    message = "^Got subset='x', but expected one of 'train', 'test', 'all'.$"
    with pytest.raises(ValueError, match=message):
        fetch(subset="x", data_home=tmp_path)


@pytest.mark.parametrize("flag", [None, 1, "no", [], np.array([True])])
def test_flags_that_are_not_bools(tmp_path, flag):
    for load in (load_digits, fetch_mnist):
        with pytest.raises(ValueError, match=r"^Got return_X_y=.*, but expected True or False.$"):
            load(return_X_y=flag)
    with pytest.raises(ValueError, match=r"^Got download_if_missing="):
        fetch_mnist(download_if_missing=flag, data_home=tmp_path)
    assert len(load_digits(return_X_y=np.True_)) == 2
