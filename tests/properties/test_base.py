"""Properties as value objects, and what they refuse."""

import pickle
import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from skrobust import RobustClassifier
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import LinearRobustness, LinearRows, RobustnessProperty
from skrobust.scorers import (
    ConstraintAccuracy,
    ConstraintSatisfaction,
    ConstraintSecurity,
    GlobalRobustness,
)
from skrobust.training import CertifiedTraining
from skrobust.verification import Bounds
from tests.properties._cases import CR, LOG3, LR, PROPERTIES, ROWS, SCR, SR, margin


@pytest.mark.parametrize("property", PROPERTIES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("copy", [clone, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_are_equal(property, copy):
    copied = copy(property)
    assert copied is not property
    assert copied == property
    assert (copied != property) is False
    assert copied.check() == property


@pytest.mark.parametrize("property", PROPERTIES, ids=lambda p: type(p).__name__)
def test_with_epsilon_changes_a_copy_only(property):
    before = clone(property)
    other = property.with_epsilon(0.25)
    assert other.epsilon == 0.25
    assert property == before
    assert other != property


def test_parameters():
    property = SR(0.2, delta=3.0)
    assert property.get_params() == {
        "epsilon": 0.2,
        "delta": 3.0,
        "norm": "linf",
        "bounds": (0.0, 1.0),
        "reference": "label",
        "output": "logits",
    }
    assert property.set_params(delta=1.0) is property
    assert property.delta == 1.0
    assert (CR() & property).get_params()["right__delta"] == 1.0
    with pytest.raises(ValueError, match="Invalid parameter 'radius'"):
        property.set_params(radius=1)


def test_equality():
    assert CR(0.1) == CR(0.1)
    assert CR(0.1) != CR(0.2)
    assert CR(0.1) != SCR(0.1)
    assert CR([0.1, 0.2]) == CR(np.array([0.1, 0.2]))
    assert CR([0.1, 0.2]) != CR([0.1, 0.3])
    assert CR(0.1) != CR([0.1])
    assert CR(bounds=None) != CR()
    assert CR() & SR() == CR() & SR()
    assert CR() & SR() != SR() & CR()
    assert CR() != 0.1
    with pytest.raises(TypeError, match="unhashable"):
        hash(CR())


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(CR(0.05)) == "ClassificationRobustness(epsilon=0.05)"
    assert repr(SR(delta=1.0, norm="l2")) == "StandardRobustness(delta=1.0, norm='l2')"
    shown = repr(CR(0.2) & SR(0.2))
    assert "ClassificationRobustness(epsilon=0.2)" in shown
    assert "StandardRobustness(epsilon=0.2)" in shown


@pytest.mark.parametrize(
    ("property", "message"),
    [
        (CR(-0.1), "Got epsilon=-0.1, but expected a non-negative finite float"),
        (CR(np.nan), "Got epsilon=nan, but expected a non-negative finite float"),
        (CR(bounds=(1, 0)), "Got bounds=(1, 0), but expected low <= high"),
        (CR(bounds="unit"), "Got bounds='unit', but expected None, or a pair"),
        (CR(norm="l1"), "Got norm='l1', but expected one of 'linf', 'l2'"),
        (CR(reference="truth"), "Got reference='truth', but expected one of 'label'"),
        (SR(delta=-1), "Got delta=-1, but expected a finite number in [0, inf)"),
        (SR(output="scores"), "Got output='scores', but expected one of 'logits'"),
        (LR(lipschitz=0), "Got lipschitz=0, but expected a finite number in (0, inf)"),
        (LR(lipschitz=np.nan), "Got lipschitz=nan, but expected a finite number"),
        (SCR(eta=0), "Got eta=0, but expected a finite number in (0, 1)"),
        (SCR(eta=1.0), "Got eta=1.0, but expected a finite number in (0, 1)"),
        (LinearRobustness(3), "Got rows=3, but expected a callable, or arrays"),
        (LinearRobustness(([1.0], [1.0])), "but expected a callable, or arrays (A, b)"),
        (LinearRobustness(([[np.nan]], [1.0])), "all finite"),
        (LinearRobustness(ROWS, output="z"), "Got output='z', but expected one of 'logits'"),
    ],
)
def test_bad_parameters(property, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        property.check()
    with pytest.raises(ValueError, match=re.escape(message)):
        (property & property).check()


def test_data_that_do_not_fit():
    X = np.array([[0.5, 0.5], [0.5, 1.5]])
    with pytest.raises(ValueError, match=r"1 of 2 rows of X lie outside, by up to 0\.5"):
        CR().check(X)
    with pytest.raises(ValueError, match=r"shape \(3,\).*shape \(2,\)"):
        CR([0.1, 0.1, 0.1], bounds=None).check(X)
    assert CR([0.1, 0.0], bounds=(0, 2)).check(X) == CR([0.1, 0.0], bounds=(0, 2))


def test_labels_that_are_missing():
    with pytest.raises(ValueError, match=r"expected the true labels.*reference='prediction'"):
        CR().margin([[0.0, 1.0]])
    with pytest.raises(ValueError, match="expected the true labels"):
        (SR() & CR()).margin([[0.0, 1.0]])


# ---- a property of one's own --------------------


class Lead(RobustnessProperty):
    """The first class stays ahead of the last one by 1. It defines `conclusion` alone."""

    def conclusion(self, reference_logits, labels):
        A = torch.zeros_like(reference_logits).unsqueeze(1)
        A[:, 0, 0], A[:, 0, -1] = 1.0, -1.0
        b = torch.full_like(A[:, :, 0], -1.0)
        return LinearRows(A, torch.zeros_like(b), b, strict=False, uses_distance=False)


class ProbableLead(Lead):
    def conclusion(self, reference_logits, labels):
        rows = super().conclusion(reference_logits, labels)
        return replace(rows, output="probabilities", b=rows.b + 0.9)


class ThirdClass(Lead):
    """It fits no other number of classes than 3."""

    def conclusion(self, reference_logits, labels):
        assert reference_logits.shape[1] == 3, "rows for three classes"
        return super().conclusion(reference_logits, labels)


def test_needed_outputs_follow_from_the_conclusion():
    assert Lead().needed_outputs == {"logits"}
    assert ProbableLead().needed_outputs == {"probabilities"}
    assert (Lead() & SCR()).needed_outputs == {"logits", "probabilities"}
    # Not known: so a network is asked for, whose softmax is its probabilities.
    assert ThirdClass().needed_outputs == {"logits", "probabilities"}
    assert ThirdClass().trial() is None
    assert ThirdClass().trial(3).margin(torch.zeros(1, 3)).item() == -1.0


@pytest.mark.parametrize(
    "scorer",
    [
        ConstraintAccuracy(None, n_samples=5, random_state=0),
        ConstraintSecurity(None, random_state=0),
        ConstraintSatisfaction(None, random_state=0),
        GlobalRobustness(None, tolerance=0.3, random_state=0),
    ],
    ids=lambda scorer: type(scorer).__name__,
)
@pytest.mark.filterwarnings("ignore::skrobust.exceptions.ReferenceWarning")
def test_a_property_that_defines_its_conclusion_alone_works_in_every_scorer(scorer, blobs):
    X, y = blobs
    model = LogisticRegression(C=100.0).fit(X, y)
    # The outputs of a model of two classes are 0 and the decision.
    gap = -model.decision_function(X)
    reach = 0.05 * np.abs(model.coef_).sum()
    for epsilon, lowest in ((0.0, gap), (0.05, gap - reach)):
        asked = clone(scorer).set_params(property=Lead(epsilon, bounds=None))
        score = asked.evaluate(model, X, y).score
        least, most = (lowest >= 1).mean(), (gap >= 1).mean()
        if isinstance(scorer, GlobalRobustness):  # an estimate, with a tolerance
            assert least - 0.3 <= score <= least + 0.3
        elif isinstance(scorer, ConstraintAccuracy):  # random points need not break it
            assert least <= score <= most
        else:
            assert score == least


def test_a_property_of_probabilities_can_be_sampled_on_a_black_box(blobs):
    X, y = blobs
    model = RandomForestClassifier(5, random_state=0).fit(X, y)
    score = ConstraintAccuracy(ProbableLead(0.0), n_samples=1)(model, X, y)
    p = model.predict_proba(X)
    assert score == ((p[:, 0] - p[:, 1]) >= 0.1).mean()
    with pytest.raises(UnsupportedPropertyError, match="property of logits"):
        ConstraintAccuracy(Lead(0.0))(model, X, y)


def test_the_check_tries_rows_on_the_real_number_of_classes():
    assert ThirdClass().check(n_classes=3) == ThirdClass()
    with pytest.raises(AssertionError, match="rows for three classes"):
        ThirdClass().check(n_classes=4)


def classifier(property):
    return RobustClassifier(
        hidden_layer_sizes=4,
        property=property,
        training=CertifiedTraining(ramp_epochs=0),
        max_epochs=1,
        random_state=0,
    )


def test_certified_training_asks_for_the_real_number_of_classes(digits):
    X, _, y, _ = digits
    for n_classes, property in (
        (10, LinearRobustness((np.eye(10)[:2], [9.0, 9.0]), 0.01)),
        (3, LinearRobustness((np.eye(3)[:2], [9.0, 9.0]), 0.01)),
        (3, ThirdClass(0.01)),
        (3, ThirdClass(0.01) & SCR(0.01)),
    ):
        few = y < n_classes
        model = classifier(property).fit(X[few][:64], y[few][:64])
        assert np.isfinite(model.predict_proba(X[:5])).all()
    with pytest.raises(ValueError, match=r"shapes \(.*, 2, 7\).*expected \(.*, m, 10\)"):
        classifier(LinearRobustness((np.eye(7)[:2], [9.0, 9.0]), 0.01)).fit(X[:64], y[:64])


def test_certified_training_follows_the_gaps_of_a_conjunction():
    # Both follow the gaps z_y - z_j, without the threshold that eta is: each counts twice.
    torch.manual_seed(0)
    reference, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    plain = CR().conclusion(reference, labels)
    both = (CR() & SCR(eta=0.9)).conclusion(reference, labels)
    gaps = plain.values(reference)
    lower = both.sufficient().values(reference)
    torch.testing.assert_close(both.gaps(lower), torch.cat([gaps, gaps], dim=1))


# ---- numbers of a grid, and large ones --------------------


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.float32, np.float64, int])
def test_numbers_of_a_grid_are_as_good_as_any(kind):
    reference, logits = [[1.0, 2.0]], [[1.5, 1.0]]
    for property, plain in (
        (SR(kind(1), kind(2)), SR(1.0, 2.0)),
        (LR(kind(1), kind(2)), LR(1.0, 2.0)),
    ):
        given = {"reference_logits": reference, "distance": np.array([0.5])}
        assert property.margin(logits, **given) == plain.margin(logits, **given)
        assert property.loss(logits, **given) == plain.loss(logits, **given)
        ball, other = (p.ball(torch.zeros(1, 3)) for p in (property, plain))
        assert torch.equal(ball.upper, other.upper)
    assert margin(SCR(0.1, np.float32(0.5)), [LOG3, 0.0], labels=0) == pytest.approx(np.log(1.5))


@pytest.mark.parametrize("value", [Fraction(1, 10), Decimal("0.1"), 2**64, True, "0.1", 1j])
def test_other_numbers_are_named_in_the_refusal(value):
    for property, name in (
        (CR(value), "epsilon"),
        (SR(delta=value), "delta"),
        (LR(0.1, value), "l"),
    ):
        with pytest.raises(ValueError, match=rf"^Got {name}.*=.*{re.escape(repr(value))}"):
            property.check()


def test_outputs_too_large_for_a_float_are_refused():
    with pytest.raises(ValueError, match="expected real numbers of shape"):
        CR().margin([[10**400, 0]], labels=[0])


def test_epsilon_of_pandas_is_taken_and_copied():
    epsilon = pd.Series([0.1, 0.2])
    x = torch.full((1, 2), 0.5)
    for ball in (CR(epsilon).ball(x), CR(epsilon, bounds=(epsilon, epsilon + 1)).outer_ball(x)):
        np.testing.assert_allclose(ball.upper.numpy(), [[0.6, 0.7]], atol=1e-6)
    assert CR(epsilon) == CR([0.1, 0.2])


def test_data_that_are_infinite_in_their_type_are_refused():
    X = np.array([[1e300, 0.0], [0.0, 0.0]])
    CR(bounds=None).check(X)
    with np.errstate(over="ignore"):
        rounded = X.astype(np.float32)
    with pytest.raises(ValueError, match=r"infinity in 1 of 2 rows, once in float32"):
        CR(bounds=None).check(rounded)


@pytest.mark.parametrize("epsilon", [1e39, 1e300, [1e39, 0.1, 0.0, 1.0]], ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_counterexamples_of_huge_balls_are_finite(epsilon, norm, blobs):
    X, y = blobs
    model = RobustClassifier(hidden_layer_sizes=4, max_epochs=1, random_state=0).fit(X, y)
    property = CR(epsilon, norm=norm, bounds=None)
    for scorer in (
        ConstraintAccuracy(property, n_samples=9, random_state=0),
        ConstraintSecurity(property, random_state=0),
        ConstraintSatisfaction(property, Bounds()),
    ):
        result = scorer.evaluate(model, X[:10], y[:10])
        is_point = ~np.isnan(result.counterexamples).any(axis=1)
        assert np.isfinite(result.counterexamples[is_point]).all()
