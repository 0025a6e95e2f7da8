"""Lines of smooth units: they hold, and are those of the bounds; false claims are rejected."""

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.bounds import lines_of
from skrobust.evidence import _checker, stored_node, why_rejected
from skrobust.evidence._rules import UNIT, Rejected, floats, integers
from skrobust.evidence._smooth_rules import KINDS
from skrobust.graphs import Gelu
from tests.bounds._smooth_units import EXACT, UNITS
from tests.evidence._examples import DIGEST, claim, network, random_proof

ALL = pytest.mark.parametrize("name", UNITS)
BOTH = pytest.mark.parametrize("lift", [floats, integers], ids=["floats", "exact"])


def checked(name, lift=floats):
    kind, arrays = stored_node(UNITS[name], None, 1)
    return KINDS[kind](arrays, [1], lift)


def exact(name, z):
    """Return the function with 40 digits, jumps included."""
    node, z = UNITS[name], mp.mpf(float(z))
    if name.startswith("softplus") and mp.mpf(node.beta) * z > node.threshold:
        return z
    return EXACT[type(node)][0](node, z)


@ALL
@BOTH
def test_enclosures_hold(name, lift):
    unit, node = checked(name, lift), UNITS[name]
    z = np.concatenate([np.linspace(-9, 9, 61), [-40.0, 1e-9, 0.0, 700.0]])
    low, least, most = unit.enclosed(1.0, z)
    high = -unit.enclosed(-1.0, z)[0]
    # The function by tanh has sqrt(2 / pi), and the unit a float.
    off = 1e-16 * (1 + np.abs(z)) if isinstance(node, Gelu) else 0 * z
    for k, place in enumerate(z):
        value, slope = (of(node, mp.mpf(float(place))) for of in EXACT[type(node)])
        assert low[k] - off[k] <= value <= high[k] + off[k]
        assert high[k] - low[k] <= 66 * UNIT * unit.growth * (1 + abs(place))
        if place or not name.startswith("elu"):
            assert least[k] - 4 * off[k] <= slope <= most[k] + 4 * off[k]


@ALL
@BOTH
@settings(max_examples=8, deadline=None)
@given(
    low=st.floats(-6, 6),
    width=st.floats(0, 7) | st.just(0.0) | st.just(1e-9),
    shares=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_lines_and_images_hold_whatever_the_points(name, lift, low, width, shares):
    unit, high = checked(name, lift), low + width
    ends = np.array([[low]]), np.array([[high]])
    lines = unit.lines(*ends)
    free = None if shares is None else np.array([[low + share * width for share in shares]])
    sides = []
    for sign in (1.0, -1.0):
        [(slope, k)], (shift, j) = unit.pull(lift([[sign]]), lines, free, lift)
        sides.append((sign * slope[0, 0] * mp.mpf(2) ** k, sign * shift[0] * mp.mpf(2) ** j))
    least, most, scale = unit.image(*ends)
    for z in np.clip(np.linspace(low, high, 9), low, high):
        value = exact(name, z)
        (below, below_at), (above, above_at) = sides
        assert below * mp.mpf(float(z)) + below_at <= value
        assert value <= above * mp.mpf(float(z)) + above_at
        assert least[0, 0] <= value <= most[0, 0]
        assert abs(value) <= scale[0, 0]


@ALL
@settings(max_examples=15, deadline=None)
@given(low=st.floats(-6, 6), width=st.floats(0.01, 7))
def test_lines_are_those_of_the_bounds_or_better(name, low, width):
    unit, ends = checked(name), (np.array([[low]]), np.array([[low + width]]))
    own, theirs = unit.lines(*ends), lines_of(UNITS[name], *map(torch.as_tensor, ends))
    assert own.low == pytest.approx(theirs.below.slope.numpy(), abs=1e-9)
    assert own.high == pytest.approx(theirs.above.slope.numpy(), abs=1e-9)
    middle = low + width / 2
    at = [lines.slope * middle + lines.shift for lines in (theirs.below, theirs.above)]
    assert own.low * middle + own.low_at >= at[0].numpy() - 1e-9
    assert own.high * middle + own.high_at <= at[1].numpy() + 1e-9
    alpha = torch.full((1, 1, 1), 0.3, dtype=torch.float64)
    points = theirs.points(alpha).flatten(1).numpy()
    [(slope, _)], (shift, _) = unit.pull((np.ones((1, 1)), 0), own, points, floats)
    free, free_shift = theirs.below.line(alpha)
    if np.isfinite(points[0, 0]):
        assert slope[0, 0] == pytest.approx(free.item(), abs=1e-13)
        # No more room for rounding than the bounds have: what they prove is accepted.
        assert shift[0] >= free_shift.item()


@ALL
@BOTH
@settings(max_examples=6, deadline=None)
@given(
    low=st.floats(-6, 6),
    width=st.floats(0, 7) | st.just(0.0) | st.just(1e-9),
    center=st.floats(-6, 6),
)
def test_slopes_of_chords_hold(name, lift, low, width, center):
    unit, high = checked(name, lift), low + width
    threshold = getattr(UNITS[name], "threshold", np.inf) / getattr(UNITS[name], "beta", 1.0)
    ends = [np.array([[z]]) for z in (low, high, center, center)]
    try:
        least, most = unit.chords(*ends)
    except Rejected as error:
        assert "jumps" in str(error)
        assert min(low, center) <= threshold * (1 + 1e-9)
        assert max(high, center) >= threshold * (1 - 1e-9)
        return
    at_center = exact(name, center)
    for z in np.linspace(low, high, 9):
        if abs(z - center) > 1e-6:
            slope = (exact(name, z) - at_center) / (mp.mpf(z) - mp.mpf(center))
            # Functions of 40 digits, next to each other.
            off = mp.mpf(1e-16) * (1 if isinstance(UNITS[name], Gelu) else 1e-4)
            assert least[0, 0] - off <= slope <= most[0, 0] + off
    # Both are slopes of the function somewhere between, but for rounding.
    places = np.linspace(min(low, center), max(high, center), 400)
    slopes = unit.slope(np.append(places, np.clip(unit.bends, places[0], places[-1])))
    if places[0] > threshold:
        slopes = np.ones(1)
    assert slopes.min() - least[0, 0] < 0.02 * unit.growth
    assert most[0, 0] - slopes.max() < 0.02 * unit.growth


@pytest.mark.parametrize("name", ["gelu", "gelu by tanh", "silu", "tanh", "sigmoid", "erf"])
def test_convexity_changes_where_it_is_said_to(name):
    unit, slope = checked(name), EXACT[type(UNITS[name])][1]
    with mp.workdps(60):

        def bent(z):
            return mp.diff(lambda z: slope(UNITS[name], z), z)

        for bend in unit.bends:
            signs = {mp.sign(bent(mp.mpf(bend) + side)) for side in (-3e-15, 3e-15)}
            assert signs == {-1, 1}
        for convex in (True, False):
            for low, high in unit.pieces(convex):
                for z in np.linspace(max(low, -12), min(high, 12), 33)[1:-1]:
                    assert (bent(mp.mpf(z)) > 0) == convex


@pytest.mark.parametrize(
    ("kind", "arrays", "word"),
    [
        ("elu", {"alpha": -1.0, "scale": 1.0, "rate": 1.0}, "alpha"),
        ("elu", {"alpha": 1.0, "scale": 0.0, "rate": 1.0}, "scale"),
        ("elu", {"alpha": 1e60, "scale": 1e60, "rate": 1.0}, "grows"),
        ("softplus", {"beta": 0.0, "threshold": 1.0}, "beta"),
        ("softplus", {"beta": 1.0, "threshold": np.inf}, "beyond"),
        ("softplus", {"beta": np.nan, "threshold": 1.0}, "NaN"),
        ("softplus", {"beta": 1.0}, "missing"),
    ],
)
def test_parameters_that_are_none(kind, arrays, word):
    with pytest.raises(Rejected, match=word):
        KINDS[kind]({k: np.array(v) for k, v in arrays.items()}, [1], floats)


# -- proofs by hand: x in [-1, 1] --


def why(arrays, net, exact):
    return why_rejected(arrays, _checker.opened(net, exact), DIGEST)


def leaf(**arrays):
    whole = {"row": [0], "node": [0], "unit": [0], "tightens": [0]} | arrays
    return {name: np.array(part) for name, part in whole.items()}


@pytest.mark.parametrize("exact", [False, True], ids=["floats", "exact"])
def test_one_unit_and_its_tangent(exact):
    net = network(([[1.0]], [0.0]), "tanh", ([[1.0]], [0.0]))
    least = float(np.tanh(1))
    at_end = {"slopes.2": np.array([[-1.0, 0.0]])}  # the tangent at -1 is best there
    assert why(claim([[1.0]], [least + 1e-12]) | leaf(**at_end), net, exact) is None
    # The tangent in the middle, at -1/2, is at -1 lower by some hundredths.
    middle = {"slopes.2": np.array([[-0.5, 0.0]])}
    assert "in leaf 0" in why(claim([[1.0]], [least + 1e-3]) | leaf(**middle), net, exact)
    assert why(claim([[1.0]], [least + 0.1]) | leaf(**middle), net, exact) is None
    for point in (-1.0, -0.5, 0.0, 1.0, 1e50, np.inf, -np.inf):
        moved = {"slopes.2": np.array([[point, point]])}
        assert why(claim([[1.0]], [least - 1e-12]) | leaf(**moved), net, exact) is not None
    found = claim([[1.0]], [least - 1e-9], verdict="falsified", point=np.array([-1.0]))
    assert why(found, net, exact) is None
    missed = claim([[1.0]], [least + 1e-9], verdict="falsified", point=np.array([-1.0]))
    assert "breaks no clause" in why(missed, net, exact)


def halves(depth):
    """Return splits of an input in [-1, 1] into 2^depth equal parts, the highest first."""
    count, cuts = 2 ** (depth + 1) - 1, []
    for level in range(depth):
        cuts += [1 - 2 / 2**level * (k + 0.5) for k in range(2**level)]
    node = np.where(np.arange(count) < len(cuts), 1, 0)
    zeros = np.zeros(count, dtype=int)
    at = np.concatenate([cuts, np.zeros(count - len(cuts))])
    return {"row": zeros, "node": node, "unit": zeros, "tightens": zeros + 1, "at": at}


@pytest.mark.parametrize("exact", [False, True], ids=["floats", "exact"])
def test_two_units_and_splits_of_what_they_read(exact):
    net = network(([[2.0], [1.0]], [0.0, 0.0]), "tanh", ([[1.0, -1.0]], [0.0]))
    x = np.linspace(-1, 1, 200_001)
    least = (np.tanh(2 * x) - np.tanh(x)).min()
    true, false = claim([[1.0]], [-least + 0.08]), claim([[1.0]], [-least - 1e-6])
    assert why(true, net, exact) is not None  # bounds alone do not prove it
    proof = halves(4)
    assert why(true | proof, net, exact) is None
    assert why(true | {k: v[:-1] for k, v in proof.items()}, net, exact) is not None
    assert why(false | proof, net, exact) is not None


@pytest.mark.parametrize("exact", [False, True], ids=["floats", "exact"])
def test_multipliers_of_splits_at_any_place(exact):
    # Where x >= 1/2, a line s z + t lies below tanh(z). Over x in [-1, 1] it is s (-1) + t at
    # least; with s (x - 1/2) taken off it is s / 2 + t at all points.
    net = _checker.opened(network(([[1.0]], [0.0]), "tanh", ([[1.0]], [0.0])), exact)
    arrays = claim([[1.0]], [0.0])
    net.ball = _checker.Ball(arrays, "linf", 1)
    low, high = arrays["lower"][None], arrays["upper"][None]
    known = {0: low, 1: np.array([[0.5]])}, {0: high, 1: high}
    region = net.relax(low, high, known, False)
    s, t = region.lines[2].low, region.lines[2].low_at
    plain, _ = net.bound(region, 3, np.ones((1, 1)))
    assert plain == pytest.approx((t - s)[0], abs=1e-12)
    bound, _ = net.bound(region, 3, np.ones((1, 1)), betas={1: (-s, np.array([[0.5]]))})
    assert bound == pytest.approx((t + s / 2)[0], abs=1e-12)
    assert plain < bound <= np.tanh(0.5)


def test_no_proof_proves_a_false_claim_and_some_a_true_one():
    rng, n_true = np.random.default_rng(0), 0
    for _ in range(5):
        names = rng.choice(["tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "erf"], 2)
        layers = [(rng.normal(size=s), rng.normal(size=s[0])) for s in ((3, 2), (3, 3), (1, 3))]
        net = network(layers[0], names[0], layers[1], names[1], layers[2])
        opened = _checker.opened(net, False)
        x = rng.uniform(-1, 1, (4000, 2))
        for i in (1, 2, 3, 4, 5):
            kind = opened.nodes[i]
            x = kind.value(x) if i % 2 == 0 else x @ net[f"{i}.weight"].T + net[f"{i}.bias"]
        least = x.min()
        proof = random_proof(rng, opened, 1, 3)
        for i in opened.piecewise:
            shape = (int((proof["node"] == 0).sum()), opened.free[i])
            points = rng.normal(size=shape) * 2
            proof[f"slopes.{i}"] = np.where(rng.random(shape) < 0.3, np.inf, points)
        low, high = ([[1.0]], [-least - 1e-9]), ([[1.0]], [-least + 8.0])
        assert why(claim(*low, n=2) | proof, net, False) is not None
        n_true += why(claim(*high, n=2) | proof, net, False) is None
    assert n_true >= 1
