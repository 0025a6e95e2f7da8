"""Pictures show samples beside points that the model takes for something else."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skrobust.displays import AdversarialExamplesDisplay
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity, CorruptionRobustness

SCORER = ConstraintSecurity(ClassificationRobustness(0.1), random_state=0)
PAIRS = np.zeros((2, 12)), np.ones((2, 12)), [0, 0], [1, 1]


def test_shows_pairs_that_the_model_tells_apart(model, digits):
    X, y = digits
    display = AdversarialExamplesDisplay.from_estimator(model, X, y, scorer=SCORER, n_examples=5)
    assert display.axes_.shape == (3, 5)
    assert (model.predict(display.originals) == display.labels_before).all()
    assert (model.predict(display.perturbed) == display.labels_after).all()
    assert (display.labels_before != display.labels_after).all()
    np.testing.assert_allclose(
        np.abs(display.perturbed - display.originals).max(axis=1), 0.1, atol=0.09
    )


def test_says_when_there_is_none(model, digits):
    X, y = digits
    right = model.predict(X) == y
    scorer = ConstraintSecurity(ClassificationRobustness(0.0))
    display = AdversarialExamplesDisplay.from_estimator(model, X[right], y[right], scorer=scorer)
    assert display.axes_.shape == (3, 0)


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 2, 2), (1, 3, 4), (3, 4)])
def test_image_shapes(shape):
    pairs = np.zeros((2, 12)), np.ones((2, 12)), [0, 0], [1, 1]
    display = AdversarialExamplesDisplay.from_predictions(*pairs, image_shape=shape)
    drawn = display.axes_[0, 0].images[0].get_array()
    assert drawn.shape[:2] in {(2, 2), (3, 4)}


def test_refuses_a_shape_that_does_not_fit():
    pairs = np.zeros((2, 12)), np.ones((2, 12)), [0, 0], [1, 1]
    with pytest.raises(ValueError, match=r"Got image_shape=\(5, 5\), but expected a shape of 12"):
        AdversarialExamplesDisplay.from_predictions(*pairs, image_shape=(5, 5))


def test_refuses_scorers_without_counterexamples(model, digits):
    with pytest.raises(ValueError, match="but expected one whose result has counterexamples"):
        AdversarialExamplesDisplay.from_estimator(model, *digits, scorer=CorruptionRobustness())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: np.zeros(12)}, r"Got originals of shape \(12,\), but expected \(n_examples, n_feat"),
        ({0: None}, r"Got originals of shape \(\)"),
        ({0: [["a"] * 12] * 2}, "Got originals=.*but expected numbers"),
        ({0: [[10**400] * 12] * 2}, "Got originals=.*but expected numbers"),
        ({0: np.full((2, 12), np.nan)}, "Got originals with values that are not finite"),
        ({1: np.zeros((2, 11))}, r"Got perturbed of shape \(2, 11\), but expected \(2, 12\)"),
        ({2: [0]}, r"Got labels_before of shape \(1,\), but expected \(2,\)"),
        ({3: None}, r"Got labels_after of shape \(\), but expected \(2,\)"),
    ],
)
def test_refuses_odd_pairs(changed, message):
    pairs = [changed.get(i, part) for i, part in enumerate(PAIRS)]
    with pytest.raises(ValueError, match=message):
        AdversarialExamplesDisplay(*pairs, image_shape=(3, 4))
    with pytest.raises(ValueError, match=message):
        AdversarialExamplesDisplay.from_predictions(*pairs, image_shape=(3, 4), n_examples=1)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        (12, TypeError, "Got image_shape=12, but expected a tuple"),
        (("a", 2), TypeError, r"Got image_shape=\('a', 2\), but expected a tuple"),
        ((-3, -4), ValueError, r"Got image_shape=\(-3, -4\), but expected a shape of 12"),
        ((12,), ValueError, r"Got image_shape=\(12,\), but expected two sizes"),
        ((2, 2, 3, 1), ValueError, r"Got image_shape=.*but expected two sizes"),
        ((2, 3, 2), ValueError, r"Got image_shape=.*but expected two sizes, or three with 1 or 3"),
    ],
)
def test_refuses_shapes_that_cannot_be_drawn(shape, error, message):
    with pytest.raises(error, match=message):
        AdversarialExamplesDisplay(*PAIRS, image_shape=shape)


@pytest.mark.parametrize("n_examples", [0, None, 1.5])
def test_refuses_no_examples(n_examples, model, digits):
    with pytest.raises(ValueError, match=r"Got n_examples=.*but expected an integer"):
        AdversarialExamplesDisplay.from_predictions(*PAIRS, n_examples=n_examples)
    with pytest.raises(ValueError, match="Got n_examples="):
        AdversarialExamplesDisplay.from_estimator(
            model, *digits, scorer=SCORER, n_examples=n_examples
        )


def test_draws_into_a_given_figure_only():
    figure = plt.figure()
    display = AdversarialExamplesDisplay(*PAIRS, image_shape=(3, 4)).plot(figure=figure)
    assert display.figure_ is figure
    with pytest.raises(TypeError, match=r"Got figure='a', but expected a matplotlib Figure"):
        AdversarialExamplesDisplay(*PAIRS, image_shape=(3, 4)).plot(figure="a")
