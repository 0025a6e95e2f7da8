"""A second verifier that is asked for every point, and what is done where two contradict."""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skrobust.exceptions import SolverDisagreementWarning
from skrobust.verification._result import Verdict
from skrobust.verification._steps import Step, least
from skrobust.verification._vnnlib import export_query

__all__ = ["CrossCheck"]


@dataclass(frozen=True, eq=False)
class CrossCheck(Step):
    """A `Step` that every point is asked for, with a time limit of its own.

    Parameters
    ----------
    query_folder : str, path-like or None, default=None
        Where the queries of contradictions are saved; None is a new temporary folder.
    """

    query_folder: object = None

    def turns(self, timeout, verdicts):
        """Return all points, each with the whole time, whatever the stages have spent."""
        return [(np.arange(len(verdicts)), least(self.timeout, timeout))] if len(verdicts) else []

    def enter(self, verdicts, index, answer, x, labels):
        """Enter what is decided for the first time, and each contradiction; see `Step.enter`."""
        unknown = verdicts.undecided_index
        contradicted = _contradicted(verdicts, answer)
        other = np.setdiff1d(index, unknown)
        verdicts.seconds[other] += answer.seconds[other]
        claims = {i: verdicts.decided_by[i] for i in contradicted}
        verdicts.merge(unknown, answer[unknown], self.name)
        for i in contradicted:
            label = None if labels is None else int(labels[i])
            self._enter_contradiction(verdicts, int(i), claims[i], answer, x[i], label)

    def _enter_contradiction(self, verdicts, i, name, answer, x, label):
        """Falsify point i, since counterexamples are confirmed and proofs are not."""
        is_ours = answer.verdicts[i] == Verdict.FALSIFIED
        right, wrong = (self.name, name) if is_ours else (name, self.name)
        source = answer if is_ours else verdicts
        note = (
            f"{wrong} claims a proof, but {right} found a counterexample. "
            f"{self._saved(x, label, i)}"
        )
        warnings.warn(f"Sample {i}: {note}", SolverDisagreementWarning, stacklevel=5)
        shown = source.evidence[i]
        verdicts.disagree(i, source.counterexamples[i].copy(), right, note)
        verdicts.evidence[i] = shown

    def _saved(self, x, label, i):
        """Save the query of one point; return a sentence that says where, or why not."""
        folder = self.query_folder
        try:
            folder = Path(tempfile.mkdtemp(prefix="skrobust-") if folder is None else folder)
            folder = folder / f"query-{i}"
            network, property = self.encoding.network, self.encoding.property
            export_query(network, property, x.cpu().numpy(), label, folder)
        except Exception as error:  # whatever it is, the verdicts must not be lost
            return f"The query could not be saved: {error}"
        return f"The query was saved in {folder}."


def _contradicted(verdicts, answer):
    """Return the places of points that one side verifies and the other falsifies."""
    decided = [Verdict.VERIFIED, Verdict.FALSIFIED]
    both = np.isin(verdicts.verdicts, decided) & np.isin(answer.verdicts, decided)
    return np.flatnonzero(both & (verdicts.verdicts != answer.verdicts))
