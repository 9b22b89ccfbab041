"""The prior on the identified scale with LD blocks, against all models of dense Gaussians."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mrfast._core import identified
from mrfast._runtime import symmetric_eigen
from mrfast.bayes.identified import first_stage, identified_posterior
from mrfast.bayes.identified_prior import IdentifiedPrior, SlabPart
from mrfast.data.ld_blocks import LDBlock
from mrfast.data.standardised import StandardisedAssociations

SLOPE = 0.6
G = 0.004
EFFECT_SD = 1.0
# Kind of slab mean (0 centred, 1 sign, 2 proportional), a0, a1, rho, pi, weight.
TABLE = np.array(
    [
        (0, 0.1, 5.0, 0.0, 0.05, 0.2),
        (0, 0.1, 5.0, 0.0, 0.35, 0.1),
        (1, 0.1, 5.0, 0.6, 0.05, 0.1),
        (1, 0.1, 5.0, 0.6, 0.95, 0.1),
        (1, 1.0, 10.0, -1.5, 0.2, 0.2),
        (2, 1.0, 2.5, 3.0, 0.5, 0.1),
        (2, 3.0, 2.5, -0.6, 0.2, 0.2),
    ]
)
GROUPS = ((0, 2, 5), (1, 4))  # candidate 3 is independent


class Problem:
    """Six candidates in blocks of 3 and 2 and one alone; exposure and outcome of unequal size."""

    def __init__(self, groups=GROUPS, seed=0):
        rng = np.random.default_rng(seed)
        self.groups = groups
        self.correlation = np.eye(6)
        n1, n2, shared = np.full(6, 3000.0), np.full(6, 5000.0), np.full(6, 1200.0)
        for number, group in enumerate(groups):
            size = len(group)
            block = (0.7, 0.55)[number % 2] ** np.abs(np.subtract.outer(range(size), range(size)))
            self.correlation[np.ix_(group, group)] = block
            n1[list(group)] *= 1 + 0.2 * number
        self.n11, self.n22, self.n12 = 1 / n1, 1 / n2, shared / (n1 * n2)
        noise = self.noise()
        draws = np.linalg.cholesky(noise) @ rng.normal(size=12)
        gamma = np.sqrt(G) * rng.normal(size=6)
        alpha = np.where(np.arange(6) == 2, 0.12, 0.0) + 0.001 * rng.normal(size=6)
        self.x = gamma + draws[:6]
        self.y = 0.3 * gamma + alpha + draws[6:]

    def noise(self):
        """Covariance of the noise of (x, y): A^-1 in every group."""
        inverse = np.linalg.inv(self.correlation)

        def scaled(factor):
            return np.sqrt(np.outer(factor, factor)) * inverse

        cross = SLOPE * scaled(self.n12)
        return np.block([[scaled(self.n11), cross], [cross, (1 + SLOPE**2) * scaled(self.n22)]])

    def model(self, table=TABLE):
        blocks = []
        for group in self.groups:
            values, vectors = symmetric_eigen(self.correlation[np.ix_(group, group)])
            blocks.append((np.array(group, dtype=np.int64), values, vectors))
        kind, a0, a1, rho, pi, weight = (np.ascontiguousarray(column) for column in table.T)
        return identified.Model(
            x=self.x,
            y=self.y,
            n11=self.n11,
            n22=self.n22,
            n12=self.n12,
            slope=SLOPE,
            slope_sd=0.0,
            confounding_sd=(1.0, 1.0),
            g=G,
            mean=kind.astype(np.int64),
            a0=a0,
            a1=a1,
            rho=rho,
            pi=pi,
            weight=weight,
            blocks=blocks,
        )

    def slab_means(self, kind, a1, rho):
        direction = {
            0: np.zeros(6),
            1: np.sign(self.x),
            2: self.x / np.sqrt(np.mean(self.x**2)),
        }[int(kind)]
        return rho * a1 * np.sqrt(np.median(self.n22)) * direction

    def enumerate(self, effects, row, g=G):
        """Log likelihoods of y given x under all 64 models at all effects, with the posterior
        moments of (gamma, alpha) under each: (models, n), (models, n, 12), (models, n, 12)."""
        kind, a0, a1, rho, pi, _ = row
        unit = np.sqrt(np.median(self.n22))
        means = self.slab_means(kind, a1, rho)
        noise = self.noise()
        values = np.concatenate([self.x, self.y])
        first = noise[:6, :6] + g * np.eye(6)
        log_x = -0.5 * (
            np.linalg.slogdet(2 * np.pi * first)[1] + self.x @ np.linalg.solve(first, self.x)
        )
        design = np.zeros((len(effects), 12, 12))
        design[:, range(12), range(12)] = 1
        design[:, range(6, 12), range(6)] = np.asarray(effects)[:, None]
        log_weight, centre, spread = [], [], []
        for model in product([False, True], repeat=6):
            inside = np.array(model)
            prior = np.concatenate(
                [np.full(6, g), (np.where(inside, a0**2 + a1**2, a0**2)) * unit**2]
            )
            start = np.concatenate([np.zeros(6), inside * means])
            covariance = noise + (design * prior) @ design.transpose(0, 2, 1)
            gap = values - design @ start
            gain = prior[:, None] * np.linalg.solve(covariance, design).transpose(0, 2, 1)
            solved = np.linalg.solve(covariance, gap[..., None])[..., 0]
            log_density = -0.5 * (
                np.linalg.slogdet(2 * np.pi * covariance)[1] + (gap * solved).sum(axis=1)
            )
            log_pi = np.where(inside, np.log(pi), np.log1p(-pi)).sum()
            log_weight.append(log_density - log_x + log_pi)
            centre.append(start + np.einsum("nij,nj->ni", gain, gap))
            spread.append(prior - np.einsum("nij,nji->ni", gain, design * prior))
        return np.array(log_weight), np.array(centre), np.array(spread)


MODELS = np.array(list(product([False, True], repeat=6)))


@pytest.mark.parametrize(
    "groups",
    [GROUPS, ((0, 1, 2, 3, 4, 5),), ((0, 1), (2, 3), (4, 5))],
    ids=["3+2+1", "6", "2+2+2"],
)
def test_likelihood_of_every_node(groups):
    """Blocks times independent candidates; a median of n22 within the blocks, or noise factors
    that are not divided by the eigenvalues, would give another unit or another likelihood."""
    problem = Problem(groups)
    effects = np.array([-1.3, -0.2, 0.0, 0.25, 0.3, 0.31, 0.5, 2.0, 3.0])
    found = problem.model().log_likelihood(effects)
    for h, row in enumerate(TABLE):
        expected = np.logaddexp.reduce(problem.enumerate(effects, row)[0])
        np.testing.assert_allclose(found[:, h], expected, rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def exact():
    """Posterior over models, nodes and a fine grid of effects, by brute force."""
    problem = Problem()
    effects = np.linspace(-6.0, 6.0, 401)
    log_prior = -0.5 * (effects**2 + np.log(2 * np.pi))
    log_joint, columns = [], []
    for row in TABLE:
        log_weight, centre, spread = problem.enumerate(effects, row)
        log_joint.append(log_weight + log_prior + np.log(row[-1] * (effects[1] - effects[0])))
        columns.append((centre, centre**2 + spread))
    log_joint = np.array(log_joint)  # (nodes, models, effects)
    log_evidence = np.logaddexp.reduce(log_joint, axis=None)
    weight = np.exp(log_joint - log_evidence)
    first = np.einsum("hsn,hsni->i", weight, np.array([part[0] for part in columns]))
    second = np.einsum("hsn,hsni->i", weight, np.array([part[1] for part in columns]))
    return {
        "problem": problem,
        "effects": effects,
        "weight": weight,
        "log_evidence": log_evidence,
        "inclusion": weight.sum(axis=(0, 2)) @ MODELS,
        "mean": first,
        "sd": np.sqrt(second - first**2),
    }


def test_posterior_of_everything(exact):
    found = (
        exact["problem"]
        .model()
        .summarise(effect_sd=EFFECT_SD, tolerance=1e-9, depth=30.0, threads=2, progress=None)
    )
    assert found["log_evidence"] == pytest.approx(exact["log_evidence"], abs=1e-6)
    np.testing.assert_allclose(found["hyper"], exact["weight"].sum(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(found["inclusion"], exact["inclusion"], rtol=0, atol=1e-6)
    for name, half in (("first_stage", slice(0, 6)), ("pleiotropy", slice(6, 12))):
        np.testing.assert_allclose(found[f"{name}_mean"], exact["mean"][half], atol=1e-7)
        np.testing.assert_allclose(found[f"{name}_sd"], exact["sd"][half], rtol=1e-5)
    effect = found["node_weight"] @ found["node"]
    assert effect == pytest.approx(exact["weight"].sum(axis=(0, 1)) @ exact["effects"], abs=1e-6)


def test_draws_follow_the_posterior(exact):
    model = exact["problem"].model()
    rng = np.random.default_rng(5)
    n = 40_000
    marginal = exact["weight"].sum(axis=(0, 1))
    b = rng.choice(exact["effects"], size=n, p=marginal / marginal.sum())
    uniforms, normals = rng.random((n, 7)), rng.normal(size=(n, 12))
    node, slab, first_stage, pleiotropy = model.draw(b, uniforms, normals, 2)
    counts = np.bincount(node, minlength=len(TABLE)) / n
    np.testing.assert_allclose(counts, exact["weight"].sum(axis=(1, 2)), atol=0.012)
    np.testing.assert_allclose(slab.mean(axis=0), exact["inclusion"], atol=0.012)
    draws = np.hstack([first_stage, pleiotropy])
    error = exact["sd"] / np.sqrt(n)
    assert (np.abs(draws.mean(axis=0) - exact["mean"]) < 5 * error).all()
    np.testing.assert_allclose(draws.std(axis=0), exact["sd"], rtol=0.04)
    # Two candidates of a block are drawn together.
    pair = (exact["weight"].sum(axis=(0, 2)) @ (MODELS[:, 1] & MODELS[:, 4])).item()
    assert (slab[:, 1] & slab[:, 4]).mean() == pytest.approx(pair, abs=0.012)
    again = model.draw(b, uniforms, normals, 1)
    for one, other in zip((node, slab, first_stage, pleiotropy), again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_without_correlation_change_nothing():
    problem = Problem(groups=())
    effects = np.linspace(-1, 1, 9)
    options = {"effect_sd": 1.0, "tolerance": 1e-9, "depth": 30.0, "threads": 1, "progress": None}
    alone = problem.model()
    likelihood, summary = alone.log_likelihood(effects), alone.summarise(**options)
    problem.groups = ((0, 1), (2, 4, 5))
    blocks = problem.model()
    np.testing.assert_allclose(blocks.log_likelihood(effects), likelihood, rtol=0, atol=1e-11)
    other = blocks.summarise(**options)
    for name in ("inclusion", "first_stage_mean", "pleiotropy_sd", "hyper"):
        np.testing.assert_allclose(other[name], summary[name], rtol=0, atol=1e-7, err_msg=name)


def test_same_bits_for_any_number_of_threads():
    model = Problem().model()
    options = {"effect_sd": 1.0, "tolerance": 1e-6, "depth": 23.0, "progress": None}
    first = model.summarise(threads=1, **options)
    for threads in (2, 7):
        other = model.summarise(threads=threads, **options)
        for name, value in first.items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.parametrize("groups", [((0, 1), (1, 2)), ((0, 6),)])
def test_places_of_blocks_are_checked(groups):
    problem = Problem()
    problem.groups = groups
    problem.correlation = np.eye(8)
    with pytest.raises(ValueError, match="blocks"):
        problem.model()


def associations(problem, s11=2.0, s221=0.5):
    """The same as the public interface takes it, X and Y in units of their own."""
    eta = np.sqrt(s221 / s11)
    return StandardisedAssociations(
        exposure=problem.x * np.sqrt(s11),
        outcome=problem.y * np.sqrt(s221),
        noise_exposure=problem.n11,
        noise_outcome=problem.n22,
        noise_shared=problem.n12,
        residual_exposure=s11,
        residual_slope=SLOPE * eta,
        residual_outcome=s221,
        n_exposure=3000.0,
        n_outcome=5000.0,
        n_shared=1200.0,
        slope_sd=0.02 * eta,
        slope_in_overlap=False,
        blocks=tuple(
            LDBlock.of_matrix(group, problem.correlation[np.ix_(group, group)])
            for group in problem.groups
        ),
    )


def test_first_stage_of_correlated_candidates():
    """g maximises the dense likelihood; coefficients taken as independent give another g."""
    problem = Problem()
    noise = problem.noise()[:6, :6]

    def minus_log_density(log_g):
        covariance = noise + np.exp(log_g) * np.eye(6)
        return np.linalg.slogdet(covariance)[1] + problem.x @ np.linalg.solve(covariance, problem.x)

    best = minimize_scalar(minus_log_density, bounds=(-12, 0), method="bounded")
    stage = first_stage(associations(problem))
    assert np.log(stage.g) == pytest.approx(best.x, abs=1e-4)
    independent, _ = identified.first_stage_variance(problem.x, problem.n11, 0.0)
    assert abs(np.log(independent / stage.g)) > 0.01
    selected = first_stage(associations(problem), selection_p=0.999)
    assert "but for the correlated candidates" in selected.note
    assert selected.g < stage.g  # by candidate 3, which is alone


def test_posterior_by_the_public_interface():
    problem = Problem()
    prior = IdentifiedPrior(
        spike_sd=(0.1,),
        spike_weights=(1.0,),
        slab_sd=(8.0,),
        parts=(
            SlabPart("centred", 0.5, (0.1, 0.4), (0.7, 0.3)),
            SlabPart("sign", 0.5, (0.2,), (1.0,), rho=(-1.0, 1.0), rho_weights=(0.5, 0.5)),
        ),
        use_slope=False,
    )
    found = identified_posterior(associations(problem), prior, n_threads=2)
    g = found.first_stage_prior.g
    effects = np.linspace(-6, 6, 301)
    table = prior.table
    rows = np.column_stack([table.mean, table.a0, table.a1, table.rho, table.pi, table.prior])
    log_prior = -0.5 * (effects**2 + np.log(2 * np.pi)) + np.log(effects[1] - effects[0])
    log_joint = np.array(
        [problem.enumerate(effects, row, g)[0] + log_prior + np.log(row[-1]) for row in rows]
    )
    log_evidence = np.logaddexp.reduce(log_joint, axis=None)
    weight = np.exp(log_joint - log_evidence)
    first = problem.noise()[:6, :6] + g * np.eye(6)
    log_x = -0.5 * (
        np.linalg.slogdet(2 * np.pi * first)[1] + problem.x @ np.linalg.solve(first, problem.x)
    )
    scale = 6 * np.log(np.sqrt(2.0 * 0.5))
    assert found.log_evidence == pytest.approx(log_evidence + log_x - scale, abs=1e-5)
    np.testing.assert_allclose(found.inclusion, weight.sum(axis=(0, 2)) @ MODELS, atol=1e-5)
    mean = weight.sum(axis=(0, 1)) @ effects * found.eta
    assert found.effect.moments[0] == pytest.approx(mean, abs=1e-5)
    draws = found.draw(2000, np.random.default_rng(1))
    assert np.abs(draws["slab"].mean(axis=0) - found.inclusion).max() < 0.06
