"""The fast gradient sign method, by hand."""

import pytest
import torch

from skrobust.attacks import FGSM, Target
from skrobust.properties import ClassificationRobustness
from tests.attacks._nets import Counting, linear_net, rows


def plane():
    """z0 - z1 = 3 x1 - 4 x2."""
    layer = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[3.0, -4.0], [0.0, 0.0]]))
    return layer


@pytest.mark.parametrize("objective", ["margin", "cross-entropy"])
@pytest.mark.parametrize(
    ("norm", "move"), [("linf", [-0.1, 0.1]), ("l2", [-0.06, 0.08])], ids=["linf", "l2"]
)
def test_one_step_of_full_length(norm, move, objective):
    x = torch.tensor([[0.6, 0.2]], dtype=torch.float64)
    property = ClassificationRobustness(0.1, norm=norm, bounds=None)
    points = FGSM(objective).points(Target(plane(), property, x, torch.tensor([0])))
    torch.testing.assert_close(points - x, torch.tensor([move]).double(), rtol=1e-5, atol=0)


def test_the_step_is_cut_to_the_domain():
    x = torch.tensor([[0.05, 0.02]], dtype=torch.float64)
    target = Target(plane(), ClassificationRobustness(0.1), x, torch.tensor([0]))
    outcome = FGSM().search(target)
    torch.testing.assert_close(outcome.points, torch.tensor([[0.0, 0.12]]).double())
    torch.testing.assert_close(outcome.margins, torch.tensor([-0.48]).double())


def test_one_gradient_is_all_that_it_takes():
    net, x = Counting(linear_net()), rows(7).double()
    target = Target(net, ClassificationRobustness(0.1), x, torch.zeros(7, dtype=torch.int64))
    FGSM().search(target)
    assert net.rows == [7, 7, 7]  # the references, the gradient, and the points
