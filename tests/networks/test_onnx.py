"""ONNX files as torch modules: the same outputs as onnxruntime, and piecewise linear."""

import pickle
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import read_graph
from skrobust.networks import Network
from skrobust.networks._onnx import load_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
helper = onnx.helper


class Builder:
    """An ONNX graph, node by node."""

    def __init__(self, shape, opset=17):
        self.shape, self.opset, self.seed = shape, opset, np.random.default_rng(0)
        self.nodes, self.constants, self.last = [], [], "x"

    def constant(self, value, dtype=np.float32):
        name = f"c{len(self.constants)}"
        value = np.asarray(value, dtype=dtype)
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name

    def random(self, *shape, shift=0.0):
        return self.constant(self.seed.normal(size=shape) + shift)

    def add(self, kind, *inputs, n_outputs=1, **attributes):
        """Append a node; its first input is the last output unless given as a "name"."""
        number = len(self.nodes)
        outputs = [f"v{number}_{i}" for i in range(n_outputs)]
        self.nodes.append(
            helper.make_node(kind, list(inputs), outputs, name=f"n{number}", **attributes)
        )
        self.last = outputs[0]
        return self.last if n_outputs == 1 else outputs

    def then(self, kind, *inputs, **attributes):
        return self.add(kind, self.last, *inputs, **attributes)

    def model(self, outputs=None):
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, self.shape)],
            [
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                for name in outputs or [self.last]
            ],
            self.constants,
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)

    def save(self, path, **options):
        onnx.save(self.model(**options), path)
        return path


def run(path, x):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def assert_same_outputs(path, shape, batch=5, probabilities=False, one_axis=False):
    """The module equals onnxruntime to 1e-5, and its piecewise linear graph equals both."""
    module = load_onnx(path)
    assert module.input_shape == tuple(shape)
    x = np.random.default_rng(1).normal(size=(batch, *shape)).astype(np.float32)
    # Where the file fixes a batch of one, onnxruntime takes one sample at a time.
    samples = x if one_axis else x[:, None]
    expected = np.stack([run(path, sample) for sample in samples]).reshape(batch, -1)
    with torch.no_grad():
        logits = module(torch.tensor(x))
    found = torch.softmax(logits, dim=1) if probabilities else logits
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
    rows = torch.tensor(x).flatten(1)
    torch.testing.assert_close(module(rows), logits)
    graph = read_graph(module, rows.shape[1])
    np.testing.assert_allclose(graph(rows).numpy(), logits.numpy(), rtol=1e-4, atol=1e-5)
    assert module.n_outputs == logits.shape[1]
    return module


def acas_xu(b):
    # The competition's ACAS Xu: normalization, Flatten, then MatMul and Add.
    b.then("Sub", b.random(1, 1, 1, 5))
    b.then("Flatten", axis=1)
    for n_in, n_out in ((5, 8), (8, 8)):
        b.then("MatMul", b.random(n_in, n_out))
        b.then("Add", b.random(n_out))
        b.then("Relu")
    b.then("MatMul", b.random(8, 5))
    b.then("Add", b.random(5))


def mnist_fc(b):
    # Columns, and weights on the left.
    b.then("Unsqueeze", b.constant([2], np.int64))
    b.then("Reshape", b.constant([1, 12, 1], np.int64))
    b.add("MatMul", b.random(6, 12), b.last)
    b.then("Add", b.random(6, 1))
    b.then("Relu")
    b.then("Squeeze", b.constant([2], np.int64))
    b.then("Gemm", b.random(4, 6), b.random(4), transB=1, alpha=0.5, beta=2.0)


def without_batch(b):
    # As some tools write perceptrons by hand: vectors, and weights on the left.
    b.add("MatMul", b.random(6, 4), "x")
    b.then("Add", b.random(6))
    b.then("Relu")
    b.add("MatMul", b.random(3, 6), b.last)


def stacked_weights(b):
    b.then("MatMul", b.random(1, 1, 4, 3))
    b.then("Add", b.random(1, 1, 1, 3))
    b.then("Flatten")


def keras_convolution(b):
    # tf2onnx: channels last outside, SAME padding written as auto_pad, Reshape at the end.
    b.then("Transpose", perm=[0, 3, 1, 2])
    b.then("Conv", b.random(4, 2, 3, 3), b.random(4), auto_pad="SAME_UPPER", strides=[2, 2])
    b.then("Relu")
    b.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1])
    b.then("Transpose", perm=[0, 2, 3, 1])
    b.then("Reshape", b.constant([-1, 16], np.int64))
    b.then("MatMul", b.random(16, 3))
    b.then("Add", b.random(3))
    b.then("Softmax", axis=-1)


def torch_convolution(b):
    # Exported by tracing: the batch size is read off by Shape and Gather.
    b.then("Sub", b.constant([[[0.5]], [[0.2]]]))
    b.then("Div", b.constant(np.array([0.3, 0.4]).reshape(2, 1, 1)))
    b.then("Conv", b.random(4, 1, 3, 3), group=2, pads=[1, 1, 1, 1], dilations=[1, 1])
    b.then(
        "BatchNormalization",
        *(b.random(4), b.random(4), b.random(4), b.constant([0.5, 1, 2, 3])),
        epsilon=1e-3,
    )
    first = b.then("LeakyRelu", alpha=0.2)
    b.then("Conv", b.random(4, 4, 1, 1), b.random(4))
    b.then("Add", first)
    whole = b.then("Clip", b.constant(-2.0), b.constant(3.0))
    left = b.add("Slice", whole, *(b.constant([v], np.int64) for v in (0, 2, 1)))
    right = b.add("Slice", whole, *(b.constant([v], np.int64) for v in (2, 2**62, 1)))
    right = b.add("PRelu", right, b.random(2, 1, 1))
    b.add("Concat", right, left, axis=1)
    pooled = b.then("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    size = b.add("Shape", pooled)
    size = b.add("Gather", size, b.constant(0, np.int64))
    size = b.add("Unsqueeze", size, b.constant([0], np.int64))
    size = b.add("Concat", size, b.constant([-1], np.int64), axis=0)
    b.add("Reshape", pooled, size)
    b.then("Dropout")
    b.then("Gemm", b.random(36, 3), b.random(1, 3))
    b.then("Identity")


def pools(b):
    x = b.then("Conv", b.random(3, 1, 2, 2), pads=[0, 0, 1, 1])
    parts = [
        b.add("AveragePool", x, kernel_shape=[2, 2], pads=[0, 1, 1, 0]),
        b.add("AveragePool", x, kernel_shape=[2, 2], pads=[0, 1, 1, 0], count_include_pad=1),
        b.add("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[2, 0, 1, 1]),
        b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    ]
    flat = [b.add("Flatten", b.add("GlobalAveragePool", part)) for part in parts]
    flat.append(b.add("Flatten", b.add("GlobalMaxPool", x)))
    flat.append(b.add("Flatten", parts[2]))
    flat.append(b.add("ReduceMean", x, axes=[2, 3], keepdims=0))
    b.add("Concat", *flat, axis=1)


def arithmetic(b):
    scaled = b.add("Mul", b.constant(2.0), "x")
    b.add("Sub", b.constant([[1.0, 2.0, 3.0, 4.0]]), scaled)
    b.then("Max", b.constant(-0.5))
    b.then("Min", b.constant(0.7))
    head, tail = b.then("Split", axis=1, n_outputs=2)
    b.add("Sum", head, tail, b.add("Abs", tail))
    b.then("Neg")
    b.then("Pad", b.constant([0, 1, 0, 0], np.int64))
    folded = b.add("Mul", b.constant([[1.0, 2.0, 3.0]]), b.constant(3.0))
    b.add("Add", "v8_0", folded)
    b.then("Gather", b.constant([2, 0, -2], np.int64), axis=1)
    constant = b.add("Constant", value_floats=[1.0, 2.0, 3.0])
    b.add("Mul", "v10_0", constant)


NETWORKS = {
    "acas-xu": (acas_xu, (1, 1, 1, 5)),
    "weights on the left": (mnist_fc, (1, 12)),
    "without batch": (without_batch, (4,)),
    "stacked weights": (stacked_weights, (1, 1, 2, 4)),
    "keras": (keras_convolution, (1, 7, 7, 2)),
    "traced": (torch_convolution, ("n", 2, 6, 5)),
    "pools": (pools, ("n", 1, 6, 5)),
    "arithmetic": (arithmetic, ("n", 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_same_outputs_as_onnxruntime(name, tmp_path):
    build, shape = NETWORKS[name]
    builder = Builder(shape)
    build(builder)
    path = builder.save(tmp_path / "network.onnx")
    if len(shape) == 1:
        assert_same_outputs(path, shape, one_axis=True)
    else:
        assert_same_outputs(path, shape[1:], probabilities=name == "keras")


def test_older_operator_sets_have_attributes(tmp_path):
    b = Builder((1, 1, 4), opset=9)
    b.then("Squeeze", axes=[1])
    b.then("Clip", min=-0.5, max=0.5)
    b.then("Unsqueeze", axes=[2])
    b.then("Slice", axes=[1], starts=[1], ends=[4])
    b.then("Flatten")
    b.then("Softmax")
    module = assert_same_outputs(b.save(tmp_path / "n.onnx"), (1, 4), probabilities=True)
    assert module.dropped == "Softmax"


def two_layers(last=None, n_outputs=3, shape=("n", 4), **attributes):
    b = Builder(shape)
    b.then("Gemm", b.random(4, 5), b.random(5))
    b.then("Relu")
    b.then("Gemm", b.random(5, n_outputs), b.random(n_outputs))
    if last:
        b.then(last, **attributes)
    return b


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax"])
def test_probabilities_become_logits(last, tmp_path):
    module = load_onnx(two_layers(last, axis=1).save(tmp_path / "p.onnx"))
    plain = load_onnx(two_layers().save(tmp_path / "z.onnx"))
    x = torch.rand(4, 4)
    assert (module.dropped, plain.dropped) == (last, None)
    torch.testing.assert_close(module(x), plain(x), rtol=0, atol=0)


def test_one_probability_becomes_two_logits(tmp_path):
    path = two_layers("Sigmoid", n_outputs=1).save(tmp_path / "p.onnx")
    module = load_onnx(path)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found = torch.softmax(module(torch.tensor(x)), dim=1)[:, 1]
    np.testing.assert_allclose(found.numpy(), run(path, x)[:, 0], atol=1e-6)
    assert (module.dropped, module.n_outputs) == ("Sigmoid", 2)
    assert read_graph(module, 4).n_classes == 2


def test_smooth_operations_are_read(tmp_path):
    b = two_layers("Tanh")
    b.then("Elu", alpha=0.5)
    b.then("Mul", b.random(1, 3))
    path = b.save(tmp_path / "n.onnx")
    module = load_onnx(path)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_allclose(module(torch.tensor(x)).numpy(), run(path, x), atol=1e-5)
    graph = read_graph(module, 4)
    assert [type(node).__name__ for node in graph.nodes[-3:]] == ["Tanh", "Elu", "Scale"]
    np.testing.assert_allclose(graph(torch.tensor(x)).numpy(), run(path, x), atol=1e-5)


def test_modules_are_pickled_moved_and_told_apart(tmp_path):
    module = load_onnx(two_layers().save(tmp_path / "a.onnx"))
    b = two_layers()
    b.nodes[1] = helper.make_node(
        "LeakyRelu", b.nodes[1].input, b.nodes[1].output, "n1", alpha=0.3
    )
    leaky = load_onnx(b.save(tmp_path / "b.onnx"))
    x = torch.rand(2, 4)
    torch.testing.assert_close(pickle.loads(pickle.dumps(module))(x), module(x))
    assert module.double()(x.double()).dtype == torch.float64
    hashes = {joblib.hash(Network(m, range(3)).fingerprint()) for m in (module, leaky)}
    assert len(hashes) == 2


def test_shape_of_a_sample_may_be_given(tmp_path):
    path = two_layers(shape=None).save(tmp_path / "n.onnx")
    with pytest.raises(ValueError, match="leaves the shape of a sample open"):
        load_onnx(path)
    assert load_onnx(path, input_shape=4).input_shape == (4,)
    path = two_layers(shape=("n", 4)).save(tmp_path / "n.onnx")
    assert load_onnx(path, input_shape=(4,)).input_shape == (4,)
    with pytest.raises(ValueError, match=r"Got input_shape=\(5,\), but expected \(4,\)"):
        load_onnx(path, input_shape=5)


# ---- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "message"),
    [
        ("Sin", (), {}, "Operation Sin of node 'n1' is not read"),
        ("Einsum", (), {"equation": "ij->ij"}, "Operation Einsum of node 'n1' is not read"),
        ("Transpose", (), {}, "Transpose of node 'n1' moves the axis of the samples"),
        ("ReduceSum", (), {"keepdims": 0}, "ReduceSum of node 'n1' joins samples"),
        ("Flatten", (), {"axis": 0}, "Flatten of node 'n1' mixes samples"),
        ("Max", ("x",), {}, "Max of node 'n1' is read only with one activation"),
    ],
)
def test_refusals_name_operation_and_node(kind, inputs, attributes, message, tmp_path):
    b = Builder(("n", 4), opset=13)
    b.then("Relu")
    b.then(kind, *inputs, **attributes)
    with pytest.raises(UnsupportedModelError, match=message):
        load_onnx(b.save(tmp_path / "n.onnx"))


@pytest.mark.parametrize(
    ("kind", "index", "message"),
    [
        ("Reshape", [-1], "mixes samples"),
        ("Squeeze", [0], "drops the axis of the samples"),
        ("Unsqueeze", [0], "adds an axis before"),
        ("Gather", [0], "selects samples"),
    ],
)
def test_the_axis_of_samples_stays(kind, index, message, tmp_path):
    b = Builder((1, 4), opset=13)
    b.then(kind, b.constant(index, np.int64))
    with pytest.raises(UnsupportedModelError, match=message):
        load_onnx(b.save(tmp_path / "n.onnx"))


def test_samples_that_are_compared_are_refused(tmp_path):
    # No axis is lost: only the values show that samples are mixed.
    b = Builder(("n", 3))
    b.then("Softmax", axis=0)
    b.then("Relu")
    with pytest.raises(UnsupportedModelError, match="mixes the samples of a batch"):
        load_onnx(b.save(tmp_path / "n.onnx"))


def test_several_labels_a_sample_are_refused(tmp_path):
    path = two_layers("Sigmoid").save(tmp_path / "n.onnx")
    with pytest.raises(UnsupportedModelError, match="Sigmoid of 3 outputs"):
        load_onnx(path)


def test_several_outputs_are_refused(tmp_path):
    path = two_layers().save(tmp_path / "n.onnx", outputs=["v2_0", "v1_0"])
    with pytest.raises(UnsupportedModelError, match=r"outputs \['v2_0', 'v1_0'\], but expected"):
        load_onnx(path)


def test_constant_outputs_are_refused(tmp_path):
    b = Builder(("n", 4))
    b.add("Relu", b.constant([[1.0]]))
    with pytest.raises(UnsupportedModelError, match="does not depend on the input"):
        load_onnx(b.save(tmp_path / "n.onnx"))


def test_wrong_shapes_are_refused(tmp_path):
    b = Builder(("n", 4))
    b.then("MatMul", b.random(5, 2))
    with pytest.raises(UnsupportedModelError, match=r"cannot be run on samples of shape \(4,\)"):
        load_onnx(b.save(tmp_path / "n.onnx"))


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.onnx'.*the path of an ONNX file"):
        load_onnx(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no protobuf \xff")
    with pytest.raises(ValueError, match=r"text\.onnx'.*expected an ONNX file"):
        load_onnx(tmp_path / "text.onnx")


def test_without_onnx(monkeypatch, tmp_path):
    path = two_layers().save(tmp_path / "n.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'skrobust\[onnx\]'"):
        load_onnx(path)


# ---- torch's own exporters ---------------------------------------------------------------


class Residual(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(2, 3, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(3)
        self.second = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.last = torch.nn.Linear(27, 4)

    def forward(self, x):
        hidden = torch.relu(self.norm(self.first((x - 0.5) / 0.2)))
        hidden = hidden + self.second(hidden)
        hidden = torch.nn.functional.max_pool2d(hidden, 2)
        return self.last(hidden.view(hidden.size(0), -1))


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "dynamo"])
def test_torch_exporters(dynamo, tmp_path):
    if dynamo:
        pytest.importorskip("onnxscript")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Residual().eval()
    path, x = tmp_path / "n.onnx", torch.rand(2, 2, 6, 6)
    axes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {}
    axes = axes or {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated
        torch.onnx.export(module, (x,), path, dynamo=dynamo, verbose=False, **axes)
    read = assert_same_outputs(path, (2, 6, 6))
    with torch.no_grad():
        torch.testing.assert_close(read(x), module(x), rtol=1e-4, atol=1e-5)


def test_a_classifier_from_a_file(tmp_path):
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.base import clone

    from skrobust import TorchClassifier

    weight = np.array([[1.0, -1.0], [0.5, 2.0]], dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    classifier = TorchClassifier.from_onnx(path, classes=["a", "b"], bounds=(0, 1))
    X = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert classifier.predict(X).tolist() == ["a", "b"]
    np.testing.assert_allclose(classifier.decision_function(X), [-2.0, 1.5])
    assert clone(classifier).predict(X).tolist() == ["a", "b"]
    assert TorchClassifier.from_onnx(path).predict(X).tolist() == [0, 1]
    with pytest.raises(ValueError, match="1 of 1 rows of X lie outside"):
        classifier.predict([[2.0, 0.0]])
