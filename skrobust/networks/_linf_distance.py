"""Networks that are 1-Lipschitz in the L-infinity norm by construction."""

import itertools
import math

import torch

from skrobust._validation import check_integer, check_real, expected

__all__ = ["LinfDistanceLayer", "LinfDistanceNetwork"]

_MOMENTUM = 0.1  # of running means
_NUMBERS_AT_ONCE = 2**18  # of differences: more would leave the caches
_SHRINK = 1 - 2.0**-20  # of the outputs: more than rounding adds to a change or to a distance


class LinfDistanceLayer(torch.nn.Module):
    r"""Neurons that measure distances: :math:`\|x - w\|_\infty`, less a mean, plus a bias.

    In evaluation mode the norm is always that of L-infinity. In training mode it is that of
    :math:`L_p`, for the number `p` that a regime raises, since the gradient of the maximum
    reaches a single weight of each neuron. Weights are in float32; what is computed has the type
    of the input.

    Parameters
    ----------
    in_features, out_features : int
    shift : bool, default=True
        Whether the mean over the batch is taken off in training mode, and in evaluation mode a
        running mean of these. Distances are far from 0 else.
    bias : bool, default=False
        Whether a learned constant is added.
    """

    def __init__(self, in_features, out_features, *, shift=True, bias=False):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.p = math.inf
        self.weight = torch.nn.Parameter(torch.randn(out_features, in_features))
        self.bias = torch.nn.Parameter(torch.zeros(out_features)) if bias else None
        self.register_buffer("running_mean", torch.zeros(out_features) if shift else None)

    def forward(self, x):
        if not self.training:
            distance = torch.cdist(x, self.weight.to(x.dtype), p=math.inf)
        else:
            distance = _distance(x, self.weight, self.p)
        if self.running_mean is not None:
            distance = distance - self._mean(distance)
        return distance if self.bias is None else distance + self.bias

    def _mean(self, distance):
        if not self.training:
            return self.running_mean
        mean = distance.mean(dim=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, _MOMENTUM)
        return mean

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}"


class _PowerDistance(torch.autograd.Function):
    """Distances of the L_p norm, for p a power of two: by squaring again and again.

    Differences are relative to the largest one of each pair, so that no power overflows, and the
    sum of powers is at least 1. On 128 x 784 inputs and 256 neurons forward and backward take a
    tenth of the time of `torch.cdist` at p = 8, and a fifteenth at p = 64; and there it overflows
    in float32.
    """

    @staticmethod
    def forward(ctx, x, weight, n_squarings):
        largest = torch.cdist(x, weight, p=math.inf)
        inverse = torch.where(largest > 0, 1 / largest, 1.0)
        sums = torch.empty_like(largest)
        for at, power in _relative(x, weight, inverse):
            for _ in range(n_squarings):
                power.mul_(power)
            sums[:, at] = power.sum(dim=2)
        # Of two equal points: all differences are 0.
        sums = torch.where(largest > 0, sums, 1.0)
        ctx.save_for_backward(x, weight, inverse, sums)
        ctx.n_squarings = n_squarings
        return largest * sums**2.0**-n_squarings

    @staticmethod
    def backward(ctx, gradient):
        x, weight, inverse, sums = ctx.saved_tensors
        factor = gradient * sums ** (2.0**-ctx.n_squarings - 1)
        by_x, by_weight = torch.zeros_like(x), torch.empty_like(weight)
        for at, power in _relative(x, weight, inverse):
            # The difference to the power of p - 1 = 1 + 2 + 4 + ... + p / 2.
            square = power * power
            for k in range(ctx.n_squarings - 1):
                power.mul_(square)
                if k < ctx.n_squarings - 2:
                    square.mul_(square)
            power.mul_(factor[:, at].unsqueeze(2))
            by_x += power.sum(dim=1)
            by_weight[at] = -power.sum(dim=0)
        return by_x, by_weight, None


def _relative(x, weight, inverse):
    """Yield neurons, and the differences of inputs from them relative to the largest."""
    size = max(1, _NUMBERS_AT_ONCE // max(x.numel(), 1))
    for start in range(0, len(weight), size):
        at = slice(start, start + size)
        yield at, (x.unsqueeze(1) - weight[at]).mul_(inverse[:, at].unsqueeze(2))


def _distance(x, weight, p):
    """Return distances of the L_p norm, (n, out), for the power of two that is closest to p."""
    if p == math.inf:
        return torch.cdist(x, weight, p=p)
    return _PowerDistance.apply(x, weight, max(1, round(math.log2(p))))


class LinfDistanceNetwork(torch.nn.Module):
    r"""Layers of distances: no output moves by more than the input does, in the L-infinity norm.

    The module is for ``RobustClassifier(LinfDistanceNetwork, module_params=...,
    training=LinfDistanceTraining())``. Its logits are minus the distances of the last layer.
    Lipschitz robustness with a constant of 1 holds on every ball, and classification robustness
    wherever the margin between the logits is above twice the radius: no search is needed for it,
    and `~skrobust.verification.Bounds` proves both.

    In evaluation mode it computes in float64, and its outputs are smaller by a part in 10^6: so
    the network keeps to the constant as it is computed, too, with distances that are rounded to
    float32. Were outputs in float32, rounding alone would break it.

    Parameters
    ----------
    n_features : int
        Entries of a row.
    n_classes : int
    hidden_layer_sizes : int or sequence of int, default=(256,)
        Neurons of each hidden layer.
    center, spread : float, default=0.5 and 0.3
        Mean and standard deviation of the features, about: those of the first weights. All else
        is relative to `spread`.
    random_state : int or None, default=None
        Seed of the first weights; torch's global generator if None, which `RobustClassifier`
        seeds by its own `random_state`.

    Raises
    ------
    ValueError, TypeError
        If a parameter is not valid.

    References
    ----------
    Zhang et al., "Towards certifying L-infinity robustness using neural networks with L-inf-dist
    neurons", ICML 2021. Zhang et al., "Boosting the certified robustness of L-infinity distance
    nets", ICLR 2022 (weights that start as an identity).

    Examples
    --------
    >>> import torch
    >>> from skrobust.networks import LinfDistanceNetwork
    >>> net = LinfDistanceNetwork(4, 3, hidden_layer_sizes=8, random_state=0).eval()
    >>> x = torch.rand(5, 4)
    >>> moved = x + 0.1 * torch.rand(5, 4).sign()
    >>> bool(((net(moved) - net(x)).abs() <= 0.1 + 1e-6).all())
    True
    """

    def __init__(
        self,
        n_features,
        n_classes,
        hidden_layer_sizes=(256,),
        *,
        center=0.5,
        spread=0.3,
        random_state=None,
    ):
        super().__init__()
        check_integer("n_features", n_features, low=1)
        check_integer("n_classes", n_classes, low=2)
        check_real("center", center)
        check_real("spread", spread, low=0, closed="neither")
        hidden = _sizes(hidden_layer_sizes)
        sizes = [n_features, *hidden, n_classes]
        generator = None
        if random_state is not None:
            check_integer("random_state", random_state, low=0)
            generator = torch.Generator().manual_seed(random_state)
        layers = []
        for k, (before, after) in enumerate(itertools.pairwise(sizes)):
            is_last = k == len(hidden)
            layer = LinfDistanceLayer(before, after, shift=not is_last, bias=is_last)
            _initialize(layer, spread, center if k == 0 else 0.0, generator)
            layers.append(layer)
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x):
        x = x if self.training else x.double()
        for layer in self.layers:
            x = layer(x)
        return -x if self.training else -_SHRINK * x

    def set_p(self, p):
        """Set the norm that is used in training mode.

        Parameters
        ----------
        p : float
            At least 1; infinity for the network itself. Others are rounded to a power of two, at
            least 2.
        """
        for layer in self.layers:
            layer.p = p


def _sizes(hidden_layer_sizes):
    expectation = "a positive integer, or a sequence of them"
    given = hidden_layer_sizes
    try:
        sizes = [given] if isinstance(given, int) else list(given)
    except TypeError:
        raise TypeError(expected("hidden_layer_sizes", given, expectation)) from None
    for size in sizes:
        check_integer("hidden_layer_sizes", size, low=1)
    return sizes


def _initialize(layer, spread, center, generator):
    """Draw weights; in each neuron one is so far off that the neuron follows that one feature.

    By the paper the layer then starts as an identity: far weights make the distance that entry's
    own, x_i + 10, as long as none of the others is farther.
    """
    with torch.no_grad():
        layer.weight.normal_(0.0, spread, generator=generator).add_(center)
        if layer.in_features <= layer.out_features:
            units = torch.arange(layer.out_features)
            layer.weight[units, units % layer.in_features] = center - 10 * spread
