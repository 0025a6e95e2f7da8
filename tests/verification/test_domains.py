"""Domains: joined, taken apart, halved, and kept within a limit of memory."""

import torch

from skrobust.verification._domains import Domains, Stack, split


def domains(count, first=0, n_units=3):
    """Return domains of one node, numbered from `first`, whose bounds are their numbers."""
    numbers = torch.arange(first, first + count)
    units = numbers.double()[:, None] + torch.ones(n_units, dtype=torch.float64)
    return Domains(
        problem=torch.zeros_like(numbers),
        lows={1: -units},
        highs={1: units},
        signs={1: torch.zeros_like(units)},
        alphas={2: units[:, None] / (2 + units[:, None])},
        betas={1: units[:, None] / 3},
        lower=-numbers.double(),
        branch=torch.stack([torch.ones_like(numbers), numbers % n_units], dim=1),
        cut=torch.zeros(count, dtype=torch.float64),
        depth=torch.zeros_like(numbers),
        place=numbers,
        parent=torch.full_like(numbers, -1),
        decision=torch.zeros(count, 3, dtype=torch.long),
    )


def test_domains_are_joined_as_they_were_taken_apart():
    whole = Domains.join([domains(2), domains(3, first=2)])
    assert len(whole) == 5
    assert whole.place.tolist() == [0, 1, 2, 3, 4]
    assert whole.lower.tolist() == [0, -1, -2, -3, -4]
    part = whole[torch.tensor([4, 1])]
    assert part.place.tolist() == [4, 1]
    assert part.highs[1][:, 0].tolist() == [5, 2]


def test_halves_are_cut_at_zero_and_know_where_they_come_from():
    halves = split(domains(4), first=10)
    assert halves.place.tolist() == list(range(10, 18))
    assert halves.parent.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert halves.depth.tolist() == [1] * 8
    signs = torch.tensor([1] * 4 + [-1] * 4)
    units = torch.tensor([0, 1, 2, 0] * 2)
    nodes = torch.ones_like(units)
    assert torch.equal(halves.decision, torch.stack([nodes, units, signs], dim=1))
    before = domains(4)
    for k, (unit, sign) in enumerate(zip(units.tolist(), signs.tolist(), strict=True)):
        expected = torch.zeros(3, dtype=torch.float64)
        expected[unit] = sign
        assert torch.equal(halves.signs[1][k], expected)
        low, high = before.lows[1][k % 4].clone(), before.highs[1][k % 4].clone()
        (low if sign > 0 else high)[unit] = 0.0
        assert torch.equal(halves.lows[1][k], low)
        assert torch.equal(halves.highs[1][k], high)
    # What was split is as it was.
    assert (before.signs[1] == 0).all()


def test_the_last_domains_are_taken_first_and_intervals_are_kept_bit_by_bit():
    stack = Stack(2**30)
    stack.push(domains(3))
    stack.push(domains(4, first=3))
    first = stack.take(2)
    assert first.place.tolist() == [5, 6]
    second = stack.take(3)
    assert sorted(second.place.tolist()) == [2, 3, 4]
    whole = Domains.join([first, second, stack.take(100)])
    assert not stack and stack.n_bytes == 0
    order = whole.place.argsort()
    expected = domains(7)
    for name in ("lows", "highs", "signs"):
        assert torch.equal(getattr(whole, name)[1][order], getattr(expected, name)[1])
    # Slopes are rounded, and stay slopes.
    alphas = whole.alphas[2][order]
    assert alphas.dtype == torch.float64
    assert torch.allclose(alphas, expected.alphas[2], rtol=1e-6) and (alphas <= 1).all()


def test_domains_of_one_problem_are_dropped():
    stack = Stack(2**30)
    for first in (0, 4):
        part = domains(4, first)
        part.problem[1:3] = torch.tensor([1, 2])
        stack.push(part)
    before = stack.n_bytes
    assert stack.drop(1) and not stack.drop(1)
    assert stack.n_bytes == before * 6 / 8
    assert stack.take(10).place.sort().values.tolist() == [0, 2, 3, 4, 6, 7]
    stack.push(domains(1))
    assert stack.drop(0) and not stack and stack.n_bytes == 0


def test_the_stack_stays_within_its_memory():
    # A full binary tree of depth 12: at 100 domains at once it would have thousands.
    start = domains(1, n_units=400)
    limit = 60 * start.n_bytes
    stack, most, n_leaves, n_places = Stack(limit), 0, 0, 1
    stack.push(start)
    while stack:
        taken = stack.take(100)
        depth = taken.depth
        n_leaves += int((depth == 12).sum())
        inner = taken[(depth < 12).nonzero().squeeze(1)]
        if len(inner):
            stack.push(split(inner, n_places))
            n_places += 2 * len(inner)
        most = max(most, stack.n_bytes)
    assert n_leaves == 2**12 and n_places == 2**13 - 1
    # One domain a level may come on top.
    assert most <= limit + 12 * start.n_bytes
    assert most > limit / 2
