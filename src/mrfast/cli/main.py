"""Entry point of the ``mrfast`` command.

Exit codes: 0 done, 1 the computation failed, 2 bad input, 130 interrupted by Ctrl-C; 141 when
the reader of the output went away. Every error is one line on standard error.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from mrfast.cli import (
    estimate_command,
    example_command,
    harmonise_command,
    instruments_command,
    massive_command,
    mr_command,
    nonlinear_command,
    phewas_command,
    pool_command,
    presso_command,
    selection_command,
    simulate_command,
    site_command,
)
from mrfast.errors import InvalidInputError, MissingExtraError, MrfastError

__all__ = ["build_parser", "main"]

_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are those of the package, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInputError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    """Print the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        from mrfast import __version__

        print(f"mrfast {__version__}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line.

    Returns
    -------
    argparse.ArgumentParser
        The options that it returns have ``run``, the function of the subcommand.
    """
    parser = _Parser(
        prog="mrfast",
        description="Mendelian randomization from the command line.",
        epilog="Start with: mrfast example summary -o example (or massive, or federated)",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        massive_command,
        instruments_command,
        site_command,
        pool_command,
        estimate_command,
        selection_command,
        harmonise_command,
        mr_command,
        presso_command,
        nonlinear_command,
        phewas_command,
        simulate_command,
        example_command,
    ):
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        Exit code. ``--help`` and ``--version`` raise SystemExit, as argparse has it.
    """
    try:
        words = _with_negative_numbers(sys.argv[1:] if arguments is None else arguments)
        options = build_parser().parse_args(words)
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        return _say(f"interrupted{f'; {interrupt}' if str(interrupt) else ''}", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no complaint at exit
        return 141
    except (InvalidInputError, MissingExtraError) as error:
        return _say(f"error: {error}", 2)
    except MrfastError as error:
        return _say(f"error: {error}", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _say(f"error: {where}{error.strerror or error}", 2)
    return code


def _say(message: str, code: int) -> int:
    print(f"mrfast: {' '.join(message.splitlines())}", file=sys.stderr)
    return code


def _with_negative_numbers(words: Sequence[str]) -> list[str]:
    """Tie values such as -3e-2 and -0.1,-0.2,0 to their option, which argparse would not do."""
    result: list[str] = []
    for word in words:
        if _NUMBER.match(word) and result and re.fullmatch(r"--[a-z-]+", result[-1]):
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result
