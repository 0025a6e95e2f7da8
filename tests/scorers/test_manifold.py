"""R4 by an autoencoder: closed forms, invariances, autoencoders of every kind."""

import numpy as np
import pytest
import torch
from joblib import parallel_config
from scipy.stats import norm
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from skrobust import TorchClassifier
from skrobust.scorers import ManifoldRobustness, RobustnessScore
from skrobust.statistics import hoeffding


class Identity(TransformerMixin, BaseEstimator):
    """Codes are the rows themselves."""

    def transform(self, X):
        return np.asarray(X, dtype=float)

    def inverse_transform(self, Z):
        return Z


class Line:
    """The manifold is the diagonal of the square; the code is the place on it."""

    def encode(self, X):
        return X.mean(axis=1)

    def decode(self, Z):
        return np.stack([Z, Z], axis=1)


class Net(torch.nn.Module):
    """An affine autoencoder that refuses arrays, and gradients, and training mode."""

    def __init__(self):
        super().__init__()
        self.down = torch.nn.Linear(2, 1).double()
        with torch.no_grad():
            self.down.weight.fill_(0.5)
            self.down.bias.zero_()

    def encode(self, x):
        assert torch.is_tensor(x) and x.dtype == torch.float64
        assert not self.training and not torch.is_grad_enabled()
        return self.down(x)

    def decode(self, z):
        return z.expand(-1, 2)


class First(ClassifierMixin, BaseEstimator):
    """Whether the first feature is above 0.5, and nothing but `predict`."""

    classes_ = np.array([0, 1])

    def predict(self, X):
        return (np.asarray(X)[:, 0] > 0.5).astype(int)


X = np.array([[0.2, 0.4], [0.45, 0.45], [0.52, 0.5], [0.7, 0.9], [0.6, 0.2]])
CODES = X.mean(axis=1)


def share_kept(codes, sigma):
    """Probability that code + sigma e stays on the side of 0.5 where `First` puts the sample."""
    above = X[:, 0] > 0.5
    return norm.cdf(np.where(above, codes - 0.5, 0.5 - codes) / sigma)


# ---- closed forms --------------------


def by_definition(result, i, radii):
    """Equations 8 and 9 for one sample, one radius at a time."""
    terms = []
    for epsilon in radii:
        near = result.distances[i] <= epsilon
        share = result.keeps[i][near].mean() if near.any() else 1.0
        terms.append(share / epsilon)
    return np.mean(terms)


@pytest.mark.parametrize("autoencoder", [Line(), Net()], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("sigma", [0.06, 0.5])
def test_shares_on_a_line(autoencoder, sigma):
    scorer = ManifoldRobustness(autoencoder, sigma, n_samples=20_000, random_state=0)
    result = scorer.evaluate(First(), X)
    truth = share_kept(CODES, sigma)
    np.testing.assert_allclose(result.shares, truth, atol=0.015)
    assert result.share == pytest.approx(result.shares.mean())
    assert result.share == pytest.approx(truth.mean(), abs=0.008)
    assert result.share_interval == hoeffding(result.shares)
    assert result.distances.shape == result.keeps.shape == (5, 20_000)
    # The last sample is decoded to (0.4, 0.4), on the other side.
    assert result.reconstructed.tolist() == [True, True, True, True, False]
    by_share = clone(scorer).set_params(quantity="share")
    assert by_share(First(), X) == result.share
    assert by_share.evaluate(First(), X).interval == result.share_interval


@pytest.mark.parametrize("epsilons", ["distances", "uniform", [0.05, 0.1, 0.4]], ids=str)
def test_r4_is_that_of_the_equations(epsilons):
    scorer = ManifoldRobustness(Line(), 0.1, epsilons=epsilons, n_samples=30, random_state=0)
    result = scorer.evaluate(First(), X)
    for i in range(len(X)):
        radii = epsilons
        if epsilons == "distances":
            radii = result.distances[i]
        elif epsilons == "uniform":
            radii = scorer._shared_radii((0.0, 1.0), 2)
            assert len(radii) == 30 and 0 < radii.min() < radii.max() <= np.sqrt(2)
        assert result.values[i] == pytest.approx(by_definition(result, i, radii))
        empty = sum(not (result.distances[i] <= epsilon).any() for epsilon in radii)
        assert result.n_empty[i] == empty
    assert (result.n_empty == 0).all() or epsilons != "distances"
    assert result.r4 == result.score == pytest.approx(result.values.mean())
    assert result.r4_interval == result.interval
    assert 0 < result.normalized <= 1


def test_a_constant_classifier_has_the_mean_of_inverse_radii(blobs):
    X, y = blobs
    model = DummyClassifier(strategy="constant", constant=1).fit(X, y)
    codes = PCA(2).fit(X)
    # Where no ball is empty, and where the sample alone is in some.
    for sigma in (0.2, 3.0):
        scorer = ManifoldRobustness(codes, sigma, epsilons=[1, 2, 4], bounds=None, n_samples=10)
        result = scorer.evaluate(model, X)
        assert result.r4 == pytest.approx((1 + 1 / 2 + 1 / 4) / 3) == pytest.approx(0.58333, 1e-4)
        assert result.normalized == pytest.approx(1) and result.share == 1.0
    own = ManifoldRobustness(codes, 0.2, n_samples=10, random_state=0).evaluate(model, X)
    assert own.r4 == pytest.approx((1 / own.distances).mean())
    assert own.normalized == pytest.approx(1) and own.reconstructed.all()


def test_equal_distances_count_together():
    class Two(Line):
        """Decodes to one of two points, at the distances 0.1 and 0.2 from (0.45, 0.45)."""

        def decode(self, Z):
            return np.where(Z[:, None] > 0.45, [[0.55, 0.45]], [[0.25, 0.45]])

    result = ManifoldRobustness(Two(), 1.0, n_samples=100, random_state=0).evaluate(
        First(), X[[1]]
    )
    near = (result.distances[0] < 0.15).sum()
    assert 30 < near < 70 and result.shares == pytest.approx(1 - near / 100)
    # At 0.1 all points are of the other class; at 0.2 the others have joined them.
    by_hand = (near * 0.0 / 0.1 + (100 - near) * (1 - near / 100) / 0.2) / 100
    assert result.r4 == pytest.approx(by_hand)


def test_points_that_are_the_sample_itself_give_no_radius():
    class Blind(Identity):
        def inverse_transform(self, Z):
            return np.broadcast_to(X[[0]], (len(Z), 2))

    scorer = ManifoldRobustness(Blind(), n_samples=5)
    with pytest.raises(ValueError, match="all points around row 0 of X to the row itself"):
        scorer(First(), X[[0]])
    assert scorer.set_params(epsilons=[0.5])(First(), X[[0]]) == pytest.approx(2.0)


def test_decoded_points_are_clipped_to_the_bounds():
    seen = []

    class Watched(First):
        def predict(self, X):
            seen.append(np.asarray(X))
            return super().predict(X)

    ManifoldRobustness(Identity(), 3.0, random_state=0)(Watched(), X)
    points = np.concatenate(seen)
    assert (points.min(), points.max()) == (0.0, 1.0)
    seen.clear()
    ManifoldRobustness(Identity(), 3.0, bounds=None, random_state=0)(Watched(), X)
    assert np.concatenate(seen).max() > 3


def test_noise_in_all_features_is_that_of_a_generator():
    """With codes that are the rows themselves, it is `RobustnessScore` with normal noise."""

    def noise(X, labels, epsilon, n_samples, generator):
        return X[:, None] + epsilon * generator.standard_normal((len(X), n_samples, X.shape[1]))

    make = {"n_samples": 50, "random_state": 0, "batch_size": 4096}
    ours = ManifoldRobustness(Identity(), 0.2, bounds=None, **make).evaluate(First(), X)
    frame = RobustnessScore(
        noise, "identity", "radii", 0.2, norm=None, bounds=None, **make
    ).evaluate(First(), X)
    np.testing.assert_array_equal(ours.shares, frame.shares[:, 0])
    assert ours.share == frame.score


def test_codes_that_are_integers_get_whole_noise():
    class Rounded(Line):
        def encode(self, X):
            return np.round(X.mean(axis=1)).astype(int)

    scorer = ManifoldRobustness(Rounded(), 0.3, n_samples=20_000, random_state=0)
    shares = scorer.evaluate(First(), X[[0]]).shares
    np.testing.assert_allclose(shares, norm.cdf(0.5 / 0.3), atol=0.015)


# ---- invariances --------------------


def test_names_of_the_classes_do_not_matter(blobs):
    X, y = blobs
    codes = PCA(2, whiten=True).fit(X)
    scorer = ManifoldRobustness(codes, 1.0, quantity="share", n_samples=20, random_state=0)
    scores = [
        scorer(RandomForestClassifier(5, random_state=0).fit(X, labels), X)
        for labels in (y, np.array(["ant", "zebra"])[y])
    ]
    assert scores[0] == scores[1] < 1


def test_more_noise_keeps_fewer_labels(digits, digits_model):
    X, X_test, *_ = digits
    codes = PCA(15, whiten=True).fit(X)
    scores = [
        ManifoldRobustness(codes, sigma, quantity="share", n_samples=20, random_state=0)(
            digits_model, X_test
        )
        for sigma in (0.06, 0.3, 1.0)
    ]
    assert 1 > scores[0] > scores[1] > scores[2] > 0.1


def test_reference_to_the_label(blobs):
    X, y = blobs
    model = LogisticRegression(C=0.05).fit(X, y)
    scorer = ManifoldRobustness(Identity(), 1e-7, quantity="share", reference="label", n_samples=3)
    result = scorer.evaluate(model, X, y)
    assert result.score == model.score(X, y) < 1
    np.testing.assert_array_equal(result.reconstructed, model.predict(X) == y)
    assert clone(scorer).set_params(reference="prediction")(model, X) == 1.0


# ---- kinds of data and models --------------------


def test_images_and_codes_of_any_shape():
    class Images:
        def encode(self, X):
            return X.reshape(-1, 2, 2)

        def decode(self, Z):
            return Z.reshape(len(Z), 1, 2, 2)

    layer = torch.nn.Linear(4, 2)
    model = TorchClassifier(torch.nn.Sequential(torch.nn.Flatten(), layer), 2)
    X = np.random.default_rng(0).random((6, 1, 2, 2)).astype(np.float32)
    result = ManifoldRobustness(Images(), 0.1, n_samples=7, random_state=0).evaluate(model, X)
    assert result.shares.shape == (6,) and result.distances.shape == (6, 7)


def test_results_repeat(blobs, tmp_path):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    codes = PCA(2, whiten=True).fit(X)
    scorer = ManifoldRobustness(codes, 0.5, n_samples=9, chunk_size=30, random_state=0)
    first = scorer.evaluate(model, X)
    for changed in ({"n_jobs": 2}, {"memory": str(tmp_path)}, {"memory": str(tmp_path)}):
        with parallel_config("threading"):
            again = clone(scorer).set_params(**changed).evaluate(model, X)
        np.testing.assert_array_equal(again.distances, first.distances)
        np.testing.assert_array_equal(again.values, first.values)
    # The memory tells autoencoders apart.
    other = clone(scorer).set_params(memory=str(tmp_path), autoencoder=PCA(2).fit(X))
    assert other(model, X) != first.score
    assert first.to_frame().columns.tolist() == ["values", "shares", "n_empty", "reconstructed"]
    assert repr(first).startswith("ManifoldRobustnessResult(score=")


def test_parameters_are_those_of_a_scorer():
    scorer = ManifoldRobustness(PCA(2), 0.1)
    assert clone(scorer).get_params()["autoencoder__n_components"] == 2
    assert scorer.set_params(sigma=0.2).sigma == 0.2


# ---- refusals --------------------


class Short:
    def encode(self, X):
        return X[:1]

    def decode(self, Z):
        return Z


class Narrow(Line):
    def decode(self, Z):
        return Z[:, None]


class Wordy(Line):
    def encode(self, X):
        return np.full(len(X), "a")


class Lonely(Line):
    def decode(self, Z):
        return 1.0


class Broken(Line):
    def decode(self, Z):
        return np.full((len(Z), 2), np.nan)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"autoencoder": Broken()}, ValueError, "whose decode returns NaN or infinity"),
        ({"autoencoder": 3}, TypeError, "Got autoencoder=3, but expected a fitted object with"),
        ({"autoencoder": Line}, TypeError, "but expected a fitted object with encode and decode"),
        ({"autoencoder": Short()}, ValueError, r"codes of shape \(1, 2\), but expected 5 rows"),
        ({"autoencoder": Narrow()}, ValueError, r"decodes to shape \(1, 1\), but expected"),
        ({"autoencoder": Wordy()}, TypeError, "whose encode returns type <U1, but expected real"),
        ({"autoencoder": Lonely()}, ValueError, r"decodes to shape \(\), but expected \(1, 2"),
        ({"sigma": 1e308}, ValueError, r"Got sigma=1e\+308, but expected codes in the range of"),
        ({"sigma": 0.0}, ValueError, r"Got sigma=0\.0, but expected a"),
        ({"sigma": [0.2, 0.1]}, ValueError, r"Got sigma=\[0\.2, 0\.1\]"),
        ({"sigma": "wide"}, ValueError, "Got sigma='wide'"),
        ({"epsilons": [0.2, 0.1]}, ValueError, "Got epsilons=.*but expected a positive number, o"),
        ({"epsilons": "even"}, ValueError, "Got epsilons='even', but expected one of 'distances'"),
        (
            {"epsilons": "uniform", "bounds": None},
            ValueError,
            "Got epsilons='uniform', but expected a number, since bounds do not say",
        ),
        ({"quantity": "R5"}, ValueError, "Got quantity='R5', but expected one of 'R4', 'share'"),
        ({"n_samples": 0}, ValueError, "Got n_samples=0"),
        ({"bounds": (0.3, 1.0)}, ValueError, "2 of 5 rows of X lie outside"),
        ({"reference": "truth"}, ValueError, "Got reference='truth'"),
        ({"reference": "label"}, ValueError, "Got y=None, but expected the true labels"),
        ({"confidence": 0.0}, ValueError, r"Got confidence=0\.0"),
        ({"batch_size": 0}, ValueError, "Got batch_size=0"),
        ({"chunk_size": 0}, ValueError, "Got chunk_size=0"),
    ],
)
def test_bad_parameters(params, error, message):
    with pytest.raises(error, match=message):
        ManifoldRobustness(Line(), random_state=0).set_params(**params)(First(), X)


def test_the_framework_refuses_named_sources_without_a_norm():
    with pytest.raises(ValueError, match="Got norm=None, but expected one of 'linf', 'l2'"):
        RobustnessScore(norm=None)(First(), X)
