"""The skorch net inside, its batches and its callbacks."""

from itertools import pairwise

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch.utils.data import DataLoader, Sampler

from skrobust.exceptions import DivergedTrainingError
from skrobust.training import TrainingStep

__all__ = []


class RegimeNet(NeuralNetClassifier):
    """A skorch classifier whose training step is a regime's."""

    def __init__(self, *args, regime, property, **kwargs):
        super().__init__(*args, **kwargs)
        self.regime = regime
        self.property = property

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        x, labels = (to_tensor(part, device=self.device) for part in unpack_data(batch))
        epoch = len(self.history) - 1
        step = TrainingStep(self.module_, self.criterion_, x, labels, self.property, epoch)
        loss, logits = self.regime.loss(step)
        if not torch.isfinite(loss):
            n_batches = len(self.history[-1]["batches"])
            raise DivergedTrainingError(
                f"The training loss became {loss.item()} in epoch {epoch + 1}, batch {n_batches}. "
                "Try a smaller lr, scaled inputs, or a smaller weight of the property's loss."
            )
        loss.backward()
        return {"loss": loss, "y_pred": logits.detach()}


class Batches(Sampler):
    """Indices of one batch after the other, as arrays: torch's own sampler counts in Python."""

    def __init__(self, n_samples, batch_size, shuffle):
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __iter__(self):
        index = torch.randperm(self.n_samples) if self.shuffle else torch.arange(self.n_samples)
        parts = [part.numpy() for part in index.split(self.batch_size)]
        if self.shuffle and len(parts) > 1 and len(parts[-1]) == 1:
            # Batch norm cannot be trained on a batch of one.
            parts[-2:] = [np.concatenate(parts[-2:])]
        return iter(parts)

    def __len__(self):
        n_batches = -(-self.n_samples // self.batch_size)
        lone = self.shuffle and n_batches > 1 and self.n_samples % self.batch_size == 1
        return n_batches - lone


def iterate_batches(dataset, *, batch_size, shuffle=False, **kwargs):
    """Return a DataLoader that asks the data set for whole batches, not for single samples."""
    batches = Batches(len(dataset), batch_size, shuffle)
    return DataLoader(dataset, sampler=batches, batch_size=None, **kwargs)


def perceptron(n_inputs, hidden_layer_sizes, n_outputs):
    sizes = [n_inputs, *hidden_layer_sizes]
    layers = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], n_outputs))


class EpochBridge(Callback):
    """Tell scikit-learn's callbacks about skorch's epochs."""

    context = None

    def __init__(self, estimator, context, X, y):
        # An epoch is described by what a usable copy of the estimator needs, net_ above all.
        self.task = {
            "estimator": estimator,
            "X": X,
            "y": y,
            "reconstruction_attributes": {"net_": estimator.net_},
        }
        self.context = context

    def __getstate__(self):
        return {}  # a pickle made during training, by skorch's Checkpoint, is without the data

    def on_epoch_begin(self, net, **kwargs):
        if self.context is None:
            return
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.task)

    def on_epoch_end(self, net, **kwargs):
        if self.context is not None and self.epoch.call_on_fit_task_end(**self.task):
            raise KeyboardInterrupt  # skorch's way to end training early


class SeededTorch:
    """Seed torch for a while, and put its state back afterwards."""

    def __init__(self, seed, device):
        self.seed = seed
        self.fork = torch.random.fork_rng(
            devices=[torch.device(device)] if torch.device(device).type == "cuda" else []
        )

    def __enter__(self):
        self.fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *error):
        return self.fork.__exit__(*error)
