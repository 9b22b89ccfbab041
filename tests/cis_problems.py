"""The region of the golden cis-MR and colocalisation numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "cis"


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def region() -> tuple[dict[str, np.ndarray], list[str], np.ndarray]:
    """Associations, SNPs, and their correlations."""
    columns: dict[str, np.ndarray] = {}
    snps: list[str] = []
    for table, names in (
        ("cis_exposure", {"beta_ZX": "beta_exposure", "se_ZX": "se_exposure"}),
        ("cis_outcome", {"beta_ZY": "beta_outcome", "se_ZY": "se_outcome"}),
    ):
        with (GOLDEN / f"{table}.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        snps = [row["snp_id"] for row in rows]
        for theirs, ours in names.items():
            columns[ours] = np.array([float(row[theirs]) for row in rows])
    place = np.arange(len(snps))
    return columns, snps, 0.6 ** np.abs(place[:, None] - place)
