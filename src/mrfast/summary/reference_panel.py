"""A user's own reference panel: which of its variants a table means, and their correlations.

A row of a table is matched by its identifier and, where the table has alleles, by these: as
written, exchanged, or on the other strand. D and I stand for the shorter and the longer of two
sequences. Of several variants with one identifier, the first whose alleles fit is taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import match_texts, thread_count
from mrfast._validation import Float, fail, listed
from mrfast.data.associations import as_frame, association_table, text_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mrfast.io.plink import PlinkFiles

__all__ = ["MatchedVariants", "ReferencePanel", "ld_matrix", "texts_of"]

Texts = NDArray[np.object_]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]

_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_EAF_TOLERANCE = 0.08  # a frequency nearer to 0.5 does not tell the strand of a palindrome
_EXTRA = ("eaf_exposure",)  # what harmonised tables call the frequency


@dataclass(frozen=True)
class MatchedVariants:
    """Variants of a panel that the rows of a table mean.

    Attributes
    ----------
    row : ndarray of int, shape (n,)
        Row of the panel; -1 where it has no such identifier, -2 where only the alleles differ.
    sign : ndarray, shape (n,)
        1 where the effect allele is allele 1 of the panel, -1 where it is allele 2.
    """

    row: Rows
    sign: Float


class ReferencePanel:
    """Founders of PLINK files, ready for correlations.

    Parameters
    ----------
    reference : path-like or PlinkFiles
        Prefix of the ``.bed``, ``.bim`` and ``.fam`` files, or the files opened already.
    """

    def __init__(self, reference: str | os.PathLike[str] | PlinkFiles) -> None:
        from mrfast.io.plink import PlinkFiles

        self.files = reference if isinstance(reference, PlinkFiles) else PlinkFiles(reference)
        self.founders: Mask = np.ascontiguousarray(self.files.persons["founder"], dtype=np.bool_)

    def packed(self, rows: Rows) -> NDArray[np.uint8]:
        """Genotypes of some variants, as the kernels take them."""
        return self.files.packed(rows)

    def sums(self, rows: Rows) -> NDArray[np.int64]:
        """Founders with a genotype, copies of allele 1 among them, and their squares: (n, 3)."""
        return _core.genotypes.sums(self.packed(rows), self.founders)

    def alleles(self, rows: Rows) -> tuple[Texts, Texts]:
        """Alleles 1 and 2 of some variants."""
        first, second = (
            self.files.variants[name].iloc[rows].astype(object).to_numpy()
            for name in ("allele_1", "allele_2")
        )
        return first, second

    def match(self, snps: Texts, effect: Texts | None, other: Texts | None) -> MatchedVariants:
        """Find the variants that rows of a table mean.

        Parameters
        ----------
        snps : ndarray of object, shape (n,)
            Identifiers; NaN matches nothing.
        effect, other : ndarray of object, shape (n,), or None
            Alleles in upper case, NaN where one is missing. Without effect alleles, identifiers
            alone are matched.

        Returns
        -------
        MatchedVariants
        """
        variants = self.files.variants
        codes, found = match_texts(snps, text_values(variants["snp"]))
        candidates = np.flatnonzero(found >= 0)
        # All pairs of a row and a variant with its identifier, the variants in their order.
        pairs = pd.DataFrame({"code": codes, "row": np.arange(len(codes))}).merge(
            pd.DataFrame({"code": found[candidates], "variant": candidates}), on="code"
        )
        pairs = pairs.sort_values(["row", "variant"], kind="stable")
        row, variant = (pairs[name].to_numpy(dtype=np.int64) for name in ("row", "variant"))
        if effect is None:
            sign = np.ones(len(row))
        else:
            sign = _signs(
                effect[row],
                np.full(len(row), np.nan, dtype=object) if other is None else other[row],
                *self.alleles(variant),
            )
        result = np.full(len(snps), -1, dtype=np.int64)
        result[row] = -2
        signs = np.full(len(snps), np.nan)
        fits = np.flatnonzero(sign != 0)[::-1]  # backwards, so that the first one stands
        result[row[fits]] = variant[fits]
        signs[row[fits]] = sign[fits]
        return MatchedVariants(result, signs)


def _signs(effect: Texts, other: Texts, first: Texts, second: Texts) -> Float:
    """1 where the effect allele is the first of the panel, -1 the second, 0 neither."""
    effect, other, first, second = (_plain(texts) for texts in (effect, other, first, second))
    effect, other = _spelt(effect, other, first, second)
    first, second = _spelt(first, second, effect, other)
    # "0" is an allele that nobody in the panel carries.
    alone, unseen = other == "", first == "0"

    def fit(e: Texts, o: Texts) -> Float:
        same = ((e == first) | (unseen & (e != second))) & (alone | (o == second))
        exchanged = (e == second) & (alone | (o == first) | (unseen & (o != second)))
        return np.where(same, 1.0, np.where(exchanged, -1.0, 0.0))

    sign = fit(effect, other)
    flipped = fit(_complements(effect), _complements(other))
    sign = np.where(sign == 0, flipped, sign)
    return np.where((effect == "") | (effect == other), 0.0, sign)


def _plain(texts: Texts) -> Texts:
    """Texts with "" for a missing one."""
    return np.where(pd.isna(texts), "", texts)


def _spelt(letters: Texts, partner: Texts, first: Texts, second: Texts) -> tuple[Texts, Texts]:
    """Write D and I as the shorter and the longer of two sequences, where that is possible."""
    coded = np.isin(letters, ["D", "I"]) & np.isin(partner, ["D", "I", ""]) & (letters != partner)
    if not coded.any():
        return letters, partner
    a, b = (np.array([len(text) for text in texts]) for texts in (first, second))
    coded &= (a != b) & ~np.isin(first, ["", "0", "D", "I"]) & ~np.isin(second, ["", "0", "D", "I"])
    short, long = np.where(a < b, first, second), np.where(a < b, second, first)

    def spell(texts: Texts) -> Texts:
        return np.where(
            coded & (texts == "D"), short, np.where(coded & (texts == "I"), long, texts)
        )

    return spell(letters), spell(partner)


def _complements(texts: Texts) -> Texts:
    codes, distinct = pd.factorize(texts)
    turned = [str(text).translate(_COMPLEMENT) for text in distinct]
    return np.array(turned, dtype=object)[codes]


def texts_of(table: pd.DataFrame, column: str) -> Texts | None:
    """Column of an association table as texts, NaN where missing; None without the column.

    Parameters
    ----------
    table : DataFrame
    column : str

    Returns
    -------
    ndarray of object, or None
    """
    if column not in table.columns:
        return None
    values: Texts = table[column].astype(object).to_numpy(dtype=object, na_value=np.nan)
    return values


def ld_matrix(
    reference: str | os.PathLike[str] | PlinkFiles,
    snps: pd.DataFrame | Mapping[str, object] | Sequence[object],
    *,
    absent: str = "error",
    n_threads: int | None = None,
) -> pd.DataFrame:
    """Correlations of dosages from a reference panel, for the effect alleles of a table.

    For `ld` of :func:`mrfast.ivw`, :func:`mrfast.cis_mr` and the other methods for correlated
    variants. The panel is read offline from PLINK files; only founders count.

    Parameters
    ----------
    reference : path-like
        Prefix of the ``.bed``, ``.bim`` and ``.fam`` files.
    snps : DataFrame or mapping of columns, shape (J, ...), or sequence of str, length J
        A table with ``snp`` and, so that signs follow its effect alleles, ``effect_allele``,
        ``other_allele`` and a frequency (``eaf`` or ``eaf_exposure``): an association table or
        ``mrfast.harmonise(...).kept``. With identifiers alone, correlations are those of
        allele 1 of the ``.bim`` file.
    absent : {"error", "drop"}, default "error"
        SNPs that the panel lacks, has with other alleles, or in which its founders do not vary.
        With "drop" the matrix is smaller than the table, and its labels say which SNPs it has.
    n_threads : int, optional
        Default: every core. The result does not depend on it.

    Returns
    -------
    DataFrame, shape (J, J)
        Labelled by SNP, in the order of `snps`. Every correlation is over the founders with both
        genotypes. Where genotypes are missing, the matrix need not be positive definite.

    Raises
    ------
    InvalidInputError
        A file is not one of PLINK's or does not fit the others, a SNP occurs twice, or the panel
        lacks some (``absent="error"``) or all of them.

    Notes
    -----
    A palindromic SNP (A/T or C/G) is taken as written, unless the frequency of its effect allele
    in the table and that in the panel lie on opposite sides of 0.5, both at least 0.08 away.

    The correlation of two independent SNPs has the standard deviation 1/sqrt(founders); the
    panel must also be of the ancestry of the studies.
    """
    absent = check.choice("absent", absent, ("error", "drop"))
    threads = thread_count(n_threads)
    names, effect, other, eaf = _wanted(snps)
    panel = ReferencePanel(reference)
    matched = panel.match(names, effect, other)
    usable = matched.row >= 0
    sums = panel.sums(matched.row[usable])
    varies = sums[:, 0] * sums[:, 2] > sums[:, 1] ** 2
    lacking = [str(snp) for snp in names[matched.row == -1]]
    differing = [str(snp) for snp in names[matched.row == -2]]
    constant = [str(snp) for snp in names[usable][~varies]]
    usable[usable] = varies
    problems = [
        f"{text} {listed(found)}"
        for text, found in (
            ("no variant", lacking),
            ("other alleles for", differing),
            ("no variation in", constant),
        )
        if found
    ]
    if problems and (absent == "error" or not usable.any()):
        hint = '; absent="drop" leaves them out' if usable.any() else ""
        raise fail("reference", f"every SNP{hint}", "; ".join(problems))
    rows, sign = matched.row[usable], matched.sign[usable]
    sums = sums[varies]
    if effect is not None and eaf is not None:
        frequency = sums[:, 1] / (2 * sums[:, 0])
        frequency = np.where(sign > 0, frequency, 1 - frequency)
        sign = np.where(_other_strand(panel, rows, eaf[usable] - 0.5, frequency - 0.5), -sign, sign)
    matrix = _core.genotypes.correlations(panel.packed(rows), panel.founders, threads=threads)
    matrix = matrix * np.outer(sign, sign)
    np.fill_diagonal(matrix, 1.0)
    if np.isnan(matrix).any():
        i, j = (int(k) for k in np.argwhere(np.isnan(matrix))[0])
        raise fail(
            "reference",
            "SNPs that vary among the founders with both genotypes",
            f"{names[usable][i]} and {names[usable][j]}",
        )
    labels = pd.Index(names[usable], dtype=object, name="snp")
    return pd.DataFrame(matrix, index=labels, columns=labels.rename(None))


def _other_strand(panel: ReferencePanel, rows: Rows, table: Float, reference: Float) -> Mask:
    """Palindromes whose frequencies, both clear of 0.5, lie on opposite sides of it."""
    first, second = panel.alleles(rows)
    single = np.isin(first, list("ACGT"))
    palindromic: Mask = single & (_complements(first) == second)
    clear = (np.abs(table) >= _EAF_TOLERANCE) & (np.abs(reference) >= _EAF_TOLERANCE)
    return palindromic & clear & (table * reference < 0)


def _wanted(
    snps: pd.DataFrame | Mapping[str, object] | Sequence[object],
) -> tuple[Texts, Texts | None, Texts | None, Float | None]:
    """Identifiers, alleles and frequencies of the SNPs that a matrix is wanted for."""
    if isinstance(snps, (pd.DataFrame, Mapping)):
        table = as_frame(snps, "snps", ("snp",))
        for name in _EXTRA:
            if name in table.columns and "eaf" not in table.columns:
                table = table.rename(columns={name: "eaf"})
        wanted = ("snp", "effect_allele", "other_allele", "eaf")
        table = table[[name for name in wanted if name in table.columns]]
    elif isinstance(snps, str) or not np.iterable(snps):
        raise fail("snps", "a table or a sequence of identifiers", repr(snps))
    else:
        table = pd.DataFrame({"snp": [str(snp) for snp in snps]})
    table = association_table(table, argument="snps", required=("snp",))
    texts = texts_of(table, "snp")
    assert texts is not None
    if pd.isna(texts).any():
        raise fail("snps", "an identifier for every SNP", "a missing one")
    check.name_tuple("snps", list(texts), length=len(texts))
    eaf = table["eaf"].to_numpy(dtype=np.float64) if "eaf" in table.columns else None
    return texts, texts_of(table, "effect_allele"), texts_of(table, "other_allele"), eaf
