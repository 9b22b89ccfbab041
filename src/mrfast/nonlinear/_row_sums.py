"""Sums over people whose bits do not depend on threads: products, scores, least squares."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mrfast import _core
from mrfast._validation import Float

_BLOCK = 2**19  # numbers of a block of rows
_COLLINEAR = 1e-9  # share of a column's variance that the columns before must leave


def blocks(n: int, width: int) -> Iterator[slice]:
    """Rows 0 to n in blocks of about `_BLOCK` numbers."""
    rows = max(256, _BLOCK // max(width, 1))
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))


def cross_products(
    left: Float, right: Float, weights: Float | None = None, n_threads: int = 1
) -> Float:
    """Sum over rows of left' right, shape (k, m), with weights (n,) or without."""
    return _core.crossproducts.weighted(
        np.ascontiguousarray(left),
        np.ascontiguousarray(right),
        None if weights is None else np.ascontiguousarray(weights),
        threads=n_threads,
    )


def weighted_sum(values: Float, weights: Float | None) -> float:
    """Sum of values (n,), with weights or without."""
    return float(values.sum() if weights is None else (weights * values).sum())


def score_covariance(
    scores: Callable[[slice], Float], n: int, width: int, clusters: NDArray[np.int64] | None
) -> Float:
    """Sum over people, or over the sums of clusters, of the squares of scores (rows, width).

    Rows must come in the order of their clusters.
    """
    total = np.zeros((width, width))
    if clusters is None:
        for rows in blocks(n, width):
            block = scores(rows)
            total += cross_products(block, block)
        return total
    sums = np.zeros((int(clusters[-1]) + 1, width))
    for rows in blocks(n, width):
        codes = clusters[rows]
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        sums[codes[starts]] += np.add.reduceat(scores(rows), starts, axis=0)
    return cross_products(sums, sums)


def sweep(matrix: Float, columns: Iterator[int] | range, scale: Float) -> tuple[Float, list[int]]:
    """Sweep columns of a symmetric matrix of products into regressions on these.

    Afterwards the swept rows hold minus the inverse (swept columns) and the coefficients (other
    columns); what is left of the other rows are products of residuals.

    Parameters
    ----------
    matrix : ndarray, shape (k, k)
    columns : of int
    scale : ndarray, shape (k,)
        Products of the columns with themselves before any sweep: a column of which others leave
        less than 1e-9 is passed over.

    Returns
    -------
    swept : ndarray, shape (k, k)
    used : list of int
        Columns that were swept.

    References
    ----------
    Goodnight (1979), doi:10.1080/00031305.1979.10482685.
    """
    swept, used = np.array(matrix, dtype=np.float64), []
    for j in columns:
        pivot = swept[j, j]
        if not pivot > _COLLINEAR * scale[j]:
            continue
        row = swept[j] / pivot
        swept -= np.outer(swept[:, j], row)
        swept[j], swept[:, j] = row, row
        swept[j, j] = -1.0 / pivot
        used.append(j)
    return swept, used


def inverse(matrix: Float) -> Float:
    """Pseudo-inverse of a symmetric, non-negative matrix of a few hundred rows at most."""
    diagonal = matrix.diagonal().copy()
    scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    swept, used = sweep(matrix * np.outer(scale, scale), range(len(matrix)), np.ones(len(matrix)))
    result = np.zeros_like(matrix)
    place = np.ix_(used, used)
    result[place] = -swept[place]
    return result * np.outer(scale, scale)


def clusters_or_people(n: int, clusters: NDArray[np.int64] | None) -> int:
    """Number of independent units."""
    return n if clusters is None else len(np.unique(clusters))
