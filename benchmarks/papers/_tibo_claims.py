"""The orders that Tibo et al. state, asked of the figures of a rerun.

Two networks are compared image by image, so that what the choice of images does to both cancels.
"""

import numpy as np

__all__ = ["claims", "difference"]


def difference(first, second):
    """Return the mean of the paired differences, and half of its 95 % interval.

    Parameters
    ----------
    first, second : ndarray of shape (n,)
        Of the same images.

    Returns
    -------
    tuple of two floats
    """
    change = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return float(change.mean()), float(1.96 * change.std(ddof=1) / np.sqrt(len(change)))


def above(first, second, unit=1.0):
    """Return yes, NO or tied, with the means and their difference; None where one is not known.

    Parameters
    ----------
    first, second : ndarray of shape (n,), or None
    unit : float, default=1.0
        100 for percent.
    """
    if first is None or second is None:
        return None
    mean, half = difference(first, second)
    answer = "yes" if mean > half else "NO" if mean < -half else "tied"
    both = " against ".join(f"{unit * np.mean(values):.4g}" for values in (first, second))
    return f"{answer}: {both} (difference {unit * mean:+.3g} ± {unit * half:.2g})"


def claims(results, titles):
    """Yield each statement, what it is of, and what is seen here.

    Parameters
    ----------
    results : Results
    titles : dict of str to str
        Of data sets.

    Yields
    ------
    tuple of str, str, and str or None
    """
    for data in results.plan.data:
        yield from _of_wins(results, data, titles[data])
    for data in results.plan.data:
        for name in ("HEIN", "R2"):
            statement = f"{name} loses at most 2.2 points of accuracy"
            correct = (results.correct[data, "none"], results.correct[data, name])
            yield statement, titles[data], _loses_at_most(*correct, 0.022)
    corrupted = {name: results.corruption_shares(name) for name in ("none", "HEIN", "R2")}
    for name in ("HEIN", "R2") if results.plan.corrupted else ():
        answer = above(corrupted[name], corrupted["none"], 100)
        yield f"{name} is above none in the mean over the corruptions", "MNIST-C", answer
    for data in results.plan.codes:
        yield from _on_manifold(results, data, titles[data])
    for data in results.plan.data:
        pair = (results.distances(data, name) for name in ("R2", "none"))
        yield "R2 training raises R2 (what it is for)", titles[data], above(*pair)


def _of_wins(results, data, title):
    for one_ball in (False, True):
        share = {
            (name, attack): results.closest(data, name, attack, one_ball)
            for name in ("none", "R2")
            for attack in ("BG", "PGD")
        }
        of = f"{title}, {'one ball' if one_ball else 'smaller balls'}"
        first = "on a plain network BG is closest more often than PGD"
        yield first, of, above(share["none", "BG"], share["none", "PGD"], 100)
        second = "R2 training raises the share at which PGD is closest"
        yield second, of, above(share["R2", "PGD"], share["none", "PGD"], 100)
        if data == "mnist":
            third = "after R2 training PGD is closest more often than BG"
            yield third, of, above(share["R2", "PGD"], share["R2", "BG"], 100)


def _loses_at_most(plain, other, limit):
    if plain is None or other is None:
        return None
    mean, half = difference(plain, other)
    answer = "yes" if mean + half <= limit else "NO" if mean - half > limit else "tied"
    return f"{answer}: loses {100 * mean:.2f} ± {100 * half:.2f} points"


def _on_manifold(results, data, title):
    correct = {name: results.correct[data, name] for name in ("none", "R4", "Stutz")}
    values = {name: results.manifold_values(data, name) for name in ("R2", "R4", "Stutz")}
    distances = {name: results.distances(data, name) for name in ("R2", "R4")}
    for statement, pair in (
        ("R4 training has a larger R4 than Stutz et al.", (values["R4"], values["Stutz"])),
        ("R4 training has a larger R4 than R2 training", (values["R4"], values["R2"])),
        ("R2 training has a larger R2 than R4 training", (distances["R2"], distances["R4"])),
    ):
        yield statement, title, above(*pair)
    for other in ("Stutz", "none"):
        statement = f"R4 training is more accurate than {other.replace('Stutz', 'Stutz et al.')}"
        yield statement, title, above(correct["R4"], correct[other], 100)
