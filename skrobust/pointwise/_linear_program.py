"""The closest point of a linear region at which another label wins (Bastani et al.)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog

from skrobust.pointwise._program import BoxProgram

__all__ = ["Solution", "closest_by_cvxpy", "closest_by_half_spaces", "closest_lazily"]

_ROWS_AT_A_TIME = 24
_FEW_ROWS = 200  # from here on, HiGHS is faster than dense steps in NumPy
_FEASIBLE = 1e-9  # slack, relative to the largest output or pre-activation


@dataclass(frozen=True, eq=False)
class Solution:
    """What a linear program found.

    Attributes
    ----------
    status : {"optimal", "infeasible", "limit", "rows", "failure"}
        "limit" where the radius has passed the limit, "rows" where more rows than allowed are
        needed.
    radius : float
        The optimum; for "limit" and "rows", a lower bound of it.
    point : ndarray of shape (n_features,) or None
    """

    status: str
    radius: float
    point: np.ndarray | None = None


def output_rows(target, n_classes):
    """Return z_target - z_j for j != target as rows, of shape (n_classes - 1, n_classes)."""
    rows = np.zeros((n_classes, n_classes))
    rows[:, target] = 1.0
    rows -= np.eye(n_classes)
    return np.delete(rows, target, axis=0)


class LazyProgram:
    """The program over one region for one target, with rows added where they are violated.

    Parameters
    ----------
    region : LinearRegion
    center : ndarray of shape (n_features,)
        Distances are measured from here; it need not lie in the region.
    target : int
        Class that is to win.
    low, high : ndarray of shape (n_features,)
        Domain.
    margin : float
        By how much.
    label : int
        Class that wins at the centre: its row is the first one.
    values : list of Tensor, default=None
        ``region.values`` at the centre, where they are known.
    max_rows : float, default=inf
        The search gives up where more half-spaces than that are needed.
    """

    def __init__(
        self, region, center, target, low, high, margin, label, values=None, max_rows=np.inf
    ):
        self.region, self.center, self.margin = region, center, margin
        self.max_rows = max_rows
        self.low, self.high = low, high
        self.x = torch.as_tensor(center).unsqueeze(0)
        if values is None:
            values = region.values(self.x)
        logits = values[-1][0].numpy()
        self.start = region.slacks(values)[0].numpy() if region.n_rows else np.empty(0)
        self.outputs = output_rows(target, len(logits))
        self.gaps = -(self.outputs @ logits)  # the margin that is missing at the centre
        self.program = BoxProgram(low - center, high - center)
        finite = self.start[np.isfinite(self.start)]
        self.tolerance = _FEASIBLE * max(1.0, np.abs(logits).max(), np.abs(finite).max(initial=0))
        self.used = np.zeros(len(self.start), dtype=bool)
        self.output_of_row = {}  # row of the program -> output row
        self.extra = 0.0
        first = label - (label > target)
        self._add([], [first])

    def _add(self, rows, outputs):
        rows, outputs = np.asarray(rows, dtype=np.int64), np.asarray(outputs, dtype=np.int64)
        weights = torch.as_tensor(self.outputs[outputs])
        normals = self.region.normals(rows, weights).numpy()
        right = np.concatenate([-self.start[rows], self.gaps[outputs] + self.margin + self.extra])
        for k, output in enumerate(outputs):
            self.output_of_row[self.program.n_rows + len(rows) + k] = int(output)
        self.used[rows] = True
        self.program.add(normals, right)

    def tighten(self, extra):
        """Ask for a larger margin than `margin`, by `extra`."""
        self.extra = extra
        for row, output in self.output_of_row.items():
            self.program.change(row, self.gaps[output] + self.margin + extra)

    def solve(self, limit=np.inf):
        """Return the `Solution`; rounds of solving and of adding the rows that it violates."""
        while True:
            status = "failure"
            if self.program.n_rows <= _FEW_ROWS:
                status = self.program.solve(limit)
            solution = Solution(status, self.program.radius, self.program.point)
            if status == "failure":
                solution = _general(self.program)
                if solution.status == "optimal" and solution.radius > limit:
                    solution = Solution("limit", solution.radius)
            if solution.status != "optimal":
                return solution
            rows, outputs = self._violated(solution.point)
            if len(rows) == 0 and len(outputs) == 0:
                return Solution("optimal", solution.radius, self.center + solution.point)
            if self.program.n_rows + len(rows) + len(outputs) > self.max_rows:
                return Solution("rows", solution.radius)
            self._add(rows, outputs)

    def _violated(self, move):
        x = self.x + torch.as_tensor(move).unsqueeze(0)
        values = self.region.values(x)
        missing = self.margin + self.extra - self.outputs @ values[-1][0].numpy()
        missing[list(self.output_of_row.values())] = 0.0
        outputs = np.flatnonzero(missing > self.tolerance)
        slacks = self.region.slacks(values)[0].numpy()
        rows = np.flatnonzero((slacks < -self.tolerance) & ~self.used)
        # The most violated first: those that the segment from the centre meets first, tried as
        # well, raise the bound more slowly.
        count = max(_ROWS_AT_A_TIME, self.program.n_rows // 2)
        if len(rows) > count:
            rows = rows[np.argpartition(slacks[rows], count)[:count]]
        return rows, outputs


def closest_lazily(region, center, target, low, high, margin, label, limit=np.inf):
    """Return the `Solution` by lazily added rows; see `LazyProgram`."""
    return LazyProgram(region, center, target, low, high, margin, label).solve(limit)


def _general(program):
    """Solve a BoxProgram with HiGHS, where rounding or cycling stopped its own method."""
    return _by_linprog(program.A, program.b, -program.below, program.above)


def _by_linprog(A, b, low, high):
    n = len(high)
    identity, ones = sparse.identity(n, format="csr"), np.ones((n, 1))
    rows = sparse.vstack(
        [
            sparse.hstack([sparse.csr_matrix(-A), sparse.csr_matrix((len(b), 1))]),
            sparse.hstack([identity, -ones]),
            sparse.hstack([-identity, -ones]),
        ]
    )
    right = np.concatenate([-b, np.zeros(2 * n)])
    bounds = np.column_stack([np.append(low, 0.0), np.append(high, np.inf)])
    cost = np.append(np.zeros(n), 1.0)
    found = linprog(cost, A_ub=rows, b_ub=right, bounds=bounds, method="highs")
    if found.status == 2:
        return Solution("infeasible", np.inf)
    if found.status != 0:
        return Solution("failure", 0.0)
    return Solution("optimal", float(found.fun), found.x[:-1])


def closest_by_half_spaces(region, center, target, low, high, margin, label, limit=np.inf):
    """Solve with `scipy.optimize.linprog` on every half-space of the region: for checking."""
    program = LazyProgram(region, center, target, low, high, margin, label)
    rows = np.flatnonzero(np.isfinite(program.start))
    others = [k for k in range(len(program.outputs)) if k not in program.output_of_row.values()]
    program._add(rows, others)
    solution = _general(program.program)
    if solution.status != "optimal":
        return solution
    status = "limit" if solution.radius > limit else "optimal"
    return Solution(status, solution.radius, center + solution.point)


def closest_by_cvxpy(region, center, target, low, high, margin, label, limit=np.inf):
    """Solve the program as section 3.3 of the paper states it: a variable for every unit.

    The value of each node is a variable; affine nodes are equations between them, decisions
    are equations and inequalities.
    """
    import cvxpy as cp

    graph = region.graph
    radius = cp.Variable()
    values = [cp.Variable(graph.n_features)]
    constraints = [values[0] - center <= radius, center - values[0] <= radius]
    finite = np.isfinite(low), np.isfinite(high)
    constraints += [values[0][finite[0]] >= low[finite[0]]] if finite[0].any() else []
    constraints += [values[0][finite[1]] <= high[finite[1]]] if finite[1].any() else []
    for i, node in enumerate(graph.nodes[1:], start=1):
        value = cp.Variable(node.size)
        matrices, constant = _as_matrices(region, i)
        parts = [M @ values[j] for M, j in zip(matrices, node.inputs, strict=True)]
        constraints.append(value == sum(parts[1:], parts[0]) + constant)
        if not node.is_affine:
            normals, offsets = _half_spaces(region, i)
            constraints.append(normals @ values[node.inputs[0]] + offsets >= 0)
        values.append(value)
    constraints.append(output_rows(target, graph.n_classes) @ values[-1] >= margin)
    problem = cp.Problem(cp.Minimize(radius), constraints)
    problem.solve(solver=cp.HIGHS)
    if problem.status in (cp.INFEASIBLE, "infeasible_or_unbounded"):
        return Solution("infeasible", np.inf)
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        return Solution("failure", 0.0)
    found = max(float(radius.value), 0.0)
    return Solution("limit" if found > limit else "optimal", found, values[0].value)


def _as_matrices(region, i):
    """Return a sparse matrix for each input of a node, and the constant of its output."""
    graph, node = region.graph, region.graph.nodes[i]
    shapes = [graph.nodes[j].shape for j in node.inputs]

    def apply(*parts):
        if node.is_affine:
            return node.apply(*parts)
        return node.frozen(region.decisions[i], *parts)

    zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    constant = apply(*zeros)
    matrices = []
    for k, shape in enumerate(shapes):
        size = int(np.prod(shape, dtype=int))
        blocks = []
        for start in range(0, size, 256):
            count = min(256, size - start)
            unit = torch.zeros(count, size, dtype=torch.float64)
            unit[torch.arange(count), start + torch.arange(count)] = 1.0
            parts = [zero.expand(count, *zero.shape[1:]) for zero in zeros]
            parts[k] = unit.view(count, *shape)
            columns = (apply(*parts) - constant).reshape(count, -1)
            blocks.append(sparse.csr_matrix(columns.numpy()))
        matrices.append(sparse.vstack(blocks).T.tocsr())
    return matrices, constant.flatten().numpy()


def _half_spaces(region, i):
    """Return the rows of a node's decision as a sparse matrix of its input, and constants."""
    node, decision = region.graph.nodes[i], region.decisions[i]
    size = region.graph.nodes[node.inputs[0]].size
    zero = torch.zeros(1, *region.graph.nodes[node.inputs[0]].shape, dtype=torch.float64)
    offsets = node.slacks(decision, zero)[0].numpy()
    rows = np.flatnonzero(np.isfinite(offsets))
    blocks = [
        sparse.csr_matrix(node.normals(torch.as_tensor(part), decision).reshape(-1, size).numpy())
        for part in np.array_split(rows, -(-max(len(rows), 1) // 256))
    ]
    return sparse.vstack(blocks), offsets[rows]
