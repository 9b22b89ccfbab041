"""Random seeds of the kernels, and how exact simulated standard errors are."""

from __future__ import annotations

import math

import numpy as np

from mrfast._runtime import generator
from mrfast._validation import Float

_LOWER, _UPPER = 0.15865525393145707, 0.8413447460685429  # one normal standard deviation
MAD_SCALE = 1.4826  # median absolute deviation to standard deviation, as in R


def kernel_seed(rng: object) -> int:
    """64 bits for a counter-based generator."""
    return int(generator(rng).integers(2**64, dtype=np.uint64))


def _density(draws: Float, p: float) -> float:
    """Density of the draws at their quantile p, from the spacing around it."""
    reach = min(0.05, p / 2, (1 - p) / 2)
    low, high = np.quantile(draws, [p - reach, p + reach])
    return 2 * reach / float(high - low) if high > low else math.inf


def quantile_error(draws: Float, p: float) -> float:
    """Monte-Carlo standard error of the quantile p of draws."""
    return math.sqrt(p * (1 - p) / len(draws)) / _density(draws, p)


def standard_deviation(draws: Float) -> tuple[float, float]:
    """Standard deviation of draws, and its Monte-Carlo standard error."""
    centred = draws - draws.mean()
    unit = 2.0 ** math.frexp(float(np.abs(centred).max()))[1]  # fourth powers stay in range
    square = (centred / unit) ** 2
    variance = float(square.sum()) / (len(draws) - 1)
    spread = float((square**2).mean()) - float(square.mean()) ** 2
    sd = math.sqrt(variance)
    if sd == 0:
        return 0.0, 0.0
    return unit * sd, unit * math.sqrt(max(spread, 0.0) / len(draws)) / (2 * sd)


def standard_deviations(draws: Float) -> tuple[Float, Float]:
    """The same of every column."""
    found = [standard_deviation(np.ascontiguousarray(column)) for column in draws.T]
    sd, error = np.array(found).T
    return sd, error


def halfwidth(draws: Float) -> tuple[float, float]:
    """Half of the central 68.27% interval of draws, and its Monte-Carlo standard error."""
    low, high = np.quantile(draws, [_LOWER, _UPPER])
    f, g = _density(draws, _LOWER), _density(draws, _UPPER)
    variance = (1 / f**2 + 1 / g**2) * _LOWER * _UPPER - 2 * _LOWER**2 / (f * g)
    return float(high - low) / 2, math.sqrt(max(variance, 0.0) / len(draws)) / 2


def scaled_mad(draws: Float) -> tuple[float, float]:
    """1.4826 times the median absolute deviation, and its Monte-Carlo standard error."""
    distance = np.abs(draws - np.median(draws))
    middle = float(np.median(distance))
    return MAD_SCALE * middle, MAD_SCALE / (2 * _density(distance, 0.5) * math.sqrt(len(draws)))
