from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.interpolate import BSpline as ScipyBSpline

from mrfast.errors import InvalidInputError
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

POINTS = np.array([-2.0, -0.7, -0.1, 0.4, 0.5, 1.9, 4.0])


@pytest.fixture
def spline():
    return BSpline(POINTS)


@pytest.fixture
def x():
    return np.concatenate([POINTS, np.random.default_rng(1).uniform(-2.0, 4.0, 200)])


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_functions_and_derivatives_are_de_boors(spline, x, order):
    x = x[x < POINTS[-1]]
    knots = np.concatenate([[-2.0] * 3, POINTS, [4.0] * 3])
    expected = np.column_stack(
        [
            ScipyBSpline(knots, np.eye(spline.n_functions)[j], 3).derivative(order)(x)
            if order
            else ScipyBSpline(knots, np.eye(spline.n_functions)[j], 3)(x)
            for j in range(spline.n_functions)
        ]
    )
    np.testing.assert_allclose(spline.derivative(x, order), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("points", [[0.0, 1.0], [0.0, 0.5, 3.0], [-1.0, 0.0, 0.1, 2.0]])
def test_few_breakpoints(points):
    spline = BSpline(np.array(points))
    x = np.linspace(points[0], points[-1], 31)
    assert spline.values(x).shape == (31, len(points) + 2)
    np.testing.assert_allclose(spline.values(x).sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(spline.values(x) @ spline.greville, x, atol=1e-14)


def test_straight_lines_beyond_the_ends(spline):
    """Not the last polynomial carried on, nor the value at the end."""
    inner = spline.values(np.array([-2.0, 4.0]))
    slope = spline.derivative(np.array([-2.0, 4.0]))
    outer = spline.values(np.array([-3.5, 6.0]))
    np.testing.assert_allclose(outer, inner + slope * np.array([[-1.5], [2.0]]), atol=1e-12)
    np.testing.assert_array_equal(spline.derivative(np.array([-3.5, 6.0])), slope)
    assert not spline.derivative(np.array([-3.5, 6.0]), 2).any()


@pytest.mark.parametrize("order", [2, 3])
def test_penalty_is_the_integral(spline, order):
    """The squared derivative itself; a sum over knots or data would weight the range unevenly."""
    theta = np.random.default_rng(2).normal(size=spline.n_functions)
    total = 0.0
    for left, right in pairwise(POINTS):
        edges = np.linspace(left, right, 20001)
        middle = (edges[1:] + edges[:-1]) / 2.0
        total += np.mean((spline.derivative(middle, order) @ theta) ** 2) * (right - left)
    assert theta @ spline.penalty(order) @ theta == pytest.approx(total, rel=1e-6)


def test_quadratics_cost_nothing_about_the_mean_curvature(spline):
    """With the plain integral of f'' squared a quadratic would be charged."""
    x = np.linspace(-2.0, 4.0, 400)
    theta = np.linalg.lstsq(spline.values(x), 1.0 - 2.0 * x + 0.7 * x**2, rcond=None)[0]
    curved = spline.curvature_penalty(-1.5, 3.0)
    assert abs(theta @ curved @ theta) < 1e-8
    assert theta @ spline.penalty(2) @ theta == pytest.approx(6.0 * 1.4**2)
    assert theta @ spline.mean_curvature(-1.5, 3.0) == pytest.approx(1.4)


def test_curvature_penalty_is_the_integral_about_the_average(spline):
    theta = np.random.default_rng(3).normal(size=spline.n_functions)
    average = np.mean(spline.derivative(np.linspace(-1.5, 3.0, 201), 2) @ theta)
    total = 0.0
    for left, right in pairwise(POINTS):
        edges = np.linspace(left, right, 20001)
        second = spline.derivative((edges[1:] + edges[:-1]) / 2.0, 2) @ theta
        total += np.mean((second - average) ** 2) * (right - left)
    assert theta @ spline.curvature_penalty(-1.5, 3.0) @ theta == pytest.approx(total, rel=1e-4)


def test_knots_lie_at_quantiles():
    x = np.random.default_rng(4).exponential(size=5001)
    points = quantile_breakpoints(x, 12)
    assert points.size == 10
    assert points[0] == x.min()
    assert points[-1] == x.max()
    below = [(x < point).mean() for point in points[1:-1]]
    np.testing.assert_allclose(below, np.linspace(0.01, 0.99, 8), atol=2e-4)


def test_repeated_values_give_fewer_knots():
    points = quantile_breakpoints(np.repeat([0, 1, 2], [50, 40, 10]), 12)
    np.testing.assert_array_equal(points, [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BSpline(np.array([0.0])), "breakpoints: expected two or more ascending"),
        (lambda: BSpline(np.array([0.0, 0.0, 1.0])), "breakpoints: expected two or more ascending"),
        (lambda: quantile_breakpoints(np.ones(5), 8), "x: expected values that differ"),
        (lambda: quantile_breakpoints(np.arange(5.0), 3), "n_functions: expected"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
