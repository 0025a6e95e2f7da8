"""The modules, the divergence and the training steps of an autoencoder."""

import copy
import pickle

import numpy as np
import pytest
import torch

from skrobust.estimators._autoencoder_net import (
    AutoencoderNet,
    EncoderDecoder,
    Within,
    default_decoder,
    default_encoder,
    discrepancy,
    squared_error,
)
from skrobust.exceptions import DivergedTrainingError

DOUBLE = {"dtype": torch.float64}


def by_definition(codes, prior):
    """The unbiased estimate, one pair of points after the other."""
    n, width = codes.shape

    def kernel(a, b):
        return 2 * width / (2 * width + (a - b).square().sum())

    pairs = [(i, j) for i in range(n) for j in range(n)]
    others = [(i, j) for i, j in pairs if i != j]
    within = sum(kernel(part[i], part[j]) for part in (codes, prior) for i, j in others)
    between = sum(kernel(codes[i], prior[j]) for i, j in pairs)
    return within / (n * (n - 1)) - 2 * between / n**2


def test_discrepancy_by_hand():
    # Kernel 2 / (2 + distance squared): of 0 and 1 it is 2 / 3, of 0 and 2 it is 1 / 3.
    codes, prior = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    between = (1 + 1 / 3 + 2 / 3 + 2 / 3) / 4
    assert discrepancy(codes, prior).item() == pytest.approx(2 / 3 + 1 / 3 - 2 * between)


def test_discrepancy_by_definition():
    generator = torch.Generator().manual_seed(0)
    codes, prior = (torch.randn(7, 3, generator=generator, **DOUBLE) for _ in range(2))
    torch.testing.assert_close(discrepancy(codes, prior), by_definition(codes, prior))


def test_discrepancy_has_no_bias_and_sees_a_shift():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2000, 2, 8, 3, generator=generator, **DOUBLE)
    values = torch.stack([discrepancy(*pair) for pair in draws])
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5
    assert (values < 0).any()
    shifted = torch.stack([discrepancy(a + 1, b) for a, b in draws[:200]])
    assert shifted.mean() > 0.1


def test_squared_error_is_summed_over_features():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert squared_error(x, x + torch.tensor([1.0, 2.0])).item() == 5.0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 10), (2, 1, 1), (1, 5, 5)])
@pytest.mark.parametrize("channels", [[4], [4, 6], [3, 4, 5]])
def test_convolutions_return_to_the_shape(shape, channels):
    n_features = int(np.prod(shape))
    encoder = default_encoder(3, channels, n_features, shape)
    decoder = default_decoder(3, channels, n_features, shape)
    module = EncoderDecoder(encoder, decoder, shape)
    x = torch.rand(2, n_features)
    assert module.encode(x).shape == (2, 3)
    assert decoder(torch.rand(2, 3)).shape == (2, *shape)
    assert module(x).shape == x.shape


def test_perceptrons_are_mirrored():
    widths = [
        [layer.weight.shape for layer in part if isinstance(layer, torch.nn.Linear)]
        for part in (default_encoder(2, [9, 5], 20, None), default_decoder(2, [9, 5], 20, None))
    ]
    assert widths == [[(9, 20), (5, 9), (2, 5)], [(5, 2), (9, 5), (20, 9)]]


def test_a_sigmoid_from_low_to_high():
    within = Within(np.array([0.0, -2.0]), 4.0)
    x = torch.tensor([[0.0, 0.0], [1e4, -1e4]])
    torch.testing.assert_close(within(x), torch.tensor([[2.0, 1.0], [4.0, -2.0]]))


def trained(weight=0.0, n=9, batch_size=4, **params):
    torch.manual_seed(0)
    module = EncoderDecoder(torch.nn.Linear(3, 2), torch.nn.Linear(2, 3))
    net = AutoencoderNet(
        module, weight=weight, criterion=torch.nn.MSELoss, optimizer=torch.optim.SGD,
        batch_size=batch_size, train_split=None, verbose=0, **({"lr": 0.1} | params),
    ).initialize()  # fmt: skip
    start = copy.deepcopy(module)
    X = torch.rand(n, 3, generator=torch.Generator().manual_seed(1))
    net.train(X, seed=0, n_epochs=2)
    return net, start, X


def test_a_step_descends_the_loss():
    net, start, X = trained(n=8, batch_size=8)
    squared_error(start(X), X).backward()
    first = [p - 0.1 * p.grad for p in start.parameters()]
    for parameter, value in zip(start.parameters(), first, strict=True):
        parameter.data, parameter.grad = value.data, None
    squared_error(start(X), X).backward()
    for parameter, ours in zip(start.parameters(), net.module_.parameters(), strict=True):
        torch.testing.assert_close(parameter - 0.1 * parameter.grad, ours)


def test_batches_hold_every_row_and_none_alone():
    net, _, _ = trained()
    assert [len(epoch["batches"]) for epoch in net.history] == [2, 2]
    sizes = [batch["train_batch_size"] for batch in net.history[0]["batches"]]
    assert sorted(sizes) == [4, 5]


def test_training_leaves_the_global_generator_alone():
    net, _, X = trained(weight=1.0)
    before = torch.random.get_rng_state()
    net.train(X, seed=1, n_epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert net.generators is net.order is net.watch is None
    assert len(pickle.loads(pickle.dumps(net)).history) == 3


def test_a_loss_that_explodes():
    with pytest.raises(DivergedTrainingError, match=r"(inf|nan) in epoch \d.*smaller weight"):
        trained(lr=1e30)
