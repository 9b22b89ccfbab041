"""What sites and checks of a study take in: instruments, cohorts and their dosages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.instruments import InstrumentTable
from mrfast.federated.cohort import Cohort

__all__ = ["as_cohort", "as_instruments", "observed_dosages"]


def as_instruments(instruments: InstrumentTable | pd.DataFrame) -> InstrumentTable:
    """The table itself, or one made of a DataFrame."""
    if isinstance(instruments, InstrumentTable):
        return instruments
    if not isinstance(instruments, (pd.DataFrame, Mapping)):
        raise check.fail(
            "instruments", "an InstrumentTable or a DataFrame", type(instruments).__name__
        )
    return InstrumentTable.from_frame(instruments)


def as_cohort(cohort: Cohort | pd.DataFrame) -> Cohort:
    """The cohort itself, or one made of a DataFrame."""
    return cohort if isinstance(cohort, Cohort) else Cohort.from_frame(cohort)


def observed_dosages(cohort: Cohort, snps: Sequence[str]) -> tuple[list[str], Float]:
    """Dosages of the SNPs that a cohort has.

    Parameters
    ----------
    cohort : Cohort
    snps : sequence of str

    Returns
    -------
    found : list of str, length J
    dosages : ndarray, shape (J, n)
        NaN where missing.

    Raises
    ------
    InvalidInputError
        The cohort has none of the SNPs, or a dosage is not from 0 to 2.
    """
    columns = cohort.dosage_columns(snps)
    present = [(snp, column) for snp, column in zip(snps, columns, strict=True) if column]
    if not present:
        raise check.fail("cohort", "a column of dosages for a SNP of the instruments", "none")
    found = [snp for snp, _ in present]
    names = [column for _, column in present]
    cohort.summary(names, found, slice(None))
    result = np.empty((len(names), cohort.n))
    for start, block in cohort.blocks(names, slice(None)):
        part = result[start : start + len(block)]
        part[:] = block
        part[cohort.is_missing(block)] = np.nan
    return found, result
