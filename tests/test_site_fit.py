from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast import Cohort, InstrumentTable, SiteProfile, fit_site
from mrfast.errors import InvalidInputError
from mrfast.federated.node_profile import NodeProfile

GOLDEN = Path(__file__).parent / "golden" / "federated" / "medusa_site"
MEDUSA = {"score": "inverse_variance", "kappa": "allele_frequencies", "impute": "instruments"}
CONFOUNDERS = ["confounder_1", "confounder_2"]


# ------------------------------------------------------------------------------ Medusa's numbers


def check_against_medusa(site: Path, instruments: Path, study: Path | None = None) -> None:
    persons = pd.read_csv(site / "persons.csv.gz")
    profile = pd.read_csv(next(site.glob("profile.csv*")))
    fit = json.loads((site / "fit.json").read_text())
    truth = json.loads((site / "truth.json").read_text())
    result = fit_site(
        persons,
        pd.read_csv(instruments),
        covariates=CONFOUNDERS,
        site_id="001",
        grid=profile["beta"],
        per_snp=True,
        **MEDUSA,
    )
    assert (result.n_cases, result.n_controls) == (fit["nCases"], fit["nControls"])
    weights = pd.read_csv(site / "score_weights.csv")
    assert tuple(weights["snp_id"]) == result.snps
    np.testing.assert_allclose(result.score.weights, weights["weight"], rtol=1e-13)
    np.testing.assert_allclose(result.log_likelihood, profile["loglik"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result(profile["beta"]), profile["loglik"], rtol=0, atol=1e-9)
    assert result.mle == pytest.approx(fit["betaHat"], abs=1e-8)
    assert result.std_error == pytest.approx(fit["seHat"], rel=1e-4)
    assert result.kappa == pytest.approx(truth["kappaHWE"], rel=1e-12)
    assert result.kappa_std_error == pytest.approx(truth["kappaSe"], rel=1e-12)
    exact = truth["scoreMedusa"]
    assert result.std_error == pytest.approx(exact["se"], rel=1e-9)
    np.testing.assert_allclose(
        result.interval(), [exact["lrLower"], exact["lrUpper"]], rtol=1e-8, atol=1e-9
    )
    singles = pd.read_csv(site / "per_snp.csv")
    assert tuple(singles["snp_id"]) == tuple(result.per_snp["snp"])
    np.testing.assert_allclose(result.per_snp["beta"], singles["beta_ZY"], atol=1e-8)
    np.testing.assert_allclose(result.per_snp["std_error"], singles["se_ZY"], rtol=1e-4)
    np.testing.assert_allclose(result.per_snp["p_value"], singles["pval_ZY"], rtol=1e-3)
    # Medusa copies the frequency of the exposure's study; ours is the cohort's own
    columns = [f"snp_{snp}" for snp in result.snps]
    np.testing.assert_allclose(result.per_snp["eaf"], persons[columns].mean() / 2, rtol=1e-12)
    gamma = fit_site(persons, pd.read_csv(instruments), covariates=CONFOUNDERS, site_id="001")
    assert gamma.mle == pytest.approx(truth["gammaScore"]["betaHat"], abs=1e-9)
    assert gamma.std_error == pytest.approx(truth["gammaScore"]["se"], rel=1e-9)


def test_one_of_medusas_sites() -> None:
    check_against_medusa(GOLDEN, GOLDEN / "instruments.csv")


@pytest.mark.reference
@pytest.mark.parametrize(
    ("site", "study"),
    [
        ("a_chapter", "a_chapter"),
        ("b_20snps", "b_20snps"),
        ("d_three_sites/site_2", "d_three_sites"),
        ("d_three_sites/site_3", "d_three_sites"),
    ],
)
def test_medusas_sites(reference_dir: Path, site: str, study: str) -> None:
    folder = reference_dir / "golden/medusa"
    check_against_medusa(folder / site, folder / study / "instruments.csv")


@pytest.mark.reference
@pytest.mark.parametrize("site", ["a_chapter", "d_three_sites/site_1"])
def test_medusas_profiles_of_single_snps(reference_dir: Path, site: str) -> None:
    """Wrong: exact near the maximum only, where Medusa's grid goes on."""
    folder = reference_dir / "golden/medusa"
    expected = pd.read_csv(folder / site / "per_snp_profiles.csv").set_index("beta")
    found = fit_site(
        pd.read_csv(folder / site / "persons.csv.gz"),
        pd.read_csv(folder / site.split("/")[0] / "instruments.csv"),
        covariates=CONFOUNDERS,
        site_id="S",
        per_snp="profiles",
        grid=expected.index,
    ).per_snp_profiles
    assert list(found) == list(expected.columns)
    for snp, profile in found.items():
        np.testing.assert_allclose(profile(expected.index), expected[snp], rtol=0, atol=1e-9)


@pytest.mark.reference
def test_medusas_negative_controls(reference_dir: Path) -> None:
    folder = reference_dir / "golden/medusa/b_20snps"
    expected = pd.read_csv(folder / "nc_estimates.csv")
    persons = pd.read_csv(folder / "persons.csv.gz")
    controls = pd.read_csv(folder / "negative_controls.csv.gz")
    instruments = pd.read_csv(folder / "instruments.csv")
    beside = fit_site(
        persons,
        instruments,
        covariates=CONFOUNDERS,
        site_id="B",
        negative_controls=controls.iloc[::-1],
        **MEDUSA,
    ).negative_controls
    within = fit_site(
        persons.merge(controls),
        instruments,
        covariates=CONFOUNDERS,
        site_id="B",
        negative_controls=True,
        **MEDUSA,
    ).negative_controls
    pd.testing.assert_frame_equal(beside, within)
    assert list(within["outcome"]) == [f"nc_outcome_{k}" for k in expected["outcome_id"]]
    np.testing.assert_allclose(within["beta"], expected["beta_ZY"], atol=1e-7)
    np.testing.assert_allclose(within["std_error"], expected["se_ZY"], rtol=1e-4)


# ------------------------------------------------------------------------------ a site of our own

SNPS = ["rs1", "chr1:123:A:G", "rs3", "rs4"]


def instruments(**changes: object) -> pd.DataFrame:
    """Four instruments: negative effects, an awkward name, an indel, a palindrome."""
    columns: dict[str, object] = {
        "snp": SNPS,
        "effect_allele": ["A", "A", "ATT", "C"],
        "other_allele": ["G", "G", "A", "G"],
        "eaf": [0.3, 0.35, 0.2, 0.25],
        "beta": [0.30, -0.25, 0.20, 0.15],
        "std_error": [0.02, 0.03, 0.02, 0.04],
    }
    return pd.DataFrame(columns | changes)


def persons(n: int = 3000, share: float = 0.03, seed: int = 1) -> pd.DataFrame:
    """A rare outcome, missing dosages, fractional ones, missing covariates."""
    rng = np.random.default_rng(seed)
    table = instruments()
    dosages = rng.binomial(2, table["eaf"], size=(n, 4)).astype(float)
    age = rng.normal(60, 8, size=n)
    sex = rng.choice(["F", "M"], size=n)
    linear = dosages @ table["beta"] + 0.03 * (age - 60) + 0.2 * (sex == "M")
    outcome = rng.random(n) < 1 / (1 + np.exp(-(np.log(share / (1 - share)) + linear)))
    dosages[:, 3] = np.clip(dosages[:, 3] + rng.uniform(-0.2, 0.2, size=n), 0, 2)
    dosages[rng.random((n, 4)) < 0.04] = np.nan
    age[rng.random(n) < 0.02] = np.nan
    frame = pd.DataFrame(dosages, columns=["snp_rs1", "snp_chr1_123_A_G", "rs3", "snp_rs4"])
    frame.insert(0, "person_id", [f"p{i:05d}" for i in range(n)])
    return frame.assign(outcome=outcome.astype(int), age=age, sex=sex)


def logistic(outcome: np.ndarray, columns: np.ndarray, offset: np.ndarray | float = 0.0):  # type: ignore[no-untyped-def]
    """Plain Newton: coefficients, information, log likelihood."""
    beta = np.zeros(columns.shape[1])
    for _ in range(50):
        eta = columns @ beta + offset
        p = 1 / (1 + np.exp(-eta))
        information = columns.T @ (columns * (p * (1 - p))[:, None])
        beta = beta + np.linalg.solve(information, columns.T @ (outcome - p))
    eta = columns @ beta + offset
    return beta, information, float(np.sum(outcome * eta - np.logaddexp(0, eta)))


@pytest.mark.parametrize("impute", ["cohort", "instruments"])
def test_a_rare_outcome_with_missing_dosages(impute: str) -> None:
    """Wrong: the GWAS's frequency where the cohort's is asked for, or counts before deletion."""
    frame, table = persons(), instruments()
    grid = np.linspace(-1, 2, 7)
    site = fit_site(
        frame, table, covariates=["age", "sex"], site_id="R", impute=impute, grid=grid, per_snp=True
    )
    complete = frame[frame["age"].notna()]
    dosages = complete[["snp_rs1", "snp_chr1_123_A_G", "rs3", "snp_rs4"]].to_numpy()
    fill = np.nanmean(dosages, axis=0) if impute == "cohort" else 2 * table["eaf"].to_numpy()
    filled = np.where(np.isnan(dosages), fill, dosages)
    score = filled @ table["beta"].to_numpy()
    outcome = complete["outcome"].to_numpy()
    nuisance = np.column_stack(
        [np.ones(len(complete)), complete["age"] - 60, complete["sex"] == "M"]
    ).astype(float)
    beta, information, _ = logistic(outcome, np.column_stack([nuisance, score]))
    assert site.mle == pytest.approx(beta[-1], abs=1e-9)
    assert site.std_error == pytest.approx(np.linalg.inv(information)[-1, -1] ** 0.5, rel=1e-8)
    values = [logistic(outcome, nuisance, b * score)[2] for b in grid]
    np.testing.assert_allclose(site.log_likelihood, values, rtol=0, atol=1e-9)
    residual = filled - nuisance @ np.linalg.lstsq(nuisance, filled, rcond=None)[0]
    covariance = residual.T @ residual
    w = table["beta"].to_numpy()
    np.testing.assert_allclose(site.kappa_weights, covariance @ w / (w @ covariance @ w), rtol=1e-9)
    errors = table["std_error"].to_numpy()
    trace = np.sum(covariance.diagonal() * errors**2) / (w @ covariance @ w)
    assert site.noise_trace == pytest.approx(trace, rel=1e-9)
    assert site.kappa == pytest.approx(1, rel=1e-12)
    counts = site.counts
    assert (counts.n, counts.n_cases) == (len(complete), outcome.sum())
    assert (counts.n_before, counts.n_cases_before) == (len(frame), frame["outcome"].sum())
    for j, row in site.per_snp.reset_index(drop=True).iterrows():
        known = ~np.isnan(dosages[:, j])
        own = np.column_stack([nuisance, dosages[:, j]])[known]
        beta, information, _ = logistic(outcome[known], own)
        assert row["beta"] == pytest.approx(beta[-1], abs=1e-8)
        assert row["std_error"] == pytest.approx(
            np.linalg.inv(information)[-1, -1] ** 0.5, rel=1e-6
        )
        assert (row["n"], row["n_cases"]) == (known.sum(), outcome[known].sum())
        rare = dosages[:, j] > 0.5
        assert row["carriers_cases"] == (rare & (outcome == 1)).sum()
        assert row["carriers_controls"] == (rare & (outcome == 0)).sum()
        assert row["eaf"] == pytest.approx(np.nanmean(dosages[:, j]) / 2, rel=1e-12)
    eaf = site.diagnostics["eaf"]
    np.testing.assert_allclose(eaf["eaf"], np.nanmean(dosages, axis=0) / 2, rtol=1e-12)
    np.testing.assert_allclose(
        site.diagnostics["missing_share"]["missing_share"], np.isnan(dosages).mean(axis=0)
    )
    assert any("persons left out for want of covariates" in text for text in site.messages)


ALLELES = pd.DataFrame(
    {
        "snp": SNPS,
        "coded_allele": ["A", "A", "ATT", "C"],
        "other_allele": ["G", "G", "A", "G"],
    }
)


def swapped(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same persons, all but the first SNP counted by the other allele, one strand turned."""
    other = frame.copy()
    for column in ("snp_chr1_123_A_G", "rs3", "snp_rs4"):
        other[column] = 2 - other[column]
    alleles = ALLELES.assign(coded_allele=["T", "G", "A", "G"], other_allele=["C", "A", "ATT", "C"])
    return other, alleles


@pytest.mark.parametrize("impute", ["cohort", "instruments"])
@pytest.mark.parametrize("score", ["gamma", "inverse_variance"])
def test_a_site_that_counts_other_alleles_is_the_same_site(score: str, impute: str) -> None:
    """Wrong: recoding the instruments, as Medusa does: then pooling refuses a weight's sign."""
    frame = persons(800, 0.3)
    other, alleles = swapped(frame)
    options = {"covariates": ["age", "sex"], "site_id": "S", "score": score, "impute": impute}
    plain = fit_site(frame, instruments(), alleles=ALLELES, per_snp=True, **options)
    turned = fit_site(other, instruments(), alleles=alleles, per_snp=True, **options)
    np.testing.assert_array_equal(plain.score.weights, turned.score.weights)
    for name in ("kappa", "kappa_std_error", "noise_trace", "mle", "std_error"):
        assert getattr(turned, name) == pytest.approx(getattr(plain, name), rel=1e-10)
    np.testing.assert_allclose(turned.kappa_weights, plain.kappa_weights, rtol=1e-10)
    beta = np.linspace(-1, 1, 9)
    np.testing.assert_allclose(turned(beta), plain(beta), rtol=0, atol=1e-9)
    pd.testing.assert_frame_equal(turned.per_snp, plain.per_snp, rtol=1e-7)
    assert list(turned.harmonisation["reason"]) == [
        "kept_flipped_strand",
        "kept_swapped",
        "kept_swapped",
        "kept_palindromic_by_frequency",
    ]
    unaware = fit_site(other, instruments(), **options)
    assert abs(unaware.mle - plain.mle) > plain.std_error / 2
    assert any("allele frequencies differ" in text for text in unaware.messages)


def test_every_snp_has_a_reason() -> None:
    frame = persons(400, 0.3).assign(snp_rs5=1, snp_rs6=np.nan, snp_rs7=0.0)
    frame.loc[::2, "snp_rs7"] = 1.0
    table = instruments()
    more = pd.DataFrame(
        {
            "snp": ["rs5", "rs6", "rs7", "rs8", "rs9"],
            "effect_allele": "A",
            "other_allele": "C",
            "eaf": 0.3,
            "beta": [0.1, 0.1, 0.0, 0.1, 0.1],
            "std_error": 0.02,
        }
    )
    table = pd.concat([table, more], ignore_index=True)
    alleles = pd.concat(
        [ALLELES, more[["snp"]].assign(coded_allele="A", other_allele="C")], ignore_index=True
    )
    alleles.loc[alleles["snp"] == "rs3", "coded_allele"] = "GCC"
    alleles = alleles[alleles["snp"] != "rs1"]
    site = fit_site(frame, table, alleles=alleles, site_id="S", per_snp=True)
    reasons = dict(zip(site.harmonisation["snp"], site.harmonisation["reason"], strict=True))
    assert reasons == {
        "rs1": "not_in_alleles",
        "chr1:123:A:G": "kept",
        "rs3": "incompatible_alleles",
        "rs4": "kept_palindromic_by_frequency",
        "rs5": "monomorphic",
        "rs6": "all_missing",
        "rs7": "zero_weight",
        "rs8": "not_in_cohort",
        "rs9": "not_in_cohort",
    }
    assert site.harmonisation["in_score"].tolist() == [False, True, False, True] + 5 * [False]
    assert site.score.in_score == ("chr1:123:A:G", "rs4")
    assert (site.kappa_weights[[0, 2, 4, 5, 6, 7, 8]] == 0).all()
    assert site.harmonisation["detail"].str.len().min() > 0
    assert list(site.per_snp["snp"]) == ["chr1:123:A:G", "rs4", "rs7"]
    assert any("not in the score: rs1 (not_in_alleles)" in text for text in site.messages)
    alone = fit_site(frame, table.iloc[[1, 3]], site_id="S")
    assert site.mle == pytest.approx(alone.mle, rel=1e-12)
    assert site.kappa == pytest.approx(alone.kappa, rel=1e-12)


def test_a_rare_allele_is_left_out_of_the_score_and_the_file_can_be_pooled(tmp_path: Path) -> None:
    """Wrong: a refusal at export that asks for another table of instruments than other sites'."""
    frame = persons(900, 0.3)
    frame["rs3"] = np.where(frame.index < 4, 1.0, 0.0)
    options = {"site_id": "rare", "per_snp": True}
    rare = fit_site(frame, instruments(), **options)
    assert rare.harmonisation["reason"][2] == "few_carriers"
    assert rare.score.weights[2] == rare.kappa_weights[2] == 0
    without = fit_site(frame.drop(columns="rs3"), instruments(), site_id="without")
    np.testing.assert_array_equal(rare.profile.values, without.profile.values)
    sent = SiteProfile.load(rare.save(tmp_path))
    assert "rs3" not in set(sent.per_snp["snp"])
    other = fit_site(persons(900, 0.3, seed=2), instruments(), site_id="other")
    assert mrfast.pool([sent, other]).n_sites == 2
    assert fit_site(frame, instruments(), min_count=4, **options).score.weights[2] == 0.2


def test_ld_enters_weights_and_kappa() -> None:
    """Wrong: marginal effects as weights, which count what correlated SNPs share twice."""
    correlations = 0.6 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    table = InstrumentTable.from_frame(instruments(), ld=correlations)
    frame = persons(500, 0.3)
    site = fit_site(frame, table, site_id="S")
    deviation = np.sqrt(2 * table.eaf * (1 - table.eaf))
    reference = correlations * np.outer(deviation, deviation)
    joint = np.linalg.solve(reference, np.diag(deviation**2))
    np.testing.assert_allclose(site.score.weights, joint @ table.beta, rtol=1e-12)
    assert site.kappa == pytest.approx(1, rel=1e-12)
    columns = ["snp_rs1", "snp_chr1_123_A_G", "rs3", "snp_rs4"]
    filled = frame[columns].fillna(frame[columns].mean()).to_numpy()
    covariance = np.cov(filled.T)
    w = joint @ table.beta
    a = joint.T @ covariance @ w / (w @ covariance @ w)
    np.testing.assert_allclose(site.kappa_weights, a, rtol=1e-10)
    assert site.kappa_std_error == pytest.approx((a @ table.covariance @ a) ** 0.5, rel=1e-10)


def test_own_weights_are_independent_of_the_instruments() -> None:
    frame = persons(500, 0.3)
    given = {"rs1": 1.0, "chr1:123:A:G": -1.0, "rs3": 0.0, "rs4": 0.5}
    site = fit_site(frame, instruments(), site_id="S", weights=given)
    assert site.score.kind == "custom"
    assert site.score.independent_weights
    assert site.noise_trace == 0
    np.testing.assert_array_equal(site.score.weights, [1, -1, 0, 0.5])
    assert site.harmonisation["reason"][2] == "zero_weight"
    with pytest.raises(InvalidInputError, match="weights of instruments, received one of rs99"):
        fit_site(frame, instruments(), site_id="S", weights={"rs99": 1.0})
    series = fit_site(frame, instruments(), site_id="S", weights=pd.Series(given))
    assert series.mle == site.mle
    with pytest.raises(InvalidInputError, match="a mapping of SNP to number"):
        fit_site(frame, instruments(), site_id="S", weights=[1.0, 2.0])


def test_covariates_by_person_whatever_their_order() -> None:
    frame = persons(600, 0.3)
    plain = fit_site(frame, instruments(), covariates=["age", "sex"], site_id="S")
    table = frame[["person_id", "age", "sex"]].rename(columns={"person_id": "rowId"})
    shuffled = table.sample(frac=1, random_state=1).reset_index(drop=True)
    beside = fit_site(frame, instruments(), covariates=shuffled, site_id="S")
    assert beside.mle == plain.mle
    np.testing.assert_array_equal(beside.profile.values, plain.profile.values)
    fewer = fit_site(frame, instruments(), covariates=shuffled.iloc[:500], site_id="S")
    assert fewer.counts.n <= 500
    assert any("100 are not in the covariates' table" in text for text in fewer.messages)
    by_row = fit_site(frame, instruments(), covariates=frame[["age", "sex"]], site_id="S")
    assert by_row.mle == plain.mle
    assert any("by the order of the rows" in text for text in by_row.messages)


def test_arrays_give_what_a_table_gives() -> None:
    frame = persons(600, 0.3)
    columns = ["snp_rs1", "snp_chr1_123_A_G", "rs3", "snp_rs4"]
    cohort = Cohort.from_arrays(
        frame["outcome"], frame[columns].to_numpy(), SNPS, covariates=frame[["age", "sex"]]
    )
    arrays = fit_site(cohort, instruments(), site_id="S")
    table = fit_site(frame, instruments(), covariates=["age", "sex"], site_id="S")
    np.testing.assert_array_equal(arrays.profile.values, table.profile.values)


def test_profiles_of_single_snps() -> None:
    site = fit_site(persons(600, 0.3), instruments(), site_id="S", per_snp="profiles")
    assert list(site.per_snp_profiles) == SNPS
    for _, row in site.per_snp.iterrows():
        profile = site.per_snp_profiles[row["snp"]]
        assert isinstance(profile, NodeProfile)
        assert profile.mle == pytest.approx(row["beta"], abs=1e-7)
        assert profile.std_error == pytest.approx(row["std_error"], rel=1e-6)


def test_window_holds_the_study_range() -> None:
    site = fit_site(persons(600, 0.3), instruments(), site_id="S", effect_range=3.0)
    assert site.effect_range == 3
    reach = 3 * abs(site.kappa)
    assert site.profile.lower <= -reach
    assert site.profile.upper >= reach
    assert site.profile.lower <= site.mle - 7.99 * site.std_error
    assert site.profile.upper >= site.mle + 7.99 * site.std_error


@pytest.mark.parametrize("unit", [1e-6, 1e-2, 1e2, 1e4])
def test_the_unit_of_the_exposure_does_not_matter(unit: float) -> None:
    """Wrong: a window of 1 per unit whatever the unit: hundreds of standard deviations in mg/dl."""
    frame = persons(600, 0.3)
    table = instruments()
    scaled = table.assign(beta=table["beta"] * unit, std_error=table["std_error"] * unit)
    options = {"site_id": "S", "per_snp": "profiles"}
    one = fit_site(frame, table, **options)
    other = fit_site(frame, scaled, **options)
    assert other.mle * unit == pytest.approx(one.mle, rel=1e-8)
    assert other.kappa == pytest.approx(1, rel=1e-12)
    assert other.profile.lower <= other.mle - 7.99 * other.std_error
    beta = np.linspace(-1, 1, 5) * one.std_error
    np.testing.assert_allclose(other(beta / unit), one(beta), rtol=0, atol=1e-8)
    assert any("effect_range asks for" in text for text in other.messages) == (unit > 10)


def test_the_profile_is_exact_on_the_grid() -> None:
    """Wrong: the study's window alone, beyond which the profile is a tangent."""
    frame = persons(600, 0.3)
    options = {"covariates": ["age", "sex"], "site_id": "S"}
    complete = frame[frame["age"].notna()]
    columns = ["snp_rs1", "snp_chr1_123_A_G", "rs3", "snp_rs4"]
    dosages = complete[columns].fillna(complete[columns].mean()).to_numpy()
    nuisance = np.column_stack([np.ones(len(complete)), complete["age"], complete["sex"] == "M"])
    exact = mrfast.profile_likelihood(
        complete["outcome"], dosages @ instruments()["beta"].to_numpy(), nuisance[:, 1:]
    )
    for grid in (np.linspace(-12, 8, 41), [9.0], np.linspace(0, 0.1, 3)):
        site = fit_site(frame, instruments(), grid=grid, **options)
        values = exact.model.evaluate(np.asarray(grid)).values
        np.testing.assert_allclose(site.log_likelihood, values, rtol=0, atol=1e-9)
        np.testing.assert_allclose(site(grid), values, rtol=0, atol=1e-9)
        np.testing.assert_allclose(site.profile(grid), values, rtol=0, atol=1e-9)
    wide = fit_site(frame, instruments(), grid=[-900, 0, 900], **options)
    plain = fit_site(frame, instruments(), **options)
    np.testing.assert_allclose(
        wide.log_likelihood, exact.model.evaluate([-900, 0, 900]).values, rtol=1e-12
    )
    assert (wide.profile.lower, wide.profile.upper) == (plain.profile.lower, plain.profile.upper)
    assert any("too wide for one window" in text for text in wide.messages)


def test_negative_controls_with_few_cases_are_kept_and_said() -> None:
    rng = np.random.default_rng(3)
    frame = persons(600, 0.3)
    frame["nc_outcome_1"] = rng.integers(0, 2, size=600).astype(float)
    frame.loc[:99, "nc_outcome_1"] = np.nan
    frame["nc_outcome_2"] = 0
    frame.loc[:3, "nc_outcome_2"] = 1
    few = np.random.default_rng(1).permutation(600)[:12]
    frame["nc_outcome_3"] = np.nan
    frame.loc[few, "nc_outcome_3"] = np.arange(12) % 2
    frame.loc[few, ["snp_rs1", "snp_chr1_123_A_G", "rs3", "snp_rs4"]] = 1.0
    site = fit_site(frame, instruments(), covariates=["sex"], site_id="S", negative_controls=True)
    table = site.negative_controls
    assert table["reason"].tolist() == ["estimated", "few_cases", "no_estimate"]
    assert table["n_cases"][1] == 4
    assert np.isnan(table["beta"][1])
    assert table["n_cases"][0] + table["n_controls"][0] == 500
    known = frame.iloc[100:]
    alone = fit_site(
        known.assign(outcome=known["nc_outcome_1"].astype(int)),
        instruments(),
        covariates=["sex"],
        site_id="S",
        impute="instruments",
    )
    whole = fit_site(
        frame,
        instruments(),
        covariates=["sex"],
        site_id="S",
        impute="instruments",
        negative_controls=["nc_outcome_1"],
    )
    assert whole.negative_controls["beta"][0] == pytest.approx(alone.mle, abs=1e-8)
    with pytest.raises(InvalidInputError, match="outcomes of 0 and 1"):
        fit_site(frame, instruments(), site_id="S", negative_controls=["sex"])
    with pytest.raises(InvalidInputError, match="columns nc_outcome_"):
        fit_site(persons(100, 0.5), instruments(), site_id="S", negative_controls=True)


def test_separation_is_a_monotone_profile() -> None:
    """Wrong: Medusa's flat profile of zeros, whose cases count although it adds nothing."""
    frame = persons(300, 0.3)[["person_id", "snp_rs1"]].fillna(0.0)
    frame["outcome"] = (frame["snp_rs1"] == 2).astype(int)
    site = fit_site(frame, instruments(), site_id="S", per_snp=True)
    assert len(site.per_snp) == 0
    assert any("no estimate of the SNP by itself: rs1" in text for text in site.messages)
    assert site.profile.monotone == 1
    assert np.isinf(site.mle)
    assert site(-0.5) < site(0.0) < site(0.5)
    assert "separates" in site.diagnostics["separation"]
    assert site.diagnostics["separation"] in site.messages


def test_covariates_that_say_nothing() -> None:
    frame = persons(400, 0.3).assign(one=1, twice=lambda f: 2 * f["age"])
    site = fit_site(frame, instruments(), covariates=["age", "one", "twice"], site_id="S")
    plain = fit_site(frame, instruments(), covariates=["age"], site_id="S")
    assert site.mle == pytest.approx(plain.mle, rel=1e-9)
    assert site.kappa_weights == pytest.approx(plain.kappa_weights, rel=1e-9)
    assert site.diagnostics["constant_covariates"] == ("one",)
    assert site.diagnostics["aliased_covariates"] == ("twice",)
    assert site.diagnostics["n_covariates"] == 1
    assert any("do not vary, left out: one" in text for text in site.messages)


def test_prior_variance_of_covariates() -> None:
    frame = persons(400, 0.3)
    options = {"covariates": ["age", "sex"], "site_id": "S"}
    free = fit_site(frame, instruments(), **options)
    tight = fit_site(frame, instruments(), prior_variance={"sex": 1e-12}, **options)
    without = fit_site(frame, instruments(), covariates=["age"], site_id="S")
    assert tight.mle == pytest.approx(without.mle, abs=1e-6)
    assert abs(free.mle - without.mle) > 1e-4
    by_name = fit_site(frame, instruments(), prior_variance={"age": 0.1, "sex": 0.1}, **options)
    assert by_name.mle == fit_site(frame, instruments(), prior_variance=0.1, **options).mle
    single = fit_site(
        frame, instruments(), prior_variance={"sex": 1e-12}, per_snp="profiles", **options
    )
    for _, row in single.per_snp.iterrows():
        profile = single.per_snp_profiles[row["snp"]]
        assert row["beta"] == pytest.approx(profile.mle, abs=1e-7)
    none = fit_site(frame, instruments(), prior_variance=np.inf, **options)
    assert none.mle == free.mle
    constant = {"covariates": ["age", "sex", "one"], "site_id": "S"}
    left_out = fit_site(
        frame.assign(one=1), instruments(), prior_variance={"age": 0.1, "one": 1}, **constant
    )
    assert left_out.mle == pytest.approx(
        fit_site(frame, instruments(), prior_variance=pd.Series({"age": 0.1}), **options).mle
    )
    with pytest.raises(InvalidInputError, match="names among"):
        fit_site(frame, instruments(), prior_variance={"height": 1}, **options)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    frame = persons(2000, 0.1)
    options = {"covariates": ["age", "sex"], "site_id": "S", "per_snp": True}
    one, three = (fit_site(frame, instruments(), n_threads=k, **options) for k in (1, 3))
    np.testing.assert_array_equal(one.profile.values, three.profile.values)
    np.testing.assert_array_equal(one.kappa_weights, three.kappa_weights)
    pd.testing.assert_frame_equal(one.per_snp, three.per_snp, check_exact=True)


def test_what_leaves_comes_back(tmp_path: Path) -> None:
    site = fit_site(
        persons(2000, 0.3),
        instruments(),
        covariates=["age", "sex"],
        site_id="001",
        study_id="study",
        per_snp=True,
        grid=[-1, 0, 1],
    )
    again = SiteProfile.load(site.save(tmp_path))
    assert again.site_id == "001"
    assert again.mle == pytest.approx(site.mle, rel=1e-12)
    np.testing.assert_array_equal(again.kappa_weights, site.kappa_weights)
    assert again.score.instruments_checksum == InstrumentTable.from_frame(instruments()).checksum


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site_id": "../x"}, "site_id"),
        ({"score": "beta"}, "score: expected one of"),
        ({"kappa": "hwe"}, "kappa: expected one of"),
        ({"impute": "mean"}, "impute: expected one of"),
        ({"per_snp": "yes"}, "per_snp: expected True, False or 'profiles'"),
        ({"grid": [0, 0, 1]}, "ascending"),
        ({"grid": []}, "grid"),
        ({"grid": np.arange(100_001)}, "1 to 100000 numbers"),
        ({"effect_range": 0}, "effect_range"),
        ({"covariates": ["height"]}, "height, which it lacks"),
        ({"covariates": ["age", "outcome"]}, "beside outcome and identifier, received outcome"),
        ({"instruments": instruments(snp=["a", "b", "c", "d"])}, "for at least one of the 4"),
        ({"instruments": instruments(beta=0.0)}, r"none \(rs1: zero_weight"),
        ({"instruments": 3}, "an InstrumentTable or a DataFrame"),
        ({"instruments": instruments(eaf=np.nan), "impute": "instruments"}, "impute='cohort'"),
        ({"instruments": instruments(eaf=np.nan), "kappa": "allele_frequencies"}, "none for rs1"),
        ({"cohort": persons(300).assign(outcome=0)}, "0 cases and 300 controls"),
        ({"cohort": persons(300).assign(snp_rs1=2.5)}, "dosages of rs1 from 0 to 2"),
        ({"n_threads": 0}, "n_threads"),
        ({"covariates": np.eye(300)}, "covariates: expected a score that varies given them"),
        ({"cohort": persons(300).assign(age=np.nan), "covariates": ["age"]}, "300 lack age"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "cohort": persons(300, 0.3),
        "instruments": instruments(),
        "site_id": "S",
    }
    with pytest.raises(InvalidInputError, match=message):
        fit_site(**(arguments | change))  # type: ignore[arg-type]


def test_public_names() -> None:
    assert mrfast.fit_site is fit_site
