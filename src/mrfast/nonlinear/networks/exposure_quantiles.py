"""Quantiles of the exposure given instruments and covariates, by networks that do not cross."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mrfast._validation import Float
from mrfast.nonlinear.networks.linear_location import linear_locations, weighted_quantiles
from mrfast.nonlinear.networks.optimiser import Adam
from mrfast.nonlinear.networks.rows import Rows
from mrfast.nonlinear.networks.stacked import StackedNetwork
from mrfast.nonlinear.networks.training import TrainingProblem, Weights

__all__ = ["QuantileProblem", "pinball_loss"]

_SMALLEST_STEP = 1e-3  # between neighbouring quantiles at the start, in residual sd


def pinball_loss(
    values: torch.Tensor, quantiles: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """Mean over the levels of max(t e, (t - 1) e), e = value - quantile.

    Parameters
    ----------
    values : Tensor, shape (...)
    quantiles : Tensor, shape (..., k)
    levels : Tensor, shape (k,)

    Returns
    -------
    Tensor, shape (...)
    """
    errors = values[..., None] - quantiles
    return torch.maximum(levels * errors, (levels - 1) * errors).mean(-1)


class QuantileProblem(TrainingProblem):
    """Networks for the quantiles of the exposure at given levels.

    The lowest quantile and the steps to the next ones, which a softplus keeps above 0, are outputs
    of one network; they are added to a ridge regression of the exposure. The network begins as the
    residual's own quantiles for everybody, and training departs from this where validation rows
    speak for it.

    Parameters
    ----------
    columns : ndarray, shape (n, d)
        Standardised instruments and covariates.
    exposure : ndarray, shape (n,)
        Standardised.
    training, validation : ndarray, shape (members, n)
        Weights of the rows.
    levels : ndarray, shape (k,)
    network : StackedNetwork
        With d inputs and k outputs.
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
        levels: Float,
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
        locations, scales = linear_locations(columns, exposure, training, validation)
        self.columns, self.exposure = tensor(columns), tensor(exposure)
        self.intercept = tensor(locations[:, :1])
        self.slopes = tensor(locations[:, 1:, None])
        self.scale = tensor(scales[:, None])
        self.levels = tensor(levels)
        if start is None:
            initial = network.initial(generators)
            for member, weight in enumerate(training):
                used = weight > 0
                fitted = locations[member, 0] + columns[used] @ locations[member, 1:]
                residuals = (exposure[used] - fitted) / scales[member]
                quantiles = weighted_quantiles(residuals, weight[used], levels)
                steps = np.maximum(np.diff(quantiles), _SMALLEST_STEP)
                offsets = np.concatenate([quantiles[:1], steps + np.log(-np.expm1(-steps))])
                initial[member, -len(levels) :] = offsets
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

    def quantiles(
        self, weights: torch.Tensor, columns: torch.Tensor, *, training: bool = False
    ) -> torch.Tensor:
        """Quantiles of the standardised exposure, (members, rows, k)."""
        outputs = self.network(weights, columns, training=training)
        lowest, steps = outputs[..., :1], torch.nn.functional.softplus(outputs[..., 1:])
        residual = torch.cat([lowest, lowest + steps.cumsum(-1)], -1)
        members = weights.shape[0]
        shared = columns if columns.dim() == 3 else columns.expand(members, *columns.shape)
        location = torch.baddbmm(self.intercept[:, :, None], shared, self.slopes)
        return location + self.scale[:, :, None] * residual

    def _loss(self, weights: torch.Tensor, rows: Rows, *, training: bool) -> torch.Tensor:
        quantiles = self.quantiles(weights, self.columns[rows.index], training=training)
        losses = pinball_loss(self.exposure[rows.index], quantiles, self.levels)
        return rows.mean(losses / self.scale)

    def training_loss(self, weights: Weights, batch: Rows | None) -> torch.Tensor:
        """Pinball loss in units of the residual scale."""
        assert batch is not None
        return self._loss(weights[0], batch, training=True)

    def validation_loss(self, weights: Weights) -> torch.Tensor:
        """Pinball loss on rows that were left out."""
        return self._loss(weights[0], self.validation_rows, training=False)

    def _take_members(self, kept: torch.Tensor) -> None:
        self.validation_rows = self.validation_rows.take(kept)
        self.intercept, self.slopes = self.intercept[kept], self.slopes[kept]
        self.scale = self.scale[kept]
