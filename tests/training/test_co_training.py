"""Co-training: both losses by hand, and whose turn it is; see also `test_co_trained`."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import RobustClassifier
from skrobust.training import MarginCoTraining, StandardTraining, TrainingFit
from skrobust.training._co_training import generator_loss, margin_ratio
from tests.training._co_training import FREE, shift, small, weights
from tests.training._steps import WEIGHT, Watched, linear, step, task_loss


def started(module, training, n=5):
    """Return a step of a module, and the state of a regime at its first step."""
    given = step(module, n=n)
    fit = TrainingFit(module, given.x, given.labels, np.arange(2), None, batch_size=n)
    return given, training.start(fit)


# ---- the classifier's loss --------------------


def test_the_ratio_by_hand():
    p, q = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    two = torch.tensor([2.0])
    torch.testing.assert_close(margin_ratio(two, p, q, 0.1), torch.tensor([2 / math.log(2)]))
    reverse = 2 / -(0.5 * math.log(0.75) + 0.5 * math.log(0.25))
    torch.testing.assert_close(margin_ratio(two, q, p, 0.1), torch.tensor([reverse]))
    # Below the floor, which is a limit without a gradient.
    p = torch.tensor([[9.0, -9.0]], requires_grad=True)
    value = margin_ratio(two, p, p, 0.1)
    torch.testing.assert_close(value, torch.tensor([20.0]))
    assert torch.autograd.grad(value.sum(), p)[0].abs().max() == 0


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_that_of_the_task_minus_the_weighted_ratio(weight):
    module = linear(WEIGHT)
    training = MarginCoTraining(weight, floor=0.2, generator=shift(0.3, -0.4), **FREE)
    given, state = started(module, training)
    loss, logits = training.loss(state, given)
    p, q = (torch.softmax(module(x), 1) for x in (given.x, given.x + torch.tensor([0.3, -0.4])))
    entropies = -(p * q.log()).sum(dim=1)
    expected = 0.5 / torch.where(entropies < 0.2, 0.2, entropies)
    torch.testing.assert_close(
        loss, task_loss(module, given.x, given.labels) - weight * expected.mean()
    )
    torch.testing.assert_close(logits, module(given.x))


def test_weights_of_samples_in_the_loss():
    module, weight = linear(WEIGHT), torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5])
    training = MarginCoTraining(2.0, generator=shift(0.3, -0.4), **FREE)
    given, state = started(module, training)
    each = nn.CrossEntropyLoss(reduction="none")
    loss, logits = training.loss(state, replace(given, sample_weight=weight, criterion=each))
    others = module(given.x + torch.tensor([0.3, -0.4]))
    ratio = margin_ratio(torch.full((5,), 0.5), logits, others, 0.1)
    expected = (weight * (each(logits, given.labels) - 2 * ratio)).mean()
    torch.testing.assert_close(loss, expected)


def test_the_gradient_is_that_of_both_outputs_at_fixed_points():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2))
    training = MarginCoTraining(0.7, generator=shift(0.3, -0.4), **FREE)
    given, state = started(module, training)
    network = copy.deepcopy(state.network)
    loss, _ = training.loss(state, given)
    exact = torch.autograd.grad(loss, list(module.parameters()))
    assert all(p.grad is None for p in state.network.parameters())
    double = copy.deepcopy(module).double()
    points = network(given.x).detach().double()
    x, parameters = given.x.double(), list(double.parameters())

    def value():
        p, q = torch.softmax(double(x), 1), torch.softmax(double(points), 1)
        ratio = (points - x).norm(dim=1) / -(p * q.log()).sum(dim=1)
        return task_loss(double, x, given.labels) - 0.7 * ratio.mean()

    with torch.no_grad():
        for parameter, gradient in zip(parameters, exact, strict=True):
            for place in range(parameter.numel()):
                ends = []
                for move in (1e-6, -1e-6):
                    parameter.view(-1)[place] += move
                    ends.append(value().item())
                    parameter.view(-1)[place] -= move
                slope = (ends[0] - ends[1]) / 2e-6
                assert slope == pytest.approx(gradient.view(-1)[place].item(), rel=1e-3, abs=1e-5)


def test_a_point_with_the_label_of_its_input_counts():
    # At x1 > 0 the label is 0, also at x* = x + (1, 0).
    module = linear([[3.0, 0.0], [0.0, 0.0]])
    training = MarginCoTraining(1.0, floor=0.05, generator=shift(1.0, 0.0), **FREE)
    given, state = started(module, training)
    loss, logits = training.loss(state, given)
    others = module(given.x + torch.tensor([1.0, 0.0]))
    assert (logits.argmax(1) == others.argmax(1)).all()
    ratio = task_loss(module, given.x, given.labels) - loss
    entropies = nn.functional.cross_entropy(others, logits.softmax(1), reduction="none")
    torch.testing.assert_close(ratio, (1 / entropies.clamp(min=0.05)).mean())
    assert 0 < ratio <= 1 / 0.05


# ---- the generator's loss --------------------


def test_the_loss_of_the_generator_by_hand():
    identity = linear(np.eye(3, dtype=np.float32).tolist(), (0.0,) * 3)
    x = torch.tensor([[2.0, 1.0, 0.0]] * 3)  # label 0
    points = torch.tensor([[2.0, 1.0, 1.0], [1.5, 2.0, 0.0], [0.0, 1.0, 1.5]])
    p = torch.softmax(points[0].double(), 0)
    # Label 0 is ahead of that of the second; is the second itself; is the last one.
    expected = torch.tensor([0.5 + (p[0] - p[1]).item(), 0.5 * 1.25, 0.5 * (4 + 2.25)])
    torch.testing.assert_close(generator_loss(identity, x, points), expected)


def test_the_generator_goes_to_the_boundary_and_no_farther():
    # Of a fixed classifier, whose boundary is x1 = 0.5.
    module, x = linear([[0.0, 0.0], [40.0, 0.0]], (0.0, -20.0)), torch.tensor([[0.42, 0.3]])
    move = torch.zeros(1, 2, requires_grad=True)
    optimizer = torch.optim.SGD([move], lr=0.0005)
    for _ in range(300):
        optimizer.zero_grad()
        generator_loss(module, x, x + move).sum().backward()
        optimizer.step()
    assert move[0, 0].item() == pytest.approx(0.08, abs=0.02)
    assert move[0, 1].item() == 0


def test_the_classifier_judges_points_in_evaluation_mode_and_stays_as_it_is():
    module = Watched(linear(WEIGHT))
    training = MarginCoTraining(generator=shift(0.3, -0.4), **FREE)
    given, state = started(module, training)
    before, points = weights(module), weights(state.network)
    training.loss(state, given)
    assert [len(x) for x in module.training_inputs] == [10] and module.evaluation_calls == 0
    training.finish(state)
    assert len(module.training_inputs) == 1 and module.evaluation_calls == 2
    assert module.training and all(p.grad is None for p in module.parameters())
    assert torch.equal(weights(module), before)
    assert not torch.equal(weights(state.network), points)


# ---- the alternation --------------------

LOG = []


class Logged(torch.optim.SGD):
    def step(self, closure=None):
        result = super().step(closure)
        LOG.append("f")
        return result


class LoggedToo(Logged):
    def step(self, closure=None):
        result = torch.optim.SGD.step(self, closure)
        LOG.append("g")
        return result


class Inputs(nn.Module):
    """A generator that keeps the batches of its own steps, in `kept`."""

    kept = []  # noqa: RUF012  (of all copies, and of the one that trains)

    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(*shape, *shape)

    def forward(self, x):
        if torch.is_grad_enabled() and self.training:
            self.kept.append(x.clone())
        return self.layer(x)


def test_the_networks_take_turns_on_batches_of_their_own_order(blobs):
    LOG.clear(), Inputs.kept.clear()
    X, y = blobs
    training = MarginCoTraining(generator=Inputs, generator_optimizer=LoggedToo)
    seen = []

    class Watched(MarginCoTraining):
        def loss(self, state, step):
            seen.append(step.x.clone())
            return super().loss(state, step)

    training = Watched(**training.get_params(deep=False))
    small(training, optimizer=Logged, max_epochs=2).fit(X, y)
    assert LOG == ["f", "g"] * 8
    rows = {tuple(row.tolist()) for row in torch.tensor(X, dtype=torch.float32)}
    for batches in (seen, Inputs.kept):
        assert [len(batch) for batch in batches] == [20] * 8
        for epoch in range(2):
            part = torch.cat(batches[4 * epoch : 4 * epoch + 4])
            assert {tuple(row.tolist()) for row in part} == rows
    assert not any(torch.equal(a, b) for a, b in zip(seen, Inputs.kept, strict=True))
    assert not torch.equal(Inputs.kept[0], Inputs.kept[4])


def by_algorithm(f, g, X, y, weight, n_steps, sample_weight=None):
    """Algorithm 1 with one batch, in a few lines of its own."""
    f, g = copy.deepcopy(f), copy.deepcopy(g)
    s = torch.ones(len(X)) if sample_weight is None else sample_weight
    optimizers = torch.optim.SGD(f.parameters(), lr=0.1), torch.optim.SGD(g.parameters(), lr=0.2)
    for _ in range(n_steps):
        points = g(X).detach()
        p, q = torch.softmax(f(X), 1), torch.softmax(f(points), 1)
        ratio = (points - X).norm(dim=1) / (-(p * q.log()).sum(dim=1)).clamp(min=0.1)
        optimizers[0].zero_grad()
        losses = -torch.log(p[torch.arange(len(X)), y]) - weight * ratio
        (s * losses).mean().backward()
        optimizers[0].step()
        points = g(X)
        p, c = torch.softmax(f(points), 1), f(X).argmax(1)
        lead = p[torch.arange(len(X)), c] - p.sort(dim=1).values[:, -2]
        optimizers[1].zero_grad()
        (s * (0.5 * ((points - X) ** 2).sum(1) + lead.clamp(min=0))).mean().backward()
        optimizers[1].step()
    return f, g


@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_is_the_algorithm(blobs, weighted):
    X, y = torch.tensor(blobs[0], dtype=torch.float32), torch.tensor(blobs[1])
    torch.manual_seed(0)
    f, g = nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
    s = torch.linspace(0.5, 1.5, 80) if weighted else None
    training = MarginCoTraining(0.3, generator=g, generator_lr=0.2, **FREE)
    model = RobustClassifier(
        f, training=training, max_epochs=4, batch_size=80, lr=0.1, optimizer=torch.optim.SGD
    ).fit(*blobs, sample_weight=None if s is None else s.numpy())
    expected = by_algorithm(f, g, X, y, 0.3, 4, s)
    torch.testing.assert_close(weights(model.net_.module_), weights(expected[0]))
    torch.testing.assert_close(weights(model.companion_), weights(expected[1]))
    assert not torch.allclose(weights(expected[1]), weights(g), atol=1e-3)


def test_optimizers_that_ask_for_the_loss_several_times(blobs):
    LOG.clear()
    training = MarginCoTraining(0.01, generator_optimizer=LoggedToo)
    small(training, optimizer=torch.optim.LBFGS, lr=0.1, max_epochs=1).fit(*blobs)
    assert LOG == ["g"] * 4
    training = MarginCoTraining(0.01, generator_optimizer=torch.optim.LBFGS)
    model = small(training, max_epochs=1).fit(*blobs)
    assert torch.isfinite(weights(model.companion_)).all()


def test_weight_zero_is_standard_training(blobs):
    plain = small(StandardTraining()).fit(*blobs)
    model = small(MarginCoTraining(0.0)).fit(*blobs)
    assert torch.equal(weights(model.net_.module_), weights(plain.net_.module_))
    assert plain.companion_ is None and model.companion_ is not None
