"""``mrfast simulate``: people of a scenario of nonlinear MR, with the truth."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from mrfast.simulation import NonlinearScenario

__all__ = ["add_parser", "run"]


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "simulate",
        help="simulate people with a known nonlinear effect",
        description="Simulate instruments, exposure and outcome of people, with a known effect "
        "that need not be linear, and write them with their parameters.",
        epilog="example: mrfast simulate tian_A2 -n 10000 --seed 1 -o data/tian",
        allow_abbrev=False,
    )
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO", help="name; --list shows them")
    parser.add_argument("--list", action="store_true", help="list the scenarios and exit")
    parser.add_argument(
        "-n",
        "--people",
        type=float,
        default=10_000,
        metavar="N",
        help="number of people (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the simulation (default %(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="option of the scenario, such as h2=0.2 or curve=sine; may be given several times",
    )
    parser.add_argument(
        "--form",
        default="csv.gz",
        choices=("csv.gz", "parquet"),
        help="of the table (default %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PREFIX",
        help="the files are PREFIX_sim_data.csv.gz (or .parquet) and PREFIX_sim_parameters.json",
    )
    parser.add_argument(
        "--replace", action="store_true", help="replace files of these names that exist"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Simulate, write the files, and say what they hold."""
    from mrfast import _validation as check
    from mrfast.simulation import NONLINEAR_SCENARIOS

    if options.list:
        width = max(map(len, NONLINEAR_SCENARIOS))
        for scenario in NONLINEAR_SCENARIOS.values():
            print(f"{scenario.name:<{width}}  {scenario.meaning}{_open_options(scenario)}")
        return 0
    if options.scenario is None:
        raise InvalidInputError("SCENARIO: expected a name (mrfast simulate --list), received none")
    if options.scenario not in NONLINEAR_SCENARIOS:
        raise InvalidInputError(
            "SCENARIO: expected a name that mrfast simulate --list shows, received "
            f"{options.scenario!r}"
        )
    if options.output is None:
        raise InvalidInputError("--output: expected a prefix for the files, received none")
    people = check.integer("--people", options.people, minimum=1)
    seed = check.integer("--seed", options.seed, minimum=0)
    scenario = NONLINEAR_SCENARIOS[options.scenario]
    settings = _settings(scenario, options.settings)
    paths = [
        Path(f"{options.output}_sim_{name}") for name in (f"data.{options.form}", "parameters.json")
    ]
    taken = [path for path in paths if path.exists()]
    if taken and not options.replace:
        raise InvalidInputError(
            f"--output: expected a prefix without files, or --replace, received {taken[0]}"
        )
    try:
        data = scenario(people, rng=seed, **settings)
    except InvalidInputError as error:
        raise InvalidInputError(f"--set, --people: {error}") from error
    data.save(options.output, form=options.form, progress=not options.quiet)
    if not options.quiet:
        p = data.instruments.shape[1]
        print(f"{scenario.meaning}; {people:,} people, seed {seed}")
        columns = [f"{p} instrument{'s' if p > 1 else ''}", "exposure", "outcome"]
        columns += [*data.covariate_names]
        columns += ["sample_weight"] * (data.sample_weight is not None)
        columns += ["cluster"] * (data.clusters is not None)
        print(f"  {paths[0]}: {', '.join(columns)}")
        print(f"  {paths[1]}: parameters, seed and the true effect")
        truth = data.expression or "a table in the file of parameters"
        print(f"true effect of the exposure x: {truth}")
    return 0


def _open_options(scenario: NonlinearScenario) -> str:
    names = ", ".join(f"{name}={_text(value)}" for name, value in scenario.options.items())
    return f" ({names})" if names else ""


def _text(value: object) -> str:
    """Value in the form that ``--set`` takes."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _settings(scenario: NonlinearScenario, texts: list[str]) -> dict[str, Any]:
    """What ``--set`` says, by name."""
    known = scenario.options
    result: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InvalidInputError(f"--set: expected NAME=VALUE, received {text!r}")
        if name not in known:
            names = ", ".join(known) or "none"
            raise InvalidInputError(
                f"--set: expected an option of {scenario.name} ({names}), received {name!r}"
            )
        if name in result:
            raise InvalidInputError(f"--set: expected {name} once, received it more than once")
        result[name] = _value(value.strip())
    return result


def _value(text: str) -> Any:
    """Number, true or false, list of numbers with commas, or text."""
    if "," in text:
        return tuple(_value(part.strip()) for part in text.split(","))
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float)) else text  # null is a curve
