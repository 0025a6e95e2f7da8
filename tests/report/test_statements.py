"""What is said of the numbers."""

from dataclasses import replace

import numpy as np
import pytest

from skrobust.attacks import UniformSampling
from skrobust.properties import ClassificationRobustness
from skrobust.report._statements import assumed, not_checked, shown_bounds
from skrobust.statistics import Interval


def test_the_joint_confidence_is_that_of_bonferroni(report):
    interval = replace(report.accuracy_interval, confidence=0.999)
    text = next(t for t in assumed(replace(report, accuracy_interval=interval)) if "Bonf" in t)
    n = 1 + 3 * len(report.curves)
    assert f"all {n} of this report" in text and f"at least {1 - 0.001 * n:.4g}" in text
    assert "far less" in next(t for t in assumed(report) if "Bonferroni" in t)


def test_the_ball_and_the_domain_are_told(report):
    text = " ".join(assumed(report))
    assert "20 samples" in text and "[0, 1]" in text and "in each feature" in text
    l2 = ClassificationRobustness(norm="l2", bounds=None)
    text = " ".join(assumed(replace(report, property=l2, scale=np.ones(64))))
    assert "Euclidean length, in units of the feature's scale" in text
    assert "Every real number is a valid value" in text


def test_proofs_are_explained_where_there_are_any(report, knn_report):
    assert any("Proofs are about" in text for text in assumed(report))
    assert not any("Proofs are about" in text for text in assumed(knn_report))
    assert any("Nothing is proved" in text for text in not_checked(knn_report))


def test_what_lies_beyond(report):
    texts = not_checked(report)
    assert texts[0].startswith("Changes larger than 0.1")
    assert any("python -m skrobust.evidence check" in text for text in texts)
    without = not_checked(replace(report, evidence=None, attack=UniformSampling()))
    assert any("No evidence files" in text for text in without)
    assert any("by random points" in text for text in without)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0.0, 1.0), "[0, 1]"),
        ((-1, 2.5), "[-1, 2.5]"),
        ((np.zeros(2), 1.0), "bounds of their own"),
    ],
)
def test_bounds_in_words(bounds, text):
    assert shown_bounds(bounds).startswith(text)


def test_intervals_are_those_of_the_scorers(report):
    assert isinstance(report.accuracy_interval, Interval)
