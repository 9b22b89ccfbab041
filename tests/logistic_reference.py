"""Logistic regression in plain numpy, in long double: slow, and independent of the package."""

from __future__ import annotations

import numpy as np

Long = np.longdouble


def _solve(a, b):
    """Gaussian elimination with pivots: numpy's solver has no long double."""
    a, b = np.array(a, dtype=Long), np.array(b, dtype=Long)
    n = len(b)
    for j in range(n):
        p = j + int(np.argmax(np.abs(a[j:, j])))
        a[[j, p]], b[[j, p]] = a[[p, j]], b[[p, j]]
        for i in range(j + 1, n):
            f = a[i, j] / a[j, j]
            a[i, j:] -= f * a[j, j:]
            b[i] -= f * b[j]
    x = np.zeros(n, dtype=Long)
    for j in reversed(range(n)):
        x[j] = (b[j] - a[j, j + 1 :] @ x[j + 1 :]) / a[j, j]
    return x


def log_likelihood(y, eta, weights=1.0):
    y, eta = np.asarray(y, dtype=Long), np.asarray(eta, dtype=Long)
    return np.sum(weights * (y * eta - np.maximum(eta, 0) - np.log1p(np.exp(-np.abs(eta)))))


def maximise(y, x, *, weights=None, offset=None, precision=None, iterations=60):
    """Value, coefficients and information at the maximum; x holds every column wanted."""
    y, x = np.asarray(y, dtype=Long), np.asarray(x, dtype=Long)
    n, k = x.shape
    w = np.ones(n, dtype=Long) if weights is None else np.asarray(weights, dtype=Long)
    o = np.zeros(n, dtype=Long) if offset is None else np.asarray(offset, dtype=Long)
    ridge = np.zeros(k, dtype=Long) if precision is None else np.asarray(precision, dtype=Long)

    def objective(c):
        return log_likelihood(y, o + x @ c, w) - np.sum(ridge * c * c) / 2

    c, value = np.zeros(k, dtype=Long), -np.inf
    for _ in range(iterations):
        mean = 1 / (1 + np.exp(-(o + x @ c)))
        gradient = x.T @ (w * (y - mean)) - ridge * c
        information = (x.T * (w * mean * (1 - mean))) @ x + np.diag(ridge)
        step = _solve(information, gradient)
        while objective(c + step) < objective(c) - 1e-12 and np.max(np.abs(step)) > 1e-15:
            step = step / 2
        c = c + step
        value = objective(c)
        if gradient @ step < 1e-24:
            break
    mean = 1 / (1 + np.exp(-(o + x @ c)))
    information = (x.T * (w * mean * (1 - mean))) @ x + np.diag(ridge)
    return value, c, information


def profile(y, s, x, beta, *, weights=None, offset=None, precision=None):
    """Log likelihood, slope, information and half log determinant at each beta, (4, m)."""
    s = np.asarray(s, dtype=Long)
    n = len(s)
    design = np.column_stack([np.ones(n, dtype=Long), np.asarray(x, dtype=Long).reshape(n, -1)])
    ridge = None if precision is None else np.append(0.0, precision)
    w = np.ones(n, dtype=Long) if weights is None else np.asarray(weights, dtype=Long)
    rows = []
    for b in np.atleast_1d(beta):
        shift = Long(b) * s + (0 if offset is None else np.asarray(offset, dtype=Long))
        value, c, information = maximise(y, design, weights=w, offset=shift, precision=ridge)
        mean = 1 / (1 + np.exp(-(shift + design @ c)))
        v = w * mean * (1 - mean)
        cross = design.T @ (v * s)
        bend = np.sum(v * s * s) - cross @ _solve(information, cross)
        half = np.linalg.slogdet(information.astype(float))[1] / 2
        rows.append((value, np.sum(w * (y - mean) * s), bend, half))
    return np.array(rows, dtype=float).T


def cohort(n=800, p=3, *, seed=1, beta=0.5, prevalence=0.3):
    """Outcome, exposure, covariates of a small study."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    s = rng.binomial(2, 0.3, (n, 4)) @ rng.uniform(0.1, 0.5, 4) + 0.2 * x[:, :1].sum(axis=1)
    eta = np.log(prevalence / (1 - prevalence)) + beta * s + x @ rng.uniform(-0.5, 0.5, p)
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    return y, s, x
