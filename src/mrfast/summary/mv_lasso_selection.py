"""Multivariable lasso on the intercepts of SNPs: `mv_lasso`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast._validation import Float
from mrfast.summary._multivariable import Whitening, mv_associations
from mrfast.summary.estimate import Inference
from mrfast.summary.lasso_selection import lasso_messages, lasso_options, select_valid
from mrfast.summary.mv_egger_regression import _position
from mrfast.summary.mv_estimate import MVRegressionEstimate, mv_inference
from mrfast.summary.mv_inverse_variance import mv_fit, strength_fields

__all__ = ["MVLassoEstimate", "mv_lasso"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MVLassoEstimate(MVRegressionEstimate):
    """Result of `mv_lasso`.

    Heterogeneity is that of the valid SNPs, which were chosen to agree: its p-value is too large.
    F statistics are of all SNPs. Further fields as in `MVRegressionEstimate`.

    Attributes
    ----------
    penalty : float
        Of the lasso, at the choice.
    valid : ndarray of bool, shape (J,)
        SNPs without an intercept: those of the estimate.
    n_valid : int
    lasso_estimate : ndarray, shape (K,)
        Coefficients of the penalised fit, before they are fitted again to the valid SNPs.
    intercepts : ndarray, shape (J,)
        Of the penalised fit, in the outcome's unit: pleiotropic effects.
    """

    title = "multivariable MR-Lasso"
    per_exposure = (*MVRegressionEstimate.per_exposure, "lasso_estimate")

    penalty: float
    valid: NDArray[np.bool_]
    n_valid: int
    lasso_estimate: Float
    intercepts: Float

    def _more_rows(self) -> list[tuple[str, str]]:
        text = f"{self.n_valid} of {self.n_snps}, penalty {self.penalty:.4g}"
        return [("valid SNPs", text), *super()._more_rows()]


def mv_lasso(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    exposures: Sequence[object] | None = None,
    orientation: int | str = 0,
    penalties: str = "sequence",
    penalty: float | None = None,
    exposure_correlation: Any = None,
    distribution: str = "normal",
    ci_level: float = 0.95,
) -> MVLassoEstimate:
    """Multivariable MR-Lasso: `mrfast.mr_lasso` with several exposures.

    Each SNP gets an intercept with a lasso penalty; multivariable inverse-variance weighting of the
    SNPs whose intercept is zero. It needs more than half of the SNPs to be valid.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome, exposures
        As in `mrfast.mv_ivw`; at least K + 1 SNPs. `se_exposure` only gives F statistics.
    orientation : int or str, default 0
        Position (from 0) or name of the exposure that alleles are turned by. It enters through the
        standard deviations that scale the penalty, whose mean part has a sign: of small effect.
    penalties, penalty
        As in `mrfast.mr_lasso`.
    exposure_correlation
        As in `mrfast.mv_ivw`.
    distribution : {"normal", "t"}, default "normal"
        ``"t"`` has n_valid - K degrees of freedom.
    ci_level : float, default 0.95

    Returns
    -------
    MVLassoEstimate
        Standard errors of multiplicative random effects on the valid SNPs (residual standard error
        at least 1). They take as known which SNPs are valid.

    Raises
    ------
    InvalidInputError
        As of `mrfast.mv_ivw`; an exposure that there is not; a penalty that leaves K valid SNPs or
        fewer.

    References
    ----------
    Grant, Burgess (2021), doi:10.1002/sim.9156.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.mv_lasso(
    ...     beta_exposure=[[0.10, 0.02], [0.05, 0.12], [0.11, 0.01], [0.01, 0.09], [0.07, 0.05]],
    ...     beta_outcome=[0.05, 0.01, 0.06, 0.20, 0.03],
    ...     se_outcome=[0.01, 0.01, 0.01, 0.01, 0.01],
    ... )
    >>> result.valid.tolist()
    [True, True, True, False, True]
    """
    level, own = lasso_options(penalties, penalty, distribution, ci_level)
    data = mv_associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        exposures=exposures,
        needs_se_exposure=False,
    )
    j, k = data.bx.shape
    turned_by = data.bx[:, _position(orientation, data.exposures)]
    choice = select_valid(data.bx, data.by, data.sy, turned_by, penalties, own)
    valid = choice.valid
    whiten = Whitening(None)
    strength, messages = strength_fields(data, exposure_correlation, whiten)
    fit = mv_fit(data.bx[valid], data.by[valid], data.sy[valid], whiten, "random", robust=False)
    errors = np.sqrt(fit.covariance.diagonal())
    law = Inference(distribution, choice.n_valid - k, level)
    return MVLassoEstimate(
        method="mv_lasso",
        exposures=data.exposures,
        n_snps=j,
        model="random",
        distribution=distribution,
        covariance=fit.covariance,
        penalty=choice.penalty,
        valid=valid,
        n_valid=choice.n_valid,
        lasso_estimate=choice.coefficients,
        intercepts=choice.intercepts,
        messages=(*messages, *lasso_messages(choice, j)),
        **strength,
        **fit.q,
        **mv_inference(fit.estimate, errors, law, level),
    )
