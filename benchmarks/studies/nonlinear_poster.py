"""The ml-mr poster's further figures: quantile levels, DFIV over a sweep, choice of a model.

    cd benchmarks/studies && python nonlinear_poster.py --output nonlinear_poster.csv

writes a row for each cell, data set and setting; a cell that is in the output already is skipped.
--figures FOLDER draws what the CSVs hold into docs/figures; --table NAME and --document write the
tables of docs/studies.md.

Generator: `mrfast.simulation.poster_simple` with the poster's curve 0.3 (x + 2) (x - 1) + 1.
"levels" fits QuantileIV with several numbers of quantile levels. "variability" fits DFIV with ten
random settings to one data set, as on the poster (n = 100,000, h2 = 0.2). "choice" fits every
estimator with random settings to four fifths of the people and judges each fit on the others, by
the mean square of the residuals (a second-stage loss), by the unbiased risk that `mrfast.sweep`
uses, and by the width of conformal intervals; the curve's squared error says who was right.
"""

from __future__ import annotations

import argparse
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cell_study import main

from mrfast.errors import MrfastError, MrfastWarning
from mrfast.nonlinear.estimator_names import estimator_class
from mrfast.nonlinear.held_out_risk import HeldOutRisk
from mrfast.nonlinear.iv_data import iv_data
from mrfast.simulation import poster_simple

SEED = 20263
LEVELS = (3, 5, 10, 25, 50)
GRID = np.linspace(-2.0, 2.0, 41)
RUNS = 10

CHOICE: dict[str, dict[str, Any]] = {
    "dfiv": {"calibration_proportion": 0.2},
    "deep_gmm": {"calibration_proportion": 0.2},
    "deep_iv": {},
    "quantile_iv": {"uncertainty": "simultaneous_quantile"},
}
"""Estimators of the choice, with the options that give them conformal intervals."""

CELLS = {
    "levels": "quantile_iv",
    "variability": "dfiv",
    **{f"choice {name}": name for name in CHOICE},
}


def _rng(*key: object) -> np.random.Generator:
    words = [zlib.crc32(str(part).encode()) for part in key]
    return np.random.default_rng(np.random.SeedSequence([SEED, *words]))


def random_setting(name: str, rng: np.random.Generator) -> dict[str, Any]:
    """Options of one run of a sweep."""
    setting: dict[str, Any] = {
        "outcome_learning_rate": float(10 ** rng.uniform(-3.5, -2)),
        "outcome_weight_decay": float(10 ** rng.uniform(-5, -1)),
        "outcome_hidden": [(16,), (64, 32), (128, 64)][rng.integers(3)],
        "rng": int(rng.integers(2**31)),
    }
    if name == "dfiv":
        setting["instrument_ridge"] = float(10 ** rng.uniform(-1, 3))
        setting["exposure_ridge"] = float(10 ** rng.uniform(-1, 3))
        setting["exposure_features"] = int(rng.choice([2, 4, 8, 16]))
    return setting


def _fitted(name: str, options: dict[str, Any], arrays: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrfastWarning)
        return estimator_class(name)(**options).fit(**arrays)


def _error(estimator: Any, data: Any) -> float:
    x = np.linspace(*np.quantile(data.exposure, [0.025, 0.975]), 2_000)
    return float(np.mean((estimator.effect(x) - data.true_effect(x)) ** 2))


# ------------------------------------------------------------------------- cells


def levels(replicate: int) -> list[dict[str, Any]]:
    """QuantileIV with several numbers of levels on one data set."""
    data = poster_simple(10_000, rng=int(_rng("levels", replicate).integers(2**31)))
    return [
        {
            "replicate": replicate,
            "setting": str(q),
            "squared_error": _error(
                _fitted("quantile_iv", {"n_quantiles": q, "rng": replicate}, data.arrays), data
            ),
        }
        for q in LEVELS
    ]


def variability() -> list[dict[str, Any]]:
    """DFIV with ten settings on one data set; the curves in columns."""
    data = poster_simple(100_000, h2=0.2, rng=int(_rng("variability").integers(2**31)))
    rows = []
    for run in range(RUNS):
        setting = random_setting("dfiv", _rng("variability", run))
        estimator = _fitted("dfiv", setting, data.arrays)
        curve = {f"f{i}": value for i, value in enumerate(estimator.effect(GRID))}
        rows.append(
            {
                "replicate": 0,
                "setting": _text(setting),
                "squared_error": _error(estimator, data),
                **curve,
            }
        )
    return rows


def choice(name: str, replicate: int) -> list[dict[str, Any]]:
    """Ten settings of one estimator on one data set, with three criteria and the error."""
    data = poster_simple(10_000, rng=int(_rng("choice", replicate).integers(2**31)))
    people = iv_data(**data.arrays)
    order = _rng("split", replicate).permutation(people.n)
    training, held_out = people.take(order[:8_000]), people.take(order[8_000:])
    risk = HeldOutRisk(training, held_out)
    rows = []
    for run in range(RUNS):
        setting = random_setting(name, _rng("choice", name, replicate, run))
        arrays = {
            "instruments": training.instruments,
            "exposure": training.exposure,
            "outcome": training.outcome,
        }
        try:
            estimator = _fitted(name, {**setting, **CHOICE[name]}, arrays)
        except MrfastError as failure:
            print(f"{name}, run {run}: {failure}", file=sys.stderr)
            continue
        residuals = held_out.outcome - estimator.effect(held_out.exposure)
        width = np.nan
        if "conformal" in estimator.curve_.intervals:
            x = np.linspace(*np.quantile(data.exposure, [0.025, 0.975]), 200)
            limits = estimator.effect(x, interval="conformal", level=0.9)
            width = float(np.mean(limits.upper - limits.lower))
        rows.append(
            {
                "replicate": replicate,
                "setting": _text(setting),
                "squared_error": _error(estimator, data),
                "second_stage_loss": float(np.mean(residuals**2)),
                "held_out_risk": risk(residuals).risk,
                "interval_width": width,
            }
        )
    return rows


def _text(setting: dict[str, Any]) -> str:
    return "; ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in setting.items()
    )


def run_cell(
    name: str,
    replicates: int = 5,
    *,
    mapper: Callable[..., Iterable[list[dict[str, Any]]]] = map,
) -> list[dict[str, Any]]:
    """Rows of the CSV for one cell."""
    head = {"cell": name, "estimator": CELLS[name]}
    if name == "variability":
        found: Iterable[list[dict[str, Any]]] = [variability()]
    elif name == "levels":
        found = mapper(levels, range(replicates))
    else:
        found = mapper(choice, [CELLS[name]] * replicates, range(replicates))
    return [head | row for rows in found for row in rows]


# ------------------------------------------------------------------------ tables

CRITERIA = {
    "second_stage_loss": "second-stage loss",
    "held_out_risk": "unbiased risk",
    "interval_width": "conformal width",
}


def _levels_table(table: pd.DataFrame) -> str:
    part = table[table["cell"] == "levels"]
    grouped = part.groupby(part["setting"].astype(int))["squared_error"]
    lines = ["| levels | median squared error | smallest to largest |", "|---|---|---|"]
    lines += [
        f"| {q} | {errors.median():.2g} | {errors.min():.2g} to {errors.max():.2g} |"
        for q, errors in grouped
    ]
    return "\n".join(lines) + "\n"


def chosen(part: pd.DataFrame, criterion: str) -> pd.Series:
    """Squared error of the setting with the least criterion, for each data set."""
    usable = part.dropna(subset=[criterion])
    best = usable.groupby("replicate")[criterion].idxmin()
    return usable.loc[best].set_index("replicate")["squared_error"]


def _choice_table(table: pd.DataFrame) -> str:
    """Median squared error of what each criterion chooses, of the best and of the middle run."""
    names = [*CRITERIA.values(), "best setting", "median setting"]
    lines = ["| estimator | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for name in CHOICE:
        part = table[table["cell"] == f"choice {name}"]
        texts = []
        for criterion in CRITERIA:
            errors = chosen(part, criterion)
            texts.append("-" if errors.empty else f"{errors.median():.2g}")
        by_data = part.groupby("replicate")["squared_error"]
        texts += [f"{by_data.min().median():.2g}", f"{by_data.median().median():.2g}"]
        lines.append(f"| `{name}` | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[pd.DataFrame], str]] = {
    "levels": _levels_table,
    "choice": _choice_table,
}


def markdown(kind: str, folder: Path) -> str:
    """A table of the documentation, by its name in `TABLES`."""
    return TABLES[kind](pd.read_csv(folder / "nonlinear_poster.csv", comment="#"))


# ----------------------------------------------------------------------- figures


def figures(folder: Path, target: Path) -> None:
    """Draw the figures of the documentation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
    errors = pd.read_csv(folder / "nonlinear_error.csv", comment="#")
    table = pd.read_csv(folder / "nonlinear_poster.csv", comment="#")
    _comparison(errors, plt).savefig(target / "nonlinear_error.png", dpi=150)
    _further(table, plt).savefig(target / "nonlinear_poster.png", dpi=150)


def _comparison(table: pd.DataFrame, plt: Any) -> Any:
    """Best error over the settings, for each of the poster's parameters."""
    part = table[table["replicate"] < 5]
    best = part.groupby(["estimator", "n", "h2", "beta_ux", "replicate"], sort=False)
    best = best["squared_error"].min().reset_index()
    panels = {
        "people (h2 = 0.5)": ("n", (best["h2"] == 0.5) & (best["beta_ux"] == 0.35)),
        "h2 (n = 10,000)": ("h2", (best["n"] == 10_000) & (best["beta_ux"] == 0.35)),
        "confounder's effect (n = 10,000)": (
            "beta_ux",
            (best["n"] == 10_000) & (best["h2"] == 0.5),
        ),
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 4), sharey=True, layout="constrained")
    names = list(dict.fromkeys(best["estimator"]))
    colours = plt.get_cmap("tab20")(np.arange(len(names)))
    for ax, (title, (column, rows)) in zip(axes, panels.items(), strict=True):
        values = sorted(best.loc[rows, column].unique())
        for i, name in enumerate(names):
            for j, value in enumerate(values):
                y = best.loc[rows & (best["estimator"] == name) & (best[column] == value)]
                y = y["squared_error"].dropna()
                x = j + (i - (len(names) - 1) / 2) * 0.8 / len(names)
                if len(y):
                    ax.plot([x, x], [y.min(), y.max()], color=colours[i], lw=1)
                    label = name if ax is axes[0] and j == 0 else None
                    ax.plot(x, y.median(), "o", ms=3.5, color=colours[i], label=label)
        ax.set_xticks(range(len(values)), [f"{v:,.10g}" for v in values])
        ax.set_xlabel(title)
        ax.set_yscale("log")
        ax.grid(axis="y", color="0.92")
    axes[0].set_ylabel("mean squared error, central 95%")
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    return figure


def _further(table: pd.DataFrame, plt: Any) -> Any:
    """Levels, variability of DFIV, and the three criteria against the error."""
    figure = plt.figure(figsize=(11, 7), layout="constrained")
    grid = figure.add_gridspec(2, 6)
    left, right = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])
    part = table[table["cell"] == "levels"]
    groups = [part.loc[part["setting"] == str(q), "squared_error"] for q in LEVELS]
    left.boxplot(groups, tick_labels=[str(q) for q in LEVELS], medianprops={"color": "C0"})
    left.set(xlabel="quantile levels of QuantileIV", ylabel="mean squared error", yscale="log")
    part = table[table["cell"] == "variability"]
    for _, row in part.iterrows():
        right.plot(GRID, row[[f"f{i}" for i in range(len(GRID))]], color="C0", lw=0.8, alpha=0.7)
    right.plot(GRID, 0.3 * (GRID + 2) * (GRID - 1) + 1, "k--", lw=1.2, label="truth")
    right.set(xlabel="exposure", ylabel="E[Y | do(X = x)], DFIV, ten settings")
    right.legend(frameon=False)
    for k, (criterion, label) in enumerate(CRITERIA.items()):
        ax = figure.add_subplot(grid[1, 2 * k : 2 * k + 2])
        for i, name in enumerate(CHOICE):
            part = table[table["cell"] == f"choice {name}"]
            centred = part[criterion] - part.groupby("replicate")[criterion].transform("min")
            ax.plot(centred, part["squared_error"], ".", ms=4, color=f"C{i}", label=name)
        ax.set(xlabel=f"{label}, less the least of the data set", yscale="log")
        if k == 0:
            ax.set_ylabel("mean squared error")
        if k == 1:
            ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    if "--figures" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--figures", type=Path)
        figures(Path(__file__).parent, parser.parse_args().figures)
    else:
        main(
            "nonlinear_poster",
            __doc__,
            seed=SEED,
            cells=CELLS,
            replicates=5,
            run_cell=run_cell,
            tables=TABLES,
            markdown=markdown,
        )
