"""Sums over the models of correlated candidates, against dense Gaussians and known limits."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from exact_problems import golden_exact

from mrfast._core import ld
from mrfast._runtime import symmetric_eigen

NO_MEANS = np.empty(0)
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def autoregressive(size, r):
    return r ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))


def log_normal(values, covariance):
    """Log density of centred normal vectors; covariance may be a stack of matrices."""
    root = np.linalg.cholesky(covariance)
    z = np.linalg.solve(root, values[..., None])[..., 0]
    log_determinant = 2 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(axis=-1)
    return -0.5 * (len(z.T) * np.log(2 * np.pi) + log_determinant + (z**2).sum(axis=-1))


def all_models(size):
    return ((np.arange(2**size)[:, None] >> np.arange(size)) & 1).astype(bool)


@dataclass
class Nodes:
    """What the kernels take: n nodes of a block of B candidates."""

    eigenvectors: np.ndarray
    variances: np.ndarray
    residuals: np.ndarray
    spike: np.ndarray
    slab: np.ndarray
    means: np.ndarray

    @property
    def arrays(self):
        return tuple(vars(self).values())

    def __getitem__(self, rows):
        parts = [np.ascontiguousarray(part[rows]) for part in self.arrays[1:-1]]
        means = np.ascontiguousarray(self.means[rows]) if self.means.size else self.means
        return Nodes(self.eigenvectors, *parts, means)

    def evidence(self, log_odds, *, threads=1):
        return ld.enumerate_block(*self.arrays, log_odds, inclusion=True, threads=threads)

    def log_likelihoods(self, i):
        """Log likelihoods of all models at node i, each from its dense covariance."""
        size = len(self.eigenvectors)
        models = all_models(size)
        noise = np.einsum("ik,k,jk->ij", self.eigenvectors, self.variances[i], self.eigenvectors)
        covariance = np.repeat(noise[None], len(models), axis=0)
        diagonal = np.arange(size)
        covariance[:, diagonal, diagonal] += np.where(models, self.slab[i], self.spike[i])
        mean = self.means[i] if self.means.size else np.zeros(size)
        return log_normal(self.residuals[i] - models * mean, covariance)


def example(size, n=3, *, seed=0, r=0.7, means=True, signal=0.2):
    rng = np.random.default_rng([seed, size])
    values, vectors = symmetric_eigen(autoregressive(size, r))
    variances = rng.uniform(1, 2, (n, 1)) / (5000 * values)
    noise = np.einsum("ik,nk,nk->ni", vectors, np.sqrt(variances), rng.normal(size=(n, size)))
    return Nodes(
        vectors,
        variances,
        noise + signal * rng.normal(size=(n, size)) * (rng.random((n, size)) < 0.3),
        rng.uniform(1e-5, 1e-4, n),
        rng.uniform(0.01, 0.1, n),
        rng.normal(0, 0.1, (n, size)) if means else NO_MEANS,
    )


def enumerated(nodes, i, log_odds):
    """Log evidence, inclusion, and the posterior means and covariances of the effects."""
    models = all_models(len(nodes.eigenvectors))
    log_weight = nodes.log_likelihoods(i) + models @ log_odds - np.logaddexp(0, log_odds).sum()
    log_evidence = np.logaddexp.reduce(log_weight)
    weight = np.exp(log_weight - log_evidence)
    noise = (nodes.eigenvectors * nodes.variances[i]) @ nodes.eigenvectors.T
    size = len(nodes.eigenvectors)
    mean = nodes.means[i] if nodes.means.size else np.zeros(size)
    means, covariances = [], []
    for model in models:
        variance = np.where(model, nodes.slab[i], nodes.spike[i])
        posterior = np.linalg.inv(np.linalg.inv(noise) + np.diag(1 / variance))
        pull = np.linalg.solve(noise, nodes.residuals[i]) + model * mean / variance
        means.append(posterior @ pull)
        covariances.append(posterior)
    centre = weight @ np.array(means)
    away = np.array(means) - centre
    spread = np.einsum("s,sij->ij", weight, covariances) + np.einsum(
        "s,si,sj->ij", weight, away, away
    )
    return log_evidence, weight @ models, centre, spread


# ------------------------------------------------------------------------------ reference files


def golden_nodes(x0, y00, correlation, n, nodes):
    """Blocks of a reference file at its (c, u) nodes, and the log weight of the nodes."""
    c, _, g, spike, slab, log_weight = nodes.T
    values, vectors = symmetric_eigen(correlation)
    noise = 1 / (n * values)
    blocks = []
    log_weight = log_weight.copy()
    for x, y in zip(np.atleast_2d(x0), np.atleast_2d(y00), strict=True):
        xt, yt = vectors.T @ x, vectors.T @ y
        total = noise + g[:, None]
        log_weight -= 0.5 * (np.log(2 * np.pi * total) + xt**2 / total).sum(axis=1)
        residuals = (yt + (c * g)[:, None] / total * xt) @ vectors.T
        variances = noise * (1 + (c**2 * g)[:, None] / total)
        parts = [np.ascontiguousarray(part) for part in (variances, residuals, spike, slab)]
        blocks.append(Nodes(vectors, *parts, NO_MEANS))
    return blocks, log_weight


def golden_sixteen():
    """The block of 16 with its nodes: 24 values of c, 13 of u, trapezoid weights."""
    data = golden_exact("ld")["J16"]
    x, y = np.array(data["x0"]), np.array(data["y00"])
    centre, width = -(x @ y) / (x @ x), 13.5 / np.sqrt(data["N"] * (x @ x))
    nodes = []
    grid = np.linspace(centre - width, centre + width, data["nc"])
    for c in grid:
        rho = abs(c) * np.sqrt(1 + c * c)
        limit = 0.5 * np.log((90**2 - c * c) / rho)
        u, step = np.linspace(-limit, limit, data["nu"], retstep=True)
        k1 = 1 + c * c + rho * np.exp(2 * u)
        k2 = k1 + c * c + rho * np.exp(-2 * u)
        b = (data["m"] / data["eta"] - c) * np.sqrt(k2) / k1
        log_weight = (
            -(b**2) / 200 - (k2 - 1) / 200 + np.log(k2 / k1) + np.log(step * (grid[1] - grid[0]))
        )
        slab = data["slab"] ** 2 * k1 / k2
        spike = slab * (data["spike"] / data["slab"]) ** 2
        g = data["slab"] ** 2 / k1
        nodes.append(np.column_stack([np.full_like(u, c), u, g, spike, slab, log_weight]))
    nodes = np.concatenate(nodes)
    effect = data["m"] - data["eta"] * nodes[:, 0]
    blocks, log_weight = golden_nodes(x, y, autoregressive(16, data["rho"]), data["N"], nodes)
    return data, blocks[0], log_weight, effect


def test_two_blocks_of_the_reference_file():
    data = golden_exact("ld")["J8"]
    blocks, log_weight = golden_nodes(
        data["x0"], data["y00"], data["A"], data["N"], np.array(data["nodes"])
    )
    odds = np.full(4, np.log(data["pi"] / (1 - data["pi"])))
    sums = [block.evidence(odds) for block in blocks]
    log_joint = log_weight + sum(evidence for evidence, _ in sums)
    log_evidence = np.logaddexp.reduce(log_joint)
    assert log_evidence == pytest.approx(data["logZ_rel"], abs=1e-10)
    inclusion = np.exp(log_joint - log_evidence) @ np.hstack([inside for _, inside in sums])
    np.testing.assert_allclose(inclusion, data["pip"], rtol=0, atol=1e-10)


def test_block_of_sixteen_of_the_reference_file():
    data, block, log_weight, effect = golden_sixteen()
    evidence, inclusion = block.evidence(np.full(16, np.log(data["pi"] / (1 - data["pi"]))))
    log_joint = log_weight + evidence
    log_evidence = np.logaddexp.reduce(log_joint)
    weight = np.exp(log_joint - log_evidence)
    assert log_evidence == pytest.approx(data["logZ_rel"], abs=1e-10)
    assert weight @ effect == pytest.approx(data["Ebeta"], abs=1e-10)
    np.testing.assert_allclose(weight @ inclusion, data["pip"], rtol=0, atol=1e-10)


# ------------------------------------------------------------------- dense two-sample Gaussians


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("overlap", [0.0, 0.4, 1.0])
def test_dense_gaussians_of_both_associations(size, overlap):
    """All models from the joint law of (x, y); without the term e_k x_k / (n11 + g) in the
    residuals, or with n22 (1 + mu^2) alone for the noise, the sum is another one."""
    rng = np.random.default_rng([size, int(10 * overlap)])
    correlation = autoregressive(size, 0.6)
    n1, n2 = 4000.0, 9000.0
    n11, n22, n12 = 1 / n1, 1 / n2, overlap * min(n1, n2) / (n1 * n2)
    g, effect, slope = 0.003, 0.4, -0.7
    spike, slab = 1e-4, 0.02
    mean = rng.normal(0, 0.1, size)
    odds = rng.normal(-1, 1, size)
    x, y = rng.normal(0, 0.06, size), rng.normal(0, 0.06, size)

    inverse = np.linalg.inv(correlation)
    unit = np.eye(size)
    log_weights = []
    models = all_models(size)
    for model in models:
        a = np.diag(np.where(model, slab, spike))
        covariance = np.block(
            [
                [n11 * inverse + g * unit, n12 * slope * inverse + effect * g * unit],
                [
                    n12 * slope * inverse + effect * g * unit,
                    n22 * (1 + slope**2) * inverse + effect**2 * g * unit + a,
                ],
            ]
        )
        values = np.concatenate([x, y - model * mean])
        log_weights.append(log_normal(values, covariance) + odds[model].sum())
    expected = np.logaddexp.reduce(log_weights)
    inside = np.exp(np.array(log_weights) - expected) @ models
    expected -= np.logaddexp(0, odds).sum()

    values, vectors = symmetric_eigen(correlation)
    a, b, c = n11 / values, n22 / values, n12 / values
    q = b - c * c / a
    determinant = a * (b + slope**2 * q)
    f = b + a * (effect - slope * c / a) ** 2 + slope**2 * q
    e = c * slope - effect * a
    xt, tt = vectors.T @ x, vectors.T @ (y - effect * x)
    nodes = Nodes(
        vectors,
        ((determinant + g * f) / (a + g))[None],
        (vectors @ (tt - e * xt / (a + g)))[None],
        np.array([spike]),
        np.array([slab]),
        mean,
    )
    evidence, inclusion = nodes.evidence(odds)
    first_stage = -0.5 * (np.log(2 * np.pi * (a + g)) + xt**2 / (a + g)).sum()
    assert evidence[0] + first_stage == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(inclusion[0], inside, rtol=0, atol=1e-11)


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("size", range(1, 10))
@pytest.mark.parametrize("n", [1, 2, 9])
def test_sums_over_all_models(size, n, means):
    nodes = example(size, n, means=means)
    log_odds = np.random.default_rng(size).normal(-1, 1, size)
    log_evidence, inclusion = nodes.evidence(log_odds)
    alone, none = ld.enumerate_block(*nodes.arrays, log_odds, inclusion=False, threads=1)
    np.testing.assert_allclose(alone, log_evidence, rtol=0, atol=1e-12)
    assert none.shape == (0, size)
    log_scale, sums, inside = ld.enumerate_by_slabs(*nodes.arrays, inclusion=True, threads=1)
    effects = ld.effects(*nodes.arrays, log_odds, threads=1)
    models = all_models(size)
    slabs = models.sum(axis=1)
    for i in range(n):
        evidence, probability, mean, covariance = enumerated(nodes, i, log_odds)
        assert log_evidence[i] == pytest.approx(evidence, abs=1e-11)
        np.testing.assert_allclose(inclusion[i], probability, rtol=0, atol=1e-12)
        likelihood = np.exp(nodes.log_likelihoods(i) - log_scale[i])
        np.testing.assert_allclose(
            sums[i], np.bincount(slabs, likelihood), rtol=1e-10, atol=1e-12 * likelihood.max()
        )
        for j in range(size):
            expected = np.bincount(slabs, likelihood * models[:, j], minlength=size + 1)
            np.testing.assert_allclose(
                inside[i, j], expected, rtol=1e-10, atol=1e-12 * likelihood.max()
            )
        assert effects[0][i] == pytest.approx(evidence, abs=1e-11)
        np.testing.assert_allclose(effects[1][i], probability, rtol=0, atol=1e-11)
        np.testing.assert_allclose(effects[2][i], mean, rtol=0, atol=1e-11)
        np.testing.assert_allclose(
            effects[3][i], covariance, rtol=0, atol=1e-9 * np.abs(covariance).max()
        )


@pytest.mark.parametrize("size", [2, 5, 8])
def test_number_of_slabs_gives_every_common_probability(size):
    nodes = example(size, 11)
    log_scale, sums, inside = ld.enumerate_by_slabs(*nodes.arrays, inclusion=True, threads=1)
    for pi in (1e-4, 0.05, 0.5, 0.95):
        log_evidence, inclusion = nodes.evidence(np.full(size, np.log(pi / (1 - pi))))
        weight = pi ** np.arange(size + 1) * (1 - pi) ** np.arange(size, -1, -1)
        total = sums @ weight
        np.testing.assert_allclose(log_scale + np.log(total), log_evidence, rtol=0, atol=1e-11)
        np.testing.assert_allclose(inside @ weight / total[:, None], inclusion, atol=1e-12)


# --------------------------------------------------------------------------------------- limits


def test_uncorrelated_candidates_are_independent():
    size = 7
    rng = np.random.default_rng(4)
    nodes = replace(
        example(size, 5), eigenvectors=np.eye(size), variances=rng.uniform(1e-4, 4e-4, (5, size))
    )
    log_odds = rng.normal(-1, 1, size)

    def log_density(variance, mean):
        variance = nodes.variances + variance[:, None]
        return -0.5 * (np.log(2 * np.pi * variance) + (nodes.residuals - mean) ** 2 / variance)

    out = log_density(nodes.spike, 0.0) - np.logaddexp(0, log_odds)
    inside = log_density(nodes.slab, nodes.means) - np.logaddexp(0, -log_odds)
    log_evidence, inclusion = nodes.evidence(log_odds)
    np.testing.assert_allclose(log_evidence, np.logaddexp(out, inside).sum(axis=1), atol=1e-11)
    np.testing.assert_allclose(inclusion, 1 / (1 + np.exp(out - inside)), atol=1e-12)


def test_order_of_the_candidates_does_not_matter():
    size = 9
    nodes = example(size, 10)
    log_odds = np.linspace(-3, 1, size)
    order = np.random.default_rng(0).permutation(size)
    other = Nodes(
        np.ascontiguousarray(nodes.eigenvectors[order]),
        nodes.variances,
        np.ascontiguousarray(nodes.residuals[:, order]),
        nodes.spike,
        nodes.slab,
        np.ascontiguousarray(nodes.means[:, order]),
    )
    log_evidence, inclusion = nodes.evidence(log_odds)
    moved, moved_inclusion = other.evidence(log_odds[order])
    np.testing.assert_allclose(moved, log_evidence, rtol=0, atol=1e-11)
    np.testing.assert_allclose(moved_inclusion, inclusion[:, order], rtol=0, atol=1e-12)


def cholesky_log_density(values, covariance):
    """Log density in numpy's longest floating-point type."""
    n = len(values)
    root = np.zeros_like(covariance)
    total = np.longdouble(0)
    z = np.zeros_like(values)
    for i in range(n):
        for j in range(i + 1):
            x = covariance[i, j] - (root[i, :j] * root[j, :j]).sum()
            root[i, j] = np.sqrt(x) if i == j else x / root[j, j]
        z[i] = (values[i] - (root[i, :i] * z[:i]).sum()) / root[i, i]
        total += np.log(root[i, i])
    return -total - (z**2).sum() / 2 - n * np.log(2 * np.longdouble(np.pi)) / 2


@pytest.mark.parametrize("n", [1, 8])
def test_nearly_collinear_candidates(n):
    """r = .999 and a million people: the sum keeps ten digits."""
    size, people = 6, 1e6
    correlation = np.full((size, size), 0.999)
    np.fill_diagonal(correlation, 1.0)
    values, vectors = symmetric_eigen(correlation)
    rng = np.random.default_rng(1)
    variances = 1 / (people * values)
    residuals = vectors @ (np.sqrt(variances) * rng.normal(size=size))
    residuals[2] += 0.05
    log_odds = np.linspace(-2, 0, size)
    nodes = Nodes(
        vectors,
        np.tile(variances, (n, 1)),
        np.tile(residuals, (n, 1)),
        np.full(n, 1e-8),
        np.full(n, 0.09),
        NO_MEANS,
    )
    wide = vectors.astype(np.longdouble)
    noise = (wide * variances.astype(np.longdouble)) @ wide.T
    models = all_models(size)
    log_weight = [
        cholesky_log_density(
            residuals.astype(np.longdouble),
            noise + np.diag(np.where(model, 0.09, 1e-8).astype(np.longdouble)),
        )
        + log_odds[model].sum()
        for model in models
    ]
    largest = max(log_weight)
    weight = np.exp(np.array(log_weight) - largest)
    expected = float(largest + np.log(weight.sum())) - np.logaddexp(0, log_odds).sum()
    log_evidence, inclusion = nodes.evidence(log_odds)
    np.testing.assert_allclose(log_evidence, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(inclusion[0], (weight / weight.sum()) @ models, atol=1e-9)


@pytest.mark.parametrize("n", [1, 8])
def test_sixteen_candidates_do_not_drift(n):
    nodes = example(16, n)
    log_odds = np.linspace(-3, -1, 16)
    log_evidence, inclusion = nodes.evidence(log_odds)
    models = all_models(16)
    log_weight = nodes.log_likelihoods(0) + models @ log_odds - np.logaddexp(0, log_odds).sum()
    expected = np.logaddexp.reduce(log_weight)
    assert log_evidence[0] == pytest.approx(expected, abs=1e-11)
    np.testing.assert_allclose(inclusion[0], np.exp(log_weight - expected) @ models, atol=1e-11)


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("size", [2, 7])
def test_residuals_that_no_model_explains(size, n):
    """Every weight underflows on the usual scale; the sum is computed again on its own."""
    nodes = example(size, n, means=False)
    far = replace(nodes, residuals=nodes.residuals + 80.0 * np.arange(1, n + 1)[:, None] / n)
    log_odds = np.linspace(-2, 1, size)
    log_evidence, inclusion = far.evidence(log_odds)
    log_scale, sums, _ = ld.enumerate_by_slabs(*far.arrays, inclusion=False, threads=1)
    for i in range(n):
        evidence, probability, _, _ = enumerated(far, i, log_odds)
        assert evidence < -2000
        assert log_evidence[i] == pytest.approx(evidence, rel=1e-11)
        np.testing.assert_allclose(inclusion[i], probability, atol=1e-9)
        assert log_scale[i] + np.log(sums[i].sum()) == pytest.approx(
            np.logaddexp.reduce(far.log_likelihoods(i)), rel=1e-11
        )


# --------------------------------------------------------------------------- batches and threads


@pytest.mark.parametrize("size", [3, 6, 10])
def test_batches_agree_with_single_nodes(size):
    nodes = example(size, 21)
    log_odds = np.full(size, -1.0)
    log_evidence, inclusion = nodes.evidence(log_odds)
    for i in range(21):
        one, inside = nodes[i : i + 1].evidence(log_odds)
        assert one[0] == pytest.approx(log_evidence[i], abs=1e-12)
        np.testing.assert_allclose(inside[0], inclusion[i], rtol=0, atol=1e-13)


def test_common_means_and_means_of_every_node():
    nodes = example(5, 6)
    common = replace(nodes, means=np.ascontiguousarray(nodes.means[0]))
    repeated = replace(nodes, means=np.tile(nodes.means[0], (6, 1)))
    log_odds = np.zeros(5)
    for one, other in zip(common.evidence(log_odds), repeated.evidence(log_odds), strict=True):
        np.testing.assert_array_equal(one, other)


def test_enumeration_has_the_same_bits_for_any_number_of_threads():
    nodes = example(8, 700)
    log_odds = np.full(8, -1.0)

    def everything(threads):
        yield from nodes.evidence(log_odds, threads=threads)
        yield from ld.enumerate_by_slabs(*nodes.arrays, inclusion=True, threads=threads)
        yield from ld.effects(*nodes.arrays, log_odds, threads=threads)

    first = list(everything(1))
    for threads in (2, 7):
        for one, other in zip(first, everything(threads), strict=True):
            np.testing.assert_array_equal(one, other)


def test_arguments_of_the_enumeration():
    nodes = example(4, 2)
    log_odds = np.zeros(4)
    bad = {
        "variances": replace(nodes, variances=nodes.variances[:1]),
        "variances: expected finite": replace(nodes, variances=-nodes.variances),
        "residuals": replace(nodes, residuals=nodes.residuals[:, :2].copy()),
        "slab": replace(nodes, slab=nodes.spike),
        "means": replace(nodes, means=np.zeros(3)),
        "eigenvectors": replace(nodes, eigenvectors=np.eye(17)),
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=message):
            wrong.evidence(log_odds)
    with pytest.raises(ValueError, match="log_odds"):
        nodes.evidence(np.zeros(3))
    assert ld.max_block == 16


# ---------------------------------------------------------------------------------------- Gibbs


def sample(blocks, log_odds, log_weight, **options):
    """`log_odds`: of every block, (n, B) or what can be broadcast to it."""
    first = blocks[0]
    n = len(log_weight)
    return ld.gibbs(
        eigenvectors=[block.eigenvectors for block in blocks],
        variances=[block.variances for block in blocks],
        residuals=[block.residuals for block in blocks],
        means=[block.means for block in blocks],
        log_odds=[
            np.array(np.broadcast_to(odds, (n, len(block.eigenvectors))))
            for odds, block in zip(log_odds, blocks, strict=True)
        ],
        log_weight=log_weight,
        spike=first.spike,
        slab=first.slab,
        **{"chains": 4, "sweeps": 4000, "burn_in": 400, "threads": 2, "seed": 1, "progress": None}
        | options,
    )


def path_of_nodes(size, n, seed, *, means=False):
    """A block whose residuals and variances change along the nodes."""
    start = example(size, 1, seed=seed, means=False, signal=0.05)
    rng = np.random.default_rng([seed, size, n])
    direction = rng.normal(0, 0.1, size)
    place = np.linspace(-0.3, 0.3, n)
    return Nodes(
        start.eigenvectors,
        start.variances * (1 + 0.3 * place[:, None] ** 2),
        start.residuals - place[:, None] * direction,
        np.linspace(1e-5, 1e-4, n),
        np.linspace(0.005, 0.05, n),
        np.tile(rng.normal(0, 0.02, size), (n, 1)) if means else NO_MEANS,
    )


def within_error(chains, expected, floor):
    """Mean over the chains within six standard errors, judged by their differences."""
    error = np.std(chains, axis=0, ddof=1) / np.sqrt(len(chains))
    typical = np.sqrt(np.mean(error**2))
    gap = np.abs(np.mean(chains, axis=0) - expected)
    assert (gap <= 6 * np.maximum(error, typical) + floor).all(), gap.max()


def test_gibbs_agrees_with_enumeration():
    """Two blocks of 8, 61 nodes with odds of their own; counting the states visited in place of
    their conditional probabilities would need a floor ten times as high."""
    n = 61
    blocks = [path_of_nodes(8, n, 1, means=True), path_of_nodes(8, n, 2)]
    log_weight = -(np.linspace(-2, 2, n) ** 2)
    log_weight[5] = -np.inf
    rng = np.random.default_rng(3)
    odds = [np.linspace(-2, 0, n)[:, None] + rng.normal(0, 0.5, 8) for _ in blocks]
    found = sample(blocks, odds, log_weight)

    log_joint = log_weight.copy()
    columns = []
    for block, block_odds in zip(blocks, odds, strict=True):
        parts = [ld.effects(*block[i : i + 1].arrays, block_odds[i], threads=1) for i in range(n)]
        evidence, inclusion, mean, covariance = (
            np.concatenate([part[q] for part in parts]) for q in range(4)
        )
        log_joint += evidence
        square = np.diagonal(covariance, axis1=1, axis2=2) + mean**2
        columns.append((inclusion, mean, square))
    log_evidence = np.logaddexp.reduce(log_joint)
    weight = np.exp(log_joint - log_evidence)
    inclusion, mean, square = (weight @ np.hstack(part) for part in zip(*columns, strict=True))

    within_error(found["inclusion"], inclusion, 2e-4)
    within_error(found["effect_mean"], mean, 1e-5)
    within_error(found["effect_square"], square, 1e-6)
    within_error(found["node_probability"], weight, 2e-4)
    within_error(found["log_evidence"], log_evidence, 1e-3)
    assert found["log_evidence_bound"] < log_evidence + 1e-9
    assert found["node_probability"][:, 5].max() < 1e-100
    np.testing.assert_allclose(found["node_probability"].sum(axis=1), 1, rtol=1e-12)
    assert (found["coverage"] > 0.9).all()
    assert found["difference"] == np.ptp(found["inclusion"], axis=0).max()
    assert ((found["flip_rate"] > 0) & (found["flip_rate"] < 1)).all()
    assert ((found["swap_rate"] > 0) & (found["swap_rate"] < 1)).all()


def test_gibbs_on_the_block_of_sixteen_of_the_reference_file():
    data, block, log_weight, effect = golden_sixteen()
    odds = np.log(data["pi"] / (1 - data["pi"]))
    found = sample([block], [odds], log_weight, sweeps=8000)
    within_error(found["inclusion"], data["pip"], 1e-3)
    within_error(found["node_probability"] @ effect, data["Ebeta"], 1e-4)
    within_error(found["log_evidence"], data["logZ_rel"], 1e-2)
    assert np.abs(found["inclusion"].mean(axis=0) - data["pip"]).max() < 0.01


def test_gibbs_on_a_large_block_without_correlation():
    """Forty candidates that are independent after all: every probability is known."""
    size, n = 40, 3
    rng = np.random.default_rng(8)
    nodes = Nodes(
        np.eye(size),
        np.full((n, size), 2e-4),
        np.tile(rng.normal(0, 0.03, size), (n, 1)),
        np.full(n, 1e-5),
        np.array([0.002, 0.01, 0.05]),
        NO_MEANS,
    )
    odds = rng.normal(-1, 1, size)
    log_weight = np.array([-1.0, 0.0, -0.5])

    def log_density(variance):
        variance = 2e-4 + variance[:, None]
        return -0.5 * (np.log(2 * np.pi * variance) + nodes.residuals**2 / variance)

    out = log_density(nodes.spike) - np.logaddexp(0, odds)
    inside = log_density(nodes.slab) - np.logaddexp(0, -odds)
    log_joint = log_weight + np.logaddexp(out, inside).sum(axis=1)
    weight = np.exp(log_joint - np.logaddexp.reduce(log_joint))
    found = sample([nodes], [odds], log_weight)
    within_error(found["inclusion"], weight @ (1 / (1 + np.exp(out - inside))), 1e-3)
    within_error(found["node_probability"], weight, 1e-3)


def test_gibbs_has_the_same_bits_for_any_number_of_threads():
    blocks = [path_of_nodes(14, 30, 1), path_of_nodes(5, 30, 2, means=True)]
    run = [
        sample(blocks, [-1.0, -2.0], np.zeros(30), sweeps=300, burn_in=20, threads=threads)
        for threads in (1, 2, 7)
    ]
    for other in run[1:]:
        for name, value in run[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)
    another = sample(blocks, [-1.0, -2.0], np.zeros(30), sweeps=300, burn_in=20, seed=2)
    assert (another["inclusion"] != run[0]["inclusion"]).any()
    assert len(np.unique(run[0]["inclusion"][:, 0])) == 4  # every chain has a stream of its own


def test_one_chain_bounds_the_evidence_only():
    blocks = [path_of_nodes(6, 9, 1)]
    found = sample(blocks, [-1.0], np.zeros(9), chains=1)
    exact = np.logaddexp.reduce(blocks[0].evidence(np.full(6, -1.0))[0])
    assert found["log_evidence"].size == found["coverage"].size == 0
    assert exact - 0.1 < found["log_evidence_bound"] < exact + 1e-9
    assert found["difference"] == 0


def test_gibbs_counts_its_sweeps():
    seen = []
    sample([path_of_nodes(13, 500, 1)], [-1.0], np.zeros(500), progress=seen.append, threads=1)
    assert seen == sorted(seen)
    assert all(0 <= done <= 4 * 4400 for done in seen)


@POSIX
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_stops_gibbs(threads):
    sent = []

    def press(done):
        if done > 100 and not sent:
            sent.append(time.monotonic())
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sample(
            [path_of_nodes(13, 50, 1)],
            [-1.0],
            np.zeros(50),
            sweeps=10**12,
            threads=threads,
            progress=press,
        )
    assert time.monotonic() - sent[0] < 1


@POSIX
def test_ctrl_c_stops_the_enumeration():
    def handler(number, frame):
        raise KeyboardInterrupt

    nodes = example(16, 64, means=False)
    many = Nodes(
        nodes.eigenvectors,
        np.tile(nodes.variances, (2000, 1)),
        np.tile(nodes.residuals, (2000, 1)),
        np.tile(nodes.spike, 2000),
        np.tile(nodes.slab, 2000),
        NO_MEANS,
    )
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            many.evidence(np.zeros(16), threads=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 3


def test_arguments_of_gibbs():
    block = path_of_nodes(13, 4, 1)
    for wrong in ([np.nan, 0, 0, 0], [np.inf, 0, 0, 0], [-np.inf] * 4):
        with pytest.raises(ValueError, match="log_weight"):
            sample([block], [-1.0], np.array(wrong, dtype=float))
    with pytest.raises(ValueError, match="residuals"):
        sample([replace(block, residuals=block.residuals * np.nan)], [-1.0], np.zeros(4))
    with pytest.raises(ValueError, match="sweeps"):
        sample([block], [-1.0], np.zeros(4), sweeps=0)
    size, n = 900, 3000
    wide = path_of_nodes(2, n, 1)
    ones = np.ones((n, size))
    huge = Nodes(np.eye(size), ones, ones, wide.spike, wide.slab, NO_MEANS)
    with pytest.raises(ValueError, match="fewer nodes"):
        sample([huge], [-1.0], np.zeros(n))
