# n rows, p covariates, K = p + 2 coefficients: of the intercept, the covariates, the exposure.
# Columns count as (value - centre) * scale. Matrices of numbers are float64, float32 or int8 (a
# negative int8 is missing) and may have any strides.

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

def column_moments(
    matrix: Numbers,  # (n, c)
    threads: int,
) -> NDArray[np.float64]: ...  # (5, c): mean, standard deviation, smallest, largest, 1 = finite

class LogisticRows:
    def __init__(
        self,
        *,
        outcome: Numbers,  # (n,)
        covariates: Numbers,  # (n, p)
        exposure: Numbers | None,  # (n,)
        centre: NDArray[np.float64],  # (p,), or (p + 1,) with an exposure
        scale: NDArray[np.float64],  # as centre
        weights: Numbers | None,  # (n,)
        offset: Numbers | None,  # (n,)
        threads: int,
    ) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def evaluate(
        self,
        coefficients: NDArray[np.float64],  # (m, K)
        *,
        information: bool,
        plain: bool,  # information of a linear regression with variance 1
        dosages: Numbers | None,  # (n, m): each point's own exposure
        centre: NDArray[np.float64],  # (m,), or (0,) without dosages
        scale: NDArray[np.float64],  # as centre
        threads: int,
    ) -> tuple[
        NDArray[np.float64],  # log likelihoods (m,)
        NDArray[np.float64],  # gradients (m, K)
        NDArray[np.float64],  # information (m or 0, K, K)
    ]: ...
    def firth_score(
        self,
        coefficients: NDArray[np.float64],  # (K,)
        inverse: NDArray[np.float64],  # (K, K), of the information
        threads: int,
    ) -> NDArray[np.float64]: ...  # (K,)
    def count_dosages(
        self,
        dosages: Numbers,  # (n, m)
        threads: int,
    ) -> NDArray[np.float64]: ...  # (m, 10): n, cases, carriers of the coded allele among cases
    # and controls, of the other allele likewise, sum, sum of squares, smallest, largest
