"""Instrumental variable regression where the instruments only shift the exposure.

X = T + V, where T is linear in instruments and covariates and V independent of both. Then
E[Y | Z, C] = E[f(T + V) | T] + C g is, for f = sum_b t_b psi_b, a linear regression on the
smoothed functions s_b(T) = mean over people j of psi_b(T + v_j), which are tabulated once. It is
not a regression on f(T): that would give the mean of f over V in place of f.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.special import chdtrc

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import MrfastWarning
from mrfast.nonlinear._cubic_grid import CubicGrid
from mrfast.nonlinear._row_sums import blocks, cross_products, inverse, score_covariance
from mrfast.nonlinear.additive_curve import AdditiveCurve, SplineBasis
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.linear_first_stage import (
    LinearFirstStage,
    in_cluster_order,
    single_instrument,
)
from mrfast.nonlinear.smoothing import SmoothingPath, mixture, smoothing_path
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

__all__ = ["LocationShiftIV"]

_CURVATURE_PRIOR = 2.0
_SHIFT_CELLS, _NOISE_CELLS = 96, 384
_DOUBT = 0.01  # p-value of the test of V's spread below which a warning is given
_WEAK = 10.0


class LocationShiftIV(InstrumentalVariableEstimator):
    """Penalised instrumental variable regression with a linear first stage of constant noise.

    This is the idea of DeLIVR where it holds: the outcome is regressed on what the instruments
    predict of the exposure, with the noise V around the prediction accounted for. Unlike a control
    function it says nothing of how U depends on V, but V must be independent of the instruments;
    its spread is tested, and a warning is given where it depends on them. The smoothing parameter
    is integrated out; bands allow for the first stage, for the law of V and for the smoothing
    bias. Directions of f that V blurs beyond recognition come from the prior: a weak instrument
    cannot show more than the line.

    Parameters
    ----------
    n_functions : int
        Cubic B-splines of the exposure.
    folds : int
        Of the cross-fitted score that stands for several instruments.
    n_draws : int
        Draws for uniform bands.
    rng : int
        Seed of draws and folds.

    References
    ----------
    He et al. (2023), doi:10.1093/biostatistics/kxac051, for DeLIVR; Newey and Powell (2003),
    doi:10.1111/1468-0262.00459.
    """

    name = "location_shift_iv"
    title = "Location-shift instrumental variable regression"

    def __init__(
        self, *, n_functions: int = 14, folds: int = 5, n_draws: int = 2000, rng: int = 0
    ) -> None:
        self.n_functions = check.integer("n_functions", n_functions, minimum=5, maximum=60)
        self.folds = check.integer("folds", folds, minimum=2, maximum=100)
        self.n_draws = check.integer("n_draws", n_draws, minimum=100, maximum=10**6)
        self.rng = check.integer("rng", rng, minimum=0)

    def _fit(self, data: IVData) -> Fit:
        data = in_cluster_order(data)
        single = single_instrument(data, self.folds, self.rng)
        stage = LinearFirstStage(single)
        model = _Shifts(stage, BSpline(quantile_breakpoints(data.exposure, self.n_functions)))
        path = model.fit()
        spread, freedom, p_value = _spread_test(stage)
        diagnostics: dict[str, Any] = {
            **stage.strength,
            "degrees_of_freedom": path.degrees_of_freedom,
            "smoothing_tau": path.tau.tolist(),
            "smoothing_weights": path.weights.tolist(),
            "residual_std": float(np.sqrt(model.variance)),
            "spread_statistic": spread,
            "spread_degrees_of_freedom": freedom,
            "spread_p_value": p_value,
        }
        messages = list(stage.messages)
        if p_value < _DOUBT:
            text = (
                "the exposure's spread around its prediction depends on instruments or "
                f"covariates (p = {p_value:.1g}): LocationShiftIV assumes that it does not; use "
                "SieveIV or QuantileIV"
            )
            messages.append(text)
            warnings.warn(text, MrfastWarning, stacklevel=3)
        if diagnostics["effective_f"] < _WEAK:
            messages.append(
                f"weak instruments: effective F {diagnostics['effective_f']:.2g} is below "
                f"{_WEAK:.0f}; the curve is not to be trusted"
            )
        if data.binary_outcome:
            messages.append(
                "binary outcome: right if the effect of the exposure on the risk is the same for "
                "everybody on the scale of risks"
            )
        return Fit(model.curve(path, self.n_draws, self.rng), diagnostics, tuple(messages))


def _spread_test(stage: LinearFirstStage) -> tuple[float, int, float]:
    """Score test of V^2 on the prediction, its square and the covariates (Koenker 1981).

    Without clusters it is n R^2 of that regression; with clusters the variance is of their sums.
    """
    shift = stage.fitted - stage.mean_exposure
    shift = shift / shift.std()
    squares = stage.residuals**2
    weights = np.ones(stage.n) if stage.weights is None else stage.weights
    squares = squares / np.average(squares, weights=weights) - 1
    width = 2 + len(stage.covariates_used)

    def raw(rows: slice) -> Float:
        t = shift[rows, None]
        return np.hstack([t, t**2, stage.covariates(rows)])

    means = np.zeros(width)
    for rows in blocks(stage.n, width + stage.p):
        means += (raw(rows) * weights[rows, None]).sum(axis=0) / stage.total_weight

    def scores(rows: slice) -> Float:
        return (raw(rows) - means) * (weights * squares)[rows, None]

    def columns(rows: slice) -> Float:
        return (raw(rows) - means) * weights[rows, None]

    total = np.zeros(width)
    for rows in blocks(stage.n, width + stage.p):
        total += scores(rows).sum(axis=0)
    if stage.data.clusters is None:
        variance = score_covariance(columns, stage.n, width, None)
        variance *= np.average(squares**2, weights=weights)
    else:
        variance = score_covariance(scores, stage.n, width, stage.data.clusters)
    bread = inverse(variance)
    freedom = int(np.count_nonzero(bread.diagonal()))
    statistic = float(total @ bread @ total)
    return statistic, freedom, float(chdtrc(freedom, statistic))


class _Shifts:
    """Second stage on tabulated functions."""

    def __init__(self, stage: LinearFirstStage, spline: BSpline) -> None:
        self.stage, self.spline = stage, spline
        self.scale_x = float(stage.data.exposure.std())
        self.scale_y = float(stage.data.outcome.std())
        t, v = stage.fitted, stage.residuals
        self.shifts = CubicGrid.of_range(float(t.min()), float(t.max()), _SHIFT_CELLS)
        self.noises = CubicGrid.of_range(float(v.min()), float(v.max()), _NOISE_CELLS)
        law = self.noises.mean_weights(v, stage.weights)
        k = spline.n_functions
        self.table, self.slopes = (
            np.empty((len(self.shifts.nodes), k)),
            np.empty((len(self.shifts.nodes), k)),
        )
        for i, node in enumerate(self.shifts.nodes):
            at = node + self.noises.nodes
            self.table[i] = np.einsum("l,lk->k", law, spline.values(at))
            self.slopes[i] = np.einsum("l,lk->k", law, spline.derivative(at))
        self.width = k + len(stage.covariates_used)

    def columns(self, rows: slice) -> Float:
        """Smoothed functions at the prediction, and standardised covariates: (rows, width)."""
        functions = self.shifts.interpolate(self.table, self.stage.fitted[rows])
        return np.hstack([functions, self.stage.standardised_covariates(rows)])

    def _weights(self, rows: slice) -> Float | None:
        return None if self.stage.weights is None else self.stage.weights[rows]

    def _times_weight(self, values: Float, rows: slice) -> Float:
        return values if self.stage.weights is None else values * self.stage.weights[rows]

    def fit(self) -> SmoothingPath:
        """Two rounds: the residual variance comes from the first."""
        stage, k = self.stage, self.spline.n_functions
        y = (stage.data.outcome - stage.mean_outcome) / self.scale_y
        products = np.zeros((self.width + 1, self.width + 1))
        for rows in blocks(stage.n, self.width + stage.p):
            block = np.hstack([self.columns(rows), y[rows, None]])
            products += cross_products(block, block, self._weights(rows))
        low, high = (float(q) for q in np.quantile(stage.data.exposure, [0.01, 0.99]))
        prior, penalty = np.zeros((2, self.width, self.width))
        bend = self.spline.mean_curvature(low, high) * self.scale_x**2 / _CURVATURE_PRIOR
        prior[:k, :k] = np.outer(bend, bend)
        penalty[:k, :k] = self.spline.curvature_penalty(low, high) * self.scale_x**3
        gram, moments = products[:-1, :-1], products[:-1, -1]
        variance = 1.0
        for _ in range(2):
            path = smoothing_path(gram / variance + prior, moments / variance, penalty)
            t = path.weights @ path.coefficients
            left = float(products[-1, -1] - 2 * t @ moments + t @ gram @ t)
            variance = max(left, 1e-12) / stage.total_weight
        self.variance, self.coefficients = variance * self.scale_y**2, t
        self.meat = self._meat(t, y, variance)
        inner = self.meat[:-1, :-1] + prior
        return smoothing_path(gram / variance + prior, moments / variance, penalty, meat=inner)

    def _meat(self, t: Float, y: Float, variance: float) -> Float:
        """Covariance of the scores, of the first stage and the law of V too.

        The last coordinate is the error of the covariates' means in the direction of g.
        """
        stage, k = self.stage, self.spline.n_functions
        used = len(stage.used)
        along = np.zeros((self.width, used))  # derivative in the first stage's coefficients
        on_nodes = np.zeros((self.width, len(self.shifts.nodes)))
        steep = np.einsum("ik,k->i", self.slopes, t[:k])[:, None]
        for rows in blocks(stage.n, self.width + stage.p + len(self.shifts.nodes)):
            columns, shift = self.columns(rows), stage.fitted[rows]
            slope = self.shifts.interpolate(steep, shift)
            design = stage.design(rows)[:, stage.used]
            along -= cross_products(columns, design * slope, self._weights(rows))
            on_nodes += cross_products(columns, self.shifts.dense(shift), self._weights(rows))
        by_noise = np.empty((len(self.noises.nodes), self.width))  # sum_i w_i D_i f(T_i + node)
        for i, node in enumerate(self.noises.nodes):
            curve = np.einsum("mk,k->m", self.spline.values(self.shifts.nodes + node), t[:k])
            by_noise[i] = np.einsum("dm,m->d", on_nodes, curve)
        law = self.noises.mean_weights(stage.residuals, stage.weights)
        by_noise -= np.einsum("l,ld->d", law, by_noise)

        def scores(rows: slice) -> Float:
            columns = self.columns(rows)
            left = y[rows] - np.einsum("ij,j->i", columns, t)
            total = columns * left[:, None]
            noise = self.noises.interpolate(by_noise, stage.residuals[rows])
            total -= noise / stage.total_weight
            if stage.weights is not None:
                total *= stage.weights[rows, None]
            total += np.einsum("ij,kj->ik", stage.influence(rows), along)
            means = self._times_weight(
                np.einsum("ij,j->i", columns[:, k:], t[k:]) / stage.total_weight, rows
            )
            return np.column_stack([total / variance, means])

        return score_covariance(scores, stage.n, self.width + 1, stage.data.clusters)

    def curve(self, path: SmoothingPath, n_draws: int, rng: int) -> AdditiveCurve:
        """Curve in the units of the data, the mixture over smoothing parameters."""
        stage, k = self.stage, self.spline.n_functions
        size = k + stage.q + 1
        place = [*range(k), *(k + j for j in stage.covariates_used), size - 1]
        units = np.ones(self.width + 1)
        units[k:-1] = stage.covariate_spread
        means, covariances = np.zeros((len(path.tau), size)), []
        for i, bread in enumerate(path.inverses):
            joint = np.empty((self.width + 1, self.width + 1))
            joint[:-1, :-1] = path.covariances[i]
            joint[:-1, -1] = joint[-1, :-1] = bread @ self.meat[:-1, -1]
            joint[-1, -1] = self.meat[-1, -1]
            full = np.zeros((size, size))
            full[np.ix_(place, place)] = joint * (self.scale_y**2 / np.outer(units, units))
            covariances.append(full)
            means[i, place[:-1]] = path.coefficients[i] * self.scale_y / units[:-1]
            means[i, :k] += stage.mean_outcome
        found = mixture(path.weights, means, np.array(covariances), n_draws, rng)
        low, high = (float(q) for q in np.quantile(stage.data.exposure, [0.025, 0.975]))
        return AdditiveCurve(
            SplineBasis(self.spline.breakpoints),
            stage.covariate_means,
            found.mean,
            found.covariance,
            found.draws,
            (low, high),
        )
