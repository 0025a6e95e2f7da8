r"""The question that a verifier is asked: does a row of the property fall short in the ball?

The only place that negates. A property is a conjunction of rows A z + c d + b >= 0 (> 0 where
strict), so its negation is a disjunction: there is a point of the ball at which *some* row is
below 0 (at most 0 where strict). Where the property has clauses, of whose rows one must hold,
there is a point at which of *some* clause *all* rows are below 0.

Everything is in float64 and speaks of the network in real arithmetic: its weights, the
reference points and epsilon are exact numbers, the box is rounded outwards, and outputs at the
reference points are those of the float64 graph. What a float32 network makes of it by rounding
is looked at when counterexamples are confirmed.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from skrobust import evidence
from skrobust.attacks import Target
from skrobust.balls import Ball
from skrobust.evidence import asked
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import Conclusion

__all__ = ["Query", "check_rows_of_logits", "make_query", "reference_error"]


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
    conclusion : Conclusion
        In float64, about the logits.
    nearest : Tensor of shape (n,)
        Only points at this distance or more are asked for; see `beyond`.
    """

    target: Target
    ball: Ball
    conclusion: Conclusion
    nearest: torch.Tensor

    def __len__(self):
        return len(self.ball.center)

    def __getitem__(self, index):
        return Query(
            self.target[index], self.ball[index], self.conclusion[index], self.nearest[index]
        )

    @cached_property
    def rows(self):
        """`LinearRows`: where all of them (or of their clauses) hold, the property holds."""
        return self.conclusion.sufficient()

    @cached_property
    def necessary(self):
        """`LinearRows`: where one of them fails, the property fails."""
        return self.conclusion.necessary()

    @property
    def is_linear(self):
        """Whether the property has no other rows than `rows`, such as a concave one."""
        return self.conclusion.is_linear

    @property
    def uses_distance(self):
        r"""Whether rows hold with equality at the reference point (LR).

        For c > 0 a verifier may take d as a variable with d >= \|x_i - center_i\| and
        d >= `nearest`: a larger d only raises the row. No solver with a tolerance can prove
        such a row while `nearest` is 0, since it is 0 at the reference point itself.
        """
        return self.conclusion.uses_distance

    @cached_property
    def strict(self):
        """Which of `rows` must be above 0, rather than at least 0: bool Tensor of shape (m,)."""
        return self.rows.flags("strict")

    @cached_property
    def anchored(self):
        """Which of `rows` are 0 at the reference point by definition: bool Tensor, (m,)."""
        return self.rows.flags("anchored")

    def parts(self):
        """Return queries that together ask the same: of all linear rows, and of each other one.

        All have the whole property as their target: what breaks one part of it breaks it.
        """
        return [replace(self, conclusion=part) for part in self.conclusion.parts()]

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

    @property
    def clauses(self):
        """Places in `rows` of the rows of each clause, of shape (k, w); see `LinearRows`."""
        return self.rows.members

    def proved(self, lower):
        """Return whether lower bounds of `rows`, of shape (n, m), prove each clause, (n, k).

        NaN proves nothing.
        """
        return self.rows.proved_rows(lower)

    def clause_bounds(self, lower):
        """Return lower bounds of the clauses, (n, k), by lower bounds of `rows`, (n, m)."""
        return self.rows.gaps(lower)

    def holds(self, lower):
        """Return whether lower bounds of `rows`, of shape (n, m), prove the property, (n,)."""
        return self.conclusion.proved(lower)

    def margin(self, lower):
        """Return the lower bound of the property's smallest own row, of shape (n,).

        Its own row is the concave one for strong classification.
        """
        return self.conclusion.lower_margin(lower)

    def values(self, logits, points):
        """Return the clauses at points, of shapes (n, n_classes), (n, n_features), as (n, k)."""
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
    property = encoding.property
    target, conclusion = asked(encoding.network, encoding.graph, property, x, labels)
    nearest = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    return Query(target, property.outer_ball(x), _about_logits(conclusion), nearest)


def _about_logits(conclusion):
    """Return the conclusion, or refuse one without rows that are linear in the logits."""
    output = conclusion.sufficient().output
    if output != "logits":
        raise UnsupportedPropertyError(
            f"Got a property of the {output}, but verifiers need rows that are linear in "
            "the logits. Use output='logits', or an attack."
        )
    return conclusion


def check_rows_of_logits(property, n_classes):
    """Refuse a property whose rows are not linear in the logits, before there is any point.

    Raises
    ------
    UnsupportedPropertyError
    """
    _about_logits(property.trial(n_classes))


def reference_error(graph, query):
    """Return what rounding of the reference outputs can do to the rows, of shape (n, m)."""
    x = query.target.property.references(query.ball.center)
    return evidence.reference_error(graph, query.ball, query.rows, x)
