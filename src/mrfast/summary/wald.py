"""The ratio of one SNP: `wald_ratio`."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast.summary._inputs import WEIGHTS, associations, outcome_error
from mrfast.summary.estimate import Inference, MREstimate, inference, strength_messages

__all__ = ["WaldEstimate", "wald_ratio"]


@dataclass(frozen=True, kw_only=True)
class WaldEstimate(MREstimate):
    """Result of `wald_ratio`.

    Attributes
    ----------
    f_statistic : float
        (beta_exposure / se_exposure)^2; NaN where `se_exposure` was not given.
    weights : {"first_order", "second_order", "simple"}
        As asked for.
    """

    title = "Wald ratio"

    f_statistic: float
    weights: str


def wald_ratio(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    weights: str = "first_order",
    ci_level: float = 0.95,
) -> WaldEstimate:
    """Estimate of a single SNP, by/bx.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : float or array_like, shape (1,)
        `se_exposure` is needed for the second-order error.
    weights : {"first_order", "second_order", "simple"}, default "first_order"
        Variance of the ratio: sy^2/bx^2, or with by^2 sx^2/bx^4 added. ``"simple"`` is the same as
        ``"first_order"`` for one SNP.
    ci_level : float, default 0.95

    Returns
    -------
    WaldEstimate

    Raises
    ------
    InvalidInputError
        Bad numbers, a zero beta_exposure, or more than one SNP.

    References
    ----------
    Lawlor, Harbord, Sterne, Timpson, Davey Smith (2008), doi:10.1002/sim.3034.

    Examples
    --------
    >>> import mrfast
    >>> ratio = mrfast.wald_ratio(
    ...     beta_exposure=0.1, se_exposure=0.01, beta_outcome=0.05, se_outcome=0.02
    ... )
    >>> round(ratio.estimate, 3), round(ratio.std_error, 3)
    (0.5, 0.2)
    """
    check.choice("weights", weights, WEIGHTS)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    second = weights == "second_order"
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=1,
        needs_se_exposure=second,
        nonzero=True,
    )
    if len(data.bx) != 1:
        raise check.fail("beta_exposure", "one SNP (mrfast.ivw takes several)", f"{len(data.bx)}")
    x = float(data.bx[0])
    f = float((data.bx[0] / data.sx[0]) ** 2)
    error = float(outcome_error(data, weights)[0]) / abs(x)
    return WaldEstimate(
        method="wald_ratio",
        n_snps=1,
        f_statistic=f,
        weights=weights,
        messages=tuple(strength_messages(f)),
        **inference(float(data.by[0]) / x, error, Inference("normal", 0, level), level),
    )
