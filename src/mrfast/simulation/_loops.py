"""The compiled loop of the simulation; importing this module imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["simulate_rows"]

Float = NDArray[np.float64]


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call; keep the code on disk where a folder can be written."""
    try:
        return cast(Callable[..., None], numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no folder for its cache
        return cast(Callable[..., None], numba.njit(nogil=True)(function))


def _simulate_rows(
    uniform: Float,  # (n, J)
    noise: Float,  # (n, 3): U, eps_X, eps_Y
    thresholds: Float,  # (J, ploidy): P(G_j <= k), k = 0 .. ploidy - 1
    effects: Float,  # (J, 2): gamma, alpha
    scalars: Float,  # (5,): beta, kappa_X, kappa_Y, sigma_X, sigma_Y
    genotypes: NDArray[np.int8],  # (n, J), output
    exposure: Float,  # (n,), output
    outcome: Float,  # (n,), output
) -> None:
    """Invert the dosages' distribution functions and evaluate the structural equations."""
    n, j = uniform.shape
    ploidy = thresholds.shape[1]
    beta, kappa_x, kappa_y, sigma_x, sigma_y = scalars
    for i in range(n):
        x = kappa_x * noise[i, 0] + sigma_x * noise[i, 1]
        y = kappa_y * noise[i, 0] + sigma_y * noise[i, 2]
        for k in range(j):
            u = uniform[i, k]
            dosage = 0
            for m in range(ploidy):
                dosage += u >= thresholds[k, m]
            genotypes[i, k] = dosage
            x += effects[k, 0] * dosage
            y += effects[k, 1] * dosage
        exposure[i] = x
        outcome[i] = y + beta * x


simulate_rows = _compiled(_simulate_rows)
