"""Systematic error learnt from negative controls: `empirical_null`.

A negative control is an outcome that the exposure does not affect. What its estimate y_i shows
beyond its standard error s_i is systematic error, taken as N(mu, sigma^2) over outcomes:
y_i ~ N(mu, sigma^2 + s_i^2).

References
----------
Schuemie, Ryan, DuMouchel, Suchard, Madigan (2014), doi:10.1002/sim.5925 (p-values);
Schuemie, Hripcsak, Ryan, Madigan, Suchard (2018), doi:10.1073/pnas.1708282114 (intervals).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import MrfastWarning

__all__ = [
    "CalibrationWarning",
    "ControlTest",
    "EmpiricalNull",
    "LeaveOneOutCalibration",
    "empirical_null",
]

_FEWEST = 3  # a mean and a spread need that many
_FEW = 10  # controls below which the error of mu and sigma matters much
_DOUBLINGS = 60
_GRID = np.concatenate([[0.0], np.geomspace(1e-6, 1e3, 181)])  # of sigma, in units of the data
_DEEP = 14.0  # log units below the maximum: what lies deeper is all but empty
_PANELS = 97  # panels grow with sigma: with 3 controls its density falls by 1 / sigma^2 only
_RULE = 16  # nodes on each panel


class CalibrationWarning(MrfastWarning):
    """Calibration rests on little."""


class ControlTest(NamedTuple):
    """A test on negative controls.

    Attributes
    ----------
    statistic : float
    df : float
        Degrees of freedom.
    p_value : float
    """

    statistic: float
    df: float
    p_value: float


@dataclass(frozen=True, eq=False)
class LeaveOneOutCalibration:
    """Each negative control, calibrated by the others.

    Attributes
    ----------
    names : tuple of str, length K
    p_value, ci_lower, ci_upper : ndarray, shape (K,)
    level : float
        Of the intervals.
    """

    names: tuple[str, ...]
    p_value: Float
    ci_lower: Float
    ci_upper: Float
    level: float

    @property
    def coverage(self) -> float:
        """Share of the intervals that hold zero, the true effect of each."""
        return float(((self.ci_lower <= 0) & (self.ci_upper >= 0)).mean())


def empirical_null(
    estimates: ArrayLike,
    std_errors: ArrayLike,
    *,
    names: Sequence[object] | None = None,
) -> EmpiricalNull:
    """Fit the distribution of systematic error to negative controls by maximum likelihood.

    Maximises prod_i N(y_i; mu, sigma^2 + s_i^2) over mu and sigma >= 0; sigma = 0 is exact where
    the estimates scatter no more than their standard errors say.

    Parameters
    ----------
    estimates : array_like, shape (K,)
        Estimates y_i, in the unit of the estimate to calibrate (log odds ratio per unit of
        exposure). At least 3.
    std_errors : array_like, shape (K,)
        Their standard errors s_i, above 0.
    names : sequence of str, length K, optional
        Default ``"1"``, ``"2"``, ...

    Returns
    -------
    EmpiricalNull

    Raises
    ------
    InvalidInputError
        Fewer than 3 estimates, lengths that differ, or numbers that are not finite (leave
        controls without an estimate out).

    Warns
    -----
    CalibrationWarning
        Fewer than 10 estimates.

    Examples
    --------
    >>> import mrfast
    >>> null = mrfast.empirical_null(
    ...     [0.1, 0.4, 0.2, 0.35, 0.05, 0.25, 0.3, 0.15, 0.2, 0.5],
    ...     [0.1, 0.1, 0.15, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1],
    ... )
    >>> round(null.p_value(0.5, 0.1), 3)
    0.148
    """
    y = check.float_array("estimates", estimates, ndim=1).copy()
    s = check.float_array("std_errors", std_errors, ndim=1, shape=(len(y),), positive=True).copy()
    if len(y) < _FEWEST:
        raise check.fail("estimates", f"at least {_FEWEST} negative controls", f"{len(y)}")
    if len(y) < _FEW:
        warnings.warn(
            f"{len(y)} negative controls say little about systematic error: calibrated intervals "
            "are wide, and too narrow with null_uncertainty=False",
            CalibrationWarning,
            stacklevel=2,
        )
    labels = tuple(str(i + 1) for i in range(len(y))) if names is None else names
    y.setflags(write=False)
    s.setflags(write=False)
    mean, sd, log_likelihood = _maximum(y, s)
    return EmpiricalNull(
        mean=mean,
        sd=sd,
        log_likelihood=log_likelihood,
        estimates=y,
        std_errors=s,
        names=check.name_tuple("names", labels, length=len(y)),
    )


@dataclass(frozen=True, eq=False, repr=False)
class EmpiricalNull:
    """Distribution N(mean, sd^2) of systematic error; made by `empirical_null`.

    Attributes
    ----------
    mean, sd : float
        mu and sigma.
    log_likelihood : float
        At its maximum.
    estimates, std_errors : ndarray, shape (K,)
        Of the negative controls.
    names : tuple of str, length K
    """

    mean: float
    sd: float
    log_likelihood: float
    estimates: Float
    std_errors: Float
    names: tuple[str, ...]

    @property
    def n_controls(self) -> int:
        """Number K of negative controls."""
        return len(self.estimates)

    @property
    def expected_absolute_error(self) -> float:
        """Mean of |N(mu, sigma^2)|: expected absolute systematic error, 0 without any."""
        from scipy.special import erf

        if self.sd == 0:
            return abs(self.mean)
        ratio = self.mean / (self.sd * np.sqrt(2))
        spread = self.sd * np.sqrt(2 / np.pi) * np.exp(-(ratio**2))
        return float(spread + self.mean * erf(ratio))

    # ------------------------------------------------------------------ calibration

    def p_value(
        self, estimate: ArrayLike, std_error: ArrayLike, *, null_uncertainty: bool = True
    ) -> Any:
        """Calibrated two-sided p-value of no effect.

        With mu and sigma known it is 2 Phi(-|z|), z = (y - mu) / sqrt(sigma^2 + s^2).

        Parameters
        ----------
        estimate, std_error : float or array_like
            Estimates to calibrate with their standard errors; they are broadcast.
        null_uncertainty : bool, default True
            Allow for the error of mu and sigma themselves: the predictive distribution with flat
            priors on both, a mixture of normals over sigma. False gives the usual formula, which
            takes them as known: of nominal 95% intervals it covers 83% with 12 controls, 91%
            with 20 and 92% with 50 (sigma 0.2, standard errors 0.03 to 0.4; 1,500 simulations
            each, error at most 1%). With the allowance it is 94.4% to 96.1%; where sigma is 0, up
            to 99%.

        Returns
        -------
        float or ndarray
        """
        from scipy.special import ndtr

        y, s = _pair(estimate, std_error)
        if check.flag("null_uncertainty", null_uncertainty):
            below = self._predictive_below(y, s)
            p = np.minimum(1.0, 2 * np.minimum(below[0], below[1]))
        else:
            p = 2 * ndtr(-np.abs(y - self.mean) / np.hypot(self.sd, s))
        return float(p) if np.ndim(p) == 0 else p

    def interval(
        self,
        estimate: ArrayLike,
        std_error: ArrayLike,
        level: float = 0.95,
        *,
        null_uncertainty: bool = True,
    ) -> tuple[Any, Any]:
        """Calibrated confidence interval of the effect.

        Systematic error is taken as the same for every size of the true effect; with mu and sigma
        known the limits are (y - mu) -+ z sqrt(sigma^2 + s^2).

        Parameters
        ----------
        estimate, std_error : float or array_like
        level : float, default 0.95
        null_uncertainty : bool, default True
            As in `p_value`.

        Returns
        -------
        lower, upper : float or ndarray
        """
        from scipy.special import ndtri

        y, s = _pair(estimate, std_error)
        level = check.scalar("level", level, above=0, below=1)
        if check.flag("null_uncertainty", null_uncertainty):
            lower, upper = self._predictive_interval(y, s, level)
        else:
            reach = -ndtri((1 - level) / 2) * np.hypot(self.sd, s)
            lower, upper = y - self.mean - reach, y - self.mean + reach
        if np.ndim(lower) == 0:
            return float(lower), float(upper)
        return lower, upper

    def leave_one_out(
        self, level: float = 0.95, *, null_uncertainty: bool = True
    ) -> LeaveOneOutCalibration:
        """Calibrate each negative control by the null fitted to the others.

        Parameters
        ----------
        level : float, default 0.95
        null_uncertainty : bool, default True
            As in `p_value`.

        Returns
        -------
        LeaveOneOutCalibration
            Its coverage is near `level` where the model holds.

        Raises
        ------
        InvalidInputError
            There are 3 controls only.
        """
        if self.n_controls <= _FEWEST:
            raise check.fail("estimates", f"more than {_FEWEST} controls", f"{self.n_controls}")
        rows = []
        for i in range(self.n_controls):
            y, s = np.delete(self.estimates, i), np.delete(self.std_errors, i)
            null = EmpiricalNull(*_maximum(y, s), y, s, tuple(np.delete(self.names, i)))
            own = float(self.estimates[i]), float(self.std_errors[i])
            interval = null.interval(*own, level, null_uncertainty=null_uncertainty)
            rows.append((null.p_value(*own, null_uncertainty=null_uncertainty), *interval))
        p_value, lower, upper = np.array(rows).T
        return LeaveOneOutCalibration(self.names, p_value, lower, upper, level)

    # ------------------------------------------------------------------ mu and sigma

    def mean_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Likelihood-ratio interval of mu, sigma maximised out.

        Parameters
        ----------
        level : float, default 0.95

        Returns
        -------
        lower, upper : float
        """
        threshold = self._threshold(level)

        def deficit(mean: float) -> float:
            variance = _best_variance((self.estimates - mean) ** 2, self.std_errors)
            return self.log_likelihood - self._log_density(mean, variance) - threshold

        start = float(np.hypot(self.sd, self.std_errors.min()))
        return (
            _crossing(deficit, self.mean, -start),
            _crossing(deficit, self.mean, start),
        )

    def sd_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Likelihood-ratio interval of sigma, mu maximised out.

        Its lower limit is 0 where no systematic scatter fits the estimates well enough.

        Parameters
        ----------
        level : float, default 0.95

        Returns
        -------
        lower, upper : float
        """
        threshold = self._threshold(level)

        def deficit(sd: float) -> float:
            mean = _weighted_mean(self.estimates, self.std_errors, sd * sd)
            return self.log_likelihood - self._log_density(mean, sd * sd) - threshold

        upper = _crossing(deficit, self.sd, max(self.sd, float(self.std_errors.min())))
        if self.sd == 0 or deficit(0.0) <= 0:
            return 0.0, upper
        from scipy.optimize import brentq

        return float(brentq(deficit, 0.0, self.sd, xtol=1e-13)), upper

    def _threshold(self, level: float) -> float:
        from scipy.special import chdtri

        level = check.scalar("level", level, above=0, below=1)
        return 0.5 * float(chdtri(1, 1 - level))

    def _log_density(self, mean: float, variance: float) -> float:
        total = self.std_errors**2 + variance
        squares = (self.estimates - mean) ** 2 / total
        return -0.5 * float((np.log(2 * np.pi * total) + squares).sum())

    # ------------------------------------------------------------------ tests

    def bias_test(self) -> ControlTest:
        """Test mu = 0: systematic error cancels out over the controls.

        The mean weighted by 1 / (s_i^2 + tau^2), tau^2 by Paule and Mandel, against its standard
        error and Student's distribution with K - 1 degrees of freedom.

        Returns
        -------
        ControlTest

        References
        ----------
        Paule, Mandel (1982), doi:10.6028/jres.087.022. With this tau^2 the factor of Hartung and
        Knapp (2001), doi:10.1002/sim.1009, is 1, or would be below 1 where tau^2 = 0.
        """
        from scipy.special import stdtr

        variance = _paule_mandel(self.estimates, self.std_errors)
        weight = 1 / (self.std_errors**2 + variance)
        mean = float((weight * self.estimates).sum() / weight.sum())
        statistic = mean * float(np.sqrt(weight.sum()))
        df = self.n_controls - 1
        return ControlTest(statistic, df, float(2 * stdtr(df, -abs(statistic))))

    def systematic_error_test(self) -> ControlTest:
        """Test mu = 0 and sigma = 0 together: there is no systematic error.

        sum (y_i / s_i)^2 against the chi-squared distribution with K degrees of freedom.

        Returns
        -------
        ControlTest
        """
        from scipy.special import chdtrc

        statistic = float(((self.estimates / self.std_errors) ** 2).sum())
        return ControlTest(statistic, self.n_controls, float(chdtrc(self.n_controls, statistic)))

    def unweighted_t_test(self) -> ControlTest:
        """Student's t-test of the bare estimates against zero, as Medusa does.

        It gives a control with 5 cases the weight of one with 5,000: it loses power, and the
        imprecise controls decide. `bias_test` is the better one.

        Returns
        -------
        ControlTest
        """
        from scipy.special import stdtr

        df = self.n_controls - 1
        error = self.estimates.std(ddof=1) / np.sqrt(self.n_controls)
        if error == 0:
            raise check.fail("estimates", "estimates that differ", "equal ones")
        statistic = float(self.estimates.mean() / error)
        return ControlTest(statistic, df, float(2 * stdtr(df, -abs(statistic))))

    # ------------------------------------------------------------------ predictive law

    @cached_property
    def _mixture(self) -> tuple[Float, Float, Float]:
        """Weights, means and variances over the nodes of sigma; flat priors on mu and sigma."""

        def log_density(sd: Float) -> tuple[Float, Float, Float]:
            weight = 1 / (self.std_errors**2 + sd[:, None] ** 2)
            total = weight.sum(axis=1)
            mean = (weight * self.estimates).sum(axis=1) / total
            squares = (weight * (self.estimates - mean[:, None]) ** 2).sum(axis=1)
            value = 0.5 * (np.log(weight).sum(axis=1) - np.log(total) - squares)
            return value, mean, 1 / total

        unit = _unit(self.estimates, self.std_errors)
        grid = unit * _GRID
        rough = log_density(grid)[0]
        near = grid[rough > rough.max() - _DEEP]
        below = grid[grid < near[0]]
        flat = 0.01 * float(self.std_errors.min())  # nothing changes below
        low = max(float(below[-1]), flat) if below.size else flat
        high = max(float(near[-1]), 2 * low)
        edges = np.concatenate(
            [[0.0], np.geomspace(low, high, _PANELS), high * 2.0 ** np.arange(1, _DOUBLINGS)]
        )
        place, share = np.polynomial.legendre.leggauss(_RULE)
        half = 0.5 * np.diff(edges)
        nodes = (edges[:-1, None] + half[:, None] * (1 + place)).ravel()
        value, mean, variance = log_density(nodes)
        weight = np.exp(value - value.max()) * (half[:, None] * share).ravel()
        kept = weight > 1e-18 * weight.max()
        weight = weight[kept] / weight[kept].sum()
        return weight, mean[kept], (variance + nodes**2)[kept]

    def _predictive_below(self, y: Float, s: Float) -> tuple[Float, Float]:
        """Probabilities that an estimate without effect lies below and above y."""
        from scipy.special import ndtr

        weight, mean, variance = self._mixture
        z = (y[..., None] - mean) / np.sqrt(variance + s[..., None] ** 2)
        return (weight * ndtr(z)).sum(axis=-1), (weight * ndtr(-z)).sum(axis=-1)

    def _predictive_interval(self, y: Float, s: Float, level: float) -> tuple[Float, Float]:
        """Effects that y - systematic error leaves, by bisection on the mixture."""
        lower, upper = np.empty(y.shape), np.empty(y.shape)
        for index in np.ndindex(y.shape):
            reach = float(np.hypot(_unit(self.estimates, self.std_errors), s[index]))
            low, high = (
                self._predictive_quantile((1 + sign * level) / 2, s[index], reach)
                for sign in (-1, 1)
            )
            lower[index], upper[index] = y[index] - high, y[index] - low
        return lower, upper

    def _predictive_quantile(self, probability: float, s: Float, reach: float) -> float:
        from scipy.optimize import brentq

        side = int(probability > 0.5)  # the smaller tail is the exact one
        target = min(probability, 1 - probability)

        def excess(x: float) -> float:
            return float(self._predictive_below(np.asarray(x), s)[side]) - target

        while excess(self.mean - reach) * excess(self.mean + reach) > 0:
            reach *= 2
        return float(brentq(excess, self.mean - reach, self.mean + reach))

    # ------------------------------------------------------------------ words

    def plot(
        self,
        estimate: float | None = None,
        std_error: float | None = None,
        *,
        level: float = 0.95,
        label: str = "Log odds ratio per unit of exposure",
    ) -> Any:
        """Negative controls and where significance begins, with and without calibration.

        Parameters
        ----------
        estimate, std_error : float, optional
            An estimate to show beside the controls.
        level : float, default 0.95
        label : str
            Of the axis of estimates.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from mrfast.plots.calibration import calibration_figure

        return calibration_figure(self, estimate, std_error, level=level, label=label)

    def __repr__(self) -> str:
        mean, sd, test = self.mean_interval(), self.sd_interval(), self.bias_test()
        return (
            f"EmpiricalNull ({self.n_controls} negative controls)\n"
            f"  mean of systematic error:  {self.mean:.4g} "
            f"(95% {mean[0]:.4g} to {mean[1]:.4g})\n"
            f"  its standard deviation:    {self.sd:.4g} (95% {sd[0]:.4g} to {sd[1]:.4g})\n"
            f"  bias test:                 t = {test.statistic:.3g} on {test.df} df, "
            f"p = {test.p_value:.3g}"
        )


def _pair(estimate: ArrayLike, std_error: ArrayLike) -> tuple[Float, Float]:
    """Estimates and standard errors, broadcast."""
    y = check.float_array("estimate", estimate, ndim=None).reshape(np.shape(estimate))
    s = check.float_array("std_error", std_error, ndim=None, positive=True)
    try:
        y, s = np.broadcast_arrays(y, s.reshape(np.shape(std_error)))
    except ValueError as error:
        raise check.fail("std_error", f"shape {y.shape}", f"shape {np.shape(std_error)}") from error
    return y, s


def _unit(y: Float, s: Float) -> float:
    """Size of the data: scatter of the estimates, or the smallest error if they do not scatter."""
    return float(max(y.std(), s.min()))


def _weighted_mean(y: Float, s: Float, variance: float) -> float:
    weight = 1 / (s * s + variance)
    return float((weight * y).sum() / weight.sum())


def _maximum(y: Float, s: Float) -> tuple[float, float, float]:
    """Maximum-likelihood mu and sigma, and the log likelihood there."""
    variance = _best_variance(None, s, y)
    mean = _weighted_mean(y, s, variance)
    total = s * s + variance
    value = -0.5 * float((np.log(2 * np.pi * total) + (y - mean) ** 2 / total).sum())
    return mean, float(np.sqrt(variance)), value


def _best_variance(squares: Float | None, s: Float, y: Float | None = None) -> float:
    """Variance t >= 0 that maximises prod N(r_i; 0, s_i^2 + t).

    The squares r_i^2 are given, or are those about the weighted mean of y at t itself. The best
    of a grid decides between several maxima; its neighbours enclose the root of the derivative.
    """

    def parts(variance: Float) -> tuple[Float, Float]:
        weight = 1 / (s * s + variance[:, None])
        if y is None:
            r2 = np.broadcast_to(squares if squares is not None else 0.0, weight.shape)
        else:
            mean = (weight * y).sum(axis=1) / weight.sum(axis=1)
            r2 = (y - mean[:, None]) ** 2
        value = 0.5 * (np.log(weight) - weight * r2).sum(axis=1)
        slope = 0.5 * (weight * (weight * r2 - 1)).sum(axis=1)
        return value, slope

    spread = y.std() if y is not None else np.sqrt(np.max(squares)) if squares is not None else 0.0
    unit = max(float(spread), float(s.min()))
    grid = (unit * _GRID) ** 2
    value, slope = parts(grid)
    best = int(np.argmax(value))
    if best == 0 and slope[0] <= 0:
        return 0.0
    from scipy.optimize import brentq

    def derivative(variance: float) -> float:
        return float(parts(np.array([variance]))[1][0])

    low = grid[best] if slope[best] > 0 else grid[max(best - 1, 0)]
    high = grid[best + 1] if slope[best] > 0 else grid[best]
    if derivative(low) <= 0:  # a flat top between nodes
        return float(grid[best])
    return float(brentq(derivative, low, high, xtol=1e-16 * unit * unit, rtol=1e-14))


def _paule_mandel(y: Float, s: Float) -> float:
    """Variance between controls at which the weighted sum of squares is its expectation."""

    def excess(variance: float) -> float:
        weight = 1 / (s * s + variance)
        mean = (weight * y).sum() / weight.sum()
        return float((weight * (y - mean) ** 2).sum()) - (len(y) - 1)

    if excess(0.0) <= 0:
        return 0.0
    from scipy.optimize import brentq

    high = float(y.var(ddof=1)) + float(s.min()) ** 2
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high))


def _crossing(deficit: Callable[[float], float], start: float, step: float) -> float:
    """Where the deficit turns positive, outward from `start`."""
    from scipy.optimize import brentq

    inner, outer = start, start + step
    for _ in range(_DOUBLINGS):
        if deficit(outer) > 0:
            break
        inner, step = outer, 2 * step
        outer = start + step
    return float(brentq(deficit, inner, outer, xtol=1e-13))
