# Several exposures: least absolute deviations and their bootstrap. J SNPs, K exposures. Seeds are
# 64 bits; set and purpose are words of the counter: what is drawn depends on them, on the draw and
# on the SNP only.

import numpy as np
from numpy.typing import NDArray

def least_absolute(
    x: NDArray[np.float64],  # (J, K)
    y: NDArray[np.float64],  # (J,)
    weights: NDArray[np.float64],  # (J,)
) -> tuple[
    bool, NDArray[np.float64], NDArray[np.int64], bool
]: ...  # valid, coefficients (K,), rows that are fitted exactly (K,), unique
def bootstrap_least_absolute(
    bx: NDArray[np.float64],  # (J, K)
    sx: NDArray[np.float64],  # (J, K)
    by: NDArray[np.float64],  # (J,)
    sy: NDArray[np.float64],  # (J,)
    weights: NDArray[np.float64],  # (J,)
    lower: NDArray[np.float64],  # (K, K), factor of the correlations of a SNP's exposure errors
    basis: NDArray[np.int64],  # (K,), rows that the estimate fits exactly
    *,
    draws: int,
    seed: int,
    set: int,
    purpose: int,
    threads: int,
) -> NDArray[np.float64]: ...  # (draws, K)
