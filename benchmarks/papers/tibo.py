"""The experiments of Tibo, Jaeger and Larsen, "A general framework for defining and optimizing
robustness" (2022), run again, each figure beside the paper's.

    python benchmarks/papers/tibo.py --n-jobs 2          # small budget, under 30 minutes
    python benchmarks/papers/tibo.py --full --n-jobs 16  # all images, ResNet-20
    python benchmarks/papers/tibo.py --smoke             # seconds, on digits

Table 1 (accuracy without a regime, with HEIN and with R2 training), table 2 (which attack came
closest), table 3 (MNIST-C), tables 4 and 5 (R4 on Fashion-MNIST, by a Wasserstein autoencoder) and
figure 4 (margin curves). Data are read as `skrobust.datasets` does, so that the environment
variable SKROBUST_DATA may name their folder; SVHN is run where its files are there. What is
finished is kept in the output folder: a call that was killed, or that ran out of `--minutes`, goes
on when it is called again.
"""

from _rerun import Rerun, command_line
from _tibo_cells import plan
from _tibo_nets import BUDGETS
from _tibo_report import write


def main(options):
    budget = BUDGETS[options.budget]
    cells = plan(budget, options.seed, options.device)
    rerun = Rerun(
        options.output / "cells",
        minutes=options.minutes,
        n_jobs=options.n_jobs,
        anew=options.anew,
    )
    for title, stage in cells.stages():
        print(f"== {title}", flush=True)
        rerun.run(stage)
    return write(cells, rerun, options.output, budget)


def add_options(parser):
    parser.add_argument("--device", default="cpu", help="of networks: cuda, or a torch device")


if __name__ == "__main__":
    main(command_line(__doc__, "tibo", minutes=24, add=add_options))
