"""Rerun of Bastani et al., "Measuring neural net robustness with constraints" (NeurIPS 2016).

    python benchmarks/papers/bastani.py --n-jobs 2           under 30 minutes on 2 cores
    python benchmarks/papers/bastani.py --full --n-jobs 2    the paper's own sizes: weeks
    python benchmarks/papers/bastani.py --smoke              seconds, on scikit-learn's digits

Table 1 (a LeNet, and the four that are fine-tuned on adversarial examples by L-BFGS-B or by linear
programs), figure 3, the fast gradient sign method, what rounding destroys, and the network in
network. The paper's networks are not published, and its LP finds more than 5 times as many
examples as its baseline; so beside the table stand explanations that can be tried: another reading
of the program, other networks, other settings of the baseline. A second call goes on where the
first ended.
"""

from dataclasses import dataclass, field

from _bastani_cells import (
    accuracy,
    broken_by_signs,
    linearized,
    measured,
    stopped_early,
    trained,
    tuned,
)
from _bastani_nets import images
from _bastani_report import write
from _rerun import Cell, Rerun, command_line

# What the text leaves open of the baseline, beside the L-infinity distance without a margin.
BASELINES = {
    "L-BFGS-B, L-infinity, margin 0.15": {"margin": 0.15},
    "L-BFGS-B, squared L2, no margin": {"penalty": "squared-l2"},
    "L-BFGS-B, squared L2, margin 0.15": {"penalty": "squared-l2", "margin": 0.15},
}


@dataclass(frozen=True)
class Budget:
    """Sizes of a rerun.

    Parameters
    ----------
    data, color : str
        Images of the LeNets and of the networks in network.
    n_train : int or None
        Training images; None is all of them, here and below.
    steps : int
        Of training a LeNet, of 64 images each.
    n_points, n_polished : int or None
        Test images for L-BFGS-B and LP, and for "polished".
    n_tuning : int or None
        Training images that fine-tuning makes examples of, and goes on with.
    n_epochs : int
        Of each round of fine-tuning.
    baseline : dict
        Arguments of LBFGS.
    n_signs : int or None
        Images for the fast gradient sign method.
    n_further, n_variants : int
        Test images for the explanations, and networks beside the original.
    nin_steps, nin_points, nin_tuning : int or None
        The same for the network in network.
    size : int
        Points of one cell.
    lenet, nin : dict
        Arguments of the networks.
    """

    data: str = "mnist"
    color: str = "cifar10"
    n_train: int | None = None
    steps: int = 1500
    n_points: int | None = 150
    n_polished: int | None = 40
    n_tuning: int | None = 80
    n_epochs: int = 3
    baseline: dict = field(
        default_factory=lambda: {"n_weights": 4, "max_iter": 50, "penalty": "linf"}
    )
    n_signs: int | None = 5000
    n_further: int = 100
    n_variants: int = 5
    nin_steps: int = 300
    nin_points: int | None = 4
    nin_tuning: int | None = 20
    size: int = 50
    lenet: dict = field(default_factory=dict)
    nin: dict = field(default_factory=lambda: {"width": 48})


BUDGETS = {
    "small": Budget(),
    "full": Budget(
        steps=10_000,
        n_points=None,
        n_polished=None,
        n_tuning=None,
        n_epochs=2,
        baseline={"penalty": "linf"},
        n_signs=None,
        n_further=1000,
        nin_steps=40_000,
        nin_points=None,
        nin_tuning=None,
        size=500,
        nin={"width": 192},
    ),
    "smoke": Budget(
        data="digits",
        color="color-digits",
        n_train=256,
        steps=8,
        n_points=1,
        n_polished=0,  # a second a point
        n_tuning=4,
        n_epochs=1,
        baseline={"n_weights": 3, "max_iter": 10, "penalty": "linf"},
        n_signs=20,
        n_further=1,
        n_variants=1,
        nin_steps=4,
        nin_points=1,
        nin_tuning=2,
        size=1,
        lenet={"channels": (3, 4), "hidden": 12},
        nin={"width": 4},
    ),
}


class Bastani:
    """The cells of the rerun, by what they are for.

    Parameters
    ----------
    budget : Budget
    seed : int
    memory : str or None
        Folder for the examples of fine-tuning.
    """

    def __init__(self, budget, seed, memory=None):
        self.budget, self.seed, self.memory = budget, seed, memory
        b = budget
        self.lenets = self._tuned("lenet", self.variant("original"), ("lbfgs", "lp"), 2)
        nin = {"data": b.color, "network": "nin", "n_images": b.n_train, "steps": b.nin_steps}
        start = Cell("nin-original", trained, nin | {"seed": seed} | b.nin)
        self.nins = self._tuned("nin", start, ("lp",), 1)

    def variant(self, name, *, steps=1.0, **options):
        """Return the cell of a LeNet trained otherwise than the original."""
        b = self.budget
        settings = {"data": b.data, "network": "lenet", "n_images": b.n_train, "seed": self.seed}
        settings |= {"steps": max(1, round(steps * b.steps))} | b.lenet | options
        return Cell(f"lenet-{name}", trained, settings)

    def _tuned(self, network, original, methods, rounds):
        b, nets = self.budget, {"original": original}
        is_lenet = network == "lenet"
        settings = {
            "data": b.data if is_lenet else b.color,
            "n_images": b.n_tuning if is_lenet else b.nin_tuning,
            "budget": b.baseline,
            "n_epochs": b.n_epochs,
            "rounding": 255 if is_lenet else None,  # the paper rounds on MNIST alone
            "seed": self.seed,
            "memory": self.memory,
        }
        for method in methods:
            before = original
            for t in range(1, rounds + 1):
                here = settings | {"before": before, "method": method}
                before = Cell(f"{network}-{method}-{t}", tuned, here)
                nets[f"{'LP' if method == 'lp' else 'L-BFGS-B'} tuned, T = {t}"] = before
        return nets

    def slices(self, n, data):
        """Return the parts of the first n test images, each for a cell of its own."""
        n = len(images(data, "test", n)[1])
        size = self.budget.size
        return [(start, min(n, start + size)) for start in range(0, n, size)]

    def distances(self, net, method, n, *, data=None, budget=None, **options):
        """Return the cells that measure distances on the first n test images."""
        data = self.budget.data if data is None else data
        settings = {"model": net, "data": data, "method": method} | options
        if method == "lbfgs":
            settings["budget"] = self.budget.baseline if budget is None else budget
        return [
            Cell(f"{net.name}-by-{method}-{points[0]}", measured, settings | {"points": points})
            for points in self.slices(n, data)
        ]

    def affine(self, net, n, bounded):
        """Return the cells of programs without the half-spaces of regions."""
        settings = {"model": net, "data": self.budget.data, "bounded": bounded}
        return [
            Cell(
                f"{net.name}-{'boxed' if bounded else 'affine'}-{points[0]}",
                linearized,
                settings | {"points": points},
            )
            for points in self.slices(n, self.budget.data)
        ]

    def stopped(self, net, n, max_rows):
        """Return the cells of programs that are given up after some half-spaces."""
        settings = {"model": net, "data": self.budget.data, "max_rows": max_rows}
        return [
            Cell(
                f"{net.name}-stopped-{max_rows}-{points[0]}",
                stopped_early,
                settings | {"points": points},
            )
            for points in self.slices(n, self.budget.data)
        ]

    def accuracy(self, net, data=None):
        settings = {"model": net, "data": self.budget.data if data is None else data}
        return Cell(f"{net.name}-accuracy", accuracy, settings)

    def signs(self, net, subset="test"):
        settings = {"model": net, "data": self.budget.data, "subset": subset}
        settings["n_points"] = self.budget.n_signs
        return Cell(f"{net.name}-signs-{subset}", broken_by_signs, settings)

    # ---- what table is made of what ------------------------------------------------

    def table_1(self):
        """Return the cells of table 1 and figure 3 for each network, by column."""
        b = self.budget
        return {
            name: {
                "accuracy": [self.accuracy(net)],
                "lbfgs": self.distances(net, "lbfgs", b.n_points),
                "lp": self.distances(net, "lp", b.n_points),
                "polished": self.distances(net, "polished", b.n_polished),
                "test": [self.signs(net)],
                "train": [self.signs(net, "train")],
            }
            for name, net in self.lenets.items()
        }

    def table_nin(self):
        n, data = self.budget.nin_points, self.budget.color
        return {
            name: {
                "accuracy": [self.accuracy(net, data)],
                "lp": self.distances(net, "lp", n, data=data),
            }
            for name, net in self.nins.items()
        }

    def readings(self):
        """Return the cells of other readings of the baseline and of the program."""
        net, b = self.lenets["original"], self.budget
        n = b.n_further
        rows = {"L-BFGS-B, L-infinity, no margin": self.distances(net, "lbfgs", n)}
        for name, further in BASELINES.items():
            rows[name] = self.distances(net, "lbfgs", n, budget=b.baseline | further)
        rows["LP"] = self.distances(net, "lp", n)
        half, fifth = max(1, n // 2), max(1, n // 5)  # what takes longer a point
        rows["LP, no bounds of pixels"] = self.distances(net, "lp", half, bounds=None)
        rows["LP, margin 3.0"] = self.distances(net, "lp", n, margin=3.0)
        for max_rows in (10, 30, 100):
            rows[f"LP, given up at {max_rows} half-spaces"] = self.stopped(net, n, max_rows)
        rows["LP, all targets"] = self.distances(net, "lp", fifth, targets="all")
        return rows

    def variants(self):
        """Return the cells of networks trained or built otherwise, by column."""
        others = {
            "three ReLUs": {"relus": 3},
            "average pools": {"pool": "average"},
            "no weight decay": {"weight_decay": 0.0},
            "a fifth of the steps": {"steps": 0.2},
            "twice the steps": {"steps": 2.0},
        }
        nets = {"original": self.lenets["original"]}
        for name, options in list(others.items())[: self.budget.n_variants]:
            nets[name] = self.variant(name.replace(" ", "-"), **options)
        n = self.budget.n_further
        return {
            name: {
                "accuracy": [self.accuracy(net)],
                "lp": self.distances(net, "lp", n),
                "boxed": self.affine(net, n, True),
                "affine": self.affine(net, n, False),
                "lbfgs": self.distances(net, "lbfgs", n),
                "signs": [self.signs(net)],
            }
            for name, net in nets.items()
        }

    def run(self, rerun):
        """Compute all cells, what matters most first."""
        lenets, table = list(self.lenets.values()), self.table_1()
        rerun.run([lenets[0], self.nins["original"]])
        rerun.run([lenets[3], lenets[1]])
        rerun.run([lenets[4], lenets[2], *list(self.nins.values())[1:]])
        for columns in (("accuracy", "test", "train"), ("lp", "lbfgs"), ("polished",)):
            rerun.run(cell for row in table.values() for name in columns for cell in row[name])
        rerun.run(cell for cells in self.readings().values() for cell in cells)
        for rows in (self.table_nin(), self.variants()):
            rerun.run(row["accuracy"][0].settings["model"] for row in rows.values())
            rerun.run(cell for row in rows.values() for cells in row.values() for cell in cells)

    def cells(self):
        """Return all cells."""
        rows = [*self.table_1().values(), *self.table_nin().values(), *self.variants().values()]
        found = [cell for row in rows for cells in row.values() for cell in cells]
        found += [cell for cells in self.readings().values() for cell in cells]
        return [*found, *self.lenets.values(), *self.nins.values()]


def main(options):
    kept = options.output / "cells"
    # Examples for all training images take days: then what a killed round has found is kept, too.
    memory = str(options.output / "examples") if options.budget == "full" else None
    plan = Bastani(BUDGETS[options.budget], options.seed, memory)
    rerun = Rerun(kept, minutes=options.minutes, n_jobs=options.n_jobs, anew=options.anew)
    plan.run(rerun)
    write(plan, rerun, options.output)


if __name__ == "__main__":
    main(command_line(__doc__, "bastani", minutes=24))
