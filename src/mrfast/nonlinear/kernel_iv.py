"""Kernel instrumental variable regression on Nystrom features, from sums over groups of people.

Notation: phi(x) are features of a Gaussian kernel of the exposure, psi(z) of the instruments;
both have an intercept and the covariates beside them, and phi has x, which bear no penalty. So
much ridge gives the line of two-stage least squares. Stage 1 is the ridge regression B of phi on
psi, with n l; stage 2 that of Y on psi(z)'B, with n r. B of a person comes from the other half of
the people. All of it depends on sums of products within groups of people only, which are made in
one pass: tuning and bootstrap need no person again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._runtime import generator, symmetric_eigen, thread_count
from mrfast._validation import Float
from mrfast.nonlinear._row_sums import blocks, cross_products
from mrfast.nonlinear.additive_curve import AdditiveCurve, GaussianFeatures, normal_draws
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.linear_first_stage import (
    LinearFirstStage,
    in_cluster_order,
    single_instrument,
)

__all__ = ["KernelIV"]

_WIDTHS = (1.0, 2.0, 4.0)  # of the exposure's kernel, in median distances
_FIRST_RIDGES = np.logspace(-8, 0, 9)
_SECOND_RIDGES = np.logspace(-7, 2, 19)
_PRIOR_SCALE = 1.0  # half-Cauchy law of the standard deviation of f, that of Y being 1
_NEGLIGIBLE = 1e-3  # relative posterior probability of a ridge that is left out
_KEPT = 1e-7  # share of the largest eigenvalue of a kernel matrix that a feature needs
_WEAK = 10.0
_NOISE_REPEATS = 10  # draws of the smoothing bias for each of the bootstrap


class KernelIV(InstrumentalVariableEstimator):
    """Kernel instrumental variable regression.

    Bands are made of a bootstrap of groups of people (of whole clusters) and of the smoothing bias
    that the ridge of stage 2 stands for as a prior. `diagnostics_` has both criteria of tuning for
    every pair of a width and a ridge.

    Parameters
    ----------
    tuning : {"evidence", "risk"}
        What chooses the ridge of stage 2 and the width of the exposure's kernel. "evidence" is
        the marginal likelihood of stage 2 with the ridge as a Gaussian prior of f. "risk" is
        the unbiased estimate, on the half that a fit has not seen, of the squared projection of
        Y - f(X) on the instruments' features, in which no group is multiplied with itself;
        it does not see what the instruments do not see, and so the smoothest fit within one
        standard error of the lowest risk is taken. The ridge of stage 1 is the one of the
        smallest squared error in the other half.
    instrument : {"auto", "score", "all"}
        Kernel of the cross-fitted score of the instruments or of all of them; "auto" is the score
        where there are several.
    n_landmarks : int
        Of the instruments' kernel, at most; 40 serve the exposure.
    n_groups : int
        Groups of people, a multiple of 4.
    n_bootstrap : int
        Bootstrap samples of groups, from which both kinds of limits are made.
    folds : int
        Of the cross-fitted score.
    rng : int
        Seed of groups, landmarks and draws.
    n_threads : int, optional
        Does not change a bit of the result.

    References
    ----------
    Singh, Sahani and Gretton (2019), doi:10.48550/arXiv.1906.00232.
    """

    name = "kernel_iv"
    title = "Kernel instrumental variable regression"

    def __init__(
        self,
        *,
        tuning: str = "evidence",
        instrument: str = "auto",
        n_landmarks: int = 80,
        n_groups: int = 80,
        n_bootstrap: int = 200,
        folds: int = 5,
        rng: int = 0,
        n_threads: int | None = 1,
    ) -> None:
        self.tuning = check.choice("tuning", tuning, ("evidence", "risk"))
        self.instrument = check.choice("instrument", instrument, ("auto", "score", "all"))
        self.n_landmarks = check.integer("n_landmarks", n_landmarks, minimum=5, maximum=2000)
        self.n_groups = check.integer("n_groups", n_groups, minimum=16, maximum=1000)
        if self.n_groups % 4:
            raise check.fail("n_groups", "a multiple of 4", str(n_groups))
        self.n_bootstrap = check.integer("n_bootstrap", n_bootstrap, minimum=50, maximum=10**5)
        self.folds = check.integer("folds", folds, minimum=2, maximum=100)
        self.rng = check.integer("rng", rng, minimum=0)
        self.n_threads = n_threads

    def _fit(self, data: IVData) -> Fit:
        if data.n < 2 * self.n_groups:
            raise check.fail(
                "n_groups", f"at most {data.n // 2} for {data.n} people", self.n_groups
            )
        source = generator(self.rng)
        data = in_cluster_order(data)
        used = data if self.instrument == "all" else single_instrument(data, self.folds, self.rng)
        stage = LinearFirstStage(used)
        features = _Features(stage, self.n_landmarks, source)
        groups = _groups(data, self.n_groups, source)
        sums = _group_sums(features, groups, self.n_groups, thread_count(self.n_threads))
        choice = _tune(sums, self.tuning)
        found = _bootstrap(sums, choice, self.n_bootstrap, source)
        curve = features.curve(found)
        best = np.unravel_index(int(np.argmax(choice.weights)), choice.weights.shape)
        diagnostics: dict[str, Any] = {
            **stage.strength,
            "kernel_of": "score" if used is not data else "instruments",
            "width": float(features.widths[best[0]]),
            "ridge_first_stage": choice.first[best[0]],
            "ridge_second_stage": float(_SECOND_RIDGES[best[1]]),
            "degrees_of_freedom": float(found.freedom),
            "tried": {
                "width": features.widths.tolist(),
                "ridge_second_stage": _SECOND_RIDGES.tolist(),
                "held_out_risk": choice.risks.tolist(),
                "log_evidence": choice.evidence.tolist(),
                "weight": choice.weights.tolist(),
            },
            "people_in_smallest_group": int(np.bincount(groups, minlength=self.n_groups).min()),
        }
        messages = list(stage.messages)
        if diagnostics["effective_f"] < _WEAK:
            messages.append(
                f"weak instruments: effective F {diagnostics['effective_f']:.2g} is below "
                f"{_WEAK:.0f}; the curve is not to be trusted"
            )
        if choice.weights[:, 0].sum() > 0.5:
            messages.append(
                "the ridge parameter of the second stage is at the lower end of its grid"
            )
        return Fit(curve, diagnostics, tuple(messages))


# ----------------------------------------------------------------------------- features


def _whitening(squares: Float) -> Float:
    """Matrix that makes kernel values at landmarks into features, from squared distances."""
    values, vectors = symmetric_eigen(np.exp(-0.5 * squares))
    kept = values > _KEPT * values[-1]
    return np.ascontiguousarray(vectors[:, kept] / np.sqrt(values[kept]))


def _median_distance(points: Float, source: np.random.Generator) -> float:
    """Median distance of pairs of distinct points, (n, p)."""
    first, second = source.integers(0, len(points), size=(2, 5000))
    distance = np.sqrt(((points[first] - points[second]) ** 2).sum(axis=1))
    return float(np.median(distance[distance > 0]))


class _Features:
    """Columns 1, C, psi(Z), X, phi(X) at each width, Y, all but 1 standardised."""

    def __init__(
        self, stage: LinearFirstStage, n_landmarks: int, source: np.random.Generator
    ) -> None:
        self.stage, data = stage, stage.data
        x = data.exposure
        median = _median_distance(x[:, None], source)
        self.landmarks = np.unique(np.quantile(x, np.linspace(0.002, 0.998, 40)))
        self.widths = median * np.array(_WIDTHS)
        apart = (self.landmarks[:, None] - self.landmarks) ** 2
        whitening = [_whitening(apart / width**2) for width in self.widths]
        self.counts = np.array([matrix.shape[1] for matrix in whitening])
        self.basis = GaussianFeatures(
            self.landmarks, self.widths, self.counts, np.hstack(whitening)
        )
        self.covariates = len(stage.covariates_used)
        some = np.sort(source.permutation(data.n)[: min(data.n, 20_000)])
        points = self._scaled(some)
        self.instrument_width = 1.0
        self.instrument_width = _median_distance(points, source)
        distinct = np.unique(points, axis=0)
        if len(distinct) > n_landmarks:
            if data.p == 1:
                places = np.linspace(0.002, 0.998, n_landmarks)
                distinct = np.unique(np.quantile(points[:, 0], places))[:, None]
            else:
                distinct = distinct[np.sort(source.permutation(len(distinct))[:n_landmarks])]
        self.instrument_landmarks = distinct / self.instrument_width
        squares = self.instrument_landmarks[:, None] - self.instrument_landmarks
        self.whitening = _whitening((squares**2).sum(axis=2))
        self.scale_y = float(data.outcome.std())

    def _scaled(self, rows: slice | NDArray[Any]) -> Float:
        """Standardised instruments."""
        stage = self.stage
        used = stage.instruments_used
        spread = np.sqrt(stage.products.diagonal()[used] / stage.total_weight)
        return stage.design(rows)[:, used] / spread  # type: ignore[arg-type]

    def first_size(self) -> int:
        """Number of columns 1, C, psi."""
        return 1 + self.covariates + int(self.whitening.shape[1])

    def columns(self, rows: slice) -> Float:
        """All columns of some people."""
        data = self.stage.data
        z = self._scaled(rows) / self.instrument_width
        marks = self.instrument_landmarks
        squares = (
            (z**2).sum(axis=1)[:, None]
            + (marks**2).sum(axis=1)
            - 2 * np.einsum("ip,mp->im", z, marks)
        )
        kernel = np.exp(-0.5 * np.maximum(squares, 0.0))
        x = data.exposure[rows]
        return np.hstack(
            [
                np.ones((len(x), 1)),
                self.stage.standardised_covariates(rows),
                _times(kernel, self.whitening),
                self.basis.values(x)[:, 1:],
                ((data.outcome[rows] - self.stage.mean_outcome) / self.scale_y)[:, None],
            ]
        )

    def curve(self, found: _Bootstrap) -> AdditiveCurve:
        """Curve of coefficients of (1, C, x, phi) and the error of the covariates' means."""
        stage, q, count = self.stage, self.stage.q, self.covariates
        k = len(found.coefficients) - 1 - count  # x and phi
        size = 1 + k + q + 1
        place = np.array(
            [0, *(1 + k + j for j in stage.covariates_used), *range(1, 1 + k), size - 1]
        )
        units = np.full(1 + count + k + 1, self.scale_y)
        units[1 : 1 + count] /= stage.covariate_spread
        coefficients, spread = np.zeros(size), np.zeros((size, size))
        coefficients[place[:-1]] = found.coefficients * units[:-1]
        coefficients[0] += stage.mean_outcome
        spread[np.ix_(place, place)] = found.covariance * np.outer(units, units)
        all_draws = np.zeros((len(found.deviations), size))
        all_draws[:, place] = found.deviations * units
        low, high = (float(v) for v in np.quantile(stage.data.exposure, [0.025, 0.975]))
        return AdditiveCurve(
            self.basis,
            stage.covariate_means,
            coefficients,
            spread,
            coefficients + all_draws,
            (low, high),
        )


def _times(left: Float, right: Float) -> Float:
    """Product of matrices whose bits do not depend on threads."""
    return cross_products(np.ascontiguousarray(left.T), np.ascontiguousarray(right))


# ------------------------------------------------------------------------------- groups


def _groups(data: IVData, n_groups: int, source: np.random.Generator) -> NDArray[np.int64]:
    """Random groups of about equal size; a cluster lies in one."""
    if data.clusters is None:
        return source.permutation(data.n) % n_groups
    codes = np.unique(data.clusters, return_inverse=True)[1]
    count = int(codes.max()) + 1
    if count < 2 * n_groups:
        raise check.fail("n_groups", f"at most {count // 2} for {count} clusters", str(n_groups))
    return np.asarray((source.permutation(count) % n_groups)[codes], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Products of the columns within each group."""

    products: Float  # (groups, columns, columns)
    weight: Float  # (groups,)
    first: NDArray[np.int64]  # columns 1, C, psi
    second: tuple[NDArray[np.int64], ...]  # columns 1, C, x, phi, at each width
    free: int  # number of columns 1, C


def _group_sums(
    features: _Features, groups: NDArray[np.int64], n_groups: int, n_threads: int
) -> _Sums:
    """One pass over the people, in the order of their groups."""
    stage = features.stage
    size = features.first_size()
    width = size + 1 + int(features.counts.sum()) + 1
    products, weight = np.zeros((n_groups, width, width)), np.zeros(n_groups)
    for rows in blocks(stage.n, width):
        block, own = features.columns(rows), groups[rows]
        weights = None if stage.weights is None else stage.weights[rows]
        order = np.argsort(own, kind="stable")
        bounds = np.searchsorted(own[order], np.arange(n_groups + 1))
        for g in range(n_groups):
            members = order[bounds[g] : bounds[g + 1]]
            if not len(members):
                continue
            part = np.ascontiguousarray(block[members])
            part_weights = None if weights is None else weights[members]
            products[g] += cross_products(part, part, part_weights, n_threads)
            weight[g] += len(members) if part_weights is None else part_weights.sum()
    free = np.arange(1 + features.covariates)
    ends = size + 1 + np.cumsum(features.counts)
    second = tuple(
        np.r_[free, size, np.arange(end - count, end)]
        for count, end in zip(features.counts, ends, strict=True)
    )
    return _Sums(products, weight, np.arange(size), second, len(free))


@dataclass(frozen=True)
class _Choice:
    """Tuning parameters."""

    first: list[float]  # of each width
    weights: Float  # (widths, ridges): posterior probabilities, or 1 for the chosen one
    risks: Float  # (widths, ridges)
    evidence: Float


@dataclass(frozen=True, eq=False)
class _Bootstrap:
    """Mean fit over ridges, with its law."""

    coefficients: Float  # (k,) of 1, C, x, phi
    covariance: Float  # (k + 1, k + 1), the error of the covariates' means last
    deviations: Float  # (draws, k + 1)
    freedom: float


def _solve(matrix: Float, right: Float, penalty: float, free: int) -> Float:
    """Ridge regression with some columns free of penalty."""
    ridge = np.full(len(matrix), penalty)
    ridge[:free] = 1e-10 * max(penalty, float(np.trace(matrix)) / len(matrix))
    return np.asarray(np.linalg.solve(matrix + np.diag(ridge), right), dtype=np.float64)


def _pair(
    sums: _Sums, halves: tuple[Float, Float], width: int, ridge: float
) -> tuple[Float, Float, float]:
    """Gram matrix and moments of the predicted features of two halves, and their weight.

    `halves` are weights of the groups, (groups,) each.
    """
    first, second = sums.first, sums.second[width]
    totals = [np.einsum("g,gij->ij", half, sums.products) for half in halves]
    weights = [float(half @ sums.weight) for half in halves]
    gram, moments = np.zeros((len(second),) * 2), np.zeros(len(second))
    for own, other, weight in ((0, 1, weights[1]), (1, 0, weights[0])):
        inner = totals[other][np.ix_(first, first)]
        stage = _solve(inner, totals[other][np.ix_(first, second)], weight * ridge, sums.free)
        gram += stage.T @ totals[own][np.ix_(first, first)] @ stage
        moments += stage.T @ totals[own][first, -1]
    return (gram + gram.T) / 2, moments, sum(weights)


def _first_ridge(sums: _Sums, halves: tuple[Float, Float], width: int) -> float:
    """Ridge of stage 1 of the smallest squared error in the other half."""
    first, second = sums.first, sums.second[width]
    errors = np.zeros(len(_FIRST_RIDGES))
    totals = [np.einsum("g,gij->ij", half, sums.products) for half in halves]
    for own, other in ((0, 1), (1, 0)):
        inner, across = totals[own][np.ix_(first, first)], totals[own][np.ix_(first, second)]
        weight = float(halves[other] @ sums.weight)
        for i, ridge in enumerate(_FIRST_RIDGES):
            stage = _solve(
                totals[other][np.ix_(first, first)],
                totals[other][np.ix_(first, second)],
                weight * ridge,
                sums.free,
            )
            errors[i] += float((stage * (inner @ stage)).sum() - 2 * (stage * across).sum())
    return float(_FIRST_RIDGES[np.argmin(errors)])


def _tune(sums: _Sums, by: str) -> _Choice:
    """Width and ridge of stage 2 by the evidence, or by the unbiased risk."""
    shape = (len(sums.second), len(_SECOND_RIDGES))
    evidence, risks = np.empty(shape), np.empty(shape)
    freedom, ridges, pairs = np.empty(shape), [], []
    for w in range(shape[0]):
        ridges.append(_first_ridge(sums, _halves(sums), w))
        evidence[w], freedom[w] = _evidence(sums, w, ridges[w])
        pairs.append(_held_out(sums, w, ridges[w]))
        risks[w] = pairs[w].sum(axis=(1, 2))
    if by == "evidence":
        best = np.unravel_index(int(np.argmax(evidence)), shape)
    else:
        lowest = np.unravel_index(int(np.argmin(risks)), shape)
        reference = pairs[lowest[0]][lowest[1]]
        errors = np.array(
            [[np.sqrt(2 * ((one - reference) ** 2).sum()) for one in pair] for pair in pairs]
        )
        good = risks <= risks[lowest] + errors
        best = np.unravel_index(int(np.argmin(np.where(good, freedom, np.inf))), shape)
    weights = np.zeros(shape)
    weights[best] = 1.0
    if by == "evidence":
        weights = np.exp(evidence - evidence.max())
        weights[weights < _NEGLIGIBLE] = 0.0
    return _Choice(ridges, weights / weights.sum(), risks, evidence)


def _halves(sums: _Sums) -> tuple[Float, Float]:
    even = np.arange(len(sums.weight)) % 2 == 0
    return even * 1.0, ~even * 1.0


def _evidence(sums: _Sums, width: int, ridge: float) -> tuple[Float, Float]:
    """Log marginal likelihood of stage 2 at each ridge, and degrees of freedom."""
    gram, moments, weight = _pair(sums, _halves(sums), width, ridge)
    square, free = float(sums.products[:, -1, -1].sum()), sums.free + 1
    logs, freedom = np.empty((2, len(_SECOND_RIDGES)))
    fits = [_solve(gram, moments, weight * r, free) for r in _SECOND_RIDGES]
    variance = min(square - 2 * t @ moments + t @ gram @ t for t in fits) / weight
    for i, (r, t) in enumerate(zip(_SECOND_RIDGES, fits, strict=True)):
        penalty = np.full(len(gram), weight * r / variance)
        penalty[:free] = 0.0
        inner = gram / variance + np.diag(penalty)
        inner[np.arange(free), np.arange(free)] += 1e-10 * np.trace(gram) / len(gram)
        freedom[i] = np.trace(np.linalg.solve(inner, gram)) / variance
        tau = np.sqrt(variance / (weight * r))
        logs[i] = (
            -0.5 * np.linalg.slogdet(inner)[1]
            + 0.5 * t @ moments / variance
            + 0.5 * np.log(penalty[free:]).sum()
            + np.log(tau)
            - np.log1p((tau / _PRIOR_SCALE) ** 2)
        )
    return logs, freedom


def _held_out(sums: _Sums, width: int, ridge: float) -> Float:
    """Pairs of groups of the unbiased risk, (ridges, groups, groups), its own pairs being 0.

    Half of the people fit, quarter against quarter, and the others judge, in both directions.
    """
    count, second, free = len(sums.weight), sums.second[width], sums.free + 1
    numbers = np.arange(count)
    quarter = numbers // 2 % 2 == 0
    pairs = np.zeros((len(_SECOND_RIDGES), count, count))
    for test in (0, 1):
        training, judges = numbers % 2 != test, np.flatnonzero(numbers % 2 == test)
        parts = (training & quarter) * 1.0, (training & ~quarter) * 1.0
        gram, moments, weight = _pair(sums, parts, width, ridge)
        fits = np.column_stack([_solve(gram, moments, weight * r, free) for r in _SECOND_RIDGES])
        tests = sums.products[judges]
        # sums of psi (Y - f(X)) in each group: (groups, psi, ridges)
        across = tests[:, sums.first][:, :, second]
        own = tests[:, sums.first, -1][:, :, None] - np.einsum("gij,jr->gir", across, fits)
        held = float(sums.weight[judges].sum())
        inner = tests.sum(axis=0)[np.ix_(sums.first, sums.first)]
        joined = own.transpose(1, 0, 2).reshape(len(sums.first), -1)
        projected = _solve(inner, joined, held * ridge, sums.free).reshape(
            len(sums.first), len(judges), -1
        )
        between = np.einsum("gir,ihr->rgh", own, projected) / (2 * held)
        between[:, np.arange(len(judges)), np.arange(len(judges))] = 0.0
        pairs[np.ix_(np.arange(len(pairs)), judges, judges)] = between
    return pairs


def _bootstrap(sums: _Sums, choice: _Choice, count: int, source: np.random.Generator) -> _Bootstrap:
    """Groups of either half drawn with replacement, widths and ridges from their posterior.

    For ridge r the smoothing bias is added as draws from H^-1 N(0, n r / s^2) H^-1 with
    H = (gram + n r) / s^2.
    """
    even, odd = _halves(sums)
    free, groups, total = sums.free + 1, len(sums.weight), float(sums.weight.sum())
    shared = len(sums.first)
    places = [np.r_[np.arange(free), own[free:] - shared + free - 1] for own in sums.second]
    size = sums.products.shape[1] - 1 - shared + sums.free
    used = [(int(w), int(r)) for w, r in np.argwhere(choice.weights)]
    chances = np.array([choice.weights[pair] for pair in used])
    pairs = {w: _pair(sums, (even, odd), w, choice.first[w]) for w, _ in used}
    fits = np.zeros((len(used), size))
    for fit, (w, r) in zip(fits, used, strict=True):
        gram, moments, weight = pairs[w]
        fit[places[w]] = _solve(gram, moments, weight * _SECOND_RIDGES[r], free)
    mean = np.einsum("i,ik->k", chances, fits)
    slopes = mean[1 : sums.free]

    components = np.repeat(np.arange(len(used)), source.multinomial(count, chances)).tolist()
    deviations = np.zeros((count, size + 1))
    for deviation, i in zip(deviations, components, strict=True):
        w, r = used[i]
        weights = np.zeros(groups)
        for start in (0, 1):
            drawn = source.integers(0, groups // 2, groups // 2)
            weights[start::2] = np.bincount(drawn, minlength=groups // 2)
        gram, moments, weight = _pair(sums, (weights * even, weights * odd), w, choice.first[w])
        deviation[places[w]] = _solve(gram, moments, weight * _SECOND_RIDGES[r], free)
        deviation[:size] -= fits[i]
        means = np.einsum("g,gj->j", weights, sums.products[:, 0, 1 : sums.free])
        deviation[size] = float(means @ slopes) / float(weights @ sums.weight)
    deviations -= deviations.mean(axis=0)

    covariance = cross_products(deviations, deviations) / (count - 1)
    draws = np.tile(deviations, (_NOISE_REPEATS, 1))
    of_draw, freedom = np.tile(components, _NOISE_REPEATS), 0.0
    square = float(sums.products[:, -1, -1].sum())
    for i, (w, r) in enumerate(used):
        gram, moments, _ = pairs[w]
        fit = fits[i, places[w]]
        variance = (square - 2 * fit @ moments + fit @ gram @ fit) / total
        ridge = np.full(len(gram), total * _SECOND_RIDGES[r])
        ridge[:free] = 1e-10 * np.trace(gram) / len(gram)
        bread = np.linalg.inv(gram + np.diag(ridge))
        ridge[:free] = 0.0
        bias = np.zeros((size + 1, size + 1))
        bias[np.ix_(places[w], places[w])] = (bread * (ridge * variance)) @ bread.T
        apart = np.append(fits[i] - mean, 0.0)
        covariance += chances[i] * (bias + np.outer(apart, apart))
        freedom += chances[i] * float(np.trace(bread @ gram))
        rows = np.flatnonzero(of_draw == i)
        if len(rows):
            draws[rows] += apart
            own = normal_draws(bias[np.ix_(places[w], places[w])], len(rows), source)
            draws[np.ix_(rows, places[w])] += own
    return _Bootstrap(mean, covariance, draws, freedom)
