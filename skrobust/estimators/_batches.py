"""Samples with their weights, and the batches that they come in."""

import numpy as np
import torch
from skorch.dataset import Dataset
from skorch.utils import data_from_dataset
from torch.utils.data import Subset

__all__ = []


class Batch(tuple):
    """The pair (x, labels) that skorch unpacks, with what else is known of its rows."""

    index = None
    sample_weight = None


class Samples(Dataset):
    """Rows, labels and weights, as tensors on the CPU; and which rows of a whole, if known."""

    def __init__(self, X, y, sample_weight=None, rows=None):
        super().__init__(X, y)
        self.sample_weight = sample_weight
        self.rows = rows

    @classmethod
    def of(cls, dataset):
        """Read what skorch's split of a data set returned."""
        if isinstance(dataset, Samples):
            return dataset
        if isinstance(dataset, Subset):
            return cls.of(dataset.dataset).part(torch.as_tensor(np.asarray(dataset.indices)))
        X, y = data_from_dataset(dataset)
        return cls(torch.as_tensor(X), torch.as_tensor(y))

    def part(self, index):
        """Return the samples at an index."""
        weight, rows = (
            None if each is None else each[index] for each in (self.sample_weight, self.rows)
        )
        return Samples(self.X[index], self.y[index], weight, rows)

    def and_also(self, others):
        """Return these samples and others behind them, as a whole of its own."""
        weight = self.sample_weight
        if weight is not None:
            weight = torch.cat([weight, others.sample_weight])
        return Samples(torch.cat([self.X, others.X]), torch.cat([self.y, others.y]), weight)

    def __getitem__(self, index):
        batch = Batch((self.X[index], self.y[index]))
        if self.sample_weight is not None:
            batch.sample_weight = self.sample_weight[index]
        return batch


class InOrder:
    """Batches for prediction and validation. A DataLoader would draw from torch's global state."""

    def __init__(self, dataset, batch_size):
        # A subset knows its indices as a list, maybe; samples take arrays.
        self.dataset = Samples.of(dataset) if isinstance(dataset, Subset) else dataset
        self.batch_size = batch_size

    def __iter__(self):
        n = len(self.dataset)
        for start in range(0, n, self.batch_size):
            yield self.dataset[np.arange(start, min(start + self.batch_size, n))]

    def __len__(self):
        return (len(self.dataset) + self.batch_size - 1) // self.batch_size


class Shuffled:
    """The batches of one epoch after the other of a `TrainingFit`, each in its own order."""

    def __init__(self, fit, generator):
        self.fit = fit
        self.generator = generator

    def __iter__(self):
        fit = self.fit
        samples = Samples(fit.X, fit.y, fit.sample_weight)
        for part in shuffled_parts(len(samples), fit.batch_size, self.generator):
            batch = samples[part]
            batch.index = part
            yield batch

    def __len__(self):
        return self.fit.n_steps


def shuffled_parts(n, batch_size, generator):
    """Return the rows of each batch of an epoch; a last one of one sample joins the one before."""
    parts = list(torch.randperm(n, generator=generator).split(batch_size))
    if len(parts) > 1 and n % batch_size == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
