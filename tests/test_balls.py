"""The ball: everything that is projected or drawn lies inside, by float64 arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from skrobust.balls import Ball
from skrobust.properties import ClassificationRobustness
from tests._asserts import assert_inside_ball

PER_FEATURE = [0.0, 0.01, 0.2, 0.7, 0.0]
BOUNDS = [(0.0, 1.0), None, (np.array([0, 0, 0.1, -1, 0]), np.array([1, 1, 0.9, 2, 1]))]


def centers(n=200, n_features=5, dtype=torch.float32, seed=0):
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.uniform(0.1, 0.9, (n, n_features)), dtype=dtype)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", BOUNDS, ids=["unit", "none", "arrays"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.1, 3.0, PER_FEATURE], ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projections_steps_and_samples_are_inside(norm, epsilon, bounds, dtype):
    x = centers(dtype=dtype)
    property = ClassificationRobustness(epsilon, norm=norm, bounds=bounds)
    ball = property.ball(x)
    direction = torch.randn(x.shape, generator=generator(), dtype=dtype)
    assert_inside_ball(ball.project(x + direction), x, property)
    assert_inside_ball(ball.project(x + 1e-3 * direction), x, property)
    assert_inside_ball(ball.step(x, direction, 1.0), x, property)
    assert_inside_ball(ball.step(x, direction, 2.0), x, property)
    for sample in ball.sample(7, generator()).unbind(dim=1):
        assert_inside_ball(sample, x, property)


@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.1])
@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_l2_is_inside_in_many_dimensions(epsilon, scale):
    # The rounding of 784 coordinates to float32 adds up.
    x = scale * centers(50, 784)
    property = ClassificationRobustness(epsilon, norm="l2", bounds=(0.0, scale))
    ball = property.ball(x)
    outside = x + torch.randn(x.shape, generator=generator())
    assert_inside_ball(ball.project(outside), x, property)
    for sample in ball.sample(2, generator()).unbind(dim=1):
        assert_inside_ball(sample, x, property)


@given(
    center=st.floats(0, 1, width=32),
    epsilon=st.floats(0, 2),
    norm=st.sampled_from(["linf", "l2"]),
    point=st.floats(-5, 5, width=32),
)
def test_projection_in_one_dimension(center, epsilon, norm, point):
    ball = Ball.around(torch.tensor([[center]]), epsilon, norm, (0.0, 1.0))
    projected = ball.project(torch.tensor([[point]])).item()
    low, high = max(center - epsilon, 0.0), min(center + epsilon, 1.0)
    assert low <= projected <= high
    assert projected == pytest.approx(min(max(point, low), high), abs=3e-6)


def test_projection_leaves_inner_points_alone():
    x = centers(dtype=torch.float64)
    move = torch.randn(x.shape, generator=generator(), dtype=torch.float64)
    move *= 0.05 / torch.linalg.vector_norm(move, dim=1, keepdim=True)
    for norm in ("linf", "l2"):
        ball = Ball.around(x, 0.1, norm, (0.0, 1.0))
        torch.testing.assert_close(ball.project(x + move), x + move, rtol=0, atol=1e-12)


def test_l2_projection_is_the_closest_point_of_the_ball():
    ball = Ball.around(torch.zeros(1, 2, dtype=torch.float64), 0.5, "l2", None)
    projected = ball.project(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    torch.testing.assert_close(projected[0].tolist(), [0.3, 0.4], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_distance(norm):
    ball = Ball.around(torch.zeros(1, 2), 1.0, norm, None)
    expected = 4.0 if norm == "linf" else 5.0
    assert ball.distance(torch.tensor([[3.0, -4.0]])).tolist() == [expected]
    three = torch.tensor([[[3.0, -4.0], [0.0, 0.0], [-6.0, 8.0]]])
    assert ball.distance(three).tolist() == [[expected, 0.0, 2 * expected]]


def test_steepest_and_unit_moves():
    direction = torch.tensor([[3.0, -4.0, 0.0]])
    linf = Ball.around(torch.zeros(1, 3), [0.5, 0.25, 1.0], "linf", None)
    assert linf.steepest(direction).tolist() == [[0.5, -0.25, 0.0]]
    assert linf.unit(direction).tolist() == [[1.0, -1.0, 0.0]]
    l2 = Ball.around(torch.zeros(1, 3), 0.5, "l2", None)
    torch.testing.assert_close(l2.steepest(direction), torch.tensor([[0.3, -0.4, 0.0]]))
    torch.testing.assert_close(l2.unit(direction), torch.tensor([[0.6, -0.8, 0.0]]))
    assert l2.steepest(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


@given(seed=st.integers(0, 2**16))
def test_steepest_move_of_an_ellipsoid_beats_any_other(seed):
    # max g.v over norm(v / epsilon) <= 1 is norm(g * epsilon), by Cauchy and Schwarz.
    rng = np.random.default_rng(seed)
    gradient, epsilon = rng.normal(size=4), rng.uniform(0, 1, 4)
    ball = Ball.around(torch.zeros(1, 4, dtype=torch.float64), epsilon, "l2", None)
    move = ball.steepest(torch.tensor(gradient).unsqueeze(0)).numpy()[0]
    assert np.linalg.norm(move / epsilon) == pytest.approx(1)
    assert gradient @ move == pytest.approx(np.linalg.norm(gradient * epsilon))


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_linf_samples_are_uniform_in_the_cut_box(bounds):
    x = torch.tensor([[0.5, 0.05, 0.95]], dtype=torch.float64)
    samples = Ball.around(x, 0.1, "linf", bounds).sample(4000, generator())[0].numpy()
    low, high = x.numpy()[0] - 0.1, x.numpy()[0] + 0.1
    if bounds is not None:
        low, high = low.clip(0, 1), high.clip(0, 1)
    for j in range(3):
        assert kstest((samples[:, j] - low[j]) / (high[j] - low[j]), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(samples.T) - np.eye(3)).max() < 0.06


def test_first_samples_of_different_references_are_independent():
    # The rows share noise, each with a shift of its own: across rows one index is uniform.
    x = torch.full((4000, 2), 0.5)
    first = Ball.around(x, 0.5, "linf", None).sample(3, generator())[:, 0].numpy()
    for j in range(2):
        assert kstest(first[:, j], "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 0.06


@pytest.mark.parametrize("epsilon", [0.25, [0.1, 0.2, 0.0, 0.3]], ids=["scalar", "features"])
def test_l2_samples_are_uniform_in_the_ball(epsilon):
    x = torch.zeros(1, 4, dtype=torch.float64)
    offsets = Ball.around(x, epsilon, "l2", None).sample(4000, generator())[0].numpy()
    epsilon = np.broadcast_to(epsilon, 4)
    free = epsilon > 0
    scaled = offsets[:, free] / epsilon[free]
    radius = np.linalg.norm(scaled, axis=1)
    assert (offsets[:, ~free] == 0).all()
    # The volume within radius r grows as r to the power of the dimension.
    assert kstest(radius ** free.sum(), "uniform").pvalue > 1e-3
    assert np.abs(scaled.mean(axis=0)).max() < 0.03
    # By symmetry each coordinate has the same variance, 1 / (d + 2).
    np.testing.assert_allclose(scaled.var(axis=0), 1 / (free.sum() + 2), rtol=0.1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_epsilon_zero_is_the_point_itself(norm):
    x = centers()
    ball = Ball.around(x, 0.0, norm, (0.0, 1.0))
    assert torch.equal(ball.sample(2, generator()), x.unsqueeze(1).expand(-1, 2, -1))
    assert torch.equal(ball.project(x + 1), x)
    assert torch.equal(ball.step(x, torch.ones_like(x), 1.0), x)


def test_samples_repeat_with_the_generator():
    ball = Ball.around(centers(), 0.1, "linf", None)
    assert torch.equal(ball.sample(3, generator(1)), ball.sample(3, generator(1)))
    assert not torch.equal(ball.sample(3, generator(1)), ball.sample(3, generator(2)))


def test_selection_of_rows():
    x = centers()
    ball = Ball.around(x, PER_FEATURE, "l2", (0.0, 1.0))
    part = ball[torch.tensor([3, 0])]
    assert torch.equal(part.center, x[[3, 0]])
    assert torch.equal(part.project(x[[3, 0]] + 1), ball.project(x + 1)[[3, 0]])


def test_a_center_outside_by_rounding_stays_where_it_is():
    # 0.1 in float32 is above 0.1: the data was inside the bounds before it was rounded.
    x = torch.tensor([[0.1]], dtype=torch.float32)
    ball = Ball.around(x, 0.05, "linf", (0.0, 0.1))
    assert torch.equal(ball.project(x), x)
    assert torch.equal(ball.project(x + 1), x)


# ---- centers a little outside of the domain --------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 1e-8, 0.1, [0.0, 0.1, 1e-7]], ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_center_that_rounding_took_out_of_the_domain_widens_it_to_itself(norm, epsilon, dtype):
    x = torch.tensor([[1 + 1e-6, 0.5, -1e-6], [0.5, 1 + 1e-6, 0.3]], dtype=dtype)
    property = ClassificationRobustness(epsilon, norm=norm)
    property.check(x.numpy().astype(np.float64))
    ball, outer = property.ball(x), property.outer_ball(x)
    for box in (ball, outer):
        assert (box.lower <= box.center).all() and (box.center <= box.upper).all()
        exceeds = box.center > 1
        assert (box.upper[exceeds] == box.center[exceeds]).all()
        assert (box.upper[~exceeds] <= 1).all()
        assert (box.lower[box.center >= 0] >= 0).all()
    # What an attack may find is what a proof is about.
    assert (outer.lower <= ball.lower).all() and (ball.upper <= outer.upper).all()
    for points in (
        ball.project(x + torch.randn(x.shape, generator=generator(), dtype=dtype)),
        ball.step(x, torch.ones_like(x), 1.0),
        ball.step(x, -torch.ones_like(x), 1.0),
        *ball.sample(5, generator()).unbind(dim=1),
    ):
        assert_inside_ball(points, x, property)


# ---- numbers at the end of their type --------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_huge_balls_are_cut_to_finite_numbers(norm, dtype):
    largest = torch.finfo(dtype).max
    x = torch.tensor([[0.0, largest, -largest / 2]], dtype=dtype)
    epsilons = [1e39, 1e300, [1e300, 0.0, 1.0], 1.7e308]
    for epsilon in epsilons:
        ball = Ball.around(x, epsilon, norm, None)
        outer = Ball.outside(x, epsilon, norm, None)
        for box in (ball, outer):
            assert torch.isfinite(box.lower).all() and torch.isfinite(box.upper).all()
            assert (box.lower <= box.center).all() and (box.center <= box.upper).all()
            assert (box.upper <= largest).all() and (box.lower >= -largest).all()
        assert (outer.lower <= ball.lower).all() and (ball.upper <= outer.upper).all()
        points = [*ball.sample(20, generator()).unbind(dim=1), ball.project(x)]
        if norm == "linf":
            points += [ball.step(x, torch.tensor([[1.0, 1.0, -1.0]], dtype=dtype), 1.0)]
        for moved in points:
            assert torch.isfinite(moved).all()
            assert (moved >= ball.lower).all() and (moved <= ball.upper).all()


def test_samples_of_a_ball_wider_than_its_type_spread_over_it():
    ball = Ball.around(torch.zeros(1, 1), 1e39, "linf", None)
    samples = ball.sample(4000, generator())[0, :, 0].numpy().astype(np.float64)
    largest = float(np.finfo(np.float32).max)
    assert kstest((samples / largest + 1) / 2, "uniform").pvalue > 1e-3


# ---- smaller balls --------------------


def test_each_ball_has_its_own_radius_by_hand():
    center = torch.tensor([[0.5, 0.5], [0.5, 0.9]])
    wide = Ball.around(center, 0.4, "linf", (0.0, 1.0))
    ball = wide.within(torch.tensor([0.1, 0.3]))
    torch.testing.assert_close(ball.lower, torch.tensor([[0.4, 0.4], [0.2, 0.6]]))
    torch.testing.assert_close(ball.upper, torch.tensor([[0.6, 0.6], [0.8, 1.0]]))
    moved = ball.step(center, torch.tensor([[1.0, -1.0], [1.0, 1.0]]), 1.0)
    torch.testing.assert_close(moved, torch.tensor([[0.6, 0.4], [0.8, 1.0]]))
    # A selection keeps the radii of its balls; none grows.
    torch.testing.assert_close(ball[[1]].upper, ball.upper[[1]])
    assert ball[[1]].epsilon.tolist() == ball.epsilon[[1]].tolist()
    torch.testing.assert_close(wide.within(9.0).upper, wide.upper)


def test_smaller_balls_leave_no_point_out():
    """Shells of distances would else have gaps between them, of a last digit."""
    center = torch.rand(300, 2, dtype=torch.float64, generator=generator()) * 3 - 1
    wide = Ball.outside(center, 0.5, "linf", None)
    radii = 0.3 * torch.rand(300, dtype=torch.float64, generator=generator())
    ball = wide.within(radii)
    rounded = 0
    for k in range(300):
        for x, low, high in zip(center[k], ball.lower[k], ball.upper[k], strict=True):
            x, radius = Fraction(x.item()), Fraction(radii[k].item())
            assert Fraction(low.item()) <= x - radius and Fraction(high.item()) >= x + radius
            rounded += Fraction(low.item()) != x - radius
    assert rounded > 100


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_samples_of_smaller_balls_lie_in_them(norm):
    center = torch.full((3, 4), 0.5)
    epsilon, radii = torch.tensor([0.4, 0.0, 0.3, 0.2]), torch.tensor([0.05, 0.25, 1.0])
    ball = Ball.around(center, epsilon, norm, (0.0, 1.0)).within(radii)
    points = ball.sample(200, torch.Generator().manual_seed(0))
    distance = ball.distance(points)
    assert (distance <= radii[:, None] * (1 + 1e-5)).all()
    assert (points[:, :, 1] == 0.5).all()
    assert (distance.amax(dim=1)[:2] > 0.7 * radii[:2]).all()
    for k in range(3):
        torch.testing.assert_close(ball[[k]].project(points[k, :1]), points[k, :1])


@pytest.mark.parametrize(
    ("distance", "shown"),
    [
        (-1.0, "-1.0"),
        (float("nan"), "nan"),
        ("far", "'far'"),
        (torch.tensor([0.1, -0.5, 0.1]), "-0.5"),
        (torch.tensor([0.1, torch.nan, 0.1]), "nan"),
        (torch.full((2,), 0.1), r"Tensor of shape \(2,\)"),
        (torch.full((3, 1), 0.1), r"Tensor of shape \(3, 1\)"),
    ],
)
def test_distances_that_are_none_are_refused(distance, shown):
    ball = ClassificationRobustness(0.1).ball(centers(3))
    message = f"Got distance={shown}, but expected a number of at least 0, or"
    with pytest.raises(ValueError, match=message):
        ball.within(distance)
    assert torch.equal(ball.within(torch.inf).upper, ball.upper)
    exact = ClassificationRobustness(0.3).ball(centers(3).double())
    assert exact.within(0.1).epsilon.item() == 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_corners_that_are_numbers_are_reached(dtype):
    center = torch.tensor([[0.5, 0.1]], dtype=dtype)
    ball = Ball.around(center, 0.5, "linf", (0.0, 1.0))
    assert ball.upper[0, 0] == 1.0  # a row that is 0 there may be broken
    exact = Fraction(center[0, 1].item()) + Fraction(0.5)
    assert Fraction(ball.upper[0, 1].item()) <= exact
    above = torch.nextafter(ball.upper[0, 1], torch.tensor(2.0, dtype=dtype))
    assert Fraction(above.item()) > exact
