"""The box-constrained L-BFGS attack of Szegedy et al."""

import copy
import math

import numpy as np
import torch
from scipy.optimize import minimize

from skrobust._validation import check_choice, check_integer, check_real
from skrobust.attacks._base import Attack
from skrobust.attacks._boundary import closer
from skrobust.attacks._target import Outcome, finite_or_zero, input_gradient
from skrobust.networks import Network

__all__ = ["LBFGS"]

_FACTOR = 10.0  # between two weights, as long as only successes or only failures are known


class LBFGS(Attack):
    r"""Box-constrained L-BFGS-B with a line search over the weight of the distance.

    For a weight c minimizes

    .. math:: c \, \|x - \hat x\|_2^2 + \mathrm{loss}(x)

    over the box of the ball, with distances in units of how far the box reaches from
    :math:`\hat x`, and searches for the largest c at whose minimizer the property is
    still broken: by factors of 10 up or down, and then by bisection of log c. The closest point
    found is kept. This is slow, one sample after the other, and meant as a baseline.

    Parameters
    ----------
    n_weights : int, default=10
        Weights c that are tried.
    max_iter : int, default=100
        Iterations of L-BFGS-B for each weight.
    initial_c : float, default=1.0
        First weight, in units of the loss (nats or outputs) per squared reach of the box: the
        same one serves inputs in any units.
    objective : {"cross-entropy", "margin"}, default="cross-entropy"
        "cross-entropy" of a target class, as in the paper, or the softplus of the property's
        smallest row. The two agree for classification robustness with two classes. The second
        one is meant for properties about other things than the class.
    targets : {"runner-up", "all"}, default="runner-up"
        Target of the cross-entropy: the class with the second highest output at the reference
        point, as in Bastani et al., or every other class in turn.

    Notes
    -----
    Choices where the paper is silent or cannot be followed to the letter:

    - It writes \|r\| for the distance. The square is taken, which is smooth at 0. It stands
      for the L-infinity distance too, as in Bastani et al.'s baseline; which point is closest
      is then decided in the property's own norm.
    - It asks for the minimum c, with c before the norm; the smallest distance is at the
      largest c.
    - A point counts when it breaks the property (for classification robustness: any other
      class or a tie), not only when it has the target class.
    - The box is cut to the ball, and the minimizer projected to it for the L2 norm.

    Objective and gradient are computed in float64 where the network is a torch module that can
    be copied to it, since the line search of L-BFGS-B suffers from noise.

    References
    ----------
    Szegedy et al., "Intriguing properties of neural networks", ICLR 2014, section 4.1; Bastani
    et al., "Measuring neural net robustness with constraints", NeurIPS 2016, section 6.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import LBFGS
    >>> from skrobust.properties import ClassificationRobustness
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> found = LBFGS().perturb(model, X, y, property=ClassificationRobustness(0.5))
    >>> model.predict(found)
    array([1, 1, 0, 0])
    """

    def __init__(
        self,
        n_weights=10,
        *,
        max_iter=100,
        initial_c=1.0,
        objective="cross-entropy",
        targets="runner-up",
    ):
        self.n_weights = n_weights
        self.max_iter = max_iter
        self.initial_c = initial_c
        self.objective = objective
        self.targets = targets

    def check(self):
        check_integer("n_weights", self.n_weights, low=1)
        check_integer("max_iter", self.max_iter, low=1)
        check_real("initial_c", self.initial_c, low=0, closed="neither")
        check_choice("objective", self.objective, ("cross-entropy", "margin"))
        check_choice("targets", self.targets, ("runner-up", "all"))
        return self

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        network = _in_float64(target.network, target.x)
        each = [self._attack_one(target[[i]], network) for i in range(len(target))]
        names = ("points", "margins", "broken")
        return Outcome(*(torch.cat([getattr(one, name) for one in each]) for name in names))

    def _attack_one(self, target, network):
        best = None
        for loss in self._losses(target):
            closest = self._line_search(target, network, loss)
            best = closest if best is None else closer(target.ball, best, closest)[0]
        return best

    def _losses(self, target):
        """One function of a point (1, n_features) and its logits for each target class."""
        if self.objective == "margin":
            conclusion = target.conclusion
            return [
                lambda x, logits: torch.nn.functional.softplus(
                    conclusion.margin(logits, target.distance(x))
                )
            ]
        order = target.reference_logits[0].argsort(descending=True)
        others = order[order != target.classes[0]]
        wanted = others[:1] if self.targets == "runner-up" else others
        return [
            lambda x, logits, aim=aim: torch.nn.functional.cross_entropy(logits, aim)
            for aim in wanted.unsqueeze(1)
        ]

    def _line_search(self, target, network, loss):
        best, c = None, self.initial_c
        success, failure = None, None
        for _ in range(self.n_weights):
            x = self._minimizer(target, network, loss, c)
            seen = target.outcome_at(x)
            best = seen if best is None else closer(target.ball, best, seen)[0]
            if seen.broken:
                success = c
            else:
                failure = c
            if success is None:
                c /= _FACTOR
            elif failure is None:
                c *= _FACTOR
            else:
                c = math.sqrt(success * failure)
        return best

    def _minimizer(self, target, network, loss, c):
        ball = target.ball
        center = ball.center.double()
        low, high = ((end.double() - center)[0].cpu().numpy() for end in (ball.lower, ball.upper))
        # Step lengths and stopping rules of L-BFGS-B are meant for variables near 1.
        reach = max(-low.min(), high.max()) or 1.0

        def objective(move):
            u = torch.tensor(move, device=center.device).unsqueeze(0).requires_grad_()
            with torch.enable_grad():
                x = center + reach * u
                value = loss(x, network(x)).sum()
                gradient = finite_or_zero(input_gradient(value, u)) + 2 * c * u
            value = value + c * (u**2).sum()
            return value.item(), gradient.detach()[0].cpu().numpy()

        minimum = minimize(
            objective,
            np.zeros_like(low),
            method="L-BFGS-B",
            jac=True,
            bounds=np.stack([low, high], axis=1) / reach,
            options={"maxiter": self.max_iter},
        )
        move = reach * torch.tensor(minimum.x, device=center.device)
        return ball.project((center + move).to(target.x.dtype))


def _in_float64(network, x):
    """Return the network as a function of float64 rows, computed in float64 if it can be."""
    module = network.module if isinstance(network, Network) else network
    if isinstance(module, torch.nn.Module):
        module = copy.deepcopy(module).double().requires_grad_(False)
        try:
            if module(x[:1].double()).dtype == torch.float64:
                return module
        except RuntimeError:  # a module that names a dtype in its forward pass
            pass
    return lambda rows: network(rows.to(x.dtype)).double()
