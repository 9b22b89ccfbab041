"""A score of many instruments, whose weights for a person come from other people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float

__all__ = ["InstrumentScore", "instrument_score", "transferred_score"]

_SHIFT_ROWS = 4096
_MANY = 20  # ridge where there are fewer people an instrument
_CONDITION = 1e10  # or where the Gram matrix is worse conditioned


@dataclass(frozen=True, eq=False)
class InstrumentScore:
    """One number a person that predicts the exposure.

    Attributes
    ----------
    values : ndarray of float64, shape: (n,)
        The instrument itself where there is one, otherwise its cross-fitted score.
    cross_fitted : bool
    ridge : float
        Mean ridge parameter of the folds; 0 for least squares.
    gram : ndarray of float64, shape: (2 + p + q, 2 + p + q), or None
        Sums of products of 1, instruments less `shift`, covariates and exposure.
    shift : ndarray of float64, shape: (p,), or None
    coefficients : ndarray of float64, shape: (p,), or None
        Weights of the instruments, mean of the folds.
    """

    values: Float
    cross_fitted: bool
    ridge: float = 0.0
    gram: Float | None = None
    shift: Float | None = None
    coefficients: Float | None = None


def instrument_score(
    instruments: NDArray[Any],
    exposure: Float,
    covariates: Float | None = None,
    *,
    weight: Float | None = None,
    clusters: NDArray[np.int64] | None = None,
    folds: int = 5,
    rng: np.random.Generator,
    n_threads: int = 1,
) -> InstrumentScore:
    """Regress the exposure on the instruments outside each fold, and predict inside it.

    The weights of a person do not depend on that person (nor on the person's cluster), so that
    the score is an instrument from outside whatever the number of instruments. Ridge regression
    with the parameter of the largest marginal likelihood replaces least squares where there are
    fewer than 20 people an instrument or instruments are nearly collinear. Gram matrices of the
    folds come from one pass over the rows; those of the training rows are the total less the
    fold.

    Parameters
    ----------
    instruments : ndarray, shape: (n, p)
        Of int8, float32 or float64 as they are; other types are converted.
    exposure : ndarray of float64, shape: (n,)
    covariates : ndarray of float64, shape: (n, q), optional
        Regressors beside the instruments, not part of the score.
    weight : ndarray of float64, shape: (n,), optional
    clusters : ndarray of int64, shape: (n,), optional
        Codes from 0; a cluster lies in one fold.
    folds : int
    rng : numpy.random.Generator
        Gives the folds.
    n_threads : int
        Does not change a bit of the result.

    Returns
    -------
    InstrumentScore

    References
    ----------
    Angrist JD, Imbens GW, Krueger AB. Jackknife instrumental variables estimation. Journal of
    Applied Econometrics, 1999. doi:10.1002/(SICI)1099-1255(199901/02)14:1<57::AID-JAE501>3.0.CO;2-G
    """
    from mrfast import _core

    n, p = instruments.shape
    if p == 1:
        return InstrumentScore(instruments[:, 0].astype(np.float64), False)
    if instruments.dtype not in (np.int8, np.float32, np.float64):
        instruments = instruments.astype(np.float64)
    shift = instruments[:_SHIFT_ROWS].mean(axis=0, dtype=np.float64)
    if clusters is None:
        fold = (rng.permutation(n) % folds).astype(np.uint8)
    else:
        of_cluster = (rng.permutation(int(clusters.max()) + 1) % folds).astype(np.uint8)
        fold = of_cluster[clusters]
    q = 0 if covariates is None else covariates.shape[1]
    grams = _core.sieve.fold_grams(
        instruments=instruments,
        shift=shift,
        covariates=covariates if q else None,
        exposure=exposure,
        weight=weight,
        fold=fold,
        folds=folds,
        threads=n_threads,
    )
    total = grams[0].copy()
    for gram in grams[1:]:
        total += gram
    means = total[0] / total[0, 0]
    coefficients = np.empty((folds, p))
    ridges = np.empty(folds)
    for k in range(folds):
        rest = total - grams[k]
        count = rest[0, 0]
        # About the means of all rows, which are the same for every fold.
        about = rest - np.outer(means, rest[0]) - np.outer(rest[0], means)
        about += count * np.outer(means, means)
        coefficients[k], ridges[k] = _weights(about[1:, 1:], p, count)
    values = _core.sieve.fold_scores(
        instruments=instruments,
        shift=shift,
        fold=fold,
        coefficients=coefficients,
        threads=n_threads,
    )
    # Less what the weights make of the means, as the regressions are about them.
    values -= (coefficients @ means[1 : 1 + p])[fold]
    return InstrumentScore(
        values, True, float(ridges.mean()), total, shift, coefficients.mean(axis=0)
    )


def _weights(gram: Float, p: int, n: float) -> tuple[Float, float]:
    """Coefficients (p,) of the instruments, and the ridge parameter.

    `gram` is that of instruments, covariates and exposure about their means.
    """
    inner, cross, square = gram[:-1, :-1], gram[:-1, -1], gram[-1, -1]
    q = len(inner) - p
    if q:  # covariates have no penalty: take them out first
        others = np.linalg.lstsq(
            inner[p:, p:], np.column_stack([inner[p:, :p], cross[p:]]), rcond=1e-12
        )[0]
        square = square - cross[p:] @ others[:, -1]
        cross = cross[:p] - inner[:p, p:] @ others[:, -1]
        inner = inner[:p, :p] - inner[:p, p:] @ others[:, :-1]
    scale = np.sqrt(np.maximum(np.diag(inner), np.finfo(float).tiny))
    correlation = inner / np.outer(scale, scale)
    values, vectors = symmetric_eigen((correlation + correlation.T) / 2.0)
    rotated = np.einsum("ij,i->j", vectors, cross / scale)
    if n >= _MANY * p and values[0] * _CONDITION > values[-1]:
        least: Float = np.einsum("ij,j->i", vectors, rotated / values) / scale
        if p <= 100:  # more digits, and few enough for bits that do not depend on threads
            least = np.asarray(np.linalg.solve(inner, cross), dtype=np.float64)
        return least, 0.0
    values = np.maximum(values, 0.0)
    # Log marginal likelihood of ridge parameters, residual variance profiled out. With unit
    # diagonals a parameter r means coefficients of variance (residual variance) / r.
    grid = np.geomspace(1e-6, 1e6, 61)
    rest = square - (rotated**2 / (values + grid[:, None])).sum(axis=1)
    evidence = -0.5 * np.log1p(values / grid[:, None]).sum(axis=1)
    evidence -= 0.5 * n * np.log(np.maximum(rest, 1e-12 * square))
    ridge = float(grid[np.argmax(evidence)])
    return np.einsum("ij,j->i", vectors, rotated / (values + ridge)) / scale, ridge


def transferred_score(
    instruments: NDArray[Any],
    exposure: Float,
    covariates: Float | None,
    weight: Float | None,
    others: NDArray[Any],
) -> tuple[Float, Float]:
    """Score whose weights come from some people, for these and for others.

    Parameters
    ----------
    instruments : ndarray, shape: (n, p)
    exposure : ndarray of float64, shape: (n,)
    covariates : ndarray of float64, shape: (n, q), or None
    weight : ndarray of float64, shape: (n,), or None
    others : ndarray, shape: (m, p)
        Instruments of other people.

    Returns
    -------
    own, transferred : ndarray of float64, shapes: (n,) and (m,)
        The instrument itself where there is one.
    """
    from mrfast import _core

    n, p = instruments.shape
    if p == 1:
        return instruments[:, 0].astype(np.float64), others[:, 0].astype(np.float64)
    known = (np.int8, np.float32, np.float64)
    parts = [a if a.dtype in known else a.astype(np.float64) for a in (instruments, others)]
    shift = np.asarray(parts[0][:_SHIFT_ROWS].mean(axis=0, dtype=np.float64))
    gram = _core.sieve.fold_grams(
        instruments=parts[0],
        shift=shift,
        covariates=covariates,
        exposure=exposure,
        weight=weight,
        fold=np.zeros(n, dtype=np.uint8),
        folds=1,
        threads=1,
    )[0]
    about = gram - np.outer(gram[0], gram[0]) / gram[0, 0]
    coefficients, _ = _weights(about[1:, 1:], p, float(gram[0, 0]))
    own, transferred = (
        _core.sieve.fold_scores(
            instruments=part,
            shift=shift,
            fold=np.zeros(len(part), dtype=np.uint8),
            coefficients=coefficients[None],
            threads=1,
        )
        for part in parts
    )
    return own, transferred
