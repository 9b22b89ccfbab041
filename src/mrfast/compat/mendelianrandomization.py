"""MendelianRandomization 0.10.0, where its numbers are not mrfast's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, ndtr, ndtri, stdtr, stdtrit

from mrfast import _validation as check
from mrfast.compat.peer_estimate import PeerEstimate
from mrfast.summary._inputs import associations, outcome_error
from mrfast.summary._regression import ratio_squares
from mrfast.summary.egger_regression import egger

__all__ = [
    "VERSION",
    "mendelianrandomization_0_10_egger",
    "mendelianrandomization_0_10_penalised_ivw",
]

VERSION = "0.10.0"


def mendelianrandomization_0_10_egger(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    distribution: str = "t-dist",
    penalised: bool = False,
    ld: ArrayLike | None = None,
    alpha: float = 0.05,
) -> PeerEstimate:
    """``mr_egger``: its own rule for Student's law, p-values that stop at 1e-16.

    With a residual standard error sigma below 1, limits are the wider ones of the normal law with
    the error floored at 1 and of Student's law with the unfloored error, which is narrower than
    the law of either assumption; the p-value is the larger of the two. p-values are
    2 (1 - cdf): multiples of 1e-16, and exactly 0 below. `mrfast.egger` uses one law and one
    error.

    Parameters
    ----------
    distribution : {"t-dist", "normal"}, default "t-dist"
    penalised : bool, default False
    ld : array_like, shape (J, J), optional
        Correlations of the SNPs.
    alpha : float, default 0.05

    Returns
    -------
    PeerEstimate
        NaN for Q of a penalised fit.
    """
    check.choice("distribution", distribution, ("t-dist", "normal"))
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    data = associations(
        beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=3, needs_se_exposure=False
    )
    # sign(0) is 0 there: a SNP without an exposure association loses its outcome association.
    fit = egger(
        beta_exposure=data.bx,
        beta_outcome=np.where(data.bx == 0, 0.0, data.by),
        se_outcome=data.sy,
        penalised=penalised,
        ld=ld,
    )
    df, sigma = fit.q_df, fit.residual_std_error
    normal, student = -float(ndtri(alpha / 2)), -float(stdtrit(df, alpha / 2))

    def inference(value: float, error: float) -> tuple[float, float, float]:
        p = 2 * (1 - float(ndtr(abs(value / error))))
        reach = normal * error
        if distribution == "t-dist":
            scale = min(1.0, sigma)
            p_student = 2 * (1 - float(stdtr(df, abs(value / error / scale))))
            p = max(p, p_student) if sigma < 1 else p_student
            reach = max(reach, student * error * sigma) if sigma < 1 else student * error
        return value - reach, value + reach, p

    lower, upper, p = inference(fit.estimate, fit.std_error)
    own_lower, own_upper, own_p = inference(fit.intercept, fit.intercept_std_error)
    return _estimate(
        "mr_egger", fit.estimate, fit.std_error, lower, upper, p, df + 2, alpha,
        intercept=fit.intercept,
        intercept_std_error=fit.intercept_std_error,
        intercept_ci_lower=own_lower,
        intercept_ci_upper=own_upper,
        intercept_p_value=own_p,
        q=fit.q,
        q_df=df,
        q_p_value=fit.q_p_value,
    )  # fmt: skip


def mendelianrandomization_0_10_penalised_ivw(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    alpha: float = 0.05,
) -> PeerEstimate:
    """``mr_ivw(penalized = TRUE, weights = "delta")``: another penalty than with simple weights.

    Weights times min(1, 20 p), though simple weights take 100 p. `mrfast.ivw` takes 100 p with
    both.

    Parameters
    ----------
    alpha : float, default 0.05

    Returns
    -------
    PeerEstimate
    """
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    data = associations(
        beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=2, nonzero=True
    )
    s = outcome_error(data, "second_order")
    factor = np.minimum(1.0, 20 * chdtrc(1, ratio_squares(data, s)))
    weight = factor / s**2
    information = float((weight * data.bx**2).sum())
    slope = float((weight * data.bx * data.by).sum()) / information
    n = len(data.bx)
    sigma = math.sqrt(float((weight * (data.by - slope * data.bx) ** 2).sum()) / (n - 1))
    error = (max(1.0, sigma) if n > 3 else 1.0) / math.sqrt(information)
    reach = -float(ndtri(alpha / 2)) * error
    p = 2 * float(ndtr(-abs(slope / error)))
    return _estimate("mr_ivw", slope, error, slope - reach, slope + reach, p, n, alpha)


def _estimate(
    function: str,
    estimate: float,
    error: float,
    lower: float,
    upper: float,
    p: float,
    n: int,
    alpha: float,
    **more: Any,
) -> PeerEstimate:
    return PeerEstimate(
        method=function,
        package="MendelianRandomization",
        version=VERSION,
        function=function,
        estimate=estimate,
        std_error=error,
        ci_lower=lower,
        ci_upper=upper,
        p_value=p,
        n_snps=n,
        ci_level=1 - alpha,
        **more,
    )
