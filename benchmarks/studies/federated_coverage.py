"""Coverage and error of the federated estimate, of simpler ones and of Medusa's.

    cd benchmarks/studies && python federated_coverage.py --output federated_coverage.csv

writes a row for each cell and method. A cell that is in the output already is skipped, so that the
same command continues a study that was stopped; every cell has its own seed and every data set in
it one of its own. --cells NAME ... runs some of the cells, --workers K uses K processes.
--table coverage|error|null writes a table of docs/studies.md from the CSV instead, and
--document ../../docs/studies.md puts all three into it.

Generator: `mrfast.simulation.federated_sites`. J SNPs with effects gamma ~ U(0.1, 0.5) on the
exposure and frequencies p ~ U(0.1, 0.4), at the sites logit(p) + N(0, 0.5^2); coefficients of the
exposure study with standard errors gamma / (sqrt(F) U(0.8, 1.2)), or proportional to
1 / sqrt(2 p (1 - p)) in the cells marked gwas. 4,000 people a site, two confounders, which are
fitted; the outcome's log odds change by 0.4 per unit of exposure, or by 0 in the cells marked null,
with an intercept of 0 ("common", 60 to 75% cases) or one that makes 5% cases at every site. A data
set is a draw of all of this; its estimand is computed for it.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from cell_study import main

import mrfast
from mrfast.errors import MrfastWarning
from mrfast.simulation import FederatedSites, federated_sites

SEED = 20204
REPLICATES = 1_000
EFFECT = 0.4
PEOPLE = 4_000
RARE = 0.05

DEFAULT, UNCORRECTED, FIXED = "joint, corrected", "joint, uncorrected", "kappa fixed"
INVERSE, MEDUSA, IVW = "joint, gamma/se^2", "Medusa", "IVW"
METHODS = (DEFAULT, UNCORRECTED, FIXED, INVERSE, IVW, MEDUSA)


# ---------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Cell:
    """One scenario."""

    snps: int
    f: int
    sites: int
    outcome: str
    null: bool = False
    gwas: bool = False

    @property
    def name(self) -> str:
        """For instance "20 SNPs F10 3 sites common"."""
        snps = "1 SNP" if self.snps == 1 else f"{self.snps} SNPs"
        sites = "1 site" if self.sites == 1 else f"{self.sites} sites"
        marks = " null" * self.null + " gwas" * self.gwas
        return f"{snps} F{self.f} {sites} {self.outcome}{marks}"

    @property
    def effect(self) -> float:
        """Structural log odds ratio."""
        return 0.0 if self.null else EFFECT


def _cells() -> tuple[Cell, ...]:
    outcomes = ("common", "5%")
    main = [
        Cell(snps, f, sites, outcome)
        for snps in (20, 8, 1)
        for f in (10, 30, 100)
        for sites in (1, 3)
        for outcome in outcomes
    ]
    null = [
        Cell(snps, 10, sites, outcome, null=True)
        for snps in (20, 8, 1)
        for sites in (1, 3)
        for outcome in outcomes
    ]
    gwas = [
        Cell(8, 10, 1, "common", gwas=True),
        Cell(20, 10, 3, "common", gwas=True),
        Cell(20, 30, 3, "common", gwas=True),
        Cell(20, 10, 3, "5%", gwas=True),
    ]
    return (*main, *null, *gwas)


CELLS = {cell.name: cell for cell in _cells()}


# ----------------------------------------------------------------------- a data set


class Interval(NamedTuple):
    """An estimate with its confidence set."""

    estimate: float
    pieces: tuple[tuple[float, float], ...]
    p_value: float

    def covers(self, value: float) -> bool:
        """Whether the set contains a value."""
        return any(low <= value <= high for low, high in self.pieces)

    @property
    def width(self) -> float:
        """Total length of the set."""
        return sum(high - low for low, high in self.pieces)


class Replicate(NamedTuple):
    """What the methods say about one data set."""

    intervals: dict[str, Interval]
    estimand: float
    beyond: bool  # the default estimate or a limit needed a profile beyond its window


def simulate(cell: Cell, replicate: int) -> FederatedSites:
    """One data set of a cell."""
    seed = np.random.SeedSequence([SEED, zlib.crc32(cell.name.encode()), replicate])
    return federated_sites(
        PEOPLE,
        cell.snps,
        n_sites=cell.sites,
        effect=cell.effect,
        f_statistic=cell.f,
        standard_errors="gwas" if cell.gwas else "proportional",
        prevalence=RARE if cell.outcome == "5%" else None,
        rng=seed,
        n_threads=1,
    )


def site_profiles(
    data: FederatedSites,
    instruments: mrfast.InstrumentTable,
    score: str,
    per_snp: bool = False,
) -> list[mrfast.SiteProfile]:
    """Fit every site."""
    return [
        mrfast.fit_site(
            mrfast.Cohort.from_arrays(site.outcome, site.dosages, site.snps),
            instruments,
            covariates=site.confounders,
            site_id=site.site_id,
            score=score,
            per_snp=per_snp,
            n_threads=1,
        )
        for site in data
    ]


def inverse_variance_weighted(
    data: FederatedSites, profiles: Iterable[mrfast.SiteProfile]
) -> Interval:
    """All estimates per SNP and site against the effects on the exposure, through the origin."""
    gamma = data.instruments.set_index("snp")["beta"]
    tables = pd.concat([profile.per_snp for profile in profiles])
    x = gamma.loc[tables["snp"]].to_numpy()
    y, se = tables["beta"].to_numpy(), tables["std_error"].to_numpy()
    good = np.isfinite(y) & np.isfinite(se)
    weight = x[good] / se[good] ** 2
    information = float((weight * x[good]).sum())
    estimate = float((weight * y[good]).sum()) / information
    std_error = information**-0.5
    half = 1.959963984540054 * std_error
    p = float(2 * _normal_tail(abs(estimate) / std_error))
    return Interval(estimate, ((estimate - half, estimate + half),), p)


def _normal_tail(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-z))


def _interval(pooled: mrfast.PooledProfile, **options: Any) -> Interval:
    estimate = mrfast.federated_estimate(pooled, **options)
    return Interval(estimate.beta, tuple(estimate.confidence_set), estimate.p_value)


def run_replicate(name: str, replicate: int) -> Replicate:
    """One data set through all methods."""
    cell = CELLS[name]
    data = simulate(cell, replicate)
    table = mrfast.InstrumentTable.from_frame(data.instruments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MrfastWarning)
        profiles = site_profiles(data, table, "gamma", per_snp=True)
        pooled = mrfast.pool(profiles)
        intervals = {DEFAULT: _interval(pooled)}
        beyond = any("window" in str(entry.message) for entry in caught)
        intervals[UNCORRECTED] = _interval(pooled, noise_correction=False)
        intervals[FIXED] = _interval(pooled, noise_correction=False, kappa_uncertainty=False)
        intervals[IVW] = inverse_variance_weighted(data, profiles)
        other = mrfast.pool(site_profiles(data, table, "inverse_variance"))
        intervals[INVERSE] = _interval(other)
        intervals[MEDUSA] = _interval(other, scale="medusa")
    estimand = data.estimand if cell.effect else 0.0
    return Replicate(intervals, estimand, beyond)


# --------------------------------------------------------------------------- a cell


def run_cell(
    name: str,
    replicates: int = REPLICATES,
    *,
    mapper: Callable[..., Iterable[Replicate]] = map,
) -> list[dict[str, Any]]:
    """Rows of the CSV for one cell."""
    cell = CELLS[name]
    results = list(mapper(partial(run_replicate, name), range(replicates)))
    estimands = np.array([result.estimand for result in results])
    beyond = float(np.mean([result.beyond for result in results]))
    rows = []
    for method in METHODS:
        rows.append(
            {
                "cell": name,
                "snps": cell.snps,
                "f": cell.f,
                "sites": cell.sites,
                "outcome": cell.outcome,
                "effect": cell.effect,
                "estimand": estimands.mean(),
                "method": method,
                **summarise([r.intervals[method] for r in results], estimands, cell.effect),
                "beyond_window": beyond if method == DEFAULT else np.nan,
            }
        )
    return rows


def summarise(
    intervals: list[Interval], estimands: np.ndarray[Any, Any], effect: float
) -> dict[str, float]:
    """Coverage, error and width of the sets of one method."""
    n = len(intervals)
    estimate = np.array([interval.estimate for interval in intervals])
    width = np.array([interval.width for interval in intervals])
    finite = np.isfinite(estimate)
    error = (estimate - estimands)[finite]
    rmse = float(np.sqrt((error**2).mean()))
    shares = {
        "coverage": [i.covers(t) for i, t in zip(intervals, estimands, strict=True)],
        "coverage_structural": [i.covers(effect) for i in intervals],
        "excludes_zero": [not i.covers(0.0) for i in intervals],
    }
    row: dict[str, float] = {"replicates": n}
    for key, hits in shares.items():
        share = float(np.mean(hits))
        row |= {key: share, f"{key}_se": float(np.sqrt(share * (1 - share) / n))}
    return row | {
        "p_below_5": float(np.mean([interval.p_value < 0.05 for interval in intervals])),
        "mean": float(estimate[finite].mean()),
        "median": float(np.median(estimate)),
        "rmse": rmse,
        "rmse_se": float((error**2).std(ddof=1) / (2 * rmse * np.sqrt(len(error)))),
        "median_absolute_error": float(np.median(np.abs(estimate - estimands))),
        "median_width": float(np.median(width)),
        "unbounded": float(np.mean(~np.isfinite(width))),
        "without_estimate": float(np.mean(~finite)),
    }


# -------------------------------------------------------------------------- tables


def _percent(row: Any, key: str) -> str:
    return f"{100 * row[key]:.1f}"


def _labels(group: pd.DataFrame) -> str:
    row = group.iloc[0]
    mark = ", gwas" if str(row["cell"]).endswith("gwas") else ""
    return f"| {row['snps']} | {row['f']}{mark} | {row['sites']} | {row['outcome']} |"


def _groups(table: pd.DataFrame, null: bool) -> Iterator[pd.DataFrame]:
    """The rows of each cell, in the order of the study."""
    by_cell = dict(list(table.groupby("cell", sort=False)))
    for name, cell in CELLS.items():
        if cell.null == null and name in by_cell:
            yield by_cell[name].set_index("method", drop=False)


def coverage_markdown(table: pd.DataFrame) -> str:
    """One row a cell: coverage of the estimand / of the structural value, for every method."""
    lines = [
        "| SNPs | F | sites | outcome | estimand | " + " | ".join(METHODS) + " | unbounded |",
        "|---|---|---|---|---|" + "---|" * (len(METHODS) + 1),
    ]
    for group in _groups(table, null=False):
        texts = [
            f"{_percent(row, 'coverage')} / {_percent(row, 'coverage_structural')}"
            for row in (group.loc[method] for method in METHODS)
        ]
        first = group.loc[DEFAULT]
        lines.append(
            f"{_labels(group)} {first['estimand']:.4f} | "
            + " | ".join(texts)
            + f" | {_percent(first, 'unbounded')} |"
        )
    return "\n".join(lines) + "\n"


def error_markdown(table: pd.DataFrame) -> str:
    """One row a cell: mean (or median) / RMSE / width."""
    lines = [
        "| SNPs | F | sites | outcome | estimand | " + " | ".join(METHODS) + " |",
        "|---|---|---|---|---|" + "---|" * len(METHODS),
    ]
    for group in _groups(table, null=False):
        texts = []
        for method in METHODS:
            row = group.loc[method]
            error = "median_absolute_error" if row["snps"] == 1 else "rmse"
            middle = "median" if row["snps"] == 1 else "mean"
            texts.append(f"{row[middle]:.3f} / {row[error]:.3f} / {row['median_width']:.3f}")
        estimand = group.iloc[0]["estimand"]
        lines.append(f"{_labels(group)} {estimand:.4f} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def null_markdown(table: pd.DataFrame) -> str:
    """One row a cell without effect: share of the 95% sets that exclude 0."""
    lines = [
        "| SNPs | F | sites | outcome | " + " | ".join(METHODS) + " |",
        "|---|---|---|---|" + "---|" * len(METHODS),
    ]
    for group in _groups(table, null=True):
        texts = [_percent(group.loc[method], "excludes_zero") for method in METHODS]
        lines.append(f"{_labels(group)} " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


TABLES = {"coverage": coverage_markdown, "error": error_markdown, "null": null_markdown}


def markdown(kind: str, folder: Path) -> str:
    """A table of the documentation: "coverage", "error" or "null"."""
    return TABLES[kind](pd.read_csv(folder / "federated_coverage.csv", comment="#"))


if __name__ == "__main__":
    main(
        "federated_coverage",
        __doc__,
        seed=SEED,
        cells=CELLS,
        replicates=REPLICATES,
        run_cell=run_cell,
        tables=TABLES,
        markdown=markdown,
    )
