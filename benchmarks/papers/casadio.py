"""The experiments of Casadio et al., "Neural network robustness as a verification property: a
principled case study" (CAV 2022), run again, each figure beside the paper's.

    python benchmarks/papers/casadio.py --n-jobs 2          # small budget, under 30 minutes
    python benchmarks/papers/casadio.py --full --n-jobs 16  # the paper's own settings
    python benchmarks/papers/casadio.py --smoke             # seconds, on digits

Table 3 (accuracy of seven regimes on Fashion-MNIST and GTSRB, 100 hidden units), Table 1
(constraint satisfaction, 30 hidden units, 200 test images, Marabou as a check on a sample), the
curves of constraint security behind the figures, constraint accuracy, the network of 18 layers,
and `CertifiedTraining` beside them. Data are read as `skrobust.datasets` does, so that the
environment variable SKROBUST_DATA may name their folder. What is finished is kept in the output
folder: a call that was killed, or that ran out of `--minutes`, goes on when it is called again.
"""

from collections import Counter

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from _casadio_cells import ATTACKED, ATTACKS, QUERIES, plan
from _casadio_claims import claims
from _casadio_nets import BUDGETS, LARGE_REGIMES, PAPER_REGIMES, REGIMES, SATISFACTION_REGIMES
from _casadio_notes import NOTES
from _casadio_published import (
    ACCURACY,
    EPSILONS,
    LARGE,
    LAST_EPOCH,
    SAMPLED_SCR,
    SATISFACTION,
    SECURITY,
)
from _rerun import Report, Rerun, Table, beside, command_line, percent

from skrobust.displays import RobustnessCurveDisplay

TITLES = {
    "fashion": "Fashion-MNIST",
    "gtsrb": "GTSRB, ten classes",
    "digits": "digits",
    "paper's": "attack of the published code",
    "ours": "our default attack",
}


def main(options):
    budget = BUDGETS[options.budget]
    rerun = Rerun(
        options.output, minutes=options.minutes, n_jobs=options.n_jobs, anew=options.anew
    )
    cells = plan(budget, options.seed, large=not options.skip_large, device=options.device)
    for name, stage in cells.stages():
        print(f"== {name}", flush=True)
        rerun.run(stage)
    report = Report(options.output, "Casadio et al., CAV 2022")
    report.add(f"Budget {options.budget!r}, seed {options.seed}: {budget}.")
    report.add(rerun.account(cells.cells()))
    results = Results(rerun, cells)
    report.add(accuracy_table(results, budget.data))
    for data in budget.data:
        report.add(satisfaction_table(results, data))
    report.add(marabou_table(results, budget.data))
    for data in budget.data:
        for name in ATTACKED:
            report.add(security_table(results, data, name))
        report.picture(*curves(results, data))
        report.picture(*curves_by_attack(results, data))
    report.add(sampled_table(results, budget.data))
    if not options.skip_large:
        report.add(large_table(results, budget.large_data))
        report.picture(*large_curves(results, budget.large_data))
    report.add(claims_table(results, budget, large=not options.skip_large))
    return report.write()


class Results:
    """The values of the cells of a plan; None where one was not run.

    Parameters
    ----------
    rerun : Rerun
    cells : Plan
    """

    def __init__(self, rerun, cells):
        for kind in ("accuracy", "security", "sampled", "satisfaction", "marabou"):
            known = {key: rerun.value(cell) for key, cell in getattr(cells, kind).items()}
            setattr(self, kind, known)

    def scores(self, *key):
        """Return the security at each epsilon, or None."""
        value = self.security[key]
        return None if value is None else value["scores"]

    def verdicts(self, *key):
        """Return how many images have each verdict, or None."""
        value = self.satisfaction[key]
        return None if value is None else Counter(value["verdicts"].tolist())


def published(table, regime):
    """Return the paper's figure of a regime: of the text's, or of what the code made of it."""
    name = regime.removesuffix(", code")
    return next((table[each] for each in (regime, f"{name}, code", name) if each in table), None)


# ---- tables ------------------------------------------------------------------------------------


def accuracy_table(results, datasets):
    columns = ["regime"]
    for data in datasets:
        columns += [f"{TITLES[data]}, %", "paper, last epoch", "paper, Table 3"]
    table = Table("Table 3: test accuracy, 100 hidden units", columns, NOTES["accuracy"])
    for regime in REGIMES:
        row = []
        for data in datasets:
            row.append(percent(results.accuracy[data, 100, regime]))
            for figures in (LAST_EPOCH, ACCURACY):
                figure = published(figures.get(data, {}), regime)
                row.append("–" if figure is None else figure)
        table.row(regime, *row)
    return table


def satisfaction_table(results, data):
    table = Table(
        f"Table 1: constraint satisfaction, {TITLES[data]}, 30 hidden units, %",
        ["query", *SATISFACTION_REGIMES],
        NOTES["satisfaction"],
    )
    for ball in ("uncut", "cut"):
        for query in QUERIES:
            figures = SATISFACTION.get(data, {}).get(query, {}) if ball == "uncut" else {}
            row = []
            for regime in SATISFACTION_REGIMES:
                counts = results.verdicts(data, 30, regime, query, ball)
                row.append(beside(satisfied(counts), figures.get(regime)))
            table.row(f"{query}, {ball} ball", *row)
    accuracies = [results.accuracy[data, 30, regime] for regime in SATISFACTION_REGIMES]
    table.row("accuracy", *map(percent, accuracies))
    return table


def satisfied(counts):
    """Return the share that is verified, and the unknowns apart."""
    if counts is None:
        return None
    n = counts.total()
    unknown = f" + {percent(counts['unknown'] / n)} unknown" if counts["unknown"] else ""
    return percent(counts["verified"] / n) + unknown


def marabou_table(results, datasets):
    columns = ["data, query", "asked", "same verdict", "undecided", "other verdict", "median s"]
    table = Table("Marabou on a sample of these questions", columns, NOTES["marabou"])
    for data in datasets:
        for query in QUERIES:
            keys = [key for key in results.marabou if key[0] == data and key[3] == query]
            values = [results.marabou[key] for key in keys]
            if not keys or None in values:
                table.row(f"{TITLES[data]}, {query}", *[None if keys else "–"] * 5)
                continue
            pairs = [pair for value in values for pair in value["pairs"]]
            seconds = sorted(second for value in values for second in value["seconds"])
            undecided = sum("unknown" in pair for pair in pairs)
            same = sum(ours == theirs != "unknown" for ours, theirs in pairs)
            table.row(
                f"{TITLES[data]}, {query}",
                len(pairs),
                same,
                undecided,
                len(pairs) - same - undecided,
                f"{seconds[len(seconds) // 2]:.2f}",
            )
    return table


def security_table(results, data, name):
    table = Table(
        f"Constraint security, {TITLES[data]}, {name} attack, 100 hidden units, %",
        ["regime", *(f"ε = {epsilon:g}" for epsilon in EPSILONS)],
        NOTES["security", name],
    )
    figures = SECURITY.get(data, {}).get(name, {})
    for regime in REGIMES:
        both = [results.scores(data, 100, regime, name, attack) for attack in ATTACKS]
        table.row(regime, *security_row(both, published(figures, regime)))
    return table


def security_row(both, figures):
    """Return a cell for each epsilon: by the paper's attack / by ours (the paper's figure)."""
    if None in both:
        return [None] * len(EPSILONS)
    figures = [None] * len(EPSILONS) if figures is None else figures
    return [
        beside(" / ".join(map(percent, shares)), figure)
        for *shares, figure in zip(*both, figures, strict=True)
    ]


def sampled_table(results, datasets):
    columns = ["regime"]
    for data in datasets:
        columns += [f"{TITLES[data]}: SR", "SCR", "SCR, code"]
    table = Table("Constraint accuracy at ε = 0.1, %", columns, NOTES["sampled"])
    for regime in REGIMES:
        row = []
        for data in datasets:
            shares = results.sampled[data, 100, regime]
            figures = {"SCR, code": published(SAMPLED_SCR.get(data, {}), regime)}
            if data in SAMPLED_SCR and regime in PAPER_REGIMES:
                figures["SR"] = 100.0
            for name in ("SR", "SCR", "SCR, code"):
                both = shares and [percent(shares[name, ball], 2) for ball in ("uncut", "cut")]
                row.append(beside(both and " / ".join(both), figures.get(name)))
        table.row(regime, *row)
    return table


def large_table(results, data):
    columns = ["regime", "accuracy, %", *(f"ε = {epsilon:g}" for epsilon in EPSILONS)]
    title = f"Network of 18 layers, {TITLES[data]}: security against the SCR attack of the code, %"
    table = Table(title, columns, NOTES["large"])
    for regime in LARGE_REGIMES:
        key = data, "large", regime
        accuracy, figures = LARGE[regime] if data == "fashion" else (None, None)
        both = [results.scores(*key, "SCR, code", attack) for attack in ATTACKS]
        ours = beside(percent(results.accuracy[key]), accuracy)
        table.row(regime, ours, *security_row(both, figures))
    return table


def claims_table(results, budget, large):
    columns = ["the paper says", "data", "as the code runs it", "as the text has it"]
    table = Table("Orders that the paper states", columns, NOTES["claims"])
    for claim, data, *answers in claims(results, budget, large):
        table.row(claim, TITLES[data], *answers)
    return table


# ---- pictures ----------------------------------------------------------------------------------


def curves(results, data):
    """Draw a line a regime, by property (rows) and attack (columns); the paper's are dotted."""
    figure, axes = plt.subplots(
        len(ATTACKED), 2, figsize=(11, 4 * len(ATTACKED)), layout="constrained"
    )
    for name, pair in zip(ATTACKED, axes, strict=True):
        for attack, ax in zip(ATTACKS, pair, strict=True):
            keys = {regime: (data, 100, regime, name, attack) for regime in REGIMES}
            figures = SECURITY.get(data, {}).get(name, {}) if attack == "paper's" else {}
            draw(results, keys, ax, f"{name}, {TITLES[attack]}", figures)
    caption = (
        f"Constraint security on {TITLES[data]}: a line a regime; left by the attack of the "
        "published code, right by our default; dotted: the published figures."
    )
    return figure, f"security-{data}", caption


def curves_by_attack(results, data):
    """Draw a line an attack, as the paper's Figures 2 and 12 to 14."""
    regimes = ("adversarial, code", "SR loss", "LR loss")
    figure, axes = plt.subplots(1, len(regimes), figsize=(14, 4), layout="constrained")
    for regime, ax in zip(regimes, axes, strict=True):
        keys = {name: (data, 100, regime, name, "paper's") for name in ATTACKED}
        draw(results, keys, ax, regime)
    caption = f"Constraint security on {TITLES[data]}: a line an attack (Figures 2, 12 to 14)."
    return figure, f"attacks-{data}", caption


def large_curves(results, data):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for attack, ax in zip(ATTACKS, axes, strict=True):
        keys = {regime: (data, "large", regime, "SCR, code", attack) for regime in LARGE_REGIMES}
        figures = {name: figure for name, (_, figure) in LARGE.items() if data == "fashion"}
        draw(results, keys, ax, f"SCR, code, {TITLES[attack]}", figures)
    caption = "The network of 18 layers (Figure 3, second graph); dotted: the published figures."
    return figure, "security-large", caption


def draw(results, keys, ax, title, figures=None):
    """Draw curves, and the published ones dotted in the same color."""
    known = {name: results.security[key] for name, key in keys.items()}
    known = {name: value for name, value in known.items() if value is not None}
    ax.set_title(title)
    if not known:
        return
    display = RobustnessCurveDisplay(
        EPSILONS,
        {name: value["scores"] for name, value in known.items()},
        score_name="constraint security",
    ).plot(ax=ax, markersize=3)
    for name, line in zip(known, display.lines_, strict=True):
        figure = published(figures or {}, name)
        if figure is not None:
            shares = [value / 100 for value in figure]
            ax.plot(EPSILONS, shares, ":", color=line.get_color())
    ax.legend(fontsize=7)


def options_of_large(parser):
    parser.add_argument("--skip-large", action="store_true", help="no network of 18 layers")
    parser.add_argument("--device", default="cpu", help="that trains the network of 18 layers")


if __name__ == "__main__":
    main(command_line(__doc__, "casadio", minutes=22, add=options_of_large))
