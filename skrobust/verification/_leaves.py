"""Parts of a ball in which all units are linear: their rows are bounded by a linear program."""

import numpy as np
import torch
from scipy.optimize import linprog

from skrobust.bounds import backward, crown
from skrobust.verification._branch import relaxation_of

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
    if problem.slope is not None or any(lines.open.any() for lines in relaxation.lines.values()):
        return False
    ball, graph, places = relaxation.ball, relaxation.graph, []
    rows, shift = problem.rows[domain.problem], problem.shift[domain.problem]
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
        for row in range(rows.shape[1]):
            values = _dual(pulled[0, row].cpu().numpy(), sides, ball)
            betas, start = {}, 0
            for j, units, signs in places:
                size = rows.new_tensor(values[start : start + len(units)])
                betas[j] = torch.zeros_like(domain.betas[j])
                betas[j].view(-1)[units] = -size * signs
                start += len(units)
            lower = crown(relaxation, rows, betas=betas, shift=shift)
            if problem.margin(lower, domain.problem).item() >= 0:
                if recording is not None:
                    recording.close(domain, lower.argmax(dim=1), None, betas)
                return True
    return False


def _dual(row, sides, ball):
    """Return multipliers of sides w x + c >= 0 for which row . x has its bound over a box."""
    if not sides:
        return np.zeros(0)
    weights = np.concatenate([w for w, _ in sides])
    size = np.maximum(np.abs(weights).sum(axis=1), 1e-300)
    weights, constants = weights / size[:, None], np.concatenate([c for _, c in sides]) / size
    price = _PRICE * (np.abs(row).sum() + 1e-9)
    low, high = ball.lower[0].cpu().numpy(), ball.upper[0].cpu().numpy()
    found = linprog(
        np.append(row, price),
        A_ub=-np.column_stack([weights, np.ones(len(weights))]),
        b_ub=constants,
        bounds=[*zip(low, high, strict=True), (0, None)],
        method="highs",
    )
    if found.ineqlin is None or found.status != 0:
        return np.zeros(len(weights))
    return np.maximum(0.0, -found.ineqlin.marginals) / size
