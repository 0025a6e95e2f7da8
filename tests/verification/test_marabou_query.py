"""What Marabou is told: expressions are the nodes, variables have a width, points map back."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.bounds import bound_rows, relax
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness, LinearRows
from skrobust.verification._marabou_query import MARGIN, MarabouProgram
from skrobust.verification._program import AffineMaps
from tests.verification._nets import KINDS, box


def filled_in(program, known):
    """Return the values of all variables, for those of the inputs."""
    relus = dict(program.relus)
    for variables, weights, constant in program.equations:
        value = constant - sum(
            w * known[v] for v, w in zip(variables[:-1], weights[:-1], strict=True)
        )
        known[variables[-1]] = value
        if variables[-1] in relus:
            known[relus[variables[-1]]] = max(value, 0.0)
    return np.array([known[k] for k in range(program.n_columns)])


@pytest.mark.parametrize("name", KINDS)
def test_expressions_are_the_nodes(name):
    # Any point gives values of all variables; the equations must hold there.
    graph, relaxation = box(activation=KINDS[name], epsilon=1.0)
    program = MarabouProgram(AffineMaps(graph), relaxation)
    generator = np.random.default_rng(0)
    low, high = (np.concatenate(side) for side in (program.lows, program.highs))
    for _ in range(20):
        known = dict(enumerate(generator.uniform(-1, 1, program.n_inputs)))
        point = program.point([known[k] for k in range(program.n_inputs)])
        values = filled_in(program, known)
        matrix, shift = program.expression(program.last)
        np.testing.assert_allclose(matrix @ values + shift, graph(point[None])[0], atol=1e-9)
        # The bounds that Marabou is told hold for what points of the box make of the variables.
        assert (low - 1e-9 <= values).all() and (values <= high + 1e-9).all()
    assert program.relus


def test_pools_become_relus_of_differences():
    module = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(3, 1), nn.Flatten()).double()
    graph, x = read_graph(module, 4), torch.tensor([[0.2, 0.5, 0.4, 0.9]]).double()
    relaxation = relax(graph, ClassificationRobustness(0.3, bounds=None).outer_ball(x))
    program = MarabouProgram(AffineMaps(graph), relaxation)
    for seed in range(10):
        inputs = np.random.default_rng(seed).uniform(-1, 1, 4)
        values = filled_in(program, dict(enumerate(inputs)))
        matrix, shift = program.expression(program.last)
        expected = graph(program.point(inputs)[None])[0]
        np.testing.assert_allclose(matrix @ values + shift, expected, atol=1e-9)


def test_points_map_to_the_box():
    graph, relaxation = box()
    program = MarabouProgram(AffineMaps(graph), relaxation)
    ball = relaxation.ball
    torch.testing.assert_close(
        program.point([-1.0, 1.0]), torch.stack([ball.lower[0, 0], ball.upper[0, 1]])
    )
    torch.testing.assert_close(program.point([0.0, 0.0]), ball.center[0])


def test_inputs_that_cannot_move_are_no_variables():
    graph, _ = box()
    ball = ClassificationRobustness([0.0, 0.3], bounds=None).outer_ball(
        torch.tensor([[0.4, 0.6]]).double()
    )
    program = MarabouProgram(AffineMaps(graph), relax(graph, ball))
    assert program.n_inputs == 1
    torch.testing.assert_close(program.point([1.0]), ball.upper[0])


@pytest.mark.parametrize("width", [1e-6, 1.0])
def test_variables_of_units_have_a_width_whatever_the_box(width):
    graph, x = box()[0], torch.tensor([[0.4, 0.6]]).double()
    program = MarabouProgram(
        AffineMaps(graph), relax(graph, ClassificationRobustness(width, bounds=None).outer_ball(x))
    )
    low, high = (np.concatenate(side) for side in (program.lows, program.highs))
    assert (high - low >= 1e-4).all()
    for before, after in program.relus:
        assert low[before] <= -1e-4 * 0.99 and high[before] >= 1e-4 * 0.99
        assert low[after] == 0.0 and high[after] == pytest.approx(high[before])


def test_rows_are_variables_in_units_of_their_width():
    graph, relaxation = box(epsilon=1.0)
    program = MarabouProgram(AffineMaps(graph), relaxation)
    A = torch.tensor([[1.0, -1.0], [0.5, 2.0]]).double()
    shift = torch.tensor([0.25, -0.5]).double()
    rows = LinearRows(A[None], torch.zeros(1, 2).double(), shift[None], False)
    lower = bound_rows(graph, relaxation.ball, rows)[0]
    places = program.add_rows(A, None, shift, lower)
    widths = set()
    for seed in range(5):
        inputs = np.random.default_rng(seed).uniform(-1, 1, program.n_inputs)
        values = filled_in(program, dict(enumerate(inputs)))
        expected = (A @ graph(program.point(inputs)[None])[0] + shift).numpy()
        scale = expected / values[places]
        widths.add(tuple(scale.round(6)))
        low, high = (np.concatenate(side)[places] for side in (program.lows, program.highs))
        assert (low - 1e-9 <= values[places]).all() and (values[places] <= high + 1e-9).all()
        assert (high >= 2 * MARGIN).all()
    assert len(widths) == 1  # the same unit for every point


def test_rows_that_hardly_change_are_left_to_others():
    graph, _ = box()
    ball = ClassificationRobustness(1e-12, bounds=None).outer_ball(
        torch.tensor([[0.4, 0.6]]).double()
    )
    program = MarabouProgram(AffineMaps(graph), relax(graph, ball))
    A, shift = torch.tensor([[1.0, -1.0]]).double(), torch.zeros(1).double()
    rows = LinearRows(A[None], shift[None], shift[None], False, uses_distance=False)
    lower = bound_rows(graph, ball, rows)[0]
    assert program.add_rows(A, None, shift, lower) is None
    assert program.add_rows(A, None, shift, lower - 1.0) is not None


def test_the_distance_is_a_variable_between_its_ends():
    graph, relaxation = box(epsilon=0.5)
    program = MarabouProgram(AffineMaps(graph), relaxation, nearest=0.2)
    column, far = program.distance
    assert far == pytest.approx(0.5, abs=1e-6)
    low, high = (np.concatenate(side) for side in (program.lows, program.highs))
    assert low[column] == pytest.approx(0.4) and high[column] == 1.0
    # The slacks of d are not below 0 just where d is at least each change.
    for share, inside in ((0.7, True), (0.3, False)):
        known = {0: 0.5, 1: -0.2, column: share}
        slacks = [
            constant - sum(w * known[v] for v, w in zip(variables[:-1], weights[:-1], strict=True))
            for variables, weights, constant in program.equations[:4]
        ]
        assert (min(slacks) >= 0) == inside


def test_the_task_is_plain_python():
    graph, relaxation = box()
    task = MarabouProgram(AffineMaps(graph), relaxation).task
    assert set(task) == {"lower", "upper", "n_inputs", "equations", "relus"}
    assert len(task["lower"]) == len(task["upper"]) and task["n_inputs"] == 2
    numbers = [*task["lower"], *task["equations"][0][1], task["equations"][0][2]]
    assert {type(number) for number in numbers} == {float}
    assert {type(v) for equation in task["equations"] for v in equation[0]} == {int}
