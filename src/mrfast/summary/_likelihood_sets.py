"""Estimates whose confidence set is where a likelihood is high: it may be several intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from mrfast._validation import Float
from mrfast.summary.estimate import MREstimate

LogDensity = Callable[[Float], tuple[Float, Float, Float]]
"""Logarithm, slope and curvature of the logarithm, at points of shape (m,)."""

_STEPS = 100  # of Newton's method, each halving the bracket at least
_BEYOND = 8  # points on each side of a gap, half a width apart


@dataclass(frozen=True, kw_only=True)
class SetEstimate(MREstimate):
    """An estimate with a confidence set of one interval or several.

    Attributes
    ----------
    intervals : ndarray, shape (m, 2)
        Of the confidence set, ascending and apart; `ci_lower` and `ci_upper` are its ends.
    bounded : bool
        The set is bounded; otherwise outer ends are infinite.
    """

    intervals: Float
    bounded: bool

    def _more_rows(self) -> list[tuple[str, str]]:
        if len(self.intervals) == 1:
            return []
        return [
            ("intervals", ", ".join(f"{low:.4g} to {high:.4g}" for low, high in self.intervals))
        ]


def set_fields(intervals: Float) -> dict[str, Any]:
    """Fields of `SetEstimate` that follow from the intervals."""
    return {
        "ci_lower": float(intervals[0, 0]),
        "ci_upper": float(intervals[-1, 1]),
        "intervals": intervals,
        "bounded": bool(np.isfinite(intervals).all()),
    }


def chi_square_drop(ci_level: float) -> float:
    """Quantile of the chi-squared law with 1 df, halved: how far a log-likelihood may fall."""
    return float(ndtri((1 + ci_level) / 2)) ** 2 / 2


def ratio_p_value(statistic: float) -> float:
    """Upper tail of the chi-squared law with 1 df, for twice a log-likelihood difference."""
    return 2 * float(ndtr(-math.sqrt(max(statistic, 0.0))))


def set_messages(intervals: Float) -> list[str]:
    """What to say of the form of a confidence set."""
    messages = []
    if not np.isfinite(intervals).all():
        messages.append("the confidence set is unbounded: it holds effects of any size")
    if len(intervals) > 1:
        messages.append(
            f"the confidence set is {len(intervals)} separate intervals (field intervals); "
            "ci_lower and ci_upper are its ends"
        )
    return messages


def highest(log_density: LogDensity, starts: Float, widths: Float) -> tuple[float, float]:
    """Mode of a density, and the logarithm there.

    `starts` ascend and cover the places where modes may be; the density changes little within a
    quarter of `widths`.
    """
    value, slope, _ = log_density(starts)
    best = int(value.argmax())
    # The mode lies next to the best point, on the side to which the density rises.
    x, step = float(starts[best]), float(widths[best])
    toward = 1.0 if slope[best] > 0 else -1.0
    end = x + toward * step
    for _ in range(_STEPS):
        if log_density(np.array([end]))[1][0] * toward <= 0:
            break
        x, end = end, end + toward * step
    mode = _root(log_density, x, end, level=None)
    top = float(log_density(np.array([mode]))[0][0])
    if top < value[best]:
        return float(starts[best]), float(value[best])
    return mode, top


def high_set(
    log_density: LogDensity, starts: Float, widths: Float, level: float, limit: float
) -> Float:
    """Intervals where the logarithm is at least `level`, shape (m, 2).

    `limit` is what it tends to at both infinities, its smallest value.
    """
    if level <= limit:
        return np.array([[-math.inf, math.inf]])
    points = _filled(starts, widths)
    for sign, end in ((-1, 0), (1, -1)):
        reach = float(widths[end])
        while log_density(points[[end]])[0][0] >= level:
            points = np.insert(points, 0 if sign < 0 else len(points), points[end] + sign * reach)
            reach *= 2
    inside = log_density(points)[0] >= level
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    ends = [_root(log_density, float(points[i]), float(points[i + 1]), level) for i in edges]
    return np.array(ends).reshape(-1, 2)


def _filled(starts: Float, widths: Float) -> Float:
    """Points, with more of them in the gaps, where a density may fall below a level."""
    more = [starts]
    gaps = np.flatnonzero(np.diff(starts) > (widths[:-1] + widths[1:]) / 2)
    for i in gaps:
        steps = np.arange(1, _BEYOND + 1) / 2
        inner = np.concatenate(
            [starts[i] + steps * widths[i], starts[i + 1] - steps * widths[i + 1]]
        )
        more.append(inner[(inner > starts[i]) & (inner < starts[i + 1])])
    return np.unique(np.concatenate(more))


def _root(log_density: LogDensity, lower: float, upper: float, level: float | None) -> float:
    """Where the logarithm is `level`, or (None) flat, between points on both sides of that."""

    def at(x: float) -> tuple[float, float]:
        value, slope, curvature = (float(part[0]) for part in log_density(np.array([x])))
        return (slope, curvature) if level is None else (value - level, slope)

    low, high = sorted((lower, upper))
    sign = 1.0 if at(low)[0] > 0 else -1.0
    x = (low + high) / 2
    for _ in range(_STEPS):
        value, slope = at(x)
        if value * sign > 0:
            low = x
        else:
            high = x
        step = value / slope if slope else math.inf
        new = x - step
        if not low < new < high:
            new = (low + high) / 2
        if abs(new - x) <= 1e-14 * max(abs(low), abs(high)):
            return new
        x = new
    return x
