"""Whether chains of samples look as if they had reached their distribution."""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

__all__ = []

_R_HAT = 1.1  # Gelman et al., "Bayesian Data Analysis", 3rd edition, section 11.4
_EFFECTIVE = 10  # for each chain; the same, section 11.5
_ACCEPTANCE = 0.4  # the cost is lowest around 0.65: Neal 2011, section 5.4.4
_FEWEST = 4  # samples of a chain that can be split into halves which have a variance


def r_hat(draws):
    """Return the split R-hat of quantities, by Pyro; NaN where there is no test.

    Parameters
    ----------
    draws : ndarray of shape (n_chains, n_draws, n_quantities)

    Returns
    -------
    ndarray of shape (n_quantities,)
        NaN with one chain, with fewer than four draws of each, and for what never changed.
    """
    if draws.shape[0] < 2 or draws.shape[1] < _FEWEST:
        return np.full(draws.shape[2], np.nan)
    from pyro.ops.stats import split_gelman_rubin

    values = split_gelman_rubin(_tensor(draws)).numpy()
    return np.where(_constant(draws), np.nan, values)


def effective_sample_size(draws):
    """Return the effective number of independent draws of quantities, by Pyro.

    Parameters
    ----------
    draws : ndarray of shape (n_chains, n_draws, n_quantities)

    Returns
    -------
    ndarray of shape (n_quantities,)
        NaN with fewer than four draws of each chain, and for what never changed. An estimate
        below 0, as a handful of draws can give, counts as 0.
    """
    if draws.shape[1] < _FEWEST:
        return np.full(draws.shape[2], np.nan)
    from pyro.ops.stats import effective_sample_size

    # One by one: Pyro takes memory for the square of the number of draws of each.
    values = [float(effective_sample_size(draw)) for draw in _tensor(draws).unbind(dim=2)]
    return np.where(_constant(draws), np.nan, np.maximum(values, 0.0))


def _tensor(draws):
    return torch.from_numpy(np.ascontiguousarray(draws, dtype=np.float64))


def _constant(draws):
    return np.ptp(draws, axis=(0, 1)) == 0


def warn_if_poor(r_hat, effective, acceptance, n_draws, interrupted):
    """Give one ConvergenceWarning that names all that speaks against the samples.

    Parameters
    ----------
    r_hat, effective : ndarray of shape (n_quantities,)
    acceptance : ndarray of shape (n_chains,)
    n_draws : int
        Of each chain, after the warm-up.
    interrupted : bool
    """
    n_chains = len(acceptance)
    reasons = []
    if interrupted:
        reasons.append(f"an interrupt left {n_draws or 'no'} samples of each chain")
    if n_chains < 2:
        reasons.append("there is no test of convergence with one chain (n_chains=1)")
    elif n_draws < _FEWEST:
        reasons.append(f"there is no test of convergence with {n_draws} samples of each chain")
    if (r_hat > _R_HAT).any():
        reasons.append(f"R-hat is up to {np.nanmax(r_hat):.3g}, above {_R_HAT}")
    fewest = _EFFECTIVE * n_chains
    if (effective < fewest).any():
        reasons.append(
            f"the effective sample size is down to {np.nanmin(effective):.3g}, below {fewest}"
        )
    if (acceptance < _ACCEPTANCE).any():
        shown = ", ".join(f"{rate:.2f}" for rate in acceptance)
        reasons.append(f"acceptance rates are {shown}, below {_ACCEPTANCE}")
    if reasons:
        warnings.warn(
            f"The samples may not be those of the posterior: {'; '.join(reasons)}. Rates of "
            "acceptance rise with a smaller step_size (or adapt_step_size=True); with a good "
            "rate, more num_steps, warmup or n_samples bring chains together.",
            ConvergenceWarning,
            stacklevel=4,
        )
