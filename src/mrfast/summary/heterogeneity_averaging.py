"""Averaging over all sets of valid SNPs: `heterogeneity_penalised`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from mrfast import _core
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._inputs import associations
from mrfast.summary._likelihood_sets import (
    LogDensity,
    SetEstimate,
    chi_square_drop,
    high_set,
    highest,
    ratio_p_value,
    set_fields,
    set_messages,
)

__all__ = ["HeterogeneityPenalisedEstimate", "heterogeneity_penalised"]

_MOST = 30  # SNPs whose sets are all counted
_FORMS = ("exact", "product")
_APART = 0.25  # widths between the points where modes are sought
_NOTHING = 25.0  # log density of a part below the largest that cannot matter
_CLIMB = 30  # Newton steps towards the modes next to the ratios
_BLOCK = 2_000_000  # numbers at once


@dataclass(frozen=True, kw_only=True)
class HeterogeneityPenalisedEstimate(SetEstimate):
    """Result of `heterogeneity_penalised`.

    Attributes
    ----------
    form : {"exact", "product"}
    prior : float
        Probability that a SNP is valid.
    n_models : int
        Sets of SNPs that were counted; those left out weigh 1e-7 of the best one, all together.
        0 for the product form.
    """

    title = "heterogeneity-penalised model averaging"

    form: str
    prior: float
    n_models: int

    def _more_rows(self) -> list[tuple[str, str]]:
        text = f"{self.n_models:,} sets of SNPs" if self.form == "exact" else "product form"
        return [*super()._more_rows(), ("averaged over", f"{text}, prior {self.prior:g}")]


def heterogeneity_penalised(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    prior: float = 0.5,
    form: str = "exact",
    single_snp_models: bool = False,
    ci_level: float = 0.95,
) -> HeterogeneityPenalisedEstimate:
    """Mode of the average over all sets of SNPs, sets with heterogeneity counting less.

    A set S of SNPs weighs prod_S prior / s_j times prod_not-S (1 - prior) times exp(-Q_S / 2), with
    Q_S Cochran's statistic and s_j = se_outcome / abs(beta_exposure); its part of the density is
    normal about its inverse-variance weighted mean with that mean's standard error times
    max(1, sqrt(Q_S / (n_S - 1))). The estimate is the mode of the density; the confidence set holds
    all effects whose log density is within chi2 / 2 of it. It needs a plurality of valid SNPs.

    1 - prior has no unit, 1 / s_j has that of 1 / effect: what is found depends on the unit of
    the exposure and of the outcome. Use standard deviations and log odds, or set `prior` to match.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        Associations per copy of the same allele; `beta_exposure` without zeros. `se_exposure` is
        not used.
    prior : float, default 0.5
        Probability that a SNP is valid, strictly between 0 and 1.
    form : {"exact", "product"}, default "exact"
        ``"exact"`` counts all 2^J sets, for J up to 30 (seconds to minutes where J is above 25 and
        the SNPs agree). ``"product"`` is another estimator, for any J: the product over SNPs of
        1 - prior + prior / s_j exp(-(theta - r_j)^2 / (2 s_j^2)). It is the same mixture with no
        widening by heterogeneity and sets weighed by another 1 / sqrt(sum 1/s_j^2), single SNPs and
        none included. Modes are close; intervals are from 10 SNPs on, and too wide with fewer.
    single_snp_models : bool, default False
        Count sets of one SNP, which have no heterogeneity that could be penalised. The published
        method does not. Only for the exact form.
    ci_level : float, default 0.95

    Returns
    -------
    HeterogeneityPenalisedEstimate
        `std_error` is that of a normal density with the curvature at the mode; the p-value is of
        twice the fall of the log density from the mode to zero (chi-squared, 1 df).

    Raises
    ------
    InvalidInputError
        Bad arrays, fewer than 2 SNPs, more than 30 for the exact form.

    References
    ----------
    Burgess, Zuber, Gkatzionis, Foley (2018), doi:10.1093/ije/dyy080.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.heterogeneity_penalised(
    ...     beta_exposure=[0.1, 0.2, 0.15, 0.1], se_exposure=[0.01, 0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07, -0.1], se_outcome=[0.02, 0.02, 0.02, 0.02],
    ... )
    >>> round(result.estimate, 2)
    0.52
    """
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=2,
        needs_se_exposure=False,
        nonzero=True,
    )
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    prior = check.scalar("prior", prior, above=0, below=1)
    check.choice("form", form, _FORMS)
    single = check.flag("single_snp_models", single_snp_models)
    ratio, error = data.by / data.bx, data.sy / np.abs(data.bx)
    n = len(ratio)
    models, limit = 0, -math.inf
    if form == "exact":
        if n > _MOST:
            raise check.fail(
                "beta_exposure", f'at most {_MOST} SNPs (form="product" takes any number)', f"{n}"
            )
        parts, _, models = _core.mixture.subset_mixture(
            ratio, error, prior=prior, smallest=1 if single else 2
        )
        weight, mean, width = parts[:, 0], parts[:, 1], np.sqrt(parts[:, 2])
        density = _mixture(weight, mean, width)
        height = np.log(weight / width)
        matters = height > height.max() - _NOTHING
        starts, widths = _thinned(mean[matters], width[matters])
    else:
        if single:
            raise check.fail("single_snp_models", 'False with form="product"', "True")
        density, limit = _product(ratio, error, prior), n * math.log1p(-prior)
        order = np.argsort(ratio, kind="stable")
        starts, widths = _climbed(density, *_thinned(ratio[order], error[order]))
    mode, top = highest(density, starts, widths)
    curvature = float(density(np.array([mode]))[2][0])
    intervals = high_set(density, starts, widths, top - chi_square_drop(level), limit)
    null = float(density(np.zeros(1))[0][0])
    return HeterogeneityPenalisedEstimate(
        method="heterogeneity_penalised",
        estimate=mode,
        std_error=1 / math.sqrt(-curvature) if curvature < 0 else math.nan,
        p_value=ratio_p_value(2 * (top - null)),
        n_snps=n,
        ci_level=level,
        **set_fields(intervals),
        form=form,
        prior=prior,
        n_models=models,
        messages=tuple(set_messages(intervals)),
    )


def _mixture(weight: Float, mean: Float, width: Float) -> LogDensity:
    """Logarithm of a mixture of normal densities, its slope and curvature."""
    height = np.log(weight / width)

    def density(x: Float) -> tuple[Float, Float, Float]:
        z = (mean - x[:, None]) / width
        value = height - z**2 / 2
        top = value.max(axis=1)
        share = np.exp(value - top[:, None])
        total = share.sum(axis=1)
        pull = z / width
        slope = (share * pull).sum(axis=1) / total
        curvature = (share * (pull**2 - width**-2)).sum(axis=1) / total - slope**2
        return top + np.log(total), slope, curvature

    return _in_blocks(density, len(mean))


def _product(ratio: Float, error: Float, prior: float) -> LogDensity:
    """Logarithm of the product form, its slope and curvature."""
    outside, inside = math.log1p(-prior), math.log(prior) - np.log(error)

    def density(x: Float) -> tuple[Float, Float, Float]:
        z = (ratio - x[:, None]) / error
        part = inside - z**2 / 2
        share, pull = expit(part - outside), z / error
        curvature = (share * ((1 - share) * pull**2 - error**-2)).sum(axis=1)
        return np.logaddexp(part, outside).sum(axis=1), (share * pull).sum(axis=1), curvature

    return _in_blocks(density, len(ratio))


def _in_blocks(density: LogDensity, width: int) -> LogDensity:
    """The same in bounded memory, where every point takes `width` numbers."""
    rows = max(1, _BLOCK // width)

    def in_blocks(x: Float) -> tuple[Float, Float, Float]:
        parts = [density(x[first : first + rows]) for first in range(0, len(x), rows)]
        value, slope, curvature = (np.concatenate(part) for part in zip(*parts, strict=True))
        return value, slope, curvature

    return in_blocks


def _thinned(means: Float, widths: Float) -> tuple[Float, Float]:
    """Of ascending means, those that are not within a quarter of their width from the last."""
    kept = [0]
    for i in range(1, len(means)):
        if means[i] - means[kept[-1]] >= _APART * widths[i]:
            kept.append(i)
    return means[kept], widths[kept]


def _climbed(density: LogDensity, starts: Float, widths: Float) -> tuple[Float, Float]:
    """Points near the modes uphill of others, and the widths of the density there."""
    x, step = starts, widths
    for _ in range(_CLIMB):
        value, slope, curvature = density(x)
        with np.errstate(divide="ignore"):
            newton = np.where(curvature < 0, -slope / curvature, np.sign(slope) * step)
        new = x + np.clip(newton, -step, step)
        better = density(new)[0] >= value
        x, step = np.where(better, new, x), np.where(better, step, step / 2)
    x = np.unique(x)
    return x, np.maximum(-density(x)[2], widths.max() ** -2) ** -0.5
