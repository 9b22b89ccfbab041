"""Networks without torch: their shapes, activations and values, in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

__all__ = ["ACTIVATIONS", "NORMALISATION_OFFSET", "network_values", "weight_shapes"]

NORMALISATION_OFFSET = 1e-5  # added to variances before their root is taken


def _gelu(values: Float) -> Float:
    """Gaussian error linear unit in its usual approximation by tanh."""
    inner = math.sqrt(2 / math.pi) * values * (1 + 0.044715 * values * values)
    return np.asarray(0.5 * values * (1 + np.tanh(inner)))


_FORWARD: dict[str, Callable[[Float], Float]] = {
    "gelu": _gelu,
    "leaky_relu": lambda values: np.where(values > 0, values, 0.01 * values),
    "relu": lambda values: np.maximum(values, 0),
    "silu": lambda values: values / (1 + np.exp(-np.maximum(values, -700))),
    "softplus": lambda values: np.logaddexp(0, values),
    "tanh": np.tanh,
}
ACTIVATIONS = tuple(_FORWARD)


def weight_shapes(
    inputs: int, hidden: Sequence[int], outputs: int, batch_norm: bool
) -> list[tuple[int, int]]:
    """Shapes of the pieces of a member's row of weights, in their order.

    Per layer the linear map (from, to) and its offset (1, to); with normalisation also scale,
    shift, running mean and running variance of a hidden layer, (1, to) each.
    """
    shapes: list[tuple[int, int]] = []
    widths = (inputs, *hidden, outputs)
    for layer, (above, below) in enumerate(pairwise(widths)):
        statistics = 4 if batch_norm and layer < len(hidden) else 0
        shapes += [(above, below), (1, below), *[(1, below)] * statistics]
    return shapes


def network_values(
    weights: Float,
    inputs: Float,
    *,
    hidden: Sequence[int],
    outputs: int,
    activation: str,
    batch_norm: bool = False,
) -> Float:
    """Outputs of one member.

    Parameters
    ----------
    weights : ndarray, shape (n_weights,)
    inputs : ndarray, shape (rows, inputs)
    hidden, outputs, activation, batch_norm
        As of `StackedNetwork`.

    Returns
    -------
    ndarray, shape (rows, outputs)
    """
    shapes = weight_shapes(inputs.shape[1], hidden, outputs, batch_norm)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    pieces = [
        piece.reshape(shape)
        for piece, shape in zip(np.split(weights, ends[:-1]), shapes, strict=True)
    ]
    per_layer = 6 if batch_norm else 2
    values = inputs
    for layer in range(len(hidden)):
        at = layer * per_layer
        values = _FORWARD[activation](values @ pieces[at] + pieces[at + 1])
        if batch_norm:
            scale, shift, mean, variance = pieces[at + 2 : at + 6]
            values = (values - mean) * (scale / np.sqrt(variance + NORMALISATION_OFFSET)) + shift
    return np.asarray(values @ pieces[-2] + pieces[-1])
