"""What may leave a site: identifiers, small counts, and what could be subtracted from totals.

`protected` applies the rules in `RULES`. They are rules on small cells, not a proof of privacy:
sums over several SNPs still bound what they are made of, and a second export of changed data can be
subtracted from the first, hence `DifferencingWarning`. Why they are as they are:

* the weights of kappa, ``a = C w / (w'C w)``, tell the variance of each dosage, and so the number
  of carriers at the site (rule 3);
* the slope of the score's profile at 0 is the weighted sum of those of its SNPs, so that all rows
  but one give the last (rule 6);
* a frequency in full digits is a fraction whose denominator is the number of people (rule 7).
"""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._validation import Float, fail, listed
from mrfast.errors import DifferencingWarning

if TYPE_CHECKING:
    import pandas as pd

    from mrfast.federated.site_profile import SiteProfile

__all__ = [
    "DIAGNOSTICS",
    "MIN_COUNT",
    "RULES",
    "check_identifier",
    "csv_text",
    "html_text",
    "plain_csv_text",
    "protected",
    "warn_of_differencing",
]

MIN_COUNT = 5
"""Smallest count that may leave a site, by default."""

RULES = """\
Rules on small counts, with m the smallest count that may leave:
 1. A site with fewer than m cases or m controls sends nothing.
 2. The counts before incomplete records were left out are withheld, all three, where the number
    left out is between 1 and m - 1 among cases, among controls or in all.
 3. A SNP whose rarer allele fewer than m people carry is not in the score (`fit_site` leaves it
    out); otherwise the export is refused, with the names.
 4. Where the score is a single SNP, the export is refused if rule 5 would withhold that SNP.
 5. A SNP is withheld from every table (estimate, frequency, share missing, profile) where fewer
    than m people carry its rarer allele, or fewer than m do not, among the cases or among the
    controls, or where these numbers are not known.
 6. Where rule 5 leaves exactly one SNP of the score without an estimate, the SNP with the next
    smallest count is withheld too; where it withholds any, no profile of a single SNP is sent.
 7. Where 1 to m - 1 people, cases or controls have no dosage of a SNP, its counts, share missing
    and profile are withheld; its estimate is sent. Frequencies are sent with three digits.
 8. A negative control with fewer than m cases or controls is withheld; where 1 to m - 1 people
    lack the outcome, its counts are.
 9. Free text, and diagnostics for which the format has no entry, stay at the site."""
"""The rules, in words; `SiteProfile.describe` repeats them."""

DIAGNOSTICS: Mapping[str, tuple[str, str]] = {
    "low_case_count": ("flag", "fewer than 50 cases"),
    "weak_instruments": ("flag", "an instrument has a first-stage F below 10"),
    "grid_boundary_mle": ("flag", "the largest value lies at the end of the grid"),
    "separation": ("flag", "the covariates or the score separate cases from controls"),
    "n_covariates": ("number", "covariates in the model, after dummies"),
    "mean_f": ("number", "mean first-stage F of the instruments"),
    "beta_hat": ("number", "maximum of the profile as the site's program gave it"),
    "std_error": ("number", "its standard error as the site's program gave it"),
    "medusa_beta_zx": ("number", "sum of weight times instrument effect, from Medusa's files"),
    "medusa_se_zx": ("number", "its standard error, from Medusa's files"),
    "missing_share": ("missing_share", "share of people without dosage"),
    "eaf": ("eaf", "frequency of the effect allele at the site, three digits"),
}
"""The diagnostics that may leave, with their form (a number, a flag, or the column that a table
has beside ``snp``) and meaning; others stay at the site. A sentence leaves as a flag."""

_LONGEST = 64
_IDENTIFIER = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._ \-]*[A-Za-z0-9_\-])?")
_RESERVED = {"con", "prn", "aux", "nul"} | {
    f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789"
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_DIGITS = 3  # of allele frequencies


def check_identifier(argument: str, value: object) -> str:
    """Check an identifier that becomes part of file names, on any system.

    Parameters
    ----------
    argument : str
        Name of the caller's argument, for messages.
    value : object

    Returns
    -------
    str
        The identifier as it came: "001" stays "001".

    Raises
    ------
    InvalidInputError
        It is not a text; is empty or longer than 64 characters; has characters other than the
        letters A to Z, digits, ``.``, ``_``, ``-`` and blanks; begins with anything but a letter,
        a digit or ``_``; ends with ``.`` or a blank; has two dots in a row; or names a device of
        Windows (``CON``, ``LPT1``, ...).
    """
    if not isinstance(value, str):
        raise fail(
            argument, "a text (so that '001' stays '001')", f"{type(value).__name__} {value!r}"
        )
    if not 1 <= len(value) <= _LONGEST:
        raise fail(argument, f"1 to {_LONGEST} characters", str(len(value)))
    if not _IDENTIFIER.fullmatch(value) or ".." in value:
        raise fail(
            argument,
            "an identifier of letters A to Z, digits, '.', '_', '-' and blanks that begins with a "
            "letter, a digit or '_' and does not end with '.' or a blank",
            repr(value),
        )
    if value.partition(".")[0].strip().lower() in _RESERVED:
        raise fail(argument, "an identifier that is not a device of Windows", repr(value))
    return value


def html_text(text: str) -> str:
    """Text for HTML: ``<``, ``>``, ``&`` and quotes escaped."""
    return html.escape(text, quote=True)


def csv_text(text: str) -> str:
    """Text for a cell of CSV that a spreadsheet does not take for a formula.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        With ``'`` in front where the text begins with ``=``, ``+``, ``-``, ``@``, a tab or a
        carriage return; a sign on its own, such as the allele ``-``, is left alone. A text that
        would look like one so marked is marked too, so that `plain_csv_text` undoes it.
    """
    return f"'{text}" if _marked(text.lstrip("'")) else text


def plain_csv_text(text: str) -> str:
    """Text of a cell that `csv_text` wrote."""
    return text[1:] if text.startswith("'") and _marked(text.lstrip("'")) else text


def _marked(text: str) -> bool:
    return len(text) > 1 and text.startswith(_FORMULA)


def warn_of_differencing(what: str, place: object, kept: str) -> None:
    """Warn that other data were exported before.

    Parameters
    ----------
    what : str
        Study and site.
    place : object
        The folder.
    kept : str
        What became of the earlier file.
    """
    warnings.warn(
        f"{what}: other data were exported to {place} before (the earlier file {kept}). Whoever "
        "has both can subtract them, and the difference may concern few people; do not send both "
        "unless many people changed",
        DifferencingWarning,
        stacklevel=3,
    )


# ------------------------------------------------------------------------- small counts


@dataclass(frozen=True)
class _Cells:
    """Which SNPs the rules on small counts touch, and what is said about it."""

    kept: frozenset[str]  # the others are withheld entirely
    few_missing: frozenset[str]  # without counts
    no_profiles: bool
    statements: tuple[str, ...]


def protected(site: SiteProfile) -> SiteProfile:
    """What may leave of a site's profile.

    Parameters
    ----------
    site : SiteProfile

    Returns
    -------
    SiteProfile
        With the rules of this module applied and ``exported`` set; one that has it set already
        comes back as it is.

    Raises
    ------
    InvalidInputError
        Nothing of it may leave: too few cases or controls, or too few carriers of a SNP in the
        score.
    """
    m = site.min_count
    for name, count in (("cases", site.n_cases), ("controls", site.n_controls)):
        if count < m:
            raise fail(
                f"site {site.site_id!r}",
                f"at least {m} {name} (min_count) for anything to leave the site",
                f"fewer than {m}",
            )
    if site.exported:
        return site
    known = {name: site.diagnostics[name] for name in DIAGNOSTICS if name in site.diagnostics}
    site = replace(site, diagnostics=known)
    carriers = _carriers(site)
    _check_score(site, carriers)
    cells = _cells(site, carriers)
    counts, statements = site.counts, list(cells.statements)
    if _few_left_out(site):
        counts = replace(counts, n_before=None, n_cases_before=None, n_controls_before=None)
        statements.insert(
            0,
            f"the counts before incomplete records were left out: between 1 and {m - 1} people",
        )
    controls, said = _negative_controls(site)
    per_snp = None if site.per_snp is None else _rows(site.per_snp, cells)
    profiles = site.per_snp_profiles
    if profiles is not None:
        may_leave = frozenset() if cells.no_profiles else cells.kept - cells.few_missing
        kept = {snp: profile for snp, profile in profiles.items() if snp in may_leave}
        if len(kept) < len(profiles):
            statements.append("profiles of single SNPs: they could be subtracted from the score's")
        profiles = kept or None
    diagnostics = {
        name: _rows(value, cells) if hasattr(value, "columns") else value
        for name, value in site.diagnostics.items()
    }
    return replace(
        site,
        counts=counts,
        per_snp=per_snp,
        per_snp_profiles=profiles,
        negative_controls=controls,
        diagnostics=diagnostics,
        withheld=(*statements, *said),
        exported=True,
        carriers=None,
        instrument_ld=None,
        messages=(),
    )


def _few(number: float, m: int) -> bool:
    """Whether a number of people left out would tell about few of them."""
    return 0 < abs(number) < m


def _few_left_out(site: SiteProfile) -> bool:
    counts = site.counts
    return any(
        before is not None and _few(before - after, site.min_count)
        for before, after in (
            (counts.n_before, counts.n),
            (counts.n_cases_before, counts.n_cases),
            (counts.n_controls_before, counts.n_controls),
        )
    )


def _carriers(site: SiteProfile) -> dict[str, tuple[float, float]]:
    """Carriers of the rarer allele among cases and controls, by SNP."""
    if site.carriers is None:
        return {}
    columns = (site.carriers[name].tolist() for name in ("snp", "cases", "controls"))
    return {
        str(snp): (float(cases), float(controls))
        for snp, cases, controls in zip(*columns, strict=True)
        if np.isfinite([cases, controls]).all()
    }


def _smallest_cell(cell: tuple[float, float], sizes: tuple[float, float]) -> float:
    """Smallest of carriers and non-carriers among cases and controls."""
    return min(*cell, sizes[0] - cell[0], sizes[1] - cell[1])


def _check_score(site: SiteProfile, carriers: Mapping[str, tuple[float, float]]) -> None:
    m, names = site.min_count, site.score.in_score
    rare = [snp for snp in names if snp in carriers and sum(carriers[snp]) < m]
    if rare:
        raise fail(
            f"site {site.site_id!r}",
            f"at least {m} carriers (min_count) of the rarer allele of every SNP in the score, "
            "because the weights of kappa tell their number",
            f"fewer for {listed(rare)}; drop their columns from the cohort and fit again",
        )
    sizes = (float(site.n_cases), float(site.n_controls))
    alone = names[0]
    if len(names) == 1 and alone in carriers and _smallest_cell(carriers[alone], sizes) < m:
        raise fail(
            f"site {site.site_id!r}",
            f"at least {m} carriers and non-carriers (min_count) among cases and among controls "
            "where the score is a single SNP",
            f"fewer for {alone}; use more SNPs, or leave the site out",
        )


def _cells(site: SiteProfile, carriers: Mapping[str, tuple[float, float]]) -> _Cells:
    m = site.min_count
    sizes = _sizes_by_snp(site)
    everyone = (float(site.n_cases), float(site.n_controls))
    tables = [site.per_snp, *site.diagnostics.values()]
    named = {str(snp) for table in tables if hasattr(table, "columns") for snp in table["snp"]}
    named = (named | set(site.per_snp_profiles or ())) & set(site.snps)
    unknown = sorted(named - set(carriers))  # instruments only: other names are not even mentioned
    smallest = {
        snp: _smallest_cell(carriers[snp], sizes.get(snp, everyone))
        for snp in named & set(carriers)
    }
    rare = sorted(snp for snp, cell in smallest.items() if cell < m)
    statements = [
        f"{snp}: fewer than {m} carriers or non-carriers of the rarer allele among cases or "
        "controls"
        for snp in rare
    ]
    statements += [f"{snp}: the number of carriers is not known" for snp in unknown]
    in_score = set(site.score.in_score)
    second = []
    if site.per_snp is not None:
        estimated = site.per_snp["snp"].astype(str)[site.per_snp["beta"].notna()]
        shown = in_score & set(estimated) - set(rare) - set(unknown)
        hidden = in_score - shown
        if len(hidden) == 1 and hidden <= {*rare, *unknown} and shown:
            second = [min(sorted(shown), key=lambda snp: smallest[snp])]
            statements.append(f"{second[0]}: with it, the score would tell the withheld SNP's")
    kept = frozenset(smallest) - {*rare, *second}
    few = sorted(snp for snp in kept if snp in sizes and _few_missing(site, sizes[snp]))
    statements += [f"{snp}: counts; between 1 and {m - 1} people without dosage" for snp in few]
    return _Cells(
        kept=kept,
        few_missing=frozenset(few),
        no_profiles=bool(in_score & {*rare, *unknown}),
        statements=tuple(statements),
    )


def _few_missing(site: SiteProfile, size: tuple[float, float]) -> bool:
    gaps = (site.n_cases - size[0], site.n_controls - size[1])
    return any(_few(gap, site.min_count) for gap in (*gaps, sum(gaps)))


def _sizes_by_snp(site: SiteProfile) -> dict[str, tuple[float, float]]:
    """Cases and controls with the dosage of a SNP, where the tables tell."""
    n, n_cases = float(site.counts.n), float(site.n_cases)
    result: dict[str, tuple[float, float]] = {}
    shares = site.diagnostics.get("missing_share")
    if shares is not None:
        for snp, share in zip(shares["snp"], shares["missing_share"], strict=True):
            missing = round(n * float(share))
            result[str(snp)] = (n_cases, n - n_cases - missing)
    table = site.per_snp
    if table is not None and "n" in table.columns:
        cases = table["n_cases"] if "n_cases" in table.columns else [n_cases] * len(table)
        for snp, size, size_cases in zip(table["snp"], table["n"], cases, strict=True):
            if np.isfinite([size, size_cases]).all():
                result[str(snp)] = (float(size_cases), float(size) - float(size_cases))
    return result


def _rows(table: pd.DataFrame, cells: _Cells) -> pd.DataFrame:
    """Rows of SNPs that may leave; without counts where few dosages are missing."""
    names = table["snp"].astype(str)
    table = table[names.isin(cells.kept)].reset_index(drop=True)
    if "eaf" in table.columns:
        table = table.assign(eaf=_rounded_frequencies(table["eaf"].to_numpy(dtype=np.float64)))
    few = table["snp"].astype(str).isin(cells.few_missing).to_numpy()
    counted = [name for name in ("n", "n_cases", "missing_share") if name in table.columns]
    changed: dict[str, Any] = {}
    for name in counted:
        values = table[name].to_numpy(dtype=np.float64, copy=True)
        values[few] = np.nan
        changed[name] = values
    return table.assign(**changed)


def _rounded_frequencies(values: Float) -> Float:
    """Frequencies with three digits of the rarer allele's."""
    rarer = np.minimum(values, 1 - values)
    positive = np.where(rarer > 0, rarer, 1.0)
    scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(positive)))
    rounded = np.where(rarer > 0, np.round(positive * scale) / scale, rarer)
    result: Float = np.where(values <= 0.5, rounded, 1 - rounded)
    return result


def _negative_controls(site: SiteProfile) -> tuple[pd.DataFrame | None, list[str]]:
    table, m = site.negative_controls, site.min_count
    if table is None:
        return None, []
    cases = table["n_cases"].to_numpy(dtype=np.float64, copy=True)
    controls = table["n_controls"].to_numpy(dtype=np.float64, copy=True)
    kept = (cases >= m) & (controls >= m)
    total = site.counts.n - cases - controls
    few = kept & (np.abs(total) > 0) & (np.abs(total) < m)
    names = table["outcome"].astype(str).to_numpy()
    said = [f"negative control {name}: fewer than {m} cases or controls" for name in names[~kept]]
    said += [
        f"negative control {name}: counts; between 1 and {m - 1} people without it"
        for name in names[few]
    ]
    cases[few], controls[few] = np.nan, np.nan
    changed = table.assign(n_cases=cases, n_controls=controls)
    return changed[kept].reset_index(drop=True), said
