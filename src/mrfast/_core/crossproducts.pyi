# Sums over rows of products of columns; the same bits with any number of threads.

import numpy as np
from numpy.typing import NDArray

def weighted(
    left: NDArray[np.float64],  # (n, k)
    right: NDArray[np.float64],  # (n, m)
    weights: NDArray[np.float64] | None,  # (n,)
    *,
    threads: int,
) -> NDArray[np.float64]: ...  # (k, m): left' diag(weights) right
