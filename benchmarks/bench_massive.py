"""Time of the Laplace evidence and of whole runs, against plain numpy and scipy.

    python benchmarks/bench_massive.py [--pair FILE] [--quick]

The plain computation is what a competent user would write: L-BFGS-B in all 2J + 5 parameters with
a vectorised analytic gradient from the three starting points of MASSIVE, and Laplace's term from
the full Hessian. Kernel times are those of loops in C++; API times include the Python call.
--pair takes a table with columns eaf, beta_XG, se_XG, beta_YG, se_YG; by default the pair is
simulated in the size of BMI and psoriasis (96 variants, 378,274 people).
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

import mrfast
from mrfast.bayes.evidence import posterior_kernel
from mrfast.bayes.model import JointPosterior


def simulated_pair(j: int, n: int, seed: int = 1, rho: float = 0.0) -> mrfast.Moments:
    """Summary moments with variants as strong as those of BMI (2% of the variance in all)."""
    rng = np.random.default_rng(seed)
    eaf = rng.uniform(0.1, 0.9, j)
    sd = np.sqrt(2 * eaf * (1 - eaf))
    strength = rng.uniform(0.6, 1.6, j) * np.sqrt(0.02 / j)
    pleiotropy = np.where(rng.random(j) < 0.05, rng.normal(0, 2 * strength), 0)
    se = 1 / (np.sqrt(n) * sd)
    return mrfast.Moments.from_summary(
        beta_exposure=strength / sd + rng.normal(0, se),
        se_exposure=se,
        n_exposure=n,
        beta_outcome=(0.08 * strength + pleiotropy) / sd + rng.normal(0, se),
        se_outcome=se,
        n_outcome=n,
        eaf=eaf,
        beta_observational=0.04,
        ld=rho ** np.abs(np.subtract.outer(np.arange(j), np.arange(j))) if rho else None,
    )


def table_pair(path: Path) -> mrfast.Moments:
    """Moments of the BMI to psoriasis table."""
    table = pd.read_csv(path)
    return mrfast.Moments.from_summary(
        beta_exposure=table["beta_XG"],
        se_exposure=table["se_XG"],
        n_exposure=378_274,
        beta_outcome=table["beta_YG"],
        se_outcome=table["se_YG"],
        n_outcome=378_274,
        eaf=table["eaf"],
        beta_observational=np.log(1.04),
    )


def plain_log_evidence(
    moments: mrfast.Moments, model: np.ndarray, prior: mrfast.SpikeSlabPrior
) -> float:
    """Laplace's evidence by L-BFGS-B in 2J + 5 dimensions, numpy and scipy only."""
    s = moments.sufficient
    j = moments.J
    h1, h2 = s.coefficients
    precision_alpha = np.where(model, prior.slab_sd**-2, prior.spike_sd**-2)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        gamma, alpha = x[:j], x[j : 2 * j]
        b, kx, ky, lx, ly = x[2 * j :]
        ex, ey, k2 = np.exp(-lx), np.exp(-ly), 1 + kx**2 + ky**2
        b1, b2 = h1 * ex, h2 * ey - b * h1 * ex
        e1, e2 = b1 - gamma, b2 - alpha
        r1, r2 = ex, s.residual_slope * ey - b * ex
        w = np.array([[1 + ky**2, -kx * ky], [-kx * ky, 1 + kx**2]]) / k2
        m11 = e1 @ e1 + s.residual_exposure * r1**2
        m12 = e1 @ e2 + s.residual_exposure * r1 * r2
        m22 = e2 @ e2 + s.residual_exposure * r2**2 + s.residual_outcome * ey**2
        trace = w[0, 0] * m11 + 2 * w[0, 1] * m12 + w[1, 1] * m22
        value = (
            0.5 * s.n * (2 * lx + 2 * ly + np.log(k2) + trace)
            + 0.5 * (gamma @ gamma / prior.slab_sd**2 + alpha @ (precision_alpha * alpha))
            + 0.5 * (b / prior.effect_sd) ** 2
            + 0.5 * (kx**2 + ky**2) / prior.confounding_sd**2
        )
        u1, u2 = w[0, 0] * e1 + w[0, 1] * e2, w[0, 1] * e1 + w[1, 1] * e2
        v1 = w[0, 0] * r1 + w[0, 1] * r2
        v2 = w[0, 1] * r1 + w[1, 1] * r2
        x1 = u1 @ b1 + s.residual_exposure * v1 * ex
        x2 = u2 @ b1 + s.residual_exposure * v2 * ex
        y2 = (
            u2 @ (h2 * ey)
            + s.residual_exposure * v2 * s.residual_slope * ey
            + w[1, 1] * s.residual_outcome * ey**2
        )
        kk = kx**2 * m11 + 2 * kx * ky * m12 + ky**2 * m22
        gradient = np.empty_like(x)
        gradient[:j] = -s.n * u1 + gamma / prior.slab_sd**2
        gradient[j : 2 * j] = -s.n * u2 + precision_alpha * alpha
        gradient[2 * j] = -s.n * x2 + b / prior.effect_sd**2
        gradient[2 * j + 1] = (
            s.n * (kx / k2 - (kx * m11 + ky * m12) / k2 + kx * kk / k2**2)
            + kx / prior.confounding_sd**2
        )
        gradient[2 * j + 2] = (
            s.n * (ky / k2 - (kx * m12 + ky * m22) / k2 + ky * kk / k2**2)
            + ky / prior.confounding_sd**2
        )
        gradient[2 * j + 3] = s.n * (1 - x1 + b * x2)
        gradient[2 * j + 4] = s.n * (1 - y2)
        return value / s.n, gradient / s.n

    kernel = posterior_kernel(moments, prior)
    terms = []
    for kx, ky in kernel.massive_starts():
        k1, k2 = 1 + kx**2, 1 + kx**2 + ky**2
        lx = 0.5 * np.log(s.residual_exposure / k1)
        ly = 0.5 * np.log(s.residual_outcome * k1 / k2)
        slope = s.residual_slope * np.exp(lx - ly)
        b = slope - kx * ky / k1
        start = np.concatenate([h1 * np.exp(-lx), (h2 * np.exp(-ly) - b * h1 * np.exp(-lx))])
        found = minimize(
            loss,
            np.concatenate([start, [b, kx, ky, lx, ly]]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10},
        )
        hessian = mrfast.log_posterior(moments, model, prior, found.x).hessian
        sign, log_determinant = np.linalg.slogdet(-hessian)
        if sign <= 0 or np.linalg.eigvalsh(-hessian)[0] <= 0:
            continue
        joint = JointPosterior.at(moments, model, prior, found.x).value
        terms.append(joint + (j + 2.5) * np.log(2 * np.pi) - 0.5 * log_determinant + np.log(2))
    return float(np.logaddexp.reduce(terms))


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Shortest of several times, in seconds."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def report(work: str, ours: float, plain: float | None = None) -> None:
    """One line of the table."""
    text = f"{work:<58} {1e6 * ours:12.1f} us"
    if plain is not None:
        text += f"   plain {1e6 * plain:12.1f} us   ratio {plain / ours:10.0f}"
    print(text, flush=True)


def bench_evidence(moments: mrfast.Moments, label: str, loops: int, with_plain: bool) -> None:
    """Evidence of one model: three ways, in C++ and through the API."""
    prior = mrfast.SpikeSlabPrior.empirical(moments)
    kernel = posterior_kernel(moments, prior)
    model = np.zeros(moments.J, dtype=bool)
    model[:: max(2, moments.J // 8)] = True
    plain = best_time(lambda: plain_log_evidence(moments, model, prior), 2) if with_plain else None
    names = {"scan": "scan for all modes", "massive": "MASSIVE's three starts"}
    for kind, words in names.items():
        seconds = min(kernel.time_evidence(model, kind, loops) for _ in range(5))
        report(f"{label}: evidence, {words}, C++ loop", seconds, plain)
        api = best_time(
            lambda kind=kind: mrfast.laplace_evidence(moments, model, prior, starts=kind), 20
        )
        report(f"{label}: evidence, {words}, API", api, plain)
    seconds = min(kernel.time_evidence(model, "neighbours", 3) for _ in range(5))
    report(f"{label}: evidence of a neighbour, warm-started, C++ loop", seconds, plain)
    log_odds = prior.log_odds(moments.J)
    seconds = best_time(lambda: kernel.predict_neighbours(model, log_odds), 20) / moments.J
    report(f"{label}: prediction of a neighbour, C++", seconds)


def bench_run(moments: mrfast.Moments, label: str) -> None:
    """Greedy search, 5,000 iterations of one chain, 10,000 draws."""
    times = []
    for seed in range(5):
        begin = time.perf_counter()
        result = mrfast.massive(moments, n_iter=5_000, n_chains=1, rng=seed, n_threads=1)
        middle = time.perf_counter()
        _ = result.effect
        result.sample(10_000, rng=seed)
        times.append((time.perf_counter() - begin, middle - begin, result))
    total, search, result = min(times, key=lambda entry: entry[0])
    report(f"{label}: search, 5,000 iterations", search)
    report(f"{label}: search, effect and 10,000 samples", total)
    acceptance = {k: round(v, 3) for k, v in result.search.acceptance.items()}
    moves = sum(result.search.accepted.values()) / search
    print(
        f"  acceptance {acceptance}, {moves:,.0f} accepted moves per second, "
        f"{result.search.n_evaluated} models evaluated"
    )
    flips = mrfast.massive(
        moments, n_iter=5_000, n_chains=1, rng=0, n_threads=1, moves={"flip": 1}
    ).search
    moves = flips.accepted["flip"] / flips.seconds
    print(f"  uniform flips alone: {flips.acceptance['flip']:.3f}, {moves:,.0f} per second")


def bench_correlated() -> None:
    """Evidence with correlated candidates by their number and the share in the slab."""
    for j in (100, 300, 1_000):
        moments = simulated_pair(j, 500_000, rho=0.3)
        kernel = posterior_kernel(moments, mrfast.SpikeSlabPrior.empirical(moments))
        for share in (0.0, 0.1, 0.5):
            model = np.arange(j) < j * share
            loops = max(1, 30_000_000 // (j * j * (1 + int(j * share))))
            seconds = kernel.time_evidence(model, "scan", min(loops, 100))
            report(f"J={j:,}, neighbours correlated 0.3, {share:.0%} slab: evidence, scan", seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, help="table of the BMI to psoriasis pair")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    arguments = parser.parse_args()
    print(mrfast.build_config())
    pair = table_pair(arguments.pair) if arguments.pair else simulated_pair(96, 378_274)
    bench_evidence(pair, "J=96", 500, with_plain=True)
    bench_run(pair, "J=96")
    if arguments.quick:
        return
    bench_evidence(simulated_pair(1_000, 500_000), "J=1,000", 100, with_plain=False)
    large = simulated_pair(2_000, 500_000)
    begin = time.perf_counter()
    mrfast.massive(large, n_iter=5_000, n_chains=1, rng=0, n_threads=1)
    report("J=2,000: search, 5,000 iterations", time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  largest resident memory so far {peak:.0f} MB")
    bench_correlated()


if __name__ == "__main__":
    main()
