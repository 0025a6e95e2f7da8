"""The box-constrained L-BFGS attack of Szegedy et al."""

import copy
import math
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize

from skrobust._validation import check_choice, check_integer, check_real
from skrobust.attacks._base import Attack
from skrobust.attacks._boundary import closer
from skrobust.attacks._gradients import finite_or_zero, input_gradient
from skrobust.attacks._target import Outcome
from skrobust.networks import Network

__all__ = ["LBFGS"]

_FACTOR = 10.0  # between two weights, as long as only successes or only failures are known


class LBFGS(Attack):
    r"""Box-constrained L-BFGS-B with a line search over the weight of the distance.

    For a weight c minimizes

    .. math:: c \, \|x - \hat x\|_2^2 + \mathrm{loss}(x)
              \quad\text{or}\quad
              c \, \|x - \hat x\|_\infty + \mathrm{loss}(x)

    over the box of the ball, with distances in units of how far the box reaches from
    :math:`\hat x`, and searches for the largest c at whose minimizer the property is
    still broken: by factors of 10 up or down, and then by bisection of log c. The closest point
    found is kept. This is slow, one sample after the other, and meant as a baseline. That of
    Bastani et al. is ``LBFGS(penalty="linf")``, for fine-tuning with ``margin=0.15``; whether that
    margin stands behind their Table 1 as well is not said.

    Parameters
    ----------
    n_weights : int, default=10
        Weights c that are tried.
    max_iter : int, default=100
        Iterations of L-BFGS-B for each weight.
    initial_c : float, default=1.0
        First weight, in units of the loss (nats or outputs) per reach of the box (squared for
        "squared-l2"): the same one serves inputs in any units.
    objective : {"cross-entropy", "margin"}, default="cross-entropy"
        "cross-entropy" of a target class, as in the paper, or the softplus of the property's
        smallest row. The two agree for classification robustness with two classes. The second
        one is meant for properties about other things than the class.
    targets : {"runner-up", "all"}, default="runner-up"
        Target of the cross-entropy: the class with the second highest output at the reference
        point, as in Bastani et al., or every other class in turn.
    penalty : {"squared-l2", "linf"}, default="squared-l2"
        How the objective measures the distance. "linf" is what Bastani et al. print.
    margin : float, default=0.0
        By how much, in outputs, a point must break the property to count: its smallest row is at
        most minus this. Where there is a target class, that one must then lead all others by as
        much, as in Bastani et al., section 6 (0.15), whose points are to survive the rounding to
        pixels. With a margin, `closest` leaves the points where they are, rather than pull them
        to the boundary.

    Notes
    -----
    Choices where the papers are silent or cannot be followed to the letter:

    - Szegedy et al. write \|r\| for the distance. Its square in L2 is smooth at 0. Which point is
      closest is decided in the property's own norm, whatever the penalty.
    - The L-infinity norm is not smooth, and the line search of L-BFGS-B ends at the first kink.
      With \|r\| = t and r = t w the same objective is smooth in t and in w, between -1 and 1,
      where r is cut to the box. The search starts from the signs of the gradient at the reference.
    - They ask for the minimum c, with c before the norm; the smallest distance is at the
      largest c.
    - Without a margin, a point counts when it breaks the property (for classification
      robustness: any other class or a tie), not only when it has the target class.
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
        penalty="squared-l2",
        margin=0.0,
    ):
        self.n_weights = n_weights
        self.max_iter = max_iter
        self.initial_c = initial_c
        self.objective = objective
        self.targets = targets
        self.penalty = penalty
        self.margin = margin

    def check(self):
        check_integer("n_weights", self.n_weights, low=1)
        check_integer("max_iter", self.max_iter, low=1)
        check_real("initial_c", self.initial_c, low=0, closed="neither")
        check_choice("objective", self.objective, ("cross-entropy", "margin"))
        check_choice("targets", self.targets, ("runner-up", "all"))
        check_choice("penalty", self.penalty, ("squared-l2", "linf"))
        check_real("margin", self.margin, low=0)
        return self

    def closest(self, target, *, generator=None):
        if self.margin == 0:
            return super().closest(target, generator=generator)
        # On the boundary, where the base class would pull them, points have no margin.
        return self.search(target, generator=generator)

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        network = _in_float64(target.network, target.x)
        each = [self._attack_one(target[[i]], network) for i in range(len(target))]
        names = ("points", "margins", "broken")
        return Outcome(*(torch.cat([getattr(one, name) for one in each]) for name in names))

    def _attack_one(self, target, network):
        best = None
        for aim in self._aims(target):
            closest = self._line_search(target, network, aim)
            best = closest if best is None else closer(target.ball, best, closest)[0]
        return best

    def _aims(self, target):
        """Return the target classes, each of shape (1,); None where there is none."""
        if self.objective == "margin":
            return [None]
        target.check_classes(target.reference_logits)
        order = target.reference_logits[0].argsort(descending=True)
        others = order[order != target.classes[0]]
        wanted = others[:1] if self.targets == "runner-up" else others
        return list(wanted.unsqueeze(1))

    def _assess(self, target, x, aim):
        """Return the outcome at `x`, broken where that counts."""
        if self.margin == 0:
            return target.outcome_at(x)
        with torch.no_grad():
            logits = target.network(x)
        seen = target.assess(x, logits)
        counts = seen.broken & (seen.margins <= -self.margin)
        if aim is not None:
            others = logits.scatter(1, aim.unsqueeze(1), -torch.inf).amax(dim=1)
            counts &= logits[:, aim].squeeze(1) - others >= self.margin
        return replace(seen, broken=counts)

    def _line_search(self, target, network, aim):
        best, c = None, self.initial_c
        success, failure = None, None
        for _ in range(self.n_weights):
            x = self._minimizer(target, network, aim, c)
            seen = self._assess(target, x, aim)
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

    def _minimizer(self, target, network, aim, c):
        ball = target.ball
        center = ball.center.double()
        low, high = ball.lower.double() - center, ball.upper.double() - center
        # Step lengths and stopping rules of L-BFGS-B are meant for variables near 1.
        reach = max(-low.min().item(), high.max().item()) or 1.0

        def loss(move):
            """Return the loss at a move in units of the reach, and its gradient there."""
            move = move.requires_grad_()
            with torch.enable_grad():
                x = center + reach * move
                value = _loss(target, x, network(x), aim).sum()
                return value.item(), finite_or_zero(input_gradient(value, move))

        minimizer = _with_squares if self.penalty == "squared-l2" else _with_largest
        move = minimizer(loss, c, low / reach, high / reach, self.max_iter)
        return ball.project((center + reach * move).to(target.x.dtype))


def _loss(target, x, logits, aim):
    if aim is not None:
        return torch.nn.functional.cross_entropy(logits, aim)
    return torch.nn.functional.softplus(target.conclusion.margin(logits, target.distance(x)))


def _with_squares(loss, c, low, high, max_iter):
    """Minimize loss(u) + c |u|^2 over low <= u <= high, all of shape (1, n_features)."""

    def objective(numbers):
        u = low.new_tensor(numbers).unsqueeze(0)
        value, gradient = loss(u)
        u = u.detach()
        return value + c * (u**2).sum().item(), _flat(gradient + 2 * c * u)

    start, ends = np.zeros(low.shape[1]), np.stack([_flat(low), _flat(high)], axis=1)
    return low.new_tensor(_lbfgsb(objective, start, ends, max_iter)).unsqueeze(0)


def _with_largest(loss, c, low, high, max_iter):
    """Minimize loss(u) + c max |u| over low <= u <= high, with u = t w cut to that box."""
    _, slope = loss(torch.zeros_like(low))

    def split(numbers):
        t, w = float(numbers[0]), low.new_tensor(numbers[1:]).unsqueeze(0)
        return t, w, torch.clamp(t * w, low, high)

    def objective(numbers):
        t, w, u = split(numbers)
        value, gradient = loss(u.clone())
        free = gradient * (t * w == u)
        return value + c * t, np.append((free * w).sum().item() + c, _flat(t * free))

    start = np.append(0.0, -np.sign(_flat(slope)))
    ends = np.array([[0.0, 1.0]] + [[-1.0, 1.0]] * low.shape[1])
    return split(_lbfgsb(objective, start, ends, max_iter))[2]


def _lbfgsb(objective, start, ends, max_iter):
    options = {"maxiter": max_iter}
    return minimize(objective, start, method="L-BFGS-B", jac=True, bounds=ends, options=options).x


def _flat(row):
    return row[0].cpu().numpy()


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
