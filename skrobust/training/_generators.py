"""Networks that make a point near each input: the defaults, and what is asked of a user's own."""

import math
from itertools import pairwise

import torch

from skrobust._validation import call_of_user, expected, kind_of
from skrobust.networks import copied, evaluation_mode

__all__ = []

_N_HIDDEN = 256  # units of each dense hidden layer
_CHANNELS = (16, 32)  # of the convolutions, each of which halves height and width


class Displacement(torch.nn.Module):
    """The input and what a network adds to it, which is nothing at first.

    So what lies near the input is where training starts, and need not be learned.

    Parameters
    ----------
    layers : torch.nn.Sequential
        From inputs to as many numbers. The weights of the last layer become 0.
    """

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        for parameter in layers[-1].parameters():
            torch.nn.init.zeros_(parameter)

    def forward(self, x):
        return x + self.layers(x).view_as(x)


class RowGenerator(torch.nn.Module):
    """A generator from rows to rows of the domain, whatever shape the one inside takes.

    Parameters
    ----------
    generator : torch.nn.Module
        From inputs of shape (n, *shape) to points of that shape.
    shape : tuple of int
        Of one input.
    bounds : pair of floats or of arrays of shape (n_features,), or None
        What points are cut to.
    """

    def __init__(self, generator, shape, bounds):
        super().__init__()
        self.generator = generator
        self.shape = shape
        for name, bound in zip(("low", "high"), bounds or (None, None), strict=True):
            bound = None if bound is None else torch.as_tensor(bound, dtype=torch.float32)
            self.register_buffer(name, bound)

    def forward(self, x):
        points = self.generator(x.unflatten(1, self.shape)).flatten(1)
        return points if self.low is None else points.clamp(self.low, self.high)


def default_generator(shape):
    """Return a generator for inputs of a shape: convolutional for images, else a perceptron.

    Parameters
    ----------
    shape : tuple of int
        Of one input; (channels, height, width) is an image.
    """
    n_features = torch.Size(shape).numel()
    layers, sizes = [], [n_features, _N_HIDDEN]
    if len(shape) == 3:
        # Without the dense layers, which see the whole image, generators fooled classifiers of
        # digits six times less often.
        before, *area = shape
        for after in _CHANNELS:
            convolution = torch.nn.Conv2d(before, after, 3, stride=2, padding=1)
            layers += [convolution, torch.nn.ReLU()]
            before, area = after, [(size + 1) // 2 for size in area]
        sizes = [before * math.prod(area)]
    layers.append(torch.nn.Flatten())
    for before, after in pairwise([*sizes, _N_HIDDEN]):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return Displacement(torch.nn.Sequential(*layers, torch.nn.Linear(_N_HIDDEN, n_features)))


def check_generator(generator):
    """Raise a TypeError if a parameter is no generator, nor what could make one."""
    if not (generator is None or callable(generator)):
        expectation = (
            "None, a torch.nn.Module, or a callable that makes one from the shape of an input"
        )
        raise TypeError(expected("generator", generator, expectation))


def made_generator(generator, shape):
    """Return the network that a checked parameter stands for, as a copy of one's own.

    Parameters
    ----------
    generator : None, torch.nn.Module, or callable
        A callable is given `shape`.
    shape : tuple of int
        Of one input.
    """
    if generator is None:
        return default_generator(shape)
    if isinstance(generator, torch.nn.Module):
        return copied(generator, "generator")
    module = call_of_user("generator", generator, shape)
    if not isinstance(module, torch.nn.Module):
        expectation = "a callable that returns a torch.nn.Module"
        raise TypeError(expected("generator", generator, f"{expectation}, not {kind_of(module)}"))
    return copied(module, "generator")


def check_points(generator, given, x):
    """Raise unless a network makes one point for each input, which depends on its parameters.

    Parameters
    ----------
    generator : torch.nn.Module
    given : object
        The parameter that it was made of.
    x : Tensor of shape (n, *shape)
    """
    with evaluation_mode(generator):
        points = call_of_user("generator", generator, x)
    wanted = f"a network that maps inputs of shape {tuple(x.shape)} to points of that shape"
    if not isinstance(points, torch.Tensor):
        raise TypeError(expected("generator", given, f"{wanted}, not to {kind_of(points)}"))
    if points.shape != x.shape or points.dtype != x.dtype:
        kind = f"{points.dtype} of shape {tuple(points.shape)}"
        raise ValueError(expected("generator", given, f"{wanted}, not to {kind}"))
    if not points.requires_grad:
        expectation = "a network with parameters to train, on which its points depend"
        raise ValueError(expected("generator", given, expectation))
