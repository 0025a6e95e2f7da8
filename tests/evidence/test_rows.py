"""Claims with distances and limits: by hand, against random points, and in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from skrobust.evidence import _ball_rules, _checker, _rows, why_rejected
from skrobust.evidence._rules import Relu, floats, integers
from tests.evidence._examples import DIGEST, claim, network, network_of, outputs, ramp
from tests.evidence.test_checker import BOTH, random_network, why


def shells(*radii, slopes=1):
    """Return a proof by slopes up to the first radius, and by bounds in shells beyond it."""
    pairs = list(zip((0.0, *radii), radii, strict=False))
    by_slopes = [1] * slopes + [0] * (len(pairs) - slopes)
    return {"radii": np.array(pairs), "by_slopes": np.array(by_slopes)}


def steep(lipschitz, **entries):
    """Claim |relu(x) - relu(center)| <= lipschitz |x - center| over a box."""
    rows = {"distance": [lipschitz] * 2, "anchored": [1, 1]}
    return claim([[1.0], [-1.0]], [0.0, 0.0], **rows, **entries)


@BOTH
def test_slopes_prove_what_holds_with_equality_at_the_center(exact):
    assert why(steep(1.001) | shells(2.0), ramp(), exact) is None
    assert why(steep(0.999) | shells(2.0), ramp(), exact) is not None  # false for x > 0
    # Left of the kink all is flat.
    assert why(steep(1e-9, center=[-2.0]) | shells(2.0), ramp(), exact) is None


@BOTH
def test_shells_have_room(exact):
    # From -0.4, the slope of relu is at most (1 - 0.4) / 1 at distance 1: chords prove 0.61.
    arrays = steep(0.61, center=[-0.4])
    assert why(arrays | shells(2.0), ramp(), exact) is None
    # The chord of relu over the shell from 0.4 on is 0.42 at 0: more than 0.61 times 0.4.
    assert "bound" in why(arrays | shells(0.4, 2.0), ramp(), exact)
    assert why(steep(1.1, center=[-0.4]) | shells(0.4, 2.0), ramp(), exact) is None
    assert "distance is left out" in why(arrays | shells(0.4), ramp(), exact)
    gap = shells(0.4, 2.0)
    gap["radii"][1, 0] = 0.5
    assert "distance is left out" in why(arrays | gap, ramp(), exact)
    assert why(arrays | shells(0.4, 2.0, slopes=0), ramp(), exact) is not None  # 0 at the center


@BOTH
def test_counterexamples_with_a_distance(exact):
    arrays = steep(0.5, verdict="falsified")
    assert why(arrays | {"point": np.array([0.75])}, ramp(), exact) is None
    assert why(arrays | {"point": np.array([-0.75])}, ramp(), exact) is not None
    exactly = steep(1.0, verdict="falsified", point=[0.75])
    assert why(exactly, ramp(), exact) is not None  # it holds with equality


def test_constants_of_anchored_rows_are_refused():
    arrays = steep(2.0) | {"b": np.array([0.1, 0.0])} | shells(2.0)
    assert "anchored" in why(arrays, ramp())


# -- limits: sum exp(-row) --


@BOTH
def test_limits_are_of_sums(exact):
    # Rows relu(x) + 1 and 1 - relu(x) over [-1, 1] are at least 1 and 0: e^-1 + e^0 = 1.368.
    arrays = claim([[1.0], [-1.0]], [1.0, 1.0], clause=[0, 0])
    assert why(arrays | {"limit": np.array([1.3679])}, ramp(), exact) is None
    assert why(arrays | {"limit": np.array([1.3678])}, ramp(), exact) is not None
    broken = claim([[1.0], [-1.0]], [1.0, 1.0], clause=[0, 0], verdict="falsified", point=[1.0])
    # e^-2 + e^0 = 1.1353 at x = 1.
    assert why(broken | {"limit": np.array([1.1353])}, ramp(), exact) is None
    assert why(broken | {"limit": np.array([1.1354])}, ramp(), exact) is not None


@pytest.mark.parametrize("values", [[0.0], [-3.0, 2.5], [700.0, -700.0], [1e-9] * 5])
def test_exponentials_are_bounded_on_both_sides(values):
    def series(value):  # of e^|v|, from below, and what its rest is at most
        total, term = Fraction(0), Fraction(1)
        for k in range(1, 3000):
            total, term = total + term, term * abs(Fraction(value)) / k
            if term < Fraction(1, 10**60):
                break
        return total, total + 2 * term

    ends = []
    for value in values:
        low, high = series(value)
        ends.append((low, high) if value >= 0 else (1 / high, 1 / low))
    low, high = (sum(part) for part in zip(*ends, strict=True))
    for is_exact in (False, True):
        assert _rows._exponentials(np.array(values), is_exact, 1) >= low
        assert _rows._exponentials(np.array(values), is_exact, -1) <= high
    assert _rows._exponentials(np.array([np.inf, 0.0]), True, 1) == np.inf
    assert not _rows._exponentials(np.array([np.nan]), False, 1) <= 1e300


# -- mixtures --


@BOTH
def test_mixtures_of_a_clause(exact):
    # Of x + 0.1 and 0.1 - x one is above 0: their mean is.
    line = network(([[1.0]], [0.0]))
    arrays = claim([[1.0], [-1.0]], [0.1, 0.1], clause=[0, 0])
    leaf = {name: np.array([0]) for name in ("node", "unit", "tightens")}
    mean = leaf | {"row": np.array([2]), "mixtures": np.array([[0.5, 0.5]])}
    assert why(arrays | mean, line, exact) is None
    for weights in ([1.0, 0.0], [0.7, 0.3]):
        assert "bound" in why(arrays | mean | {"mixtures": np.array([weights])}, line, exact)
    for weights in ([0.0, 0.0], [1.0, -0.5]):  # 0 >= 0, and x + 0.1 - (0.1 - x) / 2
        assert "mixture" in why(arrays | mean | {"mixtures": np.array([weights])}, line, exact)
    assert "mixture" in why(arrays | mean | {"clause": np.array([0, 1])}, line, exact)
    strict = arrays | {"b": np.array([0.0, 0.0]), "strict": np.array([1, 0])}
    assert why(strict | mean, line, exact) is not None  # at 0, neither row holds but the second


# -- what rows with a distance are bounded by --


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rows_with_a_distance_lie_below_all_points(norm):
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = int(rng.integers(1, 5))
        arrays = claim(np.ones((1, 1)), [0.0], n=n, norm=norm, center=rng.normal(size=n))
        ball = _rows.shell(
            _ball_rules.Ball(arrays, norm, n), float(rng.choice([0.0, 0.3])), np.inf
        )
        a, slope = rng.normal(size=(1, n)), rng.normal(size=1) * 2
        x = rng.uniform(ball.lower, ball.upper, (4000, n))
        order = np.inf if norm == "linf" else 2
        distance = np.linalg.norm(x - ball.center, ord=order, axis=1)
        inside = (distance >= ball.near) & (distance <= 1)
        assert (distance <= _rows.farthest(ball) + 1e-12)[inside].all()
        values = (x @ a[0] + slope * distance)[inside]
        if len(values):
            zero, ends = (np.zeros(1), 0), (ball.lower[None], ball.upper[None])
            with np.errstate(invalid="ignore"):
                bound, _ = _rows.least(ball, floats(a), zero, *ends, floats, slope)
            assert bound[0] <= values.min()
            if norm == "linf":
                zero = integers(np.zeros(1))
                exact, _ = _rows.least(ball, integers(a), zero, *ends, integers, slope)
                assert bound[0] <= exact[0] <= values.min()
                assert exact[0] - bound[0] < 1e-12


@pytest.mark.parametrize("slope", [0.0, 0.1, -1.0, 1.5])
def test_chords_hold_all_slopes(slope):
    rng = np.random.default_rng(1)
    unit = Relu({"slope": np.full(1, slope)}, [1], floats)
    for _ in range(100):
        low, center, high = np.sort(rng.normal(size=3))
        least, most = unit.chords(*(np.array([v]) for v in (low, high, center, center)))
        z = rng.uniform(low, high, 50)
        values, at = (np.where(part > 0, part, slope * part) for part in (z, center))
        chord = (values - at) / (z - center)
        assert (least[0] - 1e-9 <= chord).all() and (chord <= most[0] + 1e-9).all()


@pytest.mark.parametrize("seed", range(12))
def test_no_distances_prove_what_is_false(seed):
    rng = np.random.default_rng(seed)
    arrays, center, A = random_network(rng, 3, 5, 3), rng.normal(size=3), rng.normal(size=(2, 3))
    points = center + rng.uniform(-0.5, 0.5, (400, 3))
    change = (outputs(arrays, points) - outputs(arrays, center[None])) @ A.T
    ratio = (-change / np.abs(points - center).max(axis=1, keepdims=True)).max(axis=0)
    options = {"center": center, "epsilon": 0.5, "n": 3, "anchored": [1, 1]}
    net = _checker.Network(arrays, seed % 4 == 0)
    false = claim(A, [0.0, 0.0], distance=ratio - [0.0, 1e-6], **options)
    true = claim(A, [0.0, 0.0], distance=ratio + 50.0, **options)
    assert why_rejected(true | shells(1.0), net, DIGEST) is None
    for radii in ((1.0,), (0.25, 1.0), (0.01, 0.1, 1.0)):
        assert why_rejected(false | shells(*radii), net, DIGEST) is not None
        assert why_rejected(false | shells(*radii, slopes=0), net, DIGEST) is not None


# -- numbers whose squares or products underflow --

LEAST = 5e-324


@BOTH
def test_slopes_next_to_zero(exact):
    # Of leaky relu - x, with slope 3/4, all products round to x: but it is x / 4 where x < 0.
    nodes = [{"kind": "relu", "inputs": [0]}, {"kind": "affine", "inputs": [1, 0]}]
    arrays = {"1.slope": np.array([0.75])}
    arrays |= {"2.weight": np.array([[-1.0, 1.0]]), "2.bias": np.zeros(1)}
    options = {"epsilon": LEAST, "anchored": [1], "distance": [1e-13]}
    arrays = network_of(nodes, 1, arrays)
    assert "slopes" in why(claim([[1.0]], [0.0], **options) | shells(1.0), arrays, exact)


def test_short_euclidean_distances():
    line = network(([[1.0]], [0.0]))
    # 1e-150 - 1e99 d is below 0 at d = 1e-200, and the domain has no more.
    options = {"norm": "l2", "domain_low": [0.0], "domain_high": [1e-200]}
    arrays = claim([[0.0]], [1e-150], distance=[-1e99], **options)
    arrays |= {"lower": np.zeros(1), "upper": np.full(1, 1e-200)}
    assert why(arrays, line) is not None
    # 1e99 d - 1e-150 is above 0 there.
    options = {"norm": "l2", "verdict": "falsified", "point": [1e-200]}
    arrays = claim([[0.0]], [-1e-150], distance=[1e99], **options)
    for exact in (False, True):
        assert "breaks no clause" in why(arrays, line, exact)


def test_short_rows_have_their_length():
    # a x + c d + 1e-70 with |a| = 1.5e-161, c = 2.3e-162 and d up to 1e98: -1e-63 at worst. Only
    # the square of one entry is not rounded to 0.
    A = np.append(np.full((1, 100), 1.5e-162), [[2e-162]], axis=1)
    options = {"norm": "l2", "n": 101, "epsilon": 1e98, "distance": [2.3e-162]}
    plain = network((np.eye(101), np.zeros(101)))
    assert why(claim(A, [1e-70], **options), plain) is not None
    assert why(claim(A, [1e-62], **options), plain) is None


def test_sums_with_a_distance_are_rounded_up():
    # exp(-(b + c d)) with b = 64 and c d = 2^-48: the sum is rounded to 64, or above.
    arrays = claim([[0.0]], [64.0], distance=[2.0**-48], limit=[np.exp(-64.0)])
    rows = _rows.Rows(arrays, 1)
    moved = rows.moved(np.array([64.0]), (1.0, 1.0))
    assert Fraction(moved[0]) > 64 + Fraction(2) ** -48


@BOTH
def test_slopes_of_smooth_units_are_those_in_between(exact):
    smooth = network(([[1.0]], [0.0]), "tanh", ([[1.0]], [0.0]))
    # At 1 the slope of tanh is 0.42, and from 0.5 on it is at most 0.79.
    near = steep(0.80, center=[1.0], epsilon=0.5)
    assert why(near | shells(1.0), smooth, exact) is None
    assert why(steep(0.75, center=[1.0], epsilon=0.5) | shells(1.0), smooth, exact) is not None
    assert why(steep(1.001) | shells(2.0), smooth, exact) is None
    assert why(steep(0.999) | shells(2.0), smooth, exact) is not None  # false at 0
