"""Gradients in the input: what has none is refused, what is not finite is no step."""

import math
import warnings

import torch

from skrobust.exceptions import AttackWarning, UnsupportedModelError

__all__ = ["NO_GRADIENT", "finite_or_zero", "input_gradient"]

NO_GRADIENT = (
    "Got a network whose outputs have no gradient in its inputs, but expected one made of "
    "differentiable torch operations. Sampling (ConstraintAccuracy, UniformSampling) works "
    "without a gradient."
)


def input_gradient(total, x, **options):
    """Return the gradient of a sum in the rows `x`; refuse what has none."""
    gradient = None
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, x, allow_unused=True, **options)
    if gradient is None:
        raise UnsupportedModelError(NO_GRADIENT)
    return gradient


def finite_or_zero(gradient):
    """Return gradients of shape (n, n_features), zero (with a warning) where not finite."""
    # One number tells whether every entry is finite.
    if math.isfinite(gradient.sum().item()):
        return gradient
    failed = ~torch.isfinite(gradient).all(dim=1, keepdim=True)
    if not failed.any():
        return gradient
    warnings.warn(
        f"The gradient is not finite at {int(failed.sum())} of {len(gradient)} points; the "
        "attack stands still there, so robustness may be overestimated.",
        AttackWarning,
        stacklevel=2,
    )
    return gradient.masked_fill(failed, 0.0)
