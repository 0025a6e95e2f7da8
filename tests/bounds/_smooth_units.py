"""Smooth units as nodes, and the same functions and slopes in 40 digits."""

import mpmath as mp
from torch import nn

from skrobust.graphs import Elu, Erf, Gelu, Sigmoid, Silu, Softplus, Tanh

mp.mp.dps = 40

PLACE = {"inputs": (0,), "shape": (1,), "path": "here"}
UNITS = {
    "tanh": Tanh(**PLACE),
    "sigmoid": Sigmoid(**PLACE),
    "erf": Erf(**PLACE),
    "gelu": Gelu(**PLACE),
    "gelu by tanh": Gelu(**PLACE, approximate="tanh"),
    "silu": Silu(**PLACE),
    "softplus": Softplus(**PLACE),
    "softplus with a jump": Softplus(**PLACE, beta=3.0, threshold=2.0),
    "flat softplus": Softplus(**PLACE, beta=0.25),
    "elu": Elu(**PLACE),
    "elu with a convex kink": Elu(**PLACE, alpha=0.5),
    "elu with a concave kink": Elu(**PLACE, alpha=2.0, scale=1.25),
    "celu": Elu(**PLACE, alpha=2.0, rate=0.5),
}
MODULES = [
    nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Softplus(),
    nn.Softplus(3.0, 2.0), nn.ELU(), nn.ELU(0.5), nn.SELU(), nn.CELU(2.0),
]  # fmt: skip


def _gelu_by_tanh(z):
    return mp.tanh(mp.sqrt(2 / mp.pi) * (z + mp.mpf(0.044715) * z**3))


def _slope_of_gelu_by_tanh(z):
    value = _gelu_by_tanh(z)
    inner = mp.sqrt(2 / mp.pi) * (1 + 3 * mp.mpf(0.044715) * z**2)
    return (1 + value) / 2 + z / 2 * (1 - value**2) * inner


def _sigmoid(z):
    return 1 / (1 + mp.exp(-z))


EXACT = {
    Tanh: (lambda n, z: mp.tanh(z), lambda n, z: 1 - mp.tanh(z) ** 2),
    Sigmoid: (lambda n, z: _sigmoid(z), lambda n, z: _sigmoid(z) * (1 - _sigmoid(z))),
    Erf: (lambda n, z: mp.erf(z), lambda n, z: 2 * mp.exp(-(z**2)) / mp.sqrt(mp.pi)),
    Gelu: (
        lambda n, z: z * mp.ncdf(z) if n.approximate == "none" else z * (1 + _gelu_by_tanh(z)) / 2,
        lambda n, z: (
            mp.ncdf(z) + z * mp.npdf(z) if n.approximate == "none" else _slope_of_gelu_by_tanh(z)
        ),
    ),
    Silu: (
        lambda n, z: z * _sigmoid(z),
        lambda n, z: _sigmoid(z) * (1 + z * (1 - _sigmoid(z))),
    ),
    # Without the jump at the threshold.
    Softplus: (
        lambda n, z: mp.log1p(mp.exp(n.beta * z)) / n.beta,
        lambda n, z: _sigmoid(n.beta * z),
    ),
    Elu: (
        lambda n, z: n.scale * (z if z > 0 else n.alpha * mp.expm1(n.rate * z)),
        lambda n, z: mp.mpf(n.scale) * (1 if z > 0 else n.alpha * n.rate * mp.exp(n.rate * z)),
    ),
}


def exact_value(node, z):
    """Return the function at a number, in 40 digits."""
    return EXACT[type(node)][0](node, mp.mpf(z))


def exact_slope(node, z):
    """Return its derivative at a number, in 40 digits."""
    return EXACT[type(node)][1](node, mp.mpf(z))
