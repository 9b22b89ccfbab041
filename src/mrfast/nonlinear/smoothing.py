"""Penalised least squares whose smoothing parameter is integrated out.

A coefficient vector t has normal equations A t = r, of equations whose noise has variance 1 or
whose scores have covariance M, and the prior N(0, (l S)^-) with tau = l^(-1/2). In standardised
units tau has the half-Cauchy law of scale 1/2; its posterior is taken on a grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrfast._runtime import generator, symmetric_eigen
from mrfast._validation import Float

__all__ = ["Mixture", "SmoothingPath", "covariance_root", "mixture", "smoothing_path"]

_GRID = np.exp(np.linspace(np.log(0.003), np.log(30.0), 21))
_SCALE = 0.5


@dataclass(frozen=True, eq=False)
class SmoothingPath:
    """Penalised fits on a grid of tau.

    Attributes
    ----------
    tau, weights : ndarray, shape (t,)
        Grid and posterior probabilities.
    coefficients : ndarray, shape (t, k)
    inverses : ndarray, shape (t, k, k)
        H^-1 = (A + l S)^-1.
    covariances : ndarray, shape (t, k, k)
        H^-1 (M + l S) H^-1: sampling and smoothing bias.
    degrees_of_freedom : float
        Mean of trace(H^-1 A).
    """

    tau: Float
    weights: Float
    coefficients: Float
    inverses: Float
    covariances: Float
    degrees_of_freedom: float


def smoothing_path(
    gram: Float, moments: Float, penalty: Float, *, meat: Float | None = None
) -> SmoothingPath:
    """Fit on the grid of tau, with the marginal likelihood's weights.

    Parameters
    ----------
    gram : ndarray, shape (k, k)
        A, weak proper priors included.
    moments : ndarray, shape (k,)
        r.
    penalty : ndarray, shape (k, k)
        S.
    meat : ndarray, shape (k, k), optional
        M; A by default.

    Returns
    -------
    SmoothingPath
    """
    k = len(gram)
    meat = gram if meat is None else meat
    values = symmetric_eigen(penalty)[0]
    rank = int((values > 1e-9 * values[-1]).sum())
    guard = 1e-9 * np.trace(gram) / k * np.eye(k)
    size = len(_GRID)
    logs, freedom = np.empty(size), np.empty(size)
    coefficients, inverses = np.empty((size, k)), np.empty((size, k, k))
    covariances = np.empty((size, k, k))
    for t, tau in enumerate(_GRID):
        roughness = penalty / tau**2
        roots, vectors = symmetric_eigen(gram + roughness + guard)
        roots = np.maximum(roots, 1e-12 * roots[-1])
        inverses[t] = (vectors / roots) @ vectors.T
        coefficients[t] = inverses[t] @ moments
        covariances[t] = inverses[t] @ (meat + roughness) @ inverses[t]
        freedom[t] = np.trace(inverses[t] @ gram)
        logs[t] = (
            -0.5 * np.log(roots).sum()
            + 0.5 * coefficients[t] @ moments
            - rank * np.log(tau)
            + np.log(tau)
            - np.log1p((tau / _SCALE) ** 2)
        )
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    return SmoothingPath(
        _GRID, weights, coefficients, inverses, covariances, float(weights @ freedom)
    )


def covariance_root(covariance: Float) -> Float:
    """Matrix R with R R' = covariance, (k, k), accurate for coordinates of very unlike units."""
    spread = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
    units = np.where(spread > 0, spread, 1.0)
    correlation = covariance / units / units[:, None]
    values, vectors = symmetric_eigen((correlation + correlation.T) / 2)
    root: Float = units[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
    return root


@dataclass(frozen=True, eq=False)
class Mixture:
    """Mean, covariance and draws of a mixture of normal laws."""

    mean: Float
    covariance: Float
    draws: Float


def mixture(weights: Float, means: Float, covariances: Float, n_draws: int, rng: object) -> Mixture:
    """Mix normal laws.

    Parameters
    ----------
    weights : ndarray, shape (t,)
    means : ndarray, shape (t, k)
    covariances : ndarray, shape (t, k, k)
    n_draws : int
    rng : object
        Seed.

    Returns
    -------
    Mixture
    """
    source = generator(rng)
    mean = np.einsum("t,tk->k", weights, means)
    apart = means - mean
    covariance = np.einsum("t,tkl->kl", weights, covariances) + np.einsum(
        "t,tk,tl->kl", weights, apart, apart
    )
    counts = source.multinomial(n_draws, weights)
    normal = source.standard_normal((n_draws, len(mean)))
    draws, start = np.empty_like(normal), 0
    for t, count in enumerate(counts):
        if count:
            root = covariance_root(covariances[t])
            rows = slice(start, start + count)
            draws[rows] = means[t] + np.einsum("bk,lk->bl", normal[rows], root)
            start += count
    return Mixture(mean, covariance, draws)
