"""An epoch of certified training by CTRAIN 0.6.1, where it and auto_LiRPA can be imported.

Its complete verifier and its search for hyperparameters ask for many packages; an epoch uses none
of them, so stand-ins take their places. Its regularizers are left out, as the bare loops leave
them out: what is timed are the same updates, its bounds, and its bookkeeping.
"""

import contextlib
import copy
import importlib.machinery
import importlib.util
import io
import math
import sys
from unittest.mock import MagicMock

import torch

__all__ = ["is_installed", "peer_epoch"]

_UNUSED = [
    "onnx2pytorch",
    "smac",
    "CTRAIN.eval",
    "CTRAIN.complete_verification",
    "CTRAIN.complete_verification.abCROWN",
    "CTRAIN.complete_verification.abCROWN.verify",
]


def is_installed():
    return all(importlib.util.find_spec(name) for name in ("CTRAIN", "auto_LiRPA"))


class Batches:
    """Shuffled batches, with what CTRAIN asks its loaders for."""

    mean, std = torch.tensor([0.0]), torch.tensor([1.0])
    min, max = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)

    def __init__(self, X, y, size):
        self.X, self.y, self.size = X, y, size

    def __len__(self):
        return math.ceil(len(self.X) / self.size)

    def __iter__(self):
        for index in torch.randperm(len(self.X)).split(self.size):
            yield self.X[index], self.y[index]


def peer_epoch(method, module, X, y, *, epsilon, alpha, batch_size, lr):
    """Train a copy of a module of rows for one epoch, by "ibp" or "sabr" at the full radius."""
    for name in _UNUSED:
        spec = importlib.machinery.ModuleSpec(name, None)
        sys.modules.setdefault(name, MagicMock(__spec__=spec))
    from auto_LiRPA import BoundedModule
    from CTRAIN.train.certified import sabr, sabr_train_model, shi_ibp, shi_train_model

    shi_ibp.get_shi_regulariser = sabr.get_shi_regulariser = lambda **_: 0.0
    images = torch.tensor(X).view(-1, 1, 28, 28)
    module = torch.nn.Sequential(torch.nn.Flatten(), *copy.deepcopy(module))
    bounded = BoundedModule(module, images[:2], device="cpu")
    settings = {
        # The ramp ends with the epoch before.
        "start_epoch": 1, "num_epochs": 2, "eps": epsilon, "eps_schedule": (0, 1),
        "optimizer": torch.optim.Adam(module.parameters(), lr=lr),
        "l1_regularisation_weight": None, "results_path": None, "device": "cpu",
    }  # fmt: skip
    train = shi_train_model
    if method == "sabr":
        train = sabr_train_model
        settings |= {"subselection_ratio": alpha, "pgd_early_stopping": False}
    batches = Batches(images, torch.tensor(y), batch_size)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(module, bounded, batches, **settings)
