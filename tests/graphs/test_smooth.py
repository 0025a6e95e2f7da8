"""Units that bend everywhere: their value, their interval, and what nobody has a rule for."""

import pytest
import torch
from torch import nn

from skrobust.bounds import image, interval_rows, lines_of, relax, steepest
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Monotone, read_live
from skrobust.properties import ClassificationRobustness
from tests._modules import sample

UNITS = [nn.Tanh(), nn.Sigmoid(), nn.Softplus(2.0), nn.ELU(0.5, inplace=True), nn.SELU()]
each_unit = pytest.mark.parametrize("unit", UNITS, ids=repr)


def node_of(unit):
    """Return the node that the reader makes of a unit."""
    graph, _ = read_live(nn.Sequential(nn.Linear(3, 4), unit, nn.Linear(4, 2)), torch.rand(3, 3))
    return graph.nodes[2]


@each_unit
def test_a_node_computes_the_unit_and_leaves_its_input_alone(unit):
    node, z = node_of(unit), torch.linspace(-3, 3, 12).view(3, 4)
    assert isinstance(node, Monotone) and not node.is_affine
    before = z.clone()
    value = node.apply(z)
    assert torch.equal(z, before)
    torch.testing.assert_close(value, unit(before.clone()))


@each_unit
def test_the_image_of_an_interval_contains_what_lies_in_it(unit):
    node = node_of(unit)
    ends = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(0))
    lower, upper = ends.amin(dim=0), ends.amax(dim=0)
    low, high = image(node, lower, upper)
    for share in torch.linspace(0, 1, 9):
        value = node.apply(lower + share * (upper - lower))
        assert (low <= value + 1e-6).all() and (value <= high + 1e-6).all()
    torch.testing.assert_close((low, high), (node.apply(lower), node.apply(upper)))


def test_it_is_called_by_its_operation():
    node = Monotone(inputs=(0,), shape=(2,), operation="tanh", function=torch.tanh)
    lower = torch.zeros(1, 2)
    assert node.name == "'tanh'"
    for rule, arguments in ((lines_of, (lower, lower)), (steepest, ("linf",))):
        with pytest.raises(UnsupportedModelError, match="has no rule for 'tanh'"):
            rule(node, *arguments)


def test_intervals_of_a_network_of_them_hold():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).requires_grad_(False)
    x = sample(4, 3).float()
    ball = ClassificationRobustness(0.1, bounds=None).ball(x)
    graph, _ = read_live(module, x)
    relaxation = relax(graph, ball, refine=False, lines=False, rounding=False)
    rows = torch.eye(2).expand(4, -1, -1)
    lower = interval_rows(relaxation, rows)
    points = ball.sample(200, torch.Generator().manual_seed(0))
    assert (lower.unsqueeze(1) <= module(points) + 1e-6).all()
