"""Networks that break a property by a few units in the last place, at a corner that is known.

All weights but those of the last layer are non-negative, those of class 0 are non-positive in it,
and those of the others non-negative: so class 0 loses ground in every input, and is worst at the
upper corner of a box. There the outputs are computed in decimals of 60 digits, and the bias of
class 0 is set such that it falls behind by as few units in the last place as the estimator, in
its own precision, still confirms. Interval bounds of such networks are exact but for rounding, so
that a bound that is moved outwards by less than rounding can do claims what is false.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from decimal import Context, Decimal, localcontext

import numpy as np
import torch
from torch import nn

from skrobust import TorchClassifier
from skrobust.attacks import Target, confirm
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, LinearRobustness

__all__ = ["HARD", "Question", "hard_questions", "is_counterexample"]

SIDE = 4  # inputs are images of one channel, or rows of as many numbers
_WIDTH = 8
_DIGITS = Context(prec=60, Emin=-(10**9), Emax=10**9)
_ULPS = [2**k for k in range(13)]
HARD = (
    "few ulps, float32",
    "few ulps, float64",
    "inputs of 2^-20 to 2^20",
    "units of 2^-30 to 2^30",
    "widths of few ulps",
    "logits times 2^80",
    "logits times 2^-80",
    "disjunction",
)


@dataclass(frozen=True, eq=False)
class Question:
    """What verifiers are asked, and what is known of the answer.

    Parameters
    ----------
    estimator : TorchClassifier
    property : RobustnessProperty
    x, labels : ndarray of shape (n, n_features), (n,)
    points : ndarray of shape (n, n_features)
        Planted counterexamples; rows of NaN where none is planted.
    """

    estimator: TorchClassifier
    property: object
    x: np.ndarray
    labels: np.ndarray
    points: np.ndarray

    @property
    def is_planted(self):
        return np.isfinite(self.points).all(axis=1)


def is_counterexample(question):
    """Return which points the library's own confirmation takes for counterexamples, (n,)."""
    network = as_network(question.estimator)
    x, labels = network.rows(question.x), network.encode(question.labels)
    target = Target(network, question.property, x, labels)
    return confirm(target, question.points).broken.numpy()


def hard_questions(name, form, activation, seed):
    """Return a planted, a plain and a float-only `Question`, or None where there is none.

    The planted one is broken in exact arithmetic and in the estimator, by a few units in the
    last place; the plain one holds by a thousandth of the outputs. The last one holds in exact
    arithmetic, but rounding breaks it in the estimator: no verdict about it is wrong in the
    sense of `Verifier`, and "verified" shows what a proof does not cover.

    Parameters
    ----------
    name : str
        One of `HARD`.
    form : {"dense", "convolutional"}
    activation : {"ReLU", "tanh", "sigmoid"}
    seed : int

    Returns
    -------
    tuple of Question or None
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, x, epsilon = _network(name, form, activation)
    if name == "disjunction":
        # Class 0 is ahead of at least one of the others.
        rows = [[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]], [0.0, 0.0]
        property = LinearRobustness(rows, epsilon, bounds=None, clauses=[[0, 1]])
        rival = min
    else:
        property = ClassificationRobustness(epsilon, bounds=None)
        rival = max
    corner = property.ball(x).upper
    if name == "few ulps, float64":
        # With the box as the domain no ball is rounded outwards, so that nothing but the care
        # for rounding in the bounds themselves is in the way of a false claim.
        ends = property.ball(x).lower[0].numpy(), corner[0].numpy()
        property.set_params(bounds=ends, epsilon=1.01 * epsilon)
    logits = exact_logits(module, corner[0])
    scale = float(max(abs(z) for z in logits))
    unit = float(np.spacing(x.numpy().dtype.type(scale)))

    def ahead(ulps):
        """Return the question where class 0 is so far ahead at the corner, and how far it is."""
        moved = deepcopy(module)
        bias = moved[-1].bias
        with localcontext(_DIGITS):
            gap = logits[0] - rival(logits[1:])
            start = Decimal(bias[0].item())
            bias[0] = float(start - gap + Decimal(unit) * Decimal(ulps))
            gap = gap + Decimal(bias[0].item()) - start
        label = np.zeros(1, dtype=int)
        parts = TorchClassifier(moved, 3), property, x.numpy(), label, corner.numpy()
        return Question(*parts), gap

    def first(ulps, is_wanted):
        for many in ulps:
            question, gap = ahead(many)
            if is_wanted(gap) and is_counterexample(question)[0]:
                return question
        return None

    planted = first([-many for many in _ULPS], lambda gap: gap < 0)
    only_in_float = first([0, *_ULPS[:3]], lambda gap: gap > 0)
    plain, _ = ahead(scale / 1000 / unit)
    return planted, replace(plain, points=np.full_like(plain.points, np.nan)), only_in_float


def _network(name, form, activation):
    """Return a network, one reference point and a radius for each input."""
    unit = {"ReLU": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[activation]
    if form == "dense":
        first = [nn.Linear(SIDE**2, _WIDTH), unit()]
    else:
        first = [nn.Unflatten(1, (1, SIDE, SIDE)), nn.Conv2d(1, 2, 3), unit(), nn.Flatten()]
    layers = [*first, nn.Linear(_WIDTH, _WIDTH), unit(), nn.Linear(_WIDTH, 3)]
    module = nn.Sequential(*layers).eval().requires_grad_(False)
    dtype = torch.float64 if name == "few ulps, float64" else torch.float32
    module.to(dtype)
    x = torch.rand(1, SIDE**2, dtype=dtype)
    epsilon = torch.full((SIDE**2,), 0.1, dtype=torch.float64)
    if name == "widths of few ulps":
        epsilon = 2.0 ** -torch.randint(4, 22, (SIDE**2,)).double()
    _make_monotone(module, x, steep=2.0**8 if name == "widths of few ulps" else 1.0)
    weights = _layers(module)
    if name == "inputs of 2^-20 to 2^20":
        size = 2.0 ** torch.randint(-20, 21, (SIDE**2,))
        x, epsilon = x / size.to(dtype), epsilon / size.double()
        scaled = nn.Linear(SIDE**2, SIDE**2).to(dtype).requires_grad_(False)
        scaled.weight.copy_(size.diag())
        scaled.bias.zero_()
        module = nn.Sequential(scaled, *module).eval()
    elif name == "units of 2^-30 to 2^30":
        # Units of ReLU can be scaled without another function, others in the next layer alone.
        size = 2.0 ** torch.randint(-30, 31, (_WIDTH,))
        if activation == "ReLU":
            weights[1].weight.mul_(size[:, None])
            weights[1].bias.mul_(size)
            weights[2].weight.div_(size)
        else:
            weights[2].weight.mul_(size)
    elif name.startswith("logits times"):
        size = 2.0**80 if name.endswith(" 2^80") else 2.0**-80
        weights[2].weight.mul_(size)
        weights[2].bias.mul_(size)
    return module, x, epsilon.numpy()


def _make_monotone(module, x, steep):
    """Give weights their signs, and biases that keep units away from their flat ends at x."""
    *hidden, last = _layers(module)
    for k, layer in enumerate(hidden):
        layer.weight.abs_().mul_(steep if k == 0 else 1.0)
        before = module[: list(module).index(layer) + 1](x)
        means = before.transpose(0, 1).flatten(1).mean(dim=1)
        layer.bias.copy_(layer.bias - means)
    last.weight.abs_()
    last.weight[0].neg_()


def _layers(module):
    return [layer for layer in module if hasattr(layer, "weight")]


def exact_logits(module, x):
    """Return the outputs at a point, of shape (n_features,), in decimals of 60 digits.

    Examples
    --------
    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU())
    >>> _ = module[0].weight.data.fill_(3.0), module[0].bias.data.fill_(2.0**-60)
    >>> exact_logits(module, torch.tensor([1.0])) == [3 + Decimal(2) ** -60]
    True
    """
    with localcontext(_DIGITS):
        values, shape = [Decimal(number) for number in x.tolist()], x.shape
        for layer in module:
            if hasattr(layer, "weight"):
                values = _affine(layer, shape, values)
            elif type(layer) in _UNITS:
                values = [_UNITS[type(layer)](value) for value in values]
            shape = layer(torch.zeros(1, *shape, dtype=x.dtype)).shape[1:]
        return values


def _affine(layer, shape, values):
    """Return an affine layer's outputs, by the matrix that it is."""
    size = shape.numel()
    basis = torch.eye(size, dtype=layer.weight.dtype).view(size, *shape)
    linear = deepcopy(layer)
    linear.bias.zero_()
    # Each entry is one weight, or 0, so that it is exact.
    matrix = linear(basis).flatten(1).T.tolist()
    shifts = layer(torch.zeros(1, *shape, dtype=layer.weight.dtype)).flatten().tolist()
    return [
        sum((Decimal(w) * v for w, v in zip(row, values, strict=True) if w), Decimal(shift))
        for row, shift in zip(matrix, shifts, strict=True)
    ]


_UNITS = {
    nn.ReLU: lambda value: max(value, Decimal(0)),
    nn.Tanh: lambda value: 1 - 2 / ((2 * value).exp() + 1),
    nn.Sigmoid: lambda value: 1 / (1 + (-value).exp()),
}
