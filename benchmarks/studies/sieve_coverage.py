"""Coverage of SieveIV's uniform bands: the whole true curve on the central 95% of the exposure.

    cd benchmarks/studies && python sieve_coverage.py --output sieve_coverage.csv

writes a row for each cell. A cell that is in the output already is skipped, so that the same
command continues a study that was stopped; every data set has a seed of its own. --cells NAME ...
runs some of the cells, --workers K uses K processes. --table NAME writes a table of
docs/studies.md from the CSV instead, and --document ../../docs/studies.md puts all of them into it.

Generators: `mrfast.simulation.NONLINEAR_SCENARIOS`. A band covers if the true curve is inside it at
all of 200 evenly spaced points of the central 95%; with an effect modifier, at these points for
people whose modifier is -1, 0 and 1, all three curves at once.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from cell_study import main
from scipy.stats import binom

from mrfast.errors import MrfastWarning
from mrfast.nonlinear import SieveIV
from mrfast.simulation import NONLINEAR_SCENARIOS

SEED = 60311
REPLICATES = 400
LEVEL = 0.95
POINTS = 200
MODIFIERS = np.array([-1.0, 0.0, 1.0])

PUBLISHED = (
    "poster_simple",
    "poster_h2_0.2",
    "burgess_2014",
    "tian_A1",
    "tian_A2",
    "tian_A3",
    "A_sine",
    "A_logistic",
    "tian_B2",
    "tian_C2",
    "tian_D2",
    "E_quadratic",
    "H_quadratic",
)
SHARP = (
    "A_logistic_step",
    "poster_logistic_step",
    "A_two_bends",
    "poster_two_bends",
    "A_steep_step",
    "poster_steep_step",
    "A_jump",
    "poster_jump",
)
DESIGNS = ("measured_covariates", "families", "selected_sample")
BINARY = ("binary_probit", "binary_logit")
MODIFIED = ("effect_modifier", "effect_modifier_linear", "effect_modifier_logistic")
WEAK = ("weak_0.2", "weak_0.1", "many_weak")
HONEST = ("poster_simple", "tian_A2", "tian_A3", "A_sine", "tian_B2", "E_quadratic")


@dataclass(frozen=True)
class Cell:
    """A scenario, a number of people and options of the estimator."""

    scenario: str
    n: int
    method: str = "auto"
    share: float = 1.0  # of the replicates
    modified: bool = field(default=False)

    @property
    def name(self) -> str:
        """For instance "tian_A2 n10000 auto"."""
        return f"{self.scenario} n{self.n} {self.method}"

    @property
    def estimator(self) -> SieveIV:
        """Its estimator, on one thread: cells run in processes."""
        modifiers = [0] if self.modified else None
        return SieveIV(method=self.method, effect_modifiers=modifiers, n_threads=1)


def _cells() -> Iterator[Cell]:
    for scenario in PUBLISHED + SHARP + DESIGNS + BINARY + WEAK:
        yield Cell(scenario, 10_000)
    for scenario in MODIFIED:
        yield Cell(scenario, 10_000, modified=True)
    for scenario in PUBLISHED + SHARP + DESIGNS + BINARY:
        yield Cell(scenario, 100_000, share=0.5)
    for scenario in MODIFIED:
        yield Cell(scenario, 100_000, share=0.25, modified=True)
    for scenario in ("poster_simple", "burgess_2014", "tian_A3", "E_quadratic", *SHARP[:4]):
        yield Cell(scenario, 1_000_000, share=0.1)
    for method in ("npiv-cck", "series-cf"):
        for scenario in HONEST:
            yield Cell(scenario, 10_000, method, share=0.5)


CELLS = {cell.name: cell for cell in _cells()}


class Found(NamedTuple):
    """One data set."""

    covers: bool
    pointwise: float  # share of points that the pointwise interval has
    mse: float
    width: float
    linear: float  # p-values
    no_effect: float
    model: str
    messages: int


def simulate(cell: Cell, replicate: int) -> Any:
    """One data set; cells of one scenario and size share theirs."""
    key = zlib.crc32(f"{cell.scenario} {cell.n}".encode())
    rng = np.random.default_rng(np.random.SeedSequence([SEED, key, replicate]))
    return NONLINEAR_SCENARIOS[cell.scenario](cell.n, rng=rng)


def run_replicate(name: str, replicate: int) -> Found:
    """One data set through the estimator."""
    cell = CELLS[name]
    data = simulate(cell, replicate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrfastWarning)
        fit = cell.estimator.fit(**data.arrays)
    points = np.linspace(*fit.exposure_central_, POINTS)
    if cell.modified:
        people = MODIFIERS[:, None, None]
        truth = data.conditional_effect(points, people)
        bands = {
            kind: fit.effect_conditional(points, people, interval=kind, level=LEVEL)
            for kind in ("uniform", "pointwise")
        }
    else:
        truth = data.true_effect(points)
        bands = {
            kind: fit.effect(points, interval=kind, level=LEVEL)
            for kind in ("uniform", "pointwise")
        }
    band, interval = bands["uniform"], bands["pointwise"]
    found = fit.diagnostics_
    return Found(
        bool(((band.lower <= truth) & (truth <= band.upper)).all()),
        float(((interval.lower <= truth) & (truth <= interval.upper)).mean()),
        float(np.mean((band.estimate - truth) ** 2)),
        float(np.mean(band.upper - band.lower)),
        float(found.get("linearity_p_value", np.nan)),
        float(found.get("no_effect_p_value", np.nan)),
        str(found.get("model", "")),
        len(fit.messages_),
    )


def run_cell(
    name: str,
    replicates: int = REPLICATES,
    *,
    mapper: Callable[..., Iterable[Found]] = map,
) -> list[dict[str, Any]]:
    """Row of the CSV for one cell."""
    cell = CELLS[name]
    count = max(2, round(replicates * cell.share))
    found = list(mapper(partial(run_replicate, name), range(count)))
    covers = float(np.mean([f.covers for f in found]))
    widths = np.array([f.width for f in found])
    row = {
        "cell": name,
        "scenario": cell.scenario,
        "n": cell.n,
        "method": cell.method,
        "replicates": count,
        "covers": covers,
        "covers_se": float(np.sqrt(covers * (1 - covers) / count)),
        "below_nominal_p_value": float(binom.cdf(round(covers * count), count, LEVEL)),
        "pointwise": float(np.mean([f.pointwise for f in found])),
        "median_mse": float(np.median([f.mse for f in found])),
        "mean_width": float(widths[np.isfinite(widths)].mean())
        if np.isfinite(widths).any()
        else np.inf,
        "unbounded": float(np.mean(~np.isfinite(widths))),
        "rejects_linearity": _rejections([f.linear for f in found]),
        "rejects_no_effect": _rejections([f.no_effect for f in found]),
        "with_messages": float(np.mean([f.messages > 0 for f in found])),
    }
    for model in ("level 0", "level 1", "level 2", "npiv", "line"):
        row[model.replace(" ", "_")] = float(np.mean([f.model == model for f in found]))
    return [row]


def _rejections(p_values: list[float]) -> float:
    known = [p for p in p_values if not np.isnan(p)]
    return float(np.mean([p < 0.05 for p in known])) if known else np.nan


# ------------------------------------------------------------------------- tables


def _table(table: pd.DataFrame, n: int, methods: tuple[str, ...], order: tuple[str, ...]) -> str:
    """Coverage (%), width, error and what the fits reported; ! marks coverage below nominal."""
    part = table[(table["n"] == n) & table["method"].isin(methods)]
    lines = [
        "| scenario | replicates | whole curve | pointwise | mean width | median MSE | "
        "rejects linearity | level 0 / 1 / 2 / NPIV |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        rows = part[part["method"] == method].set_index("scenario")
        for scenario in order:
            if scenario not in rows.index:
                continue
            row = rows.loc[scenario]
            label = scenario if len(methods) == 1 else f"{scenario}, {method}"
            mark = " !" if row["below_nominal_p_value"] < 0.01 else ""
            rejected = row["rejects_linearity"]
            levels = [row[key] for key in ("level_0", "level_1", "level_2", "npiv")]
            shown = " / ".join(f"{100 * share:.0f}" for share in levels) if any(levels) else "-"
            lines.append(
                f"| {label} | {row['replicates']:.0f} | "
                f"{100 * row['covers']:.1f} ({100 * row['covers_se']:.1f}){mark} | "
                f"{100 * row['pointwise']:.1f} | {row['mean_width']:.3g} | "
                f"{row['median_mse']:.2g} | "
                f"{'-' if np.isnan(rejected) else f'{100 * rejected:.0f}'} | {shown} |"
            )
    return "\n".join(lines) + "\n"


ALL = PUBLISHED + SHARP + DESIGNS + BINARY + MODIFIED + WEAK
TABLES: dict[str, Callable[[pd.DataFrame], str]] = {
    "10000": partial(_table, n=10_000, methods=("auto",), order=ALL),
    "100000": partial(_table, n=100_000, methods=("auto",), order=ALL),
    "1000000": partial(_table, n=1_000_000, methods=("auto",), order=ALL),
    "honest": partial(_table, n=10_000, methods=("npiv-cck", "series-cf"), order=ALL),
}


def markdown(kind: str, folder: Path) -> str:
    """A table of the documentation, by its name in `TABLES`."""
    return TABLES[kind](pd.read_csv(folder / "sieve_coverage.csv", comment="#"))


if __name__ == "__main__":
    main(
        "sieve_coverage",
        __doc__,
        seed=SEED,
        cells=CELLS,
        replicates=REPLICATES,
        run_cell=run_cell,
        tables=TABLES,
        markdown=markdown,
    )
