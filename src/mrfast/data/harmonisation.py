"""Harmonisation: bring exposure and outcome associations to the same effect allele.

The rules are those of ``harmonise_data`` in TwoSampleMR 0.7.9 (Hemani et al. 2018,
https://doi.org/10.7554/eLife.34408). Rows are matched by SNP. A matched row is of case "2-2",
"2-1", "1-2" or "1-1": the number of alleles that the exposure and the outcome give.

1. D and I are spelt out where the other side gives two sequences of unequal length.
2. 2-2: the outcome's alleles stay as they are where they equal the exposure's; they are swapped
   (beta changes sign, eaf becomes 1 - eaf) where they stand in the other order; otherwise the
   strand is flipped (every letter complemented), unless the exposure is palindromic (A/T or C/G),
   and they are compared again. Alleles that still differ are incompatible.
3. 2-1 and 1-2: the side with one allele is swapped or flipped onto the side with two, and takes
   its other allele. Palindromes are removed. A flipped row, and one whose frequencies are
   missing, near 0.5 or on opposite sides of 0.5, is ambiguous.
4. 1-1: the alleles must be equal; the frequencies are compared as in 3.
5. A 2-2 palindrome is ambiguous where a frequency is missing or nearer to 0.5 than
   ``eaf_tolerance``. Action 1 trusts the letters; action 2 reads the strand off the frequencies
   and drops ambiguous rows; action 3 drops palindromes and ambiguous rows.

Differences from TwoSampleMR:

* every row of both tables stays in the result, with a reason;
* a SNP whose effect and other allele are the same is removed, even where both sides agree on it;
* D or I that cannot be spelt out is removed, also where it faces a single base;
* rows without an identifier match nothing, rows without an effect allele are removed;
* a frequency at exactly ``eaf_tolerance`` from 0.5 is never ambiguous, whichever of the two
  alleles the outcome counts; in TwoSampleMR that depends on the rounding of 1 - eaf.

As in TwoSampleMR, action 1 keeps 2-1 and 1-2 rows whose alleles do not fit at all; their reason is
``kept_unmatched_alleles``. Actions 2 and 3 drop them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import match_texts
from mrfast._validation import Float, fail
from mrfast.data.associations import association_table, text_values
from mrfast.errors import InvalidInputError

__all__ = ["REASONS", "Harmonised", "harmonise"]

Codes = NDArray[np.int32]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "kept": "the alleles agree as written",
        "kept_swapped": "effect and other allele exchanged, beta changed sign",
        "kept_flipped_strand": "alleles complemented",
        "kept_flipped_strand_swapped": "alleles complemented and exchanged, beta changed sign",
        "kept_palindromic_as_written": "palindromic; action 1 trusts the letters",
        "kept_palindromic_by_frequency": "palindromic; the frequencies told the strand",
        "kept_unmatched_alleles": "the alleles do not fit; only action 1 keeps such a row",
        "one_allele_ambiguous": "one side gives one allele; the frequencies do not agree",
        "one_allele_missing_frequency": "one side gives one allele; a frequency is missing",
        "one_allele_flipped_strand": "one side gives one allele; fits on the other strand only",
        "palindromic": "palindromic; action 3 drops every palindrome",
        "palindromic_ambiguous": "palindromic; a frequency is too near 0.5 to tell the strand",
        "palindromic_missing_frequency": "palindromic; a frequency is missing",
        "palindromic_one_allele": "palindromic; one side gives one allele",
        "identical_alleles": "effect and other allele are the same",
        "incompatible_alleles": "the alleles differ on either strand",
        "unresolved_indel": "D or I faces alleles that do not tell which is the longer",
        "missing_effect_allele": "an effect allele is missing",
        "missing_value": "a beta or standard error is missing",
        "absent_from_outcome": "the outcome does not have this SNP",
        "absent_from_exposure": "the exposure does not have this SNP",
        "missing_identifier": "the row has no SNP identifier, so it matches nothing",
    }
)
"""Every reason, with its meaning. Of several that apply to a row, the last one stands."""

_CODE = {reason: code for code, reason in enumerate(REASONS)}
_CASES = ("2-2", "2-1", "1-2", "1-1")
_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_ROUNDING = 1e-9  # frequencies are not given to more digits
_EXAMPLES = 3


@dataclass(frozen=True)
class _Alleles:
    """Vocabulary of alleles; every array has one element more, for the code -1 (missing)."""

    names: tuple[str, ...]
    complement: Codes
    length: Codes
    is_base: Mask
    is_indel_letter: Mask  # D or I
    insertion: int

    @classmethod
    def of(cls, found: set[str]) -> _Alleles:
        found = found | {"D", "I"}
        names = sorted(found | {name.translate(_COMPLEMENT) for name in found})
        place = {name: code for code, name in enumerate(names)}
        complement = [place[name.translate(_COMPLEMENT)] for name in names]
        return cls(
            names=tuple(names),
            complement=np.array([*complement, -1], dtype=np.int32),
            length=np.array([*map(len, names), 0], dtype=np.int32),
            is_base=np.isin([*names, ""], list("ACGT")),
            is_indel_letter=np.isin([*names, ""], list("DI")),
            insertion=place["I"],
        )


@dataclass(frozen=True)
class _Side:
    """One input table; its texts in codes, -1 = missing."""

    table: pd.DataFrame
    snp: Rows  # (n_rows,), -1 also where the other side does not have the SNP
    trait: Codes  # (n_rows,)
    effect: Codes  # (n_rows,)
    other: Codes  # (n_rows,)

    @cached_property
    def rows_of_trait(self) -> list[Rows]:
        """Row numbers of every trait."""
        ends = np.cumsum(np.bincount(self.trait))
        return np.split(np.argsort(self.trait, kind="stable"), ends[:-1])

    @property
    def columns(self) -> tuple[Codes, Codes, Float, Float, Float | None]:
        """What the rules look at: effect and other allele, beta, standard error and frequency."""
        beta, std_error, eaf = (
            np.ascontiguousarray(self.table[name].to_numpy())
            if name in self.table.columns
            else None
            for name in ("beta", "std_error", "eaf")
        )
        assert beta is not None
        assert std_error is not None
        return self.effect, self.other, beta, std_error, eaf

    @property
    def positions(self) -> NDArray[np.int64] | None:
        """Positions, -1 = missing; None without the column."""
        if "position" not in self.table.columns:
            return None
        return self.table["position"].to_numpy(dtype=np.int64, na_value=-1)

    def numbers(self, column: str, rows: Rows) -> Float:
        """Numbers of the rows, a new array; NaN for row -1 and where the column is absent."""
        if column not in self.table.columns:
            return np.full(rows.shape, np.nan)
        values: Float = self.table[column].to_numpy()[rows]
        values[rows < 0] = np.nan
        return values


@dataclass(frozen=True)
class _Alignment:
    """What the rules say about rows; every array has the shape (n_rows,)."""

    effect_exposure: Codes
    other_exposure: Codes
    effect_outcome: Codes
    other_outcome: Codes
    case: NDArray[np.int8]  # index in _CASES, -1 = not matched
    reason: NDArray[np.int8]  # index in REASONS
    negate_exposure: Mask
    negate_outcome: Mask
    swapped: Mask
    flipped: Mask
    palindromic: Mask
    ambiguous: Mask
    removed: Mask
    keep: Mask
    duplicated: Mask

    def of(self, rows: Rows) -> _Alignment:
        """The same of some of the rows."""
        return _Alignment(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, repr=False, eq=False)
class Harmonised:
    """Result of :func:`harmonise`: every row of both tables, aligned, with its reason.

    Attributes
    ----------
    action : int
        Treatment of palindromes: 1, 2 or 3.
    eaf_tolerance : float
        Distance from 0.5 below which a frequency does not tell the strand.
    """

    action: int
    eaf_tolerance: float
    _sides: tuple[_Side, _Side]
    _alleles: tuple[str, ...]
    _rows: tuple[Rows, Rows]
    _alignment: _Alignment

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every row: the matched ones in the order of the exposure, then those of one side only.

        Columns:

        * ``exposure``, ``outcome`` (the traits), ``snp``; ``chromosome`` and ``position`` where an
          input has them;
        * ``effect_allele``, ``other_allele`` of the exposure; ``effect_allele_outcome``,
          ``other_allele_outcome``, which differ from them only in rows that do not fit;
        * ``beta_exposure``, ``se_exposure``, ``eaf_exposure``, ``p_value_exposure``,
          ``n_exposure`` and the same of the outcome, all for the effect allele;
        * ``alleles``: "2-2", "2-1", "1-2" or "1-1"; missing in rows that match nothing;
        * flags: ``swapped``; ``flipped`` (the strand, by letters or frequencies);
          ``palindromic``, ``ambiguous`` and ``removed``, as TwoSampleMR uses the words;
          ``duplicated`` (kept, and so is another row of the same SNP and traits); ``keep``;
        * ``reason``: a key of ``REASONS``.

        With several traits there is a row for every pair of traits: a SNP of the exposure that two
        outcomes lack has two rows.
        """
        if not self._unmatched:
            return self._frame(self._rows, self._alignment, tidy=True)
        frames = [self.matched]
        for pair, reason, side, rows in self._unmatched:
            nowhere = np.full(rows.shape, -1)
            both = (nowhere, rows) if side else (rows, nowhere)
            e, o = (np.full(rows.shape, code, np.int32) for code in divmod(pair, self._shape[1]))
            alignment = _not_aligned(self._sides, both, reason)
            frames.append(_frame(self._sides, self._alleles, (e, o), both, alignment))
        return _tidy(pd.concat(frames, ignore_index=True))

    @property
    def matched(self) -> pd.DataFrame:
        """The rows of ``table`` that both sides have, a new copy."""
        return self._frame(self._rows, self._alignment)

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The rows of ``table`` to be used."""
        keep = np.flatnonzero(self._alignment.keep)
        left, right = (rows[keep] for rows in self._rows)
        return self._frame((left, right), self._alignment.of(keep), tidy=True)

    @cached_property
    def duplicated(self) -> tuple[str, ...]:
        """SNPs of which several rows are kept for one pair of traits."""
        rows = self._rows[0][self._alignment.duplicated]
        return tuple(str(snp) for snp in self._sides[0].table["snp"].iloc[rows].unique())

    @cached_property
    def counts(self) -> pd.DataFrame:
        """The numbers of TwoSampleMR's log, by its names: four rows for every pair of traits.

        ``switched_alleles`` (before a flip) and ``flipped_alleles_basic`` (strand, by letters),
        ``flipped_alleles_palindrome`` (strand, by frequencies) and ``flipped_alleles_no_oa``
        (strand, one allele) are counted for each case in ``alleles``, the others for the pair.
        Without ``proxy_variants``: mrfast looks up no proxies.
        """
        matched, n_cases = self._alignment, len(_CASES)
        case, swapped, flipped = matched.case, matched.swapped, matched.flipped
        by_frequency = flipped & matched.palindromic & (case == 0)
        by_letters = flipped & ~by_frequency

        def by_case(mask: Mask) -> NDArray[np.intp]:
            cell = self._pair[mask] * n_cases + case[mask]
            return np.bincount(cell, minlength=self._n_pairs * n_cases)

        def by_pair(mask: Mask) -> NDArray[np.intp]:
            return np.repeat(np.bincount(self._pair[mask], minlength=self._n_pairs), n_cases)

        absent = np.zeros(self._n_pairs, dtype=np.intp)
        for pair, _, side, rows in self._unmatched:
            absent[pair] += 0 if side else rows.size
        candidates = [rows.size for rows in self._sides[0].rows_of_trait]
        pairs = np.repeat(np.arange(self._n_pairs), n_cases)
        return pd.DataFrame(
            {
                **self._trait_columns(pairs),
                "alleles": np.tile(_CASES, self._n_pairs),
                "switched_alleles": by_case(swapped & ~by_letters),
                "flipped_alleles_basic": by_case(by_letters & (case == 0)),
                "flipped_alleles_palindrome": by_case(by_frequency),
                "flipped_alleles_no_oa": by_case(by_letters & (case != 0)),
                "incompatible_alleles": by_pair(matched.removed),
                "ambiguous_alleles": by_pair(matched.ambiguous),
                "candidate_variants": np.repeat(candidates, self._shape[1] * n_cases),
                "variants_absent_from_reference": absent[pairs],
                "total_variants": by_pair(np.ones(case.shape, dtype=np.bool_)),
                "total_variants_for_mr": by_pair(matched.keep),
            }
        )

    @cached_property
    def reasons(self) -> pd.DataFrame:
        """Number of rows and meaning of every reason that occurs, for every pair of traits."""
        n_reasons = len(REASONS)
        cell = self._pair * n_reasons + self._alignment.reason
        counts = np.bincount(cell, minlength=self._n_pairs * n_reasons)
        for pair, reason, _, rows in self._unmatched:
            counts[pair * n_reasons + reason] += rows.size
        pairs, codes = np.divmod(np.flatnonzero(counts), n_reasons)
        return pd.DataFrame(
            {
                **self._trait_columns(pairs),
                "reason": np.array(list(REASONS), dtype=object)[codes],
                "rows": counts[counts > 0],
                "meaning": np.array(list(REASONS.values()), dtype=object)[codes],
            }
        )

    def summary(self) -> str:
        """Describe in a few lines how many rows were kept, and why the others were not.

        Returns
        -------
        str
        """
        exposures, outcomes = self._traits
        lines = [
            repr(self),
            f"exposure: {len(self._sides[0].table)} rows of {_listed(exposures)}",
            f"outcome: {len(self._sides[1].table)} rows of {_listed(outcomes)}",
        ]
        rows = self.reasons.groupby("reason", sort=False)["rows"].sum()
        width = len(str(rows.max()))
        lines += [
            f"{rows[reason]:>{width}}  {reason:<29}  {meaning}"
            for reason, meaning in REASONS.items()
            if reason in rows.index
        ]
        if self.duplicated:
            lines.append(f"several rows are kept for {_listed(self.duplicated)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        keep = self._alignment.keep
        duplicated = f", duplicated SNPs: {len(self.duplicated)}" if self.duplicated else ""
        return (
            f"Harmonised({keep.sum()} of {keep.size} matched rows kept{duplicated}, "
            f"action={self.action}, eaf_tolerance={self.eaf_tolerance})"
        )

    @property
    def _traits(self) -> tuple[list[str], list[str]]:
        return _traits(self._sides[0], "exposure"), _traits(self._sides[1], "outcome")

    @property
    def _shape(self) -> tuple[int, int]:
        exposures, outcomes = self._traits
        return len(exposures), len(outcomes)

    @property
    def _n_pairs(self) -> int:
        return self._shape[0] * self._shape[1]

    @cached_property
    def _pair(self) -> Rows:
        """Number of the pair of traits of every matched row."""
        e, o = self._traits_of(self._rows)
        return e.astype(np.intp) * self._shape[1] + o

    def _traits_of(self, rows: tuple[Rows, Rows]) -> tuple[Codes, Codes]:
        """Traits of matched rows, as codes."""
        return self._sides[0].trait[rows[0]], self._sides[1].trait[rows[1]]

    def _frame(
        self, rows: tuple[Rows, Rows], alignment: _Alignment, *, tidy: bool = False
    ) -> pd.DataFrame:
        """Columns of `table`, of matched rows."""
        traits = self._traits_of(rows)
        return _frame(self._sides, self._alleles, traits, rows, alignment, tidy=tidy)

    def _trait_columns(self, pairs: Rows) -> dict[str, NDArray[Any]]:
        names = (np.array(names, dtype=object) for names in self._traits)
        codes = np.divmod(pairs, self._shape[1])
        return {
            column: own[code]
            for column, own, code in zip(("exposure", "outcome"), names, codes, strict=True)
        }

    @cached_property
    def _unmatched(self) -> list[tuple[int, int, int, Rows]]:
        """Pair of traits, reason, side (0 or 1) and rows, for rows that match nothing."""
        n_snps = int(max(side.snp.max() for side in self._sides)) + 1
        present: list[list[Mask]] = [[], []]  # of each side, for each trait
        for side, masks in zip(self._sides, present, strict=True):
            for rows in side.rows_of_trait:
                mask = np.zeros(n_snps + 1, dtype=np.bool_)
                mask[side.snp[rows]] = True
                mask[-1] = False  # the place of code -1
                masks.append(mask)
        unnamed = [side.table["snp"].isna().to_numpy() for side in self._sides]
        result = []
        for pair in range(self._n_pairs):
            traits = divmod(pair, self._shape[1])
            for this, reason in enumerate(("absent_from_outcome", "absent_from_exposure")):
                side, others = self._sides[this], present[1 - this][traits[1 - this]]
                rows = side.rows_of_trait[traits[this]]
                rows = rows[~others[side.snp[rows]]]
                missing = unnamed[this][rows]
                result.append((pair, _CODE[reason], this, rows[~missing]))
                result.append((pair, _CODE["missing_identifier"], this, rows[missing]))
        return [part for part in result if part[-1].size]


def harmonise(
    exposure: pd.DataFrame | Mapping[str, object],
    outcome: pd.DataFrame | Mapping[str, object],
    *,
    action: int = 2,
    eaf_tolerance: float = 0.08,
) -> Harmonised:
    """Align the associations of an exposure and an outcome to the same effect alleles.

    No row is dropped: those that cannot be used are flagged, with a reason. A SNP that occurs
    several times is matched with every row of that SNP on the other side, and flagged if several
    of these rows are kept. A column ``trait`` lets one table hold several exposures or outcomes;
    every exposure is then matched with every outcome.

    Parameters
    ----------
    exposure : DataFrame, shape: (n_exposure_rows, ...)
        Associations with the exposure, in the columns of :mod:`mrfast.data.associations`.
    outcome : DataFrame, shape: (n_outcome_rows, ...)
        Associations with the outcome.
    action : int, default 2
        1: all alleles are on the forward strand, so palindromes are taken as written. 2: read the
        strand of palindromes off the allele frequencies and drop those that it leaves open. 3:
        drop all palindromes.
    eaf_tolerance : float, default 0.08
        A frequency nearer to 0.5 than this does not tell the strand; 0 to below 0.5.

    Returns
    -------
    Harmonised

    Raises
    ------
    InvalidInputError
        If a table is not valid (see :func:`mrfast.data.associations.association_table`), if the
        two have no SNP in common, or if an option is out of range.

    References
    ----------
    Hemani et al. (2018), doi:10.7554/eLife.34408 (TwoSampleMR, whose rules these are).
    """
    action = check.integer("action", action, minimum=1, maximum=3)
    eaf_tolerance = check.scalar("eaf_tolerance", eaf_tolerance, minimum=0, below=0.5)
    exposure = association_table(exposure, argument="exposure")
    outcome = association_table(outcome, argument="outcome")
    alleles = _Alleles.of(
        {
            str(name)
            for table in (exposure, outcome)
            for column in ("effect_allele", "other_allele")
            if column in table.columns
            for name in table[column].cat.categories
        }
    )
    snps = _snp_codes(exposure["snp"], outcome["snp"])
    sides = _side(exposure, snps[0], alleles), _side(outcome, snps[1], alleles)
    left, right = _join(*snps)
    if left.size == 0:
        raise _nothing_in_common(exposure["snp"], outcome["snp"])
    alignment = _align(sides, (left, right), alleles, action, eaf_tolerance)
    return Harmonised(action, eaf_tolerance, sides, alleles.names, (left, right), alignment)


def _snp_codes(exposure: pd.Series[Any], outcome: pd.Series[Any]) -> tuple[Rows, Rows]:
    """Code the SNPs by the shorter table; one that is missing, or that it lacks, is -1."""
    swap = len(exposure) > len(outcome)
    short, long = (outcome, exposure) if swap else (exposure, outcome)
    codes, found = match_texts(text_values(short), text_values(long))
    return (found, codes) if swap else (codes, found)


def _side(table: pd.DataFrame, snp: Rows, alleles: _Alleles) -> _Side:
    place = {name: code for code, name in enumerate(alleles.names)}

    def coded(column: str) -> Codes:
        if column not in table.columns:
            return np.full(len(table), -1, dtype=np.int32)
        categories = table[column].cat.categories
        lookup = np.array([*(place[str(name)] for name in categories), -1], dtype=np.int32)
        return lookup[table[column].cat.codes.to_numpy()]

    if "trait" in table.columns:
        trait = table["trait"].cat.codes.to_numpy().astype(np.int32)
    else:
        trait = np.zeros(len(table), dtype=np.int32)
    return _Side(table, snp, trait, coded("effect_allele"), coded("other_allele"))


def _traits(side: _Side, default: str) -> list[str]:
    if "trait" not in side.table.columns:
        return [default]
    return [str(name) for name in side.table["trait"].cat.categories]


def _join(left: Rows, right: Rows) -> tuple[Rows, Rows]:
    """Rows of all pairs with equal codes, in the order of left, then of right; -1 joins nothing."""
    coded = np.flatnonzero(right >= 0)
    count = np.bincount(right[coded], minlength=int(left.max()) + 1)
    if count.max(initial=0) <= 1:  # the common case, without a sort
        place = np.full(count.size + 1, -1)
        place[right[coded]] = coded
        rows = np.flatnonzero(place[left] >= 0)
        return rows, place[left[rows]]
    coded = coded[np.argsort(right[coded], kind="stable")]
    first = np.cumsum(count) - count
    matches = np.append(count, 0)[left]
    rows = np.repeat(np.arange(left.size), matches)
    nth = np.arange(rows.size) - np.repeat(np.cumsum(matches) - matches, matches)
    return rows, coded[first[left[rows]] + nth]


def _kept_twice(sides: tuple[_Side, _Side], left: Rows, right: Rows, keep: Mask) -> Mask:
    """Kept rows whose SNP is kept more than once for the same pair of traits."""
    exposure, outcome = sides
    result = np.zeros(left.shape, dtype=np.bool_)
    if np.bincount(exposure.snp[left]).max() > 1:
        columns = exposure.trait[left], outcome.trait[right], exposure.snp[left]
        keys = pd.DataFrame(dict(enumerate(columns)))[keep]
        result[keep] = keys.duplicated(keep=False).to_numpy()
    return result


def _align(
    sides: tuple[_Side, _Side],
    rows: tuple[Rows, Rows],
    alleles: _Alleles,
    action: int,
    eaf_tolerance: float,
) -> _Alignment:
    """Apply the rules of this module to the matched rows."""
    codes, kinds, flags = _core.harmonise.align_alleles(
        *(side.columns for side in sides),
        left=np.ascontiguousarray(rows[0], dtype=np.int64),
        right=np.ascontiguousarray(rows[1], dtype=np.int64),
        complement=alleles.complement,
        length=alleles.length,
        base=alleles.is_base,
        letter=alleles.is_indel_letter,
        insertion=alleles.insertion,
        action=action,
        clear=max(eaf_tolerance - _ROUNDING, _ROUNDING),
    )
    return _Alignment(*(*codes, *kinds, *flags, _kept_twice(sides, *rows, flags[-1])))


def _not_aligned(sides: tuple[_Side, _Side], rows: tuple[Rows, Rows], reason: int) -> _Alignment:
    """Alignment of rows that match nothing: as they came."""
    shape = rows[0].shape
    nothing, no = np.full(shape, -1, dtype=np.int32), np.zeros(shape, dtype=np.bool_)
    alleles = [
        np.where(row < 0, nothing, column[row])
        for side, row in zip(sides, rows, strict=True)
        for column in (side.effect, side.other)
    ]
    return _Alignment(
        effect_exposure=alleles[0],
        other_exposure=alleles[1],
        effect_outcome=alleles[2],
        other_outcome=alleles[3],
        case=nothing.astype(np.int8),
        negate_exposure=no,
        negate_outcome=no,
        swapped=no,
        flipped=no,
        palindromic=no,
        ambiguous=no,
        removed=no,
        duplicated=no,
        keep=no,
        reason=np.full(shape, reason, dtype=np.int8),
    )


def _frame(
    sides: tuple[_Side, _Side],
    alleles: tuple[str, ...],
    traits: tuple[Codes, Codes],
    rows: tuple[Rows, Rows],
    alignment: _Alignment,
    *,
    tidy: bool = False,
) -> pd.DataFrame:
    """Columns of :attr:`Harmonised.table`; the row numbers of a side that has no rows are -1.

    `tidy` leaves out the categories that do not occur.
    """
    (exposure, outcome), (left, right) = sides, rows
    categorical = _used_categorical if tidy else _categorical

    named, rows_named = (outcome, right) if (left < 0).any() else (exposure, left)
    columns: dict[str, Any] = {
        "exposure": categorical(traits[0], _traits(exposure, "exposure")),
        "outcome": categorical(traits[1], _traits(outcome, "outcome")),
        "snp": named.table["snp"].take(rows_named).astype(object).reset_index(drop=True),
    }
    present = {name for side in sides for name in side.table.columns}
    if "chromosome" in present:
        columns["chromosome"] = pd.Series(_chromosomes(sides, rows), dtype=object, copy=False)
    if "position" in present:
        position = _either(rows, [side.positions for side in sides])
        columns["position"] = pd.arrays.IntegerArray(np.maximum(position, 0), position < 0)
    columns |= {
        name: categorical(codes, alleles)
        for name, codes in {
            "effect_allele": alignment.effect_exposure,
            "other_allele": alignment.other_exposure,
            "effect_allele_outcome": alignment.effect_outcome,
            "other_allele_outcome": alignment.other_outcome,
        }.items()
    }
    for name, side, row, negate in (
        ("exposure", exposure, left, alignment.negate_exposure),
        ("outcome", outcome, right, alignment.negate_outcome),
    ):
        beta, eaf = side.numbers("beta", row), side.numbers("eaf", row)
        if negate.any():
            beta *= np.where(negate, -1.0, 1.0)
            eaf = np.where(negate, 1 - eaf, eaf)
        columns[f"beta_{name}"] = beta
        columns[f"se_{name}"] = side.numbers("std_error", row)
        columns[f"eaf_{name}"] = eaf
        columns[f"p_value_{name}"] = side.numbers("p_value", row)
        columns[f"n_{name}"] = side.numbers("n", row)
    columns["alleles"] = categorical(alignment.case, _CASES)
    for flag in ("swapped", "flipped", "palindromic", "ambiguous", "removed", "duplicated", "keep"):
        columns[flag] = getattr(alignment, flag)
    columns["reason"] = categorical(alignment.reason, list(REASONS))
    return pd.DataFrame(columns, copy=False)


def _either(
    rows: tuple[Rows, Rows], values: Sequence[NDArray[np.integer[Any]] | None]
) -> NDArray[np.int64]:
    """Value of the exposure, else of the outcome; -1 = missing."""
    result = np.full(rows[0].shape, -1, dtype=np.int64)
    for row, own in zip(reversed(rows), reversed(values), strict=True):
        if own is not None:
            new = np.where(row >= 0, own[row], -1)
            np.copyto(result, new, where=new >= 0)
    return result


def _chromosomes(sides: tuple[_Side, _Side], rows: tuple[Rows, Rows]) -> NDArray[np.object_]:
    """Chromosome of the exposure, else of the outcome, None = missing."""
    names: list[str | None] = []
    codes: list[NDArray[np.int64] | None] = []
    for side in sides:
        if "chromosome" not in side.table.columns:
            codes.append(None)
            continue
        own = side.table["chromosome"].cat
        code = own.codes.to_numpy().astype(np.int64)
        codes.append(np.where(code < 0, -1, code + len(names)))
        names += list(own.categories)
    return np.array([*names, None], dtype=object)[_either(rows, codes)]


def _categorical(codes: NDArray[np.integer[Any]], names: Sequence[str]) -> pd.Categorical[Any]:
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(names)), validate=False)


def _used_categorical(codes: NDArray[np.integer[Any]], names: Sequence[str]) -> pd.Categorical[Any]:
    """The same without the categories that do not occur; by marking them, without a sort."""
    used = np.zeros(len(names) + 1, dtype=np.bool_)  # the last is the place of code -1
    used[codes] = True
    used = used[:-1]
    n_used = int(used.sum())
    if not used[:n_used].all():
        lookup = np.append(np.where(used, np.cumsum(used) - 1, -1), -1)
        codes = lookup.astype(np.min_scalar_type(-n_used - 1))[codes]
    categories = pd.Index(list(names))[used]
    return pd.Categorical.from_codes(codes, categories=categories, validate=False)


def _tidy(table: pd.DataFrame) -> pd.DataFrame:
    """Categories that occur, no others."""
    return table.assign(
        **{
            str(name): _used_categorical(column.cat.codes.to_numpy(), list(column.cat.categories))
            for name, column in table.items()
            if isinstance(column.dtype, pd.CategoricalDtype)
        }
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")


def _style(snp: str) -> str:
    if re.match(r"rs\d", snp, re.IGNORECASE):
        return "rs numbers"
    if re.match(r"(chr)?[0-9XYM]{1,2}[:_-]\d", snp, re.IGNORECASE):
        return "chromosome and position"
    return "other identifiers"


def _nothing_in_common(exposure: pd.Series[Any], outcome: pd.Series[Any]) -> InvalidInputError:
    """Error for tables without a common SNP, with what a user needs to see why."""
    sides = {"exposure": exposure.dropna(), "outcome": outcome.dropna()}
    received = "; ".join(
        f"{len(snps)} in the {name} ({_listed([str(snp) for snp in snps[: _EXAMPLES + 1]])})"
        for name, snps in sides.items()
    )
    hints = []
    if all(len(snps) for snps in sides.values()):
        styles = {name: _style(str(snps.iloc[0])) for name, snps in sides.items()}
        if len(set(styles.values())) > 1:
            hints.append(
                f"the exposure seems to use {styles['exposure']}, the outcome {styles['outcome']}"
            )
        elif set(styles.values()) == {"chromosome and position"}:
            hints.append("are both on the same genome build?")
        plain = [{str(snp).strip().lower() for snp in snps} for snps in sides.values()]
        if plain[0] & plain[1]:
            hints.append("some would match but for capitals or blanks")
    hint = "".join(f"; {hint}" for hint in hints)
    return fail("outcome", "at least one SNP of the exposure", f"none in common: {received}{hint}")
