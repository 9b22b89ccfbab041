"""The exact posterior against the models of the search, reweighted by their exact evidences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_averaging import tables

import mrfast


def of_one_model(prior, model):
    """The same prior with all its probability on one model, but for 1e-9 per candidate."""
    probability = np.where(model, 1 - 1e-9, 1e-9)
    return mrfast.SpikeSlabPrior(
        prior.slab_sd, prior.spike_sd, probability, prior.effect_sd, prior.confounding_sd
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_reweighted_models_of_the_search(seed):
    rng = np.random.default_rng(seed)
    j, n = 5, 3_000
    h1 = rng.normal(0, 0.25, j)
    h2 = 0.4 * h1 + np.where(np.arange(j) < 2, rng.normal(0, 0.2, j), 0.0)
    h2 += rng.normal(0, n**-0.5, j)
    moments = tables(h1, h2, 0.8, 0.5, 0.7, n, n)
    prior = mrfast.SpikeSlabPrior(0.5, 0.03, 0.3, 2.0, 2.0)
    exact = mrfast.massive(moments, prior=prior, method="exact")
    search = mrfast.massive(
        moments, prior=prior, method="mc3", n_iter=2_000, n_chains=2, occam_window=0, rng=seed
    )
    models = np.array(list(itertools.product([False, True], repeat=j)))
    results = [
        mrfast.massive(moments, prior=of_one_model(prior, m), method="exact") for m in models
    ]
    log_prior = models.sum(axis=1) * np.log(0.3) + (~models).sum(axis=1) * np.log(0.7)
    log_weight = log_prior + [r.log_evidence for r in results]
    top = log_weight.max()
    weight = np.exp(log_weight - top)
    assert exact.log_evidence == pytest.approx(top + np.log(weight.sum()), abs=1e-3)
    weight /= weight.sum()
    np.testing.assert_allclose(exact.inclusion_probabilities, weight @ models, atol=1e-3)
    mean = sum(w * r.effect.mean for w, r in zip(weight, results, strict=True))
    assert exact.effect.mean == pytest.approx(mean, abs=2e-3 * exact.effect.sd)
    below = sum(w * r._law.cdf(exact.effect.ci_lower) for w, r in zip(weight, results, strict=True))
    assert below == pytest.approx(0.025, abs=5e-4)
    # The search has found the models that matter.
    found = {tuple(row) for row in search.model_set.indicators}
    missed = sum(w for w, row in zip(weight, models, strict=True) if tuple(row) not in found)
    assert missed < 1e-3
