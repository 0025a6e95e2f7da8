"""Trees of splits as they are stored: the checker accepts them, and rejects them when changed."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import nn

from skrobust import TorchClassifier
from skrobust.balls import Ball
from skrobust.bounds import reduce, relax
from skrobust.evidence import check, why_rejected
from skrobust.evidence._rules import read_json
from skrobust.graphs import read_graph
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, StandardRobustness
from skrobust.verification import Bounds, Exact, Reason
from skrobust.verification._branch import Problem, _first
from skrobust.verification._evidence import make_recorder
from skrobust.verification._leaves import close_leaf
from skrobust.verification._recording import Recording
from tests.evidence._changes import change, holds_at_samples, n_nodes
from tests.verification._examples import HARD, small


def trained(sizes, seed=0):
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier(sizes, max_iter=60, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[:400] / 16, y[:400])
    return model, X[400:420] / 16, y[400:420]


@pytest.mark.parametrize("sizes", [(24, 24)], ids=str)
@pytest.mark.parametrize("exact", [False, True], ids=["floats", "exact"])
def test_what_branch_and_bound_proves_is_accepted(sizes, exact, tmp_path):
    model, X, y = trained(sizes)
    property = ClassificationRobustness(0.08)
    verifier = Exact(max_domains=3000)
    result = verifier.verify(model, X, y, property=property, evidence=tmp_path)
    plain = verifier.verify(model, X, y, property=property)
    assert (result.verdicts == plain.verdicts).all()
    evidence = check(tmp_path, model, exact=exact)
    assert evidence.is_accepted, evidence.messages
    decided = result.verdicts != "unknown"
    assert set(result.evidence[decided]) == set(evidence.files)
    leaves = [int(m.split()[-2]) for m in evidence.messages if m.startswith("verified")]
    assert max(leaves) > 9  # more than a leaf for each row


def kept_by(model, X, property, verifier, y=None):
    """Return the arrays of all proofs, the network, and what it makes of points."""
    encoded = as_network(model, input_shape=X.shape[1:])
    kept, recorder = [], make_recorder("required", encoded, property, X.shape[1])
    whole = type(recorder)._stored

    def stored(self, arrays):
        if b"verified" in bytes(arrays["claim"]):
            kept.append(arrays)
        return whole(self, arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(recorder), "_stored", stored)
        verifier.verify(model, X, y, property=property, evidence="required")

    def outputs(points):
        with torch.no_grad():
            return recorder.encoding.graph(torch.as_tensor(points)).numpy()

    return kept, recorder._network, recorder._digest, outputs


@pytest.fixture(scope="module")
def proofs():
    """Return claims that need a tree, the network, and its digest."""
    model, X, y = trained((24, 24))
    verifier = Exact(max_domains=3000)
    kept, *others = kept_by(model, X, ClassificationRobustness(0.08), verifier, y)
    trees = [arrays for arrays in kept if n_nodes(arrays) > 9]
    assert len(trees) >= 2
    return trees, *others


def look_at_changes(proofs, seed, count):
    """Return the kinds of changes that are accepted, all of which hold at samples."""
    files, network, digest, outputs = proofs
    rng, kinds = np.random.default_rng(seed), []
    for _ in range(count):
        arrays, kind = change(rng, files[int(rng.integers(0, len(files)))])
        norm = read_json(arrays["claim"], "claim")["norm"]
        if why_rejected(arrays, network, digest) is None:
            kinds.append(kind)
            assert holds_at_samples(rng, arrays, norm, outputs), kind
    return kinds


def test_a_changed_file_is_rejected_or_true(proofs):
    # What changes no bound much is still a proof.
    assert 10 < len(look_at_changes(proofs, 0, 200)) < 180


def proofs_of(kind, name):
    """Return proofs of one kind of rows about a network of one kind of units."""
    model, X = small(kind, scale=2.0)
    files, others = [], None
    for property in HARD[name]:
        verifier = Exact(split_inputs=0, max_domains=200)
        kept, *others = kept_by(model, X, property, verifier)
        files += kept
    return files, *others


EACH = [
    (kind, name) for kind in ("relu", "clamp", "pool", "tanh", "linf distance") for name in HARD
]


def test_changed_files_about_distances_are_rejected_or_true():
    model, X = small("linf distance", scale=2.0)
    proofs = kept_by(model, X, HARD["distance"][1], Bounds())
    assert len(proofs[0]) >= 2
    assert 5 < len(look_at_changes(proofs, 0, 40)) < 35


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), EACH)
def test_thousands_of_changed_files_are_rejected_or_true(kind, name):
    """All kinds of rows and of units, 600 changed files each."""
    proofs = proofs_of(kind, name)
    assert len(proofs[0]) >= 2
    accepted = look_at_changes(proofs, EACH.index((kind, name)), 600)
    assert 5 < len(accepted) < 500


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_thousands_of_changed_trees_are_rejected_or_true(proofs, part):
    look_at_changes(proofs, part + 1, 500)


def test_splits_of_inputs_are_accepted(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Linear(3, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU6(), nn.Linear(20, 3)]
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.mul_(2)
    model = TorchClassifier(nn.Sequential(*layers), [0, 1, 2])
    X = np.random.default_rng(0).random((12, 3))
    property = ClassificationRobustness(0.12, reference="prediction")
    result = Exact(max_domains=3000).verify(model, X, property=property, evidence=tmp_path)
    decided = result.verdicts != "unknown"
    assert (result.verdicts == "verified").sum() >= 3
    evidence = check(tmp_path, model, exact=True)
    assert evidence.is_accepted, evidence.messages
    assert set(result.evidence[decided]) == set(evidence.files)
    leaves = [int(m.split()[-2]) for m in evidence.messages if m.startswith("verified")]
    assert max(leaves) > 2


def test_convolutions_and_standard_robustness(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 3, 3, stride=2), nn.LeakyReLU(0.1), nn.Flatten(),
        nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip
    model, X = TorchClassifier(module, [0, 1, 2]), np.random.default_rng(0).random((4, 36))
    property = StandardRobustness(0.2, delta=0.16)
    result = Exact(attack=None, max_domains=2000).verify(
        model, X, property=property, evidence=tmp_path
    )
    assert "verified" in result.verdicts
    assert check(tmp_path, model).is_accepted


def problem_of(weight, shift):
    """Return rows of relu(x1) + relu(x2) over [-1, 1]^2, whose signs are those of inputs."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(2))
        module[0].bias.zero_()
        module[2].weight.fill_(1.0)
        module[2].bias.zero_()
    graph = read_graph(module, n_features=2)
    x = torch.zeros(1, 2, dtype=torch.float64)
    root = relax(graph, Ball.outside(x, 1.0, "linf", None))
    rows = torch.full((1, 1, 1), weight, dtype=torch.float64)
    shifts = torch.full((1, 1), shift, dtype=torch.float64)
    return Problem(root, rows, shifts, None, None, lambda lower, problem: lower[:, 0])


def closed(problem, signs):
    """Return whether the leaf of these signs is closed, and the multipliers that were entered."""
    domain = _first(problem)
    (j,) = domain.signs
    signs = torch.tensor([signs], dtype=torch.float64)
    lows = {j: torch.where(signs > 0, 0.0, domain.lows[j])}
    highs = {j: torch.where(signs < 0, 0.0, domain.highs[j])}
    domain = replace(domain, signs={j: signs}, lows=lows, highs=highs)
    recording = Recording(problem.root, reduce(problem.root).places, problem.root)
    is_closed = close_leaf(problem, domain, recording)
    return is_closed, [bounds[0][1] for _, bounds in recording.leaves.values()]


def test_leaves_are_closed_by_multipliers():
    # Where x1 >= 0 and x2 >= 0 the row x1 + x2 + 0.001 is above 0 by multipliers of 1 alone.
    is_closed, [multipliers] = closed(problem_of(1.0, 0.001), [1.0, 1.0])
    assert is_closed
    [(units, values)] = multipliers.values()
    assert units.tolist() == [0, 1]
    assert values == pytest.approx([1.0, 1.0], abs=1e-3)
    # Where x2 <= 0, it is x1 + 0.001.
    is_closed, [multipliers] = closed(problem_of(1.0, 0.001), [1.0, -1.0])
    assert is_closed


def test_leaves_with_points_below_zero_stay_open():
    assert closed(problem_of(-1.0, 1.9), [1.0, 1.0]) == (False, [])  # -2 + 1.9 at the corner
    assert closed(problem_of(-1.0, 1.9), [1.0, -1.0])[0]
    assert closed(problem_of(1.0, -0.001), [1.0, 1.0]) == (False, [])


def test_leaves_without_points_are_closed():
    problem = problem_of(-1.0, 0.5)
    shift = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        module[0].bias.copy_(torch.tensor([-0.5, -0.5]))
        module[2].weight.fill_(-1.0)
        module[2].bias.zero_()
    graph = read_graph(module, n_features=2)
    root = relax(graph, Ball.outside(shift, 1.0, "linf", None))
    # x1 + x2 >= 0.5 and x1 + x2 <= -0.5: any row is above 0 there.
    problem = replace(problem, root=root, rows=torch.ones_like(problem.rows))
    assert closed(problem, [1.0, 1.0])[0]
    assert not closed(problem, [1.0, -1.0])[0]


def test_a_search_that_goes_on_after_programs_has_a_whole_proof(tmp_path, monkeypatch):
    # HiGHS is asked after four domains; its word is not enough, so that branching begins anew.
    monkeypatch.setattr("skrobust.verification._exact._FIRST_DOMAINS", 4)
    model, X, y = trained((24, 24))
    property = ClassificationRobustness(0.08)
    verifier = Exact(milp_units=1000, max_domains=5000)
    result = verifier.verify(model, X, y, property=property, evidence=tmp_path)
    verified = result.verdicts == "verified"
    assert (result.evidence[verified] != "").all()
    assert set(result.reasons[verified]) == {Reason.PROVED}
    assert check(tmp_path, model).is_accepted
    plain = verifier.verify(model, X, y, property=property)
    assert Reason.BY_SOLVER in set(plain.reasons)


def test_limits_leave_no_proof():
    model, X, y = trained((24, 24))
    property = ClassificationRobustness(0.08)
    result = Exact(milp_units=0, max_domains=1).verify(
        model, X, y, property=property, evidence="required"
    )
    unknown = result.verdicts == "unknown"
    assert unknown.any()
    assert Reason.WITHOUT_EVIDENCE not in set(result.reasons[unknown])
