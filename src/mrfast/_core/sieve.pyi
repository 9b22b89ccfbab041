# N rows, P instruments, Q covariates, B instrument columns (functions of the instrument, then
# covariates), M model columns (exposure splines, covariates, residual splines, interactions).

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Spline = tuple[Float, Float]  # points (m,), pieces (m - 1, 4, 4)

class SieveRows:
    model_columns: int
    instrument_columns: int
    def __init__(
        self,
        *,
        exposure: Float,  # (N,)
        instrument: Float,  # (N,)
        basis: str,  # "spline", "levels" or "powers"
        basis_spline: Spline | None = None,
        levels: Float | None = None,
        covariates: Float | None = None,  # (N, Q)
        weight: Float | None = None,  # (N,)
        outcome: Float | None = None,  # (N,)
        exposure_spline: Spline | None = None,
        residual: Float | None = None,  # (N,), standardised
        residual_spline: Spline | None = None,
        prediction: Float | None = None,  # (N,), standardised
        prediction_spline: Spline | None = None,
        interactions: list[tuple[int, int]] = ...,  # power of the residual, function
    ) -> None: ...
    def first_stage_gram(self, *, threads: int) -> Float: ...  # (B + 1, B + 1), exposure last
    def first_stage_values(
        self,
        *,
        coefficients: Float,  # (B,)
        threads: int,
    ) -> tuple[Float, Float]: ...  # fit without covariates (N,), residual (N,)
    def model_gram(self, *, threads: int) -> Float: ...  # (M + B + 1, M + B + 1), outcome last
    def curve_residuals(
        self,
        *,
        coefficients: Float,  # (M,)
        threads: int,
    ) -> Float: ...  # (N,)
    def slope_sums(
        self,
        *,
        coefficients: Float,  # (M,)
        threads: int,
    ) -> tuple[Float, Float]: ...  # (M + B, B), and (B + 1,): squares, fourth powers
    def influence_gram(
        self,
        *,
        coefficients: Float,  # (M,)
        within_weight: float,
        offset: float,
        between: Float,  # (B, M)
        within: Float,  # (B, M)
        first_stage: Float,  # (B, M)
        order: NDArray[np.int64] | None = None,  # (N,)
        starts: NDArray[np.int64] | None = None,  # (clusters + 1,)
        threads: int,
    ) -> Float: ...  # (M, M)

def fold_grams(
    *,
    instruments: NDArray[Any],  # (N, P), int8, float32 or float64
    shift: Float,  # (P,)
    covariates: Float | None,  # (N, Q)
    exposure: Float,  # (N,)
    weight: Float | None,  # (N,)
    fold: NDArray[np.uint8],  # (N,)
    folds: int,
    threads: int,
) -> Float: ...  # (folds, 2 + P + Q, 2 + P + Q): 1, instruments, covariates, exposure
def fold_scores(
    *,
    instruments: NDArray[Any],  # (N, P)
    shift: Float,  # (P,)
    fold: NDArray[np.uint8],  # (N,)
    coefficients: Float,  # (folds, P)
    threads: int,
) -> Float: ...  # (N,)
def instrument_products(
    *,
    instruments: NDArray[Any],  # (N, P)
    shift: Float,  # (P,)
    values: Float,  # (N,)
    threads: int,
) -> Float: ...  # (P,)
def largest_functional(
    draws: Float,  # (draws, k)
    rows: Float,  # (m, k)
) -> Float: ...  # (draws,)
