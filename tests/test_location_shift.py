"""Location-shift instrumental variable regression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mrfast.nonlinear
from mrfast.errors import InvalidInputError, MrfastWarning
from mrfast.nonlinear import LocationShiftIV
from mrfast.nonlinear.iv_data import iv_data
from mrfast.nonlinear.linear_first_stage import LinearFirstStage
from mrfast.nonlinear.location_shift import _Shifts
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints


def people(n: int, seed: int, curve=lambda x: 0.3 * (x + 2) * (x - 1) + 1):
    """A strong instrument, and a confounder that works through V in any way."""
    rng = np.random.default_rng(seed)
    z, u, noise, more = rng.normal(size=(4, n))
    x = np.sqrt(0.5) * z + 0.35 * u + np.sqrt(0.5 - 0.35**2) * noise
    return z, x, curve(x) - 0.7 * u + more


def test_tabulated_functions_are_means_over_everybodys_noise() -> None:
    """The obvious wrong regressors are psi(T), the functions at the prediction."""
    rng = np.random.default_rng(1)
    z, x, y = people(300, 1)
    weight = rng.uniform(0.5, 2, 300)
    stage = LinearFirstStage(iv_data(z, x, y, sample_weight=weight))
    spline = BSpline(quantile_breakpoints(x, 8))
    shifts = _Shifts(stage, spline)
    rows = slice(0, 20)
    found = shifts.columns(rows)
    for i in range(20):
        at = stage.fitted[i] + stage.residuals
        plain = np.average(spline.values(at), axis=0, weights=weight)
        np.testing.assert_allclose(found[i], plain, atol=2e-5)
    assert np.abs(found - spline.values(stage.fitted[rows])).max() > 0.1


def test_curve_is_found_and_regression_on_the_prediction_is_not() -> None:
    """Regression on E[X | Z] gives the mean of f over V, .3 Var(V) above f."""
    z, x, y = people(20_000, 2)
    model = LocationShiftIV().fit(z, x, y)
    at = np.linspace(*model.exposure_central_, 200)
    truth = 0.3 * (at + 2) * (at - 1) + 1
    error = np.mean((model.effect(at) - truth) ** 2)
    prediction = np.polyval(np.polyfit(z, x, 1), z)
    wrong = np.polyval(np.polyfit(prediction, y, 2), at)
    assert error < 0.005
    assert np.mean((wrong - truth) ** 2) > 0.015 > 4 * error


def test_scores_in_first_stage_and_noise_are_derivatives() -> None:
    """Numerical derivatives of the moments in the slope of the first stage and in V's law."""
    z, x, y = people(200, 3)
    data = iv_data(z, x, y)
    stage = LinearFirstStage(data)
    spline = BSpline(quantile_breakpoints(x, 7))
    base = _Shifts(stage, spline)
    base.fit()
    t = base.coefficients
    target = (y - y.mean()) / y.std()

    def fitted(slope_shift: float, weights: np.ndarray) -> np.ndarray:
        """E[f(T + V)] of everybody, from all pairs of people."""
        shift = stage.fitted + slope_shift * (z - z.mean())
        noise = stage.residuals  # the law of V does not move to first order when V has no trend
        values = spline.values((shift[:, None] + noise).ravel()) @ t
        return values.reshape(200, 200) @ weights

    equal = np.full(200, 1 / 200)
    step = 1e-4
    slope = (fitted(step, equal) - fitted(-step, equal)) / (2 * step)
    tabulated = base.shifts.interpolate((base.slopes @ t)[:, None], stage.fitted)[:, 0]
    np.testing.assert_allclose(tabulated * (z - z.mean()), slope, atol=2e-3)
    # more of person j: the moments fall by the mean product of columns and f(T + v_j)
    j, columns = 17, base.columns(slice(0, 200))
    more = equal.copy()
    more[j] += step
    more /= more.sum()
    moved = columns.T @ -(fitted(0.0, more) - fitted(0.0, equal)) / step
    own = spline.values(stage.fitted + stage.residuals[j]) @ t
    expected = -(columns.T @ (own - fitted(0.0, equal)))
    np.testing.assert_allclose(moved, expected, atol=1e-2)
    assert target.std() == pytest.approx(1)


def test_errors_are_not_below_those_of_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Families, weights and a covariate; the smoothing bias makes errors larger, if anything."""
    monkeypatch.setattr("mrfast.nonlinear.location_shift._DOUBT", 0.0)  # chance among 60 fits
    rng = np.random.default_rng(4)
    family = np.repeat(np.arange(400), 3)
    z = rng.normal(size=400)[family] + 0.5 * rng.normal(size=1200)
    c, u = rng.normal(size=1200), rng.normal(size=400)[family] + rng.normal(size=1200)
    x = z + 0.4 * c + 0.5 * u
    y = 0.5 * x + c + u + rng.normal(size=1200)
    w = rng.uniform(0.5, 2, 1200)

    def fit(rows):
        model = LocationShiftIV(n_functions=8, n_draws=100)
        return model.fit(z[rows], x[rows], y[rows], c[rows], sample_weight=w[rows], clusters=family)

    at, person = np.array([-1.5, 0.0, 1.5]), np.full((3, 1), 0.7)
    curve, found = fit(np.arange(1200)).curve_, []
    errors = np.concatenate(
        [
            curve.standard_errors(curve.basis(at, None)),
            curve.standard_errors(curve.basis(at, person)),
        ]
    )
    for _ in range(60):
        drawn = rng.integers(0, 400, 400)
        again = fit((drawn[:, None] * 3 + np.arange(3)).ravel())
        found.append([*again.effect(at), *again.effect_conditional(at, [0.7])])
    ratio = errors / np.std(found, axis=0)
    assert np.all((ratio > 0.8) & (ratio < 2.5)), ratio


def test_spread_that_depends_on_the_instrument_is_warned_of() -> None:
    rng = np.random.default_rng(5)
    z, u = rng.normal(size=(2, 3000))
    x = z + np.exp(0.3 * z) * u
    with pytest.warns(MrfastWarning, match="spread around its prediction depends"):
        model = LocationShiftIV().fit(z, x, x + u)
    assert model.diagnostics_["spread_p_value"] < 1e-6
    assert any("SieveIV" in message for message in model.messages_)
    # n R^2 of V^2 on T, T^2, from whole matrices
    t = np.polyval(np.polyfit(z, x, 1), z)
    squares = (x - t) ** 2
    columns = np.column_stack([np.ones(3000), t, t**2])
    left = squares - columns @ np.linalg.lstsq(columns, squares, rcond=None)[0]
    statistic = 3000 * (1 - left.var() / squares.var())
    assert model.diagnostics_["spread_statistic"] == pytest.approx(statistic, rel=1e-8)
    assert model.diagnostics_["spread_degrees_of_freedom"] == 2


def test_three_genotypes_several_instruments_binary_outcome_and_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    g = rng.binomial(2, 0.3, (2000, 3)).astype(np.int8)
    u = rng.normal(size=2000)
    x = g @ [0.5, 0.4, 0.3] + u
    one = LocationShiftIV().fit(g[:, 0], x, x + u)
    assert one.diagnostics_["degrees_of_freedom"] < 4  # constant, slope, at most a bend
    model = LocationShiftIV().fit(g, x, (x + u > 0) * 1.0)
    assert any("binary outcome" in message for message in model.messages_)
    model.save(tmp_path)
    at = np.array([0.0, 1.0])
    band = model.effect(at, interval="uniform")
    again = mrfast.nonlinear.load(tmp_path).effect(at, interval="uniform")
    assert np.array_equal(band.lower, again.lower)
    with pytest.raises(InvalidInputError, match="n_functions"):
        LocationShiftIV(n_functions=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quadratic", "sine"])
def test_coverage_of_bands(name: str) -> None:
    """Uniform bands of 150 draws: at least 89.7% (three binomial errors below 95%)."""

    def curve(x):
        return np.sin(1.5 * x) if name == "sine" else 0.3 * (x + 2) * (x - 1) + 1

    at, covered = np.linspace(-1.9, 1.9, 30), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrfast.nonlinear.location_shift._DOUBT", 0.0)
        for seed in range(150):
            model = LocationShiftIV(n_draws=500).fit(*people(4000, seed, curve))
            band = model.effect(at, interval="uniform")
            covered += bool(np.all((band.lower < curve(at)) & (curve(at) < band.upper)))
    assert covered / 150 > 0.897


def test_units_of_covariates_do_not_matter() -> None:
    """The obvious wrong guard is relative to the trace, which large covariates decide."""
    rng = np.random.default_rng(3)
    z, x, y = people(600, 3)
    c = rng.normal(size=(600, 2))
    at = np.linspace(-1, 1, 5)
    plain = LocationShiftIV().fit(z, x, y + c[:, 0], c)
    other = LocationShiftIV().fit(z, x, y + c[:, 0], c * [1e6, 1e-4] + [1e7, 0.0])
    one, two = (fitted.effect(at, interval="pointwise") for fitted in (plain, other))
    np.testing.assert_allclose(two.estimate, one.estimate, atol=1e-6)
    np.testing.assert_allclose(two.upper, one.upper, atol=1e-6)
    same = plain.effect_conditional(at, [1.0, 2.0])
    moved = other.effect_conditional(at, [1e6 + 1e7, 2e-4])
    np.testing.assert_allclose(moved, same, atol=1e-6)
