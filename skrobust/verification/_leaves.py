"""Parts of a ball in which all units are linear: their rows are bounded by a linear program."""

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog

from skrobust.bounds import backward, crown, farthest
from skrobust.verification._branch import options_of
from skrobust.verification._intervals import relaxation_of

__all__ = ["close_leaf"]

_PRICE = 1e4  # of breaking a decision, relative to the row


def close_leaf(problem, domain, recording=None):
    """Prove a row over a domain in which all units are linear, by the dual of a linear program.

    Its multipliers are free numbers like any: the bound that is proved is that of `crown`. A
    constraint may be broken at a price, so that there is always an optimum: where no point meets
    all of them, it is above what is asked for.

    Parameters
    ----------
    problem : Problem
        Over a box.
    domain : Domains
        Of one domain.
    recording : Recording, default=None

    Returns
    -------
    bool
    """
    relaxation = relaxation_of(problem, domain)
    if any(lines.open.any() for lines in relaxation.lines.values()):
        return False
    ball, graph, places = relaxation.ball, relaxation.graph, []
    rows, options = problem.rows[domain.problem], options_of(problem, domain)
    for j, signs in domain.signs.items():
        units = signs.flatten().nonzero().squeeze(1)
        if len(units):
            places.append((j, units, signs.flatten()[units]))
    with torch.no_grad():
        pulled, _, _ = backward(relaxation, len(graph.nodes) - 1, rows)
        sides = []
        for j, units, signs in places:
            unit = rows.new_zeros(1, len(units), graph.nodes[j].size)
            unit[0, torch.arange(len(units)), units] = signs.to(rows.dtype)
            unit = unit.view(1, len(units), *graph.nodes[j].shape)
            here, constant, _ = backward(relaxation, j, unit)
            sides.append((here[0].cpu().numpy(), constant[0].cpu().numpy()))
        # Multipliers are for one row: rows that are asked together have one row of them each.
        n_rows, betas = rows.shape[1], {}
        for j, _, _ in places:
            betas[j] = rows.new_zeros(1, n_rows, *graph.nodes[j].shape)
        for row in range(n_rows):
            slope = None if problem.slope is None else options["slope"][0, row].item()
            values = _dual(pulled[0, row].cpu().numpy(), sides, ball, slope, problem.nearest)
            start = 0
            for j, units, signs in places:
                size = rows.new_tensor(values[start : start + len(units)])
                betas[j][0, row].view(-1)[units] = -size * signs
                start += len(units)
        lower = crown(relaxation, rows, betas=betas, **options)
        if problem.margin(lower, domain.problem).item() < 0:
            return False
        if recording is not None:
            recording.close(domain, lower.argmax(dim=1), None, betas)
    return True


def _dual(row, sides, ball, slope=None, nearest=None):
    """Return multipliers of sides w x + c >= 0 for which row . x has its bound over a box.

    With a slope, that times the distance from the center is a part of the row.
    """
    if not sides:
        return np.zeros(0)
    weights = np.concatenate([w for w, _ in sides])
    size = np.maximum(np.abs(weights).sum(axis=1), 1e-300)
    weights, constants = weights / size[:, None], np.concatenate([c for _, c in sides]) / size
    price = _PRICE * (np.abs(row).sum() + abs(slope or 0.0) + 1e-9)
    low, high = ball.lower[0].cpu().numpy(), ball.upper[0].cpu().numpy()
    n, count = len(row), len(weights)
    blocks = [sparse.csr_array(-np.column_stack([weights, np.ones(count), np.zeros(count)]))]
    limits, reach = [constants], (0.0, 0.0)
    if slope is not None:
        # d >= x_i - center_i and d >= center_i - x_i.
        reach, center = (nearest.item(), farthest(ball).item()), ball.center[0].cpu().numpy()
        moves = np.flatnonzero(high > low)
        for sign in (1.0, -1.0):
            k = np.arange(len(moves))
            at = np.tile(k, 2), np.concatenate([moves, np.full(len(k), n + 1)])
            values = np.repeat([sign, -1.0], len(k))
            blocks.append(sparse.csr_array((values, at), shape=(len(k), n + 2)))
            limits.append(sign * center[moves])
    found = linprog(
        np.concatenate([row, [price, slope or 0.0]]),
        A_ub=sparse.vstack(blocks),
        b_ub=np.concatenate(limits),
        bounds=[*zip(low, high, strict=True), (0, None), (min(reach), max(reach))],
        method="highs",
    )
    if found.ineqlin is None or found.status != 0:
        return np.zeros(count)
    return np.maximum(0.0, -found.ineqlin.marginals[:count]) / size
