"""Processor time of simulating people for nonlinear MR, and of numpy's generator for the same.

python benchmarks/bench_simulation.py [--largest 1000000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import header, row, seconds

from mrfast.simulation import Normal, Simulation, Variant, poster_simple

VARIANTS = 20


def plain(n: int) -> tuple[object, ...]:
    """The poster's simple case with numpy alone, arrays whole."""
    rng = np.random.default_rng(1)
    frequencies = rng.uniform(0.2, 0.45, VARIANTS)
    weights = np.sqrt(0.5 * rng.dirichlet(np.ones(VARIANTS)))
    weights /= np.sqrt(2 * frequencies * (1 - frequencies))
    g = rng.binomial(2, frequencies, (n, VARIANTS)).astype(np.int8)
    u = rng.standard_normal(n)
    x = (g - 2 * frequencies) @ weights + 0.35 * u
    x += np.sqrt(1 - 0.5 - 0.35**2) * rng.standard_normal(n)
    y = 0.3 * (x + 2) * (x - 1) + 1 - 0.7 * u + rng.standard_normal(n)
    return g, x, y


def one_by_one(n: int) -> Simulation:
    """The same variables in a simulation with an own variable for each variant."""
    sim = Simulation(n, rng=1)
    names = [f"v{j + 1}" for j in range(VARIANTS)]
    sim.add_variables([Variant(name, 0.3) for name in names])
    sim.add_variables([Normal("u"), Normal("e_x", 0, 0.6), Normal("e_y")])
    weights = np.full(VARIANTS, 0.25)
    sim.add_variable("x", lambda s: s.weighted_sum(names, weights) + 0.35 * s["u"] + s["e_x"])
    sim.add_variable("y", lambda s: 0.3 * s["x"] ** 2 - 0.7 * s["u"] + s["e_y"])
    return sim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=10**6)
    options = parser.parse_args()
    header("numpy")
    for n in (10**4, 10**5, 10**6):
        if n > options.largest:
            break
        repeats = 9 if n < 10**6 else 7
        baseline = seconds(lambda n=n: plain(n), 3)
        text = f"n = {n:,}, {VARIANTS} variants"
        row(
            f"poster_simple, {text}",
            seconds(lambda n=n: poster_simple(n, rng=1), repeats),
            baseline,
        )
        row(f"variants one by one, {text}", seconds(lambda n=n: one_by_one(n), repeats), baseline)
        sim = one_by_one(n)
        row(f"resample, {text}", seconds(sim.resample, repeats), baseline)
    data = poster_simple(10**5, rng=1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "data"
        for form in ("csv.gz", "parquet"):
            row(f"save as {form}, n = 100,000", seconds(lambda f=form: data.save(place, form=f), 1))


if __name__ == "__main__":
    main()
