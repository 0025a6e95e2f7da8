"""Bounds of rows in stages, each for the points that the one before it leaves open.

Intervals cost as much as two points, lines over intervals one pass back for each row, and lines
over intervals that are themselves tightened by lines (CROWN) one for each open unit. All of this
is first done in float32, with its rounding accounted for, and last in float64. What float64 gains
is what rounding has cost, in the rows and in the intervals behind them: 1 to 2.1 times the cost in
the rows, on networks of two and three hidden layers, dense and convolutional. Where CROWN misses
by more than `_GAIN` times that, it is not asked again.
"""

from dataclasses import replace
from functools import partial

import torch

from skrobust.bounds import (
    UNIT,
    crown,
    interval_rows,
    outer_single,
    plain_single,
    relax,
    row_bounds,
    single_graph,
)

__all__ = ["Stages"]

_GAIN = 16.0


class Stages:
    """Lower bounds of rows that do not depend on the distance from the center.

    Parameters
    ----------
    graph : Graph
        In float64.
    method : {"ibp", "crown", "alpha-crown"}
    n_steps : int
        See `row_bounds`.
    """

    def __init__(self, graph, method, n_steps):
        self.graph, self.method, self.n_steps = graph, method, n_steps
        self.single = single_graph(graph)

    def bounds(self, query, shift, watch=None):
        """Return proved lower bounds of the rows of a `Query`, of shape (n, m).

        Each is that of the first stage that proves the property there, or the best of all.

        Parameters
        ----------
        query : Query
            Of n points.
        shift : Tensor of shape (n, m)
            Constants of the rows, less the rounding of the reference outputs.
        watch : Stopwatch, default=None
        """
        lower = torch.full_like(shift, -torch.inf)
        index = torch.arange(len(query), device=shift.device)
        with plain_single() as is_plain:
            in_single = is_plain and self.single is not None and query.ball.norm == "linf"
            stages = [*(self._single_stages() if in_single else []), self._exact]
            for stage in stages:
                part = query[index]
                found, hoped = stage(part, shift[index], watch)
                lower[index] = torch.fmax(lower[index], found)
                is_open = ~part.holds(lower[index])
                if hoped is not None:
                    is_open &= part.holds(hoped)
                index = index[is_open]
                if len(index) == 0:
                    break
        return lower

    def _single_stages(self):
        kinds = [(interval_rows, False)]
        if self.method != "ibp":
            # Before the first units intervals are exact, and not tightened.
            kinds += [(crown, refine) for refine in (False, True)[: len(self.graph.piecewise)]]
        last = None if self.method == "alpha-crown" else kinds[-1]
        return [partial(self._in_single, *kind, kind is last) for kind in kinds]

    def _in_single(self, bound, refine, is_last, query, shift, watch):
        """Return bounds by float32, and of the last such stage what float64 may make of them."""
        by_lines, ball = bound is crown, outer_single(query.ball)
        relaxation = relax(self.single, ball, refine=refine, lines=by_lines, watch=watch)
        A = query.rows.A
        rows = A.float()
        single = bound(relaxation, rows).double()
        ends = [side[-1].flatten(1).double() for side in (relaxation.lows, relaxation.highs)]
        # Rows need not be numbers of float32.
        missing = (A - rows.double()).abs() @ torch.maximum(-ends[0], ends[1]).unsqueeze(2)
        missing = missing.squeeze(2)
        error = 8 * UNIT * (A.shape[2] + 2) * (single.abs() + shift.abs() + missing)
        # A NaN, where numbers overflow, proves nothing.
        lower = (single + shift - missing - error).nan_to_num(-torch.inf, torch.inf, -torch.inf)
        if not is_last or query.holds(lower).all():
            return lower, None
        plain = bound(replace(relaxation, rounding=False, floors=[]), rows).double()
        return lower, (lower + _GAIN * (plain - single)).nan_to_num(torch.inf)

    def _exact(self, query, shift, watch):
        by_lines = self.method != "ibp"
        relaxation = relax(self.graph, query.ball, refine=by_lines, lines=by_lines, watch=watch)
        options = {"method": self.method, "n_steps": self.n_steps, "watch": watch}
        return row_bounds(relaxation, query.rows.A, shift, **options), None
