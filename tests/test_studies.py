from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "benchmarks" / "studies"


def load(name):
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_one_cell_of_the_jam_mr_study_comes_out_again():
    study = load("massive_jam_mr")
    table = pd.read_csv(STUDIES / "massive_jam_mr.csv", comment="#")
    n, sigma, effect, n_valid = 100_000, 4.0, 0.3, 6
    row = table[
        (table["n"] == n)
        & (table["sigma"] == sigma)
        & (table["effect"] == effect)
        & (table["n_valid"] == n_valid)
    ].iloc[0]
    got = study.run_cell(n, sigma, effect, n_valid, int(row["replicates"]))
    assert got["rmse"] == pytest.approx(row["rmse"], rel=0.02)
    assert got["coverage"] == pytest.approx(row["coverage"], abs=0.02)
    assert got["excludes_zero"] == pytest.approx(row["excludes_zero"], abs=0.02)


def test_the_documented_table_is_that_of_the_study():
    study = load("massive_jam_mr")
    expected = study.markdown(pd.read_csv(STUDIES / "massive_jam_mr.csv", comment="#"), None)
    text = (ROOT / "docs" / "massive.md").read_text()
    block = text.partition("<!-- study: massive_jam_mr -->\n")[2].partition("<!-- end of study")[0]

    def without_published(table):
        rows = [re.split(r"\s*\|\s*", line) for line in table.splitlines()]
        return [row[:5] + row[7:] for row in rows if "---" not in row[1]]

    assert without_published(block) == without_published(expected)


@pytest.mark.slow
def test_one_family_of_the_study_of_missed_modes_comes_out_again():
    study = load("missed_modes")
    table = pd.read_csv(STUDIES / "missed_modes.csv", comment="#").set_index("family")
    row = table.loc["uncorrelated"]
    got = study.run_cell("uncorrelated", int(row["problems"]))
    assert got["missed"] == pytest.approx(row["missed"], abs=1)
