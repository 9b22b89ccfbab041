"""Law of the exposure given instruments, as points with probabilities: `ExposureLaw`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from mrfast._validation import Float

__all__ = ["Calibration", "ExposureLaw", "calibration", "quantile_levels", "quantile_nodes"]

_NEGLIGIBLE = 1e-10  # probability of a point


@dataclass(frozen=True)
class ExposureLaw:
    """Law of each person's exposure given the instruments and covariates.

    Attributes
    ----------
    nodes : ndarray, shape (n, points)
    probabilities : ndarray, shape (points,)
    second : ndarray, shape (n, points), or None
        Draws that are independent of `nodes`, where both are random: products of two means need
        independent ones, or the variance of a mean's error enters the loss.
    """

    nodes: Float
    probabilities: Float
    second: Float | None = None


def quantile_levels(count: int) -> Float:
    """Levels (k - 1/2) / count."""
    return np.asarray((np.arange(count) + 0.5) / count)


def quantile_nodes(levels: Float, points: int) -> tuple[Float, Float]:
    """Points of a law as linear functions of its quantiles, and their probabilities.

    The quantile function is taken as linear in the normal score between the levels, and beyond
    the outermost ones; E[h(X)] = int h(Q(Phi(s))) phi(s) ds then is a Gauss-Hermite sum. For a
    normal law it is exact for polynomials of degree below 2 ``points``, where the plain mean over
    K quantiles has too little variance (K = 5: 0.77 of it).

    Parameters
    ----------
    levels : ndarray, shape (k,)
        Increasing, between 0 and 1.
    points : int
        Points of the Gauss-Hermite rule; those of negligible probability are left out.

    Returns
    -------
    map : ndarray, shape (k, nodes)
        Quantiles times this are the nodes.
    probabilities : ndarray, shape (nodes,)
    """
    scores = ndtri(levels)
    at, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = weights / weights.sum()
    at, weights = at[weights > _NEGLIGIBLE], weights[weights > _NEGLIGIBLE]
    below = np.clip(np.searchsorted(scores, at) - 1, 0, len(scores) - 2)
    share = (at - scores[below]) / (scores[below + 1] - scores[below])
    nodes = np.zeros((len(scores), len(at)))
    columns = np.arange(len(at))
    nodes[below, columns] = 1 - share
    nodes[below + 1, columns] += share
    return nodes, weights / weights.sum()


@dataclass(frozen=True)
class Calibration:
    """Correction of predicted laws: mean m to ``intercept + slope m``, spread times ``ratio``."""

    intercept: float
    slope: float
    ratio: float

    def apply(self, nodes: Float, mean: Float) -> Float:
        """Nodes (n, points) of laws with the given means (n,), corrected."""
        return self.intercept + self.slope * mean[:, None] + self.ratio * (nodes - mean[:, None])


def calibration(mean: Float, variance: Float, exposure: Float, weight: Float) -> Calibration:
    """Correction that makes laws right for people who did not train them.

    Predictions for people whom the network has not seen are too far apart, by its overfitting,
    and their spread is too small. Any function of the instruments is an instrument; what must be
    right is the law of the exposure given the predicted mean m. Hence E[X | m] = a + b m and the
    variance are those of a weighted regression among these people.

    Parameters
    ----------
    mean, variance : ndarray, shape (n,)
        Predicted.
    exposure, weight : ndarray, shape (n,)

    Returns
    -------
    Calibration
    """
    total = weight.sum()
    centre, level = float(weight @ mean / total), float(weight @ exposure / total)
    spread = float(weight @ (mean - centre) ** 2)
    covariance = float(weight @ ((mean - centre) * (exposure - level)))
    slope = covariance / spread if spread > 0 else 1.0
    residual = weight @ (exposure - level - slope * (mean - centre)) ** 2
    expected = weight @ variance
    ratio = float(np.sqrt(residual / expected)) if expected > 0 else 1.0
    return Calibration(level - slope * centre, slope, ratio)
