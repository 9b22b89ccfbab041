"""Time of leave-one-out, influence, Steiger's filter, radial regression and the whole panel.

The baselines are plain numpy and scipy: a loop that fits every subset anew, the hat matrix, one
pass of formulas. One thread.

    python benchmarks/bench_diagnostics.py [--repeats 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from timing import header, row, seconds

import mrfast

Float = NDArray[np.float64]


def study(j: int, rng: np.random.Generator) -> dict[str, Float]:
    """Associations of j SNPs, a quarter pleiotropic."""
    sx, sy = np.full(j, 0.005), rng.uniform(0.008, 0.012, j)
    bx = rng.uniform(0.03, 0.1, j)
    own = np.where(rng.random(j) < 0.25, rng.normal(0, 0.02, j), 0)
    return {
        "beta_exposure": bx,
        "se_exposure": sx,
        "beta_outcome": 0.2 * bx + own + rng.normal(0, sy),
        "se_outcome": sy,
    }


def numpy_fit(z: Float, y: Float) -> tuple[Float, Float, Float]:
    """Coefficients, errors (dispersion at least 1) and two-sided p-values."""
    inverse = np.linalg.inv(z.T @ z)
    b = inverse @ (z.T @ y)
    df = len(y) - z.shape[1]
    scale = max(1.0, float(((y - z @ b) ** 2).sum()) / df) if df else 1.0
    error = np.sqrt(scale * inverse.diagonal())
    return b, error, 2 * stats.norm.sf(np.abs(b / error))


def design(data: dict[str, Float], columns: int) -> tuple[Float, Float]:
    w = 1 / data["se_outcome"]
    return np.column_stack([data["beta_exposure"] * w, w])[:, :columns], data["beta_outcome"] * w


def numpy_leave_one_out(data: dict[str, Float], columns: int) -> object:
    z, y = design(data, columns)
    return [numpy_fit(np.delete(z, i, axis=0), np.delete(y, i)) for i in range(len(y))]


def numpy_influence(data: dict[str, Float]) -> object:
    z, y = design(data, 2)
    hat = z @ np.linalg.solve(z.T @ z, z.T)
    e, h, p = y - hat @ y, hat.diagonal(), 2
    s2 = (e**2).sum() / (len(y) - p)
    return h, e**2 * h / ((1 - h) ** 2 * p * s2), e / np.sqrt(s2 * (1 - h))


def numpy_radial(data: dict[str, Float]) -> object:
    ratio = data["beta_outcome"] / data["beta_exposure"]
    slope = 0.0
    for _ in range(30):
        v = data["se_outcome"] ** 2 + (slope * data["se_exposure"]) ** 2
        w = data["beta_exposure"] ** 2 / v
        slope = float((w * ratio).sum() / w.sum())
    parts = w * (ratio - slope) ** 2
    return slope, parts, stats.chi2.sf(parts, 1)


def numpy_steiger(data: dict[str, Float], n: float, m: float) -> object:
    r = []
    for side, size in (("exposure", n), ("outcome", m)):
        t2 = (data[f"beta_{side}"] / data[f"se_{side}"]) ** 2
        r.append(np.sqrt((t2 / (t2 + size - 2)).sum()))
    z = (np.arctanh(r[0]) - np.arctanh(r[1])) / np.sqrt(1 / (n - 3) + 1 / (m - 3))
    return 2 * stats.norm.sf(abs(z))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=20265)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    header("numpy")
    for j in (10, 100, 1000):
        data = study(j, rng)
        sizes = {"n_exposure": 300_000, "n_outcome": 200_000}
        rows: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = [
            (
                "leave-one-out, weighted",
                partial(mrfast.leave_one_out, **data),
                partial(numpy_leave_one_out, data, 1),
            ),
            (
                "leave-one-out, Egger",
                partial(mrfast.leave_one_out, **data, method="egger"),
                partial(numpy_leave_one_out, data, 2),
            ),
            (
                "influence, Egger",
                partial(mrfast.influence, **data, method="egger"),
                partial(numpy_influence, data),
            ),
            ("radial, modified", partial(mrfast.radial, **data), partial(numpy_radial, data)),
            (
                "Steiger",
                partial(mrfast.steiger, **data, **sizes),
                partial(numpy_steiger, data, 300_000, 200_000),
            ),
            ("Steiger filter", partial(mrfast.steiger_filter, **data, **sizes), None),
            ("leave-one-out, weighted median",
             partial(mrfast.leave_one_out, **data, method="weighted_median", rng=1), None),
            ("whole panel", partial(mrfast.sensitivity, **data, **sizes, rng=1), None),
        ]  # fmt: skip
        for name, ours, plain in rows:
            if j == 1000 and plain is None and "filter" not in name:
                continue
            base = None if plain is None else seconds(plain, options.repeats)
            row(f"{name}, {j} SNPs", seconds(ours, options.repeats), base)


if __name__ == "__main__":
    main()
