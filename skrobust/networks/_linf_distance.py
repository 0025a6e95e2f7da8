"""Networks that are 1-Lipschitz in the L-infinity norm by construction."""

import itertools
import math

import torch

from skrobust._validation import check_integer, check_real, expected

__all__ = ["LinfDistanceLayer", "LinfDistanceNetwork"]

_MOMENTUM = 0.1  # of running means
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


def _distance(x, weight, p):
    """Return distances of the L_p norm, (n, out), whose powers neither over- nor underflow.

    Powers of the distances relative to one scale stay within float64 up to p = 100 or so where
    distances differ by a factor of 1,000 at most; in float32 they would not.
    """
    if p == math.inf:
        return torch.cdist(x, weight, p=p)
    x, weight = x.double(), weight.double()
    with torch.no_grad():
        scale = torch.cdist(x, weight, p=math.inf).mean().clamp(min=1e-30)
    return (scale * torch.cdist(x / scale, weight / scale, p=p)).float()


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
            At least 1; infinity for the network itself.
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
