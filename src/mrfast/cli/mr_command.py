"""``mrfast mr``: several methods and all diagnostics, from two tables or a harmonised one."""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mrfast.cli.association_options import options_named
from mrfast.cli.mr_input import (
    NO_SNP,
    Pairs,
    add_input_options,
    chosen_seed,
    pairs_of,
    read_pairs,
    refuse_other_files,
)
from mrfast.cli.multivariable_analysis import FILES as MV_FILES
from mrfast.cli.multivariable_analysis import run_multivariable
from mrfast.cli.site_command import can_draw
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import pandas as pd

    from mrfast.summary.registry import Method
    from mrfast.summary.sensitivity_panel import Sensitivity

__all__ = ["add_parser", "run"]

_FORMAT, _VERSION = "mrfast mr", 1
_LABEL = f'"format": "{_FORMAT}"'
_FILES = {
    "estimates.csv": "one row a pair and method",
    "findings.csv": "what the diagnostics say of each pair, in words",
    "harmonisation.tsv": "rows of the tables, with the reason each was kept or dropped",
    "mr.json": "estimates, what they were made of, options and seed, for programs",
}
_SHOWN = 12  # pairs whose estimates are printed
_OPTIONS = {
    "methods": "--methods",
    "options": "--options",
    "ci_level": "--level",
    "rule": "--steiger-filter",
    "scale_outcome": "--outcome-type",
    "case_fraction_outcome": "--case-fraction",
    "prevalence_outcome": "--prevalence",
}


class _ListMethods(argparse.Action):
    """Print the methods and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        from mrfast.summary.mv_registry import MV_METHODS
        from mrfast.summary.registry import METHODS

        both = {**METHODS, **MV_METHODS}
        width = max(map(len, both))
        for method in both.values():
            spare = method.minimum_snps - 1
            if method.name in MV_METHODS:
                least = f"at least K{f' + {spare}' * (spare > 0)} SNPs for K exposures"
            else:
                least = f"at least {spare + 1} SNP{'s' * (spare > 0)}"
            print(f"{method.name:<{width}}  {method.title} ({least}; doi:{method.reference})")
        parser.exit()


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "mr",
        help="causal effect by several methods, with all diagnostics",
        description="Estimate the effect of an exposure on an outcome from their associations "
        "with SNPs, by methods that rest on different assumptions, with the diagnostics of a "
        "report: heterogeneity, pleiotropy, outliers, leave-one-out, direction. Every pair of "
        "an exposure and an outcome is analysed.",
        epilog="Example: mrfast mr --exposure bmi.tsv.gz --outcome chd.tsv.gz --p-value 5e-8 "
        "-o results",
        allow_abbrev=False,
    )
    add_input_options(parser)
    group = parser.add_argument_group("methods")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--methods",
        metavar="NAMES",
        help="names, such as ivw,egger,weighted_median (default: a set that rests on different "
        "assumptions)",
    )
    which.add_argument("--all", action="store_true", help="all methods")
    group.add_argument(
        "--list-methods", action=_ListMethods, nargs=0, help="print the methods and exit"
    )
    group.add_argument(
        "--options",
        metavar="PAIRS",
        action="append",
        default=[],
        help="options of methods that run, as in Python, such as "
        "egger.distribution=normal,ivw.model=fixed",
    )
    group.add_argument(
        "--multivariable",
        action="store_true",
        help="all exposures at once, each effect with the others held fixed; by the methods whose "
        "names begin with mv_ (the first exposure's alleles count)",
    )
    group.add_argument(
        "--level",
        type=float,
        default=0.95,
        metavar="X",
        help="of the confidence intervals (default %(default)s)",
    )
    group.add_argument(
        "--seed", type=int, metavar="N", help="of random draws (default: a new one, reported)"
    )
    group = parser.add_argument_group("causal direction (Steiger; needs sample sizes)")
    group.add_argument(
        "--outcome-type",
        choices=("continuous", "standardised", "binary"),
        default="continuous",
        help="scale of the outcome's effects (default %(default)s)",
    )
    group.add_argument(
        "--case-fraction", type=float, metavar="X", help="of the study of a binary outcome"
    )
    group.add_argument("--prevalence", type=float, metavar="X", help="of a binary outcome")
    group.add_argument(
        "--steiger-filter",
        choices=("direction", "significant", "not_reversed"),
        help="use only SNPs that explain more of the exposure than of the outcome: by any margin, "
        "significantly so, or all but those significantly the other way round",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder for the results, with one folder in it for each of several pairs; only files "
        "of the results' names are replaced in it",
    )
    group.add_argument("--no-diagnostics", action="store_true", help="the methods only")
    group.add_argument("--no-plot", action="store_true", help="draw no figures")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, estimate, write the folder, print the summary."""
    with options_named(_OPTIONS):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from mrfast._progress import ProgressLine
    from mrfast.summary.mv_registry import MV_METHODS
    from mrfast.summary.registry import METHODS, find_method

    folder = Path(options.output)
    refuse_other_files(folder, [*_FILES, *MV_FILES, "sensitivity.json"], "mr.json", _LABEL)
    seed = chosen_seed(options)
    registry = MV_METHODS if options.multivariable else METHODS
    methods: list[str] | None = list(registry) if options.all else None
    if options.methods is not None:
        words = options.methods.split(",")
        methods = [find_method(name.strip(), registry=registry).name for name in words]
    given = _method_options(options.options, registry)
    if options.multivariable:
        if options.harmonised is not None or options.steiger_filter is not None:
            option = "harmonised" if options.harmonised is not None else "steiger-filter"
            raise InvalidInputError(f"--{option}: expected none with --multivariable")
        return run_multivariable(options, methods, given, seed)
    data = read_pairs(options)
    say = _Silent() if options.quiet else print
    say("\n".join(data.lines))
    if options.steiger_filter is not None:
        data = _filtered(data, options)
        say(data.lines[-1])
    draw = not options.no_diagnostics and can_draw(options)

    pairs = list(pairs_of(data.kept))
    tables, findings, done = [], [], []
    not_done = [
        {"exposure": exposure, "outcome": outcome, "reason": NO_SNP}
        for exposure, outcome in data.empty
    ]
    progress = None if options.quiet else ProgressLine(len(pairs), "pairs", "mr")
    names = _folder_names([pair[:2] for pair in pairs])
    for i, (exposure, outcome, part) in enumerate(pairs):
        try:
            table, panel = _analysed(part, options, methods, given, seed)
        except InvalidInputError as error:
            if len(pairs) == 1 or not re.match(r"(beta|se)_", str(error)):
                raise
            not_done.append({"exposure": exposure, "outcome": outcome, "reason": str(error)})
            continue
        finally:
            if progress is not None:
                progress(i + 1)
        labelled = table.drop(columns=["exposure", "outcome"], errors="ignore")
        labelled.insert(0, "exposure", exposure)
        labelled.insert(1, "outcome", outcome)
        tables.append(labelled)
        entry: dict[str, Any] = {"exposure": exposure, "outcome": outcome, "n_snps": len(part)}
        if panel is not None:
            own = folder if len(pairs) == 1 else folder / names[i]
            entry["folder"] = "." if len(pairs) == 1 else names[i]
            entry["files"] = panel.save(own, figures=draw)
            findings.append(_findings(panel, exposure, outcome))
        done.append((entry, labelled, panel))
    if progress is not None:
        progress.finish()
    if not tables:
        raise InvalidInputError(f"--exposure, --outcome: {not_done[-1]['reason']}")
    written = _write(folder, data, options, given, seed, tables, findings, done, not_done)
    if not options.quiet:
        _report(options, seed, done, not_done, written)
    return 0


class _Silent:
    """A print that prints nothing."""

    def __call__(self, *_: object, **__: object) -> None:
        pass


# ------------------------------------------------------------------------- the analysis


def _method_options(texts: list[str], registry: Mapping[str, Method]) -> dict[str, dict[str, Any]]:
    """``method.option=value`` by method; values as Python writes them, or texts."""
    from mrfast.summary.registry import find_method

    found: dict[str, dict[str, Any]] = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        match = re.fullmatch(r"\s*(\w+)\.(\w+)\s*=\s*(.+?)\s*", pair)
        if match is None:
            raise InvalidInputError(
                "--options: expected pairs such as egger.distribution=normal, received "
                f"{pair.strip()!r}"
            )
        method, name, text = match.groups()
        find_method(method, argument="--options", registry=registry)
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        found.setdefault(method, {})[name] = value
    return found


def _filtered(data: Pairs, options: argparse.Namespace) -> Pairs:
    from mrfast.summary.directionality import steiger_filter

    table = steiger_filter(data.kept, rule=options.steiger_filter, **_steiger_options(options))
    kept = table[table["keep"].to_numpy(dtype=bool)].reset_index(drop=True)
    if not len(kept):
        raise InvalidInputError("--steiger-filter: expected SNPs that pass it, received none")
    line = f"{len(kept):,} of {len(table):,} rows pass Steiger's filter"
    return data._replace(kept=kept, lines=[*data.lines, line])


def _steiger_options(options: argparse.Namespace) -> dict[str, Any]:
    found = {
        "scale_outcome": options.outcome_type,
        "case_fraction_outcome": options.case_fraction,
        "prevalence_outcome": options.prevalence,
    }
    return {name: value for name, value in found.items() if value is not None}


def _analysed(
    part: pd.DataFrame,
    options: argparse.Namespace,
    methods: list[str] | None,
    given: Mapping[str, Mapping[str, Any]],
    seed: int,
) -> tuple[pd.DataFrame, Sensitivity | None]:
    """Table of the methods and, unless it is not wanted, the whole panel of one pair."""
    from mrfast.summary.sensitivity_panel import panel_methods, sensitivity
    from mrfast.summary.several_methods import mr

    if options.no_diagnostics:
        sizes = {
            name: part[name].to_numpy() if name in part and part[name].notna().any() else None
            for name in ("n_exposure", "n_outcome")
        }
        names, settings = panel_methods(methods, given, len(part), sizes, {})
        settings = {name: entry for name, entry in settings.items() if entry}
        table = mr(part, methods=names, options=settings, rng=seed, ci_level=options.level)
        return table, None
    panel = sensitivity(
        part,
        methods=methods,
        options=given,
        steiger_options=_steiger_options(options),
        rng=seed,
        ci_level=options.level,
    )
    return panel.methods, panel


def _findings(panel: Sensitivity, exposure: str, outcome: str) -> pd.DataFrame:
    import pandas as pd

    rows = [("agreement", " ".join(panel.comparison)), *panel.checks.items()]
    rows += [(f"not done: {name}", reason) for name, reason in panel.skipped.items()]
    frame = pd.DataFrame(rows, columns=["check", "finding"])
    frame.insert(0, "exposure", exposure)
    frame.insert(1, "outcome", outcome)
    return frame


def _folder_names(pairs: list[tuple[str, str]]) -> list[str]:
    """A folder's name for each pair: letters that any file system has, and a number."""
    width = len(str(len(pairs)))

    def plain(text: str) -> str:
        return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40] or "trait"

    return [
        f"{i + 1:0{width}d}_{plain(exposure)}_{plain(outcome)}"
        for i, (exposure, outcome) in enumerate(pairs)
    ]


# ------------------------------------------------------------------------------- output


def _write(
    folder: Path,
    data: Pairs,
    options: argparse.Namespace,
    given: Mapping[str, Mapping[str, Any]],
    seed: int,
    tables: list[pd.DataFrame],
    findings: list[pd.DataFrame],
    done: list[Any],
    not_done: list[dict[str, str]],
) -> list[str]:
    """Write the tables of all pairs, the summary last."""
    import pandas as pd

    from mrfast import __version__
    from mrfast._files import nullable_json, replace_file
    from mrfast.io.tables import write_table

    folder.mkdir(parents=True, exist_ok=True)
    _remove_earlier(folder, {entry["folder"] for entry, _, panel in done if panel is not None})
    frames = {"estimates.csv": pd.concat(tables, ignore_index=True)}
    if findings:
        frames["findings.csv"] = pd.concat(findings, ignore_index=True)
    if data.harmonised is not None:
        frames["harmonisation.tsv"] = data.harmonised.table
    for name, frame in frames.items():
        write_table(frame, folder / name)
    counts = None
    if data.harmonised is not None:
        reasons = data.harmonised.reasons.groupby("reason", sort=False)["rows"].sum()
        counts = {str(reason): int(count) for reason, count in reasons.items()}
    document = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "mrfast_version": __version__,
        "seed": seed,
        "ci_level": options.level,
        "method_options": given,
        "rows_by_reason": counts,
        "pairs": [entry for entry, _, _ in done],
        "not_done": not_done,
        "estimates": frames["estimates.csv"].to_dict("records"),
    }
    text = json.dumps(nullable_json(document), indent=2, allow_nan=False, ensure_ascii=False)
    replace_file(folder / "mr.json", f"{text}\n".encode())
    written = [name for name in _FILES if name in {*frames, "mr.json"}]
    for name in {**_FILES, **MV_FILES}:
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    return written


def _remove_earlier(folder: Path, kept: set[str]) -> None:
    """Remove the panels of an earlier run in folders that this one does not write."""
    from mrfast.io.sensitivity_files import SENSITIVITY_FILES

    earlier = set()
    with suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads((folder / "mr.json").read_text(encoding="utf-8"))
        earlier = {str(entry.get("folder", ".")) for entry in document["pairs"]}
    for name in earlier - kept:
        if not re.fullmatch(r"\.|\d[\w-]*", name):
            continue
        for file in SENSITIVITY_FILES:
            (folder / name / file).unlink(missing_ok=True)
        if name != ".":
            with suppress(OSError):  # others' files stay, and so does then the folder
                (folder / name).rmdir()


def _report(
    options: argparse.Namespace,
    seed: int,
    done: list[Any],
    not_done: list[dict[str, str]],
    written: list[str],
) -> None:
    files = {name: _FILES[name] for name in written}
    if len(done) == 1 and done[0][2] is not None:
        print(f"\n{done[0][2].summary()}")
        files |= done[0][0]["files"]
    else:
        for entry, table, _ in done[:_SHOWN]:
            print(f"\n{entry['exposure']} on {entry['outcome']}: {entry['n_snps']} SNPs")
            width = max(map(len, table["method"]))
            for row in table.to_dict("records"):
                text = f"not done: {row['note']}"
                if row["estimate"] == row["estimate"]:
                    interval = f"{row['ci_lower']:.3g} to {row['ci_upper']:.3g}"
                    text = f"{row['estimate']:.3g} ({interval}), p = {row['p_value']:.2g}"
                print(f"  {row['method']:<{width}}  {text}")
        if len(done) > _SHOWN:
            print(f"\n... and {len(done) - _SHOWN:,} more pairs in estimates.csv")
    for entry in not_done:
        print(f"\n{entry['exposure']} on {entry['outcome']}: not done: {entry['reason']}")
    print(f"\nseed {seed}; files in {options.output}:")
    width = max(map(len, files))
    for name, meaning in files.items():
        print(f"  {name:<{width}}  {meaning}")
    if len(done) > 1 and done[0][2] is not None:
        print(f"  and one folder for each of the {len(done)} pairs, with tables and figures")
