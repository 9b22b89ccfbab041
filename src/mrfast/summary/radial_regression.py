"""Radial regression: `radial`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._inputs import Associations, associations
from mrfast.summary.estimate import (
    Inference,
    RegressionEstimate,
    heterogeneity_fields,
    inference,
    strength_messages,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

__all__ = ["RadialEstimate", "radial"]

_TURNS = 200
_TOLERANCE = 1e-13
_HALVINGS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class RadialEstimate(RegressionEstimate):
    """Result of `radial`; further fields as in `RegressionEstimate`.

    Attributes
    ----------
    regression : {"ivw", "egger"}
    intercept, intercept_std_error, intercept_p_value : float
        Of radial Egger regression, on the scale of ratio over its standard deviation; NaN
        otherwise.
    ratio, ratio_weight : ndarray, shape (J,)
        Ratios by/bx and their weights: the plot's axes are ``ratio * sqrt(ratio_weight)`` and
        ``sqrt(ratio_weight)``.
    contributions : ndarray, shape (J,)
        Each SNP's part of Q.
    contribution_p_values : ndarray, shape (J,)
        Of each part, as chi-squared with one degree of freedom.
    outliers : tuple of int
        Positions of the SNPs whose p-value, corrected as asked for, is at most `alpha`.
    alpha : float
    correction : {"bonferroni", "none"}
    """

    title = "radial regression"

    regression: str
    intercept: float
    intercept_std_error: float
    intercept_p_value: float
    ratio: Float
    ratio_weight: Float
    contributions: Float
    contribution_p_values: Float
    outliers: tuple[int, ...]
    alpha: float
    correction: str

    def snps_frame(self) -> pd.DataFrame:
        """One row a SNP, in the order of the data."""
        import pandas as pd

        frame = pd.DataFrame(
            {
                "ratio": self.ratio,
                "ratio_weight": self.ratio_weight,
                "contribution": self.contributions,
                "p_value": self.contribution_p_values,
            }
        )
        frame["outlier"] = frame.index.isin(self.outliers)
        return frame

    def plot(self, snps: Sequence[str] | None = None) -> Any:
        """Radial plot with a scale of ratios; outliers are marked, by the names in `snps`."""
        from mrfast.plots.mr_panel import radial_figure

        return radial_figure(self, snps)

    def _more_rows(self) -> list[tuple[str, str]]:
        rows = super()._more_rows()
        if self.regression == "egger":
            text = (
                f"{self.intercept:.4g} (standard error {self.intercept_std_error:.3g}), "
                f"p = {self.intercept_p_value:.3g}"
            )
            rows.insert(0, ("intercept", text))
        return [*rows, ("outliers", f"{len(self.outliers)} ({_named(self)})")]


def _named(result: RadialEstimate) -> str:
    return f"alpha {result.alpha:g}, " + (
        "Bonferroni" if result.correction == "bonferroni" else "not corrected"
    )


def radial(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    regression: str = "ivw",
    weights: str = "modified",
    alpha: float = 0.05,
    correction: str = "bonferroni",
    ci_level: float = 0.95,
) -> RadialEstimate:
    """Radial regression: ratios times the roots of their weights on the roots of the weights.

    Through the origin this is inverse-variance weighting; its residuals are the SNPs' parts of
    Cochran's Q, which tell outliers. With an intercept it is radial Egger regression, which does
    not depend on how alleles are turned.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        At least 2 SNPs, 3 for ``"egger"``. `se_exposure` may be missing with first-order weights.
    regression : {"ivw", "egger"}, default "ivw"
    weights : {"modified", "first_order", "second_order"}, default "modified"
        Inverse variances of the ratios: (sy^2 + b^2 sx^2)/bx^2 at the estimate b itself, found by
        iteration (modified second-order weights); sy^2/bx^2, which leaves the error of the
        exposure associations out, so that Q is too large where the effect is large and SNPs are
        weak; or sy^2/bx^2 + by^2 sx^2/bx^4, which makes Q too small.
    alpha : float, default 0.05
        Level of the outlier test.
    correction : {"bonferroni", "none"}, default "bonferroni"
        Without it, 5% of valid SNPs are called outliers at alpha 0.05.
    ci_level : float, default 0.95

    Returns
    -------
    RadialEstimate
        Multiplicative random effects with the residual standard error taken as at least 1; the
        normal law through the origin, Student's with J - 2 degrees of freedom for Egger.

    Raises
    ------
    InvalidInputError
        Bad arrays, a zero beta_exposure, too few SNPs, weights of one size (Egger).

    References
    ----------
    Bowden et al. (2018), doi:10.1093/ije/dyy101; Bowden et al. (2019), doi:10.1093/ije/dyy258
    (modified weights).

    Examples
    --------
    >>> import mrfast
    >>> found = mrfast.radial(
    ...     beta_exposure=[0.1, 0.2, 0.15, 0.3], se_exposure=[0.01] * 4,
    ...     beta_outcome=[0.05, 0.11, 0.20, 0.16], se_outcome=[0.02] * 4,
    ... )
    >>> found.outliers
    (2,)
    """
    check.choice("regression", regression, ("ivw", "egger"))
    check.choice("weights", weights, ("modified", "first_order", "second_order"))
    check.choice("correction", correction, ("bonferroni", "none"))
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    parameters = 1 if regression == "ivw" else 2
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=parameters + 1,
        needs_se_exposure=weights != "first_order",
        nonzero=True,
    )
    fit = _through_origin if regression == "ivw" else _with_intercept
    weight = _weights(data, weights, fit)
    ratio, n = data.by / data.bx, len(data.bx)
    found = fit(ratio, weight)
    q = float((found.residual**2).sum())
    fields = heterogeneity_fields(q, n - parameters)
    scale_up = max(1.0, fields["residual_std_error"])
    distribution = "normal" if regression == "ivw" else "t"
    law = Inference(distribution, n - parameters, level)
    at_zero = inference(found.intercept, scale_up * found.intercept_error, law, level)
    p_values = 2 * ndtr(-np.abs(found.residual))
    tests = n if correction == "bonferroni" else 1
    strength = (data.bx / data.sx) ** 2
    f = float(strength.mean())
    return RadialEstimate(
        method=f"radial_{regression}",
        n_snps=n,
        f_statistic=f,
        model="random",
        weights=weights,
        distribution=distribution,
        regression=regression,
        intercept=found.intercept,
        intercept_std_error=at_zero["std_error"],
        intercept_p_value=at_zero["p_value"],
        ratio=ratio,
        ratio_weight=weight,
        contributions=found.residual**2,
        contribution_p_values=p_values,
        outliers=tuple(np.flatnonzero(p_values * tests <= alpha).tolist()),
        alpha=alpha,
        correction=correction,
        messages=tuple(strength_messages(f)),
        **fields,
        **inference(found.slope, scale_up * found.error, law, level),
    )


@dataclass(frozen=True)
class _Fit:
    slope: float
    error: float  # with fixed effects
    residual: Float
    intercept: float = math.nan
    intercept_error: float = math.nan


def _through_origin(ratio: Float, weight: Float) -> _Fit:
    total = float(weight.sum())
    slope = float((weight * ratio).sum()) / total
    return _Fit(slope, total**-0.5, np.sqrt(weight) * (ratio - slope))


def _with_intercept(ratio: Float, weight: Float) -> _Fit:
    x = np.sqrt(weight)
    y = ratio * x
    n, centre = len(x), float(x.mean())
    spread = x - centre
    information = float((spread**2).sum())
    if not information > 1e-20 * n * centre**2:
        raise check.fail("beta_exposure", "ratios whose weights differ between SNPs", "equal ones")
    slope = float((spread * y).sum()) / information
    intercept = float(y.mean()) - slope * centre
    return _Fit(
        slope,
        information**-0.5,
        y - intercept - slope * x,
        intercept,
        math.sqrt(1 / n + centre**2 / information),
    )


def _weights(data: Associations, weights: str, fit: Callable[[Float, Float], _Fit]) -> Float:
    """Inverse variances of the ratios."""
    x2 = data.bx**2
    if weights == "first_order":
        return np.asarray(x2 / data.sy**2)
    ratio = data.by / data.bx
    if weights == "second_order":
        return np.asarray(x2 / (data.sy**2 + (ratio * data.sx) ** 2))

    def at(slope: float) -> Float:
        return np.asarray(x2 / (data.sy**2 + (slope * data.sx) ** 2))

    slope = 0.0
    for _ in range(_TURNS):
        previous, slope = slope, fit(ratio, at(slope)).slope
        if abs(slope - previous) <= _TOLERANCE * max(abs(slope), abs(previous)):
            return at(slope)
    # No fixed point from here by iteration: the sign of the step brackets one.
    return at(_bisected(lambda b: fit(ratio, at(b)).slope - b, previous, slope))


def _bisected(step: Callable[[float], float], low: float, high: float) -> float:
    low, high = min(low, high), max(low, high)
    reach = high - low
    while not (step(low) >= 0 >= step(high)):
        low, high, reach = low - reach, high + reach, 2 * reach
        if not math.isfinite(reach) or reach > 1e12 * max(1.0, abs(low)):
            break
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if step(middle) >= 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
