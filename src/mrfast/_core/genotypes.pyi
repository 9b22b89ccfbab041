# V variants, P persons, C candidates in G groups.

import numpy as np
from numpy.typing import NDArray

Packed = NDArray[np.uint8]  # (V, (P + 3) // 4), rows of a PLINK .bed file
Integers = NDArray[np.int64]
Float = NDArray[np.float64]
Keep = NDArray[np.bool_]  # (P,)

def sums(packed: Packed, keep: Keep) -> Integers: ...  # (V, 3): persons, copies, their squares
def correlations(packed: Packed, keep: Keep, *, threads: int) -> Float: ...  # (V, V)
def clump_by_genotypes(
    packed: Packed,
    keep: Keep,
    *,
    offsets: Integers,  # (G + 1,): first candidate of each group
    position: Integers,  # (C,), rising within a group
    variant: Integers,  # (C,): row of packed
    order: Integers,  # (C,): candidates of each group, the most significant first
    reach: int,
    r2: float,
    threads: int,
) -> tuple[Integers, Float]: ...  # index of each candidate's clump, correlation with it
def clump_by_matrix(
    matrix: Float | None,  # (V, V); None: by distance alone
    *,
    offsets: Integers,
    position: Integers,
    variant: Integers,
    order: Integers,
    reach: int,
    r2: float,
    threads: int,
) -> tuple[Integers, Float]: ...
