"""Curves that a sieve fit leaves: penalised splines, and a line with an Anderson-Rubin set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.nonlinear.anderson_rubin import LineRegion
from mrfast.nonlinear.fitted_curve import FittedCurve, LinearCurve
from mrfast.nonlinear.sieve_fit import LevelFit
from mrfast.nonlinear.sieve_rows import FirstStage
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

__all__ = ["AndersonRubinLine", "CovariateSplines", "SieveCurve"]

COVARIATE_FUNCTIONS = 6
"""Splines of a covariate, one of which the constant makes superfluous."""
COVARIATE_VALUES = 10
"""A covariate of at most this many values stays linear."""


@dataclass(frozen=True, eq=False)
class CovariateSplines:
    """Columns of the covariates: splines of the continuous ones, the others as they are.

    Attributes
    ----------
    splines : tuple of BSpline or None
        One a covariate.
    """

    splines: tuple[BSpline | None, ...]

    @classmethod
    def of(cls, covariates: Float) -> CovariateSplines:
        """Splines with knots at quantiles of the covariates (n, q)."""
        return cls(
            tuple(
                BSpline(quantile_breakpoints(column, COVARIATE_FUNCTIONS))
                if len(np.unique(column)) > COVARIATE_VALUES
                else None
                for column in covariates.T
            )
        )

    def columns(self, covariates: Float) -> Float:
        """Columns (n, k) of covariates (n, q)."""
        return np.column_stack(
            [
                column if spline is None else spline.values(column)[:, 1:]
                for column, spline in zip(covariates.T, self.splines, strict=True)
            ]
        )


class SieveCurve(LinearCurve):
    """Cubic splines of the exposure, and a straight line beyond its range.

    Covariates shift the curve; without them it is that of the mean
    covariates of the fit, which is also the average over its people.

    Parameters
    ----------
    breakpoints : ndarray of float64, shape: (m,)
        Of the splines, on the scale of the exposure.
    coefficients, covariance, draws, central
        See `LinearCurve`; of the splines, then of the standardised covariates.
    covariate_means, covariate_sds : ndarray of float64, shape: (q,)
        Of the columns of the covariates.
    covariate_splines : CovariateSplines, optional
        Makes these columns; by default they are the covariates.
    """

    kind = "sieve"

    def __init__(
        self,
        breakpoints: Float,
        coefficients: Float,
        covariance: Float,
        draws: Float,
        central: tuple[float, float],
        covariate_means: Float,
        covariate_sds: Float,
        covariate_splines: CovariateSplines | None = None,
    ) -> None:
        super().__init__(coefficients, covariance, draws, central)
        self.covariate_splines = covariate_splines
        self.spline = BSpline(breakpoints)
        self.covariate_means = np.asarray(covariate_means, dtype=np.float64)
        self.covariate_sds = np.asarray(covariate_sds, dtype=np.float64)

    @classmethod
    def of_fit(
        cls,
        fit: LevelFit,
        stage: FirstStage,
        central: tuple[float, float],
        draws: int,
        rng: np.random.Generator,
        covariate_splines: CovariateSplines | None = None,
    ) -> SieveCurve:
        """Curve of a fit, on the scales of the data.

        Parameters
        ----------
        fit : LevelFit
        stage : FirstStage
        central : (float, float)
        draws : int
        rng : numpy.random.Generator
        covariate_splines : CovariateSplines, optional
        """
        mean, covariance = fit.mixture()
        sample = fit.draws(draws, rng)
        y_mean, y_sd = stage.y_law
        level = np.zeros(len(mean))
        level[: fit.spline.n_functions] = y_mean  # the splines sum to one
        return cls(
            stage.x_law[0] + stage.x_law[1] * fit.spline.breakpoints,
            level + y_sd * mean,
            y_sd**2 * covariance,
            level + y_sd * sample,
            central,
            stage.covariate_means,
            stage.covariate_sds,
            covariate_splines,
        )

    def basis(self, x: Float, covariates: Float | None) -> Float:
        """Splines at `x` and standardised covariates, see `LinearCurve.basis`."""
        return self._with_covariates(self.spline.values(x), covariates)

    def slope_basis(self, x: Float) -> Float:
        """Rows whose products with the coefficients are f'(x)."""
        rows = np.zeros((len(x), len(self.coefficients)))
        rows[:, : self.spline.n_functions] = self.spline.derivative(x)
        return rows

    def _with_covariates(self, rows: Float, covariates: Float | None) -> Float:
        out = np.zeros((len(rows), len(self.coefficients)))
        k = self.spline.n_functions
        out[:, :k] = rows
        if covariates is not None and len(self.covariate_means):
            if self.covariate_splines is not None:
                covariates = self.covariate_splines.columns(covariates)
            out[:, k:] = (covariates - self.covariate_means) / self.covariate_sds
        return out

    def critical_value(self, rows: Float, level: float) -> float:
        """Quantile of the largest standardised deviation of the draws, see `LinearCurve`."""
        from mrfast import _core

        errors = self.standard_errors(rows)
        used = errors > 0
        if not used.any():
            return 0.0
        largest = _core.sieve.largest_functional(
            self.draws - self.coefficients, rows[used] / errors[used, None]
        )
        return max(float(np.quantile(largest, level)), _normal_quantile(level))

    def shape_test(self, null: Float, points: Float) -> float:
        """p-value of the curve being a combination of given functions on some points.

        The largest of |f less its least-squares projection on them| over its standard error,
        against that of the draws about the curve.

        Parameters
        ----------
        null : ndarray of float64, shape: (m, r)
        points : ndarray of float64, shape: (m,)

        Returns
        -------
        float
            At least 1 / (draws + 1).
        """
        from mrfast import _core

        rows = self.basis(points, None)
        rows = rows - null @ np.linalg.solve(null.T @ null, null.T @ rows)
        errors = self.standard_errors(rows)
        used = errors > 1e-9 * errors.max()
        standardised = rows[used] / errors[used, None]
        seen = float(np.abs(standardised @ self.coefficients).max())
        largest = _core.sieve.largest_functional(self.draws - self.coefficients, standardised)
        return float((1 + np.count_nonzero(largest >= seen)) / (1 + len(largest)))

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Values and arrays to write, see `FittedCurve.state`."""
        arrays = {
            "breakpoints": self.spline.breakpoints,
            "coefficients": self.coefficients,
            "covariance": self.covariance,
            "draws": self.draws,
            "covariate_means": self.covariate_means,
            "covariate_sds": self.covariate_sds,
        }
        knots = None
        if self.covariate_splines is not None:
            knots = [
                None if spline is None else spline.breakpoints.tolist()
                for spline in self.covariate_splines.splines
            ]
        return {"central": list(self.central), "covariate_breakpoints": knots}, arrays

    @classmethod
    def from_state(
        cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> SieveCurve:
        """Curve from what `state` gave."""
        low, high = values["central"]
        knots = values["covariate_breakpoints"]
        splines = None
        if knots is not None:
            splines = CovariateSplines(
                tuple(None if points is None else BSpline(np.array(points)) for points in knots)
            )
        return cls(
            arrays["breakpoints"],
            arrays["coefficients"],
            arrays["covariance"],
            arrays["draws"],
            (low, high),
            arrays["covariate_means"],
            arrays["covariate_sds"],
            splines,
        )


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


class AndersonRubinLine(FittedCurve):
    """The straight line that is left where instruments are too weak for a curve.

    Limits come from the Anderson-Rubin region of intercept and slope, which is right for any
    strength of the instruments; where the region is unbounded they are infinite.

    Parameters
    ----------
    region : LineRegion
    """

    kind = "anderson_rubin_line"
    intervals = ("pointwise", "uniform")

    def __init__(self, region: LineRegion) -> None:
        self.region = region

    def values(self, x: Float, covariates: Float | None) -> Float:
        """E[Y | do(X = x)], see `FittedCurve.values`."""
        return self.region.line(x, covariates)

    def averaged(self, x: Float, people: Float) -> Float:
        """Average over given people, see `FittedCurve.averaged`."""
        return self.region.line(x, np.broadcast_to(people.mean(axis=0), (len(x), people.shape[1])))

    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """Limits at `x`, see `FittedCurve.limits`: for both intervals the region's projection."""
        return self.region.limits(level, x, covariates, reference)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """Limits of the average over given people, see `FittedCurve.averaged_limits`."""
        middle = np.broadcast_to(people.mean(axis=0), (len(x), people.shape[1]))
        return self.region.limits(level, x, middle, reference)

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Values and arrays to write, see `FittedCurve.state`."""
        return {}, self.region.arrays()

    @classmethod
    def from_state(
        cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> AndersonRubinLine:
        """Curve from what `state` gave."""
        return cls(LineRegion.from_arrays(arrays))
