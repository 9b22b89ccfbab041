"""Model averaging by a search over the spike-and-slab models."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._progress import progress_hook
from mrfast._runtime import generator, thread_count
from mrfast._validation import Float
from mrfast.bayes.evidence import posterior_kernel
from mrfast.bayes.evidence_cache import EvidenceCache
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.bayes.search_result import ModelSet, SearchDiagnostics, SearchResult
from mrfast.data.moments import Moments
from mrfast.errors import ConvergenceError, ModelLimitError

__all__ = ["MOVES", "search_models"]

MOVES = ("flip", "informed", "swap", "jump")
_DEFAULT_MOVES = {"flip": 0.05, "informed": 0.6, "swap": 0.25, "jump": 0.1}


def search_models(
    moments: Moments,
    prior: SpikeSlabPrior,
    *,
    reason: str,
    warnings: tuple[str, ...],
    n_iter: int,
    n_chains: int,
    occam_window: float,
    rng: object,
    n_threads: int | None,
    cache: EvidenceCache | None,
    progress: bool | Callable[[int, int], None],
    model: ArrayLike | None,
    moves: Mapping[str, float] | None,
) -> SearchResult:
    """Average over the models that a search finds; arguments as of `massive`."""
    iterations = check.integer("n_iter", n_iter, minimum=0, maximum=2**53)
    chains = check.integer("n_chains", n_chains, minimum=1, maximum=100_000)
    window = check.scalar("occam_window", occam_window, minimum=0, below=1)
    threads = thread_count(n_threads)
    if cache is not None and not isinstance(cache, EvidenceCache):
        raise check.fail("cache", "an EvidenceCache or None", type(cache).__name__)
    probabilities = _move_probabilities(moves)
    source = generator(rng)
    kernel = posterior_kernel(moments, prior)
    store = EvidenceCache() if cache is None else cache
    held = store.bind(moments, prior)
    log_odds = prior.log_odds(moments.J)
    begin = time.perf_counter()

    if model is not None:
        indicators = check.model_indicators("model", model, length=moments.J)
        single = EvidenceCache(1).bind(moments, prior)
        kernel.evaluate(single, indicators)
        exported = single.export_arrays()
        visits = np.ones(1, dtype=np.uint64)
        report: dict[str, Any] = {"proposed": [0] * 4, "accepted": [0] * 4}
        label = "given model"
    else:
        seed = int(source.integers(2**63, dtype=np.uint64))
        with progress_hook(progress, iterations * chains, "iterations") as hook:
            report = kernel.search(
                cache=held,
                log_odds=log_odds,
                iterations=iterations,
                chains=chains,
                threads=threads,
                seed=seed,
                move_probability=probabilities,
                progress=hook,
            )
        if report["full"]:
            raise ModelLimitError(
                f"massive: the search met more than max_models = {store.max_models} models; "
                "pass cache=EvidenceCache(max_models=...) with a larger limit, or fewer iterations"
            )
        exported = held.export_arrays()
        # Another thread with the same cache may have added models since.
        visits = np.zeros(exported[1].size, dtype=np.uint64)
        visits[: report["visits"].size] = report["visits"]
        label = "mc3"
    diagnostics = SearchDiagnostics(
        n_iter=iterations if model is None else 0,
        n_chains=chains if model is None else 0,
        proposed=dict(zip(MOVES, report["proposed"], strict=True)),
        accepted=dict(zip(MOVES, report["accepted"], strict=True)),
        n_evaluated=int(exported[1].size),
        seconds=time.perf_counter() - begin,
    )
    models = ModelSet.from_arrays(*exported, visits=visits, prior=prior, n_candidates=moments.J)
    if not np.isfinite(models.log_posterior).any():
        raise ConvergenceError("massive: no model has a mode of its posterior")
    return SearchResult(
        moments=moments,
        prior=prior,
        method=label,
        reason=reason,
        warnings=warnings,
        occam_window=window,
        search=diagnostics,
        model_set=models.retain(window),
    )


def _move_probabilities(moves: Mapping[str, float] | None) -> list[float]:
    """Probabilities of the moves in the kernel's order."""
    if moves is not None and not isinstance(moves, Mapping):
        raise check.fail("moves", "a mapping of names of moves to probabilities", repr(moves))
    chosen = _DEFAULT_MOVES if moves is None else dict(moves)
    for name in chosen:
        check.choice("moves", name, MOVES)
    weights: Float = np.array(
        [check.scalar(f"moves[{name!r}]", chosen.get(name, 0.0), minimum=0) for name in MOVES]
    )
    if not weights.sum() > 0:
        raise check.fail("moves", "at least one positive probability", dict(chosen))
    return [float(w) for w in weights / weights.sum()]
