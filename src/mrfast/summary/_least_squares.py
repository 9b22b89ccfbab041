"""Generalised least squares with correlated SNPs: what every method that takes `ld` shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrfast import _validation as check
from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float

SMALLEST_EIGENVALUE = 1e-4
"""Of a correlation matrix that is used as it is; below, estimates hang on its rounding."""

_SYMMETRIC = 1e-8
_DIAGONAL = 1e-6
_NEGATIVE = -1e-3  # rounded published matrices fall a little below zero; no further
_POSITIVE = 1e-10  # relative: smaller eigenvalues are rounding
_SHOWN = 3


def correlations(
    ld: Any, snps: Sequence[object] | None, ld_snps: Sequence[object] | None, j: int
) -> Float:
    """Correlation matrix in the order of the variants, shape (J, J)."""
    names = None if snps is None else check.name_tuple("snps", snps, length=j)
    if ld is None:
        return np.eye(j)
    labels = labels_of(ld, ld_snps)
    matrix = check.float_array("ld", getattr(ld, "values", ld), ndim=2)
    m = len(matrix)
    if matrix.shape != (m, m):
        raise check.fail("ld", "a square matrix", f"shape {matrix.shape}")
    if labels is None and names is None:
        if m != j:
            raise check.fail("ld", f"shape ({j}, {j})", f"shape ({m}, {m})")
    elif labels is None:
        raise check.fail(
            "ld_snps", "the identifiers of ld's rows (ld_snps=snps where they are the same)", "none"
        )
    elif names is None:
        raise check.fail("snps", "identifiers, as ld has some", "none")
    else:
        labels = check.name_tuple("ld_snps", labels, length=m)
        place = {label: i for i, label in enumerate(labels)}
        missing = [name for name in names if name not in place]
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise check.fail("ld", "every SNP", f"none of {shown} ({len(missing)} in all)")
        order = [place[name] for name in names]
        matrix = matrix[np.ix_(order, order)]
    if np.abs(matrix - matrix.T).max() > _SYMMETRIC:
        raise check.fail("ld", "a symmetric matrix", "one that is not symmetric")
    if np.abs(matrix.diagonal() - 1).max() > _DIAGONAL:
        raise check.fail("ld", "1 on the diagonal", f"{matrix.diagonal().tolist()[:_SHOWN]} ...")
    if np.abs(matrix).max() > 1 + _DIAGONAL:
        raise check.fail("ld", "correlations from -1 to 1", f"{np.abs(matrix).max():g}")
    return np.asarray((matrix + matrix.T) / 2)


def labels_of(ld: Any, ld_snps: Sequence[object] | None) -> Sequence[object] | None:
    """Identifiers of the rows of `ld`, if it has any."""
    columns = getattr(ld, "columns", None)
    if columns is None:
        return ld_snps
    if ld_snps is not None:
        raise check.fail("ld_snps", "none beside a DataFrame, which names its columns", "some")
    columns, index = [str(name) for name in columns], [str(name) for name in ld.index]
    counts = [str(i) for i in range(len(index))]
    if index not in (columns, counts):
        raise check.fail("ld", "rows and columns with the same names in the same order", "others")
    return columns


class Whitening:
    """Makes associations uncorrelated, with variance 1.

    Parameters
    ----------
    r : ndarray, shape (J, J), or None
        Correlations between SNPs; None: independent.

    Raises
    ------
    InvalidInputError
        The matrix is nearly singular.
    """

    def __init__(self, r: Float | None) -> None:
        self._spectrum = None if r is None else _regular_spectrum(r)

    def __call__(self, columns: Float, error: Float) -> Float:
        """Columns, shape (J, ...), whose errors have the standard deviations `error`, (J,)."""
        scaled = (columns.T / error).T
        if self._spectrum is None:
            return np.asarray(scaled)
        return _decorrelated(*self._spectrum, scaled)


class ComponentWhitening:
    """As `Whitening`, on principal components.

    Parameters
    ----------
    r : ndarray, shape (J, J)
        Correlations between SNPs.
    z : ndarray, shape (J,)
        The components are the leading eigenvectors of (z_i z_j r_ij).
    components : int or float
        Their number, or the share of the trace that they explain at least.

    Raises
    ------
    InvalidInputError
        A matrix with negative eigenvalues; more components than it has, or than are independent.
    """

    def __init__(self, r: Float, z: Float, components: float | int) -> None:
        values, vectors = symmetric_eigen(np.outer(z, z) * r)
        values, vectors = values[::-1], vectors[:, ::-1]
        if values[-1] < _NEGATIVE * values[0]:
            raise check.fail(
                "ld", "a positive semi-definite matrix", f"eigenvalue {values[-1]:.3g}"
            )
        positive = int((values > _POSITIVE * values[0]).sum())
        if isinstance(components, (int, np.integer)) and not isinstance(components, bool):
            k = check.integer("components", components, minimum=1, maximum=positive)
        else:
            share = check.scalar("components", components, above=0, below=1)
            kept = np.cumsum(np.maximum(values, 0))
            k = min(int(np.searchsorted(kept, share * kept[-1])) + 1, positive)
        self._r, self._basis = r, vectors[:, :k]

    def __call__(self, columns: Float, error: Float) -> Float:
        """Components of columns, shape (J, ...), whose errors have standard deviations `error`."""
        basis = self._basis
        carried = np.einsum("ji,ib->jb", np.outer(error, error) * self._r, basis)
        omega = np.einsum("ja,jb->ab", basis, carried)
        scale = np.sqrt(omega.diagonal())
        omega = omega / np.outer(scale, scale)
        values, vectors = symmetric_eigen((omega + omega.T) / 2)
        if not values[0] > _POSITIVE:
            raise check.fail(
                "components", "fewer components: their covariance is singular", f"{len(values)}"
            )
        projected = (np.einsum("jk,j...->k...", basis, columns).T / scale).T
        return _decorrelated(values, vectors, projected)


def _regular_spectrum(r: Float) -> tuple[Float, Float]:
    """Eigenvalues and eigenvectors of a correlation matrix; an error where it is near singular."""
    values, vectors = symmetric_eigen(r)
    if values[0] < SMALLEST_EIGENVALUE:
        raise check.fail(
            "ld",
            f"a correlation matrix with eigenvalues of at least {SMALLEST_EIGENVALUE:g} "
            "(prune the variants, or use principal components: components=0.99)",
            f"one with smallest eigenvalue {values[0]:.3g}",
        )
    return values, vectors


def _decorrelated(values: Float, vectors: Float, columns: Float) -> Float:
    """Coordinates on the eigenvectors of a correlation matrix, over their standard deviations."""
    rotated = np.einsum("jk,j...->k...", vectors, columns)
    return np.asarray((rotated.T / np.sqrt(values)).T)


def least_squares(columns: Float, response: Float) -> tuple[Float, Float]:
    """Coefficients of one or two columns, and the inverse of their cross products."""
    gram = np.einsum("kp,kq->pq", columns, columns)
    right = np.einsum("kp,k->p", columns, response)
    if len(gram) == 2:
        determinant = gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2
        if not determinant > 1e-12 * gram[0, 0] * gram[1, 1]:
            raise check.fail(
                "beta_exposure", "associations that differ between variants", "equal ones"
            )
        inverse = np.array([[gram[1, 1], -gram[0, 1]], [-gram[0, 1], gram[0, 0]]]) / determinant
    else:
        inverse = 1 / gram
    return np.einsum("pq,q->p", inverse, right), inverse
