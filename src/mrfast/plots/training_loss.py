"""The figure of losses over the epochs of a training: `training_loss_figure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast.plots.colours import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["training_loss_figure"]

_NEEDED = ("stage", "member", "epoch", "training_loss", "validation_loss")


def training_loss_figure(history: pd.DataFrame) -> Any:
    """Draw the losses by epoch, a panel for each stage.

    Parameters
    ----------
    history : DataFrame
        ``training_history_`` of a fitted network estimator: stage, member, epoch, training_loss,
        validation_loss. Several members are drawn as thin lines, the dots are their best epochs.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        A column is not there, or there is no row.
    MissingExtraError
        matplotlib is not installed (plot extra).
    """
    lacking = [name for name in _NEEDED if name not in getattr(history, "columns", ())]
    if lacking or not len(history):
        raise check.fail("history", f"rows with {', '.join(_NEEDED)}", lacking[:1] or "no row")
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the losses' figure")
    stages = list(dict.fromkeys(history["stage"]))
    figure = matplotlib.Figure(figsize=(0.6 + 4.0 * len(stages), 3.4), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, len(stages), squeeze=False)
    for axis, stage in zip(axes.flat, stages, strict=True):
        _draw(axis, history[history["stage"] == stage], str(stage))
    handles, texts = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw(axis: Any, rows: pd.DataFrame, stage: str) -> None:
    members = list(dict.fromkeys(rows["member"]))
    weight, shade = (1.6, 1.0) if len(members) == 1 else (0.8, 0.45)
    low, high = np.inf, -np.inf
    for place, member in enumerate(members):
        own = rows[rows["member"] == member].sort_values("epoch")
        epoch = own["epoch"].to_numpy(dtype=float)
        for column, colour, text in (
            ("training_loss", GREY, "training"),
            ("validation_loss", BLUE, "validation"),
        ):
            loss = own[column].to_numpy(dtype=float)
            label = text if place == 0 else None
            axis.plot(epoch, loss, color=colour, linewidth=weight, alpha=shade, label=label)
        validation = own["validation_loss"].to_numpy(dtype=float)
        finite = np.isfinite(validation)
        if finite.any():
            best = int(np.nanargmin(np.where(finite, validation, np.nan)))
            axis.plot(
                epoch[best],
                validation[best],
                "o",
                color=ORANGE,
                markersize=5,
                label="best epoch" if place == 0 else None,
                zorder=3,
            )
            low = min(low, float(validation[finite].min()))
            later = validation[finite & (epoch >= min(3, epoch.max()))]
            high = max(high, float(later.max()) if later.size else low)
    if np.isfinite(low) and low < high:  # the first epochs would flatten the rest
        training = rows["training_loss"].to_numpy(dtype=float)
        settled = training[np.isfinite(training) & (rows["epoch"].to_numpy() >= 3)]
        if settled.size:
            low, high = min(low, float(settled.min())), max(high, float(settled.max()))
        axis.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axis.set_title(stage.replace("_", " "), fontsize=10)
    axis.set_xlabel("Epoch")
    axis.set_ylabel("Loss")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8.5)
