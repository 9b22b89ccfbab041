"""Time of clumping and of LD matrices from a PLINK panel, beside plain numpy.

    python benchmarks/bench_clump.py [--variants 20000] [--persons 503] [--repeats 3]

The baseline keeps the standardised dosages of all candidates in memory and takes the correlations
of an index SNP with its whole window by one matrix product (BLAS); no genotype
is missing, which spares it the pairwise sums. Both find the same clumps, which is asserted; reading
the files counts for mrfast only.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import mrfast

R2, KB = 0.01, 10_000


def simulated(prefix: Path, variants: int, persons: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Panel on disk, its GWAS table, and the dosages (variants, persons)."""
    rng = np.random.default_rng(1)
    dosage = np.zeros((variants, persons), dtype=np.int8)
    threshold = rng.uniform(-1, 1, variants)
    for _ in range(2):
        noise = rng.normal(size=(variants, persons)).astype(np.float32)
        for i in range(1, variants):  # correlations that decay along the chromosome
            noise[i] = 0.9 * noise[i - 1] + np.sqrt(1 - 0.81) * noise[i]
        dosage += noise > threshold[:, None]
    codes = np.array([3, 2, 0], dtype=np.uint8)[dosage]
    codes = np.pad(codes, ((0, 0), (0, -persons % 4))).reshape(variants, -1, 4)
    packed = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
    prefix.with_suffix(".bed").write_bytes(bytes([0x6C, 0x1B, 1]) + packed.tobytes())
    chromosome = 1 + np.arange(variants) * 22 // variants
    position = np.arange(variants) * 5000
    prefix.with_suffix(".bim").write_text(
        "".join(f"{chromosome[i]} rs{i} 0 {position[i]} A G\n" for i in range(variants))
    )
    prefix.with_suffix(".fam").write_text("".join(f"f p{i} 0 0 1 -9\n" for i in range(persons)))
    z = rng.normal(0, 6, variants)
    table = pd.DataFrame(
        {
            "snp": [f"rs{i}" for i in range(variants)],
            "chromosome": chromosome,
            "position": position,
            "effect_allele": "A",
            "other_allele": "G",
            "beta": 0.01 * z,
            "std_error": 0.01,
        }
    )
    return table, dosage


def plain(table: pd.DataFrame, dosage: np.ndarray) -> np.ndarray:
    """Greedy clumping with numpy; True for the SNPs that are kept."""
    x = dosage.astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    x /= np.sqrt((x**2).sum(axis=1, keepdims=True))
    chromosome, position = table["chromosome"].to_numpy(), table["position"].to_numpy()
    free, kept = np.ones(len(x), dtype=bool), np.zeros(len(x), dtype=bool)
    for i in np.argsort(-np.abs(table["beta"].to_numpy()), kind="stable"):
        if not free[i]:
            continue
        kept[i] = True
        near = np.flatnonzero(
            free & (chromosome == chromosome[i]) & (np.abs(position - position[i]) <= 1000 * KB)
        )
        free[near[(x[near] @ x[i]) ** 2 >= R2]] = False
        free[i] = False
    return kept


def seconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", type=int, default=20_000)
    parser.add_argument("--persons", type=int, default=503)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(
        f"CPU time, median of {options.repeats}; {options.variants} SNPs, {options.persons} people"
    )
    print(f"{'work':<32} {'mrfast':>10} {'numpy':>10} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "panel"
        table, dosage = simulated(prefix, options.variants, options.persons)

        def ours() -> mrfast.InstrumentSelection:
            return mrfast.clump(table, reference=prefix, r2=R2, kb=KB, n_threads=1)

        kept = ours().table["keep"].to_numpy()
        assert (kept == plain(table, dosage)).all()
        rows = [(f"clump, {kept.sum()} kept", ours, lambda: plain(table, dosage))]
        some = table.iloc[:1000]
        rows.append(
            (
                "LD matrix of 1,000 SNPs",
                lambda: mrfast.ld_matrix(prefix, some, n_threads=1),
                lambda: np.corrcoef(dosage[:1000]),
            )
        )
        for name, mine, theirs in rows:
            own, other = seconds(mine, options.repeats), seconds(theirs, options.repeats)
            print(f"{name:<32} {own:>9.3f}s {other:>9.3f}s {other / own:>7.1f}")


if __name__ == "__main__":
    main()
