"""Piecewise linear operations of a graph, and the pieces that they consist of."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from skrobust.graphs._nodes import Node, no_rule, product

__all__ = ["Clamp", "MaxPool", "PiecewiseNode", "Relu"]


class PiecewiseNode(Node):
    """Base class of piecewise linear nodes, which decide between pieces.

    A decision is what `decide` returns: tensors that say, for each of n samples, which piece is
    active. Methods that take a decision take one of a single sample for any number of inputs,
    too. The half-spaces where a decision stays right are numbered from 0 to `n_rows` - 1.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    """

    is_affine = False

    @property
    def n_rows(self):
        """Number of half-spaces of a decision."""
        raise no_rule("PiecewiseNode.n_rows", self)

    def decide(self, z, tangent=None):
        """Return the decision for inputs `z` of shape (n, *input shape).

        Ties are broken by `tangent`, the derivative of z in some direction.
        """
        raise no_rule("PiecewiseNode.decide", self)

    def is_tied(self, z, behind_relu=False):
        """Return whether more than one decision is right, and it matters which: shape (n,)."""
        raise no_rule("PiecewiseNode.is_tied", self)

    def frozen(self, decision, z, linear=False):
        """Return the output for inputs z, or only its linear part."""
        raise no_rule("PiecewiseNode.frozen", self)

    def frozen_adjoint(self, decision, gradient):
        """Return the gradient of the input for the gradient of the output."""
        raise no_rule("PiecewiseNode.frozen_adjoint", self)

    def slacks(self, decision, z):
        """Return how far z is inside of each half-space, of shape (n, n_rows)."""
        raise no_rule("PiecewiseNode.slacks", self)

    def seeds(self, decision, place, row, weight):
        """Return sums of weighted gradients of half-spaces by z, of shape (k, *input shape).

        The sum number ``place[t]`` has the term ``weight[t]`` times the gradient of the
        half-space ``row[t]``; `decision` belongs to the k sums.
        """
        raise no_rule("PiecewiseNode.seeds", self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu(PiecewiseNode):
    """z where z > 0, else slope * z: ReLU, leaky ReLU, PReLU and the absolute value.

    Each unit has one half-space.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    slope : Tensor
        0 for ReLU, -1 for the absolute value; it broadcasts to the shape of one sample.
    """

    slope: torch.Tensor

    @property
    def n_rows(self):
        return self.size

    def apply(self, z):
        if self.slope.ndim == 0 and self.slope == 0:
            return torch.relu(z)
        return torch.where(z > 0, z, self.slope * z)

    def decide(self, z, tangent=None):
        active = z > 0
        if tangent is not None:
            active = active | ((z == 0) & (tangent > 0))
        on = active.to(z.dtype)
        return on + (1 - on) * self.slope, 2 * on - 1

    def is_tied(self, z, behind_relu=False):
        return ~z.flatten(1).all(dim=1)

    def frozen(self, decision, z, linear=False):
        return z * decision[0]

    def frozen_adjoint(self, decision, gradient):
        return gradient * decision[0]

    def slacks(self, decision, z):
        return (z * decision[1]).flatten(1)

    def seeds(self, decision, place, row, weight):
        weight = weight * decision[1].flatten(1)[place, row]
        return _sums(decision[1].shape, (place, row, weight))


@dataclass(frozen=True, eq=False, kw_only=True)
class Clamp(PiecewiseNode):
    """z cut to [low, high].

    Half-spaces: where z is inside, z - low and high - z; where it is below, low - z; above,
    z - high. First come those of `low`, then those of `high`.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    low, high : float
        Either may be infinite.
    """

    low: float
    high: float

    @property
    def n_rows(self):
        return 2 * self.size

    def apply(self, z):
        return z.clamp(self.low, self.high)

    def decide(self, z, tangent=None):
        below, above = z < self.low, z > self.high
        if tangent is not None:
            below = below | ((z == self.low) & (tangent < 0))
            above = above | ((z == self.high) & (tangent > 0))
        above = above & ~below
        slope = (~(below | above)).to(z.dtype)
        offset = torch.zeros_like(z).masked_fill(below, self.low).masked_fill(above, self.high)
        return slope, offset, below, above

    def is_tied(self, z, behind_relu=False):
        return ((z == self.low) | (z == self.high)).flatten(1).any(dim=1)

    def frozen(self, decision, z, linear=False):
        return z * decision[0] if linear else z * decision[0] + decision[1]

    def frozen_adjoint(self, decision, gradient):
        return gradient * decision[0]

    def slacks(self, decision, z):
        _, _, below, above = decision
        lower = torch.where(below, self.low - z, z - self.low).masked_fill(above, torch.inf)
        upper = torch.where(above, z - self.high, self.high - z).masked_fill(below, torch.inf)
        return torch.cat([lower.flatten(1), upper.flatten(1)], dim=1)

    def seeds(self, decision, place, row, weight):
        _, _, below, above = decision
        flipped = torch.cat([below.flatten(1), ~above.flatten(1)], dim=1)[place, row]
        weight = torch.where(flipped, -weight, weight)
        return _sums(below.shape, (place, row % self.size, weight))


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(PiecewiseNode):
    """The largest entry of each window, in one or two dimensions.

    Half-space w * window + k is: the chosen entry of window w is at least its member k.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    input_shape : tuple of int
        Channels first.
    kernel, stride, padding, dilation : tuple of int
        One number an axis.
    ceil_mode : bool
        As in torch.
    device : torch.device

    Attributes
    ----------
    members : int Tensor of shape (size, window)
        Positions in the flattened input of what each output is the maximum of; windows that
        reach into the padding repeat an entry.
    """

    input_shape: tuple
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    ceil_mode: bool
    device: torch.device

    @cached_property
    def members(self):
        places = np.zeros((1, 1), dtype=np.int64)
        for length, axis in zip(self.input_shape, self._axes(), strict=True):
            places = places[:, None, :, None] * length + axis[None, :, None, :]
            places = places.reshape(places.shape[0] * places.shape[1], -1)
        return torch.as_tensor(places, device=self.device)

    def _axes(self):
        """Yield what the windows see along each axis: an array of shape (windows, window)."""
        yield np.arange(self.input_shape[0]).reshape(-1, 1)
        for sizes in zip(
            self.input_shape[1:], self.shape[1:], self.kernel, self.stride, self.padding,
            self.dilation, strict=True,
        ):  # fmt: skip
            yield _axis_members(*sizes)

    @property
    def n_rows(self):
        return self.members.numel()

    @cached_property
    def _flat_members(self):
        return self.members.reshape(-1)

    def windows(self, z):
        """Return the entries of each window, of shape (n, size, window)."""
        flat = z.flatten(1)
        index = self._flat_members.expand(len(z), -1)
        return flat.gather(1, index).view(len(z), *self.members.shape)

    def apply(self, z):
        pool = (functional.max_pool1d, functional.max_pool2d)[len(self.kernel) - 1]
        return pool(z, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)

    def decide(self, z, tangent=None):
        entries = self.windows(z)
        if tangent is not None:
            best = entries.amax(dim=2, keepdim=True)
            entries = self.windows(tangent).masked_fill(entries < best, -torch.inf)
        place = entries.argmax(dim=2, keepdim=True)
        return (self.members.expand(len(z), -1, -1).gather(2, place).squeeze(2),)

    def is_tied(self, z, behind_relu=False):
        # Behind a ReLU, zeros are equal in the whole region, so that any choice among them
        # is as good; units that are zero before the ReLU are its own ties.
        entries = self.windows(z)
        best = entries.amax(dim=2, keepdim=True)
        equal = (entries == best) & (best > 0) if behind_relu else entries == best
        many = (equal.sum(dim=2) > 1).any(dim=1)
        at = many.nonzero().squeeze(1)
        # Entries that are repeated to fill a window are no ties.
        place = entries[at].argmax(dim=2, keepdim=True)
        chosen = self.members.expand(len(at), -1, -1).gather(2, place)
        many[at] = (equal[at] & (self.members != chosen)).flatten(1).any(dim=1)
        return many

    def frozen(self, decision, z, linear=False):
        chosen = decision[0].expand(len(z), -1)
        return z.flatten(1).gather(1, chosen).view(len(z), *self.shape)

    def frozen_adjoint(self, decision, gradient):
        flat = gradient.new_zeros(len(gradient), product(self.input_shape))
        flat.scatter_add_(1, decision[0].expand(len(gradient), -1), gradient.flatten(1))
        return flat.view(len(gradient), *self.input_shape)

    def slacks(self, decision, z):
        chosen = z.flatten(1).gather(1, decision[0].expand(len(z), -1)).unsqueeze(2)
        slacks = chosen - self.windows(z)
        trivial = self.members == decision[0].unsqueeze(2)
        return slacks.masked_fill_(trivial, torch.inf).flatten(1)

    def seeds(self, decision, place, row, weight):
        chosen = decision[0][place, row // self.members.shape[1]]
        other = self._flat_members[row]
        shape = (len(decision[0]), *self.input_shape)
        return _sums(shape, (place, chosen, weight), (place, other, -weight))


def _axis_members(length, count, kernel, stride, padding, dilation):
    """Return the places along one axis that each window sees; a short one repeats its first."""
    places = np.arange(count)[:, None] * stride - padding + np.arange(kernel) * dilation
    inside = (places >= 0) & (places < length)
    first = places[np.arange(count), inside.argmax(axis=1)]
    return np.where(inside, places, first[:, None])


def _sums(shape, *terms):
    """Return zeros of `shape`, with weights added at (place along the first axis, entry)."""
    total = terms[0][2].new_zeros(product(shape))
    size = len(total) // shape[0]
    for place, entry, weight in terms:
        total.index_add_(0, place * size + entry, weight)
    return total.view(shape)
