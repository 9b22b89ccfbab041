"""Penalised splines from the between and within equations of an instrument.

The causal curve f of y = f(x) + u is identified twice. With P the projection on functions of the
instrument z and v the residual of the first stage,

- between: P y = P f(x) + P u, with E[u | z] = 0 (instrumental variables);
- within: (I - P) y = (I - P) (f(x) + lambda(v, z)) + e, E[u | v, z] = lambda (control function).

Each is weighted by the inverse of its variance. f and lambda are cubic splines with roughness
penalties; the smoothing parameter of f is integrated over its marginal likelihood; the covariance
is a sandwich with the error of the first stage, plus the prior's part for the bias of smoothing.
The within equation can be contradicted by the between one: a score test asks for interactions of
v with z, and a ladder of them ends at the between equation alone.

References
----------
Newey WK, Powell JL, Vella F. Econometrica, 1999. doi:10.1111/1468-0262.00037
Kim KI, Petrin A. A new control function approach for non-parametric regressions with endogenous
variables. NBER working paper 16679, 2011. doi:10.3386/w16679
Nychka D. Bayesian confidence intervals for smoothing splines. JASA, 1988.
doi:10.1080/01621459.1988.10478711
Wood SN, Fasiolo M. Biometrics, 2017. doi:10.1111/biom.12666
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrfast._validation import Float
from mrfast.nonlinear.sieve_rows import (
    RESIDUAL_FUNCTIONS,
    FirstStage,
    InfluenceTerms,
    ModelRows,
    inverse_of,
)
from mrfast.nonlinear.splines import BSpline, breakpoints_and_quantiles, quantile_breakpoints

__all__ = ["LevelFit", "LevelTest", "fit_level"]

TAU_GRID = np.geomspace(0.003, 30.0, 21)
"""Grid of tau, one over the root of the smoothing parameter of f (standardised units)."""
TAU_SCALE = 0.5
"""Scale of the half-Cauchy prior of tau."""
TAU_FLOOR = 0.98
"""Below level 0 tau is at least this times its mean at level 0."""
CURVATURE_SD = 2.0
"""Standard deviation of the prior of the mean curvature."""
UNDERSMOOTHING, UNEVENNESS = 1.25, 0.5
"""Of `undersmoothed`; found by the coverage of sharp curves."""
_START = (1.0 / 0.3**2, 1.0)
_OUTER_ROUNDS = 2
_STEPS = 8
_GRID_STEPS = 3
_INTERACTION_RIDGE = 1e-4
_RIDGE = 1e-8
_SMALL_EIGENVALUE = 1e-5


def exposure_functions(n: int) -> int:
    """Number of splines of the exposure: 24 for 10,000 people and fewer, growing with n^(1/6)."""
    growth: float = (max(n, 10_000) / 10_000) ** (1 / 6)
    return round(24 * growth)


def undersmoothed(tau: Float) -> Float:
    """Smoothing used for the curve where tau is what the data say of its roughness.

    One tau for the whole curve is an average of its roughness. Where the curve bends most it is
    too small, the more so the rougher the curve, and a band would be too narrow there.
    """
    return UNDERSMOOTHING * tau * (1.0 + UNEVENNESS * tau**2)


@dataclass(frozen=True)
class LevelTest:
    """Score test of the interactions of the next level.

    Attributes
    ----------
    statistic : float
    degrees_of_freedom : int
    p_value : float
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float


@dataclass(frozen=True, eq=False)
class LevelFit:
    """Posterior of the curve at one level of the ladder, on standardised scales.

    Attributes
    ----------
    level : int or None
        None: the between equation alone.
    spline : BSpline
        Of the standardised exposure.
    tau : ndarray of float64, shape: (t,)
    weights : ndarray of float64, shape: (t,)
        Posterior of tau.
    means : ndarray of float64, shape: (t, k + q)
        Coefficients of the splines and covariates at each tau.
    covariances : ndarray of float64, shape: (t, k + q, k + q)
    effective_degrees : float
        Of f.
    variance_between, variance_within : float
        Of u and e.
    test : LevelTest or None
    heteroscedasticity : LevelTest or None
        Of the residual of the first stage, by regressing its square on functions of z.
    between_gram : ndarray of float64
        Sums of products of the columns of the between equation, for fits of it alone.
    middle_98 : (float, float)
        Range over which the mean curvature is taken.
    """

    level: int | None
    spline: BSpline
    tau: Float
    weights: Float
    means: Float
    covariances: Float
    effective_degrees: float
    variance_between: float
    variance_within: float
    test: LevelTest | None
    heteroscedasticity: LevelTest | None
    between_gram: Float
    middle_98: tuple[float, float]

    @property
    def tau_mean(self) -> float:
        """Geometric posterior mean of tau."""
        return float(np.exp(self.weights @ np.log(self.tau)))

    def mixture(self) -> tuple[Float, Float]:
        """Posterior mean and covariance of the coefficients."""
        mean = self.weights @ self.means
        apart = self.means - mean
        within = np.einsum("t,tij->ij", self.weights, self.covariances)
        return mean, within + np.einsum("t,ti,tj->ij", self.weights, apart, apart)

    def draws(self, count: int, rng: np.random.Generator) -> Float:
        """Draws (count, k + q) of the coefficients: of tau, then of the normal law given it."""
        counts = rng.multinomial(count, self.weights)
        noise = rng.standard_normal((count, self.means.shape[1]))
        out = np.empty_like(noise)
        first = 0
        for t in np.flatnonzero(counts):
            last = first + counts[t]
            values, vectors = np.linalg.eigh(self.covariances[t])
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            out[first:last] = self.means[t] + np.einsum("bj,ij->bi", noise[first:last], root)
            first = last
        return out


class _Sums:
    """Gram matrices of one level: between and within parts of the model columns.

    Columns: exposure splines and covariates (`p`), contrasts of residual splines and
    interactions; the `own` ones are fitted, the rest belongs to the test of the next level.
    """

    def __init__(self, rows: ModelRows, raw_gram: Float) -> None:
        stage = rows.stage
        self.n = stage.n
        self.p = rows.n_exposure + stage.q
        raw = rows.columns
        self.contrast = _contrast(rows, raw)
        self.raw_gram = raw_gram
        instrument = slice(raw, len(self.raw_gram) - 1)
        self.inverse = stage.gram_inverse
        self.BB = self.raw_gram[instrument, instrument]
        self.raw_cross = self.raw_gram[instrument, :raw]  # B'[model]
        # Projections on the instrument columns; covariates are among these.
        self.raw_gamma = self.inverse @ self.raw_cross
        for j in range(stage.q):
            self.raw_gamma[:, rows.n_exposure + j] = 0.0
            self.raw_gamma[len(self.BB) - stage.q + j, rows.n_exposure + j] = 1.0
        self.gamma = self.raw_gamma @ self.contrast
        cross = self.raw_cross @ self.contrast
        y_cross = self.raw_gram[instrument, -1]
        y_gamma = self.inverse @ y_cross
        full = self.contrast.T @ self.raw_gram[:raw, :raw] @ self.contrast
        full_y = self.contrast.T @ self.raw_gram[:raw, -1]
        self.yy = float(self.raw_gram[-1, -1])
        self.PP, self.Py = full[: self.p, : self.p], full_y[: self.p]
        fitted = self.gamma.T @ cross
        projected = self.gamma.T @ self.BB @ self.gamma
        # W = columns less their projection
        self.WW = full - fitted - fitted.T + projected
        self.Wy = full_y - self.gamma.T @ y_cross - cross.T @ y_gamma
        self.Wy += self.gamma.T @ self.BB @ y_gamma
        self.yy_within = float(self.yy - 2 * y_gamma @ y_cross + y_gamma @ self.BB @ y_gamma)
        covariates = slice(rows.n_exposure, self.p)
        self.WW[covariates] = 0.0
        self.WW[:, covariates] = 0.0
        self.Wy[covariates] = 0.0
        self.between = projected[: self.p, : self.p]
        self.between_y = self.gamma[:, : self.p].T @ y_cross
        constant = np.zeros(len(self.BB))
        constant[: stage.functions if stage.basis != "powers" else 1] = 1.0
        self.column_means = constant @ cross / self.n


def _contrast(rows: ModelRows, raw: int) -> Float:
    """Map (raw columns, columns) that takes the constant direction out of the residual's."""
    k, first = rows.n_residual, rows.n_exposure + rows.stage.q
    if k == 0:
        return np.eye(raw)
    free = np.linalg.svd(np.ones((1, k)))[2][1:].T
    out = np.zeros((raw, raw - 1))
    out[:first, :first] = np.eye(first)
    out[first : first + k, first : first + k - 1] = free
    out[first + k :, first + k - 1 :] = np.eye(raw - first - k)
    return out


@dataclass(frozen=True, eq=False)
class _Penalties:
    """Penalties of f and lambda, the prior of the mean curvature, and a ridge."""

    f: Float
    residual: Float
    prior: Float
    ridge: float
    rank_f: int
    rank_residual: int


def _penalties(
    rows: ModelRows,
    spline: BSpline,
    residual: BSpline | None,
    contrast: Float,
    own: int,
    penalty: str | int,
    quantiles: tuple[float, float],
) -> _Penalties:
    k, q = spline.n_functions, rows.stage.q
    S_f, S_v, prior = (np.zeros((own, own)) for _ in range(3))
    if penalty == "2c":
        S_f[:k, :k] = spline.curvature_penalty(*quantiles)
        mean = spline.mean_curvature(*quantiles)
        prior[:k, :k] = np.outer(mean, mean) / CURVATURE_SD**2
    else:
        S_f[:k, :k] = spline.penalty(int(penalty))
    first = k + q
    m = rows.n_residual
    rank_residual = 0
    if m and residual is not None:
        free = contrast[first : first + m, first : first + m - 1]
        S_v[first : first + m - 1, first : first + m - 1] = free.T @ residual.penalty(2) @ free
        rank_residual = m - 2
        extra = np.arange(first + m - 1, own)
        prior[extra, extra] = _INTERACTION_RIDGE
    return _Penalties(
        S_f,
        S_v,
        prior,
        _RIDGE * rows.stage.n / own,
        k - (2 if penalty == 2 else 3),
        rank_residual,
    )


def fit_level(
    stage: FirstStage,
    level: int | None,
    *,
    penalty: str | int = "2c",
    tau_floor: float = 0.0,
    between_of: LevelFit | None = None,
) -> LevelFit:
    """Fit one level of the ladder.

    Parameters
    ----------
    stage : FirstStage
    level : {0, 1, 2} or None
        None is the between equation alone (instrumental variables without control function).
    penalty : {"2c", 2, 3}
        Of f: curvature about its mean, second or third derivative.
    tau_floor : float
        Smallest tau: less information must not make the curve look straighter.
    between_of : LevelFit, optional
        Fit of another level. Level None then takes its sums and makes no pass over the rows: the
        covariance is that of the posterior with independent errors of equal variance.

    Returns
    -------
    LevelFit
    """
    if between_of is None:
        points, tails = breakpoints_and_quantiles(
            stage.x, exposure_functions(stage.n), (0.01, 0.99)
        )
        spline, middle_98 = BSpline(points), (float(tails[0]), float(tails[1]))
    else:
        spline, middle_98 = between_of.spline, between_of.middle_98
    residual = None
    if level is not None:
        residual = BSpline(quantile_breakpoints(stage.residual, RESIDUAL_FUNCTIONS))
    rows = ModelRows(stage, spline, residual, level)
    gram = rows.gram() if between_of is None else between_of.between_gram
    sums = _Sums(rows, gram)
    own = len(sums.WW) - len(rows.next)
    costs = _penalties(rows, spline, residual, sums.contrast, own, penalty, middle_98)
    system = _System(sums, costs, own, within=level is not None)
    lam, variances, theta = system.smoothing(tau_floor)
    posterior = system.posterior(variances, lam[1], tau_floor)
    p, inverse = sums.p, posterior.inverse
    covariances: Float = inverse[:, :p, :p]
    test = heteroscedasticity = None
    if between_of is None:
        meat, squares = _meat(rows, sums, theta, variances, own)
        middle = meat[:own, :own] + posterior.smooth
        covariances = (inverse[:, :p] @ middle) @ inverse[:, :, :p]
        if rows.next:
            test = _score_test(sums, own, variances[1], *posterior.mode, costs.prior, meat)
        if squares is not None:
            heteroscedasticity = _heteroscedasticity(stage, squares)
    between = np.r_[:p, rows.columns : len(gram)]
    return LevelFit(
        level=level,
        spline=spline,
        tau=posterior.tau,
        weights=posterior.weights,
        means=posterior.means[:, :p],
        covariances=covariances,
        effective_degrees=posterior.effective_degrees(spline.n_functions),
        variance_between=variances[0],
        variance_within=variances[1],
        test=test,
        heteroscedasticity=heteroscedasticity,
        between_gram=gram[np.ix_(between, between)],
        middle_98=middle_98,
    )


def _fellner_schall(lam: Float, S: Float, rank: int, inverse: Float, theta: Float) -> Float:
    """Next smoothing parameters: (rank - lam tr(H^-1 S)) / (theta' S theta)."""
    trace = np.einsum("...ij,ji->...", inverse, S)
    size = np.einsum("...i,ij,...j->...", theta, S, theta)
    step: Float = np.clip((rank - lam * trace) / np.maximum(size, 1e-300), 1e-6, 1e7)
    return step


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Of the coefficients at each tau, and of tau."""

    tau: Float
    weights: Float
    means: Float
    inverse: Float
    smooth: Float
    data: Float  # matrix of the equations without smoothing and ridge
    mode: tuple[Float, Float, Float]  # coefficients, inverse and smoothing at the likeliest tau

    def effective_degrees(self, k: int) -> float:
        """Mean effective degrees of freedom of the first k coefficients."""
        traces = np.einsum("tij,ji->t", self.inverse[:, :k], self.data[:, :k])
        return float(self.weights @ traces)


class _System:
    """Penalised equations of one level."""

    def __init__(self, sums: _Sums, costs: _Penalties, own: int, *, within: bool) -> None:
        self.sums, self.costs, self.own, self.within = sums, costs, own, within

    def equations(self, between: float, within: float) -> tuple[Float, Float]:
        """Matrix and right side without the smoothing penalties."""
        p, own, sums = self.sums.p, self.own, self.sums
        A = self.costs.prior + self.costs.ridge * np.eye(own)
        r = np.zeros(own)
        A[:p, :p] += sums.between / between
        r[:p] = sums.between_y / between
        if self.within:
            A += sums.WW[:own, :own] / within
            r += sums.Wy[:own] / within
        return A, r

    def smoothing(self, tau_floor: float) -> tuple[tuple[float, float], tuple[float, float], Float]:
        """Smoothing parameters, variances and coefficients."""
        costs, sums, p, own = self.costs, self.sums, self.sums.p, self.own
        most = np.inf if tau_floor <= 0 else tau_floor**-2.0
        lam_f, lam_v = min(_START[0], most), _START[1]
        variances = (1.0, 0.7)
        theta = np.zeros(own)
        for _ in range(_OUTER_ROUNDS):
            A, r = self.equations(*variances)
            for step in range(_STEPS + 1):
                inverse = inverse_of(A + lam_f * costs.f + lam_v * costs.residual)
                theta = inverse @ r
                if step == _STEPS:
                    break
                f = _fellner_schall(np.array(lam_f), costs.f, costs.rank_f, inverse, theta)
                if self.within:
                    lam_v = float(
                        _fellner_schall(
                            np.array(lam_v), costs.residual, costs.rank_residual, inverse, theta
                        )
                    )
                lam_f = min(float(f), most)
            own_f = theta[:p]
            between = float(sums.yy - 2 * own_f @ sums.Py + own_f @ sums.PP @ own_f)
            within = variances[1] * sums.n
            if self.within:
                within = float(
                    sums.yy_within - 2 * theta @ sums.Wy[:own] + theta @ sums.WW[:own, :own] @ theta
                )
            variances = (between / sums.n, within / sums.n)
        return (lam_f, lam_v), variances, theta

    def posterior(
        self, variances: tuple[float, float], lam_residual: float, tau_floor: float
    ) -> _Posterior:
        """Posterior of tau on its grid, and of the coefficients given it, undersmoothed."""
        costs, own = self.costs, self.own
        tau = TAU_GRID[tau_floor <= TAU_GRID]
        if not len(tau):
            tau = TAU_GRID[-1:]
        A, r = self.equations(*variances)
        lam_f, lam_v = tau**-2.0, np.full(len(tau), lam_residual)

        def smooth(of_f: Float) -> Float:
            total: Float = of_f[:, None, None] * costs.f + lam_v[:, None, None] * costs.residual
            return total

        for _ in range(_GRID_STEPS if self.within else 0):
            inverse = inverse_of(A + smooth(lam_f))
            means = np.einsum("tij,j->ti", inverse, r)
            lam_v = _fellner_schall(lam_v, costs.residual, costs.rank_residual, inverse, means)
        H = A + smooth(lam_f)
        means = np.linalg.solve(H, np.broadcast_to(r[:, None], (*H.shape[:2], 1)))[..., 0]
        evidence = 0.5 * (means @ r - np.linalg.slogdet(H)[1] + costs.rank_f * np.log(lam_f))
        evidence += 0.5 * costs.rank_residual * np.log(lam_v)
        evidence += np.log(tau) - np.log1p((tau / TAU_SCALE) ** 2)
        weights = np.exp(evidence - evidence.max())
        weights /= weights.sum()
        top = int(np.argmax(weights))
        mode = (means[top], inverse_of(H[top]), H[top] - A)
        used = smooth(undersmoothed(tau) ** -2.0)
        inverse = inverse_of(A + used)
        return _Posterior(
            tau=tau,
            weights=weights,
            means=np.einsum("tij,j->ti", inverse, r),
            inverse=inverse,
            smooth=used,
            data=A - costs.ridge * np.eye(own),
            mode=mode,
        )


def _meat(
    rows: ModelRows, sums: _Sums, theta: Float, variances: tuple[float, float], own: int
) -> tuple[Float, Float | None]:
    """Sum of influences times themselves, of all columns, and sums of powers of v.

    The influence of a row on the score is Pb u / s_u^2 + W e / s_e^2 + T (B'B)^-1 B v, the last
    for the error of the first stage: T = sum W lambda' B' / s_e^2.
    """
    between, within = variances
    columns = sums.contrast.shape[1]
    padded = np.zeros(columns)
    padded[:own] = theta
    raw = sums.contrast @ padded
    p = sums.p
    between_map = np.zeros_like(sums.raw_gamma)
    between_map[:, :p] = sums.raw_gamma[:, :p] / between
    squares = None
    if rows.n_residual:
        slopes, squares = rows.slope_sums(raw)
        model = len(raw)
        T = (slopes[:model] - sums.raw_gamma.T @ slopes[model:]) / within
        T[rows.n_exposure : p] = 0.0
        terms = InfluenceTerms(
            coefficients=raw,
            within_weight=1.0 / within,
            offset=float(sums.column_means[p:own] @ theta[p:]),
            between=between_map,
            within=-sums.raw_gamma / within,
            first_stage=sums.inverse @ T.T,
        )
    else:
        nothing = np.zeros_like(between_map)
        terms = InfluenceTerms(raw, 0.0, 0.0, between_map, nothing, nothing)
    meat = rows.influence_gram(terms)
    return sums.contrast.T @ meat @ sums.contrast, squares


def _score_test(
    sums: _Sums,
    own: int,
    within: float,
    theta: Float,
    inverse: Float,
    smooth: Float,
    prior: Float,
    meat: Float,
) -> LevelTest:
    """Score of the next level's columns at the fit without them, against its sandwich."""
    from scipy.special import chdtrc

    J = sums.WW[own:, :own] / within
    score = (sums.Wy[own:] - sums.WW[own:, :own] @ theta) / within
    G = J @ inverse
    R = np.concatenate([-G, np.eye(len(score))], axis=1)
    variance = R @ meat @ R.T + G @ (smooth + prior) @ G.T
    values, vectors = np.linalg.eigh((variance + variance.T) / 2.0)
    kept = values > _SMALL_EIGENVALUE * values[-1]
    statistic = float(np.sum((vectors[:, kept].T @ score) ** 2 / values[kept]))
    rank = int(kept.sum())
    return LevelTest(statistic, rank, float(chdtrc(rank, statistic)))


def _heteroscedasticity(stage: FirstStage, squares: Float) -> LevelTest:
    """Whether v^2 depends on z and covariates: n R2 of its regression on their functions."""
    from scipy.special import chdtrc

    n = stage.n
    explained = float(squares[:-1] @ stage.gram_inverse @ squares[:-1]) - n
    statistic = n * explained / (float(squares[-1]) - n)
    degrees = stage.functions + stage.q - 1
    return LevelTest(statistic, degrees, float(chdtrc(degrees, max(statistic, 0.0))))
