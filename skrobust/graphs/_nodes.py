"""Affine operations of a graph; each knows its value, its adjoint and its magnitude.

Weights are in float64 and without gradients in a graph for verification; in one for training
they are the parameters of the module themselves.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from skrobust.exceptions import UnsupportedModelError

__all__ = [
    "Average",
    "AveragePool",
    "Concat",
    "Constant",
    "Conv",
    "Input",
    "Linear",
    "Node",
    "Permute",
    "Rearrange",
    "Reshape",
    "Scale",
    "Sum",
    "no_rule",
]


def no_rule(operation, node):
    """Make the error that an operation has no rule for a kind of node.

    Parameters
    ----------
    operation : str
        Its public name, such as "bounds.lines_of".
    node : Node

    Returns
    -------
    UnsupportedModelError
    """
    place = f" (layer {node.path})" if node.path else ""
    return UnsupportedModelError(
        f"{operation} has no rule for {node.name}{place}. What is not registered for a kind of "
        "node is refused, not guessed: use a method that does without it, or register a rule."
    )


def product(shape):
    """Return the number of entries of a shape."""
    return int(np.prod(shape, dtype=int))


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """Base class: one operation of a graph.

    An affine kind defines `apply`, `adjoint` and `magnitude`; any other one only `apply`, and
    the rest of what is known about it is registered with the functions that ask for it, such as
    `skrobust.bounds.lines_of`.

    Parameters
    ----------
    inputs : tuple of int
        Positions in the graph of the nodes that it takes its arguments from.
    shape : tuple of int
        Of its output, for one sample.
    path : str
        Of the module that it comes from, such as "features.3 (Conv2d)".

    Attributes
    ----------
    is_affine : bool
    mixes : bool
        Whether an entry of the output may depend on several entries of one input.
    """

    inputs: tuple = ()
    shape: tuple = ()
    path: str = ""

    is_affine = True
    mixes = True

    @property
    def name(self):
        """What error messages call it."""
        return type(self).__name__

    @property
    def size(self):
        """Number of entries of the output of one sample."""
        return product(self.shape)

    def apply(self, *values):
        """Return the output, of shape (n, *shape), for inputs with the same first axis."""
        raise no_rule("Node.apply", self)

    def adjoint(self, gradient):
        """Return the gradient for each input (None: zero), for (m, *shape) of the output.

        Only for affine nodes.
        """
        raise no_rule("Node.adjoint", self)

    def magnitude(self, *radii):
        """Return abs(W) r: the radius of the output of an affine node, for radii of the inputs."""
        raise no_rule("Node.magnitude", self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Node):
    """The input row.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    device : torch.device
        Where the weights are.
    dtype : torch.dtype
        Of the weights.
    """

    device: torch.device
    dtype: torch.dtype = torch.float64


@dataclass(frozen=True, eq=False, kw_only=True)
class Constant(Node):
    """A value that does not depend on the input (its own input only tells the batch size).

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    value : Tensor of shape (*shape)
    """

    value: torch.Tensor

    mixes = False

    def apply(self, x):
        return self.value.expand(len(x), *self.shape)

    def adjoint(self, gradient):
        return (None,)

    def magnitude(self, radius):
        return radius.new_zeros(()).expand(len(radius), *self.shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Node):
    """x W' + b on the last axis.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    weight : Tensor of shape (outputs, inputs)
    bias : Tensor of shape (outputs,) or None
    """

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
    """Convolution in one, two or three dimensions.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    weight : Tensor of shape (channels, channels of the input / groups, *kernel)
    bias : Tensor of shape (channels,) or None
    input_shape : tuple of int
    stride, padding, dilation : tuple of int
        One number an axis.
    groups : int
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    input_shape: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    def _convolve(self, x, weight, bias):
        conv = (functional.conv1d, functional.conv2d, functional.conv3d)[weight.ndim - 3]
        return conv(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def apply(self, x):
        return self._convolve(x, self.weight, self.bias)

    def adjoint(self, gradient):
        dimensions = self.weight.ndim - 2
        return torch.ops.aten.convolution_backward(
            gradient,
            gradient.new_empty(()).expand(len(gradient), *self.input_shape),
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            (0,) * dimensions,
            self.groups,
            (True, False, False),
        )[:1]

    def magnitude(self, radius):
        return self._convolve(radius, self.weight.abs(), None)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Node):
    """weight * x + bias, entry by entry.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    weight, bias : Tensor
        Both broadcast to the shape of one sample.
    input_shape : tuple of int
    canceled : Tensor or None
        Where the bias is a difference, the sum of the absolute values, which its rounding is
        relative to.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    input_shape: tuple
    canceled: torch.Tensor | None = None

    mixes = False

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
    """Means or sums.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    function : callable
        From inputs to outputs: linear, with weights that are not negative.
    input_shape : tuple of int
    """

    function: object
    input_shape: tuple

    def apply(self, x):
        return self.function(x)

    def adjoint(self, gradient):
        has_graph = torch.is_grad_enabled() and gradient.requires_grad
        at = gradient.new_zeros(len(gradient), *self.input_shape).requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.apply(at), at, gradient, create_graph=has_graph)

    def magnitude(self, radius):
        return self.apply(radius)


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Average):
    """The mean of each window, in one or two dimensions.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    function : callable
    input_shape : tuple of int
        As for `Average`.
    kernel, stride, padding : tuple of int
        One number an axis.
    ceil_mode, count_include_pad : bool
    divisor : int or None
        As in torch.
    """

    kernel: tuple
    stride: tuple
    padding: tuple
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Node):
    """The same entries in another shape.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    input_shape : tuple of int
    """

    input_shape: tuple

    mixes = False

    def apply(self, x):
        return x.reshape(len(x), *self.shape)

    def adjoint(self, gradient):
        return (gradient.reshape(len(gradient), *self.input_shape),)

    def magnitude(self, radius):
        return self.apply(radius)


@dataclass(frozen=True, eq=False, kw_only=True)
class Permute(Node):
    """Axes in another order.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    axes : tuple of int
        Axis of the input for each axis of the output, without the batch axis.
    """

    axes: tuple

    mixes = False

    def apply(self, x):
        return x.permute(0, *(axis + 1 for axis in self.axes))

    def adjoint(self, gradient):
        return (gradient.permute(0, *(int(axis) + 1 for axis in np.argsort(self.axes))),)

    def magnitude(self, radius):
        return self.apply(radius)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rearrange(Node):
    """Entries moved, repeated, left out or set to zero: slices, padding, repetition.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    index : int Tensor of shape (*shape)
        Position of each entry in the flattened input, or -1 for zero.
    input_shape : tuple of int
    """

    index: torch.Tensor
    input_shape: tuple

    mixes = False

    @cached_property
    def pads(self):
        """Whether any entry is set to zero."""
        return bool((self.index < 0).any())

    def apply(self, x):
        flat = x.reshape(len(x), -1)
        if self.pads:
            flat = torch.cat([flat, flat.new_zeros(len(flat), 1)], dim=1)
        return flat[:, self.index]

    def adjoint(self, gradient):
        count = product(self.input_shape)
        flat = gradient.new_zeros(len(gradient), count + 1)
        index = self.index.reshape(-1) % (count + 1)  # -1 is the last place
        flat.index_add_(1, index, gradient.flatten(1))
        return (flat[:, :count].reshape(len(gradient), *self.input_shape),)

    def magnitude(self, radius):
        return self.apply(radius)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Node):
    """Weighted sum of two inputs of the same shape.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    weights : tuple of float
        One number an input.
    """

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
    """Inputs joined along an axis.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    dim : int
        The axis; 1 is the first after the batch.
    lengths : tuple of int
        Of the inputs along it.
    """

    dim: int
    lengths: tuple

    mixes = False

    def apply(self, *values):
        return torch.cat(values, dim=self.dim)

    def adjoint(self, gradient):
        return gradient.split(self.lengths, dim=self.dim)

    def magnitude(self, *radii):
        return self.apply(*radii)
