# Random variates of simulated people: row i of any n is the same.

import numpy as np
from numpy.typing import NDArray

def normals(*, seed: int, stream: int, column: int, n: int) -> NDArray[np.float64]: ...
def uniforms(*, seed: int, stream: int, column: int, n: int) -> NDArray[np.float64]: ...
def exponentials(*, seed: int, stream: int, column: int, n: int) -> NDArray[np.float64]: ...
def betas(*, seed: int, stream: int, a: float, b: float, n: int) -> NDArray[np.float64]: ...
def dosages(
    *,
    seed: int,
    stream: int,
    frequencies: NDArray[np.float64],  # (p,)
    n: int,
) -> NDArray[np.int8]: ...  # (n, p)
def weighted_sum(
    dosages: NDArray[np.int8],  # (n, p), any strides
    weights: NDArray[np.float64],  # (p,)
) -> NDArray[np.float64]: ...  # (n,)
