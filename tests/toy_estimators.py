"""Small estimators for tests of what stands above estimators."""

from __future__ import annotations

import os

import numpy as np

from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.estimator_names import CURVES, MODELS
from mrfast.nonlinear.fitted_curve import LinearCurve


class PolynomialCurve(LinearCurve):
    kind = "toy_polynomial"

    def basis(self, x, covariates):
        degree = len(self.coefficients) - 1 - self.n_covariates
        rows = np.vander(x, degree + 1, increasing=True)
        if self.n_covariates:
            own = np.zeros((len(x), self.n_covariates)) if covariates is None else covariates
            rows = np.concatenate([rows, own], axis=1)
        return rows

    n_covariates = 0

    def state(self, keep_covariates):
        names = ("coefficients", "covariance", "draws")
        values = {"central": list(self.central), "n_covariates": self.n_covariates}
        return values, {name: getattr(self, name) for name in names}

    @classmethod
    def from_state(cls, values, arrays):
        curve = cls(**arrays, central=tuple(values["central"]))
        curve.n_covariates = values["n_covariates"]
        return curve


class PolynomialIV(InstrumentalVariableEstimator):
    """Two-stage least squares of powers of the exposure; centred covariates are linear."""

    name = "toy_polynomial"

    def __init__(self, *, degree=1, shrinkage=0.0, hidden=(1,), trouble=None, n_threads=None):
        self.degree = degree
        self.shrinkage = shrinkage
        self.hidden = hidden
        self.trouble = trouble
        self.n_threads = n_threads

    def _fit(self, data):
        if self.trouble == "raise":
            raise ArithmeticError("no answer\nat all")
        if self.trouble == "die":
            os._exit(3)
        if self.trouble == "nan":
            return Fit(_curve(np.full(self.degree + 1, np.nan), data, 0))
        score = data.instruments.astype(float).sum(axis=1)
        score = (score - score.mean()) / score.std()
        stage = np.vander(score, 6, increasing=True)
        x = np.vander(data.exposure, self.degree + 1, increasing=True)
        if data.q:
            own = data.covariates - data.covariates.mean(axis=0)
            stage, x = np.hstack([stage, own]), np.hstack([x, own])
        fitted = stage @ np.linalg.lstsq(stage, x, rcond=None)[0]
        gram = fitted.T @ fitted
        coefficients = np.linalg.solve(gram, fitted.T @ data.outcome) * (1 - self.shrinkage)
        noise = np.var(data.outcome - x @ coefficients)
        curve = _curve(coefficients, data, data.q, np.linalg.inv(gram) * noise)
        return Fit(curve, {"degree": self.degree}, (f"degree {self.degree}",))


class TogetherIV(PolynomialIV):
    """One that is fitted together with others of the same degree."""

    together = []  # noqa: RUF012

    @staticmethod
    def _shared(estimator):
        options = estimator.get_params()
        return {name: value for name, value in options.items() if name != "shrinkage"}

    @classmethod
    def fit_many(cls, estimators, instruments, exposure, outcome, **others):
        cls.together.append(len(estimators))
        return [e.fit(instruments, exposure, outcome, **others) for e in estimators]


def _curve(coefficients, data, q, covariance=None):
    k = len(coefficients)
    covariance = np.eye(k) if covariance is None else covariance
    draws = np.zeros((1, k))
    if np.isfinite(coefficients).all():
        draws = np.random.default_rng(0).multivariate_normal(coefficients, covariance, 200)
    central = tuple(np.quantile(data.exposure, [0.025, 0.975]))
    curve = PolynomialCurve(coefficients, covariance, draws, central)
    curve.n_covariates = q
    return curve


def register(monkeypatch):
    """Let files know the toy for a test."""
    monkeypatch.setitem(MODELS, "toy_polynomial", "toy_estimators:PolynomialIV")
    monkeypatch.setitem(CURVES, "toy_polynomial", "toy_estimators:PolynomialCurve")
    from mrfast.nonlinear import estimator_names

    classes = {"toy_estimators:PolynomialIV": PolynomialIV}
    classes["toy_estimators:PolynomialCurve"] = PolynomialCurve
    imported = estimator_names._imported
    monkeypatch.setattr(
        estimator_names, "_imported", lambda place: classes.get(place) or imported(place)
    )


def quadratic_data(n=2000, seed=0, q=0):
    """Arguments of a fit; the truth is 1 + 0.5 x + 0.4 x^2, plus 0.7 times each covariate."""
    generator = np.random.default_rng(seed)
    instruments = generator.binomial(2, 0.3, (n, 6)).astype(np.int8)
    u = generator.standard_normal(n)
    own = generator.standard_normal((n, q))
    x = 0.6 * (instruments.sum(axis=1) - 3.6) + u + generator.standard_normal(n)
    y = 1 + 0.5 * x + 0.4 * x**2 + 0.7 * own.sum(axis=1) + 0.8 * u
    y = y + generator.standard_normal(n)
    data = {"instruments": instruments, "exposure": x, "outcome": y}
    return data | ({"covariates": own} if q else {})
