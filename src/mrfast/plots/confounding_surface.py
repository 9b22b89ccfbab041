"""The surface over the confounder's effects: `confounding_surface_figure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._optional import import_extra

if TYPE_CHECKING:
    from mrfast.bayes.confounding_surface import ConfoundingSurface

__all__ = ["asinh_ticks", "confounding_surface_figure", "draw_surface"]

_MARK = "#D55E00"
_LEVELS = 49


def confounding_surface_figure(surface: ConfoundingSurface) -> Any:
    """Log posterior density of (skappa_X, skappa_Y) with its modes marked (plot extra).

    As Figure 3 of Bucur, Claassen, Heskes (2020). The density is the same where both effects
    change their sign.

    Parameters
    ----------
    surface : ConfoundingSurface

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the surface's figure")
    figure = matplotlib.Figure(figsize=(6.8, 5.6), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    axes = figure.subplots()
    shown = draw_surface(axes, surface)
    axes.set_ylabel("Confounder's effect on the outcome, skappa_Y")
    axes.set_title(
        "given one model" if surface.given_model else "averaged over all models",
        fontsize=11,
        loc="left",
    )
    bar = figure.colorbar(shown, ax=axes, label="Log posterior density below its maximum")
    bar.set_ticks(np.arange(-surface.depth, 1, 2))
    bar.outline.set_visible(False)
    return figure


def draw_surface(axes: Any, surface: ConfoundingSurface) -> Any:
    """Draw a surface on axes that are linear near 0 and logarithmic far from it.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    surface : ConfoundingSurface

    Returns
    -------
    matplotlib.contour.QuadContourSet
        For a colour bar.
    """
    place = np.arcsinh(surface.axis)
    shown = axes.contourf(
        place,
        place,
        np.maximum(surface.log_density, -surface.depth),
        levels=np.linspace(-surface.depth, 0, _LEVELS),
        cmap="viridis",
    )
    for x, y, _ in surface.modes:
        for sign in (1, -1):
            axes.plot(
                np.arcsinh(sign * x),
                np.arcsinh(sign * y),
                "+",
                color=_MARK,
                markersize=12,
                markeredgewidth=2.2,
            )
    end = float(place[-1])
    for axis in (axes.xaxis, axes.yaxis):
        asinh_ticks(axis, -end, end)
    axes.set_xlim(-end, end)
    axes.set_ylim(-end, end)
    axes.set_box_aspect(1)
    axes.set_xlabel("Confounder's effect on the exposure, skappa_X")
    return shown


def asinh_ticks(axis: Any, lower: float, upper: float) -> None:
    """Put round numbers on an axis along which asinh of a number is drawn."""
    reach = max(abs(lower), abs(upper))
    steps = [step * 10.0**power for power in range(-3, 7) for step in (1, 2, 5)]
    smallest = np.sinh(0.07 * (upper - lower))  # apart enough for the labels
    chosen: list[float] = []
    for step in steps:
        last = np.arcsinh(chosen[-1]) if chosen else -np.inf
        apart = np.arcsinh(step) - last > 0.05 * (upper - lower)
        if apart and smallest <= step and np.arcsinh(step) <= reach * 1.0001:
            chosen.append(step)
    values = np.array([-step for step in chosen[::-1]] + [0.0, *chosen])
    places = np.arcsinh(values)
    inside = (places >= lower - 1e-9) & (places <= upper + 1e-9)
    labels = [f"{value:g}".replace("-", "\N{MINUS SIGN}") for value in values[inside]]
    axis.set_ticks(places[inside], labels, fontsize=8.5)
