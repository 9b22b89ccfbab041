"""Adam for the stacked weights of many members."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Adam"]

_MEAN_DECAY, _SQUARE_DECAY, _OFFSET = 0.9, 0.999, 1e-8


class Adam:
    """Adaptive moments with decoupled weight decay; each member is optimised by itself.

    Parameters
    ----------
    weights : Tensor, shape (members, n_weights)
        Changed in place.
    learning_rate, weight_decay : float or Tensor, shape (members, 1)
    decayed : ndarray of bool, shape (n_weights,)
        Entries that the weight decay shrinks.

    References
    ----------
    Kingma and Ba 2015, https://arxiv.org/abs/1412.6980; Loshchilov and Hutter 2019,
    https://arxiv.org/abs/1711.05101
    """

    def __init__(
        self,
        weights: torch.Tensor,
        *,
        learning_rate: float | torch.Tensor,
        weight_decay: float | torch.Tensor,
        decayed: NDArray[np.bool_],
    ) -> None:
        self.weights = weights
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decayed = torch.as_tensor(decayed, device=weights.device).to(weights.dtype)
        self.mean = torch.zeros_like(weights)
        self.square = torch.zeros_like(weights)
        self.steps = 0

    def step(self, gradient: torch.Tensor) -> None:
        """Move the weights against a gradient of their shape."""
        self.steps += 1
        with torch.no_grad():
            self.mean.lerp_(gradient, 1 - _MEAN_DECAY)
            self.square.mul_(_SQUARE_DECAY)
            self.square.addcmul_(gradient, gradient, value=1 - _SQUARE_DECAY)
            spread = (self.square / (1 - _SQUARE_DECAY**self.steps)).sqrt_().add_(_OFFSET)
            move = (self.mean / (1 - _MEAN_DECAY**self.steps)).div_(spread)
            shrink = self.decayed * (self.learning_rate * self.weight_decay)
            self.weights.mul_(1 - shrink).sub_(move.mul_(self.learning_rate))

    def take(self, kept: torch.Tensor) -> Adam:
        """Optimiser of some of the members."""
        other = object.__new__(Adam)
        other.weights = self.weights.detach()[kept].requires_grad_()
        other.learning_rate, other.weight_decay = (
            value[kept] if isinstance(value, torch.Tensor) else value
            for value in (self.learning_rate, self.weight_decay)
        )
        other.decayed, other.steps = self.decayed, self.steps
        other.mean, other.square = self.mean[kept], self.square[kept]
        return other

    def state(self) -> dict[str, NDArray[np.generic]]:
        """What a checkpoint needs."""
        tensors = {"weights": self.weights.detach(), "mean": self.mean, "square": self.square}
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}

    def restore(self, state: dict[str, NDArray[np.generic]], steps: int) -> None:
        """Continue from what a checkpoint kept."""
        with torch.no_grad():
            self.weights.copy_(torch.as_tensor(state["weights"]))
            self.mean.copy_(torch.as_tensor(state["mean"]))
            self.square.copy_(torch.as_tensor(state["square"]))
        self.steps = steps
