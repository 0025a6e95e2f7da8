r"""Rows of a node pulled back to the input (CROWN), with slopes chosen by gradients.

References
----------
Zhang et al., "Efficient neural network robustness certification with general activation
functions", NeurIPS 2018. Xu et al., "Fast and complete", ICLR 2021. Wang et al.,
"Beta-CROWN", NeurIPS 2021.
"""

import torch

from skrobust.bounds._climb import Climb
from skrobust.bounds._input import minimum
from skrobust.bounds._rounding import constant_dot, dot, gamma, unit
from skrobust.graphs import pull_back

__all__ = ["adjoint", "backward", "crown", "initial_slopes", "optimized"]


def backward(relaxation, start, rows, sample=None, alphas=None, betas=None, trace=None):
    """Write rows of a node as rows of the input that lie below them over the ball.

    Parameters
    ----------
    relaxation : Relaxation
        Of B balls; it must reach up to `start`.
    start : int
        Position of the node.
    rows : Tensor of shape (P, m, *shape)
        Of its output.
    sample : int Tensor of shape (P,), default=None
        The ball of each; the balls in order if None.
    alphas : dict of int to Tensor of shape (P, 1 or m, *shape), default=None
        Free slopes of piecewise nodes, in [0, 1]; and what `Envelope.keys` name.
    betas : dict of int to Tensor of shape (P, 1 or m, *shape), default=None
        Added to the rows of nodes. The caller sees to it that what is added is not above 0.
    trace : dict, default=None
        Where the rows of all nodes are kept, for those who ask what the bound consists of.

    Returns
    -------
    rows : Tensor of shape (P, m, n_features)
    constant, error : Tensor of shape (P, m)
        The rows lie below the given ones if constant - error is added.
    """
    graph, last = relaxation.graph, {start: rows}
    constant, error = rows.new_zeros(rows.shape[:2]), rows.new_zeros(rows.shape[:2])
    alphas, betas, pulled, more = alphas or {}, betas or {}, None, 0.0
    envelope = relaxation.envelope

    def visit(i, node, here):
        nonlocal constant, error, pulled, more
        if i == 0:
            pulled = here.flatten(2) + more
            return ()
        if i in betas:
            here = here + betas[i]
        if trace is not None:
            trace[i] = here
        if relaxation.rounding:
            # The rounding is no matter of gradients.
            with torch.no_grad():
                weight = _at(relaxation.weights[i], sample) * gamma(graph, i)
                error = error + dot(here.abs(), weight)
        if envelope is not None and i == envelope.node and envelope.keys[0] in alphas:
            lines = _at(relaxation.lines[i], sample)
            part, more, shift, lost = envelope.pull(lines, here, alphas)
            constant, error = constant + shift, error + lost
            return (part,)
        if not node.is_affine:
            part, shift = _at(relaxation.lines[i], sample).pull(here, alphas.get(i))
            constant = constant + shift
            return (part,)
        if not relaxation.homogeneous:
            constant = constant + constant_dot(node, here, graph.constants[i])
        return adjoint(node, here)

    pull_back(graph, start, last.get, visit)
    for part in relaxation.floors[: start + 1]:
        error = error + _at(part, sample)[:, None]
    if pulled is None:
        pulled = rows.new_zeros(*rows.shape[:2], graph.n_features)
    if trace is not None:
        trace[0] = pulled
    return pulled, constant, error


def adjoint(node, rows):
    """Return rows of an affine node, of shape (P, m, *shape), as rows of each input."""
    parts = node.adjoint(rows.flatten(0, 1))
    return [None if part is None else part.unflatten(0, rows.shape[:2]) for part in parts]


def _at(values, sample):
    """Return values for each row; what is the same for all balls is not repeated."""
    return values if sample is None or len(values) == 1 else values[sample]


def crown(relaxation, rows, start=None, *, sample=None, shift=None, slope=None, nearest=None,
          alphas=None, betas=None, trace=None):  # fmt: skip
    """Return lower bounds of rows of a node over balls, by lines.

    They are proved where the relaxation is made with `rounding`, and have gradients by what it
    was made from.

    Parameters
    ----------
    relaxation : Relaxation
    rows : Tensor of shape (P, m, *shape)
        Of the output of the node.
    start : int, default=None
        Position of the node; the last one if None.
    sample : int Tensor of shape (P,), default=None
        The ball of each; the balls in order if None.
    shift : Tensor of shape (P, m), default=None
        Added to the rows.
    slope : Tensor of shape (P, m), default=None
        Added to the rows, times the distance from the center.
    nearest : Tensor of shape (P,), default=None
        Least distance; see `minimum`.
    alphas, betas : dict, default=None
        See `backward`.
    trace : dict, default=None
        Where the rows of all nodes are kept, those of the input too.

    Returns
    -------
    Tensor of shape (P, m)
    """
    start = len(relaxation.graph.nodes) - 1 if start is None else start
    pulled, constant, error = backward(relaxation, start, rows, sample, alphas, betas, trace)
    options = {"sample": sample, "rounding": relaxation.rounding}
    lower = minimum(relaxation.ball, pulled, slope, nearest, **options)
    if shift is not None:
        if relaxation.rounding:
            with torch.no_grad():
                n_nodes = len(relaxation.graph.nodes)
                error = error + 4 * unit(shift.dtype) * n_nodes * shift.abs()
        constant = constant + shift
    return lower + constant - error


def optimized(relaxation, rows, start=None, *, sample=None, shift=None, slope=None, nearest=None,
              n_steps=20, rate=0.25, watch=None):  # fmt: skip
    """Return lower bounds as `crown` does, with the free slopes chosen for each row (alpha-CROWN).

    Parameters
    ----------
    relaxation : Relaxation
    rows : Tensor of shape (P, m, *shape)
    start : int, default=None
    sample, shift, slope, nearest : Tensor, default=None
        See `crown`.
    n_steps : int
        Steps of Adam, projected to the allowed slopes. Every step gives a proved bound, of
        which the best is kept; rows leave as soon as they are at or above 0.
    rate : float
        Length of the first step, relative to the range of a slope.
    watch : Stopwatch, default=None
        The steps end when its time is up.

    Returns
    -------
    Tensor of shape (P, m)
    """
    alphas = initial_slopes(relaxation, rows.shape[:2], sample)
    last = len(relaxation.graph.nodes) - 1 if start is None else start
    if relaxation.envelope is not None and last > relaxation.envelope.node:
        with torch.no_grad():
            pulled = backward(relaxation, last, rows, sample, alphas)[0]
        alphas |= relaxation.envelope.start(pulled)
    options = {"sample": sample, "shift": shift, "slope": slope, "nearest": nearest}
    if not alphas:
        return crown(relaxation, rows, start, **options)
    climb = Climb([(alphas.values(), rate, 1.0)], decay=0.95)
    best = rows.new_full(rows.shape[:2], -torch.inf)
    for step in range(n_steps + 1):
        last = step == n_steps or (watch is not None and watch.left == 0)
        with torch.set_grad_enabled(not last):
            lower = crown(relaxation, rows, start, alphas=alphas, **options)
        best = torch.fmax(best, lower.detach())
        is_open = best < 0
        # Slopes of nodes that the rows do not depend on leave nothing to learn.
        if last or not is_open.any() or not lower.requires_grad:
            break
        climb.step(torch.where(is_open, lower, 0.0).sum())
    return best


def initial_slopes(relaxation, counts, sample=None):
    """Return the free slopes that the lines now have.

    Parameters
    ----------
    relaxation : Relaxation
    counts : pair of int
        P and m.
    sample : int Tensor of shape (P,), default=None
        The ball of each; the balls in order if None.

    Returns
    -------
    dict of int to Tensor of shape (P, m, *shape)
    """
    alphas = {}
    for i, lines in relaxation.lines.items():
        start = lines.start()
        if start is not None:
            start = _at(start, sample).unsqueeze(1)
            alphas[i] = start.expand(*counts, *start.shape[2:]).clone()
    return alphas
