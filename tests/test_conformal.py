"""Conformal prediction intervals: the quantile, its groups, shapes of intervals, and fits."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mrfast.nonlinear as nonlinear
from mrfast.errors import InvalidInputError
from mrfast.nonlinear.conformal import (
    LEVELS,
    ConformalCurve,
    ConstantShape,
    conformal_quantiles,
)
from mrfast.nonlinear.fitted_curve import FittedCurve
from mrfast.nonlinear.iv_data import iv_data


class Line(FittedCurve):
    """f(x, c) = x + c, whose covariate has mean 0."""

    kind = "line"

    def values(self, x, covariates):
        return x if covariates is None else x + covariates[:, 0]

    def limits(self, interval, level, x, covariates, reference):
        raise AssertionError

    def state(self, keep_covariates):
        return {}, {}

    @classmethod
    def from_state(cls, values, arrays):
        return cls()


def quantile(scores, level, **options):
    scores = np.asarray(scores, dtype=float)
    return float(conformal_quantiles(scores, np.array([level]), **options)[0])


def test_quantile_counts_the_new_person():
    """Fails for the plain quantile, which takes rank n times level."""
    rng = np.random.default_rng(1)
    for n, level in ((9, 0.9), (19, 0.9), (50, 0.95), (99, 0.9), (30, 0.5)):
        scores = rng.normal(size=n)
        rank = math.ceil((n + 1) * level - 1e-9)
        expected = np.sort(scores)[rank - 1] if rank <= n else np.inf
        assert quantile(scores, level) == expected
    assert quantile(np.arange(8.0), 0.9) == np.inf


def test_weighted_and_grouped_quantile_by_hand():
    scores = [1.0, 2.0, 3.0, 4.0]
    weight = np.array([1.0, 1.0, 3.0, 1.0])
    # Masses 1, 1, 3, 1 and 3 for the new person, of 9: 2/9, 5/9, 6/9.
    assert quantile(scores, 0.2, sample_weight=weight) == 2.0
    assert quantile(scores, 0.5, sample_weight=weight) == 3.0
    assert quantile(scores, 0.6, sample_weight=weight) == 4.0
    assert quantile(scores, 0.7, sample_weight=weight) == np.inf
    clusters = np.array([0, 0, 1, 2])
    assert quantile(scores, 0.6, clusters=clusters) == 4.0  # 4 of 4 + 2 are .67
    assert quantile(scores, 0.7, clusters=clusters) == np.inf


def test_coverage_is_at_least_nominal_in_few_people():
    """Over many calibrations of 15 people; the plain quantile covers about .06 less."""
    rng = np.random.default_rng(2)
    covered, plain = [], []
    for _ in range(4000):
        scores = rng.exponential(size=15)
        new = rng.exponential()
        covered.append(new <= quantile(scores, 0.8))
        plain.append(new <= np.quantile(scores, 0.8))
    assert np.mean(covered) == pytest.approx(13 / 16, abs=0.02)  # rank 13 of 16
    assert np.mean(plain) < 0.79


def test_people_of_a_new_family_are_covered():
    """Families of 1 or 10 who are alike: a rule that counts people as independent covers less."""
    rng = np.random.default_rng(3)
    covered, counted = [], []
    for _ in range(3000):
        sizes = np.full(11, 10)
        families = np.repeat(np.arange(11), sizes)
        scores = rng.exponential(size=11)[families] + 0.01 * rng.exponential(size=110)
        new = rng.exponential() + 0.01 * rng.exponential()
        covered.append(new <= quantile(scores, 0.8, clusters=families))
        counted.append(new <= quantile(scores, 0.8))
    assert np.mean(covered) > 0.79
    assert np.mean(counted) < np.mean(covered) - 0.02


@pytest.fixture
def people():
    rng = np.random.default_rng(4)
    c = rng.normal(size=2000)
    x = rng.normal(size=2000)
    return iv_data(rng.normal(size=2000), x, x + c + rng.normal(size=2000), c)


def test_interval_with_known_and_unknown_covariates(people):
    """Fails if people of unknown covariates get the width of those whose covariates are known."""
    curve = ConformalCurve.calibrated(Line(), ConstantShape(), people)
    x = np.array([-1.0, 2.0])
    low, high = curve.limits("conformal", 0.9, x, np.ones((2, 1)), None)
    np.testing.assert_allclose((low + high) / 2, x + 1)
    np.testing.assert_allclose(high - low, 2 * 1.645, rtol=0.06)
    low, high = curve.limits("conformal", 0.9, x, None, None)
    np.testing.assert_allclose(high - low, 2 * 1.645 * np.sqrt(2), rtol=0.06)


def test_levels_between_two_take_the_upper_one(people):
    curve = ConformalCurve.calibrated(Line(), ConstantShape(), people)
    x = np.zeros(1)
    widths = [curve.limits("conformal", level, x, None, None)[1][0] for level in (0.9, 0.905, 0.91)]
    assert widths[0] < widths[1] == widths[2]
    with pytest.raises(InvalidInputError, match=r"^level.*0\.999"):
        curve.limits("conformal", 0.9999, x, None, None)
    assert (np.diff(curve.units, axis=0) >= 0).all()
    assert len(LEVELS) == len(curve.units)


def test_a_difference_has_no_prediction_interval(people):
    curve = ConformalCurve.calibrated(Line(), ConstantShape(), people)
    with pytest.raises(InvalidInputError, match="prediction interval"):
        curve.limits("conformal", 0.9, np.zeros(1), None, np.ones(1))


# ---------------------------------------------------------------------- with networks


@pytest.fixture
def networks():
    torch = pytest.importorskip("torch")
    from mrfast.nonlinear.networks import prediction_networks
    from mrfast.nonlinear.networks.network_estimator import TrainingRun

    return torch, prediction_networks, TrainingRun


def settings(networks, **options):
    torch, module, run = networks
    return {
        "options": module.PredictionOptions(hidden=(32, 16), **options),
        "run": run(),
        "generator": np.random.default_rng(0),
        "device": torch.device("cpu"),
    }


def test_pinball_loss_is_smallest_at_the_quantile(networks):
    """Fails for the loss of the other tail; the minimum over constants is known in closed form."""
    torch, module, _ = networks
    outcomes = torch.as_tensor((np.arange(2000) + 0.5) / 2000)
    for level in (0.1, 0.8):
        losses = [
            float(module.pinball_loss(outcomes - at, torch.tensor(level)).mean())
            for at in (level - 0.02, level, level + 0.02)
        ]
        assert losses[1] < min(losses[0], losses[2])
        # Uniform law: E loss = level (1 - level) / 2 at the quantile.
        assert losses[1] == pytest.approx(level * (1 - level) / 2, abs=1e-6)


def test_residual_network_learns_where_people_vary_more(networks):
    """Fails for the variance, or for a unit that does not change with the exposure."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-2, 2, 4000)
    scale = np.exp(0.5 * x)
    residuals = scale * rng.normal(size=4000)
    people = iv_data(rng.normal(size=4000), x, residuals)
    shape = networks[1].train_residual_scale(residuals, people, **settings(networks))
    at = np.array([-1.5, 0.0, 1.5])
    unit = shape.ends(0.9, np.zeros(3), at, None)[2]
    np.testing.assert_allclose(unit / unit[1], np.exp(0.5 * at), rtol=0.2)
    back = type(shape).from_state(*shape.state())
    np.testing.assert_array_equal(back.ends(0.9, np.zeros(3), at, None)[2], unit)


def test_quantile_network_learns_all_levels(networks):
    rng = np.random.default_rng(6)
    x = rng.uniform(-1, 1, 6000)
    y = x + (1 + 0.5 * x) * rng.normal(size=6000)
    people = iv_data(rng.normal(size=6000), x, y)
    shape = networks[1].train_quantile_ends(
        x[:, None], np.ones(1), people, **settings(networks, max_epochs=40)
    )
    at = np.array([-0.7, 0.0, 0.7])
    low, high, _ = shape.ends(0.8, at, at, None)
    np.testing.assert_allclose(high, at + 1.2816 * (1 + 0.5 * at), atol=0.2)
    np.testing.assert_allclose(low, at - 1.2816 * (1 + 0.5 * at), atol=0.2)


def test_quantile_network_averages_over_nodes(networks):
    """Fails if the network is compared at the mean of the nodes: q is a square here."""
    rng = np.random.default_rng(7)
    z = rng.uniform(-1.5, 1.5, 6000)
    nodes = z[:, None] + np.array([-1.0, 0.0, 1.0])
    y = z**2 + 0.5 + 0.05 * rng.normal(size=6000)  # the mean of x^2 over the nodes
    law = np.array([0.25, 0.5, 0.25])
    people = iv_data(z, nodes[np.arange(6000), rng.choice(3, 6000, p=law)], y)
    shape = networks[1].train_quantile_ends(nodes, law, people, **settings(networks, max_epochs=40))
    at = np.linspace(-1.5, 1.5, 31)
    error = shape.quantiles(0.5, at, None) - at**2
    assert abs(error.mean()) < 0.15
    assert np.abs(error).max() < 0.4


def simulated(n, seed):
    rng = np.random.default_rng(seed)
    z, u = rng.normal(size=(n, 2)), rng.normal(size=n)
    x = z @ [0.6, 0.4] + 0.4 * u + 0.5 * rng.normal(size=n)
    return z, x, 0.5 * x**2 - 0.7 * u + np.exp(0.3 * x) * rng.normal(size=n)


FAST = {"n_networks": 1, "max_epochs": 6, "patience": 3, "hidden": (16,), "batch_size": 500}


@pytest.mark.parametrize("score", ["absolute", "residual_network", "simultaneous_quantile"])
def test_fits_predict_new_people(networks, score, tmp_path):
    fit = nonlinear.DFIV(**FAST, calibration_proportion=0.25, conformal_score=score)
    fit.fit(*simulated(3000, 8))
    _, x, y = simulated(20_000, 9)
    band = fit.effect(x, interval="conformal", level=0.9)
    # 750 people calibrate: the standard deviation of the coverage is about .011.
    assert np.mean((band.lower <= y) & (y <= band.upper)) == pytest.approx(0.9, abs=0.035)
    assert "not for the causal curve" in band.method
    assert any("no limits of the causal curve" in message for message in fit.messages_)
    if score == "residual_network":
        widths = fit.effect([-1.5, 1.5], interval="conformal")
        assert np.diff(widths.upper - widths.lower)[0] > 0.5
    fit.save(tmp_path)
    back = nonlinear.load(tmp_path)
    again = back.effect(x[:50], interval="conformal", level=0.9)
    np.testing.assert_allclose(again.upper, band.upper[:50], rtol=1e-12)


def test_simultaneous_quantiles_of_quantile_iv(networks):
    fit = nonlinear.QuantileIV(
        hidden=(16,),
        outcome_hidden=(16,),
        max_epochs=5,
        outcome_max_epochs=30,
        outcome_networks=1,
        folds=2,
        uncertainty="simultaneous_quantile",
    ).fit(*simulated(3000, 12))
    _, x, y = simulated(20_000, 13)
    band = fit.effect(x, interval="conformal", level=0.8)
    assert np.mean((band.lower <= y) & (y <= band.upper)) == pytest.approx(0.8, abs=0.05)
    assert fit.diagnostics_["calibration_people"] == 600
    assert np.isfinite(fit.effect(0.0))


def test_calibration_people_are_not_in_the_fit(networks):
    """Fails if families are divided between the fit and its calibration."""
    from mrfast.nonlinear.networks.prediction_intervals import calibration_split

    rng = np.random.default_rng(10)
    families = rng.integers(0, 150, 600)
    data = iv_data(rng.normal(size=600), np.arange(600.0), rng.normal(size=600), clusters=families)
    fit, calibration = calibration_split(data, 0.3, rng)
    assert sorted([*fit.exposure, *calibration.exposure]) == list(range(600))
    in_fit = set(families[fit.exposure.astype(int)])
    assert not in_fit & set(families[calibration.exposure.astype(int)])
    assert calibration.n == pytest.approx(180, abs=15)


def test_binary_outcomes_and_contrasts_are_refused(networks):
    z, x, y = simulated(300, 11)
    with pytest.raises(InvalidInputError, match=r"^calibration_proportion"):
        nonlinear.DFIV(**FAST, calibration_proportion=0.2).fit(z, x, (y > 0).astype(float))
    fit = nonlinear.DFIV(**FAST, calibration_proportion=0.3, conformal_score="absolute")
    fit.fit(z, x, y)
    with pytest.raises(InvalidInputError, match="predicts Y, not differences"):
        fit.ate(0.0, 1.0, interval="conformal")
