"""The sieve instrumental-variable estimator of a causal curve: `SieveIV`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._runtime import generator, symmetric_eigen, thread_count
from mrfast._validation import Float
from mrfast.errors import MrfastWarning
from mrfast.nonlinear.anderson_rubin import line_region
from mrfast.nonlinear.causal_curve import CausalContrast, CausalCurve
from mrfast.nonlinear.cross_fitted_score import InstrumentScore, instrument_score
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.sieve_curve import AndersonRubinLine, CovariateSplines, SieveCurve
from mrfast.nonlinear.sieve_fit import TAU_FLOOR, LevelFit, fit_level
from mrfast.nonlinear.sieve_rows import FirstStage, ModelRows, first_stage
from mrfast.nonlinear.weak_instruments import (
    FEWEST_F,
    WARNING_F,
    WeakInstrumentsError,
    usable_f_statistic,
)

__all__ = ["SieveIV"]

METHODS = ("auto", "cf", "gcf", "npiv", "npiv-cck", "series-cf", "2sls", "lace")
FEW_VALUES = 5
"""An exposure of at most this many values is told not to be continuous."""
FEW_CLUSTERS = 40
"""Sandwich variances of fewer clusters are too small."""
FAST_CHANGE = 2.0
"""Mean tau from which the curve may have a jump."""
_GRID = 200
_COMPARED = 41


class SieveIV(InstrumentalVariableEstimator):
    """Causal curve E[Y | do(X = x)] by penalised splines, with uniform bands, in closed form.

    The instrument gives two equations for the curve: instrumental variables proper ("between")
    and a control function ("within"). Both are used, each with the inverse of its variance, as
    long as a score test finds that they agree; otherwise interactions of the first stage's
    residual with the instrument are added, and in the end only the between equation is left. The
    smoothing parameter is integrated over its marginal likelihood, and the bands allow for the
    first stage, for smoothing and for the uncertainty of the smoothing parameter.

    Exposure and outcome must be of the same people: in two samples the residual of the first
    stage is unknown for those with the outcome.

    Parameters
    ----------
    method : str
        "auto": the ladder described above. "cf": the control function whatever the test says.
        "gcf": with interactions. "npiv": the between equation alone. "npiv-cck" and
        "series-cf": series of a dimension chosen by Lepski's comparisons with the bands of Chen,
        Christensen and Kankanala, without and with a control function. "2sls": a line. "lace":
        doubly ranked stratification.
    penalty : {"2c", 2, 3}
        Roughness: curvature about its mean (quadratics are free), the second derivative (lines
        are) or the third.
    alpha_spec : float
        Level of the tests of the ladder.
    level : float
        Of the tests that the diagnostics report as intervals.
    n_draws : int
        Draws from the posterior for bands and tests.
    folds : int
        Of the cross-fitted score of several instruments.
    rng : int
        Seed of the folds and draws.
    outcome : {"auto", "continuous", "binary"}
        "auto" takes an outcome of zeros and ones to be binary; its curve is a probability.
    link : {"auto", "probit", "logit"}
        Of a binary outcome; "auto" averages both by their evidence.
    effect_modifiers : sequence of str or int, optional
        Covariates with which the curve may change, by name or position.
    covariate_form : {"linear", "splines"}
        How covariates act on exposure and outcome: in straight lines, or those with more than 10
        values by cubic splines. (Continuous outcomes without effect modifiers.)
    n_threads : int, optional
        By default every core; the results are the same bits for any number.

    Raises
    ------
    InvalidInputError
        An option is not one of those above.

    Notes
    -----
    With a first-stage F below 10 there is no curve: `effect` is then the line of two-stage least
    squares with limits from the Anderson-Rubin region (infinite where that is unbounded), and a
    warning says so. Unobserved effect modification by a confounder, and direct effects of
    instruments on the outcome, bias every method here.

    References
    ----------
    Newey WK, Powell JL. Instrumental variable estimation of nonparametric models. Econometrica,
    2003. doi:10.1111/1468-0262.00459
    """

    name = "sieve_iv"
    title = "Sieve instrumental-variable curve"

    def __init__(
        self,
        *,
        method: str = "auto",
        penalty: str | int = "2c",
        alpha_spec: float = 0.05,
        level: float = 0.95,
        n_draws: int = 2000,
        folds: int = 5,
        rng: int = 0,
        outcome: str = "auto",
        link: str = "auto",
        effect_modifiers: Sequence[str | int] | None = None,
        covariate_form: str = "linear",
        n_threads: int | None = None,
    ) -> None:
        self.method = check.choice("method", method, METHODS)
        if isinstance(penalty, bool) or penalty not in ("2c", 2, 3):
            raise check.fail("penalty", "'2c', 2 or 3", repr(penalty))
        self.penalty = penalty if isinstance(penalty, str) else int(penalty)
        self.alpha_spec = check.scalar("alpha_spec", alpha_spec, minimum=0.0, maximum=1.0)
        self.level = check.scalar("level", level, above=0.0, below=1.0)
        self.n_draws = check.integer("n_draws", n_draws, minimum=100, maximum=10**6)
        self.folds = check.integer("folds", folds, minimum=2, maximum=100)
        self.rng = check.integer("rng", rng, minimum=0)
        self.outcome = check.choice("outcome", outcome, ("auto", "continuous", "binary"))
        self.link = check.choice("link", link, ("auto", "probit", "logit"))
        if effect_modifiers is not None:
            if isinstance(effect_modifiers, str):
                effect_modifiers = [effect_modifiers]
            effect_modifiers = list(effect_modifiers)
        self.effect_modifiers: Sequence[str | int] | None = effect_modifiers
        self.covariate_form = check.choice("covariate_form", covariate_form, ("linear", "splines"))
        self.n_threads = n_threads if n_threads is None else thread_count(n_threads)

    def _fit(self, data: IVData) -> Fit:
        binary = self.outcome == "binary" or (self.outcome == "auto" and data.binary_outcome)
        if self.outcome == "binary" and not data.binary_outcome:
            raise check.fail("outcome", "zeros and ones for outcome='binary'", "other values")
        continuous = self.method in ("auto", "cf", "gcf", "npiv") and not self.effect_modifiers
        if self.covariate_form != "linear" and not (
            continuous and (not binary or self.method == "npiv")
        ):
            raise check.fail(
                "covariate_form",
                "'linear' with a binary outcome, effect modifiers or this method",
                repr(self.covariate_form),
            )
        if self.method in ("2sls", "lace"):
            return self._line_or_strata(data)
        if self.method in ("npiv-cck", "series-cf"):
            from mrfast.nonlinear import honest_bands

            if self.method == "npiv-cck":
                return honest_bands.fit_npiv_cck(data, self)
            return honest_bands.fit_series_control_function(data, self)
        if self.effect_modifiers:
            from mrfast.nonlinear.modified_sieve import fit_modified

            if binary and self.outcome == "binary":
                raise check.fail("effect_modifiers", "none with a binary outcome", "some")
            try:
                return fit_modified(data, self)
            except WeakInstrumentsError as error:
                return self._weak_line(data, error, "; modifiers do not change it")
        if binary and self.method != "npiv":
            from mrfast.nonlinear.binary_sieve import fit_binary

            try:
                return fit_binary(data, self)
            except WeakInstrumentsError as error:
                more = "; it is a linear probability model, whose risks may leave 0 to 1"
                return self._weak_line(data, error, more)
        return self._fit_continuous(data)

    def _line_or_strata(self, data: IVData) -> Fit:
        if self.method == "2sls":
            from mrfast.nonlinear.two_stage_least_squares import TwoStageLeastSquares

            line = TwoStageLeastSquares(level=self.level, n_draws=self.n_draws, rng=self.rng)
            return line._fit(data)
        from mrfast.nonlinear.stratification import DoublyRanked

        strata = DoublyRanked(
            level=self.level, folds=self.folds, n_draws=self.n_draws, rng=self.rng
        )
        return strata._fit(data)

    def _fit_continuous(self, people: IVData) -> Fit:
        data = people
        random = generator(self.rng)
        threads = thread_count(self.n_threads)
        splines = None
        if self.covariate_form == "splines" and data.covariates is not None:
            splines = CovariateSplines.of(data.covariates)
            data = replace(data, covariates=splines.columns(data.covariates))
        score = instrument_score(
            data.instruments,
            data.exposure,
            data.covariates,
            weight=data.sample_weight,
            clusters=data.clusters,
            folds=self.folds,
            rng=random,
            n_threads=threads,
        )
        stage = first_stage(data, score.values, n_threads=threads)
        diagnostics = _strength(stage, score)
        # The F of one function of the instrument decides whether a line is identified.
        strength = usable_f_statistic(
            stage.f_statistic, stage.linear_f_statistic, stage.clustered_f_statistic
        )
        if strength < FEWEST_F:
            return self._weak(people, score.values, diagnostics, strength)
        fits, messages = self._ladder(stage)
        chosen = fits[-1]
        low, high = data.exposure_quantiles(0.025, 0.975)
        curve = SieveCurve.of_fit(chosen, stage, (low, high), self.n_draws, random, splines)
        groups = None if stage.starts is None else len(stage.starts) - 1
        if groups is not None and groups < FEW_CLUSTERS:
            messages.append(
                f"with {groups} clusters, fewer than {FEW_CLUSTERS}, standard errors are too small"
            )
        if len(np.unique(data.exposure[:1000])) <= FEW_VALUES:
            messages.append(
                "the exposure has few values: the control function is made for continuous ones, "
                "compare method='npiv' or method='2sls'"
            )
        if strength < WARNING_F:
            messages.append(
                f"the first-stage F of {strength:.1f} is below {WARNING_F:.0f}: estimates are "
                "noisy and may be biased towards the observational association"
            )
        diagnostics |= _report(stage, fits, curve, self.penalty)
        diagnostics |= _overidentification(data, stage, score, chosen)
        if chosen.tau_mean >= FAST_CHANGE:
            messages.append(
                f"the curve changes very fast somewhere (tau = {chosen.tau_mean:.2g}): a jump of "
                "the effect cannot be followed by it, and the band need not hold within two "
                "knots' distance of one"
            )
        if chosen.level is None:
            messages.append(
                "the curve uses the between equation alone: features that the instruments do not "
                "show are smoothed away, and the band does not cover them"
            )
        return Fit(curve, diagnostics, tuple(messages))

    # ------------------------------------------------------------------ the ladder

    def _ladder(self, stage: FirstStage) -> tuple[list[LevelFit], list[str]]:
        """Fits of the levels that were visited, the chosen one last."""
        messages: list[str] = []
        if self.method == "npiv":
            return [fit_level(stage, None, penalty=self.penalty)], messages
        fits = [fit_level(stage, 0, penalty=self.penalty)]
        if self.method == "cf":
            if _rejected(fits[0], self.alpha_spec):
                messages.append(
                    "the instruments contradict the control function "
                    f"(p = {_p_value(fits[0]):.2g}): method='auto' would add interactions"
                )
            return fits, messages
        floor = TAU_FLOOR * fits[0].tau_mean
        last: tuple[int | None, ...] = (1, 2, None) if self.method == "auto" else (1, 2)
        for level in last:
            forced = self.method == "gcf" and level == 1
            if not forced and not _rejected(fits[-1], self.alpha_spec):
                break
            fits.append(fit_level(stage, level, penalty=self.penalty, tau_floor=floor))
        if len(fits) > 1 and self.method == "auto":
            messages.append(
                "the instruments contradict the plain control function (p = "
                f"{_p_value(fits[0]):.2g}): "
                + (
                    "only the between equation is used"
                    if fits[-1].level is None
                    else f"interactions of level {fits[-1].level} are added"
                )
            )
        return fits, messages

    # ------------------------------------------------------------------ weak instruments

    def _weak(
        self,
        data: IVData,
        score: Float,
        diagnostics: dict[str, Any],
        strength: float,
        more: str = "",
    ) -> Fit:
        """Line with its Anderson-Rubin region; more is to be said of some."""
        region = line_region(
            score,
            data.exposure,
            data.outcome,
            data.covariates,
            weight=data.sample_weight,
            clusters=data.clusters,
        )
        kind, (low, high) = region.slope_set(self.level)
        text = {
            "interval": f"[{low:.4g}, {high:.4g}]",
            "outside": f"all numbers but ({low:.4g}, {high:.4g})",
            "line": "all numbers",
        }[kind]
        message = (
            f"the first-stage F of {strength:.2g} is below {FEWEST_F:.0f}: no curve is estimated; "
            f"effects are those of a line, whose {100 * self.level:g}% Anderson-Rubin set of "
            f"slopes is {text}{more}"
        )
        warnings.warn(message, MrfastWarning, stacklevel=5 if more else 4)
        diagnostics |= {
            "model": "line",
            "slope": region.slope,
            "anderson_rubin_set": kind,
            "anderson_rubin_lower": float(low),
            "anderson_rubin_upper": float(high),
        }
        return Fit(AndersonRubinLine(region), diagnostics, (message,))

    def _weak_line(self, data: IVData, error: WeakInstrumentsError, more: str) -> Fit:
        """Line in place of a curve that was refused."""
        from mrfast.nonlinear.control_residual import score_of

        score = score_of(data, self.folds, generator(self.rng), thread_count(self.n_threads))
        return self._weak(data, score, error.diagnostics, error.strength, more)

    # ------------------------------------------------------------------ diagnostics

    def derivative(
        self, x: ArrayLike, *, interval: str | None = None, level: float = 0.95
    ) -> Float | CausalCurve:
        """Slope f'(x) of the causal curve.

        Parameters
        ----------
        x : array-like
        interval : {"pointwise", "uniform"}, optional
            A uniform band holds on the union of `x` and 200 points of the central 95%.
        level : float

        Returns
        -------
        ndarray of float64, of the shape of `x`, or CausalCurve

        Raises
        ------
        InvalidInputError
            The fit is not a curve of splines, or an argument is not usable.
        NotFittedError
            Before `fit`.
        """
        curve = self._fitted()
        if not isinstance(curve, SieveCurve):
            raise check.fail("derivative", "a fit of a curve by splines", curve.kind)
        at = check.float_array("x", np.atleast_1d(x), ndim=None).reshape(np.shape(x))
        rows = curve.slope_basis(at.ravel())
        estimate: Float = np.einsum("mk,k->m", rows, curve.coefficients)
        estimate = estimate.reshape(at.shape)
        if interval is None:
            return estimate
        kind, level = self._interval(interval, level)
        grid = curve.slope_basis(np.linspace(*curve.central, _GRID))
        lower, upper = curve._limits_of(kind, level, rows, [grid], None)
        return CausalCurve(
            at,
            estimate,
            lower.reshape(at.shape),
            upper.reshape(at.shape),
            self._limit_text(kind).replace("E[Y | do(X = x)]", "d E[Y | do(X = x)] / dx"),
            level,
        )

    def risk_ratio(
        self,
        x0: ArrayLike,
        x1: ArrayLike,
        *,
        interval: str | None = None,
        level: float = 0.95,
    ) -> Float | CausalContrast:
        """Average risk of a binary outcome under do(X = x1) over that under do(X = x0).

        Parameters
        ----------
        x0, x1 : array-like
            Broadcast against each other.
        interval : {"pointwise", "uniform"}, optional
            A uniform interval holds for the ratios of all values of the central 95% to each `x0`.
        level : float

        Returns
        -------
        ndarray of float64 or CausalContrast

        Raises
        ------
        InvalidInputError
            The fit is not that of a binary outcome, or an argument is not usable.
        """
        return self._ratio("risk", x0, x1, interval, level)

    def odds_ratio(
        self,
        x0: ArrayLike,
        x1: ArrayLike,
        *,
        interval: str | None = None,
        level: float = 0.95,
    ) -> Float | CausalContrast:
        """Odds of the average risk under do(X = x1) over those under x0, see `risk_ratio`."""
        return self._ratio("odds", x0, x1, interval, level)

    def _ratio(
        self, kind: str, x0: ArrayLike, x1: ArrayLike, interval: str | None, level: float
    ) -> Float | CausalContrast:
        from mrfast.nonlinear.binary_curve import BinaryCurve

        curve = self._fitted()
        if not isinstance(curve, BinaryCurve):
            raise check.fail(f"{kind}_ratio", "a fit of a binary outcome", curve.kind)
        first = check.float_array("x0", np.atleast_1d(x0), ndim=None).reshape(np.shape(x0))
        second = check.float_array("x1", np.atleast_1d(x1), ndim=None).reshape(np.shape(x1))
        try:
            first, second = np.broadcast_arrays(first, second)
        except ValueError as error:
            raise check.fail("x1", f"a shape that fits {first.shape}", str(second.shape)) from error
        if interval is not None:
            interval, level = self._interval(interval, level)
        found = curve.ratio(kind, first.ravel(), second.ravel(), None, interval, level)
        ratio, lower, upper = (values.reshape(first.shape) for values in found)
        if interval is None:
            return ratio
        text = f"{interval} interval for the {kind} ratio"
        return CausalContrast(first, second, ratio, lower, upper, text, level)

    def _limit_text(self, interval: str) -> str:
        text = super()._limit_text(interval)
        if isinstance(self._fitted(), AndersonRubinLine):
            return f"Anderson-Rubin region of a line, as {text}"
        return text


def _p_value(fit: LevelFit) -> float:
    return float("nan") if fit.test is None else fit.test.p_value


def _rejected(fit: LevelFit, alpha: float) -> bool:
    return fit.test is not None and fit.test.p_value < alpha


def _strength(stage: FirstStage, score: InstrumentScore) -> dict[str, Any]:
    """What the first stage says of the instruments."""
    clustered = stage.clustered_f_statistic
    return {
        "first_stage_f": stage.f_statistic,
        **({} if clustered is None else {"first_stage_clustered_f": clustered}),
        "first_stage_r_squared": stage.r_squared,
        "first_stage_functions": stage.functions,
        "first_stage_linear_f": stage.linear_f_statistic,
        "first_stage_nonlinearity_p_value": stage.nonlinear_p_value,
        "cross_fitted_score": score.cross_fitted,
        "score_ridge": score.ridge,
    }


def _report(
    stage: FirstStage, fits: list[LevelFit], curve: SieveCurve, penalty: str | int
) -> dict[str, Any]:
    """Diagnostics of a curve, that of the last of the fits."""
    chosen = fits[-1]
    points = np.linspace(*curve.central, _GRID)
    constant = np.ones((_GRID, 1))
    line = np.column_stack([constant, np.linspace(-1.0, 1.0, _GRID)])
    y_mean, y_sd = stage.y_law
    compared = np.linspace(*curve.central, _COMPARED)
    rows = chosen.spline.values((compared - stage.x_law[0]) / stage.x_law[1])
    between = (
        chosen
        if chosen.level is None
        else fit_level(
            stage,
            None,
            penalty=penalty,
            tau_floor=TAU_FLOOR * fits[0].tau_mean,
            between_of=chosen,
        )
    )

    def on_grid(fit: LevelFit) -> tuple[Float, Float]:
        mean, covariance = fit.mixture()
        k = rows.shape[1]
        variance = np.einsum("mi,ij,mj->m", rows, covariance[:k, :k], rows)
        return y_mean + y_sd * rows @ mean[:k], y_sd * np.sqrt(np.maximum(variance, 0.0))

    tests = {f"level_{fit.level}": _p_value(fit) for fit in fits if fit.test is not None}
    heteroscedasticity = next(
        (fit.heteroscedasticity.p_value for fit in fits if fit.heteroscedasticity), float("nan")
    )
    low_weight, high_weight = float(chosen.weights[0]), float(chosen.weights[-1])
    level_0 = on_grid(fits[0])[0].tolist() if fits[0].level == 0 else None
    between_curve, between_error = on_grid(between)
    band = curve.limits("uniform", 0.95, points, None, None)
    return {
        "model": "npiv" if chosen.level is None else f"level {chosen.level}",
        "specification_p_values": tests,
        "no_effect_p_value": curve.shape_test(constant, points),
        "linearity_p_value": curve.shape_test(line, points),
        "band_excludes_every_line": not line_between(points, *band),
        "effective_degrees_of_freedom": chosen.effective_degrees,
        "tau": chosen.tau_mean,
        "tau_grid": chosen.tau.tolist(),
        "tau_posterior": chosen.weights.tolist(),
        "tau_posterior_at_ends": low_weight + high_weight,
        "variance_between": chosen.variance_between * y_sd**2,
        "variance_within": (
            float("nan") if chosen.level is None else chosen.variance_within * y_sd**2
        ),
        "residual_heteroscedasticity_p_value": heteroscedasticity,
        "compared_exposure": compared.tolist(),
        "level_0_curve": level_0,
        "npiv_curve": between_curve.tolist(),
        "npiv_standard_error": between_error.tolist(),
    }


def _overidentification(
    data: IVData, stage: FirstStage, score: InstrumentScore, chosen: LevelFit
) -> dict[str, Any]:
    """Whether single instruments predict what the curve leaves of the outcome.

    n R2 of the regression of u = y - f(x) on the instruments, given their score and covariates:
    direct effects of single variants on the outcome show here.
    """
    from scipy.special import chdtrc

    from mrfast import _core

    if score.gram is None or score.shift is None or score.coefficients is None:
        return {}
    if data.p > data.n / 20:
        return {}
    p, q = data.p, stage.q
    instruments = data.instruments
    if instruments.dtype not in (np.int8, np.float32, np.float64):
        instruments = instruments.astype(np.float64)
    u = ModelRows(stage, chosen.spline, None, None).curve_residuals(chosen.mixture()[0])
    if stage.weight is not None:
        u *= stage.weight
    with_u = _core.sieve.instrument_products(
        instruments=instruments, shift=score.shift, values=u, threads=stage.n_threads
    )
    if data.covariates is not None and q:
        with_u = np.concatenate([with_u, np.einsum("n,nj->j", u, data.covariates)])
    total = score.gram[0, 0]
    means = score.gram[0, 1 : 1 + p + q] / total
    with_u -= means * float(u.sum())
    products = score.gram[1 : 1 + p + q, 1 : 1 + p + q] - total * np.outer(means, means)
    # Take out the score and covariates.
    controls = np.zeros((1 + q, p + q))
    controls[0, :p] = score.coefficients
    controls[1:, p:] = np.eye(q)
    block = controls @ products
    right = np.column_stack([block, controls @ with_u])
    slopes = np.linalg.lstsq(block @ controls.T, right, rcond=1e-10)[0]
    remaining = (products - block.T @ slopes[:, :-1])[:p, :p]
    left = (with_u - block.T @ slopes[:, -1])[:p]
    scale = np.sqrt(np.diag(products)[:p])
    values, vectors = symmetric_eigen(remaining / np.outer(scale, scale))
    kept = values > 1e-8 * values[-1]
    rotated = np.einsum("ij,i->j", vectors, left / scale)
    statistic = float(np.sum(rotated[kept] ** 2 / values[kept]) / chosen.variance_between)
    degrees = int(kept.sum())
    return {
        "overidentification_statistic": statistic,
        "overidentification_degrees_of_freedom": degrees,
        "overidentification_p_value": float(chdtrc(degrees, statistic)),
    }


def line_between(x: Float, lower: Float, upper: Float) -> bool:
    """Whether a straight line lies between two curves.

    It does where the upper hull of the lower curve nowhere exceeds the lower hull of the upper.

    Parameters
    ----------
    x : ndarray of float64, shape: (m,)
        Ascending.
    lower, upper : ndarray of float64, shape: (m,)
    """
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        return True
    top = -_lower_hull(x, -lower)
    return bool((top <= _lower_hull(x, upper)).all())


def _lower_hull(x: Float, y: Float) -> Float:
    """Largest convex function below points, at the points."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    result: Float = np.interp(x, x[hull], y[hull])
    return result
