"""Inverse-variance weighting: `ivw`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from mrfast import _core
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._inputs import Associations, associations, outcome_error
from mrfast.summary._least_squares import Whitening, correlations, least_squares
from mrfast.summary._regression import (
    penalised_error,
    ratio_squares,
    regression_options,
    robust_fit,
    robust_messages,
    unweighted_variances,
)
from mrfast.summary.estimate import (
    Inference,
    RegressionEstimate,
    heterogeneity_fields,
    ignored_heterogeneity,
    inference,
    no_heterogeneity_fields,
    strength_messages,
)

__all__ = ["IVWEstimate", "ivw"]

_FEW = 4  # SNPs below which model="auto" is "fixed"


@dataclass(frozen=True, kw_only=True)
class IVWEstimate(RegressionEstimate):
    """Result of `ivw`; fields as in `RegressionEstimate`."""

    title = "inverse-variance weighted"


def ivw(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    model: str = "random",
    weights: str = "first_order",
    overlap: float = 0.0,
    ld: Any = None,
    snps: Sequence[object] | None = None,
    ld_snps: Sequence[object] | None = None,
    robust: bool = False,
    penalised: bool = False,
    distribution: str = "normal",
    ci_level: float = 0.95,
) -> IVWEstimate:
    """Inverse-variance weighted estimate: regression of by on bx through the origin.

    The mean of the ratios by/bx with weights 1/V. One SNP gives its Wald ratio.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
        Associations per copy of the same allele. `se_exposure` is needed for second-order weights;
        otherwise it only gives `f_statistic`.
    model : {"random", "fixed", "auto"}, default "random"
        Multiplicative random effects: the standard error times the residual standard error, which
        is taken as at least 1. ``"fixed"`` has type I errors of 40 to 65% under balanced
        pleiotropy. ``"auto"`` is fixed below 4 SNPs, random otherwise.
    weights : {"first_order", "second_order", "simple"}, default "first_order"
        1/V with V = sy^2/bx^2; with the delta method's second term by^2 sx^2/bx^4; or all SNPs
        alike in the regression (least squares; the standard error still uses se_outcome).
        Second-order weights favour SNPs with a small by: they draw estimates to zero.
    overlap : float, default 0
        Correlation of the two associations of a SNP where samples overlap, for second-order
        weights.
    ld : DataFrame or array_like, shape (M, M), optional
        Correlations between SNPs, as in `mrfast.cis_mr`: generalised least squares.
    snps, ld_snps : sequence of str, optional
        Identifiers that match SNPs to the rows of `ld`.
    robust : bool, default False
        MM-estimation with Tukey's bisquare (breakdown point 1/2, efficiency 95%), without random
        starts: every SNP's ratio is one. Standard errors are sandwich ones, divided by the scale
        of the residuals where that is below 1.
    penalised : bool, default False
        Weights times min(1, 100 p), p that of a SNP's distance from the median ratio. The choice
        of weights is not in the standard error.
    distribution : {"normal", "t"}, default "normal"
        ``"t"`` has J - 1 degrees of freedom.
    ci_level : float, default 0.95

    Returns
    -------
    IVWEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays; options that do not go together; `ld` that is not a correlation matrix.

    References
    ----------
    Burgess, Butterworth, Thompson (2013), doi:10.1002/gepi.21758; Bowden et al. (2017),
    doi:10.1002/sim.7221 (random effects); Burgess, Dudbridge, Thompson (2016),
    doi:10.1002/sim.6835 (correlated SNPs); Rees, Wood, Dudbridge, Burgess (2019),
    doi:10.1371/journal.pone.0222362 (robust and penalised).

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.ivw(
    ...     beta_exposure=[0.1, 0.2, 0.15], se_exposure=[0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07], se_outcome=[0.02, 0.02, 0.02],
    ... )
    >>> round(result.estimate, 4)
    0.5172
    """
    options = regression_options(
        model=model,
        weights=weights,
        distribution=distribution,
        robust=robust,
        penalised=penalised,
        ci_level=ci_level,
        has_ld=ld is not None,
        models=("random", "fixed", "auto"),
    )
    overlap = check.scalar("overlap", overlap, above=-1, below=1)
    if overlap and weights != "second_order":
        raise check.fail("overlap", '0 unless weights="second_order"', f"{overlap!r}")
    second = weights == "second_order"
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=2 if robust or penalised else 1,
        needs_se_exposure=second,
        nonzero=second or penalised,
    )
    n = len(data.bx)
    if distribution == "t" and n == 1:
        raise check.fail("distribution", '"normal" for a single SNP', "'t'")
    if model == "auto":
        model = "fixed" if n < _FEW and not (robust or penalised) else "random"
    messages: list[str] = []
    level = options.ci_level
    s = outcome_error(data, weights, overlap)
    if ld is None:
        f = _core.summary.mean_square_ratio(data.bx, data.sx)
    if robust or penalised:
        if penalised:
            s = penalised_error(s, ratio_squares(data, s))
        if robust:
            fit = robust_fit(data.bx[:, None], data.by, s)
            slope, error = float(fit.coefficients[0]), math.sqrt(fit.variances[0])
            spread, error = fit.scale, error / min(1.0, fit.scale)
            messages += robust_messages(n)
        else:
            slope, information, q = _core.summary.fit_origin(data.bx, data.by, s)
            spread = math.sqrt(q / (n - 1))
            error = max(1.0, spread) / math.sqrt(information)
        found = no_heterogeneity_fields(n - 1, spread)
    else:
        if ld is not None:
            slope, variance, q, f = _correlated(data, s, correlations(ld, snps, ld_snps, n))
        elif weights == "simple" and n > 1:
            slope = float((data.bx * data.by).sum() / (data.bx**2).sum())
            variance = float(unweighted_variances(data.bx[:, None], data.sy)[0])
            q = float((((data.by - slope * data.bx) / data.sy) ** 2).sum())
        else:
            slope, information, q = _core.summary.fit_origin(data.bx, data.by, s)
            variance = 1 / information
        found = heterogeneity_fields(q, n - 1)
        error = float(s[0] / abs(data.bx[0])) if n == 1 else math.sqrt(variance)
        if model == "random" and n > 1:
            error *= max(1.0, found["residual_std_error"])
        else:
            messages += ignored_heterogeneity(found["q_p_value"], "model='fixed'")
    messages += strength_messages(f)
    return IVWEstimate(
        method="ivw",
        n_snps=n,
        f_statistic=f,
        model=model,
        weights=weights,
        distribution=distribution,
        robust=robust,
        penalised=penalised,
        messages=tuple(messages),
        **found,
        **inference(slope, error, Inference(distribution, n - 1, level), level),
    )


def _correlated(data: Associations, s: Float, r: Float) -> tuple[float, float, float, float]:
    """Slope, variance, Q and mean F by generalised least squares."""
    whiten = Whitening(r)
    columns, response = whiten(data.bx[:, None], s), whiten(data.by, s)
    coefficients, inverse = least_squares(columns, response)
    q = float(((response - columns[:, 0] * coefficients[0]) ** 2).sum()) if len(s) > 1 else 0.0
    f = float((whiten(data.bx, data.sx) ** 2).mean())  # NaN without errors
    return float(coefficients[0]), float(inverse[0, 0]), q, f
