"""PLINK files of simulated genotypes, written byte by byte: what the tests read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

CODE = {2: 0b00, 1: 0b10, 0: 0b11, -1: 0b01}  # copies of allele 1; -1 = missing


def genotypes(rng, persons, variants, *, missing=0.02, block=8):
    """Copies of allele 1, correlated within blocks of variants: (variants, persons)."""
    copies = np.zeros((variants, persons), dtype=int)
    for _ in range(2):
        shared = rng.normal(size=(-(-variants // block), persons)).repeat(block, axis=0)[:variants]
        weight = rng.uniform(0.0, 1.0, variants)[:, None]
        latent = weight * shared + np.sqrt(1 - weight**2) * rng.normal(size=copies.shape)
        copies += latent > rng.uniform(-0.8, 0.8, variants)[:, None]
    copies[rng.random(copies.shape) < missing] = -1
    return copies


def write_plink(prefix, copies, variants, *, nonfounders=()):
    """Write .bed, .bim and .fam; variants: chromosome, snp, position, allele_1, allele_2."""
    prefix = Path(prefix)
    persons = copies.shape[1]
    rows = [bytes([0x6C, 0x1B, 0x01])]
    for row in copies:
        codes = [CODE[int(value)] for value in row] + [0] * (-persons % 4)
        rows.append(
            bytes(
                codes[i] | codes[i + 1] << 2 | codes[i + 2] << 4 | codes[i + 3] << 6
                for i in range(0, len(codes), 4)
            )
        )
    prefix.with_suffix(".bed").write_bytes(b"".join(rows))
    lines = [
        f"{v.chromosome}\t{v.snp}\t0\t{v.position}\t{v.allele_1}\t{v.allele_2}\n"
        for v in variants.itertuples()
    ]
    prefix.with_suffix(".bim").write_text("".join(lines))
    parents = ["mum" if i in set(nonfounders) else "0" for i in range(persons)]
    lines = [f"f{i} p{i} 0 {parents[i]} 1 -9\n" for i in range(persons)]
    prefix.with_suffix(".fam").write_text("".join(lines))
    return prefix


def variant_table(rng, n, *, chromosomes=3, span=5_000_000):
    """Variants in order, with alleles that are no palindromes."""
    chromosome = np.sort(rng.integers(1, chromosomes + 1, n))
    position = np.concatenate(
        [np.sort(rng.integers(1, span, (chromosome == c).sum())) for c in np.unique(chromosome)]
    )
    pairs = rng.choice(["A/G", "C/T", "G/A", "T/C", "AC/A"], n)
    return pd.DataFrame(
        {
            "chromosome": chromosome,
            "snp": [f"rs{i}" for i in range(n)],
            "position": position,
            "allele_1": [pair.split("/")[0] for pair in pairs],
            "allele_2": [pair.split("/")[1] for pair in pairs],
        }
    )


def slow_correlation(x, y, keep=None):
    """Pearson correlation of the copies, over the persons with both."""
    both = (x >= 0) & (y >= 0)
    if keep is not None:
        both &= keep
    x, y = x[both], y[both]
    if len(x) < 1 or x.std() == 0 or y.std() == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])
