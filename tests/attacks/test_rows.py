"""Which row an attack goes against: by hand, in closed form, against the complete method."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust import TorchClassifier
from skrobust.attacks import FGSM, PGD, AutoPGD, Ensemble, Target
from skrobust.attacks._rows import row_gradients, row_order, search_balls
from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Exact
from tests.attacks._nets import Counting, generator, linear_net, rows, small_net

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness


def ten_rows(n_features=20):
    """A linear network of ten classes, the L1 norms of its weights, and points to move freely."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Linear(n_features, 10).requires_grad_(False)
        x = 0.5 + 0.3 * (torch.rand(100, n_features) - 0.5)
    return net, net.weight.abs().sum(dim=1).sort(descending=True).values, x


def breakable_by_one_class_only():
    """SR and LR that one output of `ten_rows` breaks in each ball, and no other one."""
    _, norms, _ = ten_rows()
    between = (norms[0] + norms[1]).item() / 2
    return [SR(0.1, delta=0.1 * between), LR(0.1, lipschitz=between)]


@pytest.mark.parametrize("property", breakable_by_one_class_only(), ids=["SR", "LR"])
@pytest.mark.parametrize(
    "attack",
    [FGSM(), PGD(), PGD(random_start=False), AutoPGD(), Ensemble([PGD(10)])],
    ids=["fgsm", "pgd", "center", "auto", "ensemble"],
)
def test_security_of_a_linear_net_is_its_true_one(attack, property):
    net, _, x = ten_rows()
    assert attack.search(Target(net, property, x), generator=generator()).broken.all()
    # In training too.
    target = Target(net, property, x)
    points = attack.points(target, generator=generator())
    assert target.outcome_at(points).broken.all()


@pytest.mark.parametrize("property", breakable_by_one_class_only(), ids=["SR", "LR"])
def test_the_smallest_row_misses_most_of_it(property):
    # What the choice of a row is for.
    net, _, x = ten_rows()
    attack = PGD(objective="smallest-row")
    assert attack.search(Target(net, property, x), generator=generator()).broken.sum() < 50


@pytest.mark.parametrize("factor", [0.999, 1.001])
def test_nothing_is_broken_where_nothing_can_be(factor):
    net, norms, x = ten_rows()
    property = SR(0.1, delta=0.1 * norms[0].item() / factor)
    found = PGD(n_restarts=20).search(Target(net, property, x), generator=generator())
    assert found.broken.all().item() is (factor > 1)
    assert found.broken.any().item() is (factor > 1)


def test_rows_and_their_gradients_by_hand():
    net, x = linear_net(3), rows(4).double()
    target = Target(net, CR(0.1), x, torch.tensor([0, 1, 2, 0]))
    values, gradients = row_gradients(target, x)
    torch.testing.assert_close(values, target.conclusion.values(net(x)))
    weight = net.weight
    first, second = gradients
    torch.testing.assert_close(first, weight[[0, 1, 2, 0]] - weight[[1, 0, 0, 1]])
    torch.testing.assert_close(second, weight[[0, 1, 2, 0]] - weight[[2, 2, 1, 2]])
    columns = torch.tensor([[1], [0], [1], [0]])
    chosen, (only,) = row_gradients(target, x, columns)
    torch.testing.assert_close(chosen, values.gather(1, columns))
    torch.testing.assert_close(only[[0, 1]], torch.stack([second[0], first[1]]))


@pytest.mark.parametrize("epsilon", [0.2, [0.3, 0.0, 0.1, 0.2]], ids=["one", "features"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rows_of_a_linear_net_are_in_the_order_of_their_minima(norm, epsilon):
    net, x = linear_net(6, seed=3), rows(20).double()
    labels = torch.zeros(20, dtype=torch.int64)
    for bounds in (None, (0.0, 1.0)) if norm == "linf" else (None,):
        target = Target(net, CR(epsilon, norm=norm, bounds=bounds), x, labels)
        order = row_order(target)
        weight = (net.weight[0] - net.weight[1:]).numpy()
        clean = target.conclusion.values(net(x)).numpy()
        radius = np.broadcast_to(epsilon, 4)
        if norm == "l2":
            minima = clean - np.linalg.norm(weight * radius, axis=1)
        else:
            low, high = x.numpy() - radius, x.numpy() + radius
            if bounds is not None:
                low, high = low.clip(0, 1), high.clip(0, 1)
            end = np.where(weight > 0, low[:, None], high[:, None])
            minima = clean + (weight * (end - x.numpy()[:, None])).sum(axis=2)
        np.testing.assert_array_equal(order, minima.argsort(axis=1))


def test_each_run_holds_the_next_row():
    net, x = linear_net(5), rows(6).double()
    target = Target(net, CR(0.1), x, torch.zeros(6, dtype=torch.int64))
    for run in range(9):
        assert torch.equal(target.aimed(run).row, target.row_order[:, run % 4])
    # The gradient is that of the row, whichever is the smallest.
    index = torch.tensor([4, 2])
    part = target.aimed(3)[index]
    gradient, _, value = part.gradient(x[index], "margin")
    values, gradients = row_gradients(target, x)
    row = target.row_order[index, 3]
    torch.testing.assert_close(value, values[index, row])
    torch.testing.assert_close(gradient, torch.stack(list(gradients))[row, index])
    smallest = part.gradient(x[index], "smallest-row")[2]
    torch.testing.assert_close(smallest, values[index].amin(dim=1))


def test_one_row_costs_nothing():
    net, x = Counting(small_net()), rows(5)
    property = StrongClassificationRobustness(0.1)
    target = Target(net, property, x, net.module(x).argmax(dim=1))
    _ = target.reference_logits
    net.rows.clear()
    assert target.aimed(1).row.tolist() == [0] * 5
    assert net.rows == []


def test_of_many_rows_the_lowest_are_chosen():
    net, x = linear_net(100, seed=2), rows(8).double()
    target = Target(net, SR(0.1, delta=1.0, bounds=None), x)
    order = row_order(target)
    assert order.shape == (8, 64)
    assert all(len(set(one.tolist())) == 64 for one in order)
    assert torch.equal(order, row_order(target))  # no random number of anyone else's
    norms = net.weight.abs().sum(dim=1)
    assert torch.isin(order[:, 0] % 100, norms.topk(10).indices).all()


def test_an_empty_batch():
    target = Target(small_net(), LR(0.1), rows(3))
    empty = target[torch.tensor([], dtype=torch.int64)]
    assert empty.aimed(0) is empty


# ---- Lipschitz robustness ------------------------------------------------------------------


def test_rows_without_the_distance_have_one_ball():
    target = Target(small_net(), SR([0.1, 0.2, 0.0, 0.1]), rows(3))
    assert search_balls(target) == [target.ball]


@pytest.mark.parametrize(
    ("epsilon", "smallest"),
    [(0.16, 0.01), ([0.5, 0.0, 0.005, 0.5], 0.005), ([1.0, 1e-9, 1.0, 1.0], 1 / 1024)],
)
def test_balls_shrink_to_the_smallest_radius(epsilon, smallest):
    target = Target(small_net(), LR(epsilon, bounds=None), rows(3))
    balls = search_balls(target)
    assert balls[0] is target.ball and len(balls) == 3
    sizes = [ball.epsilon.max().item() for ball in balls]
    assert sizes[2] == pytest.approx(smallest)
    assert sizes[1] ** 2 == pytest.approx(sizes[0] * sizes[2])
    assert search_balls(Target(small_net(), LR(0.0), rows(3)))[0].epsilon == 0


@pytest.mark.parametrize("epsilon", [0.2, [0.2, 0.0, 0.01, 0.2]])
def test_balls_do_not_depend_on_the_batch(epsilon):
    target = Target(small_net(), LR(epsilon), rows(3)).within(torch.tensor([0.001, 0.2, 0.0]))
    together = search_balls(target)
    for i in range(2):
        alone = search_balls(target[[i]])
        assert len(alone) == len(together) == 3
        for one, ball in zip(alone, together, strict=True):
            torch.testing.assert_close(one.upper[0], ball.upper[i], rtol=0, atol=0)
            torch.testing.assert_close(one.lower[0], ball.lower[i], rtol=0, atol=0)
    assert all((ball.upper[2] == target.x[2]).all() for ball in together)


class Dented(torch.nn.Module):
    """Two outputs that change by 3 a unit near 0.5, and hardly at all beyond 0.51."""

    def forward(self, x):
        z = 3 * (x - 0.5).clamp(-0.01, 0.01)
        return torch.cat([z, torch.zeros_like(z)], dim=1)


@pytest.mark.parametrize("attack", [PGD(10, n_restarts=3), AutoPGD(10, n_restarts=3)], ids=repr)
def test_violations_near_the_reference_are_found(attack):
    x = torch.full((3, 1), 0.5)
    target = Target(Dented(), LR(0.3, lipschitz=1.0), x)
    found = attack.search(target, generator=generator())
    assert found.broken.all()
    assert (target.ball.distance(found.points) < 0.03).all()
    # Not by going to the edge alone.
    assert not FGSM().search(target).broken.any()


def test_lipschitz_with_one_epsilon_a_feature():
    # At full length the first feature takes the distance, and the second adds nothing to speak of.
    net = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    net.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    x = torch.full((4, 2), 0.5)
    target = Target(net, LR([0.4, 0.01], lipschitz=1.5), x)
    assert PGD(10, n_restarts=3).search(target, generator=generator()).broken.all()
    steeper = Target(net, LR([0.4, 0.01], lipschitz=2.1), x)
    assert not PGD(10, n_restarts=6).search(steeper, generator=generator()).broken.any()


def test_mixed_rows():
    net, x = small_net(), rows(20)
    both = SR(0.2, delta=0.1) & LR(0.2, lipschitz=0.2)
    alone = PGD(10, n_restarts=4).search(Target(net, LR(0.2, lipschitz=0.2), x))
    found = PGD(10, n_restarts=4).search(Target(net, both, x), generator=generator())
    assert (found.broken | ~alone.broken).all()


def test_rows_of_ones_own():
    def rise(reference_logits, labels):
        """No output rises by more than 0.3."""
        n, k = reference_logits.shape
        A = -torch.eye(k).expand(n, k, k)
        return A, torch.zeros(n, k), reference_logits + 0.3

    net, _, x = ten_rows()
    property = LinearRobustness(rise, 0.1)
    rises = net.weight.abs().sum(dim=1).max() * 0.1 > 0.3
    found = FGSM().search(Target(net, property, x))
    assert found.broken.all() == rises


# ---- against the complete method -----------------------------------------------------------


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), share=st.floats(0.3, 1.1))
def test_restarts_find_what_the_complete_method_finds(seed, share):
    random = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    net.requires_grad_(False)
    X = torch.rand(4, 3, generator=random)
    model = TorchClassifier(net, classes=[0, 1, 2])
    # The largest change at random points sets a scale on which some points hold.
    ball = SR(0.1).ball(X).sample(50, random)
    change = (net(ball) - net(X).unsqueeze(1)).abs().amax().item()
    for property in (SR(0.1, delta=share * change), LR(0.1, lipschitz=share * change / 0.1)):
        verdicts = Exact().verify(model, X.numpy(), property=property).verdicts
        found = PGD(20, n_restarts=18).search(Target(net, property, X), generator=generator())
        # Nothing is broken that is verified, and nothing missed that is clearly broken.
        assert not found.broken[torch.tensor(verdicts == "verified")].any()
        missed = (~found.broken).numpy() & (verdicts == "falsified")
        assert missed.sum() <= 1
