"""A fitted, frozen module as a classifier."""

import numpy as np
import torch
from sklearn.utils.validation import check_array

from skrobust._validation import (
    check_bounds,
    check_instance,
    check_integer,
    check_within_bounds,
    expected,
)
from skrobust.estimators._base import LogitsClassifier, plain_array
from skrobust.estimators._modules import check_input_shape, n_features_of
from skrobust.networks import Network, as_network, load_onnx, uncompiled

__all__ = ["TorchClassifier"]

_MOST_CLASSES = 2**20  # a mistake in the number is found before memory runs out


class TorchClassifier(LogitsClassifier):
    """A given torch module as a fitted, frozen classifier, so that every scorer works on it.

    Parameters
    ----------
    module : torch.nn.Module
        From inputs to logits, in float32 or float64. It is put in evaluation mode. Of a module
        that was compiled, the original is used.
    classes : array-like of shape (n_classes,) or int
        Label of each output; a number n means 0, ..., n - 1.
    bounds : pair of floats or of array-likes, or None, default=None
        Valid domain of the inputs; predicting outside is an error.
    input_shape : tuple of int or None, default=None
        Shape of one sample, such as (1, 28, 28), where the module does not take rows.

    Examples
    --------
    >>> import torch
    >>> from skrobust import TorchClassifier
    >>> module = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.eye_(module.weight), torch.nn.init.zeros_(module.bias)
    >>> TorchClassifier(module, ["a", "b"]).predict([[1.0, 0.0], [0.0, 1.0]])
    array(['a', 'b'], dtype='<U1')
    """

    def __init__(self, module, classes, *, bounds=None, input_shape=None):
        self.module = module
        self.classes = classes
        self.bounds = bounds
        self.input_shape = input_shape

    @classmethod
    def from_onnx(cls, path, *, classes=None, bounds=None, input_shape=None):
        """Read a classifier from an ONNX file of the usual exporters.

        Parameters
        ----------
        path : str or path-like
        classes : array-like of shape (n_classes,) or int, default=None
            Label of each output; 0, 1, ... if None.
        bounds : pair of floats or of array-likes, or None, default=None
            Valid domain of the inputs.
        input_shape : tuple of int or None, default=None
            Shape of one sample; from the file if None.

        Returns
        -------
        TorchClassifier
            A softmax or sigmoid at the end of the network is dropped, so that its outputs are
            logits.

        Raises
        ------
        ImportError
            If onnx is not installed.
        UnsupportedModelError
            If the file holds an operation that is not known; the message names it.
        """
        module = load_onnx(path, input_shape=input_shape)
        classes = module.n_outputs if classes is None else classes
        return cls(module, classes, bounds=bounds, input_shape=module.input_shape)

    def __sklearn_is_fitted__(self):
        return True

    @property
    def classes_(self):
        """Labels, of shape (n_classes,)."""
        if not isinstance(self.classes, list | tuple) and np.ndim(self.classes) == 0:
            n_classes = check_integer("classes", self.classes, low=1)
            if n_classes > _MOST_CLASSES:
                expectation = f"the number of outputs of the module, at most {_MOST_CLASSES}"
                raise ValueError(expected("classes", self.classes, expectation))
            return np.arange(n_classes)
        expectation = "a number, or distinct labels of one kind"
        try:
            classes = np.asarray(self.classes)
            is_distinct = classes.ndim == 1 and len(np.unique(classes)) == len(classes)
        except (TypeError, ValueError):  # ragged, or of kinds that have no order
            is_distinct = False
        if not is_distinct:
            raise ValueError(expected("classes", self.classes, expectation))
        return classes

    def fit(self, X, y):
        """Do nothing: the module is given. Returns self."""
        return self

    def _network(self, input_shape=None):
        check_instance("module", self.module, torch.nn.Module, "torch.nn.Linear(784, 10)")
        module = uncompiled(self.module)
        shape = check_input_shape(self.input_shape) or input_shape
        if shape is None or len(shape) == 1:
            return Network(module, self.classes_, n_features_of(module))
        shaped = torch.nn.Sequential(torch.nn.Unflatten(1, tuple(shape)), module)
        return Network(shaped, self.classes_, int(np.prod(shape)))

    def _logits(self, X):
        X = check_array(plain_array(X), dtype=[np.float64, np.float32], allow_nd=True)
        network = self._network(X.shape[1:])
        check_within_bounds(X.reshape(len(X), -1), check_bounds(self.bounds))
        rows = network.rows(np.ascontiguousarray(X))
        with torch.no_grad():
            logits = torch.cat([network(part) for part in rows.split(1024)])
        n_bad = int(logits.isnan().any(dim=1).sum())
        if n_bad:
            raise ValueError(
                f"Got a module whose outputs are NaN in {n_bad} rows of X, but expected logits."
            )
        return logits.cpu().numpy()


@as_network.register(TorchClassifier)
def _read_given(model, *, input_shape=None):
    return model._network(input_shape)
