"""Verification by bounds: sound, fast, not complete."""

import numpy as np
import torch

from skrobust._validation import check_choice, check_integer
from skrobust.bounds import (
    METHODS,
    check_finite,
    crown,
    farthest,
    interval_rows,
    norm_product,
    points_at_once,
    relax,
    row_bounds,
    slope_relaxation,
)
from skrobust.graphs import LinfDistance
from skrobust.verification._base import Stopwatch, Verifier, at_reference
from skrobust.verification._mixtures import holds_by_mixtures
from skrobust.verification._query import make_query, reference_error
from skrobust.verification._result import Reason, VerificationBuilder
from skrobust.verification._stages import Stages

__all__ = ["Bounds", "bound_query", "proved_radius"]

_HALVINGS = 6  # of the distance from a reference point, to find what slopes prove


class Bounds(Verifier):
    r"""Prove a property by lower bounds of its rows over the ball.

    A point is verified where the bounds prove every row; of rows of which one must hold, one of
    them or a mixture. A point whose reference point breaks the property is falsified; all others
    stay unknown.

    Parameters
    ----------
    method : {"ibp", "crown", "alpha-crown"}, default="crown"
        "ibp" propagates intervals; "crown" goes back through lines below and above each unit,
        also to tighten the intervals of hidden layers; "alpha-crown" goes on to choose the
        slopes of these lines by gradient steps, for what CROWN leaves open. Each proves all
        that the one before it proves.
    n_steps : int, default=20
        Gradient steps of "alpha-crown".

    Notes
    -----
    Bounds are moved outwards by what rounding can do (Higham's error bounds of sums, for the
    numbers at hand), so that a proof holds in real arithmetic. In L-infinity balls, on the CPU and
    for piecewise linear networks, the cheap comes first, each for the points that are still open:
    intervals, lines over intervals, and lines over tightened intervals, all in float32; last all
    in float64, where float32 misses by little more than its rounding. The `lower` of a point is
    the bound of the stage that decides it, which a later one may raise.

    `LipschitzRobustness` is 0 at the reference point, where no bound of outputs can prove it.
    So the slopes (z(x) - z(x_hat)) / d are bounded themselves: each unit multiplies its change
    by the slope of a chord, of which an interval is known. What slopes prove only near the
    reference point is proved farther out by rows in which d is a variable.
    `StrongClassificationRobustness` is bounded by its own concave row, from the bounds of all
    gaps between logits.

    References
    ----------
    Gowal et al., 2018; Zhang et al., NeurIPS 2018; Xu et al., ICLR 2021.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import Bounds
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> result = Bounds().verify(model, X, y, property=ClassificationRobustness(0.15))
    >>> result.verdicts.tolist()
    ['verified', 'unknown', 'unknown', 'verified']
    """

    kind = "bounds"

    def __init__(self, method="crown", *, n_steps=20):
        self.method = method
        self.n_steps = n_steps

    def check(self):
        check_choice("method", self.method, METHODS)
        check_integer("n_steps", self.n_steps, low=1)
        return self

    def _graph(self, network, n_features):
        return check_finite(super()._graph(network, n_features))

    def decide(self, encoding, x, labels=None, *, timeout=None, generator=None):
        graph = encoding.graph
        step = points_at_once(graph)
        verdicts = VerificationBuilder(x)
        watch = Stopwatch(None if timeout is None else timeout * len(x))
        for start in range(0, len(x), step):
            index = np.arange(start, min(start + step, len(x)))
            if watch.left == 0:
                verdicts.reasons[index] = Reason.TIME_OUT
                continue
            part = None if labels is None else labels[start : start + step]
            decided = self._decide_chunk(encoding, x[start : start + step], part, watch)
            verdicts.merge(index, decided)
        return verdicts.result()

    def _decide_chunk(self, encoding, x, labels, watch):
        begun = watch.elapsed
        query = make_query(encoding, x, labels)
        verdicts = at_reference(query.target)
        open_index = verdicts.undecided_index
        if len(open_index):
            with torch.no_grad():
                part = query[open_index]
                lower = bound_query(encoding.graph, part, self.method, self.n_steps, watch)
                holds, margin, mixtures = self._read(encoding.graph, part, lower, watch)
            margin = margin.nan_to_num(-torch.inf, torch.inf, -torch.inf)
            verdicts.lower[open_index] = margin.cpu().numpy()
            verdicts.prove(open_index[holds.cpu().numpy()])
            for k, clause, weights in mixtures if encoding.keeps_proofs else ():
                proofs = verdicts.evidence[open_index[k]] or {}
                verdicts.evidence[open_index[k]] = proofs | {clause: weights.cpu().numpy()}
        verdicts.seconds[:] = (watch.elapsed - begun) / len(x)
        return verdicts.result()

    def _read(self, graph, query, lower, watch):
        """Return what bounds of the rows tell: whether the property holds, and its margin.

        And by which mixtures; see `holds_by_mixtures`.
        """
        rows = query.rows
        mixes = query.is_linear and rows.has_clauses and not query.uses_distance
        if not mixes or self.method == "ibp":
            return query.holds(lower), query.margin(lower), []
        shift = rows.b - reference_error(graph, query)
        return holds_by_mixtures(graph, query, lower, shift, self.method, self.n_steps, watch)


def bound_query(graph, query, method="crown", n_steps=20, watch=None):
    """Return proved lower bounds of the rows of a `Query`, of shape (n, m)."""
    shift = query.rows.b - reference_error(graph, query)
    if not query.uses_distance:
        return Stages(graph, method, n_steps).bounds(query, shift, watch)
    relaxation = relax(graph, query.ball, refine=method != "ibp", watch=watch)
    options = {"method": method, "n_steps": n_steps, "watch": watch}
    lower = _by_slopes(relaxation, query, method, watch)
    open_index = (~query.holds(lower)).nonzero().squeeze(1)
    if len(open_index) == 0:
        return lower
    part, inner = query[open_index], relaxation[open_index]
    near = proved_radius(graph, part, method, watch=watch)
    terms = (part.rows.A, shift[open_index], part.rows.c)
    far = row_bounds(inner, *terms, near, **options)
    # What is nearer is only known not to be below 0.
    far = torch.where(near[:, None] > 0, far.clamp(max=0), far)
    if not part.anchored.all():
        far = torch.where(part.anchored, far, row_bounds(inner, *terms, **options))
    lower[open_index] = torch.maximum(lower[open_index], far)
    return lower


def _by_slopes(relaxation, query, method, watch=None):
    r"""Bound rows by d (slope of the row + c) plus the row at the reference point.

    That is least at one end of [0, largest distance].
    """
    rows = query.rows
    if any(isinstance(node, LinfDistance) for node in relaxation.graph.nodes):
        return _from_center(relaxation, query, _steepness_by_norms(relaxation.graph, rows))
    slopes = slope_relaxation(relaxation, refine=method != "ibp", watch=watch)
    steep = crown(slopes, rows.A) + rows.c
    return _from_center(relaxation, query, steep - 1e-15 * rows.c.abs())


def _from_center(relaxation, query, steep):
    """Bound rows that change by `steep` times the distance at least, from where they start."""
    rows, center = query.rows, query.ball.center
    point = type(query.ball)(center, query.ball.epsilon, "linf", center, center)
    at_center = relax(relaxation.graph, point, refine=False, lines=False)
    start = interval_rows(at_center, rows.A, rows.b)
    start = torch.where(query.anchored, 0.0, start - reference_error(relaxation.graph, query))
    reach = farthest(query.ball)[:, None]
    # Where the slope is NaN, by overflow, so is the bound.
    lower = start + torch.where(steep >= 0, 0.0, steep * reach * (1 + 1e-15))
    return lower - 1e-15 * lower.abs()


def _steepness_by_norms(graph, rows):
    """Bound how fast rows change by the product of the norms of all layers, of shape (n, m).

    The norm is that of L-infinity, in which distances are the shorter ones.
    """
    change = rows.A.abs().sum(dim=2) * norm_product(graph, "linf")
    return rows.c - change - 1e-14 * (rows.c.abs() + change)


def proved_radius(graph, query, method="crown", halvings=_HALVINGS, watch=None):
    """Return a distance within which slopes prove all rows, of shape (n,); 0 where none does.

    It is not searched for any more when the time of the `watch` is up.
    """
    reach = farthest(query.ball)
    radius = torch.zeros_like(reach)
    for k in range(1, halvings + 1):
        open_index = (radius == 0).nonzero().squeeze(1)
        if len(open_index) == 0 or (watch is not None and watch.left == 0):
            break
        tried = reach[open_index] / 2**k
        part = query[open_index].within(tried)
        inner = relax(graph, part.ball, refine=method != "ibp", watch=watch)
        held = part.holds(_by_slopes(inner, part, method, watch))
        radius[open_index] = torch.where(held, tried, 0.0)
    return radius
