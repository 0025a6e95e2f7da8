"""Proved lower bounds of linear rows of the outputs."""

import torch

from skrobust._validation import check_choice, check_integer
from skrobust.bounds._backward import crown, optimized
from skrobust.bounds._input import farthest
from skrobust.bounds._intervals import interval_rows, relax
from skrobust.bounds._rounding import NUMBERS_AT_ONCE

__all__ = ["METHODS", "bound_rows", "row_bounds"]

METHODS = ("ibp", "crown", "alpha-crown")


def bound_rows(graph, ball, rows, method="crown", *, n_steps=20):
    r"""Return proved lower bounds of linear rows of a network over balls.

    Everything is in float64, and bounds are moved outwards by what rounding can do.

    Parameters
    ----------
    graph : Graph
        From `skrobust.graphs.read_graph`.
    ball : Ball
        Of n centers, in float64: `RobustnessProperty.outer_ball` makes one.
    rows : LinearRows
        About the logits, in float64: A z(x) + c d(x, center) + b.
    method : {"ibp", "crown", "alpha-crown"}, default="crown"
        "ibp" propagates intervals; "crown" goes back through lines below and above each unit,
        also to tighten the intervals of hidden layers; "alpha-crown" goes on to choose the
        slopes of these lines by gradient steps. Each is at least as good as the one before it.
    n_steps : int, default=20
        Gradient steps of "alpha-crown".

    Returns
    -------
    Tensor of shape (n, m), in float64
        No point of the ball has a row below it.

    Raises
    ------
    UnsupportedModelError
        If the graph has a kind of node for which no rule is registered.
    ValueError
        If `method`, `n_steps` or a dtype is not as expected.

    References
    ----------
    Gowal et al., 2018; Zhang et al., NeurIPS 2018; Xu et al., ICLR 2021.

    Examples
    --------
    >>> import torch
    >>> from skrobust.bounds import bound_rows
    >>> from skrobust.graphs import read_graph
    >>> from skrobust.properties import ClassificationRobustness
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> graph = read_graph(module, n_features=2)
    >>> x, labels = torch.tensor([[0.2, 0.4]]), torch.tensor([0])
    >>> property = ClassificationRobustness(epsilon=0.01)
    >>> rows = property.conclusion(graph(x), labels).sufficient()
    >>> lower = bound_rows(graph, property.outer_ball(x), rows)
    >>> lower.shape
    torch.Size([1, 1])
    """
    check_choice("method", method, METHODS)
    check_integer("n_steps", n_steps, low=1)
    for name, part in (("ball", ball.center), ("rows", rows.A)):
        if part.dtype != torch.float64:
            raise ValueError(
                f"Got {name} in {part.dtype}, but expected torch.float64: what is proved is "
                "computed in that."
            )
    relaxation = relax(graph, ball, refine=method != "ibp", lines=method != "ibp")
    slope = rows.c if rows.uses_distance else None
    return row_bounds(relaxation, rows.A, rows.b, slope, method=method, n_steps=n_steps)


def row_bounds(relaxation, A, shift, slope=None, nearest=None, *, method="crown", n_steps=20,
               watch=None):  # fmt: skip
    """Return lower bounds of rows of the outputs over balls that are relaxed.

    Parameters
    ----------
    relaxation : Relaxation
        Of n balls; with lines, unless `method` is "ibp".
    A : Tensor of shape (n, m, n_classes)
    shift : Tensor of shape (n, m)
        Added to the rows.
    slope : Tensor of shape (n, m), default=None
        Added to the rows, times the distance from the center.
    nearest : Tensor of shape (n,), default=None
        Least distance; see `minimum`.
    method : {"ibp", "crown", "alpha-crown"}, default="crown"
    n_steps : int, default=20
        See `bound_rows`.
    watch : Stopwatch, default=None
        The steps of "alpha-crown" end when its time is up.

    Returns
    -------
    Tensor of shape (n, m)
    """
    lower = interval_rows(relaxation, A, _least_shift(relaxation, shift, slope, nearest))
    if method == "ibp":
        return lower
    options = {"shift": shift, "slope": slope, "nearest": nearest}
    lower = torch.maximum(lower, crown(relaxation, A, **options))
    if method == "crown":
        return lower
    sample, row = (lower < 0).nonzero(as_tuple=True)
    if len(sample):
        chosen = {
            name: None if value is None else value[sample, row].unsqueeze(1)
            for name, value in (("shift", shift), ("slope", slope))
        }
        chosen["nearest"] = None if nearest is None else nearest[sample]
        rows = A[sample, row].unsqueeze(1)
        best = _in_parts(relaxation, rows, sample, chosen, n_steps, watch)
        lower[sample, row] = torch.maximum(lower[sample, row], best.squeeze(1))
    return lower


def _least_shift(relaxation, shift, slope, nearest):
    """Return the shift with the least of slope * d: intervals do not know the distance."""
    if slope is None:
        return shift
    least = torch.zeros_like(shift[:, 0]) if nearest is None else nearest
    reach = farthest(relaxation.ball)
    terms = slope.clamp(min=0) * least[:, None] + slope.clamp(max=0) * reach[:, None]
    return shift + terms * (1 - 1e-15 * terms.sign())


def _in_parts(relaxation, rows, sample, options, n_steps, watch):
    """Run `optimized` on pairs of ball and row, as many at a time as memory allows."""
    total = sum(node.size for node in relaxation.graph.nodes)
    step = max(1, 2 * NUMBERS_AT_ONCE // total)
    parts = []
    for start in range(0, len(rows), step):
        at = slice(start, start + step)
        chosen = {name: None if v is None else v[at] for name, v in options.items()}
        with torch.enable_grad():
            best = optimized(
                relaxation, rows[at], sample=sample[at], n_steps=n_steps, watch=watch, **chosen
            )
        parts.append(best)
    return torch.cat(parts)
