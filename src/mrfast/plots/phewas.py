"""The figure of a phenome-wide scan: `phewas_figure`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast.plots.massive_posterior import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    import pandas as pd

    from mrfast._validation import Float
    from mrfast.summary.pair_scan import MRMatrix

__all__ = ["phewas_figure"]

KINDS = ("outcomes", "volcano")
_LONGEST = 34  # characters of a label
_MOST_GROUPS = 30  # with a name below the axis
_OTHER = "other"
_CHARACTER = 0.0072  # width of a label's letter, of the axis
_FEW = 16  # outcomes whose names stand below the axis


def phewas_figure(
    result: MRMatrix,
    *,
    method: str | None = None,
    kind: str = "outcomes",
    groups: Mapping[str, str] | None = None,
    threshold: float | None = None,
    labelled: int = 10,
) -> Any:
    """P-values of the kept pairs, by outcome or against the estimates.

    Parameters
    ----------
    result : MRMatrix
        What `mr_matrix` returned.
    method : str, optional
        One of its methods; by default the first.
    kind : {"outcomes", "volcano"}
        ``"outcomes"``: outcomes side by side, in their groups; a triangle points up for a positive
        estimate, down for a negative one. ``"volcano"``: against the estimate.
    groups : mapping of str to str, optional
        Group of each outcome, such as the chapter of a disease; groups in the order of the
        mapping, outcomes without one last.
    threshold : float, optional
        Where the dashed line is; by default 0.05 over the number of pairs tested (Bonferroni).
    labelled : int, default 10
        Pairs below the threshold that are named, those of smallest p first.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        Unknown options, or no pair to draw.
    MissingExtraError
        matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the figure of a scan")
    check.choice("kind", kind, KINDS)
    chosen = check.choice("method", result.methods[0] if method is None else method, result.methods)
    most = check.integer("labelled", labelled, minimum=0, maximum=200)
    tested = max(1, result.counts[f"tested_{chosen}"])
    border = 0.05 / tested
    if threshold is not None:
        border = check.scalar("threshold", threshold, above=0, maximum=1)
    table = result.frame()
    table = table[table[f"{chosen}_p_value"].notna().to_numpy(dtype=bool)]
    if not len(table):
        raise check.fail("result", f"pairs with a p-value of {chosen} among those kept", "none")
    estimate = table[f"{chosen}_estimate"].to_numpy(dtype=np.float64)
    height = _height(table, chosen)
    positive = estimate >= 0
    beyond = height > -np.log10(border)

    figure = matplotlib.Figure(figsize=(9.6, 4.8), dpi=150)
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    label = f"p = {border:.2g}" + ("" if threshold is not None else f" (0.05 / {tested:,})")
    axis.axhline(-np.log10(border), color=GREY, linewidth=1, linestyle="--", label=label)
    if kind == "outcomes":
        place, colour = _by_outcome(axis, table, result.outcomes, groups)
        axis.set_xlabel("Outcome" if groups is None else "Outcome, by group")
    else:
        place, colour = estimate, np.where(beyond, ORANGE, BLUE)
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.set_xlabel("Estimate")
    small = 13 if len(table) > 100 else 26
    for sign, marker, name in ((True, "^", "Positive"), (False, "v", "Negative")):
        part = positive == sign
        for group in (False, True):  # what matters on top
            shown = part & (beyond == group)
            axis.scatter(
                place[shown],
                height[shown],
                c=colour[shown],
                marker=marker,
                s=34 if group else small,
                alpha=1.0 if group else 0.55,
                linewidths=0.5 if group else 0,
                edgecolors="black" if group else "none",
                rasterized=len(table) > 5000,
                zorder=3 if group else 2,
            )
        if kind == "outcomes" and part.any():
            axis.scatter([], [], c=GREY, marker=marker, s=24, label=f"{name} estimate")
    _name(axis, table, place, height, np.flatnonzero(beyond), most)
    axis.set_ylim(0, max(float(height.max()), -np.log10(border)) * 1.18)
    axis.set_ylabel(r"$-\log_{10}\,p$")
    axis.set_title(
        f"{_words(chosen)}: {int(beyond.sum()):,} of {tested:,} pairs beyond the line", fontsize=11
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _height(table: pd.DataFrame, method: str) -> Float:
    """Negative decimal logarithms of the p-values, of those too small for a number too."""
    from scipy.special import log_ndtr

    p = table[f"{method}_p_value"].to_numpy(dtype=np.float64)
    height: Float = -np.log10(np.maximum(p, 1e-307))
    tiny = p < 1e-300
    if tiny.any() and method != "egger":
        z = (table[f"{method}_estimate"] / table[f"{method}_std_error"]).to_numpy(dtype=np.float64)
        height[tiny] = -(log_ndtr(-np.abs(z[tiny])) + np.log(2)) / np.log(10)
    return height


def _by_outcome(
    axis: Any, table: pd.DataFrame, outcomes: tuple[str, ...], groups: Mapping[str, str] | None
) -> tuple[Float, NDArray[Any]]:
    """Places and colours of the pairs; names of the groups below the axis."""
    if groups is None:
        order, names = list(outcomes), []
        shade = dict.fromkeys(order, BLUE)
    else:
        group_of = {name: str(groups.get(name, _OTHER)) for name in outcomes}
        known = [name for name in dict.fromkeys(map(str, groups.values())) if name != _OTHER]
        names = [name for name in (*known, _OTHER) if name in set(group_of.values())]
        rank = {name: i for i, name in enumerate(names)}
        order = sorted(outcomes, key=lambda name: rank[group_of[name]])
        shade = {name: (BLUE, ORANGE)[rank[group_of[name]] % 2] for name in outcomes}
        ends = np.searchsorted([rank[group_of[name]] for name in order], np.arange(len(names) + 1))
        if len(names) <= _MOST_GROUPS:
            middles = (ends[:-1] + ends[1:] - 1) / 2
            axis.set_xticks(middles, [_short(name) for name in names])
            axis.tick_params(axis="x", labelrotation=40 if len(names) > 4 else 0, length=0)
            for text in axis.get_xticklabels() if len(names) > 4 else ():
                text.set(ha="right", rotation_mode="anchor", fontsize=8)
        for end in ends[1:-1]:
            axis.axvline(end - 0.5, color=GREY, linewidth=0.4, alpha=0.4)
    place = {name: float(i) for i, name in enumerate(order)}
    axis.set_xlim(-0.02 * len(order) - 0.5, 1.02 * len(order) - 0.5)
    if not names and len(order) <= _FEW:
        axis.set_xticks(range(len(order)), [_short(name) for name in order], fontsize=8)
        axis.tick_params(axis="x", labelrotation=30 if len(order) > 3 else 0, length=0)
        for text in axis.get_xticklabels() if len(order) > 3 else ():
            text.set(ha="right", rotation_mode="anchor")
    elif not names:
        axis.set_xticks([])
    keys = [str(name) for name in table["outcome"]]
    return np.array([place[key] for key in keys]), np.array([shade[key] for key in keys])


def _name(
    axis: Any, table: pd.DataFrame, place: Float, height: Float, beyond: NDArray[Any], most: int
) -> None:
    """Name the strongest pairs, where no other label is in the way."""
    several = table["exposure"].nunique() > 1
    left, right = axis.get_xlim() if axis.get_xlim() != (0.0, 1.0) else (place.min(), place.max())
    width, top = max(right - left, 1e-300), float(height.max())
    taken: list[tuple[float, float, float]] = []
    for i in sorted(beyond, key=lambda i: -height[i])[:most]:
        x, y = (place[i] - left) / width, height[i] / top
        row = table.iloc[int(i)]
        text = _short(str(row["outcome"]))
        if several:
            text = f"{_short(str(row['exposure']))} on {text}"
        reach = _CHARACTER * len(text) + 0.01
        for side in (1, -1) if x < 0.6 else (-1, 1):
            start, end = sorted((x, x + side * reach))
            free = all(
                end < low or start > high or abs(y - level) > 0.045 for low, high, level in taken
            )
            if free and start >= 0 and end <= 1:
                taken.append((start, end, y))
                axis.annotate(
                    text,
                    (place[i], height[i]),
                    xytext=(6 * side, 3),
                    textcoords="offset points",
                    ha="left" if side > 0 else "right",
                    fontsize=7.5,
                )
                break


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _words(method: str) -> str:
    return {
        "ivw": "Inverse-variance weighting",
        "egger": "Egger regression",
        "weighted_median": "Weighted median",
        "wald_ratio": "Wald ratio",
    }[method]
