"""The numbers of the R package MR-PRESSO 1.0: `mr_presso_1_0`.

Its tests are simulated, p-values are plain shares of draws (0 where it prints "<1/n"), and it has
two faults that are kept here: the distortion test leaves outliers among the SNPs that it resamples,
and with several exposures the draws of the outlier test are multiplied by recycled estimates.
`mrfast.mr_presso` has neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float

__all__ = ["MRPresso10", "mr_presso_1_0"]

_BLOCK = 500_000  # numbers that are drawn at once


@dataclass(frozen=True, kw_only=True, eq=False)
class MRPresso10:
    """What ``MRPRESSO::mr_presso`` returns, K exposures and J SNPs.

    Attributes
    ----------
    estimate, std_error, t_statistic, p_value : ndarray, shape (2, K)
        "Main MR results": first of all SNPs, then without outliers (NaN where there are none).
    rss : float
        RSSobs.
    global_p_value : float
    outlier_rss, outlier_p_value : ndarray, shape (J,), or None
        None where the global test is not below `alpha`.
    outliers : tuple of int
        Positions from 0.
    distortion, distortion_p_value : ndarray, shape (K,), or None
        "Distortion Coefficient" in percent.
    """

    estimate: Float
    std_error: Float
    t_statistic: Float
    p_value: Float
    rss: float
    global_p_value: float
    outlier_rss: Float | None
    outlier_p_value: Float | None
    outliers: tuple[int, ...]
    distortion: Float | None
    distortion_p_value: Float | None


def mr_presso_1_0(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    alpha: float = 0.05,
    n_draws: int = 1000,
    rng: object = None,
) -> MRPresso10:
    """MR-PRESSO as version 1.0 of the R package computes it, with all its tests.

    Parameters
    ----------
    beta_exposure, se_exposure : array_like, shape (J,) or (J, K)
    beta_outcome, se_outcome : array_like, shape (J,)
    alpha : float, default 0.05
        ``SignifThreshold``.
    n_draws : int, default 1000
        ``NbDistribution``; above J.
    rng : int, SeedSequence or Generator, optional

    Returns
    -------
    MRPresso10

    Raises
    ------
    InvalidInputError
        Fewer than K + 3 SNPs, or not more draws than SNPs.
    """
    x = check.float_array("beta_exposure", beta_exposure, ndim=None)
    sx = check.float_array("se_exposure", se_exposure, ndim=x.ndim, shape=x.shape, positive=True)
    if x.ndim not in (1, 2):
        raise check.fail("beta_exposure", "1 or 2 dimensions", f"{x.ndim}")
    x, sx = x.reshape(len(x), -1), sx.reshape(len(x), -1)
    j, k = x.shape
    y = check.float_array("beta_outcome", beta_outcome, ndim=1, shape=(j,))
    sy = check.float_array("se_outcome", se_outcome, ndim=1, shape=(j,), positive=True)
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    if j <= k + 2:
        raise check.fail("beta_exposure", f"at least {k + 3} SNPs", f"{j}")
    n = check.integer("n_draws", n_draws, minimum=j + 1)
    random = generator(rng)
    sign = np.sign(x[:, 0])
    x, y = x * sign[:, None], y * sign

    rss, residual, without = _leave_one_out(x[None], y[None], sy)
    residual, without = residual[0], without[0]
    mean = (x * without).sum(axis=1)
    above, larger = 0, np.zeros(j, dtype=np.int64)
    block = max(1, _BLOCK // (j * (k + 1)))
    for first in range(0, n, block):
        rows = np.arange(first, min(first + block, n))
        drawn_x = x + sx * random.standard_normal((len(rows), j, k))
        drawn_y = mean + sy * random.standard_normal((len(rows), j))
        above += int((_leave_one_out(drawn_x, drawn_y, sy)[0] > rss[0]).sum())
        # Row b and column i of a matrix that R fills by columns with K recycled numbers.
        recycled = (rows[:, None] + n * np.arange(k)) % k
        fitted = (drawn_x * without[:, recycled].transpose(1, 0, 2)).sum(axis=2)
        larger += ((drawn_y - fitted) ** 2 > residual**2).sum(axis=0)

    global_p = above / n
    main = _least_squares(x, y, sy)
    nothing = np.full_like(main, np.nan)
    outlier_p = np.minimum(larger / n * j, 1.0) if global_p < alpha else None
    outliers = np.flatnonzero(outlier_p <= alpha) if outlier_p is not None else np.arange(0)
    corrected, distortion, distortion_p = nothing, None, None
    kept = np.setdiff1d(np.arange(j), outliers)
    if len(outliers) and len(kept) > k:
        corrected = _least_squares(x[kept], y[kept], sy[kept])
        observed = (main[0] - corrected[0]) / np.abs(corrected[0])
        counts = np.zeros(k, dtype=np.int64)
        for _ in range(n):
            drawn = np.concatenate([outliers, random.choice(kept, len(kept))])[: len(kept)]
            other = _solve(x[None, drawn], y[None, drawn], sy[drawn])[0][0]
            counts += np.abs((main[0] - other) / np.abs(other)) > np.abs(observed)
        distortion, distortion_p = 100 * observed, counts / n
    estimate, error, ratio, p = (np.stack(pair) for pair in zip(main, corrected, strict=True))
    return MRPresso10(
        estimate=estimate,
        std_error=error,
        t_statistic=ratio,
        p_value=p,
        rss=float(rss[0]),
        global_p_value=global_p,
        outlier_rss=None if outlier_p is None else residual**2,
        outlier_p_value=outlier_p,
        outliers=tuple(outliers.tolist()),
        distortion=distortion,
        distortion_p_value=distortion_p,
    )


def _solve(x: Float, y: Float, sy: Float) -> tuple[Float, Float]:
    """Estimates (B, K) of B data sets, and the inverse of their cross products (B, K, K)."""
    a, c = x / sy[:, None], y / sy
    inverse = np.linalg.inv(np.einsum("bja,bjc->bac", a, a))
    return np.einsum("bac,bc->ba", inverse, np.einsum("bja,bj->ba", a, c)), inverse


def _leave_one_out(x: Float, y: Float, sy: Float) -> tuple[Float, Float, Float]:
    """Sums of squares (B,), residuals (B, J) and estimates (B, J, K), of each SNP left out."""
    estimate, inverse = _solve(x, y, sy)
    a = x / sy[:, None]
    solved = np.einsum("bac,bjc->bja", inverse, a)
    share = 1 - (solved * a).sum(axis=2)
    residual = (y - np.einsum("bja,ba->bj", x, estimate)) / share
    without = estimate[:, None] - solved * (residual / sy)[:, :, None]
    return ((residual / sy) ** 2).sum(axis=1), residual, without


def _least_squares(x: Float, y: Float, sy: Float) -> NDArray[np.float64]:
    """Estimates, standard errors, t statistics and p-values (4, K) of R's ``lm``."""
    from scipy.special import stdtr

    estimate, inverse = (part[0] for part in _solve(x[None], y[None], sy))
    df = len(y) - len(estimate)
    residual = (y - np.einsum("ja,a->j", x, estimate)) / sy
    error = np.sqrt((residual**2).sum() / df * inverse.diagonal())
    ratio = estimate / error
    return np.stack([estimate, error, ratio, 2 * stdtr(df, -np.abs(ratio))])
