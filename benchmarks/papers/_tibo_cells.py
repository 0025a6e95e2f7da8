"""What is measured on the networks of Tibo et al.: functions of cells, and the cells."""

from dataclasses import dataclass, field

import numpy as np
from _rerun import Cell
from _tibo_nets import (
    MANIFOLD_REGIMES,
    REGIMES,
    attacks,
    autoencoder,
    classifier,
    images,
    one_radius,
    training,
)

from skrobust.datasets import fetch_mnist_c, fetch_svhn
from skrobust.scorers import CorruptionRobustness, ManifoldRobustness, MarginRobustness

__all__ = ["Plan", "chosen", "has_corruptions", "has_svhn", "plan"]

TOLERANCE = 0.01  # of validation accuracy that a weight may cost


@dataclass
class Plan:
    """The cells of a rerun, by what they are of.

    Parameters
    ----------
    codes : dict of str to Cell
        The autoencoder of a data set.
    candidates : dict of (data, regime) to list of Cell
        A network for each weight; one alone where there is no weight.
    networks : dict of the same keys to Cell
        The one that validation images choose.
    correct : dict of the same keys to Cell
        Which test images are classified correctly.
    margins, one_ball : dict of the same keys to Cell
        R2, and which attack came closest, by attacks in ever smaller balls, and in one alone.
    manifold, corrupted : dict of the same keys to Cell
        R4, and which corrupted images are classified correctly.
    """

    codes: dict = field(default_factory=dict)
    candidates: dict = field(default_factory=dict)
    networks: dict = field(default_factory=dict)
    correct: dict = field(default_factory=dict)
    margins: dict = field(default_factory=dict)
    one_ball: dict = field(default_factory=dict)
    manifold: dict = field(default_factory=dict)
    corrupted: dict = field(default_factory=dict)

    @property
    def data(self):
        """Names of the data sets that are here."""
        return list(dict.fromkeys(data for data, _ in self.networks))

    def stages(self):
        """Return the cells in the order in which they should run: one data set after another.

        What a cell builds on is in an earlier stage, so that two processes do not compute it.
        """
        for data in self.data:
            if data in self.codes:
                yield f"{data}: autoencoder", [self.codes[data]]
            keys = [key for key in self.networks if key[0] == data]
            yield f"{data}: networks", [cell for key in keys for cell in self.candidates[key]]
            yield f"{data}: weights", [self.networks[key] for key in keys]
            measured = (self.correct, self.corrupted, self.margins, self.one_ball, self.manifold)
            cells = [part[key] for part in measured for key in keys if key in part]
            yield f"{data}: figures", cells

    def cells(self):
        """Return all cells."""
        return [cell for _, cells in self.stages() for cell in cells]


def plan(budget, seed, device="cpu"):
    """Return the Plan of a budget, without the data that are not there."""
    result = Plan()
    for data in budget.recipes:
        if data != "svhn" or has_svhn():
            _networks(result, budget, data, seed, device)
            _figures(result, budget, data, seed)
    return result


def _networks(result, budget, data, seed, device):
    """Add the networks of a data set, a choice among them for each regime."""
    recipe = budget.recipes[data]
    part = {"data": data, "sizes": recipe.sizes, "seed": seed}
    names = REGIMES
    if data == budget.manifold:
        names += MANIFOLD_REGIMES
        model = autoencoder(budget, data, device, seed)
        result.codes[data] = Cell(f"{data}-codes", codes, part | {"model": model})
    for name in names:
        further = {"codes": result.codes[data]} if name in MANIFOLD_REGIMES else {}
        cells = []
        for weight in recipe.weights.get(name, (None,)):
            model = classifier(recipe, data, training(budget, name, weight), device, seed)
            settings = part | further | {"model": model, "weight": weight}
            cells.append(Cell(_name(data, name, weight), trained, settings))
        result.candidates[data, name] = cells
        result.networks[data, name] = cells[0]
        if len(cells) > 1:
            settings = {f"candidate_{i}": cell for i, cell in enumerate(cells)}
            settings["plain"] = result.candidates[data, "none"][0]
            result.networks[data, name] = Cell(_name(data, name, "chosen"), chosen, settings)


def _figures(result, budget, data, seed):
    """Add what is measured on the networks of a data set."""
    recipe = budget.recipes[data]
    part = {"data": data, "sizes": recipe.sizes, "seed": seed}
    for key in [key for key in result.networks if key[0] == data]:
        net = {"net": result.networks[key]}
        result.correct[key] = Cell(_name(*key, "accuracy"), correct, part | net)
        settings = {"attack": attacks(budget.pgd_steps), "n_images": recipe.n_margin}
        result.margins[key] = Cell(_name(*key, "margins"), margins, part | net | settings)
        settings |= {"attack": attacks(budget.pgd_steps, one_radius(data))}
        result.one_ball[key] = Cell(_name(*key, "one-ball"), margins, part | net | settings)
        if data == budget.corrupted and key[1] in REGIMES and has_corruptions():
            result.corrupted[key] = Cell(_name(*key, "corrupted"), corrupted, net)
        if data == budget.manifold:
            settings = {
                "codes": result.codes[data],
                "sigma": budget.sigma,
                "n_points": budget.n_scored,
                "n_images": budget.n_manifold,
            }
            result.manifold[key] = Cell(_name(*key, "manifold"), manifold, part | net | settings)


def _name(*parts):
    return "-".join(str(part).replace(".", "") for part in parts if part is not None)


def has_svhn():
    """Return whether the files of SVHN are there, of both parts."""
    try:
        for subset in ("train", "test"):
            fetch_svhn(subset=subset, download_if_missing=False)
    except OSError:
        return False
    return True


def has_corruptions():
    """Return whether the files of MNIST-C are there."""
    try:
        fetch_mnist_c(corruption="fog")
    except OSError:
        return False
    return True


# ---- what is trained ---------------------------------------------------------------------------


def codes(model, data, sizes, seed):
    """Return the autoencoder, fitted to the training images alone."""
    return model.fit(images(data, "train", **sizes, seed=seed)[0])


def trained(model, weight, data, sizes, seed, codes=None):
    """Return a network, its weight, and its accuracy on validation images.

    `codes` is the fitted autoencoder that its regime needs.
    """
    if codes is not None:
        model.set_params(training__autoencoder=codes)
    model.fit(*images(data, "train", **sizes, seed=seed))
    share = model.score(*images(data, "validation", **sizes, seed=seed))
    return {"model": model, "weight": weight, "validation": float(share)}


def chosen(plain, **candidates):
    """Return the network of the largest weight that costs next to no validation accuracy.

    Where all cost more than the tolerance, it is the one that costs least.
    """
    nets = sorted(candidates.values(), key=lambda net: net["weight"])
    fair = [net for net in nets if net["validation"] >= plain["validation"] - TOLERANCE - 1e-12]
    best = fair[-1] if fair else max(nets, key=lambda net: net["validation"])
    known = [(net["weight"], net["validation"]) for net in nets]
    return best | {"candidates": known, "is_within": bool(fair)}


# ---- what is measured --------------------------------------------------------------------------


def correct(net, data, sizes, seed):
    """Return which of all test images are classified correctly."""
    X, y = images(data, "test", **sizes, seed=seed)
    return net["model"].predict(X) == y


def margins(net, data, sizes, seed, attack, n_images):
    """Return the result of R2: L2, from the classifier's own label, up to the diameter."""
    X, _ = images(data, "test", **sizes, seed=seed)
    scorer = MarginRobustness("l2", attack=attack, random_state=seed)
    return scorer.evaluate(net["model"], X[:n_images])


def corrupted(net):
    """Return the names of the corruptions, and which digits are right under each, (n, 15).

    No network was trained on them.
    """
    clean, y = fetch_mnist_c(corruption="identity", return_X_y=True)
    found = fetch_mnist_c()
    if not np.array_equal(found.target, y):
        raise ValueError("Got other digits in MNIST-C's identity than in its corruptions.")
    result = CorruptionRobustness(found.data).evaluate(net["model"], clean, y)
    return {"names": result.names, "correct": result.predictions == y[:, None]}


def manifold(net, data, sizes, seed, codes, sigma, n_points, n_images):
    """Return the result of R4; the seed gives all networks the same points."""
    X, _ = images(data, "test", **sizes, seed=seed)
    scorer = ManifoldRobustness(codes, sigma, n_samples=n_points, random_state=seed)
    return scorer.evaluate(net["model"], X[:n_images])
