"""Time of harmonisation, beside a plain pandas merge.

    python benchmarks/bench_harmonisation.py [--rows 100000 1000000] [--repeats 5]

The baseline is what a competent pandas user writes for one exposure and one outcome: an inner
merge, then masks for equal, swapped and strand-flipped alleles and for palindromes. It has no loop
over rows. It lacks checks of the input, indels written D and I, SNPs with one allele, reasons and
the rows that only one side has; on these data it keeps the same rows, which is asserted.

TwoSampleMR 0.7.9 took 1.047 CPU seconds for 100,000 rows (R 4.2.2, one thread, median of 3, on
another occasion and a machine of the same kind): a scale, not a measurement of this run.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from timing import header, row, seconds

from mrfast.data.harmonisation import harmonise

COMPLEMENT = {"A": "T", "T": "A", "C": "G", "G": "C"}


def simulated(rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Exposure and outcome that share 10 of 11 SNPs; swaps, flips, palindromes, misfits."""
    rng = np.random.default_rng(seed)
    pool = rows * 11 // 10
    bases = np.array(list("ACGT"), dtype=object)
    effect = rng.integers(0, 4, pool)
    other = (effect + rng.integers(1, 4, pool)) % 4
    eaf = rng.uniform(0.01, 0.99, pool)

    def side(order: np.ndarray, first: np.ndarray, second: np.ndarray) -> pd.DataFrame:
        n = order.size
        return pd.DataFrame(
            {
                "snp": np.array([f"rs{i}" for i in order], dtype=object),
                "effect_allele": bases[first[order]],
                "other_allele": bases[second[order]],
                "eaf": np.clip(eaf[order] + rng.normal(0, 0.02, n), 0, 1).round(4),
                "beta": rng.normal(0, 0.02, n),
                "std_error": rng.uniform(0.005, 0.05, n),
            }
        )

    swap, flip, misfit = (rng.random(pool) < share for share in (0.4, 0.1, 0.01))
    first, second = np.where(swap, other, effect), np.where(swap, effect, other)
    first, second = (np.where(flip, 3 - codes, codes) for codes in (first, second))
    first = np.where(misfit, second, first)
    return (
        side(rng.permutation(pool)[:rows], effect, other),
        side(rng.permutation(pool)[:rows], first, second),
    )


def pandas_merge(exposure: pd.DataFrame, outcome: pd.DataFrame) -> pd.DataFrame:
    """Action 2 by an inner merge and masks."""
    both = exposure.merge(outcome, on="snp", suffixes=("_exposure", "_outcome"))
    a1, a2 = both["effect_allele_exposure"], both["other_allele_exposure"]
    b1, b2 = both["effect_allele_outcome"], both["other_allele_outcome"]
    palindromic = a1.map(COMPLEMENT) == a2
    same, swapped = (a1 == b1) & (a2 == b2), (a1 == b2) & (a2 == b1)
    c1, c2 = b1.map(COMPLEMENT), b2.map(COMPLEMENT)
    same |= ~palindromic & (a1 == c1) & (a2 == c2)
    swapped |= ~palindromic & (a1 == c2) & (a2 == c1)
    both["beta_outcome"] = both["beta_outcome"].where(~swapped, -both["beta_outcome"])
    both["eaf_outcome"] = both["eaf_outcome"].where(~swapped, 1 - both["eaf_outcome"])
    f, g = both["eaf_exposure"] - 0.5, both["eaf_outcome"] - 0.5
    ambiguous = palindromic & ~((f.abs() >= 0.08 - 1e-9) & (g.abs() >= 0.08 - 1e-9))
    opposite = palindromic & (f * g < 0)
    both["beta_outcome"] = both["beta_outcome"].where(~opposite, -both["beta_outcome"])
    both["eaf_outcome"] = both["eaf_outcome"].where(~opposite, 1 - both["eaf_outcome"])
    return both[(same | swapped) & ~ambiguous]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    header("pandas")
    for rows in options.rows:
        exposure, outcome = simulated(rows, seed=1)
        ours = harmonise(exposure, outcome).kept
        theirs = pandas_merge(exposure, outcome)
        assert ours["snp"].tolist() == theirs["snp"].tolist()
        np.testing.assert_allclose(ours["beta_outcome"], theirs["beta_outcome"])
        base = seconds(lambda e=exposure, o=outcome: pandas_merge(e, o), options.repeats)
        kept = seconds(lambda e=exposure, o=outcome: harmonise(e, o).kept, options.repeats)
        row(f"{rows} rows, those kept", kept, base)
        every = seconds(lambda e=exposure, o=outcome: harmonise(e, o).table, options.repeats)
        row(f"{rows} rows, all of them with reasons", every, base)


if __name__ == "__main__":
    main()
