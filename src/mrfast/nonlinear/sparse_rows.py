"""Design matrices whose rows have few values that are not zero: sums over them, by chunks.

Local B-splines leave about ten such values a row. Sums run over fixed chunks of rows and are
added in their order, so that their bits do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numba
import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.nonlinear.splines import BSpline

__all__ = ["SparseRows", "cluster_outer_sum", "cross_sum", "gram", "row_products", "row_sum"]

CHUNK = 16_384

Index = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A matrix (n, width) of which each row has L values.

    Attributes
    ----------
    index : ndarray of int16 (n, L)
        Their columns; one column may come twice, and its values are then added.
    values : ndarray of float64 (n, L)
    width : int
    """

    index: Index
    values: Float
    width: int

    @classmethod
    def of_spline(cls, spline: BSpline, x: Float, order: int = 0) -> SparseRows:
        """Values, or derivatives, of the functions of a spline."""
        count = len(x)
        index, values = np.empty((count, 4), dtype=np.int16), np.empty((count, 4))
        for start in range(0, count, CHUNK):
            stop = start + CHUNK
            first, values[start:stop] = spline.local(x[start:stop], order)
            index[start:stop] = first[:, None] + np.arange(4)
        return cls(index, values, spline.n_functions)

    @classmethod
    def dense(cls, columns: Float) -> SparseRows:
        """A matrix without zeros, shape (n, L)."""
        count, width = columns.shape
        index = np.broadcast_to(np.arange(width, dtype=np.int16), (count, width))
        return cls(index, np.asarray(columns, dtype=np.float64), width)

    @classmethod
    def beside(cls, blocks: Sequence[SparseRows]) -> SparseRows:
        """Blocks of columns next to each other."""
        offsets = np.cumsum([0, *(block.width for block in blocks)])
        index = np.concatenate(
            [block.index + np.int16(o) for block, o in zip(blocks, offsets[:-1], strict=True)],
            axis=1,
        )
        values = np.concatenate([block.values for block in blocks], axis=1)
        return cls(index, values, int(offsets[-1]))

    def times(self, factor: Float) -> SparseRows:
        """Each row multiplied by a number (n,)."""
        return SparseRows(self.index, self.values * factor[:, None], self.width)

    def product(self, other: SparseRows) -> SparseRows:
        """Row-wise Kronecker product; column (a, b) is a * other.width + b."""
        n = len(self.values)
        values = (self.values[:, :, None] * other.values[:, None, :]).reshape(n, -1)
        wide = self.index[:, :, None] * np.int16(other.width) + other.index[:, None, :]
        return SparseRows(wide.reshape(n, -1), values, self.width * other.width)

    def take(self, rows: Any) -> SparseRows:
        """Some of the rows."""
        return SparseRows(self.index[rows], self.values[rows], self.width)

    def toarray(self) -> Float:
        """The matrix with its zeros (n, width)."""
        table = np.zeros((len(self.values), self.width))
        np.add.at(table, (np.arange(len(table))[:, None], self.index), self.values)
        return table


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call; keep the code on disk where a folder can be written."""
    try:
        return cast(Callable[..., None], numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no folder for its cache
        return cast(Callable[..., None], numba.njit(nogil=True)(function))


def row_products(rows: SparseRows, coefficients: Float, n_threads: int) -> Float:
    """Products of each row with coefficients (width,), shape (n,)."""
    result = np.empty(len(rows.values))
    coefficients = np.ascontiguousarray(coefficients, dtype=np.float64)

    def work(part: slice) -> None:
        _products(rows.index[part], rows.values[part], coefficients, result[part])

    _over_chunks(work, len(result), n_threads)
    return result


def row_sum(rows: SparseRows, weight: Float, n_threads: int) -> Float:
    """Sum of weighted rows (width,)."""

    def work(part: slice) -> Float:
        total = np.zeros(rows.width)
        _sum(rows.index[part], rows.values[part], weight[part], total)
        return total

    return _added(_over_chunks(work, len(weight), n_threads))


def gram(rows: SparseRows, weight: Float, n_threads: int) -> Float:
    """Sum of weight times row row' (width, width)."""

    def work(part: slice) -> Float:
        total = np.zeros((rows.width, rows.width))
        _gram(rows.index[part], rows.values[part], weight[part], total)
        return total

    half = _added(_over_chunks(work, len(weight), n_threads))
    full: Float = half + half.T
    return full


def cross_sum(left: SparseRows, right: SparseRows, weight: Float, n_threads: int) -> Float:
    """Sum of weight times row of the left, row' of the right (left.width, right.width)."""

    def work(part: slice) -> Float:
        total = np.zeros((left.width, right.width))
        _cross(
            left.index[part],
            left.values[part],
            right.index[part],
            right.values[part],
            weight[part],
            total,
        )
        return total

    return _added(_over_chunks(work, len(weight), n_threads))


def cluster_outer_sum(
    rows: SparseRows, clusters: NDArray[np.int64] | None, n_threads: int
) -> Float:
    """Sum over clusters of s s', s = sum of a cluster's rows (width, width).

    Without clusters every row is one of its own.
    """
    if clusters is None:
        return gram(rows, np.ones(len(rows.values)), n_threads)
    order = np.argsort(clusters, kind="stable")
    bounds = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    bounds = np.append(bounds, len(order))

    def work(part: slice) -> Float:
        total = np.zeros((rows.width, rows.width))
        edges = bounds[part.start : part.stop + 1]
        _cluster_gram(rows.index, rows.values, order, edges, total)
        return total

    return _added(_over_chunks(work, len(bounds) - 1, n_threads))


def _over_chunks(work: Callable[[slice], Any], count: int, n_threads: int) -> list[Any]:
    parts = [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if n_threads == 1 or len(parts) == 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(min(n_threads, len(parts))) as pool:
        return list(pool.map(work, parts))


def _added(parts: list[Float]) -> Float:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@_compiled
def _products(index: Index, values: Float, coefficients: Float, result: Float) -> None:
    for i in range(values.shape[0]):
        total = 0.0
        for a in range(values.shape[1]):
            total += values[i, a] * coefficients[index[i, a]]
        result[i] = total


@_compiled
def _sum(index: Index, values: Float, weight: Float, total: Float) -> None:
    for i in range(values.shape[0]):
        for a in range(values.shape[1]):
            total[index[i, a]] += weight[i] * values[i, a]


@_compiled
def _gram(index: Index, values: Float, weight: Float, total: Float) -> None:
    """Half of the sum: its transpose is to be added."""
    for i in range(values.shape[0]):
        for a in range(values.shape[1]):
            scaled = weight[i] * values[i, a]
            if scaled == 0.0:
                continue
            row = index[i, a]
            for b in range(a):
                total[row, index[i, b]] += scaled * values[i, b]
            total[row, row] += 0.5 * scaled * values[i, a]


@_compiled
def _cross(
    index: Index, values: Float, other_index: Index, other: Float, weight: Float, total: Float
) -> None:
    for i in range(values.shape[0]):
        for a in range(values.shape[1]):
            scaled = weight[i] * values[i, a]
            if scaled == 0.0:
                continue
            row = index[i, a]
            for b in range(other.shape[1]):
                total[row, other_index[i, b]] += scaled * other[i, b]


@_compiled
def _cluster_gram(
    index: Index, values: Float, order: NDArray[np.int64], edges: NDArray[np.int64], total: Float
) -> None:
    width = total.shape[0]
    together = np.empty(width)
    for g in range(edges.shape[0] - 1):
        together[:] = 0.0
        for position in range(edges[g], edges[g + 1]):
            i = order[position]
            for a in range(values.shape[1]):
                together[index[i, a]] += values[i, a]
        for a in range(width):
            if together[a] != 0.0:
                for b in range(width):
                    total[a, b] += together[a] * together[b]
