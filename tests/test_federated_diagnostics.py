"""Checks of a federated study."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cis_problems import golden
from scipy.optimize import minimize
from scipy.stats import f as f_distribution

import mrfast
from mrfast.data.instruments import InstrumentTable
from mrfast.errors import InvalidInputError
from mrfast.federated.cohort import Cohort
from mrfast.federated.logistic import LogisticModel
from mrfast.federated.node_profile import NodeProfile, chebyshev_nodes
from mrfast.federated.site_profile import ScoreDefinition, SiteCounts, SiteProfile

MEDUSA = "golden/medusa"
CONTROLS = ["outcome", "beta", "std_error", "n_cases", "n_controls"]


def instruments_of(snps: list[str], **columns: Any) -> pd.DataFrame:
    values = {"beta": 0.3, "std_error": 0.05, "eaf": 0.3}
    return pd.DataFrame(
        {"snp": snps, "effect_allele": "A", "other_allele": "C", **(values | columns)}
    )


def persons(
    rng: np.random.Generator, n: int, frequencies: np.ndarray, key: str = "person_id"
) -> pd.DataFrame:
    """A cohort with SNPs rs1, rs2, ... and an outcome."""
    names = [f"rs{j + 1}" for j in range(len(frequencies))]
    frame = pd.DataFrame(
        rng.binomial(2, frequencies, (n, len(frequencies))).astype(float), columns=names
    )
    frame.insert(0, key, np.arange(n) + 1)
    frame["outcome"] = rng.integers(0, 2, n)
    return frame


# ---------------------------------------------------------------------------- F


@pytest.mark.reference
@pytest.mark.parametrize("site", ["a_chapter", "b_20snps"])
def test_medusa_golden_checks(site: str, reference_dir: Path) -> None:
    """Medusa's tables of F statistics, allele frequencies and missing dosages."""
    folder = reference_dir / MEDUSA / site
    instruments = pd.read_csv(folder / "instruments.csv")
    cohort = pd.read_csv(folder / "persons.csv.gz")
    expected = {
        name: pd.read_csv(folder / f"diag_{name}.csv")
        for name in ("fstat_gwas", "fstat_cohort", "af", "missing")
    }
    for options, name in (({}, "fstat_gwas"), ({"cohort": cohort}, "fstat_cohort")):
        result = mrfast.first_stage_f(instruments, **options)
        assert list(result.table["snp"]) == list(expected[name]["snp_id"])
        assert result.table["f_statistic"].to_numpy() == pytest.approx(
            expected[name]["fStatistic"].to_numpy(), rel=1e-9
        )
        assert (result.table["weak"] == expected[name]["weakFlag"]).all()
    af = mrfast.allele_frequency_check(cohort, instruments, rule="difference")
    assert af["eaf_site"].to_numpy() == pytest.approx(expected["af"]["eaf_cohort"].to_numpy())
    assert np.abs(af["difference"].to_numpy()) == pytest.approx(
        expected["af"]["eaf_diff"].to_numpy(), abs=1e-14
    )
    assert (af["flagged"] == expected["af"]["discrepancyFlag"]).all()
    missing = mrfast.missingness_check(cohort, instruments)
    assert (missing["n_missing"] == expected["missing"]["n_missing"]).all()
    assert (missing["flagged"] == expected["missing"]["highMissingFlag"]).all()


def test_f_of_a_cohort_is_that_of_the_regression() -> None:
    """Wrong: all persons' sum of squares in every F, though each SNP has its own missing ones."""
    rng = np.random.default_rng(0)
    frame = persons(rng, 400, np.array([0.3, 0.2, 0.4]))
    age = rng.normal(size=400)
    exposure = frame["rs1"] * 0.3 + frame["rs2"] * 0.2 + 2 * age + rng.normal(size=400)
    frame.loc[:40, "rs1"] = np.nan
    exposure[100:120] = np.nan
    frame["exposure"] = exposure
    frame["age"] = age
    table = instruments_of(["rs1", "rs2", "rs3"])
    result = mrfast.first_stage_f(table, cohort=frame, covariates=["age"])

    def regression(columns: np.ndarray) -> float:
        rows = ~np.isnan(columns).any(axis=1) & frame["exposure"].notna().to_numpy()
        x, y = columns[rows], frame["exposure"].to_numpy()[rows]
        small = np.column_stack([np.ones(rows.sum()), age[rows]])
        sums = [
            np.linalg.lstsq(design, y, rcond=None)[1][0]
            for design in (small, np.column_stack([small, x]))
        ]
        df = rows.sum() - 2 - x.shape[1]
        return float((sums[0] - sums[1]) / x.shape[1] / (sums[1] / df))

    dosages = frame[["rs1", "rs2", "rs3"]].to_numpy()
    singles = [regression(dosages[:, [j]]) for j in range(3)]
    assert result.table["f_statistic"].to_numpy() == pytest.approx(singles, rel=1e-9)
    assert result.mean_f == pytest.approx(np.mean(singles))
    assert result.joint_f == pytest.approx(regression(dosages), rel=1e-9)
    weighted = mrfast.first_stage_f(
        table, cohort=frame, covariates=["age"], score_weights=[1.0, 2.0, 0.0]
    )
    assert weighted.score_f == pytest.approx(
        regression((dosages @ [1.0, 2.0, 0.0])[:, None]), rel=1e-9
    )
    assert result.weak == tuple(s for s, f in zip(table["snp"], singles, strict=True) if f < 10)
    constant = frame.assign(rs3=0.1)
    assert np.isnan(mrfast.first_stage_f(table, cohort=constant).table["f_statistic"].to_numpy()[2])


def test_score_f_is_freed_of_the_weights_own_noise() -> None:
    """Wrong: kappa^2 / variance with weights of the same study, 20 for 20 SNPs without effect."""
    rng = np.random.default_rng(1)
    naive, ours = [], []
    for _ in range(300):
        beta = rng.normal(0, 0.05, 20)
        table = instruments_of([f"rs{j}" for j in range(20)], beta=beta)
        ours.append(mrfast.first_stage_f(table).score_f)
        naive.append(float((beta @ beta) ** 2 / (beta @ beta * 0.05**2)))
    assert np.mean(naive) == pytest.approx(20, rel=0.1)
    assert np.mean(ours) < 3
    strong = instruments_of(["a", "b"], beta=[2.0, -1.0])
    exact = (0.42 * (4 + 1 - 2 * 0.05**2)) ** 2 / (0.42**2 * 0.05**2 * 5)
    assert mrfast.first_stage_f(strong).score_f == pytest.approx(exact, rel=1e-12)
    own = mrfast.first_stage_f(strong, score_weights=[1.0, 0.0])
    assert own.score_f == pytest.approx((2 / 0.05) ** 2)


def test_f_with_ld() -> None:
    """Wrong: the mean of the single F statistics where SNPs repeat each other."""
    r = np.array([[1.0, 0.8], [0.8, 1.0]])
    table = InstrumentTable.from_frame(instruments_of(["a", "b"], beta=[0.3, 0.3]), ld=r)
    result = mrfast.first_stage_f(table)
    assert result.mean_f == pytest.approx(36)
    assert result.joint_f == pytest.approx(36 / 1.8)
    assert "mean F 36" in repr(result)


def test_f_bad_input() -> None:
    rng = np.random.default_rng(2)
    frame = persons(rng, 30, np.array([0.3]))
    table = instruments_of(["rs1"])
    for options, message in (
        ({"cohort": frame}, "exposure"),
        ({"cohort": frame, "exposure": np.zeros(3)}, "shape"),
        ({"cohort": frame.iloc[:8].assign(exposure=1.0)}, "more than 10"),
        ({"cohort": frame.drop(columns="rs1").assign(exposure=1.0)}, "dosages"),
        ({"covariates": ["age"]}, "without a cohort"),
        ({"score_weights": [0.0]}, "zeros only"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.first_stage_f(table, **options)


# ---------------------------------------------------------------------------- dosages


def test_small_cohorts_are_not_flagged_by_chance() -> None:
    """Wrong: every difference above 0.1 (Medusa), which flags one SNP in ten with 30 persons."""
    rng = np.random.default_rng(3)
    frequencies = rng.uniform(0.3, 0.5, 300)
    table = instruments_of([f"rs{j + 1}" for j in range(300)], eaf=frequencies)
    small = persons(rng, 30, frequencies)
    medusa = mrfast.allele_frequency_check(small, table, rule="difference")
    assert medusa["flagged"].mean() > 0.05
    ours = mrfast.allele_frequency_check(small, table)
    assert not ours["flagged"].any()
    assert not ours["looks_swapped"].any()
    other = persons(rng, 2000, np.append(frequencies[:299], frequencies[299] + 0.15))
    flagged = mrfast.allele_frequency_check(other, table)
    assert list(flagged.loc[flagged["flagged"], "snp"]) == ["rs300"]
    z = ours["difference"] / ours["std_error"]
    assert z.std() == pytest.approx(1, abs=0.15)


def test_swapped_alleles_and_the_instruments_own_sample() -> None:
    frequencies = np.array([0.2, 0.2, 0.45])
    table = instruments_of(["rs1", "rs2", "rs3"], eaf=frequencies, n=[1e6, 20.0, 1e6])
    site = pd.DataFrame(
        {"snp": ["rs1", "rs2", "rs3"], "eaf": [0.8, 0.35, 0.45], "n": [4000, 4000, 4000]}
    )
    result = mrfast.allele_frequency_check({"A": site, "B": site.assign(eaf=0.2)}, table)
    assert list(result["site"]) == ["A"] * 3 + ["B"] * 3
    assert list(result["looks_swapped"][:3]) == [True, False, False]
    assert list(result["flagged"][:3]) == [True, False, False]  # rs2: few in the instruments' study
    assert result["std_error"][1] == pytest.approx(np.sqrt(0.16 / 2 * (1 / 4000 + 1 / 20)))
    monomorphic = mrfast.allele_frequency_check(site.assign(eaf=0.0), table)
    assert monomorphic["flagged"][0]


def test_missing_dosages_and_the_outcome() -> None:
    """Wrong: the share alone; missing among cases only is the one that biases."""
    rng = np.random.default_rng(4)
    frame = persons(rng, 1000, np.array([0.3, 0.3, 0.3]))
    cases = np.flatnonzero(frame["outcome"] == 1)
    frame.loc[cases[:60], "rs1"] = np.nan
    frame.loc[rng.choice(1000, 150, replace=False), "rs2"] = np.nan
    result = mrfast.missingness_check(frame, instruments_of(["rs1", "rs2", "rs3"]))
    assert list(result["n_missing"]) == [60, 150, 0]
    assert list(result["flagged"]) == [False, True, False]
    assert result["p_differential"][0] < 1e-10
    assert result["p_differential"][1] > 0.01
    assert np.isnan(result["p_differential"][2])
    arrays = Cohort.from_arrays(
        frame["outcome"],
        frame[["rs1", "rs2", "rs3"]].fillna(-1).to_numpy().astype(np.int8),
        ["rs1", "rs2", "rs3"],
    )
    same = mrfast.missingness_check(arrays, instruments_of(["rs1", "rs2", "rs3"]))
    pd.testing.assert_frame_equal(result, same)


def site_profile(site_id: str, kappa: float, **parts: Any) -> SiteProfile:
    nodes = chebyshev_nodes(-1.0, 1.0, 12)
    profile = NodeProfile(-1.0, 1.0, -50 * nodes**2, -100 * nodes, np.full(12, 100.0), np.zeros(12))
    score = ScoreDefinition(
        kind="custom",
        snps=("rs1", "rs2"),
        effect_alleles=("A", "A"),
        other_alleles=("C", "C"),
        weights=np.array([1.0, 1.0]),
        noise_weights=np.zeros(2),
        independent_weights=True,
    )
    return SiteProfile(
        site_id=site_id,
        profile=profile,
        score=score,
        counts=SiteCounts(n=1000, n_cases=400, n_controls=600),
        kappa_weights=np.array([kappa, 0.0]),
        instrument_beta=np.array([1.0, 1.0]),
        instrument_std_error=np.array([0.1, 0.1]),
        **parts,
    )


def test_checks_of_site_profiles() -> None:
    shares = pd.DataFrame({"snp": ["rs2"], "missing_share": [0.2]})
    eaf = pd.DataFrame({"snp": ["rs1", "rs2"], "eaf": [0.3, 0.6]})
    sites = [
        site_profile("A", 2.0, diagnostics={"eaf": eaf, "missing_share": shares}),
        site_profile("B", 2.0, diagnostics={"eaf": eaf}),
    ]
    table = instruments_of(["rs1", "rs2"])
    result = mrfast.allele_frequency_check(sites, table)
    assert list(result["site"]) == ["A", "A", "B", "B"]
    assert list(result["flagged"]) == [False, True, False, True]
    assert list(result["n"]) == [1000, 800, 1000, 1000]
    missing = mrfast.missingness_check(sites[0], table)
    assert list(missing["flagged"]) == [False, True]
    assert missing["n_missing"].isna().tolist() == [True, False]  # not told, which is not 0
    with pytest.raises(InvalidInputError, match="n_missing"):
        mrfast.missingness_check(sites[1], table)


def test_checks_take_pooled_profiles_and_files(tmp_path: Path) -> None:
    eaf = pd.DataFrame({"snp": ["rs1", "rs2"], "eaf": [0.3, 0.6]})
    carriers = pd.DataFrame({"snp": ["rs1", "rs2"], "cases": [200, 300], "controls": [300, 450]})
    parts = {"diagnostics": {"eaf": eaf}, "carriers": carriers}
    sites = [site_profile(name, 2.0, **parts) for name in ("A", "B")]
    table = instruments_of(["rs1", "rs2"])
    expected = mrfast.allele_frequency_check(sites, table)
    files = [site.save(tmp_path) for site in sites]
    for given in (mrfast.pool(sites), files, [str(file) for file in files]):
        pd.testing.assert_frame_equal(mrfast.allele_frequency_check(given, table), expected)
    alone = mrfast.allele_frequency_check(files[1], table)
    assert set(alone["site"]) == {"B"}


def test_dosage_checks_bad_input() -> None:
    table = instruments_of(["rs1"])
    good = pd.DataFrame({"snp": ["rs1"], "eaf": [0.2], "n": [100]})
    for sites, options, message in (
        ([], {}, "at least one site"),
        (good.drop(columns="n"), {}, "eaf, n"),
        (good.assign(eaf=1.2), {}, "from 0 to 1"),
        (good, {"rule": "medusa"}, "difference"),
        (good, {"threshold": -1}, "threshold"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.allele_frequency_check(sites, table, **options)
    with pytest.raises(InvalidInputError, match="n_total"):
        mrfast.missingness_check(
            pd.DataFrame({"snp": ["rs1"], "n_missing": [5], "n_total": [3]}), table
        )


# ---------------------------------------------------------------------------- phenome


def logistic(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and standard errors by a general optimiser."""
    design = np.column_stack([np.ones(len(y)), x])

    def value(b: np.ndarray) -> float:
        eta = design @ b
        return float(np.logaddexp(0, eta).sum() - y @ eta)

    def slope(b: np.ndarray) -> np.ndarray:
        return np.asarray(design.T @ (1 / (1 + np.exp(-design @ b)) - y))

    b = minimize(value, np.zeros(design.shape[1]), jac=slope, method="BFGS", tol=1e-12).x
    p = 1 / (1 + np.exp(-design @ b))
    covariance = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    return b[1:], np.sqrt(covariance.diagonal())[1:]


def phenome_problem() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(7)
    cohort = persons(rng, 1500, np.array([0.3, 0.2, 0.4]))
    cohort["rs3"] = cohort["rs3"] * 0.9 + 0.05  # imputed
    covariates = pd.DataFrame(
        {
            "person_id": cohort["person_id"],
            "disease": (rng.random(1500) < 1 / (1 + np.exp(2 - 0.6 * cohort["rs1"]))).astype(int),
            "height": 0.2 * cohort["rs2"] + 0.1 * cohort["rs1"] + rng.normal(size=1500),
            "weight": rng.normal(size=1500),
        }
    )
    return cohort, covariates, instruments_of(["rs1", "rs2", "rs3"])


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("model", ["joint", "marginal"])
def test_phenome_wide_regressions(model: str, adjusted: bool) -> None:
    """Wrong: least squares for zeros and ones, or covariates matched by row, not by person."""
    cohort, covariates, table = phenome_problem()
    rng = np.random.default_rng(8)
    cohort["pc1"] = rng.normal(size=1500) + 0.2 * cohort["rs1"]
    cohort.loc[:30, "rs2"] = np.nan
    covariates.loc[1400:, "height"] = np.nan
    shuffled = covariates.sample(frac=1, random_state=1)
    result = mrfast.phenome_wide_check(
        cohort, table, shuffled, model=model, adjust=["pc1"] if adjusted else None
    )
    assert list(result.table["snp"]) == ["rs1", "rs2", "rs3"] * 3
    assert result.n_tests == 9
    dosages = cohort[["rs1", "rs2", "rs3"]].to_numpy()
    for name, rows in result.table.groupby("covariate"):
        y = covariates[name].to_numpy(dtype=float)
        for j in range(3):
            columns = dosages if model == "joint" else dosages[:, [j]]
            place = j if model == "joint" else 0
            if adjusted:
                columns = np.column_stack([columns, cohort["pc1"]])
            known = ~np.isnan(columns).any(axis=1) & ~np.isnan(y)
            x, target = columns[known], y[known]
            row = rows.iloc[j]
            assert row["n"] == known.sum()
            if name == "disease":
                assert row["family"] == "logistic"
                beta, error = (part[place] for part in logistic(x, target))
            else:
                design = np.column_stack([np.ones(len(x)), x])
                fit, sums, *_ = np.linalg.lstsq(design, target, rcond=None)
                variance = sums[0] / (len(x) - design.shape[1])
                beta = fit[place + 1]
                error = np.sqrt(variance * np.linalg.inv(design.T @ design)[place + 1, place + 1])
                assert row["p_value"] == pytest.approx(
                    f_distribution.sf((beta / error) ** 2, 1, len(x) - design.shape[1]), rel=1e-7
                )
            assert row["beta"] == pytest.approx(beta, rel=1e-5, abs=1e-6)
            assert row["std_error"] == pytest.approx(error, rel=1e-5)
    pairs = result.significant[["snp", "covariate"]].to_numpy().tolist()
    assert ["rs1", "disease"] in pairs
    assert result.any_significant


@pytest.mark.parametrize("covariate", ["disease", "height"])
def test_units_of_what_is_adjusted_for_do_not_matter(covariate: str) -> None:
    """The defect: a column far from 0 beside its spread was taken for the intercept."""
    cohort, covariates, table = phenome_problem()
    plain = np.random.default_rng(4).normal(size=len(cohort))
    first, second = (
        mrfast.phenome_wide_check(cohort, table, covariates, adjust=column[:, None]).table
        for column in (plain, 1e3 + 1e-6 * plain)
    )
    assert covariate in set(first["covariate"])
    for name in ("beta", "std_error"):
        own = first["covariate"] == covariate
        expected = first.loc[own, name].to_numpy()
        assert second.loc[own, name].to_numpy() == pytest.approx(expected, rel=1e-5)


def test_logistic_regressions_are_those_of_the_kernel() -> None:
    """To the precision that a statistical test of the kernel's fits asks for."""
    cohort, covariates, table = phenome_problem()
    result = mrfast.phenome_wide_check(cohort, table, covariates, model="both").table
    rows = result[result["covariate"] == "disease"].set_index(["model", "snp"])
    y = covariates["disease"].to_numpy(dtype=float)
    dosages = np.ascontiguousarray(cohort[["rs1", "rs2", "rs3"]].to_numpy())
    for j, snp in enumerate(("rs1", "rs2", "rs3")):
        for model, others in (("joint", np.delete(dosages, j, axis=1)), ("marginal", None)):
            fit = LogisticModel(y, dosages[:, j], others).fit()
            row = rows.loc[(model, snp)]
            assert row["beta"] == pytest.approx(fit.beta, rel=1e-9)
            assert row["std_error"] == pytest.approx(fit.std_error, rel=1e-8)


def test_both_models_and_any_key() -> None:
    """Medusa crashes where the key is person_id in one table and another column in the other."""
    cohort, covariates, table = phenome_problem()
    result = mrfast.phenome_wide_check(cohort, table, covariates, model="both")
    assert set(result.table["model"]) == {"joint", "marginal"}
    assert len(result.table) == 18
    assert result.n_tests == 9
    renamed = covariates.rename(columns={"person_id": "rowId"})
    other = mrfast.phenome_wide_check(cohort, table, renamed, model="both")
    pd.testing.assert_frame_equal(result.table, other.table)


def test_what_cannot_be_estimated_is_reported() -> None:
    cohort, covariates, table = phenome_problem()
    rng = np.random.default_rng(9)
    cohort["rs4"] = cohort["rs1"]
    cohort["rs5"] = 1.0
    carriers = cohort["rs2"].to_numpy() > 0
    covariates["constant"] = 1
    covariates["rare"] = (np.arange(1500) < 3).astype(int)
    covariates["apart"] = np.where(carriers, 0, rng.integers(0, 2, 1500))
    covariates["copy"] = (cohort["rs1"] > 0).astype(int)
    covariates["town"] = rng.choice(["a", "b", "c"], 1500)
    covariates["unknown"] = np.where(np.arange(1500) < 12, rng.normal(size=1500), np.nan)
    table = instruments_of(["rs1", "rs2", "rs3", "rs4", "rs5", "rs6"])
    result = mrfast.phenome_wide_check(cohort, table, covariates)
    status = result.table.pivot(index="covariate", columns="snp", values="status")
    assert set(status["rs4"]) == {"collinear SNP"}
    assert set(status["rs5"]) == {"constant SNP"}
    assert set(status["rs6"]) == {"not in the cohort"}
    assert set(status.loc["constant", ["rs1", "rs2", "rs3"]]) == {"constant covariate"}
    assert set(status.loc["rare", ["rs1", "rs2", "rs3"]]) == {"rare covariate"}
    assert set(status.loc["unknown", ["rs1", "rs2", "rs3"]]) == {"too few persons"}
    assert status.loc["apart", "rs2"] == "separated"
    assert status.loc["apart", "rs1"] == "ok"
    assert status.loc["copy", "rs1"] == "separated"
    assert set(status.loc[["town[b]", "town[c]"], "rs1"]) == {"ok"}
    bad = result.table["status"] != "ok"
    assert result.table.loc[bad, ["beta", "std_error", "p_value"]].isna().all().all()
    assert result.n_tests == int((~bad).sum())
    assert "without an estimate" in repr(result)
    marginal = mrfast.phenome_wide_check(cohort, table, covariates, model="marginal")
    status = marginal.table.pivot(index="covariate", columns="snp", values="status")
    assert status.loc["disease", "rs4"] == "ok"  # by itself it is not collinear
    assert status.loc["copy", "rs1"] == "separated"


def test_phenome_wide_level() -> None:
    """Wrong: 0.05 for each test."""
    rng = np.random.default_rng(10)
    cohort = persons(rng, 300, np.full(5, 0.3))
    covariates = pd.DataFrame(rng.normal(size=(300, 200)))
    result = mrfast.phenome_wide_check(cohort, instruments_of(list(cohort)[1:6]), covariates)
    assert result.n_tests == 1000
    assert result.threshold == pytest.approx(5e-5)
    assert not result.any_significant
    assert (result.table["p_value"] < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_phenome_wide_bad_input() -> None:
    cohort, covariates, table = phenome_problem()
    with pytest.raises(InvalidInputError, match="covariates"):
        mrfast.phenome_wide_check(cohort, table)
    with pytest.raises(InvalidInputError, match="dosages"):
        mrfast.phenome_wide_check(cohort, instruments_of(["rs9"]), covariates)
    with pytest.raises(InvalidInputError, match="marginal"):
        mrfast.phenome_wide_check(cohort, table, covariates, model="single")


@pytest.mark.slow
def test_phenome_wide_speed() -> None:
    """20 SNPs, 100 covariates, 50,000 persons: 2 s of CPU time."""
    rng = np.random.default_rng(11)
    cohort = persons(rng, 50_000, rng.uniform(0.1, 0.4, 20))
    covariates = np.column_stack(
        [rng.binomial(1, rng.uniform(0.01, 0.3), 50_000) for _ in range(50)]
        + [rng.normal(size=50_000) for _ in range(50)]
    )
    start = time.process_time()
    result = mrfast.phenome_wide_check(cohort, instruments_of(list(cohort)[1:21]), covariates)
    assert time.process_time() - start < 10
    assert result.n_tests == 2000


# ---------------------------------------------------------------------------- negative controls


def test_negative_controls_are_pooled_on_the_exposures_scale() -> None:
    """Wrong: coefficients of scores pooled as they are, though a unit of score differs."""
    truth = np.array([0.3, -0.2, 0.1])
    tables = {
        site: pd.DataFrame(
            {"outcome": list("xyz"), "beta": truth * kappa, "std_error": [0.1, 0.2, 0.1]}
        )
        for site, kappa in (("A", 1.0), ("B", 2.5))
    }
    tables["B"] = tables["B"].assign(n_cases=[50, 60, np.nan], n_controls=100).iloc[::-1]
    pooled = mrfast.pool_negative_controls(tables, kappas={"A": 1.0, "B": 2.5})
    assert list(pooled["outcome"]) == ["x", "y", "z"]
    assert pooled["estimate"].to_numpy() == pytest.approx(truth)
    assert pooled["std_error"][0] == pytest.approx((1 / 0.1**2 + 2.5**2 / 0.1**2) ** -0.5)
    assert pooled["q_statistic"].to_numpy() == pytest.approx(np.zeros(3), abs=1e-20)
    assert pooled["n_cases"].isna().all()
    profiles = [
        site_profile(name, kappa, negative_controls=table.reindex(columns=CONTROLS))
        for (name, table), kappa in zip(tables.items(), (1.0, 2.5), strict=True)
    ]
    same = mrfast.pool_negative_controls(profiles)
    assert same["estimate"].to_numpy() == pytest.approx(truth)
    plain = mrfast.pool_negative_controls(tables)
    assert plain["estimate"].to_numpy() != pytest.approx(truth, rel=0.1)


def test_negative_controls_of_single_sites() -> None:
    table = pd.DataFrame(
        {
            "outcome_id": [1, 2, 3],
            "beta_ZY": [0.2, np.nan, 0.1],
            "se_ZY": [0.1, 0.1, np.inf],
            "n_cases": [10, 20, 30],
        }
    )
    other = pd.DataFrame({"outcome": ["1", "4"], "beta": [0.4, 0.3], "std_error": [0.1, 0.2]})
    pooled = mrfast.pool_negative_controls([table, other])
    assert list(pooled["outcome"]) == ["1", "4"]
    assert list(pooled["n_sites"]) == [2, 1]
    assert pooled["estimate"][0] == pytest.approx(0.3)
    assert pooled["q_statistic"][0] == pytest.approx(2.0)
    assert np.isnan(pooled["q_p_value"][1])
    alone = mrfast.pool_negative_controls(table)
    assert list(alone["n_cases"]) == [10]


def test_negative_controls_bad_input() -> None:
    good = pd.DataFrame({"outcome": ["x"], "beta": [0.1], "std_error": [0.1]})
    for sites, options, message in (
        ({"A": good.drop(columns="beta")}, {}, "beta"),
        ({"A": pd.concat([good, good])}, {}, "more than once"),
        ({"A": good}, {"kappas": {"A": 0.0}}, "other than 0"),
        ({"A": good}, {"kappas": {"B": 1.0}}, "none for 'A'"),
        ({"A": good}, {"kappas": [1.0, 2.0]}, "1 numbers"),
        ({"A": good.assign(beta=np.nan)}, {}, "an estimate"),
        ([], {}, "at least one site"),
        ({"A": 3}, {}, "SiteProfile"),
        ([site_profile("A", 1.0), site_profile("A", 2.0)], {}, "every site once"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.pool_negative_controls(sites, **options)


# ---------------------------------------------------------------------------- samples


def test_medusa_golden_overlap_and_ancestry() -> None:
    expected = golden("overlap_ancestry")
    first = mrfast.overlap_check(
        n_shared=150, n_exposure=1000, n_outcome=2000, mean_f=25, estimate=0.3
    )
    assert first.proportion == expected["overlap1"]["overlapProportion"]
    assert first.bias_index == pytest.approx(expected["overlap1"]["biasIndex"], rel=1e-14)
    assert first.risk == expected["overlap1"]["riskLevel"]
    assert first.medusa_corrected_estimate == pytest.approx(
        expected["overlap1"]["correctedEstimate"], rel=1e-12
    )
    for n, name in ((0, "overlap2"), (200, "overlap3")):
        result = mrfast.overlap_check(n_shared=n, n_exposure=1000, n_outcome=1000)
        assert result.proportion == expected[name]["overlapProportion"]
        assert result.risk == expected[name]["riskLevel"]
        assert result.bias_index is None
    ancestry = mrfast.ancestry_check(
        {"EUR": 1.0}, {"EUR": 0.8, "AFR": 0.2}, {"EUR": 0.8, "EAS": 0.2}
    )
    assert ancestry.exposure_outcome == pytest.approx(0.2)
    assert (ancestry.exposure_ld, ancestry.outcome_ld) == pytest.approx((0.2, 0.2))
    assert ancestry.risk == "moderate"
    far = mrfast.ancestry_check({"EUR": 1.0}, {"EUR": 0.8, "AFR": 0.2}, {"EUR": 0.6, "EAS": 0.4})
    assert far.outcome_ld == expected["ancestry1"]["outcomeLdDistance"]
    assert far.mismatch is expected["ancestry1"]["failClosed"]
    same = mrfast.ancestry_check({"EUR": 500}, {"EUR": 20})
    assert same.risk == expected["ancestry2"]["riskLevel"]
    assert same.outcome_ld is None


def test_bias_of_overlap_by_simulation() -> None:
    """Wrong: the estimate over 1 - p / F (Medusa), as if overlap pulled towards zero."""
    rng = np.random.default_rng(12)
    theta, b, f, p = 0.2, 0.7, 12.0, 0.6
    snps, replicates, error = 4000, 40, 0.1
    gamma = np.full(snps, error * np.sqrt(f - 1))
    estimates = []
    for _ in range(replicates):
        noise = rng.normal(0, error, snps)
        own = rng.normal(0, error, snps)
        # the outcome's associations share p of the exposure's noise, times the confounded slope
        outcome = theta * gamma + p * b * noise + 0.3 * own
        exposure = gamma + noise
        estimates.append(float((exposure * outcome).sum() / (exposure**2).sum()))
    result = mrfast.overlap_check(
        n_shared=600, n_exposure=5000, n_outcome=1000, mean_f=f,
        estimate=float(np.mean(estimates)), observational_estimate=b,
    )  # fmt: skip
    assert result.corrected_estimate == pytest.approx(theta, abs=0.003)
    assert result.medusa_corrected_estimate != pytest.approx(theta, abs=0.02)
    assert result.relative_bias == pytest.approx(p / f)
    larger = mrfast.overlap_check(n_shared=600, n_exposure=600, n_outcome=6000, mean_f=f)
    assert (larger.proportion, larger.proportion_of_outcome) == (1.0, 0.1)


def test_samples_bad_input() -> None:
    good = {"n_shared": 10, "n_exposure": 100, "n_outcome": 100}
    for change, message in (
        ({"n_shared": 101}, "at most 100"),
        ({"n_shared": -1}, "at least 0"),
        ({"n_exposure": 0}, "at least 1"),
        ({"mean_f": 0.0}, "above 0"),
        ({"observational_estimate": 0.3}, "beside it"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.overlap_check(**(good | change))
    for shares, message in (
        ({}, "a mapping"),
        ({"EUR": 0.7, "AFR": 0.2}, "sum 1"),
        ({"EUR": -0.5, "AFR": 1.5}, "at least 0"),
        ({"EUR": float("nan")}, "finite"),
        ({"EUR": 0}, "sum"),
        ([0.5, 0.5], "a mapping"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mrfast.ancestry_check(shares, {"EUR": 1.0})
