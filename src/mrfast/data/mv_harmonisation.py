"""Harmonisation of several exposures and an outcome: `mv_harmonise`.

Every table is harmonised with that of the first exposure, by the rules of `mrfast.harmonise`. A SNP
is used only if every table has it and its alleles can be aligned in each; all associations then
count the effect allele of the first exposure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._runtime import match_texts
from mrfast._validation import Float
from mrfast.data.associations import association_table
from mrfast.data.harmonisation import REASONS, harmonise
from mrfast.errors import InvalidInputError

__all__ = ["MV_REASONS", "MVHarmonised", "mv_harmonise"]

MV_REASONS: Mapping[str, str] = MappingProxyType(
    {
        **{
            name: meaning
            for name, meaning in REASONS.items()
            if not name.startswith(("kept", "absent"))
        },
        "unmatched_alleles": "the alleles do not fit",
        "duplicated": "several rows of the SNP could be used",
        "absent": "the table of this trait does not have the SNP",
    }
)
"""Why a SNP is not used, with the meaning."""

_SHOWN = 5
_FIELDS = ("beta", "se", "p_value", "eaf", "n")

Codes = NDArray[np.intp]


@dataclass(frozen=True, repr=False, eq=False)
class MVHarmonised:
    """Result of `mv_harmonise`: associations of J SNPs with K exposures and an outcome.

    Attributes
    ----------
    exposures : tuple of str
    outcome : str
    snps : DataFrame, shape (J, ...)
        ``snp``, ``effect_allele``, ``other_allele`` of the first exposure; ``chromosome`` and
        ``position`` where it has them.
    beta_exposure, se_exposure, p_value_exposure, eaf_exposure, n_exposure : DataFrame, (J, K)
        A column an exposure, a row a SNP; what a table does not give is NaN.
    beta_outcome, se_outcome, p_value_outcome, eaf_outcome, n_outcome : ndarray, shape (J,)
    dropped : DataFrame
        SNPs that are not used: ``snp``, ``trait`` of the table that is to blame, ``reason`` (a key
        of `MV_REASONS`), ``meaning``. A SNP has a row for every table that is.
    """

    exposures: tuple[str, ...]
    outcome: str
    snps: pd.DataFrame
    beta_exposure: pd.DataFrame
    se_exposure: pd.DataFrame
    p_value_exposure: pd.DataFrame
    eaf_exposure: pd.DataFrame
    n_exposure: pd.DataFrame
    beta_outcome: Float
    se_outcome: Float
    p_value_outcome: Float
    eaf_outcome: Float
    n_outcome: Float
    dropped: pd.DataFrame

    def arrays(self) -> dict[str, Any]:
        """Arguments of a multivariable method: ``mrfast.mv_ivw(**harmonised.arrays())``."""
        names = ("beta_exposure", "se_exposure", "beta_outcome", "se_outcome")
        return {name: getattr(self, name) for name in names}

    @property
    def reasons(self) -> pd.DataFrame:
        """Number of SNPs of every trait and reason."""
        counts = self.dropped.groupby(["trait", "reason"], sort=False).size()
        frame = counts.rename("snps").reset_index()
        return frame.assign(meaning=frame["reason"].map(dict(MV_REASONS)))

    def summary(self) -> str:
        """Describe in a few lines how many SNPs are used, and why the others are not.

        Returns
        -------
        str
        """
        lines = [repr(self)]
        lines += [
            f"{row.snps:>8}  {row.trait}: {row.meaning}"
            for row in self.reasons.itertuples(index=False)
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"MVHarmonised({len(self.snps)} SNPs, {len(self.exposures)} exposures "
            f"({check.listed(self.exposures)}), outcome {self.outcome!r}, "
            f"{self.dropped['snp'].nunique()} SNPs dropped)"
        )


def mv_harmonise(
    exposures: Mapping[str, Any] | Sequence[Any] | pd.DataFrame,
    outcome: pd.DataFrame | Mapping[str, object],
    *,
    snps: Sequence[object] | None = None,
    action: int = 2,
    eaf_tolerance: float = 0.08,
) -> MVHarmonised:
    """Align the associations of several exposures and an outcome to the same effect alleles.

    Parameters
    ----------
    exposures : mapping of name to DataFrame, sequence of DataFrame, or DataFrame
        Tables in the columns of :mod:`mrfast.data.associations`; one table may hold all exposures
        in a column ``trait``. The first exposure decides which alleles are counted.
    outcome : DataFrame
        One outcome; its name is that of its column ``trait``, if it has one.
    snps : sequence of str, optional
        Instruments: other SNPs are left out before all else. Default: every SNP of any exposure.
    action, eaf_tolerance
        As of `mrfast.harmonise`.

    Returns
    -------
    MVHarmonised

    Raises
    ------
    InvalidInputError
        Tables that are not valid, several outcomes, names that occur twice, or no SNP that all
        tables have and that can be aligned in all of them.

    Examples
    --------
    >>> import mrfast
    >>> import pandas as pd
    >>> def table(beta, effect="A", other="G"):
    ...     return pd.DataFrame({
    ...         "snp": ["rs1", "rs2", "rs3"], "effect_allele": effect, "other_allele": other,
    ...         "beta": beta, "std_error": 0.01,
    ...     })
    >>> data = mrfast.mv_harmonise(
    ...     {"LDL": table([0.1, 0.2, 0.3]), "HDL": table([0.1, 0.0, -0.1], "G", "A")},
    ...     table([0.2, 0.1, 0.4]),
    ... )
    >>> data.beta_exposure["HDL"].tolist()
    [-0.1, -0.0, 0.1]
    """
    tables = _named_tables(exposures)
    names = tuple(tables)
    outcome_tables = _by_trait(association_table(outcome, argument="outcome"), "outcome")
    if len(outcome_tables) > 1:
        raise check.fail("outcome", "one outcome", f"{check.listed(outcome_tables)}")
    ((outcome_name, outcome_table),) = outcome_tables.items()
    if outcome_name in tables:
        outcome_name = f"{outcome_name} (outcome)"
    tables[outcome_name] = outcome_table
    wanted, codes = _numbered(tables, outcome_name, snps)
    for name, place in codes.items():
        rows = np.flatnonzero(place >= 0)
        if not rows.size:
            raise check.fail(
                "outcome" if name == outcome_name else "exposures",
                f"a table of {name} that has some of the SNPs",
                f"none of {check.listed(wanted)}",
            )
        tables[name] = tables[name].take(rows).reset_index(drop=True)
        codes[name] = place[rows]
    return _aligned(names, outcome_name, tables, codes, wanted, action, eaf_tolerance)


def _numbered(
    tables: dict[str, pd.DataFrame], outcome: str, snps: Sequence[object] | None
) -> tuple[pd.Index[Any], dict[str, Codes]]:
    """SNPs that are looked for, each once, and the place there of every row; -1: none."""
    wanted: pd.Index[Any] = pd.Index([], dtype=object)
    if snps is not None:
        if isinstance(snps, str) or not np.iterable(snps):
            raise check.fail("snps", "a sequence of identifiers", repr(snps))
        wanted = pd.Index([str(snp) for snp in snps], dtype=object).unique()
    codes: dict[str, Codes] = {}
    for name, table in tables.items():
        texts = table["snp"].to_numpy(dtype=object)
        _, place = match_texts(wanted.to_numpy(), texts)
        if snps is None and name != outcome:
            new = np.flatnonzero((place < 0) & ~table["snp"].isna().to_numpy())
            own, found = pd.factorize(texts[new])
            place[new] = own + len(wanted)
            wanted = wanted.append(pd.Index(found, dtype=object)) if len(found) else wanted
        codes[name] = place
    return wanted, codes


def _aligned(
    names: tuple[str, ...],
    outcome: str,
    tables: dict[str, pd.DataFrame],
    codes: dict[str, Codes],
    wanted: pd.Index[Any],
    action: int,
    eaf_tolerance: float,
) -> MVHarmonised:
    """Align every table with the first; keep what fits in all of them.

    SNPs are numbers here: places in `wanted`.
    """
    first_name = names[0]
    reason = {name: np.full(len(wanted), "", dtype=object) for name in tables}
    for name in tables:
        reason[name][np.bincount(codes[name], minlength=len(wanted)) == 0] = "absent"
    first, place = _usable_rows(tables[first_name], codes[first_name], reason[first_name])
    row_of = np.full(len(wanted), -1)
    row_of[place] = np.arange(len(place))
    # A row of `columns` for every usable row of the first exposure; NaN: the SNP falls out.
    columns = {first_name: _own_side(first)}
    for name, table in tables.items():
        if name == first_name:
            continue
        rows = np.flatnonzero(row_of[codes[name]] >= 0)
        columns[name] = np.full((len(_FIELDS), len(place)), np.nan)
        if not rows.size:
            continue
        try:
            pairs = harmonise(
                first, table.take(rows), action=action, eaf_tolerance=eaf_tolerance
            ).matched
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}: {error}") from error
        _, found = match_texts(wanted.to_numpy(), pairs["snp"].to_numpy(dtype=object))
        why = np.array(pairs["reason"], dtype=object)
        why[why == "kept_unmatched_alleles"] = "unmatched_alleles"
        usable = pairs["keep"].to_numpy() & (why != "unmatched_alleles")
        twice = np.bincount(found[usable], minlength=len(wanted)) > 1
        good = usable & ~twice[found]
        why[usable & twice[found]] = "duplicated"
        reason[name][found[~good][::-1]] = why[~good][::-1]  # the first row of a SNP stands
        reason[name][found[good]] = ""
        columns[name][:, row_of[found[good]]] = _other_side(pairs[good])
    dropped = _dropped(reason, wanted)
    kept = np.flatnonzero(np.all([reason[name][place] == "" for name in tables], axis=0))
    if not kept.size:
        counts = dropped.groupby(["trait", "reason"], sort=False).size().nlargest(_SHOWN)
        top = zip(counts.index.to_list(), counts.to_list(), strict=True)
        shown = "; ".join(f"{n} SNPs: {', '.join(where)}" for where, n in top)
        raise check.fail(
            "exposures",
            "a SNP that can be aligned in every table",
            f"none of {len(wanted)} ({shown})",
        )
    first = first.take(kept)
    index = pd.Index(first["snp"], name="snp", dtype=object)
    arrays: dict[str, Any] = {}
    for i, field in enumerate(_FIELDS):
        arrays[f"{field}_exposure"] = pd.DataFrame(
            {name: columns[name][i, kept] for name in names}, index=index
        )
        arrays[f"{field}_outcome"] = columns[outcome][i, kept]
    described = ["snp", "chromosome", "position", "effect_allele", "other_allele"]
    return MVHarmonised(
        exposures=names,
        outcome=outcome,
        snps=first[[name for name in described if name in first]].reset_index(drop=True),
        dropped=dropped,
        **arrays,
    )


def _named_tables(exposures: Any) -> dict[str, pd.DataFrame]:
    """Checked tables by the name of their exposure."""
    if isinstance(exposures, pd.DataFrame):
        return _by_trait(association_table(exposures, argument="exposures"), "exposure")
    found: dict[str, pd.DataFrame] = {}
    if isinstance(exposures, Mapping):
        for name, frame in exposures.items():
            table = association_table(frame, argument=f"exposures[{name!r}]")
            parts = _by_trait(table, str(name))
            if len(parts) > 1:
                raise check.fail(f"exposures[{name!r}]", "one exposure", check.listed(parts))
            found[str(name)] = next(iter(parts.values()))
    elif isinstance(exposures, Sequence) and not isinstance(exposures, str):
        for i, frame in enumerate(exposures):
            table = association_table(frame, argument=f"exposures[{i}]")
            for name, part in _by_trait(table, f"exposure {i + 1}").items():
                if name in found:
                    raise check.fail("exposures", "names that differ", f"{name!r} twice")
                found[name] = part
    else:
        raise check.fail("exposures", "tables of exposures", type(exposures).__name__)
    if not found:
        raise check.fail("exposures", "at least one exposure", "none")
    return found


def _by_trait(table: pd.DataFrame, default: str) -> dict[str, pd.DataFrame]:
    """Tables of single traits, without the column of their names."""
    if "trait" not in table:
        return {default: table}
    order = table["trait"].dropna().astype(str).unique()
    if not len(order):
        return {default: table.drop(columns="trait")}
    return {
        name: table[(table["trait"].astype(str) == name)].drop(columns="trait") for name in order
    }


def _usable_rows(
    first: pd.DataFrame, codes: Codes, reason: NDArray[Any]
) -> tuple[pd.DataFrame, Codes]:
    """Rows of the first exposure that can be used, and their SNPs; writes why others cannot."""
    twice = np.bincount(codes, minlength=len(reason))[codes] > 1
    bad = twice.copy()
    for mask, why in (
        (first["effect_allele"].isna().to_numpy(), "missing_effect_allele"),
        (first[["beta", "std_error"]].isna().any(axis=1).to_numpy(), "missing_value"),
        (twice, "duplicated"),
    ):
        reason[codes[mask]] = why
        bad |= mask
    rows = np.flatnonzero(~bad)
    return first.take(rows).reset_index(drop=True), codes[rows]


def _own_side(table: pd.DataFrame) -> Float:
    """Fields of a table as it is, shape (fields, rows); NaN where it has no such column."""
    names = ("beta", "std_error", "p_value", "eaf", "n")
    missing = np.full(len(table), np.nan)
    return np.array([table[name].to_numpy() if name in table else missing for name in names])


def _other_side(pairs: pd.DataFrame) -> Float:
    """Fields of the second table for the allele that the first one counts as it came."""
    turned = ((pairs["alleles"] == "1-2") & pairs["swapped"]).to_numpy()
    values = np.array([pairs[f"{name}_outcome"].to_numpy() for name in _FIELDS])
    values[0, turned] *= -1
    values[3, turned] = 1 - values[3, turned]
    return values


def _dropped(reason: dict[str, NDArray[Any]], wanted: pd.Index[Any]) -> pd.DataFrame:
    """A row for every SNP and trait with a reason, in the order of the SNPs."""
    traits = np.array(list(reason), dtype=object)
    table = np.array(list(reason.values()), dtype=object)
    snp, trait = np.nonzero((table != "").T)
    why = table[trait, snp]
    return pd.DataFrame(
        {
            "snp": wanted.to_numpy()[snp],
            "trait": traits[trait],
            "reason": why,
            "meaning": [MV_REASONS[name] for name in why],
        },
        dtype=object,
    )
