"""What attacks share: the loop over restarts, the walk along gradients, refusals."""

import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from skrobust.attacks import FGSM, PGD, AutoPGD, Target, UniformSampling
from skrobust.exceptions import AttackWarning, UnsupportedModelError
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from tests._asserts import assert_inside_ball
from tests.attacks._nets import Counting, generator, linear_net, rows, small_net, worst_margin

ATTACKS = [
    FGSM(),
    PGD(5),
    PGD(5, step_size=0.05, schedule="linear", n_restarts=2),
    PGD(5, schedule="cosine", random_start=False, objective="cross-entropy"),
    AutoPGD(5),
    AutoPGD(8, n_restarts=2, objective="cross-entropy"),
    UniformSampling(20),
]
STRONG = [
    PGD(20, schedule="constant"),
    PGD(30, schedule="linear", random_start=False),
    PGD(30, schedule="cosine", random_start=False),
    AutoPGD(30),
]
IDS = ["pgd", "linear", "cosine", "auto"]
PROPERTIES = [
    ClassificationRobustness(0.1),
    ClassificationRobustness([0.2, 0.0, 0.05, 0.1], norm="l2", bounds=None),
    ClassificationRobustness(0.1, reference="prediction"),
    StandardRobustness(0.1, delta=0.5),
    LipschitzRobustness(0.1, lipschitz=1.0, norm="l2"),
    StrongClassificationRobustness(0.1, eta=0.6),
    ClassificationRobustness(0.1) & StandardRobustness(0.1, delta=0.5),
]


@pytest.mark.parametrize("stop_when_broken", [True, False])
@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
def test_outcomes_are_what_the_network_says(property, attack, stop_when_broken):
    net, x = small_net(), rows()
    labels = net(x).argmax(dim=1)
    outcome = attack.search(
        Target(net, property, x, labels), stop_when_broken=stop_when_broken, generator=generator()
    )
    assert_inside_ball(outcome.points, x, property)
    conclusion = property.conclusion(net(x), property.reference_labels(net(x), labels))
    distance = property.ball(x).distance(outcome.points)
    logits = net(outcome.points)
    torch.testing.assert_close(
        outcome.margins, conclusion.margin(logits, distance), rtol=1e-4, atol=1e-5
    )
    clear = outcome.margins.abs() > 1e-5
    assert torch.equal(outcome.broken[clear], ~conclusion.holds(logits, distance)[clear])


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_attacks_find_what_breaks(attack):
    # Rows that start near the decision boundary: every attack breaks many of these.
    net, x = small_net(), rows(200)
    property = ClassificationRobustness(0.1)
    labels = net(x).argmax(dim=1)
    clean = property.margin(net(x), labels=labels)
    outcome = attack.search(Target(net, property, x, labels), generator=generator())
    assert (outcome.margins.numpy() <= clean + 1e-6).mean() > 0.99
    assert outcome.margins.mean() < clean.mean()
    assert 0.02 < outcome.broken.float().mean() < 0.9


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_already_broken_samples_do_not_move_or_cost(attack):
    x = rows(10)
    net = Counting(small_net())
    labels = net.module(x).argmax(dim=1)
    labels[:9] = (labels[:9] + 1) % 3
    outcome = attack.search(
        Target(net, ClassificationRobustness(0.01), x, labels), generator=generator()
    )
    assert outcome.broken[:9].all()
    assert torch.equal(outcome.points[:9], x[:9])
    n_points = attack.n_samples if isinstance(attack, UniformSampling) else 1
    assert net.rows[0] == 10
    assert set(net.rows[1:]) <= {n_points}


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_epsilon_zero_asks_for_the_references_only(attack):
    net, x = Counting(small_net()), rows(10)
    labels = net.module(x).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 3
    outcome = attack.search(Target(net, ClassificationRobustness(0.0), x, labels))
    assert outcome.broken.tolist() == [True] + [False] * 9
    assert torch.equal(outcome.points, x)
    assert net.rows == [10]
    in_training = attack.search(
        Target(net, ClassificationRobustness(0.0), x, labels), stop_when_broken=False
    )
    assert torch.equal(in_training.points, x)
    assert torch.equal(in_training.broken, outcome.broken)
    torch.testing.assert_close(in_training.margins, outcome.margins)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_runs_repeat(attack):
    net, x = small_net(), rows()
    labels = net(x).argmax(dim=1)
    property = ClassificationRobustness(0.1)
    runs = [
        attack.search(Target(net, property, x, labels), generator=generator(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0].points, runs[1].points)
    draws = getattr(attack, "random_start", not isinstance(attack, FGSM))
    assert torch.equal(runs[0].points, runs[2].points) != draws


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_clone(attack):
    assert clone(attack).get_params() == attack.get_params()
    assert attack.check() is attack


@pytest.mark.parametrize("attack", [FGSM(), PGD(5, schedule="constant"), AutoPGD(5)], ids=repr)
def test_a_gradient_that_is_nan_is_a_failed_step(attack):
    class Faulty(torch.nn.Module):
        """Finite outputs; a NaN gradient where the first feature is below one half."""

        def forward(self, x):
            factor = torch.where(x[:, :1] < 0.5, torch.nan, 1.0).nan_to_num(1.0)
            root = torch.sqrt(torch.where(x[:, :1] < 0.5, 0.0, 1.0) * x[:, :1])
            return torch.cat(
                [x.sum(dim=1, keepdim=True) + 5 + root * 0, 0 * x[:, 1:2] * factor], 1
            )

    x = torch.tensor([[0.2, 0.5, 0.5, 0.5], [0.8, 0.5, 0.5, 0.5]])
    property = ClassificationRobustness(0.1)
    labels = torch.tensor([0, 0])
    with pytest.warns(
        AttackWarning, match=r"not finite at 1 of 2 points; the attack stands still"
    ):
        outcome = attack.search(
            Target(Faulty(), property, x, labels), stop_when_broken=False, generator=generator()
        )
    assert torch.isfinite(outcome.points).all()
    assert_inside_ball(outcome.points, x, property)
    if isinstance(attack, FGSM):
        assert torch.equal(outcome.points[0], x[0])
    torch.testing.assert_close(outcome.points[1], x[1] - 0.1)


def test_lipschitz_at_the_reference_is_not_broken_by_rounding():
    net, x = small_net(), rows()
    property = LipschitzRobustness(0.0, lipschitz=1.0)
    outcome = PGD(3).search(Target(net, property, x))
    assert not outcome.broken.any()
    assert (outcome.margins == 0).all()
    # The same where points start at the reference.
    outcome = PGD(2, random_start=False).search(Target(net, LipschitzRobustness(0.1, 1e3), x))
    assert not outcome.broken.any()
    assert torch.isfinite(outcome.points).all()


def test_restarts_only_help():
    net, x = small_net(10, seed=1), rows(200)
    labels = net(x).argmax(dim=1)
    property = ClassificationRobustness(0.03)
    single = UniformSampling(2)
    twice = PGD(2, n_restarts=6)
    once = clone(twice).set_params(n_restarts=1)
    one, six = (
        a.search(Target(net, property, x, labels), generator=generator()) for a in (once, twice)
    )
    assert six.broken.sum() >= one.broken.sum()
    assert single.n_restarts == 1
    for stop in (True, False):
        seen = Counting(net)
        twice.search(
            Target(seen, property, x, labels), stop_when_broken=stop, generator=generator()
        )
        once_seen = Counting(net)
        once.search(
            Target(once_seen, property, x, labels), stop_when_broken=stop, generator=generator()
        )
        assert sum(seen.rows) > 2 * sum(once_seen.rows)


def test_without_stopping_the_reference_takes_no_part():
    # In training, the point must come from the attack, though the reference has a lower margin.
    net = torch.nn.Linear(4, 2).requires_grad_(False)
    x = rows()
    labels = net(x).argmin(dim=1)
    for attack in (UniformSampling(3), PGD(2, step_size=1e-6), PGD(2, n_restarts=2)):
        outcome = attack.search(
            Target(net, ClassificationRobustness(0.1), x, labels), stop_when_broken=False
        )
        assert (outcome.points != x).any(dim=1).all()


def test_perturb(blobs):
    X, y = blobs
    model = LogisticRegression(C=10).fit(X, np.array(["no", "yes"])[y])
    property = ClassificationRobustness(0.15)
    found = PGD(10).perturb(model, X, model.predict(X), property=property, random_state=0)
    again = PGD(10).perturb(model, X, model.predict(X), property=property, random_state=0)
    np.testing.assert_array_equal(found, again)
    assert found.shape == X.shape
    assert_inside_ball(found, X, property)
    changed = model.predict(found) != model.predict(X)
    exact = np.abs(model.decision_function(X)) < 0.15 * np.abs(model.coef_).sum()
    np.testing.assert_array_equal(changed, exact)


def test_perturb_refuses(blobs):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    with pytest.raises(TypeError, match=r"Got property=0.1, but expected a RobustnessProperty"):
        FGSM().perturb(model, X, y, property=0.1)
    with pytest.raises(ValueError, match="expected the true labels"):
        FGSM().perturb(model, X, property=ClassificationRobustness())
    with pytest.raises(ValueError, match=r"80 of 80 rows of X lie outside"):
        FGSM().perturb(model, X + 1, y, property=ClassificationRobustness())
    with pytest.raises(UnsupportedModelError, match="Got an object, but expected a classifier"):
        FGSM().perturb(object(), X, y, property=ClassificationRobustness())


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (PGD(0), "Got n_steps=0, but expected an integer of at least 1"),
        (PGD(2.5), "Got n_steps=2.5, but expected an integer"),
        (PGD(n_restarts=0), "Got n_restarts=0, but expected an integer of at least 1"),
        (PGD(step_size=0), "Got step_size=0, but expected a finite number in (0, inf)"),
        (PGD(schedule="step"), "Got schedule='step', but expected one of '"),
        (PGD(objective="loss"), "Got objective='loss', but expected one of 'margin'"),
        (FGSM("loss"), "Got objective='loss', but expected one of 'margin'"),
        (AutoPGD(0), "Got n_steps=0, but expected an integer of at least 1"),
        (AutoPGD(n_restarts=-1), "Got n_restarts=-1, but expected an integer"),
        (AutoPGD(momentum=0), "Got momentum=0, but expected a finite number in (0, 1]"),
        (AutoPGD(progress=1.5), "Got progress=1.5, but expected a finite number in [0, 1]"),
        (AutoPGD(objective=None), "Got objective=None, but expected one of"),
        (UniformSampling(0), "Got n_samples=0, but expected an integer of at least 1"),
        (UniformSampling(batch_size=0), "Got batch_size=0, but expected an integer"),
    ],
)
def test_bad_parameters(attack, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        attack.check()


# ---- along gradients: closed forms of linear models, who leaves the batch ---------------


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("epsilon", [0.1, [0.2, 0.0, 0.3, 0.05]], ids=["scalar", "features"])
@pytest.mark.parametrize("attack", [FGSM(), *STRONG], ids=["fgsm", *IDS])
def test_linf_reaches_the_worst_corner(attack, epsilon, bounds):
    net, x = linear_net(), rows().double()
    property = ClassificationRobustness(epsilon, bounds=bounds)
    labels = torch.zeros(len(x), dtype=torch.int64)
    for stop in (True, False):
        outcome = attack.search(
            Target(net, property, x, labels), stop_when_broken=stop, generator=generator()
        )
        expected = worst_margin(net, x, epsilon, "linf", bounds)
        np.testing.assert_allclose(outcome.margins, expected, rtol=1e-9)
        assert_inside_ball(outcome.points, x, property)


@pytest.mark.parametrize("epsilon", [0.1, [0.2, 0.0, 0.3, 0.05]], ids=["scalar", "features"])
@pytest.mark.parametrize("attack", [FGSM(), *STRONG], ids=["fgsm", *IDS])
def test_l2_reaches_the_worst_point(attack, epsilon):
    net, x = linear_net(), rows().double()
    property = ClassificationRobustness(epsilon, norm="l2", bounds=None)
    labels = torch.zeros(len(x), dtype=torch.int64)
    outcome = attack.search(Target(net, property, x, labels), generator=generator())
    expected = worst_margin(net, x, epsilon, "l2")
    clean = worst_margin(net, x, 0.0, "l2")
    # No lower than the closed form, and nearly the whole way there.
    assert (outcome.margins.numpy() >= expected - 1e-9).all()
    gone = (clean - outcome.margins.numpy()) / (clean - expected)
    assert gone.min() > (0.999 if isinstance(attack, FGSM) else 0.95)


@pytest.mark.parametrize("attack", STRONG, ids=IDS)
def test_several_classes(attack):
    net, x = linear_net(5), rows().double()
    property = ClassificationRobustness(0.1, bounds=None)
    labels = torch.zeros(len(x), dtype=torch.int64)
    outcome = attack.search(Target(net, property, x, labels), generator=generator())
    expected = worst_margin(net, x, 0.1, "linf")
    assert (outcome.margins.numpy() >= expected - 1e-9).all()
    # A greedy descent of a minimum of linear functions may end at the second worst class.
    assert np.mean(outcome.margins.numpy() <= expected + 1e-6) > 0.9


@pytest.mark.parametrize("attack", STRONG, ids=IDS)
def test_exactly_the_samples_that_can_be_broken_are(attack):
    net, x = linear_net(), rows(100).double()
    net.bias.zero_()
    difference = net.weight[0] - net.weight[1]
    net.bias[0] = -(x @ difference).median()
    labels = net(x).argmax(dim=1)
    distance = (net(x)[:, 0] - net(x)[:, 1]).abs()
    for norm, order in (("linf", 1), ("l2", 2)):
        property = ClassificationRobustness(0.05, norm=norm, bounds=None)
        outcome = attack.search(Target(net, property, x, labels), generator=generator())
        reach = 0.05 * torch.linalg.vector_norm(difference, ord=order)
        clear = (distance / reach - 1).abs() > 0.03
        assert torch.equal(outcome.broken[clear], (distance <= reach)[clear])
        assert 5 < outcome.broken.sum() < 95


@pytest.mark.parametrize(
    "attack", [PGD(8), PGD(8, n_restarts=3), AutoPGD(8), AutoPGD(8, n_restarts=3)], ids=repr
)
def test_broken_samples_leave_the_batch(attack):
    net, x = Counting(small_net()), rows(300)
    labels = net.module(x).argmax(dim=1)
    outcome = attack.search(
        Target(net, ClassificationRobustness(0.1), x, labels), generator=generator()
    )
    n_left = 300 - int(outcome.broken.sum())
    assert 0 < n_left < 300
    # The batch only shrinks, also from one restart to the next, to about what is left.
    assert net.rows[0] == 300
    assert net.rows == sorted(net.rows, reverse=True)
    assert n_left <= net.rows[-1] <= 1.3 * n_left
    n_calls = len(net.rows)
    assert n_calls >= 1 + 9 * attack.n_restarts
    assert sum(net.rows) < 0.9 * 300 * n_calls


@pytest.mark.parametrize("attack", [PGD(6), AutoPGD(6)], ids=repr)
def test_without_stopping_every_sample_takes_all_steps(attack):
    net, x = Counting(small_net()), rows(50)
    labels = net.module(x).argmax(dim=1)
    property = ClassificationRobustness(0.2)
    outcome = attack.search(
        Target(net, property, x, labels), stop_when_broken=False, generator=generator()
    )
    assert set(net.rows) == {50}
    assert 6 <= len(net.rows) <= 10
    stopped = attack.search(Target(net, property, x, labels), generator=generator())
    # Those that stop do so early, at a higher margin.
    assert outcome.margins[stopped.broken].mean() < stopped.margins[stopped.broken].mean()


def test_nothing_left_ends_the_run():
    net, x = Counting(small_net()), rows(20)
    labels = net.module(x).argmax(dim=1)
    # Every point outside the reference is broken.
    broken_everywhere = ClassificationRobustness(0.9, bounds=None, norm="linf")
    for attack in (PGD(50, n_restarts=9), AutoPGD(50, n_restarts=9)):
        net.rows.clear()
        outcome = attack.search(Target(net, broken_everywhere, x, labels), generator=generator())
        if outcome.broken.all():
            assert len(net.rows) < 100


@pytest.mark.parametrize("objective", ["margin", "cross-entropy"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_longer_attacks_are_the_stronger(objective, norm):
    net, x = small_net(10, seed=3), rows(300)
    labels = net(x).argmax(dim=1)
    property = ClassificationRobustness(0.06 if norm == "linf" else 0.1, norm=norm)
    attacks = [
        FGSM(objective),
        PGD(40, objective=objective),
        AutoPGD(40, n_restarts=2, objective=objective),
    ]
    broken = [
        a.search(Target(net, property, x, labels), generator=generator()).broken.sum().item()
        for a in attacks
    ]
    assert broken[0] <= broken[1] + 2
    assert broken[1] <= broken[2] + 2
    assert broken[2] > 10


def test_labels_that_the_property_does_not_need_may_be_unknown():
    X, y = np.array([[0.2], [0.4], [0.6], [0.8]]), [0, 0, 1, 1]
    model = LogisticRegression().fit(X, y)
    property = StandardRobustness(0.1, 1.0)
    assert FGSM().perturb(model, X, ["a"] * 4, property=property).shape == X.shape
