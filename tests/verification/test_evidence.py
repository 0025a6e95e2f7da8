"""Evidence asked for with a verdict: kept, missing and said so, or required."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from torch import nn

from skrobust import TorchClassifier
from skrobust.evidence import Writer, check
from skrobust.exceptions import MissingEvidenceWarning
from skrobust.networks import LinfDistanceNetwork
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.scorers import ConstraintSatisfaction
from skrobust.verification import Bounds, Cascade, Exact, Reason
from tests.verification._examples import PROPERTIES, small


@pytest.fixture(scope="module")
def trained():
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier((12,), solver="lbfgs", max_iter=60, random_state=0)
    return model.fit(X[:300] / 16, y[:300]), X[300:312] / 16, y[300:312]


@pytest.mark.parametrize(
    "property",
    [
        ClassificationRobustness(0.03),
        ClassificationRobustness(0.0),
        ClassificationRobustness(0.1, norm="l2"),
        ClassificationRobustness(0.03, reference="prediction", bounds=None),
        StandardRobustness(0.01, delta=4.0),
        ClassificationRobustness(0.01) & StandardRobustness(0.01, delta=4.0),
        StrongClassificationRobustness(0.003, eta=0.2),
    ],
    ids=str,
)
def test_bounds_and_attacks_leave_evidence(trained, tmp_path, property):
    model, X, y = trained
    verifier = Cascade([Cascade().named_parts["pgd"], Bounds()])
    plain = verifier.verify(model, X, y, property=property, random_state=0)
    result = verifier.verify(
        model, X, y, property=property, random_state=0, evidence=tmp_path / "new"
    )
    assert (plain.verdicts == result.verdicts).all()
    assert set(plain.evidence) == {""}
    decided = result.verdicts != "unknown"
    assert decided.sum() >= 6
    assert (result.evidence != "").tolist() == decided.tolist()
    evidence = check(tmp_path / "new", model)
    assert evidence.is_accepted, evidence.messages
    assert set(evidence.files) == set(result.evidence[decided])


def test_what_has_no_evidence_is_said(trained, tmp_path, monkeypatch):
    model, X, y = trained
    property = ClassificationRobustness(0.01)
    monkeypatch.setattr("skrobust.verification._evidence.why_rejected", lambda *_: "it is late")
    with pytest.warns(MissingEvidenceWarning, match="verdicts have no evidence"):
        result = Bounds().verify(model, X, y, property=property, evidence=tmp_path)
    verified = result.verdicts == "verified"
    assert verified.any()
    assert "it is late" in result.notes[verified][0]
    # Of a point that is misclassified the verdict stays, and the warning says so.
    with pytest.warns(MissingEvidenceWarning, match="it is late"):
        required = Bounds().verify(model, X, y, property=property, evidence="required")
    assert (required.verdicts[verified] == "unknown").all()
    assert (required.reasons[verified] == Reason.WITHOUT_EVIDENCE).all()


@pytest.mark.parametrize("kind", ["relu", "clamp", "pool", "tanh"])
@pytest.mark.parametrize("name", PROPERTIES)
def test_all_kinds_of_rows_and_units_leave_evidence(kind, name, tmp_path):
    model, X = small(kind)
    property = PROPERTIES[name]
    verifier = Cascade([Cascade().named_parts["pgd"], Bounds(), Exact(split_inputs=0)])
    verifier.set_params(exact__max_domains=300, timeout=None)
    result = verifier.verify(model, X, property=property, evidence=tmp_path, random_state=0)
    decided = result.verdicts != "unknown"
    assert decided.any()
    assert (result.evidence[decided] != "").all(), result.notes
    evidence = check(tmp_path, model, X, property=property)
    assert evidence.is_accepted, evidence.messages
    if property.norm == "linf":
        exact = check(tmp_path, model, exact=True)
        assert exact.is_accepted, exact.messages
    other = PROPERTIES["concave" if name != "concave" else "distance"]
    assert not check(tmp_path, model, X, property=other).accepted.any()


@pytest.mark.parametrize(
    "property",
    [
        ClassificationRobustness(0.1, norm="l2", reference="prediction"),
        StrongClassificationRobustness(0.02, eta=0.3, reference="prediction"),
        StandardRobustness(0.05, delta=0.051) & LipschitzRobustness(0.05, lipschitz=1.0),
        LipschitzRobustness(0.15, lipschitz=1.0, norm="l2"),
    ],
    ids=str,
)
def test_networks_of_distances_leave_evidence(property, tmp_path):
    module = LinfDistanceNetwork(6, 3, (8, 7), random_state=1)
    model, X = TorchClassifier(module, [0, 1, 2]), np.random.default_rng(0).random((6, 6))
    plain = Bounds().verify(model, X, property=property)
    verified = plain.verdicts == "verified"
    assert verified.sum() >= 3
    result = Bounds().verify(model, X, property=property, evidence=tmp_path)
    assert (result.verdicts == plain.verdicts).all()
    assert (result.evidence[verified] != "").all(), result.notes
    assert check(tmp_path, model, X, property=property).is_accepted
    if property.norm == "linf":
        assert check(tmp_path, model, exact=True).is_accepted
    other = LinfDistanceNetwork(6, 3, (8, 7), random_state=2)
    messages = check(tmp_path, TorchClassifier(other, [0, 1, 2])).messages
    assert all("1.weight differs" in message for message in messages)


def test_required_evidence_is_checked_and_not_stored(trained):
    model, X, y = trained
    property = ClassificationRobustness(0.02)
    result = Bounds().verify(model, X, y, property=property, evidence="required")
    assert (result.verdicts == "verified").sum() >= 6
    assert set(result.evidence[result.verdicts == "verified"]) == {"checked"}


@pytest.mark.parametrize("evidence", ["", 3, ["folder"]])
def test_what_is_no_folder(trained, evidence):
    model, X, y = trained
    with pytest.raises(TypeError, match="evidence"):
        Bounds().verify(model, X, y, property=ClassificationRobustness(0.1), evidence=evidence)


def test_a_full_disk_loses_no_verdict(trained, tmp_path, monkeypatch):
    model, X, y = trained
    property = ClassificationRobustness(0.02)
    expected = Bounds().verify(model, X, y, property=property)
    whole = Writer.add

    def full(writer, arrays):
        if full.count:
            full.count -= 1
            return whole(writer, arrays)
        raise OSError(28, "No space left on device")

    full.count = 3
    monkeypatch.setattr(Writer, "add", full)
    with pytest.warns(MissingEvidenceWarning, match="No space left"):
        result = Bounds().verify(model, X, y, property=property, evidence=tmp_path)
    assert (result.verdicts == expected.verdicts).all()
    assert (result.evidence != "").sum() == 3
    assert len(check(tmp_path)) == 3


def test_a_scorer_leaves_the_same_evidence(trained, tmp_path):
    model, X, y = trained
    property = ClassificationRobustness(0.02)
    scorer = ConstraintSatisfaction(
        property,
        Bounds(),
        evidence=tmp_path / "out",
        memory=str(tmp_path / "memory"),
        chunk_size=4,
    )
    first = scorer.evaluate(model, X, y)
    assert check(tmp_path / "out", model).is_accepted
    again = scorer.evaluate(model, X, y)
    assert (first.evidence == again.evidence).all()
    # What someone has deleted since is reported.
    (tmp_path / "out" / first.evidence[first.evidence != ""][0]).unlink()
    with pytest.warns(MissingEvidenceWarning, match="missing"):
        scorer.evaluate(model, X, y)


SCRIPT = """
import sys
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction
from skrobust.verification import Bounds
X, y = load_digits(return_X_y=True)
model = MLPClassifier((12,), solver="lbfgs", max_iter=60, random_state=0)
model.fit(X[:300] / 16, y[:300])
scorer = ConstraintSatisfaction(ClassificationRobustness(0.02), Bounds(), chunk_size=1)
scorer.set_params(evidence=sys.argv[1], memory=sys.argv[2])
result = scorer.evaluate(model, X[300:700] / 16, y[300:700])
print(len(set(result.evidence) - {""}), (result.verdicts != "unknown").sum())
"""


@pytest.mark.slow
def test_it_goes_on_after_a_kill(tmp_path):
    out, memory = tmp_path / "out", tmp_path / "memory"
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(out), str(memory)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.glob("point-*"))) < 50:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("point-*")}
    assert 50 <= len(done) < 300
    last = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    files, decided = map(int, last.split())
    evidence = check(out)
    assert evidence.is_accepted
    assert len(evidence) == files == decided
    kept = [path for path, when in done.items() if path.stat().st_mtime_ns == when]
    assert len(kept) >= len(done) - 1  # the last one before the kill may be decided again


def test_a_solvers_word_is_named_and_is_no_evidence(monkeypatch):
    # The windows of a pool are split by no sign, so that bounds or programs decide.
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Linear(12, 16), nn.Unflatten(1, (1, 4, 4)), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip
    model, X = TorchClassifier(module, [0, 1, 2]), np.random.default_rng(0).random((8, 12))
    property = StandardRobustness(0.1, delta=0.2)
    monkeypatch.setattr("skrobust.verification._exact._FIRST_DOMAINS", 1)
    plain = Exact(attack=None, split_inputs=0).verify(model, X, property=property, timeout=5)
    by_solver = plain.reasons == Reason.BY_SOLVER
    assert by_solver.any()
    assert set(plain.decided_by[by_solver]) == {"highs"}
    # The same, where evidence is asked for: splits of inputs, or unknown.
    verifier = Exact(attack=None, split_inputs=0, max_domains=50)
    result = verifier.verify(model, X, property=property, evidence="required")
    assert not (result.reasons == Reason.BY_SOLVER).any()
    verified = result.verdicts == "verified"
    assert (result.evidence[verified] == "checked").all()
    assert (result.verdicts[by_solver & ~verified] == "unknown").all()


def test_rows_of_the_claim_are_those_of_the_property(trained, tmp_path):
    model, X, y = trained
    property = ClassificationRobustness(0.02)
    result = Bounds().verify(model, X, y, property=property, evidence=tmp_path)
    k = int(np.flatnonzero(result.verdicts == "verified")[0])
    with np.load(tmp_path / result.evidence[k]) as arrays:
        assert (arrays["A"][:, y[k]] == 1).all()
        assert (arrays["A"].sum(axis=1) == 0).all()
        assert arrays["A"].shape == (9, 10)
        assert (arrays["center"] == X[k]).all()
