"""Queries as files, ONNX and VNNLIB, for verifiers elsewhere."""

from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from skrobust._validation import expected, kind_of
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.graphs import OnnxWriter, read_graph
from skrobust.networks import Model, as_network, check_rows, dtype_and_device, import_onnx
from skrobust.properties import check_property
from skrobust.verification._query import make_query
from skrobust.verification._steps import Encoding

__all__ = ["export_query"]


def export_query(network, property, x, label=None, folder="."):
    """Write a network and the negated property around one point as ONNX and VNNLIB.

    A verifier that answers "unsat" has proved the property; one that answers "sat" gives a point
    that breaks it, but for points at which a row is exactly zero where the property allows that.

    Parameters
    ----------
    network : object
        Fitted classifier of a kind that `skrobust.networks.as_network` reads, a `Network`, or a
        torch module from rows to logits; piecewise linear.
    property : RobustnessProperty
        With an L-infinity ball, and rows that do not depend on the distance. For strong
        classification the linear rows that imply it are written: a point that breaks them
        need not break the property itself.
    x : array-like of shape (n_features,)
        Reference point.
    label : int, default=None
        True class index, where the property needs it.
    folder : str or path-like, default="."
        Made if it is not there.

    Returns
    -------
    pair of pathlib.Path
        Of network.onnx and query.vnnlib.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    UnsupportedModelError
        If the network is not piecewise linear.
    UnsupportedPropertyError
        If VNNLIB cannot state the property.

    Examples
    --------
    >>> import tempfile, torch
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import export_query
    >>> network = torch.nn.Linear(2, 3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _, query = export_query(network, ClassificationRobustness(0.1), [0.5, 0.5], 0, folder)
    ...     print(query.read_text().splitlines()[-4:])
    ['(assert (or', '  (and (>= Y_1 Y_0))', '  (and (>= Y_2 Y_0))', '))']
    """
    onnx = import_onnx()
    _check_exportable(property)
    if not isinstance(network, Model | torch.nn.Module):
        network = as_network(network)
    x = _row(network, x)
    graph = read_graph(network, x.shape[1])
    property.check(x.cpu().numpy(), n_classes=graph.n_classes)
    labels = _labels(property, label, graph.n_classes, x.device)
    with torch.no_grad():
        query = make_query(Encoding(network, property, graph), x, labels)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "network.onnx", folder / "query.vnnlib"
    onnx.save(OnnxWriter(onnx, x.dtype).model(graph), paths[0])
    paths[1].write_text(_vnnlib(query, property), encoding="utf-8")
    return paths


def _row(network, x):
    """Return the reference point as one row, in the dtype and on the device of the network."""
    if isinstance(network, Model):
        dtype, device, n_features = network.dtype, network.device, network.n_features
    else:
        (dtype, device), n_features = dtype_and_device(network), None
    try:
        x = x.detach().cpu() if isinstance(x, torch.Tensor) else x
        row = np.asarray(x).reshape(1, -1)
    except (TypeError, ValueError):
        raise ValueError(expected("x", x, "an array of numbers")) from None
    row = np.require(check_rows(row, n_features), requirements=["C", "W"])
    return torch.as_tensor(row, dtype=dtype, device=device)


def _labels(property, label, n_classes, device):
    if label is None and not property.needs_labels:
        return None
    expectation = f"a class index from 0 to {n_classes - 1}"
    if isinstance(label, bool) or not isinstance(label, Integral) or not 0 <= label < n_classes:
        raise ValueError(expected("label", label, expectation))
    return torch.tensor([int(label)], device=device)


def _check_exportable(property):
    check_property(property)
    if not getattr(property.bounds, "is_box", True):
        raise UnsupportedPropertyError(
            f"Got bounds={property.bounds!r}, but a query is about a box. Use "
            "bounds=(domain.lower, domain.upper) for the box around the valid points."
        )
    if property.norm != "linf":
        raise UnsupportedPropertyError(
            f"Got norm={property.norm!r}, but VNNLIB has linear constraints only: use 'linf'."
        )


def _vnnlib(query, property):
    if query.uses_distance:
        raise UnsupportedPropertyError(
            f"Got {kind_of(property)}, whose rows depend on the distance from the "
            "reference point, but VNNLIB speaks of inputs and outputs only."
        )
    A, b = query.rows.A[0].cpu().numpy(), query.rows.b[0].cpu().numpy()
    clauses = [sorted(set(clause)) for clause in query.clauses.tolist()]
    lower, upper = (v[0].cpu().numpy() for v in (query.ball.lower, query.ball.upper))
    lines = [f"; {' '.join(repr(property).split())}", "; Satisfiable where the property fails."]
    if not query.is_linear:
        lines.append("; These linear rows imply the property; they may fail where it holds.")
    if not query.strict.all():
        lines.append("; Rows may be zero in the property; here they are not: <= stands for <.")
    lines += [f"(declare-const X_{i} Real)" for i in range(len(lower))]
    lines += [f"(declare-const Y_{j} Real)" for j in range(A.shape[1])]
    for i, sides in enumerate(zip(lower, upper, strict=True)):
        lines += [
            f"(assert ({sign} X_{i} {_number(value)}))"
            for sign, value in zip((">=", "<="), sides, strict=True)
        ]
    lines += [
        "(assert (or",
        *(f"  (and {' '.join(_negated(A[k], b[k]) for k in clause)})" for clause in clauses),
        "))",
    ]
    return "\n".join(lines) + "\n"


def _negated(a, b):
    """Return a y + b <= 0 in the plainest form; not every parser reads sums."""
    places = np.flatnonzero(a)
    if len(places) == 2 and b == 0 and a[places].sum() == 0:
        high, low = places[np.argsort(a[places])]
        return f"(>= Y_{high} Y_{low})"
    if len(places) == 1 and abs(a[places[0]]) == 1:
        j = places[0]
        return f"(<= Y_{j} {_number(-b)})" if a[j] > 0 else f"(>= Y_{j} {_number(b)})"
    terms = [f"Y_{j}" if a[j] == 1 else f"(* {_number(a[j])} Y_{j})" for j in places]
    total = f"(+ {' '.join(terms)})" if len(terms) > 1 else (terms or [_number(0.0)])[0]
    return f"(<= {total} {_number(-b)})"


def _number(value):
    """Return a decimal number without exponent that reads back as the same float64."""
    return np.format_float_positional(value + 0.0, trim="0")  # + 0.0: no minus before zero
