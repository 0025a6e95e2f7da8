"""Folders of evidence, checked: what the checker says, and whether the network is the one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skrobust._validation import (
    BY_LABEL,
    check_flag,
    check_labels_given,
    check_length,
    expected,
    kind_of,
    sample_shape,
)
from skrobust.evidence import _checker, _rules
from skrobust.evidence._claims import (
    about_point,
    around_valid,
    asked,
    claimed_rows,
    joined_rows,
)
from skrobust.evidence._ensembles import ensemble_arrays
from skrobust.evidence._network import network_arrays
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import read_graph
from skrobust.networks import BlackBox, as_network
from skrobust.trees import is_tree_model

__all__ = ["Evidence", "check", "opened", "why_rejected"]


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


def check(folder, estimator=None, X=None, y=None, *, property=None, exact=False):
    """Check a folder of evidence.

    The checker is one that imports NumPy alone, and computes every bound itself; it trusts no
    number of a file but those that say what is claimed: the network, the ball and the rows.

    Parameters
    ----------
    folder : str or path-like
    estimator : object, default=None
        Fitted classifier. The network in the folder must then be that of the estimator, with
        equal numbers; else all files are rejected, with what differs.
    X : array-like of shape (n_samples, n_features) or (n_samples, ``*input_shape``), default=None
        Reference points. Their shape tells that of samples, where an estimator does not know it.
    y : array-like of shape (n_samples,), default=None
        True labels, where the property needs them.
    property : RobustnessProperty, default=None
        Ball and rows of each file must then be those of this property around one of the points;
        a file of which they are not is rejected, with what differs.
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
    ValueError
        If a property is given without an estimator and points, or labels that it needs.
    UnsupportedModelError
        If the estimator cannot be read as a network, or is one of trees and a property is given.

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
    ...     evidence = check(folder, model, X, y, property=property)
    >>> evidence.accepted.tolist()
    [True, True, True, True]
    """
    if not isinstance(folder, str) and not hasattr(folder, "__fspath__"):
        raise TypeError(expected("folder", folder, "a str or path-like"))
    check_flag("exact", exact)
    if property is not None and (estimator is None or X is None):
        raise ValueError("Got a property, but expected an estimator and points X beside it.")
    folder = Path(folder)
    found = list(_checker.check_folder(folder, exact))
    if estimator is not None:
        if is_tree_model(estimator):
            if property is not None:
                raise UnsupportedModelError(
                    f"Got a property beside {kind_of(estimator)}, but expected none: files of "
                    "trees name label, radius and domain. Use check(folder, estimator)."
                )
            network = BlackBox(estimator)
        else:
            network = as_network(estimator, input_shape=None if X is None else sample_shape(X))
        difference, graph = _difference(folder, network)
        if difference is not None:
            found = [(name, False, difference) for name, _, _ in found]
        elif property is not None:
            claims = Claims(network, graph, X, y, property)
            found = [
                (name, False, why) if is_accepted and (why := claims.why_not(folder / name)) else
                (name, is_accepted, message)
                for name, is_accepted, message in found
            ]  # fmt: skip
    names, accepted, messages = zip(*found, strict=True) if found else ((), (), ())
    return Evidence(
        folder, np.array(names, dtype=str), np.array(accepted, dtype=bool), _objects(messages)
    )


def _objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _difference(folder, network):
    """Return how the network in a folder differs from an estimator's, or None; and its graph."""
    try:
        stored = _checker.read_arrays(folder / "network.npz")
        n = int(_rules.numbers(stored, "n_features", (), below=_rules.MOST_NUMBERS))
    except _checker.FAULTS as error:
        return f"network.npz: {_checker.told(error)}", None
    what = "the network is not the estimator's"
    if network.n_features not in (None, n) or n == 0:
        return f"{what}: it has {n} features, not {network.n_features}", None
    try:
        if isinstance(network, BlackBox):
            graph, own = None, ensemble_arrays(network, n)
        else:
            graph = read_graph(network, n)
            own = network_arrays(graph)
    except UnsupportedModelError:
        if network.n_features is not None:
            raise  # it cannot be read at all
        return f"{what}: it cannot be read for {n} features; give X, for the shape", None
    except Exception as error:  # whatever a module makes of a row of another length
        return f"{what}: it takes no {n} features ({type(error).__name__}); give X", None
    for name in sorted(own.keys() | stored.keys()):
        if name not in own or name not in stored:
            whose = "folder" if name in stored else "estimator"
            return f"{what}: only that of the {whose} has {_rules.plain(name)}", None
        is_same, is_text = np.array_equal(own[name], stored[name]), name in ("nodes", "ensemble")
        if not is_same or (is_text and own[name].tobytes() != stored[name].tobytes()):
            return f"{what}: {name} differs", None
    return None, graph


class Claims:
    """What files may claim: a property around points."""

    def __init__(self, network, graph, X, y, property):
        rows = network.check_rows(X)
        property.check(rows)
        check_labels_given(y, BY_LABEL.format("property") if property.needs_labels else "")
        if y is not None:
            check_length("y", y, len(rows))
        labels = network.encode(y) if property.needs_labels else None
        self.graph, self.property, x = graph, property, network.rows(rows)
        _, self.conclusion = asked(network, graph, property, x, labels)
        self.ball = property.outer_ball(x)

    def why_not(self, path):
        """Return how the claim of a file differs from that of all points, or None."""
        arrays = _checker.read_arrays(path)
        claim, center = _checker.read_json(arrays["claim"], "its claim"), arrays["center"]
        why = "it is about none of the points X"
        for i in np.flatnonzero((self.ball.center.cpu().numpy() == center).all(axis=1)):
            why = self._difference(arrays, claim, [int(i)])
            if why is None:
                return None
        return why

    def _difference(self, arrays, claim, i):
        ball, what = self.ball[i], "it is not about the property"
        center = arrays["center"]
        about, is_proof = about_point(ball, self.property), claim["verdict"] == "verified"
        own, other = (
            joined_rows(claimed_rows(self.graph, ball, self.conclusion[i], is_proof == side))
            for side in (True, False)
        )
        least = around_valid(about) if self.property.local_set(len(center)) else about
        is_box = (arrays["lower"] <= least["lower"]) & (arrays["upper"] >= least["upper"])
        fits = {"norm": claim["norm"] == ball.norm, "box": is_box.all() or not is_proof}
        same = ("epsilon", "domain_low", "domain_high")
        fits |= {name: np.array_equal(arrays[name], about[name]) for name in same}
        for name in ("integers", "group", "domain_A", "domain_b"):
            fits[name] = np.array_equal(arrays.get(name, 0), about.get(name, 0))
        for name in ("A", "strict", "clause", "distance", "anchored"):
            fits[name] = np.array_equal(arrays.get(name, 0), own.get(name, 0))
        fits["b"] = fits["A"] and len(arrays["b"]) == len(own["b"])
        if fits["b"]:
            # A claim may be of more than the property: of lower constants, where it is proved.
            # What rounding does to constants here is far below what they have been moved by.
            side, room = (1 if is_proof else -1), np.abs(own["b"] - other["b"]) / 8
            fits["b"] = (side * (arrays["b"] - own["b"]) <= room).all()
            limit = [np.asarray(part.get("limit", 0.0)) for part in (arrays, own)]
            fits["limit"] = (
                limit[0].shape == limit[1].shape
                and (
                    ((limit[0] > 0) == (limit[1] > 0)) & (side * (limit[0] - limit[1]) <= 0)
                ).all()
            )
        wrong = [name for name, is_right in fits.items() if not is_right]
        return f"{what}: {wrong[0]} differs" if wrong else None


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
