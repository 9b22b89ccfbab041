"""What ``mrfast mr`` and ``mrfast presso`` share: harmonised data of one or several pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mrfast.cli.association_options import (
    add_association_options,
    add_harmonisation_options,
    check_two_studies,
    chosen_action,
    listed,
    options_named,
    read_role,
    reason_lines,
)
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from mrfast.data.harmonisation import Harmonised

__all__ = [
    "NO_SNP",
    "Pairs",
    "add_input_options",
    "chosen_seed",
    "pairs_of",
    "read_pairs",
    "refuse_other_files",
    "selection_arguments",
]

_ROLES = ("exposure", "outcome")
NO_SNP = "no SNP to be used"
"""Why a pair of `Pairs.empty` was not analysed."""

_MANY = 1000  # SNPs of a pair from which on a note asks whether they were selected


class Pairs(NamedTuple):
    """Harmonised rows to be used, of all pairs of an exposure and an outcome.

    Attributes
    ----------
    kept : DataFrame
        With the four arrays, and ``exposure`` and ``outcome``.
    harmonised : Harmonised or None
        Where two tables were harmonised.
    lines : list of str
        What was read and what became of it.
    empty : list of pairs of str
        Exposures and outcomes without a SNP to be used.
    """

    kept: pd.DataFrame
    harmonised: Harmonised | None
    lines: list[str]
    empty: list[tuple[str, str]]


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is analysed."""
    add_association_options(parser, several=True, required=False)
    group = parser.add_argument_group(
        "instruments", "Rows of the exposure's tables to use; all of them by default."
    )
    group.add_argument(
        "--p-value",
        type=float,
        metavar="P",
        help="SNPs with a smaller p-value than this, such as 5e-8",
    )
    group.add_argument(
        "--reference",
        metavar="PREFIX",
        help="of SNPs near each other and correlated, the most significant one; by a panel in "
        "PLINK's .bed, .bim and .fam files",
    )
    group.add_argument(
        "--r2",
        type=float,
        metavar="X",
        help="least squared correlation that counts (default 0.001; with --reference)",
    )
    group.add_argument(
        "--kb",
        type=float,
        metavar="KB",
        help="and largest distance in thousand base pairs (default 10000; with --reference)",
    )
    add_harmonisation_options(parser)
    group = parser.add_argument_group(
        "harmonised table",
        "Instead of two tables: one that has both associations of every SNP for the same allele, "
        "as 'mrfast harmonise', TwoSampleMR or MendelianRandomization have them.",
    )
    group.add_argument("--harmonised", metavar="FILE", help="table with both associations")


def read_pairs(options: argparse.Namespace) -> Pairs:
    """Read, select, harmonise.

    Parameters
    ----------
    options : argparse.Namespace
        With the options of `add_input_options`.

    Returns
    -------
    Pairs

    Raises
    ------
    InvalidInputError
        A file or an option is not valid, a SNP is kept twice for a pair, or none is left.
    OSError
        A file cannot be read.
    """
    tables = [name for name in _ROLES if getattr(options, name) is not None]
    if options.harmonised is not None:
        if tables:
            raise InvalidInputError(f"--harmonised: expected no --{tables[0]} beside it")
        return _read_harmonised(options)
    if len(tables) < 2:
        lacking = "exposure" if "exposure" not in tables else "outcome"
        raise InvalidInputError(f"--{lacking}: expected a file (or --harmonised FILE)")
    return _read_two(options)


def pairs_of(kept: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Exposure, outcome and rows of every pair, in their order."""
    groups = kept.groupby(list(_ROLES), sort=False, observed=True, dropna=False)
    for (exposure, outcome), part in groups:
        yield str(exposure), str(outcome), part.reset_index(drop=True)


def chosen_seed(options: argparse.Namespace) -> int:
    """The seed that the options give, or a new one."""
    from mrfast import _validation as check
    from mrfast._runtime import generator

    if options.seed is None:
        return int(generator(None).integers(2**32))
    return check.integer("--seed", options.seed, minimum=0)


def refuse_other_files(folder: Path, names: list[str], marker: str, label: str) -> None:
    """Refuse to replace files of these names in a folder that the command did not write.

    `marker` is a file whose beginning holds `label` where the command wrote it.
    """
    path = folder / marker
    if path.is_file():
        with path.open("rb") as stream:
            if label.encode() in stream.read(200):
                return
    for name in names:
        if (folder / name).exists():
            raise InvalidInputError(
                f"--output: expected a folder without files of other origin, received {folder}, "
                f"which has {name}"
            )


def _read_harmonised(options: argparse.Namespace) -> Pairs:
    from mrfast.io.harmonised_tables import read_harmonised
    from mrfast.io.tables import parse_pairs

    name = Path(options.harmonised).name
    for name in selection_arguments(options):
        raise InvalidInputError(f"--{name.replace('_', '-')}: expected none with --harmonised")
    with options_named({"columns": "--columns"}):
        columns = None if options.columns is None else parse_pairs(options.columns)
        kept = read_harmonised(options.harmonised, columns=columns)
    if not len(kept):
        raise InvalidInputError(f"--harmonised: expected rows to be used in {name}, received none")
    kept = kept.assign(**{role: role for role in _ROLES if role not in kept.columns})
    if "snp" in kept:
        twice = kept.loc[kept.duplicated([*_ROLES, "snp"]), "snp"]
        if len(twice):
            raise _kept_twice("--harmonised", [str(snp) for snp in twice.unique()])
    return Pairs(kept, None, [f"{len(kept):,} rows to be used in {name}"], [])


def _read_two(options: argparse.Namespace) -> Pairs:
    from mrfast.data.harmonisation import harmonise

    lines: list[str] = []
    traits: dict[str, list[str]] = {role: [] for role in _ROLES}
    elsewhere = 0

    def noted(role: str, path: str, table: pd.DataFrame) -> None:
        lines.append(f"{role}: {len(table):,} rows in {Path(path).name}")
        own = table["trait"].astype(str).unique() if "trait" in table else [role]
        traits[role] += [str(name) for name in own]

    def of_exposure(path: str, table: pd.DataFrame) -> pd.DataFrame:
        noted("exposure", path, table)
        selection = selection_arguments(options)
        return _selected(table, selection, lines) if selection else table

    exposure = read_role(options, "exposure", of_exposure)
    if not len(exposure):
        raise InvalidInputError("--p-value: expected SNPs below it, found none")

    def of_outcome(path: str, table: pd.DataFrame) -> pd.DataFrame:
        nonlocal elsewhere
        noted("outcome", path, table)
        check_two_studies(options, exposure, table)
        wanted = table["snp"].isin(exposure["snp"].dropna())
        if not wanted.any() and len(options.outcome) == 1:
            return table  # the whole of it for the error message
        elsewhere += int((~wanted).sum())
        return table[wanted]

    outcome = read_role(options, "outcome", of_outcome)
    if elsewhere:
        lines.append(f"{elsewhere:,} rows of the outcome are not of the exposure's SNPs")
    with options_named({"eaf_tolerance": "--eaf-tolerance", "outcome": "--outcome"}):
        harmonised = harmonise(
            exposure,
            outcome,
            action=chosen_action(options, exposure, outcome),
            eaf_tolerance=options.eaf_tolerance,
        )
    if harmonised.duplicated:
        raise _kept_twice("--exposure, --outcome", list(harmonised.duplicated))
    kept = harmonised.kept
    if not len(kept):
        raise InvalidInputError(
            "--exposure, --outcome: expected at least one usable SNP, received none: "
            + "; ".join(line.strip() for line in reason_lines(harmonised))
        )
    lines.append("rows by what became of them:")
    lines += [f"  {line}" for line in reason_lines(harmonised)]
    sizes = kept.groupby(list(_ROLES), observed=True).size()
    if sizes.max() > _MANY:
        lines.append(
            f"note: {sizes.max():,} SNPs of one pair; the methods take independent instruments, "
            "that is SNPs that were selected (--p-value) and clumped"
        )
    found = {(str(one), str(other)) for one, other in sizes.index}
    empty = [
        (one, other)
        for one in traits["exposure"]
        for other in traits["outcome"]
        if (one, other) not in found
    ]
    return Pairs(kept, harmonised, lines, empty)


def selection_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What the options ask for, as arguments of `mrfast.select_instruments`; empty for nothing."""
    names = ("p_value", "reference", "r2", "kb")
    given = {name: getattr(options, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("r2", "kb"):
        if name in given and "reference" not in given:
            raise InvalidInputError(f"--{name}: expected --reference beside it")
    return {"p_value": None, **given} if given else {}


def _selected(table: pd.DataFrame, selection: dict[str, Any], lines: list[str]) -> pd.DataFrame:
    """Rows of a table that are selected, each of its traits by itself."""
    from mrfast.summary.instrument_selection import select_instruments

    with options_named({name: f"--{name.replace('_', '-')}" for name in selection}):
        kept = select_instruments(table, **selection).kept
    lines[-1] += f", {len(kept):,} of them selected"
    chosen: pd.DataFrame = kept[list(table.columns)]
    return chosen


def _kept_twice(option: str, snps: list[str]) -> InvalidInputError:
    return InvalidInputError(
        f"{option}: expected every SNP once for a pair, received several usable rows for "
        + listed(snps)
    )
