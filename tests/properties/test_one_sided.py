"""Epsilon as a pair (down, up): boxes, verdicts on either side, and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from skrobust.attacks import PGD, UniformSampling
from skrobust.balls import Ball
from skrobust.properties import ClassificationRobustness, check_property
from skrobust.trees import ExactBall
from skrobust.verification import Bounds, Exact, TreeVerifier

X, Y = [[0.0], [0.4], [0.6], [1.0]], [0, 0, 1, 1]  # boundary at 0.5
NEAR = [[0.45], [0.55]]


@pytest.mark.parametrize("verifier", [Exact(), Bounds()], ids=repr)
def test_only_the_side_that_may_move_is_searched(verifier):
    model = LogisticRegression(C=1e4).fit(X, Y)
    up = verifier.verify(model, NEAR, [0, 1], property=ClassificationRobustness((0.0, 0.1)))
    down = verifier.verify(model, NEAR, [0, 1], property=ClassificationRobustness((0.1, 0.0)))
    assert up.verdicts[1] == down.verdicts[0] == "verified"
    assert up.verdicts[0] != "verified" and down.verdicts[1] != "verified"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_trees_search_only_the_side_that_may_move(norm):
    tree = DecisionTreeClassifier().fit(X, Y)
    for epsilon, wanted in [((0.0, 0.1), 0), ((0.1, 0.0), 1)]:
        property = ClassificationRobustness(epsilon, norm=norm)
        verdicts = TreeVerifier().verify(tree, NEAR, [0, 1], property=property).verdicts
        assert (verdicts == "falsified").tolist() == [wanted == 0, wanted == 1]


@pytest.mark.parametrize("attack", [PGD(), UniformSampling()], ids=repr)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_stay_on_the_side(attack, norm):
    model = LogisticRegression().fit(X, Y)
    property = ClassificationRobustness(([0.0], [0.1]), norm=norm)
    moved = attack.perturb(model, X, Y, property=property, random_state=0) - X
    assert (moved >= 0).all() and (moved[:2] > 0).all() and (moved <= 0.1 + 1e-12).all()


@given(
    st.floats(-1e3, 1e3, width=32),
    st.floats(0, 10),
    st.floats(0, 10),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_inner_and_outer_boxes_enclose_the_exact_one(center, down, up, dtype):
    x = torch.tensor([[center]], dtype=dtype)
    inner = Ball.around(x, (down, up), "linf", None)
    outer = Ball.outside(x, (down, up), "linf", None)
    exact = ExactBall.around(x.double().numpy(), ClassificationRobustness((down, up), bounds=None))
    assert outer.lower.item() <= exact.lower.item() <= inner.lower.item() <= center
    assert outer.upper.item() >= exact.upper.item() >= inner.upper.item() >= center
    if down == 0:
        assert outer.lower.item() == center
    if up == 0:
        assert outer.upper.item() == center


def test_a_tuple_is_a_pair_and_a_list_one_for_each_feature():
    pair, each = ClassificationRobustness((0.1, 0.2)), ClassificationRobustness([0.1, 0.2])
    assert pair != each and pair == ClassificationRobustness((0.1, 0.2))
    assert pair.sides(2) == (0.1, 0.2)
    assert each.sides(2)[0].tolist() == each.sides(2)[1].tolist() == [0.1, 0.2]
    assert [float(side) for side in pair.shrunk(0.5).epsilon] == [0.05, 0.1]


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        ((-0.1, 0.2), r"Got epsilon\[0\] \(down\)=-0.1, but expected a non-negative"),
        ((0.1, [0.1, -1.0]), r"Got epsilon\[1\] \(up\)=array with the entry -1.0"),
        ((0.1, np.inf), r"Got epsilon\[1\] \(up\)=inf"),
        ((0.1, 0.2, 0.3), r"pair \(down, up\)"),
        (([0.1, 0.2], [0.1]), r"shapes \(2,\) and \(1,\)"),
    ],
)
def test_bad_pairs_are_refused(epsilon, message):
    with pytest.raises(ValueError, match=message):
        check_property(ClassificationRobustness(epsilon))


def test_evidence_of_one_side():
    model = LogisticRegression(C=1e4).fit(X, Y)
    required = {"evidence": "required"}
    property = ClassificationRobustness((0.0, 0.1))
    result = Exact().verify(model, NEAR, [0, 1], property=property, **required)
    assert result.verdicts.tolist() == ["falsified", "verified"]
    assert result.evidence.tolist() == ["checked", "checked"]
    uneven = ClassificationRobustness((0.01, 0.1))
    result = Exact().verify(model, NEAR, [0, 1], property=uneven, **required)
    assert result.verdicts.tolist() == ["falsified", "verified"]
    assert result.evidence.tolist() == ["checked", "checked"]
