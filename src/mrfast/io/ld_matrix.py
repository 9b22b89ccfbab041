"""Matrices of linkage disequilibrium from text files, brought to the order of the candidates.

A square matrix of correlations between dosages, its entries separated by tabs, commas, semicolons
or blanks, plain or gzipped. It may have a header of labels, a first column of labels, or both.
A label is a SNP's identifier, or identifier, effect and other allele as in ``rs123_A_G`` (as
``TwoSampleMR::ld_matrix`` writes them); then the sign of a correlation follows the alleles.
Without alleles, the correlations are those of the effect alleles of the exposure's table.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._validation import Float, fail

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

__all__ = ["candidate_correlations", "read_matrix", "without_alleles"]

_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_SHOWN = 3


def read_matrix(path: Path) -> tuple[Float, tuple[str, ...] | None]:
    """Read a square matrix.

    Parameters
    ----------
    path : Path

    Returns
    -------
    matrix : ndarray, shape (M, M)
    labels : tuple of str, or None

    Raises
    ------
    InvalidInputError
        The file is not a square table of finite numbers with at most one set of labels.
    OSError
        The file cannot be read.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise fail(path.name, "a matrix as text", f"a damaged or binary file ({error})") from error
    rows = _cells(text)
    if not rows:
        raise fail(path.name, "a square matrix", "an empty file")
    first = rows[0][1:] or rows[0]  # the first cell alone may be a label of the row
    header = rows.pop(0) if any(not _is_number(cell) for cell in first) else None
    size = len(rows)
    if {len(row) for row in rows} not in ({size}, {size + 1}):
        raise fail(path.name, "a square matrix", f"{size} rows of {_widths(rows)} columns")
    side = [row.pop(0) for row in rows] if len(rows[0]) > size else None
    if header is not None and side is not None and len(header) == size + 1:
        header = header[1:]
    if header is not None and len(header) != size:
        raise fail(path.name, f"a header of {size} labels", f"{len(header)}")
    if header is not None and side is not None and header != side:
        raise fail(path.name, "rows and columns with the same labels", "different ones")
    labels = header or side
    return _numbers(path.name, rows), None if labels is None else tuple(labels)


def without_alleles(labels: tuple[str, ...], snps: Collection[str]) -> tuple[str, ...]:
    """Labels without the alleles that some of them end in, for what needs no signs.

    Parameters
    ----------
    labels : tuple of str
    snps : collection of str
        Identifiers; a label that is one of them stays.

    Returns
    -------
    tuple of str
    """
    known = set(snps)
    return tuple(label if label in known else _parts(label)[0] for label in labels)


def _parts(label: str) -> tuple[str, tuple[str, str] | None]:
    """Identifier, and effect and other allele where the label ends in two."""
    snp, *alleles = label.rsplit("_", 2)
    return (snp, (alleles[0].upper(), alleles[1].upper())) if len(alleles) == 2 else (label, None)


def candidate_correlations(
    path: Path, kept: pd.DataFrame, exposure: pd.DataFrame, exposure_file: str
) -> Float:
    """Read the correlations of the kept SNPs, for the effect alleles that they have now.

    Parameters
    ----------
    path : Path
        File with the matrix.
    kept : DataFrame, shape (J, ...)
        Rows that harmonisation kept, one per SNP.
    exposure : DataFrame
        The exposure's table; gives the order of a matrix without labels.
    exposure_file : str
        Name of that table, for messages.

    Returns
    -------
    ndarray, shape (J, J)

    Raises
    ------
    InvalidInputError
        The matrix lacks a SNP, or its alleles are others.
    OSError
        The file cannot be read.
    """
    matrix, labels = read_matrix(path)
    snps = [str(snp) for snp in kept["snp"]]
    # Harmonisation turns the exposure where only the outcome names both alleles.
    turned = (kept["swapped"] & (kept["alleles"] == "1-2")).to_numpy()
    sign = np.where(turned, -1.0, 1.0)
    if labels is None:
        identifiers = [str(snp) for snp in exposure["snp"]]
        if len(matrix) != len(identifiers):
            raise fail(
                path.name,
                f"labels, or as many rows as {exposure_file} has, {len(identifiers)}",
                f"{len(matrix)} rows without labels",
            )
    else:
        identifiers = list(labels)
    place: dict[str, int] = {}
    for index, identifier in enumerate(identifiers):
        if identifier in place:
            raise fail(path.name, "every SNP once", f"{identifier} more than once")
        place[identifier] = index
    order = np.empty(len(snps), dtype=np.intp)
    with_alleles: dict[str, tuple[int, str, str]] = {}
    for identifier, index in place.items() if labels is not None else ():
        snp, alleles = _parts(identifier)
        if alleles is not None:
            with_alleles[snp] = index, *alleles
    missing = []
    for i, snp in enumerate(snps):
        if snp in place:
            order[i] = place[snp]
        elif snp in with_alleles:
            order[i], effect, other = with_alleles[snp]
            sign[i] = _orientation(path.name, snp, (effect, other), kept.iloc[i])
        else:
            missing.append(snp)
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise fail(path.name, "every SNP that was kept", f"none of {shown} ({len(missing)} in all)")
    result: Float = matrix[np.ix_(order, order)] * np.outer(sign, sign)
    return result


def _orientation(file: str, snp: str, alleles: tuple[str, str], row: pd.Series[Any]) -> float:
    """1 where the matrix counts the effect allele, -1 where it counts the other one."""
    ours = (str(row["effect_allele"]), str(row["other_allele"]))
    flipped = (alleles[0].translate(_COMPLEMENT), alleles[1].translate(_COMPLEMENT))
    for effect, other in (alleles, flipped):
        if (effect, other) == ours:
            return 1.0
        if (other, effect) == ours:
            return -1.0
    raise fail(file, f"the alleles {'/'.join(ours)} for {snp}", "/".join(alleles))


def _cells(text: str) -> list[list[str]]:
    """Rows of the table, without blank lines and an empty last column."""
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = next((mark for mark in "\t,;" if lines and mark in lines[0]), None)
    if delimiter is None:
        return [[cell.strip('"') for cell in line.split()] for line in lines]
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    while rows and all(len(row) > 1 and row[-1] == "" for row in rows):
        rows = [row[:-1] for row in rows]
    return rows


def _widths(rows: list[list[str]]) -> str:
    widths = sorted({len(row) for row in rows})
    return " or ".join(map(str, widths[:_SHOWN])) if widths else "no"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell in ("", "NA")
    return True


def _numbers(file: str, rows: list[list[str]]) -> Float:
    """Cells as finite numbers."""
    try:
        values: Float = np.array(rows, dtype=np.float64)
    except ValueError:
        values = np.array([[_number(cell) for cell in row] for row in rows])
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        row, column = (int(index) for index in bad[0])
        raise fail(
            file, "finite numbers", f"{rows[row][column]!r} in row {row + 1}, column {column + 1}"
        )
    return values


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
