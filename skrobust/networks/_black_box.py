"""Any classifier, seen only through `predict` and `predict_proba`."""

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks._base import Model, as_network
from skrobust.networks._rows import named_rows, without_names

__all__ = ["BlackBox", "as_model"]


class BlackBox(Model):
    """A classifier without gradients.

    Its logits are the logarithms of the probabilities, or, where only labels are needed, 1
    for the predicted class and 0 for the others.

    Parameters
    ----------
    estimator : object
        Fitted classifier with `predict`, and `classes_`.
    output : {"labels", "probabilities"}, default="labels"
        What to read.
    """

    def __init__(self, estimator, output="labels"):
        super().__init__(
            estimator.classes_,
            getattr(estimator, "n_features_in_", None),
            probabilistic=output == "probabilities",
            dtype=torch.float64,
            device=torch.device("cpu"),
        )
        self.estimator = estimator
        self.output = output

    def fingerprint(self):
        """Return the estimator itself."""
        return self.estimator, self.output

    def __call__(self, x):
        with without_names():
            return self._logits(named_rows(self.estimator, x.numpy()))

    def _logits(self, X):
        if self.output == "probabilities":
            p = torch.as_tensor(np.asarray(self.estimator.predict_proba(X), dtype=np.float64))
            return p.clamp(min=torch.finfo(p.dtype).tiny).log()
        index = self.encode(self.estimator.predict(X))
        return torch.nn.functional.one_hot(index, len(self.classes)).double()


def as_model(estimator, outputs=("logits",), *, needs_gradient=True, input_shape=None):
    """Return the estimator as a `Network` with the outputs needed, or else as a `BlackBox`.

    Parameters
    ----------
    estimator : object
        Fitted classifier.
    outputs : collection of {"labels", "probabilities", "logits"}
        What is needed of it.
    needs_gradient : bool, default=True
        Whether a black box will not do.
    input_shape : tuple of int, default=None
        Shape of one sample.

    Returns
    -------
    Model

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    UnsupportedModelError
        If the estimator is no classifier with `classes_`, if it is no network where that is
        needed, or if it lacks `predict_proba` where that is needed.
    UnsupportedPropertyError
        If the estimator cannot give the outputs that the property speaks about.
    """
    name = type(estimator).__name__
    try:
        network = as_network(estimator, input_shape=input_shape)
    except UnsupportedModelError:
        if needs_gradient:
            raise
    else:
        if network.probabilistic or "probabilities" not in outputs:
            return network
        if needs_gradient:
            raise UnsupportedPropertyError(
                f"Got a property of probabilities, but those of {name} are not the softmax of "
                "its scores, so it cannot be attacked by gradients. Sampling "
                "(ConstraintAccuracy, UniformSampling) works where there is predict_proba."
            )
    if not (hasattr(estimator, "predict") and hasattr(estimator, "classes_")):
        if isinstance(estimator, BaseEstimator) and hasattr(estimator, "fit"):
            check_is_fitted(estimator)
        raise UnsupportedModelError(
            f"Got {kind_of(estimator)}, but expected a fitted classifier with predict and "
            "classes_."
        )
    if "logits" in outputs:
        raise UnsupportedPropertyError(
            f"Got a property of logits, but {name} has none that skrobust can read. "
            "Set output='probabilities' on the property."
        )
    if "probabilities" in outputs and not hasattr(estimator, "predict_proba"):
        raise UnsupportedModelError(
            f"Got {kind_of(estimator)} without predict_proba, but the property speaks about "
            "probabilities."
        )
    return BlackBox(estimator, "probabilities" if "probabilities" in outputs else "labels")
