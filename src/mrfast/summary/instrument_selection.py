"""Instruments from the results of a GWAS: `select_instruments` filters, `clump` thins.

Clumping: the most significant SNP becomes an instrument; every SNP near it and correlated with it
is left out; the most significant of the remaining ones comes next (Purcell et al. 2007,
doi:10.1086/519795). Correlations come from a reference panel of the user's own or from a matrix,
always offline. Only founders of a panel count, and they are correlated by allele counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import match_texts, thread_count
from mrfast._validation import Float, fail
from mrfast.data.associations import association_table
from mrfast.summary._least_squares import correlations, labels_of
from mrfast.summary.reference_panel import ReferencePanel, texts_of

if TYPE_CHECKING:
    from mrfast.io.plink import PlinkFiles

__all__ = ["SELECTION_REASONS", "InstrumentSelection", "clump", "select_instruments"]

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

SELECTION_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "kept": "an instrument",
        "missing_identifier": "the row has no SNP identifier",
        "missing_value": "beta or standard error is missing, or what a filter needs of them",
        "p_value": "the p-value is not below the threshold",
        "weak": "the F statistic is below min_f",
        "missing_frequency": "a filter by frequency, and no frequency",
        "rare": "the minor allele frequency is below min_maf",
        "absent_from_reference": "the reference does not have this SNP",
        "other_alleles_in_reference": "the reference has this SNP with other alleles",
        "constant_in_reference": "no founder of the reference differs from the others",
        "missing_position": "chromosome or position is missing",
        "clumped": "near a more significant SNP, and correlated with it",
    }
)
"""Every reason, with its meaning. Of several that apply to a row, the first one stands."""

_CODE = {reason: code for code, reason in enumerate(SELECTION_REASONS)}
_R2, _KB = 0.001, 10_000.0
_FAR = 2**60  # farther apart than any two positions


@dataclass(frozen=True, repr=False, eq=False)
class InstrumentSelection:
    """Result of `select_instruments` and `clump`: every row of the table, with its reason.

    Attributes
    ----------
    table : DataFrame
        The rows in their order, in the columns of :mod:`mrfast.data.associations`, and

        * ``f_statistic``: (beta / std_error)^2, where the table has both;
        * ``keep`` and ``reason``, a key of ``SELECTION_REASONS``;
        * ``index_snp`` and ``r_squared``: the SNP whose clump the row is in (itself for one that is
          kept) and the squared correlation with it; missing in rows dropped for other reasons,
          and without clumping.
    p_value, min_f, min_maf : float or None
        The filters; None for one that was not asked for.
    r2, kb : float or None
        The clumping: least squared correlation, and largest distance in thousands of base pairs
        (None: any); both None where there was none.
    n_reference : int or None
        Founders of the reference panel.
    """

    table: pd.DataFrame
    p_value: float | None
    min_f: float | None
    min_maf: float | None
    r2: float | None
    kb: float | None
    n_reference: int | None

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The instruments."""
        dropped = ["keep", "reason", "index_snp", "r_squared"]
        return self.table[self.table["keep"]].drop(columns=dropped).reset_index(drop=True)

    @cached_property
    def reasons(self) -> pd.DataFrame:
        """Number of rows and meaning of every reason that occurs."""
        codes = self.table["reason"].cat.codes.to_numpy()
        counts = np.bincount(codes, minlength=len(SELECTION_REASONS))
        return pd.DataFrame(
            {
                "reason": np.array(list(SELECTION_REASONS), dtype=object)[counts > 0],
                "rows": counts[counts > 0],
                "meaning": np.array(list(SELECTION_REASONS.values()), dtype=object)[counts > 0],
            }
        )

    def summary(self) -> str:
        """Describe in a few lines what was asked for, and how many rows fell to what.

        Returns
        -------
        str
        """
        asked = [
            f"{text} {value:g}"
            for text, value in (
                ("p-value below", self.p_value),
                ("F of at least", self.min_f),
                ("minor allele frequency of at least", self.min_maf),
            )
            if value is not None
        ]
        lines = [repr(self)]
        if asked:
            lines.append("; ".join(asked))
        if self.r2 is None:
            lines.append("not clumped: instruments may be correlated")
        else:
            distance = "at any distance" if self.kb is None else f"within {self.kb:g} kb"
            panel = f", by {self.n_reference} founders" if self.n_reference else ""
            of = f" and an r2 of at least {self.r2:g}" if self.r2 else ""
            lines.append(f"clumped {distance}{of}{panel}")
        width = len(str(self.reasons["rows"].max()))
        lines += [
            f"{rows:>{width}}  {reason:<26}  {meaning}"
            for reason, rows, meaning in self.reasons.itertuples(index=False)
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"InstrumentSelection({int(self.table['keep'].sum())} of {len(self.table)} rows kept)"
        )


def clump(
    table: pd.DataFrame | Mapping[str, object],
    *,
    reference: str | os.PathLike[str] | PlinkFiles | None = None,
    ld: Any = None,
    ld_snps: Sequence[object] | None = None,
    r2: float = _R2,
    kb: float | None = _KB,
    absent: str = "drop",
    n_threads: int | None = None,
) -> InstrumentSelection:
    """Thin a table to independent SNPs: of correlated neighbours, the most significant stays.

    Parameters
    ----------
    table : DataFrame, shape (n_rows, ...)
        ``snp`` and ``p_value``, or ``beta`` and ``std_error`` in its place; ``effect_allele`` and
        ``other_allele`` to be matched with the reference. A column ``trait`` holds several
        exposures, each of which is clumped by itself.
    reference : path-like, optional
        Prefix of a panel in PLINK's ``.bed``, ``.bim`` and ``.fam`` files. Chromosomes and
        positions are those of its ``.bim``.
    ld : DataFrame or array_like, shape (M, M), optional
        Correlations of the SNPs in place of a reference: a DataFrame labelled by SNP, an array
        with `ld_snps`, or an array in the order of the rows. Positions are those of the table;
        without any, distance plays no part.
    ld_snps : sequence of str, length M, optional
        Identifiers of the rows of an array `ld`.
    r2 : float, default 0.001
        A SNP is left out where its squared correlation with a kept one is at least this. With 0
        distance alone decides, and neither `reference` nor `ld` is needed.
    kb : float or None, default 10000
        and its position is at most so many thousand base pairs away, on the same chromosome. None
        for any distance.
    absent : {"drop", "keep"}, default "drop"
        SNPs whose correlations are not known: those that the reference lacks, has with other
        alleles, or in which its founders do not vary.
    n_threads : int, optional
        Default: every core. The result does not depend on it.

    Returns
    -------
    InstrumentSelection

    Raises
    ------
    InvalidInputError
        No reference and no `ld` with ``r2 > 0``, both of them, files or a matrix that are not
        what they should be, no positions, or options out of range.

    Notes
    -----
    The order is that of the p-values; equal ones (also those that underflowed to 0) in the order
    of ``|beta / std_error|``, then of chromosome, position and identifier: it does not depend on
    the order of the rows. Correlations are those of allele counts over founders with both
    genotypes; ``plink --clump`` estimates haplotype frequencies instead, which differs little
    where genotypes are in Hardy-Weinberg equilibrium.

    Independent SNPs have a squared correlation of about 1 / founders by chance, a multiple of a
    chi-square variable: with 500 founders, 48% of independent neighbours are above ``r2=0.001``.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.clump(
    ...     {"snp": ["rs1", "rs2", "rs3"], "p_value": [1e-9, 1e-12, 1e-8]},
    ...     ld=[[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]],
    ... )
    >>> result.kept["snp"].tolist()
    ['rs2', 'rs3']
    """
    return _selection(
        table,
        required=("snp",),
        filters={"p_value": None, "min_f": None, "min_maf": None},
        clumping=_Clumping.of(reference, ld, ld_snps, r2, kb, absent, n_threads),
    )


def select_instruments(
    table: pd.DataFrame | Mapping[str, object],
    *,
    p_value: float | None = 5e-8,
    min_f: float | None = None,
    min_maf: float | None = None,
    reference: str | os.PathLike[str] | PlinkFiles | None = None,
    ld: Any = None,
    ld_snps: Sequence[object] | None = None,
    r2: float | None = None,
    kb: float | None = _KB,
    absent: str = "drop",
    n_threads: int | None = None,
) -> InstrumentSelection:
    """Choose instruments from the results of a GWAS.

    Rows are filtered first; those that are left are clumped, where `reference` or `ld` is given.

    Parameters
    ----------
    table : DataFrame, shape (n_rows, ...)
        Associations with the exposure, in the columns of :mod:`mrfast.data.associations`.
    p_value : float or None, default 5e-8
        Keep rows with a smaller one. Without a column ``p_value``, it is that of
        ``beta / std_error`` by the normal distribution.
    min_f : float, optional
        Keep rows with an F statistic, (beta / std_error)^2, of at least this. Filtering the study
        that also gives the effects by their size favours overestimated ones.
    min_maf : float, optional
        Keep rows with a frequency of the rarer allele of at least this; needs ``eaf``.
    reference, ld, ld_snps, kb, absent, n_threads
        As in :func:`clump`. Without `reference` and `ld`, nothing is clumped unless ``r2=0``.
    r2 : float, optional
        As in :func:`clump`; 0.001 by default where `reference` or `ld` is given.

    Returns
    -------
    InstrumentSelection
        Every row with the reason it was kept or dropped.

    Raises
    ------
    InvalidInputError
        A table, file, matrix or option is not what it should be, or `r2` is given and nothing to
        clump by.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.select_instruments(
    ...     {"snp": ["rs1", "rs2"], "effect_allele": ["A", "C"], "beta": [0.1, 0.1],
    ...      "std_error": [0.01, 0.03]}
    ... )
    >>> result.table["reason"].tolist()
    ['kept', 'p_value']
    """
    filters = {
        "p_value": None
        if p_value is None
        else check.scalar("p_value", p_value, above=0, maximum=1),
        "min_f": None if min_f is None else check.scalar("min_f", min_f, minimum=0),
        "min_maf": None
        if min_maf is None
        else check.scalar("min_maf", min_maf, minimum=0, maximum=0.5),
    }
    clumping = None
    if reference is not None or ld is not None or r2 is not None:
        clumping = _Clumping.of(
            reference, ld, ld_snps, _R2 if r2 is None else r2, kb, absent, n_threads
        )
    else:  # an option that is wrong is so without clumping too
        _Clumping.of(None, None, ld_snps, 0, kb, absent, n_threads)
    return _selection(
        table,
        required=("snp", "effect_allele", "beta", "std_error"),
        filters=filters,
        clumping=clumping,
    )


@dataclass(frozen=True)
class _Clumping:
    """Options of the clumping, checked."""

    panel: ReferencePanel | None
    ld: Float | None
    ld_snps: tuple[str, ...] | None
    r2: float
    kb: float | None
    keep_absent: bool
    threads: int

    @classmethod
    def of(
        cls,
        reference: str | os.PathLike[str] | PlinkFiles | None,
        ld: Any,
        ld_snps: Sequence[object] | None,
        r2: float,
        kb: float | None,
        absent: str,
        n_threads: int | None,
    ) -> _Clumping:
        r2 = check.scalar("r2", r2, minimum=0, maximum=1)
        kb = None if kb is None else check.scalar("kb", kb, minimum=0)
        absent = check.choice("absent", absent, ("drop", "keep"))
        threads = thread_count(n_threads)
        if reference is not None and ld is not None:
            raise fail("reference, ld", "one of them", "both")
        if reference is None and ld is None and r2 > 0:
            raise fail(
                "reference, ld",
                "one of them (or r2=0, to thin by distance alone)",
                f"none, with r2={r2:g}",
            )
        if ld is None and ld_snps is not None:
            raise fail("ld_snps", "none without ld", "some")
        panel = None if reference is None else ReferencePanel(reference)
        matrix, labels = (None, None) if ld is None else _stated(ld, ld_snps)
        return cls(panel, matrix, labels, r2, kb, absent == "keep", threads)


def _stated(ld: Any, ld_snps: Sequence[object] | None) -> tuple[Float, tuple[str, ...] | None]:
    """Correlations of the user's own, checked, and the identifiers of their rows."""
    labels = labels_of(ld, ld_snps)
    matrix = check.float_array("ld", getattr(ld, "values", ld), ndim=2)
    if not matrix.size:
        raise fail("ld", "at least one row", f"shape {matrix.shape}")
    names = None if labels is None else check.name_tuple("ld_snps", labels, length=len(matrix))
    return np.ascontiguousarray(correlations(matrix, names, names, len(matrix))), names


class _Reasons:
    """The first reason to drop each row; 0 as long as there is none."""

    def __init__(self, n: int) -> None:
        self.codes = np.zeros(n, dtype=np.int8)

    def drop(self, rows: Mask, reason: str) -> None:
        self.codes[rows & (self.codes == 0)] = _CODE[reason]

    @property
    def left(self) -> Rows:
        return np.flatnonzero(self.codes == 0)


def _selection(
    table: pd.DataFrame | Mapping[str, object],
    *,
    required: Sequence[str],
    filters: Mapping[str, float | None],
    clumping: _Clumping | None,
) -> InstrumentSelection:
    data = association_table(table, argument="table", required=required)
    z = _ratio(data)
    p = _p_values(data, z)
    reasons = _Reasons(len(data))
    reasons.drop(data["snp"].isna().to_numpy(), "missing_identifier")
    reasons.drop(np.isnan(p), "missing_value")
    if "beta" in required:
        reasons.drop(np.isnan(z), "missing_value")
    threshold, min_f, min_maf = (filters[name] for name in ("p_value", "min_f", "min_maf"))
    if threshold is not None:
        reasons.drop(~(p < threshold), "p_value")
    if min_f is not None:
        reasons.drop(~(_f_statistic(z) >= min_f), "weak")
    if min_maf is not None:
        if "eaf" not in data.columns:
            raise fail("min_maf", "a column eaf in the table", "none")
        eaf = data["eaf"].to_numpy()
        reasons.drop(np.isnan(eaf), "missing_frequency")
        reasons.drop(~(np.minimum(eaf, 1 - eaf) >= min_maf), "rare")
    index = np.full(len(data), -1, dtype=np.int64)
    r = np.full(len(data), np.nan)
    if clumping is not None:
        _clump(data, z, p, clumping, reasons, index, r)
    columns = {} if np.isnan(z).all() else {"f_statistic": _f_statistic(z)}
    snps = data["snp"].to_numpy(dtype=object)
    index_snp = np.where(index >= 0, snps[index], np.nan)
    result = data.assign(
        **columns,
        keep=reasons.codes == 0,
        reason=pd.Categorical.from_codes(
            reasons.codes, categories=pd.Index(list(SELECTION_REASONS))
        ),
        index_snp=pd.Series(index_snp, dtype=object),
        r_squared=r**2,
    )
    return InstrumentSelection(
        table=result,
        p_value=threshold,
        min_f=min_f,
        min_maf=min_maf,
        r2=None if clumping is None else clumping.r2,
        kb=None if clumping is None else clumping.kb,
        n_reference=None
        if clumping is None or clumping.panel is None
        else int(clumping.panel.founders.sum()),
    )


def _ratio(data: pd.DataFrame) -> Float:
    """Size of beta / std_error; NaN where one of them is missing."""
    if "beta" not in data.columns or "std_error" not in data.columns:
        return np.full(len(data), np.nan)
    with np.errstate(over="ignore"):  # an infinite one is the most significant of all
        ratio: Float = np.abs(data["beta"].to_numpy() / data["std_error"].to_numpy())
    return ratio


def _f_statistic(z: Float) -> Float:
    with np.errstate(over="ignore"):
        return z**2


def _p_values(data: pd.DataFrame, z: Float) -> Float:
    """The table's p-values; those of z where it has none."""
    from scipy.special import erfc

    if "p_value" not in data.columns and np.isnan(z).all():
        raise fail("table", "a column p_value, or beta and std_error", "a table without")
    computed: Float = erfc(z / np.sqrt(2))
    if "p_value" not in data.columns:
        return computed
    given = data["p_value"].to_numpy()
    return np.where(np.isnan(given), computed, given)


def _clump(
    data: pd.DataFrame,
    z: Float,
    p: Float,
    clumping: _Clumping,
    reasons: _Reasons,
    index: Rows,
    r: Float,
) -> None:
    """Clump the rows that are left; fill in their reason, the row of their index and r with it."""
    left = reasons.left
    variant, chromosome, position = _placed(data, clumping, reasons, left)
    known = variant >= 0
    if clumping.keep_absent:
        apart = left[~known & (reasons.codes[left] == 0)]
        index[apart], r[apart] = apart, 1.0
    known &= reasons.codes[left] == 0
    rows, variant = left[known], variant[known]
    chromosome, position = chromosome[known], position[known]
    if not len(rows):
        return
    snps = pd.factorize(data["snp"].to_numpy(dtype=object)[rows], sort=True)[0]
    trait = (
        data["trait"].cat.codes.to_numpy()[rows].astype(np.int64)
        if "trait" in data.columns
        else np.zeros(len(rows), dtype=np.int64)
    )
    group = trait * (int(chromosome.max()) + 1) + chromosome
    by_place = np.lexsort((snps, position, group))
    rows, variant, position, snps, group = (
        np.ascontiguousarray(values[by_place]) for values in (rows, variant, position, snps, group)
    )
    size = np.where(np.isnan(z[rows]), 0.0, z[rows])
    # Within a group, candidates stand in the order of position and identifier already.
    order = np.lexsort((np.arange(len(rows)), -size, p[rows], group)).astype(np.int64)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    offsets = np.append(starts, len(rows)).astype(np.int64)
    options: dict[str, Any] = {
        "offsets": offsets,
        "position": position,
        "order": order,
        "reach": _FAR if clumping.kb is None else int(np.floor(min(clumping.kb * 1000, _FAR))),
        "r2": clumping.r2,
        "threads": clumping.threads,
    }
    if clumping.panel is not None:
        wanted, variant = np.unique(variant, return_inverse=True)
        leads, correlation = _core.genotypes.clump_by_genotypes(
            clumping.panel.packed(wanted),
            clumping.panel.founders,
            variant=np.ascontiguousarray(variant.reshape(-1), dtype=np.int64),
            **options,
        )
    else:
        leads, correlation = _core.genotypes.clump_by_matrix(
            clumping.ld, variant=variant, **options
        )
    index[rows], r[rows] = rows[leads], correlation
    taken = np.zeros(len(data), dtype=np.bool_)
    taken[rows[leads != np.arange(len(rows))]] = True
    reasons.drop(taken, "clumped")


def _placed(
    data: pd.DataFrame, clumping: _Clumping, reasons: _Reasons, left: Rows
) -> tuple[Rows, Rows, Rows]:
    """Row of genotypes or correlations (-1: none), chromosome as a code, and position."""
    snps = data["snp"].to_numpy(dtype=object)[left]

    def drop(where: Mask, reason: str) -> None:
        mask = np.zeros(len(data), dtype=np.bool_)
        mask[left[where]] = True
        reasons.drop(mask, reason)

    if clumping.panel is not None:
        effect, other = (texts_of(data, name) for name in ("effect_allele", "other_allele"))
        matched = clumping.panel.match(
            snps, *(None if texts is None else texts[left] for texts in (effect, other))
        )
        variant = matched.row
        absent, differing = variant == -1, variant == -2
        sums = clumping.panel.sums(variant[variant >= 0])
        constant = np.zeros(len(left), dtype=np.bool_)
        constant[variant >= 0] = sums[:, 0] * sums[:, 2] == sums[:, 1] ** 2
        if not clumping.keep_absent:
            drop(absent, "absent_from_reference")
            drop(differing, "other_alleles_in_reference")
            drop(constant, "constant_in_reference")
        variant = np.where((variant < 0) | constant, -1, variant)
        place = np.maximum(variant, 0)
        variants = clumping.panel.files.variants
        chromosome = variants["chromosome"].cat.codes.to_numpy()[place].astype(np.int64)
        return variant, chromosome, variants["position"].to_numpy()[place]
    variant = _rows_of_matrix(data, clumping, snps, left)
    if not clumping.keep_absent:
        drop(variant < 0, "absent_from_reference")
    zeros = np.zeros(len(left), dtype=np.int64)
    if not {"chromosome", "position"} <= set(data.columns):
        if clumping.ld is None:
            raise fail("table", "columns chromosome and position, to thin by distance", "none")
        return variant, zeros, zeros
    missing = (data["chromosome"].isna() | data["position"].isna()).to_numpy()[left]
    drop(missing, "missing_position")
    chromosome = np.maximum(data["chromosome"].cat.codes.to_numpy()[left], 0).astype(np.int64)
    position = data["position"].to_numpy(dtype=np.int64, na_value=0)[left]
    return variant, chromosome, position


def _rows_of_matrix(
    data: pd.DataFrame, clumping: _Clumping, snps: NDArray[np.object_], left: Rows
) -> Rows:
    """Row of the stated correlations that each SNP has, or -1."""
    if clumping.ld is None:
        return np.zeros(len(left), dtype=np.int64)
    if clumping.ld_snps is None:
        if len(clumping.ld) != len(data):
            raise fail(
                "ld",
                f"a matrix with labels (a DataFrame, or ld_snps), or {len(data)} rows in the order "
                "of the table",
                f"{len(clumping.ld)} rows without labels",
            )
        return left.astype(np.int64)
    return match_texts(np.array(clumping.ld_snps, dtype=object), snps)[1]
