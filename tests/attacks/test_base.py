"""What attacks share: targets, outcomes, the loop over restarts, refusals."""

import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from skrobust.attacks import FGSM, PGD, AutoPGD, Outcome, Target, UniformSampling
from skrobust.exceptions import AttackWarning, UnsupportedModelError
from skrobust.networks import evaluation_mode
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from tests._asserts import assert_inside_ball

ATTACKS = [
    FGSM(),
    PGD(5),
    PGD(5, step_size=0.05, schedule="linear", n_restarts=2),
    PGD(5, schedule="cosine", random_start=False, objective="cross-entropy"),
    AutoPGD(5),
    AutoPGD(8, n_restarts=2, objective="cross-entropy"),
    UniformSampling(20),
]
PROPERTIES = [
    ClassificationRobustness(0.1),
    ClassificationRobustness([0.2, 0.0, 0.05, 0.1], norm="l2", bounds=None),
    ClassificationRobustness(0.1, reference="prediction"),
    StandardRobustness(0.1, delta=0.5),
    LipschitzRobustness(0.1, lipschitz=1.0, norm="l2"),
    StrongClassificationRobustness(0.1, eta=0.6),
    ClassificationRobustness(0.1) & StandardRobustness(0.1, delta=0.5),
]


class Counting(torch.nn.Module):
    """Keeps the number of rows of each call."""

    def __init__(self, module):
        super().__init__()
        self.module, self.rows = module, []

    def forward(self, x):
        self.rows.append(len(x))
        return self.module(x)


def small_net(n_classes=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, n_classes)
        return torch.nn.Sequential(*layers).requires_grad_(False)


def rows(n=30, seed=0):
    x = torch.rand((n, 4), generator=torch.Generator().manual_seed(seed))
    return 0.05 + 0.9 * x


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("stop_when_broken", [True, False])
@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
def test_outcomes_are_what_the_network_says(property, attack, stop_when_broken):
    net, x = small_net(), rows()
    labels = net(x).argmax(dim=1)
    outcome = attack.run(
        net, property, x, labels, stop_when_broken=stop_when_broken, generator=generator()
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
    outcome = attack.run(net, property, x, labels, generator=generator())
    assert (outcome.margins.numpy() <= clean + 1e-6).mean() > 0.99
    assert outcome.margins.mean() < clean.mean()
    assert 0.02 < outcome.broken.float().mean() < 0.9


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_already_broken_samples_do_not_move_or_cost(attack):
    x = rows(10)
    net = Counting(small_net())
    labels = net.module(x).argmax(dim=1)
    labels[:9] = (labels[:9] + 1) % 3
    outcome = attack.run(net, ClassificationRobustness(0.01), x, labels, generator=generator())
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
    outcome = attack.run(net, ClassificationRobustness(0.0), x, labels)
    assert outcome.broken.tolist() == [True] + [False] * 9
    assert torch.equal(outcome.points, x)
    assert net.rows == [10]
    in_training = attack.run(net, ClassificationRobustness(0.0), x, labels, stop_when_broken=False)
    assert torch.equal(in_training.points, x)
    assert torch.equal(in_training.broken, outcome.broken)
    torch.testing.assert_close(in_training.margins, outcome.margins)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_runs_repeat(attack):
    net, x = small_net(), rows()
    labels = net(x).argmax(dim=1)
    property = ClassificationRobustness(0.1)
    runs = [attack.run(net, property, x, labels, generator=generator(s)) for s in (1, 1, 2)]
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
        outcome = attack.run(
            Faulty(), property, x, labels, stop_when_broken=False, generator=generator()
        )
    assert torch.isfinite(outcome.points).all()
    assert_inside_ball(outcome.points, x, property)
    if isinstance(attack, FGSM):
        assert torch.equal(outcome.points[0], x[0])
    torch.testing.assert_close(outcome.points[1], x[1] - 0.1)


def test_lipschitz_at_the_reference_is_not_broken_by_rounding():
    net, x = small_net(), rows()
    property = LipschitzRobustness(0.0, lipschitz=1.0)
    outcome = PGD(3).run(net, property, x)
    assert not outcome.broken.any()
    assert (outcome.margins == 0).all()
    # The same where points start at the reference.
    outcome = PGD(2, random_start=False).run(net, LipschitzRobustness(0.1, 1e3), x)
    assert not outcome.broken.any()
    assert torch.isfinite(outcome.points).all()


def test_restarts_only_help():
    net, x = small_net(10, seed=1), rows(200)
    labels = net(x).argmax(dim=1)
    property = ClassificationRobustness(0.03)
    single = UniformSampling(2)
    twice = PGD(2, n_restarts=6)
    once = clone(twice).set_params(n_restarts=1)
    one, six = (a.run(net, property, x, labels, generator=generator()) for a in (once, twice))
    assert six.broken.sum() >= one.broken.sum()
    assert single.n_restarts == 1
    for stop in (True, False):
        seen = Counting(net)
        twice.run(seen, property, x, labels, stop_when_broken=stop, generator=generator())
        once_seen = Counting(net)
        once.run(once_seen, property, x, labels, stop_when_broken=stop, generator=generator())
        assert sum(seen.rows) > 2 * sum(once_seen.rows)


def test_without_stopping_the_reference_takes_no_part():
    # In training, the point must come from the attack, though the reference has a lower margin.
    net = torch.nn.Linear(4, 2).requires_grad_(False)
    x = rows()
    labels = net(x).argmin(dim=1)
    for attack in (UniformSampling(3), PGD(2, step_size=1e-6), PGD(2, n_restarts=2)):
        outcome = attack.run(net, ClassificationRobustness(0.1), x, labels, stop_when_broken=False)
        assert (outcome.points != x).any(dim=1).all()


def test_target_classes_for_the_cross_entropy():
    net, x = small_net(), rows(5)
    wrong = (net(x).argmax(dim=1) + 1) % 3
    assert torch.equal(Target(net, ClassificationRobustness(), x, wrong).classes, wrong)
    by_prediction = ClassificationRobustness(reference="prediction")
    assert torch.equal(Target(net, by_prediction, x, wrong).classes, net(x).argmax(dim=1))
    assert torch.equal(Target(net, StandardRobustness(), x).classes, net(x).argmax(dim=1))


def test_target_gradients_against_differences():
    net, x = small_net().double(), rows(6).double()
    labels = net(x).argmax(dim=1)
    target = Target(net, ClassificationRobustness(), x, labels)
    for objective in ("margin", "cross-entropy"):
        gradient, logits, value = target.gradient(x, objective)
        torch.testing.assert_close(logits, net(x))
        for j in range(4):
            move = torch.zeros(4, dtype=torch.float64)
            move[j] = 1e-6
            after = target.gradient(x + move, objective)[2]
            torch.testing.assert_close(
                (after - value) / 1e-6, gradient[:, j], rtol=1e-3, atol=1e-5
            )


def test_outcomes_merge_to_the_worse():
    ours = Outcome(torch.zeros(3, 1), torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0, 0, 1]) > 0)
    theirs = Outcome(torch.ones(2, 1), torch.tensor([-1.0, 0.5]), torch.tensor([1, 0]) > 0)
    merged = ours.merge(torch.tensor([1, 2]), theirs)
    assert merged.points[:, 0].tolist() == [0.0, 1.0, 0.0]
    assert merged.margins.tolist() == [1.0, -1.0, -1.0]
    assert merged.broken.tolist() == [False, True, True]
    assert ours.broken.tolist() == [False, False, True]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_comes_and_goes(training):
    module = torch.nn.Dropout().train(training)
    with evaluation_mode(module):
        assert not module.training
    assert module.training is training
    with pytest.raises(KeyError), evaluation_mode(module):
        raise KeyError
    assert module.training is training


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
    with pytest.raises(ValueError, match="needs the true labels"):
        FGSM().perturb(model, X, property=ClassificationRobustness())
    with pytest.raises(ValueError, match=r"80 of 80 rows of X lie outside"):
        FGSM().perturb(model, X + 1, y, property=ClassificationRobustness())
    with pytest.raises(UnsupportedModelError, match="Got a object, but expected a classifier"):
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
