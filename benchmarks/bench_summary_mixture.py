"""Time of methods that choose or weigh SNPs, against plain numpy.

Contamination mixture and heterogeneity-penalised averaging: the same density on a grid, set by set
for the latter (baseline scaled from 2,000 sets). MR-Lasso: descent at 50
penalties. Times are of the processor, on one thread.

python benchmarks/bench_summary_mixture.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import mrfast

Float = NDArray[np.float64]
_SETS = 2_000


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Shortest processor time of a call; fast functions are called several times."""
    start = time.process_time()
    function()
    calls = max(1, int(0.02 / max(time.process_time() - start, 1e-6)))
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(calls):
            function()
        times.append((time.process_time() - start) / calls)
    return min(times)


def associations(j: int) -> dict[str, Float]:
    """SNPs with effect 0.3, of which a fifth are invalid."""
    rng = np.random.default_rng(j)
    x, s = rng.uniform(0.05, 0.2, j), np.full(j, 0.02)
    y = 0.3 * x + s * rng.normal(size=j)
    y[: j // 5] += rng.normal(0, 0.1, j // 5)
    return {"beta_exposure": x, "beta_outcome": y, "se_outcome": s}


def mixture_on_a_grid(x: Float, y: Float, s: Float, step: float = 0.01) -> Float:
    """Profile log-likelihood on the grid of the R package."""
    r, e = y / x, s / abs(x)
    wide = (1.5 * r.std(ddof=1)) ** 2 + e**2
    theta = np.arange((r - 2 * e).min(), (r + 2 * e).max(), step)
    invalid = -(r**2) / wide / 2 - np.log(wide) / 2
    valid = -(((theta[:, None] - r) / e) ** 2) / 2 - np.log(e)
    return np.asarray(np.maximum(valid, invalid).sum(axis=1))


def sets_on_a_grid(x: Float, y: Float, s: Float, sets: int) -> Float:
    """Density of the first sets of SNPs on 2,001 points."""
    r, e = y / x, s / abs(x)
    theta, density = np.linspace(-1, 1, 2_001), np.zeros(2_001)
    for number in range(1, sets + 1):
        chosen = np.array([number >> i & 1 for i in range(len(r))], dtype=bool)
        precision = 1 / e[chosen] ** 2
        mean = (r[chosen] * precision).sum() / precision.sum()
        q = ((r[chosen] - mean) ** 2 * precision).sum()
        variance = max(1.0, q / max(chosen.sum() - 1, 1)) / precision.sum()
        weight = np.prod(0.5 / e[chosen]) * 0.5 ** (~chosen).sum() * np.exp(-q / 2)
        density += weight / np.sqrt(variance) * np.exp(-((theta - mean) ** 2) / variance / 2)
    return density


def lasso_by_descent(x: Float, y: Float, s: Float, length: int = 50) -> list[float]:
    """Residual standard errors of the valid SNPs at descending penalties, down to 1% of the first.

    Slope and intercepts in turn until the slope changes by less than 1e-7.
    """
    a, c = x / s, y / s
    square, intercepts, slope = (a * a).sum(), np.zeros(len(x)), 0.0
    first = np.abs(c - a * (a * c).sum() / square).max()
    spreads = []
    for penalty in first * 10 ** np.linspace(0, -2, length):
        for _ in range(1_000):
            new = (a * (c - intercepts)).sum() / square
            residual = c - a * new
            intercepts = np.sign(residual) * np.maximum(np.abs(residual) - penalty, 0)
            if abs(new - slope) < 1e-7 * abs(new):
                break
            slope = new
        valid = intercepts == 0
        if valid.sum() > 1:
            own = (a[valid] * c[valid]).sum() / (a[valid] ** 2).sum()
            left = ((c - own * a)[valid] ** 2).sum()
            spreads.append(float(np.sqrt(left / (valid.sum() - 1))))
    return spreads


def main() -> None:
    """Print one line for each method and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{'work':<44} {'mrfast s':>10} {'numpy s':>10} {'ratio':>8}")

    def row(
        work: str, ours: Callable[[], object], plain: Callable[[], object], scale: float
    ) -> None:
        fast = seconds(ours, options.repeats)
        slow = scale * seconds(plain, 1 if scale > 1 else options.repeats)
        print(f"{work:<44} {fast:>10.3g} {slow:>10.3g} {slow / fast:>8.0f}", flush=True)

    for j in (10, 100, 1000):
        data = associations(j)
        arrays = tuple(data.values())
        row(
            f"contamination_mixture, {j} SNPs",
            lambda data=data: mrfast.contamination_mixture(**data),
            lambda arrays=arrays: mixture_on_a_grid(*arrays),
            1.0,
        )
    for j in (10, 16, 20, 24):
        data = associations(j)
        arrays = tuple(data.values())
        sets = min(_SETS, 2**j - 1)
        row(
            f"heterogeneity_penalised, {j} SNPs",
            lambda data=data: mrfast.heterogeneity_penalised(**data),
            lambda arrays=arrays, sets=sets: sets_on_a_grid(*arrays, sets),
            (2**j - 1) / sets,
        )
    for j in (10, 100, 1000):
        data = associations(j)
        arrays = tuple(data.values())
        row(
            f"mr_lasso, {j} SNPs",
            lambda data=data: mrfast.mr_lasso(**data),
            lambda arrays=arrays: lasso_by_descent(*arrays),
            1.0,
        )


if __name__ == "__main__":
    main()
