"""Which weights of a module are pruned, and which are next by their magnitude."""

import torch
from torch.nn.utils.prune import L1Unstructured

from skrobust._validation import expected

__all__ = []


def prunable(module):
    """Return the parameters that can be pruned, by name: those of at least two axes.

    These are the matrices and kernels of layers. Biases, and the scales of batch norm, are few,
    and play another part.
    """
    return {name: p for name, p in module.named_parameters() if p.ndim > 1}


def all_kept(module):
    """Return the masks of a module of which nothing is pruned."""
    return {name: torch.ones(p.shape, dtype=torch.bool) for name, p in prunable(module).items()}


def n_pruned(masks):
    """Return the number of weights that masks take away."""
    return sum(int((~mask).sum()) for mask in masks.values())


def n_weights(masks):
    """Return the number of weights that masks cover, pruned ones included."""
    return sum(mask.numel() for mask in masks.values())


def further_pruned(module, masks, share, scope):
    """Return masks that take away the smallest of the weights that are left, too.

    Parameters
    ----------
    module : torch.nn.Module
    masks : dict of str to Tensor
        For each parameter that can be pruned: True where a weight is kept.
    share : float
        Of all weights that can be pruned, how many are to be gone, those of `masks` included.
        Rounded to whole weights; never fewer than are gone already.
    scope : {"global", "layer"}
        Whether magnitudes are compared, and weights counted, in the whole module or in each layer.

    Returns
    -------
    dict of str to Tensor
    """
    weights = {name: p.detach().cpu() for name, p in prunable(module).items()}
    groups = [list(masks)] if scope == "global" else [[name] for name in masks]
    result = {}
    for names in groups:
        kept = torch.cat([masks[name].flatten() for name in names])
        magnitudes = torch.cat([weights[name].flatten() for name in names])
        n_further = max(round(share * len(kept)) - int((~kept).sum()), 0)
        left = magnitudes[kept]
        # Among those that are left alone, so that one that is pruned never comes back.
        smallest = L1Unstructured(n_further).compute_mask(left, torch.ones_like(left))
        kept[kept.clone()] = smallest.bool()
        parts = kept.split([masks[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            result[name] = part.view(masks[name].shape).clone()
    return result


def check_amount(module, amount, scope, masks=None):
    """Raise a ValueError where an amount takes all weights, or fewer than are gone already."""
    masks = all_kept(module) if masks is None else masks
    if not masks:
        raise ValueError(
            "Got a module without weights to prune, but expected one with a parameter of at least "
            "two axes, such as the weight of a torch.nn.Linear."
        )
    groups = {"the network": masks}
    if scope == "layer":
        groups = {f"the parameter {name!r}": {name: mask} for name, mask in masks.items()}
    for whose, part in groups.items():
        n, gone = n_weights(part), n_pruned(part)
        if round(amount * n) == n:
            expectation = f"a share that leaves one of the {n} weights of {whose}"
            raise ValueError(expected("amount", amount, expectation))
        if round(amount * n) < gone:
            expectation = f"at least {gone / n:.6g}, the share of {whose} that is pruned already"
            raise ValueError(expected("amount", amount, expectation))


def bound(module, masks):
    """Return pairs of a parameter and its mask, on its device."""
    if masks is None:
        return []
    parameters = dict(module.named_parameters())
    return [(parameters[name], mask.to(parameters[name].device)) for name, mask in masks.items()]


@torch.no_grad()
def clear_gradients(pairs):
    """Set the gradients of pruned weights to zero, before anything else looks at them."""
    for parameter, mask in pairs:
        if parameter.grad is not None:
            parameter.grad.mul_(mask)


@torch.no_grad()
def clear_weights(pairs):
    """Set pruned weights to zero; also those that are NaN."""
    for parameter, mask in pairs:
        parameter.masked_fill_(~mask, 0.0)
