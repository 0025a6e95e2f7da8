r"""Rows of a node pulled back to the input (CROWN), with slopes chosen by gradients.

References
----------
Zhang et al., "Efficient neural network robustness certification with general activation
functions", NeurIPS 2018. Xu et al., "Fast and complete", ICLR 2021. Wang et al.,
"Beta-CROWN", NeurIPS 2021.
"""

import torch

from skrobust.bounds._input import minimum
from skrobust.bounds._lines import Lines
from skrobust.bounds._rounding import UNIT, _dot, _gamma
from skrobust.graphs import Average

__all__ = ["Climb", "backward", "crown", "initial_slopes", "optimised"]


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
        Free slopes of piecewise nodes, in [0, 1].
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
    graph = relaxation.graph
    count, m = rows.shape[:2]
    constant, error = rows.new_zeros(count, m), rows.new_zeros(count, m)
    alphas, betas = alphas or {}, betas or {}
    pending = {start: rows}
    for i in range(start, 0, -1):
        here = pending.pop(i, None)
        if here is None:
            continue
        node = graph.nodes[i]
        if i in betas:
            here = here + betas[i]
        if trace is not None:
            trace[i] = here
        # The rounding is no matter of gradients.
        with torch.no_grad():
            weight = _at(relaxation.weights[i], sample) * _gamma(graph, i)
            error = error + _dot(here.abs(), weight)
        if node.is_affine:
            if not relaxation.homogeneous:
                constant = constant + here.flatten(2) @ graph.constants[i].flatten()
            parts = _adjoint(node, here.flatten(0, 1))
            parts = [None if p is None else p.unflatten(0, (count, m)) for p in parts]
        else:
            lines = _at(relaxation.lines[i], sample)
            part, shift = lines.pull(here, alphas.get(i))
            constant, parts = constant + shift, [part]
        for j, part in zip(node.inputs, parts, strict=True):
            if part is not None:
                pending[j] = pending[j] + part if j in pending else part
    pulled = pending[0].flatten(2) if 0 in pending else rows.new_zeros(count, m, graph.n_features)
    if trace is not None:
        trace[0] = pulled
    return pulled, constant, error


def _at(values, sample):
    """Return values for each row; what is the same for all balls is not repeated."""
    return values if sample is None or len(values) == 1 else values[sample]


def _adjoint(node, rows):
    if isinstance(node, Average) and rows.requires_grad:
        at = rows.new_zeros(len(rows), *node.input_shape).requires_grad_()
        return torch.autograd.grad(node.apply(at), at, rows, create_graph=True)
    return node.adjoint(rows)


def crown(relaxation, rows, start=None, *, sample=None, shift=None, slope=None, nearest=None,
          alphas=None, betas=None, trace=None):  # fmt: skip
    """Return proved lower bounds, of shape (P, m), of rows of a node; see `backward`.

    Parameters
    ----------
    shift : Tensor of shape (P, m), default=None
        Added to the rows.
    slope : Tensor of shape (P, m), default=None
        Added to the rows, times the distance from the center.
    nearest : Tensor of shape (P,), default=None
        Least distance; see `minimum`.
    trace : dict, default=None
        Where the rows of all nodes are kept, those of the input too.
    """
    start = len(relaxation.graph.nodes) - 1 if start is None else start
    pulled, constant, error = backward(relaxation, start, rows, sample, alphas, betas, trace)
    ball = relaxation.ball
    ball = ball if sample is None or len(relaxation) == 1 else ball[sample]
    lower = minimum(ball, pulled, slope, nearest)
    if shift is not None:
        with torch.no_grad():
            error = error + 4 * UNIT * len(relaxation.graph.nodes) * shift.abs()
        constant = constant + shift
    return lower + constant - error


def optimised(relaxation, rows, start=None, *, sample=None, shift=None, slope=None, nearest=None,
              n_steps=20, rate=0.25, watch=None):  # fmt: skip
    """Return lower bounds as `crown` does, with the free slopes chosen for each row (alpha-CROWN).

    Parameters
    ----------
    n_steps : int
        Steps of Adam, projected to the allowed slopes. Every step gives a proved bound, of
        which the best is kept; rows leave as soon as they are at or above 0.
    rate : float
        Length of the first step, relative to the range of a slope.
    watch : Stopwatch, default=None
        The steps end when its time is up.
    """
    alphas = initial_slopes(relaxation, rows.shape[:2], sample)
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
        if last or not is_open.any():
            break
        climb.step(torch.where(is_open, lower, 0.0).sum())
    return best


class Climb:
    """Adam (Kingma and Ba, ICLR 2015), upwards, inside a box, with a rate that decays.

    That of torch takes longer than the bounds of a small network, and a second to import.

    Parameters
    ----------
    groups : list of (collection of Tensor, float, float)
        Leaves, changed in place; the length of their first step; and their upper limit, where
        the lower one is 0.
    decay : float
        Ratio of the length of each step to that of the one before.
    """

    def __init__(self, groups, decay):
        self.parts = [
            (leaf.requires_grad_(), torch.zeros_like(leaf), torch.zeros_like(leaf), rate, high)
            for leaves, rate, high in groups
            for leaf in leaves
        ]
        self.decay, self.n_steps = decay, 0

    def step(self, value):
        """Move to where `value`, which was computed from the leaves, is larger."""
        leaves = [part[0] for part in self.parts]
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        size = self.decay**self.n_steps
        self.n_steps += 1
        size *= (1 - 0.999**self.n_steps) ** 0.5 / (1 - 0.9**self.n_steps)
        with torch.no_grad():
            for part, gradient in zip(self.parts, gradients, strict=True):
                if gradient is None:
                    continue
                leaf, mean, square, rate, high = part
                mean.lerp_(gradient, 0.1)
                square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                leaf.addcdiv_(mean, square.sqrt().add_(1e-12), value=rate * size).clamp_(0, high)


def initial_slopes(relaxation, counts, sample=None):
    """Return the free slopes that the lines now have, each of shape (P, m, *shape)."""
    alphas = {}
    for i, lines in relaxation.lines.items():
        if isinstance(lines, Lines) and lines.base is not None and lines.open.any():
            lines = _at(lines, sample)
            free = torch.where(lines.convex, lines.low, lines.high) - lines.base
            start = torch.where(
                lines.open, free / torch.where(lines.gain == 0, 1.0, lines.gain), 0
            )
            start = start.unsqueeze(1).expand(*counts, *start.shape[1:])
            alphas[i] = start.clamp(0, 1).clone()
    return alphas
