"""Kernel instrumental variable regression: stages, tuning, bootstrap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mrfast.nonlinear
from mrfast.errors import InvalidInputError
from mrfast.nonlinear import KernelIV, kernel_iv
from mrfast.nonlinear.iv_data import iv_data
from mrfast.nonlinear.linear_first_stage import LinearFirstStage


def people(n: int, seed: int, curve=lambda x: 0.3 * (x + 2) * (x - 1) + 1):
    """A strong instrument and a confounder."""
    rng = np.random.default_rng(seed)
    z, u, noise, more = rng.normal(size=(4, n))
    x = np.sqrt(0.5) * z + 0.35 * u + np.sqrt(0.5 - 0.35**2) * noise
    return z, x, curve(x) - 0.7 * u + more


def prepared(n: int = 400, seed: int = 1, weighted: bool = True):
    """Features, groups and sums of a small data set, and the columns of everybody."""
    rng = np.random.default_rng(seed + 100)
    z, x, y = people(n, seed)
    c = rng.normal(size=(n, 1))
    weight = rng.uniform(0.5, 2, n) if weighted else None
    stage = LinearFirstStage(iv_data(z, x, y + c[:, 0], c, sample_weight=weight))
    features = kernel_iv._Features(stage, 15, np.random.default_rng(0))
    groups = rng.permutation(n) % 16
    sums = kernel_iv._group_sums(features, groups, 16, 1)
    return sums, groups, features.columns(slice(0, n)), stage


def ridge(x, y, penalties, w):
    return np.linalg.solve((x * w[:, None]).T @ x + np.diag(penalties), (x * w[:, None]).T @ y)


def test_both_stages_of_whole_matrices() -> None:
    """The obvious wrong first stage predicts a person's features from that person too."""
    sums, groups, columns, stage = prepared()
    w, psi, phi = stage.weights, columns[:, sums.first], columns[:, sums.second[1]]
    y, even = columns[:, -1], groups % 2 == 0
    first, second = 1e-3, 1e-2
    predicted = np.empty_like(phi)
    for own, other in ((even, ~even), (~even, even)):
        penalty = np.full(psi.shape[1], w[other].sum() * first)
        penalty[:2] = 0
        predicted[own] = psi[own] @ ridge(psi[other], phi[other], penalty, w[other])
    # what bears no penalty is predicted exactly
    np.testing.assert_allclose(predicted[:, :2], phi[:, :2], atol=1e-6)
    penalty = np.full(phi.shape[1], w.sum() * second)
    penalty[:3] = 0
    expected = ridge(predicted, y, penalty, w)
    gram, moments, weight = kernel_iv._pair(sums, kernel_iv._halves(sums), 1, first)
    assert weight == pytest.approx(w.sum())
    found = kernel_iv._solve(gram, moments, weight * second, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    penalty = np.full(psi.shape[1], w.sum() * first)
    penalty[:2] = 0
    same = psi @ ridge(psi, phi, penalty, w)
    assert np.abs(same - predicted).max() > 0.05


def test_features_are_those_of_the_kernel() -> None:
    """Products of features are the Nystrom approximation of exp(-(x - x')^2 / 2 w^2)."""
    _, _, _, stage = prepared()
    features = kernel_iv._Features(stage, 15, np.random.default_rng(0))
    x = np.linspace(-1.5, 1.5, 9)
    values, end = features.basis.values(x), 2
    np.testing.assert_allclose(np.diff(values[:, 1]), np.diff(x) / features.widths[0], rtol=1e-9)
    for width, count in zip(features.widths, features.counts, strict=True):
        phi, end = values[:, end : end + count], end + count
        kernel = np.exp(-((x[:, None] - x) ** 2) / (2 * width**2))
        np.testing.assert_allclose(phi @ phi.T, kernel, atol=2e-3)


def test_held_out_risk_is_a_sum_over_pairs_of_different_groups() -> None:
    """The obvious wrong risk keeps the groups' own pairs, and with these the noise of Y."""
    sums, groups, columns, stage = prepared(weighted=False)
    first = 1e-3
    pairs = kernel_iv._held_out(sums, 1, first)
    i = 12
    second = kernel_iv._SECOND_RIDGES[i]
    psi, phi, y = columns[:, sums.first], columns[:, sums.second[1]], columns[:, -1]
    ones = np.ones(stage.n)
    for test in (0, 1):
        rows = groups % 2 == test
        quarter = groups // 2 % 2 == 0
        halves = [~rows & quarter, ~rows & ~quarter]
        predicted = np.empty_like(phi)
        for own, other in ((0, 1), (1, 0)):
            a, b = halves[own], halves[other]
            penalty = np.full(psi.shape[1], b.sum() * first)
            penalty[:2] = 0
            predicted[a] = psi[a] @ ridge(psi[b], phi[b], penalty, ones[b])
        penalty = np.full(phi.shape[1], (~rows).sum() * second)
        penalty[:3] = 0
        fit = ridge(predicted[~rows], y[~rows], penalty, ones[~rows])
        residual = y - phi @ fit
        penalty = np.full(psi.shape[1], rows.sum() * first)
        penalty[:2] = 0
        inner = psi[rows].T @ psi[rows] + np.diag(penalty)
        total = 0.0
        for g in np.flatnonzero(np.arange(16) % 2 == test):
            for h in np.flatnonzero(np.arange(16) % 2 == test):
                if g != h:
                    one, two = (psi[groups == k].T @ residual[groups == k] for k in (g, h))
                    total += one @ np.linalg.solve(inner, two)
        found = pairs[i][test::2, test::2].sum()
        assert found == pytest.approx(total / rows.sum() / 2, rel=1e-4, abs=1e-7)
    assert np.all(pairs[:, ::2, 1::2] == 0)


def test_risk_of_the_true_curve_is_zero_on_average() -> None:
    """Unbiased: y = f(x) + u with E[u | z] = 0, f known; 120 draws."""
    found = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        z, u = rng.normal(size=(2, 240))
        psi = np.column_stack([np.ones(240), z, z**2])
        sums = np.stack([psi[g::8].T @ u[g::8] for g in range(8)])
        inner = np.linalg.inv(psi.T @ psi)
        total = sums.sum(axis=0)
        found.append(total @ inner @ total - np.einsum("gi,ij,gj->", sums, inner, sums))
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(120)


def test_evidence_is_the_marginal_likelihood() -> None:
    """Up to a constant, that of N(0, s^2 I + X X' s^2 / (n r)) with flat free columns."""
    sums, _, _, _ = prepared(weighted=False)
    logs, freedom = kernel_iv._evidence(sums, 1, 1e-3)
    gram, moments, n = kernel_iv._pair(sums, kernel_iv._halves(sums), 1, 1e-3)
    root = np.linalg.cholesky(gram + 1e-9 * np.eye(len(gram))).T  # rows with the same products
    response = np.linalg.solve(root.T, moments)
    square = sums.products[:, -1, -1].sum()
    fits = [kernel_iv._solve(gram, moments, n * r, 3) for r in kernel_iv._SECOND_RIDGES]
    variance = min(square - 2 * t @ moments + t @ gram @ t for t in fits) / n
    expected = []
    for r in kernel_iv._SECOND_RIDGES[4:14:3]:
        free, rest = root[:, :3], root[:, 3:]
        spread = variance * np.eye(len(root)) + rest @ rest.T * variance / (n * r)
        inverse = np.linalg.inv(spread)
        inner = free.T @ inverse @ free
        slopes = np.linalg.solve(inner, free.T @ inverse @ response)
        left = response - free @ slopes
        tau2 = variance / (n * r)
        expected.append(
            -0.5 * np.linalg.slogdet(spread)[1]
            - 0.5 * np.linalg.slogdet(inner)[1]
            - 0.5 * left @ inverse @ left
            + 0.5 * np.log(tau2)
            - np.log1p(tau2)
        )
    np.testing.assert_allclose(np.diff(logs[4:14:3]), np.diff(expected), rtol=1e-3, atol=1e-3)
    assert np.all(np.diff(freedom) < 1e-6)
    assert freedom[-1] == pytest.approx(3, abs=0.5)


def test_curve_is_found_and_is_smoother_than_confounded_regression() -> None:
    z, x, y = people(10_000, 2)
    model = KernelIV().fit(z, x, y)
    at = np.linspace(*model.exposure_central_, 200)
    truth = 0.3 * (at + 2) * (at - 1) + 1
    confounded = np.polyval(np.polyfit(x, y, 2), at)
    assert np.mean((model.effect(at) - truth) ** 2) < 0.02
    assert np.mean((confounded - truth) ** 2) > 0.04
    band = model.effect(at, interval="uniform")
    assert np.all((band.lower < truth) & (truth < band.upper))


def test_large_ridge_is_two_stage_least_squares() -> None:
    z, x, y = people(4000, 3, lambda x: 0.5 * x)
    model = KernelIV().fit(z, x, y)
    line = mrfast.nonlinear.TwoStageLeastSquares().fit(z, x, y)
    assert model.diagnostics_["degrees_of_freedom"] < 3.5
    slope, error = line.diagnostics_["slope"], line.diagnostics_["slope_std_error"]
    assert abs(float(model.ate(-1, 1)) / 2 - slope) < 2 * error


def test_groups_keep_clusters_and_bits_do_not_depend_on_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    z, x, y = people(1200, 4)
    family = rng.integers(0, 300, 1200)
    groups = kernel_iv._groups(iv_data(z, x, y, clusters=family), 16, rng)
    assert all(len(set(groups[family == f])) == 1 for f in range(300) if (family == f).any())
    options = {"n_groups": 40, "n_bootstrap": 50}
    one = KernelIV(**options).fit(z, x, y, clusters=family)
    two = KernelIV(n_threads=2, **options).fit(z, x, y, clusters=family)
    at = np.array([-1.0, 0.5])
    band = one.effect(at, interval="uniform")
    assert np.array_equal(band.lower, two.effect(at, interval="uniform").lower)
    one.save(tmp_path)
    again = mrfast.nonlinear.load(tmp_path).effect(at, interval="uniform")
    np.testing.assert_array_equal(band.upper, again.upper)
    with pytest.raises(
        InvalidInputError, match=r"n_groups: expected at most 1\d\d for 2\d\d clusters"
    ):
        KernelIV(n_groups=200).fit(z, x, y, clusters=family)


@pytest.mark.parametrize("tuning", ["evidence", "risk"])
def test_all_instruments_covariates_and_three_genotypes(tuning: str) -> None:
    rng = np.random.default_rng(5)
    g = rng.binomial(2, 0.4, (2000, 4)).astype(np.int8)
    c, u = rng.normal(size=(2000, 1)), rng.normal(size=2000)
    x = g @ [0.5, 0.4, 0.4, 0.3] + 0.3 * c[:, 0] + u
    y = 0.5 * x + c[:, 0] + u + rng.normal(size=2000)
    for instrument in ("score", "all"):
        model = KernelIV(tuning=tuning, instrument=instrument, n_bootstrap=50).fit(g, x, y, c)
        gap = np.diff(model.effect_conditional(1.0, [[0.0], [1.0]]))[0]
        assert gap == pytest.approx(1, abs=0.35)
        assert float(model.ate(0, 2)) == pytest.approx(1, abs=0.6)
    one = KernelIV(n_bootstrap=50).fit(g[:, 0], x, y)
    assert one.diagnostics_["degrees_of_freedom"] < 4.5


def test_options_are_checked() -> None:
    z, x, y = people(100, 6)
    with pytest.raises(InvalidInputError, match="n_groups: expected at most 50"):
        KernelIV().fit(z, x, y)
    with pytest.raises(InvalidInputError, match="multiple of 4"):
        KernelIV(n_groups=18)
    with pytest.raises(InvalidInputError, match="tuning"):
        KernelIV(tuning="best")


@pytest.mark.slow
def test_coverage_of_bands() -> None:
    """Uniform bands of 80 draws: at least 87.7% (three binomial errors below 95%)."""
    at, covered = np.linspace(-1.9, 1.9, 30), 0
    truth = 0.3 * (at + 2) * (at - 1) + 1
    for seed in range(80):
        model = KernelIV(n_bootstrap=100).fit(*people(3000, seed))
        band = model.effect(at, interval="uniform")
        covered += bool(np.all((band.lower < truth) & (truth < band.upper)))
    assert covered / 80 > 0.877


def test_units_of_covariates_do_not_matter() -> None:
    """The obvious wrong ridge is relative to the trace, which large covariates decide."""
    rng = np.random.default_rng(3)
    z, x, y = people(600, 3)
    c = rng.normal(size=(600, 2))
    at = np.linspace(-1, 1, 5)
    options = {"n_landmarks": 15, "n_groups": 16, "n_bootstrap": 50}
    plain = KernelIV(**options).fit(z, x, y + c[:, 0], c)
    other = KernelIV(**options).fit(z, x, y + c[:, 0], c * [1e6, 1e-4] + [1e7, 0.0])
    one, two = (fitted.effect(at, interval="pointwise") for fitted in (plain, other))
    np.testing.assert_allclose(two.estimate, one.estimate, atol=1e-6)
    np.testing.assert_allclose(two.upper, one.upper, atol=1e-6)
    same = plain.effect_conditional(at, [1.0, 2.0])
    moved = other.effect_conditional(at, [1e6 + 1e7, 2e-4])
    np.testing.assert_allclose(moved, same, atol=1e-6)
