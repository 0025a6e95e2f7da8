"""What bounds know of smooth units: all rules but that of their lines follow from few facts."""

from dataclasses import fields, replace

import torch

from skrobust.bounds._lines import lines_of
from skrobust.bounds._norms import steepest
from skrobust.bounds._reduction import restricted
from skrobust.bounds._rounding import rounding_terms, rounding_weight
from skrobust.bounds._slopes import Chords, chords_of
from skrobust.bounds._smooth_lines import smooth_lines, steepness, trust
from skrobust.bounds._units import image, splits_at_zero, worth_tightening
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Smooth

__all__ = []

_BENT = 1e-9  # what lines on a straighter unit could gain


@image.register(Smooth)
def _image_of_smooth(node, lower, upper):
    ends, slack = [node.value(lower), node.value(upper)], trust(node, lower, upper)
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    if node.lowest is not None:
        place, value = node.lowest
        falls_and_rises = (lower <= place + 1e-9) & (upper >= place - 1e-9)
        low = torch.where(falls_and_rises, value, low)
    # Infinity times 0 tells nothing.
    low = (low - slack - node.drop(upper)).nan_to_num(-torch.inf, torch.inf, -torch.inf)
    high = (high + slack).nan_to_num(torch.inf, torch.inf, -torch.inf)
    return low.clamp(*node.range), high.clamp(*node.range)


@worth_tightening.register(Smooth)
def _is_bent(node, lower, upper):
    least, most = steepness(node, lower, upper)
    # Infinite intervals are bent too, though the product is NaN.
    return ~((most - least) * (upper - lower) <= _BENT)


@lines_of.register(Smooth)
def _lines_of_smooth(node, lower, upper):
    return smooth_lines(node, lower, upper, _is_bent(node, lower, upper))


@splits_at_zero.register(Smooth)
def _does_not_split(node):
    return False


@restricted.register(Smooth)
def _restricted_smooth(node, units, inputs):
    if any(isinstance(getattr(node, field.name), torch.Tensor) for field in fields(node)):
        return None  # a kind with numbers of its own for each entry
    return replace(node, inputs=inputs, shape=(len(units),))


@chords_of.register(Smooth)
def _chords_of_smooth(node, known, ball, center):
    # The slope of a chord is that of a tangent between its ends.
    lower = torch.minimum(ball[0], center[0])
    upper = torch.maximum(ball[1], center[1])
    least, most = steepness(node, lower, upper)
    # Where a function jumps down, chords may be as steep as one likes; behind, it is another.
    jumps = node.drop(upper) > node.drop(lower)
    most = torch.where(node.drop(upper) > 0, most.clamp(min=node.growth), most)
    return Chords(torch.where(jumps, -torch.inf, least), most)


@steepest.register(Smooth)
def _steepest_of_smooth(node, norm):
    far = torch.full((1,), torch.inf, dtype=torch.float64)
    jump = node.drop(far).item()
    if jump > 0:
        raise UnsupportedModelError(
            f"{node.name} (layer {node.path}) jumps by {jump:.1g} at its threshold, so that it "
            "has no Lipschitz constant. Local bounds know whether the threshold is met."
        )
    return max(abs(slope.item()) for slope in steepness(node, -far, far))


@rounding_terms.register(Smooth)
def _of_few(node):
    return 8


@rounding_weight.register(Smooth)
def _of_smooth_lines(node, lower, upper):
    return 12 * node.growth * (1 + torch.maximum(-lower, upper))
