"""Estimators and their curves by the names that files and the command line use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mrfast import _validation as check

if TYPE_CHECKING:
    from mrfast.nonlinear.estimator import InstrumentalVariableEstimator
    from mrfast.nonlinear.fitted_curve import FittedCurve

__all__ = ["CURVES", "MODELS", "curve_class", "estimator_class"]

MODELS: dict[str, str] = {
    "two_stage_least_squares": "two_stage_least_squares:TwoStageLeastSquares",
    "sieve_iv": "sieve_iv:SieveIV",
    "kernel_iv": "kernel_iv:KernelIV",
    "location_shift_iv": "location_shift:LocationShiftIV",
    "doubly_ranked": "stratification:DoublyRanked",
    "residual": "stratification:Residual",
    "logistic_control_function": "logistic_control_function:LogisticControlFunction",
    "quantile_iv": "networks.quantile_iv:QuantileIV",
    "deep_iv": "networks.deep_iv:DeepIV",
    "dfiv": "networks.dfiv:DFIV",
    "delivr": "networks.delivr:DeLIVR",
    "deep_gmm": "networks.deep_gmm:DeepGMM",
    "ensemble": "ensemble:Ensemble",
    "rescaled": "rescaled:Rescaled",
}
"""Name of an estimator: module below ``mrfast.nonlinear`` and class."""

CURVES: dict[str, str] = {
    "additive": "additive_curve:AdditiveCurve",
    "logistic_control_function": "logistic_control_function:LogisticCurve",
    "anderson_rubin_line": "sieve_curve:AndersonRubinLine",
    "sieve": "sieve_curve:SieveCurve",
    "honest_sieve": "honest_bands:HonestCurve",
    "binary_sieve": "binary_curve:BinaryCurve",
    "modified_sieve": "modified_curve:ModifiedCurve",
    "network": "network_curve:NetworkCurve",
    "conformal": "conformal:ConformalCurve",
    "ensemble": "composed_curves:EnsembleCurve",
    "rescaled": "composed_curves:RescaledCurve",
}
"""Kind of a `FittedCurve`: module below ``mrfast.nonlinear`` and class."""


def estimator_class(name: str) -> type[InstrumentalVariableEstimator]:
    """Class of a name.

    Parameters
    ----------
    name : str
        Key of ``MODELS``.

    Returns
    -------
    type

    Raises
    ------
    InvalidInputError
        There is no such estimator.
    MissingExtraError
        The estimator needs an extra that is not installed.
    """
    found: type[InstrumentalVariableEstimator] = _imported(
        MODELS[check.choice("estimator", name, list(MODELS))]
    )
    return found


def curve_class(kind: str) -> type[FittedCurve]:
    """Class of a kind of curve.

    Parameters
    ----------
    kind : str
        Key of ``CURVES``.

    Returns
    -------
    type

    Raises
    ------
    InvalidInputError
        There is no such kind.
    """
    found: type[FittedCurve] = _imported(CURVES[check.choice("curve", kind, list(CURVES))])
    return found


def _imported(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(f"mrfast.nonlinear.{module}"), attribute)
