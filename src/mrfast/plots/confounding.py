"""The figure of effect and confounding: `confounding_figure`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast._validation import Float
from mrfast.plots.colours import BLUE, GREY, ORANGE
from mrfast.plots.confounding_surface import asinh_ticks
from mrfast.plots.massive_posterior import (
    check_reference,
    density_curve,
    effect_limits,
    interval_texts,
)

if TYPE_CHECKING:
    from mrfast.bayes.result import MassiveResult

__all__ = ["confounding_figure"]

_DRAWN = 3_000  # points at most
_BINS = 60
_WIDEST = 0.98  # probability inside the axes of the confounder's effects


def confounding_figure(
    result: MassiveResult,
    n: int = 10_000,
    rng: object = 0,
    reference: tuple[float, float, float] | None = None,
) -> Any:
    """Effect against the bias of the observed slope, beside the confounder's effects.

    Parameters
    ----------
    result : MassiveResult
        What `massive` returned.
    n : int
        Number of draws from the posterior.
    rng : None, int or numpy.random.Generator
        Seed or generator.
    reference : (estimate, lower, upper), optional
        Another study's estimate with its interval, drawn above the draws.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        Nothing is known of confounding, or an argument is not valid.
    MissingExtraError
        matplotlib is not installed.
    """
    if not result.has_confounding:
        raise check.fail(
            "result",
            "one from data with an observational slope that its prior uses",
            "one that tells nothing of confounding",
        )
    count = check.integer("n", n, minimum=100)
    compared = None if reference is None else check_reference(reference)
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the confounding's figure")
    draws = result._confounding_draws(count, rng)
    figure = matplotlib.Figure(figsize=(11.5, 5.6), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    left, right = figure.subfigures(1, 2, width_ratios=(11, 9), wspace=0.03)
    grid = left.add_gridspec(2, 2, width_ratios=(4, 1), height_ratios=(1, 4))
    joint = left.add_subplot(grid[1, 0])
    above = left.add_subplot(grid[0, 0], sharex=joint)
    beside = left.add_subplot(grid[1, 1], sharey=joint)
    _draw_joint(joint, above, beside, result, draws, compared)
    _draw_confounder(right, right.subplots(), draws)
    return figure


def _draw_joint(
    joint: Any,
    above: Any,
    beside: Any,
    result: MassiveResult,
    draws: Any,
    reference: tuple[float, float, float] | None,
) -> None:
    """Draws of effect and bias with their marginal densities."""
    effect, bias = draws["beta"].to_numpy(), draws["bias"].to_numpy()
    lower, upper = effect_limits(result, reference)
    slope = result.moments.standardised.residual_slope
    joint.axline((0, slope), slope=-1, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    joint.plot(
        effect[:_DRAWN],
        bias[:_DRAWN],
        "o",
        color=BLUE,
        markersize=3,
        markeredgewidth=0,
        alpha=0.2,
        zorder=2,
    )
    joint.set_xlim(lower, upper)
    joint.set_ylim(slope - upper, slope - lower)
    for line in (joint.axvline, joint.axhline):
        line(0, color=GREY, linewidth=0.8, zorder=0)
    joint.annotate(
        f"effect + bias = {slope:.3g},\nthe slope given the SNPs",
        (0.97, 0.96),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=9.5,
        color=GREY,
    )
    joint.set_xlabel(_wrapped(f"Causal effect: {result.scale}", 64), fontsize=9.5)
    joint.set_ylabel("Bias of the observed slope by confounding")
    x, y = density_curve(result, lower, upper)
    above.fill_between(x, y, color=BLUE, alpha=0.25, linewidth=0)
    above.plot(x, y, color=BLUE, linewidth=1.5)
    above.set_ylim(0, 1.08 * float(y.max()))
    if reference is not None:
        estimate, low, high = interval_texts(*reference)
        joint.errorbar(
            reference[0],
            0.05,
            xerr=[[reference[0] - reference[1]], [reference[2] - reference[0]]],
            transform=joint.get_xaxis_transform(),
            color=ORANGE,
            marker="D",
            markersize=6,
            capsize=4,
            linewidth=1.8,
            label=f"reference {estimate} ({low} to {high})",
        )
        joint.legend(loc="lower left", bbox_to_anchor=(0, 0.08), frameon=False, fontsize=9.5)
    inside = bias[(bias > slope - upper) & (bias < slope - lower)]
    height, edges = np.histogram(inside, bins=_BINS, range=(slope - upper, slope - lower))
    beside.stairs(height, edges, orientation="horizontal", fill=True, color=BLUE, alpha=0.25)
    beside.set_xlim(0, 1.08 * max(1, int(height.max())))
    for axes, spines in ((above, ("top", "right", "left")), (beside, ("top", "right", "bottom"))):
        axes.spines[list(spines)].set_visible(False)
    above.tick_params(left=False, labelleft=False, labelbottom=False)
    beside.tick_params(bottom=False, labelbottom=False, labelleft=False)
    joint.spines[["top", "right"]].set_visible(False)


def _draw_confounder(figure: Any, axes: Any, draws: Any) -> None:
    """Effects of the confounder, coloured by the causal effect, on axes as of the surface."""
    kx, ky, effect = (draws[name].to_numpy() for name in ("skappa_X", "skappa_Y", "beta"))
    low, high = np.quantile(effect, [0.01, 0.99])
    points = axes.scatter(
        np.arcsinh(kx[:_DRAWN]),
        np.arcsinh(ky[:_DRAWN]),
        c=effect[:_DRAWN],
        s=9,
        linewidths=0,
        alpha=0.6,
        cmap="cividis",
        vmin=low,
        vmax=high,
    )
    c = float(np.median(draws["confounding_coordinate"]))
    axes.plot(
        *(np.arcsinh(values) for values in _level_set(c, np.linspace(-12, 12, 1201))),
        color=ORANGE,
        linewidth=1.5,
        label=f"where the bias is its median, {float(np.median(draws['bias'])):.3g}",
    )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, fontsize=9.5)
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    tail = (1 - _WIDEST) / 2
    bounds = np.quantile(ky, [tail, 1 - tail])
    lower, upper = np.arcsinh([min(0.0, float(bounds[0])), max(0.0, float(bounds[1]))])
    margin = 0.05 * (upper - lower)
    ends = [(0.0, 1.05 * float(np.arcsinh(np.quantile(kx, _WIDEST))))]
    ends.append((lower - margin * (lower < 0), upper + margin * (upper > 0)))
    axes.set_xlim(*ends[0])
    axes.set_ylim(*ends[1])
    for axis, (first, last) in zip((axes.xaxis, axes.yaxis), ends, strict=True):
        asinh_ticks(axis, first, last)
    axes.set_xlabel("Confounder's effect on the exposure, skappa_X\n(in units of its noise)")
    axes.set_ylabel("Confounder's effect on the outcome, skappa_Y\n(in units of its noise)")
    axes.spines[["top", "right"]].set_visible(False)
    bar = figure.colorbar(points, ax=axes, label="Causal effect", shrink=0.85)
    bar.solids.set_alpha(1)
    bar.outline.set_visible(False)


def _level_set(c: float, u: Float) -> tuple[Float, Float]:
    """Effects of the confounder with the coordinate c, at positions u along its hyperbola."""
    rho = abs(c) * np.sqrt(1 + c * c)
    kx, ky = (np.sqrt(c * c + rho * np.exp(2 * sign * u)) for sign in (1, -1))
    return kx, np.copysign(ky, c)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))
