"""The commands `mrfast select`, `mrfast clump`, and `mrfast harmonise` with several files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from plink_files import genotypes, variant_table, write_plink

import mrfast


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(1)
    copies, variants = genotypes(rng, 90, 60), variant_table(rng, 60)
    write_plink(tmp_path / "panel", copies, variants)
    table = variants.rename(columns={"allele_1": "effect_allele", "allele_2": "other_allele"})
    table = table.assign(eaf=rng.uniform(0.1, 0.9, 60), beta=rng.normal(0, 0.1, 60), std_error=0.01)
    table.to_csv(tmp_path / "gwas.tsv", sep="\t", index=False)
    return tmp_path


def test_select(command, files):
    out, rows = files / "instruments.tsv", files / "rows.csv"
    words = ["select", files / "gwas.tsv", "--reference", files / "panel", "--r2", "0.1"]
    words += ["--kb", "1000", "--min-f", "40", "--min-maf", "0.2"]
    assert command(*words, "-o", out, "--rows", rows) == 0
    table = mrfast.read_associations(files / "gwas.tsv")
    expected = mrfast.select_instruments(
        table, reference=files / "panel", r2=0.1, kb=1000, min_f=40, min_maf=0.2
    )
    assert pd.read_csv(out, sep="\t")["snp"].tolist() == expected.kept["snp"].tolist()
    assert pd.read_csv(rows)["reason"].tolist() == expected.table["reason"].tolist()
    assert expected.summary() in command.out
    again = mrfast.read_associations(out)
    np.testing.assert_array_equal(again["beta"], expected.kept["beta"])


def test_select_without_clumping(command, files):
    assert command("select", files / "gwas.tsv", "-o", files / "x.tsv") == 0
    assert "not clumped" in command.out
    assert command("select", files / "gwas.tsv", "-o", files / "x.tsv", "--quiet") == 0
    assert command.out == ""


def test_clump_by_panel_and_by_matrix(command, files):
    table = mrfast.read_associations(files / "gwas.tsv")
    ld = mrfast.ld_matrix(files / "panel", table)
    ld.to_csv(files / "ld.txt", sep="\t", index=False)
    alleles = zip(ld.columns, table["other_allele"], table["effect_allele"], strict=True)
    ld.columns = ["_".join(label) for label in alleles]
    ld.to_csv(files / "alleles.txt", sep="\t", index=False)
    words = ["clump", files / "gwas.tsv", "--r2", "0.2", "--kb", "2000"]
    assert command(*words, "--reference", files / "panel", "-o", files / "a.tsv") == 0
    assert command(*words, "--ld", files / "ld.txt", "-o", files / "b.tsv") == 0
    expected = mrfast.clump(table, reference=files / "panel", r2=0.2, kb=2000).kept
    assert command(*words, "--ld", files / "alleles.txt", "-o", files / "c.tsv") == 0
    for name in ("a.tsv", "b.tsv", "c.tsv"):
        found = pd.read_csv(files / name, sep="\t")
        assert found["snp"].tolist() == expected["snp"].tolist()
    assert 2 < len(expected) < 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clump", "gwas.tsv"], "--reference, --ld: expected one of them"),
        (["clump", "gwas.tsv", "--reference", "none"], "--reference: expected the prefix"),
        (["clump", "gwas.tsv", "--reference", "panel", "--r2", "2"], "--r2: expected"),
        (["select", "gwas.tsv", "--p-value", "1e-300"], "gwas.tsv: expected an instrument"),
        (["select", "gwas.tsv", "--min-maf", "1"], "--min-maf: expected"),
    ],
)
def test_bad_options_are_named(command, files, monkeypatch, words, message):
    monkeypatch.chdir(files)
    assert message in command.fails(*words, "-o", "x.tsv")


def test_input_is_not_written_over(command, files, monkeypatch):
    monkeypatch.chdir(files)
    before = (files / "gwas.tsv").read_bytes()
    assert "--output" in command.fails("select", "gwas.tsv", "-o", "gwas.tsv")
    assert "--rows" in command.fails("select", "gwas.tsv", "-o", "x.tsv", "--rows", "gwas.tsv")
    panel = (files / "panel.bim").read_bytes()
    for prefix in ("panel", "panel.bed"):
        words = ["clump", "gwas.tsv", "--reference", prefix, "-o"]
        assert "--output" in command.fails(*words, "panel.bim")
    assert (files / "panel.bim").read_bytes() == panel
    words = ["harmonise", "--exposure", "gwas.tsv", "--outcome", "gwas.tsv", "-o", "x.tsv"]
    assert "--counts" in command.fails(*words, "--counts", "gwas.tsv")
    assert "--counts" in command.fails(*words, "--counts", "x.tsv")
    assert (files / "gwas.tsv").read_bytes() == before


def test_harmonise_several_outcome_files(command, files, monkeypatch):
    monkeypatch.chdir(files)
    table = pd.read_csv("gwas.tsv", sep="\t")
    table.iloc[:40].assign(beta=0.1).to_csv("chd.tsv", sep="\t", index=False)
    swapped = table.iloc[20:].rename(
        columns={"effect_allele": "other_allele", "other_allele": "effect_allele"}
    )
    swapped.assign(beta=0.2, eaf=1 - swapped["eaf"]).to_csv("t2d.tsv", sep="\t", index=False)
    words = ["harmonise", "--exposure", "gwas.tsv", "--outcome", "chd.tsv", "t2d.tsv"]
    assert command(*words, "-o", "rows.tsv", "--counts", "counts.tsv", "--kept-only") == 0
    rows = pd.read_csv("rows.tsv", sep="\t")
    assert rows["outcome"].value_counts().to_dict() == {"chd": 40, "t2d": 40}
    assert (rows.loc[rows["outcome"] == "t2d", "beta_outcome"] == -0.2).all()
    assert "exposure and chd: 40 of 40" in command.out
    assert "80 of 80 matched rows kept" in command.out
    counts = pd.read_csv("counts.tsv", sep="\t").query("alleles == '2-2'").set_index("outcome")
    assert counts["switched_alleles"].to_dict() == {"chd": 0, "t2d": 40}
    message = command.fails(*words[:-1], "chd.tsv", "-o", "rows.tsv")
    assert message.startswith("--outcome: expected files of different traits, received chd")
