"""Nonlinear MR: the causal effect of an exposure as a curve, from individual data.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrfast.nonlinear.causal_curve import CausalContrast as CausalContrast
    from mrfast.nonlinear.causal_curve import CausalCurve as CausalCurve
    from mrfast.nonlinear.fitted_files import load as load
    from mrfast.nonlinear.iv_data import IVData as IVData
    from mrfast.nonlinear.kernel_iv import KernelIV as KernelIV
    from mrfast.nonlinear.location_shift import LocationShiftIV as LocationShiftIV
    from mrfast.nonlinear.logistic_control_function import (
        LogisticControlFunction as LogisticControlFunction,
    )
    from mrfast.nonlinear.sieve_iv import SieveIV as SieveIV
    from mrfast.nonlinear.stratification import DoublyRanked as DoublyRanked
    from mrfast.nonlinear.stratification import Residual as Residual
    from mrfast.nonlinear.two_stage_least_squares import (
        TwoStageLeastSquares as TwoStageLeastSquares,
    )

_HOME = {
    "CausalContrast": "causal_curve",
    "CausalCurve": "causal_curve",
    "IVData": "iv_data",
    "SieveIV": "sieve_iv",
    "load": "fitted_files",
    "TwoStageLeastSquares": "two_stage_least_squares",
    "LogisticControlFunction": "logistic_control_function",
    "DoublyRanked": "stratification",
    "Residual": "stratification",
    "KernelIV": "kernel_iv",
    "LocationShiftIV": "location_shift",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"mrfast.nonlinear.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'mrfast.nonlinear' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
