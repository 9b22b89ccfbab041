"""Inputs of the golden curves: scenarios with known causal curves, drawn in a fixed order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Curve = Callable[[np.ndarray], np.ndarray]
CURVES: dict[str, Curve] = {
    "poster": lambda x: 0.3 * (x + 2) * (x - 1) + 1,
    "burgess": lambda x: 0.2 * (x - 1) ** 2 + 0.4,
    "1": lambda x: 0.0 * x,
    "2": lambda x: 0.1 * x * x,
    "3": lambda x: -0.1 * x * x * (x <= 0),
}


def golden_cases() -> list[dict[str, Any]]:
    path = Path(__file__).parent / "golden" / "sieve_iv" / "curves.json"
    return json.loads(path.read_text(encoding="utf-8"))["cases"]


def scenario(name: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Curve]:
    """Instruments, exposure, outcome and the causal curve."""
    rng = np.random.default_rng([20260101, seed])
    if name.startswith("poster"):
        heritability, n_variants = float(name.removeprefix("poster_h")), 20
        frequency = rng.uniform(0.2, 0.45, n_variants)
        genotypes = rng.binomial(2, frequency, (n, n_variants))
        effects = np.sqrt(rng.dirichlet(np.ones(n_variants)) * heritability)
        spread = np.sqrt(2 * frequency * (1 - frequency))
        score = ((genotypes - 2 * frequency) / spread) @ effects
        u = rng.standard_normal(n)
        noise = np.sqrt(1 - heritability - 0.35**2)
        x = score + 0.35 * u + noise * rng.standard_normal(n)
        f = CURVES["poster"]
        return genotypes.astype(np.int8), x, f(x) - 0.7 * u + rng.standard_normal(n), f
    if name == "burgess":
        g = rng.binomial(2, 0.3, n)
        u = rng.uniform(0, 1, n)
        x = 0.25 * g + u + rng.exponential(1, n)
        f = CURVES["burgess"]
        return g[:, None].astype(np.int8), x, f(x) - 0.4 + 0.8 * u + rng.standard_normal(n), f
    u, e_x, e_y = (rng.standard_normal(n) for _ in range(3))
    z = 0.5 * rng.standard_normal(n)
    x = {
        "A": lambda: 0.5 * z + u + e_x,
        "B": lambda: 0.5 * z + u + e_x + (z <= -1) * (2 * z**3 + 2),
        "C": lambda: -10 + (1.5 + 0.4 * u) * z + u + e_x,
        "E": lambda: (0.8 + 0.8 * u) * 2 * z + u + e_x,
        "H": lambda: 2 * z + np.exp(0.5 * z) * (u + e_x),
    }[name[0]]()
    f = CURVES[name[1]]
    return z[:, None], x, f(x) + u + e_y, f
