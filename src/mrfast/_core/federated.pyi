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
        dosages: Numbers | None,  # (n, J): exposures instead of the one that is packed
        selection: list[int],  # (m,): which of them each point has, or (0,) without dosages
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
    def score_dosages(
        self,
        coefficients: NDArray[np.float64],  # (K - 1,), of the intercept and the covariates
        dosages: Numbers,  # (n, J), between 0 and 2
        threads: int,
    ) -> tuple[
        NDArray[np.float64],  # (J, 9): n, cases, carriers of the coded allele among cases and
        # controls, of the other allele likewise, sum, smallest, largest
        NDArray[np.float64],  # (J, K + 1): information with each coefficient, own, score
        NDArray[np.float64],  # (J, (K - 1) + (K - 1)^2): gradient and lower information of the
        # rows that are left out
    ]: ...
