"""The figure of estimated curves beside the truth: `evaluation_figure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast.plots.colours import BLUE, GREY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mrfast.nonlinear.evaluation import ComparedCurve

__all__ = ["evaluation_figure"]

_COLUMNS = 3


def evaluation_figure(
    curves: Sequence[ComparedCurve], *, label: str = "Exposure", outcome: str = "Outcome"
) -> Any:
    """Draw each estimate with its limits over the truth, one panel for each.

    Parameters
    ----------
    curves : sequence of ComparedCurve
        What `mrfast.nonlinear.evaluation.compared_curves` returned.
    label, outcome : str
        Of the axes.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        There is no curve.
    MissingExtraError
        matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the evaluation figure")
    if not curves:
        raise check.fail("curves", "at least one", "none")
    columns = 2 if len(curves) == 4 else min(_COLUMNS, len(curves))
    domains = len({curve.domain for curve in curves}) > 1
    rows = -(-len(curves) // columns)
    figure = matplotlib.Figure(figsize=(0.8 + 3.2 * columns, 0.6 + 2.7 * rows), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis, curve in zip(axes.flat, curves, strict=False):
        _draw(axis, curve, f", {curve.domain}" if domains else "")
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    for axis in axes.flat[max(0, len(curves) - columns) : len(curves)]:
        axis.set_xlabel(label)
    for axis in axes[:, 0]:
        axis.set_ylabel(outcome)
    entries: dict[str, Any] = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize="small",
    )
    return figure


def _draw(axis: Any, curve: ComparedCurve, domain: str) -> None:
    measures = curve.measures()
    if curve.lower is not None and curve.upper is not None:
        inside = np.isfinite(curve.lower) & np.isfinite(curve.upper)
        axis.fill_between(
            curve.x,
            curve.lower,
            curve.upper,
            where=inside,
            color=BLUE,
            alpha=0.18,
            linewidth=0,
            label=f"{100 * curve.level:g}% limits" if curve.level == curve.level else "limits",
        )
    axis.plot(curve.x, curve.truth, color=GREY, linewidth=1.6, linestyle="--", label="truth")
    axis.plot(curve.x, curve.estimate, color=BLUE, linewidth=1.8, label="estimate")
    title = f"{curve.name}{domain}\nmean squared error {measures['mse']:.2g}"
    axis.set_title(title, fontsize="medium")
    axis.margins(x=0)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
