"""The commands of a federated study, from the example through to the estimate."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shlex

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast.cli.federated_example import federated_example
from mrfast.cli.main import main
from mrfast.io.tables import read_frame


def commands_of(folder):
    """Commands that the example's README says to run, without the program's name."""
    lines = (folder / "README.txt").read_text().splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("  mrfast ")]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The example, and everything that its commands make."""
    folder = tmp_path_factory.mktemp("a study")  # a blank: the printed commands are quoted
    assert main(["example", "federated", "-o", str(folder), "--quiet"]) == 0
    for words in commands_of(folder):
        if words[1] != "show":
            assert main(words) == 0, words
    return folder


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def gwas(**columns):
    base = {
        "SNP": ["rs1", "rs2", "rs3"],
        "A1": ["A", "C", "A"],
        "A2": ["G", "T", "T"],
        "FREQ1": [0.3, 0.4, 0.2],
        "BETA": [0.2, -0.1, 0.15],
        "SE": [0.02, 0.02, 0.02],
        "P": [1e-20, 6e-7, 1e-13],
    }
    return pd.DataFrame({**base, **columns})


@pytest.fixture
def written(tmp_path):
    def write(table, name="gwas.tsv"):
        path = tmp_path / name
        table.to_csv(path, sep="," if ".csv" in name else "\t", index=False, na_rep="NA")
        return path

    return write


# ------------------------------------------------------------------------------ example


def test_example_is_seeded_and_labelled(command, tmp_path):
    for name in "ab":
        assert command("example", "federated", "-o", tmp_path / name, "--seed", 1) == 0
    first, again = (
        {k: v for k, v in digests(tmp_path / name).items() if k != "README.txt"} for name in "ab"
    )
    assert first == again
    one, other = (federated_example(seed).gwas["beta"] for seed in (1, 2))
    assert not one.equals(other)
    for name in first:
        data = (tmp_path / "a" / name).read_bytes()
        text = gzip.decompress(data) if name.endswith(".gz") else data
        assert text.startswith(b"## Simulated data"), name
    readme = (tmp_path / "a" / "README.txt").read_text()
    assert readme.startswith("SIMULATED DATA")
    assert re.search(r"all else held fixed: 0\.4$", readme, re.MULTILINE)


def test_example_refuses_to_replace_other_files(command, tmp_path):
    (tmp_path / "hospital_a").mkdir()
    (tmp_path / "hospital_a" / "cohort.csv.gz").write_bytes(b"precious")
    message = command.fails("example", "federated", "-o", tmp_path)
    assert "cohort.csv.gz" in message
    assert (tmp_path / "hospital_a" / "cohort.csv.gz").read_bytes() == b"precious"


def test_example_sites_differ_as_it_says(command, tmp_path):
    command("example", "federated", "-o", tmp_path, "--quiet")
    assert command.out == ""
    cohorts = {
        site: read_frame(tmp_path / site / "cohort.csv.gz", texts=["person_id"])
        for site in ("hospital_a", "hospital_b", "003")
    }
    assert "rs4" not in cohorts["003"]
    assert "rs4" in cohorts["hospital_a"]
    assert "age" not in cohorts["hospital_a"]
    assert all(cohorts["003"]["person_id"].str.startswith("0"))
    assert any(":" in name for name in cohorts["003"].columns)
    coded = read_frame(tmp_path / "hospital_b" / "alleles.tsv").set_index("snp")["coded_allele"]
    table = mrfast.read_associations(tmp_path / "gwas.tsv").set_index("snp")
    assert (coded.loc[table.index] == table["other_allele"].astype(str)).all()


# -------------------------------------------------------------------------- instruments


def test_instruments_are_built_from_a_gwas_table(command, written, tmp_path):
    path, out = written(gwas()), tmp_path / "instruments.json"
    assert command("instruments", "build", path, "--p-value", "5e-8", "-o", out) == 0
    table = mrfast.InstrumentTable.load(out)
    assert table.snps == ("rs1", "rs3")
    assert "palindromic" in command.out
    assert table.checksum in command.out
    built = command.out
    assert command("instruments", "check", out) == 0
    assert command.out in built
    assert command("instruments", "check", path) == 0
    assert "3 SNPs" in command.out
    assert command("instruments", "build", path, "--quiet", "-o", out) == 0  # its own file
    assert command.out == ""


def test_instruments_in_medusas_columns(command, written, tmp_path):
    names = {"SNP": "snp_id", "A1": "effect_allele", "A2": "other_allele", "FREQ1": "eaf"}
    names |= {"BETA": "beta_ZX", "SE": "se_ZX", "P": "pval_ZX"}
    path = written(gwas().rename(columns=names), "medusa.csv")
    assert command("instruments", "check", path) == 0
    assert "3 SNPs" in command.out


def test_correlations_follow_the_rows_that_are_kept(command, written, tmp_path):
    """The matrix is of all rows; the second SNP's row and column go with the SNP."""
    ld = tmp_path / "ld.txt"
    ld.write_text("1 .5 .2\n.5 1 .1\n.2 .1 1\n")
    out = tmp_path / "instruments.json"
    words = ["instruments", "build", written(gwas()), "--ld", ld, "--p-value", "5e-8", "-o", out]
    assert command(*words) == 0
    assert mrfast.InstrumentTable.load(out).ld == pytest.approx(np.array([[1, 0.2], [0.2, 1]]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SNP": ["rs1", "rs1", "rs3"]}, "every SNP once"),
        ({"A1": ["A", "X", "A"]}, "A, C, G"),
        ({"SE": [0.02, 0.0, 0.02]}, "above 0"),
        ({"FREQ1": [0.3, 1.4, 0.2]}, "1.4"),
        ({"BETA": [0.3, np.nan, 0.2]}, "beta"),
    ],
)
def test_a_bad_table_is_told_in_one_line(command, written, change, words):
    message = command.fails("instruments", "check", written(gwas(**change)))
    assert words in message
    assert "gwas.tsv" in message


def test_instruments_refuse(command, written, tmp_path):
    path, out = written(gwas()), tmp_path / "out.json"
    assert "--p-value" in command.fails(
        "instruments", "build", path, "--p-value", "1e-30", "-o", out
    )
    assert not out.exists()
    message = command.fails("instruments", "build", path, "-o", path)
    assert "something else" in message
    assert "existing folder" in command.fails(
        "instruments", "build", path, "-o", tmp_path / "none" / "x.json"
    )
    assert command("instruments", "build", path, "-o", out) == 0
    damaged = out.read_text().replace("0.15", "0.16")
    out.write_text(damaged)
    assert "checksum" in command.fails("instruments", "check", out)
    assert command.fails("instruments", "check", tmp_path / "none.tsv").endswith(
        "No such file or directory"
    )


# --------------------------------------------------------------------------------- site

KEYS = {"person_id": str}


def sent(folder, site):
    return folder / site / "results" / "to_send" / f"example.{site}.site.json"


def test_a_site_sends_what_the_library_computes(study):
    """Swapped coding, covariates joined by an identifier with zeros in front."""
    instruments = mrfast.InstrumentTable.load(study / "instruments.json")
    for site in ("hospital_a", "hospital_b"):
        here = study / site
        cohort = pd.read_csv(here / "cohort.csv.gz", comment="#", dtype=KEYS)
        table = here / "covariates.csv"
        covariates = ["age", "sex"]
        if table.exists():
            covariates = pd.read_csv(table, comment="#", dtype=KEYS)
        alleles = here / "alleles.tsv"
        expected = mrfast.fit_site(
            cohort,
            instruments,
            covariates=covariates,
            alleles=pd.read_csv(alleles, sep="\t", comment="#") if alleles.exists() else None,
            site_id=site,
        )
        found = mrfast.SiteProfile.load(sent(study, site))
        assert found.mle == expected.mle
        assert found.kappa == expected.kappa
        assert found.study_id == "example"


def test_only_the_file_to_send_is_in_its_folder(study):
    for site in ("hospital_a", "hospital_b", "003"):
        folder = study / site / "results"
        assert [path.name for path in (folder / "to_send").iterdir()] == [sent(study, site).name]
        text = sent(study, site).read_text()
        persons = read_frame(study / site / "cohort.csv.gz", texts=["person_id"])["person_id"]
        assert not any(person in text for person in persons)
        assert "STAYS AT THE SITE" in (folder / "local" / "README.txt").read_text()
        assert (folder / "local" / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_local_report_says_what_became_of_every_snp(study):
    table = pd.read_csv(study / "003" / "results" / "local" / "snps.tsv", sep="\t")
    absent = table.set_index("snp").loc["rs4"]
    assert absent["reason"] == "not_in_cohort"
    assert absent["weight"] == 0
    assert len(table) == 10
    per_snp = pd.read_csv(study / "003" / "results" / "local" / "per_snp.tsv", sep="\t")
    assert "rs4" not in set(per_snp["snp"])


def test_show_prints_what_leaves(command, study):
    path = sent(study, "003")
    assert command("site", "show", path) == 0
    assert command.out.strip() == mrfast.SiteProfile.load(path).describe().strip()
    kept = path.parents[1] / "local" / "leaves_the_site.txt"
    assert kept.read_text().strip() == command.out.strip()
    assert "'003'" in command.out
    assert command("site", "show", "--values", path) == 0
    assert command.out == path.read_text()


def small_cohort(n=400, cases=160, *, seed=3):
    rng = np.random.default_rng(seed)
    dosages = rng.binomial(2, 0.35, (n, 3)).astype(float)
    table = pd.DataFrame(dosages, columns=["rs1", "snp_rs2", "rs3"])
    table.insert(0, "person_id", [f"{i:05d}" for i in range(n)])
    table.insert(1, "outcome", (np.arange(n) < cases).astype(int))
    table["age"] = rng.normal(60, 10, n).round(1)
    table["nc_outcome_1"] = rng.integers(0, 2, n)
    return table.iloc[rng.permutation(n)]


@pytest.fixture
def fit(command, written, tmp_path):
    """Words of a command that fits a small cohort."""
    out = tmp_path / "instruments.json"
    table = gwas(A2=["G", "T", "C"], P=[1e-20, 1e-9, 1e-13])
    assert command("instruments", "build", written(table), "-o", out, "--quiet") == 0

    def words(cohort=None, *more, site="001"):
        path = written(small_cohort() if cohort is None else cohort, "cohort.csv.gz")
        return [
            *("site", "fit", "--cohort", path, "--instruments", out, "--site-id", site),
            *("--no-plot", "-o", tmp_path / "results", *more),
        ]

    return words


def test_site_identifier_stays_text(command, fit, tmp_path):
    assert command(*fit()) == 0
    path = tmp_path / "results" / "to_send" / "001.site.json"
    assert mrfast.SiteProfile.load(path).site_id == "001"
    assert "3 of 3 instruments" in command.out
    assert not (tmp_path / "results" / "local" / "profile.png").exists()
    assert command(*fit(None, "--quiet")) == 0  # the same again is no other export
    assert command.out == command.err == ""


def test_another_export_of_a_site_is_noted_and_the_old_one_stays(command, fit, tmp_path):
    """Two exports of nearly the same people can be compared, person by person."""
    assert command(*fit()) == 0
    assert command(*fit(small_cohort().iloc[1:])) == 0
    assert command.err.count("mrfast: note: ") == 1
    names = [path.name for path in (tmp_path / "results" / "to_send").iterdir()]
    assert names == ["001.site.json"]
    assert list((tmp_path / "results" / "local").glob("*.old"))


def test_covariates_by_name_or_from_a_file(command, fit, written, tmp_path):
    cohort = small_cohort()
    path = tmp_path / "results" / "to_send" / "001.site.json"
    assert command(*fit(cohort, "--covariates", "age")) == 0
    by_name = mrfast.SiteProfile.load(path).mle
    table = cohort[["person_id", "age"]].sample(frac=1, random_state=1)
    assert command(*fit(cohort, "--covariates", written(table, "age.tsv"), "--quiet")) == 0
    assert mrfast.SiteProfile.load(path).mle == pytest.approx(by_name, rel=1e-9)
    assert "existing file" in command.fails(*fit(cohort, "--covariates", "missing.csv"))
    assert "different names" in command.fails(*fit(cohort, "--covariates", "age,age"))
    message = command.fails(*fit(cohort, "--covariates", "height"))
    assert "height" in message
    assert message.startswith("--covariates")


def test_negative_controls_and_independent_weights(command, fit, written, tmp_path):
    weights = written(
        pd.DataFrame({"snp": ["rs1", "rs2", "rs3"], "weight": [1, 0, 2]}), "weights.tsv"
    )
    assert command(*fit(None, "--negative-controls", "all", "--weights", weights)) == 0
    profile = mrfast.SiteProfile.load(tmp_path / "results" / "to_send" / "001.site.json")
    assert list(profile.negative_controls["outcome"]) == ["nc_outcome_1"]
    assert profile.score.weights.tolist() == [1, 0, 2]
    assert profile.noise_trace == 0
    assert (tmp_path / "results" / "local" / "negative_controls.tsv").exists()


def test_too_few_cases_send_nothing(command, fit, tmp_path):
    message = command.fails(*fit(small_cohort(cases=4)))
    assert "5" in message
    assert not list((tmp_path / "results").rglob("*.json"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--site-id", "../x"], "--site-id"),
        (["--effect-range", "0"], "--effect-range"),
        (["--min-count", "0"], "--min-count"),
        (["--threads", "0"], "--threads"),
        (["--covariates", "age", "--prior-variance", "-1"], "--prior-variance"),
        (["--negative-controls", "nc_none"], "nc_none"),
        (["--alleles", "none.tsv"], "none.tsv"),
        (["--instruments", "none.json"], "none.json"),
        (["--score", "other"], "--score"),
    ],
)
def test_site_fit_refuses_in_one_line(command, fit, more, words):
    assert words in command.fails(*fit(None, *more))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="outcome"), "outcome"),
        (lambda t: t.assign(outcome=2), "0 for controls"),
        (lambda t: t.assign(rs1="0/1"), "rs1"),
        (lambda t: t.assign(rs1=7), "rs1"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "person"),
        (lambda t: t[["person_id", "outcome"]], "instruments"),
    ],
)
def test_bad_cohorts_are_told_in_one_line(command, fit, change, words):
    assert words in command.fails(*fit(change(small_cohort())))


def test_site_fit_refuses_folders_with_other_files(command, fit, tmp_path):
    """A folder that is sent away must not hold anything else."""
    (tmp_path / "results" / "to_send").mkdir(parents=True)
    other = tmp_path / "results" / "to_send" / "cohort.csv"
    other.write_text("precious")
    assert "cohort.csv" in command.fails(*fit())
    other.unlink()
    (tmp_path / "results" / "local").mkdir()
    mine = tmp_path / "results" / "local" / "snps.tsv"
    mine.write_text("precious")
    assert "snps.tsv" in command.fails(*fit())
    assert mine.read_text() == "precious"


def test_a_damaged_cohort_file(command, fit, tmp_path):
    words = fit()
    path = tmp_path / "cohort.csv.gz"
    path.write_bytes(path.read_bytes()[:-200])
    assert "damaged" in command.fails(*words)
    path.write_bytes(gzip.compress(b"person_id,outcome,rs1\n1,0,1,4\n2,1,0\n"))
    assert "cohort.csv.gz" in command.fails(*words)
    path.write_bytes(gzip.compress(b"person_id,outcome,outcome\n1,0,1\n"))
    assert "once" in command.fails(*words)


# -------------------------------------------------------------------- pool and estimate


def strict_json(path):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


SITES = ("hospital_a", "hospital_b", "003")


def test_the_whole_path_gives_what_the_library_gives(study):
    profiles = [mrfast.SiteProfile.load(sent(study, site)) for site in SITES]
    expected = mrfast.federated_estimate(mrfast.pool(profiles))
    found = strict_json(study / "estimate" / "estimate.json")
    assert found["beta"] == expected.beta
    assert found["confidence_set"] == [list(piece) for piece in expected.confidence_set]
    assert found["noise_correction"] is True
    assert found["sites"] == list(SITES)


def test_the_estimate_of_the_example_holds_the_truth(study):
    """The estimand that the README names is in the interval; with seed 1 it is by design."""
    readme = (study / "README.txt").read_text()
    estimand = float(re.search(r"\(the estimand\): (\S+)", readme)[1])
    found = strict_json(study / "estimate" / "estimate.json")
    assert found["ci_lower"] < estimand < found["ci_upper"]
    assert 0.3 < estimand < 0.4


def test_estimate_writes_tables_and_figures(study):
    folder = study / "estimate"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("estimate.json", "sites.tsv", "leave_one_out.tsv"),
        *("forest.png", "profile.png", "leave_one_out.png"),
    }
    for name in ("sites.tsv", "leave_one_out.tsv"):
        table = read_frame(folder / name, texts=["site", "left_out"])
        assert list(table.iloc[:, 0]) == list(SITES)
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_estimate_options_reach_the_library(command, study, tmp_path):
    pooled = mrfast.PooledProfile.load(study / "pooled.json")
    cases = [
        (["--level", "0.9"], {"ci_level": 0.9}),
        (["--fixed-kappa"], {"kappa_uncertainty": False}),
        (["--noise-correction", "off"], {"noise_correction": False}),
        (["--small-sample", "conditional"], {"small_sample": "conditional"}),
        (["--effects", "random"], {"effects": "random"}),
        (
            ["--interval", "profile", "--effects", "random"],
            {"effects": "random", "interval": "profile"},
        ),
    ]
    for words, options in cases:
        out = tmp_path / words[0]
        assert command("estimate", study / "pooled.json", "-o", out, "--no-plot", *words) == 0
        expected = mrfast.federated_estimate(pooled, **options)
        found = strict_json(out / "estimate.json")
        assert (found["beta"], found["ci_lower"]) == (expected.beta, expected.ci_lower), words
        assert str(expected) in command.out
    assert not list(tmp_path.rglob("*.png"))


def test_estimate_replaces_its_own_files_only(command, study, tmp_path):
    words = ["estimate", study / "pooled.json", "-o", tmp_path, "--quiet", "--no-plot"]
    mine = tmp_path / "sites.tsv"
    mine.write_text("precious")
    assert "sites.tsv" in command.fails(*words)
    assert mine.read_text() == "precious"
    mine.unlink()
    assert command(*words, "--leave-one-out") == 0
    assert command.out == command.err == ""
    assert command(*words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"estimate.json", "sites.tsv"}


def test_pool_refuses(command, study, tmp_path):
    first, out = sent(study, "hospital_a"), tmp_path / "pooled.json"
    assert "twice" in command.fails("pool", first, first, "-o", out)
    copy = tmp_path / "copy.json"
    copy.write_bytes(first.read_bytes())
    assert "more than once" in command.fails("pool", first, copy, "-o", out)
    message = command.fails("pool", first, study / "instruments.json", "-o", out)
    assert "mrfast site profile" in message
    copy.write_bytes(first.read_bytes().replace(b'"n_cases": ', b'"n_cases": 1', 1))
    assert "checksum" in command.fails("pool", copy, "-o", out)
    copy.write_bytes(first.read_bytes()[:-100])
    assert command.fails("pool", copy, "-o", out)
    assert "something else" in command.fails("pool", first, "-o", study / "gwas.tsv")
    before = first.read_bytes()
    assert "same kind" in command.fails("pool", first, "-o", first)
    assert first.read_bytes() == before
    assert not out.exists()


def test_one_kappa_for_all_is_refused_where_scores_differ(command, study, tmp_path):
    files = [sent(study, site) for site in SITES]
    out = tmp_path / "pooled.json"
    assert "score" in command.fails("pool", *files, "--common-kappa", "-o", out)
    assert command("pool", files[0], "--common-kappa", "-o", out) == 0


def test_sites_of_other_studies_or_instruments_are_not_pooled(command, study, fit, tmp_path):
    assert command(*fit()) == 0
    other = tmp_path / "results" / "to_send" / "001.site.json"
    message = command.fails("pool", sent(study, "003"), other, "-o", tmp_path / "pooled.json")
    assert "instrument" in message


def test_estimate_refuses(command, study, tmp_path):
    pooled = study / "pooled.json"
    assert "--level" in command.fails("estimate", pooled, "--level", "1.5", "-o", tmp_path)
    message = command.fails("estimate", sent(study, "003"), "-o", tmp_path)
    assert "mrfast pooled profile" in message
    single = tmp_path / "single.json"
    assert command("pool", sent(study, "003"), "-o", single, "--quiet") == 0
    assert "--leave-one-out" in command.fails(
        "estimate", single, "--leave-one-out", "-o", tmp_path / "x"
    )
    assert "--effects" in command.fails("estimate", single, "--effects", "random", "-o", tmp_path)


def test_medusas_scale_warns_and_draws_nothing(command, fit, tmp_path):
    """Its number is for comparison only; the figures would lend it weight."""
    assert command(*fit(None, "--score", "inverse_variance")) == 0
    pooled = tmp_path / "pooled.json"
    path = tmp_path / "results" / "to_send" / "001.site.json"
    assert command("pool", path, "-o", pooled) == 0
    assert command("estimate", pooled, "--scale", "medusa", "-o", tmp_path / "m") == 0
    assert "mrfast: note: " in command.err
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"estimate.json", "sites.tsv"}


def test_medusas_files_are_pooled(command, fit, tmp_path):
    """Sites named 001 stay 001."""
    assert command(*fit(None, "--score", "inverse_variance")) == 0
    site = mrfast.SiteProfile.load(tmp_path / "results" / "to_send" / "001.site.json")
    site.save_medusa(tmp_path / "medusa")
    (path,) = (tmp_path / "medusa").glob("medusa_profile_*.csv")
    pooled = tmp_path / "pooled.json"
    words = ["pool", path, "--instruments", tmp_path / "instruments.json", "-o", pooled]
    assert command(*words) == 0
    assert mrfast.PooledProfile.load(pooled).site_ids == ("001",)
    assert "medusa" in command.fails("pool", tmp_path / "gwas.csv", "-o", pooled).lower()
