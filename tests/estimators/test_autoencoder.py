"""The autoencoder as a transformer: what it learns, what it refuses, how it repeats."""

import pickle

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from skrobust.estimators import Autoencoder
from skrobust.exceptions import DivergedTrainingError, UnsupportedModelError
from skrobust.scorers import ManifoldRobustness

SHAPED = {"input_shape": (1, 8, 8), "hidden_layer_sizes": (8,)}


def small(n_components=3, **params):
    return Autoencoder(
        n_components, **({"max_epochs": 3, "batch_size": 20, "random_state": 0} | params)
    )


@pytest.fixture(scope="module")
def trained(digits):
    """A plain and a Wasserstein autoencoder of the digits. Do not change them."""
    X, *_ = digits
    common = {"bounds": (0, 1), "max_epochs": 30, "random_state": 0}
    return {loss: Autoencoder(8, loss=loss, **common).fit(X) for loss in ("plain", "wasserstein")}


# ---- what it learns --------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["plain", "wasserstein"])
def test_reconstruction_beats_the_mean(digits, trained, loss):
    X_train, X, *_ = digits
    model = trained[loss]
    decoded = model.inverse_transform(model.transform(X))
    error = np.square(decoded - X).mean()
    assert model.score(X) == pytest.approx(-error, rel=1e-6)
    assert error < 0.4 * np.square(X - X_train.mean(axis=0)).mean()
    assert decoded.min() >= 0 and decoded.max() <= 1


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_convolutions_beat_the_mean(digits, bounds):
    X_train, X, *_ = digits
    model = Autoencoder(8, bounds=bounds, max_epochs=15, random_state=0, **SHAPED).fit(X_train)
    assert any(isinstance(layer, nn.Conv2d) for layer in model.net_.module_.modules())
    assert -model.score(X) < 0.6 * np.square(X - X_train.mean(axis=0)).mean()


def to_prior(codes):
    """Energy distance of codes to standard normal points: another measure than is trained on."""
    prior = np.random.default_rng(0).standard_normal(codes.shape)

    def mean_distance(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=2).mean()

    return 2 * mean_distance(codes, prior) - sum(mean_distance(p, p) for p in (codes, prior))


def test_wasserstein_codes_are_nearer_to_the_prior(digits, trained):
    _, X, *_ = digits
    plain, wasserstein = (trained[loss].transform(X) for loss in ("plain", "wasserstein"))
    assert to_prior(wasserstein) < 0.25 * to_prior(plain)
    assert np.abs(wasserstein.mean(axis=0)).max() < 0.4
    assert np.abs(np.log(wasserstein.std(axis=0))).max() < 0.4


def test_weight_zero_is_the_plain_loss(blobs):
    X, _ = blobs
    plain = small().fit(X).transform(X)
    np.testing.assert_array_equal(small(loss="wasserstein", weight=0).fit(X).transform(X), plain)
    assert not np.array_equal(small(loss="wasserstein").fit(X).transform(X), plain)


# ---- modules of one's own --------------------------------------------------------------------


def test_modules_of_ones_own(digits):
    X, *_ = digits
    encoder = nn.Sequential(nn.Conv2d(1, 2, 8), nn.Tanh())  # codes of shape (2, 1, 1)
    before = [p.detach().clone() for p in encoder.parameters()]
    model = small(2, encoder=encoder, input_shape=(1, 8, 8), hidden_layer_sizes=8).fit(X)
    codes = model.transform(X)
    assert codes.shape == (1000, 2) and np.abs(codes).max() <= 1
    for kept, parameter in zip(before, encoder.parameters(), strict=True):
        assert torch.equal(kept, parameter)
    made = small(2, decoder=lambda: nn.Linear(2, 64)).fit(X)
    kinds = [type(layer) for layer in made.net_.module_.decode]
    assert kinds == [nn.Linear, nn.Flatten]
    halves = nn.Unflatten(1, (2, 32)), nn.Flatten(), nn.Linear(64, 2)
    own = small(2, encoder=nn.Sequential(*halves[1:]), decoder=nn.Linear(2, 64))
    assert own.set_params(input_shape=(2, 32)).fit(X).transform(X).shape == (1000, 2)


def test_dropout_is_off_outside_training(blobs):
    X, _ = blobs
    encoder = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    model = small(2, encoder=encoder).fit(X)
    np.testing.assert_array_equal(model.transform(X), model.transform(X))
    np.testing.assert_allclose(model.transform(X)[:1], model.transform(X[:1]), atol=1e-6)
    np.testing.assert_array_equal(clone(model).fit(X).transform(X), model.transform(X))


# ---- as a transformer ------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["plain", "wasserstein"])
def test_fits_repeat_also_in_threads_and_leave_torch_alone(blobs, loss):
    X, _ = blobs
    state = torch.random.get_rng_state()
    models = Parallel(3, prefer="threads")(
        delayed(small(loss=loss, random_state=seed).fit)(X) for seed in (0, 1, 0)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    codes = [model.transform(X) for model in models]
    np.testing.assert_array_equal(codes[0], codes[2])
    assert not np.array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(small(loss=loss).fit_transform(X), codes[0])


def test_pickles_and_clones(blobs):
    X, _ = blobs
    model = small(bounds=(0, 1), loss="wasserstein", weight=3.0).fit(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert again.score(X) == model.score(X)
    assert len(again.history_) == 3
    fresh = clone(model)
    assert not hasattr(fresh, "net_")
    params = model.get_params()
    assert fresh.get_params() == params and params["weight"] == 3.0


def test_names_of_features(blobs):
    pandas = pytest.importorskip("pandas")
    X, _ = blobs
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = small(2).set_output(transform="pandas").fit(frame)
    assert list(model.transform(frame).columns) == ["autoencoder0", "autoencoder1"]
    assert model.n_features_in_ == 4 and list(model.feature_names_in_) == list("abcd")
    # The codes are named after the fit, not after what the parameter was set to since.
    model.set_params(n_components=7)
    assert len(model.get_feature_names_out()) == 2


def test_in_a_pipeline_and_a_search(blobs):
    X, y = blobs
    pipeline = make_pipeline(small(max_epochs=20), LogisticRegression(C=100))
    assert pipeline.fit(X, y).score(X, y) > 0.8
    search = GridSearchCV(small(max_epochs=30), {"n_components": [1, 4]}, cv=3).fit(X)
    assert search.best_params_ == {"n_components": 4}
    assert search.best_score_ < 0


def test_tensors_and_double_precision(blobs):
    X, _ = blobs
    model = small().fit(torch.tensor(X))
    codes = model.transform(X)
    assert codes.dtype == np.float32
    np.testing.assert_array_equal(model.transform(torch.tensor(X, requires_grad=True)), codes)
    np.testing.assert_array_equal(
        model.inverse_transform(torch.tensor(codes)), model.inverse_transform(codes)
    )


def test_a_scorer_takes_it(digits, trained, digits_model, tmp_path):
    _, X, _, y = digits
    scorer = ManifoldRobustness(
        trained["wasserstein"], n_samples=10, random_state=0, memory=str(tmp_path)
    )
    result = scorer.evaluate(digits_model, X, y)
    assert 0.6 < result.share < 1
    distances = np.linalg.norm(
        trained["wasserstein"].inverse_transform(trained["wasserstein"].transform(X)) - X, axis=1
    )
    assert np.corrcoef(result.distances.mean(axis=1), distances)[0, 1] > 0.95
    assert scorer.evaluate(digits_model, X, y).score == result.score
    other = scorer.set_params(autoencoder=trained["plain"])
    assert other.evaluate(digits_model, X, y).score != result.score
    with pytest.raises(NotFittedError, match="This Autoencoder instance is not fitted yet"):
        scorer.set_params(autoencoder=Autoencoder())(digits_model, X, y)
    with pytest.raises(ValueError, match=r"Got autoencoder=Autoencoder.* expected one of 64 feat"):
        scorer.set_params(autoencoder=small().fit(X[:, :9]))(digits_model, X, y)


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"n_components": 0}, ValueError, "Got n_components=0, but expected an integer of at le"),
        ({"hidden_layer_sizes": (3, 0)}, ValueError, r"Got hidden_layer_sizes=\(3, 0\)"),
        ({"loss": "wae"}, ValueError, "Got loss='wae', but expected one of 'plain', 'wasserstei"),
        ({"weight": -1.0}, ValueError, r"Got weight=-1\.0"),
        ({"weight": np.inf}, ValueError, "Got weight=inf"),
        (
            {"bounds": (0.5, 1.0)},
            ValueError,
            r"Got bounds=\(0\.5, 1\.0\), but .* rows of X lie",
        ),
        ({"bounds": (0.0, np.inf)}, ValueError, "Got bounds=.*a pair of finite ends"),
        ({"bounds": 1.0}, ValueError, r"Got bounds=1\.0, but expected None, or a pair"),
        ({"encoder": 3}, TypeError, "Got encoder=3, but expected None, a torch.nn.Module, or a c"),
        ({"decoder": lambda: 3}, TypeError, "Got decoder=.*a callable that returns a torch.nn.M"),
        ({"encoder": nn.Linear(4, 5)}, ValueError, r"encoder that returns \(2, 5\).*n_components"),
        (
            {"decoder": nn.Linear(3, 5)},
            ValueError,
            r"decoder that returns \(2, 5\).*features",
        ),
        ({"encoder": nn.Linear(9, 3)}, ValueError, "Got encoder=.*which fails.*It says: mat1"),
        ({"encoder": nn.Linear(4, 3).double()}, UnsupportedModelError, "parameters of torch.floa"),
        ({"input_shape": (1, 3, 3)}, ValueError, r"Got input_shape=\(1, 3, 3\), but .* 4 entries"),
        ({"input_shape": (2, 2)}, ValueError, r"Got input_shape=\(2, 2\), but .*height, width"),
        ({"loss": "wasserstein", "batch_size": 1}, ValueError, "Got batch_size=1"),
        ({"max_epochs": 0}, ValueError, "Got max_epochs=0"),
        ({"lr": 0.0}, ValueError, r"Got lr=0\.0"),
        ({"optimizer": None}, TypeError, "Got optimizer=None, but expected a class"),
        ({"optimizer_params": {"momenta": 1}}, ValueError, "Got optimizer=.*momenta"),
        ({"callbacks": 3}, TypeError, "Got callbacks=3"),
        ({"random_state": -1}, ValueError, "Got random_state=-1"),
        ({"device": "none"}, ValueError, "device='none'"),
    ],
)
def test_bad_parameters(blobs, params, error, message):
    X, _ = blobs
    with pytest.raises(error, match=message):
        small().set_params(**params).fit(X)


def test_bad_data(blobs):
    X, _ = blobs
    with pytest.raises(ValueError, match="Got X with 1 sample, but expected at least 2"):
        small(loss="wasserstein").fit(X[:1])
    assert small().fit(X[:1]).transform(X).shape == (80, 3)
    model = small().fit(X)
    with pytest.raises(ValueError, match=r"Got X=.* shape \(80, 4\), but expected codes of shape"):
        model.inverse_transform(X)
    with pytest.raises(ValueError, match="X has 3 features, but Autoencoder is expecting 4"):
        model.transform(X[:, :3])
    with pytest.raises(NotFittedError):
        small().inverse_transform(X)


def test_divergence_is_an_error(blobs):
    X, _ = blobs
    with pytest.raises(DivergedTrainingError, match=r"NaN or infinite|became (inf|nan)"):
        small(optimizer=torch.optim.SGD, lr=1e20).fit(X)
    with pytest.raises(DivergedTrainingError, match="NaN or infinite in the last step"):
        small(optimizer=torch.optim.SGD, lr=1e38, max_epochs=1, batch_size=80).fit(X)


def test_a_fit_that_fails_leaves_the_last_one(blobs):
    X, _ = blobs
    failing = {"optimizer": torch.optim.SGD, "lr": 1e20}
    model = small().fit(X)
    before = model.transform(X)
    with pytest.raises(DivergedTrainingError):
        model.set_params(**failing).fit(X)
    np.testing.assert_array_equal(model.transform(X), before)
    with pytest.raises(DivergedTrainingError):
        model = small(**failing)
        model.fit(X)
    with pytest.raises(NotFittedError):
        model.transform(X)
