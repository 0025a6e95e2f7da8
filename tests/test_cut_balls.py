"""Uniform points of cut balls, against closed forms, rejection, and another Markov chain."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest

from skrobust._cut_balls import CutBalls

MANY = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(low, high, n_samples=MANY, seed=0):
    """Return points of one ball, (n_samples, n_features)."""
    low, high = (torch.as_tensor(ends, dtype=torch.float64)[None] for ends in (low, high))
    return CutBalls(low, high).sample(n_samples, generator(seed))[0].numpy()


def by_rejection(low, high, n_samples, seed=1):
    """Return uniform points of the box that fall in the ball: plain, and for few features."""
    random, kept, n_kept = np.random.default_rng(seed), [], 0
    while n_kept < n_samples:
        points = random.uniform(low, high, (200_000, len(low)))
        kept.append(points[(points**2).sum(axis=1) <= 1])
        n_kept += len(kept[-1])
    return np.concatenate(kept)[:n_samples]


def by_gibbs(low, high, n_chains, n_sweeps, seed=2):
    """Return points of a chain that redraws one coordinate at a time, in random order."""
    random = np.random.default_rng(seed)
    x, squares = np.zeros((n_chains, len(low))), np.zeros(n_chains)
    for _ in range(n_sweeps):
        for i in random.permutation(len(low)):
            squares -= x[:, i] ** 2
            reach = np.sqrt(np.maximum(1 - squares, 0))
            ends = np.maximum(low[i], -reach), np.minimum(high[i], reach)
            x[:, i] = random.uniform(*ends)
            squares += x[:, i] ** 2
    return x


def test_a_quarter_disc_at_a_corner():
    x = drawn([0.0, 0.0], [1.0, 1.0], 200_000)
    half = (math.pi / 12 + math.sqrt(3) / 8) * 4 / math.pi
    assert half == pytest.approx(0.609, abs=1e-4)
    assert (x[:, 0] < 0.5).mean() == pytest.approx(half, abs=5 * 0.5 / math.sqrt(200_000))
    assert (x >= 0).all()


BOXES = {
    "corner": ([0, 0, -1], [1, 1, 0]),
    "near an end": ([-0.05, -0.3, -1], [1, 1, 1]),
    "thin": ([-0.01, -0.02, -1e-4], [0.02, 0.01, 1e-4]),
    "box in the ball": ([-0.5, -0.1, 0], [0.4, 0.5, 0.5]),
    "folded and close": ([0, -1, -0.2], [0.3, 0.4, 0.2]),
    "one": ([-0.2], [1.0]),
    "five": ([-0.3, -0.3, 0, -1, -0.1], [0.3, 0.5, 1, 0.2, 0.9]),
}


@pytest.mark.parametrize("box", BOXES)
def test_the_same_distribution_as_by_rejection(box):
    low, high = (np.array(ends, dtype=float) for ends in BOXES[box])
    ours, plain = drawn(low, high), by_rejection(low, high, MANY)
    assert ((ours**2).sum(axis=1) <= 1 + 1e-12).all()
    assert (ours >= low).all() and (ours <= high).all()
    columns = len(low) + 2
    for j in range(columns):
        first, second = ([*x.T, (x**2).sum(axis=1), x.sum(axis=1)][j] for x in (ours, plain))
        assert ks_2samp(first, second).pvalue > 1e-3 / columns, j


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), n_features=st.integers(1, 4))
def test_random_boxes_by_rejection(seed, n_features):
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 3, (2, n_features))
    ends = np.choose(kinds, [np.zeros(kinds.shape), random.uniform(0.05, 1, kinds.shape), 1])
    ends[1] = np.where(ends.sum(axis=0) == 0, 1, ends[1])
    low, high = -ends[0], ends[1]
    ours, plain = drawn(low, high, 4000, seed), by_rejection(low, high, 4000)
    for j in range(n_features):
        assert ks_2samp(ours[:, j], plain[:, j]).pvalue > 1e-5
    lengths = (np.linalg.norm(x, axis=1) for x in (ours, plain))
    assert ks_2samp(*lengths).pvalue > 1e-5


def pixels(n_features, seed=0):
    """Return the box around an image most of whose pixels are at an end or near one."""
    random = np.random.default_rng(seed)
    value = np.where(random.random(n_features) < 0.6, 0.0, random.random(n_features) ** 3)
    return -value / 2.0, np.minimum((1 - value) / 2.0, 1)


@pytest.mark.parametrize("radius", [1.0, 0.3])
def test_an_image_agrees_with_another_chain(radius):
    low, high = (ends / radius for ends in pixels(200))
    low, high = low.clip(-1, 0), high.clip(0, 1)
    ours, chain = drawn(low, high, 4000), by_gibbs(low, high, 4000, 12)
    error = 5 / math.sqrt(4000)
    spread = chain.std(axis=0)
    assert (np.abs(ours.mean(axis=0) - chain.mean(axis=0)) <= 1.5 * error * spread).all()
    np.testing.assert_allclose(ours.std(axis=0), spread, rtol=1.5 * error)
    for weights in (np.ones(200), np.random.default_rng(3).normal(size=200), low < 0):
        assert ks_2samp(ours @ weights, chain @ weights).pvalue > 1e-3
    assert ks_2samp((ours**2).sum(axis=1), (chain**2).sum(axis=1)).pvalue > 1e-3


def test_a_corner_in_many_dimensions_is_the_folded_ball():
    # The volume within a length is as in the whole ball, and so is each squared coordinate.
    x = drawn(np.zeros(784), np.ones(784), 4000)
    assert (x >= 0).all()
    assert kstest((x**2).sum(axis=1) ** 392, "uniform").pvalue > 1e-3
    assert (x**2).mean() == pytest.approx(1 / 786, rel=0.01)
    # Half a normal variable, nearly, in so many dimensions.
    assert (x[:, 0] * math.sqrt(786)).mean() == pytest.approx(math.sqrt(2 / math.pi), abs=0.05)


@pytest.mark.parametrize("reach", [0.05, 0.07, 0.5])
def test_where_every_feature_is_cut_the_ends_hold(reach):
    x = drawn(np.full(300, -reach), np.full(300, reach / 2), 500)
    assert (np.abs(x + reach / 4) <= 0.75 * reach + 1e-12).all()
    assert ((x**2).sum(axis=1) <= 1 + 1e-12).all()
    if reach == 0.05:  # the box lies inside the ball
        assert kstest(x[:, 0], "uniform", (-reach, 1.5 * reach)).pvalue > 1e-3


def test_a_rejected_draw_is_rare():
    # About sqrt(m / (m + k)) of the draws are taken; a ball alone would need 2^120 of them.
    low, high = pixels(784)
    balls = CutBalls(*(torch.as_tensor(ends)[None].clamp(-1, 1) for ends in (low, high)))
    taken, _, _ = balls._tries(torch.zeros(4000, dtype=torch.int64), 1, generator())
    k, m = balls.places.shape[1], int(balls.n_round)
    assert k > 120 and m > 400
    assert taken.double().mean() > 0.8 * math.sqrt(m / (m + k))


def test_features_that_cannot_move_and_balls_of_several_boxes():
    low = torch.tensor([[0.0, -1.0, 0.0], [-0.1, 0.0, -0.2]], dtype=torch.float64)
    high = torch.tensor([[0.0, 1.0, 1.0], [0.1, 0.0, 0.3]], dtype=torch.float64)
    x = CutBalls(low, high).sample(MANY, generator())
    assert (x[0, :, 0] == 0).all() and (x[1, :, 1] == 0).all()
    # A half disc, and a rectangle.
    assert x[0, :, 2].mean() == pytest.approx(4 / (3 * math.pi), abs=0.01)
    assert kstest(x[1, :, 2].numpy(), "uniform", (-0.2, 0.5)).pvalue > 1e-3
    nothing = CutBalls(torch.zeros(2, 3), torch.zeros(2, 3)).sample(4, generator())
    assert (nothing == 0).all()


def test_points_repeat_with_the_generator_and_global_numbers_stay():
    low, high = (torch.as_tensor(ends)[None].float().clamp(-1, 1) for ends in pixels(50))
    before = torch.random.get_rng_state()
    first, again, other = (CutBalls(low, high).sample(9, generator(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("n_features", [1, 3, 30, 300])
def test_the_share_of_draws_taken_falls_with_the_root_of_the_dimension(n_features):
    # At worst, where no feature is left for step 2, about 1 / sqrt(pi k).
    random = np.random.default_rng(n_features)
    for trial in range(20):
        value = random.random((4, n_features)) ** (1, 3, 10)[trial % 3]
        radius = 10 ** random.uniform(-3, 2)
        low, high = np.clip(-value / radius, -1, 0), np.clip((1 - value) / radius, 0, 1)
        balls = CutBalls(torch.as_tensor(low), torch.as_tensor(high))
        *_, taken = balls._drawn(slice(None), 4000, generator(trial))
        k = max(balls.places.shape[1], 1)
        assert taken.double().mean(dim=1).min() > 0.6 / math.sqrt(math.pi * k)


def test_the_same_distribution_in_float32():
    low, high = pixels(200)
    ends = [torch.as_tensor(end, dtype=torch.float32)[None] for end in (low, high)]
    single = CutBalls(*ends).sample(4000, generator(4))[0]
    assert single.dtype == torch.float32
    assert (single >= ends[0]).all() and (single <= ends[1]).all()
    assert ((single.double() ** 2).sum(dim=1) <= 1 + 1e-5).all()
    double = drawn(low, high, 4000)
    for weights in (np.ones(200), low < 0):
        assert ks_2samp(single.numpy() @ weights, double @ weights).pvalue > 1e-3
    lengths = ((x**2).sum(axis=1) for x in (single.numpy(), double))
    assert ks_2samp(*lengths).pvalue > 1e-3
