"""Generators: the defaults change nothing at first, and reach every feature."""

import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedModelError
from skrobust.training._generators import (
    Displacement,
    RowGenerator,
    check_points,
    default_generator,
    made_generator,
)
from tests.estimators._models import scripted

SHAPES = [(1,), (7,), (1, 8, 8), (3, 5, 6), (2, 1, 1), (4, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_default_starts_at_the_input_and_can_move_it(shape):
    torch.manual_seed(0)
    generator, x = default_generator(shape), torch.rand(5, *shape)
    assert torch.equal(generator(x), x)
    target, optimizer = 1 - x, torch.optim.Adam(generator.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append((generator(x) - target).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    check_points(generator, None, x)


def test_defaults_by_the_shape():
    kinds = {shape: [type(layer) for layer in default_generator(shape).layers] for shape in SHAPES}
    assert all((nn.Conv2d in kinds[shape]) == (len(shape) == 3) for shape in SHAPES)
    # Each output depends on each pixel, also on those far away.
    torch.manual_seed(0)
    generator, x = default_generator((1, 9, 9)), torch.rand(1, 1, 9, 9, requires_grad=True)
    nn.init.normal_(generator.layers[-1].weight)
    (slope,) = torch.autograd.grad(generator(x)[0, 0, 0, 0], x)
    assert (slope != 0).float().mean() > 0.9


def test_a_displacement_by_hand():
    layers = nn.Sequential(nn.Linear(2, 2))
    generator = Displacement(layers)
    assert (layers[0].weight == 0).all() and (layers[0].bias == 0).all()
    nn.init.constant_(layers[0].bias, 0.5)
    x = torch.tensor([[1.0, 2.0]])
    assert generator(x).tolist() == [[1.5, 2.5]]


def test_rows_in_and_out():
    class Turned(nn.Module):
        def forward(self, x):
            assert x.shape[1:] == (1, 2, 2)
            return 2 * x.transpose(2, 3)

    x = torch.tensor([[0.1, 0.2, 0.3, 0.9]])
    free = RowGenerator(Turned(), (1, 2, 2), None)
    torch.testing.assert_close(free(x), torch.tensor([[0.2, 0.6, 0.4, 1.8]]))
    cut = RowGenerator(Turned(), (1, 2, 2), ([0.3, 0.0, 0.0, 0.0], 1.0))
    torch.testing.assert_close(cut(x), torch.tensor([[0.3, 0.6, 0.4, 1.0]]))
    assert set(cut.state_dict()) == {"low", "high"}  # which follow to another device


def test_a_module_is_copied_and_a_callable_called():
    given = nn.Linear(2, 2)
    made = made_generator(given, (2,))
    assert made is not given and torch.equal(made.weight, given.weight)
    assert made_generator(lambda shape: nn.Linear(*shape, *shape), (3,)).weight.shape == (3, 3)
    with pytest.raises(UnsupportedModelError, match=r"Got generator=.*, but expected a module th"):
        made_generator(scripted(nn.Linear(2, 2)), (2,))


def test_modes_are_left_as_they_were():
    generator = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    check_points(generator, generator, torch.rand(2, 2))
    assert generator.training and generator[1].num_batches_tracked == 0
