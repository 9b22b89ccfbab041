"""``mrfast presso``: MR-PRESSO's global, outlier and distortion tests."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mrfast.cli.association_options import options_named
from mrfast.cli.mr_input import (
    NO_SNP,
    add_input_options,
    chosen_seed,
    pairs_of,
    read_pairs,
    refuse_other_files,
)
from mrfast.cli.site_command import can_draw

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from mrfast.summary.presso_test import PressoResult

__all__ = ["add_parser", "run"]

_FORMAT, _VERSION = "mrfast presso", 1
_FILES = {
    "presso.tsv": "estimates with and without the outliers, global and distortion tests",
    "snps.tsv": "outlier test of each SNP",
    "harmonisation.tsv": "rows of the tables, with the reason each was kept or dropped",
    "presso.png": "standardised residual of each SNP, outliers marked",
    "presso.json": "everything, for programs",
}
_SIMULATE = {"auto": None, "yes": True, "no": False}
_OPTIONS = {
    "alpha": "--alpha",
    "ci_level": "--level",
    "n_draws": "--draws",
    "n_threads": "--threads",
    "simulate": "--simulate",
}


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "presso",
        help="MR-PRESSO: test for horizontal pleiotropy, outliers",
        description="Test SNPs for horizontal pleiotropy, find outliers, and estimate the effect "
        "without them (MR-PRESSO; Verbanck et al., 2018), for every pair of an exposure and an "
        "outcome.",
        epilog="Example: mrfast presso --exposure bmi.tsv.gz --outcome chd.tsv.gz --p-value 5e-8 "
        "-o presso",
        allow_abbrev=False,
    )
    add_input_options(parser)
    group = parser.add_argument_group("method")
    group.add_argument(
        "--alpha",
        type=float,
        default=0.05,
        metavar="X",
        help="level of the tests (default %(default)s)",
    )
    group.add_argument(
        "--simulate",
        choices=tuple(_SIMULATE),
        default="auto",
        help="draws for the global and outlier tests; auto: only where the closed form of the "
        "global test may err (default %(default)s)",
    )
    group.add_argument(
        "--draws",
        type=int,
        default=100_000,
        metavar="N",
        help="most draws of a test (default %(default)s)",
    )
    group.add_argument(
        "--dispersion",
        choices=("estimated", "at_least_one"),
        default="estimated",
        help="residual standard error in the standard errors of the estimates (default "
        "%(default)s, as MR-PRESSO)",
    )
    group.add_argument(
        "--level",
        type=float,
        default=0.95,
        metavar="X",
        help="of the confidence intervals (default %(default)s)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of the draws (default: a new one)")
    group.add_argument("--threads", type=int, metavar="N", help="default: every core")
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder for the results; only files of the results' names are replaced in it",
    )
    group.add_argument("--no-plot", action="store_true", help="draw no figure")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, test, write the folder, print the results."""
    from mrfast._progress import ProgressLine
    from mrfast.errors import ConvergenceError, InvalidInputError
    from mrfast.io.tables import write_table
    from mrfast.summary.presso_test import mr_presso

    folder = Path(options.output)
    refuse_other_files(folder, list(_FILES), "presso.json", f'"format": "{_FORMAT}"')
    seed = chosen_seed(options)
    arguments: dict[str, Any] = {
        "alpha": options.alpha,
        "simulate": _SIMULATE[options.simulate],
        "n_draws": options.draws,
        "dispersion": options.dispersion,
        "n_threads": options.threads,
        "ci_level": options.level,
    }
    data = read_pairs(options)
    pairs = list(pairs_of(data.kept))
    found: list[tuple[str, str, PressoResult, tuple[str, ...]]] = []
    failed = [(exposure, outcome, NO_SNP) for exposure, outcome in data.empty]
    progress = None if options.quiet else ProgressLine(len(pairs), "pairs", "presso")
    for exposure, outcome, part in pairs:
        with options_named(_OPTIONS):
            try:
                result = mr_presso(**_arrays(part), rng=seed, **arguments)
            except (ConvergenceError, InvalidInputError) as error:
                if len(pairs) == 1 or not str(error).startswith("beta_exposure"):
                    raise
                failed.append((exposure, outcome, str(error)))
                continue
        snps = tuple(map(str, part.get("snp", part.index)))
        found.append((exposure, outcome, cast("PressoResult", result), snps))
        if progress is not None:
            progress(len(found) + len(failed) - len(data.empty))
    if progress is not None:
        progress.finish()
    if not found:
        raise InvalidInputError(f"--exposure, --outcome: {failed[-1][2]}")

    written = ["presso.tsv", "snps.tsv", "presso.json"]
    tables = {
        "presso.tsv": _stacked(found, _row_frame),
        "snps.tsv": _stacked(found, _snp_frame),
    }
    if data.harmonised is not None:
        tables["harmonisation.tsv"] = data.harmonised.table
        written.append("harmonisation.tsv")
    drawing = found[0][2].plot() if len(found) == 1 and can_draw(options) else None
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_table(table, folder / name)
    if drawing is not None:
        drawing.savefig(folder / "presso.png", format="png")
        written.append("presso.png")
    _write_json(folder / "presso.json", options, found, failed, seed)
    for name in _FILES:
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    if not options.quiet:
        _report(options, data.lines, found, failed, seed, written)
    return 0


def _arrays(part: Any) -> dict[str, Any]:
    names = ("beta_exposure", "se_exposure", "beta_outcome", "se_outcome")
    return {name: part[name].to_numpy(dtype=float) for name in names}


def _stacked(found: list[Any], frame_of: Any) -> Any:
    import pandas as pd

    frames = []
    for exposure, outcome, result, snps in found:
        frame = frame_of(result, snps)
        frame.insert(0, "exposure", exposure)
        frame.insert(1, "outcome", outcome)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _row_frame(result: PressoResult, snps: tuple[str, ...]) -> Any:
    frame = result.to_frame()
    frame["outliers"] = ", ".join(snps[i] for i in result.outliers)
    return frame


def _snp_frame(result: PressoResult, snps: tuple[str, ...]) -> Any:
    frame = result.outlier_test.to_frame()
    frame.insert(0, "snp", list(snps))
    return frame


def _write_json(
    path: Path, options: argparse.Namespace, found: list[Any], failed: list[Any], seed: int
) -> None:
    from mrfast import __version__
    from mrfast._files import nullable_json, replace_file

    document = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "mrfast_version": __version__,
        "seed": seed,
        "alpha": options.alpha,
        "results": [
            {
                "exposure": exposure,
                "outcome": outcome,
                "snps": list(snps),
                "outliers": [snps[i] for i in result.outliers],
                **result.to_dict(),
            }
            for exposure, outcome, result, snps in found
        ],
        "not_done": [
            {"exposure": exposure, "outcome": outcome, "reason": reason}
            for exposure, outcome, reason in failed
        ],
    }
    text = json.dumps(nullable_json(document), indent=2, allow_nan=False) + "\n"
    replace_file(path, text.encode())


def _report(
    options: argparse.Namespace,
    lines: list[str],
    found: list[Any],
    failed: list[Any],
    seed: int,
    written: list[str],
) -> None:
    print("\n".join(lines))
    for exposure, outcome, result, snps in found:
        print(f"\n{exposure} on {outcome}")
        print(result)
        if result.outliers:
            print(f"  outlying SNPs: {', '.join(snps[i] for i in result.outliers)}")
    for exposure, outcome, reason in failed:
        print(f"\n{exposure} on {outcome}: not done: {reason}")
    print(f"\nseed {seed}; files in {options.output}:")
    width = max(map(len, written))
    for name, meaning in _FILES.items():
        if name in written:
            print(f"  {name:<{width}}  {meaning}")
