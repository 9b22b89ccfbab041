"""What the commands of ``mrfast nonlinear`` share: people from a table, options of estimators."""

from __future__ import annotations

import argparse
import ast
import fnmatch
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mrfast.cli.association_options import listed
from mrfast.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mrfast.nonlinear.estimator import InstrumentalVariableEstimator
    from mrfast.nonlinear.iv_data import IVData

__all__ = [
    "ARGUMENTS",
    "DEFAULT_ESTIMATOR",
    "add_data_options",
    "add_estimator_options",
    "domain_of",
    "estimator_options",
    "json_text",
    "new_estimator",
    "plain_value",
    "read_people",
    "saved_estimator",
    "subparser",
]

ARGUMENTS = {
    "instruments": "--instruments",
    "exposure": "--exposure",
    "outcome": "--outcome",
    "covariates": "--covariates",
    "sample_weight": "--weights",
    "clusters": "--clusters",
    "estimator": "--estimator",
    "parameters": "--options",
    "interval": "--interval",
    "level": "--level",
    "domain": "--domain",
    "true_effect": "--true-function",
    "text": "--true-function",
    "n_points": "--points",
    "reference": "--reference",
}
"""Arguments in messages, as options."""

DEFAULT_ESTIMATOR = "sieve_iv"
_DOSAGES = (2, -1, 1, 0)  # copies of allele 1 by PLINK's two bits
_COMPOSED = ("ensemble", "rescaled")


class _ListEstimators(argparse.Action):
    """Print the estimators with their options and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        import inspect

        from mrfast.nonlinear.estimator_names import MODELS, estimator_class

        for name in MODELS:
            if name in _COMPOSED:
                continue
            try:
                kind = estimator_class(name)
            except MissingExtraError as error:
                print(f"{name}\n    not installed: {error}")
                continue
            first = (inspect.getdoc(kind) or "").partition("\n")[0]
            print(f"{name}\n    {first}")
            for option in list(inspect.signature(kind.__init__).parameters.values())[1:]:
                print(f"      {option.name}={option.default!r}")
        parser.exit()


def subparser(
    commands: _SubParsersAction[argparse.ArgumentParser], name: str, text: str, example: str
) -> argparse.ArgumentParser:
    """Parser of one action."""
    return commands.add_parser(
        name,
        help=f"{text[0].lower()}{text[1:].partition('.')[0]}",
        description=text,
        epilog=f"Example: {example}",
        allow_abbrev=False,
    )


def add_data_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options that say who is analysed."""
    group = parser.add_argument_group(
        "data", "A table with a row for each person; rows with a missing value are left out."
    )
    group.add_argument(
        "-d",
        "--data",
        required=required,
        metavar="FILE",
        help="text with a header (tabs, commas or semicolons, plain or compressed) or parquet",
    )
    group.add_argument(
        "-z",
        "--instruments",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="columns; a pattern such as 'v*' stands for all that match",
    )
    group.add_argument("-x", "--exposure", required=required, metavar="NAME", help="column")
    group.add_argument("-y", "--outcome", required=required, metavar="NAME", help="column")
    group.add_argument(
        "--covariates",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="columns or patterns",
    )
    group.add_argument("--weights", metavar="NAME", help="column with weights of the people")
    group.add_argument(
        "--clusters", metavar="NAME", help="column with families, or other dependent groups"
    )
    group.add_argument(
        "--genotypes",
        metavar="PREFIX",
        help="PLINK files (.bed, .bim, .fam) whose dosages are instruments beside --instruments; "
        "a missing one is replaced by the variant's mean",
    )
    group.add_argument(
        "--variants", metavar="FILE", help="names of the variants to take from them, one a line"
    )
    group.add_argument(
        "--person",
        default="person_id",
        metavar="NAME",
        help="column with PLINK's person identifiers (default %(default)s)",
    )


def add_estimator_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which estimator."""
    group = parser.add_argument_group("estimator")
    group.add_argument(
        "--estimator",
        default=DEFAULT_ESTIMATOR,
        metavar="NAME",
        help="default %(default)s; see --list-estimators",
    )
    group.add_argument(
        "--list-estimators",
        action=_ListEstimators,
        nargs=0,
        help="print the estimators with their options and exit",
    )
    group.add_argument(
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="options of the estimator, as in Python, such as penalty=2 'hidden=(64,32)'",
    )


def estimator_options(words: list[str]) -> dict[str, Any]:
    """Options of the form ``name=value``; values as Python writes them, or texts.

    Parameters
    ----------
    words : list of str

    Returns
    -------
    dict

    Raises
    ------
    InvalidInputError
        One is malformed or comes twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not name.isidentifier() or name in found:
            raise InvalidInputError(
                f"--options: expected different pairs such as penalty=2, received {word!r}"
            )
        found[name] = plain_value(text)
    return found


def plain_value(text: str) -> Any:
    """Number, tuple, True, False or None as Python writes them; a text otherwise."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def new_estimator(name: str, options: dict[str, Any]) -> InstrumentalVariableEstimator:
    """Estimator of a name with options.

    Raises
    ------
    InvalidInputError
        The name or an option is not known, or a value is not usable.
    MissingExtraError
        It needs an extra that is not installed.
    """
    import inspect

    from mrfast.nonlinear.estimator_names import MODELS, estimator_class

    names = [model for model in MODELS if model not in _COMPOSED]
    if name not in names:
        raise InvalidInputError(
            f"--estimator: expected one of {', '.join(names)}, received {name!r}"
        )
    kind = estimator_class(name)
    known = list(inspect.signature(kind.__init__).parameters)[1:]
    for option in options:
        if option not in known:
            raise InvalidInputError(
                f"--options: expected options of {name} ({', '.join(known)}), received {option!r}"
            )
    return kind(**options)


def read_people(options: argparse.Namespace) -> IVData:
    """People of the table, with dosages of PLINK files if asked for.

    Parameters
    ----------
    options : argparse.Namespace
        With the options of `add_data_options`.

    Returns
    -------
    IVData

    Raises
    ------
    InvalidInputError
        A column or person is not there, or a file is not usable.
    OSError
        A file cannot be read.
    """
    from mrfast.io.tables import read_frame
    from mrfast.nonlinear.iv_data import IVData

    texts = (options.person,) if options.genotypes is not None else ()
    table = read_frame(options.data, texts=texts)
    instruments = _columns("--instruments", options.instruments, table)
    if options.genotypes is not None:
        table, variants = _with_genotypes(table, options)
        instruments += variants
    elif options.variants is not None:
        raise InvalidInputError("--variants: expected --genotypes with it, received none")
    if not instruments:
        raise InvalidInputError("--instruments: expected at least one column, received none")
    return IVData.from_frame(
        table,
        instruments=instruments,
        exposure=options.exposure,
        outcome=options.outcome,
        covariates=_columns("--covariates", options.covariates, table),
        sample_weight=options.weights,
        clusters=options.clusters,
    )


def _columns(option: str, names: list[str], table: pd.DataFrame) -> list[str]:
    """Columns of names and patterns, each once."""
    found: list[str] = []
    for name in names:
        matching = [name]
        if name not in table.columns:
            matching = [str(c) for c in table.columns if fnmatch.fnmatchcase(str(c), name)]
        if not matching:
            raise InvalidInputError(
                f"{option}: expected columns of the table, received {name!r}, not among "
                f"{listed([str(column) for column in table.columns])}"
            )
        found += matching
    return list(dict.fromkeys(found))


def _with_genotypes(
    table: pd.DataFrame, options: argparse.Namespace
) -> tuple[pd.DataFrame, list[str]]:
    """Table of the people that PLINK's files have too, and the names of their dosages."""
    import sys

    import numpy as np
    import pandas as pd

    from mrfast.io.plink import PlinkFiles

    files = PlinkFiles(options.genotypes)
    if options.person not in table.columns:
        raise InvalidInputError(
            f"--person: expected a column of the table, received {options.person!r}"
        )
    people = table[options.person].astype(str)
    place = pd.Index(files.persons["person"].astype(str)).get_indexer(people)
    if people.duplicated().any() or files.persons["person"].duplicated().any():
        raise InvalidInputError("--person: expected every person once, received one twice")
    if not (place >= 0).any():
        raise InvalidInputError(
            f"--person: expected identifiers of {files.prefix.name}.fam, received "
            f"{listed(people.tolist())}"
        )
    rows = np.arange(len(files.variants))
    if options.variants is not None:
        try:
            wanted = Path(options.variants).read_text(encoding="utf-8").split()
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"--variants: expected a text file, received {options.variants}"
            ) from error
        rows = pd.Index(files.variants["snp"].astype(str)).get_indexer(pd.Index(wanted))
        if (rows < 0).any():
            lacking = [name for name, row in zip(wanted, rows, strict=True) if row < 0]
            raise InvalidInputError(
                f"--variants: expected variants of the files, received {listed(lacking)}"
            )
    names = files.variants["snp"].astype(str).iloc[rows].tolist()
    clash = [name for name in names if name in table.columns]
    if clash or len(set(names)) < len(names):
        raise InvalidInputError(
            f"--genotypes: expected names that occur once, received {listed(clash or names)}"
        )
    kept = place >= 0
    dosages, missing = _dosages(files.packed(rows), place[kept])
    notes = []
    if not kept.all():
        notes.append(f"{int((~kept).sum()):,} people without genotypes are left out")
    if missing:
        notes.append(f"{missing:,} missing genotypes are replaced by the variants' means")
    if not options.quiet:
        for note in notes:
            print(f"mrfast: note: {note}", file=sys.stderr)
    genotypes = pd.DataFrame(dosages, columns=names, copy=False)
    own = table.loc[kept].reset_index(drop=True)
    return pd.concat([own, genotypes], axis=1), names


def _dosages(packed: NDArray[np.uint8], people: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Copies of allele 1, (people, variants), and how many were missing."""
    import numpy as np

    bits = (packed[:, people // 4] >> (2 * (people % 4)).astype(np.uint8)) & 3
    dosages = np.ascontiguousarray(np.array(_DOSAGES, dtype=np.int8)[bits].T)
    absent = dosages < 0
    missing = int(absent.sum())
    if not missing:
        return dosages, 0
    counts = (~absent).sum(axis=0)
    means = np.where(absent, 0, dosages).sum(axis=0) / np.maximum(counts, 1)
    return np.where(absent, means, dosages).astype(np.float32), missing


def saved_estimator(folder: str | Path) -> InstrumentalVariableEstimator:
    """Estimator of a folder that `save` or ``mrfast nonlinear fit`` wrote.

    Raises
    ------
    InvalidInputError
        There is none.
    """
    from mrfast.nonlinear.fitted_files import load

    place = Path(folder)
    for candidate in (place, place / "model"):
        if (candidate / "meta.json").is_file():
            return load(candidate)
    raise InvalidInputError(
        f"--input: expected a folder of 'mrfast nonlinear fit' or of save(), received {folder}"
    )


def domain_of(text: str) -> str | tuple[float, float]:
    """``95``, ``99``, ``range``, or two numbers separated by a comma."""
    if text in ("95", "99", "range"):
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidInputError(
            f"--domain: expected 95, 99, range or low,high, received {text!r}"
        ) from None
    return low, high


def json_text(content: Any) -> str:
    """JSON with null for what is not a finite number."""
    from mrfast._files import nullable_json

    return json.dumps(nullable_json(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
