"""Bounds of rows of a graph over balls: mathematics without verdicts."""

from skrobust.bounds._backward import Climb, backward, crown, initial_slopes, optimised
from skrobust.bounds._input import farthest, minimum
from skrobust.bounds._intervals import Relaxation, Units, interval_rows, relax, tighten
from skrobust.bounds._lines import Lines, PoolLines, lines_of, relu_lines
from skrobust.bounds._rounding import NUMBERS_AT_ONCE, check_finite, points_at_once
from skrobust.bounds._slopes import SlopeUnits, slope_relaxation, unit_ball

__all__ = [
    "NUMBERS_AT_ONCE",
    "Climb",
    "Lines",
    "PoolLines",
    "Relaxation",
    "SlopeUnits",
    "Units",
    "backward",
    "check_finite",
    "crown",
    "farthest",
    "initial_slopes",
    "interval_rows",
    "lines_of",
    "minimum",
    "optimised",
    "points_at_once",
    "relax",
    "relu_lines",
    "slope_relaxation",
    "tighten",
    "unit_ball",
]
