"""A fitted estimator on another scale of the exposure: `Rescaled`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast.nonlinear.composed_curves import RescaledCurve
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator, NotFittedError
from mrfast.nonlinear.fitted_curve import FittedCurve
from mrfast.nonlinear.iv_data import IVData

__all__ = ["Rescaled"]


class Rescaled(InstrumentalVariableEstimator):
    """A fitted estimator whose exposure is in other units.

    The parent was fitted to z = scale x + shift; every method of this takes x. An exposure that
    was standardised, z = (x - mean) / sd, has ``scale = 1 / sd`` and ``shift = -mean / sd``.

    Parameters
    ----------
    parent : InstrumentalVariableEstimator
        Fitted.
    shift : float
    scale : float
        Not 0.

    Raises
    ------
    InvalidInputError
        The scale is 0, or a number is not finite.
    NotFittedError
        The parent is not fitted.
    """

    name = "rescaled"

    def __init__(
        self,
        parent: InstrumentalVariableEstimator | None = None,
        shift: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        self.shift = check.scalar("shift", shift)
        self.scale = check.scalar("scale", scale)
        if self.scale == 0:
            raise check.fail("scale", "a number other than 0", "0")
        if parent is not None:
            if not isinstance(parent, InstrumentalVariableEstimator):
                raise check.fail("parent", "a fitted estimator", repr(parent)[:80])
            self._take_over(parent)

    def get_params(self) -> dict[str, Any]:
        """Options by name, without the parent."""
        return {"shift": self.shift, "scale": self.scale}

    def _fit(self, data: IVData) -> Fit:
        raise NotFittedError("Rescaled: expected a fitted parent, which fit() does not make")

    def _take_over(self, parent: InstrumentalVariableEstimator) -> None:
        self.curve_ = RescaledCurve(parent._fitted(), self.shift, self.scale)
        self._name_after(parent.title or type(parent).__name__)
        self.diagnostics_ = {
            **parent.diagnostics_,
            "estimator": self._parent_title,
            "exposure_shift": self.shift,
            "exposure_scale": self.scale,
            "limits": {kind: parent._limit_text(kind) for kind in self.curve_.intervals},
        }
        self.messages_ = parent.messages_
        self.n_ = parent.n_
        self.covariate_names_ = parent.covariate_names_
        for field in ("exposure_range_", "exposure_central_", "exposure_central_99_"):
            low, high = sorted((z - self.shift) / self.scale for z in getattr(parent, field))
            setattr(self, field, (low, high))
        counts, edges = parent.exposure_histogram_
        edges = (edges - self.shift) / self.scale
        if self.scale < 0:
            counts, edges = counts[::-1], edges[::-1]
        self.exposure_histogram_ = (np.ascontiguousarray(counts), np.ascontiguousarray(edges))

    def _name_after(self, title: str) -> None:
        self._parent_title = title
        self.title = f"{title}, exposure on another scale"  # type: ignore[misc]

    def _limit_text(self, interval: str) -> str:
        return str(self.diagnostics_["limits"][interval])

    def _restore(
        self, curve: FittedCurve, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Self:
        self._name_after(str(values["diagnostics"]["estimator"]))
        return super()._restore(curve, values, arrays)
