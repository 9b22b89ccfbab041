"""One-dimensional laws of the causal effect: summaries, and densities known on panels or a grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._validation import Float

__all__ = ["KRONROD_NODES", "EffectDensity", "EffectMode", "EffectSummary"]

_CELLS = 400  # per panel
_DIP = 0.6  # two peaks are modes where the density between them falls below this share of both
_KRONROD = np.array(
    [
        0.991455371120812639206854697526329,
        0.949107912342758524526189684047851,
        0.864864423359769072789712788640926,
        0.741531185599394439863864773280788,
        0.586087235467691130294144691693013,
        0.405845151377397166906606412076961,
        0.207784955007898467600689403773245,
    ]
)
KRONROD_NODES = np.concatenate([-_KRONROD, [0.0], _KRONROD[::-1]])


@dataclass(frozen=True)
class EffectSummary:
    """Posterior of the causal effect: change of the outcome per unit of the exposure.

    Attributes
    ----------
    mean, median, sd : float
    ci_lower, ci_upper : float
        Equal-tailed credible limits.
    probability_positive : float
        P(effect > 0).
    level : float
        Probability between the limits.
    """

    mean: float
    median: float
    sd: float
    ci_lower: float
    ci_upper: float
    probability_positive: float
    level: float = 0.95


@dataclass(frozen=True)
class EffectMode:
    """One peak of the posterior of the causal effect.

    Attributes
    ----------
    peak : float
        Where the density is highest.
    probability : float
        Posterior probability between the dips that divide it from its neighbours.
    lower, upper : float
        These dips; infinite at the ends.
    """

    peak: float
    probability: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class EffectDensity:
    """A density that is linear within short cells, normalised.

    Attributes
    ----------
    left, right : ndarray, shape (cells,)
        Ends of the cells, ascending, not overlapping; the density is 0 between cells.
    height_left, height_right : ndarray, shape (cells,)
        Density at these ends.
    """

    left: Float
    right: Float
    height_left: Float
    height_right: Float

    @classmethod
    def from_panels(cls, edges: Float, log_density: Float, unit: float = 1.0) -> EffectDensity:
        """From log densities at the 15 Kronrod points of panels.

        Parameters
        ----------
        edges : ndarray, shape (panels, 2)
            Ascending, in multiples of `unit`.
        log_density : ndarray, shape (panels, 15)
            Up to a constant.
        """
        top = log_density.max()
        panels = log_density.max(axis=1) > top - 60
        edges, values = edges[panels], np.maximum(log_density[panels] - top, -200.0)
        fine = np.einsum("cn,pn->pc", _interpolation(), values)
        height = np.exp(np.minimum(fine, 1.0))
        middle, half = edges.mean(axis=1), 0.5 * (edges[:, 1] - edges[:, 0])
        x = (middle[:, None] + half[:, None] * np.linspace(-1, 1, _CELLS + 1)) * unit
        # The next panel begins where this one ends, without a gap of rounding.
        return cls._normalised(
            x[:, :-1].ravel(), x[:, 1:].ravel(), height[:, :-1].ravel(), height[:, 1:].ravel()
        )

    @classmethod
    def from_grid(cls, x: Float, log_density: Float, refinement: int = 16) -> EffectDensity:
        """From log densities at ascending points, by a cubic spline through them."""
        from scipy.interpolate import CubicSpline

        values = np.maximum(log_density - log_density.max(), -200.0)
        share = np.arange(refinement) / refinement
        fine = np.append((x[:-1, None] + share * np.diff(x)[:, None]).ravel(), x[-1])
        height = np.exp(np.minimum(CubicSpline(x, values)(fine), 1.0))
        return cls._normalised(fine[:-1], fine[1:], height[:-1], height[1:])

    @classmethod
    def _normalised(cls, left: Float, right: Float, low: Float, high: Float) -> EffectDensity:
        total = float((0.5 * (low + high) * (right - left)).sum())
        return cls(left, right, low / total, high / total)

    @cached_property
    def _mass(self) -> Float:
        return np.asarray(0.5 * (self.height_left + self.height_right) * (self.right - self.left))

    @cached_property
    def _below(self) -> Float:
        """Probability below each cell, and 1."""
        total = np.concatenate([[0.0], np.cumsum(self._mass)])
        return np.asarray(total / total[-1])

    def _within(self, cell: NDArray[np.intp], value: Float) -> Float:
        """Probability of the part of a cell below a value."""
        width = self.right[cell] - self.left[cell]
        t = np.clip((value - self.left[cell]) / width, 0.0, 1.0)
        low, high = self.height_left[cell], self.height_right[cell]
        return np.asarray(width * t * (low + 0.5 * t * (high - low)))

    def cdf(self, value: float) -> float:
        """P(beta <= value)."""
        cell = int(np.searchsorted(self.left, value, side="right")) - 1
        if cell < 0:
            return 0.0
        index = np.array([cell])
        return float(min(1.0, self._below[cell] + self._within(index, np.array([value]))[0]))

    def probability_above(self, value: float) -> float:
        """P(beta > value), summed from above so that a small one keeps its digits."""
        cell = int(np.searchsorted(self.left, value, side="right")) - 1
        if cell < 0:
            return 1.0
        rest = self._mass[cell] - self._within(np.array([cell]), np.array([value]))[0]
        return float(np.clip(self._mass[cell + 1 :].sum() + rest, 0.0, 1.0))

    def density(self, values: Float) -> Float:
        """Density of beta, in the shape of `values`."""
        values = np.asarray(values, dtype=np.float64)
        cell = np.clip(np.searchsorted(self.left, values, side="right") - 1, 0, None)
        inside = (values >= self.left[cell]) & (values <= self.right[cell])
        place = np.clip(values, self.left[cell], self.right[cell]) - self.left[cell]
        t = place / (self.right[cell] - self.left[cell])
        low, high = self.height_left[cell], self.height_right[cell]
        return np.where(inside, low + t * (high - low), 0.0)

    def quantiles(self, probabilities: Float) -> Float:
        """Values with the given probabilities below them."""
        p = np.asarray(probabilities, dtype=np.float64)
        cell = np.clip(np.searchsorted(self._below, p, side="right") - 1, 0, self.left.size - 1)
        width = self.right[cell] - self.left[cell]
        low, high = self.height_left[cell], self.height_right[cell]
        wanted = (p - self._below[cell]) / width
        # Root of low t + (high - low) t^2 / 2 = wanted, in the form that does not cancel.
        root = np.sqrt(np.maximum(low * low + 2 * (high - low) * wanted, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(low + root > 0, 2 * wanted / (low + root), 0.0)
        return np.asarray(self.left[cell] + np.clip(t, 0.0, 1.0) * width)

    def quantile(self, probability: float) -> float:
        """Value with the given probability below it."""
        return float(self.quantiles(np.array([probability]))[0])

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        width, low, high = self.right - self.left, self.height_left, self.height_right
        mass = self._mass
        # Of the linear density within every cell.
        first = width * width * (low + 2 * high) / 6
        second = width**3 * (low + 3 * high) / 12
        centre = float((self.left * mass + first).sum())
        shift = self.left - centre
        spread = float((shift * shift * mass + 2 * shift * first + second).sum())
        return centre, float(np.sqrt(max(spread, 0.0)))

    def summary(self, level: float) -> EffectSummary:
        """Mean, median, limits."""
        mean, sd = self.moments
        tail = (1 - level) / 2
        lower, median, upper = self.quantiles(np.array([tail, 0.5, 1 - tail]))
        return EffectSummary(
            mean=mean,
            median=float(median),
            sd=sd,
            ci_lower=float(lower),
            ci_upper=float(upper),
            probability_positive=self.probability_above(0.0),
            level=level,
        )

    @cached_property
    def modes(self) -> tuple[EffectMode, ...]:
        """Peaks divided by dips below 60 percent of both, by descending probability."""
        x = np.append(self.left, self.right[-1])
        heights = np.append(self.height_left, self.height_right[-1])
        height = heights.tolist()  # numbers of Python are faster in a loop
        floor = 1e-6 * max(height)
        dips: list[int] = []
        peak = lowest = 0
        rising = True
        # Walk along the turning points: a peak stands once the density has fallen below its share,
        # and is divided from the next one at the lowest point between them, once that one stands
        # out too.
        slope = np.sign(np.diff(height))
        turns = np.flatnonzero(slope[1:] != slope[:-1]) + 1
        for i in (*(int(turn) for turn in turns), x.size - 1):
            if rising:
                if height[i] > height[peak]:
                    peak = i
                elif height[i] < _DIP * height[peak] and height[peak] > floor:
                    rising, lowest = False, i
            elif height[i] < height[lowest]:
                lowest = i
            elif height[i] * _DIP > height[lowest] and height[i] > floor:
                dips.append(lowest)
                rising, peak = True, i
        ends = [-np.inf, *(float(x[i]) for i in dips), np.inf]
        bounds = [0, *dips, x.size - 1]
        out = []
        for k in range(len(bounds) - 1):
            part = slice(bounds[k], bounds[k + 1] + 1)
            top = bounds[k] + int(np.argmax(heights[part]))
            share = self._below[bounds[k + 1]] - self._below[bounds[k]]
            out.append(EffectMode(float(x[top]), float(share), ends[k], ends[k + 1]))
        return tuple(sorted(out, key=lambda mode: -mode.probability))

    def interval(self, level: float) -> tuple[float, float]:
        """Equal-tailed limits."""
        check.scalar("level", level, above=0, below=1)
        tail = (1 - level) / 2
        return self.quantile(tail), self.quantile(1 - tail)


def _interpolation() -> Float:
    """Matrix from the values at Kronrod's points to those at the ends of the cells, cached."""
    global _MATRIX
    if _MATRIX is None:
        x = np.linspace(-1, 1, _CELLS + 1)
        difference = KRONROD_NODES[:, None] - KRONROD_NODES
        np.fill_diagonal(difference, 1.0)
        weights = 1 / difference.prod(axis=1)
        gaps = x[:, None] - KRONROD_NODES
        exact = np.abs(gaps) < 1e-14
        gaps[exact] = 1.0
        terms = weights / gaps
        matrix = terms / terms.sum(axis=1, keepdims=True)
        rows = exact.any(axis=1)
        matrix[rows] = exact[rows]
        matrix.setflags(write=False)
        _MATRIX = matrix
    return _MATRIX


_MATRIX: Float | None = None
