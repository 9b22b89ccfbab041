"""Time of the classical nonlinear estimators, against plain numpy on dense arrays.

The data are those of the poster's simple case with one continuous instrument, so that all
estimators do their own work only. Baselines: two-stage least squares by dense normal equations
with robust errors; logistic regression by Newton steps on dense columns, without any error;
stratification by sorting and a loop over strata; kernel IV by the n x n kernel matrices of its
paper, for 2,000 people at most; location shift by quantiles of the noise and least squares, without
penalty or error. One thread.

    python benchmarks/bench_nonlinear_classic.py [--sizes 10000 100000] [--repeats 3]
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from timing import header, row, seconds

from mrfast.nonlinear import (
    DoublyRanked,
    KernelIV,
    LocationShiftIV,
    LogisticControlFunction,
    TwoStageLeastSquares,
)
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

Float = NDArray[np.float64]
_KERNEL_PEOPLE = 2000


def people(n: int) -> tuple[Float, Float, Float]:
    """Instrument, exposure and outcome."""
    rng = np.random.default_rng(n)
    z, u, noise, more = rng.normal(size=(4, n))
    x = np.sqrt(0.5) * z + 0.35 * u + np.sqrt(0.5 - 0.35**2) * noise
    return z, x, 0.3 * (x + 2) * (x - 1) + 1 - 0.7 * u + more


def dense_line(z: Float, x: Float, y: Float) -> None:
    """Two-stage least squares with robust errors."""
    ones = np.ones(len(x))
    instruments, regressors = np.column_stack([ones, z]), np.column_stack([ones, x])
    first = np.linalg.solve(instruments.T @ instruments, instruments.T @ regressors)
    fitted = instruments @ first
    bread = np.linalg.inv(fitted.T @ regressors)
    scores = fitted * (y - regressors @ (bread @ (fitted.T @ y)))[:, None]
    _ = bread @ scores.T @ scores @ bread.T


def dense_logistic(z: Float, x: Float, y: Float) -> None:
    """Eight Newton steps of the second stage, and the risk averaged at 200 values."""
    v = x - np.polyval(np.polyfit(z, x, 1), z)
    columns = np.column_stack([np.ones(len(x)), x, v])
    t = np.zeros(3)
    for _ in range(8):
        risk = expit(columns @ t)
        information = (columns * (risk * (1 - risk))[:, None]).T @ columns
        t += np.linalg.solve(information, columns.T @ (y - risk))
    offset = t[0] + t[2] * v
    for value in np.linspace(-2, 2, 200):
        expit(offset + t[1] * value).mean()


def loop_strata(z: Float, x: Float, y: Float) -> None:
    """Ten doubly ranked strata and their ratios."""
    order = np.argsort(z)
    groups = order[: len(order) // 10 * 10].reshape(-1, 10)
    ranked = np.take_along_axis(groups, np.argsort(x[groups], axis=1), axis=1)
    for rows in ranked.T:
        left = z[rows] - z[rows].mean()
        slope = left @ y[rows] / (left @ x[rows])
        u = y[rows] - y[rows].mean() - slope * (x[rows] - x[rows].mean())
        _ = np.sqrt(((left * u) ** 2).sum()) / abs(left @ x[rows])


def full_kernels(z: Float, x: Float, y: Float) -> None:
    """Both stages with n x n matrices, for one pair of ridges."""
    half = len(x) // 2
    a, b = slice(0, half), slice(half, None)

    def kernel(s: Float, t: Float) -> Float:
        return np.exp(-0.5 * (s[:, None] - t) ** 2)

    weights = np.linalg.solve(kernel(z[a], z[a]) + half * 1e-4 * np.eye(half), kernel(z[a], z[b]))
    inner = kernel(x[a], x[a])
    predicted = inner @ weights
    np.linalg.solve(predicted @ predicted.T + half * 1e-4 * inner, predicted @ y[b])


def tabulated(z: Float, x: Float, y: Float) -> None:
    """Splines averaged over 200 quantiles of the noise at 256 predictions, then least squares."""
    shift = np.polyval(np.polyfit(z, x, 1), z)
    noise = np.quantile(x - shift, (np.arange(200) + 0.5) / 200)
    grid = np.linspace(shift.min(), shift.max(), 256)
    spline = BSpline(quantile_breakpoints(x, 14))
    table = spline.values((grid[:, None] + noise).ravel()).reshape(256, 200, -1).mean(axis=1)
    columns = np.column_stack([np.interp(shift, grid, column) for column in table.T])
    np.linalg.lstsq(columns, y, rcond=None)


def main() -> None:
    """Print some lines for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    header("numpy")
    for n in options.sizes:
        z, x, y = people(n)
        binary = (y > np.median(y)) * 1.0
        few = min(n, _KERNEL_PEOPLE)
        for name, fit, plain in (
            (
                "two-stage least squares, all tests",
                lambda z=z, x=x, y=y: TwoStageLeastSquares().fit(z, x, y),
                lambda z=z, x=x, y=y: dense_line(z, x, y),
            ),
            (
                "logistic control function, bands",
                lambda z=z, x=x, y=binary: LogisticControlFunction().fit(z, x, y),
                lambda z=z, x=x, y=binary: dense_logistic(z, x, y),
            ),
            (
                "doubly ranked, 10 strata, curve and bands",
                lambda z=z, x=x, y=y: DoublyRanked().fit(z, x, y),
                lambda z=z, x=x, y=y: loop_strata(z, x, y),
            ),
            (
                "location shift, bands",
                lambda z=z, x=x, y=y: LocationShiftIV().fit(z, x, y),
                lambda z=z, x=x, y=y: tabulated(z, x, y),
            ),
            (
                f"kernel IV, tuning, 200 bootstraps (numpy: {few:,} people, one fit)",
                lambda z=z, x=x, y=y: KernelIV().fit(z, x, y),
                lambda z=z[:few], x=x[:few], y=y[:few]: full_kernels(z, x, y),
            ),
        ):
            base = seconds(plain, options.repeats)
            row(f"n = {n:,}: {name}", seconds(fit, options.repeats), base)


if __name__ == "__main__":
    main()
