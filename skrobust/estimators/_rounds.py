"""What meta-estimators share that train a classifier, and go on with it in rounds."""

import copy
from abc import abstractmethod

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.callbacks import LRScheduler

from skrobust._keys import digest
from skrobust._validation import check_flag, check_instance, check_integer, expected
from skrobust.estimators._base import plain_array
from skrobust.estimators._robust import RobustClassifier
from skrobust.estimators._weights import checked_sample_weight
from skrobust.networks import as_network

__all__ = []


class RoundsClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Fits a copy of `estimator`, then changes it in rounds.

    A subclass has the parameters `estimator` and `warm_start`, and one with the number of rounds,
    whose name is `_rounds_name`. It writes `_check` and `_finish_round`, which puts what it keeps
    of each round into `_finished`; the other methods are there to be extended.
    """

    _rounds_name = "rounds"

    @abstractmethod
    def _check(self, X, y, goes_on):
        """Raise a ValueError or TypeError that names a parameter that is not valid."""

    @abstractmethod
    def _finish_round(self, X, y, sample_weight):
        """Do one round; return whether it was finished. Nothing changes where it was not."""

    def _end(self):
        """Leave out what no later call needs."""

    def _fit_in_rounds(self, X, y, sample_weight):
        goes_on = check_flag("warm_start", self.warm_start)
        goes_on = goes_on and getattr(self, "_is_base_trained", False)
        before = vars(self).copy()
        try:
            data = self._validated(X, y, sample_weight, goes_on)
            if not goes_on:
                self._start(*data)
        except BaseException:
            # A failed refit leaves all that was fitted before as it was.
            vars(self).clear()
            vars(self).update(before)
            raise
        n_rounds = getattr(self, self._rounds_name) if self._is_base_trained else 0
        try:
            while len(self._finished) < n_rounds and self._finish_round(*data):
                pass
        except KeyboardInterrupt:
            pass  # a round that is not finished has changed nothing
        finally:
            self._end()
        return self

    def _validated(self, X, y, sample_weight, goes_on):
        """Return the data without those of weight 0; they are those of the last call, to go on."""
        X, y = plain_array(X), plain_array(y)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], reset=not goes_on)
        check_classification_targets(y)
        sample_weight = checked_sample_weight(sample_weight, X)
        kept = slice(None) if sample_weight is None else sample_weight > 0
        self._check_estimator(goes_on)
        check_integer(self._rounds_name, getattr(self, self._rounds_name), low=1)
        self._check(X, y[kept], goes_on)
        X, y = X[kept], y[kept]
        sample_weight = None if sample_weight is None else sample_weight[kept]
        if goes_on:
            self._check_going_on(X, y, sample_weight)
        return X, y, sample_weight

    def _check_estimator(self, goes_on):
        is_frozen = isinstance(self.estimator, FrozenEstimator)
        model = self.estimator.estimator if is_frozen else self.estimator
        check_instance("estimator", last_step(model), RobustClassifier, "RobustClassifier()")
        if is_frozen and not goes_on:
            check_is_fitted(self.estimator)

    def _check_going_on(self, X, y, sample_weight):
        """Raise a ValueError where `warm_start` cannot go on with the finished rounds."""
        name, n_finished = self._rounds_name, len(self._finished)
        if getattr(self, name) < n_finished:
            expectation = f"at least {n_finished}, the {name} that are finished"
            raise ValueError(expected(name, getattr(self, name), expectation))
        check_same_data(keys_of(X, y, sample_weight), self._data_keys)

    def _start(self, X, y, sample_weight):
        """Fit the estimator, or take the fitted one; rounds follow if no interrupt ended that."""
        if isinstance(self.estimator, FrozenEstimator):
            model = copy.deepcopy(self.estimator.estimator)
            as_network(model).encode(y)  # refuses labels that are no class
            is_trained = True  # as far as its owner wants
        else:
            model = self._fitted(X, y, sample_weight)
            is_trained = not last_step(model).net_.stopped_midway
        self.estimator_, self.classes_ = model, model.classes_
        self._finished, self._data_keys = [], keys_of(X, y, sample_weight)
        self._is_base_trained = is_trained

    def _fitted(self, X, y, sample_weight):
        """Return a copy of the estimator that is fitted, step by step."""
        model = clone(self.estimator)
        rows = fit_before_last_step(model, X, y)
        # Apart from the pipeline, whose way to take weights is a setting of scikit-learn.
        self._fit_classifier(last_step(model), rows, y, sample_weight)
        return model

    def _fit_classifier(self, classifier, X, y, sample_weight):
        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        classifier.fit(X, y, **weight)

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


# ---- pipelines ----------------------------------------------------------------


def last_step(model):
    """Return the classifier at the end of a pipeline, or the one that it is."""
    return model.steps[-1][1] if isinstance(model, Pipeline) else model


def fit_before_last_step(model, X, y):
    """Fit what stands before the last step, if anything; return what that step is given."""
    if not isinstance(model, Pipeline) or len(model.steps) == 1:
        return X
    head = model[:-1]
    rows = head.fit_transform(X, y)
    model.steps[:-1] = head.steps  # others than before, where the pipeline has a memory
    return rows


def before_last_step(model, X):
    """Return what the last step is given for inputs of the whole."""
    has_head = isinstance(model, Pipeline) and len(model.steps) > 1
    return model[:-1].transform(X) if has_head else X


# ---- learning rates -----------------------------------------------------------


def scale_lr(net, factor):
    """Multiply the learning rates of a net's optimizer, also those that schedules start from."""
    for group in net.optimizer_.param_groups:
        group["lr"] *= factor
        if "initial_lr" in group:
            group["initial_lr"] *= factor


def slow_down(net, factor):
    """Train on at a constant share of the learning rate that a net's training ended with."""
    scale_lr(net, factor)
    # skorch would build them anew for each round, from the learning rate of the beginning.
    net.callbacks_ = [
        (name, callback)
        for name, callback in net.callbacks_
        if not isinstance(callback, LRScheduler)
    ]


# ---- the same data again ------------------------------------------------------


def keys_of(X, y, sample_weight):
    """Return what tells data from others; labels of any kind of array are the same labels."""
    data = {"X": X, "y": y.tolist(), "sample_weight": sample_weight}
    return {name: digest(value) for name, value in data.items()}


def check_same_data(keys, earlier):
    """Raise a ValueError if data are others than those of the last call."""
    others = [name for name, key in keys.items() if key != earlier[name]]
    if others:
        raise ValueError(
            f"Got warm_start=True and another {' and another '.join(others)} than in the last "
            "call, but expected the same data, since the rounds that are finished belong to "
            "them. Set warm_start=False to begin anew."
        )
