"""TwoSampleMR 0.7.9, where its numbers are not mrfast's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, ndtr, ndtri, stdtr, stdtrit

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.compat.peer_estimate import PeerEstimate
from mrfast.summary._inputs import Associations, associations
from mrfast.summary.directionality import SteigerTest, population_frequency, steiger_test

__all__ = [
    "VERSION",
    "twosamplemr_0_7_directionality",
    "twosamplemr_0_7_effective_n",
    "twosamplemr_0_7_egger_bootstrap",
    "twosamplemr_0_7_ivw_mre",
    "twosamplemr_0_7_r_from_log_odds",
    "twosamplemr_0_7_r_from_p",
    "twosamplemr_0_7_rucker",
    "twosamplemr_0_7_unweighted",
]

VERSION = "0.7.9"
_REACH = -float(ndtri(0.025))
_CHUNK = 1 << 19


def _two_sided(ratio: float) -> float:
    return 2 * float(ndtr(-abs(ratio)))


def _estimate(
    function: str, estimate: float, error: float, p_value: float, n: int, **more: Any
) -> PeerEstimate:
    return PeerEstimate(
        method=function,
        package="TwoSampleMR",
        version=VERSION,
        function=function,
        estimate=estimate,
        std_error=error,
        ci_lower=estimate - _REACH * error,
        ci_upper=estimate + _REACH * error,
        p_value=p_value,
        n_snps=n,
        ci_level=0.95,
        **more,
    )


def _through_origin(x: Any, y: Any) -> tuple[float, float, float]:
    """Slope, its error as R's lm has it, residual standard error."""
    slope = float((x * y).sum() / (x * x).sum())
    sigma = math.sqrt(float(((y - slope * x) ** 2).sum()) / (len(x) - 1))
    return slope, sigma / math.sqrt(float((x * x).sum())), sigma


def _checked(arrays: tuple[Any, ...], minimum: int, *, se_exposure: bool = False) -> Associations:
    return associations(*arrays, minimum=minimum, needs_se_exposure=se_exposure)


def twosamplemr_0_7_ivw_mre(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
) -> PeerEstimate:
    """``mr_ivw_mre``: random effects that let the standard error fall below the fixed-effect one.

    Where the ratios differ less than their errors say, the error is too small; `mrfast.ivw` takes
    the residual standard error as at least 1.

    Returns
    -------
    PeerEstimate
    """
    data = _checked((beta_exposure, se_exposure, beta_outcome, se_outcome), 2)
    slope, error, sigma = _through_origin(data.bx / data.sy, data.by / data.sy)
    n = len(data.bx)
    q = sigma**2 * (n - 1)
    return _estimate(
        "mr_ivw_mre", slope, error, _two_sided(slope / error), n,
        q=q, q_df=n - 1, q_p_value=float(chdtrc(n - 1, q)),
    )  # fmt: skip


def twosamplemr_0_7_unweighted(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
) -> PeerEstimate:
    """``mr_uwr``: its standard error is divided by min(1, sigma) though sigma has a unit.

    Without weights sigma is in the unit of the outcome, about its standard errors: the result is
    too large by 1/sigma, and p-values say nothing. `mrfast.ivw` with ``weights="simple"`` uses
    `se_outcome`.

    Returns
    -------
    PeerEstimate
    """
    data = _checked((beta_exposure, se_exposure, beta_outcome, se_outcome), 2)
    slope, error, sigma = _through_origin(data.bx, data.by)
    error /= min(1.0, sigma)
    n = len(data.bx)
    q = sigma**2 * (n - 1)
    return _estimate(
        "mr_uwr", slope, error, _two_sided(slope / error), n,
        q=q, q_df=n - 1, q_p_value=float(chdtrc(n - 1, q)),
    )  # fmt: skip


def twosamplemr_0_7_rucker(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
) -> tuple[PeerEstimate, PeerEstimate, PeerEstimate, PeerEstimate]:
    """``mr_rucker``: the four fits, with errors below those of a fixed effect.

    "Fixed" errors are divided by max(1, sigma): with sigma below 1 they are too small, and equal
    to the "random" ones. Intercepts are tested by the normal law, slopes by Student's; the
    intervals are all normal. `mrfast.rucker` chooses the same model.

    Returns
    -------
    tuple of four PeerEstimate
        Fixed and random inverse-variance weighting, fixed and random Egger regression.
    """
    data = _checked((beta_exposure, se_exposure, beta_outcome, se_outcome), 3)
    sign = np.where(data.bx < 0, -1.0, 1.0)
    x, y, level = sign * data.bx / data.sy, sign * data.by / data.sy, 1 / data.sy
    n = len(x)
    slope, error, sigma = _through_origin(x, y)
    found = [
        _estimate("mr_rucker", slope, value, _two_sided(slope / value), n)
        for value in (error / max(1.0, sigma), error)
    ]
    total = float((level**2).sum())
    centre = float((x * level).sum()) / total
    spread = x - centre * level
    sxx = float((spread**2).sum())
    slope = float((spread * y).sum()) / sxx
    intercept = float((y * level).sum()) / total - slope * centre
    residual = y - slope * x - intercept * level
    sigma = math.sqrt(float((residual**2).sum()) / (n - 2))
    for scale in (sigma / max(1.0, sigma), sigma):
        error = scale / math.sqrt(sxx)
        own = scale * math.sqrt(1 / total + centre**2 / sxx)
        found.append(
            _estimate(
                "mr_rucker",
                slope,
                error,
                2 * float(stdtr(n - 2, -abs(slope / error))),
                n,
                intercept=intercept,
                intercept_std_error=own,
                intercept_ci_lower=intercept - _REACH * own,
                intercept_ci_upper=intercept + _REACH * own,
                intercept_p_value=_two_sided(intercept / own),
            )
        )
    return found[0], found[1], found[2], found[3]


def twosamplemr_0_7_egger_bootstrap(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    n_draws: int = 1000,
    rng: object = None,
) -> PeerEstimate:
    """``mr_egger_regression_bootstrap``: not a weighted regression, and one-sided p-values.

    The slope of a draw is the covariance of w x and w y over the variance of w x, which is no
    weighted least squares; the estimate is its mean over draws, and p the share of draws of the
    other sign. `mrfast.egger` with ``std_error="bootstrap"`` fits the regression itself.

    Returns
    -------
    PeerEstimate
    """
    data = _checked((beta_exposure, se_exposure, beta_outcome, se_outcome), 3, se_exposure=True)
    draws = check.integer("n_draws", n_draws, minimum=2)
    source, weight = generator(rng), data.sy**-2.0
    values = np.empty((2, draws))
    step = max(1, _CHUNK // (2 * len(weight)))
    for start in range(0, draws, step):
        z = source.standard_normal((2, min(step, draws - start), len(weight)))
        x, y = data.bx + data.sx * z[0], data.by + data.sy * z[1]
        y, x = np.where(x < 0, -y, y), np.abs(x)
        wx = x * weight - (x * weight).mean(axis=1, keepdims=True)
        slope = (wx * (y * weight)).sum(axis=1) / (wx**2).sum(axis=1)
        values[:, start : start + step] = slope, y.mean(axis=1) - slope * x.mean(axis=1)
    mean, error = values.mean(axis=1), values.std(axis=1, ddof=1)
    other = (np.sign(values) != np.sign(mean)[:, None]).mean(axis=1)
    return _estimate(
        "mr_egger_regression_bootstrap",
        float(mean[0]),
        float(error[0]),
        float(other[0]),
        len(weight),
        intercept=float(mean[1]),
        intercept_std_error=float(error[1]),
        intercept_p_value=float(other[1]),
    )


def twosamplemr_0_7_directionality(
    *,
    p_value_exposure: ArrayLike,
    n_exposure: ArrayLike,
    p_value_outcome: ArrayLike,
    n_outcome: ArrayLike,
    precision_exposure: float = 1.0,
    precision_outcome: float = 1.0,
) -> SteigerTest:
    """``directionality_test`` and ``mr_steiger`` from p-values and sample sizes.

    Shares of the variance come from p-values, which are rounded and underflow, by an F law with
    n - 1 degrees of freedom where n - 2 are left. `mrfast.steiger` uses beta and its error.

    Parameters
    ----------
    p_value_exposure, n_exposure, p_value_outcome, n_outcome : array_like, shape (J,)
        P-values above 0.
    precision_exposure, precision_outcome : float, default 1
        ``r_xx`` and ``r_yy``.

    Returns
    -------
    SteigerTest
    """
    shares = {}
    for side, p_value, n in (
        ("exposure", p_value_exposure, n_exposure),
        ("outcome", p_value_outcome, n_outcome),
    ):
        p = check.float_array(f"p_value_{side}", p_value, ndim=1, positive=True)
        size = check.float_array(f"n_{side}", n, ndim=1, shape=p.shape, positive=True)
        shares[side] = (twosamplemr_0_7_r_from_p(p_value=p, n=size) ** 2, float(size.mean()))
    return steiger_test(
        *shares["exposure"],
        *shares["outcome"],
        precision=(precision_exposure, precision_outcome),
    )


def twosamplemr_0_7_r_from_p(*, p_value: ArrayLike, n: ArrayLike) -> Float:
    """``get_r_from_pn``: correlations from p-values and sample sizes, without their signs.

    By an F law with n - 1 degrees of freedom, where n - 2 are left. For p-values of 0 the package
    has NA, where R's quantile fails it searches and is off by up to 0.2%.

    Parameters
    ----------
    p_value, n : array_like, shape (J,)
        P-values above 0.

    Returns
    -------
    ndarray, shape (J,)
    """
    p = check.float_array("p_value", p_value, ndim=1, positive=True)
    size = check.float_array("n", n, ndim=1, shape=p.shape, positive=True)
    f = stdtrit(size - 1, p / 2) ** 2
    return np.asarray(np.sqrt(f / (f + size - 2)))


def twosamplemr_0_7_effective_n(*, n_cases: ArrayLike, n_controls: ArrayLike) -> Float:
    """``effective_n``: 2/(1/cases + 1/controls), half the size of a balanced study as exact.

    `mrfast.steiger` takes the errors of a binary trait from its standard errors.

    Returns
    -------
    ndarray
    """
    return np.asarray(2 / (1 / np.asarray(n_cases, float) + 1 / np.asarray(n_controls, float)))


def twosamplemr_0_7_r_from_log_odds(
    *,
    log_odds: float,
    eaf: float,
    n_cases: float,
    n_controls: float,
    prevalence: float,
    model: str = "logit",
) -> float:
    """``get_r_from_lor``: the variance of one allele, p (1 - p), where a person has two.

    Correlations are too small by nearly the root of 2. ``"probit"`` sets the variance of the
    liability's error to 1 though the effect is a logistic one. `mrfast.variance_explained` has
    both right.

    Returns
    -------
    float
    """
    check.choice("model", model, ("logit", "probit"))
    share = n_cases / (n_cases + n_controls)
    p = population_frequency(eaf, np.asarray(log_odds), share, prevalence)
    explained = float(log_odds**2 * p * (1 - p))
    error = math.pi**2 / 3 if model == "logit" else 1.0
    return math.copysign(math.sqrt(explained / (explained + error)), log_odds)
