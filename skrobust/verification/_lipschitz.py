"""Upper bounds of Lipschitz constants of networks, and what they prove."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from skrobust._validation import (
    check_bounds,
    check_choice,
    check_columns,
    expected,
    kind_of,
    sample_shape,
)
from skrobust.bounds import (
    check_finite,
    crown,
    norm_product,
    points_at_once,
    relax,
    slope_relaxation,
)
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.graphs import Linear, Relu, Reshape, read_graph
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from skrobust.verification._base import Stopwatch, Verifier, at_reference
from skrobust.verification._result import Reason
from skrobust.verification._steps import Encoding

__all__ = ["LipschitzBounds", "lipschitz_bound"]

_METHODS = ("norm-product", "lipsdp", "local")


def lipschitz_bound(
    estimator, *, norm="linf", method="norm-product", X=None, epsilon=None, bounds=(0.0, 1.0)
):
    r"""Bound how fast the logits of a network can change.

    Parameters
    ----------
    estimator : object
        Fitted classifier, of a kind that `skrobust.networks.as_network` supports, whose
        network is piecewise linear.
    norm : {"linf", "l2"}, default="linf"
        Norm of the distance of inputs. The change of outputs is measured as in
        `LipschitzRobustness`, by the largest change of any logit, for "local"; for the other
        methods in the same norm as the inputs, which is never less.
    method : {"norm-product", "lipsdp", "local"}, default="norm-product"
        "norm-product" multiplies the operator norms of the layers. "lipsdp" solves the
        semidefinite program LipSDP-Neuron, for fully connected ReLU networks and norm="l2";
        it is tighter, and takes minutes from some hundred units on. "local" bounds the slopes
        over the ball around each row of `X`.
    X : array-like of shape (n_samples, n_features), default=None
        Centers of the balls, for "local".
    epsilon : float or array-like of shape (n_features,), default=None
        Radius of the balls, for "local".
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Domain that balls are cut to, for "local".

    Returns
    -------
    float, or ndarray of shape (n_samples,) for "local"
        For "local": no x in the ball has max_j \|z_j(x) - z_j(x_hat)\| > bound * d(x, x_hat).

    Raises
    ------
    UnsupportedModelError
        If the network is not of a kind that the method can treat.

    References
    ----------
    Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for deep neural
    networks", NeurIPS 2019. Pauli et al., "Training robust neural networks using Lipschitz
    bounds", IEEE Control Systems Letters 2022 (with the diagonal multiplier).

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.verification import lipschitz_bound
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression().fit(X, y)
    >>> slope = lipschitz_bound(model, norm="linf")
    >>> bool(abs(slope - abs(model.coef_[0, 0])) < 1e-9)
    True
    """
    check_choice("norm", norm, ("linf", "l2"))
    check_choice("method", method, _METHODS)
    if method == "local" and (X is None or epsilon is None):
        raise ValueError("Got X=None or epsilon=None, but method='local' needs both.")
    if method != "local" and epsilon is not None:
        raise ValueError(expected("epsilon", epsilon, "None, unless method='local'"))
    check_bounds(bounds)
    if X is not None:
        check_columns(estimator, X)
    network = as_network(estimator, input_shape=None if X is None else sample_shape(X))
    n_features = None if X is None else network.check_rows(X).shape[1]
    graph = check_finite(read_graph(network, n_features))
    if method == "local":
        property = ClassificationRobustness(epsilon, norm=norm, bounds=bounds)
        rows = network.rows(X)
        property.check(rows.cpu().numpy())
        return _local(graph, property.outer_ball(rows))
    if method == "lipsdp":
        if norm != "l2":
            raise ValueError(
                "Got norm='linf' with method='lipsdp', but expected norm='l2': the program is "
                "about the Euclidean norm."
            )
        return _semidefinite(_weights(graph))
    return norm_product(graph, norm)


class LipschitzBounds(Verifier):
    r"""Prove Lipschitz robustness by a bound of the network's Lipschitz constant.

    A point is verified where the bound is at most the property's constant. The global methods
    prove all points or none, at once; "local" bounds the slopes over the ball of each point. As
    a stage of a `Cascade` before `Bounds`, a global one is the cheapest proof that there is.

    Parameters
    ----------
    method : {"norm-product", "lipsdp", "local"}, default="norm-product"
        As in `lipschitz_bound`. In balls of the L-infinity norm, "lipsdp" takes
        \|dx\|_2 <= sqrt(n) \|dx\|_inf for the n features that can change. Its time limit holds for
        the steps of the solver, not for stating the program.

    References
    ----------
    See `lipschitz_bound`.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.properties import LipschitzRobustness
    >>> from skrobust.verification import LipschitzBounds
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression().fit(X, y)
    >>> property = LipschitzRobustness(0.1, lipschitz=2.0)
    >>> LipschitzBounds().verify(model, X, property=property).verdicts.tolist()
    ['verified', 'verified', 'verified', 'verified']
    """

    def __init__(self, method="norm-product"):
        self.method = method

    def check(self):
        check_choice("method", self.method, _METHODS)
        return self

    def accepts(self, network, property):
        if not isinstance(property, LipschitzRobustness):
            raise UnsupportedPropertyError(
                f"Got {kind_of(property)}, but LipschitzBounds treats LipschitzRobustness."
            )
        super().accepts(network, property)

    def encode(self, network, property, n_features=None):
        encoding = super().encode(network, property, n_features)
        return _LipschitzEncoding(encoding.network, property, check_finite(encoding.graph))

    def decide(self, encoding, x, labels=None, *, timeout=None, generator=None):
        watch = Stopwatch(None if timeout is None else timeout * len(x))
        verdicts = at_reference(encoding.target(x, labels))
        open_index = verdicts.undecided_index
        if len(open_index):
            ball = encoding.property.outer_ball(x[torch.as_tensor(open_index, device=x.device)])
            constant = self._constant(encoding, ball, watch)
            verdicts.prove(open_index[constant <= encoding.property.lipschitz])
            failed = open_index[np.isinf(constant)]
            verdicts.reasons[failed] = Reason.SOLVER_ERROR if watch.left else Reason.TIME_OUT
        verdicts.seconds[:] = watch.elapsed / len(x)
        return verdicts.result()

    def _constant(self, encoding, ball, watch):
        """Return a bound for each ball, of shape (n,)."""
        if self.method == "local":
            return _local(encoding.graph, ball)
        if self.method == "norm-product":
            return np.full(len(ball.center), encoding.norm_product)
        scale = 1.0
        if ball.norm == "linf":
            moves = (ball.upper > ball.lower).sum(dim=1).cpu().numpy()
            scale = np.sqrt(moves) * (1 + 1e-15)
        return np.full(len(ball.center), encoding.semidefinite(watch) * scale)


@dataclass(frozen=True, eq=False)
class _LipschitzEncoding(Encoding):
    """Keeps global bounds, which are the same for all points."""

    @cached_property
    def norm_product(self):
        return norm_product(self.graph, self.property.norm)

    @cached_property
    def _solved(self):
        return []

    def semidefinite(self, watch):
        """Return the bound of LipSDP; infinity where the solver failed, or had no time."""
        if not self._solved:
            try:
                self._solved.append(_semidefinite(_weights(self.graph), watch.left))
            except RuntimeError:
                if watch.left:  # it would fail again
                    self._solved.append(np.inf)
                return np.inf
        return self._solved[0]


def _local(graph, ball):
    """Bound the slopes over each ball, of shape (n,)."""
    step = points_at_once(graph)
    parts = [_slopes(graph, ball[k : k + step]) for k in range(0, len(ball.center), step)]
    return np.concatenate(parts)


def _slopes(graph, ball):
    with torch.no_grad():
        slopes = slope_relaxation(relax(graph, ball))
        eye = torch.eye(graph.n_classes, dtype=graph.dtype, device=graph.device)
        rows = torch.cat([eye, -eye]).expand(len(ball.center), -1, -1)
        # Two points that are equal have no slope; and no row of the other sign is below 0.
        steepest = (-crown(slopes, rows)).amax(dim=1).clamp(min=0)
        return steepest.nan_to_num(torch.inf, torch.inf).cpu().numpy()


# ---- LipSDP ------------------------------------------------------------------------------


def _weights(graph):
    """Return the matrices of a fully connected ReLU network, the first one first."""
    weights, current = [], None
    for i, node in enumerate(graph.nodes[1:], start=1):
        is_chain = node.inputs == (i - 1,)
        if is_chain and isinstance(node, Reshape):
            continue
        if is_chain and isinstance(node, Linear) and len(node.shape) == 1:
            # Two layers without a unit between them are one.
            weight = node.weight.cpu().numpy()
            current = weight if current is None else weight @ current
            continue
        is_relu = isinstance(node, Relu) and not node.slope.any()
        if not (is_chain and is_relu and current is not None):
            raise UnsupportedModelError(
                f"Got {kind_of(node)} in layer {node.path}, but method='lipsdp' is for "
                "fully connected ReLU networks. Use method='norm-product' or 'local'."
            )
        weights.append(current)
        current = None
    if current is None and not weights:
        raise UnsupportedModelError(
            "Got a network without linear layers, but method='lipsdp' is for fully connected ReLU "
            "networks. Use method='norm-product'."
        )
    return [*weights, np.eye(len(weights[-1])) if current is None else current]


def _semidefinite(weights, time_limit=np.inf):
    r"""Solve LipSDP-Neuron, and make a proof of what the solver returns.

    For a diagonal T >= 0 and any two inputs, the changes u of the pre-activations and v of the
    activations of all units satisfy v' T (u - v) >= 0. If \|dz\|^2 - rho \|dx\|^2 + 2 v' T (u - v)
    is at most 0 for all changes, then so is \|dz\|^2 - rho \|dx\|^2. A RuntimeError is raised
    where the solver fails, or has no time.
    """
    import cvxpy as cp

    if len(weights) == 1:
        return float(np.linalg.norm(weights[0], 2)) * (1 + 1e-9)
    # Only what the first layer sees of the input matters: its row space.
    u, s, _ = np.linalg.svd(weights[0], full_matrices=False)
    weights = [u * s, *weights[1:]]
    sizes = [len(weight) for weight in weights[:-1]]
    before, n_units = weights[0].shape[1], sum(sizes)
    A = np.zeros((n_units, before + n_units))
    row, column = 0, 0
    for weight in weights[:-1]:
        A[row : row + len(weight), column : column + weight.shape[1]] = weight
        row, column = row + len(weight), column + weight.shape[1]
    B = np.hstack([np.zeros((n_units, before)), np.eye(n_units)])
    last = np.zeros((len(weights[-1]), before + n_units))
    last[:, -weights[-1].shape[1] :] = weights[-1]
    first = np.eye(before, before + n_units)

    def form(T):
        cross = A.T @ T @ B
        return cross + cross.T - 2 * B.T @ T @ B + last.T @ last

    t, rho = cp.Variable(n_units, nonneg=True), cp.Variable(nonneg=True)
    program = form(cp.diag(t)) - rho * (first.T @ first)
    problem = cp.Problem(cp.Minimize(rho), [(program + program.T) / 2 << 0])
    try:
        problem.solve(solver=cp.CLARABEL, time_limit=float(min(time_limit, 1e9)))
    except cp.SolverError as error:
        raise RuntimeError(f"{error} Use method='norm-product'.") from error
    if t.value is None:
        raise RuntimeError(
            f"The semidefinite program ended as {problem.status!r}. Use method='norm-product'."
        )
    # The solver is right only within its tolerance. So take its multipliers, a little larger,
    # and compute the least rho that goes with them (a Schur complement).
    for growth in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        matrix = form(np.diag(t.value.clip(min=1e-9) * (1 + growth)))
        inner, mixed = -matrix[before:, before:], matrix[:before, before:]
        smallest = np.linalg.eigvalsh(inner)[0]
        if smallest > 1e-9 * np.abs(inner).max():
            least = np.linalg.eigvalsh(mixed @ np.linalg.solve(inner, mixed.T))[-1]
            return float(np.sqrt(least * (1 + 1e-6)))
    raise RuntimeError(
        "The multipliers of the semidefinite program prove nothing. Use method='norm-product'."
    )
