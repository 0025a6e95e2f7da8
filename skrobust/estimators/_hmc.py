"""Chains of weights by the Hamiltonian Monte Carlo of Pyro; needs the extra `bayes`."""

import math
import threading

import torch
from pyro.infer.mcmc import HMC

__all__ = []

_SITE = "weights"  # Pyro's name for the one vector of all weights
_DIVERGENT = 1000.0  # growth of the total energy, as in Pyro and Stan
# While Pyro looks for a first step size, it changes a setting of all threads, and puts it back.
_SEARCH = threading.Lock()


class Chain(HMC):
    """Pyro's HMC kernel on one vector, with draws and an integrator of its own.

    Start, step sizes and their adaptation are Pyro's. A proposal is that of Pyro's `sample`, but

    - its random numbers come from a generator, not from torch's global one;
    - energies are in float64. Those of a million weights in float32 are wrong by as much as the
      differences that decide whether a proposal is accepted; weights and gradients stay float32;
    - the gradient is asked of `energy` directly, without dictionaries and autograd in between,
      which take a fifth of the time of a small network's step.

    Parameters
    ----------
    energy : callable
        ``energy(weights) -> (value, gradient)``: minus the log density, up to a constant, as a
        float64 scalar; the gradient is a new tensor.
    start : Tensor of shape (n_weights,)
    generator : torch.Generator
    step_size : float
    num_steps : int
        Leapfrog steps of each proposal.
    warmup : int
        Proposals that come before the samples.
    adapt_step_size : bool, default=False
        Whether `warmup` adapts the step size.

    Attributes
    ----------
    weights : Tensor of shape (n_weights,)
        Where the chain stands.
    value : float
        Energy there.
    n_proposals, n_accepted, n_divergent : int
        After the warm-up.
    """

    def __init__(
        self, energy, start, generator, *, step_size, num_steps, warmup, adapt_step_size=False
    ):
        super().__init__(
            potential_fn=lambda z: _Energy.apply(z[_SITE], energy),
            step_size=step_size,
            num_steps=num_steps,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=False,
        )
        self.energy = energy
        self.generator = generator
        self.n_proposals = self.n_accepted = self.n_divergent = 0
        self._num_steps = num_steps
        self.initial_params = {_SITE: start.detach().clone()}
        with _SEARCH:
            self.setup(warmup)

    def sample(self, params=None):
        """Make one proposal, and accept or reject it; return where the chain stands."""
        z, value, gradient = self._fetch_from_cache()
        momentum = self._randn(z[_SITE])
        before = value + _kinetic(momentum)
        state = leapfrog(
            self.energy, z[_SITE], momentum, gradient[_SITE], self.step_size, self.num_steps
        )
        weights, momentum, value, gradient = state
        growth = float(value + _kinetic(momentum) - before)
        if math.isnan(growth):  # the trajectory left what float32 holds
            growth = math.inf
        probability = math.exp(min(0.0, -growth))
        accepted = float(self._uniform()) < probability
        if accepted:
            self._cache({_SITE: weights}, value, {_SITE: gradient})
        self._t += 1
        if self._t <= self._warmup_steps:
            self._adapter.step(self._t, self._z_last, torch.tensor(probability))
        else:
            self.n_proposals += 1
            self.n_accepted += accepted
            self.n_divergent += growth > _DIVERGENT
        return self._z_last

    @property
    def num_steps(self):
        """Leapfrog steps as given: Pyro's own follow from the length of the trajectory."""
        return self._num_steps

    @property
    def weights(self):
        return self._z_last[_SITE]

    @property
    def value(self):
        return float(self._potential_energy_last)

    def _uniform(self):
        options = {"dtype": torch.float64, "device": self.generator.device}
        return torch.rand((), generator=self.generator, **options)

    def _randn(self, like):
        options = {"dtype": like.dtype, "device": like.device, "generator": self.generator}
        return torch.randn(like.shape, **options)

    def _sample_r(self, name):
        momentum = self._randn(self.weights)
        return {_SITE: momentum}, {(_SITE,): momentum}

    def _kinetic_energy(self, r_unscaled):
        return _kinetic(*r_unscaled.values())

    def _initialize_adapter(self):
        # Pyro gives the mass matrix the type of the energy, and that type to all that it meets.
        energy, self._potential_energy_last = self._potential_energy_last, self.weights[0]
        super()._initialize_adapter()
        self._potential_energy_last = energy


def leapfrog(energy, weights, momentum, gradient, step_size, num_steps):
    """Follow the dynamics of a unit mass for some steps.

    Parameters
    ----------
    energy : callable
        As of `Chain`.
    weights, momentum, gradient : Tensor of shape (n_weights,)
        Of the start; `momentum` is overwritten.
    step_size : float
    num_steps : int

    Returns
    -------
    weights, momentum : Tensor of shape (n_weights,)
    value : Tensor of shape ()
    gradient : Tensor of shape (n_weights,)
        Of the energy at the end.
    """
    weights = weights.clone()
    momentum.sub_(gradient, alpha=step_size / 2)
    for step in range(1, num_steps + 1):
        weights.add_(momentum, alpha=step_size)
        value, gradient = energy(weights)
        # Two half steps of the momentum are one, but for the last.
        momentum.sub_(gradient, alpha=step_size if step < num_steps else step_size / 2)
    return weights, momentum, value, gradient


def _kinetic(momentum):
    return 0.5 * momentum.square().sum(dtype=torch.float64)


class _Energy(torch.autograd.Function):
    """An energy with its gradient, for Pyro's search of a step size, which asks autograd."""

    @staticmethod
    def forward(ctx, weights, energy):
        value, gradient = energy(weights)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx, output):
        (gradient,) = ctx.saved_tensors
        return output * gradient, None
