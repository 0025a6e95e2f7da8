"""Evidence for verdicts: what is claimed of a point, and whether the checker accepts it."""

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from skrobust._validation import expected
from skrobust.bounds import farthest
from skrobust.evidence import (
    Rejected,
    Writer,
    about_point,
    around_valid,
    claim_bytes,
    claimed_rows,
    completed,
    joined_rows,
    network_arrays,
    opened,
    why_rejected,
)
from skrobust.exceptions import MissingEvidenceWarning
from skrobust.graphs import read_graph
from skrobust.verification._query import make_query
from skrobust.verification._recording import Piece
from skrobust.verification._result import Reason, Verdict
from skrobust.verification._steps import Encoding

__all__ = ["BEYOND_BOX", "REQUIRED", "Recorder", "check_evidence", "make_recorder"]

REQUIRED = "required"
BEYOND_BOX = (
    "single values and constraints are decided one by one, which files do not say, and over the "
    "box that holds them all "
)
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
    writer = None if evidence == REQUIRED else Writer(evidence, arrays)
    return Recorder(Encoding(network, property, graph), arrays, writer)


def mixed_piece(query, weights):
    """Return a proof by bounds of rows and mixtures, from the weights of these by clause."""
    ball, members = query.ball, query.clauses.tolist()
    owns = [list(dict.fromkeys(clause)) for clause in members]
    starts = np.cumsum([0, *map(len, owns)])
    mixtures = np.zeros((len(weights), starts[-1]))
    for mixture, (k, values) in zip(mixtures, weights.items(), strict=True):
        places = [starts[k] + owns[k].index(row) for row in members[k]]
        np.add.at(mixture, places, values)
    return Piece(0, 0.0, farthest(ball).item(), arrays={"mixtures": mixtures})


def absolute_pieces(pieces, parts):
    """Return pieces of a proof with their clauses and rows counted over all parts of a claim.

    Parameters
    ----------
    pieces : list of Piece
    parts : list of dict of str to ndarray
        The rows of each part.

    Returns
    -------
    list of dict
        With "clauses", "near", "far", "by_slopes" and "arrays".
    """
    clauses = np.cumsum([0, *(len(part["limit"]) for part in parts)])
    starts = np.cumsum([0, *(len(part["b"]) for part in parts)])
    absolute = []
    for piece in pieces:
        arrays, k = dict(piece.arrays), piece.part
        start, count = starts[k], len(parts[k]["b"])
        every = np.arange(clauses[k], clauses[k + 1])
        own = arrays.pop("clauses", every - clauses[k]) + clauses[k]
        if "row" in arrays:
            row = arrays["row"]
            arrays["row"] = np.where(row < count, row + start, row - count + starts[-1])
        if "mixtures" in arrays:
            mixtures = np.zeros((len(arrays["mixtures"]), starts[-1]))
            mixtures[:, start : start + count] = arrays["mixtures"]
            arrays["mixtures"] = mixtures
        where = {"near": piece.near, "far": piece.far, "by_slopes": piece.by_slopes}
        absolute.append({"clauses": own.tolist(), "arrays": arrays} | where)
        others = np.setdiff1d(every, own).tolist()  # by bounds
        absolute += [{"clauses": others, "arrays": {}} | where] if others else []
    return absolute


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
        return REQUIRED if self.writer is None else str(self.writer.folder)

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
        for i in index:
            arrays, parts = self._claim(query[[int(i)]], answer.verdicts[i])
            if isinstance(arrays, str):
                why = arrays
            elif answer.verdicts[i] == Verdict.FALSIFIED:
                arrays["point"] = answer.counterexamples[i]
                why = why_rejected(arrays, self._network, self._digest)
            else:
                proof = proofs[i]
                if isinstance(proof, dict):
                    proof = [mixed_piece(query[[int(i)]], proof)]
                arrays, why = self._proved(arrays, parts, proof)
                if why is None and answer.reasons[i] is Reason.BY_SOLVER:
                    # The checker confirms what a solver has said.
                    answer.reasons[i], answer.decided_by[i] = Reason.PROVED, name
            if why is None:
                evidence[i], why = self._stored(arrays)
            if why is not None:
                if answer.reasons[i] is Reason.BY_SOLVER:
                    why = "a solver alone claims a proof"
                self._go_without(answer, i, why, answer.decided_by[i] or name)
        return answer

    def _proved(self, arrays, parts, proof):
        """Return the claim with the first proof that the checker accepts, or why it does not.

        Bounds alone need no numbers of a proof: the checker computes them.
        """
        tried, reasons = [(arrays, absolute_pieces(proof, parts))] if proof else [], []
        only_some = self.encoding.property.local_set(len(arrays["center"])) is not None
        tried.append((around_valid(arrays) if only_some else arrays, None))
        for claim, pieces in tried:
            try:
                found = completed(claim, self._network, pieces)
            except Rejected as error:  # a claim or a network for which the checker has no rule
                reasons.append(str(error))
                continue
            reasons.append(why_rejected(claim | found, self._network, self._digest))
            if reasons[-1] is None:
                return claim | found, None
        return arrays, f"{BEYOND_BOX}{reasons[0]}" if only_some else reasons[0]

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

    def _claim(self, query, verdict):
        """Return what is claimed of one point as arrays, or why it cannot be; and its parts."""
        property, ball = self.encoding.property, query.ball
        is_proof = verdict == Verdict.VERIFIED
        rows = claimed_rows(self.encoding.graph, ball, query.conclusion, is_proof)
        if len(rows[0]["b"]) == 0:
            return "the property has no linear rows that it implies", []
        about = {
            "verdict": str(verdict),
            "norm": ball.norm,
            "network": self._digest,
            "property": repr(property),
        }
        claim = {"claim": claim_bytes(**about)}
        return claim | about_point(ball, property) | joined_rows(rows), rows

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
