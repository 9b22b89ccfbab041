"""``mrfast site``: fit at a site, and show what leaves it."""

from __future__ import annotations

import argparse
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrfast.cli.association_options import listed, options_named
from mrfast.cli.instruments_command import read_instruments
from mrfast.errors import InvalidInputError, MissingExtraError, MrfastWarning

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Iterator

    import pandas as pd

    from mrfast.federated.site_profile import SiteProfile

__all__ = ["add_parser", "can_draw", "run_fit", "run_show", "warnings_as_notes"]

TO_SEND, LOCAL = "to_send", "local"
_LOCAL_FILES = {
    "README.txt": "says that this folder stays at the site",
    "leaves_the_site.txt": "exactly what the file to send holds, in words",
    "snps.tsv": "every instrument: used or not, and why",
    "per_snp.tsv": "association of every SNP with the outcome, nothing withheld",
    "negative_controls.tsv": "the score's association with the negative controls",
    "profile.png": "profile log-likelihood of the score",
}
_README = """\
THIS FOLDER STAYS AT THE SITE. It holds results before the rules on small counts were applied.
The file to send is {file}; leaves_the_site.txt says what is in it.
"""
_IDS = ("person_id", "personId", "rowId")
_TEXTS = (*_IDS, "snp", "snp_id", "coded_allele", "other_allele", "allele_coded")
_OPTIONS = {  # arguments of fit_site, as options
    name: f"--{name.replace('_', '-')}"
    for name in (
        *("cohort", "instruments", "covariates", "alleles", "weights", "site_id", "study_id"),
        *("score", "kappa", "impute", "negative_controls", "effect_range", "min_count"),
        *("prior_variance", "action", "eaf_tolerance"),
    )
} | {"n_threads": "--threads"}


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "site",
        help="fit at one site of a federated study, or show what leaves it",
        description="The work of one site of a federated study.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(title="actions", metavar="COMMAND", required=True)
    _add_fit(kinds)
    show = kinds.add_parser(
        "show",
        help="print exactly what a site's file holds",
        description="Print exactly what a site's file holds: what leaves the site.",
        allow_abbrev=False,
    )
    show.add_argument("file", metavar="FILE", help="file that 'mrfast site fit' wrote")
    show.add_argument(
        "--values", action="store_true", help="every number instead of a line for each entry"
    )
    show.set_defaults(run=run_show)


def _add_fit(kinds: _SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser(
        "fit",
        help="profile log-likelihood of the allele score at this site",
        description="Fit the outcome model at this site, and write the file to send to the "
        "coordinator (FOLDER/to_send) apart from a report that stays here (FOLDER/local).",
        epilog="Example: mrfast site fit --cohort cohort.csv.gz --instruments instruments.json "
        "--covariates covariates.csv --site-id hospital_a -o results",
        allow_abbrev=False,
    )
    group = parser.add_argument_group("data")
    group.add_argument(
        "--cohort",
        required=True,
        metavar="FILE",
        help="one row per person: person_id, outcome (0 or 1) and one column of dosages per SNP, "
        "named by the SNP or as snp_<id>; text, plain or compressed, or parquet",
    )
    group.add_argument(
        "--instruments", required=True, metavar="FILE", help="file from the coordinator"
    )
    group.add_argument(
        "--covariates",
        metavar="FILE|NAMES",
        help="table with person_id and covariates, or columns of the cohort separated by commas",
    )
    group.add_argument(
        "--alleles",
        metavar="FILE",
        help="what the dosages count: columns snp, coded_allele, other_allele and, for palindromic "
        "SNPs, frequency; default: the instruments' effect alleles",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="columns snp and weight: score weights from data other than the instruments' GWAS",
    )
    group.add_argument(
        "--negative-controls",
        metavar="NAMES",
        help="columns of the cohort with outcomes that the exposure cannot cause, separated by "
        "commas, or 'all' for those named nc_outcome_*",
    )
    group = parser.add_argument_group("study")
    group.add_argument("--site-id", required=True, metavar="ID", help="of this site, such as 001")
    group.add_argument("--study-id", metavar="ID", help="of the study, the same at every site")
    group.add_argument(
        "--effect-range",
        type=float,
        default=1.0,
        metavar="X",
        help="largest log odds ratio per unit of exposure that the study considers "
        "(default %(default)s)",
    )
    group.add_argument(
        "--score",
        choices=("gamma", "inverse_variance"),
        default="gamma",
        help="score weights: the effects on the exposure, or those divided by their squared "
        "standard errors, as Medusa's (default %(default)s)",
    )
    group.add_argument(
        "--kappa",
        choices=("dosages", "allele_frequencies"),
        default="dosages",
        help="where the variances behind the exposure per unit of score come from "
        "(default %(default)s)",
    )
    group.add_argument(
        "--impute",
        choices=("cohort", "instruments"),
        default="cohort",
        help="whose allele frequency stands for a missing dosage (default %(default)s)",
    )
    group.add_argument(
        "--per-snp", action="store_true", help="also the association of each SNP by itself"
    )
    group.add_argument(
        "--min-count",
        type=int,
        default=5,
        metavar="N",
        help="smallest count of people that may leave the site (default %(default)s)",
    )
    group.add_argument(
        "--prior-variance",
        type=float,
        metavar="V",
        help="of a normal prior on the covariates' coefficients (default: none)",
    )
    group.add_argument(
        "--action",
        type=int,
        choices=(1, 2, 3),
        default=2,
        help="palindromic SNPs: 1 trust the letters, 2 read the strand off the frequencies and "
        "drop those left open, 3 drop all (default %(default)s)",
    )
    group.add_argument(
        "--eaf-tolerance",
        type=float,
        default=0.08,
        metavar="X",
        help="a frequency nearer to 0.5 than this does not tell the strand (default %(default)s)",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="folder for to_send and local"
    )
    group.add_argument("--threads", type=int, metavar="N", help="default: all processors")
    group.add_argument("--no-plot", action="store_true", help="draw no figure")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run_fit)


def run_fit(options: argparse.Namespace) -> int:
    """Fit, write both folders, and say what was found."""
    from mrfast import _validation as check
    from mrfast.federated.site_fit import fit_site
    from mrfast.io.tables import read_frame

    with options_named(_OPTIONS):
        check.integer("min_count", options.min_count, minimum=1)
        instruments = read_instruments(options.instruments)
        folder = Path(options.output)
        _refuse_other_files(folder)
        cohort = read_frame(options.cohort, texts=_TEXTS)
        with warnings_as_notes(options.quiet):
            profile = fit_site(
                cohort,
                instruments,
                covariates=_covariates(options.covariates),
                alleles=None
                if options.alleles is None
                else read_frame(options.alleles, texts=_TEXTS),
                weights=_weights(options.weights),
                negative_controls=_negative_controls(options.negative_controls),
                site_id=options.site_id,
                study_id=options.study_id,
                score=options.score,
                kappa=options.kappa,
                impute=options.impute,
                per_snp=options.per_snp,
                effect_range=options.effect_range,
                min_count=options.min_count,
                prior_variance=options.prior_variance,
                action=options.action,
                eaf_tolerance=options.eaf_tolerance,
                n_threads=options.threads,
                progress=not options.quiet,
            )
            sent = Path(profile.save(folder / TO_SEND))
    (folder / LOCAL).mkdir(exist_ok=True)
    for old in (folder / TO_SEND).glob("*.old"):  # an earlier export with other data
        os.replace(old, folder / LOCAL / old.name)
    written = _write_local(profile, sent, folder / LOCAL, draw=can_draw(options))
    if not options.quiet:
        for line in _summary(profile, len(cohort)):
            print(line)
        print(f"\nto send to the coordinator: {sent}")
        print("  read it before with: mrfast site show " + str(sent))
        print(f"stays at the site, in {folder / LOCAL}:")
        width = max(map(len, written))
        for name in written:
            print(f"  {name:<{width}}  {_LOCAL_FILES[name]}")
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Print what leaves the site."""
    from mrfast.federated.site_profile import SiteProfile

    profile = SiteProfile.load(options.file)
    if options.values:
        print(Path(options.file).read_text(encoding="utf-8"), end="")
    else:
        print(profile.describe())
    return 0


@contextmanager
def warnings_as_notes(quiet: bool) -> Iterator[None]:
    """Print the package's warnings in one line each, on standard error."""
    import sys

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MrfastWarning)
        yield
    for warning in caught:
        if not issubclass(warning.category, MrfastWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
        elif not quiet:
            text = " ".join(str(warning.message).splitlines())
            print(f"mrfast: note: {text}", file=sys.stderr)


def can_draw(options: argparse.Namespace) -> bool:
    """Whether figures are wanted and possible; says so where they are only wanted."""
    import sys

    from mrfast._optional import import_extra

    if options.no_plot:
        return False
    try:
        import_extra("matplotlib.figure", extra="plot", purpose="the figures")
    except MissingExtraError as error:
        if not options.quiet:
            print(f"mrfast: note: no figures: {error}", file=sys.stderr)
        return False
    return True


# ---------------------------------------------------------------------- input


def _covariates(text: str | None) -> pd.DataFrame | list[str] | None:
    """Table of the file, or names of columns."""
    from mrfast.io.tables import read_frame

    if text is None:
        return None
    path = Path(text)
    if path.exists():
        return read_frame(path, texts=_TEXTS)
    if path.suffix.lower() in (".csv", ".tsv", ".txt", ".gz", ".parquet") or len(path.parts) > 1:
        raise InvalidInputError(
            f"--covariates: expected an existing file or columns of the cohort, received {text}"
        )
    return _names("--covariates", text)


def _negative_controls(text: str | None) -> list[str] | bool | None:
    if text is None:
        return None
    return True if text == "all" else _names("--negative-controls", text)


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InvalidInputError(
            f"{option}: expected different names separated by commas, received {text!r}"
        )
    return names


def _weights(path: str | None) -> dict[str, float] | None:
    from mrfast import _validation as check
    from mrfast.io.tables import read_frame

    if path is None:
        return None
    table = read_frame(path, texts=_TEXTS)
    lacking = [name for name in ("snp", "weight") if name not in table.columns]
    if lacking:
        raise InvalidInputError(
            f"--weights: expected the columns snp and weight, received {path} without "
            + listed(lacking)
        )
    values = check.float_array("--weights", table["weight"].to_numpy(), ndim=1)
    weights = {str(snp): float(w) for snp, w in zip(table["snp"], values, strict=True)}
    if len(weights) < len(table):
        raise InvalidInputError(f"--weights: expected every SNP once, received {path}")
    return weights


# ---------------------------------------------------------------------- output


def _refuse_other_files(folder: Path) -> None:
    """Refuse to put results beside other files, which might then be sent, or to replace them."""
    for path in sorted((folder / TO_SEND).glob("*")) if (folder / TO_SEND).exists() else ():
        if not _is_site_file(path):
            raise InvalidInputError(
                f"--output: expected nothing but site files in {folder / TO_SEND}, which is sent "
                f"away, received {path.name}"
            )
    local = folder / LOCAL
    readme = local / "README.txt"
    ours = readme.is_file() and readme.read_bytes().startswith(_README[:30].encode())
    for name in _LOCAL_FILES:
        if not ours and (local / name).exists():
            raise InvalidInputError(
                f"--output: expected a folder without files of other origin, received {local}, "
                f"which has {name}"
            )


def _is_site_file(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return b'"kind": "mrfast site profile"' in stream.read(200)


def _write_local(profile: SiteProfile, sent: Path, folder: Path, *, draw: bool) -> list[str]:
    """Write what stays at the site; files of an earlier run that this one does not have go."""
    from mrfast._files import replace_file
    from mrfast.io.tables import write_table
    from mrfast.plots.federated_profiles import likelihood_profile_figure

    written = []

    def text(name: str, content: str) -> None:
        replace_file(folder / name, content.encode())
        written.append(name)

    text("README.txt", _README.format(file=f"../{TO_SEND}/{sent.name}"))
    text("leaves_the_site.txt", type(profile).load(sent).describe().rstrip("\n") + "\n")
    tables: dict[str, Any] = {
        "snps.tsv": _snp_table(profile),
        "per_snp.tsv": profile.per_snp,
        "negative_controls.tsv": profile.negative_controls,
    }
    for name, table in tables.items():
        if table is not None:
            write_table(table, folder / name)
            written.append(name)
    if draw:
        figure = likelihood_profile_figure(profile.profile, label=profile.site_id)
        figure.savefig(folder / "profile.png", format="png")
        written.append("profile.png")
    for name in _LOCAL_FILES:
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    return written


def _snp_table(profile: SiteProfile) -> pd.DataFrame:
    """What became of every instrument, with its weight in the score."""
    import pandas as pd

    score = profile.score
    table = pd.DataFrame(
        {
            "snp": pd.Series(list(score.snps), dtype=object),
            "effect_allele": pd.Series(list(score.effect_alleles), dtype=object),
            "other_allele": pd.Series(list(score.other_alleles), dtype=object),
            "weight": score.weights,
            "kappa_weight": profile.kappa_weights,
        }
    )
    if profile.harmonisation is not None:
        table = table.merge(profile.harmonisation, on="snp", how="left", validate="one_to_one")
    return table


def _summary(profile: SiteProfile, rows: int) -> list[str]:
    """Lines for standard output."""
    import math

    from mrfast.data.harmonisation import REASONS
    from mrfast.federated.allele_coding import SITE_REASONS
    from mrfast.plots.federated_profiles import set_text

    counts, used = profile.counts, profile.score.in_score
    lines = [
        f"site {profile.site_id}: {rows:,} people read, {counts.n:,} analysed "
        f"({counts.n_cases:,} cases, {counts.n_controls:,} controls)",
        f"score of {len(used)} of {len(profile.score)} instruments, weights by "
        f"{profile.score.kind}",
    ]
    if profile.harmonisation is not None:
        meaning = {**REASONS, **SITE_REASONS}
        reasons = profile.harmonisation["reason"].value_counts(sort=False)
        lines += [
            f"  {count:>4,}  {reason}: {meaning.get(str(reason), '')}"
            for reason, count in reasons.items()
        ]
    if math.isfinite(profile.mle):
        lines.append(
            f"log odds ratio per unit of score: {profile.mle:.4f} "
            f"(se {profile.std_error:.4f}), 95% limits {set_text([profile.interval()])}"
        )
    else:
        lines.append(
            f"the profile has no maximum: it {'rises' if profile.mle > 0 else 'falls'} over the "
            f"whole line (95% limits {set_text([profile.interval()])})"
        )
    if profile.has_kappa:
        lines.append(
            f"exposure per unit of score: {profile.kappa:.4f} (se {profile.kappa_std_error:.4f})"
        )
    return lines + [f"note: {message}" for message in profile.messages]
