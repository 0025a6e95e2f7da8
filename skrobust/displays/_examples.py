"""Samples beside their adversarial examples."""

import math
from numbers import Integral

import numpy as np

from skrobust._validation import check_instance, check_integer, expected, sample_shape
from skrobust.displays._axes import import_pyplot, labels_of
from skrobust.networks import as_model
from skrobust.scorers import RobustnessScorer

__all__ = ["AdversarialExamplesDisplay", "as_image", "check_image_shape"]


class AdversarialExamplesDisplay:
    """Original, perturbed and difference images, one column an example.

    Parameters
    ----------
    originals, perturbed : array-like of shape (n_examples, n_features)
    labels_before, labels_after : array-like of shape (n_examples,)
        What the estimator says of each.
    image_shape : tuple of int
        (height, width), (channels, height, width) with 1 or 3 channels, or
        (height, width, 3).

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (3, n_examples)
    figure_ : matplotlib Figure

    Raises
    ------
    TypeError
        If `image_shape` is no tuple of integers.
    ValueError
        If shapes or lengths do not agree, or a value is not finite.
    """

    def __init__(self, originals, perturbed, labels_before, labels_after, *, image_shape):
        self.originals = _check_rows("originals", originals)
        n, n_features = self.originals.shape
        self.perturbed = _check_rows("perturbed", perturbed, (n, n_features))
        self.labels_before = _check_labels("labels_before", labels_before, n)
        self.labels_after = _check_labels("labels_after", labels_after, n)
        self.image_shape = check_image_shape(image_shape, n_features)

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, scorer, image_shape=None, n_examples=8, figure=None
    ):
        """Find counterexamples by a scorer, and draw the first ones.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
        scorer : RobustnessScorer
            One whose result has `counterexamples`, such as ConstraintSecurity.
        image_shape : tuple of int, default=None
            A square, if None.
        n_examples : int, default=8
            At most so many. Samples that are misclassified as they are come last.
        figure : matplotlib Figure, default=None

        Returns
        -------
        AdversarialExamplesDisplay
        """
        check_instance("scorer", scorer, RobustnessScorer, "ConstraintSecurity(...)")
        check_integer("n_examples", n_examples, low=1)
        perturbed = getattr(scorer.evaluate(estimator, X, y), "counterexamples", None)
        if perturbed is None:
            some = "one whose result has counterexamples, such as ConstraintSecurity"
            raise ValueError(expected("scorer", scorer, some))
        shape = sample_shape(X)
        predictor = as_model(estimator, {"labels"}, needs_gradient=False, input_shape=shape)
        rows = predictor.check_rows(X)
        index = np.flatnonzero(~np.isnan(perturbed).any(axis=1))
        moved = np.abs(perturbed[index] - rows[index]).max(axis=1, initial=0) > 0
        index = index[np.argsort(~moved, kind="stable")][:n_examples]
        return cls.from_predictions(
            rows[index],
            perturbed[index],
            labels_of(predictor, rows[index]),
            labels_of(predictor, perturbed[index]),
            image_shape=image_shape,
            n_examples=n_examples,
            figure=figure,
        )

    @classmethod
    def from_predictions(
        cls,
        originals,
        perturbed,
        labels_before,
        labels_after,
        *,
        image_shape=None,
        n_examples=8,
        figure=None,
    ):
        """Draw the first `n_examples` of given pairs; see the class for the parameters."""
        check_integer("n_examples", n_examples, low=1)
        originals = _check_rows("originals", originals)
        side = int(np.sqrt(originals.shape[1]))
        shape = (side, side) if image_shape is None else image_shape
        # All of them first, since cut ones would agree in their lengths.
        whole = cls(originals, perturbed, labels_before, labels_after, image_shape=shape)
        parts = whole.originals, whole.perturbed, whole.labels_before, whole.labels_after
        first = (part[:n_examples] for part in parts)
        return cls(*first, image_shape=shape).plot(figure=figure)

    def plot(self, *, figure=None):
        """Draw the images; return self."""
        plt, n = import_pyplot(), len(self.originals)
        if figure is None:
            size = (max(1.3 * n, 3), 4.2)
            figure = plt.figure(figsize=size, layout="constrained")
        if not hasattr(figure, "subplots"):  # a figure, or a part of one
            raise TypeError(expected("figure", figure, "a matplotlib Figure, or None"))
        self.figure_ = figure
        if n == 0:
            figure.suptitle("No counterexample was found.")
            self.axes_ = np.empty((3, 0), dtype=object)
            return self
        self.axes_ = figure.subplots(3, n, squeeze=False)
        difference = self.perturbed - self.originals
        reach = np.abs(difference).max() or 1.0
        low = min(self.originals.min(), self.perturbed.min())
        high = max(self.originals.max(), self.perturbed.max())
        for j, column in enumerate(self.axes_.T):
            for ax, row in zip(column, (self.originals, self.perturbed), strict=False):
                image = as_image(row[j], self.image_shape, low, high)
                ax.imshow(image, cmap="gray", vmin=low, vmax=high)
            change = as_image(difference[j], self.image_shape, -reach, reach)
            column[2].imshow(change, cmap="RdBu", vmin=-reach, vmax=reach)
            column[0].set_title(str(self.labels_before[j]))
            column[1].set_title(str(self.labels_after[j]), color="tab:red")
        for ax in self.axes_.flat:
            ax.set(xticks=[], yticks=[])
        names = ("original", "perturbed", f"difference\n(at most {reach:.3g})")
        for ax, name in zip(self.axes_[:, 0], names, strict=True):
            ax.set_ylabel(name)
        return self


def as_image(row, image_shape, low, high):
    """Return what `imshow` takes: (height, width), or RGB in [0, 1]."""
    image = np.reshape(row, image_shape)
    if image.ndim == 2:
        return image
    if image.shape[0] in (1, 3):
        image = np.moveaxis(image, 0, -1)
    return image[..., 0] if image.shape[-1] == 1 else (image - low) / (high - low)


def _check_rows(name, rows, shape=None):
    """Return `rows` as a finite float64 matrix; there may be no row."""
    try:
        # A tensor that needs a gradient is no array yet.
        rows = rows.detach() if hasattr(rows, "detach") else rows
        array = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected(name, rows, "numbers (n_examples, n_features)")) from None
    if array.ndim != 2 or array.shape[1] == 0 or shape not in (None, array.shape):
        wanted = "(n_examples, n_features)" if shape is None else f"{shape}, as the originals"
        raise ValueError(f"Got {name} of shape {array.shape}, but expected {wanted}.")
    if not np.isfinite(array).all():
        raise ValueError(f"Got {name} with values that are not finite, but expected images.")
    return array


def _check_labels(name, labels, n):
    expectation = f"({n},), one for each of originals and perturbed"
    try:
        array = np.asarray(labels)
    except ValueError:  # ragged
        raise ValueError(expected(name, labels, f"labels of shape {expectation}")) from None
    if array.shape != (n,):
        raise ValueError(f"Got {name} of shape {array.shape}, but expected {expectation}.")
    return array


def check_image_shape(shape, n_features):
    """Return the shape as a tuple, if `imshow` can draw rows of so many features by it."""
    if not isinstance(shape, list | tuple) or not all(isinstance(n, Integral) for n in shape):
        raise TypeError(expected("image_shape", shape, "a tuple of two or three integers"))
    if any(n < 1 for n in shape) or math.prod(shape) != n_features:
        expectation = f"a shape of {n_features} entries, as originals and perturbed have"
        raise ValueError(expected("image_shape", shape, expectation))
    has_channels = len(shape) == 3 and (shape[0] in (1, 3) or shape[2] in (1, 3))
    if len(shape) != 2 and not has_channels:
        raise ValueError(
            expected("image_shape", shape, "two sizes, or three with 1 or 3 channels")
        )
    return tuple(int(n) for n in shape)
