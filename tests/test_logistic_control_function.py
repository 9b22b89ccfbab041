"""Logistic control function: the two stages, averaged probabilities and their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

import mrfast.nonlinear
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.nonlinear import LogisticControlFunction

AT = np.array([-1.0, 0.0, 1.0, 2.5])


def people(n: int, seed: int, *, bend: float = 0.0):
    """The model itself, with a residual that a confounder shares."""
    rng = np.random.default_rng(seed)
    z = rng.binomial(2, 0.3, (n, 3)).astype(np.int8)
    c = rng.normal(size=(n, 1))
    v = rng.normal(size=n)
    x = z @ [0.4, 0.3, 0.3] + 0.3 * c[:, 0] + v
    risk = expit(-1 + 0.6 * x - 0.9 * v + bend * v**2 + 0.8 * c[:, 0])
    return z, x, (rng.uniform(size=n) < risk).astype(float), c


def dense(z, x, y, c, degree: int = 1):
    """Coefficients of (1, X, powers of V, C) by a general optimiser, and the columns."""
    outer = np.column_stack([np.ones(len(x)), c, z])
    v = x - outer @ np.linalg.lstsq(outer, x, rcond=None)[0]
    columns = np.column_stack([np.ones(len(x)), x, *(v**d for d in range(1, degree + 1)), c])

    def loss(t):
        predictor = columns @ t
        return np.logaddexp(0, predictor).sum() - y @ predictor, columns.T @ (expit(predictor) - y)

    found = minimize(loss, np.zeros(columns.shape[1]), jac=True, method="BFGS", tol=1e-10)
    return found.x, columns


@pytest.mark.parametrize("degree", [1, 3])
def test_coefficients_and_average_risk_of_a_general_optimiser(degree: int) -> None:
    """The obvious wrong effect averages logits: expit of the mean of the predictor."""
    z, x, y, c = people(2000, 1, bend=0.3)
    model = LogisticControlFunction(residual_degree=degree).fit(z, x, y, c)
    t, columns = dense(z, x, y, c, degree)
    assert model.diagnostics_["log_odds_ratio"] == pytest.approx(t[1], abs=1e-4)
    np.testing.assert_allclose(
        model.diagnostics_["residual_coefficients"], t[2 : 2 + degree], atol=1e-4
    )
    risks, wrong = [], []
    for value in AT:
        predictor = columns @ t + t[1] * (value - x)
        risks.append(expit(predictor).mean())
        wrong.append(expit(predictor.mean()))
    np.testing.assert_allclose(model.effect(AT), risks, atol=5e-5)
    assert np.abs(np.array(wrong) - risks).max() > 0.01
    person = 0.7
    given = [
        expit(columns[:, :-1] @ t[:-1] + t[1] * (value - x) + t[-1] * person).mean() for value in AT
    ]
    np.testing.assert_allclose(model.effect_conditional(AT, [person]), given, atol=5e-5)


def test_errors_account_for_the_first_stage_and_the_average() -> None:
    """Against 200 bootstrap fits; each of the plain errors would be too small."""
    z, x, y, c = people(800, 2)
    model = LogisticControlFunction().fit(z, x, y, c)
    rng, found = np.random.default_rng(3), []

    def numbers(fit: LogisticControlFunction) -> list[float]:
        return [
            fit.diagnostics_["log_odds_ratio"],
            *fit.effect(AT),
            float(fit.ate(0, 1)),
            float(fit.effect_conditional(1.0, [[0.5]])[0]),
            float(np.log(fit.odds_ratio(0, 1))),
            float(np.log(fit.risk_ratio(0, 1))),
        ]

    for _ in range(200):
        rows = rng.integers(0, 800, 800)
        again = LogisticControlFunction(n_draws=100).fit(z[rows], x[rows], y[rows], c[rows])
        found.append(numbers(again))
    curve = model.curve_
    one, zero = np.array([1.0]), np.array([0.0])
    errors = [
        model.diagnostics_["log_odds_ratio_std_error"],
        *curve.standard_errors(curve.basis(AT, None)),
        *curve.standard_errors(curve.basis(one, None) - curve.basis(zero, None)),
        *curve.standard_errors(curve.basis(one, np.array([[0.5]]))),
        *curve.log_ratio(zero, one, odds=True)[1],
        *curve.log_ratio(zero, one, odds=False)[1],
    ]
    np.testing.assert_allclose(errors, np.std(found, axis=0), rtol=0.2)
    # the error of a logistic regression that takes V as known
    t, columns = dense(z, x, y, c)
    risk = expit(columns @ t)
    naive = np.sqrt(np.linalg.inv((columns * (risk * (1 - risk))[:, None]).T @ columns)[1, 1])
    assert naive < 0.95 * model.diagnostics_["log_odds_ratio_std_error"]


def test_gradient_of_the_average_risk_is_the_numerical_one() -> None:
    """Derivatives of the risk in b, in g and in the nodes' offsets."""
    z, x, y, c = people(500, 4)
    curve = LogisticControlFunction(n_draws=100).fit(z, x, y, c).curve_
    person, at = np.array([[0.4]]), np.array([1.3])
    row = curve.basis(at, person)[0]
    j, kept = len(curve.nodes[1]), curve.slopes.copy()
    start = len(row) // 1 - (2 * j + 2)
    step = 1e-5
    for place, column in ((1, start + 2 * j), (2, start + 2 * j + 1)):
        values = []
        for sign in (1, -1):
            curve.slopes = kept.copy()
            curve.slopes[place] += sign * step
            values.append(curve.values(at, person)[0])
        curve.slopes = kept
        assert row[column] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)
    nodes = curve.nodes
    values = []
    for sign in (1, -1):
        curve.nodes = (nodes[0], nodes[1] + sign * step)
        values.append(curve.values(at, person)[0])
    curve.nodes = nodes
    weight = curve.coefficients[start : start + j]
    moved = row[start + j : start + 2 * j] @ weight
    assert moved == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


def test_limits_are_probabilities_and_ratios_positive() -> None:
    z, x, y, c = people(150, 5)
    model = LogisticControlFunction().fit(z, x, y, c)
    for interval in ("pointwise", "uniform"):
        curve = model.effect(np.linspace(-8, 8, 9), interval=interval)
        assert np.all((curve.lower >= 0) & (curve.upper <= 1) & (curve.lower <= curve.estimate))
    contrast = model.ate(-0.5, [0.0, 1.0], interval="pointwise")
    np.testing.assert_allclose(
        contrast.upper - contrast.estimate, contrast.estimate - contrast.lower, rtol=1e-9
    )
    ratio = model.odds_ratio([0, 1], [1, 1], interval="pointwise", level=0.9)
    assert ratio.lower[0] > 0
    assert ratio.estimate[1] == ratio.lower[1] == ratio.upper[1] == 1.0
    odds = [value / (1 - value) for value in model.effect([0.0, 1.0])]
    assert ratio.estimate[0] == pytest.approx(odds[1] / odds[0])


def test_without_confounding_it_is_the_logistic_regression() -> None:
    rng = np.random.default_rng(6)
    z = rng.normal(size=4000)
    x = z + rng.normal(size=4000)
    y = (rng.uniform(size=4000) < expit(-0.5 + 0.7 * x)).astype(float)
    model = LogisticControlFunction().fit(z, x, y)
    assert model.diagnostics_["log_odds_ratio"] == pytest.approx(0.7, abs=0.2)
    assert model.diagnostics_["exogeneity_p_value"] > 0.01
    np.testing.assert_allclose(logit(model.effect([0.0, 1.0])), [-0.5, 0.2], atol=0.12)


def test_files_weights_and_clusters(tmp_path: Path) -> None:
    z, x, y, c = people(400, 7)
    weight = np.random.default_rng(8).integers(0, 3, 400)
    rows = np.repeat(np.arange(400), weight)
    one = LogisticControlFunction().fit(z, x, y, c, sample_weight=weight)
    two = LogisticControlFunction().fit(z[rows], x[rows], y[rows], c[rows], clusters=rows)
    np.testing.assert_allclose(one.effect(AT), two.effect(AT), atol=1e-6)
    first, second = (model.effect(AT, interval="pointwise") for model in (one, two))
    np.testing.assert_allclose(first.lower, second.lower, atol=0.005)
    one.save(tmp_path)
    again = mrfast.nonlinear.load(tmp_path)
    band = one.effect(AT, interval="uniform")
    assert np.array_equal(again.effect(AT, interval="uniform").upper, band.upper)
    assert float(again.odds_ratio(0, 1)) == float(one.odds_ratio(0, 1))


def test_bad_data_are_refused() -> None:
    z, x, y, c = people(200, 9)
    with pytest.raises(InvalidInputError, match="outcome: expected 0 or 1"):
        LogisticControlFunction().fit(z, x, y + 1, c)
    with pytest.raises(ConvergenceError, match="separate"):
        LogisticControlFunction().fit(z, x, (x > 0.5).astype(float), c)
    with pytest.raises(InvalidInputError, match="residual_degree"):
        LogisticControlFunction(residual_degree=0)
    with pytest.raises(InvalidInputError, match="x1"):
        LogisticControlFunction().fit(z, x, y).odds_ratio([1, 2, 3], [1, 2])


@pytest.mark.slow
def test_coverage() -> None:
    """95% of 200 draws: at least 90.4% and at most 99% (three binomial errors)."""
    grid = np.linspace(-1.5, 3, 25)
    big = people(400_000, 0)
    v = big[1] - big[0] @ [0.4, 0.3, 0.3] - 0.3 * big[3][:, 0]
    truth = np.array(
        [expit(-1 + 0.6 * value - 0.9 * v + 0.8 * big[3][:, 0]).mean() for value in grid]
    )
    covered = np.zeros(3)
    for seed in range(200):
        model = LogisticControlFunction(n_draws=500).fit(*people(1500, 100 + seed))
        band = model.effect(grid, interval="uniform")
        points = model.effect(grid, interval="pointwise")
        low, high = model.diagnostics_["log_odds_ratio_interval"]
        covered += [
            np.all((band.lower < truth) & (truth < band.upper)),
            np.mean((points.lower < truth) & (truth < points.upper)),
            low < 0.6 < high,
        ]
    assert np.all((covered / 200 > 0.904) & (covered / 200 < 0.995)), covered / 200


def test_small_units_are_no_separation() -> None:
    """Coefficients of an exposure in moles, or of rare dosages, are large and finite."""
    z, x, y, c = people(800, 4)
    plain = LogisticControlFunction().fit(z, x, y, c)
    other = LogisticControlFunction().fit(z, x * 1e-9, y, c * 1e-7)
    np.testing.assert_allclose(other.effect(AT * 1e-9), plain.effect(AT), atol=1e-9)
