"""Errors and warnings of skrobust."""

__all__ = [
    "AttackWarning",
    "DivergedTrainingError",
    "InfeasibleWarning",
    "LostWorkerWarning",
    "MissingEvidenceWarning",
    "ReferenceWarning",
    "SolverDisagreementWarning",
    "ToleranceWarning",
    "UncachedWarning",
    "UnresolvedWarning",
    "UnsupportedModelError",
    "UnsupportedPropertyError",
]


class UnsupportedModelError(TypeError):
    """The estimator, or one part of it, is not of a kind that the method can treat."""


class UnsupportedPropertyError(ValueError):
    """The property has no reading of the kind that the method needs."""


class DivergedTrainingError(FloatingPointError):
    """The training loss became NaN or infinite."""


class AttackWarning(RuntimeWarning):
    """An attack could not take a step, so robustness may be overestimated."""


class UnresolvedWarning(RuntimeWarning):
    """A method has no answer for some samples; they count against the classifier."""


class InfeasibleWarning(UserWarning):
    """No candidate of a search is within the bounds of a refit rule; the nearest is taken."""


class LostWorkerWarning(RuntimeWarning):
    """A worker process died; what it was at is evaluated again, and nothing is lost."""


class ReferenceWarning(UserWarning):
    """A property compares with the true label where the score of the paper does not."""


class SolverDisagreementWarning(RuntimeWarning):
    """A solver claims a proof, and a confirmed counterexample contradicts it."""


class MissingEvidenceWarning(RuntimeWarning):
    """Some verdicts have no evidence, though it was asked for; they stand as they are."""


class ToleranceWarning(UserWarning):
    """Fewer samples were at hand than the tolerance and confidence asked for need."""


class UncachedWarning(UserWarning):
    """Nothing is kept in the `memory`, since the source of something in the question is unknown.

    The key of a result holds the code of what users wrote, so that an edit is seen. Where that
    cannot be had (a function typed into a bare console, run by `exec`, or compiled), a result
    could outlive what it follows from; so it is computed each time. Define it in a file.
    """
