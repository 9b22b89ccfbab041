"""What ``mrfast mr`` and ``mrfast presso`` share: harmonised data of one or several pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mrfast.cli.association_options import (
    add_association_options,
    add_harmonisation_options,
    check_two_studies,
    chosen_action,
    listed,
    options_named,
    read_table,
    reason_lines,
)
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from mrfast.data.harmonisation import Harmonised

__all__ = [
    "Pairs",
    "add_input_options",
    "chosen_seed",
    "pairs_of",
    "read_pairs",
    "refuse_other_files",
]

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
    """

    kept: pd.DataFrame
    harmonised: Harmonised | None
    lines: list[str]


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is analysed."""
    add_association_options(parser, several=True)
    group = parser.add_argument_group("instruments")
    group.add_argument(
        "--p-value",
        type=float,
        metavar="P",
        help="use only SNPs with at most this p-value in the exposure's table, such as 5e-8 "
        "(default: all); they should be independent: 'mrfast clump' makes them so",
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
    tables = [name for name in ("exposure", "outcome") if getattr(options, name) is not None]
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
    groups = kept.groupby(["exposure", "outcome"], sort=False, observed=True, dropna=False)
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
    if options.p_value is not None:
        raise InvalidInputError("--p-value: expected none with --harmonised")
    with options_named({"columns": "--columns"}):
        columns = None if options.columns is None else parse_pairs(options.columns)
        kept = read_harmonised(options.harmonised, columns=columns)
    if not len(kept):
        raise InvalidInputError(f"--harmonised: expected rows to be used in {name}, received none")
    kept = kept.assign(
        **{role: role for role in ("exposure", "outcome") if role not in kept.columns}
    )
    if "snp" in kept:
        twice = kept.loc[kept.duplicated(["exposure", "outcome", "snp"]), "snp"]
        if len(twice):
            raise _kept_twice("--harmonised", [str(snp) for snp in twice.unique()])
    return Pairs(kept, None, [f"{len(kept):,} rows to be used in {name}"])


def _read_two(options: argparse.Namespace) -> Pairs:
    from mrfast.data.harmonisation import harmonise

    lines: list[str] = []
    exposures = [_named(options, "exposure", path, lines) for path in options.exposure]
    exposures = [_selected(options, table, lines) for table in exposures]
    exposure = _joined(exposures)
    outcomes, elsewhere = [], 0
    for path in options.outcome:
        table = _named(options, "outcome", path, lines)
        if len(options.exposure) == 1 and len(options.outcome) == 1:
            check_two_studies(options, exposure, table)
        wanted = table["snp"].isin(exposure["snp"].dropna())
        if len(options.outcome) > 1 or wanted.any():
            elsewhere += int((~wanted).sum())
            table = table[wanted]
        outcomes.append(table)
    outcome = _joined(outcomes)
    if elsewhere:
        lines[-1] += f"; {elsewhere:,} rows are not of the exposure's SNPs"
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
    most = int(kept.groupby(["exposure", "outcome"], observed=True).size().max())
    if most > _MANY:
        lines.append(
            f"note: {most:,} SNPs of one pair; the methods take independent instruments, that is "
            "SNPs that were selected (--p-value) and clumped"
        )
    return Pairs(kept, harmonised, lines)


def _named(options: argparse.Namespace, role: str, path: str, lines: list[str]) -> pd.DataFrame:
    """A table; one of several without a column of traits is named after its file."""
    table = read_table(options, role, path)
    name = Path(path).name
    lines.append(f"{role}: {len(table):,} rows in {name}")
    if len(getattr(options, role)) > 1 and "trait" not in table:
        table = table.assign(trait=name.partition(".")[0])
    return table


def _selected(options: argparse.Namespace, table: pd.DataFrame, lines: list[str]) -> pd.DataFrame:
    """Rows of the p-value that the options ask for."""
    import numpy as np
    from scipy.special import ndtr

    from mrfast import _validation as check

    if options.p_value is None:
        return table
    level = check.scalar("--p-value", options.p_value, above=0, maximum=1)
    p = 2 * ndtr(-np.abs(table["beta"].to_numpy() / table["std_error"].to_numpy()))
    if "p_value" in table:
        given = table["p_value"].to_numpy(dtype=np.float64)
        p = np.where(np.isnan(given), p, given)
    chosen: pd.DataFrame = table[p <= level]
    if not len(chosen):
        raise InvalidInputError(f"--p-value: expected SNPs with p of at most {level:g}, found none")
    lines[-1] += f", {len(chosen):,} of them with p of at most {level:g}"
    return chosen


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    if len(tables) == 1:
        return tables[0]
    names = [str(name) for table in tables for name in table["trait"].astype(str).unique()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(
            f"--exposure, --outcome: expected every trait in one file, received {twice[0]} in two"
        )
    return pd.concat([table.astype({"trait": object}) for table in tables], ignore_index=True)


def _kept_twice(option: str, snps: list[str]) -> InvalidInputError:
    return InvalidInputError(
        f"{option}: expected every SNP once for a pair, received several usable rows for "
        + listed(snps)
    )
