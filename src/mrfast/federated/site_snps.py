"""The instruments at a site: which of them can be in the score, and why others cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mrfast._validation import Float, fail, listed
from mrfast.federated.allele_coding import SITE_REASONS, allele_coding
from mrfast.federated.cohort import sanitised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrfast.data.instruments import InstrumentTable
    from mrfast.federated.analysed_persons import AnalysedPersons
    from mrfast.federated.cohort import Cohort

__all__ = ["SiteSnps", "site_snps"]


@dataclass(frozen=True, eq=False)
class SiteSnps:
    """What is known of every instrument at a site, among the analysed persons.

    Attributes
    ----------
    columns : tuple of str or None, length J
        The cohort's column.
    estimable : ndarray of bool, shape (J,)
        Whether the dosages vary and count a known allele.
    used : ndarray of int, shape (m,)
        Places of the SNPs in the score.
    recoded : ndarray of bool, shape (J,)
        Whether the dosages count the other allele.
    missing_share : ndarray, shape (J,)
        Of the dosages; NaN without a column.
    mean : ndarray, shape (J,)
        Of the observed dosages of the effect allele; NaN where unknown.
    carrier_counts : ndarray of int, shape (J, 2)
        Controls and cases with the rarer allele.
    reasons, details : tuple of str, length J
        Why a SNP is in the score or not.
    """

    columns: tuple[str | None, ...]
    estimable: NDArray[np.bool_]
    used: NDArray[np.intp]
    recoded: NDArray[np.bool_]
    missing_share: Float
    mean: Float
    carrier_counts: NDArray[np.intp]
    reasons: tuple[str, ...]
    details: tuple[str, ...]

    def harmonisation(self, instruments: InstrumentTable) -> pd.DataFrame:
        """Table of the reasons: snp, in_score, reason, detail."""
        in_score = np.zeros(len(instruments), dtype=np.bool_)
        in_score[self.used] = True
        return pd.DataFrame(
            {
                "snp": list(instruments.snps),
                "in_score": in_score,
                "reason": list(self.reasons),
                "detail": list(self.details),
            }
        )

    def carriers(self, instruments: InstrumentTable) -> pd.DataFrame:
        """Table of the rarer alleles' carriers: snp, cases, controls."""
        present = [j for j, column in enumerate(self.columns) if column is not None]
        return pd.DataFrame(
            {
                "snp": [instruments.snps[j] for j in present],
                "cases": self.carrier_counts[present, 1],
                "controls": self.carrier_counts[present, 0],
            }
        )


def site_snps(
    cohort: Cohort,
    people: AnalysedPersons,
    instruments: InstrumentTable,
    *,
    alleles: pd.DataFrame | None = None,
    weights: Mapping[str, float] | None = None,
    action: int = 2,
    eaf_tolerance: float = 0.08,
    min_count: int = 1,
) -> SiteSnps:
    """Find the instruments in a cohort.

    Parameters
    ----------
    cohort : Cohort
    people : AnalysedPersons
    instruments : InstrumentTable
    alleles, weights, action, eaf_tolerance
        As `fit_site` takes them.
    min_count : int
        Fewest carriers of its rarer allele that a SNP of the score must have.

    Returns
    -------
    SiteSnps

    Raises
    ------
    InvalidInputError
        If no SNP is left for the score, or a dosage is not from 0 to 2.
    """
    j = len(instruments)
    columns = cohort.dosage_columns(instruments.snps)
    present = np.array([i for i in range(j) if columns[i] is not None], dtype=np.intp)
    if present.size == 0:
        looked_for = " or ".join(
            dict.fromkeys((instruments.snps[0], sanitised(instruments.snps[0])))
        )
        raise fail(
            "cohort",
            f"a column for at least one of the {j} instruments, such as {looked_for}",
            f"only {listed(cohort.column_names) or 'others'}",
        )
    found = cohort.summary(
        [str(columns[i]) for i in present], [instruments.snps[i] for i in present], people.rows
    )
    mean, share = np.full(j, np.nan), np.full(j, np.nan)
    varies = np.zeros(j, dtype=np.bool_)
    carriers = np.zeros((j, 2), dtype=np.intp)
    mean[present], share[present] = found.mean, found.n_missing / people.outcome.size
    varies[present], carriers[present] = found.varies, found.carriers
    coding = allele_coding(
        instruments, alleles, mean / 2, action=action, eaf_tolerance=eaf_tolerance
    )
    reasons, details = list(coding.reasons), list(coding.details)
    for i in range(j):
        if columns[i] is None:
            reasons[i] = "not_in_cohort"
        elif np.isnan(mean[i]):
            reasons[i] = "all_missing"
        elif not varies[i]:
            reasons[i] = "monomorphic"
        if reasons[i] in SITE_REASONS:
            details[i] = SITE_REASONS[reasons[i]]
    estimable = coding.usable & varies
    zero = np.zeros(j, dtype=np.bool_)
    if weights is not None:
        zero = np.array([weights.get(snp, 1.0) == 0 for snp in instruments.snps])
    elif instruments.ld is None:
        zero = instruments.beta == 0
    rare = carriers.sum(axis=1) < min_count
    for reason, which in (("few_carriers", rare), ("zero_weight", zero)):
        for place in np.flatnonzero(estimable & which):
            reasons[place], details[place] = reason, SITE_REASONS[reason]
    used = np.flatnonzero(estimable & ~rare & ~zero)
    if used.size == 0:
        why = [f"{snp}: {reason}" for snp, reason in zip(instruments.snps, reasons, strict=True)]
        raise fail("cohort", "at least one SNP for the score", f"none ({listed(why)})")
    return SiteSnps(
        columns=tuple(columns),
        estimable=estimable,
        used=used,
        recoded=coding.recoded,
        missing_share=share,
        mean=np.where(coding.usable, np.where(coding.recoded, 2 - mean, mean), np.nan),
        carrier_counts=carriers,
        reasons=tuple(reasons),
        details=tuple(details),
    )
