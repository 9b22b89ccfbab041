"""Sieve curves whose dimension the data choose, with bands that stay honest after the choice.

Chen, Christensen and Kankanala compare the curves of all pairs of dimensions, take the smallest
dimension that no larger one contradicts, and widen the band of its curve so that it covers over
whole classes of smooth functions. `fit_npiv_cck` does this for series two-stage least squares,
which asks nothing of the first stage; `fit_series_control_function` for a regression on series in
the exposure and in the residual of its first stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._runtime import generator, symmetric_eigen, thread_count
from mrfast._validation import Float
from mrfast.nonlinear.control_residual import (
    Columns,
    control_residual,
    distinct_levels,
    standardised,
)
from mrfast.nonlinear.cross_fitted_score import instrument_score
from mrfast.nonlinear.estimator import Fit
from mrfast.nonlinear.fitted_curve import LinearCurve
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.sparse_rows import (
    SparseRows,
    cluster_outer_sum,
    cross_sum,
    gram,
    row_products,
    row_sum,
)
from mrfast.nonlinear.splines import QUANTILE_ROWS, BSpline, quantile_breakpoints

__all__ = [
    "BandOptions",
    "HonestCurve",
    "Selection",
    "fit_npiv_cck",
    "fit_series_control_function",
    "select_dimension",
]

DIMENSIONS = (4, 5, 7, 11, 19, 35)  # of cubic B-splines with 1, 2, 4, ... pieces
THRESHOLD = 1.1  # times the quantile of the comparisons
_RESIDUAL_FUNCTIONS = 10
_GRID = 200


class BandOptions(Protocol):
    """Options of an estimator that the fits of this module use."""

    n_draws: int
    folds: int
    rng: Any
    n_threads: int | None


class HonestCurve(LinearCurve):
    """Curve of the chosen dimension; its uniform bands allow for the choice.

    Parameters
    ----------
    breakpoints : ndarray (m,)
        Of the finest splines, in which the curves of all dimensions are written.
    coefficients : ndarray (k,)
        Of the splines and of the covariates less their means.
    covariance : ndarray (k, k)
    draws : ndarray (d, b, k)
        Deviations of d dimensions together, from their joint law.
    covariances : ndarray (d, k, k)
        Of those dimensions.
    allowance : float
        Added to the quantile of the largest standardised deviation.
    covariate_means : ndarray (q,)
    central : (float, float)

    References
    ----------
    Chen X, Christensen T, Kankanala S. Adaptive estimation and uniform confidence bands for
    nonparametric structural functions and elasticities. Review of Economic Studies, 2025.
    doi:10.1093/restud/rdae025
    """

    kind: ClassVar[str] = "honest_sieve"

    def __init__(
        self,
        breakpoints: Float,
        coefficients: Float,
        covariance: Float,
        draws: Float,
        covariances: Float,
        allowance: float,
        covariate_means: Float,
        central: tuple[float, float],
    ) -> None:
        super().__init__(coefficients, covariance, draws, central)
        self.spline = BSpline(breakpoints)
        self.covariances = np.asarray(covariances, dtype=np.float64)
        self.allowance = float(allowance)
        self.covariate_means = np.asarray(covariate_means, dtype=np.float64)

    def basis(self, x: Float, covariates: Float | None) -> Float:
        """Splines at `x` and covariates less their means, see `LinearCurve.basis`."""
        others = np.zeros((len(x), len(self.covariate_means)))
        if covariates is not None:
            others = covariates - self.covariate_means
        return np.concatenate([self.spline.values(x), others], axis=1)

    def critical_value(self, rows: Float, level: float) -> float:
        """Quantile of the largest deviation over functionals and dimensions, and the allowance."""
        largest = np.zeros(self.draws.shape[1])
        for deviations, covariance in zip(self.draws, self.covariances, strict=True):
            np.maximum(largest, _largest(rows, deviations, covariance), out=largest)
        return float(np.quantile(largest, level)) + self.allowance

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What `from_state` needs; nothing of single people."""
        return {"allowance": self.allowance, "central": list(self.central)}, {
            "breakpoints": self.spline.breakpoints,
            "coefficients": self.coefficients,
            "covariance": self.covariance,
            "draws": self.draws,
            "covariances": self.covariances,
            "covariate_means": self.covariate_means,
        }

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state that `state` gave."""
        low, high = values["central"]
        return cls(**arrays, allowance=values["allowance"], central=(low, high))


@dataclass(frozen=True, eq=False)
class Selection:
    """Choice of a dimension.

    Attributes
    ----------
    chosen : int
        Position of the dimension among those compared.
    in_band : tuple of int
        Positions of the dimensions over which the band's quantile is taken.
    threshold : float
        Quantile of the largest standardised comparison under equality, not multiplied by 1.1.
    allowance : float
        What is added to the critical value of the band.
    """

    chosen: int
    in_band: tuple[int, ...]
    threshold: float
    allowance: float


def select_dimension(
    dimensions: Sequence[int],
    coefficients: Float,
    covariance: Float,
    draws: Float,
    rows: Float,
) -> Selection:
    """Smallest dimension whose curve no larger one contradicts, after Lepski.

    Parameters
    ----------
    dimensions : sequence of int
        Ascending, d of them.
    coefficients : ndarray (d, k)
        Of all curves, in one basis.
    covariance : ndarray (d, k, d, k)
    draws : ndarray (d, b, k)
        Deviations from their joint law.
    rows : ndarray (m, k)
        The basis at the points of comparison.

    Returns
    -------
    Selection
    """
    last = len(dimensions) - 1
    if last == 0:
        return Selection(0, (0,), 0.0, 0.0)
    largest_dimension = dimensions[last]
    alpha = min(0.5, float(np.sqrt(np.log(largest_dimension) / largest_dimension)))
    supremum = np.zeros(draws.shape[1])
    contradiction = np.zeros(last)  # largest comparison of each with larger ones
    for small in range(last):
        for large in range(small + 1, last + 1):
            of_difference = (
                covariance[small, :, small]
                + covariance[large, :, large]
                - covariance[small, :, large]
                - covariance[large, :, small]
            )
            deviations = draws[small] - draws[large]
            np.maximum(supremum, _largest(rows, deviations, of_difference), out=supremum)
            difference = (coefficients[small] - coefficients[large])[None]
            found = float(_largest(rows, difference, of_difference)[0])
            contradiction[small] = max(contradiction[small], found)
    threshold = float(np.quantile(supremum, 1 - alpha))
    accepted = np.flatnonzero(contradiction <= THRESHOLD * threshold)
    below_largest = last - 1
    first = int(accepted[0]) if accepted.size else last
    chosen = min(first, below_largest)
    # The choice of the largest but one may be the end of the list rather than a choice.
    in_band = range(max(below_largest, 1)) if chosen < below_largest else range(last + 1)
    allowance = max(float(np.log(np.log(dimensions[chosen]))), 0.0) * threshold
    return Selection(chosen, tuple(in_band), threshold, allowance)


def fit_npiv_cck(data: IVData, options: BandOptions) -> Fit:
    """Series two-stage least squares of the dimension that the data choose.

    E[Y - f(X) - C'b | Z, C] = 0, with Z the score of the instruments. A curve of J cubic
    B-splines has the J - 3 pieces doubled for the instrument's functions.

    Parameters
    ----------
    data : IVData
    options : BandOptions

    Returns
    -------
    Fit

    Raises
    ------
    InvalidInputError
        The instrument has too few values to tell curves apart.
    """
    threads = thread_count(options.n_threads)
    weight, x, y, covariates, score = _standardised_data(data, options, threads)
    if distinct_levels(score, 10) is not None:
        raise check.fail(
            "instruments",
            "a score of more than 10 values for method='npiv-cck' (use 'auto' or 'series-cf')",
            f"{len(np.unique(score))} values",
        )
    exposure_spline, exposure_maps = _nested_splines(x.values, DIMENSIONS)
    score_spline, score_maps = _nested_splines(score, [2 * (j - 3) + 3 for j in DIMENSIONS])
    dimensions = DIMENSIONS[: min(len(exposure_maps), len(score_maps))]
    regressors = SparseRows.beside(
        [SparseRows.of_spline(exposure_spline, x.values), SparseRows.dense(covariates)]
    )
    instruments = SparseRows.beside(
        [SparseRows.of_spline(score_spline, score), SparseRows.dense(covariates)]
    )
    q = covariates.shape[1]
    cross = cross_sum(regressors, instruments, weight, threads)
    square = gram(instruments, weight, threads)
    of_exposure = gram(regressors, weight, threads)
    with_outcome = row_sum(instruments, weight * y.values, threads)
    maps, projections, strengths = [], [], []
    for exposure_map, score_map in zip(exposure_maps, score_maps, strict=False):
        left, right = _with_covariates(exposure_map, q), _with_covariates(score_map, q)
        inner = left.T @ cross @ right
        inverse = _pseudo_inverse(right.T @ square @ right)
        explained = inner @ inverse @ inner.T
        own = left.T @ of_exposure @ left
        strengths.append(_smallest_correlation(explained, own))
        projections.append(_pseudo_inverse(explained) @ inner @ inverse @ right.T)
        maps.append(left)
    count = _largest_dimension(dimensions, strengths, data.n) + 1
    solutions = [m @ (a @ with_outcome) for m, a in zip(maps[:count], projections, strict=False)]
    scores = [
        instruments.times(weight * (y.values - row_products(regressors, solution, threads)))
        for solution in solutions
    ]
    meat = cluster_outer_sum(SparseRows.beside(scores), data.clusters, threads)
    width = instruments.width
    influence = np.zeros((count, regressors.width, count * width))
    for j in range(count):
        influence[j, :, j * width : (j + 1) * width] = maps[j] @ projections[j]
    messages: tuple[str, ...] = ()
    if strengths[0] == 0 or not _estimable(dimensions[0], strengths[0], data.n):
        messages = (
            "The instrument hardly tells cubic curves apart: the band of the smallest dimension "
            "is reported, and says little.",
        )
    return _honest_fit(
        data,
        options,
        (x, y),
        exposure_spline,
        dimensions[:count],
        np.array(solutions),
        influence,
        meat,
        {"ill_posedness": [_inverse_of(s) for s in strengths[:count]]},
        messages,
    )


def fit_series_control_function(data: IVData, options: BandOptions) -> Fit:
    """Regression on series in the exposure and in the residual of its first stage.

    Y = f(X) + lambda(V) + C'b + e with V the exposure less its regression on functions of the
    score and on the covariates. Standard errors allow for the first stage.

    Parameters
    ----------
    data : IVData
    options : BandOptions

    Returns
    -------
    Fit

    Raises
    ------
    InvalidInputError
        The instruments are too weak for a curve.

    References
    ----------
    Newey WK, Powell JL, Vella F. Nonparametric estimation of triangular simultaneous equations
    models. Econometrica, 1999. doi:10.1111/1468-0262.00037
    """
    threads = thread_count(options.n_threads)
    weight, x, y, covariates, score = _standardised_data(data, options, threads)
    exogenous = Columns.all_of(SparseRows.dense(covariates)) if data.q else None
    stage = control_residual(
        data.exposure, score, weight, threads, exogenous, clusters=data.clusters
    )
    residual = stage.residual / stage.spread
    exposure_spline, exposure_maps = _nested_splines(x.values, DIMENSIONS)
    dimensions = DIMENSIONS[: len(exposure_maps)]
    residual_spline = BSpline(quantile_breakpoints(residual, _RESIDUAL_FUNCTIONS))
    of_residual = SparseRows.of_spline(residual_spline, residual)
    p, r, q = exposure_spline.n_functions, residual_spline.n_functions, covariates.shape[1]
    design = SparseRows.beside(
        [SparseRows.of_spline(exposure_spline, x.values), of_residual, SparseRows.dense(covariates)]
    )
    square = gram(design, weight, threads)
    with_outcome = row_sum(design, weight * y.values, threads)
    # A constant is in the curve, so that lambda has none: its mean over people is 0.
    contrast = np.linalg.svd(np.ones((1, r)))[2][1:].T
    means = row_sum(of_residual, weight, threads) / weight.sum()
    maps, of_curve, inverses, strengths = [], [], [], []
    for exposure_map in exposure_maps:
        size = exposure_map.shape[1]
        left = np.zeros((design.width, size + r - 1 + q))
        left[:p, :size] = exposure_map
        left[:p, size : size + r - 1] = -(means @ contrast)
        left[p : p + r, size : size + r - 1] = contrast
        left[p + r :, size + r - 1 :] = np.eye(q)
        own = left.T @ square @ left
        rest = own[:size, size:] @ _pseudo_inverse(own[size:, size:]) @ own[size:, :size]
        strengths.append(_smallest_correlation(own[:size, :size] - rest, own[:size, :size]))
        inverses.append(_pseudo_inverse(own))
        maps.append(left)
        curve = np.zeros((p + q, left.shape[1]))
        curve[:p, :size] = exposure_map
        curve[p:, size + r - 1 :] = np.eye(q)
        of_curve.append(curve)
    count = _largest_dimension(dimensions, strengths, data.n) + 1
    solutions = [a @ (m.T @ with_outcome) for m, a in zip(maps[:count], inverses, strict=False)]
    slopes = SparseRows.of_spline(residual_spline, residual, 1)
    scores, first_stage = [], []
    for j, solution in enumerate(solutions):
        fitted = maps[j] @ solution
        error = y.values - row_products(design, fitted, threads)
        slope = row_products(slopes, fitted[p : p + r], threads) / stage.spread
        scores.append(design.times(weight * error))
        first_stage.append(cross_sum(design, stage.rows, weight * slope, threads))
    scores.append(stage.rows.times(weight * stage.residual))
    meat = cluster_outer_sum(SparseRows.beside(scores), data.clusters, threads)
    width = design.width
    influence = np.zeros((count, p + q, count * width + stage.rows.width))
    for j in range(count):
        solver = of_curve[j] @ inverses[j] @ maps[j].T
        influence[j, :, j * width : (j + 1) * width] = solver
        influence[j, :, count * width :] = solver @ first_stage[j] @ stage.inverse
    return _honest_fit(
        data,
        options,
        (x, y),
        exposure_spline,
        dimensions[:count],
        np.array([m @ a for m, a in zip(of_curve, solutions, strict=False)]),
        influence,
        meat,
        {
            "inverse_strength": [_inverse_of(s) for s in strengths[:count]],
            **stage.diagnostics,
        },
        stage.messages,
    )


# ------------------------------------------------------------------------------ pieces


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A variable less its mean, over its standard deviation."""

    values: Float
    mean: float
    spread: float


def _standardised_data(
    data: IVData, options: BandOptions, threads: int
) -> tuple[Float, _Scaled, _Scaled, Float, Float]:
    """Weights, exposure, outcome, covariates (n, q) and the score of the instruments."""
    weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
    covariates = np.empty((data.n, 0))
    if data.covariates is not None:
        covariates = standardised(data.covariates, weight)[0]
    found = instrument_score(
        data.instruments,
        data.exposure,
        data.covariates,
        weight=data.sample_weight,
        clusters=data.clusters,
        folds=options.folds,
        rng=generator(options.rng),
        n_threads=threads,
    )
    x, y = (
        _Scaled(values, float(mean), float(spread))
        for values, mean, spread in (
            standardised(data.exposure, weight),
            standardised(data.outcome, weight),
        )
    )
    return weight, x, y, covariates, standardised(found.values, weight)[0]


def _nested_splines(values: Float, sizes: Sequence[int]) -> tuple[BSpline, list[Float]]:
    """Finest splines, and the coarser ones as combinations of them.

    Splines of 1, 2, 4, ... pieces with knots at quantiles are nested. Sizes stop where quantiles
    coincide.
    """
    sample = values[:: -(-values.size // QUANTILE_ROWS)]
    splines: list[BSpline] = []
    for size in sizes:
        inner = np.quantile(sample, np.arange(1, size - 3) / (size - 3))
        points = np.concatenate([[values.min()], inner, [values.max()]])
        if not (np.diff(points) > 0).all():
            break
        splines.append(BSpline(points))
    if not splines:
        raise check.fail("exposure", "values that differ enough for a curve", "almost constants")
    finest = splines[-1]
    steps = np.diff(finest.breakpoints)[:, None] * np.array([0.1, 0.4, 0.6, 0.9])
    points = (finest.breakpoints[:-1, None] + steps).ravel()
    table = finest.values(points)
    maps: list[Float] = [
        np.asarray(np.linalg.lstsq(table, each.values(points), rcond=None)[0], dtype=np.float64)
        for each in splines
    ]
    return finest, maps


def _with_covariates(matrix: Float, q: int) -> Float:
    """The matrix and an identity of size q on one diagonal."""
    full = np.zeros((matrix.shape[0] + q, matrix.shape[1] + q))
    full[: matrix.shape[0], : matrix.shape[1]] = matrix
    full[matrix.shape[0] :, matrix.shape[1] :] = np.eye(q)
    return full


def _pseudo_inverse(matrix: Float) -> Float:
    values, vectors = symmetric_eigen(matrix)
    used = values > 1e-12 * values.max()
    return np.asarray((vectors[:, used] / values[used]) @ vectors[:, used].T)


def _smallest_correlation(explained: Float, own: Float) -> float:
    """Smallest share of a function's size that is left, the square root of an eigenvalue."""
    values, vectors = symmetric_eigen(own)
    used = values > 1e-10 * values.max()
    root = vectors[:, used] / np.sqrt(values[used])
    return float(np.sqrt(max(symmetric_eigen(root.T @ explained @ root)[0].min(), 0.0)))


def _inverse_of(strength: float) -> float:
    return 1 / strength if strength > 0 else float("inf")


def _estimable(dimension: int, strength: float, n: int) -> bool:
    """Whether the noise of that dimension is not beyond control: J sqrt(log J) / s <= 10 sqrt n."""
    return bool(dimension * np.sqrt(np.log(dimension)) <= 10 * np.sqrt(n) * strength)


def _largest_dimension(dimensions: Sequence[int], strengths: Sequence[float], n: int) -> int:
    """Position of the largest dimension to compare."""
    last = 0
    for position, (dimension, strength) in enumerate(zip(dimensions, strengths, strict=True)):
        if not _estimable(dimension, strength, n):
            break
        last = position
    return last


def _honest_fit(
    data: IVData,
    options: BandOptions,
    scaled: tuple[_Scaled, _Scaled],
    spline: BSpline,
    dimensions: Sequence[int],
    solutions: Float,
    influence: Float,
    meat: Float,
    diagnostics: dict[str, Any],
    messages: tuple[str, ...],
) -> Fit:
    """Choose the dimension; put curves (d, k) on the scale of the data."""
    x, y = scaled
    d, k = solutions.shape
    covariance = np.empty((d, k, d, k))
    for i in range(d):
        half = np.einsum("ka,ab->kb", influence[i], meat)
        for j in range(d):
            covariance[i, :, j] = np.einsum("kb,lb->kl", half, influence[j])
    draws = _normal_draws(covariance.reshape(d * k, d * k), options.n_draws, generator(options.rng))
    deviations = np.ascontiguousarray(np.moveaxis(draws.reshape(-1, d, k), 1, 0))
    low, high = data.exposure_quantiles(0.025, 0.975)
    points = np.linspace((low - x.mean) / x.spread, (high - x.mean) / x.spread, _GRID)
    rows = np.zeros((_GRID, k))
    rows[:, : spline.n_functions] = spline.values(points)
    selection = select_dimension(dimensions, solutions, covariance, deviations, rows)
    # On the scale of the data; splines sum to one, so that a constant goes to each of them.
    scale = np.full(k, y.spread)
    means = np.empty(0)
    if data.covariates is not None:
        weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
        _, means, spreads = standardised(data.covariates, weight)
        scale[spline.n_functions :] /= spreads
    coefficients = solutions[selection.chosen] * scale
    coefficients[: spline.n_functions] += y.mean
    band = list(selection.in_band)
    sandwich = covariance * scale[:, None, None] * scale
    curve = HonestCurve(
        spline.breakpoints * x.spread + x.mean,
        coefficients,
        sandwich[selection.chosen, :, selection.chosen],
        deviations[band] * scale,
        np.stack([sandwich[j, :, j] for j in band]),
        selection.allowance,
        means,
        (low, high),
    )
    return Fit(
        curve,
        {
            "dimension": dimensions[selection.chosen],
            "dimensions": list(dimensions),
            "comparison_quantile": selection.threshold,
            "band_allowance": selection.allowance,
            **diagnostics,
        },
        messages,
    )


def _normal_draws(covariance: Float, count: int, rng: np.random.Generator) -> Float:
    """Draws (count, k) from the normal law of mean 0."""
    values, vectors = symmetric_eigen(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    draws: Float = np.einsum("bk,jk->bj", rng.standard_normal((count, len(values))), root)
    return draws


def _largest(rows: Float, deviations: Float, covariance: Float) -> Float:
    """Largest standardised |functional| of each deviation (b, k), over rows (m, k): (b,)."""
    variance = np.einsum("mk,kl,ml->m", rows, covariance, rows)
    used = variance > 1e-12 * max(float(variance.max()), 0.0)
    largest = np.zeros(len(deviations))
    if not used.any() or not variance.max() > 0:
        return largest
    for row in rows[used] / np.sqrt(variance[used, None]):
        np.maximum(largest, np.abs(np.einsum("bk,k->b", deviations, row)), out=largest)
    return largest
