"""What intervals say of nodes that are not affine, and what is worth knowing better."""

from functools import singledispatch

import torch

from skrobust.bounds._lines import lines_of
from skrobust.graphs import Clamp, MaxPool, Relu, no_rule

__all__ = ["Units", "image", "members_of", "splits_at_zero", "worth_tightening"]


@singledispatch
def image(node, lower, upper):
    """Return the interval of the output of a node that is not affine.

    Parameters
    ----------
    node : Node
        Kinds are registered with ``image.register(Kind)``.
    lower, upper : Tensor of shape (B, *shape of the input)
        The interval of its input.

    Returns
    -------
    lower, upper : Tensor of shape (B, *shape)

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.image", node)


@image.register(Clamp)
@image.register(MaxPool)
def _image_of_monotone(node, lower, upper):
    return node.apply(lower), node.apply(upper)


@image.register(Relu)
def _image_of_relu(node, lower, upper):
    low, high = node.apply(lower), node.apply(upper)
    if (node.slope < 0).any():
        # Not monotone: the kink counts too.
        inside = (lower < 0) & (upper > 0)
        low, high = torch.minimum(low, high), torch.maximum(low, high)
        low = torch.where(inside, low.clamp(max=0), low)
        high = torch.where(inside, high.clamp(min=0), high)
    return low, high


@singledispatch
def worth_tightening(node, lower, upper):
    """Return which entries of the input of a node make its lines better when they are tightened.

    Parameters
    ----------
    node : Node
        Not affine. Kinds are registered with ``worth_tightening.register(Kind)``.
    lower, upper : Tensor of shape (B, *shape of the input)
        The interval of its input.

    Returns
    -------
    bool Tensor of shape (B, *shape of the input)

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.worth_tightening", node)


@worth_tightening.register(Relu)
def _open_units(node, lower, upper):
    return (lower < 0) & (upper > 0)


@worth_tightening.register(Clamp)
def _cut_units(node, lower, upper):
    return (lower < node.low) & (upper > node.low) | (lower < node.high) & (upper > node.high)


@worth_tightening.register(MaxPool)
def _rivals(node, lower, upper):
    return members_of(node, lines_of(node, lower, upper).open, lower)


@singledispatch
def splits_at_zero(node):
    """Return whether each unit of a node is linear for z >= 0 and for z <= 0.

    Branch and bound decides such units by the sign of z; others are left to the programs.

    Parameters
    ----------
    node : Node
        Not affine. Kinds are registered with ``splits_at_zero.register(Kind)``.

    Returns
    -------
    bool

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.splits_at_zero", node)


@splits_at_zero.register(Relu)
def _splits(node):
    return True


@splits_at_zero.register(Clamp)
@splits_at_zero.register(MaxPool)
def _does_not_split(node):
    return False


def members_of(node, is_open, like):
    """Return which entries of the input belong to an open window."""
    chosen = torch.zeros(len(like), like[0].numel(), device=like.device)
    places = node.members.flatten().expand(len(like), -1)
    repeated = is_open.to(chosen.dtype).repeat_interleave(node.members.shape[1], dim=1)
    return (chosen.scatter_add_(1, places, repeated) > 0).view(like.shape)


class Units:
    """How nodes that are not affine are bounded: as functions of their input."""

    homogeneous = False

    def lines(self, i, node, lower, upper):
        """Return lines on the intervals of the input."""
        return lines_of(node, lower, upper)

    def needed(self, i, node, lower, upper):
        """Return which entries of the input are worth tightening."""
        return worth_tightening(node, lower, upper)

    def image(self, i, node, lower, upper):
        """Return the interval of the output."""
        return image(node, lower, upper)
