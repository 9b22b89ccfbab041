"""Logistic regression of a binary outcome on the exposure and the first stage's residual.

Notation: V = X - E[X | Z, C] from linear regression with coefficients d;
logit P(Y = 1 | X, V, C) = a + b X + r_1 V + ... + r_m V^m + C g = b X + e, and the risk under
do(X = x) is the mean over people of expit(b x + e): probabilities are averaged, not logits.
The standard errors are those of the two stages together: the influence of a person on
t = (a, b, r, g) is H^-1 (s_i + T k_i), with the score s_i, the information H, the influence k_i on
d and T the derivative of the total score in d (Murphy and Topel 1985,
doi:10.1080/07350015.1985.10509471).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, expit, ndtr, ndtri

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import ConvergenceError
from mrfast.nonlinear._cubic_grid import CubicGrid
from mrfast.nonlinear._row_sums import blocks, cross_products, inverse, score_covariance
from mrfast.nonlinear.additive_curve import normal_draws
from mrfast.nonlinear.causal_curve import CausalContrast
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.fitted_curve import LinearCurve
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.linear_first_stage import LinearFirstStage, in_cluster_order

__all__ = ["LogisticControlFunction", "LogisticCurve"]

_ITERATIONS = 50
_STILL = 1e-4
_SPACING, _MOST_CELLS = 0.25, 60  # of the table of e, in logits


class LogisticControlFunction(InstrumentalVariableEstimator):
    """Control function for a binary outcome, by logistic regression.

    Effects are probabilities. The coefficient of the exposure, a log odds ratio at a given
    residual and given covariates, is in the diagnostics; `odds_ratio` compares average risks. The
    model is right where U enters the logit of the risk through a polynomial in V.

    Parameters
    ----------
    residual_degree : int
        Highest power of the residual, 1 to 4.
    level : float
        Coverage of the coefficient's interval in the diagnostics.
    n_draws : int
        Draws for the critical value of uniform bands.
    rng : int
        Seed of the draws.

    References
    ----------
    Blundell and Powell (2004), doi:10.1111/j.1467-937X.2004.00299.x; Terza, Basu and Rathouz
    (2008), doi:10.1016/j.jhealeco.2007.09.009; Palmer et al. (2008), doi:10.1093/ije/dyn080.
    """

    name = "logistic_control_function"
    title = "Logistic control function"

    def __init__(
        self, *, residual_degree: int = 1, level: float = 0.95, n_draws: int = 2000, rng: int = 0
    ) -> None:
        self.residual_degree = check.integer(
            "residual_degree", residual_degree, minimum=1, maximum=4
        )
        self.level = check.scalar("level", level, above=0, below=1)
        self.n_draws = check.integer("n_draws", n_draws, minimum=100, maximum=10**6)
        self.rng = check.integer("rng", rng, minimum=0)

    def _fit(self, data: IVData) -> Fit:
        if not data.binary_outcome:
            raise check.fail("outcome", "0 or 1 for everybody", "other values")
        data = in_cluster_order(data)
        stage = LinearFirstStage(data)
        model = _TwoStages(stage, self.residual_degree)
        model.maximise()
        covariance = score_covariance(model.influence, stage.n, model.width, data.clusters)
        covariance *= stage.small_sample_factor
        curve = model.curve(self.n_draws, self.rng)
        slope, error = float(model.coefficients[1]), float(np.sqrt(covariance[1, 1]))
        factor = float(ndtri(0.5 + self.level / 2))
        control = model.coefficients[2 : 2 + self.residual_degree] / model.scale
        powers = slice(2, 2 + self.residual_degree)
        wald = float(
            model.coefficients[powers]
            @ inverse(covariance[powers, powers])
            @ model.coefficients[powers]
        )
        diagnostics: dict[str, Any] = {
            "log_odds_ratio": slope,
            "log_odds_ratio_std_error": error,
            "log_odds_ratio_interval": [slope - factor * error, slope + factor * error],
            "log_odds_ratio_p_value": float(2 * ndtr(-abs(slope / error))),
            "residual_coefficients": control.tolist(),
            "exogeneity_p_value": float(chdtrc(self.residual_degree, wald)),
            **stage.strength,
        }
        messages = list(stage.messages)
        if diagnostics["effective_f"] < 10:
            messages.append(
                f"weak instruments: effective F {diagnostics['effective_f']:.2g} is below 10"
            )
        return Fit(curve, diagnostics, tuple(messages))

    def odds_ratio(
        self,
        x0: ArrayLike,
        x1: ArrayLike,
        *,
        interval: str | None = None,
        level: float = 0.95,
    ) -> Float | CausalContrast:
        """Odds of the average risk under do(X = x1) over those under do(X = x0).

        Parameters
        ----------
        x0, x1 : array-like
            Broadcast against each other.
        interval : {"pointwise"}, optional
        level : float

        Returns
        -------
        ndarray of float64 or CausalContrast
        """
        return self._ratio(x0, x1, interval, level, odds=True)

    def risk_ratio(
        self,
        x0: ArrayLike,
        x1: ArrayLike,
        *,
        interval: str | None = None,
        level: float = 0.95,
    ) -> Float | CausalContrast:
        """Average risk under do(X = x1) over that under do(X = x0), see `odds_ratio`."""
        return self._ratio(x0, x1, interval, level, odds=False)

    def _ratio(
        self, x0: ArrayLike, x1: ArrayLike, interval: str | None, level: float, *, odds: bool
    ) -> Float | CausalContrast:
        curve = self._fitted()
        assert isinstance(curve, LogisticCurve)
        first, second = (
            check.float_array(name, value, ndim=None).reshape(np.shape(value))
            for name, value in (("x0", x0), ("x1", x1))
        )
        try:
            first, second = np.broadcast_arrays(first, second)
        except ValueError as error:
            raise check.fail("x1", f"a shape that fits {first.shape}", str(second.shape)) from error
        logarithm, std_error = curve.log_ratio(first.ravel(), second.ravel(), odds=odds)
        estimate = np.exp(logarithm).reshape(first.shape)
        if interval is None:
            return estimate
        check.choice("interval", interval, ("pointwise",))
        factor = float(ndtri(0.5 + check.scalar("level", level, above=0, below=1) / 2))
        lower, upper = (
            np.exp(logarithm + sign * factor * std_error).reshape(first.shape) for sign in (-1, 1)
        )
        kind = "odds" if odds else "risk"
        return CausalContrast(
            first, second, estimate, lower, upper, f"pointwise interval for the {kind} ratio", level
        )


class _TwoStages:
    """Logistic regression whose columns hold the residual of the first stage."""

    def __init__(self, stage: LinearFirstStage, degree: int) -> None:
        self.stage, self.degree = stage, degree
        data = stage.data
        self.outcome, self.x = data.outcome, data.exposure - stage.mean_exposure
        spread = float(np.sqrt((stage.residuals**2).mean()))
        self.v = stage.residuals / spread  # powers of comparable size
        self.spread = spread
        self.scale = spread ** np.arange(1, degree + 1)
        self.width = 2 + degree + len(stage.covariates_used)
        self.units = np.ones(self.width)  # standard deviations of the columns
        self.units[1] = data.exposure.std()
        self.units[2 + degree :] = stage.covariate_spread
        self.coefficients = np.zeros(self.width)
        risk = stage.mean_outcome
        self.coefficients[0] = np.log(risk / (1 - risk))

    def columns(self, rows: slice) -> Float:
        """1, X, powers of V, C: (rows, width)."""
        v = self.v[rows]
        powers = [v**d for d in range(1, self.degree + 1)]
        return np.column_stack(
            [np.ones(len(v)), self.x[rows], *powers, self.stage.covariates(rows)]
        )

    def _weighted(self, values: Float, rows: slice) -> Float:
        weights = self.stage.weights
        return values if weights is None else values * weights[rows]

    def maximise(self) -> None:
        """Newton's method with step halving."""
        step, value = np.zeros(self.width), -np.inf
        for _ in range(_ITERATIONS):
            trial = self.coefficients + step
            likelihood, gradient, information = self._derivatives(trial)
            if not likelihood >= value - 1e-10 * abs(value):
                step = step / 2
                continue
            self.coefficients, value = trial, likelihood
            self.bread = inverse(information)
            step = self.bread @ gradient
            if (
                float(step @ gradient) < 1e-18 * self.stage.n
                and np.abs(step * self.units).max() < _STILL
            ):
                return  # steps that stay large lead to infinity
            if np.abs(self.coefficients * self.units).max() > 1e4:
                break
        raise ConvergenceError(
            "logistic regression: the likelihood has no maximum; exposure, residual or covariates "
            "separate the outcomes"
        )

    def _derivatives(self, coefficients: Float) -> tuple[float, Float, Float]:
        likelihood, gradient = 0.0, np.zeros(self.width)
        information = np.zeros((self.width, self.width))
        for rows in blocks(self.stage.n, self.width + self.stage.p):
            design, y = self.columns(rows), self.outcome[rows]
            predictor = np.einsum("ij,j->i", design, coefficients)
            risk = expit(predictor)
            likelihood += float(
                self._weighted(y * predictor - np.logaddexp(0.0, predictor), rows).sum()
            )
            gradient += np.einsum("ij,i->j", design, self._weighted(y - risk, rows))
            information += cross_products(design, design, self._weighted(risk * (1 - risk), rows))
        return likelihood, gradient, information

    def _control_slope(self, rows: slice) -> Float:
        """Derivative of the predictor in the (unscaled) residual."""
        v = self.v[rows]
        terms = [d * self.coefficients[1 + d] * v ** (d - 1) for d in range(1, self.degree + 1)]
        slope: Float = np.sum(terms, axis=0) / self.spread
        return slope

    def first_stage_columns(self, rows: slice) -> Float:
        """1 and the used columns of (C, Z)."""
        design = self.stage.design(rows)[:, self.stage.used]
        return np.column_stack([np.ones(len(design)), design])

    def first_stage_influence(self, rows: slice) -> Float:
        """Of each person on the intercept and the coefficients of the first stage."""
        stage = self.stage
        intercept = self._weighted(stage.residuals[rows], rows) / stage.total_weight
        return np.column_stack([intercept, stage.influence(rows)])

    def _cross(self) -> Float:
        """T: derivative of the total score in the first stage's coefficients."""
        if not hasattr(self, "_cross_derivative"):
            total = np.zeros((self.width, 1 + len(self.stage.used)))
            for rows in blocks(self.stage.n, self.width + self.stage.p):
                design, v = self.columns(rows), self.v[rows]
                risk = expit(np.einsum("ij,j->i", design, self.coefficients))
                moved = -design * (risk * (1 - risk) * self._control_slope(rows))[:, None]
                for d in range(1, self.degree + 1):
                    moved[:, 1 + d] += (self.outcome[rows] - risk) * d * v ** (d - 1) / self.spread
                total -= cross_products(moved, self.first_stage_columns(rows), self._weights(rows))
            self._cross_derivative = total
        return self._cross_derivative

    def _weights(self, rows: slice) -> Float | None:
        return None if self.stage.weights is None else self.stage.weights[rows]

    def influence(self, rows: slice) -> Float:
        """Of each person on the coefficients of the logistic regression, (rows, width)."""
        design = self.columns(rows)
        risk = expit(np.einsum("ij,j->i", design, self.coefficients))
        score = design * self._weighted(self.outcome[rows] - risk, rows)[:, None]
        first = self.first_stage_influence(rows)
        score += np.einsum("ij,kj->ik", first, self._cross())
        moved: Float = np.einsum("ij,jk->ik", score, self.bread)
        return moved

    # ------------------------------------------------------------------ average risks

    def curve(self, n_draws: int, rng: int) -> LogisticCurve:
        """Average risks, and those of given covariates."""
        tables = [self._table(True), self._table(False)]
        size = [len(table[1]) for table in tables]
        coefficients = np.concatenate([table[1] for table in tables])
        covariance = np.zeros((sum(size), sum(size)))
        covariance[: size[0], : size[0]] = tables[0][2]
        covariance[size[0] :, size[0] :] = tables[1][2]
        slopes = np.zeros(self.stage.q)
        slopes[self.stage.covariates_used] = self.coefficients[2 + self.degree :]
        x = self.stage.data.exposure
        low, high = (float(value) for value in np.quantile(x, [0.025, 0.975]))
        return LogisticCurve(
            (tables[0][0], tables[1][0]),
            np.concatenate([[self.stage.mean_exposure, self.coefficients[1]], slopes]),
            self.stage.covariate_means,
            coefficients,
            covariance,
            coefficients + normal_draws(covariance, n_draws, rng),
            (low, high),
        )

    def _offsets(self, rows: slice, with_covariates: bool) -> Float:
        """e: what the predictor has beside the exposure, with the covariates or at their means."""
        used = self.coefficients.copy()
        used[1] = 0.0
        if not with_covariates:
            used[2 + self.degree :] = 0.0
        offsets: Float = np.einsum("ij,j->i", self.columns(rows), used)
        return offsets

    def _table(self, averaged: bool) -> tuple[Float, Float, Float]:
        """Law of e on a grid of nodes, by cubic interpolation, with what its estimate moves.

        The risk is sum_j W_j expit(b x + node_j); W_j is the mean of person i's weight w_j(e_i).
        """
        stage = self.stage
        everybody = [self._offsets(rows, averaged) for rows in blocks(stage.n, self.width)]
        e = np.concatenate(everybody)
        low, high = float(e.min()), float(e.max())
        cells = int(np.clip(np.ceil((high - low) / _SPACING), 1, _MOST_CELLS))
        grid = CubicGrid.of_range(low, high, cells)
        nodes, j = grid.nodes, len(grid.nodes)
        moved_by = np.zeros((j, self.width + 1 + len(stage.used)))  # of the nodes' offsets
        weight = np.zeros(j)

        def own(rows: slice) -> Float:
            """w_j(e_i), (rows, j)."""
            return grid.dense(e[rows])

        for rows in blocks(stage.n, self.width + stage.p + j):
            found = own(rows)
            derivative = self.columns(rows)
            derivative[:, 1] = 0.0
            if not averaged:
                derivative[:, 2 + self.degree :] = 0.0
            first = -self.first_stage_columns(rows) * self._control_slope(rows)[:, None]
            both = np.hstack([derivative, first])
            moved_by += cross_products(found, both, self._weights(rows)) / stage.total_weight
            ones = np.ones((len(found), 1))
            weight += cross_products(found, ones, self._weights(rows))[:, 0] / stage.total_weight

        q, degree = stage.q, self.degree
        width = 2 * j + 1 + q

        def scores(rows: slice) -> Float:
            own_weight = (own(rows) - weight) / stage.total_weight
            if stage.weights is not None:
                own_weight *= stage.weights[rows, None]
            influence = self.influence(rows)
            both = np.hstack([influence, self.first_stage_influence(rows)])
            moved = np.zeros((len(own_weight), width))
            moved[:, :j] = own_weight
            moved[:, j : 2 * j] = np.einsum("ij,kj->ik", both, moved_by)
            moved[:, 2 * j] = influence[:, 1]
            for place, column in enumerate(stage.covariates_used):
                moved[:, 2 * j + 1 + column] = influence[:, 2 + degree + place]
            return moved

        covariance = score_covariance(scores, stage.n, width, stage.data.clusters)
        coefficients = np.concatenate([weight, np.zeros(width - j)])
        return nodes, coefficients, covariance * stage.small_sample_factor


class LogisticCurve(LinearCurve):
    """Risks sum_j W_j expit(b (x - mean) + c'g + node_j), with their linearised law.

    Parameters
    ----------
    nodes : (ndarray, ndarray)
        Of what the predictor has beside the exposure: averaged over people, and of given
        covariates.
    slopes : ndarray, shape (2 + q,)
        Mean exposure, b, g.
    covariate_means : ndarray, shape (q,)
    coefficients, covariance, draws, central
        As of `LinearCurve`: for either kind W, the (zero) shifts of the nodes, of b and of g.
    """

    kind = "logistic_control_function"

    def __init__(
        self,
        nodes: tuple[Float, Float],
        slopes: Float,
        covariate_means: Float,
        coefficients: Float,
        covariance: Float,
        draws: Float,
        central: tuple[float, float],
    ) -> None:
        super().__init__(coefficients, covariance, draws, central)
        self.nodes, self.slopes = nodes, np.asarray(slopes, dtype=np.float64)
        self.covariate_means = np.asarray(covariate_means, dtype=np.float64)

    def basis(self, x: Float, covariates: Float | None) -> Float:
        """Risk as a linear function of W, and its derivatives in everything else."""
        q = len(self.covariate_means)
        kind = int(covariates is not None)
        nodes = self.nodes[kind]
        start = kind * (2 * len(self.nodes[0]) + 1 + q)
        along = np.asarray(x, dtype=np.float64) - self.slopes[0]
        predictor = self.slopes[1] * along
        others = np.zeros((len(along), q))
        if covariates is not None:
            others = covariates - self.covariate_means
            predictor = predictor + np.einsum("mq,q->m", others, self.slopes[2:])
        risk = expit(predictor[:, None] + nodes)
        steep = risk * (1 - risk)
        weight = self.coefficients[start : start + len(nodes)]
        slope = np.einsum("mj,j->m", steep, weight)
        rows = np.zeros((len(along), len(self.coefficients)))
        own = np.hstack([risk, steep, (slope * along)[:, None], slope[:, None] * others])
        rows[:, start : start + own.shape[1]] = own
        return rows

    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """Limits of risks, symmetric on the scale of logits; of differences on their own."""
        found = super().limits(interval, level, x, covariates, reference)
        return _within_range(*found, difference=reference is not None)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """Limits of the average over given people, as `limits`."""
        found = super().averaged_limits(interval, level, x, people, reference)
        return _within_range(*found, difference=reference is not None)

    def log_ratio(self, x0: Float, x1: Float, *, odds: bool) -> tuple[Float, Float]:
        """Logarithms of ratios of average risks or odds, and their standard errors."""
        total = np.zeros(len(x0))
        rows = np.zeros((len(x0), len(self.coefficients)))
        for sign, x in ((1.0, x1), (-1.0, x0)):
            own = self.basis(x, None)
            risk = np.einsum("mk,k->m", own, self.coefficients)
            scale = risk * (1 - risk) if odds else risk
            total += sign * (np.log(risk) - (np.log1p(-risk) if odds else 0.0))
            rows += sign * own / scale[:, None]
        return total, self.standard_errors(rows)

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """All arrays; there are no rows of people among them."""
        return {"central": list(self.central)}, {
            "average_nodes": self.nodes[0],
            "given_nodes": self.nodes[1],
            "slopes": self.slopes,
            "covariate_means": self.covariate_means,
            "coefficients": self.coefficients,
            "covariance": self.covariance,
            "draws": self.draws,
        }

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state that `state` gave."""
        low, high = values["central"]
        return cls(
            (arrays["average_nodes"], arrays["given_nodes"]),
            arrays["slopes"],
            arrays["covariate_means"],
            arrays["coefficients"],
            arrays["covariance"],
            arrays["draws"],
            (float(low), float(high)),
        )


def _within_range(lower: Float, upper: Float, *, difference: bool) -> tuple[Float, Float]:
    """Symmetric limits of risks, made symmetric as logits; those of differences are cut at 1."""
    if difference:
        return np.maximum(lower, -1.0), np.minimum(upper, 1.0)
    risk = np.clip((lower + upper) / 2, 1e-12, 1 - 1e-12)
    half = (upper - lower) / 2 / (risk * (1 - risk))
    logit = np.log(risk) - np.log1p(-risk)
    return expit(logit - half), expit(logit + half)
