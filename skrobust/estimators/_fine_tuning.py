"""Fine-tuning on adversarial examples, in rounds."""

import copy
import time
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import (
    check_bounds,
    check_choice,
    check_flag,
    check_instance,
    check_integer,
    check_real,
    check_seed,
    check_within_bounds,
    expected,
)
from skrobust.attacks import LBFGS, Attack
from skrobust.estimators._examples import closest_examples, widest
from skrobust.estimators._rounds import RoundsClassifier, last_step, scale_lr, train_on
from skrobust.exceptions import AttackWarning

__all__ = ["AdversarialFineTuning"]

_METHODS = ("lp", "polished", "lbfgs")


@dataclass(frozen=True, eq=False)
class _Round:
    """What one round added to the data, and what it took."""

    points: np.ndarray
    sample: np.ndarray  # the row of X that each was made of
    n_found: int
    distance: float
    seconds: float


class AdversarialFineTuning(RoundsClassifier):
    """Train a classifier, and go on with its own adversarial examples added, in rounds.

    Each round looks for an adversarial example of every sample of the original data that the
    current network classifies as labeled, adds the examples to the data with the label of that
    sample, and trains on at a lower learning rate.

    Parameters
    ----------
    estimator : RobustClassifier, Pipeline that ends in one, or FrozenEstimator of one
        What is fitted, as a copy. A fitted one in `sklearn.frozen.FrozenEstimator` is the starting
        point itself. Of a pipeline, only the last step is trained on.
    attack : {"lp", "polished", "lbfgs"} or Attack, default="lp"
        How examples are found: "lp" and "polished" as in `~skrobust.pointwise_robustness`,
        without a limit of half-spaces; "lbfgs" is ``LBFGS()``, and of any attack the closest
        points are taken.
    rounds : int, default=1
        Rounds in all, of at least 1.
    margin : float, default=3.0
        By how much the score of the other label must exceed that of the own one, in logits; in a
        linear program that of every label. The paper takes 3.0 there, so that examples survive
        the rounding, and 0.15 for "lbfgs". In "polished" it binds the first linear program only:
        its examples lie at the boundary, and rounding destroys many.
    lr_factor : float, default=0.1
        Learning rate of the rounds, as a share of that before. The paper only says "reduced".
    n_epochs : int, default=10
        Epochs of each round, over the data with all that was added.
    epsilon_max : float or None, default=None
        Farthest that an example may be in L-infinity, in units of the input; None takes all that
        the method finds in the domain.
    targets : {"runner-up", "all"} or label, default="runner-up"
        Which labels are to win, in "lp" and "polished".
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs.
    rounding : int or None, default=None
        Round examples to the lattice k / `rounding`, 255 for pixels of one byte. Those that this
        destroys are left out.
    keep_examples : bool, default=True
        Whether the data of a round hold the examples of the earlier rounds, too.
    warm_start : bool, default=False
        Whether `fit` goes on where the last call stopped, up to `rounds` in all: with the same
        data, that is the same as all rounds in one call.
    random_state : int, RandomState instance or None, default=None
        For attacks with random starts. With a `memory`, None means 0.
    n_jobs : int or None, default=None
        Chunks of samples attacked at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the examples of each chunk, so that a search that was killed goes on.
    verbose : int, default=0
        joblib's progress messages.

    Attributes
    ----------
    estimator_ : RobustClassifier or Pipeline
        The tuned one, as of the last finished round.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only where `X` has string column names.
    n_rounds_ : int
        Finished rounds.
    n_examples_ : ndarray of shape (n_rounds\\_,)
        Examples that each round added.
    rounding_loss_ : ndarray of shape (n_rounds\\_,)
        Share of the examples found that rounding destroyed: the network gives the rounded point
        the right label. 0 without `rounding`.
    distance_ : ndarray of shape (n_rounds\\_,)
        Median L-infinity distance of the examples added.
    seconds_ : ndarray of shape (n_rounds\\_,)
        Wall-clock time of the search for examples.

    Notes
    -----
    An interrupt by the keyboard ends `fit`, as that of `RobustClassifier`: what finished rounds
    learned is kept, `n_rounds_` says how many these are, and `warm_start` goes on with the next.

    The defaults of `lr_factor` and `n_epochs` lowered the frequency by "lp" most among four pairs,
    on held-out digits and two seeds; accuracy fell by 1 and 4 points there, which had little data.

    The paper leaves open whether examples of earlier rounds stay in the data; the authors' slides
    keep them.

    References
    ----------
    Bastani et al., "Measuring neural net robustness with constraints", NeurIPS 2016, section 5.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.estimators import AdversarialFineTuning
    >>> X, y = load_digits(return_X_y=True)
    >>> base = RobustClassifier(hidden_layer_sizes=16, max_epochs=20, random_state=0)
    >>> model = AdversarialFineTuning(base, n_epochs=3, rounding=16, random_state=0)
    >>> model.fit(X[:200], y[:200]).n_rounds_
    1
    >>> bool(model.n_examples_[0] > 10)
    True
    """

    def __init__(
        self,
        estimator,
        attack="lp",
        rounds=1,
        *,
        margin=3.0,
        lr_factor=0.1,
        n_epochs=10,
        epsilon_max=None,
        targets="runner-up",
        bounds=(0.0, 1.0),
        rounding=None,
        keep_examples=True,
        warm_start=False,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.attack = attack
        self.rounds = rounds
        self.margin = margin
        self.lr_factor = lr_factor
        self.n_epochs = n_epochs
        self.epsilon_max = epsilon_max
        self.targets = targets
        self.bounds = bounds
        self.rounding = rounding
        self.keep_examples = keep_examples
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def fit(self, X, y, sample_weight=None):
        """Fit the classifier, then fine-tune it; with `warm_start`, go on with further rounds.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the loss of each sample, which its adversarial examples have, too.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data is not valid; the message names it.

        Warns
        -----
        AttackWarning
            If a round finds no adversarial example: then fine-tuning ends, and the network stays
            as it is.
        """
        return self._fit_in_rounds(X, y, sample_weight)

    def _check(self, X, y):
        self._check_estimator()
        if isinstance(self.attack, str):
            check_choice("attack", self.attack, _METHODS)
        else:
            check_instance("attack", self.attack, Attack, "PGD()").check()
        check_integer("rounds", self.rounds, low=1)
        check_real("margin", self.margin, low=0)
        check_real("lr_factor", self.lr_factor, low=0, closed="neither")
        check_integer("n_epochs", self.n_epochs, low=1)
        check_flag("keep_examples", self.keep_examples)
        bounds = check_bounds(self.bounds, X.shape[1])
        check_within_bounds(X, bounds)
        if self.epsilon_max is not None:
            check_real("epsilon_max", self.epsilon_max, low=0, closed="neither")
        elif self.attack != "lp" and not np.isfinite(widest(bounds)):
            expectation = "a positive float where bounds are not finite"
            raise ValueError(expected("epsilon_max", None, expectation))
        if self.rounding is not None:
            _check_lattice(check_integer("rounding", self.rounding, low=1), bounds, self.bounds)
        _check_targets(self.targets, np.unique(y))
        check_seed(self.random_state)

    def _start(self, X, y, sample_weight):
        seed = 0 if self.random_state is None and self.memory is not None else self.random_state
        self._seed = check_seed(seed).randint(2**31 - 1)
        return super()._start(X, y, sample_weight)

    def _finish_round(self, X, y, sample_weight):
        latest = self._search(X, y)
        if len(latest.points) == 0:
            warnings.warn(
                f"No adversarial example was found in round {self.n_rounds_ + 1}, so fine-tuning "
                "ends with the network as it is. Try another attack, a smaller margin, a larger "
                "epsilon_max or a finer rounding.",
                AttackWarning,
                stacklevel=4,  # that of who calls fit
            )
            return False
        rounds = [*self._finished, latest]
        added = rounds if self.keep_examples else [latest]
        sample = np.concatenate([np.arange(len(X)), *(each.sample for each in added)])
        points = np.concatenate([X, *(each.points for each in added)])
        weight = None if sample_weight is None else sample_weight[sample]
        model = copy.deepcopy(self.estimator_)
        if self.n_rounds_ == 0:
            scale_lr(last_step(model), float(self.lr_factor))
        if not train_on(model, points, y[sample], weight, int(self.n_epochs)):
            return False
        # Together and last, so that an interrupt leaves the rounds before as they are.
        self.estimator_, self._finished = model, rounds
        return True

    def _search(self, X, y):
        """Return what a round adds to the data."""
        start = time.perf_counter()
        sample = np.flatnonzero(self.estimator_.predict(X) == y)
        points = np.full((0, X.shape[1]), np.nan, dtype=X.dtype)
        if len(sample):
            seed = np.random.SeedSequence([self._seed, self.n_rounds_]).generate_state(1)[0]
            points = closest_examples(
                self.estimator_,
                X[sample],
                y[sample],
                attack=LBFGS() if self.attack == "lbfgs" else self.attack,
                margin=float(self.margin),
                epsilon_max=self.epsilon_max,
                targets=self.targets,
                bounds=self.bounds,
                random_state=int(seed),
                n_jobs=self.n_jobs,
                memory=self.memory,
                verbose=self.verbose,
            ).astype(X.dtype)
        points, sample = self._misled(points, y, sample, ~np.isnan(points).any(axis=1))
        n_found = len(points)
        if self.rounding is not None:
            lattice = int(self.rounding)
            points = (np.round(points.astype(np.float64) * lattice) / lattice).astype(X.dtype)
            points, sample = self._misled(points, y, sample, np.full(n_found, True))
        distance = np.abs(points - X[sample]).max(axis=1)
        median = float(np.median(distance)) if len(distance) else np.nan
        return _Round(points, sample, n_found, median, time.perf_counter() - start)

    def _misled(self, points, y, sample, candidates):
        """Return those of the candidates that the estimator itself labels wrongly."""
        points, sample = points[candidates], sample[candidates]
        if len(points) == 0:
            return points, sample
        wrong = self.estimator_.predict(points) != y[sample]
        return points[wrong], sample[wrong]

    # ---- what was learned, and how -----------------------------------------------

    @property
    def n_rounds_(self):
        """Number of finished rounds."""
        check_is_fitted(self, "estimator_")
        return len(self._finished)

    @property
    def n_examples_(self):
        """Examples that each round added, of shape (n_rounds_,)."""
        check_is_fitted(self, "estimator_")
        return np.array([len(each.points) for each in self._finished], dtype=int)

    @property
    def rounding_loss_(self):
        """Share of the examples found that rounding destroyed, of shape (n_rounds_,)."""
        check_is_fitted(self, "estimator_")
        return np.array([1 - len(each.points) / each.n_found for each in self._finished])

    @property
    def distance_(self):
        """Median distance of the examples added, of shape (n_rounds_,)."""
        check_is_fitted(self, "estimator_")
        return np.array([each.distance for each in self._finished])

    @property
    def seconds_(self):
        """Wall-clock time of each search for examples, of shape (n_rounds_,)."""
        check_is_fitted(self, "estimator_")
        return np.array([each.seconds for each in self._finished])


def _check_lattice(rounding, bounds, given):
    """Raise a ValueError if a rounded point could lie outside of the bounds."""
    ends = np.concatenate([np.ravel(end) for end in bounds or ()] or [[]]) * rounding
    ends = ends[np.isfinite(ends)]
    if (np.abs(ends - np.round(ends)) > 1e-6).any():
        expectation = f"a lattice k / rounding on which the bounds {given!r} lie"
        raise ValueError(expected("rounding", rounding, expectation))


def _check_targets(targets, classes):
    """Raise a ValueError if `targets` is neither a choice nor one of the classes."""
    if isinstance(targets, str) and targets in ("runner-up", "all"):
        return
    if np.ndim(targets) != 0 or not any(label == targets for label in classes.tolist()):
        choices = f"'runner-up', 'all', or one of the classes {classes.tolist()}"
        raise ValueError(expected("targets", targets, choices))
