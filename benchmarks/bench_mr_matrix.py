"""Time and memory of mr_matrix: exposures x outcomes from memory-mapped files to Parquet.

Each exposure has 20 to 100 own instruments among `--snps`; the outcomes lie in two files of
float32 (SNPs x outcomes), written first (their writing is not timed) and deleted at the end. The
baseline is the same by plain numpy and scipy for a slice of the pairs: sums by one matrix product
an exposure, p-values of all, as a person would write it; its time is scaled to all pairs.
Processor seconds and wall seconds are of the whole run: reading, checksums, fits, p-values,
selection, writing. Peak memory is of this process, pages of the mapped files included.

python benchmarks/bench_mr_matrix.py [--exposures 1000] [--outcomes 2000] [--snps 5000]
    [--threads 1] [--keep 1e-5] [--all] [--median] [--folder DIR]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

import mrfast

Float = NDArray[np.float64]


def instruments(exposures: int, snps: int) -> tuple[list[Float], list[Float], list[Float]]:
    """Rows, associations and their errors."""
    rng = np.random.default_rng(1)
    rows, beta, se = [], [], []
    for _ in range(exposures):
        j = int(rng.integers(20, 101))
        rows.append(rng.choice(snps, j, replace=False))
        beta.append(rng.normal(0, 0.05, j))
        se.append(np.full(j, 0.005))
    return rows, beta, se


def write_outcomes(folder: Path, snps: int, outcomes: int) -> None:
    """Null associations of all SNPs with all outcomes."""
    rng = np.random.default_rng(2)
    paths = folder / "beta.npy", folder / "se.npy"
    beta, se = (
        np.lib.format.open_memmap(path, "w+", np.float32, (snps, outcomes)) for path in paths
    )
    for first in range(0, snps, 100):
        part = slice(first, min(first + 100, snps))
        shape = (part.stop - part.start, outcomes)
        se[part] = rng.uniform(0.01, 0.03, shape).astype(np.float32)
        beta[part] = rng.standard_normal(shape, dtype=np.float32) * se[part]


def weighted(beta: Float, se: Float) -> tuple[Float, Float, Float]:
    """What the baseline needs of the outcomes, once for all exposures."""
    w = 1 / se.astype(np.float64) ** 2
    return w, beta * w, beta**2 * w


def plain(rows: list[Float], bx: list[Float], w: Float, wy: Float, wyy: Float) -> int:
    """The same with numpy and scipy; number of pairs kept."""
    kept = 0
    for row, b in zip(rows, bx, strict=True):
        sign, x = np.sign(b), np.abs(b)
        a, p, q = w[row], wy[row] * sign[:, None], wyy[row].sum(0)
        s, sx, sxx = a.sum(0), x @ a, x**2 @ a
        sy, sxy = p.sum(0), x @ p
        n = len(x)
        theta = sxy / sxx
        error = np.sqrt(np.maximum(1, (q - theta * sxy) / (n - 1)) / sxx)
        determinant = s * sxx - sx**2
        slope = (s * sxy - sx * sy) / determinant
        intercept = (sy - slope * sx) / s
        rest = np.maximum(1, (q - intercept * sy - slope * sxy) / (n - 2))
        p_ivw = 2 * ndtr(-np.abs(theta / error))
        p_egger = 2 * stdtr(n - 2, -np.abs(slope / np.sqrt(s / determinant * rest)))
        kept += int(((p_ivw < 1e-5) | (p_egger < 1e-5)).sum())
    return kept


def main() -> None:
    """Print one line for mrfast, one for the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exposures", type=int, default=1000)
    parser.add_argument("--outcomes", type=int, default=2000)
    parser.add_argument("--snps", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=float, default=1e-5)
    parser.add_argument("--all", action="store_true", help="keep all pairs")
    parser.add_argument("--median", action="store_true", help="the weighted median too")
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--store", default="parquet")
    parser.add_argument("--folder", help="where the files go (default: the temporary folder)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_mr_matrix_", dir=options.folder))
    try:
        rows, bx, sx = instruments(options.exposures, options.snps)
        # In a process of its own, whose memory does not count.
        writer = multiprocessing.get_context("spawn").Process(
            target=write_outcomes, args=(folder, options.snps, options.outcomes)
        )
        writer.start()
        writer.join()
        paths = folder / "beta.npy", folder / "se.npy"
        beta, se = (np.load(path, mmap_mode="r") for path in paths)
        methods = ("ivw", "egger", *(("weighted_median",) if options.median else ()))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cpu, wall = time.process_time(), time.perf_counter()
        found = mrfast.mr_matrix(
            mrfast.MatrixExposures.from_lists(rows, bx, sx),
            (beta, se),
            methods=methods,
            keep_p=None if options.all else options.keep,
            path=folder / "results",
            store=options.store,
            dtype=options.dtype,
            n_threads=options.threads,
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pairs = found.counts["pairs"]
        size = sum(path.stat().st_size for path in found.path.iterdir()) / 2**20
        print(
            f"mrfast: {pairs:,} pairs, {found.counts['kept']:,} kept, {cpu:.2f} s of processor, "
            f"{wall:.2f} s, {pairs / cpu / 1e6:.2f} M pairs/s of processor, peak memory "
            f"{peak:.0f} MB ({before:.0f} MB before), {size:.1f} MB of results"
        )
        few = min(20, options.exposures)
        part = slice(0, min(256, options.outcomes))
        columns = part.stop - part.start
        start = time.process_time()
        prepared = weighted(beta[:, part], se[:, part])
        middle = time.process_time()
        plain(rows[:few], bx[:few], *prepared)
        base = (time.process_time() - middle) * pairs / (few * columns)
        base += (middle - start) * options.outcomes / columns
        print(f"plain numpy: {base:.1f} s of processor (scaled), ratio {base / cpu:.1f}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
