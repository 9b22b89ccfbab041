"""Multivariable inverse-variance weighting: `mv_ivw`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._least_squares import Whitening, correlations
from mrfast.summary._multivariable import (
    MVAssociations,
    counted,
    error_correlations,
    multiple_least_squares,
    mv_associations,
)
from mrfast.summary._regression import FEW_FOR_ROBUST, regression_options, robust_fit
from mrfast.summary.conditional_strength import combined_variance, strength_of, weak_exposures
from mrfast.summary.estimate import (
    Inference,
    chi_square_p,
    heterogeneity_fields,
    ignored_heterogeneity,
    no_heterogeneity_fields,
)
from mrfast.summary.mv_estimate import MVRegressionEstimate, mv_inference

__all__ = ["MVFit", "MVIVWEstimate", "mv_fit", "mv_ivw", "strength_fields"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MVIVWEstimate(MVRegressionEstimate):
    """Result of `mv_ivw`; further fields as in `MVRegressionEstimate`.

    Attributes
    ----------
    q_adjusted, q_adjusted_p_value : float
        Q with the errors of the exposure associations in the variances of the residuals, and its
        chi-squared p-value: a test of pleiotropy that these errors do not trigger. NaN without
        `se_exposure` and for robust fits.
    """

    title = "multivariable inverse-variance weighted"

    q_adjusted: float
    q_adjusted_p_value: float


def mv_ivw(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    exposures: Sequence[object] | None = None,
    model: str = "random",
    robust: bool = False,
    exposure_correlation: Any = None,
    ld: Any = None,
    snps: Sequence[object] | None = None,
    ld_snps: Sequence[object] | None = None,
    distribution: str = "normal",
    ci_level: float = 0.95,
) -> MVIVWEstimate:
    """Multivariable inverse-variance weighted estimates: by on all columns of bx at once.

    Weighted least squares through the origin with weights 1/sy^2. Each estimate is the direct
    effect of an exposure, the others held fixed.

    Parameters
    ----------
    beta_exposure : array_like, shape (J, K)
        Associations of J SNPs with K exposures, per copy of the same allele; a column an exposure.
    se_exposure : array_like, shape (J, K), optional
        Only gives `f_statistic` and `conditional_f_statistic`.
    beta_outcome, se_outcome : array_like, shape (J,)
    exposures : sequence of str, optional
        Names; columns of a table have their own.
    model : {"random", "fixed"}, default "random"
        Multiplicative random effects: standard errors times the residual standard error, which is
        taken as at least 1.
    robust : bool, default False
        MM-estimation with Tukey's bisquare (breakdown point 1/2, efficiency 95%), from at most
        2,000 subsets of K SNPs, always the same ones. Standard errors are sandwich ones, divided
        by the scale of the residuals where that is below 1.
    exposure_correlation : array_like, shape (K, K), optional
        Correlations of the errors of a SNP's associations with the exposures, for
        `conditional_f_statistic`; see `mrfast.conditional_f`.
    ld, snps, ld_snps
        Correlations between SNPs, as in `mrfast.ivw`: generalised least squares.
    distribution : {"normal", "t"}, default "normal"
        ``"t"`` has J - K degrees of freedom.
    ci_level : float, default 0.95

    Returns
    -------
    MVIVWEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays; fewer SNPs than exposures, or exposures that are collinear; options that do
        not go together; `ld` that is not a correlation matrix.

    References
    ----------
    Burgess, Thompson (2015), doi:10.1093/aje/kwu283; Sanderson, Davey Smith, Windmeijer, Bowden
    (2019), doi:10.1093/ije/dyy262; Sanderson, Spiller, Bowden (2021), doi:10.1002/sim.9133
    (adjusted Q); Grant, Burgess (2021), doi:10.1002/sim.9156 (robust).

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.mv_ivw(
    ...     beta_exposure=[[0.10, 0.02], [0.05, 0.12], [0.11, 0.01], [0.01, 0.09]],
    ...     beta_outcome=[0.05, 0.01, 0.06, -0.01],
    ...     se_outcome=[0.01, 0.01, 0.01, 0.01],
    ...     exposures=["LDL", "HDL"],
    ... )
    >>> result.estimate.round(3).tolist()
    [0.549, -0.156]
    """
    options = regression_options(
        model=model,
        weights="first_order",
        distribution=distribution,
        robust=robust,
        penalised=False,
        ci_level=ci_level,
        has_ld=ld is not None,
    )
    data = mv_associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        exposures=exposures,
        spare=1 if options.robust or distribution == "t" else 0,
        needs_se_exposure=False,
    )
    j, k = data.bx.shape
    whiten = Whitening(None if ld is None else correlations(ld, snps, ld_snps, j))
    fit = mv_fit(data.bx, data.by, data.sy, whiten, options.model, options.robust)
    strength, messages = strength_fields(data, exposure_correlation, whiten)
    adjusted = math.nan
    if not (robust or np.isnan(data.sx).any()) and j > k:
        correlation = error_correlations("", exposure_correlation, data.exposures)
        variance = data.sy**2 + combined_variance(data.sx, fit.estimate, correlation)
        rest = data.by - np.einsum("jk,k->j", data.bx, fit.estimate)
        adjusted = float((whiten(rest, np.sqrt(variance)) ** 2).sum())
    if fit.q["q_df"] == 0:
        messages.append("as many SNPs as exposures: heterogeneity cannot be seen")
    if options.robust and j < FEW_FOR_ROBUST * k:
        messages.append(f"{j} SNPs are few for a robust fit of {counted(k, 'exposure')}")
    elif options.model == "fixed":
        messages += ignored_heterogeneity(fit.q["q_p_value"], "model='fixed'")
    law = Inference(distribution, j - k, options.ci_level)
    return MVIVWEstimate(
        method="mv_ivw",
        exposures=data.exposures,
        n_snps=j,
        model=model,
        distribution=distribution,
        robust=options.robust,
        covariance=fit.covariance,
        q_adjusted=adjusted,
        q_adjusted_p_value=chi_square_p(adjusted, j - k),
        messages=tuple(messages),
        **strength,
        **fit.q,
        **mv_inference(fit.estimate, np.sqrt(fit.covariance.diagonal()), law, options.ci_level),
    )


@dataclass(frozen=True)
class MVFit:
    """A weighted regression: estimates, their covariance, fields of heterogeneity."""

    estimate: Float
    covariance: Float
    q: dict[str, Any]


def mv_fit(
    columns: Float, by: Float, sy: Float, whiten: Whitening, model: str, robust: bool
) -> MVFit:
    """Regression of by on columns, shape (J, P), with weights 1/sy^2."""
    j, p = columns.shape
    if robust:
        line = robust_fit(columns, by, sy)
        q = no_heterogeneity_fields(j - p, line.scale)
        return MVFit(line.coefficients, line.covariance / min(1.0, line.scale) ** 2, q)
    estimate, inverse, square = multiple_least_squares(whiten(columns, sy), whiten(by, sy))
    q = heterogeneity_fields(square if j > p else 0.0, j - p)
    scale = q["residual_std_error"] if model == "random" and j > p else 1.0
    return MVFit(estimate, inverse * max(1.0, scale) ** 2, q)


def strength_fields(
    data: MVAssociations, exposure_correlation: Any, whiten: Whitening
) -> tuple[dict[str, Any], list[str]]:
    """F statistics of a result, and what to say of them."""
    k = len(data.exposures)
    if np.isnan(data.sx).any():
        if exposure_correlation is not None:
            raise check.fail("exposure_correlation", "None without se_exposure", "some")
        nothing = np.full(k, np.nan)
        return {"f_statistic": nothing, "conditional_f_statistic": nothing}, []
    correlation = error_correlations("exposure_correlation", exposure_correlation, data.exposures)
    strength = strength_of(data, correlation, whiten)
    conditional = strength.conditional_f_statistic
    return (
        {"f_statistic": strength.f_statistic, "conditional_f_statistic": conditional},
        weak_exposures(data.exposures, conditional),
    )
