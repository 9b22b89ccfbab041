"""Causal risk curve of a binary outcome: a control function in the index, averaged over V.

P(Y = 1 | X, V, C) = G(f(X) + lambda(V) + C'b), V = X - E[X | Z, C]; the risk under do(X = x) is
the average of G(f(x) + lambda(V_i) + C_i'b) over the people. Averages are of probabilities, never
of indices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy.special import chdtrc

from mrfast import _validation as check
from mrfast._runtime import generator, symmetric_eigen, thread_count
from mrfast._validation import Float
from mrfast.errors import ConvergenceError
from mrfast.nonlinear.binary_curve import BinaryCurve, LinkCurve, OffsetBins, offset_bins
from mrfast.nonlinear.control_residual import (
    Columns,
    ControlResidual,
    control_residual,
    score_of,
    standardised,
)
from mrfast.nonlinear.estimator import Fit
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.links import LINKS
from mrfast.nonlinear.sieve_algebra import curve_roughness, inverse_of, without_constant
from mrfast.nonlinear.sieve_fit import (
    TAU_FLOOR,
    TAU_GRID,
    TAU_SCALE,
    exposure_functions,
    undersmoothed,
)
from mrfast.nonlinear.sparse_rows import (
    SparseRows,
    cluster_outer_sum,
    cross_sum,
    gram,
    row_products,
    row_sum,
)
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

__all__ = ["BinaryOptions", "fit_binary"]

_CONTROL_FUNCTIONS = 10
_LAMBDA = (1e-6, 1e7)
_INTERACTION_RIDGE = 1e-4
_STEPS = 100
_START = 20_000
_LEAST_SHARE = 0.01


class BinaryOptions(Protocol):
    """Options that `fit_binary` reads."""

    method: str
    penalty: str | int
    link: str
    alpha_spec: float
    n_draws: int
    folds: int
    rng: Any
    n_threads: int | None


@dataclass(frozen=True, eq=False)
class _Model:
    """Columns of the index and their penalties.

    Column order: splines of the exposure, splines of the control residual (one direction, the
    constant, is taken out by `restriction`), interactions, covariates.
    """

    spline: BSpline
    rows: SparseRows
    slopes: SparseRows  # derivatives by the residual
    restriction: Float  # (raw width, k)
    curve_penalty: Float
    control_penalty: Float
    ridge: Float
    curve_rank: int
    control_rank: int
    n_curve: int
    n_control: int


@dataclass(frozen=True, eq=False)
class _Mode:
    """Penalised likelihood fit with one link."""

    link: str
    coefficients: Float
    log_likelihood: float
    lambdas: tuple[float, ...]
    information: Float
    working: Float  # information times coefficients, plus score
    score: Float  # (n,), derivative of the log-likelihood by the index
    weight: Float  # (n,), its information


def fit_binary(data: IVData, options: BinaryOptions) -> Fit:
    """Risk curve of a binary outcome.

    Parameters
    ----------
    data : IVData
        Its outcome has values 0 and 1 only.
    options : BinaryOptions
        ``method`` "cf" has no interactions, "gcf" has, others have them if a test asks for them;
        ``link`` is "probit", "logit", or "auto": both, weighted by their evidence. Links differ
        where the risk is averaged over combinations of exposure and control residual that hardly
        occur, and there the data often say little, which the limits then allow for. The maximised
        likelihood hardly tells links apart, as a rougher curve makes up for the wrong one; the
        evidence charges for that.

    Raises
    ------
    InvalidInputError
        The outcome is not binary, an option is unknown, or the instruments are too weak.
    ConvergenceError
        The likelihood has no maximum that could be found.

    References
    ----------
    Blundell RW, Powell JL. Endogeneity in semiparametric binary response models. Rev Econ Stud
    2004, doi:10.1111/j.1467-937X.2004.00299.x; Imbens GW, Newey WK. Identification and estimation
    of triangular simultaneous equations models without additivity. Econometrica 2009,
    doi:10.3982/ECTA7108; Wood SN, Fasiolo M. A generalized Fellner-Schall method. Biometrics
    2017, doi:10.1111/biom.12666.
    """
    if not data.binary_outcome:
        raise check.fail("outcome", "values 0 and 1 for a binary outcome", "others")
    if options.method not in ("auto", "cf", "gcf"):
        raise check.fail(
            "method", "'auto', 'cf' or 'gcf' for a binary outcome", repr(options.method)
        )
    links = list(LINKS) if options.link == "auto" else [options.link]
    for link in links:
        check.choice("link", link, list(LINKS))
    n_threads = thread_count(options.n_threads)
    weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
    exogenous, means, scales = None, np.zeros(0), np.ones(0)
    if data.covariates is not None:
        standard, means, scales = standardised(data.covariates, weight)
        exogenous = Columns.all_of(SparseRows.dense(standard))
    random = generator(options.rng)
    score = score_of(data, options.folds, random, n_threads)
    stage = control_residual(
        data.exposure, score, weight, n_threads, exogenous, clusters=data.clusters
    )
    plain = _model(data, stage, weight, options.penalty, interactions=False)
    modes = [_mode(plain, data.outcome, weight, link, n_threads) for link in links]
    best = max(modes, key=lambda one: one.log_likelihood)
    test = _interaction_test(data, stage, plain, best, weight, n_threads)
    model, level, floors = plain, 0, dict.fromkeys(links, 0.0)
    if options.method == "gcf" or (options.method == "auto" and test < options.alpha_spec):
        for mode in modes:  # less information must not make the curve look straighter
            floors[mode.link] = TAU_FLOOR * _tau_grid(plain, mode, 0.0).tau
        model, level = _model(data, stage, weight, options.penalty, interactions=True), 1
        modes = [_mode(model, data.outcome, weight, link, n_threads) for link in links]
    grids = [_tau_grid(model, mode, floors[mode.link]) for mode in modes]
    evidence = np.array([grid.log_evidence for grid in grids])
    weights = np.exp(evidence - evidence.max())
    weights = np.where(weights < _LEAST_SHARE * weights.sum(), 0.0, weights)
    weights /= weights.sum()
    counts = random.multinomial(options.n_draws, weights)
    curves, report = [], {}
    for mode, grid, share, count in zip(modes, grids, weights, counts, strict=True):
        if share > 0:
            parts = (data, stage, model, mode, grid, weight, n_threads)
            curves.append(_link_curve(*parts, float(share), int(count), random))
            if share == weights.max():
                report = _smoothing_report(model, mode, grid)
    low, high = data.exposure_quantiles(0.025, 0.975)
    curve = BinaryCurve(
        model.spline,
        stage.location,
        stage.scale,
        means,
        scales,
        curves,
        (low, high),
    )
    diagnostics = {
        **stage.diagnostics,
        "outcome": "binary",
        "link_shares": dict(zip(links, map(float, weights), strict=True)),
        "log_likelihood": {mode.link: mode.log_likelihood for mode in modes},
        "level": level,
        "interaction_p_value": test,
        **report,
        **_curve_tests(curve),
    }
    return Fit(curve, diagnostics, _messages(stage, test, level, options, curve))


def _model(
    data: IVData, stage: ControlResidual, weight: Float, penalty: str | int, *, interactions: bool
) -> _Model:
    x, v = stage.exposure, stage.residual / stage.spread
    curve = BSpline(quantile_breakpoints(x, exposure_functions(data.n)))
    control = BSpline(quantile_breakpoints(v, _CONTROL_FUNCTIONS))
    nothing = np.zeros(data.n)
    curve_rows = SparseRows.of_spline(curve, x)
    blocks = [curve_rows, SparseRows.of_spline(control, v)]
    slopes = [curve_rows.times(nothing), SparseRows.of_spline(control, v, 1)]
    slopes[1] = slopes[1].times(np.full(data.n, 1 / stage.spread))
    n_interactions = 0
    if interactions:
        columns, derivatives = _interactions(stage, weight)
        n_interactions = columns.shape[1]
        blocks.append(SparseRows.dense(columns))
        slopes.append(SparseRows.dense(derivatives))
    if data.q:
        others = SparseRows.dense(stage.rows.values[:, -data.q :])
        blocks.append(others)
        slopes.append(others.times(nothing))
    kf, kv = curve.n_functions, control.n_functions
    contrast = without_constant(kv)
    k = kf + kv - 1 + n_interactions + data.q
    restriction = np.zeros((k + 1, k))
    restriction[:kf, :kf] = np.eye(kf)
    restriction[kf : kf + kv, kf : kf + kv - 1] = contrast
    restriction[kf + kv :, kf + kv - 1 :] = np.eye(k - kf - kv + 1)
    curve_penalty, control_penalty, ridge = (np.zeros((k, k)) for _ in range(3))
    curve_penalty[:kf, :kf], rank, prior = curve_roughness(curve, x, penalty)
    ridge[:kf, :kf] = prior
    inner = slice(kf, kf + kv - 1)
    control_penalty[inner, inner] = contrast.T @ control.penalty(2) @ contrast
    inner = slice(kf + kv - 1, kf + kv - 1 + n_interactions)
    ridge[inner, inner] = _INTERACTION_RIDGE * np.eye(n_interactions)
    return _Model(
        curve,
        SparseRows.beside(blocks),
        SparseRows.beside(slopes),
        restriction,
        curve_penalty,
        control_penalty,
        ridge,
        rank,
        kv - 2,
        kf,
        kv - 1 + n_interactions,
    )


def _interactions(stage: ControlResidual, weight: Float) -> tuple[Float, Float]:
    """Products of the control residual with the instruments, and their derivatives by it.

    Both less their regressions on the instruments: the latent error has mean zero given these.
    """
    v, z = stage.residual / stage.spread, stage.strength
    columns = np.column_stack([v * z, v * (z**2 - 1), v**2 * z])
    slopes = np.column_stack([z, z**2 - 1, 2 * v * z]) / stage.spread
    for table in (columns, slopes):
        for column in table.T:
            fitted = stage.inverse @ row_sum(stage.rows, weight * column, 1)
            column -= row_products(stage.rows, fitted, 1)
    return columns, slopes


def _mode(model: _Model, outcome: Float, weight: Float, name: str, n_threads: int) -> _Mode:
    """Penalised likelihood fit, its smoothing parameters by Fellner-Schall steps."""
    n, link = len(outcome), LINKS[name]
    start: _Mode | None = None
    if n > 2 * _START:  # a subset of the people first
        some = np.arange(0, n, n // _START)
        if 0 < outcome[some].mean() < 1:
            part = replace(model, rows=model.rows.take(some))
            start = _mode(part, outcome[some], weight[some], name, n_threads)
    k = model.restriction.shape[1]
    lambdas: tuple[float, ...] = (1.0, 1.0)
    coefficients = np.zeros(k)
    average = float((weight * outcome).sum() / weight.sum())
    coefficients[: model.n_curve] = link.index(np.array(average))
    if start is not None:
        coefficients, lambdas = start.coefficients, start.lambdas
    safety = 1e-8 * n / k * np.eye(k)
    limit = 8.0 if name == "probit" else 30.0

    def index_of(candidate: Float) -> Float:
        raw = row_products(model.rows, model.restriction @ candidate, n_threads)
        return np.asarray(np.clip(raw, -limit, limit))

    def likelihood(index: Float) -> float:
        one, zero = link.log_probabilities(index)
        return float((weight * np.where(outcome > 0, one, zero)).sum())

    def objective(index: Float, candidate: Float, penalty: Float) -> float:
        return likelihood(index) - 0.5 * float(candidate @ penalty @ candidate)

    index = index_of(coefficients)
    for _ in range(_STEPS):
        probability, density = link.probability(index), link.density(index)
        ratio = density / (probability * (1 - probability))
        score = weight * ratio * (outcome - probability)
        informed = weight * ratio * density
        information = (
            model.restriction.T @ gram(model.rows, informed, n_threads) @ model.restriction
        )
        working = information @ coefficients + model.restriction.T @ row_sum(
            model.rows, score, n_threads
        )
        penalty = _penalty(model, *lambdas)
        inverse = inverse_of(information + penalty + safety)
        proposed = inverse @ working
        before = objective(index, coefficients, penalty)
        after = index_of(proposed)
        for _ in range(20):
            if objective(after, proposed, penalty) >= before - 1e-9 * (1 + abs(before)):
                break
            proposed = 0.5 * (proposed + coefficients)
            after = index_of(proposed)
        change = float(np.abs(after - index).max())
        coefficients, index = proposed, after
        parts = (
            (model.curve_penalty, model.curve_rank),
            (model.control_penalty, model.control_rank),
        )
        lambdas = tuple(
            _fellner_schall(value, *part, inverse, proposed)
            for value, part in zip(lambdas, parts, strict=True)
        )
        if change < 1e-3:
            break
    else:
        if change > 0.05:
            raise ConvergenceError(
                f"outcome: expected a likelihood with a maximum, received steps of {change:.2g} on "
                f"the index after {_STEPS} of them ({name} link)"
            )
    return _Mode(
        name, coefficients, likelihood(index), lambdas, information, working, score, informed
    )


def _penalty(model: _Model, curve: float, control: float) -> Float:
    return curve * model.curve_penalty + control * model.control_penalty + model.ridge


def _fellner_schall(value: float, penalty: Float, rank: int, inverse: Float, at: Float) -> float:
    square = float(at @ penalty @ at)
    new = (rank - value * float((inverse * penalty).sum())) / max(square, 1e-300)
    return float(np.clip(new, *_LAMBDA))


@dataclass(frozen=True, eq=False)
class _Grid:
    """Posterior of the curve's smoothing parameter tau = lambda^-1/2.

    Attributes
    ----------
    shares, taus : ndarray
    fits : list of (coefficients, inverse of the penalised information, penalty)
    log_evidence : float
        Of the link, but for a constant that the links share.
    """

    shares: Float
    taus: Float
    fits: list[tuple[Float, Float, Float]]
    log_evidence: float

    @property
    def tau(self) -> float:
        """Geometric mean of tau."""
        return float(np.exp(np.sum(self.shares * np.log(self.taus))))


def _tau_grid(model: _Model, mode: _Mode, floor: float) -> _Grid:
    """Fits on a grid of tau; the likelihood is taken as the quadratic it is about its mode."""
    k = len(mode.coefficients)
    safety = 1e-8 * len(mode.score) / k * np.eye(k)
    taus = TAU_GRID[min(floor, TAU_GRID[-1]) <= TAU_GRID]
    control = mode.lambdas[1]
    logs, fits = [], []
    for tau in taus:
        curve = tau**-2
        for _ in range(3):
            inverse = inverse_of(mode.information + _penalty(model, curve, control) + safety)
            control = _fellner_schall(
                control, model.control_penalty, model.control_rank, inverse, inverse @ mode.working
            )
        precision = mode.information + _penalty(model, curve, control) + safety
        at = inverse_of(precision) @ mode.working
        logs.append(
            -0.5 * np.linalg.slogdet(precision)[1]
            + 0.5 * float(at @ mode.working)
            + 0.5 * (model.curve_rank * np.log(curve) + model.control_rank * np.log(control))
            + np.log(tau)
            - np.log1p((tau / TAU_SCALE) ** 2)
        )
        penalty = _penalty(model, float(undersmoothed(tau)) ** -2, control)
        inverse = inverse_of(mode.information + penalty + safety)
        fits.append((inverse @ mode.working, inverse, penalty))
    at = mode.coefficients
    constant = (
        mode.log_likelihood - float(at @ mode.working) + 0.5 * float(at @ mode.information @ at)
    )
    shares = np.exp(np.array(logs) - max(logs))
    evidence = constant + max(logs) + float(np.log(shares.sum()))
    return _Grid(shares / shares.sum(), taus, fits, evidence)


def _interaction_test(
    data: IVData, stage: ControlResidual, model: _Model, mode: _Mode, weight: Float, n_threads: int
) -> float:
    """Score test of products of the control residual with the instruments, p value."""
    columns, _ = _interactions(stage, weight)
    extra = SparseRows.dense(columns)
    slope = row_products(model.slopes, model.restriction @ mode.coefficients, n_threads)
    effect = model.restriction.T @ cross_sum(model.rows, stage.rows, mode.weight * slope, n_threads)
    extra_effect = cross_sum(extra, stage.rows, mode.weight * slope, n_threads)
    shared = cross_sum(extra, model.rows, mode.weight, n_threads) @ model.restriction
    penalty = _penalty(model, *mode.lambdas)
    inverse = inverse_of(
        mode.information + penalty + 1e-8 * data.n / len(penalty) * np.eye(len(penalty))
    )
    onto = shared @ inverse
    stack = SparseRows.beside(
        [
            model.rows.times(mode.score),
            extra.times(mode.score),
            stage.rows.times(weight * stage.residual),
        ]
    )
    linear = np.concatenate(
        [
            -onto @ model.restriction.T,
            np.eye(columns.shape[1]),
            (extra_effect - onto @ effect) @ stage.inverse,
        ],
        axis=1,
    )
    meat = cluster_outer_sum(stack, data.clusters, n_threads)
    variance = linear @ meat @ linear.T + onto @ penalty @ onto.T
    # the mode's gradient is that of the penalised likelihood: take out what is left of it
    gradient = row_sum(extra, mode.score, n_threads)
    left = mode.working - (mode.information + penalty) @ mode.coefficients
    statistic = gradient - onto @ left
    values, vectors = symmetric_eigen(variance)
    used = values > 1e-5 * values[-1]
    chi_square = float(((vectors.T @ statistic)[used] ** 2 / values[used]).sum())
    return float(chdtrc(int(used.sum()), chi_square))


def _smoothing_report(model: _Model, mode: _Mode, grid: _Grid) -> dict[str, float]:
    shares = grid.shares
    inverse = grid.fits[int(np.argmax(shares))][1]
    inner = slice(0, model.n_curve)
    return {
        "tau": grid.tau,
        "tau_posterior_at_ends": float(shares[0] + shares[-1]),
        "effective_degrees_of_freedom": float(np.trace((inverse @ mode.information)[inner, inner])),
    }


def _link_curve(
    data: IVData,
    stage: ControlResidual,
    model: _Model,
    mode: _Mode,
    grid: _Grid,
    weight: Float,
    n_threads: int,
    share: float,
    n_draws: int,
    random: np.random.Generator,
) -> LinkCurve:
    """Averages over the people, and the law of all that was estimated, under one link."""
    shares, fits = grid.shares, grid.fits
    mean = np.asarray(sum(part * one[0] for part, one in zip(shares, fits, strict=True)))
    kf, k, big = model.n_curve, len(mean), stage.rows.width
    raw = model.restriction @ mean
    slope = row_products(model.slopes, raw, n_threads)
    instruments = stage.rows.times(slope)
    others = SparseRows(
        model.rows.index[:, 4:] - np.int16(kf), model.rows.values[:, 4:], len(raw) - kf
    )

    def bins(coefficients: Float) -> tuple[OffsetBins, Float]:
        offset = row_products(others, coefficients, n_threads)
        made, influence = offset_bins(offset, weight, others, instruments)
        return replace(made, columns=made.columns @ model.restriction[kf:, kf:]), influence

    people, influence = bins(raw[kf:])
    if data.q:
        no_covariates = raw[kf:].copy()
        no_covariates[-data.q :] = 0.0
        control, control_influence = bins(no_covariates)
    else:
        control = replace(people, moments=np.zeros((len(people.share), 0)))
        control_influence = np.zeros((data.n, 0))
    moments = np.concatenate([influence, control_influence], axis=1)
    stack = SparseRows.beside(
        [
            model.rows.times(mode.score),
            stage.rows.times(weight * stage.residual),
            SparseRows.dense(moments),
        ]
    )
    meat = cluster_outer_sum(stack, data.clusters, n_threads)
    effect = model.restriction.T @ cross_sum(model.rows, stage.rows, mode.weight * slope, n_threads)
    j = moments.shape[1]
    e = k + big + j
    kept = np.flatnonzero(shares > 1e-4)
    portions = shares[kept] / shares[kept].sum()
    counts = random.multinomial(n_draws, portions)
    covariance, draws = np.zeros((e, e)), []
    for portion, count, number in zip(portions, counts, kept, strict=True):
        coefficients, inverse, penalty = fits[number]
        linear = np.zeros((e, len(raw) + big + j))
        linear[:k, : len(raw)] = inverse @ model.restriction.T
        linear[:k, len(raw) : len(raw) + big] = inverse @ effect @ stage.inverse
        linear[k : k + big, len(raw) : len(raw) + big] = stage.inverse
        linear[k + big :, len(raw) + big :] = np.eye(j)
        one = linear @ meat @ linear.T
        one[:k, :k] += inverse @ penalty @ inverse
        shift = np.zeros(e)
        shift[:k] = coefficients - mean
        covariance += portion * (one + np.outer(shift, shift))
        values, vectors = symmetric_eigen(0.5 * (one + one.T))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws.append(shift + np.einsum("be,fe->bf", random.standard_normal((count, e)), root))
    return LinkCurve(mode.link, share, mean, people, control, covariance, np.concatenate(draws))


def _curve_tests(curve: BinaryCurve) -> dict[str, float]:
    """Tests that the log odds of the risk are constant, and that they are a line."""
    grid = np.linspace(*curve.central, 200)
    centre, rows = curve.log_odds(curve.risks(grid, None))
    answers = {}
    for name, powers in (("no_effect_p_value", 1), ("log_odds_linearity_p_value", 2)):
        null = np.linalg.qr(np.vander((grid - grid.mean()) / np.ptp(grid), powers))[0]
        contrasts = rows - null @ (null.T @ rows)
        errors = curve.standard_errors(contrasts)
        observed = np.abs((centre - null @ (null.T @ centre)) / errors).max()
        largest = np.zeros(len(curve.draws))
        for contrast, error in zip(contrasts, errors, strict=True):
            np.maximum(
                largest, np.abs(np.einsum("be,e->b", curve.draws, contrast)) / error, out=largest
            )
        answers[name] = float(np.mean(largest >= observed))
    return answers


def _messages(
    stage: ControlResidual, test: float, level: int, options: BinaryOptions, curve: BinaryCurve
) -> tuple[str, ...]:
    messages = stage.messages
    if len(curve.links) > 1:
        said = " and ".join(f"{one.link} ({one.share:.0%})" for one in curve.links)
        messages += (f"The data do not tell the links apart; the risk averages {said}.",)
    if level == 0 and test < options.alpha_spec:
        messages += (
            "The data contradict a control function that acts alike at all values of the "
            f"instruments (p = {test:.2g}); method='auto' adds interactions.",
        )
    if level == 1:
        messages += (
            "The control function has interactions with the instruments "
            f"(test of a model without them: p = {test:.2g}).",
        )
    return messages
