"""Columns of the sieve estimator and their sums over rows, which C++ makes in few passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

__all__ = ["FirstStage", "InfluenceTerms", "ModelRows", "first_stage", "interactions"]

INSTRUMENT_FUNCTIONS = (12, 8, 5, 3)
"""Numbers of functions of the instrument, of which the largest that the data support is used."""
STRENGTH_PER_FUNCTION = 20.0
"""Least n R2 / (K - 1) that supports K functions."""
MOST_LEVELS = 14
"""An instrument of at most this many values has one function a value."""
RESIDUAL_FUNCTIONS = 10
PREDICTION_FUNCTIONS = 8
_RIDGE = 1e-9


def standardised(values: Float, weight: Float | None) -> tuple[float, float, Float]:
    """Weighted mean and standard deviation (divisor n), and (values - mean) / deviation.

    What does not vary becomes zeros.
    """
    mean = float(np.average(values, weights=weight))
    centred = values - mean
    deviation = float(np.sqrt(np.average(centred * centred, weights=weight)))
    centred /= deviation if deviation > 0 else 1.0
    return mean, deviation, centred


def inverse_of(matrices: Float) -> Float:
    """Inverse of a matrix, or of each of several."""
    return np.asarray(np.linalg.inv(matrices), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class FirstStage:
    """The exposure as a function of the instrument and covariates, all standardised.

    Attributes
    ----------
    x, y, z : ndarray of float64, shape: (n,)
        Exposure, outcome and instrument (score), of mean 0 and standard deviation 1.
    x_law, y_law : (float, float)
        Mean and standard deviation.
    covariates : ndarray of float64, shape: (n, q), or None
        Standardised.
    covariate_means, covariate_sds : ndarray of float64, shape: (q,)
    weight : ndarray of float64, shape: (n,), or None
    order, starts : ndarray of int64, or None
        Rows of a cluster one after the other, and where each cluster begins.
    basis : str
        Functions of z: "spline", "levels" or "powers".
    spline : BSpline or None
    levels : ndarray of float64 or None
    functions : int
        Their number, K.
    gram_inverse : ndarray of float64, shape: (K + q, K + q)
        Of the instrument columns.
    coefficients : ndarray of float64, shape: (K + q,)
    prediction : ndarray of float64, shape: (n,)
        Instrument's part of the fit, standardised.
    residual : ndarray of float64, shape: (n,)
        Over its standard deviation `residual_sd`.
    f_statistic, r_squared : float
        Of the K - 1 functions of the instrument, given covariates.
    linear_f_statistic : float
        Of the instrument along a line.
    nonlinear_p_value : float
        That the exposure depends on the instrument along a line.
    clustered_f_statistic : float or None
        Of the K - 1 functions, with a variance by clusters.
    """

    x: Float
    y: Float
    z: Float
    x_law: tuple[float, float]
    y_law: tuple[float, float]
    covariates: Float | None
    covariate_means: Float
    covariate_sds: Float
    weight: Float | None
    order: NDArray[np.int64] | None
    starts: NDArray[np.int64] | None
    basis: str
    spline: BSpline | None
    levels: Float | None
    functions: int
    gram_inverse: Float
    coefficients: Float
    prediction: Float
    residual: Float
    residual_sd: float
    f_statistic: float
    r_squared: float
    linear_f_statistic: float
    nonlinear_p_value: float
    clustered_f_statistic: float | None
    n_threads: int

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.x)

    @property
    def q(self) -> int:
        """Number of covariates."""
        return 0 if self.covariates is None else int(self.covariates.shape[1])


def _spline_arrays(spline: BSpline | None) -> tuple[Float, Float] | None:
    return None if spline is None else (spline.breakpoints, spline.pieces)


def first_stage(data: IVData, score: Float, *, n_threads: int = 1) -> FirstStage:
    """Regress the exposure on functions of the instrument and covariates.

    The number of functions is the largest of 12, 8, 5 and 3 with n R2 / (K - 1) of at least 20:
    more functions of a weak instrument would themselves be many weak instruments.

    Parameters
    ----------
    data : IVData
    score : ndarray of float64, shape: (n,)
        Instrument, see `instrument_score`.
    n_threads : int

    Returns
    -------
    FirstStage

    Raises
    ------
    InvalidInputError
        The exposure is an exact function of instruments and covariates.
    """
    from scipy.special import fdtrc

    from mrfast import _core

    weight, n = data.sample_weight, data.n
    x_mean, x_sd, x = standardised(data.exposure, weight)
    y_mean, y_sd, y = standardised(data.outcome, weight)
    z = standardised(score, weight)[2]
    means, sds, covariates = np.empty(0), np.empty(0), None
    if data.covariates is not None and data.q:
        laws = [standardised(np.ascontiguousarray(column), weight) for column in data.covariates.T]
        means, sds = np.array([law[0] for law in laws]), np.array([law[1] or 1.0 for law in laws])
        covariates = np.column_stack([law[2] for law in laws])
    q = len(means)
    levels = _few_levels(z)
    # Weights that differ leave the precision of fewer people.
    people = n if weight is None else float(weight.sum() ** 2 / (weight * weight).sum())
    for count in INSTRUMENT_FUNCTIONS if levels is None else (len(levels),):
        spline = BSpline(quantile_breakpoints(z, count)) if levels is None and count > 3 else None
        basis = "levels" if levels is not None else ("powers" if spline is None else "spline")
        rows = _core.sieve.SieveRows(
            exposure=x,
            instrument=z,
            basis=basis,
            basis_spline=_spline_arrays(spline),
            levels=levels,
            covariates=covariates,
            weight=weight,
        )
        gram = rows.first_stage_gram(threads=n_threads)
        K = len(gram) - 1 - q
        inner = gram[:-1, :-1] + _RIDGE * n / K * np.eye(K + q)
        inverse = inverse_of(inner)
        coefficients = inverse @ gram[:-1, -1]
        unexplained = float(n - coefficients @ (2 * gram[:-1, -1] - gram[:-1, :-1] @ coefficients))
        if unexplained < 1e-10 * n:
            raise check.fail(
                "exposure",
                "one that the instruments do not determine",
                "an exact function of instruments and covariates",
            )
        without, linear = _restricted(gram, K, n, levels, spline, basis)
        r_squared = max(without - unexplained, 0.0) / n
        degrees = max(people - K - q, 1.0)
        f_statistic = people * r_squared / max(K - 1, 1) / (people * unexplained / n / degrees)
        if people * r_squared / max(K - 1, 1) >= STRENGTH_PER_FUNCTION:
            break
    fit, residual = rows.first_stage_values(coefficients=coefficients, threads=n_threads)
    prediction = standardised(fit, weight)[2]
    residual_sd = float(np.sqrt(np.average(residual * residual, weights=weight)))
    residual -= np.average(residual, weights=weight)
    residual /= residual_sd
    nonlinear = np.nan
    if K > 2:
        ratio = people * (linear - unexplained) / n / (K - 2)
        nonlinear = float(
            fdtrc(K - 2, degrees, max(ratio / (people * unexplained / n / degrees), 0.0))
        )
    order = starts = clustered = None
    if data.clusters is not None:
        order = np.argsort(data.clusters, kind="stable").astype(np.int64)
        starts = np.searchsorted(
            data.clusters[order], np.arange(int(data.clusters.max()) + 2)
        ).astype(np.int64)
        starts = np.unique(starts)  # codes without rows
        clustered = _clustered_f(
            data.clusters,
            z,
            levels,
            covariates,
            weight,
            residual * residual_sd,
            inverse,
            coefficients,
            n_threads,
        )
    return FirstStage(
        x=x,
        y=y,
        z=z,
        x_law=(x_mean, x_sd),
        y_law=(y_mean, y_sd),
        covariates=covariates,
        covariate_means=means,
        covariate_sds=sds,
        weight=weight,
        order=order,
        starts=starts,
        basis=basis,
        spline=spline,
        levels=levels,
        functions=K,
        gram_inverse=inverse,
        coefficients=coefficients,
        prediction=prediction,
        residual=residual,
        residual_sd=residual_sd,
        f_statistic=float(f_statistic),
        r_squared=float(r_squared),
        linear_f_statistic=float(people * (without - linear) / linear),
        nonlinear_p_value=nonlinear,
        clustered_f_statistic=clustered,
        n_threads=n_threads,
    )


def _clustered_f(
    clusters: NDArray[np.int64],
    z: Float,
    levels: Float | None,
    covariates: Float | None,
    weight: Float | None,
    residual: Float,
    inverse: Float,
    coefficients: Float,
    n_threads: int,
) -> float:
    from mrfast.nonlinear.control_residual import clustered_f_statistic, score_functions
    from mrfast.nonlinear.sparse_rows import SparseRows

    q = 0 if covariates is None else covariates.shape[1]
    K = len(coefficients) - q
    blocks = [score_functions(z, K, levels, z)]
    if covariates is not None:
        blocks.append(SparseRows.dense(covariates))
    rows = SparseRows.beside(blocks)
    left = residual if weight is None else weight * residual
    constant = np.eye(K)[0] if levels is None and K == 3 else np.ones(K)
    return clustered_f_statistic(
        rows.times(left), inverse, coefficients, constant, clusters, n_threads
    )


def _few_levels(z: Float) -> Float | None:
    """Distinct values where there are few of them."""
    start = np.unique(z[:1000])
    if len(start) > MOST_LEVELS:
        return None
    levels = np.unique(z)
    return levels if len(levels) <= MOST_LEVELS else None


def _restricted(
    gram: Float, K: int, n: int, levels: Float | None, spline: BSpline | None, basis: str
) -> tuple[float, float]:
    """Sums of squares of the exposure that covariates, and they and a line in z, leave."""
    if basis == "levels":
        assert levels is not None
        line = levels
    else:
        line = np.array([0.0, 1.0, 0.0]) if spline is None else spline.greville
    constant = np.array([1.0, 0.0, 0.0]) if basis == "powers" else np.ones(K)
    q = len(gram) - 1 - K
    designs = np.zeros((2 + q, K + q))
    designs[0, :K], designs[-1, :K] = constant, line
    designs[1 : 1 + q, K:] = np.eye(q)

    def left(rows: Float) -> float:
        inner = rows @ gram[:-1, :-1] @ rows.T
        right = rows @ gram[:-1, -1]
        return float(gram[-1, -1] - right @ np.linalg.lstsq(inner, right, rcond=1e-12)[0])

    return left(designs[:-1]), left(designs)


def interactions(level: int, splines: range) -> list[tuple[int, int]]:
    """Columns v^power g(z) that a level of the ladder adds, as (power, number of g).

    Numbers of g: 0 for z, 1 for z^2 - 1, 2 + j for function j of a spline of z.
    """
    functions = [2 + j for j in splines]
    return {
        0: [],
        1: [(1, 0), (1, 1), (2, 0)],
        2: [*((1, g) for g in functions), (2, 1), (3, 0)],
        3: [*((2, g) for g in functions), (3, 1), (4, 0)],
    }[level]


@dataclass(frozen=True, eq=False)
class InfluenceTerms:
    """What the influence of a row on the score is made of, see `ModelRows.influence_gram`."""

    coefficients: Float
    within_weight: float
    offset: float
    between: Float
    within: Float
    first_stage: Float


class ModelRows:
    """Columns of one level of the ladder, and the sums over rows that its fit needs.

    Model columns are, in this order: splines of the exposure, covariates, splines of the
    residual (all of them: their constant direction is taken out of the sums), interactions of
    levels 1 to `level`, and those of the level above, which only the test of the level has.

    Parameters
    ----------
    stage : FirstStage
    exposure_spline, residual_spline : BSpline
    level : int or None
        None: the between equation alone.
    """

    def __init__(
        self,
        stage: FirstStage,
        exposure_spline: BSpline,
        residual_spline: BSpline | None,
        level: int | None,
    ) -> None:
        from mrfast import _core

        self.stage = stage
        self.n_exposure = exposure_spline.n_functions
        self.n_residual = (
            0 if residual_spline is None or level is None else (residual_spline.n_functions)
        )
        self.own: list[tuple[int, int]] = []
        self.next: list[tuple[int, int]] = []
        prediction_spline = None
        if level is not None:
            splines = range(0)
            if level >= 1 and not (stage.levels is not None and len(stage.levels) <= 4):
                prediction_spline = BSpline(
                    quantile_breakpoints(stage.prediction, PREDICTION_FUNCTIONS)
                )
                splines = range(2, prediction_spline.n_functions - 1)
            for below in range(1, level + 1):
                self.own += interactions(below, splines)
            if level < 3:
                self.next = interactions(level + 1, splines)
        self._rows = _core.sieve.SieveRows(
            exposure=stage.x,
            instrument=stage.z,
            basis=stage.basis,
            basis_spline=_spline_arrays(stage.spline),
            levels=stage.levels,
            covariates=stage.covariates,
            weight=stage.weight,
            outcome=stage.y,
            exposure_spline=_spline_arrays(exposure_spline),
            residual=None if level is None else stage.residual,
            residual_spline=None if level is None else _spline_arrays(residual_spline),
            prediction=None if level is None else stage.prediction,
            prediction_spline=_spline_arrays(prediction_spline),
            interactions=self.own + self.next,
        )

    @property
    def columns(self) -> int:
        """Number of model columns."""
        return self._rows.model_columns

    def gram(self) -> Float:
        """Sums of products of model columns, instrument columns and the outcome."""
        return self._rows.model_gram(threads=self.stage.n_threads)

    def curve_residuals(self, coefficients: Float) -> Float:
        """Outcome less exposure splines and covariates times coefficients: (n,)."""
        return self._rows.curve_residuals(
            coefficients=np.ascontiguousarray(coefficients), threads=self.stage.n_threads
        )

    def slope_sums(self, coefficients: Float) -> tuple[Float, Float]:
        """Sums of lambda'(v, z) r b' over rows, and of v^2 b and v^4.

        r are the model columns and then the instrument columns, b the instrument columns.
        """
        return self._rows.slope_sums(
            coefficients=np.ascontiguousarray(coefficients), threads=self.stage.n_threads
        )

    def influence_gram(self, terms: InfluenceTerms) -> Float:
        """Sum over rows, or clusters of rows, of the influence times itself."""
        return self._rows.influence_gram(
            coefficients=np.ascontiguousarray(terms.coefficients),
            within_weight=terms.within_weight,
            offset=terms.offset,
            between=np.ascontiguousarray(terms.between),
            within=np.ascontiguousarray(terms.within),
            first_stage=np.ascontiguousarray(terms.first_stage),
            order=self.stage.order,
            starts=self.stage.starts,
            threads=self.stage.n_threads,
        )
