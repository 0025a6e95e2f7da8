"""L-infinity distances in the checker: intervals by hand, against points, and slopes of 1."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.evidence._checker import Network
from skrobust.evidence._distance_rules import Distance
from skrobust.evidence._rules import Rejected, floats, integers
from tests.evidence._examples import claim, network_of
from tests.evidence.test_checker import BOTH, why


def net(weight, *more, scale=None):
    """Return a network of layers of distances; the outputs of the last are scaled."""
    weights = [np.array(part, dtype=float) for part in (weight, *more)]
    nodes = [{"kind": "distance", "inputs": [i]} for i in range(len(weights))]
    arrays = {f"{i}.weight": part for i, part in enumerate(weights, start=1)}
    if scale is not None:
        last, count = len(nodes), len(weights[-1])
        nodes.append({"kind": "affine", "inputs": [last]})
        arrays |= {f"{last + 1}.weight": scale * np.eye(count)}
        arrays |= {f"{last + 1}.bias": np.zeros(count)}
    return network_of(nodes, weights[0].shape[1], arrays)


def steep(lipschitz, n, m, **entries):
    """Claim that each of m outputs moves by at most `lipschitz` times the distance."""
    A, rows = np.concatenate([np.eye(m), -np.eye(m)]), np.full(2 * m, float(lipschitz))
    flags = {"distance": rows, "anchored": np.ones(2 * m)}
    return claim(A, np.zeros(2 * m), n=n, **flags, **entries)


@BOTH
def test_an_interval_by_hand(exact):
    # |x - 1/4| over [-1, 1] is between 0 and 5/4.
    one = net([[0.25]])
    assert why(claim([[1.0]], [1e-9]), one, exact) is None
    assert why(claim([[1.0]], [-1e-9]), one, exact) is not None  # false at 1/4
    assert why(claim([[-1.0]], [1.2501]), one, exact) is None
    assert why(claim([[-1.0]], [1.2499]), one, exact) is not None  # false at -1
    # Beside the box it is at least what is between them: 2 - 1.
    beside = net([[2.0]])
    assert why(claim([[1.0]], [-0.999]), beside, exact) is None
    assert why(claim([[1.0]], [-1.001]), beside, exact) is not None


@BOTH
def test_a_margin_of_twice_the_radius_proves_a_class(exact):
    # Classes are minus the distances from 0 and from 1: at x = 0.1 they differ by 0.8.
    two = net([[0.0], [1.0]], scale=-1.0)
    label = {"A": [[1.0, -1.0]], "center": [0.1], "strict": [1]}
    assert why(claim(b=[0.0], epsilon=0.39, **label), two, exact) is None
    assert why(claim(b=[0.0], epsilon=0.41, **label), two, exact) is not None  # false at 0.51


@BOTH
def test_no_output_moves_faster_than_the_input(exact):
    rng = np.random.default_rng(0)
    deep = net(rng.normal(size=(5, 3)), rng.normal(size=(4, 5)), scale=-1 + 2.0**-20)
    arrays = steep(1.0, 3, 4, center=rng.normal(size=3))
    by_slopes = {"radii": np.array([[0.0, 2.0]]), "by_slopes": np.array([1])}
    assert why(arrays | by_slopes, deep, exact) is None
    assert why(steep(0.99, 3, 4) | by_slopes, deep, exact) is not None
    # Scaled by 2 it moves twice as fast.
    fast = net(rng.normal(size=(5, 3)), scale=2.0)
    assert why(steep(1.999, 3, 5) | by_slopes, fast, exact) is not None
    assert why(steep(2.001, 3, 5) | by_slopes, fast, exact) is None


@BOTH
def test_counterexamples(exact):
    arrays = claim([[1.0]], [-0.5], verdict="falsified", point=[0.75])
    assert why(arrays, net([[0.5]]), exact) is None  # the distance is 1/4
    assert why(arrays, net([[0.0]]), exact) is not None
    moved = steep(0.5, 1, 1, verdict="falsified", point=[0.75])
    assert why(moved, net([[2.0]]), exact) is None
    assert why(moved, net([[0.375]]), exact) is not None  # no move at all


numbers = st.floats(-100, 100, allow_subnormal=False)


@settings(max_examples=50)
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=5))
def test_intervals_hold_distances_in_exact_arithmetic(entries):
    one, other, point, weight = np.array(entries).T
    low, high = np.minimum(one, other), np.maximum(one, other)
    point = np.clip(point, low, high)
    least, most, scale = Distance({"weight": weight[None]}, [len(low)], floats).image(
        low[None], high[None]
    )
    pairs = list(zip(weight, low, high, point, strict=True))
    exact = max(abs(Fraction(x) - Fraction(w)) for w, _, _, x in pairs)
    assert Fraction(least[0, 0]) <= exact <= Fraction(most[0, 0])
    assert most[0, 0] <= scale[0, 0]
    # Both ends are reached, but for a rounding.
    ends = [max(abs(Fraction(e) - Fraction(w)) for e in (a, b)) for w, a, b, _ in pairs]
    nearest = [abs(Fraction(min(max(w, a), b)) - Fraction(w)) for w, a, b, _ in pairs]
    assert most[0, 0] == pytest.approx(float(max(ends)), rel=1e-15, abs=1e-300)
    assert least[0, 0] == pytest.approx(float(max(nearest)), rel=1e-15, abs=1e-300)


def test_units_are_taken_some_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    node = Distance({"weight": rng.normal(size=(7, 4))}, [4], integers)
    ends = np.sort(rng.normal(size=(2, 3, 4)), axis=0)
    whole = node.image(*ends)
    monkeypatch.setattr("skrobust.evidence._distance_rules._AT_ONCE", 20)
    for part, other in zip(whole, node.image(*ends), strict=True):
        np.testing.assert_array_equal(part, other)


def test_weights_must_fit():
    with pytest.raises(Rejected, match="weight is of shape"):
        Distance({"weight": np.zeros((2, 3))}, [4], floats)
    with pytest.raises(Rejected, match="beyond"):
        Distance({"weight": np.array([[np.inf]])}, [1], floats)
    twice = network_of([{"kind": "distance", "inputs": [0, 0]}], 1, {})
    with pytest.raises(Rejected, match="several inputs"):
        Network(twice, False)
