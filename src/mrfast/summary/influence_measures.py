"""How much the estimate hangs on single SNPs: `influence`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import fdtri, stdtr

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary import _deletion
from mrfast.summary._data_sets import one_data_set
from mrfast.summary._inputs import outcome_error
from mrfast.summary.estimate import plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Influence", "influence"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Influence:
    """Result of `influence`; arrays have the shape (J,), in the order of the data.

    Residuals and distances are NaN where the fit leaves no residuals.

    Attributes
    ----------
    method : {"ivw", "egger"}
        Regression that the measures belong to.
    snps : tuple of str, length J
    hat_values : ndarray
        Leverage of each SNP: its share of its own fitted value, between 0 and 1.
    standardised_residuals : ndarray
        Residual over its standard deviation, with the dispersion of all SNPs; for the alleles
        that raise the exposure.
    studentised_residuals : ndarray
        The same with the dispersion of the other SNPs: Student's t if the SNP belongs to them.
    p_values : ndarray
        Two-sided, of the studentised residuals, for each SNP alone.
    cooks_distance : ndarray
        Shift of all fitted values without the SNP, squared, over p times the dispersion.
    dffits : ndarray
        Shift of the SNP's own fitted value, in standard errors.
    estimate_change : ndarray
        The estimate without the SNP minus that of all.
    cooks_threshold, hat_threshold : float
        Limits above which a SNP is marked; twice the mean leverage for the hat values.
    influential : tuple of int
        Positions of the SNPs whose Cook's distance is above its limit.
    outliers : tuple of int
        Positions of the SNPs whose p-value times J is at most `alpha`.
    alpha : float
    n_snps : int
    """

    method: str
    snps: tuple[str, ...]
    hat_values: Float
    standardised_residuals: Float
    studentised_residuals: Float
    p_values: Float
    cooks_distance: Float
    dffits: Float
    estimate_change: Float
    cooks_threshold: float
    hat_threshold: float
    influential: tuple[int, ...]
    outliers: tuple[int, ...]
    alpha: float
    n_snps: int

    def to_frame(self) -> pd.DataFrame:
        """One row a SNP."""
        import pandas as pd

        names = (
            "hat_values",
            "standardised_residuals",
            "studentised_residuals",
            "p_values",
            "cooks_distance",
            "dffits",
            "estimate_change",
        )
        frame = pd.DataFrame(
            {
                "snp": self.snps,
                "method": self.method,
                **{name.removesuffix("s") if name != "dffits" else name: getattr(self, name)
                   for name in names},
            }
        )  # fmt: skip
        frame["high_leverage"] = self.hat_values > self.hat_threshold
        frame["influential"] = frame.index.isin(self.influential)
        frame["outlier"] = frame.index.isin(self.outliers)
        return frame

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python numbers, strings and lists."""
        return dict(plain(self))

    def __str__(self) -> str:
        def named(places: tuple[int, ...]) -> str:
            return check.listed(self.snps[i] for i in places) or "none"

        largest = "none, as the fit leaves no residuals"
        if not np.isnan(self.cooks_distance).all():
            i = int(np.nanargmax(self.cooks_distance))
            largest = f"{self.cooks_distance[i]:.3g} ({self.snps[i]})"
        return "\n".join(
            [
                f"influence of single SNPs on {self.method} ({self.n_snps} SNPs)",
                f"  largest Cook's distance: {largest}, limit {self.cooks_threshold:.3g}",
                f"  influential: {named(self.influential)}",
                f"  outliers (studentised residual, corrected p at most {self.alpha:g}): "
                f"{named(self.outliers)}",
            ]
        )


def influence(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    method: str = "ivw",
    weights: str = "first_order",
    cooks_threshold: str | float = "4/n",
    alpha: float = 0.05,
    snps: Sequence[object] | None = None,
) -> Influence:
    """Leverage, studentised residuals and Cook's distances of inverse-variance weighting or Egger.

    Parameters
    ----------
    data : Harmonised or DataFrame, optional
        One exposure and one outcome, as in `mrfast.mr`.
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        Instead of `data`. At least 3 SNPs, 4 for Egger regression. `se_exposure` is needed for
        second-order weights only.
    method : {"ivw", "egger"}, default "ivw"
    weights : {"first_order", "second_order"}, default "first_order"
    cooks_threshold : {"4/n", "f_median"} or float, default "4/n"
        4/J; the median of the F law with p and J - p degrees of freedom, near 1 (Cook's own
        proposal, which marks few SNPs); or a number.
    alpha : float, default 0.05
        For `outliers`, after Bonferroni's correction.
    snps : sequence of str, length J, optional
        Names; otherwise those of `data`, or positions.

    Returns
    -------
    Influence

    Notes
    -----
    A SNP of large influence need not be invalid: a strong one has much leverage. Where invalid
    SNPs are many and of one sign, they draw the fit to themselves and none stands out.

    Raises
    ------
    InvalidInputError
        Bad arrays, too few SNPs, several pairs of traits, associations with the exposure of one
        size (Egger).

    References
    ----------
    Cook (1977), doi:10.1080/00401706.1977.10489493; Corbin et al. (2016),
    doi:10.2337/db16-0418 (in Mendelian randomization).

    Examples
    --------
    >>> import mrfast
    >>> found = mrfast.influence(
    ...     beta_exposure=[0.1, 0.2, 0.15, 0.3], beta_outcome=[0.05, 0.11, 0.01, 0.16],
    ...     se_outcome=[0.02, 0.02, 0.02, 0.02],
    ... )
    >>> found.cooks_distance.round(3).tolist()
    [0.0, 0.076, 0.48, 0.686]
    """
    check.choice("method", method, ("ivw", "egger"))
    check.choice("weights", weights, ("first_order", "second_order"))
    alpha = check.scalar("alpha", alpha, above=0, below=1)
    entry = one_data_set(data, (beta_exposure, se_exposure, beta_outcome, se_outcome))
    p = 1 if method == "ivw" else 2
    second = weights == "second_order"
    if second and entry.arrays[1] is None:
        raise check.fail("se_exposure", "standard errors of beta_exposure", "None")
    checked = entry.checked(p + 2, nonzero=second)
    n = len(checked.bx)
    s = outcome_error(checked, weights)
    if method == "ivw":
        fit: _deletion.Deletion | None = _deletion.through_origin(checked.bx, checked.by, s)
    else:
        fit = _deletion.line(checked.bx, checked.by, s)
    if fit is None:
        raise check.fail(
            "beta_exposure", "associations that differ in size between SNPs", "equal ones"
        )
    limit = _limit(cooks_threshold, n, p)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sqrt(1 - fit.leverage)
        internal = fit.residual / (left * np.sqrt(fit.q / (n - p)))
        external = fit.residual / (left * np.sqrt(fit.qs / (n - p - 1)))
        p_values = 2 * stdtr(n - p - 1, -np.abs(external))
        cooks = fit.cooks_distance()
        dffits = external * np.sqrt(fit.leverage) / left
    return Influence(
        method=method,
        snps=entry.snp_names(snps, n),
        hat_values=fit.leverage,
        standardised_residuals=internal,
        studentised_residuals=external,
        p_values=p_values,
        cooks_distance=cooks,
        dffits=dffits,
        estimate_change=fit.slopes - fit.slope,
        cooks_threshold=limit,
        hat_threshold=2 * p / n,
        influential=tuple(np.flatnonzero(cooks > limit).tolist()),
        outliers=tuple(np.flatnonzero(p_values * n <= alpha).tolist()),
        alpha=alpha,
        n_snps=n,
    )


def _limit(threshold: str | float, n: int, p: int) -> float:
    if isinstance(threshold, str):
        check.choice("cooks_threshold", threshold, ("4/n", "f_median"))
        return 4 / n if threshold == "4/n" else float(fdtri(p, n - p, 0.5))
    return check.scalar("cooks_threshold", threshold, above=0)
