"""What is done with torch modules: evaluation mode, compilation, plain layers."""

import numpy as np
import pytest
import torch

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import (
    Network,
    check_logits,
    check_precision,
    copied,
    dtype_and_device,
    evaluation_mode,
    outputs_of,
    uncompiled,
)
from skrobust.networks._modules import linear_layer
from tests.estimators._models import scripted

X = np.random.default_rng(0).random((5, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_modules_are_what_they_were():
    inner = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    whole = torch.nn.Sequential(inner, torch.nn.Linear(3, 2))
    assert Network(torch.compile(whole, backend="eager"), [0, 1]).module is whole
    partly = torch.nn.Sequential(torch.compile(inner, backend="eager"), whole[1])
    net = Network(partly, [0, 1])
    assert net.module[0] is inner and net.module[1] is whole[1]
    assert hasattr(partly[0], "_orig_mod")  # the given module is as it was
    assert torch.equal(net(net.rows(X)), whole(net.rows(X)))


def test_copies_share_nothing_and_are_of_the_original_of_a_compiled_module():
    inner = torch.nn.Linear(4, 3)
    for given in (inner, torch.compile(inner, backend="eager")):
        copy = copied(given)
        assert isinstance(copy, torch.nn.Linear) and copy.weight is not inner.weight
        assert torch.equal(copy.weight, inner.weight)
        assert uncompiled(given) is inner
    with pytest.raises(UnsupportedModelError, match=r"Got generator=.*, but expected a module th"):
        copied(scripted(inner), "generator")


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_comes_and_goes(training):
    module = torch.nn.Dropout().train(training)
    with evaluation_mode(module):
        assert not module.training
    assert module.training is training
    with pytest.raises(KeyError), evaluation_mode(module):
        raise KeyError
    assert module.training is training


def test_evaluation_mode_leaves_a_frozen_batch_norm_frozen():
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout()
    )
    module.train()
    module[1].eval()
    with evaluation_mode(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module] == [True, False, True] and module.training


def test_dtype_and_device_are_those_of_the_first_floats():
    module = torch.nn.Linear(2, 2).double()
    module.first = torch.nn.Parameter(torch.ones(1, dtype=torch.int64), requires_grad=False)
    assert dtype_and_device(module) == (torch.float64, torch.device("cpu"))
    assert dtype_and_device(torch.nn.ReLU()) == (torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_of_arrays(dtype):
    layer = linear_layer(np.array([[1.0, 2.0], [3.0, 4.0]], dtype=dtype), 0.5)
    assert not any(part.requires_grad for part in layer.parameters())
    x = torch.ones(1, 2, dtype=layer.weight.dtype)
    np.testing.assert_array_equal(layer(x).numpy(), np.array([[3.5, 7.5]], dtype=dtype))


def test_logits_are_checked_in_one_place():
    logits = torch.zeros(3, 2)
    assert check_logits(logits, 3) is logits and check_logits(logits, 3, 2) is logits
    message = "returns a list in training mode, but expected one tensor: logits of shape"
    with pytest.raises(UnsupportedModelError, match=message):
        check_logits([logits], 3, when="in training mode")
    for outputs, n_rows, n_classes, wanted in [
        (logits, 4, None, r"\(4, n_classes\)"),
        (logits, 3, 5, r"\(3, 5\)"),
        (logits[0], 2, None, r"\(2, n_classes\)"),
    ]:
        with pytest.raises(ValueError, match=f"but expected {wanted}: one logit for each class"):
            check_logits(outputs, n_rows, n_classes)


def test_a_module_that_fails_is_refused_with_its_own_message():
    message = r"rows of shape \(n, 2\) with input_shape=None, but expected .* cannot be multiplied"
    with pytest.raises(UnsupportedModelError, match=message):
        outputs_of(torch.nn.Linear(3, 2), torch.zeros(1, 2), "with input_shape=None")


def test_precisions():
    check_precision(torch.float32), check_precision(torch.float64)
    with pytest.raises(UnsupportedModelError, match=r"in float16, .*module\.float\(\)"):
        check_precision(torch.float16)
