"""What the commands share: the options for a pair of association tables, and messages."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

    from mrfast.data.harmonisation import Harmonised

__all__ = [
    "add_association_options",
    "add_harmonisation_options",
    "check_two_studies",
    "chosen_action",
    "files_of",
    "listed",
    "options_named",
    "read_role",
    "read_tables",
    "reason_lines",
]

_ROLES = ("exposure", "outcome")
_LISTED = 5
_COLUMNS_EXAMPLE = '"beta=b,std_error=se"'


def add_association_options(
    parser: argparse.ArgumentParser, *, several: bool = False, required: bool = True
) -> None:
    """Add the options that name the two tables and their columns.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    several : bool, default False
        Take several files for a role, each a trait of its own.
    required : bool, default True
    """
    group = parser.add_argument_group(
        "association tables",
        "Text files with a header, separated by tabs, commas, semicolons or blanks, plain or "
        "compressed. Columns are recognised by the names that GWAS programs give them. One file "
        "that holds both studies may be given twice, with the columns of each.",
    )
    for role in _ROLES:
        group.add_argument(
            f"--{role}",
            required=required,
            metavar="FILE",
            nargs="+" if several else None,
            help=f"associations with the {role}"
            + ("; of several files each is a trait, named by its file" if several else ""),
        )
    group.add_argument(
        "--columns",
        metavar="PAIRS",
        help=f"columns of both files, such as {_COLUMNS_EXAMPLE}, where their names are not known",
    )
    for role in _ROLES:
        group.add_argument(
            f"--{role}-columns",
            metavar="PAIRS",
            help=f"columns of the {role}'s file, where they differ from --columns",
        )


def add_harmonisation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mrfast.harmonise`."""
    group = parser.add_argument_group("harmonisation")
    group.add_argument(
        "--action",
        type=int,
        choices=(1, 2, 3),
        help="palindromic SNPs: 1 trust the letters (default where one file gives the alleles of "
        "both studies), 2 read the strand off the allele frequencies and drop those left open "
        "(default otherwise), 3 drop all",
    )
    group.add_argument(
        "--eaf-tolerance",
        type=float,
        default=0.08,
        metavar="X",
        help="a frequency nearer to 0.5 than this does not tell the strand (default %(default)s)",
    )


def read_tables(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the two tables that the options name.

    Parameters
    ----------
    options : argparse.Namespace
        With the options of `add_association_options`.

    Returns
    -------
    exposure, outcome : DataFrame
        Where a role has several files, each without a trait is one, named by its file.

    Raises
    ------
    InvalidInputError
        A file or an option is not valid.
    OSError
        A file cannot be read.
    """
    exposure, outcome = (read_role(options, role) for role in _ROLES)
    check_two_studies(options, exposure, outcome)
    return exposure, outcome


def read_role(
    options: argparse.Namespace,
    role: str,
    chosen: Callable[[str, pd.DataFrame], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Read the files of a role.

    Parameters
    ----------
    options : argparse.Namespace
        With the options of `add_association_options`.
    role : {"exposure", "outcome"}
    chosen : callable, optional
        From the path and the table of a file to the rows to be used: the others need not stay in
        memory while further files are read.

    Returns
    -------
    DataFrame
        Of several files each without a trait is one, named by its file.

    Raises
    ------
    InvalidInputError
        A file or an option is not valid.
    OSError
        A file cannot be read.
    """
    from mrfast.io.tables import parse_columns, read_associations

    columns: dict[str, str] = {}
    own = f"{role}_columns"
    for name in ("columns", own):
        text = getattr(options, name)
        if text is not None:
            with options_named({"columns": _option(name)}):
                columns |= parse_columns(text)
    given = [_option(name) for name in ("columns", own) if getattr(options, name) is not None]
    files, tables = files_of(options, role), []
    for file in files:
        with options_named({"columns": " or ".join(given or [_option(own)])}):
            table = read_associations(file, columns=columns or None, role=role)
        if len(files) > 1 and "trait" not in table.columns:
            table = table.assign(trait=Path(file).name.partition(".")[0])
        tables.append(table if chosen is None else chosen(file, table))
    return tables[0] if len(tables) == 1 else _stacked(f"--{role}", tables)


def check_two_studies(
    options: argparse.Namespace, exposure: pd.DataFrame, outcome: pd.DataFrame
) -> None:
    """Refuse the same columns of one file as both studies."""
    values = ["beta", "std_error"]
    if _same_file(options) and exposure[values].equals(outcome[values]):
        raise InvalidInputError(
            f"--exposure, --outcome: expected two studies, received the same columns of "
            f"{Path(files_of(options, 'exposure')[0]).name} twice; name them with "
            "--exposure-columns and --outcome-columns"
        )


def chosen_action(
    options: argparse.Namespace, exposure: pd.DataFrame, outcome: pd.DataFrame
) -> int:
    """Treatment of palindromes: the option, or what suits the tables.

    Where one file gives one set of alleles for both studies, these are aligned already.
    """
    if options.action is not None:
        return int(options.action)
    alleles = [name for name in ("effect_allele", "other_allele") if name in exposure.columns]
    aligned = _same_file(options) and all(
        name in outcome.columns
        and exposure[name].astype(object).equals(outcome[name].astype(object))
        for name in alleles
    )
    return 1 if aligned else 2


def files_of(options: argparse.Namespace, role: str) -> list[str]:
    """Files of a role: one, or several where the command takes them.

    Parameters
    ----------
    options : argparse.Namespace
    role : {"exposure", "outcome"}

    Returns
    -------
    list of str
    """
    files = getattr(options, role)
    return [files] if isinstance(files, str) else list(files)


def _stacked(option: str, tables: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, each with traits of its own."""
    import pandas as pd

    traits = [str(trait) for table in tables for trait in table["trait"].astype(str).unique()]
    twice = sorted({trait for trait in traits if traits.count(trait) > 1})
    if twice:
        raise InvalidInputError(
            f"{option}: expected files of different traits, received {listed(twice)} more than "
            "once (a file without a column trait is called by its name)"
        )
    return pd.concat([table.astype({"trait": object}) for table in tables], ignore_index=True)


def _same_file(options: argparse.Namespace) -> bool:
    exposure, outcome = (files_of(options, role) for role in _ROLES)
    if len(exposure) > 1 or len(outcome) > 1:
        return False
    return Path(exposure[0]).resolve() == Path(outcome[0]).resolve()


@contextmanager
def options_named(options: Mapping[str, str]) -> Iterator[None]:
    """Put the name of an option in the place of a function's argument in error messages."""
    try:
        yield
    except InvalidInputError as error:
        argument, colon, rest = str(error).partition(":")
        name, bracket, place = argument.partition("[")
        if not colon or name not in options:
            raise
        raise InvalidInputError(f"{options[name]}{bracket}{place}:{rest}") from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def listed(names: list[str]) -> str:
    """First few names, and how many more there are."""
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def reason_lines(harmonised: Harmonised) -> list[str]:
    """Describe the numbers of rows by reason, kept ones first."""
    reasons = harmonised.reasons.groupby("reason", sort=False).agg(
        {"rows": "sum", "meaning": "first"}
    )
    width = len(f"{reasons['rows'].max():,}")
    return [
        f"{count:>{width},}  {reason}: {meaning}"
        for reason, count, meaning in zip(
            reasons.index, reasons["rows"], reasons["meaning"], strict=True
        )
    ]
