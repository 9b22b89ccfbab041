"""Two-stage least squares, against dense matrices and linearmodels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

import mrfast.nonlinear
from mrfast.errors import InvalidInputError
from mrfast.nonlinear import TwoStageLeastSquares

N = 600


def people(seed: int = 1, p: int = 3, n: int = N, strength: float = 0.3):
    """Instruments, exposure, outcome, covariates, weights, families."""
    rng = np.random.default_rng(seed)
    family = rng.integers(0, n // 4, n)
    z = rng.binomial(2, 0.3, (n, p)).astype(np.int8)
    c = rng.normal(size=(n, 2)) + 0.3 * z[:, :1]
    u = rng.normal(size=n) + 0.7 * rng.normal(size=n // 4)[family]
    x = strength * z.sum(axis=1) + c @ [0.4, -0.2] + u + rng.normal(size=n)
    y = 1 + 0.5 * x + c @ [1.0, 0.5] + u + rng.normal(size=n) * (1 + 0.5 * z[:, 0])
    return z, x, y, c, rng.uniform(0.3, 2.0, n), family


def dense(z, x, y, c, weight=None, family=None):
    """Coefficients of (1, C, X) and their robust covariance, from whole matrices."""
    n = len(x)
    w = np.ones(n) if weight is None else weight / weight.mean()
    outer = np.column_stack([np.ones(n), c])
    instruments, regressors = np.column_stack([outer, z]), np.column_stack([outer, x])
    first = np.linalg.solve(
        instruments.T @ (w[:, None] * instruments), instruments.T @ (w[:, None] * regressors)
    )
    fitted = instruments @ first
    bread = np.linalg.inv(fitted.T @ (w[:, None] * regressors))
    coefficients = bread @ (fitted.T @ (w * y))
    residual = y - regressors @ coefficients
    scores = fitted * (w * residual)[:, None]
    k, units = regressors.shape[1], n
    if family is not None:
        scores = np.stack([scores[family == g].sum(axis=0) for g in np.unique(family)])
        units = len(scores)
    factor = (n - 1) / (n - k) * units / (units - 1)
    return coefficients, factor * bread @ scores.T @ scores @ bread.T, residual


@pytest.mark.parametrize("kind", ["plain", "weighted", "families"])
def test_slope_and_robust_error_of_dense_matrices(kind: str) -> None:
    """The obvious wrong error comes from the second-stage residual Y - b Xhat."""
    z, x, y, c, weight, family = people()
    weight = weight if kind == "weighted" else None
    family = family if kind == "families" else None
    model = TwoStageLeastSquares().fit(z, x, y, c, sample_weight=weight, clusters=family)
    coefficients, covariance, _ = dense(z, x, y, c, weight, family)
    assert model.diagnostics_["slope"] == pytest.approx(coefficients[-1], rel=1e-9)
    error = model.diagnostics_["slope_std_error"]
    assert error == pytest.approx(np.sqrt(covariance[-1, -1]), rel=1e-9)
    points, person = np.array([-1.0, 0.5, 2.0]), np.array([0.3, -0.4])
    rows = np.column_stack([np.ones(3), np.tile(person, (3, 1)), points])
    curve = model.effect_conditional(points, person, interval="pointwise")
    np.testing.assert_allclose(curve.estimate, rows @ coefficients, rtol=1e-9)
    half = 1.959963984540054 * np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))
    np.testing.assert_allclose((curve.upper - curve.lower) / 2, half, rtol=1e-9)


def test_effect_is_at_the_mean_of_the_covariates() -> None:
    """The obvious wrong effect is constant + slope x, without the covariates."""
    z, x, y, c, weight, _ = people()
    model = TwoStageLeastSquares().fit(z, x, y, c, sample_weight=weight)
    coefficients, _, _ = dense(z, x, y, c, weight)
    mean = np.average(c, axis=0, weights=weight)
    expected = coefficients[0] + mean @ coefficients[1:3] + coefficients[3] * 0.7
    assert float(model.effect(0.7)) == pytest.approx(expected, rel=1e-9)
    assert float(model.effect(0.7, mean)) == pytest.approx(expected, rel=1e-9)
    assert float(model.ate(0.0, 2.0)) == pytest.approx(2 * coefficients[3], rel=1e-9)


def test_error_of_the_averaged_effect_counts_the_covariates_too() -> None:
    """Against the bootstrap; without the covariates' sampling it would be a fifth too small."""
    z, x, y, c, _, _ = people(n=400)
    model = TwoStageLeastSquares().fit(z, x, y, c)
    at = np.array([x.mean()])
    rng, found = np.random.default_rng(3), []
    for _ in range(400):
        rows = rng.integers(0, 400, 400)
        again = TwoStageLeastSquares(n_draws=100).fit(z[rows], x[rows], y[rows], c[rows])
        found.append(again.effect(at)[0])
    curve = model.effect(at, interval="pointwise")
    error = (curve.upper - curve.lower)[0] / 2 / 1.959963984540054
    assert error == pytest.approx(np.std(found), rel=0.12)


def test_against_linearmodels() -> None:
    iv = pytest.importorskip("linearmodels.iv")
    z, x, y, c, _, family = people()
    outer = np.column_stack([np.ones(N), c])
    model = TwoStageLeastSquares().fit(z, x, y, c)
    peer = iv.IV2SLS(y, outer, x, z.astype(float)).fit(cov_type="robust", debiased=True)
    ours = model.diagnostics_
    assert ours["slope_std_error"] == pytest.approx(peer.std_errors.iloc[-1], rel=1e-8)
    assert ours["sargan"] == pytest.approx(peer.sargan.stat, rel=1e-8)
    wald = peer.first_stage.diagnostics["f.stat"].iloc[0]
    assert ours["first_stage_f_robust"] * 3 == pytest.approx(wald, rel=1e-6)
    gmm = iv.IVGMM(y, outer, x, z.astype(float)).fit(iter_limit=2)
    assert ours["hansen_j"] == pytest.approx(gmm.j_stat.stat, rel=1e-6)
    clustered = TwoStageLeastSquares().fit(z, x, y, c, clusters=family)
    peer = iv.IV2SLS(y, outer, x, z.astype(float)).fit(
        cov_type="clustered", clusters=family, debiased=True
    )
    error = clustered.diagnostics_["slope_std_error"]
    assert error == pytest.approx(peer.std_errors.iloc[-1], rel=1e-8)
    plain = TwoStageLeastSquares(covariance="homoscedastic").fit(z, x, y, c)
    peer = iv.IV2SLS(y, outer, x, z.astype(float)).fit(cov_type="unadjusted", debiased=True)
    assert plain.diagnostics_["slope_std_error"] == pytest.approx(peer.std_errors.iloc[-1])


def test_sargan_hansen_and_effective_f_of_dense_matrices() -> None:
    z, x, y, c, _, _ = people()
    found = TwoStageLeastSquares().fit(z, x, y, c).diagnostics_
    outer = np.column_stack([np.ones(N), c])

    def left(v):
        return v - outer @ np.linalg.lstsq(outer, v, rcond=None)[0]

    z_, x_, y_ = left(z.astype(float)), left(x), left(y)
    _, _, u = dense(z, x, y, c)
    gram = np.linalg.inv(z_.T @ z_)
    moments = z_.T @ u
    assert found["sargan"] == pytest.approx(N * moments @ gram @ moments / (u @ u), rel=1e-8)
    weight = np.linalg.inv((z_ * u[:, None] ** 2).T @ z_)
    a, b = z_.T @ x_, z_.T @ y_
    moments = b - a * (a @ weight @ b) / (a @ weight @ a)
    assert found["hansen_j"] == pytest.approx(moments @ weight @ moments, rel=1e-8)
    assert found["hansen_j_p_value"] == pytest.approx(chi2.sf(found["hansen_j"], 2))
    v = x_ - z_ @ (gram @ a)
    f = (a @ gram @ a) / 3 / ((v @ v) / (N - 6))
    assert found["first_stage_f"] == pytest.approx(f, rel=1e-9)
    meat = (z_ * v[:, None] ** 2).T @ z_ * N / (N - 6)
    assert found["effective_f"] == pytest.approx((a @ gram @ a) / np.trace(gram @ meat), rel=1e-9)


@pytest.mark.parametrize("covariance", ["robust", "homoscedastic"])
def test_anderson_rubin_set_holds_the_slopes_that_are_not_rejected(covariance: str) -> None:
    z, x, y, c, _, _ = people(p=2, seed=4)
    model = TwoStageLeastSquares(covariance=covariance).fit(z, x, y, c)
    outer = np.column_stack([np.ones(N), c])

    def left(v):
        return v - outer @ np.linalg.lstsq(outer, v, rcond=None)[0]

    z_ = left(z.astype(float))

    def statistic(slope: float) -> float:
        e = left(y - slope * x)
        moments = z_.T @ e
        e = e - z_ @ np.linalg.lstsq(z_, e, rcond=None)[0]
        meat = (z_ * e[:, None] ** 2).T @ z_ if covariance == "robust" else z_.T @ z_ * (e @ e) / N
        return moments @ np.linalg.solve(meat, moments) * (N - 5) / N

    limit = chi2.ppf(0.95, 2)
    lower, upper = model.diagnostics_["anderson_rubin_set"]
    assert statistic(lower) == pytest.approx(limit, rel=2e-3)
    assert statistic(upper) == pytest.approx(limit, rel=2e-3)
    assert lower < model.diagnostics_["slope"] < upper


def test_weak_instruments_have_an_unbounded_set_and_a_message() -> None:
    rng = np.random.default_rng(5)
    z, u = rng.normal(size=300), rng.normal(size=300)
    x = u + rng.normal(size=300)
    model = TwoStageLeastSquares().fit(z, x, x + u)
    assert model.diagnostics_["anderson_rubin_set"] == [-np.inf, np.inf]
    assert "weak instruments" in model.messages_[0]
    assert "sargan" not in model.diagnostics_


def test_whole_weights_are_repeated_people() -> None:
    z, x, y, c, _, _ = people()
    weight = np.random.default_rng(6).integers(0, 3, N)
    rows = np.repeat(np.arange(N), weight)
    one = TwoStageLeastSquares().fit(z, x, y, c, sample_weight=weight)
    two = TwoStageLeastSquares().fit(z[rows], x[rows], y[rows], c[rows], clusters=rows)
    np.testing.assert_allclose(one.effect([0.0, 1.0]), two.effect([0.0, 1.0]), rtol=1e-9)
    ratio = one.diagnostics_["slope_std_error"] / two.diagnostics_["slope_std_error"]
    assert ratio == pytest.approx(1, abs=0.01)


def test_collinear_columns_are_told_and_change_nothing() -> None:
    z, x, y, c, _, _ = people()
    more = np.column_stack([z, z[:, 0] + z[:, 1]])
    both = np.column_stack([c, c[:, 0] - c[:, 1]])
    one = TwoStageLeastSquares().fit(z, x, y, c)
    two = TwoStageLeastSquares().fit(more, x, y, both)
    assert one.effect(1.0) == pytest.approx(two.effect(1.0), rel=1e-9)
    assert "covariate_3" in two.messages_[0]
    assert "instrument_4" in two.messages_[1]
    with pytest.raises(InvalidInputError, match=r"instruments: .*vary given the covariates"):
        TwoStageLeastSquares().fit(c[:, 0], x, y, c)


def test_bits_do_not_depend_on_the_order_of_clusters_labels() -> None:
    z, x, y, c, _, family = people()
    one = TwoStageLeastSquares().fit(z, x, y, c, clusters=family)
    two = TwoStageLeastSquares().fit(z, x, y, c, clusters=[f"f{g:04d}" for g in family])
    assert one.diagnostics_ == two.diagnostics_


def test_uniform_band_of_a_line_is_wider_and_is_kept_in_files(tmp_path: Path) -> None:
    z, x, y, c, _, _ = people()
    model = TwoStageLeastSquares().fit(z, x, y, c)
    at = np.linspace(-2, 3, 7)
    pointwise = model.effect(at, interval="pointwise")
    uniform = model.effect(at, interval="uniform")
    ratio = (uniform.upper - uniform.lower) / (pointwise.upper - pointwise.lower)
    # a line's band needs less than Scheffe's factor of two coefficients
    assert 1.05 < ratio.min() <= ratio.max() < np.sqrt(chi2.ppf(0.95, 2)) / 1.96 * 1.03
    model.save(tmp_path / "fit")
    again = mrfast.nonlinear.load(tmp_path / "fit")
    assert np.array_equal(again.effect(at, interval="uniform").lower, uniform.lower)
    assert "Two-stage least squares" in str(model.summary())


def test_options_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="covariance"):
        TwoStageLeastSquares(covariance="best")
    with pytest.raises(InvalidInputError, match="level"):
        TwoStageLeastSquares(level=1.0)
    assert TwoStageLeastSquares(rng=3).get_params()["rng"] == 3


@pytest.mark.slow
def test_coverage_of_slope_band_and_anderson_rubin_set() -> None:
    """95% of 300 draws: between 91.6% and 98% (three binomial errors)."""
    at, covered = np.linspace(-2, 3, 20), np.zeros(3)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        z, c, u = rng.normal(size=400), rng.normal(size=400), rng.normal(size=400)
        x = 0.5 * z + 0.3 * c + u + rng.normal(size=400)
        y = 0.5 * x + c + u + rng.normal(size=400) * np.exp(0.3 * z)
        model = TwoStageLeastSquares(n_draws=500).fit(z, x, y, c)
        lower, upper = model.diagnostics_["slope_interval"]
        band = model.effect(at, interval="uniform")
        first, last = model.diagnostics_["anderson_rubin_set"]
        covered += [
            lower < 0.5 < upper,
            np.all((band.lower < 0.5 * at) & (0.5 * at < band.upper)),
            first < 0.5 < last,
        ]
    assert np.all((covered / 300 > 0.916) & (covered / 300 < 0.985)), covered


def test_uniform_band_in_any_unit() -> None:
    """Cells per litre: a root of the covariance itself loses the slope beside the level."""
    z, x, y, c, _, _ = people()
    at = np.array([-2.0, 0.0, 3.0])
    plain = TwoStageLeastSquares().fit(z, x, y, c).effect(at, interval="uniform")
    other = TwoStageLeastSquares().fit(z, x * 1e11, y, c).effect(at * 1e11, interval="uniform")
    np.testing.assert_allclose(other.upper, plain.upper, rtol=1e-6)
    np.testing.assert_allclose(other.lower, plain.lower, rtol=1e-6)


def test_unusable_units_and_instruments_have_names() -> None:
    """An exposure that is its own instrument leaves no error of the first stage."""
    z, x, y, _, _, family = people()
    with pytest.raises(InvalidInputError, match="instruments: expected columns that leave"):
        TwoStageLeastSquares().fit(x, x, y)
    with pytest.raises(InvalidInputError, match="exposure: expected a standard deviation"):
        TwoStageLeastSquares().fit(z, x * 1e100, y)
    few = TwoStageLeastSquares().fit(z, x, y, clusters=family % 12)
    assert any("only 12 clusters" in message for message in few.messages_)
