r"""What bounds know of L-infinity distances: intervals, and that they are 1-Lipschitz.

Each is an exact image: over a box, \|z_i - w\| reaches its largest value at an end, its least at
the nearest point, and the maximum over i takes these independently. Lines would not be much
better than intervals, so both are level.
"""

import torch

from skrobust.bounds._lines import PoolLines, lines_of
from skrobust.bounds._norms import steepest
from skrobust.bounds._rounding import NUMBERS_AT_ONCE, rounding_terms, rounding_weight, unit
from skrobust.bounds._units import image, splits_at_zero, worth_tightening
from skrobust.graphs import LinfDistance

__all__ = []


@image.register(LinfDistance)
def _image_of_distance(node, lower, upper):
    size = max(1, NUMBERS_AT_ONCE // node.weight.numel())
    parts = zip(lower.split(size), upper.split(size), strict=True)
    ends = [_ends(node.weight, *part) for part in parts]
    low, high = map(torch.cat, zip(*ends, strict=True))
    # One difference of two numbers each; the maximum is exact.
    slack = 4 * unit(low.dtype) * _largest(node, lower, upper)
    return (low - slack).clamp(min=0), high + slack


def _ends(weight, lower, upper):
    """Return the least and the largest distances over boxes, each of shape (B, n_units)."""
    above, below = upper.unsqueeze(1) - weight, weight - lower.unsqueeze(1)
    return torch.maximum(-above, -below).amax(dim=2), torch.maximum(above, below).amax(dim=2)


def _largest(node, lower, upper):
    """Return how large the numbers are that a distance is made of, of shape (B, 1)."""
    reach = torch.maximum(-lower, upper).amax(dim=1, keepdim=True)
    return reach + node.weight.abs().max()


@worth_tightening.register(LinfDistance)
def _nothing(node, lower, upper):
    return torch.zeros_like(lower, dtype=torch.bool)


@lines_of.register(LinfDistance)
def _level_lines(node, lower, upper):
    low, high = image(node, lower, upper)
    member = torch.zeros(low.shape, dtype=torch.long, device=low.device)
    decided = torch.zeros_like(low, dtype=torch.bool)
    return PoolLines(member, decided, high, lower.shape[1:], low)


@splits_at_zero.register(LinfDistance)
def _does_not_split(node):
    return False


@steepest.register(LinfDistance)
def _steepest_of_distance(node, norm):
    # Each output moves by at most what the input does, in either norm.
    return 1.0 if norm == "linf" else float(len(node.weight) ** 0.5) * (1 + 1e-15)


@rounding_terms.register(LinfDistance)
def _of_few(node):
    return 8


@rounding_weight.register(LinfDistance)
def _of_distances(node, lower, upper):
    return 8 * _largest(node, lower, upper).expand(-1, len(node.weight))
