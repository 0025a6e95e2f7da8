"""What the loaders return."""

import numpy as np
import pytest

from skrobust.datasets._bunch import check_subset, packed, scaled
from skrobust.datasets._sources import CIFAR10


def test_pixels_are_scaled_in_float32():
    pixels = np.arange(256, dtype=np.uint8)[None]
    data = scaled(pixels)
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data, pixels.astype(np.float32) / np.float32(255))


def test_packed_is_a_pair_or_a_bunch():
    data, target = np.zeros((2, 3072), np.float32), np.array([3, 9], np.uint8)
    X, y = packed(CIFAR10, data, target, "test", "the file x", True)
    assert X is data
    assert (y.dtype, y.tolist()) == (np.int64, [3, 9])
    bunch = packed(CIFAR10, data, target, "test", "the file x", False)
    assert bunch.input_shape == (3, 32, 32)
    assert [bunch.target_names[label] for label in bunch.target] == ["cat", "truck"]
    assert "Subset 'test', 2 images, pixels divided by 255, from the file x." in bunch.DESCR


def test_subsets():
    assert [check_subset(name) for name in ("train", "test", "all")] == ["train", "test", "all"]
    with pytest.raises(ValueError, match=r"^Got subset=\['train'\], but expected one of 'train'"):
        check_subset(["train"])
