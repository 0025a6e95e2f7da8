"""What the rerun on global robustness computes: one training, one pruning, one posterior a cell.

A training by SGD is the same up to its k-th epoch however long it goes on. So one network is
trained for the largest number of epochs of a grid and read at each smaller one: a cell returns a
list of networks, each a dict of its hyperparameters, its number of weights and its `reading`.
"""

import copy
import warnings
from itertools import product

import numpy as np
from _global_nets import capacity, changes, classifier, images, reading
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator

from skrobust import RobustClassifier
from skrobust.estimators import MagnitudePruning
from skrobust.exceptions import DivergedTrainingError
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction

__all__ = ["by_fgsm", "decided", "fitted", "posterior", "pruned", "trained"]


def _sets(data, sizes, seed):
    """Return training, validation and test images, each with labels, and their shape."""
    parts = [images(data, part, seed=seed, **sizes) for part in ("train", "validation", "test")]
    return [part[:2] for part in parts], parts[0][2]


def trained(data, sizes, config, epochs, batch_size, optimizer, n_attacked, device, seed):
    """Train one network, and read it after each of some numbers of epochs.

    Parameters
    ----------
    data : str
    sizes : dict
        Arguments of `images`.
    config : dict
        Arguments of `build`, and "lr".
    epochs : list of int
        Rising.
    batch_size, optimizer, n_attacked, device, seed
        See `classifier` and `reading`.

    Returns
    -------
    list of dict
        Fewer than asked for where the training diverges.
    """
    (train, validation, test), shape = _sets(data, sizes, seed)
    options = {"batch_size": batch_size, "optimizer": optimizer, "device": device, "seed": seed}
    model = classifier(shape, config, **options)
    nets = []
    for n_epochs in _fit_on(model, *train, epochs):
        found = {"epochs": n_epochs, "weights": capacity(model)}
        nets.append(config | found | reading(model, test, validation, n_attacked))
    return nets


def _fit_on(model, X, y, epochs):
    """Train a model, and yield the numbers of epochs where it is to be read."""
    classes = np.unique(y)
    for n_epochs in range(1, max(epochs) + 1):
        try:
            model.partial_fit(X, y, classes=classes)
        except DivergedTrainingError:
            return
        if n_epochs in epochs:
            yield n_epochs


def pruned(
    data,
    sizes,
    config,
    epochs,
    amounts,
    iterations,
    n_further,
    batch_size,
    n_attacked,
    device,
    seed,
):
    """Train one network, and prune it as far as each of `amounts`, in each number of iterations.

    Parameters
    ----------
    amounts : list of float
        Shares to remove.
    iterations : list of int
    n_further : int or None
        Epochs of each iteration; None is as many as those before pruning.

    Returns
    -------
    list of dict
        With "amount" 0 and "iterations" 0 for the network before pruning, and with "amount" 0 for
        one that is trained on, as long as the pruned ones, without pruning.
    """
    (train, validation, test), shape = _sets(data, sizes, seed)
    model = classifier(shape, config, batch_size=batch_size, device=device, seed=seed)
    nets = []

    def add(net, **settings):
        settings |= {"epochs": n_epochs, "weights": capacity(model)}
        nets.append(config | settings | reading(net, test, validation, n_attacked))

    for n_epochs in _fit_on(model, *train, epochs):
        add(model, amount=0.0, iterations=0)
        further = n_epochs if n_further is None else n_further
        for n_iterations, amount in product(iterations, [0.0, *amounts]):
            try:
                net = _further(model, *train, amount, n_iterations, further)
            except DivergedTrainingError:
                continue
            add(net, amount=amount, iterations=n_iterations)
    return nets


def _further(model, X, y, amount, n_iterations, n_epochs):
    """Return a copy of a network that is pruned, or merely trained on for as long."""
    net = copy.deepcopy(model)
    if amount > 0:
        pruning = MagnitudePruning(FrozenEstimator(net), amount, n_iterations, n_epochs=n_epochs)
        return pruning.fit(X, y).estimator_
    for _ in range(n_iterations * n_epochs):
        net.partial_fit(X, y)
    return net


def posterior(data, sizes, config, sampling, n_attacked, device, seed):
    """Sample the posterior of a perceptron, and read the mean of its predictions.

    Parameters
    ----------
    config : dict
        "depth", "width" and "activation".
    sampling : dict
        Further arguments of BayesianClassifier.

    Returns
    -------
    list of dict
        Of one network, with the rate of acceptance and the least effective sample size; none
        where its chain diverges.
    """
    from skrobust.estimators import BayesianClassifier

    (train, validation, test), _ = _sets(data, sizes, seed)
    model = BayesianClassifier(
        hidden_layer_sizes=(config["width"],) * config["depth"],
        activation=config["activation"],
        n_chains=1,
        device=device,
        random_state=seed,
        **sampling,
    )
    with warnings.catch_warnings():
        # Of one chain there is always a warning; what it says is in the report.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            model.fit(*train)
        except DivergedTrainingError:
            return []
    n_classes = len(model.classes_)
    own = {
        "weights": _n_weights(train[0].shape[1], n_classes, config["depth"], config["width"]),
        "acceptance": float(np.mean(model.acceptance_rate_)),
        "effective": float(np.min(np.nan_to_num(model.effective_sample_size_))),
    }
    return [config | sampling | own | reading(model, test, validation, n_attacked)]


def _n_weights(n_inputs, n_classes, depth, width):
    """Return the number of parameters of a perceptron."""
    return (n_inputs + 1) * width + (depth - 1) * (width + 1) * width + (width + 1) * n_classes


# ---- figure 1 --------------------------------------------------------------------------


def fitted(data, sizes, module, lr, epochs, batch_size, seed):
    """Return the network of figure 1."""
    X, y, shape = images(data, "train", seed=seed, **sizes)
    return RobustClassifier(
        module,
        module_params={"input_shape": shape},
        input_shape=shape,
        lr=lr,
        batch_size=batch_size,
        max_epochs=epochs,
        random_state=seed,
    ).fit(X, y)


def decided(model, data, sizes, points, delta, timeout, seed):
    """Return the verdicts of a complete verifier on some test images."""
    X, _, _ = images(data, "test", seed=seed, **sizes)
    property = ClassificationRobustness(delta, reference="prediction")
    scorer = ConstraintSatisfaction(property, timeout=timeout, random_state=seed)
    result = scorer.evaluate(model, X[slice(*points)])
    return {"verdicts": result.verdicts, "seconds": result.seconds}


def by_fgsm(model, data, sizes, delta, seed):
    """Return whether FGSM changes the label of each test image."""
    X, _, _ = images(data, "test", seed=seed, **sizes)
    return changes(model, X, delta)[1]
