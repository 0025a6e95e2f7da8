"""Inputs in units of a scale: an affine layer in front of the model, and the way back."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skrobust._validation import expected, kind_of
from skrobust.networks._base import Model, Network
from skrobust.networks._pipeline import _Cast
from skrobust.networks._steps import Scale

__all__ = ["Units", "check_scale"]


def check_scale(scale, estimator, n_features):
    """Return a scale as a float64 array of shape (n_features,), or None.

    Parameters
    ----------
    scale : None, "std", float or array-like of shape (n_features,)
        Units of the features; "std" is the spread of the training data, as the StandardScaler
        that a pipeline starts with has seen it.
    estimator : object
        Fitted.
    n_features : int

    Raises
    ------
    ValueError
        If a unit is not above 0, there is another number of them, or the spread is not known.
    """
    if scale is None:
        return None
    if isinstance(scale, str) and scale == "std":
        scale = _training_spread(estimator, n_features)
    expectation = (
        "None, 'std', or units above 0: a finite float, or an array of such floats of shape "
        f"({n_features},)"
    )
    try:
        given = np.asarray(scale)
        array = given.astype(np.float64) if given.dtype.kind in "iuf" else None
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or array.shape not in ((), (n_features,)):
        raise ValueError(expected("scale", scale, expectation))
    is_unit = np.isfinite(array) & (array >= np.finfo(np.float64).tiny)
    if not is_unit.all():
        wrong = array[~is_unit][0] if array.ndim else array
        place = f" in feature {np.flatnonzero(~is_unit)[0]}" if array.ndim else ""
        advice = "" if wrong else ". A feature that cannot change has the epsilon 0"
        raise ValueError(f"Got scale={wrong}{place}, but expected {expectation}{advice}.")
    return np.broadcast_to(array, (n_features,)).copy()


def _training_spread(estimator, n_features):
    estimator = getattr(estimator, "best_estimator_", estimator)
    first = estimator.steps[0][1] if isinstance(estimator, Pipeline) else estimator
    spread = getattr(first, "scale_", None) if isinstance(first, StandardScaler) else None
    if spread is None or len(spread) != n_features:
        raise ValueError(
            f"Got scale='std' with {kind_of(estimator)}, but expected a pipeline that starts with "
            "a StandardScaler: other estimators do not say how far their training data spread. "
            "Give scale=X_train.std(axis=0)."
        )
    return spread


@dataclass(frozen=True, eq=False)
class Units:
    """Units of the features: what is computed in them, and the way back to raw inputs.

    The estimator itself sees raw rows only: those of `raw`. So a point in these units stands for
    one row exactly, and what is confirmed of it is true of that row.

    Parameters
    ----------
    scale : ndarray of shape (n_features,)
        Above 0.
    bounds : pair or None
        In raw units.
    """

    scale: np.ndarray
    bounds: tuple | None

    @classmethod
    def of(cls, model, scale, bounds):
        """Return units of a model's rows; columns of categories, which cannot move, keep theirs.

        Rounding on the way to other units and back would make another value of a category.
        """
        own = np.array(scale, dtype=np.float64)
        own[list(model.categories)] = 1.0
        return cls(own, bounds)

    @property
    def scaled_bounds(self):
        """The bounds in these units, or None."""
        if self.bounds is None:
            return None
        with np.errstate(over="ignore"):
            return tuple(np.asarray(bound) / self.scale for bound in self.bounds)

    def rows(self, X):
        """Return raw rows in these units, as float64."""
        rows = np.asarray(X, dtype=np.float64) / self.scale
        # What lies in the bounds shall not leave them by rounding.
        return rows if self.bounds is None else np.clip(rows, *self.scaled_bounds)

    def raw(self, rows):
        """Return the raw rows that points in these units stand for, as float64."""
        X = np.asarray(rows, dtype=np.float64) * self.scale
        return X if self.bounds is None else np.clip(X, *self.bounds)

    def examples(self, model, points, X):
        """Return the raw rows of points around samples; what has not moved is as it was.

        Parameters
        ----------
        model : Model
            Of raw rows.
        points : ndarray of shape (n, n_features)
            In these units; rows of NaN stay.
        X : ndarray of shape (n, n_features)
            The samples, in raw units.

        Returns
        -------
        ndarray of shape (n, n_features)
        """
        raw = self.raw(points)
        there = np.flatnonzero(np.isfinite(raw).all(axis=1))
        if len(there):
            # Rounding on the way there and back may have moved these by their last digit.
            kept = np.where(points[there] == self.rows(X[there]), X[there], raw[there])
            labels = (model.replay_rows(rows).argmax(dim=1) for rows in (kept, raw[there]))
            same = torch.eq(*labels).cpu().numpy()
            raw[there[same]] = kept[same]
        return raw

    def rounding(self, X):
        """Return how far, in these units, rounding can take each row on its way, (n,)."""
        rows = np.abs(np.asarray(X, dtype=np.float64) / self.scale)
        return 4 * np.finfo(np.float64).eps * rows.max(axis=1)

    def model(self, model):
        """Return a `Model` whose rows are in these units.

        Parameters
        ----------
        model : Model
            Of raw rows.

        Returns
        -------
        Model
        """
        if not isinstance(model, Network):
            return _ScaledBox(model, self)
        weight = torch.tensor(self.scale, device=model.device)
        module = torch.nn.Sequential(
            Scale(weight, torch.zeros_like(weight)),
            _Cast(model.dtype),
            model.module,
            _Cast(torch.float64),
        )
        return Network(
            module,
            model.classes,
            len(self.scale),
            _Replay(model, self),
            probabilistic=model.probabilistic,
            dtype=torch.float64,
            categories=model.categories,
        )


@dataclass(frozen=True, eq=False)
class _Replay:
    """The outputs as the estimator computes them, at rows in units of a scale."""

    model: Model
    units: Units

    def __call__(self, rows):
        return self.model.replay_rows(self.units.raw(rows))


class _ScaledBox(Model):
    """A black box whose rows are in units of a scale."""

    def __init__(self, model, units):
        super().__init__(
            model.classes,
            len(units.scale),
            probabilistic=model.probabilistic,
            dtype=torch.float64,
            device=model.device,
        )
        self.inner, self.units = model, units

    def fingerprint(self):
        return self.inner.fingerprint(), self.units.scale, self.units.bounds

    def __call__(self, x):
        return self.inner(self.inner.rows(self.units.raw(x.cpu().numpy())))
