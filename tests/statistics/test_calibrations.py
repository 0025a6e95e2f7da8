"""The shipped calibrations are what calibrating gives, to the last bit."""

import math

import numpy as np
import pytest

from skrobust.statistics import sequential_rule
from skrobust.statistics._calibrations import CALIBRATIONS
from skrobust.statistics._sequential import calibrated_z

TOLERANCES = (0.1, 0.05, 0.04, 0.03, 0.025, 0.02, 0.015, 0.01)
CONFIDENCES = (0.9, 0.95, 0.99)


def test_table_has_every_pair_that_the_docs_name():
    assert set(CALIBRATIONS) == {(t, c) for t in TOLERANCES for c in CONFIDENCES}
    for tolerance in TOLERANCES:
        assert str(tolerance) in sequential_rule.__doc__


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_coarsest_is_calibrated_again(confidence):
    assert calibrated_z(0.1, confidence) == CALIBRATIONS[0.1, confidence]


# Those below are left to `python benchmarks/_calibrate.py`: minutes of work.
@pytest.mark.slow
@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("tolerance", [t for t in TOLERANCES if t >= 0.025])
def test_coarser_half_is_calibrated_again(tolerance, confidence):
    assert calibrated_z(tolerance, confidence) == CALIBRATIONS[tolerance, confidence]


def test_finest_rule_is_there_without_calibration(monkeypatch):
    def refuse(*args):
        raise AssertionError("calibrated")

    monkeypatch.setattr("skrobust.statistics._sequential.calibrated_z", refuse)
    rule = sequential_rule(0.01, 0.9)
    assert rule.z == CALIBRATIONS[0.01, 0.9]
    # Independent of how it was made: it covers, and needs fewer samples than Hoeffding.
    assert rule.coverage(np.linspace(0, 1, 101)).min() >= 0.9
    assert rule.n_max < math.log(2 / 0.1) / (2 * 0.01**2)
    with pytest.raises(AssertionError, match="calibrated"):
        sequential_rule(0.011, 0.9)
