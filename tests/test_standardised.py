"""Associations on the standardised scale, against regressions, matrices and draws."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from exact_problems import GOLDEN, golden_exact, standardised_from_golden
from scipy import stats

import mrfast
from mrfast.data.design import StudyDesign
from mrfast.data.moments import Moments
from mrfast.data.standardised import LDBlock, StandardisedAssociations
from mrfast.errors import InvalidInputError
from mrfast.simulation.scenarios import massive_model


def tables(j=4, n1=20_000.0, n2=9_000.0, seed=5, **options):
    """Well-behaved tables of two studies: standard errors as the sample sizes imply."""
    rng = np.random.default_rng(seed)
    eaf = rng.uniform(0.1, 0.9, j)
    variance = 2 * eaf * (1 - eaf)
    n1, n2 = np.broadcast_to(n1, j), np.broadcast_to(n2, j)
    bx, by = rng.normal(0, 0.1, j), rng.normal(0, 0.05, j)
    return {
        "beta_exposure": bx,
        "se_exposure": np.sqrt((1.5 - variance * bx**2) / n1 / variance),
        "n_exposure": n1,
        "beta_outcome": by,
        "se_outcome": np.sqrt((0.8 - variance * by**2) / n2 / variance),
        "n_outcome": n2,
        "eaf": eaf,
        "beta_observational": 0.2,
        **options,
    }


def summary(**options):
    return Moments.from_summary(**tables(**options)).standardised


def dense(moments):
    """Coefficients on standardised candidates and residual covariance, by solving equations."""
    second = moments._second(centered=True)
    j = moments.J
    scale = np.append(moments.sigma_g, [1, 1])
    second = second / np.outer(scale, scale)
    h = np.linalg.solve(second[:j, :j], second[:j, j:])
    return h, second[j:, j:] - second[j:, :j] @ h


CORRELATED = np.array([[1, 0.5, 0, 0], [0.5, 1, 0.3, 0], [0, 0.3, 1, 0], [0, 0, 0, 1]])


# ---------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("ld", [None, CORRELATED])
def test_coefficients_and_residuals_are_those_of_the_joint_regression(ld):
    """Wrong formulas: marginal coefficients under LD; Var(Y|G) in place of Var(Y|X,G)."""
    moments = Moments.from_summary(**tables(ld=ld))
    h, residual = dense(moments)
    s = moments.standardised
    assert moments.standardised is s
    np.testing.assert_allclose(s.exposure, h[:, 0], rtol=1e-12)
    np.testing.assert_allclose(s.outcome, h[:, 1], rtol=1e-12)
    np.testing.assert_array_equal(s.sigma_g, moments.sigma_g)
    assert s.residual_exposure == pytest.approx(residual[0, 0])
    assert s.residual_slope == pytest.approx(residual[0, 1] / residual[0, 0])
    assert s.residual_outcome == pytest.approx(np.linalg.det(residual) / residual[0, 0])
    assert s.names == moments.names
    assert s.uncorrelated is (ld is None)


def test_noise_factors_of_every_candidate():
    """Wrong formulas: the smallest sample size everywhere; N12 / N1 in place of N12 / (N1 N2)."""
    n1, n2 = np.array([20e3, 21e3, 8e3, 20e3]), np.array([9e3, 10e3, 11e3, 12e3])
    for option, shared in (
        ({}, [9e3, 10e3, 8e3, 12e3]),
        ({"overlap": 0.25}, [2250, 2500, 2000, 3000]),
        ({"overlap": 0}, [0, 0, 0, 0]),
        ({"n_overlap": 3000}, [3000] * 4),
        ({"n_overlap": [0, 100, 8000, 12000]}, [0, 100, 8000, 12000]),
    ):
        s = summary(n1=n1, n2=n2, **option)
        np.testing.assert_allclose(s.noise_exposure, 1 / n1)
        np.testing.assert_allclose(s.noise_outcome, 1 / n2)
        np.testing.assert_allclose(s.noise_shared, shared / (n1 * n2))
        assert (s.n_exposure, s.n_outcome, s.n_shared) == (20e3, 10.5e3, np.median(shared))
        assert Moments.from_summary(**tables(n1=n1, n2=n2, **option)).n == 8e3


def test_noise_of_overlapping_studies_is_that_of_drawn_people():
    """Wrong formula: correlation N12 / min(N1, N2) in place of N12 / sqrt(N1 N2)."""
    rng = np.random.default_rng(8)
    n1, n2, n12, slope, repeats = 90, 50, 30, 0.7, 20_000
    people = n1 + n2 - n12
    g = rng.standard_normal((repeats, people))
    x = rng.standard_normal((repeats, people))
    y = slope * x + rng.standard_normal((repeats, people))
    h = np.array(
        [
            (g * trait)[:, rows].mean(axis=1)
            for trait, rows in ((x, slice(None, n1)), (y, slice(n1 - n12, None)))
        ]
    )
    s = summary(n1=n1, n2=n2, n_overlap=n12)
    factors = [[s.noise_exposure[0], s.noise_shared[0]], [s.noise_shared[0], s.noise_outcome[0]]]
    expected = np.array(factors) * [[1, slope], [slope, 1 + slope**2]]
    error = np.sqrt((expected**2 + np.outer(*[expected.diagonal()] * 2)) / repeats)
    assert (np.abs(np.cov(h) - expected) < 4 * error).all()


def test_one_sample_of_individuals_has_one_size():
    rng = np.random.default_rng(3)
    g = rng.binomial(2, 0.4, (3000, 5))
    x = g.sum(axis=1) + rng.standard_normal(3000)
    y = 0.5 * x + rng.standard_normal(3000)
    moments = Moments.from_individual(g, x, y)
    s = moments.standardised
    for noise in (s.noise_exposure, s.noise_outcome, s.noise_shared):
        np.testing.assert_allclose(noise, 1 / 3000, rtol=1e-12)
    assert s.n_exposure == s.n_outcome == s.n_shared == 3000
    assert s.uncorrelated
    assert s.largest_block == 1
    assert s.slope_in_overlap
    h, residual = dense(moments)
    np.testing.assert_allclose(s.exposure, h[:, 0], rtol=1e-9)
    eta = np.sqrt(np.linalg.det(residual)) / residual[0, 0]
    assert s.slope_sd == pytest.approx(eta / np.sqrt(3000))
    assert s.external_slope_sd == np.inf
    (note,) = s.notes
    assert "10 correlations between candidates, of at most" in note
    assert "(limit 0.0913)" in note
    raw = Moments.from_individual(g, x, y, center=False).standardised
    np.testing.assert_allclose(raw.outcome, s.outcome, rtol=1e-9)
    assert raw.notes == ("raw moments were centred: an intercept with a flat prior", note)


def test_given_standard_deviations_scale_the_noise():
    """Wrong formula: 1 / N where the candidates have other variances than sigma_g^2."""
    data = golden_exact("gt_s1")
    sigma = np.array(data["sigma_G"]) * [1, 2, 0.5, 1, 1, 3]
    plain = standardised_from_golden(data)
    s = standardised_from_golden({**data, "sigma_G": sigma})
    variances = np.diag(data["moments"])[1:7]
    np.testing.assert_allclose(s.noise_exposure, sigma**2 / variances / data["N"])
    np.testing.assert_allclose(s.exposure / sigma, plain.exposure / data["sigma_G"])
    assert s.residual_outcome == plain.residual_outcome


# ---------------------------------------------------------------------- the slope


def test_standard_error_of_the_slope_moves_it_by_its_standard_deviation():
    """Wrong formula: the standard error itself, without Var(X) / Var(X|G)."""
    se = 0.01
    s = summary(overlap=0.5, se_observational=se, n_observational=15_000)
    moved = summary(overlap=0.5, beta_observational=0.2 + se)
    assert s.slope_sd == pytest.approx(moved.residual_slope - s.residual_slope)
    assert s.external_slope_sd == s.slope_sd
    assert not s.slope_in_overlap
    assert s.has_slope


def test_people_behind_the_slope():
    for option, people, in_overlap in (
        ({"overlap": 0.5}, 4500, True),
        ({"overlap": 1}, 9000, True),
        ({"overlap": 0.5, "n_observational": 70_000}, 70_000, False),
        ({"overlap": 0, "n_observational": 6_000}, 6_000, False),
        ({"overlap": 0}, 9000, False),
    ):
        s = summary(**option)
        expected = np.sqrt(s.residual_outcome / s.residual_exposure / people)
        assert s.slope_sd == pytest.approx(expected)
        assert s.slope_in_overlap is in_overlap
        assumed = [note for note in s.notes if "the slope counts as that of 9,000 people" in note]
        assert len(assumed) == (option == {"overlap": 0})


def test_without_a_slope():
    """Wrong formula: Var(Y|X,G) from a covariance of zero."""
    moments = Moments.from_summary(**tables(overlap=0, beta_observational=None))
    s = moments.standardised
    assert not s.has_slope
    assert not s.slope_in_overlap
    assert s.slope_sd == s.external_slope_sd == np.inf
    assert s.residual_slope == 0
    variance = moments.covariance_xy[1, 1] - (s.outcome**2).sum()
    assert s.residual_outcome == pytest.approx(variance)
    assert "no observational slope was given" in " ".join(s.notes)
    assert moments.beta_observational is None
    assert repr(moments).endswith("0 in both, no observational slope)")
    assert "no observational slope" in repr(s)
    assert Moments.from_summary(**tables()).beta_observational == pytest.approx(0.2)
    raw = Moments.from_summary(**tables(overlap=0, beta_observational=None, center=False))
    np.testing.assert_array_equal(raw.standardised.outcome, s.outcome)
    under_ld = Moments.from_summary(**tables(overlap=0, beta_observational=None, ld=CORRELATED))
    _, residual = dense(under_ld)
    assert under_ld.standardised.residual_outcome == pytest.approx(residual[1, 1])


def test_methods_that_need_the_slope_say_so():
    moments = Moments.from_summary(**tables(overlap=0, beta_observational=None))
    prior = mrfast.SpikeSlabPrior(1.0, 0.1)
    model = np.zeros(4, dtype=bool)
    for call in (
        lambda: moments.sufficient,
        lambda: mrfast.laplace_evidence(moments, model, prior),
        lambda: mrfast.log_posterior(moments, model, prior, np.zeros(13)),
    ):
        with pytest.raises(
            InvalidInputError, match=r"^beta_observational: expected the slope .*MC3"
        ):
            call()


# ---------------------------------------------------------------------- correlated candidates


def in_blocks(s):
    """The correlation matrix of the noise, from the blocks."""
    a = np.eye(s.J)
    for block in s.blocks:
        values, vectors = block.eigenvalues, block.eigenvectors
        a[np.ix_(block.indices, block.indices)] = vectors @ np.diag(values) @ vectors.T
    return a


def test_blocks_are_the_connected_candidates():
    """Wrong rule: every pair by itself; 1 and 3 are joined by 2 here."""
    order = [2, 3, 0, 1]  # the lone candidate between the others
    ld = CORRELATED[np.ix_(order, order)]
    s = summary(ld=ld)
    (block,) = s.blocks
    assert block.indices.tolist() == [0, 2, 3]
    assert block.size == s.largest_block == 3
    assert s.independent.tolist() == [1]
    np.testing.assert_allclose(in_blocks(s), ld, atol=1e-12)
    assert s.notes == summary().notes


def test_blocks_in_a_list_are_the_matrix():
    parts = [[[1.0]], np.array([[1, 0.4], [0.4, 1]]), pd.DataFrame([[1.0]])]
    matrix = np.eye(4)
    matrix[1, 2] = matrix[2, 1] = 0.4
    listed, whole = summary(ld=parts), summary(ld=matrix)
    for a, b in zip(listed.__dict__.values(), whole.__dict__.values(), strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
    (block,) = listed.blocks
    assert block.indices.tolist() == [1, 2]
    assert summary(ld=tuple(parts)).blocks[0].indices.tolist() == [1, 2]
    assert summary(ld=[matrix]).blocks[0].indices.tolist() == [1, 2]
    assert summary(ld=[[[1]]] * 4).uncorrelated


def test_small_correlations_of_a_matrix_count_as_none_in_the_noise_alone():
    matrix = np.eye(4)
    matrix[0, 1] = matrix[1, 0] = 0.009
    matrix[2, 3] = matrix[3, 2] = 0.5
    matrix[1, 3] = matrix[3, 1] = -0.01
    moments = Moments.from_summary(**tables(ld=matrix))
    s = moments.standardised
    assert [block.indices.tolist() for block in s.blocks] == [[2, 3]]
    assert s.notes[-1] == (
        "2 correlations between candidates, of at most 0.01 (limit 0.01), were taken as zero in "
        "the sampling noise"
    )
    np.testing.assert_allclose(s.exposure, dense(moments)[0][:, 0], rtol=1e-12)
    joined = summary(ld=[matrix])
    assert [block.size for block in joined.blocks] == [4]
    np.testing.assert_allclose(in_blocks(joined), matrix, atol=1e-12)
    assert len(joined.notes) == len(s.notes) - 1


def test_small_correlations_within_a_block_stay():
    ld = 0.3 ** np.abs(np.arange(6)[:, None] - np.arange(6))
    assert ld[0, 5] < 0.01
    s = summary(j=6, ld=ld)
    assert [block.size for block in s.blocks] == [6]
    np.testing.assert_allclose(in_blocks(s), ld, atol=1e-12)


def test_blocks_of_individuals_are_beyond_sampling_error():
    rng = np.random.default_rng(4)
    g = rng.standard_normal((4000, 7))
    g[:, 5] += 0.6 * g[:, 2]
    g[:, 6] += 0.6 * g[:, 5]
    x = g.sum(axis=1) + rng.standard_normal(4000)
    moments = Moments.from_individual(g, x, x + rng.standard_normal(4000))
    s = moments.standardised
    assert [block.indices.tolist() for block in s.blocks] == [[2, 5, 6]]
    places = np.ix_([2, 5, 6], [2, 5, 6])
    np.testing.assert_allclose(in_blocks(s)[places], np.corrcoef(g.T)[places], atol=1e-10)
    np.testing.assert_allclose(s.exposure, dense(moments)[0][:, 0], rtol=1e-9)
    assert (s.noise_exposure == s.noise_exposure[0]).sum() >= 3


def test_variances_of_a_block_are_in_its_eigenvalues():
    """Wrong formula: divided by the variances twice."""
    rng = np.random.default_rng(6)
    g = rng.standard_normal((2000, 3)) @ [[2, 1, 0], [0, 1, 0], [0, 0, 3]]
    z = np.column_stack([np.ones(2000), g, g.sum(axis=1) + rng.standard_normal(2000)])
    z = np.column_stack([z, rng.standard_normal(2000)])
    moments = Moments.from_second_moments(z.T @ z / 2000, 2000, np.ones(3), center=True)
    s = moments.standardised
    np.testing.assert_allclose(in_blocks(s)[:2, :2], np.cov(g.T, bias=True)[:2, :2], rtol=1e-9)
    np.testing.assert_allclose(s.noise_exposure, [1 / 2000, 1 / 2000, 1 / 2000 / g[:, 2].var()])


def test_sample_sizes_are_averaged_over_a_block():
    s = summary(n1=[20e3, 10e3, 20e3, 5e3], overlap=0.5, ld=CORRELATED)
    np.testing.assert_allclose(s.noise_exposure, [1 / 15e3, 1 / 15e3, 1 / 15e3, 1 / 5e3])
    np.testing.assert_allclose(s.noise_shared[:3], s.noise_shared[0])
    assert s.notes == ("sample sizes that differ within an LD block were averaged over it",)
    assert summary(n1=[20e3, 19.9e3, 20e3, 5e3], overlap=0.5, ld=CORRELATED).notes == ()


# ---------------------------------------------------------------------- binary outcomes


def test_proportion_of_cases():
    """Wrong formula: phi in place of sqrt(phi (1 - phi))."""
    plain = summary(overlap=1)
    assert not plain.binary
    assert plain.bernoulli_sd is plain.liability_factor is plain.prevalence is None
    s = summary(overlap=1, outcome_type="binary", case_fraction=0.1)
    assert s.binary
    assert s.bernoulli_sd == pytest.approx(0.3)
    assert s.liability_factor is None
    t = tables(overlap=1, outcome_type="binary", prevalence=0.02)
    variance = 2 * t["eaf"] * (1 - t["eaf"])
    t["se_outcome"] = np.sqrt(1 / (0.2 * 0.8) / t["n_outcome"] / variance)
    s = Moments.from_summary(**t).standardised
    assert s.bernoulli_sd == pytest.approx(0.4)
    assert s.prevalence == 0.02
    z = stats.norm.pdf(stats.norm.ppf(0.98))
    assert s.liability_factor == pytest.approx(0.02 * 0.98 / z)
    assert s.liability_factor == pytest.approx(0.405, abs=5e-4)
    t["se_outcome"] = t["se_outcome"] / 2
    clipped = Moments.from_summary(**t)
    assert clipped.standardised.bernoulli_sd == 0.5
    assert "a proportion of cases of 1/2 was assumed" in " ".join(clipped.standardised.notes)
    assert "binary outcome" in repr(clipped)


# ---------------------------------------------------------------------- notes


def test_nothing_to_say_about_consistent_tables_with_a_stated_overlap():
    assert summary(overlap=0.3).notes == ()
    assert summary(n1=9000).notes == ()
    rng = np.random.default_rng(2)
    eaf = rng.uniform(0.05, 0.95, 30)
    parameters = {
        "gamma": rng.normal(0, 0.2, 30),
        "alpha": rng.normal(0, 0.1, 30),
        "beta": 0.3,
        "kappa_X": 1.0,
        "kappa_Y": 1.0,
        "sigma_X": 1.0,
        "sigma_Y": 1.0,
    }
    cohorts = [massive_model(5000, eaf, parameters, rng=seed) for seed in (1, 2)]
    x, y, slope = cohorts[0].summary_statistics(cohorts[1])
    moments = Moments.from_summary(
        beta_exposure=x["beta"],
        se_exposure=x["std_error"],
        n_exposure=x["n"],
        beta_outcome=y["beta"],
        se_outcome=y["std_error"],
        n_outcome=y["n"],
        eaf=x["eaf"],
        beta_observational=slope,
        n_observational=5000,
        overlap=0,
    )
    assert moments.standardised.notes == ()


def test_assumed_overlap_is_noted():
    (note,) = summary().notes
    assert note.startswith("full overlap was assumed")
    (note,) = summary(n1=9000, n2=[9000, 9000, 9000, 9001]).notes
    assert note.startswith("full overlap was assumed")


def test_sizes_that_the_standard_errors_contradict_are_noted():
    t = tables(overlap=1)
    t["n_exposure"] = t["n_exposure"] * [1, 1, 1.5, 1.0]
    (note,) = Moments.from_summary(**t).standardised.notes
    assert note == (
        "the exposure's standard errors imply sample sizes that differ from the stated ones by "
        "more than a quarter for 1 of 4 variants"
    )
    t["n_exposure"] = t["n_exposure"] / [1, 1, 1.5, 1.0]
    t["se_outcome"] = t["se_outcome"] * [2, 1, 0.5, 1.05]
    (note,) = Moments.from_summary(**t).standardised.notes
    assert "the outcome's standard errors" in note
    assert "for 2 of 4 variants" in note


# ---------------------------------------------------------------------- reference problems


def test_bmi_and_psoriasis(reference_dir):
    table = pd.read_csv(reference_dir / "data" / "bmi_psoriasis.csv")
    golden = json.loads(
        (reference_dir / "golden" / "exact" / "bmi_psoriasis_default_prior.json").read_text()
    )
    n = 378274
    s = Moments.from_summary(
        beta_exposure=table["beta_XG"],
        se_exposure=table["se_XG"],
        n_exposure=n,
        beta_outcome=table["beta_YG"],
        se_outcome=table["se_YG"],
        n_outcome=n,
        eaf=table["eaf"],
        beta_observational=0.03922071315328133,
    ).standardised
    for name, key in (
        ("exposure", "h1"),
        ("outcome", "h2"),
        ("residual_exposure", "S11"),
        ("residual_outcome", "S221"),
        ("residual_slope", "m_hat"),
        ("noise_exposure", "n11"),
        ("noise_outcome", "n22"),
        ("noise_shared", "n12"),
        ("slope_sd", "sd_m"),
    ):
        np.testing.assert_allclose(getattr(s, name), golden[key], rtol=1e-9)
    assert "for 19 of 96 variants" in " ".join(s.notes)  # the table's sizes are not the variants'


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_reference_problems_are_taken(name):
    data = golden_exact(name)
    if name == "kernel_s0":
        return
    for part in (data["J8"], data["J16"]) if name == "ld" else (data,):
        s = standardised_from_golden(part)
        h = part.get("h1", part.get("h1_std"))
        if h is not None:
            np.testing.assert_array_equal(s.exposure, h)
        if "se_m" in part:
            assert s.external_slope_sd == pytest.approx(part["se_m"])
        elif s.has_slope:
            assert s.external_slope_sd == np.inf


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("overlap", {"overlap": -0.1}),
        ("overlap", {"overlap": 1.1}),
        ("overlap", {"overlap": np.nan}),
        ("overlap", {"overlap": [0.5, 0.5]}),
        ("n_overlap", {"overlap": 0.5, "n_overlap": 10}),
        ("n_overlap", {"n_overlap": 9001}),
        ("n_overlap", {"n_overlap": -1}),
        ("n_overlap", {"n_overlap": [0, 1, 2, 9001]}),
        ("n_overlap", {"n_overlap": [0, 1, 2, -1]}),
        ("n_overlap", {"n_overlap": [0, 1, 2]}),
        ("beta_observational", {"beta_observational": None}),
        ("beta_observational", {"beta_observational": None, "overlap": 0.1}),
        ("beta_observational", {"beta_observational": None, "n_overlap": [0, 0, 0, 1]}),
        ("se_observational", {"beta_observational": None, "overlap": 0, "se_observational": 0.1}),
        ("n_observational", {"beta_observational": None, "overlap": 0, "n_observational": 1e4}),
        ("se_observational", {"se_observational": 0}),
        ("se_observational", {"se_observational": np.inf}),
        ("se_observational", {"se_observational": "small"}),
        ("n_observational", {"n_observational": -5}),
        ("outcome_type", {"outcome_type": "ordinal"}),
        ("case_fraction", {"case_fraction": 0.5}),
        ("prevalence", {"prevalence": 0.5}),
        ("case_fraction", {"outcome_type": "binary", "case_fraction": 0}),
        ("case_fraction", {"outcome_type": "binary", "case_fraction": 1}),
        ("prevalence", {"outcome_type": "binary", "prevalence": 1.5}),
        ("ld", {"ld": [np.eye(2), np.eye(3)]}),
        ("ld", {"ld": [np.eye(2)]}),
        (r"ld\[1\]", {"ld": [np.eye(2), np.eye(2) * 2]}),
        (r"ld\[1\]", {"ld": [np.eye(2), [[1, 0.2], [0.1, 1]]]}),
        (r"ld\[1\]", {"ld": [np.eye(2), np.ones((2, 3))]}),
        (r"ld\[1\]", {"ld": [np.eye(2), 1.0]}),
        (r"ld\[0\]", {"ld": [np.eye(2), np.ones((0, 0)), np.eye(2)][1:]}),
        ("ld", {"ld": [np.eye(2), [[1, 1], [1, 1]]]}),
        ("ld", {"ld": []}),
    ],
)
def test_bad_arguments_of_the_design_are_named(argument, options):
    with pytest.raises(InvalidInputError, match=f"^{argument}: expected .* received"):
        Moments.from_summary(**tables(**options))


def test_a_missing_slope_with_overlap_explains_what_to_supply():
    with pytest.raises(
        InvalidInputError, match=r"slope of the outcome on the exposure .*overlap=0"
    ):
        Moments.from_summary(**tables(beta_observational=None))


def test_impossible_slopes_from_another_sample():
    """Var(Y|X,G) comes out negative although the slope is below sd(Y) / sd(X)."""
    t = tables(overlap=0, beta_observational=-0.6)
    t["beta_exposure"] = np.full(4, 0.6)
    t["beta_outcome"] = np.full(4, 0.4)
    with pytest.raises(InvalidInputError, match=r"^beta_observational: .* candidates and exposure"):
        Moments.from_summary(**t)
    t["beta_observational"] = None
    assert Moments.from_summary(**t).standardised.residual_outcome > 0
    t["beta_outcome"] = np.full(4, 5.0)
    t["se_outcome"] = np.full(4, 1e-4)
    with pytest.raises(InvalidInputError, match=r"^beta_outcome: .* given the candidates"):
        Moments.from_summary(**t)


def parts(**changes):
    """Arguments of a valid object of three candidates."""
    return {
        "exposure": [0.1, 0.2, -0.1],
        "outcome": [0.0, 0.1, 0.1],
        "noise_exposure": [1e-4] * 3,
        "noise_outcome": [2e-4] * 3,
        "noise_shared": [5e-5] * 3,
        "residual_exposure": 1.0,
        "residual_slope": 0.3,
        "residual_outcome": 0.8,
        "n_exposure": 1e4,
        "n_outcome": 5e3,
        "n_shared": 2.5e3,
        "slope_sd": np.sqrt(0.8 / 2.5e3),
        **changes,
    }


APART = {
    "noise_shared": [0.0] * 3,
    "n_shared": 0,
    "has_slope": False,
    "slope_sd": np.inf,
    "slope_in_overlap": False,
    "residual_slope": 0,
}
PAIR = LDBlock.of_matrix([0, 1], [[1, 0.5], [0.5, 1]])


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("exposure", {"exposure": []}),
        ("exposure", {"exposure": [0.1, np.nan, 0.2]}),
        ("outcome", {"outcome": [0.1, 0.2]}),
        ("noise_exposure", {"noise_exposure": [1e-4, 0, 1e-4]}),
        ("noise_outcome", {"noise_outcome": 1e-4}),
        ("noise_shared", {"noise_shared": [1e-4, -1e-9, 1e-4]}),
        ("noise_shared", {"noise_shared": [1e-4, 1.5e-4, 1e-4]}),
        ("sigma_g", {"sigma_g": [1, 1, -1]}),
        ("names", {"names": ["a", "b"]}),
        ("residual_exposure", {"residual_exposure": 0}),
        ("residual_outcome", {"residual_outcome": -0.1}),
        ("residual_slope", {"residual_slope": np.nan}),
        ("n_exposure", {"n_exposure": 0}),
        ("n_shared", {"n_shared": -1}),
        ("n_shared", {"n_shared": 5001}),
        ("slope_sd", {"slope_sd": 0}),
        ("slope_sd", {"slope_sd": 0.1}),
        ("slope_sd", {"slope_sd": np.inf}),
        ("slope_sd", {"slope_sd": np.inf, "slope_in_overlap": False}),
        ("slope_in_overlap", {"n_shared": 0, "noise_shared": [0.0] * 3}),
        ("slope_sd", {**APART, "slope_sd": 0.1}),
        ("slope_in_overlap", {**APART, "slope_in_overlap": True}),
        ("residual_slope", {**APART, "residual_slope": 0.1}),
        ("has_slope", {**APART, "n_shared": 10}),
        ("has_slope", {**APART, "noise_shared": [1e-5] * 3}),
        ("blocks", {"blocks": ["pair"]}),
        ("blocks", {"blocks": [PAIR, PAIR]}),
        ("blocks", {"blocks": [LDBlock.of_matrix([1, 3], np.eye(2))]}),
        ("noise_outcome", {"noise_outcome": [2e-4, 3e-4, 2e-4], "blocks": [PAIR]}),
        ("bernoulli_sd", {"bernoulli_sd": 0.3}),
        ("prevalence", {"prevalence": 0.3}),
        ("bernoulli_sd", {"binary": True}),
        ("bernoulli_sd", {"binary": True, "bernoulli_sd": 0.6}),
        ("prevalence", {"binary": True, "bernoulli_sd": 0.3, "prevalence": 0}),
    ],
)
def test_inconsistent_parts_are_named(argument, changes):
    StandardisedAssociations(**parts())
    StandardisedAssociations(**parts(**APART))
    with pytest.raises(InvalidInputError, match=f"^{argument}: expected .* received"):
        StandardisedAssociations(**parts(**changes))


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("indices", ([1], [[1.0]])),
        ("indices", ([1, 0], np.eye(2))),
        ("indices", ([1, 1], np.eye(2))),
        ("matrix", ([0, 1], np.eye(3))),
        ("matrix", ([0, 1], [[1, 1], [1, 1]])),
        ("matrix", ([0, 1], [[1, 2], [2, 1]])),
    ],
)
def test_bad_blocks_are_named(argument, arguments):
    with pytest.raises(InvalidInputError, match=f"^{argument}: expected "):
        LDBlock.of_matrix(*arguments)


def test_eigenvectors_are_checked():
    with pytest.raises(InvalidInputError, match=r"^eigenvectors: expected orthonormal"):
        LDBlock([0, 1], [1.0, 1.0], [[1, 0.1], [0, 1]])
    with pytest.raises(InvalidInputError, match=r"^eigenvalues: "):
        LDBlock([0, 1], [0.0, 1.0], np.eye(2))


def test_a_design_belongs_to_its_moments():
    moments = Moments.from_summary(**tables())
    other = StudyDesign.one_sample(100, 3)
    with pytest.raises(InvalidInputError, match=r"^design: expected sample sizes of 4 candidates"):
        dataclasses.replace(moments, design=other)


# ---------------------------------------------------------------------- the object itself


def test_arrays_are_frozen_copies():
    given = parts(exposure=np.array([0.1, 0.2, 0.3]))
    s = StandardisedAssociations(**given, blocks=[PAIR], names=["a", "b", "c"])
    for array in (s.exposure, s.noise_shared, s.sigma_g, *vars(s.blocks[0]).values()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        s.exposure = 1
    given["exposure"][0] = 5
    assert s.exposure[0] == 0.1
    assert repr(s) == "StandardisedAssociations(J=3, 1 LD blocks, N1=10000, N2=5000, N12=2500)"


def test_copies_are_whole():
    moments = Moments.from_summary(
        **tables(
            overlap=0.5, se_observational=0.1, ld=CORRELATED, outcome_type="binary", prevalence=0.1
        )
    )
    for other in (pickle.loads(pickle.dumps(moments)), copy.deepcopy(moments)):
        assert other.fingerprint == moments.fingerprint
        assert other.design.notes == moments.design.notes
        assert not other.design.n_shared.flags.writeable
    s = moments.standardised
    for other in (pickle.loads(pickle.dumps(s)), copy.deepcopy(s)):
        np.testing.assert_array_equal(other.exposure, s.exposure)
        np.testing.assert_array_equal(other.blocks[0].eigenvectors, s.blocks[0].eigenvectors)
        assert (other.liability_factor, other.notes) == (s.liability_factor, s.notes)
        assert not other.exposure.flags.writeable


def test_fingerprint_follows_the_design():
    base = {"n1": 9000, "overlap": 0}
    changes = [
        {},
        {"overlap": 0.5},
        {"n_overlap": [0, 0, 0, 1], "overlap": None},
        {"se_observational": 0.1},
        {"n_observational": 9500},
        {"beta_observational": None},
        {"outcome_type": "binary"},
        {"outcome_type": "binary", "case_fraction": 0.2},
        {"outcome_type": "binary", "prevalence": 0.2},
        {"ld": CORRELATED},
        {"ld": [CORRELATED]},
    ]
    prints = [Moments.from_summary(**tables(**{**base, **c})).fingerprint for c in changes]
    assert len(set(prints)) == len(prints)
    one = Moments.from_summary(**tables(n1=9000))
    assert one.fingerprint == Moments.from_summary(**tables(n1=9000, overlap=1)).fingerprint
    sizes = Moments.from_summary(**tables(n1=[9000, 9000, 9000, 9001.0]))
    assert sizes.n == one.n
    assert sizes.fingerprint != one.fingerprint


def test_centring_keeps_the_design():
    options = {"overlap": 0.5, "outcome_type": "binary", "se_observational": 0.2}
    raw = Moments.from_summary(**tables(center=False, **options))
    assert raw.centered().design is raw.design
    direct = Moments.from_summary(**tables(**options))
    assert raw.centered().fingerprint == direct.fingerprint
    assert raw.standardised.notes[-1].startswith("raw moments were centred")
    assert raw.standardised.slope_sd == direct.standardised.slope_sd
