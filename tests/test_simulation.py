"""Simulated cohorts: their law, their reproducibility, their truth."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

import mrfast.simulation
from mrfast.data.moments import Moments
from mrfast.errors import InvalidInputError
from mrfast.simulation import SimulatedCohort, jam_mr, massive_model

EAF = np.array([0.1, 0.5, 0.7])
NATURAL = {
    "gamma": [0.5, -0.2, 0.3],
    "alpha": [0.0, 0.4, -0.1],
    "beta": 0.6,
    "kappa_X": 1.5,
    "kappa_Y": -0.8,
    "sigma_X": 1.2,
    "sigma_Y": 0.7,
}


def scale_free(ploidy=2):
    """The same parameters by the definitions, one number at a time."""
    sd = [(ploidy * p * (1 - p)) ** 0.5 for p in EAF]
    return {
        "sgamma": [s * g / 1.2 for s, g in zip(sd, NATURAL["gamma"], strict=True)],
        "salpha": [s * a / 0.7 for s, a in zip(sd, NATURAL["alpha"], strict=True)],
        "sbeta": 0.6 * 1.2 / 0.7,
        "skappa_X": 1.5 / 1.2,
        "skappa_Y": -0.8 / 0.7,
        "sigma_X": 1.2,
        "sigma_Y": 0.7,
    }


def vector(ploidy=2):
    s = scale_free(ploidy)
    scalars = [s["sbeta"], s["skappa_X"], s["skappa_Y"], np.log(1.2), np.log(0.7)]
    return np.array([*s["sgamma"], *s["salpha"], *scalars])


def same_people(a, b, tolerance=0.0):
    np.testing.assert_array_equal(a.genotypes, b.genotypes)
    np.testing.assert_allclose(a.exposure, b.exposure, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(a.outcome, b.outcome, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- the law


@pytest.mark.parametrize("ploidy", [1, 2, 3, 10])
def test_dosages_are_binomial_and_independent(ploidy):
    n = 100_000
    g = massive_model(n, EAF, NATURAL, rng=ploidy, ploidy=ploidy).genotypes
    assert g.dtype == np.int8
    for k, p in enumerate(EAF):
        observed = np.bincount(g[:, k], minlength=ploidy + 1)
        expected = n * stats.binom.pmf(np.arange(ploidy + 1), ploidy, p)
        often = expected >= 5
        chi2 = ((observed - expected)[often] ** 2 / expected[often]).sum()
        assert stats.chi2.sf(chi2, often.sum() - 1) > 1e-3
    correlation = np.corrcoef(g, rowvar=False)[np.triu_indices(3, 1)]
    assert np.abs(correlation).max() < 4 / np.sqrt(n)


def test_exposure_and_outcome_follow_the_structural_equations():
    """Wrong formulas: an outcome without kappa_Y U, or with beta times X less its noise."""
    n = 200_000
    people = massive_model(n, EAF, NATURAL, rng=11)
    design = np.column_stack([np.ones(n), people.genotypes])
    both = np.column_stack([people.exposure, people.outcome])
    slopes = np.linalg.lstsq(design, both, rcond=None)[0]
    residual = both - design @ slopes
    gamma, alpha = np.array(NATURAL["gamma"]), np.array(NATURAL["alpha"])
    kx, ky, beta, sx2, sy2 = 1.5, -0.8, 0.6, 1.44, 0.49
    var_x = sx2 + kx**2
    expected = np.array(
        [
            [var_x, beta * var_x + kx * ky],
            [beta * var_x + kx * ky, sy2 + beta**2 * sx2 + (ky + beta * kx) ** 2],
        ]
    )
    truth = np.column_stack([np.r_[0, gamma], np.r_[0, alpha + beta * gamma]])
    inverse = np.linalg.inv(design.T @ design).diagonal()
    standard_errors = np.sqrt(np.outer(inverse, expected.diagonal()))
    assert np.abs((slopes - truth) / standard_errors).max() < 4
    covariance = residual.T @ residual / n
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    assert (np.abs(covariance - expected) / scale).max() < 4 * np.sqrt(2 / n)
    # Gaussian, and the noises are new for every person
    standard = residual / np.sqrt(expected.diagonal())
    assert np.abs(stats.skew(standard)).max() < 4 * np.sqrt(6 / n)
    assert np.abs(stats.kurtosis(standard)).max() < 4 * np.sqrt(24 / n)
    assert abs(np.corrcoef(standard[1:, 0], standard[:-1, 0])[0, 1]) < 4 / np.sqrt(n)


def test_moments_are_those_of_the_population():
    n = 200_000
    moments = massive_model(n, EAF, NATURAL, rng=3, keep_individuals=False).moments
    variance = 2 * EAF * (1 - EAF)
    gamma, total = (
        np.array(NATURAL["gamma"]),
        np.array(NATURAL["alpha"]) + 0.6 * np.array(NATURAL["gamma"]),
    )
    np.testing.assert_allclose(moments.means[:3], 2 * EAF, atol=4 / np.sqrt(2 * n))
    np.testing.assert_allclose(moments.variances, variance, rtol=0.03)
    assert moments.means[3] == pytest.approx(2 * EAF @ gamma, abs=0.02)
    assert moments.means[4] == pytest.approx(2 * EAF @ total, abs=0.02)
    assert moments.covariance_xy[0, 0] == pytest.approx(variance @ gamma**2 + 3.69, rel=0.02)


def test_rare_alleles_have_their_frequency():
    people = massive_model(200_000, [1e-3, 1 - 1e-3], vector_of(2), rng=1)
    counts = people.genotypes.sum(axis=0)
    assert abs(counts[0] - 400) < 80
    assert abs(400_000 - counts[1] - 400) < 80


def vector_of(j):
    return np.concatenate([np.full(2 * j, 0.1), [0.1, 1, 1, 0, 0]])


# ---------------------------------------------------------------------- reproducible


def test_the_seed_decides():
    first = massive_model(500, EAF, NATURAL, rng=5)
    same_people(first, massive_model(500, EAF, NATURAL, rng=np.random.default_rng(5)))
    same_people(first, massive_model(500, EAF, NATURAL, rng=np.random.SeedSequence(5)))
    assert (first.genotypes != massive_model(500, EAF, NATURAL, rng=6).genotypes).any()
    generator = np.random.default_rng(5)
    massive_model(10, EAF, NATURAL, rng=generator)
    assert (massive_model(500, EAF, NATURAL, rng=generator).exposure != first.exposure).all()
    fresh = [massive_model(50, EAF, NATURAL).exposure for _ in range(2)]
    assert (fresh[0] != fresh[1]).all()


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    jam_mr(100, 3, rng=1)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("chunk_size", [1, 999, 5_000, 10**6])
def test_chunks_and_streaming_do_not_change_the_people(chunk_size):
    n = 3_000
    kept = massive_model(n, EAF, NATURAL, rng=5)
    same_people(kept, massive_model(n, EAF, NATURAL, rng=5, chunk_size=chunk_size))
    streamed = massive_model(n, EAF, NATURAL, rng=5, chunk_size=chunk_size, keep_individuals=False)
    assert streamed.genotypes is None
    assert streamed.exposure is None
    assert streamed.outcome is None
    z = np.column_stack([kept.genotypes, kept.exposure, kept.outcome])
    expected = np.cov(z, rowvar=False, bias=True)
    for cohort in (kept, streamed):
        assert cohort.moments.n == n
        assert cohort.moments.is_centered
        np.testing.assert_allclose(cohort.moments.means, z.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(cohort.moments._second(centered=True), expected, atol=1e-12)


def test_a_longer_cohort_begins_with_the_same_people():
    short, long = (massive_model(n, EAF, NATURAL, rng=5) for n in (100, 20_000))
    np.testing.assert_array_equal(short.genotypes, long.genotypes[:100])
    np.testing.assert_array_equal(short.outcome, long.outcome[:100])


# ---------------------------------------------------------------------- parameters


@pytest.mark.parametrize("ploidy", [1, 2])
def test_the_forms_of_the_parameters_agree(ploidy):
    natural = massive_model(200, EAF, NATURAL, rng=1, ploidy=ploidy)
    for form in (scale_free(ploidy), vector(ploidy), list(vector(ploidy)), natural.parameters):
        other = massive_model(200, EAF, form, rng=1, ploidy=ploidy)
        same_people(natural, other, 1e-12)
        for key in (*NATURAL, *scale_free()):
            np.testing.assert_allclose(
                other.parameters[key], {**NATURAL, **scale_free(ploidy)}[key], rtol=1e-12
            )


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("exactly the keys gamma", {"sbeta": 0.3}),
        ("exactly the keys gamma", {"Beta": 0.3}),
        (r"^parameters\['gamma'\]", {"gamma": [0.1, 0.2]}),
        (r"^parameters\['alpha'\]", {"alpha": [0.1, np.nan, 0.2]}),
        (r"^parameters\['alpha'\]", {"alpha": 0.1}),
        (r"^parameters\['beta'\]", {"beta": np.inf}),
        (r"^parameters\['kappa_X'\]", {"kappa_X": [1, 2]}),
        (r"^parameters\['sigma_X'\]", {"sigma_X": 0}),
        (r"^parameters\['sigma_Y'\]", {"sigma_Y": -1}),
        ("both scales to agree", {**scale_free(), "sbeta": 0.3}),
    ],
)
def test_bad_mappings_are_named(match, change):
    with pytest.raises(InvalidInputError, match=match):
        massive_model(10, EAF, {**NATURAL, **change}, rng=1)


@pytest.mark.parametrize("missing", [*NATURAL, None])
def test_missing_keys_are_named(missing):
    parameters = {} if missing is None else {k: v for k, v in NATURAL.items() if k != missing}
    with pytest.raises(InvalidInputError, match=r"^parameters: expected exactly the keys"):
        massive_model(10, EAF, parameters, rng=1)


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("n", {"n": 0}),
        ("n", {"n": 10.5}),
        ("eaf", {"eaf": [0.1, 0.0, 0.5]}),
        ("eaf", {"eaf": [0.1, 1.0, 0.5]}),
        ("eaf", {"eaf": [0.1, np.nan, 0.5]}),
        ("eaf", {"eaf": []}),
        ("eaf", {"eaf": [[0.1, 0.2, 0.3]]}),
        ("parameters", {"parameters": vector()[:-1]}),
        ("parameters", {"parameters": np.full(11, np.nan)}),
        ("parameters", {"parameters": np.r_[vector()[:-1], 1e4]}),
        ("parameters", {"parameters": np.r_[vector()[:-1], -1e4]}),
        ("parameters", {"parameters": "gamma"}),
        ("rng", {"rng": -1}),
        ("rng", {"rng": "seed"}),
        ("ploidy", {"ploidy": 0}),
        ("ploidy", {"ploidy": 128}),
        ("chunk_size", {"chunk_size": 0}),
    ],
)
def test_bad_arguments_are_named(argument, change):
    arguments = {"n": 10, "eaf": EAF, "parameters": NATURAL, "rng": 1, **change}
    with pytest.raises(InvalidInputError, match=rf"^{argument}: "):
        massive_model(**arguments)


# ---------------------------------------------------------------------- the cohort


def test_a_cohort_is_frozen_and_leaves_its_inputs_alone():
    eaf, gamma = EAF.copy(), np.array(NATURAL["gamma"])
    people = massive_model(50, eaf, {**NATURAL, "gamma": gamma}, rng=1)
    for array in (people.genotypes, people.exposure, people.eaf, people.parameters["gamma"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        people.n = 3
    eaf[0] = gamma[0] = 0.9
    assert people.eaf[0] == 0.1
    assert people.parameters["gamma"][0] == 0.5
    assert repr(people) == "SimulatedCohort(n=50, J=3, individuals kept)"
    streamed = massive_model(50, EAF, NATURAL, rng=1, keep_individuals=False)
    assert repr(streamed) == "SimulatedCohort(n=50, J=3, moments only)"
    for cohort in (people, streamed):
        for other in (copy.deepcopy(cohort), pickle.loads(pickle.dumps(cohort))):
            assert other.moments.fingerprint == cohort.moments.fingerprint


@pytest.mark.parametrize("keep_individuals", [True, False])
def test_a_candidate_without_carriers_has_no_moments(keep_individuals):
    people = massive_model(100, [0.5, 1e-9, 0.5], NATURAL, rng=1, keep_individuals=keep_individuals)
    with pytest.raises(InvalidInputError, match=r"genotypes\[:, 1\].*constant"):
        _ = people.moments


@pytest.mark.parametrize("keep_individuals", [True, False])
def test_summary_statistics_are_regressions_on_one_variant_each(keep_individuals):
    """Wrong formulas: n in place of n - 2; the normal in place of Student's distribution."""
    people = massive_model(60, EAF, NATURAL, rng=4)
    cohort = massive_model(60, EAF, NATURAL, rng=4, keep_individuals=keep_individuals)
    exposure, outcome, slope = cohort.summary_statistics()
    columns = ["snp", "effect_allele", "other_allele", "eaf", "beta", "std_error", "p_value", "n"]
    for table, trait in ((exposure, people.exposure), (outcome, people.outcome)):
        assert list(table.columns) == columns
        assert table["snp"].tolist() == ["G1", "G2", "G3"]
        assert (table["n"] == 60).all()
        assert (table["effect_allele"] != table["other_allele"]).all()
        np.testing.assert_allclose(table["eaf"], people.genotypes.mean(axis=0) / 2)
        for k in range(3):
            fit = stats.linregress(people.genotypes[:, k].astype(float), trait)
            assert table["beta"][k] == pytest.approx(fit.slope, rel=1e-9)
            assert table["std_error"][k] == pytest.approx(fit.stderr, rel=1e-9)
            assert table["p_value"][k] == pytest.approx(fit.pvalue, rel=1e-6)
    assert slope == pytest.approx(stats.linregress(people.exposure, people.outcome).slope)


def test_two_samples_come_from_two_cohorts():
    exposure_cohort = massive_model(400, EAF, NATURAL, rng=1, keep_individuals=False)
    outcome_cohort = massive_model(
        300, EAF, exposure_cohort.parameters, rng=2, keep_individuals=False
    )
    both = exposure_cohort.summary_statistics(outcome_cohort)
    assert both.exposure.equals(exposure_cohort.summary_statistics().exposure)
    assert both.outcome.equals(outcome_cohort.summary_statistics().outcome)
    assert both.beta_observational == exposure_cohort.summary_statistics().beta_observational
    with pytest.raises(InvalidInputError, match="outcome_cohort"):
        exposure_cohort.summary_statistics(jam_mr(100, 2, rng=1))


def test_joined_cohorts_share_people():
    """Three parts of the people, the middle one in both studies."""
    only_x, shared, only_y = (massive_model(n, EAF, NATURAL, rng=n) for n in (300, 200, 100))
    x, y = only_x.joined(shared), shared.joined(only_y)
    assert (x.n, y.n) == (500, 300)
    np.testing.assert_array_equal(x.genotypes[300:], shared.genotypes)
    np.testing.assert_array_equal(y.genotypes[:200], shared.genotypes)
    np.testing.assert_array_equal(x.exposure, np.append(only_x.exposure, shared.exposure))
    np.testing.assert_array_equal(y.outcome, np.append(shared.outcome, only_y.outcome))
    whole = Moments.from_individual(x.genotypes, x.exposure, x.outcome)
    assert x.moments.fingerprint == whole.fingerprint
    exposure, outcome, _ = x.summary_statistics(y)
    assert (exposure["n"] == 500).all()
    assert (outcome["n"] == 300).all()
    with pytest.raises(ValueError, match="read-only"):
        x.genotypes[0] = 1


def test_cohorts_that_do_not_join():
    people = massive_model(50, EAF, NATURAL, rng=1)
    streamed = massive_model(50, EAF, NATURAL, rng=1, keep_individuals=False)
    with pytest.raises(InvalidInputError, match=r"^other: .* individuals kept"):
        people.joined(streamed)
    with pytest.raises(InvalidInputError, match=r"^self: .* individuals kept"):
        streamed.joined(people)
    for other in (
        massive_model(50, EAF, {**NATURAL, "beta": 0.5}, rng=1),
        massive_model(50, EAF + 0.01, NATURAL, rng=1),
        massive_model(50, EAF, NATURAL, rng=1, ploidy=4),
        jam_mr(50, 2, rng=1),
    ):
        with pytest.raises(InvalidInputError, match=r"^other: expected the same frequencies"):
            people.joined(other)


def test_summary_statistics_bring_back_the_moments():
    cohort = massive_model(200_000, EAF, NATURAL, rng=8, keep_individuals=False)
    x, y, slope = cohort.summary_statistics()
    moments = Moments.from_summary(
        beta_exposure=x["beta"],
        se_exposure=x["std_error"],
        n_exposure=x["n"],
        beta_outcome=y["beta"],
        se_outcome=y["std_error"],
        n_outcome=y["n"],
        eaf=x["eaf"],
        beta_observational=slope,
    )
    expected = cohort.moments._second(centered=True)
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    error = (moments._second(centered=True) - expected) / scale
    assert np.abs(error).max() < 0.01


# ---------------------------------------------------------------------- JAM-MR


def test_the_scenario_as_the_authors_coded_it():
    cohort = jam_mr(300, 4, sigma=4.0, effect=0.3, rng=1)
    truth = cohort.parameters
    assert isinstance(cohort, SimulatedCohort)
    assert cohort.genotypes.shape == (300, 10)
    assert ((cohort.eaf > 0.1) & (cohort.eaf < 0.9)).all()
    assert (truth["gamma"] >= 0.5).all()
    assert (truth["alpha"][:4] == 0).all()
    assert (truth["alpha"][4:] != 0).all()
    assert truth["beta"] == 0.3
    assert {truth[k] for k in ("kappa_X", "kappa_Y", "sigma_X", "sigma_Y")} == {4.0}
    same_people(cohort, jam_mr(300, 4, sigma=4.0, effect=0.3, rng=1))
    streamed = jam_mr(300, 4, sigma=4.0, effect=0.3, rng=1, keep_individuals=False)
    assert streamed.genotypes is None
    np.testing.assert_allclose(streamed.moments.means, cohort.moments.means)


def test_the_scenario_s_distributions():
    """Wrong formulas: |N(0.5, 0.5^2)|; variances in place of standard deviations; one sign."""
    truth = jam_mr(2, 0, n_variants=20_000, rng=7).parameters
    gamma, alpha = truth["gamma"], truth["alpha"]
    assert stats.kstest((gamma - 0.5) / 0.5, "halfnorm").pvalue > 1e-3
    assert stats.kstest((np.abs(alpha) - 0.7) / 0.2, "norm").pvalue > 1e-3
    assert abs((alpha > 0).mean() - 0.5) < 0.02
    cohort = jam_mr(2, 0, n_variants=20_000, rng=8)
    assert stats.kstest(cohort.eaf, "uniform", (0.1, 0.8)).pvalue > 1e-3


def test_the_scenario_as_it_is_printed():
    """There the first K variants are the ones with a direct effect, and a small one."""
    alpha = jam_mr(2, 15_000, n_variants=20_000, as_printed=True, rng=7).parameters["alpha"]
    assert (alpha[15_000:] == 0).all()
    assert stats.kstest(alpha[:15_000] / 0.2, "norm").pvalue > 1e-3


@pytest.mark.parametrize("n_valid", [0, 10])
def test_all_or_none_valid(n_valid):
    alpha = jam_mr(50, n_valid, rng=1).parameters["alpha"]
    assert (alpha == 0).sum() == n_valid


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("n", {"n": 0}),
        ("n_valid", {"n_valid": 11}),
        ("n_valid", {"n_valid": -1}),
        ("sigma", {"sigma": 0}),
        ("effect", {"effect": np.nan}),
        ("n_variants", {"n_variants": 0}),
        ("rng", {"rng": 1.5}),
    ],
)
def test_bad_scenarios_are_named(argument, change):
    with pytest.raises(InvalidInputError, match=rf"^{argument}: "):
        jam_mr(**{"n": 10, "n_valid": 2, "rng": 1, **change})


# ---------------------------------------------------------------------- imports


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_numba_and_pandas_are_imported_when_needed():
    assert dir(mrfast.simulation) == sorted(mrfast.simulation.__all__)
    run(
        "import sys, mrfast.simulation\n"
        "assert not {'numba', 'pandas', 'scipy'} & set(sys.modules)\n"
    )


def test_without_a_folder_for_compiled_code():
    """numba refuses cache=True where no folder can be written."""
    printed = run(
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from mrfast.simulation import jam_mr\n"
        "print(jam_mr(5, 3, rng=1).genotypes.sum())\n"
    )
    assert int(printed) == jam_mr(5, 3, rng=1).genotypes.sum()
