"""Time of medians and modes of ratio estimates, against plain numpy.

The baselines are what one would write in numpy, vectorised over draws: sorted cumulative weights
for the medians, densities on 512 points for the modes (in pieces that fit into memory). One
thread.

    python benchmarks/bench_summary_medians.py [--repeats 5] [--draws 1000]
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from timing import header, row, seconds

from mrfast import _core
from mrfast.summary.median_methods import median_matrix, weighted_median
from mrfast.summary.mode_methods import weighted_mode

Float = NDArray[np.float64]


def study(j: int, rng: np.random.Generator) -> dict[str, Float]:
    """Associations of j SNPs with F statistics of 30 to 400, a quarter pleiotropic."""
    sx = np.full(j, 0.005)
    bx = rng.uniform(5.5, 20, j) * sx
    own = np.where(rng.random(j) < 0.25, rng.normal(0, 0.02, j), 0)
    sy = rng.uniform(0.008, 0.012, j)
    return {
        "beta_exposure": bx,
        "se_exposure": sx,
        "beta_outcome": 0.2 * bx + own + rng.normal(0, sy),
        "se_outcome": sy,
    }


def numpy_medians(ratios: Float, weights: Float) -> Float:
    """Interpolated weighted medians of rows."""
    order = np.argsort(ratios, axis=1)
    values, share = np.take_along_axis(ratios, order, axis=1), weights[order]
    place = np.cumsum(share, axis=1) - share / 2
    above = np.clip((place < 0.5).sum(axis=1), 1, ratios.shape[1] - 1)
    rows = np.arange(len(ratios))
    low, high = place[rows, above - 1], place[rows, above]
    start, end = values[rows, above - 1], values[rows, above]
    return start + (end - start) * np.clip((0.5 - low) / (high - low), 0, 1)


def numpy_median_error(data: dict[str, Float], weights: Float, draws: int) -> float:
    rng = np.random.default_rng(1)
    size = (draws, len(weights))
    x = data["beta_exposure"] + data["se_exposure"] * rng.standard_normal(size)
    y = data["beta_outcome"] + data["se_outcome"] * rng.standard_normal(size)
    return float(numpy_medians(y / x, weights).std(ddof=1))


def numpy_mode_error(ratios: Float, errors: Float, weights: Float, draws: int) -> float:
    rng = np.random.default_rng(1)
    modes = np.empty(draws)
    steps = np.arange(512) / 511
    for d in range(draws):
        r = ratios + errors * rng.standard_normal(len(ratios))
        mad = 1.4826 * np.median(np.abs(r - np.median(r)))
        h = 0.9 * min(r.std(ddof=1), mad) / len(r) ** 0.2
        low, high = r.min() - 3 * h, r.max() + 3 * h
        grid = low + (high - low) * steps
        f = np.exp(-0.5 * ((grid[:, None] - r) / h) ** 2) @ weights
        modes[d] = grid[f.argmax()]
    return float(1.4826 * np.median(np.abs(modes - np.median(modes))))


def numpy_law(data: dict[str, Float], weights: Float, b: float) -> tuple[float, float]:
    """Half-width by Newton steps (no weak SNPs) and robust error."""
    bx, sx, by, sy = data.values()

    def score(t: float) -> tuple[float, float]:
        v = sy**2 + (t * sx) ** 2
        u = (t * bx - by) / np.sqrt(v)
        cdf = ndtr(u)
        f = np.exp(-0.5 * u * u) / np.sqrt(2 * np.pi) * (bx * sy**2 + t * sx**2 * by) / v**1.5
        spread = weights**2 * cdf * (1 - cdf)
        m1, m2 = weights @ f / f.sum(), weights**2 @ f / f.sum()
        variance = spread.sum()
        total = variance + m2 / 6 - m1**2 / 12
        z = (weights @ cdf - 0.5) * (1 + m1**2 / (6 * variance)) / np.sqrt(total)
        gamma = np.clip((weights * spread * (1 - 2 * cdf)).sum() / total**1.5, -1, 1)
        return z + gamma * (np.clip(z, -3, 3) ** 2 - 1) / 6, weights @ f / np.sqrt(total)

    ends = []
    for target in (-1, 1):
        t = b
        for _ in range(20):
            z, slope = score(t)
            t += (target - z) / slope
            if abs(z - target) < 1e-9:
                break
        ends.append(t)
    s = 0.577 * np.sqrt((sy / bx) ** 2 + (by * sx / bx**2) ** 2)
    kernel = np.exp(-0.5 * ((b - by / bx) / s) ** 2) / s / np.sqrt(2 * np.pi)
    return (ends[1] - ends[0]) / 2, 0.5 * np.sqrt(weights @ weights) / (weights @ kernel)


def numpy_matrix(by: Float, sy: Float, bx: Float, sx: Float) -> tuple[Float, Float]:
    """Medians and robust errors of one exposure with outcomes in columns."""
    ratios, v1 = (by / bx[:, None]).T, ((sy / bx[:, None]) ** 2).T
    weights = 1 / v1
    weights /= weights.sum(axis=1, keepdims=True)
    order = np.argsort(ratios, axis=1)
    values = np.take_along_axis(ratios, order, axis=1)
    share = np.take_along_axis(weights, order, axis=1)
    place = np.cumsum(share, axis=1) - share / 2
    above = np.clip((place < 0.5).sum(axis=1), 1, len(bx) - 1)
    rows = np.arange(len(ratios))
    low, high = place[rows, above - 1], place[rows, above]
    start, end = values[rows, above - 1], values[rows, above]
    b = start + (end - start) * np.clip((0.5 - low) / (high - low), 0, 1)
    s = 0.577 * np.sqrt(v1 + (ratios * (sx / bx)) ** 2)
    kernel = np.exp(-0.5 * ((b[:, None] - ratios) / s) ** 2) / s / np.sqrt(2 * np.pi)
    return b, 0.5 * np.sqrt((weights**2).sum(axis=1)) / (weights * kernel).sum(axis=1)


def one_exposure(j: int, rng: np.random.Generator, repeats: int, draws: int) -> None:
    kernel = _core.medians
    data = study(j, rng)
    weights = (data["beta_exposure"] / data["se_outcome"]) ** 2
    weights /= weights.sum()
    ratios = data["beta_outcome"] / data["beta_exposure"]
    b = kernel.weighted_median(ratios, weights)
    ours = seconds(lambda: weighted_median(**data, simulate=True, n_draws=draws, rng=1), repeats)
    base = seconds(lambda: numpy_median_error(data, weights, draws), repeats)
    row(f"weighted median, {draws} draws, {j} SNPs", ours, base)

    copies = 200
    many = [np.tile(a, copies) for a in (*data.values(), weights)]
    offsets, estimates = np.arange(0, copies * j + 1, j), np.full(copies, b)
    ours = seconds(lambda: kernel.median_errors(*many, estimates, offsets), repeats) / copies
    base = seconds(lambda: numpy_law(data, weights, b), repeats)
    row(f"law of the median and robust error (kernel), {j} SNPs", ours, base)
    call = seconds(lambda: weighted_median(**data), repeats)
    row(f"the same, one call of weighted_median, {j} SNPs", call, base)

    errors = np.sqrt(
        (data["se_outcome"] / data["beta_exposure"]) ** 2
        + (ratios * data["se_exposure"] / data["beta_exposure"]) ** 2
    )
    share = errors**-2 / (errors**-2).sum()
    part = max(20, draws // 20)
    base = seconds(lambda: numpy_mode_error(ratios, errors, share, part), 2) * draws / part
    for maximum in ("grid", "exact"):
        options = {"n_draws": draws, "rng": 1, "maximum": maximum}
        ours = seconds(partial(weighted_mode, **data, **options), repeats)
        row(f"weighted mode, {maximum}, {draws} draws, {j} SNPs", ours, base)


def many_outcomes(j: int, rng: np.random.Generator, repeats: int) -> None:
    outcomes, exposures, panel = 1024, 20, max(1000, j)
    by, sy = rng.normal(0, 0.01, (panel, outcomes)), np.full((panel, outcomes), 0.01)
    ids = np.concatenate([rng.permutation(panel)[:j] for _ in range(exposures)])
    bx, sx = rng.uniform(0.03, 0.1, exposures * j), np.full(exposures * j, 0.005)
    own = ids[:j]
    base = seconds(lambda: numpy_matrix(by[own], sy[own], bx[:j], sx[:j]), repeats) / outcomes
    for kind in (np.float64, np.float32):
        task = partial(
            median_matrix,
            by.astype(kind),
            sy.astype(kind),
            offsets=np.arange(0, exposures * j + 1, j),
            snps=ids,
            beta_exposure=bx,
            se_exposure=sx,
            n_threads=1,
        )
        ours = seconds(task, repeats) / (exposures * outcomes)
        name = f"median and robust error, a pair of {j} SNPs, {np.dtype(kind).name}"
        row(name, ours, base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    header("numpy")
    for j in (20, 100, 500):
        one_exposure(j, rng, options.repeats, options.draws)
        many_outcomes(j, rng, options.repeats)


if __name__ == "__main__":
    main()
