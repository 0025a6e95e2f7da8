"""What the rerun of Tibo et al. computes, on small networks and by hand."""

import importlib
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD, LinearBoundary, Target
from skrobust.datasets import load_digits
from skrobust.estimators import Autoencoder
from skrobust.graphs import read_graph
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.training import CrossLipschitzTraining, MarginCoTraining, OnManifoldTraining

PAPERS = Path(__file__).parents[1] / "benchmarks" / "papers"


@pytest.fixture(scope="module")
def study():
    """The modules of the script."""
    sys.path.insert(0, str(PAPERS))
    parts = ("nets", "cells", "claims", "published", "report")
    try:
        modules = {part: importlib.import_module(f"_tibo_{part}") for part in parts}
        modules["script"] = importlib.import_module("tibo")
        modules["rerun"] = importlib.import_module("_rerun")
        yield SimpleNamespace(**modules)
    finally:
        sys.path.remove(str(PAPERS))


# ---- networks ----------------------------------------------------------------------


def test_resnet_20_has_its_layers_and_weights(study):
    module = study.nets.residual((3, 32, 32))
    layers = [p for p in module.modules() if isinstance(p, nn.Conv2d | nn.Linear)]
    assert len(layers) == 20
    # 0.27 million, as He et al. give it for CIFAR-10.
    assert sum(p.numel() for p in module.parameters()) == 269_722
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_block_adds_its_input_to_what_it_computes(study):
    block = study.nets.Block(2, 3, stride=2).eval()
    nn.init.zeros_(block.norms[1].weight)
    x = torch.rand(1, 2, 4, 4)
    expected = torch.cat([x[:, :, ::2, ::2], torch.zeros(1, 1, 2, 2)], dim=1)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 9, 7)])
def test_cnns_take_images_of_any_size(study, shape):
    assert study.nets.cnn(shape)(torch.zeros(2, *shape)).shape == (2, 10)


def test_residual_networks_train_in_all_regimes_and_are_attacked(study):
    """Batch norm and shortcuts: what the regimes, the graph and the attacks have to take."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:64].astype(np.float32), y[:64]
    for regime in (None, CrossLipschitzTraining(0.01), MarginCoTraining(0.03)):
        model = RobustClassifier(
            study.nets.residual,
            module_params={"input_shape": (1, 8, 8), "n_blocks": 1, "width": 4, "stride": 2},
            input_shape=(1, 8, 8),
            training=regime,
            max_epochs=1,
            random_state=0,
        ).fit(X, y)
        assert model.predict(X).shape == (64,)
    kinds = {type(node).__name__ for node in read_graph(as_network(model)).nodes}
    assert "Sum" in kinds, sorted(kinds)


def test_regimes_by_name(study):
    budget = study.nets.BUDGETS["full"]
    make = study.nets.training
    assert make(budget, "none") is None
    hein, margin, manifold, stutz = (
        make(budget, name, 0.3) for name in ("HEIN", "R2", "R4", "Stutz")
    )
    assert isinstance(hein, CrossLipschitzTraining) and hein.weight == 0.3
    assert isinstance(margin, MarginCoTraining) and margin.weight == 0.3
    assert isinstance(manifold, OnManifoldTraining) and manifold.method == "R4"
    assert (manifold.weight, manifold.sigma, manifold.n_points) == (0.3, 0.06, 10)
    assert stutz.method == "adversarial"


def test_attacks_are_those_of_table_2(study):
    members = study.nets.attacks(7).members
    assert [name for name, _ in members] == ["BG", "FGSM", "PGD"]
    assert [type(attack) for _, attack in members] == [LinearBoundary, FGSM, PGD]
    assert members[2][1].n_steps == 7
    one = study.nets.attacks(7, 2.5).members
    assert [name for name, _ in one] == ["BG", "FGSM", "PGD"]
    assert [(type(a.attack), a.radius) for _, a in one[1:]] == [(FGSM, 2.5), (PGD, 2.5)]


def test_one_ball_ends_in_its_ball_and_on_the_boundary(study):
    """The boundary is at 0.3 along the first axis; a step of 1 overshoots, and is pulled back."""
    network = nn.Linear(2, 2)
    network.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    network.bias.data = torch.tensor([0.0, -0.5])
    property = ClassificationRobustness(math.sqrt(2), norm="l2", reference="prediction")
    target = Target(network, property, torch.tensor([[0.2, 0.5], [0.0, 0.5]]))
    found = study.nets.OneBall(FGSM(), 0.4).closest(target)
    assert found.broken.tolist() == [True, False]  # the second is 0.5 away
    torch.testing.assert_close(found.points[0], torch.tensor([0.5, 0.5]), atol=1e-4, rtol=0)
    seen = study.nets.OneBall(FGSM(), 0.4).attempt(target).points
    torch.testing.assert_close(seen, torch.tensor([[0.6, 0.5], [0.4, 0.5]]))
    assert study.nets.one_radius("mnist") == 2.8


# ---- data, and the choice of a weight ----------------------------------------------


def test_parts_of_the_data_are_apart(study):
    sizes = {"n_train": None, "n_validation": 20}
    X, y = study.nets.images("digits", "train", **sizes)
    V, _ = study.nets.images("digits", "validation", **sizes)
    assert (len(X), len(y), len(V)) == (1280, 1280, 20)
    everything = np.unique(np.concatenate([X, V]), axis=0)
    digits = load_digits(return_X_y=True)[0].astype(np.float32)
    np.testing.assert_array_equal(everything, np.unique(digits[:1300], axis=0))
    few, _ = study.nets.images("digits", "train", n_train=7, n_validation=20)
    np.testing.assert_array_equal(few, X[:7])
    T, labels = study.nets.images("digits", "test", **sizes)
    np.testing.assert_array_equal(np.unique(T, axis=0), np.unique(digits[1300:], axis=0))
    assert len(labels) == len(digits) - 1300


@pytest.mark.parametrize(
    ("shares", "weight", "is_within"),
    [
        ((0.90, 0.895, 0.89), 1.0, True),
        ((0.91, 0.92, 0.80), 0.3, True),
        ((0.85, 0.95, 0.80), 0.3, True),
        ((0.85, 0.87, 0.80), 0.3, False),
    ],
)
def test_the_largest_weight_that_costs_next_to_nothing(study, shares, weight, is_within):
    nets = [
        {"weight": own, "validation": share, "model": str(own)}
        for own, share in zip((0.1, 0.3, 1.0), shares, strict=True)
    ]
    # Not in order, as a dict of cells need not be.
    candidates = {"b": nets[2], "a": nets[0], "c": nets[1]}
    found = study.cells.chosen(plain={"validation": 0.9}, **candidates)
    assert (found["weight"], found["model"]) == (weight, str(weight))
    assert found["is_within"] is is_within
    assert found["candidates"] == list(zip((0.1, 0.3, 1.0), shares, strict=True))


# ---- claims ------------------------------------------------------------------------


def test_answers_follow_the_interval(study):
    rng = np.random.default_rng(0)
    base = rng.random(400)
    noise = 0.01 * rng.normal(size=400)
    above = study.claims.above
    assert above(base + 0.1 + noise, base).startswith("yes")
    assert above(base - 0.1 + noise, base).startswith("NO")
    assert above(base + noise - noise.mean(), base).startswith("tied")
    assert above(None, base) is None
    # Paired: it is seen although the images differ by far more than the networks.
    assert "difference +0.1 ±" in above(base + 0.1 + noise - noise.mean(), base)


def test_a_loss_has_a_limit(study):
    plain, lost = np.ones(1000), np.ones(1000)
    answer = study.claims._loses_at_most
    assert answer(plain, lost, 0.022).startswith("yes: loses 0.00")
    lost[:100] = 0
    assert answer(plain, lost, 0.022).startswith("NO: loses 10.00")
    lost[24:] = 1
    assert answer(plain, lost, 0.022).startswith("tied: loses 2.40")


def test_published_averages_are_of_the_published_rows(study):
    rows = np.array(list(study.published.CORRUPTED.values()))
    assert rows.shape == (15, 3)
    np.testing.assert_allclose(rows.mean(axis=0), study.published.CORRUPTED_MEAN, atol=0.006)
    for nets in study.published.WINS.values():
        for shares in nets.values():
            assert abs(sum(shares) - 100) < 0.05


# ---- the plan and the report -------------------------------------------------------


def test_the_small_budget_has_the_tables_of_the_paper(study, monkeypatch):
    monkeypatch.setattr(study.cells, "has_svhn", lambda: True)
    monkeypatch.setattr(study.cells, "has_corruptions", lambda: True)
    plan = study.cells.plan(study.nets.BUDGETS["small"], 0)
    assert plan.data == ["mnist", "fashion", "cifar10", "svhn"]
    three = [(data, name) for data in plan.data for name in ("none", "HEIN", "R2")]
    further = [("fashion", name) for name in ("R4", "Stutz")]
    for part in (plan.correct, plan.margins, plan.one_ball, plan.networks):
        assert set(part) == {*three, *further}
    assert set(plan.corrupted) == {("mnist", name) for name in ("none", "HEIN", "R2")}
    assert set(plan.manifold) == {key for key in plan.networks if key[0] == "fashion"}
    settings = [cell.settings for cell in plan.manifold.values()]
    assert {(each["sigma"], each["n_points"]) for each in settings} == {(0.06, 200)}
    assert len({each["codes"].key for each in settings}) == 1  # the same one for all


def test_what_a_cell_builds_on_is_in_an_earlier_stage(study):
    plan = study.cells.plan(study.nets.BUDGETS["smoke"], 0)
    before = set()
    for _, cells in plan.stages():
        for cell in cells:
            needed = [v for v in cell.settings.values() if isinstance(v, study.rerun.Cell)]
            # A network of one weight stands for the choice, and is known by then.
            assert all(each.key in before for each in needed)
        before |= {cell.key for cell in cells}


def test_a_changed_attack_trains_nothing_anew(study):
    smoke = study.nets.BUDGETS["smoke"]
    other = study.nets.Budget(**{**vars(smoke), "pgd_steps": 3})
    first, second = (study.cells.plan(budget, 0) for budget in (smoke, other))
    key = "digits", "R2"
    assert first.networks[key].key == second.networks[key].key
    assert first.margins[key].key != second.margins[key].key


def test_without_files_of_svhn_a_sentence_says_so(study, monkeypatch, tmp_path):
    monkeypatch.setenv("SKROBUST_DATA", str(tmp_path))
    budget = study.nets.BUDGETS["small"]
    plan = study.cells.plan(budget, 0)
    assert "svhn" not in plan.data and not plan.corrupted
    rerun = study.rerun.Rerun(tmp_path / "cells", minutes=0)
    text = study.report.write(plan, rerun, tmp_path, budget).read_text(encoding="utf-8")
    assert "SVHN is left out" in text and "Table 3 is left out" in text
    assert "0 of" in text and text.count("not run") > 40
    assert "0x" not in text  # no address of an object


def test_r4_of_a_perfect_autoencoder_and_constant_network(study):
    """All points keep the label, so R4 is the mean of 1 / distance."""

    class Shift:
        """Decodes to the image, moved by the noise of one code along one pixel."""

        def encode(self, X):
            self.X = X
            return np.zeros((len(X), 1))

        def decode(self, Z):
            X = np.full((len(Z), 64), 0.5)
            X[:, :1] += Z
            return X

    X, y = load_digits(return_X_y=True)
    model = RobustClassifier(hidden_layer_sizes=(4,), max_epochs=1, random_state=0).fit(X, y)
    for parameter in model.net_.module_.parameters():
        parameter.data.zero_()
    net = {"model": model}
    sizes = {"n_train": 5, "n_validation": 5}
    settings = {"sigma": 0.06, "n_points": 30, "n_images": 4}
    found = study.cells.manifold(net, "digits", sizes, 0, Shift(), **settings)
    assert found.shares.tolist() == [1.0] * 4
    np.testing.assert_allclose(found.values, (1 / found.distances).mean(axis=1))
    again = study.cells.manifold(net, "digits", sizes, 0, Shift(), **settings)
    np.testing.assert_array_equal(again.distances, found.distances)


def test_margins_of_a_linear_network_in_closed_form(study):
    X, y = study.nets.images("digits", "test", n_train=5, n_validation=5)
    model = RobustClassifier(hidden_layer_sizes=(), max_epochs=5, random_state=0).fit(X, y)
    found = study.cells.margins(
        {"model": model},
        "digits",
        {"n_train": 5, "n_validation": 5},
        0,
        study.nets.attacks(5),
        6,
    )
    weight, bias = (p.detach().double().numpy() for p in model.net_.module_.parameters())
    for x, radius in zip(X[:6], found.radius, strict=True):
        logits = weight @ x + bias
        own = logits.argmax()
        gaps = np.delete(logits[own] - logits, own)
        slopes = np.linalg.norm(np.delete(weight[own] - weight, own, axis=0), axis=1)
        # No closer than to the hyperplane; farther where bounds of pixels are in the way.
        assert radius >= (gaps / slopes).min() * (1 - 1e-4)
    assert found.wins["BG"] > 0.9 and np.isfinite(found.radius).all()
    assert abs(found.score - found.radius.mean()) < 1e-12


def test_the_regime_on_the_manifold_is_given_its_autoencoder(study):
    budget = study.nets.BUDGETS["smoke"]
    X, _ = study.nets.images("digits", "train", n_train=64, n_validation=8)
    codes = Autoencoder(2, max_epochs=1, random_state=0).fit(X)
    recipe = budget.recipes["digits"]
    model = study.nets.classifier(recipe, "digits", study.nets.training(budget, "R4", 0.1))
    model.set_params(max_epochs=1)
    sizes = {"n_train": 64, "n_validation": 8}
    net = study.cells.trained(model, 0.1, "digits", sizes, 0, codes)
    assert net["model"].training.autoencoder is codes
    V, v = study.nets.images("digits", "validation", **sizes)
    assert net["validation"] == net["model"].score(V, v)


def test_the_target_of_the_attacks_is_the_predicted_label(study):
    """A network that is wrong everywhere has the same margins: labels play no part."""
    X, y = study.nets.images("digits", "test", n_train=5, n_validation=5)
    model = RobustClassifier(hidden_layer_sizes=(), max_epochs=2, random_state=0).fit(X, y)
    found = study.cells.margins(
        {"model": model}, "digits", {"n_train": 5, "n_validation": 5}, 0, LinearBoundary(), 8
    )
    property = ClassificationRobustness(8.0, norm="l2", reference="prediction")
    rows = torch.tensor(X[:8])
    target = Target(model.net_.module_.eval(), property, rows)
    expected = LinearBoundary().closest(target).points
    distance = torch.linalg.vector_norm(expected - rows, dim=1)
    np.testing.assert_allclose(found.radius, distance.numpy(), rtol=1e-4)
