"""What happens where two verifiers contradict each other."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from skrobust.attacks import PGD
from skrobust.exceptions import SolverDisagreementWarning
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Bounds, Cascade, Exact, Reason
from tests.verification._tensors import Recorder, decided

CR = ClassificationRobustness


@pytest.fixture(scope="module")
def line():
    """A network that says 1 above 0.5, and five points."""
    model = LogisticRegression(C=1e4).fit([[0.4], [0.6]], [0, 1])
    network = as_network(model)
    x = network.rows(np.array([[0.1], [0.45], [0.3], [0.55], [0.9]]))
    return network, x, network.encode(np.array([0, 0, 0, 1, 1]))


def test_a_false_proof_is_reported(line, tmp_path):
    pytest.importorskip("onnx")
    network, x, labels = line
    cascade = Cascade([PGD()], cross_check=Recorder("verified"), query_folder=tmp_path)
    with pytest.warns(SolverDisagreementWarning, match=r"Sample [13]: recorder claims a proof"):
        found = decided(cascade, network, CR(0.1), x, labels)
    # What PGD has left open is decided by the cross-check.
    assert found.verdicts.tolist() == [
        "verified",
        "falsified",
        "verified",
        "falsified",
        "verified",
    ]
    assert found.decided_by.tolist() == ["recorder", "pgd", "recorder", "pgd", "recorder"]
    for i in (1, 3):
        assert found.reasons[i] is Reason.DISAGREEMENT
        assert "pgd found a counterexample" in found.notes[i]
        assert (tmp_path / f"query-{i}" / "query.vnnlib").exists()
        assert str(tmp_path / f"query-{i}") in found.notes[i]
    assert (found.notes[[0, 2, 4]] == "").all()


def test_a_proof_of_the_stages_is_contradicted(line, tmp_path):
    network, x, labels = line
    cascade = Cascade([Recorder("verified")], cross_check=Exact(), query_folder=tmp_path)
    with pytest.warns(SolverDisagreementWarning, match="recorder claims a proof, but exact"):
        found = decided(cascade, network, CR(0.1), x, labels)
    assert found.verdicts[1] == "falsified" and found.decided_by[1] == "exact"
    assert abs(found.counterexamples[1] - 0.45) <= 0.1 + 1e-6
    assert np.isneginf(found.lower[1])


def test_a_query_that_cannot_be_saved_loses_no_verdict(line, tmp_path):
    network, x, labels = line
    cascade = Cascade([PGD()], cross_check=Recorder("verified"), query_folder=tmp_path)
    with pytest.warns(SolverDisagreementWarning, match="could not be saved"):
        found = decided(cascade, network, CR(0.1, norm="l2"), x, labels)
    assert found.verdicts.tolist() == [
        "verified",
        "falsified",
        "verified",
        "falsified",
        "verified",
    ]


def test_agreement_is_silent(line):
    network, x, labels = line
    found = decided(Cascade(cross_check=Exact()), network, CR(0.1), x, labels)
    assert (found.notes == "").all()
    assert set(found.decided_by) == {"pgd", "bounds"}


def test_the_time_of_the_cross_check_counts(line):
    network, x, labels = line

    class Slow(Recorder):
        def decide(self, state, x, labels=None, **options):
            found = super().decide(state, x, labels, **options)
            found.seconds[:] = 100.0  # a result's arrays can be written
            return found

    found = decided(Cascade([Bounds()], cross_check=Slow()), network, CR(0.1), x, labels)
    assert (found.seconds > 100).all() and (found.seconds < 110).all()
