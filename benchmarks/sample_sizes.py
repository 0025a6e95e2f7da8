"""Samples used by the bounds of GlobalRobustness at one promise, and how often they cover.

For each true share and bound: the mean number of samples until the interval is within the
tolerance, over simulated runs, its ratio to Hoeffding's number, and the share of runs whose
interval covers. For "sequential" both are also computed exactly, over the lattice of outcomes;
its least coverage over all shares is printed below.
"""

import argparse
import math

import numpy as np

from skrobust.statistics import (
    anytime_rule,
    clopper_pearson,
    empirical_bernstein,
    hoeffding,
    sample_size,
    sequential_rule,
)

SHARES = (0.5, 0.8, 0.9, 0.95, 0.99)
FIXED = {"hoeffding": hoeffding, "bernstein": empirical_bernstein}


def main(tolerance, confidence, n_runs, seed):
    plain = sample_size(tolerance, confidence)
    error = math.sqrt(confidence * (1 - confidence) / n_runs)
    sequential = sequential_rule(tolerance, confidence)
    print(f"Tolerance {tolerance}, confidence {confidence}, {n_runs} runs a cell.")
    print(f"Monte-Carlo error of a coverage: {error:.4f}\n")
    print("| true share | bound | samples | of Hoeffding's | coverage | computed exactly |")
    print("|---|---|---|---|---|---|")
    lowest = {}
    runs = runners(tolerance, confidence)
    for share in SHARES:
        random = np.random.default_rng(seed)
        for bound, run in runs.items():
            n, covers = run(share, n_runs, random)
            lowest[bound] = min(lowest.get(bound, 1), covers)
            exact = ""
            if bound == "sequential":
                mean, coverage = sequential.mean_samples(share), sequential.coverage(share)
                exact = f"{mean[0]:.1f}, {coverage[0]:.4f}"
            print(f"| {share} | {bound} | {n:.1f} | {n / plain:.3f} | {covers:.4f} | {exact} |")
    print(f"\nLowest coverage: { {bound: round(c, 4) for bound, c in lowest.items()} }")
    grid = np.linspace(0, 1, 20_001)
    print(f"sequential, exactly: at most {sequential.n_max} samples; least coverage over ", end="")
    print(f"{len(grid)} shares {sequential.coverage(grid).min():.4f}")
    for bound, (mean, coverage) in means_of_betas(tolerance, confidence, n_runs, seed).items():
        print(
            f"{bound}, mean of Beta(2, 38) values: half-width {mean:.4f}, coverage {coverage:.4f}"
        )


def runners(tolerance, confidence):
    """Return, for each bound, ``run(share, n_runs, random)`` -> mean samples, coverage."""

    def fixed(bound):
        n = sample_size(tolerance, confidence, bound=bound)

        def run(share, n_runs, random):
            k, counts = np.unique(random.binomial(n, share, n_runs), return_counts=True)
            intervals = [_of_counts(bound, int(each), n, confidence) for each in k]
            covers = np.array([i.low <= share <= i.high for i in intervals])
            return float(n), float((covers * counts).sum() / n_runs)

        return run

    def stopping(rule):
        # Once for the whole lattice, since thousands of runs visit the same points.
        n = np.arange(1, rule.n_max + 1)
        stops = [rule.stops(np.arange(rule.n_max + 1).clip(max=each), each) for each in n]
        stops = np.stack(stops)

        def run(share, n_runs, random):
            used, covered = 0, 0
            for _ in range(n_runs):
                k = (random.random(rule.n_max) < share).cumsum()
                at = int(stops[n - 1, k].argmax())
                interval = rule.interval(int(k[at]), at + 1)
                used, covered = used + at + 1, covered + (interval.low <= share <= interval.high)
            return used / n_runs, covered / n_runs

        return run

    return {
        **{bound: fixed(bound) for bound in ("hoeffding", "clopper-pearson", "bernstein")},
        "sequential": stopping(sequential_rule(tolerance, confidence)),
        "anytime": stopping(anytime_rule(tolerance, confidence)),
    }


def _of_counts(bound, k, n, confidence):
    if bound == "clopper-pearson":
        return clopper_pearson(k, n, confidence)
    return FIXED[bound](np.repeat([1.0, 0.0], [k, n - k]), confidence=confidence)


def means_of_betas(tolerance, confidence, n_runs, seed):
    """Return, for the bounds of a mean, the half-width and coverage for values in [0, 1]."""
    n, truth = sample_size(tolerance, confidence), 2 / 40
    found = {}
    for bound, interval in FIXED.items():
        random = np.random.default_rng(seed)
        intervals = [interval(random.beta(2, 38, n), confidence=confidence) for _ in range(n_runs)]
        covers = np.mean([i.low <= truth <= i.high for i in intervals])
        half = np.mean([(i.high - i.low) / 2 for i in intervals])
        found[bound] = (half, covers)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.tolerance, arguments.confidence, arguments.runs, arguments.seed)
