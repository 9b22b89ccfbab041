# J SNPs; bx, sx, by, sy and weights are (J,), the weights sum to 1. Seeds are 64 bits; set and
# purpose are words of the counter: what is drawn depends on them, on the draw and on the SNP only.

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

def weighted_median(values: Vector, weights: Vector) -> float: ...
def median_errors(
    bx: Vector,
    sx: Vector,
    by: Vector,
    sy: Vector,
    weights: Vector,
    estimates: Vector,  # (S,)
    offsets: NDArray[np.int64],  # (S + 1,): where each data set begins
) -> NDArray[np.float64]: ...  # (S, 4): halfwidth, Bahadur, robust, relative gap at the estimate
def median_quantiles(
    bx: Vector,
    sx: Vector,
    by: Vector,
    sy: Vector,
    weights: Vector,
    estimate: float,
    scores: Vector,  # (m,), normal scores
) -> Vector: ...  # (m,)
def median_scores(
    bx: Vector, sx: Vector, by: Vector, sy: Vector, weights: Vector, at: Vector
) -> Vector: ...
def bootstrap_medians(
    bx: Vector,
    sx: Vector,
    by: Vector,
    sy: Vector,
    weights: Vector,
    *,
    estimate: float,
    scale: float,
    draws: int,
    seed: int,
    set: int,
    purpose: int,
    threads: int,
) -> Vector: ...  # (draws,)
def mode(
    ratios: Vector, errors: Vector, weights: Vector, *, factor: float, exact: bool
) -> tuple[float, float, float]: ...  # mode, bandwidth, standard error by the bootstrap law
def bootstrap_modes(
    ratios: Vector,
    errors: Vector,
    weights: Vector,
    *,
    factor: float,
    exact: bool,
    draws: int,
    seed: int,
    set: int,
    purpose: int,
    threads: int,
) -> tuple[Vector, float]: ...  # (draws,), share of draws with a grid wider than the bandwidth
def sample_modes(
    samples: NDArray[np.float64],  # (draws, J)
    weights: Vector,
    *,
    factor: float,
    exact: bool,
) -> Vector: ...  # (draws,)
def normals(
    *, seed: int, set: int, purpose: int, index: int, draws: int
) -> NDArray[np.float64]: ...  # (2, draws)
def median_matrix(
    by: NDArray[Any],  # (P, O), float64 or float32; NaN is missing
    sy: NDArray[Any],  # as by
    *,
    offsets: NDArray[np.int64],  # (E + 1,) into ids, bx, sx
    ids: NDArray[np.int64],  # rows of by
    bx: Vector,
    sx: Vector,
    weights: str,
    minimum: int,
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]: ...  # (E, O) each
