"""Training at points of the data manifold near the inputs, which an autoencoder gives."""

import copy
from dataclasses import dataclass, replace

import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skrobust._keys import digest
from skrobust._parameters import DefaultParts
from skrobust._validation import (
    check_bounds,
    check_choice,
    check_instance,
    check_integer,
    check_real,
    check_within_bounds,
    expected,
)
from skrobust.attacks import PGD, Attack
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import LatentSpace
from skrobust.properties import ClassificationRobustness
from skrobust.training._adversarial import loss_at_both
from skrobust.training._base import TrainingRegime
from skrobust.training._divergence import cross_entropy

__all__ = ["OnManifoldTraining"]


class OnManifoldTraining(DefaultParts, TrainingRegime):
    r"""Train for what an autoencoder decodes near the code of each input to keep its label.

    With ``method="R4"`` the loss is that of the task minus `weight` x the robustness R4 of Tibo
    et al., in which minus the cross-entropy of the probabilities at both points stands for the
    indicator of the same label:

    .. math:: L = \mathrm{CE}(f(x), y) + \lambda \frac{1}{|\Sigma|} \sum_{\epsilon \in \Sigma}
              \frac{1}{\epsilon |S_\epsilon(x)|} \sum_{x' \in S_\epsilon(x)}
              \mathrm{CE}(f(x), f(x'))

    Here S(x) are `n_points` points :math:`\mathrm{dec}(\mathrm{enc}(x) + \sigma e)`, drawn anew at
    each step, :math:`\Sigma` their L2 distances from x, and :math:`S_\epsilon(x)` those no farther
    than :math:`\epsilon`. `~skrobust.scorers.ManifoldRobustness` scores the same.

    With ``method="adversarial"`` it is the loss of the task, at x and at the worst point whose
    code is close, after Stutz et al.:

    .. math:: \max_{\|\zeta\|_\infty \leq \eta}
              \mathrm{CE}(f(\mathrm{dec}(\mathrm{enc}(x) + \zeta)), y)

    Parameters
    ----------
    autoencoder : object
        An `~skrobust.estimators.Autoencoder`, a PCA of scikit-learn, one of these in a
        `~sklearn.frozen.FrozenEstimator`, or a `torch.nn.Module` with ``encode`` and ``decode``;
        for "R4" also any other object with ``encode`` and ``decode``, or with ``transform`` and
        ``inverse_transform``. One that has `fit`, and is not fitted, is fitted as a copy to the
        training data, at the start of training. It does not change while the classifier trains.
    method : {"R4", "adversarial"}, default="R4"
        What is trained for.
    weight : float, default=1.0
        :math:`\lambda` of "R4", in units of the input. Best chosen on held-out data, as in a
        `~sklearn.model_selection.GridSearchCV` over ``training__weight``. Of 0.03, 0.1, 0.3, 1, 2
        and 3, the default raised R4 of held-out digits the most at a cost in accuracy of about one
        point.
    sigma : float, default=0.06
        Scale of the noise of "R4", in units of the codes; the default is that of the paper, where
        codes are about standard normal, as those of ``Autoencoder(loss="wasserstein")``.
    n_points : int, default=10
        Points of "R4" for each input and step.
    min_distance : float, default=0.01
        Distances of "R4" that are shorter count as this long, since 1 / distance has no bound.
    eta : float, default=0.3
        Radius of "adversarial", in units of the codes.
    attack : Attack or None, default=None
        What looks for the worst code in "adversarial". None is PGD of 10 steps on the
        cross-entropy.
    clean_weight : float, default=0.5
        Weight, in [0, 1], of the loss at the inputs themselves in "adversarial"; the points that
        were found have the rest.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs, which decoded points are clipped to.

    Notes
    -----
    The papers leave open, and these are readings: the term is subtracted as in equation 7 of Tibo
    et al., which with the indicator replaced is an added cross-entropy; the first argument of the
    cross-entropy is f(x), and gradients flow through both (through f(x') alone, R4 of held-out
    digits did not rise); :math:`\Sigma` are the distances of
    the points (a ball always holds one); `min_distance`, and how points are clipped. Stutz et
    al. learn a decoder for each class, so that no point changes its true label; here one decoder
    serves all, and a large `eta` may reach another class.

    A fitted autoencoder is copied with the regime, fitted as it is: a search does not fit it
    again, and cannot set its parameters. In `partial_fit`, what was fitted in the first call
    stays, unless the parameter is another object since, or has other parameters. The one that was
    used is the classifier's ``companion_``.

    No property is trained for; one that the classifier has is not used.

    References
    ----------
    Tibo, Jaeger, Larsen, "A general framework for defining and optimizing robustness",
    arXiv:2006.11122, equations 7, 8, 9 and 13, and section 7.

    Stutz, Hein, Schiele, "Disentangling adversarial robustness and generalization", CVPR 2019.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.training import OnManifoldTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> codes = PCA(10, whiten=True)
    >>> for method in ("R4", "adversarial"):
    ...     training = OnManifoldTraining(codes, method=method)
    ...     model = RobustClassifier(training=training, max_epochs=5, random_state=0)
    ...     print(model.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.7)
    True
    True
    """

    _fitted_with = None  # key of the parameters of a fitted autoencoder, where this is a clone

    def __init__(
        self,
        autoencoder,
        *,
        method="R4",
        weight=1.0,
        sigma=0.06,
        n_points=10,
        min_distance=0.01,
        eta=0.3,
        attack=None,
        clean_weight=0.5,
        bounds=(0.0, 1.0),
    ):
        self.autoencoder = autoencoder
        self.method = method
        self.weight = weight
        self.sigma = sigma
        self.n_points = n_points
        self.min_distance = min_distance
        self.eta = eta
        self.attack = attack
        self.clean_weight = clean_weight
        self.bounds = bounds

    def __sklearn_clone__(self):
        copies = {name: clone(p, safe=False) for name, p in self.get_params(deep=False).items()}
        is_fitted = _is_fitted(self.autoencoder)
        if is_fitted:  # a clone of it would no longer be fitted
            copies["autoencoder"] = copy.deepcopy(self.autoencoder)
        made = type(self)(**copies)
        if is_fitted:
            made._fitted_with = self._fitted_with or _key(self.autoencoder)
        return made

    def _default_parts(self):
        return {"attack": PGD(10, objective="cross-entropy")}

    def check(self, property, X, n_classes=2):
        check_choice("method", self.method, ("R4", "adversarial"))
        check_real("weight", self.weight, low=0)
        check_real("sigma", self.sigma, low=0, closed="neither")
        check_integer("n_points", self.n_points, low=1)
        check_real("min_distance", self.min_distance, low=0, closed="neither")
        check_real("eta", self.eta, low=0, high=torch.finfo(torch.float32).max)
        check_real("clean_weight", self.clean_weight, low=0, high=1)
        check_instance("attack", self._part("attack"), Attack, "PGD(n_steps=10)").check()
        bounds = check_bounds(self.bounds, X.shape[1])
        check_within_bounds(X, bounds)
        latent = LatentSpace(self.autoencoder, bounds)
        if _is_fitted(self.autoencoder):
            self._check_key(self._fitted_with)
            self._check_latent(latent, X[:1])

    def _check_key(self, key):
        """Refuse an autoencoder whose parameters are not those that it was fitted with."""
        if key not in (None, _key(self.autoencoder)):
            raise ValueError(
                expected(
                    "autoencoder",
                    self.autoencoder,
                    "one that is not fitted, where its parameters are set after it was fitted, as "
                    "in a search over them",
                )
            )

    def _check_latent(self, latent, X):
        """Refuse an autoencoder of other rows, or one that the method cannot use."""
        latent.check_rows(X)
        if self.method == "adversarial" and latent.module is None:
            raise UnsupportedModelError(
                expected(
                    "autoencoder",
                    self.autoencoder,
                    "one with gradients for method='adversarial': an Autoencoder, a PCA, or a "
                    "torch.nn.Module with encode and decode",
                )
            )

    def start(self, fit):
        rows, previous = fit.X.numpy(), fit.previous
        key = _key(self.autoencoder)
        is_same = isinstance(previous, _Manifold) and previous.given is self.autoencoder
        if is_same and previous.key == key:
            autoencoder = previous.latent.autoencoder
        elif _is_fitted(self.autoencoder):
            self._check_key(previous.key if is_same else None)
            # A copy, since modules are put in evaluation mode, maybe in several threads.
            autoencoder = copy.deepcopy(self.autoencoder)
        else:
            autoencoder = _seeded(clone(self.autoencoder), fit.random_state).fit(rows)
            if getattr(getattr(autoencoder, "net_", None), "stopped_midway", False):
                raise KeyboardInterrupt  # which its own training has kept to itself
        n_features = rows.shape[1]
        latent = LatentSpace(autoencoder, check_bounds(self.bounds, n_features))
        self._check_latent(latent, rows[:1])
        return _Manifold(latent, n_features, self.autoencoder, key)

    def finish(self, state):
        return state.latent.autoencoder

    def loss(self, state, step):
        if self.method == "R4":
            return self._r4_loss(state, step)
        x = state.worst_points(step, self._part("attack"), self.eta)
        return loss_at_both(step, x, self.clean_weight)

    def _r4_loss(self, state, step):
        points = state.noisy_points(step.x, self.sigma, int(self.n_points), step.generator)
        distances = torch.linalg.vector_norm(points - step.x.unsqueeze(1), dim=2)
        weights = radius_weights(distances, self.min_distance)
        logits = step.module(torch.cat([step.x, points.flatten(0, 1)]))
        clean, near = logits[: len(step.x)], logits[len(step.x) :]
        task = step.task_loss(clean)  # refuses outputs of a wrong kind, by name
        disagreement = cross_entropy(clean.unsqueeze(1), near.reshape(*weights.shape, -1))
        return task + self.weight * step.mean((weights * disagreement).sum(dim=1)), clean


@dataclass(eq=False)
class _Manifold:
    """The points that an autoencoder decodes near the codes of rows; the state of the regime."""

    latent: LatentSpace
    n_features: int
    given: object = None  # the parameter that the autoencoder was made of
    key: str | None = None  # of the parameters of that

    @torch.no_grad()
    def noisy_points(self, x, sigma, n_points, generator):
        """Return points decoded from codes with normal noise, of shape (n, n_points, n_features).

        Equation 13 of Tibo et al.
        """
        codes = self.latent.encode(x).unsqueeze(1)
        shape = (len(x), n_points, *codes.shape[2:])
        noise = torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)
        noisy = codes + sigma * noise
        if not torch.isfinite(noisy).all():
            raise ValueError(expected("sigma", sigma, f"codes in the range of {x.dtype}"))
        decoded = self.latent.decode(noisy.flatten(0, 1), self.n_features)
        return decoded.view(len(x), n_points, -1)

    def worst_points(self, step, attack, eta):
        """Return the points of shape (n, n_features) that an attack on the codes ends at."""
        codes = self.latent.encode(step.x)
        shape, rows = codes.shape[1:], codes.reshape(len(codes), -1)
        through = _Through(self.latent, shape, self.n_features, step.module)
        property = ClassificationRobustness(eta, bounds=None)
        found = replace(step, module=through, x=rows).attack(attack, property)
        with torch.no_grad():
            return through.decoded(found)


class _Through(torch.nn.Module):
    """A classifier of what codes, as rows, stand for."""

    def __init__(self, latent, code_shape, n_features, module):
        super().__init__()
        self.latent, self.code_shape, self.n_features = latent, code_shape, n_features
        self.classifier = module

    def decoded(self, rows):
        return self.latent.decode(rows.reshape(-1, *self.code_shape), self.n_features)

    def forward(self, rows):
        return self.classifier(self.decoded(rows))


def radius_weights(distances, min_distance):
    r"""Return what each point counts in equations 8 and 9 with the distances as radii.

    With K points at distances d, the point j has the weight
    :math:`\frac{1}{K} \sum_{k: d_k \geq d_j} \frac{1}{d_k |\{i: d_i \leq d_k\}|}`.

    Parameters
    ----------
    distances : Tensor of shape (n, K)
    min_distance : float
        Shorter distances count as this.

    Returns
    -------
    Tensor of shape (n, K)
    """
    radii, order = distances.clamp(min=min_distance).sort(dim=1)
    n_within = torch.searchsorted(radii, radii, right=True)
    terms = 1 / (radii * n_within * radii.shape[1])
    beyond = terms.flip(1).cumsum(dim=1).flip(1)
    # Points at one distance lie in the same balls, so the first of them has the sum of all.
    beyond = beyond.gather(1, torch.searchsorted(radii, radii))
    return torch.empty_like(radii).scatter(1, order, beyond)


def _key(autoencoder):
    """Return what tells parameters of an autoencoder from others; None where it has none."""
    return digest(autoencoder.get_params()) if hasattr(autoencoder, "get_params") else None


def _is_fitted(autoencoder):
    """Return whether an autoencoder needs no `fit`: it has none, or it was called."""
    if isinstance(autoencoder, type) or not callable(getattr(autoencoder, "fit", None)):
        return True
    try:
        check_is_fitted(autoencoder)
    except NotFittedError:
        return False
    except TypeError:  # no estimator of scikit-learn's
        return True
    return True


def _seeded(autoencoder, random_state):
    """Give an estimator that has a `random_state` of None a seed of the fit's own."""
    params = autoencoder.get_params() if hasattr(autoencoder, "get_params") else {}
    seeds = {
        name: random_state.randint(2**31 - 1)
        for name, value in sorted(params.items())
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    return autoencoder.set_params(**seeds) if seeds else autoencoder
