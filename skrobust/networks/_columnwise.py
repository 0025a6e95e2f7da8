"""Steps of a pipeline that change each column by itself."""

import numpy as np
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._affine import AffineMap
from skrobust.networks._rows import named_rows, without_names
from skrobust.networks._steps import StepReader

__all__ = ["ColumnwiseSteps"]

_NUMBERS = 2**20  # that are transformed together


class ColumnwiseSteps:
    """Steps each of whose outputs is a rising or a falling function of one column.

    Parameters
    ----------
    steps : list of (str, object)
        Names and fitted transformers, as in a pipeline, one or more.

    Attributes
    ----------
    column : int ndarray of shape (n_outputs,)
        Which each output follows.
    slope, bias : ndarray of shape (n_outputs,)
        What multiplies it, 0 where the output is constant, and what is added, before anything
        is rounded or clipped.

    Raises
    ------
    UnsupportedModelError
        If the steps mix columns, encode categories, or are not known.

    Examples
    --------
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from skrobust.networks import ColumnwiseSteps
    >>> steps = ColumnwiseSteps([("scale", MinMaxScaler().fit([[0.0, 5.0], [4.0, 6.0]]))])
    >>> steps.column.tolist(), steps.slope.tolist(), steps.bias.tolist()
    ([0, 1], [0.25, 1.0], [0.0, -5.0])
    >>> steps([0, 0, 1], [1.0, 2.0, 5.5]).tolist()
    [0.25, 0.5, 0.5]
    """

    def __init__(self, steps):
        self._steps = [step for _, step in steps]
        self._n_features = self._steps[0].n_features_in_
        reader = _RisingReader(self._n_features)
        z = reader.map(steps)
        names = ", ".join(repr(name) for name, _ in steps)
        if reader.categories:
            raise UnsupportedModelError(
                f"The steps {names} of the pipeline encode the columns "
                f"{sorted(reader.categories)} as categories, but expected scalers in front of "
                "trees: between two categories there are no outputs. Encode them in X, before the "
                "pipeline is fitted."
            )
        n_mixed = int(((z.matrix != 0).sum(axis=1) > 1).sum())
        if n_mixed:
            raise UnsupportedModelError(
                f"The steps {names} of the pipeline mix columns in {n_mixed} features, but "
                "expected each feature to follow one column, as those of scalers do: the splits "
                "of a tree would cut across the columns. Verify the last step on the data that "
                "the steps return, in whose units epsilon then is."
            )
        self.column = np.abs(z.matrix).argmax(axis=1)
        self.slope = z.matrix[np.arange(len(z.bias)), self.column]
        self.bias = z.bias

    def __call__(self, outputs, values):
        """Return outputs as the steps themselves compute them.

        Parameters
        ----------
        outputs : array-like of int, shape (n,)
        values : array-like of shape (n,)
            Of the column that each one follows.

        Returns
        -------
        ndarray of shape (n,)
        """
        outputs, values = np.asarray(outputs), np.asarray(values, dtype=np.float64)
        results = np.empty(len(values))
        size = max(1, _NUMBERS // self._n_features)
        for start in range(0, len(values), size):
            part = slice(start, start + size)
            rows = np.zeros((len(values[part]), self._n_features))
            index = np.arange(len(rows))
            rows[index, self.column[outputs[part]]] = values[part]
            X = named_rows(self._steps[0], rows)
            with without_names(), np.errstate(over="ignore"):
                for step in self._steps:
                    X = step.transform(X)
            results[part] = np.asarray(X)[index, outputs[part]]
        return results


class _RisingReader(StepReader):
    """Reads scalers that clip, too, as what they do before."""

    def read(self, step, z, name):
        if isinstance(step, MinMaxScaler) and step.clip:
            return AffineMap(step.scale_, step.min_).after(z)
        if isinstance(step, MaxAbsScaler) and getattr(step, "clip", False):
            return AffineMap(1 / step.scale_, np.zeros_like(step.scale_)).after(z)
        return super().read(step, z, name)
