"""The general framework of robustness scores of Tibo et al."""

from functools import partial

import numpy as np
import torch

from skrobust._validation import (
    BY_LABEL,
    check_bounds,
    check_choice,
    check_instance,
    check_integer,
    check_seed,
    check_within_bounds,
    expected,
)
from skrobust.attacks import Attack, Ensemble
from skrobust.networks import Units, check_scale
from skrobust.properties import ClassificationRobustness
from skrobust.scorers._base import RobustnessScorer, Sample
from skrobust.scorers._integrals import result_of_margins, result_of_shares
from skrobust.scorers._margin import closest_changes
from skrobust.scorers._radii import (
    TRANSFORMS,
    WEIGHTS,
    check_radii,
    diameter,
    even_radii,
    weights_of,
)
from skrobust.scorers._sources import (
    GeneratedSource,
    NeighborSource,
    References,
    UniformSource,
    predicted_classes,
)

__all__ = ["RobustnessScore"]

_NEIGHBORHOODS = ("uniform", "data", "class-uniform", "class-data")
_INTEGRALS = ("constant", "density")  # weights with an integral over all radii
_WORST = {"transform": "all", "weight": "density", "norm": "l2", "epsilons": None}
_PRESETS = {
    "R1": {"neighborhood": "uniform", **_WORST, "weight": "constant", "attack": Ensemble},
    "R2": {"neighborhood": "uniform", **_WORST, "attack": Ensemble},
    "R4": {
        "neighborhood": "data",
        "transform": "identity",
        "weight": "inverse",
        "norm": "l2",
        "epsilons": None,
    },
    "example-3": {"neighborhood": "data", **_WORST},
    "example-5-uniform": {"neighborhood": "class-uniform", **_WORST},
    "example-5-data": {"neighborhood": "class-data", **_WORST},
    "success-rate": {"neighborhood": "uniform", "transform": "all", "weight": "radii"},
    "uniform-share": {"neighborhood": "uniform", "transform": "identity", "weight": "radii"},
    "class-share": {"neighborhood": "class-data", "transform": "identity", "weight": "inverse"},
}


class RobustnessScore(RobustnessScorer):
    r"""Robustness as an integral over inputs and radii.

    .. math:: R_{Q,H,G} = \int\!\!\int H\bigl(Q(f(X) = f(x) \mid B_\epsilon(x))\bigr)
              \, G(x, \epsilon) \, d\epsilon \, dx

    for any classifier with `predict`. Q says which points near an input count (`neighborhood`),
    H what the probability is worth that they keep its label (`transform`), and G how much an
    input and a radius count (`weight`). The score is not normalized, as in the paper, so that
    its size depends on the metric; `normalized` of the result is.

    Parameters
    ----------
    neighborhood : str or callable, default="uniform"
        Distribution of the points in the ball; Q in the paper.

        - "uniform": uniform in the part of the ball inside `bounds`.
        - "data": the data distribution, by the other rows of `X` that lie in the ball.
        - "class-data": likewise by those of the same true label; `y` is needed.
        - "class-uniform": uniform points of the same true label, which is taken to be that of
          the closest row of `X` in L2; `y` is needed.
        - ``neighborhood(X, labels, epsilon, n_samples, generator)`` returns an array of shape
          (k, n_samples, n_features) for the k rows of `X`, such as by a generative model;
          points outside the ball do not count, which conditions on it. `labels` are those of
          the rows, None where `y` is not given; `generator` is a `numpy.random.Generator`.
    transform : {"identity", "all", "majority"} or callable, default="identity"
        What the probability p is worth: p, 1[p = 1], 1[p > 1/2], or any function of arrays
        that does not fall, from [0, 1] to [0, 1]; H in the paper.
    weight : {"radii", "inverse", "density", "constant"} or callable, default="radii"
        G in the paper; p(x) is the density of the data.

        - "constant": G = 1. Inputs are uniform in `bounds` (the rows of `X` then only say how
          many features there are, and serve "data"), and the integral is over all radii from 0
          to the largest.
        - "density": G = p(x). Inputs are the rows of `X`; all radii, as above.
        - "inverse": G = p(x) / epsilon, by equation 9: the mean over the rows of `X` and over
          `epsilons`.
        - "radii": the plain mean over the rows of `X` and over `epsilons`.
        - ``weight(X, epsilons)`` returns the factor q of G = p(x) q, of shape (n_epsilons,) or
          (n_samples, n_epsilons), for the mean of equation 9.
    epsilons : float, array-like of shape (n_epsilons,), or None, default=0.1
        Radii in units of the input, positive and rising. None is 20 with even gaps, up to the
        diameter of `bounds`.
    attack : Attack or None, default=None
        For ``neighborhood="uniform"`` and ``transform="all"`` with the weights "constant" and
        "density": the margin of an input is then the distance to the closest change of the label
        that this attack finds within the largest radius, as in `MarginRobustness`. None is by
        random points.
    norm : {"linf", "l2"} or None, default="linf"
        Norm of the balls. None, for a callable `neighborhood` alone: all of its points count,
        whose scale the radius then is.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs.
    scale : None, "std", float or array-like of shape (n_features,), default=None
        Units of the features, in which `epsilons` are; see `MarginRobustness`.
    reference : {"prediction", "label"}, default="prediction"
        The label that points must have to count: the classifier's own label of the sample, as in
        the paper, where robustness does not depend on accuracy; or the true label.
    n_samples : int, default=100
        Points drawn in each ball, by "uniform", "class-uniform" and callables.
    n_inputs : int or None, default=None
        Uniform inputs of ``weight="constant"``, at least 2 where margins are computed; None is as
        many as there are rows of `X`.
    batch_size : int, default=1024
        Points that the estimator sees at a time; bounds the memory.
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

    Raises
    ------
    ValueError
        By `evaluate`, for parameters or data that do not fit, or what a callable returns.
    TypeError
        By `evaluate`, for callables that return no real numbers, and where an attack needs
        gradients that the classifier has not.

    Notes
    -----
    Three procedures estimate the scores. The paper has the first for R1 and R2, the second for
    R4, and none for its examples 3 and 5.

    - *Margins* (Definition 3, equations 5, 10, 11), with ``transform="all"`` and the weights
      "constant" and "density": the mean distance to the closest change of the label, the
      largest radius where there is none. It comes from an `attack`, which gives it from above;
      or, for "data" and "class-data", from the closest row of another label, which is exact for
      the empirical distribution.
    - *Means* (equations 8 and 9), with "inverse", "radii" and callables.
    - *Integrals* of shares by the trapezoidal rule over `epsilons`, otherwise. With
      ``transform="all"`` random points miss small regions of another label, so that this is an
      estimate from above, the more so in many dimensions.

    A ball without any point that counts has the share 1, a reading: the sample itself lies in
    it. A tie of the two largest outputs is no robust prediction to an attack: margin 0.

    With 64 features or more, the points around some 64 samples at a time share random numbers,
    since fresh ones would cost as much as a small network. Each share is that of independent
    points; points of different samples are not independent.

    References
    ----------
    Tibo, Jaeger, Larsen, "A general framework for defining and optimizing robustness",
    arXiv:2006.11122, Definitions 1 to 3, Examples 1 to 5, and equations 5, 8 and 9.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.scorers import RobustnessScore
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RandomForestClassifier(10, random_state=0).fit(X[:1000], y[:1000])
    >>> scorer = RobustnessScore.preset("uniform-share", 0.2, random_state=0)
    >>> 0.5 < scorer(model, X[1000:1100]) < 1
    True

    The closest image to which this forest gives another digit, on average, in L2:

    >>> scorer = RobustnessScore.preset("example-3")
    >>> result = scorer.evaluate(model, X[1000:1100])
    >>> scorer.type, 1 < result.score < 8, 0 < result.normalized < 1
    (2, True, True)
    """

    def __init__(
        self,
        neighborhood="uniform",
        transform="identity",
        weight="radii",
        epsilons=0.1,
        *,
        attack=None,
        norm="linf",
        bounds=(0.0, 1.0),
        scale=None,
        reference="prediction",
        n_samples=100,
        n_inputs=None,
        batch_size=1024,
        confidence=0.95,
        chunk_size=1024,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.neighborhood = neighborhood
        self.transform = transform
        self.weight = weight
        self.epsilons = epsilons
        self.attack = attack
        self.norm = norm
        self.bounds = bounds
        self.scale = scale
        self.reference = reference
        self.n_samples = n_samples
        self.n_inputs = n_inputs
        self.batch_size = batch_size
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    @classmethod
    def preset(cls, name, epsilons=None, **params):
        """Return one of the paper's scores, or of three more.

        Parameters
        ----------
        name : str
            Of the paper, in L2, and over all radii up to the diameter of `bounds`:

            - "R1" (example 1, type 1): the mean margin of inputs that are uniform in `bounds`,
              by attacks.
            - "R2" (example 2, type 2): the mean margin of the data, by attacks; see
              `MarginRobustness`.
            - "R4" (example 4, type 2): the share of the other data in the ball that has the
              label, divided by the radius; `ManifoldRobustness` draws them by an autoencoder.
            - "example-3" (type 2): the mean distance to the closest of the data with another
              label.
            - "example-5-data" (type 3): likewise of the same true label; "example-5-uniform":
              by uniform points of the same true label.

            Of this library:

            - "success-rate": share of samples whose label no uniform point of the ball changes;
              an attack's success rate is one minus it.
            - "uniform-share": share of uniform points of the ball that have the label.
            - "class-share": as "R4", of points of the same class.
        epsilons : float or array-like of shape (n_epsilons,), default=None
            Radii in units of the input; None is all up to the diameter for the paper's scores
            (see `epsilons` of the class), and the default of the class for the others.
        **params
            Further parameters of the class; `neighborhood` too may be given, such as a
            generative model. The preset's attack is left out where these leave no place for one.

        Returns
        -------
        RobustnessScore

        Raises
        ------
        ValueError
            If there is no preset of that name.
        """
        check_choice("name", name, tuple(_PRESETS))
        preset = dict(_PRESETS[name])
        attack = preset.pop("attack", None)
        radii = {} if epsilons is None else {"epsilons": epsilons}
        scorer = cls(**(preset | radii | params))
        # Not where what was given leaves no place for it: nobody asked for that attack.
        if attack is not None and "attack" not in params and scorer._has_place_for_attack():
            scorer.attack = attack()
        return scorer

    @property
    def type(self):
        """What the score depends on: 1 the classifier, 2 and the inputs, 3 and the true labels.

        A callable is taken to depend on the distribution of the inputs.
        """
        by_class = isinstance(self.neighborhood, str) and self.neighborhood.startswith("class")
        if by_class or self.reference == "label":
            return 3
        is_uniform = isinstance(self.neighborhood, str) and self.neighborhood == "uniform"
        is_constant = isinstance(self.weight, str) and self.weight == "constant"
        return 1 if is_uniform and is_constant else 2

    def check(self):
        """Validate the parameters; return self."""
        names = {"neighborhood": _NEIGHBORHOODS, "transform": TRANSFORMS, "weight": WEIGHTS}
        for name, choices in names.items():
            value = getattr(self, name)
            if not callable(value):
                check_choice(name, value, tuple(choices))
        if self.epsilons is not None:
            check_radii("epsilons", self.epsilons)
        if not (self.norm is None and callable(self.neighborhood)):
            check_choice("norm", self.norm, ("linf", "l2"))
        check_bounds(self.bounds)
        if self.scale is not None and callable(self.neighborhood):
            expectation = "None, since points of a callable neighborhood are in raw units"
            raise ValueError(expected("scale", self.scale, expectation))
        check_choice("reference", self.reference, ("prediction", "label"))
        check_integer("n_samples", self.n_samples, low=1)
        check_integer("batch_size", self.batch_size, low=1)
        if self.n_inputs is not None:
            is_by_margins = self._is("weight", "constant") and (
                self.attack is not None or self._is("neighborhood", "data")
            )
            needs_interval = self._is("transform", "all") and is_by_margins
            check_integer("n_inputs", self.n_inputs, low=2 if needs_interval else 1)
        if self.attack is not None:
            check_instance("attack", self.attack, Attack, "Ensemble()").check()
            if not self._has_place_for_attack():
                expectation = (
                    "None, or neighborhood='uniform' with transform='all' and weight='density' "
                    "or 'constant'"
                )
                raise ValueError(expected("attack", self.attack, expectation))
        if self._is("weight", "constant") and self.type == 3:
            expectation = "another one, since uniform inputs have no true labels"
            raise ValueError(expected("weight", self.weight, expectation))
        self._check_common()
        return self

    def _is(self, name, *values):
        """Tell whether a parameter is one of the given names, and no callable."""
        value = getattr(self, name)
        return isinstance(value, str) and value in values

    def _is_worst_case(self):
        return self._is("transform", "all") and self._is("weight", *_INTEGRALS)

    def _has_place_for_attack(self):
        return self._is_worst_case() and self._is("neighborhood", "uniform")

    def evaluate(self, estimator, X, y=None):
        """Return a `RobustnessScoreResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier with `predict`; of a kind that `skrobust.networks.as_network`
            supports where an attack needs gradients.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, for ``reference="label"``, "class-data" and "class-uniform".

        Returns
        -------
        RobustnessScoreResult
        """
        self.check()
        data = self._sample(
            estimator,
            X,
            y,
            needs_gradient=self.attack is not None and self.attack.needs_gradient,
            needed_by=self._needs_labels(),
        )
        n_features = data.rows.shape[1]
        bounds = check_bounds(self.bounds, n_features)
        check_within_bounds(data.rows, bounds)
        raw, scale = data.rows, check_scale(self.scale, estimator, n_features)
        if scale is not None:
            units = Units.of(data.model, scale, bounds)
            data = Sample(units.model(data.model), units.rows(raw), data.labels)
            bounds = units.scaled_bounds
        if self.epsilons is None:
            largest = diameter("epsilons", None, bounds, self.norm or "l2", n_features)
            epsilons = even_radii(largest)
        else:
            epsilons = check_radii("epsilons", self.epsilons)
        inputs = self._uniform_inputs(data, bounds) if self._is("weight", "constant") else data
        if self._is_worst_case():
            if self.attack is not None:
                return self._by_attack(inputs, epsilons, bounds)
            if self._is("neighborhood", "data", "class-data"):
                return self._by_closest_row(inputs, self._source(data, bounds), epsilons)
        measure = partial(
            _shares,
            source=self._source(data, bounds),
            epsilons=tuple(epsilons.tolist()),
            norm=self.norm,
            reference=self.reference,
            batch_size=int(self.batch_size),  # a small NumPy integer from a grid would overflow
        )
        arrays = self._in_chunks(measure, inputs)
        raw = raw if inputs is data else inputs.rows
        weights = weights_of(self.weight, raw, epsilons)
        return result_of_shares(self.transform, weights, epsilons, self.confidence, **arrays)

    def _needs_labels(self):
        """Say what needs true labels; nothing if nothing does."""
        if self.reference == "label":
            return BY_LABEL.format("scorer")
        if self._is("neighborhood", "class-data", "class-uniform"):
            return f"the scorer has neighborhood={self.neighborhood!r}"
        return ""

    def _uniform_inputs(self, data, bounds):
        """Return inputs that are uniform in the bounds, without labels."""
        n_features = data.rows.shape[1]
        if bounds is None or not all(np.isfinite(bound).all() for bound in bounds):
            expectation = "finite bounds, for inputs that are uniform in them (weight='constant')"
            raise ValueError(expected("bounds", self.bounds, expectation))
        n_inputs = len(data) if self.n_inputs is None else int(self.n_inputs)
        random = np.random.default_rng(check_seed(self.random_state).randint(2**31 - 1))
        rows = random.uniform(*bounds, (n_inputs, n_features)).astype(data.rows.dtype)
        return Sample(data.model, rows, None)

    def _source(self, data, bounds):
        """Return where the points come from, a `PointSource`."""
        n_samples, batch_size = int(self.n_samples), int(self.batch_size)
        if callable(self.neighborhood):
            classes = data.model.classes
            return GeneratedSource(self.neighborhood, classes, n_samples, batch_size)
        if self._is("neighborhood", "uniform"):
            return UniformSource(n_samples, batch_size, bounds)
        if self._is("neighborhood", "class-uniform"):
            labeled = data.rows, data.labels
            return UniformSource(n_samples, batch_size, bounds, labeled)
        predicted = predicted_classes(data.model, data.rows, batch_size)
        labels = data.labels if self._is("neighborhood", "class-data") else None
        holds_samples = not self._is("weight", "constant")
        return NeighborSource(data.rows, predicted, labels, holds_samples)

    def _by_attack(self, inputs, epsilons, bounds):
        ball = {"norm": self.norm, "bounds": bounds, "reference": self.reference}
        property = ClassificationRobustness(float(epsilons[-1]), **ball)
        if self.reference == "prediction":
            inputs = Sample(inputs.model, inputs.rows, None)
        measure = partial(closest_changes, property=property, attack=self.attack)
        return result_of_margins(
            self._in_chunks(measure, inputs)["radius"], epsilons, self.confidence
        )

    def _by_closest_row(self, inputs, source, epsilons):
        measure = partial(
            _closest_row,
            source=source,
            norm=self.norm,
            reference=self.reference,
            batch_size=int(self.batch_size),
        )
        return result_of_margins(
            self._in_chunks(measure, inputs)["radius"], epsilons, self.confidence
        )


def _references(model, rows, labels, reference, batch_size):
    """Return the samples with the label that each must keep."""
    predicted = torch.as_tensor(predicted_classes(model, rows, batch_size), device=model.device)
    wanted = predicted
    if reference == "label":
        wanted = torch.as_tensor(labels, device=model.device)
    return References(rows, labels, wanted, agree=predicted == wanted)


def _shares(model, rows, labels, seed, *, source, epsilons, norm, reference, batch_size):
    """Return for each row and radius the share of points in the ball that have its label."""
    references = _references(model, rows, labels, reference, batch_size)
    n_kept, n_points = source.count(model, references, epsilons, norm, seed)
    return {
        "at_zero": references.agree.double().cpu().numpy(),
        "shares": np.where(n_points > 0, n_kept / np.maximum(n_points, 1), 1.0),
        "n_points": n_points,
    }


def _closest_row(model, rows, labels, seed, *, source, norm, reference, batch_size):
    """Return the distance to the closest row of the data that does not keep the label."""
    references = _references(model, rows, labels, reference, batch_size)
    return {"radius": source.closest_change(references, norm)}
