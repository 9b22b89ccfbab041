"""``mrfast example summary``: two association tables for the methods for summary data."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mrfast.cli._example_studies import (
    CLEAR,
    DIFFERENCES,
    SNPS,
    UNCLEAR,
    as_published,
    refuse_other_files,
    snp_name,
    write_example_table,
)

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Mapping

    import pandas as pd

__all__ = ["SummaryExample", "add_kind", "run_summary", "summary_example"]

_EFFECT = 0.2
_PEOPLE = {"exposure": 120_000, "outcome": 80_000}
_PLEIOTROPIC = 0.15  # of the SNPs
_FILES = ("exposure.tsv.gz", "outcome.tsv.gz", "README.txt")
_LABEL = 'SIMULATED DATA, made by "mrfast example summary'
_README = """\
{label} --seed {seed}". No real people, SNPs or traits.

exposure.tsv.gz   associations of {snps} SNPs with the exposure, {n_exposure:,} people
outcome.tsv.gz    associations of most of these SNPs, and a few others, with the outcome,
                  {n_outcome:,} other people

Associations are in standard deviations of the trait per standard deviation of the SNP's dosage.
{differences}

The truth
  causal effect of the exposure on the outcome: {effect}
  SNPs that also act on the outcome directly, with these effects:
{direct}
  All other SNPs are valid instruments.

Run next
{commands}
"""


class SummaryExample(NamedTuple):
    """Two association tables with the truth behind them.

    Attributes
    ----------
    exposure, outcome : DataFrame
        As two studies would publish them.
    direct_effects : mapping of str to float
        Of the pleiotropic SNPs, by name, per standard deviation of the dosage.
    """

    exposure: pd.DataFrame
    outcome: pd.DataFrame
    direct_effects: Mapping[str, float]


def add_kind(kinds: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the example to those of ``mrfast example``."""
    kind = kinds.add_parser(
        "summary",
        help="two association tables for mrfast mr",
        description="Simulate two genome-wide association studies of SNPs, some of them "
        "pleiotropic, and write their tables with the truth and the commands to run.",
        allow_abbrev=False,
    )
    kind.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder to write")
    kind.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the simulation (default %(default)s)"
    )
    kind.add_argument("--quiet", action="store_true", help="print nothing but errors")
    kind.set_defaults(run=run_summary)


def run_summary(options: argparse.Namespace) -> int:
    """Write the example and say what to run next."""
    from mrfast import _validation as check

    seed = check.integer("--seed", options.seed, minimum=0)
    folder = Path(options.output)
    refuse_other_files(folder, _LABEL, _FILES)
    example = summary_example(seed)
    files = {role: folder / f"{role}.tsv.gz" for role in _PEOPLE}
    for role, path in files.items():
        write_example_table(getattr(example, role), path)
    tables = [word for role, path in files.items() for word in (f"--{role}", str(path))]
    commands = [
        shlex.join(["mrfast", *words])
        for words in (
            ["harmonise", *tables, "-o", str(folder / "harmonised.tsv")],
            ["mr", *tables, "--seed", str(seed), "-o", str(folder / "results")],
            ["presso", *tables, "--seed", str(seed), "-o", str(folder / "presso")],
        )
    ]
    readme = _README.format(
        label=_LABEL,
        seed=seed,
        snps=SNPS,
        n_exposure=_PEOPLE["exposure"],
        n_outcome=_PEOPLE["outcome"],
        differences=DIFFERENCES,
        effect=_EFFECT,
        direct="\n".join(
            f"    {name}  {effect:+.4f}" for name, effect in example.direct_effects.items()
        ),
        commands="\n".join(f"  {command}" for command in commands),
    )
    (folder / "README.txt").write_text(readme, encoding="utf-8", newline="\n")
    if not options.quiet:
        print(f"simulated example in {folder}: {', '.join(_FILES)}")
        print(f"the true effect is {_EFFECT}; run next:")
        print("\n".join(commands))
    return 0


def summary_example(seed: int) -> SummaryExample:
    """Simulate two studies of one exposure and one outcome.

    Parameters
    ----------
    seed : int

    Returns
    -------
    SummaryExample
    """
    import numpy as np

    from mrfast.simulation import summary_data

    rng = np.random.default_rng(seed)
    simulated = summary_data(
        "outliers",
        SNPS,
        _PEOPLE["exposure"],
        _EFFECT,
        rng,
        n_outcome=_PEOPLE["outcome"],
        share=_PLEIOTROPIC,
    )
    one, other = simulated.tables(rng=rng)
    for table in (one, other):
        table.loc[[CLEAR, UNCLEAR], "eaf"] = 0.25, 0.48
    return SummaryExample(
        *as_published(one, other, rng),
        {snp_name(int(i)): float(simulated.alpha[i]) for i in np.flatnonzero(~simulated.valid)},
    )
