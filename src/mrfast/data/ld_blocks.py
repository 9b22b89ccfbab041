"""Groups of correlated candidates, from correlation matrices in one piece or in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float

__all__ = ["LDBlock", "connected_groups", "read_only", "stated_correlations"]

STATED_CORRELATION = 0.01
"""Correlations in a stated matrix (`ld`) count as none up to this size."""

ROUNDING_CORRELATION = 1e-12
"""Largest correlation that counts as rounding error; within stated blocks nothing else does."""


def read_only(values: ArrayLike) -> Float:
    """Copy in double precision that cannot be written to."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class LDBlock:
    """Two or more correlated candidates, with the eigenvectors of their correlation matrix.

    Attributes
    ----------
    indices : ndarray of int, shape (B,)
        Places of the candidates, ascending.
    eigenvalues : ndarray, shape (B,)
        Ascending, positive.
    eigenvectors : ndarray, shape (B, B)
        Column k is direction k.
    """

    indices: NDArray[np.intp]
    eigenvalues: Float
    eigenvectors: Float

    def __post_init__(self) -> None:
        """Check the parts against each other; keep frozen copies."""
        indices = np.array(self.indices, dtype=np.intp)
        if indices.ndim != 1 or len(indices) < 2 or not (np.diff(indices) > 0).all():
            raise check.fail("indices", "two or more ascending places", repr(self.indices))
        b = len(indices)
        values = check.float_array(
            "eigenvalues", self.eigenvalues, ndim=1, shape=(b,), positive=True
        )
        vectors = check.float_array("eigenvectors", self.eigenvectors, ndim=2, shape=(b, b))
        products = np.einsum("ik,il->kl", vectors, vectors)
        if np.abs(products - np.eye(b)).max() > 1e-8:
            raise check.fail("eigenvectors", "orthonormal columns", "others")
        indices.setflags(write=False)
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "eigenvalues", read_only(values))
        object.__setattr__(self, "eigenvectors", read_only(vectors))

    @classmethod
    def of_matrix(cls, indices: ArrayLike, matrix: ArrayLike) -> LDBlock:
        """Block of a symmetric positive definite matrix of the standardised candidates.

        Parameters
        ----------
        indices : array_like of int, shape (B,)
            Places of the candidates, ascending.
        matrix : array_like, shape (B, B)
            Their second moments in units of sigma_g: correlations.

        Returns
        -------
        LDBlock
        """
        places = np.array(indices, dtype=np.intp)
        b = places.size
        a = check.float_array("matrix", matrix, ndim=2, shape=(b, b))
        values, vectors = symmetric_eigen((a + a.T) / 2)
        if not values[0] > 1e-12 * values[-1]:
            raise check.fail(
                "matrix",
                "a positive definite matrix of an LD block",
                f"one with smallest eigenvalue {values[0]:.6g}, largest {values[-1]:.6g}",
            )
        return cls(places, values, vectors)

    @property
    def size(self) -> int:
        """Number B of candidates."""
        return len(self.indices)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.indices, self.eigenvalues, self.eigenvectors)


def connected_groups(joined: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Connected components of a symmetric adjacency matrix, by their first members."""
    j = len(joined)
    waiting = np.ones(j, dtype=np.bool_)
    groups = []
    for first in range(j):
        if not waiting[first]:
            continue
        member = np.zeros(j, dtype=np.bool_)
        new = np.zeros(j, dtype=np.bool_)
        new[first] = True
        while new.any():
            member |= new
            new = joined[new].any(axis=0) & ~member
        waiting &= ~member
        groups.append(np.flatnonzero(member))
    return groups


def _block_diagonal(argument: str, blocks: Sequence[ArrayLike], j: int) -> Float:
    """Correlation matrix, shape (J, J), from its diagonal blocks in the order of the variants."""
    matrix = np.zeros((j, j))
    start = 0
    for number, block in enumerate(blocks):
        name = f"{argument}[{number}]"
        part = check.float_array(name, block, ndim=2)
        size = part.shape[0]
        if part.shape[1] != size or size == 0:
            raise check.fail(name, "a square block", f"shape {part.shape}")
        stop = start + size
        if stop <= j:
            matrix[start:stop, start:stop] = _correlation_matrix(name, part, size)
        start = stop
    if start != j:
        raise check.fail(argument, f"blocks of {j} variants together", f"{start}")
    return matrix


def _correlation_matrix(argument: str, values: ArrayLike, j: int) -> Float:
    """Check a correlation matrix, shape (J, J), but for being positive definite."""
    matrix = check.float_array(argument, values, ndim=2, shape=(j, j))
    if np.abs(matrix - matrix.T).max() > 1e-8:
        raise check.fail(argument, "a symmetric matrix", "one that is not symmetric")
    if np.abs(matrix.diagonal() - 1).max() > 1e-6:
        worst = int(np.argmax(np.abs(matrix.diagonal() - 1)))
        raise check.fail(
            argument, "1 on the diagonal", f"{matrix[worst, worst]} at [{worst}, {worst}]"
        )
    return np.asarray((matrix + matrix.T) / 2)


def stated_correlations(ld: Any, j: int) -> tuple[Float, float]:
    """Correlation matrix of the candidates, and the largest correlation that counts as none."""
    if isinstance(ld, (list, tuple)) and any(_is_matrix(entry) for entry in ld):
        return _block_diagonal("ld", ld, j), ROUNDING_CORRELATION
    return _correlation_matrix("ld", ld, j), STATED_CORRELATION


def _is_matrix(entry: object) -> bool:
    try:
        return np.ndim(entry) == 2  # type: ignore[arg-type]
    except ValueError:  # rows of different lengths
        return False
