from __future__ import annotations

import math

import numpy as np
import pytest
from federated_golden import Arrays, golden, made_profile, parabola, site_profiles
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import t as student

import mrfast
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.federated.joint_profile import SiteFunctions
from mrfast.federated.random_effects import _Model, random_effects


@pytest.fixture(scope="module")
def arrays():
    return Arrays(golden("g5_heterogeneous"))


def fitted(arrays, **options):
    return random_effects(
        SiteFunctions(arrays.profiles),
        arrays.centre,
        arrays.covariance,
        start=0.378,
        informative=np.ones(4, dtype=bool),
        **options,
    )


def test_reference_by_maximum_likelihood(arrays):
    expected = golden("g5_heterogeneous")["outputs"]["random_effects"]["ml"]
    found = fitted(arrays, profile=True)
    assert found.theta == pytest.approx(expected["theta"], abs=1e-5)
    assert found.tau == pytest.approx(expected["tau"], abs=1e-5)
    assert found.log_likelihood == pytest.approx(expected["loglik"], abs=1e-7)


def test_reference_by_restricted_maximum_likelihood(arrays):
    """Wrong: maximum likelihood, whose tau is .276.

    The reference comes from a numerical search that stopped 1e-6 of a log unit below the maximum,
    2e-4 from it in tau; at the reference's tau everything agrees.
    """
    expected = golden("g5_heterogeneous")["outputs"]["random_effects"]["reml"]
    found = fitted(arrays)
    assert found.theta == pytest.approx(expected["theta"], abs=1e-4)
    assert found.tau == pytest.approx(expected["tau"], abs=3e-4)
    model = _Model(SiteFunctions(arrays.profiles), arrays.centre, arrays.covariance)
    there = model.fit(expected["tau"], 0.4)
    assert there.theta == pytest.approx(expected["theta"], abs=5e-6)
    error = (-model.curvature(expected["tau"], there)) ** -0.5
    assert error == pytest.approx(expected["se"], abs=5e-6)
    assert model.restricted(found.tau, 0.4) >= model.restricted(expected["tau"], 0.4)


def test_integrals_of_the_sites(arrays):
    """Against adaptive quadrature; also where the law is wide against the profile."""
    model = _Model(SiteFunctions(arrays.profiles), arrays.centre, arrays.covariance)
    kappa = np.array([1.0, 0.9, -1.1, 0.8])
    for theta, tau in ((0.4, 0.3), (-0.2, 0.05), (0.3, 0.0)):
        value, slope, bend = model.marginal(kappa, theta, tau)
        for k, profile in enumerate(arrays.profiles):

            def integrand(x, k=k, profile=profile, theta=theta, tau=tau, top=value[k]):
                at = kappa[k] * (theta + tau * x)
                return math.exp(float(profile(at)) - top - x * x / 2) / math.sqrt(2 * math.pi)

            assert quad(integrand, -9, 9, limit=400, epsabs=1e-11)[0] == pytest.approx(1, abs=1e-8)
        h = 1e-5
        above, below = (model.marginal(kappa, theta + d, tau) for d in (h, -h))
        by_mean = (above[0] - below[0]) / (2 * h) / kappa
        np.testing.assert_allclose(slope, by_mean, rtol=1e-5, atol=1e-5)
        by_mean = (above[1] - below[1]) / (2 * h) / kappa
        np.testing.assert_allclose(bend, by_mean, rtol=1e-5, atol=1e-4)


def test_normal_sites_against_the_closed_form():
    """Quadratic profiles and known kappas: the model of DerSimonian and Laird."""
    effects, errors = np.array([0.1, 0.7, 0.35, 0.5, -0.05]), np.array([0.1, 0.15, 0.12, 0.2, 0.1])
    kappa = np.array([1.0, 0.5, 1.5, 1.0, 0.8])
    sites = SiteFunctions(
        [parabola(b * k, s * k, half=30) for b, s, k in zip(effects, errors, kappa, strict=True)]
    )
    found = random_effects(sites, kappa, None, start=0.3, informative=np.ones(5, dtype=bool))

    def restricted(values):
        weights = 1 / (errors**2 + values[0] ** 2)
        mean = (weights @ effects) / weights.sum()
        return (
            np.log(errors**2 + values[0] ** 2).sum()
            + np.log(weights.sum())
            + weights @ (effects - mean) ** 2
        )

    slow = minimize(restricted, [0.2], method="Nelder-Mead", options={"xatol": 1e-9})
    assert found.tau == pytest.approx(abs(slow.x[0]), abs=1e-5)
    weights = 1 / (errors**2 + found.tau**2)
    mean = (weights @ effects) / weights.sum()
    assert found.theta == pytest.approx(mean, abs=1e-6)
    # Hartung and Knapp's variance, never below Wald's. Wrong: the normal law.
    q = max(1, weights @ (effects - mean) ** 2 / 4)
    assert found.std_error == pytest.approx(math.sqrt(q / weights.sum()), rel=1e-5)
    half = student.ppf(0.975, 4) * found.std_error
    assert found.ci_upper == pytest.approx(mean + half, abs=1e-5)
    wide = student.ppf(0.975, 3) * math.hypot(found.tau, found.std_error)
    assert found.prediction_interval[1] == pytest.approx(mean + wide, abs=1e-5)


def test_equal_effects_give_no_spread():
    profiles = [made_profile(0.3, information, 0.2) for information in (60.0, 90.0, 40.0)]
    found = random_effects(
        SiteFunctions(profiles), np.ones(3), None, start=0.3, informative=np.ones(3, dtype=bool)
    )
    assert found.tau == 0.0
    assert found.theta == pytest.approx(0.3, abs=1e-8)
    half = found.std_error * student.ppf(0.975, 2)
    assert found.ci_upper - found.theta == pytest.approx(half, rel=1e-9)


def test_estimate_with_random_effects():
    pooled = mrfast.pool(site_profiles(golden("g5_heterogeneous")))
    found = mrfast.federated_estimate(pooled, effects="random", noise_correction=False)
    assert found.beta == pytest.approx(0.5081, abs=1e-4)
    assert found.tau == pytest.approx(0.3213, abs=1e-4)
    assert found.ci_lower < 0 < found.ci_upper
    assert found.p_value > 0.05
    assert found.confidence_set == ((found.ci_lower, found.ci_upper),)
    assert found.heterogeneity[0] == pytest.approx(48.78757, abs=1e-4)
    assert any(
        "4 sites the spread of the effects is barely identified" in t for t in found.messages
    )
    assert any("where the likelihood is negligible" in text for text in found.messages)
    assert "tau 0.321" in str(found)
    table = mrfast.leave_one_site_out(pooled, effects="random")
    assert (table["tau"] >= 0).all()


def test_profile_likelihood_limits():
    pooled = mrfast.pool(site_profiles(golden("g5_heterogeneous")))
    options = {"effects": "random", "interval": "profile"}
    found = mrfast.federated_estimate(pooled, **options)
    model = _Model(pooled.functions, found.kappas, found.kappa_covariance)
    top = model.over_tau(found.beta, found.tau, np.zeros(4))
    for end in (found.ci_lower, found.ci_upper):
        drop = 2 * (top - model.over_tau(end, found.tau, np.zeros(4)))
        assert drop == pytest.approx(3.841459, abs=1e-5)
    just = mrfast.federated_estimate(pooled, **options, ci_level=1 - found.p_value)
    assert min(abs(just.ci_lower), abs(just.ci_upper)) < 1e-5


def test_a_site_without_a_maximum_takes_part():
    mild = made_profile(6.0, 0.5, -1.0, window=(-1.5, 1.5), monotone=1, supremum=0.0)
    profiles = [made_profile(0.3, 60.0, 0.2), made_profile(0.5, 40.0), mild]
    found = random_effects(
        SiteFunctions(profiles), np.ones(3), None, start=0.4, informative=np.ones(3, dtype=bool)
    )
    assert 0.3 < found.theta < 0.8
    assert not found.at_bound


def test_sites_that_contradict_each_other():
    """Wrong: numbers from a search that did not end."""
    pooled = mrfast.pool(site_profiles(golden("g4_monotone_site")))
    with pytest.raises(ConvergenceError, match="the sites contradict each other"):
        mrfast.federated_estimate(pooled, effects="random")


def test_refusals():
    data = golden("g5_heterogeneous")
    pooled = mrfast.pool(site_profiles(data))
    with pytest.raises(InvalidInputError, match="fewer than two sites"):
        mrfast.federated_estimate(pooled.without("site_1", "site_2", "site_3"), effects="random")
    with pytest.raises(InvalidInputError, match="'none' or 'conditional' with random effects"):
        mrfast.federated_estimate(pooled, effects="random", small_sample="firth")
