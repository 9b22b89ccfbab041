"""A profile log-likelihood as a function of one log odds ratio, rebuilt from a few numbers.

`NodeProfile` holds what a site sends: the log-likelihood, its slope, the information and half the
log determinant of the nuisance information at Chebyshev nodes of a window. The log-likelihood is
the integral of the polynomial through the slopes, anchored to the mean of the values; the largest
difference that is left is a check of integrity. `GridProfile` is a spline through values on a grid,
for files that hold no more.

Beyond its window a profile goes on along its tangent, which bounds a concave function from above,
and never above its supremum. The curvature is at most a quarter of the exposure's residual sum of
squares, which bounds it from below (`Profile.enclosure`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float, fail

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["GridProfile", "NodeProfile", "Profile", "chebyshev_nodes"]

_LARGEST_ORDER = 512


def chebyshev_nodes(lower: float, upper: float, m: int) -> Float:
    """Chebyshev nodes of the first kind.

    Parameters
    ----------
    lower, upper : float
        The window.
    m : int

    Returns
    -------
    ndarray, shape: (m,)
        Node i is ``middle + half * cos(pi (i + 1/2) / m)``: from the upper end to the lower.
    """
    nodes: Float = (lower + upper) / 2 + (upper - lower) / 2 * _unit_nodes(m)
    return nodes


class Profile(ABC):
    """Profile log-likelihood of a log odds ratio, concave, on a window and beyond.

    Attributes
    ----------
    lower, upper : float
        The window, where values are as exact as their source.
    """

    lower: float
    upper: float

    def __init__(
        self,
        lower: float,
        upper: float,
        monotone: int,
        supremum: float | None,
        residual_sum_of_squares: float | None,
    ) -> None:
        self.lower, self.upper = lower, upper
        self.residual_sum_of_squares = residual_sum_of_squares
        self._edges = {end: self._inside(np.array([end]))[:, 0] for end in (lower, upper)}
        rising, falling = self._edges[lower][1] > 0, self._edges[upper][1] < 0
        if not monotone and not (rising and falling) and self._edges[lower][1] != 0:
            monotone = 1 if rising else -1
        self.monotone = monotone
        if monotone:
            self.mle = math.inf * monotone
            edge = float(self._edges[upper if monotone > 0 else lower][0])
            self.maximum = edge if supremum is None else max(edge, supremum)
            self.std_error = math.inf
        else:
            self.mle = self._peak()
            value, _, information, _ = self._inside(np.array([self.mle]))[:, 0]
            self.maximum = float(value)
            self.std_error = float(information) ** -0.5 if information > 0 else math.inf

    @abstractmethod
    def _inside(self, beta: Float) -> Float:
        """Value, slope, information, half log determinant, shape (4, n), inside of the window."""

    def evaluate(self, beta: ArrayLike) -> Float:
        """All four functions at once.

        Parameters
        ----------
        beta : array-like, shape: any
            Log odds ratios.

        Returns
        -------
        ndarray, shape: (4, *shape of beta)
            Log-likelihood, slope, information (minus the second derivative) and half the log
            determinant of the nuisance information. Beyond the window: the tangent, its slope,
            zero, and the value at the edge.
        """
        points = np.asarray(beta, dtype=np.float64)
        flat = np.clip(points.ravel(), self.lower, self.upper)
        result = self._inside(flat)
        distance = points.ravel() - flat
        if np.any(distance != 0):
            outside = distance != 0
            result[0] += result[1] * distance
            result[2, outside] = 0
            if self.monotone:
                capped = outside & (result[0] > self.maximum) & (distance * self.monotone > 0)
                result[0, capped] = self.maximum
                result[1, capped] = 0
        return result.reshape((4, *points.shape))

    def __call__(self, beta: ArrayLike) -> Float:
        """Profile log-likelihood."""
        value: Float = self.evaluate(beta)[0]
        return value

    def derivative(self, beta: ArrayLike) -> Float:
        """Slope of the profile log-likelihood."""
        slope: Float = self.evaluate(beta)[1]
        return slope

    def information(self, beta: ArrayLike) -> Float:
        """Minus the second derivative of the profile log-likelihood."""
        information: Float = self.evaluate(beta)[2]
        return information

    def half_logdet(self, beta: ArrayLike) -> Float:
        """Half the log determinant of the information of the nuisance coefficients."""
        half_logdet: Float = self.evaluate(beta)[3]
        return half_logdet

    def inside(self, beta: float) -> bool:
        """Whether a log odds ratio lies in the window."""
        return self.lower <= beta <= self.upper

    def enclosure(self, beta: float) -> tuple[float, float]:
        """Values between which the log-likelihood lies for certain.

        Parameters
        ----------
        beta : float

        Returns
        -------
        tuple of two floats
            Equal inside of the window; ``-inf`` below where the residual sum of squares of the
            score is not known.
        """
        above = float(self.evaluate(beta)[0])
        if self.inside(beta):
            return above, above
        if self.residual_sum_of_squares is None:
            return -math.inf, above
        edge = self.lower if beta < self.lower else self.upper
        value, slope = self._edges[edge][:2]
        distance = beta - edge
        bend = self.residual_sum_of_squares * distance**2 / 8
        return float(value + slope * distance - bend), above

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Likelihood-ratio limits.

        Parameters
        ----------
        level : float, default 0.95
            Above 0, below 1.

        Returns
        -------
        tuple of two floats
            Where the log-likelihood falls below its supremum by half the quantile of the
            chi-square law with 1 degree of freedom; infinite on a side where it never does.
            Limits beyond the window follow the tangent: they lie too far out rather than too
            near.
        """
        from scipy.special import chdtri

        level = check.scalar("level", level, above=0, below=1)
        drop = float(chdtri(1, 1 - level)) / 2
        return self._limit(self.lower, drop), self._limit(self.upper, drop)

    def _limit(self, end: float, drop: float) -> float:
        threshold = self.maximum - drop
        value, slope = (float(v) for v in self._edges[end][:2])
        outward = -1.0 if end == self.lower else 1.0
        if value >= threshold:  # on the tangent, if it falls at all
            if slope * outward >= 0:
                return math.inf * outward
            return end + (threshold - value) / slope
        start = self.mle if math.isfinite(self.mle) else self.lower + self.upper - end
        if self.monotone and float(self._edges[start][0]) <= threshold:
            return math.inf * outward if outward == self.monotone else self._beyond(start, drop)
        return _root(lambda b: self._inside(np.array([b]))[:2, 0] - (threshold, 0), start, end)

    def _beyond(self, start: float, drop: float) -> float:
        """Limit of a monotone profile whose window ends below the threshold: on the tangent."""
        value, slope = (float(v) for v in self._edges[start][:2])
        return start + (self.maximum - drop - value) / slope

    def _peak(self) -> float:
        """Root of the slope."""
        for end in (self.lower, self.upper):
            if self._edges[end][1] == 0:
                return end

        def slope(b: float) -> Float:
            _, first, information, _ = self._inside(np.array([b]))[:, 0]
            return np.array([first, -information])

        return _root(slope, self.lower, self.upper)


class NodeProfile(Profile):
    """Profile log-likelihood from its values and derivatives at Chebyshev nodes.

    Parameters
    ----------
    lower, upper : float
        The window.
    values, scores, information, half_logdet : array-like, shape: (m,)
        Profile log-likelihood, its slope, minus its second derivative, and half the log
        determinant of the information of the nuisance coefficients, at
        `chebyshev_nodes(lower, upper, m)`; m from 2 to 512.
    residual_sum_of_squares : float, optional
        Of the score on the nuisance covariates: gives the lower bound beyond the window.
    monotone : int
        -1 or 1 where the log-likelihood has no maximum and approaches its supremum to the left or
        to the right.
    supremum : float, optional
        That of a monotone profile.

    Attributes
    ----------
    mle, std_error : float
        Maximum of the profile, and its standard error by the curvature; infinite where monotone.
    maximum : float
        Largest value, or the supremum.
    anchoring_residual : float
        Largest difference between the values given and those of the integrated slopes.

    Raises
    ------
    InvalidInputError
        If the numbers do not belong to one window, or are not finite.
    """

    def __init__(
        self,
        lower: float,
        upper: float,
        values: ArrayLike,
        scores: ArrayLike,
        information: ArrayLike,
        half_logdet: ArrayLike,
        *,
        residual_sum_of_squares: float | None = None,
        monotone: int = 0,
        supremum: float | None = None,
    ) -> None:
        lower = check.scalar("lower", lower)
        upper = check.scalar("upper", upper, above=lower)
        self.values = check.float_array("values", values, ndim=1)
        m = self.values.size
        if not 2 <= m <= _LARGEST_ORDER:
            raise fail("values", f"2 to {_LARGEST_ORDER} nodes", str(m))
        self.scores = check.float_array("scores", scores, ndim=1, shape=(m,))
        self.node_information = check.float_array("information", information, ndim=1, shape=(m,))
        self.node_half_logdet = check.float_array("half_logdet", half_logdet, ndim=1, shape=(m,))
        if monotone not in (-1, 0, 1):
            raise fail("monotone", "-1, 0 or 1", repr(monotone))
        if residual_sum_of_squares is not None:
            residual_sum_of_squares = check.scalar(
                "residual_sum_of_squares", residual_sum_of_squares, minimum=0
            )
        if supremum is not None:
            supremum = check.scalar("supremum", supremum)
        self.supremum = supremum
        half = (upper - lower) / 2
        slope = _coefficients(self.scores)
        integral = np.asarray(half * np.polynomial.chebyshev.chebint(slope), dtype=np.float64)
        unanchored = _series(integral[None, :], _unit_nodes(m))[0]
        integral[0] += float(np.mean(self.values - unanchored))
        self._coefficients = np.zeros((4, m + 1))
        self._coefficients[0] = integral
        self._coefficients[1, :m] = slope
        self._coefficients[2, :m] = _coefficients(self.node_information)
        self._coefficients[3, :m] = _coefficients(self.node_half_logdet)
        self._middle, self._half = (lower + upper) / 2, half
        rebuilt = _series(self._coefficients[:1], _unit_nodes(m))[0]
        self.anchoring_residual = float(np.max(np.abs(rebuilt - self.values)))
        super().__init__(lower, upper, int(monotone), supremum, residual_sum_of_squares)

    @property
    def nodes(self) -> Float:
        """Log odds ratios of the nodes, shape (m,), from the upper end to the lower."""
        return chebyshev_nodes(self.lower, self.upper, self.values.size)

    @property
    def coefficients(self) -> Float:
        """Chebyshev coefficients on the window of the four functions, shape (4, m + 1)."""
        return self._coefficients

    def curvature_slopes(self, beta: ArrayLike) -> tuple[Float, Float]:
        """Derivatives of the information and of half the log determinant.

        Parameters
        ----------
        beta : array-like, shape: any

        Returns
        -------
        tuple of two ndarrays, each of beta's shape
            Zero beyond the window.
        """
        points = np.asarray(beta, dtype=np.float64)
        flat = points.ravel()
        chebder = np.polynomial.chebyshev.chebder
        slopes = np.asarray(chebder(self._coefficients[2:], axis=1) / self._half, dtype=np.float64)
        result = _series(slopes, np.clip((flat - self._middle) / self._half, -1, 1))
        result[:, (flat < self.lower) | (flat > self.upper)] = 0
        return result[0].reshape(points.shape), result[1].reshape(points.shape)

    def _inside(self, beta: Float) -> Float:
        return _series(self._coefficients, np.clip((beta - self._middle) / self._half, -1, 1))


class GridProfile(Profile):
    """Profile log-likelihood as a cubic spline through values on a grid.

    Only as good as the grid is fine. Half the log determinant is not known and taken as zero.

    Parameters
    ----------
    grid : array-like, shape: (m,)
        Ascending log odds ratios, m at least 4.
    values : array-like, shape: (m,)
        Profile log-likelihood.

    Raises
    ------
    InvalidInputError
        If the grid does not ascend, or the numbers are not finite.
    """

    def __init__(self, grid: ArrayLike, values: ArrayLike) -> None:
        from scipy.interpolate import CubicSpline

        self.grid = check.float_array("grid", grid, ndim=1)
        if self.grid.size < 4 or np.any(np.diff(self.grid) <= 0):
            raise fail("grid", "at least 4 ascending numbers", f"{self.grid.size} numbers")
        self.values = check.float_array("values", values, ndim=1, shape=self.grid.shape)
        self._spline = CubicSpline(self.grid, self.values)
        super().__init__(float(self.grid[0]), float(self.grid[-1]), 0, None, None)

    def _inside(self, beta: Float) -> Float:
        value, slope, bend = (self._spline(beta, order) for order in range(3))
        return np.stack([value, slope, -bend, np.zeros_like(value)])


def _unit_nodes(m: int) -> Float:
    nodes: Float = np.cos(np.pi * (np.arange(m) + 0.5) / m)
    return nodes


def _coefficients(values: Float) -> Float:
    """Chebyshev coefficients, shape (m,), of the polynomial through values at the nodes."""
    m = values.size
    angle = np.pi * (np.arange(m) + 0.5) / m
    result: Float = 2 / m * np.sum(np.cos(np.arange(m)[:, None] * angle) * values, axis=1)
    result[0] /= 2
    return result


def _series(coefficients: Float, x: Float) -> Float:
    """Chebyshev series, shape (k, n), of coefficients (k, m) at x (n,) in [-1, 1]."""
    polynomials = np.cos(np.arange(coefficients.shape[1])[:, None] * np.arccos(x))
    result: Float = np.einsum("km,mn->kn", coefficients, polynomials)  # no threads of BLAS
    return result


def _root(function: Callable[[float], Float], start: float, end: float) -> float:
    """Root between two points of opposite sign: Newton's method kept in its bracket.

    The function gives its value and its slope.
    """
    low, high = (start, end) if start < end else (end, start)
    tolerance = 4e-16 * max(abs(low), abs(high), high - low)
    sign = math.copysign(1.0, float(function(low)[0]))
    x = (low + high) / 2
    for _ in range(200):
        value, slope = (float(v) for v in function(x))
        if value == 0:
            return x
        if value * sign > 0:
            low = x
        else:
            high = x
        following = x - value / slope if slope else math.inf
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - x) <= tolerance:
            return following
        x = following
    return x
