"""Training on bounds of the outputs, so that verifiers can prove what was learned."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from torch.nn import functional

from skrobust._validation import check_choice, check_integer, check_real
from skrobust.attacks import PGD
from skrobust.balls import Ball
from skrobust.bounds import crown, interval_rows, relax
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.graphs import LiveReader
from skrobust.training._base import PropertyRegime
from skrobust.training._decay import RateDecay, check_decay
from skrobust.training._short_warmup import imbalance, initialize

__all__ = ["CertifiedTraining"]

_METHODS = ("ibp", "crown-ibp", "sabr", "mtl-ibp", "cc-ibp")
_EXPRESSIVE = ("sabr", "mtl-ibp", "cc-ibp")
_SMOOTH_PART = 0.25  # of a smooth ramp, as in Xu et al.


class CertifiedTraining(PropertyRegime):
    r"""Minimize the loss of the worst outputs that bounds allow, or of points between.

    Intervals of the features are propagated through the module, with gradients, to lower bounds
    of the property's rows. With :math:`l_j` for these, the loss is
    :math:`L(l) = \log(1 + \sum_j e^{-l_j})`. For classification that is the cross-entropy of the
    worst case. Both the radius and the weight of that loss grow over the first epochs.

    Bounds over the whole ball cost accuracy. The last three methods lie between adversarial
    training (`alpha` = 0) and that loss (`alpha` = 1); what they train is often proved by
    `~skrobust.verification.Exact`, and not by intervals.

    Parameters
    ----------
    method : {"ibp", "crown-ibp", "sabr", "mtl-ibp", "cc-ibp"}, default="ibp"
        With :math:`a` for the rows at the point that an attack ends at:

        - "ibp": :math:`L(l)`, by intervals;
        - "crown-ibp": the same, of a mix of bounds by intervals with those by lines below and
          above each unit (CROWN, on the same intervals), whose share falls from 1 to 0 while the
          radius grows. It is slower in these epochs, about by the number of rows;
        - "sabr": :math:`L(l)` over a small box, of `alpha` times the radius, around the point
          that an attack finds in a ball smaller by that much;
        - "mtl-ibp": :math:`(1 - \alpha) L(a) + \alpha L(l)`;
        - "cc-ibp": :math:`L((1 - \alpha) a + \alpha l)`.
    alpha : float, default=0.5
        The share, in [0, 1], of bounds in the last three (over-approximation coefficient; the
        subselection ratio of SABR). The others do not read it.
    attack : Attack or None, default=None
        Of the last three. None is PGD of 8 steps on the cross-entropy.
    ramp_epochs : int, default=10
        Epochs over which the radius grows, and the weight of the loss at the inputs themselves
        falls from 1 to `clean_weight`. About a third of all epochs is a good choice.
    ramp : {"linear", "smooth"}, default="linear"
        "linear" rises in equal steps, one an epoch. "smooth" rises at each batch: by the fourth
        power of time at first, and linearly after a quarter of it.
    clean_weight : float or None, default=None
        Weight, in [0, 1], of the loss at the inputs themselves after that. A larger one is more
        accurate, and less can be proved. None is 0.5 for the first two methods, and 0 for the
        others, which have `alpha`.
    radius_factor : float, default=1.0
        The radius that is trained for, relative to that of the property. Somewhat more than 1
        often proves more at the radius itself.
    initialization : {"unchanged", "ibp"}, default="unchanged"
        "ibp" starts all affine layers but the last with normal weights of the standard deviation
        :math:`\sqrt{2 \pi} / n`, for n inputs of a unit: intervals then keep their widths, layer
        by layer. It pays in deep networks. Pretrained weights are lost by it.
    ramp_regularization : float, default=0.0
        Weight of what asks, while the radius grows, for intervals that do not widen and for as
        many active as inactive units (0.5 in the paper). It falls to 0 with the ramp.
    l1 : float, default=0.0
        Weight of the sum of the absolute weights of affine layers (1e-6 to 1e-5 in De Palma et
        al.).
    decay : {"cosine", "none"}, default="cosine"
        How the classifier's learning rate falls to 0 in the epochs after the ramp. Where a
        callback has a scheduler of torch, the rate is left to that; where a callback sets the
        rate on the way, as one with ReduceLROnPlateau does, from then on.
    property : RobustnessProperty or None, default=None
        What is proved, in the L-infinity norm; the classifier's own property if None. Rows that
        depend on the distance (Lipschitz robustness) have no bound of this kind.

    Warns
    -----
    ConvergenceWarning
        If `ramp_epochs` are more than the epochs of training, which ends at a smaller radius.

    Notes
    -----
    The module may consist of what `skrobust.graphs.read_live` reads: linear and convolutional
    layers, batch norm, pooling, ReLU and its kin, tanh, sigmoid, GELU, SiLU, softplus, ELU and
    its kin, views, sums, and products with constants. `Bounds("ibp")` proves what "ibp" trains
    for. Training does without what proofs add for rounding, and stays in the dtype of the module.
    Batch norm between affine layers and ReLU, as Shi et al. advise, is a matter of the module;
    bounds take the statistics of the batch itself.

    References
    ----------
    Gowal et al., "On the effectiveness of interval bound propagation for training verifiably
    robust models", 2018. Zhang et al., "Towards stable and efficient training of verifiably
    robust neural networks", ICLR 2020 (CROWN-IBP). Müller et al., "Certified training: small
    boxes are all you need", ICLR 2023 (SABR). De Palma et al., "Expressive losses for verified
    robustness via convex combinations", ICLR 2024 (MTL-IBP, CC-IBP). Shi et al., "Fast certified
    robust training with short warmup", NeurIPS 2021 (initialization and regularization). Xu et
    al., "Automatic perturbation analysis for scalable certified robustness and beyond", NeurIPS
    2020 (the smooth ramp).

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.training import CertifiedTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RobustClassifier(
    ...     property=ClassificationRobustness(0.05), training=CertifiedTraining(ramp_epochs=8),
    ...     max_epochs=15, lr=0.01, random_state=0,
    ... ).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.8
    True
    """

    def __init__(
        self,
        method="ibp",
        *,
        alpha=0.5,
        attack=None,
        ramp_epochs=10,
        ramp="linear",
        clean_weight=None,
        radius_factor=1.0,
        initialization="unchanged",
        ramp_regularization=0.0,
        l1=0.0,
        decay="cosine",
        property=None,
    ):
        self.method = method
        self.alpha = alpha
        self.attack = attack
        self.ramp_epochs = ramp_epochs
        self.ramp = ramp
        self.clean_weight = clean_weight
        self.radius_factor = radius_factor
        self.initialization = initialization
        self.ramp_regularization = ramp_regularization
        self.l1 = l1
        self.decay = decay
        self.property = property

    def check(self, property, X, n_classes=2):
        check_choice("method", self.method, _METHODS)
        check_real("alpha", self.alpha, low=0, high=1)
        check_integer("ramp_epochs", self.ramp_epochs)
        check_choice("ramp", self.ramp, ("linear", "smooth"))
        if self.clean_weight is not None:
            check_real("clean_weight", self.clean_weight, low=0, high=1)
        check_real("radius_factor", self.radius_factor, low=0, closed="neither")
        check_choice("initialization", self.initialization, ("unchanged", "ibp"))
        check_real("ramp_regularization", self.ramp_regularization, low=0)
        check_real("l1", self.l1, low=0)
        check_decay(self.decay)
        super().check(property, X, n_classes)
        trained_for = self.trained_property(property)
        if trained_for.norm != "linf":
            raise UnsupportedPropertyError(
                f"Got norm={trained_for.norm!r}, but CertifiedTraining expects norm='linf'."
            )
        # Rows that do not fit the number of classes are seen before training.
        linear_rows(trained_for.trial(n_classes), trained_for, self)

    def _default_parts(self):
        return {"attack": PGD(8, objective="cross-entropy")}

    def start(self, fit):
        if fit.epoch == 0:
            n_epochs = max(fit.max_epochs, fit.n_epochs)
            if n_epochs < self.ramp_epochs:
                share = n_epochs / self.ramp_epochs
                warnings.warn(
                    f"Got ramp_epochs={self.ramp_epochs} and max_epochs={n_epochs}: training ends "
                    f"at {share:.0%} of the radius. Train longer, or set ramp_epochs to about a "
                    "third of the epochs.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
            if self.initialization == "ibp":
                initialize(fit.module, fit.generator)
        super().start(fit)
        return _State(RateDecay(self.decay, fit, hold=self.ramp_epochs))

    def loss(self, state, step):
        property = self.trained_property(step.property)
        ramp = self._ramped(step)
        weight = 1 - ramp * (1 - self._clean_weight())
        state = _State() if state is None else state  # for a step without a fit
        state.decay.apply(step)
        wide = state.wide(property, ramp * self.radius_factor)
        graph, logits = state.read(step.module, step.x)
        labels = property.reference_labels(logits.detach(), step.labels)
        conclusion = property.conclusion(logits, labels)
        rows = linear_rows(conclusion, property, self)

        def loss_of(lower):
            gaps = conclusion.gaps(lower + rows.b)
            return step.mean(torch.logsumexp(functional.pad(-gaps, (1, 0)), dim=1))

        points = self._points(state, step, wide)
        ball = state.reach(wide, step.x).around(step.x)
        if self.method == "sabr":
            ball = _small_boxes(ball, points, self.alpha)
        share = 1 - ramp if self.method == "crown-ibp" else 0.0
        relaxation = _relaxed(graph, ball, share)
        lower = _lower_rows(relaxation, rows.A, share)
        if self.method in ("mtl-ibp", "cc-ibp"):
            # By the same graph, so that the statistics of batch norm are those of the bounds.
            attacked = (rows.A @ graph(points).unsqueeze(2)).squeeze(2)
        if self.method == "mtl-ibp":
            worst = (1 - self.alpha) * loss_of(attacked) + self.alpha * loss_of(lower)
        elif self.method == "cc-ibp":
            worst = loss_of((1 - self.alpha) * attacked + self.alpha * lower)
        else:
            worst = loss_of(lower)
        loss = weight * step.task_loss(logits) + (1 - weight) * worst
        if self.ramp_regularization and ramp < 1:
            loss = loss + self.ramp_regularization * (1 - ramp) * imbalance(relaxation)
        if self.l1:
            loss = loss + self.l1 * sum(w.abs().sum() for w in _weights(step.module))
        return loss, logits

    def finish(self, state):
        state.decay.finish()

    def _clean_weight(self):
        if self.clean_weight is not None:
            return self.clean_weight
        return 0.0 if self.method in _EXPRESSIVE else 0.5

    def _ramped(self, step):
        """Return the share of the radius that this step trains for, in (0, 1]."""
        if self.ramp == "linear" or self.ramp_epochs == 0:
            return step.ramp(self.ramp_epochs)
        time = (step.epoch + (step.batch + 1) / step.n_steps) / self.ramp_epochs
        return _smoothly(min(time, 1.0))

    def _points(self, state, step, property):
        """Return the points that the attack ends at, or None where no loss asks for them."""
        if self.method not in _EXPRESSIVE:
            return None
        if self.method == "sabr":
            property = state.attacked(property, 1 - self.alpha)
        is_needed = self.alpha < 1
        return step.attack(self._part("attack"), property) if is_needed else step.x


class _State:
    """What a call keeps beside the module.

    Parameters
    ----------
    decay : RateDecay, default=None
        One that changes nothing if None.
    """

    def __init__(self, decay=None):
        self.decay = RateDecay() if decay is None else decay
        self.read, self.wide, self.attacked = LiveReader(), _Shrunk(), _Shrunk()
        self._reach = (None, None)

    def reach(self, property, x):
        """Return the `_Reach` of a property, which is made once."""
        if self._reach[0] is not property:
            self._reach = (property, _Reach(property, x))
        return self._reach[1]


class _Shrunk:
    """A property at a share of its radius, which is made anew when one of them has changed."""

    def __init__(self):
        self._property = self._epsilon = self._share = self._made = None

    def __call__(self, property, share):
        is_same = self._property is property and self._epsilon is property.epsilon
        if not (is_same and self._share == share):
            self._property, self._epsilon, self._share = property, property.epsilon, share
            self._made = property.shrunk(share)
        return self._made


class _Reach:
    """How far the balls of a property go, without the care for last digits that proofs take."""

    def __init__(self, property, x):
        like = {"dtype": x.dtype, "device": x.device}
        sides = [torch.as_tensor(side, **like) for side in property.sides(x.shape[1])]
        self.epsilon, self.norm = torch.maximum(*sides), property.norm
        self.down, self.up = map(_number, sides)
        valid = property.box(x.shape[1])
        ends = (None, None) if valid is None else [torch.as_tensor(end, **like) for end in valid]
        self.low, self.high = map(_number, ends)

    def around(self, x):
        """Return the balls around rows."""
        lower, upper = x - self.down, x + self.up
        if self.low is not None:
            lower, upper = lower.clamp_(min=self.low), upper.clamp_(max=self.high)
        return Ball(x, self.epsilon, self.norm, lower, upper)


def _number(value):
    """Return a tensor of one number as that: it takes less time in sums."""
    return value.item() if value is not None and value.ndim == 0 else value


def _smoothly(time):
    """Return a ramp from 0 to 1 that starts as the fourth power, then goes on linearly."""
    part = _SMOOTH_PART
    power = 1 / ((4 - 3 * part) * part**3)  # so that value and slope meet
    if time < part:
        return power * time**4
    return 1 + (1 - power * part**4) / (1 - part) * (time - 1)


def _small_boxes(ball, points, share):
    """Return boxes around points, by a share of the radius, inside of a ball."""
    reach = share * ball.epsilon
    lower = torch.maximum(ball.lower, points - reach)
    upper = torch.minimum(ball.upper, points + reach)
    return Ball(points, reach, ball.norm, lower, upper)


def _weights(module):
    """Return the weights of affine layers; those of norms, and biases, are vectors."""
    return [p for p in module.parameters() if p.requires_grad and p.ndim > 1]


def linear_rows(conclusion, property, regime):
    """Return the linear rows whose bounds a regime trains, or refuse."""
    rows = conclusion.sufficient()
    if rows.uses_distance or rows.output != "logits":
        raise UnsupportedPropertyError(
            f"Got {property!r}, but {type(regime).__name__} expects rows of the logits that do "
            "not depend on the distance, such as those of ClassificationRobustness."
        )
    return rows


def _relaxed(graph, ball, share):
    """Return the intervals of all nodes, with lines where these have a share in the bounds."""
    try:
        return relax(graph, ball, refine=False, lines=share > 0, rounding=False)
    except UnsupportedModelError as error:
        advice = " Use method='ibp', which needs no lines." if share > 0 else ""
        raise UnsupportedModelError(f"CertifiedTraining: {error}{advice}") from None


def _lower_rows(relaxation, A, share):
    """Return lower bounds, of shape (n, m), of rows A of the outputs, with gradients.

    Parameters
    ----------
    relaxation : Relaxation
        Of n balls.
    A : Tensor of shape (n, m, n_classes)
    share : float
        Of the bounds by lines, in the mean with those by intervals.
    """
    lower = interval_rows(relaxation, A)
    return lower if share == 0 else (1 - share) * lower + share * crown(relaxation, A)
