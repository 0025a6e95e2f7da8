"""Exported queries, read back: the network by onnxruntime, the property by a small parser."""

import re
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import Network
from skrobust.networks._onnx import load_onnx
from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import export_query

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


class Everything(nn.Module):
    """Every node that a piecewise linear graph can have."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=(1, 2), padding=1, groups=1)
        self.norm = nn.BatchNorm2d(4)
        self.prelu = nn.PReLU(4)
        self.last = nn.Linear(113, 3)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x):
        x = (x.view(-1, 1, 6, 8) - 0.5) / 0.3
        x = self.prelu(self.norm(self.first(x)))
        x = x + functional.leaky_relu(x, 0.1) - x.abs() + 2 * x.clamp(-1, 1)
        parts = [
            functional.max_pool2d(x, 2),
            functional.max_pool2d(x, 3, stride=2, padding=1),
            functional.max_pool2d(x, (3, 1), stride=(2, 1), ceil_mode=True),
            functional.max_pool2d(x, 2, dilation=2),
            functional.avg_pool2d(x, 3, padding=1, count_include_pad=False),
            functional.avg_pool2d(x, kernel_size=2, stride=2, ceil_mode=True),
            functional.adaptive_avg_pool2d(x, 1),
            x.permute(0, 2, 3, 1)[:, :2, :1],
            functional.pad(x[:, :1, :2, :2], (1, 0, 0, 1)),
        ]
        x = torch.cat([part.flatten(1) for part in parts], dim=1)
        x = torch.cat([x.relu(), torch.ones_like(x[:, :2])], dim=1)
        x = x.unsqueeze(1) @ torch.ones(x.shape[1], 113) / 50
        return self.last(x.flatten(1)).clamp(min=-100)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def perceptron(n_in=4, n_out=3):
    return seeded(lambda: nn.Sequential(nn.Linear(n_in, 6), nn.ReLU(), nn.Linear(6, n_out)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_onnx_is_the_network(dtype, tmp_path):
    module = seeded(Everything).to(dtype)
    if dtype == torch.float64:
        module = perceptron(48).double()
    x = torch.rand(48, dtype=dtype)
    path, _ = export_query(module, ClassificationRobustness(), x, 0, tmp_path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    points = torch.rand(6, 48, dtype=dtype)
    read = np.concatenate([session.run(None, {"X": row[None].numpy()})[0] for row in points])
    with torch.no_grad():
        np.testing.assert_allclose(read, module(points).numpy(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(load_onnx(path)(points), module(points), rtol=1e-4, atol=1e-4)


def test_pools_are_written_as_pools(tmp_path):
    import onnx

    pool = nn.Sequential(nn.Unflatten(1, (1, 7, 7)), nn.MaxPool2d(3, 2, 1), nn.Flatten())
    path, _ = export_query(pool, ClassificationRobustness(), torch.rand(49), 0, tmp_path)
    (node,) = [n for n in onnx.load(path).graph.node if n.op_type == "MaxPool"]
    sizes = {a.name: list(a.ints) for a in node.attribute}
    assert sizes.pop("dilations") == [1, 1]
    assert sizes == {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}


# ---- the property ------------------------------------------------------------------------


def parse(text):
    """Read VNNLIB as nested lists of words, without comments."""
    words = re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text))
    stack = [[]]
    for word in words:
        if word == "(":
            stack.append([])
        elif word == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word)
    (commands,) = stack
    return commands


def evaluate(term, names):
    """Return the value of a term where variables have the given values."""
    if isinstance(term, str):
        return names[term] if term in names else float(term)
    kind, *parts = term
    values = [evaluate(part, names) for part in parts]
    functions = {"+": sum, "*": np.prod, "and": all, "or": any}
    functions |= {"<=": lambda v: v[0] <= v[1], ">=": lambda v: v[0] >= v[1]}
    return functions[kind](values)


def is_counterexample(commands, x, z):
    """Whether a point and its outputs satisfy all assertions."""
    names = {f"X_{i}": v for i, v in enumerate(x)} | {f"Y_{j}": v for j, v in enumerate(z)}
    declared = {c[1] for c in commands if c[0] == "declare-const"}
    assert declared == set(names)
    return all(evaluate(c[1], names) for c in commands if c[0] == "assert")


def custom(strict):
    A = [[1.0, -1.0, 0.0], [0.25, 0.5, -2.0], [0.0, -1.0, 0.0], [0.0, 0.0, 3.0], [1.0, -1.0, 0.0]]
    return LinearRobustness((A, [0.0, 0.3, 1.0, 0.2, 0.125]), 0.1, strict=strict)


PROPERTIES = {
    "classification": ClassificationRobustness(0.1),
    "prediction": ClassificationRobustness([0.1, 0.0, 0.2, 1e-7], reference="prediction"),
    "standard": StandardRobustness(0.1, delta=0.5),
    "strong": StrongClassificationRobustness(0.1, eta=0.4, bounds=None),
    "custom": custom(False),
    "strict": custom(True),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_vnnlib_agrees_with_the_property(name, tmp_path):
    property, module = PROPERTIES[name], perceptron()
    network = Network(module, range(3), 4)
    x = torch.tensor([[0.05, 0.5, 0.95, 0.3]])
    _, path = export_query(network, property, x[0], 1, tmp_path)
    commands = parse(path.read_text())
    with torch.no_grad():
        reference = module.double()(x.double())
    labels = property.reference_labels(reference, torch.tensor([1]))
    conclusion = property.conclusion(reference, labels).sufficient()
    ball = property.ball(x.double())
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        point = ball.lower + (ball.upper - ball.lower) * torch.as_tensor(rng.random((1, 4)))
        # Outputs need not be those of the point: the assertions only speak of numbers.
        z = reference + torch.as_tensor(rng.normal(scale=0.3, size=(1, 3)))
        values = conclusion.values(z)
        fails = bool((values <= 0).any())
        assert is_counterexample(commands, point[0].tolist(), z[0].tolist()) == fails
        seen.add(fails)
        outside = point + 0.3 * torch.eye(4, dtype=torch.float64)[rng.integers(4)]
        assert not is_counterexample(commands, outside[0].tolist(), z[0].tolist())
    assert seen == {True, False}


def test_ties_satisfy_the_query(tmp_path):
    _, path = export_query(perceptron(), PROPERTIES["classification"], [0.5] * 4, 0, tmp_path)
    commands = parse(path.read_text())
    assert is_counterexample(commands, [0.5] * 4, [1.0, 1.0, 0.0])
    assert not is_counterexample(commands, [0.5] * 4, [1.0, 0.9999, 0.0])


def test_the_text_of_a_query(tmp_path):
    network = perceptron(2)
    _, path = export_query(network, ClassificationRobustness(0.25), [0.125, 0.5], 2, tmp_path)
    first = path.read_text().splitlines()
    assert first[0] == "; ClassificationRobustness(epsilon=0.25)"
    assert "(assert (>= X_0 0.0))" in first
    low = next(line for line in first if line.startswith("(assert (>= X_1"))
    # The box is rounded outwards, and has no exponent.
    assert 0.2499999 < float(low.split()[-1].rstrip(")")) <= 0.25
    assert first[-4:] == ["(assert (or", "  (and (>= Y_0 Y_2))", "  (and (>= Y_1 Y_2))", "))"]


def test_small_numbers_have_no_exponent(tmp_path):
    _, path = export_query(perceptron(), ClassificationRobustness(1e-9), [0.0] * 4, 0, tmp_path)
    numbers = re.findall(r"X_\d (\S+?)\)\)", path.read_text())
    assert len(numbers) == 8
    assert all(re.fullmatch(r"-?\d+\.\d+", number) for number in numbers)
    assert 1e-9 <= max(map(float, numbers)) < 1.001e-9


def test_the_folder_is_made(tmp_path):
    folder = tmp_path / "a" / "b"
    paths = export_query(perceptron(), ClassificationRobustness(), [0.5] * 4, 0, folder)
    assert [p.name for p in paths] == ["network.onnx", "query.vnnlib"]
    assert all(p.parent == folder and p.is_file() for p in paths)


@pytest.mark.parametrize(
    ("property", "message"),
    [
        (ClassificationRobustness(norm="l2"), "Got norm='l2'"),
        (LipschitzRobustness(), "Got a LipschitzRobustness, whose rows depend on the distance"),
        (StandardRobustness(output="probabilities"), "linear in"),
    ],
)
def test_unsupported_properties(property, message, tmp_path):
    with pytest.raises(UnsupportedPropertyError, match=message):
        export_query(perceptron(), property, [0.5] * 4, 0, tmp_path)


def test_bad_input(tmp_path):
    with pytest.raises(UnsupportedModelError, match="'mish' in layer"):
        mish = nn.Sequential(nn.Linear(4, 2), nn.Mish())
        export_query(mish, ClassificationRobustness(), [0.5] * 4, 0, tmp_path)
    with pytest.raises(ValueError, match="1 of 1 rows of X lie outside"):
        export_query(perceptron(), ClassificationRobustness(), [2.0] * 4, 0, tmp_path)
    with pytest.raises(ValueError, match="Got label=None, but expected a class index"):
        export_query(perceptron(), ClassificationRobustness(), [0.5] * 4, None, tmp_path)
    with pytest.raises(TypeError, match="Got property=3"):
        export_query(perceptron(), 3, [0.5] * 4, 0, tmp_path)


def test_without_onnx(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'skrobust\[onnx\]'"):
        export_query(perceptron(), ClassificationRobustness(), [0.5] * 4, 0, tmp_path)


def test_rows_of_any_kind_are_taken(tmp_path):
    layer = torch.nn.Linear(2, 2)
    for x in (np.array([0.2, 0.4])[::-1], torch.tensor([0.4, 0.2], requires_grad=True)):
        _, query = export_query(layer, ClassificationRobustness(0.1), x, 0, tmp_path)
        assert "(assert (<= X_0 0.5" in query.read_text()
