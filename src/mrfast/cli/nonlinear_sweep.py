"""``mrfast nonlinear sweep``: choose an estimator's options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrfast.cli.association_options import options_named
from mrfast.cli.mr_input import refuse_other_files
from mrfast.cli.nonlinear_input import (
    ARGUMENTS,
    add_data_options,
    add_estimator_options,
    estimator_options,
    json_text,
    new_estimator,
    plain_value,
    read_people,
    subparser,
)
from mrfast.cli.site_command import can_draw, warnings_as_notes
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from mrfast.nonlinear.hyperparameter_sweep import SweepResult
    from mrfast.nonlinear.parameter_samplers import ParameterSampler

__all__ = ["add_parser", "run"]

_FORMAT = "mrfast nonlinear sweep"
_LABEL = f'"format": "{_FORMAT}"'
_FILES = {
    "runs.csv": "every run with its options, risk, width of the limits, time and error",
    "summary.txt": "the best run and what to know, in words",
    "summary.json": "the same for programs, with the configuration",
    "sweep.png": "the criterion against the options",
    "sweep_best": "the best options fitted to all people, for mrfast.nonlinear.load",
    "sweep.sqlite": "the runs; the same command goes on from it",
}
_OPTIONS = {
    **ARGUMENTS,
    "method": "--method",
    "n_runs": "--runs",
    "rng": "--seed",
    "n_workers": "--workers",
    "criterion": "--criterion",
    "held_out": "--held-out",
    "database": "--output",
}
_EXAMPLES = {
    "values": "NAME=A,B,C",
    "grid": "NAME=START:STOP:COUNT",
    "log-grid": "NAME=START:STOP:COUNT",
    "uniform": "NAME=LOW:HIGH",
    "log-uniform": "NAME=LOW:HIGH",
    "integers": "NAME=LOW:HIGH",
}
_MEANINGS = {
    "values": "these values",
    "grid": "equally spaced values",
    "log-grid": "values equally spaced on the logarithmic scale",
    "uniform": "random numbers",
    "log-uniform": "random numbers whose logarithm is uniform",
    "integers": "random whole numbers, ends included",
}


def add_parser(actions: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action."""
    parser = subparser(
        actions,
        "sweep",
        "Choose an estimator's options. Fits with all of them to the same people, judges each on "
        "others, and fits the best to all. The same command goes on after an interruption.",
        "mrfast nonlinear sweep --data people.csv.gz --instruments 'v*' --exposure x --outcome y "
        "--estimator quantile_iv --log-uniform learning_rate=1e-4:1e-2 --runs 20 -o results",
    )
    add_data_options(parser, required=False)
    add_estimator_options(parser)
    group = parser.add_argument_group("options to sweep")
    for kind, example in _EXAMPLES.items():
        group.add_argument(
            f"--{kind}",
            nargs="+",
            action="extend",
            default=[],
            metavar=example,
            help=_MEANINGS[kind],
        )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="ml-mr's JSON configuration, instead of the data, the estimator and the options above",
    )
    group = parser.add_argument_group("sweep")
    group.add_argument(
        "--method",
        choices=("grid", "random"),
        help="all combinations, or --runs draws (default: a grid unless an option is random)",
    )
    group.add_argument("--runs", type=int, metavar="N", help="of a random sweep, or part of a grid")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="default %(default)s")
    group.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default %(default)s)"
    )
    group.add_argument(
        "--criterion",
        choices=("risk", "interval_width"),
        default="risk",
        help="of the best run (default %(default)s)",
    )
    group.add_argument(
        "--held-out",
        type=float,
        default=0.2,
        metavar="X",
        help="share of the people that runs are judged on (default %(default)s)",
    )
    group.add_argument("--interval", metavar="KIND", help="limits whose width is kept")
    group.add_argument("--level", type=float, default=0.95, help="of the limits (default 0.95)")
    group.add_argument("--retry-failed", action="store_true", help="run failed ones again")
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder for the results; only files of their names are replaced in it",
    )
    group.add_argument("--no-plot", action="store_true", help="draw no figure")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Sweep, write the folder, print the best run."""
    with options_named(_OPTIONS):
        return _sweep(options)


def _sweep(options: argparse.Namespace) -> int:
    from mrfast.nonlinear.hyperparameter_sweep import sweep

    folder = Path(options.output)
    refuse_other_files(folder, list(_FILES), "summary.json", _LABEL)
    with warnings_as_notes(options.quiet):
        arguments = _configured(options) if options.config is not None else _asked_for(options)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "summary.json").exists():  # marks the folder as ours from the start
            _write_text(folder / "summary.json", json_text({"format": _FORMAT}))
        result = sweep(
            **arguments,
            rng=options.seed,
            n_workers=options.workers,
            database=folder / "sweep.sqlite",
            criterion=options.criterion,
            held_out=options.held_out,
            interval=options.interval,
            level=options.level,
            retry_failed=options.retry_failed,
            progress=not options.quiet,
        )
    draw = can_draw(options)
    _write(folder, result, draw)
    if not options.quiet:
        print(result)
        print(f"\nwritten to {folder}:")
        for name, meaning in _FILES.items():
            if draw or name != "sweep.png":
                print(f"  {name:<13} {meaning}")
    return 0


def _configured(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of ml-mr's file."""
    from mrfast.nonlinear.sweep_configurations import sweep_configuration

    names = ("data", "exposure", "outcome", "instruments", "covariates", "options", *_EXAMPLES)
    given = [f"--{name}" for name in names if getattr(options, name.replace("-", "_"))]
    if given:
        raise InvalidInputError(f"{given[0]}: expected none with --config")
    arguments = sweep_configuration(options.config)
    if options.method is not None:
        arguments["method"] = options.method
    if options.runs is not None:
        arguments["n_runs"] = options.runs
    del arguments["database"]
    return arguments


def _asked_for(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the options."""
    for name in ("data", "exposure", "outcome"):
        if getattr(options, name) is None:
            raise InvalidInputError(f"--{name}: expected one, or --config, received neither")
    samplers = _samplers(options)
    if not samplers:
        raise InvalidInputError("--values: expected options to sweep, received none")
    fixed = estimator_options(options.options)
    twice = [name for name in fixed if name in samplers]
    if twice:
        raise InvalidInputError(f"--options: expected options not swept, received {twice[0]}")
    return {
        "estimator": new_estimator(options.estimator, fixed),
        "parameters": samplers,
        "data": read_people(options),
        "method": options.method,
        "n_runs": options.runs,
    }


def _samplers(options: argparse.Namespace) -> dict[str, ParameterSampler]:
    from mrfast.nonlinear.parameter_samplers import (
        Grid,
        RandomUniform,
        RandomUniformInt,
        Values,
    )

    found: dict[str, ParameterSampler] = {}
    for kind, example in _EXAMPLES.items():
        option = f"--{kind}"
        for word in getattr(options, kind.replace("-", "_")):
            name, equals, text = (part.strip() for part in word.partition("="))
            if not equals or not name.isidentifier() or not text or name in found:
                raise InvalidInputError(
                    f"{option}: expected {example} for different options, received {word!r}"
                )
            with options_named(
                dict.fromkeys(("start", "stop", "n_values", "low", "high", "items", "log"), option)
            ):
                if kind == "values":
                    found[name] = Values([plain_value(part) for part in _separated(text)])
                    continue
                parts = _numbers(option, example, text)
                low, high = parts[:2]
                log = kind.startswith("log-")
                if kind == "integers":
                    found[name] = RandomUniformInt(low, high)
                elif kind.endswith("uniform"):
                    found[name] = RandomUniform(low, high, log=log)
                else:
                    found[name] = Grid(low, high, parts[2], log=log)
    return found


def _separated(text: str) -> list[str]:
    """Parts between commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _numbers(option: str, example: str, text: str) -> list[Any]:
    parts = [plain_value(part) for part in text.split(":")]
    number = all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in parts)
    if not number or len(parts) != 1 + example.count(":"):
        raise InvalidInputError(f"{option}: expected {example}, received {text!r}")
    return parts


def _write(folder: Path, result: SweepResult, draw: bool) -> None:
    from mrfast.io.tables import write_table

    table = result.to_frame()
    best = table[table["run"] == result.best_run].to_dict("records")[0]
    content = {
        "format": _FORMAT,
        "criterion": result.criterion,
        "best_run": result.best_run,
        "best_options": result.best_parameters,
        **{name: best[name] for name in ("risk", "risk_std_error", "interval_width")},
        "runs_done": result.n_done,
        "runs_failed": result.n_failed,
        "messages": list(result.messages),
        "configuration": result.configuration,
        "summary": result.best.summary().to_dict(),
    }
    _write_text(folder / "summary.json", json_text(content))
    _write_text(folder / "summary.txt", f"{result}\n\n{result.best.summary()}\n")
    write_table(table, folder / "runs.csv")
    if draw:
        result.plot().savefig(folder / "sweep.png", format="png")
    else:
        (folder / "sweep.png").unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    from mrfast._files import replace_file

    replace_file(path, text.encode())
