"""What another package would print: `PeerEstimate`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mrfast.summary.estimate import MREstimate

__all__ = ["PeerEstimate"]


@dataclass(frozen=True, kw_only=True)
class PeerEstimate(MREstimate):
    """Numbers of another package.

    Attributes
    ----------
    package, version, function : str
        Whose numbers they are.
    intercept, intercept_std_error, intercept_p_value : float
    intercept_ci_lower, intercept_ci_upper : float
        Of Egger regression; NaN otherwise.
    q, q_df, q_p_value : float
        NaN where the package gives none.
    """

    package: str
    version: str
    function: str
    intercept: float = math.nan
    intercept_std_error: float = math.nan
    intercept_ci_lower: float = math.nan
    intercept_ci_upper: float = math.nan
    intercept_p_value: float = math.nan
    q: float = math.nan
    q_df: float = math.nan
    q_p_value: float = math.nan
