"""Covariates of a site's persons: joined by identifier, texts as indicators, rows complete or not.

A covariate is a number, True or False, or a text or category, which becomes one indicator for
every level but the first. Tables of the form (person, covariateId, covariateValue) hold what is
not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float, fail
from mrfast.federated.cohort import PERSON_KEYS, Cohort, PersonIds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["CovariateTable", "Design", "covariate_table"]

_LONG_FORM = ("covariateId", "covariateValue")
_MOST_LEVELS = 100
_IN_ORDER = "covariates were matched with the cohort by the order of the rows"


@dataclass(frozen=True, eq=False)
class Design:
    """Covariates of the analysed persons.

    Attributes
    ----------
    names : tuple of str, length p
    values : ndarray, shape (n, p)
        Every column varies.
    constant : tuple of str
        Covariates left out because they are the same for all analysed persons.
    """

    names: tuple[str, ...]
    values: Float
    constant: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CovariateTable:
    """Covariates of a cohort, in the order of its persons.

    Attributes
    ----------
    names : tuple of str, length q
    columns : ndarray, shape (q, n)
        Numbers, or places of levels; NaN where missing.
    levels : tuple, length q
        Names of the levels, or None for a number.
    n_without_row : int
        Persons of whom the covariates' table has no row.
    matched : str or None
        How rows were matched with the cohort's, where the site should know.
    """

    names: tuple[str, ...]
    columns: Float
    levels: tuple[tuple[str, ...] | None, ...]
    n_without_row: int
    matched: str | None = None

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Persons of whom no covariate is missing, shape (n,)."""
        complete: NDArray[np.bool_] = np.logical_not(np.isnan(self.columns).any(axis=0))
        return complete

    def design(self, rows: NDArray[np.intp] | slice) -> Design:
        """Columns of the regression for some persons, all of them complete."""
        table = self.columns[:, rows]
        names: list[str] = []
        columns: list[Float] = []
        constant: list[str] = []
        for name, own, levels in zip(self.names, table, self.levels, strict=True):
            if own.size == 0 or own.min() == own.max():
                constant.append(name)
            elif levels is None:
                names.append(name)
                columns.append(own)
            else:
                for place in np.unique(own)[1:].astype(int):
                    names.append(f"{name}[{levels[place]}]")
                    columns.append((own == place).astype(np.float64))
        if tuple(names) != self.names:
            table = np.array(columns).reshape(len(columns), table.shape[1])
        return Design(tuple(names), table.T, tuple(constant))


def covariate_table(
    cohort: Cohort, covariates: pd.DataFrame | Sequence[str] | str | ArrayLike | None
) -> CovariateTable:
    """Covariates of a cohort from a table, from its own columns or from an array.

    Parameters
    ----------
    cohort : Cohort
    covariates : DataFrame, sequence of str, array-like of shape (n, p), or None
        A table with a column ``person_id``, ``personId`` or ``rowId`` is joined by it; one without
        must have the cohort's rows in the cohort's order. Texts name columns of the cohort. None:
        those the cohort was made with, if any.

    Returns
    -------
    CovariateTable

    Raises
    ------
    InvalidInputError
        If persons occur twice or none is in both tables, rows cannot be matched, a column is
        missing, is the outcome, has more than 100 levels or an infinite value.
    """
    if covariates is None:
        covariates = cohort.covariates
    if covariates is None:
        return CovariateTable((), np.zeros((0, cohort.n)), (), 0)
    if isinstance(covariates, str):
        covariates = [covariates]
    if isinstance(covariates, pd.Series):
        covariates = covariates.to_frame()
    if isinstance(covariates, pd.DataFrame):
        return _joined(cohort, covariates)
    values = np.asarray(covariates)
    if values.ndim == 1 and all(isinstance(name, str) for name in values.tolist()):
        names = [str(name) for name in values.tolist()]
        if not names:
            return CovariateTable((), np.zeros((0, cohort.n)), (), 0)
        check.name_tuple("covariates", names, length=len(names))
        return _encoded(cohort.columns(names, "covariates"), None, 0)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[0] != cohort.n or values.dtype.kind not in "biufO":
        raise fail(
            "covariates",
            f"a table, names of the cohort's columns or numbers of shape ({cohort.n}, p)",
            f"an array of {values.dtype}, shape {values.shape}",
        )
    names = [f"covariate_{place + 1}" for place in range(values.shape[1])]
    return _encoded(pd.DataFrame(values, columns=names), None, 0, matched=_IN_ORDER)


def _joined(cohort: Cohort, table: pd.DataFrame) -> CovariateTable:
    if table.index.name in PERSON_KEYS and table.index.name not in table.columns:
        table = table.reset_index()
    table = table.set_axis([str(name) for name in table.columns], axis="columns")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()].unique()
        raise fail("covariates", "every column once", f"{', '.join(twice)} more than once")
    if "outcome" in table.columns:
        raise fail("covariates", "covariates", "a table that holds the outcome")
    key, persons = _shared_key(cohort, table)
    is_long = all(name in table.columns for name in _LONG_FORM)
    if key is None or persons is None:
        if is_long or len(table) != cohort.n:
            raise fail(
                "covariates",
                f"a column {', '.join(PERSON_KEYS[:2])} or {PERSON_KEYS[2]} in both tables, or "
                f"the {cohort.n} rows of the cohort",
                f"{len(table)} rows, "
                + ("no such column" if key is None else "and a cohort without such a column"),
            )
        if key is not None or not _same_index(cohort, table):
            raise fail(
                "covariates",
                "rows that can be matched with the cohort's: an identifier in both tables, or the "
                "same index",
                f"a table {'with' if key else 'without'} identifiers and another index",
            )
        return _encoded(table, None, 0, matched=_IN_ORDER)
    if is_long:
        table = _wide(table, key)
    ids = PersonIds(table[key], f"covariates[{key!r}]")
    rows = persons.rows_in(ids)
    absent = int(np.count_nonzero(rows < 0))
    if absent == cohort.n:
        raise fail(
            "covariates",
            "persons of the cohort",
            f"none of them in its column {key!r} (such as {ids.index[0]!r}, and "
            f"{persons.index[0]!r} in the cohort)",
        )
    said = None
    if key == PERSON_KEYS[2] and key not in persons.argument:  # it may have been a row's number
        said = f"{ids.argument} was matched with {persons.argument}"
    others = [name for name in table.columns if name not in PERSON_KEYS]
    result = _encoded(table[others], rows, 0 if is_long else absent, matched=said)
    if is_long:  # a person without a row has none of its covariates
        result.columns[:, rows < 0] = 0
    return result


def _shared_key(cohort: Cohort, table: pd.DataFrame) -> tuple[str | None, PersonIds | None]:
    """Identifier of a table of covariates, and what identifies the cohort's persons there."""
    keys = [key for key in PERSON_KEYS if key in table.columns]
    if not keys:
        return None, cohort.person_id
    for key in keys:
        if key in cohort.column_names:  # beside the one that identifies the cohort's rows
            return key, PersonIds(cohort.columns([key], "cohort")[key], f"cohort[{key!r}]")
    return keys[0], cohort.person_id


def _same_index(cohort: Cohort, table: pd.DataFrame) -> bool:
    own = cohort.row_names
    return own is None or own.equals(table.index)


def _wide(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """One row for every person from one row for every covariate that is not zero."""
    pairs = table[[key, "covariateId"]]
    if bool(pairs.duplicated().any()):
        person, covariate = pairs[pairs.duplicated()].iloc[0]
        raise fail(
            "covariates",
            "every covariate of a person once",
            f"covariate {covariate} of {person} more than once",
        )
    wide = table.pivot(index=key, columns="covariateId", values="covariateValue")
    missing = table["covariateValue"].isna()
    if missing.any():  # a value that is missing is not one that is absent, which means zero
        gaps = table.assign(gap=missing.astype(float))
        gaps = gaps.pivot(index=key, columns="covariateId", values="gap")
        wide = wide.fillna(0.0).mask(gaps == 1)
    else:
        wide = wide.fillna(0.0)
    wide.columns = pd.Index([f"covariate_{name}" for name in wide.columns])
    return wide.reset_index()


def _encoded(
    table: pd.DataFrame, rows: NDArray[np.intp] | None, absent: int, matched: str | None = None
) -> CovariateTable:
    names = [str(name) for name in table.columns]
    n = len(table) if rows is None else rows.size
    in_order = rows is None or (rows.size == len(table) and bool((np.diff(rows) == 1).all()))
    columns = np.empty((len(names), n))
    levels: list[tuple[str, ...] | None] = []
    for out, name in zip(columns, names, strict=True):
        values, own = _column(table[name], f"covariates[{name!r}]")
        levels.append(own)
        if in_order:
            out[:] = values
        else:
            assert rows is not None
            out[:] = values[rows]
            out[rows < 0] = np.nan
    return CovariateTable(tuple(names), columns, tuple(levels), absent, matched)


def _column(column: pd.Series[Any], where: str) -> tuple[Float, tuple[str, ...] | None]:
    """Numbers of a column, or the places of its texts among their levels."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, levels = column.cat.codes.to_numpy(), [str(v) for v in column.cat.categories]
    else:
        kind = pd.api.types.infer_dtype(column, skipna=True)
        if kind in ("boolean", "integer", "floating", "mixed-integer-float", "decimal", "empty"):
            values = np.array(
                pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
                if kind != "boolean"
                else column.map({True: 1.0, False: 0.0}).to_numpy(dtype=np.float64)
            )
            if np.isinf(values).any():
                raise fail(where, "finite numbers", "an infinite one")
            return values, None
        if kind != "string":
            raise fail(where, "numbers, True and False, or texts", f"values of type {kind}")
        codes, found = pd.factorize(column, sort=True)
        levels = [str(v) for v in found]
    if len(levels) > _MOST_LEVELS:
        raise fail(where, f"at most {_MOST_LEVELS} levels of a text", f"{len(levels)}")
    places = codes.astype(np.float64)
    places[codes < 0] = np.nan
    return places, tuple(levels)
