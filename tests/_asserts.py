"""Theorems that several tests assert."""

import numpy as np
import torch

from skrobust.networks import as_model

SLACK = 1e-12  # of float64 arithmetic


def assert_inside_ball(points, X, property, factor=1.0):
    """Every point lies within epsilon of its reference and inside the bounds.

    Measured in float64. `X` are the references in the precision that the network sees, and
    a reference may itself lie outside the bounds by that precision. `factor` scales epsilon.
    """
    points, X = np.asarray(points, dtype=np.float64), np.asarray(X, dtype=np.float64)
    epsilon = np.broadcast_to(np.asarray(property.epsilon, dtype=np.float64), X.shape[1:])
    offset = np.abs(points - X)
    assert np.isfinite(points).all()
    assert (offset[:, epsilon == 0] == 0).all()
    relative = offset[:, epsilon > 0] / epsilon[epsilon > 0] / factor
    if property.norm == "l2":
        relative = np.linalg.norm(relative, axis=1)
    assert relative.max(initial=0.0) <= 1 + SLACK
    if property.bounds is not None:
        low, high = property.bounds
        assert (points >= np.minimum(low, X)).all()
        assert (points <= np.maximum(high, X)).all()


def assert_counterexamples_break(model, property, result, X, y):
    """Counterexamples are where the property fails, in the ball, and break it; NaN elsewhere.

    For properties about the label, the estimator's own `predict` must disagree with `y`.
    """
    points = result.counterexamples
    found = ~np.isnan(points).any(axis=1)
    fails = ~result.holds if hasattr(result, "holds") else result.shares < 1
    assert points.shape == (len(X), points.shape[1])
    np.testing.assert_array_equal(found, fails)
    if not found.any():
        return
    assert np.isnan(points[~found]).all()
    rows = np.asarray(X).reshape(len(X), -1).astype(points.dtype)
    assert_inside_ball(points[found], rows[found], property)
    if property.needs_labels and property.needed_outputs == {"labels"}:
        shaped = points[found].reshape(-1, *np.shape(X)[1:])
        assert (model.predict(shaped) != np.asarray(y)[found]).all()
        return
    network = as_model(
        model, property.needed_outputs, needs_gradient=False, input_shape=np.shape(X)[1:]
    )
    x, at = network.rows(rows[found]), network.rows(points[found])
    broken = ~property.holds(
        network.replay(at).numpy(),
        reference_logits=network.replay(x).numpy(),
        distance=property.ball(x).distance(at).numpy(),
        labels=network.encode(np.asarray(y)[found]) if property.needs_labels else None,
    )
    assert broken.all()


def assert_same_classifier(network, estimator, X, probabilities=True):
    """The network's largest output is `predict`; its softmax is `predict_proba`."""
    with torch.no_grad():
        logits = network(network.rows(X))
    np.testing.assert_array_equal(
        network.classes[logits.argmax(dim=1).numpy()], estimator.predict(X)
    )
    if probabilities:
        expected = estimator.predict_proba(X)
        found = torch.softmax(logits, dim=1).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
