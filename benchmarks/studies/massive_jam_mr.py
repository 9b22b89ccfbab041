"""Error, coverage and false positives of `massive` on the JAM-MR scenario of MASSIVE's Figure 5.

Every cell has its own seed, so any of them can be run again alone:

    python benchmarks/studies/massive_jam_mr.py --output benchmarks/studies/massive_jam_mr.csv

With --table, writes the table of docs/ from the CSV instead; --published FILE adds the root mean
squared errors of the paper's Figure 5 (Bucur, Claassen, Heskes 2020, PMLR 124) to it.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import mrfast

CONFIGURATIONS = ((1_000, 1.0), (1_000, 4.0), (100_000, 4.0))
EFFECTS = (0.0, 0.3)
N_VALID = tuple(range(11))
REPLICATES = 100
SEED = 20201


def run_cell(
    n: int, sigma: float, effect: float, n_valid: int, replicates: int = REPLICATES
) -> dict[str, float]:
    """One cell: `replicates` data sets, the posterior median as the estimate."""
    seed = np.random.SeedSequence([SEED, n, int(sigma), int(10 * effect), n_valid])
    estimates, covered, excludes_zero, widths = [], [], [], []
    for child in seed.spawn(replicates):
        rng = np.random.default_rng(child)
        cohort = mrfast.simulation.jam_mr(
            n, n_valid, sigma=sigma, effect=effect, rng=rng, keep_individuals=False
        )
        result = mrfast.massive(cohort.moments, n_iter=1_000, n_chains=1, rng=rng, n_threads=1)
        posterior = result.effect
        estimates.append(posterior.median)
        covered.append(posterior.ci_lower <= effect <= posterior.ci_upper)
        excludes_zero.append(not posterior.ci_lower <= 0 <= posterior.ci_upper)
        widths.append(posterior.ci_upper - posterior.ci_lower)
    squares = (np.array(estimates) - effect) ** 2
    rmse = float(np.sqrt(squares.mean()))
    share = np.array([np.mean(covered), np.mean(excludes_zero)])
    error = np.sqrt(share * (1 - share) / replicates)
    return {
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


def markdown(table: pd.DataFrame, published: pd.DataFrame | None) -> str:
    """Rows of the table in the documentation."""
    lines = [
        "| N, sigma | effect | valid | RMSE (s.e.) | published MASSIVE | published JAM-MR | "
        "95% interval covers | excludes 0 | median width |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        cells = ["", ""]
        if published is not None:
            here = published[
                (published["N:sigma"] == f"({row.n}, {row.sigma:g})")
                & (published["beta"] == row.effect)
                & (published["valid"] == row.n_valid)
            ].set_index("Algorithm")["rmse"]
            cells = [f"{here.get(name, np.nan):.3f}" for name in ("MASSIVE", "JAM-MR")]
        lines.append(
            f"| {row.n:,}, {row.sigma:g} | {row.effect:g} | {row.n_valid} | "
            f"{row.rmse:.3f} ({row.rmse_se:.3f}) | {cells[0]} | {cells[1]} | "
            f"{row.coverage:.2f} ({row.coverage_se:.2f}) | "
            f"{row.excludes_zero:.2f} ({row.excludes_zero_se:.2f}) | {row.median_width:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all cells, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--table", type=Path, help="CSV to turn into a table")
    parser.add_argument("--published", type=Path, help="numbers behind the paper's Figure 5")
    arguments = parser.parse_args()
    if arguments.table is not None:
        published = pd.read_csv(arguments.published) if arguments.published else None
        sys.stdout.write(markdown(pd.read_csv(arguments.table, comment="#"), published))
        return
    rows = []
    for n, sigma in CONFIGURATIONS:
        for effect in EFFECTS:
            for n_valid in N_VALID:
                rows.append(run_cell(n, sigma, effect, n_valid))
                print(rows[-1], file=sys.stderr, flush=True)
    content = header() + pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
    if arguments.output is None:
        sys.stdout.write(content)
    else:
        arguments.output.write_text(content)


if __name__ == "__main__":
    main()
