"""Time of the sums over the models of LD blocks, per node, against Gray-code enumeration.

The baselines are the Gray-code enumeration with rank-one updates (numba) and one Cholesky factor
per model (numpy, all models stacked). The error is that of the log evidence against the latter.

python benchmarks/bench_ld.py [--sizes 4 6 8 10 12] [--nodes 512] [--repeats 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from mrfast._core import ld
from mrfast._runtime import symmetric_eigen

Float = NDArray[np.float64]


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Shortest time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@numba.njit
def gray_code(noise: Float, residual: Float, spike: float, slab: float, odds: float) -> float:
    """Log evidence of one node: every model is a rank-one update of the one before."""
    size = len(residual)
    model = np.zeros(size, dtype=np.bool_)
    inverse = np.empty((size, size))
    vector = np.empty(size)
    square = log_determinant = log_odds = 0.0
    largest, total = -np.inf, 0.0
    for step in range(2**size):
        if step % 256 == 0:
            covariance = noise.copy()
            for j in range(size):
                covariance[j, j] += slab if model[j] else spike
            inverse = np.linalg.inv(covariance)
            vector = inverse @ residual
            square = residual @ vector
            log_determinant = np.linalg.slogdet(covariance)[1]
        value = log_odds - 0.5 * (log_determinant + square)
        if value > largest:
            total = total * np.exp(largest - value) + 1.0
            largest = value
        else:
            total += np.exp(value - largest)
        j = 0
        while j < size and (step + 1) >> j & 1 == 0:
            j += 1
        if j == size:
            break
        change = spike - slab if model[j] else slab - spike
        log_odds += -odds if model[j] else odds
        model[j] = not model[j]
        pivot = 1 + change * inverse[j, j]
        factor = change / pivot
        pull = vector[j]
        column = inverse[j].copy()
        log_determinant += np.log(pivot)
        square -= factor * pull * pull
        for a in range(size):
            vector[a] -= factor * pull * column[a]
            f = factor * column[a]
            for b in range(size):
                inverse[a, b] -= f * column[b]
    prior = size * np.log1p(np.exp(odds))
    return largest + np.log(total) - prior - 0.5 * size * np.log(2 * np.pi)


def stacked(noise: Float, residual: Float, spike: float, slab: float, odds: float) -> float:
    """Log evidence of one node: one Cholesky factor per model."""
    size = len(residual)
    models = ((np.arange(2**size)[:, None] >> np.arange(size)) & 1).astype(bool)
    covariance = np.repeat(noise[None], len(models), axis=0)
    covariance[:, np.arange(size), np.arange(size)] += np.where(models, slab, spike)
    root = np.linalg.cholesky(covariance)
    z = np.linalg.solve(root, np.broadcast_to(residual[:, None], (len(models), size, 1)))[..., 0]
    log_determinant = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    value = odds * models.sum(axis=1) - log_determinant - 0.5 * (z**2).sum(axis=1)
    prior = size * np.log1p(np.exp(odds)) + 0.5 * size * np.log(2 * np.pi)
    return float(np.logaddexp.reduce(value) - prior)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 6, 8, 10, 12])
    parser.add_argument("--nodes", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=20201)
    options = parser.parse_args()
    n, repeats, odds = options.nodes, options.repeats, -1.0
    rng = np.random.default_rng(options.seed)

    print("microseconds per node on one thread")
    columns = ("B", "sum", "PIPs", "by slabs", "effects", "one node", "Gray code", "numpy", "error")
    print("  ".join(f"{name:>9}" for name in columns))
    for size in options.sizes:
        values, vectors = symmetric_eigen(
            0.7 ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
        )
        variances = np.tile(1 / (5000 * values), (n, 1))
        residuals = rng.normal(0, 0.03, (n, size))
        arrays = (vectors, variances, residuals, np.full(n, 1e-4), np.full(n, 0.09), np.empty(0))
        single = (vectors, *(np.ascontiguousarray(a[:1]) for a in arrays[1:5]), arrays[5])
        log_odds = np.full(size, odds)
        noise = (vectors * variances[0]) @ vectors.T
        one = (noise, residuals[0], 1e-4, 0.09, odds)

        def time_of(function: Callable[..., object], *given: object, **also: object) -> float:
            return 1e6 * seconds(lambda: function(*given, **also), repeats)

        exact = stacked(*one)
        found = ld.enumerate_block(*single, log_odds, inclusion=False, threads=1)[0][0]
        assert abs(gray_code(*one) - exact) < 1e-9
        times = [
            time_of(ld.enumerate_block, *arrays, log_odds, inclusion=False, threads=1) / n,
            time_of(ld.enumerate_block, *arrays, log_odds, inclusion=True, threads=1) / n,
            time_of(ld.enumerate_by_slabs, *arrays, inclusion=False, threads=1) / n,
            time_of(ld.effects, *arrays, log_odds, threads=1) / n,
            time_of(ld.enumerate_block, *single, log_odds, inclusion=False, threads=1),
            time_of(gray_code, *one),
            time_of(stacked, *one),
        ]
        print(
            f"{size:9d}  " + "  ".join(f"{t:9.3g}" for t in times) + f"  {abs(found - exact):9.1e}"
        )


if __name__ == "__main__":
    main()
