"""Data and small options that the tests of network estimators share."""

from __future__ import annotations

import numpy as np

SMALL = {
    "hidden": (16, 8),
    "outcome_hidden": (16, 8),
    "folds": 2,
    "outcome_networks": 1,
    "batch_size": 500,
    "outcome_batch_size": 100,
    "max_epochs": 20,
    "outcome_max_epochs": 200,
}


def confounded(n, seed=0, *, covariate=False, binary=False):
    """Genotypes, exposure, outcome and covariates; the effect of x is 0.4 x^2 + 0.5 x (c + 1)."""
    rng = np.random.default_rng(seed)
    z = rng.binomial(2, 0.3, (n, 6)).astype(np.int8)
    c = rng.standard_normal(n) if covariate else np.zeros(n)
    u = rng.standard_normal(n)
    x = z.sum(axis=1) - 3.6 + 0.3 * c + 0.6 * u + 0.6 * rng.standard_normal(n)
    effect = 0.4 * x**2 + 0.5 * x * (c + 1)
    if binary:
        y = (rng.random(n) < 1 / (1 + np.exp(1 - 0.8 * x - u))).astype(float)
    else:
        y = effect + u + 0.5 * rng.standard_normal(n)
    return z, x, y, c[:, None] if covariate else None
