"""The methods: their order, ties, failures, and agreement with exact radii."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from skrobust import TorchClassifier
from skrobust.attacks import PGD
from skrobust.exceptions import AttackWarning
from skrobust.graphs import _reading
from skrobust.networks import as_network
from skrobust.pointwise import PointwiseStatus, _methods, pointwise_robustness
from skrobust.pointwise._programs import LazyPrograms
from tests.pointwise._nets import (
    assert_confirmed,
    convolutional,
    diagonal,
    global_radius,
    perceptron,
    plateau,
    points,
    seeded,
    tent,
)


def test_infeasible_region():
    # f = relu(x1 - 0.5): left of 0.5 the second score is constant, and never wins.
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    module[0].weight.data, module[0].bias.data = torch.ones(1, 1), torch.tensor([-0.5])
    module[2].weight.data = torch.tensor([[0.0], [1.0]])
    module[2].bias.data = torch.tensor([0.25, 0.0])
    model = TorchClassifier(module, 2)
    for solver in ("lazy", "cvxpy"):
        result = pointwise_robustness(model, [[0.25]], solver=solver)
        assert result.status[0] == PointwiseStatus.INFEASIBLE
        assert result.radius[0] == np.inf
    # The true radius is 0.5, which the attack and the polish find in another region.
    attack = PGD(n_restarts=10)
    found = pointwise_robustness(model, [[0.25]], method="bracket", attack=attack, random_state=0)
    assert found.upper[0] == pytest.approx(0.5, abs=1e-5)
    assert 0.25 <= found.lower[0] <= 0.5


@pytest.mark.parametrize("method", ["lp", "polished", "attack", "lbfgs", "bracket"])
@pytest.mark.parametrize(
    ("factory", "n_features"), [(perceptron, 5), (convolutional, 64)], ids=["dense", "conv"]
)
def test_points_are_confirmed(method, factory, n_features):
    model = TorchClassifier(seeded(factory), 3)
    X = points(6, n_features)
    labels = model.predict(X)
    result = pointwise_robustness(model, X, method=method, targets="all", random_state=0)
    assert_confirmed(model, X, result, labels)
    assert (result.lower <= result.upper).all()


def test_polished_is_never_larger_than_attack_or_lp_and_certified_never_above():
    model = TorchClassifier(seeded(perceptron, 3), 3)
    X = points(20, 5)
    radius = {
        method: pointwise_robustness(model, X, method=method, random_state=0).radius
        for method in ("lp", "attack", "polished", "certified")
    }
    assert np.isfinite(radius["polished"]).any()
    assert (radius["polished"] <= radius["attack"]).all()
    assert (radius["polished"] <= radius["lp"]).all()
    assert (radius["certified"] <= radius["polished"]).all()
    assert (radius["certified"] > 0).all()


def test_brackets_enclose_the_true_radius():
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)), 1)
    model = TorchClassifier(module, 3)
    X = points(6, 3)
    true = np.array([global_radius(module, x.astype(float), 5) for x in X])
    assert np.isfinite(true).any()
    bracket = pointwise_robustness(model, X, method="bracket", random_state=0)
    assert (bracket.lower <= true + 1e-9).all()
    assert (bracket.upper >= true - 1e-7).all()
    found = np.isfinite(true)
    # Polishing ends at the true radius for nearly all points of so small a net.
    assert (bracket.upper[found] <= true[found] + 1e-5).mean() >= 0.8
    lp = pointwise_robustness(model, X, targets="all")
    assert (lp.radius >= true - 1e-7).all()


def test_exact_is_the_true_radius_within_the_precision():
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)), 1)
    model = TorchClassifier(module, 3)
    X = points(6, 3)
    true = np.array([global_radius(module, x.astype(float), 5) for x in X])
    found = pointwise_robustness(model, X, method="exact", precision=1e-4, random_state=0)
    assert set(found.status) == {"optimal"}
    np.testing.assert_allclose(found.radius, true, atol=2e-4)
    assert (found.lower <= true + 1e-9).all()
    assert (found.upper - found.lower).max() <= 1.1e-4
    np.testing.assert_array_equal(found.bound, found.lower)
    assert_confirmed(model, X, found, model.predict(X))


def test_exact_proves_that_nothing_is_to_be_found():
    # Up to 0.375, x1 + x2 stays below 1.
    found = pointwise_robustness(diagonal(), [[0.25, 0.25]], method="exact", bounds=(0, 0.375))
    assert found.status.tolist() == ["no adversarial example"]
    assert found.radius[0] == np.inf and found.lower[0] >= 0.25


def test_exact_finds_what_the_region_of_the_sample_does_not_hold():
    # In the middle of the tent both sides are 1/4 away; from 0.4375 the left one is 3/16 away.
    found = pointwise_robustness(tent(), [[0.5, 0.5], [0.4375, 1.0]], method="exact")
    np.testing.assert_allclose(found.radius, [0.25, 0.1875], atol=1e-3)
    assert set(found.status) == {"optimal"}


def test_exact_stops_at_epsilon_max_and_says_so():
    X = [[0.25, 0.25], [0.4375, 0.5]]
    found = pointwise_robustness(diagonal(), X, method="exact", epsilon_max=0.1)
    assert found.status.tolist() == ["above epsilon_max", "optimal"]
    assert found.lower[0] == 0.1 and found.radius[0] == np.inf
    assert found.radius[1] == pytest.approx(0.03125, abs=1e-3)


def test_exact_says_why_a_bracket_stays_open():
    model = TorchClassifier(seeded(convolutional), 3)
    X = points(3, 64)
    bracket = pointwise_robustness(model, X, method="bracket", random_state=0)
    options = {"timeout": 1e-9, "precision": 1e-9, "random_state": 0}
    found = pointwise_robustness(model, X, method="exact", **options)
    assert set(found.status) == {"time limit"}
    np.testing.assert_array_equal(found.lower, bracket.lower)
    np.testing.assert_array_equal(found.radius, bracket.radius)


def test_polished_has_an_example_wherever_lbfgs_has_one():
    # Where the attack and the program find nothing, polishing starts from what lbfgs finds.
    model = TorchClassifier(seeded(perceptron, 3), 3)
    X = points(10, 5)
    lbfgs = pointwise_robustness(model, X, method="lbfgs", random_state=0)
    nothing = PGD(n_steps=1, step_size=1e-9, random_start=False)
    found = pointwise_robustness(
        model, X, method="polished", attack=nothing, max_rows=1, random_state=0
    )
    assert np.isfinite(lbfgs.radius).sum() > 5
    assert np.isfinite(found.radius[np.isfinite(lbfgs.radius)]).all()
    by_lbfgs = np.isinf(
        pointwise_robustness(model, X, method="lp", max_rows=1, random_state=0).radius
    )
    assert by_lbfgs.any()
    assert (found.radius[by_lbfgs] <= lbfgs.radius[by_lbfgs] * (1 + 1e-6)).all()


@pytest.mark.parametrize("options", [{"targets": "all"}, {"margin": 1e-9}, {"max_rows": 3}])
def test_polished_is_never_larger_than_others_with_the_same_parameters(options):
    model = TorchClassifier(seeded(perceptron, 5), 3)
    X = points(15, 5)
    radius = {
        method: pointwise_robustness(model, X, method=method, random_state=0, **options).radius
        for method in ("lp", "attack", "lbfgs", "polished")
    }
    assert np.isfinite(radius["lp"]).any()
    for method in ("lp", "attack", "lbfgs"):
        assert (radius["polished"] <= radius[method]).all(), method


def test_points_of_relaxed_programs_are_tried_where_any_example_counts(monkeypatch):
    tried = {"lp": 0, "polished": 0}
    violated = LazyPrograms._violated

    def counted(self, k, moves, n_rows):
        tried[method] += self.try_points is not None
        return violated(self, k, moves, n_rows)

    monkeypatch.setattr(LazyPrograms, "_violated", counted)
    model, X = TorchClassifier(seeded(convolutional), 3), points(4, 64)
    for method in tried:
        pointwise_robustness(model, X, method=method, random_state=0)
    assert tried["lp"] == 0 < tried["polished"]


def test_constant_inputs_and_equal_pool_entries():
    module = seeded(convolutional)
    model = TorchClassifier(module, 3)
    X = np.stack([np.zeros(64), np.full(64, 0.5), np.ones(64)]).astype(np.float32)
    labels = model.predict(X)
    result = pointwise_robustness(model, X, method="polished", random_state=0)
    assert_confirmed(model, X, result, labels)
    assert PointwiseStatus.FAILURE not in result.status


def test_failure_on_one_point_leaves_the_others_whole(monkeypatch):
    X = np.array([[0.25, 0.25], [0.375, 0.5], [0.0, 0.5]])
    expected = pointwise_robustness(diagonal(), X)
    solve = LazyPrograms.solve

    def failing(self, *args):
        if (self.centers[:, 0] == 0.375).any():
            raise FloatingPointError("injected")
        return solve(self, *args)

    monkeypatch.setattr(_methods.LazyPrograms, "solve", failing)
    result = pointwise_robustness(diagonal(), X)
    assert result.status.tolist() == ["optimal", "numerical failure", "optimal"]
    assert result.radius[1] == np.inf
    np.testing.assert_array_equal(result.radius[[0, 2]], expected.radius[[0, 2]])


def test_mistakes_in_the_search_are_not_hidden(monkeypatch):
    def failing(self, *args):
        raise ValueError("injected")

    monkeypatch.setattr(_methods.LazyPrograms, "solve", failing)
    with pytest.raises(ValueError, match="injected"):
        pointwise_robustness(diagonal(), [[0.25, 0.25]])


@pytest.mark.parametrize("solver", ["lazy", "cvxpy"])
@pytest.mark.parametrize(
    "method", ["lp", "attack", "lbfgs", "polished", "certified", "bracket", "exact"]
)
def test_sample_at_which_labels_tie_has_radius_zero(method, solver):
    X = np.array([[0.5, 0.5], [0.25, 0.25]])
    model = diagonal()
    found = pointwise_robustness(model, X, method=method, solver=solver, random_state=0)
    assert found.radius[0] == found.lower[0] == found.upper[0] == found.bound[0] == 0.0
    np.testing.assert_array_equal(found.adversarial_examples[0], X[0])
    assert found.status[0] in ("optimal", "found", "certified")
    assert found.radius[1] > 0.2


@pytest.mark.parametrize("attack", [None, PGD()], ids=["default", "far"])
@pytest.mark.parametrize("method", ["lp", "polished", "attack", "bracket", "exact"])
def test_tie_beside_which_no_other_label_wins_is_an_example(method, attack):
    # PGD alone stops somewhere on the plateau; it is pulled to its edge.
    found = pointwise_robustness(plateau(), [[0.25]], method=method, attack=attack, random_state=0)
    assert found.radius[0] == pytest.approx(0.25, abs=1e-5)
    assert found.status[0] == ("optimal" if method in ("lp", "exact") else "found")


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_logits_with_a_common_offset_tie_in_float32_and_no_radius_is_missed(offset):
    module = copy.deepcopy(seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(),
                                                        nn.Linear(6, 3)), 1))  # fmt: skip
    module[2].bias.data += offset
    model, X = TorchClassifier(module, 3), points(8, 4)
    found = {
        method: pointwise_robustness(model, X, method=method, random_state=0)
        for method in ("lp", "attack", "polished", "exact")
    }
    radius = {method: result.radius for method, result in found.items()}
    assert (radius["polished"] <= np.minimum(radius["lp"], radius["attack"])).all()
    exact = found["exact"]
    closed = exact.status == "optimal"
    assert closed.any()
    assert (exact.radius - exact.lower)[closed].max() <= 1e-3 * (1 + 1e-9)


def test_tie_of_other_labels_or_with_a_margin_is_not_the_answer_of_the_program():
    # Scores x1, x2 and 1 - x1 - x2 + 1/4: at (1/2, 1/2) the first two tie.
    module = nn.Linear(2, 3)
    module.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    module.bias.data = torch.tensor([0.0, 0.0, 1.25])
    model, X = TorchClassifier(module, ["a", "b", "c"]), [[0.5, 0.5]]
    for targets, margin, expected in (
        ("runner-up", 0.0, 0.0), ("b", 0.0, 0.0), ("all", 0.0, 0.0),
        ("c", 0.0, 0.25 / 3), ("b", 0.5, 0.25), ("runner-up", 0.5, 0.25),
    ):  # fmt: skip
        found = pointwise_robustness(model, X, targets=targets, margin=margin)
        assert found.optimum[0] == pytest.approx(expected, abs=1e-9), (targets, margin)
        assert found.bound[0] == pytest.approx(expected, abs=1e-9)


def test_of_several_targets_the_closest_counts_and_the_weightiest_reason():
    # From 1/4, label 1 wins from 1/2 on and label 2 nowhere.
    module = nn.Linear(1, 3)
    module.weight.data = torch.tensor([[0.0], [1.0], [0.0]])
    module.bias.data = torch.tensor([0.5, 0.0, -5.0])
    model = TorchClassifier(module, 3)
    found = pointwise_robustness(model, [[0.25]], targets="all")
    assert found.status[0] == "optimal"
    assert found.bound[0] == found.optimum[0] == pytest.approx(0.25)
    found = pointwise_robustness(model, [[0.25]], targets="all", epsilon_max=0.125)
    assert found.status[0] == "above epsilon_max"
    found = pointwise_robustness(model, [[0.25]], targets=2)
    assert found.status[0] == "infeasible region"


@pytest.mark.parametrize("end", ["rows", "failure", "error"])
def test_a_target_without_an_answer_is_told_where_another_one_gave_an_example(monkeypatch, end):
    # From 1/4, label 1 wins from 1/2 on, and label 2 up to 1/8.
    module = nn.Linear(1, 3)
    module.weight.data = torch.tensor([[0.0], [1.0], [-2.0]])
    module.bias.data = torch.tensor([0.5, 0.0, 0.75])
    solve, bound = LazyPrograms.solve, {"rows": 0.0625, "failure": 0.0, "error": 0.0}[end]

    def stopping(self, *args):
        found = solve(self, *args)
        if (self.targets == 2).any():
            if end == "error":
                raise FloatingPointError("injected")
            found.keep(np.flatnonzero(self.targets == 2), end, bound)
        return found

    model, X = TorchClassifier(module, 3), [[0.25]]
    expected = pointwise_robustness(model, X, targets="all")
    assert expected.status[0] == "optimal" and expected.optimum[0] == pytest.approx(0.125)
    monkeypatch.setattr(LazyPrograms, "solve", stopping)
    found = pointwise_robustness(model, X, targets="all")
    assert found.status[0] == ("row limit" if end == "rows" else "numerical failure")
    assert found.radius[0] == pytest.approx(0.25, abs=1e-4) and found.bound[0] == bound


class Blind(PGD):
    """Finds nothing."""

    def closest(self, target, **options):
        found = super().closest(target, **options)
        return replace(found, broken=torch.zeros_like(found.broken))


@pytest.mark.parametrize("end", ["rows", "failure"])
def test_polished_tells_where_a_program_has_no_answer_and_nothing_is_found(monkeypatch, end):
    solve = LazyPrograms.solve

    def stopping(self, *args):
        self.try_points = None  # else they are examples
        found = solve(self, *args)
        found.keep(np.arange(len(found.status)), end, 0.0)
        return found

    monkeypatch.setattr(LazyPrograms, "solve", stopping)
    monkeypatch.setattr(_methods, "LBFGS", Blind)
    options = {"method": "polished", "random_state": 0}
    found = pointwise_robustness(diagonal(), [[0.25, 0.25]], attack=Blind(), **options)
    assert found.status[0] == ("row limit" if end == "rows" else "numerical failure")
    found = pointwise_robustness(diagonal(), [[0.25, 0.25]], attack=PGD(), **options)
    assert found.status[0] == "found"


def test_a_target_that_stopped_beyond_the_example_of_another_one_changes_nothing():
    with torch.random.fork_rng():
        torch.manual_seed(243)
        module = perceptron(4, 24, 5)
        for parameter in module.parameters():
            parameter.data *= 2.5
    model, X = TorchClassifier(module, 5), np.random.default_rng(243).uniform(size=(64, 4))
    X = X.astype(np.float32)
    few = pointwise_robustness(model, X, targets="all", max_rows=5)
    free = pointwise_robustness(model, X, targets="all")
    is_larger = few.radius > free.radius * (1 + 1e-4)
    stopped = few.status == "row limit"
    assert (is_larger & np.isfinite(few.radius)).any()
    assert stopped[is_larger].all()
    assert not (few.bound > free.optimum * (1 + 1e-6))[stopped].any()
    closed = few.status == "optimal"
    assert closed.sum() > 10
    np.testing.assert_allclose(few.radius[closed], free.radius[closed], rtol=1e-4)


def test_exact_keeps_what_bounds_have_proven():
    module = nn.Linear(3, 2)
    module.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    module.bias.data = torch.tensor([10.0, 0.0])
    model, X = TorchClassifier(module, 2), np.full((2, 3), 0.5)
    options = {"method": "exact", "timeout": 1e-9, "random_state": 0}
    found = pointwise_robustness(model, X, **options)
    assert set(found.status) == {"no adversarial example"}
    found = pointwise_robustness(model, X, epsilon_max=0.125, **options)
    assert set(found.status) == {"above epsilon_max"}


@pytest.mark.parametrize(
    "method", ["lp", "polished", "attack", "lbfgs", "certified", "bracket", "exact"]
)
def test_a_network_is_read_once_whatever_the_number_of_chunks(monkeypatch, method):
    traced = []
    trace = _reading.trace

    def counted(module, x, **options):
        traced.append(len(x))
        return trace(module, x, **options)

    monkeypatch.setattr(_reading, "trace", counted)
    options = {"method": method, "chunk_size": 2, "random_state": 0}
    pointwise_robustness(diagonal(), points(7, 2) / 4, **options)
    assert len(traced) == (method not in ("attack", "lbfgs"))


@pytest.mark.parametrize("method", ["lp", "polished", "certified", "exact"])
def test_a_reading_travels_to_other_processes(monkeypatch, method):
    model, X = TorchClassifier(seeded(perceptron), 3), points(4, 5)
    options = {"method": method, "random_state": 0, "precision": 1e-2}
    expected = pointwise_robustness(model, X, **options)
    network = as_network(model, input_shape=(5,))
    reading = _methods.read(network, 5, method, (0.0, 1.0))
    monkeypatch.setattr(_reading, "trace", None)  # nothing is read again
    travelled = pickle.loads(pickle.dumps(reading))
    arrays = _methods.measure(travelled, X, None, _seed(0), **measured(method, 1e-2))
    np.testing.assert_array_equal(arrays["radius"], expected.radius)


def _seed(random_state):
    """The seed that the first chunk is given."""
    return int(np.random.RandomState(random_state).randint(2**31 - 1, size=1)[0])


def measured(method, precision=1e-3, solver="lazy"):
    """The arguments that `pointwise_robustness` hands on by default."""
    search = {"attack": None, "epsilon_max": np.inf, "bounds": (0.0, 1.0), "timeout": 60.0}
    programs = {"solver": solver, "targets": "runner-up", "margin": 0.0, "max_rows": 100}
    return {"method": method, "precision": precision, **search, **programs}


class Elsewhere(TorchFunctionMode):
    """A fake second device: what is made without saying where lies on it, and computes nothing."""

    makers = (torch.zeros, torch.ones, torch.full, torch.arange, torch.eye, torch.linspace)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in self.makers and kwargs.get("device") is None:
            kwargs = kwargs | {"device": "meta"}
        return function(*args, **kwargs)


@pytest.mark.parametrize(
    ("method", "solver"),
    [("lp", "lazy"), ("lp", "cvxpy"), ("certified", "lazy"), ("polished", "lazy"),
     ("attack", "lazy")],
)  # fmt: skip
def test_all_tensors_are_made_where_the_network_is(method, solver):
    model, X = TorchClassifier(seeded(convolutional), 3), points(4, 64)
    reading = _methods.read(as_network(model, input_shape=(64,)), 64, method, (0.0, 1.0))
    arguments = measured(method, solver=solver)
    expected = _methods.measure(reading, X, None, 0, **arguments)
    with Elsewhere():
        arrays = _methods.measure(reading, X, None, 0, **arguments)
    for name in ("radius", "status", "lower"):
        np.testing.assert_array_equal(arrays[name], expected[name])


class Failing(PGD):
    """Fails wherever a sample begins with 0.375."""

    error = FloatingPointError

    def closest(self, target, **options):
        if (target.x[:, 0] == 0.375).any():
            raise self.error("injected")
        return super().closest(target, **options)


def test_an_attack_that_fails_on_one_sample_leaves_the_others_whole():
    X = np.array([[0.25, 0.25], [0.375, 0.5], [0.0, 0.5]])
    options = {"method": "attack", "random_state": 0}
    with pytest.warns(AttackWarning, match="Failing failed on a sample.*FloatingPointError: inj"):
        found = pointwise_robustness(diagonal(), X, attack=Failing(), **options)
    assert found.status.tolist() == ["found", "numerical failure", "found"]
    assert found.radius[1] == np.inf and np.isnan(found.adversarial_examples[1]).all()
    assert ((found.radius >= 0.25) & (found.radius < 0.5))[[0, 2]].all()
    # What other searches find is not lost.
    with pytest.warns(AttackWarning, match="injected"):
        found = pointwise_robustness(diagonal(), X, method="polished", attack=Failing())
    assert found.radius[1] == pytest.approx(0.0625, abs=1e-5)


def test_mistakes_in_an_attack_are_not_hidden(monkeypatch):
    monkeypatch.setattr(Failing, "error", TypeError)
    with pytest.raises(TypeError, match="injected"):
        pointwise_robustness(diagonal(), [[0.375, 0.5]], method="attack", attack=Failing())
