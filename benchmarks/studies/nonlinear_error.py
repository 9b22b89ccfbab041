"""Error of the nonlinear estimators on the ml-mr poster's simple case.

    cd benchmarks/studies && python nonlinear_error.py --output nonlinear_error.csv

writes a row for each cell, replicate and setting of the estimator. A cell that is in the output
already is skipped, so that the same command continues a study that was stopped; every data set has
a seed of its own. --cells NAME ... runs some of the cells, --table NAME writes a table of
docs/studies.md from the CSV instead, and --document ../../docs/studies.md puts all of them into it.

Generator: `mrfast.simulation.poster_simple`, 20 variants, f(x) = 0.3 (x + 2) (x - 1) + 1. The
squared error is averaged over 2,000 equally spaced points of the central 95% of the exposure, as
on the poster. Each estimator runs with its default, for 20 data sets where the size and the
heritability are those of the table, and with a few more settings (`SETTINGS`) for five data sets
in every cell; the poster shows the best setting by the error itself, which no analyst knows.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cell_study import main

from mrfast.errors import MrfastError, MrfastWarning
from mrfast.nonlinear.estimator_names import estimator_class
from mrfast.simulation import poster_simple

SEED = 20262
REPLICATES = 20
POSTER_REPLICATES = 5
N_POINTS = 2_000

Setting = dict[str, Any]
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "two_stage_least_squares": ({},),
    "sieve_iv": ({}, {"penalty": 2}, {"penalty": 3}),
    "location_shift_iv": ({},),
    "kernel_iv": ({},),
    "doubly_ranked": ({}, {"n_strata": 50}),
    "residual": ({}, {"n_strata": 50}),
    "quantile_iv": ({}, {"outcome_hidden": [32]}, {"outcome_weight_decay": 0.01}),
    "deep_iv": ({}, {"first_stage": "gaussian"}, {"first_stage": "ridge"}),
    "dfiv": ({}, {"exposure_features": 4}, {"exposure_ridge": 1.0}),
    "delivr": ({}, {"outcome_hidden": [32]}, {"outcome_weight_decay": 0.01}),
    "deep_gmm": ({}, {"outcome_hidden": [32]}, {"weight_decay": 0.001}),
}
"""Options of each estimator; the first are its defaults."""

NETWORKS = ("quantile_iv", "deep_iv", "dfiv", "delivr", "deep_gmm")


@dataclass(frozen=True)
class Cell:
    """An estimator in one design."""

    estimator: str
    n: int
    h2: float
    beta_ux: float

    @property
    def name(self) -> str:
        """For instance "sieve_iv n10000 h0.5 u0.35"."""
        return f"{self.estimator} n{self.n} h{self.h2:g} u{self.beta_ux:g}"

    @property
    def replicates(self) -> int:
        """More data sets where the table of all estimators needs them."""
        many = self.beta_ux == 0.35 and self.n <= 100_000 and self.h2 in (0.2, 0.5)
        return REPLICATES if many else POSTER_REPLICATES


def _designs() -> Iterator[tuple[int, float, float]]:
    """The poster's designs: one of its three parameters varies, the others are as in its middle."""
    for n in (10_000, 100_000, 1_000_000):
        yield n, 0.5, 0.35
    for n in (10_000, 100_000):
        for h2 in (0.2, 0.8):
            yield n, h2, 0.35
    for beta_ux in (-0.5, -0.25, 0.25, 0.5):
        yield 10_000, 0.5, beta_ux


CELLS = {
    cell.name: cell
    for n, h2, beta_ux in _designs()
    for cell in (Cell(estimator, n, h2, beta_ux) for estimator in SETTINGS)
    if cell.n <= 100_000 or cell.estimator not in NETWORKS
}


# --------------------------------------------------------------------------- one fit


def squared_error(estimator: Any, data: Any) -> float:
    """Mean squared error on the central 95% of the exposure."""
    x = np.linspace(*np.quantile(data.exposure, [0.025, 0.975]), N_POINTS)
    return float(np.mean((estimator.effect(x) - data.true_effect(x)) ** 2))


def run_replicate(name: str, replicate: int) -> list[dict[str, Any]]:
    """The settings of one estimator on one data set; NaN where a fit is refused."""
    cell = CELLS[name]
    key = [SEED, cell.n, round(10 * cell.h2), zlib.crc32(f"{cell.beta_ux:g}".encode()), replicate]
    data = poster_simple(
        cell.n,
        h2=cell.h2,
        beta_ux=cell.beta_ux,
        rng=int(np.random.SeedSequence(key).generate_state(1)[0]),
    )
    rows = []
    for setting in SETTINGS[cell.estimator][: None if replicate < POSTER_REPLICATES else 1]:
        options = dict(setting)
        estimator_type = estimator_class(cell.estimator)
        estimator = estimator_type(**options)
        begin = time.process_time()
        error = np.nan
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MrfastWarning)
                error = squared_error(estimator.fit(**data.arrays), data)
        except MrfastError as failure:
            print(f"{name}, replicate {replicate}: {failure}", flush=True)
        rows.append(
            {
                "replicate": replicate,
                "setting": "; ".join(f"{k}={v}" for k, v in setting.items()) or "default",
                "squared_error": error,
                "cpu_seconds": time.process_time() - begin,
            }
        )
    return rows


def run_cell(
    name: str,
    replicates: int = REPLICATES,
    *,
    mapper: Callable[..., Iterable[list[dict[str, Any]]]] = map,
) -> list[dict[str, Any]]:
    """Rows of the CSV for one cell."""
    cell = CELLS[name]
    head = {
        "cell": name,
        "estimator": cell.estimator,
        "n": cell.n,
        "h2": cell.h2,
        "beta_ux": cell.beta_ux,
    }
    found = mapper(partial(run_replicate, name), range(min(replicates, cell.replicates)))
    return [head | row for rows in found for row in rows]


# ---------------------------------------------------------------------------- tables


def _of_all_estimators(table: pd.DataFrame) -> str:
    """Median error of the defaults (and the 10th and 90th percentile), processor seconds."""
    designs = [(10_000, 0.5), (10_000, 0.2), (100_000, 0.5), (100_000, 0.2)]
    lines = [
        "| estimator | " + " | ".join(f"n = {n:,}, h2 = {h2:g}" for n, h2 in designs) + " |",
        "|---|" + "---|" * len(designs),
    ]
    chosen = table[(table["setting"] == "default") & (table["beta_ux"] == 0.35)]
    for estimator in SETTINGS:
        texts = []
        for n, h2 in designs:
            part = chosen[
                (chosen["estimator"] == estimator) & (chosen["n"] == n) & (chosen["h2"] == h2)
            ]
            errors = part["squared_error"]
            if part.empty:
                texts.append("-")
                continue
            low, high = errors.quantile([0.1, 0.9])
            seconds = part["cpu_seconds"].median()
            texts.append(f"{errors.median():.2g} ({low:.2g} to {high:.2g}); {seconds:.2g} s")
        lines.append(f"| `{_label(estimator)}` | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _label(estimator: str) -> str:
    from mrfast.nonlinear.estimator_names import MODELS

    return MODELS[estimator].partition(":")[2]


def _poster(table: pd.DataFrame) -> str:
    """Median over five data sets of the error of the best setting, as on the poster."""
    part = table[table["replicate"] < POSTER_REPLICATES]
    best = part.groupby(["estimator", "n", "h2", "beta_ux", "replicate"])["squared_error"].min()
    median = best.groupby(level=[0, 1, 2, 3]).median()
    designs = list(_designs())
    names = [f"{n:,}, {h2:g}, {beta_ux:g}" for n, h2, beta_ux in designs]
    lines = [
        "| n, h2, beta_UX | " + " | ".join(f"`{_label(name)}`" for name in SETTINGS) + " |",
        "|---|" + "---|" * len(SETTINGS),
    ]
    for name, design in zip(names, designs, strict=True):
        texts = []
        for estimator in SETTINGS:
            value = median.get((estimator, *design), np.nan)
            texts.append("-" if np.isnan(value) else f"{value:.2g}")
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[pd.DataFrame], str]] = {"all": _of_all_estimators, "poster": _poster}


def markdown(kind: str, folder: Path) -> str:
    """A table of the documentation, by its name in `TABLES`."""
    return TABLES[kind](pd.read_csv(folder / "nonlinear_error.csv", comment="#"))


if __name__ == "__main__":
    main(
        "nonlinear_error",
        __doc__,
        seed=SEED,
        cells=CELLS,
        replicates=REPLICATES,
        run_cell=run_cell,
        tables=TABLES,
        markdown=markdown,
    )
