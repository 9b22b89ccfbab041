"""Inverse-variance weighting without the bias of weak instruments: `debiased_ivw`, `penalised_ivw`.

With mu1 = sum bx by / sy^2 and mu2 = sum (bx^2 - sx^2) / sy^2, the debiased estimate is mu1/mu2,
and the penalised one keeps mu2 away from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float
from mrfast.errors import ConvergenceError
from mrfast.summary._draws import kernel_seed, quantile_error
from mrfast.summary._inputs import Associations, associations
from mrfast.summary.estimate import Inference, MREstimate, inference

__all__ = ["DebiasedEstimate", "PenalisedIVWEstimate", "debiased_ivw", "penalised_ivw"]

_NORMAL_FROM = 20.0  # condition from which the debiased estimate is nearly normal
_BOOTSTRAP_BELOW = 10.0  # condition below which the penalised one is not
_PURPOSE = 0x70697677  # of the draws: "pivw"


@dataclass(frozen=True, kw_only=True)
class DebiasedEstimate(MREstimate):
    """Result of `debiased_ivw`.

    Attributes
    ----------
    over_dispersion : bool
    tau2 : float
        Variance of the pleiotropic effects on the outcome; 0 without over-dispersion.
    condition : float
        Effective strength (mean F - 1) sqrt(J). The normal law needs about 20.
    f_statistic : float
        Mean F of the SNPs.
    """

    title = "debiased inverse-variance weighted"

    over_dispersion: bool
    tau2: float
    condition: float
    f_statistic: float

    def _more_rows(self) -> list[tuple[str, str]]:
        rows = [("condition", f"{self.condition:.4g} (mean F {self.f_statistic:.4g})")]
        return [*rows, ("tau2", f"{self.tau2:.4g}")] if self.over_dispersion else rows


@dataclass(frozen=True, kw_only=True, eq=False)
class PenalisedIVWEstimate(DebiasedEstimate):
    """Result of `penalised_ivw`; further fields than those of `DebiasedEstimate`.

    Attributes
    ----------
    condition : float
        (mean F - 1) sqrt(J) / max(1, delta^2), of the SNPs that were kept.
    penalty, delta : float
    selected : ndarray of bool
        SNPs that were kept, of those given.
    interval : {"wald", "bootstrap_fieller"}
        The one that was used.
    intervals : ndarray, shape (P, 2)
        Pieces of the confidence set, ascending; `ci_lower` and `ci_upper` are its outer ends.
    bounded : bool
        The confidence set has finite ends.
    n_draws : int
        Draws that were made.
    monte_carlo_error : float
        Monte-Carlo standard error of `p_value`; 0 without draws.
    ci_monte_carlo_error : tuple of float
        Of the two limits; 0 without draws, NaN for infinite ones.
    """

    title = "penalised inverse-variance weighted"

    penalty: float
    delta: float
    selected: np.ndarray[Any, np.dtype[np.bool_]]
    interval: str
    intervals: Float
    bounded: bool
    n_draws: int
    monte_carlo_error: float
    ci_monte_carlo_error: tuple[float, float]


def debiased_ivw(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    over_dispersion: bool = True,
    ci_level: float = 0.95,
) -> DebiasedEstimate:
    """Inverse-variance weighting with its weak-instrument bias removed.

    sum(bx by / sy^2) / sum((bx^2 - sx^2) / sy^2), as bx^2 is too large by sx^2 on average. All
    SNPs can be used, without selection by p-value. Independent SNPs of two separate samples.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
    over_dispersion : bool, default True
        Balanced pleiotropy: effects on the outcome of variance tau2 beside that of the exposure.
    ci_level : float, default 0.95

    Returns
    -------
    DebiasedEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays.
    ConvergenceError
        The denominator is not above 0: the SNPs are not stronger than their errors.

    References
    ----------
    Ye, Shao, Kang (2021), doi:10.1214/20-AOS2027.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.debiased_ivw(
    ...     beta_exposure=[0.1, 0.2, 0.15], se_exposure=[0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07], se_outcome=[0.02, 0.02, 0.02],
    ... )
    >>> round(result.estimate, 4)
    0.5194
    """
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    dispersed = check.flag("over_dispersion", over_dispersion)
    data = associations(beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=1)
    bx, sx, by, sy = data
    denominator = float(((bx**2 - sx**2) / sy**2).sum())
    if not denominator > 0:
        raise ConvergenceError(
            "debiased_ivw: the SNPs are not stronger than their errors (the sum of bx^2 - sx^2 "
            "over sy^2 is not above 0); penalised_ivw has an estimate"
        )
    estimate = float((bx * by / sy**2).sum()) / denominator
    tau2 = _tau2(data, estimate) if dispersed else 0.0
    constant, square = _variance_parts(data, tau2)
    error = math.sqrt(constant + estimate**2 * square) / denominator
    f, condition = _strength(data, 0.0)
    messages = []
    if condition < _NORMAL_FROM:
        messages.append(
            f"the condition is {condition:.3g}; below {_NORMAL_FROM:g} the estimate is not close "
            "to normal (penalised_ivw has an interval for that)"
        )
    return DebiasedEstimate(
        method="debiased_ivw",
        n_snps=len(bx),
        over_dispersion=dispersed,
        tau2=tau2,
        condition=condition,
        f_statistic=f,
        messages=tuple(messages),
        **inference(estimate, error, Inference("normal", 0, level), level),
    )


def penalised_ivw(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    penalty: float = 1.0,
    over_dispersion: bool = True,
    delta: float = 0.0,
    selection_p: ArrayLike | None = None,
    interval: str = "auto",
    n_draws: int = 10_000,
    rng: object = None,
    ci_level: float = 0.95,
    n_threads: int | None = 1,
) -> PenalisedIVWEstimate:
    """Debiased estimate whose denominator is kept from 0 by a penalty on its logarithm.

    mu2 becomes mu2/2 + sign(mu2) sqrt(mu2^2/4 + penalty v2), with v2 the variance of mu2, and mu1
    follows it by their covariance. The estimate has moments, and its bias is of smaller order than
    that of `debiased_ivw`.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
    penalty : float, default 1
        Called lambda in the paper; 1 makes the bias least, 0 gives `debiased_ivw`.
    over_dispersion : bool, default True
        Balanced pleiotropy, as in `debiased_ivw`.
    delta : float, default 0
        Keep SNPs whose z-score in a third sample is above `delta` in size.
    selection_p : array_like, shape (J,), optional
        p-values of the exposure associations in that sample, needed with `delta`. Those of the
        sample of `beta_exposure` itself bring the winner's curse.
    interval : {"auto", "wald", "bootstrap_fieller"}, default "auto"
        ``"wald"``: normal law. ``"bootstrap_fieller"``: effects theta whose
        (mu1 - theta mu2)/standard error is no larger than a quantile of its simulated size; the
        set need not be bounded nor one piece. ``"auto"``: the second where the condition is below
        10.
    n_draws : int, default 10000
        Of the bootstrap, at most 10^7.
    rng : None, int or numpy.random.Generator
    ci_level : float, default 0.95
    n_threads : int or None, default 1
        Threads of the draws; None takes all. Results do not depend on it.

    Returns
    -------
    PenalisedIVWEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays or options, no SNP above `delta`.
    ConvergenceError
        `penalty` is 0 and so is the denominator.

    References
    ----------
    Xu, Wang, Fung, Liu (2022), doi:10.1111/biom.13732.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.penalised_ivw(
    ...     beta_exposure=[0.1, 0.2, 0.15], se_exposure=[0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07], se_outcome=[0.02, 0.02, 0.02],
    ... )
    >>> round(result.estimate, 4)
    0.518
    """
    weight = check.scalar("penalty", penalty, minimum=0)
    dispersed = check.flag("over_dispersion", over_dispersion)
    threshold = check.scalar("delta", delta, minimum=0)
    check.choice("interval", interval, ("auto", "wald", "bootstrap_fieller"))
    draws = check.integer("n_draws", n_draws, minimum=100, maximum=10**7)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    threads = thread_count(n_threads)
    data = associations(beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=1)
    selected = np.ones(len(data.bx), dtype=bool)
    if threshold or selection_p is not None:
        if selection_p is None or not threshold:
            raise check.fail(
                "selection_p" if threshold else "delta",
                "p-values of another sample together with delta above 0",
                "none" if threshold else f"{threshold:g} with selection_p",
            )
        p = check.float_array("selection_p", selection_p, ndim=1, shape=(len(data.bx),))
        if not ((p >= 0) & (p <= 1)).all():
            raise check.fail("selection_p", "numbers from 0 to 1", "others")
        selected = -ndtri(p / 2) > threshold
        if not selected.any():
            raise check.fail("delta", "a threshold that some SNP passes", f"{threshold:g}")
        data = Associations(*(np.ascontiguousarray(values[selected]) for values in data))
    bx, sx, by, sy = data
    sums = [
        float((bx * by / sy**2).sum()),
        float((bx**2 / sy**2).sum()),
        float(((bx**2 - sx**2) * sx**2 / sy**4).sum()),
        float((bx * by * sx**2 / sy**4).sum()),
    ]
    mu1, mu2, *_ = _penalised(sums, data, weight)
    if mu2 == 0:
        raise ConvergenceError("penalised_ivw: without a penalty the denominator is 0")
    estimate = float(mu1 / mu2)
    tau2 = _tau2(data, estimate) if dispersed else 0.0
    constant, square = _variance_parts(data, tau2)
    error = math.sqrt(constant + estimate**2 * square) / abs(float(mu2))
    f, condition = _strength(data, threshold)
    summary = inference(estimate, error, Inference("normal", 0, level), level)
    pieces = np.array([[summary["ci_lower"], summary["ci_upper"]]])
    used, made, p_error, limit_errors = "wald", 0, 0.0, (0.0, 0.0)
    if interval == "bootstrap_fieller" or (interval == "auto" and condition < _BOOTSTRAP_BELOW):
        used, made = "bootstrap_fieller", draws
        sums.append(float((((bx**2 - sx**2) * (sy**2 + tau2) + by**2 * sx**2) / sy**4).sum()))
        law = _pivot_law(sums, data, tau2, weight)
        drawn = _draws(data, estimate, tau2, draws, kernel_seed(rng), threads)
        pivots = np.abs(_pivot_law(drawn, data, tau2, weight).pivot(estimate))
        quantile = float(np.quantile(pivots, level))
        pieces = law.pieces(quantile)
        lower, upper = float(pieces[0, 0]), float(pieces[-1, 1])
        spread = quantile_error(pivots, level)
        limit_errors = (spread * law.reach(lower), spread * law.reach(upper))
        share = (1 + int((pivots >= abs(float(law.pivot(0.0)))).sum())) / (1 + draws)
        p_error = math.sqrt(share * (1 - share) / draws)
        summary |= {"ci_lower": lower, "ci_upper": upper, "p_value": share}
    bounded = bool(np.isfinite(pieces).all())
    messages = []
    if used == "wald" and condition < _BOOTSTRAP_BELOW:
        messages.append(
            f"the condition is {condition:.3g}; below {_BOOTSTRAP_BELOW:g} the normal interval is "
            "not to be trusted (interval='bootstrap_fieller')"
        )
    if mu2 < 0:
        messages.append(
            "the SNPs are not stronger than their errors: the sign is not to be trusted"
        )
    if not bounded or len(pieces) != 1:
        messages.append(
            f"the confidence set is {'bounded' if bounded else 'unbounded'}, in {len(pieces)} "
            f"piece{'s' * (len(pieces) != 1)} (see intervals)"
        )
    return PenalisedIVWEstimate(
        method="penalised_ivw",
        n_snps=len(bx),
        over_dispersion=dispersed,
        tau2=tau2,
        condition=condition,
        f_statistic=f,
        penalty=weight,
        delta=threshold,
        selected=selected,
        interval=used,
        intervals=pieces,
        bounded=bounded,
        n_draws=made,
        monte_carlo_error=p_error,
        ci_monte_carlo_error=limit_errors,
        messages=tuple(messages),
        **summary,
    )


def _tau2(data: Associations, estimate: float) -> float:
    """Variance of the pleiotropic effects, by moments; not below 0."""
    bx, sx, by, sy = data
    excess = (by - estimate * bx) ** 2 - sy**2 - (estimate * sx) ** 2
    return max(0.0, float((excess / sy**2).sum() / (1 / sy**2).sum()))


def _variance_parts(data: Associations, tau2: float) -> tuple[float, float]:
    """The numbers a and c in the variance a + c theta^2 of mu1 - theta mu2."""
    bx, sx, _, sy = data
    constant = (bx**2 * (sy**2 + tau2) / sy**4).sum()
    return float(constant), float((sx**2 * (bx**2 + sx**2) / sy**4).sum())


def _strength(data: Associations, delta: float) -> tuple[float, float]:
    """Mean F, and the condition."""
    f = float(((data.bx / data.sx) ** 2).mean())
    return f, (f - 1) * math.sqrt(len(data.bx)) / max(1.0, delta**2)


def _penalised(sums: Sequence[Any], data: Associations, weight: float) -> tuple[Any, ...]:
    """Penalised mu1 and mu2, the covariance of mu1 and mu2 and the variance of mu2.

    `sums` as of `mrfast._core.likelihood.ratio_sum_draws`, of the data or of draws.
    """
    _, sx, _, sy = data
    mu1, mu2 = sums[0], sums[1] - float((sx**2 / sy**2).sum())
    covariance = 2 * sums[3]
    variance = 4 * np.maximum(sums[2], 0.0) + 2 * float((sx**4 / sy**4).sum())
    reached = mu2 / 2 + np.where(mu2 < 0, -1.0, 1.0) * np.sqrt(mu2**2 / 4 + weight * variance)
    return mu1 + covariance / variance * (reached - mu2), reached, covariance, variance


def _draws(
    data: Associations, estimate: float, tau2: float, draws: int, seed: int, threads: int
) -> list[Float]:
    """Sums of data sets where `estimate` is the effect."""
    bx, sx, _, sy = data
    sums = _core.likelihood.ratio_sum_draws(
        bx,
        sx,
        mean=estimate * bx,
        error=np.sqrt(sy**2 + tau2),
        sy=sy,
        draws=draws,
        seed=seed,
        purpose=_PURPOSE,
        threads=threads,
    )
    return list(np.ascontiguousarray(sums.T))


def _pivot_law(sums: Sequence[Any], data: Associations, tau2: float, weight: float) -> _PivotLaw:
    """The pivot of the data or of every draw."""
    _, sx, _, sy = data
    mu1, mu2, covariance, variance = _penalised(sums, data, weight)
    # The variance of mu1, not below what the errors alone make of it.
    own = np.maximum(sums[4], float((sx**2 * (sy**2 + tau2) / sy**4).sum()))
    bound = np.sqrt(own * variance)
    covariance = np.clip(covariance, -bound, bound)
    share = mu2**2 / (mu2**2 + weight * variance)  # by which the penalised mu2 follows mu2
    return _PivotLaw(mu1, mu2, own, share * covariance, share**2 * variance)


@dataclass(frozen=True)
class _PivotLaw:
    """The pivot (mu1 - theta mu2)/sqrt(constant - 2 linear theta + square theta^2)."""

    mu1: Any
    mu2: Any
    constant: Any
    linear: Any
    square: Any

    def _variance(self, theta: float) -> Any:
        return self.constant - 2 * self.linear * theta + self.square * theta**2

    def pivot(self, theta: float) -> Any:
        return (self.mu1 - theta * self.mu2) / np.sqrt(self._variance(theta))

    def reach(self, theta: float) -> float:
        """How far theta moves with the pivot; NaN at infinity."""
        if not math.isfinite(theta):
            return math.nan
        variance = self._variance(theta)
        turn = (self.mu1 - theta * self.mu2) * (self.square * theta - self.linear)
        return float(variance**1.5 / abs(self.mu2 * variance + turn))

    def pieces(self, quantile: float) -> Float:
        """Where the pivot is at most `quantile` in size: intervals of theta, ascending."""
        # (mu1 - theta mu2)^2 - quantile^2 variance = a theta^2 - 2 b theta + c <= 0
        a = float(self.mu2**2 - quantile**2 * self.square)
        b = float(self.mu1 * self.mu2 - quantile**2 * self.linear)
        c = float(self.mu1**2 - quantile**2 * self.constant)
        discriminant = b**2 - a * c
        if discriminant <= 0:
            return np.array([[-math.inf, math.inf]])
        top = b + math.copysign(math.sqrt(discriminant), b)
        low, high = sorted((top / a if a else math.copysign(math.inf, top), c / top))
        if a >= 0:
            return np.array([[low, high]])
        return np.array([[-math.inf, low], [high, math.inf]])
