"""Properties given by their own linear rows."""

import numpy as np
import torch

from skrobust._validation import check_choice, expected
from skrobust.properties._base import RobustnessProperty
from skrobust.properties._conclusion import LinearRows, _outputs

__all__ = ["LinearRobustness"]


class LinearRobustness(RobustnessProperty):
    r"""A property of your own, given by its rows :math:`A z + c d + b \ge 0`.

    Parameters
    ----------
    rows : tuple (A, b) or (A, c, b) of array-likes, or callable
        Arrays of shapes (m, n_classes), (m,) and (m,), the same for every point; or a
        callable ``rows(reference_logits, labels)`` that returns tensors A, c, b of shapes
        (n, m, n_classes), (n, m), (n, m). The reference logits are those of n points, labels
        their class indices.
    epsilon : float or array-like of shape (n_features,), default=0.1
        Radius in units of the input; 0 marks a feature that cannot change.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="prediction"
        Which labels a callable is given.
    output : {"logits", "probabilities"}, default="logits"
        Which outputs z are.
    strict : bool, default=False
        Whether the rows must be above 0.

    Examples
    --------
    The last class is never ahead of the first one by more than 2:

    >>> from skrobust.properties import LinearRobustness
    >>> property = LinearRobustness(([[1.0, 0.0, -1.0]], [2.0]), epsilon=0.1)
    >>> property.margin([[0.0, 5.0, 1.0], [0.0, 5.0, 3.0]])
    array([ 1., -1.])
    """

    def __init__(
        self,
        rows,
        epsilon=0.1,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="prediction",
        output="logits",
        strict=False,
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.rows = rows
        self.output = output
        self.strict = strict

    @property
    def needs_labels(self):
        return callable(self.rows) and super().needs_labels

    def check(self, X=None):
        check_choice("output", self.output, ("logits", "probabilities"))
        if not callable(self.rows):
            self._constant_rows()
        return super().check(X)

    def conclusion(self, reference_logits, labels):
        n, n_classes = reference_logits.shape
        if callable(self.rows):
            rows = self.rows(_outputs(reference_logits, self.output), labels)
        else:
            rows = (torch.as_tensor(row).expand(n, *row.shape) for row in self._constant_rows())
        A, c, b = (torch.as_tensor(row).to(reference_logits) for row in rows)
        m = A.shape[1] if A.ndim == 3 else None
        if A.shape != (n, m, n_classes) or c.shape != (n, m) or b.shape != (n, m):
            shapes = ", ".join(str(tuple(row.shape)) for row in (A, c, b))
            raise ValueError(
                f"Got rows A, c, b of shapes {shapes}, but expected ({n}, m, {n_classes}), "
                f"({n}, m), ({n}, m) for {n} points and {n_classes} classes."
            )
        uses_distance = bool((c != 0).any())
        return LinearRows(A, c, b, bool(self.strict), self.output, uses_distance)

    def _constant_rows(self):
        expectation = (
            "a callable, or arrays (A, b) or (A, c, b) of shapes (m, n_classes), (m,), (m,)"
        )
        try:
            rows = [np.asarray(row, dtype=np.float64) for row in self.rows]
        except (TypeError, ValueError):
            raise ValueError(expected("rows", self.rows, expectation)) from None
        if len(rows) == 2:
            rows.insert(1, np.zeros_like(rows[1]))
        fits = len(rows) == 3 and rows[0].ndim == 2
        fits = fits and rows[1].shape == rows[2].shape == rows[0].shape[:1]
        if not fits or not all(np.isfinite(row).all() for row in rows):
            raise ValueError(expected("rows", self.rows, expectation + ", all finite"))
        return rows
