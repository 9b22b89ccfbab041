"""Time of constrained maximum likelihood with perturbed data, against plain numpy.

The baseline fits data sets one by one: every model K by an alternation of sorting and Newton steps
from the best of 48 quantiles of the ratios, with the models that cannot count left out. It stops
at the first minimum, and is scaled from fewer data sets. The R package takes 26.6 s for 200
perturbed data sets of 100 SNPs. Times are of the processor, on one thread.

python benchmarks/bench_constrained_ml.py [--sizes 10 30 100 300] [--perturbations 200]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import mrfast

Float = NDArray[np.float64]
N = 100_000


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Shortest processor time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def associations(j: int, exposures: int, invalid: float) -> tuple[Float, Float, Float, Float]:
    """SNPs with effects 0.2, some pleiotropic; those of the exposures have shape (J, exposures)."""
    rng = np.random.default_rng(j)
    x = rng.uniform(0.03, 0.1, (j, exposures))
    if exposures > 1:
        x *= rng.choice([-1, 1], x.shape)
    sx, sy = np.full(x.shape, 0.006), np.full(j, 0.01)
    y = 0.2 * x.sum(axis=1) + sy * rng.normal(size=j)
    y[: round(invalid * j)] += 0.05 * rng.normal(size=round(invalid * j))
    return x + sx * rng.normal(size=x.shape), sx, y, sy


def plain(x: Float, sx: Float, y: Float, sy: Float, draws: int) -> float:
    """Mean of the model averages of perturbed data sets."""
    rng = np.random.default_rng(1)
    j, estimates = len(x), []
    vx, vy = sx**2, sy**2
    for _ in range(draws):
        a, b = rng.normal(x, sx), rng.normal(y, sy)
        grid = np.quantile(b / a, np.linspace(0, 1, 48))[:, None]
        scan = np.cumsum(np.sort((b - grid * a) ** 2 / (vy + grid**2 * vx), axis=1), axis=1)
        bound = (scan[:, ::-1].min(axis=0) + math.log(N) * np.arange(j)).min() + 60
        thetas, bics = [], []
        for k in range(min(j - 1, int(bound / math.log(N)) + 1)):
            theta = float(grid[np.argmin(scan[:, j - k - 1]), 0])
            for _ in range(20):
                v = vy + theta**2 * vx
                e = b - theta * a
                kept = np.argpartition(e**2 / v, j - k - 1)[: j - k]
                u, w, a_kept = e[kept] / v[kept], 1 / v[kept], a[kept]
                gradient = -(u * (a_kept + u * theta * vx[kept])).sum()
                slope = a_kept + 2 * u * theta * vx[kept]
                curvature = (w * slope**2 - u**2 * vx[kept]).sum()
                step = -gradient / abs(curvature)
                theta += step
                if abs(step) < 1e-8:
                    break
            q = np.sort((b - theta * a) ** 2 / (vy + theta**2 * vx))
            thetas.append(theta)
            bics.append(q[: j - k].sum() + k * math.log(N))
        bic = np.array(bics)
        weights = np.exp((bic.min() - bic) / 2)
        estimates.append(float((weights * np.array(thetas)).sum() / weights.sum()))
    return float(np.mean(estimates))


def main() -> None:
    """Print one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 30, 100, 300])
    parser.add_argument("--perturbations", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    count = options.perturbations
    print("SNPs  invalid  all models  perturbed data  plain numpy  ratio  three exposures")
    for j in options.sizes:
        for invalid in (0.0, 0.3):
            x, sx, y, sy = associations(j, 1, invalid)
            arrays = {
                "beta_exposure": x[:, 0],
                "se_exposure": sx[:, 0],
                "beta_outcome": y,
                "se_outcome": sy,
            }
            several = dict(zip(arrays, associations(j, 3, invalid), strict=True))

            def run(perturbations: int, arrays: dict[str, Float] = arrays) -> object:
                return mrfast.constrained_ml(**arrays, n=N, n_perturbations=perturbations, rng=1)

            def run_several(arrays: dict[str, Float] = several) -> object:
                return mrfast.mv_constrained_ml(**arrays, n=N, n_perturbations=count, rng=1)

            def run_plain(draws: int, arrays: dict[str, Float] = arrays) -> float:
                return plain(*arrays.values(), draws)

            models = seconds(lambda run=run: run(0), options.repeats)
            perturbed = seconds(lambda run=run: run(count), options.repeats)
            fewer = max(2, min(count, 600 // j))
            base = seconds(lambda run=run_plain, fewer=fewer: run(fewer), 1) * count / fewer
            joint = seconds(run_several, options.repeats)
            print(
                f"{j:4d}  {100 * invalid:6.0f}%  {models * 1e3:7.2f} ms  {perturbed * 1e3:11.2f} ms"
                f"  {base:9.2f} s  {base / perturbed:5.0f}  {joint * 1e3:12.1f} ms"
            )


if __name__ == "__main__":
    main()
