"""The one confirmation: points in the ball that the estimator itself shows to break a property."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from skrobust.attacks import (
    PGD,
    Attack,
    Outcome,
    Target,
    attack_and_confirm,
    confirm,
    confirm_beyond,
    confirm_outcome,
)
from skrobust.attacks._confirm import steps_beyond
from skrobust.networks import BlackBox, Network
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from tests._asserts import assert_inside_ball


def line(replay=None):
    """z = (x, 1 - x): class 0 wins above 1 / 2."""
    layer = nn.Linear(1, 2)
    layer.weight = nn.Parameter(torch.tensor([[1.0], [-1.0]]), requires_grad=False)
    layer.bias = nn.Parameter(torch.tensor([0.0, 1.0]), requires_grad=False)
    return Network(layer, np.arange(2), 1, replay)


def target(epsilon=0.2, x=(0.6, 0.65, 0.9), replay=None, **options):
    property = ClassificationRobustness(epsilon, **options)
    x = torch.tensor(x)[:, None]
    return Target(line(replay), property, x, torch.zeros(len(x), dtype=torch.long))


def constant(logits):
    return lambda X: torch.tensor([logits]).expand(len(X), 2)


def shifted(by):
    """An estimator whose boundary lies lower than that of its network."""
    return lambda X: line()(torch.as_tensor(X) + by)


def test_points_that_break_are_kept_and_others_repaired():
    # 0.45 breaks; 0.58 does not, but the way down does; nothing does around 0.9.
    outcome = confirm(target(), [[0.45], [0.58], [0.75]], repair=True)
    assert outcome.broken.tolist() == [True, True, False]
    points = outcome.points
    assert points[0].item() == np.float32(0.45)
    # The first broken point on the way: within one step, 0.05 epsilon, of the boundary.
    assert 0.5 - 0.05 * 0.2 <= points[1].item() <= 0.5
    assert points[2].item() == 0.75
    assert points.dtype == torch.float32
    # Margins are those of the points: z0 - z1 = 2 x - 1.
    torch.testing.assert_close(outcome.margins, 2 * points[:, 0] - 1)


def test_nothing_is_repaired_unless_asked_for():
    outcome = confirm(target(), [[0.45], [0.58], [0.75]])
    assert outcome.broken.tolist() == [True, False, False]
    assert outcome.points.squeeze(1).tolist() == np.float32([0.45, 0.58, 0.75]).tolist()


def test_points_are_put_into_the_ball_and_the_domain():
    outcome = confirm(target(epsilon=0.05), [[0.0], [0.0], [0.0]])
    assert outcome.broken.tolist() == [False] * 3
    np.testing.assert_allclose(outcome.points.squeeze(1), [0.55, 0.6, 0.85], atol=1e-6)
    points = confirm(target(epsilon=0.4, bounds=(0.55, 1.0)), [[0.0], [0.0], [0.0]]).points
    assert (points >= 0.55).all()


def test_points_in_an_l2_ball_stay_as_they_are():
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    property = ClassificationRobustness(0.5, norm="l2", bounds=None, reference="prediction")
    aim = Target(lambda x: x, property, x)
    # Between the radius and the millionth by which the projection goes inwards.
    inside = x + torch.tensor([[0.3, 0.4]], dtype=torch.float64) * (1 - 1e-8)
    assert torch.equal(confirm(aim, inside).points, inside)
    outside = confirm(aim, x + torch.tensor([[0.3, 0.4]], dtype=torch.float64) * 1.01).points
    assert torch.linalg.vector_norm(outside - x) <= 0.5
    # A feature that cannot move is held by the box.
    property = ClassificationRobustness([0.5, 0.0], norm="l2", bounds=None)
    aim = Target(lambda x: x, property, x, torch.tensor([0]))
    np.testing.assert_allclose(confirm(aim, [[0.7, 0.6]]).points, [[0.7, 0.5]])


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    norm=st.sampled_from(["linf", "l2"]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_what_is_confirmed_lies_in_the_ball_and_breaks_the_property(seed, norm, scale, dtype):
    rng = np.random.default_rng(seed)
    net = nn.Linear(3, 2).to(dtype).requires_grad_(False)
    net.weight.copy_(torch.as_tensor(rng.normal(size=(2, 3))))
    net.bias.copy_(torch.as_tensor(rng.normal(size=2) / 10))
    x = torch.as_tensor(rng.uniform(0, 1, (8, 3)), dtype=dtype)
    epsilon = rng.uniform(0, 0.5, 3) * rng.integers(0, 2, 3)
    property = ClassificationRobustness(epsilon, norm=norm, reference="prediction")
    candidates = x.double() + torch.as_tensor(rng.normal(size=(8, 3)) * scale)
    outcome = confirm(Target(net, property, x), candidates, repair=bool(seed % 2))
    assert_inside_ball(outcome.points, x, property)
    assert torch.equal(outcome.broken, outcome.margins <= 0)
    changed = net(outcome.points).argmax(dim=1) != net(x).argmax(dim=1)
    assert (outcome.broken >= changed).all()


def test_callers_may_have_seen_to_the_ball():
    outcome = confirm(target(epsilon=0.05), [[0.0], [0.0], [0.0]], project=False)
    assert outcome.points.tolist() == [[0.0]] * 3
    assert outcome.broken.all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_candidate(bad):
    # The estimator calls every point broken; a point that is none is not confirmed.
    outcome = confirm(target(replay=constant([0.0, 1.0])), [[bad], [0.45], [bad]], repair=True)
    assert outcome.broken.tolist() == [False, True, False]
    assert torch.isfinite(outcome.points).all()


def test_what_overflows_in_float32_is_not_confirmed():
    aim = target(epsilon=1e300, bounds=None, replay=constant([0.0, 1.0]))
    candidates = np.array([[1e300], [0.45], [-1e300]])  # finite in float64
    outcome = confirm(aim, candidates, project=False)
    assert outcome.broken.tolist() == [False, True, False]
    assert torch.isfinite(outcome.points).all()
    # The ball holds the largest finite numbers, which is where the projection goes.
    assert torch.isfinite(confirm(aim, candidates).points).all()


def test_the_estimator_itself_is_asked():
    assert not confirm(target(replay=constant([1.0, 0.0])), [[0.4]] * 3).broken.any()
    assert confirm(target(replay=constant([0.0, 1.0])), [[0.7]] * 3).broken.all()


def test_a_black_box_is_asked_but_not_repaired():
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    x = torch.tensor([[0.4], [0.4]], dtype=torch.float64)
    aim = Target(BlackBox(tree), ClassificationRobustness(0.2), x, torch.tensor([0, 0]))
    outcome = confirm(aim, [[0.55], [0.45]], repair=True)
    assert outcome.broken.tolist() == [True, False]


def test_a_bare_function_is_all_that_there_is():
    x = torch.tensor([[0.6]])
    aim = Target(line().module, ClassificationRobustness(0.2), x, torch.tensor([0]))
    assert confirm(aim, [[0.45]]).broken.all()


def test_references_of_the_estimator_are_replayed_too():
    # Rows refer to the outputs at the reference: those of the estimator, not of the network.
    def doubled(X):
        return 2 * line()(torch.as_tensor(X))

    x = torch.tensor([[0.6]])
    property = LipschitzRobustness(0.2, lipschitz=1.5)
    assert not confirm(Target(line(), property, x), [[0.5]]).broken.any()
    assert confirm(Target(line(doubled), property, x), [[0.5]]).broken.all()


def test_outcomes_keep_what_the_estimator_shows():
    aim = target(replay=shifted(0.03))
    points = torch.tensor([[0.45], [0.48], [0.75]])
    outcome = aim.outcome_at(points)
    assert outcome.broken.tolist() == [True, True, False]
    confirmed = confirm_outcome(aim, outcome)
    assert confirmed.broken.tolist() == [True, False, False]
    torch.testing.assert_close(confirmed.margins, torch.tensor([-0.04, 0.02, 0.5]))
    assert outcome.broken.tolist() == [True, True, False]  # unchanged


class _Timid(Attack):
    """Goes just beyond the network's boundary; all the way only where it may not stop."""

    def __init__(self, far=0.4):
        self.far = far

    def check(self):
        return self

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        goal = 0.499 if stop_when_broken else self.far
        return target.outcome_at(target.ball.project(torch.full_like(target.x, goal)))


def test_a_violation_by_rounding_is_attacked_again():
    aim = target(x=(0.6, 0.65, 0.9), replay=shifted(0.03))
    outcome = attack_and_confirm(_Timid(), aim)
    assert outcome.broken.tolist() == [True, True, False]
    assert not outcome.unconfirmed.any()
    assert 0.4 <= outcome.points[0].item() < 0.4001
    # From 0.65 the network's boundary can be reached, the estimator's cannot.
    outcome = attack_and_confirm(_Timid(), target(0.16, x=(0.65,), replay=shifted(0.03)))
    assert outcome.broken.tolist() == [False]
    assert outcome.unconfirmed.tolist() == [True]
    # Without rounding there is nothing to attack again.
    outcome = attack_and_confirm(_Timid(), target(x=(0.6,)))
    assert outcome.broken.tolist() == [True] and not outcome.unconfirmed.any()
    assert outcome.points.item() == np.float32(0.499)


def test_points_of_an_attack_outside_its_ball_do_not_count():
    class Far(_Timid):
        def attempt(self, target, *, generator=None, stop_when_broken=True):
            return target.outcome_at(torch.zeros_like(target.x))

    outcome = attack_and_confirm(Far(), target(0.05))
    assert not outcome.broken.any()


def test_attacks_of_a_network_that_is_its_own_estimator_are_confirmed():
    aim = target()
    outcome = attack_and_confirm(PGD(5), aim, torch.Generator().manual_seed(0))
    assert outcome.broken.tolist() == [True, True, False]
    assert (outcome.margins[:2] <= 0).all() and not outcome.unconfirmed.any()


def test_steps_go_on_along_the_ray():
    x, points = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.0, -2.0]]).double()
    steps = torch.cat(list(steps_beyond(x, points)))
    expected = np.outer([1, 1 + 1e-6, 1 + 1e-5, 1 + 1e-4, 1 + 1e-3], [1.0, -2.0])
    np.testing.assert_allclose(steps, expected, rtol=1e-14)
    assert torch.equal(steps[:1], points)


def test_points_on_a_boundary_are_confirmed_just_beyond():
    # The estimator's boundary lies at 0.49999, where the network's is at 0.5.
    aim = target(x=(0.6, 0.65), replay=shifted(1e-5))
    outcome = aim.outcome_at(torch.tensor([[0.5], [0.5]]))
    assert outcome.broken.all() and not confirm_outcome(aim, outcome).broken.any()
    confirmed = confirm_beyond(aim, outcome)
    assert confirmed.broken.all()
    assert (confirmed.points < 0.49999 + 1e-6).all() and (confirmed.points > 0.4998).all()


def test_nothing_just_beyond_breaks():
    aim = target(x=(0.6, 0.65), replay=constant([1.0, 0.0]))
    outcome = aim.outcome_at(torch.tensor([[0.5], [0.62]]))
    confirmed = confirm_beyond(aim, outcome)
    assert not confirmed.broken.any()
    assert isinstance(confirmed, Outcome)


def test_points_just_beyond_stay_in_the_ball():
    # The boundary of the network is the edge of the ball; that of the estimator is beyond.
    aim = target(0.1, x=(0.6,), replay=shifted(1e-4))
    outcome = aim.outcome_at(torch.tensor([[0.5]]))
    assert outcome.broken.all()
    confirmed = confirm_beyond(aim, outcome)
    assert not confirmed.broken.any()
    assert (confirmed.points >= aim.ball.lower).all()


@pytest.mark.parametrize(
    "points",
    [None, "ab", [[0.1], [0.2, 0.3]], np.zeros((2, 1), dtype=complex), np.zeros((3, 1)), 0.5],
)
def test_points_that_are_none(points):
    network = torch.nn.Linear(1, 2)
    target = Target(network, ClassificationRobustness(0.1), torch.rand(2, 1), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"^Got points=.*, but expected real numbers of shape"):
        confirm(target, points)


@pytest.mark.parametrize("kind", [">f8", np.longdouble, object])
def test_points_of_any_real_kind(kind):
    network = torch.nn.Linear(1, 2)
    target = Target(network, ClassificationRobustness(0.1), torch.rand(2, 1), torch.tensor([0, 1]))
    points = np.array([[0.25], [0.5]])
    same = confirm(target, points.astype(kind)[::-1].copy()[::-1]).margins
    assert torch.equal(same, confirm(target, points).margins)
