"""Vocabulary of association tables: one row per SNP (and trait), the same columns everywhere.

============== ========= =====================================================================
column         required  meaning
============== ========= =====================================================================
snp            yes       identifier; rows are matched by it, letter for letter
chromosome     no        text, without a leading ``chr``
position       no        base pair position, whole number
effect_allele  yes       allele that ``beta`` counts: letters, or D and I for an indel
other_allele   no        the other allele
eaf            no        frequency of the effect allele, 0 to 1
beta           yes       association per copy of the effect allele (log odds for a binary trait)
std_error      yes       standard error of ``beta``, above 0
p_value        no        0 to 1
n              no        sample size, above 0
trait          no        name of the exposure or outcome, where one table holds several
============== ========= =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrfast._optional import import_extra
from mrfast._runtime import Texts, missing_texts
from mrfast._validation import Float, fail

__all__ = ["COLUMNS", "REQUIRED_COLUMNS", "as_frame", "association_table", "text_values"]

COLUMNS = (
    "snp",
    "chromosome",
    "position",
    "effect_allele",
    "other_allele",
    "eaf",
    "beta",
    "std_error",
    "p_value",
    "n",
    "trait",
)
"""Canonical column names, in their order."""

REQUIRED_COLUMNS = ("snp", "effect_allele", "beta", "std_error")
"""Columns that every association table has."""

_MISSING = ("", ".", "NA", "NaN", "nan")  # "." from VCF; "NA" from R, which hands it over as text
_MISSING_ALLELE = (*_MISSING, "0")  # "0" from PLINK
_SHOWN = 12
_FARTHEST = 2**53  # whole numbers up to here are exact in floating point


def association_table(
    frame: pd.DataFrame | Mapping[str, object],
    *,
    argument: str,
    allow_missing: bool = True,
    required: Sequence[str] = REQUIRED_COLUMNS,
) -> pd.DataFrame:
    """Check a table of associations and bring it into mrfast's form.

    Rows are never dropped or reordered. Columns outside the vocabulary are left out.

    Parameters
    ----------
    frame : DataFrame or mapping of columns, shape: (n_rows, ...)
        Columns as in this module's table.
    argument : str
        Name of the caller's argument, for messages.
    allow_missing : bool, default True
        Accept rows whose ``snp``, ``effect_allele``, ``beta`` or ``std_error`` is missing;
        harmonisation flags such rows. The optional columns may always hold missing values.
    required : sequence of str, default REQUIRED_COLUMNS
        Columns that the caller needs.

    Returns
    -------
    DataFrame, shape: (n_rows, n_columns)
        The columns of the vocabulary that the input has, in its order, with a fresh index.
        Alleles are categories in upper case; ``chromosome`` and ``trait`` are categories;
        ``position`` is ``Int64``; ``beta``, ``std_error``, ``eaf``, ``p_value`` and ``n`` are
        float64. Identifiers and alleles that are empty, ``.`` or ``NA`` count as missing, and
        so does the allele ``0``.

    Raises
    ------
    InvalidInputError
        If the table is empty, lacks a required column or has a column twice, or if a value is
        not what its column holds: a standard error of 0 or below, a frequency outside 0 to 1,
        an allele that is not made of letters, text among numbers.
    """
    table = as_frame(frame, argument, required)
    columns: dict[str, object] = {}
    for name in (name for name in COLUMNS if name in table.columns):
        column = table[name].reset_index(drop=True)
        where = f"{argument}[{name!r}]"
        try:
            columns[name] = _checked(name, column, where)
        except UnicodeEncodeError as error:
            raise fail(where, "text that is valid Unicode", repr(error.object)) from error
    result = pd.DataFrame(columns, copy=False)
    if not allow_missing:
        for name in required:
            _first_row(
                f"{argument}[{name!r}]",
                "no missing values",
                result[name].isna().to_numpy(),
                result[name],
            )
    return result


def _checked(name: str, column: pd.Series[Any], where: str) -> object:
    """Values of a column in the form that its name asks for."""
    if name == "snp":
        return _identifiers(column)
    if name in ("effect_allele", "other_allele"):
        return _alleles(column, where)
    if name == "chromosome":
        return _chromosomes(column)
    if name == "trait":
        return _traits(column, where)
    if name == "position":
        return _positions(column, where)
    return _numbers(column, where, name)


def as_frame(
    frame: pd.DataFrame | Mapping[str, object], argument: str, required: Sequence[str]
) -> pd.DataFrame:
    """Table with rows and every required column once.

    Parameters
    ----------
    frame : DataFrame or mapping of columns
    argument : str
        Name of the caller's argument, for messages.
    required : sequence of str
        Columns that the caller needs.

    Returns
    -------
    DataFrame

    Raises
    ------
    InvalidInputError
        It is not a table, is empty, lacks a required column or has one of `COLUMNS` twice.
    """
    if isinstance(frame, Mapping):
        try:
            frame = pd.DataFrame(frame)
        except (TypeError, ValueError) as error:
            raise fail(argument, "columns of one length", str(error)) from error
    if not isinstance(frame, pd.DataFrame):
        raise fail(argument, "a pandas DataFrame", f"a {type(frame).__name__}")
    names = [str(name) for name in frame.columns]
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    missing = [name for name in required if name not in names]
    if missing:
        raise fail(
            argument,
            f"the columns {', '.join(required)}",
            f"a table without {', '.join(missing)} (it has {shown or 'no columns'}); rename its "
            "columns, or read the file with mrfast.read_associations, which knows other names",
        )
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise fail(argument, "every column once", f"{', '.join(twice)} more than once")
    if len(frame) == 0:
        raise fail(argument, "at least one row", "an empty table")
    return frame


def _first_row(where: str, expected: str, bad: NDArray[np.bool_], values: pd.Series[Any]) -> None:
    """Raise for the first bad row."""
    if not bad.any():
        return
    row = int(np.argmax(bad))
    count = int(bad.sum())
    more = "" if count == 1 else f" ({count} such rows)"
    value = values.iloc[row]
    shown = value.item() if isinstance(value, np.generic) else value
    raise fail(where, expected, f"{shown!r} at row {row}, counted from 0{more}")


def _text(column: pd.Series[Any]) -> pd.Series[Any]:
    """Text of a column; missing values stay missing, whole numbers lose a trailing ``.0``."""
    if isinstance(column.dtype, pd.StringDtype):
        return column.astype(object)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_numeric_dtype(column.dtype):
        present = column.dropna()
        if bool((present == present.round()).all()):
            column = column.astype("Int64")
    if pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty"):
        column = column.map(str, na_action="ignore")
    return column.astype(object)


def text_values(column: pd.Series[Any]) -> Texts:
    """Column of texts as the kernels take it.

    Parameters
    ----------
    column : Series
        Texts and missing values.

    Returns
    -------
    ndarray of object, or buffers of numbers where pandas keeps the column in Arrow's form
    """
    if not _in_arrow(column):
        return column.to_numpy(dtype=object)
    arrow = import_extra("pyarrow", extra="io", purpose="a column of pandas' Arrow texts")
    array = arrow.array(column.array)
    if isinstance(array, arrow.ChunkedArray):
        array = array.combine_chunks()
    array = array.cast(arrow.large_string())
    _, offsets, letters = array.buffers()
    present = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    return (
        np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1],
        np.frombuffer(b"" if letters is None else letters, dtype=np.uint8),
        present,
    )


def _in_arrow(column: pd.Series[Any]) -> bool:
    dtype = column.dtype
    return isinstance(dtype, pd.StringDtype) and str(dtype.storage).startswith("pyarrow")


def _identifiers(column: pd.Series[Any]) -> pd.Series[Any]:
    if _in_arrow(column) and not missing_texts(text_values(column), _MISSING).any():
        return column
    text = _text(column)
    values = text.to_numpy()
    try:
        missing = missing_texts(values, _MISSING)
    except TypeError:  # of pandas' own missing value
        values = text.to_numpy(dtype=object, na_value=np.nan)
        missing = missing_texts(values, _MISSING)
    if missing.any():
        values = np.where(missing, np.nan, values)
    return pd.Series(values, dtype=object, copy=False)


def _categories(column: pd.Series[Any]) -> tuple[NDArray[np.intp], list[str]]:
    """Codes (-1 = missing) and the distinct texts of a column."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        texts = _text(pd.Series(column.cat.categories))
        return column.cat.codes.to_numpy().astype(np.intp), [str(text) for text in texts]
    if isinstance(column.dtype, pd.StringDtype):
        codes, distinct = pd.factorize(column.array)
    else:
        codes, distinct = pd.factorize(_text(column).to_numpy())
    return codes.astype(np.intp), [str(text) for text in distinct]


def _recode(codes: NDArray[np.intp], texts: Sequence[str | None]) -> pd.Categorical[Any]:
    """Categorical of ``texts[codes]``; texts may repeat, and ``None`` is missing."""
    used = np.zeros(len(texts) + 1, dtype=np.bool_)  # the last is the place of code -1
    used[codes] = True
    categories = sorted({t for t, occurs in zip(texts, used, strict=False) if occurs and t})
    place = {text: code for code, text in enumerate(categories)}
    lookup = np.array(
        [*(place.get(text or "", -1) for text in texts), -1],
        dtype=np.min_scalar_type(-len(categories) - 1),
    )
    return pd.Categorical.from_codes(lookup[codes], categories=pd.Index(categories), validate=False)


def _alleles(column: pd.Series[Any], where: str) -> pd.Categorical[Any]:
    expected = "letters such as A, C, G and T, or D and I for a deletion and an insertion"
    if pd.api.types.is_bool_dtype(column.dtype):
        raise fail(where, expected, "True or False (R reads a column of T so)")
    codes, texts = _categories(column)
    texts = [text.strip() for text in texts]
    missing = [text in _MISSING_ALLELE for text in texts]
    bad = [
        code
        for code, text in enumerate(texts)
        if not (missing[code] or (text.isascii() and text.isalpha()))
    ]
    if bad:
        _first_row(where, expected, np.isin(codes, bad), column)
    return _recode(
        codes, [None if none else text.upper() for text, none in zip(texts, missing, strict=True)]
    )


def _chromosomes(column: pd.Series[Any]) -> pd.Categorical[Any]:
    codes, texts = _categories(column)
    plain = [text[3:] if text[:3].lower() == "chr" else text for text in texts]
    return _recode(codes, [text or None for text in plain])


def _traits(column: pd.Series[Any], where: str) -> pd.Categorical[Any]:
    codes, texts = _categories(column)
    result = _recode(codes, [text or None for text in texts])
    _first_row(where, "a name in every row", np.asarray(result.codes) < 0, column)
    return result


def _floats(column: pd.Series[Any], where: str) -> Float:
    """Column as float64; missing values become NaN, text and infinities raise."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if column.dtype.kind in "bcmM":  # of which pandas makes numbers: truth, complex, times
        raise fail(where, "numbers", f"values of type {column.dtype}")
    if not pd.api.types.is_numeric_dtype(column.dtype):
        try:
            numbers = pd.to_numeric(column, errors="coerce")
        except OverflowError as error:
            raise fail(where, "finite numbers", str(error)) from error
        _first_row(where, "numbers", (numbers.isna() & column.notna()).to_numpy(), column)
    else:
        numbers = column
    values: Float = np.array(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    _first_row(where, "finite numbers", np.isinf(values), column)
    return values


def _numbers(column: pd.Series[Any], where: str, name: str) -> Float:
    values = _floats(column, where)
    if name in ("std_error", "n"):
        _first_row(where, "numbers above 0", values <= 0, column)
    elif name in ("eaf", "p_value"):
        _first_row(where, "numbers from 0 to 1", (values < 0) | (values > 1), column)
    return values


def _positions(column: pd.Series[Any], where: str) -> pd.arrays.IntegerArray:
    values = _floats(column, where)
    missing = np.isnan(values)
    bad = ~missing & ((values < 0) | (values > _FARTHEST) | (values != np.floor(values)))
    _first_row(where, f"whole numbers from 0 to {_FARTHEST}", bad, column)
    return pd.arrays.IntegerArray(np.where(missing, 0.0, values).astype(np.int64), missing)
