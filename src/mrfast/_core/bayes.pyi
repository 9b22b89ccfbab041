# J candidates. A row of modes is b, kX, kY, lX, lY, log density, log Laplace term.
# Bits: ceil(J / 64) words per model; bit j % 64 of word j // 64 is candidate j, 1 = slab.

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

class Posterior:
    def __init__(
        self,
        *,
        n: float,
        noise: NDArray[np.float64],  # (J,)
        coefficients: NDArray[np.float64],  # (2, J): exposure, outcome
        residual_exposure: float,
        residual_slope: float,
        residual_outcome: float,
        rotation: NDArray[np.float64],  # (J, J), or (0,) where the candidates are uncorrelated
        mean_direction: NDArray[np.float64],  # (J,), or (0,) where the moments are centred
        mean_exposure: float,
        mean_outcome: float,
        pleiotropy_slope: float,
        slab_sd: float,
        spike_sd: float,
        effect_sd: float,
        confounding_sd: float,
        scale_power: float,
    ) -> None: ...
    def evidence_scan(
        self,
        model: NDArray[np.bool_],  # (J,)
    ) -> tuple[float, NDArray[np.float64]]: ...  # log evidence, modes (M, 7)
    def evidence_from_starts(
        self,
        model: NDArray[np.bool_],  # (J,)
        starts: NDArray[np.float64],  # (S, 2): kX, kY
    ) -> tuple[float, NDArray[np.float64]]: ...  # log evidence, modes (M, 7)
    def massive_starts(self) -> NDArray[np.float64]: ...  # (S, 2): kX, kY
    def profile(
        self,
        model: NDArray[np.bool_],  # (J,)
        parameters: NDArray[np.float64],  # (5,): b, kX, kY, lX, lY
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]: ...  # value, (5,), (5, 5)
    def effects(
        self,
        model: NDArray[np.bool_],  # (J,)
        parameters: NDArray[np.float64],  # (5,)
    ) -> NDArray[np.float64]: ...  # (2, J): sgamma, salpha
    def predict_neighbours(
        self,
        model: NDArray[np.bool_],  # (J,)
        log_odds: NDArray[np.float64],  # (J,)
    ) -> NDArray[np.float64]: ...  # (J,)
    def search(
        self,
        *,
        cache: EvidenceCache,
        log_odds: NDArray[np.float64],  # (J,)
        iterations: int,
        chains: int,
        threads: int,
        seed: int,  # 0 to 2**64 - 1
        move_probability: Sequence[float],  # (4,): flip, informed, swap, jump
        progress: Callable[[int], object] | None,  # called with the iterations done
    ) -> dict[str, Any]: ...  # full: bool; proposed, accepted: (4,); visits: (models,) of uint64
    def evaluate(
        self,
        cache: EvidenceCache,
        model: NDArray[np.bool_],  # (J,)
    ) -> None: ...
    def draw(
        self,
        model: NDArray[np.bool_],  # (J,)
        parameters: NDArray[np.float64],  # (5,): the mode
        root: NDArray[np.float64],  # (5, 5): Cholesky factor of their covariance
        normals: NDArray[np.float64],  # (draws, 2J + 5): replaced by the draws
    ) -> None: ...
    def mode_roots(
        self,
        bits: NDArray[np.uint64],  # (models, words)
        counts: NDArray[np.int64],  # (models,): modes of each
        modes: NDArray[np.float64],  # (sum of counts, 7)
    ) -> NDArray[np.float64]: ...  # (sum of counts, 5, 5)
    def time_evidence(
        self,
        model: NDArray[np.bool_],  # (J,)
        kind: Literal["scan", "starts", "neighbours"],
        repeats: int,
    ) -> float: ...  # seconds per evidence

class EvidenceCache:
    def __init__(self, max_models: int) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def max_models(self) -> int: ...
    @property
    def lookups(self) -> int: ...
    def export_arrays(
        self,
    ) -> tuple[
        NDArray[np.uint64],  # bits, (models, words)
        NDArray[np.float64],  # log evidence, (models,)
        NDArray[np.int64],  # modes of each, (models,)
        NDArray[np.float64],  # modes, (sum of counts, 7)
    ]: ...
    def import_arrays(
        self,
        bits: NDArray[np.uint64],
        log_evidence: NDArray[np.float64],
        counts: NDArray[np.int64],
        modes: NDArray[np.float64],
    ) -> None: ...
