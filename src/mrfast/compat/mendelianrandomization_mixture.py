"""MendelianRandomization 0.10.0: mixtures over the validity of SNPs, on its grids."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, ndtri

from mrfast import _core
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.compat.mendelianrandomization import VERSION
from mrfast.compat.peer_estimate import PeerEstimate
from mrfast.summary._inputs import associations

__all__ = ["mendelianrandomization_0_10_conmix", "mendelianrandomization_0_10_hetpen"]

_MOST = 25  # SNPs whose sets it counts


def mendelianrandomization_0_10_conmix(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    psi: float = 0.0,
    step: float = 0.01,
    alpha: float = 0.05,
) -> PeerEstimate:
    """``mr_conmix``: estimate and limits on a grid, and a p-value whose correction is inverted.

    Its p-value multiplies the likelihood ratio by phi^2 where its interval divides: too small
    wherever phi is above 1. The grid of fixed step ends at min((by - 2 sy)/bx) and
    max((by + 2 sy)/bx): too coarse on small scales, and with negative bx it may be too short.
    `mrfast.contamination_mixture` has no grid, and divides.

    Parameters
    ----------
    psi : float, default 0
        0: 1.5 standard deviations of the ratios.
    step : float, default 0.01
        Of the grid, ``CIStep``.
    alpha : float, default 0.05

    Returns
    -------
    PeerEstimate
        `ci_lower` and `ci_upper` are the ends of its ``CIRange``; it has no standard error.
    """
    psi = check.scalar("psi", psi, minimum=0)
    step = check.scalar("step", step, above=0)
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=1 if psi else 2,
        needs_se_exposure=False,
        nonzero=True,
    )
    ratio, error = data.by / data.bx, data.sy / np.abs(data.bx)
    psi = psi or 1.5 * float(ratio.std(ddof=1))
    wide = np.sqrt(psi**2 + error**2)
    invalid = -((ratio / wide) ** 2) / 2 - np.log(wide)

    def valid(theta: Float) -> Float:
        return -(((theta[:, None] - ratio) / error) ** 2) / 2 - np.log(error)

    def log_likelihood(theta: Float) -> Float:
        return np.asarray(np.maximum(valid(theta), invalid).sum(axis=1))

    theta = _grid(
        float(((data.by - 2 * data.sy) / data.bx).min()),
        float(((data.by + 2 * data.sy) / data.bx).max()),
        step,
    )
    values = log_likelihood(theta)
    best = int(values.argmax())
    chosen = (valid(theta[[best]]) > invalid)[0]
    precision, n = error[chosen] ** -2, int(chosen.sum())
    mean = (ratio[chosen] * precision).sum() / precision.sum()
    q = float(((ratio[chosen] - mean) ** 2 * precision).sum())
    scale = max(1.0, q / (n - 1)) if n > 1 else 1.0
    inside = theta[2 * values > 2 * values[best] - float(ndtri(alpha / 2)) ** 2 * scale]
    fall = 2 * float(values[best] - log_likelihood(np.zeros(1))[0])
    p = float(chdtrc(1, max(0.0, fall * scale)))
    return _estimate("mr_conmix", float(theta[best]), inside, p, len(ratio), alpha)


def mendelianrandomization_0_10_hetpen(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    prior: float = 0.5,
    lower: float = -1.0,
    upper: float = 1.0,
    step: float = 0.001,
    alpha: float = 0.05,
) -> PeerEstimate:
    """``mr_hetpen``: on a grid from -1 to 1, whatever the scale of the effect.

    An estimate or a limit of 1 or -1 is the end of its grid. `mrfast.heterogeneity_penalised` has
    no grid.

    Parameters
    ----------
    prior : float, default 0.5
    lower, upper, step : float
        Of the grid: ``CIMin``, ``CIMax``, ``CIStep``.
    alpha : float, default 0.05

    Returns
    -------
    PeerEstimate
        It has no standard error and no p-value.
    """
    prior = check.scalar("prior", prior, above=0, below=1)
    lower = check.scalar("lower", lower)
    upper = check.scalar("upper", upper, above=lower)
    step = check.scalar("step", step, above=0)
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=2,
        needs_se_exposure=False,
        nonzero=True,
    )
    n = len(data.bx)
    if n > _MOST:
        raise check.fail("beta_exposure", f"at most {_MOST} SNPs", f"{n}")
    parts, _, _ = _core.mixture.subset_mixture(
        data.by / data.bx, data.sy / np.abs(data.bx), prior=prior, smallest=2
    )
    weight, mean, variance = parts.T
    height = np.log(weight) - np.log(variance) / 2
    theta = _grid(lower, upper, step)
    exponents = (height - (at - mean) ** 2 / variance / 2 for at in theta)
    values = np.array([np.logaddexp.reduce(exponent) for exponent in exponents])
    inside = theta[2 * values > 2 * values.max() - float(ndtri(alpha / 2)) ** 2]
    return _estimate("mr_hetpen", float(theta[values.argmax()]), inside, math.nan, n, alpha)


def _grid(lower: float, upper: float, step: float) -> Float:
    count = math.floor((upper - lower) / step + 1e-10) + 1
    return np.asarray(lower + step * np.arange(count), dtype=np.float64)


def _estimate(
    function: str, estimate: float, inside: Float, p: float, n: int, alpha: float
) -> PeerEstimate:
    return PeerEstimate(
        method=function,
        package="MendelianRandomization",
        version=VERSION,
        function=function,
        estimate=estimate,
        std_error=math.nan,
        ci_lower=float(inside[0]),
        ci_upper=float(inside[-1]),
        p_value=p,
        n_snps=n,
        ci_level=1 - alpha,
    )
