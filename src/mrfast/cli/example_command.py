"""``mrfast example``: small simulated data sets with known truth, to try the commands on."""

from __future__ import annotations

import argparse
import gzip
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mrfast.cli import federated_example
from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Mapping
    from typing import Any

    import numpy as np
    import pandas as pd

__all__ = ["add_parser", "massive_example", "run_massive"]

_SNPS = 40
_PEOPLE = {"exposure": 60_000, "outcome": 50_000}
_EFFECT = 0.25
_PLEIOTROPIC = 6
_CLEAR, _UNCLEAR, _OTHER, _ABSENT = 36, 37, 38, 39  # SNPs on which harmonisation has to decide
_PAIRS = ("AC", "AG", "CA", "CT", "GA", "GT", "TC", "TG")
_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_COLUMNS = {  # names in the exposure's and the outcome's table
    "chromosome": ("chromosome", "CHR"),
    "position": ("base_pair_location", "BP"),
    "snp": ("rsid", "SNP"),
    "effect_allele": ("effect_allele", "A1"),
    "other_allele": ("other_allele", "A2"),
    "eaf": ("effect_allele_frequency", "FREQ1"),
    "beta": ("beta", "BETA"),
    "std_error": ("standard_error", "SE"),
    "p_value": ("p_value", "P"),
    "n": ("n", "N"),
}
_FILES = ("exposure.tsv.gz", "outcome.tsv.gz", "README.txt")
_NOTE = "## Simulated data made by mrfast: no real people, SNPs or traits.\n"

_README = """\
SIMULATED DATA, made by "mrfast example massive --seed {seed}". No real people, SNPs or traits.

exposure.tsv.gz   associations of {snps} SNPs with the exposure, {n_exposure:,} people
outcome.tsv.gz    associations of most of these SNPs, and a few others, with the outcome,
                  {n_outcome:,} other people

The tables differ as real ones do: other names of the columns, another order of the rows, some
SNPs with the alleles exchanged or given for the other strand. {clear} and {unclear} are
palindromic (A/T): the allele frequencies tell the strand of the first, not of the second. {other}
has other alleles in the outcome, and {absent} is absent from it.

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


def run_massive(options: argparse.Namespace) -> int:
    """Write the example and say what to run next."""
    from mrfast import _validation as check

    seed = check.integer("--seed", options.seed, minimum=0)
    folder = Path(options.output)
    _refuse_other_files(folder)
    example = massive_example(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"exposure": example.exposure, "outcome": example.outcome}
    for name, table in tables.items():
        text = _NOTE + table.to_csv(
            sep="\t", index=False, float_format="%.6g", na_rep="NA", lineterminator="\n"
        )
        (folder / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
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
        snps=_SNPS,
        n_exposure=_PEOPLE["exposure"],
        n_outcome=_PEOPLE["outcome"],
        clear=_name(_CLEAR),
        unclear=_name(_UNCLEAR),
        other=_name(_OTHER),
        absent=_name(_ABSENT),
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


def _refuse_other_files(folder: Path) -> None:
    """Refuse to replace files that are not an example's."""
    readme = folder / _FILES[-1]
    label = _README.partition(",")[0]
    if readme.is_file() and readme.read_bytes().startswith(label.encode()):
        return
    for name in _FILES:
        if (folder / name).exists():
            raise InvalidInputError(
                f"--output: expected a folder without files of these names, received {folder}, "
                f"which has {name}"
            )


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
    eaf = rng.uniform(0.15, 0.85, _SNPS)
    eaf[[_CLEAR, _UNCLEAR]] = 0.25, 0.48
    sd = np.sqrt(2 * eaf * (1 - eaf))
    alpha = np.zeros(_SNPS)
    pleiotropic = np.sort(rng.choice(_CLEAR, _PLEIOTROPIC, replace=False))
    sign = rng.choice([1.0, 1.0, 1.0, -1.0], _PLEIOTROPIC)  # mostly of one sign
    alpha[pleiotropic] = sign * rng.uniform(0.04, 0.09, _PLEIOTROPIC) / sd[pleiotropic]
    parameters = {
        "gamma": rng.uniform(0.03, 0.08, _SNPS) / sd,
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
    letters = [_PAIRS[i] for i in rng.integers(0, len(_PAIRS), _SNPS)]
    letters[_CLEAR] = letters[_UNCLEAR] = "AT"
    letters[_OTHER] = "AG"
    chromosome = np.sort(rng.integers(1, 23, _SNPS))
    position = rng.integers(10**6, 4 * 10**7, _SNPS)
    exposure, outcome = (
        table.assign(
            snp=[_name(i) for i in range(_SNPS)],
            chromosome=chromosome,
            position=position,
            effect_allele=[pair[0] for pair in letters],
            other_allele=[pair[1] for pair in letters],
        )
        for table in (statistics.exposure, statistics.outcome)
    )
    return Example(
        exposure[list(_COLUMNS)].rename(columns={key: names[0] for key, names in _COLUMNS.items()}),
        _as_other_study(outcome, rng)[list(_COLUMNS)].rename(
            columns={key: names[1] for key, names in _COLUMNS.items()}
        ),
        statistics.beta_observational,
        {_name(int(i)): float(alpha[i]) for i in pleiotropic},
    )


def _as_other_study(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Exchange alleles, give some for the other strand, add and drop SNPs, shuffle the rows."""
    import pandas as pd

    rows: list[dict[Any, Any]] = table.to_dict("records")
    for i in rng.choice(_CLEAR, 14, replace=False):
        row = rows[i]
        row["effect_allele"], row["other_allele"] = row["other_allele"], row["effect_allele"]
        row["beta"], row["eaf"] = -row["beta"], 1 - row["eaf"]
    for i in (*rng.choice(_CLEAR, 6, replace=False), _CLEAR):
        for name in ("effect_allele", "other_allele"):
            rows[i][name] = rows[i][name].translate(_COMPLEMENT)
    rows[_OTHER]["other_allele"] = "C"
    rows.pop(_ABSENT)
    for i in range(4):
        beta, std_error = float(rng.normal(0, 0.01)), 0.01
        extra = {"snp": _name(_SNPS + i), "beta": beta, "std_error": std_error, "p_value": 0.5}
        rows.append({**rows[i], **extra})
    return pd.DataFrame([rows[i] for i in rng.permutation(len(rows))])


def _name(index: int) -> str:
    return f"sim{index + 1:02d}"
