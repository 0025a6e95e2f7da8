"""What all attacks share: the target, the outcome, and the loop over restarts."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from skrobust._validation import check_choice, check_columns, check_instance
from skrobust.attacks._boundary import closer, finite_or_zero, outcome_at, pull_to_boundary
from skrobust.logics import Atom
from skrobust.networks import as_model
from skrobust.properties import RobustnessProperty

__all__ = ["Attack", "GradientAttack", "Outcome", "Target", "Tracker"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an attack found, for each of n samples.

    Parameters
    ----------
    points : Tensor of shape (n, n_features)
        The point of lowest margin among those compared.
    margins : Tensor of shape (n,)
        Smallest row of the property at that point.
    broken : bool Tensor of shape (n,)
        Whether the property is broken there.
    """

    points: torch.Tensor
    margins: torch.Tensor
    broken: torch.Tensor

    def merge(self, index, other):
        """Return this outcome with the samples `index` replaced where `other` is worse."""
        worse = (other.broken & ~self.broken[index]) | (other.margins < self.margins[index])
        points, margins, broken = self.points.clone(), self.margins.clone(), self.broken.clone()
        index = index[worse]
        points[index], margins[index] = other.points[worse], other.margins[worse]
        broken[index] = other.broken[worse]
        return Outcome(points, margins, broken)


@dataclass(frozen=True, eq=False)
class Target:
    """What an attack aims at: a network, and a property around given reference points.

    Parameters
    ----------
    network : callable
        From rows to logits, in evaluation mode.
    property : RobustnessProperty
    x : Tensor of shape (n, n_features)
        Reference points.
    labels : Tensor of shape (n,) or None
        True class indices.
    """

    network: object
    property: RobustnessProperty
    x: torch.Tensor
    labels: torch.Tensor | None = None

    # Computed only when asked for: training with cross-entropy needs no reference outputs.
    @cached_property
    def ball(self):
        """The `~skrobust.balls.Ball` around each reference point."""
        return self.property.ball(self.x)

    @cached_property
    def reference_logits(self):
        """Outputs at the reference points, without gradient."""
        with torch.no_grad():
            return self.network(self.x)

    @cached_property
    def conclusion(self):
        """The `~skrobust.properties.Conclusion` around the reference points."""
        labels = self.property.reference_labels(self.reference_logits, self.labels)
        return self.property.conclusion(self.reference_logits, labels)

    @cached_property
    def classes(self):
        """Class index of each sample for the cross-entropy: its label, else the prediction."""
        if self.labels is not None and self.property.reference == "label":
            return self.labels
        return self.reference_logits.argmax(dim=1)

    @property
    def movable(self):
        """Whether the ball of each sample holds more than the reference point, (n,)."""
        return (self.ball.upper > self.ball.lower).any(dim=1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        # Hand on what is known already (cached properties live in __dict__).
        known = ("ball", "reference_logits", "conclusion", "classes")
        known = {name: self.__dict__[name][index] for name in known if name in self.__dict__}
        x = known["ball"].center if "ball" in known else self.x[index]
        labels = None if self.labels is None else self.labels[index]
        part = Target(self.network, self.property, x, labels)
        part.__dict__.update(known)
        return part

    def assess(self, x, logits):
        """Return the `Outcome` of the points `x`, whose logits are known.

        Points have shape (n, n_features); or (n, r, n_features) for r points around each
        reference, and all results accordingly.
        """
        with torch.no_grad():
            if self.conclusion.uses_distance:
                # The network's rounding depends on the batch: at the reference itself, where
                # rows may hold with equality, take the very outputs that they refer to.
                known = self.reference_logits.view(len(x), *[1] * (x.ndim - 2), -1)
                logits = torch.where(self._distance(x).unsqueeze(-1) == 0, known, logits)
            values = self.conclusion.values(logits, self._distance(x))
            margins, strict = values.min(dim=-1).values, self.conclusion.strict
            # The smallest row tells, unless only some rows are strict.
            decisive = margins.unsqueeze(-1) if isinstance(strict, bool) else values
            return Outcome(x, margins, ~Atom(decisive, strict).holds())

    def replay(self, x):
        """Assess the points `x` by outputs as the estimator itself computes them."""
        replayed = Target(self.network.replay, self.property, self.x, self.labels)
        return replayed.assess(x, self.network.replay(x))

    def _distance(self, x):
        return self.ball.distance(x) if self.conclusion.uses_distance else None

    def gradient(self, x, objective):
        """Return the gradient of what an attack minimises, the logits, and the value.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
        objective : {"margin", "cross-entropy"}
            The property's smallest row, or minus the cross-entropy of the label.

        Returns
        -------
        gradient : Tensor of shape (n, n_features)
            Rows that are not finite are set to zero, with an `AttackWarning`.
        logits : Tensor of shape (n, n_classes)
        value : Tensor of shape (n,)
            What is minimised.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.network(x)
            if objective == "margin":
                value = self.conclusion.margin(logits, self._distance(x))
            else:
                value = -torch.nn.functional.cross_entropy(logits, self.classes, reduction="none")
            (gradient,) = torch.autograd.grad(value.sum(), x)
        gradient = finite_or_zero(gradient)
        return gradient, logits.detach(), value.detach()


class Attack(BaseEstimator, ABC):
    """Base class: a search in the ball of each sample for a point that breaks the property."""

    n_restarts = 1
    needs_gradient = True

    @abstractmethod
    def check(self):
        """Validate the parameters; return self."""

    @abstractmethod
    def _search(self, target, stop_when_broken, generator):
        """Return the `Outcome` of one run against a `Target`."""

    def run(self, network, property, x, labels=None, *, stop_when_broken=True, generator=None):
        """Attack a batch of rows.

        Parameters
        ----------
        network : Network or torch.nn.Module
            From rows to logits, in evaluation mode.
        property : RobustnessProperty
        x : Tensor of shape (n, n_features)
            Reference points.
        labels : Tensor of shape (n,), default=None
            True class indices, where the property needs them.
        stop_when_broken : bool, default=True
            Whether a sample leaves the batch as soon as its property is broken, also by the
            reference point itself. Otherwise every sample takes all steps, as in training.
        generator : torch.Generator, default=None
            Source of randomness; torch's own one if None.

        Returns
        -------
        Outcome
        """
        target = Target(network, property, x, labels)
        outcome = clean = target.assess(x, target.reference_logits)
        left = target.movable
        if stop_when_broken:
            left = left & ~outcome.broken
        else:
            # The reference point takes no part in the comparison of restarts.
            outcome = replace(outcome, margins=torch.full_like(outcome.margins, torch.inf))
        for _ in range(self.n_restarts):
            index = left.nonzero().squeeze(1)
            if len(index) == 0:
                break
            found = self._search(target[index], stop_when_broken, generator)
            outcome = outcome.merge(index, found)
            if stop_when_broken:
                left = left & ~outcome.broken
        # What cannot move stays at its reference point, with the margin there.
        margins = torch.where(target.movable, outcome.margins, clean.margins)
        return replace(outcome, margins=margins)

    def points(self, network, property, x, labels=None, *, generator=None):
        """Return the points that a run with all steps ends at; the parameters are those of `run`.

        For training: nothing is said of the points.
        """
        outcome = self.run(
            network, property, x, labels, stop_when_broken=False, generator=generator
        )
        return outcome.points

    def closest(self, network, property, x, labels=None, *, generator=None):
        """Find the closest points that break a property within its ball.

        What a run finds is pulled to the boundary of the property by bisection on the segment
        from the reference point, after every restart; the closest point, in the norm of the
        ball, is kept. Only attacks made for it (`LinearBoundary`, `LBFGS`) look for a direction
        in which the boundary is close.

        Parameters
        ----------
        network : Network or torch.nn.Module
            From rows to logits, in evaluation mode.
        property : RobustnessProperty
        x : Tensor of shape (n, n_features)
            Reference points.
        labels : Tensor of shape (n,), default=None
            True class indices, where the property needs them.
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
        >>> from skrobust.attacks import FGSM
        >>> from skrobust.properties import ClassificationRobustness
        >>> network = torch.nn.Linear(1, 2)
        >>> _ = network.load_state_dict(
        ...     {"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.tensor([0.0, 1.0])}
        ... )
        >>> x, labels = torch.tensor([[0.7]]), torch.tensor([0])
        >>> found = FGSM().closest(network, ClassificationRobustness(0.5), x, labels)
        >>> print(f"{found.points.item():.4f}")
        0.5000
        """
        return self._closest(Target(network, property, x, labels), generator)

    def _closest(self, target, generator):
        outcome = target.assess(target.x, target.reference_logits)
        index = (target.movable & ~outcome.broken).nonzero().squeeze(1)
        if len(index) == 0:
            return outcome
        part, best = target[index], outcome_at(outcome, index)
        for _ in range(self.n_restarts):
            found = pull_to_boundary(part, self._search(part, True, generator))
            best, _ = closer(part.ball, best, found)
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
        check_instance("property", property, RobustnessProperty, "ClassificationRobustness()")
        check_columns(estimator, X)
        network = as_model(
            estimator,
            property.needed_outputs,
            needs_gradient=self.needs_gradient,
            input_shape=np.shape(X)[1:],
        )
        rows = network.rows(X)
        property.check(rows.cpu().numpy())
        labels = None if y is None else network.encode(y)
        seed = check_random_state(random_state).randint(2**31 - 1)
        generator = torch.Generator(network.device).manual_seed(seed)
        outcome = self.run(network, property, rows, labels, generator=generator)
        return outcome.points.cpu().numpy()


class GradientAttack(Attack):
    """Base class of attacks that follow the gradient of an objective."""

    def check(self):
        check_choice("objective", self.objective, ("margin", "cross-entropy"))
        return self

    @abstractmethod
    def _walk(self, target, tracker, generator):
        """Return the last points of one run, of the samples that did not leave the batch.

        Samples leave by ``tracker.keep``; none does where `tracker` is None.
        """

    def _search(self, target, stop_when_broken, generator):
        tracker = Tracker(target)
        return tracker.finish(self._walk(target, tracker if stop_when_broken else None, generator))

    def points(self, network, property, x, labels=None, *, generator=None):
        if self.n_restarts > 1:
            return super().points(network, property, x, labels, generator=generator)
        # One run needs no comparison, and so no assessment of its points.
        return self._walk(Target(network, property, x, labels), None, generator)


_WORTH_LEAVING = 0.8  # share of the batch that may stay without a copy


class Tracker:
    """Book-keeping of one run: what was found, and which samples are still in the batch."""

    def __init__(self, target):
        self.target = target
        n = len(target)
        self.index = torch.arange(n, device=target.x.device)
        self.points = target.x.clone()
        self.margins = target.x.new_full((n,), torch.inf)
        self.broken = torch.zeros(n, dtype=torch.bool, device=target.x.device)

    def keep(self, x, logits):
        """Record the broken samples among `x`; return a mask of the others, or None for all."""
        seen = self.target.assess(x, logits)
        self._record(seen, seen.broken & ~self.broken[self.index])
        kept = ~self.broken[self.index]
        # Leaving copies what is left, which pays only when enough samples do.
        if kept.sum() > _WORTH_LEAVING * len(kept):
            return None
        self.index, self.target = self.index[kept], self.target[kept]
        return kept

    def finish(self, x):
        """Record the samples that are left at their last points; return the `Outcome`."""
        if len(x):
            with torch.no_grad():
                seen = self.target.assess(x, self.target.network(x))
            self._record(seen, ~self.broken[self.index])
        return Outcome(self.points, self.margins, self.broken)

    def _record(self, seen, mask):
        index = self.index[mask]
        self.points[index] = seen.points[mask]
        self.margins[index] = seen.margins[mask]
        self.broken[index] = seen.broken[mask]
