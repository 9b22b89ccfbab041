"""Risk curve of a binary outcome by dense matrices and loops over people: slow and plain."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import BSpline
from scipy.special import expit, ndtr

TAUS = np.geomspace(0.003, 30.0, 21)
N = 24


def probit(index):
    return ndtr(index), np.exp(-0.5 * index**2) / np.sqrt(2 * np.pi)


def scaled_logit(index):
    scale = np.pi / np.sqrt(3)
    return expit(scale * index), scale * expit(scale * index) * expit(-scale * index)


def knots(values, count):
    inner = np.quantile(values, np.linspace(0.01, 0.99, count - 4))
    return np.r_[[values.min()] * 4, inner, [values.max()] * 4]


def basis(points, values, order=0):
    columns = []
    for j in range(len(points) - 4):
        spline = BSpline(points, np.eye(len(points) - 4)[j], 3)
        columns.append((spline.derivative(order) if order else spline)(values))
    return np.column_stack(columns)


def roughness(points, sample=None):
    """Integral of (f'' - c)^2, c its mean over the 1%-99% range of a sample, or 0."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    edges = np.unique(points)
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    at = (middle[:, None] + half[:, None] * nodes).ravel()
    second = basis(points, at, 2)
    mean = np.zeros(second.shape[1])
    if sample is not None:
        low, high = np.quantile(sample, [0.01, 0.99])
        mean = (basis(points, np.array([high]), 1) - basis(points, np.array([low]), 1))[0]
        mean /= high - low
    apart = second - mean
    return (apart * (half[:, None] * weights).ravel()[:, None]).T @ apart, mean


def fit(z, x, y, link, at):
    """Risks (m,) at `at`, their covariance (m, m), and the log evidence of the link."""
    n = len(x)
    location, scale = x.mean(), x.std()
    x, z = (x - location) / scale, (z - z.mean()) / z.std()
    b = basis(knots(z, 12), z)
    b_inverse = np.linalg.inv(b.T @ b + 1e-8 * n / 12 * np.eye(12))
    v = x - b @ (b_inverse @ (b.T @ x))
    spread = v.std()
    points, v_points = knots(x, N), knots(v / spread, 10)
    p, q = basis(points, x), basis(v_points, v / spread)
    slopes = basis(v_points, v / spread, 1) / spread
    contrast = np.linalg.qr(np.column_stack([np.ones(10), np.eye(10)[:, 1:]]))[0][:, 1:]
    q, slopes = q @ contrast, slopes @ contrast
    d = np.hstack([p, q])
    k = d.shape[1]
    curve, control, ridge = np.zeros((k, k)), np.zeros((k, k)), 1e-8 * n / k * np.eye(k)
    curve[:N, :N], mean = roughness(points, x)
    prior = np.zeros((k, k))
    prior[:N, :N] = np.outer(mean, mean) / 4
    control[N:, N:] = contrast.T @ roughness(v_points)[0] @ contrast
    theta, lambdas = np.zeros(k), [1.0, 1.0]
    for _ in range(200):
        mu, density = link(d @ theta)
        weight = density**2 / (mu * (1 - mu))
        score = density * (y - mu) / (mu * (1 - mu))
        information = (d * weight[:, None]).T @ d
        working = information @ theta + d.T @ score
        h = information + lambdas[0] * curve + lambdas[1] * control + prior + ridge
        inverse = np.linalg.inv(h)
        old, theta = theta, inverse @ working
        for j, (s, rank) in enumerate(((curve, N - 3), (control, 8))):
            new = (rank - lambdas[j] * np.trace(inverse @ s)) / (theta @ s @ theta)
            lambdas[j] = np.clip(new, 1e-6, 1e7)
        if np.abs(d @ (theta - old)).max() < 1e-4:
            break
    at_mode = theta
    slope = slopes @ theta[N:]
    first = (d * (weight * slope)[:, None]).T @ b @ b_inverse
    influence = d * score[:, None] + (b * v[:, None]) @ first.T
    logs, fits, lam = [], [], lambdas[1]
    for tau in TAUS:
        for _ in range(4):
            s = tau**-2 * curve + lam * control + prior
            inverse = np.linalg.inv(information + s + ridge)
            one = inverse @ working
            used = lam
            lam = np.clip(
                (8 - lam * np.trace(inverse @ control)) / (one @ control @ one), 1e-6, 1e7
            )
        lam = used
        value = -0.5 * np.linalg.slogdet(information + s + ridge)[1] + 0.5 * one @ working
        value += 0.5 * ((N - 3) * np.log(tau**-2) + 8 * np.log(lam))
        logs.append(value + np.log(tau) - np.log1p((tau / 0.5) ** 2))
        s = (1.25 * tau * (1 + tau**2 / 2)) ** -2 * curve + lam * control + prior
        inverse = np.linalg.inv(information + s + ridge)
        fits.append((inverse @ working, inverse, s))
    mu, _ = link(d @ at_mode)
    evidence = np.log(np.where(y > 0, mu, 1 - mu)).sum() - at_mode @ working
    evidence += 0.5 * at_mode @ information @ at_mode + max(logs)
    shares = np.exp(np.array(logs) - max(logs))
    evidence += np.log(shares.sum())
    shares /= shares.sum()
    theta = sum(share * one for share, (one, _, _) in zip(shares, fits, strict=True))
    offsets, slope = q @ theta[N:], slopes @ theta[N:]
    rows = basis(points, (at - location) / scale)
    risks = np.empty(len(at))
    gradient = np.empty((len(at), k))
    sampling = np.empty((len(at), n))  # of the average over people, and of V
    for j, row in enumerate(rows):
        mu, density = link(row @ theta[:N] + offsets)
        risks[j] = mu.mean()
        gradient[j] = np.r_[density.mean() * row, density @ q / n]
        through_v = (density * slope) @ b / n @ b_inverse
        sampling[j] = (mu - mu.mean()) / n - (b * v[:, None]) @ through_v
    covariance = np.zeros((len(at), len(at)))
    for share, (one, inverse, s) in zip(shares, fits, strict=True):
        total = gradient @ inverse @ influence.T + sampling
        bias = gradient @ inverse
        apart = gradient @ (one - theta)
        covariance += share * (total @ total.T + bias @ s @ bias.T + np.outer(apart, apart))
    return risks, covariance, evidence
