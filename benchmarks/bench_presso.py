"""Time of MR-PRESSO: closed forms and all three tests by draws, against plain numpy.

The baseline draws data sets one by one, and takes the leave-one-out residuals of each by the same
identity; the R package, which refits without each SNP, takes 62 s for 1,000 draws of 100 SNPs.
One thread; the baseline is scaled from fewer draws.

    python benchmarks/bench_presso.py [--sizes 10 100 300] [--draws 10000] [--repeats 3]
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from timing import header, row, seconds

import mrfast
from mrfast import _core

Float = NDArray[np.float64]


def associations(j: int) -> tuple[Float, Float, Float, Float]:
    """SNPs with effect 0.3, of which a tenth are outliers."""
    rng = np.random.default_rng(j)
    x, sx, sy = rng.uniform(0.05, 0.2, j), np.full(j, 0.008), np.full(j, 0.02)
    y = 0.3 * x + sy * rng.normal(size=j)
    y[: j // 10] += 0.12
    return x, sx, y, sy


def leave_one_out(x: Float, y: Float, sy: Float) -> tuple[Float, Float]:
    """Residuals over the outcome's errors, and estimates, of each SNP left out."""
    a, c = x / sy, y / sy
    square = (a * a).sum()
    estimate = (a * c).sum() / square
    residual = (c - estimate * a) / (1 - a * a / square)
    return residual, estimate - a * residual / square


def plain(x: Float, sx: Float, y: Float, sy: Float, draws: int, dropped: int) -> None:
    """All three tests, one draw after the other."""
    rng = np.random.default_rng(1)
    observed, without = leave_one_out(x, y, sy)
    above, larger, changed = 0, np.zeros(len(x)), 0
    for _ in range(draws):
        drawn_x, drawn_y = rng.normal(x, sx), rng.normal(without * x, sy)
        residual, _ = leave_one_out(drawn_x, drawn_y, sy)
        above += (residual**2).sum() > (observed**2).sum()
        larger += np.abs(drawn_y - without * drawn_x) > np.abs(observed * sy)
    for _ in range(draws):
        drawn_x, drawn_y = rng.normal(x, sx), rng.normal(0.3 * x, sy)
        residual, other = leave_one_out(drawn_x, drawn_y, sy)
        z = residual**2 / (1 + (other * sx / sy) ** 2)
        kept = np.argpartition(z, len(z) - dropped)[: len(z) - dropped]
        a, c = drawn_x / sy, drawn_y / sy
        part = (a[kept] * c[kept]).sum() / (a[kept] ** 2).sum()
        changed += abs((a * c).sum() / (a * a).sum() - part) >= 0.1 * abs(part)


def main() -> None:
    """Print some lines for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 300])
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    header("numpy")
    for j in options.sizes:
        x, sx, y, sy = associations(j)
        sets = 500
        stacked = {
            "beta_exposure": np.tile(x, sets)[:, None],
            "se_exposure": np.tile(sx, sets)[:, None],
            "beta_outcome": np.tile(y, sets),
            "se_outcome": np.tile(sy, sets),
        }
        offsets = np.arange(sets + 1, dtype=np.int64) * j
        data = {
            "beta_exposure": x,
            "se_exposure": sx,
            "beta_outcome": y,
            "se_outcome": sy,
            "n_threads": 1,
        }
        found = mrfast.mr_presso(**data, rng=1)
        kernel = seconds(
            lambda stacked=stacked, offsets=offsets: _core.presso.closed_form(
                **stacked, offsets=offsets, threads=1
            ),
            options.repeats,
        )
        default = seconds(
            lambda data=data: mrfast.mr_presso(**data, rng=1, n_draws=options.draws),
            options.repeats,
        )
        classic = seconds(
            lambda data=data: mrfast.mr_presso(**data, rng=1, n_draws=options.draws, simulate=True),
            options.repeats,
        )
        fewer = max(options.draws // 20, 100)
        dropped = max(1, len(found.outliers))
        base = seconds(
            lambda data=(x, sx, y, sy), fewer=fewer, dropped=dropped: plain(*data, fewer, dropped),
            1,
        )
        base *= options.draws / fewer
        row(f"{j} SNPs: global and outlier test, closed form (kernel)", kernel / sets)
        row(f"{j} SNPs: mr_presso by default", default)
        row(f"{j} SNPs: all three tests, {options.draws} draws", classic, base)


if __name__ == "__main__":
    main()
