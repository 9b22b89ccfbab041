"""Weighted regressions without each SNP in turn, without fitting them anew.

With leverage h and standardised residual e of a SNP, the fit without it has coefficients
b - M z e / (1 - h), inverse information M + M z z' M / (1 - h) and residual sum of squares
Q - e^2 / (1 - h), where z is the SNP's row of the design and M the inverse information (Cook and
Weisberg 1982, Residuals and Influence in Regression).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mrfast import _core
from mrfast._validation import Float

# Below these shares of the whole, differences lose digits: the fit is done anew.
_LEFT_LEVERAGE = 1e-6
_LEFT_Q = 1e-6


class Deletion(NamedTuple):
    """A regression of by on bx, and what it is without each SNP; arrays of shape (J,).

    `residual` is over the standard deviation of the outcome association. `intercept` and its
    columns are NaN for a line through the origin; `parameters` counts the coefficients.
    """

    parameters: int
    slope: float
    intercept: float
    q: float
    leverage: Float
    residual: Float
    slopes: Float
    slope_variances: Float
    intercepts: Float
    intercept_variances: Float
    qs: Float

    def cooks_distance(self) -> Float:
        """Squared shift of all fitted values without a SNP, over p times the residual variance."""
        variance = self.q / (len(self.leverage) - self.parameters)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(
                self.residual**2
                * self.leverage
                / ((1 - self.leverage) ** 2 * self.parameters * variance)
            )


def through_origin(x: Float, y: Float, s: Float) -> Deletion:
    """Regression through the origin with weights 1/s^2, at least 2 SNPs.

    Residuals belong to the alleles that raise the exposure.
    """
    y, x = np.where(x < 0, -y, y), np.abs(x)
    slope, information, q = _core.summary.fit_origin(x, y, s)
    z = x / s
    residual = (y - slope * x) / s
    leverage = z**2 / information
    nan = np.full(len(x), np.nan)

    def anew(j: int) -> tuple[float, float, float, float, float]:
        kept = np.delete(x, j), np.delete(y, j), np.delete(s, j)
        if not kept[0].any():
            return (np.nan,) * 5
        slope, information, q = _core.summary.fit_origin(*kept)
        return slope, 1 / information, np.nan, np.nan, q

    with np.errstate(divide="ignore", invalid="ignore"):
        left = 1 - leverage
        slopes = slope - z / information * residual / left
        variances = (1 + leverage / left) / information
        qs = q - residual**2 / left
    parts = (slopes, variances, nan.copy(), nan.copy(), qs)
    _repair(parts, left, q, anew)
    return Deletion(1, slope, np.nan, q, leverage, residual, *parts)


def line(x: Float, y: Float, s: Float) -> Deletion | None:
    """Regression with an intercept after turning every x positive, at least 4 SNPs.

    None where all x have one size.
    """
    valid, slope, intercept, _, _, q = _core.summary.fit_line(x, y, s)
    if not valid:
        return None
    y, x = np.where(x < 0, -y, y), np.abs(x)
    level = 1 / s
    total = float((level**2).sum())
    centre = float((x * level**2).sum()) / total
    spread = (x - centre) * level
    information = float((spread**2).sum())
    residual = (y - intercept - slope * x) * level
    leverage = level**2 / total + spread**2 / information

    def anew(j: int) -> tuple[float, float, float, float, float]:
        fit = _core.summary.fit_line(np.delete(x, j), np.delete(y, j), np.delete(s, j))
        valid, slope, intercept, slope_variance, intercept_variance, q = fit
        if not valid:
            return (np.nan,) * 5
        return slope, slope_variance, intercept, intercept_variance, q

    with np.errstate(divide="ignore", invalid="ignore"):
        left = 1 - leverage
        step = residual / left
        across = spread / information  # row of the SNP, of the slope
        along = level / total - centre * across  # of the intercept
        parts = (
            slope - across * step,
            1 / information + across**2 / left,
            intercept - along * step,
            1 / total + centre**2 / information + along**2 / left,
            q - residual * step,
        )
    _repair(parts, left, q, anew)
    return Deletion(2, slope, intercept, q, leverage, residual, *parts)


def _repair(
    parts: tuple[Float, ...], left: Float, q: float, anew: Callable[[int], tuple[float, ...]]
) -> None:
    """Fit anew where the closed form would lose digits."""
    # written so that what is not a number is fitted anew, too
    sound = (left > _LEFT_LEVERAGE) & (parts[-1] >= _LEFT_Q * q)
    for j in np.flatnonzero(~sound):
        for part, value in zip(parts, anew(int(j)), strict=True):
            part[j] = value
