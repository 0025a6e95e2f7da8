"""What displays read from a fitted search: mean scores, and the values of a parameter."""

from sklearn.utils.validation import check_is_fitted

from skrobust._validation import check_instance, expected

__all__ = []

NOT_SET = "not set"


def results_of(search):
    """Return `cv_results_` of a fitted search."""
    check_is_fitted(search, "cv_results_")
    return search.cv_results_


def mean_scores(results, argument, name):
    """Return the mean test scores of the candidates; `argument` is what names them."""
    check_instance(argument, name, str, "'accuracy'")
    scored = _endings(results, "mean_test_")
    if name not in scored:
        raise ValueError(expected(argument, name, f"one of the search's scores {scored}"))
    return results[f"mean_test_{name}"]


def parameters_of(*results):
    """Return the names of the parameters that searches vary."""
    return list(dict.fromkeys(name for each in results for name in _endings(each, "param_")))


def parameter_values(results, argument, name, missing=NOT_SET, known=None):
    """Return the value of a parameter for each candidate, and `missing` where it has none.

    The name must be among the `known` ones, by default those that the search varies.
    """
    check_instance(argument, name, str, "'max_epochs'")
    known = parameters_of(results) if known is None else known
    if name not in known:
        raise ValueError(expected(argument, name, f"one of {known}"))
    return [parameters.get(name, missing) for parameters in results["params"]]


def _endings(results, start):
    return [key.removeprefix(start) for key in results if key.startswith(start)]
