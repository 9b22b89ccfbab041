"""Time of SieveIV with its bands and tests, against dense numpy.

The baseline is `tests/sieve_reference.py`: the same method from its definitions, with a matrix of
one row a person for every basis. 20 genotypes of int8 (the baseline gets them as float64), a
quadratic effect. Checks of the data, the fit with all tests, and a uniform band on 50 points count.
One thread (set OPENBLAS_NUM_THREADS=1 for the baseline).

    python benchmarks/bench_sieve.py [--sizes 10000 100000 1000000] [--repeats 5]
                                     [--baseline-up-to 100000]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from timing import header, row, seconds

from mrfast.nonlinear import SieveIV

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import sieve_reference as reference


def cohort(n: int) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]]:
    """20 variants that explain half of the exposure, and f(x) = .3 (x + 2) (x - 1) + 1."""
    rng = np.random.default_rng(n)
    frequency = rng.uniform(0.2, 0.45, 20)
    genotypes = np.column_stack([rng.binomial(2, f, n).astype(np.int8) for f in frequency])
    effects = np.sqrt(rng.dirichlet(np.ones(20)) * 0.5 / (2 * frequency * (1 - frequency)))
    u = rng.standard_normal(n)
    x = (genotypes - 2 * frequency) @ effects + 0.35 * u
    x += np.sqrt(0.5 - 0.35**2) * rng.standard_normal(n)
    y = 0.3 * (x + 2) * (x - 1) + 1 - 0.7 * u + rng.standard_normal(n)
    return genotypes, x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--baseline-up-to", type=int, default=100_000)
    arguments = parser.parse_args()
    points = np.linspace(-1.9, 1.9, 50)
    header("dense numpy")
    for n in arguments.sizes:
        genotypes, x, y = cohort(n)
        dense = genotypes.astype(np.float64)

        def ours(data=(genotypes, x, y)) -> None:
            SieveIV(n_threads=1).fit(*data).effect(points, interval="uniform")

        def plain(data=(dense, x, y), n=n) -> None:
            reference.fit(*data, options=reference.Options.released(n)).band(points)

        repeats = max(2, arguments.repeats * 10_000 // n)
        baseline = None
        if n <= arguments.baseline_up_to:
            baseline = seconds(plain, min(repeats, 2))
        row(f"SieveIV, {n:,} people, 20 variants", seconds(ours, repeats), baseline)


if __name__ == "__main__":
    main()
