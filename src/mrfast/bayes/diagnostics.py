"""What should make a reader doubt a posterior of the causal effect, in numbers and in words.

The thresholds are those at which simulations showed intervals to cover less often than they say;
docs/massive.md gives the figures.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mrfast._validation import Float
from mrfast.bayes.effect_density import EffectDensity
from mrfast.data.standardised import StandardisedAssociations

__all__ = ["InstrumentDiagnostics", "effect_warnings", "instrument_diagnostics"]

SECOND_MODE = 0.05  # probability of other peaks
DIRECTIONAL = 2.0  # mean oriented pleiotropy per candidate, in outcome standard errors
EGGER = 3.0  # |z| of the intercept
DOUBTFUL_MAJORITY = 0.5  # posterior mean share of pleiotropic candidates
MODE_DISTANCE = 2.0  # posterior sds
BEYOND_SLAB = 2.0  # largest pleiotropic effect, in sds of the widest slab
_STRONG = 40.0  # mean F from which on Egger's intercept is worth a warning
_WEAK = 60.0  # mean F below which selection in the same data matters
_DOMINANT = 0.5  # share of the weight that one candidate may carry
_CENTRES = 500  # at which the density of the ratios is computed at most
_NO_ASSOCIATION = 1e-9  # |z| up to which a candidate has no ratio


class InstrumentDiagnostics(NamedTuple):
    """Numbers about the candidates that no prior enters.

    Attributes
    ----------
    mean_f : float
        Mean F statistic of the candidates in the exposure study.
    min_abs_z : float
        Smallest |z| of a candidate in the exposure study.
    egger_z : float
        z of the intercept of MR-Egger; NaN with fewer than three or with correlated candidates.
    weighted_mode : float
        Weighted mode of the single candidates' ratios; NaN with correlated candidates.
    largest_weight : float
        Largest share of one candidate in the inverse-variance weights.
    hidden_slope : float
        Median over candidates of outcome standard error over exposure effect: pleiotropy
        proportional to the exposure effects with a slope of this order cannot be seen.

    References
    ----------
    Bowden et al. (2015), doi:10.1093/ije/dyv080 (Egger); Hartwig et al. (2017),
    doi:10.1093/ije/dyx102 (weighted mode).
    """

    mean_f: float
    min_abs_z: float
    egger_z: float
    weighted_mode: float
    largest_weight: float
    hidden_slope: float


def instrument_diagnostics(s: StandardisedAssociations) -> InstrumentDiagnostics:
    """Compute the numbers from standardised associations."""
    se_x = np.sqrt(s.noise_exposure * s.residual_exposure)
    variance_y = s.residual_outcome + s.residual_slope**2 * s.residual_exposure
    se_y = np.sqrt(s.noise_outcome * variance_y)
    z = np.abs(s.exposure) / se_x
    used = z > _NO_ASSOCIATION
    x, y = s.exposure[used], s.outcome[used]
    weight = (x / se_y[used]) ** 2
    return InstrumentDiagnostics(
        mean_f=float((z * z).mean()),
        min_abs_z=float(z.min()),
        egger_z=_egger_intercept(x, y, se_y[used]) if s.uncorrelated else math.nan,
        weighted_mode=_weighted_mode(y / x, weight) if s.uncorrelated and x.size else math.nan,
        largest_weight=float(weight.max() / weight.sum()) if x.size else math.nan,
        hidden_slope=float(np.median(se_y[used] / np.abs(x))) if x.size else math.inf,
    )


def _egger_intercept(x: Float, y: Float, se: Float) -> float:
    """Z of the intercept with effects oriented to raise the exposure, random-effects scale."""
    if x.size < 3:
        return math.nan
    sign = np.where(x < 0, -1.0, 1.0)
    x, y, w = x * sign, y * sign, se**-2.0
    sw, sx, sy = w.sum(), (w * x).sum(), (w * y).sum()
    sxx, sxy = (w * x * x).sum(), (w * x * y).sum()
    determinant = sw * sxx - sx * sx
    if not determinant > 1e-12 * sw * sxx:
        return math.nan
    intercept = (sxx * sy - sx * sxy) / determinant
    slope = (sw * sxy - sx * sy) / determinant
    spread = (w * (y - intercept - slope * x) ** 2).sum() / (x.size - 2)
    return float(intercept / np.sqrt(sxx / determinant * max(1.0, spread)))


def _weighted_mode(ratio: Float, weight: Float) -> float:
    """Mode of the weighted kernel density of the ratios, bandwidth factor 1."""
    if ratio.size == 1:
        return float(ratio[0])
    deviation = 1.4826 * np.median(np.abs(ratio - np.median(ratio)))
    spread = min(float(ratio.std(ddof=1)), float(deviation)) or float(ratio.std(ddof=1))
    bandwidth = 0.9 * spread / ratio.size**0.2
    if not bandwidth > 0:
        return float(np.median(ratio))
    # The peak of the density is near a ratio: every ratio, then fine grids around the best.
    places, weights = _binned(ratio, weight, bandwidth)
    centre = places[np.argsort(-weights, kind="stable")[:_CENTRES]]
    for reach in (3.0, 0.02, 0.0):  # of the next grid, in bandwidths
        scaled = (centre[:, None] - places) / bandwidth
        density = np.einsum("ij,j->i", np.exp(-0.5 * scaled * scaled), weights)
        best = float(centre[int(np.argmax(density))])
        centre = best + bandwidth * reach * np.linspace(-1, 1, 401)
        places, weights = ratio, weight
    return best


def _binned(ratio: Float, weight: Float, bandwidth: float) -> tuple[Float, Float]:
    """Means and weights of the ratios by cells of 1/16 bandwidth, where there are many ratios."""
    if ratio.size <= _CENTRES:
        return ratio, weight
    _, cell = np.unique(np.floor(16 * ratio / bandwidth), return_inverse=True)
    total = np.bincount(cell, weight)
    return np.bincount(cell, weight * ratio) / total, np.asarray(total, dtype=np.float64)


def effect_warnings(
    effect: EffectDensity,
    instruments: InstrumentDiagnostics,
    *,
    identified: bool,
    directional: float = math.nan,
    mean_probability: float = math.nan,
    beyond_slab: float = math.nan,
    selection: str = "",
) -> tuple[list[str], dict[str, float]]:
    """Warnings about a posterior, with the numbers behind them.

    Parameters
    ----------
    directional, mean_probability : float
        Of the identified prior: E[rho a1 pi] and E[pi].
    beyond_slab : float
        Largest posterior mean of a pleiotropic effect in sds of the widest slab.
    selection : str
        What was done about selection in the exposure study, in words.
    """
    words: list[str] = []
    numbers = instruments._asdict()
    modes = effect.modes
    second = sum(mode.probability for mode in modes[1:])
    numbers["second_mode_probability"] = second
    if second > SECOND_MODE:
        text = ", ".join(f"{m.peak:.4g} (probability {m.probability:.2f})" for m in modes[:4])
        words.append(
            f"the posterior of the effect has several peaks, at {text}: report them all, no "
            "single interval"
        )
    if identified:
        numbers["directional_index"] = directional
        numbers["mean_slab_probability"] = mean_probability
        numbers["largest_effect_in_slab_sd"] = beyond_slab
        if beyond_slab > BEYOND_SLAB:
            words.append(
                f"a pleiotropic effect is {beyond_slab:.0f} times as large as the sd of the "
                "widest slab: the prior is too narrow for these data, add wider ones "
                "(IdentifiedPrior(slab_sd=))"
            )
        if abs(directional) > DIRECTIONAL:
            words.append(
                f"directional pleiotropy: {directional:+.1f} outcome standard errors per "
                "candidate on average (over 2 in size); the interval is likely too narrow, "
                "compare MR-Egger"
            )
        if mean_probability > DOUBTFUL_MAJORITY:
            words.append(
                f"the majority of the candidates is doubtful: expected share pleiotropic "
                f"{mean_probability:.2f}"
            )
    dominated = instruments.largest_weight > _DOMINANT
    if abs(instruments.egger_z) > EGGER and instruments.mean_f >= _STRONG and not dominated:
        words.append(
            f"MR-Egger's intercept contradicts balanced pleiotropy (z = {instruments.egger_z:.1f})"
        )
    sd = effect.moments[1]
    distance = abs(effect.quantile(0.5) - instruments.weighted_mode) / sd
    numbers["mode_distance"] = distance
    if distance > MODE_DISTANCE:
        words.append(
            f"the weighted mode of the single candidates' ratios, {instruments.weighted_mode:.4g}, "
            f"is {distance:.1f} posterior standard deviations away from the median"
        )
    if selection:
        words.append(selection)
    elif identified and instruments.mean_f < _WEAK:
        words.append(
            f"weak candidates (mean F {instruments.mean_f:.0f}): if they were selected in these "
            "exposure data, give selection_p"
        )
    words.append(
        "correlated pleiotropy cannot be excluded: no diagnostic sees direct effects in proportion "
        f"to the exposure effects with a slope of about {instruments.hidden_slope:.2g}"
    )
    return words, numbers
