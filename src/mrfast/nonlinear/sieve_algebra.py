"""Penalties and small algebra that the sieve estimators share."""

from __future__ import annotations

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.splines import BSpline

__all__ = ["curve_roughness", "inverse_of", "without_constant"]

_CURVATURE_VARIANCE = 4.0


def curve_roughness(spline: BSpline, x: Float, penalty: str | int) -> tuple[Float, int, Float]:
    """Penalty of a causal curve.

    Parameters
    ----------
    spline : BSpline
        Of the standardised exposure.
    x : ndarray (n,)
        The standardised exposure.
    penalty : {"2c", 2, 3}
        Curvature about its mean, with a weak prior of the mean; or that derivative.

    Returns
    -------
    penalty : ndarray (K, K)
    rank : int
    prior : ndarray (K, K)
        Precision of the mean curvature; zero without one.

    Raises
    ------
    InvalidInputError
        There is no such penalty.
    """
    k = spline.n_functions
    kind = check.choice("penalty", str(penalty), ["2c", "2", "3"])
    if kind == "2c":
        low, high = (float(end) for end in np.quantile(x, [0.01, 0.99]))
        mean = spline.mean_curvature(low, high)
        return (
            spline.curvature_penalty(low, high),
            k - 3,
            np.outer(mean, mean) / _CURVATURE_VARIANCE,
        )
    return spline.penalty(int(kind)), k - int(kind), np.zeros((k, k))


def without_constant(k: int) -> Float:
    """Orthonormal coefficients (k, k - 1) of splines that sum to zero."""
    full = np.linalg.qr(np.column_stack([np.ones(k), np.eye(k)[:, 1:]]))[0]
    return np.asarray(full[:, 1:], dtype=np.float64)


def inverse_of(matrix: Float) -> Float:
    """Inverse of a small symmetric matrix, itself symmetric."""
    inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    return 0.5 * (inverse + inverse.T)
