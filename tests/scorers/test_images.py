"""Corruptions of images: what each does to pixels."""

import numpy as np
import pytest

from skrobust.scorers._images import CORRUPTIONS

NAMES = list(CORRUPTIONS)


def corrupt(name, images, severity=3, seed=0):
    images = np.asarray(images, dtype=np.float32)
    return CORRUPTIONS[name](images, severity, np.random.default_rng(seed))


@pytest.fixture
def images():
    return np.random.default_rng(1).random((20, 24, 20)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_corruptions_keep_shape_and_grow(name, images):
    change = []
    for severity in range(1, 6):
        before = images.copy()
        corrupted = corrupt(name, images, severity)
        np.testing.assert_array_equal(images, before)
        assert corrupted.shape == images.shape
        assert corrupted.dtype == np.float32
        change.append(np.abs(corrupted - images).mean())
    # Except for a shift of noise, where one pixel is as far as several.
    assert (np.diff(change) > 0).all() if name != "shift" else change[0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_colors_are_corrupted_alike(name):
    gray = np.random.default_rng(0).random((6, 1, 8, 8)).astype(np.float32)
    corrupted = corrupt(name, np.repeat(gray, 3, axis=1))
    if name == "noise":
        assert corrupted.shape == (6, 3, 8, 8)
        return
    np.testing.assert_allclose(corrupted[:, 0], corrupted[:, 2], atol=1e-6)
    np.testing.assert_allclose(corrupted[:, :1], corrupt(name, gray), atol=1e-6)


def test_noise_has_its_deviation():
    corrupted = corrupt("noise", np.zeros((50, 20, 20)), severity=2)
    assert corrupted.std() == pytest.approx(0.08, rel=0.05)
    assert abs(corrupted.mean()) < 0.005


def test_blur_keeps_constant_images_and_the_mean():
    np.testing.assert_allclose(corrupt("blur", np.full((2, 9, 9), 0.3)), 0.3, atol=1e-6)
    point = np.zeros((1, 15, 15))
    point[0, 7, 7] = 1
    corrupted = corrupt("blur", point)
    assert corrupted.sum() == pytest.approx(1, abs=1e-3)
    assert corrupted.max() < 0.6


def test_shift_moves_by_its_distance():
    point = np.zeros((40, 20, 20))
    point[:, 10, 10] = 1
    corrupted = corrupt("shift", point, severity=3)  # a tenth of the height: two pixels
    places = {tuple(np.unravel_index(image.argmax(), (20, 20))) for image in corrupted}
    assert places == {(8, 10), (12, 10), (10, 8), (10, 12)}
    np.testing.assert_allclose(corrupted.max(axis=(1, 2)), 1, atol=1e-6)


def test_rotate_keeps_the_center():
    point = np.zeros((10, 21, 21))
    point[:, 10, 10] = 1
    np.testing.assert_allclose(corrupt("rotate", point)[:, 10, 10], 1, atol=1e-6)
    bar = np.zeros((30, 21, 21))
    bar[:, 10, 2:19] = 1
    corrupted = corrupt("rotate", bar)
    # Both ways round, and by 24 degrees: the ends rise by 8 tan(24) = 3.6 at most.
    ends = {image[:, 3].argmax() - 10 for image in corrupted}
    assert len(ends) == 2 and all(2 <= abs(end) <= 4 for end in ends)


def test_contrast_is_lowered_around_the_mean(images):
    corrupted = corrupt("contrast", images, severity=3)
    np.testing.assert_allclose(corrupted.mean(axis=(1, 2)), images.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(
        corrupted.std(axis=(1, 2)), 0.4 * images.std(axis=(1, 2)), rtol=1e-4
    )


def test_occlusion_hides_one_square():
    corrupted = corrupt("occlusion", np.ones((30, 20, 20)), severity=3)
    np.testing.assert_array_equal((corrupted == 0).sum(axis=(1, 2)), 36)
    for image in corrupted:
        rows, columns = np.nonzero(image == 0)
        assert np.ptp(rows) == np.ptp(columns) == 5
    assert len({tuple(np.argwhere(image == 0)[0]) for image in corrupted}) > 10
