"""Noise that weights and kappa share, where the coordinator has no dosage covariance."""

from __future__ import annotations

import numpy as np
import pytest

import mrfast
from mrfast.simulation import federated_sites


@pytest.mark.parametrize("smallest", [7e-4, -1e-6, 0.1])
def test_a_weight_next_to_zero_does_not_inflate_the_variance_of_kappa(smallest):
    """The wrong formula: sum_j (a_j (BV)_jj / w_j)^2 with chance correlations in a_j."""
    data = federated_sites(4_000, 20, n_sites=2, f_statistic=10, rng=1)
    table = data.instruments.copy()
    table.loc[18, "beta"] = smallest
    profiles, scaled = [], []
    w, v = table["beta"].to_numpy(), table["std_error"].to_numpy() ** 2
    for site in data:
        cohort = mrfast.Cohort.from_arrays(site.outcome, site.dosages, site.snps)
        profiles.append(
            mrfast.fit_site(cohort, table, covariates=site.confounders, site_id=site.site_id)
        )
        design = np.column_stack([np.ones(len(site)), site.confounders])
        residual = site.dosages - design @ np.linalg.lstsq(design, site.dosages, rcond=None)[0]
        c = residual.T @ residual / len(site)
        scaled.append(c * v / (w @ c @ w))
    pooled = mrfast.pool(profiles)
    exact = np.array([[np.trace(a @ b) for b in scaled] for a in scaled])
    tolerance = 0.05 * np.diag(pooled.kappa_covariance).max()
    np.testing.assert_allclose(pooled.noise_cross, exact, rtol=0, atol=tolerance)
    np.testing.assert_allclose(pooled.noise_trace, [np.trace(a) for a in scaled], rtol=1e-9)
