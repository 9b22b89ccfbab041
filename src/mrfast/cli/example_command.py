"""``mrfast example``: small simulated data sets with known truth, to try the commands on."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mrfast.cli import federated_example, nonlinear_example, summary_example
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

__all__ = ["add_parser", "massive_example", "run_massive"]

_PEOPLE = {"exposure": 60_000, "outcome": 50_000}
_EFFECT = 0.25
_PLEIOTROPIC = 6
_FILES = ("exposure.tsv.gz", "outcome.tsv.gz", "README.txt")
_README = """\
SIMULATED DATA, made by "mrfast example massive --seed {seed}". No real people, SNPs or traits.

exposure.tsv.gz   associations of {snps} SNPs with the exposure, {n_exposure:,} people
outcome.tsv.gz    associations of most of these SNPs, and a few others, with the outcome,
                  {n_outcome:,} other people

{differences}

The truth
  causal effect of the exposure on the outcome: {effect}
  observed slope of the outcome on the exposure: {slope} (biased by confounding)
  SNPs that also act on the outcome directly, with these effects per allele:
{direct}
  All other SNPs are valid instruments.

Run next
  {command}
"""


class Example(NamedTuple):
    """Two association tables with the truth behind them.

    Attributes
    ----------
    exposure, outcome : DataFrame
        As two studies would publish them.
    beta_observational : float
        Slope of the outcome on the exposure in the exposure's study.
    direct_effects : mapping of str to float
        Of the pleiotropic SNPs, by name.
    """

    exposure: pd.DataFrame
    outcome: pd.DataFrame
    beta_observational: float
    direct_effects: Mapping[str, float]


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "example",
        help="write a small simulated example",
        description="Write a small simulated example with known truth, to try a command on.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(title="examples", metavar="COMMAND", required=True)
    kind = kinds.add_parser(
        "massive",
        help="two association tables for mrfast massive",
        description="Simulate two genome-wide association studies of SNPs, some of them "
        "pleiotropic, and write their tables with the truth.",
        allow_abbrev=False,
    )
    kind.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder to write")
    kind.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the simulation (default %(default)s)"
    )
    kind.add_argument("--quiet", action="store_true", help="print nothing but errors")
    kind.set_defaults(run=run_massive)
    federated_example.add_kind(kinds)
    summary_example.add_kind(kinds)
    nonlinear_example.add_kind(kinds)


def run_massive(options: argparse.Namespace) -> int:
    """Write the example and say what to run next."""
    from mrfast import _validation as check

    seed = check.integer("--seed", options.seed, minimum=0)
    folder = Path(options.output)
    refuse_other_files(folder, _README.partition(",")[0], _FILES)
    example = massive_example(seed)
    tables = {"exposure": example.exposure, "outcome": example.outcome}
    for name, table in tables.items():
        write_example_table(table, folder / f"{name}.tsv.gz")
    slope = f"{example.beta_observational:.4g}"
    command = shlex.join(
        [
            *("mrfast", "massive"),
            *(word for name in tables for word in (f"--{name}", str(folder / f"{name}.tsv.gz"))),
            *("--beta-observational", slope, "--overlap", "0", "--seed", str(seed)),
            *("-o", str(folder / "results")),
        ]
    )
    readme = _README.format(
        seed=seed,
        snps=SNPS,
        n_exposure=_PEOPLE["exposure"],
        n_outcome=_PEOPLE["outcome"],
        differences=DIFFERENCES,
        effect=_EFFECT,
        slope=slope,
        direct="\n".join(
            f"    {name}  {effect:+.4f}" for name, effect in example.direct_effects.items()
        ),
        command=command,
    )
    (folder / _FILES[-1]).write_text(readme, encoding="utf-8", newline="\n")
    if not options.quiet:
        print(f"simulated example in {folder}: {', '.join(_FILES)}")
        print(f"the true effect is {_EFFECT}, the observed slope {slope}; run next:")
        print(command)
    return 0


def massive_example(seed: int) -> Example:
    """Simulate two studies of one exposure and one outcome.

    Parameters
    ----------
    seed : int

    Returns
    -------
    Example
    """
    import numpy as np

    from mrfast.simulation import massive_model

    rng = np.random.default_rng(seed)
    eaf = rng.uniform(0.15, 0.85, SNPS)
    eaf[[CLEAR, UNCLEAR]] = 0.25, 0.48
    sd = np.sqrt(2 * eaf * (1 - eaf))
    alpha = np.zeros(SNPS)
    pleiotropic = np.sort(rng.choice(CLEAR, _PLEIOTROPIC, replace=False))
    sign = rng.choice([1.0, 1.0, 1.0, -1.0], _PLEIOTROPIC)  # mostly of one sign
    alpha[pleiotropic] = sign * rng.uniform(0.04, 0.09, _PLEIOTROPIC) / sd[pleiotropic]
    parameters = {
        "gamma": rng.uniform(0.03, 0.08, SNPS) / sd,
        "alpha": alpha,
        "beta": _EFFECT,
        "kappa_X": 0.6,
        "kappa_Y": 0.5,
        "sigma_X": 1.0,
        "sigma_Y": 1.0,
    }
    one, other = (
        massive_model(n, eaf, parameters, rng=rng, keep_individuals=False) for n in _PEOPLE.values()
    )
    statistics = one.summary_statistics(other)
    exposure, outcome = as_published(statistics.exposure, statistics.outcome, rng)
    return Example(
        exposure,
        outcome,
        statistics.beta_observational,
        {snp_name(int(i)): float(alpha[i]) for i in pleiotropic},
    )
