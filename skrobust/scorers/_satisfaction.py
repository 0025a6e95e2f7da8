"""Constraint satisfaction: the share of samples around which a property is proved."""

from dataclasses import dataclass, fields

import numpy as np

from skrobust._parameters import DefaultParts
from skrobust._validation import check_instance, check_real
from skrobust.scorers._base import (
    PropertyScorer,
    ScoreResult,
    WeightedScorer,
    share_of,
    weights_of_rows,
)
from skrobust.scorers._local import Counts, decide_by_verifier
from skrobust.statistics import Interval
from skrobust.trees import check_tree_property
from skrobust.verification import (
    Cascade,
    Verdict,
    Verifier,
    check_evidence,
    make_recorder,
    within_set,
)

__all__ = ["ConstraintSatisfaction", "ConstraintSatisfactionResult"]


@dataclass(frozen=True, eq=False, repr=False)
class ConstraintSatisfactionResult(ScoreResult):
    """What `ConstraintSatisfaction.evaluate` returns.

    Parameters
    ----------
    score : float
        Share of samples that are verified.
    interval : Interval
        Clopper-Pearson; with weights Hoeffding's, as the other one.
    surviving_share : float
        Share of samples that are not falsified: the score plus the share of unknowns.
    surviving_interval : Interval
        Clopper-Pearson.
    n_unknown : int
        Samples that are neither verified nor falsified. They count against the score.
    verdicts : ndarray of shape (n_samples,) of str
        "verified", "falsified" or "unknown"; see `skrobust.verification.Verdict`.
    counterexamples : ndarray of shape (n_samples, n_features)
        Points that break the property, as the estimator itself confirms; NaN where there is
        none.
    decided_by : ndarray of shape (n_samples,) of object
        Stage that decided; "" where none did.
    seconds : ndarray of shape (n_samples,)
        Wall time. A time spent on several samples together is shared out equally.
    reasons : ndarray of shape (n_samples,) of object
        Members of `skrobust.verification.Reason`; their text is advice.
    lower : ndarray of shape (n_samples,)
        Proved lower bound of the smallest row in the ball; minus infinity where none is known.
    notes : ndarray of shape (n_samples,) of object
        What there is to say of single samples, such as a disagreement of two verifiers.
    evidence : ndarray of shape (n_samples,) of object
        Names of files in the folder of evidence; "checked" with ``evidence="required"``, "" where
        there is none.
    """

    surviving_share: float
    surviving_interval: Interval
    n_unknown: int
    verdicts: np.ndarray
    counterexamples: np.ndarray
    decided_by: np.ndarray
    seconds: np.ndarray
    reasons: np.ndarray
    lower: np.ndarray
    notes: np.ndarray
    evidence: np.ndarray


class ConstraintSatisfaction(DefaultParts, WeightedScorer, PropertyScorer):
    """Share of samples around which a verifier proves a property on the whole ball.

    Unknown verdicts count against the score; the result has the share of samples that survive
    beside it, and `metrics` gives both to a multi-metric search.

    Parameters
    ----------
    property : RobustnessProperty
        In the raw input space of the estimator that is scored.
    verifier : Verifier or None, default=None
        None is ``Cascade()``: an attack, bounds, and a complete method for what they leave open.
    evidence : str, path-like or None, default=None
        A folder for evidence: the network, and a file for each sample that is decided, which
        ``python -m skrobust.evidence check FOLDER`` checks with NumPy alone. "required" stores
        nothing, but counts as verified only samples whose proof that checker accepts. What has
        no evidence is told by a `MissingEvidenceWarning` and in `notes`.
    timeout : float or None, default=None
        Seconds a sample, handed on to the verifier; no limit beside the verifier's own if None.
    confidence : float, default=0.95
        Of the intervals.
    chunk_size : int, default=256
        Most samples of one job. Complete methods get them one by one.
    random_state : int, RandomState instance or None, default=None
        For attacks with random starts. None stands for 0 where there is a `memory`.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps what each stage said of each chunk, or of each single sample for complete methods,
        so that an evaluation that was killed repeats no decided sample.
    verbose : int, default=0
        1 shows a progress bar with the counts of verified, falsified and unknown samples (needs
        the package rich, of the extra "plots"); more are joblib's messages.

    References
    ----------
    Casadio et al., CAV 2022, section 3, Definition 5.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.scorers import ConstraintSatisfaction
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> scorer = ConstraintSatisfaction(ClassificationRobustness(0.02))
    >>> result = scorer.evaluate(model, X[1000:1100], y[1000:1100])
    >>> bool(result.score == (result.verdicts == "verified").mean())
    True
    >>> result.n_unknown
    0
    """

    _treats_domains = True

    def __init__(
        self,
        property,
        verifier=None,
        *,
        evidence=None,
        timeout=None,
        confidence=0.95,
        chunk_size=256,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.property = property
        self.verifier = verifier
        self.evidence = evidence
        self.timeout = timeout
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def _default_parts(self):
        return {"verifier": Cascade()}

    def evaluate(self, estimator, X, y=None, sample_weight=None):
        """Return a `ConstraintSatisfactionResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, where the property needs them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score, whose interval is Hoeffding's then. A search hands
            them on after ``scorer.set_score_request(sample_weight=True)``.
        """
        weights = weights_of_rows(sample_weight, X)
        verifier = self._part("verifier")
        check_instance("verifier", verifier, Verifier, "Cascade()").check()
        if self.timeout is not None:
            check_real("timeout", self.timeout, low=0, closed="neither")
        check_evidence(self.evidence)
        self._check_common()
        check_tree_property(estimator, self.property)
        sample = self._prepare(estimator, X, y, needs_gradient=False)
        n_features, recorder = sample.rows.shape[1], None
        verifier = within_set(verifier, self.property)
        encoding = verifier.encode(sample.model, self.property, n_features)
        if self.evidence is not None:
            encoding = encoding.with_proofs()
            recorder = make_recorder(self.evidence, sample.model, self.property, n_features)
        verbose = max(0, self.verbose - 1)
        with Counts(self.verbose, len(sample)) as counts:
            verdicts = decide_by_verifier(
                self,
                verifier,
                encoding,
                sample,
                counts=counts,
                recorder=recorder,
                verbose=verbose,
            )
        return self._result(verdicts if recorder is None else recorder.finish(verdicts), weights)

    def _result(self, verification, weights):
        is_verified = verification.verdicts == Verdict.VERIFIED
        is_surviving = verification.verdicts != Verdict.FALSIFIED
        score, interval = share_of(is_verified, weights, self.confidence)
        surviving_share, surviving_interval = share_of(is_surviving, weights, self.confidence)
        return ConstraintSatisfactionResult(
            score=score,
            interval=interval,
            surviving_share=surviving_share,
            surviving_interval=surviving_interval,
            n_unknown=int((is_surviving & ~is_verified).sum()),
            **{field.name: getattr(verification, field.name) for field in fields(verification)},
        )

    def metrics(self, estimator, X, y=None):
        """Return three scores as a dict, for ``GridSearchCV(scoring=scorer.metrics)``.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
        y : array-like of shape (n_samples,), default=None

        Returns
        -------
        dict of str to float
            "verified_share", "surviving_share" and "unknown_count".
        """
        result = self.evaluate(estimator, X, y)
        return {
            "verified_share": result.score,
            "surviving_share": result.surviving_share,
            "unknown_count": result.n_unknown,
        }
