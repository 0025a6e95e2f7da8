"""Conclusions: what a property says about the outputs, as rows around reference points."""

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.logics import DL2, And, Atom, Or
from skrobust.properties._clauses import both_clauses, either_clauses

__all__ = ["Conclusion", "LinearRows"]


class Conclusion(ABC):
    """What a property says about the outputs at points near n reference points.

    A conclusion is the conjunction of its own rows. Sampling, attacks and losses read them by
    `values`. Verifiers need linear rows: those of `sufficient` imply the conclusion, and those of
    `necessary` are implied by it. `proved` and `lower_margin` say what lower bounds of the
    sufficient rows, over a ball, tell of the conclusion there.

    Where "or" joins conclusions, an own row is a *clause*: the largest of several rows, which is
    not below 0 where one of these holds.

    A subclass defines `values`, `strict`, `uses_distance` and `__getitem__`. One that also
    defines `sufficient` can be verified.

    Attributes
    ----------
    strict : bool, or bool Tensor of shape (m,)
        Whether own rows must be above 0, rather than at least 0.
    uses_distance : bool
        Whether any row depends on the distance of the point from its reference.
    is_linear : bool
        Whether the own rows are linear, or the largest of linear ones, so that they are their
        own enclosure.
    has_clauses : bool
        Whether any own row is the largest of several.
    needed_outputs : frozenset of {"labels", "probabilities", "logits"}
        What the rows read of a classifier.
    exp_limit : Fraction or None
        Where the conclusion says of some gaps that the sum of exp(-gap) is at most a number:
        that number. The gaps are the sufficient rows without their constants.
    """

    is_linear = False
    exp_limit = None
    has_clauses = False
    needed_outputs = frozenset({"probabilities", "logits"})

    @abstractmethod
    def values(self, logits, distance=None):
        """Return the value of every row, of shape (n, m), at one point for each reference.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes)
            Or (n, r, n_classes) for r points near each reference; then all results of this
            class have a second axis of length r as well.
        distance : Tensor of shape (n,), default=None
            Needed where `uses_distance`. Of shape (n, r) for r points.
        """

    @abstractmethod
    def __getitem__(self, index):
        """Return the conclusion about a selection of the reference points."""

    def margin(self, logits, distance=None):
        """Return the smallest row of each point, of shape (n,)."""
        return self.values(logits, distance).min(dim=-1).values

    def holds(self, logits, distance=None):
        """Return whether the conclusion is true at each point, of shape (n,). NaN is not."""
        return self.formula(logits, distance).holds()

    def judged(self, logits, distance=None):
        """Return `margin` and `holds`, by one look at the rows."""
        values = self.values(logits, distance)
        margins = values.min(dim=-1).values
        # The smallest row tells, unless only some rows are strict.
        decisive = margins.unsqueeze(-1) if isinstance(self.strict, bool) else values
        return margins, Atom(decisive, self.strict).holds()

    def formula(self, logits, distance=None):
        """Return the claim that all rows hold, to be read by a `~skrobust.logics.Logic`."""
        return Atom(self.values(logits, distance), self.strict)

    def loss(self, logits, distance=None, logic=None):
        """Return the loss of each point by `logic` (default: DL2), of shape (n,)."""
        return (DL2() if logic is None else logic).loss(self.formula(logits, distance))

    # -- the linear enclosure --

    def sufficient(self):
        """Return `LinearRows` that imply the conclusion.

        Raises
        ------
        UnsupportedPropertyError
            If there are none.
        """
        raise UnsupportedPropertyError(
            f"Got a {type(self).__name__}, which gives no linear rows that imply it, but "
            "verifiers need such rows. Use an attack, or define its method sufficient()."
        )

    def necessary(self):
        """Return `LinearRows` that the conclusion implies; by default there are no such rows."""
        return self.sufficient().without_rows()

    def proved(self, lower):
        """Return whether lower bounds of the sufficient rows prove the conclusion, (n,).

        Parameters
        ----------
        lower : Tensor of shape (n, m)
            NaN proves nothing.
        """
        return self.sufficient().proved_rows(lower).all(dim=1)

    def lower_margin(self, lower):
        """Return a lower bound of the smallest own row, from bounds of the sufficient rows.

        By default it is 0 where these prove the conclusion, and minus infinity elsewhere: how far
        own rows fall short does not follow from rows that only imply them.

        Parameters
        ----------
        lower : Tensor of shape (n, m)

        Returns
        -------
        Tensor of shape (n,)
        """
        lowest = lower.amin(dim=1)
        # With a gradient, for verifiers that choose the bounds by one.
        return torch.where(self.proved(lower), 0.0 * lowest, lowest - torch.inf)

    def gaps(self, lower):
        """Return what a loss over bounds of the sufficient rows follows.

        These are the bounds themselves, without a threshold that the own rows do not have; of
        a clause the largest one.
        """
        return lower

    def parts(self):
        """Return conclusions that together say the same: one of all linear rows comes first."""
        return [self]


@dataclass(frozen=True, eq=False)
class LinearRows(Conclusion):
    """Rows A z + c d + b, where z are the logits or the probabilities, and d the distance.

    All rows must hold; or, of the rows of each clause, at least one.

    Parameters
    ----------
    A : Tensor of shape (n, m, n_classes)
        Coefficients of m rows around each of n reference points.
    c, b : Tensor of shape (n, m)
        Coefficient of the distance, and the constant.
    strict : bool, or bool Tensor of shape (m,)
        Which rows must be above 0, rather than at least 0.
    output : {"logits", "probabilities"}, default="logits"
        Which outputs z are.
    uses_distance : bool, default=True
        Whether any c is other than 0.
    anchored : bool, or bool Tensor of shape (m,), default=False
        Which rows are 0 at the reference point by their definition, as those of Lipschitz
        robustness are, whatever rounding makes of them there.
    clauses : int Tensor of shape (k, w) or None, default=None
        Places of the rows of each of k clauses; one that has less than w repeats a place. None
        makes a clause of each row.
    """

    A: torch.Tensor
    c: torch.Tensor
    b: torch.Tensor
    strict: bool | torch.Tensor
    output: str = "logits"
    uses_distance: bool = True
    anchored: bool | torch.Tensor = False
    clauses: torch.Tensor | None = None

    is_linear = True

    @classmethod
    def join(cls, parts):
        """Return the rows of several `LinearRows` about the same points as one.

        Raises
        ------
        UnsupportedPropertyError
            If they are about different outputs.
        """
        if len(parts) == 1:
            return parts[0]
        rows = _side_by_side(parts)
        if not any(part.has_clauses for part in parts):
            return rows
        return replace(rows, clauses=both_clauses(*_places(parts)))

    @classmethod
    def either(cls, left, right):
        """Return rows that hold where those of `left` do, or those of `right`.

        (a and b) or c is (a or c) and (b or c): each clause of `left` with each of `right`.

        Raises
        ------
        UnsupportedPropertyError
            If they are about different outputs, or make too many clauses.
        """
        parts = [left, right]
        clauses = either_clauses(*_places(parts))
        if len(clauses) == 0:
            return left.without_rows()
        return replace(_side_by_side(parts), clauses=clauses)

    @property
    def needed_outputs(self):
        return frozenset({self.output})

    @property
    def has_clauses(self):
        return self.clauses is not None

    @property
    def members(self):
        """Places of the rows of each clause, of shape (k, w), whether or not `clauses` is None."""
        if self.clauses is None:
            return torch.arange(self.b.shape[1], device=self.b.device).unsqueeze(1)
        return self.clauses

    def values(self, logits, distance=None):
        return self.gaps(self._row_values(logits, distance))

    def judged(self, logits, distance=None):
        if not self.has_clauses:
            return super().judged(logits, distance)
        values = self._row_values(logits, distance)
        return self.lower_margin(values), self.proved_rows(values).all(dim=-1)

    def formula(self, logits, distance=None):
        if not self.has_clauses:
            return super().formula(logits, distance)
        values, strict = self._row_values(logits, distance), self.flags("strict")

        def atom(places):
            return Atom(values[..., places], strict[places])

        clauses = [sorted(set(clause)) for clause in self.clauses.tolist()]
        single = [clause[0] for clause in clauses if len(clause) == 1]
        several = [
            _joined(Or, [atom([place]) for place in clause])
            for clause in clauses
            if len(clause) > 1
        ]
        return _joined(And, [atom(single), *several] if single else several)

    def _row_values(self, logits, distance):
        outputs = outputs_of(logits, self.output)
        if logits.ndim == 3:
            values = outputs @ self.A.transpose(1, 2)
            b, c = self.b.unsqueeze(1), self.c.unsqueeze(1)
        else:
            values = (self.A * outputs.unsqueeze(1)).sum(dim=2)
            b, c = self.b, self.c
        return values + b + c * distance.unsqueeze(-1) if self.uses_distance else values + b

    def __getitem__(self, index):
        return replace(self, A=self.A[index], c=self.c[index], b=self.b[index])

    def sufficient(self):
        return self

    def necessary(self):
        return self

    def gaps(self, lower):
        return lower if self.clauses is None else lower[..., self.clauses].amax(dim=-1)

    def lower_margin(self, lower):
        return self.gaps(lower).amin(dim=-1)

    def proved_rows(self, lower):
        """Return which clauses lower bounds of the rows, of shape (n, m), prove: (n, k).

        Without clauses these are the rows. NaN proves nothing.
        """
        proved = torch.where(self.flags("strict"), lower > 0, lower >= 0)
        return proved if self.clauses is None else proved[..., self.clauses].any(dim=-1)

    def flags(self, name):
        """Return `strict` or `anchored` of each row, as a bool tensor of shape (m,)."""
        return torch.as_tensor(getattr(self, name), device=self.b.device).expand(self.b.shape[1])

    def without_rows(self):
        """Return no rows, about the same points."""
        A, c, b = self.A[:, :0], self.c[:, :0], self.b[:, :0]
        return LinearRows(A, c, b, False, self.output, uses_distance=False)


def _joined(kind, formulas):
    """Join formulas two by two, so that thousands nest no deeper than a dozen."""
    while len(formulas) > 1:
        rest = formulas[len(formulas) // 2 * 2 :]
        pairs = zip(formulas[::2], formulas[1::2], strict=False)
        formulas = [*(kind(*pair) for pair in pairs), *rest]
    return formulas[0]


def _side_by_side(parts):
    """Return the rows of several `LinearRows` about the same points, each a clause."""
    outputs = sorted({part.output for part in parts})
    if len(outputs) > 1:
        raise UnsupportedPropertyError(
            "The parts of the property speak about different outputs "
            f"({' and '.join(outputs)}), so they have no rows in common."
        )
    A, c, b = (torch.cat([getattr(part, k) for part in parts], dim=1) for k in "Acb")
    strict, anchored = (_joined_flags(parts, name) for name in ("strict", "anchored"))
    uses_distance = any(part.uses_distance for part in parts)
    return LinearRows(A, c, b, strict, outputs[0], uses_distance, anchored)


def _places(parts):
    """Return the clauses of each part, by the places of its rows among those of all."""
    starts = itertools.accumulate((part.b.shape[1] for part in parts), initial=0)
    return [part.members + start for part, start in zip(parts, starts, strict=False)]


def _joined_flags(parts, name):
    """Return one flag where all parts agree, else one for each row."""
    flags = [getattr(part, name) for part in parts]
    if all(flag is flags[0] for flag in flags):
        return flags[0]
    return torch.cat([part.flags(name) for part in parts])


def outputs_of(logits, output):
    """Return the logits, or the probabilities of which they are the logits."""
    return torch.softmax(logits, dim=-1) if output == "probabilities" else logits
