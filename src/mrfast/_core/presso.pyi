# J SNPs (of all data sets together), K exposures, M data sets.

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

def closed_form(
    *,
    beta_exposure: Float,  # (J, K)
    se_exposure: Float,  # (J, K)
    beta_outcome: Float,  # (J,)
    se_outcome: Float,  # (J,)
    offsets: NDArray[np.int64],  # (M + 1,): where each data set begins
    threads: int,
) -> tuple[
    Float,  # estimates (M, K)
    Float,  # leave-one-out estimates (J, K)
    Float,  # residuals about them (J,)
    Float,  # p-values of the residuals (J,)
    Float,  # slopes fitted again under the null, their limit (M, K)
    Float,  # sum of squares and its three cumulants under the null (M, 4)
]: ...  # NaN where there is no fit
def global_draws(
    *,
    beta_exposure: Float,  # (J, K)
    se_exposure: Float,  # (J, K)
    beta_outcome: Float,  # (J,)
    se_outcome: Float,  # (J,)
    leave_one_out: Float,  # (J, K)
    residuals: Float,  # (J,)
    rss: float,
    outliers: bool,
    seed: int,
    first: int,
    count: int,
    threads: int,
) -> tuple[int, list[int]]: ...  # draws above rss; above each residual: (J,) or, not asked, (0,)
def distortion_draws(
    *,
    beta_exposure: Float,  # (J, K)
    se_exposure: Float,  # (J, K)
    beta_outcome: Float,  # (J,)
    se_outcome: Float,  # (J,)
    estimate: Float,  # (K,)
    dropped: int,
    ratio: Float,  # (K,)
    difference: Float,  # (K,)
    seed: int,
    first: int,
    count: int,
    threads: int,
) -> tuple[list[int], list[int]]: ...  # draws that change as much, in ratio and in difference
