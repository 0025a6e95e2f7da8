"""Where the points of a robustness score come from: the distributions, and what is counted."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from skrobust.balls import Ball
from skrobust.networks import as_model
from skrobust.scorers._sources import (
    GeneratedSource,
    NeighborSource,
    References,
    UniformPoints,
    UniformSource,
    kept_labels,
    predicted_classes,
)


class Threshold:
    """Class 1 above 0.5 of the first feature, and nothing but `predict`."""

    classes_ = np.array([0, 1])

    def predict(self, X):
        return (np.asarray(X)[:, 0] > 0.5).astype(int)


X = np.array([[0.3, 0.0], [0.4, 0.0], [0.55, 0.0], [0.9, 0.0]])
LABELS = np.array([0, 1, 1, 1])


@pytest.fixture
def model():
    return as_model(Threshold(), ("labels",), needs_gradient=False, input_shape=(2,))


def references(model, expected):
    expected = torch.as_tensor(expected)
    predicted = torch.as_tensor(predicted_classes(model, X, 3))
    return References(X, LABELS, expected, agree=predicted == expected)


# ---- points that are uniform in a ball --------------------


@pytest.mark.parametrize("d", [1, 2, 5, 300])
def test_points_are_uniform_in_the_l2_ball(d):
    x = torch.full((3, d), 0.5)
    draw = UniformPoints("l2", 2000, torch.Generator().manual_seed(0))
    points = draw(Ball.around(x, 0.3, "l2", None)).double().numpy()
    offset = (points - 0.5) / 0.3
    length = np.linalg.norm(offset, axis=2)
    assert length.max() <= 1 + 1e-5
    for row in range(3):
        # The volume within the length is uniform, and no direction is preferred.
        assert kstest(length[row] ** d, "uniform").pvalue > 1e-3
        assert np.abs(offset[row].mean(axis=0)).max() < 5 / np.sqrt(2000 * d) + 0.01
        first = offset[row][:, 0] / length[row]
        assert np.mean(first**2) == pytest.approx(1 / d, rel=0.2)
    assert np.abs(np.corrcoef(offset[0].ravel(), offset[1].ravel())[0, 1]) < 0.12


@pytest.mark.parametrize("d", [1, 300])
def test_points_are_uniform_in_the_cut_box(d):
    x = torch.full((2, d), 0.9)
    draw = UniformPoints("linf", 4000, torch.Generator().manual_seed(0))
    points = draw(Ball.around(x, 0.3, "linf", (0.0, 1.0))).double().numpy()
    assert 0.6 - 1e-6 <= points.min() < points.max() <= 1 + 1e-6
    for row in range(2):
        assert kstest((points[row][:, 0] - 0.6) / 0.4, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(points[0].ravel(), points[1].ravel())[0, 1]) < 0.08


def test_bounds_of_each_feature():
    x = torch.full((1, 2), 0.5)
    low, high = np.array([0.4, 0.0]), np.array([1.0, 0.6])
    for norm in ("linf", "l2"):
        draw = UniformPoints(norm, 500, torch.Generator().manual_seed(0))
        points = draw(Ball.around(x, 0.3, norm, (low, high))).numpy()[0]
        assert (points >= low - 1e-6).all() and (points <= high + 1e-6).all()
        assert points.max() > 0.75 and points.min() < 0.25


def test_rows_that_share_a_sample_do_not_share_points():
    x = torch.full((2, 64), 0.5)
    draw = UniformPoints("linf", 50, torch.Generator().manual_seed(0))
    points = draw(Ball.around(x, 0.3, "linf", None)) - 0.5
    # The same distances from the center, on sides of their own.
    np.testing.assert_allclose(points[0].abs(), points[1].abs(), atol=1e-6)
    flipped = (points[0] * points[1] < 0).all(dim=0)
    assert 0.2 < flipped.double().mean() < 0.8


def test_points_of_a_cut_l2_ball_are_those_of_the_quarter_disc():
    x = torch.zeros((1, 2))
    draw = UniformPoints("l2", 100_000, torch.Generator().manual_seed(0))
    points = draw(Ball.around(x, 1.0, "l2", (0.0, 1.0)))[0]
    assert (points[:, 0] < 0.5).double().mean().item() == pytest.approx(0.609, abs=0.008)


def test_rows_that_share_normal_numbers_have_points_of_their_own():
    # Half of the features at an end, where all points lie on one side of the sample.
    x = torch.where(torch.arange(100) < 50, 0.0, 0.5).expand(4, 100).contiguous()
    draw = UniformPoints("l2", 3000, torch.Generator().manual_seed(0))
    ball = Ball.around(x, 0.2, "l2", (0.0, 1.0))
    points = draw(ball).clone()
    assert (points >= 0).all()
    fresh = ball.sample(3000, torch.Generator().manual_seed(1))
    for row in range(4):
        for values in (points[row], fresh[row]):
            assert kstest(values[:, 60] - 0.5, (fresh[0][:, 61] - 0.5).numpy()).pvalue > 1e-3
        assert kstest(points[row][:, 0], fresh[row][:, 1].numpy()).pvalue > 1e-3
        assert np.corrcoef(points[row][:, 0], points[row][:, 1])[0, 1] < 0.1
    weights = torch.randn(100, generator=torch.Generator().manual_seed(2))
    sums = [points @ weights, points[:, :, 50:].sum(dim=2)]
    for each in sums:
        assert np.abs(np.corrcoef(each.numpy()) - np.eye(4)).max() < 0.3


# ---- what is counted --------------------


def test_kept_labels_are_those_of_the_model(model):
    points = np.array([[[0.1, 0], [0.9, 0]], [[0.6, 0], [0.2, 0]]])
    assert kept_labels(model, points, [0, 1]).tolist() == [[True, False], [True, False]]


def test_predictions_do_not_depend_on_batches(model):
    assert predicted_classes(model, X, 1).tolist() == predicted_classes(model, X, 9).tolist()
    assert predicted_classes(model, X, 4).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_uniform_points_are_counted_in_batches(model, batch_size):
    source = UniformSource(400, batch_size, None)
    n_kept, n_points = source.count(
        model, references(model, [0, 0, 1, 0]), (0.05, 0.2), "linf", seed=0
    )
    assert n_points.tolist() == [[400, 400]] * 4
    # Of the ball [e - r, e + r] in the first feature, the part on the expected side of 0.5.
    share = np.array([[1, 1], [1, 0.75], [1, 0.625], [0, 0]])
    np.testing.assert_allclose(n_kept / 400, share, atol=0.08)


def test_neighbors_by_hand(model):
    everything = NeighborSource(X, predicted_classes(model, X, 9), None)
    same_class = NeighborSource(X, predicted_classes(model, X, 9), LABELS)
    samples = references(model, LABELS)
    n_kept, n_points = everything.count(model, samples, (0.1, 0.25), "linf", seed=0)
    assert n_points.tolist() == [[1, 2], [1, 2], [0, 2], [0, 0]]
    assert n_kept.tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]
    n_kept, n_points = same_class.count(model, samples, (0.1, 0.25), "l2", seed=0)
    assert n_points.tolist() == [[0, 0], [0, 1], [0, 1], [0, 0]]
    assert n_kept.tolist() == [[0, 0], [0, 1], [0, 0], [0, 0]]


def test_generated_points_count_inside_the_ball(model):
    def generate(X, labels, epsilon, n_samples, generator):
        assert labels.tolist() == names[LABELS][: len(X)].tolist() or len(X) < len(LABELS)
        offset = np.array([0.0, 0.5, 2.0, np.nan])[:, None] * epsilon * np.array([1.0, 0.0])
        return X[:, None] + offset

    names = np.array(["no", "yes"])
    samples = references(model, [0, 0, 1, 1])
    for batch_size in (1, 8, 100):
        source = GeneratedSource(generate, names, 4, batch_size)
        n_kept, n_points = source.count(model, samples, (0.1, 0.3), "l2", seed=0)
        assert n_points.tolist() == [[2, 2]] * 4
        assert n_kept.tolist() == [[2, 2], [2, 1], [2, 2], [2, 2]]
        # Without a norm all finite points count.
        assert (source.count(model, samples, (0.1,), None, seed=0)[1] == 3).all()


def test_uniform_points_of_the_class_of_the_closest_row(model):
    # Rows 0.3 (class 0) and 0.4, 0.55, 0.9 (class 1): the border is at 0.35.
    source = UniformSource(4000, 1000, (0.0, 1.0), (X, LABELS))
    n_kept, n_points = source.count(model, references(model, [0, 0, 1, 1]), (0.1,), "l2", seed=0)
    # In the half disc around 0.3, the part below 0.35; and around 0.4 the part above it.
    segment = np.arccos(0.5) - 0.5 * np.sqrt(0.75)
    share = 1 - segment / np.pi
    np.testing.assert_allclose(n_points[:, 0] / 4000, [share, share, 1, 1], atol=0.04)
    assert n_kept[0, 0] == n_points[0, 0]
    # Of the ball around 0.55, what lies above 0.5.
    assert n_kept[2, 0] / n_points[2, 0] == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_closest_row_of_another_label(model, norm):
    predicted = predicted_classes(model, X, 9)
    samples = references(model, [0, 0, 1, 1])
    closest = NeighborSource(X, predicted, None).closest_change(samples, norm)
    np.testing.assert_allclose(closest, [0.25, 0.15, 0.15, 0.5])
    # Of the same true class, 0.3 has no other; 0.4 is the only one with the label 0.
    closest = NeighborSource(X, predicted, LABELS).closest_change(samples, norm)
    np.testing.assert_allclose(closest, [np.inf, 0.15, 0.15, 0.5])
    # By the true label, 0.4 itself is a change.
    by_label = NeighborSource(X, predicted, None).closest_change(references(model, LABELS), norm)
    np.testing.assert_allclose(by_label, [0.25, 0, 0.15, 0.5])


def test_samples_need_not_be_among_the_rows(model):
    source = NeighborSource(X, predicted_classes(model, X, 9), None, holds_samples=False)
    n_kept, n_points = source.count(model, references(model, [0, 0, 1, 1]), (0.01,), "l2", seed=0)
    assert n_points.tolist() == n_kept.tolist() == [[1]] * 4
