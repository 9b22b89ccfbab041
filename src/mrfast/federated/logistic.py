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

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float, fail
from mrfast.errors import ConvergenceError
from mrfast.federated import _chebyshev as chebyshev
from mrfast.federated._design import binary_outcome, covariate_array, numbers, pack, scales
from mrfast.federated._newton import Maxima, maximise, solve
from mrfast.federated.dosage_scan import SnpScan, snp_scan
from mrfast.federated.node_profile import NodeProfile, chebyshev_nodes

__all__ = ["LogisticFit", "LogisticModel", "ProfilePoints", "SnpScan", "site_nodes", "snp_scan"]

_FIRST_NODES = 9
_ROUGH = 1e-5  # squared Newton decrement that suffices to look ahead


@dataclass(frozen=True)
class LogisticFit:
    """Maximum of the log likelihood over all coefficients.

    Attributes
    ----------
    beta, std_error : float
        Log odds ratio per unit of the exposure; infinite where it has no maximum.
    log_likelihood : float
        Its largest value, or its supremum; penalised where there is a prior.
    nuisance : ndarray, shape (1 + p,)
        Intercept and coefficients of the covariates; NaN where aliased.
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
        self._design = pack(
            y,
            x,
            moments,
            exposure=s,
            exposure_centre=self._centre,
            exposure_scale=self._scale,
            weights=w,
            offset=o,
            precision=precision,
            threads=self._threads,
        )
        kept, gram = self._design.kept, self._design.gram
        self._kept, self._transform, self._origin = (
            kept,
            self._design.transform,
            self._design.origin,
        )
        self.aliased = tuple(self.names[j] for j in np.setdiff1d(np.arange(p), kept))
        k = kept.size + 2
        self._penalty = np.zeros((k, k))
        self._penalty[1:-1, 1:-1] = self._transform.T @ (precision[kept][:, None] * self._transform)
        self._penalised = bool(self._penalty.any())
        self._log_scale = float(np.linalg.slogdet(self._transform)[1]) if kept.size else 0.0
        bound = gram + 4 * self._penalty
        schur = bound[-1, -1] - bound[-1, :-1] @ np.linalg.solve(bound[:-1, :-1], bound[:-1, -1])
        self.residual_sum_of_squares = float(schur) / self._scale**2
        self.residual_sd = math.sqrt(self.residual_sum_of_squares / self._total)
        self._fit: LogisticFit | None = None
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
                inverse = np.ascontiguousarray(np.linalg.inv(matrix))
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
            best, -slopes, value, scores, curvature, half_logdet, found.step, found.converged
        )

    # ------------------------------------------------------------------ the full fit

    def fit(self) -> LogisticFit:
        """Maximum over all coefficients; found once.

        Returns
        -------
        LogisticFit
        """
        if self._fit is None:
            self._fit = self._full_fit()
        return self._fit

    def _full_fit(self) -> LogisticFit:
        k = self._kept.size + 2
        start = np.zeros((1, k))
        start[0, 0] = math.log(self._prevalence / (1 - self._prevalence))
        found = self._maximise(start, k)
        if not found.converged[0]:
            raise ConvergenceError("the logistic regression did not converge")
        step = found.steps[0]
        beta, side = float(found.coefficients[0, -1]), 0
        if abs(step[-1]) > 1e-3 * max(1.0, abs(beta) / 100):
            side = 1 if step[-1] > 0 else -1
        # The last step took the exposure along: at this b the nuisance coefficients follow.
        self._path.add(found.coefficients[:, -1], found.coefficients, found.tangents)
        value = float(found.values[0])
        if side:
            value = self._supremum(side, beta)
        else:
            move = float(found.scores[0] / found.information[0])
            value += 0.5 * float(found.scores[0]) * move if not self._firth else 0.0
            beta += move if not self._firth else 0.0
        nuisance = np.full(len(self.names) + 1, np.nan)
        slopes = self._transform @ found.coefficients[0, 1:-1]
        nuisance[1 + self._kept] = slopes
        nuisance[0] = (
            found.coefficients[0, 0]
            - slopes @ self._origin
            - found.coefficients[0, -1] * self._scale * self._centre
        )
        infinite = self._infinite(step)
        std_error = math.inf
        if not side:
            std_error = float(found.information[0]) ** -0.5 * self._scale
        return LogisticFit(
            beta=math.inf * side if side else beta * self._scale,
            std_error=std_error,
            log_likelihood=value,
            nuisance=nuisance,
            converged=True,
            monotone=side,
            separation=_separation_sentence(side, infinite, value),
        )

    def _infinite(self, step: Float) -> tuple[str, ...]:
        """Covariates whose coefficients still grew when the log likelihood no longer did."""
        if np.max(np.abs(step[:-1])) < 1e-5 or self._firth:
            return ()
        moves = np.abs(self._transform @ step[1:-1]) / np.sqrt(np.sum(self._transform**2, axis=1))
        if not moves.size or moves.max() < 1e-5:
            return ()
        return tuple(self.names[self._kept[j]] for j in np.flatnonzero(moves > 0.05 * moves.max()))

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
        self._path.add(beta, found.coefficients, found.tangents)
        return found

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
        self.fit()
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
            For the last three Chebyshev coefficients of the slope times half the window.
        minimum, maximum : int
            Number of nodes that are fitted.
        through_information : bool
            The slope's polynomial goes through the information at the nodes too: half as many fits
            for the same precision. The result then holds twice as many nodes, the ones between
            taken from the polynomial.

        Returns
        -------
        NodeProfile

        Raises
        ------
        ConvergenceError
            The number of nodes does not suffice, or Newton's method failed at one of them.
        """
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
            if doubled:
                tail = slope
            error = float(np.abs(tail[-3:]).max()) * half
            if not rough and (error <= tolerance or m >= maximum):
                break
            needed = chebyshev.length_needed(np.abs(slope) * half, tolerance)
            if doubled:
                needed = needed // 2 + 1
            if not rough:
                needed = max(needed, math.ceil(1.25 * m))
            m, rough = min(max(minimum, min(needed, 4 * m)), maximum), False
            nuisance = chebyshev.evaluate(path, chebyshev_nodes(-1, 1, m))
            guess = np.column_stack([nuisance, chebyshev_nodes(lower, upper, m) / self._scale])
        if error > tolerance:
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
    tolerance: float = 1e-8,
    maximum: int = 512,
) -> NodeProfile:
    """Profile of a site on its study window.

    The window holds ``kappa * [-effect_range, effect_range]`` and, where there is a maximum, eight
    standard errors on either side of it.

    Parameters
    ----------
    model : LogisticModel
    kappa : float
        Change of the exposure per unit of score.
    effect_range : float
        Largest causal log odds ratio per unit of exposure that the study considers.
    tolerance : float
        As `LogisticModel.nodes`.
    maximum : int
        As `LogisticModel.nodes`.

    Returns
    -------
    NodeProfile
    """
    reach = abs(check.scalar("kappa", kappa)) * check.scalar("effect_range", effect_range, above=0)
    fit = model.fit()
    if fit.monotone:
        if reach == 0:
            reach = 1 / model.residual_sd
        return model.nodes(-reach, reach, tolerance=tolerance, maximum=maximum)
    lower = min(-reach, fit.beta - 8 * fit.std_error)
    upper = max(reach, fit.beta + 8 * fit.std_error)
    return model.nodes(lower, upper, tolerance=tolerance, maximum=maximum)


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


def _separation_sentence(side: int, infinite: tuple[str, ...], supremum: float) -> str | None:
    """What separates cases from controls, in words."""
    sentences = []
    if side:
        direction = "+infinity" if side > 0 else "-infinity"
        sentences.append(
            "the exposure separates cases from controls given the covariates: the log likelihood "
            f"rises towards {supremum:.10g} as the log odds ratio tends to {direction}"
        )
    elif infinite:
        sentences.append(
            f"infinite coefficients of {', '.join(infinite)}, which separate"
            f"{'s' if len(infinite) == 1 else ''} cases from controls: the profile is the supremum "
            "over them"
        )
    return "; ".join(sentences) or None
