"""R-hat, effective sample sizes, and the warning that reads them."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

pytest.importorskip("pyro")
from skrobust.estimators._convergence import effective_sample_size, r_hat, warn_if_poor


def independent(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def autoregressive(n_chains, n, rho, seed=0):
    noise = independent((n_chains, n), seed)
    draws = np.empty_like(noise)
    draws[:, 0] = noise[:, 0]
    for i in range(1, n):
        draws[:, i] = rho * draws[:, i - 1] + np.sqrt(1 - rho**2) * noise[:, i]
    return draws[:, :, None]


def test_r_hat_by_its_formula():
    draws = independent((3, 10, 2)) + np.array([0.0, 1.0, 3.0])[:, None, None]
    halves = draws.reshape(6, 5, 2)
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    np.testing.assert_allclose(r_hat(draws), np.sqrt((4 / 5 * within + between) / within))


def test_r_hat_tells_chains_that_differ():
    draws = independent((4, 200, 3))
    draws[0, :, 1] += 3.0  # one chain elsewhere
    draws[:, :100, 2] += 2.0  # all of them move
    same, elsewhere, moving = r_hat(draws)
    assert same < 1.02
    assert elsewhere > 1.3 and moving > 1.3


@pytest.mark.parametrize("draws", [independent((1, 50, 2)), independent((3, 3, 2))])
def test_no_test_is_nan(draws):
    assert np.isnan(r_hat(draws)).all()


def test_constants_are_nan_and_chains_stuck_apart_are_not():
    draws = np.zeros((2, 10, 2))
    draws[1, :, 1] = 1.0
    constant, apart = r_hat(draws)
    assert np.isnan(constant) and apart == np.inf
    assert np.isnan(effective_sample_size(draws)[0])


def test_an_effective_sample_size_is_never_below_0():
    # Pyro's estimate is -14.4 for these four draws.
    draws = np.array([0.1, -0.1, 0.6, 0.1]).reshape(1, 4, 1)
    assert effective_sample_size(draws)[0] == 0


def test_effective_sample_size_of_known_processes():
    assert effective_sample_size(independent((2, 2000, 1)))[0] == pytest.approx(4000, rel=0.15)
    rho = 0.8
    expected = 8000 * (1 - rho) / (1 + rho)
    assert effective_sample_size(autoregressive(2, 4000, rho))[0] == pytest.approx(
        expected, rel=0.25
    )
    # With one chain it is that within the chain; with too few draws there is none.
    assert effective_sample_size(independent((1, 2000, 1)))[0] == pytest.approx(2000, rel=0.2)
    assert np.isnan(effective_sample_size(independent((2, 3, 1)))).all()


GOOD = {
    "r_hat": np.array([1.0, np.nan]),
    "effective": np.array([50.0, np.nan]),
    "acceptance": np.array([0.7, 0.8]),
    "n_draws": 50,
    "interrupted": False,
}


def test_good_samples_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_poor(**GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_hat": np.array([1.0, 1.2])}, r"R-hat is up to 1.2, above 1.1"),
        ({"r_hat": np.array([np.nan, np.inf])}, r"R-hat is up to inf"),
        ({"effective": np.array([50.0, 19.0])}, r"down to 19, below 20"),
        ({"acceptance": np.array([0.7, 0.39])}, r"rates are 0.70, 0.39, below 0.4"),
        ({"acceptance": np.array([0.9])}, r"no test of convergence with one chain"),
        ({"n_draws": 3}, r"no test of convergence with 3 samples"),
        ({"interrupted": True}, r"an interrupt left 50 samples of each chain"),
    ],
)
def test_what_is_poor_is_named(change, message):
    with pytest.warns(ConvergenceWarning, match=message):
        warn_if_poor(**(GOOD | change))
