"""The fields of a model card, as plain values."""

from dataclasses import replace

import numpy as np
import pytest

from skrobust.properties import ClassificationRobustness
from skrobust.report._card import DETAILS, card_of, one_line, sections_of, shown_epsilon
from skrobust.scorers import ConstraintSecurity

# Mitchell et al., "Model cards for model reporting", FAT* 2019, figure 1.
MITCHELL = {
    "model_details",
    "intended_use",
    "factors",
    "metrics",
    "evaluation_data",
    "training_data",
    "quantitative_analyses",
    "ethical_considerations",
    "caveats_and_recommendations",
}


def leaves(value):
    if isinstance(value, dict):
        assert all(isinstance(name, str) for name in value)
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [value]


def test_card_has_the_fields_of_the_paper(report):
    assert set(card_of(report)) == MITCHELL | {"format", "version", "skrobust"}
    assert set(DETAILS) <= MITCHELL


def test_card_has_plain_values_only(report):
    assert {type(leaf) for leaf in leaves(card_of(report))} <= {str, int, float, bool, type(None)}


def test_card_has_the_figures(report):
    card = card_of(report)
    analyses = card["quantitative_analyses"]
    assert analyses["accuracy"]["score"] == report.accuracy
    assert analyses["curves"]["security"]["low"] == report.curves["security"].low.tolist()
    assert analyses["worst_examples"]["index"] == report.examples.index.tolist()
    assert sum(card["evaluation_data"]["class_counts"]) == 20
    assert card["metrics"]["satisfaction"]["interval"]["method"] == "clopper-pearson"
    assert card["factors"]["epsilons"] == [0.0, 0.03, 0.1]
    assert card["caveats_and_recommendations"]["assumed"] == list(report.assumed)


def test_card_says_what_only_people_know(report):
    card = card_of(report)
    assert card["intended_use"].startswith("Digits")
    assert card["training_data"] is None and card["ethical_considerations"] is None


def test_card_says_why_a_score_is_missing(forest_report):
    reasons = card_of(forest_report)["caveats_and_recommendations"]["not_measured"]
    assert "RandomForestClassifier" in reasons["Adversarial frequency"]


def test_what_is_not_finite_is_none(report):
    curve = replace(report.curves["security"], low=np.array([np.nan, -np.inf, 0.5]))
    changed = replace(report, curves={"security": curve}, scale=np.array([1.0, np.inf]))
    card = card_of(changed)
    assert card["quantitative_analyses"]["curves"]["security"]["low"] == [None, None, 0.5]
    assert card["factors"]["scale"] == [1.0, None]


def test_sections_are_a_table_and_lists(report):
    sections = sections_of(report)
    table = sections["Robustness/Scores"].splitlines()
    assert len(table) == 2 + len(report.curves)
    assert {line.count("|") for line in table} == {5}
    assert sections["Robustness/Not measured"] == "All scores were measured."
    assert all(line.startswith("- ") for line in sections["Robustness/Assumed"].splitlines())


@pytest.mark.parametrize(("epsilon", "text"), [(0.1, "0.1"), (8 / 255, "0.0313725"), (0, "0")])
def test_epsilons_as_text(epsilon, text):
    assert shown_epsilon(epsilon) == text


def test_one_line_of_a_long_object():
    scorer = ConstraintSecurity(ClassificationRobustness(0.25, bounds=None), confidence=0.9)
    assert "\n" not in one_line(scorer) and "0.25" in one_line(scorer)
    assert one_line({"a": 1}) == "{'a': 1}"
