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
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    """Value, gradient and Hessian blocks at one point.

    Attributes
    ----------
    value : float
    gradient : ndarray, shape (2J + 5,)
    cross : ndarray, shape (2J, 5)
        Hessian block of the effects and the last five parameters.
    outer : ndarray, shape (5, 5)
        Hessian block of the last five.
    weight : ndarray, shape (2, 2)
        W, the inverse noise covariance of (r_X, r_Y).
    variances : ndarray, shape (2J,)
        Prior variances of the effects.
    """

    value: float
    gradient: Float
    cross: Float
    outer: Float
    weight: Float
    variances: Float
    sufficient: Sufficient

    @classmethod
    def at(
        cls, moments: Moments, model: ArrayLike, prior: SpikeSlabPrior, parameters: ArrayLike
    ) -> JointPosterior:
        """Evaluate at a parameter vector."""
        j = moments.J
        indicators = check.model_indicators("model", model, length=j)
        vector = check.float_array("parameters", parameters, ndim=1, shape=(2 * j + 5,))
        gamma, alpha, phi = vector[:j], vector[j : 2 * j], vector[2 * j :]
        s = moments.sufficient
        n = s.n
        b, kx, ky, lx, ly = (float(v) for v in phi)
        ex, ey = np.exp(-lx), np.exp(-ly)

        # Vectors: residual of X, residual of Y given X, J directions, mean.
        root = 1 / np.sqrt(n * s.noise)
        x = np.zeros(j + 3)
        y = np.zeros(j + 3)
        x[0] = np.sqrt(s.residual_exposure) * ex
        y[0] = np.sqrt(s.residual_exposure) * s.residual_slope * ey
        y[1] = np.sqrt(s.residual_outcome) * ey
        x[2:-1] = root * s.coefficients[0] * ex
        y[2:-1] = root * s.coefficients[1] * ey
        if s.mean_direction is not None:
            x[-1], y[-1] = s.mean_exposure * ex, s.mean_outcome * ey

        def design(effects: Float) -> Float:
            out = np.zeros(j + 3)
            out[2:-1] = root * (effects if s.rotation is None else s.rotation.T @ effects)
            if s.mean_direction is not None:
                out[-1] = s.mean_direction @ effects
            return out

        def design_transposed(vectors: Float) -> Float:
            weighted = root[:, None] * vectors[2:-1]
            out = weighted if s.rotation is None else s.rotation @ weighted
            if s.mean_direction is not None:
                out = out + np.outer(s.mean_direction, vectors[-1])
            return np.asarray(out)

        zero = np.zeros(j + 3)
        r = np.stack([x - design(gamma), y - b * x - design(alpha)])
        first = {EFFECT: np.stack([zero, -x]), LOG_X: np.stack([-x, b * x])}
        first[LOG_Y] = np.stack([zero, -y])
        second = {
            (EFFECT, LOG_X): np.stack([zero, x]),
            (LOG_X, LOG_X): np.stack([x, -b * x]),
            (LOG_Y, LOG_Y): np.stack([zero, y]),
        }
        gram = r @ r.T

        k = np.array([kx, ky])
        k2 = 1 + kx**2 + ky**2
        w = np.eye(2) - np.outer(k, k) / k2
        unit = np.eye(2)
        w1 = [
            -(np.outer(unit[i], k) + np.outer(k, unit[i])) / k2
            + 2 * k[i] * np.outer(k, k) / k2**2
            for i in range(2)
        ]

        def w2(i: int, m: int) -> Float:
            mixed = np.outer(unit[i], unit[m]) + np.outer(unit[m], unit[i])
            slope_i = (np.outer(unit[i], k) + np.outer(k, unit[i])) * 2 * k[m]
            slope_m = (np.outer(unit[m], k) + np.outer(k, unit[m])) * 2 * k[i]
            return np.asarray(
                -mixed / k2
                + (slope_i + slope_m) / k2**2
                + np.outer(k, k) * (2 * (i == m) / k2**2 - 8 * k[i] * k[m] / k2**3)
            )

        variances = np.empty(2 * j)
        variances[:j] = prior.slab_sd**2
        variances[j:] = np.where(indicators, prior.slab_sd**2, prior.spike_sd**2)
        effects = vector[: 2 * j]
        value = (
            -0.5 * n * (2 * LOG_TWO_PI + 2 * lx + 2 * ly + np.log(k2) + float((w * gram).sum()))
            - 0.5 * float((LOG_TWO_PI + np.log(variances) + effects**2 / variances).sum())
            - 0.5 * (LOG_TWO_PI + 2 * np.log(prior.effect_sd) + (b / prior.effect_sd) ** 2)
            - 0.5 * (2 * LOG_TWO_PI + 4 * np.log(prior.confounding_sd))
            - 0.5 * (kx**2 + ky**2) / prior.confounding_sd**2
            - prior.scale_power * (lx + ly)
        )
        gradient = np.empty(2 * j + 5)
        gradient[: 2 * j] = (n * design_transposed((w @ r).T)).T.ravel() - effects / variances
        cross = np.empty((2 * j, 5))
        outer = np.zeros((5, 5))
        prior_precision = {
            EFFECT: prior.effect_sd**-2,
            KAPPA_X: prior.confounding_sd**-2,
            KAPPA_Y: prior.confounding_sd**-2,
        }
        tail = gradient[2 * j :]
        for i, rows in first.items():
            cross[:, i] = (n * design_transposed((w @ rows).T)).T.ravel()
            tail[i] = -n * float((w * (r @ rows.T)).sum())
            for m, others in first.items():
                bent = second.get((i, m), second.get((m, i)))
                outer[i, m] = -n * float((w * (rows @ others.T)).sum())
                if bent is not None:
                    outer[i, m] -= n * float((w * (r @ bent.T)).sum())
            for m in range(2):
                outer[i, KAPPA_X + m] = outer[KAPPA_X + m, i] = -n * float(
                    (w1[m] * (r @ rows.T)).sum()
                )
        for i in range(2):
            cross[:, KAPPA_X + i] = (n * design_transposed((w1[i] @ r).T)).T.ravel()
            tail[KAPPA_X + i] = -n * k[i] / k2 - 0.5 * n * float((w1[i] * gram).sum())
            for m in range(2):
                outer[KAPPA_X + i, KAPPA_X + m] = -n * (
                    (i == m) / k2 - 2 * k[i] * k[m] / k2**2
                ) - 0.5 * n * float((w2(i, m) * gram).sum())
        for i, precision in prior_precision.items():
            tail[i] -= precision * phi[i]
            outer[i, i] -= precision
        tail[LOG_X] -= n + prior.scale_power
        tail[LOG_Y] -= n + prior.scale_power
        return cls(float(value), gradient, cross, outer, w, variances, s)

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

    def effects_blocks(self) -> Float | None:
        """The same as (2, 2, J) blocks where it is block-diagonal; None elsewhere."""
        s = self.sufficient
        if s.rotation is not None or s.mean_direction is not None:
            return None
        blocks = self.weight[:, :, None] / s.noise
        j = s.noise.shape[0]
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


def check_model(moments: Moments, model: ArrayLike) -> NDArray[np.bool_]:
    """Model indicators of these moments."""
    return check.model_indicators("model", model, length=moments.J)
