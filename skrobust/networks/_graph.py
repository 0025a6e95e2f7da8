"""Networks as graphs of a few known operations.

Each `Node` is affine, and then knows its adjoint; or piecewise linear (`Relu`, `Clamp`,
`MaxPool`), and then knows the pieces that it consists of. A `PiecewiseLinear` network is an
ordered tuple of nodes. Everything is computed in float64.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

__all__ = [
    "Average",
    "Clamp",
    "Concat",
    "Constant",
    "Conv",
    "Input",
    "Linear",
    "MaxPool",
    "Node",
    "PiecewiseLinear",
    "PiecewiseNode",
    "Rearrange",
    "Relu",
    "Scale",
    "Sum",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One operation.

    Parameters
    ----------
    inputs : tuple of int
        Positions in the graph of the nodes that it takes its arguments from.
    shape : tuple of int
        Of its output, for one sample.
    path : str
        Of the module that it comes from, such as "features.3 (Conv2d)".
    """

    inputs: tuple = ()
    shape: tuple = ()
    path: str = ""

    is_affine = True

    @property
    def size(self):
        """Number of entries of the output of one sample."""
        return int(np.prod(self.shape, dtype=int))

    def apply(self, *values):
        """Return the output, of shape (n, *shape), for inputs with the same first axis."""
        raise NotImplementedError

    def adjoint(self, gradient):
        """Return the gradient for each input (None: zero), for (m, *shape) of the output.

        Only for affine nodes.
        """
        raise NotImplementedError

    def magnitude(self, *radii):
        """Return |W| r, the radius of the output of an affine node for radii of the inputs."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Node):
    """The input row."""

    device: torch.device


@dataclass(frozen=True, eq=False, kw_only=True)
class Constant(Node):
    """A value that does not depend on the input (its own input only tells the batch size)."""

    value: torch.Tensor

    def apply(self, x):
        return self.value.expand(len(x), *self.shape)

    def adjoint(self, gradient):
        return (None,)

    def magnitude(self, radius):
        return radius.new_zeros(()).expand(len(radius), *self.shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Node):
    """x W' + b on the last axis; weight of shape (outputs, inputs)."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def apply(self, x):
        return functional.linear(x, self.weight, self.bias)

    def adjoint(self, gradient):
        return (gradient @ self.weight,)

    def magnitude(self, radius):
        return functional.linear(radius, self.weight.abs())


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Node):
    """Convolution in one, two or three dimensions."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    input_shape: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    @property
    def _settings(self):
        return self.stride, self.padding, self.dilation

    def apply(self, x):
        conv = (functional.conv1d, functional.conv2d, functional.conv3d)[self.weight.ndim - 3]
        return conv(x, self.weight, self.bias, *self._settings, self.groups)

    def adjoint(self, gradient):
        dimensions = self.weight.ndim - 2
        return torch.ops.aten.convolution_backward(
            gradient,
            gradient.new_empty(()).expand(len(gradient), *self.input_shape),
            self.weight,
            None,
            *self._settings,
            False,
            (0,) * dimensions,
            self.groups,
            (True, False, False),
        )[:1]

    def magnitude(self, radius):
        conv = (functional.conv1d, functional.conv2d, functional.conv3d)[self.weight.ndim - 3]
        return conv(radius, self.weight.abs(), None, *self._settings, self.groups)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Node):
    """weight * x + bias, entry by entry; both broadcast to the shape of one sample."""

    weight: torch.Tensor
    bias: torch.Tensor
    input_shape: tuple

    def apply(self, x):
        return torch.addcmul(self.bias, self._fitted(x), self.weight)

    def adjoint(self, gradient):
        return (self._summed(gradient * self.weight),)

    def magnitude(self, radius):
        return self._fitted(radius) * self.weight.abs()

    def _fitted(self, x):
        """Give x as many axes as the output has, so that constants can widen it."""
        missing = len(self.shape) - len(self.input_shape)
        return x.reshape(len(x), *[1] * missing, *self.input_shape)

    def _summed(self, gradient):
        missing = len(self.shape) - len(self.input_shape)
        shape = (1,) * missing + self.input_shape
        widened = [i + 1 for i, (a, b) in enumerate(zip(shape, self.shape, strict=True)) if a != b]
        if widened:
            gradient = gradient.sum(dim=widened, keepdim=True)
        return gradient.reshape(len(gradient), *self.input_shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Average(Node):
    """Means or sums: `function` is linear with weights that are not negative."""

    function: object
    arguments: tuple
    options: dict
    input_shape: tuple

    def apply(self, x):
        return self.function(x, *self.arguments, **self.options)

    def adjoint(self, gradient):
        at = gradient.new_zeros(len(gradient), *self.input_shape).requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.apply(at), at, gradient)

    def magnitude(self, radius):
        return self.apply(radius)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rearrange(Node):
    """Entries moved, repeated, left out or set to zero: views, slices, padding.

    `index` has the shape of the output, and holds the position of each entry in the flattened
    input, or -1 for zero. It is None where only the shape changes.
    """

    index: torch.Tensor | None
    input_shape: tuple

    def apply(self, x):
        if self.index is None:
            return x.reshape(len(x), *self.shape)
        flat = x.reshape(len(x), -1)
        flat = torch.cat([flat, flat.new_zeros(len(flat), 1)], dim=1)
        return flat[:, self.index]

    def adjoint(self, gradient):
        if self.index is None:
            return (gradient.reshape(len(gradient), *self.input_shape),)
        count = int(np.prod(self.input_shape, dtype=int))
        flat = gradient.new_zeros(len(gradient), count + 1)
        index = self.index.reshape(-1) % (count + 1)  # -1 is the last place
        flat.index_add_(1, index, gradient.reshape(len(gradient), -1))
        return (flat[:, :count].reshape(len(gradient), *self.input_shape),)

    def magnitude(self, radius):
        return self.apply(radius)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Node):
    """Weighted sum of inputs of the same shape: `weights` has one number an input."""

    weights: tuple

    def apply(self, *values):
        first, second = (w * v for w, v in zip(self.weights, values, strict=True))
        return first + second

    def adjoint(self, gradient):
        return tuple(gradient if w == 1 else w * gradient for w in self.weights)

    def magnitude(self, *radii):
        return sum(abs(w) * r for w, r in zip(self.weights, radii, strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Node):
    """Inputs joined along the axis `dim` (1 is the first after the batch)."""

    dim: int
    lengths: tuple

    def apply(self, *values):
        return torch.cat(values, dim=self.dim)

    def adjoint(self, gradient):
        return gradient.split(self.lengths, dim=self.dim)

    def magnitude(self, *radii):
        return self.apply(*radii)


class PiecewiseNode(Node):
    """Base class of nodes with decisions.

    A decision is what `decide` returns: tensors that say, for each of n samples, which piece is
    active. Methods that take a decision take one of a single sample for any number of inputs,
    too. The half-spaces where a decision stays right are numbered from 0 to `n_rows` - 1.
    """

    is_affine = False

    def decide(self, z, tangent=None):
        """Return the decision for inputs `z` of shape (n, *input shape).

        Ties are broken by `tangent`, the derivative of z in some direction.
        """
        raise NotImplementedError

    def is_tied(self, z, behind_relu=False):
        """Return whether more than one decision is right, and it matters which: shape (n,)."""
        raise NotImplementedError

    def frozen(self, decision, z, linear=False):
        """Return the output for inputs z, or only its linear part."""
        raise NotImplementedError

    def frozen_adjoint(self, decision, gradient):
        """Return the gradient of the input for the gradient of the output."""
        raise NotImplementedError

    def slacks(self, decision, z):
        """Return how far z is inside of each half-space, of shape (n, n_rows)."""
        raise NotImplementedError

    def seeds(self, decision, place, row, weight):
        """Return sums of weighted gradients of half-spaces by z, of shape (k, *input shape).

        The sum number ``place[t]`` has the term ``weight[t]`` times the gradient of the
        half-space ``row[t]``; `decision` belongs to the k sums.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu(PiecewiseNode):
    """z where z > 0, else slope * z; `slope` is 0 for ReLU. One row a unit."""

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
    """z cut to [low, high], either of which may be infinite.

    Rows: where z is inside, z - low and high - z; where it is below, low - z; above, z - high.
    First come the rows of `low`, then those of `high`.
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
    """The largest entry of each window.

    `members`, of shape (size, window), holds the positions in the flattened input of what
    each output is the maximum of; short windows repeat an entry. Row w * window + k is: the
    chosen entry of window w is at least its member k.
    """

    members: torch.Tensor
    input_shape: tuple

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
        return self.windows(z).amax(dim=2).view(len(z), *self.shape)

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
        flat = gradient.new_zeros(len(gradient), int(np.prod(self.input_shape, dtype=int)))
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


def _sums(shape, *terms):
    """Return zeros of `shape`, with weights added at (place along the first axis, entry)."""
    total = terms[0][2].new_zeros(int(np.prod(shape, dtype=int)))
    size = len(total) // shape[0]
    for place, entry, weight in terms:
        total.index_add_(0, place * size + entry, weight)
    return total.view(shape)


@dataclass(frozen=True, eq=False)
class PiecewiseLinear:
    """A network as an ordered tuple of nodes: the input first, the logits last.

    Parameters
    ----------
    nodes : tuple of Node
        Each takes its arguments from nodes before it.
    """

    nodes: tuple

    def __call__(self, x):
        """Return the logits, of shape (n, n_classes), for rows `x` of shape (n, n_features)."""
        return self.values(x)[-1]

    def values(self, x):
        """Return the output of every node, for rows `x`, as a list."""
        values = [x.double()]
        for node in self.nodes[1:]:
            values.append(node.apply(*(values[i] for i in node.inputs)))
        return values

    @property
    def n_features(self):
        return self.nodes[0].size

    @property
    def n_classes(self):
        return self.nodes[-1].size

    @cached_property
    def piecewise(self):
        """Positions of the nodes that are not affine, as a tuple."""
        return tuple(i for i, node in enumerate(self.nodes) if not node.is_affine)

    @cached_property
    def constants(self):
        """Output of each affine node for zeros as inputs, None for the others, as a tuple."""
        constants = [None] * len(self.nodes)
        for i, node in enumerate(self.nodes[1:], start=1):
            if node.is_affine:
                shapes = [self.nodes[j].shape for j in node.inputs]
                device = self.nodes[0].device
                zeros = [torch.zeros(1, *s, dtype=torch.float64, device=device) for s in shapes]
                constants[i] = node.apply(*zeros)
        return tuple(constants)

    def __getstate__(self):
        return {"nodes": self.nodes}

    def __repr__(self):
        lines = (
            f"{i:3}  {type(node).__name__:10} {node.shape!s:18} of {node.inputs}  {node.path}"
            for i, node in enumerate(self.nodes)
        )
        return "PiecewiseLinear(\n" + "\n".join(lines) + "\n)"
