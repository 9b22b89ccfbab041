"""PLINK 1 binary files: the genotypes of a reference panel, read a few variants at a time.

Three files with one prefix. ``.bim`` has a line for each variant (chromosome, identifier, position
in centimorgans, base pair, allele 1, allele 2), ``.fam`` one for each person (family, person,
father, mother, sex, phenotype), both without a header. ``.bed`` has three magic bytes and then, for
each variant, two bits for each person: 00 two copies of allele 1, 10 one, 11 none, 01 missing.
The format: https://www.cog-genomics.org/plink/1.9/formats
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrfast._validation import fail, listed

__all__ = ["PlinkFiles"]

_MAGIC = bytes([0x6C, 0x1B])
_BY_VARIANT, _BY_PERSON = 0x01, 0x00
_SUFFIXES = (".bed", ".bim", ".fam")


class PlinkFiles:
    """Panel of genotypes in PLINK's ``.bed``, ``.bim`` and ``.fam`` files.

    The tables of variants and persons are read at once, genotypes when they are asked for.

    Attributes
    ----------
    prefix : Path
        Of the three files.
    variants : DataFrame, shape (V, 5)
        ``chromosome`` (without a leading ``chr``), ``snp``, ``position``, ``allele_1`` and
        ``allele_2`` (upper case; ``0`` for one that was never seen).
    persons : DataFrame, shape (P, 2)
        ``person`` and ``founder`` (neither parent is named).
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = _prefix(prefix)
        bed, bim, fam = (Path(f"{self.prefix}{suffix}") for suffix in _SUFFIXES)
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
    for suffix in _SUFFIXES:
        text = text.removesuffix(suffix)
    missing = [suffix for suffix in _SUFFIXES if not Path(text + suffix).is_file()]
    if missing:
        also = (
            "; PLINK 2 writes them from .pgen by plink2 --make-bed"
            if (Path(text + ".pgen").is_file())
            else ""
        )
        raise fail(
            "reference",
            f"the prefix of {', '.join(_SUFFIXES)} files{also}",
            f"{text}, without {', '.join(missing)}",
        )
    return Path(text)


def _table(path: Path, names: dict[int, str], columns: int) -> pd.DataFrame:
    """Columns of a file without a header, as texts."""
    with path.open("rb") as stream:
        found = len(stream.readline().split())
    if found not in (0, columns):
        raise fail(path.name, f"{columns} columns", f"{found}")
    try:
        table: pd.DataFrame = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            usecols=list(names),
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            encoding="utf-8",
            quoting=3,  # none
        )
    except pd.errors.EmptyDataError as error:
        raise fail(path.name, "at least one line", "an empty file") from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise fail(
            path.name, f"lines of {columns} columns", str(error).strip().splitlines()[0]
        ) from error
    return table.rename(columns=names)


def _variants(path: Path) -> pd.DataFrame:
    names = {0: "chromosome", 1: "snp", 3: "position", 4: "allele_1", 5: "allele_2"}
    table = _table(path, names, 6)
    position = pd.to_numeric(table["position"], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~(np.abs(position) <= 2**53) | (position != np.floor(position))
    if bad.any():
        row = int(np.argmax(bad))
        raise fail(
            path.name,
            "whole numbers in column 4, the position",
            f"{table['position'].iloc[row]!r} in line {row + 1} ({int(bad.sum())} such lines)",
        )
    codes, chromosomes = pd.factorize(table["chromosome"].to_numpy(dtype=object))
    plain = [str(name)[3:] if str(name)[:3].lower() == "chr" else str(name) for name in chromosomes]
    return pd.DataFrame(
        {
            "chromosome": np.array(plain, dtype=object)[codes],
            "snp": table["snp"].to_numpy(dtype=object),
            "position": position.astype(np.int64),
            **{
                name: _upper(table[name].to_numpy(dtype=object))
                for name in ("allele_1", "allele_2")
            },
        }
    )


def _upper(texts: NDArray[np.object_]) -> NDArray[np.object_]:
    codes, distinct = pd.factorize(texts)
    return np.array([str(text).upper() for text in distinct], dtype=object)[codes]


def _persons(path: Path) -> pd.DataFrame:
    table = _table(path, {1: "person", 2: "father", 3: "mother"}, 6)
    founder = ((table["father"] == "0") & (table["mother"] == "0")).to_numpy(dtype=np.bool_)
    if not founder.any():
        raise fail(
            path.name,
            "a founder (0 for father and mother)",
            f"{len(table)} persons with parents: {listed(table['person'])}",
        )
    return pd.DataFrame({"person": table["person"].to_numpy(dtype=object), "founder": founder})
