"""The kernel's passes and Newton's method, against long-double arithmetic in plain numpy."""

from __future__ import annotations

import math

import logistic_reference as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrfast._core import federated as kernel
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.federated.logistic import LogisticModel, site_nodes

BETA = np.array([-2.0, -0.4, 0.0, 0.3, 1.7])


def rows_of(y, x, s, *, weights=None, offset=None, threads=2):
    k = x.shape[1]
    return kernel.LogisticRows(
        outcome=y,
        covariates=x,
        exposure=s,
        centre=np.zeros(k + 1),
        scale=np.ones(k + 1),
        weights=weights,
        offset=offset,
        threads=threads,
    )


def one_pass(rows, coefficients, **given):
    options = {
        "information": True,
        "plain": False,
        "dosages": None,
        "selection": [],
        "centre": np.empty(0),
        "scale": np.empty(0),
        "threads": 2,
    }
    return rows.evaluate(np.ascontiguousarray(coefficients), **(options | given))


# -------------------------------------------------------------------------- one pass


@pytest.mark.parametrize("n", [1, 7, 8, 255, 256, 257, 1000, 20_001])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_one_pass(n: int, weighted: bool, shifted: bool) -> None:
    rng = np.random.default_rng(n)
    y, x, s = rng.integers(0, 2, n).astype(float), rng.normal(size=(n, 5)), rng.normal(size=n)
    w = rng.uniform(0, 3, n) if weighted else None
    o = rng.normal(size=n) if shifted else None
    c = rng.normal(size=(3, 7))
    value, gradient, information = one_pass(rows_of(y, x, s, weights=w, offset=o), c)
    design = np.column_stack([np.ones(n), x, s])
    for i in range(3):
        eta = design @ c[i] + (0 if o is None else o)
        mean = 1 / (1 + np.exp(-eta))
        weight = np.ones(n) if w is None else w
        exact = float(reference.log_likelihood(y, eta, weight))
        assert value[i] == pytest.approx(exact, rel=1e-13, abs=1e-12)
        np.testing.assert_allclose(gradient[i], design.T @ (weight * (y - mean)), atol=1e-9)
        matrix = (design.T * (weight * mean * (1 - mean))) @ design
        np.testing.assert_allclose(information[i], matrix, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("eta", [-800.0, -40.0, -30.0, -1e-9, 0.0, 1e-9, 30.0, 40.0, 800.0])
def test_log_likelihood_far_out(eta: float) -> None:
    """log(1 + exp(eta)) as written overflows, and loses a case's 1e-18 to cancellation."""
    for y in (0.0, 1.0):
        n = 16
        rows = rows_of(np.full(n, y), np.zeros((n, 0)), np.ones(n))
        value, gradient, _ = one_pass(rows, [[0.0, eta]])
        exact = float(reference.log_likelihood(np.full(n, y), np.full(n, eta)))
        assert value[0] == pytest.approx(exact, rel=1e-14, abs=n * 2.3e-16)
        residual = y - 1 / (1 + np.exp(-np.longdouble(eta)))
        if abs(eta) <= 40:  # relative precision of the residual where it is tiny
            small = 1 / (1 + np.exp(abs(np.longdouble(eta))))
            expected = n * (residual if abs(residual) > 0.5 else math.copysign(small, residual))
            assert gradient[0, 0] == pytest.approx(float(expected), rel=1e-13)


def test_sum_of_many_rows_keeps_its_digits() -> None:
    """At 50,000 rows the log likelihood is within 1e-10 of long double arithmetic."""
    y, s, x = reference.cohort(50_000, 10, seed=3)
    c = np.full((1, 12), 0.1)
    value = one_pass(rows_of(y, x, s), c)[0][0]
    eta = np.column_stack([np.ones(len(y)), x, s]).astype(np.longdouble) @ c[0]
    assert abs(value - float(reference.log_likelihood(y, eta))) < 1e-10


def test_same_bits_for_any_number_of_threads() -> None:
    y, s, x = reference.cohort(30_000, 4, seed=2)
    c = np.random.default_rng(1).normal(size=(5, 6))
    found = [one_pass(rows_of(y, x, s, threads=t), c, threads=t) for t in (1, 2, 3, 7)]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert np.array_equal(a, b)
    profiles = [LogisticModel(y, s, x, n_threads=t).nodes(-1, 1) for t in (1, 2, 3)]
    for other in profiles[1:]:
        assert np.array_equal(profiles[0].values, other.values)
        assert np.array_equal(profiles[0].node_information, other.node_information)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8])
def test_types_and_strides(dtype: type) -> None:
    rng = np.random.default_rng(5)
    wide = rng.integers(0, 3, (600, 12)).astype(dtype)
    y = rng.integers(0, 2, 600).astype(float)
    views = [wide[:, :6], np.asfortranarray(wide[:, :6]), wide[:, ::-1][:, 6:][:, ::-1]]
    views[0].flags.writeable = False
    c = rng.normal(size=(2, 7)) * 0.1
    found = [one_pass(rows_of(y, v[:, :5], v[:, 5]), c) for v in views]
    for other in found[1:]:
        assert np.array_equal(found[0][0], other[0])
        assert np.array_equal(found[0][2], other[2])
    again = wide[::2, :6].astype(float)
    strided = one_pass(rows_of(y[::2], wide[::2, :5], wide[::2, 5]), c)
    plain = one_pass(rows_of(y[::2].copy(), again[:, :5].copy(), again[:, 5].copy()), c)
    assert np.array_equal(strided[0], plain[0])


def test_own_exposures_leave_missing_rows_out() -> None:
    rng = np.random.default_rng(6)
    n = 700
    y, x = rng.integers(0, 2, n).astype(float), rng.normal(size=(n, 2))
    g = rng.integers(0, 3, (n, 2)).astype(np.int8)
    g[rng.random((n, 2)) < 0.1] = -1
    c = rng.normal(size=(2, 4))
    rows = kernel.LogisticRows(
        outcome=y,
        covariates=x,
        exposure=None,
        centre=np.zeros(2),
        scale=np.ones(2),
        weights=None,
        offset=None,
        threads=2,
    )
    centre, scale = np.array([0.5, 0.0]), np.array([2.0, 1.0])
    for dosages in (g, np.where(g < 0, np.nan, g), np.where(g < 0, np.nan, g).astype(np.float32)):
        value, gradient, information = one_pass(
            rows, c, dosages=dosages, selection=[0, 1], centre=centre, scale=scale
        )
        for j in range(2):
            known = g[:, j] >= 0
            e = (g[known, j] - centre[j]) * scale[j]
            alone = one_pass(rows_of(y[known], x[known], e), c[j : j + 1])
            assert value[j] == pytest.approx(alone[0][0], rel=1e-13)
            np.testing.assert_allclose(gradient[j], alone[1][0], atol=1e-11)
            np.testing.assert_allclose(information[j], alone[2][0], rtol=1e-12)


# ------------------------------------------------------------------- fit and profile


@pytest.mark.parametrize("p", [0, 1, 3, 8])
def test_full_fit(p: int) -> None:
    y, s, x = reference.cohort(900, p, seed=p)
    fit = LogisticModel(y, s, x).fit()
    design = np.column_stack([np.ones(len(y)), x, s])
    value, c, information = reference.maximise(y, design)
    assert fit.log_likelihood == pytest.approx(float(value), abs=1e-11)
    assert fit.beta == pytest.approx(float(c[-1]), abs=1e-12)
    np.testing.assert_allclose(fit.nuisance, c[:-1].astype(float), atol=1e-11)
    variance = np.linalg.inv(information.astype(float))[-1, -1]
    assert fit.std_error == pytest.approx(math.sqrt(variance), rel=1e-10)
    assert fit.separation is None
    assert fit.monotone == 0


@pytest.mark.parametrize("case", ["plain", "weights", "offset", "prior", "all"])
def test_profile(case: str) -> None:
    """The profile's slope is that of the maximised likelihood: the derivative at fixed nuisance
    coefficients (which agrees at the maximum only) gives another information."""
    y, s, x = reference.cohort(600, 3, seed=11)
    rng = np.random.default_rng(12)
    given = {}
    if case in ("weights", "all"):
        given["weights"] = rng.uniform(0, 2, len(y))
    if case in ("offset", "all"):
        given["offset"] = rng.normal(size=len(y))
    precision = np.array([0.0, 3.0, 40.0]) if case in ("prior", "all") else None
    model = LogisticModel(y, s, x, prior_precision=precision, **given)
    found = model.evaluate(BETA)
    values, scores, information, half = reference.profile(
        y, s, x, BETA, precision=precision, **given
    )
    np.testing.assert_allclose(found.values, values, atol=1e-11)
    np.testing.assert_allclose(found.scores, scores, atol=1e-10)
    np.testing.assert_allclose(found.information, information, rtol=1e-8)
    np.testing.assert_allclose(found.half_logdet, half, atol=1e-8)


def test_half_log_determinant_does_not_know_of_the_scaling_inside() -> None:
    """The information of standardised columns, as the kernel has it, is off by a constant."""
    y, s, x = reference.cohort(500, 2, seed=13)
    x = x * [100.0, 0.01] + [5000.0, 3.0]
    found = LogisticModel(y, s, x).evaluate([0.1])
    expected = reference.profile(y, s, x, [0.1])[3]
    np.testing.assert_allclose(found.half_logdet, expected, atol=1e-6)


def test_nodes() -> None:
    y, s, x = reference.cohort(2000, 3, seed=14)
    model = LogisticModel(y, s, x)
    profile = model.nodes(-3, 3)
    beta = np.linspace(-3, 3, 61)
    exact = LogisticModel(y, s, x).evaluate(beta)
    np.testing.assert_allclose(profile(beta), exact.values, atol=1e-8)
    np.testing.assert_allclose(profile.derivative(beta), exact.scores, atol=1e-7)
    np.testing.assert_allclose(profile.information(beta), exact.information, atol=1e-4)
    assert profile.anchoring_residual < 1e-9
    fewer = model.nodes(-3, 3, tolerance=1e-3)
    assert fewer.values.size < profile.values.size


def test_residual_sum_of_squares() -> None:
    """Of the exposure given intercept and covariates, not about its mean."""
    y, s, x = reference.cohort(500, 3, seed=15)
    w = np.random.default_rng(1).uniform(0, 2, 500)
    design = np.column_stack([np.ones(500), x])
    residual = s - design @ np.linalg.lstsq(design, s, rcond=None)[0]
    model = LogisticModel(y, s, x)
    assert model.residual_sum_of_squares == pytest.approx(residual @ residual, rel=1e-10)
    assert model.residual_sd == pytest.approx(residual.std(), rel=1e-10)
    root = np.sqrt(w)
    weighted = np.linalg.lstsq(design * root[:, None], s * root, rcond=None)[1][0]
    model = LogisticModel(y, s, x, weights=w)
    assert model.residual_sum_of_squares == pytest.approx(weighted, rel=1e-10)
    information = model.evaluate(np.linspace(-4, 4, 9)).information
    assert np.all(information <= weighted / 4)


def test_site_window() -> None:
    y, s, x = reference.cohort(1500, 2, seed=16)
    model = LogisticModel(y, s, x)
    fit = model.fit()
    profile = site_nodes(model, 0.2, effect_range=1.0)
    assert profile.lower == pytest.approx(min(-0.2, fit.beta - 8 * fit.std_error))
    assert profile.upper == pytest.approx(max(0.2, fit.beta + 8 * fit.std_error))
    assert site_nodes(model, -9.0).lower == pytest.approx(-9.0)


def test_site_window_with_hardly_any_information() -> None:
    """Wrong: eight standard errors at any price, which no number of nodes holds."""
    rng = np.random.default_rng(3)
    s = rng.normal(size=400)
    y = (s > 0).astype(float)
    close = np.argsort(np.abs(s))[:3]
    y[close] = 1 - y[close]
    model = LogisticModel(y, s)
    fit = model.fit()
    assert fit.std_error > 40
    profile = site_nodes(model, 0.5)
    assert profile.mle == pytest.approx(fit.beta, rel=1e-6)
    assert profile.lower == -0.5
    at = np.linspace(profile.lower, profile.upper, 7)
    np.testing.assert_allclose(profile(at), model.evaluate(at).values, rtol=0, atol=1e-8)
    with pytest.raises(ConvergenceError, match="more than 512 nodes"):
        model.nodes(fit.beta - 8 * fit.std_error, fit.beta + 8 * fit.std_error)


# ------------------------------------------------------------------------ separation


def test_monotone_profile() -> None:
    """Its supremum is a limit: the largest value on a window is below it."""
    rng = np.random.default_rng(17)
    s = np.sort(rng.normal(size=300))
    y = np.zeros(300)
    y[-5:] = 1
    model = LogisticModel(y, s)
    fit = model.fit()
    assert fit.monotone == 1
    assert fit.beta == math.inf
    assert fit.std_error == math.inf
    assert fit.log_likelihood == pytest.approx(0, abs=1e-9)
    assert "exposure separates" in str(fit.separation)
    mirrored = LogisticModel(y, -s).fit()
    assert mirrored.monotone == -1
    profile = model.nodes(-1, 1)
    assert profile.monotone == 1
    assert profile.maximum == pytest.approx(0, abs=1e-9)


def test_carriers_without_cases() -> None:
    """Quasi-separation: only the carriers are told apart; the supremum is that of the others."""
    y, _, x = reference.cohort(400, 2, seed=18)
    carrier = np.zeros(400)
    carrier[np.flatnonzero(y == 0)[:12]] = 1
    fit = LogisticModel(y, carrier, x).fit()
    others = carrier == 0
    design = np.column_stack([np.ones(400), x])[others]
    assert fit.monotone == -1
    exact = float(reference.maximise(y[others], design)[0])
    assert fit.log_likelihood == pytest.approx(exact, abs=1e-9)


def test_covariate_without_cases() -> None:
    y, s, x = reference.cohort(500, 2, seed=19)
    dummy = np.zeros(500)
    dummy[np.flatnonzero(y == 0)[:9]] = 1
    model = LogisticModel(y, s, np.column_stack([x, dummy]), names=["age", "sex", "centre"])
    fit = model.fit()
    assert fit.monotone == 0
    assert "centre" in str(fit.separation)
    assert "age" not in str(fit.separation)
    others = dummy == 0
    exact = reference.profile(y[others], s[others], x[others], BETA)
    found = model.evaluate(BETA)
    np.testing.assert_allclose(found.values, exact[0], atol=1e-9)
    np.testing.assert_allclose(found.scores, exact[1], atol=1e-8)
    np.testing.assert_allclose(found.information, exact[2], rtol=1e-7)
    np.testing.assert_allclose(found.half_logdet, exact[3], atol=1e-8)
    assert fit.nuisance[3] == -math.inf
    assert (model.n, model.aliased) == (500, ())
    profile = model.nodes(-1, 1)
    assert profile(0.25) == pytest.approx(
        reference.profile(y[others], s[others], x[others], [0.25])[0][0], abs=1e-8
    )


def test_covariates_that_separate_together() -> None:
    """The reference level of a factor without cases: its rows are told by the other levels."""
    y, s, x = reference.cohort(600, 1, seed=28)
    level = np.random.default_rng(29).integers(0, 3, 600)
    y[level == 0] = 0
    dummies = np.column_stack([level == 1, level == 2]).astype(float)
    model = LogisticModel(y, s, np.column_stack([x, dummies]), names=["age", "b", "c"])
    fit = model.fit()
    assert "b, c" in str(fit.separation)
    others = level != 0
    kept = np.column_stack([x, level == 2])[others]
    exact = reference.profile(y[others], s[others], kept, BETA)
    found = model.evaluate(BETA)
    np.testing.assert_allclose(found.values, exact[0], atol=1e-9)
    np.testing.assert_allclose(found.information, exact[2], rtol=1e-7)
    np.testing.assert_allclose(found.half_logdet, exact[3], atol=1e-7)


def test_zero_weights_leave_rows_out() -> None:
    """Also where they leave nothing of a covariate."""
    y, s, x = reference.cohort(300, 2, seed=30)
    stay = np.arange(300) >= 40
    extra = np.where(stay, 0.0, 1.0)[:, None]
    model = LogisticModel(y, s, np.column_stack([x, extra]), weights=stay.astype(float))
    assert model.aliased == ("covariate 2",)
    exact = reference.profile(y[stay], s[stay], x[stay], BETA)[0]
    np.testing.assert_allclose(model.evaluate(BETA).values, exact, atol=1e-10)


def test_complete_separation_by_a_covariate() -> None:
    """The profile is flat: nothing is known of the exposure, which is not what separates."""
    rng = np.random.default_rng(20)
    x, s = np.sort(rng.normal(size=100)), rng.normal(size=100)
    y = (x > x[70]).astype(float)
    model = LogisticModel(y, s, x[:, None], names=["age"])
    found = model.evaluate([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(found.values, 0, atol=1e-9)
    fit = model.fit()
    assert math.isnan(fit.beta)
    assert fit.std_error == math.inf
    assert fit.monotone == 0
    assert "nothing is known of the exposure" in str(fit.separation)
    profile = model.nodes(-1, 1)
    assert np.all(profile.scores == 0)
    carriers = (x > x[70]) * rng.integers(0, 2, 100)  # varies only where the covariate separates
    level = (x > x[70]).astype(float)
    y = np.where(level > 0, 1.0, rng.integers(0, 2, 100))
    flat = LogisticModel(y, carriers, level[:, None])
    value = reference.maximise(y[level == 0], np.ones((71, 1)))[0]
    np.testing.assert_allclose(flat.evaluate([-2.0, 1.0]).values, float(value), atol=1e-9)


def test_separation_by_the_exposure_and_by_a_covariate() -> None:
    y, _, x = reference.cohort(400, 1, seed=31)
    controls = np.flatnonzero(y == 0)
    carrier, dummy = np.zeros(400), np.zeros(400)
    carrier[controls[:15]] = 1
    dummy[controls[10:20]] = 1
    model = LogisticModel(y, carrier, np.column_stack([x, dummy]), names=["age", "centre"])
    fit = model.fit()
    assert fit.monotone == -1
    assert "exposure separates" in str(fit.separation)
    assert "centre" in str(fit.separation)
    others = dummy == 0
    exact = reference.profile(y[others], carrier[others], x[others], BETA)
    found = model.evaluate(BETA)
    np.testing.assert_allclose(found.values, exact[0], atol=1e-9)
    np.testing.assert_allclose(found.half_logdet, exact[3], atol=1e-7)


# --------------------------------------------------------------------------- aliasing


def test_aliased_covariates() -> None:
    y, s, x = reference.cohort(400, 3, seed=21)
    names = ["a", "b", "c", "sum", "one", "again"]
    more = np.column_stack([x, x[:, 0] + x[:, 1], np.ones(400), x[:, 2] * 3 - 1])
    model = LogisticModel(y, s, more, names=names)
    assert model.aliased == ("sum", "one", "again")
    np.testing.assert_allclose(
        model.evaluate(BETA).values, reference.profile(y, s, x, BETA)[0], atol=1e-10
    )
    nuisance = model.fit().nuisance
    assert np.isnan(nuisance).tolist() == [False, False, False, False, True, True, True]


def test_prior_keeps_collinear_covariates() -> None:
    """Two copies with variance v share the effect: as one with 2 v. Dropping one loses that."""
    y, s, x = reference.cohort(400, 1, seed=22)
    twice = LogisticModel(y, s, np.column_stack([x, x]), prior_precision=[50.0, 50.0])
    once = LogisticModel(y, s, x, prior_precision=[25.0])
    assert twice.aliased == ()
    np.testing.assert_allclose(twice.evaluate(BETA).values, once.evaluate(BETA).values, atol=1e-10)


def test_nearly_collinear_covariates() -> None:
    y, s, x = reference.cohort(500, 2, seed=23)
    close = np.column_stack([x, x[:, 0] + 1e-4 * np.random.default_rng(1).normal(size=500)])
    model = LogisticModel(y, s, close)
    assert model.aliased == ()
    exact = reference.profile(y, s, close, BETA)
    found = model.evaluate(BETA)
    np.testing.assert_allclose(found.values, exact[0], atol=1e-9)
    np.testing.assert_allclose(found.half_logdet, exact[3], atol=1e-4)
    _, c, _ = reference.maximise(y, np.column_stack([np.ones(500), close, s]))
    np.testing.assert_allclose(model.fit().nuisance, c[:-1].astype(float), rtol=1e-6)


def test_large_origin() -> None:
    """A year of birth: its square would take the digits of the rest."""
    y, s, x = reference.cohort(500, 2, seed=24)
    found = LogisticModel(y, s, x + np.array([1960.0, 1e6])).evaluate(BETA)
    exact = reference.profile(y, s, x, BETA)
    np.testing.assert_allclose(found.values, exact[0], atol=1e-9)
    np.testing.assert_allclose(found.information, exact[2], rtol=1e-8)


# ------------------------------------------------------------------------------ Firth


def firth_objective(y, design, c):
    eta = design @ c
    mean = 1 / (1 + np.exp(-eta))
    information = (design.T * (mean * (1 - mean))) @ design
    return float(reference.log_likelihood(y, eta)) + np.linalg.slogdet(information)[1] / 2


def test_firth() -> None:
    """Full information in the penalty: that of the nuisance alone gives another maximum."""
    from scipy.optimize import minimize

    y, s, x = reference.cohort(120, 2, seed=25)
    design = np.column_stack([np.ones(120), x, s])
    best = minimize(
        lambda c: -firth_objective(y, design, c), np.zeros(4), method="BFGS", options={"gtol": 1e-9}
    )
    model = LogisticModel(y, s, x, firth=True)
    fit = model.fit()
    assert fit.log_likelihood == pytest.approx(-best.fun, abs=1e-8)
    assert fit.beta == pytest.approx(best.x[-1], abs=1e-5)
    for b in (-0.5, 0.8):
        constrained = minimize(
            lambda c, b=b: -firth_objective(y, design, np.append(c, b)), np.zeros(3), method="BFGS"
        )
        found = model.evaluate([b - 1e-4, b, b + 1e-4])
        assert found.values[1] == pytest.approx(-constrained.fun, abs=1e-7)
        slope = (found.values[2] - found.values[0]) / 2e-4
        assert found.scores[1] == pytest.approx(slope, rel=1e-5, abs=1e-5)


def test_firth_is_finite_where_the_exposure_separates() -> None:
    s = np.arange(20.0)
    y = (s > 14).astype(float)
    fit = LogisticModel(y, s, firth=True).fit()
    assert fit.monotone == 0
    assert math.isfinite(fit.beta)
    assert fit.separation is None


# ------------------------------------------------------------------------- properties


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_symmetries(seed: int, factor: float) -> None:
    """Recoding or scaling the exposure, permuting the rows, shifting the offset."""
    y, s, x = reference.cohort(300, 2, seed=seed)
    if not 0 < y.sum() < 300:
        return
    beta = np.array([-0.6, 0.0, 0.9])
    plain = LogisticModel(y, s, x).evaluate(beta)
    recoded = LogisticModel(y, -factor * s, x).evaluate(-beta / factor)
    np.testing.assert_allclose(recoded.values, plain.values, atol=1e-9)
    np.testing.assert_allclose(recoded.scores, -factor * plain.scores, atol=1e-8 * factor)
    order = np.random.default_rng(seed).permutation(300)
    permuted = LogisticModel(y[order], s[order], x[order]).evaluate(beta)
    np.testing.assert_allclose(permuted.values, plain.values, atol=1e-9)
    shifted = LogisticModel(y, s, x, offset=0.3 * s + 1.0).evaluate(beta - 0.3)
    np.testing.assert_allclose(shifted.values, plain.values, atol=1e-9)
    swapped = LogisticModel(1 - y, s, x).evaluate(-beta)
    np.testing.assert_allclose(swapped.values, plain.values, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_weights_are_repeated_rows(seed: int) -> None:
    y, s, x = reference.cohort(200, 2, seed=seed)
    times = np.random.default_rng(seed).integers(0, 4, 200)
    if not 0 < y[times > 0].sum() < (times > 0).sum():
        return
    weighted = LogisticModel(y, s, x, weights=times)
    repeated = LogisticModel(*(np.repeat(a, times, axis=0) for a in (y, s, x)))
    beta = [-0.5, 0.7]
    a, b = weighted.evaluate(beta), repeated.evaluate(beta)
    np.testing.assert_allclose(a.values, b.values, atol=1e-9)
    np.testing.assert_allclose(a.information, b.information, rtol=1e-7, atol=1e-9)
    assert weighted.n == int((times > 0).sum())


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": [0, 1, 2, 0, 1, 0]}, r"outcome: expected 0 and 1.*2\.0 at outcome\[2\]"),
        ({"outcome": [0.0] * 6}, "outcome: expected cases and controls, received no cases"),
        ({"outcome": [1.0] * 6}, "received no controls"),
        ({"outcome": [0.0, 1.0, np.nan, 0, 1, 0]}, "nan at outcome"),
        ({"outcome": ["a"] * 6}, "outcome: expected 0 and 1"),
        ({"outcome": []}, "at least one row"),
        ({"exposure": [1.0] * 6}, "exposure: expected values that vary, received a constant"),
        ({"exposure": [1.0, 2, 3]}, r"exposure: expected shape \(6,\)"),
        ({"exposure": [1, 2, 3, np.nan, 5, 6]}, r"nan at exposure\[3\]"),
        ({"exposure": [1, 2, 3, np.inf, 5, 6]}, "exposure: expected finite numbers"),
        ({"covariates": np.ones((5, 1))}, r"covariates: expected shape \(6, 1\)"),
        ({"covariates": np.ones(6)}, "covariates: expected 2 dimensions"),
        ({"covariates": np.full((6, 1), np.nan)}, r"nan at covariates\[0, 0\]"),
        ({"covariates": np.arange(6.0)[:, None] * 2}, "vary given the covariates"),
        ({"weights": [1, 1, 1, 1, 1, -1]}, "weights: expected numbers at least 0"),
        ({"weights": [0, 1, 0, 0, 1, 0]}, "no controls"),
        ({"prior_precision": [1.0]}, "prior_precision: expected shape"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"outcome": [0, 1, 0, 0, 1, 0], "exposure": np.arange(6.0)}
    with pytest.raises(InvalidInputError, match=message):
        LogisticModel(**(given | change))  # type: ignore[arg-type]
