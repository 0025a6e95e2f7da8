"""Points of the data manifold near a sample, by an autoencoder (equation 13 of Tibo et al.)."""

import numpy as np
import torch

from skrobust._validation import expected
from skrobust.networks import evaluation_mode

__all__ = ["LatentNoise"]

_METHOD_PAIRS = (("encode", "decode"), ("transform", "inverse_transform"))


class LatentNoise:
    """A neighborhood of `RobustnessScore`: points decoded from codes with normal noise.

    Parameters
    ----------
    autoencoder : object
        As that of `ManifoldRobustness`.
    bounds : pair of floats or of arrays, or None
        That decoded points are clipped to.
    """

    def __init__(self, autoencoder, bounds):
        self.autoencoder, self.bounds = autoencoder, bounds

    def check(self):
        """Refuse what cannot encode and decode; return self."""
        if isinstance(self.autoencoder, type) or self._names() is None:
            expectation = "a fitted object with " + " or ".join(map(" and ".join, _METHOD_PAIRS))
            raise TypeError(expected("autoencoder", self.autoencoder, expectation))
        return self

    def _names(self):
        for names in _METHOD_PAIRS:
            if all(callable(getattr(self.autoencoder, name, None)) for name in names):
                return names
        return None

    def codes(self, X):
        """Return the codes of rows, of shape (n, *code_shape)."""
        codes = self._call(self._names()[0], X)
        if codes.ndim == 0 or len(codes) != len(X):
            raise ValueError(
                f"Got an autoencoder with codes of shape {codes.shape}, but expected {len(X)} "
                "rows of codes."
            )
        return codes

    def decoded(self, codes, n_features):
        """Return the rows that codes stand for, inside the bounds."""
        rows = self._call(self._names()[1], codes)
        if rows.shape[:1] != (len(codes),) or rows.size != len(codes) * n_features:
            raise ValueError(
                f"Got an autoencoder that decodes to shape {rows.shape}, but expected "
                f"({len(codes)}, {n_features})."
            )
        rows = rows.reshape(len(codes), n_features)
        return rows if self.bounds is None else np.clip(rows, *self.bounds)

    def __call__(self, X, labels, epsilon, n_samples, generator):
        codes = self.codes(X)
        noise = generator.standard_normal((len(X), n_samples, *codes.shape[1:]))
        with np.errstate(over="ignore"):
            noisy = (codes[:, None] + epsilon * noise).astype(codes.dtype)
        if not np.isfinite(noisy).all():
            raise ValueError(expected("sigma", epsilon, f"codes in the range of {codes.dtype}"))
        rows = self.decoded(noisy.reshape(-1, *codes.shape[1:]), X.shape[1])
        return rows.reshape(len(X), n_samples, -1)

    def _call(self, name, values):
        method = getattr(self.autoencoder, name)
        if isinstance(self.autoencoder, torch.nn.Module):
            first = next(self.autoencoder.parameters(), torch.empty(0))
            values = torch.as_tensor(values, dtype=first.dtype, device=first.device)
            with evaluation_mode(self.autoencoder), torch.no_grad():
                returned = method(values).cpu().numpy()
        else:
            returned = np.asarray(method(values))
        if returned.dtype.kind not in "fiub":
            raise TypeError(
                f"Got an autoencoder whose {name} returns type {returned.dtype}, but expected "
                "real numbers."
            )
        if returned.dtype.kind != "f":
            returned = returned.astype(np.float64)
        if not np.isfinite(returned).all():
            raise ValueError(
                f"Got an autoencoder whose {name} returns NaN or infinity, but expected finite "
                "numbers."
            )
        return returned
