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

    import pandas as pd

    from mrfast.federated.estimate import FederatedEstimate

__all__ = ["add_parser", "run"]

_FORMAT = "mrfast federated estimate"
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
    from mrfast.federated.estimate import federated_estimate, leave_one_site_out
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
    }
    with options_named(_OPTIONS), warnings_as_notes(options.quiet):
        pooled = PooledProfile.load(options.pooled)
        if options.leave_one_out and pooled.n_sites < 2:
            raise InvalidInputError(
                f"--leave-one-out: expected at least 2 sites, received {pooled.n_sites}"
            )
        estimate = federated_estimate(pooled, **arguments)
        left_out = leave_one_site_out(pooled, **arguments) if options.leave_one_out else None
    drawings = _drawings(estimate, left_out) if can_draw(options) else {}
    written = _write(folder, estimate, left_out, drawings)
    if not options.quiet:
        print(estimate)
        if left_out is not None:
            print("\nwithout one site:")
            print(left_out.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
        print(f"\nfiles in {options.output}:")
        width = max(map(len, written))
        for name in written:
            print(f"  {name:<{width}}  {_FILES[name]}")
    return 0


def _drawings(estimate: FederatedEstimate, left_out: pd.DataFrame | None) -> dict[str, Any]:
    from mrfast.plots.federated_forest import left_out_figure, site_forest_figure

    drawings = {"profile.png": estimate.plot(), "forest.png": site_forest_figure(estimate)}
    if left_out is not None:
        drawings["leave_one_out.png"] = left_out_figure(estimate, left_out)
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
    estimate: FederatedEstimate,
    left_out: pd.DataFrame | None,
    drawings: dict[str, Any],
) -> list[str]:
    """Write the files, the summary last; those of an earlier run that this one lacks go."""
    from mrfast._files import replace_file
    from mrfast.io.tables import write_table

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in (("sites.tsv", estimate.to_frame()), ("leave_one_out.tsv", left_out)):
        if table is not None:
            write_table(table, folder / name)
            written.append(name)
    for name, figure in drawings.items():
        figure.savefig(folder / name, format="png")
        written.append(name)
    text = json.dumps(_described(estimate), indent=2, allow_nan=False) + "\n"
    replace_file(folder / "estimate.json", text.encode())
    written.append("estimate.json")
    for name in _FILES:
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    return written
