"""Functions that only move entries: what they are read as, and that none mixes samples."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Permute, Rearrange, Reshape, read_graph
from tests._modules import sample


class Applied(nn.Module):
    """One function of entries that stand as (n, 2, 3, 4)."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x.view(-1, 2, 3, 4)).reshape(len(x), -1)


RESHAPES = {
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(3, (2, 2)),
    "unsqueeze": lambda x: x.unsqueeze(2),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1).reshape(-1, 6, 4),
    "view_as": lambda x: x.view_as(torch.empty(len(x), 4, 6)),
    "as one piece": lambda x: x.repeat(1, 1, 1, 1).reshape(-1, 12, 2),
}
PERMUTES = {
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(1, -1),
    "swapaxes": lambda x: torch.swapaxes(x, 2, 3),
    "movedim": lambda x: x.movedim(3, 1),
    "by name": lambda x: torch.permute(input=x, dims=(0, 2, 1, 3)),
}
REARRANGES = {
    "getitem": lambda x: x[:, 1:, ::2],
    "narrow": lambda x: x.narrow(2, 1, 2),
    "select": lambda x: x.select(1, 1),
    "chunk": lambda x: torch.cat(x.chunk(2, dim=3)[::-1], dim=3),
    "unbind": lambda x: x.unbind(1)[1],
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=2),
    "flip": lambda x: x.flip(2, 3),
    "roll": lambda x: x.roll(1, dims=3),
    "pad": lambda x: functional.pad(x, (1, 0, 0, 2)),
    "replicate": lambda x: functional.pad(x, (1, 1, 1, 1), mode="replicate"),
    "pixel_shuffle": lambda x: functional.pixel_shuffle(x.reshape(-1, 4, 3, 2), 2),
    "index_select": lambda x: x.index_select(3, torch.tensor([2, 0])),
}
COPIES = {
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.contiguous(),
    "detach": lambda x: x.detach(),
    "to": lambda x: x.to(torch.float64),
    "dropout": lambda x: functional.dropout(x, 0.5, training=False),
    "same shape": lambda x: x.view(x.shape),
    "in order": lambda x: x.permute(0, 1, 2, 3),
    "all of it": lambda x: x[:, :, :],
}
KINDS = [(RESHAPES, Reshape), (PERMUTES, Permute), (REARRANGES, Rearrange), (COPIES, None)]


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        pytest.param(function, kind, id=name)
        for functions, kind in KINDS
        for name, function in functions.items()
    ],
)
def test_entries_move_as_the_function_moves_them(function, kind):
    module, x = Applied(function), sample(3, 24)
    graph = read_graph(module, 24)
    assert torch.equal(graph(x), module(x))
    kinds = {type(node) for node in graph.nodes[1:]}
    if kind is None:
        assert kinds == {Reshape}  # those around it
    else:
        assert kind in kinds
    # What moves entries is linear, and its rows are those of a 0-1 matrix.
    for node in graph.nodes[1:]:
        assert node.is_affine
        size = graph.nodes[node.inputs[0]].size
        matrix = node.adjoint(torch.eye(node.size).double().view(-1, *node.shape))[0]
        assert set(matrix.unique().tolist()) <= {0.0, 1.0}
        assert matrix.reshape(node.size, size).sum(dim=1).max() == 1


def test_padding_adds_zeros():
    graph = read_graph(Applied(REARRANGES["pad"]), 24)
    (node,) = (node for node in graph.nodes if isinstance(node, Rearrange))
    assert node.index[0, 0].tolist() == [-1, 0, 1, 2, 3]
    assert node.index[0, 3].tolist() == [-1] * 5


MIXES = {
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1, dims=0),
    "roll all": lambda x: x.roll(1),
    "select": lambda x: x[:1].expand(len(x), -1, -1, -1),
    "drops": lambda x: x.reshape(-1),
    "transpose": lambda x: x.transpose(0, 1),
    "doubles": lambda x: x.repeat(2, 1, 1, 1),
}


@pytest.mark.parametrize("name", MIXES)
def test_what_mixes_samples_is_refused(name):
    n_rows = {"doubles": 2}.get(name, 1)
    module = Applied(lambda x: MIXES[name](x).reshape(n_rows * len(x), -1))
    with pytest.raises(UnsupportedModelError, match="mixes samples, or drops the batch axis"):
        read_graph(module, 24)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: functional.pad(x, (1, 1), value=0.5), r"fills with 0\.5, but only 0 is read"),
        (lambda x: x.to(torch.float16).double(), r"rounds to torch\.float16"),
        (lambda x: x.to(torch.int64).double(), r"rounds to torch\.int64"),
        (lambda x: functional.dropout(x, 0.5, training=True), "is active, in training mode"),
        (lambda x: x.view(torch.int64).double(), "mixes samples|rounds to"),
    ],
)
def test_what_changes_entries_is_refused(function, message):
    with pytest.raises(UnsupportedModelError, match=message):
        read_graph(Applied(function), 24)
