"""The figure of causal curves over the exposure's histogram: `plot_causal_curve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast._validation import Float
from mrfast.plots.colours import GREY, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mrfast.nonlinear.causal_curve import CausalContrast, CausalCurve
    from mrfast.nonlinear.estimator import InstrumentalVariableEstimator

__all__ = ["plot_causal_curve"]

_POINTS = 301
_PREFERRED = ("uniform", "bootstrap", "pointwise")
_STRIP = 0.16  # share of the height that the histogram takes
_BEYOND = 1.5  # ranges of the estimates by which limits may widen the axis on each side


@dataclass
class _Line:
    """One curve to draw; `core` is where it is drawn solid, None for all of it."""

    name: str
    x: Float
    estimate: Float
    limits: tuple[Float, Float] | None
    text: str
    core: tuple[float, float] | None = None


def plot_causal_curve(
    *curves: InstrumentalVariableEstimator | CausalCurve,
    ax: Axes | None = None,
    interval: str | None = None,
    level: float = 0.95,
    reference: float | None = None,
    labels: Sequence[str] | None = None,
    true_effect: Callable[[Float], Any] | None = None,
    exposure: str = "Exposure",
    outcome: str | None = None,
) -> Axes:
    """Draw causal curves with their limits; below them the exposure's histogram.

    A fitted estimator is drawn over the central 99% of its exposure: solid and with limits over
    the central 95%, dashed beyond. Limits beyond the axis are cut off.

    Parameters
    ----------
    *curves : InstrumentalVariableEstimator or CausalCurve
    ax : matplotlib Axes, optional
        Made if it is not given; its figure is then not registered with pyplot.
    interval : str, optional
        Kind of limits of the estimators, one of their ``curve_.intervals``. By default the first
        of "uniform", "bootstrap" and "pointwise" that each has; conformal intervals, which are
        for outcomes and not for the curve, are drawn on request only. "none" draws none.
    level : float
        Their nominal coverage.
    reference : float, optional
        Draw differences from the curve at this value, of estimators.
    labels : sequence of str, optional
        Names for the legend.
    true_effect : callable, optional
        A known truth, drawn dashed.
    exposure, outcome : str
        Labels of the axes.

    Returns
    -------
    matplotlib Axes
        ``axes.figure.savefig("curve.png")`` writes the figure.

    Raises
    ------
    InvalidInputError
        There is no curve, or an argument is not usable.
    MissingExtraError
        matplotlib is not installed (plot extra).
    """
    if not curves:
        raise check.fail("curves", "at least one", "none")
    if labels is not None and (isinstance(labels, str) or len(labels) != len(curves)):
        raise check.fail("labels", f"{len(curves)} names", repr(labels))
    if reference is not None:
        reference = check.scalar("reference", reference)
    level = check.scalar("level", level, above=0.0, below=1.0)
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the causal curve")
    named = list(labels) if labels is not None else _names(curves)
    lines = [
        _line(curve, name, interval, level, reference)
        for curve, name in zip(curves, named, strict=True)
    ]
    if ax is None:
        figure = matplotlib.Figure(figsize=(6.8, 4.6), dpi=150)
        figure.set_layout_engine("constrained")
        ax = figure.subplots()
    low, high = _limits(lines)
    strip = _histogram(curves)
    floor = low - (high - low) * _STRIP / (1.0 - _STRIP) if strip is not None else low
    _draw_lines(ax, lines, low - 9.0 * (high - low), high + 9.0 * (high - low))
    if true_effect is not None:
        _draw_truth(ax, lines, true_effect, reference)
    if reference is not None:
        ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
        ax.plot(reference, 0.0, marker="o", color=GREY, markersize=4, zorder=4)
    ax.set_xlim(min(line.x[0] for line in lines), max(line.x[-1] for line in lines))
    ax.set_ylim(floor, high)
    if strip is not None:
        _draw_histogram(ax, *strip, floor, low)
        ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= high])
    ax.set_xlabel(exposure)
    if outcome is None:
        outcome = "E[Y | do(X = x)]"
        if reference is not None:
            outcome += f" − E[Y | do(X = {reference:g})]"
    ax.set_ylabel(outcome)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9)
    handles, texts = ax.get_legend_handles_labels()
    if len(handles) > 1:
        ax.legend(
            handles,
            texts,
            loc="lower left",
            bbox_to_anchor=(0, 1.01),
            borderaxespad=0,
            ncols=2,
            frameon=False,
            fontsize=8.5,
            columnspacing=1.4,
        )
    return ax


def _names(curves: Sequence[Any]) -> list[str]:
    """Class names, numbered where one comes twice."""
    plain = [type(curve).__name__ for curve in curves]
    plain = ["estimate" if name == "CausalCurve" else name for name in plain]
    if len(curves) == 1:
        return ["estimate"]
    return [
        name if plain.count(name) == 1 else f"{name} {plain[: i + 1].count(name)}"
        for i, name in enumerate(plain)
    ]


def _line(
    curve: Any, name: str, interval: str | None, level: float, reference: float | None
) -> _Line:
    if hasattr(curve, "curve_"):
        return _line_of_estimator(curve, name, interval, level, reference)
    if not hasattr(curve, "estimate"):
        raise check.fail("curves", "fitted estimators or CausalCurves", type(curve).__name__)
    if reference is not None:
        raise check.fail("reference", "None with a CausalCurve", repr(reference))
    if np.ndim(curve.x) != 1 or np.shape(curve.estimate) != np.shape(curve.x):
        raise check.fail("curves", "a curve of one dimension", f"shape {np.shape(curve.estimate)}")
    order = np.argsort(curve.x, kind="stable")
    return _Line(
        name,
        curve.x[order],
        curve.estimate[order],
        (curve.lower[order], curve.upper[order]),
        f"{curve.level:.3g} {curve.method}",
    )


def _line_of_estimator(
    fitted: InstrumentalVariableEstimator,
    name: str,
    interval: str | None,
    level: float,
    reference: float | None,
) -> _Line:
    kinds = fitted.curve_.intervals
    kind = interval
    if interval is None:
        kind = next((entry for entry in _PREFERRED if entry in kinds), "none")
    core = fitted.exposure_central_
    ends = fitted.exposure_central_99_
    x: Float = np.unique(np.concatenate([np.linspace(*ends, _POINTS), core]))

    def effect(at: Float, kind: str | None) -> Any:
        if reference is None:
            return fitted.effect(at, interval=kind, level=level)
        return fitted.ate(reference, at, interval=kind, level=level)

    line = _Line(name, x, effect(x, None), None, "", core)
    if kind == "none":
        return line
    inside = (x >= core[0]) & (x <= core[1])
    found: CausalCurve | CausalContrast = effect(x[inside], kind)
    limits = np.full((2, len(x)), np.nan)
    limits[:, inside] = found.lower, found.upper
    line.limits = (limits[0], limits[1])
    line.text = f"{100 * level:.3g}% {found.method}"
    return line


def _limits(lines: Sequence[_Line]) -> tuple[float, float]:
    """Axis for the estimates and as much of their limits as does not flatten them."""
    estimates = np.concatenate([line.estimate for line in lines])
    low, high = float(np.nanmin(estimates)), float(np.nanmax(estimates))
    reach = _BEYOND * (high - low)
    bands = [band for line in lines if line.limits is not None for band in line.limits]
    if bands:
        edges = np.concatenate(bands)
        edges = edges[np.isfinite(edges)]
        widths = [
            float(np.nanmax(np.where(np.isfinite(b[1] - b[0]), b[1] - b[0], 0.0)))
            for line in lines
            if (b := line.limits) is not None
        ]
        reach = max(reach, 1.2 * max(widths))  # a flat estimate has all of its limits
        if len(edges):
            low = max(min(low, float(edges.min())), low - reach)
            high = min(max(high, float(edges.max())), high + reach)
    if not low < high:
        low, high = low - 1.0, high + 1.0
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def _draw_lines(ax: Any, lines: Sequence[_Line], bottom: float, top: float) -> None:
    for place, line in enumerate(lines):
        colour = SERIES[place % len(SERIES)]
        label = line.name
        if line.limits is not None and len(lines) > 1:
            label = f"{line.name}, {line.text.partition(' for ')[0]}"
        solid = np.ones(len(line.x), dtype=bool)
        if line.core is not None:
            solid = (line.x >= line.core[0]) & (line.x <= line.core[1])
            ax.plot(line.x, line.estimate, color=colour, linewidth=1.1, linestyle=(0, (3, 2)))
        ax.plot(
            line.x[solid], line.estimate[solid], color=colour, linewidth=2, zorder=3, label=label
        )
        if line.limits is not None:
            lower, upper = (np.clip(edge, bottom, top) for edge in line.limits)
            ax.fill_between(
                line.x,
                lower,
                upper,
                color=colour,
                alpha=0.2 if len(lines) == 1 else 0.14,
                linewidth=0,
                zorder=2,
                label=line.text if len(lines) == 1 else None,
            )


def _draw_truth(
    ax: Any,
    lines: Sequence[_Line],
    true_effect: Callable[[Float], Any],
    reference: float | None,
) -> None:
    x: Float = np.linspace(
        min(line.x[0] for line in lines), max(line.x[-1] for line in lines), _POINTS
    )
    truth = np.broadcast_to(np.asarray(true_effect(x), dtype=np.float64), x.shape)
    if reference is not None:
        truth = truth - float(np.asarray(true_effect(np.array([reference]))).ravel()[0])
    ax.plot(
        x, truth, color="black", linewidth=1.3, linestyle=(0, (1, 1.2)), zorder=3.5, label="truth"
    )


def _histogram(curves: Sequence[Any]) -> tuple[NDArray[np.int64], Float] | None:
    """Of the first estimator."""
    for curve in curves:
        if hasattr(curve, "exposure_histogram_"):
            counts, edges = curve.exposure_histogram_
            return counts, edges
    return None


def _draw_histogram(
    ax: Any, counts: NDArray[np.int64], edges: Float, floor: float, ceiling: float
) -> None:
    """Grey bars at the foot of the axes."""
    heights = floor + (ceiling - floor) * 0.9 * counts / max(int(counts.max()), 1)
    ax.stairs(
        heights, edges, baseline=floor, fill=True, color=GREY, alpha=0.3, linewidth=0, zorder=1
    )
