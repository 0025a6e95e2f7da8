"""Constraint satisfaction: verdicts by hand, what is kept when killed, searches, and the bar."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.scorers import ConstraintSatisfaction, ConstraintSecurity
from skrobust.training import AdversarialTraining
from skrobust.verification import Bounds, Cascade, Exact, Reason, TreeVerifier
from tests._asserts import assert_inside_ball

CR = ClassificationRobustness


@pytest.fixture(scope="module")
def line():
    """A classifier that says 1 above 0.5, with five samples, one of them misclassified."""
    model = LogisticRegression(C=1e4).fit([[0.4], [0.6]], [0, 1])
    X = np.array([[0.1], [0.45], [0.3], [0.52], [0.9]])
    return model, X, np.array([0, 0, 1, 1, 1])


def test_verdicts_by_hand(line):
    model, X, y = line
    result = ConstraintSatisfaction(CR(0.1)).evaluate(model, X, y)
    expected = ["verified", "falsified", "falsified", "falsified", "verified"]
    assert result.verdicts.tolist() == expected
    assert result.decided_by.tolist() == ["bounds", "pgd", "pgd", "pgd", "bounds"]
    assert result.score == result.surviving_share == 0.4
    assert result.n_unknown == 0
    exact = binomtest(2, 5).proportion_ci(0.95, "exact")
    np.testing.assert_allclose([result.interval.low, result.interval.high], exact)
    found = result.verdicts == "falsified"
    assert (model.predict(result.counterexamples[found]) != y[found]).all()
    assert np.isnan(result.counterexamples[~found]).all()
    assert_inside_ball(result.counterexamples[found], X[found].astype(np.float32), CR(0.1))
    frame = result.to_frame()
    assert frame["verdicts"].tolist() == expected
    assert {"decided_by", "seconds", "reasons", "lower", "notes"} <= set(frame)


def test_unknown_counts_against_the_score(digits, digits_model):
    _, X, _, y = digits
    X, y = X[:60], y[:60]
    scorer = ConstraintSatisfaction(CR(0.06), Bounds("ibp"))
    result = scorer.evaluate(digits_model, X, y)
    counts = {v: (result.verdicts == v).sum() for v in ("verified", "falsified", "unknown")}
    assert counts["unknown"] > 0
    assert result.n_unknown == counts["unknown"]
    assert result.score == counts["verified"] / 60
    assert result.surviving_share == 1 - counts["falsified"] / 60
    unknown = result.verdicts == "unknown"
    assert (result.decided_by[unknown] == "").all()
    assert set(result.decided_by[~unknown]) == {"bounds"}
    assert set(result.reasons[unknown]) == {Reason.BOUNDS_TOO_LOOSE}
    complete = ConstraintSatisfaction(CR(0.06)).evaluate(digits_model, X, y)
    assert result.score < complete.score == complete.surviving_share < result.surviving_share


def test_it_lies_between_nothing_and_security(digits, digits_model):
    _, X, _, y = digits
    X, y = X[:60], y[:60]
    for epsilon in (0.02, 0.06, 0.12):
        security = ConstraintSecurity(CR(epsilon), PGD(20))(digits_model, X, y)
        assert ConstraintSatisfaction(CR(epsilon))(digits_model, X, y) <= security


def test_at_epsilon_0_it_is_accuracy(digits, digits_model):
    _, X, _, y = digits
    score = ConstraintSatisfaction(CR(0.0))(digits_model, X, y)
    assert score == digits_model.score(X, y)


PROPERTIES = [
    CR(0.3, norm="l2"),
    CR(0.05, reference="prediction"),
    CR(np.linspace(0, 0.1, 64)),
    StandardRobustness(0.05, delta=2.0),
    LipschitzRobustness(0.05, lipschitz=36.0),
    StrongClassificationRobustness(0.05, eta=0.6),
    CR(0.05) & StandardRobustness(0.05, delta=2.0),
]


@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
def test_every_property(digits, digits_model, property):
    _, X, _, y = digits
    X, y = X[:30], y[:30]
    result = ConstraintSatisfaction(property, timeout=5).evaluate(digits_model, X, y)
    attacked = ConstraintSecurity(property, PGD(20)).evaluate(digits_model, X, y)
    # What an attack breaks is never verified; and there is something of both.
    assert (~attacked.holds).any() and (result.verdicts == "verified").any()
    assert not (result.verdicts[~attacked.holds] == "verified").any()
    assert result.n_unknown <= 2


def test_pipelines_are_scored_in_raw_units(digits):
    X, X_test, y, y_test = digits
    model = make_pipeline(StandardScaler(), PCA(20), LogisticRegression()).fit(X * 16, y)
    property = CR(0.02, bounds=(0.0, 16.0))
    result = ConstraintSatisfaction(property).evaluate(model, X_test[:40] * 16, y_test[:40])
    found = result.verdicts == "falsified"
    assert result.n_unknown == 0 and 0 < found.sum() < 40
    assert (model.predict(result.counterexamples[found]) != y_test[:40][found]).all()
    assert_inside_ball(result.counterexamples[found], X_test[:40][found] * 16, property)


def test_trees_need_no_verifier_named(digits):
    X, X_test, y, y_test = digits
    model = RandomForestClassifier(5, random_state=0).fit(X, y)
    result = ConstraintSatisfaction(CR(0.03)).evaluate(model, X_test[:20], y_test[:20])
    named = ConstraintSatisfaction(CR(0.03), TreeVerifier()).evaluate(
        model, X_test[:20], y_test[:20]
    )
    np.testing.assert_array_equal(result.verdicts, named.verdicts)
    assert result.n_unknown == 0


# ---- searches ----


def test_three_columns_of_one_search(digits):
    X, _, y, _ = digits
    scorer = ConstraintSatisfaction(CR(0.02), Bounds())
    search = GridSearchCV(
        LogisticRegression(max_iter=500), {"C": [0.1, 10.0]}, scoring=scorer.metrics, cv=2,
        refit="verified_share",
    ).fit(X[:200], y[:200])  # fmt: skip
    results = search.cv_results_
    for name in ("verified_share", "surviving_share", "unknown_count"):
        assert np.isfinite(results[f"mean_test_{name}"]).all()
    gap = results["split0_test_surviving_share"] - results["split0_test_verified_share"]
    np.testing.assert_allclose(gap, results["split0_test_unknown_count"] / 100, atol=1e-12)


def test_it_is_a_scorer(digits):
    X, _, y, _ = digits
    scorer = ConstraintSatisfaction(CR(0.02))
    found = cross_validate(LogisticRegression(), X[:100], y[:100], scoring=scorer, cv=2)
    assert ((found["test_score"] > 0) & (found["test_score"] <= 1)).all()


def test_parameters_of_the_verifier_are_reached():
    scorer = ConstraintSatisfaction(CR(0.1)).set_params(
        verifier__timeout=3.0, property__epsilon=0.2
    )
    assert scorer.verifier.timeout == 3.0 and scorer.property.epsilon == 0.2
    scorer = ConstraintSatisfaction(CR(), Cascade([PGD(), Exact()]))
    assert clone(scorer).set_params(verifier__exact__n_steps=9).verifier.stages[1].n_steps == 9
    assert scorer.verifier.stages[1].n_steps == 3


def test_a_search_over_the_property_that_is_trained(digits):
    X, _, y, _ = digits
    X, y = X[:400], y[:400]
    model = RobustClassifier(
        hidden_layer_sizes=16, max_epochs=60, property=CR(), training=AdversarialTraining(),
        random_state=0,
    )  # fmt: skip
    scorer = ConstraintSatisfaction(CR(0.08), Bounds())
    search = GridSearchCV(model, {"property__epsilon": [0.0, 0.08]}, scoring=scorer, cv=2)
    plain, trained = search.fit(X, y).cv_results_["mean_test_score"]
    assert 0 < plain < trained
    assert search.best_estimator_.property.epsilon == 0.08
    assert search.score(X, y) == scorer(search.best_estimator_, X, y)


# ---- jobs, memory ----


def test_jobs_do_not_change_verdicts(digits, digits_model):
    _, X, _, y = digits
    scorer = ConstraintSatisfaction(CR(0.06), chunk_size=10, random_state=0)
    one = scorer.evaluate(digits_model, X[:40], y[:40])
    two = clone(scorer).set_params(n_jobs=2).evaluate(digits_model, X[:40], y[:40])
    for name in ("verdicts", "decided_by", "reasons", "counterexamples"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


SWEEP = """
    import os, signal, sys
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from skrobust.properties import ClassificationRobustness
    from skrobust.scorers import ConstraintSatisfaction
    from skrobust.verification import Cascade, Exact, Step, Verifier

    class Counted(Verifier):
        \"\"\"Writes each point that it is asked for into a file, and dies at the n-th call.\"\"\"

        def __init__(self, file=None):
            self.file = file

        def check(self):
            return self

        def encode(self, network, property, n_features=None):
            return Exact().encode(network, property, n_features)

        def steps(self, encoding):
            return [Step(self.name, encoding, self.decide, chunk_size=1)]

        def decide(self, encoding, x, labels=None, **options):
            found = Exact().decide(encoding, x, labels, **options)
            with open(self.file, "a") as file:
                file.write("".join(f"{value:.2f}\\n" for value in x[:, 0].tolist()))
            if os.environ.get("DIES") and len(open(self.file).readlines()) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

    folder = sys.argv[1]
    model = LogisticRegression(C=1e4).fit([[0.4], [0.6]], [0, 1])
    X = np.linspace(0.05, 0.95, 10)[:, None]
    y = (X[:, 0] > 0.5).astype(int)
    verifier = Cascade([Counted(os.path.join(folder, "asked"))])
    scorer = ConstraintSatisfaction(
        ClassificationRobustness(0.1), verifier, memory=os.path.join(folder, "memory")
    )
    print(scorer.evaluate(model, X, y).verdicts.tolist())
"""


def test_a_killed_sweep_repeats_no_decided_sample(tmp_path):
    (tmp_path / "sweep.py").write_text(textwrap.dedent(SWEEP))
    command = [sys.executable, str(tmp_path / "sweep.py"), str(tmp_path)]
    killed = subprocess.run(command, env=os.environ | {"DIES": "1"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    asked = (tmp_path / "asked").read_text().split()
    assert len(asked) == 4
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # The fourth was decided, but died before it was kept.
    again = (tmp_path / "asked").read_text().split()
    assert again[4:] == [f"{v:.2f}" for v in np.linspace(0.05, 0.95, 10)[3:]]
    verdicts = ["verified"] * 4 + ["falsified"] * 2 + ["verified"] * 4
    assert done.stdout.strip() == str(verdicts)
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "asked").read_text().split() == again  # all is kept now


def test_memory_tells_properties_and_models_apart(line, tmp_path):
    model, X, y = line
    other = LogisticRegression(C=1e4).fit([[0.3], [0.5]], [0, 1])
    scores = []
    for _ in range(2):
        for estimator, property in ((model, CR(0.1)), (model, CR(0.01)), (other, CR(0.01))):
            scorer = ConstraintSatisfaction(property, memory=str(tmp_path))
            scores.append(scorer(estimator, X, y))
    assert scores[:3] == scores[3:] == [0.4, 0.8, 0.6]


asked = []  # by `Recorded`: outside of it, since its state is a part of the key


class Recorded(Bounds):
    """Bounds that say what they were asked."""

    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        asked.append((self.method, timeout))
        return super().decide(state, x, labels, timeout=timeout, generator=generator)


def test_memory_tells_everything_apart_that_makes_a_verdict(line, tmp_path):
    model, X, y = line
    other = LogisticRegression(C=1e4).fit([[0.3], [0.5]], [0, 1])
    first = {"property": CR(0.1), "verifier": Recorded("ibp"), "timeout": None}
    data = (model, X, y)
    questions = [
        (first, data),
        (first | {"property": CR(0.01)}, data),
        (first | {"verifier": Recorded("crown")}, data),
        (first | {"verifier": Recorded("ibp", n_steps=3)}, data),
        (first | {"timeout": 3.0}, data),
        (first | {"random_state": 1}, data),
        (first, (other, X, y)),
        (first, (model, X / 2, y)),
        (first, (model, X, 1 - y)),
    ]
    asked.clear()

    def ask_all():
        return [
            ConstraintSatisfaction(memory=str(tmp_path), **params).evaluate(*data).verdicts
            for params, data in questions
        ]

    once = ask_all()
    methods = ["ibp", "ibp", "crown", *["ibp"] * 6]
    timeouts = [None] * 4 + [3.0] + [None] * 4
    assert asked == list(zip(methods, timeouts, strict=True))
    np.testing.assert_array_equal(ask_all(), once)
    assert len(asked) == len(questions)  # all was kept


# ---- progress ----


def test_the_bar_counts_verdicts(line, capsys):
    pytest.importorskip("rich")
    model, X, y = line
    ConstraintSatisfaction(CR(0.1), verbose=1).evaluate(model, X, y)
    shown = capsys.readouterr().out
    assert "2 verified, 3 falsified, 0 unknown" in " ".join(shown.split())
    ConstraintSatisfaction(CR(0.1)).evaluate(model, X, y)
    assert capsys.readouterr().out == ""


def test_without_rich_the_error_says_what_to_do(line, monkeypatch):
    model, X, y = line
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ImportError, match=r"skrobust\[plots\]"):
        ConstraintSatisfaction(CR(0.1), verbose=1).evaluate(model, X, y)


# ---- bad input ----


@pytest.mark.parametrize(
    "params, error, message",
    [
        ({"verifier": PGD()}, TypeError, "Got verifier="),
        ({"property": 0.1}, TypeError, "Got property=0.1"),
        ({"timeout": -1.0}, ValueError, "Got timeout=-1.0"),
        ({"confidence": 1.0}, ValueError, "Got confidence=1.0"),
        ({"chunk_size": 0}, ValueError, "Got chunk_size=0"),
        (
            {"property": StandardRobustness(0.1, delta=0.1, output="probabilities")},
            UnsupportedPropertyError,
            "output='logits'",
        ),
    ],
)
def test_bad_parameters(line, params, error, message):
    scorer = ConstraintSatisfaction(CR(0.1)).set_params(**params)
    with pytest.raises(error, match=message):
        scorer.evaluate(*line)


def test_labels_are_asked_for(line):
    model, X, _ = line
    with pytest.raises(ValueError, match="Got y=None"):
        ConstraintSatisfaction(CR(0.1)).evaluate(model, X)
    ConstraintSatisfaction(CR(0.1, reference="prediction")).evaluate(model, X)


def test_models_that_nothing_can_verify(digits):
    X, _, y, _ = digits
    with pytest.raises(UnsupportedModelError, match="SVC"):
        ConstraintSatisfaction(CR(0.1))(SVC().fit(X[:100], y[:100]), X, y)
