"""The log posterior of one model in all its 2J + 5 parameters, with derivatives.

Every random variable here is a vector in one Euclidean space (residuals of X and Y, the
directions of the candidates, the mean), so that expectations are dot products:
r_X = X / sigma_X - gamma'Z and r_Y = Y / sigma_Y - b X / sigma_X - alpha'Z, with Z the
standardised candidates. Then
log p(D | parameters) = -N/2 [2 log 2 pi + 2 lX + 2 lY + log K2 + tr(W R)],
R the Gram matrix of (r_X, r_Y), W = I - k k' / K2, K2 = 1 + k'k.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.data.moments import Moments, Sufficient

__all__ = ["LogPosterior", "log_posterior", "parameter_names"]

LOG_TWO_PI = float(np.log(2 * np.pi))
EFFECT, KAPPA_X, KAPPA_Y, LOG_X, LOG_Y = range(5)  # order of the last five parameters


class LogPosterior(NamedTuple):
    """Log posterior density at a point, up to the evidence, with derivatives.

    Attributes
    ----------
    value : float
        log p(D | parameters, M) + log p(parameters | M).
    gradient : ndarray, shape (2J + 5,)
    hessian : ndarray, shape (2J + 5, 2J + 5)
    """

    value: float
    gradient: Float
    hessian: Float


def parameter_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the 2J + 5 parameters, in their order."""
    return (
        *(f"sgamma[{name}]" for name in names),
        *(f"salpha[{name}]" for name in names),
        "sbeta",
        "skappa_X",
        "skappa_Y",
        "log_sigma_X",
        "log_sigma_Y",
    )


def log_posterior(
    moments: Moments, model: ArrayLike, prior: SpikeSlabPrior, parameters: ArrayLike
) -> LogPosterior:
    """Log posterior of one model at a parameter vector, with gradient and Hessian.

    Parameters
    ----------
    moments : Moments
        The data.
    model : array_like of bool, shape (J,)
        True = slab: the candidate's pleiotropic effect may be large.
    prior : SpikeSlabPrior
        The prior; ``slab_probability`` plays no part, p(M) is not included.
    parameters : array_like, shape (2J + 5,)
        sgamma[1..J], salpha[1..J], sbeta, skappa_X, skappa_Y, log sigma_X, log sigma_Y, with
        sgamma_j = sd(G_j) gamma_j / sigma_X, salpha_j = sd(G_j) alpha_j / sigma_Y,
        sbeta = beta sigma_X / sigma_Y, skappa_X = kappa_X / sigma_X, skappa_Y = kappa_Y / sigma_Y.

    Returns
    -------
    LogPosterior
        Of the log posterior itself (MASSIVE in R gives its negative per person).

    Raises
    ------
    InvalidInputError
        An argument has the wrong length or is not finite.

    References
    ----------
    Bucur, Claassen, Heskes (2020), PMLR 124, equations 2 and 3.
    """
    joint = JointPosterior.at(moments, model, prior, parameters)
    j = moments.J
    hessian = np.empty((2 * j + 5, 2 * j + 5))
    hessian[: 2 * j, : 2 * j] = -joint.effects_precision()
    hessian[: 2 * j, 2 * j :] = joint.cross
    hessian[2 * j :, : 2 * j] = joint.cross.T
    hessian[2 * j :, 2 * j :] = joint.outer
    return LogPosterior(joint.value, joint.gradient, hessian)


@dataclass(frozen=True, eq=False)
class JointPosterior:
    """The log posterior at one point: value, gradient and Hessian blocks, computed when asked.

    Attributes
    ----------
    weight : ndarray, shape (2, 2)
        W, the inverse noise covariance of (r_X, r_Y).
    variances : ndarray, shape (2J,)
        Prior variances of the effects.
    """

    parameters: Float
    prior: SpikeSlabPrior
    sufficient: Sufficient
    variances: Float
    weight: Float
    _residuals: Float  # (2, J + 3): r_X, r_Y
    _first: dict[int, Float]  # their derivatives by b, lX, lY
    _second: dict[tuple[int, int], Float]
    _root: Float  # square roots of the directions' second moments

    @classmethod
    def at(
        cls, moments: Moments, model: ArrayLike, prior: SpikeSlabPrior, parameters: ArrayLike
    ) -> JointPosterior:
        """Evaluate at a parameter vector, shape (2J + 5,)."""
        j = moments.J
        indicators = check.model_indicators("model", model, length=j)
        vector = check.float_array("parameters", parameters, ndim=1, shape=(2 * j + 5,))
        s = moments.sufficient
        b, kx, ky, lx, ly = (float(v) for v in vector[2 * j :])
        ex, ey = np.exp(-lx), np.exp(-ly)
        root = 1 / np.sqrt(s.n * s.noise)
        # Coordinates: residual of X, residual of Y given X, J directions, mean.
        x, y, zero = np.zeros((3, j + 3))
        x[0] = np.sqrt(s.residual_exposure) * ex
        y[0] = np.sqrt(s.residual_exposure) * s.residual_slope * ey
        y[1] = np.sqrt(s.residual_outcome) * ey
        x[2:-1] = root * s.coefficients[0] * ex
        y[2:-1] = root * s.coefficients[1] * ey
        if s.mean_direction is not None:
            x[-1], y[-1] = s.mean_exposure * ex, s.mean_outcome * ey
        r = np.stack([x, y - b * x])
        effects = vector[: 2 * j].reshape(2, j)
        r[:, 2:-1] -= root * (effects if s.rotation is None else effects @ s.rotation)
        if s.mean_direction is not None:
            r[:, -1] -= effects @ s.mean_direction
        first = {
            EFFECT: np.stack([zero, -x]),
            LOG_X: np.stack([-x, b * x]),
            LOG_Y: np.stack([zero, -y]),
        }
        second = {
            (EFFECT, LOG_X): np.stack([zero, x]),
            (LOG_X, EFFECT): np.stack([zero, x]),
            (LOG_X, LOG_X): np.stack([x, -b * x]),
            (LOG_Y, LOG_Y): np.stack([zero, y]),
        }
        k2 = 1 + kx**2 + ky**2
        weight = np.array([[1 + ky**2, -kx * ky], [-kx * ky, 1 + kx**2]]) / k2
        variances = np.full(2 * j, prior.slab_sd**2)
        variances[j:][~indicators] = prior.spike_sd**2
        return cls(vector, prior, s, variances, weight, r, first, second, root)

    @property
    def _confounding(self) -> tuple[Float, float]:
        k = self.parameters[-5:][1:3]
        return k, float(1 + k @ k)

    @cached_property
    def _weight_slopes(self) -> tuple[Float, Float]:
        """Derivatives of W by kX and kY."""
        k, k2 = self._confounding
        kk = np.outer(k, k)
        x, y = ([[2 * k[0], k[1]], [k[1], 0.0]], [[0.0, k[0]], [k[0], 2 * k[1]]])
        return 2 * k[0] * kk / k2**2 - np.array(x) / k2, 2 * k[1] * kk / k2**2 - np.array(y) / k2

    def _weight_bend(self, i: int, m: int) -> Float:
        """Second derivative of W by two of kX, kY."""
        k, k2 = self._confounding
        unit = np.eye(2)
        bend = np.outer(unit[i], unit[m]) + np.outer(unit[m], unit[i])
        slopes = [np.outer(unit[a], k) + np.outer(k, unit[a]) for a in (i, m)]
        return np.asarray(
            -bend / k2
            + 2 * (slopes[0] * k[m] + slopes[1] * k[i]) / k2**2
            + np.outer(k, k) * (2 * (i == m) / k2**2 - 8 * k[i] * k[m] / k2**3)
        )

    def _by_effects(self, rows: Float) -> Float:
        """N times the products of `rows` (2, J + 3) with the effects' directions, shape (2J,)."""
        s = self.sufficient
        weighted = rows[:, 2:-1] * self._root
        out = weighted if s.rotation is None else weighted @ s.rotation.T
        if s.mean_direction is not None:
            out = out + np.outer(rows[:, -1], s.mean_direction)
        return np.asarray(s.n * out.ravel())

    @cached_property
    def _gram(self) -> Float:
        return np.asarray(self._residuals @ self._residuals.T)

    @cached_property
    def value(self) -> float:
        """Log posterior density."""
        s, prior = self.sufficient, self.prior
        b, kx, ky, lx, ly = (float(v) for v in self.parameters[-5:])
        effects = self.parameters[:-5]
        fit = 2 * LOG_TWO_PI + 2 * lx + 2 * ly + np.log(self._confounding[1])
        return float(
            -0.5 * s.n * (fit + (self.weight * self._gram).sum())
            - 0.5 * (LOG_TWO_PI + np.log(self.variances) + effects**2 / self.variances).sum()
            - 0.5 * (LOG_TWO_PI + 2 * np.log(prior.effect_sd) + (b / prior.effect_sd) ** 2)
            - (LOG_TWO_PI + 2 * np.log(prior.confounding_sd))
            - 0.5 * (kx**2 + ky**2) / prior.confounding_sd**2
            - prior.scale_power * (lx + ly)
        )

    @cached_property
    def _prior_precision(self) -> Float:
        kappa = self.prior.confounding_sd**-2
        return np.array([self.prior.effect_sd**-2, kappa, kappa, 0.0, 0.0])

    @cached_property
    def gradient(self) -> Float:
        """Gradient, shape (2J + 5,)."""
        n, r, w = self.sufficient.n, self._residuals, self.weight
        k, k2 = self._confounding
        tail = -self._prior_precision * self.parameters[-5:]
        for i, rows in self._first.items():
            tail[i] -= n * float((w * (r @ rows.T)).sum())
        for i, slope in enumerate(self._weight_slopes):
            tail[KAPPA_X + i] -= n * (k[i] / k2 + 0.5 * float((slope * self._gram).sum()))
        tail[[LOG_X, LOG_Y]] -= n + self.prior.scale_power
        effects = self._by_effects(w @ r) - self.parameters[:-5] / self.variances
        return np.concatenate([effects, tail])

    @cached_property
    def cross(self) -> Float:
        """Hessian block of the effects and the last five parameters, shape (2J, 5)."""
        columns = {i: self.weight @ rows for i, rows in self._first.items()}
        for i, slope in enumerate(self._weight_slopes):
            columns[KAPPA_X + i] = slope @ self._residuals
        return np.column_stack([self._by_effects(columns[i]) for i in range(5)])

    @cached_property
    def outer(self) -> Float:
        """Hessian block of the last five parameters, shape (5, 5)."""
        n, r, w = self.sufficient.n, self._residuals, self.weight
        k, k2 = self._confounding
        block = -np.diag(self._prior_precision)
        for i, rows in self._first.items():
            for m, others in self._first.items():
                block[i, m] -= n * float((w * (rows @ others.T)).sum())
                if (i, m) in self._second:
                    block[i, m] -= n * float((w * (r @ self._second[i, m].T)).sum())
            for m, slope in enumerate(self._weight_slopes):
                block[i, KAPPA_X + m] = -n * float((slope * (r @ rows.T)).sum())
                block[KAPPA_X + m, i] = block[i, KAPPA_X + m]
        for i in range(2):
            for m in range(2):
                fit = (i == m) / k2 - 2 * k[i] * k[m] / k2**2
                bend = float((self._weight_bend(i, m) * self._gram).sum())
                block[KAPPA_X + i, KAPPA_X + m] -= n * (fit + 0.5 * bend)
        return np.asarray(block)

    def second_moments_of_candidates(self) -> Float:
        """A, the second moments of the standardised candidates, shape (J, J)."""
        s = self.sufficient
        eigenvalues = 1 / (s.n * s.noise)
        if s.rotation is not None:
            return np.asarray((s.rotation * eigenvalues) @ s.rotation.T)
        matrix = np.diag(eigenvalues)
        if s.mean_direction is not None:
            matrix += np.outer(s.mean_direction, s.mean_direction)
        return matrix

    def effects_precision(self) -> Float:
        """Negative Hessian of the effects, N W (x) A + diag(1 / prior variances), (2J, 2J)."""
        precision = np.kron(self.sufficient.n * self.weight, self.second_moments_of_candidates())
        precision[np.diag_indices_from(precision)] += 1 / self.variances
        return np.asarray(precision)

    @property
    def block_diagonal(self) -> bool:
        """Whether the effects' precision falls into one 2 x 2 block per candidate."""
        return self.sufficient.rotation is None and self.sufficient.mean_direction is None

    def effects_blocks(self) -> Float:
        """The blocks, (2, 2, J), of uncorrelated candidates; the term of the means is left out."""
        j = self.sufficient.noise.shape[0]
        blocks = self.weight[:, :, None] / self.sufficient.noise
        blocks[0, 0] += 1 / self.variances[:j]
        blocks[1, 1] += 1 / self.variances[j:]
        return np.asarray(blocks)


def solve_blocks(blocks: Float, right: Float) -> Float:
    """Solve the 2 x 2 systems of all candidates: blocks (2, 2, J), right (2J, C)."""
    j = blocks.shape[2]
    top, bottom = right[:j], right[j:]
    determinant = (blocks[0, 0] * blocks[1, 1] - blocks[0, 1] ** 2)[:, None]
    return np.concatenate(
        [
            (blocks[1, 1][:, None] * top - blocks[0, 1][:, None] * bottom) / determinant,
            (blocks[0, 0][:, None] * bottom - blocks[0, 1][:, None] * top) / determinant,
        ]
    )
