"""The posterior under MASSIVE's prior, summed over all 2^J models by quadrature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.bayes.effect_density import EffectDensity
from mrfast.bayes.large_blocks import LARGEST_BLOCK, Sampling
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.data.ld_blocks import LDBlock
from mrfast.data.standardised import StandardisedAssociations
from mrfast.errors import ConvergenceError

if TYPE_CHECKING:
    from mrfast._core.exact import Problem

__all__ = ["Certificate", "CollapsedPosterior", "collapsed_posterior", "collapsed_problem"]

TOLERANCE = 2e-4  # relative, of the integral over the effect
MAX_PANELS = 400
_DRAWS = 4_000  # of the certificate
_SMALLEST = 1e-9  # share of the largest node below which nodes are left out of the moments
PARTS = 16  # of a cell of u
_SMOOTHING = 0.6  # of the residual slope's sd
_LEAST_EFFECT_SD = 1e-5  # that the panels of the effect resolve
_NARROW = 0.1  # least scale of the confounding bias, in standard deviations of the slope
_VAGUE = 0.2  # of the way to the bound of the slope, in standard deviations of it
_CELLS_AT_ONCE = 4_000_000  # of the conditional laws, in draws
BETA, M, U, D1, D3, LOG_WEIGHT, L00, L10, L11, STEP, EFFECT = range(11)


@dataclass(frozen=True)
class Certificate:
    """Importance sampling of the variances that Laplace's method integrates out.

    Attributes
    ----------
    draws : int
    effective_share : float
        Effective sample size over draws; near 1 where Laplace's method is exact.
    log_evidence_shift : float
        Estimated error of the log evidence from it.
    std_error : float
        Standard error of that estimate.
    """

    draws: int
    effective_share: float
    log_evidence_shift: float
    std_error: float


@dataclass(frozen=True, eq=False)
class CollapsedPosterior:
    """Quadrature nodes of the five parameters with everything that follows from them.

    Attributes
    ----------
    effect : EffectDensity
    log_evidence, log_evidence_error : float
    certificate : Certificate
    converged : bool
        Whether the integral over the effect reached its tolerance.
    inclusion : ndarray, shape (J,)
    first_stage, pleiotropy : ndarray, shape (2, J)
        Posterior mean and standard deviation of the effects on X, and of those on Y not through
        X, per standardised candidate.
    """

    associations: StandardisedAssociations
    prior: SpikeSlabPrior
    problem: Problem
    effect: EffectDensity
    log_evidence: float
    log_evidence_error: float
    certificate: Certificate
    converged: bool
    inclusion: Float
    first_stage: Float
    pleiotropy: Float
    nodes: Float
    zero_log_density: float
    zero_log_slope: float

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "problem"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__["problem"] = collapsed_problem(self.associations, self.prior)

    @cached_property
    def weights(self) -> Float:
        """Posterior weights of the nodes, summing to 1."""
        weight = np.exp(self.nodes[:, LOG_WEIGHT])
        return np.asarray(weight / weight.sum())

    def coordinates(self, nodes: Float) -> dict[str, Float]:
        """Confounding and scales at nodes, with skappa_X > 0."""
        s = self.associations
        eta = self.problem.eta
        turn = np.exp(0.5 * (nodes[:, D1] - nodes[:, D3]))
        c = (nodes[:, M] - nodes[:, BETA]) * turn
        c = np.where(np.abs(c) < 1e-12, np.copysign(1e-12, c), c)
        rho = np.abs(c) * np.sqrt(1 + c * c)
        kx2 = c * c + rho * np.exp(2 * nodes[:, U])
        ky2 = c * c + rho * np.exp(-2 * nodes[:, U])
        k1, k2 = 1 + kx2, 1 + kx2 + ky2
        log_x = 0.5 * (np.log(s.residual_exposure) + nodes[:, D1] - np.log(k1))
        log_y = 0.5 * (np.log(s.residual_outcome) + nodes[:, D3] + np.log(k1 / k2))
        return {
            "skappa_X": np.sqrt(kx2),
            "skappa_Y": np.copysign(np.sqrt(ky2), c),
            "confounding_coordinate": c,
            "residual_slope": nodes[:, M] * eta,
            "bias": (nodes[:, M] - nodes[:, BETA]) * eta,
            "sbeta": nodes[:, BETA] * turn * np.sqrt(k2) / k1,
            "log_sigma_X": log_x,
            "log_sigma_Y": log_y,
        }

    def log_bayes_factor(self, scales: Sequence[float]) -> Float:
        """Log evidence for an effect against none, with other prior sds of the scale-free effect.

        Savage and Dickey's ratio: the likelihood at no effect over the evidence, which the nodes
        give for every sd by reweighting.
        """
        sd = self.prior.effect_sd
        half_square = 0.5 * self.coordinates(self.nodes)["sbeta"] ** 2
        log_zero = (
            self.zero_log_density
            + self.zero_log_slope
            + np.log(self.problem.eta)
            + np.log(2.0)
            + self.problem.log_constant
            + 0.5 * np.log(2 * np.pi)
            + np.log(sd)
        )
        out = []
        for scale in scales:
            log_ratio = half_square * (sd**-2 - scale**-2)
            top = float(log_ratio.max())
            shift = top + np.log((self.weights * np.exp(log_ratio - top)).sum())
            out.append(self.log_evidence + shift + np.log(sd / scale) - log_zero)
        return np.array(out)

    def draw(self, count: int, source: np.random.Generator) -> dict[str, Any]:
        """Independent draws of all parameters.

        A node by its weight; the effect from its own law within the node's share of it, u within
        its cell by a parabola through the log weights, the variances from their normal law at the
        node; then, exactly, the indicators and the effects of every candidate given these.
        """
        nodes = self.nodes
        state, chosen, within = self._choose(count, source)
        rows = nodes[chosen].copy()
        levels = self._levels(rows[:, EFFECT].astype(np.intp), source.random(count))
        rows[:, BETA] = self.effect.quantiles(levels) / self.problem.eta
        rows[:, M] = self._smooth_slopes(rows, source)
        part_of_cell = (within < source.random(count)[:, None]).sum(axis=1)
        place = (part_of_cell + source.random(count)) / PARTS - 0.5
        rows[:, U] += place * rows[:, STEP]
        z0, z1 = source.standard_normal((2, count))
        shift3 = z1 / rows[:, L11]
        rows[:, D3] += shift3
        rows[:, D1] += (z0 - rows[:, L10] * shift3) / rows[:, L00]
        out: dict[str, Any] = dict(self.coordinates(rows))
        out["beta"] = rows[:, BETA] * self.problem.eta
        j = self.associations.J
        slab = np.empty((count, j), dtype=np.bool_)
        gamma, alpha = np.empty((2, count, j))
        chunk = max(1, _CELLS_AT_ONCE // (11 * j))
        for begin in range(0, count, chunk):
            part = slice(begin, min(count, begin + chunk))
            law = self.problem.conditional(np.ascontiguousarray(rows[part]))
            member = source.random(law.shape[:2]) < law[:, :, 0]
            mean_a, var_a, mean_g, var_g, cov = np.moveaxis(
                np.where(member[:, :, None], law[:, :, 6:11], law[:, :, 1:6]), 2, 0
            )
            noise = source.standard_normal((2, *member.shape))
            sd = np.sqrt(var_a)
            slab[part] = member
            alpha[part] = mean_a + sd * noise[0]
            rest = np.sqrt(np.maximum(var_g - cov * cov / var_a, 0.0))
            gamma[part] = mean_g + cov / sd * noise[0] + rest * noise[1]
            if self.associations.blocks:
                self._draw_blocks(
                    rows[part], state[part], source, slab[part], gamma[part], alpha[part]
                )
        out["slab"] = slab
        out["first_stage"] = gamma * np.sqrt(self.associations.residual_exposure)
        out["pleiotropy"] = alpha * np.sqrt(self.associations.residual_outcome)
        return out

    def _choose(
        self, count: int, source: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], Float]:
        """Draw nodes by weight.

        What `_draw_blocks` needs to know of them, their places, and the probabilities below the
        ends of the parts of their cells in u.
        """
        weights, within = _cells_of_u(self.nodes, self.weights)
        cumulative = np.cumsum(weights)
        chosen = np.searchsorted(cumulative, source.random(count) * cumulative[-1], side="right")
        chosen = np.minimum(chosen, cumulative.size - 1)
        return chosen, chosen, within[chosen]

    def _levels(self, index: NDArray[np.intp], share: Float) -> Float:
        """Probabilities below effects at given shares of what nodes have of the effect's law."""
        effects = np.bincount(
            self.nodes[:, EFFECT].astype(np.intp), weights=self.weights
        )  # nodes come in the order of the effect
        below = np.concatenate([[0.0], np.cumsum(effects)])
        return np.asarray((below[index] + share * effects[index]) / below[-1])

    def _smooth_slopes(self, rows: Float, source: np.random.Generator) -> Float:
        """Residual slopes between the few nodes of their rule, mean and variance kept.

        Not where no confounding is near: the law of the slope has a peak there.
        """
        effect, m = self.nodes[:, EFFECT].astype(np.intp), self.nodes[:, M]
        total = np.maximum(np.bincount(effect, self.weights), 1e-300)
        mean = np.bincount(effect, self.weights * m) / total
        square = np.bincount(effect, self.weights * (m - mean[effect]) ** 2) / total
        index = rows[:, EFFECT].astype(np.intp)
        centre, sd = mean[index], np.sqrt(square[index])
        noise = _SMOOTHING * sd * source.standard_normal(len(rows))
        moved = centre + np.sqrt(1 - _SMOOTHING**2) * (rows[:, M] - centre) + noise
        far = np.abs(centre - rows[:, BETA]) > 4 * sd
        return np.where(far, moved, rows[:, M])

    def _draw_blocks(
        self,
        rows: Float,
        state: NDArray[np.intp],
        source: np.random.Generator,
        slab: NDArray[np.bool_],
        gamma: Float,
        alpha: Float,
    ) -> None:
        """Draws of the candidates in LD blocks, in place."""
        self._draw_summed(self.associations.blocks, rows, source, slab, gamma, alpha)

    def _draw_summed(
        self,
        blocks: Sequence[LDBlock],
        rows: Float,
        source: np.random.Generator,
        slab: NDArray[np.bool_],
        gamma: Float,
        alpha: Float,
    ) -> None:
        """Draws of the candidates in blocks of the compiled problem, in place."""
        members = sum(block.indices.size for block in blocks)
        self.problem.draw_blocks(
            np.ascontiguousarray(rows),
            source.random((len(rows), len(blocks))),
            source.standard_normal((len(rows), 3 * members)),
            slab,
            gamma,
            alpha,
        )


def _cells_of_u(nodes: Float, weights: Float) -> tuple[Float, Float]:
    """Probabilities of the nodes' cells in u, and below the ends of PARTS parts of each.

    The trapezoid rule's points are far apart, up to one standard deviation of u: within a cell the
    log density is the parabola through the point and its neighbours.
    """
    order = np.lexsort((nodes[:, U], nodes[:, M], nodes[:, EFFECT]))
    row = nodes[order]
    gap = np.diff(row[:, U]) / row[1:, STEP]
    line = np.all(row[1:, [EFFECT, M]] == row[:-1, [EFFECT, M]], axis=1) & (np.abs(gap - 1) < 0.01)
    rise = np.where(line, np.diff(row[:, LOG_WEIGHT]), np.nan)
    left, right = np.concatenate([[np.nan], rise]), np.concatenate([rise, [np.nan]])
    left, right = np.where(np.isnan(left), right, left), np.where(np.isnan(right), left, right)
    slope, bend = np.nan_to_num(0.5 * (left + right)), np.nan_to_num(right - left)
    s = (np.arange(PARTS) + 0.5) / PARTS - 0.5
    density = np.empty((len(row), PARTS))
    density[order] = np.exp(slope[:, None] * s + 0.5 * bend[:, None] * s * s)
    share = weights * density.mean(axis=1)
    # Every effect keeps its probability.
    effect = nodes[:, EFFECT].astype(np.intp)
    ratio = np.bincount(effect, weights) / np.maximum(np.bincount(effect, share), 1e-300)
    below = np.cumsum(density, axis=1)
    return share * ratio[effect], below[:, :-1] / below[:, -1:]


def slope_ratio(s: StandardisedAssociations) -> float:
    """Standard deviation of the slope in units of eta: that of n people has 1 / sqrt(n)."""
    return float(s.slope_sd * np.sqrt(s.residual_exposure / s.residual_outcome))


def usable_slope(s: StandardisedAssociations) -> bool:
    """Whether the slope tells as much as one person would."""
    return s.has_slope and slope_ratio(s) <= 1


def is_vague(s: StandardisedAssociations) -> bool:
    """Whether slopes within the error of the observed one leave the outcome little variance.

    Without people in both studies the slope given G is bounded, at sd(Y|G) / sd(X|G); near that
    bound the residual variance of the outcome is far from normal, whatever the sample sizes.
    """
    if s.slope_in_overlap:
        return slope_ratio(s) > _VAGUE
    mu = abs(s.residual_slope) * np.sqrt(s.residual_exposure / s.residual_outcome)
    room = np.sqrt(1 + mu * mu) - mu
    return bool(slope_ratio(s) > _VAGUE * room)


def collapsed_problem(associations: StandardisedAssociations, prior: SpikeSlabPrior) -> Problem:
    """The compiled log posterior of data with a prior."""
    from mrfast._core import exact

    s = associations
    if not s.has_slope:
        raise check.fail(
            "moments",
            "ones with an observational slope (beta_observational) for MASSIVE's prior, which is "
            "on the confounder's effects (prior=IdentifiedPrior() does without)",
            "moments without",
        )
    prior.check_length(s.J)
    if not usable_slope(s):
        raise check.fail(
            "moments",
            "an observational slope that tells more than one person would, for MASSIVE's prior "
            "(prior=IdentifiedPrior() does without)",
            f"one with the standard error {s.slope_sd:.3g} given the candidates",
        )
    least = float(np.sqrt(_NARROW * slope_ratio(s)))
    if prior.confounding_sd < least:
        raise check.fail(
            "prior.confounding_sd",
            f"at least {least:.2g}, as precisely as the slope is known here (use "
            "IdentifiedPrior(confounding_sd=) for less)",
            prior.confounding_sd,
        )
    if prior.effect_sd < _LEAST_EFFECT_SD:
        raise check.fail(
            "prior.effect_sd", f"at least {_LEAST_EFFECT_SD:g} for this sum", prior.effect_sd
        )
    external = s.external_slope_sd
    return exact.Problem(
        exposure=s.exposure,
        outcome=s.outcome,
        noise_exposure=s.noise_exposure,
        noise_outcome=s.noise_outcome,
        noise_shared=s.noise_shared,
        log_odds=prior.log_odds(s.J),
        s11=s.residual_exposure,
        slope=s.residual_slope,
        s221=s.residual_outcome,
        n1=s.n_exposure,
        n2=s.n_outcome,
        n_shared=s.n_shared,
        n_slope=s.n_shared if s.slope_in_overlap else 0.0,
        slope_precision=0.0 if np.isinf(external) else external**-2,
        slab_sd=prior.slab_sd,
        spike_sd=prior.spike_sd,
        effect_sd=prior.effect_sd,
        confounding_sd=prior.confounding_sd,
        scale_power=prior.scale_power,
        blocks=[
            (
                [int(i) for i in block.indices],
                np.ascontiguousarray(block.eigenvalues),
                np.ascontiguousarray(block.eigenvectors),
            )
            for block in s.blocks
        ],
    )


def collapsed_posterior(
    associations: StandardisedAssociations,
    prior: SpikeSlabPrior,
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
    tolerance: float = TOLERANCE,
    rng: object = None,
    largest_block: int = LARGEST_BLOCK,
    sampling: Sampling | None = None,
) -> CollapsedPosterior:
    """Integrate over everything; see `CollapsedPosterior`.

    The models of LD blocks of more than `largest_block` candidates are sampled, with `rng`.
    """
    if associations.largest_block > largest_block:
        from mrfast.bayes.collapsed_sampling import sampled_collapsed_posterior

        return sampled_collapsed_posterior(
            associations,
            prior,
            largest_block=largest_block,
            sampling=Sampling() if sampling is None else sampling,
            rng=rng,
            threads=threads,
            progress=progress,
        )
    problem = collapsed_problem(associations, prior)
    report: dict[str, Any] = problem.run(tolerance, MAX_PANELS, threads, progress)
    nodes: Float = report["nodes"]
    if not len(nodes):
        raise ConvergenceError("the posterior density is 0 to rounding wherever it was evaluated")
    weight = np.exp(nodes[:, LOG_WEIGHT])
    kept = weight > _SMALLEST * weight.max()
    selected, share = np.ascontiguousarray(nodes[kept]), weight[kept] / weight[kept].sum()
    sums = problem.moments(selected, share, threads)
    log_mean, std_error, effective = problem.certificate(selected, _DRAWS, threads)
    s = associations

    def table(first: Float, second: Float, variance: float) -> Float:
        sd = np.sqrt(np.maximum(second - first * first, 0.0))
        return np.asarray(np.stack([first, sd]) * np.sqrt(variance))

    return CollapsedPosterior(
        associations=associations,
        prior=prior,
        problem=problem,
        effect=EffectDensity.from_panels(report["edges"], report["log_density"], problem.eta),
        log_evidence=float(report["log_evidence"]),
        log_evidence_error=float(
            report["quadrature_error"] + abs(log_mean) + std_error,
        ),
        certificate=Certificate(_DRAWS, effective, log_mean, std_error),
        converged=bool(report["converged"]),
        inclusion=np.minimum(sums[0], 1.0),
        first_stage=table(sums[1], sums[2], s.residual_exposure),
        pleiotropy=table(sums[3], sums[4], s.residual_outcome),
        nodes=selected,
        zero_log_density=float(report["zero_log_density"]),
        zero_log_slope=float(report["zero_log_slope"]),
    )
