"""The figure of a sweep: `sweep_figure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast.plots.colours import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    import pandas as pd

    from mrfast.nonlinear.hyperparameter_sweep import SweepResult

__all__ = ["sweep_figure"]

_COLUMNS = 3
_MOST = 9  # options with a panel of their own
_FEW = 12  # different values up to which an option has a place for each
_JITTER = 0.12
_TITLES = {"risk": "Risk on held-out people", "interval_width": "Mean width of the limits"}


def sweep_figure(result: SweepResult) -> Any:
    """Draw the criterion against every option that varies, a panel for each.

    Parameters
    ----------
    result : SweepResult
        With at least one run that is done.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        No run is done.
    MissingExtraError
        matplotlib is not installed (plot extra).
    """
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the sweep's figure")
    table = result.to_frame()
    done = table[(table["status"] == "done") & table[result.criterion].notna()]
    if not len(done):
        raise check.fail("result", f"a run that is done and has a {result.criterion}", "none")
    labels = list(table.columns[1 : 1 + len(result.parameters)])
    varying = [name for name in labels if len({str(value) for value in done[name]}) > 1]
    shown = (varying or labels[:1])[:_MOST]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = matplotlib.Figure(figsize=(1.0 + 3.2 * columns, 0.7 + 2.7 * rows), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    best = result.best_run
    for axis, name in zip(axes.flat, shown, strict=False):
        _draw(axis, done, name, result.criterion, best)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel(_TITLES[result.criterion])
    handles, texts = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, texts, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9
    )
    return figure


def _draw(axis: Any, done: pd.DataFrame, name: str, criterion: str, best: int) -> None:
    heights = done[criterion].to_numpy(dtype=float)
    places = _places(axis, done[name].tolist())
    axis.plot(
        places, heights, "o", color=BLUE, markersize=4.5, alpha=0.7, markeredgewidth=0, label="runs"
    )
    if criterion == "risk":
        axis.errorbar(
            places,
            heights,
            yerr=done["risk_std_error"].to_numpy(dtype=float),
            fmt="none",
            ecolor=GREY,
            alpha=0.35,
            linewidth=0.8,
            zorder=1,
        )
        axis.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    chosen = (done["run"] == best).to_numpy()
    axis.plot(
        places[chosen], heights[chosen], "D", color=ORANGE, markersize=7, label="best", zorder=4
    )
    axis.set_xlabel(name.replace("_", " "))
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8.5)


def _places(axis: Any, values: list[Any]) -> np.ndarray[Any, Any]:
    """Place of every run on the axis of an option."""
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    different: list[Any] = sorted(set(values)) if numbers else list(dict.fromkeys(map(str, values)))
    if numbers and len(different) > _FEW:
        if different[0] > 0 and different[-1] > 100 * different[0]:
            axis.set_xscale("log")
        return np.asarray(values, dtype=float)
    texts = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in different]
    slanted = max(map(len, texts)) * len(texts) > 28
    axis.set_xticks(
        range(len(different)),
        texts,
        rotation=35 if slanted else 0,
        ha="right" if slanted else "center",
    )
    axis.set_xlim(-0.6, len(different) - 0.4)
    keys = values if numbers else [str(v) for v in values]
    centres = np.array([different.index(key) for key in keys], dtype=float)
    share = np.linspace(-_JITTER, _JITTER, len(values)) if len(values) > len(different) else 0.0
    return np.asarray(centres + share)
