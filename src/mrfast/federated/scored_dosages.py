"""Dosages as they enter a score: the instruments' coding, missing ones filled in.

Sums of squares are taken SNP by SNP, in a fixed order, so that no bit depends on the number of
threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float
from mrfast.federated.score import DosageCovariance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrfast.federated.cohort import Cohort

__all__ = ["ScoredDosages", "instrument_coding"]

_KEPT_BYTES = 2**26  # of all dosages, to keep them from one pass to the next
_READ_BYTES = 2**25  # of dosages at a time
_COLLINEAR = 1e-11  # share of the largest eigenvalue that counts as none


def instrument_coding(block: NDArray[Any], recoded: NDArray[np.bool_]) -> NDArray[Any]:
    """Dosages of the instruments' effect alleles: 2 - g where the site counts the other allele.

    Parameters
    ----------
    block : ndarray, shape (k, n)
        NaN, or negative in integers, where missing; changed in place.
    recoded : ndarray of bool, shape (k,)

    Returns
    -------
    ndarray, shape (k, n)
        Missing ones as they were marked.
    """
    for row, other in zip(block, recoded, strict=True):
        if not other:
            continue
        if row.dtype.kind == "i":
            np.subtract(2, row, out=row, where=row >= 0)
        else:
            np.subtract(2, row, out=row)
    return block


class ScoredDosages:
    """Dosages of the SNPs in a score, for the analysed persons.

    Parameters
    ----------
    cohort : Cohort
    rows : ndarray of int, shape (n,), or slice
        The analysed persons.
    columns : sequence of str, length m
        The cohort's columns of the SNPs.
    recoded : ndarray of bool, shape (m,)
        Whether they count the other allele.
    fill : ndarray, shape (m,)
        What stands for a missing dosage, in the instruments' coding.
    """

    def __init__(
        self,
        cohort: Cohort,
        rows: NDArray[np.intp] | slice,
        columns: Sequence[str],
        recoded: NDArray[np.bool_],
        fill: Float,
    ) -> None:
        self._cohort, self._rows, self._columns = cohort, rows, columns
        self._recoded, self._fill = recoded, fill
        self.n = cohort.n if isinstance(rows, slice) else rows.size
        keep = self.n * len(columns) * 8 <= _KEPT_BYTES
        self._kept = list(self._read()) if keep else None

    def blocks(self) -> Iterator[tuple[slice, Float]]:
        """Places of some SNPs, and their dosages, shape (k, n), filled in."""
        yield from self._read() if self._kept is None else self._kept

    def score(self, weights: Float) -> Float:
        """Sum of weighted dosages, shape (n,)."""
        result = np.zeros(self.n)
        for places, block in self.blocks():
            for weight, dosages in zip(weights[places], block, strict=True):
                result += weight * dosages
        return result

    def covariance(
        self, weights: Float, score: Float, covariates: Float, *, matrix: bool
    ) -> DosageCovariance:
        """Covariance of the dosages given the covariates, times n.

        Parameters
        ----------
        weights : ndarray, shape (m,)
        score : ndarray, shape (n,)
            As from `score`.
        covariates : ndarray, shape (n, p)
        matrix : bool
            Whether all pairs of SNPs are wanted.

        Returns
        -------
        DosageCovariance
        """
        m = weights.size
        basis = _Basis(covariates)
        residual = basis.residual(score)
        with_score, squares, means = np.empty(m), np.empty(m), np.empty(m)
        projections = np.empty((m, basis.size))
        pairs = np.empty((m, m)) if matrix else None
        for places, block in self.blocks():
            # residuals and basis have mean zero, so that only squares need the dosages' means
            with_score[places] = np.einsum("kn,n->k", block, residual)
            squares[places] = np.einsum("kn,kn->k", block, block)
            means[places] = np.add.reduce(block, axis=1) / self.n
            projections[places] = basis.coordinates(block)
            if pairs is not None:
                for others, other in self.blocks():
                    pairs[places, others] = np.einsum("kn,ln->kl", block, other)
        variances = squares - self.n * means**2
        variances -= np.einsum("kp,kp->k", projections, projections)
        if pairs is not None:
            pairs -= self.n * np.outer(means, means)
            pairs -= np.einsum("kp,lp->kl", projections, projections)
            pairs = (pairs + pairs.T) / 2
        return DosageCovariance(
            with_score=with_score,
            score_variance=float(np.einsum("n,n->", residual, residual)),
            variances=np.maximum(variances, 0),
            matrix=pairs,
        )

    def _read(self) -> Iterator[tuple[slice, Float]]:
        width = max(1, _READ_BYTES // (8 * self.n))
        for start, block in self._cohort.blocks(self._columns, self._rows):
            for first in range(0, block.shape[0], width):
                part = block[first : first + width]
                places = slice(start + first, start + first + part.shape[0])
                missing = self._cohort.is_missing(part)
                filled = instrument_coding(part, self._recoded[places]).astype(np.float64)
                if missing.any():
                    np.copyto(filled, self._fill[places, None], where=missing)
                yield places, filled


class _Basis:
    """Orthonormal coordinates of the centred covariates; collinear ones count once."""

    def __init__(self, covariates: Float) -> None:
        n, p = covariates.shape
        centred = np.array(covariates.T, order="C")
        for _ in range(2):  # the second round removes what rounding left of a large mean
            centred -= np.add.reduce(centred, axis=1, keepdims=True) / n
        length = np.sqrt(np.einsum("pn,pn->p", centred, centred))
        centred /= np.where(length > 0, length, 1)[:, None]
        self._columns = centred
        if p == 0:
            self._rotation = np.zeros((0, 0))
        else:
            products = np.einsum("pn,qn->pq", self._columns, self._columns)
            values, vectors = symmetric_eigen(products)
            good = values > _COLLINEAR * values[-1]
            self._rotation = vectors[:, good] / np.sqrt(values[good])
        self.size = self._rotation.shape[1]

    def coordinates(self, block: Float) -> Float:
        """Products of rows (k, n) with the basis, shape (k, size)."""
        products = np.einsum("kn,pn->kp", block, self._columns)
        coordinates: Float = np.einsum("kp,ps->ks", products, self._rotation)
        return coordinates

    def residual(self, values: Float) -> Float:
        """Values (n,) without their mean and what the covariates explain."""
        result: Float = values - np.add.reduce(values) / values.size
        for _ in range(2):  # the second round removes what rounding left
            coordinates = self.coordinates(result[None, :])[0]
            slopes = np.einsum("ps,s->p", self._rotation, coordinates)
            result = result - np.einsum("p,pn->n", slopes, self._columns)
        return result
