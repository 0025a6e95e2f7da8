"""The steps in front of a classifier as one map of the raw input.

All of them together are affine in the raw columns and, where there are encoders of categories, in
hinges ``relu(x_j - knot)`` of them: between two categories an encoder is read as the straight
line, so that it has the right outputs at each category. Elsewhere the encoder itself has none.
"""

from dataclasses import dataclass, field
from functools import singledispatchmethod
from itertools import pairwise

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._affine import AffineMap, read_affine
from skrobust.networks._modules import linear_layer
from skrobust.networks._rows import named_rows, without_names

__all__ = ["Scale", "StepReader"]


class Scale(torch.nn.Module):
    """The map x * weight + bias of each feature.

    Parameters
    ----------
    weight, bias : Tensor of shape (n_features,) or ()
    """

    def __init__(self, weight, bias):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x):
        return torch.addcmul(self.bias, x, self.weight)


class _WithHinges(torch.nn.Module):
    """The columns, and behind them the hinges of some of them.

    Parameters
    ----------
    columns : list of int
        Of each hinge.
    knots : list of float
        Where it leaves 0.
    n_features : int
    """

    def __init__(self, columns, knots, n_features):
        super().__init__()
        self.shifted = linear_layer(np.eye(n_features)[columns], -np.array(knots))

    def forward(self, x):
        return torch.cat([x, torch.relu(self.shifted(x))], dim=1)


@dataclass(eq=False)
class StepReader:
    """Reads steps one after the other; knows what they ask of the raw columns.

    Parameters
    ----------
    n_features : int
        Of the raw input.

    Attributes
    ----------
    hinges : list of (int, float)
        Column and knot of each.
    categories : dict of int to ndarray
        Rising numbers, which alone a raw column may hold.
    """

    n_features: int
    hinges: list = field(default_factory=list)
    categories: dict = field(default_factory=dict)

    def map(self, steps):
        """Return the map from columns and hinges of a list of (name, fitted step)."""
        z = AffineMap.identity(self.n_features)
        for name, step in steps:
            z = self.read(step, z, name)
        return z

    def module(self, steps):
        """Return the torch module of a list of (name, fitted step), in float64."""
        z = self.map(steps)
        if not self.hinges:
            return _layer(z)
        hinges = _WithHinges(*map(list, zip(*self.hinges, strict=True)), self.n_features)
        return torch.nn.Sequential(hinges, linear_layer(*self._wide(z)))

    def _wide(self, z):
        """Return weight and bias of a map that was made when there were fewer hinges."""
        missing = self.n_features + len(self.hinges) - z.matrix.shape[1]
        return np.pad(z.matrix, ((0, 0), (0, missing))), z.bias

    def _stacked(self, maps):
        parts = [self._wide(z) for z in maps]
        if not parts:
            empty = np.zeros((0, self.n_features + len(self.hinges)))
            return AffineMap(empty, np.zeros(0))
        return AffineMap(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @singledispatchmethod
    def read(self, step, z, name):
        """Return the map of a step behind z.

        Parameters
        ----------
        step : object
            Fitted.
        z : AffineMap
            From columns and hinges to what the step is given.
        name : str
            Of the step, with those that it stands in.

        Raises
        ------
        UnsupportedModelError
        """
        if step is None or (isinstance(step, str) and step == "passthrough"):
            return z
        own = read_affine(step, len(z.bias))
        if own is None:
            raise UnsupportedModelError(
                f"The step {name!r} of the pipeline, {kind_of(step)}, is not known to be "
                "affine, so the pipeline cannot be read as one network. Sampling "
                "(ConstraintAccuracy) works with any pipeline. If the step is affine, declare it: "
                "a function of a FunctionTransformer by skrobust.networks.affine, a class by "
                "skrobust.networks.affine_map.register."
            )
        return own.after(z)

    @read.register
    def _(self, step: Pipeline, z, name):
        for part, inner in step.steps:
            z = self.read(inner, z, f"{name}__{part}")
        return z

    @read.register
    def _(self, step: FeatureUnion, z, name):
        weights = step.transformer_weights or {}
        parts = [
            self.read(inner, z, f"{name}__{part}") * weights.get(part, 1.0)
            for part, inner in step.transformer_list
            if not (isinstance(inner, str) and inner == "drop")
        ]
        return self._stacked(parts)

    @read.register
    def _(self, step: ColumnTransformer, z, name):
        weights, parts = step.transformer_weights or {}, []
        for part, inner, columns in step.transformers_:
            places = _places(columns, step)
            if len(places) and not (isinstance(inner, str) and inner == "drop"):
                chosen = self.read(inner, z[places], f"{name}__{part}")
                parts.append(chosen * weights.get(part, 1.0))
        return self._stacked(parts)

    @read.register(OneHotEncoder)
    @read.register(OrdinalEncoder)
    @read.register(TargetEncoder)
    def _(self, step, z, name):
        columns = [self._raw_column(z, k, step, name) for k in range(len(z.bias))]
        values = [_numbers(v, step, name) for v in step.categories_]
        first = np.array([v[0] for v in values])
        start = _encoded(step, first[None])[0]
        weight = np.zeros((len(start), self.n_features + len(self.hinges)))
        bias = start.copy()
        for k, (column, known) in enumerate(zip(columns, values, strict=True)):
            rows = np.tile(first, (len(known), 1))
            rows[:, k] = known
            slopes = np.diff(_encoded(step, rows), axis=0) / np.diff(known)[:, None]
            if len(slopes):
                weight[:, column] += slopes[0]
                bias -= slopes[0] * known[0]
            bends = [after - before for before, after in pairwise(slopes)]
            self.hinges += [(column, knot) for knot in known[1:-1].tolist()]
            weight = np.column_stack([weight, *bends])
            others = self.categories.get(column, known)
            self.categories[column] = np.intersect1d(known, others)
        return AffineMap(weight, bias)

    def _raw_column(self, z, k, step, name):
        """Return which raw column output k of z is, or raise."""
        weight = z.matrix[k]
        column = int(weight.argmax())
        is_column = weight[column] == 1 and np.count_nonzero(weight) == 1 and z.bias[k] == 0
        if not is_column or column >= self.n_features:
            raise UnsupportedModelError(
                f"The step {name!r} of the pipeline, {kind_of(step)}, encodes what other steps "
                "computed, but expected columns of X as they are. Put it first, with a "
                "ColumnTransformer."
            )
        return column


def _layer(z):
    """Return a map as a layer: a scale where each output is one input, in their order."""
    weight = z.weight
    if weight.ndim == 2 and np.array_equal(weight, np.diag(np.diag(weight))):
        weight = np.diag(weight)
    if weight.ndim == 1:
        return Scale(torch.tensor(weight), torch.tensor(z.bias))
    return linear_layer(weight, z.bias)


def _places(columns, transformer):
    """Return the positions of what a fitted ColumnTransformer calls its columns, an int array."""
    names = list(getattr(transformer, "feature_names_in_", ()))
    if isinstance(columns, slice) and isinstance(columns.start or columns.stop, str):
        start = 0 if columns.start is None else names.index(columns.start)
        stop = None if columns.stop is None else names.index(columns.stop) + 1
        columns = slice(start, stop, columns.step)
    elif not isinstance(columns, slice):
        columns = [columns] if isinstance(columns, str) else np.atleast_1d(columns)
        if all(isinstance(column, str) for column in columns):
            columns = [names.index(column) for column in columns]
    if not isinstance(columns, slice) and len(columns) == 0:
        return np.zeros(0, dtype=int)
    return np.arange(transformer.n_features_in_)[columns]


def _numbers(categories, step, name):
    """Return the categories of one column as rising numbers, or raise."""
    is_number = categories.dtype.kind in "iufb"
    if not (is_number and np.isfinite(categories).any()):
        raise UnsupportedModelError(
            f"The step {name!r} of the pipeline, {kind_of(step)}, encodes the categories "
            f"{categories.tolist()}, but expected numbers: perturbations move numbers. Make them "
            "numbers in X, as by an OrdinalEncoder before the pipeline is fitted."
        )
    known = np.sort(categories.astype(np.float64))
    return known[np.isfinite(known)]


def _encoded(step, rows):
    with without_names():
        encoded = step.transform(named_rows(step, rows))
    return np.asarray(encoded.toarray() if issparse(encoded) else encoded, dtype=np.float64)
