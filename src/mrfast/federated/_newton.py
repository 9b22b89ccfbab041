"""Newton's method for many concave functions side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float

_DECREMENT = 1e-18  # squared Newton decrement, twice the value that is left to gain
_SLOW = 1e-11  # the same where it falls by a constant factor only: the maximum is at infinity
_ITERATIONS = 200


@dataclass(frozen=True)
class Maxima:
    """Where Newton's method ended; the last step is not taken."""

    coefficients: Float  # (m, K)
    value: Float
    gradient: Float  # (m, K)
    information: Float  # (m, K, K)
    step: Float  # (m, K): not small where the maximum is at infinity
    converged: NDArray[np.bool_]


def maximise(
    objective: Callable[[Float, NDArray[np.intp]], tuple[Float, Float, Float]],
    start: Float,
    free: int,
    *,
    exact_curvature: bool = True,
    enough: float = 0.0,
) -> Maxima:
    """Newton's method with step halving, for many concave functions side by side.

    Parameters
    ----------
    objective : callable
        Takes coefficients (a, K) and which functions they belong to (a,), gives values (a,),
        gradients (a, K) and information (a, K, K).
    start : ndarray, shape (m, K)
    free : int
        The first so many coefficients move; the others stay.
    exact_curvature : bool
        False: the information is not minus the second derivative, convergence is linear.
    enough : float
        Squared Newton decrement (twice what is left to gain) that suffices, where that of full
        precision is not wanted.

    Returns
    -------
    Maxima
    """
    m, k = start.shape
    value, decrement = np.full(m, -np.inf), np.full(m, np.inf)
    gradient, information = np.zeros((m, k)), np.zeros((m, k, k))
    best, step, trial = start.copy(), np.zeros((m, k)), start.copy()
    converged, active = np.zeros(m, dtype=np.bool_), np.arange(m)
    for _ in range(_ITERATIONS):
        v, g, matrix = objective(trial[active], active)
        noise = 1e-12 * (1 + np.abs(v))
        better = np.isfinite(v) & (v >= value[active] - noise)
        worse = active[~better]
        step[worse] /= 2
        trial[worse] = best[worse] + step[worse]
        moved = active[better]
        best[moved], value[moved] = trial[moved], v[better]
        gradient[moved], information[moved] = g[better], matrix[better]
        if moved.size:
            move = solve(information[moved][:, :free, :free], gradient[moved][:, :free])
            before = decrement[moved]
            now = np.einsum("mi,mi->m", move, gradient[moved][:, :free])
            decrement[moved] = now
            if free == k:  # not too far at once, yet fast to infinity
                allowed = np.maximum(1.0, np.abs(best[moved, -1:]))
                move /= np.maximum(1.0, np.abs(move[:, -1:]) / allowed)
            step[moved, :free] = move
            trial[moved] = best[moved] + step[moved]
            done = now <= max(_DECREMENT if exact_curvature else 1e-20, enough)
            if exact_curvature:
                done |= (now <= _SLOW) & (now > 0.02 * before)
            converged[moved[done]] = True
        # Steps that were halved down to nothing: the value is as high as rounding lets it be.
        stuck = worse[np.max(np.abs(step[worse]), axis=1, initial=0.0) < 1e-9]
        converged[stuck] = decrement[stuck] < 1e-6
        gone = converged.copy()
        gone[stuck] = True
        active = active[~gone[active]]
        if not active.size:
            break
    return Maxima(best, value, gradient, information, step, converged)


def solve(matrices: Float, right: Float) -> Float:
    """Solutions of positive definite systems; as good as can be where they are singular.

    Matrices (m, k, k), right-hand sides (m, k) or (m, k, r).
    """
    vectors = right if right.ndim == 3 else right[..., None]
    diagonal = np.einsum("mii->mi", matrices)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = matrices * scale[:, :, None] * scale[:, None, :]
    vectors = vectors * scale[..., None]
    solved = vectors
    for jitter in (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6):
        if jitter:
            scaled = scaled + jitter * np.eye(matrices.shape[1])
        try:
            found = np.asarray(np.linalg.solve(scaled, vectors), dtype=np.float64)
        except np.linalg.LinAlgError:
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # systems that are all but singular
            along = np.sum(found * vectors, axis=1)
        if np.isfinite(found).all() and np.all(along >= 0):
            solved = found
            break
    result: Float = solved * scale[..., None]
    return result if right.ndim == 3 else result[..., 0]
