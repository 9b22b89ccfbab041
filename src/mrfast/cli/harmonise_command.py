"""``mrfast harmonise``: two tables, aligned, with a reason for every row."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast.cli.association_options import (
    add_association_options,
    add_harmonisation_options,
    chosen_action,
    files_of,
    listed,
    options_named,
    read_tables,
    reason_lines,
)
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from mrfast.data.harmonisation import Harmonised

__all__ = ["add_parser", "run"]

_ROLES = ("exposure", "outcome")
_PAIRS = 20


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "harmonise",
        help="align the effect alleles of two association tables",
        description="Align the effect alleles of two association tables, and write every row "
        "with the reason it was kept or dropped. With several exposures or outcomes (files, or a "
        "column of traits), every exposure is aligned with every outcome.",
        epilog="Example: mrfast harmonise --exposure bmi.tsv.gz --outcome chd.tsv t2d.tsv "
        "-o harmonised.tsv",
        allow_abbrev=False,
    )
    add_association_options(parser, several=True)
    add_harmonisation_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="table to write: tab-separated, or by commas for .csv; compressed for .gz",
    )
    parser.add_argument(
        "--kept-only", action="store_true", help="write the rows to be used, not those dropped"
    )
    parser.add_argument(
        "--counts",
        metavar="FILE",
        help="also write numbers of alleles exchanged, flipped and dropped, for every pair of "
        "exposure and outcome (those of TwoSampleMR's log)",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Harmonise, write the table, print the counts."""
    from mrfast.data.harmonisation import harmonise
    from mrfast.io.tables import write_table

    written = [path for path in (options.output, options.counts) if path is not None]
    if len({Path(path).resolve() for path in written}) < len(written):
        raise InvalidInputError("--counts: expected another file than the --output's")
    for option, path in zip(("--output", "--counts"), written, strict=False):
        for role in _ROLES:
            if Path(path).resolve() in [Path(file).resolve() for file in files_of(options, role)]:
                raise InvalidInputError(f"{option}: expected another file than the --{role}'s")
    exposure, outcome = read_tables(options)
    with options_named({"eaf_tolerance": "--eaf-tolerance", "outcome": "--outcome"}):
        harmonised = harmonise(
            exposure,
            outcome,
            action=chosen_action(options, exposure, outcome),
            eaf_tolerance=options.eaf_tolerance,
        )
    write_table(harmonised.kept if options.kept_only else harmonised.table, options.output)
    if options.counts is not None:
        write_table(harmonised.counts, options.counts)
    if not options.quiet:
        for role, table in zip(_ROLES, (exposure, outcome), strict=True):
            files = [Path(file).name for file in files_of(options, role)]
            print(f"{role}: {len(table):,} rows in {listed(files)}")
        print("\n".join(_kept_lines(harmonised)))
        print("\n".join(f"  {line}" for line in reason_lines(harmonised)))
        if harmonised.duplicated:
            print(f"several rows are kept for {listed(list(harmonised.duplicated))}")
        print(f"written to {' and '.join(written)}")
    return 0


def _kept_lines(harmonised: Harmonised) -> list[str]:
    """Numbers of rows that are kept: in all, and for each pair of several."""
    counts = harmonised.counts.drop_duplicates(["exposure", "outcome"])
    kept, matched = counts["total_variants_for_mr"], counts["total_variants"]
    lines = [f"{kept.sum():,} of {matched.sum():,} matched rows kept"]
    if len(counts) > 1:
        lines += [
            f"  {exposure} and {outcome}: {own:,} of {all_rows:,}"
            for exposure, outcome, own, all_rows in zip(
                counts["exposure"], counts["outcome"], kept, matched, strict=True
            )
        ][:_PAIRS]
        if len(counts) > _PAIRS:
            lines.append(f"  and {len(counts) - _PAIRS} more pairs")
    return lines
