"""The posterior under MASSIVE's prior: kernel, quadrature, moments and draws.

Compared with `natural_model`, which knows nothing of the collapsed form, and with the reference
problems.
"""

from __future__ import annotations

import itertools
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from exact_problems import golden_exact, standardised_from_golden
from hypothesis import given, settings
from hypothesis import strategies as st
from natural_model import (
    Setup,
    dense_log_density,
    integrate,
    log_density,
    log_jacobian,
    natural_of,
    one_sample,
    residual_covariance,
    weighted_quantiles,
)
from scipy import stats

from mrfast.bayes.collapsed import EFFECT, LOG_WEIGHT, collapsed_posterior, collapsed_problem
from mrfast.bayes.effect_density import EffectDensity
from mrfast.bayes.priors import SpikeSlabPrior

Q = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def drawn(seed, j, n1, n2, n_shared, *, external=None, slab=0.3, spike=0.02, sk=1.0, **prior):
    """Data from the prior itself."""
    rng = np.random.default_rng(seed)
    kx, ky = rng.normal(0, sk, 2)
    b = rng.normal()
    first = rng.normal(0, slab, j)
    direct = np.where(rng.random(j) < 0.5, rng.normal(0, slab, j), rng.normal(0, spike, j))
    s11, s12, s22, beta = residual_covariance(b, kx, ky, 0.0, 0.0)
    slope, s221 = s12 / s11, s22 - s12**2 / s11
    shared = n_shared / (n1 * n2)
    noise = np.array([[s11 / n1, shared * s12], [shared * s12, s22 / n2]])
    h = np.stack([first, direct + beta * first])
    h += np.linalg.cholesky(noise) @ rng.normal(size=(2, j))
    variance = s221 / s11 * (1 / n_shared if external is None else external**2)
    one = np.ones(j)
    return Setup(
        h[0],
        h[1],
        one / n1,
        one / n2,
        one * shared,
        s11 * np.exp(rng.normal() * (2 / n1) ** 0.5),
        slope + rng.normal() * variance**0.5,
        s221 * np.exp(rng.normal() * (2 / (n_shared or n2)) ** 0.5),
        n1,
        n2,
        n_shared,
        n_shared if external is None else 0,
        0.0 if external is None else 1 / variance,
        slab=slab,
        spike=spike,
        confounding_sd=sk,
        effect_sd=1.0,
        **prior,
    )


def solved(setup, tolerance=5e-5, threads=1):
    problem = setup.problem()
    report = problem.run(tolerance, 400, threads, None)
    weight = np.exp(report["nodes"][:, LOG_WEIGHT])
    weight /= weight.sum()
    return SimpleNamespace(
        problem=problem,
        log_evidence=report["log_evidence"],
        converged=report["converged"],
        effect=EffectDensity.from_panels(report["edges"], report["log_density"], problem.eta),
        moments=problem.moments(report["nodes"], weight, threads),
        nodes=report["nodes"],
        weight=weight,
        report=report,
    )


# ---------------------------------------------------------------- the log density


def random_setup(rng, j, overlap, laws, *, external=False):
    n1, n2 = rng.uniform(500, 5000, 2)
    n12 = overlap * min(n1, n2)
    f = rng.uniform(0.6, 1, j) if laws else np.ones(j)
    return Setup(
        rng.normal(0, 0.3, j),
        rng.normal(0, 0.3, j),
        1 / (n1 * f),
        1 / (n2 * f),
        n12 / (n1 * n2 * f),
        1.3,
        0.4,
        0.7,
        n1,
        n2,
        n12,
        0 if external or not overlap else n12,
        900.0 if external or not overlap else 0.0,
        slab=0.7,
        spike=0.03,
        slab_probability=rng.uniform(0.1, 0.9, j),
        effect_sd=3,
        confounding_sd=2,
        scale_power=float(rng.integers(2)),
    )


@pytest.mark.parametrize("overlap", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("laws", [False, True])
def test_value_is_the_sum_over_dense_models(overlap, laws):
    """Wrong: n12 taken as 1/N whatever the overlap; P(slab) = 1/2 for all; Delta_j left out."""
    rng = np.random.default_rng(int(10 * overlap) + laws)
    for external in (False, True):
        setup = random_setup(rng, 3, overlap, laws, external=external)
        problem = setup.problem()
        for _ in range(3):
            point = rng.normal(size=5) * [1, 1, 1, 0.1, 0.1]
            natural = natural_of(setup, *point)
            expected = dense_log_density(setup, natural) + log_jacobian(setup, point)
            value = problem.values(point[None])[0] + problem.log_constant
            assert value == pytest.approx(expected, rel=1e-13)
            # The quick form of the comparison itself, used below.
            quick = log_density(setup, *natural)[0] + log_jacobian(setup, point)
            assert quick == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("j", [1, 7, 8, 9, 17, 70])
@pytest.mark.parametrize("laws", [False, True])
def test_any_number_of_candidates(j, laws):
    rng = np.random.default_rng(j)
    setup = random_setup(rng, j, 0.4, laws)
    point = np.array([0.3, 0.9, -0.4, 0.02, -0.03])
    expected = log_density(setup, *natural_of(setup, *point))[0] + log_jacobian(setup, point)
    problem = setup.problem()
    assert problem.values(point[None])[0] + problem.log_constant == pytest.approx(
        expected, rel=1e-13
    )


def test_reference_kernel_of_one_sample():
    data = golden_exact("gt_s0")
    s = standardised_from_golden(data)
    prior = SpikeSlabPrior(data["sd_slab"], data["sd_spike"], scale_power=data["tau"])
    problem = collapsed_problem(s, prior)
    for point in golden_exact("kernel_s0")["points"]:
        value, gradient, hessian = problem.expansion(
            point["d1"], point["dm"], point["d3"], point["c"], point["u"]
        )
        expected = point["logpost_plus_const"]
        assert value + problem.log_constant == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(gradient, point["grad"], rtol=1e-9, atol=1e-7)
        np.testing.assert_allclose(hessian, point["hess"], rtol=1e-9, atol=1e-7)


def test_reference_kernel_of_any_overlap():
    data = golden_exact("general_kernel")
    s = standardised_from_golden(data)
    prior = SpikeSlabPrior(
        data["slab"], data["spike"], data["pi"], data["sb"], data["sk"], data["tau"]
    )
    problem = collapsed_problem(s, prior)
    rows = np.array([[p[k] for k in ("beta", "m", "u", "d1", "d3")] for p in data["points"]])
    rows[:, :2] /= problem.eta
    found = problem.values(rows)
    expected = np.array([p["value"] for p in data["points"]])
    # The probability of the model without slabs is a part of log_constant.
    np.testing.assert_allclose(found + len(data["h1"]) * np.log(0.5), expected, rtol=1e-10)


@pytest.mark.parametrize("laws", [False, True])
@pytest.mark.parametrize("overlap", [0.0, 0.4, 1.0])
def test_curvature(laws, overlap):
    """Gradient and Hessian by the variances against differences of the independent density."""
    rng = np.random.default_rng(3)
    for _ in range(3):
        setup = random_setup(rng, 9, overlap, laws)
        problem = setup.problem()
        at = rng.normal(size=5) * [1, 1, 1, 0.05, 0.05]
        value, gradient, hessian = problem.curvature(*at)
        assert value == pytest.approx(problem.values(at[None])[0], rel=1e-12)

        def f(i, j, at=at, setup=setup, h=2e-3):
            point = at + h * np.array([0, 0, 0, i, j])
            return log_density(setup, *natural_of(setup, *point))[0] + log_jacobian(setup, point)

        h = 2e-3
        g = np.array([f(1, 0) - f(-1, 0), f(0, 1) - f(0, -1)]) * 8
        g -= [f(2, 0) - f(-2, 0), f(0, 2) - f(0, -2)]
        g /= 12 * h
        second = [
            (16 * (f(*p) + f(*-p)) - 30 * f(0, 0) - f(*2 * p) - f(*-2 * p)) / (12 * h * h)
            for p in np.array([[1, 0], [0, 1]])
        ]
        cross = (f(1, 1) - f(1, -1) - f(-1, 1) + f(-1, -1)) / (4 * h * h)
        size = max(setup.n1, setup.n2)
        coarse = 1e-3 if laws else 1e-5  # the engine's own differences
        np.testing.assert_allclose(gradient, g, rtol=coarse, atol=coarse * size**0.5)
        np.testing.assert_allclose(np.diag(hessian), second, rtol=1e-3, atol=coarse * size)
        np.testing.assert_allclose(hessian[0, 1], cross, rtol=1e-3, atol=1e-4 * size)


@pytest.mark.parametrize("laws", [False, True])
@pytest.mark.parametrize("share", [1e-12, 0.5, 1 - 1e-12])
def test_extreme_inputs(laws, share):
    """Ten million people, a spike of 1e-6, residuals of thousands of standard errors."""
    rng = np.random.default_rng(5)
    n = 1e7
    f = rng.uniform(0.5, 1, 40) if laws else np.ones(40)
    setup = one_sample(
        rng.normal(0, 1, 40),
        rng.normal(0, 30, 40),
        n,
        slab=40.0,
        spike=1e-6,
        slab_probability=share,
    ).but(n11=1 / n / f, n22=1 / n / f, n12=1 / n / f)
    problem = setup.problem()
    for beta, m in ((0.3, 0.3), (0.3 + 1e-9, 0.3), (50.0, 0.3), (-50.0, 0.301)):
        point = np.array([beta, m, 0.5, 1e-3, -1e-3])
        # Long numbers would be needed for the 2x2 determinants at this noise: one dimension here.
        expected = _one_dimensional(setup, point)
        assert problem.values(point[None])[0] == pytest.approx(expected, rel=1e-11)
        assert np.isfinite(np.concatenate([np.ravel(x) for x in problem.curvature(*point)])).all()


def _one_dimensional(setup, point):
    """By the law of the outcome's coefficients given the exposure's, in logarithms."""
    d = setup
    beta, m, _, d1, d3 = point
    b, kx, ky, *_ = natural_of(setup, *point)
    k1, k2 = 1 + kx**2, 1 + kx**2 + ky**2
    s11, s221 = d.s11 * np.exp(d1), d.s221 * np.exp(d3)
    beta, m = beta * d.eta, m * d.eta
    g = d.slab**2 / k1 * s11
    out = 0.0
    for j in range(d.J):
        nx = d.n11[j] * s11
        share = nx / (nx + g)
        r = d.h2[j] - (beta + share * (m - beta)) * d.h1[j]
        noise = d.n22[j] * s221 + share * g * (m - beta) ** 2
        parts = []
        for sd, p in ((d.spike, 1 - d.slab_probability), (d.slab, d.slab_probability)):
            v = noise + sd**2 * k1 / k2 * s221
            parts.append(np.log(p) - 0.5 * (np.log(v) + r * r / v))
        out += np.logaddexp(*parts) - 0.5 * (np.log(nx + g) + d.h1[j] ** 2 / (nx + g))
        out += 0.5 * np.log(nx * d.n22[j] * s221) - np.log1p(-d.slab_probability)
    m_hat = d.slope
    out -= 0.5 * d.n1 * (np.expm1(-d1) + d1 + np.expm1(-d3) + d3)
    out -= 0.5 * d.n_slope * (m - m_hat) ** 2 / (d.s221 / d.s11) * np.exp(-d3)
    out -= 0.5 * (b / d.effect_sd) ** 2 + 0.5 * (kx**2 + ky**2) / d.confounding_sd**2
    out += np.log(s11) - np.log(s221) + np.log(k2) - np.log(k1)
    return out


def test_at_no_confounding():
    """c is kept off 0; the density there is finite."""
    problem = random_setup(np.random.default_rng(1), 4, 1.0, False).problem()
    point = np.array([[0.4, 0.4, 0.0, 0.0, 0.0], [0.4, 0.4 + 1e-13, 0.0, 0.0, 0.0]])
    values = problem.values(point)
    assert np.isfinite(values).all()
    assert values[0] == pytest.approx(values[1], abs=1e-6)


# ---------------------------------------------------------------- against brute force


@pytest.mark.parametrize(
    ("seed", "j", "n1", "n2", "n_shared", "external"),
    [
        (1, 3, 400, 400, 400, None),
        (2, 3, 600, 300, 120, None),
        (3, 2, 500, 900, 200, 0.15),  # the outcome's own variance says more of m than the slope
        (4, 3, 700, 500, 0, 0.05),
        (5, 1, 500, 500, 500, None),
    ],
)
def test_against_importance_sampling(seed, j, n1, n2, n_shared, external):
    """All 2^J models in the natural parameters, by randomised quasi-Monte Carlo."""
    setup = drawn(seed, j, n1, n2, n_shared, external=external)
    brute = integrate(setup, power=14, repeats=8)
    found = solved(setup)
    assert found.converged
    laplace = 1.5 / min(n1, n2, n_shared or n2)
    assert found.log_evidence == pytest.approx(
        brute["log_evidence"], abs=4 * brute["std_error"] + laplace
    )
    by_repeat = brute["inclusion"] / brute["mass"][:, None]
    error = 4 * by_repeat.std(axis=0, ddof=1) / 8**0.5
    np.testing.assert_array_less(
        np.abs(found.moments[0] - by_repeat.mean(axis=0)), error + 2e-3 + laplace
    )
    quantiles = np.array(
        [weighted_quantiles(b, np.exp(w - w.max()), Q) for b, w in brute["by_repeat"]]
    )
    error = 4 * quantiles.std(axis=0, ddof=1) / 8**0.5
    expected = quantiles.mean(axis=0)
    width = expected[-1] - expected[0]
    assert np.all(np.abs(found.effect.quantiles(Q) - expected) < error + 2e-3 * width)


# ---------------------------------------------------------------- reference problems


def prior_of(data, **changes):
    options = {
        "slab_sd": data.get("sd_slab", data.get("slab")),
        "spike_sd": data.get("sd_spike", data.get("spike")),
        "effect_sd": data.get("sd_b", data.get("sb")),
        "confounding_sd": data.get("sd_k", data.get("sk")),
        "scale_power": data.get("tau"),
    }
    return SpikeSlabPrior(**(options | changes))


REFERENCE = {
    "gt_s0": ("collapsed", "logZ_certified", {}),
    "gt_s1": ("collapsed", "logZ_certified", {}),
    "gt_t2": ("collapsed", "logZ_certified", {}),
    "jam_N1000_s1": (None, "logZ", {}),
    # Part 1's limits came from too light tails: part 2, section 5.
    "jam_N100000_s1": (None, "logZ", {0: 0.2873, 4: 0.3119}),
}


def check_moments(found, expected):
    for name, (mean, sd) in {
        "first_stage": found.first_stage,
        "direct": found.pleiotropy,
    }.items():
        scale = np.array(expected[f"{name}_sd"])
        np.testing.assert_array_less(np.abs(mean - expected[f"{name}_mean"]), 0.02 * scale)
        np.testing.assert_allclose(sd, scale, rtol=0.02)


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_problem(name):
    """Wrong: the density 1/(sigma_X sigma_Y) left out (scale_power 0), which moves log Z."""
    data = golden_exact(name)
    part, evidence, corrected = REFERENCE[name]
    expected = data[part] if part else data
    found = collapsed_posterior(standardised_from_golden(data), prior_of(data))
    assert found.converged
    assert found.log_evidence == pytest.approx(expected[evidence], abs=2e-3)
    assert found.log_evidence_error < 5e-3
    error = max(expected["pip_abs_unc"], 3e-4)
    np.testing.assert_allclose(found.inclusion, expected["pip"], atol=error)
    wanted = np.array(expected["beta_q"])
    for k, value in corrected.items():
        wanted[k] = value
    width = wanted[-1] - wanted[0]
    np.testing.assert_allclose(found.effect.quantiles(Q), wanted, atol=0.01 * width)
    check_moments(found, expected)


def test_reference_of_two_samples():
    data = golden_exact("two_sample")
    found = collapsed_posterior(standardised_from_golden(data), prior_of(data))
    width = data["beta_q"][-1] - data["beta_q"][0]
    np.testing.assert_allclose(found.effect.quantiles(Q), data["beta_q"], atol=0.01 * width)
    mean, sd = found.effect.moments
    assert mean == pytest.approx(data["mean"], abs=0.005 * width)
    assert sd == pytest.approx(data["sd"], rel=0.01)
    assert -found.log_bayes_factor([data["sb"]])[0] == pytest.approx(data["logBF01"], abs=2e-3)


def test_reference_bayes_factor():
    """Savage and Dickey's ratio at sb = 1; the evidence with the effect's prior nearly a point."""
    data = golden_exact("gt_s1")
    s = standardised_from_golden(data)
    found = collapsed_posterior(s, prior_of(data, effect_sd=1.0))
    assert -found.log_bayes_factor([1.0])[0] == pytest.approx(-5.1917, abs=3e-3)
    # Other sds by reweighting, against a run of their own.
    other = collapsed_posterior(s, prior_of(data, effect_sd=0.5))
    assert found.log_bayes_factor([0.5])[0] == pytest.approx(
        other.log_bayes_factor([0.5])[0], abs=3e-3
    )
    null = collapsed_posterior(s, prior_of(data, effect_sd=0.003))
    assert found.log_evidence - null.log_evidence == pytest.approx(
        found.log_bayes_factor([1.0])[0], abs=4e-3
    )


@pytest.mark.parametrize("tau", [0, 1])
def test_bmi_and_psoriasis(reference_dir, tau):
    import json

    import pandas as pd

    import mrfast

    table = pd.read_csv(reference_dir / "data" / "bmi_psoriasis.csv")
    text = (reference_dir / "golden" / "exact" / "bmi_psoriasis.json").read_text()
    data = json.loads(text)
    expected = data["results"][f"tau={tau}"]
    moments = mrfast.Moments.from_summary(
        beta_exposure=table["beta_XG"],
        se_exposure=table["se_XG"],
        n_exposure=data["N"],
        beta_outcome=table["beta_YG"],
        se_outcome=table["se_YG"],
        n_outcome=data["N"],
        eaf=table["eaf"],
        beta_observational=data["beta_XY_obs"],
    )
    s = moments.standardised
    assert s.residual_exposure == pytest.approx(data["S11"], rel=1e-6)
    found = collapsed_posterior(s, prior_of(data, scale_power=float(tau)))
    assert found.converged
    assert found.log_evidence == pytest.approx(expected["logZ"], abs=5e-3)
    np.testing.assert_allclose(found.inclusion, expected["pip"], atol=expected["pip_abs_unc"])
    width = expected["beta_q"][-1] - expected["beta_q"][0]
    np.testing.assert_allclose(found.effect.quantiles(Q), expected["beta_q"], atol=0.01 * width)
    check_moments(found, expected)


# ---------------------------------------------------------------- properties


def small(seed, j=4):
    overlap = seed % 3
    n1, n2 = (3000, 3000) if overlap == 2 else (3000, 1500)
    shared = {0: 0, 1: 600, 2: n2}[overlap]
    return drawn(seed, j, n1, n2, shared, external=None if shared else 0.05)


def same(one, other, *, effect=1e-3, evidence=2e-3):
    assert one.log_evidence == pytest.approx(other.log_evidence, abs=evidence)
    a, b = one.effect.quantiles(Q), other.effect.quantiles(Q)
    np.testing.assert_allclose(a, b, atol=effect * (b[-1] - b[0]))


seeds = st.integers(0, 10_000)


@settings(max_examples=6, deadline=None)
@given(seed=seeds)
def test_allele_signs_and_order_do_not_matter(seed):
    setup = small(seed)
    rng = np.random.default_rng(seed)
    sign, order = rng.choice([-1, 1], setup.J), rng.permutation(setup.J)
    setup = setup.but(slab_probability=rng.uniform(0.1, 0.9, setup.J))
    base = solved(setup)
    flipped = solved(setup.but(h1=sign * setup.h1, h2=sign * setup.h2))
    same(base, flipped, effect=1e-9, evidence=1e-8)
    np.testing.assert_allclose(
        flipped.moments,
        base.moments
        * [[1], [1], [1], [1], [1]]
        * np.stack([np.ones(setup.J), sign, np.ones(setup.J), sign, np.ones(setup.J)]),
        atol=1e-9,
    )
    moved = setup.but(
        h1=setup.h1[order], h2=setup.h2[order], slab_probability=setup.slab_probability[order]
    )
    turned = solved(moved)
    same(base, turned, effect=1e-6, evidence=1e-6)
    np.testing.assert_allclose(turned.moments, base.moments[:, order], atol=1e-6)


@settings(max_examples=6, deadline=None)
@given(seed=seeds)
def test_the_sign_of_the_outcome_turns_the_effect(seed):
    setup = small(seed)
    base, turned = solved(setup), solved(setup.but(h2=-setup.h2, slope=-setup.slope))
    assert turned.log_evidence == pytest.approx(base.log_evidence, abs=1e-4)
    quantiles = -turned.effect.quantiles(Q)[::-1]
    width = quantiles[-1] - quantiles[0]
    # Without people in both samples and with a steep slope, Var(Y|X, G) is hardly known: the
    # integrand is rough there, and the integral does not reach its tolerance.
    error = 1e-4 if base.converged and turned.converged else 1e-2
    np.testing.assert_allclose(quantiles, base.effect.quantiles(Q), atol=error * width)
    np.testing.assert_allclose(turned.moments[0], base.moments[0], atol=error)


@settings(max_examples=6, deadline=None)
@given(seed=seeds, x=st.floats(-3, 3), y=st.floats(-3, 3))
def test_units_of_exposure_and_outcome(seed, x, y):
    """Flat in both log scales: the evidence moves with the Jacobian of the data alone."""
    setup = small(seed)
    a, b = np.exp(x), np.exp(y)
    base = solved(setup)
    scaled = solved(
        setup.but(
            h1=a * setup.h1,
            h2=b * setup.h2,
            s11=a * a * setup.s11,
            s221=b * b * setup.s221,
            slope=setup.slope * b / a,
            slope_precision=setup.slope_precision * (a / b) ** 2,
        )
    )
    shift = -setup.n1 * x - setup.n2 * y
    assert scaled.log_evidence - shift == pytest.approx(base.log_evidence, abs=1e-3)
    width = np.ptp(base.effect.quantiles(Q))
    np.testing.assert_allclose(
        scaled.effect.quantiles(Q) * a / b, base.effect.quantiles(Q), atol=1e-3 * width
    )


def test_same_bits_for_any_number_of_threads():
    setup = drawn(3, 12, 5000, 5000, 5000)
    problem = setup.problem()
    reports = [problem.run(5e-5, 400, k, None) for k in (1, 2, 3, 1)]
    for report in reports[1:]:
        for key, value in reports[0].items():
            np.testing.assert_array_equal(report[key], value)
    nodes = reports[0]["nodes"]
    weight = np.exp(nodes[:, LOG_WEIGHT])
    for call in (
        lambda k: problem.moments(nodes, weight, k),
        lambda k: np.array(problem.certificate(nodes, 500, k)),
    ):
        np.testing.assert_array_equal(call(1), call(2))
        np.testing.assert_array_equal(call(1), call(3))


@pytest.mark.parametrize("laws", [False, True])
@pytest.mark.parametrize("slab", [False, True])
def test_limits_of_the_prior_probability(slab, laws):
    """Certain of spikes, or of slabs: one normal law; no underflow of products at 1e-300."""
    setup = drawn(6, 20, 4000, 4000, 4000, slab=0.5, spike=0.001)
    f = np.random.default_rng(1).uniform(0.8, 1, 20) if laws else 1.0
    setup = setup.but(n11=setup.n11 / f, n22=setup.n22 / f, n12=setup.n12 / f)
    extreme = setup.but(slab_probability=1 - 1e-15 if slab else 1e-300)
    same_sds = setup.but(spike=0.5 if slab else 0.001, slab=0.5)
    point = np.array([[0.3, 0.1, 0.4, 0.01, -0.01], [-0.7, 0.1, -1.4, 0.0, 0.0]])
    problem = extreme.problem()
    found = problem.values(point) + problem.log_constant
    for row, value in zip(point, found, strict=True):
        natural = natural_of(same_sds, *row)
        p = 1 - 1e-15 if slab else 1e-300
        expected = log_density(same_sds.but(slab_probability=p), *natural)[0]
        expected += log_jacobian(same_sds, row)
        assert value == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- draws


@pytest.fixture(scope="module")
def drawn_posterior():
    data = golden_exact("gt_s1")
    found = collapsed_posterior(standardised_from_golden(data), prior_of(data))
    return found, found.draw(40_000, np.random.default_rng(8))


def test_draws_of_the_effect(drawn_posterior):
    found, draws = drawn_posterior
    levels = np.array([found.effect.cdf(x) for x in draws["beta"][:5000]])
    assert stats.kstest(levels, "uniform").pvalue > 0.01


def test_draws_of_the_candidates(drawn_posterior):
    found, draws = drawn_posterior
    n = len(draws["beta"])
    share = draws["slab"].mean(axis=0)
    error = 4 * np.sqrt(found.inclusion * (1 - found.inclusion) / n) + 1e-3
    np.testing.assert_array_less(np.abs(share - found.inclusion), error)
    for name, (mean, sd) in {
        "first_stage": found.first_stage,
        "pleiotropy": found.pleiotropy,
    }.items():
        values = draws[name]
        np.testing.assert_array_less(
            np.abs(values.mean(axis=0) - mean), 5 * sd / n**0.5 + 5e-3 * sd
        )
        np.testing.assert_allclose(values.std(axis=0), sd, rtol=0.04)


def test_draws_keep_what_belongs_together(drawn_posterior):
    """Given the effect, a direct effect is what the ratio leaves: alpha_j = h2_j - beta h1_j.

    Wrong: candidates drawn at another node than the effect, which leaves this to chance.
    """
    found, draws = drawn_posterior
    s = found.associations
    for j in range(s.J):
        left = s.outcome[j] - draws["beta"] * draws["first_stage"][:, j]
        noise = np.sqrt(s.noise_outcome[j] * (s.residual_outcome + 4 * s.residual_exposure))
        gap = np.where(draws["slab"][:, j], left - draws["pleiotropy"][:, j], 0.0)
        assert np.sqrt(np.mean(gap[draws["slab"][:, j]] ** 2)) < 3 * noise
    # Identified: beta = m - eta c, drawn, and the confounding coefficients behind c.
    kx, ky = draws["skappa_X"], draws["skappa_Y"]
    c = kx * ky / np.sqrt(1 + kx**2 + ky**2)
    np.testing.assert_allclose(c, draws["confounding_coordinate"], rtol=1e-9)
    scale = np.exp(draws["log_sigma_Y"] - draws["log_sigma_X"])
    np.testing.assert_allclose(draws["sbeta"] * scale, draws["beta"], rtol=1e-9)
    # The confounding coefficients against the nodes' weights, which are exact for their moments.
    # Wrong: uniform within the cells of u, which widens kappa_Y by 3 percent.
    nodes = found.coordinates(found.nodes)
    for name in ("skappa_X", "skappa_Y", "bias"):
        mean = (found.weights * nodes[name]).sum()
        sd = np.sqrt((found.weights * (nodes[name] - mean) ** 2).sum())
        assert abs(draws[name].mean() - mean) < 0.03 * sd
        assert draws[name].std() == pytest.approx(sd, rel=0.015)


def test_conditional_laws():
    """Means, variances and covariances at one point against the dense normal law."""
    rng = np.random.default_rng(2)
    for overlap, laws in itertools.product((0.0, 0.4, 1.0), (False, True)):
        setup = random_setup(rng, 8, overlap, laws)
        problem = setup.problem()
        point = rng.normal(size=5) * [1, 1, 1, 0.05, 0.05]
        law = problem.conditional(point[None])[0]
        natural = natural_of(setup, *point)
        inclusion = log_density(setup, *natural)[1]
        np.testing.assert_allclose(law[:, 0], inclusion, rtol=1e-9)
        s11, s12, s22, beta = residual_covariance(*natural)
        sx, sy = np.exp(natural[3]), np.exp(natural[4])
        units = np.array([setup.s221**0.5, setup.s11**0.5])
        expected = np.zeros((2, 5, setup.J))
        for v, sd in enumerate((setup.spike, setup.slab)):
            for j in range(setup.J):
                a, g = (sd * sy) ** 2, (setup.slab * sx) ** 2
                noise = np.array(
                    [
                        [setup.n11[j] * s11, setup.n12[j] * s12],
                        [setup.n12[j] * s12, setup.n22[j] * s22],
                    ]
                )
                lift = np.array([[0.0, 1.0], [1.0, beta]])  # (alpha, gamma) to (h1, h2)
                prior = np.diag([a, g])
                gain = prior @ lift.T @ np.linalg.inv(lift @ prior @ lift.T + noise)
                mean = gain @ [setup.h1[j], setup.h2[j]] / units
                cov = (prior - gain @ lift @ prior) / np.outer(units, units)
                expected[v, :, j] = mean[0], cov[0, 0], mean[1], cov[1, 1], cov[0, 1]
                np.testing.assert_allclose(
                    law[j, 1 + 5 * v : 6 + 5 * v], expected[v, :, j], rtol=1e-7, atol=1e-10
                )
        sums = problem.moments(point[None], np.ones(1), 1)
        p = inclusion
        for row, k in ((1, 2), (3, 0)):
            mean, square = expected[:, k], expected[:, k + 1] + expected[:, k] ** 2
            np.testing.assert_allclose(sums[row], (1 - p) * mean[0] + p * mean[1], rtol=1e-7)
            np.testing.assert_allclose(
                sums[row + 1], (1 - p) * square[0] + p * square[1], rtol=1e-7
            )
        np.testing.assert_allclose(sums[0], p, rtol=1e-9)


# ---------------------------------------------------------------- progress, Ctrl-C


def test_progress_counts_on():
    seen = []
    drawn(2, 3000, 1e5, 1e5, 1e5).problem().run(5e-5, 400, 1, seen.append)
    assert seen == sorted(seen)
    assert seen


class Stop(Exception):
    pass


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_the_progress_callback_stops_the_run(threads):
    def fail(done):
        raise Stop

    with pytest.raises(Stop):
        drawn(2, 3000, 1e5, 1e5, 1e5).problem().run(1e-12, 10**6, threads, fail)


@POSIX
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c(threads):
    problem = drawn(2, 3000, 1e5, 1e5, 1e5).problem()

    def press(done):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        problem.run(1e-12, 10**6, threads, press)
    assert problem.values(np.zeros((1, 5))).shape == (1,)


def test_effects_of_the_nodes_are_in_order():
    nodes = solved(drawn(4, 5, 2000, 2000, 2000)).nodes
    assert np.all(np.diff(nodes[:, EFFECT]) >= 0)
    assert np.all(np.diff(nodes[:, 0]) >= 0)
