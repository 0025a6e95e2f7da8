"""Tests of training on bounds: the loss by hand, agreement with Bounds, and what it achieves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.bounds import crown, relax
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.graphs import read_graph, read_live
from skrobust.networks import Network, as_network
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.training import CertifiedTraining, TrainingStep
from skrobust.training._certified import _lower_rows, _relaxed, _small_boxes, _smoothly, _State
from skrobust.verification import Bounds
from tests.verification._tensors import decided

CR = ClassificationRobustness
EXPRESSIVE = ("sabr", "mtl-ibp", "cc-ibp")


def step(module, property=None, epoch=0, n=6, n_features=2, **more):
    x = 0.2 + 0.6 * torch.rand((n, n_features), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 2
    return TrainingStep(module, nn.CrossEntropyLoss(), x, labels, property, epoch, **more)


def lower_rows(graph, ball, A, share):
    return _lower_rows(_relaxed(graph, ball, share), A, share)


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def worst_case():
    """The loss of the worst case alone, from the first epoch on."""
    return CertifiedTraining(ramp_epochs=0, clean_weight=0.0)


def test_loss_of_a_linear_network_by_hand():
    # z_0 - z_1 = 2 x_0 - x_1 - 0.3: an interval of half-width 3 epsilon.
    module = linear([[2.0, 0.0], [0.0, 1.0]], [-0.3, 0.0])
    asked = step(module, CR(0.1))
    gap = 2 * asked.x[:, 0] - asked.x[:, 1] - 0.3
    gap = torch.where(asked.labels == 0, gap, -gap)
    regime = worst_case()
    loss, logits = regime.loss(None, asked)
    expected = torch.log1p(torch.exp(-(gap - 0.3))).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, module(asked.x))
    half = CertifiedTraining(ramp_epochs=0, clean_weight=0.5).loss(None, asked)[0]
    torch.testing.assert_close(half, (expected + torch.log1p(torch.exp(-gap)).mean()) / 2)


def test_radius_and_weight_grow_over_the_epochs():
    module = linear([[2.0, 0.0], [0.0, 1.0]], [-0.3, 0.0])
    regime = CertifiedTraining(ramp_epochs=4, clean_weight=0.2)
    for epoch, ramp in ((0, 0.25), (3, 1.0), (9, 1.0)):
        asked = step(module, CR(0.1), epoch)
        full = worst_case().loss(None, step(module, CR(0.1 * ramp), 0))[0]
        clean = nn.functional.cross_entropy(module(asked.x), asked.labels)
        weight = 1 - 0.8 * ramp
        torch.testing.assert_close(
            regime.loss(None, asked)[0], weight * clean + (1 - weight) * full
        )


class Parts(nn.Module):
    """Most operations that have an interval, each once."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.last = nn.Linear(12, 2)

    def forward(self, x):
        x = (2 * x - 1).view(len(x), 1, 4, 4) / 3
        x = nn.functional.relu(self.norm(self.conv(x)), inplace=True) - x * -0.5
        x = nn.functional.leaky_relu(nn.functional.max_pool2d(x, 2), 0.1).clamp(-1, 2)
        return self.last(nn.functional.dropout(x.flatten(1), 0.5, self.training and False))


def test_intervals_are_those_of_the_verifier():
    torch.manual_seed(0)
    module = Parts()
    module(torch.rand(20, 16))
    module.eval().requires_grad_(False)
    asked = step(module, CR(0.05), n_features=16)
    loss, _ = worst_case().loss(None, asked)
    network = Network(module, np.arange(2), 16)
    verifier = Bounds("ibp")
    found = decided(verifier, network, CR(0.05), asked.x, asked.labels)
    known = np.isfinite(found.lower)
    assert known.any()
    # One row a sample, with two classes: the loss is that of its bound, where that is known.
    one = [worst_case().loss(None, part(asked, k))[0].item() for k in range(6)]
    np.testing.assert_allclose(
        np.array(one)[known], np.log1p(np.exp(-found.lower[known])), rtol=1e-4
    )
    assert loss.item() == pytest.approx(np.mean(one), rel=1e-5)


def part(asked, k):
    at = slice(k, k + 1)
    return TrainingStep(
        asked.module, asked.criterion, asked.x[at], asked.labels[at], asked.property, asked.epoch
    )


def test_batch_norm_takes_the_statistics_of_the_batch():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    asked = step(module, CR(0.0))
    loss, logits = worst_case().loss(None, asked)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, asked.labels))
    assert module[1].num_batches_tracked == 1


@pytest.mark.parametrize(
    "property",
    [CR(0.1), StandardRobustness(0.1, 0.5), StrongClassificationRobustness(0.1, 0.6)],
    ids=repr,
)
def test_gradients_reach_all_weights(property):
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    worst_case().loss(None, step(module, property))[0].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    assert module[0].weight.grad.abs().sum() > 0


def test_it_makes_networks_verifiable(digits):
    X, X_test, y, y_test = digits
    shares, accuracies = {}, {}
    for name, training in (("certified", CertifiedTraining(ramp_epochs=20)), ("standard", None)):
        # 8 steps an epoch: intervals take some hundred steps to become narrow.
        model = RobustClassifier(
            hidden_layer_sizes=32, property=CR(0.1), training=training, max_epochs=60, lr=1e-2,
            random_state=0,
        ).fit(X, y)  # fmt: skip
        network = as_network(model)
        x, labels = network.rows(X_test), network.encode(y_test)
        for method in ("ibp", "crown"):
            found = decided(Bounds(method), network, CR(0.1), x, labels)
            shares[name, method] = (found.verdicts == "verified").mean()
        accuracies[name] = model.score(X_test, y_test)
    assert shares["certified", "ibp"] > 0.65 and shares["standard", "ibp"] < 0.05
    assert shares["certified", "crown"] > shares["standard", "crown"] + 0.3
    assert accuracies["certified"] > accuracies["standard"] - 0.05


def test_what_has_no_interval_is_refused(digits):
    X = digits[0]
    regime = CertifiedTraining()
    with pytest.raises(UnsupportedPropertyError, match="do not depend on the distance"):
        regime.check(LipschitzRobustness(0.1), X)
    with pytest.raises(UnsupportedPropertyError, match="norm='linf'"):
        regime.check(CR(0.1, norm="l2"), X)
    with pytest.raises(UnsupportedPropertyError, match="rows of the logits"):
        regime.check(StandardRobustness(0.1, 0.5, output="probabilities"), X)
    softmax = nn.Sequential(nn.Linear(2, 2), nn.Softmax(dim=1))
    with pytest.raises(UnsupportedModelError, match="'softmax'"):
        regime.loss(None, step(softmax, CR(0.1)))


def test_bad_input_is_refused(digits):
    X = digits[0]
    with pytest.raises(ValueError, match="Got ramp_epochs=-1"):
        CertifiedTraining(ramp_epochs=-1).check(CR(0.1), X)
    with pytest.raises(ValueError, match="Got clean_weight=2"):
        CertifiedTraining(clean_weight=2).check(CR(0.1), X)
    with pytest.raises(ValueError, match="Got property=None"):
        CertifiedTraining().check(None, X)


# ---- CROWN-IBP ---------------------------------------------------------------------------


def unfolded():
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(12, 6), nn.LeakyReLU(0.2), nn.Linear(6, 3),
    )  # fmt: skip


def by_lines(module, x, property=None):
    """Return the bounds by lines and by intervals, and what the verifier says of both."""
    property = CR(0.1) if property is None else property
    ball = property.ball(x)
    live, logits = read_live(module, x)
    A = property.conclusion(logits, logits.argmax(dim=1)).sufficient().A
    graph = read_graph(module, x.shape[1])
    known = crown(relax(graph, property.outer_ball(x), refine=False), A)
    return lower_rows(live, ball, A, 1.0), lower_rows(live, ball, A, 0.0), known


def test_lines_are_those_of_the_verifier():
    torch.manual_seed(0)
    module, x = unfolded().double(), torch.rand(5, 16, dtype=torch.float64)
    lower, by_intervals, known = by_lines(module, x)
    torch.testing.assert_close(lower, known, rtol=0, atol=1e-9)
    assert (lower > by_intervals + 0.01).any()


def test_gradients_of_lines_are_those_of_differences():
    torch.manual_seed(0)
    module, x = unfolded().double(), torch.rand(3, 16, dtype=torch.float64)
    by_lines(module, x)[0].sum().backward()
    for weight in (module[1].weight, module[1].bias, module[4].weight, module[6].bias):
        place = weight.grad.flatten().abs().argmax()
        found = weight.grad.flatten()[place].item()
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight.flatten()[place] += step
            ends.append(by_lines(module, x)[0].sum().item())
            with torch.no_grad():
                weight.flatten()[place] -= step
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-5)
        assert abs(found) > 1e-3


def test_the_share_of_lines_falls_while_the_radius_grows():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    for epoch, share in ((0, 0.5), (1, 0.0), (5, 0.0)):
        asked = step(module, CR(0.1), epoch)
        found = CertifiedTraining("crown-ibp", ramp_epochs=2, clean_weight=0.0).loss(None, asked)[
            0
        ]
        radius, weight = (0.05, 0.5) if epoch == 0 else (0.1, 1.0)
        x, labels = asked.x, asked.labels
        ball = CR(radius).ball(x)
        graph, logits = read_live(module, x)
        A = CR(radius).conclusion(logits, labels).sufficient().A
        lower = (1 - share) * lower_rows(graph, ball, A, 0.0)
        lower = lower + share * lower_rows(graph, ball, A, 1.0)
        worst = torch.log1p(torch.exp(-lower).sum(dim=1)).mean()
        clean = nn.functional.cross_entropy(logits, labels)
        torch.testing.assert_close(found, weight * worst + (1 - weight) * clean)


def test_it_trains_with_lines(digits):
    X, X_test, y, y_test = digits
    model = RobustClassifier(
        hidden_layer_sizes=16, property=CR(0.1), max_epochs=12, lr=1e-2, random_state=0,
        training=CertifiedTraining("crown-ibp", ramp_epochs=8),
    ).fit(X, y)  # fmt: skip
    assert model.score(X_test, y_test) > 0.7
    network = as_network(model)
    found = decided(Bounds("ibp"), network, CR(0.1), network.rows(X_test), network.encode(y_test))
    assert (found.verdicts == "verified").mean() > 0.3


def test_products_of_activations_are_refused(digits):
    regime = CertifiedTraining("crown-ibp")
    module = nn.Sequential(nn.Linear(2, 3), nn.Softmax(1), nn.Linear(3, 2))
    with pytest.raises(UnsupportedModelError, match="'softmax'"):
        regime.loss(None, step(module, CR(0.1)))
    with pytest.raises(ValueError, match="Got method='crown'"):
        CertifiedTraining("crown").check(CR(0.1), digits[0])


# ---- between adversarial and interval losses -----------------------------------------------


def perceptron(n_classes=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, n_classes)).double()


def exact(asked):
    """The step, in float64, and with the same random numbers at each call."""
    generator = torch.Generator().manual_seed(0)
    return replace(asked, x=asked.x.double(), generator=generator)


@pytest.mark.parametrize("method", EXPRESSIVE)
def test_a_share_of_1_is_the_interval_loss(method):
    asked = exact(step(perceptron(), CR(0.1)))
    loss = CertifiedTraining(method, alpha=1.0, ramp_epochs=0).loss(None, asked)[0]
    torch.testing.assert_close(loss, worst_case().loss(None, asked)[0])


@pytest.mark.parametrize("method", EXPRESSIVE)
def test_a_share_of_0_is_the_adversarial_loss(method):
    module = perceptron()
    asked = exact(step(module, CR(0.1)))
    loss = CertifiedTraining(method, alpha=0.0, ramp_epochs=0).loss(None, asked)[0]
    points = exact(asked).attack(PGD(8, objective="cross-entropy"), CR(0.1))
    torch.testing.assert_close(loss, nn.functional.cross_entropy(module(points), asked.labels))


def test_combinations_by_hand():
    # z_0 - z_1 = 2 x_0 - x_1 - 0.3 is linear: the attack finds the worst point of the box.
    module = linear([[2.0, 0.0], [0.0, 1.0]], [-0.3, 0.0])
    asked = step(module, CR(0.1))
    gap = 2 * asked.x[:, 0] - asked.x[:, 1] - 0.3
    gap = torch.where(asked.labels == 0, gap, -gap) - 0.3
    for method in EXPRESSIVE:
        for share in (0.0, 0.3, 1.0):
            loss = CertifiedTraining(method, alpha=share, ramp_epochs=0).loss(None, asked)[0]
            torch.testing.assert_close(loss, torch.log1p(torch.exp(-gap)).mean())


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_losses_lie_between_the_adversarial_and_the_interval_one(share):
    asked = step(perceptron(3), CR(0.2))

    def at(method, share):
        regime = CertifiedTraining(method, alpha=share, ramp_epochs=0)
        return regime.loss(None, exact(asked))[0].item()

    low, high = at("mtl-ibp", 0.0), at("mtl-ibp", 1.0)
    assert low < high - 0.01
    assert at("mtl-ibp", share) == pytest.approx((1 - share) * low + share * high)
    # The loss is convex in the rows (De Palma et al., proposition 4.3), and rises with the box.
    assert low < at("cc-ibp", share) <= at("mtl-ibp", share) + 1e-12
    assert low - 1e-3 < at("sabr", share) < high


def test_small_boxes_lie_in_the_ball_and_in_the_domain():
    x = torch.tensor([[0.5, 0.02], [1.0, 0.3]], dtype=torch.float64)
    ball = CR(0.1).ball(x)
    points = x + torch.tensor([[0.07, -0.02], [0.0, -0.07]])
    small = _small_boxes(ball, points, 0.3)
    assert (small.lower >= ball.lower).all() and (small.upper <= ball.upper).all()
    torch.testing.assert_close(
        small.lower, torch.tensor([[0.54, 0.0], [0.97, 0.2]], dtype=torch.float64)
    )
    torch.testing.assert_close(
        small.upper, torch.tensor([[0.6, 0.03], [1.0, 0.26]], dtype=torch.float64)
    )


@pytest.mark.parametrize("method", [*EXPRESSIVE, "ibp"])
def test_gradients_are_those_of_differences(method):
    module = perceptron(3)
    asked = step(module, StandardRobustness(0.1, 0.3))
    regime = CertifiedTraining(
        method, alpha=0.4, ramp_epochs=4, clean_weight=0.2, ramp_regularization=0.5, l1=0.01
    )
    # The points of the attack follow from the weights, too, but for no gradient: held here.
    asked = exact(asked)
    points = asked.attack(PGD(8, objective="cross-entropy"), CR(0.02))
    held = replace(asked, x=asked.x)
    object.__setattr__(held, "attack", lambda attack, property: points)

    def loss():
        return regime.loss(None, held)[0]

    loss().backward()
    for weight in (module[0].weight, module[2].weight, module[2].bias):
        place = weight.grad.flatten().abs().argmax()
        found = weight.grad.flatten()[place].item()
        ends = []
        for move in (1e-6, -2e-6):
            with torch.no_grad():
                weight.flatten()[place] += move
            ends.append(loss().item())
        with torch.no_grad():
            weight.flatten()[place] += 1e-6
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-6)
        assert abs(found) > 1e-4


@pytest.mark.parametrize("method", EXPRESSIVE)
def test_it_trains_convolutions_with_batch_norm(method, digits):
    X, X_test, y, y_test = digits
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 10),
    )  # fmt: skip
    model = RobustClassifier(
        module, input_shape=(1, 8, 8), property=CR(0.05), max_epochs=12, lr=1e-2, random_state=0,
        training=CertifiedTraining(method, ramp_epochs=6, attack=PGD(3)),
    ).fit(X, y)  # fmt: skip
    assert model.score(X_test, y_test) > 0.85
    network = as_network(model)
    found = decided(Bounds(), network, CR(0.05), network.rows(X_test), network.encode(y_test))
    assert (found.verdicts == "verified").mean() > 0.5


# ---- ramps and radii ------------------------------------------------------------------------


def test_a_smooth_ramp_meets_its_parts():
    times = np.linspace(0, 1, 100_001)
    values = np.array([_smoothly(time) for time in times])
    assert values[0] == 0 and values[-1] == 1
    slopes = np.diff(values) / np.diff(times)
    assert (np.diff(slopes) > -1e-6).all() and slopes[0] < 1e-3
    # Linear after a quarter of the time: 3.25 * 0.25**3 of the first part's scale.
    np.testing.assert_allclose(slopes[25_001:], slopes[-1], rtol=1e-6)


def test_a_smooth_ramp_rises_with_each_batch():
    module = linear([[2.0, 0.0], [0.0, 1.0]], [-0.3, 0.0])
    regime = CertifiedTraining(ramp_epochs=2, ramp="smooth", clean_weight=0.2)
    for epoch, batch in ((0, 0), (0, 3), (1, 1), (1, 3), (5, 0)):
        asked = step(module, CR(0.1), epoch, batch=batch, n_steps=4)
        ramp = _smoothly(min((epoch + (batch + 1) / 4) / 2, 1))
        full = worst_case().loss(None, step(module, CR(0.1 * ramp)))[0]
        clean = nn.functional.cross_entropy(module(asked.x), asked.labels)
        weight = 1 - 0.8 * ramp
        torch.testing.assert_close(
            regime.loss(None, asked)[0], weight * clean + (1 - weight) * full
        )


def test_the_trained_radius_is_a_multiple_of_the_property():
    module = perceptron()
    asked = exact(step(module, CR([0.1, 0.05])))
    regime = CertifiedTraining(ramp_epochs=0, clean_weight=0.0, radius_factor=1.5)
    wide = worst_case().loss(None, exact(step(module, CR([0.15, 0.075]))))[0]
    torch.testing.assert_close(regime.loss(None, asked)[0], wide)


def test_l1_is_that_of_the_weights_of_affine_layers():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    asked = step(module, CR(0.1))
    plain, more = (CertifiedTraining(l1=l1).loss(None, asked)[0] for l1 in (0.0, 0.1))
    size = module[0].weight.abs().sum() + module[3].weight.abs().sum()
    torch.testing.assert_close(more, plain + 0.1 * size)


def test_a_ramp_longer_than_training_says_the_radius_reached(digits):
    X, _, y, _ = digits
    model = RobustClassifier(property=CR(0.1), training=CertifiedTraining(), max_epochs=4)
    with pytest.warns(ConvergenceWarning, match="40% of the radius"):
        model.fit(X[:100], y[:100])


@pytest.mark.parametrize(
    "name, value",
    [
        ("alpha", 1.1),
        ("alpha", -0.1),
        ("ramp", "steep"),
        ("radius_factor", 0),
        ("initialization", None),
        ("ramp_regularization", -1),
        ("l1", -1e-9),
        ("method", "taps"),
    ],
)
def test_bad_parameters_are_named(name, value, digits):
    with pytest.raises(ValueError, match=f"Got {name}="):
        CertifiedTraining(**{name: value}).check(CR(0.1), digits[0])


def test_a_search_reaches_the_attack():
    regime = CertifiedTraining("sabr")
    assert regime.get_params()["attack__n_steps"] == 8
    regime.set_params(attack__n_steps=3)
    assert regime.attack.n_steps == 3


@pytest.mark.parametrize("method", ["ibp", "sabr"])
def test_what_a_call_keeps_follows_the_radius_and_the_ramp(method):
    module = nn.Sequential(
        linear([[2.0, -1.0], [0.5, 3.0]], [0.1, -0.2]), nn.ReLU(), nn.Linear(2, 2)
    )
    regime, kept = CertifiedTraining(method, ramp_epochs=3, attack=PGD(2)), _State()
    property = CR(0.1)
    for epoch, epsilon in ((0, 0.1), (1, 0.1), (1, 0.1), (1, 0.2), (2, 0.2)):
        property.set_params(epsilon=epsilon)
        ours, alone = (
            regime.loss(
                state, step(module, property, epoch, generator=torch.Generator().manual_seed(0))
            )[0]
            for state in (kept, None)
        )
        torch.testing.assert_close(ours, alone)
