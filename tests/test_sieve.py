"""SieveIV: sums over rows, equations, ladder, weak instruments, diagnostics, effects, files."""

from __future__ import annotations

import numpy as np
import pytest
import sieve_reference as reference
from scipy import stats
from sieve_golden import scenario

from mrfast import _core, nonlinear
from mrfast.errors import InvalidInputError, MrfastWarning
from mrfast.nonlinear import SieveIV
from mrfast.nonlinear.anderson_rubin import line_region
from mrfast.nonlinear.iv_data import iv_data
from mrfast.nonlinear.sieve_fit import fit_level
from mrfast.nonlinear.sieve_iv import line_between
from mrfast.nonlinear.sieve_rows import first_stage
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints


def people(n=3000, seed=0, q=2):
    """Confounded by u and by covariates, which also act on the outcome; families of three."""
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((n, q)) + np.arange(q)
    family = rng.permutation(np.repeat(np.arange(-(-n // 3)), 3)[:n])
    shared = rng.standard_normal(n)[family]
    z, u = rng.standard_normal(n), 0.6 * rng.standard_normal(n) + 0.8 * shared
    x = 0.8 * z + 0.5 * c.sum(axis=1) + u + rng.standard_normal(n)
    y = 0.1 * x**2 + c[:, 0] - 0.7 * u + rng.standard_normal(n)
    return {
        "instruments": z,
        "exposure": x,
        "outcome": y,
        "covariates": c,
        "sample_weight": rng.uniform(0.3, 2.0, n),
        "clusters": family,
    }


# ------------------------------------------------------------------------ sums over rows


def rows_and_columns(kind, *, n=700, q=2, weighted=True, seed=1):
    """The kernel's rows and the same columns as matrices: model, instrument, outcome, weight."""
    rng = np.random.default_rng(seed)
    x, y, v, pi = rng.standard_normal((4, n))
    z = rng.integers(0, 3, n) * 1.0 if kind == "levels" else rng.standard_normal(n)
    c = rng.standard_normal((n, q)) if q else None
    w = rng.uniform(0.2, 2.0, n) if weighted else None
    splines = {
        name: BSpline(quantile_breakpoints(values, k))
        for name, values, k in (("x", x, 11), ("v", v, 9), ("pi", pi, 8), ("z", z, 7))
    }
    pairs = {name: (spline.breakpoints, spline.pieces) for name, spline in splines.items()}
    columns = [(1, 0), (2, 1), (1, 4), (3, 0)]
    rows = _core.sieve.SieveRows(
        exposure=x,
        instrument=z,
        basis=kind,
        basis_spline=pairs["z"] if kind == "spline" else None,
        levels=np.unique(z) if kind == "levels" else None,
        covariates=c,
        weight=w,
        outcome=y,
        exposure_spline=pairs["x"],
        residual=v,
        residual_spline=pairs["v"],
        prediction=pi,
        prediction_spline=pairs["pi"],
        interactions=columns,
    )
    basis = {
        "spline": lambda: splines["z"].values(z),
        "levels": lambda: (z[:, None] == np.unique(z)) * 1.0,
        "powers": lambda: np.column_stack([np.ones(n), z, z**2]),
    }[kind]()
    g = [pi, pi**2 - 1, *splines["pi"].values(pi).T]
    others = np.empty((n, 0)) if c is None else c
    mixed = np.column_stack([v**power * g[function] for power, function in columns])
    slopes = np.column_stack([p * v ** (p - 1) * g[function] for p, function in columns])
    model = np.column_stack([splines["x"].values(x), others, splines["v"].values(v), mixed])
    slope = np.column_stack(
        [np.zeros((n, 11 + others.shape[1])), splines["v"].derivative(v), slopes]
    )
    weight = np.ones(n) if w is None else w
    return rows, model, np.column_stack([basis, others]), slope, (x, y, v, weight)


@pytest.mark.parametrize("kind", ["spline", "levels", "powers"])
@pytest.mark.parametrize("q", [0, 2])
def test_sums_are_those_of_dense_matrices(kind, q):
    rows, model, basis, slope, (x, y, v, w) = rows_and_columns(kind, q=q)
    close = {"rtol": 1e-10, "atol": 1e-9}
    stacked = np.column_stack([basis, x])
    found = rows.first_stage_gram(threads=1)
    np.testing.assert_allclose(found, stacked.T @ (stacked * w[:, None]), **close)
    stacked = np.column_stack([model, basis, y])
    found = rows.model_gram(threads=1)
    np.testing.assert_allclose(found, stacked.T @ (stacked * w[:, None]), **close)
    b = np.random.default_rng(2).standard_normal(model.shape[1])
    found, squares = rows.slope_sums(coefficients=b, threads=1)
    weighted = basis * (w * (slope @ b))[:, None]
    np.testing.assert_allclose(found, np.column_stack([model, basis]).T @ weighted, **close)
    np.testing.assert_allclose(squares[:-1], basis.T @ (w * v**2), **close)
    assert squares[-1] == pytest.approx(w @ v**4)
    b[11 + q :] = 0.0
    u = rows.curve_residuals(coefficients=b, threads=1)
    np.testing.assert_allclose(u, y - model @ b, **close)


@pytest.mark.parametrize("clusters", [False, True])
@pytest.mark.parametrize("q", [0, 2])
def test_influence_squares_are_those_of_dense_matrices(clusters, q):
    """With clusters, of the sums inside a cluster and not of single people."""
    rows, model, basis, _, (_, y, v, w) = rows_and_columns("spline", q=q)
    rng = np.random.default_rng(3)
    k, m = basis.shape[1], model.shape[1]
    b = rng.standard_normal(m)
    maps = [np.ascontiguousarray(rng.standard_normal((k, m))) for _ in range(3)]
    u = y - model[:, : 11 + q] @ b[: 11 + q]
    e = u - model[:, 11 + q :] @ b[11 + q :] + 0.3
    each = model * (1.7 * e)[:, None]
    each += basis * u[:, None] @ maps[0] + basis * e[:, None] @ maps[1]
    each = (each + basis * v[:, None] @ maps[2]) * w[:, None]
    order = starts = None
    if clusters:
        code = rng.integers(0, 150, len(y))
        _, code = np.unique(code, return_inverse=True)
        order = np.argsort(code, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(code))])
        each = np.stack([np.bincount(code, column) for column in each.T], axis=1)
    found = rows.influence_gram(
        coefficients=b,
        within_weight=1.7,
        offset=0.3,
        between=maps[0],
        within=maps[1],
        first_stage=maps[2],
        order=order,
        starts=starts,
        threads=1,
    )
    np.testing.assert_allclose(found, each.T @ each, rtol=1e-10, atol=1e-7)


def test_same_bits_for_any_number_of_threads():
    data = people(40_000)
    fits = [SieveIV(n_threads=k).fit(**data) for k in (1, 3)]
    x = np.linspace(-2.0, 4.0, 30)
    bands = [fit.effect(x, interval="uniform") for fit in fits]
    for name in ("estimate", "lower", "upper"):
        np.testing.assert_array_equal(getattr(bands[0], name), getattr(bands[1], name))
    assert fits[0].diagnostics_ == fits[1].diagnostics_


def test_arrays_may_be_read_only_and_strided():
    data = people(2000)
    plain = SieveIV().fit(**data)
    wide = np.zeros((2000, 2))
    wide[:, 0] = data["instruments"]
    data["instruments"] = wide[:, 0]
    for values in data.values():
        values.setflags(write=False)
    again = SieveIV().fit(**data)
    np.testing.assert_array_equal(plain.effect([0.0, 1.0]), again.effect([0.0, 1.0]))


# ------------------------------------------------------------------ against dense numpy


@pytest.mark.parametrize(
    ("used", "name"),
    [((), "A2"), (("covariates",), ""), (("sample_weight",), ""), (("clusters",), ""), (None, "")],
    ids=["scenario", "covariates", "weights", "clusters", "all"],
)
def test_dense_computation(used, name):
    """Curve and standard errors of the whole method in plain matrices, written from the definition.

    Weights that were not squared in the sandwich, or influences that were not summed inside a
    family, would give other standard errors.
    """
    if name:
        z, x, y, _ = scenario(name, 3000, 5)
        data = {"instruments": z, "exposure": x, "outcome": y}
    else:
        data = people()
        for key in ("covariates", "sample_weight", "clusters"):
            if used is not None and key not in used:
                del data[key]
    fit = SieveIV(method="cf").fit(**data)
    dense = reference.fit(
        data["instruments"],
        data["exposure"],
        data["outcome"],
        data.get("covariates"),
        weight=data.get("sample_weight"),
        clusters=data.get("clusters"),
        method="cf",
        options=reference.Options.released(3000),
    )
    points = np.linspace(*fit.exposure_central_, 25)
    estimate, errors = dense.chosen.values(points)
    assert np.abs(fit.effect(points) - estimate).max() < 0.03 * errors.min()
    found = fit.curve_.standard_errors(fit.curve_.basis(points, None))
    np.testing.assert_allclose(found, errors, rtol=0.01)
    assert fit.diagnostics_["first_stage_r_squared"] == pytest.approx(dense.chosen.stage.R2)
    band = fit.effect(points, interval="uniform")
    factor = ((band.upper - band.estimate) / found).mean()
    assert factor == pytest.approx(dense.critical_value, rel=0.05)


def test_penalties_differ_in_what_is_free():
    """2c and third derivative leave quadratics alone, the second derivative does not."""
    z, x, y, f = scenario("poster_h0.5", 4000, 2)
    points = np.linspace(-1.9, 1.9, 50)
    worst = {
        penalty: np.abs(SieveIV(penalty=penalty).fit(z, x, y).effect(points) - f(points)).max()
        for penalty in ("2c", 2, 3)
    }
    assert all(value < 0.25 for value in worst.values())
    stage = first_stage(iv_data(z, x, y), z.sum(axis=1) * 1.0)
    free = {penalty: fit_level(stage, 0, penalty=penalty) for penalty in ("2c", 2, 3)}
    # A prior that charges curvature needs a rougher curve for the same parabola.
    assert free[2].tau_mean > 3 * free["2c"].tau_mean


# ------------------------------------------------------------------------------ ladder


def test_confounding_is_removed_where_regression_is_wrong():
    """A regression spline of y on x would be off by far more than the band."""
    z, x, y, f = scenario("A2", 5000, 2)
    fit = SieveIV().fit(z, x, y)
    points = np.linspace(*fit.exposure_central_, 50)
    band = fit.effect(points, interval="uniform")
    assert ((band.lower < f(points)) & (f(points) < band.upper)).all()
    naive = np.polyval(np.polyfit(x, y, 3), points)
    assert (naive > band.upper).any()


def test_ladder_leaves_a_contradicted_control_function():
    """Variance of the effect of z changes with u: level 0 is wrong, and the test sees it."""
    z, x, y, f = scenario("E2", 8000, 4)
    auto, plain = SieveIV().fit(z, x, y), SieveIV(method="cf").fit(z, x, y)
    p = auto.diagnostics_["specification_p_values"]
    assert p["level_0"] < 1e-6
    assert auto.diagnostics_["model"] in ("level 1", "level 2", "npiv")
    assert "contradict" in auto.messages_[0]
    assert "method='auto'" in plain.messages_[0]
    points = np.linspace(*auto.exposure_central_, 50)
    error = [np.mean((fit.effect(points) - f(points)) ** 2) for fit in (auto, plain)]
    assert error[0] < 0.3 * error[1]
    npiv = SieveIV(method="npiv").fit(z, x, y)
    assert npiv.diagnostics_["model"] == "npiv"
    assert any("between equation alone" in message for message in npiv.messages_)
    kept = np.array(auto.diagnostics_["npiv_curve"])
    beside = npiv.effect(auto.diagnostics_["compared_exposure"])
    assert np.abs(kept - beside).max() < 0.5


def test_forced_interactions():
    z, x, y, _ = scenario("A2", 3000, 6)
    fit = SieveIV(method="gcf").fit(z, x, y)
    assert fit.diagnostics_["model"] in ("level 1", "level 2")
    assert set(fit.diagnostics_["specification_p_values"]) >= {"level_0", "level_1"}


def test_fewer_functions_of_a_weak_instrument():
    strong, weak = (
        first_stage(iv_data(z, x, y), z[:, 0])
        for z, x, y, _ in (scenario("A2", 10_000, 1), scenario("A2", 1500, 1))
    )
    assert strong.functions == 12
    assert weak.functions in (3, 5)
    assert 1500 * weak.r_squared / (weak.functions - 1) >= 20 or weak.functions == 3


@pytest.mark.parametrize("levels", [2, 3, 10])
def test_discrete_instruments_have_one_function_a_value(levels):
    rng = np.random.default_rng(levels)
    z = rng.integers(0, levels, 4000)
    u = rng.standard_normal(4000)
    x = 2.0 * z / levels + u + rng.standard_normal(4000)
    y = 0.5 * x - u + rng.standard_normal(4000)
    fit = SieveIV().fit(z.astype(np.int8), x, y)
    assert fit.diagnostics_["first_stage_functions"] == levels
    assert fit.ate(0.0, 1.0) == pytest.approx(0.5, abs=0.25)


def test_rounded_exposure():
    z, x, y, f = scenario("A2", 5000, 7)
    fit = SieveIV().fit(z, np.round(x), y)
    assert fit.effect(0.0) == pytest.approx(f(0.0), abs=0.35)


# -------------------------------------------------------------------------- diagnostics


def test_tests_of_no_effect_and_of_a_line():
    z, x, y, _ = scenario("A1", 8000, 8)
    null = SieveIV().fit(z, x, y).diagnostics_
    line = SieveIV().fit(z, x, y + x).diagnostics_
    curved = SieveIV().fit(z, x, y + 0.3 * x**2).diagnostics_
    assert null["no_effect_p_value"] > 0.05
    assert not null["band_excludes_every_line"]
    assert line["no_effect_p_value"] < 0.002 < 0.05 < line["linearity_p_value"]
    assert curved["linearity_p_value"] < 0.002
    assert curved["band_excludes_every_line"]


def test_line_between_is_a_linear_programme():
    from scipy.optimize import linprog

    rng = np.random.default_rng(9)
    seen = set()
    for _ in range(40):
        x = np.sort(rng.uniform(0, 1, 25))
        middle = np.cumsum(rng.standard_normal(25)) * 0.2
        lower = middle - rng.uniform(0.1, 1.4)
        upper = middle + rng.uniform(0.1, 1.4)
        rows = np.column_stack([np.ones(25), x])
        bounds = [(None, None)] * 2
        found = linprog([0, 0], np.r_[rows, -rows], np.r_[upper, -lower], bounds=bounds)
        assert line_between(x, lower, upper) == (found.status == 0)
        seen.add(found.status == 0)
    assert seen == {True, False}


def test_single_variants_with_direct_effects_are_seen():
    """n R2 of the residual on the instruments given their score; 19 degrees of freedom for 20."""
    g, x, y, _ = scenario("poster_h0.5", 3000, 11)
    valid = SieveIV(method="cf").fit(g, x, y).diagnostics_
    direct = SieveIV(method="cf").fit(g, x, y + 0.3 * g[:, 0]).diagnostics_
    assert valid["overidentification_degrees_of_freedom"] == 19
    assert valid["overidentification_p_value"] > 0.01
    assert direct["overidentification_p_value"] < 1e-4
    score = SieveIV().fit(g.sum(axis=1), x, y).diagnostics_
    assert "overidentification_p_value" not in score


def test_heteroscedastic_residual_is_told_and_does_not_move_the_ladder():
    rng = np.random.default_rng(12)
    z, u, e = rng.standard_normal((3, 6000))
    x = z + np.exp(0.4 * z) * e + u
    y = 0.1 * x**2 + rng.standard_normal(6000)
    found = SieveIV().fit(z, x, y).diagnostics_
    assert found["residual_heteroscedasticity_p_value"] < 1e-6
    assert found["model"] == "level 0"


def test_posterior_of_tau_is_told():
    z, x, y, _ = scenario("A2", 3000, 13)
    found = SieveIV(method="cf").fit(z, x, y).diagnostics_
    weights, tau = np.array(found["tau_posterior"]), np.array(found["tau_grid"])
    assert weights.sum() == pytest.approx(1.0)
    assert found["tau"] == pytest.approx(np.exp(weights @ np.log(tau)))
    assert found["tau_posterior_at_ends"] == pytest.approx(weights[0] + weights[-1])
    assert 3.0 < found["effective_degrees_of_freedom"] < 24.0


# ----------------------------------------------------------------------------- effects


def test_derivative_is_the_numerical_one():
    z, x, y, _ = scenario("A2", 3000, 14)
    fit = SieveIV().fit(z, x, y)
    at, h = np.linspace(-2.0, 2.0, 9).reshape(3, 3), 1e-5
    numerical = (fit.effect(at + h) - fit.effect(at - h)) / (2 * h)
    np.testing.assert_allclose(fit.derivative(at), numerical, atol=1e-6)
    curve = fit.derivative(at, interval="uniform")
    point = fit.derivative(at, interval="pointwise")
    assert curve.estimate.shape == (3, 3)
    assert (curve.upper - curve.lower > point.upper - point.lower).all()
    assert "dx" in curve.method
    contrast = fit.ate(at - h, at + h, interval="pointwise")
    errors = (contrast.upper - contrast.lower) / (2 * h)
    np.testing.assert_allclose(point.upper - point.lower, errors, rtol=1e-4)


def test_covariates_shift_the_curve():
    """The average curve is that of mean covariates, which the regression without them misses."""
    data = people(8000, q=1)
    fit = SieveIV().fit(**data)
    c = np.average(data["covariates"][:, 0], weights=data["sample_weight"])
    x = np.linspace(-2.0, 3.0, 7)
    np.testing.assert_allclose(fit.effect_conditional(x, [c]), fit.effect(x), atol=1e-10)
    assert fit.effect_conditional(1.0, [c + 1]) - fit.effect(1.0) == pytest.approx(1.0, abs=0.2)
    truth = 0.1 * x**2 + c
    band = fit.effect(x, interval="uniform", level=0.999)
    assert ((band.lower < truth) & (truth < band.upper)).all()
    limits = fit.effect_conditional(1.0, [c + 2], interval="pointwise")
    assert limits.upper - limits.lower > band.upper[4] - band.lower[4] - 1.0


def test_splines_of_covariates(tmp_path):
    """A confounder that acts by its square: lines of it leave the confounding."""
    rng = np.random.default_rng(22)
    z, c, u, e, noise = rng.standard_normal((5, 5000))
    z = z + 0.6 * c**2  # the instrument depends on it, too
    x = 0.7 * z + c**2 + u + e
    y = 0.3 * x + 1.5 * c**2 - u + noise
    covariates = np.column_stack([c, rng.integers(0, 2, 5000)])
    fits = [
        SieveIV(covariate_form=form, n_draws=200).fit(z, x, y, covariates)
        for form in ("linear", "splines")
    ]
    linear, splines = (fit.ate(0.0, 1.0) for fit in fits)
    assert splines == pytest.approx(0.3, abs=0.08)
    assert linear > 0.45
    moved = fits[1].effect_conditional(1.0, [[1.5, 0], [0.0, 0]])
    assert moved[0] - moved[1] == pytest.approx(1.5 * 1.5**2, abs=0.3)
    fits[1].save(tmp_path)
    again = nonlinear.load(tmp_path).effect_conditional(1.0, [[1.5, 0], [0.0, 0]])
    np.testing.assert_array_equal(again, moved)
    with pytest.raises(InvalidInputError, match="covariate_form: expected 'linear' with"):
        SieveIV(covariate_form="splines", method="2sls").fit(z, x, y, covariates)


def test_bands_of_other_rows_and_levels():
    fit = SieveIV(n_draws=500).fit(**people(2000))
    x = np.linspace(-1.0, 2.0, 5)
    widths = [
        np.ptp([c.lower, c.upper], axis=0).max()
        for c in (fit.effect(x, interval="uniform", level=level) for level in (0.5, 0.9, 0.99))
    ]
    assert widths[0] < widths[1] < widths[2]


def test_save_and_load(tmp_path):
    fit = SieveIV(n_draws=300).fit(**people(1500))
    fit.save(tmp_path)
    again = nonlinear.load(tmp_path)
    x = np.linspace(-5.0, 9.0, 12)
    for interval in ("pointwise", "uniform"):
        old, new = (f.effect(x, interval=interval) for f in (fit, again))
        np.testing.assert_array_equal(old.lower, new.lower)
    assert again.get_params() == fit.get_params()
    np.testing.assert_array_equal(again.derivative(x), fit.derivative(x))
    assert "first stage f" in str(again.summary())


def test_seed_gives_the_same_draws_and_leaves_numpy_alone():
    data = people(1500)
    before = np.random.get_state()  # noqa: NPY002
    first, second, other = (SieveIV(rng=seed).fit(**data) for seed in (1, 1, 2))
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[1], after[1])
    assert np.array_equal(first.curve_.draws, second.curve_.draws)
    assert not np.array_equal(first.curve_.draws, other.curve_.draws)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method: expected one of 'auto'"),
        ({"penalty": 4}, "penalty: expected '2c', 2 or 3"),
        ({"alpha_spec": 2}, "alpha_spec: expected a number at most 1"),
        ({"level": 1.0}, "level: expected a number below 1"),
        ({"n_draws": 5}, "n_draws: expected a number at least 100"),
        ({"folds": 1}, "folds: expected a number at least 2"),
        ({"rng": -1}, "rng: expected a number at least 0"),
        ({"outcome": "count"}, "outcome: expected one of"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InvalidInputError, match=message):
        SieveIV(**options)


def binary(n=3000, seed=19):
    rng = np.random.default_rng(seed)
    z, u, e, noise = rng.standard_normal((4, n))
    x = 0.7 * z + 0.5 * u + e
    return z, x, (0.6 * x + 0.5 * u + noise > 0.3) * 1.0


def test_ratios_of_a_binary_outcome():
    fit = SieveIV(n_draws=500).fit(*binary())
    risks = fit.effect([0.0, 1.0])
    assert ((risks > 0) & (risks < 1)).all()
    assert fit.risk_ratio(0.0, 1.0) == pytest.approx(risks[1] / risks[0])
    odds = risks / (1 - risks)
    assert fit.odds_ratio(0.0, 1.0) == pytest.approx(odds[1] / odds[0])
    for interval in ("pointwise", "uniform"):
        ratio = fit.risk_ratio(0.0, [0.5, 1.0], interval=interval)
        assert (ratio.lower < ratio.estimate).all()
        assert (ratio.estimate < ratio.upper).all()
        assert interval in ratio.method
    with pytest.raises(InvalidInputError, match="x1: expected a shape"):
        fit.risk_ratio([0.0, 1.0], [0.0, 1.0, 2.0])
    continuous = SieveIV(n_draws=100).fit(**people(500))
    with pytest.raises(InvalidInputError, match="risk_ratio: expected a fit of a binary outcome"):
        continuous.risk_ratio(0.0, 1.0)


@pytest.mark.parametrize("method", ["2sls", "lace", "npiv-cck", "series-cf"])
def test_other_methods(method):
    """The same line by other estimators."""
    rng = np.random.default_rng(20)
    z, u, e, noise = rng.standard_normal((4, 5000))
    x = z + 0.5 * u + 0.5 * e
    fit = SieveIV(method=method, n_draws=300).fit(z, x, 0.5 * x + u + 0.3 * noise)
    assert fit.ate(0.0, 1.0) == pytest.approx(0.5, abs=0.15)
    assert fit.get_params()["method"] == method
    band = fit.effect(np.linspace(-1.0, 1.0, 5), interval="uniform")
    assert (band.lower < band.upper).all()


def test_curves_that_covariates_modify():
    data = people(4000)
    data["outcome"] = data["outcome"] + 0.5 * data["covariates"][:, 1] * data["exposure"]
    fit = SieveIV(effect_modifiers=[1], n_draws=300).fit(**data)
    low, high = fit.cate(0.0, 1.0, [[0.0, 0.0], [0.0, 2.0]])
    assert high - low == pytest.approx(1.0, abs=0.4)


def test_a_jump_is_warned_of():
    rng = np.random.default_rng(21)
    z, u, e, noise = rng.standard_normal((4, 10_000))
    x = z + 0.5 * u + 0.5 * e
    fit = SieveIV().fit(z, x, 2.0 * (x > 0) + u + 0.3 * noise)
    assert any("jump" in message for message in fit.messages_)


def test_binary_outcome_must_be_one():
    data = people(500)
    with pytest.raises(InvalidInputError, match="outcome: expected zeros and ones"):
        SieveIV(outcome="binary").fit(**data)


# --------------------------------------------------------------------- weak instruments


def weak(n=2000, slope=0.04, seed=15):
    rng = np.random.default_rng(seed)
    z, u = rng.standard_normal((2, n))
    x = slope * z + u + rng.standard_normal(n)
    return z, x, 0.5 * x + u + rng.standard_normal(n)


def test_no_curve_with_a_very_weak_instrument(tmp_path):
    z, x, y = weak()
    with pytest.warns(MrfastWarning, match="no curve is estimated"):
        fit = SieveIV().fit(z, x, y)
    found = fit.diagnostics_
    assert found["model"] == "line"
    assert found["first_stage_f"] < 10
    slope = np.cov(z, y)[0, 1] / np.cov(z, x)[0, 1]
    assert fit.ate(0.0, 1.0) == pytest.approx(slope)
    band = fit.effect(np.array([-1.0, 1.0]), interval="uniform")
    assert "Anderson-Rubin region" in band.method
    if found["anderson_rubin_set"] == "interval":
        assert np.isfinite(band.upper).all()
    else:
        assert np.isinf(band.upper).all()
    fit.save(tmp_path)
    again = nonlinear.load(tmp_path)
    np.testing.assert_array_equal(again.effect([1.0], interval="uniform").upper, band.upper[1:])
    with pytest.raises(InvalidInputError, match="derivative: expected a fit of a curve"):
        fit.derivative(0.0)


@pytest.mark.parametrize("kind", ["binary", "modified"])
def test_a_line_stands_in_for_every_weak_curve(kind):
    """A binary outcome gets a linear probability model, a modified curve a line for everybody."""
    z, x, y = weak()
    c = np.random.default_rng(1).standard_normal(len(z))
    if kind == "binary":
        y = (y > 0).astype(float)
    modifiers = [0] if kind == "modified" else None
    words = {"binary": "linear probability", "modified": "modifiers do not change it"}[kind]
    with pytest.warns(MrfastWarning, match=words):
        fit = SieveIV(effect_modifiers=modifiers).fit(z, x, y, c)
    assert fit.diagnostics_["model"] == "line"
    others = np.column_stack([np.ones(len(z)), c])
    z = z - others @ np.linalg.lstsq(others, z, rcond=None)[0]
    assert fit.ate(0.0, 1.0) == pytest.approx((z @ y) / (z @ x))


@pytest.mark.parametrize("modifiers", [None, [0]])
def test_people_entered_several_times_add_no_strength(modifiers):
    """F by clusters: a regression on indicators, and sums of scores by cluster.

    Wrong: the F of the table's rows, four times too large.
    """
    rng = np.random.default_rng(2)
    z, c = rng.integers(0, 3, 500).astype(float), rng.standard_normal(500)
    x = 0.6 * z + rng.standard_normal(500)
    y = x + rng.standard_normal(500)
    four = (np.repeat(values, 4) for values in (z, x, y, c))
    found = (
        SieveIV(effect_modifiers=modifiers, n_draws=100)
        .fit(*four, clusters=np.repeat(np.arange(500), 4))
        .diagnostics_
    )
    design = np.column_stack([z == 0, z == 1, z == 2, c]).astype(float)
    if modifiers:  # the modifier acts along a spline; enough to be near
        design = np.column_stack([design, c**2, c**3])
    inverse = np.linalg.inv(design.T @ design)
    b = inverse @ design.T @ x
    s = design * (x - design @ b)[:, None]
    contrast = np.zeros((2, len(b)))
    contrast[:, 0], contrast[0, 1], contrast[1, 2] = -1.0, 1.0, 1.0
    covariance = contrast @ inverse @ s.T @ s @ inverse @ contrast.T * 500 / 499
    effect = contrast @ b
    expected = effect @ np.linalg.solve(covariance, effect) / 2
    tolerance = 0.05 if modifiers else 1e-6
    assert found["first_stage_clustered_f"] == pytest.approx(expected, rel=tolerance)
    assert found["first_stage_f"] > 3 * expected


def test_central_range_counts_people_by_weight():
    """Wrong: quantiles of the rows, which a weight of zero does not change."""
    data = people(600)
    data["sample_weight"] = weight = np.random.default_rng(3).integers(0, 4, 600)
    fit = SieveIV(n_draws=100).fit(**data)
    repeated = np.sort(np.repeat(data["exposure"], weight))
    ends = [repeated[int(np.ceil(share * len(repeated))) - 1] for share in (0.025, 0.975)]
    assert fit.exposure_central_ == tuple(ends)
    assert fit.curve_.central == tuple(ends)


def test_unbounded_limits_without_any_strength():
    z, x, y = weak(slope=0.0, seed=16)
    with pytest.warns(MrfastWarning, match="all numbers"):
        fit = SieveIV().fit(z, x, y)
    assert np.isinf(fit.effect(np.array([1.0]), interval="uniform").upper).all()


def test_noisy_curve_is_said_to_be():
    z, x, y = weak(slope=0.14, seed=18)
    fit = SieveIV().fit(z, x, y)
    assert any("below 20" in message for message in fit.messages_)


def test_few_clusters_and_few_values_are_told():
    data = people(2000)
    data["clusters"] = data["clusters"] % 12
    assert any("12 clusters" in message for message in SieveIV().fit(**data).messages_)
    data["exposure"] = np.clip(np.round(data["exposure"]), -2, 2)
    assert any("few values" in message for message in SieveIV().fit(**data).messages_)


def test_an_exposure_that_instruments_determine():
    z, _, y = weak(500, 0.5)
    with pytest.raises(InvalidInputError, match="exposure: expected one that the instruments"):
        SieveIV().fit(z, 2 * z + 1, y)


@pytest.mark.parametrize("clusters", [False, True])
def test_anderson_rubin_set_inverts_the_test(clusters):
    """Robust score test of Cov(z, y - b x) = 0 at each slope, not the estimate +- 1.96 errors."""
    rng = np.random.default_rng(17)
    data = people(900, seed=17)
    z, x, y, c = (data[key] for key in ("instruments", "exposure", "outcome", "covariates"))
    code = data["clusters"] if clusters else None
    region = line_region(z, x, y, c, clusters=code)
    kind, (low, high) = region.slope_set(0.95)
    assert kind == "interval"
    others = np.column_stack([np.ones(900), c])

    def statistic(b):
        left = [a - others @ np.linalg.lstsq(others, a, rcond=None)[0] for a in (z, y - b * x)]
        g = left[0] * left[1]
        if clusters:
            g = np.bincount(code, g)
        return g.sum() ** 2 / np.sum((g - g.mean()) ** 2)

    for b in rng.uniform(2 * low - high, 2 * high - low, 50):
        assert (low <= b <= high) == (statistic(b) <= stats.chi2.ppf(0.95, 1))
    for end in (low, high):
        assert statistic(end) == pytest.approx(stats.chi2.ppf(0.95, 1), rel=1e-9)


def test_line_region_covers_its_own_estimate():
    z, x, y = weak(slope=0.5)
    region = line_region(z, x, y)
    at = np.linspace(-3.0, 3.0, 7)
    lower, upper = region.limits(0.95, at, None, None)
    assert (lower < region.line(at, None)).all()
    assert (region.line(at, None) < upper).all()
    ends = region.slope_set(0.95)[1]
    contrast = region.limits(0.95, at + 1, None, at)
    np.testing.assert_allclose(contrast[0], ends[0])
    np.testing.assert_allclose(contrast[1], ends[1])


# ----------------------------------------------------------------------------- coverage


@pytest.mark.slow
def test_uniform_bands_cover_the_whole_curve():
    """200 data sets; 95% with a binomial error of 1.5 points."""
    covered = [0, 0]
    for seed in range(200):
        z, x, y, f = scenario("A3", 2000, 1000 + seed)
        fit = SieveIV(n_threads=1, n_draws=1000).fit(z, x, y)
        points = np.linspace(*fit.exposure_central_, 200)
        for i, kind in enumerate(("uniform", "pointwise")):
            band = fit.effect(points, interval=kind)
            covered[i] += ((band.lower <= f(points)) & (f(points) <= band.upper)).all()
    assert covered[0] >= stats.binom.ppf(0.005, 200, 0.95)
    assert covered[1] < 190


@pytest.mark.slow
def test_anderson_rubin_sets_cover_with_a_weak_instrument():
    """400 data sets with F near 4, where the estimate +- 1.96 errors does not cover 95%."""
    covered = 0
    for seed in range(400):
        kind, (low, high) = line_region(*weak(1000, 0.09, seed)).slope_set(0.95)
        inside = low <= 0.5 <= high
        covered += kind == "line" or (not inside if kind == "outside" else inside)
    assert stats.binom.ppf(0.005, 400, 0.95) <= covered <= stats.binom.ppf(0.995, 400, 0.95)
