# J SNPs: ratios and their standard errors. Gains are of the log-likelihood (or log weight) of a SNP
# that is valid, at its own ratio, above the same SNP invalid.

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

def largest_gain(ratios: Vector, errors: Vector, gains: Vector) -> tuple[float, float]: ...
def gain_level_set(
    ratios: Vector, errors: Vector, gains: Vector, *, level: float, centre: float
) -> Matrix: ...  # (m, 2): intervals where the sum of gains is at least the level
def subset_mixture(
    ratios: Vector,  # (J,), J at most 30
    errors: Vector,
    *,
    prior: float,
    smallest: int,
) -> tuple[Matrix, float, int]: ...  # (m, 3) weight, mean, variance; log scale; models counted
def lasso_path(
    columns: Matrix,  # (J, K)
    response: Vector,
    scale: Vector,
    *,
    lowest: float,
) -> tuple[Vector, Matrix, Matrix, Vector, Integers, Integers, Integers]: ...

# pieces: upper penalty, least squares on the valid SNPs, slope of the coefficients, its Q, number
# of valid SNPs, the SNP that changes, its sign
