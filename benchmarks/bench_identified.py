"""Time of the posterior under the default prior, against plain numpy.

    python benchmarks/bench_identified.py [--quick]

The plain computation sums the same table over the same effects with vectorised numpy, all log
densities of spikes and slabs at once. CPU time of one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mrfast.bayes.identified import IdentifiedPosterior, identified_posterior
from mrfast.bayes.identified_prior import IdentifiedPrior
from mrfast.data.standardised import StandardisedAssociations


def simulated(j: int, n: int = 200_000, seed: int = 1) -> StandardisedAssociations:
    """One sample; three candidates in ten are pleiotropic."""
    rng = np.random.default_rng(seed)
    gamma = rng.normal(0, 0.04, j)
    alpha = np.where(rng.random(j) < 0.3, rng.normal(0, 0.02, j), 0.0)
    noise = np.full(j, 1 / n)
    s11, s221, slope = 0.95, 0.86, 0.3
    error = rng.standard_normal((2, j)) * np.sqrt(np.array([[s11], [s221]]) / n)
    return StandardisedAssociations(
        exposure=gamma + error[0],
        outcome=0.1 * gamma + alpha + slope * error[0] + error[1],
        noise_exposure=noise,
        noise_outcome=noise,
        noise_shared=noise,
        residual_exposure=s11,
        residual_slope=slope,
        residual_outcome=s221,
        n_exposure=n,
        n_outcome=n,
        n_shared=n,
        slope_sd=np.sqrt(s221 / s11 / n),
    )


def plain_log_marginal(s: StandardisedAssociations, g: float, b: np.ndarray) -> np.ndarray:
    """Log likelihood of the effects b (in units of eta), summed over the table, in numpy."""
    t = IdentifiedPrior().table
    n11, n22, n12 = s.noise_exposure, s.noise_outcome, s.noise_shared
    x, y = s.exposure / np.sqrt(s.residual_exposure), s.outcome / np.sqrt(s.residual_outcome)
    unit = np.sqrt(np.median(n22))
    mu = s.residual_slope * np.sqrt(s.residual_exposure / s.residual_outcome)
    rest = np.maximum(n22 - n12**2 / n11, 0)
    keep = g / (n11 + g)
    residual = (y - n12 * mu * x / (n11 + g) - b[:, None] * keep * x) / unit
    variance = n22 + mu**2 * rest + keep * n11 * (b[:, None] - mu * n12 / n11) ** 2
    variance /= unit**2
    direction = np.stack([0 * x, np.sign(x), x / np.sqrt(np.mean(x**2))])
    rows = np.empty((b.size, t.pi.size))
    before = None
    for h in range(t.pi.size):
        family = (t.mean[h], t.a0[h], t.a1[h], t.rho[h])
        if family != before:
            v0 = variance + t.a0[h] ** 2
            v1 = v0 + t.a1[h] ** 2
            mean = t.rho[h] * t.a1[h] * direction[t.mean[h]]
            spike = np.exp(-0.5 * residual**2 / v0) / np.sqrt(2 * np.pi * v0)
            slab = np.exp(-0.5 * (residual - mean) ** 2 / v1) / np.sqrt(2 * np.pi * v1)
            before = family
        rows[:, h] = np.log((1 - t.pi[h]) * spike + t.pi[h] * slab).sum(axis=1)
    rows += np.log(t.prior)
    top = rows.max(axis=1)
    return top + np.log(np.exp(rows - top[:, None]).sum(axis=1)) - s.J * np.log(unit)


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    best = np.inf
    for _ in range(repeats):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    repeats = 3 if quick else 30
    print("milliseconds per data set, 708 nodes; ratio: plain numpy for the likelihood alone")
    print(f"{'J':>5} {'posterior':>10} {'summary':>8} {'effects':>8} {'numpy':>8} {'ratio':>6}")
    for j in (10, 40) if quick else (10, 40, 120, 500, 2000):
        s = simulated(j)
        p: IdentifiedPosterior = identified_posterior(s, n_threads=1)
        count = max(3, repeats * 40 // max(40, j))
        whole = cpu_seconds(lambda s=s: identified_posterior(s, n_threads=1), count)
        summary = cpu_seconds(
            lambda s=s: identified_posterior(s, n_threads=1).effect.summary(0.95), count
        )
        b = np.linspace(p.edges[0, 0], p.edges[-1, 1], p.evaluations) / p.eta
        g = p.first_stage_prior.g
        plain = cpu_seconds(lambda s=s, g=g, b=b: plain_log_marginal(s, g, b), 1 if quick else 2)
        ours, theirs = p.model.log_marginal(b[:3], 1), plain_log_marginal(s, g, b[:3])
        assert np.allclose(ours, theirs, rtol=1e-8, atol=1e-6)
        print(
            f"{j:>5} {1e3 * whole:>10.2f} {1e3 * (summary - whole):>8.2f} {p.evaluations:>8} "
            f"{1e3 * plain:>8.1f} {plain / whole:>6.1f}"
        )
    sets = [simulated(50, seed=seed) for seed in range(20 if quick else 400)]
    for threads in (1, 2):
        begin = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(
                pool.map(lambda s: identified_posterior(s, n_threads=1).effect.summary(0.95), sets)
            )
        elapsed = time.perf_counter() - begin
        print(
            f"J = 50, {threads} Python thread(s): {1e3 * elapsed / len(sets):.2f} ms per data set"
        )


if __name__ == "__main__":
    main()
