"""The posterior under the prior on the identified scale with LD blocks too large for a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._runtime import generator, thread_count
from mrfast._validation import Float
from mrfast.bayes.effect_density import KRONROD_NODES, EffectDensity
from mrfast.bayes.identified import (
    FirstStage,
    IdentifiedPosterior,
    _effect_unit,
    _eta,
    identified_model,
    log_first_stage,
)
from mrfast.bayes.identified_prior import IdentifiedPrior
from mrfast.bayes.large_blocks import SampledBlocks, Sampling, cut_blocks, large_blocks
from mrfast.data.standardised import StandardisedAssociations

if TYPE_CHECKING:
    from mrfast._core.identified import Model, _Sample

__all__ = ["SampledIdentifiedPosterior", "sampled_posterior"]

_DEPTH = 40.0  # log density below its maximum where the panels end
_EDGE = 20.0  # the same that the ends of the panels must reach
_TOLERANCE = 1e-4  # relative error of the integral over the effect
_ROUNDS = 8  # of short chains that place the panels
_MORE_ROUNDS = 2  # of whole chains
_STATES, _MODELS = 1_000, 100  # of each chain: stored, and with their evidence computed
_SHALLOW = 2.0  # log density below the mode to which the chains know it well
_SMALLEST_TAIL = 1e-3  # of a reweighted posterior beyond its outermost panels
_CELLS_AT_ONCE = 2_000_000  # draws times candidates

_KRONROD_WEIGHTS = (
    0.022935322010529224963732008058970,
    0.063092092629978553290700663189204,
    0.104790010322250183839876322541518,
    0.140653259715525918745189590510238,
    0.169004726639267902826583426598550,
    0.190350578064785409913256402421014,
    0.204432940075298892414161999234649,
    0.209482141084727828012999174891714,
)
_GAUSS_WEIGHTS = (
    0.0,
    0.129484966168869693270611432679082,
    0.0,
    0.279705391489276667901467771423780,
    0.0,
    0.381830050505118944950369775488975,
    0.0,
    0.417959183673469387755102040816327,
)
_KRONROD = np.array([*_KRONROD_WEIGHTS, *_KRONROD_WEIGHTS[-2::-1]])
_GAUSS = np.array([*_GAUSS_WEIGHTS, *_GAUSS_WEIGHTS[-2::-1]])


@dataclass(frozen=True, eq=False)
class SampledIdentifiedPosterior(IdentifiedPosterior):
    """`IdentifiedPosterior` with the models of large blocks sampled.

    Attributes
    ----------
    sampled : SampledBlocks
        How the chains went.
    node : ndarray, shape (n,)
        Effects b of the quadrature.
    node_probability : ndarray, shape (n,)
    state_slab : ndarray of bool, shape (states, members)
        Stored states: candidates of the large blocks in the slab, by block.
    state_at, state_node : ndarray of int, shape (states,)
        Their places in `node` and in the table of hyper-parameters.
    log_density_at_zero : ndarray, shape (chains,)
        Log posterior density of b at no effect, by chain.
    seed : int
        Of the chains at no effect.
    """

    sampled: SampledBlocks
    node: Float
    node_probability: Float
    state_slab: NDArray[np.bool_]
    state_at: NDArray[np.int64]
    state_node: NDArray[np.int64]
    log_density_at_zero: Float
    seed: int

    def log_bayes_factor(self, scales: Sequence[float], *, n_threads: int | None = None) -> Float:
        """Log evidence for an effect against none, for other values of `effect_sd`.

        The law of the effect is reweighted to other scales. At no effect its density is that of
        the chains where it is not far below the mode (Savage and Dickey's ratio); else further
        chains at no effect give the evidence there. NaN where chains differ by more than 1, or
        where a wider prior would move the posterior beyond the nodes.
        """
        unit = _effect_unit(self.associations)
        used = self.prior.effect_sd * unit
        log_none = self._log_ratio_at_zero(thread_count(n_threads))
        out = []
        for i, scale in enumerate(scales):
            sd = unit * check.scalar(f"scales[{i}]", scale, above=0)
            log_ratio = -0.5 * self.node**2 * (sd**-2 - used**-2)
            top = float(log_ratio.max())
            share = self.node_probability * np.exp(log_ratio - top)
            total = float(share.sum())
            ends = float(share[:15].sum() + share[-15:].sum())
            known = ends <= _SMALLEST_TAIL * total
            out.append(top + np.log(total) + np.log(used / sd) - log_none if known else np.nan)
        return np.array(out)

    def _log_ratio_at_zero(self, threads: int) -> float:
        """Log of the likelihood of no effect over the evidence; NaN where not known."""
        used = self.prior.effect_sd * _effect_unit(self.associations)
        constant = 0.5 * np.log(2 * np.pi)
        at_zero = self.log_density_at_zero
        height = float(self.log_density.max()) + np.log(self.eta)
        if at_zero.max() > height - _SHALLOW:
            value = float(_log_mean(at_zero[:, None])[0]) + constant + np.log(used)
            return value if np.ptp(at_zero) <= 1 else float("nan")
        zero = np.zeros(1)
        rest = self.model.log_likelihood(zero) + np.log(self.prior.table.prior)
        sampling = self.sampled.sampling
        sample = self.model.sample(
            b=zero,
            weight=np.ones(1),
            log_rest=rest + self.model.log_prior(zero, 1.0)[:, None] + constant,
            chains=sampling.chains,
            sweeps=sampling.sweeps,
            burn_in=sampling.burn_in,
            states=0,
            models=_MODELS,
            threads=threads,
            seed=self.seed,
            progress=None,
        )
        there = sample["log_evidence"]
        first = log_first_stage(self.associations, self.first_stage_prior.g)
        whole = self.sampled.log_evidence - first
        if there.size < 2 or not max(np.ptp(there), np.ptp(whole)) <= 1:
            return float("nan")
        return float(there.mean() - whole.mean())

    def draw(
        self, count: int, source: np.random.Generator, *, n_threads: int | None = None
    ) -> dict[str, Float]:
        """Draws from the posterior, by states of the chains.

        A stored state at random; the effect from its law within the state's share of it; then,
        given these, exactly, the other indicators and the effects of every candidate.
        """
        eta, j = self.eta, self.associations.J
        threads = thread_count(n_threads)
        state = source.integers(self.state_at.size, size=count)
        below = np.concatenate([[0.0], np.cumsum(self.node_probability)])
        at = self.state_at[state]
        level = below[at] + source.random(count) * self.node_probability[at]
        beta = self.effect.quantiles(np.minimum(level / below[-1], 1.0))
        node = self.state_node[state]
        slab = np.empty((count, j), dtype=np.bool_)
        gamma, alpha = np.empty((2, count, j))
        chunk = max(1, _CELLS_AT_ONCE // j)
        for begin in range(0, count, chunk):
            part = slice(begin, min(count, begin + chunk))
            b = beta[part] / eta
            slab[part], gamma[part], alpha[part] = self.model.draw_given(
                b,
                np.ascontiguousarray(node[part]),
                np.ascontiguousarray(self.state_slab[state[part]]),
                source.random((b.size, j)),
                source.standard_normal((b.size, 2 * j)),
                threads,
            )
        return self._all_draws(source, beta, node, slab, gamma, alpha)


def _log_mean(log_values: Float) -> Float:
    """Logarithm of the mean over rows."""
    top = log_values.max(axis=0)
    return np.asarray(top + np.log(np.exp(log_values - top).mean(axis=0)))


@dataclass(frozen=True)
class _Run:
    """Chains over the models with the effect on the nodes of panels."""

    edges: Float  # (panels, 2) of b
    sample: _Sample
    nodes: Float  # (panels * 15,)
    log_density: Float  # (panels, 15)
    error: Float  # (panels,) of their probabilities

    def ends_reached(self) -> tuple[bool, bool]:
        """Whether the density has died away at the lower and the upper end."""
        top = self.log_density.max()
        tips = self.log_density[0, 0], self.log_density[-1, -1]
        return bool(tips[0] < top - _EDGE), bool(tips[1] < top - _EDGE)

    @property
    def converged(self) -> bool:
        return all(self.ends_reached()) and self.total_error <= 10 * _TOLERANCE

    @property
    def total_error(self) -> float:
        return float(self.error.sum())

    def better_panels(self, core: tuple[float, float]) -> Float:
        """Panels for the next run.

        Halved where the error is, more at ends where the density has not died away, fewer where
        it has beyond the core.
        """
        edges = [tuple(row) for row in self.edges]
        depth = self.log_density.max(axis=1) - self.log_density.max()
        split = self.error > _TOLERANCE / len(edges)
        first, last = 0, len(edges)
        while first + 1 < last and depth[first] < -_DEPTH and edges[first][1] <= core[0]:
            first += 1
        while last - 1 > first and depth[last - 1] < -_DEPTH and edges[last - 1][0] >= core[1]:
            last -= 1
        out: list[tuple[float, float]] = []
        for i in range(first, last):
            low, high = edges[i]
            middle = 0.5 * (low + high)
            out += [(low, middle), (middle, high)] if split[i] else [(low, high)]
        lower, upper = self.ends_reached()
        span = edges[last - 1][1] - edges[first][0]
        if not lower:
            out.insert(0, (out[0][0] - 0.5 * span, out[0][0]))
        if not upper:
            out.append((out[-1][1], out[-1][1] + 0.5 * span))
        return np.array(out)


def _first_panels(edges: Float, effect_sd: float) -> Float:
    """The panels of an approximation, and wider and wider ones beyond."""
    lower, upper = [float(edges[0])], [float(edges[-1])]
    step = 0.25 * (upper[0] - lower[0])
    while upper[-1] < 4 * effect_sd or lower[-1] > -4 * effect_sd or len(upper) < 2:
        if upper[-1] < 4 * effect_sd or len(upper) < 2:
            upper.append(upper[-1] + step)
        if lower[-1] > -4 * effect_sd or len(lower) < 2:
            lower.append(lower[-1] - step)
        step *= 2
    points = np.concatenate([lower[:0:-1], edges, upper[1:]])
    return np.stack([points[:-1], points[1:]], axis=1)


class _Sampler:
    """Runs chains on given panels of the effect."""

    def __init__(
        self,
        model: Model,
        log_weight: Float,
        effect_sd: float,
        seeds: np.random.Generator,
        threads: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.model, self.log_weight, self.effect_sd = model, log_weight, effect_sd
        self.seeds, self.threads, self.progress = seeds, threads, progress
        self.done = 0
        self._known: dict[float, Float] = {}

    def _log_rest(self, nodes: Float) -> Float:
        """Of everything outside the large blocks, with the priors; kept from run to run."""
        new = np.array([b for b in nodes if b not in self._known])
        if new.size:
            rows = self.model.log_likelihood(new) + self.log_weight
            rows += self.model.log_prior(new, self.effect_sd)[:, None]
            self._known.update(zip(new.tolist(), rows, strict=True))
        return np.stack([self._known[b] for b in nodes.tolist()])

    def run(self, edges: Float, sampling: Sampling, states: int, models: int) -> _Run:
        """Sample; the last node is no effect, with no weight in the quadrature."""
        half = 0.5 * (edges[:, 1] - edges[:, 0])
        inner = (edges.mean(axis=1)[:, None] + half[:, None] * KRONROD_NODES).ravel()
        nodes = np.append(inner, 0.0)
        weight = np.append((half[:, None] * _KRONROD).ravel(), 0.0)
        before = self.done

        def hook(done: int) -> None:
            self.done = before + done
            if self.progress is not None:
                self.progress(self.done)

        sample = self.model.sample(
            b=nodes,
            weight=weight,
            log_rest=self._log_rest(nodes),
            chains=sampling.chains,
            sweeps=sampling.sweeps,
            burn_in=sampling.burn_in,
            states=states,
            models=models,
            threads=self.threads,
            seed=int(self.seeds.integers(2**63)),
            progress=hook,
        )
        log_density = _log_mean(sample["log_density"])[:-1].reshape(-1, 15)
        density = np.exp(log_density)
        error = np.abs((density * (_KRONROD - _GAUSS)).sum(axis=1)) * half
        # As in QUADPACK, relative to how much the density varies within the panel.
        middle = 0.5 * (density * _KRONROD).sum(axis=1)
        varies = (np.abs(density - middle[:, None]) * _KRONROD).sum(axis=1) * half
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = varies * np.minimum(1.0, (200 * error / varies) ** 1.5)
        error = np.where((varies > 0) & (error > 0), scaled, error)
        return _Run(edges, sample, nodes, log_density, error)


def sampled_posterior(
    associations: StandardisedAssociations,
    prior: IdentifiedPrior,
    stage: FirstStage,
    *,
    largest_block: int,
    sampling: Sampling,
    rng: object,
    threads: int,
    progress: Callable[[int], None] | None,
) -> SampledIdentifiedPosterior:
    """Sample the models of large blocks with the effect and the table; sum the rest exactly."""
    s, eta = associations, _eta(associations)
    _, large = large_blocks(s, largest_block)
    effect_sd = prior.effect_sd * _effect_unit(s)
    cut = identified_model(cut_blocks(s, large), prior, stage.g)
    law = cut.integrate(
        effect_sd=effect_sd, tolerance=1e-3, depth=_DEPTH, threads=threads, progress=progress
    )
    model = identified_model(s, prior, stage.g, largest_block)
    sampler = _Sampler(
        model, np.log(prior.table.prior), effect_sd, generator(rng), threads, progress
    )
    core = float(law["edges"][0]), float(law["edges"][-1])
    panels = _first_panels(law["edges"], effect_sd)
    short = Sampling(sampling.chains, min(300, sampling.sweeps), min(200, sampling.burn_in))
    for _ in range(_ROUNDS):
        better = sampler.run(panels, short, 0, 0).better_panels(core)
        same = better.shape == panels.shape and bool((better == panels).all())
        panels = better
        if same:
            break
    for _ in range(1 + _MORE_ROUNDS):
        run = sampler.run(panels, sampling, min(_STATES, sampling.sweeps), _MODELS)
        if run.converged:
            break
        panels = run.better_panels(core)

    sample, t = run.sample, run.sample["joint"]
    weights = t.sum(axis=1)
    edges = run.edges * eta
    log_density = run.log_density - np.log(eta)
    effect = EffectDensity.from_panels(edges, log_density)
    medians = [
        EffectDensity.from_panels(edges, row[:-1].reshape(-1, 15)).quantile(0.5)
        for row in sample["log_density"]
    ]
    sampled = SampledBlocks(
        sizes=tuple(block.indices.size for block in large),
        sampling=sampling,
        inclusion=sample["inclusion"],
        effect_median=np.array(medians),
        effect_sd=effect.moments[1],
        log_evidence=sample["log_evidence"] + log_first_stage(s, stage.g),
        coverage=sample["coverage"],
        quadrature_error=run.total_error,
        converged=run.converged,
        flip_rate=sample["flip_rate"],
        swap_rate=sample["swap_rate"],
    )
    sums = model.moments(run.nodes, t, threads)
    states = model.large_moments(run.nodes[sample["at"]], sample["node"], sample["slab"], threads)
    inclusion = sums[0]
    inclusion[np.concatenate([block.indices for block in large])] = sample["inclusion"].mean(axis=0)
    moments = sums[1:] + states
    means = moments[::2]
    sds = np.sqrt(np.maximum(moments[1::2] - means**2, 0.0))
    log_evidence, monte_carlo = sampled.evidence
    return SampledIdentifiedPosterior(
        associations=s,
        prior=prior,
        model=model,
        log_evidence=log_evidence,
        log_evidence_error=monte_carlo + run.total_error,
        inclusion=np.clip(inclusion, 0.0, 1.0),
        first_stage=np.stack([means[1], sds[1]]) * np.sqrt(s.residual_exposure),
        pleiotropy=np.stack([means[0], sds[0]]) * np.sqrt(s.residual_outcome),
        first_stage_prior=stage,
        edges=edges,
        log_density=log_density,
        hyper_probability=sample["hyper"].mean(axis=0),
        evaluations=len(sampler._known),
        sampled=sampled,
        node=run.nodes[:-1],
        node_probability=weights[:-1] / weights.sum(),
        state_slab=sample["slab"],
        state_at=sample["at"],
        state_node=sample["node"],
        log_density_at_zero=sample["log_density"][:, -1],
        seed=int(sampler.seeds.integers(2**63)),
    )
