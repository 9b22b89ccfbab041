"""``mrfast nonlinear``: causal curves from individual data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrfast.cli import nonlinear_sweep
from mrfast.cli.association_options import options_named
from mrfast.cli.mr_input import refuse_other_files
from mrfast.cli.nonlinear_input import (
    ARGUMENTS,
    add_data_options,
    add_estimator_options,
    domain_of,
    estimator_options,
    json_text,
    new_estimator,
    read_people,
    saved_estimator,
    subparser,
)
from mrfast.cli.site_command import can_draw, warnings_as_notes
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import pandas as pd

    from mrfast.nonlinear.estimator import InstrumentalVariableEstimator
    from mrfast.nonlinear.iv_data import IVData

__all__ = ["add_parser", "run_evaluate", "run_fit"]

_FORMAT = "mrfast nonlinear fit"
_LABEL = f'"format": "{_FORMAT}"'
_FILES = {
    "estimate.csv": "the curve with its limits on a grid",
    "summary.txt": "what the fit found, in words",
    "summary.json": "the same for programs, with the options",
    "curve.png": "the curve over the exposure's histogram",
    "model": "the fitted estimator, for 'mrfast nonlinear evaluate' and mrfast.nonlinear.load",
}


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand with its actions."""
    parser = commands.add_parser(
        "nonlinear",
        help="causal effect of an exposure as a curve, from individual data",
        description="Nonlinear Mendelian randomization: the outcome that setting the exposure to "
        "each value would cause, from people with instruments, exposure and outcome.",
        epilog="Start with: mrfast example nonlinear -o example",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(title="actions", metavar="COMMAND", required=True)
    _add_fit(actions)
    _add_evaluate(actions)
    nonlinear_sweep.add_parser(actions)


def _add_fit(actions: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparser(
        actions,
        "fit",
        "Estimate a causal curve. The folder then holds the curve as a table and a figure, what "
        "the fit found, and the fitted estimator.",
        "mrfast nonlinear fit --data people.csv.gz --instruments 'v*' --exposure x --outcome y "
        "-o results",
    )
    add_data_options(parser)
    add_estimator_options(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--interval",
        metavar="KIND",
        help="limits of the curve: uniform, bootstrap, pointwise or conformal, as far as the "
        "estimator has them, or none (default: the first it has)",
    )
    group.add_argument("--level", type=float, default=0.95, help="of the limits (default 0.95)")
    group.add_argument(
        "--points",
        type=int,
        default=201,
        metavar="N",
        help="rows of estimate.csv, over the domain (default %(default)s)",
    )
    group.add_argument(
        "--domain",
        default="95",
        metavar="RANGE",
        help="of estimate.csv: central 95 or 99 percent of the exposure, its range, or low,high "
        "(default %(default)s)",
    )
    group.add_argument(
        "--reference",
        type=float,
        metavar="X",
        help="also differences from the curve at this exposure, with limits",
    )
    group.add_argument(
        "--keep-covariates",
        action="store_true",
        help="keep covariates of single people in the saved estimator, where averages over them "
        "need these",
    )
    _add_last(group)
    parser.set_defaults(run=run_fit)


def _add_evaluate(actions: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparser(
        actions,
        "evaluate",
        "Compare fitted curves with a known truth. Prints a table of mean squared error, "
        "correlation, slope, and width and coverage of the limits.",
        "mrfast nonlinear evaluate --input results --true-function '0.3*(x+2)*(x-1)+1'",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        action="extend",
        metavar="FOLDER",
        help="of 'mrfast nonlinear fit', or of save() in Python",
    )
    parser.add_argument(
        "--true-function",
        required=True,
        metavar="TEXT",
        help="arithmetic of x such as '0.2*x**2' or 'lambda x: sin(x)', or file.py:name",
    )
    parser.add_argument(
        "--domain",
        nargs="+",
        action="extend",
        default=[],
        metavar="RANGE",
        help="95 and 99 (central percent of the exposure), range, or low,high, such as "
        "--domain=-1,1 (default 95)",
    )
    parser.add_argument("--points", type=int, default=2000, metavar="N", help="default %(default)s")
    parser.add_argument("--interval", metavar="KIND", help="limits to compare, such as uniform")
    parser.add_argument("--level", type=float, default=0.95, help="of the limits (default 0.95)")
    parser.add_argument(
        "--ensemble", action="store_true", help="take all folders together as one ensemble"
    )
    parser.add_argument("--plot", metavar="FILE", help="figure of the curves and the truth")
    parser.add_argument("-o", "--output", metavar="FILE", help="the table (default: printed)")
    parser.set_defaults(run=run_evaluate)


def _add_last(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder for the results; only files of their names are replaced in it",
    )
    group.add_argument("--no-plot", action="store_true", help="draw no figure")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")


# ----------------------------------------------------------------------------- fit


def run_fit(options: argparse.Namespace) -> int:
    """Read, fit, write the folder, print the summary."""
    with options_named(ARGUMENTS):
        return _fit(options)


def _fit(options: argparse.Namespace) -> int:
    from mrfast import _validation as check

    folder = Path(options.output)
    refuse_other_files(folder, list(_FILES), "summary.json", _LABEL)
    points = check.integer("n_points", options.points, minimum=2, maximum=10**6)
    level = check.scalar("level", options.level, above=0.0, below=1.0)
    domain = domain_of(options.domain)
    estimator = new_estimator(options.estimator, estimator_options(options.options))
    with warnings_as_notes(options.quiet):
        data = read_people(options)
        _fit_to(estimator, data, progress=not options.quiet)
        table, method = _estimate(estimator, domain, points, options.interval, level)
        if options.reference is not None:
            table = _with_differences(estimator, table, options, level)
        draw = can_draw(options)
        _write(folder, estimator, table, method, options, draw)
    if not options.quiet:
        print(f"{data.n:,} people, {data.p} instruments, {data.q} covariates")
        print(estimator.summary())
        print(f"\nwritten to {folder}:")
        for name, meaning in _FILES.items():
            if draw or name != "curve.png":
                print(f"  {name:<13} {meaning}")
    return 0


def _fit_to(estimator: InstrumentalVariableEstimator, data: IVData, *, progress: bool) -> None:
    """Fit; estimators that train for long show how far they are."""
    import inspect

    arguments = data.arguments
    if "progress" in inspect.signature(estimator.fit).parameters:
        arguments["progress"] = progress
    estimator.fit(**arguments)


def _kind(estimator: InstrumentalVariableEstimator, interval: str | None) -> str | None:
    kinds = estimator.curve_.intervals
    if interval is None:
        preferred = ("uniform", "bootstrap", "pointwise", "conformal")
        return next((kind for kind in preferred if kind in kinds), None)
    return None if interval == "none" else interval


def _estimate(
    estimator: InstrumentalVariableEstimator,
    domain: str | tuple[float, float],
    points: int,
    interval: str | None,
    level: float,
) -> tuple[pd.DataFrame, str | None]:
    """The curve on a grid, and what its limits are."""
    import numpy as np
    import pandas as pd

    ends = domain
    if isinstance(ends, str):
        ends = {
            "95": estimator.exposure_central_,
            "99": estimator.exposure_central_99_,
            "range": estimator.exposure_range_,
        }[ends]
    x = np.linspace(ends[0], ends[1], points)
    kind = _kind(estimator, interval)
    if kind is None:
        return pd.DataFrame({"x": x, "estimate": estimator.effect(x)}), None
    curve: Any = estimator.effect(x, interval=kind, level=level)
    return curve.to_frame(), str(curve.method)


def _with_differences(
    estimator: InstrumentalVariableEstimator,
    table: pd.DataFrame,
    options: argparse.Namespace,
    level: float,
) -> pd.DataFrame:
    """Columns for the difference from the curve at the reference."""
    x = table["x"].to_numpy()
    kind = _kind(estimator, options.interval)
    contrast: Any = estimator.ate(options.reference, x, interval=kind, level=level)
    if kind is None:
        return table.assign(difference=contrast)
    return table.assign(
        difference=contrast.estimate,
        difference_lower=contrast.lower,
        difference_upper=contrast.upper,
    )


def _write(
    folder: Path,
    estimator: InstrumentalVariableEstimator,
    table: pd.DataFrame,
    method: str | None,
    options: argparse.Namespace,
    draw: bool,
) -> None:
    """Write the folder; summary.json, which marks it as ours, first."""
    from mrfast import __version__
    from mrfast._files import replace_file
    from mrfast.io.tables import write_table

    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": _FORMAT,
        "mrfast_version": __version__,
        "estimator": estimator.name,
        "options": estimator.get_params(),
        "data": str(options.data),
        "exposure": options.exposure,
        "outcome": options.outcome,
        "limits": method,
        "level": options.level,
        "summary": estimator.summary().to_dict(),
    }
    replace_file(folder / "summary.json", json_text(content).encode())
    replace_file(folder / "summary.txt", f"{estimator.summary()}\n".encode())
    write_table(table, folder / "estimate.csv")
    estimator.save(folder / "model", covariates=options.keep_covariates)
    if not draw:
        (folder / "curve.png").unlink(missing_ok=True)
        return
    from mrfast.plots.causal_curve import plot_causal_curve

    axes: Any = plot_causal_curve(
        estimator,
        interval=options.interval,
        level=options.level,
        reference=options.reference,
        exposure=options.exposure,
    )
    axes.figure.savefig(folder / "curve.png", format="png")


# ------------------------------------------------------------------------- evaluate


def run_evaluate(options: argparse.Namespace) -> int:
    """Print or write the table of errors and coverage."""
    with options_named(ARGUMENTS):
        return _evaluate(options)


def _evaluate(options: argparse.Namespace) -> int:
    import sys

    from mrfast.io.tables import write_table
    from mrfast.nonlinear.ensemble import Ensemble
    from mrfast.nonlinear.evaluation import compared_curves, evaluate

    folders = list(dict.fromkeys(options.input))
    members = [saved_estimator(folder) for folder in folders]
    estimates: dict[str, Any] = dict(zip(folders, members, strict=True))
    if options.ensemble:
        if len(members) < 2:
            raise InvalidInputError("--ensemble: expected at least two folders, received one")
        estimates = {"ensemble": Ensemble(members)}
    arguments: dict[str, Any] = {
        "domain": [domain_of(text) for text in options.domain] or None,
        "n_points": options.points,
        "interval": options.interval,
        "level": options.level,
    }
    table = evaluate(estimates, options.true_function, **arguments)
    if options.output is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n", float_format="%.8g")
    else:
        write_table(table, options.output)
    if options.plot is not None:
        from mrfast.plots.curve_evaluation import evaluation_figure

        curves = compared_curves(estimates, options.true_function, **arguments)
        evaluation_figure(curves).savefig(options.plot)
    return 0
