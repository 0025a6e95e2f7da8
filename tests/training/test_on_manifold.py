"""On-manifold training: its quantities by hand, its points, autoencoders of every kind."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from skorch.dataset import ValidSplit

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.estimators import Autoencoder
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import LatentSpace
from skrobust.scorers import ManifoldRobustness
from skrobust.training import OnManifoldTraining, SequentialTraining, StandardTraining
from skrobust.training._divergence import cross_entropy
from skrobust.training._on_manifold import _Manifold, radius_weights
from tests.training._steps import WEIGHT, Watched, linear, step, task_loss, worst_points


class Double(torch.nn.Module):
    """Codes are twice the rows."""

    def encode(self, x):
        return 2 * x

    def decode(self, z):
        return z / 2


class OneCode(torch.nn.Module):
    """The code of a row is one number, without an axis of its own."""

    def encode(self, x):
        return x.mean(dim=1)

    def decode(self, z):
        return z.unsqueeze(1).expand(-1, 2)


class Line:
    """Arrays alone: the code of a row is its first entry."""

    def encode(self, X):
        return X[:, 0]

    def decode(self, Z):
        return np.stack([Z, Z], axis=1)


def manifold(autoencoder=None, n_features=2, bounds=None):
    return _Manifold(LatentSpace(autoencoder or Double(), bounds), n_features)


def drawing(given, seed=0):
    return replace(given, generator=torch.Generator().manual_seed(seed))


def small(training, **params):
    defaults = {"hidden_layer_sizes": 8, "max_epochs": 3, "random_state": 0, "batch_size": 20}
    return RobustClassifier(training=training, **(defaults | params))


@pytest.fixture(scope="module")
def codes(digits):
    """A Wasserstein autoencoder of the digits."""
    X, *_ = digits
    return Autoencoder(
        8, loss="wasserstein", bounds=(0, 1), max_epochs=30, random_state=0
    ).fit(X)  # fmt: skip


# ---- R4 ------------------------------------------------------------------------------------


def r4(distances, values):
    """Equations 8 and 9 for one sample, one radius at a time."""
    near = [values[distances <= radius].mean() / radius for radius in distances]
    return sum(near) / len(near)


def test_weights_of_radii_by_hand():
    # Radius 1 holds the first point, 2 both: (1 + 1 / 4) / 2 and (1 / 4) / 2.
    weights = radius_weights(torch.tensor([[2.0, 1.0]]), 0.1)
    torch.testing.assert_close(weights, torch.tensor([[0.125, 0.625]]))
    # At one distance, or below the least one, points count alike: each radius holds both.
    for same in (torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.0]])):
        torch.testing.assert_close(radius_weights(same, 0.5), torch.tensor([[1.0, 1.0]]))


@given(st.lists(st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0, 2.0]), min_size=1, max_size=7))
def test_weights_of_radii_are_those_of_the_equations(distances):
    distances = torch.tensor(distances, dtype=torch.float64)
    values = torch.rand(len(distances), generator=torch.Generator().manual_seed(0)).double()
    weights = radius_weights(distances[None], 1e-3)[0]
    torch.testing.assert_close((weights * values).sum(), r4(distances, values))
    torch.testing.assert_close(weights.sum(), (1 / distances).mean())


def test_weights_give_the_score_of_the_scorer(digits, codes, digits_model):
    _, X, *_ = digits
    result = ManifoldRobustness(codes, 0.5, n_samples=20, random_state=0).evaluate(digits_model, X)
    weights = radius_weights(torch.tensor(result.distances), 1e-9).numpy()
    np.testing.assert_allclose((weights * result.keeps).sum(axis=1), result.values, rtol=1e-9)


def test_points_have_noise_in_units_of_the_codes():
    x = torch.full((3, 2), 0.5)
    generator = torch.Generator().manual_seed(0)
    points = manifold().noisy_points(x, 0.4, 20_000, generator)
    assert points.shape == (3, 20_000, 2)
    torch.testing.assert_close(points.mean(dim=1), x, atol=0.01, rtol=0)
    torch.testing.assert_close(points.std(dim=1), torch.full((3, 2), 0.2), atol=0.01, rtol=0)
    cut = manifold(bounds=(0.4, 0.6)).noisy_points(x, 5.0, 50, generator)
    assert cut.min().item() == pytest.approx(0.4) and cut.max().item() == pytest.approx(0.6)
    line = manifold(Line()).noisy_points(x, 0.4, 7, generator)
    assert line.shape == (3, 7, 2) and torch.equal(line[..., 0], line[..., 1])


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_the_loss_is_the_task_and_the_weighted_disagreement(weight):
    module = Watched(linear(WEIGHT))
    given, state = drawing(step(module)), manifold()
    regime = OnManifoldTraining(state.latent.autoencoder, weight=weight, sigma=0.5, n_points=4)
    loss, logits = regime.loss(state, given)
    points = state.noisy_points(given.x, 0.5, 4, torch.Generator().manual_seed(0))
    terms = []
    for x, near in zip(given.x, points, strict=True):
        p, q = module(x[None]).softmax(1), module(near).log_softmax(1)
        terms.append(r4((near - x).norm(dim=1), -(p * q).sum(dim=1)))
    expected = task_loss(module, given.x, given.labels) + weight * torch.stack(terms).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, module(given.x))
    assert len(module.training_inputs[0]) == 5 + 5 * 4  # one forward pass


def test_short_distances_count_as_the_least_one():
    given = drawing(step(linear(WEIGHT)))
    task = task_loss(given.module, given.x, given.labels)
    regime = OnManifoldTraining(Double(), sigma=1e-9, min_distance=0.5)
    loss, _ = regime.loss(manifold(), given)
    entropy = cross_entropy(given.logits, given.logits).mean()
    torch.testing.assert_close(loss, task + entropy / 0.5)


def test_weights_of_samples():
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5])
    each = torch.nn.CrossEntropyLoss(reduction="none")
    given = replace(drawing(step(linear(WEIGHT))), sample_weight=weight, criterion=each)
    loss, _ = OnManifoldTraining(Double(), min_distance=1.0, sigma=1e-9).loss(manifold(), given)
    logits = given.logits
    losses = each(logits, given.labels) + cross_entropy(logits, logits)
    torch.testing.assert_close(loss, (weight * losses).mean())


def quantity(model, X, latent, sigma=0.06):
    """The term of R4 at held-out rows, with the same draws for every model."""
    module, x = model.net_.module_.eval(), torch.as_tensor(X)
    points = _Manifold(latent, X.shape[1]).noisy_points(
        x, sigma, 20, torch.Generator().manual_seed(0)
    )
    weights = radius_weights((points - x[:, None]).norm(dim=2), 0.01)
    with torch.no_grad():
        near = module(points.flatten(0, 1)).view(*weights.shape, -1)
        return (weights * cross_entropy(module(x)[:, None], near)).sum(dim=1).mean().item()


def test_r4_training_lowers_its_own_quantity_and_raises_the_score(digits, codes):
    X, X_test, y, y_test = digits
    latent, found, scores = LatentSpace(codes, (0.0, 1.0)), {}, {}
    regimes = {"off": StandardTraining(), "on": OnManifoldTraining(codes)}
    for name, training in regimes.items():
        model = small(training, hidden_layer_sizes=32, max_epochs=10, batch_size=128).fit(X, y)
        found[name] = quantity(model, X_test, latent)
        scorer = ManifoldRobustness(codes, n_samples=20, random_state=0)
        scores[name] = scorer.evaluate(model, X_test).normalized
        assert model.score(X_test, y_test) > 0.85
    assert found["on"] < 0.8 * found["off"]
    assert scores["on"] > scores["off"] + 0.005


# ---- adversarial -----------------------------------------------------------------------------


def test_worst_points_of_a_linear_network():
    module = linear(WEIGHT)
    given = drawing(step(module))
    found = manifold().worst_points(given, PGD(20, objective="cross-entropy"), 0.2)
    # A radius of 0.2 in the codes is one of 0.1 in the inputs.
    truth = worst_points(WEIGHT, given.x, given.labels, 0.1)
    torch.testing.assert_close(found, truth, atol=1e-3, rtol=0)
    assert not found.requires_grad


@pytest.mark.parametrize("clean_weight", [0.0, 0.3, 1.0])
def test_the_loss_at_both_points(clean_weight):
    given, state = drawing(step(linear(WEIGHT))), manifold()
    regime = OnManifoldTraining(
        Double(), method="adversarial", eta=0.2, clean_weight=clean_weight, attack=PGD(20)
    )
    loss, logits = regime.loss(state, given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    clean, attacked = (task_loss(given.module, x, given.labels) for x in (given.x, worst))
    torch.testing.assert_close(
        loss, clean_weight * clean + (1 - clean_weight) * attacked, atol=2e-3, rtol=0
    )
    assert logits.shape == (5, 2) and loss.requires_grad


class Recording(PGD):
    """PGD that keeps where it starts and ends."""

    runs = []  # noqa: RUF012

    def points(self, target, *, generator=None):
        found = super().points(target, generator=generator)
        self.runs.append((target.x, found))
        return found


def test_found_codes_stay_within_eta_and_raise_the_loss(digits, codes, digits_model):
    X, _, y, _ = digits
    module = copy.deepcopy(digits_model.net_.module_).train()
    given = drawing(replace(step(linear(WEIGHT)), module=module, x=torch.as_tensor(X[:200])))
    given = replace(given, labels=torch.as_tensor(y[:200]))
    state = manifold(codes, 64, (0.0, 1.0))
    Recording.runs.clear()
    worst = state.worst_points(given, Recording(10, objective="cross-entropy"), 0.3)
    [(start, found)] = Recording.runs
    torch.testing.assert_close(start, torch.as_tensor(codes.transform(X[:200])))
    moved = (found - start).abs().max(dim=1).values
    assert moved.max() <= 0.3 + 1e-6 and moved.median() > 0.29
    torch.testing.assert_close(worst, torch.as_tensor(codes.inverse_transform(found.numpy())))
    module.eval()
    losses = [
        torch.nn.functional.cross_entropy(module(x), given.labels, reduction="none")
        for x in (state.latent.decode(start, 64), worst)
    ]
    assert (losses[1] > losses[0]).float().mean() > 0.95
    assert losses[1].mean() > 2 * losses[0].mean()


def test_adversarial_training_lowers_the_worst_loss_on_the_manifold(digits, codes):
    X, X_test, y, y_test = digits
    found, state = {}, manifold(codes, 64, (0.0, 1.0))
    for name, training in {
        "off": StandardTraining(),
        "on": OnManifoldTraining(codes, method="adversarial", attack=PGD(5)),
    }.items():
        model = small(training, hidden_layer_sizes=32, max_epochs=10, batch_size=128).fit(X, y)
        given = replace(step(model.net_.module_), x=torch.as_tensor(X_test))
        given = drawing(replace(given, labels=torch.as_tensor(y_test)))
        worst = state.worst_points(given, PGD(20, objective="cross-entropy"), 0.3)
        found[name] = task_loss(given.module, worst, given.labels).item()
        assert model.score(X_test, y_test) > 0.85
    assert found["on"] < 0.95 * found["off"]


# ---- the autoencoder -------------------------------------------------------------------------


METHODS = ["R4", "adversarial"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "autoencoder",
    [Autoencoder(2, max_epochs=2), PCA(2, whiten=True), PCA(2, svd_solver="randomized")],
    ids=["Autoencoder", "PCA", "randomized"],
)
def test_one_that_is_not_fitted_is_fitted_to_the_training_data(blobs, method, autoencoder):
    X, y = blobs
    training = OnManifoldTraining(autoencoder, method=method, attack=PGD(2))
    model = small(training, train_split=ValidSplit(4)).fit(X, y)
    fitted = model.net_.kept[1].latent.autoencoder
    assert fitted is not autoencoder and not hasattr(autoencoder, "n_features_in_")
    assert fitted.n_features_in_ == 4
    # Without the part that validates, and the same in every fit.
    if isinstance(fitted, PCA):
        assert fitted.n_samples_ == 60
    again = Parallel(2, prefer="threads")(delayed(clone(model).fit)(X, y) for _ in range(2))
    for other in again:
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    assert clone(training).autoencoder is not autoencoder
    seed = fitted.get_params()["random_state"]
    assert (
        small(training, random_state=1)
        .fit(X, y)
        .net_.kept[1]
        .latent.autoencoder.get_params()["random_state"]
        != seed
    )


@pytest.mark.parametrize("method", METHODS)
def test_one_that_is_fitted_stays(blobs, method):
    X, y = blobs
    fitted = Autoencoder(2, max_epochs=2, random_state=0).fit(X)
    training = OnManifoldTraining(fitted, method=method)
    before = fitted.transform(X)
    again = clone(clone(training)).autoencoder
    assert again is not fitted
    np.testing.assert_array_equal(again.transform(X), before)
    model = small(training).fit(X, y)
    state = model.net_.kept[1]
    np.testing.assert_array_equal(state.latent.autoencoder.transform(X), before)
    np.testing.assert_array_equal(fitted.transform(X), before)
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(restored.training.autoencoder.transform(X), before)


def test_partial_fit_goes_on_with_the_same(blobs):
    X, y = blobs
    model = small(OnManifoldTraining(Autoencoder(2, max_epochs=1))).partial_fit(X, y)

    def used():
        return model.net_.kept[1].latent.autoencoder

    first = used()
    model.partial_fit(X, y)
    assert used() is first
    # What else of the regime was changed takes effect.
    model.set_params(training__bounds=(-1.0, 2.0), training__method="adversarial").partial_fit(
        X, y
    )
    assert used() is first and model.net_.kept[1].latent.bounds == (-1.0, 2.0)
    model.set_params(training__autoencoder=PCA(1)).partial_fit(X, y)
    assert isinstance(used(), PCA) and model.companion_ is used()
    # Other parameters of the same one fit it anew.
    model.set_params(training__autoencoder__n_components=2).partial_fit(X, y)
    assert used().n_components_ == 2
    with pytest.raises(UnsupportedModelError, match="expected one with gradients"):
        model.set_params(training__autoencoder=StandardScaler()).partial_fit(X, y)


def test_kinds_of_autoencoders(blobs):
    X, y = blobs
    X = X[:, :2]
    for autoencoder in (Double(), Line(), StandardScaler(), StandardScaler().fit(X)):
        model = small(OnManifoldTraining(autoencoder, weight=0.1)).fit(X, y)
        assert np.isfinite(model.predict_proba(X)).all()
    for module in (Double().train(), OneCode().train()):
        small(OnManifoldTraining(module, method="adversarial")).fit(X, y)
        assert module.training


@pytest.mark.parametrize("method", METHODS)
def test_dropout_batch_norm_and_views(blobs, method):
    X, y = blobs
    layers = [
        *(torch.nn.Conv2d(1, 3, 2), torch.nn.BatchNorm2d(3), torch.nn.ReLU()),
        *(torch.nn.Dropout(0.3), torch.nn.Flatten(), torch.nn.Linear(3, 2)),
    ]
    training = OnManifoldTraining(PCA(2).fit(X), method=method)
    model = small(training, module=torch.nn.Sequential(*layers), input_shape=(1, 2, 2))
    first = clone(model).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), first)
    other = clone(model).set_params(random_state=1).fit(X, y).predict_proba(X)
    assert not np.array_equal(other, first)


def test_parameters_of_one_that_is_fitted_are_not_searched(blobs):
    X, y = blobs
    fitted = PCA(2).fit(X)
    model = small(OnManifoldTraining(fitted))
    grid = {"training__autoencoder__n_components": [1, 2]}
    with pytest.raises(ValueError, match=r"Got autoencoder=PCA\(n_components=1\), but expected"):
        GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    assert fitted.n_components == 2
    model.partial_fit(X, y)
    with pytest.raises(ValueError, match="one that is not fitted, where its parameters are set"):
        model.set_params(training__autoencoder__n_components=1).partial_fit(X, y)


class Interrupted(torch.nn.Linear):
    def forward(self, x):
        if self.training:
            raise KeyboardInterrupt
        return super().forward(x)


def test_an_interrupt_while_the_autoencoder_trains_ends_the_fit(blobs):
    X, y = blobs
    stopped = Autoencoder(2, encoder=Interrupted(4, 2), max_epochs=3)
    assert stopped.fit(X).net_.stopped_midway
    model = small(OnManifoldTraining(clone(stopped)), max_epochs=3).fit(X, y)
    assert model.net_.stopped_midway and model.companion_ is None
    assert Autoencoder(2, max_epochs=3).fit(X).net_.stopped_midway is False


def test_searches(blobs):
    X, y = blobs
    training = OnManifoldTraining(PCA(2, whiten=True).fit(X))
    weights = {"training__weight": [0.1, 20.0]}
    search = GridSearchCV(small(training, max_epochs=20), weights, cv=2, scoring="neg_log_loss")
    scores = search.fit(X, y).cv_results_["mean_test_score"]
    assert scores[0] > scores[1]
    assert search.best_estimator_.training.weight == 0.1
    used, given = search.best_estimator_.companion_, training.autoencoder
    np.testing.assert_array_equal(used.components_, given.components_)
    grid = {"training__autoencoder__n_components": [1, 2], "training__attack__n_steps": [1]}
    inner = small(OnManifoldTraining(PCA(), method="adversarial"))
    model = GridSearchCV(inner, grid, cv=2).fit(X, y).best_estimator_
    assert model.training.attack.n_steps == 1
    assert model.net_.kept[1].latent.autoencoder.n_components_ in (1, 2)
    sequence = SequentialTraining([StandardTraining(), training], [1, 2])
    assert np.isfinite(small(sequence).fit(X, y).predict_proba(X)).all()


# ---- refusals --------------------------------------------------------------------------------


class Lonely:
    def transform(self, X):
        return X


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"sigma": 0.0}, ValueError, r"Got sigma=0\.0, but expected a finite number in \(0"),
        ({"sigma": -1}, ValueError, "Got sigma=-1"),
        ({"sigma": 1e39}, ValueError, r"Got sigma=1e\+39, but expected codes in the range of"),
        ({"weight": -1.0}, ValueError, r"Got weight=-1\.0"),
        ({"n_points": 0}, ValueError, "Got n_points=0"),
        ({"min_distance": 0.0}, ValueError, r"Got min_distance=0\.0"),
        ({"eta": -0.1}, ValueError, r"Got eta=-0\.1"),
        ({"clean_weight": 2}, ValueError, "Got clean_weight=2"),
        ({"method": "stutz"}, ValueError, "Got method='stutz', but expected one of 'R4', 'adver"),
        ({"attack": 3}, TypeError, "Got attack=3, but expected an Attack"),
        ({"bounds": (0.5, 1.0)}, ValueError, r"Got bounds=\(0\.5, 1\.0\), but .* rows of X lie"),
        ({"autoencoder": None}, TypeError, "Got autoencoder=None, but expected a fitted object"),
        ({"autoencoder": Autoencoder}, TypeError, "Got autoencoder=.*but expected a fitted obj"),
        ({"autoencoder": Lonely()}, TypeError, "Got autoencoder=.*but expected a fitted object"),
        (
            {"autoencoder": PCA(2).fit(np.eye(3))},
            ValueError,
            r"Got autoencoder=PCA\(n_components=2\), but expected one of 4 features",
        ),
        ({"autoencoder": Line()}, ValueError, r"decodes to shape \(1, 2\), but expected \(1, 4"),
        (
            {"autoencoder": StandardScaler(), "method": "adversarial"},
            UnsupportedModelError,
            r"Got autoencoder=StandardScaler\(\), but expected one with gradients",
        ),
    ],
)
def test_bad_parameters(blobs, params, error, message):
    X, y = blobs
    training = OnManifoldTraining(PCA(2).fit(X)).set_params(**params)
    with pytest.raises(error, match=message):
        small(training).fit(X, y)


class Later(PCA):
    """One that says it is fitted only by what it raises."""

    def __sklearn_is_fitted__(self):
        return True


def test_one_that_cannot_say_that_it_is_not_fitted(blobs):
    X, y = blobs
    with pytest.raises((NotFittedError, ValueError), match=r"Later"):
        small(OnManifoldTraining(Later(2))).fit(X, y)
