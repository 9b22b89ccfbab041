"""Files of simulated people, and of the parameters that they were drawn from."""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._files import nullable_json, replace_file
from mrfast._progress import progress_hook
from mrfast._validation import Float

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Form", "Progress", "save_simulation", "true_effect_content"]

Form = Literal["csv.gz", "parquet"]
Progress = bool | Callable[[int, int], None]

_FORMAT = "mrfast simulation"
_VERSION = 1
_GRID = 201  # points of a true effect
_ROWS = 2**15  # written at a time


def save_simulation(
    frame: pd.DataFrame,
    content: Mapping[str, Any],
    prefix: str | os.PathLike[str],
    form: Form,
    progress: Progress = False,
) -> tuple[Path, Path]:
    """Write simulated people and what they were drawn from.

    The same people give the same bytes; files that are there are replaced once the new ones are
    complete.

    Parameters
    ----------
    frame : DataFrame
    content : mapping
        For the file of parameters: texts, numbers, arrays, and lists and mappings of these.
    prefix : path-like
        The files are ``<prefix>_sim_data.csv.gz`` or ``.parquet``, and
        ``<prefix>_sim_parameters.json``. Folders are made.
    form : {"csv.gz", "parquet"}
        A text has every digit of its numbers, and takes several times as long.
    progress : bool or callable
        True writes to standard error how far a text is; a callable takes the people done and all.

    Returns
    -------
    data, parameters : Path
    """
    check.choice("form", form, ("csv.gz", "parquet"))
    data = Path(f"{os.fspath(prefix)}_sim_data.{form}")
    parameters = Path(f"{os.fspath(prefix)}_sim_parameters.json")
    document = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "mrfast_version": _runtime.build_config()["version"],
        "data": data.name,
        **content,
    }
    text = json.dumps(nullable_json(document), indent=1, allow_nan=False, default=repr) + "\n"
    data.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=data.parent, prefix=f".{data.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if form == "parquet":
                _write_parquet(frame, stream)
            else:
                _write_text(frame, stream, progress)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, data)
    except BaseException:
        os.unlink(temporary)
        raise
    replace_file(parameters, text.encode())
    return data, parameters


def true_effect_content(
    expression: str | None, exposure: NDArray[Any], effect: Callable[[ArrayLike], Float]
) -> dict[str, Any]:
    """True effect for the file of parameters: its words, and values over the exposure's range.

    Parameters
    ----------
    expression : str or None
    exposure : ndarray, shape (n,)
    effect : callable

    Returns
    -------
    dict
    """
    grid = np.linspace(float(exposure.min()), float(exposure.max()), _GRID)
    return {"expression": expression, "x": grid, "effect": effect(grid)}


def _write_text(frame: pd.DataFrame, stream: Any, progress: Progress) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=stream, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
        progress_hook(progress, len(frame), "people", "simulate") as said,
    ):
        for start in range(0, len(frame), _ROWS):
            part = frame.iloc[start : start + _ROWS]
            part.to_csv(text, index=False, header=start == 0, lineterminator="\n")
            if said is not None:
                said(start + len(part))


def _write_parquet(frame: pd.DataFrame, stream: Any) -> None:
    try:
        frame.to_parquet(stream, index=False)
    except ImportError as error:
        raise check.fail(
            "form", "csv.gz, or pyarrow installed to write parquet", "parquet without it"
        ) from error
