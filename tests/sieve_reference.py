"""Dense numpy computation of the sieve instrumental-variable curve, slow and independent.

Nothing of mrfast is imported. Every basis is an n x k matrix, every projection a least-squares
product, every sum of influence functions the product of n x k matrices, as the definitions have
them; the library reaches the same numbers from streamed Gram matrices. `fit` is the whole method:
cross-fitted score, specification ladder, curve, bands and tests, with covariates, weights and
clusters.

Letters: B functions of the instrument (and the covariates), P functions of the exposure, D
functions of the residual v of the first stage. "Between" is the projection of an equation on B,
"within" is what the projection leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline
from scipy.stats import chi2


@dataclass(frozen=True)
class Options:
    """Constants of the method; the defaults are those of the golden curves."""

    level: float = 0.95
    n_draws: int = 2000
    folds: int = 5
    alpha_spec: float = 0.05
    penalty: str | int = "2c"  # curvature about its mean, or the order (2, 3) of the derivative
    k_exposure: int = 18
    k_residual: int = 10
    k_instrument: int | None = None  # None: the largest of 12, 8, 5, 3 that the data support
    tau_low: float = 0.003
    tau_high: float = 30.0
    tau_points: int = 21
    tau_scale: float = 0.5  # of the half-Cauchy prior
    curvature_sd: float = 2.0  # of the prior of the mean curvature
    tau_floor: float = 0.98  # times the level-0 tau: the lowest tau below level 0
    undersmoothing: float | None = None  # u: the curve of tau is that of u tau (1 + tau^2 / 2)
    outer_rounds: int = 2
    smoothing_steps: int = 8
    score_seed: int = 0
    draw_seed: int = 1

    @classmethod
    def released(cls, n, **changes):
        """Constants that the coverage study led to."""
        k = round(24 * (max(n, 10_000) / 10_000) ** (1 / 6))
        return cls(**{"k_exposure": k, "undersmoothing": 1.25} | changes)


@dataclass
class Spline:
    """Cubic B-splines with interior knots at quantiles of the data and its range as boundary."""

    knots: np.ndarray

    @classmethod
    def of(cls, x, k):
        """k functions; fewer where quantiles coincide or x has fewer than k + 1 values."""
        values = np.unique(x)
        k = min(k, max(4, len(values) - 1))
        inner = np.unique(np.quantile(x, np.linspace(0.01, 0.99, k - 4))) if k > 4 else values[:0]
        inner = inner[(inner > values[0]) & (inner < values[-1])]
        return cls(np.r_[[values[0]] * 4, inner, [values[-1]] * 4])

    @property
    def size(self):
        return len(self.knots) - 4

    def values(self, x, order=0):
        """Derivative of the given order, (m, k)."""
        x = np.clip(np.asarray(x, dtype=float), self.knots[0], self.knots[-1])
        if order == 0:
            return BSpline.design_matrix(x, self.knots, 3).toarray()
        return BSpline(self.knots, np.eye(self.size), 3).derivative(order)(x)

    def penalty(self, order, centre=0.0):
        """Integral over the knots' range of the squared derivative about `centre`."""
        nodes, weights = np.polynomial.legendre.leggauss(4)
        breaks = np.unique(self.knots)
        half = np.diff(breaks)[:, None] / 2
        values = self.values((breaks[:-1, None] + half + half * nodes).ravel(), order) - centre
        return (values * (half * weights).ravel()[:, None]).T @ values


# ------------------------------------------------------------------------- first stage


def cross_fitted_score(G, x, C, weight, options):
    """Linear score of the instruments; a person's weights come from the other folds."""
    n, p = G.shape
    if p == 1:
        return G[:, 0].astype(float)
    centred = np.column_stack([G, C])
    centred = centred - np.average(centred, axis=0, weights=weight)
    outcome, root = x - np.average(x, weights=weight), np.sqrt(weight)[:, None]
    fold = np.random.default_rng(options.score_seed).permutation(n) % options.folds
    score = np.empty(n)
    for k in range(options.folds):
        rest = fold != k
        b = np.linalg.lstsq(centred[rest] * root[rest], outcome[rest] * root[rest, 0], rcond=None)
        score[~rest] = centred[~rest, :p] @ b[0][:p]
    return score


def instrument_basis(z, k):
    """Functions of the instrument: one for each level, a parabola, or cubic B-splines."""
    levels = np.unique(z)
    if len(levels) <= 14:
        return (z[:, None] == levels).astype(float)
    if k == 3:
        return np.column_stack([np.ones(len(z)), z, z**2])
    return Spline.of(z, k).values(z)


def interactions(v, z, level, discrete):
    """Columns of a level of the ladder and their derivatives in v."""
    S = np.empty((0, len(z))) if discrete or level < 2 else Spline.of(z, 8).values(z)[:, 2:-1].T
    terms = []
    if level >= 1:
        terms += [(v * z, z), (v * (z**2 - 1), z**2 - 1), (v**2 * z, 2 * v * z)]
    if level >= 2:
        terms += [(v * s, s) for s in S]
        terms += [(v**2 * (z**2 - 1), 2 * v * (z**2 - 1)), (v**3 * z, 3 * v**2 * z)]
    if level >= 3:
        terms += [(v**2 * s, 2 * v * s) for s in S]
        terms += [(v**3 * (z**2 - 1), 3 * v**2 * (z**2 - 1)), (v**4 * z, 4 * v**3 * z)]
    pair = np.array(terms).reshape(-1, 2, len(v))
    return pair[:, 0].T, pair[:, 1].T


@dataclass
class Stage:
    """Standardised data and first stage."""

    x: np.ndarray
    y: np.ndarray
    C: np.ndarray
    weight: np.ndarray
    clusters: np.ndarray | None
    B: np.ndarray
    v: np.ndarray
    z: np.ndarray
    discrete: bool
    k: int
    F: float
    R2: float
    location: tuple
    scale: tuple


def standardised(a, weight):
    """Mean and standard deviation, and (a - mean) / sd."""
    mean = np.average(a, axis=0, weights=weight)
    sd = np.sqrt(np.average((a - mean) ** 2, axis=0, weights=weight))
    return mean, sd, (a - mean) / sd


def first_stage(G, X, Y, covariates, weight, clusters, options):
    """Calibrated exposure, its residual, strength of the instrument."""
    n = len(X)
    weight = np.ones(n) if weight is None else weight * n / weight.sum()
    C = np.empty((n, 0)) if covariates is None else standardised(covariates, weight)[2]
    score = cross_fitted_score(G, X, C, weight, options)
    mx, sx, x = standardised(X, weight)
    my, sy, y = standardised(Y, weight)
    z = standardised(score, weight)[2]
    for k in (12, 8, 5, 3) if options.k_instrument is None else (options.k_instrument,):
        B = np.column_stack([instrument_basis(z, k), C])
        root = np.sqrt(weight)[:, None]
        pi = B @ np.linalg.lstsq(B * root, x * root[:, 0], rcond=None)[0]
        K = B.shape[1] - C.shape[1]
        signal = pi
        if C.shape[1]:  # strength beyond the covariates
            A = np.column_stack([np.ones(n), C])
            signal = pi - A @ np.linalg.lstsq(A * root, x * root[:, 0], rcond=None)[0]
        v = x - pi
        R2 = np.average(signal**2, weights=weight)
        F = n * R2 / (K - 1) / (np.sum(weight * v**2) / (n - B.shape[1]))
        if n * R2 / (K - 1) >= 20 or len(np.unique(z)) <= 14:
            break
    zt = standardised(pi, weight)[2]
    discrete = len(np.unique(z)) <= 4
    return Stage(x, y, C, weight, clusters, B, v, zt, discrete, K, F, R2, (mx, my), (sx, sy))


# ------------------------------------------------------------------------------ curve


@dataclass
class Curve:
    """Mixture over the smoothing parameter of one level of the ladder."""

    stage: Stage
    spline: Spline
    level: int | None  # None: the between equation only
    tau: np.ndarray
    weight: np.ndarray
    coefficients: np.ndarray  # (tau, k)
    covariance: np.ndarray  # (tau, k, k)
    edf: float
    su2: float
    se2: float
    score_test: tuple[float, int, float] | None = None  # statistic, rank, p

    def design(self, points, order=0):
        """Rows of the basis at exposures on their own scale, centred covariates at zero."""
        (mx, _), (sx, sy) = self.stage.location, self.stage.scale
        return self.spline.values((np.asarray(points) - mx) / sx, order) * sy / sx**order

    def functional(self, rows):
        """Estimate and standard error of rows @ coefficients."""
        each = self.coefficients @ rows.T
        mean = self.weight @ each
        variance = np.einsum("ij,tjk,ik->ti", rows, self.covariance, rows)
        return mean, np.sqrt(self.weight @ (variance + (each - mean) ** 2))

    def values(self, points):
        mean, se = self.functional(self.design(points))
        return mean + self.stage.location[1], se

    def draws(self, options):
        """Coefficients drawn from the mixture."""
        rng = np.random.default_rng(options.draw_seed)
        counts = rng.multinomial(options.n_draws, self.weight / self.weight.sum())
        parts = []
        for count, b, V in zip(counts, self.coefficients, self.covariance, strict=True):
            values, vectors = np.linalg.eigh(V)
            root = vectors * np.sqrt(np.clip(values, 0, None))
            parts.append(b + rng.standard_normal((count, len(b))) @ root.T)
        return np.concatenate(parts)

    @property
    def geometric_tau(self):
        return np.exp(self.weight @ np.log(self.tau))


def symmetric_sum(m, clusters):
    """Sum of m_i m_i', after summing inside clusters."""
    if clusters is not None:
        m = np.array([m[clusters == g].sum(axis=0) for g in np.unique(clusters)])
    return m.T @ m


def curve(stage, level, options, floor=0.0, test=True):
    """Steps 2 to 9 of the method at one level of the ladder; level None is the between equation."""
    s, n = stage, len(stage.x)
    root = np.sqrt(s.weight)[:, None]  # every row enters by its square root, products by weight
    B = s.B * root
    inverse = np.linalg.inv(B.T @ B + 1e-9 * n / s.k * np.eye(B.shape[1]))

    def between(a):
        return B @ (inverse @ (B.T @ a))

    spline = Spline.of(s.x, options.k_exposure)
    kf = spline.size
    P = np.column_stack([spline.values(s.x), s.C]) * root
    k_p = P.shape[1]
    Pb = between(P)
    within = level is not None
    sd_v = np.sqrt(np.average(s.v**2, weights=s.weight))
    vs = s.v / sd_v
    residual = Spline.of(vs, options.k_residual)
    contrasts = np.linalg.svd(np.ones((1, residual.size)))[2][1:].T  # no constant
    D, dD = residual.values(vs) @ contrasts, residual.values(vs, 1) @ contrasts
    n_smooth = D.shape[1]
    extra = interactions(vs, s.z, level or 0, s.discrete)
    D, dD = np.column_stack([D, extra[0]]), np.column_stack([dD, extra[1]]) / sd_v
    D = (D - np.average(D, axis=0, weights=s.weight)) * root
    if not within:
        D, dD, n_smooth = D[:, :0], dD[:, :0], 0
    W = np.column_stack([P - Pb, D - between(D)])
    k = W.shape[1]
    y, v = s.y * root[:, 0], s.v * root[:, 0]

    def block(start, matrix):
        out = np.zeros((k, k))
        stop = start + len(matrix)
        out[start:stop, start:stop] = matrix
        return out

    low, high = np.quantile(s.x, [0.01, 0.99])
    c = (spline.values([high], 1) - spline.values([low], 1))[0] / (high - low)
    order = 3 if options.penalty == 3 else 2
    S1 = block(0, spline.penalty(order, c if options.penalty == "2c" else 0.0))
    prior = block(0, np.outer(c, c) / options.curvature_sd**2 * (options.penalty == "2c"))
    prior += np.diag(np.r_[np.zeros(k_p + n_smooth), np.full(k - k_p - n_smooth, 1e-4)])
    S2 = block(k_p, contrasts.T @ residual.penalty(2) @ contrasts if within else np.zeros((0, 0)))
    r1, r2 = kf - (2 if options.penalty == 2 else 3), n_smooth - 1
    su2, se2 = 1.0, 0.7

    def system(su2, se2):
        A = block(0, Pb.T @ Pb) / su2 + prior + 1e-8 * n / k * np.eye(k)
        r = np.r_[Pb.T @ y, np.zeros(k - k_p)] / su2
        return (A + W.T @ W / se2, r + W.T @ y / se2) if within else (A, r)

    def step(lam, S, rank, inverse_H, th):
        return np.clip((rank - lam * np.trace(inverse_H @ S)) / (th @ S @ th), 1e-6, 1e7)

    l1, l2 = 0.3**-2, 1.0
    floor_l1 = np.inf if floor == 0 else floor**-2
    for _ in range(options.outer_rounds):
        A, r = system(su2, se2)
        for _ in range(options.smoothing_steps):
            Hi = np.linalg.inv(A + l1 * S1 + l2 * S2)
            th = Hi @ r
            l1 = min(step(l1, S1, r1, Hi, th), floor_l1)
            l2 = step(l2, S2, r2, Hi, th) if within else l2
        Hi = np.linalg.inv(A + l1 * S1 + l2 * S2)
        th = Hi @ r
        u = y - P @ th[:k_p]
        e = u - D @ th[k_p:]
        su2 = np.mean(u**2)
        se2 = np.mean((e - between(e)) ** 2) if within else se2

    # influence of a row on the score, first-stage error included
    def influence(columns, th, e):
        """Within score of columns: e_i times the row, and the part of the first stage."""
        slope = dD @ th[k_p:]
        T = columns.T @ (slope[:, None] * s.B * root) / se2
        return columns * (e / se2)[:, None] + (B * v[:, None]) @ (inverse @ T.T)

    m = np.column_stack([Pb * (u / su2)[:, None], np.zeros((n, k - k_p))])
    if within:
        m = m + influence(W, th, e)
    M = symmetric_sum(m, s.clusters)
    A, r = system(su2, se2)
    grid = np.geomspace(options.tau_low, options.tau_high, options.tau_points)
    grid = grid[grid >= floor]
    logs, b, V, edf, penalties = [], [], [], [], []
    for tau in grid:
        lam1, lam2 = tau**-2.0, l2
        for _ in range(3 if within else 0):
            Hi = np.linalg.inv(A + lam1 * S1 + lam2 * S2)
            lam2 = step(lam2, S2, r2, Hi, Hi @ r)
        S = lam1 * S1 + lam2 * S2
        Hi = np.linalg.inv(A + S)
        th_tau = Hi @ r
        evidence = 0.5 * (np.linalg.slogdet(Hi)[1] + th_tau @ r + r1 * np.log(lam1))
        evidence += 0.5 * r2 * np.log(lam2) if within else 0.0
        logs.append(evidence + np.log(tau) - np.log1p((tau / options.tau_scale) ** 2))
        if options.undersmoothing is not None:
            S = (options.undersmoothing * tau * (1 + tau**2 / 2)) ** -2 * S1 + lam2 * S2
            Hi = np.linalg.inv(A + S)
            th_tau = Hi @ r
        b.append(th_tau)
        V.append((Hi @ (M + S) @ Hi)[:kf, :kf])
        penalties.append(S)
        edf.append(np.trace((Hi @ A)[:kf, :kf]))
    w = np.exp(np.array(logs) - max(logs))
    w /= w.sum()
    out = Curve(s, spline, level, grid, w, np.array(b)[:, :kf], np.array(V), w @ edf, su2, se2)
    if within and test and level < 3:  # score of the next level at the mode of tau
        S, th = penalties[np.argmax(w)], b[np.argmax(w)]
        next_level = interactions(vs, s.z, level + 1, s.discrete)[0][:, extra[0].shape[1] :] * root
        cw = next_level - between(next_level)
        e = y - P @ th[:k_p] - D @ th[k_p:]
        Hi = np.linalg.inv(A + S)
        J = cw.T @ W / se2
        each = influence(cw, th, e) - m @ (Hi @ J.T)
        variance = symmetric_sum(each, s.clusters) + J @ Hi @ (S + prior) @ Hi @ J.T
        values, vectors = np.linalg.eigh(variance)
        keep = values > 1e-5 * values[-1]
        statistic = np.sum((vectors[:, keep].T @ (cw.T @ e / se2)) ** 2 / values[keep])
        out.score_test = (statistic, int(keep.sum()), chi2.sf(statistic, keep.sum()))
    return out


# ----------------------------------------------------------------------- bands and tests


def uniform_critical_value(fit, points, options):
    """Quantile of the largest standardised distance of a draw from the curve."""
    rows = fit.design(points)
    mean, se = fit.functional(rows)
    distance = np.abs(fit.draws(options) @ rows.T - mean) / se
    return np.quantile(distance.max(axis=1), options.level)


def sup_test(fit, points, null, options):
    """p-value of the curve being in the column span of `null` (m, r) on the points."""
    rows = fit.design(points)
    rows = rows - null @ np.linalg.lstsq(null, rows, rcond=None)[0]
    mean, se = fit.functional(rows)
    draws = np.abs(fit.draws(options) @ rows.T - mean) / se
    return np.mean(draws.max(axis=1) >= (np.abs(mean) / se).max())


def central_points(X, m=200):
    """Grid of the central 95% of the exposure."""
    return np.linspace(*np.quantile(X, [0.025, 0.975]), m)


@dataclass
class Fit:
    """What a fit returns."""

    chosen: Curve
    level0: Curve
    p_levels: tuple[float, ...]
    critical_value: float
    p_linear: float
    p_no_effect: float

    def band(self, points):
        estimate, se = self.chosen.values(points)
        half = self.critical_value * se
        return estimate, estimate - half, estimate + half


def fit(
    G, X, Y, covariates=None, *, weight=None, clusters=None, method="auto", options=Options()
) -> Fit:
    """The whole method; `method` is "auto", "cf" (level 0) or "npiv"."""
    G = np.asarray(G, dtype=float).reshape(len(X), -1)
    stage = first_stage(G, X, Y, covariates, weight, clusters, options)
    level0 = chosen = curve(stage, 0, options)
    p_levels = [level0.score_test[2]]
    floor = options.tau_floor * level0.geometric_tau
    if method == "npiv":
        chosen = curve(stage, None, options)
    elif method == "auto":
        for level in (1, 2, None):
            if p_levels[-1] >= options.alpha_spec:
                break
            chosen = curve(stage, level, options, floor)
            if level is not None:
                p_levels.append(chosen.score_test[2])
    points = central_points(X)
    critical = uniform_critical_value(chosen, points, options)
    constant = np.ones((len(points), 1))
    line = np.column_stack([constant, points])
    return Fit(
        chosen,
        level0,
        tuple(p_levels),
        critical,
        sup_test(chosen, points, line, options),
        sup_test(chosen, points, constant, options),
    )
