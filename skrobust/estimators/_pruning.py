"""Iterative pruning of the weights of smallest magnitude."""

import copy
import time
from dataclasses import dataclass

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import check_choice, check_flag, check_integer, check_real, expected
from skrobust.estimators._masks import (
    all_kept,
    bound,
    check_amount,
    clear_weights,
    further_pruned,
    n_pruned,
    n_weights,
)
from skrobust.estimators._rounds import RoundsClassifier, before_last_step, last_step, scale_lr

__all__ = ["MagnitudePruning"]


@dataclass(frozen=True)
class _Iteration:
    """What one iteration did."""

    n_removed: int
    accuracy_before: float
    accuracy: float
    seconds: float


class MagnitudePruning(RoundsClassifier):
    """Train a classifier, and take its smallest weights away, with training in between.

    Each iteration removes the weights of smallest absolute value, for good, and trains those that
    are left. Weights are the entries of parameters of at least two axes (matrices and kernels,
    the last layer's too); biases and the scales of batch norm stay.

    Parameters
    ----------
    estimator : RobustClassifier, Pipeline that ends in one, or FrozenEstimator of one
        What is fitted, as a copy. A fitted one in `sklearn.frozen.FrozenEstimator` is the starting
        point itself. Of a pipeline, only the last step is trained on.
    amount : float, default=0.5
        Share of the weights, in (0, 1), that is removed in the end; exact to one weight.
    iterations : int, default=1
        Rounds of pruning and training, of at least 1. After k of them the share
        ``1 - (1 - amount) ** (k / iterations)`` is gone: each removes the same part of those that
        are left.
    scope : {"global", "layer"}, default="global"
        Whether the magnitudes of all layers are compared with one another, or `amount` is the
        share of each layer.
    n_epochs : int or None, default=None
        Epochs of training in each iteration, after its pruning; None is the classifier's
        `max_epochs`.
    lr_factor : float, default=1.0
        Learning rate of these epochs, as a share of that which the first training ended
        with. skorch's `LRScheduler` callbacks go on, each iteration from where the one before
        ended.
    rewind : bool, default=False
        Whether, before these epochs, the weights that are left, biases and statistics return to
        their values before the first training, and the optimizer forgets what it has seen, as in
        the search for lottery tickets. The classifier's epochs are counted on, so that the ramps
        of regimes do not begin again.
    warm_start : bool, default=False
        Whether `fit` goes on where the last call stopped, up to `iterations` in all, with the
        same data: with the same parameters, that is the same as all iterations in one call.

    Attributes
    ----------
    estimator_ : RobustClassifier or Pipeline
        The pruned one, as of the last finished iteration. Its `partial_fit` trains on and leaves
        pruned weights at zero, as do copies and pickles of it; its `fit` starts anew.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only where `X` has string column names.
    n_iterations_ : int
        Finished iterations.
    sparsity_ : float
        Share of the weights that is removed.
    masks_ : dict of str to ndarray
        For each parameter that is pruned, by its name in the module: True where a weight is kept.
    n_removed_ : ndarray of shape (n_iterations\\_,)
        Weights removed in all, after each iteration.
    accuracy_before_, accuracy_ : ndarray of shape (n_iterations\\_,)
        Accuracy on the training data in each iteration: with weights removed but before training,
        and after it.
    seconds_ : ndarray of shape (n_iterations\\_,)
        Wall-clock time of each iteration.

    Notes
    -----
    An interrupt by the keyboard ends `fit`, as that of `RobustClassifier`: finished iterations are
    kept, `n_iterations_` says how many these are, and `warm_start` goes on with the next. An
    interrupt within the training before the first iteration keeps that, for predictions; then
    `warm_start` trains again from the start.

    The study of global robustness that this follows removes shares of 0.5 to 0.99 in 1, 2 or 5
    iterations. It leaves open how the share is spread over the iterations, whether epochs are
    those of one iteration, whether magnitudes are compared in a layer or among all, and whether
    weights are rewound. The defaults here are a reading of it; each has a parameter.

    References
    ----------
    Han et al., "Learning both weights and connections for efficient neural networks", NeurIPS
    2015. Frankle and Carbin, "The lottery ticket hypothesis", ICLR 2019 (`rewind`).

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.estimators import MagnitudePruning
    >>> X, y = load_digits(return_X_y=True)
    >>> base = RobustClassifier(hidden_layer_sizes=50, max_epochs=10, random_state=0)
    >>> model = MagnitudePruning(base, 0.9, 2, n_epochs=5).fit(X[:1000], y[:1000])
    >>> model.sparsity_
    0.9
    >>> model.n_removed_.tolist()  # of 64 * 50 + 50 * 10 weights
    [2530, 3330]
    >>> model.score(X[1000:], y[1000:]) > 0.8
    True
    """

    _rounds_name = "iterations"

    def __init__(
        self,
        estimator,
        amount=0.5,
        iterations=1,
        *,
        scope="global",
        n_epochs=None,
        lr_factor=1.0,
        rewind=False,
        warm_start=False,
    ):
        self.estimator = estimator
        self.amount = amount
        self.iterations = iterations
        self.scope = scope
        self.n_epochs = n_epochs
        self.lr_factor = lr_factor
        self.rewind = rewind
        self.warm_start = warm_start

    def fit(self, X, y, sample_weight=None):
        """Fit the classifier, then prune it; with `warm_start`, go on with further iterations.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the loss of each sample.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data is not valid, or, to go on, other data than those of the
            last call; the message names it. Then all that was fitted before stays as it was.
        """
        return self._fit_in_rounds(X, y, sample_weight)

    def _check(self, X, y, goes_on):
        check_real("amount", self.amount, low=0, high=1, closed="neither")
        check_choice("scope", self.scope, ("global", "layer"))
        if self.n_epochs is not None:
            check_integer("n_epochs", self.n_epochs, low=1)
        check_real("lr_factor", self.lr_factor, low=0, closed="neither")
        if check_flag("rewind", self.rewind) and isinstance(self.estimator, FrozenEstimator):
            expectation = (
                "False for a FrozenEstimator, whose weights before training are not known"
            )
            raise ValueError(expected("rewind", self.rewind, expectation))

    def _check_going_on(self, X, y, sample_weight):
        super()._check_going_on(X, y, sample_weight)
        if self.rewind and self._initial is None:
            expectation = "False where warm_start goes on with a fit that did not rewind"
            raise ValueError(expected("rewind", self.rewind, expectation))
        self._check_amount()
        net = last_step(self.estimator_).net_
        if self.iterations == self.n_iterations_ and net.masks is not None:
            asked = further_pruned(net.module_, net.masks, float(self.amount), self.scope)
            if n_pruned(asked) > n_pruned(net.masks):
                expectation = f"more than those that are finished, to reach amount={self.amount}"
                raise ValueError(expected("iterations", self.iterations, expectation))

    def _check_amount(self):
        net = last_step(self.estimator_).net_
        check_amount(net.module_, float(self.amount), self.scope, net.masks)

    def _start(self, X, y, sample_weight):
        self._initial = None
        super()._start(X, y, sample_weight)
        self._check_amount()  # only now is the number of weights known

    def _fit_classifier(self, classifier, X, y, sample_weight):
        if not self.rewind:
            super()._fit_classifier(classifier, X, y, sample_weight)
            return
        classifier._initialized(X, y, sample_weight)
        self._initial = copy.deepcopy(classifier.net_.module_.state_dict())
        classifier._continue(X, y, sample_weight, int(classifier.max_epochs))

    def _finish_round(self, X, y, sample_weight):
        start = time.perf_counter()
        k, n = self.n_iterations_ + 1, int(self.iterations)
        amount = float(self.amount)
        share = amount if k == n else 1 - (1 - amount) ** (k / n)
        model = copy.deepcopy(self.estimator_)
        classifier = last_step(model)
        net = classifier.net_
        masks = all_kept(net.module_) if net.masks is None else net.masks
        net.masks = further_pruned(net.module_, masks, share, self.scope)
        if self.rewind:
            net.module_.load_state_dict(self._initial)
            net.optimizer_.state.clear()
        clear_weights(bound(net.module_, net.masks))
        rows = before_last_step(model, X)
        accuracy_before = classifier.score(rows, y, sample_weight)
        if k == 1:
            scale_lr(net, float(self.lr_factor))
        n_epochs = classifier.max_epochs if self.n_epochs is None else self.n_epochs
        if not classifier._continue(rows, y, sample_weight, int(n_epochs)):
            return False
        latest = _Iteration(
            n_pruned(net.masks),
            accuracy_before,
            classifier.score(rows, y, sample_weight),
            time.perf_counter() - start,
        )
        # Together and last, so that an interrupt leaves the iterations before as they are.
        self.estimator_, self._finished = model, [*self._finished, latest]
        return True

    # ---- what was removed, and what that did -------------------------------------

    @property
    def n_iterations_(self):
        """Number of finished iterations."""
        check_is_fitted(self, "estimator_")
        return len(self._finished)

    @property
    def sparsity_(self):
        """Share of the weights that is removed."""
        masks = self._masks()
        return n_pruned(masks) / n_weights(masks)

    @property
    def masks_(self):
        """For each parameter that is pruned, where its weights are kept."""
        return {name: mask.numpy().copy() for name, mask in self._masks().items()}

    def _masks(self):
        check_is_fitted(self, "estimator_")
        net = last_step(self.estimator_).net_
        return all_kept(net.module_) if net.masks is None else net.masks

    @property
    def n_removed_(self):
        """Weights removed in all after each iteration, of shape ``(n_iterations_,)``."""
        return self._records("n_removed", int)

    @property
    def accuracy_before_(self):
        """Accuracy on the training data before each training, of shape ``(n_iterations_,)``."""
        return self._records("accuracy_before")

    @property
    def accuracy_(self):
        """Accuracy on the training data after each training, of shape ``(n_iterations_,)``."""
        return self._records("accuracy")

    @property
    def seconds_(self):
        """Wall-clock time of each iteration, of shape ``(n_iterations_,)``."""
        return self._records("seconds")

    def _records(self, name, dtype=float):
        check_is_fitted(self, "estimator_")
        return np.array([getattr(each, name) for each in self._finished], dtype=dtype)
