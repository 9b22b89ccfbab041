"""What every method returns: `MREstimate`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import chdtrc, ndtr, ndtri, stdtr, stdtrit

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "HETEROGENEOUS",
    "WEAK",
    "Inference",
    "MREstimate",
    "RegressionEstimate",
    "chi_square_p",
    "heterogeneity_fields",
    "ignored_heterogeneity",
    "inference",
    "intercept_fields",
    "no_heterogeneity_fields",
    "plain",
    "strength_messages",
]

HETEROGENEOUS = 0.05
"""p-value of Q below which a reader should know."""

WEAK = 10.0
"""F statistic below which a reader should know."""


@dataclass(frozen=True, kw_only=True)
class MREstimate:
    """Effect of the exposure on the outcome, by one method.

    Attributes
    ----------
    method : str
        Name in the registry.
    estimate, std_error : float
        Per unit of the exposure.
    ci_lower, ci_upper : float
        Limits at `ci_level`.
    p_value : float
        Two-sided, of no effect.
    n_snps : int
    ci_level : float
    messages : tuple of str
        What a reader should know.
    """

    title: ClassVar[str] = ""

    method: str
    estimate: float
    std_error: float
    ci_lower: float
    ci_upper: float
    p_value: float
    n_snps: int
    ci_level: float
    messages: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python numbers, strings and lists."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """One row; the fields that are single values."""
        import pandas as pd

        record = {
            key: "; ".join(value) if key == "messages" else value
            for key, value in self.to_dict().items()
            if key == "messages" or not isinstance(value, (list, dict))
        }
        return pd.DataFrame([record])

    def __str__(self) -> str:
        head = f"{self.title or self.method} ({self.n_snps} SNP{'s' * (self.n_snps != 1)})"
        rows = [("estimate", self._with_interval()), *self._more_rows()]
        width = max(len(name) for name, _ in rows) + 2
        lines = [head, *(f"  {name + ':':<{width}}{text}" for name, text in rows)]
        return "\n".join(lines + [f"  note: {message}" for message in self.messages])

    def _with_interval(self) -> str:
        return (
            f"{self.estimate:.4g} (standard error {self.std_error:.3g}, {100 * self.ci_level:g}% "
            f"{self.ci_lower:.4g} to {self.ci_upper:.4g}), p = {self.p_value:.3g}"
        )

    def _more_rows(self) -> list[tuple[str, str]]:
        """Name and text of further lines of the printed form."""
        return []


@dataclass(frozen=True, kw_only=True)
class RegressionEstimate(MREstimate):
    """An estimate by weighted regression, with its heterogeneity.

    Attributes
    ----------
    q, q_df, q_p_value : float, int, float
        Cochran's Q about the fit, with the weights of the fit. NaN for robust and penalised fits,
        where it has no chi-squared law.
    i2 : float
        Share of Q beyond what chance gives, 0 to 1; NaN without degrees of freedom.
    residual_std_error : float
        Root of Q over its degrees of freedom; the scale of a robust fit.
    f_statistic : float
        Mean of (beta_exposure / se_exposure)^2; the joint strength over the number of SNPs with
        `ld`. NaN where `se_exposure` was not given.
    model : {"random", "fixed"}
    weights : {"first_order", "second_order", "simple"}
    distribution : {"normal", "t"}
    robust, penalised : bool
    """

    q: float
    q_df: int
    q_p_value: float
    i2: float
    residual_std_error: float
    f_statistic: float
    model: str
    weights: str
    distribution: str
    robust: bool = False
    penalised: bool = False

    def _more_rows(self) -> list[tuple[str, str]]:
        rows = [("model", f"{self.model} effects, {self.weights.replace('_', '-')} weights")]
        if not math.isnan(self.q_p_value):
            text = f"Q = {self.q:.4g} on {self.q_df} df, p = {self.q_p_value:.3g}, "
            rows.append(("heterogeneity", text + f"I2 = {100 * self.i2:.0f}%"))
        if not math.isnan(self.f_statistic):
            rows.append(("mean F", f"{self.f_statistic:.4g}"))
        return rows


def heterogeneity_fields(q: float, df: int) -> dict[str, Any]:
    """Fields of `RegressionEstimate` that follow from Q."""
    share = max(0.0, (q - df) / q) if q > 0 else 0.0
    return {
        "q": q,
        "q_df": df,
        "q_p_value": chi_square_p(q, df),
        "i2": share if df else math.nan,
        "residual_std_error": math.sqrt(q / df) if df else math.nan,
    }


def no_heterogeneity_fields(df: int, scale: float) -> dict[str, Any]:
    """The same of a fit whose Q has no chi-squared law, with the scale of its residuals."""
    return {
        "q": math.nan,
        "q_df": df,
        "q_p_value": math.nan,
        "i2": math.nan,
        "residual_std_error": scale,
    }


def ignored_heterogeneity(q_p_value: float, option: str) -> list[str]:
    """What to say of a Q that an option takes no account of."""
    if q_p_value < HETEROGENEOUS:
        return [
            f"the SNPs do not agree on one effect (p = {q_p_value:.2g}), which {option} takes no "
            "account of: standard errors are too small"
        ]
    return []


def strength_messages(f_statistic: float) -> list[str]:
    """What to say of a mean F."""
    if f_statistic < WEAK:
        return [
            f"mean F is {f_statistic:.3g}: weak instruments draw the estimate of two separate "
            "samples towards zero, that of one sample towards the confounded association"
        ]
    return []


def plain(value: Any) -> Any:
    """Arrays as lists, results as dictionaries, numbers of numpy as Python's."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value


class Inference:
    """Normal or Student's law of an estimate over its standard error.

    Parameters
    ----------
    distribution : {"normal", "t"}
    df : float
        Of ``"t"``.
    ci_level : float
    """

    __slots__ = ("_df", "_normal", "reach")

    def __init__(self, distribution: str, df: float, ci_level: float) -> None:
        self._normal = distribution == "normal"
        self._df = df
        tail = (1 - ci_level) / 2
        self.reach = -float(ndtri(tail) if self._normal else stdtrit(df, tail))

    def p_value(self, ratio: float) -> float:
        """Two-sided, of an estimate `ratio` standard errors from zero."""
        if self._normal:
            return 2 * float(ndtr(-abs(ratio)))
        return 2 * float(stdtr(self._df, -abs(ratio)))


def inference(estimate: float, std_error: float, law: Inference, ci_level: float) -> dict[str, Any]:
    """Fields of `MREstimate` that follow from an estimate, its error and their law."""
    if not std_error > 0 or not math.isfinite(estimate):
        p_value, reach = math.nan, math.nan
    else:
        p_value, reach = law.p_value(estimate / std_error), law.reach * std_error
    return {
        "estimate": estimate,
        "std_error": std_error,
        "ci_lower": estimate - reach,
        "ci_upper": estimate + reach,
        "p_value": p_value,
        "ci_level": ci_level,
    }


def intercept_fields(intercept: float, std_error: float, law: Inference) -> dict[str, Any]:
    """Fields of an intercept that follow from it, its error and their law."""
    found = inference(intercept, std_error, law, math.nan)
    names = ("std_error", "ci_lower", "ci_upper", "p_value")
    return {"intercept": intercept, **{f"intercept_{name}": found[name] for name in names}}


def chi_square_p(statistic: float, df: float) -> float:
    """Upper tail of the chi-squared law; NaN without degrees of freedom."""
    return float(chdtrc(df, statistic)) if df > 0 else math.nan
