"""``mrfast instruments``: the table of instruments that a coordinator sends to the sites."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast.cli.association_options import options_named
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import pandas as pd

    from mrfast._validation import Float
    from mrfast.data.instruments import InstrumentTable

__all__ = ["add_parser", "read_instruments", "refuse_other_document", "run_build", "run_check"]

_START = 200  # bytes in which a document of mrfast names its kind


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "instruments",
        help="table of instruments for the sites of a federated study",
        description="Make or check the table of instruments that a coordinator sends to the sites.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(title="actions", metavar="COMMAND", required=True)
    build = kinds.add_parser(
        "build",
        help="make the file for the sites from a GWAS table",
        description="Check a table of associations with the exposure, and write it with its "
        "checksum. Select independent SNPs before, or give their correlations.",
        epilog="Example: mrfast instruments build clumped.tsv --p-value 5e-8 -o instruments.json",
        allow_abbrev=False,
    )
    _add_table_options(build)
    build.add_argument(
        "--p-value",
        type=float,
        metavar="P",
        help="keep only SNPs with a smaller p-value (default: all rows)",
    )
    build.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    build.add_argument("--quiet", action="store_true", help="print nothing but errors")
    build.set_defaults(run=run_build)
    check = kinds.add_parser(
        "check",
        help="say what is wrong with a table, or sum it up",
        description="Check a table of associations with the exposure, or a file that "
        "'mrfast instruments build' wrote, and print a summary.",
        allow_abbrev=False,
    )
    _add_table_options(check)
    check.set_defaults(run=run_check, p_value=None)


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
    parser.add_argument(
        "--ld",
        metavar="FILE",
        help="square matrix of the SNPs' correlations as text, labelled by SNP (or SNP_A_G, "
        "effect and other allele) or in the order of the rows; default: independent SNPs",
    )


def run_build(options: argparse.Namespace) -> int:
    """Write the file for the sites."""
    refuse_other_document(options.output, "mrfast instruments")
    instruments = _built(options)
    instruments.save(options.output)
    if not options.quiet:
        print(instruments.summary())
        print(f"written to {options.output}: send this file to the sites")
    return 0


def run_check(options: argparse.Namespace) -> int:
    """Print a summary of a table that is right."""
    if _is_document(Path(options.table)):
        for name in ("columns", "ld"):
            if getattr(options, name) is not None:
                raise InvalidInputError(f"--{name}: expected a text table with it, received JSON")
        print(read_instruments(options.table).summary())
    else:
        print(_built(options).summary())
    return 0


def read_instruments(path: str) -> InstrumentTable:
    """Read the file of instruments.

    Parameters
    ----------
    path : str

    Returns
    -------
    InstrumentTable

    Raises
    ------
    InvalidInputError
        The file is damaged or another one; a text table is told what to do.
    OSError
        The file cannot be read.
    """
    from mrfast.data.instruments import InstrumentTable

    if not _is_document(Path(path)):
        raise InvalidInputError(
            f"--instruments: expected a file of 'mrfast instruments build', received {path}"
        )
    return InstrumentTable.load(path)


def refuse_other_document(path: str, kind: str) -> None:
    """Refuse to replace a file that is not a document of mrfast of this kind.

    Parameters
    ----------
    path : str
        File to be written.
    kind : str
        As in `mrfast._files.write_document`.

    Raises
    ------
    InvalidInputError
        There is another file, or a folder.
    """
    target = Path(path)
    if not target.exists():
        if not target.parent.is_dir():
            raise InvalidInputError(
                f"--output: expected a file in an existing folder, received {path}"
            )
        return
    if target.is_dir():
        raise InvalidInputError(f"--output: expected a file, received the folder {path}")
    with target.open("rb") as stream:
        start = stream.read(_START)
    if f'"kind": "{kind}"'.encode() not in start:
        raise InvalidInputError(
            f"--output: expected a new file or one of the same kind, received {path}, which holds "
            "something else"
        )


def _is_document(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(_START).lstrip().startswith(b"{")


def _built(options: argparse.Namespace) -> InstrumentTable:
    """Table of instruments from the associations that the options name."""
    from mrfast import _validation as check
    from mrfast.data.instruments import InstrumentTable
    from mrfast.io.tables import parse_columns, read_associations

    with options_named({"columns": "--columns"}):
        columns = None if options.columns is None else parse_columns(options.columns)
        frame = read_associations(options.table, columns=columns)
    kept = frame
    if options.p_value is not None:
        threshold = check.scalar("--p-value", options.p_value, above=0, maximum=1)
        if "p_value" not in frame.columns:
            raise InvalidInputError(f"--p-value: expected a p-value in {options.table}")
        kept = frame[frame["p_value"] < threshold]
        if not len(kept):
            smallest = frame["p_value"].min()
            raise InvalidInputError(
                f"--p-value: expected a SNP with a p-value below {threshold:g}, received none; "
                f"the smallest is {smallest:.2g}"
            )
    name = Path(options.table).name
    with options_named({"frame": name, "ld": "--ld"}):
        return InstrumentTable.from_frame(kept, ld=_correlations(options, kept, frame))


def _correlations(
    options: argparse.Namespace, kept: pd.DataFrame, frame: pd.DataFrame
) -> Float | None:
    from mrfast.io.ld_matrix import candidate_correlations

    if options.ld is None:
        return None
    rows = kept.assign(swapped=False, alleles="")
    return candidate_correlations(Path(options.ld), rows, frame, Path(options.table).name)
