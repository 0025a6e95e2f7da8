"""What is read from the results of a search: scores of its candidates, and their parameters."""

import re
from collections.abc import Mapping

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import check_instance, expected

__all__ = [
    "NOT_SET",
    "comparable",
    "mean_scores",
    "means_of",
    "named_results",
    "parameter_values",
    "parameters_of",
    "parameters_of_candidates",
    "results_of",
    "standard_errors",
]

NOT_SET = "not set"
# How many samples, or how much of another resource, candidates were evaluated on: of halving
# searches, and of a race.
_EFFORTS = ("n_resources", "n_drawn")


def results_of(search, argument="search"):
    """Return `cv_results_` of a fitted search; results themselves, or a frame, are returned."""
    if _is_results(search):
        return search
    if not hasattr(search, "fit"):
        expectation = "a fitted search, or its `cv_results_` with columns mean_test_..."
        raise TypeError(expected(argument, search, expectation))
    check_is_fitted(search, "cv_results_")
    return search.cv_results_


def named_results(searches, argument="search"):
    """Return a dict of names to results: of a list, the places are the names; of one, it is ""."""
    if isinstance(searches, Mapping) and not _is_results(searches):
        named = dict(searches)
    elif isinstance(searches, list | tuple):
        named = dict(enumerate(searches))
    else:
        named = {"": searches}
    if not named:
        raise ValueError(expected(argument, searches, "one search at least"))
    return {name: results_of(search, argument) for name, search in named.items()}


def mean_scores(results, argument, name):
    """Return the mean test scores of the candidates; `argument` is what names them."""
    check_instance(argument, name, str, "'accuracy'")
    scored = _endings(results, "mean_test_")
    if name not in scored:
        raise ValueError(expected(argument, name, f"one of the search's scores {scored}"))
    return _numbers(results, f"mean_test_{name}")


def means_of(results, argument, names):
    """Return the mean test scores of several names, of shape (n_candidates, n_scores)."""
    columns = [mean_scores(results, argument, name) for name in names]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        what = f"columns of the lengths {lengths} for {list(names)}"
        raise ValueError(f"Got results with {what}, but expected one length.")
    return np.stack(columns, axis=1)


def standard_errors(results, name):
    """Return the standard error over the folds of a mean test score, for each candidate.

    NaN where fewer than two folds have a score.
    """
    pattern = re.compile(rf"split\d+_test_{re.escape(name)}")
    columns = [_numbers(results, key) for key in results if pattern.fullmatch(str(key))]
    if len(columns) < 2:
        return np.full(len(_numbers(results, f"mean_test_{name}")), np.nan)
    scores = np.ma.masked_invalid(np.stack(columns))
    counts = scores.count(axis=0)
    # Of one score, the deviation from itself is masked.
    deviations = scores.std(axis=0, ddof=1).filled(np.nan)
    return deviations / np.sqrt(np.maximum(counts, 1))


def comparable(results, means):
    """Return which candidates can be compared: those without NaN, evaluated the furthest.

    Parameters
    ----------
    results : dict of str to array, or DataFrame
    means : ndarray of shape (n_candidates, n_scores)

    Returns
    -------
    is_scored, is_complete : ndarray of bool, shape (n_candidates,)
        Without NaN; and of these, those that no other one is ahead of in a halving search or a
        race.
    """
    is_scored = ~np.isnan(means).any(axis=1)
    is_complete = is_scored.copy()
    for effort in _EFFORTS:
        if effort in results and is_scored.any():
            efforts = _numbers(results, effort)
            is_complete &= efforts >= efforts[is_scored].max()
    return is_scored, is_complete


def parameters_of(*results):
    """Return the names of the parameters that searches vary."""
    return list(dict.fromkeys(name for each in results for name in _endings(each, "param_")))


def parameters_of_candidates(results):
    """Return a dict of parameters for each candidate, as far as the results tell them."""
    if "params" in results:
        return list(results["params"])
    n_candidates = max((len(results[key]) for key in results), default=0)
    candidates = [{} for _ in range(n_candidates)]
    for name in _endings(results, "param_"):
        for candidate, value in zip(candidates, results[f"param_{name}"], strict=True):
            # A frame has NaN where a candidate does not set the parameter.
            if value is not np.ma.masked and not (isinstance(value, float) and np.isnan(value)):
                candidate[name] = value
    return candidates


def parameter_values(results, argument, name, missing=NOT_SET, known=None):
    """Return the value of a parameter for each candidate, and `missing` where it has none.

    The name must be among the `known` ones, by default those that the search varies.
    """
    check_instance(argument, name, str, "'max_epochs'")
    known = parameters_of(results) if known is None else known
    if name not in known:
        raise ValueError(expected(argument, name, f"one of {known}"))
    return [parameters.get(name, missing) for parameters in parameters_of_candidates(results)]


def _is_results(thing):
    """Return whether something is a table of results: a dict of columns, or a frame."""
    is_table = isinstance(thing, Mapping) or hasattr(thing, "columns")
    return is_table and any(str(key).startswith("mean_test_") for key in thing)


def _endings(results, start):
    return [key.removeprefix(start) for key in results if str(key).startswith(start)]


def _numbers(results, key):
    try:
        column = np.asarray(results[key], dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(expected(key, results[key], "numbers, one for each candidate")) from None
    if column.ndim != 1:
        raise ValueError(expected(key, results[key], "numbers, one for each candidate"))
    return column
