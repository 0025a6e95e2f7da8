"""What the rerun of Bastani et al. computes, on networks that can be solved by hand."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import TorchClassifier
from skrobust.pointwise import pointwise_robustness

PAPERS = Path(__file__).parents[1] / "benchmarks" / "papers"


@pytest.fixture(scope="module")
def bastani():
    """The modules of the script."""
    sys.path.insert(0, str(PAPERS))
    try:
        names = ("_bastani_nets", "_bastani_cells", "_bastani_report", "bastani", "_rerun")
        yield SimpleNamespace(
            **{name.removeprefix("_bastani_"): importlib.import_module(name) for name in names}
        )
    finally:
        sys.path.remove(str(PAPERS))


# ---- networks ----------------------------------------------------------------------


def test_lenet_is_that_of_caffe_s_example(bastani):
    layers = [type(part).__name__ for part in bastani.nets.lenet()]
    convolution = ["Conv2d", "MaxPool2d"]
    assert layers == [*convolution * 2, "Flatten", "Linear", "ReLU", "Linear"]
    weights = [
        tuple(part.weight.shape) for part in bastani.nets.lenet() if hasattr(part, "weight")
    ]
    assert weights == [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]
    assert bastani.nets.lenet()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    three = [type(part).__name__ for part in bastani.nets.lenet(relus=3, pool="average")]
    assert three.count("ReLU") == 3 and three.count("AvgPool2d") == 2


def test_weights_start_as_caffe_s_xavier(bastani):
    torch.manual_seed(0)
    first = bastani.nets.lenet()[0]
    reach = np.sqrt(3 / 25)
    assert 0.9 * reach < first.weight.abs().max() <= reach
    assert not first.bias.any()


def test_recipe_is_that_of_caffe_s_example(bastani):
    X, y = bastani.nets.images("digits", "train", 64)
    model = bastani.nets.classifier("lenet", 64, 2, seed=0, channels=(2, 2), hidden=4).fit(X, y)
    assert model.max_epochs == 2 and len(model.history_) == 2
    others, biases = (model.net_.optimizer_.param_groups[i] for i in (1, 0))
    assert len(biases["params"]) == 4 and len(others["params"]) == 4
    assert biases["lr"] == pytest.approx(2 * others["lr"])
    assert others["lr"] == pytest.approx(0.01 * (1 + 1e-4 * 2) ** -0.75)
    assert (others["momentum"], others["weight_decay"]) == (0.9, 5e-4)


@pytest.mark.parametrize(("network", "data"), [("lenet", "digits"), ("nin", "color-digits")])
def test_enlarged_digits_have_the_size_of_the_network(bastani, network, data):
    X, y = bastani.nets.images(data, "test", 3)
    _, shape = bastani.nets.NETWORKS[network]
    assert X.shape == (3, np.prod(shape)) and len(y) == 3
    assert 0 <= X.min() < X.max() <= 1
    more, _ = bastani.nets.images(data, "train")
    assert not (more == X[0]).all(axis=1).any()


# ---- cells -------------------------------------------------------------------------


@pytest.fixture
def few(bastani, monkeypatch):
    """Points of five features in the place of images."""
    X = np.random.default_rng(0).random((8, 5)).astype(np.float32)
    monkeypatch.setattr(bastani.cells, "images", lambda data, subset, n=None: (X[:n], None))
    return X


def network(*layers, seed=0):
    torch.manual_seed(seed)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return TorchClassifier(nn.Sequential(*layers), [0, 1, 2])


@pytest.mark.parametrize("bounded", [False, True])
def test_without_regions_a_linear_network_has_its_closest_examples(bastani, few, bounded):
    """Its one region is everything, so the program without half-spaces is the whole program."""
    model = network(nn.Linear(5, 3))
    found = bastani.cells.linearized(model, "any", (0, 8), bounded)
    whole = pointwise_robustness(model, few, bounds=(0.0, 1.0) if bounded else None)
    np.testing.assert_allclose(found["radius"], whole.optimum.clip(min=0), atol=1e-6)
    is_found = np.isfinite(found["radius"])
    assert is_found.any()
    # Moved on by a thousandth, but not beyond the bounds, where it may stay on the boundary.
    assert not found["is_example"][~is_found].any()
    assert bounded or found["is_example"].all()


@pytest.mark.parametrize("seed", range(3))
def test_without_regions_nothing_is_farther(bastani, few, seed):
    model = network(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3), seed=seed)
    found = bastani.cells.linearized(model, "any", (2, 7), False)
    whole = pointwise_robustness(model, few[2:7], bounds=None, epsilon_max=10)
    assert len(found["radius"]) == 5
    assert (found["radius"] <= whole.radius + 1e-6).all()
    assert (found["radius"] < whole.radius - 1e-3).any()


def test_programs_that_are_given_up_are_counted_at_what_they_came_to(bastani, few):
    """More half-spaces, and so larger optima, up to that of the whole program."""
    model = network(nn.Linear(5, 200), nn.ReLU(), nn.Linear(200, 3), seed=1)
    model.module[0].weight.data *= 8
    model.module[2].weight.data *= 4
    whole = bastani.cells.measured(model, "any", (0, 8), "lp")
    radii = [
        bastani.cells.stopped_early(model, "any", (0, 8), max_rows)["radius"]
        for max_rows in (1, 3, 1000)
    ]
    for fewer, more in zip(radii, [*radii[1:], whole["radius"]], strict=True):
        assert (fewer <= more + 1e-6).all()
    np.testing.assert_array_equal(radii[-1], whole["radius"])
    assert (radii[0] < whole["radius"] - 1e-3).sum() >= 2


def test_signs_are_counted_against_the_network_s_own_label(bastani, few, monkeypatch):
    """A step of 20/255 along the signs moves the difference of the outputs by 40/255."""
    weight = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])
    layer = nn.Linear(5, 2, bias=False)
    layer.weight.data = weight
    model = TorchClassifier(layer, [0, 1])
    wrong = np.zeros(8, dtype=int)  # true labels play no part
    monkeypatch.setattr(bastani.cells, "images", lambda *_: (few, wrong))
    lead = np.abs(few[:, 0] - few[:, 1])
    found = bastani.cells.broken_by_signs(model, "any", "test", 8)
    assert 0 < (lead < 40 / 255).sum() < 8
    assert found == {"n_broken": (lead < 40 / 255).sum(), "n": 8}


def test_distances_are_within_20_pixels(bastani, few):
    model = network(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    model.module[0].weight.data *= 8  # so that labels change within so small a distance
    by = {
        method: bastani.cells.measured(model, "any", (0, 8), method, budget)
        for method, budget in (("lp", None), ("lbfgs", {"n_weights": 3}), ("polished", None))
    }
    for found in by.values():
        is_found = np.isfinite(found["radius"])
        assert is_found.any() and (found["radius"][is_found] <= 20 / 255).all()
        assert found["n_open"] == 0 and (found["seconds"] >= 0).all()
    for method in ("lp", "lbfgs"):
        assert (by["polished"]["radius"] <= by[method]["radius"] + 1e-6).all()


# ---- the plan, and what is read from it ----------------------------------------------


def test_networks_are_those_of_the_paper_and_build_on_each_other(bastani):
    plan = bastani.bastani.Bastani(bastani.bastani.BUDGETS["small"], seed=0)
    assert list(plan.lenets) == list(bastani.report.TABLE_1)
    assert list(plan.nins) == list(bastani.report.NIN)
    for method in ("L-BFGS-B", "LP"):
        first, second = (plan.lenets[f"{method} tuned, T = {t}"] for t in (1, 2))
        assert second.settings["before"] is first
        assert first.settings["before"] is plan.lenets["original"]
    assert bastani.bastani.BUDGETS["full"].steps == 10_000
    other = bastani.bastani.Bastani(bastani.bastani.BUDGETS["small"], seed=1)
    assert other.lenets["original"].key != plan.lenets["original"].key


def test_figures_by_hand(bastani):
    report = bastani.report
    found = {"radius": np.array([5, 15, 25, np.inf]) / 255, "n_open": 1}
    assert report.frequency(found).startswith("50.00 [")
    assert report.frequency(found).endswith(", 1 open")
    assert report.severity(found) == "10.0"
    assert report.severity({"radius": np.array([np.inf])}) == "none"
    assert report.share(found) == 0.5
    none = report.Read(None).arrays([])
    shown = [report.frequency(none), report.severity(none), report.seconds(none)]
    assert shown == [report.NOT_ASKED] * 3
    assert [report.frequency(None), report.severity(None), report.seconds(None)] == [None] * 3
    assert report.held([(2, 1), (1, 2), (3, 3), (None, 1)]) == "1 of 3, equal in 1"
    assert report.held([(None, 1)]) is None


def test_parts_are_put_together_only_if_all_are_there(bastani, tmp_path):
    rerun = bastani._rerun.Rerun(tmp_path)
    cells = [bastani._rerun.Cell(f"part-{i}", dict, {"i": i}) for i in range(2)]
    read = bastani.report.Read(rerun)
    rerun.keep(cells[0], {"radius": np.array([1.0]), "n_open": 1}, 0.0)
    assert read.arrays(cells) is None
    rerun.keep(cells[1], {"radius": np.array([2.0, 3.0]), "n_open": 2}, 0.0)
    together = read.arrays(cells)
    assert together["radius"].tolist() == [1, 2, 3] and together["n_open"] == 3
