"""Tests of the verifier by bounds: it proves what is true, and nothing else."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.balls import Ball
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Bounds, Exact, Reason, Verdict
from skrobust.verification._query import make_query
from tests.verification._tensors import decided

METHODS = ("ibp", "crown", "alpha-crown")


def network(*layers, n_features):
    return Network(nn.Sequential(*layers), np.arange(layers[-1].out_features), n_features)


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight = nn.Parameter(torch.tensor(weight), requires_grad=False)
    layer.bias = nn.Parameter(torch.tensor(bias), requires_grad=False)
    return layer


def line():
    """z = (x, 1 - x) on one feature: class 0 wins above 1 / 2."""
    return network(linear([[1.0], [-1.0]], [0.0, 1.0]), n_features=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("property", "expected"),
    [
        # Rows 2 x - 1: 0.4 at x = 0.7.
        (ClassificationRobustness(0.19), "verified"),
        (ClassificationRobustness(0.21), "unknown"),
        (StandardRobustness(0.1, 0.11), "verified"),
        (StandardRobustness(0.1, 0.09), "unknown"),
        (LipschitzRobustness(0.1, 1.01), "verified"),
        (LipschitzRobustness(0.1, 0.99), "unknown"),
        # p = 1 / (1 + exp(-(2 x - 1))): 0.5744 at x = 0.65.
        (StrongClassificationRobustness(0.05, 0.574), "verified"),
        (StrongClassificationRobustness(0.05, 0.575), "unknown"),
        (ClassificationRobustness(0.1) & LipschitzRobustness(0.1, 1.01), "verified"),
        (ClassificationRobustness(0.1) & LipschitzRobustness(0.1, 0.99), "unknown"),
    ],
    ids=repr,
)
def test_verdicts_of_a_line_worked_by_hand(method, property, expected):
    found = decided(Bounds(method), line(), property, torch.tensor([[0.7]]), torch.tensor([0]))
    assert found.verdicts.tolist() == [expected]
    assert (found.lower >= 0).tolist() == [expected == "verified"]
    assert found.reasons[0] == (
        Reason.PROVED if expected == "verified" else Reason.BOUNDS_TOO_LOOSE
    )


def test_lower_is_the_smallest_row():
    found = decided(
        Bounds(), line(), ClassificationRobustness(0.15), torch.tensor([[0.7]]), torch.tensor([0])
    )
    # Float32 proves it, less what its rounding may be.
    assert 0.0999 <= found.lower[0] <= 0.1


def test_broken_reference_points_are_falsified():
    x, labels = torch.tensor([[0.7], [0.5], [0.3]]), torch.tensor([0, 0, 0])
    found = decided(Bounds(), line(), ClassificationRobustness(0.01), x, labels)
    assert found.verdicts.tolist() == [Verdict.VERIFIED, Verdict.FALSIFIED, Verdict.FALSIFIED]
    np.testing.assert_array_equal(found.counterexamples, [[np.nan], [0.5], [np.float32(0.3)]])


def test_points_that_cannot_move_are_decided_by_the_network_itself():
    x, labels = torch.tensor([[0.7], [0.3]]), torch.tensor([0, 0])
    for property in (ClassificationRobustness(0.0), ClassificationRobustness([0.0])):
        found = decided(Bounds("ibp"), line(), property, x, labels)
        assert found.verdicts.tolist() == ["verified", "falsified"]
    still = LipschitzRobustness(0.0, 1e-3)
    assert decided(Bounds(), line(), still, x, labels).verdicts.tolist() == ["verified"] * 2


def test_more_points_than_fit_in_one_chunk(monkeypatch):
    monkeypatch.setattr("skrobust.bounds._rounding.NUMBERS_AT_ONCE", 1)
    x, labels = torch.tensor([[0.7], [0.9], [0.52]]), torch.tensor([0, 0, 0])
    found = decided(Bounds(), line(), ClassificationRobustness(0.1), x, labels)
    assert found.verdicts.tolist() == ["verified", "verified", "unknown"]
    found = decided(Bounds(), line(), ClassificationRobustness(0.1), x, labels, timeout=0)
    assert set(found.reasons) == {Reason.TIME_OUT}


def test_weights_that_are_not_finite_are_refused():
    for bad in (np.nan, np.inf):
        broken = network(linear([[1.0], [bad]], [0.0, 1.0]), n_features=1)
        with pytest.raises(UnsupportedModelError):
            Bounds().encode(broken, ClassificationRobustness(0.1))


@pytest.mark.parametrize(
    "verifier", [*map(Bounds, METHODS), Exact(milp_units=0), Exact()], ids=repr
)
@pytest.mark.filterwarnings("ignore::skrobust.exceptions.AttackWarning")
def test_numbers_that_overflow_prove_nothing(verifier):
    # relu(1e200 relu(1e200 (x - 3 / 2))) is 0 on [0, 1], and too large for float64 above 3 / 2.
    layers = [nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)]
    weights = [([[1e200]], [-1.5e200]), ([[1e200]], [0.0]), ([[-1.0], [0.0]], [1.0, 0.0])]
    for layer, (weight, bias) in zip(layers[::2], weights, strict=True):
        layer.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64), False)
        layer.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64), False)
    net = Network(nn.Sequential(*layers), np.arange(2), 1)
    x, labels = torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([0])
    for property in (
        ClassificationRobustness(2.0, bounds=None),
        StandardRobustness(2.0, 1.0, bounds=None),
        LipschitzRobustness(2.0, 1.0, bounds=None),
        StrongClassificationRobustness(2.0, 0.6, bounds=None),
    ):
        found = decided(verifier, net, property, x, labels, timeout=2.0)
        assert found.verdicts[0] != "verified"
        assert found.lower[0] < 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="Got method='exact', but expected one of 'ibp'"):
        Bounds("exact").check()
    with pytest.raises(ValueError, match="Got n_steps=0"):
        Bounds("alpha-crown", n_steps=0).check()
    x, labels = torch.tensor([[0.7]]), torch.tensor([0])
    with pytest.raises(UnsupportedPropertyError, match="probabilities"):
        decided(Bounds(), line(), StandardRobustness(0.1, output="probabilities"), x, labels)
    softmax = network(linear([[1.0], [2.0]], [0.0, 0.0]), nn.Softmax(1), nn.Linear(2, 2),
                      n_features=1)  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="softmax"):
        decided(Bounds(), softmax, ClassificationRobustness(0.1), x, labels)


def test_custom_rows_with_a_distance_are_no_lipschitz_rows():
    # z_0 + d - 0.65 at x = 0.7: 0.05 at the center, 0.05 at x = 0.65 too; negative for 2 z_0.
    x = torch.tensor([[0.7]])
    good = LinearRobustness(([[1.0, 0.0]], [1.01], [-0.65]), epsilon=0.2)
    bad = LinearRobustness(([[1.0, 0.0]], [0.5], [-0.65]), epsilon=0.2)
    verifier = Bounds()
    assert decided(verifier, line(), good, x).verdicts.tolist() == ["verified"]
    assert decided(verifier, line(), bad, x).verdicts.tolist() == ["unknown"]


def test_slopes_prove_near_and_rows_prove_far():
    # |z| has slope 1 behind a kink that only the outer part of the ball reaches: z = relu(x - 1)
    # times 3, from x_hat = 0.5 with epsilon 0.8: a change of 0.9 at d = 0.8, a slope of 1.125.
    kinked = network(linear([[1.0]], [-1.0]), nn.ReLU(), linear([[3.0], [0.0]], [0.0, 0.0]),
                     n_features=1)  # fmt: skip
    x = torch.tensor([[0.5]])
    for lipschitz, expected in ((1.13, "verified"), (1.12, "unknown")):
        property = LipschitzRobustness(0.8, lipschitz, bounds=None)
        assert decided(Bounds(), kinked, property, x).verdicts.tolist() == [expected]


def test_strong_classification_uses_all_gaps():
    # Gaps 2 and 6: p = 1 / (1 + e^-2 + e^-6) = 0.879; the sufficient rows ask for both gaps
    # to be at least log(2 p / (1 - p)) = 2.67.
    fixed = network(linear([[0.0]] * 3, [6.0, 4.0, 0.0]), n_features=1)
    x, labels = torch.tensor([[0.5]]), torch.tensor([0])
    for eta, expected in ((0.878, "verified"), (0.880, "falsified")):
        property = StrongClassificationRobustness(0.1, eta)
        assert decided(Bounds(), fixed, property, x, labels).verdicts.tolist() == [expected]


def test_a_query_is_indexed_as_its_balls(digits, digits_model):
    from skrobust.networks import as_network

    net = as_network(digits_model)
    x, labels = net.rows(digits[1][:6]), net.encode(digits[3][:6])
    state = Bounds().encode(net, LipschitzRobustness(0.02, 5.0))
    query = make_query(state, x, labels)
    part = query[torch.tensor([4, 1])]
    assert isinstance(part.ball, Ball)
    assert torch.equal(part.ball.center, x[[4, 1]].double())
    assert torch.equal(part.rows.b, query.rows.b[[4, 1]])
    assert query.anchored.all()
    assert torch.equal(part.beyond(torch.ones(2).double()).nearest, torch.ones(2).double())
