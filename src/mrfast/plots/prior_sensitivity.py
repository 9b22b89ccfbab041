"""The figure of a sensitivity analysis over priors: `prior_sensitivity_figure`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from mrfast._optional import import_extra
from mrfast.plots.colours import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from mrfast.bayes.sensitivity import PriorSensitivity

__all__ = ["prior_sensitivity_figure"]

_COLOURS = (BLUE, ORANGE)
_TITLES = {
    "default": "default prior",
    "identified": "identified priors",
    "MASSIVE's": "MASSIVE's prior",
}
_SEVERAL = 0.05  # probability of other peaks, as where `massive` warns
_LINE = 72  # characters of the axis label
_FAR = 2.0  # times the width of all intervals from zero


def prior_sensitivity_figure(sensitivity: PriorSensitivity) -> Any:
    """Posterior medians with 95% intervals, one prior a row.

    The band is the interval under the first prior of each kind. Zero is in view unless it is far.

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
        axis.text(
            0.0,
            place,
            _TITLES.get(kind, kind),
            color=colour,
            fontweight="bold",
            va="center",
            transform=axis.get_yaxis_transform(),
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
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
            several = row["second_mode_probability"] > _SEVERAL
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
    axis.set_ylim(place - 0.3, -0.7)
    axis.set_yticks(
        [tick for tick, _ in ticks],
        [label for _, label in ticks],
        fontsize=9,
        parse_math=False,
    )
    axis.tick_params(axis="y", length=0)
    low, high = float(table["ci_lower"].min()), float(table["ci_upper"].max())
    reach = _FAR * (high - low)
    low, high = (0.0 if 0 < low < reach else low), (0.0 if -reach < high < 0 else high)
    margin = 0.05 * (high - low)
    axis.set_xlim(low - margin, high + margin)
    if low - margin < 0 < high + margin:
        axis.axvline(0.0, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    scale = next(iter(sensitivity.results.values())).scale
    label = f"Causal effect, posterior median and 95% interval: {scale}"
    axis.set_xlabel("\n".join(textwrap.wrap(label, _LINE)))
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    if (table["second_mode_probability"] > _SEVERAL).any():
        axis.set_title("open circle: several peaks", fontsize=9, color=GREY, loc="right")
    return figure
