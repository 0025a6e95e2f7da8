"""Stateful regimes of the kinds that the hook is made for, each as short as it can be."""

from dataclasses import replace

import torch

from skrobust.attacks import FGSM
from skrobust.training import AdversarialTraining, PropertyRegime, StandardTraining, TrainingRegime


class CoTraining(TrainingRegime):
    """A second network with its own optimizer; the two are updated in turn."""

    def start(self, fit):
        if fit.previous is not None:
            return fit.previous
        other = torch.nn.Linear(fit.X.shape[1], len(fit.classes)).to(fit.device)
        return {
            "other": other,
            "optimizer": torch.optim.Adam(other.parameters(), lr=0.05),
            "updates": 0,
        }

    def loss(self, state, step):
        state["optimizer"].zero_grad()
        step.task_loss(state["other"](step.x)).backward()
        state["optimizer"].step()
        state["updates"] += 1
        teacher = state["other"](step.x).detach().argmax(dim=1)
        return step.task_loss(step.logits) + 0.2 * step.task_loss(
            step.logits, teacher
        ), step.logits


class StaticAugmentation(PropertyRegime):
    """Samples of each ball, added once before training."""

    def __init__(self, *, property=None):
        self.property = property

    def start(self, fit):
        ball = self.trained_property(fit.property).ball(fit.X)
        fit.append(ball.sample(2, fit.generator).flatten(0, 1), fit.y.repeat_interleave(2))

    def loss(self, state, step):
        return step.task_loss(step.logits), step.logits


class OnManifold(TrainingRegime):
    """An autoencoder is trained first; training sees what it makes of the samples."""

    def start(self, fit):
        width = fit.X.shape[1]
        coder = torch.nn.Sequential(torch.nn.Linear(width, 2), torch.nn.Linear(2, width))
        optimizer = torch.optim.Adam(coder.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            ((coder(fit.X) - fit.X) ** 2).mean().backward()
            optimizer.step()
        return coder.requires_grad_(False)

    def loss(self, state, step):
        code = state[0](step.x)
        code = code + 0.01 * torch.randn(code.shape, generator=step.generator)
        return step.task_loss(step.module(state[1](code))), step.logits


class Rounds(PropertyRegime):
    """Fine-tuning in rounds: every other epoch all data are attacked anew."""

    def __init__(self, *, property=None):
        self.property = property

    def start(self, fit):
        return {"fit": fit, "points": fit.X.clone(), "rounds": 0}

    def loss(self, state, step):
        if step.batch == 0 and step.epoch % 2 == 0:
            whole = replace(step, x=state["fit"].X, labels=state["fit"].y)
            attack, property = FGSM("cross-entropy"), self.trained_property(step.property)
            state["points"] = whole.attack(attack, property)
            state["rounds"] += 1
        return step.task_loss(step.module(state["points"][step.index])), step.logits


class Trades(PropertyRegime):
    """The loss of the task, and how far the outputs at an attacked point are from these."""

    def __init__(self, *, property=None):
        self.property = property

    def loss(self, state, step):
        x = step.attack(FGSM("cross-entropy"), self.trained_property(step.property))
        p = torch.softmax(step.logits, dim=1)
        divergence = (p * (p.log() - torch.log_softmax(step.module(x), dim=1))).sum(dim=1)
        return step.task_loss(step.logits) + 2.0 * step.mean(divergence), step.logits


class Sequence(TrainingRegime):
    """One regime for the first half of the training, another for the second."""

    def parts(self):
        return StandardTraining(), AdversarialTraining(FGSM("cross-entropy"))

    def start(self, fit):
        return [part.start(fit) for part in self.parts()]

    def loss(self, state, step):
        k = int(step.progress >= 0.5)
        return self.parts()[k].loss(state[k], step)

    def finish(self, state):
        for part, inner in zip(self.parts(), state, strict=True):
            part.finish(inner)


REGIMES = [CoTraining(), StaticAugmentation(), OnManifold(), Rounds(), Trades(), Sequence()]
