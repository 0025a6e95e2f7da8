r"""The question that a verifier is asked: does a row of the property fall short in the ball?

The only place that negates. A property is a conjunction of rows A z + c d + b >= 0 (> 0 where
strict), so its negation is a disjunction: there is a point of the ball at which *some* row is
below 0 (at most 0 where strict).

Everything is in float64 and speaks of the network in real arithmetic: its weights, the
reference points and epsilon are exact numbers, the box is rounded outwards, and outputs at the
reference points are those of the float64 graph. What a float32 network makes of it by rounding
is looked at when counterexamples are confirmed.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from skrobust.attacks import Target
from skrobust.balls import Ball
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import (
    Conjunction,
    LinearRows,
    LipschitzRobustness,
    StrongClassificationRobustness,
)

__all__ = ["Query", "check_rows_of_logits", "make_query"]


@dataclass(frozen=True, eq=False)
class Query:
    r"""The property around n reference points, ready to be negated.

    Parameters
    ----------
    target : Target
        The same question in the network's own precision, to confirm counterexamples.
    ball : Ball
        In float64, rounded outwards: it holds every point that `target.ball` holds. For L2 it
        is the box cut with the ball (or ellipsoid); norm((x - center) / epsilon) <= 1.
    rows : LinearRows
        In float64, about the logits. Where all of them hold, the property holds.
    necessary : LinearRows
        Where one of them fails, the property fails. The same object as `rows` but for strong
        classification, whose concave row lies between the two.
    log_eta : float or None
        For strong classification: the concave row is -log(1 + sum_j exp(-g_j)) - log_eta, where
        the g_j = z_label - z_j are the values of `rows` without their constant b.
    nearest : Tensor of shape (n,)
        Only points at this distance or more are asked for; see `beyond`.
    anchored : bool Tensor of shape (m,)
        Which rows are 0 at the reference point by their definition, whatever rounding makes of
        it there: those of Lipschitz robustness.
    """

    target: Target
    ball: Ball
    rows: LinearRows
    necessary: LinearRows
    log_eta: float | None
    nearest: torch.Tensor
    anchored: torch.Tensor

    def __len__(self):
        return len(self.ball.center)

    def __getitem__(self, index):
        rows = self.rows[index]
        same = self.necessary is self.rows
        return Query(
            self.target[index],
            self.ball[index],
            rows,
            rows if same else self.necessary[index],
            self.log_eta,
            self.nearest[index],
            self.anchored,
        )

    @property
    def uses_distance(self):
        r"""Whether rows hold with equality at the reference point (LR).

        For c > 0 a verifier may take d as a variable with d >= \|x_i - center_i\| and
        d >= `nearest`: a larger d only raises the row. No solver with a tolerance can prove
        such a row while `nearest` is 0, since it is 0 at the reference point itself.
        """
        return self.rows.uses_distance

    @cached_property
    def strict(self):
        """Which rows must be above 0, rather than at least 0: bool Tensor of shape (m,)."""
        strict = torch.as_tensor(self.rows.strict, device=self.rows.b.device)
        return strict.expand(self.rows.b.shape[1])

    def beyond(self, radius):
        """Return the query without the points nearer than `radius`, a tensor of shape (n,).

        What is nearer must be proved by the slopes of the network.
        """
        return replace(self, nearest=torch.maximum(self.nearest, radius))

    def within(self, radius):
        """Return the query of the points within `radius`, a tensor of shape (n,), of the center.

        Epsilon stays, the box shrinks; so for L2 the set is a little larger than asked for.
        """
        reach = (radius * (1 + 1e-12))[:, None]
        lower = torch.maximum(self.ball.lower, self.ball.center - reach)
        upper = torch.minimum(self.ball.upper, self.ball.center + reach)
        # Both hold the center, also where it lies outside of the domain by rounding.
        return replace(self, ball=replace(self.ball, lower=lower, upper=upper))

    def proved(self, lower):
        """Return whether lower bounds of `rows`, of shape (n, m), prove each row.

        NaN proves nothing.
        """
        return torch.where(self.strict, lower > 0, lower >= 0)

    def holds(self, lower):
        """Return whether lower bounds of `rows`, of shape (n, m), prove the property, (n,)."""
        return self.proved(lower).all(dim=1) | (self.margin(lower) >= 0) & ~self.strict.any()

    def margin(self, lower):
        """Return the lower bound of the property's smallest own row, of shape (n,).

        Its own row is the concave one for strong classification.
        """
        if self.log_eta is None:
            return lower.amin(dim=1)
        gaps = lower - self.rows.b  # back to z_label - z_j
        zero = torch.zeros_like(gaps[:, :1])
        row = -torch.logsumexp(torch.cat([zero, -gaps], dim=1), dim=1) - self.log_eta
        # The rounding of the sum, the exponentials and the logarithms: some units in the last
        # place of numbers no larger than these.
        slack = 1e-14 * (gaps.shape[1] + 10 + row.abs() + abs(self.log_eta))
        return row - slack

    def values(self, logits, points):
        """Return `rows` at points, of shapes (n, n_classes), (n, n_features), as (n, m)."""
        distance = self.ball.distance(points) if self.uses_distance else None
        return self.rows.values(logits, distance)


def make_query(encoding, x, labels=None):
    """Ask the property of an `Encoding` around reference points.

    Parameters
    ----------
    encoding : Encoding
        Its graph maps float64 rows to float64 logits.
    x : Tensor of shape (n, n_features)
    labels : Tensor of shape (n,), default=None

    Returns
    -------
    Query

    Raises
    ------
    UnsupportedPropertyError
        If the rows are not linear in the logits.
    """
    target = encoding.target(x, labels)
    property = encoding.property
    with torch.no_grad():
        reference = encoding.graph(x.double())
    # Where precision decides what is predicted, the network itself has the last word.
    own = target.reference_logits.double()
    differs = own.argmax(dim=1) != reference.argmax(dim=1)
    reference = torch.where(differs[:, None], own, reference)
    labels = property.reference_labels(reference, labels)
    log_eta = None
    if isinstance(property, StrongClassificationRobustness):
        n_classes = reference.shape[1]
        log_eta = float(torch.tensor(property.eta, dtype=torch.float64).log())
        rows = _logit_rows(property.sufficient(n_classes), reference, labels)
        necessary = _logit_rows(property.necessary(), reference, labels)
    else:
        rows = necessary = _logit_rows(property, reference, labels)
    nearest = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    anchored = torch.tensor(_anchored(property, reference, labels), device=x.device)
    ball = property.outer_ball(x)
    return Query(target, ball, rows, necessary, log_eta, nearest, anchored)


def _anchored(property, reference, labels):
    """Return, for each row, whether it is one of Lipschitz robustness, as a list."""
    if isinstance(property, Conjunction):
        parts = (property.left, property.right)
        return [flag for part in parts for flag in _anchored(part, reference, labels)]
    if isinstance(property, StrongClassificationRobustness):
        return [False] * (reference.shape[1] - 1)
    labels = property.reference_labels(reference[:1], None if labels is None else labels[:1])
    rows = property.conclusion(reference[:1], labels).linear_rows()
    return [isinstance(property, LipschitzRobustness)] * rows.b.shape[1]


def _logit_rows(property, reference, labels):
    rows = property.conclusion(reference, labels).linear_rows()
    if rows.output != "logits":
        raise UnsupportedPropertyError(
            f"Got a property of the {rows.output}, but verifiers need rows that are linear in "
            "the logits. Use output='logits', or an attack."
        )
    return rows


def check_rows_of_logits(property, n_classes):
    """Refuse a property whose rows are not linear in the logits, before there is any point.

    Raises
    ------
    UnsupportedPropertyError
    """
    if not isinstance(property, StrongClassificationRobustness):
        logits = torch.zeros(1, n_classes, dtype=torch.float64)
        labels = torch.zeros(1, dtype=torch.long)
        _logit_rows(property, logits, property.reference_labels(logits, labels))
