"""Time of inverse-variance weighting, Egger regression and Q: many pairs at once, and single calls.

CPU time. Pairs: E exposures with J instruments each out of a panel of P SNPs, O outcomes, one
thread, into a block that is reused; the baseline is six matrix products in numpy (masks as
matrices), which do the same sums. Single calls: what a loop in another language pays.

python benchmarks/bench_summary.py [--repeats 7] [--panel 2000] [--outcomes 1024]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import mrfast
from mrfast.summary.pair_panel import PLANES, ExposurePanel, OutcomePanel, fit_pairs


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Shortest CPU time."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


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
    print(f"{'kernel':44}{'M pairs/s, one core':>20}")
    for kind in ("float32", "float64"):
        for j in (20, 100):
            rows = [rng.choice(p, j, replace=False) for _ in range(e)]
            sizes = [rng.normal(0.05, 0.03, j) for _ in range(e)]
            exposures = ExposurePanel(rows, sizes)
            for width in (256, o):
                part = OutcomePanel(beta[:, :width], se[:, :width], dtype=kind)
                out = np.empty((len(PLANES), e, width))
                best = seconds(lambda: fit_pairs(exposures, part, out=out), options.repeats)  # noqa: B023
                print(f"{f'{kind}, J = {j}, block of {width}':44}{e * width / best / 1e6:20.1f}")
            if j == 100:
                x = np.zeros((e, p), dtype=kind)
                for i in range(e):
                    x[i, rows[i]] = sizes[i]
                indicator, sign = (x != 0).astype(kind), np.sign(x)

                w = np.ascontiguousarray(se**-2.0, dtype=kind)
                wy, wyy = (beta * w).astype(kind), (beta**2 * w).astype(kind)

                def products() -> object:
                    return (
                        indicator @ w,  # noqa: B023
                        np.abs(x) @ w,  # noqa: B023
                        (x * x) @ w,  # noqa: B023
                        sign @ wy,  # noqa: B023
                        x @ wy,  # noqa: B023
                        indicator @ wyy,  # noqa: B023
                    )

                best = seconds(products, 3)
                print(f"{f'{kind}, J = {j}, numpy products, {o}':44}{e * o / best / 1e6:20.1f}")
    print(f"\n{'single call, J = 100':44}{'us':>20}")
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
        count = 20 if "robust" in name else 1000
        best = seconds(lambda: [call() for _ in range(count)], options.repeats) / count  # noqa: B023
        print(f"{name:44}{1e6 * best:20.1f}")


if __name__ == "__main__":
    main()
