"""Model averaging over which candidates are pleiotropic: `massive`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._progress import progress_hook
from mrfast._runtime import generator, thread_count
from mrfast.bayes.diagnostics import effect_warnings, instrument_diagnostics
from mrfast.bayes.identified_prior import IdentifiedPrior
from mrfast.bayes.large_blocks import LARGEST_BLOCK, SampledBlocks
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.bayes.result import MassiveResult
from mrfast.data.moments import Moments
from mrfast.data.standardised import StandardisedAssociations

if TYPE_CHECKING:
    from mrfast.bayes.evidence_cache import EvidenceCache
    from mrfast.bayes.exact_result import ExactResult
    from mrfast.bayes.identified import IdentifiedPosterior

__all__ = ["LARGEST_BLOCK", "choose_method", "massive"]

_CAUTION = (
    "under the empirical rule for the slab skappa_X is near 10 whatever the data: its posterior "
    "is not a finding"
)


def massive(
    moments: Moments,
    *,
    prior: SpikeSlabPrior | IdentifiedPrior | None = None,
    method: str = "auto",
    selection_p: float | None = None,
    selected_in: str = "exposure",
    n_iter: int | None = None,
    n_chains: int | None = None,
    occam_window: float | None = None,
    rng: object = None,
    n_threads: int | None = None,
    cache: EvidenceCache | None = None,
    progress: bool | Callable[[int, int], None] = False,
    model: ArrayLike | None = None,
    moves: Mapping[str, float] | None = None,
) -> MassiveResult:
    """Posterior of the causal effect, averaged over which candidates are pleiotropic.

    Parameters
    ----------
    moments : Moments
        The data.
    prior : IdentifiedPrior, SpikeSlabPrior or None
        An `IdentifiedPrior` (calibrated; needs "exact") or a `SpikeSlabPrior` (MASSIVE's).
        By default ``IdentifiedPrior()`` for "exact" and ``SpikeSlabPrior.empirical(moments)``
        for "mc3".
    method : {"auto", "exact", "mc3"}
        "exact" sums over all 2^J models, by quadrature; of LD blocks of more than 12 candidates it
        samples the models, given which all else is exact. "mc3" searches: a greedy climb and Markov
        chains over models, each model's evidence by Laplace's method, as MASSIVE does. "auto"
        takes "exact" where candidates are uncorrelated or in LD blocks of at most 12, unless
        options of the search are given. The result's ``method``, ``reason`` and ``prior`` say
        what was done.
    selection_p : float, optional
        p value below which the candidates were selected; their first stage is then corrected for
        it ("winner's curse"), under an `IdentifiedPrior`, if they were selected in these exposure
        data and all of them pass.
    selected_in : {"exposure", "independent"}
        Whether the candidates were selected in the exposure data used here, or elsewhere.
    n_iter : int, optional
        Iterations of each chain; 10,000 by default. This and the following options up to `moves`
        belong to "mc3", except `rng`, `n_threads` and `progress`.
    n_chains : int, optional
        Number of chains; they share one cache. 4 by default.
    occam_window : float, optional
        A model is dropped while its probability is below this share of those above it; 0 keeps
        every model that was met. 0.003 by default.
    rng : None, int or numpy.random.Generator
        Seed or generator. The same seed gives the same result to the bit, whatever `n_threads`;
        "exact" without LD blocks of more than 12 candidates uses no random numbers.
    n_threads : int, optional
        Threads; all cores by default.
    cache : EvidenceCache, optional
        Evidences of earlier searches, extended by this one. All its models enter the average.
    progress : bool or callable
        True writes a line to standard error on runs that take more than two seconds; a callable
        gets (steps done, steps in all).
    model : array_like of bool, shape (J,), optional
        Conditions on one model, True = slab, instead of averaging: all True is the paper's
        Gaussian prior, the true indicators its oracle.
    moves : mapping of str to float, optional
        Probabilities of the search's proposals "flip" (one indicator, uniformly), "informed" (one
        indicator, by predicted evidence), "swap" (a slab and a spike exchange) and "jump" (all
        indicators in which two typical models differ).

    Returns
    -------
    MassiveResult

    Raises
    ------
    InvalidInputError
        An argument is out of bounds, or does not go with the method.
    CacheMismatchError
        `cache` belongs to another data set or prior.
    ModelLimitError
        The search met more models than the cache may hold. Those in the cache stay there.
    ConvergenceError
        The quadrature did not reach its tolerance, or no model has a mode.
    KeyboardInterrupt
        On Ctrl-C, within a second; what a search computed stays in `cache` where one was given.

    References
    ----------
    Bucur, Claassen, Heskes (2020), PMLR 124 (model, prior, search). Zanella (2020), JASA 115,
    doi:10.1080/01621459.2019.1585255 (informed proposals).
    """
    if not isinstance(moments, Moments):
        raise check.fail("moments", "a Moments object", type(moments).__name__)
    check.choice("method", method, ("auto", "exact", "mc3"))
    check.choice("selected_in", selected_in, ("exposure", "independent"))
    if selection_p is not None:
        check.scalar("selection_p", selection_p, above=0, below=1)
    generator(rng)  # refuses what is none, also where none is needed
    if prior is not None and not isinstance(prior, (SpikeSlabPrior, IdentifiedPrior)):
        raise check.fail(
            "prior", "an IdentifiedPrior, a SpikeSlabPrior or None", type(prior).__name__
        )
    search_options = {
        "n_iter": n_iter,
        "n_chains": n_chains,
        "occam_window": occam_window,
        "cache": cache,
        "model": model,
        "moves": moves,
    }
    given = [name for name, value in search_options.items() if value is not None]
    chosen, reason = choose_method(moments, prior, method, given)
    if chosen == "exact":
        return _exact(
            moments,
            prior,
            reason=reason,
            selection_p=selection_p,
            selected_in=selected_in,
            rng=rng,
            n_threads=n_threads,
            progress=progress,
        )
    from mrfast.bayes.search import search_models

    if isinstance(prior, IdentifiedPrior):
        raise check.fail(
            "prior", f"a SpikeSlabPrior or None with method 'mc3' ({reason})", "an IdentifiedPrior"
        )
    warnings = list(_search_notes(moments))
    if prior is None:
        prior = SpikeSlabPrior.empirical(moments)
        if method == "auto":
            warnings.append(
                "prior: SpikeSlabPrior.empirical(moments), since a search needs MASSIVE's prior"
            )
    if selection_p is not None:
        warnings.append("selection_p is not used by method 'mc3'")
    return search_models(
        moments,
        prior,
        reason=reason,
        warnings=tuple(warnings),
        n_iter=10_000 if n_iter is None else n_iter,
        n_chains=4 if n_chains is None else n_chains,
        occam_window=3e-3 if occam_window is None else occam_window,
        rng=rng,
        n_threads=n_threads,
        cache=cache,
        progress=progress,
        model=model,
        moves=moves,
    )


def choose_method(
    moments: Moments,
    prior: SpikeSlabPrior | IdentifiedPrior | None,
    method: str,
    given: list[str],
) -> tuple[str, str]:
    """Method, and why."""
    if method == "exact":
        if given:
            raise check.fail(
                given[0], "no option of the search with method 'exact'", f"{given[0]}="
            )
        return "exact", "as asked"
    if method == "mc3":
        return "mc3", "as asked"
    if given:
        return "mc3", f"{given[0]} is an option of the search"
    blocks = moments.standardised.blocks
    largest = max((block.indices.size for block in blocks), default=1)
    if largest > LARGEST_BLOCK:
        if isinstance(prior, IdentifiedPrior):
            return "exact", "the prior needs it"
        if not moments.design.has_slope and not isinstance(prior, SpikeSlabPrior):
            return "exact", "a search needs an observational slope"
        return (
            "mc3",
            f"{largest} candidates are in one LD block, more than {LARGEST_BLOCK}; method='exact' "
            "would sample their models",
        )
    if largest > 1:
        return "exact", f"LD blocks of at most {largest} candidates"
    return "exact", "the candidates are uncorrelated"


def _search_notes(moments: Moments) -> list[str]:
    """What the search's single sample of the smallest size leaves out of the design."""
    s = moments.design
    notes = []
    sizes = np.unique(np.concatenate([np.ravel(s.n_exposure), np.ravel(s.n_outcome)]))
    if sizes.size > 1 and sizes[0] < 0.99 * sizes[-1]:
        notes.append(
            f"method 'mc3' takes every sample size to be the smallest, {moments.n:,.0f} (up to "
            f"{sizes[-1]:,.0f} were given)"
        )
    if float(np.min(s.n_shared)) < 0.99 * moments.n:
        notes.append("method 'mc3' takes the two samples to be one")
    return notes


def _exact(
    moments: Moments,
    prior: SpikeSlabPrior | IdentifiedPrior | None,
    *,
    reason: str,
    selection_p: float | None,
    selected_in: str,
    rng: object,
    n_threads: int | None,
    progress: bool | Callable[[int, int], None],
    largest_block: int = LARGEST_BLOCK,
) -> ExactResult:
    """Sum over all models under either prior, or sample those of large LD blocks."""
    from mrfast.bayes.collapsed import collapsed_posterior, is_vague
    from mrfast.bayes.exact_result import ExactResult
    from mrfast.bayes.identified import identified_posterior

    source = generator(rng)
    threads = thread_count(n_threads)
    begin = time.perf_counter()
    associations: StandardisedAssociations = moments.standardised
    used = IdentifiedPrior() if prior is None else prior
    instruments = instrument_diagnostics(associations)
    with progress_hook(progress, None, "steps") as hook:
        if isinstance(used, IdentifiedPrior):
            identified = identified_posterior(
                associations,
                used,
                selection_p=selection_p,
                selected_in=selected_in,
                rng=source,
                n_threads=threads,
                progress=hook,
                largest_block=largest_block,
            )
            stage, means = identified.first_stage_prior, identified.hyper_means
            words, numbers = effect_warnings(
                identified.effect,
                instruments,
                identified=True,
                directional=means["directional"],
                mean_probability=means["pi"],
                beyond_slab=_in_slab_sds(identified),
                selection=stage.note if selection_p is not None or stage.g == 0 else "",
            )
            posterior = identified
        else:
            collapsed = collapsed_posterior(
                associations,
                used,
                threads=threads,
                progress=hook,
                rng=source,
                largest_block=largest_block,
            )
            words, numbers = effect_warnings(collapsed.effect, instruments, identified=False)
            if _is_empirical(used, moments):
                words.append(_CAUTION)
            if selection_p is not None:
                words.append("selection_p is used under an IdentifiedPrior only")
            if is_vague(associations):
                words.insert(
                    0,
                    "the observational slope is known too vaguely, or is too steep, for the "
                    "quadrature under MASSIVE's prior: effect and probabilities may be far off; "
                    "compare IdentifiedPrior()",
                )
            check_of = collapsed.certificate
            if check_of.effective_share < 0.9 or abs(check_of.log_evidence_shift) > 0.01:
                words.insert(
                    0,
                    "Laplace's method for the residual variances is rough here: effective share "
                    f"{check_of.effective_share:.2f}, log evidence off by about "
                    f"{check_of.log_evidence_shift:+.2g}",
                )
            if not collapsed.converged:
                words.insert(
                    0,
                    "the integral over the effect did not reach its tolerance; log_evidence_error "
                    "says how far it is",
                )
            posterior = collapsed  # type: ignore[assignment]
    sampled: SampledBlocks | None = getattr(posterior, "sampled", None)
    if sampled is not None:
        reason = f"{reason}; {sampled.description}"
        words = [*sampled.words(), *words]
        numbers = {**numbers, **sampled.numbers}
    return ExactResult(
        moments=moments,
        prior=used,
        method="exact",
        reason=reason,
        warnings=(*associations.notes, *words),
        posterior=posterior,
        numbers=numbers,
        seconds=time.perf_counter() - begin,
    )


def _in_slab_sds(posterior: IdentifiedPosterior) -> float:
    """Largest posterior mean of a pleiotropic effect, in sds of the widest slab."""
    s = posterior.associations
    unit = np.sqrt(np.median(s.noise_outcome) * s.residual_outcome)
    largest = np.abs(posterior.pleiotropy[0]).max() / unit
    return float(largest / max(posterior.prior.slab_sd))


def _is_empirical(prior: SpikeSlabPrior, moments: Moments) -> bool:
    """Whether the slab is about that of the empirical rule, which pins skappa_X."""
    if not moments.standardised.exposure.any():
        return False
    rule = SpikeSlabPrior.empirical(moments).slab_sd
    return bool(0.5 * rule < prior.slab_sd < 2 * rule)
