"""Autoencoders of any kind: from rows to codes and back, for arrays and for tensors."""

import math
from functools import cached_property, singledispatch

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skrobust._validation import expected, kind_of, shown
from skrobust.networks._modules import dtype_and_device, evaluation_mode, linear_layer
from skrobust.networks._rows import without_names

__all__ = ["LatentSpace", "as_autoencoder"]

_METHOD_PAIRS = (("encode", "decode"), ("transform", "inverse_transform"))


@singledispatch
def as_autoencoder(autoencoder):
    """Return an autoencoder as a torch module, through which there are gradients.

    Parameters
    ----------
    autoencoder : object
        A `torch.nn.Module` with ``encode`` and ``decode``, a fitted `Autoencoder` or PCA of
        scikit-learn, also in a FrozenEstimator. Other kinds can be registered, as with
        `functools.singledispatch`.

    Returns
    -------
    torch.nn.Module or None
        With the methods ``encode`` and ``decode``, from tensors to tensors; None for other kinds.
    """
    return None


@as_autoencoder.register
def _(autoencoder: torch.nn.Module):
    return autoencoder if _names(autoencoder) == _METHOD_PAIRS[0] else None


class _Affine(torch.nn.Module):
    """A linear layer each way."""

    def __init__(self, encode, decode):
        super().__init__()
        self.encode, self.decode = encode, decode


@as_autoencoder.register
def _(autoencoder: PCA):
    # A subclass may transform in another way.
    if type(autoencoder) is not PCA or not hasattr(autoencoder, "components_"):
        return None
    directions = autoencoder.components_
    scale = np.ones(len(directions), directions.dtype)
    if autoencoder.whiten:
        # As PCA itself does, so that a component without variance cannot divide by zero.
        scale = np.sqrt(autoencoder.explained_variance_)
        scale = np.maximum(scale, np.finfo(scale.dtype).eps)
    down = directions / scale[:, np.newaxis]
    up = (directions * scale[:, np.newaxis]).T
    encode = linear_layer(down, -down @ autoencoder.mean_)
    return _Affine(encode, linear_layer(up, autoencoder.mean_))


@as_autoencoder.register
def _(autoencoder: FrozenEstimator):
    return as_autoencoder(autoencoder.estimator)


def _names(autoencoder):
    """Return the names of the two methods of an autoencoder, or None where there are none."""
    for names in _METHOD_PAIRS:
        if all(callable(getattr(autoencoder, name, None)) for name in names):
            return names
    return None


class LatentSpace:
    """The codes of an autoencoder, and the points that codes stand for.

    Parameters
    ----------
    autoencoder : object
        Fitted, with ``encode`` and ``decode``, or with ``transform`` and
        ``inverse_transform``.
    bounds : pair of floats or of arrays, or None, default=None
        That decoded points are clipped to.

    Raises
    ------
    TypeError
        If the autoencoder has neither pair of methods, or they return other than numbers.
    ValueError
        By the methods, where codes or points have a wrong shape or are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.decomposition import PCA
    >>> from skrobust.networks import LatentSpace
    >>> X = np.array([[0.0, 0.2], [0.5, 0.5], [1.0, 0.8]])
    >>> latent = LatentSpace(PCA(1).fit(X), bounds=(0.0, 1.0))
    >>> codes = latent.codes(X)
    >>> latent.decoded(codes, n_features=2).round(3)
    array([[0. , 0.2],
           [0.5, 0.5],
           [1. , 0.8]])
    """

    def __init__(self, autoencoder, bounds=None):
        self.names = None if isinstance(autoencoder, type) else _names(autoencoder)
        if self.names is None:
            expectation = "a fitted object with " + " or ".join(map(" and ".join, _METHOD_PAIRS))
            raise TypeError(expected("autoencoder", autoencoder, expectation))
        self.autoencoder, self.bounds = autoencoder, bounds

    def codes(self, X):
        """Return the codes of rows.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, *code_shape)
        """
        return _checked_codes(self._call(self.names[0], X), len(X))

    def decoded(self, codes, n_features):
        """Return the rows that codes stand for, inside the bounds.

        Parameters
        ----------
        codes : ndarray of shape (n, *code_shape)
        n_features : int

        Returns
        -------
        ndarray of shape (n, n_features)
        """
        rows = _checked_rows(self._call(self.names[1], codes), len(codes), n_features)
        return rows if self.bounds is None else np.clip(rows, *self.bounds)

    @cached_property
    def module(self):
        """The autoencoder by `as_autoencoder`: a module that has gradients, or None."""
        return as_autoencoder(self.autoencoder)

    def encode(self, x):
        """Return the codes of a tensor of rows, without gradient.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)

        Returns
        -------
        Tensor of shape (n, *code_shape)
            In the precision, and on the device, of `x`.
        """
        if self.module is None:
            return torch.as_tensor(self.codes(x.detach().cpu().numpy())).to(x)
        with torch.no_grad():
            codes = _checked_codes(_run(self.module, "encode", x), len(x))
        return _checked_finite(codes, "encode").to(x)

    def decode(self, codes, n_features):
        """Return the rows that a tensor of codes stands for, inside the bounds.

        Parameters
        ----------
        codes : Tensor of shape (n, *code_shape)
        n_features : int

        Returns
        -------
        Tensor of shape (n, n_features)
            In the precision, and on the device, of `codes`; with a gradient, unless `module` is
            None.
        """
        if self.module is None:
            rows = self.decoded(codes.detach().cpu().numpy(), n_features)
            return torch.as_tensor(rows).to(codes)
        rows = _checked_rows(_run(self.module, "decode", codes), len(codes), n_features)
        rows = _checked_finite(rows, "decode").to(codes)
        if self.bounds is None:
            return rows
        return torch.clamp(rows, *(torch.as_tensor(bound).to(rows) for bound in self.bounds))

    def check_rows(self, X):
        """Refuse an autoencoder that does not take rows, or does not return some of their width.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
            One row is enough.

        Raises
        ------
        NotFittedError
            If the autoencoder is not fitted.
        ValueError
            If it is one of other rows, or fails.
        """
        n_features = getattr(self.autoencoder, "n_features_in_", None)
        if n_features not in (None, X.shape[1]):
            expectation = f"one of {X.shape[1]} features, as X has, not of {n_features}"
            raise ValueError(expected("autoencoder", self.autoencoder, expectation))
        try:
            self.decoded(self.codes(X), X.shape[1])
        except NotFittedError:
            raise
        except Exception as error:  # whatever an autoencoder of users' raises
            if str(error).startswith("Got an autoencoder"):
                raise
            expectation = f"one that takes rows of {X.shape[1]} features. It says: {error}"
            raise ValueError(
                f"Got autoencoder={shown(self.autoencoder)}, but expected {expectation}"
            ) from error

    def _call(self, name, values):
        method = getattr(self.autoencoder, name)
        if isinstance(self.autoencoder, torch.nn.Module):
            with torch.no_grad():
                returned = _run(self.autoencoder, name, torch.as_tensor(values))
            returned = returned.cpu().numpy()
        else:
            with without_names():
                returned = np.asarray(method(values))
        if returned.dtype.kind not in "fiub":
            raise TypeError(
                f"Got an autoencoder whose {name} returns type {returned.dtype}, but expected "
                "real numbers."
            )
        if returned.dtype.kind != "f":
            returned = returned.astype(np.float64)
        return _checked_finite(returned, name)


def _run(module, name, values):
    """Call a method of a module in evaluation mode, with a tensor of its own kind."""
    dtype, device = dtype_and_device(module)
    with evaluation_mode(module):
        returned = getattr(module, name)(values.to(device, dtype))
    if not isinstance(returned, torch.Tensor):
        raise TypeError(
            f"Got an autoencoder whose {name} returns {kind_of(returned)}, but expected a tensor."
        )
    return returned


def _checked_finite(returned, name):
    is_tensor = isinstance(returned, torch.Tensor)
    if not (torch if is_tensor else np).isfinite(returned).all():
        raise ValueError(
            f"Got an autoencoder whose {name} returns NaN or infinity, but expected finite "
            "numbers."
        )
    return returned


def _checked_codes(codes, n):
    if codes.ndim == 0 or len(codes) != n:
        raise ValueError(
            f"Got an autoencoder with codes of shape {tuple(codes.shape)}, but expected {n} "
            "rows of codes."
        )
    return codes


def _checked_rows(rows, n, n_features):
    shape = tuple(rows.shape)
    if shape[:1] != (n,) or math.prod(shape) != n * n_features:
        raise ValueError(
            f"Got an autoencoder that decodes to shape {shape}, but expected ({n}, {n_features})."
        )
    return rows.reshape(n, n_features)
