"""Tests of the training of networks of distances: the loss by hand, and what it achieves."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import RobustClassifier
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import LinfDistanceNetwork
from skrobust.properties import ClassificationRobustness as CR
from skrobust.properties import LipschitzRobustness, StandardRobustness
from skrobust.training import LinfDistanceTraining, TrainingFit, TrainingStep
from skrobust.verification import Bounds


def fit_of(module, optimizer=None):
    return TrainingFit(
        module, torch.rand(6, 2), torch.zeros(6, dtype=torch.long), np.arange(2), CR(0.1),
        optimizer=optimizer, max_epochs=10, n_epochs=10,
    )  # fmt: skip


def step(module, epoch=0, property=None):
    x = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 2
    return TrainingStep(
        module, nn.CrossEntropyLoss(), x, labels, property or CR(0.1), epoch, max_epochs=10
    )


def test_the_loss_by_hand():
    module = LinfDistanceNetwork(2, 2, 4, random_state=0)
    regime = LinfDistanceTraining(margin=2.0, weight_start=0.3, weight_end=0.01)
    state = regime.start(fit_of(module))
    for epoch, weight in ((0, 0.3), (9, 0.01)):
        asked = step(module, epoch)
        loss, logits = regime.loss(state, asked)
        margins = logits.gather(1, asked.labels[:, None]) - logits.gather(
            1, 1 - asked.labels[:, None]
        )
        # Two logits move by 0.1 each, and twice that is asked for.
        hinge = (1 - margins / 0.4).clamp(0, 1).mean()
        task = nn.functional.cross_entropy(logits, asked.labels)
        torch.testing.assert_close(loss, weight * task + hinge)


def test_p_rises_to_infinity():
    module = LinfDistanceNetwork(2, 2, 4, random_state=0)
    regime = LinfDistanceTraining(p_start=4, p_end=64, final=0.2)
    state = regime.start(fit_of(module))
    seen = []
    for epoch in range(10):
        regime.loss(state, step(module, epoch))
        seen.append(module.layers[0].p)
    assert seen[0] == 4 and seen[8:] == [math.inf] * 2
    assert seen[:9] == sorted(set(seen))
    assert 4 * (64 / 4) ** 0.8 < seen[7] < 64
    regime.loss(state, step(module, 3))
    regime.finish(state)
    assert all(layer.p == math.inf for layer in module.layers)


def test_the_scale_learns_and_the_rate_falls():
    module = LinfDistanceNetwork(2, 2, 4, random_state=0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    regime = LinfDistanceTraining(scale_lr=0.1)
    state = regime.start(fit_of(module, optimizer))
    for epoch in (0, 5):
        regime.loss(state, step(module, epoch))[0].backward()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (1 + math.cos(math.pi / 2)) / 2)
    assert abs(state.scale.item()) == pytest.approx(0.1, rel=1e-3)  # one step of Adam
    plain = LinfDistanceTraining(decay="none")
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    plain.loss(plain.start(fit_of(module, optimizer)), step(module, 5))
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_rows_of_standard_robustness_are_trained_too():
    module = LinfDistanceNetwork(2, 2, 4, random_state=0)
    asked = step(module, property=StandardRobustness(0.1, delta=0.5))
    loss, _ = LinfDistanceTraining().loss(LinfDistanceTraining().start(fit_of(module)), asked)
    loss.backward()
    assert torch.isfinite(loss)


def test_it_certifies_more_than_intervals_could(digits):
    X, X_test, y, y_test = digits
    model = RobustClassifier(
        LinfDistanceNetwork(64, 10, 64, spread=0.37, center=0.3), max_epochs=25, lr=0.03,
        batch_size=64, property=CR(0.1), training=LinfDistanceTraining(margin=2.0),
        optimizer_params={"betas": (0.9, 0.99)}, random_state=0,
    ).fit(X, y)  # fmt: skip
    result = Bounds("ibp").verify(model, X_test, y_test, property=CR(0.1))
    assert model.score(X_test, y_test) > 0.8
    assert (result.verdicts == "verified").mean() > 0.6
    margins = np.sort(model.net_.module_.eval()(torch.as_tensor(X_test).float()).detach(), axis=1)
    # Where the margin is above two radii, the proof is there.
    is_wide = (margins[:, -1] - margins[:, -2] > 0.2 + 1e-6) & (model.predict(X_test) == y_test)
    assert (result.verdicts[is_wide] == "verified").all()


def test_the_same_seed_gives_the_same_weights(digits):
    X, _, y, _ = digits
    models = [
        RobustClassifier(
            LinfDistanceNetwork, module_params={"n_features": 64, "n_classes": 10},
            max_epochs=2, property=CR(0.1), training=LinfDistanceTraining(), random_state=1,
        ).fit(X[:200], y[:200])
        for _ in range(2)
    ]  # fmt: skip
    weights = [[w.detach() for w in model.net_.module_.parameters()] for model in models]
    assert all(map(torch.equal, *weights))


def test_what_has_no_distances_is_refused(digits):
    X, _, y, _ = digits
    model = RobustClassifier(property=CR(0.1), training=LinfDistanceTraining())
    with pytest.raises(UnsupportedModelError, match="layers of distances"):
        model.fit(X, y)
    regime = LinfDistanceTraining()
    with pytest.raises(UnsupportedPropertyError, match="norm='linf'"):
        regime.check(CR(0.1, norm="l2"), X)
    with pytest.raises(UnsupportedPropertyError, match="LinfDistanceTraining expects rows"):
        regime.check(LipschitzRobustness(0.1), X)


@pytest.mark.parametrize(
    "name, value",
    [
        ("margin", 0),
        ("p_start", 0.5),
        ("p_end", 2),
        ("final", 1.5),
        ("weight_start", 0.0001),
        ("weight_end", 0),
        ("scale_lr", -1),
        ("decay", "steps"),
    ],
)
def test_bad_parameters_are_named(name, value, digits):
    with pytest.raises(ValueError, match=f"Got {name}="):
        LinfDistanceTraining(**{name: value}).check(CR(0.1), digits[0])
