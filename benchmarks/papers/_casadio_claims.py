"""The orders that Casadio et al. state in words, asked of the figures of a rerun."""

from _casadio_cells import QUERIES
from _casadio_nets import PAPER_REGIMES, SATISFACTION_REGIMES

__all__ = ["claims"]

# The property and the attack that security is measured by, and which of two regimes is meant.
CODE = {"SCR": "SCR, code", "attack": "paper's", "suffix": ", code"}
TEXT = {"SCR": "SCR", "attack": "ours", "suffix": ""}
POINTS = 0.5  # percentage points, below which two figures are the same


def claims(results, budget, large=True):
    """Yield the claim, the data, and an answer in each reading: as run, and as written.

    Parameters
    ----------
    results : Results
    budget : Budget
    large : bool, default=True
        Whether there are figures of the network of 18 layers.

    Yields
    ------
    tuple of str
    """
    for data in budget.data:
        for claim, ask in SATISFACTION_CLAIMS.items():
            yield claim, data, "–", answer(ask, Reading(results, data, TEXT))
        for claim, ask in SECURITY_CLAIMS.items():
            yield claim, data, *(answer(ask, Reading(results, data, how)) for how in (CODE, TEXT))
    for claim, ask in LARGE_CLAIMS.items() if large else ():
        yield claim, budget.large_data, answer(ask, LargeReading(results, budget)), "–"


def answer(ask, reading):
    """Return yes, no or tied with the figures, or None where some were not run."""
    try:
        holds, figures = ask(reading)
    except MissingError:
        return None
    return f"{'tied' if holds is None else 'yes' if holds else 'NO'}: {figures}"


class MissingError(Exception):
    """A figure has not been computed."""


class Reading:
    """Figures of one data set, in one of two readings of the paper.

    Parameters
    ----------
    results : Results
    data : str
    how : dict
        CODE or TEXT.
    """

    def __init__(self, results, data, how):
        self.results, self.data, self.how = results, data, how

    def _regime(self, name):
        is_double = name in ("adversarial", "SCR loss")
        return name + self.how["suffix"] if is_double else name

    def security(self, name, property):
        """Return the mean over the radii above 0, in percent."""
        key = self.data, 100, self._regime(name), self.how.get(property, property)
        scores = self.results.scores(*key, self.how["attack"])
        return _percent(None if scores is None else sum(scores[1:]) / len(scores[1:]))

    def accuracy(self, name):
        return _percent(self.results.accuracy[self.data, 100, self._regime(name)])

    def satisfaction(self, name, query):
        """Return the verified share in percent, in the uncut ball."""
        counts = self.results.verdicts(self.data, 30, name, query, "uncut")
        return _percent(None if counts is None else counts["verified"] / counts.total())


class LargeReading:
    """Figures of the network of 18 layers: of the paper's attack on the code's property."""

    def __init__(self, results, budget):
        self.results, self.data = results, budget.large_data

    def security(self, name):
        scores = self.results.scores(self.data, "large", name, "SCR, code", "paper's")
        return _percent(None if scores is None else sum(scores[1:]) / len(scores[1:]))


def _percent(share):
    if share is None:
        raise MissingError
    return 100 * share


def _most(name, values):
    """Return whether a name has the largest value (None: all do), and all from the top."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    figures = ", ".join(f"{other} {value:.1f}" for other, value in ordered)
    if ordered[0][1] - ordered[-1][1] <= POINTS:
        return None, figures
    return values[name] >= ordered[0][1] - POINTS, figures


def _all_above(pairs):
    """Return whether each first value is above its second; None if all are too close to say."""
    if all(abs(first - second) <= POINTS for first, second in pairs):
        return None
    return all(first > second + POINTS for first, second in pairs)


def _no_more(values, limit, of):
    """Return whether no value is above the limit."""
    figures = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
    holds = all(value <= limit + POINTS for value in values.values())
    return holds, f"{figures}; {of} {limit:.1f}"


def _satisfies_most(query):
    names = [name for name in SATISFACTION_REGIMES if name != "certified"]
    return lambda of: _most("LR loss", {name: of.satisfaction(name, query) for name in names})


def _withstands_most(name, property):
    return lambda of: _most(name, {each: of.security(each, property) for each in PAPER_REGIMES})


def _augmentation_is_no_better(of):
    extra = {name: of.security(name, "SR") for name in ("RU", "FGSM")}
    return _no_more(extra, of.security("baseline", "SR"), "baseline")


def _lipschitz_beats_standard(of):
    pairs = [
        (of.security("LR loss", property), of.security("SR loss", property))
        for property in ("SR", "LR")
    ]
    figures = "; ".join(f"{ours:.1f} and {other:.1f}" for ours, other in pairs)
    return _all_above(pairs), figures


def _lipschitz_attack_is_hardest(of):
    worst = {
        name: of.security(name, "LR") - min(of.security(name, each) for each in ("SR", "SCR"))
        for name in PAPER_REGIMES
    }
    name = max(worst, key=worst.get)
    return worst[name] <= POINTS, f"{name} has {of.security(name, 'LR'):.1f} against LR"


def _confidence_loss_helps_nothing_against_standard(of):
    return _no_more(
        {"SCR loss": of.security("SCR loss", "SR")}, of.security("baseline", "SR"), "baseline"
    )


def _uniform_is_worse_than_fgsm(of):
    uniform, fgsm = of.security("RU", "SR"), of.security("FGSM", "SR")
    return _all_above([(fgsm, uniform)]), f"RU {uniform:.1f}; FGSM {fgsm:.1f}"


def _adversarial_loses_most_accuracy(of):
    baseline = of.accuracy("baseline")
    names = [name for name in PAPER_REGIMES if name != "baseline"]
    return _most("adversarial", {name: baseline - of.accuracy(name) for name in names})


def _nothing_satisfies_lipschitz(of):
    names = [name for name in SATISFACTION_REGIMES if name != "certified"]
    values = {name: of.satisfaction(name, "LR") for name in names}
    return max(values.values()) == 0, f"at most {max(values.values()):.1f}"


SATISFACTION_CLAIMS = {
    f"LR loss satisfies {query} most": _satisfies_most(query) for query in QUERIES if query != "LR"
} | {"no network satisfies LR": _nothing_satisfies_lipschitz}

SECURITY_CLAIMS = {
    "adversarial training is first against SR": _withstands_most("adversarial", "SR"),
    "adversarial training is first against SCR": _withstands_most("adversarial", "SCR"),
    "augmentation is no better than baseline against SR": _augmentation_is_no_better,
    "RU is worse than FGSM against SR": _uniform_is_worse_than_fgsm,
    "LR loss beats SR loss against SR, and against LR": _lipschitz_beats_standard,
    "LR attacks break each network most": _lipschitz_attack_is_hardest,
    "SCR loss is no better than baseline against SR": (
        _confidence_loss_helps_nothing_against_standard
    ),
    "adversarial training loses most accuracy": _adversarial_loses_most_accuracy,
}


def _augmentation_is_better(of):
    extra = {name: of.security(name) for name in ("RU", "FGSM")}
    baseline = of.security("baseline")
    figures = ", ".join(f"{name} {value:.1f}" for name, value in extra.items())
    holds = _all_above([(value, baseline) for value in extra.values()])
    return holds, f"{figures}; baseline {baseline:.1f}"


def _constraint_is_first(of):
    names = ("baseline", "RU", "FGSM", "adversarial, FGSM", "SCR loss, code")
    return _most("SCR loss, code", {name: of.security(name) for name in names})


LARGE_CLAIMS = {
    "18 layers: both augmentations are better than baseline": _augmentation_is_better,
    "18 layers: the constraint loss is first": _constraint_is_first,
}
