"""What inverse-variance weighting and Egger regression share: options, penalties, robust fits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from mrfast import _core
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._inputs import WEIGHTS, Associations

PENALTY = 100.0  # weights fall where the p-value of a SNP's heterogeneity is below 1 / PENALTY
MOST_SUBSETS = 2_000  # elemental subsets that a robust fit starts from
FEW_FOR_ROBUST = 10  # SNPs for one exposure, below which a reader should know


class Options(NamedTuple):
    """Checked options of a regression."""

    model: str
    weights: str
    distribution: str
    robust: bool
    penalised: bool
    ci_level: float


def regression_options(
    *,
    model: str,
    weights: str,
    distribution: str,
    robust: bool,
    penalised: bool,
    ci_level: float,
    has_ld: bool,
    models: tuple[str, ...] = ("random", "fixed"),
) -> Options:
    """Check the options, and that they go together."""
    check.choice("model", model, models)
    check.choice("weights", weights, WEIGHTS)
    check.choice("distribution", distribution, ("normal", "t"))
    robust, penalised = check.flag("robust", robust), check.flag("penalised", penalised)
    if weights == "simple" and (robust or penalised or has_ld):
        other = "robust" if robust else "penalised" if penalised else "ld"
        raise check.fail("weights", f'"first_order" or "second_order" with {other}', "'simple'")
    if has_ld and (robust or penalised):
        raise check.fail("robust" if robust else "penalised", "False with ld", "True")
    if model == "fixed" and (robust or penalised):
        raise check.fail(
            "model",
            f'"random" with {"robust" if robust else "penalised"}, whose purpose is heterogeneity',
            "'fixed'",
        )
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    return Options(model, weights, distribution, robust, penalised, level)


def penalised_error(s: Float, squares: Float) -> Float:
    """Standard deviations for weights 1/s^2 times min(1, PENALTY p), p of each SNP's square."""
    factor = np.minimum(1.0, PENALTY * 2 * ndtr(-np.sqrt(squares)))
    if not factor.any():
        raise check.fail("penalised", "False for these SNPs", "True: no SNP keeps any weight")
    with np.errstate(divide="ignore"):
        return np.asarray(s / np.sqrt(factor))


def ratio_squares(data: Associations, s: Float) -> Float:
    """(ratio - median ratio)^2 over its variance, one a SNP."""
    ratio = data.by / data.bx
    return np.asarray(((ratio - np.median(ratio)) * data.bx / s) ** 2)


class RobustLine(NamedTuple):
    """A robust fit: coefficients, their covariance, the scale of the residuals."""

    coefficients: Float
    covariance: Float
    scale: float

    @property
    def variances(self) -> Float:
        """Of the coefficients."""
        return np.asarray(self.covariance.diagonal())


def robust_fit(columns: Float, y: Float, s: Float) -> RobustLine:
    """MM-estimate with weights 1/s^2; see `_core.summary.fit_robust`."""
    kept = np.isfinite(s)
    s = s[kept]
    design = np.ascontiguousarray(columns[kept] / s[:, None])
    valid, coefficients, covariance, scale = _core.summary.fit_robust(
        design, np.ascontiguousarray(y[kept] / s), MOST_SUBSETS
    )
    if not valid:
        raise check.fail(
            "robust",
            "False for these SNPs",
            "True: half of them or more lie exactly on one line, or too few differ",
        )
    return RobustLine(coefficients, covariance, scale)


def robust_messages(n: int) -> list[str]:
    """What to say of a robust fit to n SNPs."""
    if n < FEW_FOR_ROBUST:
        return [f"{n} SNPs are few for a robust fit: its error is uncertain"]
    return []


def unweighted_variances(columns: Float, sy: Float) -> Float:
    """Variances of least-squares coefficients of equal weights, with errors `sy` of the outcome."""
    gram = np.einsum("jp,jq->pq", columns, columns)
    inverse = np.linalg.inv(gram)
    half = np.einsum("pq,jq->jp", inverse, columns) * sy[:, None]
    return np.asarray((half**2).sum(axis=0))
