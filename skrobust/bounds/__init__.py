"""Bounds of rows of a graph over balls: mathematics without verdicts.

What is computed is differentiable by the weights of the graph. `bound_rows` is the door; the
functions that ask what a kind of node does are `image`, `lines_of`, `worth_tightening`,
`splits_at_zero`, `chords_of`, `steepest`, `rounding_terms`, `rounding_weight`, `restricted`,
`in_single`, `roundings` and `carried_error`, with which new kinds are registered.
"""

from skrobust.bounds import _distance, _smooth  # noqa: F401  (register themselves)
from skrobust.bounds._backward import backward, crown, initial_slopes
from skrobust.bounds._climb import Climb
from skrobust.bounds._envelope import Envelope as Envelope
from skrobust.bounds._envelope import envelope_of as envelope_of
from skrobust.bounds._forward_error import carried_error, forward_error, roundings
from skrobust.bounds._input import farthest, minimum
from skrobust.bounds._intervals import interval_rows, relax
from skrobust.bounds._lines import Lines, PoolLines, lines_of
from skrobust.bounds._norms import norm_product, steepest
from skrobust.bounds._reduction import Reduction, affine_blocks, reduce, restricted
from skrobust.bounds._relaxation import Relaxation
from skrobust.bounds._rounding import NUMBERS_AT_ONCE as NUMBERS_AT_ONCE
from skrobust.bounds._rounding import UNIT as UNIT
from skrobust.bounds._rounding import (
    check_finite,
    points_at_once,
    rounding_terms,
    rounding_weight,
)
from skrobust.bounds._rounding import dot as dot
from skrobust.bounds._rows import METHODS as METHODS
from skrobust.bounds._rows import bound_rows, row_bounds
from skrobust.bounds._single import in_single, outer_single, plain_single, single_graph
from skrobust.bounds._slopes import Chords, chords_of, slope_relaxation
from skrobust.bounds._smooth_lines import SmoothLines
from skrobust.bounds._tightening import intersect as intersect
from skrobust.bounds._tightening import tighten
from skrobust.bounds._units import Units, image, splits_at_zero, worth_tightening

__all__ = [
    "Chords",
    "Climb",
    "Lines",
    "PoolLines",
    "Reduction",
    "Relaxation",
    "SmoothLines",
    "Units",
    "affine_blocks",
    "backward",
    "bound_rows",
    "carried_error",
    "check_finite",
    "chords_of",
    "crown",
    "farthest",
    "forward_error",
    "image",
    "in_single",
    "initial_slopes",
    "interval_rows",
    "lines_of",
    "minimum",
    "norm_product",
    "outer_single",
    "plain_single",
    "points_at_once",
    "reduce",
    "relax",
    "restricted",
    "rounding_terms",
    "rounding_weight",
    "roundings",
    "row_bounds",
    "single_graph",
    "slope_relaxation",
    "splits_at_zero",
    "steepest",
    "tighten",
    "worth_tightening",
]
