"""What the rerun on global robustness computes, on networks and numbers that are known by hand."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from torch import nn

from skrobust import RobustClassifier
from skrobust.datasets import load_digits

PAPERS = Path(__file__).parents[1] / "benchmarks" / "papers"
SIZES = {"n_train": 200, "n_validation": 20}


@pytest.fixture(scope="module")
def study():
    """The modules of the script."""
    sys.path.insert(0, str(PAPERS))
    parts = ("grids", "nets", "cells", "statistics", "read", "report", "notes")
    try:
        modules = {part: importlib.import_module(f"_global_{part}") for part in parts}
        modules["script"] = importlib.import_module("global_robustness")
        modules["rerun"] = importlib.import_module("_rerun")
        yield SimpleNamespace(**modules)
    finally:
        sys.path.remove(str(PAPERS))


# ---- grids and modules -------------------------------------------------------------


def test_grids_have_the_sizes_of_the_paper_s_tables(study):
    assert study.grids.SIZES == {
        "B.1": 720,
        "B.2": 2880,
        "B.3": 405,
        "B.4": 2160,
        "B.5": 4860,
        "B.6": 1296,
        "B.7": 864,
        "B.8": 1296,
        "B.9": 108,
    }
    sizes = {name: len(ParameterGrid(grid)) for name, grid in study.grids.GRIDS.items()}
    assert sizes == study.grids.SIZES


def linear_shapes(module):
    linear = [part for part in module if isinstance(part, nn.Linear)]
    return [(part.in_features, part.out_features) for part in linear]


def test_perceptrons_by_hand(study):
    module = study.grids.build((1, 4, 5), 3, depth=2, width=7, activation="tanh")
    assert linear_shapes(module) == [(20, 7), (7, 7), (7, 3)]
    assert [type(part) for part in module].count(nn.Tanh) == 2
    assert study.grids.n_weights(module) == 21 * 7 + 8 * 7 + 8 * 3
    assert study.cells._n_weights(20, 3, 2, 7) == 21 * 7 + 8 * 7 + 8 * 3


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("conv_depth", [1, 2, 3, 4])
def test_cnns_halve_their_images_and_keep_them_otherwise(study, conv_depth, kernel):
    shape = {"filters": 5, "kernel": kernel, "conv_depth": conv_depth}
    module = study.grids.build((1, 28, 28), depth=1, width=6, **shape)
    side = [14, 7, 3, 1][conv_depth - 1]
    assert linear_shapes(module) == [(5 * side**2, 6), (6, 10)]
    assert module(torch.zeros(2, 784).reshape(2, 1, 28, 28)).shape == (2, 10)
    convolutions = [part for part in module if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == conv_depth
    assert {part.kernel_size for part in convolutions} == {(kernel, kernel)}


def test_vgg_blocks_are_two_convolutions_and_a_pool(study):
    module = study.grids.build((3, 32, 32), depth=2, width=6, blocks=3, filters=4, kernel=3)
    names = [type(part).__name__ for part in module]
    block = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    assert names == [*block * 3, "Flatten", *["Linear", "ReLU"] * 2, "Linear"]
    assert linear_shapes(module)[0] == (4 * 4**2, 6)
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_every_grid_of_networks_can_be_built(study):
    shapes = {"B.5": (3, 32, 32)}
    architecture = {"depth", "width", "activation", "conv_depth", "blocks", "filters", "kernel"}
    for name, grid in study.grids.GRIDS.items():
        largest = {key: grid[key][-1] for key in architecture & set(grid)}
        shape = shapes.get(name, (1, 28, 28))
        assert study.grids.build(shape, **largest)(torch.zeros(1, *shape)).shape == (1, 10)


# ---- data, and what is read of networks ----------------------------------------------


def test_training_and_validation_images_are_apart(study):
    X, y, shape = study.nets.images("digits", "train", n_train=None, n_validation=20)
    V, _, _ = study.nets.images("digits", "validation", n_train=None, n_validation=20)
    assert (len(X), len(y), len(V), shape) == (1280, 1280, 20, (1, 8, 8))
    everything = np.unique(np.concatenate([X, V]), axis=0)
    digits = load_digits(return_X_y=True)[0][:1300].astype(np.float32)
    np.testing.assert_array_equal(everything, np.unique(digits, axis=0))
    few, _, _ = study.nets.images("digits", "train", n_train=7, n_validation=20)
    np.testing.assert_array_equal(few, X[:7])


def test_pooled_images_are_averages(study):
    settings = {"n_train": 3, "n_validation": 20}
    X, _, _ = study.nets.images("digits", "train", **settings)
    pooled, _, shape = study.nets.images("digits", "train", pool=2, **settings)
    assert shape == (1, 4, 4)
    corner = X.reshape(-1, 8, 8)[:, 2:4, 6:8].mean(axis=(1, 2))
    np.testing.assert_allclose(pooled.reshape(-1, 4, 4)[:, 1, 3], corner, rtol=1e-6)


def test_changes_of_a_linear_classifier_in_closed_form(study):
    """One step takes all that a ball within the bounds allows: |w| δ off the logit."""
    X, y = load_digits(return_X_y=True)
    X, y = 0.2 + 0.6 * X[:150], y[:150] > 4
    model = LogisticRegression().fit(X, y)
    delta = 0.05
    largest, moved = study.nets.changes(model, X, delta, size=64)
    logit = model.decision_function(X)
    after = logit - np.sign(logit) * delta * np.abs(model.coef_).sum()

    def probability(z):
        return 1 / (1 + np.exp(-z))

    np.testing.assert_allclose(largest, np.abs(probability(after) - probability(logit)), atol=1e-5)
    np.testing.assert_array_equal(moved, np.sign(after) != np.sign(logit))
    assert 0 < moved.mean() < 1


def test_a_reading_puts_the_changes_together(study):
    X, y = load_digits(return_X_y=True)
    model = LogisticRegression().fit(X[:200], y[:200])
    test, validation = (X[200:300], y[200:300]), (X[300:340], y[300:340])
    found = study.nets.reading(model, test, validation, 50, deltas=(0.0, 0.1))
    assert found["accuracy"] == model.score(*test)
    assert found["validation_accuracy"] == model.score(*validation)
    assert found["test"][0.0] == {"mean": 0.0, "above": 0.0, "label": 0.0}
    largest, moved = study.nets.changes(model, X[200:250], 0.1)
    expected = {"mean": largest.mean(), "above": (largest > 0.5).mean(), "label": moved.mean()}
    assert found["test"][0.1] == pytest.approx(expected)
    assert found["validation"][0.1] != found["test"][0.1]


# ---- cells ---------------------------------------------------------------------------

CONFIG = {"depth": 1, "width": 8, "activation": "relu", "lr": 1.0}
SETTINGS = {"data": "digits", "sizes": SIZES, "batch_size": 32, "n_attacked": 20}
SETTINGS |= {"device": "cpu", "seed": 0}


def test_a_network_read_on_the_way_is_that_of_a_shorter_training(study):
    train = study.cells.trained
    settings = SETTINGS | {"config": CONFIG, "optimizer": "sgd"}
    one, three = train(epochs=[1, 3], **settings)
    assert train(epochs=[1], **settings) == [one]
    assert train(epochs=[3], **settings) == [three]
    assert (one["epochs"], three["epochs"]) == (1, 3)
    assert one["weights"] == 65 * 8 + 9 * 10
    assert one["accuracy"] != three["accuracy"]


def test_a_training_that_diverges_ends_its_readings(study):
    settings = SETTINGS | {"config": CONFIG | {"lr": 1e30}, "optimizer": "sgd"}
    assert study.cells.trained(epochs=[1, 5], **settings) == []


def test_pruned_networks_stand_beside_those_that_are_trained_on(study):
    nets = study.cells.pruned(
        config=CONFIG, epochs=[2], amounts=[0.5, 0.9], iterations=[1, 2], n_further=1, **SETTINGS
    )
    kinds = [(net["amount"], net["iterations"]) for net in nets]
    assert kinds == [(0, 0), (0, 1), (0.5, 1), (0.9, 1), (0, 2), (0.5, 2), (0.9, 2)]
    longer = study.cells.trained(config=CONFIG, epochs=[2, 3, 4], optimizer="sgd", **SETTINGS)
    accuracies = [net["accuracy"] for net in nets if net["amount"] == 0]
    assert accuracies == [net["accuracy"] for net in longer]


def test_pruning_removes_the_share(study):
    X, y, shape = study.nets.images("digits", "train", **SIZES)
    model = study.nets.classifier(shape, CONFIG, batch_size=32).fit(X, y)
    before = [weight.detach().clone() for weight in model.net_.module_.parameters()]
    net = study.cells._further(model, X, y, 0.9, 2, 1)
    weights = [part for part in net.net_.module_.parameters() if part.ndim > 1]
    zero = sum(int((part == 0).sum()) for part in weights)
    assert zero / sum(part.numel() for part in weights) == pytest.approx(0.9, abs=0.001)
    for old, kept in zip(before, model.net_.module_.parameters(), strict=True):
        assert torch.equal(old, kept)  # the original stays as it was


def test_a_posterior_is_asked_for_as_the_grid_says(study, monkeypatch):
    asked = {}

    class Stand(RobustClassifier):
        acceptance_rate_ = np.array([0.5])
        effective_sample_size_ = np.array([np.nan, 7.0])

    def stand_in(hidden_layer_sizes, activation, n_chains, device, random_state, **sampling):
        asked.update(sampling, sizes=hidden_layer_sizes, n_chains=n_chains, activation=activation)
        return Stand(hidden_layer_sizes=hidden_layer_sizes, max_epochs=2, random_state=0)

    import skrobust.estimators

    monkeypatch.setattr(skrobust.estimators, "BayesianClassifier", stand_in, raising=False)
    sampling = {"step_size": 0.01, "num_steps": 3, "n_samples": 4, "warmup": 5}
    config = {"depth": 2, "width": 6, "activation": "tanh"}
    (net,) = study.cells.posterior("digits", SIZES, config, sampling, 20, "cpu", 0)
    assert asked == sampling | {"sizes": (6, 6), "n_chains": 1, "activation": "tanh"}
    assert net["weights"] == 65 * 6 + 7 * 6 + 7 * 10
    assert (net["acceptance"], net["effective"]) == (0.5, 0.0)
    assert study.read.method(net) == "HMC"


def test_figure_1_counts_what_a_complete_verifier_says(study):
    settings = {"data": "digits", "sizes": SIZES, "seed": 0}
    module = study.grids.strided
    model = study.cells.fitted(module=module, lr=0.02, epochs=2, batch_size=32, **settings)
    settings |= {"model": model, "delta": 0.05}
    found = study.cells.decided(points=(0, 12), timeout=2.0, **settings)
    by_fgsm = study.cells.by_fgsm(**settings)[:12]
    assert set(found["verdicts"]) <= {"verified", "falsified", "unknown"}
    assert not (by_fgsm & (found["verdicts"] == "verified")).any()
    assert len(found["verdicts"]) == 12 and (found["verdicts"] == "verified").any()


# ---- statistics ----------------------------------------------------------------------


def test_correlations_are_spearmans_over_all_networks(study):
    random = np.random.default_rng(0)
    first = random.integers(0, 8, 40)  # with ties
    second = first + random.normal(0, 3, 40)
    found = study.statistics.correlation(first, second, np.repeat(range(10), 4))
    assert found.value == pytest.approx(spearmanr(first, second).statistic)
    assert found.low < found.value < found.high
    assert (found.n, found.n_trainings) == (40, 10)
    assert found.sign == "positive"
    assert study.statistics.correlation(first, -second, range(40)).sign == "negative"


def test_counted_networks_are_repeated_ones(study):
    random = np.random.default_rng(2)
    first, second = random.integers(0, 4, (2, 9))
    counts = random.integers(0, 3, (5, 9))
    found = study.statistics.spearman(first, second, counts)
    for value, times in zip(found, counts, strict=True):
        repeated = spearmanr(np.repeat(first, times), np.repeat(second, times)).statistic
        assert value == pytest.approx(repeated)
    alone = np.eye(9, dtype=int)[:1] * 3
    assert np.isnan(study.statistics.spearman(first, second, alone)).all()


def test_networks_of_one_training_are_no_further_evidence(study):
    """Each network ten times over: the interval is as wide as that of one of each."""
    random = np.random.default_rng(1)
    first = random.normal(size=30)
    second = first + random.normal(0, 2, 30)
    names = np.arange(30)
    once = study.statistics.correlation(first, second, names)
    often = study.statistics.correlation(*(np.tile(each, 10) for each in (first, second, names)))
    apart = study.statistics.correlation(np.tile(first, 10), np.tile(second, 10), range(300))
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.1)
    assert apart.high - apart.low < 0.5 * (once.high - once.low)


def test_correlations_that_are_not_defined(study):
    of = study.statistics.correlation
    for first, trainings in (([1, 1, 1], "abc"), ([1, 2], "ab"), ([], "")):
        found = of(first, range(len(first)), trainings)
        assert str(found) == "undefined" and found.sign == "none seen"
    few = of([1, 2, 3], [3, 1, 2], "aab")
    assert str(few) == "-0.50" and few.sign == "none seen"
    assert study.statistics.fisher([1, 1, 1, 1], [1, 2, 3, 4]) == "undefined"
    assert study.statistics.fisher([1, 2, 3, 4], [1, 2, 4, 3]).startswith("+0.80 [")


def net(accuracy, change, *, width=8, epochs=1, lr=0.1, **further):
    """Return a network as cells do, with one change in the place of all measures."""
    measures = {"mean": change, "above": change, "label": change}
    both = {0.1: measures, 0.2: {name: min(1, 2 * value) for name, value in measures.items()}}
    known = {"accuracy": accuracy, "validation_accuracy": accuracy, "weights": 10 * width}
    hyperparameters = {"depth": 1, "width": width, "activation": "relu", "lr": lr}
    parts = {"test": both, "validation": both, "epochs": epochs}
    return hyperparameters | known | parts | further


def test_delta_is_that_where_half_of_the_labels_change(study):
    nets = [net(0.9, 0.3), net(0.8, 0.1), net(0.2, 1.0)]
    assert study.statistics.chosen_delta(nets, 0.5) == 0.2  # 0.2 and 0.4 of those that learned
    assert study.statistics.chosen_delta(nets[2:], 0.5) == 0.1  # both are as far: the smaller
    assert study.statistics.chosen_delta(nets, 0.0) == 0.1  # 0.47 and 0.6


def test_networks_are_read_at_one_radius(study):
    nets = study.read.Networks([net(0.9, 0.3), net(0.4, 0.1, epochs=2), net(0.8, 0.2, lr=1)], 0.2)
    np.testing.assert_allclose(nets.robustness("mean"), [0.4, 0.8, 0.6])
    first, second, third = nets.trainings()
    assert first == second != third
    assert len(nets.learned()) == 2
    assert nets.correlation("accuracy", "mean").value == -1
    assert nets.correlation("accuracy", "mean").n_trainings == 2


def test_estimates_are_as_many_draws_as_the_tolerance_needs(study):
    robust = np.array([True] * 30 + [False] * 10)
    drawn = study.read.estimates(robust, (0.2, 0.05), 50, seed=0)
    assert list(drawn) == [0.2, 0.05]
    counts = drawn[0.05] * 738  # "just above 700" samples
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    for tolerance, scores in drawn.items():
        assert len(scores) == 50
        assert (np.abs(scores - 0.75) <= tolerance).mean() >= 0.95


# ---- plan and report -----------------------------------------------------------------


def test_the_small_budget_has_60_networks_of_each_kind(study):
    plan = study.script.Plan(study.script.BUDGETS["small"], 0)
    for cells in plan.trade_off.values():
        assert sum(len(cell.settings["epochs"]) for cell in cells) >= 60
    kinds = {(data, kind) for data in ("mnist", "fashion") for kind in ("perceptron", "CNN")}
    assert set(plan.trade_off) == kinds


def test_what_time_allows_is_a_sample_of_every_grid(study):
    parts = [list(range(10)), list(range(10, 14))]
    order = study.script._in_turns(parts)
    assert sorted(order) == list(range(14))
    assert order != sorted(order)
    assert [number >= 10 for number in order[:8]] == [False, True] * 4
    assert order == study.script._in_turns(parts)


def test_the_full_budget_has_the_paper_s_grids(study, monkeypatch):
    monkeypatch.setattr(study.script, "can_sample", lambda: True)
    plan = study.script.Plan(study.script.BUDGETS["full"], 0)
    n = [sum(len(c.settings["epochs"]) for c in cells) for cells in plan.trade_off.values()]
    assert n == [study.grids.SIZES[f"B.{i}"] for i in range(1, 6)]
    n = [
        sum(
            np.prod([len(c.settings[name]) for name in ("epochs", "amounts", "iterations")])
            for c in cells
        )
        for cells in plan.pruning.values()
    ]
    assert n == [study.grids.SIZES["B.6"], study.grids.SIZES["B.7"]]
    n = [
        sum(cell.function is study.cells.posterior for cell in cells)
        for cells in plan.sampling.values()
    ]
    assert n == [study.grids.SIZES["B.8"], 4 * study.grids.SIZES["B.9"]]
    colored = plan.trade_off["cifar10", "CNN"]
    assert {cell.settings["optimizer"] for cell in colored} == {"adam"}


def test_without_the_class_figure_4_is_left_out(study, monkeypatch):
    monkeypatch.setattr(study.script, "can_sample", lambda: False)
    plan = study.script.Plan(study.script.BUDGETS["smoke"], 0)
    assert plan.sampling == {}
    assert all(cell.function is not study.cells.posterior for cell in plan.cells())


@pytest.mark.parametrize("can_sample", [True, False])
def test_a_report_of_nothing_says_so(study, monkeypatch, tmp_path, can_sample):
    monkeypatch.setattr(study.script, "can_sample", lambda: can_sample)
    plan = study.script.Plan(study.script.BUDGETS["smoke"], 0)
    rerun = study.rerun.Rerun(tmp_path / "cells", minutes=0)
    path = study.report.write(plan, rerun, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "0 of" in text and text.count("not run") > 20
    assert ("Figure 4 (Hamiltonian Monte Carlo) is left out" in text) is not can_sample


def test_signs_of_claims_are_counted(study):
    changes = np.linspace(0.1, 0.4, 12)
    falling = [net(0.5 + x, x, width=i) for i, x in enumerate(changes)]
    parts = [study.read.Networks(falling, 0.1)]
    assert study.report.seen(parts, "accuracy", "negative") == "negative in 3 of 3"
    text = study.report.seen(parts, "accuracy", "positive")
    assert text == "positive in 0 of 3; negative in 3"
    assert study.report.seen([], "accuracy", "positive") is None


def test_pairs_of_one_training_and_of_one_network(study):
    nets = [net(0.8, 0.1, epochs=1), net(0.9, 0.3, epochs=5), net(0.9, 0.3, epochs=1, lr=2)]
    assert study.report.longer(study.read.Networks(nets, 0.1), "mean") == "-0.200; lower in 1 of 1"
    nets = [
        net(0.9, change, width=width, amount=amount, iterations=1)
        for width, amount, change in ((8, 0.5, 0.3), (8, 0.9, 0.2), (9, 0.5, 0.3), (9, 0.9, 0.2))
    ]
    text = study.report.least_to_most(study.read.Networks(nets, 0.1), "mean")
    assert text == "+0.100 ± 0.000 of 2"


def test_what_diverged_leaves_no_hole(study):
    """Pruned networks all diverged: their rows are missing, and the report stands."""
    none = study.read.Networks([], 0.1)
    assert study.report.least_to_most(none, "mean") == "undefined"
    assert study.report.longer(none, "mean") == "undefined"
    assert study.report.seen([none], "accuracy", "negative") == "negative in 0 of 0"
    assert study.report.lost_by_pruning([none]) == ""
    left = [net(0.9, 0.1, amount=0.0, iterations=0)]
    nets = {("digits", "perceptron"): study.read.Networks(left, 0.1)}
    table = study.report.pruning_table(SimpleNamespace(pruning=nets))
    assert [row[1:3] for row in table.rows] == [["0, before", "1"]]
