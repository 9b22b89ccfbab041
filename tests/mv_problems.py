"""Data of several exposures for the tests of multivariable methods."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("beta_exposure", "se_exposure", "beta_outcome", "se_outcome")


def simulated(
    j: int, k: int, seed: int, *, pleiotropy: float = 0.0, invalid: int = 0
) -> dict[str, Any]:
    """J SNPs, K exposures with effects 0.4, -0.2, 0.1, ...; the first `invalid` SNPs are far off.

    Residuals have 1 + `pleiotropy` times the standard deviation of their sampling errors.
    """
    rng = np.random.default_rng(seed)
    sx, sy = rng.uniform(0.005, 0.012, (j, k)), rng.uniform(0.01, 0.03, j)
    true = rng.normal(0, 0.1, (j, k))
    effects = np.array([0.4 * (-0.5) ** i for i in range(k)])
    x = true + sx * rng.normal(size=(j, k))
    y = true @ effects + (1 + pleiotropy) * sy * rng.normal(size=j)
    y[:invalid] += 0.3
    return dict(zip(NAMES, (x, sx, y, sy), strict=True))


def correlation(j: int, seed: int) -> np.ndarray:
    """A random correlation matrix of J SNPs."""
    a = np.random.default_rng(seed).normal(size=(j, 3 * j))
    return np.corrcoef(a)


def read_golden(reference: Path, name: str) -> dict[str, Any]:
    """Arrays of a data set of two exposures."""
    with (reference / "golden" / "summary" / f"in_{name}.csv").open() as file:
        rows = np.array(list(csv.reader(file))[1:], dtype=float)
    k = (rows.shape[1] - 2) // 2
    parts = (rows[:, :k], rows[:, k : 2 * k], rows[:, -2], rows[:, -1])
    return {name: np.ascontiguousarray(part) for name, part in zip(NAMES, parts, strict=True)}


@lru_cache
def expected(reference: Path) -> dict[tuple[str, str, str], dict[str, np.ndarray]]:
    """Fields of every call: (data set, function, arguments) to fields."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    with (reference / "golden" / "summary" / "expected_mv.csv").open() as file:
        for row in csv.DictReader(file):
            try:
                value = float(row["value"])
            except ValueError:
                value = float("nan")
            call = found.setdefault((row["dataset"], row["fun"], row["args"]), {})
            call.setdefault(row["field"], []).append(value)
    return {
        key: {name: np.array(values) for name, values in fields.items()}
        for key, fields in found.items()
    }
