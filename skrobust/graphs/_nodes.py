"""Affine operations of a graph; each knows its adjoint. Everything is in float64."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

__all__ = [
    "Average",
    "Concat",
    "Constant",
    "Conv",
    "Input",
    "Linear",
    "Node",
    "Rearrange",
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
