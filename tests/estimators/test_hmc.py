"""The sampler: distributions known otherwise, Pyro's own kernel, and what an integrator keeps."""

import numpy as np
import pytest
import torch

pytest.importorskip("pyro")
from pyro.infer.mcmc import HMC

from skrobust.estimators._hmc import Chain, leapfrog


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(mean, covariance):
    """Return the energy of a normal distribution."""
    precision = torch.linalg.inv(covariance)

    def energy(weights):
        pull = (weights - mean) @ precision.to(weights)
        return 0.5 * (pull * (weights - mean)).sum(dtype=torch.float64), pull

    return energy


MEAN, COVARIANCE = torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.6], [0.6, 2.0]])


def chain(energy, start=(0.0, 0.0), **options):
    options = {"step_size": 0.3, "num_steps": 6, "warmup": 0} | options
    return Chain(energy, torch.tensor(start), generator(), **options)


def draws(sampler, n):
    return np.array([sampler.sample()["weights"].tolist() for _ in range(n)])


def test_conjugate_posterior_within_the_monte_carlo_error():
    """Weights of a linear model with normal noise and prior have a posterior in closed form."""
    random = np.random.default_rng(0)
    inputs, noise, prior = random.normal(size=(30, 3)), 0.5, 2.0
    targets = inputs @ [1.0, -1.0, 0.5] + noise * random.normal(size=30)
    covariance = np.linalg.inv(inputs.T @ inputs / noise**2 + np.eye(3) / prior**2)
    mean = covariance @ inputs.T @ targets / noise**2
    A, b = torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)

    def energy(weights):
        residual = A @ weights - b
        value = (residual.square().sum() / noise**2 + weights.square().sum() / prior**2) / 2
        return value.double(), A.T @ residual / noise**2 + weights / prior**2

    sampler = chain(energy, (0.0, 0.0, 0.0), step_size=0.05, num_steps=3, warmup=50)
    samples = draws(sampler, 2050)[50:]
    assert sampler.n_accepted / sampler.n_proposals > 0.8
    # Batches of 50 draws are nearly independent: their means tell the Monte-Carlo error.
    error = samples.reshape(40, 50, 3).mean(axis=1).std(axis=0) / np.sqrt(40)
    assert (np.abs(samples.mean(axis=0) - mean) < 4 * error).all()
    assert (error < 0.1 * np.sqrt(np.diag(covariance))).all()
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.25 * covariance.max())


def test_large_steps_are_corrected_by_rejections():
    """Without the acceptance rule, a step of 1.5 gives variances that are far too large."""
    sampler = chain(gaussian(MEAN, COVARIANCE), step_size=1.5, num_steps=2)
    samples = draws(sampler, 6000)
    assert 0.2 < sampler.n_accepted / sampler.n_proposals < 0.9
    np.testing.assert_allclose(samples.mean(axis=0), MEAN, atol=0.15)
    np.testing.assert_allclose(np.cov(samples.T), COVARIANCE, atol=0.3)


@pytest.mark.parametrize("adapt", [False, True])
def test_proposals_are_those_of_pyro(adapt):
    """Pyro's own kernel, given the same random numbers, in float64."""
    covariance, start = COVARIANCE.double(), torch.zeros(2, dtype=torch.float64)
    energy = gaussian(MEAN.double(), covariance)
    options = {"step_size": 0.5, "num_steps": 3, "adapt_step_size": adapt}
    ours = Chain(energy, start, generator(5), warmup=10, **options)
    theirs = HMC(
        potential_fn=lambda z: energy(z["weights"])[0], adapt_mass_matrix=False, **options
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        theirs.initial_params = {"weights": start.clone()}
        theirs.setup(10)
        if adapt:  # the search for a first step drew as many numbers, then lengths differ
            assert ours.step_size == theirs.step_size
            return
        for _ in range(40):
            expected = theirs.sample(None)["weights"]
            torch.testing.assert_close(ours.sample()["weights"], expected, rtol=1e-9, atol=1e-9)
    assert ours.n_proposals == 30
    assert ours.n_accepted / 30 == theirs.diagnostics()["acceptance rate"]


def test_warmup_adapts_the_step_size():
    sampler = chain(gaussian(MEAN, COVARIANCE), step_size=3.0, warmup=200, adapt_step_size=True)
    draws(sampler, 700)
    assert sampler.step_size < 2.0
    assert 0.6 < sampler.n_accepted / sampler.n_proposals <= 1.0
    step_size = sampler.step_size
    draws(sampler, 5)
    assert sampler.step_size == step_size  # fixed once samples count


def test_number_of_steps_is_kept_whatever_the_step_size():
    calls = []

    def energy(weights):
        calls.append(1)
        return gaussian(MEAN, COVARIANCE)(weights)

    sampler = chain(energy, step_size=0.7, num_steps=7, warmup=20, adapt_step_size=True)
    calls.clear()
    draws(sampler, 30)
    assert len(calls) == 30 * 7


def test_what_leaves_the_range_of_numbers_is_rejected():
    sampler = chain(gaussian(MEAN, COVARIANCE), step_size=1e20, num_steps=10)
    assert (draws(sampler, 5) == 0).all()
    assert (sampler.n_accepted, sampler.n_divergent, sampler.n_proposals) == (0, 5, 5)


def test_draws_come_from_the_generator_alone():
    energy = gaussian(MEAN, COVARIANCE)
    before = torch.random.get_rng_state()
    first = draws(chain(energy, warmup=5, adapt_step_size=True), 10)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    np.testing.assert_array_equal(draws(chain(energy, warmup=5, adapt_step_size=True), 10), first)
    other = Chain(energy, torch.zeros(2), generator(1), step_size=0.3, num_steps=6, warmup=0)
    assert (draws(other, 3) != first[:3]).any()


def test_start_is_left_as_it_was():
    start = torch.zeros(2)
    sampler = Chain(
        gaussian(MEAN, COVARIANCE), start, generator(), step_size=0.3, num_steps=2, warmup=0
    )
    first = sampler.sample()["weights"]
    kept = first.clone()
    sampler.sample()
    assert not start.any()
    torch.testing.assert_close(first, kept)


def total(energy, weights, momentum):
    return float(energy(weights)[0] + 0.5 * momentum.square().sum(dtype=torch.float64))


def test_leapfrog_returns_where_it_came_from():
    energy = gaussian(MEAN.double(), COVARIANCE.double())
    start, momentum = torch.tensor([0.3, 0.1]).double(), torch.tensor([1.0, -0.5]).double()
    gradient = energy(start)[1]
    end, back, value, gradient = leapfrog(energy, start, momentum.clone(), gradient, 0.2, 7)
    assert float(value) == pytest.approx(float(energy(end)[0]))
    again, back, *_ = leapfrog(energy, end, -back, gradient, 0.2, 7)
    torch.testing.assert_close(again, start)
    torch.testing.assert_close(back, -momentum)


def test_leapfrog_is_of_second_order():
    energy = gaussian(MEAN.double(), COVARIANCE.double())
    start, momentum = torch.tensor([0.3, 0.1]).double(), torch.tensor([1.0, -0.5]).double()
    before, errors = total(energy, start, momentum), []
    for num_steps in (10, 20):
        end, moved, *_ = leapfrog(
            energy, start, momentum.clone(), energy(start)[1], 1 / num_steps, num_steps
        )
        errors.append(abs(total(energy, end, moved) - before))
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_energies_of_many_weights_are_precise():
    """A million weights whose energy in float32 is wrong by more than what decides."""
    n = 1_000_000
    start = 1e-3 * torch.randn(n, generator=generator())

    def energy(weights):
        return 0.5 * weights.square().sum(dtype=torch.float64), weights.clone()

    sampler = Chain(energy, start, generator(), step_size=1e-3, num_steps=1, warmup=0)
    sampler.sample()
    assert sampler.n_accepted == 1
    exact = 0.5 * float(sampler.weights.double().square().sum())
    assert sampler.value == pytest.approx(exact, rel=1e-7)
