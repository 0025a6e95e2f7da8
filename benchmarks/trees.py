"""TreeVerifier on a tree of 4,354 leaves, and on forests against dtai-veritas.

The slides of Bastani et al. ("Verifiable reinforcement learning via policy extraction", NeurIPS
2018) verify one point of a tree of 4,354 leaves by as many linear programs in 52.8 s, on another
machine and another tree. The reference here is the same method on this machine: one linear
program a leaf, by HiGHS. One thread; the tree is read once, before the clock starts.
"""

import argparse
import time

import numpy as np
import torch
from _timing import compare, header
from scipy.optimize import linprog
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from skrobust.properties import ClassificationRobustness
from skrobust.verification import TreeVerifier

SLIDES = 52.8  # seconds a point
N_LEAVES = 4354
N_FEATURES = 7


def main(repeats, skip_programs):
    tree, X = policy()
    property = ClassificationRobustness(1.0, bounds=None, reference="prediction")
    verifier = TreeVerifier()
    state = verifier.encode(tree, property)
    x = state.network.rows(X[:1])
    boxes = state.graph
    print(f"Tree of {tree.get_n_leaves()} leaves, {N_FEATURES} features\n")
    seconds = timed(lambda: verifier.decide(state, x), repeats)
    print(f"One point: {1e3 * seconds:.2f} ms, {SLIDES / seconds:,.0f} times below {SLIDES} s")
    many = state.network.rows(X[:1000])
    seconds = timed(lambda: verifier.decide(state, many), repeats) / 1000
    print(f"One of 1,000 points: {1e3 * seconds:.2f} ms\n")
    header()
    if not skip_programs:
        label = int(state.network(x).argmax())
        found = verifier.decide(state, x).counterexamples[0]
        distance = np.abs(found - X[0]).max()
        assert abs(distance - by_programs(boxes, X[0], label)) < 1e-6
        compare(
            f"one point, by {N_LEAVES} linear programs",
            lambda: verifier.decide(state, x),
            lambda: by_programs(boxes, X[0], label),
            repeats=1,
        )
    ensembles(repeats)


def policy():
    """Return a tree of the size of the slides, on synthetic data, and test points."""
    rng = np.random.default_rng(0)
    X = rng.random((100_000, N_FEATURES))
    y = (np.sin(5 * X).sum(axis=1) + rng.normal(scale=0.3, size=len(X)) > 1.5).astype(int)
    tree = DecisionTreeClassifier(max_leaf_nodes=N_LEAVES, random_state=0).fit(X, y)
    return tree, rng.random((1000, N_FEATURES))


def timed(function, repeats):
    """Return the median time of a call, after one untimed call."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
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


def ensembles(repeats):
    """Time both complete methods on the same points; verdicts must agree."""
    try:
        import veritas  # noqa: F401
    except ImportError:
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
            sides, verdicts = {}, {}
            for method in ("branch", "veritas"):
                verifier = TreeVerifier(method)
                state = verifier.encode(model, ClassificationRobustness(epsilon))
                x = state.network.rows(X[1200:1240])
                labels = state.network.encode(y[1200:1240])
                sides[method] = lambda v=verifier, s=state, x=x, n=labels: v.decide(s, x, n)
                verdicts[method] = sides[method]().verdicts
            assert (verdicts["branch"] == verdicts["veritas"]).all()
            compare(
                f"{name}, 40 digits at {epsilon}, veritas as reference",
                sides["branch"],
                sides["veritas"],
                repeats=repeats,
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-programs", action="store_true")
    arguments = parser.parse_args()
    main(arguments.repeats, arguments.skip_programs)
