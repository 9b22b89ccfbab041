"""Multivariable median: weighted median regression through the origin, `mv_median`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float
from mrfast.errors import ConvergenceError
from mrfast.summary._draws import kernel_seed, standard_deviation
from mrfast.summary._multivariable import MVAssociations, error_correlations, mv_associations
from mrfast.summary.conditional_strength import combined_variance
from mrfast.summary.estimate import Inference
from mrfast.summary.mv_estimate import MVEstimate, mv_inference

__all__ = ["MVMedianEstimate", "mv_median"]

WEIGHTS = ("first_order", "inverse_std_error", "simple")
"""1/sy^2, 1/sy, equal: of the absolute residuals."""

STD_ERRORS = ("bootstrap", "analytic", "robust", "max")

_PURPOSE = 1_835_430_500  # of the draws: a word of the counter of their random numbers
_ROBUST_WIDTH = 0.577  # of the kernel, in standard errors of each residual; see `weighted_median`
_HETEROGENEOUS = 1.25  # robust over bootstrap standard error that a reader should know of


@dataclass(frozen=True, kw_only=True, eq=False)
class MVMedianEstimate(MVEstimate):
    """Result of `mv_median`; further fields as in `MVEstimate`.

    Attributes
    ----------
    std_error_method : {"bootstrap", "analytic", "robust", "max"}
        Where `std_error` is from.
    bootstrap_std_error, analytic_std_error, robust_std_error : ndarray, shape (K,)
        The first is NaN where nothing was drawn.
    monte_carlo_error : ndarray, shape (K,)
        Of `std_error`; 0 where it was not drawn.
    n_draws : int
    unique : bool
        No other estimates have the same sum of absolute residuals.
    weights : {"first_order", "inverse_std_error", "simple"}
    """

    title: ClassVar[str] = "multivariable median"
    per_exposure: ClassVar[tuple[str, ...]] = (
        "bootstrap_std_error",
        "analytic_std_error",
        "robust_std_error",
        "monte_carlo_error",
    )

    std_error_method: str
    bootstrap_std_error: Float
    analytic_std_error: Float
    robust_std_error: Float
    monte_carlo_error: Float
    n_draws: int
    unique: bool
    weights: str

    def _more_rows(self) -> list[tuple[str, str]]:
        def shown(values: Float) -> str:
            return ", ".join(f"{value:.3g}" for value in values)

        rows = [
            ("analytic errors", shown(self.analytic_std_error)),
            ("robust errors", shown(self.robust_std_error)),
        ]
        used = self.std_error_method
        if self.n_draws:
            used += f", {self.n_draws} draws, Monte-Carlo error {shown(self.monte_carlo_error)}"
        return [*rows, ("used", used)]


def mv_median(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    exposures: Sequence[object] | None = None,
    weights: str = "first_order",
    std_error: str = "bootstrap",
    exposure_correlation: Any = None,
    n_draws: int = 10_000,
    rng: object = None,
    distribution: str = "normal",
    ci_level: float = 0.95,
    n_threads: int | None = 1,
) -> MVMedianEstimate:
    """Multivariable median: least weighted sum of absolute residuals of by on all columns of bx.

    Consistent where more than half of the SNPs are valid. The minimum is exact.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome, exposures
        As in `mrfast.mv_ivw`; at least K + 1 SNPs.
    weights : {"first_order", "inverse_std_error", "simple"}, default "first_order"
        Of the absolute residuals: 1/sy^2, as the method was published; 1/sy, the most efficient
        where all SNPs are valid; equal.
    std_error : {"bootstrap", "analytic", "robust", "max"}, default "bootstrap"
        ``"bootstrap"``: standard deviation over draws from N(bx, sx^2) and N(by, sy^2), the
        weights as they are. It takes the residuals that were found for the truth: 10 to 20% too
        wide where all SNPs are valid, too narrow where they are heterogeneous (95% intervals
        cover 75% where residuals are three times their errors).
        ``"analytic"``: the same to first order, without draws.
        ``"robust"``: from the density of the residuals about the fit, which sees heterogeneity
        (the same intervals cover 94%).
        ``"max"``: the larger one of ``"bootstrap"`` and ``"robust"``, for each exposure.
    exposure_correlation : array_like, shape (K, K), optional
        Correlations of the errors of a SNP's associations with the exposures. Default:
        independent.
    n_draws : int, default 10000
    rng : None, int or numpy.random.Generator
    distribution : {"normal", "t"}, default "normal"
        ``"t"`` has J - K degrees of freedom.
    ci_level : float, default 0.95
    n_threads : int or None, default 1
        Threads of the draws; None takes all. Results do not depend on it.

    Returns
    -------
    MVMedianEstimate

    Raises
    ------
    InvalidInputError
        As of `mrfast.mv_ivw`.
    ConvergenceError
        Exposures that are collinear in a draw.

    References
    ----------
    Grant, Burgess (2021), doi:10.1002/sim.9156; Bloomfield, Steiger (1983), Least Absolute
    Deviations (the algorithm).

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.mv_median(
    ...     beta_exposure=[[0.10, 0.02], [0.05, 0.12], [0.11, 0.01], [0.01, 0.09]],
    ...     se_exposure=[[0.01, 0.01]] * 4,
    ...     beta_outcome=[0.05, 0.01, 0.06, -0.01],
    ...     se_outcome=[0.01, 0.01, 0.01, 0.01],
    ...     rng=1,
    ... )
    >>> result.estimate.round(3).tolist()
    [0.559, -0.15]
    """
    check.choice("weights", weights, WEIGHTS)
    check.choice("std_error", std_error, STD_ERRORS)
    draws = check.integer("n_draws", n_draws, minimum=100, maximum=10**9)
    check.choice("distribution", distribution, ("normal", "t"))
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    threads = thread_count(n_threads)
    data = mv_associations(
        beta_exposure, se_exposure, beta_outcome, se_outcome, exposures=exposures
    )
    correlation = error_correlations("exposure_correlation", exposure_correlation, data.exposures)
    j, k = data.bx.shape
    power = {"first_order": 2, "inverse_std_error": 1, "simple": 0}[weights]
    weight = np.ascontiguousarray((data.sy.min() / data.sy) ** power)
    valid, estimate, basis, unique = _core.multivariable.least_absolute(data.bx, data.by, weight)
    if not valid:
        raise check.fail("beta_exposure", "exposures that are not collinear", "collinear ones")
    messages: list[str] = []
    if not unique:
        messages.append("other estimates have the same sum of absolute residuals")
    analytic, robust = _analytic_errors(data, weight, correlation, estimate, basis)
    drawn, drawn_error = np.full(k, np.nan), np.zeros(k)
    if std_error in ("bootstrap", "max"):
        values = _core.multivariable.bootstrap_least_absolute(
            *data[:4],
            weight,
            np.ascontiguousarray(np.linalg.cholesky(correlation), dtype=np.float64),
            basis,
            draws=draws,
            seed=kernel_seed(rng),
            set=0,
            purpose=_PURPOSE,
            threads=threads,
        )
        if not np.isfinite(values).all():
            raise ConvergenceError("mv_median: exposures are collinear in a draw")
        found = [standard_deviation(np.ascontiguousarray(column)) for column in values.T]
        drawn, drawn_error = np.array(found).T
    else:
        draws = 0
    used, used_error = {
        "bootstrap": (drawn, drawn_error),
        "analytic": (analytic, np.zeros(k)),
        "robust": (robust, np.zeros(k)),
        "max": (np.fmax(drawn, robust), np.where(robust > drawn, 0.0, drawn_error)),
    }[std_error]
    if std_error in ("bootstrap", "analytic"):
        messages += [
            f"the robust standard error of {name} is {ratio:.2g} times as large: the SNPs are "
            f"heterogeneous, which {std_error!r} does not see"
            for name, ratio in zip(data.exposures, robust / used, strict=True)
            if ratio > _HETEROGENEOUS
        ]
    return MVMedianEstimate(
        method="mv_median",
        exposures=data.exposures,
        n_snps=j,
        messages=tuple(messages),
        std_error_method=std_error,
        bootstrap_std_error=drawn,
        analytic_std_error=analytic,
        robust_std_error=robust,
        monte_carlo_error=used_error,
        n_draws=draws,
        unique=unique,
        weights=weights,
        **mv_inference(estimate, used, Inference(distribution, j - k, level), level),
    )


def _analytic_errors(
    data: MVAssociations,
    weight: Float,
    correlation: Float,
    estimate: Float,
    basis: NDArray[np.int64],
) -> tuple[Float, Float]:
    """Standard errors A^-1 B A^-1, those of the bootstrap and the robust ones.

    A is the sum of w f x x', f the density of a residual at 0; B that of w^2 v x x', v the
    variance of the indicator of its sign: F (1 - F) with the residual's own law about its value,
    or 1/4. The fit goes through the K SNPs of the basis: that their residuals are 0 says nothing
    of the density, for which they have the mean of the others.
    """
    # A residual of the draws is by - b bx with independent errors; the weights stand still.
    spread = np.sqrt(data.sy**2 + combined_variance(data.sx, estimate, correlation))
    score = (data.by - np.einsum("jk,k->j", data.bx, estimate)) / spread
    below = ndtr(score)
    kernel = _normal_density(score / _ROBUST_WIDTH) / _ROBUST_WIDTH
    kernel[basis] = np.delete(kernel, basis).mean()

    def errors(density: Float, variance: Float) -> Float:
        bread = np.einsum("j,ja,jb->ab", weight * density / spread, data.bx, data.bx)
        meat = np.einsum("j,ja,jb->ab", weight**2 * variance, data.bx, data.bx)
        try:
            half = np.linalg.inv(bread)
        except np.linalg.LinAlgError:
            return np.full(len(estimate), np.inf)
        return np.asarray(np.sqrt(np.einsum("ab,bc,cd->ad", half, meat, half).diagonal()))

    analytic = errors(_normal_density(score), below * (1 - below))
    return analytic, errors(kernel, np.full(len(score), 0.25))


def _normal_density(z: Float) -> Float:
    return np.asarray(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
