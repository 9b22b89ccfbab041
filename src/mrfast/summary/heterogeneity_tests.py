"""Whether the SNPs agree on one effect: `heterogeneity`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from mrfast import _core
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._inputs import WEIGHTS, Associations, associations, outcome_error
from mrfast.summary.estimate import heterogeneity_fields, plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Heterogeneity", "HeterogeneityTest", "heterogeneity"]


@dataclass(frozen=True, kw_only=True)
class HeterogeneityTest:
    """Cochran's Q about one fit.

    Attributes
    ----------
    method : {"ivw", "egger"}
    q, q_df, q_p_value : float, int, float
    i2 : float
        Share of Q beyond what chance gives, 0 to 1; NaN without degrees of freedom.
    """

    method: str
    q: float
    q_df: int
    q_p_value: float
    i2: float


@dataclass(frozen=True, kw_only=True)
class Heterogeneity:
    """Result of `heterogeneity`.

    Attributes
    ----------
    ivw : HeterogeneityTest
        About the inverse-variance weighted estimate.
    egger : HeterogeneityTest or None
        About Egger regression (Ruecker's Q'); None below 3 SNPs, or where all associations with
        the exposure have one size.
    contributions : tuple of float, length J
        Each SNP's part of Q about the inverse-variance weighted estimate.
    contribution_p_values : tuple of float, length J
        Of each part, as chi-squared with one degree of freedom, not corrected for their number.
    n_snps : int
    weights : str
    """

    ivw: HeterogeneityTest
    egger: HeterogeneityTest | None
    contributions: tuple[float, ...]
    contribution_p_values: tuple[float, ...]
    n_snps: int
    weights: str

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python numbers and lists."""
        return dict(plain(self))

    def to_frame(self) -> pd.DataFrame:
        """One row a fit."""
        import pandas as pd

        return pd.DataFrame([vars(test) for test in (self.ivw, self.egger) if test is not None])

    def __str__(self) -> str:
        lines = [f"heterogeneity ({self.n_snps} SNPs)"]
        lines += [
            f"  {test.method + ':':<7} Q = {test.q:.4g} on {test.q_df} df, "
            f"p = {test.q_p_value:.3g}, I2 = {100 * test.i2:.0f}%"
            for test in (self.ivw, self.egger)
            if test is not None
        ]
        return "\n".join(lines)


def heterogeneity(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    weights: str = "first_order",
) -> Heterogeneity:
    """Cochran's Q about the inverse-variance weighted estimate and about Egger regression.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        At least 2 SNPs. `se_exposure` is needed for second-order weights.
    weights : {"first_order", "second_order", "simple"}, default "first_order"
        First-order weights leave the errors of the exposure associations out: Q is then too large
        where the effect is large and the SNPs are weak. With ``"simple"`` the fits weigh all SNPs
        alike, residuals still count by their errors, and Q is a little above its law.

    Returns
    -------
    Heterogeneity

    Raises
    ------
    InvalidInputError
        Bad arrays or fewer than 2 SNPs.

    References
    ----------
    Bowden et al. (2017), doi:10.1002/sim.7221; Greco et al. (2015), doi:10.1002/sim.6522.

    Examples
    --------
    >>> import mrfast
    >>> tests = mrfast.heterogeneity(
    ...     beta_exposure=[0.1, 0.2, 0.15], beta_outcome=[0.05, 0.11, 0.01],
    ...     se_outcome=[0.02, 0.02, 0.02],
    ... )
    >>> round(tests.ivw.q, 3), tests.ivw.q_df
    (8.741, 2)
    """
    check.choice("weights", weights, WEIGHTS)
    second = weights == "second_order"
    data = associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        minimum=2,
        needs_se_exposure=second,
        nonzero=second,
    )
    s, n = outcome_error(data, weights), len(data.bx)
    scale = np.ones(n) if weights == "simple" else s
    slope, *_ = _core.summary.fit_origin(data.bx, data.by, scale)
    parts = ((data.by - slope * data.bx) / s) ** 2
    return Heterogeneity(
        ivw=_test("ivw", float(parts.sum()), n - 1),
        egger=_about_line(data, s, scale),
        contributions=tuple(parts.tolist()),
        contribution_p_values=tuple((2 * ndtr(-np.sqrt(parts))).tolist()),
        n_snps=n,
        weights=weights,
    )


def _about_line(data: Associations, s: Float, scale: Float) -> HeterogeneityTest | None:
    """Q about the line with weights 1/scale^2; errors s."""
    if len(s) < 3:
        return None
    valid, slope, intercept, *_ = _core.summary.fit_line(data.bx, data.by, scale)
    turned = np.where(data.bx < 0, -data.by, data.by)
    parts = ((turned - intercept - slope * np.abs(data.bx)) / s) ** 2
    return _test("egger", float(parts.sum()), len(s) - 2) if valid else None


def _test(method: str, q: float, df: int) -> HeterogeneityTest:
    found = heterogeneity_fields(q, df)
    del found["residual_std_error"]
    return HeterogeneityTest(method=method, **found)
