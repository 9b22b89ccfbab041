"""LD blocks whose models are sampled, against the sum over all their models."""

from __future__ import annotations

import numpy as np
import pytest

import mrfast
from mrfast._core import ld
from mrfast.bayes.averaging import _exact
from mrfast.bayes.collapsed import collapsed_posterior
from mrfast.bayes.identified import identified_posterior
from mrfast.bayes.identified_prior import IdentifiedPrior
from mrfast.bayes.large_blocks import Sampling, cut_blocks, large_blocks
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.data.moments import Moments
from mrfast.data.standardised import LDBlock, StandardisedAssociations

LEVELS = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
SHORT = Sampling(chains=4, sweeps=2_000, burn_in=200)
MASSIVE = SpikeSlabPrior(slab_sd=0.5, spike_sd=0.005)
SMALL = IdentifiedPrior(
    spike_sd=(0.1, 1.0), spike_weights=(0.6, 0.4), slab_sd=(5.0, 20.0), slab_weights=(0.5, 0.5)
)


def problem(sizes, alone, *, seed, correlation=0.6, pleiotropic=(1,), n1=3e4, n2=2e4, slope=True):
    """Blocks with an autoregressive correlation, then candidates alone; true effect 0.2."""
    rng = np.random.default_rng(seed)
    j = sum(sizes) + alone
    matrix, blocks, begin = np.eye(j), [], 0
    for size in sizes:
        places = np.arange(begin, begin + size)
        block = correlation ** np.abs(np.subtract.outer(places, places))
        matrix[np.ix_(places, places)] = block
        blocks.append(LDBlock.of_matrix(places, block))
        begin += size
    root = np.linalg.cholesky(np.linalg.inv(matrix))
    shared = 0.5 * n2 if slope else 0.0
    observed = 0.3 if slope else 0.0
    n11, n22, n12 = 1 / n1, 1 / n2, shared / (n1 * n2)
    cross = n12 * observed
    noise = np.linalg.cholesky([[n11, cross], [cross, n22 * (1 + observed**2)]])
    draws = noise @ (rng.normal(size=(2, j)) @ root.T)
    gamma = 0.05 * rng.normal(size=j)
    alpha = np.zeros(j)
    alpha[list(pleiotropic)] = 0.1
    return StandardisedAssociations(
        exposure=gamma + draws[0],
        outcome=0.2 * gamma + alpha + draws[1],
        noise_exposure=np.full(j, n11),
        noise_outcome=np.full(j, n22),
        noise_shared=np.full(j, n12),
        residual_exposure=1.0,
        residual_slope=observed,
        residual_outcome=1.0,
        has_slope=slope,
        slope_sd=shared**-0.5 if slope else np.inf,
        slope_in_overlap=slope,
        n_exposure=n1,
        n_outcome=n2,
        n_shared=shared,
        blocks=tuple(blocks),
    )


def assert_close(found, exact, *, quantiles=0.02, inclusion=0.02, moments=0.1):
    """Effect within a share of the width of the interval, inclusion, effects within sds."""
    expected = exact.effect.quantiles(LEVELS)
    width = expected[-1] - expected[0]
    np.testing.assert_allclose(found.effect.quantiles(LEVELS), expected, atol=quantiles * width)
    np.testing.assert_allclose(found.inclusion, exact.inclusion, atol=inclusion)
    for name in ("first_stage", "pleiotropy"):
        value, target = getattr(found, name), getattr(exact, name)
        assert (np.abs(value - target) <= moments * target[1]).all(), name


IDENTIFIED = {
    "a clear one with a slope": ({"sizes": [9], "alone": 4, "seed": 0}, 8),
    "none alone, weak": (
        {
            "sizes": [10],
            "alone": 0,
            "seed": 4,
            "correlation": 0.8,
            "pleiotropic": (1, 2, 6),
            "n1": 2e3,
            "n2": 1e3,
        },
        9,
    ),
    "two, a small one and some alone": (
        {"sizes": [6, 7, 3], "alone": 3, "seed": 3, "slope": False, "pleiotropic": (1, 8)},
        4,
    ),
}


@pytest.mark.parametrize("name", IDENTIFIED)
def test_identified_prior_against_enumeration(name):
    """The large blocks' likelihood at the spike alone, or without the slab's means, would move
    inclusion and the hyper-parameters."""
    data, largest = IDENTIFIED[name]
    s = problem(**data)
    exact = identified_posterior(s, n_threads=2)
    found = identified_posterior(
        s, rng=1, n_threads=2, largest_block=largest, sampling=Sampling(4, 4_000, 500)
    )
    assert found.sampled.converged
    assert found.sampled.sizes == tuple(b.indices.size for b in large_blocks(s, largest)[1])
    assert_close(found, exact)
    assert found.log_evidence == pytest.approx(
        exact.log_evidence, abs=0.01 + 5 * found.log_evidence_error
    )
    for key, value in exact.hyper_means.items():
        assert found.hyper_means[key] == pytest.approx(value, rel=0.05, abs=0.03), key
    scales = [0.3, 1.0]
    np.testing.assert_allclose(
        found.log_bayes_factor(scales), exact.log_bayes_factor(scales), atol=0.1
    )
    draws = found.draw(6_000, np.random.default_rng(2), n_threads=2)
    center, sd = exact.effect.moments
    assert draws["beta"].mean() == pytest.approx(center, abs=0.1 * sd)
    np.testing.assert_allclose(draws["slab"].mean(axis=0), exact.inclusion, atol=0.04)
    for key in ("first_stage", "pleiotropy"):
        mean, spread = getattr(exact, key)
        assert (np.abs(draws[key].mean(axis=0) - mean) < 0.15 * spread).all()
        np.testing.assert_allclose(draws[key].std(axis=0), spread, rtol=0.15)


@pytest.mark.slow
def test_massive_prior_against_enumeration():
    """Nodes weighted as if the blocks were cut would give another evidence."""
    s = problem([8, 3], 3, seed=4, correlation=0.5)
    exact = collapsed_posterior(s, MASSIVE, threads=2, tolerance=1e-3)
    found = collapsed_posterior(
        s, MASSIVE, threads=2, rng=1, largest_block=4, sampling=Sampling(4, 4_000, 500)
    )
    assert found.sampled.converged
    assert_close(found, exact)
    assert found.log_evidence == pytest.approx(exact.log_evidence, abs=0.1)
    scales = [3.0, 10.0]
    np.testing.assert_allclose(
        found.log_bayes_factor(scales), exact.log_bayes_factor(scales), atol=0.15
    )
    draws = found.draw(4_000, np.random.default_rng(2))
    others = exact.draw(4_000, np.random.default_rng(3))
    for key in ("beta", "skappa_X", "first_stage", "pleiotropy"):
        spread = others[key].std(axis=0)
        gap = np.abs(draws[key].mean(axis=0) - others[key].mean(axis=0))
        assert (gap < 0.15 * spread).all(), key
    np.testing.assert_allclose(draws["slab"].mean(axis=0), exact.inclusion, atol=0.03)


@pytest.mark.slow
def test_sixteen_candidates_against_enumeration():
    """One block, as large as the sum can be."""
    s = problem([16], 2, seed=4, pleiotropic=(1, 7))
    exact = identified_posterior(s, SMALL, n_threads=2, largest_block=16)
    found = identified_posterior(s, SMALL, rng=1, n_threads=2)
    assert found.sampled.sizes == (16,)
    assert_close(found, exact)
    assert found.log_evidence == pytest.approx(exact.log_evidence, abs=0.02)


def test_same_bits_for_any_number_of_threads():
    s = problem([14], 3, seed=2)
    first, second, other = (
        identified_posterior(s, SMALL, rng=seed, n_threads=threads, sampling=SHORT)
        for seed, threads in ((7, 1), (7, 2), (8, 1))
    )
    for name in ("inclusion", "log_density", "hyper_probability", "first_stage", "pleiotropy"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.tobytes() == b.tobytes(), name
    assert first.log_evidence == second.log_evidence
    assert (first.inclusion != other.inclusion).any()
    a, b = (x.draw(50, np.random.default_rng(1), n_threads=n) for x, n in ((first, 1), (second, 2)))
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.mark.slow
def test_same_bits_for_any_number_of_threads_under_massives_prior():
    s = problem([14], 3, seed=2)
    first, second = (
        collapsed_posterior(s, MASSIVE, rng=7, threads=threads, sampling=SHORT)
        for threads in (1, 2)
    )
    assert first.inclusion.tobytes() == second.inclusion.tobytes()
    assert first.log_evidence == second.log_evidence
    assert first.effect.quantile(0.5) == second.effect.quantile(0.5)


def test_nearly_collinear_candidates_are_exchanged():
    """Flips alone hardly move from one of a pair with r = 0.99 to the other."""
    s = problem([4], 6, seed=5, correlation=0.99, pleiotropic=(1,))
    exact = identified_posterior(s, SMALL)
    found = identified_posterior(s, SMALL, rng=3, largest_block=3)
    assert 0.05 < exact.inclusion[:4].max() < 0.95
    assert found.sampled.inclusion_difference < 0.05
    np.testing.assert_allclose(found.inclusion, exact.inclusion, atol=0.02)
    assert found.sampled.swap_rate.min() > 0


def test_blocks_are_cut_along_their_weakest_correlations():
    s = problem([7], 2, seed=1, correlation=0.5)
    cut = cut_blocks(s, s.blocks)
    assert max(block.indices.size for block in cut.blocks) <= 5
    np.testing.assert_array_equal(cut.exposure[7:], s.exposure[7:])
    matrix = 0.5 ** np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    marginal = matrix @ s.exposure[:7]
    for block in cut.blocks:
        places = block.indices
        expected = np.linalg.solve(matrix[np.ix_(places, places)], marginal[places])
        np.testing.assert_allclose(cut.exposure[places], expected, atol=1e-12)


def test_effects_given_their_models():
    rng = np.random.default_rng(3)
    vectors = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    n = 40_000
    variances, residual = np.array([0.2, 0.5, 1.0]), np.array([1.0, -2.0, 0.5])
    model = np.array([True, False, True])
    draws = ld.draw_effects(
        np.ascontiguousarray(vectors),
        np.tile(variances, (n, 1)),
        np.tile(residual, (n, 1)),
        np.full(n, 0.1),
        np.full(n, 2.0),
        np.tile(model, (n, 1)),
        rng.normal(size=(n, 6)),
    )
    prior = np.diag(np.where(model, 2.0, 0.1))
    gain = prior @ np.linalg.inv(prior + vectors * variances @ vectors.T)
    np.testing.assert_allclose(draws.mean(axis=0), gain @ residual, atol=0.02)
    np.testing.assert_allclose(np.cov(draws.T), prior - gain @ prior, atol=0.03)


@pytest.fixture(scope="module")
def moments():
    """Individual data with a block of 14 correlated candidates and four alone."""
    rng = np.random.default_rng(11)
    n, size = 4_000, 14
    noise = rng.normal(size=(n, size))
    linked = noise.copy()
    for k in range(1, size):
        linked[:, k] = 0.6 * linked[:, k - 1] + 0.8 * noise[:, k]
    g = np.concatenate([linked, rng.normal(size=(n, 4))], axis=1)
    u = rng.normal(size=n)
    x = g @ (0.15 * rng.normal(size=18)) + u + rng.normal(size=n)
    y = 0.3 * x + 0.3 * g[:, 3] + u + rng.normal(size=n)
    z = np.column_stack([np.ones(n), g, x, y])
    return Moments.from_second_moments(z.T @ z / n, n, g.std(axis=0), center=True)


def test_massive_says_what_was_sampled(moments):
    assert mrfast.massive(moments, method="exact", rng=1).moments is moments
    found = mrfast.massive(moments, method="exact", rng=1)
    again = mrfast.massive(moments, method="exact", rng=1, n_threads=1)
    assert found.effect == again.effect
    size = found.moments.standardised.largest_block
    assert size > 12
    assert "candidates were sampled" in found.reason
    assert any("largest difference between chains" in text for text in found.warnings)
    for name in ("inclusion_difference", "median_difference", "sampled_candidates"):
        assert name in found.diagnostics.index
    assert 0 < found.log_evidence_error < 1
    assert found.effect.ci_lower < 0.3 < found.effect.ci_upper
    sample = found.sample(200, rng=1)
    assert sample.shape[0] == 200
    assert np.isfinite(sample.to_numpy()).all()
    assert np.isfinite(found.first_stage[["mean", "sd"]].to_numpy()).all()
    assert "log evidence" in str(found)


def test_interrupt_and_progress(moments):
    steps = []

    def stop(done, total):
        steps.append(done)
        if done > 2_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mrfast.massive(moments, method="exact", rng=1, n_threads=1, progress=stop)
    assert steps


def test_unknown_evidence_is_said():
    s = problem([14], 3, seed=2)
    found = identified_posterior(s, SMALL, rng=1, sampling=Sampling(1, 500, 50))
    assert np.isnan(found.log_evidence)
    assert np.isnan(found.log_evidence_error)
    assert any("log_evidence is not known" in text for text in found.sampled.words())


def test_private_argument_of_massive(moments):
    result = _exact(
        moments,
        SMALL,
        reason="as asked",
        selection_p=None,
        selected_in="exposure",
        rng=1,
        n_threads=2,
        progress=False,
        largest_block=16,
    )
    assert "sampled" not in result.reason
