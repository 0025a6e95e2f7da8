"""What `pointwise_robustness` returns."""

from collections import Counter
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np

from skrobust.networks import frame_like, import_pandas

__all__ = ["PointwiseResult", "PointwiseStatus"]


class PointwiseStatus(StrEnum):
    """How the search for one sample ended; `advice` says what that means, and what to try."""

    advice: str

    def __new__(cls, text, advice):
        """Return a member that equals `text`, and has an `advice`."""
        member = str.__new__(cls, text)
        member._value_, member.advice = text, advice
        return member

    OPTIMAL = (
        "optimal",
        "The optimum of the linear program over the region of the sample; with method='exact', "
        "the distance of the closest adversarial example of all, within the precision.",
    )
    FOUND = (
        "found",
        "An upper bound: a closer adversarial example may exist.",
    )
    CERTIFIED = (
        "certified",
        "A lower bound: no closer adversarial example exists.",
    )
    MISCLASSIFIED = (
        "already misclassified",
        "The label given differs from the prediction: radius 0.",
    )
    ABOVE = (
        "above epsilon_max",
        "The lower bound of what the method can find has passed epsilon_max. For radii beyond, "
        "raise epsilon_max.",
    )
    INFEASIBLE = (
        "infeasible region",
        "No point of the sample's linear region has the target label. Try targets='all' or "
        "method='polished'.",
    )
    NOT_FOUND = (
        "not found",
        "Nothing was found, which proves nothing. 'polished' searches the most; 'certified' and "
        "'exact' can prove that there is nothing.",
    )
    UNCONFIRMED = (
        "unconfirmed",
        "The program has a solution, its `optimum`, but the network in its own precision gives "
        "no point near it another label. Try a larger margin.",
    )
    ROWS = (
        "row limit",
        "The program needs more half-spaces than max_rows; its optimum is at least `bound`. "
        "Raise max_rows, or set epsilon_max.",
    )
    NOWHERE = (
        "no adversarial example",
        "It was proved that every input of the domain has the same label.",
    )
    OWN = (
        "own label is the target",
        "The sample has the target label already. Ask for another one, or targets='all'.",
    )
    TIME_OUT = (
        "time limit",
        "The time limit was reached between `lower` and `upper`. Raise the timeout or the "
        "precision.",
    )
    UNDECIDED = (
        "undecided",
        "The verifier could not decide a ball between `lower` and `upper`. Raise the precision.",
    )
    FAILURE = (
        "numerical failure",
        "The solver, or the attack, failed on this sample. Try solver='cvxpy', another attack, "
        "or scaled inputs.",
    )

    @property
    def is_unresolved(self):
        """Whether there may be an example that is closer than what was found."""
        return self in (
            PointwiseStatus.FAILURE,
            PointwiseStatus.UNCONFIRMED,
            PointwiseStatus.ROWS,
            PointwiseStatus.TIME_OUT,
            PointwiseStatus.UNDECIDED,
        )


@dataclass(frozen=True, eq=False, repr=False)
class PointwiseResult:
    """What `pointwise_robustness` returns: one entry for each sample.

    Parameters
    ----------
    radius : ndarray of shape (n_samples,)
        L-infinity distance of the adversarial example; inf where none was found. For
        ``method="certified"``, the proven lower bound. Apart from that, a finite radius is the
        distance of a point that the estimator labels differently, or, failing that, of a tie,
        which breaks the property as well: 0 where the sample itself is one (in "lp" only with a
        tied target and no margin).
    adversarial_examples : ndarray of shape (n_samples, n_features)
        Confirmed by the estimator in its own precision; NaN where none.
    status : ndarray of str, shape (n_samples,)
        Values of `PointwiseStatus`, whose `advice` explains them. With ``targets="all"``, where
        the program of one label found an example and that of another one ended without an
        answer below its distance, the reason of the latter: the radius is then no optimum.
    lower, upper : ndarray of shape (n_samples,)
        What is proven and what was found: 0 and inf where a method says nothing.
    optimum : ndarray of shape (n_samples,)
        Optimal value of the linear program itself, in exact arithmetic; the radius is larger
        by what the confirmation needs. NaN where no program was solved to its end.
    bound : ndarray of shape (n_samples,)
        Proven lower bound of that optimum, also where the program stopped early; inf where it
        has no solution, 0 where nothing is known. It says nothing about other regions, except
        with ``method="exact"``: then it is `lower`.
    seconds : ndarray of shape (n_samples,)
        Wall-clock time; what is computed in batches is shared out evenly.
    method : str
    """

    radius: np.ndarray
    adversarial_examples: np.ndarray
    status: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    optimum: np.ndarray
    bound: np.ndarray
    seconds: np.ndarray
    method: str

    def to_frame(self):
        """Return the arrays with one entry a sample as a pandas DataFrame.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas("to_frame")
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return pd.DataFrame(
            {name: v for name, v in values.items() if isinstance(v, np.ndarray) and v.ndim == 1}
        )

    def counterexamples_frame(self, X):
        """Return the adversarial examples as a frame like `X`, of the samples that have one.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_features)
            What was measured, of pandas or polars.

        Returns
        -------
        DataFrame
            Of the same kind, with its columns, and their types where these hold the values.
        """
        return frame_like(self.adversarial_examples, X)

    def __repr__(self):
        counts = ", ".join(f"{n} {s}" for s, n in Counter(self.status.tolist()).most_common())
        finite = self.radius[np.isfinite(self.radius)]
        median = f"{np.median(finite):.4g}" if len(finite) else "none"
        return (
            f"PointwiseResult(method={self.method!r}, n_samples={len(self.radius)}, "
            f"median finite radius {median}; {counts})"
        )
