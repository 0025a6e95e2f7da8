"""What a verifier says: verdicts, reasons, and the arrays that hold them."""

from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import torch

__all__ = ["Reason", "Verdict", "Verification"]


class Verdict(StrEnum):
    """What is known of a property around one reference point."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a verdict is what it is. The text of those behind an unknown is advice."""

    PROVED = "The property was proved for every point of the ball."
    COUNTEREXAMPLE = "A point was found that breaks the property in the estimator itself."
    BOUNDS_TOO_LOOSE = (
        "The bounds neither prove nor break the property. Try a tighter method of bounds, or "
        "a complete verifier such as Exact."
    )
    TIME_OUT = (
        "The time limit was reached. Try a larger timeout, a smaller epsilon, or a network "
        "trained to be verified (CertifiedTraining)."
    )
    SOLVER_ERROR = "The solver reported an error. Try another verifier on this point."
    SOLVER_CRASH = "The process of the solver died. Try another verifier on this point."
    SPURIOUS = (
        "The solver's point does not break the property in the estimator itself, which computes "
        "in its own precision, and no point near it does. The property holds or fails here by "
        "less than the solver's tolerance; try another epsilon."
    )
    NOT_SUPPORTED = "The verifier cannot treat this point. Try another verifier."
    DISAGREEMENT = (
        "A verifier claims a proof where another found a counterexample, which was confirmed. "
        "The note of the point says which; please report it to the authors of the first one."
    )


@dataclass(frozen=True, eq=False)
class Verification:
    """What a verifier found, for each of n reference points.

    Parameters
    ----------
    verdicts : ndarray of shape (n,) of str
        Members of `Verdict`.
    counterexamples : ndarray of shape (n, n_features)
        Points that break the property, in the dtype of the network; NaN where there is none.
    reasons : ndarray of shape (n,) of object
        Members of `Reason`.
    seconds : ndarray of shape (n,)
        Wall time. A time that was spent on several points together is shared out equally.
    lower : ndarray of shape (n,)
        A proved lower bound of the smallest row in the ball; minus infinity where none is known.
    decided_by : ndarray of shape (n,) of object
        Name of the step that decided; "" where none did, or only one verifier was asked.
    notes : ndarray of shape (n,) of object
        What there is to say of single points, as text.
    """

    verdicts: np.ndarray
    counterexamples: np.ndarray
    reasons: np.ndarray
    seconds: np.ndarray
    lower: np.ndarray
    decided_by: np.ndarray
    notes: np.ndarray

    @classmethod
    def undecided(cls, x, reason=Reason.BOUNDS_TOO_LOOSE):
        """Return a result for the rows of the tensor `x` in which nothing is decided."""
        n = len(x)
        reasons = np.empty(n, dtype=object)
        reasons.fill(reason)  # np.full would make it a plain string
        return cls(
            np.full(n, Verdict.UNKNOWN, dtype="<U9"),
            np.full(tuple(x.shape), np.nan, dtype=torch.empty(0, dtype=x.dtype).numpy().dtype),
            reasons,
            np.zeros(n),
            np.full(n, -np.inf),
            np.full(n, "", dtype=object),
            np.full(n, "", dtype=object),
        )

    def __len__(self):
        return len(self.verdicts)

    def __getitem__(self, index):
        return Verification(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def undecided_index(self):
        """Places of the points whose verdict is unknown."""
        return np.flatnonzero(self.verdicts == Verdict.UNKNOWN)

    def falsify(self, index, points, broken):
        """Return this result with counterexamples of the points at `index`.

        Parameters
        ----------
        index : ndarray of shape (k,)
        points : Tensor of shape (k, n_features)
        broken : bool Tensor of shape (k,)
            Which of them were confirmed (see `confirm`); the others change nothing.
        """
        broken = broken.cpu().numpy()
        changed, index = self._copy(), np.asarray(index)[broken]
        changed.verdicts[index] = Verdict.FALSIFIED
        changed.reasons[index] = Reason.COUNTEREXAMPLE
        changed.counterexamples[index] = points.detach().cpu().numpy()[broken]
        return changed

    def prove(self, index, lower=None):
        """Return this result with the points at `index` verified."""
        changed = self._copy()
        changed.verdicts[index] = Verdict.VERIFIED
        changed.reasons[index] = Reason.PROVED
        if lower is not None:
            changed.lower[index] = lower
        return changed

    def signed(self, name):
        """Return this result with a name on what was decided and bears none."""
        changed = self._copy()
        unsigned = (self.verdicts != Verdict.UNKNOWN) & (self.decided_by == "")
        changed.decided_by[unsigned] = name
        return changed

    def disagree(self, index, points, name, note):
        """Return this result with a counterexample against a proof at the place `index`.

        Parameters
        ----------
        index : int
        points : ndarray of shape (n_features,)
            The counterexample, confirmed.
        name : str
            Who found it.
        note : str
        """
        changed = self._copy()
        changed.verdicts[index] = Verdict.FALSIFIED
        changed.reasons[index] = Reason.DISAGREEMENT
        changed.counterexamples[index] = points
        changed.lower[index] = -np.inf  # was a claim of the one that is wrong
        changed.decided_by[index] = name
        changed.notes[index] = note
        return changed

    def merge(self, index, other):
        """Return this result with what `other` says of the points at `index`.

        Seconds add up, and the larger lower bound is kept. Only points that are unknown here
        may be asked again.
        """
        if (self.verdicts[index] != Verdict.UNKNOWN).any():
            raise ValueError("Got an index of decided points, but expected unknown ones.")
        changed = self._copy()
        for field in fields(self):
            getattr(changed, field.name)[index] = getattr(other, field.name)
        changed.seconds[index] = self.seconds[index] + other.seconds
        changed.lower[index] = np.maximum(self.lower[index], other.lower)
        return changed

    def _copy(self):
        return Verification(*(getattr(self, field.name).copy() for field in fields(self)))
