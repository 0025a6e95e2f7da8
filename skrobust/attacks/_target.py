"""What an attack aims at, and what it finds: the target and the outcome."""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import torch

from skrobust._validation import expected
from skrobust.attacks._gradients import NO_GRADIENT, finite_or_zero, input_gradient
from skrobust.attacks._rows import row_order, search_distances
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import Model, check_logits
from skrobust.properties import RobustnessProperty, check_property

__all__ = ["Outcome", "Target"]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an attack found, for each of n samples.

    ``outcome[index]`` is the part of it about a selection of the samples.

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

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def put(self, index, other):
        """Return this outcome with the samples `index` replaced by the ones of `other`."""
        points, margins, broken = self.points.clone(), self.margins.clone(), self.broken.clone()
        points[index], margins[index] = other.points, other.margins
        broken[index] = other.broken
        return replace(self, points=points, margins=margins, broken=broken)

    def merge(self, index, other):
        """Return this outcome with the samples `index` replaced where `other` is worse.

        A point that breaks the property is worse than one that does not, whatever the margins:
        an attack may ask for more than a margin below zero (`LBFGS`). Else the lower margin is.
        """
        ours = self[index]
        lower = (other.broken == ours.broken) & (other.margins < ours.margins)
        worse = (other.broken & ~ours.broken) | lower
        return self.put(index[worse], other[worse])


@dataclass(frozen=True, eq=False)
class Target:
    """What an attack aims at: a network, and a property around given reference points.

    ``target[index]`` is the part of it about a selection of the samples, which hands on what
    is known already. What is computed is computed once, and only where it is asked for.

    Parameters
    ----------
    network : Network, BlackBox or callable
        From rows to logits, in evaluation mode.
    property : RobustnessProperty
        Its parameters are checked here. That the rows lie in its `bounds` is not: whoever
        takes arrays from users checks that (``property.check(X)``).
    x : Tensor of shape (n, n_features)
        Reference points: finite floats, on the device of the network.
    labels : Tensor of shape (n,) or None, default=None
        True class indices, where the property needs them.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument has another shape, or the property a parameter that is not valid.

    Examples
    --------
    >>> import torch
    >>> from skrobust.attacks import PGD, Target
    >>> from skrobust.properties import ClassificationRobustness
    >>> network = torch.nn.Linear(1, 2)
    >>> _ = network.load_state_dict(
    ...     {"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.tensor([0.0, 1.0])}
    ... )
    >>> x, labels = torch.tensor([[0.7], [0.9]]), torch.tensor([0, 0])
    >>> target = Target(network, ClassificationRobustness(0.3), x, labels)
    >>> PGD().search(target).broken
    tensor([ True, False])
    """

    network: object
    property: RobustnessProperty
    x: torch.Tensor
    labels: torch.Tensor | None = None
    # What a run holds on to; see `aimed`.
    row: torch.Tensor | None = field(default=None, init=False)
    # What the conclusion refers to where that is not `x`; see `around`.
    anchor: torch.Tensor | None = field(default=None, init=False)

    def __post_init__(self):
        # A class would be called, too: and make a module of the rows.
        if not callable(self.network) or isinstance(self.network, type):
            expectation = "a callable from rows to logits, such as as_network(estimator)"
            raise TypeError(expected("network", self.network, expectation))
        check_property(self.property)
        if isinstance(self.network, Model):
            self.network.check_property(self.property)
        object.__setattr__(self, "x", _checked_rows(self.x))
        if self.labels is not None:
            _check_labels(self.labels, len(self.x))

    # Computed only when asked for: training with cross-entropy needs no reference outputs.
    @cached_property
    def ball(self):
        """The `~skrobust.balls.Ball` around each reference point."""
        return self.property.ball(self.x)

    @cached_property
    def reference_logits(self):
        """Outputs at the reference points, without gradient."""
        with torch.no_grad():
            logits = self.network(self.x)
        return check_logits(logits, len(self.x))

    @cached_property
    def anchor_logits(self):
        """Outputs at the points that the conclusion refers to; see `around`."""
        anchors = self.property.references(self.x) if self.anchor is None else self.anchor
        if anchors is self.x:
            return self.reference_logits
        with torch.no_grad():
            logits = self.network(anchors)
        return check_logits(logits, len(self.x))

    @cached_property
    def conclusion(self):
        """The `~skrobust.properties.Conclusion` around the reference points."""
        labels = self.property.reference_labels(self.anchor_logits, self.labels)
        if self.labels is not None and self.property.needs_labels:
            _check_range(self.labels, self.reference_logits.shape[1])
        conclusion = self.property.conclusion(self.anchor_logits, labels)
        if conclusion.values(self.reference_logits, self.x.new_zeros(len(self))).shape[1] == 0:
            raise ValueError(_too_few_classes(self.reference_logits, self.property))
        return conclusion

    @cached_property
    def classes(self):
        """Class index of each sample for the cross-entropy: its label, else the prediction.

        `check_classes` refuses outputs of which the cross-entropy says nothing.
        """
        if self.labels is not None and self.property.reference == "label":
            return self.labels
        return self.reference_logits.argmax(dim=1)

    def check_classes(self, logits):
        """Refuse outputs of fewer than two classes, whose cross-entropy is constant."""
        if logits.shape[1] < 2:
            raise ValueError(_too_few_classes(logits, "the cross-entropy"))

    @cached_property
    def replayed(self):
        """The same target, of the outputs as the estimator itself computes them."""
        # A bare callable is all that there is; some models compute all alike.
        if not isinstance(self.network, Model) or type(self.network).replay is Model.replay:
            return self
        return self._with(network=self.network.replay)

    def check_gradient(self):
        """Refuse a network of which it is known that it has no gradient; return self.

        Raises
        ------
        UnsupportedModelError
        """
        if isinstance(self.network, Model) and not self.network.has_gradient:
            raise UnsupportedModelError(NO_GRADIENT)
        return self

    @cached_property
    def row_order(self):
        """Rows of each sample, the one that the ball can take the lowest first, (n, k).

        To first order at the reference points; of more than 64 rows, 64.
        """
        return row_order(self)

    def aimed(self, run):
        """Return the target of one of several runs, each of which holds on to one row.

        The smallest row says little of where to go where rows tie, as all those of standard
        robustness do at the reference: an attack would stay with the one that led first. So the
        first run is given the row that comes first in `row_order`, and each further run the
        next one. Rows that depend on the distance are looked for in smaller balls too, before
        the next row.

        Parameters
        ----------
        run : int or int Tensor of shape (n,)
            From 0; one for all samples, or one for each. After the last row come all again.

        Returns
        -------
        Target
            Its `gradient` for the objective "margin" is that of the row.
        """
        if len(self) == 0:
            return self
        distances = search_distances(self)
        run = torch.as_tensor(run, device=self.x.device)
        which, place = run % len(distances), run // len(distances) % self.row_order.shape[1]
        which, place = which.expand(len(self)), place.expand(len(self))
        nearer = distances.gather(0, which.unsqueeze(0)).squeeze(0)
        part = self.within(nearer) if which.any() else self[:]
        part.__dict__["row"] = self.row_order.gather(1, place.unsqueeze(1)).squeeze(1)
        return part

    def around(self, points, owners):
        """Return the target of points that differ from references in single values alone.

        These values are held; the conclusion is that around the references.

        Parameters
        ----------
        points : Tensor of shape (k, n_features)
        owners : int Tensor of shape (k,)
            Place of the reference of each.
        """
        labels = None if self.labels is None else self.labels[owners]
        part = Target(self.network, self.property.around(self.x[0]), points, labels)
        part.__dict__["anchor"] = self.x[owners]
        return part

    def relaxed(self):
        """Return this target in the boxes alone, whatever points of them are valid."""
        part = self[:]
        part.__dict__["ball"] = replace(self.ball, local_set=None)
        return part

    def within(self, distance):
        """Return this target in the smaller balls of `Ball.within`."""
        part = self[:]
        part.__dict__["ball"] = self.ball.within(distance)
        return part

    @property
    def movable(self):
        """Whether the ball of each sample holds more than the reference point, (n,)."""
        return (self.ball.upper > self.ball.lower).any(dim=1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        names = ("ball", "reference_logits", "conclusion", "classes", "replayed", "row_order")
        known = {name: self.__dict__[name] for name in names if name in self.__dict__}
        known = {name: v if v is self else v[index] for name, v in known.items()}
        x = known["ball"].center if "ball" in known else self.x[index]
        labels = None if self.labels is None else self.labels[index]
        row, anchor = (None if part is None else part[index] for part in (self.row, self.anchor))
        part = self._with(x=x, labels=labels, row=row, anchor=anchor)
        if known.get("replayed") is self:
            known["replayed"] = part
        part.__dict__.update(known)
        return part

    def _with(self, **changes):
        """Return a target with other parts, which were checked already."""
        names = ("network", "property", "x", "labels", "row", "anchor")
        other = object.__new__(type(self))
        other.__dict__.update({name: getattr(self, name) for name in names} | changes)
        return other

    def referring_to(self, reference_logits):
        """Return the target with outputs at the reference points that are known already.

        Parameters
        ----------
        reference_logits : Tensor of shape (n, n_classes)
        """
        other = self._with()
        other.__dict__["reference_logits"] = check_logits(reference_logits, len(self.x))
        return other

    def assess(self, x, logits):
        """Return the `Outcome` of the points `x`, whose logits are known.

        Points have shape (n, n_features); or (n, r, n_features) for r points around each
        reference, and all results accordingly.
        """
        with torch.no_grad():
            if self.conclusion.uses_distance:
                # The network's rounding depends on the batch: at the reference itself, where
                # rows may hold with equality, take the very outputs that they refer to.
                known = self.reference_logits.reshape(
                    len(x), *[1] * (x.ndim - 2), self.reference_logits.shape[-1]
                )
                logits = torch.where(self.distance(x).unsqueeze(-1) == 0, known, logits)
            margins, holds = self.conclusion.judged(logits, self.distance(x))
            # A module may compute in more digits than it is given.
            return Outcome(x, margins.to(x.dtype), ~holds)

    def outcome_at(self, x):
        """Return the `Outcome` of the points `x`, of shape (n, n_features)."""
        with torch.no_grad():
            return self.assess(x, self.network(x))

    def replay(self, x):
        """Assess the points `x` by outputs as the estimator itself computes them."""
        return self.replayed.outcome_at(x)

    def distance(self, x):
        """Return the distances from the references, or None where no row asks for them."""
        return self.ball.distance(x) if self.conclusion.uses_distance else None

    def gradient(self, x, objective):
        """Return the gradient of what an attack minimizes, the logits, and the value.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
        objective : {"margin", "smallest-row", "cross-entropy"}
            The property's row of an `aimed` target, else its smallest row; the smallest row in
            any case; or minus the cross-entropy of the label.

        Returns
        -------
        gradient : Tensor of shape (n, n_features)
            Rows that are not finite are set to zero, with an `AttackWarning`.
        logits : Tensor of shape (n, n_classes)
        value : Tensor of shape (n,)
            What is minimized.

        Raises
        ------
        UnsupportedModelError
            If the outputs have no gradient in the inputs.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits, distance = self.network(x), self.distance(x)
            if objective == "margin" and self.row is not None:
                # The ball of the run says how far to go, and only the outputs how.
                held = None if distance is None else distance.detach()
                values = self.conclusion.values(logits, held)
                value = values.gather(1, self.row.unsqueeze(1)).squeeze(1)
            elif objective != "cross-entropy":
                value = self.conclusion.margin(logits, distance)
            else:
                self.check_classes(logits)
                value = -torch.nn.functional.cross_entropy(logits, self.classes, reduction="none")
            gradient = input_gradient(value.sum(), x)
        return finite_or_zero(gradient), logits.detach(), value.detach()


def _checked_rows(x):
    shown = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
    expectation = "a tensor of floats of shape (n, n_features), such as network.rows(X)"
    if not (isinstance(x, torch.Tensor) and x.is_floating_point()):
        raise TypeError(expected("x", shown, expectation))
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(expected("x", shown, expectation))
    return x.detach()


def _check_labels(labels, n):
    shown = tuple(labels.shape) if isinstance(labels, torch.Tensor) else type(labels).__name__
    expectation = f"a tensor of class indices of shape ({n},), such as network.encode(y)"
    if not (isinstance(labels, torch.Tensor) and labels.dtype in _INTEGERS):
        raise TypeError(expected("labels", shown, expectation))
    if labels.shape != (n,):
        raise ValueError(expected("labels", shown, expectation))


def _too_few_classes(logits, asking):
    asking = asking if isinstance(asking, str) else type(asking).__name__
    return (
        f"Got a network with {logits.shape[1]} output, but expected at least two: {asking} "
        "compares the outputs of one class with those of others."
    )


def _check_range(labels, n_classes):
    if len(labels):
        low, high = labels.aminmax()
        if low < 0 or high >= n_classes:
            wrong = int(low) if low < 0 else int(high)
            raise ValueError(
                f"Got labels with {wrong}, but expected class indices from 0 to {n_classes - 1}."
            )
