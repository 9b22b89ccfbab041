"""A result of ``mrfast massive`` in words."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from mrfast.bayes.exact_result import ExactResult
    from mrfast.bayes.result import MassiveResult
    from mrfast.bayes.search_result import SearchResult

__all__ = ["report_lines"]

_PROBABLE = 0.5
_NAMED = 10
_PEAK = 0.01  # probability from which on a peak is named
_WIDTH = 100


def report_lines(result: MassiveResult, exposure: str, outcome: str) -> Iterator[str]:
    """Describe a result, naming the two traits.

    Parameters
    ----------
    result : MassiveResult
    exposure, outcome : str
        The traits, or "the exposure" and "the outcome".

    Yields
    ------
    str
        Lines of text.
    """
    yield f"\neffect of {exposure} on {outcome}:"
    yield from _effect_lines(result, exposure, outcome)
    yield from _candidate_lines(result)
    yield "method:"
    yield from _indented(f"{result.method}: {result.reason}")
    yield from _indented(f"prior: {_prior(result)}")
    if result.method == "exact":
        yield from _exact_lines(cast("ExactResult", result))
    else:
        yield from _search_lines(cast("SearchResult", result))
    if result.warnings:
        yield "note:" if len(result.warnings) == 1 else "notes:"
        for warning in result.warnings:
            yield from _indented(warning, "- ")


def _indented(text: str, mark: str = "") -> list[str]:
    lines = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"  {mark}",
        subsequent_indent=" " * (4 if mark else 6),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _effect_lines(result: MassiveResult, exposure: str, outcome: str) -> Iterator[str]:
    from mrfast.plots.massive_posterior import interval_texts

    effect = result.effect
    median, lower, upper = interval_texts(effect.median, effect.ci_lower, effect.ci_upper)
    words = {"the outcome": outcome, "the exposure": exposure}
    scale = re.sub("|".join(words), lambda found: words[found.group()], result.scale)
    yield f"  {median} ({effect.level:.0%} credible interval {lower} to {upper})"
    yield f"  {scale}"
    modes = [m for m in getattr(result, "effect_modes", ()) if m.probability > _PEAK]
    if len(modes) > 1:
        peaks = ", ".join(f"{m.peak:.3g} (probability {m.probability:.2f})" for m in modes)
        yield f"  several peaks, at {peaks}"
    positive = f"{effect.probability_positive:.4f}"
    positive = {"1.0000": "above 0.9999", "0.0000": "below 0.0001"}.get(positive, positive)
    yield f"  probability that it is positive: {positive}"
    liability = result.liability_effect
    if liability is not None:
        numbers = (liability.median, liability.ci_lower, liability.ci_upper)
        median, lower, upper = interval_texts(*numbers)
        yield (
            f"  on the liability scale (prevalence {result.moments.design.prevalence:g}): {median} "
            f"({lower} to {upper}) sd of the liability per unit of {exposure}"
        )
    factors = result.bayes_factor()
    texts = ", ".join(
        f"{_factor(log)} (sd {scale:g})".replace(" ", "\N{NO-BREAK SPACE}")
        for scale, log in zip(factors["scale"], factors["log_bf10"], strict=True)
        if log == log
    )
    if texts:
        yield from _indented(
            f"Bayes factors for an effect against none, by sd of its prior: {texts}"
        )


def _factor(log: float) -> str:
    """A Bayes factor from its logarithm, which may be beyond the range of numbers."""
    power = log / math.log(10)
    if -3 < power < 4:
        return f"{math.exp(log):.3g}"
    return f"10^{power:.1f}"


def _candidate_lines(result: MassiveResult) -> Iterator[str]:
    probability = result.inclusion_probabilities
    order = sorted(range(probability.size), key=lambda i: -probability[i])
    probable = [
        f"{result.moments.names[i]} ({probability[i]:.2f})"
        for i in order
        if probability[i] >= _PROBABLE
    ]
    rest = len(probable) - _NAMED
    more = f" and {rest} more, see candidates.tsv" if rest > 0 else ""
    yield f"pleiotropic SNPs, each with probability {_PROBABLE:g} or more:"
    largest = f"none; most likely {result.moments.names[order[0]]} ({probability[order[0]]:.2f})"
    yield f"  {', '.join(probable[:_NAMED]) or largest}{more}"
    yield f"  expected number of pleiotropic SNPs: {probability.sum():.1f} of {probability.size}"


def _prior(result: MassiveResult) -> str:
    """The prior in words."""
    from mrfast.bayes.priors import SpikeSlabPrior

    prior = result.prior
    if isinstance(prior, SpikeSlabPrior):
        return (
            f"MASSIVE's spike and slab, slab sd {prior.slab_sd:.4g}, spike sd {prior.spike_sd:.3g},"
            f" effect sd {prior.effect_sd:g}, confounding sd {prior.confounding_sd:g}"
        )
    return (
        f"on the identified scale, effect sd {prior.effect_sd:g}, confounding sd "
        f"{prior.confounding_sd:g}, averaged over {len(result.hyperparameters)} settings of the "
        "others"
    )


def _exact_lines(result: ExactResult) -> Iterator[str]:
    yield (
        f"  log evidence {result.log_evidence:.4f} (error about {result.log_evidence_error:.1g}); "
        f"{result.seconds:.2f} s"
    )


def _search_lines(result: SearchResult) -> Iterator[str]:
    search = result.search
    moved = sum(search.accepted.values()) / max(1, sum(search.proposed.values()))
    yield (
        f"  {result.model_set.size:,} models averaged of {search.n_evaluated:,} evaluated; "
        f"{moved:.0%} of the moves accepted; {search.seconds:.1f} s"
    )
    yield f"  log evidence {result.log_evidence:.4f}, a lower bound: sum over the models averaged"
    yield "  each model's evidence by Laplace's method: the interval is often too wide"
