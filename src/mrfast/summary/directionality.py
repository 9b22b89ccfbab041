"""Whether the exposure causes the outcome or the reverse: `steiger`, `steiger_filter`.

SNPs that act on the outcome through the exposure explain less of the outcome's variance than of the
exposure's. The variance explained of a continuous trait comes from t = beta / se by t^2 /
(t^2 + n - 2), which needs no p-value: nothing underflows. That of a binary trait is on the logistic
liability scale, 2 p (1 - p) beta^2 / (2 p (1 - p) beta^2 + pi^2 / 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtr

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._data_sets import DataSet, data_sets, one_data_set
from mrfast.summary._inputs import Associations

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SteigerTest",
    "per_snp",
    "population_frequency",
    "steiger",
    "steiger_filter",
    "steiger_test",
    "variance_explained",
]

_LOGISTIC = math.pi**2 / 3  # variance of the logistic law
_SCALES = ("continuous", "standardised", "binary")
_BY_CHANCE = 0.1  # share of the outcome's variance explained that noise alone would give


@dataclass(frozen=True, kw_only=True)
class SteigerTest:
    """Result of `steiger`.

    Attributes
    ----------
    r2_exposure, r2_outcome : float
        Shares of the variances that all SNPs explain together (sums over independent SNPs).
    correct_direction : bool
        `r2_exposure` is the larger: the exposure causes the outcome, if either does.
    p_value : float
        Two-sided, of equal shares; 0 where it is below the smallest number, so see
        `log10_p_value`.
    log10_p_value : float
    z : float
        Difference of the Fisher-transformed correlations over its standard error.
    n_exposure, n_outcome : float
        Mean sample sizes; of a binary trait, the size at which a continuous one would be as
        uncertain.
    n_snps : int
    r2_exposure_adjusted, r2_outcome_adjusted : float
        For errors of measurement, by the precisions given.
    correct_direction_adjusted : bool
    p_value_adjusted, log10_p_value_adjusted : float
    sensitivity_ratio : float
        Over all precisions that could be (correlation of a measured trait with the true one,
        independent and uniform from the measured correlation to 1): how much more they favour
        the direction found than the other, as the ratio of the volumes between the two surfaces.
    messages : tuple of str
    """

    r2_exposure: float
    r2_outcome: float
    correct_direction: bool
    p_value: float
    log10_p_value: float
    z: float
    n_exposure: float
    n_outcome: float
    n_snps: int
    r2_exposure_adjusted: float
    r2_outcome_adjusted: float
    correct_direction_adjusted: bool
    p_value_adjusted: float
    log10_p_value_adjusted: float
    sensitivity_ratio: float
    messages: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python numbers, strings and lists."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return found | {"messages": list(self.messages)}

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        import pandas as pd

        return pd.DataFrame([self.to_dict() | {"messages": "; ".join(self.messages)}])

    def __str__(self) -> str:
        way = "exposure to outcome" if self.correct_direction else "outcome to exposure"
        p = f"{self.p_value:.3g}" if self.p_value else f"10^{self.log10_p_value:.1f}"
        lines = [
            f"Steiger test of the direction ({self.n_snps} SNPs)",
            f"  variance explained:  {self.r2_exposure:.3g} of the exposure, "
            f"{self.r2_outcome:.3g} of the outcome",
            f"  direction:           {way}, p = {p}",
            f"  sensitivity ratio:   {self.sensitivity_ratio:.3g}",
        ]
        return "\n".join(lines + [f"  note: {message}" for message in self.messages])


def variance_explained(
    *,
    beta: ArrayLike,
    std_error: ArrayLike | None = None,
    n: ArrayLike | None = None,
    eaf: ArrayLike | None = None,
    scale: str = "continuous",
    case_fraction: float | None = None,
    prevalence: float | None = None,
) -> Float:
    """Share of a trait's variance that each SNP explains (R2).

    Parameters
    ----------
    beta : array_like, shape (J,), or float
        Associations; log odds ratios with ``"binary"``.
    std_error, n : array_like, shape (J,), or float
        Standard errors and sample sizes, for ``"continuous"``.
    eaf : array_like, shape (J,), or float
        Frequencies of the effect alleles, for the other scales.
    scale : {"continuous", "standardised", "binary"}, default "continuous"
        t^2/(t^2 + n - 2) with t = beta/std_error, for any unit of the trait; 2 p (1-p) beta^2, for
        betas in standard deviations of the trait; or of the logistic liability,
        v/(v + pi^2/3) with v = 2 p (1-p) beta^2.
    case_fraction, prevalence : float, optional
        Of ``"binary"``: share of cases in the sample and in the population. With both, `eaf` (of
        the sample) is turned into the frequency in the population; without, it is taken as that.

    Returns
    -------
    ndarray, shape (J,)

    Raises
    ------
    InvalidInputError
        Bad numbers, or those that the scale needs are missing.

    References
    ----------
    Hemani, Tilling, Davey Smith (2017), doi:10.1371/journal.pgen.1007081; Lee, Goddard, Wray,
    Visscher (2012), doi:10.1002/gepi.21614.

    Examples
    --------
    >>> import mrfast
    >>> mrfast.variance_explained(beta=[0.1], std_error=[0.01], n=[10_000]).round(5).tolist()
    [0.0099]
    """
    b = np.atleast_1d(check.float_array("beta", beta, ndim=None))
    if b.ndim != 1:
        raise check.fail("beta", "at most 1 dimension", f"{b.ndim}")
    size = len(b)
    s = per_snp("std_error", std_error, size)
    trait = _Trait(scale, b, s, per_snp("n", n, size), per_snp("eaf", eaf, size))
    return trait.complete("", case_fraction, prevalence).r2()


class _Trait(NamedTuple):
    """Associations of the SNPs with one trait, and what its scale needs; None where not given."""

    scale: str
    beta: Float
    std_error: Any
    n: Any
    eaf: Any

    def complete(self, side: str, case_fraction: float | None, prevalence: float | None) -> _Trait:
        """Check that nothing is missing; frequencies become those of the population."""
        ending = f"_{side}" if side else ""
        check.choice(f"scale{ending}", self.scale, _SCALES)
        if self.scale != "standardised" and self.scale != "binary":
            if self.std_error is None:
                name = f"se_{side}" if side else "std_error"
                raise check.fail(name, f"standard errors with scale{ending}={self.scale!r}", "None")
            if self.n is None:
                raise check.fail(
                    f"n{ending}", f"sample sizes with scale{ending}={self.scale!r}", "None"
                )
            low = self.n <= 3
            if low.any():
                raise check.fail(f"n{ending}", "sample sizes above 3", f"{self.n[low][0]:g}")
        elif self.eaf is None:
            raise check.fail(
                f"eaf{ending}", f"allele frequencies with scale{ending}={self.scale!r}", "None"
            )
        else:
            bad = ~((self.eaf > 0) & (self.eaf < 1))
            if bad.any():
                raise check.fail(
                    f"eaf{ending}", "frequencies strictly between 0 and 1", f"{self.eaf[bad][0]:g}"
                )
        if self.scale != "binary":
            for name, value in (("case_fraction", case_fraction), ("prevalence", prevalence)):
                if value is not None:
                    raise check.fail(
                        name + ending, f"None with scale{ending}={self.scale!r}", f"{value!r}"
                    )
            return self
        if (case_fraction is None) != (prevalence is None):
            missing = "case_fraction" if case_fraction is None else "prevalence"
            raise check.fail(missing + ending, "a share, as the other of the two is given", "None")
        if case_fraction is None or prevalence is None:
            return self
        share = check.scalar(f"case_fraction{ending}", case_fraction, above=0, below=1)
        risk = check.scalar(f"prevalence{ending}", prevalence, above=0, below=1)
        return self._replace(eaf=population_frequency(self.eaf, self.beta, share, risk))

    def r2(self) -> Float:
        """Variance explained by each SNP."""
        if self.scale == "continuous":
            t2 = (self.beta / self.std_error) ** 2
            return np.asarray(t2 / (t2 + self.n - 2))
        explained = self.spread() * self.beta**2
        if self.scale == "binary":
            return np.asarray(explained / (explained + _LOGISTIC))
        return np.asarray(explained)

    def spread(self) -> Float:
        """Variance of the number of alleles, by Hardy and Weinberg."""
        return np.asarray(2 * self.eaf * (1 - self.eaf))

    def sizes(self, r2: Float) -> Float:
        """Sample size of each SNP's correlation, of which Fisher's variance is 1/(n - 3)."""
        if self.scale != "binary":
            return np.asarray(self.n)
        return np.asarray(3 + (1 - r2) ** 2 / self._variances())

    def joint_size(self, r2: Float) -> float:
        """The same of the root of the sum of `r2`."""
        if self.scale != "binary":
            return float(self.n.mean())
        total = float(r2.sum())
        share = r2 / total if total > 0 else np.full(len(r2), 1 / len(r2))
        return 3 + (1 - total) ** 2 / float((share * self._variances()).sum())

    def _variances(self) -> Float:
        """Of the correlations of a binary trait, by the delta method."""
        v = self.spread()
        slope = np.sqrt(v) * _LOGISTIC / (v * self.beta**2 + _LOGISTIC) ** 1.5
        return np.asarray((slope * self.std_error) ** 2)


def population_frequency(eaf: Any, log_odds: Float, case_fraction: float, prevalence: float) -> Any:
    """Frequency of an allele in the population, from that in a sample of cases and controls.

    With frequencies p of controls and q of cases, q/(1-q) = exp(log_odds) p/(1-p) and the sample's
    frequency is the mean of both: a quadratic equation in p.
    """
    k = case_fraction
    excess = np.expm1(log_odds)
    a = (1 - k) * excess  # a p^2 + b p - eaf = 0
    b = 1 + (k - eaf) * excess
    controls = 2 * eaf / (b + np.sqrt(b**2 + 4 * a * eaf))  # does not cancel for a near 0
    cases = (eaf - (1 - k) * controls) / k
    return (1 - prevalence) * controls + prevalence * cases


def steiger(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    n_exposure: ArrayLike | None = None,
    n_outcome: ArrayLike | None = None,
    eaf_exposure: ArrayLike | None = None,
    eaf_outcome: ArrayLike | None = None,
    scale_exposure: str = "continuous",
    scale_outcome: str = "continuous",
    case_fraction_exposure: float | None = None,
    case_fraction_outcome: float | None = None,
    prevalence_exposure: float | None = None,
    prevalence_outcome: float | None = None,
    precision_exposure: float = 1.0,
    precision_outcome: float = 1.0,
) -> SteigerTest:
    """Steiger's test of the causal direction, with all SNPs together.

    Parameters
    ----------
    data : Harmonised or DataFrame, optional
        One exposure and one outcome, as in `mrfast.mr`. Sample sizes and frequencies not given
        are its columns ``n_exposure``, ``n_outcome``, ``eaf_exposure`` and ``eaf_outcome``.
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
        Instead of `data`.
    n_exposure, n_outcome : array_like, shape (J,), or float
        Sample sizes; not needed for a binary trait, whose standard errors count.
    eaf_exposure, eaf_outcome : array_like, shape (J,), or float
        Frequencies of the effect alleles, where the scale needs them.
    scale_exposure, scale_outcome : {"continuous", "standardised", "binary"}
        As in `mrfast.variance_explained`.
    case_fraction_exposure, case_fraction_outcome : float, optional
    prevalence_exposure, prevalence_outcome : float, optional
        Of binary traits, as in `mrfast.variance_explained`.
    precision_exposure, precision_outcome : float, default 1
        Correlation of each measured trait with the true one, for the adjusted test.

    Returns
    -------
    SteigerTest

    Notes
    -----
    Shares of independent SNPs add up; SNPs in linkage disequilibrium count several times. An
    error of measurement or a confounder of the two traits can reverse the direction that the
    shares show. Of a binary trait, the variance of the correlation follows from the standard
    errors of the log odds ratios, not from a number of persons.

    Raises
    ------
    InvalidInputError
        Bad arrays, missing sample sizes or frequencies, shares of 1 or more, several pairs.

    References
    ----------
    Hemani, Tilling, Davey Smith (2017), doi:10.1371/journal.pgen.1007081; Steiger (1980),
    doi:10.1037/0033-2909.87.2.245.

    Examples
    --------
    >>> import mrfast
    >>> test = mrfast.steiger(
    ...     beta_exposure=[0.1, 0.2], se_exposure=[0.01, 0.01], n_exposure=10_000,
    ...     beta_outcome=[0.03, 0.05], se_outcome=[0.01, 0.01], n_outcome=10_000,
    ... )
    >>> test.correct_direction
    True
    """
    entry = one_data_set(data, (beta_exposure, se_exposure, beta_outcome, se_outcome))
    checked = entry.checked(1)
    both = _traits(
        entry,
        checked,
        (n_exposure, n_outcome),
        (eaf_exposure, eaf_outcome),
        (scale_exposure, scale_outcome),
        (case_fraction_exposure, case_fraction_outcome),
        (prevalence_exposure, prevalence_outcome),
    )
    parts = [trait.r2() for trait in both]
    n = [trait.joint_size(part) for trait, part in zip(both, parts, strict=True)]
    precision = (precision_exposure, precision_outcome)
    return steiger_test(parts[0], n[0], parts[1], n[1], precision=precision)


def steiger_test(
    r2_exposure: Float,
    n_exposure: float,
    r2_outcome: Float,
    n_outcome: float,
    *,
    precision: tuple[float, float] = (1.0, 1.0),
) -> SteigerTest:
    """The test, from each SNP's share of the variances and the sample sizes."""
    shares = float(r2_exposure.sum()), float(r2_outcome.sum())
    adjusted = []
    for share, value, name in zip(shares, precision, ("exposure", "outcome"), strict=True):
        argument = f"precision_{name}"
        adjusted.append(share / check.scalar(argument, value, above=0, maximum=1) ** 2)
        if not adjusted[-1] < 1:
            argument = argument if share < 1 else f"beta_{name}"
            expected = "a share of the variance below 1"
            raise check.fail(argument, expected, f"{adjusted[-1]:.3g} from all SNPs")
    z, p, log_p = map(float, _compared(*shares, n_exposure, n_outcome))
    _, adjusted_p, adjusted_log_p = map(
        float, _compared(adjusted[0], adjusted[1], n_exposure, n_outcome)
    )
    messages = []
    chance = len(r2_outcome) / n_outcome
    if chance > _BY_CHANCE * shares[0]:
        messages.append(
            f"the errors of the outcome associations alone would explain about {chance:.2g} of "
            f"the outcome's variance in this sample, against {shares[0]:.2g} of the exposure's"
        )
    return SteigerTest(
        r2_exposure=shares[0],
        r2_outcome=shares[1],
        correct_direction=shares[0] > shares[1],
        p_value=p,
        log10_p_value=log_p,
        z=z,
        n_exposure=n_exposure,
        n_outcome=n_outcome,
        n_snps=len(r2_exposure),
        r2_exposure_adjusted=adjusted[0],
        r2_outcome_adjusted=adjusted[1],
        correct_direction_adjusted=adjusted[0] > adjusted[1],
        p_value_adjusted=adjusted_p,
        log10_p_value_adjusted=adjusted_log_p,
        sensitivity_ratio=_sensitivity_ratio(*shares),
        messages=tuple(messages),
    )


def steiger_filter(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    n_exposure: ArrayLike | None = None,
    n_outcome: ArrayLike | None = None,
    eaf_exposure: ArrayLike | None = None,
    eaf_outcome: ArrayLike | None = None,
    scale_exposure: str = "continuous",
    scale_outcome: str = "continuous",
    case_fraction_exposure: float | None = None,
    case_fraction_outcome: float | None = None,
    prevalence_exposure: float | None = None,
    prevalence_outcome: float | None = None,
    rule: str = "direction",
    alpha: float = 0.05,
    snps: Sequence[object] | None = None,
) -> pd.DataFrame:
    """Steiger's test for each SNP, and which to keep.

    Parameters
    ----------
    data, beta_exposure, ..., prevalence_outcome
        As in `steiger`; several pairs of traits are allowed.
    rule : {"direction", "significant", "not_reversed"}, default "direction"
        Keep SNPs that explain more of the exposure; those that do so with a p-value below
        `alpha`; or all but those that explain more of the outcome with a p-value below `alpha`.
    alpha : float, default 0.05
    snps : sequence of str, length J, optional
        Names of the SNPs of arrays; their positions otherwise.

    Returns
    -------
    DataFrame
        Columns ``r2_exposure``, ``r2_outcome``, ``steiger_z``, ``steiger_p_value``,
        ``steiger_log10_p_value``, ``correct_direction`` and ``keep``. With `data` they follow its
        own columns, in the kept rows: the result goes into `mrfast.mr`, which uses the rows that
        ``keep`` says. With arrays, ``snp`` and the four arrays come first.

    Raises
    ------
    InvalidInputError
        As `steiger`.

    References
    ----------
    Hemani, Tilling, Davey Smith (2017), doi:10.1371/journal.pgen.1007081.

    Examples
    --------
    >>> import mrfast
    >>> table = mrfast.steiger_filter(
    ...     beta_exposure=[0.1, 0.2], se_exposure=[0.01, 0.01], n_exposure=10_000,
    ...     beta_outcome=[0.03, 0.5], se_outcome=[0.01, 0.01], n_outcome=10_000,
    ... )
    >>> table["keep"].tolist()
    [True, False]
    """
    import pandas as pd

    check.choice("rule", rule, ("direction", "significant", "not_reversed"))
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    sets = data_sets(data, (beta_exposure, se_exposure, beta_outcome, se_outcome))
    frames = []
    for entry in sets:
        checked = entry.checked(1)
        size = len(checked.bx)
        both = _traits(
            entry,
            checked,
            (n_exposure, n_outcome),
            (eaf_exposure, eaf_outcome),
            (scale_exposure, scale_outcome),
            (case_fraction_exposure, case_fraction_outcome),
            (prevalence_exposure, prevalence_outcome),
        )
        x2, y2 = (trait.r2() for trait in both)
        for side, r2 in (("exposure", x2), ("outcome", y2)):
            if not r2.max() < 1:
                raise check.fail(
                    f"beta_{side}", "shares of the variance below 1", f"{r2.max():.3g}"
                )
        z, p, log_p = _compared(x2, y2, both[0].sizes(x2), both[1].sizes(y2))
        right = x2 > y2
        if rule == "direction":
            keep = right
        elif rule == "significant":
            keep = right & (p < alpha)
        else:
            keep = right | (p >= alpha)
        if entry.table is not None:
            frame = entry.table.copy()
        else:
            given = {k: v for k, v in entry.arguments(checked).items() if v is not None}
            frame = pd.DataFrame({"snp": entry.snp_names(snps, size), **given})
        found = {
            "r2_exposure": x2,
            "r2_outcome": y2,
            "steiger_z": z,
            "steiger_p_value": p,
            "steiger_log10_p_value": log_p,
            "correct_direction": right,
            "keep": keep,
        }
        frame = frame.drop(columns=[name for name in found if name in frame])
        frames.append(frame.assign(**found))
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def _traits(
    entry: DataSet,
    data: Associations,
    n: tuple[Any, Any],
    eaf: tuple[Any, Any],
    scale: tuple[str, str],
    case_fraction: tuple[float | None, float | None],
    prevalence: tuple[float | None, float | None],
) -> list[_Trait]:
    size = len(data.bx)
    found = []
    values = ((data.bx, None if entry.arrays[1] is None else data.sx), (data.by, data.sy))
    for i, side in enumerate(("exposure", "outcome")):
        columns = {}
        for name, given in (("n", n[i]), ("eaf", eaf[i])):
            argument = f"{name}_{side}"
            own = entry.column(argument) if given is None else given
            needed = name == ("n" if scale[i] == "continuous" else "eaf")
            if scale[i] == "standardised":
                needed = True
            columns[name] = per_snp(argument, own, size) if needed else None
        beta, error = values[i]
        trait = _Trait(scale[i], beta, error, columns["n"], columns["eaf"])
        trait = trait.complete(side, case_fraction[i], prevalence[i])
        if trait.scale == "standardised" and trait.n is None:
            raise check.fail(f"n_{side}", "sample sizes", "None")
        if trait.scale == "binary" and trait.std_error is None:
            raise check.fail(f"se_{side}", "standard errors of a binary trait", "None")
        found.append(trait)
    return found


def per_snp(argument: str, values: Any, size: int) -> Float | None:
    """Checked numbers, one a SNP; a single one stands for all."""
    if values is None:
        return None
    if np.ndim(values) == 0:
        return np.full(size, check.scalar(argument, values, above=0))
    return check.float_array(argument, values, ndim=1, shape=(size,), positive=True)


def _compared(x2: Any, y2: Any, n: Any, m: Any) -> tuple[Any, Any, Any]:
    """z, two-sided p-value and its decimal logarithm, of equal correlations in two samples."""
    difference = np.arctanh(np.sqrt(x2)) - np.arctanh(np.sqrt(y2))
    z = difference / np.sqrt(1 / (n - 3) + 1 / (m - 3))
    log_p = (math.log(2) + log_ndtr(-np.abs(z))) / math.log(10)
    return z, 2 * ndtr(-np.abs(z)), log_p


def _sensitivity_ratio(x2: float, y2: float) -> float:
    """Volume over all precisions that favours the direction found, over that which does not.

    With the larger measured correlation a and the smaller b, true ones a/u and b/v for u in (a, 1)
    and v in (b, 1): the integrals of a/u - b/v where it is positive, and where it is negative.
    """
    a, b = sorted((math.sqrt(x2), math.sqrt(y2)), reverse=True)
    if b == 0 or a == b:
        return math.inf if b == 0 and a > 0 else math.nan if a == 0 else 1.0
    log_a, log_b = math.log(a), math.log(b)
    net = -(1 - b) * a * log_a + (1 - a) * b * log_b
    against = -2 * b + 2 * a * b - b * log_a - a * b * log_a
    return (net + against) / against
