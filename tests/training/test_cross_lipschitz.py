"""Cross-Lipschitz training: its quantity by hand, its gradient, and that it falls."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skrobust import RobustClassifier
from skrobust.exceptions import UnsupportedModelError
from skrobust.properties import ClassificationRobustness as CR
from skrobust.scorers import ConstraintSecurity
from skrobust.training import CrossLipschitzTraining, StandardTraining
from skrobust.training._cross_lipschitz import cross_lipschitz
from tests.training._steps import WEIGHT, Watched, linear, step, task_loss

THREE = [[2.0, -1.0], [0.0, 3.0], [1.0, 1.0]]


def by_definition(module, x):
    """Return the double sum over classes, by Jacobians of one sample at a time."""
    values = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda r: module(r[None])[0], row)
        k = len(jacobian)
        pairs = [(jacobian[m] - jacobian[j]).square().sum() for m in range(k) for j in range(k)]
        values.append(sum(pairs) / k**2)
    return torch.stack(values)


def quantity(module, x):
    x = x.clone().requires_grad_()
    return cross_lipschitz(module(x), x)


def smooth():
    torch.manual_seed(0)
    layers = torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
    return torch.nn.Sequential(*layers).double()


def test_linear_networks_by_hand():
    # Differences of the rows: (2, -4), (1, -2) and (1, -2), each twice, of squares 20, 5 and 5.
    x = torch.rand(4, 2)
    torch.testing.assert_close(quantity(linear(THREE, (0.0,) * 3), x), torch.full((4,), 60 / 9))
    torch.testing.assert_close(quantity(linear(WEIGHT), x), torch.full((4,), 2 * 20 / 4))


def test_it_is_the_double_sum_of_the_definition():
    module, x = smooth(), torch.rand(6, 3, dtype=torch.float64)
    torch.testing.assert_close(quantity(module, x), by_definition(module, x))
    rectified = torch.nn.Sequential(*module[:1], torch.nn.ReLU(), *module[2:])
    torch.testing.assert_close(quantity(rectified, x), by_definition(rectified, x))


def test_its_gradient_by_finite_differences():
    module, x = smooth(), torch.rand(6, 3, dtype=torch.float64)
    parameters = list(module.parameters())
    given = replace(step(linear(WEIGHT)), module=module, x=x, labels=torch.arange(6) % 4)
    loss, _ = CrossLipschitzTraining(0.7).loss(None, given)
    exact = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, exact, strict=True):
        for place in range(parameter.numel()):
            ends = []
            for move in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter.view(-1)[place] += move
                ends.append(CrossLipschitzTraining(0.7).loss(None, given)[0].item())
                with torch.no_grad():
                    parameter.view(-1)[place] -= move
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(
                gradient.view(-1)[place].item(), rel=1e-5, abs=1e-8
            )


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_the_sum_of_both_parts(weight):
    module = Watched(linear(WEIGHT))
    given = step(module)
    loss, logits = CrossLipschitzTraining(weight).loss(None, given)
    torch.testing.assert_close(loss, task_loss(module, given.x, given.labels) + weight * 10)
    torch.testing.assert_close(logits, module(given.x))
    assert len(module.training_inputs) == 3  # one forward pass in the loss
    assert not given.x.requires_grad


def test_weights_of_samples():
    module = torch.nn.Sequential(linear(WEIGHT), torch.nn.Tanh(), linear(THREE, (0.0,) * 3))
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5])
    each = torch.nn.CrossEntropyLoss(reduction="none")
    given = replace(step(module), sample_weight=weight, criterion=each)
    loss, _ = CrossLipschitzTraining(2.0).loss(None, given)
    losses = each(module(given.x), given.labels) + 2.0 * by_definition(module, given.x)
    torch.testing.assert_close(loss, (weight * losses).mean())


def test_a_module_that_forgets_its_input():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, x):
            return self.logits.expand(len(x), 2)

    torch.testing.assert_close(quantity(Constant(), torch.rand(3, 2)), torch.zeros(3))
    with pytest.raises(UnsupportedModelError, match="Got a module whose logits have no gradient"):
        quantity(lambda x: torch.zeros(len(x), 2), torch.rand(3, 2))


def test_it_lowers_its_own_quantity_and_raises_security(digits):
    X, X_test, y, y_test = digits
    found, security = {}, {}
    for name, training in {"off": StandardTraining(), "on": CrossLipschitzTraining(0.1)}.items():
        model = RobustClassifier(
            hidden_layer_sizes=32, max_epochs=10, training=training, random_state=0
        ).fit(X, y)
        rows = torch.as_tensor(X_test, dtype=torch.float32)
        found[name] = quantity(model.net_.module_.eval(), rows).mean().item()
        security[name] = ConstraintSecurity(CR(0.1), random_state=0)(model, X_test, y_test)
        assert model.score(X_test, y_test) > 0.85
    assert found["on"] < 0.5 * found["off"]
    assert security["on"] > security["off"] + 0.05


def test_dropout_batch_norm_and_views(blobs):
    X, y = blobs
    layers = [
        torch.nn.Conv2d(1, 3, 2),
        torch.nn.BatchNorm2d(3),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.3),
        torch.nn.Flatten(),
        torch.nn.Linear(3, 2),
    ]

    def outputs():
        model = RobustClassifier(
            torch.nn.Sequential(*layers),
            input_shape=(1, 2, 2),
            training=CrossLipschitzTraining(0.01),
            max_epochs=3,
            random_state=0,
        )
        return model.fit(X, y, np.linspace(0.5, 1.5, 80)).predict_proba(X)

    np.testing.assert_array_equal(outputs(), outputs())


@pytest.mark.parametrize("weight", [-1, np.nan, None, "1"])
def test_bad_weights(weight):
    with pytest.raises(ValueError, match=r"Got weight=.*, but expected a finite number in \[0"):
        RobustClassifier(training=CrossLipschitzTraining(weight)).fit([[0.0], [1.0]], [0, 1])
