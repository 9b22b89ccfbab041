"""Medusa's simulators: the law of the people, reproducibility, the truth that comes with them."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from mrfast.errors import InvalidInputError
from mrfast.simulation import (
    _federated_people,
    federated_cohorts,
    federated_sites,
    medusa_cohort,
    medusa_covariates,
    medusa_instruments,
    medusa_negative_controls,
    medusa_site_profiles,
)

ASSOCIATION = ["snp", "effect_allele", "other_allele", "eaf", "beta", "std_error", "p_value", "n"]
N = 200_000


def slope_given(x, y, others=None):
    """Coefficient of x in a least-squares regression of y, and its standard error."""
    columns = [np.ones(len(x)), *([] if others is None else others.T), x]
    design = np.stack(columns, axis=1)
    inverse = np.linalg.inv(design.T @ design)
    b = inverse @ (design.T @ y)
    residual = y - design @ b
    return b[-1], np.sqrt(inverse[-1, -1] * (residual @ residual) / len(y))


# ------------------------------------------------------------------------------ the law


@pytest.fixture(scope="module")
def large():
    return medusa_cohort(N, 6, effect=0.4, confounding=0.5, rng=1)


def test_exposure_follows_its_equation(large):
    """The wrong equation: one confounder for the two."""
    residual = large.exposure - large.genetic - 0.5 * large.confounders.sum(axis=1)
    assert abs(residual.mean()) < 4 / np.sqrt(N)
    assert residual.var() == pytest.approx(1, abs=4 * np.sqrt(2 / N))
    assert_allclose(large.genetic, large.dosages @ large.gamma)
    u1, u2 = large.confounders.T
    assert abs(u1.mean()) < 4 / np.sqrt(N)
    assert u1.var() == pytest.approx(1, abs=4 * np.sqrt(2 / N))
    assert set(np.unique(u2)) == {0.0, 1.0}
    assert u2.mean() == pytest.approx(0.5, abs=2 / np.sqrt(N))
    parts = np.column_stack([large.confounders, residual, large.dosages])
    correlation = np.corrcoef(parts, rowvar=False)[np.triu_indices(9, 1)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(N)


def test_outcome_follows_its_equation(large):
    """Wrong equations: a case by a threshold, or effects of the SNPs beside the exposure's."""
    p = expit(0.4 * large.exposure + 0.5 * large.confounders.sum(axis=1))
    columns = np.column_stack([np.ones(N), large.exposure, large.confounders, large.dosages])
    score = columns.T @ (large.outcome - p)
    sd = np.sqrt((columns**2).T @ (p * (1 - p)))
    assert np.abs(score / sd).max() < 4
    assert 0.5 < large.outcome.mean() < 0.8
    assert large.n_cases == large.outcome.sum()


def test_dosages_have_their_frequencies(large):
    assert large.dosages.dtype == np.int8
    for j, p in enumerate(large.eaf):
        observed = np.bincount(large.dosages[:, j], minlength=3) / N
        expected = np.array([(1 - p) ** 2, 2 * p * (1 - p), p**2])
        assert np.abs((observed - expected) / np.sqrt(expected / N)).max() < 4.5
    assert (large.eaf > 0.1).all()
    assert (large.eaf < 0.4).all()
    assert (large.gamma > 0.1).all()
    assert (large.gamma < 0.5).all()


def test_neighbouring_snps_are_correlated():
    """The wrong law: dosages correlated by r, but the r of two SNPs apart not r^2."""
    eaf = [0.3, 0.35, 0.3, 0.25]
    cohort = medusa_cohort(N, eaf=eaf, ld=0.6, rng=2)
    got = np.corrcoef(cohort.dosages, rowvar=False)
    assert_allclose(got, 0.6 ** np.abs(np.subtract.outer(range(4), range(4))), atol=0.01)
    assert_allclose(cohort.ld, got, atol=0.01)
    limited = medusa_cohort(N, eaf=[0.05, 0.5], ld=0.9, rng=2)
    highest = np.sqrt(0.05 / 0.95)
    assert limited.correlations[0] == pytest.approx(highest)
    assert np.corrcoef(limited.dosages.T)[0, 1] == pytest.approx(highest, abs=0.01)
    assert medusa_cohort(100, 3, rng=1).ld is None


def test_prevalence():
    cohort = medusa_cohort(N, 8, effect=0.4, prevalence=0.05, rng=3)
    assert cohort.outcome.mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / N))
    assert cohort.intercept < -3
    assert medusa_cohort(1000, 3, intercept=-8, rng=1).n_cases < 100


# -------------------------------------------------------------------------- reproducible


def same(a, b):
    for name in ("dosages", "outcome", "exposure", "confounders", "genetic", "gamma", "eaf"):
        assert_array_equal(getattr(a, name), getattr(b, name))
    pd.testing.assert_frame_equal(a.instruments, b.instruments)


@pytest.mark.parametrize("options", [{}, {"imputation_r2": 0.6, "missing": 0.1, "ld": 0.3}])
def test_neither_threads_nor_chunks_change_a_bit(options, monkeypatch):
    first = medusa_cohort(10_000, 7, rng=5, n_threads=1, **options)
    same(first, medusa_cohort(10_000, 7, rng=5, n_threads=3, **options))
    monkeypatch.setattr(_federated_people, "_DRAWS_AT_A_TIME", 7 * 613)
    same(first, medusa_cohort(10_000, 7, rng=5, n_threads=2, **options))


def test_the_seed_decides():
    first = medusa_cohort(500, 5, rng=1)
    same(first, medusa_cohort(500, 5, rng=np.random.default_rng(1)))
    assert (first.exposure != medusa_cohort(500, 5, rng=2).exposure).all()
    generator = np.random.default_rng(1)
    federated_sites(100, 5, rng=generator)
    assert (medusa_cohort(500, 5, rng=generator).exposure != first.exposure).all()
    sites = federated_sites(300, 5, frequency_sd=0, rng=1)
    assert (sites[0].exposure != sites[1].exposure).all()


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    federated_sites(100, 3, rng=1, imputation_r2=0.5)
    medusa_instruments(5, rng=1)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_results_are_frozen():
    cohort = medusa_cohort(50, 3, rng=1)
    for array in (cohort.dosages, cohort.outcome, cohort.gamma, cohort.eaf):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        cohort.effect = 1.0


# --------------------------------------------------------------------------- instruments


def test_medusas_table_holds_the_true_effects():
    cohort = medusa_cohort(100, 200, rng=4)
    table = cohort.instruments
    assert list(table.columns) == ASSOCIATION
    assert list(table["snp"]) == [f"rs{j + 1}" for j in range(200)]
    assert_array_equal(table["beta"], cohort.gamma)
    assert_array_equal(table["eaf"], cohort.eaf)
    ratio = table["beta"] / table["std_error"]
    assert ratio.between(4, 8).all()
    pair = set(table["effect_allele"] + table["other_allele"])
    assert pair == {"AC", "AG", "CA", "CT", "GA", "GT", "TC", "TG"}


@pytest.mark.parametrize("kind", ["proportional", "gwas"])
def test_sampling_errors_of_the_instruments(kind):
    """The wrong law: errors added to effects that already carry them, F + 1 for F."""
    cohort = medusa_cohort(10, 5_000, f_statistic=25, standard_errors=kind, rng=6)
    table = cohort.instruments
    z = (table["beta"] - cohort.gamma) / table["std_error"]
    assert abs(z.mean()) < 4 / np.sqrt(5_000)
    assert z.var() == pytest.approx(1, abs=0.1)
    f = (cohort.gamma / table["std_error"]) ** 2
    if kind == "gwas":
        assert f.mean() == pytest.approx(25)
        product = table["std_error"] * np.sqrt(2 * cohort.eaf * (1 - cohort.eaf))
        assert product.std() < 1e-12
        assert table["n"].nunique() == 1
    else:
        assert np.sqrt(f / 25).between(0.8, 1.2).all()
        assert np.sqrt(f / 25).mean() == pytest.approx(1, abs=0.01)


def test_correlated_instruments_have_marginal_effects_and_correlated_errors():
    """The wrong table: joint effects with independent errors."""
    eaf = np.full(1_500, 0.3)
    cohort = medusa_cohort(5, eaf=eaf, ld=0.5, f_statistic=1e8, rng=7)
    g, beta = cohort.gamma, cohort.instruments["beta"].to_numpy()
    inner = sum(0.5 ** abs(k) * g[20 + k : 1_480 + k] for k in range(-20, 21))
    assert_allclose(beta[20:1_480], inner, rtol=2e-3)
    noisy = medusa_cohort(5, eaf=eaf, gamma=g, ld=0.5, f_statistic=10, rng=7)
    z = (noisy.instruments["beta"] - beta) / noisy.instruments["std_error"]
    assert np.corrcoef(z[1:], z[:-1])[0, 1] == pytest.approx(0.5, abs=0.06)


# ----------------------------------------------------------------------------- the truth


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ld": 0.4},
        {"ld": 0.4, "missing": 0.3},
        {"imputation_r2": 0.5, "ld": 0.4},
        {"swapped": ["rs1", "rs4"], "lacking": ["rs2"], "missing": 0.1},
    ],
    ids=["plain", "correlated", "missing", "imputed", "coded otherwise"],
)
def test_kappa_is_the_slope_of_the_exposure_on_the_score(options):
    """The wrong denominator, Medusa's: sum(w gamma), 0.3 where kappa is 1.9."""
    cohort = medusa_cohort(N, 6, rng=8, **options)
    beta, se = cohort.instruments["beta"].to_numpy(), cohort.instruments["std_error"].to_numpy()
    medusa = beta / se**2 / np.abs(beta / se**2).sum()
    for weights in (None, medusa, np.array([1.0, -1.0, 0.5, 0, 0, 2.0])):
        kappa = cohort.kappa(weights)
        got, error = slope_given(cohort.score(weights), cohort.exposure, cohort.confounders)
        assert abs(got - kappa) < 4 * error
    if "ld" not in options:
        kept = np.array([snp in cohort.snps for snp in cohort.instruments["snp"]])
        assert cohort.kappa(medusa) > 4 * (medusa * cohort.gamma)[kept].sum()


@pytest.mark.reference
def test_kappa_of_medusas_own_simulation(reference_dir):
    folder = reference_dir / "golden" / "medusa" / "a_chapter"
    table = pd.read_csv(folder / "instruments.csv")
    truth = json.loads((folder / "truth.json").read_text())
    gamma, se = table["beta_ZX"], table["se_ZX"]
    cohort = medusa_cohort(10, gamma=gamma, eaf=table["eaf"], effect=0.4, rng=1)
    weights = gamma / se**2 / (gamma / se**2).sum()
    assert cohort.kappa(weights) == pytest.approx(truth["kappaHWE"], rel=1e-12)


def test_estimand_stands_beside_the_structural_value():
    cohort = medusa_cohort(N, 8, effect=0.4, rng=1)
    assert cohort.effect == 0.4
    assert 0.38 < cohort.estimand < 0.39
    assert cohort.conditional_estimand() == pytest.approx(cohort.estimand, abs=1e-5)
    medusa = cohort.instruments["beta"] / cohort.instruments["std_error"] ** 2
    other = cohort.estimand_of(medusa)
    assert other.kappa[0] == pytest.approx(cohort.kappa(medusa))
    assert cohort.conditional_estimand(medusa) == pytest.approx(other.value, abs=5e-3)


def test_estimand_of_several_sites():
    sites = federated_sites([3000, 2000], 8, n_sites=2, prevalence=[0.05, 0.3], rng=2)
    details = sites.estimand_of()
    assert_allclose(details.prevalence, [0.05, 0.3], atol=1e-8)
    for k, site in enumerate(sites):
        assert site.estimand == pytest.approx(details.sites[k], abs=1e-12)
    weight = details.kappa**2 * details.information
    assert sites.estimand == pytest.approx(np.average(details.sites, weights=weight))
    assert_allclose(sites.kappa(), [site.kappa() for site in sites])
    assert len(sites) == 2


def test_frequencies_differ_between_sites():
    sites = federated_sites(10, 2_000, n_sites=2, f_statistic=None, rng=3)
    base = sites.instruments["eaf"].to_numpy()
    shift = [np.log(s.eaf / (1 - s.eaf)) - np.log(base / (1 - base)) for s in sites]
    assert np.std(shift) == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(*shift)[0, 1]) < 0.1
    same = federated_sites(10, 5, n_sites=2, frequency_sd=0, rng=3)
    assert_array_equal(same[0].eaf, same.instruments["eaf"])


# --------------------------------------------------------------------- recorded dosages


def test_other_coding_and_lacking_snps():
    options = {"n_sites": 2, "rng": 4}
    plain = federated_sites(500, 4, **options)
    other = federated_sites(
        500, 4, swapped={"site_2": ["rs2", "rs3"]}, lacking={"site_2": ["rs3", "rs4"]}, **options
    )
    assert_array_equal(other[0].dosages, plain[0].dosages)
    site = other[1]
    assert site.snps == ("rs1", "rs2")
    assert_array_equal(site.dosages[:, 0], plain[1].dosages[:, 0])
    assert_array_equal(site.dosages[:, 1], 2 - plain[1].dosages[:, 1])
    alleles = site.alleles.set_index("snp")
    table = other.instruments.set_index("snp")
    assert alleles.loc["rs1", "coded_allele"] == table.loc["rs1", "effect_allele"]
    assert alleles.loc["rs2", "coded_allele"] == table.loc["rs2", "other_allele"]
    assert alleles.loc["rs2", "frequency"] == pytest.approx(1 - site.eaf[1])
    assert_array_equal(site.outcome, plain[1].outcome)
    weights = [1.0, 2.0, 0.0, 0.0]
    assert_allclose(site.score(weights), plain[1].score(weights))
    assert_allclose(site.score([1.0, 2.0, 3.0, 4.0]), site.score(weights))


def test_missing_dosages():
    cohort = medusa_cohort(N, 3, missing=0.2, rng=5)
    assert (cohort.dosages == -1).mean() == pytest.approx(0.2, abs=0.005)
    frame = cohort.frame
    assert_allclose(frame[["rs1", "rs2", "rs3"]].isna().to_numpy(), cohort.dosages == -1)
    swapped = medusa_cohort(N, 3, missing=0.2, swapped=["rs1"], rng=5)
    assert_array_equal(swapped.dosages[:, 0] == -1, cohort.dosages[:, 0] == -1)


def test_imputed_dosages_are_posterior_means():
    """The wrong law: true dosages with noise added, whose regression on them has slope 1."""
    typed = medusa_cohort(N, 3, rng=6)
    imputed = medusa_cohort(N, 3, imputation_r2=0.6, rng=6)
    assert imputed.dosages.dtype == np.float32
    assert_array_equal(imputed.outcome, typed.outcome)
    for j in range(3):
        d, g = imputed.dosages[:, j].astype(float), typed.dosages[:, j].astype(float)
        slope, error = slope_given(d, g)
        assert abs(slope - 1) < 4 * error
        assert d.mean() == pytest.approx(g.mean(), abs=0.01)
        assert d.var() / g.var() == pytest.approx(0.6, abs=0.01)
        assert d.min() >= 0
        assert d.max() <= 2
    gaps = medusa_cohort(1_000, 3, imputation_r2=0.6, missing=0.3, rng=6)
    assert np.isnan(gaps.dosages).mean() == pytest.approx(0.3, abs=0.03)
    assert np.isfinite(gaps.score()).all()


def test_frame_of_a_cohort():
    cohort = medusa_cohort(20, 2, rng=1)
    names = ["person_id", "outcome", "rs1", "rs2", "confounder_1", "confounder_2", "exposure"]
    assert list(cohort.frame.columns) == names
    assert list(cohort.frame["person_id"]) == list(range(1, 21))
    assert cohort.frame["rs1"].dtype == np.int8
    sites = federated_sites(30, 2, rng=1)
    ids = np.concatenate([site.person_id for site in sites])
    assert len(set(ids.tolist())) == 90
    assert "site_1" in repr(sites[0])
    assert "30, 30, 30" in repr(sites)


# ----------------------------------------------------------------- tables and profiles


def test_medusa_instruments():
    table = medusa_instruments(2_000, rng=1)
    assert list(table.columns) == ASSOCIATION
    assert table["beta"].abs().between(0.1, 0.5).all()
    assert 0.4 < (table["beta"] > 0).mean() < 0.6
    assert table["std_error"].between(0.02, 0.08).all()
    assert table["eaf"].between(0.05, 0.95).all()
    assert table["snp"].is_unique
    assert table["snp"].str.fullmatch(r"rs[1-8]\d{6}").all()
    pd.testing.assert_frame_equal(medusa_instruments(rng=3), medusa_instruments(10, rng=3))


def test_medusa_site_profiles():
    """The wrong curve: information over n alone, without the 0.01."""
    profiles = medusa_site_profiles(4, n_per_site=5_000, rng=1)
    for profile in profiles:
        assert profile.log_likelihood.max() == 0
        b = profile.grid
        curve = -profile.information / 2 * (b - profile.mle) ** 2
        assert_allclose(profile.log_likelihood, curve - curve.max())
        assert 40 <= profile.information <= 60
        assert 0.05 <= profile.n_cases / 5_000 <= 0.15
        assert profile.n_cases + profile.n_controls == 5_000
        assert_array_equal(profile.weights, profiles[0].weights)
    first = profiles[0]
    weights = first.beta / first.std_error**2
    assert_allclose(first.weights, weights / weights.sum())
    assert [profile.site_id for profile in profiles][:2] == ["site_A", "site_B"]
    many = [p.mle for p in medusa_site_profiles(2_000, np.linspace(-1, 1, 11), rng=2)]
    assert np.mean(many) == pytest.approx(0.5, abs=0.01)
    assert np.std(many) == pytest.approx(0.1, abs=0.01)
    assert "mle" in repr(first)


def test_medusa_covariates_and_negative_controls():
    table = medusa_covariates(20_000, 5, rng=1)
    assert list(table.columns) == ["person_id", *(f"covariate_{i + 1}" for i in range(5))]
    assert table[["covariate_1", "covariate_2"]].isin([0, 1]).all(axis=None)
    assert table["covariate_1"].mean() < 0.32
    assert table["covariate_5"].std() == pytest.approx(1, abs=0.03)
    controls = medusa_negative_controls(["a", "b", "c"], 4, rng=1)
    assert list(controls["person_id"]) == ["a", "b", "c"]
    many = medusa_negative_controls(20_000, 30, rng=1).drop(columns="person_id").mean()
    assert many.between(0.02, 0.16).all()
    assert list(many.index) == [f"nc_outcome_{i + 1}" for i in range(30)]


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n": 0}, "n: "),
        ({"n_snps": 0}, "n_snps"),
        ({"eaf": [0.1, 1.2]}, "eaf"),
        ({"gamma": [0.1, 0.0]}, "gamma"),
        ({"gamma": [0.1, 0.2], "eaf": [0.1]}, "eaf"),
        ({"effect_range": (0.5, 0.1)}, "effect_range"),
        ({"eaf_range": (0.0, 0.4)}, "eaf_range"),
        ({"f_statistic": 0.0}, "f_statistic"),
        ({"standard_errors": "none", "f_statistic": 10.0}, "standard_errors"),
        ({"prevalence": 0.0}, "prevalence"),
        ({"missing": 1.0}, "missing"),
        ({"imputation_r2": 0.0}, "imputation_r2"),
        ({"swapped": ["rs99"]}, "swapped"),
        ({"swapped": "rs1"}, "swapped"),
        ({"lacking": ["rs1", "rs2", "rs3"]}, "lacking"),
        ({"ld": 1.5}, "ld"),
        ({"rng": -1}, "rng"),
    ],
)
def test_bad_arguments(changed, words):
    with pytest.raises(InvalidInputError, match=words):
        medusa_cohort(**{"n": 20, "n_snps": 3, "rng": 1, **changed})


def test_bad_arguments_of_sites_and_tables():
    with pytest.raises(InvalidInputError, match="swapped"):
        federated_sites(20, 3, swapped={"elsewhere": ["rs1"]})
    with pytest.raises(InvalidInputError, match="n: "):
        federated_sites([20, 30], 3)
    with pytest.raises(InvalidInputError, match="site_ids"):
        federated_sites(20, 3, site_ids=["a", "a", "b"])
    with pytest.raises(InvalidInputError, match="grid"):
        medusa_site_profiles(grid=[1.0, 0.0])
    with pytest.raises(InvalidInputError, match="people"):
        medusa_covariates(["a", "a"])
    cohort = medusa_cohort(20, 3, rng=1)
    with pytest.raises(InvalidInputError, match="weights"):
        cohort.kappa([0.0, 0.0, 0.0])
    with pytest.raises(InvalidInputError, match="weights"):
        cohort.score([1.0])


def test_examples_run():
    assert doctest.testmod(federated_cohorts).failed == 0
