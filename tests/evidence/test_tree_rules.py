"""The checker of trees: proofs by hand, and what is false of them is rejected."""

import json
from fractions import Fraction

import numpy as np
import pytest

from skrobust.evidence import claim_bytes, opened, why_rejected
from skrobust.evidence._checker import opened as opened_as
from skrobust.evidence._tree_rules import PointBall
from skrobust.exceptions import UnsupportedModelError
from tests.evidence._examples import DIGEST

BOTH = pytest.mark.parametrize("exact", [False, True], ids=["floats", "exact"])


def ensemble(*trees, n_features=1, base=(0.0, 0.0), ties="first", votes=True):
    """Return the arrays of trees, each a nested (feature, last, left, right) or values."""
    columns = {name: [] for name in ("feature", "last", "left", "right", "values")}
    roots = []

    def add(tree):
        k = len(columns["feature"])
        is_leaf = not isinstance(tree, tuple)
        for name, value in {"feature": 0, "last": 0.0, "left": k, "right": k}.items():
            columns[name].append(value)
        columns["values"].append(tree if is_leaf else [0.0] * len(base))
        if not is_leaf:
            columns["feature"][k], columns["last"][k] = tree[0] + 1, tree[1]
            columns["left"][k], columns["right"][k] = add(tree[2]), add(tree[3])
        return k

    for tree in trees:
        roots.append(len(columns["feature"]))
        add(tree)
    about = json.dumps({"ties": ties, "votes": votes}).encode()
    return {name: np.array(part) for name, part in columns.items()} | {
        "ensemble": np.frombuffer(about, dtype=np.uint8),
        "n_features": np.array(n_features),
        "roots": np.array(roots),
        "base": np.array(base),
    }


def claim(center, epsilon, label, verdict="verified", norm="linf", **entries):
    n = len(center)
    about = {"verdict": verdict, "norm": norm, "network": DIGEST, "label": label}
    return {
        "claim": claim_bytes(**about),
        "center": np.array(center, dtype=np.float64),
        "epsilon": np.zeros(n) + epsilon,
        "domain_low": np.full(n, -np.inf),
        "domain_high": np.full(n, np.inf),
    } | {name: np.array(part) for name, part in entries.items()}


def why(arrays, trees, exact=False):
    return why_rejected(arrays, opened_as(trees, exact), DIGEST)


STEP = (0, 0.5, [1.0, 0.0], [0.0, 1.0])  # class 0 up to 0.5


@BOTH
def test_one_step(exact):
    trees = ensemble(STEP)
    assert why(claim([0.25], 0.25, 0), trees, exact) is None  # 0.5 goes to the left
    assert why(claim([0.25], np.nextafter(0.25, 1), 0), trees, exact) is None  # the sum is 0.5
    assert "in leaf 0" in why(claim([0.25], 0.2500001, 0), trees, exact)
    assert why(claim([0.25], 0.1, 1), trees, exact) is not None
    assert why(claim([0.75], 0.2, 1), trees, exact) is None
    beyond = np.nextafter(0.5, 1)
    assert why(claim([0.25], 0.26, 0, "falsified", point=[beyond]), trees, exact) is None
    assert "label" in why(claim([0.25], 0.26, 0, "falsified", point=[0.5]), trees, exact)
    assert "outside" in why(claim([0.25], 0.2, 0, "falsified", point=[beyond]), trees, exact)


@BOTH
def test_boxes_tell_what_bounds_do_not(exact):
    # Each tree may favor class 1 somewhere in [0, 1], and no two of three do at one point.
    votes = [[1.0, 0.0], [0.0, 1.0]]
    thirds = [
        (0, 0.3, votes[1], votes[0]),
        (0, 0.3, votes[0], (0, 0.6, votes[1], votes[0])),
        (0, 0.6, votes[0], votes[1]),
    ]
    trees, whole = ensemble(*thirds), claim([0.5], 0.5, 0)
    assert "in leaf 0" in why(whole, trees, exact)
    boxes = {"feature": np.array([1, 0, 1, 0, 0]), "at": np.array([0.3, 0.0, 0.6, 0.0, 0.0])}
    assert why(whole | boxes, trees, exact) is None
    for k in range(5):
        fewer = {name: np.delete(part, k) for name, part in boxes.items()}
        assert why(whole | fewer, trees, exact) is not None
    for at in ([0.31, 0, 0.6, 0, 0], [0.3, 0, 0.59, 0, 0], [0.6, 0, 0.3, 0, 0]):
        assert why(whole | boxes | {"at": np.array(at)}, trees, exact) is not None
    moved = {**trees, "last": np.where(trees["last"] == 0.6, 0.61, trees["last"])}
    moved["last"][np.flatnonzero(trees["last"] == 0.6)[-1]] = 0.6  # of one tree alone
    assert why(whole | boxes, moved, exact) is not None
    turned = {**trees, "values": trees["values"][:, ::-1]}
    assert why(whole | boxes, turned, exact) is not None


@BOTH
@pytest.mark.parametrize("ties", ["first", "last"])
def test_ties_are_won_by_one_class(exact, ties):
    trees = ensemble([1.0, 1.0], ties=ties)
    winner = 0 if ties == "first" else 1
    assert why(claim([0.0], 1.0, winner), trees, exact) is None
    assert why(claim([0.0], 1.0, 1 - winner), trees, exact) is not None
    assert why(claim([0.0], 1.0, 1 - winner, "falsified", point=[0.0]), trees, exact) is None
    # Where sums are rounded, nobody knows.
    rounded = ensemble([1.0, 1.0], ties=ties, votes=False)
    for verdict in ("verified", "falsified"):
        assert why(claim([0.0], 1.0, winner, verdict, point=[0.0]), rounded, exact) is not None
    assert "rounding" in why(claim([0.0], 1.0, 1, "falsified", point=[0.0]), rounded, exact)
    close = ensemble([1.0, 1.0 - 1e-15], ties=ties, votes=False)
    assert why(claim([0.0], 1.0, 0), close, exact) is not None
    apart = ensemble([1.0, 1.0 - 1e-12], ties=ties, votes=False)
    assert why(claim([0.0], 1.0, 0), apart, exact) is None


@BOTH
def test_corners_beyond_a_euclidean_ball(exact):
    corner = (0, 0.8, [1.0, 0.0], (1, 0.8, [1.0, 0.0], [0.0, 1.0]))
    trees, ball = ensemble(corner, n_features=2), claim([0.0, 0.0], 1.0, 0, norm="l2")
    assert why(ball, trees, exact) is not None
    boxes = {"feature": np.array([1, 0, 2, 0, 0]), "at": np.array([0.8, 0.0, 0.8, 0.0, 0.0])}
    assert why(ball | boxes, trees, exact) is None  # 0.8^2 + 0.8^2 > 1
    wider = claim([0.0, 0.0], 1.2, 0, norm="l2")
    assert why(wider | boxes, trees, exact) is not None
    point = {"point": np.array([0.82, 0.82])}
    assert why(claim([0.0, 0.0], 1.2, 0, "falsified", "l2") | point, trees, exact) is None
    # (0.6, 0.8) is at distance 1 all but exactly: fractions decide.
    edge = (0, np.nextafter(0.6, 0), [1.0, 0.0], (1, np.nextafter(0.8, 0), [1.0, 0.0], [0.0, 1.0]))
    trees = ensemble(edge, n_features=2)
    boxes["at"] = np.array([np.nextafter(0.6, 0), 0, np.nextafter(0.8, 0), 0, 0])
    ball = PointBall(claim([0.0, 0.0], 1.0, 0), "l2", 2)
    is_in = ball.holds(np.array([0.6, 0.8]))
    proved = why(claim([0.0, 0.0], 1.0, 0, norm="l2") | boxes, trees, exact) is None
    assert proved != is_in


def test_balls_hold_exactly_the_numbers_that_they_should():
    rng = np.random.default_rng(0)
    center, epsilon = rng.normal(size=200), rng.exponential(size=200) * 2.0 ** -rng.integers(0, 60)
    arrays = claim(center, epsilon, 0)
    ball = PointBall(arrays, "linf", 200)
    for k in range(200):
        for side, end in ((-1, ball.lower[k]), (1, ball.upper[k])):
            beyond = np.nextafter(end, side * np.inf)
            reach = Fraction(epsilon[k])
            assert abs(Fraction(end) - Fraction(center[k])) <= reach
            assert abs(Fraction(beyond) - Fraction(center[k])) > reach


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("left", [0, 1, 2], "no trees"),
        ("left", [2, 1, 2], "no trees"),
        ("right", [3, 1, 2], "places"),
        ("feature", [2, 0, 0], "places"),
        ("roots", [1], "order"),
        ("roots", [], "order"),
        ("roots", [0, 1], "no trees"),
        ("last", [np.nan, 0, 0], "NaN"),
        ("values", [[1.0], [0.0], [0.0]], "shape"),
        ("base", [0.0], "shape"),
        ("n_features", 0, "places|classes"),
    ],
)
def test_arrays_that_are_no_trees(name, value, word):
    with pytest.raises(UnsupportedModelError, match=word):
        opened(ensemble(STEP) | {name: np.array(value)})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"feature": [1, 0]}, "no tree"),
        ({"feature": [0, 0, 0]}, "no tree"),
        ({"feature": [2]}, "places"),
        ({"feature": [1, 0, 0], "at": [np.inf, 0, 0]}, "beyond"),
        ({"epsilon": [-1.0]}, "below 0"),
        ({"center": [0.0, 0.0]}, "shape"),
    ],
)
def test_claims_that_are_malformed(change, word):
    arrays = claim([0.25], 0.1, 0) | {name: np.array(part) for name, part in change.items()}
    assert word in why(arrays, ensemble(STEP)) or word == "x"


@pytest.mark.parametrize("label", [2, -1, True, None, "0", 0.0])
def test_labels_are_classes(label):
    assert "label" in why(claim([0.25], 0.1, label), ensemble(STEP))


def test_random_claims_about_random_trees_agree_with_a_grid():
    rng, counts = np.random.default_rng(0), {True: 0, False: 0}

    def grown(depth):
        if depth == 0:
            return rng.integers(0, 4, 3).astype(float).tolist()
        return (int(rng.integers(0, 2)), round(float(rng.random()), 1), grown(depth - 1), grown(0))

    grid = np.stack(np.meshgrid(*[np.linspace(0.05, 0.95, 10)] * 2), axis=-1).reshape(-1, 2)
    for _ in range(60):
        trees = ensemble(*(grown(3) for _ in range(3)), n_features=2, base=(0.0,) * 3)
        network, label = opened_as(trees, False), int(rng.integers(0, 3))
        arrays = claim([0.5, 0.5], 0.45, label)
        cuts = np.arange(0.1, 1.0, 0.1).round(1)
        feature, at, k = [], [], 0
        boxes = [(0, 0, 9, 9)]  # all boxes of the grid of thresholds, by halving
        while k < len(boxes):
            a, b, c, d = boxes[k]
            k += 1
            axis = 0 if c - a >= d - b else 1
            low, high = ((a, c), (b, d))[axis]
            if high - low == 0:
                feature.append(0)
                at.append(0.0)
                continue
            middle = (low + high) // 2
            feature.append(axis + 1)
            at.append(cuts[middle])
            halves = [(a, b, middle, d), (middle + 1, b, c, d)]
            boxes += halves if axis == 0 else [(a, b, c, middle), (a, middle + 1, c, d)]
        proof = {"feature": np.array(feature), "at": np.array(at)}
        is_true = True
        for point in grid:
            network.rivals(label, point[None], point[None])
            leads = network.leads(point[None], point[None])
            is_true &= bool(network.is_below(leads, network.tie).all())
        assert (why(arrays | proof, trees) is None) == is_true
        assert (why(arrays | proof, trees, exact=True) is None) == is_true
        counts[is_true] += 1
    assert min(counts.values()) >= 3
