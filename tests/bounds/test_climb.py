"""Tests of gradient steps inside a box."""

import torch

from skrobust.bounds import Climb


def test_it_climbs_to_the_best_point_of_the_box():
    inside, at_border = torch.tensor([0.9]), torch.tensor([0.2])
    climb = Climb([([inside, at_border], 0.2, 1.0)], decay=0.95)
    for _ in range(60):
        climb.step(-((inside - 0.3) ** 2).sum() + at_border.sum())
    assert abs(inside.item() - 0.3) < 0.02
    assert at_border.item() == 1.0


def test_what_the_value_does_not_depend_on_stays():
    used, unused = torch.tensor([0.5]), torch.tensor([0.5])
    Climb([([used, unused], 0.1, 1.0)], decay=1.0).step(used.sum())
    assert unused.item() == 0.5 and used.item() > 0.5
