"""Tests of the negated property: its rows, its ball, and what proves it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    Conclusion,
    LinearRows,
    LipschitzRobustness,
    RobustnessProperty,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Bounds, Cascade, Exact
from skrobust.verification._query import make_query
from tests.verification._tensors import decided

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness


def network(bias=(0.0, 1.0, 0.0)):
    layer = nn.Linear(2, 3)
    layer.weight = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), False)
    layer.bias = nn.Parameter(torch.tensor(bias), False)
    return Network(layer, np.arange(3), 2)


def query(property, x=((0.5, 0.25), (0.75, 1.0)), labels=(1, 0)):
    encoding = Bounds().encode(network(), property)
    return make_query(encoding, torch.tensor(x), torch.tensor(labels))


def test_rows_of_classification():
    asked = query(CR(0.1))
    # Outputs at the centers: (0.5, 1.25, 0), (0.75, 2, 0).
    values = asked.values(torch.tensor([[0.5, 1.25, 0.0], [0.75, 2.0, 0.0]]).double(), None)
    assert values.tolist() == [[0.75, 1.25], [-1.25, 0.75]]
    assert asked.strict.tolist() == [True, True]
    assert not asked.uses_distance
    assert asked.rows.A.dtype == torch.float64


def test_strict_rows_must_be_above_zero():
    asked = query(CR(0.1))
    lower = torch.tensor([[0.0, 1.0], [1e-9, 1.0]]).double()
    assert asked.holds(lower).tolist() == [False, True]
    weak = query(SR(0.1, 1.0))
    lower = torch.tensor([[0.0] * 6, [-1e-300] * 6], dtype=torch.float64)
    assert weak.holds(lower).tolist() == [True, False]
    nothing = torch.full((2, 6), torch.nan).double()
    assert weak.holds(nothing).tolist() == [False, False]


def test_conjunctions_know_which_rows_are_strict_and_anchored():
    asked = query(CR(0.1) & LR(0.1, 2.0) & SR(0.1, 1.0))
    assert asked.strict.tolist() == [True] * 2 + [False] * 12
    assert asked.anchored.tolist() == [False] * 2 + [True] * 6 + [False] * 6
    assert asked.uses_distance
    assert asked.rows.c[0].tolist() == [0.0] * 2 + [2.0] * 6 + [0.0] * 6


def test_strong_classification_is_enclosed():
    asked = query(StrongClassificationRobustness(0.1, 0.6))
    assert not asked.is_linear
    assert asked.rows.b[0, 0].item() == pytest.approx(-math.log(2 * 0.6 / 0.4))
    assert asked.necessary.b[0, 0].item() == pytest.approx(-math.log(0.6 / 0.4))
    # Gaps g: the row is -log(1 + sum exp(-g)) - log 0.6.
    gaps = torch.tensor([[1.0, 2.0], [0.3, 9.0]]).double()
    row = -torch.log(1 + torch.exp(-gaps).sum(1)) - math.log(0.6)
    margin = asked.margin(gaps + asked.rows.b)
    assert (margin <= row).all()
    torch.testing.assert_close(margin, row, rtol=0, atol=1e-12)
    assert asked.holds(gaps + asked.rows.b).tolist() == [True, False]


def test_ball_is_rounded_outwards():
    x = torch.tensor([[0.1, 0.7]])
    ball = CR([0.3, 0.0], bounds=(0.0, 1.0)).outer_ball(x)
    exact = x.double()
    assert ball.lower.tolist() == [[0.0, exact[0, 1].item()]]
    assert ball.upper[0, 0].item() > exact[0, 0].item() + 0.3 - 1e-16
    assert ball.upper[0, 0].item() == pytest.approx(0.4, abs=1e-7)
    assert ball.upper[0, 1].item() == exact[0, 1].item()


def test_a_center_outside_of_the_domain_by_rounding_stays_inside():
    x = torch.tensor([[0.1, 0.1]])  # float32: a little above 0.1
    ball = CR(0.5, bounds=(0.0, 0.1)).outer_ball(x)
    assert (ball.upper == ball.center).all()
    assert (ball.lower == 0).all()


def test_within_shrinks_and_beyond_keeps_away():
    asked = query(LR(0.2, 2.0), x=((0.5, 0.5), (0.5, 0.5)))
    radius = torch.tensor([0.1, 0.05]).double()
    inner = asked.within(radius)
    np.testing.assert_allclose((inner.ball.upper - inner.ball.center)[:, 0], [0.1, 0.05])
    assert asked.beyond(radius).beyond(radius / 2).nearest.tolist() == radius.tolist()


def test_the_network_itself_says_what_it_predicts():
    # In float32 both outputs are equal, and the first one wins; in float64 the second does.
    layer = nn.Linear(1, 2)
    layer.weight = nn.Parameter(torch.tensor([[1.0], [1.0]]), False)
    layer.bias = nn.Parameter(torch.tensor([0.0, 1e-9]), False)
    tied = Network(layer, np.arange(2), 1)
    encoding = Bounds().encode(tied, CR(0.1, reference="prediction"))
    asked = make_query(encoding, torch.tensor([[0.5]]))
    assert asked.rows.A[0].tolist() == [[1.0, -1.0]]


def test_probabilities_are_refused():
    with pytest.raises(UnsupportedPropertyError, match="linear in the logits"):
        query(SR(0.1, 0.2, output="probabilities"))


# ---- conjunctions with a concave row, decided --------------------

SCR = StrongClassificationRobustness


def random_network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        with torch.no_grad():
            module[0].weight *= 4
            module[2].weight *= 6
    return Network(module.requires_grad_(False), np.arange(3), 2)


def grid(x, epsilon, n=81):
    """Points of the ball of each row of x, inside [0, 1], as float32 (n_rows, n * n, 2)."""
    steps = torch.linspace(-epsilon * (1 - 1e-6), epsilon * (1 - 1e-6), n)
    offsets = torch.cartesian_prod(steps, steps)
    return (x[:, None] + offsets).clamp(0, 1)


CONJUNCTIONS = [
    lambda e: (CR(e), SCR(e, 0.7)),
    lambda e: (SCR(e, 0.6), SR(e, 1.2)),
    lambda e: (SCR(e, 0.4), SCR(e, 0.8, reference="prediction")),
    lambda e: (LR(e, 20.0), SCR(e, 0.6)),
]


@pytest.mark.parametrize("parts", CONJUNCTIONS, ids=["CR-SCR", "SCR-SR", "SCR-SCR", "LR-SCR"])
@pytest.mark.parametrize("verifier", [Exact(), Cascade(), Bounds("alpha-crown")], ids=repr)
def test_conjunctions_agree_with_their_parts_and_with_brute_force(verifier, parts):
    epsilon, seen = 0.03, set()
    left, right = parts(epsilon)
    x = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        network = random_network(seed)
        labels = network(x).argmax(dim=1)
        labels[0] = (labels[0] + 1) % 3
        together = decided(verifier, network, left & right, x, labels)
        apart = [decided(verifier, network, part, x, labels) for part in (left, right)]
        points = grid(x, epsilon)
        logits = network(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        conclusion = (left & right).conclusion(network(x), labels)
        distance = (points - x[:, None]).abs().amax(dim=2)
        holds = (conclusion.values(logits, distance) >= -1e-5).all(dim=2).all(dim=1)
        for i, verdict in enumerate(together.verdicts):
            alone = {result.verdicts[i] for result in apart}
            if verdict == "verified":
                assert holds[i]
                assert alone == {"verified"}
                values = conclusion.values(logits, distance)[i]
                assert together.lower[i] <= values.min() + 1e-4
            if verdict == "falsified":
                assert "falsified" in alone or "unknown" in alone
                point = torch.as_tensor(together.counterexamples[i]).float()[None]
                d = (point - x[i : i + 1]).abs().amax(dim=1)
                assert not conclusion[i : i + 1].holds(network(point), d).item()
            if alone == {"verified"}:
                assert verdict == "verified"
            if not isinstance(verifier, Bounds):
                assert verdict != "unknown"
                assert (verdict == "falsified") == ("falsified" in alone)
            seen.add(str(verdict))
    assert {"verified", "falsified"} <= seen


def test_parts_of_a_query_ask_the_same_together():
    asked = query(CR(0.1) & SCR(0.1, 0.6) & SR(0.1, 1.0))
    rows, concave = asked.parts()
    assert rows.is_linear and not concave.is_linear and not asked.is_linear
    assert rows.rows.b.shape == (2, 8) and concave.rows.b.shape == (2, 2)
    assert rows.target is asked.target
    assert asked[1:].parts()[1].rows.b.shape == (1, 2)
    [alone] = query(CR(0.1)).parts()
    assert alone.is_linear


def test_the_margin_of_a_conjunction_is_that_of_its_smallest_own_row():
    asked = query(CR(0.1) & SCR(0.1, 0.6))
    gaps = torch.tensor([[1.0, 2.0], [0.3, 9.0]], dtype=torch.float64)
    alone = query(SCR(0.1, 0.6))
    rows = torch.cat([gaps, gaps + alone.rows.b], dim=1)
    margin = torch.minimum(gaps.amin(dim=1), alone.margin(gaps + alone.rows.b))
    assert asked.margin(rows).tolist() == margin.tolist()
    assert asked.holds(rows).tolist() == [True, False]
    # A tie breaks the strict rows, though the concave one would stand it.
    assert asked.holds(torch.tensor([[0.0, 1, 9, 9], [1, 1, 9, 9]]).double()).tolist() == [0, 1]


class BothGaps(Conclusion):
    """The smaller gap between the first class and the others is at least 0: one concave row."""

    strict = False
    uses_distance = False

    def __init__(self, n):
        self.n = n

    def __getitem__(self, index):
        return BothGaps(len(torch.arange(self.n)[index]))

    def values(self, logits, distance=None):
        return (logits[..., :1] - logits[..., 1:]).amin(dim=-1, keepdim=True)

    def sufficient(self):
        A = torch.tensor([[[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]]).double().expand(self.n, -1, -1)
        b = torch.zeros(self.n, 2, dtype=torch.float64)
        return LinearRows(A, b, b, strict=False, uses_distance=False)


class FirstClass(RobustnessProperty):
    def conclusion(self, reference_logits, labels):
        return BothGaps(len(reference_logits))


@pytest.mark.parametrize("verifier", [Exact(), Cascade(), Bounds()], ids=repr)
def test_a_concave_row_of_ones_own_is_decided_by_its_sufficient_rows(verifier):
    x = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    own, known = FirstClass(0.05), CR(0.05)
    for seed in range(2):
        network = random_network(seed)
        labels = torch.zeros(8, dtype=torch.long)
        verdicts = decided(verifier, network, own, x, labels).verdicts
        np.testing.assert_array_equal(
            verdicts, decided(verifier, network, known, x, labels).verdicts
        )
        assert {"verified", "falsified"} >= set(map(str, verdicts)) or isinstance(verifier, Bounds)


def test_a_property_without_linear_rows_is_refused_before_work_starts():
    class Curved(RobustnessProperty):
        def conclusion(self, reference_logits, labels):
            conclusion = BothGaps(len(reference_logits))
            conclusion.sufficient = lambda: Conclusion.sufficient(conclusion)
            return conclusion

    with pytest.raises(UnsupportedPropertyError, match=r"gives no linear rows.*Use an attack"):
        query(Curved(0.1))
