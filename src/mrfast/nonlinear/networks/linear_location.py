"""Ridge regression of the exposure that the exposure networks begin with and add to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float

__all__ = ["first_stage_f", "linear_locations", "standardised", "weighted_quantiles"]

_PENALTIES = (1e-8, 1e-3, 1e-2, 1e-1, 1.0)  # in units of a standardised column's sum of squares


def standardised(*blocks: NDArray[np.generic] | None) -> tuple[Float, Float, Float]:
    """Columns of all blocks with mean 0 and standard deviation 1; constant ones become 0.

    Returns
    -------
    columns : ndarray, shape (n, d)
    shift, scale : ndarray, shape (d,)
    """
    columns = np.concatenate(
        [np.asarray(block, dtype=np.float64) for block in blocks if block is not None], axis=1
    )
    shift, scale = columns.mean(axis=0), columns.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    columns -= shift
    columns /= scale
    return columns, shift, scale


def linear_locations(
    columns: Float, target: Float, training: Float, validation: Float
) -> tuple[Float, Float]:
    """Ridge regressions on different rows, each with the penalty that predicts its others best.

    Parameters
    ----------
    columns : ndarray, shape (n, d)
        Standardised.
    target : ndarray, shape (n,)
    training, validation : ndarray, shape (members, n)
        Weights of the rows.

    Returns
    -------
    coefficients : ndarray, shape (members, 1 + d)
        Intercepts, which are not penalised, and slopes.
    residual_scale : ndarray, shape (members,)
        Root mean square of the residuals on the training rows.
    """
    result = np.empty((len(training), 1 + columns.shape[1]))
    scales = np.empty(len(training))
    for member, (weight, other) in enumerate(zip(training, validation, strict=True)):
        used, held_out = weight > 0, other > 0
        rows, y, w = columns[used], target[used], weight[used] / weight[used].sum()
        centre, level = w @ rows, w @ y
        moments = (rows * w[:, None]).T @ rows - np.outer(centre, centre)
        products = rows.T @ (w * y) - centre * level
        values, vectors = np.linalg.eigh(moments)
        rotated = vectors.T @ products
        penalties = np.asarray(_PENALTIES)[:, None]
        slopes = (rotated / (np.maximum(values, 0) + penalties)) @ vectors.T
        intercepts = level - slopes @ centre
        errors = target[held_out] - (intercepts[:, None] + slopes @ columns[held_out].T)
        best = int(np.argmin(errors**2 @ other[held_out]))
        result[member] = np.concatenate([intercepts[best : best + 1], slopes[best]])
        scales[member] = np.sqrt(w @ (y - intercepts[best] - rows @ slopes[best]) ** 2)
    return result, scales


def weighted_quantiles(values: Float, weight: Float, levels: Float) -> Float:
    """Quantiles of values with weights, linear between the middles of their steps."""
    order = np.argsort(values)
    steps = weight[order]
    middles = (np.cumsum(steps) - 0.5 * steps) / steps.sum()
    return np.interp(levels, middles, values[order])


def first_stage_f(
    instruments: Float, covariates: Float | None, exposure: Float, weight: Float
) -> float:
    """F statistic of the instruments in the linear regression of the exposure.

    Parameters
    ----------
    instruments : ndarray, shape (n, p)
    covariates : ndarray, shape (n, q), or None
    exposure, weight : ndarray, shape (n,)

    Returns
    -------
    float
    """
    blocks = [np.ones((len(exposure), 1))]
    if covariates is not None:
        blocks.append(covariates)
    sums = []
    for columns in (np.concatenate(blocks, axis=1), np.concatenate([*blocks, instruments], axis=1)):
        weighted = columns * weight[:, None]
        solution, _, rank, _ = np.linalg.lstsq(
            weighted.T @ columns, weighted.T @ exposure, rcond=1e-10
        )
        sums.append((float(weight @ (exposure - columns @ solution) ** 2), int(rank)))
    (less, few), (more, many) = sums
    if many == few or more <= 0:
        return 0.0 if many == few else float("inf")
    return (less - more) / (many - few) / (more / (len(exposure) - many))
