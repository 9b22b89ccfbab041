"""The figure of site and pooled profile log-likelihoods: `profile_figure`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast._validation import Float, fail
from mrfast.plots.colours import GREY

if TYPE_CHECKING:
    from mrfast.federated.estimate import FederatedEstimate
    from mrfast.federated.node_profile import Profile
    from mrfast.federated.pooling import PooledProfile

__all__ = [
    "EXPOSURE_SCALE",
    "SCORE_SCALE",
    "Curve",
    "checked_set",
    "federated_estimate_figure",
    "likelihood_profile_figure",
    "number_texts",
    "odds_ratio_axis",
    "pooled_profile_figure",
    "profile_figure",
    "set_text",
]

EXPOSURE_SCALE = "log odds ratio per unit of exposure"
SCORE_SCALE = "log odds ratio per unit of score"
Set = Sequence[tuple[float, float]]

# Sites: light, and told apart by their dashes alone where there is no colour.
_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#8C8C8C", "#B5A100")
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 1.5), (3, 1.5), (6, 1.5, 1.5, 1.5), (1.5, 1.2))
_DARK = "#1A1A1A"
_SHADE = "#E6E6E6"
_NAMED = 12  # sites with a line of their own in the legend
_POINTS = 801
_DEPTH = 3.2  # times the drop of the threshold, shown below the maximum
_RATIOS = (1, 1.1, 1.25, 1.5, 2, 3, 5, 0.9, 0.8, 0.67)
_MARGIN = 0.6  # of half the width of the set, on both sides
_FAR = 8  # times half that width from the estimate: how far the axis goes out for the sites


class Curve(NamedTuple):
    """A profile log-likelihood to draw.

    Attributes
    ----------
    label : str
    log_likelihood : callable
        Of an array of log odds ratios on the figure's scale.
    maximum : float
        Largest value, or the supremum.
    mle : float
        Where it is; infinite for a profile without a maximum, with the sign of its side.
    window : tuple of two floats
        Between these the values are exact; beyond them the line is dotted.
    """

    label: str
    log_likelihood: Callable[[Float], Any]
    maximum: float
    mle: float
    window: tuple[float, float] = (-math.inf, math.inf)


def profile_figure(
    sites: Sequence[Curve],
    pooled: Curve | None = None,
    *,
    confidence_set: Set = (),
    estimate: float | None = None,
    level: float = 0.95,
    scale: str = EXPOSURE_SCALE,
    title: str | None = None,
) -> Any:
    """Profile log-likelihoods below their maxima: the sites light, the pooled one dark.

    The shaded band is the confidence set, the dashed line its threshold. Ticks on a curve mark the
    ends of the window in which it is exact; beyond them it is dotted. An arrow stands where a
    profile has no maximum, and where the set goes on beyond the axis.

    Parameters
    ----------
    sites : sequence of Curve
    pooled : Curve, optional
    confidence_set : sequence of (lower, upper)
        Ascending intervals, infinite ends allowed; empty for none.
    estimate : float, optional
        Drawn as a vertical line where there is no pooled curve, as with random effects.
    level : float
        Of the set.
    scale : str
        What the log odds ratio is per unit of, for the axis.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        There is nothing to draw, or the set is not one.
    MissingExtraError
        matplotlib is not installed.
    """
    from scipy.special import chdtri

    level = check.scalar("level", level, above=0, below=1)
    intervals = checked_set(confidence_set)
    curves = [*sites, *([] if pooled is None else [pooled])]
    if not curves:
        raise fail("sites", "at least one profile", "none")
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the figure of profiles")
    drop = float(chdtri(1, 1 - level)) / 2
    lower, upper = _axis_limits(curves, pooled, intervals, drop, estimate)
    beta = np.linspace(lower, upper, _POINTS)

    named = len(sites) <= _NAMED
    figure = matplotlib.Figure(figsize=(8.6, 5.2), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    axis = figure.subplots()
    axis.set_xlim(lower, upper)
    axis.set_ylim(-_DEPTH * drop, 0.16 * drop)
    for start, end in intervals:
        if end > lower and start < upper:
            axis.axvspan(max(start, lower), min(end, upper), color=_SHADE, lw=0, zorder=0)
    for index, curve in enumerate(sites):
        _draw_curve(
            axis,
            curve,
            beta,
            drop,
            color=_COLOURS[index % len(_COLOURS)] if named else "#A6A6A6",
            dashes=_DASHES[index % len(_DASHES)] if named else (),
            linewidth=1.7 if named else 1.0,
        )
    if pooled is not None:
        _draw_curve(axis, pooled, beta, drop, color=_DARK, dashes=(), linewidth=2.6)
    axis.axhline(-drop, color=GREY, lw=1, ls=(0, (5, 4)), zorder=1)
    axis.annotate(
        f"{100 * level:.4g}%",
        (0, -drop),
        (4, 4),
        xycoords=axis.get_yaxis_transform(),
        textcoords="offset points",
        fontsize=9,
        color=GREY,
    )
    if lower < 0 < upper:
        axis.axvline(0, color=GREY, lw=0.8, zorder=1)
    if pooled is None and estimate is not None and lower < estimate < upper:
        axis.axvline(estimate, color=_DARK, lw=2.2, label="estimate", zorder=2)
    _mark_set(axis, intervals, -drop, rings=pooled is not None)
    axis.set_xlabel(scale[0].upper() + scale[1:])
    axis.set_ylabel("Log-likelihood below its maximum")
    axis.spines[["top", "right"]].set_visible(False)
    odds_ratio_axis(axis, lower, upper, scale)
    if title is not None:
        axis.set_title(title, loc="left", fontsize=10.5, parse_math=False, wrap=True)
    _legend(axis, len(sites) if named else 0)
    return figure


def likelihood_profile_figure(
    profile: Profile, *, label: str | None = None, level: float = 0.95, scale: str = SCORE_SCALE
) -> Any:
    """One profile log-likelihood with its likelihood-ratio limits.

    Parameters
    ----------
    profile : Profile
    label : str, optional
        Name, for the title.
    level : float, default 0.95
        Of the limits.
    scale : str
        What the log odds ratio is per unit of, for the axis.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        The level is not strictly between 0 and 1.
    MissingExtraError
        matplotlib is not installed.
    """
    level = check.scalar("level", level, above=0, below=1)
    limits = [profile.interval(level)]
    where = f"{number_texts([profile.mle])[0]}" if math.isfinite(profile.mle) else "no maximum"
    return profile_figure(
        [],
        _curve(label or "profile", profile, 1.0),
        confidence_set=limits,
        level=level,
        scale=scale,
        title=f"{f'{label}: ' if label else ''}{where} ({100 * level:.4g}%: {set_text(limits)})",
    )


def pooled_profile_figure(pooled: PooledProfile, *, level: float = 0.95) -> Any:
    """Profiles of the sites and their sum, with the exposure per unit of score as estimated.

    Parameters
    ----------
    pooled : PooledProfile
    level : float, default 0.95
        Of the limits, in which the errors of the kappas are not.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    limits = pooled.interval(level)
    window = _common_window(pooled, pooled.kappas)
    peak = pooled.mle if math.isfinite(pooled.mle) else window[int(pooled.mle > 0)]
    whole = Curve("all sites", pooled, float(pooled(np.array([peak]))[0]), pooled.mle, window)
    return profile_figure(
        _site_curves(pooled, pooled.kappas), whole, confidence_set=[limits], level=level
    )


def federated_estimate_figure(estimate: FederatedEstimate) -> Any:
    """Profiles of the sites and of all of them, with the estimate and its confidence set.

    The pooled curve is what the set was read off: the joint profile, with the errors of the
    kappas in it. With random effects there is none; the estimate is a vertical line.

    Parameters
    ----------
    estimate : FederatedEstimate

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InvalidInputError
        The estimate came without its pooled profile.
    MissingExtraError
        matplotlib is not installed.
    """
    pooled, joint = estimate.pooled, estimate.joint
    if pooled is None:
        raise fail("estimate", "an estimate with its pooled profile", "one without")
    whole = None
    if joint is not None:
        window = _common_window(pooled, estimate.kappas)
        whole = Curve("all sites", joint, joint.maximum(1.0).value, estimate.beta, window)
    finite = math.isfinite(estimate.beta)
    text = number_texts([estimate.beta])[0] if finite else "no maximum"
    kind = {"fixed": "", "random": ", random effects"}[estimate.effects]
    return profile_figure(
        _site_curves(pooled, estimate.kappas),
        whole,
        confidence_set=estimate.confidence_set,
        estimate=estimate.beta if finite else None,
        level=estimate.ci_level,
        title=f"{text} ({100 * estimate.ci_level:.4g}%: {set_text(estimate.confidence_set)}){kind}",
    )


def _site_curves(pooled: PooledProfile, kappas: Float) -> list[Curve]:
    """Sites that say anything, on the scale of the exposure."""
    return [
        _curve(site.site_id, site.profile, float(kappa))
        for site, kappa, says in zip(pooled.sites, kappas, pooled.informative, strict=True)
        if says and kappa != 0
    ]


def _common_window(pooled: PooledProfile, kappas: Float) -> tuple[float, float]:
    """Effects that are inside of every site's window."""
    windows = [curve.window for curve in _site_curves(pooled, kappas)]
    return max((w[0] for w in windows), default=-math.inf), min(
        (w[1] for w in windows), default=math.inf
    )


def _curve(label: str, profile: Profile, kappa: float) -> Curve:
    """A profile of the log odds ratio per unit of score, on the scale of the exposure."""
    ends = sorted((profile.lower / kappa, profile.upper / kappa))

    def log_likelihood(theta: Float) -> Any:
        return profile(kappa * theta)

    return Curve(label, log_likelihood, profile.maximum, profile.mle / kappa, (ends[0], ends[1]))


def set_text(confidence_set: Set, size: float | None = None) -> str:
    """Confidence set in words, such as "0.20 to 0.41" or "below -11.5 or above 0.11".

    Parameters
    ----------
    confidence_set : sequence of (lower, upper)
        Ascending intervals, infinite ends allowed.
    size : float, optional
        See `number_texts`.

    Returns
    -------
    str
    """
    intervals = checked_set(confidence_set)
    if not intervals:
        return "empty"
    parts = []
    for lower, upper in intervals:
        texts = iter(number_texts([end for end in (lower, upper) if math.isfinite(end)], size))
        if math.isinf(lower) and math.isinf(upper):
            parts.append("every value")
        elif math.isinf(lower):
            parts.append(f"below {next(texts)}")
        elif math.isinf(upper):
            parts.append(f"above {next(texts)}")
        else:
            parts.append(f"{next(texts)} to {next(texts)}")
    return " or ".join(parts)


def number_texts(values: Sequence[float], size: float | None = None) -> list[str]:
    """Log odds ratios with three decimals, or with three digits of a size below 0.1.

    Parameters
    ----------
    values : sequence of float
        Finite.
    size : float, optional
        Above 0, such as the width of an interval; by default the smallest gap between the values,
        or a single value itself.

    Returns
    -------
    list of str
    """
    gaps = [size] if size else [float(gap) for gap in np.abs(np.diff(values)) if gap > 0]
    sizes = gaps or [abs(value) for value in values if value]
    decimals = max(3, 2 - math.floor(math.log10(min(sizes)))) if sizes else 3
    if decimals < 4 and any(value and not round(value, decimals) for value in values):
        decimals = 4  # rather than a zero that is none
    if decimals > 6 or max(map(abs, values), default=0) >= 100:
        return [f"{value:.4g}" for value in values]
    return [f"{round(value, decimals) + 0.0:.{decimals}f}" for value in values]


def checked_set(confidence_set: Set) -> list[tuple[float, float]]:
    """Check a set: ascending, disjoint intervals of numbers, infinite ends allowed."""
    expected = "ascending intervals (lower, upper)"
    try:
        intervals = [(float(lower), float(upper)) for lower, upper in confidence_set]
    except (TypeError, ValueError):
        raise fail("confidence_set", expected, repr(confidence_set)) from None
    ends = [end for pair in intervals for end in pair]
    if any(not a <= b for a, b in itertools.pairwise(ends)):
        raise fail("confidence_set", expected, repr(confidence_set))
    return intervals


def odds_ratio_axis(axis: Any, lower: float, upper: float, scale: str) -> None:
    """Put the odds ratios on top of an axis of log odds ratios.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    lower, upper : float
        Limits of the axis.
    scale : str
        Label of the axis below; its "log odds ratio" becomes "odds ratio".
    """
    top = axis.secondary_xaxis("top")
    ratios = _nice_ratios(lower, upper)
    top.set_xticks([math.log(ratio) for ratio in ratios], [_ratio_text(r) for r in ratios])
    top.tick_params(labelsize=8.5, color=GREY, labelcolor=GREY)
    top.spines["top"].set_color(GREY)
    text = scale.replace("log odds ratio", "odds ratio")
    top.set_xlabel(text[0].upper() + text[1:], fontsize=9, color=GREY)


def _ratio_text(ratio: float) -> str:
    return f"{ratio:,.0f}" if 1e3 <= ratio < 1e6 else f"{ratio:.4g}"


def _nice_ratios(lower: float, upper: float) -> list[float]:
    """Five to ten round odds ratios between two log odds ratios, 1 among them if it is there."""
    if upper - lower > math.log(1e4):
        step = max(1, math.ceil((upper - lower) / math.log(10) / 8))
        first, last = math.ceil(lower / math.log(10)), math.floor(upper / math.log(10))
        powers = [power for power in range(first, last + 1) if power % step == 0]
        return [10.0**power for power in powers if abs(power) < 300]
    candidates = [round(ratio * 10.0**power, 6) for ratio in _RATIOS for power in range(-3, 4)]
    chosen = [ratio for ratio in candidates if lower <= math.log(ratio) <= upper]
    kept: list[float] = [1.0] if 1.0 in chosen else []
    gap = (upper - lower) / 11
    for ratio in sorted(chosen, key=lambda ratio: (len(f"{ratio:.4g}"), abs(math.log(ratio)))):
        if all(abs(math.log(ratio / other)) >= gap for other in kept):
            kept.append(ratio)
    return sorted(kept)


def _axis_limits(
    curves: Sequence[Curve],
    pooled: Curve | None,
    intervals: Set,
    drop: float,
    estimate: float | None,
) -> tuple[float, float]:
    """Limits of the axis: the set with a margin, the sites' maxima and zero unless they are far."""
    finite = [curve.mle for curve in curves if math.isfinite(curve.mle)]
    if pooled is not None and math.isfinite(pooled.mle):
        centre = pooled.mle
    elif finite:
        centre = float(np.median(finite))
    else:  # every profile rises to one side: the windows and the finite limit
        ends = [end for curve in curves for end in curve.window]
        ends += [end for pair in intervals for end in pair]
        seen = [0.0, *(end for end in ends if math.isfinite(end))]
        margin = 0.1 * (max(seen) - min(seen)) or 1.0
        return min(seen) - margin, max(seen) + margin
    main = curves if pooled is None else [pooled]
    reach = [_fall(curve, centre, side, drop) for curve in main for side in (-1, 1)]
    known = [distance for distance in reach if distance is not None]
    width = max(known, default=1.0)
    wanted = [
        0.0,
        centre if estimate is None else estimate,
        *(end for pair in intervals for end in pair),
    ]
    for curve in curves:
        own = [_fall(curve, curve.mle, side, drop) for side in (-1, 1)]
        if math.isfinite(curve.mle):
            wanted += [curve.mle, curve.mle - (own[0] or 0), curve.mle + (own[1] or 0)]
    seen = [value for value in wanted if abs(value - centre) <= _FAR * width]
    margin = _MARGIN * width
    return min(centre - width, *seen) - margin, max(centre + width, *seen) + margin


def _fall(curve: Curve, centre: float, side: int, drop: float) -> float | None:
    """Distance from the centre at which a profile has fallen by the drop; None if it never does."""
    if math.isinf(centre):
        return None
    distance = 1e-3
    while distance < 1e3:
        value = float(curve.log_likelihood(np.array([centre + side * distance]))[0])
        if value < curve.maximum - drop:
            return distance
        distance *= 1.25
    return None


def _draw_curve(
    axis: Any,
    curve: Curve,
    beta: Float,
    drop: float,
    *,
    color: str,
    dashes: Sequence[float],
    linewidth: float,
) -> None:
    relative = np.asarray(curve.log_likelihood(beta), dtype=np.float64) - curve.maximum
    exact = (beta >= curve.window[0]) & (beta <= curve.window[1])
    solid = np.where(exact, relative, np.nan)
    notes = ["no maximum"] if math.isinf(curve.mle) else []
    notes += ["out of view"] if relative.max() < axis.get_ylim()[0] else []
    label = "\n".join([curve.label, *(f"  ({note})" for note in notes)])
    (line,) = axis.plot(beta, solid, color=color, lw=linewidth, label=label, zorder=3)
    if len(dashes):
        line.set_dashes(list(dashes))
    if not exact.all():
        axis.plot(
            beta,
            np.where(exact, np.nan, relative),
            color=color,
            lw=linewidth * 0.8,
            ls=(0, (1, 2)),
            zorder=3,
        )
    for end in curve.window:
        if beta[0] < end < beta[-1]:
            value = float(curve.log_likelihood(np.array([end]))[0]) - curve.maximum
            axis.plot(end, value, "|", color=color, ms=11, mew=linewidth, zorder=4)
    if math.isinf(curve.mle):
        side = 1 if curve.mle > 0 else -1
        place, before = (-1, -30) if side > 0 else (0, 29)
        axis.annotate(
            "",
            (beta[place], relative[place]),
            (beta[before], relative[before]),
            arrowprops={"arrowstyle": "-|>", "color": color, "lw": linewidth, "mutation_scale": 16},
            zorder=4,
        )
    elif beta[0] <= curve.mle <= beta[-1]:
        axis.plot(curve.mle, 0, "o", color=color, ms=2.2 * linewidth + 1.5, zorder=5, clip_on=False)


def _mark_set(axis: Any, intervals: Set, height: float, *, rings: bool) -> None:
    """Ends of the set on the threshold; arrows where it goes on beyond the axis."""
    lower, upper = axis.get_xlim()
    for start, end in intervals:
        for value in (start, end):
            if rings and lower < value < upper:
                axis.plot(value, height, "o", mfc="white", mec=_DARK, ms=6, mew=1.4, zorder=6)
    for beyond, place, inward in (
        ([pair for pair in intervals if pair[0] < lower], lower, 1),
        ([pair for pair in intervals if pair[1] > upper], upper, -1),
    ):
        if not beyond:
            continue
        axis.annotate(
            "",
            (place, height),
            (place + inward * 0.05 * (upper - lower), height),
            arrowprops={"arrowstyle": "-|>", "color": _DARK, "lw": 1.6},
            zorder=6,
            annotation_clip=False,
        )
        apart = [pair for pair in beyond if pair[1] <= lower or pair[0] >= upper]
        if apart:  # a part of the set that is not in view at all
            axis.annotate(
                f"also {set_text(apart)}",
                (place, height),
                (inward * 6, -6),
                textcoords="offset points",
                ha="left" if inward > 0 else "right",
                va="top",
                fontsize=9,
                color=_DARK,
                zorder=6,
            )


def _legend(axis: Any, named: int) -> None:
    """Names beside the axes, none for a single curve."""
    handles, labels = axis.get_legend_handles_labels()
    if len(handles) < 2:
        return
    if not named:  # one light line for all sites
        count = len(handles) - 1
        handles, labels = [handles[0], handles[-1]], [f"{count} sites", labels[-1]]
    legend = axis.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9.5
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
