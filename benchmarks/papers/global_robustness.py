"""The experiments of "Global Adversarial Robustness Guarantees for Neural Networks", run again.

    python benchmarks/papers/global_robustness.py --n-jobs 2          # under 30 minutes on 2 cores
    python benchmarks/papers/global_robustness.py --full --n-jobs 16  # the paper's own grids
    python benchmarks/papers/global_robustness.py --smoke             # seconds, on digits

Figure 1 (50 estimates of global robustness at each of several tolerances, for a CNN on MNIST whose
local robustness is decided exactly), figure 2 (accuracy against robustness of many perceptrons and
CNNs, and robustness by capacity and by the length of training), figure 3 (pruned networks) and
figure 4 (networks sampled by Hamiltonian Monte Carlo). The paper prints no table: what can be
compared are its statements, and each stands beside what is found here. What is finished is kept:
a call that was killed, or ran out of `--minutes`, goes on when it is called again.
"""

from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import zip_longest

import numpy as np
from _global_cells import by_fgsm, decided, fitted, posterior, pruned, trained
from _global_grids import GRIDS, strided
from _global_report import write
from _rerun import Cell, Rerun, command_line
from sklearn.model_selection import ParameterGrid

_SMALL_CNN = {
    "conv_depth": [1, 2],
    "filters": [5, 10],
    "kernel": [3, 5],
    "depth": [1],
    "width": [128],
    "lr": [0.2, 0.05],
    "epochs": [1, 2, 4, 7, 10],
}
_SMALL_PRUNING = {
    "depth": [1, 2],
    "width": [128, 256],
    "activation": ["relu", "tanh"],
    "lr": [0.2],
    "epochs": [4],
    "amount": [0.5, 0.75, 0.9, 0.99],
    "iterations": [1, 2],
}
_SMALL_HMC = {
    "depth": [1, 2],
    "width": [32, 64, 128],
    "activation": ["relu", "tanh"],
    "step_size": [0.01, 0.005, 0.001],
    "num_steps": [10],
    "n_samples": [50],
}


@dataclass(frozen=True)
class Budget:
    """How much of everything is done.

    Parameters
    ----------
    sizes : dict
        Arguments of `images`: how many of them, and how large.
    trade_off, pruning, sampling : dict of pair of str to dict
        Grids of figures 2, 3 and 4 by data set and kind of network.
    batch_size : int
    n_attacked : int
        Test images that robustness is measured on; accuracy takes all.
    n_further : int or None
        Epochs of each iteration of pruning; None is as many as before it.
    sampling_sizes : dict
        Arguments of `images` for figure 4.
    warmup, prior_scale : int, float
        Of Hamiltonian Monte Carlo.
    twin : dict
        Training of the networks beside it.
    convergence_data, convergence : str, dict
        Data and network of figure 1.
    n_decided, slice_size : int
        Test images of figure 1, and of one cell.
    convergence_delta, timeout : float
        Radius, and seconds an image.
    tolerances : tuple of float
    n_estimates : int
    """

    sizes: dict = field(default_factory=lambda: {"n_train": 6000, "n_validation": 300, "pool": 2})
    trade_off: dict = field(
        default_factory=lambda: {
            ("mnist", "perceptron"): {
                "depth": [1, 2],
                "width": [64, 256],
                "activation": ["relu", "tanh", "sigmoid"],
                "lr": [0.5, 0.1],
                "epochs": [1, 2, 4, 7, 10],
            },
            ("mnist", "CNN"): _SMALL_CNN,
            ("fashion", "perceptron"): {
                "depth": [2, 3],
                "width": [256, 512],
                "activation": ["relu", "tanh", "sigmoid"],
                "lr": [0.3, 0.1],
                "epochs": [1, 2, 4, 7, 10],
            },
            ("fashion", "CNN"): _SMALL_CNN,
        }
    )
    pruning: dict = field(
        default_factory=lambda: {
            ("mnist", "perceptron"): _SMALL_PRUNING,
            ("fashion", "perceptron"): _SMALL_PRUNING,
        }
    )
    sampling: dict = field(
        default_factory=lambda: {
            ("mnist", "perceptron"): _SMALL_HMC,
            ("fashion", "perceptron"): _SMALL_HMC | {"activation": ["relu"]},
        }
    )
    batch_size: int = 32
    n_attacked: int = 500
    n_further: int | None = 2
    sampling_sizes: dict = field(
        default_factory=lambda: {"n_train": 500, "n_validation": 300, "pool": 2}
    )
    warmup: int = 50
    prior_scale: float = 1.0
    twin: dict = field(default_factory=lambda: {"lr": 0.1, "epochs": [5, 10, 20]})
    convergence_data: str = "mnist"
    convergence: dict = field(default_factory=lambda: {"lr": 0.005, "epochs": 5})
    n_decided: int = 10_000
    slice_size: int = 1000
    convergence_delta: float = 0.05
    timeout: float = 2.0
    tolerances: tuple = (0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
    n_estimates: int = 50


_WHOLE = {"n_train": None, "n_validation": 1000}
_FEW = {"n_train": 400, "n_validation": 50}
_TINY = {"depth": [1], "width": [8, 16], "activation": ["relu", "tanh"], "lr": [1.0]}

BUDGETS = {
    "small": Budget(),
    "full": Budget(
        sizes=_WHOLE,
        trade_off={
            ("mnist", "perceptron"): GRIDS["B.1"],
            ("mnist", "CNN"): GRIDS["B.2"],
            ("fashion", "perceptron"): GRIDS["B.3"],
            ("fashion", "CNN"): GRIDS["B.4"],
            ("cifar10", "CNN"): GRIDS["B.5"],
        },
        pruning={
            ("mnist", "perceptron"): GRIDS["B.6"],
            ("fashion", "perceptron"): GRIDS["B.7"],
        },
        sampling={
            ("mnist", "perceptron"): GRIDS["B.8"],
            # The row of the posterior samples is missing in the copy at hand: those of B.8.
            ("fashion", "perceptron"): GRIDS["B.9"] | {"n_samples": GRIDS["B.8"]["n_samples"]},
        },
        n_attacked=1000,
        n_further=None,
        sampling_sizes=_WHOLE,
        warmup=100,
        twin={"lr": 0.01, "epochs": [5, 10, 15, 20, 25]},
        timeout=600.0,
    ),
    "smoke": Budget(
        sizes=_FEW,
        trade_off={
            ("digits", "perceptron"): _TINY | {"epochs": [2, 6]},
            ("digits", "CNN"): {
                "conv_depth": [1, 2],
                "filters": [4],
                "kernel": [3],
                "depth": [1],
                "width": [16],
                "lr": [1.0, 0.5],
                "epochs": [2, 6],
            },
        },
        pruning={
            ("digits", "perceptron"): _TINY
            | {"epochs": [4], "amount": [0.5, 0.9], "iterations": [1]}
        },
        sampling={
            ("digits", "perceptron"): {
                "depth": [1],
                "width": [4, 8, 12],
                "activation": ["relu"],
                "step_size": [0.01],
                "num_steps": [3],
                "n_samples": [4],
            }
        },
        n_attacked=30,
        n_further=1,
        sampling_sizes=_FEW,
        warmup=4,
        twin={"lr": 1.0, "epochs": [2, 6]},
        convergence_data="digits",
        convergence={"lr": 0.02, "epochs": 3},
        n_decided=20,
        slice_size=10,
        timeout=0.5,
        tolerances=(0.2, 0.1),
    ),
}


class Plan:
    """The cells of the rerun, by figure.

    Parameters
    ----------
    budget : Budget
    seed : int
    device : str, default="cpu"
        Where networks of figures 2 to 4 are trained and sampled.

    Attributes
    ----------
    network, verdicts, signs : Cell, list of Cell, Cell
        Of figure 1.
    trade_off, pruning, sampling : dict of pair of str to list of Cell
        Of figures 2, 3 and 4, by data set and kind of network.
    """

    def __init__(self, budget, seed, device="cpu"):
        self.budget, self.seed, self.device = budget, seed, device
        self.network, self.verdicts, self.signs = self._convergence()
        self.trade_off = {of: self._trained(*of, grid) for of, grid in budget.trade_off.items()}
        self.pruning = {of: self._pruned(*of, grid) for of, grid in budget.pruning.items()}
        sampled = budget.sampling if can_sample() else {}
        self.sampling = {of: self._posteriors(*of, grid) for of, grid in sampled.items()}

    def _convergence(self):
        b = self.budget
        shared = {"data": b.convergence_data, "sizes": b.sizes, "seed": self.seed}
        network = {"module": strided, "batch_size": b.batch_size} | b.convergence
        cell = Cell("convergence-network", fitted, shared | network)
        shared |= {"model": cell, "delta": b.convergence_delta}
        slices = [
            (start, min(b.n_decided, start + b.slice_size))
            for start in range(0, b.n_decided, b.slice_size)
        ]
        verdicts = [
            Cell(
                f"convergence-{points[0]}",
                decided,
                shared | {"points": points, "timeout": b.timeout},
            )
            for points in slices
        ]
        return cell, verdicts, Cell("convergence-fgsm", by_fgsm, shared)

    def _settings(self, data):
        b = self.budget
        settings = {"data": data, "sizes": b.sizes, "n_attacked": b.n_attacked}
        return settings | {"device": self.device, "seed": self.seed}

    def _trained(self, data, kind, grid):
        settings = self._settings(data) | {
            "epochs": grid["epochs"],
            "batch_size": self.budget.batch_size,
            "optimizer": "adam" if data == "cifar10" else "sgd",
        }
        return [
            Cell(f"{data}-{kind}-{_name(config)}", trained, settings | {"config": config})
            for config in _configs(grid, "epochs")
        ]

    def _pruned(self, data, kind, grid):
        settings = self._settings(data) | {
            "epochs": grid["epochs"],
            "amounts": grid["amount"],
            "iterations": grid["iterations"],
            "n_further": self.budget.n_further,
            "batch_size": self.budget.batch_size,
        }
        return [
            Cell(f"{data}-pruned-{_name(config)}", pruned, settings | {"config": config})
            for config in _configs(grid, "epochs", "amount", "iterations")
        ]

    def _posteriors(self, data, kind, grid):
        """Return the cells of posteriors, and of the same networks trained by SGD."""
        b = self.budget
        settings = self._settings(data) | {"sizes": b.sampling_sizes}
        configs = _configs(grid, *_SAMPLING)
        cells = []
        for config in configs:
            further = {"config": config | {"lr": b.twin["lr"]}, "epochs": b.twin["epochs"]}
            further |= {"batch_size": b.batch_size, "optimizer": "sgd"}
            cells.append(Cell(f"{data}-twin-{_name(config)}", trained, settings | further))
        for sampling in ParameterGrid({name: grid[name] for name in _SAMPLING}):
            sampling |= {"warmup": b.warmup, "prior_scale": b.prior_scale}
            for config in configs:
                name = f"{data}-hmc-{_name(config)}-{_name(sampling)}"
                further = {"config": config, "sampling": sampling}
                cells.append(Cell(name, posterior, settings | further))
        return cells

    def stages(self):
        """Return lists of cells, what matters most first."""
        yield "figure 1", [self.network]
        yield "figure 1", [*self.verdicts, self.signs]
        for title, part in (
            ("figure 2", self.trade_off),
            ("figure 3", self.pruning),
            ("figure 4", self.sampling),
        ):
            yield title, _in_turns(list(part.values()))

    def cells(self):
        """Return all cells."""
        return [cell for _, cells in self.stages() for cell in cells]


_SAMPLING = ("step_size", "num_steps", "n_samples")


def can_sample():
    """Return whether Hamiltonian Monte Carlo is here: the class, and what it computes with."""
    try:
        from skrobust.estimators import BayesianClassifier  # noqa: F401
    except ImportError:
        return False
    return find_spec("pyro") is not None


def _in_turns(parts):
    """Return cells of lists in turn, each list in a random order.

    So whatever time allows is a sample of every grid.
    """
    random = np.random.default_rng(0)
    shuffled = [[cells[i] for i in random.permutation(len(cells))] for cells in parts]
    turns = zip_longest(*shuffled)
    return [cell for cells in turns for cell in cells if cell is not None]


def _configs(grid, *without):
    """Return the combinations of a grid but for what one cell goes through by itself."""
    return list(ParameterGrid({name: grid[name] for name in grid if name not in without}))


def _name(config):
    return "-".join(str(value).replace(".", "") for value in config.values())


def main(options):
    plan = Plan(BUDGETS[options.budget], options.seed, options.device)
    rerun = Rerun(
        options.output / "cells",
        minutes=options.minutes,
        n_jobs=options.n_jobs,
        anew=options.anew,
    )
    for title, cells in plan.stages():
        print(f"== {title}", flush=True)
        rerun.run(cells)
    write(plan, rerun, options.output)


def add_options(parser):
    parser.add_argument("--device", default="cpu", help="of networks: cuda, or a torch device")


if __name__ == "__main__":
    main(command_line(__doc__, "global_robustness", minutes=24, add=add_options))
