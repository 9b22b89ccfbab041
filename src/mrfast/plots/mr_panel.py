"""Figures of one exposure and one outcome: scatter, funnel and radial plot.

The forest and leave-one-out plots are in `snp_forest`.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._optional import import_extra
from mrfast._validation import Float, fail
from mrfast.plots.colours import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mrfast.summary.radial_regression import RadialEstimate
    from mrfast.summary.sensitivity_panel import Sensitivity

__all__ = [
    "draw",
    "funnel_figure",
    "interval_text",
    "method_label",
    "method_styles",
    "radial_figure",
    "robust_limits",
    "scatter_figure",
    "wrapped",
]

# Okabe and Ito; with dashes, so that lines differ without colour, too
_STYLES = {
    "ivw": (BLUE, "-"),
    "egger": (ORANGE, (0, (6, 2))),
    "weighted_median": ("#009E73", (0, (3, 1.5))),
    "weighted_mode": ("#CC79A7", (0, (5, 1.5, 1, 1.5))),
    "constrained_ml": ("#000000", (0, (1, 1.2))),
}
_MORE = (
    ("#E69F00", "-"),
    ("#56B4E9", (0, (6, 2))),
    ("#000000", (0, (5, 1.5, 1, 1.5))),
    ("#009E73", (0, (1, 1.2))),
    ("#CC79A7", "-"),
    (GREY, (0, (3, 1.5))),
)
_LABELS = {
    "ivw": "Inverse-variance weighted",
    "ivw_fixed": "IVW, fixed effect",
    "ivw_robust": "IVW, robust",
    "ivw_penalised": "IVW, penalised weights",
    "radial_ivw": "Radial IVW",
    "radial_egger": "Radial Egger",
    "debiased_ivw": "Debiased IVW",
    "penalised_ivw": "Penalised IVW",
    "constrained_ml": "Constrained ML",
    "egger_robust": "Egger regression, robust",
    "egger": "Egger regression",
    "mr_presso": "MR-PRESSO",
    "mr_lasso": "MR-Lasso",
    "raps": "RAPS",
    "rucker": "Rücker's framework",
    "wald_ratio": "Wald ratio",
}
_NAMED = 12  # SNPs with their names
_MANY = 60  # SNPs beyond which marks shrink
_POINTS = 400  # of a curve
_LINE = 0.035  # height of a name, in heights of the axis
_LONGEST = 24  # letters of a name
_LETTER = 0.56  # width of a letter, in its size
_HANDLE = 8  # room for the line beside a label, in letters
_BARS = 0.12  # room left of zero for bars, in widths of the axis
_WIDE = 4.0  # reach of an axis, in half widths of most points


def draw(panel: Sensitivity, kind: str) -> Any:
    """The figure of a kind.

    Parameters
    ----------
    panel : Sensitivity
    kind : {"scatter", "forest", "funnel", "leave_one_out", "radial"}

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidInputError
        There is nothing to draw.
    MissingExtraError
        matplotlib is not installed.
    """
    from mrfast.plots.snp_forest import left_out_figure, ratio_figure

    if kind == "radial":
        if panel.radial is None:
            raise fail("kind", "an analysis that was done", f"'radial': {panel.skipped['radial']}")
        return radial_figure(panel.radial, panel.snps)
    figures = {
        "scatter": scatter_figure,
        "forest": ratio_figure,
        "funnel": funnel_figure,
        "leave_one_out": left_out_figure,
    }
    return figures[kind](panel)


def method_label(name: str) -> str:
    """What a figure calls a method."""
    return _LABELS.get(name, name.replace("_", " ").capitalize())


def method_styles(names: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Colour and dashes of each method."""
    styles, spare = {}, 0
    for name in names:
        if name in _STYLES:
            styles[name] = _STYLES[name]
        else:
            styles[name] = _MORE[spare % len(_MORE)]
            spare += 1
    return styles


def interval_text(estimate: float, lower: float, upper: float) -> str:
    """An estimate with its limits, all to the same digit, the third of their distance."""
    width = upper - lower
    if not (math.isfinite(width) and width > 0):
        return f"{estimate:.3g} ({lower:.3g} to {upper:.3g})"
    decimals = min(max(2 - math.floor(math.log10(width)), 0), 12)
    texts = [f"{round(value, decimals) + 0.0:.{decimals}f}" for value in (estimate, lower, upper)]
    return "{} ({} to {})".format(*(text.replace("-", "\N{MINUS SIGN}") for text in texts))


def robust_limits(
    values: Float, errors: Float, always: Sequence[float], *, reach: float = _WIDE
) -> tuple[float, float]:
    """Limits of an axis for most of the values, without the few that lie far out."""
    finite = np.isfinite(values) & np.isfinite(errors)
    values, errors = values[finite], errors[finite]
    inside = [value for value in always if math.isfinite(value)]
    if not len(values):
        low, high = min(inside, default=-1.0), max(inside, default=1.0)
    else:
        centre = float(np.median(values))
        spread = float(np.median(np.abs(values - centre)))
        half = reach * max(1.4826 * spread, float(np.median(errors)))
        ends = np.concatenate([values - errors, values + errors])
        low = min([max(centre - half, float(ends.min())), *inside])
        high = max([min(centre + half, float(ends.max())), *inside])
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _figure(purpose: str, labels: int = 6) -> tuple[Any, Any]:
    """A figure with room for so many labels in two columns below it, and its axis."""
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose=purpose)
    height = 4.8 + 0.19 * ((labels + 1) // 2)
    figure = matplotlib.Figure(figsize=(7.2, height), dpi=150)
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _legend(figure: Any, handles: int) -> None:
    """Labels below the axis, in two columns, in letters small enough for them."""
    labels = [label for axis in figure.axes for label in axis.get_legend_handles_labels()[1]]
    columns = 1 if handles < 3 else 2
    rows = -(-len(labels) // columns)
    parts = [labels[i : i + rows] for i in range(0, len(labels), rows)]
    letters = sum(max(map(len, part)) for part in parts) + _HANDLE * len(parts)
    size = min(9.0, 72 * figure.get_figwidth() / (_LETTER * letters))
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=size)
    for text in legend.get_texts():
        text.set_parse_math(False)


def wrapped(text: str, letters: int) -> str:
    """Lines of at most so many letters."""
    return textwrap.fill(text, letters)


def _name_points(
    axis: Any, x: Float, y: Float, names: Sequence[str], places: Sequence[int]
) -> None:
    """Names beside points, where least is in the way; those without room are left out."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    across, up = (x - left) / (right - left), (y - bottom) / (top - bottom)
    taken: list[tuple[float, float, float]] = []  # left lower corners, widths; shares of the axis
    for i in places:
        name = names[i] if len(names[i]) <= _LONGEST else names[i][: _LONGEST - 1] + "…"
        wide = 0.0115 * len(name) + 0.01
        corners = []
        for turn, (step, level, side) in enumerate(itertools.product((0, 1, 2), (1, -1), (1, -1))):
            u = across[i] + (0.012 if side > 0 else -0.012 - wide)
            v = up[i] + level * (0.01 + step * _LINE) - (_LINE if level < 0 else 0.0)
            close = (across > u - 0.006) & (across < u + wide + 0.006)
            points = (close & (up > v - 0.008) & (up < v + _LINE + 0.008)).sum()
            beyond = u < 0 or u + wide > 1 or v < 0 or v + _LINE > 1
            free = not beyond and all(
                u + wide < a or a + w < u or abs(v - b) >= _LINE for a, b, w in taken
            )
            if free:
                corners.append((points + 0.5 * step, turn, u, v, step, side))
        if not corners:
            continue
        _, _, u, v, step, side = min(corners)
        taken.append((u, v, wide))
        edge = u if side > 0 else u + wide
        if step:
            axis.plot(
                [across[i], edge], [up[i], v + _LINE / 2], color=ORANGE, lw=0.5,
                transform=axis.transAxes, zorder=5,
            )  # fmt: skip
        axis.text(
            edge, v, name, ha="left" if side > 0 else "right", va="bottom", fontsize=8,
            color=ORANGE, transform=axis.transAxes, parse_math=False, zorder=6,
        )  # fmt: skip


def _marked(panel: Sensitivity) -> tuple[tuple[int, ...], str]:
    """Outliers, and by what they are."""
    if panel.presso is not None:
        return panel.presso.outliers, "MR-PRESSO outlier"
    if panel.radial is not None:
        return panel.radial.outliers, "Outlier (radial)"
    return (), ""


def scatter_figure(panel: Sensitivity) -> Any:
    """Associations of the SNPs with both traits, and a line for each method.

    Alleles are those that raise the exposure. Bars are one standard error times the normal
    quantile of `ci_level`.

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
    figure, axis = _figure("the scatter plot", 2 + len(panel.effects))
    table = panel.associations
    raw, y = table["beta_exposure"].to_numpy(), table["beta_outcome"].to_numpy()
    x, y = np.abs(raw), np.where(raw < 0, -y, y)
    reach = _reach(panel)
    half_y = reach * table["se_outcome"].to_numpy()
    half_x = reach * table["se_exposure"].to_numpy() if "se_exposure" in table else 0 * x
    many = len(x) > _MANY
    outliers, what = _marked(panel)
    marked = np.isin(np.arange(len(x)), outliers)
    axis.errorbar(
        x, y, yerr=half_y, xerr=half_x, fmt="none", ecolor=GREY,
        elinewidth=0.5 if many else 0.8, alpha=0.3 if many else 0.55, zorder=1,
    )  # fmt: skip
    axis.plot(x[~marked], y[~marked], "o", color="#333333", ms=3.2 if many else 5, zorder=3,
              mec="white", mew=0.5, label="SNP")  # fmt: skip
    if marked.any():
        axis.plot(x[marked], y[marked], "D", color=ORANGE, ms=5 if many else 6.5, zorder=4,
                  mec="white", mew=0.6, label=what)  # fmt: skip
    right = float((x + np.minimum(half_x, x.max() / 2)).max())
    left = max(min(0.0, float((x - half_x).min())), -_BARS * right)
    bar = np.minimum(half_y, 1.8 * np.median(half_y))  # the end of a long one may stay outside
    low, high = min(0.0, float((y - bar).min())), max(0.0, float((y + bar).max()))
    rows = panel.effects.to_dict("records")
    styles = method_styles([row["method"] for row in rows])
    line = np.array([0.0, 1.04 * right])
    for row in rows:
        start = row["intercept"] if row["method"].startswith("egger") else 0.0
        start = 0.0 if math.isnan(start) else start
        color, dashes = styles[row["method"]]
        text = interval_text(row["estimate"], row["ci_lower"], row["ci_upper"])
        text = f"{method_label(row['method'])}: {text}"
        axis.plot(line, start + row["estimate"] * line, color=color, ls=dashes, lw=1.8, zorder=2,
                  label=text)  # fmt: skip
    axis.axhline(0, color=GREY, lw=0.7, zorder=0)
    axis.axvline(0, color=GREY, lw=0.7, zorder=0)
    axis.set_xlim(left - 0.02 * (right - left), 1.04 * right)
    axis.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    largest = sorted(outliers, key=lambda i: -abs(y[i]))[:_NAMED]
    _name_points(axis, x, y, panel.snps, largest)
    axis.set_xlabel(wrapped(f"SNP association with {panel.exposure}", 72), parse_math=False)
    axis.set_ylabel(wrapped(f"SNP association with {panel.outcome}", 42), parse_math=False)
    _legend(figure, len(rows) + 2)
    return figure


def funnel_figure(panel: Sensitivity) -> Any:
    """Ratio of each SNP against its precision, the estimates as vertical lines.

    Between the dotted curves lie the shares of `ci_level` of valid SNPs, about the first method.
    SNPs beyond the axis are triangles at its border.

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
    figure, axis = _figure("the funnel plot", 3 + len(panel.effects))
    ratio = panel.funnel["estimate"].to_numpy()
    precision = panel.funnel["precision"].to_numpy()
    error = panel.funnel["std_error"].to_numpy()
    rows = panel.effects.to_dict("records")
    estimates = [row["estimate"] for row in rows]
    low, high = robust_limits(ratio, 0 * error, [*estimates, 0.0], reach=5.0)
    top = 1.06 * float(precision.max())
    styles = method_styles([row["method"] for row in rows])
    many = len(ratio) > _MANY
    outliers, what = _marked(panel)
    marked = np.isin(np.arange(len(ratio)), outliers)
    outside = (ratio < low) | (ratio > high)
    for mask, shape, color, size, label in (
        (~marked & ~outside, "o", "#333333", 3.5 if many else 5.5, "SNP"),
        (marked & ~outside, "D", ORANGE, 5 if many else 6.5, what),
    ):
        if mask.any():
            axis.plot(ratio[mask], precision[mask], shape, color=color, ms=size, mec="white",
                      mew=0.5, zorder=3, label=label)  # fmt: skip
    if rows:
        height = np.linspace(top / _POINTS, top, _POINTS)
        for sign in (-1, 1):
            axis.plot(
                estimates[0] + sign * _reach(panel) / height, height, color=GREY, lw=1, ls=":",
                label=f"{100 * panel.ci_level:g}% of valid SNPs" if sign > 0 else None,
            )  # fmt: skip
    for row in rows:
        color, dashes = styles[row["method"]]
        axis.axvline(row["estimate"], color=color, ls=dashes, lw=1.6, zorder=2,
                     label=method_label(row["method"]))  # fmt: skip
    for i in np.flatnonzero(outside):
        left = ratio[i] < low
        axis.plot(low if left else high, precision[i], "<" if left else ">", ms=5, clip_on=False,
                  color=ORANGE if marked[i] else "#333333", zorder=3)  # fmt: skip
    axis.axvline(0, color=GREY, lw=0.7, zorder=0)
    axis.set_xlim(low, high)
    axis.set_ylim(0, top)
    shown = np.clip(ratio, low, high)
    largest = sorted(outliers, key=lambda i: -precision[i])[:_NAMED]
    _name_points(axis, shown, precision, panel.snps, largest)
    axis.set_xlabel("Ratio estimate of each SNP")
    axis.set_ylabel("Precision (1 / standard error)")
    _legend(figure, len(rows) + 3)
    return figure


def radial_figure(result: RadialEstimate, snps: Sequence[str] | None = None) -> Any:
    """Radial plot: the slope from the origin to a SNP is its ratio, the distance its weight.

    The scale on the right reads off ratios. Outliers are marked.

    Parameters
    ----------
    result : RadialEstimate
    snps : sequence of str, optional
        Names; positions otherwise.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    figure, axis = _figure("the radial plot", 4)
    ticker = import_extra("matplotlib.ticker", extra="plot", purpose="the radial plot")
    x = np.sqrt(result.ratio_weight)
    y = result.ratio * x
    names = [str(i) for i in range(len(x))] if snps is None else list(snps)
    marked = np.isin(np.arange(len(x)), result.outliers)
    many = len(x) > _MANY
    right = float(x.max())
    start = 0.0 if math.isnan(result.intercept) else result.intercept
    span = max(float(np.abs(y).max()), abs(start) + abs(result.estimate) * right) or 1.0
    for i in np.flatnonzero(marked):
        axis.plot([0, x[i]], [0, y[i]], color=ORANGE, lw=0.8, alpha=0.6, zorder=1)
    axis.plot(x[~marked], y[~marked], "o", color="#333333", ms=3.5 if many else 5.5, mec="white",
              mew=0.5, zorder=3, label="SNP")  # fmt: skip
    if marked.any():
        axis.plot(x[marked], y[marked], "D", color=ORANGE, ms=5 if many else 6.5, mec="white",
                  mew=0.6, zorder=4, label="Outlier")  # fmt: skip
    name = "ivw" if result.regression == "ivw" else "egger"
    color, dashes = _STYLES[name]
    line = np.array([0.0, 1.02 * right])
    for sign in (-1, 0, 1):
        shift = sign * _quantile(result.ci_level)
        axis.plot(
            line, start + shift + result.estimate * line, color=color if sign == 0 else GREY,
            ls=dashes if sign == 0 else ":", lw=1.8 if sign == 0 else 1, zorder=2,
            label=f"Radial {method_label(name)[0].lower()}{method_label(name)[1:]}: "
            f"{interval_text(result.estimate, result.ci_lower, result.ci_upper)}"
            if sign == 0
            else f"{100 * result.ci_level:g}% of valid SNPs"
            if sign > 0
            else None,
        )  # fmt: skip
    outermost = float(np.sqrt((x / right) ** 2 + (y / span) ** 2).max())
    wide = 1.08 * outermost * right
    _ratio_scale(axis, ticker, x, y, wide, 1.08 * outermost * span, result.estimate)
    axis.axhline(0, color=GREY, lw=0.7, zorder=0)
    largest = sorted(result.outliers, key=lambda i: -result.contributions[i])[:_NAMED]
    axis.set_xlim(0, 1.1 * wide)
    _name_points(axis, x, y, names, largest)
    axis.set_xlabel("Root of the weight")
    axis.set_ylabel("Ratio times the root of the weight")
    _legend(figure, 4)
    return figure


def _ratio_scale(
    axis: Any, ticker: Any, x: Float, y: Float, wide: float, high: float, estimate: float
) -> None:
    """An arc beyond the points with ratios on it."""

    def place(ratio: Any) -> tuple[Any, Any]:
        across = 1 / np.sqrt(1 / wide**2 + (ratio / high) ** 2)
        return across, ratio * across

    strong = x >= 0.25 * x.max()
    ratios = np.append(y[strong] / x[strong], [0.0, estimate])
    low, high_ratio = float(ratios.min()), float(ratios.max())
    margin = 0.1 * (high_ratio - low) or 1.0
    curve = place(np.linspace(low - margin, high_ratio + margin, _POINTS))
    axis.plot(*curve, color=GREY, lw=1, zorder=1)
    ticks = ticker.MaxNLocator(7).tick_values(low - margin, high_ratio + margin)
    for tick in ticks:
        if low - margin <= tick <= high_ratio + margin:
            across, up = place(tick)
            axis.plot([0.99 * across, across], [0.99 * up, up], color=GREY, lw=1)
            text = f"{tick:.4g}".replace("-", "\N{MINUS SIGN}")
            axis.annotate(
                text, (across, up), xytext=(4 + 4 * across / wide, 9 * up / high),
                textcoords="offset points", va="center", fontsize=8, color=GREY,
            )  # fmt: skip


def _quantile(level: float) -> float:
    from scipy.special import ndtri

    return -float(ndtri((1 - level) / 2))


def _reach(panel: Sensitivity) -> float:
    return _quantile(panel.ci_level)
