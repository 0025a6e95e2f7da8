"""Training of networks of L-infinity distances, whose margins are proofs."""

import math
from dataclasses import dataclass, replace

import torch

from skrobust._validation import check_real, kind_of
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import LinfDistanceLayer
from skrobust.training._base import PropertyRegime
from skrobust.training._certified import linear_rows
from skrobust.training._decay import RateDecay, check_decay

__all__ = ["LinfDistanceTraining"]

_HOLD = 0.05  # share of training before p rises


@dataclass(eq=False)
class _State:
    """What a fit keeps beside the module.

    Parameters
    ----------
    layers : list of LinfDistanceLayer
    scale : Tensor of shape ()
        Logarithm of what logits are multiplied by in the cross-entropy; learned.
    scale_optimizer : torch.optim.Optimizer
    decay : RateDecay
        Of the optimizer of the module, in this call.
    """

    layers: list
    scale: torch.Tensor
    scale_optimizer: torch.optim.Optimizer
    decay: RateDecay


class LinfDistanceTraining(PropertyRegime):
    r"""Train a `~skrobust.networks.LinfDistanceNetwork`: raise p, and ask for wide margins.

    The gradient of a largest entry reaches one weight of each neuron, so distances are of
    :math:`L_p` at first, and p rises to infinity. The loss of rows :math:`r_j \ge 0`, which a
    ball of radius :math:`\epsilon` changes by at most :math:`c_j \epsilon`, is

    .. math:: \lambda \mathrm{CE}(s z) + \max_j \min(\max(1 - r_j / (m c_j \epsilon), 0), 1),

    where the scale s is learned, and lambda falls. The hinge asks for a margin of m radii; it is
    cut where a sample is misclassified, which is given up for others that can be certified.

    Parameters
    ----------
    margin : float, default=3.0
        The margin that is asked for, m, in radii of the property (3 in the paper, on MNIST).
    p_start, p_end : float, default=8.0 and 1024.0
        Between which p rises exponentially, by doubling. Then it is infinite.
    final : float, default=0.1
        Share of the training with p infinite, at its end.
    weight_start, weight_end : float, default=0.1 and 0.001
        Of the cross-entropy, lambda, which falls exponentially with the rise of p.
    scale_lr : float, default=0.006
        Learning rate of the scale.
    decay : {"cosine", "none"}, default="cosine"
        How the classifier's learning rate falls to 0 over the training.
    property : RobustnessProperty or None, default=None
        What is certified, in the L-infinity norm; the classifier's own property if None.

    Notes
    -----
    Adam with `lr` of about a tenth of the network's `spread` and ``optimizer_params={"betas":
    (0.9, 0.99), "eps": 1e-10}`` is what the paper uses. With p finite a step costs a few times as
    much as with p infinite. After training, and after an interrupt, p is infinite: the
    network that is left is 1-Lipschitz in any case.

    References
    ----------
    Zhang et al., "Boosting the certified robustness of L-infinity distance nets", ICLR 2022,
    section 4 (the loss); Zhang et al., "Towards certifying L-infinity robustness using neural
    networks with L-inf-dist neurons", ICML 2021 (the rise of p).

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.networks import LinfDistanceNetwork
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.training import LinfDistanceTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RobustClassifier(
    ...     LinfDistanceNetwork(64, 10, hidden_layer_sizes=64), random_state=0, max_epochs=15,
    ...     property=ClassificationRobustness(0.1), training=LinfDistanceTraining(), lr=0.03,
    ... ).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.5
    True
    """

    def __init__(
        self,
        margin=3.0,
        *,
        p_start=8.0,
        p_end=1024.0,
        final=0.1,
        weight_start=0.1,
        weight_end=0.001,
        scale_lr=0.006,
        decay="cosine",
        property=None,
    ):
        self.margin = margin
        self.p_start = p_start
        self.p_end = p_end
        self.final = final
        self.weight_start = weight_start
        self.weight_end = weight_end
        self.scale_lr = scale_lr
        self.decay = decay
        self.property = property

    def check(self, property, X, n_classes=2):
        check_real("margin", self.margin, low=0, closed="neither")
        check_real("p_start", self.p_start, low=1)
        check_real("p_end", self.p_end, low=self.p_start)
        check_real("final", self.final, low=0, high=1)
        check_real("weight_end", self.weight_end, low=0, closed="neither")
        check_real("weight_start", self.weight_start, low=self.weight_end)
        check_real("scale_lr", self.scale_lr, low=0)
        check_decay(self.decay)
        super().check(property, X, n_classes)
        trained_for = self.trained_property(property)
        if trained_for.norm != "linf":
            raise UnsupportedPropertyError(
                f"Got norm={trained_for.norm!r}, but LinfDistanceTraining expects norm='linf'."
            )
        linear_rows(trained_for.trial(n_classes), trained_for, self)

    def start(self, fit):
        layers = [part for part in fit.module.modules() if isinstance(part, LinfDistanceLayer)]
        if not layers:
            raise UnsupportedModelError(
                f"Got {kind_of(fit.module)}, but LinfDistanceTraining expects a module with "
                "layers of distances: module=skrobust.networks.LinfDistanceNetwork(...)."
            )
        if fit.previous is not None:
            return replace(fit.previous, decay=RateDecay(self.decay, fit))
        scale = torch.zeros((), device=fit.device, requires_grad=True)
        optimizer = torch.optim.Adam([scale], lr=self.scale_lr)
        return _State(layers, scale, optimizer, RateDecay(self.decay, fit))

    def loss(self, state, step):
        # The gradient of the step before.
        state.scale_optimizer.step()
        state.scale_optimizer.zero_grad()
        state.decay.apply(step)
        rise = self._rise(step.progress)
        p = math.inf if rise >= 1 else self.p_start * (self.p_end / self.p_start) ** rise
        for layer in state.layers:
            layer.p = p
        logits = step.logits
        weight = self.weight_start * (self.weight_end / self.weight_start) ** min(rise, 1.0)
        task = step.task_loss(state.scale.exp() * logits)
        return weight * task + step.mean(self._hinge(step, logits)), logits

    def _rise(self, progress):
        """Return the share of the rise of p that is done; 1 or more where p is infinite."""
        end = 1 - self.final
        if progress >= end:
            return 1.0
        start = min(_HOLD, end)
        return max(progress - start, 0.0) / (end - start) if end > start else 0.0

    def _hinge(self, step, logits):
        """Return the cut hinge of the least row, relative to what the ball changes, (n,)."""
        property = self.trained_property(step.property)
        labels = property.reference_labels(logits.detach(), step.labels)
        conclusion = property.conclusion(logits, labels)
        rows = linear_rows(conclusion, property, self)
        values = (rows.A @ logits.unsqueeze(2)).squeeze(2) + rows.b
        reach = rows.A.abs().sum(dim=2) * self.margin * float(property.ball(step.x).epsilon.max())
        # With a radius of 0 the hinge is that of misclassification.
        missing = 1 - values / reach.clamp(min=1e-6)
        return missing.clamp(0, 1).amax(dim=1)

    def finish(self, state):
        state.decay.finish()
        for layer in state.layers:
            layer.p = math.inf
