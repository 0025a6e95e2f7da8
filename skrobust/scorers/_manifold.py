"""Robustness to moves along the data manifold (R4 of Tibo et al.), by an autoencoder."""

from dataclasses import dataclass, fields

import numpy as np
import torch

from skrobust._validation import check_bounds, expected
from skrobust.networks import evaluation_mode
from skrobust.scorers._base import RobustnessScorer
from skrobust.scorers._framework import RobustnessScore, RobustnessScoreResult
from skrobust.scorers._radii import check_radii
from skrobust.scorers._sources import predicted_classes

__all__ = ["ManifoldRobustness", "ManifoldRobustnessResult"]


@dataclass(frozen=True, eq=False, repr=False)
class ManifoldRobustnessResult(RobustnessScoreResult):
    """What `ManifoldRobustness.evaluate` returns.

    Parameters
    ----------
    score : float
        The integral, divided by its value for a constant classifier.
    interval : Interval
        Hoeffding's, of the score.
    integral : float
        The integral over the scales of the noise, and mean over the samples.
    values : ndarray of shape (n_samples,)
        The score of each sample alone, in [0, 1].
    shares : ndarray of shape (n_samples, n_scales)
        Share of the decoded points that have the label of the sample.
    n_points : ndarray of int, shape (n_samples, n_scales)
        Points drawn.
    epsilons : tuple of float
        The scales of the noise.
    curve : tuple of float
        Mean of the shares at each scale.
    reconstructed : ndarray of bool, shape (n_samples,)
        Whether the sample, encoded and decoded without noise, keeps its label. Where it does
        not, the autoencoder changed the label, not the noise.
    """

    reconstructed: np.ndarray


class ManifoldRobustness(RobustnessScorer):
    r"""Share of points near a sample on the data manifold that keep its label, on average.

    The score R4: :math:`R_{Q,H,G}` of the framework (see `RobustnessScore`) with Q the data
    distribution, :math:`H(p) = p` and :math:`G = p(x) / \epsilon`; type 2. The points near a
    sample are those that an autoencoder decodes from codes near that of the sample: for each x,

    .. math:: p_\sigma(x) = \frac{1}{|\Sigma|} \sum_{e \in \Sigma}
              1\bigl[f(\mathrm{decode}(\mathrm{encode}(x) + \sigma e)) = f(x)\bigr]

    with :math:`|\Sigma|` draws e of standard normal noise. The score is the mean of
    :math:`p_\sigma` over the samples; with several scales, of its integral over
    :math:`d\sigma / \sigma` from the smallest to the largest, by the trapezoidal rule, divided
    by the integral for a constant classifier, which scores 1. Works with any classifier that has
    `predict`.

    Parameters
    ----------
    autoencoder : object
        Fitted, with ``encode(X)`` and ``decode(Z)``, or with ``transform(X)`` and
        ``inverse_transform(Z)`` such as scikit-learn's PCA. X has shape (n, n_features); Z is an
        array with one code a row, of any shape. A `torch.nn.Module` is given tensors of its own
        dtype, without gradients, in evaluation mode; anything else arrays.
    sigma : float or array-like of shape (n_scales,), default=0.06
        Scale of the noise, in units of the codes; several rising ones are integrated over. The
        default is that of the paper, whose codes are standard normal: scale those of other
        autoencoders (``PCA(whiten=True)``), or the noise.
    n_samples : int, default=200
        Draws for each sample and scale.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs, which decoded points are clipped to.
    reference : {"prediction", "label"}, default="prediction"
        The label that points must have to count: the classifier's own label of the sample, as in
        the paper, where robustness does not depend on accuracy; or the true label.
    batch_size : int, default=4096
        Points that are decoded and classified at a time; bounds the memory.
    confidence : float, default=0.95
        Of the interval.
    chunk_size : int, default=1024
        Samples of one job.
    random_state : int, RandomState instance or None, default=None
        For the draws.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk (with an int as `random_state`).
    verbose : int, default=0
        joblib's progress messages.

    Notes
    -----
    ``RobustnessScore.preset("R4", ...)`` needs no autoencoder: its points are other samples.

    References
    ----------
    Tibo, Jaeger, Larsen, "A general framework for defining and optimizing robustness",
    arXiv:2006.11122, Definitions 1 to 3, equations 8 and 9, and R4.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.scorers import ManifoldRobustness
    >>> X, y = load_digits(return_X_y=True)
    >>> model = KNeighborsClassifier(3).fit(X[:1000], y[:1000])
    >>> codes = PCA(20, whiten=True).fit(X[:1000])
    >>> near, far = (
    ...     ManifoldRobustness(codes, sigma, n_samples=20, random_state=0)(model, X[1000:1100])
    ...     for sigma in (0.06, 1.0)
    ... )
    >>> 0.5 < far < near < 1
    True
    """

    def __init__(
        self,
        autoencoder,
        sigma=0.06,
        *,
        n_samples=200,
        bounds=(0.0, 1.0),
        reference="prediction",
        batch_size=4096,
        confidence=0.95,
        chunk_size=1024,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.autoencoder = autoencoder
        self.sigma = sigma
        self.n_samples = n_samples
        self.bounds = bounds
        self.reference = reference
        self.batch_size = batch_size
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def __sklearn_clone__(self):
        # A clone of the autoencoder would no longer be fitted.
        return type(self)(**self.get_params(deep=False))

    def check(self):
        """Validate the parameters; return self."""
        self._framework().check()
        return self

    def _framework(self):
        """Return the score of the framework that this one is."""
        params = {name: value for name, value in vars(self).items() if name not in _OWN_PARAMETERS}
        source = _LatentNoise(self.autoencoder, check_bounds(self.bounds)).check()
        epsilons = check_radii("sigma", self.sigma)
        return RobustnessScore(source, "identity", "inverse", epsilons, norm=None, **params)

    def evaluate(self, estimator, X, y=None):
        """Return a `ManifoldRobustnessResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier with `predict`.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, for ``reference="label"``.

        Returns
        -------
        ManifoldRobustnessResult
        """
        framework = self._framework()
        result = framework.evaluate(estimator, X, y)
        sample = self._sample(estimator, X, y)
        batch_size = int(self.batch_size)
        wanted = sample.labels
        if self.reference == "prediction":
            wanted = predicted_classes(sample.model, sample.rows, batch_size)
        latent = framework.neighborhood
        decoded = latent.decoded(latent.codes(sample.rows), sample.rows.shape[1])
        reconstructed = predicted_classes(sample.model, decoded, batch_size) == wanted
        values = {field.name: getattr(result, field.name) for field in fields(result)}
        return ManifoldRobustnessResult(**values, reconstructed=reconstructed)


_OWN_PARAMETERS = ("autoencoder", "sigma")
_METHOD_PAIRS = (("encode", "decode"), ("transform", "inverse_transform"))


class _LatentNoise:
    """A neighborhood for `RobustnessScore`: points decoded from codes with normal noise."""

    def __init__(self, autoencoder, bounds):
        self.autoencoder, self.bounds = autoencoder, bounds

    def check(self):
        """Refuse what cannot encode and decode; return self."""
        if isinstance(self.autoencoder, type) or self._names() is None:
            expectation = "a fitted object with " + " or ".join(map(" and ".join, _METHOD_PAIRS))
            raise TypeError(expected("autoencoder", self.autoencoder, expectation))
        return self

    def _names(self):
        for names in _METHOD_PAIRS:
            if all(callable(getattr(self.autoencoder, name, None)) for name in names):
                return names
        return None

    def codes(self, X):
        """Return the codes of rows, of shape (n, *code_shape)."""
        codes = self._call(self._names()[0], X)
        if codes.ndim == 0 or len(codes) != len(X):
            raise ValueError(
                f"Got an autoencoder with codes of shape {codes.shape}, but expected {len(X)} "
                "rows of codes."
            )
        return codes

    def decoded(self, codes, n_features):
        """Return the rows that codes stand for, inside the bounds."""
        rows = self._call(self._names()[1], codes)
        if rows.shape[:1] != (len(codes),) or rows.size != len(codes) * n_features:
            raise ValueError(
                f"Got an autoencoder that decodes to shape {rows.shape}, but expected "
                f"({len(codes)}, {n_features})."
            )
        rows = rows.reshape(len(codes), n_features)
        return rows if self.bounds is None else np.clip(rows, *self.bounds)

    def __call__(self, X, labels, epsilon, n_samples, generator):
        codes = self.codes(X)
        noise = generator.standard_normal((len(X), n_samples, *codes.shape[1:]))
        with np.errstate(over="ignore"):
            noisy = (codes[:, None] + epsilon * noise).astype(codes.dtype)
        if not np.isfinite(noisy).all():
            raise ValueError(expected("sigma", epsilon, f"codes in the range of {codes.dtype}"))
        rows = self.decoded(noisy.reshape(-1, *codes.shape[1:]), X.shape[1])
        return rows.reshape(len(X), n_samples, -1)

    def _call(self, name, values):
        method = getattr(self.autoencoder, name)
        if isinstance(self.autoencoder, torch.nn.Module):
            first = next(self.autoencoder.parameters(), torch.empty(0))
            values = torch.as_tensor(values, dtype=first.dtype, device=first.device)
            with evaluation_mode(self.autoencoder), torch.no_grad():
                returned = method(values).cpu().numpy()
        else:
            returned = np.asarray(method(values))
        if returned.dtype.kind not in "fiub":
            raise TypeError(
                f"Got an autoencoder whose {name} returns type {returned.dtype}, but expected "
                "real numbers."
            )
        if returned.dtype.kind != "f":
            returned = returned.astype(np.float64)
        if not np.isfinite(returned).all():
            raise ValueError(
                f"Got an autoencoder whose {name} returns NaN or infinity, but expected finite "
                "numbers."
            )
        return returned
