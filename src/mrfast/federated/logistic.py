"""Logistic regression of an outcome on one exposure, and its profile likelihood, in few passes.

The model is logit P(y = 1) = intercept + exposure * b + covariates' nu + offset. Every pass over
the rows (C++) adds up the log likelihood, its gradient and its information for many values of b at
once; the nuisance coefficients at each b are found by Newton's method with step halving, started
from the path through the values of b that are known already. Along that path

    l(b) = max over nu,   l'(b) = dL/db,   -l''(b) = L_bb - L_bn L_nn^-1 L_nb   (information)

hold exactly, and dnu/db = -L_nn^-1 L_nb is its tangent. Columns are scaled inside; what is reported
is in the units that were given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float, fail
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.federated import _chebyshev as chebyshev
from mrfast.federated._design import (
    PackedDesign,
    binary_outcome,
    covariate_array,
    numbers,
    pack,
    scales,
)
from mrfast.federated._newton import Maxima, maximise, solve
from mrfast.federated.dosage_scan import SnpScan, snp_scan
from mrfast.federated.node_profile import NodeProfile, chebyshev_nodes

__all__ = ["LogisticFit", "LogisticModel", "ProfilePoints", "SnpScan", "site_nodes", "snp_scan"]

_FIRST_NODES = 9
_LARGEST_EFFECTS = (10.0, 5.0, 2.5)  # log odds ratios per standard deviation of the score
_NOTHING = 1e-8  # information per squared standard deviation of the exposure
_ROUGH = 1e-5  # squared Newton decrement that suffices to look ahead


@dataclass(frozen=True)
class LogisticFit:
    """Maximum of the log likelihood over all coefficients.

    Attributes
    ----------
    beta, std_error : float
        Log odds ratio per unit of the exposure; infinite where it has no maximum, NaN where the
        covariates alone separate cases from controls and the profile is flat.
    log_likelihood : float
        Its largest value, or its supremum; penalised where there is a prior.
    nuisance : ndarray, shape (1 + p,)
        Intercept and coefficients of the covariates; NaN where aliased, infinite where these
        separate cases from controls.
    converged : bool
    monotone : int
        -1 or 1 where the log likelihood has no maximum in `beta` and rises to that side.
    separation : str or None
        Which coefficients are infinite, in words.
    """

    beta: float
    std_error: float
    log_likelihood: float
    nuisance: Float
    converged: bool
    monotone: int
    separation: str | None


@dataclass(frozen=True)
class ProfilePoints:
    """The profile at some log odds ratios; arrays of shape (m,)."""

    beta: Float
    values: Float
    scores: Float
    information: Float
    half_logdet: Float
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class _Solution:
    """Constrained maxima at m values of the scaled log odds ratio."""

    coefficients: Float  # (m, K)
    tangents: Float  # (m, K - 1)
    nuisance: Float  # (m, K - 1, K - 1): information of the nuisance coefficients
    values: Float
    scores: Float
    information: Float
    half_logdet: Float
    steps: Float  # (m, K): the last Newton step, not small where the maximum is at infinity
    converged: NDArray[np.bool_]


class LogisticModel:
    """Logistic regression on an exposure and covariates, its rows packed for many passes.

    Parameters
    ----------
    outcome : array-like, shape (n,)
        0 and 1, or booleans.
    exposure : array-like, shape (n,)
    covariates : array-like, shape (n, p), optional
        An intercept is always included. float64 and float32 arrays of any strides are read in
        place, other types are converted.
    names : sequence of str, optional
        Names of the covariates, for messages; default ``covariate 0``, and so on.
    weights : array-like, shape (n,), optional
        Case weights, at least 0: a row with weight 2 counts as two rows.
    offset : array-like, shape (n,), optional
        Added to the linear predictor.
    prior_precision : array-like, shape (p,), optional
        One over the variance of the normal prior of each covariate's coefficient, in the units
        given; 0: none. The intercept and the exposure have none.
    firth : bool
        Firth's penalty: half the log determinant of the full information is added to the log
        likelihood. Reduces the bias of one site's estimate. Such profiles must never be summed
        over sites: each would bring Jeffreys' prior of the common effect once more.
    n_threads : int, optional
        Default: all cores. The result is the same to the last bit for any number.

    Attributes
    ----------
    n, n_cases, n_controls : int
        Rows with a weight above 0.
    aliased : tuple of str
        Covariates that are constant or combinations of those before them, left out.
    residual_sum_of_squares : float
        Of the exposure on intercept and covariates, weighted. A quarter of it bounds the
        information from above; with a prior it is the corresponding larger bound.
    residual_sd : float
        Square root of the former over the sum of the weights.

    Raises
    ------
    InvalidInputError
        Shapes differ, numbers are missing or infinite, there are no cases or no controls, or the
        exposure is constant or a combination of the covariates.
    """

    def __init__(
        self,
        outcome: ArrayLike,
        exposure: ArrayLike,
        covariates: ArrayLike | None = None,
        *,
        names: Sequence[str] | None = None,
        weights: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        prior_precision: ArrayLike | None = None,
        firth: bool = False,
        n_threads: int | None = None,
    ) -> None:
        self._threads = thread_count(n_threads)
        self._firth = check.flag("firth", firth)
        y = binary_outcome(outcome)
        self._n = y.size
        s, spread = numbers("exposure", exposure, (self._n,), self._threads)
        x, moments = covariate_array(covariates, self._n, self._threads)
        w = None if weights is None else numbers("weights", weights, (self._n,), self._threads)[0]
        if w is not None and w.min() < 0:
            raise fail("weights", "numbers at least 0", repr(float(w.min())))
        o = None if offset is None else numbers("offset", offset, (self._n,), self._threads)[0]
        p = x.shape[1]
        if names is None:
            names = [f"covariate {j}" for j in range(p)]
        self.names = check.name_tuple("names", names, length=p)
        precision = np.zeros(p)
        if prior_precision is not None:
            precision = check.float_array("prior_precision", prior_precision, ndim=1, shape=(p,))
            if np.any(precision < 0):
                raise fail("prior_precision", "numbers at least 0", repr(float(precision.min())))
        counted = np.ones(self._n, dtype=np.bool_) if w is None else w > 0
        self.n = int(counted.sum())
        self.n_cases = int((counted & (y > 0)).sum())
        self.n_controls = self.n - self.n_cases
        if not self.n_cases or not self.n_controls:
            missing = "no cases" if not self.n_cases else "no controls"
            raise fail("outcome", "cases and controls", f"{missing} among {self.n} rows")
        self._total = float(self.n if w is None else w.sum())
        self._prevalence = float(y.mean() if w is None else (w * y).sum() / self._total)

        origin, factor, changes = scales(spread)
        if not changes[0]:
            raise fail("exposure", "values that vary", "a constant")
        self._centre, self._scale = float(origin[0]), float(factor[0])
        self._data = y, x, moments, s, w, o, precision
        self._set_design(self._packed(w))
        self.aliased = tuple(self.names[j] for j in np.setdiff1d(np.arange(p), self._kept))
        bound = self._design.gram + 4 * self._penalty
        schur = bound[-1, -1] - bound[-1, :-1] @ np.linalg.solve(bound[:-1, :-1], bound[:-1, -1])
        self.residual_sum_of_squares = float(schur) / self._scale**2
        self.residual_sd = math.sqrt(self.residual_sum_of_squares / self._total)
        self._fit: LogisticFit | None = None

    def _packed(self, weights: NDArray[Any] | None) -> PackedDesign:
        y, x, moments, s, _, o, precision = self._data
        return pack(
            y,
            x,
            moments,
            exposure=s,
            exposure_centre=self._centre,
            exposure_scale=self._scale,
            weights=weights,
            offset=o,
            precision=precision,
            threads=self._threads,
        )

    def _set_design(self, design: PackedDesign) -> None:
        """Take rows that are packed, and what follows from them."""
        precision = self._data[-1]
        self._design, self._kept = design, design.kept
        self._transform, self._origin = design.transform, design.origin
        k = self._kept.size + 2
        self._penalty = np.zeros((k, k))
        self._penalty[1:-1, 1:-1] = self._transform.T @ (
            precision[self._kept][:, None] * self._transform
        )
        self._penalised = bool(self._penalty.any())
        self._log_scale = float(np.linalg.slogdet(self._transform)[1]) if k > 2 else 0.0
        self._path = _Path()

    def __repr__(self) -> str:
        return (
            f"LogisticModel(n={self.n}, n_cases={self.n_cases}, covariates={self._kept.size}"
            f"{', firth=True' if self._firth else ''})"
        )

    # ------------------------------------------------------------------ passes and maxima

    def _objective(self, coefficients: Float) -> tuple[Float, Float, Float]:
        """The function that is maximised, its gradient, and the information."""
        value, gradient, information = self._design.sums(coefficients)
        if self._penalised:
            pull = np.einsum("ij,mj->mi", self._penalty, coefficients)
            value = value - 0.5 * np.einsum("mi,mi->m", coefficients, pull)
            gradient = gradient - pull
            information = information + self._penalty
        if self._firth:
            unit = self._log_scale + math.log(self._scale)
            value = value + 0.5 * np.linalg.slogdet(information)[1] - unit
            for i, (at, matrix) in enumerate(zip(coefficients, information, strict=True)):
                try:
                    inverse = np.ascontiguousarray(np.linalg.inv(matrix))
                except np.linalg.LinAlgError:  # too far out: there the penalty is infinite
                    value[i] = -math.inf
                    continue
                gradient[i] = self._design.rows.firth_score(
                    np.ascontiguousarray(at), inverse, self._threads
                )
                if self._penalised:
                    gradient[i] -= self._penalty @ at
        return value, gradient, information

    def _maximise(self, start: Float, free: int, *, rough: bool = False) -> _Solution:
        """Maximise over the first `free` coefficients from m starting points."""
        found = maximise(
            lambda at, _: self._objective(at),
            start,
            free,
            exact_curvature=not self._firth,
            enough=_ROUGH if rough else 0.0,
        )
        return self._solution(found)

    def _solution(self, found: Maxima) -> _Solution:
        """Profile quantities, with what the last Newton step still changes."""
        gradient, information, value = found.gradient, found.information, found.value
        nuisance, cross = information[:, :-1, :-1], information[:, :-1, -1]
        solved = solve(nuisance, np.stack([cross, gradient[:, :-1]], axis=2))
        slopes, shift = solved[..., 0], solved[..., 1]
        curvature = information[:, -1, -1] - np.einsum("mi,mi->m", cross, slopes)
        scores = gradient[:, -1] - np.einsum("mi,mi->m", slopes, gradient[:, :-1])
        if not self._firth:
            value = value + 0.5 * np.einsum("mi,mi->m", shift, gradient[:, :-1])
        best = found.coefficients.copy()
        best[:, :-1] += shift
        half_logdet = 0.5 * np.linalg.slogdet(nuisance)[1] - self._log_scale
        return _Solution(
            coefficients=best,
            tangents=-slopes,
            nuisance=nuisance,
            values=value,
            scores=scores,
            information=curvature,
            half_logdet=half_logdet,
            steps=found.step,
            converged=found.converged,
        )

    # ------------------------------------------------------------------ the full fit

    def fit(self) -> LogisticFit:
        """Maximum over all coefficients; found once.

        Returns
        -------
        LogisticFit
        """
        if self._fit is None:
            found, limits = self._top(), np.zeros(len(self.names))
            flat = None
            if _side(found) or self._at_infinity(found, limits):
                limits[:] = 0
                flat = self._without_separated_rows(limits)
                found = self._top() if limits.any() and flat is None else found
            self._fit = self._summary(found, limits) if flat is None else self._flat(flat, limits)
        return self._fit

    def _without_separated_rows(self, limits: Float) -> float | None:
        """Leave out what the nuisance coefficients alone separate.

        Returns the value of the profile where nothing is left that depends on the exposure.
        """
        while True:
            fixed = self._at(np.zeros(1), self._start())
            if not fixed.converged[0]:
                return None
            grown = self._at_infinity(fixed, limits)
            if max(float(fixed.information[0]), abs(float(fixed.scores[0]))) < _NOTHING:
                return float(fixed.values[0])
            if not grown:
                return None
            left = self._leave_out(fixed.steps[0])
            if left is None:
                return float(fixed.values[0])
            if not left:
                return None

    def _flat(self, value: float, limits: Float) -> LogisticFit:
        """The fit where the covariates alone tell cases from controls."""
        names = [self.names[j] for j in np.flatnonzero(limits)]
        nuisance = np.full(len(self.names) + 1, np.nan)
        return LogisticFit(
            beta=math.nan,
            std_error=math.inf,
            log_likelihood=value,
            nuisance=nuisance,
            converged=True,
            monotone=0,
            separation=f"{', '.join(names) or 'the covariates'} separate"
            f"{'s' if len(names) == 1 else ''} cases from controls so that nothing is known of the "
            "exposure: the profile is flat",
        )

    def _start(self) -> Float:
        start = np.zeros((1, self._kept.size + 2))
        start[0, 0] = math.log(self._prevalence / (1 - self._prevalence))
        return start

    def _top(self) -> _Solution:
        """Newton's method over all coefficients."""
        start = self._start()
        found = self._maximise(start, start.shape[1])
        if not found.converged[0]:
            raise ConvergenceError("the logistic regression did not converge")
        self._path.add(found.coefficients[:, -1], found.coefficients, found.tangents)
        return found

    def _summary(self, found: _Solution, limits: Float) -> LogisticFit:
        """The full fit in the units given; `limits`: signs of the infinite coefficients."""
        side, beta = _side(found), float(found.coefficients[0, -1])
        value, std_error = float(found.values[0]), math.inf
        if side:
            value = self._supremum(side, beta)
        else:
            std_error = float(found.information[0]) ** -0.5 * self._scale
            if not self._firth:  # the last step
                move = float(found.scores[0] / found.information[0])
                value += 0.5 * float(found.scores[0]) * move
                beta += move
        nuisance = np.full(len(self.names) + 1, np.nan)
        slopes = self._transform @ found.coefficients[0, 1:-1]
        nuisance[0] = (
            found.coefficients[0, 0]
            - slopes @ self._origin
            - found.coefficients[0, -1] * self._scale * self._centre
        )
        nuisance[1 + self._kept] = slopes
        infinite = np.flatnonzero(limits)
        nuisance[1 + infinite] = limits[infinite] * math.inf
        return LogisticFit(
            beta=math.inf * side if side else beta * self._scale,
            std_error=std_error,
            log_likelihood=value,
            nuisance=nuisance,
            converged=True,
            monotone=side,
            separation=_separation_sentence(side, [self.names[j] for j in infinite], value),
        )

    def _at_infinity(self, found: _Solution, limits: Float) -> bool:
        """Mark covariates whose coefficients still grew when the log likelihood no longer did."""
        step = found.steps[0]
        if self._firth or step.size < 3 or np.max(np.abs(step[:-1])) < 1e-5:
            return False
        slopes = self._transform @ step[1:-1]
        moves = np.abs(slopes) / np.sqrt(np.sum(self._transform**2, axis=1))
        if moves.max() < 1e-5:
            return False
        grown = moves > 0.05 * moves.max()
        limits[self._kept[grown]] = np.sign(slopes[grown])
        return True

    def _leave_out(self, step: Float) -> bool | None:
        """Leave out the rows whose probabilities tend to 0 or 1 as nuisance coefficients grow.

        They add nothing to the limit of the log likelihood; the coefficients are not identified
        without them, so that the rest is a regression without them. None where the rest does not
        depend on the exposure, False where no coefficient is dropped.
        """
        y, x, _, _, w, _, _ = self._data
        slopes = self._transform @ step[1:-1]
        moves = np.einsum("ij,j->i", x[:, self._kept] - self._origin, slopes) + step[0]
        stay = np.abs(moves) < 0.01 * np.max(np.abs(moves))
        weights = stay.astype(np.float64) if w is None else np.where(stay, w, 0.0)
        counted = y[weights > 0]
        if not counted.any() or counted.all():
            return None
        try:
            design = self._packed(weights)
        except InvalidInputError:  # nothing is left of the exposure
            return None
        if design.kept.size >= self._kept.size:
            return False
        self._data = (*self._data[:4], weights, *self._data[5:])
        self._set_design(design)
        return True

    def _supremum(self, side: int, beta: float) -> float:
        """Limit of the profile to the side where it rises: its tail is exponential."""
        b = max(8.0, abs(beta))
        value = -math.inf
        for _ in range(12):
            found = self._at(np.array([side * b]))
            value = float(found.values[0])
            score, information = abs(float(found.scores[0])), float(found.information[0])
            gap = score**2 / information if information > 0 else 0.0
            if gap < 1e-11 or score * b < 1e-11:
                return value + gap
            b *= 1.5
        return value

    # ------------------------------------------------------------------ the profile

    def _at(self, beta: Float, start: Float | None = None, *, rough: bool = False) -> _Solution:
        """Constrained maxima at scaled log odds ratios."""
        if start is None:
            start = np.column_stack([self._path.predict(beta), beta])
        found = self._maximise(start, start.shape[1] - 1, rough=rough)
        good = found.converged
        self._path.add(beta[good], found.coefficients[good], found.tangents[good])
        return found

    def _improved(self, start: Float, nuisance: Float) -> Float:
        """Starting points after a step with information that is about right: a cheap pass."""
        if self._firth:
            return start
        _, gradient, _ = self._design.sums(start, information=False)
        gradient = gradient - np.einsum("ij,mj->mi", self._penalty, start)
        step = solve(nuisance, gradient[:, :-1])
        near = np.einsum("mi,mi->m", step, gradient[:, :-1]) < 1e-2
        start[near, :-1] += step[near]
        return start

    def evaluate(self, beta: ArrayLike) -> ProfilePoints:
        """Profile at given log odds ratios, each by Newton's method.

        Parameters
        ----------
        beta : array-like, shape (m,)

        Returns
        -------
        ProfilePoints
        """
        points = check.float_array("beta", beta, ndim=1)
        fit = self.fit()
        if math.isnan(fit.beta):
            nothing = np.zeros(points.size)
            values = nothing + fit.log_likelihood
            return ProfilePoints(points, values, nothing, nothing, nothing, nothing == 0)
        found = self._at(points / self._scale)
        information = found.information
        if self._firth:  # the penalty bends the profile too
            width = 1e-4
            above = self._at(points / self._scale + width).scores
            below = self._at(points / self._scale - width).scores
            information = (below - above) / (2 * width)
        return self._points(points, found, information)

    def _points(self, beta: Float, found: _Solution, information: Float) -> ProfilePoints:
        return ProfilePoints(
            beta=beta,
            values=found.values,
            scores=found.scores / self._scale,
            information=information / self._scale**2,
            half_logdet=found.half_logdet,
            converged=found.converged,
        )

    def nodes(
        self,
        lower: float,
        upper: float,
        *,
        tolerance: float = 1e-8,
        minimum: int = 12,
        maximum: int = 512,
        through_information: bool = False,
    ) -> NodeProfile:
        """Profile on a window, from as many Chebyshev nodes as it takes.

        Fits at nine nodes show how the coefficients decay and where the nuisance coefficients go;
        from these, most nodes need one or two passes.

        Parameters
        ----------
        lower, upper : float
            The window.
        tolerance : float
            For the last three Chebyshev coefficients of the slope times half the window; never
            below the rounding errors of the log likelihood.
        minimum, maximum : int
            Number of nodes that are fitted.
        through_information : bool
            The slope's polynomial goes through the information at the nodes too: half as many fits
            for the same precision. The result then holds twice as many nodes, the ones between
            taken from the polynomial; the tolerance is for the sum of the coefficients beyond.

        Returns
        -------
        NodeProfile

        Raises
        ------
        ConvergenceError
            The number of nodes does not suffice, or Newton's method failed at one of them.
        """
        fit = self.fit()
        if math.isnan(fit.beta):
            found = self.evaluate(chebyshev_nodes(lower, upper, minimum))
            return NodeProfile(
                lower, upper, found.values, found.scores, found.information, found.half_logdet
            )
        return self._nodes(lower, upper, tolerance, minimum, maximum, through_information)

    def _nodes(
        self,
        lower: float,
        upper: float,
        tolerance: float,
        minimum: int,
        maximum: int,
        through_information: bool,
    ) -> NodeProfile:
        """Nodes of a profile that is not flat."""
        fit = self.fit()
        half = (upper - lower) / 2
        doubled = through_information and not self._firth
        m, rough, guess = min(_FIRST_NODES, minimum), True, None
        while True:
            beta = chebyshev_nodes(lower, upper, m)
            found = self._at(beta / self._scale, guess, rough=rough)
            if not found.converged.all():
                bad = float(beta[~found.converged][0])
                raise ConvergenceError(f"no constrained maximum found at a log odds ratio of {bad}")
            points = self._points(beta, found, found.information)
            slope = chebyshev.through_values(points.scores)
            path = chebyshev.through_values(found.coefficients[:, :-1])
            tail = slope
            if not self._firth:  # the slopes of both are known
                slope = chebyshev.through_slopes(points.scores, -points.information * half)
                turn = found.tangents * (half / self._scale)
                path = chebyshev.through_slopes(found.coefficients[:, :-1], turn)
            error = float(np.abs(tail[-3:]).max()) * half
            if doubled:
                error = chebyshev.left_out(np.abs(slope) * half)
            allowed = max(tolerance, 2e-15 * float(np.abs(points.values).max()))
            if not rough and (error <= allowed or m >= maximum):
                break
            series = np.abs(slope) * half
            needed = chebyshev.length_needed(series, tolerance / (30 if doubled else 1))
            if doubled:
                needed = needed // 2 + 1
            if not rough:
                needed = max(needed, math.ceil(1.25 * m))
            m, rough = min(max(minimum, min(needed, 4 * m)), maximum), False
            at = chebyshev_nodes(-1, 1, m)
            guess = np.column_stack(
                [chebyshev.evaluate(path, at), chebyshev_nodes(lower, upper, m) / self._scale]
            )
            matrices = chebyshev.through_values(found.nuisance)
            guess = self._improved(guess, chebyshev.evaluate(matrices, at))
        if error > allowed:
            raise ConvergenceError(
                f"the profile on {lower} to {upper} needs more than {maximum} nodes"
            )
        values, scores, information = points.values, points.scores, points.information
        half_logdet = points.half_logdet
        if self._firth:  # the penalty bends the profile as well
            bend = chebyshev.derivative(slope) / half
            information = -chebyshev.evaluate(bend, chebyshev_nodes(-1, 1, m))
        if doubled:
            at = chebyshev_nodes(-1, 1, 2 * m)
            series = half * chebyshev.integral(slope)
            series[0] += np.mean(values - chebyshev.evaluate(series, chebyshev_nodes(-1, 1, m)))
            values, scores = chebyshev.evaluate(series, at), chebyshev.evaluate(slope, at)
            information = -chebyshev.evaluate(chebyshev.derivative(slope) / half, at)
            half_logdet = chebyshev.evaluate(chebyshev.through_values(half_logdet), at)
        return NodeProfile(
            lower,
            upper,
            values,
            scores,
            information,
            half_logdet,
            residual_sum_of_squares=None if self._firth else self.residual_sum_of_squares,
            monotone=fit.monotone,
            supremum=fit.log_likelihood if fit.monotone else None,
        )


def site_nodes(
    model: LogisticModel,
    kappa: float,
    *,
    effect_range: float = 1.0,
    cover: tuple[float, float] | None = None,
    tolerance: float = 1e-9,
    maximum: int = 512,
) -> NodeProfile:
    """Profile of a site on its study window.

    The window holds ``kappa * [-effect_range, effect_range]``, eight standard errors on either
    side of the maximum where there is one, and what it is asked to cover. Neither of the former
    goes further than a log odds ratio of 10 per standard deviation of the score, as an exposure in
    small units or a site of hardly any information would have it, nor than `maximum` nodes hold.

    Parameters
    ----------
    model : LogisticModel
    kappa : float
        Change of the exposure per unit of score.
    effect_range : float
        Largest causal log odds ratio per unit of exposure that the study considers.
    cover : tuple of two floats, optional
        Log odds ratios per unit of score that the window is to hold as well, unless that takes too
        many nodes.
    tolerance : float
        As `LogisticModel.nodes`.
    maximum : int
        As `LogisticModel.nodes`.

    Returns
    -------
    NodeProfile

    Raises
    ------
    ConvergenceError
        As `LogisticModel.nodes`, on a window that is too wide.
    """
    reach = abs(check.scalar("kappa", kappa)) * check.scalar("effect_range", effect_range, above=0)
    fit = model.fit()
    middle, around = fit.beta, 8 * fit.std_error
    if not math.isfinite(fit.beta):  # no maximum, or a flat profile
        middle, around, reach = 0.0, 0.0, reach or 1 / model.residual_sd
    windows = []
    for largest in _LARGEST_EFFECTS:
        study, near = (min(part, largest / model.residual_sd) for part in (reach, around))
        windows.append((min(-study, middle - near), max(study, middle + near)))
    if cover is not None:
        lower, upper = windows[0]
        windows.insert(0, (min(lower, cover[0]), max(upper, cover[1])))
    for lower, upper in windows[:-1]:
        try:
            return model.nodes(lower, upper, tolerance=tolerance, maximum=maximum)
        except ConvergenceError:  # too wide
            continue
    return model.nodes(*windows[-1], tolerance=tolerance, maximum=maximum)


def _side(found: _Solution) -> int:
    """Where the log odds ratio still went when the log likelihood no longer rose; 0: nowhere."""
    step, beta = float(found.steps[0, -1]), float(found.coefficients[0, -1])
    if abs(step) <= 1e-3 * max(1.0, abs(beta) / 100):
        return 0
    return 1 if step > 0 else -1


class _Path:
    """Nuisance coefficients where they are known, and between."""

    def __init__(self) -> None:
        self._beta = np.empty(0)
        self._values = np.empty((0, 0))
        self._tangents = np.empty((0, 0))

    def add(self, beta: Float, coefficients: Float, tangents: Float) -> None:
        values = coefficients[:, :-1]
        if self._beta.size:
            beta = np.concatenate([self._beta, beta])
            values = np.concatenate([self._values, values])
            tangents = np.concatenate([self._tangents, tangents])
        _, order = np.unique(beta, return_index=True)
        if order.size > 1024:
            order = order[:: order.size // 512]
        self._beta, self._values, self._tangents = beta[order], values[order], tangents[order]

    def predict(self, beta: Float) -> Float:
        """Cubic between neighbours, along the tangent outside; shape (m, K - 1)."""
        right = np.clip(np.searchsorted(self._beta, beta), 1, max(self._beta.size - 1, 1))
        left = right - 1
        right = np.minimum(right, self._beta.size - 1)
        nearest = np.where(
            np.abs(beta - self._beta[left]) <= np.abs(beta - self._beta[right]), left, right
        )
        straight = (
            self._values[nearest] + (beta - self._beta[nearest])[:, None] * self._tangents[nearest]
        )
        inside = (beta > self._beta[left]) & (beta < self._beta[right])
        if not inside.any():
            return straight
        low, high = left[inside], right[inside]
        width = (self._beta[high] - self._beta[low])[:, None]
        t = (beta[inside] - self._beta[low])[:, None] / width
        straight[inside] = (
            (1 + 2 * t) * (1 - t) ** 2 * self._values[low]
            + t * (1 - t) ** 2 * width * self._tangents[low]
            + t**2 * (3 - 2 * t) * self._values[high]
            - t**2 * (1 - t) * width * self._tangents[high]
        )
        return straight


def _separation_sentence(side: int, infinite: list[str], supremum: float) -> str | None:
    """What separates cases from controls, in words."""
    sentences = []
    if side:
        direction = "+infinity" if side > 0 else "-infinity"
        sentences.append(
            "the exposure separates cases from controls given the covariates: the log likelihood "
            f"rises towards {supremum:.10g} as the log odds ratio tends to {direction}"
        )
    if infinite:
        sentences.append(
            f"{', '.join(infinite)} separate{'s' if len(infinite) == 1 else ''} cases from "
            "controls: infinite coefficients, and the profile is the supremum over them"
        )
    return "; ".join(sentences) or None
