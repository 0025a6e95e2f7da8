"""Operations of a graph that bend everywhere: one function of each entry."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs._nodes import Node, no_rule

__all__ = ["Elu", "Erf", "Gelu", "Sigmoid", "Silu", "Smooth", "Softplus", "Tanh"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Smooth(Node):
    """Base class: a function of each entry, of which is known where it is convex.

    Bounds ask for no more than what stands here. They take the function and its slope to be
    computed in float64 within 64 units in the last place of ``growth * (1 + abs(z))`` and of
    `growth`. The functions of this module need a few: torch computes tanh, exp, expm1, log1p and
    erf in float64 within 1 (SLEEF and MKL, the vectorized libraries of processors) or 2 (CUDA),
    by the libraries' own documents; the rest are two or three products and sums.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.

    Attributes
    ----------
    bends : tuple of float
        Where convexity changes, in order.
    convex_first : bool
        Whether the function is convex before the first of them.
    growth : float
        The function lies between -+ growth (1 + abs(z)), its slope between -+ growth.
    lowest : tuple of float or None
        Where a function that falls, then rises is least, and its value there; None for one that
        does not fall.
    range : tuple of float
        Limits of its values.
    """

    bends = ()
    convex_first = True
    growth = 1.0
    lowest = None
    range = (-math.inf, math.inf)

    is_affine = False
    mixes = False

    def apply(self, z):
        return self.value(z)

    def value(self, z):
        """Return the function at each entry."""
        raise no_rule("Smooth.value", self)

    def slope(self, z):
        """Return its derivative at each entry; at a kink any number between the two."""
        raise no_rule("Smooth.slope", self)

    def drop(self, upper):
        """Return how far `apply` may lie below `value` up to a point, of the shape of `upper`."""
        return torch.zeros_like(upper)

    def pieces(self, convex):
        """Return the intervals on which the function is convex, or concave, as pairs."""
        borders = (-math.inf, *self.bends, math.inf)
        first = 0 if self.convex_first == convex else 1
        return list(itertools.pairwise(borders))[first::2]


@dataclass(frozen=True, eq=False, kw_only=True)
class Tanh(Smooth):
    """The hyperbolic tangent.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    """

    bends = (0.0,)
    range = (-1.0, 1.0)

    def value(self, z):
        return torch.tanh(z)

    def slope(self, z):
        return 1 - torch.tanh(z) ** 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Sigmoid(Smooth):
    """1 / (1 + exp(-z)).

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    """

    bends = (0.0,)
    range = (0.0, 1.0)

    def value(self, z):
        return torch.sigmoid(z)

    def slope(self, z):
        value = torch.sigmoid(z)
        return value * (1 - value)


@dataclass(frozen=True, eq=False, kw_only=True)
class Erf(Smooth):
    """The error function.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    """

    bends = (0.0,)
    range = (-1.0, 1.0)
    growth = 2.0

    def value(self, z):
        return torch.erf(z)

    def slope(self, z):
        return torch.exp(-z * z) * (2 / math.sqrt(math.pi))


# Of tanh(CUBIC_SCALE * (z + CUBIC * z ** 3)), as torch has them.
CUBIC_SCALE, CUBIC = math.sqrt(2 / math.pi), 0.044715
# Beyond, the function is 0 or z within rounding; its cubes would overflow.
_GELU_REACH = 30.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Gelu(Smooth):
    """z P(Z < z) for a standard normal variable Z, or its approximation by tanh.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    approximate : {"none", "tanh"}
    """

    approximate: str = "none"

    convex_first = False
    growth = 2.0

    @property
    def bends(self):
        bend = math.sqrt(2) if self.approximate == "none" else 1.4185040087908284
        return -bend, bend

    @property
    def lowest(self):
        if self.approximate == "none":
            return -0.7517915246935645, -0.16997120747990366
        return -0.7524614220710163, -0.17004075057125405

    def value(self, z):
        return functional.gelu(z, approximate=self.approximate)

    def slope(self, z):
        z = z.clamp(-_GELU_REACH, _GELU_REACH)
        if self.approximate == "none":
            share = (1 + torch.erf(z / math.sqrt(2))) / 2
            return share + z * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        value = torch.tanh(CUBIC_SCALE * (z + CUBIC * z**3))
        inner = CUBIC_SCALE * (1 + 3 * CUBIC * z * z)
        return (1 + value) / 2 + z / 2 * (1 - value * value) * inner


@dataclass(frozen=True, eq=False, kw_only=True)
class Silu(Smooth):
    """z / (1 + exp(-z)).

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    """

    bends = (-2.3993572805154677, 2.3993572805154677)
    convex_first = False
    growth = 2.0
    lowest = (-1.2784645427610738, -0.2784645427610738)

    def value(self, z):
        return functional.silu(z)

    def slope(self, z):
        value = torch.sigmoid(z)
        return value * (1 + z.clamp(-1e3, 1e3) * (1 - value))


@dataclass(frozen=True, eq=False, kw_only=True)
class Softplus(Smooth):
    """log(1 + exp(beta z)) / beta; z itself where beta z is above the threshold, as in torch.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    beta : float
        Above 0.
    threshold : float
    """

    beta: float = 1.0
    threshold: float = 20.0

    range = (0.0, math.inf)

    def __post_init__(self):
        if not (self.beta > 0 and self.threshold > 0):
            raise UnsupportedModelError(
                f"Got Softplus with beta={self.beta} and threshold={self.threshold} (layer "
                f"{self.path}), but expected both to be above 0."
            )

    @property
    def growth(self):
        return max(1.0, 1 / self.beta)

    def apply(self, z):
        return functional.softplus(z, self.beta, self.threshold)

    def value(self, z):
        scaled = self.beta * z
        return (scaled.clamp(min=0) + torch.log1p(torch.exp(-scaled.abs()))) / self.beta

    def slope(self, z):
        return torch.sigmoid(self.beta * z)

    def drop(self, upper):
        # It jumps down to z at the threshold, where it is no longer convex.
        jump = math.log1p(math.exp(-self.threshold)) / self.beta * (1 + 1e-14)
        is_behind = self.beta * upper > self.threshold * (1 - 1e-14)
        # Of two floats alone torch would make a float32, which may be less.
        return torch.where(is_behind, jump, torch.zeros_like(upper))


@dataclass(frozen=True, eq=False, kw_only=True)
class Elu(Smooth):
    """scale * z where z > 0, else scale * alpha * (exp(rate * z) - 1): ELU, SELU and CELU.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    alpha : float
        Not below 0.
    scale, rate : float
        Above 0.
    """

    alpha: float = 1.0
    scale: float = 1.0
    rate: float = 1.0

    def __post_init__(self):
        if not (self.alpha >= 0 and self.scale > 0 and self.rate > 0):
            raise UnsupportedModelError(
                f"Got Elu with alpha={self.alpha}, scale={self.scale} and rate={self.rate} "
                f"(layer {self.path}), but expected alpha not to be below 0, the others above 0."
            )

    @property
    def bends(self):
        # Where the slope falls at 0 from scale * alpha * rate to scale.
        return (0.0,) if self.alpha * self.rate > 1 else ()

    @property
    def growth(self):
        return self.scale * max(1.0, self.alpha, self.alpha * self.rate)

    @property
    def range(self):
        return -self.scale * self.alpha, math.inf

    def value(self, z):
        below = self.alpha * torch.expm1(self.rate * z.clamp(max=0))
        return self.scale * torch.where(z > 0, z, below)

    def slope(self, z):
        below = self.alpha * self.rate * torch.exp(self.rate * z.clamp(max=0))
        return self.scale * torch.where(z > 0, 1.0, below)
