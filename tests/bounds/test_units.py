"""Tests of what intervals say of units, worked by hand."""

import torch

from skrobust.bounds import image, splits_at_zero, worth_tightening
from skrobust.graphs import Clamp, MaxPool, Relu


def double(values):
    return torch.tensor([values], dtype=torch.float64)


def relu(slope):
    return Relu(inputs=(0,), shape=(3,), slope=torch.tensor(slope, dtype=torch.float64))


LOW, HIGH = double([-2.0, -1.0, 1.0]), double([-1.0, 3.0, 2.0])


def test_images_of_relus():
    for slope, low, high in (
        (0.0, [0.0, 0.0, 1.0], [0.0, 3.0, 2.0]),
        (0.5, [-1.0, -0.5, 1.0], [-0.5, 3.0, 2.0]),
        (-1.0, [1.0, 0.0, 1.0], [2.0, 3.0, 2.0]),
    ):
        torch.testing.assert_close(image(relu(slope), LOW, HIGH), (double(low), double(high)))
    assert worth_tightening(relu(0.0), LOW, HIGH).tolist() == [[False, True, False]]
    assert splits_at_zero(relu(0.0))


def test_images_of_clamps():
    clamp = Clamp(inputs=(0,), shape=(3,), low=-1.5, high=float("inf"))
    lower, upper = image(clamp, LOW, HIGH)
    assert lower.tolist() == [[-1.5, -1.0, 1.0]] and upper.tolist() == HIGH.tolist()
    assert worth_tightening(clamp, LOW, HIGH).tolist() == [[True, False, False]]
    assert not splits_at_zero(clamp)


def test_only_rivals_of_the_largest_entry_are_worth_tightening():
    sizes = {"kernel": (2,), "stride": (2,), "padding": (0,), "dilation": (1,)}
    pool = MaxPool(
        inputs=(0,), shape=(1, 2), input_shape=(1, 4), ceil_mode=False,
        device=torch.device("cpu"), **sizes,
    )  # fmt: skip
    lower, upper = double([[0.0, 2.0, 0.0, 1.0]]), double([[1.0, 3.0, 2.0, 3.0]])
    low, high = image(pool, lower, upper)
    assert low.tolist() == [[[2.0, 1.0]]] and high.tolist() == [[[3.0, 3.0]]]
    # In the first window the second entry is always the largest.
    assert worth_tightening(pool, lower, upper).tolist() == [[[False, False, True, True]]]
