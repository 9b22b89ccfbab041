"""What `massive` returns where it searched: a mixture of normal laws at the modes of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.bayes.effect_density import EffectSummary
from mrfast.bayes.evidence import posterior_kernel
from mrfast.bayes.model import JointPosterior, parameter_names, solve_blocks
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.bayes.result import MOST_DRAWS, MassiveResult, quantile_table, summary_draws

if TYPE_CHECKING:
    from mrfast._core.bayes import Posterior

__all__ = ["SearchDiagnostics", "SearchResult"]

_REACH = 8.5  # standard deviations that the integral over the log scale covers


@dataclass(frozen=True)
class SearchDiagnostics:
    """What the search over models did.

    Attributes
    ----------
    n_iter, n_chains : int
    proposed, accepted : mapping of str to int
        By kind of move, over all chains.
    n_evaluated : int
        Models with an evidence, earlier runs of the same cache included.
    seconds : float
        Wall time of the search.
    """

    n_iter: int
    n_chains: int
    proposed: Mapping[str, int]
    accepted: Mapping[str, int]
    n_evaluated: int
    seconds: float

    @property
    def acceptance(self) -> dict[str, float]:
        """Share of the proposals that were accepted, by kind of move (NaN where none)."""
        return {
            move: self.accepted[move] / count if count else float("nan")
            for move, count in self.proposed.items()
        }


@dataclass(frozen=True, eq=False)
class ModelSet:
    """Models with their evidences and modes, by descending posterior probability."""

    bits: NDArray[np.uint64]  # (models, words)
    log_evidence: Float
    log_posterior: Float  # log evidence + log p(M)
    counts: NDArray[np.int64]  # modes per model
    modes: Float  # (sum of counts, 7): b, kX, kY, lX, lY, log density, log Laplace term
    visits: NDArray[np.uint64]
    n_candidates: int

    @classmethod
    def from_arrays(
        cls,
        bits: NDArray[np.uint64],
        log_evidence: Float,
        counts: NDArray[np.int64],
        modes: Float,
        *,
        visits: NDArray[np.uint64],
        prior: SpikeSlabPrior,
        n_candidates: int,
    ) -> ModelSet:
        """Sort what a cache exports; the order does not depend on that of the cache."""
        log_odds = prior.log_odds(n_candidates)
        if (log_odds == log_odds[0]).all():
            slabs = np.bitwise_count(bits).sum(axis=1) if hasattr(np, "bitwise_count") else None
            if slabs is None:
                slabs = _indicators(bits, n_candidates).sum(axis=1)
            log_prior = slabs * log_odds[0]
        else:
            log_prior = np.array(
                [(_indicators(row[None], n_candidates)[0] * log_odds).sum() for row in bits]
            )
        log_posterior = log_evidence + log_prior + prior.log_probability_of_spikes(n_candidates)
        order = np.lexsort((*bits.T, -log_posterior))
        every = cls(bits, log_evidence, log_posterior, counts, modes, visits, n_candidates)
        return every.take(order)

    def take(self, order: NDArray[np.intp]) -> ModelSet:
        """Select models in the given order."""
        ends = np.cumsum(self.counts)
        starts = ends - self.counts
        rows = [np.arange(starts[i], ends[i]) for i in order]
        return ModelSet(
            self.bits[order],
            self.log_evidence[order],
            self.log_posterior[order],
            self.counts[order],
            self.modes[np.concatenate(rows)] if rows else self.modes[:0],
            self.visits[order],
            self.n_candidates,
        )

    def retain(self, window: float) -> ModelSet:
        """Occam's window: drop from the bottom while a model's share of those above is less."""
        share = np.exp(self.log_posterior - self.log_posterior[0])
        above = np.concatenate([[0.0], np.cumsum(share)[:-1]])
        kept = np.flatnonzero((share >= window * above) & (share > 0))
        return self.take(np.arange(int(kept[-1]) + 1))

    @property
    def size(self) -> int:
        """Number of models."""
        return int(self.log_posterior.shape[0])

    @cached_property
    def indicators(self) -> NDArray[np.bool_]:
        """Indicators of all models, shape (models, J), True = slab."""
        return _indicators(self.bits, self.n_candidates)

    @cached_property
    def log_normaliser(self) -> float:
        """Log of the sum over models of evidence times prior."""
        top = self.log_posterior[0]
        return float(top + np.log(np.exp(self.log_posterior - top).sum()))

    @cached_property
    def probability(self) -> Float:
        """Posterior probabilities of the models, summing to 1."""
        return np.asarray(np.exp(self.log_posterior - self.log_normaliser))

    @cached_property
    def model_of_mode(self) -> NDArray[np.intp]:
        """Index of the model of each mode."""
        return np.repeat(np.arange(self.size), self.counts)

    @cached_property
    def mode_weight(self) -> Float:
        """Posterior weights of the modes, summing to 1."""
        owner = self.model_of_mode
        return np.asarray(
            self.probability[owner] * np.exp(self.modes[:, 6] - self.log_evidence[owner])
        )


def _indicators(bits: NDArray[np.uint64], n_candidates: int) -> NDArray[np.bool_]:
    octets = np.ascontiguousarray(bits.astype("<u8")).view(np.uint8)
    flat = np.unpackbits(octets, axis=1, bitorder="little")[:, :n_candidates]
    return flat.astype(np.bool_)


@dataclass(frozen=True, eq=False)
class EffectMixture:
    """Law of beta = b sigma_Y / sigma_X under a mixture of Gaussians for (b, log scales).

    With l = lY - lX: beta = b exp(l), (b, l) bivariate normal in each component; given l, beta is
    normal, so distribution and density are one sum over l: the trapezoid rule, as fine as the
    conditional law needs.
    """

    weight: Float
    slope: Float  # mean of b
    scale: Float  # mean of l
    var_slope: Float
    var_scale: Float
    covariance: Float

    @classmethod
    def from_modes(cls, weight: Float, modes: Float, covariance: Float) -> EffectMixture:
        """Build from modes (.., 7) and covariances (.., 5, 5) of b, kX, kY, lX, lY."""
        c = covariance
        return cls(
            weight,
            modes[:, 0],
            modes[:, 4] - modes[:, 3],
            c[:, 0, 0],
            c[:, 3, 3] + c[:, 4, 4] - 2 * c[:, 3, 4],
            c[:, 0, 4] - c[:, 0, 3],
        )

    @cached_property
    def _conditional(self) -> tuple[Float, Float, Float, Float]:
        """Weight, exp(l), mean and sd of b given l, at all nodes of all components that count."""
        keep = self.weight > 1e-12 * self.weight.max()
        sd_scale = np.sqrt(self.var_scale[keep])
        slope = self.covariance[keep] / sd_scale  # of b on l in units of sd(l)
        sd = np.sqrt(np.maximum(self.var_slope[keep] - slope**2, 1e-14 * self.var_slope[keep]))
        # How fast the standardised argument of the conditional law moves with l.
        speed = (np.abs(slope) + np.abs(self.slope[keep]) * sd_scale) / sd + 4 * sd_scale
        counts = np.clip(np.ceil(2 * _REACH * np.maximum(speed, 1.5)), 1, 4000).astype(np.intp) + 1
        owner = np.repeat(np.arange(counts.size), counts)
        first = np.cumsum(counts) - counts
        step = 2 * _REACH / (counts - 1)
        node = -_REACH + (np.arange(owner.size) - first[owner]) * step[owner]
        weight = self.weight[keep][owner] * step[owner] * np.exp(-0.5 * node**2)
        scale = np.exp(np.clip(self.scale[keep][owner] + sd_scale[owner] * node, -500, 500))
        mean = self.slope[keep][owner] + slope[owner] * node
        return weight, scale, mean, sd[owner]

    def cdf(self, value: float) -> float:
        """P(beta <= value)."""
        weight, scale, mean, sd = self._conditional
        return float((weight * ndtr((value / scale - mean) / sd)).sum() / weight.sum())

    def probability_above(self, value: float) -> float:
        """P(beta > value)."""
        weight, scale, mean, sd = self._conditional
        return float((weight * ndtr((mean - value / scale) / sd)).sum() / weight.sum())

    def density(self, values: Float) -> Float:
        """Density of beta, in the shape of `values`."""
        weight, scale, mean, sd = self._conditional
        out = np.empty(np.shape(values))
        flat = out.ravel()
        height = weight / (scale * sd)
        for i, value in enumerate(np.ravel(values)):
            z = (value / scale - mean) / sd
            flat[i] = (height * np.exp(-0.5 * z * z)).sum()
        return np.asarray(flat.reshape(out.shape) / (weight.sum() * np.sqrt(2 * np.pi)))

    def quantile(self, probability: float) -> float:
        """Value with the given probability below it.

        Solved in arcsinh(value / unit): components may differ in scale by many powers of ten.
        """
        _, scale, mean, sd = self._conditional
        unit = float((scale * sd).min())
        reach = float(np.arcsinh((scale * (np.abs(mean) + 10 * sd)).max() / unit))
        root = brentq(
            lambda t: self.cdf(unit * np.sinh(t)) - probability,
            -reach,
            reach,
            xtol=1e-14,
            rtol=1e-14,
            maxiter=1000,
        )
        return float(unit * np.sinh(root))

    def summary(self, level: float) -> EffectSummary:
        """Moments in closed form, quantiles from the distribution."""
        weight = self.weight / self.weight.sum()
        with np.errstate(over="ignore", invalid="ignore"):  # infinite in very wide mixtures
            growth = np.exp(self.scale + 0.5 * self.var_scale)
            mean = growth * (self.slope + self.covariance)
            growth2 = np.exp(2 * self.scale + 2 * self.var_scale)
            square = growth2 * ((self.slope + 2 * self.covariance) ** 2 + self.var_slope)
            average = (weight * mean).sum()
            spread = (weight * (square - 2 * average * mean + average * average)).sum()
        tail = (1 - level) / 2
        return EffectSummary(
            mean=float(average),
            median=self.quantile(0.5),
            sd=float(np.sqrt(np.maximum(spread, 0.0))),
            ci_lower=self.quantile(tail),
            ci_upper=self.quantile(1 - tail),
            probability_positive=min(self.probability_above(0.0), 1.0),
            level=level,
        )


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult(MassiveResult):
    """Model-averaged posterior of the causal effect from a search over models.

    Attributes
    ----------
    occam_window : float
        The window that decided which models were averaged.
    search : SearchDiagnostics
        What the search did: iterations, acceptance, models evaluated, seconds.
    """

    prior: SpikeSlabPrior
    occam_window: float
    search: SearchDiagnostics
    model_set: ModelSet

    @cached_property
    def kernel(self) -> Posterior:
        """The compiled posterior of the data with the prior."""
        return posterior_kernel(self.moments, self.prior)

    @property
    def _law(self) -> EffectMixture:
        return self._mixture

    def _places(self) -> Float:
        """Centres of the mixture's heaviest components."""
        heaviest = np.argsort(-self.model_set.mode_weight)[:200]
        modes = self.model_set.modes[heaviest]
        return np.asarray(modes[:, 0] * np.exp(modes[:, 4] - modes[:, 3]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "kernel"}

    # ------------------------------------------------------------------ the answers

    @cached_property
    def inclusion_probabilities(self) -> Float:
        """As in `MassiveResult`."""
        models = self.model_set
        return np.asarray(np.einsum("m,mj->j", models.probability, models.indicators * 1.0))

    @property
    def log_evidence(self) -> float:
        """Log of the sum over the retained models of p(D|M) p(M).

        Under "mc3" a lower bound of log p(D), up to the errors of Laplace's method: models that
        were not met or fell below Occam's window are missing from the sum.
        """
        return self.model_set.log_normaliser

    @cached_property
    def models(self) -> pd.DataFrame:
        """The retained models, by descending probability.

        Columns: model (one character per candidate, 1 = slab), log_evidence (without p(M)),
        probability (posterior, among the retained), n_slab, n_modes, visits (how often the
        chains were there).
        """
        models = self.model_set
        text = models.indicators.astype(np.uint8) + ord("0")
        return pd.DataFrame(
            {
                "model": [row.tobytes().decode("ascii") for row in text],
                "log_evidence": models.log_evidence,
                "probability": models.probability,
                "n_slab": models.indicators.sum(axis=1),
                "n_modes": models.counts,
                "visits": models.visits.astype(np.int64),
            }
        )

    @cached_property
    def _roots(self) -> Float:
        """Roots R of the posterior covariances R R' of (b, kX, kY, lX, lY), (modes, 5, 5)."""
        models = self.model_set
        return self.kernel.mode_roots(models.bits, models.counts, models.modes)

    @cached_property
    def _mixture(self) -> EffectMixture:
        models = self.model_set
        roots = self._roots
        covariances = np.einsum("mik,mjk->mij", roots, roots)
        return EffectMixture.from_modes(models.mode_weight, models.modes, covariances)

    # ------------------------------------------------------------------ samples

    def sample(self, n: int = 10_000, rng: object = None) -> pd.DataFrame:
        """Draws of all parameters from the averaged posterior.

        Parameters
        ----------
        n : int
            Number of draws.
        rng : None, int or numpy.random.Generator
            Seed or generator.

        Returns
        -------
        DataFrame, shape (n, 2J + 7)
            beta (causal effect in units of the data), the 2J + 5 scale-free parameters by name,
            and model (row of `models` from which the draw comes). Each model's posterior is a
            mixture of normal laws at its modes; of a mode and its mirror image, the one with
            skappa_X >= 0 stands for both.
        """
        count = check.integer("n", n, minimum=1, maximum=MOST_DRAWS)
        source = generator(rng)
        models = self.model_set
        j = models.n_candidates
        weight = models.mode_weight / models.mode_weight.sum()
        component = np.sort(source.choice(weight.size, size=count, p=weight))
        rows = source.permutation(count)
        draws = np.empty((count, 2 * j + 6))
        ends = np.searchsorted(component, np.arange(weight.size), side="right")
        begin = 0
        for index in np.unique(component):
            end = int(ends[index])
            draws[rows[begin:end], 1:] = self._draw_mode(int(index), end - begin, source)
            begin = end
        slope, log_x, log_y = draws[:, 2 * j + 1], draws[:, -2], draws[:, -1]
        draws[:, 0] = slope * np.exp(log_y - log_x)
        owner = np.empty(count, dtype=np.intp)
        owner[rows] = models.model_of_mode[component]
        frame = pd.DataFrame(
            draws, columns=["beta", *parameter_names(self.moments.names)], copy=False
        )
        frame["model"] = owner
        return frame

    def _draw_mode(self, index: int, count: int, source: np.random.Generator) -> Float:
        """Draw from the normal law at one mode, shape (count, 2J + 5).

        First the five parameters from their marginal law, then the effects given them.
        """
        models = self.model_set
        j = models.n_candidates
        indicators = models.indicators[models.model_of_mode[index]]
        phi = models.modes[index, :5].copy()
        root = np.ascontiguousarray(self._roots[index])
        s = self.moments.sufficient
        if s.mean_direction is None:
            width = 2 * j + 5 + (0 if s.rotation is None else 2 * j)
            out = source.standard_normal((count, width))
            self.kernel.draw(indicators, phi, root, out)
            return out[:, : 2 * j + 5]
        effects = self.kernel.effects(indicators, phi).ravel()
        joint = JointPosterior.at(
            self.moments, indicators, self.prior, np.concatenate([effects, phi])
        )
        return _draw_with_means(joint, root, source.standard_normal((count, 2 * j + 7)))

    # ------------------------------------------------------------------ further answers

    @cached_property
    def _summary_draws(self) -> pd.DataFrame:
        return self.sample(summary_draws(self.moments.J), rng=0)

    def _confounding(self, draws: pd.DataFrame) -> dict[str, Float]:
        """Confounding in draws, with skappa_X >= 0."""
        sign = np.where(draws["skappa_X"] < 0, -1.0, 1.0)  # both reversed fit as well
        kx, ky = draws["skappa_X"].to_numpy() * sign, draws["skappa_Y"].to_numpy() * sign
        coordinate = kx * ky / np.sqrt(1 + kx**2 + ky**2)
        eta = np.exp(draws["log_sigma_Y"] - draws["log_sigma_X"]) * np.sqrt(1 + kx**2 + ky**2)
        return {
            "skappa_X": kx,
            "skappa_Y": ky,
            "confounding_coordinate": coordinate,
            "bias": coordinate * eta.to_numpy() / (1 + kx**2),
        }

    @cached_property
    def confounding(self) -> pd.DataFrame:
        """As in `MassiveResult`, from draws on a fixed seed."""
        return quantile_table(self._confounding(self._summary_draws))

    def _confounding_draws(self, n: int, rng: object) -> pd.DataFrame:
        draws = self.sample(n, rng)
        columns = {"beta": draws["beta"].to_numpy(), **self._confounding(draws)}
        return pd.DataFrame(columns)

    def _effects(self, prefix: str, log_scale: str) -> tuple[Float, Float]:
        """Mean and sd of one kind of effect per candidate, per unit of its dosage."""
        draws = self._summary_draws
        names = [f"{prefix}[{name}]" for name in self.moments.names]
        scale = np.exp(draws[log_scale].to_numpy())[:, None] / self.moments.sigma_g
        values = draws[names].to_numpy() * scale
        return values.mean(axis=0), values.std(axis=0)

    @cached_property
    def first_stage(self) -> pd.DataFrame:
        """As in `MassiveResult`, from draws on a fixed seed."""
        mean, sd = self._effects("sgamma", "log_sigma_X")
        return pd.DataFrame({"candidate": list(self.moments.names), "mean": mean, "sd": sd})

    @cached_property
    def pleiotropy(self) -> pd.DataFrame:
        """As in `MassiveResult`, from draws on a fixed seed."""
        mean, sd = self._effects("salpha", "log_sigma_Y")
        return pd.DataFrame(
            {
                "candidate": list(self.moments.names),
                "inclusion_probability": self.inclusion_probabilities,
                "mean": mean,
                "sd": sd,
            }
        )

    def _log_bayes_factors(self, scales: Sequence[float]) -> Float:
        """Savage and Dickey's ratio of the scale-free effect, a normal mixture here."""
        mixture, sd = self._mixture, self.prior.effect_sd
        used = mixture.weight > 0
        weight = mixture.weight[used] / mixture.weight.sum()
        mean, variance = mixture.slope[used], mixture.var_slope[used]
        out = []
        for scale in scales:
            # A component times N(0, scale^2) / N(0, sd^2): normal again while that is finite.
            precision = 1 / variance + scale**-2 - sd**-2
            if not (precision > 0).all():
                out.append(float("nan"))
                continue
            log_ratio = (
                np.log(sd / scale)
                - 0.5 * np.log(variance * precision)
                + 0.5 * (mean / variance) ** 2 / precision
                - 0.5 * mean**2 / variance
            )
            log_zero = -0.5 * (mean**2 / variance + np.log(variance)) + np.log(sd)
            out.append(
                float(
                    np.logaddexp.reduce(np.log(weight) + log_ratio)
                    - np.logaddexp.reduce(np.log(weight) + log_zero)
                )
            )
        return np.array(out)

    # ------------------------------------------------------------------ words

    def _row(self) -> dict[str, Any]:
        return {
            "n_models": self.model_set.size,
            "n_models_evaluated": self.search.n_evaluated,
        }

    def _evidence_lines(self) -> list[tuple[str, str]]:
        if self.method == "given model":
            return [("log evidence", f"{self.log_evidence:.4f} (one given model, with p(M))")]
        search = self.search
        moved = sum(search.accepted.values()) / max(1, sum(search.proposed.values()))
        return [
            ("log evidence", f"{self.log_evidence:.4f} (lower bound: models retained)"),
            ("models", f"{self.model_set.size} averaged of {search.n_evaluated} evaluated"),
            (
                "search",
                f"{search.n_chains} chains x {search.n_iter} iterations, "
                f"{moved:.0%} of the moves accepted, {search.seconds:.2f} s",
            ),
        ]


def _draw_with_means(joint: JointPosterior, root: Float, normals: Float) -> Float:
    """Draws at a mode under raw moments that are diagonal plus rank one, (draws, 2J + 5).

    The means are one more observation, of sum_j mu_j effects_j with precision N W: a draw without
    it is moved by the gain times its residual (Matheron's rule).
    """
    s = joint.sufficient
    assert s.mean_direction is not None
    j = s.noise.shape[0]
    blocks = joint.effects_blocks()
    direction = np.zeros((2 * j, 2))
    direction[:j, 0] = direction[j:, 1] = s.mean_direction
    spread = solve_blocks(blocks, direction)  # M^-1 U
    noise = np.linalg.inv(s.n * joint.weight)
    gain = np.linalg.inv(noise + np.einsum("ja,jb->ab", direction, spread))

    def observe(values: Float) -> Float:
        return np.asarray(np.einsum("ja,j...->a...", direction, values))

    plain = solve_blocks(blocks, joint.cross)
    response = plain - np.einsum("ja,ab,bc->jc", spread, gain, observe(plain))
    shift = np.einsum("ni,ki->nk", normals[:, 2 * j : 2 * j + 5], root)
    determinant = blocks[0, 0] * blocks[1, 1] - blocks[0, 1] ** 2
    effects = normals[:, : 2 * j].copy()
    effects[:, :j] *= np.sqrt(blocks[1, 1] / determinant)
    effects[:, j:] /= np.sqrt(blocks[1, 1])
    effects[:, j:] -= effects[:, :j] * (blocks[0, 1] / blocks[1, 1])
    error = np.einsum("ni,ki->nk", normals[:, 2 * j + 5 :], np.linalg.cholesky(noise))
    seen = np.einsum("nj,ja->na", effects, direction) + error
    effects -= np.einsum("na,ab,jb->nj", seen, gain, spread)
    effects += joint.parameters[:-5] + np.einsum("nk,jk->nj", shift, response)
    return np.concatenate([effects, joint.parameters[-5:] + shift], axis=1)
