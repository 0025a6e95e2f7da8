"""Robustness under named corruptions of images."""

import zlib
from dataclasses import dataclass, replace
from numbers import Integral, Real

import numpy as np

from skrobust._validation import (
    BY_LABEL,
    call_of_user,
    check_bounds,
    check_choice,
    check_seed,
    check_within_bounds,
    expected,
)
from skrobust.networks import import_pandas
from skrobust.scorers._base import RobustnessScorer, ScoreResult
from skrobust.scorers._images import CORRUPTIONS
from skrobust.statistics import clopper_pearson, hoeffding

__all__ = ["CorruptionRobustness", "CorruptionRobustnessResult"]


@dataclass(frozen=True, eq=False, repr=False)
class CorruptionRobustnessResult(ScoreResult):
    """What `CorruptionRobustness.evaluate` returns.

    Parameters
    ----------
    score : float
        Mean over the corruptions of accuracies, or of agreements.
    interval : Interval
        Hoeffding's, for inputs drawn as those of `X` were and these corruptions.
    counted : {"accuracy", "agreement"}
        What the score is the mean of.
    names : tuple of str
        Of the corruptions.
    accuracies : ndarray of shape (n_corruptions,)
        Share of samples that are classified correctly; NaN where `y` is not given.
    agreements : ndarray of shape (n_corruptions,)
        Share of samples that keep the label they have without corruption.
    intervals : tuple of Interval
        Clopper-Pearson intervals of what the score is the mean of.
    scores : ndarray of shape (n_corruptions,)
        By the scorer that was given, on the corrupted samples; NaN where there is none.
    clean_accuracy : float
        Without corruption; NaN where `y` is not given.
    predictions : ndarray of shape (n_samples, n_corruptions)
        Labels under each corruption.
    """

    counted: str
    names: tuple
    accuracies: np.ndarray
    agreements: np.ndarray
    intervals: tuple
    scores: np.ndarray
    clean_accuracy: float
    predictions: np.ndarray

    def to_frame(self):
        """Return a pandas DataFrame with one row for each corruption."""
        pd = import_pandas("to_frame")
        columns = {
            "accuracy": self.accuracies,
            "agreement": self.agreements,
            "low": [interval.low for interval in self.intervals],
            "high": [interval.high for interval in self.intervals],
            "score": self.scores,
        }
        return pd.DataFrame(columns, index=pd.Index(self.names, name="corruption"))


class CorruptionRobustness(RobustnessScorer):
    """Mean accuracy under corruptions of images, such as noise, blur and rotation.

    Works with any classifier that has `predict`. No corruption is chosen to fool the classifier:
    for that, see `ConstraintSecurity`.

    Parameters
    ----------
    corruptions : None, list of str, or dict of str to callable or array, default=None
        What is done to the images. None is all of "noise" (normal, added), "blur" (Gaussian),
        "shift", "rotate" (in a random direction), "contrast" (lowered around the mean of the
        image) and "occlusion" (a square at a random place). In a dict, an array is a corrupted
        copy of `X`, of the same shape, such as a set of MNIST-C; a callable
        ``corrupt(images, severity, generator)`` returns images, both of shape
        ``(n_samples, *image_shape)``, with a `numpy.random.Generator`.
    severity : {1, 2, 3, 4, 5}, default=3
        How strong the corruptions are. Lengths grow with the height of the image.
    image_shape : tuple of int, default=None
        (height, width) or (channels, height, width) of a row; if None, as `X` has it, or a
        square.
    bounds : pair of floats, default=(0.0, 1.0)
        Darkest and brightest pixel; corrupted images are clipped to it.
    reference : {"label", "prediction"}, default="label"
        Whether the score counts true labels (accuracy) or those without corruption (agreement).
    scorer : callable, default=None
        ``scorer(estimator, X, y)``, such as `ConstraintSecurity`, to call on each corrupted set.
    confidence : float, default=0.95
        Of the intervals.
    chunk_size : int, default=1024
        Samples that are classified at a time.
    random_state : int, RandomState instance or None, default=None
        For the random corruptions.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk (with an int as `random_state`).
    verbose : int, default=0
        joblib's progress messages.

    Raises
    ------
    ValueError
        By `evaluate`, for parameters or data that do not fit, or corrupted images that do not.
    TypeError
        By `evaluate`, for what is no corruption, and callables that return no real numbers.

    References
    ----------
    Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
    perturbations", ICLR 2019; Mu and Gilmer, "MNIST-C: a robustness benchmark for computer
    vision", 2019.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.scorers import CorruptionRobustness
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> scorer = CorruptionRobustness(["noise", "rotate"], random_state=0)
    >>> result = scorer.evaluate(model, X[1000:], y[1000:])
    >>> bool(result.accuracies.max() < result.clean_accuracy)
    True
    """

    def __init__(
        self,
        corruptions=None,
        *,
        severity=3,
        image_shape=None,
        bounds=(0.0, 1.0),
        reference="label",
        scorer=None,
        confidence=0.95,
        chunk_size=1024,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.corruptions = corruptions
        self.severity = severity
        self.image_shape = image_shape
        self.bounds = bounds
        self.reference = reference
        self.scorer = scorer
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def check(self):
        """Validate the parameters; return self."""
        _check_severity(self.severity)
        self._pixel_range()
        check_choice("reference", self.reference, ("label", "prediction"))
        self._check_common()
        if self.scorer is not None and not callable(self.scorer):
            raise TypeError(expected("scorer", self.scorer, "a callable, or None"))
        self._named()
        return self

    def _pixel_range(self):
        """Return the darkest and the brightest pixel, as floats."""
        bounds = check_bounds(self.bounds)
        if bounds is None or not all(isinstance(b, float) and np.isfinite(b) for b in bounds):
            expectation = "a pair (low, high) of finite floats"
            raise ValueError(expected("bounds", self.bounds, expectation))
        if bounds[0] == bounds[1]:
            raise ValueError(expected("bounds", self.bounds, "low < high"))
        return bounds

    def _named(self):
        """Return the corruptions as a dict."""
        corruptions = tuple(CORRUPTIONS) if self.corruptions is None else self.corruptions
        if not isinstance(corruptions, dict):
            if not isinstance(corruptions, list | tuple):
                expectation = "None, a list such as ['noise', 'blur'], or a dict"
                raise TypeError(expected("corruptions", corruptions, expectation))
            for name in corruptions:
                check_choice("corruptions", name, tuple(CORRUPTIONS))
            if len(set(corruptions)) < len(corruptions):
                raise ValueError(expected("corruptions", corruptions, "each name once"))
            corruptions = {name: CORRUPTIONS[name] for name in corruptions}
        if not corruptions:
            raise ValueError(expected("corruptions", self.corruptions, "at least one"))
        for name in corruptions:
            if not isinstance(name, str):
                raise TypeError(expected("corruptions", {name: "..."}, "names that are strings"))
        return corruptions

    def evaluate(self, estimator, X, y=None):
        """Return a `CorruptionRobustnessResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier with `predict`.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels; needed for ``reference="label"``.

        Returns
        -------
        CorruptionRobustnessResult
        """
        self.check()
        needed_by = BY_LABEL.format("scorer") if self.reference == "label" else ""
        sample = self._sample(estimator, X, y, needed_by=needed_by)
        rows, shape = sample.rows, np.shape(X)
        check_within_bounds(rows, self._pixel_range())
        images = rows.reshape(len(rows), *self._image_shape(shape))
        uncorrupted = self._predict(sample)
        seed = int(check_seed(self.random_state).randint(2**31 - 1))
        predictions, scores = [], []
        for name, corruption in self._named().items():
            corrupted = self._corrupted(name, corruption, images, seed)
            predictions.append(self._predict(replace(sample, rows=corrupted)))
            scores.append(self._score(estimator, corrupted.reshape(shape), y))
        return self._result(sample, np.stack(predictions, axis=1), uncorrupted, np.array(scores))

    def _image_shape(self, shape):
        """Return the shape of one image of `X`, which has `shape`."""
        n_features = int(np.prod(shape[1:]))
        given = self.image_shape
        if given is None:
            side = round(np.sqrt(n_features))
            given = shape[1:] if len(shape) > 2 else (side, side)
        is_shape = isinstance(given, list | tuple) and all(map(_is_length, given))
        if not is_shape or len(given) not in (2, 3) or np.prod(given) != n_features:
            expectation = (
                f"(height, width) or (channels, height, width) of {n_features} entries in all"
            )
            raise ValueError(expected("image_shape", self.image_shape, expectation))
        return tuple(int(length) for length in given)

    def _corrupted(self, name, corruption, images, seed):
        """Return the corrupted images as rows, in the dtype of the images."""
        low, high = self._pixel_range()
        if callable(corruption):
            # Of its own, so that a corruption does not depend on which others there are.
            generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
            unit = ((images - low) / (high - low)).astype(np.float32)
            corrupted = _as_pixels(name, corruption(unit, int(self.severity), generator), images)
            corrupted = low + (high - low) * np.clip(corrupted, 0, 1)
        else:
            corrupted = _as_pixels(name, corruption, images)
        rows = corrupted.reshape(len(images), -1)
        rows = rows.astype(np.result_type(images.dtype, np.float32))
        check_within_bounds(rows, (low, high))
        return rows

    def _score(self, estimator, X, y):
        """Return what the scorer that was given makes of a corrupted set; NaN without one."""
        if self.scorer is None:
            return np.nan
        score = call_of_user("scorer", self.scorer, estimator, X, y)
        if not isinstance(score, Real):
            expectation = "a callable that returns a number"
            raise TypeError(f"Got {score!r} from scorer, but expected {expectation}.")
        return float(score)

    def _predict(self, sample):
        return self._in_chunks(_predict, sample, random_state=0)["index"]

    def _result(self, sample, predictions, uncorrupted, scores):
        """Assemble the result from class indices, with and without corruption."""
        labels = sample.labels
        kept = predictions == uncorrupted[:, None]
        correct = kept if labels is None else predictions == labels[:, None]
        counted = correct if self.reference == "label" else kept
        n, n_corruptions = counted.shape
        return CorruptionRobustnessResult(
            score=float(counted.mean()),
            interval=hoeffding(counted.mean(axis=1), confidence=self.confidence),
            counted="accuracy" if self.reference == "label" else "agreement",
            names=tuple(self._named()),
            accuracies=np.full(n_corruptions, np.nan) if labels is None else correct.mean(axis=0),
            agreements=kept.mean(axis=0),
            intervals=tuple(clopper_pearson(k, n, self.confidence) for k in counted.sum(axis=0)),
            scores=scores,
            clean_accuracy=np.nan if labels is None else float((uncorrupted == labels).mean()),
            predictions=sample.model.classes[predictions],
        )


def _predict(model, rows, labels, seed):
    return {"index": model.replay(model.rows(rows)).argmax(dim=1).cpu().numpy()}


def _check_severity(severity):
    is_integer = isinstance(severity, Integral) and not isinstance(severity, bool)
    if not (is_integer and 1 <= severity <= 5):
        raise ValueError(expected("severity", severity, "an integer from 1 to 5"))


def _is_length(value):
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def _as_pixels(name, corrupted, images):
    """Return corrupted images as an array of finite real numbers, else raise an error."""
    array = np.asarray(corrupted)
    if array.dtype.kind not in "fiub":
        shown = f"{name} of type {array.dtype}"
        raise TypeError(f"Got {shown}, but expected an array or callable of real numbers.")
    if array.shape[:1] != (len(images),) or array.size != images.size:
        shown = f"{name} of shape {array.shape}"
        raise ValueError(f"Got {shown}, but expected that of the images, {images.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"Got NaN or infinity from {name}, but expected finite pixels.")
    return array
