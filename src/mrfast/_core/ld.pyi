# B candidates of a block, n nodes of a quadrature. Eigenvectors are columns. At every node the
# residuals are noise, of the given variance along each eigenvector, plus effects with the spike's
# variance or the slab's mean and variance; variances: above 0, those of slabs above the spike's.

from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

max_block: int  # largest B that is enumerated

def enumerate_block(
    eigenvectors: NDArray[np.float64],  # (B, B)
    variances: NDArray[np.float64],  # (n, B)
    residuals: NDArray[np.float64],  # (n, B)
    spike: NDArray[np.float64],  # (n,)
    slab: NDArray[np.float64],  # (n,)
    means: NDArray[np.float64],  # (0,), (B,) or (n, B)
    log_odds: NDArray[np.float64],  # (B,)
    *,
    inclusion: bool,
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...  # log evidence (n,), (n or 0, B)
def enumerate_by_slabs(
    eigenvectors: NDArray[np.float64],  # (B, B)
    variances: NDArray[np.float64],  # (n, B)
    residuals: NDArray[np.float64],  # (n, B)
    spike: NDArray[np.float64],  # (n,)
    slab: NDArray[np.float64],  # (n,)
    means: NDArray[np.float64],  # (0,), (B,) or (n, B)
    *,
    inclusion: bool,
    threads: int,
) -> tuple[
    NDArray[np.float64],  # log scale (n,): the sums are to be multiplied by its exponential
    NDArray[np.float64],  # sums of likelihoods over the models with k slabs (n, B + 1)
    NDArray[np.float64],  # of those with candidate j in the slab (n or 0, B, B + 1)
]: ...
def effects(
    eigenvectors: NDArray[np.float64],  # (B, B)
    variances: NDArray[np.float64],  # (n, B)
    residuals: NDArray[np.float64],  # (n, B)
    spike: NDArray[np.float64],  # (n,)
    slab: NDArray[np.float64],  # (n,)
    means: NDArray[np.float64],  # (0,), (B,) or (n, B)
    log_odds: NDArray[np.float64],  # (B,)
    *,
    threads: int,
) -> tuple[
    NDArray[np.float64],  # log evidence (n,)
    NDArray[np.float64],  # inclusion probabilities (n, B)
    NDArray[np.float64],  # posterior means of the effects (n, B)
    NDArray[np.float64],  # their covariances (n, B, B)
]: ...

class _Sample(TypedDict):  # J candidates of all blocks, one block after the other
    inclusion: NDArray[np.float64]  # (chains, J)
    node_probability: NDArray[np.float64]  # (chains, n)
    effect_mean: NDArray[np.float64]  # (chains, J)
    effect_square: NDArray[np.float64]  # (chains, J): posterior mean of the squared effect
    flip_rate: NDArray[np.float64]  # (chains,): accepted of the proposed
    swap_rate: NDArray[np.float64]  # (chains,)
    log_evidence: NDArray[np.float64]  # (chains,) estimates, nan where none; (0,) for one chain
    coverage: NDArray[np.float64]  # (chains,): share of time in models that other chains visited
    log_evidence_bound: float  # of the models visited: never above the whole
    models: int  # visited
    difference: float  # largest between two chains in an inclusion probability

def gibbs(
    *,
    eigenvectors: list[NDArray[np.float64]],  # (B, B) of each block
    variances: list[NDArray[np.float64]],  # (n, B)
    residuals: list[NDArray[np.float64]],  # (n, B)
    means: list[NDArray[np.float64]],  # (0,) or (n, B)
    log_odds: list[NDArray[np.float64]],  # (n, B)
    log_weight: NDArray[np.float64],  # (n,), -inf allowed
    spike: NDArray[np.float64],  # (n,)
    slab: NDArray[np.float64],  # (n,)
    chains: int,
    sweeps: int,  # kept, of each chain
    burn_in: int,  # sweeps before them
    threads: int,
    seed: int,  # 0 to 2**64 - 1
    progress: Callable[[int], object] | None,  # called with the sweeps done
) -> _Sample: ...
