"""Two properties of which one must hold at each point: every reading."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from skrobust.attacks import PGD, Target
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.logics import DL2, STL, Goedel, Lukasiewicz, Reichenbach, Yager
from skrobust.properties import Disjunction, LinearRobustness
from tests.properties._cases import CR, LR, SCR, SR

LOGICS = [DL2(), STL(), Goedel(), Lukasiewicz(), Reichenbach(), Yager()]
NUMBERS = st.floats(-4, 4).map(lambda value: round(value, 2))


def row(a, b, strict=False):
    return LinearRobustness(([a], [b]), 0.1, strict=strict)


def test_disjunction_is_the_larger_margin():
    either = CR() | SR(delta=1.0)
    given = {"labels": [0, 0], "reference_logits": [[1.0, 0.0], [1.0, 0.0]]}
    # CR: 0.5 and -0.5; SR: 0 and 1 - 0.75.
    logits = [[1.5, 1.0], [0.25, 0.75]]
    np.testing.assert_array_equal(either.margin(logits, **given), [0.5, 0.25])
    np.testing.assert_array_equal(either.holds(logits, **given), [True, True])
    far = {"labels": [0], "reference_logits": [[9.0, 0.0]]}
    assert either.margin([[1.0, 3.0]], **far).item() == -2.0
    assert not either.holds([[1.0, 3.0]], **far).item()


def test_each_row_keeps_its_strictness():
    # Both are 0 at z = (1, 1): CR fails at a tie, SR with delta 0 holds there.
    given = {"labels": [0], "reference_logits": [[1.0, 1.0]]}
    assert (CR() | SR(delta=0.0)).holds([[1.0, 1.0]], **given).item()
    assert not (CR() | row([1.0, -1.0], 0.0, strict=True)).holds([[1.0, 1.0]], **given).item()
    conclusion = (CR() | SR(delta=0.0)).conclusion(torch.ones(1, 2), torch.tensor([0]))
    margin, holds = conclusion.judged(torch.ones(1, 2))
    assert (margin.item(), holds.item()) == (0.0, True)
    assert conclusion.sufficient().judged(torch.ones(1, 2))[1].item()
    assert conclusion.proved(torch.zeros(1, 5)).item()
    assert not conclusion.proved(torch.tensor([[0.0, 0.0, -1.0, 0.0, 0.0]])).item()


def test_losses_are_those_of_the_logic_by_hand():
    # Rows -1 | -2 at z = (0, 0).
    either = row([1.0, 0.0], -1.0) | row([0.0, 1.0], -2.0)
    losses = {
        DL2: 1.0 * 2.0,
        Goedel: 1 - max(1 / 2, 1 / 3),
        Lukasiewicz: 1 - min(1.0, 1 / 2 + 1 / 3),
        Reichenbach: (1 - 1 / 2) * (1 - 1 / 3),
        Yager: 1 - min(1.0, np.hypot(1 / 2, 1 / 3)),
    }
    for logic, loss in losses.items():
        assert either.loss([[0.0, 0.0]], logic=logic()).item() == pytest.approx(loss)
    assert either.loss([[0.0, 0.0]], logic=STL(sharpness=60.0)).item() == pytest.approx(1.0)
    for logic in LOGICS:
        assert either.loss([[3.0, 0.0]], logic=logic).item() == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=3, max_size=3), st.booleans())
def test_de_morgan(rows, swapped):
    """What breaks ``a | (b & c)`` breaks a, and b or c; and "or" distributes over "and"."""
    a, b, c = (row(coefficients[:2], coefficients[2]) for coefficients in rows)
    either = (b & c) | a if swapped else a | (b & c)
    logits = np.random.default_rng(0).normal(size=(8, 2))
    broken = ~either.holds(logits)
    parts = [~part.holds(logits) for part in (a, b, c)]
    np.testing.assert_array_equal(broken, parts[0] & (parts[1] | parts[2]))
    other = (a | b) & (a | c)
    np.testing.assert_allclose(either.margin(logits), other.margin(logits))
    np.testing.assert_array_equal(either.holds(logits), other.holds(logits))
    # The clauses say the same as the tree that they were made of.
    z = torch.as_tensor(logits)
    labels = torch.zeros(8, dtype=torch.long)
    tree = either.conclusion(z, labels)
    for clauses in (tree.sufficient(), tree.necessary(), other.conclusion(z, labels).parts()[0]):
        assert clauses.is_linear and clauses.has_clauses
        torch.testing.assert_close(clauses.margin(z), tree.margin(z))
        torch.testing.assert_close(clauses.values(z).amin(dim=1), tree.values(z).amin(dim=1))
        assert torch.equal(clauses.holds(z), tree.holds(z))
        assert torch.equal(clauses.judged(z)[1], tree.judged(z)[1])


@pytest.mark.parametrize("logic", LOGICS, ids=repr)
def test_many_points_around_each_reference(logic):
    rng = np.random.default_rng(0)
    reference = torch.tensor(rng.normal(size=(4, 3)))
    logits = torch.tensor(rng.normal(size=(4, 6, 3)))
    distance, labels = torch.rand(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    for property in (CR() | LR(), (SCR() | SR()) & CR(), (CR() | SR()) & SR(delta=0.3)):
        conclusion = property.conclusion(reference, labels)
        for reading in (
            lambda z, d, now=conclusion: now.loss(z, d, logic),
            conclusion.margin,
            conclusion.holds,
            lambda z, d, now=conclusion: now.judged(z, d)[0],
            lambda z, d, now=conclusion: now.values(z, d).amin(dim=-1),
        ):
            together = reading(logits, distance)
            apart = [reading(logits[:, r], distance[:, r]) for r in range(6)]
            torch.testing.assert_close(together, torch.stack(apart, dim=1))
        torch.testing.assert_close(
            conclusion[torch.tensor([2, 0])].margin(logits[[2, 0]], distance[[2, 0]]),
            conclusion.margin(logits, distance)[[2, 0]],
        )


def test_the_enclosure_is_that_of_the_parts():
    rng = np.random.default_rng(1)
    reference, labels = torch.tensor(rng.normal(size=(4, 3))), torch.tensor([0, 1, 2, 0])
    either = (CR() | SCR(eta=0.6)).conclusion(reference, labels)
    assert not either.is_linear and either.parts() == [either]
    parts = [p.conclusion(reference, labels) for p in (CR(), SCR(eta=0.6))]
    logits = torch.tensor(3 * rng.normal(size=(4, 3)))
    lower = torch.cat([part.sufficient().values(logits) for part in parts], dim=1)
    pieces = lower.split([2, 2], dim=1)
    margins = [p.lower_margin(v) for p, v in zip(parts, pieces, strict=True)]
    torch.testing.assert_close(either.lower_margin(lower), torch.maximum(*margins))
    proved = [p.proved(v) for p, v in zip(parts, pieces, strict=True)]
    assert torch.equal(either.proved(lower), proved[0] | proved[1])
    assert either.gaps(lower).shape == (4, 4)
    # Sufficient rows imply it, and it implies the necessary ones.
    holds = either.holds(logits)
    assert (either.sufficient().holds(logits) <= holds).all()
    assert (holds <= either.necessary().holds(logits)).all()
    linear = (CR() | SR()).conclusion(reference, labels)
    (rows,) = linear.parts()
    assert rows.b.shape == (4, 8) and rows.clauses.shape == (12, 2)
    # Nothing follows from a part of which nothing follows.
    assert LinearRobustness(([[1.0]], [0.0])).trial(1).without_rows().b.shape == (1, 0)


def test_a_disjunction_has_the_habits_of_a_conjunction():
    either = CR(0.1) | SR(0.1) & LR(0.1)
    assert isinstance(either, Disjunction)
    assert eval(repr(either)) == either  # with the names of this file
    assert repr(either) == f"{CR(0.1)!r} | ({SR(0.1)!r} & {LR(0.1)!r})"
    assert repr((CR() | SR()) & LR()) == f"({CR()!r} | {SR()!r}) & {LR()!r}"
    assert repr(CR() | SR() | LR()) == f"{CR()!r} | {SR()!r} | {LR()!r}"
    assert repr(CR() | (SR() | LR())) == f"{CR()!r} | ({SR()!r} | {LR()!r})"
    assert either != CR(0.1) & (SR(0.1) & LR(0.1))
    changed = clone(either).set_params(epsilon=0.3, right__left__delta=7.0)
    assert (changed.right.right.epsilon, either.epsilon) == (0.3, 0.1)
    assert changed.right.left.delta == 7.0
    assert pickle.loads(pickle.dumps(either)) == either == clone(either)
    assert {"epsilon", "norm", "bounds", "left__reference"} <= set(either.get_params())
    assert either.needs_labels and (SR() | SCR()).needed_outputs == {"logits", "probabilities"}


# What `repr` writes.
ClassificationRobustness, StandardRobustness, LipschitzRobustness = CR, SR, LR


def test_bad_parts_are_named():
    with pytest.raises(ValueError, match="right of a disjunction, but expected the same ball"):
        (CR(0.1) | SR(0.2)).check()
    with pytest.raises(TypeError, match=r"Got right=0.1, but expected a RobustnessProperty"):
        (CR() | 0.1).check()
    mixed = (CR() | SR(output="probabilities")).conclusion(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(UnsupportedPropertyError, match="different outputs"):
        mixed.sufficient()


def test_clauses_that_explode_are_refused_by_name():
    many = LinearRobustness((np.ones((101, 2)), np.zeros(101)), 0.1)
    assert (many | many).margin([[1.0, 2.0]]).item() == 3.0
    expectation = "101 rows and 101 rows, which makes 10201 clauses, but .* 10000 at most"
    for reading in (
        lambda rows: rows.sufficient(),
        lambda rows: rows.values(torch.zeros(1, 2, dtype=torch.float64)),
    ):
        with pytest.raises(UnsupportedPropertyError, match=expectation):
            reading((many | many).trial(2))


def test_an_attack_must_break_both_parts():
    """z = (x, 1 - x): z_0 >= 0.3 or z_1 >= 0.3 fails nowhere; with 0.6 next to x = 0.5."""
    network = torch.nn.Linear(1, 2).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        network.bias.copy_(torch.tensor([0.0, 1.0]))
    x = torch.tensor([[0.1], [0.9]], dtype=torch.float64)

    def either(limit):
        property = row([1.0, 0.0], -limit) | row([0.0, 1.0], -limit)
        return property.set_params(epsilon=0.45)

    for attack in (PGD(40), PGD(40, n_restarts=4)):
        assert not attack.search(Target(network, either(0.3), x)).broken.any()
        outcome = attack.search(Target(network, either(0.6), x))
        assert outcome.broken.all()
        assert ((outcome.points > 0.4) & (outcome.points < 0.6)).all()
    # Near its reference only the larger of the rows moves the point.
    gradient, _, value = Target(network, either(0.6), x).gradient(x, "margin")
    np.testing.assert_allclose(gradient, [[-1.0], [1.0]])
    np.testing.assert_allclose(value, [0.3, 0.3])
