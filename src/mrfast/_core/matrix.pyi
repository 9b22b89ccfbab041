# One block of a matrix of pairs: E exposures, up to 256 outcomes; P SNPs.

import numpy as np
from numpy.typing import NDArray

def pair_matrix(
    beta: NDArray[np.float64],  # (P, outcomes), NaN is missing
    se: NDArray[np.float64],  # (P, outcomes)
    *,
    starts: NDArray[np.int64],  # (E + 1,) into rows, bx
    rows: NDArray[np.int64],  # of beta
    bx: NDArray[np.float64],
    sx: NDArray[np.float64],  # for the median
    methods: list[str],
    deciding: list[str],
    keep_p: float,  # above 1: all pairs
    leave_one_out: bool,
    single: bool,
    threads: int,
) -> (
    tuple[
        NDArray[np.int32],  # exposure
        NDArray[np.int32],  # outcome
        NDArray[np.int32],  # SNPs
        NDArray[np.float64],  # (columns, pairs)
        list[int],  # pairs with a p-value, by method
    ]
    | tuple[int, int]  # SNP and outcome of a bad entry
): ...
def normal_p(z: NDArray[np.float64]) -> NDArray[np.float64]: ...  # two-sided
def student_p(t: NDArray[np.float64], df: int) -> NDArray[np.float64]: ...  # two-sided
def chi_square_p(q: NDArray[np.float64], df: int) -> NDArray[np.float64]: ...  # upper tail
