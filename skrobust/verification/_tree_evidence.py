"""Evidence for verdicts about trees: the boxes of a search, as the checker reads them."""

from dataclasses import replace

import numpy as np

from skrobust.evidence import (
    Writer,
    about_reach,
    claim_bytes,
    ensemble_arrays,
    why_rejected,
)
from skrobust.properties import Monotonicity
from skrobust.trees import read_trees
from skrobust.verification._evidence import BEYOND_BOX, Recorder
from skrobust.verification._result import Verdict
from skrobust.verification._steps import Encoding

__all__ = ["Cuts", "cuts_of_tree", "make_tree_recorder"]


def make_tree_recorder(folder, model, property, n_features):
    """Return the `Recorder` of a model of trees and a property.

    Parameters
    ----------
    folder : str, path-like or None
        None stores nothing.
    model : BlackBox
    property : ClassificationRobustness
    n_features : int

    Returns
    -------
    TreeRecorder
    """
    arrays = ensemble_arrays(model, n_features)
    writer = None if folder is None else Writer(folder, arrays)
    return TreeRecorder(Encoding(model, property, read_trees(model)), arrays, writer)


class TreeRecorder(Recorder):
    """Keeps the evidence for answers about trees; parameters are those of `Recorder`."""

    def keep(self, x, labels, answer, name=""):
        """Return an answer with evidence for what it decides; see `Recorder.keep`."""
        index = np.flatnonzero(answer.verdicts != Verdict.UNKNOWN)
        proofs, evidence = answer.evidence, np.full(len(answer), "", dtype=object)
        answer = replace(answer, evidence=evidence)
        if len(index) == 0:
            return answer
        x, property = x.double(), self.encoding.property
        logits = self.encoding.target(x, labels).reference_logits
        classes = property.reference_labels(logits, labels).tolist()
        only_some, uncovered = property.local_set(x.shape[1]) is not None, None
        if isinstance(property, Monotonicity):
            uncovered = "how scores rise with a feature is not covered by this version"
        for i in index:
            if uncovered is not None:
                self._go_without(answer, i, uncovered, answer.decided_by[i] or name)
                continue
            arrays = self._claim(x[i].cpu().numpy(), classes[i], answer.verdicts[i])
            if answer.verdicts[i] == Verdict.FALSIFIED:
                arrays["point"] = answer.counterexamples[i]
            else:
                arrays |= proofs[i] or {}
            why = why_rejected(arrays, self._network, self._digest)
            if why is not None and only_some and answer.verdicts[i] == Verdict.VERIFIED:
                why = f"{BEYOND_BOX}{why}"
            if why is None:
                evidence[i], why = self._stored(arrays)
            if why is not None:
                self._go_without(answer, i, why, answer.decided_by[i] or name)
        return answer

    def _claim(self, center, label, verdict):
        """Return what is claimed of one point as arrays."""
        property = self.encoding.property
        about = {"norm": property.norm, "network": self._digest, "property": repr(property)}
        claim = claim_bytes(verdict=str(verdict), label=label, **about)
        return {"claim": claim} | about_reach(center, property)


class Cuts:
    """How boxes were cut: a tree, of which the checker bounds the leaves.

    Boxes have numbers; the first one is 0.
    """

    def __init__(self):
        self._children = {}

    def cut(self, boxes, feature, last, first):
        """Enter cuts behind numbers of features; all left halves, then all right ones, follow.

        Parameters
        ----------
        boxes, feature : int ndarray of shape (k,)
        last : ndarray of shape (k,)
        first : int
            Number of the first of the halves.
        """
        count = len(boxes)
        for k, (box, j, at) in enumerate(zip(boxes, feature, last, strict=True)):
            self._children[int(box)] = int(j), float(at), first + k, first + count + k

    def arrays(self):
        """Return the arrays of a proof."""
        order, feature, at = [0], [], []
        for box in order:  # grows on the way
            j, last, *halves = self._children.get(box, (-1, 0.0))
            order += halves
            feature.append(j + 1)
            at.append(last)
        return {"feature": np.array(feature, dtype=np.int32), "at": np.array(at)}


def cuts_of_tree(trees, lower, upper):
    """Return the arrays of a proof by the leaves of one tree that meet a box.

    Parameters
    ----------
    trees : TreeEnsemble
        Of one tree.
    lower, upper : ndarray of shape (n_features,)

    Returns
    -------
    dict of str to ndarray
    """
    cuts, boxes = Cuts(), [(trees.roots[0], lower, upper)]
    for number, (node, low, high) in enumerate(boxes):  # grows on the way
        while (feature := trees.feature[node]) >= 0:
            last = trees.last[node]
            if low[feature] <= last < high[feature]:
                left, right = high.copy(), low.copy()
                left[feature], right[feature] = last, np.nextafter(last, np.inf)
                cuts.cut([number], [feature], [last], len(boxes))
                boxes += [(trees.left[node], low, left), (trees.right[node], right, high)]
                break
            node = (trees.left if high[feature] <= last else trees.right)[node]
    return cuts.arrays()
