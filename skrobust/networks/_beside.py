"""Rows of the inputs beside the outputs, so that a property may speak of both."""

from dataclasses import dataclass

import numpy as np
import torch

from skrobust.networks._base import Model, Network
from skrobust.networks._pipeline import _Cast

__all__ = ["with_input_rows"]


class _Beside(torch.nn.Module):
    """The outputs of a module, and after them rows of its inputs; all in float64."""

    def __init__(self, module, dtype, A, n_classes):
        super().__init__()
        m = len(A)
        self.module = torch.nn.Sequential(_Cast(dtype), module, _Cast(torch.float64))
        self.widen = torch.nn.Linear(n_classes, n_classes + m, bias=False, dtype=torch.float64)
        self.rows = torch.nn.Linear(A.shape[1], n_classes + m, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.widen.weight.copy_(torch.eye(n_classes + m, n_classes))
            self.rows.weight.zero_()
            self.rows.weight[n_classes:] = torch.as_tensor(A)

    def forward(self, x):
        return self.widen(self.module(x)) + self.rows(x)


@dataclass(frozen=True, eq=False)
class _Replay:
    """The outputs as the estimator computes them, and after them rows of the inputs."""

    network: Model
    A: np.ndarray

    def __call__(self, X):
        outputs = self.network.replay_rows(X).double()
        rows = torch.as_tensor(np.asarray(X, dtype=np.float64) @ self.A.T)
        return torch.cat([outputs, rows.to(outputs.device)], dim=1)


def with_input_rows(network, A):
    """Return a network with further outputs, A x, of which it takes no notice itself.

    Parameters
    ----------
    network : Network
    A : ndarray of shape (m, n_features)

    Returns
    -------
    Network
        Of rows in float64; its classes are places.
    """
    n_classes, device = len(network.classes), network.device
    module = _Beside(network.module, network.dtype, A, n_classes).to(device)
    return Network(
        module,
        np.arange(n_classes + len(A)),
        A.shape[1],
        _Replay(network, A),
        probabilistic=False,
        dtype=torch.float64,
        categories=network.categories,
    )
