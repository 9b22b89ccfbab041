"""mr.raps 0.4.2, where its numbers are not mrfast's: robust losses with over-dispersion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.compat.peer_estimate import PeerEstimate
from mrfast.errors import ConvergenceError
from mrfast.summary._inputs import Associations, associations
from mrfast.summary.adjusted_profile import LOSSES, loss_moments, raps_errors

__all__ = ["VERSION", "RAPSPeerEstimate", "mr_raps_0_4_robust"]

VERSION = "0.4.2"

_GRID = 400  # effects at which a search begins
_DOUBLINGS = 60  # of tau2


@dataclass(frozen=True, kw_only=True)
class RAPSPeerEstimate(PeerEstimate):
    """Numbers of mr.raps.

    Attributes
    ----------
    tau2, tau2_std_error : float
    """

    tau2: float
    tau2_std_error: float


def mr_raps_0_4_robust(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    loss: str = "huber",
    alpha: float = 0.05,
) -> RAPSPeerEstimate:
    """``mr.raps.overdispersed.robust``, which TwoSampleMR's ``mr_raps`` calls too.

    All residuals are divided by the same number, the root of the largest of all variances, instead
    of each by its own. SNPs with small errors then hardly count as far off: tau2 is mostly 0, the
    standard error too small, and the effect that of weights that no model has. `mrfast.raps` gives
    each SNP its own variance.

    The package searches for the over-dispersion to a loose tolerance: where its tau2 is above 0,
    this one agrees to about 1e-3 of its standard error.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
    loss : {"huber", "tukey"}, default "huber"
    alpha : float, default 0.05

    Returns
    -------
    RAPSPeerEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays or options.
    ConvergenceError
        No tau2 solves the package's equation.
    """
    from scipy.optimize import brentq

    check.choice("loss", loss, ("huber", "tukey"))
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    data = associations(beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=1)
    moments = loss_moments(loss, LOSSES[loss])

    def equation(tau2: float) -> float:
        theta = _effect(data, tau2, loss)
        t = _residuals(data, np.array([theta]), tau2)[0]
        v = data.sy**2 + tau2 + (theta * data.sx) ** 2
        product = _rho_and_product(t, loss)[1]
        return float((data.sx**2 * (product - moments.delta) / v).sum())

    tau2 = 0.0
    if equation(0.0) > 0:
        upper = float((data.sy**2).min())
        for _ in range(_DOUBLINGS):
            if equation(upper) < 0:
                break
            upper *= 2
        else:
            raise ConvergenceError("mr_raps_0_4_robust: no tau2 solves the package's equation")
        tau2 = float(brentq(equation, 0.0, upper, xtol=1e-14, rtol=1e-12))
    theta = _effect(data, tau2, loss)
    error, _, tau2_error = raps_errors(data, theta, tau2, moments, True)
    reach = -float(ndtri(alpha / 2)) * error
    return RAPSPeerEstimate(
        method="mr.raps.overdispersed.robust",
        package="mr.raps",
        version=VERSION,
        function="mr.raps.overdispersed.robust",
        estimate=theta,
        std_error=error,
        ci_lower=theta - reach,
        ci_upper=theta + reach,
        p_value=2 * (1 - float(ndtr(abs(theta / error)))),
        n_snps=len(data.bx),
        ci_level=1 - alpha,
        tau2=tau2,
        tau2_std_error=tau2_error,
    )


def _residuals(data: Associations, theta: Float, tau2: float) -> Float:
    """Residuals (T, J) of effects (T,), over one scale for all SNPs."""
    at = theta[:, None]
    largest = (data.sy**2 + tau2 + (at * data.sx) ** 2).max(axis=1, keepdims=True)
    return np.asarray((data.by - at * data.bx) / np.sqrt(largest))


def _rho_and_product(t: Float, loss: str) -> tuple[Float, Float]:
    """The loss, and t times its derivative."""
    k = LOSSES[loss]
    if loss == "huber":
        size = np.abs(t)
        inside = size <= k
        return np.where(inside, t**2 / 2, k * size - k**2 / 2), np.where(inside, t**2, k * size)
    rest = np.maximum(1 - (t / k) ** 2, 0)
    return k**2 / 6 * (1 - rest**3), t**2 * rest**2


def _effect(data: Associations, tau2: float, loss: str) -> float:
    """The effect of least sum of the loss, from quantiles of the ratios."""
    from scipy.optimize import minimize_scalar

    def total(theta: Float) -> Float:
        return np.asarray(_rho_and_product(_residuals(data, theta, tau2), loss)[0].sum(axis=1))

    used = data.bx != 0
    ratios = np.sort(data.by[used] / data.bx[used])
    if len(ratios) > _GRID:
        ratios = np.quantile(ratios, np.linspace(0, 1, _GRID))
    span = max(float(np.ptp(ratios)), float(np.abs(ratios).max()) * 1e-3, 1e-12)
    grid = np.unique(np.concatenate([[ratios[0] - span], ratios, [ratios[-1] + span]]))
    i = int(np.argmin(total(grid)))
    low, high = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda theta: float(total(np.array([theta]))[0]),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-12 * max(1.0, float(span))},
    )
    return float(found.x)
