"""Decision trees and ensembles of trees as boxes."""

from skrobust.trees._boxes import (
    ENTRIES,
    ExactBall,
    LeafBoxes,
    in_parts,
    leaf_boxes,
    leaf_distances,
    tree_distances,
)
from skrobust.trees._ensemble import Rivals, TreeEnsemble, last_left
from skrobust.trees._readers import read_decision_tree, reader, unwrapped

__all__ = [
    "ENTRIES",
    "ExactBall",
    "LeafBoxes",
    "Rivals",
    "TreeEnsemble",
    "in_parts",
    "last_left",
    "leaf_boxes",
    "leaf_distances",
    "read_decision_tree",
    "reader",
    "tree_distances",
    "unwrapped",
]
