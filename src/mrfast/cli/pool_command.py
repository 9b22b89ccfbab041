"""``mrfast pool``: the sites' files as one pooled profile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast.cli.association_options import options_named
from mrfast.cli.instruments_command import read_instruments, refuse_other_document
from mrfast.cli.site_command import warnings_as_notes
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from mrfast.data.instruments import InstrumentTable
    from mrfast.federated.site_profile import SiteProfile

__all__ = ["add_parser", "run"]

_KIND = "mrfast pooled profile"


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "pool",
        help="pool the files of several sites",
        description="Pool the files that the sites of one study sent. Sites with the same score "
        "and study are required; each keeps its own exposure per unit of score.",
        epilog="Example: mrfast pool hospital_a.json hospital_b.json -o pooled.json",
        allow_abbrev=False,
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="files of 'mrfast site fit', or Medusa's <prefix>_profile_<site>.csv with its "
        "companions beside it",
    )
    parser.add_argument(
        "--instruments",
        metavar="FILE",
        help="file of 'mrfast instruments build'; needed where it has correlations of the SNPs, "
        "and for Medusa's files",
    )
    parser.add_argument(
        "--common-kappa",
        action="store_true",
        help="add the sites per unit of score, with one exposure per unit of score for all; "
        "refused where these differ by more than their errors",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read the sites, pool them, write the file."""
    from mrfast.federated.pooling import pool

    refuse_other_document(options.output, _KIND)
    resolved = [Path(name).resolve() for name in options.files]
    if Path(options.output).resolve() in resolved:
        raise InvalidInputError("--output: expected another file than the sites'")
    for name, path in zip(options.files, resolved, strict=True):
        if resolved.count(path) > 1:
            raise InvalidInputError(f"FILE: expected every file once, received {name} twice")
    instruments = None if options.instruments is None else read_instruments(options.instruments)
    with options_named(
        {"instruments": "--instruments", "profiles": "FILE", "common_kappa": "--common-kappa"}
    ):
        with warnings_as_notes(options.quiet):
            sites = [site for name in options.files for site in _sites_in(Path(name), instruments)]
            pooled = pool(sites, instruments=instruments, common_kappa=options.common_kappa)
        pooled.save(options.output)
    if not options.quiet:
        print(f"{len(sites)} site{'s' * (len(sites) != 1)}:")
        width = max(len(site.site_id) for site in sites)
        for site in sites:
            kappa = f", exposure per unit of score {site.kappa:.4f}" if site.has_kappa else ""
            print(
                f"  {site.site_id:<{width}}  {site.n_cases:,} cases, {site.n_controls:,} controls"
                f"{kappa}"
            )
        print(f"{pooled.total_cases:,} cases and {pooled.total_controls:,} controls in all")
        print(f"written to {options.output}; next: mrfast estimate {options.output} -o FOLDER")
    return 0


def _sites_in(path: Path, instruments: InstrumentTable | None) -> list[SiteProfile]:
    from mrfast.federated.medusa_files import read_medusa_sites
    from mrfast.federated.site_profile import SiteProfile

    if path.suffix.lower() == ".csv":
        if "_profile_" not in path.name:
            raise InvalidInputError(
                f"FILE: expected Medusa's <prefix>_profile_<site>.csv, received {path.name}"
            )
        prefix = path.name.partition("_profile_")[0]
        sites: list[SiteProfile] = read_medusa_sites([path], prefix=prefix, instruments=instruments)
        return sites
    return [SiteProfile.load(path)]
