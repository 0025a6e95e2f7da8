"""Decision trees and ensembles of trees as boxes."""

from skrobust.trees._boxes import (
    ExactBall,
    LeafBoxes,
    in_parts,
    leaf_boxes,
    leaf_distances,
    rows_at_once,
    tree_distances,
)
from skrobust.trees._ensemble import Rivals, TreeEnsemble
from skrobust.trees._half_spaces import HalfSpaces as HalfSpaces
from skrobust.trees._readers import (
    check_tree_model,
    check_tree_property,
    is_single_tree,
    is_tree_model,
    read_trees,
)

__all__ = [
    "ExactBall",
    "LeafBoxes",
    "Rivals",
    "TreeEnsemble",
    "check_tree_model",
    "check_tree_property",
    "in_parts",
    "is_single_tree",
    "is_tree_model",
    "leaf_boxes",
    "leaf_distances",
    "read_trees",
    "rows_at_once",
    "tree_distances",
]
