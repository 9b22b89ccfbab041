"""The figure of estimates by site, pooled, or with one site left out: `forest_figure`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast._validation import fail
from mrfast.plots.colours import BLUE, GREY
from mrfast.plots.federated_profiles import (
    EXPOSURE_SCALE,
    checked_set,
    number_texts,
    odds_ratio_axis,
    set_text,
)

if TYPE_CHECKING:
    from mrfast.federated.estimate import FederatedEstimate

__all__ = ["ForestRow", "forest_figure", "left_out_figure", "site_forest_figure"]

_DARK = "#1A1A1A"
_BAND = "#E3E3E3"
_CHARACTER = 0.082  # inches
_ROW = 0.34  # inches
_LONGEST = 34  # characters of a label
_WIDE = 2.5  # times the median half width, beyond which intervals end in an arrow


class ForestRow(NamedTuple):
    """One line of the forest.

    Attributes
    ----------
    label : str
    estimate : float
        Infinite where there is no maximum.
    confidence_set : sequence of (lower, upper)
        Ascending intervals, infinite ends allowed.
    cases, controls : int, optional
    weight : float, optional
        Of a site, on any scale: the area of its square.
    pooled : bool
        Drawn as a diamond.
    """

    label: str
    estimate: float
    confidence_set: Sequence[tuple[float, float]]
    cases: int | None = None
    controls: int | None = None
    weight: float | None = None
    pooled: bool = False


def forest_figure(
    rows: Sequence[ForestRow],
    *,
    level: float = 0.95,
    scale: str = EXPOSURE_SCALE,
    band: tuple[float, float] | None = None,
    heading: str = "Site",
    note: str | None = None,
) -> Any:
    """Estimates with their confidence sets, one a line, pooled ones as diamonds below.

    A line that ends in an arrow goes on; a set of two rays has a gap in its line.

    Parameters
    ----------
    rows : sequence of ForestRow
        Pooled ones are put last.
    level : float
        Of the sets.
    scale : str
        What the log odds ratio is per unit of, for the axis.
    band : (lower, upper), optional
        Interval shaded behind all lines, such as that of all sites.
    heading : str
        Of the labels.
    note : str, optional
        Written below, such as the heterogeneity.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        There is nothing to draw, or a set is not one.
    MissingExtraError
        matplotlib is not installed.
    """
    level = check.scalar("level", level, above=0, below=1)
    rows = [*(row for row in rows if not row.pooled), *(row for row in rows if row.pooled)]
    if not rows:
        raise fail("rows", "at least one estimate", "none")
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the forest plot")
    sets = [checked_set(row.confidence_set) for row in rows]
    lower, upper = _axis_limits(rows, sets, band)
    places = np.arange(len(rows), dtype=float)
    places[[row.pooled for row in rows]] += 0.5  # apart from the sites

    counted = any(row.cases is not None for row in rows)
    columns = [[heading, *(_shortened(row.label) for row in rows)]]
    if counted:
        columns.append(["Cases / controls", *(_counts(row) for row in rows)])
    size = min((b - a for pairs in sets for a, b in pairs if 0 < b - a < math.inf), default=None)
    texts = [_result_text(row, pairs, size) for row, pairs in zip(rows, sets, strict=True)]
    results = [f"Estimate ({100 * level:.4g}% set)", *texts]
    left = [_CHARACTER * max(map(len, column)) + 0.15 for column in columns]
    right = _CHARACTER * max(map(len, results)) + 0.15
    plot = 4.6
    height = 1.55 + _ROW * (len(rows) + 1) + (0.25 if note else 0)
    figure = matplotlib.Figure(figsize=(sum(left) + plot + right + 0.4, height), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.05, h_pad=0.06, wspace=0, hspace=0)
    axes = figure.subplots(1, len(left) + 2, width_ratios=[*left, plot, right], sharey=True)
    axis = axes[len(left)]
    for text_axis in (*axes[: len(left)], axes[-1]):
        text_axis.set_axis_off()
    for text_axis, column in zip(axes, [*columns, None, results], strict=True):
        if column is None:
            continue
        for y, text in zip([-1.0, *places], column, strict=True):
            text_axis.text(
                0.0,
                y,
                text,
                va="center",
                fontsize=9.5,
                fontweight="bold" if y < 0 else "normal",
                parse_math=False,
            )
    if band is not None:
        axis.axvspan(max(band[0], lower), min(band[1], upper), color=_BAND, lw=0, zorder=0)
    if lower < 0 < upper:
        axis.axvline(0, color=GREY, lw=0.8, zorder=1)
    axis.set_xlim(lower, upper)
    axis.set_ylim(places[-1] + 0.7, -1.5)
    largest = max((row.weight or 0.0 for row in rows), default=0.0)
    for place, row, intervals in zip(places, rows, sets, strict=True):
        if row.pooled:
            _draw_pooled(axis, float(place), row, intervals)
        else:
            share = 1.0 if not largest or row.weight is None else row.weight / largest
            _draw_site(axis, float(place), row, intervals, share)
    axis.tick_params(axis="y", left=False, labelleft=False)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_xlabel(scale[0].upper() + scale[1:])
    odds_ratio_axis(axis, lower, upper, scale)
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=9.5, color=_DARK, parse_math=False)
    return figure


def site_forest_figure(
    sites: Mapping[str, FederatedEstimate], pooled: Sequence[FederatedEstimate]
) -> Any:
    """Estimates of single sites above those of all of them.

    Parameters
    ----------
    sites : mapping of str to FederatedEstimate
        By site, from its profile alone.
    pooled : sequence of FederatedEstimate
        Of all sites: one effect, random effects, or both. The heterogeneity is that of the first.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidInputError
        There is no estimate of all sites.
    MissingExtraError
        matplotlib is not installed.
    """
    if not pooled:
        raise fail("pooled", "at least one estimate", "none")
    rows = [_row(name, estimate) for name, estimate in sites.items()]
    names = {"fixed": "All sites, one effect", "random": "All sites, random effects"}
    for estimate in pooled:
        name = "All sites" if len(pooled) == 1 else names[estimate.effects]
        rows.append(_row(name, estimate)._replace(pooled=True))
    q = pooled[0].heterogeneity
    note = None
    if q.df > 0:
        note = f"Heterogeneity: Q = {q.Q:.2f} on {q.df} df, p = {q.p:.2g}, I² = {100 * q.I2:.0f}%"
        spread = [estimate.tau for estimate in pooled if estimate.tau is not None]
        note += f", tau = {spread[0]:.3g}" if spread else ""
    return forest_figure(rows, level=pooled[0].ci_level, note=note)


def left_out_figure(left_out: Mapping[str, FederatedEstimate], pooled: FederatedEstimate) -> Any:
    """Estimates without one of the sites, before the interval of all of them.

    Parameters
    ----------
    left_out : mapping of str to FederatedEstimate
        By the site that is not in it.
    pooled : FederatedEstimate
        Of all sites.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    rows = [_row(f"without {name}", estimate) for name, estimate in left_out.items()]
    rows = [row._replace(weight=None) for row in rows]
    rows.append(_row("All sites", pooled)._replace(pooled=True))
    band = pooled.confidence_set[0] if len(pooled.confidence_set) == 1 else None
    return forest_figure(rows, level=pooled.ci_level, band=band, heading="Left out")


def _row(label: str, estimate: FederatedEstimate) -> ForestRow:
    error = estimate.std_error
    return ForestRow(
        label,
        estimate.beta,
        estimate.confidence_set,
        estimate.total_cases,
        estimate.total_controls,
        weight=error**-2 if error > 0 else 0.0,
    )


def _axis_limits(
    rows: Sequence[ForestRow],
    sets: Sequence[Sequence[tuple[float, float]]],
    band: tuple[float, float] | None,
) -> tuple[float, float]:
    """Limits that show what most lines need; the widest end in arrows."""
    single = [intervals[0] for intervals in sets if len(intervals) == 1]
    bounded = [(a, b) for a, b in single if math.isfinite(a) and math.isfinite(b)]
    halves = [(b - a) / 2 for a, b in bounded]
    pooled = [row.estimate for row in rows if row.pooled and math.isfinite(row.estimate)]
    estimates = [row.estimate for row in rows if math.isfinite(row.estimate)]
    centre = float(np.median(pooled or estimates)) if estimates else 0.0
    finite = [e for intervals in sets for pair in intervals for e in pair if math.isfinite(e)]
    half = float(np.median(halves)) if halves else max([abs(e - centre) for e in finite] or [1.0])
    reach = _WIDE * half
    ends = [end for pair in (*bounded, *((band,) if band else ())) for end in pair]
    lower = min([centre - half, *(e for e in ends if e >= centre - 2 * reach)])
    upper = max([centre + half, *(e for e in ends if e <= centre + 2 * reach)])
    for estimate in estimates:
        if abs(estimate - centre) <= 2 * reach:
            lower, upper = min(lower, estimate - half / 2), max(upper, estimate + half / 2)
    if centre - 2 * reach <= 0 <= centre + 2 * reach:
        lower, upper = min(lower, 0.0), max(upper, 0.0)
    margin = 0.06 * (upper - lower)
    return lower - margin, upper + margin


def _draw_line(
    axis: Any, place: float, intervals: Sequence[tuple[float, float]], color: str, width: float
) -> None:
    """Line through a set, with arrows where it leaves the axis."""
    lower, upper = axis.get_xlim()
    for start, end in intervals:
        first, last = max(start, lower), min(end, upper)
        if first < last:
            axis.plot([first, last], [place, place], color=color, lw=width, zorder=2)
        for beyond, edge, inward in ((start < lower, lower, 1), (end > upper, upper, -1)):
            if beyond:
                axis.annotate(
                    "",
                    (edge, place),
                    (edge + inward * 0.045 * (upper - lower), place),
                    arrowprops={"arrowstyle": "-|>", "color": color, "lw": width},
                    annotation_clip=False,
                    zorder=3,
                )


def _draw_site(
    axis: Any,
    place: float,
    row: ForestRow,
    intervals: Sequence[tuple[float, float]],
    share: float,
) -> None:
    _draw_line(axis, place, intervals, BLUE, 1.6)
    lower, upper = axis.get_xlim()
    if lower <= row.estimate <= upper:
        size = 4.5 + 6.5 * math.sqrt(max(share, 0.0))
        axis.plot(row.estimate, place, "s", color=BLUE, ms=size, mec="white", mew=0.8, zorder=4)


def _draw_pooled(
    axis: Any, place: float, row: ForestRow, intervals: Sequence[tuple[float, float]]
) -> None:
    """Diamond over a bounded interval; line and small diamond otherwise."""
    lower, upper = axis.get_xlim()
    bounded = len(intervals) == 1 and lower <= intervals[0][0] and intervals[0][1] <= upper
    if bounded:
        start, end = intervals[0]
        axis.fill(
            [start, row.estimate, end, row.estimate],
            [place, place - 0.27, place, place + 0.27],
            facecolor=_DARK,
            edgecolor=_DARK,
            zorder=4,
        )
        return
    _draw_line(axis, place, intervals, _DARK, 2.2)
    if lower <= row.estimate <= upper:
        axis.plot(row.estimate, place, "D", color=_DARK, ms=7, mec="white", mew=0.8, zorder=4)


def _result_text(
    row: ForestRow, intervals: Sequence[tuple[float, float]], size: float | None
) -> str:
    finite = math.isfinite(row.estimate)
    estimate = number_texts([row.estimate], size)[0] if finite else "no maximum"
    return f"{estimate} ({set_text(intervals, size)})"


def _counts(row: ForestRow) -> str:
    parts = ["n/a" if count is None else f"{count:,}" for count in (row.cases, row.controls)]
    return "" if row.cases is None and row.controls is None else " / ".join(parts)


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
