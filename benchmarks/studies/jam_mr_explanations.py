"""Two numbers that explain the JAM-MR study: what an intercept costs, and what wider slabs give.

python benchmarks/studies/jam_mr_explanations.py

Prints the root mean squared error of two-stage least squares on all valid instruments with and
without an intercept (200 data sets), and that of the default prior with its own and with wider
slabs, with the coverage of the 95% interval (60 data sets of the study).
"""

from __future__ import annotations

from dataclasses import replace

import massive_jam_mr
import numpy as np

import mrfast


def two_stage_errors(n: int, sigma: float, replicates: int = 200) -> tuple[float, float]:
    """Error with an intercept and through the origin, all ten instruments valid, no effect."""
    squares = np.zeros(2)
    for seed in range(replicates):
        cohort = mrfast.simulation.jam_mr(n, 10, sigma=sigma, effect=0.0, rng=seed)
        assert cohort.genotypes is not None
        data = np.column_stack([cohort.genotypes, cohort.exposure, cohort.outcome]).astype(float)
        for place, used in enumerate((data - data.mean(axis=0), data)):
            g, x, y = used[:, :-2], used[:, -2], used[:, -1]
            fitted = g @ np.linalg.lstsq(g, x, rcond=None)[0]
            squares[place] += ((fitted @ y) / (fitted @ x)) ** 2
    with_intercept, without = np.sqrt(squares / replicates)
    return float(with_intercept), float(without)


def slab_errors(n_valid: int, replicates: int = 60) -> list[tuple[float, float]]:
    """Error and coverage with the default slabs and with wider ones, N = 100,000, sigma = 1."""
    base = mrfast.IdentifiedPrior()
    wide = replace(base, slab_sd=(*base.slab_sd, 40.0, 80.0, 160.0, 320.0))
    seed = np.random.SeedSequence([massive_jam_mr.SEED, 100_000, 1, 0, n_valid])
    medians, covered = np.empty((2, 2, replicates))
    for i, child in enumerate(seed.spawn(replicates)):
        cohort = mrfast.simulation.jam_mr(
            100_000,
            n_valid,
            sigma=1.0,
            effect=0.0,
            rng=np.random.default_rng(child),
            keep_individuals=False,
        )
        for place, prior in enumerate((base, wide)):
            effect = mrfast.massive(cohort.moments, prior=prior, method="exact").effect
            medians[place, i] = effect.median
            covered[place, i] = effect.ci_lower <= 0 <= effect.ci_upper
    errors = np.sqrt((medians**2).mean(axis=1))
    return [(float(e), float(c)) for e, c in zip(errors, covered.mean(axis=1), strict=True)]


def main() -> None:
    """Print both."""
    for sigma in (1.0, 4.0):
        print(f"N = 1,000, sigma = {sigma:g}: intercept, none:", two_stage_errors(1_000, sigma))
    for n_valid in (3, 4, 5):
        print(f"{n_valid} valid: (error, coverage), default and wide:", slab_errors(n_valid))


if __name__ == "__main__":
    main()
