"""Reader of the reference numbers of R packages for summary-data methods."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np

DATA_SETS = (
    "bmi_chd_79",
    "calcium_fastgluc",
    "edge_1snp",
    "edge_2snp",
    "edge_3snp",
    "edge_underdispersed12",
    "ldlc_chd",
    "presso_E1",
    "raps_bmi_sbp_5e8",
    "raps_bmi_sbp_all",
)
COLUMNS = ("beta_exposure", "se_exposure", "beta_outcome", "se_outcome")


def data_sets(reference: Path) -> list[str]:
    """Names of all univariable data sets that are there."""
    folder = reference / "golden" / "summary"
    names = sorted(path.stem.removeprefix("in_") for path in folder.glob("in_*.csv"))
    return [name for name in names if (folder / f"expected_{name}.csv").is_file()]


@lru_cache
def arrays(reference: Path, name: str) -> dict[str, np.ndarray]:
    """The four arrays of a data set."""
    with (reference / "golden" / "summary" / f"in_{name}.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    values = np.array(rows, dtype=float).T
    return {column: np.ascontiguousarray(row) for column, row in zip(COLUMNS, values, strict=True)}


def correlations(reference: Path, name: str) -> np.ndarray:
    """Correlations of the SNPs of a data set."""
    path = reference / "golden" / "summary" / f"in_{name}_rho.csv"
    return np.loadtxt(path, delimiter=",")


@lru_cache
def _table(reference: Path, name: str) -> dict[tuple[str, str], dict[str, list[float]]]:
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    with (reference / "golden" / "summary" / f"expected_{name}.csv").open() as file:
        for row in csv.DictReader(file):
            fields = found.setdefault((row["fun"], row["args"]), {})
            try:
                value = float(row["value"])
            except ValueError:
                value = float("nan")
            fields.setdefault(row["field"], []).append(value)
    return found


def expected(reference: Path, name: str, function: str, arguments: str) -> dict[str, list[float]]:
    """Fields of one call; every field is a list."""
    return _table(reference, name)[function, arguments]


def functions(reference: Path, name: str) -> set[tuple[str, str]]:
    return set(_table(reference, name))
