"""The classifier: known posteriors, its average, what users do with it, and what it refuses."""

import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("pyro")
from skrobust.attacks import FGSM, PGD
from skrobust.estimators import BayesianClassifier, _hmc
from skrobust.exceptions import DivergedTrainingError, UnsupportedModelError
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity, GlobalRobustness
from skrobust.verification import Bounds
from tests.estimators._models import convolutional

pytestmark = pytest.mark.filterwarnings(
    "ignore:The samples may not be:sklearn.exceptions.ConvergenceWarning"
)


def data(n=40, n_features=4):
    random = np.random.default_rng(0)
    X = random.random((n, n_features))
    return X, np.where(X[:, 0] > 0.5, "up", "down")


def small(module=None, **params):
    defaults = {"hidden_layer_sizes": 3, "n_samples": 6, "warmup": 5, "random_state": 0}
    return BayesianClassifier(module, **(defaults | {"num_steps": 3, "step_size": 0.05} | params))


def fitted(**params):
    return small(**params).fit(*data())


class Slope(torch.nn.Module):
    """One weight: logits (0, w x)."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), self.w * x], dim=1)


def test_posterior_of_one_parameter_against_quadrature():
    x = np.array([-2.0, -1.0, -0.5, 0.3, 0.8, 1.5, 2.0, 0.4])
    y = np.array([0, 1, 0, 0, 1, 1, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such chains have nothing to be warned of
        model = BayesianClassifier(
            Slope,
            step_size=0.5,
            num_steps=3,
            n_samples=1600,
            warmup=50,
            prior_scale=1.5,
            random_state=0,
        ).fit(x[:, None], y)

    def density(w):
        sign = 2 * y - 1
        return np.exp(-0.5 * (w / 1.5) ** 2 - np.logaddexp(0, -sign * w * x).sum())

    def mean(function):
        integral = quad(lambda w: function(w) * density(w), -12, 12)[0]
        return integral / quad(density, -12, 12)[0]

    w = model.samples_[:, 0].astype(float)
    error = np.sqrt(mean(lambda w: w**2) - mean(lambda w: w) ** 2) / np.sqrt(200)
    assert w.mean() == pytest.approx(mean(lambda w: w), abs=4 * error)
    assert (w**2).mean() == pytest.approx(mean(lambda w: w**2), rel=0.15)
    for point in (-1.0, 3.0):
        expected = mean(lambda w, point=point: 1 / (1 + np.exp(-w * point)))
        assert model.predict_proba([[point]])[0, 1] == pytest.approx(expected, abs=0.02)
    values = -0.5 * (w / 1.5) ** 2 - np.logaddexp(0, -(2 * y - 1) * w[:, None] * x).sum(axis=1)
    np.testing.assert_allclose(model.log_density_.ravel(), values, rtol=1e-4)


def by_hand(model, X):
    """Return the mean of the softmax over samples of a perceptron of one hidden layer of 3."""
    probabilities = []
    for weights in torch.from_numpy(model.samples_):
        first, bias, second, last = weights.split([12, 3, 6, 2])
        hidden = torch.relu(X @ first.view(3, 4).T + bias)
        probabilities.append((hidden @ second.view(2, 3).T + last).softmax(dim=1))
    return torch.stack(probabilities).mean(dim=0)


def test_probabilities_are_the_mean_over_the_samples():
    model = fitted()
    X = torch.rand(5, 4)
    expected = by_hand(model, X).numpy()
    np.testing.assert_allclose(model.predict_proba(X.numpy()), expected, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(X.numpy()), model.classes_[expected.argmax(1)])
    np.testing.assert_allclose(
        model.decision_function(X.numpy()), np.log(expected[:, 1] / expected[:, 0]), atol=1e-5
    )
    # The mean of the logits would be another network.
    assert len(np.unique(model.samples_, axis=0)) > 1


def test_attacks_follow_the_gradient_of_the_average():
    model = fitted(step_size=0.2, num_steps=10)
    network = as_network(model)
    assert network.probabilistic
    X, y = data()
    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    label = network.encode(y)
    loss = -by_hand(model, x)[range(40), label].log().sum()
    (gradient,) = torch.autograd.grad(loss, x)
    ours = torch.nn.functional.cross_entropy(network(x), label, reduction="sum")
    torch.testing.assert_close(torch.autograd.grad(ours, x)[0], gradient)
    property = ClassificationRobustness(0.1, bounds=None)
    moved = FGSM("cross-entropy").perturb(model, X, y, property=property)
    expected = X + 0.1 * gradient.sign().numpy()
    right = model.predict(X) == y  # FGSM leaves the others where they are
    assert right.sum() > 20
    np.testing.assert_allclose(moved[right], expected[right], atol=1e-5)


def test_scores_take_the_average():
    model = fitted(step_size=0.2, num_steps=10)
    X, y = data()
    result = ConstraintSecurity(ClassificationRobustness(0.2), PGD(5)).evaluate(model, X, y)
    points = result.counterexamples[~np.isnan(result.counterexamples).any(axis=1)]
    assert len(points)
    labels = y[~np.isnan(result.counterexamples).any(axis=1)]
    assert (model.predict(points) != labels).any()
    score = GlobalRobustness(
        ClassificationRobustness(0.1, reference="prediction"),
        tolerance=0.3,
        quantitative="linf-probabilities",
    )
    assert 0 < score(model, X, y) < 1


def test_verification_is_refused_by_name():
    X, y = data()
    message = "'log_mean_probabilities' in layer .*PosteriorAverage.* is not read"
    with pytest.raises(UnsupportedModelError, match=message):
        Bounds().verify(fitted(), X, y, property=ClassificationRobustness(0.1))


def test_attributes_have_their_shapes():
    model = fitted(n_chains=3, n_samples=12)
    assert model.samples_.shape == (12, 23) and model.samples_.dtype == np.float32
    assert model.n_samples_ == 12 and model.interrupted_ is False
    assert model.log_density_.shape == (3, 4)
    for name in ("acceptance_rate_", "n_divergent_", "step_size_"):
        assert getattr(model, name).shape == (3,)
    assert (model.step_size_ == 0.05).all()
    assert model.r_hat_.shape == model.effective_sample_size_.shape == (21,)
    X = np.random.default_rng(0).random((3, 4))
    few = small(n_samples=8).fit(X, [0, 1, 2])
    assert few.r_hat_.shape == (4,)


def test_diagnostics_are_those_of_function_values():
    from skrobust.estimators._convergence import effective_sample_size, r_hat

    X, _ = data()
    model = fitted(n_samples=20)
    index = np.linspace(0, 39, 20).astype(int)
    rows = torch.tensor(X[index], dtype=torch.float32)
    label = as_network(model).encode(data()[1][index])
    of_labels = model.module_.log_probabilities(rows).exp()[:, range(20), label].double()
    draws = np.dstack([model.log_density_, of_labels.reshape(2, 10, 20).numpy()])
    np.testing.assert_allclose(model.r_hat_, r_hat(draws), rtol=1e-4)
    np.testing.assert_allclose(
        model.effective_sample_size_, effective_sample_size(draws), rtol=1e-3
    )


def test_one_chain_has_no_test_of_convergence():
    with pytest.warns(ConvergenceWarning, match="no test of convergence with one chain"):
        model = fitted(n_chains=1)
    assert np.isnan(model.r_hat_).all()
    assert not np.isnan(model.effective_sample_size_).any()


def test_poor_chains_warn():
    with pytest.warns(ConvergenceWarning, match=r"acceptance rates are 0\.00, 0\.00, below 0\.4"):
        model = fitted(step_size=100.0)
    assert (model.acceptance_rate_ == 0).all()
    assert (model.n_divergent_ == 3).all()


def test_step_size_adapts():
    model = fitted(step_size=100.0, adapt_step_size=True, warmup=60, n_samples=60)
    assert (model.step_size_ < 5).all()
    assert (model.acceptance_rate_ > 0.4).all()


def interrupt(monkeypatch, after):
    """Let the keyboard interrupt a proposal, after some."""
    original, count = _hmc.Chain.sample, iter(range(10**6))

    def sample(self, params=None):
        if next(count) == after:
            raise KeyboardInterrupt
        return original(self, params)

    monkeypatch.setattr(_hmc.Chain, "sample", sample)


def test_interrupt_leaves_the_samples_so_far(monkeypatch):
    whole = fitted(n_samples=20)
    interrupt(monkeypatch, 2 * 5 + 2 * 6 + 1)  # in the seventh proposal, of the second chain
    with pytest.warns(ConvergenceWarning, match="an interrupt left 6 samples of each chain"):
        model = fitted(n_samples=20)
    assert model.interrupted_ is True and model.n_samples_ == 12
    chains = whole.samples_.reshape(2, 10, -1)
    np.testing.assert_array_equal(model.samples_, chains[:, :6].reshape(12, -1))
    np.testing.assert_array_equal(model.log_density_, whole.log_density_[:, :6])
    X = data()[0]
    assert pickle.loads(pickle.dumps(model)).predict_proba(X).shape == (40, 2)


def test_interrupt_of_the_warmup_leaves_the_places(monkeypatch):
    interrupt(monkeypatch, 3)
    with pytest.warns(ConvergenceWarning, match="an interrupt left no samples of each"):
        model = fitted()
    assert model.interrupted_ is True and model.n_samples_ == 2
    assert np.isnan(model.r_hat_).all() and np.isnan(model.acceptance_rate_).all()
    np.testing.assert_allclose(model.predict_proba(data()[0]).sum(axis=1), 1, rtol=1e-5)
    # A fit that ends well takes the mark away.
    monkeypatch.undo()
    assert model.fit(*data()).interrupted_ is False


def test_fits_repeat_in_threads_and_leave_the_global_generator():
    before = torch.random.get_rng_state()
    first = fitted(adapt_step_size=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    with ThreadPoolExecutor(3) as pool:
        for model in pool.map(lambda _: fitted(adapt_step_size=True), range(3)):
            np.testing.assert_array_equal(model.samples_, first.samples_)
    assert (fitted(random_state=1).samples_ != first.samples_).any()


def test_chains_differ():
    chains = fitted().samples_.reshape(2, 3, -1)
    assert (chains[0] != chains[1]).any()


def test_copies_and_pickles():
    model = fitted(prior="fan-in", activation="tanh")
    copy = clone(model)
    assert copy.get_params() == model.get_params() and not hasattr(copy, "module_")
    X = data()[0]
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.samples_, model.samples_)


def test_search_over_step_sizes_in_a_pipeline():
    name = "bayesianclassifier"
    pipeline = make_pipeline(StandardScaler(), small(n_samples=20, warmup=30))
    search = GridSearchCV(pipeline, {f"{name}__step_size": [1e-6, 0.1]}, cv=2).fit(*data(80))
    assert search.best_params_ == {f"{name}__step_size": 0.1}
    assert (search.best_estimator_[-1].step_size_ == 0.1).all()
    network = as_network(search)
    X = torch.rand(3, 4)
    probabilities = network(X).softmax(dim=1)
    np.testing.assert_allclose(probabilities, search.predict_proba(X.numpy()), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"), [("tanh", torch.nn.Tanh), ("sigmoid", torch.nn.Sigmoid)]
)
def test_activations(name, kind):
    model = fitted(activation=name, hidden_layer_sizes=(3, 2))
    assert [type(part) for part in model.module_.module[0]].count(kind) == 2


def test_no_hidden_layer_is_logistic_regression():
    assert fitted(hidden_layer_sizes=()).samples_.shape == (6, 10)


def test_prior_holds_the_weights():
    wide, narrow = fitted(prior_scale=10.0), fitted(prior_scale=0.01, step_size=1e-3, num_steps=20)
    assert np.abs(narrow.samples_).mean() < 0.3 * np.abs(wide.samples_).mean()
    model = fitted(prior="fan-in", prior_scale=2.0)
    w = torch.from_numpy(model.samples_[0]).double()
    std = torch.cat([torch.full((12,), 1.0), torch.full((3,), 2.0),
                     torch.full((6,), 2 / 3**0.5), torch.full((2,), 2.0)])  # fmt: skip
    X, y = data()
    outputs = torch.nn.functional.linear(
        torch.relu(torch.tensor(X) @ w[:12].view(3, 4).T + w[12:15]), w[15:21].view(2, 3), w[21:]
    )
    label = as_network(model).encode(y)
    expected = -torch.nn.functional.cross_entropy(outputs, label, reduction="sum")
    expected -= 0.5 * (w / std).square().sum()
    assert model.log_density_[0, 0] == pytest.approx(expected.item(), rel=1e-5)


def test_modules_are_taken_as_training_takes_them():
    X, y = data()
    given = torch.nn.Linear(4, 2)
    start = given.weight.detach().clone()
    model = small(given, step_size=1e-9).fit(X, y)  # chains hardly move from where they start
    assert torch.equal(given.weight, start)
    np.testing.assert_allclose(model.samples_[:, :8], start.reshape(1, 8).repeat(6, 1), atol=1e-4)
    images = small(convolutional, input_shape=(1, 2, 2), module_params={"width": 3}).fit(X, y)
    assert images.samples_.shape == (6, 3 * 4 + 3 + 3 * 2 + 2)
    assert images.predict_proba(X).shape == (40, 2)
    frozen = convolutional()
    frozen[0].requires_grad_(False)
    assert small(frozen, input_shape=(1, 2, 2)).fit(X, y).samples_.shape == (6, 6)


def half_frozen():
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    module[0].requires_grad_(False)
    return module


def test_frozen_parameters_are_the_same_for_all_chains():
    """Each call of the function draws others; those of the average belong to every sample."""
    X, y = data()
    model = small(half_frozen).fit(X, y)
    frozen = model.module_.module[0][0]
    hidden = torch.relu(frozen(torch.tensor(X, dtype=torch.float32)))
    label = as_network(model).encode(y)
    for weights, density in zip(model.samples_, model.log_density_.ravel(), strict=True):
        w = torch.from_numpy(weights)
        loss = torch.nn.functional.cross_entropy(
            hidden @ w[:6].view(2, 3).T + w[6:], label, reduction="sum"
        )
        assert density == pytest.approx(-(loss + 0.5 * w.square().sum()).item(), rel=1e-5)


def test_modules_are_in_evaluation_mode():
    dropped = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(4, 2))
    model = small(dropped).fit(*data())
    X = torch.rand(3, 4)
    weights = torch.from_numpy(model.samples_)
    outputs = [X @ w[:8].view(2, 4).T + w[8:] for w in weights]
    expected = torch.stack(outputs).softmax(dim=2).mean(dim=0)
    np.testing.assert_allclose(model.predict_proba(X.numpy()), expected, rtol=1e-4)
    # Sampled from what is averaged: with dropout, each density would be that of other units.
    rows, labels = torch.as_tensor(data()[0]), torch.as_tensor(data()[1] == model.classes_[1])
    for sample, density in zip(weights, model.log_density_.ravel(), strict=True):
        logits = rows.float() @ sample[:8].view(2, 4).T + sample[8:]
        likelihood = -torch.nn.functional.cross_entropy(logits, labels.long(), reduction="sum")
        prior = -0.5 * (sample**2).sum() / model.prior_scale**2
        np.testing.assert_allclose(density, (likelihood + prior).item(), rtol=1e-4)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"step_size": 0}, r"Got step_size=0, but expected a finite number in \(0"),
        ({"num_steps": 0}, r"Got num_steps=0, but expected an integer of at least 1"),
        ({"n_samples": 5}, r"Got n_samples=5, but expected a multiple of n_chains=2"),
        ({"n_samples": 0}, r"Got n_samples=0"),
        ({"n_chains": 0}, r"Got n_chains=0, but expected an integer of at least 1"),
        ({"warmup": -1}, r"Got warmup=-1"),
        ({"warmup": 0, "adapt_step_size": True}, r"Got warmup=0, but expected at least 1 where"),
        ({"prior_scale": 0.0}, r"Got prior_scale=0.0"),
        ({"prior_scale": 1e300}, r"Got prior_scale=1e\+300"),
        ({"step_size": 1e39}, r"Got step_size=1e\+39"),
        ({"prior": "laplace"}, r"Got prior='laplace', but expected one of 'isotropic', 'fan-in'"),
        ({"activation": "elu"}, r"Got activation='elu', but expected one of 'relu', 'tanh'"),
        ({"adapt_step_size": 1}, r"Got adapt_step_size=1, but expected True or False"),
        ({"hidden_layer_sizes": (3, 0)}, r"Got hidden_layer_sizes=\(3, 0\)"),
        ({"input_shape": (4,)}, r"Got input_shape=\(4,\), but expected None, since"),
        ({"module_params": {"a": 1}}, r"Got module_params=.*unless module is a callable"),
        ({"module": 3}, r"Got module=3, but expected None or a callable"),
        ({"module": len}, r"Got module=.*len.* that takes these. It says: len\(\) takes"),
        ({"module": lambda: 3}, r"a callable that returns a torch.nn.Module"),
        ({"module": torch.nn.Linear(3, 2)}, r"Got a module that fails on rows of shape \(n, 4\)"),
        ({"module": torch.nn.Linear(4, 3)}, r"Got a module with outputs of shape \(2, 3\)"),
        ({"module": torch.nn.ReLU()}, r"Got a module without parameters"),
        ({"module": torch.nn.Linear(4, 2).double()}, r"Got a module with parameters of"),
        ({"device": "nowhere"}, r"Got device='nowhere'"),
        ({"random_state": -1}, r"Got random_state=-1"),
    ],
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fitted(**params)


def test_bad_data_are_named():
    X, y = data()
    with pytest.raises(ValueError, match="Got y with the one class"):
        small().fit(X, np.zeros(40))
    with pytest.raises(DivergedTrainingError, match=r"first weights is .* Scale the inputs"):
        small().fit(X * 1e38, y)
    with pytest.raises(NotFittedError):
        as_network(small())
    with pytest.raises(ValueError, match="4 features"):
        fitted().predict(X[:, :3])


def test_a_fit_that_fails_leaves_the_last_one(monkeypatch):
    model = fitted()
    X, _ = data()
    with pytest.raises(DivergedTrainingError):
        model.fit(X * 1e38, np.arange(40) % 3)
    assert model.classes_.tolist() == ["down", "up"]
    assert model.predict_proba(X).shape == (40, 2)


def test_missing_pyro_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "skrobust.estimators._hmc", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyro"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyro", None)
    with pytest.raises(ImportError, match=r"needs Pyro. .*pip install 'skrobust\[bayes\]'"):
        fitted()
