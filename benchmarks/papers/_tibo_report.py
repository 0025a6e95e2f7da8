"""Tables and pictures of the rerun of Tibo et al., each beside the paper's figures."""

import numpy as np
from _rerun import Report, Table, beside, percent
from _tibo_claims import claims
from _tibo_nets import MANIFOLD_REGIMES, REGIMES
from _tibo_notes import NOTES
from _tibo_published import ACCURACY, CORRUPTED, CORRUPTED_MEAN, FASHION_MARGIN, MANIFOLD, WINS
from matplotlib.figure import Figure

from skrobust.displays import RobustnessCurveDisplay, WinsDisplay

__all__ = ["Results", "write"]

TITLES = {
    "mnist": "MNIST",
    "fashion": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "svhn": "SVHN",
    "digits": "digits",
}
LONG = {"Stutz": "Stutz et al.", "R4": "R4 training", "R2": "R2 training"}


class Results:
    """The values of the cells of a plan; None where one was not run.

    Parameters
    ----------
    rerun : Rerun
    plan : Plan
    """

    def __init__(self, rerun, plan):
        self.plan = plan
        for kind in ("correct", "margins", "one_ball", "manifold", "corrupted", "codes"):
            known = {key: rerun.value(cell) for key, cell in getattr(plan, kind).items()}
            setattr(self, kind, known)
        self.candidates, self.chosen = {}, {}
        for key, cells in plan.candidates.items():
            known = [rerun.value(cell) for cell in cells]
            self.candidates[key] = [net and (net["weight"], net["validation"]) for net in known]
            net = rerun.value(plan.networks[key])
            self.chosen[key] = net and {name: net[name] for name in net if name != "model"}

    def closest(self, data, name, attack, one_ball=False):
        """Return at which images an attack came closest, or None."""
        result = (self.one_ball if one_ball else self.margins).get((data, name))
        return None if result is None else result.found_by == attack

    def distances(self, data, name):
        """Return the margin of each image, or None."""
        result = self.margins.get((data, name))
        return None if result is None else result.distances

    def manifold_values(self, data, name):
        """Return R4 of each image, or None."""
        result = self.manifold.get((data, name))
        return None if result is None else result.values

    def corrupted_digits(self, name):
        """Return what is measured on MNIST-C, or None; one data set alone has it."""
        return next((v for (_, own), v in self.corrupted.items() if own == name), None)

    def corruption_shares(self, name):
        """Return the share of corruptions under which each digit is classified correctly."""
        value = self.corrupted_digits(name)
        return None if value is None else value["correct"].mean(axis=1)


def write(plan, rerun, folder, budget):
    """Write the report of what there is; return its path."""
    results = Results(rerun, plan)
    report = Report(folder, "Tibo, Jaeger, Larsen: defining and optimizing robustness")
    report.add(f"Budget: {budget}.")
    report.add(NOTES["all"])
    report.add(rerun.account(plan.cells()))
    for sentence in left_out(plan, budget):
        report.add(sentence)
    report.add(weights_table(results))
    report.add(accuracy_table(results))
    report.add(wins_table(results))
    report.add(margins_table(results))
    for picture in (
        curves_picture(results.margins),
        wins_picture(results.margins, "table-2", "in ever smaller balls"),
        wins_picture(results.one_ball, "table-2-one-ball", "in one ball"),
    ):
        if picture is not None:
            report.picture(*picture)
    if plan.corrupted:
        report.add(corrupted_table(results))
    for data in plan.codes:
        report.add(manifold_table(results, data))
    report.add(claims_table(results))
    return report.write()


def left_out(plan, budget):
    """Yield a sentence for each part of the paper whose data are not here."""
    if "svhn" in budget.recipes and "svhn" not in plan.data:
        yield "SVHN is left out: `fetch_svhn` finds none of its files."
    if budget.corrupted is not None and not plan.corrupted:
        yield "Table 3 is left out: `fetch_mnist_c` finds none of its files."


# ---- tables ------------------------------------------------------------------------------------


def weights_table(results):
    columns = ["data, regime", "accuracy on validation images, %, by weight", "chosen"]
    table = Table("Weights", columns, [NOTES["weights"]])
    for (data, name), nets in results.candidates.items():
        shares = [
            "not run"
            if net is None
            else percent(net[1]) + ("" if net[0] is None else f" at {net[0]:g}")
            for net in nets
        ]
        net = results.chosen[data, name]
        table.row(f"{TITLES[data]}, {name}", ", ".join(shares), net and choice(net))
    return table


def choice(net):
    """Return the weight of a network as text, and whether it keeps to the rule."""
    if net["weight"] is None:
        return "–"
    return f"{net['weight']:g}" + ("" if net["is_within"] else ", all lose more")


def accuracy_table(results):
    names = [*REGIMES, *MANIFOLD_REGIMES]
    columns = ["data", *names]
    table = Table("Tables 1 and 4: test accuracy, % (the paper's)", columns, [NOTES["accuracy"]])
    for data in results.plan.data:
        row = []
        for name in names:
            if (data, name) not in results.correct:
                row.append("–")
                continue
            known = results.correct[data, name]
            row.append(beside(with_half(known, 100), ACCURACY.get(data, {}).get(name)))
        table.row(TITLES[data], *row)
    return table


def with_half(values, unit=1.0, form=".2f"):
    """Return the mean of values and half of its 95 % interval as text; None stays None."""
    if values is None:
        return None
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{unit * np.mean(values):{form}} ± {unit * half:{form}}"


def wins_table(results):
    names = ["BG", "FGSM", "PGD"]
    columns = ["data, regime", *names, *(f"{name}, one ball" for name in names)]
    title = "Table 2: share of images at which an attack was closest, % (the paper's)"
    table = Table(title, columns, [NOTES["wins"]])
    for (data, name), result in results.margins.items():
        figures = WINS.get(data, {}).get(name, (None,) * 3)
        row = []
        for each in (result, results.one_ball[data, name]):
            shares = [each and percent(each.wins[attack]) for attack in names]
            row += map(beside, shares, figures)
        table.row(f"{TITLES[data]}, {name}", *row)
    return table


def margins_table(results):
    names = [*REGIMES, *MANIFOLD_REGIMES]
    title = "Figure 4 and table 5: R2 (the paper's)"
    table = Table(title, ["data", *names, "images", "none found"], [NOTES["margins"]])
    for data in results.plan.data:
        of = {
            name: results.margins[data, name] for name in names if (data, name) in results.margins
        }
        row = []
        for name in names:
            if name not in of:
                row.append("–")
                continue
            paper = FASHION_MARGIN.get(name) if data == "fashion" else None
            row.append(beside(with_half(results.distances(data, name), form=".3f"), paper))
        known = [result for result in of.values() if result is not None]
        images = max((len(result.radius) for result in known), default=None)
        missed = sum(int(np.isinf(result.radius).sum()) for result in known) if known else None
        table.row(TITLES[data], *row, images, missed)
    return table


def corrupted_table(results):
    table = Table(
        "Table 3: accuracy on MNIST-C, % (the paper's)",
        ["corruption", *REGIMES],
        [NOTES["corrupted"]],
    )
    values = [results.corrupted_digits(name) for name in REGIMES]
    for corruption, figures in CORRUPTED.items():
        shares = [
            value and percent(value["correct"][:, value["names"].index(corruption)].mean(), 2)
            for value in values
        ]
        table.row(corruption.replace("_", " "), *map(beside, shares, figures))
    means = [with_half(results.corruption_shares(name), 100) for name in REGIMES]
    table.row("average", *map(beside, means, CORRUPTED_MEAN))
    return table


def manifold_table(results, data):
    columns = ["network", "accuracy, %", "R4", "share that keeps the label, %", "R2"]
    title = f"Tables 4 and 5: {TITLES[data]} (the paper's)"
    table = Table(title, columns, [NOTES["manifold"]])
    for name in ("Stutz", "R4", "R2", "HEIN", "none"):
        paper = {
            "accuracy": ACCURACY,
            "R4": {"fashion": MANIFOLD},
            "R2": {"fashion": FASHION_MARGIN},
        }
        paper = {column: figures.get(data, {}).get(name) for column, figures in paper.items()}
        result = results.manifold[data, name]
        table.row(
            LONG.get(name, name),
            beside(with_half(results.correct[data, name], 100), paper["accuracy"]),
            beside(with_half(results.manifold_values(data, name), form=".4f"), paper["R4"]),
            None if result is None else with_half(result.shares, 100),
            beside(with_half(results.distances(data, name), form=".3f"), paper["R2"]),
        )
    found = (result for (of, _), result in results.manifold.items() if of == data)
    known = next((result for result in found if result is not None), None)
    if known is not None:
        table.notes.append(
            f"Of {len(known.distances)} images and {known.distances.shape[1]} points each; the "
            f"median distance of a generated point is {np.median(known.distances):.2f}. A "
            f"constant classifier would have an R4 of {known.r4 / known.normalized:.4f}."
        )
    return table


def claims_table(results):
    table = Table("What the paper says", ["statement", "data", "here"], [NOTES["claims"]])
    for statement, title, answer in claims(results, TITLES):
        table.row(statement, title, answer)
    return table


# ---- pictures ----------------------------------------------------------------------------------


def _by_data(margins):
    """Return results of R2 by data set and regime, of those that were run."""
    known = {}
    for (data, name), result in margins.items():
        if result is not None:
            known.setdefault(data, {})[name] = result
    return known


def _panels(known, height):
    n_rows = (len(known) + 1) // 2
    figure = Figure(figsize=(11, height * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, 2, squeeze=False).ravel()
    for ax in axes[len(known) :]:
        ax.remove()
    return figure, axes


def curves_picture(margins):
    """Draw figure 4: a panel for each data set."""
    known = _by_data(margins)
    if not known:
        return None
    figure, axes = _panels(known, 4)
    for (data, of), ax in zip(known.items(), axes, strict=False):
        RobustnessCurveDisplay.from_radius(of, area=True, ax=ax)
        ax.set(title=TITLES[data], xlabel="L2 distance", ylabel="share with a larger margin")
    caption = "Figure 4: margin curves with their 95 % intervals; the areas are R2."
    return figure, "figure-4", caption


def wins_picture(margins, name, how):
    """Draw table 2 as bars: a panel for each data set."""
    known = _by_data(margins)
    if not known:
        return None
    figure, axes = _panels(known, 2.6)
    for (data, of), ax in zip(known.items(), axes, strict=False):
        WinsDisplay.from_result(of, ax=ax)
        ax.set_title(TITLES[data])
    caption = f"Table 2: the share of images at which each attack, {how}, came closest."
    return figure, name, caption
