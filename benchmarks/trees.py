"""TreeVerifier on a tree of 4,354 leaves, and on forests against dtai-veritas.

The slides of Bastani et al., "Measuring neural net robustness with constraints", end with a part
called "Verifiable Models via Model Compression (Ongoing)", by Bastani, Pu and Solar-Lezama. A
policy of two actions (a paddle goes up or down) on a state of 12 numbers is distilled to a tree of
4,354 leaves, and one point is verified by as many linear programs in 52.8 s. Their machine, norm
and tree are not known: the tree here has the same size, features and actions, on synthetic data.
The reference is the same method on this machine: one linear program a leaf, by HiGHS. One thread;
the tree is read once, before the clock starts.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch
from _timing import compare, header
from scipy.optimize import linprog
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from skrobust.networks import BlackBox
from skrobust.properties import ClassificationRobustness
from skrobust.trees import ExactBall
from skrobust.verification import TreeVerifier

try:
    import veritas
except ImportError:
    veritas = None

SLIDES = 52.8  # seconds a point
N_LEAVES = 4354
N_FEATURES = 12
ACTIONS = np.array(["down", "up"])


def main(repeats, n_digits, skip_programs):
    tree, X = policy()
    property = ClassificationRobustness(1.0, bounds=None, reference="prediction")
    verifier = TreeVerifier()
    network = BlackBox(tree)
    encoding = verifier.encode(network, property)
    x, boxes = network.rows(X[:1]), encoding.boxes
    size = f"{tree.get_n_leaves()} leaves, {tree.n_features_in_} features"
    print(f"Tree of {size}, {len(tree.classes_)} actions\n")
    seconds = timed(lambda: verifier.decide(encoding, x), repeats)
    print(f"One point: {1e3 * seconds:.2f} ms, {SLIDES / seconds:,.0f} times below {SLIDES} s")
    many = network.rows(X[:1000])
    seconds = timed(lambda: verifier.decide(encoding, many), repeats) / 1000
    print(f"One of 1,000 points: {1e3 * seconds:.2f} ms\n")
    header()
    if not skip_programs:
        label = int(network(x).argmax())
        found = verifier.decide(encoding, x).counterexamples[0]
        distance = np.abs(found - X[0]).max()
        assert abs(distance - by_programs(boxes, X[0], label)) < 1e-6
        compare(
            f"one point, by {N_LEAVES} linear programs",
            lambda: verifier.decide(encoding, x),
            lambda: by_programs(boxes, X[0], label),
            repeats=1,
        )
    ensembles(repeats, n_digits)


def policy():
    """Return a tree of the size of the slides, on synthetic data, and test points."""
    rng = np.random.default_rng(0)
    X = rng.random((100_000, N_FEATURES))
    lead = np.sin(5 * X).sum(axis=1) + rng.normal(scale=0.3, size=len(X))
    y = ACTIONS[(lead > np.median(lead)).astype(int)]
    tree = DecisionTreeClassifier(max_leaf_nodes=N_LEAVES, random_state=0).fit(X, y)
    return tree, rng.random((1000, N_FEATURES))


def timed(function, repeats):
    """Return the median time of a call, after one untimed call."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return float(np.median(times[1:]))


def by_programs(boxes, x, label):
    """Return the L-infinity distance to the nearest leaf of another label: one LP a leaf."""
    d, best = len(x), np.inf
    identity, ones = np.eye(d), np.ones((d, 1))
    A = np.block([[identity, -ones], [-identity, -ones]])
    b = np.concatenate([x, -x])
    for leaf in np.flatnonzero(boxes.labels != label):
        sides = np.array([[-np.inf, np.inf]] * d + [[0, np.inf]])
        entries = boxes.entries(leaf)
        sides[boxes.feature[entries], 0] = boxes.lower[entries]
        sides[boxes.feature[entries], 1] = boxes.upper[entries]
        best = min(best, linprog(np.eye(d + 1)[d], A, b, bounds=sides, method="highs").fun)
    return best


def ensembles(repeats, n_digits):
    """Time both complete methods on the same points; verdicts must agree."""
    if veritas is None:
        print("dtai-veritas is not installed: no comparison on ensembles.")
        return
    X, y = load_digits(return_X_y=True)
    X = X / 16
    models = {
        "100 trees of depth 8": RandomForestClassifier(100, max_depth=8, random_state=0),
        "200 boosted trees": GradientBoostingClassifier(n_estimators=20, random_state=0),
    }
    for name, model in models.items():
        model.fit(X[:1200], y[:1200])
        for epsilon in (0.02, 0.06):
            verifier, property = TreeVerifier(), ClassificationRobustness(epsilon)
            network = BlackBox(model)
            encoding = verifier.encode(network, property)
            sample = slice(1200, 1200 + n_digits)
            x, labels = network.rows(X[sample]), network.encode(y[sample])
            ours = partial(verifier.decide, encoding, x, labels)
            theirs = partial(by_veritas, model, verifier.steps(encoding)[0], x, labels)
            both = zip(ours().verdicts, theirs(), strict=True)
            assert all(one == other for one, other in both if other != "unknown")
            compare(
                f"{name}, {n_digits} digits at {epsilon}, veritas as reference",
                ours,
                theirs,
                repeats=repeats,
            )


def by_veritas(model, bounds, x, labels):
    """Return verdicts by the search of dtai-veritas, after the bounds of ours, as a list.

    "unknown" where its memory is full, or its witness breaks nothing.
    """
    encoding = bounds.encoding
    answer = bounds.decide(encoding, x, labels)
    ball = ExactBall.around(x.numpy(), encoding.property)
    verdicts = answer.verdicts.tolist()
    for i in answer.undecided_index:
        sides = ball.lower[i], ball.upper[i]
        verdicts[i] = one_by_veritas(model, encoding.graph, *sides, x[i].numpy(), int(labels[i]))
    return verdicts


def one_by_veritas(model, trees, lower, upper, x, label):
    near = trees.within(lower, upper)
    rivals = near.rivals(label)
    leads, _, _ = rivals.leads(near.reach(lower[None], upper[None]))
    rivals = rivals.among(leads[0] >= rivals.limits)
    for k in range(len(rivals.classes)):
        reason, box = searched_by_veritas(rivals, k, lower, upper)
        if box is not None:
            low, high = lower.copy(), upper.copy()
            for feature, side in box.items():
                low[feature] = max(low[feature], side.lo)
                high[feature] = min(high[feature], np.nextafter(side.hi, -np.inf))
            point = np.clip(x, low, high)
            broken = model.predict(point[None])[0] != model.classes_[label]
            return "falsified" if broken else "unknown"
        if reason != veritas.StopReason.NO_MORE_OPEN:
            return "unknown"
    return "verified"


def searched_by_veritas(rivals, k, lower, upper):
    """Return why it stopped, and the box of a point at which rival k leads, or None."""
    # Its intervals do not hold their upper end.
    beyond = np.nextafter(upper, np.inf)
    box = [veritas.Interval(a, b) for a, b in zip(lower, beyond, strict=True)]
    config = veritas.Config(veritas.HeuristicType.MAX_OUTPUT)
    config.stop_when_num_solutions_exceeds = 1
    config.max_memory = 2**30
    config.ignore_state_when_worse_than = rivals.limits[k] - rivals.trees.slack
    search = config.get_search(as_addtree(rivals, k), box)
    reason = search.step_for(1e9, 100)
    return reason, search.get_solution(0).box() if search.num_solutions() > 0 else None


def as_addtree(rivals, k):
    """Return the lead of rival k as a sum of trees."""
    trees = rivals.trees
    gain = dict(zip(trees.leaves.tolist(), rivals.gains[:, k].tolist(), strict=True))
    result = veritas.AddTree(1, veritas.AddTreeType.REGR)
    result.set_base_score(0, rivals.base[k])
    for root in trees.roots:
        tree = result.add_tree()
        stack = [(int(root), tree.root())]
        while stack:
            node, place = stack.pop()
            if node in gain:
                tree.set_leaf_value(place, 0, gain[node])
                continue
            # Its splits send what is smaller to the left.
            first_right = np.nextafter(trees.last[node], np.inf)
            tree.split(place, int(trees.feature[node]), float(first_right))
            stack.append((int(trees.left[node]), tree.left(place)))
            stack.append((int(trees.right[node]), tree.right(place)))
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--digits", type=int, default=40, help="of the ensembles")
    parser.add_argument("--skip-programs", action="store_true")
    arguments = parser.parse_args()
    main(arguments.repeats, arguments.digits, arguments.skip_programs)
