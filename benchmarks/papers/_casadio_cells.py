"""What is measured on the networks of Casadio et al.: functions of cells, and the cells."""

from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
from _casadio_nets import (
    LARGE_REGIMES,
    REGIMES,
    SATISFACTION_REGIMES,
    images,
    large_network,
    network,
    paper_attack,
    properties,
    train,
)
from _casadio_published import EPSILONS
from _rerun import Cell

from skrobust.scorers import ConstraintAccuracy, ConstraintSatisfaction, ConstraintSecurity
from skrobust.verification import Marabou

__all__ = ["ATTACKED", "ATTACKS", "BALLS", "QUERIES", "Plan", "plan"]

QUERIES = ("CR", "SR", "LR")
ATTACKED = ("SR", "SCR", "SCR, code", "LR")
ATTACKS = ("paper's", "ours")  # None below is the scorer's default
BALLS = {"uncut": None, "cut": (0.0, 1.0)}


@dataclass
class Plan:
    """The cells of a rerun, by what they are of.

    Parameters
    ----------
    networks : dict of (data, hidden or "large", regime) to Cell
    accuracy : dict of the same keys to Cell
    security : dict of (*key, property, attack) to Cell
    sampled : dict of key to Cell
    satisfaction, marabou : dict of (*key, query, ball) to Cell
    """

    networks: dict = field(default_factory=dict)
    accuracy: dict = field(default_factory=dict)
    security: dict = field(default_factory=dict)
    sampled: dict = field(default_factory=dict)
    satisfaction: dict = field(default_factory=dict)
    marabou: dict = field(default_factory=dict)

    def stages(self):
        """Return the cells in the order in which they should run."""
        small = {key: cell for key, cell in self.networks.items() if key[1] != "large"}
        large = {key: cell for key, cell in self.networks.items() if key[1] == "large"}
        yield "small networks", [*small.values(), *of(self.accuracy, small)]
        yield "security", [*of(self.security, small), *of(self.sampled, small)]
        yield "satisfaction", [*self.satisfaction.values()]
        yield "large network", [*large.values()]
        yield "its figures", [*of(self.accuracy, large), *of(self.security, large)]
        yield "Marabou", [*self.marabou.values()]

    def cells(self):
        return [cell for _, cells in self.stages() for cell in cells]


def of(cells, networks):
    """Return those of some cells that are of the networks."""
    return [cell for key, cell in cells.items() if key[:3] in networks]


def plan(budget, seed, *, large=True, device="cpu"):
    """Return the Plan of a budget, with or without the large network, which `device` trains."""
    result = Plan()
    for data in budget.data:
        for regime in REGIMES:
            key = _network(result, budget, (data, 100, regime), seed)
            _security(result, budget, key, ATTACKED, budget.n_test, seed)
            _sampled(result, budget, key, seed)
        for regime in SATISFACTION_REGIMES:
            key = _network(result, budget, (data, 30, regime), seed)
            _satisfaction(result, budget, key, seed)
    for regime in LARGE_REGIMES if large else ():
        key = _network(result, budget, (budget.large_data, "large", regime), seed, device)
        _security(result, budget, key, ("SCR, code",), budget.large_test, seed)
    return result


def _network(result, budget, key, seed, device="cpu"):
    data, hidden, regime = key
    is_large = hidden == "large"
    if is_large:
        model = large_network(budget, regime, seed, device)
    else:
        model = network(budget, regime, hidden, seed)
    settings = {
        "model": model,
        "data": data,
        "n_train": budget.large_train if is_large else budget.n_train,
    }
    result.networks[key] = Cell(_name(*key), train, settings)
    settings = {"model": result.networks[key], "data": data}
    result.accuracy[key] = Cell(_name(*key, "accuracy"), accuracy, settings)
    return key


def _security(result, budget, key, attacked, n_test, seed):
    for name in attacked:
        for attack in ATTACKS:
            settings = {
                "model": result.networks[key],
                "data": key[0],
                "n_test": n_test,
                "property": properties()[name],
                "attack": _attack(budget, attack),
                "seed": seed,
            }
            cell = Cell(_name(*key, name, attack), security, settings)
            result.security[*key, name, attack] = cell


def _attack(budget, name):
    return paper_attack(budget.attack_steps) if name == "paper's" else budget.default_attack


def _sampled(result, budget, key, seed):
    settings = {
        "model": result.networks[key],
        "data": key[0],
        "n_test": budget.n_test,
        "n_samples": budget.n_sampled,
        "seed": seed,
    }
    result.sampled[key] = Cell(_name(*key, "sampled"), sampled, settings)


def _satisfaction(result, budget, key, seed):
    for ball, bounds in BALLS.items():
        for query in QUERIES:
            settings = {
                "model": result.networks[key],
                "data": key[0],
                "n_images": budget.n_satisfied,
                "property": properties(bounds)[query],
                "timeout": budget.timeout,
                "seed": seed,
            }
            cell = Cell(_name(*key, query, ball), satisfaction, settings)
            result.satisfaction[*key, query, ball] = cell
            if ball == "uncut" and find_spec("maraboupy") is not None:
                settings = settings | {
                    "known": cell,
                    "n_asked": budget.n_marabou,
                    "timeout": budget.marabou_timeout,
                }
                name = _name(*key, query, "marabou")
                result.marabou[*key, query, ball] = Cell(name, marabou, settings)


def _name(*parts):
    text = "-".join(str(part) for part in parts).lower()
    return "".join(c if c.isalnum() else "-" for c in text.replace("'", "").replace(", ", "-"))


# ---- what is measured --------------------------------------------------------------------------


def accuracy(model, data):
    """Return the share of all test images that are classified correctly."""
    return model.score(*images(data, "test"))


def security(model, data, n_test, property, attack, seed):
    """Return the share that withstands an attack at each epsilon, and its interval."""
    X, y = images(data, "test")
    X, y = X[:n_test], y[:n_test]
    scores, intervals = [], []
    for epsilon in EPSILONS:
        scorer = ConstraintSecurity(property.with_epsilon(epsilon), attack, random_state=seed)
        result = scorer.evaluate(model, X, y)
        scores.append(result.score)
        intervals.append((result.interval.low, result.interval.high))
    return {"scores": scores, "intervals": intervals}


def sampled(model, data, n_test, n_samples, seed):
    """Return the constraint accuracy by property, in the whole ball and in the cut one."""
    X, y = images(data, "test")
    X, y = X[:n_test], y[:n_test]
    shares = {}
    for ball, bounds in BALLS.items():
        for name in ("SR", "SCR", "SCR, code"):
            scorer = ConstraintAccuracy(properties(bounds)[name], n_samples, random_state=seed)
            shares[name, ball] = scorer(model, X, y)
    return shares


def satisfaction(model, data, n_images, property, timeout, seed):
    """Return verdicts of the cascade on some test images, and the seconds of each."""
    X, y = some_images(data, n_images, seed)
    scorer = ConstraintSatisfaction(property, timeout=timeout, random_state=seed)
    result = scorer.evaluate(model, X, y)
    return {"verdicts": result.verdicts, "seconds": result.seconds}


def marabou(model, data, n_images, property, timeout, seed, known, n_asked):
    """Return pairs of verdicts, of the cascade and of Marabou, and the seconds of Marabou.

    Marabou is asked for images of each verdict in turn, so that proofs are among them.
    """
    X, y = some_images(data, n_images, seed)
    verdicts = known["verdicts"]
    # The rank of each image among those of its verdict.
    rank = np.array([np.sum(verdicts[:i] == verdicts[i]) for i in range(len(verdicts))])
    index = np.argsort(rank, kind="stable")[:n_asked]
    result = Marabou().verify(
        model, X[index], y[index], property=property, timeout=timeout, random_state=seed
    )
    pairs = list(zip(verdicts[index].tolist(), result.verdicts.tolist(), strict=True))
    return {"pairs": pairs, "seconds": result.seconds}


def some_images(data, n_images, seed):
    """Return test images drawn at random; the paper does not say which ones it took."""
    X, y = images(data, "test")
    index = np.random.default_rng(seed).choice(len(X), n_images, replace=False)
    return X[index], y[index]
