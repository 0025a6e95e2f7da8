"""The programs of linear regions as Bastani et al. state them, section 3.3, in cvxpy."""

import time

import numpy as np
import torch
from scipy import sparse

from skrobust.pointwise._solutions import Solutions, units

__all__ = ["StatedPrograms"]


class StatedPrograms:
    """The programs as section 3.3 of the paper states them: a variable for every unit.

    The value of each node is a variable; affine nodes are equations between them, decisions
    are equations and inequalities. Each is solved by HiGHS in cvxpy, one after the other. The
    parameters are those of `LazyPrograms`; all rows are there from the start, so that there is
    no limit of them, and no point before the optimum.
    """

    def __init__(
        self,
        region,
        centers,
        targets,
        low,
        high,
        margin,
        labels,
        max_rows=np.inf,
        try_points=None,
    ):
        self.region, self.centers, self.targets = region, centers, targets
        self.low, self.high = (np.broadcast_to(end, centers.shape) for end in (low, high))
        self.margin = np.full(len(centers), float(margin))

    def tighten(self, margin, at):
        """Ask for larger margins, of shape (k,), in the programs `at`."""
        self.margin[at] = margin

    def solve(self, limit=np.inf, at=None):
        """Return the `Solutions` of the programs `at`, in that order; of all if None."""
        at = np.arange(len(self.centers)) if at is None else at
        limit = np.broadcast_to(limit, len(at))
        solutions = Solutions.none(len(at), self.centers.shape[1])
        for place, k in enumerate(at):
            begin = time.perf_counter()
            status, radius, point = self._solve_one(k)
            if status == "optimal" and radius > limit[place]:
                status, point = "limit", np.nan
            solutions.keep(place, status, radius, point)
            solutions.seconds[place] = time.perf_counter() - begin
        return solutions

    def _solve_one(self, k):
        import cvxpy as cp

        region, graph, center = self.region[k : k + 1], self.region.graph, self.centers[k]
        low, high = self.low[k] - center, self.high[k] - center
        unit = units(low[None], high[None])[0]
        # The variables are moves away from the values at the center, each node in units of its
        # own: the tolerances of the solver are absolute.
        start = region.values(torch.as_tensor(center[None], **_exact(region)))
        start = [value.flatten().cpu().numpy() for value in start]
        scales = [unit, *(np.abs(value).max() or 1.0 for value in start[1:])]
        radius = cp.Variable()
        values = [cp.Variable(graph.n_features)]
        constraints = [values[0] <= radius, -values[0] <= radius]
        finite = np.isfinite(low), np.isfinite(high)
        if finite[0].any():
            constraints.append(values[0][finite[0]] >= low[finite[0]] / unit)
        if finite[1].any():
            constraints.append(values[0][finite[1]] <= high[finite[1]] / unit)
        for i, node in enumerate(graph.nodes[1:], start=1):
            value = cp.Variable(node.size)
            matrices = _as_matrices(region, i)
            parts = [
                (M * (scales[j] / scales[i])) @ values[j]
                for M, j in zip(matrices, node.inputs, strict=True)
            ]
            constraints.append(value == sum(parts[1:], parts[0]))
            if not node.is_affine:
                (j,) = node.inputs
                normals, offsets = _half_spaces(region, i)
                slacks = (offsets + normals @ start[j]) / scales[j]
                constraints.append(normals @ values[j] + slacks >= 0)
            values.append(value)
        others = np.delete(np.arange(graph.n_classes), self.targets[k])
        gaps = (self.margin[k] + start[-1][others] - start[-1][self.targets[k]]) / scales[-1]
        constraints.append(values[-1][self.targets[k]] - values[-1][others] >= gaps)
        problem = cp.Problem(cp.Minimize(radius), constraints)
        try:
            problem.solve(solver=cp.HIGHS)
        except (cp.error.SolverError, ValueError):  # the latter for a solution of no status
            return "failure", 0.0, np.nan
        if problem.status in (cp.INFEASIBLE, "infeasible_or_unbounded"):
            return "infeasible", np.inf, np.nan
        if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            return "failure", 0.0, np.nan
        return "optimal", max(float(radius.value), 0.0) * unit, center + values[0].value * unit


def _as_matrices(region, i):
    """Return a sparse matrix for each input of a node."""
    graph, node = region.graph, region.graph.nodes[i]
    shapes = [graph.nodes[j].shape for j in node.inputs]

    def apply(*parts):
        if node.is_affine:
            return node.apply(*parts)
        return node.frozen(region.decisions[i], *parts)

    exact = _exact(region)
    zeros = [torch.zeros(1, *shape, **exact) for shape in shapes]
    constant = apply(*zeros)
    matrices = []
    for k, shape in enumerate(shapes):
        size = int(np.prod(shape, dtype=int))
        blocks = []
        for start in range(0, size, 256):
            count = min(256, size - start)
            unit = torch.zeros(count, size, **exact)
            place = torch.arange(count, device=unit.device)
            unit[place, start + place] = 1.0
            parts = [zero.expand(count, *zero.shape[1:]) for zero in zeros]
            parts[k] = unit.view(count, *shape)
            columns = (apply(*parts) - constant).reshape(count, -1)
            blocks.append(sparse.csr_matrix(columns.cpu().numpy()))
        matrices.append(sparse.vstack(blocks).T.tocsr())
    return matrices


def _half_spaces(region, i):
    """Return the rows of a node's decision as a sparse matrix of its input, and constants."""
    node, decision = region.graph.nodes[i], region.decisions[i]
    size = region.graph.nodes[node.inputs[0]].size
    exact = _exact(region)
    zero = torch.zeros(1, *region.graph.nodes[node.inputs[0]].shape, **exact)
    offsets = node.slacks(decision, zero)[0].cpu().numpy()
    rows = np.flatnonzero(np.isfinite(offsets))
    step = max(1, min(256, len(rows)))
    blocks = []
    for start in range(0, max(len(rows), 1), step):
        row = torch.as_tensor(rows[start : start + step], device=region.x.device)
        repeated = tuple(d.expand(len(row), *d.shape[1:]) for d in decision)
        place, weight = torch.arange(len(row), device=row.device), torch.ones(len(row), **exact)
        seeds = node.seeds(repeated, place, row, weight)
        blocks.append(sparse.csr_matrix(seeds.reshape(-1, size).cpu().numpy()))
    return sparse.vstack(blocks), offsets[rows]


def _exact(region):
    """Return dtype and device of what a region computes with."""
    return {"dtype": torch.float64, "device": region.x.device}
