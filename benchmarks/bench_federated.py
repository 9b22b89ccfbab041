"""Time of profile likelihoods and single-SNP scans, against vectorised Newton in numpy.

The baselines are what one would write in numpy: a profile by warm-started Newton steps along the
grid (one pass a point, started on the tangent), SNPs by Newton from the model without them, score
tests by matrix products over chunks of SNPs. Both sides use the same number of threads (BLAS has
those of OPENBLAS_NUM_THREADS). Below each profile: the time of a pass over the packed rows for
twenty values at once, per value, and that of adding up an array of the same size.

python benchmarks/bench_federated.py [--threads 2] [--repeats 5] [--large]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import mrfast
from mrfast.federated.logistic import LogisticModel, snp_scan

Float = NDArray[np.float64]


def seconds(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Shortest times; the functions take turns, so that other load meets all."""
    times = [np.inf] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            times[i] = min(times[i], time.perf_counter() - start)
    return times


def cohort(n: int, p: int, snps: int, seed: int) -> tuple[Float, NDArray[np.int8], Float]:
    """Outcome, dosages, covariates."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.1, 0.4, snps)
    dosages = np.empty((n, snps), dtype=np.int8)
    for j in range(snps):
        dosages[:, j] = rng.binomial(2, frequency[j], n)
    covariates = rng.normal(size=(n, p))
    eta = -1 + 0.1 * dosages[:, :8].sum(axis=1) + covariates @ rng.uniform(-0.2, 0.2, p)
    return (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(np.float64), dosages, covariates


def newton_step(y: Float, rows: Float, offset: Float | float, c: Float) -> tuple[Float, Float]:
    """Step and information; one row per column of the design, which numpy goes through fastest."""
    mean = 1 / (1 + np.exp(-(offset + c @ rows)))
    information = (rows * (mean * (1 - mean))) @ rows.T
    return np.linalg.solve(information, rows @ (y - mean)), information


def numpy_profile(y: Float, s: Float, x: Float, grid: Float) -> Float:
    """Log likelihood on a grid: the baseline."""
    rows = np.vstack([np.ones(len(y)), x.T])
    values = np.empty(grid.size)
    c = np.zeros(len(rows))
    for _ in range(8):
        c = c + newton_step(y, rows, grid[0] * s, c)[0]
    tangent, last = np.zeros(len(rows)), grid[0]
    for i, b in enumerate(grid):  # one pass a point, and what the Newton step still gains
        c, last = c + (b - last) * tangent, b
        eta = b * s + c @ rows
        decay = np.exp(-np.abs(eta))
        mean = np.where(eta >= 0, 1.0, decay) / (1 + decay)
        weighted = rows * (mean * (1 - mean))
        information, gradient = weighted @ rows.T, rows @ (y - mean)
        step, slope = np.linalg.solve(information, np.stack([gradient, weighted @ s], axis=1)).T
        values[i] = np.sum(y * eta - np.maximum(eta, 0) - np.log1p(decay)) + gradient @ step / 2
        c, tangent = c + step, -slope
    return values


def numpy_snps(y: Float, g: NDArray[np.int8], x: Float) -> Float:
    """Estimates of all SNPs: the baseline."""
    rows = np.vstack([np.ones(len(y)), x.T, np.zeros(len(y))])
    null = np.zeros(len(rows) - 1)
    for _ in range(7):
        null = null + newton_step(y, rows[:-1], 0.0, null)[0]
    estimates = np.empty(g.shape[1])
    for j in range(g.shape[1]):
        rows[-1] = g[:, j]
        c = np.append(null, 0.0)
        for _ in range(4):
            c = c + newton_step(y, rows, 0.0, c)[0]
        estimates[j] = c[-1]
    return estimates


def numpy_scores(y: Float, g: NDArray[np.int8], x: Float) -> Float:
    """One-step estimates of all SNPs: the baseline."""
    rows = np.vstack([np.ones(len(y)), x.T])
    c = np.zeros(len(rows))
    for _ in range(7):
        c = c + newton_step(y, rows, 0.0, c)[0]
    mean = 1 / (1 + np.exp(-(c @ rows)))
    weight, residual = mean * (1 - mean), y - mean
    weighted = rows * weight
    information = rows @ weighted.T
    estimates = np.empty(g.shape[1])
    for first in range(0, g.shape[1], 32):
        part = g[:, first : first + 32].astype(np.float64)
        cross = weighted @ part
        variance = weight @ part**2 - np.sum(cross * np.linalg.solve(information, cross), axis=0)
        estimates[first : first + 32] = residual @ part / variance
    return estimates


def report(name: str, goal: str, ours: float, base: float, difference: float) -> None:
    print(f"{name:46}{goal:>9}{ours:11.4f}{base:11.3f}{base / ours:9.1f}{difference:11.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="500,000 rows as well")
    parser.add_argument("--snps", type=int, default=1000, help="of the large scan")
    parser.add_argument("--seed", type=int, default=20201)
    options = parser.parse_args()
    threads, grid = options.threads, np.linspace(-3, 3, 601)
    weights = np.array([0.1, 0.15, 0.2, 0.25, 0.3, 0.12, 0.18, 0.22])

    columns = ("goal, s", "mrfast, s", "numpy, s", "ratio", "difference")
    widths = (9, 11, 11, 9, 11)
    head = "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))
    print(f"{f'seconds, {threads} threads':46}" + head)

    sizes = [(50_000, 10, "0.015")] + ([(500_000, 20, "0.6")] if options.large else [])
    for n, p, goal in sizes:
        y, g, x = cohort(n, p, 20, options.seed)
        s = g[:, :8] @ weights

        def ours(y: Float = y, s: Float = s, x: Float = x) -> mrfast.LikelihoodProfile:
            return mrfast.profile_likelihood(y, s, x, grid=grid, n_threads=threads)

        few = grid[270:331]  # the baseline's time is proportional to the points
        fast = seconds([ours], 4 * options.repeats)[0]
        exact = numpy_profile(y, s, x, few)
        slow = seconds(
            [lambda y=y, s=s, x=x, few=few: numpy_profile(y, s, x, few)],  # type: ignore[misc]
            2,
        )[0]
        slow *= grid.size / few.size
        found = ours()
        assert found.log_likelihood is not None
        difference = float(np.abs(found(few) - exact).max())
        report(f"profile, n = {n}, {p} covariates, 601 points", goal, fast, slow, difference)

        model = LogisticModel(y, s, x, n_threads=threads)
        at = np.full((20, p + 2), 0.01)
        rows = np.ones((n, p + 2))
        times = seconds(
            [
                lambda m=model, at=at: m._design.sums(at),  # type: ignore[misc]
                lambda m=model, at=at: m._design.sums(at, information=False),  # type: ignore[misc]
                lambda rows=rows: rows.sum(),  # type: ignore[misc]
            ],
            options.repeats,
        )
        print(
            f"    one pass, per value: {1e3 * times[0] / 20:.3f} ms, without information "
            f"{1e3 * times[1] / 20:.3f} ms; adding up the array {1e3 * times[2]:.3f} ms"
        )

    y, g, x = cohort(50_000, 10, 20, options.seed)
    scan = snp_scan(y, g, x, n_threads=threads)
    base = numpy_snps(y, g, x)
    times = seconds(
        [lambda: snp_scan(y, g, x, n_threads=threads), lambda: numpy_snps(y, g, x)],
        options.repeats,
    )
    difference = float(np.abs(scan.beta - base).max())
    report("full fits, n = 50000, 20 SNPs", "0.06", *times, difference)

    if options.large:
        y, g, x = cohort(500_000, 10, options.snps, options.seed)
        few_snps = g[:, :64]
        times = seconds([lambda: snp_scan(y, g, x, method="score", n_threads=threads)], 1)
        start = time.perf_counter()
        base = numpy_scores(y, few_snps, x)
        slow = (time.perf_counter() - start) * g.shape[1] / few_snps.shape[1]
        scan = snp_scan(y, few_snps, x, method="score", n_threads=threads)
        difference = float(np.abs(scan.beta - base).max())
        name = f"score tests, n = 500000, {g.shape[1]} SNPs"
        report(name, f"{60 * g.shape[1] / 1000:.0f}", times[0], slow, difference)
        times = seconds([lambda: snp_scan(y, few_snps, x, n_threads=threads)], 1)
        print(f"    full fits: {times[0] / 64:.4f} s per SNP")


if __name__ == "__main__":
    main()
