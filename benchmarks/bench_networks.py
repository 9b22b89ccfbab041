"""Time and error of the network estimators on 20 variants, a quadratic effect and confounding.

Error is the mean of squares between the curve and the truth, (0.3 (x + 2) (x - 1) + 1), on the
central 95% of the exposure, by its median and its 10% and 90% quantiles over data sets; `same
data` is the spread over seeds of the estimator on the first of them. `bootstrap` compares 50 cold
bootstrap fits with warm-started ones: their times, and their spread, which should be equal.

python benchmarks/bench_networks.py [--estimators quantile_iv deep_iv] [--sizes 10000 100000]
                                    [--h2 0.5] [--data-sets 20] [--bootstrap 0]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from mrfast.nonlinear import DeepIV, QuantileIV

Float = NDArray[np.float64]
ESTIMATORS = {"deep_iv": DeepIV, "quantile_iv": QuantileIV}


def truth(x: Float) -> Float:
    return 0.3 * (x + 2) * (x - 1) + 1


def simulated(n: int, h2: float, seed: int) -> tuple[NDArray[np.int8], Float, Float]:
    """Genotypes, exposure and outcome."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.2, 0.45, 20)
    genotypes = rng.binomial(2, frequency, (n, 20)).astype(np.int8)
    scaled = (genotypes - 2 * frequency) / np.sqrt(2 * frequency * (1 - frequency))
    confounder = rng.standard_normal(n)
    x = scaled @ np.sqrt(rng.dirichlet(np.ones(20)) * h2) + 0.35 * confounder
    x += rng.normal(0, np.sqrt(1 - h2 - 0.35**2), n)
    return genotypes, x, truth(x) - 0.7 * confounder + rng.standard_normal(n)


def error(fitted: DeepIV | QuantileIV, x: Float) -> float:
    grid = np.linspace(*np.quantile(x, [0.025, 0.975]), 2000)
    return float(np.mean((fitted.effect(grid) - truth(grid)) ** 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimators", nargs="+", default=["quantile_iv"], choices=ESTIMATORS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000])
    parser.add_argument("--h2", type=float, default=0.5)
    parser.add_argument("--data-sets", type=int, default=5)
    parser.add_argument("--bootstrap", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.estimators:
        for n in arguments.sizes:
            report(name, n, arguments)


def report(name: str, n: int, arguments: argparse.Namespace) -> None:
    estimator = ESTIMATORS[name]
    errors, times = [], []
    for seed in range(arguments.data_sets):
        z, x, y = simulated(n, arguments.h2, seed)
        start = time.process_time()
        fitted = estimator(rng=seed).fit(z, x, y)
        times.append(time.process_time() - start)
        errors.append(error(fitted, x))
    low, median, high = np.quantile(errors, [0.1, 0.5, 0.9])
    print(f"{name}, n = {n:,}, h2 = {arguments.h2}: {np.median(times):.2f} CPU s a fit")
    print(f"  error {median:.5f}, 10% to 90% of data sets {low:.5f} to {high:.5f}", flush=True)
    z, x, y = simulated(n, arguments.h2, 0)
    same = [error(estimator(rng=seed).fit(z, x, y), x) for seed in range(arguments.data_sets)]
    print(f"  same data: {min(same):.5f} to {max(same):.5f}", flush=True)
    grid = np.linspace(*np.quantile(x, [0.025, 0.975]), 50)
    for warm in (False, True) if arguments.bootstrap else ():
        start = time.process_time()
        fitted = estimator(n_bootstrap=arguments.bootstrap, warm_start=warm).fit(z, x, y)
        used = time.process_time() - start
        spread = fitted.curve_.replicates(grid, None).std(axis=0, ddof=1)
        print(
            f"  {arguments.bootstrap} bootstrap fits, {'warm' if warm else 'cold'}: "
            f"{used:.1f} CPU s, mean standard deviation {spread.mean():.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
