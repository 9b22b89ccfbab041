# J SNPs.

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

def profile(
    bx: Float,  # (J,)
    sx: Float,  # (J,)
    by: Float,  # (J,)
    sy: Float,  # (J,)
    *,
    overlap: float,
    tau2: float,
    loss: str,
    constant: float,
    rise: float,
) -> tuple[
    float,  # theta at the lowest minimum, may be infinite
    float,  # sum of the losses there
    Float,  # theta and sum of losses at all minima (M, 2)
    Float,  # pieces (P, 2) where the sum is at most `rise` higher; none unless rise > 0
]: ...
def dispersed_roots(
    bx: Float,  # (J,)
    sx: Float,  # (J,)
    by: Float,  # (J,)
    sy: Float,  # (J,)
    *,
    loss: str,
    constant: float,
    delta: float,
) -> list[tuple[float, float, float, float, bool]]: ...  # tau2, theta, bracket of tau2, jump
def ratio_sum_draws(
    bx: Float,  # (J,)
    sx: Float,  # (J,)
    *,
    mean: Float,  # (J,)
    error: Float,  # (J,)
    sy: Float,  # (J,)
    draws: int,
    seed: int,
    purpose: int,
    threads: int,
) -> Float: ...  # (draws, 5)
