from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import mrfast
from mrfast.bayes.collapsed import collapsed_posterior
from mrfast.bayes.confounding_surface import ConfoundingDensity, confounding_surface
from mrfast.errors import InvalidInputError

PRIOR = mrfast.SpikeSlabPrior(1.0, 0.05, 0.3, 10.0, 1.0)


def moments_of(j=4, n=2_000, seed=0, **options):
    rng = np.random.default_rng(seed)
    eaf = rng.uniform(0.2, 0.8, j)
    se = 1 / np.sqrt(n * 2 * eaf * (1 - eaf))
    beta = rng.uniform(0.15, 0.4, j)
    given = {
        "beta_exposure": beta,
        "se_exposure": se,
        "n_exposure": n,
        "beta_outcome": np.resize((0.1, 0.1, 0.1, 0.5), j) * beta,
        "se_outcome": se,
        "n_outcome": n,
        "eaf": eaf,
        "beta_observational": 0.3,
    }
    return mrfast.Moments.from_summary(**{**given, **options})


def dense_log_density(moments, prior, model, kappa, d):
    """Of (skappa_X, skappa_Y, d1, m, d3) for one sample, from covariances of all associations.

    No constants; d1 and d3 are the logarithms of Var(X|G) and Var(Y|X,G), m the slope given G.
    """
    s = moments.standardised
    kx, ky = kappa
    d1, m, d3 = d
    k1, k2 = 1 + kx**2, 1 + kx**2 + ky**2
    sigma11, sigma221 = np.exp(d1), np.exp(d3)
    sigma = np.array([[sigma11, m * sigma11], [m * sigma11, sigma221 + m**2 * sigma11]])
    var_x, var_y = sigma11 / k1, sigma221 * k1 / k2
    c = kx * ky / np.sqrt(k2)
    beta = m - np.sqrt(sigma221 / sigma11) * c
    out = -(kx**2 + ky**2) / (2 * prior.confounding_sd**2)
    out -= (beta**2 * var_x / var_y) / (2 * prior.effect_sd**2)
    for j, slab in enumerate(model):
        gamma = prior.slab_sd**2 * var_x
        alpha = (prior.slab_sd if slab else prior.spike_sd) ** 2 * var_y
        noise = s.noise_exposure[j] * sigma
        effects = np.array([[gamma, beta * gamma], [beta * gamma, beta**2 * gamma + alpha]])
        pair = np.array([s.exposure[j], s.outcome[j]])
        out += stats.multivariate_normal(cov=noise + effects).logpdf(pair)
    # Residual sums of squares given the candidates; the regression's part is in the pairs.
    n, m_hat = s.n_exposure, s.residual_slope
    sums = n * np.array(
        [
            [s.residual_exposure, m_hat * s.residual_exposure],
            [
                m_hat * s.residual_exposure,
                s.residual_outcome + m_hat**2 * s.residual_exposure,
            ],
        ]
    )
    out -= 0.5 * n * np.linalg.slogdet(sigma)[1] + 0.5 * np.trace(np.linalg.solve(sigma, sums))
    # Flat in (log var_x, log var_y) and normal in b: Jacobians to (d1, m, d3).
    return out + 0.5 * np.log(var_x / var_y)


@pytest.mark.parametrize("model", [(False,) * 4, (True,) * 4, (False, False, False, True)])
def test_density_given_a_model_is_that_of_dense_covariances(model):
    """Against importance sampling of the residual covariance; a wrong Jacobian would show."""
    moments = moments_of()
    s = moments.standardised
    density = ConfoundingDensity(s, PRIOR, np.array(model))
    centre = np.array([np.log(s.residual_exposure), s.residual_slope, np.log(s.residual_outcome)])
    eta = np.sqrt(s.residual_outcome / s.residual_exposure)
    scale = np.array([np.sqrt(2), eta, np.sqrt(2)]) / np.sqrt(s.n_exposure)
    z = np.random.default_rng(1).standard_t(6, (3_000, 3)) * 0.9
    log_proposal = stats.t(6).logpdf(z / 0.9).sum(axis=1)
    got, expected = [], []
    for kappa in ((0.4, 0.5), (1.2, -0.3), (0.9, 0.7)):
        values = [
            dense_log_density(moments, PRIOR, model, kappa, centre + scale * row) for row in z
        ]
        expected.append(logsumexp(np.array(values) - log_proposal))
        got.append(float(density(*kappa)))
    np.testing.assert_allclose(np.diff(got), np.diff(expected), atol=0.06)


def test_sum_over_models_is_the_sum_over_models():
    moments = moments_of(j=3)
    s = moments.standardised
    x, y = np.array([0.3, 1.0, 2.0, -0.4]), np.array([0.4, -1.0, 0.1, 0.5])
    terms = [
        ConfoundingDensity(s, PRIOR, np.array(model))(x, y)
        for model in itertools.product([False, True], repeat=3)
    ]
    together = ConfoundingDensity(s, PRIOR)(x, y)
    # Laplace's method for each against Laplace's method for the mixture.
    np.testing.assert_allclose(logsumexp(terms, axis=0), together, atol=5e-3)


def test_surface_integrates_to_the_evidence():
    moments = moments_of(j=6, n=5_000)
    s = moments.standardised
    density = ConfoundingDensity(s, PRIOR)
    n = 150
    step = np.arcsinh(7.0) / n
    x = step * (np.arange(n) + 0.5)
    y = step * (np.arange(-n, n) + 0.5)
    values = density(np.sinh(x)[None], np.sinh(y)[:, None])
    values = values + np.log(np.cosh(x))[None] + np.log(np.cosh(y))[:, None]
    total = logsumexp(values) + 2 * np.log(step) + np.log(2)  # both halves of the plane
    expected = collapsed_posterior(s, PRIOR).log_evidence
    assert total == pytest.approx(expected, abs=0.01)


def test_surface_is_symmetric_and_its_modes_are_its_maxima():
    moments = moments_of(j=8, n=20_000)
    surface = confounding_surface(moments, PRIOR, points=101)
    density = ConfoundingDensity(moments.standardised, PRIOR)
    np.testing.assert_allclose(surface.axis, -surface.axis[::-1], atol=1e-12)
    turned = surface.log_density[::-1, ::-1]
    np.testing.assert_allclose(surface.log_density, turned, atol=1e-3)
    assert surface.log_density.max() <= 1e-9
    assert len(surface.modes) >= 1
    assert surface.modes[0, 2] == pytest.approx(0, abs=1e-12)
    for x, y, log_density in surface.modes:
        assert x >= 0
        top = float(density(x, y))
        assert top - float(density(*surface.modes[0, :2])) == pytest.approx(log_density, abs=1e-6)
        for angle in np.linspace(0, 2 * np.pi, 8):
            assert density(x + 0.02 * np.cos(angle), y + 0.02 * np.sin(angle)) <= top + 1e-5


def test_limits_and_errors():
    moments = moments_of()
    surface = confounding_surface(moments, PRIOR, limit=3.0, points=41)
    assert surface.axis[[0, -1]] == pytest.approx([-3, 3])
    assert surface.log_density.shape == (41, 41)
    with pytest.raises(InvalidInputError, match="prior: expected a SpikeSlabPrior"):
        confounding_surface(moments, mrfast.IdentifiedPrior())
    with pytest.raises(InvalidInputError, match="limit"):
        confounding_surface(moments, PRIOR, limit=0)
    with pytest.raises(InvalidInputError, match="points"):
        confounding_surface(moments, PRIOR, points=3)
    with pytest.raises(InvalidInputError, match="model: expected shape"):
        confounding_surface(moments, PRIOR, model=[True])
    without = moments_of(beta_observational=None, overlap=0)
    with pytest.raises(InvalidInputError, match="observational slope"):
        confounding_surface(without, PRIOR)
    ld = np.eye(4) + 0.4 * (np.eye(4, k=1) + np.eye(4, k=-1))
    with pytest.raises(InvalidInputError, match="model: expected None for correlated"):
        confounding_surface(moments_of(ld=ld), PRIOR, model=[True] * 4)
