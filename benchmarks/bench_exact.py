"""Times of the exact posterior.

    python benchmarks/bench_exact.py                  # simulated data
    python benchmarks/bench_exact.py --pair FILE      # and BMI to psoriasis, 96 variants
    python benchmarks/bench_exact.py --pairs 10000    # exposure-outcome pairs, as many as said

Plain is numpy on whole arrays: the same sums, as a user would write them, in the same run. Under
the default prior: those over the 708 nodes at as many effects, without the rest of the work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import logsumexp

import mrfast
from mrfast._validation import Float
from mrfast.bayes.collapsed import collapsed_posterior, collapsed_problem
from mrfast.bayes.identified import IdentifiedPosterior, identified_posterior
from mrfast.data.standardised import StandardisedAssociations


def associations(j: int, n: float, seed: int, *, r2: float = 0.05) -> StandardisedAssociations:
    """One sample of n people, j candidates, a third of them pleiotropic, effect 0.3."""
    rng = np.random.default_rng(seed)
    gamma = rng.normal(0, np.sqrt(r2 / j), j)
    alpha = np.where(rng.random(j) < 0.3, rng.normal(0, np.sqrt(r2 / j), j), 0.0)
    noise = rng.normal(0, n**-0.5, (2, j))
    return StandardisedAssociations(
        exposure=gamma + noise[0],
        outcome=0.3 * gamma + alpha + 0.4 * noise[0] + 0.9 * noise[1],
        noise_exposure=np.full(j, 1 / n),
        noise_outcome=np.full(j, 1 / n),
        noise_shared=np.full(j, 1 / n),
        residual_exposure=1.0,
        residual_slope=0.4,
        residual_outcome=0.81,
        n_exposure=n,
        n_outcome=n,
        n_shared=n,
        slope_sd=0.9 / np.sqrt(n),
        slope_in_overlap=True,
    )


def massive_scale(s: StandardisedAssociations) -> mrfast.SpikeSlabPrior:
    """Slab by the empirical rule, spike well below the noise."""
    slab = np.sqrt(101 * float((s.exposure**2).mean()))
    return mrfast.SpikeSlabPrior(slab, slab / np.sqrt(1e3 * s.n_exposure * 0.01))


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """Shortest of some times."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def plain_value(s: StandardisedAssociations, prior: mrfast.SpikeSlabPrior) -> float:
    """One log density with numpy, at no confounding to speak of."""
    x, y = s.exposure / np.sqrt(s.residual_exposure), s.outcome / np.sqrt(s.residual_outcome)
    n, g, b = s.noise_exposure, prior.slab_sd**2 / 2, 0.3
    t = y - b * x
    out = -0.5 * (np.log(n + g) + x * x / (n + g))
    logs = [
        np.log(0.5) - 0.5 * (np.log(n + v) + t * t / (n + v))
        for v in (prior.spike_sd**2, prior.slab_sd**2)
    ]
    return float((out + np.logaddexp(*logs)).sum())


def plain_default(s: StandardisedAssociations, g: float, b: Float) -> Float:
    """Log likelihood of the effects b (in units of eta), summed over the default prior's nodes."""
    t = mrfast.IdentifiedPrior().table
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
    return logsumexp(rows + np.log(t.prior), axis=1) - s.J * np.log(unit)


def line(work: str, goal: str, seconds: float, plain: float | None) -> None:
    """One row of the table."""

    def text(value: float) -> str:
        for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
            if value * factor >= 1 or unit == "us":
                return f"{value * factor:.3g} {unit}"
        raise AssertionError

    other = "| | |" if plain is None else f"| {text(plain)} | {plain / seconds:,.0f} |"
    print(f"| {work} | {goal} | {text(seconds)} {other}", flush=True)


def kernels() -> None:
    """Single evaluations."""
    for j, goal in ((100, "0.5 us"), (10_000, "40 us")):
        s = associations(j, 4e5, 1)
        prior = massive_scale(s)
        problem = collapsed_problem(s, prior)
        seconds = min(problem.time_kernel("value", 2_000_000 // j) for _ in range(7))
        plain = best(partial(plain_value, s, prior), 20)
        line(f"log density, J = {j:,}", goal, seconds, plain)
        if j == 100:
            seconds = min(problem.time_kernel("curvature", 20_000) for _ in range(7))
            line("value, gradient, Hessian in the variances, J = 100", "1.2 us", seconds, None)


def posteriors() -> None:
    """Whole posteriors with their summaries, from standardised associations."""
    for j, goal in ((10, ""), (40, "4 ms"), (120, "10 ms"), (500, ""), (2_000, "")):
        s = associations(j, 2e5, 2)

        def default(s: StandardisedAssociations = s) -> IdentifiedPosterior:
            posterior = identified_posterior(s, n_threads=1)
            posterior.effect.summary(0.95)
            return posterior

        p = default()
        b = np.linspace(p.edges[0, 0], p.edges[-1, 1], p.evaluations) / p.eta
        g = p.first_stage_prior.g
        found = p.model.log_marginal(b[:3], 1)
        assert np.allclose(found, plain_default(s, g, b[:3]), rtol=1e-8, atol=1e-6)
        plain = best(partial(plain_default, s, g, b), 1)
        line(f"posterior, default prior, J = {j:,}", goal, best(default, 20), plain)
    for j, threads, goal in ((1_000, 1, "0.25 s"), (10_000, 2, "1 s")):
        s = associations(j, 4e5, 3, r2=0.1)
        scale = massive_scale(s)

        def exact(
            s: StandardisedAssociations = s,
            scale: mrfast.SpikeSlabPrior = scale,
            threads: int = threads,
        ) -> None:
            collapsed_posterior(s, scale, threads=threads).effect.summary(0.95)

        line(
            f"posterior, MASSIVE's prior, J = {j:,}, threads: {threads}", goal, best(exact, 3), None
        )


def pair(path: str) -> None:
    """BMI to psoriasis."""
    table = pd.read_csv(path)
    (eaf,) = (name for name in table.columns if "eaf" in name.lower())
    n = 378_274
    moments = mrfast.Moments.from_summary(
        beta_exposure=table["beta_XG"],
        se_exposure=table["se_XG"],
        n_exposure=n,
        beta_outcome=table["beta_YG"],
        se_outcome=table["se_YG"],
        n_outcome=n,
        eaf=table[eaf],
        beta_observational=0.0392207,
    )
    scale = mrfast.SpikeSlabPrior.empirical(moments)
    for name, prior, goal in (
        ("MASSIVE's prior", scale, "50 ms"),
        ("default prior", None, "9 ms"),
    ):

        def whole(prior: mrfast.SpikeSlabPrior | None = prior) -> None:
            result = mrfast.massive(moments, method="exact", prior=prior, n_threads=1)
            _ = result.effect, result.inclusion_probabilities, result.pleiotropy

        line(f"BMI to psoriasis, {name}, posterior and summaries", goal, best(whole, 10), None)


def many(count: int) -> None:
    """Pairs of 50 variants from GWAS tables to intervals, on two threads."""
    rng = np.random.default_rng(4)
    eaf = rng.uniform(0.05, 0.95, (count, 50))
    sd = np.sqrt(2 * eaf * (1 - eaf))
    n = 2e5
    gamma = rng.normal(0, 0.03, (count, 50))
    exposure = (gamma + rng.normal(0, n**-0.5, gamma.shape)) / sd
    outcome = (0.2 * gamma + rng.normal(0, n**-0.5, gamma.shape)) / sd

    def run(i: int) -> float:
        moments = mrfast.Moments.from_summary(
            beta_exposure=exposure[i],
            se_exposure=n**-0.5 / sd[i],
            n_exposure=n,
            beta_outcome=outcome[i],
            se_outcome=n**-0.5 / sd[i],
            n_outcome=n,
            eaf=eaf[i],
            beta_observational=None,
            overlap=0,
        )
        return mrfast.massive(moments, n_threads=1).effect.median

    run(0)
    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(count)))
    seconds = time.perf_counter() - begin
    goal = f"{30 * count / 10_000:g} s"
    line(f"{count:,} pairs of 50 variants, default prior, two threads", goal, seconds, None)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", help="CSV of BMI to psoriasis")
    parser.add_argument("--pairs", type=int, default=1_000)
    arguments = parser.parse_args()
    print("| work | goal | mrfast | plain numpy | ratio |\n|---|---|---|---|---|")
    kernels()
    posteriors()
    if arguments.pair:
        pair(arguments.pair)
    many(arguments.pairs)


if __name__ == "__main__":
    main()
