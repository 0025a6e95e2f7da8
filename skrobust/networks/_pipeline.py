"""Pipelines as networks: the steps become layers in front of the classifier."""

import torch
from scipy.sparse import issparse
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._base import Network, as_network
from skrobust.networks._rows import named_rows, without_names
from skrobust.networks._steps import StepReader

__all__ = []


class _Cast(torch.nn.Module):
    """The identity, in another precision."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return x.to(self.dtype)


@as_network.register
def _(pipeline: Pipeline, *, input_shape=None):
    check_is_fitted(pipeline)
    steps = [(name, s) for name, s in pipeline.steps[:-1] if s is not None and s != "passthrough"]
    if not steps:
        return as_network(pipeline.steps[-1][1], input_shape=input_shape)
    first = steps[0][1]
    n_features = getattr(first, "n_features_in_", None)
    if n_features is None:
        raise UnsupportedModelError(
            f"The first step of the pipeline, {kind_of(first)}, has no n_features_in_, so the "
            "number of features is not known. Fit it by sklearn.utils.validation.validate_data."
        )
    reader = StepReader(n_features)
    front = reader.module(steps)
    final = as_network(pipeline.steps[-1][1])
    # Raw units can be large: scale in float64, as the steps themselves do.
    front = front.to(final.device, torch.float64)
    module = torch.nn.Sequential(front, _Cast(final.dtype), final.module, _Cast(torch.float64))

    def replay(X):
        X = named_rows(first, X)
        for _, step in steps:
            with without_names():
                X = step.transform(X)
        return final.replay_rows(X.toarray() if issparse(X) else X)

    return Network(
        module,
        final.classes,
        n_features,
        replay,
        probabilistic=final.probabilistic,
        dtype=torch.float64,
        categories=reader.categories,
    )
