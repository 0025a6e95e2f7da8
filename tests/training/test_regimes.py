"""Regimes: what loss each makes of a batch, worked by hand on small networks."""

import re

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD, UniformSampling
from skrobust.exceptions import DivergedTrainingError
from skrobust.logics import DL2, Goedel
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.training import (
    AdversarialTraining,
    ConstraintTraining,
    DataAugmentation,
    StandardTraining,
    TrainingRegime,
    TrainingStep,
)
from tests._asserts import assert_inside_ball

CR = ClassificationRobustness
PROPERTY_REGIMES = [DataAugmentation(), AdversarialTraining(), ConstraintTraining()]


class Watched(torch.nn.Module):
    """A network that keeps what it is given while it trains, and in which mode."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)
        self.training_inputs, self.evaluation_calls = [], 0

    def forward(self, x):
        if self.training:
            self.training_inputs.append(x.detach().clone())
        else:
            self.evaluation_calls += 1
        return self.layers(x)


def linear(weight, bias=(0.0, 0.0)):
    layer = torch.nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def step(module, property=None, epoch=0, n=5):
    x = 0.2 + 0.6 * torch.rand((n, 2), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 2
    return TrainingStep(module.train(), torch.nn.CrossEntropyLoss(), x, labels, property, epoch)


def task_loss(module, x, labels):
    return torch.nn.functional.cross_entropy(module(x), labels)


def worst_points(weight, x, labels, epsilon):
    """Of a linear binary network: against the sign of the gap's gradient."""
    gap = torch.tensor(weight)[labels] - torch.tensor(weight)[1 - labels]
    return x - epsilon * gap.sign()


WEIGHT = [[2.0, -1.0], [0.0, 3.0]]


# ---- standard training --------------------


def test_standard_training_is_the_loss_of_the_task():
    module = Watched(linear(WEIGHT))
    given = step(module)
    loss, logits = StandardTraining().loss(given)
    torch.testing.assert_close(loss, task_loss(module, given.x, given.labels))
    torch.testing.assert_close(logits, module(given.x))
    assert torch.equal(module.training_inputs[0], given.x)


# ---- data augmentation --------------------


@pytest.mark.parametrize("sampling", ["uniform", "fgsm"])
@pytest.mark.parametrize("n_extra", [1, 2, 3])
def test_augmentation_adds_samples_of_the_ball(sampling, n_extra):
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, logits = DataAugmentation(n_extra, sampling).loss(given)
    (seen,) = module.training_inputs
    assert seen.shape == (5 * (1 + n_extra), 2)
    assert torch.equal(seen[:5], given.x)
    extra = seen[5:].reshape(5, n_extra, 2)
    for k in range(n_extra):
        assert_inside_ball(extra[:, k], given.x, CR(0.1), factor=1 + 1e-6)
    assert (extra != given.x.unsqueeze(1)).any()
    # Each with the label of its own input, all with the same weight.
    labels = torch.cat([given.labels, given.labels.repeat_interleave(n_extra)])
    torch.testing.assert_close(loss, task_loss(module, seen, labels))
    torch.testing.assert_close(logits, module(given.x))


def test_fgsm_samples_stand_at_shares_of_epsilon():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    DataAugmentation(2, "fgsm").loss(given)
    extra = module.training_inputs[0][5:].reshape(5, 2, 2)
    for k, epsilon in enumerate((0.05, 0.1)):
        expected = worst_points(WEIGHT, given.x, given.labels, epsilon)
        torch.testing.assert_close(extra[:, k], expected)


def test_uniform_samples_are_drawn_anew():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    for _ in range(2):
        DataAugmentation().loss(given)
    first, second = module.training_inputs
    assert not torch.equal(first, second)


# ---- adversarial training --------------------


@pytest.mark.parametrize("objective", ["margin", "cross-entropy"])
def test_adversarial_training_is_the_loss_at_the_worst_points(objective):
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, _ = AdversarialTraining(PGD(10, objective=objective)).loss(given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    torch.testing.assert_close(loss, task_loss(module, worst, given.labels))
    torch.testing.assert_close(module.training_inputs[0], worst)
    # The attack saw the network in evaluation mode, and left it training.
    assert module.evaluation_calls >= 10
    assert module.training


def test_clean_weight_mixes():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, logits = AdversarialTraining(FGSM(), clean_weight=0.25).loss(given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    clean, attacked = (task_loss(module, x, given.labels) for x in (given.x, worst))
    torch.testing.assert_close(loss, 0.25 * clean + 0.75 * attacked)
    torch.testing.assert_close(logits, module(given.x))


def test_the_default_attack_is_pgd_on_the_cross_entropy():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, _ = AdversarialTraining().loss(given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    torch.testing.assert_close(loss, task_loss(module, worst, given.labels))


def test_attacked_points_do_not_stop_at_the_first_violation():
    # All are broken from the start; training still takes the worst points.
    module = Watched(linear([[-9.0, 0.0], [9.0, 0.0]], (0.0, 0.0)))
    given = step(module, CR(0.1))
    AdversarialTraining(FGSM("margin")).loss(given)
    moved = (module.training_inputs[0] - given.x)[:, 0].abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1))


@pytest.mark.parametrize("regime", PROPERTY_REGIMES, ids=lambda r: type(r).__name__)
def test_attacks_leave_no_gradient_on_the_weights(regime):
    module = Watched(linear(WEIGHT))
    loss, _ = regime.loss(step(module, CR(0.1)))
    assert all(p.grad is None for p in module.parameters())
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


# ---- constraint training --------------------


def test_constraint_training_by_hand():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, logits = ConstraintTraining(alpha=2.0, beta=0.5, attack=FGSM()).loss(given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    z = module(worst)
    gaps = z[range(5), given.labels] - z[range(5), 1 - given.labels]
    constraint = torch.relu(-gaps).mean()
    assert constraint > 0
    expected = 2.0 * task_loss(module, given.x, given.labels) + 0.5 * constraint
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, module(given.x))


def test_constraint_training_reads_the_logic():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, _ = ConstraintTraining(0.0, 1.0, attack=FGSM(), logic=Goedel(scale=0.5)).loss(given)
    z = module(worst_points(WEIGHT, given.x, given.labels, 0.1))
    gaps = z[range(5), given.labels] - z[range(5), 1 - given.labels]
    torch.testing.assert_close(loss, (1 - 1 / (1 + torch.relu(-gaps) / 0.5)).mean())


def test_constraint_training_with_reference_outputs():
    # z1 - z0 grows by 6 (0.6 at the corner), and each output is allowed a change of 0.1.
    module = Watched(linear([[3.0, 0.0], [-3.0, 0.0]]))
    given = step(module, StandardRobustness(0.1, delta=0.1))
    loss, _ = ConstraintTraining(0.0, 1.0).loss(given)
    torch.testing.assert_close(loss, torch.tensor(0.4), rtol=1e-4, atol=1e-4)
    # The reference outputs are part of the gradient: only weights count, not biases.
    loss.backward()
    assert module.layers[0].bias.grad.abs().max() < 1e-6
    assert module.layers[0].weight.grad.abs().max() > 0.05


def test_constraint_training_with_distances():
    module = Watched(linear([[3.0, 0.0], [-3.0, 0.0]]))
    given = step(module, LipschitzRobustness(0.1, lipschitz=2.0))
    loss, _ = ConstraintTraining(0.0, 1.0, attack=PGD(20)).loss(given)
    # Slope 3 against 2: both rows are short by (3 - 2) times the distance 0.1.
    torch.testing.assert_close(loss, torch.tensor(0.2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reference", ["label", "prediction"])
def test_constraint_training_refers_to_label_or_prediction(reference):
    # A network that is confidently wrong everywhere.
    module = Watched(linear([[0.0, 0.0], [0.0, 0.0]], (9.0, 0.0)))
    property = StrongClassificationRobustness(0.1, eta=0.6, reference=reference)
    given = step(module, property)
    given.labels.fill_(1)
    loss, _ = ConstraintTraining(0.0, 1.0, logic=DL2()).loss(given)
    if reference == "prediction":
        assert loss == 0
    else:
        torch.testing.assert_close(
            loss.item(), 9 + np.log1p(np.exp(-9)) + np.log(0.6), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("epoch", "share"), [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (4, 1.0), (50, 1.0)]
)
def test_warmup_raises_beta_in_equal_steps(epoch, share):
    module = Watched(linear(WEIGHT))
    regime = ConstraintTraining(0.0, 1.0, attack=FGSM(), warmup_epochs=3)
    full, _ = clone(regime).set_params(warmup_epochs=0).loss(step(module, CR(0.1)))
    loss, _ = regime.loss(step(module, CR(0.1), epoch=epoch))
    torch.testing.assert_close(loss, share * full)


def gradient(module, loss):
    parts = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (2.0, 0.3)])
def test_balance_by_gradient_norms(alpha, beta):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Watched(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    regime = ConstraintTraining(alpha, beta, attack=FGSM(), balance="gradient-norm")
    given = step(module, CR(0.3))
    fixed = clone(regime).set_params(balance="fixed", alpha=0.0, beta=1.0)
    constraint = gradient(module, fixed.loss(given)[0])
    task = gradient(module, task_loss(module, given.x, given.labels))
    balanced = gradient(module, regime.loss(given)[0])
    # The part of the property is as long as beta times the part of the task.
    expected = alpha * task + beta * constraint * task.norm() / constraint.norm()
    torch.testing.assert_close(balanced, expected, rtol=1e-4, atol=1e-6)


def test_balance_where_the_property_holds_everywhere():
    module = Watched(linear([[50.0, 0.0], [-50.0, 0.0]], (0.0, 0.0)))
    given = step(module, CR(0.01))
    given.labels.zero_()
    loss, _ = ConstraintTraining(attack=FGSM(), balance="gradient-norm").loss(given)
    torch.testing.assert_close(loss, task_loss(module, given.x, given.labels))


@pytest.mark.parametrize("regime", [AdversarialTraining(clean_weight=0.5), ConstraintTraining()])
def test_batch_statistics_are_shared_in_one_pass(regime):
    module = Watched(torch.nn.BatchNorm1d(2), linear(WEIGHT))
    regime.loss(step(module, CR(0.1)))
    assert [len(x) for x in module.training_inputs] == [10]


# ---- whose property --------------------


@pytest.mark.parametrize("regime", PROPERTY_REGIMES, ids=lambda r: type(r).__name__)
def test_the_regime_takes_its_own_property_first(regime):
    module = Watched(linear(WEIGHT))
    own = clone(regime).set_params(property=CR(0.0))
    assert own.property == CR(0.0)
    own.loss(step(module, CR(0.3)))
    # epsilon is 0 there: the network sees the inputs themselves.
    given = step(module).x
    assert all((row == given).all(dim=1).any() for row in module.training_inputs[0])


@pytest.mark.parametrize("regime", PROPERTY_REGIMES, ids=lambda r: type(r).__name__)
def test_a_regime_without_a_property_says_so_before_training(regime, monkeypatch):
    monkeypatch.setattr(type(regime), "loss", lambda *a: pytest.fail("training began"))
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    name = type(regime).__name__
    shown = rf"Got property=None, but expected a robustness property: {name} trains for one"
    with pytest.raises(ValueError, match=shown):
        RobustClassifier(training=regime).fit(X, y)


# ---- refusals --------------------


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        (DataAugmentation(0), "Got n_extra=0, but expected an integer of at least 1"),
        (DataAugmentation(sampling="pgd"), "Got sampling='pgd', but expected one of 'uniform'"),
        (AdversarialTraining(clean_weight=2), "Got clean_weight=2, but expected a finite number"),
        (AdversarialTraining(PGD(0)), "Got n_steps=0, but expected"),
        (AdversarialTraining("pgd"), "Got attack='pgd', but expected an Attack, such as PGD"),
        (ConstraintTraining(-1), "Got alpha=-1, but expected a finite number in [0, inf)"),
        (ConstraintTraining(beta=np.nan), "Got beta=nan, but expected a finite number"),
        (ConstraintTraining(warmup_epochs=-1), "Got warmup_epochs=-1, but expected an integer"),
        (ConstraintTraining(balance="auto"), "Got balance='auto', but expected one of 'fixed'"),
        (ConstraintTraining(logic="DL2"), "Got logic='DL2', but expected a Logic, such as DL2()"),
        (ConstraintTraining(attack=UniformSampling(0)), "Got n_samples=0"),
        (ConstraintTraining(0, balance="gradient-norm"), "Got alpha=0, but expected"),
        (ConstraintTraining(property=CR(-1)), "Got epsilon=-1, but expected"),
        (ConstraintTraining(property=0.1), "Got property=0.1, but expected a RobustnessProperty"),
    ],
)
def test_bad_parameters(regime, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        regime.check(CR(0.1), np.full((3, 2), 0.5))


def test_data_outside_the_bounds_of_the_regimes_own_property():
    with pytest.raises(ValueError, match="3 of 3 rows of X lie outside"):
        AdversarialTraining(property=CR()).check(None, np.full((3, 2), 1.5))


# ---- a regime of your own, and losses that diverge --------------------


class NanAfter(TrainingRegime):
    """A loss that becomes NaN (or infinite) at one step."""

    def __init__(self, n_steps, value=float("nan")):
        self.n_steps = n_steps
        self.value = value

    def loss(self, step):
        loss, logits = step.task_loss(step.x, step.labels)
        self.seen_ = getattr(self, "seen_", 0) + 1
        return (loss * self.value if self.seen_ == self.n_steps else loss), logits


@pytest.mark.parametrize(
    ("n_steps", "epoch", "batch"), [(1, 1, 1), (3, 1, 3), (4, 2, 1), (8, 3, 2)]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training(n_steps, epoch, batch, value):
    X, y = np.random.default_rng(0).random((30, 3)), np.arange(30) % 2
    model = RobustClassifier(training=NanAfter(n_steps, value), batch_size=10, max_epochs=5)
    message = rf"The training loss became (nan|inf) in epoch {epoch}, batch {batch}\."
    with pytest.raises(DivergedTrainingError, match=message):
        model.fit(X, y)


def test_a_learning_rate_that_explodes():
    X, y = 1e3 * np.random.default_rng(0).random((30, 3)), np.arange(30) % 2
    model = RobustClassifier(lr=1e30, optimizer=torch.optim.SGD, max_epochs=5)
    with pytest.raises(DivergedTrainingError, match=r"in epoch \d+, batch \d+\. Try a smaller lr"):
        model.fit(X, y)
