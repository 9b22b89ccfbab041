"""Data sets and slow, independent computations shared by the tests of mrfast.bayes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import mrfast

GOLDEN = Path(__file__).parent / "golden" / "massive"
GOLDEN_NAMES = ("massive_J5_N1000", "massive_J10_N10000", "massive_J25_N100000")


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def golden_moments(data, **options):
    return mrfast.Moments.from_second_moments(
        data["second_moments"], data["N"], data["sigma_G"], **options
    )


def golden_prior(data):
    return mrfast.SpikeSlabPrior(data["sd_slab"], data["sd_spike"], scale_power=1)


def golden_vector(params):
    """Parameters in the order of log_posterior; R's sigmas are logs in `derivatives`."""
    tail = [params[k] for k in ("sbeta", "skappa_X", "skappa_Y", "sigma_X", "sigma_Y")]
    return np.concatenate([params["sgamma"], params["salpha"], tail])


def summary_moments(
    j=6,
    n=4000,
    *,
    seed=0,
    center=True,
    effect=0.3,
    pleiotropic=2,
    slope=0.4,
    ld=None,
    spread=0.15,
    strength=0.1,
):
    """Moments of uncorrelated (or ld) variants with a few pleiotropic ones."""
    rng = np.random.default_rng(seed)
    eaf = rng.uniform(0.1, 0.9, j)
    variance = 2 * eaf * (1 - eaf)
    se = 1 / np.sqrt(n * variance)
    gamma = strength * rng.uniform(0.8, 2, j) / np.sqrt(variance)
    alpha = np.where(np.arange(j) < pleiotropic, spread, 0.0) / np.sqrt(variance)
    return mrfast.Moments.from_summary(
        beta_exposure=gamma + rng.normal(0, se),
        se_exposure=se,
        n_exposure=n,
        beta_outcome=effect * gamma + alpha + rng.normal(0, se),
        se_outcome=se,
        n_outcome=n,
        eaf=eaf,
        beta_observational=slope,
        center=center,
        ld=ld,
    )


def correlation(j, rho=0.4):
    return rho ** np.abs(np.subtract.outer(np.arange(j), np.arange(j)))


def random_parameters(j, seed):
    rng = np.random.default_rng(seed)
    tail = [rng.normal(), rng.normal(), rng.normal(), rng.normal(0, 0.3), rng.normal(0, 0.3)]
    return np.concatenate([rng.normal(0, 0.2, 2 * j), tail])


def slow_log_posterior(moments, model, prior, parameters):
    """Log posterior written out from the structural equations, with full matrices."""
    j = moments.J
    gamma_s, alpha_s = parameters[:j], parameters[j : 2 * j]
    b, kx, ky, lx, ly = parameters[2 * j :]
    sx, sy = np.exp(lx), np.exp(ly)
    gamma, alpha = gamma_s * sx / moments.sigma_g, alpha_s * sy / moments.sigma_g
    beta, kappa_x, kappa_y = b * sy / sx, kx * sx, ky * sy
    covariance = np.array(
        [
            [sx**2 + kappa_x**2, beta * (sx**2 + kappa_x**2) + kappa_x * kappa_y],
            [0, sy**2 + beta**2 * sx**2 + (kappa_y + beta * kappa_x) ** 2],
        ]
    )
    covariance[1, 0] = covariance[0, 1]
    second = moments.second_moments[1:, 1:]
    if moments.is_centered:
        means = moments.second_moments[0, 1:]
        second = second - np.outer(means, means)
    mean_map = np.vstack([np.column_stack([gamma, beta * gamma + alpha]), -np.eye(2)])
    residual = mean_map.T @ second @ mean_map
    log_likelihood = (
        -0.5
        * moments.n
        * (
            np.log(4 * np.pi**2 * np.linalg.det(covariance))
            + np.trace(np.linalg.solve(covariance, residual))
        )
    )

    def normal(x, sd):
        return np.sum(-0.5 * np.log(2 * np.pi) - np.log(sd) - 0.5 * (np.asarray(x) / sd) ** 2)

    spread = np.where(np.asarray(model, bool), prior.slab_sd, prior.spike_sd)
    return (
        log_likelihood
        + normal(gamma_s, prior.slab_sd)
        + normal(alpha_s, spread)
        + normal(b, prior.effect_sd)
        + normal([kx, ky], prior.confounding_sd)
        - prior.scale_power * (lx + ly)
    )


def all_models(j):
    return ((np.arange(1 << j)[:, None] >> np.arange(j)) & 1).astype(bool)
