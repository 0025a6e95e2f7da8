"""Splitting: the ideal process and its intervals, uniform points, and walks that keep them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betainc
from scipy.stats import beta, chi2, kstest

from skrobust.attacks import Target
from skrobust.properties import ClassificationRobustness, LinearRobustness
from skrobust.scorers._splitting import (
    Splitting,
    _coordinates,
    _descending,
    _Particles,
    waiting_time,
)
from skrobust.statistics import clopper_pearson


def plan(n_samples=400, n_particles=100, n_replaced=50, n_steps=10, max_evaluations=100_000):
    return Splitting(n_samples, n_particles, n_replaced, n_steps, max_evaluations, 2048)


# ---- counts to probabilities --------------------


@pytest.mark.parametrize("n_passed", [1, 7, 60, 900])
@pytest.mark.parametrize("confidence", [0.9, 0.999])
def test_last_particle_has_the_interval_of_a_poisson_count(n_passed, confidence):
    n = 50
    one = plan(n, n, 1)
    # Each level replaces one particle; then all others break the property.
    low, high = one.interval(n_passed + 1, 0, confidence)
    miss = (1 - confidence) / 2
    assert high == pytest.approx(math.exp(-chi2.ppf(miss, 2 * n_passed) / (2 * n)), rel=1e-9)
    exact = math.exp(-chi2.ppf(1 - miss, 2 * n_passed + 2) / (2 * n))
    assert low == pytest.approx(exact, rel=1e-9)
    assert one.estimate(n_passed + 1, 0) == pytest.approx((1 - 1 / n) ** n_passed)


@settings(max_examples=20)
@given(st.integers(0, 400), st.floats(0.5, 0.9999))
def test_plain_draws_have_the_interval_of_clopper_and_pearson(n_holding, confidence):
    exact = clopper_pearson(400 - n_holding, 400, confidence)
    assert plan().interval(0, n_holding, confidence) == (exact.low, exact.high)
    assert plan().estimate(0, n_holding) == (400 - n_holding) / 400


@pytest.mark.parametrize("probability", [1e-4, 0.025, 0.5, 0.975, 1 - 1e-4])
def test_waiting_time_of_one_level_is_that_of_an_order_statistic(probability):
    # Of 400 uniform numbers the 300 largest passed: minus the logarithm of a beta variable.
    exact = -math.log(beta.ppf(1 - probability, 101, 300))
    rates = np.arange(400, 100, -1.0)
    deviation = math.sqrt((rates**-2).sum())
    assert abs(waiting_time(rates, probability) - exact) < 0.01 * deviation


@pytest.mark.parametrize("n_levels", [1, 3, 20])
@pytest.mark.parametrize("probability", [1e-3, 0.025, 0.975, 0.999])
def test_waiting_time_by_inversion_of_the_characteristic_function(n_levels, probability):
    rates = plan()._rates(n_levels, 30)
    assert len(rates) == 300 + 50 * (n_levels - 1) + 30
    found = waiting_time(rates, probability)

    def integrand(t):  # Gil-Pelaez
        log = -np.log(1 - 1j * t / rates).sum()
        return (np.exp(log - 1j * t * found)).imag / t

    limit = 12 / math.sqrt((rates**-2.0).sum())
    below = 0.5 - quad(integrand, 1e-9, limit, limit=500)[0] / math.pi
    assert below == pytest.approx(probability, rel=0.02, abs=2e-4)


@pytest.mark.parametrize("n_replaced", [5, 50, 90])
@pytest.mark.parametrize("log_p", [-0.5, -4.0, -9.0])
def test_ideal_runs_are_unbiased_and_covered(n_replaced, log_p):
    rng = np.random.default_rng(0)
    splitting, runs = plan(n_replaced=n_replaced), []
    for _ in range(400):
        times, n_levels, n_leaving = rng.exponential(size=400), 0, 300
        while True:  # times of exponential particles; those above -log_p break the property
            n_holding = (times < -log_p).sum()
            if n_holding <= n_leaving:
                break
            times = np.sort(times)
            level, times = times[n_leaving - 1], times[n_leaving:]
            fresh = level + rng.exponential(size=100 - len(times))
            times, n_leaving = np.concatenate([times, fresh]), n_replaced
            n_levels += 1
        passed = n_holding == n_leaving
        runs.append((n_levels + int(passed), 0 if passed else int(n_holding)))
    estimates = np.array([splitting.estimate(*run) for run in runs])
    error = estimates.std() / math.sqrt(400)
    assert abs(estimates.mean() - math.exp(log_p)) < 4 * error
    ends = {run: splitting.interval(*run, 0.9) for run in set(runs)}
    intervals = np.array([ends[run] for run in runs])
    covered = (intervals[:, 0] <= math.exp(log_p)) & (math.exp(log_p) <= intervals[:, 1])
    assert 0.86 < covered.mean() < 0.98


def test_where_nothing_breaks_there_is_an_upper_bound():
    low, high = plan().interval(5, 100, 0.95)
    assert low == 0
    assert plan().estimate(5, 100) == 0
    # Below the probability of the last level, by all hundred particles.
    assert high < plan().interval(5, 99, 0.95)[1] < plan().interval(4, 100, 0.95)[1]
    plain = clopper_pearson(0, 100).high
    assert high / (0.25 * 0.5**4 * plain) == pytest.approx(1, rel=0.1)


@given(
    st.integers(2, 300), st.data(), st.integers(1, 50), st.integers(0, 200_000), st.integers(0, 99)
)
def test_evaluations_stay_in_the_budget(n_particles, data, n_steps, more, extra):
    n_replaced = data.draw(st.integers(1, n_particles - 1))
    n_samples = n_particles + extra
    splitting = plan(n_samples, n_particles, n_replaced, n_steps, n_samples + more)
    moves = (splitting.max_levels - 1) * n_replaced * n_steps
    assert moves <= max(more - 1, 0)
    least = (1 - n_replaced / n_particles) ** (splitting.max_levels - 1)
    assert least >= np.finfo(float).tiny


# ---- points --------------------


def linear_target(weight, bias, x, property):
    layer = torch.nn.Linear(len(weight), 1).double()
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(np.array([weight])))
        layer.bias.fill_(bias)
    return Target(layer, property, torch.tensor(x, dtype=torch.float64))


def rows(epsilon, norm="linf", bounds=(0.0, 1.0)):
    return LinearRobustness(([[1.0]], [0.0]), epsilon, norm=norm, bounds=bounds)


def walked(target, n=4000, n_steps=25):
    """Draw uniform points, and walk from them without a level."""
    generator = torch.Generator().manual_seed(0)
    particles = _Particles(target, 2048)
    particles.draw(n, n, generator)
    particles.step.fill_(0.3)
    start = particles.coordinates.points(particles.z)[0]
    anywhere = torch.full((len(target), 1), torch.inf, dtype=torch.float64)
    z, values, _ = particles._walk(
        particles.z, particles.values, particles.ties, (anywhere, anywhere), n_steps, generator
    )
    end = particles.coordinates.points(z)[0]
    torch.testing.assert_close(values, particles.values_at(end))
    return start[0].numpy(), end[0].numpy()


def test_walks_in_a_box_stay_uniform():
    property = rows([0.1, 0.2, 0.0, 0.3])
    target = linear_target([1.0, 1.0, 1.0, 1.0], 9.0, [[0.5, 0.1, 0.5, 1.0]], property)
    for points in walked(target):
        for j, (low, width) in enumerate([(0.4, 0.2), (0.0, 0.3), (0.5, 0.0), (0.7, 0.3)]):
            if width:
                assert kstest(points[:, j], "uniform", (low, width)).pvalue > 1e-3
            else:
                assert (points[:, j] == low).all()


def test_walks_in_a_quarter_disc_stay_uniform():
    target = linear_target([1.0, 1.0], 9.0, [[0.0, 1.0]], rows(1.0, "l2"))
    # The area of x1 < 1/2 in the quarter disc, from the antiderivative of sqrt(1 - x^2).
    exact = (0.5 * math.sqrt(0.75) + math.asin(0.5)) / 2 / (math.pi / 4)
    assert exact == pytest.approx(0.609, abs=5e-4)
    for points in walked(target):
        assert ((points >= 0) & (points <= 1)).all()
        assert np.mean(points[:, 0] < 0.5) == pytest.approx(exact, abs=0.035)
        assert np.mean(points[:, 1] > 0.5) == pytest.approx(exact, abs=0.035)


@pytest.mark.parametrize("d", [3, 40])
def test_walks_in_a_ball_that_is_cut_off_center_stay_uniform(d):
    x = np.full((1, d), 0.5)
    x[0, 0], x[0, 1] = 0.05, 0.0
    epsilon = np.full(d, 0.2)
    epsilon[2] = 0.0
    target = linear_target(np.ones(d), 9.0, x, rows(epsilon, "l2"))
    start, end = walked(target)
    assert (end[:, 2] == 0.5).all()
    assert (end >= 0).all()
    # One coordinate of a uniform point of the ball of d - 1 dimensions, cut at -1/4.
    both = (end[:, 0] - 0.05) / 0.2

    def below(u):
        tail = 0.5 * betainc(d / 2, 0.5, 1 - u * u)
        return np.where(u < 0, tail, 1 - tail)

    def cut_below(u):
        return (below(u) - below(-0.25)) / (1 - below(-0.25))

    assert kstest(both, cut_below).pvalue > 1e-3
    assert kstest((start[:, 0] - 0.05) / 0.2, cut_below).pvalue > 1e-3


def test_walks_stay_below_the_level_and_reach_what_is_there():
    target = linear_target([1.0, 0.0], -0.3, [[0.5, 0.5]], rows(0.2))
    generator = torch.Generator().manual_seed(0)
    particles = _Particles(target, 2048)
    particles.draw(2000, 2000, generator)
    for expected in (0.5, 0.25, 0.125):
        level = particles.values[0].sort(descending=True).values[999]
        particles.lower(1000, 20, generator)
        # Nothing is broken: values are uniform in [0, 0.4], and half of them are left each time.
        assert particles.values.max() <= level
        assert particles.values.max() == pytest.approx(0.4 * expected, rel=0.1)
        shares = particles.values[0].numpy() / particles.values.max().item()
        assert np.abs(np.sort(shares) - np.linspace(0, 1, 2000)).max() < 0.08
    assert 0.15 < particles.acceptance.item() < 0.5


def test_order_by_value_and_then_by_ties():
    values = torch.tensor([[1.0, 3.0, 1.0, -torch.inf, 3.0]])
    ties = torch.tensor([[0.9, 0.1, 0.2, 0.5, 0.7]])
    assert _descending(values, ties).tolist() == [[4, 1, 0, 2, 3]]


def test_coordinates_by_the_norm():
    x = torch.full((1, 3), 0.5)
    box = _coordinates(ClassificationRobustness(0.1).ball(x))
    z = torch.tensor([[[0.0, 40.0, -40.0]]])
    torch.testing.assert_close(box.points(z)[0], torch.tensor([[[0.5, 0.6, 0.4]]]))
    ball = _coordinates(ClassificationRobustness(0.1, norm="l2").ball(x))
    points, inside = ball.points(torch.tensor([[[3.0, 0.0, 0.0, 4.0, 0.0]]]))
    torch.testing.assert_close(points, torch.tensor([[[0.56, 0.5, 0.5]]]))
    assert inside.all()
