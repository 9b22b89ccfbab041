"""Dosages of the sites: allele frequencies against the instruments', and missing ones.

Other checks have modules of their own: `first_stage`, `phenome_wide`, `negative_controls`,
`samples`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.instruments import InstrumentTable
from mrfast.federated._inputs import as_cohort, as_instruments, named_sites
from mrfast.federated.cohort import Cohort
from mrfast.federated.site_profile import SiteProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["allele_frequency_check", "missingness_check"]


def allele_frequency_check(
    sites: Any,
    instruments: InstrumentTable | pd.DataFrame,
    *,
    threshold: float = 0.1,
    rule: str = "significant",
    level: float = 0.05,
) -> pd.DataFrame:
    """Compare the allele frequencies of sites with those of the instruments.

    Parameters
    ----------
    sites : Cohort, DataFrame, SiteProfile or its file, a mapping or sequence of them, PooledProfile
        Persons with dosages of the instruments' effect alleles, or a table with the columns
        ``snp``, ``eaf`` and ``n`` (persons with a dosage). Where the file of a site withholds a
        count, `n` is everyone; a SNP that a site lacks or withholds has no row.
    instruments : InstrumentTable or DataFrame
        Their column ``n``, if any, adds the sampling error of their own frequencies.
    threshold : float, default 0.1
        A smaller difference is never flagged.
    rule : {"significant", "difference"}, default "significant"
        Flag differences above the threshold that are no chance finding at `level` over all SNPs
        and sites, or (Medusa's rule) all of them. In a cohort of 30, one SNP in ten differs by
        more than 0.1 by chance.
    level : float, default 0.05

    Returns
    -------
    DataFrame
        ``site``, ``snp``, ``n``, ``eaf_instruments``, ``eaf_site``, ``difference``, ``std_error``
        (under equal frequencies in Hardy-Weinberg equilibrium), ``p_value``, ``flagged``, and
        ``looks_swapped``: the other allele's frequency fits, and this one's does not.

    Raises
    ------
    InvalidInputError
        Input of another form, or frequencies outside 0 to 1.
    """
    table = as_instruments(instruments)
    threshold = check.scalar("threshold", threshold, minimum=0, below=1)
    rule = check.choice("rule", rule, ("significant", "difference"))
    level = check.scalar("level", level, above=0, below=1)
    from scipy.special import ndtr

    frame = table.frame
    size = frame["n"].to_numpy(dtype=np.float64) if "n" in frame else np.full(len(table), np.nan)
    reference = pd.DataFrame(
        {"snp": table.snps, "eaf_instruments": table.eaf, "size": np.where(size > 0, size, np.inf)}
    )
    parts = []
    for site, own in _dosage_tables(sites, table, ("eaf", "n")):
        frequency = own["eaf"].to_numpy(dtype=np.float64)
        if ((frequency < 0) | (frequency > 1)).any():
            raise check.fail(f"sites[{site!r}]", "frequencies from 0 to 1", "others")
        parts.append(own[["snp", "n"]].assign(site=site, eaf_site=frequency))
    result = pd.concat(parts, ignore_index=True).merge(reference, on="snp", how="left")
    expected = result["eaf_instruments"].to_numpy()
    observed = result["eaf_site"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(expected * (1 - expected) / 2 * (1 / result["n"] + 1 / result.pop("size")))
    result["difference"] = observed - expected
    result["std_error"] = error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * ndtr(-np.abs((observed - expected) / error.to_numpy()))
        q = 2 * ndtr(-np.abs((1 - observed - expected) / error.to_numpy()))
    result["p_value"] = p
    limit = level / max(int(np.isfinite(p).sum()), 1)
    large = np.abs(observed - expected) > threshold
    result["flagged"] = large & (p < limit) if rule == "significant" else large
    result["looks_swapped"] = (p < limit) & (q >= limit)
    first = ["site", "snp", "n", "eaf_instruments"]
    return result[[*first, *(name for name in result.columns if name not in first)]]


def missingness_check(
    sites: Any, instruments: InstrumentTable | pd.DataFrame, *, threshold: float = 0.1
) -> pd.DataFrame:
    """Share of missing dosages by SNP and site, and whether it differs between cases and controls.

    Parameters
    ----------
    sites : as in `allele_frequency_check`
        Tables have the columns ``snp``, ``n_missing`` and ``n_total``.
    instruments : InstrumentTable or DataFrame
    threshold : float, default 0.1
        Shares above it are flagged.

    Returns
    -------
    DataFrame
        ``site``, ``snp``, ``n_total``, ``n_missing``, ``proportion_missing`` (both NaN where the
        file of a site withholds them, as few dosages are missing), ``flagged``, and
        ``p_differential``: chi-squared test (N - 1 version) of equal shares among cases and
        controls, where persons were given; missing dosages that depend on the outcome bias.

    Raises
    ------
    InvalidInputError
        Input of another form.
    """
    table = as_instruments(instruments)
    threshold = check.scalar("threshold", threshold, minimum=0, below=1)
    parts = []
    for site, own in _dosage_tables(sites, table, ("n_missing", "n_total")):
        counts = own["n_missing"].to_numpy(dtype=np.float64)
        total = own["n_total"].to_numpy(dtype=np.float64)
        if ((counts < 0) | (counts > total)).any():
            raise check.fail(f"sites[{site!r}]", "n_missing from 0 to n_total", "others")
        differential = own.get("p_differential", np.nan)
        parts.append(
            pd.DataFrame(
                {
                    "site": site,
                    "snp": own["snp"],
                    "n_total": total,
                    "n_missing": counts,
                    "proportion_missing": counts / total,
                    "flagged": counts > threshold * total,
                    "p_differential": differential,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _dosage_tables(
    sites: Any, instruments: InstrumentTable, needed: tuple[str, ...]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """What is known of the dosages at each site, a row per SNP of the instruments."""
    for name, site in named_sites(sites):
        if isinstance(site, SiteProfile):
            table = _profile_table(site)
        elif isinstance(site, pd.DataFrame) and "snp" in site.columns:
            table = site
        else:
            table = _dosage_table(as_cohort(site), instruments)
        missing = needed if table is None else [key for key in needed if key not in table.columns]
        if table is None or missing:
            raise check.fail(f"sites[{name!r}]", f"columns {', '.join(needed)}", "none of them")
        yield name, table[table["snp"].isin(instruments.snps)].reset_index(drop=True)


def _profile_table(site: SiteProfile) -> pd.DataFrame | None:
    """What a site's file tells; NaN where it withholds a share."""
    frequencies, shares = site.diagnostics.get("eaf"), site.diagnostics.get("missing_share")
    named = shares if frequencies is None else frequencies
    if named is None:
        return None
    table = pd.DataFrame({"snp": named["snp"].astype(str).to_numpy(), "n_total": site.counts.n})
    table["n"] = float(site.counts.n)
    if shares is not None:
        known = dict(zip(shares["snp"].astype(str), shares["missing_share"], strict=True))
        missing = (table["snp"].map(known).astype(np.float64) * site.counts.n).round()
        table["n_missing"] = missing
        table["n"] -= missing.fillna(0.0)
    if frequencies is not None:
        table["eaf"] = frequencies["eaf"].to_numpy(dtype=np.float64)
    return table


def _dosage_table(cohort: Cohort, instruments: InstrumentTable) -> pd.DataFrame:
    """Counts and frequencies from persons."""
    columns = cohort.dosage_columns(instruments.snps)
    pairs = [(s, c) for s, c in zip(instruments.snps, columns, strict=True) if c is not None]
    if not pairs:
        raise check.fail("sites", "columns of dosages for the instruments", "a cohort without any")
    snps, names = [s for s, _ in pairs], [c for _, c in pairs]
    groups = {
        kind: cohort.summary(names, snps, np.flatnonzero(cohort.outcome == value))
        for kind, value in (("cases", 1), ("controls", 0))
    }
    whole = cohort.summary(names, snps, slice(None))
    return pd.DataFrame(
        {
            "snp": snps,
            "eaf": whole.mean / 2,
            "n": cohort.n - whole.n_missing,
            "n_total": cohort.n,
            "n_missing": whole.n_missing,
            "p_differential": _equal_shares(
                groups["cases"].n_missing,
                cohort.n_cases,
                groups["controls"].n_missing,
                cohort.n_controls,
            ),
        }
    )


def _equal_shares(
    missing_a: NDArray[np.intp], n_a: int, missing_b: NDArray[np.intp], n_b: int
) -> Float:
    """p-values of equal shares in two groups: chi-squared with n - 1, NaN where all are alike."""
    from scipy.special import chdtrc

    n, missing = n_a + n_b, missing_a + missing_b
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = missing_a * float(n_b) - missing_b * float(n_a)
        statistic = (n - 1) * cross**2 / (missing * (n - missing) * float(n_a) * float(n_b))
    result: Float = np.where(np.isfinite(statistic), chdtrc(1, statistic), np.nan)
    return result
