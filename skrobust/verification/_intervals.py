"""Intervals of domains: those of the whole ball, and what decisions make of them."""

from dataclasses import replace

import torch

from skrobust.bounds import Units, lines_of, tighten

__all__ = ["relaxation_of", "retightened", "sharpened"]

_SHARE = 1 / 32  # of the domains of a batch that are tightened
_TIGHTEN = 4  # decisions after which a domain may be tightened again
_BALL_STEPS = 8


def sharpened(root, watch=None):
    """Return a relaxation of one ball with all intervals found by gradient steps, first to last.

    These hold for all points, and so for all rows. Each end of an interval counts as two domains;
    nodes for which less work is left stay as they are.
    """
    built, units = root[torch.zeros(1, dtype=torch.long, device=root.empty.device)], Units()
    for i in built.graph.piecewise:
        node, j = built.graph.nodes[i], built.graph.nodes[i].inputs[0]
        if not _is_behind(built.graph, j):  # nothing is free there
            continue
        is_open = units.needed(i, node, built.lows[j], built.highs[j])
        at = is_open.flatten(1).nonzero(as_tuple=True)
        work = 4 * len(at[0])
        if watch is not None and work > watch.domains_left:
            break
        tighten(built, j, *at, _BALL_STEPS, watch)
        if watch is not None:
            watch.count(work)
        built.lines[i] = units.lines(i, node, built.lows[j], built.highs[j])
    return built


def relaxation_of(problem, domains):
    """Return the relaxation over domains: the root's, but for what was decided since.

    The ball is that of the root, which holds them all, and is not repeated.
    """
    root = problem.root
    lows, highs, lines = list(root.lows), list(root.highs), {}
    for i in root.graph.piecewise:
        node = root.graph.nodes[i]
        j = node.inputs[0]
        lows[j], highs[j] = domains.lows[j], domains.highs[j]
        lines[i] = lines_of(node, lows[j], highs[j])
    empty = root.empty.expand(len(domains)).clone()
    return replace(root, lows=lows, highs=highs, lines=lines, empty=empty)


def retightened(problem, domains, watch, recording=None):
    """Return domains with the intervals behind decided units tightened, where it is time."""
    due = (domains.depth >= _TIGHTEN).nonzero().squeeze(1)
    # The lowest have the most domains below them.
    later = [j for j in problem.root.sources if _is_behind(problem.root.graph, j)]
    # Without gradient steps, four ends of intervals take as long as one domain.
    cost = sum(_n_open(problem.root, j) for j in later) / 2
    most = min(int(len(domains) * _SHARE), watch.domains_left / max(cost, 1))
    due = due[domains.lower[due].argsort()[: int(most)]]
    if len(due) == 0 or not later:
        return domains
    part = domains[due]
    built = relaxation_of(problem, part)
    graph, units = built.graph, Units()
    with torch.no_grad():
        for i in graph.piecewise:
            j = graph.nodes[i].inputs[0]
            if j in later:
                is_open = units.needed(i, graph.nodes[i], built.lows[j], built.highs[j])
                at = is_open.flatten(1).nonzero(as_tuple=True)
                tighten(built, j, *at, watch=watch)
                watch.count((len(at[0]) + 1) // 2)
                built.lines[i] = units.lines(i, graph.nodes[i], built.lows[j], built.highs[j])
    lows, highs = ({**side} for side in (domains.lows, domains.highs))
    for j in later:
        lows[j], highs[j] = lows[j].clone(), highs[j].clone()
        lows[j][due], highs[j][due] = built.lows[j], built.highs[j]
    lower, depth = domains.lower.clone(), domains.depth.clone()
    # Where intervals contradict each other, no point is left, and any claim is proved.
    lower[due] = torch.where(built.empty, torch.inf, lower[due])
    depth[due] = 0
    if recording is not None:
        recording.tighten(part)
        recording.close(part[built.empty], torch.zeros_like(due)[built.empty])
    return replace(domains, lows=lows, highs=highs, lower=lower, depth=depth)


def _n_open(root, j):
    """Return how many units that read node j are not linear over the ball."""
    return sum(int(root.lines[i].open[0].sum()) for i in root.sources[j])


def _is_behind(graph, j):
    """Return whether a node depends on a piecewise one."""
    pending = {j}
    while pending:
        i = pending.pop()
        if not graph.nodes[i].is_affine and i > 0:
            return True
        pending.update(graph.nodes[i].inputs)
    return False
