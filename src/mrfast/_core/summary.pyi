# Weighted regressions of outcome on exposure associations; weights are 1 / s^2. Lines are fitted
# after turning every x positive. Pairs: P SNPs, O outcomes, E exposures; rows and bx in lists.

import numpy as np
from numpy.typing import NDArray

def fit_origin(
    x: NDArray[np.float64],  # (J,)
    y: NDArray[np.float64],  # (J,)
    s: NDArray[np.float64],  # (J,)
) -> tuple[float, float, float]: ...  # slope, information, Q
def fit_line(
    x: NDArray[np.float64],  # (J,)
    y: NDArray[np.float64],  # (J,)
    s: NDArray[np.float64],  # (J,)
) -> tuple[bool, float, float, float, float, float]: ...  # valid, slope, intercept, variances, Q
def mean_square_ratio(x: NDArray[np.float64], s: NDArray[np.float64]) -> float: ...
def heterogeneity_of_size(
    x: NDArray[np.float64],  # (J,)
    s: NDArray[np.float64],  # (J,)
    scale: NDArray[np.float64] | None,  # (J,)
) -> float: ...  # Q of |x| / scale with standard errors s / scale
def fit_robust(
    design: NDArray[np.float64],  # (J, columns), times the roots of the weights
    y: NDArray[np.float64],  # (J,), times the roots of the weights
    most: int,  # elemental subsets to start from
) -> tuple[
    bool, NDArray[np.float64], NDArray[np.float64], float
]: ...  # valid, coefficients, covariance (columns, columns), scale
def fit_pairs_float(
    panel: NDArray[
        np.float32
    ],  # (blocks, P, 3, width): 1 / sy^2, by / sy^2, by^2 / sy^2; 0: missing
    outcomes: int,  # O
    starts: NDArray[np.int64],  # (E + 1,)
    rows: NDArray[np.int64],  # (starts[-1],)
    bx: NDArray[np.float64],  # (starts[-1],)
    *,
    out: NDArray[np.float64],  # (8, E, O), written
    counts: NDArray[np.int32] | None,  # (E, O), written
    threads: int,
) -> None: ...
def fit_pairs_double(
    panel: NDArray[
        np.float64
    ],  # (blocks, P, 3, width): 1 / sy^2, by / sy^2, by^2 / sy^2; 0: missing
    outcomes: int,  # O
    starts: NDArray[np.int64],  # (E + 1,)
    rows: NDArray[np.int64],  # (starts[-1],)
    bx: NDArray[np.float64],  # (starts[-1],)
    *,
    out: NDArray[np.float64],  # (8, E, O), written
    counts: NDArray[np.int32] | None,  # (E, O), written
    threads: int,
) -> None: ...
