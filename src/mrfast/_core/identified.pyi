# Stubs of the extension, kept by hand; tests/test_contracts.py compares them with it.
# J candidates, H nodes of the table of hyper-parameters, all in units of the residual standard
# deviations: x = h1 / sqrt(S11), y = h2 / sqrt(S22.1), b = beta / eta. A panel of the effect has 15
# Kronrod points.

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

class SlopePrior:
    def __init__(self, sd_exposure: float, sd_outcome: float) -> None: ...
    def log_density(
        self,
        c: NDArray[np.float64],  # (n,)
    ) -> NDArray[np.float64]: ...  # (n,)
    def log_smoothed(
        self,
        center: NDArray[np.float64],  # (n,)
        sd: float,
    ) -> NDArray[np.float64]: ...  # (n,)
    def conditional_quantile(
        self,
        center: NDArray[np.float64],  # (n,)
        sd: float,
        probability: NDArray[np.float64],  # (n,)
    ) -> NDArray[np.float64]: ...  # (n,): of c given center = c + sd Z
    def confounding_quantile(
        self,
        c: NDArray[np.float64],  # (n,)
        probability: NDArray[np.float64],  # (n,)
    ) -> NDArray[np.float64]: ...  # (n,): of kX^2 - c^2 given c

class Model:
    def __init__(
        self,
        *,
        x: NDArray[np.float64],  # (J,)
        y: NDArray[np.float64],  # (J,)
        n11: NDArray[np.float64],  # (J,)
        n22: NDArray[np.float64],  # (J,)
        n12: NDArray[np.float64],  # (J,)
        slope: float,
        slope_sd: float,  # 0: no prior on the bias of the slope
        confounding_sd: tuple[float, float],  # of kX and kY
        g: float,
        mean: NDArray[np.int64],  # (H,): 0 centred, 1 sign, 2 proportional
        a0: NDArray[np.float64],  # (H,)
        a1: NDArray[np.float64],  # (H,)
        rho: NDArray[np.float64],  # (H,)
        pi: NDArray[np.float64],  # (H,)
        weight: NDArray[np.float64],  # (H,)
        # Places, eigenvalues and eigenvectors (columns) of the groups of correlated candidates.
        blocks: Sequence[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = ...,
    ) -> None: ...
    def log_likelihood(
        self,
        b: NDArray[np.float64],  # (n,)
    ) -> NDArray[np.float64]: ...  # (n, H): log p(y|x, b, node)
    def log_marginal(
        self,
        b: NDArray[np.float64],  # (n,)
        threads: int,
    ) -> NDArray[np.float64]: ...  # (n,)
    def log_prior(
        self,
        b: NDArray[np.float64],  # (n,)
        effect_sd: float,
    ) -> NDArray[np.float64]: ...  # (n,)
    def integrate(
        self,
        *,
        effect_sd: float,
        tolerance: float,
        depth: float,
        threads: int,
        progress: Callable[[int], object] | None,
    ) -> dict[
        str, Any
    ]: ...  # edges (P + 1,), log_density (P, 15), log_evidence, error, evaluations
    def summarise(
        self,
        *,
        effect_sd: float,
        tolerance: float,
        depth: float,
        threads: int,
        progress: Callable[[int], object] | None,
    ) -> dict[str, Any]: ...  # as integrate(), node and node_weight (K,), hyper (H,), and (J,):
    # inclusion, first_stage_mean, first_stage_sd, pleiotropy_mean, pleiotropy_sd
    def draw(
        self,
        b: NDArray[np.float64],  # (n,)
        uniforms: NDArray[np.float64],  # (n, 1 + J)
        normals: NDArray[np.float64],  # (n, 2 J)
        threads: int,
    ) -> tuple[
        NDArray[np.int64],  # node (n,)
        NDArray[np.bool_],  # slab (n, J)
        NDArray[np.float64],  # first stage (n, J)
        NDArray[np.float64],  # pleiotropy (n, J)
    ]: ...

def first_stage_variance(
    x: NDArray[np.float64],  # (J,)
    n11: NDArray[np.float64],  # (J,)
    threshold: float,  # of |z|; 0: no selection
    selected: int | None = None,  # of how many, the first; None: all
) -> tuple[float, bool]: ...  # g, whether it is at the boundary 0
