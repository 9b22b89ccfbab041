"""The posterior under MASSIVE's prior with LD blocks too large for a sum over all their models.

The quadrature of the five parameters is made with these blocks cut into small ones. Its nodes,
with the weights that they have under the blocks as they are, are the table that a sampler over
models and nodes runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrfast._runtime import generator, symmetric_eigen
from mrfast._validation import Float
from mrfast.bayes.collapsed import (
    BETA,
    D1,
    D3,
    EFFECT,
    LOG_WEIGHT,
    MAX_PANELS,
    PARTS,
    Certificate,
    CollapsedPosterior,
    M,
    U,
    collapsed_problem,
)
from mrfast.bayes.effect_density import KRONROD_NODES, EffectDensity
from mrfast.bayes.large_blocks import SampledBlocks, Sampling, cut_blocks, large_blocks
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.data.ld_blocks import LDBlock
from mrfast.data.standardised import StandardisedAssociations

if TYPE_CHECKING:
    from mrfast._core.exact import Problem

__all__ = ["SampledCollapsedPosterior", "sampled_collapsed_posterior"]

_TOLERANCE = 1e-3  # of the quadrature with the blocks cut
_WIDER = 1.5  # factor of the noise in the pieces, so that no tail is cut off
_NODES = 10_000  # of the sampler's table
_FEWER_NODES = 5_000  # where more than so many candidates are sampled:
_MANY = 40
_UNIFORM = 0.2  # share of the nodes that are taken without regard to their weights
_EDGE = 7.0  # log density below its maximum that the ends of the panels must reach
_GOOD_FIT = 0.5  # with which the nodes are not chosen anew
_REFINEMENTS = 2
_CERTAIN = 1e-9  # probability of the other kind where a candidate's is taken as known
_LEAST = 1e-12  # share of the largest node below which nodes are left out
_STATES = 1_000  # of each chain that are stored
_DRAWS = 4_000  # of the certificate
_LOG_TWO_PI = float(np.log(2 * np.pi))


class _AtNodes(NamedTuple):
    """A block along its eigenvectors at nodes; see collapsed_blocks.cpp."""

    log_constant: Float  # (n,)
    noise: Float  # (n, B): of the outcome's association given the exposure's
    rotated: Float  # (n, B): what the outcome's association leaves of the exposure's
    residual: Float  # (n, B): the same by candidate
    base: Float  # (n, B): first stage where the residual is explained
    pull: Float  # (n, B)
    spread: Float  # (n, B)


class _Scales(NamedTuple):
    """Variances at nodes: of X and Y in units of their estimates, of the effects."""

    s1: Float
    s3: Float
    g: Float
    spike: Float
    slab: Float


def _scales(nodes: Float, prior: SpikeSlabPrior) -> _Scales:
    turn = np.exp(0.5 * (nodes[:, D1] - nodes[:, D3]))
    c = (nodes[:, M] - nodes[:, BETA]) * turn
    rho = np.abs(c) * np.sqrt(1 + c * c)
    k1 = 1 + c * c + rho * np.exp(2 * nodes[:, U])
    k2 = k1 + c * c + rho * np.exp(-2 * nodes[:, U])
    s3 = np.exp(nodes[:, D3])
    return _Scales(
        s1=np.exp(nodes[:, D1]),
        s3=s3,
        g=prior.slab_sd**2 / k1,
        spike=s3 * prior.spike_sd**2 * k1 / k2,
        slab=s3 * prior.slab_sd**2 * k1 / k2,
    )


def _at_nodes(
    s: StandardisedAssociations, block: LDBlock, nodes: Float, scales: _Scales
) -> _AtNodes:
    first = block.indices[0]
    v = block.eigenvectors
    a = np.einsum("jk,j->k", v, s.exposure[block.indices] / np.sqrt(s.residual_exposure))
    b = np.einsum("jk,j->k", v, s.outcome[block.indices] / np.sqrt(s.residual_outcome))
    ratio = s.noise_shared[first] / s.noise_exposure[first]
    n11, n22 = (
        s.noise_exposure[first] / block.eigenvalues,
        s.noise_outcome[first] / block.eigenvalues,
    )
    excess = np.maximum(n22 - n11 * ratio * ratio, 0.0)
    s1, s3, g = scales.s1[:, None], scales.s3[:, None], scales.g[:, None]
    beta, m = nodes[:, BETA, None], nodes[:, M, None]
    w = ratio * m - beta
    share = n11 / (n11 + g)
    c11 = s1 * (n11 + g)
    noise = s3 * n22 + s1 * (g * share * w * w + excess * m * m)
    rotated = b - (beta + share * w) * a
    product = n11 * (n22 + m * m * (s1 / s3) * excess) * s1 * s3 / c11
    lift = share * w * s1 * g
    pull = lift / noise
    return _AtNodes(
        log_constant=0.5 * (np.log(product) - a * a / c11 + _LOG_TWO_PI).sum(axis=1),
        noise=noise,
        rotated=rotated,
        residual=np.einsum("jk,nk->nj", v, rotated),
        base=a * (g / (n11 + g)),
        pull=pull,
        spread=s1 * g * share - lift * pull,
    )


def _piece_values(
    cut: StandardisedAssociations,
    members: NDArray[np.intp],
    prior: SpikeSlabPrior,
    nodes: Float,
    threads: int,
) -> Float:
    """Log likelihood of the pieces of the cut blocks at nodes."""
    from mrfast._core import ld

    inside = set(members.tolist())
    pieces = [block for block in cut.blocks if int(block.indices[0]) in inside]
    for block in pieces:
        inside -= set(block.indices.tolist())
    alone = [_single(j) for j in sorted(inside)]
    scales = _scales(nodes, prior)
    log_odds = prior.log_odds(cut.J)
    out = np.zeros(len(nodes))
    for piece in (*pieces, *alone):
        at = _at_nodes(cut, piece, nodes, scales)
        value, _ = ld.enumerate_block(
            np.ascontiguousarray(piece.eigenvectors),
            at.noise,
            at.residual,
            scales.spike,
            scales.slab,
            np.empty(0),
            log_odds[piece.indices],
            inclusion=False,
            threads=threads,
        )
        out += value + at.log_constant
    return out


class _Single(NamedTuple):
    indices: NDArray[np.intp]
    eigenvalues: Float
    eigenvectors: Float


def _single(j: int) -> Any:
    return _Single(np.array([j]), np.ones(1), np.ones((1, 1)))


@dataclass(frozen=True, eq=False)
class SampledCollapsedPosterior(CollapsedPosterior):
    """`CollapsedPosterior` with the models of large blocks sampled.

    Attributes
    ----------
    sampled : SampledBlocks
        How the chains went.
    effects : ndarray
        Effects of the quadrature, ascending, in the problem's unit.
    large : tuple of LDBlock
    cut_blocks : tuple of LDBlock
        Blocks of the approximation that made the nodes.
    state_node : ndarray of int, shape (states,)
        Stored states of the chains: their nodes.
    state_slab : ndarray of bool, shape (states, members)
        Candidates of the large blocks in the slab, by block.
    zero_log_evidence : ndarray, shape (chains,)
        Log of the posterior density times the evidence at no effect, by chain; NaN where a chain
        gives none.
    """

    sampled: SampledBlocks
    effects: Float
    large: tuple[LDBlock, ...]
    cut_blocks: tuple[LDBlock, ...]
    state_node: NDArray[np.int64]
    state_slab: NDArray[np.bool_]
    zero_log_evidence: Float

    def log_bayes_factor(self, scales: Sequence[float]) -> Float:
        """As in `CollapsedPosterior`; NaN where the chains do not give it within 0.5."""
        out = super().log_bayes_factor(scales)
        zero, evidence = self.zero_log_evidence, self.sampled.log_evidence
        known = zero.size > 1 and bool(np.isfinite(zero).all() and np.isfinite(evidence).all())
        if not known or max(np.ptp(zero), np.ptp(evidence)) > 1:
            out[:] = np.nan
        return out

    def _choose(
        self, count: int, source: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], Float]:
        state = source.integers(self.state_node.size, size=count)
        within = np.broadcast_to(np.arange(1, PARTS) / PARTS, (count, PARTS - 1))
        return state, self.state_node[state].astype(np.intp), within

    def _levels(self, index: NDArray[np.intp], share: Float) -> Float:
        # The law of the effect is smoother than the nodes' weights: between the middles of the
        # intervals to the neighbouring effects.
        middles = self.problem.eta * 0.5 * (self.effects[1:] + self.effects[:-1])
        below = np.array([0.0, *(self.effect.cdf(float(x)) for x in middles), 1.0])
        return np.asarray(below[index] + share * (below[index + 1] - below[index]))

    def _draw_blocks(
        self,
        rows: Float,
        state: NDArray[np.intp],
        source: np.random.Generator,
        slab: NDArray[np.bool_],
        gamma: Float,
        alpha: Float,
    ) -> None:
        if self.cut_blocks:
            self._draw_summed(self.cut_blocks, rows, source, slab, gamma, alpha)
        members = np.ascontiguousarray(self.state_slab[state])
        draw = _draw_members(self.associations, self.prior, self.large, rows, members, source)
        places = np.concatenate([block.indices for block in self.large])
        slab[:, places] = members
        gamma[:, places], alpha[:, places] = draw


def _draw_members(
    s: StandardisedAssociations,
    prior: SpikeSlabPrior,
    large: Sequence[LDBlock],
    nodes: Float,
    members: NDArray[np.bool_],
    source: np.random.Generator,
) -> tuple[Float, Float]:
    """First-stage and pleiotropic effects of the large blocks' candidates given their models."""
    from mrfast._core import ld

    scales = _scales(nodes, prior)
    gammas, alphas = [], []
    begin = 0
    for block in large:
        b, v = block.indices.size, block.eigenvectors
        at = _at_nodes(s, block, nodes, scales)
        alpha = ld.draw_effects(
            np.ascontiguousarray(v),
            at.noise,
            at.residual,
            scales.spike,
            scales.slab,
            np.ascontiguousarray(members[:, begin : begin + b]),
            source.standard_normal((len(nodes), 2 * b)),
        )
        begin += b
        left = at.rotated - np.einsum("nj,jk->nk", alpha, v)
        noise = np.sqrt(np.maximum(at.spread, 0.0)) * source.standard_normal(left.shape)
        gammas.append(np.einsum("jk,nk->nj", v, at.base - at.pull * left + noise))
        alphas.append(alpha)
    return np.concatenate(gammas, axis=1), np.concatenate(alphas, axis=1)


@dataclass(frozen=True)
class _Table:
    """Quadrature of an approximation, and chains over models and its nodes."""

    s: StandardisedAssociations
    cut: StandardisedAssociations
    prior: SpikeSlabPrior
    odds: SpikeSlabPrior  # of the approximation
    large: tuple[LDBlock, ...]
    members: NDArray[np.intp]
    problem: Problem
    report: dict[str, Any]
    nodes: Float
    log_weight: Float
    threads: int
    progress: Callable[[int], None] | None

    @classmethod
    def of(
        cls,
        s: StandardisedAssociations,
        cut: StandardisedAssociations,
        prior: SpikeSlabPrior,
        odds: SpikeSlabPrior,
        large: tuple[LDBlock, ...],
        most: int,
        source: np.random.Generator,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> _Table:
        """Integrate, and choose nodes."""
        problem = collapsed_problem(cut, odds)
        report = problem.run(_TOLERANCE, MAX_PANELS, threads, progress)
        nodes, log_weight = _thin(report["nodes"], most, source)
        members = np.concatenate([block.indices for block in large])
        return cls(
            s,
            cut,
            prior,
            odds,
            large,
            members,
            problem,
            report,
            nodes,
            log_weight,
            threads,
            progress,
        )

    @property
    def thinned(self) -> bool:
        """Whether nodes were left out by chance."""
        log_weight = self.report["nodes"][:, LOG_WEIGHT]
        return len(self.nodes) < int((log_weight > log_weight.max() + np.log(_LEAST)).sum())

    def fit(self, probability: Float) -> float:
        """Efficiency of the approximation as a proposal for the posterior: 1 where they agree."""
        approximate = np.exp(self.log_weight - np.logaddexp.reduce(self.log_weight))
        share = probability / probability.sum()
        return 1 / float((share**2 / approximate).sum())

    def run(
        self, nodes: Float, log_weight: Float, sampling: Sampling, seed: int, states: int
    ) -> Any:
        """Sample, the nodes having these weights in the quadrature of the approximation."""
        from mrfast._core import ld

        s, scales = self.s, _scales(nodes, self.prior)
        log_odds = self.prior.log_odds(s.J)
        weight = log_weight - _piece_values(self.cut, self.members, self.odds, nodes, self.threads)
        blocks = [_at_nodes(s, block, nodes, scales) for block in self.large]
        for at in blocks:
            weight = weight + at.log_constant
        count = len(nodes)
        return ld.gibbs(
            eigenvectors=[np.ascontiguousarray(block.eigenvectors) for block in self.large],
            variances=[at.noise for at in blocks],
            residuals=[at.residual for at in blocks],
            means=[np.empty(0)] * len(blocks),
            log_odds=[
                np.ascontiguousarray(
                    np.broadcast_to(log_odds[block.indices], (count, block.indices.size))
                )
                for block in self.large
            ],
            log_weight=weight,
            spike=scales.spike,
            slab=scales.slab,
            chains=sampling.chains,
            sweeps=sampling.sweeps,
            burn_in=sampling.burn_in,
            threads=self.threads,
            seed=seed,
            progress=self.progress,
            states=states,
        )


def _with_more_noise(
    cut: StandardisedAssociations, members: NDArray[np.intp]
) -> StandardisedAssociations:
    noise = [np.array(v) for v in (cut.noise_exposure, cut.noise_outcome, cut.noise_shared)]
    for values in noise:
        values[members] *= _WIDER
    return replace(cut, noise_exposure=noise[0], noise_outcome=noise[1], noise_shared=noise[2])


def _near_model(
    s: StandardisedAssociations,
    large: Sequence[LDBlock],
    inclusion: Float,
    prior: SpikeSlabPrior,
) -> tuple[StandardisedAssociations, SpikeSlabPrior]:
    """Uncorrelated candidates that tell about the effect what the blocks do in their main model.

    The candidates in the slab stand alone; the others, of which these are marginalised out, along
    the eigenvectors of what then is their noise, in the spike.
    """
    arrays: dict[str, Any] = {
        name: np.array(getattr(s, name))
        for name in ("exposure", "outcome", "noise_exposure", "noise_outcome", "noise_shared")
    }
    probability = np.array(np.broadcast_to(prior.slab_probability, s.J))
    begin = 0
    for block in large:
        slab = inclusion[begin : begin + block.indices.size] > 0.5
        begin += block.indices.size
        places, v = block.indices[~slab], block.eigenvectors[~slab]
        probability[block.indices] = np.where(slab, 1 - _CERTAIN, _CERTAIN)
        noise = np.einsum("jk,k,ik->ji", v, 1 / block.eigenvalues, v)
        alone = np.einsum("jk,k->j", block.eigenvectors[slab] ** 2, 1 / block.eigenvalues)
        values, vectors = symmetric_eigen(noise) if places.size else (np.ones(0), noise)
        for name, array in arrays.items():
            if name in ("exposure", "outcome"):
                array[places] = np.einsum("jk,j->k", vectors, array[places])
            else:
                array[places] *= values
                array[block.indices[slab]] *= alone
    cut = {id(block) for block in large}
    blocks = tuple(block for block in s.blocks if id(block) not in cut)
    odds = SpikeSlabPrior(
        prior.slab_sd,
        prior.spike_sd,
        probability,
        prior.effect_sd,
        prior.confounding_sd,
        prior.scale_power,
    )
    return replace(s, blocks=blocks, **arrays), odds


def _thin(nodes: Float, most: int, source: np.random.Generator) -> tuple[Float, Float]:
    """About `most` nodes with their log weights, drawn so that sums keep their expectation.

    Probabilities rise with the root of the weight, so that tails of the approximation are kept.
    """
    log_weight = nodes[:, LOG_WEIGHT]
    top = float(log_weight.max())
    keep = log_weight > top + np.log(_LEAST)
    nodes, log_weight = nodes[keep], log_weight[keep]
    if len(nodes) <= most:
        return np.ascontiguousarray(nodes), log_weight
    root = np.exp(0.5 * (log_weight - top))
    rate = most * ((1 - _UNIFORM) * root / root.sum() + _UNIFORM / len(nodes))
    rate = np.minimum(rate, 1.0)
    position = np.cumsum(rate) + source.random()
    chosen = np.floor(position) > np.floor(position - rate)
    return np.ascontiguousarray(nodes[chosen]), log_weight[chosen] - np.log(rate[chosen])


def _law(
    report: dict[str, Any], nodes: Float, log_weight: Float, probability: Float, eta: float
) -> tuple[EffectDensity, bool]:
    """Law of the effect, and whether it has died away at its ends.

    That with the blocks cut, times the ratio of what the table's nodes at an effect weigh under
    the sampler to what the same nodes weigh with the blocks cut: chance in the choice of the nodes
    cancels.
    """
    approximate: Float = report["log_density"]
    size = approximate.size
    place = nodes[:, EFFECT].astype(np.intp)
    before = np.bincount(place, weights=np.exp(log_weight - log_weight.max()), minlength=size)
    now = np.bincount(place, weights=probability, minlength=size)
    known = (before > 0) & (now > 0)
    ratio = np.interp(
        np.arange(size), np.flatnonzero(known), np.log(now[known]) - np.log(before[known])
    )
    values = approximate + ratio.reshape(approximate.shape)
    ends = max(float(values[0, 0]), float(values[-1, -1])) < float(values.max()) - _EDGE
    return EffectDensity.from_panels(report["edges"], values, eta), ends


def sampled_collapsed_posterior(
    associations: StandardisedAssociations,
    prior: SpikeSlabPrior,
    *,
    largest_block: int,
    sampling: Sampling,
    rng: object,
    threads: int,
    progress: Callable[[int], None] | None,
) -> SampledCollapsedPosterior:
    """Sample the models of large blocks with the nodes of the quadrature of everything else."""
    s, source = associations, generator(rng)
    _, large = large_blocks(s, largest_block)
    members = np.concatenate([block.indices for block in large])
    short = Sampling(2, min(1_000, sampling.sweeps), min(300, sampling.burn_in))
    most = _NODES if members.size <= _MANY else _FEWER_NODES
    tables: list[tuple[float, _Table]] = []
    # The nodes with the blocks cut; then with the models of the blocks about as they came out.
    cut, odds = cut_blocks(s, large), prior
    for _ in range(1 + _REFINEMENTS):
        cut = _with_more_noise(cut, members)
        table = _Table.of(s, cut, prior, odds, large, most, source, threads, progress)
        pilot = table.run(table.nodes, table.log_weight, short, int(source.integers(2**63)), 0)
        fit = table.fit(pilot["node_probability"].mean(axis=0))
        tables.append((fit, table))
        if fit > _GOOD_FIT:
            break
        cut, odds = _near_model(s, large, pilot["inclusion"].mean(axis=0), prior)
    table = max(tables, key=lambda pair: pair[0])[1]
    report, approximation, cut = table.report, table.problem, table.cut
    nodes, log_weight = table.nodes, table.log_weight
    shift = float(report["log_evidence"]) - float(
        np.logaddexp.reduce(report["nodes"][:, LOG_WEIGHT])
    )
    seeds = source.integers(2**63, size=2)
    sample = table.run(nodes, log_weight, sampling, int(seeds[0]), min(_STATES, sampling.sweeps))
    by_chain = sample["node_probability"]
    probability = by_chain.mean(axis=0)
    eta = approximation.eta
    effect, ends = _law(report, nodes, log_weight, probability, eta)
    medians = [_law(report, nodes, log_weight, row, eta)[0].quantile(0.5) for row in by_chain]

    zero = np.ascontiguousarray(report["zero"])
    at_zero = table.run(zero, np.ascontiguousarray(zero[:, LOG_WEIGHT]), sampling, int(seeds[1]), 0)
    zero_shift = float(report["zero_log_density"]) - float(np.logaddexp.reduce(zero[:, LOG_WEIGHT]))
    zero_evidence = at_zero["log_evidence"] + zero_shift

    nodes = nodes.copy()
    nodes[:, LOG_WEIGHT] = np.log(np.maximum(probability, 1e-300))
    share = probability / probability.sum()
    sums = approximation.moments(nodes, np.ascontiguousarray(share), threads)
    log_mean, std_error, effective = approximation.certificate(nodes, _DRAWS, threads)
    state_slab, state_node = sample["slab"], sample["state_node"]
    gamma, _ = _draw_members(
        s,
        prior,
        large,
        nodes[state_node],
        state_slab,
        np.random.default_rng(source.integers(2**63)),
    )
    moments = [
        sample["inclusion"],
        gamma.mean(axis=0)[None],
        (gamma**2).mean(axis=0)[None],
        sample["effect_mean"],
        sample["effect_square"],
    ]
    for row, values in zip(sums, moments, strict=True):
        row[members] = values.mean(axis=0)
    sampled = SampledBlocks(
        sizes=tuple(block.indices.size for block in large),
        sampling=sampling,
        inclusion=sample["inclusion"],
        effect_median=np.array(medians),
        effect_sd=effect.moments[1],
        log_evidence=sample["log_evidence"] + shift,
        coverage=sample["coverage"],
        quadrature_error=float(report["quadrature_error"]),
        converged=ends,
        quadrature_fit=table.fit(probability),
        flip_rate=sample["flip_rate"],
        swap_rate=sample["swap_rate"],
    )
    log_evidence, monte_carlo = sampled.evidence

    def summary(first: Float, second: Float, variance: float) -> Float:
        sd = np.sqrt(np.maximum(second - first * first, 0.0))
        return np.asarray(np.stack([first, sd]) * np.sqrt(variance))

    partial = SampledCollapsedPosterior(
        associations=s,
        prior=prior,
        problem=approximation,
        effect=effect,
        log_evidence=log_evidence,
        log_evidence_error=monte_carlo
        + float(report["quadrature_error"])
        + abs(log_mean)
        + std_error
        + (float(np.sqrt((share**2).sum())) if table.thinned else 0.0),
        certificate=Certificate(_DRAWS, effective, log_mean, std_error),
        converged=bool(report["converged"]),
        inclusion=np.clip(sums[0], 0.0, 1.0),
        first_stage=summary(sums[1], sums[2], s.residual_exposure),
        pleiotropy=summary(sums[3], sums[4], s.residual_outcome),
        nodes=nodes,
        zero_log_density=float(zero_evidence.mean()),
        zero_log_slope=0.0,
        sampled=sampled,
        effects=(
            report["edges"].mean(axis=1)[:, None]
            + 0.5 * np.diff(report["edges"], axis=1) * KRONROD_NODES
        ).ravel(),
        large=large,
        cut_blocks=cut.blocks,
        state_node=state_node,
        state_slab=state_slab,
        zero_log_evidence=zero_evidence,
    )
    at = partial.coordinates(zero)
    # Mean of d beta / d sbeta at no effect.
    turn = np.exp(0.5 * (zero[:, D1] - zero[:, D3]))
    kx2, ky2 = at["skappa_X"] ** 2, at["skappa_Y"] ** 2
    slope = (1 + kx2) / np.sqrt(1 + kx2 + ky2) / turn * eta
    weight = at_zero["node_probability"].mean(axis=0)
    return replace(partial, zero_log_slope=float(np.log((weight * slope).sum() / weight.sum())))
