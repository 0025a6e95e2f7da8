"""Properties and helpers that several test files share."""

import numpy as np
import torch

from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness
SCR = StrongClassificationRobustness
LOG3 = np.log(3.0)
ROWS = ([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]], [0.5, -1.0], [2.0, 3.0])


def sum_rows(reference_logits, labels):
    """One row a point: the sum of the outputs is at least that at the reference point."""
    A = torch.ones(len(labels), 1, reference_logits.shape[1])
    b = -reference_logits.sum(dim=1, keepdim=True)
    return A, torch.zeros_like(b), b


def margin(property, logits, **given):
    given = {name: [value] for name, value in given.items()}
    return property.margin([logits], **given).item()


PROPERTIES = [
    CR(0.05, norm="l2", reference="prediction"),
    SR([0.1, 0.0], delta=2.0, output="probabilities"),
    LR(0.1, 3.0, bounds=None),
    SCR(0.1, 0.9, bounds=([0.0, 0.0], [1.0, 2.0])),
    LinearRobustness(ROWS, np.array([0.1, 0.2])),
    LinearRobustness(sum_rows, reference="label", strict=True),
    CR() & SR(),
    CR() | SR() & SCR(),
]
