"""Gradient steps upwards, inside a box.

References
----------
Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
"""

import torch

__all__ = ["Climb"]


class Climb:
    """Adam, upwards, inside a box, with a rate that decays.

    That of torch takes longer than the bounds of a small network, and a second to import.

    Parameters
    ----------
    groups : list of (collection of Tensor, float, float)
        Leaves, changed in place; the length of their first step; and their upper limit, where
        the lower one is 0.
    decay : float
        Ratio of the length of each step to that of the one before.
    """

    def __init__(self, groups, decay):
        self.parts = [
            (leaf.requires_grad_(), torch.zeros_like(leaf), torch.zeros_like(leaf), rate, high)
            for leaves, rate, high in groups
            for leaf in leaves
        ]
        self.decay, self.n_steps = decay, 0

    def step(self, value):
        """Move to where `value`, which was computed from the leaves, is larger."""
        leaves = [part[0] for part in self.parts]
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        size = self.decay**self.n_steps
        self.n_steps += 1
        size *= (1 - 0.999**self.n_steps) ** 0.5 / (1 - 0.9**self.n_steps)
        with torch.no_grad():
            for part, gradient in zip(self.parts, gradients, strict=True):
                if gradient is None:
                    continue
                leaf, mean, square, rate, high = part
                mean.lerp_(gradient, 0.1)
                square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                leaf.addcdiv_(mean, square.sqrt().add_(1e-12), value=rate * size).clamp_(0, high)
