"""``mrfast harmonise``: two tables, aligned, with a reason for every row."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast.cli.association_options import (
    add_association_options,
    add_harmonisation_options,
    chosen_action,
    listed,
    options_named,
    read_tables,
    reason_lines,
)
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "harmonise",
        help="align the effect alleles of two association tables",
        description="Align the effect alleles of two association tables, and write every row "
        "with the reason it was kept or dropped.",
        allow_abbrev=False,
    )
    add_association_options(parser)
    add_harmonisation_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="table to write: tab-separated, or by commas for .csv; compressed for .gz",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Harmonise, write the table, print the counts."""
    from mrfast.data.harmonisation import harmonise
    from mrfast.io.tables import write_table

    for role in ("exposure", "outcome"):
        if Path(getattr(options, role)).resolve() == Path(options.output).resolve():
            raise InvalidInputError(f"--output: expected another file than the --{role}'s")
    exposure, outcome = read_tables(options)
    with options_named({"eaf_tolerance": "--eaf-tolerance", "outcome": "--outcome"}):
        harmonised = harmonise(
            exposure,
            outcome,
            action=chosen_action(options, exposure, outcome),
            eaf_tolerance=options.eaf_tolerance,
        )
    write_table(harmonised.table, options.output)
    if not options.quiet:
        kept, matched = len(harmonised.kept), int(harmonised.table["alleles"].notna().sum())
        for role, table in (("exposure", exposure), ("outcome", outcome)):
            print(f"{role}: {len(table):,} rows in {Path(getattr(options, role)).name}")
        print(f"{kept:,} of {matched:,} matched rows kept")
        print("\n".join(f"  {line}" for line in reason_lines(harmonised)))
        if harmonised.duplicated:
            print(f"several rows are kept for {listed(list(harmonised.duplicated))}")
        print(f"written to {options.output}")
    return 0
