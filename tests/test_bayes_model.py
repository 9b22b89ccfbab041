from __future__ import annotations

import numpy as np
import pytest
from massive_problems import (
    GOLDEN_NAMES,
    correlation,
    golden,
    golden_moments,
    golden_prior,
    golden_vector,
    random_parameters,
    slow_log_posterior,
    summary_moments,
)

import mrfast

CASES = {
    "uncorrelated": lambda: summary_moments(),
    "raw, diagonal plus rank one": lambda: summary_moments(center=False),
    "correlated": lambda: summary_moments(ld=correlation(6)),
    "raw correlated": lambda: summary_moments(ld=correlation(6), center=False),
    "one candidate": lambda: summary_moments(1, pleiotropic=0),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def moments(request):
    return request.param()


def model_of(moments):
    return np.arange(moments.J) % 2 == 1


@pytest.mark.parametrize("scale_power", [0.0, 1.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_value_is_that_of_the_structural_equations(moments, seed, scale_power):
    """Fails where Y's equation uses alpha alone (without beta gamma), or sd 10 as a variance."""
    prior = mrfast.SpikeSlabPrior(0.3, 0.01, scale_power=scale_power)
    parameters = random_parameters(moments.J, seed)
    value = mrfast.log_posterior(moments, model_of(moments), prior, parameters).value
    slow = slow_log_posterior(moments, model_of(moments), prior, parameters)
    assert value == pytest.approx(slow, rel=1e-11)


def central_difference(function, x, step):
    columns = []
    for i in range(x.size):
        shift = np.zeros_like(x)
        shift[i] = step
        columns.append((np.asarray(function(x + shift)) - function(x - shift)) / (2 * step))
    return np.stack(columns, axis=-1)


def test_derivatives_are_the_numerical_ones(moments):
    prior = mrfast.SpikeSlabPrior(0.3, 0.05, scale_power=0.5)
    model = model_of(moments)
    for seed in (4, 5):
        x = random_parameters(moments.J, seed)
        got = mrfast.log_posterior(moments, model, prior, x)
        gradient = central_difference(
            lambda p: mrfast.log_posterior(moments, model, prior, p).value, x, 1e-5
        )
        hessian = central_difference(
            lambda p: mrfast.log_posterior(moments, model, prior, p).gradient, x, 1e-5
        )
        scale = np.abs(got.gradient).max()
        np.testing.assert_allclose(got.gradient, gradient, atol=1e-6 * scale)
        np.testing.assert_allclose(got.hessian, hessian, atol=1e-6 * np.abs(hessian).max())
        np.testing.assert_allclose(got.hessian, got.hessian.T, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_derivatives(name):
    data = golden(name)
    moments, expected = golden_moments(data), data["derivatives"]
    got = mrfast.log_posterior(
        moments, expected["model"], golden_prior(data), golden_vector(expected["params"])
    )
    n = data["N"]
    assert got.value == pytest.approx(-n * expected["value"], rel=1e-8)
    np.testing.assert_allclose(got.gradient, -n * np.array(expected["gradient"]), rtol=1e-8)
    hessian = -n * np.array(expected["hessian"])
    np.testing.assert_allclose(got.hessian, hessian, rtol=1e-8, atol=1e-12 * np.abs(hessian).max())


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_optima(name):
    data = golden(name)
    moments, prior = golden_moments(data), golden_prior(data)
    for entry in data["laplace"]:
        for optimum in entry["optima"]:
            got = mrfast.log_posterior(moments, entry["model"], prior, optimum["par"])
            assert got.value == pytest.approx(-data["N"] * optimum["value"], abs=1e-6)
            term = mrfast.laplace_term(moments, entry["model"], prior, optimum["par"])
            assert term == pytest.approx(optimum["log_laplace"], abs=1e-6)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_hyperparameters(name):
    """Fails where the ratio of variances is squared, as the paper prints it."""
    data = golden(name)
    prior = mrfast.SpikeSlabPrior.empirical(golden_moments(data))
    assert prior.slab_sd == pytest.approx(data["hyperparameters"]["sd_slab"], rel=1e-8)
    assert prior.spike_sd == pytest.approx(data["hyperparameters"]["sd_spike"], rel=1e-8)


def test_laplace_term_refuses_a_saddle(moments):
    parameters = random_parameters(moments.J, 6)
    parameters[-4:-2] = 0
    prior = mrfast.SpikeSlabPrior(0.3, 0.01)
    parameters[-5] = 40
    with pytest.raises(ValueError, match="parameters: expected a point where the negative Hessian"):
        mrfast.laplace_term(moments, model_of(moments), prior, parameters)


# ---------------------------------------------------------------------- the prior


@pytest.mark.parametrize("j", [1, 2, 50])
@pytest.mark.parametrize("n", [300, 1e4, 1e9])
def test_empirical_prior_solves_its_equation(j, n):
    moments = summary_moments(j, int(n), pleiotropic=0, strength=0.05)
    prior = mrfast.SpikeSlabPrior.empirical(moments)
    s = moments.sufficient
    strengths = s.coefficients[0] ** 2 / s.residual_exposure
    assert prior.slab_sd**2 == pytest.approx(101 * strengths.mean())
    ratio = (prior.slab_sd / prior.spike_sd) ** 2
    assert ratio > 1
    if ratio < 1e12 * (1 - 1e-9):
        left = (moments.n + 1 - ratio) * 101 * strengths.min() / prior.slab_sd**2
        assert left == pytest.approx(-np.log(ratio), rel=1e-4)


def test_empirical_prior_with_a_candidate_of_no_strength():
    moments = summary_moments(4)
    zero = mrfast.Moments(
        n=moments.n,
        names=moments.names,
        sigma_g=moments.sigma_g,
        means=moments.means,
        variances=moments.variances,
        covariance_g=None,
        covariance_gxy=moments.covariance_gxy * np.array([[0, 1], [1, 1], [1, 1], [1, 1]]),
        covariance_xy=moments.covariance_xy,
    )
    prior = mrfast.SpikeSlabPrior.empirical(zero)
    assert prior.slab_sd / prior.spike_sd == pytest.approx(1e6)
    nothing = mrfast.Moments(
        n=moments.n,
        names=moments.names,
        sigma_g=moments.sigma_g,
        means=moments.means,
        variances=moments.variances,
        covariance_g=None,
        covariance_gxy=moments.covariance_gxy * np.array([0, 1]),
        covariance_xy=moments.covariance_xy,
    )
    with pytest.raises(ValueError, match="moments: expected at least one candidate"):
        mrfast.SpikeSlabPrior.empirical(nothing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slab_sd": 0, "spike_sd": 0.1}, "slab_sd: expected a number above 0"),
        ({"slab_sd": 1, "spike_sd": 1}, "spike_sd: expected a number below slab_sd"),
        ({"slab_sd": 1, "spike_sd": -1}, "spike_sd"),
        ({"slab_sd": 1, "spike_sd": 0.1, "slab_probability": 1}, "slab_probability"),
        ({"slab_sd": 1, "spike_sd": 0.1, "slab_probability": [0.2, 0]}, r"slab_probability\[1\]"),
        ({"slab_sd": 1, "spike_sd": 0.1, "effect_sd": np.inf}, "effect_sd: expected a finite"),
        ({"slab_sd": 1, "spike_sd": 0.1, "confounding_sd": "x"}, "confounding_sd: expected one"),
        ({"slab_sd": 1, "spike_sd": 0.1, "scale_power": np.nan}, "scale_power"),
    ],
)
def test_prior_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        mrfast.SpikeSlabPrior(**arguments)


def test_prior_is_frozen():
    prior = mrfast.SpikeSlabPrior(1, 0.1, [0.1, 0.2])
    with pytest.raises(AttributeError):
        prior.slab_sd = 2
    with pytest.raises(ValueError, match="read-only"):
        prior.slab_probability[0] = 0.3


@pytest.mark.parametrize(
    ("model", "parameters", "message"),
    [
        ([True] * 5, np.zeros(17), r"model: expected shape \(6,\), received shape \(5,\)"),
        ([0, 1, 2, 0, 0, 0], np.zeros(17), r"model: expected True \(slab\) or False"),
        ([True] * 6, np.zeros(16), r"parameters: expected shape \(17,\)"),
        ([True] * 6, np.full(17, np.nan), r"parameters: expected finite numbers"),
    ],
)
def test_log_posterior_refuses(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        mrfast.log_posterior(summary_moments(), model, mrfast.SpikeSlabPrior(1, 0.1), parameters)
