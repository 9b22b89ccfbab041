"""Figures with one line a SNP: ratios with pooled estimates, and estimates without each SNP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mrfast._optional import import_extra
from mrfast.plots.colours import BLUE, GREY, ORANGE
from mrfast.plots.mr_panel import (
    interval_text,
    method_label,
    method_styles,
    robust_limits,
    wrapped,
)

if TYPE_CHECKING:
    from mrfast.summary.sensitivity_panel import Sensitivity

__all__ = ["left_out_figure", "ratio_figure"]

_DARK = "#1A1A1A"
_BAND = "#E3E3E3"
_LONGEST = 28  # characters of a name
_CHARACTER = 0.085  # inches at 10 points
# Height of a line in inches and size of its letters, by the number of lines.
_SIZES = ((25, 0.27, 9.5), (60, 0.19, 8.0), (120, 0.135, 6.5), (250, 0.1, 5.0))
_SMALLEST = 0.04
_WITHOUT_TEXT = 60  # SNPs beyond which their numbers are not written


class _Line(NamedTuple):
    """One line of the figure."""

    label: str
    estimate: float
    lower: float
    upper: float
    weight: float = 1.0
    color: str = BLUE
    pooled: bool = False


def ratio_figure(panel: Sensitivity) -> Any:
    """Forest plot: the ratio of each SNP, smallest first, and the methods' estimates below.

    The area of a square is the SNP's weight. A line that ends in an arrow goes on.

    Parameters
    ----------
    panel : Sensitivity

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    single = panel.single_snp[panel.single_snp["method"] == "wald_ratio"]
    single = single[single["estimate"].notna()].sort_values("estimate", kind="stable")
    weight = single["std_error"].to_numpy() ** -2.0
    lines = [
        _Line(str(row["snp"]), row["estimate"], row["ci_lower"], row["ci_upper"], share)
        for row, share in zip(single.to_dict("records"), weight / weight.max(), strict=True)
    ]
    outliers = set() if panel.presso is None else {panel.snps[i] for i in panel.presso.outliers}
    lines = [line._replace(color=ORANGE) if line.label in outliers else line for line in lines]
    note = f"Orange: outlier{'s' * (len(outliers) > 1)} by MR-PRESSO" if outliers else None
    return _drawn(
        [*lines, *_pooled(panel)],
        level=panel.ci_level,
        heading="SNP",
        xlabel=f"Effect of {panel.exposure} on {panel.outcome}, by SNP",
        note=note,
    )


def left_out_figure(panel: Sensitivity) -> Any:
    """Estimates without each SNP, smallest first, and that of all SNPs as a band.

    Orange where the interval, other than that of all SNPs, contains 0 or does not.

    Parameters
    ----------
    panel : Sensitivity

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    table = panel.leave_one_out
    whole = table.iloc[-1]
    single = table.iloc[:-1]
    single = single[single["estimate"].notna()].sort_values("estimate", kind="stable")
    contains = whole["ci_lower"] <= 0 <= whole["ci_upper"]
    lines = [
        _Line(
            f"without {row['snp']}",
            row["estimate"],
            row["ci_lower"],
            row["ci_upper"],
            0.5,
            color=BLUE if (row["ci_lower"] <= 0 <= row["ci_upper"]) == contains else ORANGE,
        )
        for row in single.to_dict("records")
    ]
    name = str(whole["method"])
    lines.append(
        _Line("All SNPs", whole["estimate"], whole["ci_lower"], whole["ci_upper"], pooled=True,
              color=_DARK)
    )  # fmt: skip
    changed = sum(line.color == ORANGE for line in lines)
    what = "contains" if not contains else "does not contain"
    return _drawn(
        lines,
        level=panel.ci_level,
        heading="Left out",
        xlabel=f"Effect of {panel.exposure} on {panel.outcome} ({method_label(name).lower()})"
        if name != "ivw"
        else f"Effect of {panel.exposure} on {panel.outcome} (inverse-variance weighted)",
        band=(whole["ci_lower"], whole["ci_upper"]),
        note=f"Orange: the interval {what} 0, unlike that of all SNPs" if changed else None,
    )


def _pooled(panel: Sensitivity) -> list[_Line]:
    rows = panel.effects.to_dict("records")
    styles = method_styles([row["method"] for row in rows])
    return [
        _Line(
            method_label(row["method"]), row["estimate"], row["ci_lower"], row["ci_upper"],
            color=styles[row["method"]][0], pooled=True,
        )
        for row in rows
    ]  # fmt: skip


def _drawn(
    lines: list[_Line],
    *,
    level: float,
    heading: str,
    xlabel: str,
    band: tuple[float, float] | None = None,
    note: str | None = None,
) -> Any:
    """Names on the left, intervals in the middle, numbers on the right."""
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the forest plot")
    single = [line for line in lines if not line.pooled]
    pooled = [line for line in lines if line.pooled]
    row, size = next(
        ((height, points) for most, height, points in _SIZES if len(single) <= most),
        (_SMALLEST, 0.0),
    )
    unit = 0.27 / row  # lines of a pooled row
    places = [float(i) for i in range(len(single))]
    first = (places[-1] if places else 0.0) + 0.75 + 0.5 * unit
    places += [first + i * unit for i in range(len(pooled))]
    bottom = places[-1] + 0.6 * unit
    text = len(single) <= _WITHOUT_TEXT
    labels = [_shortened(line.label) for line in lines]
    numbers = [interval_text(line.estimate, line.lower, line.upper) for line in lines]
    name_width = max(
        [len(label) * _CHARACTER * (9.5 if line.pooled else size) / 10
         for label, line in zip(labels, lines, strict=True)] + [0.9]
    ) + 0.15  # fmt: skip
    number_width = max(len(one) for one in numbers) * _CHARACTER * 0.95 + 0.2
    height = 0.95 + row * (bottom + 1.2 * unit) + (0.25 if note else 0)
    width = name_width + 4.4 + number_width
    figure = matplotlib.Figure(figsize=(width, height), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.05, h_pad=0.05, wspace=0, hspace=0)
    left, axis, right = figure.subplots(
        1, 3, width_ratios=[name_width, 4.4, number_width], sharey=True
    )
    for beside in (left, right):
        beside.set_axis_off()
        beside.set_xlim(0, 1)
    lower, upper = _limits(single, pooled, band)
    axis.set_xlim(lower, upper)
    axis.set_ylim(bottom, -1.3 * unit)
    left.text(0, -0.8 * unit, heading, va="center", fontsize=9.5, fontweight="bold")
    right.text(0.03, -0.8 * unit, f"Estimate ({100 * level:.4g}% interval)", va="center",
               fontsize=9.5, fontweight="bold")  # fmt: skip
    for place, line, label, number in zip(places, lines, labels, numbers, strict=True):
        points = 9.5 if line.pooled else size
        if points:
            left.text(0, place, label, va="center", fontsize=points, parse_math=False)
        if line.pooled or text:
            right.text(0.03, place, number, va="center", fontsize=points)
        (_draw_pooled if line.pooled else _draw_single)(axis, place, line, row, unit)
    if band is not None:
        across = [max(band[0], lower), min(band[1], upper)]
        axis.fill_betweenx([-0.45 * unit, bottom], *across, color=_BAND, lw=0, zorder=0)
    if lower < 0 < upper:
        axis.plot([0, 0], [-0.45 * unit, bottom], color=GREY, lw=0.8, zorder=1)
    if single and pooled:
        axis.axhline(places[len(single) - 1] + 0.5 + 0.12 * unit, color=GREY, lw=0.5)
    axis.tick_params(axis="y", left=False, labelleft=False)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_xlabel(wrapped(xlabel, 52), parse_math=False)
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=9, color=_DARK)
    return figure


def _limits(
    single: list[_Line], pooled: list[_Line], band: tuple[float, float] | None
) -> tuple[float, float]:
    """Limits that show most SNPs, all estimates of methods and 0, if it is near."""
    lines = single or pooled
    values = np.array([line.estimate for line in lines])
    errors = np.array([(line.upper - line.lower) / 2 for line in lines])
    always = [line.estimate for line in pooled]
    always += list(band) if band else []
    low, high = robust_limits(values, errors, always, reach=3.0)
    if low - 1.5 * (high - low) <= 0 <= high + 1.5 * (high - low):
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.03 * (high - low)
    return low - margin, high + margin


def _draw_single(axis: Any, place: float, line: _Line, row: float, unit: float) -> None:
    thick = 1.3 if row > 0.15 else 0.8
    _interval(axis, place, line, thick)
    lower, upper = axis.get_xlim()
    if lower <= line.estimate <= upper:
        largest = min(7.5, 0.55 * row * 72)
        axis.plot(
            line.estimate, place, "s", color=line.color, mew=0, zorder=4,
            ms=max(2.8 if row > 0.15 else 2.0, largest * math.sqrt(line.weight)),
        )  # fmt: skip


def _draw_pooled(axis: Any, place: float, line: _Line, row: float, unit: float) -> None:
    lower, upper = axis.get_xlim()
    if lower <= line.lower and line.upper <= upper:
        axis.fill(
            [line.lower, line.estimate, line.upper, line.estimate],
            [place, place - 0.28 * unit, place, place + 0.28 * unit],
            facecolor=line.color,
            edgecolor=line.color,
            zorder=4,
        )
        return
    _interval(axis, place, line, 2.0)
    axis.plot(line.estimate, place, "D", color=line.color, ms=6, mec="white", mew=0.7, zorder=4)


def _interval(axis: Any, place: float, line: _Line, thick: float) -> None:
    """Line through the interval, with arrows where it leaves the axis."""
    lower, upper = axis.get_xlim()
    start, end = max(line.lower, lower), min(line.upper, upper)
    if start < end:
        axis.plot([start, end], [place, place], color=line.color, lw=thick, zorder=2,
                  solid_capstyle="butt")  # fmt: skip
    for beyond, edge, mark in (
        (line.lower < lower, lower, "<"),
        (line.upper > upper, upper, ">"),
    ):
        if beyond:
            axis.plot(edge, place, mark, color=line.color, ms=2.5 + 1.3 * thick, clip_on=False,
                      mew=0, zorder=3)  # fmt: skip


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
