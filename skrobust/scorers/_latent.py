"""Points of the data manifold near a sample, by an autoencoder (equation 13 of Tibo et al.)."""

import numpy as np

from skrobust._validation import expected
from skrobust.networks import LatentSpace

__all__ = ["LatentNoise"]


class LatentNoise(LatentSpace):
    """A neighborhood of `RobustnessScore`: points decoded from codes with normal noise.

    Parameters
    ----------
    autoencoder : object
        As that of `ManifoldRobustness`.
    bounds : pair of floats or of arrays, or None
        That decoded points are clipped to.
    """

    def __call__(self, X, labels, epsilon, n_samples, generator):
        codes = self.codes(X)
        noise = generator.standard_normal((len(X), n_samples, *codes.shape[1:]))
        with np.errstate(over="ignore"):
            noisy = (codes[:, None] + epsilon * noise).astype(codes.dtype)
        if not np.isfinite(noisy).all():
            raise ValueError(expected("sigma", epsilon, f"codes in the range of {codes.dtype}"))
        rows = self.decoded(noisy.reshape(-1, *codes.shape[1:]), X.shape[1])
        return rows.reshape(len(X), n_samples, -1)
