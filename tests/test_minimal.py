"""The one file that runs on every wheel: the package works, and a tiny model has a known evidence.

The expected numbers come from the model as it is defined (variables G, X, Y with a confounder),
maximised with scipy and with derivatives by complex steps; nothing of mrfast is used for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import mrfast

N = 5000.0
SUMMARY: dict[str, Any] = {
    "beta_exposure": np.array([0.25, 0.35]),
    "se_exposure": np.array([0.02, 0.02]),
    "n_exposure": 6000.0,
    "beta_outcome": np.array([0.05, 0.20]),
    "se_outcome": np.array([0.025, 0.025]),
    "n_outcome": N,
    "eaf": np.array([0.3, 0.4]),
    "beta_observational": 0.8,
}
PRIOR = {"slab_sd": 0.8, "spike_sd": 0.05, "effect_sd": 10.0, "confounding_sd": 10.0}
SLAB_PROBABILITY = 0.3
J = 2


def covariance_matrix() -> np.ndarray:
    """Centred second moments of (G1, G2, X, Y) that the two studies imply."""
    s = SUMMARY
    variance = 2 * s["eaf"] * (1 - s["eaf"])
    bx, by = s["beta_exposure"], s["beta_outcome"]
    var_x = np.median(variance * (bx**2 + s["n_exposure"] * s["se_exposure"] ** 2))
    var_y = np.median(variance * (by**2 + s["n_outcome"] * s["se_outcome"] ** 2))
    matrix = np.diag([*variance, var_x, var_y])
    matrix[:J, J] = matrix[J, :J] = variance * bx
    matrix[:J, J + 1] = matrix[J + 1, :J] = variance * by
    matrix[J, J + 1] = matrix[J + 1, J] = var_x * s["beta_observational"]
    return matrix


def log_density(p: np.ndarray, slab: tuple[bool, ...]) -> Any:
    """Log likelihood plus log prior at columns of scale-free parameters, (2J + 5, ...).

    X = gamma'G + kappa_X U + e_X and Y = beta X + alpha'G + kappa_Y U + e_Y. Analytic, so that
    complex parameters will do.
    """
    second = covariance_matrix()
    sgamma, salpha, (sbeta, skx, sky, lx, ly) = p[:J], p[J : 2 * J], p[2 * J :]
    sigma_x, sigma_y = np.exp(lx), np.exp(ly)
    sd_g = np.sqrt(np.diag(second)[:J]).reshape(J, *[1] * lx.ndim)
    gamma, alpha = sgamma * sigma_x / sd_g, salpha * sigma_y / sd_g
    beta, kx, ky = sbeta * sigma_y / sigma_x, skx * sigma_x, sky * sigma_y
    zero, one = np.zeros_like(beta), np.ones_like(beta)
    rows = np.array([[*-gamma, one, zero], [*-alpha, -beta, one]])
    e = np.einsum("ai...,ij,bj...->ab...", rows, second, rows)  # residuals' second moments
    c11, c12, c22 = sigma_x**2 + kx**2, kx * ky, sigma_y**2 + ky**2
    determinant = c11 * c22 - c12**2
    trace = (c22 * e[0, 0] - 2 * c12 * e[0, 1] + c11 * e[1, 1]) / determinant
    value = -0.5 * N * (2 * np.log(2 * np.pi) + np.log(determinant) + trace)
    scales = [PRIOR["slab_sd"]] * J + [PRIOR["slab_sd" if s else "spike_sd"] for s in slab]
    scales += [PRIOR["effect_sd"], PRIOR["confounding_sd"], PRIOR["confounding_sd"]]
    for x, scale in zip(p[: 2 * J + 3], scales, strict=True):
        value = value - 0.5 * (x / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    return value


def gradient(f: Callable[[np.ndarray], Any], p: np.ndarray) -> np.ndarray:
    """Gradients at columns, (2J + 5, ...), by complex steps."""
    steps = (1e-30j * np.eye(p.shape[0])).reshape(*p.shape[:1] * 2, *[1] * (p.ndim - 1))
    return np.asarray(f(np.moveaxis(p + steps, 0, 1)).imag / 1e-30)


def hessian(f: Callable[[np.ndarray], Any], p: np.ndarray) -> np.ndarray:
    def difference(h: float) -> np.ndarray:
        steps = h * np.eye(p.size)
        return gradient(f, p[:, None] + steps) - gradient(f, p[:, None] - steps)

    return np.asarray((8 * difference(1e-4) - difference(2e-4)) / 12e-4)


def laplace(slab: tuple[bool, ...]) -> float:
    """Log evidence: Laplace terms of all modes found from a grid of confounding coefficients."""

    def f(p: np.ndarray) -> Any:
        return log_density(p, slab)

    modes: list[np.ndarray] = []
    terms: list[float] = []
    size = 2 * J + 5
    variances = np.diag(covariance_matrix())[J:]
    for skx, sky in itertools.product((0.2, 1.5), (-1.5, 0.2, 1.5)):
        start = np.zeros(size)
        start[2 * J + 1 : 2 * J + 3] = skx, sky
        start[2 * J + 3 :] = 0.5 * np.log(variances / (1 + np.array([skx, sky]) ** 2))
        mode = minimize(
            lambda p: -f(p),
            start,
            jac=lambda p: -gradient(f, p),
            hess=lambda p: -hessian(f, p),
            method="trust-exact",
            options={"gtol": 1e-3},
        ).x
        for _ in range(5):  # the last digits
            mode = mode - np.linalg.solve(hessian(f, mode), gradient(f, mode))
        curvature = hessian(f, mode)
        assert np.abs(gradient(f, mode)).max() < 1e-6
        assert np.linalg.eigvalsh(curvature)[-1] < 0
        if mode[2 * J + 1] < 0:  # of a mode and its mirror image, the one with skappa_X > 0
            mode[2 * J + 1 : 2 * J + 3] *= -1
        if all(np.abs(mode - other).max() > 1e-3 for other in modes):
            determinant = np.linalg.slogdet(-curvature)[1]
            copies = 2 if np.abs(mode[2 * J + 1 : 2 * J + 3]).max() > 1e-4 else 1
            modes.append(mode)
            terms.append(f(mode) + 0.5 * (size * np.log(2 * np.pi) - determinant) + np.log(copies))
    return float(np.logaddexp.reduce(terms))


@pytest.fixture(scope="module")
def moments() -> mrfast.Moments:
    return mrfast.Moments.from_summary(**SUMMARY)


@pytest.fixture(scope="module")
def prior() -> mrfast.SpikeSlabPrior:
    return mrfast.SpikeSlabPrior(slab_probability=SLAB_PROBABILITY, **PRIOR)


@pytest.fixture(scope="module")
def expected() -> dict[str, float]:
    """Log evidence by model, one character per candidate."""
    return {
        "".join("01"[s] for s in slab): laplace(slab)
        for slab in itertools.product((False, True), repeat=J)
    }


def test_build_report() -> None:
    assert mrfast.build_config()["version"] == mrfast.__version__


def test_evidence_of_every_model(
    moments: mrfast.Moments, prior: mrfast.SpikeSlabPrior, expected: dict[str, float]
) -> None:
    """Wrong formula: one term per mode without its mirror image (off by log 2 in three models)."""
    for model, value in expected.items():
        evidence = mrfast.laplace_evidence(moments, [int(c) for c in model], prior)
        assert evidence.log_evidence == pytest.approx(value, abs=1e-6)


def test_model_average(
    moments: mrfast.Moments, prior: mrfast.SpikeSlabPrior, expected: dict[str, float]
) -> None:
    result = mrfast.massive(moments, prior=prior, n_iter=200, occam_window=0, rng=1)
    p = SLAB_PROBABILITY
    weights = {m: v + np.log([1 - p, p])[[int(c) for c in m]].sum() for m, v in expected.items()}
    total = np.logaddexp.reduce(list(weights.values()))
    assert result.log_evidence == pytest.approx(total, abs=1e-6)
    probability = result.models.set_index("model")["probability"].to_dict()
    assert probability == pytest.approx(
        {m: np.exp(w - total) for m, w in weights.items()}, abs=1e-6
    )


def test_draws(moments: mrfast.Moments, prior: mrfast.SpikeSlabPrior) -> None:
    result = mrfast.massive(moments, prior=prior, n_iter=200, rng=1)
    draws = result.sample(4000, rng=2)
    assert draws.shape == (4000, 2 * J + 7)
    assert np.isfinite(draws.to_numpy()).all()
    assert draws["beta"].median() == pytest.approx(result.effect.median, abs=0.1 * result.effect.sd)
    assert "causal effect" in repr(result)
