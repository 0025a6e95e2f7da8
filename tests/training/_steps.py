"""Small networks and steps, on which the loss of a regime can be worked out by hand."""

import torch

from skrobust.training import TrainingStep


class Watched(torch.nn.Module):
    """A network that keeps what it is given while it trains, and in which mode."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)
        self.training_inputs, self.evaluation_calls = [], 0

    def forward(self, x):
        if self.training:
            self.training_inputs.append(x.detach().clone())
        else:
            self.evaluation_calls += 1
        return self.layers(x)


def linear(weight, bias=(0.0, 0.0)):
    layer = torch.nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def step(module, property=None, epoch=0, n=5):
    x = 0.2 + 0.6 * torch.rand((n, 2), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 2
    return TrainingStep(module.train(), torch.nn.CrossEntropyLoss(), x, labels, property, epoch)


def task_loss(module, x, labels):
    return torch.nn.functional.cross_entropy(module(x), labels)


def worst_points(weight, x, labels, epsilon):
    """Of a linear binary network: against the sign of the gap's gradient."""
    gap = torch.tensor(weight)[labels] - torch.tensor(weight)[1 - labels]
    return x - epsilon * gap.sign()


WEIGHT = [[2.0, -1.0], [0.0, 3.0]]
