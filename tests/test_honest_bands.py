"""Curves of a dimension chosen by the data, and their bands, against dense computations."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.interpolate import BSpline

from mrfast.errors import InvalidInputError
from mrfast.nonlinear.honest_bands import (
    HonestCurve,
    fit_npiv_cck,
    fit_series_control_function,
    select_dimension,
)
from mrfast.nonlinear.iv_data import iv_data

OPTIONS = SimpleNamespace(n_draws=500, folds=5, rng=3, n_threads=1)


def sample(n=600, seed=1, extras=True):
    """A strong continuous instrument; covariate, weights and clusters too."""
    rng = np.random.default_rng(seed)
    z, u, e, noise = rng.standard_normal((4, n))
    c = 0.4 * z + rng.standard_normal(n)
    x = z + 0.3 * c + 0.5 * (u + e)
    y = 0.3 * x**2 + 0.5 * u + 0.4 * c + 0.5 * noise + 2
    if not extras:
        return iv_data(z, x, y)
    weight, clusters = rng.uniform(0.5, 2, n), rng.integers(0, n // 3, n)
    return iv_data(z, x, y, c, sample_weight=weight, clusters=clusters)


def splines(values, pieces, at=None, order=0):
    """Cubic B-splines with knots at quantiles, by scipy."""
    inner = np.quantile(values, np.arange(1, pieces) / pieces)
    knots = np.r_[[values.min()] * 4, inner, [values.max()] * 4]
    basis = BSpline(knots, np.eye(len(knots) - 4), 3)
    return basis(values if at is None else at, nu=order)


def cluster_sums(rows, clusters):
    return np.array([rows[clusters == g].sum(axis=0) for g in np.unique(clusters)])


def pieces_of(fit):
    return fit.diagnostics["dimension"] - 3


def pointwise(curve, points):
    low, high = curve.limits("pointwise", 0.95, points, None, None)
    return curve.values(points, None), (high - low) / (2 * 1.959963984540054)


def test_series_two_stage_least_squares():
    """Fails where X's splines are regressed on as they are (least squares, no instrument)."""
    data = sample()
    fit = fit_npiv_cck(data, OPTIONS)
    pieces, w = pieces_of(fit), data.sample_weight
    x, y, z = data.exposure, data.outcome, data.instruments[:, 0]
    c = data.covariates - np.average(data.covariates, axis=0, weights=w)
    P = np.column_stack([splines(x, pieces), c])
    B = np.column_stack([splines(z, 2 * pieces), c]) * np.sqrt(w)[:, None]
    projection = B @ np.linalg.pinv(B)
    X = projection @ (P * np.sqrt(w)[:, None])
    coefficients = np.linalg.lstsq(X, y * np.sqrt(w), rcond=None)[0]
    scores = X * (np.sqrt(w) * (y - P @ coefficients))[:, None]
    inverse = np.linalg.inv(X.T @ X)
    sums = cluster_sums(scores, data.clusters)
    covariance = inverse @ sums.T @ sums @ inverse
    points = np.linspace(*np.quantile(x, [0.05, 0.95]), 7)
    rows = np.column_stack([splines(x, pieces, points), np.zeros(7)])
    estimate, error = pointwise(fit.curve, points)
    np.testing.assert_allclose(estimate, rows @ coefficients, rtol=1e-7)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))
    np.testing.assert_allclose(error, expected, rtol=1e-6)


def test_series_control_function():
    """Fails without the residual of the first stage, or without that stage's uncertainty.

    The latter comes from numerical derivatives of the whole second stage in the coefficients of
    the first.
    """
    data = sample()
    fit = fit_series_control_function(data, OPTIONS)
    pieces, w = pieces_of(fit), data.sample_weight
    root = np.sqrt(w)[:, None]
    n, x, y, z = data.n, data.exposure, data.outcome, data.instruments[:, 0]
    c = data.covariates - np.average(data.covariates, axis=0, weights=w)
    inner = np.quantile(z, np.linspace(0.01, 0.99, 8))
    knots = np.r_[[z.min()] * 4, inner, [z.max()] * 4]
    assert fit.diagnostics["first_stage_functions"] == 12
    B = np.column_stack([BSpline.design_matrix(z, knots, 3).toarray(), c])
    gamma = np.linalg.lstsq(B * root, x * root[:, 0], rcond=None)[0]
    v = x - B @ gamma
    cuts = np.r_[[v.min()] * 4, np.quantile(v, np.linspace(0.01, 0.99, 6)), [v.max()] * 4]
    of_residual = BSpline(cuts, np.eye(10), 3)
    size = pieces + 3
    mean = np.average(of_residual(v), axis=0, weights=w)  # a fixed constant of the model

    def second_stage(gamma):
        Q = (of_residual(x - B @ gamma) - mean)[:, 1:]
        D = np.column_stack([splines(x, pieces), Q, c])
        return D, np.linalg.lstsq(D * root, y * root[:, 0], rcond=None)[0]

    D, theta = second_stage(gamma)
    inverse = np.linalg.inv((D * w[:, None]).T @ D)
    influence = (D * (w * (y - D @ theta))[:, None]) @ inverse
    # Expected derivative of the second stage in gamma: that of the fitted values.
    slope = of_residual(v, nu=1)[:, 1:] @ theta[size : size + 9]
    moved = inverse @ ((D * (w * slope)[:, None]).T @ B)
    first = (B * (w * v)[:, None]) @ np.linalg.inv((B * w[:, None]).T @ B)
    sums = cluster_sums(influence + first @ moved.T, data.clusters)
    covariance = sums.T @ sums
    points = np.linspace(*np.quantile(x, [0.05, 0.95]), 7)
    rows = np.column_stack([splines(x, pieces, points), np.zeros((7, 9 + 1))])
    estimate, error = pointwise(fit.curve, points)
    np.testing.assert_allclose(estimate, rows @ theta, rtol=1e-5)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))
    np.testing.assert_allclose(error, expected, rtol=1e-4)
    without = cluster_sums(influence, data.clusters)
    ignored = np.sqrt(np.einsum("ij,jk,ik->i", rows, without.T @ without, rows))
    assert np.abs(ignored / expected - 1).max() > 0.05
    assert n == len(v)


def nested_law(rng, d, k):
    root = rng.standard_normal((d * k, d * k))
    return (root @ root.T).reshape(d, k, d, k)


def test_smallest_dimension_that_none_contradicts():
    """Fails where differences are taken for independent, or only neighbours are compared."""
    rng = np.random.default_rng(4)
    d, k, b, dimensions = 4, 3, 400, (4, 5, 7, 11)
    covariance = nested_law(rng, d, k)
    draws = rng.multivariate_normal(np.zeros(d * k), covariance.reshape(d * k, d * k), b)
    draws = np.moveaxis(draws.reshape(b, d, k), 1, 0)
    rows = rng.standard_normal((9, k))

    def comparison(values):
        """Standardised differences (pairs, points) of curves (d, k)."""
        out = {}
        for i in range(d):
            for j in range(i + 1, d):
                L = np.zeros((k, d, k))
                L[:, i], L[:, j] = np.eye(k), -np.eye(k)
                L = L.reshape(k, -1)
                V = L @ covariance.reshape(d * k, -1) @ L.T
                sd = np.sqrt(np.einsum("ij,jk,ik->i", rows, V, rows))
                out[i, j] = np.abs(rows @ (values[i] - values[j])) / sd
        return out

    suprema = [max(v.max() for v in comparison(draw).values()) for draw in np.moveaxis(draws, 1, 0)]
    alpha = min(0.5, np.sqrt(np.log(11) / 11))
    threshold = np.quantile(suprema, 1 - alpha)
    seen = set()
    for size in (0.0, 3.0, 6.0, 9.0, 30.0):
        curves = rng.standard_normal((d, k)) * np.array([3, 2, 1, 0.1])[:, None] * size
        found = comparison(curves)
        accepted = [
            i
            for i in range(d - 1)
            if max(found[i, j].max() for j in range(i + 1, d)) <= 1.1 * threshold
        ]
        expected = min(accepted[0] if accepted else d - 1, d - 2)
        selection = select_dimension(dimensions, curves, covariance, draws, rows)
        assert selection.chosen == expected
        assert selection.threshold == pytest.approx(threshold)
        assert selection.allowance == pytest.approx(
            max(np.log(np.log(dimensions[expected])), 0) * threshold
        )
        assert selection.in_band == tuple(range(d - 2) if expected < d - 2 else range(d))
        seen.add(expected)
    assert len(seen) > 1


def test_band_allows_for_the_choice():
    """Fails where the band's critical value is that of the chosen curve alone."""
    fit = fit_npiv_cck(sample(), OPTIONS)
    curve = fit.curve
    points = np.linspace(*curve.central, 200)
    rows = curve.basis(points, None)
    suprema = np.zeros(OPTIONS.n_draws)
    for draws, covariance in zip(curve.draws, curve.covariances, strict=True):
        sd = np.sqrt(np.diag(rows @ covariance @ rows.T))
        suprema = np.maximum(suprema, np.abs(draws @ rows.T / sd).max(axis=1))
    expected = np.quantile(suprema, 0.95) + fit.diagnostics["band_allowance"]
    low, high = curve.limits("uniform", 0.95, points, None, None)
    _, error = pointwise(curve, points)
    np.testing.assert_allclose((high - low) / (2 * error), expected, rtol=1e-6)
    assert fit.diagnostics["band_allowance"] > 0.3


def test_covariates_shift_the_curve():
    data = sample(4000)
    for fit in (fit_npiv_cck, fit_series_control_function):
        curve = fit(data, OPTIONS).curve
        x = np.array([0.5, 0.5])
        low, high = curve.values(x, np.array([[0.0], [1.0]]))
        assert high - low == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize("fit", [fit_npiv_cck, fit_series_control_function])
def test_state_and_threads(fit):
    data = sample(40_000, extras=False)
    first = fit(data, OPTIONS).curve
    other = fit(data, SimpleNamespace(**{**vars(OPTIONS), "n_threads": 3})).curve
    values, arrays = first.state(False)
    again = HonestCurve.from_state(values, arrays)
    points = np.linspace(-1, 1, 5)
    for curve in (other, again):
        np.testing.assert_array_equal(curve.values(points, None), first.values(points, None))
        for limits in zip(
            curve.limits("uniform", 0.9, points, None, None),
            first.limits("uniform", 0.9, points, None, None),
            strict=True,
        ):
            np.testing.assert_array_equal(*limits)


def test_an_instrument_of_few_values_is_refused():
    rng = np.random.default_rng(2)
    g = rng.binomial(2, 0.3, 500)
    x = g + rng.standard_normal(500)
    with pytest.raises(InvalidInputError, match="more than 10 values"):
        fit_npiv_cck(iv_data(g, x, x + rng.standard_normal(500)), OPTIONS)
    fit_series_control_function(iv_data(g, x, x + rng.standard_normal(500)), OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("fit", [fit_npiv_cck, fit_series_control_function])
def test_coverage(fit):
    """The whole curve, in at least 52 of 60 samples (95% would fall short once in 300 runs)."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng([11, seed])
        z, u, e, noise = rng.standard_normal((4, 2000))
        x = z + 0.5 * (u + e)
        data = iv_data(z, x, np.sin(x) + u + noise)
        curve = fit(data, OPTIONS).curve
        points = np.linspace(*curve.central, 100)
        low, high = curve.limits("uniform", 0.95, points, None, None)
        covered += ((low <= np.sin(points)) & (np.sin(points) <= high)).all()
    assert covered >= 52
