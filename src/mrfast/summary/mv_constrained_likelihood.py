"""Multivariable constrained maximum likelihood (MVMR-cML), with data perturbation.

References
----------
Lin, Xue, Pan (2023), doi:10.1016/j.ajhg.2023.02.014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary import _constrained
from mrfast.summary._least_squares import Whitening
from mrfast.summary._multivariable import COLLINEAR, error_correlations, mv_associations
from mrfast.summary.conditional_strength import strength_of
from mrfast.summary.estimate import Inference
from mrfast.summary.mv_estimate import MVEstimate, mv_inference

__all__ = ["MVConstrainedMLEstimate", "mv_constrained_ml"]

_MOST_EXPOSURES = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class MVConstrainedMLEstimate(MVEstimate):
    """Result of `mv_constrained_ml`.

    The estimates are those of the perturbed data sets, or, without them, averages over the models.
    Fields of shape (K,) have one number an exposure.

    Attributes
    ----------
    averaged_estimate, averaged_std_error : ndarray, shape (K,)
        Averaged over the models, without perturbation.
    selected_estimate, selected_std_error : ndarray, shape (K,)
        Of the model with the least BIC, without perturbation.
    perturbed_selected_estimate, perturbed_selected_std_error : ndarray, shape (K,)
        Of the model with the least BIC in each perturbed data set; NaN without them.
    estimate_monte_carlo_error, std_error_monte_carlo_error : ndarray, shape (K,)
        Monte-Carlo standard errors of `estimate` and `std_error`; 0 without perturbation.
    conditional_f_statistic : ndarray, shape (K,)
        As in `mrfast.conditional_f`.
    n_perturbations : int
    invalid : tuple of int
        Positions of the SNPs that the model with the least BIC takes for invalid.
    n_invalid : int
    q, q_df, q_p_value : float, int, float
        Heterogeneity of the other SNPs about `selected_estimate`; they were chosen to agree.
    n : float
        Sample size in the BIC.
    theta, theta_std_error : ndarray, shape (J - K, K)
        Of the models with 0, ..., J - K - 1 invalid SNPs, one a row.
    deviance, bic, weights : ndarray, shape (J - K,)
        -2 log-likelihood, up to a constant; that plus log(n) for each invalid SNP; share in the
        average.
    perturbed_estimates : ndarray, shape (n_perturbations, K)
    """

    title: ClassVar[str] = "Multivariable constrained maximum likelihood"
    per_exposure: ClassVar[tuple[str, ...]] = (
        "averaged_estimate",
        "averaged_std_error",
        "selected_estimate",
        "selected_std_error",
        "perturbed_selected_estimate",
        "perturbed_selected_std_error",
        "estimate_monte_carlo_error",
        "std_error_monte_carlo_error",
        "conditional_f_statistic",
    )

    averaged_estimate: Float
    averaged_std_error: Float
    selected_estimate: Float
    selected_std_error: Float
    perturbed_selected_estimate: Float
    perturbed_selected_std_error: Float
    estimate_monte_carlo_error: Float
    std_error_monte_carlo_error: Float
    conditional_f_statistic: Float
    n_perturbations: int
    invalid: tuple[int, ...]
    n_invalid: int
    q: float
    q_df: int
    q_p_value: float
    n: float
    theta: Float
    theta_std_error: Float
    deviance: Float
    bic: Float
    weights: Float
    perturbed_estimates: Float

    def _more_rows(self) -> list[tuple[str, str]]:
        def shown(values: Float, digits: int = 4) -> str:
            return ", ".join(f"{value:.{digits}g}" for value in values)

        selected = (
            f"{self.n_invalid} invalid, estimates {shown(self.selected_estimate)} "
            f"(standard errors {shown(self.selected_std_error, 3)})"
        )
        averaged = (
            f"{shown(self.averaged_estimate)} (standard errors {shown(self.averaged_std_error, 3)})"
        )
        rows = [("model of least BIC", selected), ("average of models", averaged)]
        if self.n_perturbations:
            errors = shown(self.estimate_monte_carlo_error, 2)
            text = f"{self.n_perturbations}, Monte-Carlo errors {errors}"
            rows.append(("perturbed data sets", text))
        return [*rows, ("conditional F", shown(self.conditional_f_statistic))]


def mv_constrained_ml(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    exposures: Sequence[object] | None = None,
    n: float | None = None,
    n_perturbations: int = 200,
    exposure_correlation: Any = None,
    overlap: ArrayLike = 0.0,
    rng: object = None,
    n_threads: int | None = 1,
    ci_level: float = 0.95,
) -> MVConstrainedMLEstimate:
    """Multivariable constrained maximum likelihood, averaged over the number of invalid SNPs.

    As `mrfast.constrained_ml`, with the direct effects of K exposures, the others held fixed: the
    valid SNPs are those of the largest group that agrees on all effects at once. Measurement error
    of the exposure associations, and its correlation, is part of the likelihood.

    Parameters
    ----------
    beta_exposure, se_exposure : array_like, shape (J, K)
        Associations of at least K + 2 independent SNPs, one column an exposure, up to 32.
    beta_outcome, se_outcome : array_like, shape (J,)
    exposures : sequence of str, optional
        Names; columns of a table have their own.
    n : float, optional
        Sample size in the BIC: the smallest one of the studies. 100,000 is taken, and a message
        says so, where it is not given.
    n_perturbations : int, default 200
        As in `mrfast.constrained_ml`.
    exposure_correlation : array_like, shape (K, K), optional
        Correlations of the errors of a SNP's associations with the exposures. Default:
        independent, as from separate samples.
    overlap : float or array_like, shape (K,), default 0
        Correlations of those errors with that of the association with the outcome.
    rng, n_threads, ci_level
        As in `mrfast.constrained_ml`.

    Returns
    -------
    MVConstrainedMLEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays, fewer than K + 2 SNPs, exposures that are collinear, correlations that cannot
        be.
    ConvergenceError
        No model's likelihood has a peak.

    Notes
    -----
    A valid SNP contributes ``(y - theta'x)^2 / var(y - theta'x)`` to the deviance. The least sum
    of the J - k smallest contributions is sought from many starts, exact fits of K SNPs among
    them; that nothing below it exists is not proved.

    References
    ----------
    Lin, Xue, Pan (2023), doi:10.1016/j.ajhg.2023.02.014.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.mv_constrained_ml(
    ...     beta_exposure=[[0.20, 0.02], [0.05, 0.22], [0.21, 0.01], [0.01, 0.19], [0.15, 0.16]],
    ...     se_exposure=[[0.01, 0.01]] * 5,
    ...     beta_outcome=[0.102, -0.019, 0.103, -0.034, 0.250],
    ...     se_outcome=[0.01] * 5,
    ...     exposures=["LDL", "HDL"],
    ...     n=20_000,
    ...     n_perturbations=0,
    ... )
    >>> result.invalid
    (4,)
    >>> result.selected_estimate.round(2).tolist()
    [0.51, -0.2]
    """
    given = mv_associations(
        beta_exposure, se_exposure, beta_outcome, se_outcome, exposures=exposures, spare=2
    )
    width = len(given.exposures)
    if width > _MOST_EXPOSURES:
        raise check.fail("beta_exposure", f"at most {_MOST_EXPOSURES} exposures", f"{width}")
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    among = error_correlations("exposure_correlation", exposure_correlation, given.exposures)
    correlation = _all_correlations(among, overlap)
    found = _constrained.analysed(
        _constrained.prepared(given.bx, given.sx, given.by, given.sy, correlation),
        n=n,
        n_perturbations=n_perturbations,
        rng=rng,
        n_threads=n_threads,
    )
    strength = strength_of(given, among, Whitening(None))
    law = Inference("normal", np.inf, level)
    return MVConstrainedMLEstimate(
        method="mv_constrained_ml",
        exposures=given.exposures,
        **mv_inference(found.estimate, found.std_error, law, level),
        **found.per_exposure,
        **found.shared,
        conditional_f_statistic=strength.conditional_f_statistic,
        theta=found.models.effects,
        theta_std_error=found.models.std_errors,
        perturbed_estimates=found.perturbed_estimates,
        messages=(*found.messages, *strength.messages),
    )


def _all_correlations(among: Float, overlap: ArrayLike) -> Float:
    """Correlations of the errors of a SNP, the outcome last."""
    width = len(among)
    if np.ndim(overlap) == 0:
        overlap = np.full(width, check.scalar("overlap", overlap, above=-1, below=1))
    to_outcome = check.float_array("overlap", overlap, ndim=1, shape=(width,))
    matrix = np.block([[among, to_outcome[:, None]], [to_outcome[None], np.ones((1, 1))]])
    if not np.linalg.eigvalsh(matrix)[0] > COLLINEAR:
        raise check.fail(
            "overlap", "correlations that go with exposure_correlation", f"{to_outcome.tolist()}"
        )
    return matrix
