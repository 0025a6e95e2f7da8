"""Batches: every sample once an epoch, with its label and weight, and none of one alone."""

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from torch.utils.data import Subset, random_split

from skrobust.estimators._batches import InOrder, Samples, Shuffled
from skrobust.training import TrainingFit


def samples(n, weighted=True):
    X = torch.arange(float(n)).unsqueeze(1)
    return Samples(X, torch.arange(n) % 2, torch.arange(float(n)) + 0.5 if weighted else None)


def shuffled(n, batch_size, weighted=True, seed=0):
    data = samples(n, weighted)
    fit = TrainingFit(
        torch.nn.Linear(1, 2), data.X, data.y, np.arange(2), None, data.sample_weight,
        batch_size=batch_size,
    )  # fmt: skip
    return Shuffled(fit, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, [1]), (4, [4]), (5, [5]), (6, [4, 2]), (9, [4, 5]), (12, [4, 4, 4])]
)
@pytest.mark.parametrize("weighted", [True, False])
def test_an_epoch_holds_every_sample_once(n, sizes, weighted):
    batches = shuffled(n, 4, weighted)
    assert len(batches) == len(sizes)
    for _ in range(2):
        epoch = list(batches)
        assert [len(x) for x, _ in epoch] == sizes
        rows = torch.cat([x[:, 0] for x, _ in epoch])
        assert rows.sort().values.tolist() == list(range(n))
        for batch in epoch:
            x, labels = batch
            assert batch.index.tolist() == x[:, 0].tolist()
            assert labels.tolist() == (batch.index % 2).tolist()
            if weighted:
                assert torch.equal(batch.sample_weight, batch.index + 0.5)
            else:
                assert batch.sample_weight is None


def test_epochs_are_shuffled_anew_and_repeat_with_the_seed():
    batches = shuffled(30, 10)
    first, second = ([b.index.tolist() for b in batches] for _ in range(2))
    assert first != second
    assert [b.index.tolist() for b in shuffled(30, 10)] == first
    assert [b.index.tolist() for b in shuffled(30, 10, seed=1)] != first


def test_batches_in_order():
    for data in (samples(9), Dataset(np.arange(9.0)[:, None], np.arange(9) % 2)):
        batches = InOrder(data, 4)
        assert len(batches) == 3
        assert [np.asarray(x)[:, 0].tolist() for x, _ in batches] == [
            [0, 1, 2, 3], [4, 5, 6, 7], [8],
        ]  # fmt: skip


@pytest.mark.parametrize("index", [[4, 1, 2], np.array([4, 1, 2])])
def test_subsets_keep_labels_and_weights(index):
    for whole in (samples(9), Subset(samples(20), range(9))):
        (batch,) = InOrder(Subset(whole, index), 5)
        assert batch[0][:, 0].tolist() == [4, 1, 2]
        assert batch[1].tolist() == [0, 1, 0]
        assert batch.sample_weight.tolist() == [4.5, 1.5, 2.5]


def test_the_parts_of_a_random_split():
    parts = random_split(samples(10), [7, 3], generator=torch.Generator().manual_seed(0))
    rows = torch.cat([Samples.of(part).X[:, 0] for part in parts])
    assert sorted(rows.tolist()) == list(range(10))


def test_other_data_sets_have_no_weights():
    read = Samples.of(Dataset(np.zeros((3, 2), dtype=np.float32), np.arange(3)))
    assert read.X.shape == (3, 2) and read.y.tolist() == [0, 1, 2] and read.sample_weight is None


@pytest.mark.parametrize("weighted", [True, False])
def test_parts_know_their_rows_and_wholes_hold_both(weighted):
    whole = samples(8, weighted)
    whole.rows = torch.arange(8)
    inner = Samples.of(Subset(Subset(whole, [7, 5, 3, 1]), [2, 0]))
    assert inner.rows.tolist() == inner.X[:, 0].tolist() == [3, 7]
    both = inner.and_also(whole.part(torch.tensor([0])))
    assert both.X[:, 0].tolist() == [3, 7, 0] and both.y.tolist() == [1, 1, 0]
    assert (
        (both.sample_weight.tolist() == [3.5, 7.5, 0.5])
        if weighted
        else (both.sample_weight is None)
    )
    assert both.rows is None and Samples.of(Dataset(np.ones((2, 1)), np.ones(2))).rows is None
