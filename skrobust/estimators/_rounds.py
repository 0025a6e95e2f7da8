"""What meta-estimators share that train a classifier, and go on with it in rounds."""

import copy
from abc import abstractmethod

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from skrobust._validation import check_flag, check_instance, expected
from skrobust.estimators._base import plain_array
from skrobust.estimators._robust import RobustClassifier
from skrobust.estimators._weights import checked_sample_weight
from skrobust.networks import as_network

__all__ = []


class RoundsClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Fits a copy of `estimator`, then changes it in rounds.

    A subclass has the parameters `estimator` and `warm_start`, and one with the number of rounds,
    whose name is `_rounds_name`. It writes `_check` and `_finish_round`, and appends to
    `_finished` what it keeps of each round.
    """

    _rounds_name = "rounds"

    @abstractmethod
    def _check(self, X, y):
        """Raise a ValueError or TypeError that names a parameter that is not valid."""

    @abstractmethod
    def _finish_round(self, X, y, sample_weight):
        """Do one round; return whether it was finished. Nothing changes where it was not."""

    def _fit_in_rounds(self, X, y, sample_weight):
        goes_on = check_flag("warm_start", self.warm_start) and hasattr(self, "estimator_")
        X, y = plain_array(X), plain_array(y)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], reset=not goes_on)
        check_classification_targets(y)
        self._check(X, y)
        sample_weight = checked_sample_weight(sample_weight, X)
        if sample_weight is not None:
            kept = sample_weight > 0
            X, y, sample_weight = X[kept], y[kept], sample_weight[kept]
        rounds = getattr(self, self._rounds_name)
        if goes_on:
            if rounds < len(self._finished):
                expectation = (
                    f"at least {len(self._finished)}, the {self._rounds_name} that are finished"
                )
                raise ValueError(expected(self._rounds_name, rounds, expectation))
            as_network(self.estimator_).encode(y)  # refuses labels that are no class
        elif not self._start(X, y, sample_weight):
            return self
        try:
            while len(self._finished) < rounds and self._finish_round(X, y, sample_weight):
                pass
        except KeyboardInterrupt:
            pass  # a round that is not finished has changed nothing
        return self

    def _start(self, X, y, sample_weight):
        """Fit the estimator, or take the fitted one; return whether no interrupt ended that."""
        self._finished = []
        if isinstance(self.estimator, FrozenEstimator):
            check_is_fitted(self.estimator)
            model = copy.deepcopy(self.estimator.estimator)
            as_network(model).encode(y)
        else:
            model = self._fitted(clone(self.estimator), X, y, sample_weight)
        self.estimator_ = model
        self.classes_ = model.classes_
        return not last_step(model).net_.stopped_midway

    def _fitted(self, model, X, y, sample_weight):
        name = f"{model.steps[-1][0]}__" if isinstance(model, Pipeline) else ""
        weight = {} if sample_weight is None else {f"{name}sample_weight": sample_weight}
        return model.fit(X, y, **weight)

    def _check_estimator(self):
        model = self.estimator
        model = model.estimator if isinstance(model, FrozenEstimator) else model
        check_instance("estimator", last_step(model), RobustClassifier, "RobustClassifier()")

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")

    def predict(self, X):
        """Return the class of the largest logit, of shape (n_samples,)."""
        rows = self._rows(X)
        return self.estimator_.predict(rows)

    def predict_proba(self, X):
        """Return the softmax of the logits, of shape (n_samples, n_classes)."""
        rows = self._rows(X)
        return self.estimator_.predict_proba(rows)

    def decision_function(self, X):
        """Return the logits; for two classes, that of the second minus that of the first."""
        rows = self._rows(X)
        return self.estimator_.decision_function(rows)

    def _rows(self, X):
        check_is_fitted(self, "estimator_")
        dtype = [np.float64, np.float32]
        return validate_data(self, plain_array(X), dtype=dtype, reset=False)


@as_network.register(RoundsClassifier)
def _read_estimator(model, *, input_shape=None):
    check_is_fitted(model, "estimator_")
    return as_network(model.estimator_, input_shape=input_shape)


def last_step(model):
    """Return the classifier of a pipeline, or what is no pipeline."""
    return model.steps[-1][1] if isinstance(model, Pipeline) else model


def train_on(model, X, y, sample_weight, n_epochs):
    """Train the last step for more epochs; return whether no interrupt ended that."""
    rows = model[:-1].transform(X) if isinstance(model, Pipeline) else X
    return last_step(model)._continue(rows, y, sample_weight, n_epochs)


def scale_lr(classifier, factor):
    """Multiply the learning rates of a fitted classifier's optimizer."""
    for group in classifier.net_.optimizer_.param_groups:
        group["lr"] *= factor
        if "initial_lr" in group:  # what schedules start from
            group["initial_lr"] *= factor
