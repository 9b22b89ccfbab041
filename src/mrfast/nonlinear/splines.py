"""Cubic B-splines with knots at quantiles, their derivatives and roughness penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check

__all__ = ["BSpline", "breakpoints_and_quantiles", "quantile_breakpoints"]

Float = NDArray[np.float64]

QUANTILE_ROWS = 200_000
"""Knots of more rows than this are quantiles of evenly spaced rows."""
_GAUSS = np.polynomial.legendre.leggauss(4)
CURVATURE_POINTS = 201
"""Points over which curvature is averaged."""


@dataclass(frozen=True, eq=False)
class BSpline:
    """Cubic B-splines on given breakpoints.

    The K = len(breakpoints) + 2 functions sum to one everywhere. Beyond the first and the last
    breakpoint they go on as straight lines.

    Parameters
    ----------
    breakpoints : array_like (m,)
        Ascending and distinct, at least two; the first and the last bound the splines' range.

    Raises
    ------
    InvalidInputError
        Fewer than two breakpoints, or some not above the one before.

    References
    ----------
    de Boor C. A Practical Guide to Splines. Springer, 1978. doi:10.1007/978-1-4612-6333-3
    """

    breakpoints: Float

    def __post_init__(self) -> None:
        points = check.float_array("breakpoints", self.breakpoints, ndim=1).copy()
        if points.size < 2 or not (np.diff(points) > 0).all():
            raise check.fail("breakpoints", "two or more ascending numbers", f"{points.tolist()}")
        points.setflags(write=False)
        object.__setattr__(self, "breakpoints", points)

    @property
    def n_functions(self) -> int:
        """Number of functions, K."""
        return self.breakpoints.size + 2

    @cached_property
    def knots(self) -> Float:
        """All knots (K + 4,): each end of the range four times."""
        points = self.breakpoints
        return np.concatenate([points[[0, 0, 0]], points, points[[-1, -1, -1]]])

    @cached_property
    def greville(self) -> Float:
        """Coefficients (K,) of the function x; those of a constant are all equal."""
        knots = self.knots
        return (knots[1:-3] + knots[2:-2] + knots[3:-1]) / 3.0

    @cached_property
    def pieces(self) -> Float:
        """Polynomials of the functions: (m - 1 intervals, 4 functions, 4 powers).

        On interval i function i + s is sum_r pieces[i, s, r] (x - breakpoints[i])^r.
        """
        knots, count = self.knots, self.breakpoints.size - 1
        here = np.arange(count) + 3  # knots[here] = breakpoints[:-1]
        values = np.zeros((count, 4, 4))
        values[:, 3, 0] = 1.0  # degree 0: function `here`, kept in the last slot
        start = knots[here]
        for degree in (1, 2, 3):
            previous = values.copy()
            values[:] = 0.0
            for slot in range(3 - degree, 4):
                first = here - 3 + slot  # number of the function
                for factor_slot, near, far in (
                    (slot, first, first + degree),
                    (slot + 1, first + degree + 1, first + 1),
                ):
                    if factor_slot > 3 or (factor_slot == slot and slot == 3 - degree):
                        continue  # that function of lower degree is zero here
                    # (x - near) / (far - near), with x = start + offset
                    scale = 1.0 / (knots[far] - knots[near])
                    old = previous[:, factor_slot]
                    values[:, slot] += old * ((start - knots[near]) * scale)[:, None]
                    values[:, slot, 1:] += old[:, :-1] * scale[:, None]
        values.setflags(write=False)
        return values

    def local(self, x: ArrayLike, order: int = 0) -> tuple[NDArray[np.int64], Float]:
        """The four functions that are not zero at x.

        Parameters
        ----------
        x : array_like (n,)
        order : {0, 1, 2, 3}
            Of the derivative.

        Returns
        -------
        first : ndarray of int64 (n,)
            Number of the first of the four.
        values : ndarray (n, 4)
        """
        points = np.asarray(x, dtype=np.float64)
        low, high = self.breakpoints[0], self.breakpoints[-1]
        inside = np.clip(points, low, high)
        first = np.searchsorted(self.breakpoints[1:-1], inside, side="right").astype(np.int64)
        offset = (inside - self.breakpoints[first])[:, None]
        values = _polynomial(self.pieces[first], offset, order)
        outside = points != inside
        if outside.any():
            if order == 0:
                slope = _polynomial(self.pieces[first[outside]], offset[outside], 1)
                values[outside] += slope * (points - inside)[outside, None]
            elif order > 1:
                values[outside] = 0.0
        return first, values

    def values(self, x: ArrayLike) -> Float:
        """All functions at x: (n, K)."""
        return self.derivative(x, 0)

    def derivative(self, x: ArrayLike, order: int = 1) -> Float:
        """Derivative of some order, 0 to 3, of all functions at x: (n, K)."""
        first, values = self.local(x, order)
        dense = np.zeros((first.size, self.n_functions))
        np.put_along_axis(dense, first[:, None] + np.arange(4), values, axis=1)
        return dense

    def penalty(self, order: int = 2) -> Float:
        """Matrix (K, K) of the integral of the squared derivative of that order over the range."""
        nodes, weights = self._quadrature()
        table = self.derivative(nodes, order)
        return _gram(table, weights)

    def mean_curvature(self, lower: float, upper: float) -> Float:
        """Coefficients (K,) of the mean of f'' over 201 evenly spaced points of an interval."""
        points = np.linspace(lower, upper, CURVATURE_POINTS)
        return np.asarray(self.derivative(points, 2).mean(axis=0), dtype=np.float64)

    def curvature_penalty(self, lower: float, upper: float) -> Float:
        """Matrix (K, K) of the integral of (f'' - c)^2, c = mean of f'' over an interval.

        Nothing is charged for a quadratic.
        """
        nodes, weights = self._quadrature()
        table = self.derivative(nodes, 2) - self.mean_curvature(lower, upper)
        return _gram(table, weights)

    def _quadrature(self) -> tuple[Float, Float]:
        """Nodes and weights of four Gauss-Legendre points an interval."""
        nodes, weights = _GAUSS
        half = np.diff(self.breakpoints)[:, None] / 2.0
        middle = self.breakpoints[:-1, None] + half
        return (middle + half * nodes).ravel(), (half * weights).ravel()


def _polynomial(pieces: Float, offset: Float, order: int) -> Float:
    """Derivative of cubic polynomials (n, 4 functions, 4 powers) at offsets (n, 1)."""
    factors = np.ones(4)
    for _ in range(order):
        factors = factors[1:] * np.arange(1, factors.size)
    total = np.zeros(pieces.shape[:2])
    for power in range(3, order - 1, -1):
        total = total * offset + pieces[:, :, power] * factors[power - order]
    return total


def _gram(table: Float, weights: Float) -> Float:
    return np.asarray((table * weights[:, None]).T @ table, dtype=np.float64)


def quantile_breakpoints(x: NDArray[Any], n_functions: int) -> Float:
    """Breakpoints of at most `n_functions` cubic B-splines of some values.

    The ends of the values' range, and between them knots at evenly spaced quantiles from 1% to
    99%. Values that repeat give equal quantiles, of which one is kept, so that there may be fewer
    functions than asked for.

    Parameters
    ----------
    x : ndarray (n,)
        Finite.
    n_functions : int
        At least 4.

    Raises
    ------
    InvalidInputError
        Fewer than four functions asked for, or all values are equal.
    """
    return breakpoints_and_quantiles(x, n_functions, ())[0]


def breakpoints_and_quantiles(
    x: NDArray[Any], n_functions: int, probabilities: Sequence[float]
) -> tuple[Float, Float]:
    """`quantile_breakpoints`, and other quantiles of the same values for little more.

    Parameters
    ----------
    x : ndarray (n,)
    n_functions : int
    probabilities : sequence of float

    Returns
    -------
    breakpoints : ndarray (m,)
    quantiles : ndarray
        Of `x`, as `numpy.quantile` has them up to 200,000 values.
    """
    check.integer("n_functions", n_functions, minimum=4)
    low, high = float(np.min(x)), float(np.max(x))
    if not low < high:
        raise check.fail("x", "values that differ", f"{low} only")
    sample = x[:: -(-x.size // QUANTILE_ROWS)]
    inner = n_functions - 4
    found = np.quantile(sample, np.concatenate([np.linspace(0.01, 0.99, inner), probabilities]))
    points = np.unique(np.concatenate([[low], found[:inner], [high]]))
    return np.asarray(points, dtype=np.float64), np.asarray(found[inner:], dtype=np.float64)
