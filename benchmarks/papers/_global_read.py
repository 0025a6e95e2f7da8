"""What the rerun on global robustness has kept, put together by figure."""

import numpy as np
from _global_statistics import chosen_delta, correlation

from skrobust.statistics import sample_size

__all__ = ["Networks", "Read", "estimates", "is_pruned", "method"]

LEARNED = 0.5  # accuracy on validation images below which a network counts as untrained
# What tells one training from another; what one network is read or pruned at is no part of it.
_TRAINING = ("depth", "width", "activation", "lr", "conv_depth", "blocks", "filters", "kernel")
_SAMPLING = ("step_size", "num_steps", "n_samples")


class Networks:
    """Networks as cells return them, read at one radius.

    Parameters
    ----------
    nets : list of dict
    delta : float
    """

    def __init__(self, nets, delta):
        self.nets, self.delta = nets, delta

    def __len__(self):
        return len(self.nets)

    def of(self, name):
        """Return a hyperparameter, the accuracy or the number of weights of each network."""
        return [net[name] for net in self.nets]

    def robustness(self, measure):
        """Return 1 - D of each network."""
        return np.array([1 - net["test"][self.delta][measure] for net in self.nets])

    def trainings(self):
        """Return what the networks of one training have in common."""
        return [tuple(net.get(name) for name in _TRAINING + _SAMPLING) for net in self.nets]

    def where(self, keep):
        return Networks([net for net in self.nets if keep(net)], self.delta)

    def learned(self):
        return self.where(lambda net: net["validation_accuracy"] >= LEARNED)

    def correlation(self, name, measure):
        """Return that of a hyperparameter, or of the accuracy, and robustness."""
        return correlation(self.of(name), self.robustness(measure), self.trainings())


class Read:
    """What a rerun has kept, by figure; networks are read at the radius of their data set.

    Parameters
    ----------
    rerun : Rerun
    plan : Plan

    Attributes
    ----------
    deltas : dict of str to float
        Chosen on validation images, for each data set of figure 2.
    trade_off, pruning, sampling : dict of pair of str to Networks or None
        None where no cell was run.
    planned : dict of pair of str to int
        Trainings of figure 2.
    """

    def __init__(self, rerun, plan):
        self.rerun, self.plan = rerun, plan
        by_figure = [
            self._networks(part) for part in (plan.trade_off, plan.pruning, plan.sampling)
        ]
        self.deltas = {}
        for data in dict.fromkeys(data for part in by_figure for data, _ in part):
            # Of the networks of figure 2; of the others where there is none.
            for part in by_figure:
                nets = [net for of, nets in part.items() for net in nets if of[0] == data]
                if nets:
                    self.deltas[data] = chosen_delta(nets, LEARNED)
                    break
        self.trade_off, self.pruning, self.sampling = (
            {of: Networks(nets, self.deltas[of[0]]) if nets else None for of, nets in part.items()}
            for part in by_figure
        )
        self.planned = {of: len(cells) for of, cells in plan.trade_off.items()}

    def _networks(self, part):
        values = {of: [self.rerun.value(cell) for cell in cells] for of, cells in part.items()}
        return {
            of: [net for nets in known if nets is not None for net in nets]
            for of, known in values.items()
        }

    def convergence(self):
        """Return the verdicts of the test images of figure 1, or None."""
        parts = [self.rerun.value(cell) for cell in self.plan.verdicts]
        if any(part is None for part in parts):
            return None
        return np.concatenate([part["verdicts"] for part in parts])


def estimates(robust, tolerances, n_estimates, seed):
    """Return independent estimates of a share at each tolerance, each of as many draws as needed.

    Parameters
    ----------
    robust : ndarray of bool, shape (n,)
    tolerances : tuple of float
    n_estimates : int
    seed : int

    Returns
    -------
    dict of float to ndarray of shape (n_estimates,)
    """
    random = np.random.default_rng(seed)
    return {
        tolerance: random.choice(robust, (n_estimates, sample_size(tolerance))).mean(axis=1)
        for tolerance in tolerances
    }


def method(net):
    """Return how a network of figure 4 was made."""
    return "HMC" if "step_size" in net else "SGD"


def is_pruned(net):
    """Return which group of figure 3 a network is in."""
    return "pruned" if net["amount"] > 0 else "not pruned"
