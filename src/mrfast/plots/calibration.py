"""The figure of an empirical null: `calibration_figure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast.plots.colours import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from mrfast.summary.calibration import EmpiricalNull

__all__ = ["calibration_figure"]

_MARGIN = 1.15


def calibration_figure(
    null: EmpiricalNull,
    estimate: float | None = None,
    std_error: float | None = None,
    *,
    level: float = 0.95,
    label: str = "Log odds ratio per unit of exposure",
) -> Any:
    """Negative controls by estimate and standard error, with the borders of significance.

    Below the dashed lines an estimate is significant without calibration; outside the shaded
    region it is with calibration.

    Parameters
    ----------
    null : EmpiricalNull
        What `empirical_null` returned.
    estimate, std_error : float, optional
        An estimate to show.
    level : float, default 0.95
        1 less the level of significance.
    label : str
        Of the axis of estimates.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    InvalidInputError
        An estimate without its standard error.
    MissingExtraError
        matplotlib is not installed.
    """
    from scipy.special import ndtri

    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the calibration figure")
    if (estimate is None) != (std_error is None):
        raise check.fail("estimate, std_error", "both or neither", "one of them")
    level = check.scalar("level", level, above=0, below=1)
    x, y = null.estimates, null.std_errors
    if estimate is not None and std_error is not None:
        estimate = check.scalar("estimate", estimate)
        std_error = check.scalar("std_error", std_error, above=0)
        x, y = np.append(x, estimate), np.append(y, std_error)
    z = float(-ndtri((1 - level) / 2))
    top = _MARGIN * float(y.max())
    low = min(float(x.min()), null.mean - z * null.sd, 0.0)
    high = max(float(x.max()), null.mean + z * null.sd, 0.0)
    margin = 0.12 * (high - low)
    heights = np.linspace(top / 200, top, 100)
    lower, upper = null.interval(0.0, heights, level)

    figure = matplotlib.Figure(figsize=(7.2, 5.2), dpi=150)
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    axis.fill_betweenx(
        heights,
        -upper,
        -lower,
        color=ORANGE,
        alpha=0.13,
        linewidth=0,
        label=f"not significant after calibration (p > {1 - level:.2g})",
    )
    for sign in (-1, 1):
        axis.plot(
            sign * z * heights,
            heights,
            color=GREY,
            lw=1.1,
            ls=(0, (5, 3)),
            label="significant without calibration: below these lines" if sign > 0 else None,
        )
    axis.axvline(0.0, color=GREY, lw=0.8)
    axis.axvline(null.mean, color=ORANGE, lw=1.1, label=f"mean systematic error {null.mean:.3g}")
    axis.plot(
        null.estimates,
        null.std_errors,
        "o",
        color=BLUE,
        ms=5.5,
        mec="white",
        mew=0.6,
        clip_on=False,
        label=f"{null.n_controls} negative controls",
    )
    if estimate is not None and std_error is not None:
        p = null.p_value(estimate, std_error)
        axis.plot(
            estimate,
            std_error,
            "D",
            color="black",
            ms=7,
            mec="white",
            mew=0.8,
            label=f"estimate, calibrated p = {p:.2g}",
        )
    axis.set_xlim(low - margin, high + margin)
    axis.set_ylim(0, top)
    axis.set_xlabel(label)
    axis.set_ylabel("Standard error")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    return figure
