"""The commands of a federated study, from the example through to the estimate."""

from __future__ import annotations

import gzip
import hashlib
import re
import shlex

import numpy as np
import pandas as pd
import pytest

import mrfast
from mrfast.cli.main import main
from mrfast.io.tables import read_frame


class Command:
    """Runs the command line in this process; keeps what it printed."""

    def __init__(self, capsys):
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words):
        self._capsys.readouterr()
        code = main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def fails(self, *words, code=2):
        """Message of a command that must fail, in one line and without a traceback."""
        assert self(*words) == code
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("mrfast: error: ")
        return self.err.removeprefix("mrfast: error: ").rstrip("\n")


@pytest.fixture
def command(capsys):
    return Command(capsys)


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
        if words[:2] != ["site", "show"]:
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
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert command("example", "federated", "-o", tmp_path / name, "--seed", seed) == 0
    first, again, other = (
        {k: v for k, v in digests(tmp_path / name).items() if k != "README.txt"} for name in "abc"
    )
    assert first == again
    assert first["gwas.tsv"] != other["gwas.tsv"]
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
