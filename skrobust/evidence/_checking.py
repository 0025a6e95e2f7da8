"""Folders of evidence, checked: what the checker says, and whether the network is the one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skrobust._validation import check_flag, expected
from skrobust.evidence import _checker, _rules
from skrobust.evidence._ensembles import ensemble_arrays
from skrobust.evidence._network import network_arrays
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import read_graph
from skrobust.networks import BlackBox, as_network
from skrobust.trees import is_tree_model

__all__ = ["Evidence", "by_bounds", "check", "opened", "why_rejected"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the checker says of a folder of evidence.

    Parameters
    ----------
    folder : Path
    files : ndarray of shape (n_files,) of str
        One for each point; a fault of the folder itself stands with ``manifest.json``.
    accepted : bool ndarray of shape (n_files,)
    messages : ndarray of shape (n_files,) of object
        What is proved, or why a file is rejected.

    Attributes
    ----------
    is_accepted : bool
        Whether there are files, and all are accepted.
    """

    folder: Path
    files: np.ndarray
    accepted: np.ndarray
    messages: np.ndarray

    def __len__(self):
        return len(self.files)

    @property
    def is_accepted(self):
        return len(self) > 0 and bool(self.accepted.all())


def check(folder, estimator=None, *, exact=False):
    """Check a folder of evidence.

    The checker is one that imports NumPy alone, and computes every bound itself; it trusts no
    number of a file but those that say what is claimed: the network, the ball and the rows.

    Parameters
    ----------
    folder : str or path-like
    estimator : object, default=None
        Fitted classifier. The network in the folder must then be that of the estimator, with
        equal numbers; else all files are rejected, with what differs.
    exact : bool, default=False
        Whether bounds are computed in exact arithmetic (for small networks and boxes), not in
        float64 with room for rounding.

    Returns
    -------
    Evidence

    Raises
    ------
    TypeError
        If `folder` is no path.
    UnsupportedModelError
        If the estimator cannot be read as a network.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.evidence import check
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import Cascade
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> property = ClassificationRobustness(0.15)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = Cascade().verify(model, X, y, property=property, evidence=folder)
    ...     evidence = check(folder, model)
    >>> evidence.accepted.tolist()
    [True, True, True, True]
    """
    if not isinstance(folder, str) and not hasattr(folder, "__fspath__"):
        raise TypeError(expected("folder", folder, "a str or path-like"))
    check_flag("exact", exact)
    folder = Path(folder)
    difference = None if estimator is None else _difference(folder, estimator)
    found = list(_checker.check_folder(folder, exact))
    if difference is not None:
        found = [(name, False, difference) for name, _, _ in found]
    names, accepted, messages = zip(*found, strict=True) if found else ((), (), ())
    return Evidence(
        folder, np.array(names, dtype=str), np.array(accepted, dtype=bool), _objects(messages)
    )


def _objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _difference(folder, estimator):
    """Return how the network in a folder differs from an estimator's, or None."""
    is_trees = is_tree_model(estimator)
    network = BlackBox(estimator) if is_trees else as_network(estimator)
    try:
        stored = _checker.read_arrays(folder / "network.npz")
        n = int(_rules.numbers(stored, "n_features", (), below=_rules.MOST_NUMBERS))
    except _checker.FAULTS as error:
        return f"network.npz: {_checker.told(error)}"
    if network.n_features not in (None, n) or n == 0:
        return f"the network is not the estimator's: it has {n} features, not {network.n_features}"
    own = ensemble_arrays(network, n) if is_trees else network_arrays(read_graph(network, n))
    for name in sorted(own.keys() | stored.keys()):
        if name not in own or name not in stored:
            whose = "folder" if name in stored else "estimator"
            which = f"{whose} has {_rules.plain(name)}"
            return f"the network is not the estimator's: only that of the {which}"
        is_same, is_text = np.array_equal(own[name], stored[name]), name in ("nodes", "ensemble")
        if not is_same or (is_text and own[name].tobytes() != stored[name].tobytes()):
            return f"the network is not the estimator's: {name} differs"
    return None


def opened(arrays):
    """Return stored arrays as the checker reads them.

    Raises
    ------
    UnsupportedModelError
        If the checker refuses them.
    """
    try:
        _check_size(arrays)
        return _checker.opened(arrays, False)
    except _checker.Rejected as error:
        raise UnsupportedModelError(
            f"The checker of evidence refuses the network: {error}"
        ) from None


def _check_size(arrays):
    """Reject what the checker would not read from a file."""
    count = sum(np.size(part) for part in arrays.values())
    _rules.need(count <= _rules.MOST_NUMBERS, f"{count} numbers are too many for a file")


def why_rejected(arrays, network, digest):
    """Return why the checker rejects the arrays of a point, or None if it accepts them."""
    try:
        _check_size(arrays)
        with np.errstate(all="ignore"):
            _checker.check_claim(arrays, network, digest)
    except _checker.Rejected as error:
        return str(error)
    return None


def by_bounds(arrays, network):
    """Return the arrays of a proof of a claim by bounds over the whole ball alone.

    Where a clause has several rows, it is by the one with the largest bound.
    """
    clause, b = arrays["clause"], arrays["b"]
    if (clause == np.arange(len(b))).all():
        return {}
    with np.errstate(all="ignore"):
        network.ball = _checker.Ball(arrays, _norm(arrays), network.sizes[0])
        region = network.relax(arrays["lower"][None], arrays["upper"][None])
        last = len(network.nodes) - 1
        bounds, _ = network.bound(region, last, arrays["A"], np.zeros(len(b), int), b)
    order = np.lexsort([-np.nan_to_num(bounds, nan=-np.inf), clause])
    rows = order[np.flatnonzero(np.diff(clause[order], prepend=-1))]
    zeros = np.zeros(len(rows), dtype=int)
    return {"row": rows, "node": zeros, "unit": zeros, "tightens": zeros}


def _norm(arrays):
    return _checker.read_json(arrays["claim"], "its claim").get("norm")
