"""``mrfast example summary``, ``mrfast mr`` and ``mrfast presso``, and harmonised tables."""

from __future__ import annotations

import gzip
import hashlib
import re
import shlex

import numpy as np
import pandas as pd
import pytest
from plink_files import genotypes, variant_table, write_plink
from scipy import stats
from test_cli import read, strict_json

import mrfast
from mrfast.cli.main import main
from mrfast.cli.summary_example import summary_example
from mrfast.errors import InvalidInputError
from mrfast.io.harmonised_tables import read_harmonised
from mrfast.simulation import summary_data
from mrfast.summary.mv_registry import MV_METHODS
from mrfast.summary.registry import METHODS
from mrfast.summary.sensitivity_panel import PLOTS

SHOWN = ["method", "n_snps", "estimate", "std_error", "ci_lower", "ci_upper", "p_value"]
FOUR = ["beta_exposure", "se_exposure", "beta_outcome", "se_outcome"]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    assert main(["example", "summary", "-o", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def harmonised(example):
    tables = [mrfast.read_associations(example / f"{role}.tsv.gz") for role in ROLES]
    return mrfast.harmonise(*tables)


ROLES = ("exposure", "outcome")


def tables_of(folder):
    return [
        *("--exposure", folder / "exposure.tsv.gz"),
        *("--outcome", folder / "outcome.tsv.gz"),
    ]


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def same_numbers(found, expected, columns=SHOWN):
    pd.testing.assert_frame_equal(
        found[columns].reset_index(drop=True),
        expected[columns].reset_index(drop=True),
        check_dtype=False,
        rtol=1e-14,
    )


# ------------------------------------------------------------------------------- example


def test_example_says_what_to_run_and_that_runs(command, tmp_path):
    folder = tmp_path / "an example"  # a blank: the printed commands are quoted
    assert command("example", "summary", "-o", folder, "--seed", "2") == 0
    commands = [line for line in command.out.splitlines() if line.startswith("mrfast ")]
    readme = (folder / "README.txt").read_text()
    assert readme.startswith("SIMULATED DATA")
    assert [shlex.split(line)[1] for line in commands] == ["harmonise", "mr", "presso"]
    for line in commands:
        assert line in readme
        words = shlex.split(line)[1:]
        assert command(*words, "--quiet") == 0
        assert command.out == ""
    assert (folder / "harmonised.tsv").is_file()
    written = {path.name for path in (folder / "results").iterdir()}
    assert {"estimates.csv", "mr.json", "summary.txt", "harmonisation.tsv"} < written
    for kind in PLOTS:
        picture = (folder / "results" / f"{kind}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
    assert (folder / "presso" / "presso.tsv").is_file()


def test_example_is_labelled_seeded_and_replaces_no_other_files(command, example, tmp_path):
    for role in ROLES:
        text = gzip.decompress((example / f"{role}.tsv.gz").read_bytes()).decode()
        assert text.startswith("## Simulated data")
    assert command("example", "summary", "-o", tmp_path / "same", "--quiet") == 0
    assert command("example", "summary", "-o", tmp_path / "other", "--seed", "3") == 0
    for role in ROLES:
        name = f"{role}.tsv.gz"
        assert (tmp_path / "same" / name).read_bytes() == (example / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (example / name).read_bytes()
    assert "--seed" in command.fails("example", "summary", "-o", tmp_path, "--seed", "-1")
    (tmp_path / "README.txt").write_text("mine")
    message = command.fails("example", "summary", "-o", tmp_path)
    assert message.startswith("--output: ")
    assert (tmp_path / "README.txt").read_text() == "mine"


def test_example_gives_harmonisation_work(harmonised):
    reasons = harmonised.table.groupby("reason", observed=True)["snp"].agg(list)
    assert reasons["kept_palindromic_by_frequency"] == ["sim37"]
    assert reasons["palindromic_ambiguous"] == ["sim38"]
    assert reasons["incompatible_alleles"] == ["sim39"]
    assert reasons["absent_from_outcome"] == ["sim40"]
    for reason in ("kept", "kept_swapped", "kept_flipped_strand", "kept_flipped_strand_swapped"):
        assert reasons[reason]


def test_example_is_of_its_truth(harmonised):
    """Valid SNPs scatter about 0.2, the others about 0.2 plus their direct effect."""
    kept = harmonised.kept
    direct = summary_example(1).direct_effects
    alpha = kept["snp"].map(direct).fillna(0).to_numpy()
    side = np.sign(kept["beta_exposure"].to_numpy())
    z = (kept["beta_outcome"] - 0.2 * kept["beta_exposure"] - side * alpha) / np.hypot(
        kept["se_outcome"], 0.2 * kept["se_exposure"]
    )
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert len(direct) == 6


# ------------------------------------------------------------------------------ mrfast mr


@pytest.fixture(scope="module")
def ran(example, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran") / "results"
    words = ["mr", *tables_of(example), "--seed", "5", "--no-plot", "-o", folder, "--quiet"]
    assert main([str(word) for word in words]) == 0
    return folder


def test_mr_writes_the_numbers_of_the_library(ran, harmonised):
    panel = mrfast.sensitivity(harmonised, rng=5)
    same_numbers(read(ran / "estimates.csv"), panel.methods)
    same_numbers(
        read(ran / "leave_one_out.csv"), panel.leave_one_out, ["snp", "estimate", "std_error"]
    )
    document = strict_json(ran / "mr.json")
    assert document["seed"] == 5
    assert document["rows_by_reason"]["absent_from_outcome"] == 1
    assert document["pairs"][0]["n_snps"] == 37
    by_hand = mrfast.ivw(**{name: harmonised.kept[name].to_numpy() for name in FOUR})
    assert document["estimates"][0]["estimate"] == by_hand.estimate
    assert (ran / "summary.txt").read_text().rstrip("\n") == panel.summary()
    findings = read(ran / "findings.csv")
    assert set(panel.checks) <= set(findings["check"])
    assert len(read(ran / "harmonisation.tsv")) == 40  # rows of other SNPs are only counted


def test_the_truth_of_the_example_is_found(ran):
    rows = read(ran / "estimates.csv").set_index("method")
    for method in ("weighted_median", "weighted_mode"):
        assert rows.loc[method, "ci_lower"] < 0.2 < rows.loc[method, "ci_upper"]


def test_mr_says_what_it_read_and_found(command, example, tmp_path):
    assert command("mr", *tables_of(example), "-o", tmp_path, "--no-plot") == 0
    assert "exposure: 40 rows in exposure.tsv.gz" in command.out
    assert re.search(r"1 +palindromic_ambiguous", command.out)
    assert "Effect of exposure on outcome: 37 SNPs" in command.out
    seed = re.search(r"^seed (\d+); files in", command.out, re.MULTILINE)
    assert seed is not None
    assert strict_json(tmp_path / "mr.json")["seed"] == int(seed[1])


def test_same_seed_same_bytes(command, example, ran, tmp_path):
    for seed in ("5", "6"):
        folder = tmp_path / seed
        words = ("mr", *tables_of(example), "--seed", seed, "--no-plot", "-o", folder)
        assert command(*words) == 0
    assert digests(tmp_path / "5") == digests(ran)
    assert digests(tmp_path / "6") != digests(ran)


def test_mr_replaces_its_own_files_only(command, example, tmp_path):
    words = ("mr", *tables_of(example), "-o", tmp_path, "--no-plot", "--quiet")
    (tmp_path / "estimates.csv").write_text("mine")
    assert "estimates.csv" in command.fails(*words)
    assert (tmp_path / "estimates.csv").read_text() == "mine"
    (tmp_path / "estimates.csv").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    assert command(*words) == 0
    assert command(*words, "--no-diagnostics", "--methods", "ivw") == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(read(tmp_path / "estimates.csv")) == 1
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"estimates.csv", "harmonisation.tsv", "mr.json", "notes.txt"}


def test_methods_and_their_options(command, example, harmonised, tmp_path):
    words = ("mr", *tables_of(example), "--no-diagnostics", "--seed", "1", "--level", "0.9")
    more = ("--methods", "egger, ivw,simple_mode", "--options", "egger.distribution=normal")
    more += ("--options", "simple_mode.n_draws=500,simple_mode.bandwidth_factor=0.5")
    assert command(*words, *more, "-o", tmp_path) == 0
    expected = mrfast.mr(
        harmonised,
        methods=["egger", "ivw", "simple_mode"],
        options={
            "egger": {"distribution": "normal"},
            "simple_mode": {"n_draws": 500, "bandwidth_factor": 0.5},
        },
        rng=1,
        ci_level=0.9,
    )
    same_numbers(read(tmp_path / "estimates.csv"), expected)
    assert strict_json(tmp_path / "mr.json")["method_options"]["egger"] == {
        "distribution": "normal"
    }


def test_all_methods(command, example, tmp_path):
    words = ("mr", *tables_of(example), "--all", "--no-diagnostics", "--seed", "1")
    assert command(*words, "-o", tmp_path) == 0
    table = read(tmp_path / "estimates.csv")
    assert list(table["method"]) == list(METHODS)
    without = table[table["estimate"].isna()]
    assert set(without["method"]) <= {"wald_ratio", "heterogeneity_penalised"}  # 1; at most 30
    assert without["note"].notna().all()


def test_list_of_methods(capsys):
    with pytest.raises(SystemExit) as end:
        main(["mr", "--list-methods"])
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*METHODS, *MV_METHODS]


def test_p_value_selects_instruments(command, example, tmp_path):
    level = 1e-30
    exposure = mrfast.read_associations(example / "exposure.tsv.gz")
    chosen = exposure[2 * stats.norm.sf(np.abs(exposure["beta"] / exposure["std_error"])) < level]
    words = ("mr", *tables_of(example), "--methods", "ivw", "--no-diagnostics", "-o", tmp_path)
    assert command(*words, "--p-value", str(level)) == 0
    assert f"exposure.tsv.gz, {len(chosen)} of them selected" in command.out
    used = read(tmp_path / "harmonisation.tsv")
    assert set(used["snp"]) == set(chosen["snp"])
    assert "--p-value" in command.fails(*words, "--p-value", "1e-300")


def test_a_panel_thins_the_instruments(command, tmp_path):
    rng = np.random.default_rng(1)
    variants = variant_table(rng, 30)
    panel = write_plink(tmp_path / "panel", genotypes(rng, 200, 30), variants)
    names = {"allele_1": "effect_allele", "allele_2": "other_allele"}
    shared = variants.rename(columns=names)[["snp", "chromosome", "position", *names.values()]]
    data = summary_data("none", 30, rng=2)
    for role in ROLES:
        columns = {"beta": getattr(data, f"beta_{role}"), "std_error": data.se_outcome}
        shared.assign(**columns).to_csv(tmp_path / f"{role}.tsv.gz", sep="\t", index=False)
    words = ("mr", *tables_of(tmp_path), "--methods", "ivw", "--no-diagnostics", "--action", "1")
    words += ("--reference", panel, "--r2", "0.001", "--kb", "5000", "-o", tmp_path / "out")
    assert command(*words) == 0
    expected = mrfast.clump(
        mrfast.read_associations(tmp_path / "exposure.tsv.gz"), reference=panel, r2=0.001, kb=5000
    ).kept
    assert 0 < len(expected) < 30
    used = read(tmp_path / "out" / "harmonisation.tsv")
    assert set(used.loc[used["keep"], "snp"]) == set(expected["snp"])


def test_steiger_filter(command, example, harmonised, tmp_path):
    words = ("mr", *tables_of(example), "--methods", "ivw", "--no-diagnostics", "-o", tmp_path)
    assert command(*words, "--steiger-filter", "direction") == 0
    table = mrfast.steiger_filter(harmonised)
    assert 0 < table["keep"].sum() < len(table)
    assert f"{table['keep'].sum()} of {len(table)} rows pass" in command.out
    same_numbers(read(tmp_path / "estimates.csv"), mrfast.mr(table, methods="ivw"))


def test_binary_outcome_reaches_steiger(command, example, harmonised, tmp_path):
    words = ("mr", *tables_of(example), "--no-plot", "-o", tmp_path, "--methods", "ivw")
    more = ("--outcome-type", "binary", "--case-fraction", "0.3", "--prevalence", "0.1")
    assert command(*words, *more) == 0
    kept = harmonised.kept
    test = mrfast.steiger(
        kept, scale_outcome="binary", case_fraction_outcome=0.3, prevalence_outcome=0.1
    )
    found = read(tmp_path / "steiger.csv")
    assert found["r2_outcome"][0] == pytest.approx(test.r2_outcome, rel=1e-12)


# ------------------------------------------------------------------------- several pairs


@pytest.fixture
def several(tmp_path):
    """Two exposures in two files, two outcomes in one; the second outcome lacks a SNP."""
    one, two = (summary_data("balanced", 12, 50_000, rng=seed) for seed in (1, 2))
    files = {}
    first, outcome = one.tables(rng=3)
    second = first.assign(beta=first["beta"] * 0.5 + two.beta_exposure * 0.1)
    for name, table in (("ldl", first), ("hdl", second)):
        files[name] = tmp_path / f"{name}.tsv"
        table.to_csv(files[name], sep="\t", index=False)
    other = outcome.assign(beta=outcome["beta"] * 2, trait="stroke = 2")
    both = pd.concat([outcome.assign(trait="CHD"), other[1:]])
    files["outcomes"] = tmp_path / "outcomes.csv"
    both.rename(columns={"trait": "id.outcome"}).to_csv(files["outcomes"], index=False)
    return files


def test_several_pairs_each_get_the_numbers_of_their_own(command, several, tmp_path):
    words = ["mr", "--exposure", several["ldl"], several["hdl"]]
    words += ["--outcome", several["outcomes"], "--outcome-columns", "snp=snp", "--seed", "1"]
    assert command(*words, "--no-plot", "-o", tmp_path / "all") == 0
    table = read(tmp_path / "all" / "estimates.csv")
    pairs = table[["exposure", "outcome"]].drop_duplicates().to_numpy().tolist()
    assert len(pairs) == 4
    assert {pair[0] for pair in pairs} == {"ldl", "hdl"}
    assert {pair[1] for pair in pairs} == {"CHD", "stroke = 2"}
    outcome = mrfast.read_associations(several["outcomes"], role="outcome")
    document = strict_json(tmp_path / "all" / "mr.json")
    for entry in document["pairs"]:
        exposure = mrfast.read_associations(several[entry["exposure"]])
        own = outcome[outcome["trait"].astype(str) == entry["outcome"]]
        panel = mrfast.sensitivity(mrfast.harmonise(exposure, own), rng=1)
        rows = (table["exposure"] == entry["exposure"]) & (table["outcome"] == entry["outcome"])
        same_numbers(table[rows], panel.methods)
        folder = tmp_path / "all" / entry["folder"]
        assert re.fullmatch(r"[\w-]+", entry["folder"])
        same_numbers(read(folder / "methods.csv"), panel.methods)
        assert entry["n_snps"] == (12 if entry["outcome"] == "CHD" else 11)
    assert command.out.count(" on ") >= 4


def test_folders_of_earlier_pairs_go_unless_they_hold_other_files(command, several, tmp_path):
    words = ["mr", "--outcome", several["outcomes"], "--no-plot", "--quiet", "-o", tmp_path / "out"]
    assert command(*words, "--exposure", several["ldl"], several["hdl"]) == 0
    folders = sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert len(folders) == 4
    (folders[3] / "notes.txt").write_text("mine")
    assert command(*words, "--exposure", several["ldl"]) == 0
    left = {path for path in (tmp_path / "out").iterdir() if path.is_dir()}
    now = strict_json(tmp_path / "out" / "mr.json")["pairs"]
    assert left == {tmp_path / "out" / entry["folder"] for entry in now} | {folders[3]}
    assert [path.name for path in folders[3].iterdir()] == ["notes.txt"]


def test_pairs_without_a_snp_are_named(command, several, tmp_path):
    """One outcome has none of the SNPs, another exposure none below the p-value."""
    table = pd.read_csv(several["outcomes"])
    table["snp"] = table["snp"].where(table["id.outcome"] == "CHD", "other" + table["snp"])
    table.to_csv(several["outcomes"], index=False)
    weak = pd.read_csv(several["hdl"], sep="\t").assign(beta=1e-5, p_value=0.9)
    weak.to_csv(several["hdl"], sep="\t", index=False)
    words = ["--exposure", several["ldl"], several["hdl"], "--outcome", several["outcomes"]]
    words += ["--p-value", "5e-8", "--seed", "1"]
    assert command("mr", *words, "--no-plot", "-o", tmp_path / "mr") == 0
    assert command.out.count("not done: no SNP to be used") == 3
    found = strict_json(tmp_path / "mr" / "mr.json")
    assert [(entry["exposure"], entry["outcome"]) for entry in found["pairs"]] == [("ldl", "CHD")]
    assert {(entry["exposure"], entry["outcome"]) for entry in found["not_done"]} == {
        ("ldl", "stroke = 2"),
        ("hdl", "CHD"),
        ("hdl", "stroke = 2"),
    }
    assert command("presso", *words, "-o", tmp_path / "presso") == 0
    assert command.out.count("not done: no SNP to be used") == 3


def test_presso_of_several_pairs(command, several, tmp_path):
    words = ["presso", "--exposure", several["ldl"], several["hdl"]]
    words += ["--outcome", several["outcomes"], "--seed", "2", "-o", tmp_path / "presso"]
    assert command(*words) == 0
    rows = read(tmp_path / "presso" / "presso.tsv")
    assert len(rows) == 4
    assert len(read(tmp_path / "presso" / "snps.tsv")) == 2 * (12 + 11)
    assert not (tmp_path / "presso" / "presso.png").exists()


def test_several_exposures_at_once(command, several, tmp_path):
    """The numbers of mv_mr and conditional_f on the aligned tables, for each outcome."""
    words = ["mr", "--multivariable", "--exposure", several["ldl"], several["hdl"]]
    words += ["--outcome", several["outcomes"], "--seed", "4", "-o", tmp_path / "out"]
    more = ["--methods", "mv_ivw,mv_median", "--options", "mv_ivw.model=fixed"]
    assert command(*words, *more) == 0
    found = read(tmp_path / "out" / "estimates.csv")
    strength = read(tmp_path / "out" / "strength.csv")
    exposures = {name: mrfast.read_associations(several[name]) for name in ("ldl", "hdl")}
    outcome = mrfast.read_associations(several["outcomes"], role="outcome")
    for name in ("CHD", "stroke = 2"):
        own = outcome[outcome["trait"].astype(str) == name]
        data = mrfast.mv_harmonise(exposures, own)
        expected = mrfast.mv_mr(
            data, methods=["mv_ivw", "mv_median"], options={"mv_ivw": {"model": "fixed"}}, rng=4
        )
        rows = found[found["outcome"] == name]
        same_numbers(rows, expected, ["exposure", *SHOWN])
        by_hand = np.linalg.lstsq(
            data.beta_exposure.to_numpy() / data.se_outcome[:, None],
            data.beta_outcome / data.se_outcome,
            rcond=None,
        )[0]
        np.testing.assert_allclose(rows["estimate"][:2], by_hand, rtol=1e-10)
        f = mrfast.conditional_f(
            beta_exposure=data.beta_exposure, se_exposure=data.se_exposure
        ).conditional_f_statistic
        values = strength.loc[strength["outcome"] == name, "conditional_f_statistic"]
        np.testing.assert_allclose(values, f, rtol=1e-12)
        assert f"Direct effects on {name}: {len(data.snps)} SNPs" in command.out
    assert strict_json(tmp_path / "out" / "mr.json")["multivariable"]
    assert command(*words, "--p-value", "1e-12") == 0
    chosen = set()
    for table in exposures.values():
        z = np.abs(table["beta"] / table["std_error"])
        p = table["p_value"] if "p_value" in table else 2 * stats.norm.sf(z)
        chosen |= set(table.loc[p < 1e-12, "snp"])
    assert set(read(tmp_path / "out" / "associations.csv")["snp"]) == chosen
    words[words.index(several["hdl"])] = several["ldl"]
    assert "more than once" in command.fails(*words)
    words.remove(several["ldl"])
    assert "expected several exposures" in command.fails(*words)
    assert "--methods: " in command.fails(*words, "--methods", "ivw")


def test_the_same_trait_in_two_files_is_refused(command, several, tmp_path):
    words = ["mr", "--exposure", several["ldl"], several["ldl"]]
    words += ["--outcome", several["outcomes"], "-o", tmp_path / "out"]
    assert "received ldl more than once" in command.fails(*words)


# ------------------------------------------------------------------------ mrfast presso


def test_presso_writes_the_numbers_of_the_library(command, example, harmonised, tmp_path):
    words = ("presso", *tables_of(example), "--seed", "3", "-o", tmp_path, "--alpha", "0.01")
    assert command(*words, "--draws", "20000", "--threads", "1") == 0
    kept = harmonised.kept
    result = mrfast.mr_presso(
        **{name: kept[name].to_numpy() for name in FOUR}, rng=3, alpha=0.01, n_draws=20_000
    )
    row = read(tmp_path / "presso.tsv").iloc[0]
    assert row["estimate"] == result.estimate
    assert row["global_p_value"] == result.global_test.p_value
    assert row["corrected_estimate"] == result.corrected.estimate
    assert row["distortion_p_value"] == result.distortion_test.p_value
    names = [str(kept["snp"].iloc[i]) for i in result.outliers]
    assert row["outliers"] == ", ".join(names)
    assert f"outlying SNPs: {', '.join(names)}" in command.out
    snps = read(tmp_path / "snps.tsv")
    assert list(snps["snp"]) == list(kept["snp"])
    np.testing.assert_allclose(snps["p_value"], result.outlier_test.p_value, rtol=1e-14)
    document = strict_json(tmp_path / "presso.json")
    assert document["results"][0]["outliers"] == names
    assert (tmp_path / "presso.png").read_bytes().startswith(b"\x89PNG")
    # the largest direct effects are found
    direct = summary_example(1).direct_effects
    assert {name for name, effect in direct.items() if effect > 0.03} <= set(names)


def test_presso_simulates_where_asked(command, example, tmp_path):
    words = ("presso", *tables_of(example), "--seed", "3", "-o", tmp_path, "--no-plot", "--quiet")
    assert command(*words, "--simulate", "yes", "--draws", "20000") == 0
    test = strict_json(tmp_path / "presso.json")["results"][0]["global_test"]
    assert (test["method"], test["n_draws"]) == ("simulated", 20_000)
    assert command(*words, "--simulate", "no") == 0
    test = strict_json(tmp_path / "presso.json")["results"][0]["global_test"]
    assert test["method"] == "closed_form"
    assert command.out == ""


# ------------------------------------------------------------------- harmonised tables


DIALECTS = {
    "mrfast": {},
    "TwoSampleMR": {
        "snp": "SNP",
        "keep": "mr_keep",
        "n_exposure": "samplesize.exposure",
        "n_outcome": "samplesize.outcome",
        **{name: name.replace("_", ".") for name in FOUR},
    },
    "MendelianRandomization": {
        "snp": "snps",
        **dict(zip(FOUR, ("betaX", "betaXse", "betaY", "betaYse"), strict=True)),
    },
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_harmonised_tables_of_all_packages(command, dialect, harmonised, ran, tmp_path):
    table = harmonised.table
    if dialect == "MendelianRandomization":
        table = harmonised.kept[["snp", *FOUR]]
    path = tmp_path / "table.csv"
    table.rename(columns=DIALECTS[dialect]).replace({True: "TRUE", False: "FALSE"}).to_csv(
        path, index=False
    )
    words = ("mr", "--harmonised", path, "--seed", "5", "--no-plot", "-o", tmp_path / "out")
    assert command(*words, "--methods", "ivw,egger,weighted_median") == 0
    found = read(tmp_path / "out" / "estimates.csv")
    expected = mrfast.mr(harmonised, methods=["ivw", "egger", "weighted_median"], rng=5)
    same_numbers(found, expected)


def test_columns_of_a_harmonised_table_by_hand(command, harmonised, tmp_path):
    names = dict(zip(FOUR, ("A", "B", "C", "D"), strict=True))
    harmonised.kept[FOUR].rename(columns=names).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    pairs = ",".join(f"{name}={letter}" for name, letter in names.items())
    words = ("presso", "--harmonised", tmp_path / "t.tsv", "--columns", pairs, "--seed", "1")
    assert command(*words, "-o", tmp_path / "out", "--no-plot") == 0
    assert list(read(tmp_path / "out" / "snps.tsv")["snp"]) == list(range(37))


def test_read_harmonised_keeps_what_is_to_be_used(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "SNP,beta.exposure,se.exposure,beta.outcome,se.outcome,mr_keep,exposure\n"
        "rs1,0.1,0.01,0.2,0.02,TRUE,1\n"
        "rs2,0.3,NA,0.4,0.04,FALSE,1\n"
        "rs3,-0.5,0.05,0.6,0.06,True,2\n"
    )
    table = read_harmonised(path)
    assert list(table["snp"]) == ["rs1", "rs3"]
    assert list(table["exposure"]) == ["1", "2"]  # names, not numbers
    np.testing.assert_array_equal(table["beta_exposure"], [0.1, -0.5])
    assert "keep" not in table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bx,bxse,by\n1,1,1\n", "expected a column se_outcome"),
        ("bx,bxse,by,byse\n1,1,a,1\n", "column beta_outcome: expected numbers, received 'a'"),
        ("bx,bxse,by,byse\n1,,1,1\n", "column se_exposure.*none in row 1"),
        ("bx,bxse,by,byse,keep\n1,1,1,1,maybe\n", "column keep: expected TRUE or FALSE"),
        ("bx,bxse,by,byse,keep\n1,1,1,1,no\n", "column keep"),
    ],
)
def test_bad_harmonised_tables(command, text, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_harmonised(path)
    assert re.search(message, command.fails("mr", "--harmonised", path, "-o", tmp_path / "o"))
    assert not (tmp_path / "o").exists()


# ----------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "ivw,best"], "--methods: expected names of methods .*'best'"),
        (["--methods", "ivw", "--all"], "not allowed with"),
        (["--options", "egger"], "--options: expected pairs such as"),
        (["--options", "best.x=1"], "--options: expected names of methods"),
        (["--options", "egger.colour=red"], "--options: .*colour"),
        (["--options", "egger.distribution=cauchy", "--methods", "egger"], "distribution"),
        (["--level", "1"], "--level: "),
        (["--seed", "-1"], "--seed: "),
        (["--p-value", "0"], "--p-value: "),
        (["--eaf-tolerance", "0.5"], "--eaf-tolerance: "),
        (["--harmonised", "x.tsv"], "--harmonised: expected no --exposure"),
        (["--r2", "0.1"], "--r2: expected --reference"),
        (["--reference", "missing"], "missing"),
        (["--exposure", "missing.tsv"], "missing.tsv: No such file"),
        (["-o", __file__], "File exists|Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_of_mr(command, example, tmp_path, more, message):
    words = ("mr", *tables_of(example), "-o", tmp_path / "out", "--no-plot", *more)
    assert re.search(message, command.fails(*words))
    assert not (tmp_path / "out").exists()


def test_tables_are_needed(command, example, tmp_path):
    words = ("mr", "--exposure", example / "exposure.tsv.gz", "-o", tmp_path)
    assert command.fails(*words).startswith("--outcome: expected a file")
    assert command.fails("presso", "-o", tmp_path).startswith("--exposure: expected a file")


def test_a_snp_that_is_kept_twice_is_refused(command, tmp_path):
    exposure, outcome = summary_data("none", 5, rng=1).tables(rng=1)
    pd.concat([exposure, exposure[:1]]).to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    outcome.to_csv(tmp_path / "y.tsv", sep="\t", index=False)
    words = ("--exposure", tmp_path / "x.tsv", "--outcome", tmp_path / "y.tsv")
    for name in ("mr", "presso"):
        message = command.fails(name, *words, "-o", tmp_path / "out")
        assert "every SNP once" in message
        assert "rs1" in message


def test_one_snp_gives_a_wald_ratio(command, tmp_path):
    exposure, outcome = summary_data("none", 1, rng=1).tables(rng=1)
    exposure.to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    outcome.to_csv(tmp_path / "y.tsv", sep="\t", index=False)
    words = ("--exposure", tmp_path / "x.tsv", "--outcome", tmp_path / "y.tsv")
    assert command("mr", *words, "-o", tmp_path / "out", "--no-plot") == 0
    row = read(tmp_path / "out" / "estimates.csv").iloc[0]
    assert row["method"] == "wald_ratio"
    assert row["estimate"] == pytest.approx(outcome["beta"][0] / exposure["beta"][0])
    assert "at least 4 SNPs" in command.fails("presso", *words, "-o", tmp_path / "p")


def test_what_one_method_cannot_do_does_not_stop_the_others(command, tmp_path):
    """Egger regression needs associations that differ in size; here they do not."""
    exposure, outcome = summary_data("none", 12, rng=1).tables(rng=1)
    exposure.assign(beta=0.03).to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    outcome.to_csv(tmp_path / "y.tsv", sep="\t", index=False)
    words = ("--exposure", tmp_path / "x.tsv", "--outcome", tmp_path / "y.tsv", "--no-plot")
    assert command("mr", *words, "-o", tmp_path / "out") == 0
    rows = read(tmp_path / "out" / "estimates.csv").set_index("method")
    assert np.isnan(rows.loc["egger", "estimate"])
    assert "differ in size" in rows.loc["egger", "note"]
    assert np.isfinite(rows.loc["ivw", "estimate"])
