"""Contamination mixture: `contamination_mixture`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _core
from mrfast import _validation as check
from mrfast.summary._inputs import associations
from mrfast.summary._likelihood_sets import (
    SetEstimate,
    chi_square_drop,
    ratio_p_value,
    set_messages,
)

__all__ = ["ContaminationEstimate", "contamination_mixture"]

_SPREAD = 1.5  # psi over the standard deviation of the ratios
_NEAR = 3.0  # psi over the estimate, below which invalid SNPs hide near zero


@dataclass(frozen=True, kw_only=True)
class ContaminationEstimate(SetEstimate):
    """Result of `contamination_mixture`.

    Attributes
    ----------
    psi : float
        Standard deviation of the ratios of invalid SNPs about zero, beyond their errors.
    phi : float
        Root of Q / (n_valid - 1) of the valid SNPs, at least 1.
    valid : ndarray of bool, shape (J,)
        SNPs that are more likely valid than not at the estimate.
    n_valid : int
    log_likelihood, log_likelihood_null : float
        Of the profile likelihood, at the estimate and at no effect.
    """

    title = "contamination mixture"

    psi: float
    phi: float
    valid: NDArray[np.bool_]
    n_valid: int
    log_likelihood: float
    log_likelihood_null: float

    def _more_rows(self) -> list[tuple[str, str]]:
        return [
            *super()._more_rows(),
            ("valid SNPs", f"{self.n_valid} of {self.n_snps}, psi = {self.psi:.4g}"),
        ]


def contamination_mixture(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    psi: float | None = None,
    ci_level: float = 0.95,
) -> ContaminationEstimate:
    """Contamination mixture: the effect on which the likeliest group of SNPs agrees.

    The ratio of a valid SNP is normal about the effect theta with its own error s; that of an
    invalid SNP normal about zero with variance psi^2 + s^2. The profile likelihood takes each SNP
    as what it more likely is. Its maximum and the confidence set are exact, without a grid. It
    needs a plurality of valid SNPs: no larger group of invalid ones agrees on another effect.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        Associations per copy of the same allele; `beta_exposure` without zeros. `se_exposure` is
        not used: s is se_outcome / abs(beta_exposure).
    psi : float, optional
        Default: 1.5 standard deviations of the ratios. Where that is not large beside the effect,
        invalid SNPs hide among those with a ratio near zero, and estimates are drawn away from it:
        the result says so. Try several values.
    ci_level : float, default 0.95

    Returns
    -------
    ContaminationEstimate
        The confidence set holds all effects whose log-likelihood is within chi2 phi^2 / 2 of the
        maximum (chi2: the quantile, 1 df); the p-value is of the same likelihood ratio, divided by
        phi^2. `std_error` is phi / sqrt(sum of 1/s^2 of the valid SNPs), which takes as known
        which SNPs are valid; the confidence set does not rest on it.

    Raises
    ------
    InvalidInputError
        Bad arrays; without a `psi`: fewer than 2 SNPs, equal ratios.

    References
    ----------
    Burgess, Foley, Allara, Staley, Howson (2020), doi:10.1038/s41467-019-14156-4.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.contamination_mixture(
    ...     beta_exposure=[0.1, 0.2, 0.15, 0.1], se_exposure=[0.01, 0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07, -0.1], se_outcome=[0.02, 0.02, 0.02, 0.02],
    ... )
    >>> result.n_valid
    3
    """
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=2 if psi is None else 1,
        needs_se_exposure=False,
        nonzero=True,
    )
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    ratio, error = data.by / data.bx, data.sy / np.abs(data.bx)
    if psi is None:
        psi = _SPREAD * float(ratio.std(ddof=1))
        if not psi > 0:
            raise check.fail("psi", "a number, as the ratios do not differ", "None")
    else:
        psi = check.scalar("psi", psi, above=0)
    wide = psi**2 + error**2
    invalid = -(ratio**2 / wide + np.log(2 * math.pi * wide)) / 2  # log-likelihoods
    gains = (ratio**2 / wide + np.log1p((psi / error) ** 2)) / 2
    estimate, gained = _core.mixture.largest_gain(ratio, error, gains)
    if math.isnan(estimate):
        raise check.fail("psi", "a larger number: no SNP can be told to be valid", f"{psi:g}")
    distance = ((ratio - estimate) / error) ** 2
    valid = distance < 2 * gains
    n_valid = int(valid.sum())
    q = float(distance[valid].sum())
    phi = max(1.0, math.sqrt(q / (n_valid - 1))) if n_valid > 1 else 1.0
    null = float(np.maximum(gains - (ratio / error) ** 2 / 2, 0).sum())
    intervals = _core.mixture.gain_level_set(
        ratio, error, gains, level=gained - phi**2 * chi_square_drop(level), centre=estimate
    )
    messages = set_messages(intervals)
    if psi < _NEAR * abs(estimate):
        messages.append(
            f"psi = {psi:.3g} is of the order of the estimate: SNPs with a ratio near zero are "
            "taken as invalid, which draws the estimate away from zero and makes the interval too "
            "narrow; compare other values of psi and other methods"
        )
    if 2 * n_valid < len(ratio):
        messages.append(f"only {n_valid} of {len(ratio)} SNPs agree with the estimate")
    base = float(invalid.sum())
    return ContaminationEstimate(
        method="contamination_mixture",
        estimate=estimate,
        std_error=phi / math.sqrt(float((1 / error[valid] ** 2).sum())),
        ci_lower=float(intervals[0, 0]),
        ci_upper=float(intervals[-1, 1]),
        p_value=ratio_p_value(2 * (gained - null) / phi**2),
        n_snps=len(ratio),
        ci_level=level,
        intervals=intervals,
        bounded=bool(np.isfinite(intervals).all()),
        psi=psi,
        phi=phi,
        valid=valid,
        n_valid=n_valid,
        log_likelihood=base + gained,
        log_likelihood_null=base + null,
        messages=tuple(messages),
    )
