"""How the causal effect depends on the prior: `prior_sensitivity`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast.bayes.averaging import massive
from mrfast.bayes.collapsed import usable_slope
from mrfast.bayes.identified_prior import IdentifiedPrior
from mrfast.bayes.priors import SpikeSlabPrior
from mrfast.bayes.result import MassiveResult
from mrfast.data.moments import Moments

__all__ = ["PriorSensitivity", "prior_sensitivity"]

Prior = IdentifiedPrior | SpikeSlabPrior
Setting = tuple[str, str, Prior]  # kind, what was changed, prior

IDENTIFIED, MASSIVE = "default", "MASSIVE's"
_NARROW, _WIDE = 0.5, 2.0


@dataclass(frozen=True, eq=False, repr=False)
class PriorSensitivity:
    """The causal effect under several priors.

    Attributes
    ----------
    table : DataFrame
        One row per prior: prior ("default" or "MASSIVE's"; "identified" for an `IdentifiedPrior`
        that was given), setting (what was changed, or the name given), estimate (posterior
        median), ci_lower, ci_upper, mean, sd, probability_positive, log_evidence and
        log_evidence_difference (against the first row of the same kind of prior; evidences of
        different kinds are not comparable), log_bf10 (natural logarithm of the Bayes factor for
        an effect against none, at the prior's own width), expected_pleiotropic (number of
        candidates) and second_mode_probability.
    results : dict of tuple of str to MassiveResult
        The results behind the rows, by (prior, setting).
    """

    table: pd.DataFrame
    results: Mapping[tuple[str, str], MassiveResult]

    def plot(self) -> Any:
        """Effects with their intervals, one prior a row (plot extra).

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from mrfast.plots.prior_sensitivity import prior_sensitivity_figure

        return prior_sensitivity_figure(self)

    def __repr__(self) -> str:
        columns = ["prior", "setting", "estimate", "ci_lower", "ci_upper", "log_bf10"]
        shown = self.table[columns].to_string(index=False, float_format=lambda v: f"{v:.4g}")
        scale = next(iter(self.results.values())).scale
        return f"PriorSensitivity, {len(self.table)} priors; {scale}\n{shown}"

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


def prior_sensitivity(
    moments: Moments,
    *,
    priors: Mapping[str, Prior] | None = None,
    selection_p: float | None = None,
    selected_in: str = "exposure",
    rng: object = 0,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PriorSensitivity:
    """The posterior of the causal effect under other priors, each with its exact sum over models.

    Varied are, one at a time, the slab, the spike, the probability of the slab, the sd of the
    confounding and that of the effect, for the default prior and for MASSIVE's empirical one.

    Parameters
    ----------
    moments : Moments
        The data. MASSIVE's prior is left out without an observational slope, where that tells
        less than one person would, or where no candidate is associated with the exposure.
    priors : mapping of str to IdentifiedPrior or SpikeSlabPrior, optional
        Priors by name, instead of the standard set.
    selection_p, selected_in
        As in `massive`, for the identified priors.
    rng : None, int or numpy.random.Generator
        For data with LD blocks of more than 12 candidates only.
    n_threads : int, optional
        Threads; all cores by default. The results do not depend on them.
    progress : callable, optional
        Gets (priors done, priors in all).

    Returns
    -------
    PriorSensitivity

    Raises
    ------
    InvalidInputError
        As `massive`; or `priors` is empty or holds something else.

    Notes
    -----
    The probability of the slab deserves a look with few candidates: learning it from ten is not
    reliable. The evidence tells which prior scale the data favour, not which effect is right.
    """
    if not isinstance(moments, Moments):
        raise check.fail("moments", "a Moments object", type(moments).__name__)
    if progress is not None and not callable(progress):
        raise check.fail("progress", "a callable or None", repr(progress))
    settings = _standard_settings(moments) if priors is None else _given(priors)
    threads = thread_count(n_threads)
    seed = rng if not isinstance(rng, np.random.Generator) else int(rng.integers(2**63))

    def run(setting: Setting) -> MassiveResult:
        prior = setting[2]
        identified = isinstance(prior, IdentifiedPrior)
        result = massive(
            moments,
            method="exact",
            prior=prior,
            selection_p=selection_p if identified else None,
            selected_in=selected_in,
            rng=seed,
            n_threads=1,
        )
        _ = result.effect
        return result

    results: list[MassiveResult] = []
    with ThreadPoolExecutor(min(threads, len(settings))) as pool:
        try:
            for result in pool.map(run, settings):
                results.append(result)
                if progress is not None:
                    progress(len(results), len(settings))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    rows: list[dict[str, Any]] = []
    base: dict[type, float] = {}
    for (kind, setting, prior), result in zip(settings, results, strict=True):
        base.setdefault(type(prior), result.log_evidence)
        rows.append(_row(kind, setting, result, base[type(prior)]))
    return PriorSensitivity(
        pd.DataFrame(rows),
        {(kind, name): r for (kind, name, _), r in zip(settings, results, strict=True)},
    )


def _row(kind: str, setting: str, result: MassiveResult, base: float) -> dict[str, Any]:
    effect = result.effect
    modes = getattr(result, "effect_modes", ())
    return {
        "prior": kind,
        "setting": setting,
        "estimate": effect.median,
        "ci_lower": effect.ci_lower,
        "ci_upper": effect.ci_upper,
        "mean": effect.mean,
        "sd": effect.sd,
        "probability_positive": effect.probability_positive,
        "log_evidence": result.log_evidence,
        "log_evidence_difference": result.log_evidence - base,
        "log_bf10": float(result.bayes_factor([result.prior.effect_sd])["log_bf10"].iloc[0]),
        "expected_pleiotropic": float(result.inclusion_probabilities.sum()),
        "second_mode_probability": float(sum(mode.probability for mode in modes[1:])),
    }


def _given(priors: Mapping[str, Prior]) -> list[Setting]:
    given: object = priors
    if not isinstance(given, Mapping) or not given:
        raise check.fail("priors", "a mapping of names to priors, not empty", repr(priors))
    for name, prior in priors.items():
        if not isinstance(prior, (IdentifiedPrior, SpikeSlabPrior)):
            raise check.fail(
                f"priors[{name!r}]", "an IdentifiedPrior or a SpikeSlabPrior", type(prior).__name__
            )
    return [
        ("identified" if isinstance(prior, IdentifiedPrior) else MASSIVE, str(name), prior)
        for name, prior in priors.items()
    ]


def _standard_settings(moments: Moments) -> list[Setting]:
    base = IdentifiedPrior()
    weights = (1 / len(base.slab_sd),) * len(base.slab_sd)
    settings: list[Setting] = [
        (IDENTIFIED, "as recommended", base),
        (IDENTIFIED, "slab: half as wide", _scaled(base, slab=_NARROW)),
        (IDENTIFIED, "slab: twice as wide", _scaled(base, slab=_WIDE)),
        (
            IDENTIFIED,
            "slab: also near the noise (1.2)",
            replace(
                base,
                slab_sd=(1.2, *base.slab_sd),
                slab_weights=(float(np.mean(weights)), *weights),
            ),
        ),
        (
            IDENTIFIED,
            "slab: also very wide (40 to 320)",
            replace(base, slab_sd=(*base.slab_sd, 40.0, 80.0, 160.0, 320.0), slab_weights=None),
        ),
        (
            IDENTIFIED,
            "spike: narrow only (0.1)",
            replace(base, spike_sd=(0.1,), spike_weights=(1.0,)),
        ),
        (IDENTIFIED, "spike: half as wide", _scaled(base, spike=_NARROW)),
        (IDENTIFIED, "spike: twice as wide", _scaled(base, spike=_WIDE)),
        (IDENTIFIED, "slab probability: lower", _tilted(base, 0.5)),
        (IDENTIFIED, "slab probability: higher", _tilted(base, 2.0)),
        (
            IDENTIFIED,
            "slab: centred only",
            replace(base, parts=tuple(p for p in base.parts if p.mean == "centred")),
        ),
    ]
    if moments.standardised.has_slope:
        settings += [
            (IDENTIFIED, "confounding sd: 0.3", replace(base, confounding_sd=0.3)),
            (IDENTIFIED, "confounding sd: 3", replace(base, confounding_sd=3.0)),
            (IDENTIFIED, "without the observed slope", replace(base, use_slope=False)),
        ]
    settings += [
        (IDENTIFIED, "effect sd: 0.1", replace(base, effect_sd=0.1)),
        (IDENTIFIED, "effect sd: 3", replace(base, effect_sd=3.0)),
    ]
    if not usable_slope(moments.standardised) or not moments.standardised.exposure.any():
        return settings
    empirical = SpikeSlabPrior.empirical(moments)
    slab, spike = empirical.slab_sd, empirical.spike_sd
    variants: dict[str, dict[str, float]] = {"empirical rule": {}}
    for factor in (0.1, 0.5):
        if slab * factor > spike:
            variants[f"slab: {factor:g} times"] = {"slab_sd": slab * factor}
    for factor in (0.3, 3.0):
        if spike * factor < slab:
            variants[f"spike: {factor:g} times"] = {"spike_sd": spike * factor}
    for probability in (0.05, 0.2):
        variants[f"slab probability: {probability:g}"] = {"slab_probability": probability}
    for sd in (1.0, 3.0):
        variants[f"confounding sd: {sd:g}"] = {"confounding_sd": sd}
    variants["effect sd: 1"] = {"effect_sd": 1.0}
    fixed = {"slab_sd": slab, "spike_sd": spike}
    settings += [
        (MASSIVE, name, SpikeSlabPrior(**{**fixed, **change})) for name, change in variants.items()
    ]
    return settings


def _scaled(prior: IdentifiedPrior, *, slab: float = 1.0, spike: float = 1.0) -> IdentifiedPrior:
    return replace(
        prior,
        slab_sd=tuple(value * slab for value in prior.slab_sd),
        spike_sd=tuple(value * spike for value in prior.spike_sd),
    )


def _tilted(prior: IdentifiedPrior, factor: float) -> IdentifiedPrior:
    """Multiply the odds of the slab by a factor at every node."""

    def tilt(pi: float) -> float:
        return factor * pi / (1 - pi + factor * pi)

    parts = tuple(replace(p, pi=tuple(tilt(pi) for pi in p.pi)) for p in prior.parts)
    return replace(prior, parts=parts)
