"""Effects that differ between sites: their mean and spread from the sites' profiles.

Site k has its own effect, normal around the mean with standard deviation tau. Its effect is
integrated out of its profile by adaptive Gauss-Hermite quadrature:

    L(theta, tau, z) = sum_k log int exp(l_k(u_k t)) N(t; theta, tau^2) dt - z'z / 2,

with kappas ``u = centre + L z`` as in `mrfast.federated.joint_profile`. Restricted maximum
likelihood adds ``-log(-d2 max_z L / d theta2) / 2``. The interval for the mean is that of Hartung
and Knapp (https://doi.org/10.1002/sim.1791), never narrower than Wald's; or that of the profile
likelihood over tau and z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.errors import ConvergenceError
from mrfast.federated.joint_profile import JointProfile, SiteFunctions

__all__ = ["RandomEffects", "random_effects"]

_NODES = 21
_ITERATIONS = 40
_UNKNOWN = -1e12  # log-likelihood where a search failed
_MODE_STEPS, _HALVINGS = 40, 12  # where a profile has a corner its mode need not be exact
_WIDEST = 40  # doublings of a search outwards


@dataclass(frozen=True)
class RandomEffects:
    """Mean and spread of the effect over sites.

    Attributes
    ----------
    theta, std_error : float
        The mean; its standard error by the curvature of the likelihood.
    tau : float
        Standard deviation of the effect between sites, at most half the widest window.
    at_bound : bool
        Whether it is at that bound.
    log_likelihood : float
        At the estimates, not restricted.
    ci_lower, ci_upper, p_value : float
    prediction_interval : tuple of two floats, or None
        For the effect at a new site (https://doi.org/10.1111/j.1467-985X.2008.00552.x); from three
        sites on.
    beta_lower, beta_upper : ndarray, shape: (K,)
        Range of the log odds ratio per unit of score, the mean -+ 4 tau, at every site.
    """

    theta: float
    std_error: float
    tau: float
    at_bound: bool
    log_likelihood: float
    ci_lower: float
    ci_upper: float
    p_value: float
    prediction_interval: tuple[float, float] | None
    beta_lower: Float
    beta_upper: Float


@dataclass(frozen=True)
class _Fit:
    """The likelihood's maximum over what is free at one tau."""

    theta: float
    z: Float
    value: float
    slope: float  # by theta
    converged: bool


def random_effects(
    sites: SiteFunctions,
    centre: Float,
    covariance: Float | None,
    *,
    start: float,
    informative: NDArray[np.bool_],
    ci_level: float = 0.95,
    profile: bool = False,
) -> RandomEffects:
    """Mean effect over sites, by restricted maximum likelihood or profile likelihood.

    Parameters
    ----------
    sites : SiteFunctions
    centre : ndarray, shape: (K,)
        Kappas; none of them 0.
    covariance : ndarray, shape: (K, K), optional
        Theirs; without it they are taken as known.
    start : float
        Estimate of one effect at all sites.
    informative : ndarray of bool, shape: (K,)
        Sites that count; the others' profiles are flat.
    ci_level : float, default 0.95
    profile : bool, default False
        Maximum likelihood and its limits, instead of the restricted one.

    Returns
    -------
    RandomEffects

    Raises
    ------
    ConvergenceError
        The likelihood of mean and spread has no usable maximum.
    """
    from scipy.special import chdtrc, chdtri, stdtr, stdtrit

    model = _Model(sites, centre, covariance)
    count = int(informative.sum())
    guess = model.spread(start, informative)
    tau = _best_tau(lambda t: model.restricted(t, start), guess, model.widest)
    if profile:
        tau = _best_tau(lambda t: model.fit(t, start).value, max(tau, guess), model.widest)
    fit = model.fit(tau, start)
    bend = -model.curvature(tau, fit)
    if not bend > 0:
        raise ConvergenceError(
            "random effects: the likelihood of mean and spread has no usable maximum; the sites "
            "contradict each other, or their windows are too narrow"
        )
    std_error = bend**-0.5
    beyond = (1 + ci_level) / 2
    if profile:
        threshold = fit.value - float(chdtri(1, 1 - ci_level)) / 2
        lower, upper = (
            _limit(lambda t: model.over_tau(t, tau, fit.z), threshold, fit.theta, side * std_error)
            for side in (-1.0, 1.0)
        )
        p_value = float(chdtrc(1, max(2 * (fit.value - model.over_tau(0.0, tau, fit.z)), 0.0)))
    else:
        _, first, second = model.marginal(model.kappas(fit.z), fit.theta, tau)
        terms = np.divide(first**2, -second, out=np.zeros_like(first), where=second < 0)
        excess = float(terms[informative].sum()) / (count - 1)
        std_error *= math.sqrt(max(1.0, excess))
        half = float(stdtrit(count - 1, beyond)) * std_error
        lower, upper = fit.theta - half, fit.theta + half
        p_value = 2 * float(stdtr(count - 1, -abs(fit.theta) / std_error))
    prediction = None
    if count >= 3:
        half = float(stdtrit(count - 2, beyond)) * math.hypot(tau, std_error)
        prediction = (fit.theta - half, fit.theta + half)
    reach = np.outer([fit.theta - 4 * tau, fit.theta + 4 * tau], model.kappas(fit.z))
    return RandomEffects(
        theta=fit.theta,
        std_error=std_error,
        tau=tau,
        at_bound=tau > 0.999 * model.widest,
        log_likelihood=fit.value,
        ci_lower=lower,
        ci_upper=upper,
        p_value=p_value,
        prediction_interval=prediction,
        beta_lower=reach.min(axis=0),
        beta_upper=reach.max(axis=0),
    )


class _Model:
    """The likelihood of mean, spread and kappas."""

    def __init__(self, sites: SiteFunctions, centre: Float, covariance: Float | None) -> None:
        joint = JointProfile(sites, centre, covariance)
        self.sites, self.centre, self.root = sites, centre, joint.root

    @property
    def widest(self) -> float:
        """The largest tau that the windows support: half the widest, in units of the effect."""
        return float(np.max((self.sites.upper - self.sites.lower) / np.abs(self.centre))) / 2

    def kappas(self, z: Float) -> Float:
        result: Float = self.centre + self.root @ z
        return result

    def spread(self, theta: float, informative: NDArray[np.bool_]) -> float:
        """A first guess of tau, by the moments of DerSimonian and Laird.

        From one Newton step of every site, which a profile without a maximum has as well.
        """
        _, first, second = self.sites(theta * self.centre[None, :])[:, 0]
        weight = np.where(informative, np.maximum(-second, 0.0) * self.centre**2, 0.0)
        if not weight.sum() > 0:
            return 1.0
        step = np.divide(first, -second, out=np.zeros_like(first), where=weight > 0) / self.centre
        mean = float((weight * step).sum() / weight.sum())
        excess = float((weight * (step - mean) ** 2).sum()) - (int((weight > 0).sum()) - 1)
        scale = float(weight.sum() - (weight**2).sum() / weight.sum())
        least = float(weight.sum()) ** -0.5
        return float(max(math.sqrt(max(excess / scale, 0.0)), least)) if scale > 0 else least

    def marginal(self, kappa: Float, theta: float, tau: float) -> tuple[Float, Float, Float]:
        """Log integrals of the sites and two derivatives by ``kappa theta``, each (K,)."""
        mean, scale = kappa * theta, tau * np.abs(kappa)
        mode = np.zeros_like(mean)
        value, first, second = self.sites(mean[None, :])[:, 0]
        for _ in range(_MODE_STEPS if tau > 0 else 0):
            step = (scale * first - mode) / (1 + scale**2 * np.maximum(-second, 0.0))
            if np.all(np.abs(step) < 1e-9):
                break
            length = np.ones_like(step)
            for _ in range(_HALVINGS):
                trial = mode + length * step
                new = self.sites((mean + scale * trial)[None, :])[:, 0]
                gain = new[0] - value - (trial**2 - mode**2) / 2
                if np.all(gain >= -1e-9):
                    break
                length = np.where(gain < -1e-9, length / 3, length)
            better = gain >= -1e-9
            if not np.any(better & (length * np.abs(step) > 1e-9)):
                break
            mode = np.where(better, trial, mode)
            value, first, second = np.where(better, new, (value, first, second))
        width = (1 + scale**2 * np.maximum(-second, 0.0)) ** -0.5
        nodes, log_weights = _rule(_NODES)
        points = mode + math.sqrt(2) * width * nodes[:, None]
        parts = self.sites(mean + scale * points)
        logs = parts[0] - points**2 / 2 + log_weights[:, None]
        top = logs.max(axis=0)
        shares = np.exp(logs - top)
        total = shares.sum(axis=0)
        shares /= total
        slope = (shares * parts[1]).sum(axis=0)
        bend = (shares * (parts[2] + (parts[1] - slope) ** 2)).sum(axis=0)
        return top + np.log(total * width / math.sqrt(math.pi)), slope, bend

    def fit(self, tau: float, theta: float, z: Float | None = None, *, fixed: bool = False) -> _Fit:
        """Maximum over z, and over theta unless that is fixed, by a quasi-Newton method.

        The gradient is exact; of the second derivatives those of third order are left out.
        """
        rank = self.root.shape[1]
        z = np.zeros(rank) if z is None else z
        point = np.concatenate([[theta], z])
        free = np.arange(1 if fixed else 0, rank + 1)
        value, gradient, hessian = self._expansion(point, tau)
        for _ in range(_ITERATIONS if free.size else 0):
            step = np.zeros(rank + 1)
            block = hessian[np.ix_(free, free)]
            step[free] = np.linalg.solve(block, gradient[free])
            rise = float(step @ gradient)
            if not rise > 0:  # not concave here: along the gradient
                step[free] = gradient[free] / np.abs(np.diag(block))
                rise = float(step @ gradient)
            if rise < 1e-18:
                break
            length = 1.0
            while length > 1e-5:
                new = self._expansion(point + length * step, tau)
                if new[0] >= value + 1e-4 * length * rise - 1e-11 * (1 + abs(value)):
                    break
                length /= 3
            else:
                break
            point = point + length * step
            before = rise
            value, gradient, hessian = new
            if before < 1e-16:
                break
        left = 0.0
        if free.size:
            block = hessian[np.ix_(free, free)]
            left = float(gradient[free] @ np.linalg.solve(block, gradient[free]))
        return _Fit(float(point[0]), point[1:], value, float(gradient[0]), 0 <= left < 1e-9)

    def _expansion(self, point: Float, tau: float) -> tuple[float, Float, Float]:
        """Likelihood, its gradient and minus its second derivatives at (theta, z)."""
        theta, z = float(point[0]), point[1:]
        kappa = self.kappas(z)
        values, first, second = self.marginal(kappa, theta, tau)
        heat = tau**2 * (second + first**2)  # d/d kappa through the spread, over kappa
        by_kappa = theta * first + kappa * heat
        gradient = np.concatenate([[float(kappa @ first)], self.root.T @ by_kappa - z])
        rank = z.size
        hessian = np.zeros((rank + 1, rank + 1))
        hessian[0, 0] = -float(kappa**2 @ second)
        hessian[0, 1:] = hessian[1:, 0] = -self.root.T @ (first + theta * kappa * second)
        inner = np.minimum(theta**2 * second + heat, 0.0)
        hessian[1:, 1:] = np.eye(rank) - np.einsum("ka,k,kb->ab", self.root, inner, self.root)
        return float(values.sum() - z @ z / 2), gradient, hessian

    def curvature(self, tau: float, fit: _Fit) -> float:
        """Second derivative by theta of the maximum over z, from differences of slopes."""
        kappa = self.kappas(fit.z)
        second = self.marginal(kappa, fit.theta, tau)[2]
        width = 1e-3 / math.sqrt(max(float(-(kappa**2) @ second), 1e-300))
        above, below = (
            self.fit(tau, fit.theta + side * width, fit.z, fixed=True) for side in (1, -1)
        )
        if not (fit.converged and above.converged and below.converged):
            return math.nan
        return (above.slope - below.slope) / (2 * width)

    def restricted(self, tau: float, start: float) -> float:
        """Restricted log-likelihood of tau."""
        fit = self.fit(tau, start)
        bend = -self.curvature(tau, fit)
        return fit.value - math.log(bend) / 2 if bend > 0 else math.nan

    def over_tau(self, theta: float, tau: float, z: Float) -> float:
        """Maximum over tau and z at a mean."""
        guess = max(tau, abs(theta) / 10, 1e-3)
        best = _best_tau(lambda t: self.fit(t, theta, z, fixed=True).value, guess, 10 * guess)
        return self.fit(best, theta, z, fixed=True).value


def _best_tau(function: Callable[[float], float], scale: float, widest: float) -> float:
    """Where a function of tau is largest, from 0 to the widest; the scale is a first guess.

    The function may be NaN, where its own search fails: raises if it still rises there.
    """
    from scipy.optimize import minimize_scalar

    lower, upper = 0.0, min(2 * scale, widest)
    failed = math.isnan(function(upper))
    while failed and upper > 1e-3 * scale:
        upper /= 1.5
        failed = math.isnan(function(upper))
    limited = upper < min(2 * scale, widest)
    last = function(upper)
    while not limited and upper < widest:
        further = function(min(2 * upper, widest))
        if math.isnan(further):
            limited = True
            break
        upper = min(2 * upper, widest)
        if further <= last:
            break
        last = further
    found = minimize_scalar(
        lambda tau: -_finite(function(tau)),
        bounds=(lower, upper),
        method="bounded",
        options={"xatol": 1e-7 * upper},
    )
    tau = float(found.x)
    if failed or (limited and tau > 0.99 * upper) or -float(found.fun) <= _UNKNOWN:
        raise ConvergenceError(
            "random effects: the likelihood of mean and spread has no usable maximum; the sites "
            "contradict each other, or their windows are too narrow"
        )
    return tau if -float(found.fun) > _finite(function(0.0)) else 0.0


def _finite(value: float) -> float:
    return _UNKNOWN if math.isnan(value) else value


def _limit(
    function: Callable[[float], float], threshold: float, theta: float, step: float
) -> float:
    """Where a function that falls from its maximum crosses a threshold."""
    from scipy.optimize import brentq

    inner, outer = theta, theta + 1.96 * step
    for _ in range(_WIDEST):
        if function(outer) < threshold:
            break
        inner, outer = outer, outer + 0.6 * (outer - theta)
    else:
        return math.copysign(math.inf, step)
    return float(brentq(lambda t: function(t) - threshold, inner, outer, xtol=1e-10))


@lru_cache(maxsize=4)
def _rule(nodes: int) -> tuple[Float, Float]:
    """Gauss-Hermite nodes, and logs of their weights times exp(x^2)."""
    points, weights = np.polynomial.hermite.hermgauss(nodes)
    return points, np.log(weights) + points**2
