# J SNPs, L exposures, S starts, M = J - L models with K = 0, ..., M - 1 invalid SNPs, D draws.

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

def models(
    *,
    beta_exposure: Float,  # (J, L)
    se_exposure: Float,  # (J, L)
    beta_outcome: Float,  # (J,)
    se_outcome: Float,  # (J,)
    correlation: Float,  # (L + 1, L + 1): of the errors of one SNP, the outcome last
    starts: Float,  # (S, L)
) -> tuple[
    Float,  # effects (M, L)
    Float,  # deviances F_K (M,)
    Float,  # curvatures of F_K / 2 (M, L, L)
]: ...
def draws(
    *,
    beta_exposure: Float,  # (J, L)
    se_exposure: Float,  # (J, L)
    beta_outcome: Float,  # (J,)
    se_outcome: Float,  # (J,)
    correlation: Float,  # (L + 1, L + 1)
    starts: Float,  # (S, L)
    penalty: float,  # of one invalid SNP: BIC_K = F_K + K penalty
    cutoff: float,  # distance from the least BIC at which models are left out
    seed: int,
    count: int,  # D
    threads: int,
) -> tuple[Float, Float]: ...  # effects averaged over models, and of the least BIC: (D, L)
