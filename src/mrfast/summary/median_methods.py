"""Medians of the ratio estimates: simple, weighted, penalised.

The standard errors without simulation are those of the parametric bootstrap, whose law has a closed
approximation, and a robust one that allows for heterogeneous ratios.

References
----------
Bowden, Davey Smith, Haycock, Burgess (2016), doi:10.1002/gepi.21965.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, ndtr, ndtri

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float
from mrfast.summary._draws import halfwidth, kernel_seed, standard_deviation
from mrfast.summary._inputs import (
    WEIGHTS,
    Associations,
    associations,
    normalised_weights,
    ratio_variance,
)
from mrfast.summary.estimate import Inference, MREstimate, inference

__all__ = [
    "MedianEstimate",
    "MedianLaw",
    "median_law",
    "median_matrix",
    "penalised_median",
    "simple_median",
    "weighted_median",
]

STD_ERRORS = ("auto", "analytic", "bootstrap", "robust", "max")
_MINIMUM = 3
_FEWEST_ANALYTIC = 10  # SNPs from which the closed law is close
_LARGEST_WEIGHT = 0.25  # above which it is not
_LARGEST_GAP = 1.0  # neighbours of the estimate further apart than their errors together
_FARTHEST = 1e6  # ranges of the ratios: a robust error beyond stands for none
_PURPOSE = 0x6D656469  # of the draws: "medi"
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
# Share by which weights of each order pull the estimate to zero is about this over the mean F.
_ATTENUATION = {"first_order": 1.6, "second_order": 3.15}


@dataclass(frozen=True, kw_only=True)
class MedianEstimate(MREstimate):
    """A median of ratio estimates.

    Attributes
    ----------
    std_error_method : str
        Where `std_error` comes from: ``"analytic"``, ``"bootstrap"`` (standard deviation of
        draws), ``"bootstrap halfwidth"`` or ``"robust"``.
    analytic_std_error : float
        Half of the central 68.27% interval of the bootstrap law, without draws.
    bahadur_std_error : float
        The same to first order.
    robust_std_error : float
        Sampling error whatever the heterogeneity of the ratios.
    bootstrap_std_error, bootstrap_halfwidth : float
        Standard deviation and half of the central 68.27% interval of the draws; NaN without draws.
    monte_carlo_error : float
        Monte-Carlo standard error of `std_error`; 0 where it comes without draws.
    n_draws : int
        Draws that were made.
    weights : ndarray, shape (J,)
        Of the SNPs; they sum to 1.
    """

    title: ClassVar[str] = "Median of ratio estimates"

    std_error_method: str
    analytic_std_error: float
    bahadur_std_error: float
    robust_std_error: float
    bootstrap_std_error: float
    bootstrap_halfwidth: float
    monte_carlo_error: float
    n_draws: int
    weights: Float

    def _more_rows(self) -> list[tuple[str, str]]:
        errors = f"analytic {self.analytic_std_error:.3g}, robust {self.robust_std_error:.3g}"
        if self.n_draws:
            errors += f", bootstrap {self.bootstrap_std_error:.3g} ({self.n_draws} draws)"
        used = self.std_error_method
        if self.monte_carlo_error:
            used += f", Monte-Carlo error {self.monte_carlo_error:.2g}"
        return [("standard errors", errors), ("used", used)]


@dataclass(frozen=True)
class _Options:
    """What all the medians share, checked."""

    weights: str
    std_error: str
    n_draws: int
    rng: object
    distribution: str
    ci_level: float
    n_threads: int

    @classmethod
    def checked(
        cls,
        weights: str,
        std_error: str,
        simulate: bool,
        n_draws: int,
        rng: object,
        distribution: str,
        ci_level: float,
        n_threads: int | None,
    ) -> _Options:
        check.choice("weights", weights, WEIGHTS)
        check.choice("std_error", std_error, STD_ERRORS)
        if check.flag("simulate", simulate):
            if std_error not in ("auto", "bootstrap"):
                raise check.fail(
                    "std_error", "'auto' or 'bootstrap' with simulate=True", repr(std_error)
                )
            std_error = "bootstrap"
        return cls(
            weights=weights,
            std_error=std_error,
            n_draws=check.integer("n_draws", n_draws, minimum=100, maximum=10**9),
            rng=rng,
            distribution=check.choice("distribution", distribution, ("normal", "t")),
            ci_level=check.scalar("ci_level", ci_level, above=0, below=1),
            n_threads=thread_count(n_threads),
        )


def simple_median(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    std_error: str = "auto",
    simulate: bool = False,
    n_draws: int = 10_000,
    rng: object = None,
    distribution: str = "normal",
    ci_level: float = 0.95,
    n_threads: int | None = 1,
) -> MedianEstimate:
    """Median of the ratios with equal weights; valid if more than half of the SNPs are.

    See `weighted_median` for the parameters.

    Returns
    -------
    MedianEstimate

    Raises
    ------
    InvalidInputError
        As `weighted_median`.

    References
    ----------
    Bowden, Davey Smith, Haycock, Burgess (2016), doi:10.1002/gepi.21965.
    """
    data = _data(beta_exposure, se_exposure, beta_outcome, se_outcome)
    options = _Options.checked(
        "simple", std_error, simulate, n_draws, rng, distribution, ci_level, n_threads
    )
    return _median("simple_median", data, normalised_weights(data, "simple"), options, ())


def weighted_median(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    weights: str = "first_order",
    std_error: str = "auto",
    simulate: bool = False,
    n_draws: int = 10_000,
    rng: object = None,
    distribution: str = "normal",
    ci_level: float = 0.95,
    n_threads: int | None = 1,
) -> MedianEstimate:
    """Weighted median of the ratios; valid if SNPs of more than half of the weight are.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        Associations with exposure and outcome, at least 3 independent SNPs.
    weights : {"first_order", "second_order", "simple"}
        Inverse variances of the ratios: sy^2 / bx^2; with by^2 sx^2 / bx^4 added, which pulls the
        estimate about twice as far towards zero; equal.
    std_error : {"auto", "analytic", "bootstrap", "robust", "max"}
        ``"analytic"``: half of the central 68.27% interval of the bootstrap's law, in closed form.
        ``"auto"``: that, or the same of draws, where the closed form may be off: fewer than 10
        SNPs, a weight above 0.25, or a gap at the estimate wider than the standard errors of its
        two neighbours together.
        ``"bootstrap"``: standard deviation of the draws. It is unstable, and its expectation need
        not exist, where weak SNPs weigh much.
        ``"robust"``: from the density of the ratios at the estimate. The bootstrap takes the
        ratios that were found for the truth, and is too narrow where they are heterogeneous (by
        half with strong pleiotropy) and 15% too wide where they are not.
        ``"max"``: the larger one of ``"auto"`` and ``"robust"``.
    simulate : bool, default False
        Draw in any case; the standard error is that of ``"bootstrap"``.
    n_draws : int, default 10000
    rng : None, int or numpy.random.Generator
    distribution : {"normal", "t"}
        Of the interval and the p-value; ``"t"`` has J - 1 degrees of freedom.
    ci_level : float, default 0.95
    n_threads : int or None, default 1
        Threads of the draws; None takes all. Results do not depend on it.

    Returns
    -------
    MedianEstimate

    Raises
    ------
    InvalidInputError
        Arrays of different lengths, not finite, standard errors not above 0, `beta_exposure` of 0,
        fewer than 3 SNPs, unknown options.

    References
    ----------
    Bowden, Davey Smith, Haycock, Burgess (2016), doi:10.1002/gepi.21965.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.weighted_median(
    ...     beta_exposure=[0.1, 0.2, 0.3],
    ...     se_exposure=[0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.08, 0.15],
    ...     se_outcome=[0.02, 0.02, 0.02],
    ...     rng=1,
    ... )
    >>> round(result.estimate, 4)
    0.5
    """
    data = _data(beta_exposure, se_exposure, beta_outcome, se_outcome)
    options = _Options.checked(
        weights, std_error, simulate, n_draws, rng, distribution, ci_level, n_threads
    )
    return _median("weighted_median", data, normalised_weights(data, weights), options, ())


def penalised_median(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    weights: str = "first_order",
    penalty_factor: float = 20.0,
    std_error: str = "auto",
    simulate: bool = False,
    n_draws: int = 10_000,
    rng: object = None,
    distribution: str = "normal",
    ci_level: float = 0.95,
    n_threads: int | None = 1,
) -> MedianEstimate:
    """Weighted median whose weights are lowered for SNPs far from the weighted median.

    The weight of a SNP is multiplied by min(1, `penalty_factor` p), p the upper tail of
    (r - weighted median)^2 / variance under chi-squared with 1 degree of freedom. None of the
    standard errors accounts for the choice of the penalties by the data.

    Parameters
    ----------
    penalty_factor : float, default 20
    others
        As for `weighted_median`; with ``weights="simple"`` the variances of the penalties are
        those of the first order.

    Returns
    -------
    MedianEstimate

    Raises
    ------
    InvalidInputError
        As `weighted_median`.

    References
    ----------
    Bowden, Davey Smith, Haycock, Burgess (2016), doi:10.1002/gepi.21965.
    """
    data = _data(beta_exposure, se_exposure, beta_outcome, se_outcome)
    options = _Options.checked(
        weights, std_error, simulate, n_draws, rng, distribution, ci_level, n_threads
    )
    factor = check.scalar("penalty_factor", penalty_factor, above=0)
    note = "no standard error accounts for penalties that the same data chose"
    return _median("penalised_median", data, _penalised(data, weights, factor), options, (note,))


def _data(bx: ArrayLike, sx: ArrayLike, by: ArrayLike, sy: ArrayLike) -> Associations:
    return associations(bx, sx, by, sy, minimum=_MINIMUM, nonzero=True)


def _penalised(data: Associations, kind: str, factor: float) -> Float:
    weights = normalised_weights(data, kind)
    ratios = data.by / data.bx
    centre = _core.medians.weighted_median(ratios, weights)
    variance = ratio_variance(data, "first_order" if kind == "simple" else kind)
    tail = chdtrc(1, (ratios - centre) ** 2 / variance)
    weights = weights * np.minimum(1.0, factor * tail)
    total = float(weights.sum())
    if not total > 0:
        raise check.fail(
            "beta_outcome", "a ratio that the penalties leave some weight", "none near the median"
        )
    return np.ascontiguousarray(weights / total)


def _median(
    method: str,
    data: Associations,
    weights: Float,
    options: _Options,
    messages: tuple[str, ...],
) -> MedianEstimate:
    kernel = _core.medians
    n = len(weights)
    ratios = data.by / data.bx
    estimate = kernel.weighted_median(ratios, weights)
    analytic, bahadur, robust, gap = kernel.median_errors(
        *data, weights, np.array([estimate]), np.array([0, n])
    )[0].tolist()
    if robust > _FARTHEST * float(np.ptp(ratios)) > 0:
        robust = math.inf  # no density at the estimate
    doubt = _doubt(n, weights, gap, analytic)
    draw = options.std_error == "bootstrap" or (
        options.std_error in ("auto", "max") and doubt is not None
    )
    sd = sd_error = half = half_error = math.nan
    if draw:
        draws = kernel.bootstrap_medians(
            *data,
            weights,
            estimate=estimate,
            scale=analytic if 0 < analytic < math.inf else abs(estimate) + 1e-300,
            draws=options.n_draws,
            seed=kernel_seed(options.rng),
            set=0,
            purpose=_PURPOSE,
            threads=options.n_threads,
        )
        sd, sd_error = standard_deviation(draws)
        half, half_error = halfwidth(draws)
    if options.std_error == "bootstrap":
        used, std_error, error = "bootstrap", sd, sd_error
    elif options.std_error == "robust":
        used, std_error, error = "robust", robust, 0.0
    elif draw:
        used, std_error, error = "bootstrap halfwidth", half, half_error
    else:
        used, std_error, error = "analytic", analytic, 0.0
    if options.std_error == "max" and std_error < robust < math.inf:
        used, std_error, error = "robust", robust, 0.0
    if options.std_error in ("robust", "max") and not robust < math.inf:
        messages += ("no ratio is near the estimate: there is no robust standard error",)
    if options.std_error == "analytic" and doubt is not None:
        messages += (f"the analytic standard error may be off: {doubt}",)
    messages += _attenuation(data, options.weights, estimate, std_error)
    law = Inference(options.distribution, n - 1, options.ci_level)
    return MedianEstimate(
        method=method,
        **inference(estimate, std_error, law, options.ci_level),
        n_snps=n,
        messages=messages,
        std_error_method=used,
        analytic_std_error=analytic,
        bahadur_std_error=bahadur,
        robust_std_error=robust,
        bootstrap_std_error=sd,
        bootstrap_halfwidth=half,
        monte_carlo_error=error,
        n_draws=options.n_draws if draw else 0,
        weights=weights,
    )


def _doubt(n: int, weights: Float, gap: float, analytic: float) -> str | None:
    """Why the closed law may be off here, if it may."""
    if n < _FEWEST_ANALYTIC:
        return f"fewer than {_FEWEST_ANALYTIC} SNPs"
    if weights.max() > _LARGEST_WEIGHT:
        return f"a weight of {float(weights.max()):.2f}"
    if gap > _LARGEST_GAP:
        return "the estimate is in a gap between the ratios"
    if not 0 < analytic < math.inf:
        return "it has no solution"
    return None


def _attenuation(
    data: Associations, kind: str, estimate: float, std_error: float
) -> tuple[str, ...]:
    """A message where the weights may pull the estimate visibly towards zero."""
    if kind not in _ATTENUATION:
        return ()
    share = _ATTENUATION[kind] / float(((data.bx / data.sx) ** 2).mean())
    if not share * abs(estimate) > 0.5 * std_error:
        return ()
    return (
        f"the weights depend on the estimated effects and pull the estimate towards zero, by "
        f"about {100 * share:.0f}% here; the simple median is not pulled",
    )


class MedianLaw:
    """Law of the parametric bootstrap of a weighted median, in closed form.

    The indicators of the drawn ratios below t are independent; their weighted sum is taken as
    normal with a correction for its skewness, and the interpolation between neighbours as uniform.
    Ratios whose denominator changes sign are included.

    Attributes
    ----------
    estimate, halfwidth, bahadur, robust : float
        Estimate; half of the central 68.27% interval; the same to first order; robust standard
        error.
    """

    def __init__(self, data: Associations, weights: Float) -> None:
        self._arguments = (*data, weights)
        self.estimate = _core.medians.weighted_median(data.by / data.bx, weights)
        self.halfwidth, self.bahadur, self.robust, _ = _core.medians.median_errors(
            *self._arguments, np.array([self.estimate]), np.array([0, len(weights)])
        )[0].tolist()

    def cdf(self, t: ArrayLike) -> Float:
        """Probability that a drawn median is at most t."""
        at = check.float_array("t", t, ndim=None)
        scores = _core.medians.median_scores(*self._arguments, at.ravel())
        return np.asarray(ndtr(scores)).reshape(at.shape)

    def quantile(self, p: ArrayLike) -> Float:
        """Where the distribution function is p; NaN where it never is."""
        level = check.float_array("p", p, ndim=None)
        if level.size and not (level.min() > 0 and level.max() < 1):
            raise check.fail("p", "probabilities between 0 and 1", repr(p))
        return self._at(ndtri(level.ravel())).reshape(level.shape)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the law without its far tails (9 normal nodes)."""
        t = self._at(_NODES)
        share = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
        mean = float((share * t).sum())
        return mean, math.sqrt(float((share * (t - mean) ** 2).sum()))

    def _at(self, scores: Float) -> Float:
        return _core.medians.median_quantiles(
            *self._arguments, self.estimate, np.ascontiguousarray(scores)
        )


def median_law(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    weights: str = "first_order",
    penalty_factor: float | None = None,
) -> MedianLaw:
    """Law of the parametric bootstrap of the weighted median, without draws.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome, weights
        As for `weighted_median`; ``"simple"`` is the simple median.
    penalty_factor : float or None
        That of `penalised_median`; None: no penalties.

    Returns
    -------
    MedianLaw
    """
    data = _data(beta_exposure, se_exposure, beta_outcome, se_outcome)
    check.choice("weights", weights, WEIGHTS)
    if penalty_factor is None:
        return MedianLaw(data, normalised_weights(data, weights))
    factor = check.scalar("penalty_factor", penalty_factor, above=0)
    return MedianLaw(data, _penalised(data, weights, factor))


def median_matrix(
    beta_outcome: NDArray[Any],
    se_outcome: NDArray[Any],
    *,
    offsets: ArrayLike,
    snps: ArrayLike,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    weights: str = "first_order",
    minimum: int = _MINIMUM,
    n_threads: int | None = None,
) -> tuple[Float, Float, NDArray[np.int32]]:
    """Weighted medians with robust standard errors of many exposures and outcomes.

    Parameters
    ----------
    beta_outcome, se_outcome : ndarray of float64 or float32, shape (P, O)
        All SNPs with all outcomes, C-contiguous; NaN is missing.
    offsets : array_like of int, shape (E + 1,)
        Exposure e has the entries ``offsets[e]:offsets[e + 1]`` of the arrays below.
    snps : array_like of int
        Rows of `beta_outcome`.
    beta_exposure, se_exposure : array_like
        Of those SNPs.
    weights : {"first_order", "second_order", "simple"}
    minimum : int, default 3
        SNPs that a pair needs.
    n_threads : int or None
        None takes all.

    Returns
    -------
    estimates, robust standard errors : ndarray, shape (E, O)
        NaN for pairs of too few SNPs.
    counts : ndarray of int32, shape (E, O)
        SNPs of each pair.
    """
    check.choice("weights", weights, WEIGHTS)
    kind = np.dtype(np.float32 if beta_outcome.dtype == np.float32 else np.float64)
    bx = check.float_array("beta_exposure", beta_exposure, ndim=1)
    sx = check.float_array("se_exposure", se_exposure, ndim=1, shape=bx.shape, positive=True)
    if not bx.all():
        raise check.fail("beta_exposure", "numbers other than 0", "0")
    return _core.medians.median_matrix(
        np.ascontiguousarray(beta_outcome, dtype=kind),
        np.ascontiguousarray(se_outcome, dtype=kind),
        offsets=np.ascontiguousarray(offsets, dtype=np.int64),
        ids=np.ascontiguousarray(snps, dtype=np.int64),
        bx=bx,
        sx=sx,
        weights=weights,
        minimum=check.integer("minimum", minimum, minimum=1),
        threads=thread_count(n_threads),
    )
