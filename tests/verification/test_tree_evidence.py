"""Evidence about trees, from the public door: accepted, and rejected once it is changed."""

import json
import shutil
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from skrobust.evidence import check
from skrobust.evidence._writing import Writer
from skrobust.exceptions import MissingEvidenceWarning
from skrobust.properties import (
    ClassificationRobustness,
    Domain,
    IndividualFairness,
    Monotonicity,
)
from skrobust.scorers import ConstraintSatisfaction
from skrobust.trees import read_trees
from skrobust.verification import Cascade, TreeVerifier
from skrobust.verification._tree_evidence import Cuts, cuts_of_tree
from tests.trees._models import ENSEMBLES, SINGLE, data, fitted


@pytest.mark.parametrize("name", [*SINGLE, *ENSEMBLES])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_all_verdicts_have_evidence_that_is_accepted(name, norm, tmp_path):
    n_classes = 2 if name == "exponential" else 3
    model, X = fitted((SINGLE | ENSEMBLES)[name], n_classes, 4), data(n_classes, 4)[0]
    property = ClassificationRobustness(0.08, norm=norm, bounds=(0, 1), reference="prediction")
    plain = TreeVerifier().verify(model, X[:20], property=property, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingEvidenceWarning)
        result = TreeVerifier().verify(
            model, X[:20], property=property, random_state=0, evidence=tmp_path
        )
    # A point at which the estimator's own rounding breaks a tie is no evidence.
    by_rounding = np.array(["rounding decides" in note for note in result.notes])
    assert by_rounding.sum() <= (name == "exponential")
    assert (result.verdicts == plain.verdicts).all()
    assert {"verified", "falsified"} <= set(result.verdicts)
    for exact in (False, True):
        evidence = check(tmp_path, model, exact=exact)
        assert evidence.is_accepted, evidence.messages
    named = (result.verdicts != "unknown") & ~by_rounding
    assert set(result.evidence[named]) == set(evidence.files)


@pytest.fixture(scope="module")
def forest():
    X, y = load_digits(return_X_y=True)
    X, y = X / 16, y % 2
    model = RandomForestClassifier(25, random_state=0).fit(X[:600], y[:600])
    return model, X[600:630], y[600:630]


@pytest.fixture(scope="module")
def folder(forest, tmp_path_factory):
    model, X, y = forest
    path = tmp_path_factory.mktemp("trees")
    scorer = ConstraintSatisfaction(
        ClassificationRobustness(0.1), verifier=TreeVerifier(), evidence=path
    )
    result = scorer.evaluate(model, X, y)
    assert (result.evidence[result.verdicts != "unknown"] != "").all()
    return path


def test_the_scorer_and_the_cascade_write_it(folder, forest, tmp_path):
    model, X, y = forest
    assert check(folder, model).is_accepted
    assert max(int(m.split()[-2]) for m in check(folder).messages if m[0] == "v") > 3
    property = ClassificationRobustness(0.05)
    result = Cascade().verify(model, X[:5], y[:5], property=property, evidence=tmp_path)
    assert check(tmp_path, model).accepted.sum() == (result.verdicts != "unknown").sum()
    required = Cascade().verify(model, X[:5], y[:5], property=property, evidence="required")
    assert (required.verdicts == result.verdicts).all()
    assert set(required.evidence) == {"checked"}


def test_other_trees_are_told_from_these(folder, forest):
    _, X, y = forest
    other = RandomForestClassifier(20, random_state=1).fit(X, y)
    assert "is not the estimator's" in check(folder, other).messages[0]
    tree = DecisionTreeClassifier().fit(X[:, :3], y)
    assert "3" in check(folder, tree).messages[0]


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_changed_files_are_rejected_or_true(folder, forest, tmp_path, count):
    """Claims that are accepted hold at random points of their ball, by the forest itself."""
    model, rng, n_rejected = forest[0], np.random.default_rng(0), 0
    shutil.copytree(folder, tmp_path / "copy")
    manifest = json.loads((folder / "manifest.json").read_text())
    writer = Writer(tmp_path / "copy", dict(np.load(folder / "network.npz")))
    files = [dict(np.load(folder / name)) for name in manifest["points"]]
    for k in range(count):
        arrays = {name: part.copy() for name, part in files[k % len(files)].items()}
        kind = ("epsilon", "center", "label", "at", "feature", "leaf")[k % 6]
        if kind == "label":
            about = json.loads(bytes(arrays["claim"]).decode())
            about["label"] = int(rng.integers(0, 3))
            arrays["claim"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        elif kind in ("leaf", "at", "feature"):
            if "at" not in arrays:
                continue
            place = int(rng.integers(0, len(arrays["at"])))
            if kind == "leaf":
                arrays |= {name: np.delete(arrays[name], place) for name in ("at", "feature")}
            else:
                arrays[kind][place] = rng.integers(0, 5)
        else:
            arrays[kind] = arrays[kind] * rng.uniform(0.5, 3)
        writer.finish({}, [writer.add(arrays)])
        if not check(tmp_path / "copy").is_accepted:
            n_rejected += 1
            continue
        about = json.loads(bytes(arrays["claim"]).decode())
        if about["verdict"] == "falsified":
            assert model.predict([arrays["point"]])[0] != about["label"]
            continue
        steps = rng.uniform(-1, 1, (200, 64))
        points = arrays["center"] + arrays["epsilon"] * np.where(steps > 0.9, 1.0, steps)
        points = np.clip(points, arrays["domain_low"], arrays["domain_high"])
        assert (model.predict(points) == about["label"]).all()
    assert count / 6 < n_rejected < count


def test_cuts_are_numbered_level_by_level():
    cuts = Cuts()
    assert cuts.arrays()["feature"].tolist() == [0]
    cuts.cut([0], [2], [0.5], 1)
    cuts.cut([2, 1], [0, 1], [0.1, 0.2], 3)  # left halves 3 and 4, right ones 5 and 6
    arrays = cuts.arrays()
    assert arrays["feature"].tolist() == [3, 2, 1, 0, 0, 0, 0]
    assert arrays["at"].tolist() == [0.5, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0]


def test_one_tree_is_cut_where_it_meets_the_box():
    tree = DecisionTreeClassifier().fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
    trees = read_trees(tree)
    assert (cuts_of_tree(trees, np.zeros(1), np.full(1, 0.2))["feature"] == 0).all()
    whole = cuts_of_tree(trees, np.zeros(1), np.full(1, 3.0))
    assert (whole["feature"] == 1).sum() == 3
    assert (whole["feature"] == 0).sum() == 4


def verified_with_evidence(property, X, tmp_path):
    """Verify a tree with evidence; return the result, and the arrays of its first file."""
    rows = np.random.default_rng(0).random((200, 2))
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(rows, rows[:, 0] > 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingEvidenceWarning)
        result = TreeVerifier().verify(
            model, X, model.predict(X), property=property, evidence=tmp_path
        )
    files = sorted(tmp_path.glob("point-*.npz"))
    assert not files or check(tmp_path, model).is_accepted
    return result, dict(np.load(files[0])) if files else None


def test_files_claim_the_points_that_the_property_is_about(tmp_path):
    X = [[0.1, 0.4]]
    # A pair is how far features fall and rise, not a radius for each of two of them.
    _, up = verified_with_evidence(ClassificationRobustness((0.0, 0.2)), X, tmp_path / "up")
    np.testing.assert_array_equal(up["epsilon"], [[0.0, 0.0], [0.2, 0.2]])
    np.testing.assert_array_equal(up["domain_high"], 1.0)
    _, uneven = verified_with_evidence(
        ClassificationRobustness((0.1, 0.2), norm="l2"), X, tmp_path / "uneven"
    )
    np.testing.assert_array_equal(uneven["epsilon"], [[0.1, 0.1], [0.2, 0.2]])
    whole = ClassificationRobustness(1.5, bounds=Domain([0, 0], [1, 3], integers=[1]))
    _, domain = verified_with_evidence(whole, [[0.1, 1.0]], tmp_path / "domain")
    assert domain["integers"].tolist() == [1]
    np.testing.assert_array_equal(domain["epsilon"], [1.5, 1.0])
    _, fair = verified_with_evidence(IndividualFairness([1], epsilon=0.05), X, tmp_path / "fair")
    assert fair["epsilon"][0] == 0.05
    assert fair["epsilon"][1] >= 0.6  # the protected feature takes any value


def test_how_scores_rise_has_no_evidence(tmp_path):
    property = Monotonicity(0, output="probabilities")
    result, arrays = verified_with_evidence(property, [[0.1, 1.0]], tmp_path)
    assert result.verdicts.tolist() == ["verified"]
    assert arrays is None
    assert "rise with a feature" in result.notes[0]
