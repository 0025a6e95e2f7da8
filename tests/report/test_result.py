"""What a report can be turned into."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from skrobust.verification import Verdict


def test_frame_has_a_row_for_each_score_and_epsilon(report):
    frame = report.to_frame()
    assert list(frame.columns) == ["score", "epsilon", "value", "low", "high"]
    assert len(frame) == 3 * len(report.curves)
    value = frame.set_index(["score", "epsilon"]).loc[("security", 0.03), "value"]
    assert value == report.curves["security"].scores[1]


def test_classes_add_up_to_all_samples(report):
    groups = report.by_class()
    counts = np.array([group["n_samples"] for group in groups])
    assert counts.sum() == 20
    assert [group["label"] for group in groups] == np.unique(report.labels).tolist()
    for name, whole in (("security", "security"), ("satisfaction", "satisfaction")):
        shares = np.array([group[name] for group in groups])
        np.testing.assert_allclose(counts @ shares / 20, report.curves[whole].scores)
    accuracy = np.array([group["accuracy"] for group in groups])
    np.testing.assert_allclose(counts @ accuracy / 20, report.accuracy)


def test_classes_without_proofs(knn_report):
    assert all("satisfaction" not in group for group in knn_report.by_class())


def test_json_is_read_back_as_the_dict(report, tmp_path):
    text = report.to_json(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == text
    assert json.loads(text) == report.to_dict()


def test_page_is_written(report, tmp_path):
    text = report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text


def test_card_of_skops(report):
    card_module = pytest.importorskip("skops.card", reason="pip install skrobust[cards]")
    card = report.to_card()
    assert isinstance(card, card_module.Card)
    text = card.render()
    assert (
        "Constraint satisfaction" in text and "## Robustness" in text
    ) or "# Robustness" in text
    own = card_module.Card(report.estimator).add(Ours="text")
    assert report.to_card(own) is own
    assert "Ours" in own.render() and "Robustness" in own.render()


@pytest.mark.parametrize(
    ("module", "method", "extra"),
    [
        ("skops.card", "to_card", "cards"),
        ("pandas", "to_frame", "plots"),
        ("matplotlib", "to_html", "plots"),
        ("jinja2", "to_html", "plots"),
    ],
)
def test_what_is_missing_is_named(report, monkeypatch, module, method, extra):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=re.escape(f"skrobust[{extra}]")):
        getattr(report, method)()


def test_evidence_is_where_the_report_says(report):
    folders = sorted(path.name for path in report.evidence.iterdir())
    assert folders == ["epsilon-0", "epsilon-0.03", "epsilon-0.1"]
    result = report.results["satisfaction"][2]
    named = {name for name in result.evidence if name}
    assert named and all((report.evidence / "epsilon-0.1" / name).is_file() for name in named)


def test_undecided_samples_are_told(report):
    result = report.results["satisfaction"][1]
    verdicts = np.full(len(result.verdicts), Verdict.UNKNOWN, dtype="<U9")
    undecided = replace(result, n_unknown=20, verdicts=verdicts)
    results = report.results | {"satisfaction": (report.results["satisfaction"][0], undecided)}
    texts = replace(report, results=results, epsilons=report.epsilons[:2]).not_checked
    assert any(text.startswith("At epsilon 0.03 the verifier left 20 of 20") for text in texts)
