"""What the numbers of a report rest on, and what they say nothing about, in sentences."""

import numpy as np

__all__ = ["assumed", "not_checked", "shown_bounds"]


_PROOFS = (
    "Proofs are about the real numbers that the estimator's parameters define. That it rounds its "
    "input is accounted for, how it rounds on the way is not. Counterexamples are confirmed by "
    "the estimator itself."
)


def assumed(report):
    """Return a tuple of sentences."""
    proofs = (_PROOFS,) if "satisfaction" in report.results else ()
    return _draws(report), _together(report), _ball(report), _domain(report), *proofs


def _draws(report):
    return (
        f"The {len(report.labels)} samples are independent draws of what the classifier will "
        "meet, their labels are right, and it was not fitted on them. All intervals rest on that."
    )


def _together(report):
    n = 1 + len(report.curves) * len(report.epsilons)
    confidence = report.accuracy_interval.confidence
    text = f"Each interval holds by itself with a probability of {confidence:.4g}"
    joint = max(0.0, 1 - n * (1 - confidence))
    more = f"at least {joint:.4g}" if joint > 0 else "far less"
    return f"{text}; that all {n} of this report hold at once has {more} (Bonferroni)."


def _ball(report):
    kind = "in each feature" if report.property.norm == "linf" else "in Euclidean length"
    unit = "" if report.scale is None else ", in units of the feature's scale"
    free = "Features are taken to vary freely: points that cannot occur count as well."
    if not getattr(report.property.bounds, "is_box", True):
        free = "Only the integers, categories and constraints of the domain bind them together."
    return f"A perturbation changes any features at once, by at most epsilon {kind}{unit}. {free}"


def _domain(report):
    if report.property.bounds is None:
        return "Every real number is a valid value of a feature."
    return (
        f"Valid inputs lie in {shown_bounds(report.property.bounds)}; points outside do not count."
    )


def shown_bounds(bounds):
    """Return the domain in words."""
    if not isinstance(bounds, tuple | list):
        return " ".join(repr(bounds).split())
    low, high = bounds
    if np.ndim(low) == np.ndim(high) == 0:
        return f"[{low:g}, {high:g}]"
    return "bounds of their own for each feature"


def not_checked(report):
    """Return a tuple of sentences."""
    other = "Euclidean length" if report.property.norm == "linf" else "single features"
    return (
        f"Changes larger than {report.epsilons[-1]:g}, and changes measured in {other} or in any "
        "other way than here.",
        "Changes that are no small ball: noise, blur, shifts, missing values, a distribution "
        "that moves. CorruptionRobustness and ManifoldRobustness measure some of them.",
        "Fairness between groups, calibration, privacy, and tampering with training data.",
        *_undecided(report),
        *_unproved(report),
        _evidence(report),
    )


def _undecided(report):
    for epsilon, result in zip(
        report.epsilons, report.results.get("satisfaction", ()), strict=False
    ):
        if result.n_unknown:
            yield (
                f"At epsilon {epsilon:g} the verifier left {result.n_unknown} of "
                f"{len(result.verdicts)} samples undecided; they count as not proved."
            )


def _unproved(report):
    if "satisfaction" not in report.results:
        yield "Nothing is proved: shares that withstand attacks or random points are upper limits."
    if type(report.attack).__name__ == "UniformSampling":
        yield (
            "Security is by random points, which find far less than an attack that follows "
            "gradients."
        )


def _evidence(report):
    if report.evidence is None:
        return "No evidence files were kept, so that nobody else can check the proofs."
    return (
        "Evidence files were written and not read again here: "
        "python -m skrobust.evidence check FOLDER checks them. They are those of constraint "
        "satisfaction; global robustness has proofs of its own."
    )
