"""Causal curve that effect modifiers change: f(x) + sum_j h_j(x, M_j).

Each h_j is a tensor product of splines of the exposure and of the modifier, without main effects,
with its own smoothing parameters; the main effects of the modifiers are free. Instruments are
functions of the score, and their products with the modifiers. As for the curve without modifiers,
the equation between values of the instruments and that within them (the control function) are
weighted by the inverse of their noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from mrfast import _validation as check
from mrfast._runtime import generator, symmetric_eigen, thread_count
from mrfast._validation import Float
from mrfast.nonlinear.control_residual import (
    Columns,
    ControlResidual,
    control_residual,
    score_of,
    standardised,
)
from mrfast.nonlinear.estimator import Fit
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.modified_curve import (
    ModifiedCurve,
    ModifierBasis,
    modifier_basis,
    orthonormal,
)
from mrfast.nonlinear.sieve_algebra import curve_roughness, inverse_of, without_constant
from mrfast.nonlinear.sieve_fit import TAU_GRID, TAU_SCALE, exposure_functions, undersmoothed
from mrfast.nonlinear.sparse_rows import (
    SparseRows,
    cluster_outer_sum,
    cross_sum,
    gram,
    row_products,
    row_sum,
)
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

__all__ = ["ModifiedOptions", "fit_modified"]

_CONTROL_FUNCTIONS = 10
_INTERACTION_FUNCTIONS = 8
_POWERS = (3, 2, 1)
_STRENGTH = 20.0
_LAMBDA = (1e-6, 1e7)
_RIDGE = 1e-4
_TEST_LAMBDA = 100.0
_SAMPLES = 100
_BLOCK = 65_536


class ModifiedOptions(Protocol):
    """Options that `fit_modified` reads."""

    method: str
    penalty: str | int
    n_draws: int
    folds: int
    rng: Any
    n_threads: int | None

    @property
    def effect_modifiers(self) -> Sequence[str | int] | None:
        """Names or numbers of covariates."""


@dataclass(frozen=True, eq=False)
class _Penalties:
    """Penalties with a smoothing parameter each, and a fixed ridge.

    Attributes
    ----------
    matrices : list of ndarray (k, k)
        Of the curve, the control function, and for each modifier along the exposure and, where
        that is not a matter of levels, along the modifier; the latter are diagonal.
    groups : list of list of int
        Penalties of the same coefficients.
    ranks : list of int
        Of each group.
    ridge : ndarray (k, k)
    """

    matrices: list[Float]
    groups: list[list[int]]
    ranks: list[int]
    ridge: Float

    @cached_property
    def roots(self) -> list[Float]:
        """Matrices whose products with their transposes are the penalties, then the ridge."""
        roots = []
        for matrix in [*self.matrices, self.ridge]:
            values, vectors = symmetric_eigen(matrix)
            roots.append(vectors * np.sqrt(np.maximum(values, 0.0)))
        return roots

    @cached_property
    def _diagonals(self) -> list[tuple[list[int], Float]]:
        """Groups, and their penalties' eigenvalues in a common basis (members, directions)."""
        found = []
        for group, rank in zip(self.groups, self.ranks, strict=True):
            if len(group) == 1:
                values = symmetric_eigen(self.matrices[group[0]])[0][None]
            else:
                values = np.array([np.diag(self.matrices[j]) for j in group])
            largest = np.argsort(values.sum(axis=0))[-rank:]
            found.append((group, values[:, largest]))
        return found

    def total(self, lambdas: Float) -> Float:
        """Sum of the penalties, the ridge included."""
        matrix = self.ridge.copy()
        for value, one in zip(lambdas, self.matrices, strict=True):
            matrix += value * one
        return matrix

    def log_determinant(self, lambdas: Float) -> float:
        """Of the penalties, their null spaces left out."""
        value = 0.0
        for group, eigenvalues in self._diagonals:
            value += float(np.log(lambdas[group] @ eigenvalues).sum())
        return value

    def step(self, lambdas: Float, inverse: Float, at: Float) -> Float:
        """Fellner-Schall steps."""
        new = lambdas.copy()
        for group, eigenvalues in self._diagonals:
            together = lambdas[group] @ eigenvalues
            for j, own in zip(group, eigenvalues, strict=True):
                prior = float((own / together).sum())
                gain = max(prior - float((inverse * self.matrices[j]).sum()), 0.0)
                square = max(float(at @ self.matrices[j] @ at), 1e-300)
                new[j] = np.clip(lambdas[j] * gain / square, *_LAMBDA)
        return new


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over people in the restricted columns: structural F, control D, instruments B."""

    between: Float  # (kf, kf)
    within: Float  # (kf + kd, kf + kd)
    between_y: Float
    within_y: Float
    onto: Float  # (raw instruments, kf + kd): regression of F and D on the instruments
    onto_y: Float


def fit_modified(data: IVData, options: ModifiedOptions) -> Fit:
    """Causal curve of a continuous outcome, changed by effect modifiers.

    Parameters
    ----------
    data : IVData
        The modifiers are among its covariates.
    options : ModifiedOptions
        ``effect_modifiers`` are names or numbers of covariates. ``method`` "npiv" leaves out the
        equation within values of the instruments.

    Raises
    ------
    InvalidInputError
        A modifier is not among the covariates, an option is unknown, or the instruments are too
        weak.

    References
    ----------
    Wood SN, Scheipl F, Faraway JJ. Straightforward intermediate rank tensor product smoothing in
    mixed models. Stat Comput 2013, doi:10.1007/s11222-012-9314-z; Newey WK, Powell JL, Vella F.
    Nonparametric estimation of triangular simultaneous equations models. Econometrica 1999,
    doi:10.1111/1468-0262.00037.
    """
    check.choice("method", options.method, ["auto", "cf", "gcf", "npiv"])
    columns = _modifier_columns(data, options.effect_modifiers)
    if data.clusters is not None:
        data = data.take(np.argsort(data.clusters, kind="stable"))
    covariates = data.covariates
    assert covariates is not None  # the modifiers are among them
    n_threads, random = thread_count(options.n_threads), generator(options.rng)
    weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
    modifiers = [modifier_basis(j, covariates[:, j], weight, n_threads) for j in columns]
    others = np.array([j for j in range(data.q) if j not in columns], dtype=np.int64)
    standard, other_means, other_scales = _other_covariates(covariates[:, others], weight)
    score = score_of(data, options.folds, random, n_threads)
    y, y_location, y_scale = standardised(data.outcome, weight)
    raw = [Columns(one.raw(covariates[:, one.column]), one.restriction) for one in modifiers]
    exogenous = Columns.beside([*raw, Columns.all_of(SparseRows.dense(standard))])
    stage, powers = _first_stage(data, score, weight, n_threads, exogenous, raw)

    spline = BSpline(quantile_breakpoints(stage.exposure, exposure_functions(data.n)))
    inner = BSpline(quantile_breakpoints(stage.exposure, _INTERACTION_FUNCTIONS))
    structural, inner_restriction, penalties, places = _structural(
        stage, spline, inner, modifiers, raw, standard, weight, options.penalty, n_threads
    )
    control, slopes, control_penalty = _control(stage, modifiers, covariates, weight)
    penalties = _extended(penalties, control_penalty, structural.count, control.count)
    names = (structural, control, slopes, stage, penalties)
    fit = _Algebra(*names, y, weight, options.method != "npiv", n_threads)
    grid = fit.solve(random)
    meat = fit.meat(grid.mean, grid.noise, data.clusters)
    coefficients, covariance, draws = fit.law(grid, meat, options.n_draws, random)

    kf = structural.count
    scale = float(y_scale)
    level = np.zeros(kf)
    level[: spline.n_functions] = float(y_location)  # the splines sum to one
    low, high = data.exposure_quantiles(0.025, 0.975)
    curve = ModifiedCurve(
        spline,
        inner,
        inner_restriction,
        stage.location,
        stage.scale,
        modifiers,
        others,
        other_means,
        other_scales,
        level + scale * coefficients[:kf],
        scale**2 * covariance[:kf, :kf],
        level + scale * draws[:, :kf],
        (low, high),
    )
    tests = {
        data.covariate_names[one.column]: fit.modification_test(grid, data.clusters, place, group)
        for one, place, group in zip(modifiers, places, penalties.groups[1:], strict=False)
    }
    diagnostics = {
        **stage.diagnostics,
        "outcome": "continuous",
        "instrument_powers_times_modifiers": powers,
        "modification_p_value": {name: test[0] for name, test in tests.items()},
        "modification_degrees_of_freedom": {name: test[1] for name, test in tests.items()},
        "tau": float(grid.taus[0]),
        "smoothing_samples": float(1 / (grid.shares**2).sum()),
    }
    return Fit(curve, diagnostics, stage.messages)


def _modifier_columns(data: IVData, names: Sequence[str | int] | None) -> list[int]:
    """Columns of the modifiers among the covariates."""
    if names is None or isinstance(names, str) or len(names) == 0:
        raise check.fail("effect_modifiers", "names or numbers of covariates", repr(names))
    columns = []
    for name in names:
        if isinstance(name, str):
            if name not in data.covariate_names:
                raise check.fail(
                    "effect_modifiers",
                    f"covariates ({check.listed(data.covariate_names) or 'there are none'})",
                    repr(name),
                )
            columns.append(data.covariate_names.index(name))
        else:
            columns.append(
                check.integer("effect_modifiers", name, minimum=0, maximum=max(data.q - 1, 0))
            )
    if data.q == 0:
        raise check.fail("covariates", "the effect modifiers", "none")
    if len(set(columns)) != len(columns):
        raise check.fail("effect_modifiers", "distinct covariates", repr(list(names)))
    return columns


def _other_covariates(values: Float, weight: Float) -> tuple[Float, Float, Float]:
    if values.shape[1] == 0:
        return values, np.zeros(0), np.ones(0)
    return standardised(values, weight)


def _first_stage(
    data: IVData,
    score: Float,
    weight: Float,
    n_threads: int,
    exogenous: Columns,
    raw: list[Columns],
) -> tuple[ControlResidual, int]:
    """Exposure on functions of the score and powers of it times functions of the modifiers."""
    first = (data.exposure, score, weight, n_threads, exogenous)
    stage = control_residual(*first, clusters=data.clusters)
    n, main = data.n, stage.n_functions - 1
    count = sum(one.count for one in raw)
    powers = 1
    for powers in _POWERS:
        columns = main + powers * count
        if powers < stage.n_functions and n * stage.r_squared / columns >= _STRENGTH:
            break
    z = stage.strength
    table = SparseRows.dense(np.column_stack([z, z**2 - 1, z**3 - 3 * z])[:, :powers])
    further = [
        Columns(table.product(one.rows), _kron(np.eye(powers), one.restriction)) for one in raw
    ]
    behind = Columns.beside(further)
    return control_residual(*first, behind, clusters=data.clusters), powers


def _structural(
    stage: ControlResidual,
    spline: BSpline,
    inner: BSpline,
    modifiers: list[ModifierBasis],
    raw: list[Columns],
    standard: Float,
    weight: Float,
    penalty: str | int,
    n_threads: int,
) -> tuple[Columns, Float, _Penalties, list[slice]]:
    """Columns of f, of the modifications and of main effects, and their penalties."""
    x = stage.exposure
    main, rank, prior = curve_roughness(spline, x, penalty)
    inner_main, inner_rank, inner_prior = curve_roughness(inner, x, penalty)
    inner_rows = SparseRows.of_spline(inner, x)
    back, rough = orthonormal(
        inner_rows, weight, inner_main, inner.n_functions - 1 - inner_rank, n_threads
    )
    inner_prior = back.T @ inner_prior @ back
    blocks = [Columns.all_of(SparseRows.of_spline(spline, x))]
    places: list[slice] = []
    start = spline.n_functions
    for one, columns in zip(modifiers, raw, strict=True):
        tensor = inner_rows.product(columns.rows)
        blocks.append(Columns(tensor, _kron(back, columns.restriction)))
        blocks.append(columns)
        places.append(slice(start, start + len(rough) * one.count))
        start = places[-1].stop + one.count
    structural = Columns.beside([*blocks, Columns.all_of(SparseRows.dense(standard))])
    k, kf = structural.count, spline.n_functions

    def block(place: slice, matrix: Float) -> Float:
        full = np.zeros((k, k))
        full[place, place] = matrix
        return full

    ridge = block(slice(0, kf), prior)
    matrices, groups, ranks = [block(slice(0, kf), main)], [[0]], [rank]
    for place, one in zip(places, modifiers, strict=True):
        ridge += block(place, _kron(inner_prior, np.eye(one.count)))
        along_x, along_m = np.repeat(rough, one.count), np.tile(one.roughness, len(rough))
        groups.append([len(matrices)])
        matrices.append(block(place, np.diag(along_x)))
        ranks.append(int(((along_x > 0) | (along_m > 0)).sum()))
        if one.roughness.any():
            groups[-1].append(len(matrices))
            matrices.append(block(place, np.diag(along_m)))
    return structural, back, _Penalties(matrices, groups, ranks, ridge), places


def _kron(left: Float, right: Float) -> Float:
    return np.asarray(np.kron(left, right), dtype=np.float64)


def _control(
    stage: ControlResidual, modifiers: list[ModifierBasis], covariates: Float, weight: Float
) -> tuple[Columns, SparseRows, Float]:
    """Splines of the control residual, and its products with the modifiers.

    Returns
    -------
    control : Columns
    slopes : SparseRows
        Derivatives by the residual, in the raw columns.
    penalty : ndarray
        Of the restricted columns.
    """
    v = stage.residual / stage.spread
    spline = BSpline(quantile_breakpoints(v, _CONTROL_FUNCTIONS))
    kv = spline.n_functions
    contrast = without_constant(kv)
    lines = [standardised(covariates[:, one.column], weight)[0] for one in modifiers]
    products = np.column_stack([v * line for line in lines])
    slopes = np.column_stack(lines) / stage.spread
    control = Columns.beside(
        [
            Columns(SparseRows.of_spline(spline, v), contrast),
            Columns.all_of(SparseRows.dense(products)),
        ]
    )
    derivatives = SparseRows.of_spline(spline, v, 1)
    derivatives = derivatives.times(np.full(len(v), 1 / stage.spread))
    penalty = np.zeros((control.count, control.count))
    penalty[: kv - 1, : kv - 1] = contrast.T @ spline.penalty(2) @ contrast
    return control, SparseRows.beside([derivatives, SparseRows.dense(slopes)]), penalty


def _extended(
    penalties: _Penalties, control: Float, n_structural: int, n_control: int
) -> _Penalties:
    """Penalties of the structural columns and, behind these, the control columns."""
    k = n_structural + n_control

    def grown(matrix: Float, place: slice) -> Float:
        full = np.zeros((k, k))
        full[place, place] = matrix
        return full

    before, behind = slice(0, n_structural), slice(n_structural, k)
    matrices = [grown(matrix, before) for matrix in penalties.matrices]
    products = np.where(control.any(axis=1), 0.0, _RIDGE)
    ridge = grown(penalties.ridge, before) + grown(np.diag(products), behind)
    groups = [*penalties.groups, [len(matrices)]]
    ranks = [*penalties.ranks, int((control.any(axis=1)).sum()) - 1]  # free: a line
    return _Penalties([*matrices, grown(control, behind)], groups, ranks, ridge)


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Smoothing parameters drawn from their posterior, and the fit at each of them.

    Attributes
    ----------
    shares : ndarray (s,)
    taus : ndarray (number of penalties,)
        Geometric means of the parameters, each lambda^-1/2.
    lambdas : ndarray (s, number of penalties)
        Of the fits, which smooth the average curve less than the data ask for.
    fits : list of (coefficients, inverse)
    noise : (float, float)
        Variances between and within values of the instruments.
    """

    shares: Float
    taus: Float
    lambdas: Float
    fits: list[tuple[Float, Float]]
    noise: tuple[float, float]

    @property
    def mean(self) -> Float:
        """Average of the coefficients."""
        parts = (share * fit[0] for share, fit in zip(self.shares, self.fits, strict=True))
        return np.asarray(sum(parts), dtype=np.float64)


class _Algebra:
    """Two-level generalised least squares after one pass over the people."""

    def __init__(
        self,
        structural: Columns,
        control: Columns,
        slopes: SparseRows,
        stage: ControlResidual,
        penalties: _Penalties,
        y: Float,
        weight: Float,
        within: bool,
        n_threads: int,
    ) -> None:
        self.structural, self.control, self.slopes = structural, control, slopes
        self.stage, self.penalties = stage, penalties
        self.y, self.weight, self.within, self.n_threads = y, weight, within, n_threads
        self.kf, self.k = structural.count, structural.count + control.count
        rows = Columns.beside([structural, control])
        self.back = rows.restriction
        sums = gram(rows.rows, weight, n_threads)
        to_instruments = cross_sum(stage.rows, rows.rows, weight, n_threads) @ self.back
        with_y = self.back.T @ row_sum(rows.rows, weight * y, n_threads)
        instruments_y = row_sum(stage.rows, weight * y, n_threads)
        full = self.back.T @ sums @ self.back
        onto = stage.inverse @ to_instruments
        explained = to_instruments.T @ onto
        kf = self.kf
        self.sums = _Sums(
            0.5 * (explained + explained.T)[:kf, :kf],
            full - 0.5 * (explained + explained.T),
            (onto.T @ instruments_y)[:kf],
            with_y - onto.T @ instruments_y,
            onto,
            stage.inverse @ instruments_y,
        )
        self.safety = 1e-8 * len(y) / self.k * np.eye(self.k)

    def _system(self, noise: tuple[float, float]) -> tuple[Float, Float]:
        """Information and its right-hand side."""
        scale = 1 / noise[1] if self.within else 0.0
        matrix, right = scale * self.sums.within, scale * self.sums.within_y
        kf = self.kf
        matrix[:kf, :kf] += self.sums.between / noise[0]
        right[:kf] += self.sums.between_y / noise[0]
        return matrix, right

    def _residuals(self, at: Float) -> tuple[Float, Float]:
        """U = y less the curve, and e = the part of y less curve and control within instruments."""
        raw = self.structural.restriction @ at[: self.kf]
        u = self.y - row_products(self.structural.rows, raw, self.n_threads)
        raw = self.control.restriction @ at[self.kf :]
        e = u - row_products(self.control.rows, raw, self.n_threads)
        left = self.sums.onto_y - self.sums.onto @ at
        return u, e - row_products(self.stage.rows, left, self.n_threads)

    def _noise(self, at: Float) -> tuple[float, float]:
        total = self.weight.sum()
        u, e = self._residuals(at)
        return float((self.weight * u**2).sum() / total), float((self.weight * e**2).sum() / total)

    def solve(self, random: np.random.Generator) -> _Posterior:
        """Noise, and smoothing parameters by importance sampling.

        Each parameter's conditional posterior is tabulated about the mode; their product is
        sampled, and the samples weighted by the joint posterior over that product.
        """
        noise = (1.0, 0.7)
        lambdas = np.ones(len(self.penalties.matrices))
        for _ in range(2):
            matrix, right = self._system(noise)
            for _ in range(15):
                inverse = inverse_of(matrix + self.penalties.total(lambdas) + self.safety)
                at = inverse @ right
                lambdas = self.penalties.step(lambdas, inverse, at)
            noise = self._noise(at)
        matrix, right = self._system(noise)

        def log_posterior(logs: Float) -> float:
            precision = matrix + self.penalties.total(np.exp(-2 * logs)) + self.safety
            at = np.linalg.solve(precision, right)
            value = -0.5 * np.linalg.slogdet(precision)[1] + 0.5 * float(at @ right)
            value += 0.5 * self.penalties.log_determinant(np.exp(-2 * logs))
            value += float((logs - np.log1p((np.exp(logs) / TAU_SCALE) ** 2)).sum())
            return float(value)

        grid = np.log(TAU_GRID)
        place = np.array([np.abs(grid + 0.5 * value).argmin() for value in np.log(lambdas)])
        conditionals = np.zeros((len(lambdas), len(grid)))
        for j in range(len(lambdas)):
            values = np.empty(len(grid))
            for number in range(len(grid)):
                place[j] = number
                values[number] = log_posterior(grid[place])
            place[j] = values.argmax()
            conditionals[j] = np.exp(values - values.max())
        conditionals /= conditionals.sum(axis=1, keepdims=True)
        uniform = random.random((_SAMPLES, len(lambdas)))
        places = np.array(
            [
                np.minimum(np.searchsorted(np.cumsum(row), column), len(grid) - 1)
                for row, column in zip(conditionals, uniform.T, strict=True)
            ]
        ).T
        places, counts = np.unique(places, axis=0, return_counts=True)
        logs = []
        for one, count in zip(places, counts, strict=True):
            proposed = np.log(conditionals[np.arange(len(one)), one]).sum()
            logs.append(log_posterior(grid[one]) - proposed + np.log(count))
        shares = np.exp(np.array(logs) - max(logs))
        kept = np.flatnonzero(shares > 1e-4 * shares.sum())
        shares, taus, fits = shares[kept] / shares[kept].sum(), TAU_GRID[places[kept]], []
        used = taus.copy()
        used[:, 0] = undersmoothed(taus[:, 0])
        for one in used:
            inverse = inverse_of(matrix + self.penalties.total(one**-2) + self.safety)
            fits.append((inverse @ right, inverse))
        mean_taus = np.exp(shares @ np.log(taus))
        return _Posterior(shares, mean_taus, used**-2, fits, noise)

    def meat(
        self, at: Float, noise: tuple[float, float], clusters: NDArray[np.int64] | None
    ) -> Float:
        """Sum of the squared influences on the estimating equations (k, k) at coefficients."""
        u, e = self._residuals(at)
        between, within = noise
        scale = 1 / within if self.within else 0.0
        raw = self.control.restriction @ at[self.kf :]
        slope = row_products(self.slopes, raw, self.n_threads)
        weighted = self.weight * slope
        rows = Columns.beside([self.structural, self.control]).rows
        effect = self.back.T @ cross_sum(rows, self.stage.rows, weighted, self.n_threads)
        effect -= self.sums.onto.T @ gram(self.stage.rows, weighted, self.n_threads)
        wide, k, kf = self.stage.rows.width, self.k, self.kf
        raw_width = rows.width
        linear = np.zeros((k, raw_width + 3 * wide))
        linear[:, :raw_width] = scale * self.back.T
        linear[:kf, raw_width : raw_width + wide] = self.sums.onto[:, :kf].T / between
        linear[:, raw_width + wide : raw_width + 2 * wide] = -scale * self.sums.onto.T
        linear[:, raw_width + 2 * wide :] = scale * effect @ self.stage.inverse
        factors = (self.weight * u, self.weight * e, self.weight * self.stage.residual)

        def block(part: slice) -> SparseRows:
            instruments = self.stage.rows.take(part)
            behind = [instruments.times(factor[part]) for factor in factors]
            return SparseRows.beside([rows.take(part).times(factors[1][part]), *behind])

        return linear @ _outer_sum(block, len(u), clusters, self.n_threads) @ linear.T

    def law(
        self, grid: _Posterior, meat: Float, n_draws: int, random: np.random.Generator
    ) -> tuple[Float, Float, Float]:
        """Mean, covariance and draws of the coefficients."""
        mean = grid.mean
        counts = random.multinomial(n_draws, grid.shares)
        values, vectors = symmetric_eigen(0.5 * (meat + meat.T))
        roots = [vectors * np.sqrt(np.maximum(values, 0.0)), *self.penalties.roots]
        covariance, draws = np.zeros((self.k, self.k)), []
        parts = zip(grid.shares, counts, grid.lambdas, grid.fits, strict=True)
        for share, count, lambdas, (at, inverse) in parts:
            one = inverse @ (meat + self.penalties.total(lambdas)) @ inverse
            shift = at - mean
            covariance += share * (one + np.outer(shift, shift))
            noise = np.zeros((self.k, count))
            for scale, root in zip([1.0, *np.sqrt(lambdas), 1.0], roots, strict=True):
                noise += scale * (root @ random.standard_normal((self.k, count)))
            draws.append(at + (inverse @ noise).T)
        return mean, covariance, np.concatenate(draws)

    def modification_test(
        self,
        grid: _Posterior,
        clusters: NDArray[np.int64] | None,
        inner: slice,
        group: list[int],
    ) -> tuple[float, int]:
        """Test that a modification is zero: p value and degrees of freedom.

        Its smoothing parameters are fixed beforehand, so that the coefficients are linear in the
        outcome; it looks in the directions of largest sampling variance, as many as the
        modification then has effective degrees of freedom. As in a score test the variance comes
        from the residuals of the fit without the modification: those of the fit with it are too
        small where few people decide a direction.
        """
        matrix, right = self._system(grid.noise)
        lambdas = grid.taus**-2
        lambdas[group] = _TEST_LAMBDA
        inverse = inverse_of(matrix + self.penalties.total(lambdas) + self.safety)
        at = inverse @ right
        degrees = float(np.trace((inverse @ matrix)[inner, inner]))
        null = np.zeros(self.k)
        others = np.setdiff1d(np.arange(self.k), np.arange(self.k)[inner])
        precision = (matrix + self.penalties.total(lambdas) + self.safety)[np.ix_(others, others)]
        null[others] = np.linalg.solve(precision, right[others])
        meat = self.meat(null, grid.noise, clusters)
        variance = (inverse @ meat @ inverse)[inner, inner]
        values, vectors = symmetric_eigen(0.5 * (variance + variance.T))
        count = min(max(round(degrees), 1), int((values > 1e-10 * values[-1]).sum()))
        turned = vectors[:, -count:].T @ at[inner]
        return float(chdtrc(count, float((turned**2 / values[-count:]).sum()))), count


def _outer_sum(
    block: Callable[[slice], SparseRows],
    n: int,
    clusters: NDArray[np.int64] | None,
    n_threads: int,
) -> Float:
    """Sum over clusters of s s', of rows that are made block by block; clusters are in order."""
    edges = np.arange(0, n, _BLOCK)
    if clusters is not None:
        edges = np.unique(np.searchsorted(clusters, clusters[edges]))
    total: Float | None = None
    for start, stop in zip(edges, np.append(edges[1:], n), strict=True):
        part = slice(int(start), int(stop))
        own = None if clusters is None else clusters[part]
        one = cluster_outer_sum(block(part), own, n_threads)
        total = one if total is None else total + one
    assert total is not None
    return total
