"""Time of inverse-variance weighting, Egger regression and Q: many pairs at once, and single calls.

Pairs: E exposures with J instruments each out of a panel of P SNPs, O outcomes, one thread, into a
block that is reused; time is of one pair (0.05 us: 20 million pairs a second). The baseline is six
matrix products in numpy (masks as matrices), which do the same sums. Single calls: what a loop in
another language pays.

    python benchmarks/bench_summary.py [--repeats 7] [--panel 2000] [--outcomes 1024]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from timing import header, row, seconds

import mrfast
from mrfast.summary.pair_panel import PLANES, ExposurePanel, OutcomePanel, fit_pairs

Float = NDArray[np.floating]


def products(x: Float, w: Float, wy: Float, wyy: Float) -> object:
    """The sums of all pairs."""
    indicator = (x != 0).astype(x.dtype)
    return (
        indicator @ w,
        np.abs(x) @ w,
        (x * x) @ w,
        np.sign(x) @ wy,
        x @ wy,
        indicator @ wyy,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--panel", type=int, default=2000)
    parser.add_argument("--outcomes", type=int, default=1024)
    parser.add_argument("--exposures", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20265)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    p, o, e = options.panel, options.outcomes, options.exposures
    se = rng.uniform(0.01, 0.03, (p, o))
    beta = rng.normal(0, se)
    header("numpy")
    for kind in ("float32", "float64"):
        w = np.ascontiguousarray(se**-2.0, dtype=kind)
        wy, wyy = (beta * w).astype(kind), (beta**2 * w).astype(kind)
        for j in (20, 100):
            rows = [rng.choice(p, j, replace=False) for _ in range(e)]
            sizes = [rng.normal(0.05, 0.03, j) for _ in range(e)]
            exposures = ExposurePanel(rows, sizes)
            x = np.zeros((e, p), dtype=kind)
            for i in range(e):
                x[i, rows[i]] = sizes[i]
            base = seconds(partial(products, x, w, wy, wyy), 3) / (e * o)
            for width in (256, o):
                part = OutcomePanel(beta[:, :width], se[:, :width], dtype=kind)
                out = np.empty((len(PLANES), e, width))
                best = seconds(lambda: fit_pairs(exposures, part, out=out), options.repeats)  # noqa: B023
                name = f"a pair of {j} SNPs, {kind}, block of {width} outcomes"
                row(name, best / (e * width), base)
    arrays = {
        "beta_exposure": np.abs(rng.normal(0.05, 0.03, 100)) + 0.01,
        "se_exposure": np.full(100, 0.01),
        "beta_outcome": beta[:100, 0].copy(),
        "se_outcome": se[:100, 0].copy(),
    }
    lists = {name: values.tolist() for name, values in arrays.items()}
    calls: dict[str, Callable[[], object]] = {
        "ivw": lambda: mrfast.ivw(**arrays),
        "ivw, lists": lambda: mrfast.ivw(**lists),
        "ivw, robust": lambda: mrfast.ivw(robust=True, **arrays),
        "egger": lambda: mrfast.egger(**arrays),
        "egger, robust": lambda: mrfast.egger(robust=True, **arrays),
        "heterogeneity": lambda: mrfast.heterogeneity(**arrays),
        "rucker": lambda: mrfast.rucker(**arrays),
    }
    for name, call in calls.items():
        row(f"one call of {name}, 100 SNPs", seconds(call, options.repeats))


if __name__ == "__main__":
    main()
