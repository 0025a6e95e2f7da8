"""Data augmentation: where the samples lie, and what they weigh."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from skorch.callbacks import Callback

from skrobust import RobustClassifier
from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import DataAugmentation, TrainingFit
from tests._asserts import assert_inside_ball
from tests.training._steps import WEIGHT, Watched, linear, step, task_loss, worst_points


@pytest.mark.parametrize("sampling", ["uniform", "fgsm"])
@pytest.mark.parametrize("n_extra", [1, 2, 3])
def test_augmentation_adds_samples_of_the_ball(sampling, n_extra):
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, logits = DataAugmentation(n_extra, sampling).loss(None, given)
    (seen,) = module.training_inputs
    assert seen.shape == (5 * (1 + n_extra), 2)
    assert torch.equal(seen[:5], given.x)
    extra = seen[5:].reshape(5, n_extra, 2)
    for k in range(n_extra):
        assert_inside_ball(extra[:, k], given.x, CR(0.1), factor=1 + 1e-6)
    assert (extra != given.x.unsqueeze(1)).any()
    # Each with the label of its own input, all with the same weight.
    labels = torch.cat([given.labels, given.labels.repeat_interleave(n_extra)])
    torch.testing.assert_close(loss, task_loss(module, seen, labels))
    torch.testing.assert_close(logits, module(given.x))


def test_fgsm_samples_stand_at_shares_of_epsilon():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    DataAugmentation(2, "fgsm").loss(None, given)
    extra = module.training_inputs[0][5:].reshape(5, 2, 2)
    for k, epsilon in enumerate((0.05, 0.1)):
        expected = worst_points(WEIGHT, given.x, given.labels, epsilon)
        torch.testing.assert_close(extra[:, k], expected)


def test_uniform_samples_are_drawn_anew():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    for _ in range(2):
        DataAugmentation().loss(None, given)
    first, second = module.training_inputs
    assert not torch.equal(first, second)


# ---- drawn once --------------------


class Steps(Callback):
    """Counts the steps of the optimizer in each epoch."""

    def __init__(self):
        self.counts = []

    def on_epoch_begin(self, net, **kwargs):
        self.counts.append(0)

    def on_batch_end(self, net, training=False, **kwargs):
        self.counts[-1] += training


def augmented(X, y, sample_weight=None, **params):
    steps = Steps()
    regime = DataAugmentation(**params)
    model = RobustClassifier(
        hidden_layer_sizes=4,
        property=CR(0.02),
        training=regime,
        max_epochs=3,
        batch_size=20,
        callbacks=[steps],
        random_state=0,
    )
    return model.fit(X, y, sample_weight), steps.counts


@pytest.mark.parametrize("sampling", ["uniform", "fgsm"])
def test_an_epoch_of_static_augmentation_has_three_times_the_steps(blobs, sampling):
    assert augmented(*blobs, sampling=sampling)[1] == [4, 4, 4]
    assert augmented(*blobs, sampling=sampling, static=True)[1] == [12, 12, 12]
    assert augmented(*blobs, sampling=sampling, static=True, n_extra=4)[1] == [20, 20, 20]


def fit_of(X, y, module, sample_weight=None, n_epochs=1, epoch=0):
    rows = torch.as_tensor(X, dtype=torch.float32)
    return TrainingFit(
        module,
        rows,
        torch.as_tensor(y),
        np.arange(2),
        CR(0.02),
        sample_weight,
        torch.optim.SGD(module.parameters(), lr=0.5),
        n_epochs=n_epochs,
        epoch=epoch,
        batch_size=30,
        generator=torch.Generator().manual_seed(0),
        random_state=np.random.RandomState(0),
    )


@pytest.mark.parametrize("sampling", ["uniform", "fgsm"])
def test_static_samples_lie_in_the_balls_with_labels_and_weights(blobs, sampling):
    X, y = blobs
    weight = torch.linspace(0.5, 1.5, len(X))
    fit = fit_of(X, y, linear([[2.0, -1.0, 0.5, 1.0], [0.0, 3.0, 1.0, -1.0]]), weight)
    before, regime = fit.X, DataAugmentation(3, sampling, static=True)
    state = regime.start(fit)
    assert fit.X.shape == (320, 4)
    assert torch.equal(fit.X[:80], before)
    extra = fit.X[80:].reshape(80, 3, 4)
    for k in range(3):
        assert_inside_ball(extra[:, k], before, CR(0.02), factor=1 + 1e-6)
    assert torch.equal(fit.y, torch.cat([fit.y[:80], fit.y[:80].repeat_interleave(3)]))
    torch.testing.assert_close(fit.sample_weight[80:], weight.repeat_interleave(3))
    # The steps are those of plain training.
    module = Watched(fit.module)
    given = replace(step(module, CR(0.02)), x=fit.X[:5], labels=fit.y[:5])
    loss, _ = regime.loss(state, given)
    torch.testing.assert_close(loss, task_loss(module, fit.X[:5], fit.y[:5]))
    assert len(module.training_inputs) == 2  # that of the regime, and that of the line above


def test_static_fgsm_attacks_a_trained_copy_and_leaves_the_module(blobs):
    X, y = blobs
    # Wrong about the one feature that it sees; training turns that around.
    weight = [[3.0, 0.0, 0.0, 0.0], [-3.0, 0.0, 0.0, 0.0]]
    fresh, later = (linear(weight) for _ in range(2))
    regime = DataAugmentation(1, "fgsm", static=True)
    fit = fit_of(X, y, fresh, n_epochs=60)
    regime.start(fit)
    assert torch.equal(fresh.weight, torch.tensor(weight))
    assert not fit.optimizer.state
    moved = (fit.X[80:] - fit.X[:80])[:, 0]
    # Class 1 has the larger values: its samples are pushed down, those of class 0 up.
    assert (moved[fit.y[:80] == 1] < 0).all() and (moved[fit.y[:80] == 0] > 0).all()
    # A network that was trained before is attacked as it is.
    fit = fit_of(X, y, later, n_epochs=60, epoch=3)
    regime.start(fit)
    moved = (fit.X[80:] - fit.X[:80])[:, 0]
    assert (moved[fit.y[:80] == 1] > 0).all() and (moved[fit.y[:80] == 0] < 0).all()


@pytest.mark.parametrize("sampling", ["uniform", "fgsm"])
def test_static_augmentation_repeats_in_threads(blobs, sampling):
    def outputs():
        return augmented(*blobs, sampling=sampling, static=True)[0].predict_proba(blobs[0])

    serial = outputs()
    for threaded in Parallel(3, backend="threading")(delayed(outputs)() for _ in range(3)):
        np.testing.assert_array_equal(threaded, serial)


def test_static_is_a_flag():
    with pytest.raises(ValueError, match="Got static='yes', but expected True or False"):
        DataAugmentation(static="yes").check(CR(0.1), np.zeros((2, 2)))
