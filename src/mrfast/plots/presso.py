"""The figure of MR-PRESSO's outlier test: `presso_figure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._optional import import_extra
from mrfast.plots.colours import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from mrfast.summary.presso_test import MVPressoResult, PressoResult

__all__ = ["presso_figure"]

_LABELLED = 20


def presso_figure(result: PressoResult | MVPressoResult) -> Any:
    """Standardised residual of each SNP about the estimate without it, outliers marked.

    Outside the dashed lines a SNP's corrected p-value is below `alpha`.

    Parameters
    ----------
    result : PressoResult or MVPressoResult
        What `mr_presso` returned.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot; save it with ``figure.savefig``.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    from scipy.special import ndtri

    matplotlib = import_extra("matplotlib.figure", extra="plot", purpose="the MR-PRESSO figure")
    z = result.outlier_test.standardised
    places = np.arange(len(z))
    outlier = np.isin(places, result.outliers)
    border = float(-ndtri(result.alpha / (2 * len(z))))

    figure = matplotlib.Figure(figsize=(7.2, 4.4), dpi=150)
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    axis.axhline(0, color=GREY, linewidth=0.8)
    for sign in (-1, 1):
        label = f"Corrected p = {result.alpha:g}" if sign > 0 else None
        axis.axhline(sign * border, color=GREY, linewidth=1, linestyle="--", label=label)
    axis.vlines(places, 0, z, color=GREY, linewidth=0.6, alpha=0.5)
    axis.plot(places[~outlier], z[~outlier], "o", color=BLUE, markersize=4, label="SNP")
    if outlier.any():
        axis.plot(places[outlier], z[outlier], "D", color=ORANGE, markersize=6, label="Outlier")
    for i in sorted(result.outliers, key=lambda i: -abs(z[i]))[:_LABELLED]:
        axis.annotate(
            str(i), (i, z[i]), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.margins(x=0.04, y=0.1)
    axis.set_xlabel("SNP (position in the data)")
    axis.set_ylabel("Standardised residual")
    test = result.global_test
    axis.set_title(f"MR-PRESSO: global p = {test.p_value:.3g}, outliers: {len(result.outliers)}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
