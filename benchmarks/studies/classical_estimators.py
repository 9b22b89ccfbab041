"""Classical estimators of Mendelian randomization, for comparison in the studies.

Each takes the per-variant coefficients and standard errors of the two studies and returns an
estimate with its standard error; intervals are normal. Written from the papers:

- inverse-variance weighting with multiplicative random effects: Bowden et al. (2017),
  doi:10.1002/sim.7221;
- MR-Egger: Bowden et al. (2015), doi:10.1093/ije/dyv080;
- weighted median: Bowden et al. (2016), doi:10.1002/gepi.21965;
- weighted mode: Hartwig et al. (2017), doi:10.1093/ije/dyx102.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

_NORMAL_975 = 1.959963984540054
_MAD_SCALE = 1.482602218505602  # median absolute deviation to standard deviation
_MODE_STEPS = 200


class Estimate(NamedTuple):
    """An estimate with its standard error."""

    estimate: float
    std_error: float

    @property
    def lower(self) -> float:
        """Lower limit of the 95% interval."""
        return self.estimate - _NORMAL_975 * self.std_error

    @property
    def upper(self) -> float:
        """Upper limit of the 95% interval."""
        return self.estimate + _NORMAL_975 * self.std_error


class Associations(NamedTuple):
    """Coefficients and standard errors of J variants in the two studies, each of shape (J,)."""

    beta_exposure: Float
    se_exposure: Float
    beta_outcome: Float
    se_outcome: Float


def inverse_variance_weighted(data: Associations) -> Estimate:
    """Weighted regression through the origin; the dispersion is at least 1."""
    weight = data.se_outcome**-2.0
    information = float((weight * data.beta_exposure**2).sum())
    slope = float((weight * data.beta_exposure * data.beta_outcome).sum()) / information
    residual = data.beta_outcome - slope * data.beta_exposure
    dispersion = float((weight * residual**2).sum()) / (residual.size - 1)
    return Estimate(slope, float(np.sqrt(max(1.0, dispersion) / information)))


def egger(data: Associations) -> tuple[Estimate, Estimate]:
    """Weighted regression with an intercept, exposure effects made positive.

    Returns slope and intercept; the dispersion is at least 1.
    """
    sign = np.where(data.beta_exposure < 0, -1.0, 1.0)
    x, y = sign * data.beta_exposure, sign * data.beta_outcome
    weight = data.se_outcome**-2.0
    total = float(weight.sum())
    mean_x, mean_y = float((weight * x).sum()) / total, float((weight * y).sum()) / total
    spread = float((weight * (x - mean_x) ** 2).sum())
    slope = float((weight * (x - mean_x) * (y - mean_y)).sum()) / spread
    intercept = mean_y - slope * mean_x
    residual = y - intercept - slope * x
    dispersion = max(1.0, float((weight * residual**2).sum()) / (x.size - 2))
    return (
        Estimate(slope, float(np.sqrt(dispersion / spread))),
        Estimate(intercept, float(np.sqrt(dispersion * (1 / total + mean_x**2 / spread)))),
    )


def weighted_median(data: Associations, rng: np.random.Generator, draws: int = 150) -> Estimate:
    """Median of the ratios, weighted by their first-order precision, interpolated.

    The standard error is that of `draws` parametric bootstraps with the weights held fixed.
    """
    weight = (data.beta_exposure / data.se_outcome) ** 2
    ratio = data.beta_outcome / data.beta_exposure
    size = (draws, ratio.size)
    x = data.beta_exposure + data.se_exposure * rng.standard_normal(size)
    y = data.beta_outcome + data.se_outcome * rng.standard_normal(size)
    bootstrap = _median(y / x, weight)
    return Estimate(float(_median(ratio[None], weight)[0]), float(bootstrap.std(ddof=1)))


def _median(values: Float, weight: Float) -> Float:
    """Interpolated weighted medians of rows: where (cumulative weight - weight / 2) is half."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    share = weight[order] / weight.sum()
    position = np.cumsum(share, axis=1) - share / 2
    above = np.clip((position < 0.5).sum(axis=1), 1, values.shape[1] - 1)
    rows = np.arange(values.shape[0])
    low, high = position[rows, above - 1], position[rows, above]
    fraction = np.clip((0.5 - low) / (high - low), 0, 1)
    start = ordered[rows, above - 1]
    return start + fraction * (ordered[rows, above] - start)


def weighted_mode(data: Associations, rng: np.random.Generator, draws: int = 150) -> Estimate:
    """Mode of the kernel density of the ratios, weighted by their second-order precision.

    Bandwidth 0.9 min(sd, mad) / J^(1/5), phi = 1. The standard error is the scaled median
    absolute deviation of `draws` normal bootstraps of the ratios.
    """
    ratio = data.beta_outcome / data.beta_exposure
    se_ratio = np.sqrt(
        (data.se_outcome / data.beta_exposure) ** 2
        + (ratio * data.se_exposure / data.beta_exposure) ** 2
    )
    weight = se_ratio**-2.0
    weight /= weight.sum()
    bootstrap = ratio + se_ratio * rng.standard_normal((draws, ratio.size))
    modes = _mode(np.vstack([ratio, bootstrap]), weight)
    drawn = modes[1:]
    spread = _MAD_SCALE * float(np.median(np.abs(drawn - np.median(drawn))))
    return Estimate(float(modes[0]), spread)


def _mode(values: Float, weight: Float) -> Float:
    """Modes of the weighted normal kernel densities of rows.

    From the value of highest density, by the mean-shift iteration.
    """
    centre = np.median(values, axis=1, keepdims=True)
    mad = _MAD_SCALE * np.median(np.abs(values - centre), axis=1)
    spread = np.minimum(values.std(axis=1, ddof=1), mad)
    bandwidth = np.maximum(0.9 * spread * values.shape[1] ** -0.2, 1e-8)[:, None]
    scaled = (values - centre) / bandwidth
    density = np.empty_like(scaled)
    for column in range(scaled.shape[1]):
        kernel = np.exp(-0.5 * (scaled - scaled[:, [column]]) ** 2)
        density[:, column] = (kernel * weight).sum(axis=1)
    mode = np.take_along_axis(scaled, density.argmax(axis=1)[:, None], axis=1)
    for _ in range(_MODE_STEPS):
        kernel = np.exp(-0.5 * (scaled - mode) ** 2) * weight
        moved = (kernel * scaled).sum(axis=1, keepdims=True) / kernel.sum(axis=1, keepdims=True)
        change = np.abs(moved - mode).max()
        mode = moved
        if change < 1e-7:
            break
    return (centre + bandwidth * mode)[:, 0]
