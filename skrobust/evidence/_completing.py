"""Proofs, completed: what bounds alone prove, and at which distances, as the checker finds it."""

import numpy as np

from skrobust.evidence import _ball_rules, _checker, _rows

__all__ = ["completed"]

_HALVINGS = 40  # of the distance from a reference point, to find what slopes prove


def completed(arrays, network, pieces=None):
    """Return the arrays of a proof of a claim.

    Parameters
    ----------
    arrays : dict of str to ndarray
        The claim.
    network : _checker.Network
    pieces : list of dict, default=None
        Proofs of some "clauses" at some distances: "near", "far", "by_slopes", and "arrays", whose
        "row" is missing where bounds of rows, or of mixtures, prove the piece. If None, bounds
        prove all of it.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    Rejected
        If the checker has no rule for what the proof needs, as for slopes of smooth units.
    """
    with np.errstate(all="ignore"):
        norm = _checker.read_json(arrays["claim"], "its claim").get("norm")
        ball = _ball_rules.Ball(arrays, norm, network.sizes[0])
        claim = _Claim(network, _rows.Rows(arrays, network.sizes[-1]), ball)
        if pieces is None:
            pieces = claim.whole()
        found = [part for piece in pieces for part in claim.by_bounds(**piece)]
    is_one = len(found) == 1 and [*found[0]["clauses"]] == [*range(claim.rows.n_clauses)]
    if is_one and not claim.rows.distance.any():
        return found[0]["arrays"]
    columns = {
        "radii": np.array([(part["near"], part["far"]) for part in found]),
        "by_slopes": np.array([part["by_slopes"] for part in found], dtype=np.uint8),
    }
    for k, part in enumerate(found):
        own = {"clauses": np.array(part["clauses"], dtype=np.int32)} | part["arrays"]
        columns |= {f"{k}.{name}": value for name, value in own.items()}
    return columns


class _Claim:
    """The rows that are claimed, and bounds of them at some distances."""

    def __init__(self, network, rows, ball):
        self.network, self.rows, self.ball = network, rows, ball
        self.far = _rows.farthest(ball)

    def whole(self):
        """Return a proof by bounds alone: by slopes next to the center, then by rows."""
        whole = {"clauses": [*range(self.rows.n_clauses)], "near": 0.0, "far": self.far}
        if not self.rows.distance.any():
            return [whole]
        for k in range(_HALVINGS + 1):
            near = self.far / 2**k
            if self._is_proved(self._slopes(near)).all():
                break
        inner = whole | {"far": near, "by_slopes": True}
        return [inner] if k == 0 else [inner, whole | {"near": near}]

    def by_bounds(self, clauses, near, far, by_slopes=False, arrays=None):
        """Return the piece with what proves its clauses, or several pieces of it.

        Where rows have something of the distance, some clauses may be proved by slopes only.
        """
        piece = {"clauses": clauses, "near": near, "far": far, "by_slopes": by_slopes}
        piece["arrays"] = dict(arrays or {})
        if by_slopes or "row" in piece["arrays"]:
            return [piece]
        weights, clause, _ = self.rows.mixed(piece["arrays"])
        ball = _rows.shell(self.ball, near, far)
        network = _checker.with_rows(self.network, self.rows, ball)
        region = network.relax(ball.lower[None], ball.upper[None])
        distance = self.rows.distances(weights)
        values, _ = network.bound(region, len(network.nodes) - 1, weights, distance=distance)
        best = {k: self._best(values, clause, k) for k in clauses}
        proved = self._is_proved(values[: self.rows.count])
        proved |= [
            values[best.get(k, 0)] > 0 and not self.rows.limit[k] for k in range(len(proved))
        ]
        own, other = clauses, []
        if self.rows.distance.any() and not proved[clauses].all():
            slopes = self._is_proved(self._slopes(far))
            own = [k for k in clauses if proved[k] or not slopes[k]]
            other = [k for k in clauses if k not in own]
        zeros = np.zeros(len(own), dtype=np.uint8)
        rows = np.array([best[k] for k in own], dtype=np.int32)
        tree = {"row": rows, "node": zeros, "unit": zeros, "tightens": zeros}
        if all(best[k] == self.rows.of_clause[k][0] for k in own):
            tree = {}  # as without
        by_rows = piece | {"clauses": own, "arrays": piece["arrays"] | tree}
        by_slopes = piece | {"clauses": other, "near": 0.0, "by_slopes": True, "arrays": {}}
        return [part for part in (by_rows, by_slopes) if len(part["clauses"])]

    def _best(self, values, clause, k):
        if self.rows.limit[k]:
            return self.rows.of_clause[k][0]
        own = np.flatnonzero(clause == k)
        return own[np.nan_to_num(values[own], nan=-np.inf).argmax()]

    def _slopes(self, far):
        ball = _rows.shell(self.ball, 0.0, far)
        network = _checker.with_rows(self.network, self.rows, ball)
        region = network.relax(ball.lower[None], ball.upper[None])
        return _checker.by_slope(network, self.rows, region)

    def _is_proved(self, values):
        """Return which clauses bounds of rows prove."""
        rows, proved = self.rows, []
        for k, own in enumerate(rows.of_clause):
            holds = np.where(rows.strict[own] > 0, values[own] > 0, values[own] >= 0).any()
            proved.append(rows.within(k, values[own], False) if rows.limit[k] else holds)
        return np.array(proved)
