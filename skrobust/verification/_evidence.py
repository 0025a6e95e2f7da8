"""Evidence for verdicts: what is claimed of a point, and whether the checker accepts it."""

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from skrobust._validation import expected
from skrobust.evidence import (
    Writer,
    by_bounds,
    claim_bytes,
    network_arrays,
    opened,
    why_rejected,
)
from skrobust.exceptions import MissingEvidenceWarning
from skrobust.graphs import read_graph
from skrobust.verification._query import make_query, reference_error
from skrobust.verification._result import Reason, Verdict
from skrobust.verification._steps import Encoding

__all__ = ["Recorder", "check_evidence", "make_recorder"]

_REQUIRED = "required"
_CHECKED = "checked"


def check_evidence(evidence):
    """Raise where `evidence` is neither None, nor a path, nor "required"."""
    is_path = isinstance(evidence, str) or hasattr(evidence, "__fspath__")
    if evidence is not None and (not is_path or evidence == ""):
        raise TypeError(
            expected("evidence", evidence, 'None, a folder (str or path-like), or "required"')
        )


def make_recorder(evidence, network, property, n_features):
    """Return the `Recorder` of a network and a property.

    Parameters
    ----------
    evidence : str or path-like
        A folder, or "required".
    network : Model
    property : RobustnessProperty
    n_features : int

    Returns
    -------
    Recorder

    Raises
    ------
    UnsupportedModelError
        If the network cannot be read as a graph, or has nodes that the checker does not know.
    ValueError
        If the folder has evidence about another network.
    """
    graph = read_graph(network, n_features)
    arrays = network_arrays(graph)
    writer = None if evidence == _REQUIRED else Writer(evidence, arrays)
    return Recorder(Encoding(network, property, graph), arrays, writer)


def clause_rows(members):
    """Return the rows of all clauses one after the other: whose they are, and which.

    Parameters
    ----------
    members : int Tensor of shape (k, w)

    Returns
    -------
    clause, at : int ndarray of shape (n_rows,)
    """
    each = [list(dict.fromkeys(clause)) for clause in members.tolist()]
    return np.repeat(np.arange(len(each)), [len(rows) for rows in each]), np.concatenate(each)


@dataclass(frozen=True, eq=False)
class Recorder:
    """Keeps the evidence for answers, as files or in none.

    Parameters
    ----------
    encoding : Encoding
        Its graph is what the evidence is about.
    arrays : dict of str to ndarray
        The network as it is stored.
    writer : Writer or None
        None stores nothing: only what the checker accepts then counts as verified.
    """

    encoding: Encoding
    arrays: dict
    writer: Writer | None

    @cached_property
    def _network(self):
        return opened(self.arrays)

    @property
    def place(self):
        """Return what was asked for, as text: the folder, or "required"."""
        return _REQUIRED if self.writer is None else str(self.writer.folder)

    @property
    def _digest(self):
        return _CHECKED if self.writer is None else self.writer.digest

    def keep(self, x, labels, answer, name=""):
        """Return an answer with evidence for what it decides, in place of its proofs.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
        labels : Tensor of shape (n,) or None
        answer : Verification
            Of these points; its `evidence` may hold what a proof consists of, as a dict.
        name : str, default=""
            Who decided.

        Returns
        -------
        Verification
        """
        index = np.flatnonzero(answer.verdicts != Verdict.UNKNOWN)
        proofs, evidence = answer.evidence, np.full(len(answer), "", dtype=object)
        answer = replace(answer, evidence=evidence)
        if len(index) == 0:
            return answer
        query = make_query(self.encoding, x, labels)
        errors = reference_error(self.encoding.graph, query).cpu().numpy()
        for i in index:
            arrays = self._claim(query[[int(i)]], answer.verdicts[i], errors[i])
            if isinstance(arrays, str):
                why = arrays
            elif answer.verdicts[i] == Verdict.FALSIFIED:
                arrays["point"] = answer.counterexamples[i]
                why = why_rejected(arrays, self._network, self._digest)
            else:
                arrays, why = self._proved(arrays, proofs[i])
            if why is None:
                evidence[i], why = self._stored(arrays)
            if why is not None:
                if answer.reasons[i] is Reason.BY_SOLVER:
                    why = "a solver alone claims a proof"
                self._go_without(answer, i, why, answer.decided_by[i] or name)
        return answer

    def _proved(self, arrays, proof):
        """Return the claim with the first proof that the checker accepts, or why it does not.

        Bounds alone need no numbers of a proof: the checker computes them.
        """
        for parts in ([] if isinstance(proof, str) else [proof]) + [None]:
            parts = by_bounds(arrays, self._network) if parts is None else parts
            why = why_rejected(arrays | parts, self._network, self._digest)
            if why is None:
                break
        why = proof if why and isinstance(proof, str) and proof else why
        return arrays | parts, why

    def _stored(self, arrays):
        """Return the name of the file, and why there is none."""
        if self.writer is None:
            return _CHECKED, None
        try:
            return self.writer.add(arrays), None
        except OSError as error:
            return "", f"its file cannot be written: {error}"

    def _go_without(self, answer, i, why, name):
        """Note that a verdict has no evidence; where it is required, nothing is verified."""
        note = f"The verdict of {name} has no evidence: {why}."
        answer.notes[i] = f"{answer.notes[i]} {note}".strip()
        if self.writer is None and answer.verdicts[i] == Verdict.VERIFIED:
            answer.verdicts[i] = Verdict.UNKNOWN
            answer.reasons[i] = Reason.WITHOUT_EVIDENCE

    def _claim(self, query, verdict, error):
        """Return what is claimed of one point as arrays, or why it cannot be."""
        is_proof = verdict == Verdict.VERIFIED
        rows, ball = query.rows if is_proof else query.necessary, query.ball
        if query.uses_distance:
            return "rows with a distance (Lipschitz robustness) are not covered by this version"
        if rows.A.shape[1] == 0:
            return "the property has no linear rows that it implies"
        property, n = self.encoding.property, ball.center.shape[1]
        if property.local_set(n) is not None:
            return "domains beyond a box are not covered by this version"
        down, up = (np.broadcast_to(side, n) for side in property.sides(n))
        if ((down != up) & (down > 0) & (up > 0)).any():
            return "radii that differ on the two sides are not covered by this version"
        bounds, center = property.box(n), ball.center[0].cpu().numpy()
        low, high = (-np.inf, np.inf) if bounds is None else bounds
        # A side on which a feature cannot move ends where the reference is, as a domain does.
        low, high = np.where(down > 0, low, center), np.where(up > 0, high, center)
        b = rows.b[0].cpu().numpy()
        # Constants may stem from rounded outputs at the reference point: to be on the safe side.
        b = b - error if is_proof else b + error.max()
        clause, at = clause_rows(rows.members)
        return {
            "claim": claim_bytes(
                verdict=str(verdict), norm=ball.norm, network=self._digest, property=repr(property)
            ),
            "center": center,
            "epsilon": np.maximum(down, up),
            "lower": ball.lower[0].cpu().numpy(),
            "upper": ball.upper[0].cpu().numpy(),
            "domain_low": low,
            "domain_high": high,
            "A": rows.A[0].cpu().numpy()[at],
            "b": b[at],
            "strict": rows.flags("strict").cpu().numpy().astype(np.uint8)[at],
            "clause": clause,
        }

    def finish(self, result):
        """Write the manifest, and warn where evidence is missing; return the result."""
        decided = result.verdicts != Verdict.UNKNOWN
        if self.writer is not None:
            # A memory may know of files that someone has deleted since.
            for i in np.flatnonzero(decided & (result.evidence != "")):
                if not (self.writer.folder / result.evidence[i]).exists():
                    result.notes[i] = f"Its evidence {result.evidence[i]} is missing.".strip()
                    result.evidence[i] = ""
        names = [name for name in result.evidence[decided] if name]
        missing = int(decided.sum()) - len(names)
        why = ""
        if self.writer is not None:
            about = {
                "property": repr(self.encoding.property),
                "decided": int(decided.sum()),
                "without_evidence": missing,
            }
            try:
                self.writer.finish(about, names)
            except OSError as error:
                why = f" The manifest cannot be written: {error}."
        if missing or why:
            notes = [note for note in result.notes[decided & (result.evidence == "")] if note]
            first = f" The first note: {notes[0]}" if notes else ""
            warnings.warn(
                f"{missing} of {int(decided.sum())} verdicts have no evidence.{first}{why}",
                MissingEvidenceWarning,
                stacklevel=3,
            )
        return result
