"""PLINK 1 binary files: the genotypes of a reference panel, read a few variants at a time.

Three files with one prefix. ``.bim`` has a line for each variant (chromosome, identifier, position
in centimorgans, base pair, allele 1, allele 2), ``.fam`` one for each person (family, person,
father, mother, sex, phenotype), both without a header. ``.bed`` has three magic bytes and then, for
each variant, two bits for each person: 00 two copies of allele 1, 10 one, 11 none, 01 missing.
The format: https://www.cog-genomics.org/plink/1.9/formats
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrfast._validation import fail, listed
from mrfast.errors import InvalidInputError

__all__ = ["SUFFIXES", "PlinkFiles"]

_MAGIC = bytes([0x6C, 0x1B])
_BY_VARIANT, _BY_PERSON = 0x01, 0x00
SUFFIXES = (".bed", ".bim", ".fam")
"""Ends of the names of the three files."""


class PlinkFiles:
    """Panel of genotypes in PLINK's ``.bed``, ``.bim`` and ``.fam`` files.

    The tables of variants and persons are read at once, genotypes when they are asked for.

    Attributes
    ----------
    prefix : Path
        Of the three files.
    variants : DataFrame, shape (V, 5)
        ``chromosome`` (categories, without a leading ``chr``), ``snp``, ``position``, ``allele_1``
        and ``allele_2`` (categories in upper case; ``0`` for one that was never seen).
    persons : DataFrame, shape (P, 2)
        ``person`` and ``founder`` (neither parent is named).
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = _prefix(prefix)
        bed, bim, fam = (Path(f"{self.prefix}{suffix}") for suffix in SUFFIXES)
        self.variants = _variants(bim)
        self.persons = _persons(fam)
        self._bytes = (len(self.persons) + 3) // 4
        self._packed = self._opened(bed)

    def _opened(self, bed: Path) -> NDArray[np.uint8]:
        """Genotypes of all variants, mapped into memory: (V, bytes of a variant)."""
        with bed.open("rb") as stream:
            start = stream.read(3)
        if start[:2] != _MAGIC or len(start) < 3 or start[2] not in (_BY_VARIANT, _BY_PERSON):
            raise fail(bed.name, "a PLINK 1 .bed file", f"one that starts with {start.hex(' ')}")
        if start[2] == _BY_PERSON:
            raise fail(
                bed.name,
                "genotypes variant by variant",
                "person by person, as early PLINK wrote them; plink --make-bed writes them anew",
            )
        expected = 3 + len(self.variants) * self._bytes
        size = bed.stat().st_size
        if size != expected:
            raise fail(
                bed.name,
                f"{expected} bytes, for the {len(self.variants)} variants of the .bim and the "
                f"{len(self.persons)} persons of the .fam",
                f"{size}",
            )
        shape = (len(self.variants), self._bytes)
        return np.memmap(bed, dtype=np.uint8, mode="r", offset=3, shape=shape)

    def packed(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Genotypes of some variants as they stand in the file.

        Parameters
        ----------
        rows : ndarray of int, shape (n,)
            Rows of `variants`, in any order.

        Returns
        -------
        ndarray of uint8, shape (n, (P + 3) // 4)
            Four persons a byte, the first in the lowest two bits.
        """
        return np.ascontiguousarray(self._packed[rows])

    def __repr__(self) -> str:
        return (
            f"PlinkFiles({self.prefix.name}: {len(self.variants)} variants, "
            f"{len(self.persons)} persons)"
        )


def _prefix(prefix: str | os.PathLike[str]) -> Path:
    """Prefix of three files that are there; the name of one of them will do."""
    if not isinstance(prefix, (str, os.PathLike)):
        raise fail("reference", "the prefix of PLINK files", f"a {type(prefix).__name__}")
    text = os.fspath(prefix)
    for suffix in SUFFIXES:
        text = text.removesuffix(suffix)
    missing = [suffix for suffix in SUFFIXES if not Path(text + suffix).is_file()]
    if missing:
        also = (
            "; PLINK 2 writes them from .pgen by plink2 --make-bed"
            if (Path(text + ".pgen").is_file())
            else ""
        )
        raise fail(
            "reference",
            f"the prefix of {', '.join(SUFFIXES)} files{also}",
            f"{text}, without {', '.join(missing)}",
        )
    return Path(text)


def _table(path: Path, kinds: Mapping[int, Any], columns: int) -> pd.DataFrame:
    """Some columns, by their places, of a file without a header and without missing values."""
    with path.open("rb") as stream:
        found = len(stream.readline().split())
    if found not in (0, columns):
        raise fail(path.name, f"{columns} columns", f"{found}")
    last = columns - 1  # read too, since a line that is too short lacks it
    kinds = {last: "category", **kinds}
    try:
        table: pd.DataFrame = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            usecols=list(kinds),
            dtype=dict(kinds),
            na_filter=False,
            encoding="utf-8",
            quoting=csv.QUOTE_NONE,
        )
    except pd.errors.EmptyDataError as error:
        raise fail(path.name, "at least one line", "an empty file") from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise fail(
            path.name, f"lines of {columns} columns", str(error).strip().splitlines()[0]
        ) from error
    short = (table[last] == "").to_numpy()
    if short.any():
        where = f"line {int(np.argmax(short)) + 1} ({int(short.sum())} such lines)"
        raise fail(path.name, f"{columns} columns in every line", f"fewer in {where}")
    return table


def _variants(path: Path) -> pd.DataFrame:
    kinds = {0: "category", 1: str, 3: np.int64, 4: "category", 5: "category"}
    try:
        table = _table(path, kinds, 6)
    except (ValueError, OverflowError) as error:
        if isinstance(error, InvalidInputError):
            raise
        texts = _table(path, {3: str}, 6)[3]
        bad = ~texts.str.fullmatch(r"-?[0-9]{1,18}").to_numpy(dtype=np.bool_)
        row = int(np.argmax(bad))
        raise fail(
            path.name,
            "whole numbers in column 4, the position",
            f"{texts.iloc[row]!r} in line {row + 1} ({int(bad.sum())} such lines)",
        ) from error
    return pd.DataFrame(
        {
            "chromosome": _renamed(
                table[0], lambda name: name[3:] if name[:3].lower() == "chr" else name
            ),
            "snp": table[1],
            "position": table[3],
            "allele_1": _renamed(table[4], str.upper),
            "allele_2": _renamed(table[5], str.upper),
        },
        copy=False,
    )


def _renamed(column: pd.Series[Any], change: Callable[[str], str]) -> pd.Categorical[Any]:
    """Categories under other names, several of which may become the same."""
    codes, names = pd.factorize(
        np.array([change(str(name)) for name in column.cat.categories], dtype=object)
    )
    return pd.Categorical.from_codes(codes[column.cat.codes], categories=pd.Index(names))


def _persons(path: Path) -> pd.DataFrame:
    table = _table(path, {1: str, 2: str, 3: str}, 6)
    founder = ((table[2] == "0") & (table[3] == "0")).to_numpy(dtype=np.bool_)
    if not founder.any():
        raise fail(
            path.name,
            "a founder (0 for father and mother)",
            f"{len(table)} persons with parents: {listed(table[1])}",
        )
    return pd.DataFrame({"person": table[1], "founder": founder})
