"""What Medusa 0.1.0 computes, reproduced for comparison; not an estimate to use.

Medusa adds the sites' log-likelihoods on a grid of the log odds ratio per unit of score, by linear
interpolation where grids differ, takes the highest grid point and divides it by ``w'gamma``. One
unit of the score ``w'G`` moves the exposure by ``w'C gamma / w'C w``, which is larger by about the
effective number of instruments; so are Medusa's estimate, its error and its limits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrfast._validation import Float, fail
from mrfast.errors import MrfastWarning
from mrfast.federated.estimate import FederatedEstimate, heterogeneity_of
from mrfast.federated.node_profile import GridProfile
from mrfast.federated.pooling import PooledProfile
from mrfast.federated.site_profile import SiteProfile

__all__ = ["GridPool", "GridRatio", "grid_pool", "grid_ratio", "medusa_estimate"]

_GRID_TOLERANCE = 1e-10
_WEIGHT_TOLERANCE = 1e-10  # relative
_LEAST_DENOMINATOR = 1.5e-8


@dataclass(frozen=True, eq=False)
class GridPool:
    """Log-likelihoods of several sites, added on a grid.

    Attributes
    ----------
    grid, log_likelihood : ndarray, shape: (m,)
        The largest value is 0.
    interpolated : tuple of int
        Sites whose values were interpolated.
    """

    grid: Float
    log_likelihood: Float
    interpolated: tuple[int, ...]


@dataclass(frozen=True)
class GridRatio:
    """Medusa's estimate from a log-likelihood on a grid.

    Attributes
    ----------
    beta_outcome, se_outcome : float
        Highest grid point, and the error by a parabola through it and two points on each side.
    beta, std_error : float
        Ratio to the denominator, and its error by the delta method.
    ci_lower, ci_upper : float
        Grid points within the likelihood-ratio limits, over the denominator.
    p_value : float
        Of ``beta / std_error`` by the normal law.
    messages : tuple of str
    """

    beta_outcome: float
    se_outcome: float
    beta: float
    std_error: float
    ci_lower: float
    ci_upper: float
    p_value: float
    messages: tuple[str, ...]


def grid_pool(grids: Sequence[Float], values: Sequence[Float]) -> GridPool:
    """Add log-likelihoods on grids as Medusa does.

    Parameters
    ----------
    grids, values : sequences of ndarray
        Of every site, shape (m_k,).

    Returns
    -------
    GridPool

    Raises
    ------
    InvalidInputError
        The grids do not overlap.
    """
    first = grids[0]
    if all(g.size == first.size and np.all(np.abs(g - first) <= _GRID_TOLERANCE) for g in grids):
        plain: Float = np.sum(values, axis=0)
        return GridPool(first, plain - plain.max(), ())
    lower, upper = max(float(g[0]) for g in grids), min(float(g[-1]) for g in grids)
    if not lower < upper:
        raise fail("profiles", "grids that overlap", "grids without a common range")
    step = min(float(np.median(np.diff(g))) for g in grids)
    count = math.floor((upper - lower) / step * (1 + 1e-10)) + 1
    common = np.asarray(lower + step * np.arange(count), dtype=np.float64)
    if upper - common[-1] > step / 1000:
        common = np.array([*common, upper], dtype=np.float64)
    total = np.zeros(common.size)
    interpolated = []
    for k, (grid, value) in enumerate(zip(grids, values, strict=True)):
        if grid.size == common.size and np.all(np.abs(grid - common) <= _GRID_TOLERANCE):
            total += value
        else:
            total += np.interp(common, grid, value)
            interpolated.append(k)
    return GridPool(common, total - total.max(), tuple(interpolated))


def grid_ratio(
    grid: Float,
    log_likelihood: Float,
    denominator: float,
    denominator_error: float,
    level: float = 0.95,
) -> GridRatio:
    """Estimate from a log-likelihood on a grid as Medusa does.

    Parameters
    ----------
    grid, log_likelihood : ndarray, shape: (m,)
    denominator, denominator_error : float
        What the log odds ratio is divided by, and its standard error.
    level : float, default 0.95

    Returns
    -------
    GridRatio

    Raises
    ------
    InvalidInputError
        The denominator is zero.
    """
    from scipy.special import chdtri, ndtr

    if abs(denominator) < _LEAST_DENOMINATOR:
        raise fail("denominator", "a number that is not zero", repr(denominator))
    messages = []
    peak = int(np.argmax(log_likelihood))
    padded = np.concatenate([[-np.inf], log_likelihood, [-np.inf]])
    rising, falling = padded[1:-1] > padded[:-2], padded[1:-1] > padded[2:]
    if int((rising & falling).sum()) > 1:
        messages.append("the profile has several local maxima; the highest one is used")
    outcome, outcome_error = float(grid[peak]), _parabola_error(grid, log_likelihood, peak)
    threshold = float(log_likelihood[peak]) - float(chdtri(1, 1 - level)) / 2
    outside = np.nonzero(log_likelihood < threshold)[0]
    left, right = outside[outside < peak], outside[outside > peak]
    start = int(left[-1]) + 1 if left.size else 0
    end = int(right[0]) - 1 if right.size else grid.size - 1
    if int((log_likelihood >= threshold).sum()) > end - start + 1:
        messages.append("the likelihood-ratio set is disjoint; the part with the peak is reported")
    if start == 0 or end == grid.size - 1:
        messages.append("a limit is the end of the grid")
    limits = sorted((float(grid[start]) / denominator, float(grid[end]) / denominator))
    ratio = outcome / denominator
    error = math.hypot(outcome_error / denominator, outcome * denominator_error / denominator**2)
    p_value = 2 * float(ndtr(-abs(ratio / error))) if error > 0 else math.nan
    return GridRatio(
        outcome, outcome_error, ratio, error, limits[0], limits[1], p_value, tuple(messages)
    )


def _parabola_error(grid: Float, log_likelihood: Float, peak: int) -> float:
    """Error by the least-squares parabola through the peak and two points on each side."""
    if peak in (0, grid.size - 1):
        return math.inf
    near = slice(max(peak - 2, 0), peak + 3)
    x = grid[near] - grid[peak]
    scale = float(np.max(np.abs(x)))
    bend = float(np.polyfit(x / scale, log_likelihood[near], 2)[0]) / scale**2
    return math.sqrt(-1 / (2 * bend)) if bend < 0 else math.inf


def medusa_estimate(pooled: PooledProfile, ci_level: float) -> FederatedEstimate:
    """Medusa's pooled estimate, with a warning that says why it is wrong.

    Parameters
    ----------
    pooled : PooledProfile
        Sites with the same score of kind "inverse_variance".
    ci_level : float

    Returns
    -------
    FederatedEstimate
        Kappas are the denominator; Q is that of the grids.

    Raises
    ------
    InvalidInputError
        Scores differ, or are of another kind; or the grids do not overlap.
    """
    sites = pooled.sites
    first = sites[0].score
    for site in sites:
        if site.score.kind != "inverse_variance":
            raise fail(
                "scale",
                "'exposure', or sites fitted with score=\"inverse_variance\"",
                f"'medusa' with score {site.score.kind!r} at site {site.site_id}",
            )
        if not np.allclose(site.score.weights, first.weights, rtol=_WEIGHT_TOLERANCE, atol=0):
            raise fail(
                "scale",
                "'exposure', or sites with the same score weights",
                f"'medusa' with other weights at {sites[0].site_id} and {site.site_id}",
            )
    denominator, error = _denominator(pooled)
    grids, values = zip(*(_on_grid(site) for site in sites), strict=True)
    joined = grid_pool(grids, values)
    ratio = grid_ratio(joined.grid, joined.log_likelihood, denominator, error, ci_level)
    messages = [
        f"Medusa's number, not an estimate of the effect: it divides by sum w gamma = "
        f"{denominator:.4g}, while one unit of the score moves the exposure by "
        f'{_exposure_per_unit(pooled)}; use scale="exposure"'
    ]
    warnings.warn(messages[0], MrfastWarning, stacklevel=3)
    if joined.interpolated:
        names = ", ".join(sites[k].site_id for k in joined.interpolated)
        messages.append(f"linear interpolation to a common grid at {names}")
    messages += [*pooled.messages, *ratio.messages]
    K = len(sites)
    total = sum(np.interp(joined.grid, g, v) for g, v in zip(grids, values, strict=True))
    gain = sum(float(np.max(v)) for v in values) - float(np.max(total))
    return FederatedEstimate(
        beta=ratio.beta,
        std_error=ratio.std_error,
        ci_lower=ratio.ci_lower,
        ci_upper=ratio.ci_upper,
        ci_level=ci_level,
        confidence_set=((ratio.ci_lower, ratio.ci_upper),),
        p_value=ratio.p_value,
        heterogeneity=heterogeneity_of(max(2 * gain, 0.0), sum(pooled.informative) - 1),
        n_sites=sum(pooled.informative),
        total_cases=pooled.total_cases,
        total_controls=pooled.total_controls,
        sites=pooled.site_ids,
        kappas=np.full(K, denominator),
        kappa_covariance=np.full((K, K), error**2),
        scale="medusa",
        interval_method="grid",
        messages=tuple(messages),
        pooled=pooled,
    )


def _denominator(pooled: PooledProfile) -> tuple[float, float]:
    """``sum w gamma`` and its error, as if one unit of score moved the exposure by it."""
    site = next((site for site in pooled.sites if site.has_kappa), None)
    if site is not None:
        weights = site.score.weights
        error = np.sqrt(np.sum((weights * site.instrument_std_error) ** 2))
        return float(np.sum(weights * site.instrument_beta)), float(error)
    summary = pooled.sites[0].diagnostics
    beta, error = summary.get("medusa_beta_zx"), summary.get("medusa_se_zx")
    if beta is None or error is None:
        raise fail("profiles", "sites with the instruments' effects", "none with them")
    return float(beta), float(error)


def _exposure_per_unit(pooled: PooledProfile) -> str:
    if not all(site.has_kappa for site in pooled.sites):
        return "w'C gamma / w'C w, about as many times more as there are instruments"
    low, high = float(np.min(pooled.kappas)), float(np.max(pooled.kappas))
    return f"{low:.4g}" if math.isclose(low, high, rel_tol=1e-3) else f"{low:.4g} to {high:.4g}"


def _on_grid(site: SiteProfile) -> tuple[Float, Float]:
    """A site's grid and values; Medusa's default grid where it has none."""
    if site.grid is not None and site.log_likelihood is not None:
        return site.grid, site.log_likelihood
    if isinstance(site.profile, GridProfile):
        return site.profile.grid, site.profile.values
    grid: Float = -3 + 0.01 * np.arange(601.0)
    return grid, site.profile(grid)
