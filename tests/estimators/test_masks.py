"""Masks: which weights they cover, and that the smallest go, to one weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skrobust.estimators import _masks
from tests.training._steps import linear

SMALL = [[0.1, -0.6], [0.3, 4.0]]
LARGE = [[5.0, -0.2], [7.0, -9.0]]


def two_layers():
    return torch.nn.Sequential(linear(SMALL), torch.nn.BatchNorm1d(2), linear(LARGE))


def test_matrices_and_kernels_are_pruned_and_biases_are_not():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 2),
        torch.nn.BatchNorm2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(2, 3),
    )
    assert list(_masks.prunable(module)) == ["0.weight", "3.weight"]
    masks = _masks.all_kept(module)
    assert (_masks.n_weights(masks), _masks.n_pruned(masks)) == (8 + 6, 0)


def test_the_smallest_go_in_the_whole_or_in_each_layer():
    module = two_layers()
    masks = _masks.further_pruned(module, _masks.all_kept(module), 0.5, "global")
    assert masks["0.weight"].tolist() == [[False, False], [False, True]]
    assert masks["2.weight"].tolist() == [[True, False], [True, True]]
    masks = _masks.further_pruned(module, _masks.all_kept(module), 0.5, "layer")
    assert masks["0.weight"].tolist() == [[False, True], [False, True]]
    assert masks["2.weight"].tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("scope", ["global", "layer"])
@given(shares=st.lists(st.floats(0, 1), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_shares_are_exact_and_what_is_gone_stays_gone(scope, shares, seed):
    torch_seed = torch.Generator().manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 7))
    with torch.no_grad():
        for parameter in module.parameters():
            # With ties, and weights that are zero but not pruned.
            parameter.copy_(torch.randint(-2, 3, parameter.shape, generator=torch_seed))
    masks = _masks.all_kept(module)
    for share in sorted(shares):
        later = _masks.further_pruned(module, masks, share, scope)
        assert all((later[name] <= masks[name]).all() for name in masks)
        if scope == "global":
            assert _masks.n_pruned(later) == round(share * 36)
        else:
            assert {n: int((~m).sum()) for n, m in later.items()} == {
                "0.weight": round(share * 15),
                "1.weight": round(share * 21),
            }
        for names in [list(masks)] if scope == "global" else [[name] for name in masks]:
            weights = torch.cat([_masks.prunable(module)[n].flatten() for n in names]).abs()
            kept = torch.cat([later[n].flatten() for n in names])
            new = torch.cat([(masks[n] & ~later[n]).flatten() for n in names])
            if new.any() and kept.any():
                assert weights[new].max() <= weights[kept].min()
        masks = later


def test_a_smaller_share_brings_nothing_back():
    module = two_layers()
    masks = _masks.further_pruned(module, _masks.all_kept(module), 0.75, "global")
    again = _masks.further_pruned(module, masks, 0.25, "global")
    assert all(torch.equal(again[name], masks[name]) for name in masks)


def test_weights_and_gradients_are_cleared_where_masks_say_so():
    module = two_layers()
    masks = _masks.further_pruned(module, _masks.all_kept(module), 0.5, "global")
    pairs = _masks.bound(module, masks)
    module.eval()(torch.ones(3, 2)).square().sum().backward()
    with torch.no_grad():
        module[0].weight[0, 0] = torch.nan
    _masks.clear_gradients(pairs)
    _masks.clear_weights(pairs)
    assert module[0].weight.tolist() == [[0.0, 0.0], [0.0, 4.0]]
    assert (module[2].weight.grad[~masks["2.weight"]] == 0).all()
    assert (module[2].weight.grad[masks["2.weight"]] != 0).all()
    _masks.clear_gradients(_masks.bound(two_layers(), masks))  # has none yet
    assert _masks.bound(module, None) == []


@pytest.mark.parametrize(
    ("amount", "scope", "message"),
    [
        (0.99, "global", "Got amount=0.99, but expected a share that leaves one of the 8 weights"),
        (0.9, "layer", "leaves one of the 4 weights of the parameter '0.weight'"),
        (0.3, "global", "Got amount=0.3, but expected at least 0.5, the share of the network"),
    ],
)
def test_amounts_that_cannot_be(amount, scope, message):
    module = two_layers()
    masks = _masks.further_pruned(module, _masks.all_kept(module), 0.5, "global")
    with pytest.raises(ValueError, match=message):
        _masks.check_amount(module, amount, scope, masks)
    _masks.check_amount(module, 0.5, "global", masks)


def test_a_module_without_weights():
    with pytest.raises(ValueError, match="Got a module without weights to prune, but expected"):
        _masks.check_amount(torch.nn.BatchNorm1d(2), 0.5, "global")
