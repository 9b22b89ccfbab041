"""What the examples share: tables as two other studies would publish them, their files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mrfast.errors import InvalidInputError

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    import pandas as pd

__all__ = [
    "ABSENT",
    "CLEAR",
    "DIFFERENCES",
    "OTHER",
    "SNPS",
    "UNCLEAR",
    "as_published",
    "refuse_other_files",
    "snp_name",
    "write_example_table",
]

SNPS = 40
CLEAR, UNCLEAR, OTHER, ABSENT = 36, 37, 38, 39
"""SNPs on which harmonisation has to decide."""

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
_NOTE = "## Simulated data made by mrfast: no real people, SNPs or traits.\n"


def snp_name(index: int) -> str:
    """Name of a SNP of the examples."""
    return f"sim{index + 1:02d}"


DIFFERENCES = """\
The tables differ as real ones do: other names of the columns, another order of the rows, some
SNPs with the alleles exchanged or given for the other strand. {} and {} are
palindromic (A/T): the allele frequencies tell the strand of the first, not of the second. {}
has other alleles in the outcome, and {} is absent from it.""".format(
    *map(snp_name, (CLEAR, UNCLEAR, OTHER, ABSENT))
)


def as_published(
    exposure: pd.DataFrame, outcome: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give the SNPs names, places and alleles, and the tables the differences of two studies.

    Parameters
    ----------
    exposure, outcome : DataFrame, shape (SNPS, ...)
        eaf, beta, std_error, p_value and n of the same SNPs for the same alleles.
    rng : Generator

    Returns
    -------
    exposure, outcome : DataFrame
    """
    import numpy as np

    letters = [_PAIRS[i] for i in rng.integers(0, len(_PAIRS), SNPS)]
    letters[CLEAR] = letters[UNCLEAR] = "AT"
    letters[OTHER] = "AG"
    chromosome = np.sort(rng.integers(1, 23, SNPS))
    position = rng.integers(10**6, 4 * 10**7, SNPS)
    one, other = (
        table.assign(
            snp=[snp_name(i) for i in range(SNPS)],
            chromosome=chromosome,
            position=position,
            effect_allele=[pair[0] for pair in letters],
            other_allele=[pair[1] for pair in letters],
        )
        for table in (exposure, outcome)
    )
    return (
        one[list(_COLUMNS)].rename(columns={key: names[0] for key, names in _COLUMNS.items()}),
        _as_other_study(other, rng)[list(_COLUMNS)].rename(
            columns={key: names[1] for key, names in _COLUMNS.items()}
        ),
    )


def _as_other_study(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Exchange alleles, give some for the other strand, add and drop SNPs, shuffle the rows."""
    import pandas as pd

    rows: list[dict[Any, Any]] = table.to_dict("records")
    for i in rng.choice(CLEAR, 14, replace=False):
        row = rows[i]
        row["effect_allele"], row["other_allele"] = row["other_allele"], row["effect_allele"]
        row["beta"], row["eaf"] = -row["beta"], 1 - row["eaf"]
    for i in (*rng.choice(CLEAR, 6, replace=False), CLEAR):
        for name in ("effect_allele", "other_allele"):
            rows[i][name] = rows[i][name].translate(_COMPLEMENT)
    rows[OTHER]["other_allele"] = "C"
    rows.pop(ABSENT)
    for i in range(4):
        beta, std_error = float(rng.normal(0, 0.01)), 0.01
        extra = {"snp": snp_name(SNPS + i), "beta": beta, "std_error": std_error, "p_value": 0.5}
        rows.append({**rows[i], **extra})
    return pd.DataFrame([rows[i] for i in rng.permutation(len(rows))])


def write_example_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table with a line that says it is simulated; compressed for .gz, commas for .csv."""
    text = table.to_csv(
        sep="," if ".csv" in path.name else "\t",
        index=False,
        float_format="%.6g",
        na_rep="NA",
        lineterminator="\n",
    )
    data = (_NOTE + text).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)


def refuse_other_files(folder: Path, label: str, names: Sequence[str]) -> None:
    """Refuse to replace files in a folder whose README.txt does not begin with `label`."""
    readme = folder / "README.txt"
    if readme.is_file() and readme.read_bytes().startswith(label.encode()):
        return
    for name in names:
        if (folder / name).exists():
            raise InvalidInputError(
                f"--output: expected a folder without files of these names, received {folder}, "
                f"which has {name}"
            )
