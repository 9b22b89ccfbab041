"""Robust adjusted profile score: `raps`.

SNP j has the residual t = (by - theta bx) / sqrt(v), v = sy^2 + tau2 + theta^2 sx^2. The effect is
the one of least sum rho(t), over all theta; the over-dispersion tau2 solves
sum sx^2 (t rho'(t) - delta) / v = 0 with delta the mean of t rho'(t) under the normal law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gamma, gammainc

from mrfast import _core
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import ConvergenceError
from mrfast.summary._inputs import Associations, associations
from mrfast.summary.estimate import (
    Inference,
    MREstimate,
    chi_square_p,
    ignored_heterogeneity,
    inference,
)
from mrfast.summary.likelihood_method import INFINITE

__all__ = ["LossMoments", "RAPSEstimate", "loss_moments", "raps", "raps_errors"]

LOSSES = {"l2": math.inf, "huber": 1.345, "tukey": 4.685}
"""Losses and their tuning constants: efficiency 95% under the normal law."""

_CLOSE = 1.92  # rise of the sum of rho up to which another minimum is nearly as good


class LossMoments(NamedTuple):
    """Means under the standard normal law.

    Attributes
    ----------
    delta : float
        Of t rho'(t).
    score : float
        Of rho'(t)^2.
    product : float
        Variance of t rho'(t).
    curvature : float
        Of t^2 rho''(t).
    """

    delta: float
    score: float
    product: float
    curvature: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RAPSEstimate(MREstimate):
    """Result of `raps`.

    Attributes
    ----------
    loss : {"l2", "huber", "tukey"}
    tuning_constant : float
        Infinite for ``"l2"``.
    over_dispersion : bool
    tau2, tau2_std_error : float
        Variance of the pleiotropic effects on the outcome; 0 and NaN without over-dispersion.
    naive_std_error : float
        Without the noise of the exposure associations in the score.
    chi_square, chi_square_p_value : float
        Sum of squared residuals, against J - 1 degrees of freedom.
    residuals : ndarray, shape (J,)
        Standardised, t.
    minima : ndarray, shape (M, 2)
        Effects where the sum of rho is least nearby, at the estimated tau2, and that sum.
    tau2_roots : ndarray, shape (R, 2)
        Every solution of the equation of tau2 that was found, with its effect; the first is used.
    tau2_bracket : tuple of float
        Where the equation changes its sign.
    f_statistic : float
        Mean F of the SNPs.
    """

    title = "robust adjusted profile score"

    loss: str
    tuning_constant: float
    over_dispersion: bool
    tau2: float
    tau2_std_error: float
    naive_std_error: float
    chi_square: float
    chi_square_p_value: float
    residuals: Float
    minima: Float
    tau2_roots: Float
    tau2_bracket: tuple[float, float]
    f_statistic: float

    def _more_rows(self) -> list[tuple[str, str]]:
        loss = self.loss if self.loss == "l2" else f"{self.loss} ({self.tuning_constant:g})"
        rows = [("loss", loss)]
        if self.over_dispersion:
            error = self.tau2_std_error
            rows.append(("over-dispersion", f"tau2 = {self.tau2:.3g} (standard error {error:.2g})"))
        return [*rows, ("mean F", f"{self.f_statistic:.4g}")]


def raps(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    loss: str = "huber",
    over_dispersion: bool = True,
    tuning_constant: float | None = None,
    ci_level: float = 0.95,
) -> RAPSEstimate:
    """Robust adjusted profile score, for many weak SNPs with balanced pleiotropy.

    Independent SNPs of two separate samples; all can be used, without selection by p-value.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
    loss : {"huber", "l2", "tukey"}, default "huber"
        ``"l2"``: no protection from single SNPs with large pleiotropic effects. ``"tukey"`` gives
        those no influence at all, and its sum may have several minima.
    over_dispersion : bool, default True
        Balanced pleiotropy of variance tau2. Where there is any, False has type I errors of 45 to
        65% with ``"l2"``; the other losses lessen this, and do not cure it.
    tuning_constant : float, optional
        Default 1.345 (Huber) and 4.685 (Tukey).
    ci_level : float, default 0.95

    Returns
    -------
    RAPSEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays or options.
    ConvergenceError
        The fit is best at an infinite effect.

    Notes
    -----
    The sum of rho is minimised over the whole circle of theta = scale tan(angle), and the equation
    of tau2 is an outer root: no alternation, no starting value. Where it is not above 0 at
    tau2 = 0, tau2 is 0. The standard error is the sandwich of both equations.

    Each residual has its own v. The package mr.raps 0.4.2 divides all by the largest one where a
    robust loss meets over-dispersion, which `mrfast.compat.mr_raps_0_4_robust` imitates.

    References
    ----------
    Zhao, Wang, Hemani, Bowden, Small (2020), doi:10.1214/19-AOS1866, sections 4 and 5.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.raps(
    ...     beta_exposure=[0.1, 0.2, 0.15], se_exposure=[0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07], se_outcome=[0.02, 0.02, 0.02],
    ... )
    >>> round(result.estimate, 4), result.tau2
    (0.5174, 0.0)
    """
    check.choice("loss", loss, tuple(LOSSES))
    dispersed = check.flag("over_dispersion", over_dispersion)
    constant = LOSSES[loss]
    if tuning_constant is not None:
        if loss == "l2":
            raise check.fail("tuning_constant", 'none with loss="l2"', repr(tuning_constant))
        constant = check.scalar("tuning_constant", tuning_constant, above=0)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    data = associations(beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=1)
    n = len(data.bx)
    moments = loss_moments(loss, constant)
    kernel_constant = 0.0 if loss == "l2" else constant
    messages: list[str] = []
    tau2, bracket = 0.0, (0.0, 0.0)
    roots = np.empty((0, 2))
    if dispersed:
        found = _core.likelihood.dispersed_roots(
            *data, loss=loss, constant=kernel_constant, delta=moments.delta
        )
        if not found:
            raise ConvergenceError("raps: the equation of the over-dispersion has no solution")
        roots = np.array([root[:2] for root in found])
        tau2, _, lower, upper, jump = found[0]
        bracket = (lower, upper)
        if len(found) > 1:
            listed = ", ".join(f"{root[0]:.3g}" for root in found)
            messages.append(
                f"the equation of the over-dispersion has {len(found)} solutions "
                f"(tau2 = {listed}); the first is used (see tau2_roots)"
            )
        if jump:
            messages.append(
                "the effect jumps where the equation of the over-dispersion changes its sign, so "
                "that no tau2 solves it: see minima for both effects"
            )
    theta, best, minima, _ = _core.likelihood.profile(
        *data, overlap=0.0, tau2=tau2, loss=loss, constant=kernel_constant, rise=0.0
    )
    if not math.isfinite(theta):
        raise ConvergenceError(INFINITE)
    if (minima[:, 1] < best + _CLOSE).sum() > 1:
        messages.append("other effects fit nearly as well: there are several minima (see minima)")
    error, naive, tau2_error = raps_errors(data, theta, tau2, moments, dispersed)
    if not math.isfinite(error):
        messages.append("the SNPs are not stronger than their errors: no standard error")
    residuals = (data.by - theta * data.bx) / np.sqrt(data.sy**2 + tau2 + (theta * data.sx) ** 2)
    chi_square = float((residuals**2).sum())
    p = chi_square_p(chi_square, n - 1)
    if not dispersed:
        messages += ignored_heterogeneity(p, "over_dispersion=False")
    return RAPSEstimate(
        method="raps",
        n_snps=n,
        loss=loss,
        tuning_constant=constant,
        over_dispersion=dispersed,
        tau2=tau2,
        tau2_std_error=tau2_error if dispersed else math.nan,
        naive_std_error=naive,
        chi_square=chi_square,
        chi_square_p_value=p,
        residuals=residuals,
        minima=minima,
        tau2_roots=roots,
        tau2_bracket=bracket,
        f_statistic=float(((data.bx / data.sx) ** 2).mean()),
        messages=tuple(messages),
        **inference(theta, error, Inference("normal", 0, level), level),
    )


def loss_moments(loss: str, constant: float) -> LossMoments:
    """Moments of a loss under the standard normal law, in closed form."""
    if loss == "l2":
        return LossMoments(1.0, 1.0, 2.0, 1.0)
    k2 = constant**2

    def inner(power: int) -> float:
        """Mean of t^power inside the tuning constant, 0 outside."""
        half = (power + 1) / 2
        return float(2 ** (power / 2) * gamma(half) / math.sqrt(math.pi) * gammainc(half, k2 / 2))

    if loss == "huber":
        delta = inner(0)
        return LossMoments(
            delta,
            inner(2) + k2 * (1 - inner(0)),
            inner(4) + k2 * (1 - inner(2)) - delta**2,
            inner(2),
        )
    m = [inner(power) / k2 ** (power / 2 - 1) for power in range(2, 14, 2)]  # t^2, t^4/k^2, ...
    delta = m[0] - 2 * m[1] + m[2]
    fourth = (1, -4, 6, -4, 1)  # (1 - t^2/k^2)^4
    return LossMoments(
        delta,
        sum(c * part for c, part in zip(fourth, m[:5], strict=True)),
        k2 * sum(c * part for c, part in zip(fourth, m[1:], strict=True)) - delta**2,
        m[0] - 6 * m[1] + 5 * m[2],
    )


def raps_errors(
    data: Associations, theta: float, tau2: float, moments: LossMoments, dispersed: bool
) -> tuple[float, float, float]:
    """Standard errors of the effect, naive and of tau2, by the sandwich of both equations."""
    bx, sx, by, sy = data
    s2 = sy**2 + tau2
    v = s2 + (theta * sx) ** 2
    square = 1 / v**2
    signal = float((((bx**2 - sx**2) * s2 + (by**2 - s2) * sx**2) * square).sum())
    noise = float((sx**2 * s2 * square).sum())
    first = float((sx**2 * square).sum())
    second = float((sx**4 * square).sum())
    own = (moments.delta + moments.curvature) / 2 * first
    tau2_variance = moments.product * second / own**2
    if not signal > 0 or signal + noise <= 0:
        return math.nan, math.nan, math.sqrt(tau2_variance)
    # How the effect moves with tau2 carries the error of tau2 into it.
    carried = (moments.delta * theta * first) ** 2 * tau2_variance if dispersed else 0.0
    variance = (moments.score * (signal + noise) + carried) / (moments.delta * signal) ** 2
    return math.sqrt(variance), 1 / math.sqrt(moments.delta * signal), math.sqrt(tau2_variance)
