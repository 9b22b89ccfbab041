"""Error, coverage and false positives of `massive` on the JAM-MR scenario of MASSIVE's Figure 5.

Every cell has its own seed, and the methods get the same data sets, so any row can be run again
alone:

    python benchmarks/studies/massive_jam_mr.py --output benchmarks/studies/massive_jam_mr.csv

A row that is in the output already is skipped; --methods NAME ... runs some of the methods,
--workers K uses K processes.

With --table, writes a table of docs/ from the CSV instead; --published FILE adds the root mean
squared errors of the paper's Figure 5 (Bucur, Claassen, Heskes 2020, PMLR 124) to it. With
--figure, draws the errors by number of valid instruments, as that figure does.
"""

from __future__ import annotations

import argparse
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mrfast

CONFIGURATIONS = ((1_000, 1.0), (1_000, 4.0), (100_000, 1.0), (100_000, 4.0))
UNPUBLISHED = (100_000, 1.0)  # not in Figure 5; run with the exact posteriors only
EFFECTS = (0.0, 0.3)
N_VALID = tuple(range(11))
REPLICATES = 100
SEED = 20201
MC3, EXACT, DEFAULT = "mc3", "exact, MASSIVE's prior", "exact, default prior"
METHODS = (MC3, EXACT, DEFAULT)
KEYS = ["method", "n", "sigma", "effect", "n_valid"]
PUBLISHED = ("MASSIVE", "JAM-MR")
WORSE = 2.0  # standard errors of a difference beyond which a cell counts as worse


def posterior_of_effect(moments: mrfast.Moments, method: str, rng: np.random.Generator) -> Any:
    """Summary of the posterior by one of the methods."""
    if method == MC3:
        result = mrfast.massive(
            moments, method="mc3", n_iter=1_000, n_chains=1, rng=rng, n_threads=1
        )
    elif method == EXACT:
        prior = mrfast.SpikeSlabPrior.empirical(moments)
        result = mrfast.massive(moments, method="exact", prior=prior, n_threads=1)
    else:
        result = mrfast.massive(moments, method="exact", prior=None, n_threads=1)
    return result.effect


def run_cell(
    n: int,
    sigma: float,
    effect: float,
    n_valid: int,
    replicates: int = REPLICATES,
    method: str = MC3,
) -> dict[str, Any]:
    """One cell: `replicates` data sets, the posterior median as the estimate."""
    seed = np.random.SeedSequence([SEED, n, int(sigma), int(10 * effect), n_valid])
    estimates, covered, excludes_zero, widths = [], [], [], []
    for child in seed.spawn(replicates):
        rng = np.random.default_rng(child)
        cohort = mrfast.simulation.jam_mr(
            n, n_valid, sigma=sigma, effect=effect, rng=rng, keep_individuals=False
        )
        posterior = posterior_of_effect(cohort.moments, method, rng)
        estimates.append(posterior.median)
        covered.append(posterior.ci_lower <= effect <= posterior.ci_upper)
        excludes_zero.append(not posterior.ci_lower <= 0 <= posterior.ci_upper)
        widths.append(posterior.ci_upper - posterior.ci_lower)
    squares = (np.array(estimates) - effect) ** 2
    rmse = float(np.sqrt(squares.mean()))
    share = np.array([np.mean(covered), np.mean(excludes_zero)])
    error = np.sqrt(share * (1 - share) / replicates)
    return {
        "method": method,
        "n": n,
        "sigma": sigma,
        "effect": effect,
        "n_valid": n_valid,
        "replicates": replicates,
        "rmse": rmse,
        "rmse_se": float(squares.std(ddof=1) / (2 * rmse * np.sqrt(replicates))),
        "bias": float(np.mean(estimates) - effect),
        "coverage": float(share[0]),
        "coverage_se": float(error[0]),
        "excludes_zero": float(share[1]),
        "excludes_zero_se": float(error[1]),
        "median_width": float(np.median(widths)),
    }


def header() -> str:
    """First lines of the CSV: how it came about."""
    return (
        f"# seed {SEED}; mrfast {mrfast.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}; "
        "python benchmarks/studies/massive_jam_mr.py "
        "--output benchmarks/studies/massive_jam_mr.csv\n"
    )


# ---------------------------------------------------------------------------- tables


def published_of(published: pd.DataFrame | None, cell: Any) -> pd.DataFrame | None:
    """The published rows of one cell, by algorithm."""
    if published is None:
        return None
    here = published[
        (published["N:sigma"] == f"({int(cell.n)}, {cell.sigma:g})")
        & (published["beta"] == cell.effect)
        & (published["valid"] == cell.n_valid)
    ]
    return None if here.empty else here.set_index("Algorithm")


def is_worse(rmse: float, rmse_se: float, published: pd.DataFrame | None) -> bool:
    """Whether an error is above that of published MASSIVE by more than its noise."""
    if published is None:
        return False
    other = published.loc["MASSIVE"]
    return bool(rmse - other["rmse"] > WORSE * np.hypot(rmse_se, other["rmse_se"]))


def markdown(table: pd.DataFrame, published: pd.DataFrame | None) -> str:
    """Rows of the table of MC3 in the documentation."""
    lines = [
        "| N, sigma | effect | valid | RMSE (s.e.) | published MASSIVE | published JAM-MR | "
        "95% interval covers | excludes 0 | median width |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table[table["method"] == MC3].itertuples():
        here = published_of(published, row)
        cells = ["" if here is None else f"{here['rmse'][name]:.3f}" for name in PUBLISHED]
        lines.append(
            f"| {row.n:,}, {row.sigma:g} | {row.effect:g} | {row.n_valid} | "
            f"{row.rmse:.3f} ({row.rmse_se:.3f}) | {cells[0]} | {cells[1]} | "
            f"{row.coverage:.2f} ({row.coverage_se:.2f}) | "
            f"{row.excludes_zero:.2f} ({row.excludes_zero_se:.2f}) | {row.median_width:.3f} |"
        )
    return "\n".join(lines) + "\n"


def error_markdown(table: pd.DataFrame, published: pd.DataFrame | None) -> str:
    """Root mean squared errors of all methods, with those that are published.

    A star marks an error above published MASSIVE's by more than two standard errors of the
    difference.
    """
    methods = [method for method in METHODS if method in set(table["method"])]
    lines = [
        "| N, sigma | effect | valid | "
        + " | ".join(methods)
        + " | published MASSIVE | published JAM-MR |",
        "|---|---|---|" + "---|" * (len(methods) + 2),
    ]
    for (n, sigma, effect, n_valid), group in table.groupby(KEYS[1:], sort=False):
        here = published_of(published, group.iloc[0])
        by_method = group.set_index("method")
        texts = []
        for method in methods:
            if method not in by_method.index:
                texts.append("")
                continue
            row = by_method.loc[method]
            mark = " *" if is_worse(row["rmse"], row["rmse_se"], here) else ""
            texts.append(f"{row['rmse']:.3f} ({row['rmse_se']:.3f}){mark}")
        for name in PUBLISHED:
            texts.append(
                "" if here is None else f"{here['rmse'][name]:.3f} ({here['rmse_se'][name]:.3f})"
            )
        lines.append(f"| {n:,}, {sigma:g} | {effect:g} | {n_valid} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def interval_markdown(table: pd.DataFrame) -> str:
    """Coverage, width and share excluding 0 of the exact posteriors' 95% intervals."""
    methods = [method for method in METHODS[1:] if method in set(table["method"])]
    lines = [
        "| N, sigma | effect | valid | "
        + " | ".join(f"{m}: covers | excludes 0 | median width" for m in methods)
        + " |",
        "|---|---|---|" + "---|" * (3 * len(methods)),
    ]
    for (n, sigma, effect, n_valid), group in table.groupby(KEYS[1:], sort=False):
        by_method = group.set_index("method")
        texts = []
        for method in methods:
            row = by_method.loc[method]
            texts.append(
                f"{row['coverage']:.2f} ({row['coverage_se']:.2f}) | "
                f"{row['excludes_zero']:.2f} ({row['excludes_zero_se']:.2f}) | "
                f"{row['median_width']:.3f}"
            )
        lines.append(f"| {n:,}, {sigma:g} | {effect:g} | {n_valid} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def worse_cells(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The rows whose error is above published MASSIVE's beyond its noise."""
    worse = [
        is_worse(row.rmse, row.rmse_se, published_of(published, row)) for row in table.itertuples()
    ]
    return table[worse]


# ---------------------------------------------------------------------------- figure


def draw_figure(table: pd.DataFrame, published: pd.DataFrame | None, path: Path) -> None:
    """Errors by number of valid instruments: a panel for each configuration and effect."""
    from matplotlib.figure import Figure

    styles = {
        MC3: ("#999999", "o", "-"),
        EXACT: ("#0072B2", "s", "-"),
        DEFAULT: ("#D55E00", "D", "-"),
        "MASSIVE": ("#009E73", "^", "--"),
        "JAM-MR": ("#CC79A7", "v", "--"),
    }
    figure = Figure(figsize=(13, 6.4), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(len(EFFECTS), len(CONFIGURATIONS), sharex=True, sharey=True)
    for row, column in product(range(len(EFFECTS)), range(len(CONFIGURATIONS))):
        axis = axes[row][column]
        effect, (n, sigma) = EFFECTS[row], CONFIGURATIONS[column]
        here = table[(table["n"] == n) & (table["sigma"] == sigma) & (table["effect"] == effect)]
        curves = {
            method: (part["n_valid"], part["rmse"], part["rmse_se"])
            for method, part in here.groupby("method", sort=False)
        }
        if published is not None:
            chosen = published[
                (published["N:sigma"] == f"({n}, {sigma:g})") & (published["beta"] == effect)
            ]
            for name, part in chosen.groupby("Algorithm", sort=False):
                curves[str(name)] = (part["valid"], part["rmse"], part["rmse_se"])
        for label, (valid, rmse, rmse_se) in curves.items():
            color, marker, line = styles[str(label)]
            name = f"published {label}" if label in PUBLISHED else label
            axis.errorbar(
                valid,
                rmse,
                yerr=2 * rmse_se,
                color=color,
                marker=marker,
                linestyle=line,
                markersize=4,
                linewidth=1.2,
                elinewidth=0.8,
                label=name,
            )
        axis.set_yscale("log")
        axis.set_title(f"N = {n:,}, sigma = {sigma:g}, effect {effect:g}", fontsize=10)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        if column == 0:
            axis.set_ylabel("root mean squared error")
        if row == len(EFFECTS) - 1:
            axis.set_xlabel("valid instruments out of 10")
            axis.set_xticks(N_VALID)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path)


# --------------------------------------------------------------------------- running


def cells() -> list[tuple[str, int, float, float, int]]:
    """All rows of the CSV, in its order."""
    return [
        (method, n, sigma, effect, n_valid)
        for method, (n, sigma), effect, n_valid in product(
            METHODS, CONFIGURATIONS, EFFECTS, N_VALID
        )
        if method != MC3 or (n, sigma) != UNPUBLISHED
    ]


def _run(replicates: int, cell: tuple[str, int, float, float, int]) -> dict[str, Any]:
    method, n, sigma, effect, n_valid = cell
    return run_cell(n, sigma, effect, n_valid, replicates, method)


def main() -> None:
    """Run all cells, or write a table or the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", type=Path, help="CSV to turn into a table")
    parser.add_argument("--kind", choices=("mc3", "error", "interval", "worse"), default="error")
    parser.add_argument("--figure", type=Path, help="image to draw from the CSV of --table")
    parser.add_argument("--published", type=Path, help="numbers behind the paper's Figure 5")
    arguments = parser.parse_args()
    if arguments.table is not None:
        table = pd.read_csv(arguments.table, comment="#")
        published = pd.read_csv(arguments.published) if arguments.published else None
        if arguments.figure is not None:
            draw_figure(table, published, arguments.figure)
        elif arguments.kind == "worse":
            if published is None:
                parser.error("--kind worse needs --published")
            sys.stdout.write(worse_cells(table, published).to_string(index=False) + "\n")
        elif arguments.kind == "interval":
            sys.stdout.write(interval_markdown(table))
        else:
            write = markdown if arguments.kind == "mc3" else error_markdown
            sys.stdout.write(write(table, published))
        return
    rows: list[dict[Any, Any]] = []
    if arguments.output is not None and arguments.output.exists():
        rows = pd.read_csv(arguments.output, comment="#").to_dict("records")
    done = {tuple(row[key] for key in KEYS) for row in rows}
    wanted = [cell for cell in cells() if cell[0] in arguments.methods and cell not in done]
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for row in pool.map(partial(_run, arguments.replicates), wanted):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
            if arguments.output is not None:
                arguments.output.write_text(_csv(rows))
    if arguments.output is None:
        sys.stdout.write(_csv(rows))


def _csv(rows: list[dict[Any, Any]]) -> str:
    order = {cell: place for place, cell in enumerate(cells())}
    table = pd.DataFrame(rows)
    places = [order[key] for key in zip(*(table[key] for key in KEYS), strict=True)]
    return header() + table.iloc[np.argsort(places)].to_csv(index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
