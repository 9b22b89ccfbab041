"""The panel of sensitivity analyses to files: `write_sensitivity`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast import _validation as check
from mrfast._files import replace_file
from mrfast._optional import import_extra
from mrfast.io.tables import write_table

if TYPE_CHECKING:
    from mrfast.summary.sensitivity_panel import Sensitivity

__all__ = ["SENSITIVITY_FILES", "write_sensitivity"]

SENSITIVITY_FILES: Mapping[str, str] = {
    "summary.txt": "estimates, assumptions, diagnostics and disagreements, in words",
    "sensitivity.json": "everything, for programs",
    "methods.csv": "one row a method",
    "heterogeneity.csv": "Cochran's Q and Ruecker's Q'",
    "egger.csv": "Egger regression with its intercept and I2_GX",
    "presso.csv": "MR-PRESSO: global test, estimate without outliers, distortion",
    "presso_snps.csv": "MR-PRESSO: outlier test of each SNP",
    "radial.csv": "radial regression",
    "radial_snps.csv": "each SNP's part of Q",
    "influence.csv": "leverage, residual and Cook's distance of each SNP",
    "leave_one_out.csv": "the estimate without each SNP",
    "single_snp.csv": "the ratio of each SNP",
    "funnel.csv": "ratios and their precisions",
    "steiger.csv": "test of the causal direction",
    "associations.csv": "what was analysed",
    "checks.csv": "the diagnostics in words",
    "scatter.png": "associations of the SNPs with both traits, lines of the methods",
    "forest.png": "ratio of each SNP, pooled estimates below",
    "funnel.png": "ratios against their precision",
    "leave_one_out.png": "the estimate without each SNP",
    "radial.png": "radial plot, outliers marked",
}
"""What `write_sensitivity` writes: file names, and what the files hold."""

_FORMAT = "mrfast sensitivity"
_VERSION = 1


def write_sensitivity(
    panel: Sensitivity, folder: str | os.PathLike[str], *, figures: bool = True
) -> dict[str, str]:
    """Write a result of `sensitivity` into a folder, as files of ``SENSITIVITY_FILES``.

    The folder is made if need be. In an existing one, files of these names are replaced, and
    those that this result does not have are removed.

    Parameters
    ----------
    panel : Sensitivity
    folder : path of a folder
    figures : bool, default True
        Draw the figures (plot extra).

    Returns
    -------
    dict of str
        Names of the files written, with what they hold.

    Raises
    ------
    MissingExtraError
        `figures` are wanted and matplotlib is not installed; nothing is written then.
    OSError
        A file cannot be written.
    """
    drawings = {}
    if check.flag("figures", figures):
        import_extra("matplotlib.figure", extra="plot", purpose="the figures of the analysis")
        kinds = [name.removesuffix(".png") for name in SENSITIVITY_FILES if name.endswith(".png")]
        drawings = {
            f"{kind}.png": panel.plot(kind)
            for kind in kinds
            if kind != "radial" or panel.radial is not None
        }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = {"summary.txt", "sensitivity.json"}
    for name, frame in panel.to_frames().items():
        write_table(frame, target / f"{name}.csv")
        written.add(f"{name}.csv")
    for name, drawing in drawings.items():
        drawing.savefig(target / name, format="png")
        written.add(name)
    document = {"format": _FORMAT, "format_version": _VERSION, **panel.to_dict()}
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    replace_file(target / "sensitivity.json", f"{text}\n".encode())
    replace_file(target / "summary.txt", f"{panel.summary()}\n".encode())
    for name in SENSITIVITY_FILES:
        if name not in written:
            (target / name).unlink(missing_ok=True)
    return {name: meaning for name, meaning in SENSITIVITY_FILES.items() if name in written}
