"""Egger regression: `egger`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.summary._draws import standard_deviations
from mrfast.summary._inputs import Associations, associations, outcome_error
from mrfast.summary._least_squares import Whitening, correlations, least_squares
from mrfast.summary._regression import (
    penalised_error,
    regression_options,
    robust_fit,
    robust_messages,
    unweighted_variances,
)
from mrfast.summary.estimate import (
    Inference,
    RegressionEstimate,
    heterogeneity_fields,
    inference,
    intercept_fields,
    no_heterogeneity_fields,
    strength_messages,
)

__all__ = ["EggerEstimate", "egger"]

DILUTED = 0.9
"""I2_GX below which a reader should know."""

_CHUNK = 1 << 19  # numbers drawn at a time


@dataclass(frozen=True, kw_only=True)
class EggerEstimate(RegressionEstimate):
    """Result of `egger`; further fields as in `RegressionEstimate`.

    Attributes
    ----------
    intercept, intercept_std_error, intercept_ci_lower, intercept_ci_upper : float
        Mean pleiotropic effect of the SNPs per allele that raises the exposure.
    intercept_p_value : float
        Of no directional pleiotropy.
    i2_gx : float
        Share of the variation of the exposure associations that is not their error, 0 to 1: the
        slope is about that share of its size too near zero. NaN without `se_exposure`.
    i2_gx_definition : {"weighted", "unweighted"}
    std_error_method : {"analytic", "bootstrap"}
    n_draws : int
        Draws that were made.
    monte_carlo_error, intercept_monte_carlo_error : float
        Monte-Carlo standard errors of `std_error` and `intercept_std_error`; 0 without draws.
    """

    title = "Egger regression"

    intercept: float
    intercept_std_error: float
    intercept_ci_lower: float
    intercept_ci_upper: float
    intercept_p_value: float
    i2_gx: float
    i2_gx_definition: str
    std_error_method: str = "analytic"
    n_draws: int = 0
    monte_carlo_error: float = 0.0
    intercept_monte_carlo_error: float = 0.0

    def _more_rows(self) -> list[tuple[str, str]]:
        text = (
            f"{self.intercept:.4g} (standard error {self.intercept_std_error:.3g}), "
            f"p = {self.intercept_p_value:.3g}"
        )
        rows = [("intercept", text), *super()._more_rows()]
        if not math.isnan(self.i2_gx):
            rows.append(("I2_GX", f"{self.i2_gx:.3f} ({self.i2_gx_definition})"))
        if self.n_draws:
            rows.append(
                (
                    "bootstrap",
                    f"{self.n_draws} draws, Monte-Carlo error of the standard error "
                    f"{self.monte_carlo_error:.2g}",
                )
            )
        return rows


def egger(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    model: str = "random",
    weights: str = "first_order",
    ld: Any = None,
    snps: Sequence[object] | None = None,
    ld_snps: Sequence[object] | None = None,
    robust: bool = False,
    penalised: bool = False,
    distribution: str = "t",
    i2_gx: str = "weighted",
    std_error: str = "analytic",
    n_draws: int = 10_000,
    rng: object = None,
    ci_level: float = 0.95,
) -> EggerEstimate:
    """Egger regression: weighted regression of by on bx with an intercept.

    Alleles are turned so that every beta_exposure is positive (0 stays); the result does not
    depend on which allele a table counts.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        At least 3 SNPs. `se_exposure` is needed for second-order weights and the bootstrap;
        otherwise it only gives `f_statistic` and `i2_gx`.
    model : {"random", "fixed"}, default "random"
        Multiplicative random effects: standard errors times the residual standard error, which is
        taken as at least 1.
    weights : {"first_order", "second_order", "simple"}, default "first_order"
        1/sy^2; 1/(sy^2 + by^2 sx^2/bx^2); or all SNPs alike.
    ld, snps, ld_snps
        As in `mrfast.ivw`.
    robust : bool, default False
        MM-estimation with Tukey's bisquare, starting from all pairs of SNPs (2,000 of them where
        there are more).
    penalised : bool, default False
        Weights times min(1, 100 p), p that of a SNP's residual from the line without penalties.
    distribution : {"t", "normal"}, default "t"
        ``"t"`` has J - 2 degrees of freedom, with the same floor of 1 under the standard errors.
    i2_gx : {"weighted", "unweighted"}, default "weighted"
        Heterogeneity of bx/sy with standard errors sx/sy, which matches the weights of the
        regression; or of bx with standard errors sx.
    std_error : {"analytic", "bootstrap"}, default "analytic"
        ``"bootstrap"``: standard deviation over draws from N(bx, sx^2) and N(by, sy^2), turned and
        fitted anew. The estimate stays that of the data.
    n_draws : int, default 10000
        Of the bootstrap.
    rng : None, int or numpy.random.Generator
        Of the bootstrap.
    ci_level : float, default 0.95

    Returns
    -------
    EggerEstimate

    Notes
    -----
    Egger regression rests on pleiotropic effects that are independent of the strength of the SNPs.
    Where 30% of 20 to 100 SNPs break this, its type I error is 97 to 100%; elsewhere it holds its
    level. Without pleiotropy, at 100,000 people a study, its power is 10 to 43%, that of
    inverse-variance weighting 94 to 100%.

    Raises
    ------
    InvalidInputError
        Bad arrays, fewer than 3 SNPs, associations of one size only, options that do not go
        together.

    References
    ----------
    Bowden, Davey Smith, Burgess (2015), doi:10.1093/ije/dyv080; Bowden et al. (2016),
    doi:10.1093/ije/dyw220 (I2_GX); Rees, Wood, Dudbridge, Burgess (2019),
    doi:10.1371/journal.pone.0222362 (robust and penalised).

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.egger(
    ...     beta_exposure=[0.1, 0.2, 0.15, -0.05], se_exposure=[0.01, 0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07, -0.02], se_outcome=[0.02, 0.02, 0.02, 0.02],
    ... )
    >>> round(result.estimate, 3), round(result.intercept, 4)
    (0.58, -0.01)
    """
    options = regression_options(
        model=model,
        weights=weights,
        distribution=distribution,
        robust=robust,
        penalised=penalised,
        ci_level=ci_level,
        has_ld=ld is not None,
    )
    check.choice("i2_gx", i2_gx, ("weighted", "unweighted"))
    check.choice("std_error", std_error, ("analytic", "bootstrap"))
    bootstrap = std_error == "bootstrap"
    draws, source = check.integer("n_draws", n_draws, minimum=100), generator(rng)
    if bootstrap and (robust or penalised or ld is not None or weights != "first_order"):
        raise check.fail(
            "std_error",
            '"analytic" unless all other options of the fit are as by default',
            "'bootstrap'",
        )
    second = weights == "second_order"
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=3,
        needs_se_exposure=second or bootstrap,
        nonzero=second,
    )
    n = len(data.bx)
    messages: list[str] = []
    s = outcome_error(data, weights)
    found: dict[str, Any]
    if ld is not None:
        fit = _correlated(data, s, correlations(ld, snps, ld_snps, n), i2_gx)
        slope, intercept, variances, q, f, q_size = fit
    else:
        f = _core.summary.mean_square_ratio(data.bx, data.sx)
        scale = data.sy if i2_gx == "weighted" else None
        q_size = _core.summary.heterogeneity_of_size(data.bx, data.sx, scale)
        slope, intercept, *variances, q = _line(data, np.ones(n) if weights == "simple" else s)
    if robust or penalised:
        turned, y = np.abs(data.bx), np.where(data.bx < 0, -data.by, data.by)
        if penalised:
            s = penalised_error(s, ((y - intercept - slope * turned) / s) ** 2)
            slope, intercept, *variances, q = _line(data, s)
        spread = math.sqrt(q / (n - 2))
        scale_up = max(1.0, spread)
        if robust:
            line = robust_fit(np.column_stack([turned, np.ones(n)]), y, s)
            slope, intercept = (float(value) for value in line.coefficients)
            variances, spread = [float(value) for value in line.variances], line.scale
            scale_up = 1 / min(1.0, spread)
            messages += robust_messages(n)
        found = no_heterogeneity_fields(n - 2, spread)
    else:
        if weights == "simple":
            turned, y = np.abs(data.bx), np.where(data.bx < 0, -data.by, data.by)
            columns = np.column_stack([turned, np.ones(n)])
            variances = [float(value) for value in unweighted_variances(columns, data.sy)]
            q = float((((y - intercept - slope * turned) / data.sy) ** 2).sum())
        found = heterogeneity_fields(q, n - 2)
        scale_up = max(1.0, found["residual_std_error"]) if model == "random" else 1.0
    errors = [scale_up * math.sqrt(variance) for variance in variances]
    more: dict[str, Any] = {}
    if bootstrap:
        drawn = _bootstrap(data, draws, source)
        deviations, monte_carlo_errors = standard_deviations(drawn)
        errors = deviations.tolist()
        more = {
            "std_error_method": "bootstrap",
            "n_draws": draws,
            "monte_carlo_error": float(monte_carlo_errors[0]),
            "intercept_monte_carlo_error": float(monte_carlo_errors[1]),
        }
    share = max(0.0, (q_size - (n - 1)) / q_size) if q_size > 0 else q_size
    if share < DILUTED:
        messages.append(
            f"I2_GX is {share:.2f}: the errors of the exposure associations draw the slope to "
            "about that share of its size"
        )
    law = Inference(distribution, n - 2, options.ci_level)
    return EggerEstimate(
        method="egger",
        n_snps=n,
        f_statistic=f,
        model=model,
        weights=weights,
        distribution=distribution,
        robust=robust,
        penalised=penalised,
        i2_gx=share,
        i2_gx_definition=i2_gx,
        messages=tuple(messages + strength_messages(f)),
        **intercept_fields(intercept, errors[1], law),
        **more,
        **found,
        **inference(slope, errors[0], law, options.ci_level),
    )


def _line(data: Associations, s: Float) -> tuple[float, float, float, float, float]:
    """Slope, intercept, their variances and Q of a weighted line."""
    valid, *fit = _core.summary.fit_line(data.bx, data.by, s)
    if not valid:
        raise check.fail(
            "beta_exposure", "associations that differ in size between SNPs", "equal ones"
        )
    slope, intercept, slope_variance, intercept_variance, q = fit
    return slope, intercept, slope_variance, intercept_variance, q


def _correlated(
    data: Associations, s: Float, r: Float, i2_gx: str
) -> tuple[float, float, list[float], float, float, float]:
    """Slope, intercept, variances, Q, mean F and Q of the sizes by generalised least squares."""
    sign = np.where(data.bx < 0, -1.0, 1.0)
    x, y, r = data.bx * sign, data.by * sign, r * np.outer(sign, sign)
    whiten = Whitening(r)
    columns, response = whiten(np.column_stack([x, np.ones(len(x))]), s), whiten(y, s)
    coefficients, inverse = least_squares(columns, response)
    q = float(((response - (columns * coefficients).sum(axis=1)) ** 2).sum())
    slope, intercept = (float(value) for value in coefficients)
    variances = [float(value) for value in inverse.diagonal()]
    if np.isnan(data.sx[0]):
        return slope, intercept, variances, q, math.nan, math.nan
    scale = data.sy if i2_gx == "weighted" else np.ones(len(x))
    level, size = whiten(np.ones((len(x), 1)), data.sx / scale), whiten(x, data.sx)
    mean, _ = least_squares(level, size)
    q_size = float(((size - level[:, 0] * mean[0]) ** 2).sum())
    return slope, intercept, variances, q, float((size**2).mean()), q_size


def _bootstrap(data: Associations, draws: int, source: np.random.Generator) -> Float:
    """Slope and intercept of every draw, shape (draws, 2)."""
    weight = data.sy**-2.0
    total, n = weight.sum(), len(data.bx)
    values = np.empty((draws, 2))
    step = max(1, _CHUNK // (2 * n))
    for start in range(0, draws, step):
        z = source.standard_normal((2, min(step, draws - start), n))
        x, y = data.bx + data.sx * z[0], data.by + data.sy * z[1]
        y = np.where(x < 0, -y, y)
        x = np.abs(x)
        mean_x = (x * weight).sum(axis=1) / total
        mean_y = (y * weight).sum(axis=1) / total
        x -= mean_x[:, None]
        slope = (x * y * weight).sum(axis=1) / (x * x * weight).sum(axis=1)
        values[start : start + step] = np.column_stack([slope, mean_y - slope * mean_x])
    return values
