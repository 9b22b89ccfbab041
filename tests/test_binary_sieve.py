"""Causal risk curve of a binary outcome by an averaged control function."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import binary_reference as reference
import numpy as np
import pytest
from scipy.special import expit, logit, ndtr

from mrfast.errors import InvalidInputError
from mrfast.nonlinear.binary_curve import BinaryCurve
from mrfast.nonlinear.binary_sieve import fit_binary
from mrfast.nonlinear.iv_data import iv_data
from mrfast.nonlinear.links import LINKS


def options(**changes):
    defaults = {
        "method": "cf",
        "penalty": "2c",
        "link": "probit",
        "alpha_spec": 0.05,
        "n_draws": 500,
        "folds": 5,
        "rng": 0,
        "n_threads": 1,
    }
    return SimpleNamespace(**(defaults | changes))


def people(n, seed, *, noise="probit", covariate=0.0):
    rng = np.random.default_rng(seed)
    z, u = rng.standard_normal((2, n))
    c = rng.standard_normal(n)
    x = 0.7 * z + u + 0.5 * c * (covariate != 0) + rng.standard_normal(n)
    e = rng.standard_normal(n) if noise == "probit" else rng.logistic(size=n)
    y = (-0.5 + 0.6 * x - 0.15 * x**2 + 0.8 * u + covariate * c + e > 0).astype(float)
    return z, x, y, c


def true_risk(x, noise="probit"):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    index = -0.5 + 0.6 * x[:, None] - 0.15 * x[:, None] ** 2 + 0.8 * nodes
    values = ndtr(index) if noise == "probit" else expit(index)
    return values @ weights / weights.sum()


@pytest.fixture(scope="module")
def data():
    z, x, y, _ = people(4000, 1)
    return z, x, y


@pytest.fixture(scope="module")
def with_covariate():
    z, x, y, c = people(4000, 2, covariate=0.7)
    return iv_data(z, x, y, c)


@pytest.mark.parametrize("name", ["probit", "logit"])
def test_links_have_their_derivatives(name):
    link, index, h = LINKS[name], np.linspace(-5, 5, 41), 1e-6
    for value, slope in ((link.probability, link.density), (link.density, link.slope)):
        numerical = (value(index + h) - value(index - h)) / (2 * h)
        np.testing.assert_allclose(slope(index), numerical, atol=1e-8)
    np.testing.assert_allclose(link.index(link.probability(index)), index, atol=1e-8)
    one, zero = link.log_probabilities(index)
    np.testing.assert_allclose(np.exp(one) + np.exp(zero), 1.0)
    np.testing.assert_allclose(np.exp(one), link.probability(index))


@pytest.mark.parametrize(
    ("name", "law"), [("probit", reference.probit), ("logit", reference.scaled_logit)]
)
def test_risk_and_standard_errors_are_those_of_dense_matrices(data, name, law):
    """Average of probabilities over V, with what the first stage and that average add.

    Wrong: the probability at the average of lambda(V) (it is off by up to 0.05), or H^-1 M H^-1
    without the first stage (standard errors that are up to 20% too small).
    """
    z, x, y = data
    at = np.quantile(x, [0.025, 0.2, 0.5, 0.8, 0.975])
    risk, covariance, _ = reference.fit(z, x, y, law, at)
    curve = fit_binary(iv_data(z, x, y), options(link=name)).curve
    np.testing.assert_allclose(curve.values(at, None), risk, atol=2e-4)
    lower, upper = curve.limits("pointwise", 0.95, at, None, None)
    errors = (logit(upper) - logit(lower)) / (2 * 1.959964) * risk * (1 - risk)
    np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=0.01)
    low, high = curve.limits("pointwise", 0.95, at[1:], None, np.full(4, at[0]))
    variance = np.diag(covariance)[1:] + covariance[0, 0] - 2 * covariance[0, 1:]
    np.testing.assert_allclose((high - low) / (2 * 1.959964), np.sqrt(variance), rtol=0.02)


def test_two_links_are_averaged_by_their_evidence(data):
    z, x, y = data
    at = np.linspace(-2, 2, 9)
    fits = {name: fit_binary(iv_data(z, x, y), options(link=name)) for name in LINKS}
    both = fit_binary(iv_data(z, x, y), options(link="auto"))
    shares = both.diagnostics["link_shares"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert all(0.01 < share < 0.99 for share in shares.values())
    expected = sum(shares[name] * fit.curve.values(at, None) for name, fit in fits.items())
    np.testing.assert_allclose(both.curve.values(at, None), expected, rtol=1e-12)
    # the variance has that between links
    (a, b), between = fits.values(), []
    for fit in (a, b):
        between.append(logit(fit.curve.values(at, None)))
    centre = logit(expected)
    errors = [fit.curve.standard_errors(fit.curve.basis(at, None)) for fit in (a, b)]
    variance = sum(
        share * (error**2 + (value - centre) ** 2)
        for share, error, value in zip(shares.values(), errors, between, strict=True)
    )
    curve = both.curve
    np.testing.assert_allclose(
        curve.standard_errors(curve.basis(at, None)), np.sqrt(variance), rtol=1e-6
    )


def test_evidence_of_links_is_that_of_dense_matrices(data):
    """Wrong: shares by the maximised likelihood, which a rougher curve makes about equal."""
    z, x, y = data
    laws = {"probit": reference.probit, "logit": reference.scaled_logit}
    logs = [reference.fit(z, x, y, laws[name], np.zeros(1))[2] for name in LINKS]
    fit = fit_binary(iv_data(z, x, y), options(link="auto"))
    shares = np.exp(np.array(logs) - max(logs))
    found = [fit.diagnostics["link_shares"][name] for name in LINKS]
    np.testing.assert_allclose(found, shares / shares.sum(), atol=0.02)
    likelihoods = np.array(list(fit.diagnostics["log_likelihood"].values()))
    wrong = np.exp(likelihoods - likelihoods.max())
    assert np.abs(found - wrong / wrong.sum()).max() > 0.05


def test_derivatives_of_the_risk(with_covariate):
    curve = fit_binary(with_covariate, options()).curve
    (one,) = curve.links
    at = np.array([-1.0, 0.5])
    person = np.full((2, 1), 0.3)
    for covariates in (None, person):
        table = curve.spline.values((at - curve.location) / curve.scale)
        standard = None
        if covariates is not None:
            standard = (covariates - curve.covariate_means) / curve.covariate_scales
        rows = one.risk(table, standard)[1]
        kf, k = table.shape[1], len(one.coefficients)
        for j in range(k):  # columns of the offsets: the bins' means follow their coefficients
            values = []
            for step in (1e-5, -1e-5):
                moved = one.coefficients.copy()
                moved[j] += step
                bins = {
                    name: _shifted(getattr(one, name), moved - one.coefficients, kf)
                    for name in ("people", "control")
                }
                other = type(one)(
                    one.link, 1.0, moved, bins["people"], bins["control"], one.covariance, one.draws
                )
                values.append(other.risk(table, standard)[0])
            np.testing.assert_allclose(rows[:, j], (values[0] - values[1]) / 2e-5, atol=2e-4)


def _shifted(bins, change, kf):
    mean = bins.mean + bins.columns @ change[kf:]
    return type(bins)(bins.share, mean, bins.variance, bins.columns, bins.instruments, bins.moments)


@pytest.mark.parametrize("kind", ["risk", "odds"])
def test_ratios(data, kind):
    z, x, y = data
    curve = fit_binary(iv_data(z, x, y), options()).curve
    low, high = np.full(3, -1.0), np.array([0.0, 1.0, 2.0])
    ratio, lower, upper = curve.ratio(kind, low, high, None, "pointwise", 0.95)
    p, q = curve.values(high, None), curve.values(low, None)
    expected = p / q if kind == "risk" else p / (1 - p) / (q / (1 - q))
    np.testing.assert_allclose(ratio, expected)
    np.testing.assert_allclose(lower * upper, ratio**2)  # symmetric on the logarithm
    risks = np.concatenate([q[:1], p])
    # delta method on the covariance of the risks, from the log odds' derivatives
    rows = curve.basis(np.concatenate([low[:1], high]), None) * (risks * (1 - risks))[:, None]
    covariance = rows @ curve.covariance @ rows.T
    scale = 1 / risks if kind == "risk" else 1 / (risks * (1 - risks))
    logs = covariance * np.outer(scale, scale)
    variance = np.diag(logs)[1:] + logs[0, 0] - 2 * logs[0, 1:]
    np.testing.assert_allclose(np.log(upper / lower) / (2 * 1.959964), np.sqrt(variance))
    _, low_band, high_band = curve.ratio(kind, low, high, None, "uniform", 0.95)
    assert (low_band < lower).all()
    assert (high_band > upper).all()


def test_limits_are_risks_and_uniform_ones_are_wider(data):
    z, x, y = data
    curve = fit_binary(iv_data(z, x, y), options()).curve
    grid = np.linspace(x.min(), x.max(), 60)
    lower, upper = curve.limits("uniform", 0.95, grid, None, None)
    inner_lower, inner_upper = curve.limits("pointwise", 0.95, grid, None, None)
    assert (lower >= 0).all()
    assert (upper <= 1).all()
    assert (lower < inner_lower).all()
    assert (inner_upper < upper).all()


def test_covariates_are_averaged_over(with_covariate):
    """Wrong: the risk of the person whose covariates are the mean."""
    curve = fit_binary(with_covariate, options()).curve
    at = np.linspace(-2, 2, 5)
    some = with_covariate.covariates[::4]
    average = np.mean([curve.values(at, np.tile(row, (5, 1))) for row in some], axis=0)
    np.testing.assert_allclose(curve.averaged(at, some), average, rtol=1e-12)
    np.testing.assert_allclose(curve.values(at, None), average, atol=0.01)
    middle = curve.values(at, np.zeros((5, 1)))
    assert np.abs(middle - average).max() > 0.01
    lower, upper = curve.averaged_limits("pointwise", 0.95, at, some[:10], None)
    mean = curve.averaged(at, some[:10])
    assert (lower < mean).all()
    assert (mean < upper).all()


def test_conditional_risk_is_the_true_one(with_covariate):
    curve = fit_binary(with_covariate, options()).curve
    at = np.linspace(-1.5, 1.5, 7)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    for c in (-1.0, 1.0):
        index = -0.5 + 0.6 * at[:, None] - 0.15 * at[:, None] ** 2 + 0.8 * nodes + 0.7 * c
        truth = ndtr(index) @ weights / weights.sum()
        person = np.full((7, 1), c)
        lower, upper = curve.limits("uniform", 0.99, at, person, None)
        assert ((lower < truth) & (truth < upper)).all()


def test_people_twice_in_clusters_are_as_good_as_once(data):
    """Wrong: the sum over people, whose standard errors are 1 / sqrt(2) of these."""
    z, x, y = data
    at = np.linspace(-2, 3, 6)
    once = fit_binary(iv_data(z, x, y), options()).curve
    twice = iv_data(*(np.tile(one, 2) for one in data), clusters=np.tile(np.arange(len(x)), 2))
    doubled = fit_binary(twice, options()).curve
    plain = fit_binary(replace(twice, clusters=None), options()).curve
    errors = [curve.standard_errors(curve.basis(at, None)) for curve in (once, doubled, plain)]
    assert np.abs(np.log(errors[1] / errors[0]).mean()) < 0.2
    assert np.log(errors[2] / errors[0]).mean() < -0.15


def test_weights_undo_a_selection():
    z, x, y, _ = people(20_000, 5)
    rng = np.random.default_rng(0)
    chance = np.where(y > 0, 1.0, 0.4)
    kept = rng.random(len(x)) < chance
    part = iv_data(z[kept], x[kept], y[kept], sample_weight=1 / chance[kept])
    curve = fit_binary(part, options()).curve
    at = np.linspace(-2, 3, 30)
    truth = true_risk(at)
    lower, upper = curve.limits("uniform", 0.99, at, None, None)
    assert ((lower < truth) & (truth < upper)).all()
    plain = fit_binary(iv_data(z[kept], x[kept], y[kept]), options()).curve
    lower, upper = plain.limits("uniform", 0.99, at, None, None)
    assert not ((lower < truth) & (truth < upper)).all()


def test_interactions_follow_a_rejection():
    rng = np.random.default_rng(3)
    n = 20_000
    z, u, e = rng.standard_normal((3, n))
    x = (1.2 + 1.2 * u) * z + u + rng.standard_normal(n)
    y = (0.5 * x + u + e > 0).astype(float)
    fit = fit_binary(iv_data(z, x, y), options(method="auto"))
    assert fit.diagnostics["interaction_p_value"] < 0.001
    assert fit.diagnostics["level"] == 1
    kept = fit_binary(iv_data(z, x, y), options(method="cf"))
    assert kept.diagnostics["level"] == 0
    assert any("contradict" in message for message in kept.messages)


def test_same_bits_for_any_number_of_threads():
    z, x, y, _ = people(60_000, 6)
    grid = np.linspace(-2, 3, 20)
    results = []
    for n_threads in (1, 3):
        curve = fit_binary(iv_data(z, x, y), options(n_threads=n_threads)).curve
        results.append(
            np.r_[curve.values(grid, None), curve.limits("uniform", 0.9, grid, None, None)[0]]
        )
    assert np.array_equal(*results)


def test_state_gives_the_curve_again(with_covariate):
    curve = fit_binary(with_covariate, options(link="auto")).curve
    values, arrays = curve.state(False)
    again = BinaryCurve.from_state(values, arrays)
    grid = np.linspace(-2, 2, 5)
    for covariates in (None, np.ones((5, 1))):
        assert np.array_equal(curve.values(grid, covariates), again.values(grid, covariates))
        pair = [one.limits("uniform", 0.9, grid, covariates, None) for one in (curve, again)]
        assert np.array_equal(*pair)
    # bins have at least twenty people, and nothing has a row a person
    assert max(len(array) for array in arrays.values()) < 1000


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"link": "cauchit"}, "link"), ({"method": "npiv"}, "method"), ({"penalty": "4"}, "penalty")],
)
def test_unknown_options(data, changes, word):
    with pytest.raises(InvalidInputError, match=word):
        fit_binary(iv_data(*data), options(**changes))


def test_other_outcomes_and_weak_instruments_are_refused(data):
    z, x, y = data
    with pytest.raises(InvalidInputError, match="outcome"):
        fit_binary(iv_data(z, x, y + x), options())
    noise = np.random.default_rng(0).standard_normal(len(x))
    with pytest.raises(InvalidInputError, match="instruments"):
        fit_binary(iv_data(noise, x, y), options())


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["probit", "logit"])
def test_uniform_bands_cover(noise):
    covered = []
    for seed in range(40):
        z, x, y, _ = people(5000, 100 + seed, noise=noise)
        curve = fit_binary(iv_data(z, x, y), options(link="auto", n_draws=1000)).curve
        grid = np.linspace(*np.quantile(x, [0.025, 0.975]), 60)
        lower, upper = curve.limits("uniform", 0.95, grid, None, None)
        truth = true_risk(grid, noise)
        covered.append(((lower <= truth) & (truth <= upper)).all())
    assert sum(covered) >= 34  # one in 1,000 at 95%


def test_estimator_with_several_variants(tmp_path):
    from mrfast.nonlinear import SieveIV, load

    rng = np.random.default_rng(8)
    variants = rng.binomial(2, 0.3, (5000, 10)).astype(np.int8)
    _, _, _, c = people(5000, 8)
    u = rng.standard_normal(5000)
    x = variants @ rng.uniform(0.2, 0.5, 10) + u + rng.standard_normal(5000)
    y = (0.5 * x - 2 + 0.8 * u + 0.5 * c + rng.standard_normal(5000) > 0).astype(float)
    fit = SieveIV(n_draws=300).fit(variants, x, y, c)
    assert fit.diagnostics_["outcome"] == "binary"
    at = np.quantile(x, [0.1, 0.5, 0.9])
    curve = fit.effect(at, interval="uniform")
    scale = np.sqrt(1 + 0.8**2 + 0.5**2)
    truth = ndtr((0.5 * at - 2) / scale)
    assert ((curve.lower < truth) & (truth < curve.upper)).all()
    ratio = fit.risk_ratio(at[0], at[1:])
    np.testing.assert_allclose(ratio, fit.effect(at[1:]) / fit.effect(at[0]))
    fit.save(tmp_path)
    again = load(tmp_path)
    assert np.array_equal(again.effect(at, interval="uniform").lower, curve.lower)
    assert np.array_equal(again.effect_conditional(at, 0.5), fit.effect_conditional(at, 0.5))
