"""What is known of all nodes: a part of the balls is known as if it were asked for alone."""

import pytest
import torch

from skrobust.bounds import crown, relax
from skrobust.graphs import read_graph
from tests.bounds._cases import BALLS, Everything, all_rows, build, centers, perceptron


@pytest.mark.parametrize("index", [slice(1, 3), [2, 0], torch.tensor([False, True, True])])
@pytest.mark.parametrize("property", BALLS[::3])
def test_a_part_is_that_of_its_balls(property, index):
    graph, x = read_graph(build(Everything), 16), centers()
    relaxation = relax(graph, property.outer_ball(x))
    part, alone = relaxation[index], relax(graph, property.outer_ball(x[index]))
    assert (len(relaxation), len(part)) == (3, 2)
    for name in ("lows", "highs"):
        for ours, theirs in zip(getattr(part, name), getattr(alone, name), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    rows = all_rows(2).A
    torch.testing.assert_close(crown(part, rows), crown(alone, rows), rtol=1e-11, atol=1e-11)
    assert part.rounding and not part.homogeneous and not part.empty.any()


@pytest.mark.parametrize("rounding", [True, False])
def test_weights_are_kept_for_rounding_alone(rounding):
    graph = read_graph(build(perceptron), 16)
    ball = BALLS[0].values[0].outer_ball(centers())
    relaxation = relax(graph, ball, rounding=rounding)
    known = [weight is not None for weight in relaxation.weights]
    assert known == [False, *[rounding] * (len(graph.nodes) - 1)]
    assert [part is not None for part in relaxation[:1].weights] == known


def test_sources_are_what_piecewise_nodes_read():
    graph = read_graph(build(Everything), 16)
    relaxation = relax(graph, BALLS[0].values[0].outer_ball(centers()), refine=False, lines=False)
    assert relaxation.lines == {}
    readers = [(source, i) for source, each in relaxation.sources.items() for i in each]
    assert sorted(i for _, i in readers) == list(graph.piecewise)
    for source, reader in readers:
        assert graph.nodes[reader].inputs == (source,)
