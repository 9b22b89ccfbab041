"""Tables that are harmonised already, one row a SNP with both associations: `read_harmonised`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from mrfast._validation import fail, listed
from mrfast.io.tables import read_frame

__all__ = ["HARMONISED_NAMES", "read_harmonised"]

HARMONISED_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "snp": ("snp", "rsid", "snps", "variant_id", "markername"),
        "exposure": ("exposure", "id_exposure"),
        "outcome": ("outcome", "id_outcome"),
        "beta_exposure": ("beta_exposure", "bx", "betax", "beta_x", "b_exp"),
        "se_exposure": ("se_exposure", "bxse", "betaxse", "sx", "se_x", "se_exp"),
        "beta_outcome": ("beta_outcome", "by", "betay", "beta_y", "b_out"),
        "se_outcome": ("se_outcome", "byse", "betayse", "sy", "se_y", "se_out"),
        "eaf_exposure": ("eaf_exposure", "eaf"),
        "eaf_outcome": ("eaf_outcome",),
        "p_value_exposure": ("p_value_exposure", "pval_exposure"),
        "p_value_outcome": ("p_value_outcome", "pval_outcome"),
        "n_exposure": ("n_exposure", "samplesize_exposure"),
        "n_outcome": ("n_outcome", "samplesize_outcome"),
        "keep": ("keep", "mr_keep"),
    }
)
"""Columns of a harmonised table, and the names that mrfast, TwoSampleMR and
MendelianRandomization give them (capitals and ``.``, ``-`` or blanks for ``_`` do not matter)."""

_NEEDED = ("beta_exposure", "se_exposure", "beta_outcome", "se_outcome")
_TEXTS = ("snp", "exposure", "outcome")
_TRUTH = {"true": True, "t": True, "1": True, "1.0": True}
_TRUTH |= {"false": False, "f": False, "0": False, "0.0": False}


def read_harmonised(
    path: str | os.PathLike[str], *, columns: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Read a table of SNPs with their associations with an exposure and an outcome.

    Such as ``mrfast harmonise`` writes, ``harmonise_data`` of TwoSampleMR returns or
    ``mr_input`` of MendelianRandomization takes.

    Parameters
    ----------
    path : path of a file
        Text, as `mrfast.read_associations` reads it, or parquet.
    columns : mapping of str to str, optional
        Columns of the file for names of `HARMONISED_NAMES`; the others are recognised.

    Returns
    -------
    DataFrame
        The columns of `HARMONISED_NAMES` that the file has, by these names; only rows to be used,
        where it says which. For `mrfast.mr` and `mrfast.sensitivity`.

    Raises
    ------
    InvalidInputError
        The file is not a table, lacks an association, or holds one that is not a number.
    OSError
        The file cannot be opened.
    """
    name = Path(path).name
    given = dict(columns or {})
    unknown = [key for key in given if key not in HARMONISED_NAMES]
    if unknown:
        raise fail("columns", f"names such as {listed(HARMONISED_NAMES)}", repr(unknown[0]))
    frame = read_frame(path)
    found = {key: _column(frame, name, key, given.get(key)) for key in HARMONISED_NAMES}
    lacking = [key for key in _NEEDED if found[key] is None]
    if lacking:
        raise fail(name, f"a column {lacking[0]}", f"columns {listed(map(str, frame.columns))}")
    table = pd.DataFrame({key: frame[place] for key, place in found.items() if place is not None})
    keep = np.ones(len(table), dtype=np.bool_)
    if "keep" in table:
        keep = _kept(name, table.pop("keep"))
    table = table[keep].reset_index(drop=True)
    for key in table:
        if key in _TEXTS:
            table[key] = table[key].astype(str)
        else:
            table[key] = _numbers(name, str(key), table[key])
    return table


def _plain(name: object) -> str:
    return re.sub(r"[.\-\s]+", "_", str(name).strip().lower())


def _column(frame: pd.DataFrame, file: str, key: str, given: str | None) -> Any:
    """Column of the file for a name; None where there is none."""
    if given is not None:
        if given not in frame:
            raise fail("columns", f"columns of {file} ({listed(map(str, frame))})", repr(given))
        return given
    plain = {_plain(column): column for column in reversed(frame.columns)}
    return next((plain[name] for name in HARMONISED_NAMES[key] if name in plain), None)


def _kept(file: str, column: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    words = [str(value).strip().lower() for value in column]
    bad = [word for word in words if word not in _TRUTH]
    if bad:
        raise fail(f"{file}, column keep", "TRUE or FALSE in every row", repr(bad[0]))
    return np.array([_TRUTH[word] for word in words], dtype=np.bool_)


def _numbers(file: str, key: str, column: pd.Series[Any]) -> Any:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.isnan(numbers) & column.notna().to_numpy()
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise fail(f"{file}, column {key}", "numbers", f"{column.iloc[row]!r}")
    if key in _NEEDED and np.isnan(numbers).any():
        row = int(np.flatnonzero(np.isnan(numbers))[0]) + 1
        raise fail(
            f"{file}, column {key}", "a number in every row to be used", f"none in row {row}"
        )
    return numbers
