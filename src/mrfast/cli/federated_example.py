"""``mrfast example federated``: three simulated sites and the whole path through them."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mrfast.cli._example_studies import refuse_other_files, write_example_table

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Mapping

    import pandas as pd

__all__ = ["FederatedExample", "add_kind", "federated_example", "run_federated"]

_EFFECT = 0.4
_STUDY = "example"
_STRENGTH = 80.0  # F statistic of a SNP
_SNPS = 10
_SITES = ("hospital_a", "hospital_b", "003")
_PEOPLE = (4000, 3000, 600)
_PREVALENCE = (0.3, 0.12, 0.15)
_MISSING = 0.02
_COVARIATES_SITE, _SWAPPED_SITE, _LACKING_SITE = _SITES
_ABSENT, _AWKWARD = "rs4", "rs1"
_COLUMNS = {  # of the GWAS, in the manner of the GWAS catalogue
    "snp": "rsid",
    "eaf": "effect_allele_frequency",
    "std_error": "standard_error",
}
_LABEL = 'SIMULATED DATA, made by "mrfast example federated'
_README = """\
{label} --seed {seed}". No real people, SNPs or traits.

gwas.tsv       associations of {snps} independent SNPs with the exposure (F about {strength:.0f})
hospital_a/    {people[0]:,} people; the covariates are in a file of their own
hospital_b/    {people[1]:,} people; the dosages count the other allele, as alleles.tsv says
003/           {people[2]:,} people, few of them cases; lacks {absent}

Each folder is what one site has. Some dosages are missing. {awkward} is an identifier with
punctuation. The exposure is not in the cohorts: no site measured it. Age and sex move both the
exposure and the outcome; the sites adjust for them.

The truth
  log odds ratio of the outcome per unit of exposure, all else held fixed: {effect}
  what a fit on the genetic score, age and sex targets (the estimand): {estimand:.4f}
  It is smaller because odds ratios are not collapsible; docs/estimand.md derives it.

Run next. The first command, the pooling and the estimate are the coordinator's.
{commands}
"""


class FederatedExample(NamedTuple):
    """Three cohorts with the truth behind them.

    Attributes
    ----------
    gwas : DataFrame
        Associations with the exposure, as a study would publish them.
    cohorts : mapping of str to DataFrame
        By site: person_id, outcome, covariates, dosages.
    covariates, alleles : mapping of str to DataFrame
        By site, where it has them in a table of their own.
    awkward : str
        Identifier with punctuation.
    estimand : float
        What the sites' models estimate.
    """

    gwas: pd.DataFrame
    cohorts: Mapping[str, pd.DataFrame]
    covariates: Mapping[str, pd.DataFrame]
    alleles: Mapping[str, pd.DataFrame]
    awkward: str
    estimand: float


def add_kind(kinds: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the example to those of ``mrfast example``."""
    kind = kinds.add_parser(
        "federated",
        help="three sites for mrfast site, pool and estimate",
        description="Simulate the cohorts of three sites and a genome-wide association study of "
        "the exposure, and write them with the truth and the commands to run.",
        allow_abbrev=False,
    )
    kind.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder to write")
    kind.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the simulation (default %(default)s)"
    )
    kind.add_argument("--quiet", action="store_true", help="print nothing but errors")
    kind.set_defaults(run=run_federated)


def run_federated(options: argparse.Namespace) -> int:
    """Write the example and say what to run next."""
    from mrfast import _validation as check

    seed = check.integer("--seed", options.seed, minimum=0)
    folder = Path(options.output)
    tables = {
        "gwas.tsv": "gwas",
        **{f"{site}/cohort.csv.gz": "cohorts" for site in _SITES},
        f"{_COVARIATES_SITE}/covariates.csv": "covariates",
        f"{_SWAPPED_SITE}/alleles.tsv": "alleles",
    }
    refuse_other_files(folder, _LABEL, [*tables, "README.txt"])
    example = federated_example(seed)
    for name, source in tables.items():
        value = getattr(example, source)
        path = folder / name
        write_example_table(value if source == "gwas" else value[path.parent.name], path)
    commands = _commands(folder)
    readme = _README.format(
        label=_LABEL,
        seed=seed,
        snps=_SNPS,
        strength=_STRENGTH,
        people=_PEOPLE,
        absent=_ABSENT,
        awkward=example.awkward,
        effect=_EFFECT,
        estimand=example.estimand,
        commands="\n".join(f"  {command}" for command in commands),
    )
    (folder / "README.txt").write_text(readme, encoding="utf-8", newline="\n")
    if not options.quiet:
        print(f"simulated example in {folder}: {', '.join([*tables, 'README.txt'])}")
        print(f"the true effect is {_EFFECT}, the estimand {example.estimand:.3f}; run next:")
        print("\n".join(commands))
    return 0


def _commands(folder: Path) -> list[str]:
    """The whole path, from the instruments to the estimate."""
    instruments = str(folder / "instruments.json")
    commands = [
        ["instruments", "build", str(folder / "gwas.tsv"), "--p-value", "5e-8", "-o", instruments]
    ]
    sent = []
    for site in _SITES:
        here = folder / site
        words = ["site", "fit", "--cohort", str(here / "cohort.csv.gz")]
        words += ["--instruments", instruments, "--site-id", site, "--study-id", _STUDY]
        words += ["--covariates"]
        words += [str(here / "covariates.csv") if site == _COVARIATES_SITE else "age,sex"]
        words += ["--alleles", str(here / "alleles.tsv")] if site == _SWAPPED_SITE else []
        commands.append([*words, "--per-snp", "-o", str(here / "results")])
        sent.append(str(here / "results" / "to_send" / _sent_name(site)))
    commands.append(["site", "show", sent[0]])
    pooled = str(folder / "pooled.json")
    commands.append(["pool", *sent, "-o", pooled])
    commands.append(["estimate", pooled, "--leave-one-out", "-o", str(folder / "estimate")])
    return [shlex.join(["mrfast", *words]) for words in commands]


def _sent_name(site: str) -> str:
    return f"{_STUDY}.{site}.site.json"


def federated_example(seed: int) -> FederatedExample:
    """Simulate a GWAS of the exposure and three cohorts.

    Parameters
    ----------
    seed : int

    Returns
    -------
    FederatedExample
    """
    import pandas as pd

    from mrfast.simulation import federated_sites

    simulated = federated_sites(
        _PEOPLE,
        _SNPS,
        n_sites=len(_SITES),
        effect=_EFFECT,
        f_statistic=_STRENGTH,
        frequency_sd=0.25,
        prevalence=_PREVALENCE,
        missing=_MISSING,
        swapped={_SWAPPED_SITE: [f"rs{index + 1}" for index in range(_SNPS)]},
        lacking={_LACKING_SITE: [_ABSENT]},
        site_ids=_SITES,
        rng=seed,
    )
    table = simulated.instruments
    first = table[table["snp"] == _AWKWARD].iloc[0]
    awkward = f"chr1:1234567:{first['other_allele']}:{first['effect_allele']}"
    gwas = table.rename(columns=_COLUMNS).replace({"rsid": {_AWKWARD: awkward}})
    cohorts, covariates, alleles = {}, {}, {}
    for site in simulated:
        frame = site.frame.rename(columns={_AWKWARD: awkward})
        width = len(str(frame["person_id"].max())) + 1
        identifiers = frame["person_id"].astype(str).str.zfill(width)  # with a zero in front
        people = pd.DataFrame({"person_id": identifiers, "outcome": frame["outcome"]})
        known = pd.DataFrame(
            {
                "age": (60 + 10 * frame["confounder_1"]).round(1),
                "sex": frame["confounder_2"].map({0: "F", 1: "M"}),
            }
        )
        dosages = frame[[name for name in gwas["rsid"] if name in frame.columns]]
        if site.site_id == _COVARIATES_SITE:
            covariates[site.site_id] = pd.concat([people[["person_id"]], known], axis=1)[::-1]
            cohorts[site.site_id] = pd.concat([people, dosages], axis=1)
        else:
            cohorts[site.site_id] = pd.concat([people, known, dosages], axis=1)
        if site.site_id == _SWAPPED_SITE:
            alleles[site.site_id] = site.alleles.replace({"snp": {_AWKWARD: awkward}})
    return FederatedExample(gwas, cohorts, covariates, alleles, awkward, simulated.estimand)
