"""Tests of Lipschitz bounds: exact where they can be, above what is sampled, in order."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from skrobust import TorchClassifier
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from skrobust.verification import Cascade, Exact, LipschitzBounds, lipschitz_bound
from tests.verification._tensors import decided


def classifier(*layers, seed=0):
    return TorchClassifier(nn.Sequential(*layers).requires_grad_(False).eval(), [0, 1, 2])


def perceptron(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return classifier(
            nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3)
        )


def convolutional():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return classifier(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 2, 3, padding=1),
            nn.LeakyReLU(1.5),
            nn.MaxPool2d(3, stride=1),
            nn.Flatten(),
            nn.Linear(8, 3),
        )


def steepest_pair(model, n_features, order, seed=0):
    """Largest sampled slope between points that are close or far, in a norm of the outputs."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(20_000, n_features)).astype(np.float32)
    step = rng.uniform(-1, 1, size=x.shape) * rng.choice([1e-3, 1.0], size=(len(x), 1))
    module = model.module
    z, moved = (module(torch.as_tensor(p, dtype=torch.float32)).numpy() for p in (x, x + step))
    change = np.linalg.norm((moved - z).astype(np.float64), axis=1, ord=order)
    return (change / np.linalg.norm((x + step).astype(np.float32) - x, axis=1, ord=order)).max()


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2)])
@pytest.mark.parametrize(("factory", "n"), [(perceptron, 4), (convolutional, 16)])
def test_products_of_norms_lie_above_what_is_sampled(norm, order, factory, n):
    model = factory()
    bound = lipschitz_bound(model, norm=norm, X=np.zeros((1, n), dtype=np.float32))
    sampled = steepest_pair(model, n, order)
    assert sampled <= bound * (1 + 1e-3) < 100 * sampled


@pytest.mark.parametrize("seed", range(3))
def test_the_semidefinite_bound_lies_between(seed):
    model = perceptron(seed)
    X = np.zeros((1, 4), dtype=np.float32)
    product = lipschitz_bound(model, norm="l2", X=X)
    semidefinite = lipschitz_bound(model, norm="l2", method="lipsdp", X=X)
    assert steepest_pair(model, 4, 2) * (1 - 1e-3) <= semidefinite < product


def test_one_affine_map_has_its_operator_norm():
    weight = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    layer = nn.Linear(2, 3)
    layer.weight = nn.Parameter(weight)
    model = classifier(layer)
    X = np.full((2, 2), 0.5, dtype=np.float32)
    spectral = np.linalg.norm(weight.numpy(), 2)
    assert lipschitz_bound(model, norm="linf", X=X) == pytest.approx(7, rel=1e-9)
    assert lipschitz_bound(model, norm="l2", X=X) == pytest.approx(spectral, rel=1e-6)
    assert lipschitz_bound(model, norm="l2", method="lipsdp", X=X) == pytest.approx(spectral)
    # A single logit: the dual norm of its row.
    local = lipschitz_bound(model, norm="l2", method="local", X=X, epsilon=0.1)
    np.testing.assert_allclose(local, [5, 5], rtol=1e-6)


def test_local_bounds_grow_with_the_ball_and_hold():
    model = perceptron()
    X = np.random.default_rng(0).uniform(0.3, 0.7, size=(4, 4)).astype(np.float32)
    bounds = [
        lipschitz_bound(model, method="local", X=X, epsilon=epsilon)
        for epsilon in (0.01, 0.1, 0.3)
    ]
    assert (bounds[0] <= bounds[1] + 1e-12).all() and (bounds[1] <= bounds[2] + 1e-12).all()
    assert (bounds[2] <= lipschitz_bound(model, X=X)).all()
    rng = np.random.default_rng(1)
    step = rng.uniform(-0.3, 0.3, size=(5000, 4, 4))
    moved = torch.as_tensor(np.clip(X + step, 0, 1)).float()
    change = (model.module(moved) - model.module(torch.as_tensor(X))).abs().amax(2).numpy()
    distance = np.abs(moved.numpy() - X).max(axis=2)
    assert (change / distance <= bounds[2] * (1 + 1e-4)).all()


def test_lipsdp_is_refused_where_it_does_not_apply():
    X = np.zeros((1, 16), dtype=np.float32)
    with pytest.raises(UnsupportedModelError, match="fully connected ReLU networks"):
        lipschitz_bound(convolutional(), norm="l2", method="lipsdp", X=X)
    with pytest.raises(ValueError, match="expected norm='l2'"):
        lipschitz_bound(perceptron(), method="lipsdp", X=X[:, :4])


def test_bad_input_is_refused():
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="Got norm='l1'"):
        lipschitz_bound(model, norm="l1")
    with pytest.raises(ValueError, match="Got method='exact'"):
        lipschitz_bound(model, method="exact")
    with pytest.raises(ValueError, match="needs both"):
        lipschitz_bound(model, method="local", X=[[0.0]])


# ---- as a verifier -----------------------------------------------------------------------


def asked(model, lipschitz, norm="linf", epsilon=0.1, method="norm-product"):
    n = 4
    x = torch.rand((6, n), generator=torch.Generator().manual_seed(0))
    property = LipschitzRobustness(epsilon, lipschitz=lipschitz, norm=norm)
    return decided(LipschitzBounds(method), as_network(model), property, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("method", ["norm-product", "lipsdp", "local"])
def test_what_is_at_most_the_constant_is_proved(method, norm):
    model = perceptron()
    X = torch.rand((6, 4), generator=torch.Generator().manual_seed(0)).numpy()
    if method == "local":
        bound = lipschitz_bound(model, norm=norm, method=method, X=X, epsilon=0.1).max()
    elif method == "lipsdp":
        # Four features can move: by sqrt(4) further in the Euclidean norm than in the largest.
        scale = 2 if norm == "linf" else 1
        bound = scale * lipschitz_bound(model, norm="l2", method=method, X=X)
    else:
        bound = lipschitz_bound(model, norm=norm, method=method, X=X)
    above, below = (asked(model, bound * k, norm, method=method) for k in (1.0001, 0.9999))
    assert (above.verdicts == "verified").all()
    assert (below.verdicts == "unknown").any()
    assert (below.verdicts != "falsified").all()


def test_few_features_that_move_make_the_semidefinite_bound_smaller():
    model = perceptron()
    bound = lipschitz_bound(model, norm="l2", method="lipsdp", X=np.zeros((1, 4)))
    one = asked(model, 1.0001 * bound, epsilon=[0.1, 0.0, 0.0, 0.0], method="lipsdp")
    assert (one.verdicts == "verified").all()
    assert (asked(model, 1.0001 * bound, method="lipsdp").verdicts == "unknown").all()


def test_what_it_proves_no_attack_breaks_and_exact_confirms():
    model = perceptron()
    bound = lipschitz_bound(model, norm="linf", X=np.zeros((1, 4)))
    found = Cascade([LipschitzBounds("local"), Exact()], cross_check=Exact())
    x = torch.rand((6, 4), generator=torch.Generator().manual_seed(0))
    for lipschitz in (0.2 * bound, 0.5 * bound, bound):
        property = LipschitzRobustness(0.1, lipschitz=lipschitz)
        verdicts = decided(found, as_network(model), property, x)  # disagreement would warn
        assert (verdicts.verdicts != "unknown").all()
    assert (verdicts.decided_by == "lipschitzbounds").all()


def test_other_properties_are_refused():
    network, x = as_network(perceptron()), torch.zeros((1, 4))
    with pytest.raises(UnsupportedPropertyError, match="LipschitzRobustness"):
        decided(LipschitzBounds(), network, ClassificationRobustness(0.1), x)
    with pytest.raises(ValueError, match="Got method='sdp'"):
        LipschitzBounds("sdp").check()


def test_arguments_that_a_method_has_no_use_for_are_refused():
    model = LogisticRegression().fit([[0.2, 0.1], [0.8, 0.4]], [0, 1])
    with pytest.raises(ValueError, match=r"Got epsilon=0\.1, but expected None, unless"):
        lipschitz_bound(model, epsilon=0.1)
    with pytest.raises(ValueError, match="Got bounds="):
        lipschitz_bound(model, bounds="x")


def test_a_network_without_layers_has_no_semidefinite_program():
    model = TorchClassifier(nn.Flatten(), 3)
    with pytest.raises(UnsupportedModelError, match="without linear layers"):
        lipschitz_bound(model, norm="l2", method="lipsdp", X=np.full((1, 3), 0.5))
