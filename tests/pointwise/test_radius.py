"""`pointwise_robustness` as users call it: worked by hand, with bad input, in jobs."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from skrobust import TorchClassifier
from skrobust.exceptions import UnsupportedModelError
from skrobust.pointwise import pointwise_robustness
from tests.pointwise._nets import diagonal, perceptron, points, seeded


@pytest.mark.parametrize("method", ["lp", "polished", "attack", "certified", "exact"])
def test_hand_worked_affine(method):
    X = np.array([[0.25, 0.25], [1.0, 0.5], [0.0, 0.9375]])
    result = pointwise_robustness(diagonal(), X, method=method, random_state=0)
    atol = 1e-3 if method == "exact" else 2e-4
    np.testing.assert_allclose(result.radius, [0.25, 0.25, 0.03125], atol=atol)
    if method == "lp":
        np.testing.assert_allclose(result.optimum, [0.25, 0.25, 0.03125], atol=1e-12)
        assert set(result.status) == {"optimal"}


def test_epsilon_max_stops_the_search():
    X = np.array([[0.25, 0.25], [0.4375, 0.5]])
    for method in ("lp", "polished"):
        result = pointwise_robustness(
            diagonal(), X, method=method, epsilon_max=0.1, random_state=0
        )
        assert result.radius[0] == np.inf
        assert result.radius[1] == pytest.approx(0.03125, abs=1e-5)
    result = pointwise_robustness(diagonal(), X, epsilon_max=0.1)
    assert result.status.tolist() == ["above epsilon_max", "optimal"]


def test_targets():
    # Scores 0, x1 - 0.5, 2 x1 - 0.75 at x1 = 0: runner-up is 1 (0.5 away), 2 needs 0.375.
    module = nn.Linear(1, 3)
    module.weight.data = torch.tensor([[0.0], [1.0], [2.0]])
    module.bias.data = torch.tensor([0.0, -0.5, -0.75])
    model = TorchClassifier(module, ["a", "b", "c"])
    radius = {
        targets: pointwise_robustness(model, [[0.0]], targets=targets).radius[0]
        for targets in ("runner-up", "all", "c")
    }
    # Where the runner-up must also beat "c", it never can in [0, 1]: 2 x1 - 0.75 > x1 - 0.5
    # for x1 > 0.25.
    assert radius["runner-up"] == np.inf
    assert radius["all"] == radius["c"] == pytest.approx(0.375, abs=1e-5)


def test_misclassified_samples_have_radius_zero():
    X = np.array([[0.25, 0.25], [0.25, 0.25]])
    result = pointwise_robustness(diagonal(), X, y=[1, 0])
    assert result.radius[0] == 0.0
    assert result.status.tolist() == ["already misclassified", "optimal"]
    assert (result.adversarial_examples[0] == X[0]).all()


def test_what_ends_before_any_point_is_found_keeps_its_reason_in_sklearn_models():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = LogisticRegression(max_iter=300).fit(X[:600], y[:600])
    found = pointwise_robustness(model, X[600:604], margin=1e3)
    assert set(found.status) == {"infeasible region"}
    assert (found.bound == np.inf).all()
    full = pointwise_robustness(model, X[600:604])
    assert set(full.status) == {"optimal"}
    for i, factor in enumerate((1 - 1e-9, 1 + 1e-9)):
        limit = full.optimum[i] * factor
        found = pointwise_robustness(model, X[600 + i : 601 + i], epsilon_max=limit)
        assert found.status[0] in ("above epsilon_max", "optimal")
        assert found.bound[0] == pytest.approx(full.optimum[i], rel=1e-6)
        assert found.radius[0] == np.inf or found.radius[0] <= limit


def test_bounds_that_float32_rounds_outwards_hold_the_sample():
    module = nn.Linear(2, 2)
    module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    module.bias.data = torch.tensor([0.0, -0.5])
    assert float(np.float32(0.3)) > 0.3
    found = pointwise_robustness(TorchClassifier(module, 2), [[0.3, 0.3]], bounds=(0.0, 0.3))
    assert found.status[0] == "optimal"
    assert found.radius[0] == pytest.approx(0.05, abs=1e-5)


def test_threads_may_share_a_model():
    model, X = TorchClassifier(seeded(perceptron), 3), points(24, 5)
    expected = pointwise_robustness(model, X, epsilon_max=0.2, chunk_size=2)
    for _ in range(3):
        with joblib.parallel_config(backend="threading"):
            found = pointwise_robustness(model, X, epsilon_max=0.2, chunk_size=2, n_jobs=4)
        np.testing.assert_array_equal(found.radius, expected.radius)


def test_jobs_and_chunks_make_no_difference(tmp_path):
    model = TorchClassifier(seeded(perceptron), 3)
    X = points(7, 5)
    options = {"method": "polished", "random_state": 0, "chunk_size": 3}
    one = pointwise_robustness(model, X, **options)
    two = pointwise_robustness(model, X, n_jobs=2, memory=str(tmp_path), **options)
    kept = pointwise_robustness(model, X, memory=str(tmp_path), **options)
    for other in (two, kept):
        np.testing.assert_array_equal(one.radius, other.radius)
        np.testing.assert_array_equal(one.adversarial_examples, other.adversarial_examples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "Got method='magic', but expected one of 'lp'"),
        ({"solver": "abacus"}, "Got solver='abacus', but expected one of 'lazy', 'cvxpy'"),
        ({"margin": -1.0}, r"Got margin=-1.0, but expected a finite number in \[0"),
        ({"epsilon_max": -1.0}, r"Got epsilon_max=-1.0, but expected a non-negative finite float"),
        ({"targets": 7}, r"Got targets=7, but expected .*one of the classes \[0, 1\]"),
        ({"targets": "runner"}, "Got targets='runner', but expected 'runner-up', 'all'"),
        ({"bounds": (0.0, 0.3)}, "1 of 2 rows of X lie outside"),
        ({"y": [0]}, "Got y of length 1, but expected 2"),
        ({"y": [0, 5]}, "expected labels among the estimator's classes"),
        ({"bounds": None, "method": "attack"}, "Got bounds=None and epsilon_max=None"),
        ({"bounds": (0, np.inf), "method": "certified"}, "Got infinite bounds and epsilon_max"),
        ({"bounds": (-np.inf, 1), "method": "exact"}, "expected finite bounds or an epsilon_max"),
        ({"chunk_size": 0}, "Got chunk_size=0"),
        ({"max_rows": 0}, "Got max_rows=0"),
        ({"precision": 0.0}, r"Got precision=0.0, but expected a finite number in \(0"),
        ({"timeout": 0.0}, r"Got timeout=0.0, but expected a finite number in \(0"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        pointwise_robustness(diagonal(), [[0.25, 0.25], [0.5, 0.25]], **options)


def test_samples_and_modules_that_do_not_fit_are_refused_by_name():
    for method in ("lp", "attack"):
        with pytest.raises(ValueError, match="Got X with 3 features, but expected 2"):
            pointwise_robustness(diagonal(), [[0.25, 0.25, 0.5]], method=method)
    with pytest.raises(
        ValueError, match=r"outputs of shape \(1, 2\) for 1 rows, but expected \(1, 3\)"
    ):
        pointwise_robustness(TorchClassifier(nn.Linear(2, 2), 3), [[0.25, 0.25]])
    with pytest.raises(ValueError, match=r"classes \[0\], but expected at least two"):
        pointwise_robustness(TorchClassifier(nn.Linear(2, 1), 1), [[0.25, 0.25]])
    with pytest.raises(UnsupportedModelError, match="bfloat16, but expected"):
        pointwise_robustness(TorchClassifier(nn.Linear(2, 2).bfloat16(), 2), [[0.25, 0.25]])
    with pytest.raises(ValueError, match=r"expected \(n_samples, n_features\)"):
        pointwise_robustness(diagonal(), [0.25, 0.25])
    module = nn.Linear(2, 2)
    module.bias.data[0] = torch.nan
    with pytest.raises(UnsupportedModelError, match="returns NaN or infinity"):
        pointwise_robustness(TorchClassifier(module, 2), [[0.25, 0.25]])


def test_what_is_not_piecewise_linear_is_refused_but_attacked():
    model = TorchClassifier(nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2)), 2)
    with pytest.raises(UnsupportedModelError, match=r"Sigmoid \(layer 1 \(Sigmoid\)\)"):
        pointwise_robustness(model, [[0.5, 0.5]])
    result = pointwise_robustness(model, [[0.5, 0.5]], method="attack", random_state=0)
    assert result.status[0] in ("found", "not found")
