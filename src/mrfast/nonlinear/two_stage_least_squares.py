"""Two-stage least squares: the straight line of nonlinear MR, with robust inference.

Notation: Z, C, X, Y are instruments, covariates, exposure and outcome about their means, Z~ and
X~ what the covariates leave of Z and X, P the projection on Z~;
b = (X~'P Y) / (X~'P X) and U = Y - X b - C g.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import chdtrc, chdtri, ndtr, ndtri

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear._row_sums import inverse, score_covariance
from mrfast.nonlinear.additive_curve import AdditiveCurve, LineBasis, normal_draws
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.linear_first_stage import LinearFirstStage, in_cluster_order

__all__ = ["TwoStageLeastSquares"]

_WEAK = 10.0
_ANGLES = 41
_MOST_INSTRUMENTS = 100


class TwoStageLeastSquares(InstrumentalVariableEstimator):
    """Two-stage least squares.

    The effect at x is the line at the mean of the covariates. Diagnostics have the slope with its
    standard error and p-value, the strength of the first stage, the tests of over-identification
    of Sargan (homoscedastic errors) and Hansen (robust, of the two-step GMM estimate), the
    control function's test of exogeneity, and the Anderson-Rubin set, which is valid with weak
    instruments too.

    Parameters
    ----------
    covariance : {"robust", "homoscedastic"}
        Standard errors: heteroscedasticity-robust with a factor n / (n - k) for few people, or
        classical. With clusters they are cluster-robust, whatever this says.
    level : float
        Coverage of the slope's interval and of the Anderson-Rubin set in the diagnostics.
    n_draws : int
        Draws for the critical value of uniform bands.
    rng : int
        Seed of the draws.

    References
    ----------
    White (1982), doi:10.2307/1912526; Hansen (1982), doi:10.2307/1912775;
    Anderson and Rubin (1949), doi:10.1214/aoms/1177730090.
    """

    name = "two_stage_least_squares"
    title = "Two-stage least squares"

    def __init__(
        self,
        *,
        covariance: str = "robust",
        level: float = 0.95,
        n_draws: int = 2000,
        rng: int = 0,
    ) -> None:
        self.covariance = check.choice("covariance", covariance, ("robust", "homoscedastic"))
        self.level = check.scalar("level", level, above=0, below=1)
        self.n_draws = check.integer("n_draws", n_draws, minimum=100, maximum=10**6)
        self.rng = check.integer("rng", rng, minimum=0)

    def _fit(self, data: IVData) -> Fit:
        data = in_cluster_order(data)
        stage = LinearFirstStage(data)
        line = _Line(stage, robust=self.covariance == "robust" or data.clusters is not None)
        covariance = line.covariance()
        curve = AdditiveCurve(
            LineBasis(stage.mean_exposure),
            stage.covariate_means,
            line.coefficients,
            covariance,
            line.coefficients + normal_draws(covariance, self.n_draws, self.rng),
            _central(data.exposure),
        )
        slope, error = line.slope, float(np.sqrt(covariance[1, 1]))
        factor = float(ndtri(0.5 + self.level / 2))
        diagnostics: dict[str, Any] = {
            "slope": slope,
            "slope_std_error": error,
            "slope_interval": [slope - factor * error, slope + factor * error],
            "slope_p_value": float(2 * ndtr(-abs(slope / error))),
            "slope_least_squares": line.observational_slope,
            "std_errors": "cluster-robust" if data.clusters is not None else self.covariance,
            **stage.strength,
            **line.overidentification(),
            **line.exogeneity(),
            **line.anderson_rubin(self.level),
        }
        messages = list(stage.messages)
        if diagnostics["effective_f"] < _WEAK:
            messages.append(
                f"weak instruments: effective F {diagnostics['effective_f']:.2g} is below "
                f"{_WEAK:.0f}; intervals of the line are too short, the Anderson-Rubin set "
                "of the slope is not"
            )
        return Fit(curve, diagnostics, tuple(messages))


def _central(x: Float) -> tuple[float, float]:
    low, high = np.quantile(x, [0.025, 0.975])
    return float(low), float(high)


class _Line:
    """The second stage, from the products of the first."""

    def __init__(self, stage: LinearFirstStage, *, robust: bool) -> None:
        self.stage, self.robust = stage, robust
        q, width = stage.q, stage.q + stage.p
        x, y = width, width + 1
        used, covariates = stage.instruments_used, stage.covariates_used
        adjusted = stage.adjusted
        self.to_exposure = adjusted[used, x]  # Z~'X
        self.to_outcome = adjusted[used, y]
        self.bread = inverse(stage.instrument_products)
        self.first = np.einsum("ij,j->i", self.bread, self.to_exposure)
        self.explained = float(self.first @ self.to_exposure)  # X~'P X
        self.slope = float(self.first @ self.to_outcome) / self.explained
        self.on_covariates = adjusted[covariates][:, [x, y]]  # regressions of X, Y on C
        used_slopes = self.on_covariates[:, 1] - self.slope * self.on_covariates[:, 0]
        self.covariate_slopes = np.zeros(q)
        self.covariate_slopes[covariates] = used_slopes
        self.observational_slope = float(adjusted[x, y] / adjusted[x, x])
        freedom = stage.n - 2 - len(covariates)
        left = adjusted[y, y] - 2 * self.slope * adjusted[x, y] + self.slope**2 * adjusted[x, x]
        self.residual_variance = float(left) / freedom
        self.coefficients = np.concatenate(
            [[stage.mean_outcome, self.slope], self.covariate_slopes, [0.0]]
        )
        self.factor = stage.small_sample_factor * (stage.n - stage.parameters) / freedom

    def residuals(self, slope: float) -> Float:
        """Y - X b - C g, with the g that belongs to a slope, shape (n,)."""
        stage = self.stage
        by_covariates = self.on_covariates[:, 1] - slope * self.on_covariates[:, 0]
        values = (stage.data.outcome - stage.mean_outcome) - slope * (
            stage.data.exposure - stage.mean_exposure
        )
        if stage.covariates_used:
            everybody = slice(0, stage.n)
            values -= np.einsum("ij,j->i", stage.covariates(everybody), by_covariates)
        return values

    def covariance(self) -> Float:
        """Covariance of (level, slope, covariates' slopes, error of the covariates' means)."""
        stage = self.stage
        covariates = stage.covariates_used
        residual = self.residuals(self.slope)
        width = stage.q + 3
        gram = -stage.adjusted[np.ix_(covariates, covariates)]  # inverse of C'C
        x_on_c = self.on_covariates[:, 0]

        def influence(rows: slice, residuals: Float) -> Float:
            u = residuals if stage.weights is None else residuals * stage.weights[rows]
            moved = np.zeros((len(u), width))
            moved[:, 0] = u / stage.total_weight
            instrument = np.einsum("ij,j->i", stage.adjusted_instruments(rows), self.first)
            moved[:, 1] = u * instrument / self.explained
            if covariates:
                own = stage.covariates(rows)
                slopes = np.einsum("ij,jk->ik", own * u[:, None], gram)
                slopes -= moved[:, 1:2] * x_on_c
                moved[:, [2 + j for j in covariates]] = slopes
                shift = np.einsum("ij,j->i", own, self.covariate_slopes[covariates])
                if stage.weights is not None:
                    shift = shift * stage.weights[rows]
                moved[:, -1] = shift / stage.total_weight
            return moved

        def scores(rows: slice) -> Float:
            return influence(rows, residual[rows])

        total = score_covariance(scores, stage.n, width, stage.data.clusters) * self.factor
        if self.robust:
            return total

        def unit(rows: slice) -> Float:
            block = influence(rows, np.ones(len(residual[rows])))
            if stage.weights is not None:  # weights as precisions: W once, not twice
                block /= np.sqrt(np.maximum(stage.weights[rows], 1e-300))[:, None]
            block[:, -1] = 0.0
            return block

        classical = self.residual_variance * score_covariance(unit, stage.n, width, None)
        classical[-1, -1] = total[-1, -1]
        return classical

    def overidentification(self) -> dict[str, Any]:
        """Tests of Sargan and Hansen; none with one instrument."""
        freedom = len(self.first) - 1
        names = ("sargan", "hansen_j")
        if freedom == 0:
            return {}
        moments = self.to_outcome - self.slope * self.to_exposure  # Z~'U
        adjusted = self.stage.adjusted
        x, y = len(adjusted) - 2, len(adjusted) - 1
        left = float(
            adjusted[y, y] - 2 * self.slope * adjusted[x, y] + self.slope**2 * adjusted[x, x]
        )
        sargan = float(moments @ self.bread @ moments) / (left / self.stage.n)
        weight = inverse(self.stage.instrument_meat(self.residuals(self.slope)))
        along = weight @ self.to_exposure
        slope = float(along @ self.to_outcome) / float(along @ self.to_exposure)
        moments = self.to_outcome - slope * self.to_exposure
        hansen = float(moments @ weight @ moments)
        found: dict[str, Any] = {"overidentification_degrees_of_freedom": freedom}
        for name, value in zip(names, (sargan, hansen), strict=True):
            found |= {name: value, f"{name}_p_value": float(chdtrc(freedom, value))}
        return found

    def exogeneity(self) -> dict[str, Any]:
        """Test that the exposure is exogenous: V in the regression of Y on X, C and V."""
        stage = self.stage
        adjusted = stage.adjusted
        x, y = len(adjusted) - 2, len(adjusted) - 1
        v = stage.residuals
        unexplained = float(adjusted[x, x]) - self.explained  # V'V
        if not unexplained > 1e-9 * adjusted[x, x]:
            return {}
        # coefficient of V: slope of Y on V minus that of two-stage least squares
        to_v = float(adjusted[x, y]) - self.explained * self.slope  # V'Y
        on_v = to_v / unexplained
        rho = on_v - self.slope
        u = self.residuals(self.slope) - rho * v

        def scores(rows: slice) -> Float:
            instrument = np.einsum("ij,j->i", stage.adjusted_instruments(rows), self.first)
            e = u[rows] if stage.weights is None else u[rows] * stage.weights[rows]
            moved: Float = e * (v[rows] / unexplained - instrument / self.explained)
            return moved[:, None]

        variance = float(score_covariance(scores, stage.n, 1, stage.data.clusters)[0, 0])
        z = rho / np.sqrt(variance * self.factor)
        return {"exogeneity_z": float(z), "exogeneity_p_value": float(2 * ndtr(-abs(z)))}

    def anderson_rubin(self, level: float) -> dict[str, Any]:
        """Set of the slope; none with more than 100 instruments, against which it has no power."""
        if len(self.first) > _MOST_INSTRUMENTS:
            return {}
        return {"anderson_rubin_set": list(self._anderson_rubin_set(level))}

    def _anderson_rubin_set(self, level: float) -> tuple[float, float]:
        """Smallest interval with all slopes b whose Y - X b the instruments do not predict.

        The covariance of Z~'(Y - X b) is that of the two reduced forms. An unbounded set has
        infinite ends; one without any slope gives NaN.
        """
        k = len(self.first)
        limit = float(chdtri(k, 1 - level))
        xx, xy, yy = self._reduced_forms()

        def accepted(slope: float) -> bool:
            moments = self.to_outcome - slope * self.to_exposure
            spread = yy - slope * (xy + xy.T) + slope**2 * xx
            try:
                return float(moments @ np.linalg.solve(spread, moments)) <= limit
            except np.linalg.LinAlgError:  # fewer clusters than instruments
                return float(moments @ inverse(spread) @ moments) <= limit

        far = float(self.to_exposure @ inverse(xx) @ self.to_exposure) <= limit
        scale = np.sqrt(np.trace(self.bread @ yy) / self.explained) / np.sqrt(k)
        angles = np.linspace(-np.pi / 2, np.pi / 2, _ANGLES + 2)[1:-1]
        slopes = self.slope + scale * np.tan(angles)
        inside = np.array([accepted(float(slope)) for slope in slopes])
        if far:
            return -np.inf, np.inf
        if not inside.any():
            return np.nan, np.nan
        first, last = np.flatnonzero(inside)[[0, -1]]
        ends = []
        for within, beyond in ((first, first - 1), (last, last + 1)):
            good = float(slopes[within])
            if 0 <= beyond < len(slopes):
                bad = float(slopes[beyond])
            else:
                bad = self.slope + 4 * (good - self.slope)
                while accepted(bad):
                    bad = self.slope + 4 * (bad - self.slope)
            for _ in range(40):
                middle = (good + bad) / 2
                good, bad = (middle, bad) if accepted(middle) else (good, middle)
            ends.append(good)
        return ends[0], ends[1]

    def _reduced_forms(self) -> tuple[Float, Float, Float]:
        """Covariances of Z~'X and Z~'Y: of X with X, X with Y, Y with Y."""
        stage, k = self.stage, len(self.first)
        v, reduced = stage.residuals, np.einsum("ij,j->i", self.bread, self.to_outcome)
        if not self.robust:
            x, y = len(stage.adjusted) - 2, len(stage.adjusted) - 1
            gram = stage.instrument_products / (stage.n - stage.parameters)
            xx = float(stage.adjusted[x, x]) - self.explained
            xy = float(stage.adjusted[x, y]) - float(self.first @ self.to_outcome)
            yy = float(stage.adjusted[y, y]) - float(reduced @ self.to_outcome)
            return gram * xx, gram * xy, gram * yy
        outcome = self.residuals(0.0)

        def scores(rows: slice) -> Float:
            z = stage.adjusted_instruments(rows)
            w = outcome[rows] - np.einsum("ij,j->i", z, reduced)
            if stage.weights is not None:
                z = z * stage.weights[rows, None]
            return np.hstack([z * v[rows, None], z * w[:, None]])

        meat = score_covariance(scores, stage.n, 2 * k, stage.data.clusters)
        meat *= stage.small_sample_factor
        return meat[:k, :k], meat[:k, k:], meat[k:, k:]
