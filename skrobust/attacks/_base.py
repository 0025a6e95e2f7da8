"""What all attacks share: the loop over restarts, the door for arrays, the gradient walk."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from sklearn.base import BaseEstimator

from skrobust._validation import (
    check_choice,
    check_columns,
    check_instance,
    check_length,
    check_seed,
    sample_shape,
)
from skrobust.attacks._bisection import bisect_radius
from skrobust.attacks._boundary import closer, pull_to_boundary
from skrobust.attacks._local_sets import search_local_set
from skrobust.attacks._target import Outcome, Target
from skrobust.networks import as_model
from skrobust.properties import check_property

__all__ = ["Attack", "GradientAttack", "Tracker"]


class Attack(BaseEstimator, ABC):
    """Base class: a search in the ball of each sample for a point that breaks the property.

    Users call `perturb`, which takes an estimator and arrays. What extends the library calls
    `search`, `closest` or `points` with a `Target`. A subclass stores its parameters, and
    writes `check` and `attempt`, one run against a target; an attack along gradients is a
    subclass of `GradientAttack`, and writes `walk` instead.

    Attributes
    ----------
    n_restarts : int
        Runs for each sample, until one breaks the property. A class attribute, 1, unless it
        is a parameter.
    needs_gradient : bool
        Whether the attack needs a network; otherwise it serves any classifier.
    draws_valid : bool
        Whether all its points are valid where the `bounds` of the property are a
        `~skrobust.properties.Domain`. Those of other attacks are repaired.

    Examples
    --------
    An attack that tries one corner of the ball:

    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import Attack
    >>> from skrobust.properties import ClassificationRobustness
    >>> class Brighter(Attack):
    ...     needs_gradient = False
    ...
    ...     def check(self):
    ...         return self
    ...
    ...     def attempt(self, target, *, generator=None, stop_when_broken=True):
    ...         return target.outcome_at(target.ball.upper)
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> points = Brighter().perturb(model, X, y, property=ClassificationRobustness(0.2))
    >>> model.predict(points)
    array([0, 1, 1, 1])
    """

    n_restarts = 1
    needs_gradient = True
    draws_valid = False

    @abstractmethod
    def check(self):
        """Validate the parameters; return self."""

    @abstractmethod
    def attempt(self, target, *, generator=None, stop_when_broken=True):
        """Make one run: what a subclass writes; the parameters are those of `search`.

        Its points must lie in ``target.ball``, one for each sample, and their margins must be
        those of the network: ``target.outcome_at(points)`` gives both.

        Returns
        -------
        Outcome
        """

    def check_target(self, target):
        """Refuse what is no target, or a network without the gradient that the attack needs.

        Raises
        ------
        TypeError
            If `target` is no `Target`.
        UnsupportedModelError
            If its network has no gradient.
        """
        check_instance("target", target, Target, "Target(network, property, x, labels)")
        if self.needs_gradient:
            target.check_gradient()

    def aimed(self, target, run):
        """Return the target that a run is made against: the same one for every run.

        A subclass may aim each run at another part of the property, as `GradientAttack` does.

        Parameters
        ----------
        target : Target
        run : int
            From 0 to `n_restarts` - 1.

        Returns
        -------
        Target
        """
        return target

    def search(self, target, *, generator=None, stop_when_broken=True):
        """Look for points that break the property of a target.

        Parameters
        ----------
        target : Target
        generator : torch.Generator, default=None
            Source of randomness; torch's own one if None.
        stop_when_broken : bool, default=True
            Whether a sample leaves the batch as soon as its property is broken, also by the
            reference point itself. Otherwise every sample takes all steps, as in training.

        Returns
        -------
        Outcome
            As the network sees it; `attack_and_confirm` asks the estimator itself.
        """
        self.check_target(target)
        if target.ball.local_set is not None and not self.draws_valid:
            return search_local_set(self, target, generator, stop_when_broken)
        outcome = clean = target.assess(target.x, target.reference_logits)
        is_open = movable = target.movable
        if stop_when_broken:
            is_open = movable & ~outcome.broken
        else:
            # The reference point takes no part in the comparison of restarts.
            outcome = replace(
                outcome,
                margins=torch.full_like(outcome.margins, torch.inf),
                broken=torch.zeros_like(outcome.broken),
            )
        index = is_open.nonzero().squeeze(1)
        part = target[index]
        for run in range(self.n_restarts):
            if len(index) == 0:
                break
            found = self.attempt(
                self.aimed(part, run), generator=generator, stop_when_broken=stop_when_broken
            )
            outcome = outcome.merge(index, found)
            if stop_when_broken:
                is_open = ~outcome.broken[index]
                index, part = index[is_open], part[is_open]
        # What cannot move stays at its reference point, with what is known there.
        return replace(
            outcome,
            margins=torch.where(movable, outcome.margins, clean.margins),
            broken=torch.where(movable, outcome.broken, clean.broken),
        )

    def points(self, target, *, generator=None):
        """Return the points that a search with all steps ends at; see `search`.

        For training: nothing is said of the points.

        Parameters
        ----------
        target : Target
        generator : torch.Generator, default=None
            Source of randomness; torch's own one if None.

        Returns
        -------
        Tensor of shape (n, n_features)
        """
        return self.search(target, generator=generator, stop_when_broken=False).points

    def closest(self, target, *, generator=None):
        """Find the closest points that break the property of a target within its ball.

        What a run finds is pulled to the boundary of the property by bisection on the segment
        from the reference point, after every restart; the closest point, in the norm of the
        ball, is kept. Attacks along gradients are repeated in smaller balls, by bisection on the
        radius of each sample. Attacks made for it (`LinearBoundary`, `FastMinimumNorm`, `LBFGS`)
        are far cheaper, and come closer.

        Parameters
        ----------
        target : Target
        generator : torch.Generator, default=None
            Source of randomness; torch's own one if None.

        Returns
        -------
        Outcome
            Its points are the reference points themselves where these break the property, and
            those of lowest margin found where nothing does. The margin of a point on the
            boundary is just below zero.

        Notes
        -----
        `LipschitzRobustness` has no closest violation in general: where the network is too
        steep at the reference point itself, every distance will do, and the bisection ends
        where the violation drowns in rounding.

        Examples
        --------
        >>> import torch
        >>> from skrobust.attacks import FGSM, Target
        >>> from skrobust.properties import ClassificationRobustness
        >>> network = torch.nn.Linear(1, 2)
        >>> _ = network.load_state_dict(
        ...     {"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.tensor([0.0, 1.0])}
        ... )
        >>> x, labels = torch.tensor([[0.7]]), torch.tensor([0])
        >>> target = Target(network, ClassificationRobustness(0.5), x, labels)
        >>> print(f"{FGSM().closest(target).points.item():.4f}")
        0.5000
        """
        self.check_target(target)
        outcome = target.assess(target.x, target.reference_logits)
        index = (target.movable & ~outcome.broken).nonzero().squeeze(1)
        if len(index) == 0:
            return outcome
        part, best = target[index], outcome[index]
        for run in range(self.n_restarts):
            found = self.attempt(self.aimed(part, run), generator=generator)
            best, _ = closer(part.ball, best, pull_to_boundary(part, found))
        return outcome.merge(index, best)

    def perturb(self, estimator, X, y=None, *, property, random_state=None):
        """Return, for each sample, the point of the ball with the lowest margin found.

        Parameters
        ----------
        estimator : object
            Fitted classifier; for all attacks but `UniformSampling`, of a kind that
            `skrobust.networks.as_network` supports.
        X : array-like of shape (n_samples, n_features)
            Reference points, in the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, where the property needs them.
        property : RobustnessProperty
            What to break.
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        self.check()
        check_property(property)
        check_columns(estimator, X)
        network = as_model(
            estimator,
            property.needed_outputs,
            needs_gradient=self.needs_gradient,
            input_shape=sample_shape(X),
        )
        rows = network.rows(X)
        property.check(rows.cpu().numpy())
        if y is not None:
            check_length("y", y, len(rows))
        # Labels that nobody needs may be of classes that the estimator has never seen.
        labels = network.encode(y) if y is not None and property.needs_labels else None
        seed = check_seed(random_state).randint(2**31 - 1)
        generator = torch.Generator(network.device).manual_seed(seed)
        target = Target(network, property, rows, labels)
        return self.search(target, generator=generator).points.cpu().numpy()


class GradientAttack(Attack):
    """Base class of attacks that follow the gradient of an objective.

    A subclass has a parameter `objective`, and writes `walk`.

    Attributes
    ----------
    objective : {"margin", "smallest-row", "cross-entropy"}
        What the steps go against. "margin": the row of the property that the ball can take the
        lowest, to first order, which costs a backward pass a row; it is held for the whole run,
        and each further run (restart) holds the next row. "smallest-row": whichever row is the
        smallest at each step. "cross-entropy": minus the cross-entropy of the label, as is
        common in training.

    Notes
    -----
    A property holds where its smallest row does, so that to follow the smallest one seems the
    thing to do. But all rows of standard and Lipschitz robustness tie at the reference, and those
    of classification robustness change places on the way: an attack that follows the smallest row
    stays with the one that led first, and misses violations of others.

    Rows that depend on the distance (Lipschitz robustness) are held in three balls in turn, the
    largest first, before the next row: their violations may lie near the reference.

    References
    ----------
    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020 (targets held for a run, the likely ones first); Hein and
    Andriushchenko, NIPS 2017 (the linearization that orders them).

    Examples
    --------
    One step of half the length along the gradient:

    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import GradientAttack
    >>> from skrobust.properties import ClassificationRobustness
    >>> class HalfStep(GradientAttack):
    ...     def __init__(self, objective="margin"):
    ...         self.objective = objective
    ...
    ...     def walk(self, target, tracker, generator):
    ...         gradient, _, _ = target.gradient(target.x, self.objective)
    ...         return target.ball.step(target.x, gradient, -0.5)
    >>> X, y = [[0.25], [0.75]], [0, 1]
    >>> model = LogisticRegression().fit(X, y)
    >>> HalfStep().perturb(model, X, y, property=ClassificationRobustness(0.5))
    array([[0.5],
           [0.5]])
    """

    def check(self):
        check_choice("objective", self.objective, ("margin", "smallest-row", "cross-entropy"))
        return self

    def aimed(self, target, run):
        return target.aimed(run) if self.objective == "margin" else target

    @abstractmethod
    def walk(self, target, tracker, generator):
        """Return the last points of one run, of the samples that did not leave the batch.

        Parameters
        ----------
        target : Target
        tracker : Tracker or None
            Samples leave by ``tracker.keep(x, logits)``; none does where it is None.
        generator : torch.Generator or None

        Returns
        -------
        Tensor of shape (n_left, n_features)
            In the ball.
        """

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        if target.row is None:
            target = self.aimed(target, 0)
        tracker = Tracker(target)
        return tracker.finish(self.walk(target, tracker if stop_when_broken else None, generator))

    def closest(self, target, *, generator=None):
        outcome = super().closest(target, generator=generator)
        return bisect_radius(self, target, outcome, generator)

    def points(self, target, *, generator=None):
        self.check_target(target)
        if self.n_restarts > 1:
            return super().points(target, generator=generator)
        # One run needs no comparison, and so no assessment of its points.
        points = self.walk(self.aimed(target, 0), None, generator)
        if target.ball.local_set is None:
            return points
        points, is_valid = target.ball.settle(points)
        return torch.where(is_valid.unsqueeze(1), points, target.x)


_WORTH_LEAVING = 0.8  # share of the batch that may stay without a copy


class Tracker:
    """Book-keeping of one run: what was found, and which samples are still in the batch.

    Parameters
    ----------
    target : Target
        Of the whole batch.

    Attributes
    ----------
    target : Target
        Of the samples that are still in the batch.
    """

    def __init__(self, target):
        self.target = target
        n = len(target)
        self._index = torch.arange(n, device=target.x.device)
        nothing = torch.zeros(n, dtype=torch.bool, device=target.x.device)
        self._outcome = Outcome(target.x.clone(), target.x.new_full((n,), torch.inf), nothing)

    def keep(self, x, logits):
        """Record the broken samples among `x`; return a mask of the others, or None for all.

        Parameters
        ----------
        x : Tensor of shape (n_left, n_features)
            Where the samples in the batch are.
        logits : Tensor of shape (n_left, n_classes)
            Outputs there.

        Returns
        -------
        bool Tensor of shape (n_left,) or None
            The walk goes on with the samples where it is True, and with `target`.
        """
        seen = self.target.assess(x, logits)
        broken = self._outcome.broken
        self._record(seen, seen.broken & ~broken[self._index])
        kept = ~broken[self._index]
        # Leaving copies what is left, which pays only when enough samples do.
        if kept.sum() > _WORTH_LEAVING * len(kept):
            return None
        self._index, self.target = self._index[kept], self.target[kept]
        return kept

    def finish(self, x):
        """Record the samples that are left at their last points; return the `Outcome`."""
        if len(x):
            self._record(self.target.outcome_at(x), ~self._outcome.broken[self._index])
        return self._outcome

    def _record(self, seen, mask):
        index, ours = self._index[mask], self._outcome
        ours.points[index] = seen.points[mask]
        ours.margins[index] = seen.margins[mask]
        ours.broken[index] = seen.broken[mask]
