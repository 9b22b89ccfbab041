"""Maximum likelihood with the SNPs' own effects profiled out: `maximum_likelihood`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float
from mrfast.errors import ConvergenceError
from mrfast.summary._inputs import Associations, associations
from mrfast.summary._least_squares import Whitening, correlations
from mrfast.summary._likelihood_sets import SetEstimate, set_fields, set_messages
from mrfast.summary.estimate import (
    HETEROGENEOUS,
    Inference,
    heterogeneity_fields,
    ignored_heterogeneity,
    inference,
)

__all__ = ["INFINITE", "LikelihoodEstimate", "maximum_likelihood"]

INFINITE = (
    "the fit is best at an infinite effect: the associations with the exposure are not told from 0"
)
"""What `ConvergenceError` says of instruments that are too weak for a ratio."""

_WEAK = 10.0  # mean F below which the normal interval is not to be trusted
_WEAK_IF_DISPERSED = 30.0  # the same, where the ratios differ
_SMALLEST = 1e-14  # variance of an exposure error in turned coordinates, over the largest


@dataclass(frozen=True, kw_only=True, eq=False)
class LikelihoodEstimate(SetEstimate):
    """Result of `maximum_likelihood`; further fields as in `SetEstimate`.

    Attributes
    ----------
    q, q_df, q_p_value : float, int, float
        Cochran's Q at its least: minus twice the profile log-likelihood, without its constant.
    i2, residual_std_error : float
        As for `mrfast.ivw`.
    f_statistic : float
        Mean F of the SNPs; the joint strength over their number with `ld`.
    model : {"random", "fixed"}
    overlap : float
    interval : {"wald", "profile"}
    distribution : {"normal", "t"}
    minima : ndarray, shape (M, 2)
        Every local minimum of Q: effect and Q.
    """

    title = "maximum likelihood"

    q: float
    q_df: int
    q_p_value: float
    i2: float
    residual_std_error: float
    f_statistic: float
    model: str
    overlap: float
    interval: str
    distribution: str
    minima: Float

    def _more_rows(self) -> list[tuple[str, str]]:
        rows = [("model", f"{self.model} effects, {self.interval} interval")]
        if self.q_df:
            text = f"Q = {self.q:.4g} on {self.q_df} df, p = {self.q_p_value:.3g}, "
            rows.append(("heterogeneity", text + f"I2 = {100 * self.i2:.0f}%"))
        return [*super()._more_rows(), *rows, ("mean F", f"{self.f_statistic:.4g}")]


def maximum_likelihood(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    model: str = "random",
    overlap: float = 0.0,
    ld: Any = None,
    snps: Sequence[object] | None = None,
    ld_snps: Sequence[object] | None = None,
    interval: str = "wald",
    distribution: str = "normal",
    ci_level: float = 0.95,
) -> LikelihoodEstimate:
    """Maximum-likelihood estimate, errors of the exposure associations included.

    bx ~ N(g, sx^2), by ~ N(theta g, sy^2), with an effect g of its own for every SNP. At the best g
    minus twice the log-likelihood is Q(theta) = sum (by - theta bx)^2 / (sy^2 + theta^2 sx^2
    - 2 theta overlap sx sy), whose least value over all theta is found exactly. Unlike
    inverse-variance weighting it is not drawn towards zero by weak instruments. It has no
    over-dispersion in its weights: balanced pleiotropy and weak instruments together draw it away
    from zero, which `mrfast.raps` and `mrfast.debiased_ivw` avoid.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
    model : {"random", "fixed"}, default "random"
        ``"random"``: the standard error is multiplied by the root of Q/(J - 1), taken as at least
        1. ``"fixed"`` has type I errors of 40 to 65% under balanced pleiotropy.
    overlap : float, default 0
        Correlation of the errors of the two associations of a SNP where samples overlap, above -1
        and below 1. Not together with `ld`.
    ld : DataFrame or array_like, shape (M, M), optional
        Correlations between SNPs, as in `mrfast.ivw`, the same in both samples.
    snps, ld_snps : sequence of str, optional
        Identifiers that match SNPs to the rows of `ld`.
    interval : {"wald", "profile"}, default "wald"
        ``"wald"``: estimate and standard error, from the curvature of Q. ``"profile"``: where Q is
        at most the quantile higher than at its least, and the p-value of the likelihood ratio. It
        holds with weak instruments too, where it may be unbounded or fall into pieces (for one
        SNP it is Fieller's interval).
    distribution : {"normal", "t"}, default "normal"
        ``"t"`` has J - 1 degrees of freedom.
    ci_level : float, default 0.95

    Returns
    -------
    LikelihoodEstimate

    Raises
    ------
    InvalidInputError
        Bad arrays; options that do not go together; `ld` that is not a correlation matrix.
    ConvergenceError
        The likelihood is highest at an infinite effect.

    References
    ----------
    Burgess, Butterworth, Thompson (2013), doi:10.1002/gepi.21758; profile likelihood: Zhao, Wang,
    Hemani, Bowden, Small (2020), doi:10.1214/19-AOS1866, equation 3.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.maximum_likelihood(
    ...     beta_exposure=[0.1, 0.2, 0.15], se_exposure=[0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07], se_outcome=[0.02, 0.02, 0.02],
    ... )
    >>> round(result.estimate, 4)
    0.5174
    """
    check.choice("model", model, ("random", "fixed"))
    check.choice("interval", interval, ("wald", "profile"))
    check.choice("distribution", distribution, ("normal", "t"))
    overlap = check.scalar("overlap", overlap, above=-1, below=1)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    data = associations(beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=1)
    n = len(data.bx)
    if distribution == "t" and n == 1:
        raise check.fail("distribution", '"normal" for a single SNP', "'t'")
    if ld is None:
        f = _core.summary.mean_square_ratio(data.bx, data.sx)
    else:
        if overlap:
            raise check.fail("overlap", "0 together with ld", f"{overlap!r}")
        data, f = _independent(data, correlations(ld, snps, ld_snps, n))
    law = Inference(distribution, n - 1, level)
    theta, half_q, minima, _ = _profile(data, overlap, 0.0)
    found = heterogeneity_fields(2 * half_q, n - 1)
    spread = max(1.0, found["residual_std_error"]) if model == "random" and n > 1 else 1.0
    error = spread / math.sqrt(_information(data, overlap, theta))
    summary = inference(theta, error, law, level)
    pieces = np.array([[summary["ci_lower"], summary["ci_upper"]]])
    messages: list[str] = []
    if interval == "profile":
        pieces = _profile(data, overlap, (law.reach * spread) ** 2 / 2)[3]
        at_zero = float(((data.by / data.sy) ** 2).sum()) - 2 * half_q
        ratio = math.sqrt(max(at_zero, 0.0)) / spread
        summary["p_value"] = law.p_value(ratio)
    messages += set_messages(pieces)
    minima[:, 1] *= 2
    if (minima[:, 1] < 2 * half_q + (law.reach * spread) ** 2).sum() > 1:
        messages.append("other effects fit nearly as well: Q has several minima (see minima)")
    if model == "fixed":
        messages += ignored_heterogeneity(found["q_p_value"], "model='fixed'")
    if f < _WEAK_IF_DISPERSED and found["q_p_value"] < HETEROGENEOUS:
        messages.append(
            f"the ratios of the SNPs differ and mean F is {f:.3g}: pleiotropy and weak instruments "
            "together draw the estimate away from zero; see raps and debiased_ivw"
        )
    if f < _WEAK and interval == "wald":
        messages.append(
            f"mean F is {f:.3g}: with weak instruments the normal interval may miss the effect too "
            "often; interval='profile' holds"
        )
    return LikelihoodEstimate(
        method="maximum_likelihood",
        n_snps=n,
        f_statistic=f,
        model=model,
        overlap=overlap,
        interval=interval,
        distribution=distribution,
        minima=minima,
        messages=tuple(messages),
        **found,
        **(summary | set_fields(pieces)),
    )


def _profile(data: Associations, overlap: float, rise: float) -> tuple[float, float, Float, Float]:
    """Effect and Q/2 at its least, all minima, and where it is at most `rise` higher."""
    found = _core.likelihood.profile(
        *data, overlap=overlap, tau2=0.0, loss="l2", constant=0.0, rise=rise
    )
    if not math.isfinite(found[0]):
        raise ConvergenceError(INFINITE)
    return found


def _information(data: Associations, overlap: float, theta: float) -> float:
    """Half the second derivative of Q."""
    bx, sx, by, sy = data
    e = by - theta * bx
    v = sy**2 + theta * (theta * sx**2 - 2 * overlap * sx * sy)
    dv = 2 * (theta * sx**2 - overlap * sx * sy)
    share = e / v
    terms = bx**2 / v + share * (2 * bx * dv / v + share * (dv**2 / v - sx**2))
    return float(terms.sum())


def _independent(data: Associations, r: Float) -> tuple[Associations, float]:
    """Coordinates in which the SNPs are independent whatever theta is, and the mean F.

    Both error matrices, sy sy' r and sx sx' r, are made diagonal at once.
    """
    whiten = Whitening(r)
    bx, by = whiten(data.bx, data.sy), whiten(data.by, data.sy)
    carried = whiten(np.diag(data.sx), data.sy)
    matrix = np.einsum("ik,lk->il", np.einsum("ij,jk->ik", carried, r), carried)
    values, vectors = symmetric_eigen((matrix + matrix.T) / 2)
    turned = Associations(
        np.ascontiguousarray(np.einsum("jk,j->k", vectors, bx)),
        np.sqrt(np.maximum(values, _SMALLEST * values[-1])),
        np.ascontiguousarray(np.einsum("jk,j->k", vectors, by)),
        np.ones(len(values)),
    )
    return turned, float((whiten(data.bx, data.sx) ** 2).mean())
