"""Coverage and error of the default prior, MASSIVE's prior and the classical estimators.

Every cell has its own seed, every data set in it one of its own, so any of them can be run again
alone. A cell that is in the output already is skipped.

    python benchmarks/studies/default_prior.py --output benchmarks/studies/default_prior.csv

writes default_prior.csv (a row for each cell and method) and default_prior_warnings.csv (a row for
each cell and warning); --cells NAME ... runs some of the cells, --workers K uses K processes.
--table warnings|coverage|summary writes a table of docs/ from the CSVs instead.

Generator: J independent standardised variants, each with a coefficient h1 on the exposure and h2 on
the outcome, normal about (gamma, alpha + beta gamma) with covariance
[[S11 / N1, n12 S12], [n12 S12, S22 / N2]], n12 = N12 / (N1 N2), where S11 = S22 = 0.95 and
S12 = +-0.3 are the residual moments of (X, Y) given G, whatever beta. A variant is in the data set
if its p value is below 5e-8 in the exposure study ("same") or in another one of N_discovery people
("disc"); variants are drawn until J of them are in. The summary table that mrfast gets is that of
a GWAS: coefficients per allele, and standard errors that contain the variance which the other
variants explain, so that Var(X|G) and Var(Y|G) come out as simulated. The classical estimators get
the standard deviations of the simulated noise.
"""

from __future__ import annotations

import argparse
import platform
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import classical_estimators as classical
import numpy as np
import pandas as pd
from classical_estimators import Associations
from numpy.typing import NDArray

import mrfast

Float = NDArray[np.float64]

SEED = 20203
REPLICATES = 200
EMPIRICAL_REPLICATES = 100  # of MASSIVE's prior
SELECTION_P = 5e-8
THRESHOLD = 5.451310437346908  # |z| at that p value
RESIDUAL = 0.95  # Var(X|G) and Var(Y|G)
_T_LIMIT = 14.0  # a t variable of 3 degrees of freedom is cut off there: mean F about 320
METHODS = (
    "default prior",
    "MASSIVE's prior",
    "IVW",
    "weighted median",
    "MR-Egger",
    "weighted mode",
)
FLAGS = (
    "directional index > 2",
    "second mode > 0.05",
    "Egger intercept |z| > 3",
    "E[pi] > 0.5",
    "weighted mode > 2 sd away",
)


# ------------------------------------------------------------------------ pleiotropy


def _signs(gamma: Float) -> Float:
    return np.where(gamma < 0, -1.0, 1.0)


def _some(values: Float, share: float, rng: np.random.Generator) -> Float:
    """`values` for a random share of the variants, 0 for the others."""
    chosen = rng.permutation(values.size) < round(share * values.size)
    return np.where(chosen, values, 0.0)


def _none(gamma: Float, share: float, rng: np.random.Generator) -> Float:
    return np.zeros_like(gamma)


def _balanced(gamma: Float, share: float, rng: np.random.Generator) -> Float:
    return _some(rng.normal(0, 0.02, gamma.size), share, rng)


def _directional(
    gamma: Float, share: float, rng: np.random.Generator, *, sd: float = 0.019
) -> Float:
    return _some(_signs(gamma) * np.abs(rng.normal(0, sd, gamma.size)), share, rng)


def _shifted(gamma: Float, share: float, rng: np.random.Generator, *, sd: float = 0.02) -> Float:
    return _some(_signs(gamma) * rng.normal(0.01, sd, gamma.size), share, rng)


def _common_cause(
    gamma: Float, share: float, rng: np.random.Generator, *, slope: float = 0.3, sd: float = 0.002
) -> Float:
    return _some(slope * gamma, share, rng) + rng.normal(0, sd, gamma.size)


def _polygenic(gamma: Float, share: float, rng: np.random.Generator) -> Float:
    return rng.normal(0, 0.004, gamma.size) + _balanced(gamma, share, rng)


def _polygenic_directional(gamma: Float, share: float, rng: np.random.Generator) -> Float:
    return rng.normal(0, 0.003, gamma.size) + _directional(gamma, share, rng)


def _outliers(gamma: Float, share: float, rng: np.random.Generator) -> Float:
    alpha = np.zeros_like(gamma)
    alpha[rng.permutation(gamma.size)[:3]] = rng.uniform(0.1, 0.2, 3)
    return alpha


def _leverage(gamma: Float, share: float, rng: np.random.Generator) -> Float:
    alpha = np.zeros_like(gamma)
    strongest = int(np.abs(gamma).argmax())
    alpha[strongest] = 0.03 * _signs(gamma)[strongest]
    return alpha


def _heavy_tailed(
    gamma: Float, share: float, rng: np.random.Generator, *, scale: float = 0.02 / np.sqrt(3)
) -> Float:
    return _some(scale * rng.standard_t(3, gamma.size), share, rng)


# ---------------------------------------------------------------------------- cells

STRONG = 0.0313  # sd of gamma before selection: mean F about 290 at N1 = 200,000
MEDIUM = 0.0224
WEAKER = 0.0179
CURSED = 3 / np.sqrt(50_000)  # about three standard errors of a study of 50,000


@dataclass(frozen=True)
class Cell:
    """One scenario."""

    name: str
    pleiotropy: Callable[[Float, float, np.random.Generator], Float] = _none
    share: float = 0.0
    gamma_sd: float = STRONG
    gamma_law: str = "normal"
    n_exposure: int = 200_000
    n_outcome: int = 200_000
    n_discovery: int | None = None  # None: selected in the exposure study itself
    residual_covariance: float = 0.3

    @property
    def j(self) -> int:
        """Number of variants."""
        return int("".join(c for c in self._sample_word[1] if c.isdigit()))

    @property
    def effect(self) -> float:
        """Causal effect."""
        word = next(w for w in self.name.split() if w[0] == "b" and w[1] in ".0123456789")
        return float(word[1:])

    @property
    def overlap(self) -> float:
        """Share of the smaller study that is in the other one."""
        return {"os": 1.0, "ts": 0.0, "ov50": 0.5}[self._sample_word[0]]

    @property
    def _sample_word(self) -> tuple[str, str]:
        words = self.name.split()
        first = words[1] if words[0] in ("wc", "wk") else words[0]
        if first == "ov50":
            return "ov50", words[1]
        return first[:2], first[2:]


def _cells() -> tuple[Cell, ...]:
    small = partial(_directional, sd=0.008)
    half_slope = partial(_common_cause, slope=0.5, sd=0.004)
    opposite = partial(_common_cause, slope=-0.3)
    narrow = partial(_shifted, sd=0.005)
    cause = _common_cause
    cursed = {"gamma_sd": CURSED, "n_exposure": 50_000}
    cursed_one = {**cursed, "n_outcome": 50_000}
    weak = {"gamma_sd": CURSED, "n_exposure": 20_000, "n_discovery": 80_000}
    weak_one = {**weak, "n_outcome": 20_000}
    return (
        Cell("os120 bal30 b0", _balanced, 0.3),
        Cell("os40 bal30 b0", _balanced, 0.3),
        Cell("os40 bal50 b.3", _balanced, 0.5),
        Cell("os40 cause30 b.1 negconf", cause, 0.3, residual_covariance=-0.3),
        Cell("os40 cause30 b0", cause, 0.3),
        Cell("os40 cor50 b.2", half_slope, 0.5),
        Cell("os40 dir30 b.3 negconf", _directional, 0.3, residual_covariance=-0.3),
        Cell("os40 dir30 b0", _directional, 0.3),
        Cell("os40 dir50 b.1", _directional, 0.5),
        Cell("os40 none b.1"),
        Cell("os40 poly b.1", _polygenic),
        Cell("os40 t3t3 b.3", _heavy_tailed, 0.3, gamma_law="t3"),
        Cell("ov50 40 bal30 b.1", _balanced, 0.3, gamma_sd=MEDIUM),
        Cell("ts120 bal50 b.1", _balanced, 0.5),
        Cell("ts120 cause30 b0", cause, 0.3),
        Cell("ts120 dir30 b0", _directional, 0.3),
        Cell("ts120 dir50 b.1", _directional, 0.5),
        Cell("ts120 none b.3"),
        Cell("ts120 poly+20 b.1", _polygenic, 0.2),
        Cell("ts15 bal30 b0", _balanced, 0.3),
        Cell("ts15 cause30 b0", cause, 0.3),
        Cell("ts15 dir30 b0", _directional, 0.3),
        Cell("ts15 none b0"),
        Cell("ts40 bal80 b0", _balanced, 0.8),
        Cell("ts40 cause30 b.1", cause, 0.3),
        Cell("ts40 cause30neg b.3", opposite, 0.3),
        Cell("ts40 cause30w b0", cause, 0.3, gamma_sd=WEAKER, n_outcome=50_000),
        Cell("ts40 dir30+poly b0", _polygenic_directional, 0.3),
        Cell("ts40 dirall b.2", narrow, 1.0),
        Cell("ts40 dirsmall30 b0", small, 0.3),
        Cell("ts40 lev b0", _leverage),
        Cell("ts40 mixdir50 b0", _shifted, 0.5),
        Cell("ts40 out3 b0", _outliers),
        Cell("ts40 poly b0", _polygenic),
        Cell("ts40 t3all b.1", partial(_heavy_tailed, scale=0.0045), 1.0, gamma_law="t3"),
        Cell("ts40 t3t3 b0", _heavy_tailed, 0.3, gamma_law="t3"),
        Cell("wc os40 disc none b0", n_discovery=50_000, **cursed_one),
        Cell("wc os40 same lap none b0", gamma_law="laplace", **cursed_one),
        Cell("wc os40 same none b0", **cursed_one),
        Cell("wc ts15 same none b.3", **cursed),
        Cell("wc ts40 disc none b.3", n_discovery=50_000, **cursed),
        Cell("wc ts40 same bal30 b.3", _balanced, 0.3, **cursed),
        Cell("wc ts40 same dir30 b0", _directional, 0.3, **cursed),
        Cell("wc ts40 same none b.3", **cursed),
        Cell("wk os40 F15 none b0", **weak_one),
        Cell("wk ts40 F15 bal30 b0", _balanced, 0.3, **weak),
        Cell("wk ts40 F15 none b.3", **weak),
    )


CELLS = {cell.name: cell for cell in _cells()}


# ----------------------------------------------------------------------- the generator


class DataSet(NamedTuple):
    """Coefficients on standardised variants, and what is known about the residual moments."""

    h1: Float
    h2: Float
    eaf: Float
    residual_slope: float  # of Y on X given G, as observed in the people of both studies


def simulate(cell: Cell, rng: np.random.Generator) -> DataSet:
    """One data set of a cell."""
    shared = cell.overlap * min(cell.n_exposure, cell.n_outcome)
    cross = cell.residual_covariance * shared / (cell.n_exposure * cell.n_outcome)
    variance_x, variance_y = RESIDUAL / cell.n_exposure, RESIDUAL / cell.n_outcome
    gamma, noise = _selected_variants(cell, rng)
    alpha = cell.pleiotropy(gamma, cell.share, rng)
    given = cross / variance_x
    noise_y = given * noise + np.sqrt(variance_y - given * cross) * rng.standard_normal(cell.j)
    slope = cell.residual_covariance / RESIDUAL
    eta = np.sqrt((RESIDUAL - slope * cell.residual_covariance) / RESIDUAL)
    people = shared if shared > 0 else min(cell.n_exposure, cell.n_outcome)
    return DataSet(
        h1=gamma + noise,
        h2=alpha + cell.effect * gamma + noise_y,
        eaf=rng.uniform(0.1, 0.9, cell.j),
        residual_slope=slope + eta / np.sqrt(people) * rng.standard_normal(),
    )


def _selected_variants(cell: Cell, rng: np.random.Generator) -> tuple[Float, Float]:
    """Effects and noises on the exposure of the J first variants that pass the threshold."""
    se = np.sqrt(RESIDUAL / cell.n_exposure)
    gammas, noises, found = [], [], 0
    while found < cell.j:
        size = 8 * cell.j
        gamma = cell.gamma_sd * _standard_draws(cell.gamma_law, size, rng)
        noise = se * rng.standard_normal(size)
        if cell.n_discovery is None:
            z = (gamma + noise) / se
        else:
            se_discovery = np.sqrt(RESIDUAL / cell.n_discovery)
            z = gamma / se_discovery + rng.standard_normal(size)
        passed = np.abs(z) > THRESHOLD
        gammas.append(gamma[passed])
        noises.append(noise[passed])
        found += int(passed.sum())
    return np.concatenate(gammas)[: cell.j], np.concatenate(noises)[: cell.j]


def _standard_draws(law: str, size: int, rng: np.random.Generator) -> Float:
    """Draws of variance 1 (t: before it is cut off)."""
    if law == "laplace":
        return rng.laplace(0, np.sqrt(0.5), size)
    if law == "t3":
        return np.clip(rng.standard_t(3, size), -_T_LIMIT, _T_LIMIT) / np.sqrt(3)
    return rng.standard_normal(size)


def summary_moments(cell: Cell, data: DataSet, *, as_massive: bool = False) -> mrfast.Moments:
    """Moments from the data as two GWAS tables give them.

    With `as_massive`, what MASSIVE assumes: one sample of the smaller size, slope known.
    """
    sd_g = np.sqrt(2 * data.eaf * (1 - data.eaf))
    total_x = RESIDUAL + float((data.h1**2).sum())
    total_y = RESIDUAL + float((data.h2**2).sum())
    covariance = RESIDUAL * data.residual_slope + float((data.h1 * data.h2).sum())
    sizes = (cell.n_exposure, cell.n_outcome)
    overlap = cell.overlap
    if as_massive:
        sizes, overlap = (min(sizes), min(sizes)), 1.0
    return mrfast.Moments.from_summary(
        beta_exposure=data.h1 / sd_g,
        se_exposure=np.sqrt((total_x - data.h1**2) / sizes[0]) / sd_g,
        n_exposure=sizes[0],
        beta_outcome=data.h2 / sd_g,
        se_outcome=np.sqrt((total_y - data.h2**2) / sizes[1]) / sd_g,
        n_outcome=sizes[1],
        eaf=data.eaf,
        beta_observational=covariance / total_x if overlap > 0 else None,
        overlap=overlap,
    )


def associations(cell: Cell, data: DataSet) -> Associations:
    """What the classical estimators take."""
    return Associations(
        beta_exposure=data.h1,
        se_exposure=np.full(cell.j, np.sqrt(RESIDUAL / cell.n_exposure)),
        beta_outcome=data.h2,
        se_outcome=np.full(cell.j, np.sqrt(RESIDUAL / cell.n_outcome)),
    )


# ------------------------------------------------------------------------ the methods

Interval = tuple[float, float, float]  # estimate, lower, upper


class Replicate(NamedTuple):
    """Intervals of the methods, warnings raised, mean F of one data set."""

    intervals: dict[str, Interval]
    flags: dict[str, bool]
    mean_f: float


def classical_intervals(
    data: Associations, rng: np.random.Generator
) -> tuple[dict[str, Interval], float]:
    """Intervals of the classical estimators, and z of Egger's intercept."""
    slope, intercept = classical.egger(data)
    estimates = {
        "IVW": classical.inverse_variance_weighted(data),
        "weighted median": classical.weighted_median(data, rng),
        "MR-Egger": slope,
        "weighted mode": classical.weighted_mode(data, rng),
    }
    intervals = {name: (e.estimate, e.lower, e.upper) for name, e in estimates.items()}
    return intervals, intercept.estimate / intercept.std_error


def run_replicate(
    name: str, replicate: int, methods: Iterable[str] = METHODS, empirical: int | None = None
) -> Replicate:
    """One data set through the methods; MASSIVE's prior on the first `empirical` data sets."""
    cell = CELLS[name]
    seed = np.random.SeedSequence([SEED, zlib.crc32(name.encode()), replicate])
    rng = np.random.default_rng(seed)
    data = simulate(cell, rng)
    table = associations(cell, data)
    intervals, egger_z = classical_intervals(table, rng)
    intervals = {key: value for key, value in intervals.items() if key in methods}
    flags: dict[str, bool] = {}
    if "default prior" in methods:
        result = mrfast.massive(
            summary_moments(cell, data),
            method="exact",
            prior=None,
            selection_p=SELECTION_P,
            selected_in="exposure" if cell.n_discovery is None else "independent",
            n_threads=1,
        )
        effect = result.effect
        intervals["default prior"] = (effect.median, effect.ci_lower, effect.ci_upper)
        mode = intervals.get("weighted mode", (np.nan,))[0]
        flags = {
            **_warnings_of(result),
            "Egger intercept |z| > 3": abs(egger_z) > 3,
            "weighted mode > 2 sd away": abs(effect.median - mode) > 2 * effect.sd,
        }
    if "MASSIVE's prior" in methods and (empirical is None or replicate < empirical):
        moments = summary_moments(cell, data, as_massive=True)
        prior = mrfast.SpikeSlabPrior.empirical(moments)
        effect = mrfast.massive(moments, method="exact", prior=prior, n_threads=1).effect
        intervals["MASSIVE's prior"] = (effect.median, effect.ci_lower, effect.ci_upper)
    mean_f = float(((table.beta_exposure / table.se_exposure) ** 2).mean())
    return Replicate(intervals, flags, mean_f)


def _warnings_of(result: Any) -> dict[str, bool]:
    """The diagnostics of the default prior against the thresholds of the table."""
    values = result.diagnostics
    return {
        "directional index > 2": abs(values["directional_index"]) > 2,
        "second mode > 0.05": values["second_mode_probability"] > 0.05,
        "E[pi] > 0.5": values["mean_slab_probability"] > 0.5,
    }


# --------------------------------------------------------------------------- a cell


def run_cell(
    name: str,
    replicates: int = REPLICATES,
    *,
    methods: Iterable[str] = METHODS,
    empirical: int = EMPIRICAL_REPLICATES,
    mapper: Callable[..., Iterable[Replicate]] = map,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the two CSVs for one cell."""
    cell = CELLS[name]
    chosen = tuple(methods)
    run = partial(run_replicate, name, methods=chosen, empirical=empirical)
    results = list(mapper(run, range(replicates)))
    mean_f = float(np.mean([result.mean_f for result in results]))
    rows = []
    for method in chosen:
        values = np.array([r.intervals[method] for r in results if method in r.intervals])
        rows.append(
            {
                "cell": name,
                "j": cell.j,
                "effect": cell.effect,
                "mean_f": mean_f,
                "method": method,
                **summarise(values, cell.effect),
            }
        )
    warnings = []
    if "default prior" in chosen:
        covers = np.array([_covers(r.intervals["default prior"], cell.effect) for r in results])
        for flag in FLAGS:
            raised = np.array([r.flags.get(flag, False) for r in results])
            warnings.append(
                {
                    "cell": name,
                    "warning": flag,
                    "replicates": len(results),
                    "flagged": int(raised.sum()),
                    "covered_flagged": int(covers[raised].sum()),
                    "covered_unflagged": int(covers[~raised].sum()),
                }
            )
    return rows, warnings


def _covers(interval: Interval, value: float) -> bool:
    return interval[1] <= value <= interval[2]


def summarise(values: Float, effect: float) -> dict[str, float]:
    """Coverage, error and width of intervals (estimate, lower, upper), one a row."""
    estimate, lower, upper = values.T
    n = len(values)
    covered = float(np.mean((lower <= effect) & (effect <= upper)))
    excludes = float(np.mean((lower > 0) | (upper < 0)))
    squares = (estimate - effect) ** 2
    rmse = float(np.sqrt(squares.mean()))
    return {
        "replicates": n,
        "coverage": covered,
        "coverage_se": float(np.sqrt(covered * (1 - covered) / n)),
        "rmse": rmse,
        "rmse_se": float(squares.std(ddof=1) / (2 * rmse * np.sqrt(n))),
        "bias": float(np.mean(estimate) - effect),
        "median_width": float(np.median(upper - lower)),
        "excludes_zero": excludes,
        "excludes_zero_se": float(np.sqrt(excludes * (1 - excludes) / n)),
    }


# -------------------------------------------------------------------------- tables


def coverage_markdown(table: pd.DataFrame) -> str:
    """One row a cell: coverage / RMSE of every method, with the width of the default prior."""
    lines = [
        "| cell | mean F | " + " | ".join(METHODS) + " |",
        "|---|---|" + "---|" * len(METHODS),
    ]
    for cell, group in table.groupby("cell", sort=False):
        by_method = group.set_index("method")
        texts = []
        for method in METHODS:
            if method not in by_method.index:
                texts.append("")
                continue
            row = by_method.loc[method]
            text = f"{row['coverage']:.3f} ({row['coverage_se']:.3f}) / {row['rmse']:.3f}"
            if method in METHODS[:2]:
                text += f" / {row['median_width']:.3f}"
            texts.append(text)
        lines.append(f"| {cell} | {group['mean_f'].iloc[0]:.0f} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def null_markdown(table: pd.DataFrame) -> str:
    """One row a null cell: share of the 95% intervals that exclude 0."""
    lines = [
        "| null cell | " + " | ".join(METHODS) + " |",
        "|---|" + "---|" * len(METHODS),
    ]
    for cell, group in table[table["effect"] == 0].groupby("cell", sort=False):
        by_method = group.set_index("method")
        texts = [
            f"{by_method.at[m, 'excludes_zero']:.3f} ({by_method.at[m, 'excludes_zero_se']:.3f})"
            if m in by_method.index
            else ""
            for m in METHODS
        ]
        lines.append(f"| {cell} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def summary_markdown(table: pd.DataFrame) -> str:
    """One row a method: over the cells."""
    lines = [
        "| method | cells | mean coverage | lowest | cells below 0.90 | RMSE | width | "
        "mean type I error | highest | mean power |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    wide = {
        column: table.pivot(index="cell", columns="method", values=column)
        for column in ("coverage", "rmse", "median_width", "excludes_zero", "effect")
    }
    for method in [m for m in METHODS if m in wide["rmse"]]:
        relative = [
            float(np.exp(np.log(wide[c][method] / wide[c][METHODS[0]]).mean()))
            if METHODS[0] in wide[c]
            else np.nan
            for c in ("rmse", "median_width")
        ]
        coverage = wide["coverage"][method]
        null = wide["excludes_zero"][method][wide["effect"][method] == 0]
        power = wide["excludes_zero"][method][wide["effect"][method] != 0]
        lines.append(
            f"| {method} | {coverage.count()} | {coverage.mean():.3f} | {coverage.min():.2f} | "
            f"{int((coverage < 0.9).sum())} | {relative[0]:.2f} | {relative[1]:.2f} | "
            f"{null.mean():.3f} | {null.max():.2f} | {power.mean():.3f} |"
        )
    return "\n".join(lines) + "\n"


def warnings_markdown(warnings: pd.DataFrame) -> str:
    """One row a warning: coverage of the default prior where it is raised and where not."""
    lines = [
        "| warning | raised | coverage where raised | where not | "
        "share of the misses that it marks |",
        "|---|---|---|---|---|",
    ]
    columns = ["replicates", "flagged", "covered_flagged", "covered_unflagged"]
    for flag, group in warnings.groupby("warning", sort=False):
        n, raised, with_flag, without = (int(group[c].sum()) for c in columns)
        missed = n - with_flag - without
        lines.append(
            f"| {flag} | {raised / n:.3f} | {_share(with_flag, raised)} | "
            f"{_share(without, n - raised)} | {_share(raised - with_flag, missed)} |"
        )
    return "\n".join(lines) + "\n"


def _share(count: int, total: int) -> str:
    if total == 0:
        return "-"
    share = count / total
    return f"{share:.3f} ({np.sqrt(share * (1 - share) / total):.3f})"


TABLES = {
    "coverage": coverage_markdown,
    "null": null_markdown,
    "summary": summary_markdown,
    "warnings": warnings_markdown,
}


def markdown(kind: str, folder: Path) -> str:
    """A table of the documentation: "coverage", "null", "summary" or "warnings"."""
    file = "default_prior_warnings.csv" if kind == "warnings" else "default_prior.csv"
    return TABLES[kind](pd.read_csv(folder / file, comment="#"))


# --------------------------------------------------------------------------- running


def header() -> str:
    """First lines of the CSVs: how they came about."""
    return (
        f"# seed {SEED}; mrfast {mrfast.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}; "
        "python benchmarks/studies/default_prior.py "
        "--output benchmarks/studies/default_prior.csv\n"
    )


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Replicate]]]:
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=5)


def main() -> None:
    """Run the cells, or write a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="CSV to write, and to continue")
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--empirical-replicates", type=int, default=EMPIRICAL_REPLICATES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", choices=list(TABLES))
    arguments = parser.parse_args()
    if arguments.table is not None:
        sys.stdout.write(markdown(arguments.table, Path(__file__).parent))
        return
    if arguments.output is None:
        parser.error("--output is required")
    second = arguments.output.with_name(arguments.output.stem + "_warnings.csv")
    rows, warnings = [
        pd.read_csv(path, comment="#").to_dict("records") if path.exists() else []
        for path in (arguments.output, second)
    ]
    done = {row["cell"] for row in rows}
    with _mapper(arguments.workers) as mapper:
        for name in arguments.cells:
            if name in done:
                continue
            new_rows, new_warnings = run_cell(
                name,
                arguments.replicates,
                methods=arguments.methods,
                empirical=arguments.empirical_replicates,
                mapper=mapper,
            )
            rows += new_rows
            warnings += new_warnings
            arguments.output.write_text(
                header() + pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
            )
            if warnings:
                second.write_text(header() + pd.DataFrame(warnings).to_csv(index=False))
            print(pd.DataFrame(new_rows).to_string(index=False), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
