"""Samples beside their adversarial examples."""

import numpy as np

from skrobust._validation import check_instance, check_integer, expected
from skrobust.displays._axes import _labels, import_pyplot
from skrobust.networks import as_model
from skrobust.scorers import RobustnessScorer

__all__ = ["AdversarialExamplesDisplay"]


class AdversarialExamplesDisplay:
    """Original, perturbed and difference images, one column an example.

    Parameters
    ----------
    originals, perturbed : ndarray of shape (n_examples, n_features)
    labels_before, labels_after : array-like of shape (n_examples,)
        What the estimator says of each.
    image_shape : tuple of int
        (height, width), (channels, height, width) with 1 or 3 channels, or
        (height, width, 3).

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (3, n_examples)
    figure_ : matplotlib Figure
    """

    def __init__(self, originals, perturbed, labels_before, labels_after, *, image_shape):
        self.originals = originals
        self.perturbed = perturbed
        self.labels_before = labels_before
        self.labels_after = labels_after
        self.image_shape = image_shape

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
        X = np.asarray(X)
        rows = X.reshape(len(X), -1)
        found = scorer.evaluate(estimator, X, y).counterexamples
        predictor = as_model(estimator, {"labels"}, needs_gradient=False, input_shape=X.shape[1:])
        index = np.flatnonzero(~np.isnan(found).any(axis=1))
        moved = np.abs(found[index] - rows[index]).max(axis=1, initial=0) > 0
        index = index[np.argsort(~moved, kind="stable")]
        return cls.from_predictions(
            rows[index],
            found[index],
            _labels(predictor, rows[index]),
            _labels(predictor, found[index]),
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
        n_features = originals.shape[1]
        side = int(np.sqrt(n_features))
        shape = (side, side) if image_shape is None else tuple(image_shape)
        if np.prod(shape) != n_features:
            expectation = f"a shape of {n_features} entries, the number of features"
            raise ValueError(expected("image_shape", image_shape, expectation))
        parts = (originals, perturbed, labels_before, labels_after)
        parts = (part[:n_examples] for part in parts)
        return cls(*parts, image_shape=shape).plot(figure=figure)

    def plot(self, *, figure=None):
        """Draw the images; return self."""
        n = len(self.originals)
        if figure is None:
            size = (max(1.3 * n, 3), 4.2)
            figure = import_pyplot().figure(figsize=size, layout="constrained")
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
                ax.imshow(self._image(row[j], low, high), cmap="gray", vmin=low, vmax=high)
            change = self._image(difference[j], -reach, reach)
            column[2].imshow(change, cmap="RdBu", vmin=-reach, vmax=reach)
            column[0].set_title(str(self.labels_before[j]))
            column[1].set_title(str(self.labels_after[j]), color="tab:red")
        for ax in self.axes_.flat:
            ax.set(xticks=[], yticks=[])
        names = ("original", "perturbed", f"difference\n(at most {reach:.3g})")
        for ax, name in zip(self.axes_[:, 0], names, strict=True):
            ax.set_ylabel(name)
        return self

    def _image(self, row, low, high):
        """Return what `imshow` takes: (height, width), or RGB in [0, 1]."""
        image = np.reshape(row, self.image_shape)
        if image.ndim == 2:
            return image
        if image.shape[0] in (1, 3):
            image = np.moveaxis(image, 0, -1)
        return image[..., 0] if image.shape[-1] == 1 else (image - low) / (high - low)
