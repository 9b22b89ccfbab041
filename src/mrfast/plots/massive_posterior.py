"""The figure of a MASSIVE posterior: `massive_posterior_figure`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast._validation import Float
from mrfast.plots.colours import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from mrfast.bayes.result import MassiveResult

__all__ = [
    "check_reference",
    "density_curve",
    "effect_limits",
    "interval_texts",
    "massive_posterior_figure",
]

_NAMED = 20  # candidates with a bar
_LONGEST_NAME = 22  # characters
# Probability inside the axis, while the axis is at most so many times wider than half of it.
_SHOWN = ((0.999, 16), (0.99, 25), (0.95, 50), (0.9, 100), (0.8, 200), (0.7, float("inf")))
_LINE = 72  # characters of the axis label
_POINTS = 1500  # of the curve, at most
_PROBABLE = 0.5
_PEAK = 0.02  # probability from which on a peak is marked


def massive_posterior_figure(
    result: MassiveResult, reference: tuple[float, float, float] | None = None
) -> Any:
    """Posterior density of the causal effect beside the inclusion probabilities.

    Parameters
    ----------
    result : MassiveResult
        What `massive` returned.
    reference : (estimate, lower, upper), optional
        Another study's estimate with its interval, drawn below the density.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        `reference` is not three finite numbers with lower <= estimate <= upper.
    MissingExtraError
        matplotlib is not installed.
    """
    compared = None if reference is None else check_reference(reference)
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the posterior's figure")
    rows = min(_NAMED, result.moments.J)
    figure = matplotlib.Figure(figsize=(10.5, max(4.4, 1.6 + 0.2 * rows)), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08, wspace=0.04)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_effect(left, result, compared)
    _draw_candidates(right, result)
    return figure


def check_reference(reference: object) -> tuple[float, float, float]:
    """Check an estimate with its interval: three finite numbers, lower <= estimate <= upper."""
    expected = "three finite numbers (estimate, lower, upper) with lower <= estimate <= upper"
    try:
        values = np.asarray(reference, dtype=np.float64)
    except (TypeError, ValueError):
        raise check.fail("reference", expected, repr(reference)) from None
    if values.shape != (3,) or not np.isfinite(values).all():
        raise check.fail("reference", expected, repr(reference))
    estimate, lower, upper = (float(value) for value in values)
    if not lower <= estimate <= upper:
        raise check.fail("reference", expected, repr(reference))
    return estimate, lower, upper


def interval_texts(estimate: float, lower: float, upper: float) -> tuple[str, str, str]:
    """Round an estimate and its interval to two digits of the shorter arm of the interval."""
    arms = [arm for arm in (estimate - lower, upper - estimate) if arm > 0]
    if not arms or not 1e-6 < min(arms) < 1e5:
        return f"{estimate:.4g}", f"{lower:.4g}", f"{upper:.4g}"
    decimals = max(0, 1 - int(np.floor(np.log10(min(arms)))))
    if estimate and not round(estimate, decimals):
        decimals += 1  # rather than a zero
    numbers = (round(number, decimals) + 0.0 for number in (estimate, lower, upper))
    first, second, third = (f"{number:.{decimals}f}" for number in numbers)
    return first, second, third


def density_curve(result: MassiveResult, lower: float, upper: float) -> tuple[Float, Float]:
    """Points of the effect's density between two values, dense where it bends.

    Begins with an even grid and the places where the law has its mass, so that no peak falls
    between points; then halves every gap whose middle is not on the straight line.
    """
    centres = result._places()
    centres = centres[(centres > lower) & (centres < upper)]
    x = np.union1d(np.linspace(lower, upper, 201), centres)
    y = result.effect_density(x)
    gaps = np.arange(x.size - 1)
    while gaps.size and x.size < _POINTS:
        middle = (x[gaps] + x[gaps + 1]) / 2
        height = result.effect_density(middle)
        bent = np.abs(height - (y[gaps] + y[gaps + 1]) / 2) > 1e-3 * y.max()
        every, heights = np.concatenate([x, middle]), np.concatenate([y, height])
        x, first = np.unique(every, return_index=True)
        y = heights[first]
        place = np.searchsorted(x, middle[bent])
        gaps = np.unique(place[:, None] + np.arange(-2, 2))  # both halves and their neighbours
        gaps = gaps[(gaps >= 0) & (gaps < x.size - 1)]
    return x, y


def effect_limits(
    result: MassiveResult, reference: tuple[float, float, float] | None
) -> tuple[float, float]:
    """Limits of the axis: nearly all probability, the reference, and zero unless it is far.

    Where nearly all probability would make the axis so wide, beside the narrowest interval with
    half of it, that the peak is a needle, more of the tails is left out.
    """
    most = result.effect_at(_SHOWN[0][0])
    x, y = density_curve(result, most.ci_lower, most.ci_upper)
    cumulative = np.concatenate([[0.0], np.cumsum(np.diff(x) * (y[1:] + y[:-1]))])
    cumulative *= most.level / cumulative[-1]

    def narrowest(probability: float) -> tuple[float, float]:
        starts = np.linspace(0, max(most.level - probability, 0), 400)
        ends = np.interp(np.concatenate([starts, starts + probability]), cumulative, x)
        lowest, highest = ends[: starts.size], ends[starts.size :]
        best = int(np.argmin(highest - lowest))
        return float(lowest[best]), float(highest[best])

    lower, upper = narrowest(0.5)
    half = upper - lower
    for probability, ratio in _SHOWN:
        lower, upper = narrowest(probability)
        if upper - lower <= ratio * half:
            break
    if reference is not None:
        lower, upper = min(lower, reference[1]), max(upper, reference[2])
    reach = 0.75 * (upper - lower)
    if 0 < lower < reach:
        lower = 0.0
    elif -reach < upper < 0:
        upper = 0.0
    margin = 0.03 * (upper - lower)
    return lower - margin, upper + margin


def _draw_effect(
    axes: Any, result: MassiveResult, reference: tuple[float, float, float] | None
) -> None:
    """Density of the effect with its median, interval, zero and the reference."""
    effect = result.effect
    lower, upper = effect_limits(result, reference)
    x, y = density_curve(result, lower, upper)
    top = float(y.max())
    ends = np.clip([effect.ci_lower, effect.ci_upper], lower, upper)
    inside = np.union1d(ends, x[(x > ends[0]) & (x < ends[1])])
    median, low, high = interval_texts(effect.median, effect.ci_lower, effect.ci_upper)
    axes.fill_between(
        inside,
        result.effect_density(inside),
        color=BLUE,
        alpha=0.25,
        linewidth=0,
        label=f"{effect.level:.0%} credible interval {low} to {high}",
    )
    axes.plot(x, y, color=BLUE, linewidth=1.8)
    axes.plot(
        [effect.median] * 2,
        [0, float(result.effect_density(effect.median))],
        color=BLUE,
        linewidth=1.5,
        label=f"posterior median {median}",
    )
    if lower < 0 < upper:
        axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="no effect", zorder=1)
    peaks = [mode for mode in result._modes_along(x, y) if mode.probability > _PEAK]
    peaks = [mode for mode in peaks if lower < mode.peak < upper] if len(peaks) > 1 else []
    for place, mode in enumerate(peaks):
        value, height = mode.peak, float(result.effect_density(mode.peak))
        axes.plot(
            value,
            height + 0.025 * top,
            "v",
            color=ORANGE,
            markersize=7,
            label=None if place else "peaks with their probabilities",
        )
        axes.annotate(
            f"{mode.probability:.2f}",
            (value, height + 0.04 * top),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=ORANGE,
        )
    head = 1.15 if peaks else 1.05
    bottom = 0.0
    if reference is not None:
        bottom = -0.11 * top
        estimate, low, high = interval_texts(*reference)
        axes.errorbar(
            reference[0],
            bottom / 2,
            xerr=[[reference[0] - reference[1]], [reference[2] - reference[0]]],
            color=ORANGE,
            marker="D",
            markersize=6,
            capsize=4,
            linewidth=1.8,
            label=f"reference {estimate} ({low} to {high})",
        )
        axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlim(lower, upper)
    axes.set_ylim(bottom, head * top)
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= head * top])
    axes.set_ylabel("Posterior density")
    label = "\n".join(textwrap.wrap(f"Causal effect: {result.scale}", _LINE))
    outside = 1 - float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)
    if outside > 2 * (1 - _SHOWN[0][0]):
        label += f"\n({outside:.1%} of the probability lies beyond this axis)"
    axes.set_xlabel(label)
    _finish(axes, columns=2)


def _draw_candidates(axes: Any, result: MassiveResult) -> None:
    """Inclusion probabilities as bars, the largest at the top."""
    probability = result.inclusion_probabilities
    order = np.argsort(-probability, kind="stable")
    shown, rest = order[:_NAMED], order[_NAMED:]
    place = np.arange(shown.size)
    thickness = 0.72 * min(1.0, shown.size / 10 + 0.2)
    probable = probability[shown] >= _PROBABLE
    for chosen, colour, label in (
        (~probable, BLUE, None),
        (probable, ORANGE, f"probability {_PROBABLE:g} or more"),
    ):
        if chosen.any():
            axes.barh(
                place[chosen], probability[shown][chosen], thickness, color=colour, label=label
            )
    for row, index in zip(place, shown, strict=True):
        value = float(probability[index])
        axes.annotate(
            f"{value:.2f}" if value >= 0.005 else "<0.01",
            (value, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=GREY,
        )
    prior = result.prior_inclusion_probability
    if prior is not None:
        axes.axvline(
            prior,
            color=GREY,
            linewidth=1,
            linestyle=(0, (1, 2)),
            label=f"prior probability {prior:.3g}",
        )
    names = [result.moments.names[index] for index in shown]
    short = [
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names
    ]
    axes.set_yticks(place, short, parse_math=False)
    axes.set_ylim(shown.size - 0.4, -0.6)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    label = "Posterior probability of pleiotropy"
    if rest.size:
        likely = int((probability[rest] >= _PROBABLE).sum())
        more = f", {likely} of them at {_PROBABLE:g} or more" if likely else ""
        label += f"\n({rest.size} more not shown{more or ', none larger'})"
    axes.set_xlabel(label)
    _finish(axes, columns=1)


def _finish(axes: Any, *, columns: int) -> None:
    """Legend above the axes, no frame, readable text."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.xaxis.label.set_size(10.5)
    axes.yaxis.label.set_size(10.5)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        borderaxespad=0,
        ncols=columns,
        columnspacing=1.4,
        frameon=False,
        fontsize=9,
    )
