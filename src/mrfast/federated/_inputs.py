"""What sites and checks of a study take in: instruments, cohorts, their dosages, and sites."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.instruments import InstrumentTable
from mrfast.federated.cohort import Cohort
from mrfast.federated.site_profile import SiteProfile

__all__ = ["as_cohort", "as_instruments", "named_sites", "observed_dosages"]


def as_instruments(
    instruments: InstrumentTable | pd.DataFrame | Mapping[str, object],
) -> InstrumentTable:
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


def named_sites(sites: Any) -> list[tuple[str, Any]]:
    """Name and content of every site.

    Parameters
    ----------
    sites : mapping or sequence of sites, PooledProfile, or a single site
        A str or Path is the file of a SiteProfile, which is loaded.

    Raises
    ------
    InvalidInputError
        There is no site, or one occurs twice: it would count twice.
    """
    if not isinstance(sites, pd.DataFrame) and hasattr(sites, "sites"):
        sites = sites.sites
    names: list[str | None]
    if isinstance(sites, Mapping):
        names, several = [str(name) for name in sites], list(sites.values())
    elif isinstance(sites, (list, tuple)):
        names, several = [None] * len(sites), list(sites)
    else:
        known = isinstance(sites, (SiteProfile, str, os.PathLike))
        names, several = [None if known else "cohort"], [sites]
    named = []
    for place, (name, site) in enumerate(zip(names, several, strict=True), 1):
        content = SiteProfile.load(site) if isinstance(site, (str, os.PathLike)) else site
        named.append((name or str(getattr(content, "site_id", f"site {place}")), content))
    if not named:
        raise check.fail("sites", "at least one site", "none")
    seen = [name for name, _ in named]
    twice = [name for name in seen if seen.count(name) > 1]
    if twice:
        raise check.fail("sites", "every site once", f"{twice[0]!r} more than once")
    return named
