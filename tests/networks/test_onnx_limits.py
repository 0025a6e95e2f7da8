"""What an ONNX file may claim."""

import numpy as np
import pytest
import torch

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import load_onnx
from skrobust.networks._onnx_limits import SizeLimit
from tests.verification._files import write_network

onnx = pytest.importorskip("onnx")
EXTERNAL = onnx.TensorProto.EXTERNAL


@pytest.fixture
def changed(tmp_path):
    """Write a network whose model a function has changed; return its path."""

    def write(change):
        path = write_network(tmp_path, [2, 3, 2], (1, 2))
        model = onnx.load(path)
        change(model.graph)
        path.write_bytes(model.SerializeToString())
        return path

    return write


def moved(graph, **facts):
    """Say that the first weights lie in another file."""
    tensor = graph.initializer[1]
    tensor.data_location = EXTERNAL
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_weights_in_the_folder_are_read(changed, tmp_path):
    expected = load_onnx(changed(lambda graph: None))(torch.ones(1, 2))

    def move(graph):
        (tmp_path / "inner").mkdir()
        data = moved(graph, location="inner/weights", offset=4).raw_data
        (tmp_path / "inner" / "weights").write_bytes(b"----" + data)
        graph.initializer[1].ClearField("raw_data")

    torch.testing.assert_close(load_onnx(changed(move))(torch.ones(1, 2)), expected)


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"location": "../weights"}, "outside the folder"),
        ({"location": "/etc/hostname"}, "outside the folder"),
        ({"location": "link"}, "outside the folder"),
        ({}, "outside the folder"),
        ({"location": "missing"}, "'missing' is missing"),
        ({"location": "short"}, "'short' is shorter than is claimed"),
        ({"location": "short", "length": 10**12}, "does not fit its file"),
        ({"location": "short", "offset": -1}, "the place '-1'"),
        ({"location": "short", "offset": 2**62}, "the place"),
    ],
)
def test_weights_elsewhere_are_refused(changed, tmp_path, facts, fault):
    (tmp_path / "short").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("/etc/hostname")
    path = changed(lambda graph: moved(graph, **facts))
    with pytest.raises(ValueError, match=rf"Got path=.*network.onnx.*{fault}"):
        load_onnx(path)


@pytest.mark.parametrize("dims", [[2**40, 3], [2**20, 2**20], [-1, 3], [2, 4000]])
def test_claimed_shapes_are_held_against_the_bytes(changed, dims):
    def claim(graph):
        del graph.initializer[1].dims[:]
        graph.initializer[1].dims.extend(dims)

    with pytest.raises(ValueError, match=r"network.onnx.*has the shape"):
        load_onnx(changed(claim))


def test_large_inputs_are_refused(changed):
    def widen(graph):
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40

    with pytest.raises(UnsupportedModelError, match="a sample of 1 to 4194304 numbers"):
        load_onnx(changed(widen))


def test_operations_cannot_fill_the_memory(changed):
    def grow(graph):
        shape = onnx.numpy_helper.from_array(np.array([2**20, 2**10]), "shape")
        graph.initializer.append(shape)
        graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["shape"], ["grown"]))
        graph.node[-1].input[1] = "grown"

    with pytest.raises(UnsupportedModelError, match=r"larger tensors .*network.onnx"):
        load_onnx(changed(grow))


def test_the_limit_is_on_what_is_made():
    with SizeLimit(0):
        x = torch.ones(2**20)
        for _ in range(1000):
            x.reshape(2**10, 2**10).T  # noqa: B018 (views make nothing)
        with pytest.raises(RuntimeError, match="larger tensors"):
            for _ in range(1000):
                x = x + 1
        with pytest.raises(RuntimeError, match="larger tensors"):
            torch.full((2**20, 2**20), 0.0)
    with SizeLimit(2**30), pytest.raises(RuntimeError, match="size"):
        torch.ones(2) + torch.ones(3)


def test_circles_of_identities_end(changed):
    def circle(graph):
        graph.node.append(onnx.helper.make_node("Identity", ["a"], ["b"]))
        graph.node.append(onnx.helper.make_node("Identity", ["b"], ["a"]))
        graph.output[0].name = "a"

    with pytest.raises(UnsupportedModelError, match="does not depend on the input"):
        load_onnx(changed(circle))


def test_sparse_tensors_are_refused(changed):
    def add(graph):
        graph.sparse_initializer.add().values.name = "few"

    with pytest.raises(UnsupportedModelError, match="'few' is not read"):
        load_onnx(changed(add))
