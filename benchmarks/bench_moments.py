"""Time of the moments of a cohort, against numpy's product of single-precision chunks.

python benchmarks/bench_moments.py [--n 500000] [--candidates 100] [--repeats 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mrfast.data.individual import accumulate
from mrfast.simulation import massive_model


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Shortest time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def product(genotypes: NDArray[np.int8], rows: int = 4096) -> NDArray[np.float32]:
    """G'G, by numpy alone: the baseline."""
    total = np.zeros((genotypes.shape[1],) * 2, dtype=np.float32)
    for start in range(0, len(genotypes), rows):
        g = genotypes[start : start + rows].astype(np.float32)
        total += g.T @ g
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=500_000, help="people")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=20201)
    options = parser.parse_args()
    n, j, repeats = options.n, options.candidates, options.repeats

    rng = np.random.default_rng(options.seed)
    eaf = rng.uniform(0.1, 0.9, j)
    truth = {
        "gamma": rng.normal(0, 0.1, j),
        "alpha": rng.normal(0, 0.1, j),
        "beta": 0.3,
        "kappa_X": 1.0,
        "kappa_Y": 1.0,
        "sigma_X": 1.0,
        "sigma_Y": 1.0,
    }
    start = time.perf_counter()
    massive_model(100, eaf, truth, rng=1)
    print(f"first simulation, compilation or loading included: {time.perf_counter() - start:.2f} s")
    for keep in (True, False):
        elapsed = seconds(
            lambda keep=keep: (
                massive_model(  # type: ignore[misc]
                    n, eaf, truth, rng=1, keep_individuals=keep
                ).moments
            ),
            1,
        )
        kept = "individuals kept" if keep else "streamed"
        print(f"simulation of {n} x {j} and its moments, {kept}: {elapsed:.2f} s")

    cohort = massive_model(n, eaf, truth, rng=1)
    g, x, y = cohort.genotypes, cohort.exposure, cohort.outcome
    assert g is not None
    assert x is not None
    assert y is not None
    covariates = rng.standard_normal((n, 10))
    missing = rng.random((n, j), dtype=np.float32) < 0.01
    with_missing = np.where(missing, np.int8(-1), g)
    with_nan = np.where(missing, np.float32(np.nan), g.astype(np.float32))
    fractional = g.astype(np.float32) + rng.random((n, j), dtype=np.float32) / 8
    cases: dict[str, tuple[NDArray[np.generic], NDArray[np.float64] | None]] = {
        "int8": (g, None),
        "int8, 10 covariates": (g, covariates),
        "int8, 1% missing": (with_missing, None),
        "float32, whole numbers": (g.astype(np.float32), None),
        "float32, whole numbers, 1% missing": (with_nan, None),
        "float32, fractional": (fractional, None),
    }
    print(f"\n{'moments of':36}{'mrfast, s':>12}{'product, s':>12}{'ratio':>8}")
    for name, (dosages, c) in cases.items():
        base, ours = np.inf, np.inf
        for _ in range(repeats):  # interleaved, so that other load meets both
            base = min(base, seconds(lambda: product(g), 1))
            ours = min(
                ours,
                seconds(
                    lambda d=dosages, c=c: accumulate(d, x, y, c).second_moments(),  # type: ignore[misc]
                    1,
                ),
            )
        print(f"{name:36}{ours:12.3f}{base:12.3f}{ours / base:8.2f}")


if __name__ == "__main__":
    main()
