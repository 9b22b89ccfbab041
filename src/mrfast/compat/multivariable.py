"""Multivariable numbers of TwoSampleMR 0.7.9 and MendelianRandomization 0.10.0, where they differ.

The other multivariable regressions of these packages have the numbers of `mrfast.mv_ivw` and
`mrfast.mv_egger`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.compat import mendelianrandomization, twosamplemr
from mrfast.summary._multivariable import MVAssociations, multiple_least_squares, mv_associations
from mrfast.summary.estimate import Inference
from mrfast.summary.mv_egger_regression import mv_egger
from mrfast.summary.mv_estimate import MVEstimate, mv_inference

__all__ = [
    "MVPeerEstimate",
    "mendelianrandomization_0_10_mv_egger",
    "twosamplemr_0_7_mv_multiple",
    "twosamplemr_0_7_mv_residual",
]

_THRESHOLD = 5e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class MVPeerEstimate(MVEstimate):
    """Multivariable numbers of another package.

    Attributes
    ----------
    package, version, function : str
        Whose numbers they are.
    n_instruments : ndarray, shape (K,)
        SNPs that the package counts for each exposure.
    intercept, intercept_std_error, intercept_p_value : float
        NaN where the package gives none.
    """

    package: str
    version: str
    function: str
    n_instruments: Float
    intercept: float = math.nan
    intercept_std_error: float = math.nan
    intercept_p_value: float = math.nan


def twosamplemr_0_7_mv_multiple(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    p_value_exposure: ArrayLike | None = None,
    intercept: bool = False,
    instrument_specific: bool = False,
    p_value_threshold: float = _THRESHOLD,
) -> MVPeerEstimate:
    """``mv_multiple``: random effects that let standard errors fall below the fixed-effect ones.

    The residual standard error is not taken as at least 1, as `mrfast.mv_ivw` does. With an
    intercept, alleles are left as the table has them, so that the result depends on which allele
    it counts; `mrfast.mv_egger` turns them by one exposure. With `instrument_specific`, each
    exposure is fitted on its own instruments only.

    Parameters
    ----------
    p_value_exposure : array_like, shape (J, K), optional
        Default: two-sided normal ones of beta_exposure / se_exposure.
    intercept, instrument_specific : bool, default False
    p_value_threshold : float, default 5e-8
        Of an exposure's instruments.

    Returns
    -------
    MVPeerEstimate
    """
    data = mv_associations(beta_exposure, se_exposure, beta_outcome, se_outcome)
    instruments = _instruments(data, p_value_exposure, p_value_threshold)
    intercept = check.flag("intercept", intercept)
    specific = check.flag("instrument_specific", instrument_specific)
    k = len(data.exposures)
    estimate, error = np.empty(k), np.empty(k)
    for i in range(k):
        rows = instruments[:, i] if specific else np.ones(len(data.by), dtype=bool)
        columns, sy = data.bx[rows], data.sy[rows]
        if intercept:
            columns = np.column_stack([columns, np.ones(len(columns))])
        df = len(columns) - columns.shape[1]
        if df < 1:
            raise check.fail(
                "beta_exposure", "more instruments of each exposure", f"{len(columns)}"
            )
        found, inverse, square = multiple_least_squares(columns / sy[:, None], data.by[rows] / sy)
        estimate[i] = found[i]
        error[i] = math.sqrt(square / df * inverse[i, i])
    return _twosamplemr("mv_multiple", data, instruments, estimate, error)


def twosamplemr_0_7_mv_residual(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    p_value_exposure: ArrayLike | None = None,
    p_value_threshold: float = _THRESHOLD,
) -> MVPeerEstimate:
    """``mv_residual``: what other exposures leave of the outcome, regressed on each exposure.

    Both regressions have equal weights, and the exposure itself is not adjusted for the others:
    the estimates are nearer to 0 than those of the joint regression. `mrfast.mv_ivw` is joint.

    Parameters
    ----------
    p_value_exposure, p_value_threshold
        As of `twosamplemr_0_7_mv_multiple`; they only count instruments.

    Returns
    -------
    MVPeerEstimate
    """
    data = mv_associations(beta_exposure, se_exposure, beta_outcome, se_outcome)
    instruments = _instruments(data, p_value_exposure, p_value_threshold)
    j, k = data.bx.shape
    estimate, error = np.empty(k), np.empty(k)
    for i in range(k):
        others = np.delete(data.bx, i, axis=1)
        rest = data.by
        if k > 1:
            found, _, _ = multiple_least_squares(others, data.by)
            rest = data.by - np.einsum("jk,k->j", others, found)
        slope, inverse, square = multiple_least_squares(data.bx[:, [i]], rest)
        estimate[i] = slope[0]
        error[i] = math.sqrt(square / (j - 1) * inverse[0, 0])
    return _twosamplemr("mv_residual", data, instruments, estimate, error)


def mendelianrandomization_0_10_mv_egger(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    orientation: int | str = 0,
    alpha: float = 0.05,
) -> MVPeerEstimate:
    """``mr_mvegger(distribution = "t-dist")``: two numbers of degrees of freedom.

    Limits have J - K - 1 degrees of freedom, p-values J - K, so that the two can disagree.
    `mrfast.mv_egger` takes J - K - 1 for both.

    Parameters
    ----------
    orientation : int or str, default 0
        As of `mrfast.mv_egger`; the package counts from 1.
    alpha : float, default 0.05

    Returns
    -------
    MVPeerEstimate
    """
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    fit = mv_egger(
        beta_exposure=beta_exposure,
        se_exposure=se_exposure,
        beta_outcome=beta_outcome,
        se_outcome=se_outcome,
        orientation=orientation,
        ci_level=1 - alpha,
    )
    law = Inference("t", fit.n_snps - len(fit.exposures), 1 - alpha)
    p_values = [
        law.p_value(float(value / error))
        for value, error in zip(fit.estimate, fit.std_error, strict=True)
    ]
    return MVPeerEstimate(
        method="mr_mvegger",
        package="MendelianRandomization",
        version=mendelianrandomization.VERSION,
        function="mr_mvegger",
        exposures=fit.exposures,
        estimate=fit.estimate,
        std_error=fit.std_error,
        ci_lower=fit.ci_lower,
        ci_upper=fit.ci_upper,
        p_value=np.array(p_values),
        n_snps=fit.n_snps,
        n_instruments=np.full(len(fit.exposures), float(fit.n_snps)),
        ci_level=1 - alpha,
        intercept=fit.intercept,
        intercept_std_error=fit.intercept_std_error,
        intercept_p_value=law.p_value(fit.intercept / fit.intercept_std_error),
    )


def _instruments(data: MVAssociations, p_values: Any, threshold: float) -> Any:
    """Which SNPs are instruments of which exposure, shape (J, K)."""
    threshold = check.scalar("p_value_threshold", threshold, above=0)
    if p_values is None:
        return 2 * ndtr(-np.abs(data.bx / data.sx)) < threshold
    return check.float_array("p_value_exposure", p_values, ndim=2, shape=data.bx.shape) < threshold


def _twosamplemr(
    function: str, data: MVAssociations, instruments: Any, estimate: Float, error: Float
) -> MVPeerEstimate:
    return MVPeerEstimate(
        method=function,
        package="TwoSampleMR",
        version=twosamplemr.VERSION,
        function=function,
        exposures=data.exposures,
        n_snps=len(data.by),
        n_instruments=instruments.sum(axis=0).astype(np.float64),
        **mv_inference(estimate, error, Inference("normal", 0, 0.95), 0.95),
    )
