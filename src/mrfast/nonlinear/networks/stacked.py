"""Many perceptrons of one shape at once: the weights of each are one row of a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast.nonlinear.network_function import ACTIVATIONS, NORMALISATION_OFFSET, weight_shapes

__all__ = ["StackedNetwork"]

_STATISTICS_SHARE = 0.1  # of a batch in the running means and variances
_FORWARD = {
    "gelu": lambda values: torch.nn.functional.gelu(values, approximate="tanh"),
    "leaky_relu": lambda values: torch.nn.functional.leaky_relu(values, 0.01),
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "softplus": torch.nn.functional.softplus,
    "tanh": torch.tanh,
}


class StackedNetwork:
    """Multilayer perceptron, evaluated for all rows of a matrix of weights together.

    Per hidden layer: linear map, activation, and on request normalisation by the batch; then a
    linear map to the outputs. One product of stacked matrices serves all members.

    Parameters
    ----------
    inputs : int
    hidden : sequence of int
        Widths of the hidden layers.
    outputs : int
    activation : str
        One of `ACTIVATIONS`.
    batch_norm : bool
        Normalise what each hidden layer gives: in training by the batch's own mean and variance,
        elsewhere by running ones, which lie behind the weights in the same row.
    zero_output : bool
        Begin with the last linear map at zero, hence with a network that is 0 everywhere.

    Attributes
    ----------
    n_weights : int
        Length of a member's row.
    decayed : ndarray of bool, shape (n_weights,)
        The entries of linear maps, which weight decay shrinks; not offsets and statistics.

    Raises
    ------
    InvalidInputError
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        activation: str = "gelu",
        batch_norm: bool = False,
        zero_output: bool = False,
    ) -> None:
        check.choice("activation", activation, ACTIVATIONS)
        self.inputs = check.integer("inputs", inputs, minimum=1)
        self.hidden = tuple(check.integer("hidden", width, minimum=1) for width in hidden)
        self.outputs = check.integer("outputs", outputs, minimum=1)
        self.activation = activation
        self.batch_norm = bool(batch_norm)
        self.zero_output = bool(zero_output)
        self._shapes = weight_shapes(self.inputs, self.hidden, self.outputs, self.batch_norm)
        self._lengths = [math.prod(shape) for shape in self._shapes]
        self.n_weights = sum(self._lengths)
        self.decayed = np.concatenate(
            [
                np.full(length, piece % self._per_layer == 0)
                for piece, length in enumerate(self._lengths)
            ]
        )

    @property
    def _per_layer(self) -> int:
        """Pieces of a hidden layer: map and offset, or these, scale, shift, mean, variance."""
        return 6 if self.batch_norm else 2

    def initial(self, generators: Sequence[np.random.Generator]) -> NDArray[np.float64]:
        """Weights at the start, uniform within 1/sqrt(inputs of the layer).

        Parameters
        ----------
        generators : sequence of Generator
            One for each member, so that its weights do not depend on the others.

        Returns
        -------
        ndarray, shape (members, n_weights)
        """
        return np.stack([self._initial(generator) for generator in generators])

    def _initial(self, generator: np.random.Generator) -> NDArray[np.float64]:
        pieces: list[NDArray[np.float64]] = []
        widths = (self.inputs, *self.hidden, self.outputs)
        for layer, (above, below) in enumerate(pairwise(widths)):
            last = layer == len(self.hidden)
            bound = 0.0 if last and self.zero_output else 1 / math.sqrt(above)
            pieces += [
                generator.uniform(-bound, bound, above * below),
                generator.uniform(-bound, bound, below),
            ]
            if self.batch_norm and not last:
                pieces += [np.ones(below), np.zeros(below), np.zeros(below), np.ones(below)]
        return np.concatenate(pieces)

    def __call__(
        self, weights: torch.Tensor, inputs: torch.Tensor, *, training: bool = False
    ) -> torch.Tensor:
        """Outputs of all members.

        Parameters
        ----------
        weights : Tensor, shape (members, n_weights)
        inputs : Tensor, shape (members, rows, inputs) or (rows, inputs)
            Rows that all members share are given once.
        training : bool
            Normalise by the batch, and carry its statistics into ``weights``.

        Returns
        -------
        Tensor, shape (members, rows, outputs)
        """
        members = weights.shape[0]
        pieces = [
            piece.view(members, *shape)
            for piece, shape in zip(
                torch.split(weights, self._lengths, 1), self._shapes, strict=True
            )
        ]
        values = inputs if inputs.dim() == 3 else inputs.expand(members, *inputs.shape)
        activate = _FORWARD[self.activation]
        for layer in range(len(self.hidden)):
            at = layer * self._per_layer
            values = activate(torch.baddbmm(pieces[at + 1], values, pieces[at]))
            if self.batch_norm:
                values = self._normalised(values, pieces[at + 2 : at + 6], training)
        return torch.baddbmm(pieces[-1], values, pieces[-2])

    @staticmethod
    def _normalised(
        values: torch.Tensor, pieces: Sequence[torch.Tensor], training: bool
    ) -> torch.Tensor:
        scale, shift, mean, variance = pieces
        if training:
            running_mean, running_variance = mean, variance
            variance, mean = torch.var_mean(values, dim=1, keepdim=True, correction=0)
            # Not part of the differentiated function: `data` keeps autograd out.
            running_mean.data.lerp_(mean.data, _STATISTICS_SHARE)
            running_variance.data.lerp_(variance.data, _STATISTICS_SHARE)
        else:
            mean, variance = mean.detach(), variance.detach()
        return (values - mean) * (scale * torch.rsqrt(variance + NORMALISATION_OFFSET)) + shift
