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


# ---- what is counted --------------------


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
