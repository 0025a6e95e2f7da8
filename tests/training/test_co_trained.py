"""Classifiers and generators that were trained together: margins, copies, interrupts, refusals."""

import pickle
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skrobust.attacks import Attack, LinearBoundary
from skrobust.exceptions import DivergedTrainingError, UnsupportedModelError
from skrobust.properties import ClassificationRobustness as CR
from skrobust.scorers import MarginRobustness
from skrobust.training import MarginCoTraining, SequentialTraining, StandardTraining
from skrobust.training._co_training import margin_ratio
from tests.training._co_training import FREE, shift, small, weights

# ---- what it is good for --------------------


def test_margins_grow_and_the_generator_fools_the_classifier(digits):
    X, X_test, y, y_test = digits
    models, margins = {}, {}
    score = MarginRobustness("l2", attack=LinearBoundary(3))
    for name, training in {"off": StandardTraining(), "on": MarginCoTraining()}.items():
        model = small(training, hidden_layer_sizes=32, max_epochs=20, batch_size=128).fit(X, y)
        assert model.score(X_test, y_test) > 0.9
        models[name], margins[name] = model, score(model, X_test)
    assert margins["on"] > 1.03 * margins["off"]
    rows = torch.tensor(X_test, dtype=torch.float32)
    with torch.no_grad():
        points = models["on"].companion_(rows)
    assert points.min() >= 0 and points.max() <= 1
    own = models["on"].predict(X_test)
    assert (models["on"].predict(points.numpy()) != own).mean() > 0.3
    # What it finds is close: half of what separates images of different labels.
    assert (points - rows).norm(dim=1).mean() < 1.5


def test_its_own_quantity_grows(digits):
    X, _, y, _ = digits
    rows, found = torch.tensor(X, dtype=torch.float32), []
    for weight in (0.0, 0.1):
        params = {"hidden_layer_sizes": 32, "max_epochs": 15, "batch_size": 128}
        model = small(MarginCoTraining(weight), **params).fit(X, y)
        module = model.net_.module_.eval()
        with torch.no_grad():
            points = model.companion_(rows)
            distance = (points - rows).norm(dim=1)
            ratio = margin_ratio(distance, module(rows), module(points), 0.1)
        found.append(ratio.mean().item())
    assert found[1] > 1.2 * found[0]


class ByGenerator(Attack):
    """Asks a trained generator."""

    def __init__(self, generator):
        self.generator = generator

    def check(self):
        return self

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        with torch.no_grad():
            return target.outcome_at(target.ball.project(self.generator(target.x)))


def test_the_generator_as_an_attack(digits):
    X, X_test, y, _ = digits
    model = small(MarginCoTraining(), max_epochs=15, batch_size=128).fit(X, y)
    attack, property = ByGenerator(model.companion_), CR(1.5, norm="l2", reference="prediction")
    points = attack.perturb(model, X_test, property=property)
    share = (model.predict(points) != model.predict(X_test)).mean()
    assert share > 0.2
    result = MarginRobustness("l2", attack=attack).evaluate(model, X_test)
    assert np.isfinite(result.radius).mean() > 0.2


# ---- images, randomness, life of the objects --------------------


def images():
    layers = [nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(3, 2))


def test_images(blobs):
    shapes = []

    def make(shape):
        shapes.append(shape)
        return nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Dropout(0.2))

    X, y = blobs
    state = torch.random.get_rng_state()
    for generator in (None, make):
        training = MarginCoTraining(generator=generator)
        model = small(training, module=images, input_shape=(1, 2, 2))
        one, other = (clone(model).fit(X, y) for _ in "ab")
        np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
        rows = torch.tensor(X, dtype=torch.float32)
        with torch.no_grad():
            points = one.companion_(rows)
            assert torch.equal(points, other.companion_(rows))
        assert points.shape == (80, 4) and points.min() >= 0 and points.max() <= 1
    assert shapes == [(1, 2, 2)] * 2
    assert torch.equal(torch.random.get_rng_state(), state)


class LaterNoise(nn.Module):
    """Begins to draw after some steps."""

    def __init__(self, shape):
        super().__init__()
        self.layer, self.calls = nn.Linear(*shape, *shape), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) + (torch.randn_like(x) if self.calls > 7 else 0)


@pytest.mark.parametrize("sequence", [False, True])
def test_draws_of_a_users_generator_are_the_fits_own(blobs, sequence):
    training = MarginCoTraining(generator=LaterNoise)
    training = SequentialTraining([training, StandardTraining()]) if sequence else training
    state = torch.random.get_rng_state()
    one, other = (small(training).fit(*blobs) for _ in "ab")
    assert torch.equal(weights(one.companion_), weights(other.companion_))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bounds_cut_the_points_and_refuse_data_outside(blobs):
    X, y = blobs
    rows, far = torch.tensor(X, dtype=torch.float32), shift(9.0, 9.0, -9.0, -9.0)
    bounds = ([0.0, 0.0, 0.0, -1.0], [1.0, 2.0, 1.0, 1.0])
    model = small(MarginCoTraining(generator=far, generator_lr=1e-9, bounds=bounds)).fit(X, y)
    with torch.no_grad():
        points = model.companion_(rows)
    torch.testing.assert_close(points, torch.tensor([1.0, 2.0, 0.0, -1.0]).expand(80, 4))
    with pytest.raises(ValueError, match="80 of 80 rows of X lie outside"):
        small(MarginCoTraining()).fit(X + 3, y)
    assert small(MarginCoTraining(bounds=None)).fit(X + 3, y).score(X + 3, y) > 0.4


def test_what_is_given_stays_as_it_was(blobs):
    generator = nn.Linear(4, 4)
    before = weights(generator).clone()
    training = MarginCoTraining(generator=generator)
    model = small(training).fit(*blobs)
    assert torch.equal(weights(generator), before) and generator.weight.grad is None
    assert model.training is training and training.generator is generator
    assert not torch.equal(weights(model.companion_), before)
    copied = clone(model)
    assert not hasattr(copied, "companion_") and copied.training.generator is not generator
    assert vars(MarginCoTraining()) == MarginCoTraining().get_params()


def test_pickles_and_copies_keep_the_generator(blobs):
    model = small(MarginCoTraining()).fit(*blobs)
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(weights(copied.companion_), weights(model.companion_))
    assert not copied.companion_.training
    assert all(p.grad is None for p in model.companion_.parameters())
    assert model.net_.kept[1].fit is None  # nor data
    copied.partial_fit(*blobs)
    assert torch.isfinite(weights(copied.companion_)).all()


def test_the_generator_goes_on_in_partial_fit(blobs):
    training = MarginCoTraining(generator=nn.Linear(4, 4))
    model = small(training)

    def n_steps():
        return next(iter(model.net_.kept[1].optimizer.state.values()))["step"].item()

    for calls in (1, 2, 3):
        model.partial_fit(*blobs)
        assert n_steps() == 4 * calls
    last = weights(model.companion_)
    training.set_params(generator_lr=1e-12)
    kept = model.companion_
    model.partial_fit(*blobs)
    torch.testing.assert_close(weights(model.companion_), last)
    assert kept is not model.companion_ and torch.equal(weights(kept), last)
    training.set_params(generator=nn.Linear(4, 4))
    model.partial_fit(*blobs)
    assert n_steps() == 4
    assert model.fit(*blobs) and n_steps() == 12
    model.set_params(training=StandardTraining()).partial_fit(*blobs)
    assert model.companion_ is None


def test_a_search_over_the_weight(blobs):
    grid = {"training__weight": [0.0, 0.05], "training__floor": [0.1, 1.0]}
    search = GridSearchCV(small(MarginCoTraining(), max_epochs=1), grid, cv=2, error_score="raise")
    search.fit(*blobs)
    assert len(set(map(str, search.cv_results_["params"]))) == 4
    assert search.best_estimator_.companion_ is not None


@pytest.mark.parametrize("after", [0, 5])
def test_an_interrupt_leaves_both_networks_usable_and_is_marked(blobs, after):
    calls = []

    class Interrupted(MarginCoTraining):
        def loss(self, state, step):
            calls.append(step)
            if len(calls) > after:
                raise KeyboardInterrupt
            return super().loss(state, step)

    model = small(Interrupted()).fit(*blobs)
    assert model.net_.stopped_midway and len(model.history_) < 3
    assert np.isfinite(model.predict_proba(blobs[0])).all()
    assert torch.isfinite(model.companion_(torch.rand(3, 4))).all()
    calls.clear()
    model.set_params(training=MarginCoTraining()).partial_fit(*blobs)
    assert not model.net_.stopped_midway


# ---- bad input --------------------


def _no_optimizer(parameters, lr):
    return None


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"weight": -0.1}, ValueError, "Got weight=-0.1, but expected a finite number in [0"),
        ({"floor": 0}, ValueError, "Got floor=0, but expected a finite number in (0"),
        ({"floor": np.nan}, ValueError, "Got floor=nan"),
        ({"generator_lr": 0.0}, ValueError, "Got generator_lr=0.0, but expected a finite number"),
        ({"generator_lr": None}, ValueError, "Got generator_lr=None"),
        ({"generator": "cnn"}, TypeError, "Got generator='cnn', but expected None, a torch.nn.M"),
        ({"generator_optimizer": "Adam"}, TypeError, "Got generator_optimizer='Adam', but exp"),
        ({"generator_optimizer": _no_optimizer}, TypeError, "Got generator_optimizer(...)=None"),
        ({"generator_optimizer": int}, ValueError, "Got generator_optimizer="),
        ({"bounds": (1.0, 0.0)}, ValueError, "Got bounds=(1.0, 0.0), but expected low <= high"),
        ({"bounds": ([0.0] * 3, 1.0)}, ValueError, "Got bounds=arrays of shapes (3,) and ()"),
        ({"generator": nn.Linear(3, 3)}, ValueError, "Got generator=Linear(in_features=3"),
        ({"generator": nn.Linear(4, 3)}, ValueError, "to points of that shape, not to torch.flo"),
        ({"generator": nn.Linear(4, 4).double()}, ValueError, "Got generator=Linear("),
        ({"generator": nn.Identity()}, ValueError, "expected a network with parameters to train"),
        ({"generator": nn.LSTM(4, 4)}, TypeError, "of that shape, not to a tuple"),
        ({"generator": lambda shape: shape}, TypeError, "returns a torch.nn.Module, not a tuple"),
        ({"generator": lambda: nn.Identity()}, ValueError, "which fails, but expected a functi"),
    ],
)
def test_bad_parameters_are_named(blobs, params, error, message):
    with pytest.raises(error, match=re.escape(message)):
        small(MarginCoTraining(**params)).fit(*blobs)


def test_a_generator_that_diverges_is_named(blobs):
    training = MarginCoTraining(generator=nn.Linear(4, 4), generator_lr=1e30, **FREE)
    with pytest.raises(DivergedTrainingError, match="of the generator became"):
        small(training, max_epochs=1).fit(*blobs)


def test_a_module_that_returns_something_else_while_it_trains_is_named(blobs):
    class Two(nn.Linear):
        def forward(self, x):
            logits = super().forward(x)
            return (logits, x) if self.training else logits

    with pytest.raises(UnsupportedModelError, match="returns a tuple in training mode"):
        small(MarginCoTraining(), module=Two(4, 2)).fit(*blobs)
