"""What a verifier says: verdicts, reasons, and the arrays that hold them."""

from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import torch

from skrobust.networks import frame_like

__all__ = ["LIMITS", "Reason", "Verdict", "Verification", "VerificationBuilder"]


class Verdict(StrEnum):
    """What is known of a property around one reference point."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a verdict is what it is. The text of those behind an unknown is advice."""

    PROVED = "The property was proved for every point of the ball."
    BY_SOLVER = (
        "A solver claims a proof, and nothing else confirms it: what it does in floating point is "
        'no proof that can be checked. Use evidence="required" to count only such as can be.'
    )
    COUNTEREXAMPLE = "A point was found that breaks the property in the estimator itself."
    BOUNDS_TOO_LOOSE = (
        "The bounds neither prove nor break the property. Try a tighter method of bounds, or "
        "a complete verifier such as Exact."
    )
    INCOMPLETE = (
        "The search ended with a part of the ball in which it can neither prove nor break the "
        "property: it is not complete for L2 balls, for probabilities (eta), and next to the "
        "reference point for Lipschitz robustness. Try another epsilon, another threshold, or "
        "norm='linf' with a ball that holds this one (a proof there is one here)."
    )
    TIME_OUT = (
        "The time limit was reached. Try a larger timeout, a smaller epsilon, or a network "
        "trained to be verified (CertifiedTraining)."
    )
    WORK_LIMIT = (
        "The limit on work was reached. Try a larger max_domains, a smaller epsilon, or a network "
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
    WITHOUT_EVIDENCE = (
        "The property was found to hold, but the checker of evidence has accepted no proof, and "
        "only verdicts with evidence were asked for. The note of the point says why."
    )
    DISAGREEMENT = (
        "A verifier claims a proof where another found a counterexample, which was confirmed. "
        "The note of the point says which; please report it to the authors of the first one."
    )


# The reasons for which a search ends before its end.
LIMITS = (Reason.TIME_OUT, Reason.WORK_LIMIT)


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
    evidence : ndarray of shape (n,) of object
        Where evidence was asked for: the name of the file, or "checked" where the checker has
        accepted a proof that was not stored. Else "".
    """

    verdicts: np.ndarray
    counterexamples: np.ndarray
    reasons: np.ndarray
    seconds: np.ndarray
    lower: np.ndarray
    decided_by: np.ndarray
    notes: np.ndarray
    evidence: np.ndarray

    def __len__(self):
        return len(self.verdicts)

    def __getitem__(self, index):
        return Verification(*(getattr(self, field.name)[index] for field in fields(self)))

    def counterexamples_frame(self, X):
        """Return the counterexamples as a frame like `X`, of the points that have one.

        Parameters
        ----------
        X : DataFrame of shape (n, n_features)
            What was verified, of pandas or polars.

        Returns
        -------
        DataFrame
            Of the same kind, with its columns, and their types where these hold the values.
        """
        return frame_like(self.counterexamples, X)

    @property
    def undecided_index(self):
        """Places of the points whose verdict is unknown."""
        return np.flatnonzero(self.verdicts == Verdict.UNKNOWN)


class VerificationBuilder:
    """A `Verification` while it is made: filled in place, so that n points cost n writes.

    Its methods change it and return it; `result` hands the arrays over.

    Parameters
    ----------
    x : Tensor of shape (n, n_features)
        The reference points, none of them decided yet.
    reason : Reason, default=Reason.BOUNDS_TOO_LOOSE
        Why a point is unknown, until another reason is entered.
    """

    def __init__(self, x, reason=Reason.BOUNDS_TOO_LOOSE):
        n = len(x)
        self.verdicts = np.full(n, Verdict.UNKNOWN, dtype="<U9")
        dtype = torch.empty(0, dtype=x.dtype).numpy().dtype
        self.counterexamples = np.full(tuple(x.shape), np.nan, dtype=dtype)
        self.reasons = np.empty(n, dtype=object)
        self.reasons.fill(reason)  # np.full would make it a plain string
        self.seconds = np.zeros(n)
        self.lower = np.full(n, -np.inf)
        self.decided_by = np.full(n, "", dtype=object)
        self.notes = np.full(n, "", dtype=object)
        self.evidence = np.full(n, "", dtype=object)

    def __len__(self):
        return len(self.verdicts)

    @property
    def undecided_index(self):
        """Places of the points whose verdict is unknown."""
        return np.flatnonzero(self.verdicts == Verdict.UNKNOWN)

    def result(self):
        """Return the `Verification`; the builder has no arrays, and no use, after that."""
        arrays = [self.__dict__.pop(field.name) for field in fields(Verification)]
        return Verification(*arrays)

    def falsify(self, index, points, broken=None):
        """Enter counterexamples of the points at `index`.

        Parameters
        ----------
        index : ndarray of shape (k,)
        points : Tensor of shape (k, n_features)
        broken : bool Tensor of shape (k,), default=None
            Which of them were confirmed; the others change nothing. All, if None.
        """
        index, points = np.asarray(index), points.detach().cpu().numpy()
        if broken is not None:
            broken = broken.cpu().numpy()
            index, points = index[broken], points[broken]
        self.verdicts[index] = Verdict.FALSIFIED
        self.reasons[index] = Reason.COUNTEREXAMPLE
        self.counterexamples[index] = points
        return self

    def prove(self, index, lower=None, reason=Reason.PROVED):
        """Enter the points at `index` as verified, with lower bounds where they are known."""
        self.verdicts[index] = Verdict.VERIFIED
        self.reasons[index] = reason
        if lower is not None:
            self.lower[index] = lower
        return self

    def disagree(self, index, points, name, note):
        """Enter a counterexample against a claimed proof at the place `index`.

        Parameters
        ----------
        index : int
        points : ndarray of shape (n_features,)
            The counterexample, confirmed.
        name : str
            Who has it.
        note : str
        """
        self.verdicts[index] = Verdict.FALSIFIED
        self.reasons[index] = Reason.DISAGREEMENT
        self.counterexamples[index] = points
        self.lower[index] = -np.inf  # the claim of the one that is wrong
        self.decided_by[index] = name
        self.notes[index] = note
        return self

    def merge(self, index, other, name=""):
        """Enter what `other` says of the points at `index`.

        Seconds add up, and the larger lower bound is kept. Only points that are unknown here
        may be asked again.

        Parameters
        ----------
        index : ndarray of shape (k,), or slice
        other : Verification
            Of k points.
        name : str, default=""
            Who decided, where `other` does not say.
        """
        if (self.verdicts[index] != Verdict.UNKNOWN).any():
            raise ValueError("Got an index of decided points, but expected unknown ones.")
        # Computed before anything is written: of a slice these are views.
        seconds = self.seconds[index] + other.seconds
        lower = np.maximum(self.lower[index], other.lower)
        for field in fields(Verification):
            getattr(self, field.name)[index] = getattr(other, field.name)
        self.seconds[index], self.lower[index] = seconds, lower
        unsigned = (other.verdicts != Verdict.UNKNOWN) & (other.decided_by == "")
        self.decided_by[index] = np.where(unsigned, name, other.decided_by)
        return self
