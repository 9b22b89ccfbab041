"""Posterior of the confounder's effects (skappa_X, skappa_Y) as a surface, under MASSIVE's prior.

Coordinates of the log posterior are those of `mrfast.bayes.collapsed`: (skappa_X, skappa_Y) fix
the confounding coordinate c and the position u on its level set, and the causal effect then
follows from the residual covariance of (X, Y).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.bayes.collapsed import collapsed_problem
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.data.moments import Moments
from mrfast.data.standardised import StandardisedAssociations

__all__ = [
    "DEPTH",
    "ConfoundingDensity",
    "ConfoundingSurface",
    "confounding_surface",
]

DEPTH = 12.0  # log density below its maximum that counts
_SMALLEST = 1e-6  # of both effects in size: on the axes the coordinates end
_STEP = 0.1  # of the differences, in standard deviations
_ITERATIONS = 40  # of Newton's method
_TOLERANCE = 1e-7
_HERMITE = np.polynomial.hermite_e.hermegauss(7)
_MODES = 12
_APART = 0.05  # between two modes, on the scale of the axes
_CELLS_AT_ONCE = 1_000_000  # points times candidates, given one model


class ConfoundingDensity:
    """Log posterior density of (skappa_X, skappa_Y), everything else integrated out.

    The effects of the candidates are integrated in closed form, summed over all 2^J models. The
    residual covariance of (X, Y) is integrated by Laplace's method about its mode, with Gauss and
    Hermite's rule along the direction in which it moves the causal effect.

    Parameters
    ----------
    associations : StandardisedAssociations
    prior : SpikeSlabPrior
    model : ndarray of bool, shape (J,), optional
        One model, True = slab, in place of the sum; for uncorrelated candidates.
    """

    def __init__(
        self,
        associations: StandardisedAssociations,
        prior: SpikeSlabPrior,
        model: NDArray[np.bool_] | None = None,
    ) -> None:
        if model is not None and not associations.uncorrelated:
            raise check.fail("model", "None for correlated candidates", "a model")
        self._associations, self._prior, self._model = associations, prior, model
        self._problem = collapsed_problem(associations, prior)
        s, eta = associations, self._problem.eta
        slope_sd = self._problem.sd_slope / eta
        self._scale = np.array([np.sqrt(2 / s.n_exposure), slope_sd, np.sqrt(2 / s.n_outcome)])
        self._centre = np.array([0.0, s.residual_slope / eta, 0.0])
        self._constant = self._problem.log_constant + 2 * np.log(eta)

    def __call__(self, skappa_x: ArrayLike, skappa_y: ArrayLike) -> Float:
        """Log density with the constants of the evidence, in the common shape of both.

        It is the same where both change their sign; over the whole plane it integrates to the
        evidence.
        """
        x, y = np.broadcast_arrays(skappa_x, skappa_y)
        kx = np.maximum(np.abs(x.astype(np.float64).ravel()), _SMALLEST)
        ky = np.maximum(np.abs(y.astype(np.float64).ravel()), _SMALLEST)
        k2 = 1 + kx * kx + ky * ky
        c = np.where((x < 0) == (y < 0), 1.0, -1.0).ravel() * kx * ky / np.sqrt(k2)
        u = 0.25 * (np.log(kx * kx * (1 + kx * kx)) - np.log(ky * ky * (1 + ky * ky)))
        # The prior and Jacobian of c and u are in the kernel; dkX dkY = sqrt(K2) dc du.
        values = self._integral(c, u) - 0.5 * np.log(k2)
        return np.asarray((values + self._constant).reshape(x.shape))

    def _values(self, z: Float, c: Float, u: Float) -> Float:
        """Log density by (c, u, d1, m, d3), these three z standard deviations off; z (.., n, 3)."""
        d1, m, d3 = np.moveaxis(self._centre + z * self._scale, -1, 0)
        shrink = np.exp(0.5 * (d3 - d1))
        points = np.stack([m - c * shrink, m, np.broadcast_to(u, m.shape), d1, d3], axis=-1)
        points = np.ascontiguousarray(points.reshape(-1, 5))
        values = self._problem.values(points)
        if self._model is not None:
            chunk = max(1, _CELLS_AT_ONCE // self._associations.J)
            for begin in range(0, len(points), chunk):
                part = slice(begin, begin + chunk)
                values[part] += self._log_model(points[part], self._model)
        return np.asarray(values.reshape(m.shape) + 0.5 * (d3 - d1))

    def _log_model(self, points: Float, model: NDArray[np.bool_]) -> Float:
        """Log probability of the model given the five parameters, at every point."""
        s, prior, eta = self._associations, self._prior, self._problem.eta
        beta, m, u, d1, d3 = (column[:, None] for column in points.T)
        c = (m - beta) * np.exp(0.5 * (d1 - d3))
        rho = np.abs(c) * np.sqrt(1 + c * c)
        k1 = 1 + c * c + rho * np.exp(2 * u)
        k2 = k1 + c * c + rho * np.exp(-2 * u)
        beta, m = beta * eta, m * eta
        s11, s221 = s.residual_exposure * np.exp(d1), s.residual_outcome * np.exp(d3)
        n11, n22, n12 = s.noise_exposure, s.noise_outcome, s.noise_shared
        g = prior.slab_sd**2 / k1
        # The outcome's association given the exposure's, but for what pleiotropy adds.
        error = s.outcome - (n12 * m + beta * g) / (n11 + g) * s.exposure
        variance = n22 * s221 + m * m * s11 * (n22 - n12 * n12 / n11)
        variance = variance + g * n11 * s11 / (n11 + g) * (beta - n12 / n11 * m) ** 2
        unit = s221 * k1 / k2
        spike, slab = (
            -0.5 * (np.log(total) + error * error / total)
            for total in (variance + sd * sd * unit for sd in (prior.spike_sd, prior.slab_sd))
        )
        odds = slab - spike + prior.log_odds(s.J)
        return np.asarray(-np.logaddexp(0, np.where(model, -odds, odds)).sum(axis=1))

    def _integral(self, c: Float, u: Float) -> Float:
        """Log of the integral over (d1, m, d3) at every (c, u)."""
        z, curvature = self._modes(c, u)
        value = self._values(z, c, u)
        root = np.linalg.cholesky(curvature)
        log_volume = 1.5 * np.log(2 * np.pi) - np.log(np.einsum("nii->ni", root)).sum(axis=1)
        d1, _, d3 = np.moveaxis(z * self._scale, -1, 0)
        lean = 0.5 * c * np.exp(0.5 * (d3 - d1))
        # Gradient of beta = m - c exp((d3 - d1) / 2).
        slope = np.stack([lean, np.ones_like(lean), -lean], axis=-1) * self._scale
        move = np.linalg.solve(curvature, slope[..., None])[..., 0]
        move /= np.sqrt(np.einsum("ni,ni->n", slope, move))[:, None]
        nodes, weights = _HERMITE
        ratio = self._values(z + nodes[:, None, None] * move, c, u) - value
        terms = ratio + 0.5 * nodes[:, None] ** 2 + np.log(weights / weights.sum())[:, None]
        rule = np.logaddexp.reduce(terms, axis=0)
        return np.asarray(value + log_volume + rule + np.log(self._scale).sum())

    def _modes(self, c: Float, u: Float) -> tuple[Float, Float]:
        """Maxima over (d1, m, d3) and minus the second derivatives there, by Newton's method."""
        z = np.zeros((c.size, 3))
        curvature = np.broadcast_to(np.eye(3), (c.size, 3, 3)).copy()
        active = np.arange(c.size)
        for _ in range(_ITERATIONS):
            here, ca, ua = z[active], c[active], u[active]
            value, gradient, curvature[active] = self._derivatives(here, ca, ua)
            move = np.linalg.solve(curvature[active], gradient[..., None])[..., 0]
            decrement = np.einsum("ni,ni->n", move, gradient)
            size = np.ones(active.size)
            for _ in range(20):
                gain = self._values(here + size[:, None] * move, ca, ua) - value
                worse = ~(gain >= 0.1 * size * decrement - 1e-9)
                if not worse.any():
                    break
                size[worse] *= 0.4
            z[active] = np.where((gain >= 0)[:, None], here + size[:, None] * move, here)
            active = active[decrement > _TOLERANCE]
            if not active.size:
                break
        return z, curvature

    def _derivatives(self, z: Float, c: Float, u: Float) -> tuple[Float, Float, Float]:
        """Value, gradient and minus the Hessian, made positive definite, by differences."""
        pairs = [(0, 1), (0, 2), (1, 2)]
        unit = _STEP * np.eye(3)
        moves = [np.zeros(3), *unit, *-unit]
        moves += [sign * (unit[i] + unit[k]) for i, k in pairs for sign in (1, -1)]
        values = self._values(z + np.array(moves)[:, None, :], c, u)
        middle, up, down = values[0], values[1:4], values[4:7]
        gradient = (up - down).T / (2 * _STEP)
        hessian = np.empty((z.shape[0], 3, 3))
        for i in range(3):
            hessian[:, i, i] = (up[i] - 2 * middle + down[i]) / _STEP**2
        for number, (i, k) in enumerate(pairs):
            both = values[7 + 2 * number] + values[8 + 2 * number]
            mixed = both - up[i] - up[k] - down[i] - down[k] + 2 * middle
            hessian[:, i, k] = hessian[:, k, i] = mixed / (2 * _STEP**2)
        sizes, vectors = np.linalg.eigh(-hessian)
        sizes = np.maximum(np.abs(sizes), 1e-3)
        return middle, gradient, np.einsum("nik,nk,njk->nij", vectors, sizes, vectors)


@dataclass(frozen=True, eq=False)
class ConfoundingSurface:
    """Log posterior density of the confounder's effects on exposure and outcome, on a grid.

    Attributes
    ----------
    axis : ndarray, shape (n,)
        Values of either effect, ascending, evenly spaced in asinh, symmetric about 0.
    log_density : ndarray, shape (n, n)
        Rows are skappa_Y, columns skappa_X; 0 at the highest mode.
    modes : ndarray, shape (modes, 3)
        skappa_X >= 0, skappa_Y and log density of the local maxima, highest first. Each has a
        mirror image with both signs changed.
    given_model : bool
        Whether it is of one model, or averaged over all of them.
    depth : float
        Log density below the highest mode to which the modes were looked for.
    """

    axis: Float
    log_density: Float
    modes: Float
    given_model: bool
    depth: float = DEPTH

    def plot(self) -> Any:
        """Figure of the surface with its modes marked (plot extra)."""
        from mrfast.plots.confounding_surface import confounding_surface_figure

        return confounding_surface_figure(self)


def confounding_surface(
    moments: Moments,
    prior: SpikeSlabPrior | None = None,
    *,
    model: ArrayLike | None = None,
    limit: float | None = None,
    points: int = 241,
) -> ConfoundingSurface:
    """Compute the surface and its modes.

    Parameters
    ----------
    moments : Moments
        The data, with an observational slope.
    prior : SpikeSlabPrior, optional
        ``SpikeSlabPrior.empirical(moments)`` by default.
    model : array_like of bool, shape (J,), optional
        One model of uncorrelated candidates, True = slab; by default the sum over all 2^J.
    limit : float, optional
        End of both axes; by default where the density is e^-12 of the highest, at most five
        prior standard deviations.
    points : int
        Of each axis.

    Returns
    -------
    ConfoundingSurface

    Raises
    ------
    InvalidInputError
        The prior is of another kind, no slope was observed, or a number is out of bounds.
    """
    if not isinstance(moments, Moments):
        raise check.fail("moments", "a Moments object", type(moments).__name__)
    used = SpikeSlabPrior.empirical(moments) if prior is None else prior
    if not isinstance(used, SpikeSlabPrior):
        raise check.fail(
            "prior", "a SpikeSlabPrior, which is on the confounder's effects", type(prior).__name__
        )
    size = check.integer("points", points, minimum=21, maximum=2001) // 2
    indicators = None
    if model is not None:
        indicators = check.model_indicators("model", model, length=moments.J)
    density = ConfoundingDensity(moments.standardised, used, indicators)
    if limit is None:
        limit = _limit(density, 5 * used.confounding_sd)
    end = np.arcsinh(check.scalar("limit", limit, above=0))
    axis = np.sinh(end * np.arange(-size, size + 1) / size)
    right = density(axis[None, size:], axis[:, None])
    modes = _local_modes(density, right, axis, size)
    surface = np.hstack([right[::-1, :0:-1], right])  # the same where both signs change
    top = max(float(surface.max()), float(modes[0, 2])) if len(modes) else float(surface.max())
    modes[:, 2] -= top
    return ConfoundingSurface(axis, surface - top, modes, indicators is not None)


def _limit(density: Callable[[Float, Float], Float], end: float) -> float:
    """Where the axes may end: the density beyond is too small to be seen."""
    steps = 40
    axis = np.sinh(np.arcsinh(end) * np.arange(-steps, steps + 1) / steps)
    coarse = density(axis[None, steps:], axis[:, None])
    high = coarse > coarse.max() - DEPTH - 8  # a thin ridge may pass between the points
    x = axis[steps:][high.any(axis=0)]
    y = axis[high.any(axis=1)]
    reach = np.arcsinh(max(float(x.max()), float(np.abs(y).max())))
    return float(min(end, np.sinh(reach + np.arcsinh(end) / steps)))


def _local_modes(density: ConfoundingDensity, right: Float, axis: Float, half: int) -> Float:
    """Local maxima of the half plane's surface, refined off the grid, highest first."""
    from scipy.optimize import minimize

    padded = np.pad(right, 1, constant_values=-np.inf)
    padded[1:-1, 0] = right[::-1, 1]  # beyond skappa_X = 0 lies the mirror image
    height, width = right.shape
    peak: NDArray[np.bool_] = right > right.max() - DEPTH
    for i in range(3):
        for k in range(3):
            if (i, k) != (1, 1):
                peak &= right >= padded[i : i + height, k : k + width]
    rows, columns = np.nonzero(peak)
    order = np.argsort(-right[rows, columns], kind="stable")[: 2 * _MODES]
    spacing = float(np.arcsinh(axis[-1])) / half
    found: list[tuple[float, float, float]] = []
    for place in order:
        start = np.arcsinh([axis[half + columns[place]], axis[rows[place]]])
        best: Any = minimize(  # type: ignore[call-overload]
            lambda at: -float(density(np.sinh(at[0]), np.sinh(at[1]))),
            start,
            method="Nelder-Mead",
            options={
                "initial_simplex": start + spacing * np.array([[0, 0], [1, 0], [0, 1]]),
                "xatol": 1e-4,
                "fatol": 1e-6,
                "maxiter": 200,
            },
        )
        at = best.x if best.x[0] >= 0 else -best.x
        if all(np.hypot(*(at - np.arcsinh(other[:2]))) > _APART for other in found):
            found.append((float(np.sinh(at[0])), float(np.sinh(at[1])), -float(best.fun)))
    modes = np.array(sorted(found, key=lambda mode: -mode[2])[:_MODES]).reshape(-1, 3)
    return modes[modes[:, 2] > modes[0, 2] - DEPTH] if len(modes) else modes
