"""Model averaging over the spike-and-slab models: `massive`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._runtime import generator, thread_count
from mrfast._validation import Float
from mrfast.bayes.evidence import posterior_kernel
from mrfast.bayes.evidence_cache import EvidenceCache
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.bayes.result import MassiveResult, ModelSet, SearchDiagnostics
from mrfast.data.moments import Moments
from mrfast.errors import ConvergenceError, ModelLimitError

__all__ = ["massive"]

MOVES = ("flip", "informed", "swap", "jump")
_DEFAULT_MOVES = {"flip": 0.05, "informed": 0.6, "swap": 0.25, "jump": 0.1}


def massive(
    moments: Moments,
    *,
    prior: SpikeSlabPrior | None = None,
    method: str = "mc3",
    n_iter: int = 10_000,
    n_chains: int = 4,
    occam_window: float = 3e-3,
    rng: object = None,
    n_threads: int | None = None,
    cache: EvidenceCache | None = None,
    progress: bool | Callable[[int, int], None] = False,
    model: ArrayLike | None = None,
    moves: Mapping[str, float] | None = None,
) -> MassiveResult:
    """Posterior of the causal effect, averaged over which candidates are pleiotropic.

    A greedy search and then Markov chains over the 2^J models (MC3) find the models that matter;
    each model's evidence is Laplace's, over all modes of its posterior; models below Occam's
    window are dropped and the rest averaged.

    Parameters
    ----------
    moments : Moments
        The data.
    prior : SpikeSlabPrior, optional
        ``SpikeSlabPrior.empirical(moments)`` by default.
    method : {"mc3"}
        How the sum over models is made.
    n_iter : int
        Iterations of each chain.
    n_chains : int
        Number of chains; they share one cache.
    occam_window : float
        A model is dropped while its probability is below this share of those above it; 0 keeps
        every model that was met.
    rng : None, int or numpy.random.Generator
        Seed or generator. The same seed gives the same result to the bit, whatever `n_threads`.
    n_threads : int, optional
        Threads; all cores by default. At most `n_chains` are of use.
    cache : EvidenceCache, optional
        Evidences of earlier runs, extended by this one. All its models enter the average.
    progress : bool or callable
        True writes a line to standard error on runs that take more than two seconds; a callable
        gets (iterations done, iterations in all).
    model : array_like of bool, shape (J,), optional
        Conditions on one model, True = slab, instead of searching: all True is the paper's
        Gaussian prior, the true indicators its oracle.
    moves : mapping of str to float, optional
        Probabilities of the proposals "flip" (one indicator, uniformly), "informed" (one
        indicator, by predicted evidence), "swap" (a slab and a spike exchange) and "jump" (all
        indicators in which two typical models differ).

    Returns
    -------
    MassiveResult

    Raises
    ------
    InvalidInputError
        An argument is out of bounds.
    CacheMismatchError
        `cache` belongs to another data set or prior.
    ModelLimitError
        The search met more models than the cache may hold. Those in the cache stay there.
    KeyboardInterrupt
        On Ctrl-C, within a second; what was computed stays in `cache` where one was given.

    References
    ----------
    Bucur, Claassen, Heskes (2020), PMLR 124, Algorithm 2. Zanella (2020), JASA 115,
    doi:10.1080/01621459.2019.1585255, for the informed proposals.
    """
    if not isinstance(moments, Moments):
        raise check.fail("moments", "a Moments object", type(moments).__name__)
    check.choice("method", method, ("mc3",))
    iterations = check.integer("n_iter", n_iter, minimum=0, maximum=2**53)
    chains = check.integer("n_chains", n_chains, minimum=1, maximum=100_000)
    window = check.scalar("occam_window", occam_window, minimum=0, below=1)
    threads = thread_count(n_threads)
    if prior is None:
        prior = SpikeSlabPrior.empirical(moments)
    elif not isinstance(prior, SpikeSlabPrior):
        raise check.fail("prior", "a SpikeSlabPrior or None", type(prior).__name__)
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
        with _progress_hook(progress, iterations * chains) as hook:
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
        label = method
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
    return MassiveResult(
        moments=moments,
        prior=prior,
        method=label,
        occam_window=window,
        search=diagnostics,
        model_set=models.retain(window),
    )


def _move_probabilities(moves: Mapping[str, float] | None) -> list[float]:
    """Probabilities of the moves in the kernel's order."""
    chosen = _DEFAULT_MOVES if moves is None else dict(moves)
    for name in chosen:
        check.choice("moves", name, MOVES)
    weights: Float = np.array(
        [check.scalar(f"moves[{name!r}]", chosen.get(name, 0.0), minimum=0) for name in MOVES]
    )
    if not weights.sum() > 0:
        raise check.fail("moves", "at least one positive probability", dict(chosen))
    return [float(w) for w in weights / weights.sum()]


class _ProgressLine:
    """Writes how far a run is to standard error, from its third second on.

    One line that changes on a terminal, a line every ten seconds elsewhere.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._begin = self._last = time.monotonic()
        self._open = False

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - self._begin < 2 or not done or now - self._last < (0.2 if terminal else 10):
            return
        self._last = now
        elapsed = now - self._begin
        left = elapsed * (self._total - done) / done
        text = (
            f"massive: {done:,} of {self._total:,} iterations, {elapsed:.0f} s, {left:.0f} s left"
        )
        sys.stderr.write(f"\r{text}   " if terminal else f"{text}\n")
        sys.stderr.flush()
        self._open = terminal

    def finish(self) -> None:
        """End the line."""
        if self._open:
            sys.stderr.write("\n")


@contextmanager
def _progress_hook(
    progress: bool | Callable[[int, int], None], total: int
) -> Iterator[Callable[[int], None] | None]:
    """Callable for the kernel, taking the iterations done."""
    if callable(progress):
        yield lambda done: progress(done, total)
    elif progress:
        line = _ProgressLine(total)
        try:
            yield line
        finally:
            line.finish()
    else:
        yield None
