"""Nonlinear MR: the causal effect of an exposure as a curve, from individual data.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrfast.nonlinear.causal_curve import CausalContrast as CausalContrast
    from mrfast.nonlinear.causal_curve import CausalCurve as CausalCurve
    from mrfast.nonlinear.ensemble import Ensemble as Ensemble
    from mrfast.nonlinear.fitted_files import load as load
    from mrfast.nonlinear.held_out_risk import HeldOutRisk as HeldOutRisk
    from mrfast.nonlinear.hyperparameter_sweep import SweepResult as SweepResult
    from mrfast.nonlinear.iv_data import IVData as IVData
    from mrfast.nonlinear.kernel_iv import KernelIV as KernelIV
    from mrfast.nonlinear.location_shift import LocationShiftIV as LocationShiftIV
    from mrfast.nonlinear.logistic_control_function import (
        LogisticControlFunction as LogisticControlFunction,
    )
    from mrfast.nonlinear.networks.callbacks import TensorBoardCallback as TensorBoardCallback
    from mrfast.nonlinear.networks.callbacks import TrainingCallback as TrainingCallback
    from mrfast.nonlinear.networks.callbacks import WandbCallback as WandbCallback
    from mrfast.nonlinear.networks.deep_gmm import DeepGMM as DeepGMM
    from mrfast.nonlinear.networks.deep_iv import DeepIV as DeepIV
    from mrfast.nonlinear.networks.delivr import DeLIVR as DeLIVR
    from mrfast.nonlinear.networks.dfiv import DFIV as DFIV
    from mrfast.nonlinear.networks.quantile_iv import QuantileIV as QuantileIV
    from mrfast.nonlinear.parameter_samplers import Grid as Grid
    from mrfast.nonlinear.parameter_samplers import RandomUniform as RandomUniform
    from mrfast.nonlinear.parameter_samplers import RandomUniformInt as RandomUniformInt
    from mrfast.nonlinear.parameter_samplers import Values as Values
    from mrfast.nonlinear.rescaled import Rescaled as Rescaled
    from mrfast.nonlinear.sieve_iv import SieveIV as SieveIV
    from mrfast.nonlinear.stratification import DoublyRanked as DoublyRanked
    from mrfast.nonlinear.stratification import Residual as Residual
    from mrfast.nonlinear.sweep_configurations import sweep_configuration as sweep_configuration
    from mrfast.nonlinear.two_stage_least_squares import (
        TwoStageLeastSquares as TwoStageLeastSquares,
    )

_HOME = {
    "CausalContrast": "causal_curve",
    "CausalCurve": "causal_curve",
    "DeepGMM": "networks.deep_gmm",
    "DeepIV": "networks.deep_iv",
    "DeLIVR": "networks.delivr",
    "DFIV": "networks.dfiv",
    "DoublyRanked": "stratification",
    "Ensemble": "ensemble",
    "Grid": "parameter_samplers",
    "HeldOutRisk": "held_out_risk",
    "IVData": "iv_data",
    "KernelIV": "kernel_iv",
    "load": "fitted_files",
    "LocationShiftIV": "location_shift",
    "LogisticControlFunction": "logistic_control_function",
    "QuantileIV": "networks.quantile_iv",
    "RandomUniform": "parameter_samplers",
    "RandomUniformInt": "parameter_samplers",
    "Rescaled": "rescaled",
    "Residual": "stratification",
    "SieveIV": "sieve_iv",
    "sweep_configuration": "sweep_configurations",
    "SweepResult": "hyperparameter_sweep",
    "TensorBoardCallback": "networks.callbacks",
    "TrainingCallback": "networks.callbacks",
    "TwoStageLeastSquares": "two_stage_least_squares",
    "Values": "parameter_samplers",
    "WandbCallback": "networks.callbacks",
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
