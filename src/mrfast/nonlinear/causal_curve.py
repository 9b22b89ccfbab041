"""What an estimator says of the effect: `CausalCurve` and `CausalContrast`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrfast._validation import Float

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CausalContrast", "CausalCurve"]


@dataclass(frozen=True, eq=False)
class CausalCurve:
    """E[Y | do(X = x)] with limits.

    Attributes
    ----------
    x : ndarray of float64
        Values of the exposure.
    estimate, lower, upper : ndarray of float64, shape that of the estimate
        That of `x`; for conditional effects, that of `x` broadcast against the people.
    method : str
        What the limits are, in words.
    level : float
        Their nominal coverage.
    """

    x: Float
    estimate: Float
    lower: Float
    upper: Float
    method: str
    level: float

    def to_frame(self) -> pd.DataFrame:
        """One row a value: x, estimate, lower, upper."""
        return _frame({"x": self.x}, self)


@dataclass(frozen=True, eq=False)
class CausalContrast:
    """E[Y | do(X = x1)] - E[Y | do(X = x0)] with limits.

    Attributes
    ----------
    x0, x1 : ndarray of float64
        Values of the exposure.
    estimate, lower, upper : ndarray of float64
        Of the broadcast shape of `x0`, `x1` and the people.
    method : str
        What the limits are, in words.
    level : float
        Their nominal coverage.
    """

    x0: Float
    x1: Float
    estimate: Float
    lower: Float
    upper: Float
    method: str
    level: float

    def to_frame(self) -> pd.DataFrame:
        """One row a contrast: x0, x1, estimate, lower, upper."""
        return _frame({"x0": self.x0, "x1": self.x1}, self)


def _frame(points: dict[str, Float], result: CausalCurve | CausalContrast) -> pd.DataFrame:
    import pandas as pd

    shape = result.estimate.shape
    columns = points | {
        "estimate": result.estimate,
        "lower": result.lower,
        "upper": result.upper,
    }
    return pd.DataFrame(
        {name: np.broadcast_to(values, shape).ravel() for name, values in columns.items()}
    )
