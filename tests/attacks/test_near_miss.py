"""Long runs go to the near misses: by hand, by counts, against the complete method."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust import TorchClassifier
from skrobust.attacks import PGD, NearMissPGD, Outcome, Target
from skrobust.attacks._near_miss import _miss, _worst_of_each
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
)
from skrobust.verification import Exact
from tests.attacks._nets import Counting, generator, linear_net, rows, small_net

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness


def _relu_net(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = torch.nn.Linear(4, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)
        return torch.nn.Sequential(*layers).requires_grad_(False)


def test_miss_by_hand():
    # One logit difference, 2 x - 1: at 0.8 it is 0.6, at 0.6 it is 0.2, so 0.2 of 0.4 is missing.
    net = torch.nn.Linear(1, 2).requires_grad_(False)
    net.weight.copy_(torch.tensor([[2.0], [0.0]]))
    net.bias.copy_(torch.tensor([-1.0, 0.0]))
    target = Target(net, CR(0.3), torch.full((3, 1), 0.8), torch.zeros(3, dtype=torch.int64))
    found = target.outcome_at(torch.tensor([[0.6], [0.8], [0.9]]))
    torch.testing.assert_close(_miss(target, found), torch.tensor([0.5, torch.inf, torch.inf]))


def test_miss_leaves_the_distance_out():
    # The bound alone lifts the row to 0.1; the outputs take 0.05 off it.
    net = torch.nn.Linear(1, 2).requires_grad_(False)
    net.weight.copy_(torch.tensor([[0.5], [0.0]]))
    target = Target(net, LR(0.3, lipschitz=1.0), torch.full((1, 1), 0.5))
    found = target.outcome_at(torch.tensor([[0.6]]))
    torch.testing.assert_close(_miss(target, found), torch.tensor([1.0]))


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(-5, 5), st.booleans()), min_size=1, max_size=20
    )
)
def test_worst_of_each_sample(cases):
    sample, margins, broken = (torch.tensor(column) for column in zip(*cases, strict=True))
    found = Outcome(torch.zeros(len(cases), 1), margins.float(), broken)
    worst = _worst_of_each(sample, found)
    assert sample[worst].tolist() == sorted(set(sample.tolist()))
    for place in worst.tolist():
        mates = (sample == sample[place]).nonzero().squeeze(1)
        assert broken[place] == broken[mates].any()
        if not broken[place]:
            assert margins[place] == margins[mates].min()


def test_a_tensor_of_runs_aims_each_sample():
    for property in (CR(0.1), LR([0.1, 0.2, 0.3, 0.1], lipschitz=1.0)):
        net, x = small_net(4), rows(6)
        target = Target(net, property, x, net(x).argmax(dim=1))
        runs = torch.tensor([0, 1, 2, 3, 5, 7])
        together = target.aimed(runs)
        for place, run in enumerate(runs.tolist()):
            alone = target.aimed(run)
            assert together.row[place] == alone.row[place]
            assert torch.equal(together.ball.lower[place], alone.ball.lower[place])
            assert torch.equal(together.ball.upper[place], alone.ball.upper[place])


def _walks(near, last_starts, n=40):
    """Return how many walks a long run of three steps starts with, and the samples left."""
    net, x = Counting(small_net()), rows(n)
    target = Target(net, CR(0.02), x, net.module(x).argmax(dim=1))
    n_open = int((~PGD(2, n_restarts=2).search(target, generator=generator()).broken).sum())
    net.rows.clear()
    options = {"n_runs": 2, "near": near, "last_steps": 3}
    NearMissPGD(2, last_starts=last_starts, **options).search(target, generator=generator())
    with_last = list(net.rows)
    net.rows.clear()
    NearMissPGD(2, last_starts=0, **options).search(target, generator=generator())
    assert with_last[: len(net.rows)] == net.rows
    return with_last[len(net.rows) :], n_open


def test_long_runs_are_few():
    last, n_open = _walks(near=1e6, last_starts=4)
    assert 0 < last[0] <= n_open
    assert last[0] % 4 == 0
    assert _walks(near=0.0, last_starts=4)[0] == []


def test_long_runs_find_what_short_ones_miss():
    found = {0: 0, 6: 0}
    for seed in range(8):
        net, x = _relu_net(seed), rows(60, seed)
        labels = net(x).argmax(dim=1)
        target = Target(net, CR(0.15), x, labels)
        for last_starts in found:
            attack = NearMissPGD(1, n_runs=1, near=1.0, last_starts=last_starts)
            found[last_starts] += int(attack.search(target, generator=generator()).broken.sum())
    assert found[6] > found[0]


@pytest.mark.parametrize("property", [CR(0.1), SR(0.2, delta=0.1)], ids=["CR", "SR"])
def test_finds_what_the_complete_method_falsifies(property):
    net, x = _relu_net(5), rows(25, 3)
    labels = net(x).argmax(dim=1)
    model = TorchClassifier(net, 3)
    verdicts = Exact().verify(model, x.numpy(), labels.numpy(), property=property).verdicts
    outcome = NearMissPGD().search(Target(net, property, x, labels), generator=generator())
    broken, falsified = outcome.broken.numpy(), verdicts == "falsified"
    assert not (verdicts == "unknown").any() and 0 < falsified.sum() < 25
    assert not (broken & ~falsified).any()
    assert (falsified & ~broken).sum() <= 1  # an attack may miss what only a proof can tell


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), stop=st.booleans(), norm=st.sampled_from(["linf", "l2"]))
def test_points_lie_in_the_ball_and_margins_are_theirs(seed, stop, norm):
    net, x = small_net(seed=seed), rows(9, seed)
    target = Target(net, CR(0.2, norm=norm), x, net(x).argmax(dim=1))
    attack = NearMissPGD(3, last_steps=3)
    found = attack.search(target, generator=generator(seed), stop_when_broken=stop)
    assert ((found.points >= target.ball.lower) & (found.points <= target.ball.upper)).all()
    again = target.outcome_at(found.points)
    torch.testing.assert_close(found.margins, again.margins, rtol=1e-4, atol=1e-5)


def test_closest_is_that_of_a_linear_network():
    net, x = linear_net(3), rows(5).double()
    target = Target(net, CR(20.0, bounds=None), x, torch.zeros(5, dtype=torch.int64))
    found = NearMissPGD().closest(target, generator=generator())
    slope = net.weight[0] - net.weight[1:]
    values = x @ slope.T + net.bias[0] - net.bias[1:]
    lengths = (values / slope.abs().sum(dim=1)).amin(dim=1)
    torch.testing.assert_close(target.ball.distance(found.points), lengths, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_steps", 0), ("n_runs", 0), ("near", -0.1), ("last_steps", 0), ("last_starts", -1)],
)
def test_bad_parameters_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        NearMissPGD(**{name: value}).check()
