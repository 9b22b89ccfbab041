"""The figure of a sensitivity analysis over priors: `prior_sensitivity_figure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._optional import import_extra

if TYPE_CHECKING:
    from mrfast.bayes.sensitivity import PriorSensitivity

__all__ = ["prior_sensitivity_figure"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito: safe for colour blindness
_GREY = "#555555"


def prior_sensitivity_figure(sensitivity: PriorSensitivity) -> Any:
    """Posterior medians with 95% intervals, one prior a row.

    Parameters
    ----------
    sensitivity : PriorSensitivity

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the sensitivity figure")
    table = sensitivity.table
    kinds = list(dict.fromkeys(table["prior"]))
    height = 1.4 + 0.27 * (len(table) + 1.2 * len(kinds))
    figure = matplotlib.Figure(figsize=(8.6, height), dpi=150)
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    ticks: list[tuple[float, str]] = []
    place = 0.0
    for index, kind in enumerate(kinds):
        rows = table[table["prior"] == kind]
        colour = _COLOURS[index % len(_COLOURS)]
        title = {"default": "default prior", "MASSIVE's": "MASSIVE's prior"}.get(kind, kind)
        axis.text(
            0.0, place, title, color=colour, fontweight="bold", va="center", ha="left",
            transform=axis.get_yaxis_transform(),
        )  # fmt: skip
        place += 1.0
        first = rows.iloc[0]
        axis.fill_betweenx(
            [place - 0.5, place + len(rows) - 0.5],
            first["ci_lower"],
            first["ci_upper"],
            color=colour,
            alpha=0.08,
            linewidth=0,
        )
        for _, row in rows.iterrows():
            axis.plot([row["ci_lower"], row["ci_upper"]], [place, place], color=colour, lw=1.6)
            several = row["second_mode_probability"] > 0.05
            axis.plot(
                row["estimate"],
                place,
                "o",
                color=colour,
                ms=5.5,
                mfc="white" if several else colour,
            )
            ticks.append((place, str(row["setting"])))
            place += 1.0
        place += 0.3
    axis.axvline(0.0, color=_GREY, lw=0.8, ls=(0, (4, 3)))
    axis.set_ylim(place - 0.3, -0.7)
    axis.set_yticks([tick for tick, _ in ticks], [label for _, label in ticks], fontsize=9)
    axis.tick_params(axis="y", length=0)
    low = float(np.min([table["ci_lower"].min(), 0.0]))
    high = float(np.max([table["ci_upper"].max(), 0.0]))
    axis.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    result = next(iter(sensitivity.results.values()))
    axis.set_xlabel(result.scale)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    if (table["second_mode_probability"] > 0.05).any():
        axis.set_title("open circle: several peaks", fontsize=9, color=_GREY, loc="right")
    return figure
