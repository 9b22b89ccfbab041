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

from mrfast import _validation as check
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
    wanted = None
    if snps is not None:
        if isinstance(snps, str):
            raise check.fail("snps", "a sequence of identifiers", repr(snps))
        wanted = pd.Index([str(snp) for snp in snps], dtype=object).unique()
    else:
        own = [tables[name]["snp"].dropna() for name in names]
        wanted = pd.Index(pd.concat(own), dtype=object).unique()
    for name, table in tables.items():
        part = table[table["snp"].isin(wanted)].reset_index(drop=True)
        if not len(part):
            raise check.fail(
                "outcome" if name == outcome_name else "exposures",
                f"a table of {name} that has some of the SNPs",
                f"none of {check.listed(wanted)}",
            )
        tables[name] = part
    return _aligned(names, outcome_name, tables, wanted, action, eaf_tolerance)


def _aligned(
    names: tuple[str, ...],
    outcome: str,
    tables: dict[str, pd.DataFrame],
    wanted: pd.Index[Any],
    action: int,
    eaf_tolerance: float,
) -> MVHarmonised:
    """Align every table with the first; keep what fits in all of them."""
    first = tables[names[0]]
    own, dropped = _usable_rows(first, names[0])
    dropped.append(_absent(wanted, first, names[0]))
    columns: dict[str, pd.DataFrame] = {}
    for name, table in tables.items():
        if name == names[0]:
            continue
        try:
            pairs = harmonise(first, table, action=action, eaf_tolerance=eaf_tolerance).table
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}: {error}") from error
        pairs = pairs[pairs["snp"].isin(own["snp"])]
        reason = pairs["reason"].astype(object)
        reason = reason.mask(reason == "kept_unmatched_alleles", "unmatched_alleles")
        usable = pairs["keep"].to_numpy() & (reason != "unmatched_alleles").to_numpy()
        twice = (
            usable
            & pairs["snp"].isin(pairs["snp"][usable][pairs["snp"][usable].duplicated()]).to_numpy()
        )
        reason = reason.mask(twice, "duplicated").replace({"absent_from_outcome": "absent"})
        good = pairs[usable & ~twice]
        bad = ~pairs["snp"].isin(good["snp"])
        dropped.append(_reasons(pairs["snp"][bad], name, reason[bad]))
        columns[name] = _other_side(good)
    common = own["snp"]
    for part in columns.values():
        common = common[common.isin(part.index)]
    lost = _tidy(pd.concat(dropped, ignore_index=True), wanted)
    if not len(common):
        counts = lost.groupby(["trait", "reason"], sort=False).size().nlargest(_SHOWN)
        top = zip(counts.index.to_list(), counts.to_list(), strict=True)
        shown = "; ".join(f"{n} SNPs: {', '.join(where)}" for where, n in top)
        raise check.fail(
            "exposures",
            "a SNP that can be aligned in every table",
            f"none of {len(wanted)} ({shown})",
        )
    columns[names[0]] = own.set_index("snp")

    def gathered(column: str) -> pd.DataFrame:
        parts = {
            name: columns[name][column].reindex(common).to_numpy(dtype=np.float64)
            if column in columns[name]
            else np.full(len(common), np.nan)
            for name in (*names, outcome)
        }
        return pd.DataFrame(parts, index=pd.Index(common, name="snp"))

    found = {name: gathered(name) for name in ("beta", "std_error", "p_value", "eaf", "n")}
    arrays: dict[str, Any] = {}
    for name, frame in found.items():
        key = "se" if name == "std_error" else name
        arrays[f"{key}_exposure"] = frame[list(names)]
        arrays[f"{key}_outcome"] = frame[outcome].to_numpy()
    described = [
        name
        for name in ("snp", "chromosome", "position", "effect_allele", "other_allele")
        if name in own
    ]
    return MVHarmonised(
        exposures=names,
        outcome=outcome,
        snps=own[described].set_index("snp").loc[common].reset_index(),
        dropped=lost,
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


def _usable_rows(first: pd.DataFrame, name: str) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Rows of the first exposure that can be used; the others with their reason."""
    named = first[first["snp"].notna()]
    reason = pd.Series("", index=named.index, dtype=object)
    reason[named["effect_allele"].isna()] = "missing_effect_allele"
    reason[named["beta"].isna() | named["std_error"].isna()] = "missing_value"
    reason[named["snp"].duplicated(keep=False)] = "duplicated"
    bad = reason != ""
    return named[~bad], [_reasons(named["snp"][bad], name, reason[bad])]


def _absent(wanted: pd.Index[Any], table: pd.DataFrame, name: str) -> pd.DataFrame:
    missing = pd.Series(wanted[~wanted.isin(table["snp"])], dtype=object)
    return _reasons(missing, name, pd.Series("absent", index=missing.index))


def _other_side(pairs: pd.DataFrame) -> pd.DataFrame:
    """Associations of the second table for the allele that the first one counts as it came."""
    turned = ((pairs["alleles"] == "1-2") & pairs["swapped"]).to_numpy()
    eaf = pairs["eaf_outcome"].to_numpy()
    return pd.DataFrame(
        {
            "beta": np.where(turned, -1.0, 1.0) * pairs["beta_outcome"].to_numpy(),
            "std_error": pairs["se_outcome"].to_numpy(),
            "p_value": pairs["p_value_outcome"].to_numpy(),
            "eaf": np.where(turned, 1 - eaf, eaf),
            "n": pairs["n_outcome"].to_numpy(),
        },
        index=pd.Index(pairs["snp"], dtype=object),
    )


def _reasons(snps: pd.Series[Any], trait: str, reason: pd.Series[Any]) -> pd.DataFrame:
    return pd.DataFrame({"snp": snps, "trait": trait, "reason": reason}).astype(object)


def _tidy(dropped: pd.DataFrame, wanted: pd.Index[Any]) -> pd.DataFrame:
    """One row a SNP and trait, in the order of the SNPs, with the meaning of its reason."""
    dropped = dropped[dropped["snp"].isin(wanted)]
    dropped = dropped.drop_duplicates(["snp", "trait"])
    order = np.argsort(wanted.get_indexer(pd.Index(dropped["snp"])), kind="stable")
    dropped = dropped.iloc[order].reset_index(drop=True)
    return dropped.assign(meaning=dropped["reason"].map(dict(MV_REASONS)))
