from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from federated_golden import GOLDEN, golden, site_profiles

import mrfast
from mrfast.errors import InvalidInputError, MrfastWarning
from mrfast.federated.medusa_scale import grid_pool, grid_ratio


@pytest.fixture(scope="module")
def medusa():
    return json.loads(gzip.decompress((GOLDEN / "medusa_scale.json.gz").read_bytes()))


FIELDS = {
    "beta_outcome": "betaZY",
    "se_outcome": "seZY",
    "beta": "betaMR",
    "std_error": "seMR",
    "ci_lower": "ciLower",
    "ci_upper": "ciUpper",
    "p_value": "pValue",
}


def agree(found, expected):
    for ours, theirs in FIELDS.items():
        if hasattr(found, ours):
            assert getattr(found, ours) == pytest.approx(expected[theirs], rel=1e-9), ours


def pooled_grid(case):
    grids = [np.array(site["grid"]) for site in case["sites"]]
    return grid_pool(grids, [np.array(site["log_likelihood"]) for site in case["sites"]])


@pytest.mark.parametrize("name", ["chapter", "a_chapter", "b_20snps", "d_three_sites", "simulated"])
def test_reference(medusa, name):
    case = medusa[name]
    joined = pooled_grid(case)
    agree(
        grid_ratio(joined.grid, joined.log_likelihood, case["beta_zx"], case["se_zx"]), case["mr"]
    )


def test_interpolation_between_grids(medusa):
    """Three grids, linear interpolation: part of what Medusa gets wrong."""
    case = medusa["d_three_sites"]
    joined = pooled_grid(case)
    grid, values = case["pooled"][:2]
    np.testing.assert_allclose(joined.grid, grid, rtol=0, atol=1e-12)
    np.testing.assert_allclose(joined.log_likelihood, values, rtol=0, atol=1e-9)
    with pytest.raises(InvalidInputError, match="without a common range"):
        grid_pool([np.arange(12.0), np.arange(20.0, 32)], [np.zeros(12), np.zeros(12)])


@pytest.mark.parametrize("name", ["regular", "negDenominator", "disjoint", "truncated", "ci90"])
def test_edges(medusa, name):
    edge = medusa["edge"]
    values = {"disjoint": "ll_disjoint", "truncated": "ll_truncated"}.get(name, "ll")
    expected = edge[name]
    found = grid_ratio(
        np.array(edge["grid"]),
        np.array(edge[values]),
        expected["betaZX"],
        expected["seZX"],
        expected["ciLevel"],
    )
    agree(found, expected)
    assert len(found.messages) == {"disjoint": 2, "truncated": 1}.get(name, 0)


def test_no_denominator():
    with pytest.raises(InvalidInputError, match="denominator: expected a number that is not zero"):
        grid_ratio(np.arange(12.0), -((np.arange(12.0) - 5) ** 2), 0.0, 0.1)


# --------------------------------------------------------------------------- public path


def test_the_chapter_to_every_printed_digit(medusa):
    """Wrong: this very number, 1.4779 for a true 0.40, which divides by sum w gamma."""
    pooled = mrfast.pool(mrfast.read_medusa_sites(GOLDEN / "medusa_exports" / "a_chapter"))
    with pytest.warns(MrfastWarning, match=r"divides by sum w gamma = 0.3045, while one unit"):
        found = mrfast.federated_estimate(pooled, scale="medusa")
    agree(found, medusa["chapter"]["mr"])
    assert f"{found.beta:.6f} ({found.ci_lower:.6f}, {found.ci_upper:.5f})" == (
        "1.477905 (1.149481, 1.97054)"
    )
    assert f"{found.odds_ratio:.6f}" == "4.383751"
    assert found.odds_ratio_upper == pytest.approx(medusa["chapter"]["mr"]["orCiUpper"], rel=1e-9)
    assert (found.n_sites, found.total_cases, found.total_controls) == (3, 3061, 4939)
    assert found.heterogeneity.df == 2
    assert "Medusa's denominator" in str(found)
    right = mrfast.federated_estimate(pooled, noise_correction=False)
    assert right.beta == pytest.approx(0.2386, abs=2e-4)
    assert right.std_error == pytest.approx(0.0440, abs=2e-4)


def test_other_scores_are_refused():
    pooled = mrfast.pool(site_profiles(golden("g2_three_sites")))
    with pytest.raises(InvalidInputError, match="'medusa' with score 'gamma' at site site_1"):
        mrfast.federated_estimate(pooled, scale="medusa")


# ------------------------------------------------------------- the right number, end to end


def chapter_site(**options):
    persons = pd.read_csv(GOLDEN / "chapter_persons.csv.gz")
    instruments = pd.read_csv(GOLDEN / "chapter_instruments.csv")
    return mrfast.fit_site(
        persons,
        instruments,
        covariates=["confounder_1", "confounder_2"],
        site_id="site_A",
        **options,
    )


EXACT = {
    "score": "inverse_variance",
    "kappa": "allele_frequencies",
    "impute": "instruments",
}


def test_exact_references_of_the_chapter():
    """Wrong: division by sum w gamma, 0.3045; one unit of the score moves the exposure by 1.966."""
    pooled = mrfast.pool([chapter_site(**EXACT)])
    found = mrfast.federated_estimate(pooled, kappa_uncertainty=False, noise_correction=False)
    assert pooled.kappas[0] == pytest.approx(1.96594300206896, rel=1e-9)
    assert found.beta == pytest.approx(0.236030283488786, abs=1e-7)
    assert found.std_error == pytest.approx(0.0743288136350261, abs=1e-7)
    assert found.ci_lower == pytest.approx(0.093041184401551, abs=1e-7)
    assert found.ci_upper == pytest.approx(0.379738006530459, abs=1e-7)


def test_medusa_scale_without_a_grid():
    """A site of ours: its profile on Medusa's default grid."""
    pooled = mrfast.pool([chapter_site(**EXACT)])
    with pytest.warns(MrfastWarning, match="one unit of the score moves the exposure by 1.966"):
        found = mrfast.federated_estimate(pooled, scale="medusa")
    assert found.beta == pytest.approx(0.46 / 0.304485128378182, rel=1e-9)


@pytest.mark.reference
def test_exact_references_of_three_sites(reference_dir):
    folder = reference_dir / "golden" / "medusa" / "d_three_sites"
    truth = json.loads((folder / "truth_pooled.json").read_text())
    sites = [
        mrfast.fit_site(
            pd.read_csv(folder / f"site_{k}" / "persons.csv.gz"),
            pd.read_csv(folder / "instruments.csv"),
            covariates=["confounder_1", "confounder_2"],
            site_id=f"site_{k}",
            **EXACT,
        )
        for k in (1, 2, 3)
    ]
    found = mrfast.federated_estimate(
        mrfast.pool(sites), kappa_uncertainty=False, noise_correction=False
    )
    expected = truth["mrCorrected"]
    assert found.beta == pytest.approx(expected["beta"], abs=1e-7)
    assert found.std_error == pytest.approx(expected["se"], abs=1e-7)
    assert found.ci_lower == pytest.approx(expected["lrLower"], abs=1e-7)
    assert found.ci_upper == pytest.approx(expected["lrUpper"], abs=1e-7)
