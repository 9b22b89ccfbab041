"""Training of the networks behind conformal prediction intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.network_shapes import (
    NetworkInputs,
    QuantileEnds,
    ResidualScale,
    quantile_inputs,
)
from mrfast.nonlinear.networks.optimiser import Adam
from mrfast.nonlinear.networks.rows import Rows, fold_codes, group_codes
from mrfast.nonlinear.networks.stacked import StackedNetwork
from mrfast.nonlinear.networks.training import (
    TrainingOptions,
    TrainingProblem,
    Weights,
)

if TYPE_CHECKING:
    from mrfast.nonlinear.networks.network_estimator import TrainingRun

__all__ = [
    "PredictionOptions",
    "pinball_loss",
    "train_quantile_ends",
    "train_residual_scale",
]

_HELD_OUT = 0.2

RowLosses = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]
"""Losses of rows, from the weights, the rows' places, and whether the network trains."""


@dataclass(frozen=True)
class PredictionOptions:
    """Networks of prediction intervals, and how they train.

    Attributes
    ----------
    hidden : tuple of int
    activation : str
    learning_rate, weight_decay : float
    batch_size, max_epochs, patience : int
    """

    hidden: tuple[int, ...] = (64, 32)
    activation: str = "gelu"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    batch_size: int = 1000
    max_epochs: int = 200
    patience: int = 10


def pinball_loss(error: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Loss that the quantile of a level minimises, of outcomes less predictions.

    Parameters
    ----------
    error, level : Tensor, of one shape

    Returns
    -------
    Tensor
    """
    return torch.maximum(level * error, (level - 1) * error)


class _RowProblem(TrainingProblem):
    """One network whose loss is a mean of losses of rows."""

    def __init__(
        self,
        network: StackedNetwork,
        rows: tuple[Rows, Rows],
        losses: RowLosses,
        options: PredictionOptions,
        generator: np.random.Generator,
    ) -> None:
        kind, device = rows[0].weight.dtype, rows[0].weight.device
        weights = torch.as_tensor(network.initial([generator]), dtype=kind, device=device)
        self.optimisers = (
            Adam(
                weights.requires_grad_(),
                learning_rate=options.learning_rate,
                weight_decay=options.weight_decay,
                decayed=network.decayed,
            ),
        )
        self.training_rows, self._validation = rows
        self.generator = generator
        self._losses = losses

    def training_loss(self, weights: Weights, batch: Rows | None) -> torch.Tensor:
        """Mean over a batch."""
        assert batch is not None
        return batch.mean(self._losses(weights[0], batch.index[0], True)[None])

    def validation_loss(self, weights: Weights) -> torch.Tensor:
        """Mean over the rows that stop the training."""
        rows = self._validation
        return rows.mean(self._losses(weights[0], rows.index[0], False)[None])


def _trained(
    network: StackedNetwork,
    people: IVData,
    losses: RowLosses,
    stage: str,
    *,
    options: PredictionOptions,
    run: TrainingRun,
    generator: np.random.Generator,
    device: torch.device,
) -> NDArray[np.float64]:
    """Weights of the network; clusters stay together in training or beside it."""
    weight = np.ones(people.n) if people.sample_weight is None else people.sample_weight
    groups = group_codes(people.n, people.clusters)
    parts = fold_codes(groups, np.array([1 - _HELD_OUT, _HELD_OUT]), generator)
    training, validation = (
        Rows.from_weights((weight * (parts == part))[None], dtype=torch.float32, device=device)
        for part in (0, 1)
    )
    problem = _RowProblem(network, (training, validation), losses, options, generator)
    schedule = TrainingOptions(options.batch_size, options.max_epochs, options.patience)
    trained = run.train(problem, schedule, stage)
    return np.asarray(trained.weights[0][0].detach().double().cpu().numpy())


def train_residual_scale(
    residuals: Float,
    people: IVData,
    *,
    options: PredictionOptions,
    run: TrainingRun,
    generator: np.random.Generator,
    device: torch.device,
) -> ResidualScale:
    """Learn the expected absolute residual of people by exposure and covariates.

    Parameters
    ----------
    residuals : ndarray of float64, shape: (n,)
        Outcomes less the curve.
    people : IVData
        Those of the fit; none of the calibration.
    options : PredictionOptions
    run : TrainingRun
    generator : numpy Generator
    device : torch.device

    Returns
    -------
    ResidualScale
    """
    standard = NetworkInputs.of(people.exposure, people.covariates)
    sizes = np.abs(residuals)
    unit = float(np.average(sizes, weights=people.sample_weight)) or 1.0
    network = StackedNetwork(
        1 + people.q, options.hidden, 1, activation=options.activation, zero_output=True
    )
    start = float(np.log(np.expm1(1.0)))  # softplus of it is 1: the mean absolute residual
    inputs = torch.as_tensor(
        standard(people.exposure, people.covariates), dtype=torch.float32, device=device
    )
    aims = torch.as_tensor(sizes / unit, dtype=torch.float32, device=device)

    def losses(weights: torch.Tensor, index: torch.Tensor, training: bool) -> torch.Tensor:
        raw = network(weights, inputs[index])[0, :, 0] + start
        return (torch.nn.functional.softplus(raw) - aims[index]) ** 2

    weights = _trained(
        network,
        people,
        losses,
        "residual network",
        options=options,
        run=run,
        generator=generator,
        device=device,
    )
    return ResidualScale(weights, standard, options.hidden, options.activation, start, unit)


def train_quantile_ends(
    nodes: Float,
    probabilities: Float,
    people: IVData,
    *,
    options: PredictionOptions,
    run: TrainingRun,
    generator: np.random.Generator,
    device: torch.device,
) -> QuantileEnds:
    """Learn all quantiles of the outcome in one network, by random levels.

    The pinball loss of level t compares the outcome with the mean of q(x, c, t) over the nodes of
    a person's exposure given the instruments; one node, the exposure itself, gives the quantiles
    of the outcome given exposure and covariates.

    Parameters
    ----------
    nodes : ndarray, shape: (n, k)
        Values of the exposure that stand for its law given the instruments, see `QuantileIV`.
    probabilities : ndarray, shape: (k,)
        Their weights, of sum 1.
    people : IVData
        Those of the fit; none of the calibration.
    options : PredictionOptions
    run : TrainingRun
    generator : numpy Generator
    device : torch.device

    Returns
    -------
    QuantileEnds
    """
    standard = NetworkInputs.of(people.exposure, people.covariates)
    centre = float(np.average(people.outcome, weights=people.sample_weight))
    spread = float(people.outcome.std()) or 1.0
    network = StackedNetwork(3 + people.q, options.hidden, 1, activation=options.activation)

    def tensor(values: NDArray[np.generic]) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    ends = standard.exposure_range
    exposures = tensor((np.clip(nodes, *ends) - standard.centre[0]) / standard.scale[0])
    covariates = tensor(standard(people.exposure, people.covariates)[:, 1:])
    aims = tensor((people.outcome - centre) / spread)
    shares = tensor(probabilities)
    # Levels of the rows that decide when to stop: evenly spread, the same at every epoch.
    fixed = (generator.permutation(people.n) + 0.5) / people.n

    def losses(weights: torch.Tensor, index: torch.Tensor, training: bool) -> torch.Tensor:
        chosen = generator.uniform(1e-4, 1 - 1e-4, len(index)) if training else fixed[index.cpu()]
        rows, count = len(index), exposures.shape[1]
        others = torch.cat([covariates[index], tensor(quantile_inputs(chosen))], 1)
        repeated = others.repeat_interleave(count, 0)
        inputs = torch.cat([exposures[index].reshape(-1, 1), repeated], 1)
        means = network(weights, inputs)[0, :, 0].reshape(rows, count) @ shares
        return pinball_loss(aims[index] - means, tensor(chosen))

    weights = _trained(
        network,
        people,
        losses,
        "quantile network",
        options=options,
        run=run,
        generator=generator,
        device=device,
    )
    return QuantileEnds(weights, standard, options.hidden, options.activation, centre, spread)
