"""The checker: proofs by hand, and claims that are false, which no proof proves."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skrobust.evidence import _checker, why_rejected
from tests.evidence._examples import DIGEST, claim, network, outputs, ramp, random_proof

FOLDER = Path(_checker.__file__).parent
BOTH = pytest.mark.parametrize("exact", [False, True], ids=["floats", "exact"])


def why(arrays, network_arrays, exact=False):
    return why_rejected(arrays, _checker.Network(network_arrays, exact), DIGEST)


def bound(arrays, network_arrays, exact=False):
    """Return the bound of the one row over the whole ball."""
    net = _checker.Network(network_arrays, exact)
    ball = _checker.Ball(arrays, "linf", net.sizes[0])
    net = _checker.with_rows(net, _checker.Rows(arrays, net.sizes[-1]), ball)
    region = net.relax(arrays["lower"][None], arrays["upper"][None])
    values, _ = net.bound(region, len(net.nodes) - 1, np.eye(1))
    return values[0]


# -- by hand: x in [-1, 1], output relu(x) --


@BOTH
def test_a_bound_without_a_proof(exact):
    # The line below relu is 0 or x; at a tie of areas it is 0.
    assert why(claim([[1.0]], [0.1]), ramp(), exact) is None
    assert bound(claim([[1.0]], [0.1]), ramp(), exact) == pytest.approx(0.1, abs=1e-12)
    # Above it is (x + 1) / 2, which is 1 at x = 1.
    assert bound(claim([[-1.0]], [1.1]), ramp(), exact) == pytest.approx(0.1, abs=1e-12)
    assert why(claim([[-1.0]], [0.99]), ramp(), exact) is not None


def tilted(b):
    """Claim relu(x) - x / 2 + b >= 0: the least is b, at 0."""
    skip = network(
        ([[1.0], [1.0]], [0.0, 2.0]), [0.0, 0.0], ([[1.0, -0.5]], [1.0])
    )  # relu(x) - relu(x + 2) / 2 + 1
    return claim([[1.0]], [b]), skip


@BOTH
def test_slopes_of_a_proof_are_used(exact):
    # A line of slope t lies t x - x / 2 below: at best b - |t - 1/2|.
    arrays, skip = tilted(0.1)
    leaf = {"row": [0], "node": [0], "unit": [0], "tightens": [0]}
    proof = {name: np.array(value) for name, value in leaf.items()}
    for slope, is_proved in ((0.5, True), (0.45, True), (0.35, False), (1.0, False), (0.0, False)):
        slopes = {"slopes.2": np.array([[slope, 0.0]])}
        assert (why(arrays | proof | slopes, skip, exact) is None) == is_proved
    assert "slopes" in why(arrays | proof | {"slopes.2": np.ones((2, 2))}, skip, exact)


def split_at_zero(multiplier, leaf=0):
    """Split relu(x) by its sign; in the half where it is x, x is taken off `multiplier` times."""
    parts = {
        "row": [0, 0, 0],
        "node": [2, 0, 0],
        "unit": [0, 0, 0],
        "tightens": [0, 0, 0],
        "betas.1": [multiplier],
        "betas.1.leaf": [leaf],
        "betas.1.unit": [0],
    }
    return {name: np.array(value) for name, value in parts.items()}


@BOTH
def test_multipliers_of_a_proof_are_used(exact):
    # Where x >= 0 the row is x + 0.1 over the whole box: only x - 1 x + 0.1 is proved.
    arrays = claim([[1.0]], [0.1])
    assert why(arrays | split_at_zero(1.0), ramp(), exact) is None
    assert why(arrays | split_at_zero(0.95), ramp(), exact) is None
    for multiplier in (0.0, 0.85, 1.2):
        assert "leaf 0" in why(arrays | split_at_zero(multiplier), ramp(), exact)
    assert "below 0" in why(arrays | split_at_zero(-1.0), ramp(), exact)
    # In the other half, where x <= 0, the multiplier is of -x: the row becomes x.
    assert why(arrays | split_at_zero(1.0, leaf=1), ramp(), exact) is not None


@BOTH
def test_splits_of_the_input(exact):
    # 1/2 - |x| / 2 - relu(x) / 4 over [-1, 1], as -relu(x) 3/4 - relu(-x) / 2 + 3/4.
    tent = network(([[1.0], [-1.0]], [0.0, 0.0]), [0.0, 0.0], ([[-0.75, -0.5]], [0.0]))
    arrays = claim([[1.0]], [0.76])
    parts = {"row": [0] * 3, "node": [1, 0, 0], "unit": [0] * 3, "tightens": [0] * 3}
    proof = {name: np.array(value) for name, value in parts.items()}
    # Lines above are (x + 1) / 2 and (1 - x) / 2: 3/8 (x + 1) + 1/4 (1 - x) is 3/4 at x = 1.
    assert why(arrays, tent, exact) is None
    assert why(arrays | proof, tent, exact) is None
    arrays["b"] = np.array([0.74])
    assert why(arrays | proof, tent, exact) is not None  # false at x = 1
    proof["at"] = np.array([3.0, 0.0, 0.0])
    assert "outside" in why(claim([[1.0]], [0.76]) | proof, tent, exact)


@BOTH
def test_a_tree_must_cover_the_ball(exact):
    arrays = claim([[1.0]], [0.1]) | split_at_zero(1.0)
    for name in ("row", "node", "unit", "tightens"):
        arrays[name] = arrays[name][:2]  # a leaf is dropped
    assert "no tree" in why(arrays, ramp(), exact)


def test_each_clause_needs_a_tree_with_rows_of_its_own():
    arrays = claim([[1.0], [1.0]], [0.1, -1.0])
    assert why(arrays, ramp()) is not None  # relu(x) >= 1 is false
    both = arrays | {"clause": np.array([0, 0])}
    one = {name: np.array([0]) for name in ("row", "node", "unit", "tightens")}
    assert why(both | one, ramp()) is None  # one of the two rows is enough
    assert why(both | one | {"row": np.array([1])}, ramp()) is not None
    two = {name: np.array([0, 0]) for name in ("row", "node", "unit", "tightens")}
    assert "another clause" in why(arrays | two, ramp())


def test_strict_rows_are_above_zero():
    assert why(claim([[0.0]], [0.0]), ramp(), True) is None
    assert why(claim([[0.0]], [0.0], strict=[1.0]), ramp(), True) is not None


@BOTH
def test_counterexamples(exact):
    arrays = claim([[1.0]], [-0.5], verdict="falsified", point=[0.25])
    assert why(arrays, ramp(), exact) is None  # 0.25 - 0.5 < 0
    assert why(arrays | {"point": np.array([0.75])}, ramp(), exact) is not None
    assert "outside" in why(arrays | {"point": np.array([-1.5])}, ramp(), exact)
    # The box is wider than the domain, and the center may lie outside of it.
    narrow = arrays | {"domain_low": np.array([0.0])}
    assert "outside" in why(narrow | {"point": np.array([-0.25])}, ramp(), exact)
    assert why(narrow | {"point": np.array([0.25])}, ramp(), exact) is None
    narrow = arrays | {"domain_high": np.array([0.25])}
    assert "outside" in why(narrow | {"point": np.array([0.375])}, ramp(), exact)


def test_a_counterexample_is_beyond_the_rounding_of_floats():
    # relu(x) - 1/4 is 1e-9 above 0, which float32 cannot tell; then 2^-54 below.
    arrays = claim([[1.0]], [-0.25], verdict="falsified", point=[0.25 + 1e-9])
    assert "breaks no clause" in why(arrays, ramp())
    arrays |= {"point": np.array([0.25 - 2.0**-54])}
    assert "floats cannot tell" in why(arrays, ramp())
    assert why(arrays, ramp(), True) is None
    assert "breaks no clause" in why(arrays | {"point": np.array([0.25])}, ramp(), True)


# -- the ball --


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_the_box_must_hold_the_ball(side):
    arrays = claim([[1.0]], [0.1])
    arrays[side] = arrays[side] * 0.999
    assert "leaves out" in why(arrays, ramp())
    arrays = claim([[1.0]], [1.1], domain_low=[-0.999], domain_high=[0.999])
    arrays[side] = arrays[side] * 0.999
    assert why(arrays, ramp()) is None


def test_euclidean_balls_are_cut_from_boxes():
    # x1 + x2 over |x| <= 1 is at least -sqrt(2); over the box, -2.
    plane = network(([[1.0, 1.0]], [0.0]))
    assert why(claim([[1.0]], [1.4143], n=2, norm="l2"), plane) is None
    assert why(claim([[1.0]], [1.4142], n=2, norm="l2"), plane) is not None
    assert why(claim([[1.0]], [1.4143], n=2), plane) is not None
    assert "boxes only" in why(claim([[1.0]], [1.4143], n=2, norm="l2"), plane, True)


# -- numbers that underflow --


def powers(*exponents):
    return network(*(([[10.0**k]], [0.0]) for k in exponents))


@BOTH
def test_numbers_that_underflow_prove_nothing(exact):
    # 1e-23 x over [-1.5, -0.5], by way of 1e302 x, is below -1e-26.
    arrays = claim([[1.0]], [1e-26], center=[-1.0], epsilon=0.5, strict=[1.0])
    chain = powers(99, 99, 99, 5, -99, -99, -99, -28)
    assert "node 2 has numbers that may be beyond 1e+100" in why(arrays, chain, exact)


@BOTH
def test_rows_that_may_overflow_are_refused(exact):
    # The constant of 3.4e307 (x + 1 + ... + 1) would overflow, and x takes less off it: an
    # interval from infinity would be empty, which proves all.
    chain = network(*[([[1.0]], [1.0])] * 6)
    for size in (3.4e307, 9e99):
        arrays = claim([[size]], [0.0], center=[-3.0], epsilon=0.1)
        assert "beyond 1e+100" in why(arrays, chain, exact)


@pytest.mark.parametrize("seed", range(150))
def test_extreme_weights(seed):
    # Products of rows underflow, and those of numbers stay in range.
    rng = np.random.default_rng(seed)
    layers, total = [], 0
    for sign in rng.choice([-1.0, 1.0], 8):
        k = int(rng.integers(max(-99, -320 - total), min(99, 92 - total)))
        total += k
        bias = sign * 10.0**total * (seed % 2)
        layers += [([[sign * 10.0**k]], [bias]), [0.3]]
    sign = rng.choice([-1.0, 1.0])
    arrays = claim([[sign]], [0.0], center=[0.3], epsilon=0.4)
    floats, exact = (bound(arrays, network(*layers), is_exact) for is_exact in (False, True))
    assert not floats > exact


def test_small_euclidean_balls_are_refused():
    plane = network(([[1.0, 1.0]], [0.0]))
    arrays = claim([[1.0]], [1e-180], n=2, norm="l2", epsilon=1e-170)
    assert "epsilon" in why(arrays, plane)
    assert why(claim([[1.0]], [1e-78], n=2, norm="l2", epsilon=1e-79), plane) is None
    assert why(claim([[1.0]], [1.4142e-79], n=2, norm="l2", epsilon=1e-79), plane) is not None


# -- what is claimed falsely is proved by nothing --


def random_network(rng, n, hidden, classes):
    """Return a random net: two layers of (leaky) ReLU."""

    def layer(a, b):
        return rng.normal(size=(b, a)) / np.sqrt(a), rng.normal(size=b) / 4

    slopes = rng.choice([0.0, 0.1, -1.0, 1.5], size=2)
    return network(
        layer(n, hidden), [slopes[0]] * hidden, layer(hidden, hidden), [slopes[1]] * hidden,
        layer(hidden, classes),
    )  # fmt: skip


def false_and_true_claims(seed):
    """Return a random net, with claims of rows that are a little too high, and low enough."""
    rng = np.random.default_rng(seed)
    n, arrays = 3, random_network(rng, 3, 5, 3)
    center, A = rng.normal(size=n), rng.normal(size=(2, 3))
    points = center + rng.uniform(-0.5, 0.5, (300, n))
    least = (outputs(arrays, points) @ A.T).min(axis=0)
    options = {"center": center, "epsilon": 0.5, "n": n}
    false = claim(A, -least - [0.0, 1e-6], **options)
    return rng, arrays, false, claim(A, -least + 20.0, **options)


@pytest.mark.parametrize("seed", range(60))
def test_no_proof_proves_a_false_claim(seed):
    rng, arrays, false, true = false_and_true_claims(seed)
    nets = [_checker.Network(arrays, exact) for exact in (False, True)]
    assert why_rejected(true, nets[0], DIGEST) is None
    for _ in range(4):
        proof = random_proof(rng, nets[0], 2, int(rng.integers(0, 8)))
        for net in nets[: 1 + (seed % 6 == 0)]:
            # For the bound or a split without points; the tree itself is one.
            assert why_rejected(false | proof, net, DIGEST).startswith(("in leaf", "a split out"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_no_proof_proves_a_false_claim_thousands(part):
    for seed in range(1000 + 100 * part, 1100 + 100 * part):
        rng, arrays, false, _ = false_and_true_claims(seed)
        net = _checker.Network(arrays, False)
        for _ in range(5):
            proof = random_proof(rng, net, 2, int(rng.integers(0, 10)))
            assert why_rejected(false | proof, net, DIGEST) is not None


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 1012), marks=pytest.mark.slow)], ids=len
)
def test_exact_arithmetic_agrees_with_floats(seeds):
    for seed in seeds:
        _, arrays, false, _ = false_and_true_claims(seed)
        _look_at_both(arrays, false)


def _look_at_both(arrays, false):
    floats, exact = (bound(_one_row(false), arrays, is_exact) for is_exact in (False, True))
    assert floats <= exact + 1e-14 * (1 + abs(exact))  # floats give away what rounding may do
    assert exact - floats < 1e-11


def _one_row(arrays):
    rows = {name: arrays[name][:1] for name in ("A", "b", "strict", "clause")}
    return arrays | rows


# -- what it is made of --


PARTS = [
    f"_{name}.py"
    for name in (
        "ball_rules", "checker", "distance_rules", "enclosures", "relus", "rows", "rules",
        "smooth_rules", "splits", "tree_rules",
    )
]  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_it_needs_numpy_alone_and_is_short(name):
    source = (FOLDER / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 400
    own = [name.removesuffix(".py") for name in PARTS]
    known = {"numpy", *own, *(f"skrobust.evidence.{part}" for part in own)}
    known |= set(sys.stdlib_module_names)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= known
        elif isinstance(node, ast.ImportFrom) and node.module == "skrobust.evidence":
            assert {alias.name for alias in node.names} <= set(own)
        elif isinstance(node, ast.ImportFrom):
            assert node.module in known


def test_it_runs_as_a_file(tmp_path):
    for name in PARTS:
        (tmp_path / name).write_text((FOLDER / name).read_text(encoding="utf-8"))
    command = [sys.executable, "-I", tmp_path / "_checker.py", tmp_path / "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "manifest.json: rejected" in done.stdout
    assert subprocess.run(command[:3], capture_output=True, check=False).returncode == 2
