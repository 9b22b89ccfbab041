"""``mrfast estimate``: the causal effect from a pooled profile."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrfast.cli.association_options import options_named
from mrfast.cli.site_command import can_draw, warnings_as_notes
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from mrfast.federated.estimate import FederatedEstimate
    from mrfast.federated.pooling import PooledProfile

__all__ = ["add_parser", "run"]

_FORMAT, _VERSION = "mrfast federated estimate", 1
_FILES = {
    "sites.tsv": "the sites: people, exposure per unit of score, estimates",
    "leave_one_out.tsv": "the estimate without each of the sites",
    "forest.png": "estimates by site and pooled",
    "profile.png": "profile log-likelihoods by site and pooled, with the confidence set",
    "leave_one_out.png": "the estimate without each of the sites",
    "estimate.json": "all of the estimate",
}
_CORRECTION = {"auto": "auto", "on": True, "off": False}
_OPTIONS = {
    "ci_level": "--level",
    "kappa_uncertainty": "--fixed-kappa",
    "noise_correction": "--noise-correction",
    "scale": "--scale",
    "effects": "--effects",
    "small_sample": "--small-sample",
    "interval": "--interval",
}


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "estimate",
        help="causal effect from a pooled profile",
        description="Estimate the log odds ratio of the outcome per unit of exposure from the "
        "file of 'mrfast pool', with its confidence set and the heterogeneity between sites.",
        epilog="Example: mrfast estimate pooled.json --leave-one-out -o estimate",
        allow_abbrev=False,
    )
    parser.add_argument("pooled", metavar="FILE", help="file of 'mrfast pool'")
    parser.add_argument(
        "--level",
        type=float,
        default=0.95,
        metavar="X",
        help="of the confidence set (default %(default)s)",
    )
    parser.add_argument(
        "--effects",
        choices=("fixed", "random"),
        default="fixed",
        help="one effect at all sites, or effects that vary between them (default %(default)s)",
    )
    parser.add_argument(
        "--interval",
        choices=("hartung_knapp", "profile"),
        default="hartung_knapp",
        help="of random effects: by Hartung and Knapp, or of the profile likelihood "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--small-sample",
        choices=("none", "conditional", "firth"),
        default="none",
        help="adjustment for sites with few cases (default %(default)s)",
    )
    parser.add_argument(
        "--noise-correction",
        choices=tuple(_CORRECTION),
        default="auto",
        help="for noise shared by score weights and instrument effects; auto: where both come "
        "from one GWAS (default %(default)s)",
    )
    parser.add_argument(
        "--fixed-kappa",
        action="store_true",
        help="limits as if the exposure per unit of score were known without error",
    )
    parser.add_argument(
        "--scale",
        choices=("exposure", "medusa"),
        default="exposure",
        help="medusa: the number that Medusa 0.1.0 prints, which is on a wrong scale; for "
        "comparison only (default %(default)s)",
    )
    parser.add_argument(
        "--leave-one-out", action="store_true", help="also without each of the sites in turn"
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder for the results; only files of the results' names are replaced in it",
    )
    group.add_argument("--no-plot", action="store_true", help="draw no figures")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Estimate, write the folder, print the summary."""
    from mrfast.federated.estimate import federated_estimate
    from mrfast.federated.pooling import PooledProfile

    folder = Path(options.output)
    _refuse_other_files(folder)
    arguments: dict[str, Any] = {
        "ci_level": options.level,
        "kappa_uncertainty": not options.fixed_kappa,
        "noise_correction": _CORRECTION[options.noise_correction],
        "scale": options.scale,
        "effects": options.effects,
        "small_sample": options.small_sample,
        "interval": options.interval,
    }
    with options_named(_OPTIONS), warnings_as_notes(options.quiet):
        pooled = PooledProfile.load(options.pooled)
        if options.leave_one_out and pooled.n_sites < 2:
            raise InvalidInputError(
                f"--leave-one-out: expected at least 2 sites, received {pooled.n_sites}"
            )
        estimate = federated_estimate(pooled, **arguments)
    left_out = {}
    if options.leave_one_out:
        left_out = _left_out(pooled, arguments, progress=not options.quiet)
    drawings = {}
    if options.scale != "medusa" and can_draw(options):
        drawings = _drawings(pooled, estimate, left_out, arguments)
    written = _write(folder, pooled, estimate, left_out, drawings)
    if not options.quiet:
        print(estimate)
        for line in _left_out_lines(left_out):
            print(line)
        print(f"\nfiles in {options.output}:")
        width = max(map(len, written))
        for name in written:
            print(f"  {name:<{width}}  {_FILES[name]}")
    return 0


def _left_out(
    pooled: PooledProfile, arguments: dict[str, Any], *, progress: bool
) -> dict[str, FederatedEstimate]:
    """Estimates without each of the sites; what they warn of is in their messages."""
    from mrfast.federated.estimate import estimates_without_each_site

    fixed = {**arguments, "effects": "fixed"} if pooled.n_sites < 3 else arguments
    with warnings_as_notes(quiet=True):
        return estimates_without_each_site(pooled, progress=progress, **fixed)


def _left_out_lines(left_out: dict[str, FederatedEstimate]) -> list[str]:
    from mrfast.plots.federated_profiles import number_texts, set_text

    if not left_out:
        return []
    width = max(map(len, left_out))
    lines = ["", "without one site:"]
    for site, estimate in left_out.items():
        finite = math.isfinite(estimate.beta)
        beta = number_texts([estimate.beta])[0] if finite else "no maximum"
        lines.append(
            f"  {site:<{width}}  {beta} ({set_text(estimate.confidence_set)}), "
            f"p {estimate.p_value:.3g}"
        )
    return lines


def _drawings(
    pooled: PooledProfile,
    estimate: FederatedEstimate,
    left_out: dict[str, FederatedEstimate],
    arguments: dict[str, Any],
) -> dict[str, Any]:
    from mrfast.federated.estimate import federated_estimate
    from mrfast.plots.federated_forest import left_out_figure, site_forest_figure

    fixed = {**arguments, "effects": "fixed"}
    every = [estimate]
    with warnings_as_notes(quiet=True):
        single = {
            site: federated_estimate(pooled.without(*(set(pooled.site_ids) - {site})), **fixed)
            for site in pooled.site_ids
        }
        if estimate.effects == "random":
            every.insert(0, federated_estimate(pooled, **fixed))
    drawings = {
        "forest.png": site_forest_figure(single, every),
        "profile.png": estimate.plot(),
    }
    if left_out:
        drawings["leave_one_out.png"] = left_out_figure(left_out, estimate)
    return drawings


def _refuse_other_files(folder: Path) -> None:
    """Refuse to replace files that are not an estimate's."""
    summary = folder / "estimate.json"
    if summary.is_file():
        with summary.open("rb") as stream:
            if f'"format": "{_FORMAT}"'.encode() in stream.read(200):
                return
    for name in _FILES:
        if (folder / name).exists():
            raise InvalidInputError(
                f"--output: expected a folder without files of other origin, received {folder}, "
                f"which has {name}"
            )


def _write(
    folder: Path,
    pooled: PooledProfile,
    estimate: FederatedEstimate,
    left_out: dict[str, FederatedEstimate],
    drawings: dict[str, Any],
) -> list[str]:
    """Write the files, the summary last; those of an earlier run that this one lacks go."""
    from mrfast._files import replace_file
    from mrfast.federated.estimate import left_out_table
    from mrfast.io.tables import write_table

    folder.mkdir(parents=True, exist_ok=True)
    sites = pooled.to_frame()
    if len(estimate.kappas) == len(sites):
        sites["kappa_used"] = estimate.kappas
    tables = {"sites.tsv": sites}
    if left_out:
        tables["leave_one_out.tsv"] = left_out_table(left_out)
    for name, table in tables.items():
        write_table(table, folder / name)
    for name, figure in drawings.items():
        figure.savefig(folder / name, format="png")
    text = json.dumps(_described(estimate), indent=2, allow_nan=False) + "\n"
    replace_file(folder / "estimate.json", text.encode())
    written = [name for name in _FILES if name in {*tables, *drawings, "estimate.json"}]
    for name in _FILES:
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    return written


def _described(estimate: FederatedEstimate) -> dict[str, Any]:
    """What ``estimate.json`` holds; numbers that are not finite are null.

    ``confidence_set`` is a list of pairs, with null for an infinite end: minus infinity where it
    is the first of a pair, infinity where it is the second.
    """
    from mrfast import __version__
    from mrfast._files import nullable_json

    (record,) = estimate.to_frame().to_dict("records")
    row = {str(name): value for name, value in record.items()}
    row["confidence_set_in_words"] = row.pop("confidence_set")
    summary: dict[str, Any] = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "mrfast_version": __version__,
        "meaning": "log odds ratio of the outcome per unit of exposure",
        **row,
        "confidence_set": [list(piece) for piece in estimate.confidence_set],
        "prediction_interval": estimate.prediction_interval,
        "interval_method": estimate.interval_method,
        "sites": list(estimate.sites),
        "kappas": estimate.kappas,
        "messages": list(estimate.messages),
    }
    nullable: dict[str, Any] = nullable_json(summary)
    return nullable
