"""DeLIVR: the linear first stage, its residuals, the tests of the reduced form, and fits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, norm

torch = pytest.importorskip("torch")

from mrfast.errors import InvalidInputError, MrfastWarning  # noqa: E402
from mrfast.nonlinear import DeLIVR  # noqa: E402
from mrfast.nonlinear.iv_data import iv_data  # noqa: E402
from mrfast.nonlinear.reduced_form import (  # noqa: E402
    cross_fitted_prediction,
    reduced_form_tests,
    wald_p_value,
)

FAST = {"folds": 2, "outcome_max_epochs": 60, "outcome_hidden": (16,)}


def scenario(n, seed, *, effect, spread=lambda score: 0.6):
    rng = np.random.default_rng(seed)
    genotypes = rng.binomial(2, 0.3, (n, 10)).astype(np.int8)
    score = (genotypes - 0.6) @ np.full(10, np.sqrt(0.05 / 0.42))
    u = rng.normal(size=n)
    x = score + 0.35 * u + spread(score) * rng.normal(size=n)
    return genotypes, x, effect(x) - 0.7 * u + rng.normal(size=n)


def curve(x):
    return 0.3 * (x + 2) * (x - 1) + 1


def test_residuals_are_averaged_over():
    """Fails for the regression on the predicted exposure: it adds .3 residual variances."""
    data = scenario(6000, 1, effect=curve)
    fit = DeLIVR(outcome_hidden=(32,)).fit(*data)
    grid = np.linspace(*fit.exposure_central_, 50)
    assert np.mean((fit.effect(grid) - curve(grid)) ** 2) < 0.01
    with pytest.warns(MrfastWarning, match="only where that is linear"):
        published = DeLIVR(residuals="ignored", outcome_hidden=(32,)).fit(*data)
    middle = np.linspace(-0.5, 0.5, 20)
    variance = 0.35**2 + 0.6**2
    difference = np.mean(published.effect(middle) - curve(middle))
    assert difference == pytest.approx(0.3 * variance, abs=0.07)
    assert published.diagnostics_["linearity_p_value"] < 1e-4


def test_published_estimator_does_not_warn_where_the_effect_is_linear():
    data = scenario(3000, 12, effect=lambda x: 0.4 * x)
    fit = DeLIVR(residuals="ignored", **FAST).fit(*data)
    assert fit.diagnostics_["linearity_p_value"] > 0.05
    assert fit.diagnostics_["no_effect_p_value"] < 1e-6
    assert any("linear" in message for message in fit.messages_)
    assert float(fit.ate(-0.5, 0.5)) == pytest.approx(0.4, abs=0.12)


def test_spread_that_depends_on_the_instruments_is_told():
    data = scenario(3000, 3, effect=curve, spread=lambda score: np.exp(0.5 * score))
    fit = DeLIVR(**FAST).fit(*data)
    assert fit.diagnostics_["spread_p_value"] < 1e-3
    assert any("QuantileIV" in message for message in fit.messages_)


def test_law_of_the_exposure_has_the_moments_of_mean_and_residuals():
    """Fails for the plain mean over a few quantiles, whose variance is too small."""
    genotypes, x, y = scenario(4000, 4, effect=curve)
    seen = {}

    class Watched(DeLIVR):
        def _exposure_stage(self, *arguments):
            seen["stage"] = super()._exposure_stage(*arguments)
            return seen["stage"]

    Watched(**FAST).fit(genotypes, x, y)
    law, mean = seen["stage"].laws[0], seen["stage"].means[0]
    standard = (x - x.mean()) / x.std()
    np.testing.assert_allclose(law.nodes @ law.probabilities, mean, atol=1e-9)
    second = np.mean(law.nodes**2 @ law.probabilities)
    assert second == pytest.approx(np.mean(standard**2), rel=0.02)
    # The expectation in the loss, for a curve that is no polynomial: over everybody's residuals.
    residuals = standard - mean
    expected = [np.mean(np.cos(2 * (at + residuals))) for at in mean[:200]]
    np.testing.assert_allclose(np.cos(2 * law.nodes[:200]) @ law.probabilities, expected, atol=0.03)


def test_prediction_leaves_out_a_persons_fold():
    """Fails for the fit to everybody, which has seen the person's exposure."""
    genotypes, x, y = scenario(200, 5, effect=curve)
    c = np.random.default_rng(6).normal(size=200)
    families = np.arange(200) // 2
    data = iv_data(genotypes, x, y, c, clusters=families)
    columns = np.column_stack([np.ones(200), genotypes, c])
    ridge = np.sqrt((columns**2).sum(axis=0) / 200) * [0, *[1] * 11]
    expected = np.empty(200)
    for fold in range(5):
        others = families % 5 != fold
        stacked = np.vstack([columns[others], np.diag(ridge)])
        aims = np.concatenate([x[others], np.zeros(12)])
        slopes = np.linalg.lstsq(stacked, aims, rcond=None)[0]
        expected[~others] = columns[~others] @ slopes
    np.testing.assert_allclose(cross_fitted_prediction(data), expected, rtol=1e-8)


def test_wald_test_is_that_of_a_loop_over_clusters():
    """Fails for the variance of independent people with equal variances."""
    rng = np.random.default_rng(7)
    n, groups = 60, np.repeat(np.arange(20), 3)
    weight = rng.uniform(0.5, 2, n)
    weight /= weight.mean()
    data = iv_data(
        rng.normal(size=n),
        rng.normal(size=n),
        rng.normal(size=n),
        sample_weight=weight,
        clusters=groups,
    )
    others, tested = np.column_stack([np.ones(n), rng.normal(size=n)]), rng.normal(size=(n, 1))
    target = rng.normal(size=n) + np.repeat(rng.normal(size=20), 3)
    design = np.column_stack([others, tested])
    root = np.sqrt(weight)[:, None]
    slopes = np.linalg.lstsq(design * root, target * root[:, 0], rcond=None)[0]
    bread = np.linalg.inv(
        sum(w * np.outer(row, row) for w, row in zip(weight, design, strict=True))
    )
    meat = np.zeros((3, 3))
    for group in range(20):
        score = np.zeros(3)
        for i in np.flatnonzero(groups == group):
            score += weight[i] * design[i] * (target[i] - design[i] @ slopes)
        meat += np.outer(score, score)
    z = slopes[2] / np.sqrt((bread @ meat @ bread)[2, 2] * 20 / 19)
    assert wald_p_value(data, target, others, tested) == pytest.approx(
        2 * norm.sf(abs(z)), rel=1e-8
    )


@pytest.mark.slow
def test_tests_of_the_reduced_form_keep_their_size():
    """400 data sets with a confounded exposure: p-values of true hypotheses are uniform."""
    values = []
    for seed in range(400):
        genotypes, x, y = scenario(1000, 1000 + seed, effect=lambda x: 0 * x)
        tests = reduced_form_tests(iv_data(genotypes, x, y))
        values.append(list(tests.to_dict().values()))
    for column in np.array(values).T:
        assert kstest(column, "uniform").pvalue > 0.005


def test_two_samples_and_bootstrap():
    genotypes, x, _ = scenario(1500, 8, effect=curve)
    others, _, y = scenario(1500, 9, effect=lambda x: 0.5 * x)
    fit = DeLIVR(**FAST, n_bootstrap=3).fit(genotypes, x, stage2=(others, y))
    band = fit.effect([-0.5, 0.5], interval="pointwise")
    assert (band.upper > band.lower).all()
    assert 0.1 < float(fit.ate(-0.5, 0.5)) < 0.9


def test_binary_outcome_averages_probabilities():
    genotypes, x, _ = scenario(3000, 10, effect=curve)
    y = (np.random.default_rng(11).uniform(size=3000) < 1 / (1 + np.exp(-x))).astype(float)
    fit = DeLIVR(**FAST).fit(genotypes, x, y)
    far = fit.effect(np.array([-30.0, 0.0, 30.0]))
    assert 0 <= far.min() <= far.max() <= 1
    assert far[1] == pytest.approx(0.5, abs=0.08)


def test_options_that_are_not_usable():
    with pytest.raises(InvalidInputError, match=r"^residuals"):
        DeLIVR(residuals="all")
    with pytest.raises(InvalidInputError, match=r"^outcome_hidden"):
        DeLIVR(outcome_hidden=(0,))
