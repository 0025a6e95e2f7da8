"""Pictures of the rerun on global robustness, drawn by the displays of the library."""

from _global_nets import MEASURES
from matplotlib.figure import Figure

from skrobust.displays import HyperparameterBoxDisplay, TradeOffDisplay
from skrobust.statistics import sample_size

__all__ = ["boxes", "convergence_picture", "trade_off_picture", "two_groups"]


def convergence_picture(drawn, share):
    """Draw figure 1: the estimates at each tolerance, and on a second axis how many samples."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    ax = figure.subplots()
    places = range(len(drawn))
    for place, (tolerance, scores) in zip(places, drawn.items(), strict=True):
        ax.plot([place] * len(scores), scores, ".", color="tab:blue", alpha=0.4)
        ax.plot([place] * 2, [share - tolerance, share + tolerance], "_-k", linewidth=1)
    ax.axhline(share, color="tab:red", linewidth=1)
    ax.set_xticks(list(places), [f"{tolerance:g}" for tolerance in drawn])
    ax.set(xlabel="tolerance", ylabel="estimated global robustness")
    samples = ax.twinx()
    samples.plot(places, [sample_size(tolerance) for tolerance in drawn], "s--", color="tab:green")
    samples.set(yscale="log", ylabel="samples")
    n = len(next(iter(drawn.values())))
    caption = (
        f"Figure 1: {n} estimates at each tolerance (dots), the band that is promised for 95 % of "
        "them (black), the share itself (red), and the number of samples (green)."
    )
    return figure, "figure-1", caption


def _slug(text):
    return "".join(c if c.isalnum() else "-" for c in text.lower()).replace("--", "-")


def trade_off_picture(nets, title):
    """Draw figure 2: one dot a network, shaded by epochs."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    for ax, (measure, name) in zip(figure.subplots(1, 3), MEASURES.items(), strict=True):
        display = TradeOffDisplay(
            nets.of("accuracy"),
            nets.robustness(measure),
            shades=nets.of("epochs"),
            shade_name="epochs",
            robustness_name=f"1 - {name}",
        )
        display.plot(ax=ax, s=18)
        ax.get_legend().remove()
    caption = (
        f"Figure 2: {title}, delta = {nets.delta:g}; one dot a network, all of them; circled: "
        "the Pareto front."
    )
    return figure, f"figure-2-{_slug(title)}", caption


def boxes(nets, title):
    """Draw figure 2's box plots: robustness by capacity and by the duration of training."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    by_weights, by_epochs = figure.subplots(1, 2, sharey=True)
    learned = nets.learned() if len(nets.learned()) else nets
    scores = learned.robustness("mean")
    for ax, name, of, color in (
        (by_weights, "capacity: number of weights", "weights", "plum"),
        (by_epochs, "duration: epochs", "epochs", "lightgreen"),
    ):
        HyperparameterBoxDisplay(
            learned.of(of), scores, name=name, score_name=f"1 - {MEASURES['mean']}"
        ).plot(ax=ax, patch_artist=True, boxprops={"facecolor": color})
        ax.tick_params(axis="x", rotation=45 if of == "weights" else 0)
    caption = f"Figure 2: {title}, delta = {nets.delta:g}, networks that have learned."
    return figure, f"boxes-{_slug(title)}", caption


def two_groups(nets, group, title, name, shade):
    """Draw figure 3 or 4: two groups of networks, each with a color scale of its own.

    Parameters
    ----------
    nets : Networks
    group : callable
        Of a network, as cells return it.
    title, name : str
    shade : str
        What the networks of a group are shaded by.
    """
    figure = Figure(figsize=(15, 6), layout="constrained")
    for ax, (measure, quantity) in zip(figure.subplots(1, 3), MEASURES.items(), strict=True):
        display = TradeOffDisplay(
            nets.of("accuracy"),
            nets.robustness(measure),
            groups=[group(net) for net in nets.nets],
            shades=nets.of(shade),
            shade_name={"amount": "share removed", "weights": "weights"}[shade],
            robustness_name=f"1 - {quantity}",
        )
        display.plot(ax=ax, s=18)
        ax.get_legend().remove()
        # Of both groups together it says nothing of either.
        own = (f"{name} {value:+.2f}" for name, value in display.group_correlations_.items())
        ax.set_title("Spearman correlation: " + ", ".join(own))
    number = {"pruning": 3, "sampling": 4}[name]
    caption = (
        f"Figure {number}: {title}, delta = {nets.delta:g}; circled: the Pareto front of both."
    )
    return figure, f"figure-{number}-{_slug(title)}", caption
