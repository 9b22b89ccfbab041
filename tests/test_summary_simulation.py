"""Simulated two-sample summary data: the law of every scenario, reproducibility, tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.simulation import SCENARIOS, summary_data

MANY = 40_000
DIRECT = {
    "balanced": (0.5, 0.0, 0.01),
    "directional": (0.3, 0.01, 0.005),
    "outliers": (0.3, 0.03, 0.02),
}


def same_law(values, law):
    return stats.kstest(values, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_associations_are_the_truth_plus_independent_errors_of_the_stated_size(scenario):
    """Wrong formula: an outcome association without alpha, or with theta times beta_exposure."""
    data = summary_data(scenario, MANY, 90_000, 0.4, rng=1, n_outcome=40_000)
    assert (data.se_exposure == 1 / 300).all()
    assert (data.se_outcome == 1 / 200).all()
    x = (data.beta_exposure - data.gamma) * 300
    y = (data.beta_outcome - 0.4 * data.gamma - data.alpha) * 200
    assert same_law(x, stats.norm())
    assert same_law(y, stats.norm())
    for one, other in ((x, y), (x, data.gamma), (y, data.gamma), (y, data.alpha)):
        if np.std(other) > 0:
            assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(MANY)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_valid_snps_explain_the_variance_of_the_law_and_act_through_the_exposure_alone(scenario):
    """Wrong formula: gamma itself exponential, instead of its square."""
    data = summary_data(scenario, MANY, rng=2)
    explained = data.gamma[data.valid] ** 2
    assert same_law(explained - 3e-4, stats.expon(scale=4e-4))
    assert (data.alpha[data.valid] == 0).all()
    assert (data.gamma > 0).all()
    assert 1 - data.valid.mean() == pytest.approx(SCENARIOS[scenario].share)


@pytest.mark.parametrize("scenario", sorted(DIRECT))
def test_direct_effects_are_independent_of_the_effects_on_the_exposure(scenario):
    share, mean, sd = DIRECT[scenario]
    data = summary_data(scenario, MANY, rng=3)
    alpha, gamma = data.alpha[~data.valid], data.gamma[~data.valid]
    assert len(alpha) == share * MANY
    assert same_law(alpha, stats.norm(mean, sd))
    assert same_law(gamma**2 - 3e-4, stats.expon(scale=4e-4))
    assert abs(np.corrcoef(alpha, gamma)[0, 1]) < 4 / np.sqrt(len(alpha))


def test_a_confounder_moves_exposure_and_outcome_together():
    """Wrong formula: InSIDE broken on the outcome alone, gamma left as it was."""
    data = summary_data("inside_violated", MANY, rng=4)
    bad = ~data.valid
    h = np.abs(stats.norm(0, 0.03).rvs(bad.sum(), random_state=5))
    base = np.sqrt(3e-4 + stats.expon(scale=4e-4).rvs(bad.sum(), random_state=6))
    assert stats.ks_2samp(data.gamma[bad], base + h).pvalue > 1e-3
    noise = stats.norm(0, 0.003).rvs(bad.sum(), random_state=7)
    assert stats.ks_2samp(data.alpha[bad], h / 2 + noise).pvalue > 1e-3
    expected = 0.5 * np.var(h) / np.sqrt((0.25 * np.var(h) + 0.003**2) * (np.var(h) + np.var(base)))
    assert np.corrcoef(data.gamma[bad], data.alpha[bad])[0, 1] == pytest.approx(expected, abs=0.03)


def test_the_strength_is_that_of_the_sample_size():
    """Mean F is 1 + 7e-4 n, by E(gamma^2) = 7e-4."""
    data = summary_data("none", MANY, 100_000, rng=8)
    f = (data.beta_exposure / data.se_exposure) ** 2
    assert f.mean() == pytest.approx(71, rel=0.02)


def test_overlap_is_the_correlation_of_the_errors():
    data = summary_data("none", MANY, 100_000, 0.2, rng=9, overlap=-0.6)
    x = data.beta_exposure - data.gamma
    y = data.beta_outcome - 0.2 * data.gamma
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(-0.6, abs=4 / np.sqrt(MANY))
    assert same_law(y / data.se_outcome, stats.norm())


def test_a_seed_repeats_and_theta_changes_nothing_else():
    one, again = (summary_data("outliers", 30, rng=1) for _ in range(2))
    for name, values in one.arrays.items():
        np.testing.assert_array_equal(values, again.arrays[name])
    null = summary_data("outliers", 30, theta=0, rng=1)
    np.testing.assert_array_equal(null.beta_exposure, one.beta_exposure)
    np.testing.assert_allclose(one.beta_outcome - null.beta_outcome, 0.1 * one.gamma, atol=1e-16)
    assert not one.beta_exposure.flags.writeable
    assert not np.array_equal(summary_data("outliers", 30, rng=2).alpha, one.alpha)


@pytest.mark.parametrize(("n_snps", "share", "invalid"), [(1, 1.0, 1), (7, 0.5, 4), (9, 0.0, 0)])
def test_share_of_invalid_snps(n_snps, share, invalid):
    data = summary_data("balanced", n_snps, share=share, rng=1)
    assert (~data.valid).sum() == invalid


def test_tables_harmonise_back_to_the_arrays():
    data = summary_data("outliers", 40, 50_000, n_outcome=20_000, rng=3)
    exposure, outcome = data.tables(rng=4)
    assert list(exposure) == list(outcome)
    assert (exposure["n"] == 50_000).all()
    assert (outcome["n"] == 20_000).all()
    np.testing.assert_allclose(
        outcome["p_value"],
        2 * stats.norm.sf(np.abs(outcome["beta"] / outcome["std_error"])),
        rtol=1e-10,
    )
    assert 5 < (exposure["beta"] < 0).sum() < 35
    kept = mrfast.harmonise(exposure, outcome.sample(frac=1, random_state=1)).kept
    assert len(kept) == 40
    sign = np.sign(kept["beta_exposure"])
    np.testing.assert_allclose(sign * kept["beta_exposure"], data.beta_exposure)
    np.testing.assert_allclose(sign * kept["beta_outcome"], data.beta_outcome)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"scenario": "valid"}, "scenario"),
        ({"n_snps": 0}, "n_snps"),
        ({"n": 1}, "n"),
        ({"n_outcome": 2.5}, "n_outcome"),
        ({"theta": np.nan}, "theta"),
        ({"share": 1.1}, "share"),
        ({"share": 0.1}, "share"),
        ({"overlap": 1.5}, "overlap"),
        ({"rng": -1}, "rng"),
    ],
)
def test_bad_input_is_refused(arguments, named):
    with pytest.raises(InvalidInputError, match=f"^{named}:"):
        summary_data(**arguments)
