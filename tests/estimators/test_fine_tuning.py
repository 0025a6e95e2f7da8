"""Fine-tuning in rounds: what is added, what is kept, and that it helps by its own measure."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skrobust import RobustClassifier, pointwise_robustness
from skrobust.attacks import FGSM, PGD, LinearBoundary
from skrobust.estimators import AdversarialFineTuning, _fine_tuning
from skrobust.exceptions import AttackWarning
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness as CR
from skrobust.scorers import AdversarialFrequency, ConstraintAccuracy, ConstraintSecurity
from tests.estimators._models import same, small, tuning, weights

# ---- what it is for --------------------


def test_fine_tuning_lowers_the_frequency_by_its_own_measure(digits):
    X, X_test, y, y_test = digits
    base = RobustClassifier(hidden_layer_sizes=32, max_epochs=60, random_state=0)
    base.fit(X[:500], y[:500])
    tuned = AdversarialFineTuning(FrozenEstimator(base), rounds=2, rounding=16, random_state=0)
    tuned.fit(X[:500], y[:500])
    frequency = AdversarialFrequency(0.1)
    assert frequency(tuned, X_test, y_test) > frequency(base, X_test, y_test) + 0.03
    assert tuned.score(X_test, y_test) > base.score(X_test, y_test) - 0.03
    assert tuned.n_rounds_ == 2
    assert tuned.n_examples_.shape == tuned.seconds_.shape == tuned.distance_.shape == (2,)
    assert (tuned.n_examples_ > 400).all() and (tuned.seconds_ > 0).all()
    assert tuned.rounding_loss_.max() < 0.1


# ---- what a round does --------------------


def test_what_is_added_is_mislabeled_and_keeps_the_label_of_its_sample(blobs, monkeypatch):
    X, y = blobs
    seen = []
    continued = RobustClassifier._continue

    def watched(self, points, labels, weight, n_epochs, origin):
        seen.append((points, labels, weight, n_epochs, self.net_.optimizer_.param_groups[0]["lr"]))
        return continued(self, points, labels, weight, n_epochs, origin)

    monkeypatch.setattr(RobustClassifier, "_continue", watched)
    base = small(max_epochs=20, lr=0.05).fit(X, y)
    model = tuning(FrozenEstimator(base), rounds=2, lr_factor=0.2).fit(X, y)
    right = base.predict(X) == y
    points, labels, weight, n_epochs, lr = seen[0]
    assert (weight, n_epochs) == (None, 2)
    assert lr == pytest.approx(0.01)
    np.testing.assert_array_equal(points[:80], X)
    np.testing.assert_array_equal(labels, np.concatenate([y, y[right]]))
    assert (base.predict(points[80:]) != y[right]).all()
    # Of the closest there are in the ball of each original point.
    exact = pointwise_robustness(base, X[right], method="exact").radius
    distance = np.abs(points[80:] - X[right]).max(axis=1)
    assert (distance >= exact - 1e-3).all()
    np.testing.assert_allclose(np.median(distance), np.median(exact), rtol=0.2)
    assert model.distance_[0] == pytest.approx(np.median(distance))
    assert model.n_examples_[0] == right.sum()
    # The second round starts from the original points again, and keeps the first ones' examples.
    points, labels, _, _, lr = seen[1]
    assert lr == pytest.approx(0.01)
    assert len(points) == 80 + model.n_examples_.sum() == len(labels)
    np.testing.assert_array_equal(points[: len(seen[0][0])], seen[0][0])
    # What was given stays as it was.
    assert base.net_.optimizer_.param_groups[0]["lr"] == 0.05
    assert len(base.history_) == 20 and len(model.estimator_.history_) == 24


def test_examples_of_earlier_rounds_can_be_left_out(blobs, monkeypatch):
    sizes = []
    continued = RobustClassifier._continue

    def watched(self, points, *rest):
        sizes.append(len(points))
        return continued(self, points, *rest)

    monkeypatch.setattr(RobustClassifier, "_continue", watched)
    model = tuning(rounds=3, keep_examples=False).fit(*blobs)
    assert sizes == (80 + model.n_examples_).tolist()


def test_rounding_and_what_it_destroys(blobs):
    X, y = np.round(blobs[0] * 10) / 10, blobs[1]
    base = small(max_epochs=20, lr=0.05).fit(X, y)
    losses = []
    for margin in (0.0, 1.0):
        params = {"margin": margin, "n_epochs": 1, "warm_start": True}
        model = tuning(FrozenEstimator(base), rounding=10, **params).fit(X, y)
        points = model._finished[0].points
        np.testing.assert_allclose(points * 10, np.round(points * 10), atol=1e-9)
        unrounded = tuning(FrozenEstimator(base), **params).fit(X, y)
        before = unrounded._finished[0]
        labels = y[before.origin]
        survive = base.predict(np.round(before.points * 10) / 10) != labels
        assert model.rounding_loss_[0] == pytest.approx(1 - survive.mean())
        assert model.n_examples_[0] == survive.sum()
        assert unrounded.rounding_loss_[0] == 0
        losses.append(model.rounding_loss_[0])
    # The margin is what examples survive by.
    assert losses[1] < losses[0] - 0.1


def test_weights_go_with_the_samples(blobs, monkeypatch):
    X, y = blobs
    seen = []
    continued = RobustClassifier._continue

    def watched(self, points, labels, weight, n_epochs, origin):
        seen.append(weight)
        return continued(self, points, labels, weight, n_epochs, origin)

    monkeypatch.setattr(RobustClassifier, "_continue", watched)
    weight = np.linspace(0, 2, 80)
    model = tuning(warm_start=True).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(seen[0][:79], weight[1:])  # one of weight 0 is left out
    np.testing.assert_array_equal(seen[0][79:], weight[1:][model._finished[0].origin])
    balanced = tuning(small(class_weight="balanced", max_epochs=5)).fit(X, y)
    assert balanced.n_rounds_ == 1


# ---- rounds go on --------------------


@pytest.mark.parametrize("attack", [LinearBoundary(), PGD(5)], ids=repr)
def test_rounds_one_by_one_are_the_rounds_at_once(blobs, attack):
    whole = tuning(attack=attack, rounds=3).fit(*blobs)
    parts = tuning(attack=attack, warm_start=True)
    for rounds in (1, 2, 3):
        parts.set_params(rounds=rounds).fit(*blobs)
        assert parts.n_rounds_ == rounds
        parts = pickle.loads(pickle.dumps(parts))
    assert same(weights(whole.estimator_), weights(parts.estimator_))
    np.testing.assert_array_equal(whole.n_examples_, parts.n_examples_)
    # Nothing is left to do, and less cannot be asked for.
    before = weights(parts.estimator_)
    assert same(weights(parts.fit(*blobs).estimator_), before)
    with pytest.raises(ValueError, match="Got rounds=2, but expected at least 3, the rounds that"):
        parts.set_params(rounds=2).fit(*blobs)
    # Without warm_start all begins again.
    again = parts.set_params(rounds=1, warm_start=False).fit(*blobs)
    assert again.n_rounds_ == 1


@pytest.mark.parametrize("where", ["search", "training", "first fit"])
def test_an_interrupt_keeps_the_rounds_that_are_finished(blobs, monkeypatch, where):
    whole = tuning(rounds=3).fit(*blobs)
    calls = {"search": 0, "steps": 0}
    search, step = _fine_tuning.closest_examples, RobustClassifier._continue

    def interrupted(*args, **kwargs):
        calls["search"] += 1
        if where == "search" and calls["search"] == 2:
            raise KeyboardInterrupt
        return search(*args, **kwargs)

    def in_training(self, *args):
        calls["steps"] += 1
        if where == "training" and calls["steps"] == 2:
            self.net_.train_step = stop
        return step(self, *args)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_fine_tuning, "closest_examples", interrupted)
    monkeypatch.setattr(RobustClassifier, "_continue", in_training)
    model = tuning(rounds=3, warm_start=True)
    if where == "first fit":
        monkeypatch.setattr("skrobust.estimators._skorch.RegimeNet.train_step", stop)
        model.fit(*blobs)
        assert model.n_rounds_ == 0
        assert model.predict(blobs[0]).shape == (80,)
    else:
        model.fit(*blobs)
        assert model.n_rounds_ == 1
        one = tuning(rounds=1).fit(*blobs)
        assert same(weights(model.estimator_), weights(one.estimator_))
    monkeypatch.undo()
    # It goes on with the round that was lost, or with the training before the first one.
    assert same(weights(model.fit(*blobs).estimator_), weights(whole.estimator_))


def test_nothing_found_says_so_and_leaves_the_network(blobs):
    X, y = blobs
    base = small().fit(X, y)
    model = tuning(FrozenEstimator(base), rounds=2, epsilon_max=1e-6)
    with pytest.warns(AttackWarning, match="No adversarial example was found in round 1"):
        model.fit(X, y)
    assert same(weights(model.estimator_), weights(base))
    assert model.n_rounds_ == len(model.n_examples_) == len(model.rounding_loss_) == 0
    # Nor where all are misclassified from the start.
    with pytest.warns(AttackWarning, match="No adversarial example was found in round 1"):
        tuning(FrozenEstimator(small().fit(X, y))).fit(X, 1 - base.predict(X))


def test_rounding_that_destroys_all_says_so_and_is_recorded(blobs):
    X, y = np.round(blobs[0]), blobs[1]
    base = small(max_epochs=20, lr=0.05).fit(*blobs)
    model = tuning(FrozenEstimator(base), rounding=1, epsilon_max=0.9, warm_start=True)
    right = base.predict(X) == y
    with pytest.warns(
        AttackWarning, match=r"[1-9]\d* adv.* round 1, but rounding destroyed"
    ) as caught:
        model.fit(X[right], y[right])
    assert caught[0].filename == __file__
    assert model.n_rounds_ == len(model.n_examples_) == 0
    assert model.rounding_loss_.tolist() == [1.0]
    assert same(weights(model.estimator_), weights(base))
    # The round is done after all, with other parameters.
    model.set_params(rounding=None).fit(X[right], y[right])
    assert model.rounding_loss_.tolist() == [0.0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_rounding_moves_out_of_the_ball_is_left_out(monkeypatch, dtype):
    X = np.array([[1], [2], [3], [4], [6], [7], [8], [9]], dtype=dtype) / 10
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    base = small(max_epochs=60, lr=0.1).fit(X, y)
    assert base.score(X, y) == 1
    towards = np.where(y == 0, 1, -1)[:, None]
    step = np.tile([[0.54], [0.56]], (4, 1))

    def found(*args, **kwargs):
        return X + towards * step  # 0.5 away when it is rounded, or 0.6

    monkeypatch.setattr(_fine_tuning, "closest_examples", found)
    for epsilon_max, moved in ((0.5, [0.5]), (0.56, [0.5]), (0.6, [0.5, 0.6])):
        model = tuning(
            FrozenEstimator(base), epsilon_max=epsilon_max, rounding=10, warm_start=True
        ).fit(X, y)
        kept = model._finished[0]
        away = np.abs(kept.points - X[kept.origin])
        np.testing.assert_allclose(np.unique(away.round(4)), moved, rtol=1e-6)
        assert model.rounding_loss_[0] == 1 - len(kept.points) / kept.n_found


# ---- scikit-learn's habits --------------------


def test_parameters_are_nested_and_cloned():
    model = tuning().set_params(estimator__max_epochs=7, attack__n_steps=3, rounds=4)
    copied = clone(model)
    assert copied.estimator.max_epochs == 7 and copied.attack.n_steps == 3
    assert copied.estimator is not model.estimator
    assert "estimator__property" in model.get_params()


def test_what_is_read_of_it_is_that_of_the_tuned_classifier(blobs):
    X, y = blobs
    labels = np.array(["no", "yes"])[y]
    model = tuning().fit(X, labels)
    assert model.classes_.tolist() == ["no", "yes"] and model.n_features_in_ == 4
    inner = model.estimator_
    for name in ("predict", "predict_proba", "decision_function"):
        np.testing.assert_array_equal(getattr(model, name)(X), getattr(inner, name)(X))
    assert model.score(X, labels) == inner.score(X, labels)
    rows = torch.as_tensor(X, dtype=torch.float32)
    assert torch.equal(as_network(model)(rows), as_network(inner)(rows))
    for scorer in (
        ConstraintSecurity(CR(0.05), random_state=0),
        ConstraintAccuracy(CR(0.05), random_state=0),
        AdversarialFrequency(0.1),
    ):
        assert scorer(model, X, labels) == scorer(inner, X, labels)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    np.testing.assert_array_equal(copied.predict(X), model.predict(X))


def test_not_fitted():
    for use in (
        lambda model: model.predict([[0.0]]),
        lambda model: model.n_rounds_,
        lambda model: model.n_examples_,
        as_network,
    ):
        with pytest.raises(NotFittedError):
            use(tuning())


def test_around_and_inside_of_a_pipeline(blobs):
    X, y = blobs
    outside = make_pipeline(FunctionTransformer(), tuning()).fit(X, y)
    assert as_network(outside)(torch.as_tensor(X, dtype=torch.float32)).shape == (80, 2)
    # The other way round, examples are made and rounded in the space of the raw inputs.
    scaled = make_pipeline(StandardScaler(), small(max_epochs=20, lr=0.05))
    model = tuning(scaled, margin=0.5, rounding=100, warm_start=True)
    model.fit(X, y, np.linspace(0.5, 1.5, 80))
    assert model.n_rounds_ == 1
    points = model._finished[0].points
    np.testing.assert_allclose(points * 100, np.round(points * 100), atol=1e-4)
    assert model.predict(X).shape == (80,)


def test_in_a_search(blobs):
    X, y = blobs
    frozen = FrozenEstimator(small(max_epochs=20, lr=0.05).fit(X, y))
    grid = {"rounds": [1, 2], "margin": [0.0, 0.5]}
    search = GridSearchCV(tuning(frozen, n_epochs=1), grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4


def test_data_frames(blobs):
    pd = pytest.importorskip("pandas")
    X, y = blobs
    frame = pd.DataFrame(X, columns=list("abcd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tuning().fit(frame, y)
        np.testing.assert_array_equal(model.predict(frame), tuning().fit(X, y).predict(X))
    assert model.feature_names_in_.tolist() == list("abcd")


@pytest.mark.parametrize("attack", ["lp", PGD(5, n_restarts=2)], ids=repr)
def test_fits_in_threads_are_the_serial_fit(blobs, attack):
    def outputs():
        return tuning(attack=attack, n_epochs=1).fit(*blobs).predict_proba(blobs[0])

    serial = outputs()
    for threaded in Parallel(3, backend="threading")(delayed(outputs)() for _ in range(3)):
        np.testing.assert_array_equal(threaded, serial)


# ---- bad input --------------------

GOOD = np.random.default_rng(0).random((20, 3))
LABELS = np.arange(20) % 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rounds": 0}, "Got rounds=0, but expected an integer of at least 1"),
        ({"margin": -0.1}, r"Got margin=-0.1, but expected a finite number in \[0, inf\)"),
        ({"lr_factor": 0}, r"Got lr_factor=0, but expected a finite number in \(0, inf\)"),
        ({"n_epochs": 0}, "Got n_epochs=0, but expected an integer of at least 1"),
        ({"epsilon_max": 0}, "Got epsilon_max=0, but expected a finite number"),
        ({"bounds": None}, "Got epsilon_max=None, but expected a positive float where bounds"),
        ({"bounds": (0, 0.5)}, "rows of X lie outside"),
        ({"bounds": (0, 1.5), "rounding": 3}, r"Got rounding=3, but expected a lattice k / roun"),
        ({"bounds": (-0.25, 1), "rounding": 255}, "Got rounding=255, but expected a lattice"),
        ({"rounding": 0}, "Got rounding=0, but expected an integer of at least 1"),
        ({"targets": 2}, r"Got targets=2, but expected 'runner-up', 'all', or one of the cla"),
        ({"targets": 2, "attack": "lp"}, "Got targets=2, but expected 'runner-up', 'all', or"),
        ({"targets": "all"}, r"Got targets='all', but expected 'runner-up' with attack=LinearB"),
        ({"targets": 1, "attack": "lbfgs"}, "Got targets=1, but expected 'runner-up' with att"),
        ({"verbose": "x"}, "Got verbose='x', but expected an integer of at least 0"),
        ({"targets": "last"}, "Got targets='last', but expected 'runner-up'"),
        ({"attack": "exact"}, "Got attack='exact', but expected one of 'lp', 'polished', 'lb"),
        ({"keep_examples": 1}, "Got keep_examples=1, but expected True or False"),
        ({"warm_start": "no"}, "Got warm_start='no', but expected True or False"),
        ({"random_state": -1}, "Got random_state=-1, but expected None, an integer"),
    ],
)
def test_bad_parameters_are_refused_before_training(params, message):
    model = tuning().set_params(**params)
    model.estimator = _Untrainable()
    with pytest.raises(ValueError, match=message):
        model.fit(GOOD, LABELS)


class _Untrainable(RobustClassifier):
    def fit(self, X, y, sample_weight=None):
        raise AssertionError("training began")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"estimator": LogisticRegression()}, "Got estimator=.*, but expected a RobustClassifier"),
        ({"estimator": None}, "Got estimator=None, but expected a RobustClassifier"),
        (
            {"estimator": make_pipeline(StandardScaler(), LogisticRegression())},
            "Got estimator=.*, but expected a RobustClassifier",
        ),
        ({"attack": None}, r"Got attack=None, but expected an Attack, such as PGD\(\)"),
    ],
)
def test_bad_parts(params, message):
    with pytest.raises(TypeError, match=message):
        tuning().set_params(**params).fit(GOOD, LABELS)


def test_labels_that_a_fitted_estimator_does_not_know(blobs):
    frozen = FrozenEstimator(small().fit(*blobs))
    with pytest.raises(ValueError, match=r"Got y with labels .2., but expected labels among"):
        tuning(frozen).fit(blobs[0], blobs[1] + 1)
    with pytest.raises(NotFittedError):
        tuning(FrozenEstimator(small())).fit(*blobs)


def test_targets_are_the_classes_of_the_network(blobs):
    X, y = blobs
    rows, labels = np.r_[X, X[:20] * 0.1], np.r_[y, np.full(20, 2)]
    frozen = FrozenEstimator(small(max_epochs=20, lr=0.05).fit(rows, labels))
    model = tuning(frozen, "lp", targets=2, n_epochs=1).fit(X[:20], y[:20])
    assert model.n_rounds_ == 1
    expectation = r"one of the classes \[0, 1, 2\]"
    with pytest.raises(ValueError, match=f"Got targets=3, but expected .*{expectation}"):
        tuning(frozen, "lp", targets=3).fit(X[:20], y[:20])
    # No class, since its samples have no weight.
    with pytest.raises(ValueError, match="Got targets=2, but expected"):
        tuning(attack="lp", targets=2).fit(rows, labels, (labels < 2).astype(float))


def test_the_words_for_methods_are_those_of_attacks(blobs):
    for attack in ("lbfgs", FGSM()):
        model = tuning(attack=attack, n_epochs=1, epsilon_max=0.3)
        model.fit(blobs[0][:12], blobs[1][:12])
        assert model.n_examples_[0] > 3
