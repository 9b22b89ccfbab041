"""Level, coverage, power and bias of the summary-data methods, univariable and multivariable.

    cd benchmarks/studies && python summary_error.py --output summary_error.csv

writes a row for each cell, effect and method. A cell that is in the output already is skipped, so
that the same command continues a study that was stopped; every data set has a seed of its own and
every method a random stream of its own. --cells NAME ... runs some of the cells, --workers K uses
K processes. --table NAME writes a table of docs/studies.md from the CSV instead, and
--document ../../docs/studies.md puts all of them into it.

Generator of the univariable cells: `mrfast.simulation.summary_data`. J SNPs, N people in each of
the two studies, no overlap; a SNP explains 3e-4 + Exp(4e-4) of the variance of the exposure. Every
cell runs with no effect (level) and with an effect of 0.1 (coverage, power, bias).

The multivariable cells have three exposures with effects 0.1, 0 and -0.1 and 60 SNPs, each of which
belongs to one exposure, with 3e-4 + Exp(4e-4) of its variance, and has a third of that effect, of
either sign, on the two others. The errors of the three exposures are independent.
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
from mrfast.errors import InvalidInputError, MrfastError, MrfastWarning
from mrfast.simulation import summary_data

SEED = 20205
REPLICATES = 1_000
EFFECT = 0.1
SCENARIOS = {
    "none": "no pleiotropy",
    "balanced": "balanced, 50%",
    "directional": "directional, 30%",
    "inside_violated": "correlated, 30%",
    "outliers": "outliers, 30%",
}
MULTIVARIABLE_EFFECTS = np.array([0.1, 0.0, -0.1])

# ------------------------------------------------------------------------ methods


@dataclass(frozen=True)
class Method:
    """A function of mrfast with its options."""

    label: str
    function: str
    options: tuple[tuple[str, Any], ...] = ()
    random: bool = False
    needs_n: bool = False
    small: bool = False  # slow: only in the cells of 20 SNPs and 100,000 people

    def run(self, data: dict[str, Any], n: int, rng: np.random.Generator) -> Any:
        """The result on one data set."""
        arguments = data | dict(self.options)
        if self.random:
            arguments["rng"] = rng
        if self.needs_n:
            arguments["n"] = n
        result = getattr(mrfast, self.function)(**arguments)
        return getattr(result, "corrected", None) or result


def _method(label: str, function: str, **options: Any) -> Method:
    own = {name: options.pop(name) for name in ("random", "needs_n", "small") if name in options}
    return Method(label, function, tuple(options.items()), **own)


UNIVARIABLE = (
    _method("IVW, fixed", "ivw", model="fixed"),
    _method("IVW, random", "ivw"),
    _method("IVW, robust", "ivw", robust=True),
    _method("IVW, penalised", "ivw", penalised=True),
    _method("radial IVW", "radial"),
    _method("Egger", "egger"),
    _method("simple median", "simple_median", random=True),
    _method("weighted median", "weighted_median", random=True),
    _method("weighted median, robust error", "weighted_median", std_error="robust"),
    _method("penalised median", "penalised_median", random=True),
    _method("simple mode", "simple_mode", n_draws=250, random=True),
    _method("weighted mode", "weighted_mode", n_draws=250, random=True),
    _method("MR-PRESSO, corrected", "mr_presso", simulate=False, n_draws=500, random=True),
    _method("maximum likelihood, fixed", "maximum_likelihood", model="fixed"),
    _method("maximum likelihood, random", "maximum_likelihood", model="random"),
    _method("debiased IVW", "debiased_ivw"),
    _method("penalised IVW, corrected", "penalised_ivw", n_draws=500, random=True),
    _method("RAPS, l2, no over-dispersion", "raps", loss="l2", over_dispersion=False),
    _method("RAPS, l2", "raps", loss="l2"),
    _method("RAPS, Huber", "raps", loss="huber"),
    _method("RAPS, Tukey", "raps", loss="tukey"),
    _method("contamination mixture", "contamination_mixture"),
    _method("MR-Lasso", "mr_lasso"),
    _method("heterogeneity-penalised", "heterogeneity_penalised", small=True),
    _method("heterogeneity-penalised, product", "heterogeneity_penalised", form="product"),
    _method("cML-MA", "constrained_ml", n_perturbations=0, needs_n=True),
    _method("cML-MA, perturbed", "constrained_ml", n_perturbations=100, random=True, needs_n=True),
)
MULTIVARIABLE = (
    _method("IVW, fixed", "mv_ivw", model="fixed"),
    _method("IVW, random", "mv_ivw"),
    _method("Egger", "mv_egger"),
    _method("median", "mv_median", n_draws=1_000, random=True),
    _method("median, robust error", "mv_median", std_error="robust"),
    _method("MR-Lasso", "mv_lasso"),
    _method("cML-MA", "mv_constrained_ml", n_perturbations=0, needs_n=True),
    _method(
        "cML-MA, perturbed", "mv_constrained_ml", n_perturbations=100, random=True, needs_n=True
    ),
    _method("MR-PRESSO, corrected", "mv_presso", n_draws=1_000, random=True),
)


# -------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Cell:
    """One scenario."""

    scenario: str
    snps: int
    n: int
    multivariable: bool = False

    @property
    def name(self) -> str:
        """For instance "balanced J50 N100000"."""
        return f"{'mv ' * self.multivariable}{self.scenario} J{self.snps} N{self.n}"

    @property
    def methods(self) -> tuple[Method, ...]:
        """What runs in it."""
        methods = MULTIVARIABLE if self.multivariable else UNIVARIABLE
        small = self.snps <= 20 and self.n <= 100_000
        return tuple(method for method in methods if small or not method.small)


def _cells() -> Iterator[Cell]:
    for snps, n in ((20, 100_000), (50, 100_000), (100, 100_000), (20, 300_000), (100, 300_000)):
        for scenario in SCENARIOS:
            yield Cell(scenario, snps, n)
    for scenario in ("none", "balanced", "directional", "outliers"):
        yield Cell(scenario, 60, 100_000, multivariable=True)


CELLS = {cell.name: cell for cell in _cells()}


# ---------------------------------------------------------------------- a data set


class Found(NamedTuple):
    """What a method says about one effect."""

    estimate: float
    std_error: float
    width: float
    covers: bool
    rejects: bool
    noted: bool


def _generator(cell: Cell, replicate: int, label: str) -> np.random.Generator:
    key = [SEED, zlib.crc32(cell.name.encode()), replicate, zlib.crc32(label.encode())]
    return np.random.default_rng(np.random.SeedSequence(key))


def simulate(cell: Cell, effect: float, replicate: int) -> dict[str, Any]:
    """The four arrays of one data set."""
    rng = _generator(cell, replicate, f"data {effect:g}")
    if cell.multivariable:
        return _several_exposures(cell, rng)
    return dict(summary_data(cell.scenario, cell.snps, cell.n, effect, rng).arrays)


def _several_exposures(cell: Cell, rng: np.random.Generator) -> dict[str, Any]:
    snps, exposures = cell.snps, len(MULTIVARIABLE_EFFECTS)
    own = np.sqrt(3e-4 + rng.exponential(4e-4, snps)) * rng.choice([-1, 1], snps)
    gamma = own[:, None] / 3 * rng.choice([-1, 1], (snps, exposures))
    gamma[np.arange(snps), np.arange(snps) % exposures] = own
    alpha = np.zeros(snps)
    direct = rng.permutation(snps)[: round(snps * (0.5 if cell.scenario == "balanced" else 0.3))]
    if cell.scenario == "balanced":
        alpha[direct] = rng.normal(0, 0.01, len(direct))
    elif cell.scenario == "directional":
        alpha[direct] = np.sign(own[direct]) * rng.normal(0.01, 0.005, len(direct))
    elif cell.scenario == "outliers":
        alpha[direct] = np.sign(own[direct]) * rng.normal(0.03, 0.02, len(direct))
    se = np.full(snps, cell.n**-0.5)
    return {
        "beta_exposure": gamma + se[:, None] * rng.standard_normal((snps, exposures)),
        "se_exposure": np.repeat(se[:, None], exposures, axis=1),
        "beta_outcome": gamma @ MULTIVARIABLE_EFFECTS + alpha + se * rng.standard_normal(snps),
        "se_outcome": se,
    }


def run_replicate(
    name: str, effect: float, labels: tuple[str, ...], replicate: int
) -> dict[str, tuple[Found, ...] | None]:
    """One data set through the methods; None where a method gives no result."""
    cell = CELLS[name]
    data = simulate(cell, effect, replicate)
    results: dict[str, tuple[Found, ...] | None] = {}
    for method in cell.methods:
        if method.label not in labels:
            continue
        rng = _generator(cell, replicate, f"{method.label} {effect:g}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MrfastWarning)
                result = method.run(data, cell.n, rng)
        except InvalidInputError:
            raise
        except MrfastError:
            results[method.label] = None
            continue
        truths = MULTIVARIABLE_EFFECTS if cell.multivariable else np.array([effect])
        results[method.label] = tuple(_found(result, k, value) for k, value in enumerate(truths))
    return results


def _found(result: Any, k: int, truth: float) -> Found:
    def value(name: str) -> float:
        return float(np.atleast_1d(getattr(result, name))[k])

    pieces = getattr(result, "intervals", None)
    if pieces is None:
        pieces = [(value("ci_lower"), value("ci_upper"))]
    return Found(
        value("estimate"),
        value("std_error") if hasattr(result, "std_error") else np.nan,
        sum(high - low for low, high in pieces),
        any(low <= truth <= high for low, high in pieces),
        value("p_value") < 0.05,
        bool(getattr(result, "messages", ())),
    )


# -------------------------------------------------------------------------- a cell


def run_cell(
    name: str,
    replicates: int = REPLICATES,
    *,
    labels: Iterable[str] | None = None,
    mapper: Callable[..., Iterable[dict[str, tuple[Found, ...] | None]]] = map,
) -> list[dict[str, Any]]:
    """Rows of the CSV for one cell."""
    cell = CELLS[name]
    chosen = tuple(labels or [method.label for method in cell.methods])
    rows = []
    for effect in (EFFECT,) if cell.multivariable else (0.0, EFFECT):
        run = partial(run_replicate, name, effect, chosen)
        results = list(mapper(run, range(replicates)))
        truths = MULTIVARIABLE_EFFECTS if cell.multivariable else np.array([effect])
        for label in chosen:
            found = [result[label] for result in results]
            for k, truth in enumerate(truths):
                rows.append(
                    {
                        "cell": name,
                        "scenario": cell.scenario,
                        "snps": cell.snps,
                        "n": cell.n,
                        "effect": truth,
                        "method": label,
                        "replicates": replicates,
                        **summarise([f[k] for f in found if f is not None], truth, replicates),
                    }
                )
    return rows


def summarise(found: list[Found], truth: float, replicates: int) -> dict[str, float]:
    """Rates and errors of one method, over the data sets that have a result."""
    row: dict[str, float] = {"without_result": 1 - len(found) / replicates}
    for key in ("rejects", "covers"):
        share = float(np.mean([getattr(f, key) for f in found]))
        row |= {key: share, f"{key}_se": float(np.sqrt(share * (1 - share) / len(found)))}
    estimate = np.array([f.estimate for f in found])
    with np.errstate(invalid="ignore"):
        return row | {
            "bias": float(estimate.mean() - truth),
            "sd": float(estimate.std(ddof=1)),
            "median_std_error": float(np.median([f.std_error for f in found])),
            "median_width": float(np.median([f.width for f in found])),
            "noted": float(np.mean([f.noted for f in found])),
        }


# ------------------------------------------------------------------------- tables


def _rates(table: pd.DataFrame, n: int) -> str:
    """Level | coverage | power in per cent; the cells of one N side by side."""
    part = table[(table["n"] == n) & ~table["cell"].str.startswith("mv ")]
    sizes = sorted(part["snps"].unique())
    lines = [
        "| method | " + " | ".join(SCENARIOS.values()) + " |",
        "|---|" + "---|" * len(SCENARIOS),
    ]
    indexed = part.set_index(["method", "scenario", "snps", "effect"])
    here = {m.label for name in set(part["cell"]) for m in CELLS[name].methods}
    for method in UNIVARIABLE:
        if method.label not in here:
            continue
        texts = []
        for scenario in SCENARIOS:
            cells = []
            for snps in sizes:
                if method not in CELLS[Cell(scenario, snps, n).name].methods:
                    cells.append("-")
                    continue
                null = indexed.loc[(method.label, scenario, snps, 0.0)]
                real = indexed.loc[(method.label, scenario, snps, EFFECT)]
                shares = (null["rejects"], real["covers"], real["rejects"])
                cells.append(" / ".join(f"{100 * share:.0f}" for share in shares))
            texts.append("; ".join(cells))
        lines.append(f"| {method.label} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _errors(table: pd.DataFrame) -> str:
    """Bias (SD, median standard error) at J = 50, N = 100,000 and the effect of 0.1."""
    part = table[(table["snps"] == 50) & (table["n"] == 100_000) & (table["effect"] == EFFECT)]
    indexed = part.set_index(["method", "scenario"])
    lines = [
        "| method | " + " | ".join(SCENARIOS.values()) + " |",
        "|---|" + "---|" * len(SCENARIOS),
    ]
    for method in CELLS["none J50 N100000"].methods:
        texts = []
        for scenario in SCENARIOS:
            row = indexed.loc[(method.label, scenario)]
            error = row["median_std_error"]
            shown = "-" if np.isnan(error) else f"{error:.3f}"
            texts.append(f"{row['bias']:+.3f} ({row['sd']:.3f}, {shown})")
        lines.append(f"| {method.label} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _multivariable(table: pd.DataFrame) -> str:
    """Level of the exposure without effect, coverage over all three, power, bias."""
    part = table[table["cell"].str.startswith("mv ")]
    scenarios = list(dict.fromkeys(part["scenario"]))
    lines = [
        "| method | " + " | ".join(SCENARIOS[name] for name in scenarios) + " |",
        "|---|" + "---|" * len(scenarios),
    ]
    for method in MULTIVARIABLE:
        texts = []
        for scenario in scenarios:
            rows = part[(part["method"] == method.label) & (part["scenario"] == scenario)]
            rows = rows.set_index("effect")
            shares = (
                rows.loc[0.0, "rejects"],
                rows["covers"].mean(),
                rows.loc[[0.1, -0.1], "rejects"].mean(),
            )
            rates = " / ".join(f"{100 * share:.0f}" for share in shares)
            texts.append(f"{rates} ({rows.loc[0.1, 'bias']:+.3f})")
        lines.append(f"| {method.label} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[pd.DataFrame], str]] = {
    "100000": partial(_rates, n=100_000),
    "300000": partial(_rates, n=300_000),
    "bias": _errors,
    "multivariable": _multivariable,
}


def markdown(kind: str, folder: Path) -> str:
    """A table of the documentation, by its name in `TABLES`."""
    return TABLES[kind](pd.read_csv(folder / "summary_error.csv", comment="#"))


if __name__ == "__main__":
    main(
        "summary_error",
        __doc__,
        seed=SEED,
        cells=CELLS,
        replicates=REPLICATES,
        run_cell=run_cell,
        tables=TABLES,
        markdown=markdown,
    )
