"""Training on in rounds: what each adds, the classifier at the end, and the same data again."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.pipeline import Pipeline
from skorch.callbacks import LRScheduler

from skrobust._keys import digest

__all__ = []


@dataclass(frozen=True, eq=False)
class Round:
    """What one round added to the data, and what it took."""

    n_examples: int
    n_found: int  # before rounding
    distance: float
    seconds: float
    points: np.ndarray | None
    origin: np.ndarray | None  # the row of X that each was made of

    def without_data(self):
        """Return the counts alone."""
        return replace(self, points=None, origin=None)


def last_step(model):
    """Return the classifier at the end of a pipeline, or the one that it is."""
    return model.steps[-1][1] if isinstance(model, Pipeline) else model


def fit_before_last_step(model, X, y):
    """Fit what stands before the last step, if anything; return what that step is given."""
    if not isinstance(model, Pipeline) or len(model.steps) == 1:
        return X
    head = model[:-1]
    rows = head.fit_transform(X, y)
    model.steps[:-1] = head.steps  # others than before, where the pipeline has a memory
    return rows


def before_last_step(model, X):
    """Return what the last step is given for inputs of the whole."""
    has_head = isinstance(model, Pipeline) and len(model.steps) > 1
    return model[:-1].transform(X) if has_head else X


def slow_down(net, factor):
    """Train on at a constant share of the learning rate that a net's training ended with."""
    for group in net.optimizer_.param_groups:
        group["lr"] *= factor
    # skorch would build them anew for each round, from the learning rate of the beginning.
    net.callbacks_ = [
        (name, callback)
        for name, callback in net.callbacks_
        if not isinstance(callback, LRScheduler)
    ]


def keys_of(X, y, sample_weight):
    """Return what tells data from others; labels of any kind of array are the same labels."""
    data = {"X": X, "y": y.tolist(), "sample_weight": sample_weight}
    return {name: digest(value) for name, value in data.items()}


def check_same_data(keys, earlier):
    """Raise a ValueError if data are others than those of the last call."""
    others = [name for name, key in keys.items() if key != earlier[name]]
    if others:
        raise ValueError(
            f"Got warm_start=True and another {' and another '.join(others)} than in the last "
            "call, but expected the same data, since the rounds that are finished belong to "
            "them. Set warm_start=False to begin anew."
        )
