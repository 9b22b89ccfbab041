"""Multivariable Egger regression: `mv_egger`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast.summary._least_squares import Whitening, correlations
from mrfast.summary._multivariable import exposure_position, mv_associations, scaled_inverse
from mrfast.summary._regression import regression_options
from mrfast.summary.estimate import Inference, intercept_fields
from mrfast.summary.mv_estimate import MVRegressionEstimate, mv_inference
from mrfast.summary.mv_inverse_variance import mv_fit, strength_fields

__all__ = ["MVEggerEstimate", "mv_egger"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MVEggerEstimate(MVRegressionEstimate):
    """Result of `mv_egger`; further fields as in `MVRegressionEstimate`.

    Attributes
    ----------
    intercept, intercept_std_error, intercept_ci_lower, intercept_ci_upper : float
        Mean pleiotropic effect of the SNPs per allele that raises the exposure `orientation`.
    intercept_p_value : float
        Of no directional pleiotropy.
    orientation : str
        Exposure whose associations are all turned positive.
    """

    title = "multivariable Egger regression"

    intercept: float
    intercept_std_error: float
    intercept_ci_lower: float
    intercept_ci_upper: float
    intercept_p_value: float
    orientation: str

    def _more_rows(self) -> list[tuple[str, str]]:
        text = (
            f"{self.intercept:.4g} (standard error {self.intercept_std_error:.3g}), "
            f"p = {self.intercept_p_value:.3g}, alleles raise {self.orientation}"
        )
        return [("intercept", text), *super()._more_rows()]


def mv_egger(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    exposures: Sequence[object] | None = None,
    orientation: int | str = 0,
    model: str = "random",
    robust: bool = False,
    exposure_correlation: Any = None,
    ld: Any = None,
    snps: Sequence[object] | None = None,
    ld_snps: Sequence[object] | None = None,
    distribution: str = "t",
    ci_level: float = 0.95,
) -> MVEggerEstimate:
    """Multivariable Egger regression: by on all columns of bx, with an intercept.

    Alleles are turned so that every association with one exposure is positive (0 stays). The
    estimates of all exposures hang on which one: see the result for each.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome, exposures
        As in `mrfast.mv_ivw`; at least K + 2 SNPs.
    orientation : int or str, default 0
        Position (from 0) or name of the exposure that alleles are turned by.
    model : {"random", "fixed"}, default "random"
        Multiplicative random effects: standard errors times the residual standard error, which is
        taken as at least 1.
    robust, exposure_correlation, ld, snps, ld_snps
        As in `mrfast.mv_ivw`.
    distribution : {"t", "normal"}, default "t"
        ``"t"`` has J - K - 1 degrees of freedom, for p-values and limits alike.
    ci_level : float, default 0.95

    Returns
    -------
    MVEggerEstimate

    Raises
    ------
    InvalidInputError
        As of `mrfast.mv_ivw`; an exposure that there is not.

    References
    ----------
    Rees, Wood, Burgess (2017), doi:10.1002/sim.7492.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.mv_egger(
    ...     beta_exposure=[[0.10, 0.02], [0.05, 0.12], [0.11, 0.01], [0.01, 0.09], [0.07, 0.05]],
    ...     beta_outcome=[0.05, 0.01, 0.06, -0.01, 0.03],
    ...     se_outcome=[0.01, 0.01, 0.01, 0.01, 0.01],
    ...     exposures=["LDL", "HDL"],
    ...     orientation="HDL",
    ... )
    >>> round(result.intercept, 4)
    -0.0053
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
        spare=2,
        needs_se_exposure=False,
    )
    j, k = data.bx.shape
    chosen = exposure_position(orientation, data.exposures)
    sign = np.where(data.bx[:, chosen] < 0, -1.0, 1.0)
    r = None if ld is None else correlations(ld, snps, ld_snps, j)
    strength, messages = strength_fields(data, exposure_correlation, Whitening(r))
    design = np.column_stack([data.bx * sign[:, None], np.ones(j)])
    whiten = Whitening(None if r is None else r * np.outer(sign, sign))
    scaled_inverse(whiten(design, data.sy), (*data.exposures, "the intercept"))
    fit = mv_fit(design, data.by * sign, data.sy, whiten, options.model, options.robust)
    errors = np.sqrt(fit.covariance.diagonal())
    law = Inference(distribution, j - k - 1, options.ci_level)
    return MVEggerEstimate(
        method="mv_egger",
        exposures=data.exposures,
        n_snps=j,
        model=model,
        distribution=distribution,
        robust=options.robust,
        covariance=fit.covariance[:k, :k],
        orientation=data.exposures[chosen],
        messages=tuple(messages),
        **strength,
        **fit.q,
        **intercept_fields(float(fit.estimate[k]), float(errors[k]), law),
        **mv_inference(fit.estimate[:k], errors[:k], law, options.ci_level),
    )
