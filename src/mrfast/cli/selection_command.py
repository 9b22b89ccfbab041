"""``mrfast select`` and ``mrfast clump``: instruments from the results of a GWAS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrfast.cli.association_options import options_named
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import pandas as pd

    from mrfast.summary.instrument_selection import InstrumentSelection

__all__ = ["add_parser", "run_clump", "run_select"]

_OPTIONS = ("p_value", "min_f", "min_maf", "reference", "r2", "kb", "absent")


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both subcommands."""
    select = commands.add_parser(
        "select",
        help="choose instruments from the results of a GWAS",
        description="Filter a table of associations by p-value, strength and frequency, thin it "
        "to independent SNPs, and write those that are left.",
        epilog="Example: mrfast select gwas.tsv.gz --reference 1000G_EUR -o instruments.tsv",
        allow_abbrev=False,
    )
    _add_table_options(select)
    select.add_argument(
        "--p-value",
        type=float,
        default=5e-8,
        metavar="P",
        help="keep SNPs with a smaller p-value (default %(default)s)",
    )
    select.add_argument(
        "--min-f", type=float, metavar="F", help="keep SNPs with an F statistic of at least this"
    )
    select.add_argument(
        "--min-maf",
        type=float,
        metavar="X",
        help="keep SNPs with a frequency of the rarer allele of at least this",
    )
    _add_clumping_options(select, "; without it and --ld, nothing is clumped")
    _add_output_options(select)
    select.set_defaults(run=run_select)
    clump = commands.add_parser(
        "clump",
        help="thin a table to independent SNPs",
        description="Of SNPs near each other and correlated, keep the one with the smallest "
        "p-value, by the genotypes of a reference panel or a matrix of correlations.",
        epilog="Example: mrfast clump hits.tsv --reference 1000G_EUR -o clumped.tsv",
        allow_abbrev=False,
    )
    _add_table_options(clump)
    _add_clumping_options(clump, "")
    _add_output_options(clump)
    clump.set_defaults(run=run_clump)


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "table",
        metavar="TABLE",
        help="text file with a header, plain or compressed; columns are recognised by the names "
        "that GWAS programs give them",
    )
    parser.add_argument(
        "--columns",
        metavar="PAIRS",
        help='columns, such as "beta=b,std_error=se", where their names are not known',
    )


def _add_clumping_options(parser: argparse.ArgumentParser, without: str) -> None:
    group = parser.add_argument_group("clumping")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--reference",
        metavar="PREFIX",
        help=f"panel in PLINK's .bed, .bim and .fam files{without}",
    )
    source.add_argument(
        "--ld",
        metavar="FILE",
        help="square matrix of the SNPs' correlations as text, labelled by SNP (rs123 or "
        "rs123_A_G) or in the order of the rows",
    )
    group.add_argument(
        "--r2",
        type=float,
        metavar="X",
        help="leave out SNPs with at least this squared correlation with one that is kept "
        "(default 0.001; 0: by distance alone)",
    )
    group.add_argument(
        "--kb",
        type=float,
        default=10_000.0,
        metavar="KB",
        help="and at most so many thousand base pairs away (default %(default)g)",
    )
    group.add_argument(
        "--absent",
        choices=("drop", "keep"),
        default="drop",
        help="SNPs that the reference cannot tell about (default %(default)s)",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="table of the instruments to write: tab-separated, or by commas for .csv; compressed "
        "for .gz",
    )
    parser.add_argument(
        "--rows", metavar="FILE", help="also write every row with the reason it was kept or dropped"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run_select(options: argparse.Namespace) -> int:
    """Filter, clump, write the instruments."""
    from mrfast.summary.instrument_selection import select_instruments

    table = _table(options)
    with options_named({name: _option(name) for name in _OPTIONS}):
        selection = select_instruments(
            table,
            p_value=options.p_value,
            min_f=options.min_f,
            min_maf=options.min_maf,
            r2=options.r2,
            **_clumping(options, table),
        )
    return _written(options, selection)


def run_clump(options: argparse.Namespace) -> int:
    """Clump, write the instruments."""
    from mrfast.summary.instrument_selection import clump

    table = _table(options)
    if options.r2 is None and options.reference is None and options.ld is None:
        raise InvalidInputError(
            "--reference, --ld: expected one of them (or --r2 0, to thin by distance alone), "
            "received none"
        )
    with options_named({name: _option(name) for name in _OPTIONS}):
        r2 = {} if options.r2 is None else {"r2": options.r2}
        selection = clump(table, **r2, **_clumping(options, table))
    return _written(options, selection)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _table(options: argparse.Namespace) -> pd.DataFrame:
    """Table that the options name; refuses to write over what is read."""
    from mrfast.io.plink import SUFFIXES
    from mrfast.io.tables import parse_columns, read_associations

    panel = []
    if options.reference is not None:
        prefix = options.reference
        for suffix in SUFFIXES:
            prefix = prefix.removesuffix(suffix)
        panel = [prefix + suffix for suffix in SUFFIXES]
    given = [options.table, options.ld, *panel]
    read = [Path(path).resolve() for path in given if path is not None]
    outputs = {"--output": options.output, "--rows": options.rows}
    for option, path in outputs.items():
        if path is not None and Path(path).resolve() in read:
            raise InvalidInputError(f"{option}: expected another file than those that are read")
    if options.rows and Path(options.rows).resolve() == Path(options.output).resolve():
        raise InvalidInputError("--rows: expected another file than the --output's")
    with options_named({"columns": "--columns"}):
        columns = None if options.columns is None else parse_columns(options.columns)
        return read_associations(options.table, columns=columns)


def _clumping(options: argparse.Namespace, table: pd.DataFrame) -> dict[str, Any]:
    """Arguments of the clumping that both functions share."""
    from mrfast.io.ld_matrix import read_matrix, without_alleles

    result: dict[str, Any] = {
        "reference": options.reference,
        "kb": options.kb,
        "absent": options.absent,
    }
    if options.ld is not None:
        matrix, labels = read_matrix(Path(options.ld))
        if labels is not None:
            labels = without_alleles(labels, table["snp"].dropna().tolist())
        result |= {"ld": matrix, "ld_snps": labels}
    return result


def _written(options: argparse.Namespace, selection: InstrumentSelection) -> int:
    from mrfast.io.tables import write_table

    if not len(selection.kept):
        counts = ", ".join(
            f"{rows} {reason}" for reason, rows, _ in selection.reasons.itertuples(index=False)
        )
        raise InvalidInputError(
            f"{Path(options.table).name}: expected an instrument, received none ({counts})"
        )
    write_table(selection.kept, options.output)
    if options.rows is not None:
        write_table(selection.table, options.rows)
    if not options.quiet:
        print(selection.summary())
        print(f"written to {options.output}{f' and {options.rows}' if options.rows else ''}")
    return 0
