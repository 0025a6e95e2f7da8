"""Constraints between features: proofs and counterexamples against a fine grid."""

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import (
    ClassificationRobustness,
    Domain,
    LinearRows,
    StrongClassificationRobustness,
)
from skrobust.verification import Cascade, Exact
from skrobust.verification._constraints import UnderConstraints

RNG = np.random.default_rng(1)
Z = np.c_[RNG.integers(0, 5, 200), RNG.uniform(size=(200, 2))].astype(float)
LABELS = (Z[:, 0] + 3 * Z[:, 1] - 2 * Z[:, 2] > 2.6).astype(int)
A, B = [[0.1, 1, -1], [0, 1, 1]], [0.4, 1.6]
DOMAIN = Domain([0, 0, 0], [4, 1, 1], integers=[0], constraints=(A, B))
EPSILON = [1, 0.15, 0.15]


@pytest.fixture(scope="module")
def model():
    network = MLPClassifier((6,), solver="lbfgs", max_iter=200, random_state=0)
    return network.fit(Z, LABELS)


@pytest.mark.parametrize("verifier", [Cascade(), Exact()], ids=repr)
def test_verdicts_are_those_of_the_set_and_not_of_the_box(model, verifier):
    rows = Z[DOMAIN.holds(Z)][:40]
    labels = model.predict(rows)
    steps = np.linspace(-0.15, 0.15, 41)
    moves = np.array(np.meshgrid([-1, 0, 1], steps, steps)).reshape(3, -1).T
    valid = [(x + moves)[DOMAIN.holds(x + moves)] for x in rows]
    changes = np.array([(model.predict(v) != y).any() for v, y in zip(valid, labels, strict=True)])
    property = ClassificationRobustness(EPSILON, bounds=DOMAIN)
    result = verifier.verify(model, rows, labels, property=property, random_state=0)
    falsified = result.verdicts == "falsified"
    assert not (changes & ~falsified).any() and (result.verdicts != "unknown").all()
    points = result.counterexamples[falsified]
    assert DOMAIN.holds(points, rows[falsified]).all()
    assert (model.predict(points) != labels[falsified]).all()
    box = ClassificationRobustness(EPSILON, bounds=DOMAIN.box)
    relaxed = verifier.verify(model, rows, labels, property=box, random_state=0)
    assert falsified.sum() < (relaxed.verdicts == "falsified").sum()


def test_the_question_by_hand():
    """One row z_0 - z_1 >= 0, one constraint x <= 0.5 as the third output."""
    property = ClassificationRobustness(0.1).around(torch.zeros(1))
    under = UnderConstraints(property, np.array([0.5]))
    rows = under.conclusion(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
    assert isinstance(rows, LinearRows) and rows.has_clauses
    outputs = torch.tensor([[1.0, 0, 0.4], [0, 1, 0.4], [0, 1, 0.6], [0, 1, 0.5]])
    assert rows.holds(outputs).tolist() == [True, False, True, False]


def test_rows_that_are_not_linear_are_refused(model):
    property = StrongClassificationRobustness(EPSILON, bounds=DOMAIN)
    with pytest.raises(UnsupportedPropertyError, match="Domain without constraints"):
        Exact().verify(model, Z[DOMAIN.holds(Z)], LABELS[DOMAIN.holds(Z)], property=property)
