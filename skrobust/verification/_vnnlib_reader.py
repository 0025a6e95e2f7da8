"""Queries in files, ONNX and VNNLIB, as estimators, properties and points."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.networks import Network, load_onnx
from skrobust.properties import LinearRobustness
from skrobust.verification._vnnlib_formula import Case, read_statement
from skrobust.verification._vnnlib_text import Term

__all__ = ["Instance", "read_instances", "read_query"]

_MOST_NUMBERS = 10**7  # of the rows of a property
_ORDERS = 10  # powers of two from 1 within which rows stay as they are stated


@dataclass(frozen=True, eq=False)
class Instance:
    """One box of a query.

    Parameters
    ----------
    estimator : Network
    property : LinearRobustness
        What holds in the box where nothing of it satisfies the query.
    x : ndarray of shape (1, n_features)
        The center of the box.
    case : Case
        As the file states it.
    dropped : str or None
        See `OnnxModule`.
    """

    estimator: Network
    property: LinearRobustness
    x: np.ndarray
    case: Case
    dropped: str | None

    def witness(self, point):
        """Return inputs and outputs at a point that satisfies the query, or None.

        The network computes the outputs in its own precision; all comparisons are exact.

        Parameters
        ----------
        point : ndarray of shape (n_features,)

        Returns
        -------
        pair of ndarray in float64, or None
        """
        row = self.estimator.rows(np.asarray(point)[None])
        # The box may lie between two numbers of the network's precision: what rounds to this.
        inputs = np.clip(row[0].double().cpu().numpy(), *self.property.bounds)
        if not torch.equal(self.estimator.rows(inputs[None]), row):
            return None
        low, high = self._inner_bounds()
        if (low > high).any():  # no number of float64 lies within strict bounds
            return None
        inputs = np.clip(inputs, low, high)
        row = self.estimator.rows(inputs[None])
        logits = self.estimator.replay(row)[0].cpu()
        if self.dropped == "Softmax":
            logits = torch.softmax(logits, dim=0)
        elif self.dropped == "LogSoftmax":
            logits = torch.log_softmax(logits, dim=0)
        outputs = logits.double().numpy()
        if not np.isfinite(outputs).all():
            return None
        satisfies = self.case.holds([Fraction(value) for value in outputs.tolist()])
        return (inputs, outputs) if satisfies else None

    def _inner_bounds(self):
        """Return the ends of the box; of those that are strict, the next number inside."""
        low, high = map(np.array, self.property.bounds)
        for ends, bounds, inside in ((low, self.case.lows, 1), (high, self.case.highs, -1)):
            for place in range(len(ends)):
                if bounds[f"X_{place}"].strict:
                    ends[place] = np.nextafter(ends[place], inside * np.inf)
        return low, high


def read_query(onnx, vnnlib):
    """Read a query in the form of the verification competitions: ONNX and VNNLIB 1.0.

    A VNNLIB file states what is searched for: inputs in a box, whose outputs satisfy linear
    constraints (``<=``, ``>=``, ``<``, ``>`` and ``=``, joined by ``and``, ``or`` and ``not``).
    The property that is returned is its negation: it holds in the box where no point satisfies
    the file. The negation of ``<=`` is a strict row, which a row of exactly 0 breaks; that of
    ``<`` is one that holds at 0. An input's strict bound becomes that of a closed box, which
    holds more: where nothing of it satisfies the file, nothing within the bounds does. A verifier
    that says "verified" has shown the file unsatisfiable, "unsat"; one that says "falsified" has
    a point of the closed box that satisfies it by the outputs of the network in its own
    precision, which is "sat" if it also lies within the strict bounds. A row that is a thousand
    times larger or smaller than 1 at the center of the first box is multiplied by a power of two,
    which changes no sign, and rounds nothing.

    Parameters
    ----------
    onnx : str or path-like
        Network of one input and one output, of any shape; they are taken in C order.
    vnnlib : str or path-like
        Declares X_0, X_1, ... and Y_0, Y_1, ... by ``declare-const`` or ``declare-fun`` and
        asserts formulas. Every input needs both bounds. ``set-logic``, ``set-info``,
        ``set-option``, and ``check-sat``, ``get-model`` and ``exit`` at the end say nothing.

    Returns
    -------
    estimator : Network
        A fitted classifier of the outputs; there may be one. It computes in the precision of the
        file.
    property : LinearRobustness or list of LinearRobustness
        Of the exact box: its `bounds` are the numbers of the file, and `epsilon`, an array, is
        the reach of each input from the center. Where the file has several boxes, a list of one
        property for each: it is unsatisfiable if all are verified, each around its own row of x.
    x : ndarray of shape (n_boxes, n_features)
        The center of each box.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    ValueError
        If a file is not understood (with its line and word), a box is empty, an input lacks a
        bound, or the numbers of inputs or outputs do not fit the network.
    UnsupportedModelError
        If the network has an operation that is not read.
    UnsupportedPropertyError
        If the network ends in a softmax, which is taken off, and the file compares its outputs
        with numbers.

    References
    ----------
    Demarchi et al., "Supporting standardization of neural networks verification with VNNLIB and
    CoCoNet", FoMLAS 2023. Brix et al., "First three years of the international verification of
    neural networks competition (VNN-COMP)", STTT 2023.

    Examples
    --------
    >>> import tempfile, torch
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import Exact, export_query, read_query
    >>> network = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.eye_(network.weight), torch.nn.init.zeros_(network.bias)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = export_query(network, ClassificationRobustness(0.1), [0.8, 0.5], 0, folder)
    ...     estimator, property, x = read_query(*files)
    >>> property.margin([[0.8, 0.5]]).round(6)
    array([0.3])
    >>> Exact().verify(estimator, x, property=property).verdicts.tolist()
    ['verified']
    """
    instances = read_instances(onnx, vnnlib)
    properties = [instance.property for instance in instances]
    x = np.concatenate([instance.x for instance in instances])
    return instances[0].estimator, properties if len(properties) > 1 else properties[0], x


def read_instances(onnx, vnnlib):
    """Return an `Instance` for each box of a query.

    Parameters
    ----------
    onnx, vnnlib : str or path-like
        As of `read_query`, which raises the same errors.

    Returns
    -------
    list of Instance
    """
    statement = read_statement(vnnlib)
    module = load_onnx(onnx, keep_sigmoid=True)
    n_features = int(np.prod(module.input_shape))
    n_outputs = module.n_outputs
    for what, name, stated, own in (
        ("inputs", "X", statement.n_inputs, n_features),
        ("outputs", "Y", statement.n_outputs, n_outputs),
    ):
        if stated != own:
            raise ValueError(
                f"Got {vnnlib}, which declares {stated} {what} {name}_0, ..., but the network "
                f"{onnx} has {own}."
            )
    estimator = Network(module, np.arange(module.n_outputs), n_features)
    instances, sizes = [], None
    for case in statement.cases:
        rows, strict, clauses = _negated(vnnlib, case.outputs, n_outputs)
        _check_outputs(vnnlib, module.dropped, *rows)
        x, epsilon, bounds = _ball(case, n_features, estimator.dtype)
        _check_range(vnnlib, estimator.dtype, *rows, *bounds)
        if sizes is None:  # of the outputs, at one point: what is wanted is their order
            sizes = np.abs(estimator.replay(estimator.rows(x))[0].double().cpu().numpy())
        rows = _scaled(*rows, sizes)
        property = LinearRobustness(rows, epsilon, bounds=bounds, strict=strict, clauses=clauses)
        instances.append(Instance(estimator, property, x, case, module.dropped))
    return instances


def _negated(path, disjuncts, n_outputs):
    """Return rows (A, b), which are strict, and clauses: true where no conjunction is.

    A constraint is a term of at most 0, and fails where the term is above 0; if it is strict, it
    fails at 0 also.
    """
    terms, strict, places, clauses = [], [], {}, []
    for constraints in disjuncts:
        clause = []
        for constraint in constraints:
            term = constraint.term
            key = (constraint.strict, term.constant, tuple(sorted(term.weights.items())))
            if key not in places:
                places[key] = len(terms)
                terms.append(term)
                strict.append(not constraint.strict)
            clause.append(places[key])
        # What is asked of no output is true everywhere, and its negation, 0 > 0, nowhere.
        if not clause:
            key = (False, 0.0, ())
            if key not in places:
                places[key] = len(terms)
                terms.append(Term())
                strict.append(True)
            clause.append(places[key])
        clauses.append(clause)
    width = max(map(len, clauses))
    if max(len(terms) * n_outputs, len(clauses) * width) > _MOST_NUMBERS:
        raise ValueError(
            f"Got {path}, whose outputs have {len(terms)} constraints in {len(clauses)} "
            f"conjunctions, but expected {_MOST_NUMBERS} numbers at most."
        )
    A, b = np.zeros((len(terms), n_outputs)), np.zeros(len(terms))
    for place, term in enumerate(terms):
        b[place] = term.constant
        for name, weight in term.weights.items():
            A[place, int(name[2:])] = weight
    clauses = clauses if width > 1 or len(terms) > len(clauses) else None
    return (A, b), strict[0] if len(set(strict)) == 1 else strict, clauses


def _scaled(A, b, sizes):
    """Return rows of the order of 1, where they are not, for outputs of given sizes.

    A row is asked for its sign alone, which no positive factor changes. By a power of two nothing
    is rounded; a row whose numbers would leave the normal ones of float32 stays as it is.
    """
    size = np.abs(A) @ np.nan_to_num(sizes, posinf=0.0) + np.abs(b)
    exponent = np.frexp(np.where(size > 0, size, 1.0))[1]
    factor = np.where(np.abs(exponent) > _ORDERS, np.exp2(-np.clip(exponent, -100, 100)), 1.0)
    scaled = np.abs(np.column_stack([A, b])) * factor[:, None]
    least, most = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    is_normal = ((scaled == 0) | ((scaled >= least) & (scaled <= most))).all(axis=1)
    factor = np.where(is_normal, factor, 1.0)
    return A * factor[:, None], b * factor


def _check_outputs(path, dropped, A, b):
    """Refuse rows that mean something else once probabilities are logits."""
    if dropped is None:
        return
    # Differences of logarithms are those of the logits; of probabilities, two have their order.
    keeps = (A.sum(axis=1) == 0).all()
    if dropped == "Softmax":
        keeps = keeps and (b == 0).all() and ((A != 0).sum(axis=1) <= 2).all()
    if not keeps:
        raise UnsupportedPropertyError(
            f"Got {path} about a network that ends in {dropped}, which is taken off, but expected "
            "comparisons of one output with another. Take it off the file, and state the query "
            "of the logits."
        )


def _check_range(path, dtype, *arrays):
    """Refuse numbers that the network's precision does not have."""
    largest = max(float(np.abs(array).max()) for array in arrays)
    if largest > torch.finfo(dtype).max:
        raise ValueError(
            f"Got {path} with the number {largest:.3g}, but expected numbers that are finite in "
            f"{str(dtype).removeprefix('torch.')}, in which the network computes."
        )


def _ball(case, n_features, dtype):
    """Return center, epsilon and bounds of a box, so that the ball is the box exactly."""
    names = [f"X_{place}" for place in range(n_features)]
    sides = ([side[name].value for name in names] for side in (case.lows, case.highs))
    low, high = map(np.array, sides)
    center = np.clip(low / 2 + high / 2, low, high)
    # The bounds say where the box ends; epsilon only has to reach them. An input that cannot
    # move is fixed unless the network's precision lacks the number: then that lies next to it.
    reach = np.maximum(high - center, center - low)
    cast = torch.as_tensor(center).to(dtype).double().numpy()
    reach = np.where(reach > 0, np.nextafter(reach, np.inf) + np.spacing(np.abs(center)), 0.0)
    reach = np.where((low == high) & (cast != center), 2 * np.abs(cast - center), reach)
    return center[None], reach, (low, high)
