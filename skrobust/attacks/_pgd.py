"""Projected gradient descent."""

import math

from skrobust._validation import check_choice, check_integer, check_real
from skrobust.attacks._base import GradientAttack, Tracker

__all__ = ["PGD"]


class PGD(GradientAttack):
    """Projected gradient descent on the property's smallest row, or on the cross-entropy.

    A sample leaves the batch as soon as its property is broken.

    Parameters
    ----------
    n_steps : int, default=40
        Steps of a run.
    step_size : float or None, default=None
        Length of a step, in units of the input. None is 2.5 epsilon / `n_steps`, the choice
        of Madry et al., for each feature its own where epsilon is an array.
    n_restarts : int, default=1
        Runs for each sample, until one breaks the property.
    random_start : bool, default=True
        Whether a run starts at a random point of the ball, rather than at its centre.
    schedule : {"constant", "linear", "cosine"}, default="constant"
        How the step shrinks, to zero after the last step.
    objective : {"margin", "cross-entropy"}, default="margin"
        What the steps go against.

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
        schedule="constant",
        objective="margin",
    ):
        self.n_steps = n_steps
        self.step_size = step_size
        self.n_restarts = n_restarts
        self.random_start = random_start
        self.schedule = schedule
        self.objective = objective

    def check(self):
        check_integer("n_steps", self.n_steps, low=1)
        check_integer("n_restarts", self.n_restarts, low=1)
        check_choice("schedule", self.schedule, ("constant", "linear", "cosine"))
        if self.step_size is not None:
            check_real("step_size", self.step_size, low=0, closed="neither")
        return super().check()

    def _search(self, target, stop_when_broken, generator):
        tracker = Tracker(target)
        x = target.ball.sample(1, generator)[:, 0] if self.random_start else target.x
        for step in range(self.n_steps):
            gradient, logits, _ = tracker.target.gradient(x, self.objective)
            kept = tracker.keep(x, logits) if stop_when_broken else None
            if kept is not None:
                x, gradient = x[kept], gradient[kept]
                if len(x) == 0:
                    break
            x = self._move(tracker.target.ball, x, -gradient, self._shrunk(step))
        return tracker.finish(x)

    def _move(self, ball, x, direction, factor):
        if self.step_size is None:
            return ball.step(x, direction, 2.5 * factor / self.n_steps)
        return ball.project(x + ball.unit(direction) * (factor * self.step_size))

    def _shrunk(self, step):
        if self.schedule == "linear":
            return 1 - step / self.n_steps
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * step / self.n_steps)) / 2
        return 1.0
