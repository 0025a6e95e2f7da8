"""Projected gradient descent."""

import math

from skrobust._validation import check_choice, check_flag, check_integer, check_real
from skrobust.attacks._base import GradientAttack

__all__ = ["PGD"]


class PGD(GradientAttack):
    """Projected gradient descent on the property's smallest row, or on the cross-entropy.

    A sample leaves the batch as soon as its property is broken.

    Parameters
    ----------
    n_steps : int, default=40
        Steps of a run.
    step_size : float or None, default=None
        Length of the first step, in units of the input. None is epsilon / 2, or 2.5 epsilon /
        `n_steps` where that is more; for each feature its own where epsilon is an array.
    n_restarts : int, default=1
        Runs for each sample, until one breaks the property.
    random_start : bool, default=True
        Whether a run starts at a random point of the ball, rather than at its center.
    schedule : {"linear", "cosine", "constant"}, default="linear"
        How the step shrinks, to zero after the last one. Long first steps break most samples
        early, which saves time; short last ones find the rest.
    objective : {"margin", "cross-entropy"}, default="margin"
        What the steps go against.
    stop_at_violation : bool, default=False
        Whether a point stands still once its property is broken there, so that a regime trains at
        violations that are just beyond the boundary, as the public code of Casadio et al. does.

    References
    ----------
    Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import PGD
    >>> from skrobust.properties import ClassificationRobustness
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> found = PGD(10).perturb(model, X, y, property=ClassificationRobustness(0.2))
    >>> model.predict(found)
    array([0, 1, 0, 1])
    """

    def __init__(
        self,
        n_steps=40,
        *,
        step_size=None,
        n_restarts=1,
        random_start=True,
        schedule="linear",
        objective="margin",
        stop_at_violation=False,
    ):
        self.n_steps = n_steps
        self.step_size = step_size
        self.n_restarts = n_restarts
        self.random_start = random_start
        self.schedule = schedule
        self.objective = objective
        self.stop_at_violation = stop_at_violation

    def check(self):
        check_integer("n_steps", self.n_steps, low=1)
        check_integer("n_restarts", self.n_restarts, low=1)
        check_flag("random_start", self.random_start)
        check_flag("stop_at_violation", self.stop_at_violation)
        check_choice("schedule", self.schedule, ("linear", "cosine", "constant"))
        if self.step_size is not None:
            check_real("step_size", self.step_size, low=0, closed="neither")
        return super().check()

    def walk(self, target, tracker, generator):
        x = target.ball.sample(1, generator)[:, 0] if self.random_start else target.x
        for step in range(self.n_steps):
            gradient, logits, _ = target.gradient(x, self.objective)
            if self.stop_at_violation:
                gradient = gradient * ~target.assess(x, logits).broken.unsqueeze(1)
            kept = None if tracker is None else tracker.keep(x, logits)
            if kept is not None:
                x, gradient, target = x[kept], gradient[kept], tracker.target
                if len(x) == 0:
                    break
            x = self._move(target.ball, x, gradient, self._shrunk(step))
        return x

    def _move(self, ball, x, gradient, factor):
        if self.step_size is None:
            return ball.step(x, gradient, -factor * max(0.5, 2.5 / self.n_steps))
        return ball.project(x - ball.unit(gradient) * (factor * self.step_size))

    def _shrunk(self, step):
        if self.schedule == "linear":
            return 1 - step / self.n_steps
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * step / self.n_steps)) / 2
        return 1.0
