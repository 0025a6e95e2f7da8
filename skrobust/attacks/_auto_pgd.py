"""Projected gradient descent that chooses its own steps."""

import torch

from skrobust._validation import check_integer, check_real
from skrobust.attacks._base import GradientAttack

__all__ = ["AutoPGD"]


class AutoPGD(GradientAttack):
    """Auto-PGD: momentum, and for each sample a step that is halved when progress stalls.

    Parameters
    ----------
    n_steps : int, default=100
        Steps of a run.
    n_restarts : int, default=1
        Runs for each sample, until one breaks the property.
    momentum : float, default=0.75
        Weight of the gradient step against the last move (the paper's alpha), in (0, 1].
    progress : float, default=0.75
        Least share of steps that must improve the objective between two checks (rho).
    objective : {"margin", "smallest-row", "cross-entropy"}, default="margin"
        What the steps go against; see `GradientAttack`.

    References
    ----------
    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020, section 3 and Algorithm 1.
    """

    def __init__(
        self, n_steps=100, *, n_restarts=1, momentum=0.75, progress=0.75, objective="margin"
    ):
        self.n_steps = n_steps
        self.n_restarts = n_restarts
        self.momentum = momentum
        self.progress = progress
        self.objective = objective

    def check(self):
        check_integer("n_steps", self.n_steps, low=1)
        check_integer("n_restarts", self.n_restarts, low=1)
        check_real("momentum", self.momentum, low=0, high=1, closed="right")
        check_real("progress", self.progress, low=0, high=1)
        return super().check()

    def walk(self, target, tracker, generator):
        checkpoints = set(_checkpoints(int(self.n_steps)))
        state = None
        x = target.ball.sample(1, generator)[:, 0]
        for step in range(self.n_steps + 1):
            gradient, logits, value = target.gradient(x, self.objective)
            kept = None if tracker is None else tracker.keep(x, logits)
            if kept is not None:
                x, gradient, value, target = x[kept], gradient[kept], value[kept], tracker.target
                if len(x) == 0:
                    return x
                state = None if state is None else state.select(kept)
            if state is None:
                state = _State(x, value, gradient)
            state.observe(x, value, gradient)
            if step in checkpoints:
                x, gradient = state.checkpoint(x, gradient, self.progress)
            if step < self.n_steps:
                x = state.move(target.ball, x, gradient, self.momentum if step else 1.0)
        return state.best_x


def _checkpoints(n_steps):
    """Steps at which progress is judged: fractions p with shrinking gaps, 0.22 first."""
    percents = [0, 22]
    while percents[-1] < 100:
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - 3, 6))
    # Whole percents, and the ceiling of whole numbers: floats would round 57 up to 58.
    return [-(-p * n_steps // 100) for p in percents[1:] if p < 100]


class _State:
    """Per-sample memory of a run: the best point, the last move, the step size."""

    def __init__(self, x, value, gradient):
        n = len(x)
        self.best_x, self.best_value, self.best_gradient = x, value, gradient
        self.previous_x, self.previous_value = x, value
        self.size = x.new_full((n, 1), 2.0)  # relative to epsilon
        self.improved = x.new_zeros(n)
        self.steps = -1  # the first point that is observed is no step
        self.size_at_check, self.best_at_check = self.size, value

    def select(self, kept):
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value[kept])
        return self

    def observe(self, x, value, gradient):
        """Take in the objective (to be minimized) at the current point."""
        self.improved += value < self.previous_value
        self.previous_value = value
        self.steps += 1
        better = value < self.best_value
        self.best_value = torch.where(better, value, self.best_value)
        better = better.unsqueeze(1)
        self.best_x = torch.where(better, x, self.best_x)
        self.best_gradient = torch.where(better, gradient, self.best_gradient)

    def checkpoint(self, x, gradient, progress):
        """Halve the step and go back to the best point where progress stalled."""
        few = self.improved < progress * self.steps
        unchanged = (self.size == self.size_at_check).squeeze(1)
        stalled = unchanged & (self.best_value >= self.best_at_check)
        halve = (few | stalled).unsqueeze(1)
        self.size_at_check, self.best_at_check = self.size, self.best_value
        self.size = torch.where(halve, self.size / 2, self.size)
        self.improved = torch.zeros_like(self.improved)
        self.steps = 0
        self.previous_x = torch.where(halve, self.best_x, self.previous_x)
        return (
            torch.where(halve, self.best_x, x),
            torch.where(halve, self.best_gradient, gradient),
        )

    def move(self, ball, x, gradient, momentum):
        step = ball.step(x, gradient, -self.size)
        moved = x + momentum * (step - x) + (1 - momentum) * (x - self.previous_x)
        self.previous_x = x
        return ball.project(moved)
