"""The causal effect from pooled profiles: `federated_estimate`, `leave_one_site_out`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float, fail
from mrfast.errors import MrfastWarning
from mrfast.federated.joint_profile import (
    JointMaximum,
    JointProfile,
    Pieces,
    SiteFunctions,
    corrected_kappas,
)
from mrfast.federated.node_profile import GridProfile, Profile
from mrfast.federated.pooling import PooledProfile

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FederatedEstimate", "Heterogeneity", "federated_estimate", "leave_one_site_out"]

SCALES = ("exposure", "medusa")
EFFECTS = ("fixed", "random")
SMALL_SAMPLE = ("none", "conditional", "firth")
INTERVALS = ("hartung_knapp", "profile")
_FEW_CASES = 10.0  # per nuisance coefficient, below which l + h is the better likelihood
_INFORMATION = 1.0  # log units that a monotone profile must span to count as a site
_FEW_SITES = 5
_NEGLIGIBLE = 20.0  # log units below the maximum


class Heterogeneity(NamedTuple):
    """Whether the sites agree on one effect.

    Attributes
    ----------
    Q : float
        Twice what the log-likelihood gains when every site has its own effect.
    df : int
        Sites that say enough, less one.
    p : float
        Of Q under the chi-square law; NaN for a single site.
    I2 : float
        Share of Q beyond what chance gives, from 0 to 1; NaN for a single site.
    """

    Q: float
    df: int
    p: float
    I2: float


@dataclass(frozen=True, eq=False, repr=False)
class FederatedEstimate:
    """Causal effect of the exposure, a log odds ratio per unit, from all sites.

    Attributes
    ----------
    beta : float
        Estimate. Infinite where every site's profile rises to the same side; NaN where the
        likelihood is largest at infinity from both sides: there is no estimate then, but a set.
    std_error : float
        From the curvature of the joint profile: the errors of the kappas are in it.
    ci_lower, ci_upper : float
        Ends of the interval or ray that holds the estimate.
    ci_level : float
    confidence_set : tuple of pairs of float
        All of it: intervals in ascending order, with infinite ends for rays. With weak instruments
        it may be two rays (all values but an interval), or the line.
    p_value : float
        Of no effect; below ``1 - ci_level`` exactly where 0 is outside of the set.
    heterogeneity : Heterogeneity
        Q, df, p and I2.
    n_sites, total_cases, total_controls : int
        Of the sites that say anything.
    sites : tuple of str
        Every site's name.
    kappas : ndarray, shape: (K,)
        Exposure per unit of every site's score, as used.
    kappa_covariance : ndarray, shape: (K, K)
        Theirs.
    scale, effects, small_sample, interval_method : str
        As asked for.
    kappa_uncertainty, noise_correction : bool
        Whether the kappas' errors are in the limits, and whether the noise that weights and kappas
        share was taken out.
    tau : float or None
        Standard deviation of the effect between sites, with random effects.
    prediction_interval : tuple of two floats, or None
        For the effect at a new site, with random effects and at least three sites.
    messages : tuple of str
        What a reader should know.
    """

    beta: float
    std_error: float
    ci_lower: float
    ci_upper: float
    ci_level: float
    confidence_set: Pieces
    p_value: float
    heterogeneity: Heterogeneity
    n_sites: int
    total_cases: int
    total_controls: int
    sites: tuple[str, ...]
    kappas: Float
    kappa_covariance: Float
    scale: str = "exposure"
    effects: str = "fixed"
    small_sample: str = "none"
    interval_method: str = "likelihood_ratio"
    kappa_uncertainty: bool = True
    noise_correction: bool = False
    tau: float | None = None
    prediction_interval: tuple[float, float] | None = None
    messages: tuple[str, ...] = ()
    pooled: PooledProfile | None = field(default=None, repr=False)
    joint: JointProfile | None = field(default=None, repr=False)

    @property
    def odds_ratio(self) -> float:
        """Of one unit of exposure."""
        return _exp(self.beta)

    @property
    def odds_ratio_lower(self) -> float:
        """Its lower limit."""
        return _exp(self.ci_lower)

    @property
    def odds_ratio_upper(self) -> float:
        """Its upper limit."""
        return _exp(self.ci_upper)

    @property
    def bounded(self) -> bool:
        """Whether the confidence set is bounded."""
        ends = [end for piece in self.confidence_set for end in piece]
        return all(math.isfinite(end) for end in ends)

    def to_frame(self) -> pd.DataFrame:
        """The estimate as a table of one row."""
        import pandas as pd

        columns = (
            *("beta", "std_error", "ci_lower", "ci_upper", "ci_level", "p_value"),
            *("odds_ratio", "odds_ratio_lower", "odds_ratio_upper", "bounded"),
            *("n_sites", "total_cases", "total_controls", "tau"),
            *("scale", "effects", "small_sample", "kappa_uncertainty", "noise_correction"),
        )
        row: dict[str, Any] = {name: getattr(self, name) for name in columns}
        row.update(self.heterogeneity._asdict())
        row["confidence_set"] = _set_words(self)
        return pd.DataFrame([row])

    def plot(self) -> Any:
        """Profiles of the sites and of all together, with the confidence set (plot extra).

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from mrfast.plots.federated_profiles import federated_estimate_figure

        return federated_estimate_figure(self)

    def __str__(self) -> str:
        level = f"{100 * self.ci_level:.4g}%"
        kind = {"fixed": "one effect at all sites", "random": "effects that differ by site"}
        unit = "exposure" if self.scale == "exposure" else "Medusa's denominator"
        lines = [
            f"Federated estimate, log odds ratio per unit of {unit}; {kind[self.effects]}",
            f"  estimate    {self.beta:.5g} (standard error {self.std_error:.3g})",
            f"  {level} set     {_set_words(self)}",
            f"  odds ratio  {self.odds_ratio:.4g} "
            f"({self.odds_ratio_lower:.4g} to {self.odds_ratio_upper:.4g})",
            f"  p           {self.p_value:.3g}",
        ]
        if self.tau is not None:
            text = f"  between     tau {self.tau:.3g}"
            if self.prediction_interval is not None:
                low, high = self.prediction_interval
                text += f"; effect at a new site {low:.4g} to {high:.4g}"
            lines.append(text)
        if self.heterogeneity.df > 0:
            q = self.heterogeneity
            lines.append(f"  Q           {q.Q:.4g} on {q.df} df, p {q.p:.3g}, I2 {100 * q.I2:.0f}%")
        lines.append(
            f"  data        {self.n_sites} site{'s' if self.n_sites != 1 else ''}, "
            f"{self.total_cases} cases, {self.total_controls} controls"
        )
        lines += [f"  note: {message}" for message in self.messages]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"FederatedEstimate(beta={self.beta:.5g}, std_error={self.std_error:.3g}, "
            f"set: {_set_words(self)}, p={self.p_value:.3g}, {self.n_sites} sites)"
        )


def federated_estimate(
    pooled: PooledProfile,
    *,
    ci_level: float = 0.95,
    kappa_uncertainty: bool = True,
    noise_correction: str | bool = "auto",
    scale: str = "exposure",
    effects: str = "fixed",
    small_sample: str = "none",
    interval: str = "hartung_knapp",
) -> FederatedEstimate:
    """Causal effect of the exposure from the pooled profiles of the sites.

    The log odds ratio per unit of exposure that maximises the likelihood of all sites, jointly with
    the instruments' effects on the exposure, which all sites share and whose errors are known. The
    limits are those of the likelihood ratio.

    Parameters
    ----------
    pooled : PooledProfile
    ci_level : float, default 0.95
        Above 0, below 1.
    kappa_uncertainty : bool, default True
        Let the kappas vary within their errors. Without it they are fixed, for the estimate and
        its limits; ``std_error`` contains their errors all the same.
    noise_correction : {"auto", True, False}
        Take the noise out of the kappas that they share with weights from the same association
        study. Without it the estimate is too near to 0, by about 1/F of itself where F is the mean
        F statistic of the instruments. Weights from other data ("auto" knows them) need none.
    scale : {"exposure", "medusa"}
        "medusa": what Medusa 0.1.0 computes, for comparison only; it warns. Its score has to be
        "inverse_variance".
    effects : {"fixed", "random"}
        "random": every site has an effect of its own, normal around the mean that is estimated;
        by restricted maximum likelihood.
    small_sample : {"none", "conditional", "firth"}
        For sites with few cases per covariate. "conditional" adds to every profile half the log
        determinant of the nuisance information; "firth" also Jeffreys' prior of the common effect,
        once, which makes the estimate finite.
    interval : {"hartung_knapp", "profile"}
        For random effects: Hartung and Knapp's, never narrower than Wald's, by the t law; or that
        of the profile likelihood.

    Returns
    -------
    FederatedEstimate

    Raises
    ------
    InvalidInputError
        An option is not known; options exclude each other; or profiles that are values on a grid
        do not have what `small_sample` needs.

    Warns
    -----
    MrfastWarning
        With ``scale="medusa"``, and where the estimate or a limit asks for a site's profile beyond
        its window.

    Notes
    -----
    Heterogeneity is that of the unpenalised likelihoods, whatever `small_sample` is.
    """
    if not isinstance(pooled, PooledProfile):
        raise fail("pooled", "what mrfast.pool returns", type(pooled).__name__)
    ci_level = check.scalar("ci_level", ci_level, above=0, below=1)
    check.flag("kappa_uncertainty", kappa_uncertainty)
    if noise_correction != "auto":
        noise_correction = check.flag("noise_correction", noise_correction)
    check.choice("scale", scale, SCALES)
    check.choice("effects", effects, EFFECTS)
    check.choice("small_sample", small_sample, SMALL_SAMPLE)
    check.choice("interval", interval, INTERVALS)
    if scale == "medusa":
        from mrfast.federated.medusa_scale import medusa_estimate

        if (effects, small_sample) != ("fixed", "none"):
            raise fail("scale", "'exposure' with these options", "'medusa'")
        return medusa_estimate(pooled, ci_level)
    grids = [s.site_id for s in pooled.sites if isinstance(s.profile, GridProfile)]
    if grids and small_sample != "none":
        raise fail(
            "small_sample", "'none' for profiles that are values on a grid", f"{', '.join(grids)}"
        )
    if effects == "random" and small_sample == "firth":
        raise fail("small_sample", "'none' or 'conditional' with random effects", "'firth'")

    messages = list(pooled.messages)
    centre, covariance, corrected = _kappas(pooled, noise_correction, messages)
    sites = pooled.functions
    if small_sample != "none":
        sites = SiteFunctions(sites.profiles, adjusted=True)
    if grids:
        messages.append(
            f"profiles of {', '.join(grids)} are values on a grid: splines stand for them"
        )
    _advise_few_cases(pooled, small_sample, messages)
    used = covariance if kappa_uncertainty else None
    joint = JointProfile(sites, centre, used, firth=small_sample == "firth")
    best = joint.maximum(_half_quantile(ci_level))
    plain = best
    if small_sample != "none":
        plain = JointProfile(pooled.functions, centre, used).maximum(1.0)
    lower, upper = _piece(best.confidence_set, best.theta)
    std_error = best.std_error
    if not kappa_uncertainty:
        std_error = _delta_method(sites, best, centre, covariance)
    estimate = FederatedEstimate(
        beta=best.theta,
        std_error=std_error,
        ci_lower=lower,
        ci_upper=upper,
        ci_level=ci_level,
        confidence_set=best.confidence_set,
        p_value=_chi_square_p(2 * (best.value - best.value_at_zero), 1),
        heterogeneity=_heterogeneity(pooled, plain.value),
        n_sites=sum(pooled.informative),
        total_cases=pooled.total_cases,
        total_controls=pooled.total_controls,
        sites=pooled.site_ids,
        kappas=centre,
        kappa_covariance=covariance,
        small_sample=small_sample,
        kappa_uncertainty=kappa_uncertainty,
        noise_correction=corrected,
        pooled=pooled,
        joint=joint,
    )
    if effects == "random":
        return _random(estimate, pooled, joint, interval, messages)
    _check_windows(pooled, joint, best, ci_level, messages)
    _say_shape(best, messages)
    return replace(estimate, messages=tuple(messages))


def leave_one_site_out(pooled: PooledProfile, **options: Any) -> pd.DataFrame:
    """The estimate without each of the sites.

    Parameters
    ----------
    pooled : PooledProfile
        At least two sites.
    **options
        Of `federated_estimate`.

    Returns
    -------
    DataFrame
        One row a site, with its name in the column ``left_out``, and the columns of
        `FederatedEstimate.to_frame`.

    Raises
    ------
    InvalidInputError
        There is one site only, or an option is not known.
    """
    import pandas as pd

    if not isinstance(pooled, PooledProfile):
        raise fail("pooled", "what mrfast.pool returns", type(pooled).__name__)
    if pooled.n_sites < 2:
        raise fail("pooled", "at least two sites", "one")
    rows = []
    for site_id in pooled.site_ids:
        row = federated_estimate(pooled.without(site_id), **options).to_frame()
        row.insert(0, "left_out", site_id)
        rows.append(row)
    return pd.concat(rows, ignore_index=True)


# ------------------------------------------------------------------------------ kappas


def _kappas(
    pooled: PooledProfile, noise_correction: str | bool, messages: list[str]
) -> tuple[Float, Float, bool]:
    """Centre and covariance of the kappas, and whether they were corrected."""
    centre, covariance = pooled.kappas, pooled.kappa_covariance
    trace = pooled.noise_trace
    if noise_correction is False or not trace.any():
        if noise_correction is True:
            messages.append(
                "no noise to take out of the kappas: the weights do not come from the study of the "
                "instruments' effects"
            )
        return centre, covariance, False
    centre, covariance, noise_only = corrected_kappas(
        centre, covariance, trace, pooled.noise_cross, pooled.loadings
    )
    if noise_only.any():
        names = [site.site_id for site, only in zip(pooled.sites, noise_only, strict=True) if only]
        messages.append(
            f"the weights of the score are no more than noise at {', '.join(names)}: without the "
            "noise its kappa would change sign, and is taken as 0; use stronger instruments, or "
            "weights from another study"
        )
    return centre, covariance, True


def _delta_method(
    sites: SiteFunctions, best: JointMaximum, centre: Float, covariance: Float
) -> float:
    """Standard error of the estimate with fixed kappas, with their errors in it."""
    if not math.isfinite(best.theta) or not math.isfinite(best.std_error):
        return math.inf
    _, slope, second = sites(best.theta * centre[None, :])[:, 0]
    by_kappa = (slope + best.theta * centre * second) * best.std_error**2
    return float(np.sqrt(best.std_error**2 + by_kappa @ covariance @ by_kappa))


# ---------------------------------------------------------------------- heterogeneity


def _heterogeneity(pooled: PooledProfile, value: float) -> Heterogeneity:
    gain = sum(site.profile.maximum for site in pooled.sites) - value
    counted = 0
    for site, says in zip(pooled.sites, pooled.informative, strict=True):
        profile = site.profile
        ends = profile(np.array([profile.lower, profile.upper]))
        counted += bool(says and (not profile.monotone or np.ptp(ends) > _INFORMATION))
    return heterogeneity_of(max(2 * gain, 0.0), counted - 1)


def heterogeneity_of(Q: float, df: int) -> Heterogeneity:
    """Q with its p-value and I2."""
    if df < 1:
        return Heterogeneity(0.0, 0, math.nan, math.nan)
    excess = max(0.0, (Q - df) / Q) if Q > 0 else 0.0
    return Heterogeneity(Q, df, _chi_square_p(Q, df), excess)


# ---------------------------------------------------------------------- random effects


def _random(
    fixed: FederatedEstimate,
    pooled: PooledProfile,
    joint: JointProfile,
    interval: str,
    messages: list[str],
) -> FederatedEstimate:
    from mrfast.federated.random_effects import random_effects

    if fixed.n_sites < 2:
        raise fail("effects", "'fixed' for fewer than two sites", "'random'")
    if not math.isfinite(fixed.beta) or np.any(joint.centre == 0):
        raise fail("effects", "'fixed' where there is no finite estimate of one effect", "'random'")
    if not fixed.kappa_uncertainty:
        messages.append("random effects with fixed kappas: their errors are in no number here")
    found = random_effects(
        joint.sites,
        joint.centre,
        joint.covariance,
        start=fixed.beta,
        informative=np.array(pooled.informative),
        ci_level=fixed.ci_level,
        profile=interval == "profile",
    )
    if fixed.n_sites < _FEW_SITES:
        messages.append(
            f"with {fixed.n_sites} sites the spread of the effects is barely identified, and the "
            "interval is conservative"
        )
    if found.at_bound:
        messages.append(
            "the spread of the effects runs to the largest that the windows support: the sites "
            "contradict each other, and no mean effect describes them"
        )
    outside = [
        (f"{site.site_id} ({low:.3g} to {high:.3g})", _matters(site.profile, low, high))
        for site, low, high in zip(pooled.sites, found.beta_lower, found.beta_upper, strict=True)
        if low < site.profile.lower or high > site.profile.upper
    ]
    if outside:
        text = (
            "the effects of sites, the mean -+ 4 tau, go beyond the windows at "
            f"{', '.join(name for name, _ in outside)}"
        )
        if any(matters for _, matters in outside):
            text += ": ask for profiles on wider windows"
            warnings.warn(text, MrfastWarning, stacklevel=3)
        else:
            text += ", where the likelihood is negligible"
        messages.append(text)
    return replace(
        fixed,
        beta=found.theta,
        std_error=found.std_error,
        ci_lower=found.ci_lower,
        ci_upper=found.ci_upper,
        confidence_set=((found.ci_lower, found.ci_upper),),
        p_value=found.p_value,
        effects="random",
        interval_method=interval,
        tau=found.tau,
        prediction_interval=found.prediction_interval,
        messages=tuple(messages),
        joint=None,
    )


def _matters(profile: Profile, low: float, high: float) -> bool:
    """Whether a profile still counts where it leaves its window towards these values."""
    crossed = [profile.lower] if low < profile.lower else []
    crossed += [profile.upper] if high > profile.upper else []
    return any(profile.maximum - float(profile(end)) < _NEGLIGIBLE for end in crossed)


# ---------------------------------------------------------------------------- messages


def _check_windows(
    pooled: PooledProfile,
    joint: JointProfile,
    best: JointMaximum,
    ci_level: float,
    messages: list[str],
) -> None:
    """Say where profiles were used beyond their windows, and what is certain all the same."""
    sites = joint.sites
    slack = 1e-9 * (sites.upper - sites.lower)
    outside = (best.beta < sites.lower - slack) | (best.beta > sites.upper + slack)
    touched = np.nonzero(outside.any(axis=0))[0]
    if not touched.size:
        return
    parts = []
    reach = 0.0
    for k in touched:
        values = best.beta[outside[:, k], k]
        farthest = float(values[np.argmax(np.abs(values))])
        kappa = abs(float(joint.centre[k]))
        reach = max(reach, abs(farthest) / kappa if kappa else 0.0)
        parts.append(
            f"{pooled.sites[k].site_id} (needed at {farthest:.4g}, window {sites.lower[k]:.4g} to "
            f"{sites.upper[k]:.4g})"
        )
    text = (
        "the estimate or a limit uses profiles beyond their windows, continued as straight lines: "
        f"{', '.join(parts)}"
    )
    if sites.bounded[touched].all() and math.isfinite(best.theta):
        text += f"; {_enclosure(joint, best, _half_quantile(ci_level))}"
    else:
        text += "; how far off that may be is not known"
    text += f"; ask these sites for profiles on wider windows (effect_range={reach * 1.2:.2g})"
    messages.append(text)
    warnings.warn(text, MrfastWarning, stacklevel=3)


def _enclosure(joint: JointProfile, best: JointMaximum, drop: float) -> str:
    """Between which values the limits lie, by the profiles' guaranteed bounds."""
    below = SiteFunctions(joint.sites.profiles, adjusted=joint.sites.adjusted, lower_bound=True)
    least = JointProfile(below, joint.centre, joint.covariance, firth=joint.firth)
    inner = least.maximum(drop, peak=best.value)
    outer = joint.maximum(drop, peak=inner.value)
    low, high = _piece(outer.confidence_set, best.theta)
    if not inner.confidence_set:
        return f"the limits lie for certain no further out than {low:.5g} and {high:.5g}"
    inside = _piece(inner.confidence_set, best.theta)
    return (
        f"the lower limit lies for certain between {low:.5g} and {inside[0]:.5g}, the upper "
        f"between {inside[1]:.5g} and {high:.5g}"
    )


def _say_shape(best: JointMaximum, messages: list[str]) -> None:
    """Sets that are not an interval, and estimates that are not finite."""
    pieces = best.confidence_set
    unbounded = math.isinf(pieces[0][0]) or math.isinf(pieces[-1][1])
    if math.isnan(best.theta):
        messages.append(
            "the likelihood is largest at infinity: the data give a set but no estimate"
        )
    elif math.isinf(best.theta):
        side = "rises" if best.theta > 0 else "falls"
        messages.append(
            f"every profile {side} towards the same side: the estimate is infinite, one limit is "
            'not; small_sample="firth" gives a finite estimate'
        )
    if len(pieces) == 1 and all(map(math.isinf, pieces[0])):
        messages.append("the confidence set is the whole line: the data exclude no effect")
    elif unbounded and len(pieces) == 2 and math.isinf(pieces[0][0]) and math.isinf(pieces[1][1]):
        messages.append(
            f"the confidence set is two rays, all values but those from {pieces[0][1]:.4g} to "
            f"{pieces[1][0]:.4g}: the instruments are too weak for a bounded one; the limits "
            "reported are those of the ray with the estimate"
        )
    elif unbounded:
        messages.append("the confidence set is not bounded")
    if len(pieces) > 1 and not unbounded:
        messages.append(
            f"the confidence set consists of {len(pieces)} pieces, because the likelihood has "
            "several maxima; the limits reported are those of the piece with the estimate"
        )


def _advise_few_cases(pooled: PooledProfile, small_sample: str, messages: list[str]) -> None:
    if small_sample != "none":
        return
    sparse = []
    for site in pooled.sites:
        covariates = site.diagnostics.get("n_covariates")
        if covariates is None:
            continue
        fewer = min(site.n_cases, site.n_controls)
        if 0 < fewer < _FEW_CASES * (1 + float(covariates)):
            sparse.append(site.site_id)
    if sparse:
        messages.append(
            f"fewer than {_FEW_CASES:.0f} cases (or controls) per nuisance coefficient at "
            f'{", ".join(sparse)}: small_sample="conditional" has less bias there'
        )


# ------------------------------------------------------------------------------- helpers


def _half_quantile(level: float) -> float:
    from scipy.special import chdtri

    return float(chdtri(1, 1 - level)) / 2


def _chi_square_p(statistic: float, df: int) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(df, max(statistic, 0.0)))


def _piece(pieces: Pieces, theta: float) -> tuple[float, float]:
    """The piece that holds the estimate; the hull where there is no estimate."""
    for lower, upper in pieces:
        if lower <= theta <= upper:
            return lower, upper
    return pieces[0][0], pieces[-1][1]


def _set_words(estimate: FederatedEstimate) -> str:
    from mrfast.plots.federated_profiles import set_text

    return set_text(estimate.confidence_set)


def _scaled(profile: Profile, factor: float) -> Callable[[Float], Float]:
    return lambda theta: profile(theta * factor)


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf if not math.isnan(value) else math.nan
