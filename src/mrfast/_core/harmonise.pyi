# N and M rows of two tables, n matched pairs of rows, A alleles.

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int32]  # of alleles, -1 = missing
Float = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]
Table = tuple[Codes, Codes, Float, Float, Float | None]  # effect, other, beta, std_error, eaf

def align_alleles(
    exposure: Table,  # columns (N,)
    outcome: Table,  # columns (M,)
    *,
    left: Rows,  # (n,): rows of the exposure
    right: Rows,  # (n,): rows of the outcome
    complement: Codes,  # (A + 1,): the last element is that of a missing allele, here and below
    length: Codes,  # (A + 1,)
    base: Flags,  # (A + 1,): A, C, G, T
    letter: Flags,  # (A + 1,): D, I
    insertion: int,  # code of I
    action: int,
    clear: float,
) -> tuple[
    Codes,  # (4, n): effect and other allele of the exposure, then of the outcome
    NDArray[np.int8],  # (2, n): number of alleles given, 2-2 to 1-1; reason
    Flags,  # (8, n): negate exposure, negate outcome; flags of Harmonised.table but duplicated
]: ...
