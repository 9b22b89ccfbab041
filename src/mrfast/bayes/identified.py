"""The posterior under the prior on the identified scale: one-dimensional given its table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float
from mrfast.bayes.effect_density import EffectDensity
from mrfast.bayes.identified_prior import SLAB_MEANS, IdentifiedPrior
from mrfast.bayes.large_blocks import LARGEST_BLOCK, Sampling, large_blocks
from mrfast.data.ld_blocks import LDBlock
from mrfast.data.standardised import StandardisedAssociations

if TYPE_CHECKING:
    import pandas as pd

    from mrfast._core.identified import Model

__all__ = ["FirstStage", "IdentifiedPosterior", "first_stage", "identified_posterior"]

TOLERANCE = 1e-5  # relative, of the evidence
DEPTH = 23.0  # log density below its maximum where the integration ends
_CELLS_AT_ONCE = 2_000_000  # draws times candidates

SelectedIn = Literal["exposure", "independent"]


@dataclass(frozen=True)
class FirstStage:
    """Prior variance of the first-stage effects, estimated.

    Attributes
    ----------
    g : float
        Variance in units of Var(X|G); 0 where the data show no more than noise.
    threshold : float
        |z| above which the candidates were selected in the likelihood of g; 0 where selection is
        left out.
    note : str
        Why selection is, or is not, in the likelihood.
    """

    g: float
    threshold: float
    note: str


@dataclass(frozen=True, eq=False)
class IdentifiedPosterior:
    """Posterior of the effect, the candidates and the hyper-parameters.

    Attributes
    ----------
    associations : StandardisedAssociations
    prior : IdentifiedPrior
    effect : EffectDensity
        Law of beta.
    log_evidence : float
        Log density of the associations (h1, h2) at the estimated g; with a slope, times that of
        the slope in units of eta.
    log_evidence_error : float
        Estimated error of the quadrature.
    inclusion : ndarray, shape (J,)
        Posterior probabilities of the slab.
    first_stage, pleiotropy : ndarray, shape (2, J)
        Posterior mean and standard deviation of the effects on X, and of those on Y not through
        X, per standardised candidate.
    first_stage_prior : FirstStage
        The estimate of g, and whether selection was taken into account.
    edges : ndarray, shape (panels, 2)
        Panels of the effect.
    log_density : ndarray, shape (panels, 15)
        Log posterior density of the effect at the Kronrod points of the panels.
    hyper_probability : ndarray, shape (H,)
        Posterior of the nodes of the table `prior.nodes()`.
    evaluations : int
        Effects at which the likelihood was computed.
    """

    associations: StandardisedAssociations
    prior: IdentifiedPrior
    model: Model
    log_evidence: float
    log_evidence_error: float
    inclusion: Float
    first_stage: Float
    pleiotropy: Float
    first_stage_prior: FirstStage
    edges: Float
    log_density: Float
    hyper_probability: Float
    evaluations: int

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "model"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        model = identified_model(self.associations, self.prior, self.first_stage_prior.g)
        self.__dict__["model"] = model

    @cached_property
    def effect(self) -> EffectDensity:
        """Law of beta."""
        return EffectDensity.from_panels(self.edges, self.log_density)

    @property
    def eta(self) -> float:
        """Unit of the effect in the prior, sqrt(S22.1 / S11)."""
        return _eta(self.associations)

    @cached_property
    def hyper_table(self) -> pd.DataFrame:
        """Columns part, a0, a1, rho, pi, prior and posterior; one row per node."""
        return self.prior.table.to_frame(posterior=self.hyper_probability)

    @cached_property
    def hyper_means(self) -> dict[str, float]:
        """Posterior means of pi, a0, a1 and rho, and of rho a1 pi as "directional".

        The last is the mean oriented pleiotropic effect per candidate in units of the median
        standard error of the outcome associations.
        """
        t, p = self.prior.table, self.hyper_probability
        values = {"pi": t.pi, "a0": t.a0, "a1": t.a1, "rho": t.rho}
        out = {name: float((p * value).sum()) for name, value in values.items()}
        out["directional"] = float((p * t.rho * t.a1 * t.pi).sum())
        return out

    @cached_property
    def part_probability(self) -> dict[str, float]:
        """Posterior probability of each kind of slab."""
        sums = np.bincount(
            self.prior.table.mean, weights=self.hyper_probability, minlength=len(SLAB_MEANS)
        )
        used = {part.mean for part in self.prior.parts}
        return {
            mean: float(value) for mean, value in zip(SLAB_MEANS, sums, strict=True) if mean in used
        }

    @property
    def second_mode_mass(self) -> float:
        """Probability of the second mode; 0 where there is one."""
        modes = self.effect.modes
        return modes[1].probability if len(modes) > 1 else 0.0

    def log_bayes_factor(self, scales: Sequence[float], *, n_threads: int | None = None) -> Float:
        """Log evidence for an effect against none, for other values of `effect_sd`.

        The likelihood of the effect, integrated anew under each, over that at no effect.
        """
        threads = thread_count(n_threads)
        zero = np.zeros(1)
        unit = _effect_unit(self.associations)
        # The normal prior at 0 is not part of the likelihood there.
        without = float(self.model.log_prior(zero, 1.0)[0]) + 0.5 * np.log(2 * np.pi)
        log_zero = float(self.model.log_marginal(zero, threads)[0]) + without
        out = []
        for i, scale in enumerate(scales):
            sd = unit * check.scalar(f"scales[{i}]", scale, above=0)
            law = self.model.integrate(
                effect_sd=sd, tolerance=TOLERANCE, depth=DEPTH, threads=threads, progress=None
            )
            out.append(float(law["log_evidence"]) - log_zero)
        return np.array(out)

    def draw(
        self, count: int, source: np.random.Generator, *, n_threads: int | None = None
    ) -> dict[str, Float]:
        """Independent draws from the posterior.

        The effect from its law; given it, exactly, the node of the table, the indicators and the
        effects of every candidate; with a slope, also the slope given G, its bias and the
        confounder's coefficients, skappa_X > 0.
        """
        eta, j = self.eta, self.associations.J
        threads = thread_count(n_threads)
        beta = self.effect.quantiles(source.random(count))
        node = np.empty(count, dtype=np.int64)
        slab = np.empty((count, j), dtype=np.bool_)
        gamma, alpha = np.empty((2, count, j))
        chunk = max(1, _CELLS_AT_ONCE // j)
        for begin in range(0, count, chunk):
            part = slice(begin, min(count, begin + chunk))
            b = beta[part] / eta
            node[part], slab[part], gamma[part], alpha[part] = self.model.draw(
                b,
                source.random((b.size, 1 + j)),
                source.standard_normal((b.size, 2 * j)),
                threads,
            )
        return self._all_draws(source, beta, node, slab, gamma, alpha)

    def _all_draws(
        self,
        source: np.random.Generator,
        beta: Float,
        node: NDArray[np.int64],
        slab: NDArray[np.bool_],
        gamma: Float,
        alpha: Float,
    ) -> dict[str, Float]:
        """By name, with those of the slope and the confounder given the effect."""
        s, eta, count = self.associations, self.eta, beta.size
        t = self.prior.table
        out: dict[str, Any] = {
            "beta": beta,
            "node": node,
            "slab": slab,
            "first_stage": gamma * np.sqrt(s.residual_exposure),
            "pleiotropy": alpha * np.sqrt(s.residual_outcome),
            "pi": t.pi[node],
            "a0": t.a0[node],
            "a1": t.a1[node],
            "rho": t.rho[node],
        }
        if _uses_slope(s, self.prior):
            from mrfast._core.identified import SlopePrior

            law = SlopePrior(*_confounding_sd(s, self.prior))
            center = (s.residual_slope - beta) / eta
            c = law.conditional_quantile(center, s.slope_sd / eta, source.random(count))
            excess = law.confounding_quantile(c, source.random(count))
            kx2 = c * c + excess
            out["confounding_coordinate"] = c
            out["bias"] = c * eta
            out["residual_slope"] = beta + c * eta
            out["skappa_X"] = np.sqrt(kx2)
            out["skappa_Y"] = c * np.sqrt((1 + kx2) / excess)
        return out


def _eta(associations: StandardisedAssociations) -> float:
    return float(np.sqrt(associations.residual_outcome / associations.residual_exposure))


def _effect_unit(associations: StandardisedAssociations) -> float:
    """What `effect_sd` is multiplied with: 1, or the sd of a binary outcome's working response."""
    return float(associations.bernoulli_sd or 1.0) if associations.binary else 1.0


def _confounding_sd(
    associations: StandardisedAssociations, prior: IdentifiedPrior
) -> tuple[float, float]:
    return prior.confounding_sd, prior.confounding_sd * _effect_unit(associations)


def _uses_slope(associations: StandardisedAssociations, prior: IdentifiedPrior) -> bool:
    return prior.use_slope and associations.has_slope and np.isfinite(associations.slope_sd)


def first_stage(
    associations: StandardisedAssociations,
    *,
    selection_p: float | None = None,
    selected_in: str = "exposure",
) -> FirstStage:
    """Variance of the first-stage effects by maximum likelihood, given how they were selected.

    g maximises sum_j log N(x_j; 0, n11_j + g) - log P(|N(0, n11_j + g)| > z0 sqrt(n11_j)) with
    x = h1 / sqrt(S11). The second term is there only where the candidates were selected at
    `selection_p` in the very exposure data used and none of them contradicts that. LD blocks enter
    by their eigenvectors, without the second term.
    """
    from mrfast._core import identified

    s = associations
    check.choice("selected_in", selected_in, ("exposure", "independent"))
    x = s.exposure / np.sqrt(s.residual_exposure)
    threshold = 0.0
    if selection_p is None:
        note = "no selection of the candidates was declared (selection_p)"
    else:
        p = check.scalar("selection_p", selection_p, above=0, maximum=1)
        declared = float(-ndtri(p / 2))
        weakest = float((np.abs(_marginal(s, x)) / np.sqrt(s.noise_exposure)).min())
        if selected_in == "independent":
            note = "the candidates were selected in independent data: no correction needed"
        elif weakest < declared:
            note = (
                f"selection at |z| > {declared:.3g} was declared, but the smallest |z| is "
                f"{weakest:.3g}: not corrected for"
            )
        else:
            threshold = declared
            note = f"corrected for selection at |z| > {declared:.3g} in the exposure data"
    values, noise, alone = _directions(s, x)
    if threshold > 0 and alone < s.J:
        note += ", but for the correlated candidates"
    g, at_boundary = identified.first_stage_variance(values, noise, threshold, alone)
    if at_boundary:
        note += "; the associations with the exposure show no more than noise (g = 0)"
    return FirstStage(float(g), threshold, note)


def _directions(s: StandardisedAssociations, x: Float) -> tuple[Float, Float, int]:
    """Associations with independent noise, its factors, and how many are single candidates.

    The candidates outside the blocks come first, then the blocks along their eigenvectors.
    """
    alone = np.ones(s.J, dtype=np.bool_)
    values, noise = [], []
    for block in s.blocks:
        alone[block.indices] = False
        values.append(np.einsum("jk,j->k", block.eigenvectors, x[block.indices]))
        noise.append(s.noise_exposure[block.indices] / block.eigenvalues)
    return (
        np.concatenate([x[alone], *values]),
        np.concatenate([s.noise_exposure[alone], *noise]),
        int(alone.sum()),
    )


def _marginal(s: StandardisedAssociations, x: Float) -> Float:
    """Coefficients of the candidates one at a time."""
    out = x.copy()
    for block in s.blocks:
        rotated = np.einsum("jk,j->k", block.eigenvectors, x[block.indices])
        out[block.indices] = np.einsum("jk,k->j", block.eigenvectors, block.eigenvalues * rotated)
    return out


def identified_model(
    associations: StandardisedAssociations,
    prior: IdentifiedPrior,
    g: float,
    largest_block: int | None = None,
) -> Model:
    """The compiled likelihood of data with the table of a prior.

    Blocks of more than `largest_block` candidates are left to the sampler over their models.
    """
    from mrfast._core import identified

    s, t = associations, prior.table
    scale_x, scale_y = np.sqrt(s.residual_exposure), np.sqrt(s.residual_outcome)
    eta = _eta(s)
    summed, sampled = large_blocks(s, s.J if largest_block is None else largest_block)
    return identified.Model(
        x=s.exposure / scale_x,
        y=s.outcome / scale_y,
        n11=s.noise_exposure,
        n22=s.noise_outcome,
        n12=s.noise_shared,
        slope=s.residual_slope / eta,
        slope_sd=s.slope_sd / eta if _uses_slope(s, prior) else 0.0,
        confounding_sd=_confounding_sd(s, prior),
        g=g,
        mean=t.mean,
        a0=t.a0,
        a1=t.a1,
        rho=t.rho,
        pi=t.pi,
        weight=t.prior,
        blocks=_block_arrays(summed),
        large_blocks=_block_arrays(sampled),
    )


def _block_arrays(
    blocks: Sequence[LDBlock],
) -> list[tuple[NDArray[np.int64], Float, Float]]:
    return [
        (block.indices.astype(np.int64), block.eigenvalues, block.eigenvectors) for block in blocks
    ]


def log_first_stage(associations: StandardisedAssociations, g: float) -> float:
    """Log density of the associations with X, and the units of all associations."""
    s = associations
    scales = np.sqrt([s.residual_exposure, s.residual_outcome])
    x, noise, _ = _directions(s, s.exposure / scales[0])
    variance = noise + g
    value = -0.5 * float((np.log(2 * np.pi * variance) + x**2 / variance).sum())
    return value - s.J * float(np.log(scales).sum())


def identified_posterior(
    associations: StandardisedAssociations,
    prior: IdentifiedPrior | None = None,
    *,
    selection_p: float | None = None,
    selected_in: str = "exposure",
    rng: object = None,
    n_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    largest_block: int = LARGEST_BLOCK,
    sampling: Sampling | None = None,
) -> IdentifiedPosterior:
    """Sum over the table and integrate over the effect; see `IdentifiedPosterior`.

    Parameters
    ----------
    associations : StandardisedAssociations
        Correlated candidates in blocks of any size.
    prior : IdentifiedPrior, optional
        The default prior where none is given.
    selection_p : float, optional
        P value below which the candidates were selected.
    selected_in : {"exposure", "independent"}
        Whether the selection used the exposure data of `associations` or others.
    rng : None, int or numpy.random.Generator
        Seed or generator of the chains over the models of large blocks; not used without.
    n_threads : int, optional
        Threads; every core by default. Results do not depend on it.
    progress : callable, optional
        Called now and then with the number of blocks of effects, or sweeps, done.
    largest_block : int
        Candidates in a block, at most 16, up to which its models are all summed; those of larger
        blocks are sampled.
    sampling : Sampling, optional
        Length of the chains.

    Returns
    -------
    IdentifiedPosterior
    """
    s = associations
    prior = IdentifiedPrior() if prior is None else prior
    if not isinstance(prior, IdentifiedPrior):
        raise check.fail("prior", "an IdentifiedPrior", type(prior).__name__)
    threads = thread_count(n_threads)
    stage = first_stage(s, selection_p=selection_p, selected_in=selected_in)
    if s.largest_block > largest_block:
        from mrfast.bayes.identified_sampling import sampled_posterior

        return sampled_posterior(
            s,
            prior,
            stage,
            largest_block=largest_block,
            sampling=Sampling() if sampling is None else sampling,
            rng=rng,
            threads=threads,
            progress=progress,
        )
    model = identified_model(s, prior, stage.g)
    report: dict[str, Any] = model.summarise(
        effect_sd=prior.effect_sd * _effect_unit(s),
        tolerance=TOLERANCE,
        depth=DEPTH,
        threads=threads,
        progress=progress,
    )
    eta = _eta(s)
    scales = np.sqrt([s.residual_exposure, s.residual_outcome])
    edges = report["edges"] * eta
    return IdentifiedPosterior(
        associations=s,
        prior=prior,
        model=model,
        log_evidence=float(report["log_evidence"]) + log_first_stage(s, stage.g),
        log_evidence_error=float(report["error"]),
        inclusion=report["inclusion"],
        first_stage=np.stack([report["first_stage_mean"], report["first_stage_sd"]]) * scales[0],
        pleiotropy=np.stack([report["pleiotropy_mean"], report["pleiotropy_sd"]]) * scales[1],
        first_stage_prior=stage,
        edges=np.stack([edges[:-1], edges[1:]], axis=1),
        log_density=report["log_density"] - np.log(eta),
        hyper_probability=report["hyper"],
        evaluations=int(report["evaluations"]),
    )
