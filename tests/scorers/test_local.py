"""The driver that ConstraintSatisfaction and GlobalRobustness share."""

import numpy as np
import pytest
import torch

from skrobust import TorchClassifier
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction, GlobalRobustness
from skrobust.verification import Step, VerificationBuilder, Verifier

asked = []  # outside of the verifier, whose state is a part of the key in the memory


class TwoSteps(Verifier):
    """Proves what is below 1/2 in one step, the rest point by point."""

    def check(self):
        return self

    def steps(self, encoding):
        return [
            Step("quick", encoding, self.decide, "bounds"),
            Step("slow", encoding, self.prove_all, chunk_size=1),
        ]

    def decide(self, encoding, x, labels=None, *, timeout=None, generator=None):
        asked.append(("quick", len(x), timeout))
        verdicts = VerificationBuilder(x)
        verdicts.prove(np.flatnonzero(x[:, 0] < 0.5))
        verdicts.seconds[:] = 1.0
        return verdicts.result()

    def prove_all(self, encoding, x, labels=None, *, timeout=None, generator=None):
        asked.append(("slow", len(x), timeout))
        return VerificationBuilder(x).prove(np.arange(len(x))).result()


@pytest.fixture
def line():
    layer = torch.nn.Linear(1, 2).requires_grad_(False)
    return TorchClassifier(layer, 2), np.linspace(0.1, 0.9, 8)[:, None]


PROPERTY = ClassificationRobustness(0.1, reference="prediction")


def scorers(**options):
    return [
        ConstraintSatisfaction(PROPERTY, TwoSteps(), **options),
        GlobalRobustness(PROPERTY, local=TwoSteps(), tolerance=0.9, random_state=0, **options),
    ]


@pytest.mark.parametrize("scorer", scorers(chunk_size=3, timeout=5.0), ids=["share", "global"])
@pytest.mark.filterwarnings("ignore::skrobust.exceptions.ToleranceWarning")
def test_both_scorers_send_slow_points_one_by_one(line, scorer):
    asked.clear()
    result = scorer.evaluate(*line)
    assert (result.verdicts == "verified").all()
    n = len(result.verdicts)
    quick = [each for each in asked if each[0] == "quick"]
    slow = [each for each in asked if each[0] == "slow"]
    assert [size for _, size, _ in quick] == [3] * (n // 3) + [n % 3] * (n % 3 > 0)
    assert {size for _, size, _ in slow} == {1}
    assert len(slow) >= 1
    # What the quick step has spent is a part of each sample's time.
    assert {limit for *_, limit in quick} == {5.0} and {limit for *_, limit in slow} == {4.0}


def test_the_name_of_the_step_that_decided(line):
    result = scorers()[0].evaluate(*line)
    below = line[1][:, 0] < 0.5
    np.testing.assert_array_equal(result.decided_by, np.where(below, "quick", "slow"))
    assert (result.seconds == 1.0).all()


def test_the_memory_keeps_every_step(line, tmp_path):
    asked.clear()
    first = scorers(memory=str(tmp_path))[0].evaluate(*line)
    count = len(asked)
    again = scorers(memory=str(tmp_path))[0].evaluate(*line)
    assert len(asked) == count == 1 + (line[1][:, 0] >= 0.5).sum()
    np.testing.assert_array_equal(first.verdicts, again.verdicts)
