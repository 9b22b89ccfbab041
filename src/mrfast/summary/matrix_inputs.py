"""What `mr_matrix` takes: exposures with their instruments, and outcomes that come in blocks."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast._validation import Float

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Instruments", "MatrixExposures", "MatrixOutcomes", "OutcomeBlock"]

Rows = NDArray[np.int64]

_BETA = ("beta", "beta_exposure", "beta_outcome")
_SE = ("std_error", "se", "se_exposure", "se_outcome")
_BATCH = 1 << 18  # rows of a long table read at once
_PAGES = 1 << 14  # bytes of a row of two matrices that are worth a read
_READ = 1 << 25  # most bytes of matrices read at once
_ROWS = 512  # of a mapped file read before its pages are given back


class OutcomeBlock(NamedTuple):
    """Associations of some outcomes; NaN in `beta` and `se` where a SNP is missing.

    Attributes
    ----------
    names : tuple of str
        Of the outcomes.
    beta, se : ndarray of float64, shape (P, outcomes)
    """

    names: tuple[str, ...]
    beta: Float
    se: Float

    def digest(self) -> str:
        """SHA-256 of the names and numbers."""
        state = hashlib.sha256(json.dumps([self.names, self.beta.shape]).encode())
        state.update(self.beta.data)
        state.update(self.se.data)
        return state.hexdigest()


class Instruments(NamedTuple):
    """Instruments of E exposures within a panel of P SNPs, ready for the kernel.

    Attributes
    ----------
    starts : ndarray of int64, shape (E + 1,)
        Entries of each exposure in `rows` and `beta`.
    rows : ndarray of int64
        Of the panel.
    beta, se : ndarray of float64
        `se` is NaN where it was not given.
    n_snps : int
        P, the SNPs that some exposure uses.
    places : ndarray of int64, shape (P,), or None
        Rows of the outcomes' source, where SNPs are matched by their places.
    snps : tuple of str, or None
        Names of the panel's SNPs, where they are matched by name.
    absent : int
        Instruments that no outcome can have, because the source does not list them.
    """

    starts: Rows
    rows: Rows
    beta: Float
    se: Float
    n_snps: int
    places: Rows | None
    snps: tuple[str, ...] | None
    absent: int


class MatrixExposures:
    """Exposures with their instruments: shared or own ones, a different number each.

    Make one with `from_arrays`, `from_lists` or `from_frame`. Associations must be per copy of the
    same allele as those of the outcomes (see `mrfast.harmonise`).

    Attributes
    ----------
    names : tuple of str
    n_snps : ndarray of int64, shape (E,)
        Instruments of each.
    f_statistic : ndarray, shape (E,)
        Mean of (beta / se)^2; NaN without standard errors.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        labels: Sequence[NDArray[Any]],
        beta: Sequence[Float],
        se: Sequence[Float] | None,
        *,
        named: bool,
        n_rows: int | None = None,
    ) -> None:
        self.names = names
        self._labels, self._beta, self._named, self._n_rows = labels, beta, named, n_rows
        self._se = [np.full(len(b), np.nan) for b in beta] if se is None else se
        self.n_snps = np.array([len(entry) for entry in beta], dtype=np.int64)
        self.f_statistic = np.array(
            [
                float(((b / s) ** 2).mean()) if len(b) else np.nan
                for b, s in zip(beta, self._se, strict=True)
            ]
        )

    @classmethod
    def from_arrays(
        cls,
        beta: ArrayLike,
        se: ArrayLike | None = None,
        *,
        names: Sequence[object] | None = None,
        snps: Sequence[object] | None = None,
        mask: ArrayLike | None = None,
    ) -> MatrixExposures:
        """Exposures from a matrix of one row a SNP.

        Parameters
        ----------
        beta, se : array_like, shape (P, E) or (P,)
            NaN where a SNP is no instrument of an exposure. `se` is for the F statistic and the
            weighted median.
        names : sequence of str, optional
        snps : sequence of str, optional
            Matches SNPs by name to those of the outcomes; by their places otherwise.
        mask : array_like of bool, shape (P, E), optional
            True for the instruments of each exposure.

        Returns
        -------
        MatrixExposures

        Raises
        ------
        InvalidInputError
            Shapes that differ, infinite numbers, standard errors not above 0.
        """
        b = _matrix("beta", beta)
        s = None if se is None else _matrix("se", se, b.shape)
        used = ~np.isnan(b)
        if mask is not None:
            given = np.asarray(mask)
            if given.dtype != np.bool_ or given.reshape(given.shape[0], -1).shape != b.shape:
                raise check.fail("mask", f"True or False, shape {b.shape}", f"{given.shape}")
            used &= given.reshape(b.shape)
        lists = [np.flatnonzero(column) for column in used.T]
        labels: list[NDArray[Any]] = list(lists)
        if snps is not None:
            texts = np.array(check.name_tuple("snps", snps, length=len(b)), dtype=object)
            labels = [texts[rows] for rows in lists]
        errors = None if s is None else [s[rows, e] for e, rows in enumerate(lists)]
        return cls._checked(
            labels,
            [b[rows, e] for e, rows in enumerate(lists)],
            errors,
            names,
            named=snps is not None,
            n_rows=len(b),
        )

    @classmethod
    def from_lists(
        cls,
        snps: Sequence[ArrayLike],
        beta: Sequence[ArrayLike],
        se: Sequence[ArrayLike] | None = None,
        *,
        names: Sequence[object] | None = None,
    ) -> MatrixExposures:
        """Exposures that each have a list of instruments.

        Parameters
        ----------
        snps : sequence of array_like
            For each exposure the rows of the outcomes' matrix, counted from 0, or names of SNPs.
        beta, se : sequence of array_like
            In the same order. `se` is for the F statistic and the weighted median.
        names : sequence of str, optional

        Returns
        -------
        MatrixExposures

        Raises
        ------
        InvalidInputError
            Lists whose lengths differ, a SNP twice, numbers that are not finite.
        """
        lists = [np.asarray(entry) for entry in snps]
        filled = [entry for entry in lists if entry.size]
        named = bool(filled) and filled[0].dtype.kind in "OUS"
        labels: list[NDArray[Any]] = []
        for e, entry in enumerate(lists):
            if entry.ndim != 1 or (entry.size and (entry.dtype.kind in "OUS") != named):
                raise check.fail(f"snps[{e}]", "a list of rows, or one of names", repr(entry))
            if entry.size and entry.dtype.kind not in ("OUS" if named else "iu"):
                raise check.fail(f"snps[{e}]", "whole numbers or names", f"{entry.dtype}")
            labels.append(entry.astype(object if named else np.int64))
        if len(beta) != len(labels) or (se is not None and len(se) != len(labels)):
            raise check.fail("beta, se", f"{len(labels)} lists, one an exposure", "others")
        return cls._checked(labels, beta, se, names, named=named)

    @classmethod
    def from_frame(cls, table: pd.DataFrame) -> MatrixExposures:
        """Exposures from a table of one row an exposure and SNP.

        Parameters
        ----------
        table : DataFrame
            Columns ``snp``, ``beta`` (or ``beta_exposure``), ``exposure`` (or ``trait``) where
            there are several, and ``std_error`` (or ``se``, ``se_exposure``), for the F statistic
            and the weighted median.

        Returns
        -------
        MatrixExposures

        Raises
        ------
        InvalidInputError
            A missing column, a SNP twice for an exposure, bad numbers.
        """
        snp = _column(table, "exposures", ("snp",))
        beta = _column(table, "exposures", _BETA)
        se = next((name for name in _SE if name in table.columns), None)
        trait = next((name for name in ("exposure", "trait") if name in table.columns), None)
        groups = (
            [("exposure", table)]
            if trait is None
            else [(str(key), part) for key, part in table.groupby(trait, sort=False, observed=True)]
        )
        return cls._checked(
            [part[snp].astype(str).to_numpy(dtype=object) for _, part in groups],
            [part[beta].to_numpy(dtype=np.float64) for _, part in groups],
            None if se is None else [part[se].to_numpy(dtype=np.float64) for _, part in groups],
            [name for name, _ in groups],
            named=True,
        )

    @classmethod
    def coerced(cls, value: Any) -> MatrixExposures:
        """One of the forms that `mr_matrix` takes."""
        if isinstance(value, cls):
            return value
        if hasattr(value, "columns"):
            return cls.from_frame(value)
        if isinstance(value, Mapping):
            return cls.from_arrays(**{str(key): entry for key, entry in value.items()})
        if isinstance(value, tuple) and len(value) == 2:
            return cls.from_arrays(*value)
        raise check.fail(
            "exposures",
            "a MatrixExposures, a pair (beta, se) of matrices or a DataFrame",
            type(value).__name__,
        )

    @classmethod
    def _checked(
        cls,
        labels: Sequence[NDArray[Any]],
        beta: Sequence[ArrayLike],
        se: Sequence[ArrayLike] | None,
        names: Sequence[object] | None,
        *,
        named: bool,
        n_rows: int | None = None,
    ) -> MatrixExposures:
        if not labels:
            raise check.fail("exposures", "at least one exposure", "none")
        known = _names("names", names, len(labels), "exposure")
        values, errors = [], []
        for e, entry in enumerate(labels):
            if len(set(entry.tolist())) != len(entry):
                raise check.fail(
                    "exposures", f"every SNP of {known[e]!r} once", "one several times"
                )
            where = f"beta of {known[e]!r}"
            values.append(check.float_array(where, beta[e], ndim=1, shape=entry.shape))
            if se is not None:
                errors.append(
                    check.float_array(
                        f"se of {known[e]!r}", se[e], ndim=1, shape=entry.shape, positive=True
                    )
                )
        return cls(
            known, labels, values, errors if se is not None else None, named=named, n_rows=n_rows
        )

    def instruments(self, outcomes: MatrixOutcomes) -> Instruments:
        """Instruments as rows of the panel that all exposures share.

        Parameters
        ----------
        outcomes : MatrixOutcomes

        Returns
        -------
        Instruments

        Raises
        ------
        InvalidInputError
            SNPs that cannot be matched, or no instrument at all.
        """
        sizes = self.n_snps
        owner = np.repeat(np.arange(len(sizes)), sizes)
        flat = np.concatenate([*self._labels]) if len(owner) else np.empty(0, np.int64)
        beta, se = np.concatenate([*self._beta]), np.concatenate([*self._se])
        absent, names, places = 0, None, None
        if not self._named:
            if outcomes.n_snps is None:
                raise check.fail("exposures", "names of the SNPs, as the outcomes have", "none")
            if self._n_rows is not None and self._n_rows != outcomes.n_snps:
                raise check.fail(
                    "exposures", f"{outcomes.n_snps} SNPs, as the outcomes", f"{self._n_rows}"
                )
            if len(flat) and not 0 <= flat.min() <= flat.max() < outcomes.n_snps:
                raise check.fail(
                    "exposures", f"rows from 0 to {outcomes.n_snps - 1}", f"{flat.max()}"
                )
            places, rows = np.unique(flat.astype(np.int64), return_inverse=True)
            size = len(places)
        else:
            listed = outcomes.snps
            if listed is None and outcomes.n_snps is not None:
                raise check.fail(
                    "outcomes", "names of the SNPs (snps=), as the exposures have", "none"
                )
            unique, rows = np.unique(flat.astype(str), return_inverse=True)
            if listed is not None:
                place = {name: i for i, name in enumerate(listed)}
                where = np.array([place.get(str(name), -1) for name in unique], dtype=np.int64)
                known = where[rows] >= 0
                absent = int((~known).sum())
                order = np.cumsum(where >= 0) - 1
                owner, beta, se, rows = owner[known], beta[known], se[known], order[rows[known]]
                unique, places = unique[where >= 0], where[where >= 0]
            names, size = tuple(str(name) for name in unique), len(unique)
        if not size:
            raise check.fail("exposures", "instruments that the outcomes have", "none")
        counts = np.bincount(owner, minlength=len(sizes))
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Instruments(
            starts,
            np.ascontiguousarray(rows, dtype=np.int64),
            beta,
            se,
            size,
            places,
            names,
            absent,
        )


class MatrixOutcomes:
    """Outcomes that are read in blocks, so that they need not fit into memory.

    Make one with `from_arrays` (memory-mapped files too), `from_frame`, `from_blocks` or
    `from_parquet`.

    Attributes
    ----------
    snps : tuple of str, or None
        Names of the SNPs of the source, where it lists them.
    n_snps : int or None
        Rows of the source; None for tables of one row an outcome and SNP.
    n_outcomes : int or None
        Where it is known beforehand.
    """

    def __init__(
        self,
        read: Callable[[Instruments, int], Iterator[OutcomeBlock]],
        *,
        snps: tuple[str, ...] | None,
        n_snps: int | None,
        n_outcomes: int | None,
    ) -> None:
        self._read = read
        self.snps, self.n_snps, self.n_outcomes = snps, n_snps, n_outcomes

    def blocks(self, instruments: Instruments, width: int) -> Iterator[OutcomeBlock]:
        """Blocks of `width` outcomes (the last may be smaller), rows as in `instruments`."""
        return self._read(instruments, width)

    @classmethod
    def from_arrays(
        cls,
        beta: Any,
        se: Any,
        *,
        names: Sequence[object] | None = None,
        snps: Sequence[object] | None = None,
    ) -> MatrixOutcomes:
        """Outcomes from two matrices, which may be memory-mapped and of any number type.

        Parameters
        ----------
        beta, se : array_like, shape (P, O)
            NaN in both where an outcome lacks a SNP. They are read block by block.
        names : sequence of str, optional
        snps : sequence of str, optional

        Returns
        -------
        MatrixOutcomes

        Raises
        ------
        InvalidInputError
            Shapes that differ; bad numbers are found when their block is read.
        """
        b, s = (entry if hasattr(entry, "shape") else np.asarray(entry) for entry in (beta, se))
        if b.ndim == 1 and s.ndim == 1:
            b, s = np.asarray(b)[:, None], np.asarray(s)[:, None]
        if b.ndim != 2 or b.shape != s.shape or 0 in b.shape:
            raise check.fail("outcomes", "beta and se of one shape (P, O)", f"{b.shape}, {s.shape}")
        for entry in (b, s):
            if entry.dtype.kind not in "fiu":
                raise check.fail("outcomes", "real numbers", f"an array of {entry.dtype}")
        count = b.shape[1]
        known = _names("names", names, count, "outcome")
        listed = None if snps is None else check.name_tuple("snps", snps, length=len(b))

        def read(instruments: Instruments, width: int) -> Iterator[OutcomeBlock]:
            places = _places(instruments)
            # Several blocks at once: rows of a file are read in pages of some 4 KB.
            row = width * (b.dtype.itemsize + s.dtype.itemsize)
            step = width * max(1, min(-(-_PAGES // row), _READ // (row * len(places))))
            for start in range(0, count, step):
                wide = slice(start, min(start + step, count))
                pieces = [_rows_of(entry, places, wide) for entry in (b, s)]
                for first in range(start, wide.stop, width):
                    part = slice(first - start, min(first + width, count) - start)
                    names = known[first : first + width]
                    yield _block(names, *(piece[:, part] for piece in pieces))

        return cls(read, snps=listed, n_snps=len(b), n_outcomes=count)

    @classmethod
    def from_blocks(
        cls,
        blocks: Callable[[], Iterable[Any]] | Iterable[Any],
        *,
        snps: Sequence[object] | None = None,
        n_snps: int | None = None,
        n_outcomes: int | None = None,
    ) -> MatrixOutcomes:
        """Outcomes from an iterator of blocks of any widths.

        Parameters
        ----------
        blocks : callable or iterable
            Gives ``(names, beta, se)`` or ``(beta, se)``, the matrices of shape (P, outcomes of the
            block). A callable without arguments is called anew for each run.
        snps : sequence of str, optional
            Names of the P SNPs; or give `n_snps`.
        n_snps : int, optional
        n_outcomes : int, optional
            For the progress only.

        Returns
        -------
        MatrixOutcomes
        """
        if snps is None and n_snps is None:
            raise check.fail("n_snps", "the number of SNPs, or their names (snps=)", "neither")
        total = None if n_snps is None else check.integer("n_snps", n_snps, minimum=1)
        listed = None
        if snps is not None:
            listed = check.name_tuple("snps", snps, length=len(snps) if total is None else total)
            total = len(listed)

        def read(instruments: Instruments, width: int) -> Iterator[OutcomeBlock]:
            places = _places(instruments)
            return _rebatched(
                _pieces(blocks() if callable(blocks) else blocks, total, places), width
            )

        return cls(read, snps=listed, n_snps=total, n_outcomes=n_outcomes)

    @classmethod
    def from_frame(cls, table: pd.DataFrame) -> MatrixOutcomes:
        """Outcomes from a table of one row an outcome and SNP, in any order.

        Parameters
        ----------
        table : DataFrame
            Columns ``snp``, ``beta`` (or ``beta_outcome``), ``std_error`` (or ``se``,
            ``se_outcome``), and ``outcome`` (or ``trait``) where there are several.

        Returns
        -------
        MatrixOutcomes

        Raises
        ------
        InvalidInputError
            A missing column.
        """
        snp = _column(table, "outcomes", ("snp",))
        beta, se = _column(table, "outcomes", _BETA), _column(table, "outcomes", _SE)
        trait = next((name for name in ("outcome", "trait") if name in table.columns), None)
        groups = (
            {"outcome": table}
            if trait is None
            else {str(key): part for key, part in table.groupby(trait, sort=False, observed=True)}
        )

        def read(instruments: Instruments, width: int) -> Iterator[OutcomeBlock]:
            place = _place_of(instruments)
            parts = (
                (name, part[snp].astype(str).to_numpy(dtype=object), part[beta], part[se])
                for name, part in groups.items()
            )
            return _rebatched(_placed(parts, place, instruments.n_snps), width)

        return cls(read, snps=None, n_snps=None, n_outcomes=len(groups))

    @classmethod
    def from_parquet(
        cls,
        path: str | os.PathLike[str],
        *,
        layout: str = "long",
        columns: Mapping[str, str] | None = None,
    ) -> MatrixOutcomes:
        """Outcomes from a Parquet file, or a folder of such files, read piece by piece.

        Parameters
        ----------
        path : path-like
        layout : {"long", "wide"}
            ``"long"``: one row an outcome and SNP, the rows of an outcome one after the other.
            ``"wide"``: one row a SNP, and columns ``beta_NAME`` and ``se_NAME`` for every outcome.
        columns : mapping of str to str, optional
            Columns that play the parts ``snp``, ``outcome``, ``beta`` and ``se``; the last three
            for ``"long"``. Names such as ``trait`` and ``std_error`` are known.

        Returns
        -------
        MatrixOutcomes

        Raises
        ------
        InvalidInputError
            Missing columns, or (while it is read) an outcome whose rows are not together.
        MissingExtraError
            pyarrow, the extra ``io``, is not installed.
        """
        check.choice("layout", layout, ("long", "wide"))
        dataset = import_extra("pyarrow.dataset", extra="io", purpose="reading Parquet files")
        target = Path(path)
        if not target.exists():
            raise check.fail("path", "a file or folder", f"{target.name}, which is not there")
        try:
            source = dataset.dataset(target, format="parquet")
        except (ValueError, OSError) as error:  # pyarrow's errors are of these kinds
            first = str(error).splitlines()[0]
            raise check.fail(target.name, "a whole Parquet file", f"a damaged one ({first})") from (
                error
            )
        have = list(source.schema.names)
        chosen = dict(columns or {})

        def part(name: str, known: tuple[str, ...]) -> str:
            wanted = (chosen[name],) if name in chosen else known
            found = next((entry for entry in wanted if entry in have), None)
            if found is None:
                raise check.fail(
                    target.name,
                    f"a column {' or '.join(wanted)}",
                    f"the columns {check.listed(have)}",
                )
            return found

        snp = part("snp", ("snp",))
        if layout == "wide":
            return cls._wide(source, snp, have)
        names = [snp, part("outcome", ("outcome", "trait")), part("beta", _BETA), part("se", _SE)]

        def read(instruments: Instruments, width: int) -> Iterator[OutcomeBlock]:
            place = _place_of(instruments)
            parts = _runs(source, names, target.name)
            return _rebatched(_placed(parts, place, instruments.n_snps), width)

        return cls(read, snps=None, n_snps=None, n_outcomes=None)

    @classmethod
    def _wide(cls, source: Any, snp: str, have: list[str]) -> MatrixOutcomes:
        outcomes = [name.removeprefix("beta_") for name in have if name.startswith("beta_")]
        lacking = [name for name in outcomes if f"se_{name}" not in have]
        if lacking or not outcomes:
            wanted = f"a column se_{lacking[0]}" if lacking else "columns beta_NAME and se_NAME"
            raise check.fail("path", wanted, "none")
        listed = tuple(str(name) for name in source.to_table(columns=[snp])[snp].to_pylist())
        check.name_tuple("snp", listed, length=len(listed))

        def read(instruments: Instruments, width: int) -> Iterator[OutcomeBlock]:
            places = _places(instruments)
            for first in range(0, len(outcomes), width):
                names = tuple(outcomes[first : first + width])
                matrices = []
                for kind in ("beta", "se"):
                    table = source.to_table(columns=[f"{kind}_{name}" for name in names])
                    columns = [column.to_numpy() for column in table.columns]
                    matrices.append(np.column_stack(columns)[places])
                yield _block(names, *matrices)

        return cls(read, snps=listed, n_snps=len(listed), n_outcomes=len(outcomes))

    @classmethod
    def coerced(cls, value: Any) -> MatrixOutcomes:
        """One of the forms that `mr_matrix` takes."""
        if isinstance(value, cls):
            return value
        if isinstance(value, (str, os.PathLike)):
            return cls.from_parquet(value)
        if hasattr(value, "columns"):
            return cls.from_frame(value)
        if isinstance(value, Mapping):
            return cls.from_arrays(**{str(key): entry for key, entry in value.items()})
        if isinstance(value, tuple) and len(value) == 2:
            return cls.from_arrays(*value)
        raise check.fail(
            "outcomes",
            "a MatrixOutcomes, a pair (beta, se) of matrices, a DataFrame or a Parquet file",
            type(value).__name__,
        )


def _rows_of(array: Any, rows: Rows, columns: slice) -> NDArray[Any]:
    """Part of a matrix; pages of a read-only mapped file are given back, to bound the memory."""
    mapped = getattr(array, "_mmap", None)
    release = isinstance(mapped, mmap.mmap) and getattr(array, "mode", "") == "r"
    out = np.empty((len(rows), columns.stop - columns.start), dtype=array.dtype)
    for first in range(0, len(rows), _ROWS):
        part = slice(first, first + _ROWS)
        out[part] = array[rows[part], columns]
        if release and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # type: ignore[union-attr]
    return out


def _matrix(argument: str, values: ArrayLike, shape: tuple[int, ...] | None = None) -> Float:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
        raise check.fail(argument, "a matrix of real numbers", f"{array.dtype}, {array.ndim} axes")
    array = array.astype(np.float64).reshape(array.shape[0], -1)
    if shape is not None and array.shape != shape:
        raise check.fail(argument, f"shape {shape}", f"{array.shape}")
    if np.isinf(array).any():
        raise check.fail(argument, "finite numbers, or NaN for no instrument", "an infinite one")
    return array


def _names(
    argument: str, names: Sequence[object] | None, length: int, default: str
) -> tuple[str, ...]:
    if names is None:
        return tuple(f"{default}_{i}" for i in range(length))
    return check.name_tuple(argument, names, length=length)


def _column(table: pd.DataFrame, argument: str, known: tuple[str, ...]) -> str:
    for name in known:
        if name in table.columns:
            return name
    raise check.fail(
        argument, f"a column {' or '.join(known)}", f"the columns {check.listed(table.columns)}"
    )


def _places(instruments: Instruments) -> Rows:
    if instruments.places is None:
        raise check.fail("outcomes", "instruments matched to their rows", "names only")
    return instruments.places


def _place_of(instruments: Instruments) -> dict[str, int]:
    if instruments.snps is None:
        raise check.fail("exposures", "names of the SNPs, as the outcomes have", "none")
    return {name: i for i, name in enumerate(instruments.snps)}


def _block(names: tuple[str, ...], beta: Any, se: Any) -> OutcomeBlock:
    matrices = [np.ascontiguousarray(entry, dtype=np.float64) for entry in (beta, se)]
    return OutcomeBlock(names, *matrices)


def _pieces(blocks: Iterable[Any], n_snps: int | None, places: Rows) -> Iterator[OutcomeBlock]:
    """Checked pieces of an iterator, with the panel's rows only."""
    done = 0
    for piece in blocks:
        names, beta, se = piece if len(piece) == 3 else (None, *piece)
        b, s = np.asarray(beta), np.asarray(se)
        if b.ndim != 2 or b.shape != s.shape or len(b) != n_snps:
            raise check.fail("outcomes", f"blocks of {n_snps} rows", f"{b.shape} and {s.shape}")
        if names is None:
            known = tuple(f"outcome_{done + i}" for i in range(b.shape[1]))
        else:
            known = check.name_tuple("names of a block", names, length=b.shape[1])
        done += b.shape[1]
        yield _block(known, b[places], s[places])


def _placed(
    parts: Iterable[tuple[str, NDArray[Any], Any, Any]], place: dict[str, int], size: int
) -> Iterator[OutcomeBlock]:
    """One column an outcome from its rows; SNPs outside the panel are left out."""
    for name, snps, beta, se in parts:
        rows = np.array([place.get(snp, -1) for snp in snps], dtype=np.int64)
        known = np.flatnonzero(rows >= 0)
        if len(np.unique(rows[known])) != len(known):
            twice = rows[known][np.flatnonzero(np.bincount(rows[known])[rows[known]] > 1)[0]]
            raise check.fail(
                "outcomes", f"every SNP of {name!r} once", f"{list(place)[twice]!r} several times"
            )
        matrix = np.full((2, size, 1), np.nan)
        for plane, values in zip(matrix, (beta, se), strict=True):
            plane[rows[known], 0] = np.asarray(values, dtype=np.float64)[known]
        matrix[:, np.isnan(matrix).any(axis=0)] = np.nan  # half an entry is none in a table
        yield OutcomeBlock((name,), matrix[0], matrix[1])


def _runs(
    source: Any, names: list[str], file: str
) -> Iterator[tuple[str, NDArray[Any], Float, Float]]:
    """Outcomes of a long table, whose rows stand together."""
    seen: set[str] = set()
    held: list[tuple[Any, ...]] = []
    current: str | None = None

    def joined() -> tuple[str, NDArray[Any], Float, Float]:
        assert current is not None
        texts, beta, se = (np.concatenate(column) for column in zip(*held, strict=True))
        return current, texts, beta, se

    for batch in source.to_batches(columns=names, batch_size=_BATCH):
        if not batch.num_rows:
            continue
        snp, outcome, beta, se = (
            batch.column(i).to_numpy(zero_copy_only=False) for i in range(len(names))
        )
        outcome = outcome.astype(str)
        borders = np.flatnonzero(outcome[1:] != outcome[:-1]) + 1
        for first, last in zip([0, *borders], [*borders, len(outcome)], strict=True):
            name = str(outcome[first])
            if name != current:
                if current is not None:
                    yield joined()
                if name in seen:
                    raise check.fail(
                        file, "the rows of an outcome together", f"{name!r} in several places"
                    )
                seen.add(name)
                current, held = name, []
            part = slice(first, last)
            held.append(
                (
                    snp[part].astype(str).astype(object),
                    beta[part].astype(float),
                    se[part].astype(float),
                )
            )
    if current is not None:
        yield joined()


def _rebatched(pieces: Iterable[OutcomeBlock], width: int) -> Iterator[OutcomeBlock]:
    """The same columns in blocks of `width`."""
    held: list[OutcomeBlock] = []
    count = 0
    for piece in pieces:
        for first in range(0, len(piece.names), width):
            part = slice(first, first + width)
            held.append(OutcomeBlock(piece.names[part], piece.beta[:, part], piece.se[:, part]))
            count += len(held[-1].names)
            if count >= width:
                whole = _joined(held)
                yield _block(whole.names[:width], whole.beta[:, :width], whole.se[:, :width])
                count -= width
                held = [
                    OutcomeBlock(whole.names[width:], whole.beta[:, width:], whole.se[:, width:])
                ]
    if count:
        yield _joined(held)


def _joined(parts: list[OutcomeBlock]) -> OutcomeBlock:
    names = tuple(name for part in parts for name in part.names)
    return _block(
        names, np.hstack([part.beta for part in parts]), np.hstack([part.se for part in parts])
    )
