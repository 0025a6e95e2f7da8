"""Verification by Marabou, in a process that may be killed."""

import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from skrobust._parameters import DefaultParts
from skrobust._validation import check_choice, check_instance
from skrobust.attacks import PGD, Attack
from skrobust.exceptions import SolverDisagreementWarning, UnsupportedPropertyError
from skrobust.networks._piecewise_linear import Clamp, MaxPool
from skrobust.verification._base import (
    Encoding,
    Reason,
    Stopwatch,
    Verdict,
    Verification,
    Verifier,
    at_reference,
    attacked,
    confirm,
)
from skrobust.verification._bounds import (
    bound_rows,
    lower_bounds,
    proved_radius,
    reference_error,
)
from skrobust.verification._milp import affine_maps
from skrobust.verification._query import make_query
from skrobust.verification._relaxation import check_finite, farthest, relax

__all__ = ["Marabou"]

_WORKER = Path(__file__).with_name("_marabou_worker.py")
_FORMS = ("auto", "disjunction", "rows")
# Marabou takes a variable whose bounds are closer than 1e-5 as fixed, also where it has found
# these bounds itself. So variables have a width of about 1, and rows room above 0, relative to
# their width: the points at which a row is below 0 leave it more than that.
_NARROW = 1e-4  # least width of either side of a ReLU
_DECIDED = 1e-9  # where one side of a unit is less than that of the other one, it is no ReLU
_MARGIN = 2e-5
_HALVINGS = 40  # of the distance, down to where a network is one linear piece
_FIRST_SECONDS = 0.5  # for each question, where forms take turns; then twice that, and so on
_OPEN_HALVINGS = 6  # where slopes prove nothing
_RESOLVED = 1e-7  # least width of a row, relative to the numbers in it
_LONGEST = 1e6  # seconds that a process is waited for at once


class Marabou(DefaultParts, Verifier):
    r"""Decide a property by Marabou, the solver of the networks that Casadio et al. verify.

    The rows of the property that CROWN leaves open are negated, and Marabou is asked whether a
    point of the ball meets one of these negations. It works in a process of its own, which is
    killed at the time limit and may die: verdicts tell a time-out, an error and a crash apart.
    A point that it names is a counterexample only if it breaks the property in the estimator
    itself; a proof of it is checked by an attack.

    Parameters
    ----------
    form : {"auto", "disjunction", "rows"}, default="auto"
        "disjunction" asks for all rows in one query, "rows" for one row in each query, that with
        the lowest bound first. "auto" lets both take turns, in slices of time that double: either
        form takes now and then a hundred times as long as the other one.
    attack : Attack or None, default=None
        Looks for counterexamples where Marabou claims that there are none. None is PGD of 40
        steps with 3 restarts. A point that it breaks is falsified, with the reason
        `Reason.DISAGREEMENT`, a note, and a `SolverDisagreementWarning`.

    Raises
    ------
    ImportError
        If maraboupy cannot be imported. `Exact` does the same job without it.

    Notes
    -----
    It takes linear properties and `StrongClassificationRobustness` in L-infinity balls, and
    networks of linear layers, convolutions, ReLU, leaky ReLU, clamps and pooling. All units
    become ReLUs: a clamp is two of them, a maximum a + relu(b - a). Units that bounds decide
    over the ball become linear, and bounds of the others are given.

    Give a time limit: there are queries that Marabou 2.0 never ends.

    **What "verified" rests on.** Where CROWN proves all rows, on bounds with rounding accounted
    for. Where Marabou was asked, on its word: it computes in float64, compares with tolerances
    of 1e-10 to 1e-5, and gives no certificate that is checked here. Marabou 2.0 takes each
    variable whose bounds come within 1e-5 of each other as fixed, which has made it overlook
    counterexamples. So all variables are scaled to a width of about 1, inputs that cannot move
    are no variables, and it must show that the rows are above 2e-5 of their width over the ball,
    not above 0: the points that break a row then leave room for such errors. Units that are
    decided but for 1e-9 of their width get a free variable for the rest instead of a ReLU, and a
    row that moves by less than 1e-7 of the numbers in it is not supported. What holds by less
    than that stays unknown. The attack is a check of all this, not a proof.

    `LipschitzRobustness` is 0 at the reference point, where no solver with a tolerance can prove
    it. So it is treated as `Exact` does: slopes prove it within a small radius; farther out, in
    shells of doubling radius, the distance d is a variable that is at least the inner radius,
    and the negation asks for L d - change <= 2e-5 of its width.

    `StrongClassificationRobustness` is verified where linear rows that imply it hold, and
    falsified by points at which it breaks; these are also looked for where linear rows that it
    implies break. Between the two it stays unknown.

    References
    ----------
    Katz et al., "The Marabou framework for verification and analysis of deep neural networks",
    CAV 2019. Wu et al., "Marabou 2.0: a versatile formal analyzer of neural networks", CAV 2024.
    """

    def __init__(self, form="auto", *, attack=None):
        self.form = form
        self.attack = attack

    def _default_parts(self):
        return {"attack": PGD(40, n_restarts=3)}

    def check(self):
        check_choice("form", self.form, _FORMS)
        if self.attack is not None:
            check_instance("attack", self.attack, Attack, "PGD(n_steps=40)").check()
        return self

    def accepts(self, network, property):
        if find_spec("maraboupy") is None:
            raise ImportError(_MISSING.format("No module named 'maraboupy'."))
        if property.norm != "linf":
            raise UnsupportedPropertyError(
                f"Got a property with norm={property.norm!r}, but Marabou speaks of boxes. Use "
                "norm='linf', or Exact."
            )

    def encode(self, network, property, n_features=None):
        encoding = super().encode(network, property, n_features)
        return _MarabouEncoding(encoding.network, encoding.property, encoding.graph)

    def _graph(self, network, n_features):
        return check_finite(super()._graph(network, n_features))

    def is_slow(self, state):
        return True

    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        if len(x) == 0:
            return Verification.undecided(x)
        found = at_reference(state.target(x, labels))
        claimed = []
        with _Child() as child:
            for place in found.undecided_index:
                at, watch = slice(place, place + 1), Stopwatch(timeout)
                query = make_query(state, x[at], None if labels is None else labels[at])
                search = _Search(self.form, state, query, child, watch)
                found = found.merge(at, search.run())
                if search.n_asked and found.verdicts[place] == Verdict.VERIFIED:
                    claimed.append(place)
        return self._checked(found, np.array(claimed, dtype=int), state, x, labels, generator)

    def _checked(self, found, claimed, state, x, labels, generator):
        """Attack the points at `claimed`, of which Marabou says that nothing breaks them."""
        if len(claimed) == 0:
            return found
        attack = self._part("attack")
        at = torch.as_tensor(claimed, device=x.device)
        part = None if labels is None else labels[at]
        asked = Verification.undecided(x[at])
        other = attacked(attack, asked, state, x[at], part, generator)
        found.seconds[claimed] += other.seconds
        for k in np.flatnonzero(other.verdicts == Verdict.FALSIFIED):
            place = int(claimed[k])
            note = "Marabou claims a proof, but the attack that checks it found a counterexample."
            where = f"Point {place} of the {len(x)} that Marabou was asked for"
            warnings.warn(f"{where}: {note}", SolverDisagreementWarning, stacklevel=3)
            found = found.disagree(place, other.counterexamples[k], "attack", note)
        return found


@dataclass(frozen=True, eq=False)
class _MarabouEncoding(Encoding):
    @cached_property
    def maps(self):
        """The network's affine parts as sparse matrices."""
        return affine_maps(self.graph)


# ---- the search --------------------------------------------------------------------------

_REASONS = {
    "limit": Reason.TIME_OUT,
    "crash": Reason.SOLVER_CRASH,
    "failure": Reason.SOLVER_ERROR,
    "spurious": Reason.SPURIOUS,
    "narrow": Reason.NOT_SUPPORTED,
    "open": Reason.BOUNDS_TOO_LOOSE,
}


class _Search:
    """The search for one reference point.

    Attributes
    ----------
    n_asked : int
        How often Marabou was asked.
    counterexample : Tensor of shape (1, n_features) or None
    """

    def __init__(self, form, state, query, child, watch):
        self.form, self.state, self.query = form, state, query
        self.child, self.watch = child, watch
        self.n_asked = 0
        self.counterexample = None

    def run(self):
        status = self._shells() if self.query.uses_distance else self._piece(self.query)
        found = Verification.undecided(self.query.target.x, _REASONS.get(status))
        if status == "proved":
            found = found.prove([0])
        elif status == "found":
            found = found.falsify([0], self.counterexample, torch.tensor([True]))
        found.seconds[:] = self.watch.elapsed
        return found

    def _shells(self):
        """Decide rows that are 0 at the reference point: near it by slopes, farther by d."""
        near = proved_radius(self.state.graph, self.query, halvings=_HALVINGS)
        far = farthest(self.query.ball)
        # Where slopes prove nothing, a counterexample is what can be found.
        status = "proved" if near.item() > 0 else "open"
        radius = torch.where(near > 0, near, far / 2**_OPEN_HALVINGS)
        while radius < far:
            outer = torch.minimum(2 * radius, far)
            found = self._piece(self.query.within(outer).beyond(radius))
            if found in ("found", "limit"):
                return found
            status = found if found != "proved" else status
            radius = outer
        return status

    def _piece(self, query):
        """Decide all rows over one ball."""
        graph = self.state.graph
        with torch.no_grad():
            lower = bound_rows(graph, query, "crown")
        if query.holds(lower).item():
            return "proved"
        nearest = query.nearest.item() if query.uses_distance else None
        program = _Program(self.state.maps, relax(graph, query.ball), nearest)
        shift = query.rows.b - reference_error(graph, query)
        chosen = (~query.proved(lower)[0]).nonzero().squeeze(1)
        chosen = chosen[lower[0, chosen].argsort()]
        status = self._ask_rows(program, query.rows, chosen, shift, lower, _MARGIN)
        if status in ("proved", "found", "limit") or query.log_eta is None:
            return status
        # The row of strong classification lies between these and those that it implies.
        status = "open" if status == "spurious" else status
        return "found" if self._breaks_necessary(program, query) else status

    def _breaks_necessary(self, program, query):
        rows = query.necessary
        lower = lower_bounds(self.state.graph, query.ball, rows)
        chosen = (lower[0] < 0).nonzero().squeeze(1)
        return self._ask_rows(program, rows, chosen, rows.b, lower, 0.0) == "found"

    def _ask_rows(self, program, rows, chosen, shift, lower, limit):
        """Ask whether one of the chosen rows, hardest first, is at most `limit`."""
        if len(chosen) == 0:
            return "proved"
        slope = rows.c[0, chosen] if self.query.uses_distance else None
        places = program.add_rows(rows.A[0, chosen], slope, shift[0, chosen], lower[0, chosen])
        if places is None:
            return "narrow"
        if self.form == "disjunction":
            return self._ask(program, places, limit, self.watch)
        status = "proved"
        seconds = np.inf if self.form == "rows" else _FIRST_SECONDS
        while places:
            if len(places) == 1:
                seconds = np.inf
            elif self.form == "auto":
                found = self._ask(program, places, limit, self.watch.part(seconds))
                if found in ("proved", "found"):
                    return found if found == "found" else status
            for place in list(places):
                found = self._ask(program, [place], limit, self.watch.part(seconds))
                if found == "found":
                    return found
                if found != "limit" or seconds == np.inf:
                    places.remove(place)
                    status = status if found == "proved" else found
            if places and self.watch.left == 0:
                return "limit"
            seconds *= 2
        return status

    def _ask(self, program, places, limit, watch):
        if watch.left == 0:
            return "limit"
        self.n_asked += 1
        status, values = self.child.ask(program.task, places, limit, watch)
        if status != "sat":
            return _STATUSES.get(status, "failure")
        points, broken = confirm(self.query.target, program.point(values)[None])
        if not broken.item():
            return "spurious"
        self.counterexample = points
        return "found"


# Marabou's words; "ERROR", "UNKNOWN" and "QUIT_REQUESTED" are failures.
_STATUSES = {"unsat": "proved", "TIMEOUT": "limit", "crash": "crash"}


# ---- the query ---------------------------------------------------------------------------


class _Program:
    """The network over one box, as Marabou is told it: linear equations and ReLUs.

    All variables are scaled to a width of about 1. An expression is a pair of a sparse matrix
    and a constant: values in the network's own units, as functions of the variables.

    Parameters
    ----------
    maps : dict
        From `affine_maps`.
    relaxation : Relaxation
        Of one box. Units that it decides need no ReLU.
    nearest : float or None, default=None
        Where it is a number, there is a variable d, at least that and the distance from the
        center.
    """

    def __init__(self, maps, relaxation, nearest=None):
        self.maps, self.relaxation = maps, relaxation
        self.low, self.high, self.relus, self.equations = [], [], [], []
        ball, graph = relaxation.ball, relaxation.graph
        self.expressions = {0: self._inputs(ball)}
        self.n_inputs = len(self.low)
        self.distance = None if nearest is None else self._distance(ball, nearest)
        for i in graph.piecewise:
            self.expressions[i] = self._image(graph.nodes[i])

    @property
    def task(self):
        """The program in plain Python, for a process without NumPy."""
        return {
            "lower": [float(value) for value in self.low],
            "upper": [float(value) for value in self.high],
            "n_inputs": self.n_inputs,
            "equations": self.equations,
            "relus": self.relus,
        }

    def point(self, values):
        """Return the input, of shape (n_features,), at values of the first variables."""
        matrix, constant = self.expressions[0]
        return torch.as_tensor(matrix[:, : self.n_inputs] @ np.array(values) + constant)

    def _columns(self, low, high):
        """Add variables; return their places."""
        start = len(self.low)
        self.low.extend(np.asarray(low, dtype=float))
        self.high.extend(np.asarray(high, dtype=float))
        return np.arange(start, len(self.low))

    def _diagonal(self, rows, columns, values, shape):
        values = np.broadcast_to(values, len(rows))
        return sparse.csr_matrix((values, (rows, columns)), shape=(shape, len(self.low)))

    def _equate(self, columns, scale, expression):
        """Set variables, in units of `scale`, equal to the rows of an expression."""
        matrix, constant = expression
        matrix = (sparse.diags(1 / scale) @ self._widened(matrix)).tocsr()
        ends = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        shifts = (constant / scale).tolist()
        for (start, end), column, shift in zip(ends, columns.tolist(), shifts, strict=True):
            variables = [*matrix.indices[start:end].tolist(), column]
            self.equations.append((variables, [*(-matrix.data[start:end]).tolist(), 1.0], shift))

    def _widened(self, matrix):
        """Return a matrix that was made when there were fewer variables."""
        parts = (matrix.data, matrix.indices, matrix.indptr)
        return sparse.csr_matrix(parts, shape=(matrix.shape[0], len(self.low)))

    def _inputs(self, ball):
        low, high = ball.lower[0].cpu().numpy(), ball.upper[0].cpu().numpy()
        moves = np.flatnonzero(high > low)
        columns = self._columns(-np.ones(len(moves)), np.ones(len(moves)))
        middle = np.where(high > low, (low + high) / 2, low)
        return self._diagonal(moves, columns, ((high - low) / 2)[moves], len(low)), middle

    def _distance(self, ball, nearest):
        """Add d in units of the largest distance, and that it is at least each change."""
        far = float(farthest(ball)[0])
        column = self._columns([min(nearest / far, 0.5)], [1.0])[0]
        matrix, middle = self.expressions[0]
        moves = matrix.getnnz(axis=1).nonzero()[0]
        offset = middle - ball.center[0].cpu().numpy()
        for sign in (1.0, -1.0):
            # d = sign * (x - center) + what is left, which is not below 0.
            rest = self._columns(np.zeros(len(moves)), 2 * np.ones(len(moves)))
            change = self._widened(matrix[moves]) * (-sign / far)
            change = change + self._diagonal(
                np.arange(len(moves)), np.full(len(moves), column), 1.0, len(moves)
            )
            self._equate(rest, np.ones(len(moves)), (change, -sign / far * offset[moves]))
        return column, far

    def _expression(self, j):
        """Return node j, which is affine in the input and in piecewise nodes."""
        matrices, constant = self.maps[j]
        total = sparse.csr_matrix((len(constant), len(self.low)))
        for k, matrix in matrices.items():
            inner, shift = self.expressions[k]
            total, constant = total + matrix @ self._widened(inner), constant + matrix @ shift
        return total, constant

    def _image(self, node):
        """Return a piecewise node as an expression."""
        j = node.inputs[0]
        low, high = (
            part[j][0].flatten().cpu().numpy()
            for part in (self.relaxation.lows, self.relaxation.highs)
        )
        matrix, constant = self._expression(j)
        if isinstance(node, MaxPool):
            return self._pool(node.members.cpu().numpy(), matrix, constant, low, high)
        if isinstance(node, Clamp):
            return self._clamp(node, matrix, constant, low, high)
        slope = node.slope.expand(node.shape).flatten().cpu().numpy()
        if (slope == 0).all():
            return self._relu(matrix, constant, low, high)
        bent, shift = self._relu(matrix, constant, low, high)
        # slope z + (1 - slope) relu(z), for any slope.
        matrix = sparse.diags(slope) @ self._widened(matrix) + sparse.diags(1 - slope) @ bent
        return matrix, slope * constant + (1 - slope) * shift

    def _clamp(self, node, matrix, constant, low, high):
        """low + relu(z - low) - relu(z - high)."""
        if np.isfinite(node.low):
            matrix, constant = self._relu(
                matrix, constant - node.low, low - node.low, high - node.low
            )
            constant = constant + node.low
            low, high = np.maximum(low, node.low), np.maximum(high, node.low)
        if np.isfinite(node.high):
            # min(z, high) = high - relu(high - z)
            matrix, constant = self._relu(
                -matrix, node.high - constant, node.high - high, node.high - low
            )
            matrix, constant = -matrix, node.high - constant
        return matrix, constant

    def _pool(self, members, matrix, constant, low, high):
        """The larger of two is the second plus the ReLU of the difference, and so on."""
        first = members[:, 0]
        top, top_shift, top_low, top_high = matrix[first], constant[first], low[first], high[first]
        for k in range(1, members.shape[1]):
            other = members[:, k]
            new = ~(members[:, :k] == other[:, None]).any(axis=1)
            # relu(other - top); what is repeated in a window adds nothing.
            difference = self._widened(matrix[other]) - self._widened(top)
            rise, rise_shift = self._relu(
                difference,
                constant[other] - top_shift,
                np.where(new, low[other] - top_high, 0.0),
                np.where(new, high[other] - top_low, 0.0),
            )
            top, top_shift = self._widened(top) + rise, top_shift + rise_shift
            top_low, top_high = np.maximum(top_low, low[other]), np.maximum(top_high, high[other])
        return top, top_shift

    def _relu(self, matrix, constant, low, high):
        """Return the ReLU of an expression that lies between `low` and `high`."""
        size = len(constant)
        width, least = high - low, np.minimum(high, -low)
        crosses = (low < 0) & (high > 0)
        loose = crosses & (least < _DECIDED * width)
        units = np.flatnonzero(crosses & ~loose)
        linear = ((low >= 0) & (high > 0)) | (loose & (high > -low))
        # What is nearly decided differs from its line by what is free in a small interval.
        free = np.flatnonzero(loose)
        rest = self._columns(np.zeros(len(free)), np.ones(len(free)))
        scale = np.minimum(width, least / _NARROW)[units]
        before = self._columns(low[units] / scale, high[units] / scale)
        after = self._columns(np.zeros(len(units)), high[units] / scale)
        self._equate(before, scale, (matrix[units], constant[units]))
        self.relus += list(zip(before.tolist(), after.tolist(), strict=True))
        image = sparse.diags(linear.astype(float)) @ self._widened(matrix)
        image = image + self._diagonal(units, after, scale, size)
        image = image + self._diagonal(free, rest, least[free], size)
        return image, linear * constant

    def add_rows(self, A, slope, shift, lower):
        """Add a variable for each row of the outputs, in units of its width; return their places.

        None where a row changes too little for Marabou's arithmetic.
        """
        last = len(self.relaxation.graph.nodes) - 1
        A, shift, lower = A.cpu().numpy(), shift.cpu().numpy(), lower.cpu().numpy()
        ends = (self.relaxation.lows[last][0], self.relaxation.highs[last][0])
        low, high = (end.flatten().cpu().numpy() for end in ends)
        outputs, constant = self._expression(last)
        matrix, constant = sparse.csr_matrix(A) @ outputs, A @ constant + shift
        upper = A.clip(min=0) @ high + A.clip(max=0) @ low + shift
        if slope is not None:
            slope, (column, far) = slope.cpu().numpy(), self.distance
            rows = np.arange(len(A))
            matrix = matrix + self._diagonal(rows, np.full(len(A), column), slope * far, len(A))
            upper = upper + slope.clip(min=0) * far
        width = upper - lower
        reach = np.abs(A) @ np.maximum(-low, high) + np.abs(shift)
        if not (width > _RESOLVED * reach).all():
            return None
        places = self._columns(lower / width, np.maximum(upper / width, 2 * _MARGIN))
        self._equate(places, width, (matrix, constant))
        return places.tolist()


# ---- the process -------------------------------------------------------------------------

_MISSING = (
    "{} Marabou needs the package maraboupy, which has wheels for Python 3.11 and older on Linux "
    "and macOS: pip install maraboupy. The verifier Exact does the same job without it."
)


class _Child:
    """Marabou in a process of its own, started when it is asked, and killed at the end."""

    def __init__(self):
        self.process = self.connection = self.folder = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()

    def start(self):
        self.connection, theirs = Pipe()
        # Marabou writes a query that it fails at into the folder where it runs.
        self.folder = tempfile.TemporaryDirectory(prefix="skrobust-")
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER), str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                cwd=self.folder.name,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def stop(self):
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.wait()
            self.process = None
            self.folder.cleanup()

    def ask(self, task, places, limit, watch):
        """Return Marabou's word, or "TIMEOUT" or "crash", and the values of the inputs."""
        try:
            if self.process is None:
                self.start()
                status, text = self._receive(watch)
                if status == "missing":
                    self.stop()
                    raise ImportError(_MISSING.format(text))
            self.connection.send((task, places, limit, _seconds(watch)))
            return self._receive(watch)
        except TimeoutError:
            self.stop()
            return "TIMEOUT", []
        except (EOFError, OSError):
            self.stop()
            return "crash", []

    def _receive(self, watch):
        if not self.connection.poll(_seconds(watch)):
            raise TimeoutError
        return self.connection.recv()


def _seconds(watch):
    return None if watch.left == np.inf else min(watch.left, _LONGEST)
