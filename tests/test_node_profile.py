"""Profiles rebuilt from nodes, against the closed form of one binomial count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import chi2

from mrfast.errors import InvalidInputError
from mrfast.federated.node_profile import GridProfile, NodeProfile, chebyshev_nodes


def log_likelihood(b: Any, k: int, n: int) -> Any:
    """Log-likelihood of the log odds b with k of n events."""
    return k * np.asarray(b) - n * np.logaddexp(0, b)


def probability(b: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(b)))


def profile(k: int, n: int, lower: float, upper: float, m: int = 40, **more: Any) -> NodeProfile:
    nodes = chebyshev_nodes(lower, upper, m)
    p = probability(nodes)
    return NodeProfile(
        lower,
        upper,
        log_likelihood(nodes, k, n),
        k - n * p,
        n * p * (1 - p),
        0.5 * np.log1p(nodes**2),
        **more,
    )


@pytest.mark.parametrize("k", [3, 50, 97])
def test_the_closed_form_is_met_inside(k: int) -> None:
    rebuilt = profile(k, 100, -5, 5, 64)
    b = np.linspace(-5, 5, 301)
    p = probability(b)
    assert rebuilt.anchoring_residual < 1e-9
    np.testing.assert_allclose(rebuilt(b), log_likelihood(b, k, 100), atol=2e-10, rtol=0)
    np.testing.assert_allclose(rebuilt.derivative(b), k - 100 * p, atol=1e-8)
    np.testing.assert_allclose(rebuilt.information(b), 100 * p * (1 - p), atol=1e-7)
    np.testing.assert_allclose(rebuilt.half_logdet(b), 0.5 * np.log1p(b**2), atol=1e-3)
    assert rebuilt.mle == pytest.approx(math.log(k / (100 - k)), abs=1e-10)
    assert rebuilt.std_error == pytest.approx((1 / k + 1 / (100 - k)) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_limits_are_roots_of_the_likelihood_ratio(level: float) -> None:
    """Wrong: limits from the curvature (mle +- z se), or the chi-square quantile not halved."""
    k, n = 7, 60
    rebuilt = profile(k, n, -6, 4, 60)
    top = math.log(k / (n - k))
    threshold = float(log_likelihood(top, k, n)) - chi2.ppf(level, 1) / 2
    wanted = [
        brentq(lambda b: float(log_likelihood(b, k, n)) - threshold, *ends, xtol=1e-14)
        for ends in ((-20, top), (top, 20))
    ]
    assert rebuilt.interval(level) == pytest.approx(tuple(wanted), abs=1e-9)


def test_slopes_of_the_curvature_against_differences() -> None:
    rebuilt = profile(30, 90, -3, 2)
    b, step = np.linspace(-2.9, 1.9, 25), 1e-5
    slopes = rebuilt.curvature_slopes(b)
    for slope, function in zip(slopes, (rebuilt.information, rebuilt.half_logdet), strict=True):
        numerical = (function(b + step) - function(b - step)) / (2 * step)
        np.testing.assert_allclose(slope, numerical, rtol=1e-6, atol=1e-6)


@given(b=st.floats(-30, 30))
def test_the_enclosure_holds_the_truth(b: float) -> None:
    """Wrong: the tangent as a lower bound; RSS/4 in place of RSS/8 at the wrong side."""
    k, n = 40, 100
    rebuilt = profile(k, n, -2, 1, residual_sum_of_squares=float(n))
    below, above = rebuilt.enclosure(b)
    truth = float(log_likelihood(b, k, n))
    assert below - 1e-9 <= truth <= above + 1e-9
    if not rebuilt.inside(b):
        assert below < above
    assert profile(k, n, -2, 1).enclosure(-2.5)[0] == -math.inf


def test_the_tail_is_the_tangent() -> None:
    rebuilt = profile(40, 100, -2, 1)
    edge, slope = float(rebuilt(1.0)), float(rebuilt.derivative(1.0))
    assert float(rebuilt(4.0)) == pytest.approx(edge + 3 * slope)
    assert float(rebuilt.derivative(4.0)) == slope
    assert float(rebuilt.information(4.0)) == 0
    values = rebuilt.evaluate(np.array([[0.0, 4.0], [-9.0, 1.0]]))
    assert values.shape == (4, 2, 2)
    assert values[0, 0, 1] == pytest.approx(float(rebuilt(4.0)), rel=1e-14)


@pytest.mark.parametrize("side", [-1, 1])
def test_monotone_profiles(side: int) -> None:
    """All events: the supremum 0 is approached, never passed, and one limit is infinite."""
    k, n = (50, 50) if side > 0 else (0, 50)
    window = (-1.0, 5.0) if side > 0 else (-5.0, 1.0)
    rebuilt = profile(k, n, *window, monotone=side, supremum=0.0)
    assert rebuilt.mle == side * math.inf
    assert rebuilt.std_error == math.inf
    assert rebuilt.maximum == 0
    far = rebuilt.evaluate(side * np.array([10.0, 1e6]))
    assert np.all(far[0] <= 0)
    assert far[1, 1] == 0
    finite = brentq(lambda b: float(log_likelihood(b, k, n)) + chi2.ppf(0.95, 1) / 2, -9, 9)
    limits = rebuilt.interval()
    assert limits[0 if side > 0 else 1] == pytest.approx(finite, abs=1e-9)
    assert limits[1 if side > 0 else 0] == side * math.inf


@pytest.mark.parametrize("side", [-1, 1])
def test_limits_of_a_monotone_profile_with_a_narrow_window(side: int) -> None:
    """The window ends far below the supremum; the limit without an end keeps its side."""
    rebuilt = profile(50 if side > 0 else 0, 50, -1, 1, monotone=side, supremum=0.0)
    limits = rebuilt.interval()
    assert limits[1 if side > 0 else 0] == side * math.inf
    assert 1 < side * limits[0 if side > 0 else 1] < math.inf


def test_monotone_is_noticed_without_being_told() -> None:
    assert profile(50, 50, -1, 5).monotone == 1
    assert profile(0, 50, -5, 1).monotone == -1
    assert profile(20, 50, -5, 5).monotone == 0


def test_a_flat_profile_excludes_nothing() -> None:
    zeros = np.zeros(12)
    flat = NodeProfile(-1, 1, zeros, zeros, zeros, zeros)
    assert flat.std_error == math.inf
    assert flat.interval() == (-math.inf, math.inf)
    assert float(flat(7.0)) == 0


def test_values_that_do_not_fit_their_slopes_show() -> None:
    nodes = chebyshev_nodes(-1, 1, 20)
    p = probability(nodes)
    values = log_likelihood(nodes, 40, 100)
    values[3] += 1e-3
    rebuilt = NodeProfile(-1, 1, values, 40 - 100 * p, 100 * p * (1 - p), np.zeros(20))
    assert rebuilt.anchoring_residual > 5e-4


def test_a_fine_grid_is_nearly_as_good_as_nodes() -> None:
    grid = np.linspace(-3, 3, 601)
    spline = GridProfile(grid, log_likelihood(grid, 40, 100))
    exact = profile(40, 100, -3, 3)
    b = np.linspace(-2.9, 2.9, 77)
    np.testing.assert_allclose(spline(b), exact(b), atol=1e-7)
    assert spline.mle == pytest.approx(exact.mle, abs=1e-6)
    assert spline.interval() == pytest.approx(exact.interval(), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1.0]}, "2 to 512 nodes"),
        ({"scores": [1.0, 2.0, 3.0]}, "scores"),
        ({"information": [1.0, math.nan]}, "information: expected finite"),
        ({"upper": -1.0}, "upper"),
        ({"monotone": 2}, "monotone"),
        ({"residual_sum_of_squares": -1.0}, "residual_sum_of_squares"),
    ],
)
def test_numbers_that_are_no_profile(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "lower": -1.0,
        "upper": 1.0,
        **{name: [0.0, 0.0] for name in ("values", "scores", "information", "half_logdet")},
    }
    with pytest.raises(InvalidInputError, match=message):
        NodeProfile(**{**good, **change})
    with pytest.raises(InvalidInputError, match="ascending"):
        GridProfile([0, 1, 1, 2], [0, 0, 0, 0])
    with pytest.raises(InvalidInputError, match="level"):
        NodeProfile(**good).interval(1.0)
