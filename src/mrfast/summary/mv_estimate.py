"""What every multivariable method returns: `MVEstimate`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mrfast._validation import Float
from mrfast.summary.estimate import Inference, inference, plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MVEstimate", "MVRegressionEstimate", "mv_inference"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MVEstimate:
    """Direct effects of K exposures on the outcome: each with the others held fixed.

    Attributes
    ----------
    method : str
        Name in the registry.
    exposures : tuple of str
    estimate, std_error : ndarray, shape (K,)
        Per unit of each exposure.
    ci_lower, ci_upper : ndarray, shape (K,)
        Limits at `ci_level`.
    p_value : ndarray, shape (K,)
        Two-sided, of no direct effect.
    n_snps : int
    ci_level : float
    messages : tuple of str
        What a reader should know.
    """

    title: ClassVar[str] = ""
    per_exposure: ClassVar[tuple[str, ...]] = ()
    """Further fields of shape (K,): columns of `to_frame`."""

    method: str
    exposures: tuple[str, ...]
    estimate: Float
    std_error: Float
    ci_lower: Float
    ci_upper: Float
    p_value: Float
    n_snps: int
    ci_level: float
    messages: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python numbers, strings, lists and dictionaries."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """One row an exposure; the fields that are arrays over the exposures or single values."""
        import pandas as pd

        columns: dict[str, Any] = {"method": self.method, "exposure": list(self.exposures)}
        names = ("estimate", "std_error", "ci_lower", "ci_upper", "p_value", *self.per_exposure)
        columns |= {name: getattr(self, name) for name in names}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in columns and isinstance(value, (str, int, float)):
                columns[field.name] = value
        columns["messages"] = "; ".join(self.messages)
        return pd.DataFrame(columns)

    def __str__(self) -> str:
        k = len(self.exposures)
        head = f"{self.title or self.method} ({self.n_snps} SNPs, {k} exposure{'s' * (k != 1)})"
        rows = [
            *zip((f"estimate of {name}" for name in self.exposures), self._lines(), strict=True),
            *self._more_rows(),
        ]
        width = max(len(name) for name, _ in rows) + 2
        lines = [head, *(f"  {name + ':':<{width}}{text}" for name, text in rows)]
        return "\n".join(lines + [f"  note: {message}" for message in self.messages])

    def _lines(self) -> list[str]:
        return [
            f"{self.estimate[i]:.4g} (standard error {self.std_error[i]:.3g}, "
            f"{100 * self.ci_level:g}% {self.ci_lower[i]:.4g} to {self.ci_upper[i]:.4g}), "
            f"p = {self.p_value[i]:.3g}"
            for i in range(len(self.exposures))
        ]

    def _more_rows(self) -> list[tuple[str, str]]:
        """Name and text of further lines of the printed form."""
        return []


@dataclass(frozen=True, kw_only=True, eq=False)
class MVRegressionEstimate(MVEstimate):
    """Multivariable estimates by weighted regression, with their heterogeneity.

    Attributes
    ----------
    q, q_df, q_p_value : float, int, float
        Cochran's Q about the fit, of all SNPs together. NaN for robust fits.
    i2 : float
        Share of Q beyond what chance gives, 0 to 1.
    residual_std_error : float
        Root of Q over its degrees of freedom; the scale of a robust fit.
    f_statistic : ndarray, shape (K,)
        Mean of (beta_exposure / se_exposure)^2 of each exposure alone, NaN without `se_exposure`.
        Says nothing of how well the exposures are told apart: see `conditional_f_statistic`.
    conditional_f_statistic : ndarray, shape (K,)
        Strength of the SNPs for each exposure given the others (`mrfast.conditional_f`); NaN
        without `se_exposure`.
    covariance : ndarray, shape (K, K)
        Of the estimates; their standard errors are the roots of its diagonal.
    model : {"random", "fixed"}
    distribution : {"normal", "t"}
    robust : bool
    """

    per_exposure: ClassVar[tuple[str, ...]] = ("f_statistic", "conditional_f_statistic")

    q: float
    q_df: int
    q_p_value: float
    i2: float
    residual_std_error: float
    f_statistic: Float
    conditional_f_statistic: Float
    covariance: Float
    model: str
    distribution: str
    robust: bool = False

    def _more_rows(self) -> list[tuple[str, str]]:
        rows = [("model", f"{self.model} effects")]
        if not math.isnan(self.q_p_value):
            text = f"Q = {self.q:.4g} on {self.q_df} df, p = {self.q_p_value:.3g}, "
            rows.append(("heterogeneity", text + f"I2 = {100 * self.i2:.0f}%"))
        if not np.isnan(self.f_statistic).any():
            shown = ", ".join(f"{value:.4g}" for value in self.f_statistic)
            rows.append(("mean F", shown))
            shown = ", ".join(f"{value:.4g}" for value in self.conditional_f_statistic)
            rows.append(("conditional F", shown))
        return rows


def mv_inference(
    estimate: Float, std_error: Float, law: Inference, ci_level: float
) -> dict[str, Any]:
    """Fields of `MVEstimate` that follow from estimates, their errors and their law."""
    found = [
        inference(float(value), float(error), law, ci_level)
        for value, error in zip(estimate, std_error, strict=True)
    ]
    names = ("estimate", "std_error", "ci_lower", "ci_upper", "p_value")
    return {
        **{name: np.array([entry[name] for entry in found]) for name in names},
        "ci_level": ci_level,
    }
