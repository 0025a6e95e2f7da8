"""Small networks over boxes that the tests of programs share."""

import torch
from torch import nn

from skrobust.bounds import relax
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness


def network(activation=None, seed=0, hidden=3):
    """Two inputs, two outputs, and one layer of units in between."""
    activation = nn.ReLU() if activation is None else activation
    module = nn.Sequential(nn.Linear(2, hidden), activation, nn.Linear(hidden, 2))
    generator = torch.Generator().manual_seed(seed)
    for layer in module[::2]:
        layer.requires_grad_(False)
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
    return module


def box(epsilon=0.3, **options):
    """Return the graph of `network`, and all that is known over one box."""
    x = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    graph = read_graph(network(**options), 2)
    return graph, relax(graph, ClassificationRobustness(epsilon, bounds=None).outer_ball(x))


def grid_of(ball, n=201):
    """Return a grid of points of a box, its corners among them."""
    sides = [torch.linspace(0, 1, n, dtype=torch.float64)] * 2
    return ball.lower + torch.cartesian_prod(*sides) * (ball.upper - ball.lower)


KINDS = {
    "relu": nn.ReLU(),
    "steep": nn.LeakyReLU(1.7),
    "abs": nn.LeakyReLU(-1.0),
    "clamp": nn.Hardtanh(-0.4, 0.5),
}
