"""One network that averages the probabilities of many."""

import math
from copy import deepcopy
from functools import partial

import torch
from torch.func import functional_call, vmap
from torch.nn.utils import vector_to_parameters
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils.checkpoint import checkpoint

from skrobust._validation import expected
from skrobust.estimators._energy import floats_per_row
from skrobust.exceptions import UnsupportedModelError

__all__ = []

_BUDGET = 2**24  # floats of layers that are held at one time, 64 MiB


class PosteriorAverage(torch.nn.Module):
    """The logarithm of the mean of the probabilities that samples of the weights give.

    These are logits: their softmax is the mean. They are computed as a logarithm of sums of
    exponentials, so that no small probability becomes 0. Samples and rows are taken in parts, so
    that memory is bounded, apart from the samples themselves; with more than one part, gradients
    compute each part again.

    Parameters
    ----------
    module : torch.nn.Module
        From rows to logits. It is put in evaluation mode, and its weights are frozen.
    names : list of str
        Of the parameters that are sampled.
    samples : Tensor of shape (n_posterior, n_weights)
        The parameters of each sample, one after the other in the order of `names`.
    x : Tensor of shape (n, n_features)
        Rows to try the module with.
    """

    def __init__(self, module, names, samples, x):
        super().__init__()
        self.module = module.eval().requires_grad_(False)
        self.register_buffer("samples", samples)
        parameters = dict(module.named_parameters())
        self._shapes = {name: parameters[name].shape for name in names}
        self._width = floats_per_row(module, x[:2])
        # What looks at numbers to decide what to do cannot run on many samples at once.
        self._at_once = False
        with torch.no_grad():
            loaded = self._loaded(x[:2])
            for self._at_once in (True, False):
                if self._agrees(x[:2], loaded):
                    return
        expectation = "one that computes with its parameters as they are named, not with aliases"
        raise UnsupportedModelError(expected("module", module, expectation))

    def forward(self, x):
        return log_mean_probabilities(x, self)

    def log_probabilities(self, x):
        """Return those of each sample, of shape (n_posterior, n, n_classes), without gradient."""
        with torch.no_grad():
            return torch.cat([self._of_samples(x, samples) for samples in self._parts(len(x))])

    def _loaded(self, x):
        """Return the outputs of a few samples, each written into a copy of the module."""
        outputs, module = [], deepcopy(self.module)
        parameters = dict(module.named_parameters())
        for weights in self.samples[:2]:
            vector_to_parameters(weights, [parameters[name] for name in self._shapes])
            outputs.append(module(x))
        return torch.stack(outputs)

    def _agrees(self, x, loaded):
        try:
            outputs = self._outputs(x, self.samples[:2])
        except Exception:  # whatever torch says of a module that it cannot map
            return False
        return torch.allclose(outputs, loaded, 1e-3, 1e-4, equal_nan=True)

    def _average(self, x):
        n_rows = max(1, _BUDGET // self._width)
        return torch.cat([self._of_rows(rows) for rows in x.split(n_rows)])

    def _of_rows(self, x):
        parts = self._parts(len(x))
        if len(parts) > 1 and torch.is_grad_enabled() and x.requires_grad:
            sums = [
                checkpoint(self._log_sum, x, part, use_reentrant=False, preserve_rng_state=False)
                for part in parts
            ]
        else:
            sums = [self._log_sum(x, part) for part in parts]
        return torch.stack(sums).logsumexp(dim=0) - math.log(len(self.samples))

    def _parts(self, n_rows):
        # The weights count, too: products of many matrices at once may copy these.
        n_floats = self._width * n_rows + self.samples.shape[1]
        return self.samples.split(max(1, _BUDGET // n_floats))

    def _log_sum(self, x, samples):
        return self._of_samples(x, samples).logsumexp(dim=0)

    def _of_samples(self, x, samples):
        return self._outputs(x, samples).log_softmax(dim=-1)

    def _outputs(self, x, samples):
        if not self._at_once:
            return self._one_by_one(x, samples)
        # Weights are put into the module for the moment: not into what other threads call, too.
        return vmap(partial(self._of_sample, _twin(self.module)), in_dims=(None, 0))(x, samples)

    def _one_by_one(self, x, samples):
        twin = _twin(self.module)
        return torch.stack([self._of_sample(twin, x, weights) for weights in samples])

    def _of_sample(self, module, x, weights):
        values, start = {}, 0
        for name, shape in self._shapes.items():
            values[name] = weights[start : start + shape.numel()].view(shape)
            start += shape.numel()
        return functional_call(module, values, (x,))

    def extra_repr(self):
        return f"{len(self.samples)} samples of {self.samples.shape[1]} weights"


def log_mean_probabilities(x, average):
    """Return what a `PosteriorAverage` makes of rows.

    To what follows the functions of torch, as readers of networks do, this is a single one.
    """
    if has_torch_function((x,)):
        return handle_torch_function(log_mean_probabilities, (x,), x, average)
    return average._average(x)


def _twin(module):
    """Return a module that shares its tensors with another, each of which can be replaced.

    Layers are copied wherever the module keeps them, also in lists and as bound methods.
    """
    return deepcopy(module, {id(t): t for t in (*module.parameters(), *module.buffers())})
