"""The persons of one site: outcomes, dosages and what else is known about them.

Dosages stay in the memory and the type that they came in. They are read in blocks of SNPs, so that
a cohort of 500,000 persons with 1,000 SNPs in single bytes is never copied as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float, fail, listed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "PERSON_KEYS",
    "Cohort",
    "DosageSummary",
    "PersonIds",
    "binary_column",
    "sanitised",
]

PERSON_KEYS = ("person_id", "personId", "rowId")
"""Columns that identify persons, in the order in which they are looked for."""

_BLOCK_BYTES = 2**25
_MOST_SNPS_AT_ONCE = 64
_STRETCH = 4096  # persons
_ROUNDING = 1e-6  # dosages in single precision may exceed 2 by this much


def sanitised(snp: str) -> str:
    """Medusa's name of a SNP's column: every character but letters and digits replaced.

    Parameters
    ----------
    snp : str

    Returns
    -------
    str
    """
    return "snp_" + re.sub("[^A-Za-z0-9]", "_", snp)


@dataclass(frozen=True, eq=False)
class DosageSummary:
    """What is known of every SNP among some persons.

    Attributes
    ----------
    n_missing : ndarray of int, shape (J,)
    mean : ndarray, shape (J,)
        Of the observed dosages; NaN where there is none.
    varies : ndarray of bool, shape (J,)
        Whether two observed dosages differ.
    carriers : ndarray of int, shape (J, 2)
        Controls and cases with a dosage of the rarer allele above 0.5.
    """

    n_missing: NDArray[np.intp]
    mean: Float
    varies: NDArray[np.bool_]
    carriers: NDArray[np.intp]


class PersonIds:
    """Identifiers of persons, whole numbers or texts, each of them once.

    Parameters
    ----------
    values : array-like, shape (n,)
    argument : str
        Their name, for messages.

    Attributes
    ----------
    index : Index
        The identifiers.

    Raises
    ------
    InvalidInputError
        If an identifier is missing or occurs twice, or is a number with decimals.
    """

    def __init__(self, values: object, argument: str) -> None:
        self.argument = argument
        self.index = _identifiers(pd.Series(values).reset_index(drop=True), argument)
        if not self.index.is_unique:
            twice = self.index[self.index.duplicated()].unique()
            raise fail(
                argument,
                "one row for every person",
                f"{listed(twice)} more than once ({len(twice)} such persons)",
            )

    def __len__(self) -> int:
        return len(self.index)

    def rows_in(self, other: PersonIds) -> NDArray[np.intp]:
        """Row of every person in another table, -1 where it has none.

        Numbers and texts match where they are written alike: 12 matches "12". Texts such as "012",
        which only match a number once their zeros are dropped, are refused.
        """
        own, others = self.index, other.index
        if (own.dtype == object) != (others.dtype == object):
            texts, numbers = (own, others) if own.dtype == object else (others, own)
            padded = [t for t in texts if t.strip().isdigit() and t != str(int(t))]
            if padded and np.isin([int(t) for t in padded], numbers.to_numpy()).any():
                raise fail(
                    other.argument,
                    f"identifiers written as in {self.argument}",
                    f"numbers in one and texts such as {padded[0]!r} in the other",
                )
            own, others = own.map(str).astype(object), others.map(str).astype(object)
        return np.asarray(others.get_indexer(own), dtype=np.intp)


class Cohort:
    """Persons with an outcome and dosages; made by `from_frame` or `from_arrays`.

    Attributes
    ----------
    outcome : ndarray, shape (n,)
        1 for cases, 0 for controls, NaN where it is not known.
    person_id : PersonIds or None
    """

    def __init__(
        self,
        outcome: Float,
        person_id: PersonIds | None,
        source: pd.DataFrame | NDArray[Any],
        places: dict[str, int],
        covariates: pd.DataFrame | ArrayLike | None = None,
        own: Sequence[str | None] = (),
    ) -> None:
        # of parts that `from_frame` or `from_arrays` has checked
        self.outcome = outcome
        self.person_id = person_id
        self.covariates = covariates
        self._source = source
        self._places = places
        self._own = own  # columns of the outcome and of the identifier

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame | Mapping[str, object],
        *,
        outcome: str = "outcome",
        person_id: str | None = None,
    ) -> Cohort:
        """Cohort from a table with one row for every person.

        Parameters
        ----------
        frame : DataFrame or mapping of columns, shape (n, ...)
            The outcome; a column for every SNP, named by the SNP, or ``snp_`` and its name with
            every character but letters and digits replaced by ``_``; and further columns, which
            can be covariates or negative controls. Missing values are NaN or NA.
        outcome : str, default "outcome"
            Column of the outcome: 0 and 1, or False and True.
        person_id : str, optional
            Column of the persons' identifiers: by default ``person_id``, ``personId`` or
            ``rowId``, where one of these is there or names the index.

        Returns
        -------
        Cohort

        Raises
        ------
        InvalidInputError
            If the table is empty, a column is missing or occurs twice, a person occurs twice, or
            the outcome is anything but 0, 1 and missing.
        """
        if isinstance(frame, Mapping):
            try:
                frame = pd.DataFrame(frame)
            except (TypeError, ValueError) as error:
                raise fail("cohort", "columns of one length", str(error)) from error
        if not isinstance(frame, pd.DataFrame):
            raise fail("cohort", "a pandas DataFrame or a Cohort", f"a {type(frame).__name__}")
        names = [str(name) for name in frame.columns]
        if len(frame) == 0:
            raise fail("cohort", "at least one person", "an empty table")
        for name in (outcome, person_id):
            if name is not None and name not in names:
                raise fail("cohort", f"a column {name!r}", f"only {listed(names)}")
        places = {name: place for place, name in enumerate(names)}
        if len(places) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise fail("cohort", "every column once", f"{listed(twice)} more than once")
        key = (
            next((k for k in PERSON_KEYS if k in places), None) if person_id is None else person_id
        )
        ids = None
        if key is not None:
            ids = PersonIds(frame.iloc[:, places[key]], f"cohort[{key!r}]")
        elif frame.index.name in PERSON_KEYS:
            ids = PersonIds(frame.index, f"cohort.index ({frame.index.name})")
        values = binary_column(frame.iloc[:, places[outcome]], f"cohort[{outcome!r}]")
        own = (outcome, key)
        return cls(values, ids, frame, {k: v for k, v in places.items() if k not in own}, own=own)

    @classmethod
    def from_arrays(
        cls,
        outcome: ArrayLike,
        dosages: ArrayLike,
        snps: Sequence[str],
        *,
        person_id: ArrayLike | None = None,
        covariates: pd.DataFrame | ArrayLike | None = None,
    ) -> Cohort:
        """Cohort from arrays with one row for every person.

        Parameters
        ----------
        outcome : array-like, shape (n,)
            0 and 1, or False and True; NaN where it is not known.
        dosages : array-like, shape (n, J)
            From 0 to 2, of any integer or floating type, possibly memory-mapped; not copied.
            Missing ones are NaN or, in an array of signed integers, negative.
        snps : sequence of str, length J
            Identifiers of the columns.
        person_id : array-like, shape (n,), optional
        covariates : DataFrame or array-like, shape (n, p), optional
            Used by `fit_site` where it is given no others.

        Returns
        -------
        Cohort

        Raises
        ------
        InvalidInputError
            If shapes do not agree, a person or a SNP occurs twice, or the outcome is anything but
            0, 1 and missing.
        """
        matrix = np.asarray(dosages)
        if isinstance(dosages, np.ma.MaskedArray) or matrix.dtype.kind not in "biuf":
            kind = "a masked array" if isinstance(dosages, np.ma.MaskedArray) else matrix.dtype
            raise fail("dosages", "a plain array of real numbers", str(kind))
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise fail("dosages", "shape (n, J)", f"shape {matrix.shape}")
        given = np.asarray(outcome)
        if given.ndim != 1:
            raise fail("outcome", "1 dimension", str(given.ndim))
        values = binary_column(pd.Series(given), "outcome")
        if values.shape[0] != matrix.shape[0]:
            raise fail("outcome", f"{matrix.shape[0]} persons", f"{values.shape[0]}")
        names = check.name_tuple("snps", snps, length=matrix.shape[1])
        ids = None if person_id is None else PersonIds(person_id, "person_id")
        if ids is not None and len(ids) != matrix.shape[0]:
            raise fail("person_id", f"{matrix.shape[0]} persons", f"{len(ids)}")
        places = {name: place for place, name in enumerate(names)}
        return cls(values, ids, matrix, places, covariates)

    @property
    def n(self) -> int:
        """Number of persons."""
        return int(self.outcome.shape[0])

    @property
    def n_cases(self) -> int:
        """Number of cases."""
        return int(np.count_nonzero(self.outcome == 1))

    @property
    def n_controls(self) -> int:
        """Number of controls."""
        return int(np.count_nonzero(self.outcome == 0))

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"Cohort(n={self.n}, n_cases={self.n_cases}, n_controls={self.n_controls})"

    # ------------------------------------------------------------------ columns

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns of the table beside outcome and identifier; none of a cohort of arrays."""
        return tuple(self._places) if isinstance(self._source, pd.DataFrame) else ()

    @property
    def row_names(self) -> pd.Index[Any] | None:
        """Index of the table; None of a cohort of arrays."""
        return self._source.index if isinstance(self._source, pd.DataFrame) else None

    def columns(self, names: Sequence[str], argument: str) -> pd.DataFrame:
        """Some columns of the table.

        Raises
        ------
        InvalidInputError
            If the cohort does not have them.
        """
        missing = [name for name in names if name not in self.column_names]
        if missing and missing[0] in self._own:
            raise fail(argument, "columns beside outcome and identifier", missing[0])
        if missing or not isinstance(self._source, pd.DataFrame):
            raise fail(argument, "columns of the cohort", f"{listed(missing)}, which it lacks")
        table = self._source.iloc[:, [self._places[name] for name in names]]
        return table.set_axis(list(names), axis="columns")

    def dosage_columns(self, snps: Sequence[str]) -> list[str | None]:
        """Column of every SNP, None where there is none.

        Raises
        ------
        InvalidInputError
            If two columns can be one SNP's, or two SNPs have the same column.
        """
        result: list[str | None] = []
        owner: dict[str, str] = {}
        for snp in snps:
            forms = dict.fromkeys((snp, f"snp_{snp}", sanitised(snp)))
            found = [form for form in forms if form in self._places]
            if len(found) > 1:
                raise fail("cohort", f"one column of {snp}", " and ".join(found))
            for column in found:
                if column in owner:
                    raise fail(
                        "cohort",
                        "a column for every SNP, named by the SNP where short names coincide",
                        f"{column}, which stands for {owner[column]} as well as {snp}",
                    )
                owner[column] = snp
            result.append(found[0] if found else None)
        return result

    # ------------------------------------------------------------------ dosages

    def blocks(
        self, columns: Sequence[str], rows: NDArray[np.intp] | slice, *, as_given: bool = False
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Dosages in blocks of SNPs.

        Parameters
        ----------
        columns : sequence of str
        rows : ndarray of int, shape (n,), or slice
        as_given : bool
            Keep the type that whole numbers came in, for dosages that were not checked yet;
            otherwise single bytes.

        Yields
        ------
        tuple of int and ndarray, shape (k, n)
            Place of the block's first SNP, and dosages: NaN, or negative in integers, where
            missing. Numbers of one type lie in a block.
        """
        n = self.n if isinstance(rows, slice) else rows.size
        start = 0
        while start < len(columns):
            given = self._dosages(columns[start]).dtype
            dtype = given if as_given or given.kind == "f" else np.dtype(np.int8)
            width = max(1, min(_MOST_SNPS_AT_ONCE, _BLOCK_BYTES // max(1, n * dtype.itemsize)))
            if isinstance(self._source, np.ndarray):
                places = [self._places[column] for column in columns[start : start + width]]
                block = _transposed(self._source, places, rows, np.empty((len(places), n), dtype))
            else:
                sources = [self._dosages(column) for column in columns[start : start + width]]
                same = [source.dtype == given for source in sources]
                sources = sources[: same.index(False)] if False in same else sources
                block = np.empty((len(sources), n), dtype)
                for row, values in zip(block, sources, strict=True):
                    row[:] = values[rows]
            yield start, block
            start += block.shape[0]

    def summary(
        self, columns: Sequence[str], snps: Sequence[str], rows: NDArray[np.intp] | slice
    ) -> DosageSummary:
        """Check the dosages of some SNPs and describe them.

        Parameters
        ----------
        columns, snps : sequence of str, length J
        rows : ndarray of int, shape (n,), or slice
            Persons with a known outcome.

        Returns
        -------
        DosageSummary

        Raises
        ------
        InvalidInputError
            If a dosage is below 0 or above 2.
        """
        case = self.outcome[rows] == 1
        result = DosageSummary(
            n_missing=np.zeros(len(columns), dtype=np.intp),
            mean=np.full(len(columns), np.nan),
            varies=np.zeros(len(columns), dtype=np.bool_),
            carriers=np.zeros((len(columns), 2), dtype=np.intp),
        )
        for start, block in self.blocks(columns, rows, as_given=True):
            for place, values in enumerate(block, start):
                missing = self.is_missing(values)
                some = bool(missing.any())
                observed = values[~missing] if some else values
                result.n_missing[place] = values.size - observed.size
                if observed.size == 0:
                    continue
                low, high = observed.min(), observed.max()
                if not (low >= -_ROUNDING and high <= 2 + _ROUNDING):
                    bad = observed[(observed < -_ROUNDING) | (observed > 2 + _ROUNDING)]
                    raise fail(
                        "cohort",
                        f"dosages of {snps[place]} from 0 to 2",
                        f"{bad[0]!s} in column {columns[place]} ({bad.size} such values)",
                    )
                result.varies[place] = low != high
                total = np.add.reduce(observed, dtype=np.float64)
                # equal dosages have a mean without rounding
                mean = float(low) if low == high else float(total) / observed.size
                result.mean[place] = mean
                carrier = values > 0.5 if mean <= 1 else values < 1.5
                if some:
                    carrier &= ~missing
                cases = np.count_nonzero(carrier & case)
                result.carriers[place] = np.count_nonzero(carrier) - cases, cases
        return result

    def is_missing(self, dosages: NDArray[Any]) -> NDArray[np.bool_]:
        """Which dosages of a block are missing, an array of its shape."""
        missing: NDArray[np.bool_]
        if dosages.dtype.kind == "f":
            missing = np.isnan(dosages)
        elif self._has_codes and dosages.dtype.kind == "i":
            missing = dosages < 0
        else:
            missing = np.zeros(dosages.shape, dtype=np.bool_)
        return missing

    @property
    def _has_codes(self) -> bool:
        """Whether negative integers stand for missing dosages."""
        return isinstance(self._source, np.ndarray)

    def _dosages(self, column: str) -> NDArray[Any]:
        """Dosages of one SNP as they lie in memory, shape (n,)."""
        place = self._places[column]
        if isinstance(self._source, pd.DataFrame):
            values = _numbers(self._source.iloc[:, place], f"cohort[{column!r}]")
        else:
            values = self._source[:, place]
        return values.view(np.uint8) if values.dtype == np.bool_ else values


def _transposed(
    matrix: NDArray[Any], places: list[int], rows: NDArray[np.intp] | slice, block: NDArray[Any]
) -> NDArray[Any]:
    """Columns of a matrix as rows of a block, in stretches that the processor's cache holds."""
    first, last = places[0], places[-1] + 1
    consecutive = places == list(range(first, last))
    for start in range(0, block.shape[1], _STRETCH):
        stop = min(start + _STRETCH, block.shape[1])
        part = matrix[start:stop] if isinstance(rows, slice) else matrix[rows[start:stop]]
        block[:, start:stop] = (part[:, first:last] if consecutive else part[:, places]).T
    return block


def binary_column(column: pd.Series[Any], where: str) -> Float:
    """Zeros and ones as float64, NaN where missing.

    Parameters
    ----------
    column : Series
    where : str
        Its name, for messages.

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    InvalidInputError
        If a value is anything else.
    """
    values = _numbers(column, where).astype(np.float64)
    good = np.isnan(values) | (values == 0) | (values == 1)
    if not good.all():
        found = np.unique(values[~np.isnan(values)])
        hint = "; subtract 1 from PLINK's coding 1 and 2" if set(found) == {1, 2} else ""
        raise fail(
            where,
            "0 for controls and 1 for cases",
            f"the values {listed([f'{value:g}' for value in found])}{hint}",
        )
    values.setflags(write=False)
    return values


def _numbers(column: pd.Series[Any], where: str) -> NDArray[Any]:
    """Numbers of a column, without a copy where they are plain ones; missing values as NaN."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        plain: NDArray[Any] = column.to_numpy()
        return plain
    if not pd.api.types.is_numeric_dtype(dtype):
        column = column.astype(object)
        for value in column[column.notna()]:
            if not isinstance(value, (Number, np.bool_)):
                raise fail(where, "numbers", repr(value))
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _identifiers(column: pd.Series[Any], argument: str) -> pd.Index[Any]:
    """Whole numbers as int64, anything else as text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if column.isna().any():
        raise fail(argument, "an identifier of every person", f"{int(column.isna().sum())} missing")
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "floating":
        if not bool((column == column.round()).all()):
            raise fail(argument, "whole numbers or texts", "numbers with decimals")
        kind = "integer"
    if kind == "integer" and bool((column < 2**63).all()):
        numbers: pd.Index[Any] = pd.Index(column.to_numpy(dtype=np.int64))
        return numbers
    if kind != "string":
        column = column.map(str)
    texts: pd.Index[Any] = pd.Index(column.to_numpy(dtype=object), dtype=object)
    return texts
