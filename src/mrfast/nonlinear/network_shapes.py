"""Networks that say how wide a prediction interval is where, evaluated without torch.

Their training is in `networks.prediction_networks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mrfast._validation import Float
from mrfast.nonlinear.conformal import PredictionShape
from mrfast.nonlinear.network_function import network_values

__all__ = ["NetworkInputs", "QuantileEnds", "ResidualScale", "quantile_inputs"]

_SMALLEST = 0.05  # unit of the residual network, relative to the mean absolute residual
_ROWS = 100_000  # evaluated at a time


@dataclass(frozen=True, eq=False)
class NetworkInputs:
    """Standardised exposure and covariates, as a network takes them.

    Attributes
    ----------
    centre, scale : ndarray of float64, shape: (1 + q,)
        Means and standard deviations of exposure and covariates.
    exposure_range : ndarray of float64, shape: (2,)
        Values outside count as its ends: networks do not extrapolate.
    """

    centre: Float
    scale: Float
    exposure_range: Float

    @classmethod
    def of(cls, exposure: Float, covariates: Float | None) -> Self:
        """Standardise by those people."""
        columns = exposure[:, None]
        if covariates is not None:
            columns = np.column_stack([columns, covariates])
        scale = columns.std(axis=0)
        scale[scale == 0] = 1.0
        ends = np.array([exposure.min(), exposure.max()])
        return cls(columns.mean(axis=0), scale, ends)

    def __call__(self, exposure: Float, covariates: Float | None) -> Float:
        """Inputs of people, shape (m, 1 + q); those of unknown covariates have the means."""
        inputs = np.zeros((len(exposure), len(self.centre)))
        inputs[:, 0] = np.clip(exposure, *self.exposure_range)
        inputs[:, 1:] = self.centre[1:] if covariates is None else covariates
        return (inputs - self.centre) / self.scale


def quantile_inputs(levels: Float) -> Float:
    """The two columns in which a network of quantiles takes the level, shape (m, 2)."""
    return np.column_stack([2 * levels - 1, ndtri(levels)])


@dataclass(frozen=True, eq=False)
class _NetworkShape(PredictionShape):
    """A perceptron of exposure and covariates.

    Attributes
    ----------
    weights : ndarray, shape: (n_weights,)
    inputs : NetworkInputs
    hidden : tuple of int
    activation : str
    shift, scale : float
        The network's values times `scale`, plus `shift`, are in the outcome's units.
    """

    weights: Float
    inputs: NetworkInputs
    hidden: tuple[int, ...]
    activation: str
    shift: float
    scale: float

    def _network(self, inputs: Float) -> Float:
        parts: Sequence[Float] = [
            network_values(
                self.weights,
                inputs[start : start + _ROWS],
                hidden=self.hidden,
                outputs=1,
                activation=self.activation,
            )[:, 0]
            for start in range(0, len(inputs), _ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Weights and what the inputs are standardised by."""
        values = {
            "hidden": list(self.hidden),
            "activation": self.activation,
            "shift": self.shift,
            "scale": self.scale,
        }
        return values, {"weights": self.weights, **asdict(self.inputs)}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Shape of a state."""
        inputs = NetworkInputs(arrays["centre"], arrays["scale"], arrays["exposure_range"])
        return cls(
            arrays["weights"],
            inputs,
            tuple(values["hidden"]),
            values["activation"],
            float(values["shift"]),
            float(values["scale"]),
        )


class ResidualScale(_NetworkShape):
    """The curve, with the expected absolute residual of a person as the unit."""

    kind = "residual_network"

    def ends(
        self, level: float, centre: Float, x: Float, covariates: Float | None
    ) -> tuple[Float, Float, Float]:
        """Curve, curve and unit, see `PredictionShape.ends`."""
        raw = self._network(self.inputs(x, covariates)) + self.shift
        return centre, centre, self.scale * (np.logaddexp(0, raw) + _SMALLEST)


class QuantileEnds(_NetworkShape):
    """Quantiles of the outcome, all from one network that takes the level as an input.

    Reference: Tagasovska and Lopez-Paz 2019, https://arxiv.org/abs/1811.00908
    """

    kind = "simultaneous_quantile"

    def quantiles(self, level: float, x: Float, covariates: Float | None) -> Float:
        """Quantile of that level, shape (m,)."""
        inputs = self.inputs(x, covariates)
        columns = np.broadcast_to(quantile_inputs(np.array([level])), (len(inputs), 2))
        return self.shift + self.scale * self._network(np.column_stack([inputs, columns]))

    def ends(
        self, level: float, centre: Float, x: Float, covariates: Float | None
    ) -> tuple[Float, Float, Float]:
        """The two quantiles with `level` between them, and 1, see `PredictionShape.ends`."""
        low = self.quantiles((1 - level) / 2, x, covariates)
        high = self.quantiles((1 + level) / 2, x, covariates)
        # Where the network's quantiles cross, their order is restored.
        return np.minimum(low, high), np.maximum(low, high), np.ones(len(x))
