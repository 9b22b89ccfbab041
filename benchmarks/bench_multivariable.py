"""Time of multivariable methods, against plain numpy and scipy.

The baselines: least squares by numpy on rows times the roots of their weights, with the standard
errors that follow, and conditional F statistics; median regression as a linear program by scipy
(HiGHS), its bootstrap from the time of a few draws; MM-estimation by iterated weighted least
squares in numpy from 100 random subsets (mrfast starts from 2,000). CPU time of one thread (both
sides), the shortest of several turns. Baselines return less than mrfast (no checks, p-values,
heterogeneity, messages).

    python benchmarks/bench_multivariable.py [--repeats 5] [--draws 10000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linprog

import mrfast

Float = NDArray[np.float64]
Data = dict[str, Float]


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Shortest CPU time."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def study(j: int, k: int, seed: int = 1) -> Data:
    """Associations of J SNPs with K exposures, a tenth of the SNPs pleiotropic."""
    rng = np.random.default_rng(seed)
    sx, sy = np.full((j, k), 0.01), rng.uniform(0.01, 0.03, j)
    x = rng.normal(0, 0.1, (j, k))
    y = 0.2 * x.sum(axis=1) + sy * rng.normal(size=j)
    y[: j // 10] += 0.2
    return {
        "beta_exposure": x + sx * rng.normal(size=(j, k)),
        "se_exposure": sx,
        "beta_outcome": y,
        "se_outcome": sy,
    }


def numpy_ivw(data: Data, intercept: bool = False) -> tuple[Float, Float, Float]:
    x, y = data["beta_exposure"], data["beta_outcome"]
    if intercept:
        sign = np.where(x[:, 0] < 0, -1.0, 1.0)
        x, y = np.column_stack([x * sign[:, None], np.ones(len(y))]), y * sign
    a, c = x / data["se_outcome"][:, None], y / data["se_outcome"]
    b, *_ = np.linalg.lstsq(a, c, rcond=None)
    scale = np.sqrt(((c - a @ b) ** 2).sum() / (len(c) - a.shape[1]))
    error = max(1.0, scale) * np.sqrt(np.linalg.inv(a.T @ a).diagonal())
    return b, error, numpy_conditional_f(data)


def numpy_conditional_f(data: Data) -> Float:
    x, sx = data["beta_exposure"], data["se_exposure"]
    j, k = x.shape
    values = np.empty(k)
    for i in range(k):
        others = np.delete(x, i, axis=1)
        s = sx[:, i]
        d, *_ = np.linalg.lstsq(others / s[:, None], x[:, i] / s, rcond=None)
        variance = s**2 + np.delete(sx, i, axis=1) ** 2 @ d**2
        values[i] = ((x[:, i] - others @ d) ** 2 / variance).sum() / (j - k + 1)
    return values


def scipy_median(x: Float, y: Float, weight: Float) -> Float:
    j, k = x.shape
    found = linprog(
        np.concatenate([np.zeros(k), weight, weight]),
        A_eq=np.hstack([x, np.eye(j), -np.eye(j)]),
        b_eq=y,
        bounds=[(None, None)] * k + [(0, None)] * (2 * j),
    )
    return np.asarray(found.x[:k])


def scipy_bootstrap(data: Data, draws: int) -> Float:
    rng = np.random.default_rng(1)
    weight = data["se_outcome"] ** -2.0 / 1e4
    x, sx = data["beta_exposure"], data["se_exposure"]
    values = [
        scipy_median(
            x + sx * rng.normal(size=x.shape),
            data["beta_outcome"] + data["se_outcome"] * rng.normal(size=len(x)),
            weight,
        )
        for _ in range(draws)
    ]
    return np.std(values, axis=0)


def numpy_robust(data: Data, starts: int) -> Float:
    rng = np.random.default_rng(1)
    a = data["beta_exposure"] / data["se_outcome"][:, None]
    c = data["beta_outcome"] / data["se_outcome"]
    n, k = a.shape

    def reweighted(b: Float, scale: float, width: float) -> Float:
        u = np.minimum(((c - a @ b) / (width * scale)) ** 2, 1)
        w = (1 - u) ** 2
        return np.asarray(np.linalg.solve((a * w[:, None]).T @ a, a.T @ (w * c)))

    def scale_of(b: Float) -> float:
        r = c - a @ b
        scale = float(np.median(np.abs(r))) / 0.6745
        for _ in range(30):
            u = np.minimum((r / (1.54764 * scale)) ** 2, 1)
            scale *= float(np.sqrt((1 - (1 - u) ** 3).sum() / (0.5 * (n - k))))
        return scale

    best, found = np.inf, np.zeros(k)
    for _ in range(starts):
        rows = rng.choice(n, k, replace=False)
        b = np.linalg.solve(a[rows], c[rows])
        for _ in range(2):
            b = reweighted(b, scale_of(b), 1.54764)
        if scale_of(b) < best:
            best, found = scale_of(b), b
    for _ in range(50):
        found = reweighted(found, best, 4.685061)
    return found


def tables(rows: int, k: int) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    rng = np.random.default_rng(1)
    snps = np.array([f"rs{i}" for i in range(rows)], dtype=object)
    pairs = np.array([("A", "C"), ("A", "G"), ("T", "C"), ("T", "G")], dtype=object)
    alleles = pairs[rng.integers(0, 4, rows)]

    def one() -> pd.DataFrame:
        swap = rng.random(rows) < 0.4
        order = rng.permutation(rows)
        return pd.DataFrame(
            {
                "snp": snps[order],
                "effect_allele": np.where(swap, alleles[:, 1], alleles[:, 0])[order],
                "other_allele": np.where(swap, alleles[:, 0], alleles[:, 1])[order],
                "beta": rng.normal(0, 0.02, rows),
                "std_error": rng.uniform(0.005, 0.05, rows),
                "eaf": rng.uniform(0.01, 0.99, rows),
            }
        )

    return {f"exposure {i}": one() for i in range(k)}, one()


def pandas_harmonise(exposures: dict[str, pd.DataFrame], outcome: pd.DataFrame) -> pd.DataFrame:
    """Merges on the identifier, signs by equal and swapped alleles."""
    (first_name, merged), *others = exposures.items()
    merged = merged.rename(columns={"beta": first_name})
    for name, table in [*others, ("outcome", outcome)]:
        merged = merged.merge(table, on="snp", suffixes=("", "_right"))
        same = (merged["effect_allele"] == merged["effect_allele_right"]) & (
            merged["other_allele"] == merged["other_allele_right"]
        )
        swapped = (merged["effect_allele"] == merged["other_allele_right"]) & (
            merged["other_allele"] == merged["effect_allele_right"]
        )
        merged[name] = np.where(swapped, -1.0, 1.0) * merged["beta"]
        merged = merged[same | swapped]
        merged = merged.drop(
            columns=["beta", *(column for column in merged if str(column).endswith("_right"))]
        )
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    repeats, draws = options.repeats, options.draws
    print(f"{'work':<52}{'mrfast':>12}{'baseline':>12}{'ratio':>8}")

    def row(name: str, ours: float, plain: float) -> None:
        print(f"{name:<52}{ours:>10.6f} s{plain:>10.6f} s{plain / ours:>8.1f}")

    for j, k in ((28, 3), (100, 3), (1000, 3)):
        data = study(j, k)
        size = f"{j} SNPs, {k} exposures"
        weight = data["se_outcome"] ** -2.0 / 1e4
        arrays = data["beta_exposure"], data["beta_outcome"], weight
        ours = seconds(partial(mrfast.mv_ivw, **data), 20 * repeats)
        row(f"mv_ivw, {size}", ours, seconds(partial(numpy_ivw, data), 20 * repeats))
        ours = seconds(partial(mrfast.mv_egger, **data), 20 * repeats)
        row(f"mv_egger, {size}", ours, seconds(partial(numpy_ivw, data, True), 20 * repeats))
        ours = seconds(partial(mrfast.mv_median, **data, std_error="robust"), 20 * repeats)
        row(f"mv_median, robust error, {size}", ours, seconds(partial(scipy_median, *arrays), 2))
        some = 5 if j > 500 else 20
        ours = seconds(partial(mrfast.mv_median, **data, n_draws=draws, rng=1), repeats)
        plain = seconds(partial(scipy_bootstrap, data, some), 1) * draws / some
        row(f"mv_median, {draws} draws, {size}", ours, plain)
    data = study(100, 3)
    ours = seconds(partial(mrfast.mv_ivw, **data, robust=True), repeats)
    row("mv_ivw, robust, 100 SNPs, 3 exposures", ours, seconds(partial(numpy_robust, data, 100), 1))
    exposures, outcome = tables(options.rows, 3)
    ours = seconds(partial(mrfast.mv_harmonise, exposures, outcome), min(repeats, 3))
    plain = seconds(partial(pandas_harmonise, exposures, outcome), min(repeats, 3))
    row(f"mv_harmonise, {options.rows} rows, 3 exposures", ours, plain)


if __name__ == "__main__":
    main()
