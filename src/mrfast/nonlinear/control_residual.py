"""First stage of a control function: the exposure on functions of its instruments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.sieve_algebra import inverse_of
from mrfast.nonlinear.sparse_rows import (
    SparseRows,
    cluster_outer_sum,
    gram,
    row_products,
    row_sum,
)
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints
from mrfast.nonlinear.weak_instruments import (
    FEWEST_F,
    WARNING_F,
    WeakInstrumentsError,
    usable_f_statistic,
)

__all__ = [
    "Columns",
    "ControlResidual",
    "clustered_f_statistic",
    "control_residual",
    "distinct_levels",
    "score_functions",
    "score_of",
    "standardised",
]

_SIZES = (12, 8, 5, 3)
_LEVELS = 14


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of a regression: linear combinations of sparse ones.

    Attributes
    ----------
    rows : SparseRows
    restriction : ndarray (rows.width, count)
        The columns are the rows times this.
    """

    rows: SparseRows
    restriction: Float

    @property
    def count(self) -> int:
        """Number of columns."""
        return int(self.restriction.shape[1])

    @classmethod
    def all_of(cls, rows: SparseRows) -> Columns:
        """The sparse columns themselves."""
        return cls(rows, np.eye(rows.width))

    @classmethod
    def beside(cls, blocks: Sequence[Columns | None]) -> Columns:
        """Blocks of columns next to each other."""
        given = [block for block in blocks if block is not None]
        restriction = np.zeros(
            (sum(block.rows.width for block in given), sum(block.count for block in given))
        )
        row = column = 0
        for block in given:
            width, count = block.restriction.shape
            restriction[row : row + width, column : column + count] = block.restriction
            row, column = row + width, column + count
        return cls(SparseRows.beside([block.rows for block in given]), restriction)


@dataclass(frozen=True, eq=False)
class ControlResidual:
    """The exposure's regression on instruments and covariates, and what is left of it.

    Attributes
    ----------
    exposure, score : ndarray of float64 (n,)
        Standardised; the score is what the instruments say of the exposure.
    location, scale : float
        Mean and standard deviation of the exposure.
    rows : SparseRows
        Functions of the score, then exogenous columns and further instruments.
    inverse : ndarray (K, K)
        Such that ``inverse @ rows' w y`` are the coefficients of a weighted regression on them.
    residual : ndarray of float64 (n,)
        Standardised exposure less its regression.
    spread : float
        Standard deviation of the residual.
    strength : ndarray of float64 (n,)
        Part of the regression that the instruments give, standardised.
    f_statistic, r_squared : float
        Of the functions of the score, given the covariates.
    n_functions : int
        Of the score.
    linear_f_statistic : float
        Of the score alone.
    nonlinear_p_value : float
        That the exposure depends on the score along a line; NaN where that cannot be asked.
    clustered_f_statistic : float or None
        Of the functions of the score, with a variance by clusters.
    """

    exposure: Float
    location: float
    scale: float
    score: Float
    rows: SparseRows
    inverse: Float
    residual: Float
    spread: float
    strength: Float
    f_statistic: float
    r_squared: float
    n_functions: int
    linear_f_statistic: float
    nonlinear_p_value: float
    clustered_f_statistic: float | None = None

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Strength of the first stage, by name."""
        found = {
            "first_stage_f": self.f_statistic,
            "first_stage_r_squared": self.r_squared,
            "first_stage_functions": self.n_functions,
            "first_stage_linear_f": self.linear_f_statistic,
            "first_stage_nonlinearity_p_value": self.nonlinear_p_value,
        }
        if self.clustered_f_statistic is not None:
            found["first_stage_clustered_f"] = self.clustered_f_statistic
        return found

    @property
    def usable_f(self) -> float:
        """F by which a curve is offered, see `usable_f_statistic`."""
        return usable_f_statistic(
            self.f_statistic, self.linear_f_statistic, self.clustered_f_statistic
        )

    @property
    def messages(self) -> tuple[str, ...]:
        """Said of weak instruments."""
        strength = self.usable_f
        if strength >= WARNING_F:
            return ()
        return (
            f"the first-stage F of {strength:.1f} is below {WARNING_F:.0f}: estimates are noisy "
            "and may be biased towards the observational association",
        )


def standardised(values: Float, weight: Float) -> tuple[Float, Float, Float]:
    """Columns less their weighted means, over their standard deviations; both are returned."""
    total = weight.sum()
    mean = np.einsum("n,n...->...", weight, values) / total
    centred = values - mean
    spread = np.sqrt(np.einsum("n,n...->...", weight, centred**2) / total)
    if (spread <= 1e-12 * (1 + np.abs(mean))).any():
        raise check.fail("data", "variables that vary among people of positive weight", "constants")
    return centred / spread, mean, spread


def distinct_levels(values: Float, most: int) -> Float | None:
    """Distinct values, ascending, or None if there are more than `most`."""
    if len(np.unique(values[:1000])) > most:
        return None
    levels = np.unique(values)
    return levels if len(levels) <= most else None


def score_of(data: IVData, folds: int, rng: np.random.Generator, n_threads: int) -> Float:
    """One number a person from the instruments; several are weighted by cross-fitting."""
    if data.p == 1:
        return np.asarray(data.instruments[:, 0], dtype=np.float64)
    from mrfast.nonlinear.cross_fitted_score import instrument_score

    score = instrument_score(
        data.instruments,
        data.exposure,
        data.covariates,
        weight=data.sample_weight,
        clusters=data.clusters,
        folds=folds,
        rng=rng,
        n_threads=n_threads,
    )
    return np.asarray(score.values, dtype=np.float64)


def control_residual(
    exposure: Float,
    score: Float,
    weight: Float,
    n_threads: int,
    exogenous: Columns | None = None,
    further: Columns | None = None,
    clusters: NDArray[np.int64] | None = None,
) -> ControlResidual:
    """Regress the exposure on functions of a score, exogenous columns and further instruments.

    The number of functions is the largest of 12, 8, 5 and 3 whose F statistic is at least 20, so
    that a weak instrument does not become many weak ones; a score of at most 14 values has one
    indicator a value.

    Parameters
    ----------
    exposure : ndarray (n,)
    score : ndarray (n,)
        One number a person from the instruments.
    weight : ndarray (n,)
    n_threads : int
    exogenous : Columns, optional
        Covariates; standardised.
    further : Columns, optional
        Instruments beside the functions of the score.
    clusters : ndarray of int64 (n,), optional

    Raises
    ------
    WeakInstrumentsError
        The instruments are too weak for a curve.
    """
    n = len(exposure)
    x, location, scale = standardised(exposure, weight)
    z, _, _ = standardised(score, weight)
    q = 0 if exogenous is None else exogenous.count
    levels = distinct_levels(score, _LEVELS)
    constant = Columns.all_of(SparseRows.dense(np.ones((n, 1))))
    line = Columns.all_of(SparseRows.dense(np.column_stack([np.ones(n), z])))
    null_square = _residual_square([constant, exogenous], x, weight, n_threads)
    line_square = _residual_square([line, exogenous], x, weight, n_threads)
    for size in _SIZES if levels is None else (len(levels),):
        functions = Columns.all_of(score_functions(z, size, levels, score))
        square = _residual_square([functions, exogenous], x, weight, n_threads)
        k = functions.count
        f_statistic = (null_square - square) / (k - 1) / (square / (n - k - q))
        if f_statistic >= WARNING_F:
            break
    linear = (null_square - line_square) / (line_square / (n - 2 - q))
    clustered = None
    if clusters is not None:
        alone = Columns.beside([functions, exogenous])
        inverse, coefficients = _solved(alone, x, weight, n_threads)
        left = weight * (x - row_products(alone.rows, coefficients, n_threads))
        clustered = clustered_f_statistic(
            alone.rows.times(left),
            inverse,
            coefficients,
            np.eye(k)[0] if levels is None and k == 3 else np.ones(k),
            clusters,
            n_threads,
        )
    columns = Columns.beside([functions, exogenous, further])
    inverse, coefficients = _solved(columns, x, weight, n_threads)
    residual = x - row_products(columns.rows, coefficients, n_threads)
    spread = float(np.sqrt((weight * residual**2).sum() / weight.sum()))
    from_score = row_products(functions.rows, coefficients[: functions.rows.width], n_threads)
    stage = ControlResidual(
        x,
        float(location),
        float(scale),
        z,
        columns.rows,
        inverse,
        residual,
        spread,
        standardised(from_score, weight)[0],
        float(f_statistic),
        float(1 - square / null_square),
        k,
        float(linear),
        _f_test(line_square, square, k - 2, n - k - q),
        clustered,
    )
    if stage.usable_f < FEWEST_F:
        raise WeakInstrumentsError(stage.usable_f, stage.diagnostics)
    return stage


def clustered_f_statistic(
    influence: SparseRows,
    inverse: Float,
    coefficients: Float,
    constant: Float,
    clusters: NDArray[np.int64],
    n_threads: int,
) -> float:
    """Wald statistic of the functions of a score, robust by clusters, over their number less one.

    Parameters
    ----------
    influence : SparseRows (n, k + others)
        Rows of the regression, the functions of the score first, times weight and residual.
    inverse : ndarray (k + others, k + others)
        Of the weighted products of the columns.
    coefficients : ndarray (k + others,)
    constant : ndarray (k,)
        Coefficients of the functions of the score that make a constant.
    clusters : ndarray of int64 (n,)
    n_threads : int
    """
    k, count = len(constant), len(np.unique(clusters))
    covariance = inverse @ cluster_outer_sum(influence, clusters, n_threads) @ inverse
    covariance *= count / (count - 1)
    tested = np.zeros((k - 1, len(coefficients)))
    tested[:, :k] = np.linalg.svd(constant[None])[2][1:]  # zero for multiples of the constant
    effect = tested @ coefficients
    solved = np.linalg.lstsq(tested @ covariance @ tested.T, effect, rcond=1e-10)[0]
    return float(effect @ solved) / (k - 1)


def score_functions(z: Float, size: int, levels: Float | None, score: Float) -> SparseRows:
    """Functions of the score: indicators of its levels, a parabola, or cubic B-splines."""
    if levels is not None:
        index = np.searchsorted(levels, score).astype(np.int16)[:, None]
        return SparseRows(index, np.ones((len(z), 1)), len(levels))
    if size == 3:
        return SparseRows.dense(np.column_stack([np.ones(len(z)), z, z**2]))
    return SparseRows.of_spline(BSpline(quantile_breakpoints(z, size)), z)


def _solved(columns: Columns, x: Float, weight: Float, n_threads: int) -> tuple[Float, Float]:
    """Inverse of the Gram matrix, in the rows' own columns, and coefficients of a regression."""
    back = columns.restriction
    matrix = back.T @ gram(columns.rows, weight, n_threads) @ back
    matrix[np.diag_indices_from(matrix)] += 1e-8 * len(x) / columns.count
    inverse = back @ inverse_of(matrix) @ back.T
    return inverse, inverse @ row_sum(columns.rows, weight * x, n_threads)


def _residual_square(
    blocks: list[Columns | None], x: Float, weight: Float, n_threads: int
) -> float:
    columns = Columns.beside(blocks)
    _, coefficients = _solved(columns, x, weight, n_threads)
    return float((weight * (x - row_products(columns.rows, coefficients, n_threads)) ** 2).sum())


def _f_test(larger: float, smaller: float, extra: int, left: int) -> float:
    from scipy.special import fdtrc

    if extra < 1 or left < 1:
        return float("nan")
    return float(fdtrc(extra, left, max(larger - smaller, 0.0) / extra / (smaller / left)))
