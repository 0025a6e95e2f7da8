"""Tables of the rerun on global robustness, each beside what the paper says."""

import numpy as np
from _global_nets import MEASURES
from _global_notes import NOTES
from _global_pictures import boxes, convergence_picture, trade_off_picture, two_groups
from _global_read import Networks, Read, estimates, is_pruned, method
from _global_statistics import fisher
from _rerun import Report, Table, percent

from skrobust.statistics import sample_size

__all__ = ["write"]

TITLES = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar10": "CIFAR-10", "digits": "digits"}


def write(plan, rerun, folder):
    """Write the report of what there is; return its path."""
    read, budget = Read(rerun, plan), plan.budget
    report = Report(folder, "Global adversarial robustness guarantees for neural networks")
    report.add(NOTES["all"])
    report.add(rerun.account(plan.cells()))
    _figure_1(report, read, budget, plan.seed)
    report.add(delta_table(read))
    report.add(trade_off_table(read))
    report.add(further_deltas_table(read))
    report.add(effects_table(read))
    for of, nets in read.trade_off.items():
        if nets is not None:
            title = f"{TITLES[of[0]]}, {of[1]}"
            report.picture(*trade_off_picture(nets, title))
            report.picture(*boxes(nets, title))
    report.add(pruning_table(read))
    report.add(amount_table(read))
    for of, nets in read.pruning.items():
        if nets is not None:
            report.picture(*two_groups(nets, is_pruned, TITLES[of[0]], "pruning", "amount"))
    if read.sampling:
        report.add(sampling_table(read))
    else:
        report.add(NOTES["no sampling"])
    for of, nets in read.sampling.items():
        if nets is not None:
            report.picture(*two_groups(nets, method, TITLES[of[0]], "sampling", "weights"))
    report.add(claims_table(read))
    return report.write()


# ---- figure 1 --------------------------------------------------------------------------


def _figure_1(report, read, budget, seed):
    verdicts = read.convergence()
    columns = ("tolerance", "samples", "mean", "spread", "within the tolerance", "farthest")
    title = f"Figure 1: {budget.n_estimates} estimates at each tolerance"
    table = Table(title, columns, [NOTES["convergence"]])
    if verdicts is None:
        for tolerance in budget.tolerances:
            table.row(f"{tolerance:g}", sample_size(tolerance), *[None] * 4)
        report.add(table)
        return
    robust = verdicts == "verified"
    drawn = estimates(robust, budget.tolerances, budget.n_estimates, seed)
    for tolerance, scores in drawn.items():
        off = np.abs(scores - robust.mean())
        table.row(
            f"{tolerance:g}",
            sample_size(tolerance),
            f"{scores.mean():.4f}",
            f"{scores.std():.4f}",
            f"{(off <= tolerance).sum()} of {len(scores)}",
            f"{off.max():.4f}",
        )
    signs = read.rerun.value(read.plan.signs)
    text = (
        f"Of {len(verdicts)} test images, {robust.sum()} are verified, "
        f"{(verdicts == 'falsified').sum()} falsified, {(verdicts == 'unknown').sum()} unknown at "
        f"delta = {budget.convergence_delta:g}; the share verified, {robust.mean():.4f}, is what "
        "the estimates are of."
    )
    if signs is not None:
        text += f" FGSM changes the label of {percent(signs.mean())} % of all test images."
    table.notes.insert(0, text)
    report.add(table)
    report.picture(*convergence_picture(drawn, robust.mean()))


# ---- figure 2 --------------------------------------------------------------------------


def delta_table(read):
    parts = [(of, nets) for of, nets in read.trade_off.items() if nets is not None]
    known = sorted({delta for _, nets in parts for delta in nets.nets[0]["validation"]})
    columns = ("networks", *(f"delta = {delta:g}" for delta in known))
    table = Table("Choice of delta, on validation images", columns, [NOTES["delta"]])
    for of, nets in parts:
        kept = nets.learned()
        if len(kept) == 0:
            table.row(_title(of), *["none has learned"] * len(known))
            continue
        row = []
        for delta in known:
            share = np.mean([net["validation"][delta]["label"] for net in kept.nets])
            row.append(f"**{percent(share)}**" if delta == nets.delta else percent(share))
        table.row(_title(of), *row)
    return table


def _title(of):
    return f"{TITLES[of[0]]}, {of[1]}"


def trade_off_table(read):
    columns = (
        "networks",
        "measure",
        "how many, of trainings",
        "accuracy, from to",
        "robustness, from to",
        "rank correlation",
        "of those that have learned",
        "Pearson, of these",
        "paper",
    )
    table = Table("Figure 2: accuracy and robustness", columns, [NOTES["trade-off"]])
    for of, nets in read.trade_off.items():
        for measure, name in MEASURES.items():
            if nets is None:
                table.row(_title(of), name, *[None] * 6, "negative")
                continue
            robustness, learned = nets.robustness(measure), nets.learned()
            table.row(
                _title(of),
                name,
                f"{len(nets)} of {len(set(nets.trainings()))}, {read.planned[of]} planned",
                f"{percent(min(nets.of('accuracy')))} to {percent(max(nets.of('accuracy')))} %",
                f"{robustness.min():.2f} to {robustness.max():.2f}",
                nets.correlation("accuracy", measure),
                f"{learned.correlation('accuracy', measure)} ({len(learned)})",
                fisher(learned.of("accuracy"), learned.robustness(measure)),
                "negative",
            )
    return table


def further_deltas_table(read):
    """Return the correlations at all radii that were tried: the choice of one hides nothing."""
    parts = [(of, nets) for of, nets in read.trade_off.items() if nets is not None]
    known = sorted({delta for _, nets in parts for delta in nets.nets[0]["test"]})
    columns = ("networks", "measure", *(f"delta = {delta:g}" for delta in known))
    table = Table("The same at every delta, networks that have learned", columns)
    table.notes.append(NOTES["further"])
    for of, nets in parts:
        for measure, name in MEASURES.items():
            values = [
                Networks(nets.learned().nets, delta).correlation("accuracy", measure)
                for delta in known
            ]
            table.row(_title(of), name, *values)
    return table


def effects_table(read):
    columns = (
        "networks",
        "measure",
        "with weights",
        "with epochs",
        "last less first reading of a training",
        "paper",
    )
    table = Table("Robustness by capacity and by duration", columns, [NOTES["effects"]])
    for of, nets in read.trade_off.items():
        for measure, name in MEASURES.items():
            if nets is None:
                table.row(_title(of), name, *[None] * 3, "negative, negative")
                continue
            learned = nets.learned()
            table.row(
                _title(of),
                name,
                learned.correlation("weights", measure),
                learned.correlation("epochs", measure),
                longer(learned, measure),
                "negative, negative",
            )
    return table


def longer(nets, measure):
    """Return by how much robustness changes from the first to the last reading of a training."""
    robustness, by_training = nets.robustness(measure), {}
    for training, n_epochs, value in zip(
        nets.trainings(), nets.of("epochs"), robustness, strict=True
    ):
        by_training.setdefault(training, []).append((n_epochs, value))
    pairs = [sorted(own) for own in by_training.values() if len(own) > 1]
    if not pairs:
        return "undefined"
    moved = np.array([own[-1][1] - own[0][1] for own in pairs])
    return f"{moved.mean():+.3f}; lower in {(moved < 0).sum()} of {len(moved)}"


# ---- figure 3 --------------------------------------------------------------------------


def pruning_table(read):
    columns = ("networks", "share removed", "how many", "accuracy, %", *MEASURES.values())
    notes = [NOTES["pruning"]]
    table = Table("Figure 3: mean over networks, robustness as 1 - D", columns, notes)
    for of, nets in read.pruning.items():
        if nets is None:
            table.row(_title(of), *[None] * (len(columns) - 1))
            continue
        parts = {"0, before": nets.where(lambda net: net["iterations"] == 0)}
        parts["0, trained on"] = nets.where(
            lambda net: net["amount"] == 0 and net["iterations"] > 0
        )
        for amount in sorted(set(nets.of("amount")) - {0.0}):
            parts[f"{amount:g}"] = nets.where(lambda net, own=amount: net["amount"] == own)
        for name, part in parts.items():
            if len(part) == 0:
                continue  # all of them diverged
            table.row(
                _title(of),
                name,
                len(part),
                percent(np.mean(part.of("accuracy"))),
                *(f"{part.robustness(measure).mean():.3f}" for measure in MEASURES),
            )
    return table


def amount_table(read):
    columns = (
        "networks",
        "measure",
        "share removed and robustness",
        "most less least, same network",
        "accuracy and robustness, pruned",
        "not pruned",
        "paper",
    )
    table = Table("Figure 3: effect of the share removed", columns, [NOTES["amount"]])
    paper = "none; both negative"
    for of, nets in read.pruning.items():
        for measure, name in MEASURES.items():
            if nets is None:
                table.row(_title(of), name, *[None] * 4, paper)
                continue
            with_amount = nets.where(lambda net: net["amount"] > 0)
            without = nets.where(lambda net: net["amount"] == 0)
            table.row(
                _title(of),
                name,
                with_amount.correlation("amount", measure),
                least_to_most(with_amount, measure),
                with_amount.correlation("accuracy", measure),
                without.correlation("accuracy", measure),
                paper,
            )
    return table


def least_to_most(nets, measure):
    """Return how far robustness at the largest share is from that at the smallest, in pairs."""
    if len(nets) == 0:
        return "undefined"
    least, most = min(nets.of("amount")), max(nets.of("amount"))
    by_network = {}
    for net, training, value in zip(
        nets.nets, nets.trainings(), nets.robustness(measure), strict=True
    ):
        key = (training, net["epochs"], net["iterations"])
        by_network.setdefault(key, {})[net["amount"]] = value
    moved = [own[most] - own[least] for own in by_network.values() if least in own and most in own]
    if len(moved) < 2:
        return "undefined"
    half = 1.96 * np.std(moved, ddof=1) / np.sqrt(len(moved))
    return f"{np.mean(moved):+.3f} ± {half:.3f} of {len(moved)}"


# ---- figure 4 --------------------------------------------------------------------------


def sampling_table(read):
    columns = (
        "networks",
        "measure",
        "how many HMC, SGD",
        "accuracy, %: HMC, SGD",
        "robustness: HMC, SGD",
        "accuracy and robustness: HMC",
        "HMC, of those that have learned",
        "SGD",
        "weights and robustness: HMC",
        "paper",
    )
    table = Table("Figure 4: Hamiltonian Monte Carlo", columns, [NOTES["sampling"]])
    paper = "HMC positive, SGD negative; weights weakly positive"
    for of, nets in read.sampling.items():
        if nets is None:
            for name in MEASURES.values():
                table.row(_title(of), name, *[None] * 7, paper)
            continue
        hmc, sgd = (nets.where(lambda net, own=own: method(net) == own) for own in ("HMC", "SGD"))
        for measure, name in MEASURES.items():
            table.row(
                _title(of),
                name,
                f"{len(hmc)}, {len(sgd)}",
                ", ".join(mean_of(part.of("accuracy"), 100, 1) for part in (hmc, sgd)),
                ", ".join(mean_of(part.robustness(measure), 1, 3) for part in (hmc, sgd)),
                hmc.correlation("accuracy", measure),
                f"{hmc.learned().correlation('accuracy', measure)} ({len(hmc.learned())})",
                sgd.correlation("accuracy", measure),
                hmc.correlation("weights", measure),
                paper,
            )
        if len(hmc):
            table.notes.append(quality(_title(of), hmc))
    return table


def mean_of(values, times, digits):
    """Return a mean as text; of the networks of one method there may be none."""
    return f"{times * np.mean(values):.{digits}f}" if len(values) else "none"


def quality(title, nets):
    """Return what is known of the chains, as a sentence."""
    accepted, effective = nets.of("acceptance"), nets.of("effective")
    return (
        f"{title}: the chains accept {percent(min(accepted))} to {percent(max(accepted))} % of "
        "their proposals; the least effective sample size of one, of at most "
        f"{max(nets.of('n_samples'))} samples, is {min(effective):.1f}, and that of half of the "
        f"chains below {np.median(effective):.1f}."
    )


# ---- what the paper says ---------------------------------------------------------------


def claims_table(read):
    """Return each statement of the paper, and in how many cases it is seen here."""
    table = Table("What the paper says", ("statement", "here"), [NOTES["claims"]])
    known = [nets.learned() for nets in read.trade_off.values() if nets is not None]
    pruned = [nets for nets in read.pruning.values() if nets is not None]
    sampled = [nets for nets in read.sampling.values() if nets is not None]
    only = {
        "HMC": [nets.where(lambda net: method(net) == "HMC") for nets in sampled],
        "pruned": [nets.where(lambda net: net["amount"] > 0) for nets in pruned],
    }
    for statement, parts, name, sign in (
        ("SGD: more accurate networks are less robust", known, "accuracy", "negative"),
        ("more capacity lowers robustness", known, "weights", "negative"),
        ("longer training lowers robustness", known, "epochs", "negative"),
        ("pruned: more accurate is less robust", only["pruned"], "accuracy", "negative"),
        ("the share removed has no effect", only["pruned"], "amount", "none seen"),
        ("HMC: more accurate is more robust", only["HMC"], "accuracy", "positive"),
        ("HMC: more capacity is more robust, weakly", only["HMC"], "weights", "positive"),
    ):
        if read.sampling or "HMC" not in statement:
            table.row(statement, seen(parts, name, sign))
    table.row("strong pruning costs a little accuracy", lost_by_pruning(only["pruned"]))
    return table


def seen(parts, name, sign):
    """Return in how many cases (networks and measures) a sign is seen, and the other signs."""
    if not parts:
        return None
    known = [part for part in parts if len(part)]
    signs = [part.correlation(name, measure).sign for part in known for measure in MEASURES]
    others = {other: signs.count(other) for other in dict.fromkeys(signs) if other != sign}
    text = f"{sign} in {signs.count(sign)} of {len(signs)}"
    return text + "".join(f"; {other} in {n}" for other, n in others.items())


def lost_by_pruning(parts):
    if not parts:
        return None
    texts = []
    for part in parts:
        if len(part) == 0:
            continue
        least, most = min(part.of("amount")), max(part.of("amount"))
        means = [
            np.mean(part.where(lambda net, own=own: net["amount"] == own).of("accuracy"))
            for own in (least, most)
        ]
        texts.append(f"{percent(means[0])} % at {least:g}, {percent(means[1])} % at {most:g}")
    return "; ".join(texts)
