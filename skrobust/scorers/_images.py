"""Corruptions of images: noise, blur, shifts, rotations, contrast and occlusion.

Each is a function of images with pixels in [0, 1] and rows and columns last, of a severity from 1
to 5, and of a `numpy.random.Generator`. Lengths grow with the height of the image. The kinds are
some of those of Hendrycks and Dietterich (ICLR 2019) and of MNIST-C (Mu and Gilmer, 2019); the
five strengths of each are this library's own, chosen for small images.
"""

import numpy as np
from scipy import ndimage

__all__ = ["CORRUPTIONS"]


def _noise(images, severity, generator):
    deviation = (0.04, 0.08, 0.12, 0.18, 0.26)[severity - 1]
    noise = generator.standard_normal(images.shape, dtype=np.float32)
    return images + np.float32(deviation) * noise


def _blur(images, severity, generator):
    sigma = (0.02, 0.03, 0.045, 0.065, 0.09)[severity - 1] * images.shape[-2]
    return ndimage.gaussian_filter(images, sigma, axes=(-2, -1))


def _shift(images, severity, generator):
    distance = (0.04, 0.07, 0.1, 0.14, 0.18)[severity - 1] * images.shape[-2]
    moves = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
    direction = generator.integers(len(moves), size=len(images))
    shifted = np.empty_like(images)
    for i, move in enumerate(moves):
        offset = [0.0] * (images.ndim - 2) + list(distance * move)
        shifted[direction == i] = ndimage.shift(images[direction == i], offset, order=1)
    return shifted


def _rotate(images, severity, generator):
    angle = (8, 16, 24, 32, 40)[severity - 1]
    clockwise = generator.integers(2, size=len(images)) == 1
    rotated = np.empty_like(images)
    for chosen, sign in ((clockwise, -1), (~clockwise, 1)):
        rotated[chosen] = ndimage.rotate(
            images[chosen], sign * angle, axes=(-1, -2), reshape=False, order=1
        )
    return rotated


def _contrast(images, severity, generator):
    factor = (0.7, 0.55, 0.4, 0.25, 0.15)[severity - 1]
    mean = images.mean(axis=tuple(range(1, images.ndim)), keepdims=True)
    return mean + np.float32(factor) * (images - mean)


def _occlusion(images, severity, generator):
    height, width = images.shape[-2:]
    side = max(1, round((0.15, 0.22, 0.3, 0.38, 0.46)[severity - 1] * min(height, width)))
    first_row = generator.integers(height - side + 1, size=(len(images), 1, 1))
    first_column = generator.integers(width - side + 1, size=(len(images), 1, 1))
    row, column = np.arange(height)[:, None], np.arange(width)
    in_rows = (row >= first_row) & (row < first_row + side)
    in_columns = (column >= first_column) & (column < first_column + side)
    hidden = in_rows & in_columns
    if images.ndim == 4:
        hidden = hidden[:, None]
    return np.where(hidden, np.float32(0), images)


CORRUPTIONS = {
    "noise": _noise,
    "blur": _blur,
    "shift": _shift,
    "rotate": _rotate,
    "contrast": _contrast,
    "occlusion": _occlusion,
}
