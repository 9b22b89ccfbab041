"""Which allele the dosages of a site count, compared with the instruments.

The rules are those of :func:`mrfast.data.harmonisation.harmonise`. Medusa recodes the instruments
to the site's alleles; here a person's dosage g becomes 2 - g where the site counts the other
allele, so that every site has the same score. Where Medusa's rules differ:

* a palindromic SNP whose alleles are another pair at the site (A/T here, G/C there) is refused;
  Medusa takes it where a frequency is known;
* a palindromic SNP without a frequency is dropped, not trusted to its letters (``action=1`` does);
* the site's frequency must be away from 0.5 too, not only the instrument's;
* indels that do not match drop that SNP, not the whole call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float, fail
from mrfast.data.harmonisation import REASONS, harmonise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mrfast.data.instruments import InstrumentTable

__all__ = ["SITE_REASONS", "AlleleCoding", "allele_coding", "allele_table"]

SITE_REASONS: Mapping[str, str] = {
    "kept_as_assumed": "no table of alleles: the dosage is taken to count the effect allele",
    "not_in_alleles": "the site's table of alleles does not have this SNP",
    "unreadable_allele": "an allele at the site is missing or is not made of letters",
    "not_in_cohort": "the cohort has no column of this SNP",
    "all_missing": "no analysed person has a dosage",
    "monomorphic": "all analysed persons have the same dosage",
    "few_carriers": "too few people carry the rarer allele: kappa's weights would tell how many",
    "zero_weight": "the weight of this SNP is zero",
}
"""Reasons beside those of harmonisation, with their meaning."""

_LETTERS = re.compile("[A-Za-z]+")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "snp": ("snp", "snp_id", "snpId"),
    "coded_allele": ("coded_allele", "allele_coded", "effect_allele"),
    "other_allele": ("other_allele", "allele_noncoded", "noncoded_allele"),
    "frequency": ("frequency", "eaf", "af"),
}


@dataclass(frozen=True, eq=False)
class AlleleCoding:
    """How the dosages of a site relate to the instruments' effect alleles.

    Attributes
    ----------
    usable : ndarray of bool, shape (J,)
        Whether it is known which allele the site counts.
    recoded : ndarray of bool, shape (J,)
        Whether the site counts the other allele, so that g becomes 2 - g.
    reasons, details : tuple of str, length J
        A key of harmonisation's reasons or of ``SITE_REASONS``, and a sentence.
    """

    usable: NDArray[np.bool_]
    recoded: NDArray[np.bool_]
    reasons: tuple[str, ...]
    details: tuple[str, ...]


def allele_table(alleles: pd.DataFrame) -> pd.DataFrame:
    """Check a site's table of alleles.

    Parameters
    ----------
    alleles : DataFrame
        Columns ``snp``, ``coded_allele``, ``other_allele`` and, if known, ``frequency`` of the
        coded allele; or Medusa's names ``snp_id``, ``allele_coded``, ``allele_noncoded``, ``af``.

    Returns
    -------
    DataFrame
        Columns ``snp``, ``coded_allele``, ``other_allele``, ``frequency``, one row for every SNP.

    Raises
    ------
    InvalidInputError
        If a column is missing or a SNP has different rows.
    """
    if not isinstance(alleles, pd.DataFrame):
        raise fail("alleles", "a pandas DataFrame", f"a {type(alleles).__name__}")
    found: dict[str, pd.Series[Any]] = {}
    for name, forms in _NAMES.items():
        present = [form for form in forms if form in alleles.columns]
        if len(present) > 1:
            raise fail("alleles", f"one column for {name}", " and ".join(present))
        if present:
            found[name] = alleles[present[0]].reset_index(drop=True)
        elif name != "frequency":
            raise fail(
                "alleles",
                "the columns snp, coded_allele, other_allele",
                f"a table without {name} (it has {', '.join(map(str, alleles.columns))})",
            )
    table = pd.DataFrame(found).drop_duplicates()
    twice = table.loc[table["snp"].duplicated(), "snp"].unique()
    if len(twice):
        raise fail(
            "alleles", "one row for every SNP", f"different rows for {', '.join(map(str, twice))}"
        )
    if "frequency" not in table.columns:
        table["frequency"] = np.nan
    numbers = pd.to_numeric(table["frequency"], errors="coerce")
    good = (numbers >= 0) & (numbers <= 1) | table["frequency"].isna()
    if not good.all():
        raise fail("alleles", "frequencies from 0 to 1", repr(table["frequency"][~good].iloc[0]))
    return table.assign(frequency=numbers.astype(np.float64)).reset_index(drop=True)


def allele_coding(
    instruments: InstrumentTable,
    alleles: pd.DataFrame | None,
    frequencies: Float,
    *,
    action: int = 2,
    eaf_tolerance: float = 0.08,
) -> AlleleCoding:
    """Compare the alleles that a site counts with the instruments'.

    Parameters
    ----------
    instruments : InstrumentTable
    alleles : DataFrame or None
        As `allele_table` takes it; None: the site counts the instruments' effect alleles.
    frequencies : ndarray, shape (J,)
        Frequency of the allele that the site counts, NaN where unknown; used for SNPs whose
        frequency is not in the table.
    action : {1, 2, 3}
        Treatment of palindromic SNPs: trust the letters, read the strand off the frequencies, or
        drop them.
    eaf_tolerance : float, default 0.08
        A frequency nearer to 0.5 does not tell the strand.

    Returns
    -------
    AlleleCoding
    """
    action = check.integer("action", action, minimum=1, maximum=3)
    check.scalar("eaf_tolerance", eaf_tolerance, minimum=0, below=0.5)
    j = len(instruments)
    if alleles is None:
        reason = "kept_as_assumed"
        meaning = (SITE_REASONS[reason],) * j
        everywhere = np.ones(j, dtype=np.bool_)
        return AlleleCoding(everywhere, ~everywhere, (reason,) * j, meaning)
    table = allele_table(alleles)
    place = {str(snp): i for i, snp in enumerate(table["snp"])}
    rows = np.array([place.get(snp, -1) for snp in instruments.snps])
    usable, recoded = np.zeros(j, dtype=np.bool_), np.zeros(j, dtype=np.bool_)
    reasons = ["not_in_alleles"] * j
    details = [SITE_REASONS["not_in_alleles"]] * j
    letters = np.array(
        [
            all(isinstance(a, str) and _LETTERS.fullmatch(a.strip()) for a in pair)
            for pair in zip(table["coded_allele"], table["other_allele"], strict=True)
        ],
        dtype=np.bool_,
    )
    for i in np.flatnonzero(rows >= 0):
        if not letters[rows[i]]:
            rows[i] = -1
            reasons[i], details[i] = "unreadable_allele", SITE_REASONS["unreadable_allele"]
    matched = np.flatnonzero(rows >= 0)
    if matched.size == 0:
        return AlleleCoding(usable, recoded, tuple(reasons), tuple(details))
    own = table.iloc[rows[matched]].reset_index(drop=True)
    given = own["frequency"].to_numpy()
    site = pd.DataFrame(
        {
            "snp": [instruments.snps[i] for i in matched],
            "effect_allele": own["coded_allele"],
            "other_allele": own["other_allele"],
            "eaf": np.where(np.isnan(given), frequencies[matched], given),
            "beta": 1.0,  # its sign afterwards says which allele the site counts
            "std_error": 1.0,
        }
    )
    exposure = instruments.frame.iloc[matched]
    result = harmonise(exposure, site, action=action, eaf_tolerance=eaf_tolerance).table
    by_snp = result.set_index("snp").loc[list(site["snp"])]
    keep = by_snp["keep"].to_numpy()
    usable[matched] = keep
    recoded[matched] = keep & (by_snp["beta_outcome"].to_numpy() < 0)
    for i, reason, row in zip(matched, by_snp["reason"], own.itertuples(index=False), strict=True):
        reasons[i] = str(reason)
        details[i] = (
            f"{REASONS[str(reason)]} (instrument {instruments.effect_alleles[i]}/"
            f"{instruments.other_alleles[i]}, site {row.coded_allele}/{row.other_allele}"
            + (", dosage recoded to 2 - dosage)" if recoded[i] else ")")
        )
    return AlleleCoding(usable, recoded, tuple(reasons), tuple(details))
