"""Density of the exposure given instruments and covariates: mixtures of normal laws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from mrfast._validation import Float
from mrfast.nonlinear.networks.linear_location import linear_locations
from mrfast.nonlinear.networks.optimiser import Adam
from mrfast.nonlinear.networks.rows import Rows
from mrfast.nonlinear.networks.stacked import StackedNetwork
from mrfast.nonlinear.networks.training import TrainingProblem, Weights

__all__ = ["DensityProblem", "mixture_draws", "mixture_log_density", "mixture_moments"]

_SMALLEST_SCALE = 1e-3  # of a component, in residual sd: no spikes at single values
_SPREAD = 0.8  # of the components' means at the start


def mixture_log_density(
    values: torch.Tensor, log_weights: torch.Tensor, means: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """Logarithm of sum_k w_k N(value; m_k, s_k^2).

    Parameters
    ----------
    values : Tensor, shape (...)
    log_weights, means, scales : Tensor, shape (..., components)

    Returns
    -------
    Tensor, shape (...)
    """
    errors = (values[..., None] - means) / scales
    densities = -0.5 * errors**2 - torch.log(scales) - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(log_weights + densities, -1)


def mixture_moments(weights: Float, means: Float, scales: Float) -> tuple[Float, Float]:
    """Means and variances of mixtures, (n, components) each to (n,)."""
    mean = (weights * means).sum(axis=1)
    return mean, (weights * (scales**2 + (means - mean[:, None]) ** 2)).sum(axis=1)


def mixture_draws(
    weights: Float, means: Float, scales: Float, draws: int, generator: np.random.Generator
) -> Float:
    """Independent draws from each row's mixture, (n, components) each to (n, draws)."""
    n = len(weights)
    ends = np.cumsum(weights, axis=1)[:, None, :-1]
    component = (generator.random((n, draws, 1)) > ends).sum(axis=2)
    noise = generator.standard_normal((n, draws))
    located = np.take_along_axis(means, component, axis=1)
    return np.asarray(located + np.take_along_axis(scales, component, axis=1) * noise)


class DensityProblem(TrainingProblem):
    """Networks for the weights, means and scales of a mixture of normal laws.

    Means are added to a ridge regression of the exposure, and all is in units of its residuals'
    scale. The network begins with one mixture for everybody, of mean 0 and variance 1.

    Parameters
    ----------
    columns : ndarray, shape (n, d)
        Standardised instruments and covariates.
    exposure : ndarray, shape (n,)
        Standardised.
    training, validation : ndarray, shape (members, n)
        Weights of the rows.
    network : StackedNetwork
        With d inputs and three outputs for each component.
    generators : sequence of numpy Generator
        One for each member.
    generator : numpy Generator
        For the order of the rows.
    learning_rate, weight_decay : float or Tensor, shape (members, 1)
    start : Tensor, shape (members, n_weights), optional
        Weights to begin with.
    """

    def __init__(
        self,
        columns: Float,
        exposure: Float,
        training: Float,
        validation: Float,
        *,
        network: StackedNetwork,
        generators: Sequence[np.random.Generator],
        generator: np.random.Generator,
        learning_rate: float | torch.Tensor,
        weight_decay: float | torch.Tensor,
        device: torch.device,
        start: torch.Tensor | None = None,
    ) -> None:
        def tensor(values: Float) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.network, self.generator = network, generator
        self.components = network.outputs // 3
        locations, scales = linear_locations(columns, exposure, training, validation)
        self.columns, self.exposure = tensor(columns), tensor(exposure)
        self.intercept = tensor(locations[:, :1])
        self.slopes = tensor(locations[:, 1:, None])
        self.scale = tensor(scales[:, None])
        if start is None:
            initial = network.initial(generators)
            means = (
                np.linspace(-_SPREAD, _SPREAD, self.components) if self.components > 1 else [0.0]
            )
            width = math.sqrt(1 - float(np.mean(np.square(means)))) - _SMALLEST_SCALE
            raw = np.full(self.components, width + math.log(-math.expm1(-width)))
            offsets = np.concatenate([np.zeros(self.components), means, raw])
            initial[:, -network.outputs :] = offsets
            start = tensor(initial)
        weights = start.clone().requires_grad_()
        self.optimisers = (
            Adam(
                weights,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                decayed=network.decayed,
            ),
        )
        self.training_rows = Rows.from_weights(training, dtype=torch.float32, device=device)
        self.validation_rows = Rows.from_weights(validation, dtype=torch.float32, device=device)

    def mixture(
        self, weights: torch.Tensor, columns: torch.Tensor, *, training: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log weights, means and scales of the exposure's law, (members, rows, components)."""
        outputs = self.network(weights, columns, training=training)
        logits, means, raw = outputs.tensor_split(3, -1)
        members = weights.shape[0]
        shared = columns if columns.dim() == 3 else columns.expand(members, *columns.shape)
        location = torch.baddbmm(self.intercept[:, :, None], shared, self.slopes)
        scale = self.scale[:, :, None]
        scales = torch.nn.functional.softplus(raw) + _SMALLEST_SCALE
        return torch.log_softmax(logits, -1), location + scale * means, scale * scales

    def _loss(self, weights: torch.Tensor, rows: Rows, *, training: bool) -> torch.Tensor:
        law = self.mixture(weights, self.columns[rows.index], training=training)
        return -rows.mean(mixture_log_density(self.exposure[rows.index], *law))

    def training_loss(self, weights: Weights, batch: Rows | None) -> torch.Tensor:
        """Mean of minus the log density."""
        assert batch is not None
        return self._loss(weights[0], batch, training=True)

    def validation_loss(self, weights: Weights) -> torch.Tensor:
        """The same on rows that were left out."""
        return self._loss(weights[0], self.validation_rows, training=False)

    def _take_members(self, kept: torch.Tensor) -> None:
        self.validation_rows = self.validation_rows.take(kept)
        self.intercept, self.slopes = self.intercept[kept], self.slopes[kept]
        self.scale = self.scale[kept]
