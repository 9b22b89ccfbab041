"""Genetic instruments: their effects on the exposure, as the coordinator sends them to the sites.

One row per SNP in the columns of :mod:`mrfast.data.associations`, and where the SNPs are in linkage
disequilibrium the correlations of their dosages. Medusa's column names are understood as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._files import content_checksum, read_document, write_document
from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float, fail, listed
from mrfast.data.associations import association_table
from mrfast.data.ld_blocks import read_only
from mrfast.errors import DamagedFileError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["MEDUSA_NAMES", "WEAK_F", "InstrumentTable"]

MEDUSA_NAMES: Mapping[str, str] = {
    "snp_id": "snp",
    "beta_ZX": "beta",
    "se_ZX": "std_error",
    "pval_ZX": "p_value",
}
"""Medusa's names of the columns that it calls otherwise."""

WEAK_F = 10.0
"""F statistic below which an instrument counts as weak."""

_KIND, _VERSION = "mrfast instruments", 1
_REQUIRED = ("snp", "effect_allele", "other_allele", "beta", "std_error")
_NUMBERS = ("eaf", "beta", "std_error", "p_value", "n")
_TEXTS = ("snp", "chromosome", "effect_allele", "other_allele")
_ALLELE = re.compile(r"[ACGT]+|[DI]")
_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_LONGEST_NAME = 200
_ROUNDING_LD = 1e-6  # correlations are often given in single precision
_SMALLEST_EIGENVALUE = 1e-8
_LARGEST_INTEGER = 2**53


class InstrumentTable:
    """Associations of the instruments with the exposure; it never changes.

    Make one with :meth:`from_frame` or :meth:`load`. Tables with the same checksum are equal.

    Attributes
    ----------
    snps : tuple of str
        Identifiers of the J instruments.
    effect_alleles, other_alleles : tuple of str
        In upper case.
    beta, std_error : ndarray, shape (J,)
        Effect of one copy of the effect allele on the exposure, each SNP by itself (marginal),
        and its standard error.
    eaf : ndarray, shape (J,)
        Frequency of the effect allele in the exposure's study; NaN where it is not known.
    ld : ndarray, shape (J, J), or None
        Correlations of the dosages of the effect alleles; None for independent SNPs.
    """

    def __init__(self, table: pd.DataFrame, ld: Float | None) -> None:
        # of a table and a matrix that `from_frame` has checked
        self._table = table
        self.snps = tuple(str(snp) for snp in table["snp"])
        self.effect_alleles = tuple(str(allele) for allele in table["effect_allele"])
        self.other_alleles = tuple(str(allele) for allele in table["other_allele"])
        self.beta = read_only(table["beta"])
        self.std_error = read_only(table["std_error"])
        self.eaf = read_only(table["eaf"])
        self.ld = None if ld is None else read_only(ld)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame | Mapping[str, object],
        *,
        ld: pd.DataFrame | ArrayLike | None = None,
    ) -> InstrumentTable:
        """Check a table of instruments.

        Parameters
        ----------
        frame : DataFrame or mapping of columns, shape (J, ...)
            Columns ``snp``, ``effect_allele``, ``other_allele``, ``beta``, ``std_error`` and, if
            known, ``eaf``, ``p_value``, ``n``, ``chromosome``, ``position``; or Medusa's names
            ``snp_id``, ``beta_ZX``, ``se_ZX``, ``pval_ZX`` for them. Others are left out. Without
            the frequency of a SNP, its kappa can come from the sites' dosages only, missing
            dosages cannot be filled in from this table, and a palindromic SNP cannot be used.
        ld : DataFrame or array-like, shape (J, J), optional
            Correlations between the dosages of the effect alleles, for SNPs that are not
            independent. A DataFrame is matched by the identifiers in its index and columns, and
            may hold more SNPs; an array is in the order of the rows.

        Returns
        -------
        InstrumentTable

        Raises
        ------
        InvalidInputError
            If a column is missing or holds what it should not: a SNP twice, alleles other than A,
            C, G, T (in sequences, for an indel) or D and I, equal alleles, a frequency of 0 or 1,
            a standard error that is not above 0; or if the matrix is not one of correlations.
        """
        table = _checked_table(frame)
        snps = [str(snp) for snp in table["snp"]]
        return cls(table, None if ld is None else _checked_ld(ld, snps))

    @property
    def frame(self) -> pd.DataFrame:
        """The table in the columns of mrfast's association tables, a copy."""
        return self._table.copy()

    @cached_property
    def f_statistic(self) -> Float:
        """Strength of every instrument, (beta / std_error)^2, shape (J,)."""
        return read_only((self.beta / self.std_error) ** 2)

    @cached_property
    def weak(self) -> tuple[str, ...]:
        """SNPs whose F statistic is below 10."""
        return tuple(snp for snp, f in zip(self.snps, self.f_statistic, strict=True) if f < WEAK_F)

    @cached_property
    def palindromic(self) -> NDArray[np.bool_]:
        """Whether the alleles are A and T, or C and G, shape (J,)."""
        pairs = zip(self.effect_alleles, self.other_alleles, strict=True)
        flags = np.array([a in "ACGT" and a.translate(_COMPLEMENT) == b for a, b in pairs])
        flags.setflags(write=False)
        return flags

    @cached_property
    def covariance(self) -> Float:
        """Covariance of the estimates ``beta``, shape (J, J): ``diag(se) R diag(se)``."""
        correlations = np.eye(len(self)) if self.ld is None else self.ld
        return read_only(correlations * np.outer(self.std_error, self.std_error))

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the content, 64 hexadecimal digits; the order of the SNPs counts."""
        return content_checksum(self._content())

    def __len__(self) -> int:
        return len(self.snps)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InstrumentTable):
            return NotImplemented
        return self.checksum == other.checksum

    def __hash__(self) -> int:
        return hash(self.checksum)

    def __repr__(self) -> str:
        ld = "" if self.ld is None else ", with LD"
        mean_f = float(np.mean(self.f_statistic))
        return (
            f"InstrumentTable({len(self)} SNP{'s' * (len(self) != 1)}{ld}, mean F {mean_f:.1f}, "
            f"checksum {self.checksum[:12]})"
        )

    def summary(self) -> str:
        """Describe the instruments, and what is to be minded about them, in a few lines.

        Returns
        -------
        str
        """
        f = self.f_statistic
        known = int(np.isfinite(self.eaf).sum())
        lines = [
            repr(self),
            f"checksum: {self.checksum}",
            f"F statistics: {f.min():.1f} to {f.max():.1f}, mean {f.mean():.1f}",
            f"allele frequencies: {known} of {len(self)}",
        ]
        if self.weak:
            lines.append(f"weak (F below {WEAK_F:g}): {listed(self.weak)}")
        palindromic = [s for s, p in zip(self.snps, self.palindromic, strict=True) if p]
        if palindromic:
            lines.append(f"palindromic, the strand is read off frequencies: {listed(palindromic)}")
        if self.ld is not None and len(self) > 1:
            off = np.abs(self.ld - np.eye(len(self)))
            i, j = sorted(int(k) for k in np.unravel_index(np.argmax(off), off.shape))
            lines.append(
                f"largest correlation: {self.ld[i, j]:.3f} ({self.snps[i]}, {self.snps[j]})"
            )
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the table to a file with its checksum, for the sites.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        str
            The checksum, by which a site's results name the table.
        """
        return write_document(path, self._content(), kind=_KIND, version=_VERSION)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> InstrumentTable:
        """Read a table that :meth:`save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        InstrumentTable

        Raises
        ------
        DamagedFileError
            If the file is damaged, of another kind or of an unknown version. Its checksum detects
            damage, not forgery.
        """
        document = read_document(path, kind=_KIND, versions=(_VERSION,))
        try:
            table = cls.from_frame(_columns(document.content["columns"]), ld=document.content["ld"])
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"path: expected a table of instruments in {path}, received {error}"
            ) from error
        if table.checksum != document.checksum:
            raise DamagedFileError(
                f"path: expected a table of instruments in {path}, received other entries"
            )
        return table

    def _content(self) -> dict[str, Any]:
        """What the checksum covers: texts, numbers, None where one is missing."""
        columns: dict[str, list[Any]] = {}
        for name in self._table.columns:
            column = self._table[name]
            if name in _NUMBERS:
                columns[name] = [None if np.isnan(v) else float(v) for v in column.to_numpy()]
            elif name == "position":
                columns[name] = [None if pd.isna(v) else int(v) for v in column]
            else:
                columns[name] = [None if pd.isna(v) else str(v) for v in column]
        return {"columns": columns, "ld": None if self.ld is None else self.ld.tolist()}


def _columns(columns: Any) -> dict[str, list[Any]]:
    """Columns of a file, every entry of the type that it should have."""
    allowed: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(_NUMBERS, (int, float)),
        **dict.fromkeys(_TEXTS, (str,)),
        "position": (int,),
    }
    if not isinstance(columns, dict) or not set(columns) <= set(allowed):
        raise TypeError("other columns")
    for name, entries in columns.items():
        if not isinstance(entries, list) or not all(
            entry is None or _plain(entry, allowed[name]) for entry in entries
        ):
            raise TypeError(f"other entries in {name}")
    return columns


def _plain(entry: object, types: tuple[type, ...]) -> bool:
    """Whether an entry of a file has one of the types, and is no text or number that none has."""
    if isinstance(entry, bool) or not isinstance(entry, types):
        return False
    if isinstance(entry, str):
        return entry.isprintable()
    return not isinstance(entry, int) or abs(entry) < _LARGEST_INTEGER


def _checked_table(frame: pd.DataFrame | Mapping[str, object]) -> pd.DataFrame:
    """Association table of the instruments; every rule that does not depend on LD."""
    if isinstance(frame, Mapping):
        try:
            frame = pd.DataFrame(frame)
        except (TypeError, ValueError) as error:
            raise fail("frame", "columns of one length", str(error)) from error
    if not isinstance(frame, pd.DataFrame):
        raise fail("frame", "a pandas DataFrame", f"a {type(frame).__name__}")
    names = [str(name) for name in frame.columns]
    for medusa, ours in MEDUSA_NAMES.items():
        if medusa in names and ours in names:
            raise fail("frame", "every column once", f"{ours} and {medusa}, which mean the same")
    frame = frame.set_axis([MEDUSA_NAMES.get(name, name) for name in names], axis="columns")
    missing = [name for name in _REQUIRED if name not in frame.columns]
    if missing:
        known = {ours: medusa for medusa, ours in MEDUSA_NAMES.items()}
        wanted = ", ".join(f"{n} (or {known[n]})" if n in known else n for n in _REQUIRED)
        raise fail(
            "frame",
            f"the columns {wanted}",
            f"a table without {', '.join(missing)} (it has {', '.join(names[:12])})",
        )
    table = association_table(frame, argument="frame", allow_missing=False)
    table = table.drop(columns=[name for name in ("trait",) if name in table.columns])
    snps = table["snp"].astype(str)
    twice = snps[snps.duplicated()].unique()
    if len(twice):
        raise fail("frame['snp']", "every SNP once", f"{listed(twice)} more than once")
    for snp in snps:
        if not snp.isprintable() or len(snp) > _LONGEST_NAME or snp != snp.strip():
            raise fail(
                "frame['snp']",
                f"identifiers of at most {_LONGEST_NAME} printable characters, without blanks at "
                "their ends",
                repr(snp[:_LONGEST_NAME]),
            )
    for name in ("effect_allele", "other_allele"):
        for snp, allele in zip(snps, table[name], strict=True):
            if pd.isna(allele) or not _ALLELE.fullmatch(str(allele)):
                raise fail(
                    f"frame[{name!r}]",
                    "A, C, G and T (several for an indel), or D and I, in every row",
                    f"{'no allele' if pd.isna(allele) else repr(str(allele))} of {snp}",
                )
    for snp, a, b in zip(snps, table["effect_allele"], table["other_allele"], strict=True):
        if a == b or (a in "DI") != (b in "DI"):
            expected = "two different alleles" if a == b else "D together with I"
            raise fail("frame['effect_allele']", expected, f"{a} and {b} of {snp}")
    if "eaf" not in table.columns:
        place = list(table.columns).index("beta")
        table.insert(place, "eaf", np.full(len(table), np.nan))
    for snp, eaf in zip(snps, table["eaf"], strict=True):
        if eaf in (0, 1):
            raise fail("frame['eaf']", "frequencies above 0 and below 1", f"{eaf:g} of {snp}")
    return table


def _checked_ld(ld: pd.DataFrame | ArrayLike, snps: list[str]) -> Float:
    """Correlation matrix in the order of the SNPs, exactly symmetric, with a diagonal of ones."""
    j = len(snps)
    if isinstance(ld, pd.DataFrame):
        labels = [[str(label) for label in axis] for axis in (ld.index, ld.columns)]
        for axis, own in zip(("rows", "columns"), labels, strict=True):
            missing = [snp for snp in snps if snp not in set(own)]
            if missing:
                raise fail("ld", f"{axis} named by the SNPs", f"a matrix without {listed(missing)}")
            if len(set(own)) != len(own):
                raise fail("ld", f"{axis} of different names", "a name more than once")
        places = [{label: i for i, label in enumerate(own)} for own in labels]
        rows, columns = ([place[snp] for snp in snps] for place in places)
        ld = ld.to_numpy()[np.ix_(rows, columns)]
    matrix = check.float_array("ld", ld, ndim=2, shape=(j, j))
    if np.max(np.abs(matrix - matrix.T)) > _ROUNDING_LD:
        i, k = (int(v) for v in np.argwhere(np.abs(matrix - matrix.T) > _ROUNDING_LD)[0])
        raise fail(
            "ld",
            "a symmetric matrix",
            f"{matrix[i, k]:g} and {matrix[k, i]:g} for {snps[i]} and {snps[k]}",
        )
    if np.max(np.abs(matrix.diagonal() - 1)) > _ROUNDING_LD:
        i = int(np.argmax(np.abs(matrix.diagonal() - 1)))
        raise fail("ld", "correlations, with ones in the diagonal", f"{matrix[i, i]:g}, {snps[i]}")
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    smallest = float(symmetric_eigen(matrix)[0].min())
    if smallest < _SMALLEST_EIGENVALUE:
        off = np.abs(matrix - np.eye(j))
        i, k = sorted(int(v) for v in np.unravel_index(np.argmax(off), off.shape))
        raise fail(
            "ld",
            "a positive definite matrix: SNPs that are not combinations of each other",
            f"a smallest eigenvalue of {smallest:.2g}; the most correlated SNPs are {snps[i]} and "
            f"{snps[k]} ({matrix[i, k]:.4f}); keep one of them",
        )
    return matrix
