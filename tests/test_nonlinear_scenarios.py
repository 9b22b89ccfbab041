"""Scenarios of nonlinear MR: each follows its equations, and its truth is that of its generator."""

from __future__ import annotations

import importlib.util
import json
import re

import numpy as np
import pytest
from scipy import integrate, stats

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.nonlinear import SieveIV
from mrfast.simulation import (
    NONLINEAR_SCENARIOS,
    binary_outcome,
    burgess_2014,
    effect_modifier,
    families,
    measured_covariates,
    poster_simple,
    selected_sample,
    single_instrument,
    tian_2022,
)
from mrfast.simulation.true_curves import CURVES, true_curve

MANY = 200_000
REFERENCE_NAMES = {
    "poster_h0.5": "poster_simple",
    "poster_h0.2": "poster_h2_0.2",
    "burgess": "burgess_2014",
    **{f"{kind}{i}": f"tian_{kind}{i}" for kind in "ABCD" for i in (1, 2, 3)},
    "A4": "A_sine",
    "A5": "A_logistic",
    "E2": "E_quadratic",
    "H2": "H_quadratic",
    "weak0.1": "weak_0.1",
    "mw": "many_weak",
    "N2": "unobserved_modifier",
}


@pytest.mark.parametrize("name", list(NONLINEAR_SCENARIOS))
def test_every_scenario_runs_and_its_seed_gives_the_same_people(name: str) -> None:
    scenario = NONLINEAR_SCENARIOS[name]
    one, other, longer = (scenario(n, rng=3) for n in (300, 300, 350))
    assert one.name == name
    assert one.n == 300
    assert one.instruments.shape[0] == 300
    assert np.isfinite(one.exposure).all()
    assert set(one.arrays) == set(other.arrays)
    for key, values in one.arrays.items():
        np.testing.assert_array_equal(values, other.arrays[key])
        np.testing.assert_array_equal(values, longer.arrays[key][:300])
        assert not np.asarray(getattr(one, key)).flags.writeable
    assert not np.array_equal(one.outcome, scenario(300, rng=4).outcome)
    x = np.linspace(-2, 2, 6).reshape(2, 3)
    assert one.true_effect(x).shape == (2, 3)
    assert one.true_effect(0.5).shape == ()
    assert len(one.to_frame().columns) == len(set(one.to_frame().columns))


@pytest.mark.parametrize(
    "name", [name for name in NONLINEAR_SCENARIOS if not re.search("weak|binary|unobserved", name)]
)
def test_the_truth_is_the_outcome_that_an_intervention_would_give(name: str) -> None:
    """E[Y - f(X) | Z] = 0, whatever the confounding, where the effect is the same for all.

    Fails where f is the observed regression E[Y | X], and with a threshold of the other sign.
    """
    data = NONLINEAR_SCENARIOS[name](MANY, rng=11)
    effect = data.true_effect(data.exposure)
    if data.conditional_effect is not None:
        assert data.covariates is not None
        effect = data.conditional_effect(data.exposure, data.covariates)
    residual = data.outcome - effect
    if name.startswith("measured"):
        residual = residual - data.covariates @ [0.5, 0.3] + 0.12
    weight = np.ones(MANY) if data.sample_weight is None else data.sample_weight
    z = data.instruments[:, 0] - np.average(data.instruments[:, 0], weights=weight)
    for function in (np.ones(MANY), z, z**2 - np.average(z**2, weights=weight)):
        moments = weight * residual * function
        if data.clusters is not None:
            moments = np.bincount(data.clusters, moments)
        assert abs(moments.sum()) < 4.5 * np.sqrt((moments**2).sum())
    confounding = np.corrcoef(data.exposure, residual)[0, 1]
    assert abs(confounding) > 0.04


@pytest.mark.parametrize("exposure", list("ABCD"))
@pytest.mark.parametrize("outcome", [1, 2, 3])
def test_tian_follows_its_equations(exposure: str, outcome: int) -> None:
    data = tian_2022(20_000, rng=5, exposure=exposure, outcome=outcome)
    base = tian_2022(20_000, rng=5, exposure="A", outcome=1)
    z, x = data.instruments[:, 0], data.exposure
    np.testing.assert_array_equal(z, base.instruments[:, 0])
    if exposure == "B":
        extra = x - base.exposure
        np.testing.assert_allclose(extra, [2 * v**3 + 2 if v <= -1 else 0 for v in z], atol=1e-12)
        assert (z <= -1).any()
    if exposure == "D":
        np.testing.assert_array_equal(x, np.round(base.exposure))
    if exposure == "C":
        assert stats.linregress(z, x).slope == pytest.approx(1.5, abs=0.1)
        assert x.mean() == pytest.approx(-10, abs=0.1)
    noise = base.outcome  # U + e_Y
    expected = {
        1: [0.0 for _ in x],
        2: [0.1 * v * v for v in x],
        3: [-0.1 * v * v if v <= 0 else 0.0 for v in x],
    }[outcome]
    np.testing.assert_allclose(data.outcome - noise, expected, atol=1e-10)
    np.testing.assert_allclose(data.true_effect(x), expected, atol=1e-12)
    assert z.std() == pytest.approx(0.5, rel=0.03)


def test_poster_variances() -> None:
    """X has variance 1, of which the variants explain h2, and not h2 / (1 - h2)."""
    for h2, slope in ((0.2, 0.35), (0.5, -0.5), (0.8, 0.25)):
        data = poster_simple(MANY, rng=2, h2=h2, beta_ux=slope)
        assert data.exposure.var() == pytest.approx(1, abs=0.02)
        g = data.instruments - data.instruments.mean(axis=0)
        fitted = g @ np.linalg.lstsq(g, data.exposure - data.exposure.mean(), rcond=None)[0]
        assert fitted.var() == pytest.approx(h2, abs=0.02)
        frequencies = data.instruments.mean(axis=0) / 2
        assert frequencies == pytest.approx(data.parameters["frequencies"], abs=0.005)
        assert frequencies.min() > 0.19
        assert frequencies.max() < 0.46
        residual = data.outcome - data.true_effect(data.exposure)
        assert residual.var() == pytest.approx(1 + 0.7**2, rel=0.02)
        assert np.cov(residual, data.exposure)[0, 1] == pytest.approx(-0.7 * slope, abs=0.02)
    assert data.instruments.dtype == np.int8
    assert data.instruments.shape == (MANY, 20)
    with pytest.raises(InvalidInputError, match="below 1"):
        poster_simple(10, h2=0.8, beta_ux=0.5)


def test_burgess_moments() -> None:
    """The truth includes the confounder's mean 0.8 E[U] = 0.4."""
    data = burgess_2014(MANY, rng=1)
    assert data.instruments.shape == (MANY, 1)
    assert data.instruments.mean() == pytest.approx(0.6, abs=0.01)
    assert data.exposure.mean() == pytest.approx(0.25 * 0.6 + 0.5 + 1, abs=0.02)
    variance = 0.0625 * 0.42 + 1 / 12 + 1
    assert data.exposure.var() == pytest.approx(variance, rel=0.03)
    residual = data.outcome - data.true_effect(data.exposure)
    assert residual.mean() == pytest.approx(0, abs=0.02)
    assert data.true_effect(1.0) == pytest.approx(0.4)


@pytest.mark.parametrize("link", ["probit", "logit"])
def test_binary_truth_averages_the_risk_over_the_confounder(link: str) -> None:
    """Fails where the index, and not the probability, is averaged."""
    data = binary_outcome(MANY, rng=7, link=link)
    assert set(np.unique(data.outcome)) == {0.0, 1.0}
    cdf = stats.norm.cdf if link == "probit" else stats.logistic.cdf
    for x in (-3.0, 0.0, 1.5):
        index = -0.5 + 0.6 * x - 0.15 * x * x
        risk, _ = integrate.quad(
            lambda u, index=index: stats.norm.pdf(u) * cdf(index + 0.8 * u), -12, 12, epsabs=1e-13
        )
        assert data.true_effect(x) == pytest.approx(risk, abs=1e-11)
    # Instruments move the risk as the truth, averaged over P(X | Z, U), says.
    rng = np.random.default_rng(0)
    z = data.instruments[:, 0]
    near = np.abs(z - 1) < 0.1
    u = rng.standard_normal(400_000)
    x = 0.7 * z[near].mean() + u + rng.standard_normal(u.size)
    expected = cdf(-0.5 + 0.6 * x - 0.15 * x**2 + 0.8 * u).mean()
    assert data.outcome[near].mean() == pytest.approx(expected, abs=4 * 0.5 / near.sum() ** 0.5)


def test_unobserved_modifier_shifts_the_moment() -> None:
    """E[Y - f(X) | Z] = 0.3 E[U X | Z] = 0.3 everywhere: the shape is identified, not the level."""
    data = NONLINEAR_SCENARIOS["unobserved_modifier"](MANY, rng=2)
    residual = data.outcome - data.true_effect(data.exposure)
    fit = stats.linregress(data.instruments[:, 0], residual)
    assert fit.intercept == pytest.approx(0.3, abs=4 * fit.intercept_stderr)
    assert fit.slope == pytest.approx(0, abs=4 * fit.stderr)


@pytest.mark.parametrize("slope", ["quadratic", "linear", "logistic", "sine"])
def test_effect_modifier_averages_to_its_truth(slope: str) -> None:
    data = effect_modifier(2_000, rng=3, slope=slope)
    assert data.conditional_effect is not None
    for x in (-1.0, 2.0):
        mean, _ = integrate.quad(
            lambda m, x=x: stats.norm.pdf(m) * float(data.conditional_effect(x, [m])), -9, 9
        )
        assert mean == pytest.approx(float(data.true_effect(x)), abs=1e-7)
    rows = np.array([[0.0], [1.0], [2.0]])
    assert data.conditional_effect(1.0, rows).shape == (3,)


def test_covariates_confound_the_instrument() -> None:
    data = measured_covariates(MANY, rng=1)
    assert data.covariate_names == ("age", "sex")
    residual = data.outcome - data.true_effect(data.exposure)
    z = data.instruments[:, 0]
    assert abs(np.corrcoef(z, residual)[0, 1]) > 0.1
    rest = residual - data.covariates @ [0.5, 0.3]
    assert abs(np.corrcoef(z, rest)[0, 1]) < 0.01


def test_families_resemble_each_other() -> None:
    data = families(40_000, rng=1)
    np.testing.assert_array_equal(np.bincount(data.clusters), np.full(10_000, 4))
    z = data.instruments[:, 0].reshape(-1, 4)
    assert np.corrcoef(z[:, 0], z[:, 3])[0, 1] == pytest.approx(0.8, abs=0.02)
    y = (data.outcome - data.true_effect(data.exposure)).reshape(-1, 4)
    assert np.cov(y[:, 0], y[:, 2])[0, 1] == pytest.approx(0.5, abs=0.05)


def test_selection_needs_its_weights() -> None:
    data = selected_sample(MANY, rng=1)
    assert data.sample_weight.min() >= 1
    residual = data.outcome - data.true_effect(data.exposure)
    z = data.instruments[:, 0]
    unweighted = (residual * z).mean() / (residual * z).std() * MANY**0.5
    assert abs(unweighted) > 5
    assert abs(residual.mean()) > 0.2  # the level too
    assert np.average(data.exposure, weights=data.sample_weight) == pytest.approx(0, abs=0.03)


def test_sharp_curves_are_as_sharp_as_they_say() -> None:
    steep = true_curve("steep_step", mean=1, sd=2)
    np.testing.assert_allclose(steep(np.array([0.8, 1.2])), [0.1, 0.9], atol=1e-12)
    np.testing.assert_allclose(true_curve("logistic_step")(0.2), 1 / (1 + np.exp(-1)))
    bends = true_curve("two_bends")
    np.testing.assert_allclose(bends(np.array([-3.0, 0, 3])), [0, 0.5, 1], atol=1e-9)
    hill = true_curve("rise_and_fall", mean=1, sd=2)
    np.testing.assert_allclose(hill(np.array([-0.6, 1, 2.6])), [0.5, 0.96402758, 0.5], atol=4e-4)
    np.testing.assert_array_equal(true_curve("jump")([-1e-9, 0, 1e-9]), [0, 0, 1])
    assert set(CURVES) >= {"sine", "logistic", "threshold", "poster", "null"}


def test_weak_and_many_instruments_have_their_strength() -> None:
    for strength, expected in ((0.2, 50), (0.1, 12), (0.05, 3)):
        found = []
        for seed in range(20):
            data = single_instrument(10_000, rng=seed, strength=strength)
            r = np.corrcoef(data.instruments[:, 0], data.exposure)[0, 1]
            found.append(1e4 * r * r / (1 - r * r))
        assert np.mean(found) == pytest.approx(expected + 1, rel=0.35)
    data = NONLINEAR_SCENARIOS["many_weak"](5_000, rng=1)
    effects = data.parameters["effects"]
    assert (effects**2).sum() == pytest.approx(0.1)
    assert 60 < (effects < 0).sum() < 140


def test_saved_scenario_has_its_truth(tmp_path) -> None:
    import pandas as pd

    data = binary_outcome(50, rng=9, link="logit")
    table, parameters = data.save(tmp_path / "case")
    frame = pd.read_csv(table, dtype=str).astype(float)  # float() reads exactly
    assert list(frame.columns) == ["z", "exposure", "outcome"]
    np.testing.assert_array_equal(frame["exposure"], data.exposure)
    content = json.loads(parameters.read_text())
    assert content["seed"] == 9
    assert content["mrfast_version"] == mrfast.__version__
    np.testing.assert_allclose(
        content["true_effect"]["effect"], data.true_effect(content["true_effect"]["x"])
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tian_2022(10, exposure="E"), "exposure"),
        (lambda: tian_2022(10, outcome=4), "outcome"),
        (lambda: single_instrument(10, curve="wiggle"), "curve"),
        (lambda: poster_simple(0), "n:"),
        (lambda: poster_simple(10, frequencies=(0.5, 0.2)), "frequencies"),
        (lambda: poster_simple(10, rng="seed"), "rng"),
        (lambda: single_instrument(10, exposure="E", strength=0.1), "strength"),
        (lambda: NONLINEAR_SCENARIOS["tian_A2"](10, outcome=3), "outcome: expected an option"),
        (lambda: NONLINEAR_SCENARIOS["weak_0.1"](10, h2=0.3), "h2: expected an option"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


@pytest.mark.reference
def test_laws_are_those_of_the_reference_generator(reference_dir) -> None:
    """An independent generator of the same scenarios gives the same laws of X and Y - f(X)."""
    path = reference_dir / "golden" / "sieve_iv" / "generator.py"
    spec = importlib.util.spec_from_file_location("reference_generator", path)
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    x = np.linspace(-12, 4, 50)
    for theirs, name in REFERENCE_NAMES.items():
        _, exposure, outcome, truth = generator.make(theirs, 20_000, 3)
        data = NONLINEAR_SCENARIOS[name](20_000, rng=3)
        np.testing.assert_allclose(data.true_effect(x), truth(x), atol=1e-12, err_msg=name)
        residual = data.outcome - data.true_effect(data.exposure)
        for one, other in ((exposure, data.exposure), (outcome - truth(exposure), residual)):
            assert stats.ks_2samp(one, other).pvalue > 1e-4, name
        product = residual * (data.exposure - data.exposure.mean())
        expected = (outcome - truth(exposure)) * (exposure - exposure.mean())
        error = np.sqrt((product.var() + expected.var()) / 20_000)
        assert abs(product.mean() - expected.mean()) < 4 * error, name


def test_names_of_covariates_go_into_a_fit() -> None:
    """`arrays` alone, without names, cannot say which covariate is the modifier."""
    data = effect_modifier(600, rng=1)
    table = data.arrays["covariates"]
    assert tuple(table.columns) == data.covariate_names == ("m",)
    assert np.shares_memory(table.to_numpy(), data.covariates)
    fitted = SieveIV(effect_modifiers=["m"]).fit(**data.arrays)
    assert fitted.covariate_names_ == ("m",)
