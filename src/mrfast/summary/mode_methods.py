"""Modes of the smoothed density of the ratio estimates.

References
----------
Hartwig, Davey Smith, Bowden (2017), doi:10.1093/ije/dyx102.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float
from mrfast.summary._draws import kernel_seed, scaled_mad
from mrfast.summary._inputs import (
    WEIGHTS,
    Associations,
    associations,
    normalised_weights,
    ratio_variance,
)
from mrfast.summary.estimate import Inference, MREstimate, inference

__all__ = ["ModeEstimate", "simple_mode", "weighted_mode"]

_MINIMUM = 3
_PURPOSE = 0x6D6F6465  # of the draws: "mode"
_COARSE = 0.05  # share of draws with a coarse grid that is worth a message
MAXIMA = ("grid", "exact")
STD_ERRORS = ("bootstrap", "law")


@dataclass(frozen=True, kw_only=True)
class ModeEstimate(MREstimate):
    """A mode of ratio estimates.

    Attributes
    ----------
    bandwidth : float
        Standard deviation of the normal kernels.
    std_error_method : str
        ``"bootstrap"`` or ``"law"``.
    law_std_error : float
        Of the bootstrap law to first order, the bandwidth held fixed: mostly too large (about
        twice with valid SNPs), so that what it finds significant mostly is.
    monte_carlo_error : float
        Monte-Carlo standard error of `std_error`; 0 without draws.
    n_draws : int
        Draws that were made.
    coarse_share : float
        Share of draws where the points of the grid are further apart than the bandwidth; NaN
        without draws.
    weights : ndarray, shape (J,)
        Of the SNPs; they sum to 1.
    """

    title: ClassVar[str] = "Mode of ratio estimates"

    bandwidth: float
    std_error_method: str
    law_std_error: float
    monte_carlo_error: float
    n_draws: int
    coarse_share: float
    weights: Float

    def _more_rows(self) -> list[tuple[str, str]]:
        used = self.std_error_method
        if self.n_draws:
            used += f" ({self.n_draws} draws, Monte-Carlo error {self.monte_carlo_error:.2g})"
        return [("bandwidth", f"{self.bandwidth:.4g}"), ("standard error", used)]


def simple_mode(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    bandwidth_factor: float = 1.0,
    ratio_error: str = "second_order",
    maximum: str = "grid",
    std_error: str = "bootstrap",
    n_draws: int = 10_000,
    rng: object = None,
    distribution: str = "t",
    ci_level: float = 0.95,
    n_threads: int | None = 1,
) -> ModeEstimate:
    """Mode of the ratios with equal weights.

    Parameters
    ----------
    ratio_error : {"second_order", "first_order"}
        Standard errors of the ratios in the bootstrap; ``"first_order"`` takes the exposure's
        associations as measured without error (NOME).
    others
        As for `weighted_mode`.

    Returns
    -------
    ModeEstimate

    Raises
    ------
    InvalidInputError
        As `weighted_mode`.

    References
    ----------
    Hartwig, Davey Smith, Bowden (2017), doi:10.1093/ije/dyx102.
    """
    check.choice("ratio_error", ratio_error, ("second_order", "first_order"))
    return _mode(
        "simple_mode",
        associations(
            beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=_MINIMUM, nonzero=True
        ),
        "simple",
        ratio_error,
        bandwidth_factor,
        maximum,
        std_error,
        n_draws,
        rng,
        distribution,
        ci_level,
        n_threads,
    )


def weighted_mode(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    weights: str = "second_order",
    bandwidth_factor: float = 1.0,
    maximum: str = "grid",
    std_error: str = "bootstrap",
    n_draws: int = 10_000,
    rng: object = None,
    distribution: str = "t",
    ci_level: float = 0.95,
    n_threads: int | None = 1,
) -> ModeEstimate:
    """Mode of the weighted, smoothed density of the ratios.

    Valid if the largest group of SNPs with the same ratio (in weight) is that of the valid ones.
    The bandwidth is 0.9 factor min(sd, 1.4826 mad) / J^(1/5), at least 1e-8.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        Associations with exposure and outcome, at least 3 independent SNPs.
    weights : {"second_order", "first_order", "simple"}
        Inverse variances of the ratios, and their variances in the bootstrap: sy^2 / bx^2 +
        by^2 sx^2 / bx^4; the first term alone (NOME, no error in the exposure's associations);
        equal weights with the variances of the second order.
    bandwidth_factor : float, default 1
    maximum : {"grid", "exact"}
        ``"grid"``: the largest of 512 points, as R's density() before version 4.4 places them,
        from three bandwidths below the smallest ratio to three above the largest one. Where single
        ratios are far off the points are far apart, and rounding to them may dominate the
        bootstrap. ``"exact"``: the maximum of the sum of the kernels itself.
    std_error : {"bootstrap", "law"}
        Scaled median absolute deviation of the modes of r* ~ N(r, variance), each with its own
        bandwidth; or, without draws, the conservative `law_std_error`, for screening.
    n_draws : int, default 10000
    rng : None, int or numpy.random.Generator
    distribution : {"t", "normal"}
        Of the interval and the p-value; ``"t"`` has J - 1 degrees of freedom.
    ci_level : float, default 0.95
    n_threads : int or None, default 1
        Threads of the draws; None takes all. Results do not depend on it.

    Returns
    -------
    ModeEstimate

    Raises
    ------
    InvalidInputError
        Arrays of different lengths, not finite, standard errors not above 0, `beta_exposure` of 0,
        fewer than 3 SNPs, unknown options.

    References
    ----------
    Hartwig, Davey Smith, Bowden (2017), doi:10.1093/ije/dyx102.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.weighted_mode(
    ...     beta_exposure=[0.1, 0.2, 0.3, 0.2],
    ...     se_exposure=[0.01, 0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.10, 0.15, 0.30],
    ...     se_outcome=[0.02, 0.02, 0.02, 0.02],
    ...     n_draws=1_000,
    ...     rng=1,
    ... )
    >>> round(result.estimate, 1)
    0.5
    """
    check.choice("weights", weights, WEIGHTS)
    return _mode(
        "weighted_mode",
        associations(
            beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=_MINIMUM, nonzero=True
        ),
        weights,
        "second_order" if weights == "simple" else weights,
        bandwidth_factor,
        maximum,
        std_error,
        n_draws,
        rng,
        distribution,
        ci_level,
        n_threads,
    )


def _mode(
    method: str,
    data: Associations,
    weights: str,
    ratio_error: str,
    bandwidth_factor: float,
    maximum: str,
    std_error: str,
    n_draws: int,
    rng: object,
    distribution: str,
    ci_level: float,
    n_threads: int | None,
) -> ModeEstimate:
    factor = check.scalar("bandwidth_factor", bandwidth_factor, above=0)
    exact = check.choice("maximum", maximum, MAXIMA) == "exact"
    check.choice("std_error", std_error, STD_ERRORS)
    check.choice("distribution", distribution, ("t", "normal"))
    draws_wanted = check.integer("n_draws", n_draws, minimum=100, maximum=10**9)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    threads = thread_count(n_threads)
    n = len(data.bx)
    ratios = np.ascontiguousarray(data.by / data.bx)
    errors = np.sqrt(ratio_variance(data, ratio_error))
    share = normalised_weights(data, weights)
    estimate, bandwidth, law_error = _core.medians.mode(
        ratios, errors, share, factor=factor, exact=exact
    )
    messages: tuple[str, ...] = ()
    if std_error == "bootstrap":
        draws, coarse = _core.medians.bootstrap_modes(
            ratios,
            errors,
            share,
            factor=factor,
            exact=exact,
            draws=draws_wanted,
            seed=kernel_seed(rng),
            set=0,
            purpose=_PURPOSE,
            threads=threads,
        )
        used, monte_carlo = scaled_mad(draws)
        if coarse > _COARSE:
            messages = (
                f"in {100 * coarse:.0f}% of the draws the 512 points are further apart than the "
                "bandwidth, and the standard error is that of rounding: maximum='exact' has none",
            )
    else:
        used, monte_carlo, coarse, draws_wanted = law_error, 0.0, float("nan"), 0
    law = Inference(distribution, n - 1, level)
    return ModeEstimate(
        method=method,
        **inference(estimate, used, law, level),
        n_snps=n,
        messages=messages,
        bandwidth=bandwidth,
        std_error_method=std_error,
        law_std_error=law_error,
        monte_carlo_error=monte_carlo,
        n_draws=draws_wanted,
        coarse_share=coarse,
        weights=share,
    )
