"""Queries in files: boxes that are exact, properties that are the negation, round trips."""

import gzip
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.networks import Network
from skrobust.properties import ClassificationRobustness, LinearRobustness, StandardRobustness
from skrobust.verification import Bounds, Exact, export_query, read_instances, read_query
from tests.verification._files import BOX, write_network, write_query

pytest.importorskip("onnx")
CR, SR = ClassificationRobustness, StandardRobustness
IDENTITY = [(np.eye(2), np.zeros(2))]


@pytest.fixture
def identity(tmp_path):
    return write_network(tmp_path, IDENTITY, (1, 1, 1, 2))


def read(identity, folder, body):
    return read_query(identity, write_query(folder, body))


def test_the_property_is_the_strict_negation(identity, tmp_path):
    estimator, property, x = read(identity, tmp_path, BOX + "(assert (<= Y_0 (+ Y_1 0.5)))")
    assert isinstance(estimator, Network) and isinstance(property, LinearRobustness)
    np.testing.assert_allclose(x, [[0.3, 0.0]])
    np.testing.assert_array_equal(property.margin([[2.0, 1.0], [1.5, 1.0]]), [0.5, 0.0])
    # The constraint holds at equality, and then the property fails.
    np.testing.assert_array_equal(property.holds([[2.0, 1.0], [1.5, 1.0]]), [True, False])
    np.testing.assert_array_equal(estimator.predict(x), [0])
    assert estimator.decision_function(x).shape == (1, 2)


def test_conditions_become_clauses(identity, tmp_path):
    body = "(assert (or (and (<= Y_0 1) (<= Y_1 2)) (and (>= Y_0 5) (<= Y_1 2)) (>= Y_1 9)))"
    _, property, _ = read(identity, tmp_path, BOX + body)
    assert property.clauses == [[0, 1], [2, 1], [3]]
    logits = [[0.0, 0.0], [0.0, 3.0], [3.0, 0.0], [6.0, 0.0], [3.0, 10.0]]
    np.testing.assert_array_equal(property.holds(logits), [False, True, True, False, False])
    _, everywhere, x = read(identity, tmp_path, BOX)
    assert not everywhere.holds([[0.0, 0.0]]).any()
    assert Bounds().verify(Network(nn.Linear(2, 2), [0, 1], 2), x, property=everywhere)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_ball_is_the_box(dtype, identity, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(50):
        scale = 10.0 ** rng.integers(-6, 6)
        low = rng.normal(size=2) * scale
        high = low + rng.choice([0.0, 1e-12, 1e-6, 1.0], size=2) * scale * rng.random(2)
        body = "".join(
            f"(assert (and (>= X_{i} {a!r}) (<= X_{i} {b!r})))"
            for i, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True))
        )
        _, property, x = read(identity, tmp_path, body)
        property.check(x)
        rows = torch.as_tensor(x, dtype=dtype)
        outer, inner = property.outer_ball(rows), property.ball(rows)
        lower, upper = outer.lower[0].numpy(), outer.upper[0].numpy()
        if dtype == torch.float64:
            np.testing.assert_array_equal(lower, low)
            np.testing.assert_array_equal(upper, high)
        else:
            # What rounds to a float32 number of the box, and no more.
            assert (lower <= low).all() and (upper >= high).all()
            near = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32))
            assert (low - lower <= near).all() and (upper - high <= near).all()
        assert (inner.lower.double() >= outer.lower).all()
        assert (inner.upper.double() <= outer.upper).all()


def test_decimal_bounds_are_not_refused(identity, tmp_path):
    body = BOX.replace("0.2", "0.0466666666666666").replace("0.4", "0.1466666666666667")
    estimator, property, x = read(identity, tmp_path, body + "(assert (>= Y_0 0.2))")
    assert Exact().verify(estimator, x, property=property).verdicts.tolist() == ["verified"]


def test_a_network_of_one_output(tmp_path):
    network = write_network(tmp_path, [2, 6, 1], (1, 2))
    query = BOX + "(assert (>= Y_0 {}))"
    path = write_query(tmp_path, query.format(0.0), n_outputs=1)
    estimator, property, x = read_query(network, path)
    points = np.random.default_rng(0).uniform(*property.bounds, (4000, 2))
    highest = estimator.decision_function(points).max()
    for limit, verdict in ((highest + 0.05, "verified"), (highest - 0.01, "falsified")):
        path = write_query(tmp_path, query.format(limit), n_outputs=1)
        estimator, property, x = read_query(network, path)
        assert Exact().verify(estimator, x, property=property).verdicts.tolist() == [verdict]


def test_packed_files_are_the_same_query(identity, tmp_path):
    text = BOX + "(assert (<= Y_0 (+ Y_1 0.5)))"
    plain = read(identity, tmp_path, text)
    packed = []
    for path in (Path(identity), Path(write_query(tmp_path, text))):
        packed.append(tmp_path / f"{path.name}.gz")
        packed[-1].write_bytes(gzip.compress(path.read_bytes()))
    estimator, property, x = read_query(*packed)
    assert property == plain[1]
    np.testing.assert_array_equal(x, plain[2])
    np.testing.assert_array_equal(estimator.decision_function(x), plain[0].decision_function(x))


def test_strict_constraints_become_rows_that_hold_at_zero(identity, tmp_path):
    body = BOX + "(assert (< Y_0 Y_1))"
    _, property, _ = read(identity, tmp_path, body)
    assert property.strict is False
    np.testing.assert_array_equal(property.holds([[1.0, 1.0], [1.0, 1.5]]), [True, False])
    _, property, _ = read(identity, tmp_path, body + "(assert (<= Y_0 0))")
    assert property.strict == [False, True]
    logits = [[0.0, 0.0], [-1.0, -1.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 2.0]]
    np.testing.assert_array_equal(property.holds(logits), [True, True, False, False, True])
    # A tie at the only point: it satisfies <=, and not <.
    point = "(assert (= X_0 0.5))(assert (= X_1 0.5))(assert ({} Y_0 Y_1))"
    for sign, verdict in (("<", "verified"), ("<=", "falsified")):
        estimator, property, x = read(identity, tmp_path, point.format(sign))
        assert Exact().verify(estimator, x, property=property).verdicts.tolist() == [verdict]


def test_rows_are_brought_to_the_order_of_one_exactly(tmp_path):
    large = [(np.diag([2.0**20, 2.0**20]), np.array([0.0, 3e5]))]
    network = write_network(tmp_path, large, (1, 2))
    body = "(assert (or (<= Y_0 (* 3 Y_1)) (>= (* 1e-9 Y_0) 0.25) (<= (* 1e-40 Y_0) 1e-40)))"
    (instance,) = read_instances(network, write_query(tmp_path, BOX + body))
    A, b = instance.property.rows
    factor = A[0, 0]
    assert 2.0**-22 < factor < 2.0**-16 and np.log2(factor) % 1 == 0
    np.testing.assert_array_equal(A[0], [factor, -3 * factor])
    assert A[1, 0] == -1e-9 and b[1] == 0.25  # of the order of 1 as it is
    assert A[2, 0] > 1e-12 and A[2, 0] / -b[2] == 1.0
    rng = np.random.default_rng(0)
    for y in rng.normal(scale=3e8, size=(50, 2)):
        stated = instance.case.holds([Fraction(value) for value in y.tolist()])
        assert stated is not instance.property.holds(y[None])[0].item()


def test_witnesses_lie_within_strict_bounds(identity, tmp_path):
    body = BOX + "(assert (< X_0 0.3))(assert (> X_1 0.5))(assert (>= Y_0 0.299))"
    (instance,) = read_instances(identity, write_query(tmp_path, body))
    inputs, outputs = instance.witness([0.3, 0.5])
    assert 0.2999 < inputs[0] < 0.3 and 0.5 < inputs[1] < 0.5001
    assert outputs[0] == np.float32(0.3)
    assert instance.witness([0.31, 0.5]) is None


def test_several_boxes_are_several_properties(identity, tmp_path):
    body = """(assert (or
      (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (>= Y_0 2))
      (and (>= X_0 2) (<= X_0 3) (>= X_1 0) (<= X_1 2) (>= Y_0 2.5))))"""
    estimator, properties, x = read(identity, tmp_path, body)
    assert len(properties) == len(x) == 2
    np.testing.assert_array_equal(x, [[0.5, 0.5], [2.5, 1.0]])
    verdicts = [
        Exact().verify(estimator, row[None], property=property).verdicts[0]
        for property, row in zip(properties, x, strict=True)
    ]
    assert verdicts == ["verified", "falsified"]


def test_witnesses_are_in_the_box_and_exact(identity, tmp_path):
    body = BOX.replace("0.2", "0.1").replace("0.4", "0.1") + "(assert (<= Y_0 0.1))"
    (instance,) = read_instances(identity, write_query(tmp_path, body))
    # In float32, 0.1 is above 0.1: the box holds the input, and the output is above the limit.
    assert instance.witness([0.1, 0.0]) is None
    body = body.replace("(<= Y_0 0.1)", "(>= Y_0 0.1)")
    (instance,) = read_instances(identity, write_query(tmp_path, body))
    inputs, outputs = instance.witness([0.1, 0.0])
    assert inputs.tolist() == [0.1, 0.0] and outputs[0] == np.float32(0.1)
    assert instance.witness([0.2, 0.0]) is None


PROPERTIES = [
    CR(0.08),
    CR(0.2, bounds=None),
    SR(0.1, delta=0.3),
    CR(0.2) | SR(0.2, delta=0.6),
    (CR(0.1) | SR(0.1, delta=0.3)) & SR(0.1, delta=0.8),
]


@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
def test_round_trip(property, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3)).requires_grad_(False)
        X = torch.rand(6, 3).numpy()
    net = Network(module, np.arange(3), 3)
    y = net.predict(X)
    verdicts = Exact().verify(net, X, y, property=property).verdicts.tolist()
    again = []
    for row, label in zip(X, y, strict=True):
        files = export_query(net, property, row, int(label), tmp_path)
        estimator, read_back, x = read_query(*files)
        again += Exact().verify(estimator, x, property=read_back).verdicts.tolist()
    assert again == verdicts
    assert "verified" in verdicts


def test_what_does_not_fit_is_named(identity, tmp_path):
    wide = write_query(tmp_path, BOX + "(assert (and (>= X_2 0) (<= X_2 1)))", n_inputs=3)
    with pytest.raises(ValueError, match=r"query.vnnlib, which declares 3 inputs .* has 2"):
        read_query(identity, wide)
    with pytest.raises(ValueError, match=r"declares 3 outputs Y_0, ..., but the network .* has 2"):
        read_query(identity, write_query(tmp_path, BOX, n_outputs=3))
    for body in (BOX + "(assert (<= Y_0 1e200))", BOX.replace("-1", "-1e200")):
        with pytest.raises(ValueError, match=r"query.vnnlib with the number 1e\+200"):
            read(identity, tmp_path, body)
    with pytest.raises(ValueError, match="Got path"):
        read_query(tmp_path / "missing.onnx", write_query(tmp_path, BOX))


def test_probabilities_are_compared_or_refused(tmp_path):
    network = write_network(tmp_path, IDENTITY, (1, 2), last="Softmax")
    _, property, _ = read_query(network, write_query(tmp_path, BOX + "(assert (<= Y_0 Y_1))"))
    assert property.margin([[3.0, 1.0]]).item() == 2.0
    (instance,) = read_instances(network, write_query(tmp_path, BOX + "(assert (<= Y_0 Y_1))"))
    _, outputs = instance.witness([0.2, 0.2])
    np.testing.assert_allclose(outputs, [0.5, 0.5])
    for body in ("(assert (<= Y_0 0.3))", "(assert (<= (+ Y_0 Y_0) Y_1))"):
        with pytest.raises(UnsupportedPropertyError, match="ends in Softmax"):
            read_query(network, write_query(tmp_path, BOX + body))
    logarithms = write_network(tmp_path, IDENTITY, (1, 2), last="LogSoftmax")
    _, property, _ = read_query(
        logarithms, write_query(tmp_path, BOX + "(assert (<= Y_0 (+ Y_1 1)))")
    )
    assert property.margin([[3.0, 1.0]]).item() == 1.0


def test_a_sigmoid_at_the_end_is_compared_with_numbers(tmp_path):
    network = write_network(tmp_path, [2, 6, 1], (1, 2), last="Sigmoid")
    query = BOX + "(assert (>= Y_0 {!r}))"
    for limit, verdict in ((0.999, "verified"), (0.01, "falsified")):
        path = write_query(tmp_path, query.format(limit), n_outputs=1)
        (instance,) = read_instances(network, path)
        result = Exact().verify(instance.estimator, instance.x, property=instance.property)
        assert result.verdicts.tolist() == [verdict]
    _, outputs = instance.witness(result.counterexamples[0])
    assert 0.01 <= outputs[0] < 1
    several = write_network(tmp_path, IDENTITY, (1, 2), last="Sigmoid")
    estimator, property, x = read(several, tmp_path, BOX + "(assert (>= Y_0 0.6))")
    assert Exact().verify(estimator, x, property=property).verdicts.tolist() == ["verified"]
