from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from summary_golden import DATA_SETS, arrays, expected, functions

from mrfast import _core
from mrfast.errors import InvalidInputError
from mrfast.summary.median_methods import (
    median_law,
    median_matrix,
    penalised_median,
    simple_median,
    weighted_median,
)

KERNEL = _core.medians


def study(j, *, seed=0, invalid=0.0, theta=0.2, se_exposure=0.005, se_outcome=0.01):
    """Associations of j SNPs, some with effects of their own on the outcome."""
    rng = np.random.default_rng(seed)
    bx = rng.uniform(0.03, 0.1, j)
    own = np.where(rng.random(j) < invalid, rng.normal(0, 0.02, j), 0)
    return {
        "beta_exposure": bx + rng.normal(0, se_exposure, j),
        "se_exposure": np.full(j, se_exposure),
        "beta_outcome": theta * bx + own + rng.normal(0, se_outcome, j),
        "se_outcome": rng.uniform(0.8, 1.2, j) * se_outcome,
    }


def median_by_definition(values, weights):
    """Interpolated where the cumulative weight less half of the own one is 1/2."""
    order = np.argsort(values, kind="stable")
    share = weights[order] / weights.sum()
    return np.interp(0.5, np.cumsum(share) - share / 2, values[order])


def arguments(data, weights):
    return (*data.values(), weights / weights.sum())


def first_order(data):
    return (data["beta_exposure"] / data["se_outcome"]) ** 2


def drawn(data, weights, draws, seed=1, threads=1, estimate=0.2, scale=0.03):
    return KERNEL.bootstrap_medians(
        *arguments(data, weights),
        estimate=estimate,
        scale=scale,
        draws=draws,
        seed=seed,
        set=0,
        purpose=3,
        threads=threads,
    )


def normals_in_numpy(seed, set_, purpose, index, draws):
    """Box-Muller on Philox4x32-10 blocks of the tested generator, one at a time."""
    key = [seed & 0xFFFFFFFF, seed >> 32]
    first, second = [], []
    for draw in range(draws):
        c = _core.philox4x32_10([index, draw, set_, purpose], key)
        a, b = c[0] | c[1] << 32, c[2] | c[3] << 32
        u = 1 - (a >> 12) * 2.0**-52
        turn = (b >> 12) * 2.0**-52 - 0.5
        radius = np.sqrt(-2 * np.log(u))
        first.append(radius * np.cos(2 * np.pi * turn))
        second.append(radius * np.sin(2 * np.pi * turn))
    return np.array([first, second])


def test_normals_are_box_muller_on_philox_blocks():
    """Wrong would be another generator, or draws that depend on how many are made at once."""
    seed = 0x9876543210ABCDEF
    got = KERNEL.normals(seed=seed, set=5, purpose=7, index=11, draws=203)
    assert np.allclose(got, normals_in_numpy(seed, 5, 7, 11, 203), rtol=0, atol=1e-14)


def test_normals_are_normal():
    z = KERNEL.normals(seed=1, set=0, purpose=0, index=0, draws=400_000)
    assert np.abs(z.mean(axis=1)).max() < 4 / np.sqrt(4e5)
    assert z.var(axis=1) == pytest.approx(1, abs=4 * np.sqrt(2 / 4e5))
    assert (z**4).mean(axis=1) == pytest.approx(3, abs=4 * np.sqrt(96 / 4e5))
    assert abs((z[0] * z[1]).mean()) < 4 / np.sqrt(4e5)
    assert (np.abs(z) > 4).mean() == pytest.approx(6.334e-5, abs=4 * np.sqrt(6.3e-5 / 8e5))


@pytest.mark.parametrize("j", [3, 4, 7, 12, 13, 40, 301])
def test_drawn_medians_are_the_medians_of_the_drawn_ratios(j):
    """Each drawn from (seed, SNP, draw): wrong would be a median that is not interpolated."""
    data = study(j, seed=j, invalid=0.4)
    weights = first_order(data)
    got = drawn(data, weights, 100, seed=77)
    z = np.array([KERNEL.normals(seed=77, set=0, purpose=3, index=i, draws=100) for i in range(j)])
    x = data["beta_exposure"][:, None] + data["se_exposure"][:, None] * z[:, 0]
    y = data["beta_outcome"][:, None] + data["se_outcome"][:, None] * z[:, 1]
    want = [median_by_definition(column, weights) for column in (y / x).T]
    assert got == pytest.approx(np.array(want), rel=1e-12)


@pytest.mark.parametrize("start", [(0.2, 0.01), (-5.0, 1e-3), (1e6, 1e6), (0.2, 1e9)])
def test_medians_do_not_depend_on_where_they_are_looked_for(start):
    data = study(60, seed=3, invalid=0.5)
    weights = first_order(data)
    near = drawn(data, weights, 64)
    far = drawn(data, weights, 64, estimate=start[0], scale=start[1])
    assert np.allclose(near, far, rtol=1e-12, atol=0)


def test_draws_do_not_depend_on_the_number_of_threads_or_of_draws():
    data = study(25)
    weights = first_order(data)
    one = drawn(data, weights, 1001)
    assert np.array_equal(one, drawn(data, weights, 1001, threads=3))
    assert np.array_equal(one[:300], drawn(data, weights, 300))


@given(
    values=st.lists(st.integers(-4, 4), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_median_with_ties_keeps_their_order(values, seed):
    weights = np.random.default_rng(seed).uniform(0.01, 1, len(values))
    weights /= weights.sum()
    x = np.array(values, dtype=float)
    assert KERNEL.weighted_median(x, weights) == pytest.approx(
        median_by_definition(x, weights), abs=1e-9
    )


def test_matrix_with_ties_and_missing_values():
    """The vectorised search against the definition, where steps from value to value fail."""
    rng = np.random.default_rng(4)
    snps, outcomes = 40, 21
    by = rng.integers(-3, 4, (snps, outcomes)).astype(float)
    sy = rng.choice([0.5, 1.0], (snps, outcomes))
    by[rng.random(by.shape) < 0.2] = np.nan
    by[:, 3] = np.nan
    sy[:37, 4] = np.nan
    offsets = np.array([0, 30, 33, 73])
    ids = np.concatenate([rng.permutation(snps)[:30], [1, 5, 9], rng.permutation(snps)])
    bx = rng.choice([-1.0, 1.0, 2.0], 73)
    sx = rng.uniform(0.1, 0.2, 73)
    for kind, order in (("first_order", 1), ("second_order", 2), ("simple", 0)):
        estimates, errors, counts = median_matrix(
            by, sy, offsets=offsets, snps=ids, beta_exposure=bx, se_exposure=sx, weights=kind
        )
        for e in range(3):
            at = slice(offsets[e], offsets[e + 1])
            for o in range(outcomes):
                y, s = by[ids[at], o], sy[ids[at], o]
                known = np.isfinite(y) & np.isfinite(s)
                assert counts[e, o] == known.sum()
                if known.sum() < 3:
                    assert np.isnan(estimates[e, o])
                    assert np.isnan(errors[e, o])
                    continue
                x, u, y, s = bx[at][known], sx[at][known], y[known], s[known]
                v1, v2 = (s / x) ** 2, (s / x) ** 2 + (y * u / x**2) ** 2
                w = 1 / [np.ones_like(v1), v1, v2][order]
                w /= w.sum()
                b = median_by_definition(y / x, w)
                k = 0.577 * np.sqrt(v2)
                f = (w * np.exp(-(((y / x - b) / k) ** 2) / 2) / k).sum() / np.sqrt(2 * np.pi)
                assert estimates[e, o] == pytest.approx(b, abs=1e-9)
                assert errors[e, o] == pytest.approx(np.sqrt((w**2).sum()) / 2 / f, rel=1e-6)


def test_matrix_is_the_same_in_blocks_threads_and_single_precision():
    rng = np.random.default_rng(9)
    by = rng.normal(0, 0.01, (50, 200)).astype(np.float32)
    sy = np.full((50, 200), 0.01, dtype=np.float32)
    exposure = {
        "offsets": [0, 20, 50],
        "snps": np.r_[rng.permutation(50)[:20], rng.permutation(50)[:30]],
        "beta_exposure": rng.uniform(0.02, 0.1, 50),
        "se_exposure": np.full(50, 0.004),
    }
    whole = median_matrix(by, sy, **exposure, n_threads=3)
    wide = median_matrix(by.astype(float), sy.astype(float), **exposure, n_threads=1)
    part = median_matrix(by[:, 77:90], sy[:, 77:90], **exposure, n_threads=1)
    for a, b, c in zip(whole, wide, part, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a[:, 77:90], c)


def test_penalty_is_about_the_weighted_median_first():
    """Wrong would be a penalty about the mean, or about zero."""
    data = study(15, seed=2, invalid=0.4)
    ratio = data["beta_outcome"] / data["beta_exposure"]
    weights = first_order(data)
    variance = 1 / weights
    centre = median_by_definition(ratio, weights)
    from scipy.stats import chi2

    weights = weights * np.minimum(1, 20 * chi2.sf((ratio - centre) ** 2 / variance, 1))
    result = penalised_median(**data, std_error="analytic")
    assert result.estimate == pytest.approx(median_by_definition(ratio, weights), rel=1e-12)
    assert result.weights == pytest.approx(weights / weights.sum(), rel=1e-12)


@pytest.mark.parametrize("method", [simple_median, weighted_median, penalised_median])
def test_sign_and_order_of_snps_do_not_matter(method):
    data = study(20, seed=6, invalid=0.3)
    base = method(**data)
    flip = np.where(np.arange(20) % 3 == 0, -1, 1)
    order = np.random.default_rng(1).permutation(20)
    turned = {k: (v * flip if k.startswith("beta") else v)[order] for k, v in data.items()}
    other = method(**turned)
    for name in ("estimate", "analytic_std_error", "robust_std_error", "bahadur_std_error"):
        assert getattr(other, name) == pytest.approx(getattr(base, name), rel=1e-8)


def test_law_is_monotone_and_its_own_inverse():
    law = median_law(**study(30, seed=8, invalid=0.3))
    p = np.linspace(0.01, 0.99, 50)
    t = law.quantile(p)
    assert (np.diff(t) > 0).all()
    assert law.cdf(t) == pytest.approx(p, abs=1e-8)
    low, high = law.quantile([0.15865525393145707, 0.8413447460685429])
    assert law.halfwidth == pytest.approx((high - low) / 2, rel=1e-8)


@pytest.mark.parametrize(("j", "invalid"), [(30, 0.0), (30, 0.5), (100, 0.0), (100, 0.5)])
def test_law_agrees_with_draws(j, invalid):
    data = study(j, seed=j, invalid=invalid)
    law = median_law(**data)
    draws = drawn(data, first_order(data), 20_000)
    low, high = np.quantile(draws, [0.158655, 0.841345])
    assert law.halfwidth == pytest.approx((high - low) / 2, rel=0.03)
    mean, sd = law.moments()
    assert mean == pytest.approx(draws.mean(), abs=0.04 * sd)
    assert sd == pytest.approx(draws.std(), rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["simple", "first_order", "second_order"])
@pytest.mark.parametrize(
    ("j", "invalid"), [(10, 0.0), (10, 0.5), (30, 0.0), (30, 0.5), (100, 0.0), (100, 0.5)]
)
def test_law_against_100000_draws(j, invalid, weights):
    data = study(j, seed=j + 1, invalid=invalid)
    method = simple_median if weights == "simple" else weighted_median
    options = {} if weights == "simple" else {"weights": weights}
    result = method(**data, **options, simulate=True, n_draws=100_000, rng=1)
    law = median_law(**data, weights=weights)
    close = 0.05 if j == 10 else 0.012
    assert law.halfwidth == pytest.approx(result.bootstrap_halfwidth, rel=close)
    assert result.analytic_std_error == law.halfwidth
    assert law.moments()[1] == pytest.approx(result.bootstrap_std_error, rel=max(close, 0.015))
    draws = drawn(data, result.weights, 100_000, estimate=result.estimate)
    # Tails: the reference's own table has up to 0.2 half-widths at 10 SNPs and 0.04 from 30.
    error = np.abs(law.quantile([0.025, 0.5, 0.975]) - np.quantile(draws, [0.025, 0.5, 0.975]))
    assert error.max() < (0.25 if j == 10 else 0.06) * law.halfwidth


def test_weak_snps_have_ratios_that_change_sign():
    """Wrong would be the normal law of t bx - by alone: it puts negative bx* on the other side."""
    j = 20
    data = study(j, seed=1, se_exposure=0.04)
    law = median_law(**data, weights="simple")
    draws = drawn(data, np.ones(j), 100_000)
    low, high = np.quantile(draws, [0.158655, 0.841345])
    assert law.halfwidth == pytest.approx((high - low) / 2, rel=0.05)
    at = np.quantile(draws, 0.2)
    assert law.cdf(at) == pytest.approx(0.2, abs=0.02)


def test_robust_error_holds_where_the_bootstrap_is_too_narrow():
    """All ratios heterogeneous: the bootstrap takes what was found for the truth.

    Wrong would be the bootstrap's variance sum w^2 F(1 - F) in place of sum w^2 / 4.
    """
    estimates, robust, analytic = [], [], []
    for seed in range(300):
        data = study(40, seed=seed, invalid=1.0)
        result = weighted_median(**data, std_error="analytic")
        estimates.append(result.estimate)
        robust.append(result.robust_std_error)
        analytic.append(result.analytic_std_error)
    spread = np.std(estimates)
    assert np.median(robust) > 0.85 * spread
    assert np.median(analytic) < 0.85 * spread


def test_auto_draws_where_the_closed_law_is_in_doubt():
    strong = study(30, seed=1)
    assert weighted_median(**strong).std_error_method == "analytic"
    few = study(9, seed=1)
    result = weighted_median(**few, rng=3)
    assert result.std_error_method == "bootstrap halfwidth"
    assert result.std_error == result.bootstrap_halfwidth
    assert 0 < result.monte_carlo_error < 0.03 * result.std_error
    heavy = {k: v.copy() for k, v in strong.items()}
    heavy["se_outcome"][0] /= 12
    assert weighted_median(**heavy, rng=3).n_draws == 10_000
    gap = study(30, seed=1)
    gap["beta_outcome"] = gap["beta_exposure"] * np.where(np.arange(30) < 15, -3.0, 3.0)
    assert simple_median(**gap, rng=3).n_draws == 10_000
    assert "gap" in simple_median(**gap, std_error="analytic").messages[0]


def test_choices_of_standard_error():
    data = study(30, seed=4, invalid=0.5)
    auto = weighted_median(**data)
    assert auto.std_error == auto.analytic_std_error
    assert auto.monte_carlo_error == 0
    assert auto.n_draws == 0
    robust = weighted_median(**data, std_error="robust")
    assert robust.std_error == robust.robust_std_error
    both = weighted_median(**data, std_error="max")
    assert both.std_error == max(auto.std_error, robust.std_error)
    draws = weighted_median(**data, simulate=True, rng=5)
    assert draws.std_error == draws.bootstrap_std_error
    assert draws.std_error_method == "bootstrap"
    assert draws.estimate == auto.estimate
    again = weighted_median(**data, std_error="bootstrap", rng=np.random.default_rng(5))
    assert again.to_dict() == draws.to_dict()
    several = weighted_median(**data, simulate=True, rng=5, n_threads=2)
    assert several.to_dict() == draws.to_dict()


def test_monte_carlo_errors_are_those_of_repeated_simulation():
    data = study(8, seed=4)
    results = [weighted_median(**data, n_draws=500, simulate=True, rng=i) for i in range(200)]
    spread = np.std([r.bootstrap_std_error for r in results])
    assert np.median([r.monte_carlo_error for r in results]) == pytest.approx(spread, rel=0.25)
    results = [weighted_median(**data, n_draws=500, rng=i) for i in range(200)]
    spread = np.std([r.std_error for r in results])
    assert np.median([r.monte_carlo_error for r in results]) == pytest.approx(spread, rel=0.3)


def test_interval_and_p_value():
    from scipy.stats import norm, t

    data = study(30, seed=4)
    normal = weighted_median(**data, ci_level=0.9)
    z = normal.estimate / normal.std_error
    assert normal.p_value == pytest.approx(2 * norm.sf(abs(z)), rel=1e-12)
    assert normal.ci_lower == pytest.approx(normal.estimate - norm.ppf(0.95) * normal.std_error)
    student = weighted_median(**data, distribution="t")
    assert student.p_value == pytest.approx(2 * t.sf(abs(z), 29), rel=1e-10)


def test_attenuation_is_said():
    data = study(400, seed=4, theta=1.0, se_exposure=0.012)
    assert "towards zero" in weighted_median(**data).messages[0]
    assert simple_median(**data).messages == ()


def test_result_prints_and_converts():
    data = study(5, seed=4)
    result = weighted_median(**{k: v.tolist() for k, v in data.items()}, rng=1)
    text = str(result)
    assert "Monte-Carlo error" in text
    assert "5 SNPs" in text
    record = result.to_dict()
    assert json.loads(json.dumps(record))["n_snps"] == 5
    assert len(result.to_frame()) == 1


def test_bad_input_is_refused_by_name():
    data = study(5)
    with pytest.raises(InvalidInputError, match="at least 3 SNPs"):
        weighted_median(**{k: v[:2] for k, v in data.items()})
    with pytest.raises(InvalidInputError, match="weights"):
        weighted_median(**data, weights="delta")
    with pytest.raises(InvalidInputError, match="std_error"):
        weighted_median(**data, std_error="exact")
    with pytest.raises(InvalidInputError, match="simulate=True"):
        weighted_median(**data, std_error="robust", simulate=True)
    with pytest.raises(InvalidInputError, match="n_draws"):
        weighted_median(**data, n_draws=10)
    with pytest.raises(InvalidInputError, match="rng"):
        weighted_median(**data, rng="seed")
    with pytest.raises(InvalidInputError, match="penalty_factor"):
        penalised_median(**data, penalty_factor=0)
    with pytest.raises(InvalidInputError, match="beta_exposure"):
        simple_median(**{**data, "beta_exposure": np.zeros(5)})
    with pytest.raises(InvalidInputError, match="se_outcome"):
        simple_median(**{**data, "se_outcome": np.full(5, np.nan)})


# ---- reference values, computed from public data: read in place ----


PEERS = {
    "mr_simple_median": (simple_median, {}),
    "mr_weighted_median": (weighted_median, {"weights": "second_order"}),
    "mr_penalised_weighted_median": (penalised_median, {"weights": "second_order"}),
    "weighting=simple": (simple_median, {}),
    "weighting=weighted": (weighted_median, {}),
    "weighting=penalized": (penalised_median, {}),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", [n for n in DATA_SETS if n not in ("edge_1snp", "edge_2snp")])
def test_reference_medians(reference_dir, name):
    """Estimates to 1e-8; standard errors within the error of both simulations."""
    data = arrays(reference_dir, name)
    seen = 0
    for function, text in functions(reference_dir, name):
        key = text.split(";")[0] if function == "mr_median" else function
        if key not in PEERS:
            continue
        method, options = PEERS[key]
        fields = expected(reference_dir, name, function, text)
        estimate = (fields.get("b") or fields["Estimate"])[0]
        std_error = (fields.get("se") or fields["StdError"])[0]
        result = method(**data, **options, simulate=True, n_draws=20_000, rng=1)
        assert result.estimate == pytest.approx(estimate, rel=1e-8)
        draws = int(text.rpartition("=")[2])
        error = result.monte_carlo_error * np.sqrt(1 + 20_000 / draws)
        assert abs(result.std_error - std_error) < 5 * error, (function, text)
        seen += 1
    assert seen >= 6


@pytest.mark.reference
@pytest.mark.parametrize("name", ["calcium_fastgluc", "ldlc_chd", "bmi_chd_79"])
def test_reference_analytic_forms(reference_dir, name):
    file = reference_dir / "golden" / "summary_kernels" / f"{name}.json"
    content = json.loads(file.read_text())
    given = content["input"]
    data = {
        "beta_exposure": given["bx"],
        "se_exposure": given["sx"],
        "beta_outcome": given["by"],
        "se_outcome": given["sy"],
    }
    second = {"weights": "second_order"}
    for key, law, method, options in (
        ("simple", median_law(**data, weights="simple"), simple_median, {}),
        ("weighted_2nd_order", median_law(**data, **second), weighted_median, second),
        (
            "penalised",
            median_law(**data, **second, penalty_factor=20),
            penalised_median,
            second,
        ),
    ):
        wanted = content["median"][key]
        assert law.estimate == pytest.approx(wanted["b"], rel=1e-12)
        # The reference's own roots are found to about 5e-7.
        assert law.halfwidth == pytest.approx(wanted["analytic_halfwidth_se"], rel=1e-6)
        assert law.bahadur == pytest.approx(wanted["bahadur_se"], rel=1e-12)
        assert law.robust == pytest.approx(wanted["robust_se_c0577"], rel=1e-12)
        quantiles = law.quantile([0.025, 0.15865525, 0.5, 0.84134475, 0.975])
        assert quantiles == pytest.approx(wanted["analytic_quantiles"], rel=2e-6)
        bootstrap = wanted["bootstrap_1e6"]
        result = method(**data, **options, simulate=True, n_draws=100_000, rng=2)
        assert abs(result.std_error - bootstrap["sd"]) < 5 * result.monte_carlo_error
