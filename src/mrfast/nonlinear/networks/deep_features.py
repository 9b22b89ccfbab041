"""The two regressions of deep feature instrumental variables, and how their networks train.

psi(x, c) are features of the exposure and the covariates, the exposure itself and the outputs of a
network; phi(z, c) are features of the instruments and the covariates, made alike. Stage 1
regresses psi on phi, stage 2 the outcome on the predicted psi and c. Both are ridge regressions in
closed form, through which the losses are differentiated. The training rows are in two folds: the
stage 1 of each fold predicts in the other, so that what it learnt by heart does not reach stage 2.
Tensors of folds have each member's two one after the other, (2 members, ...).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from mrfast.nonlinear.networks.optimiser import Adam
from mrfast.nonlinear.networks.rows import Rows
from mrfast.nonlinear.networks.stacked import StackedNetwork
from mrfast.nonlinear.networks.stage_regression import StackedRidge, ridge_regression
from mrfast.nonlinear.networks.training import TrainingProblem, Weights

__all__ = ["DeepFeatureProblem", "DeepFeatureVariables"]


@dataclass(frozen=True)
class DeepFeatureVariables:
    """Standardised data of all people.

    Attributes
    ----------
    instruments : Tensor, shape (n, d) or (2 members, n, d)
        What phi sees, covariates among it; each fold may have its own.
    inputs : Tensor, shape (n, 1 + q)
        Exposure and covariates.
    outcome : Tensor, shape (n,)
    """

    instruments: torch.Tensor
    inputs: torch.Tensor
    outcome: torch.Tensor

    def instruments_at(self, index: torch.Tensor) -> torch.Tensor:
        """Rows of each fold's own instruments, (2 members, rows, d)."""
        if self.instruments.dim() == 2:
            return self.instruments[index]
        folds = torch.arange(len(index), device=index.device)
        return self.instruments[folds[:, None], index]

    def take(self, kept: torch.Tensor) -> DeepFeatureVariables:
        """Variables of some of the members."""
        if self.instruments.dim() == 2:
            return self
        return replace(self, instruments=_of_folds(self.instruments, kept))


def _of_folds(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Both folds of some of the members."""
    return values.unflatten(0, (-1, 2))[kept].flatten(0, 1)


def _flipped(values: torch.Tensor) -> torch.Tensor:
    """What belongs to the other fold, (2 members, ...)."""
    return values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _joined(values: torch.Tensor) -> torch.Tensor:
    """The rows of both folds as a member's, (2 members, rows, ...) to (members, 2 rows, ...)."""
    return values.unflatten(0, (-1, 2)).flatten(1, 2)


class DeepFeatureProblem(TrainingProblem):
    """Alternating updates of the networks of phi and psi.

    Parameters
    ----------
    variables : DeepFeatureVariables
    networks : (StackedNetwork, StackedNetwork)
        Of phi and psi.
    optimisers : (Adam, Adam)
        Likewise. A member's row in the first holds the networks of both folds.
    folds, validation : Rows
        Training rows of both folds, shape (2 members, ...), and the rows that stop each member.
    instrument_ridge, exposure_ridge : float
        Penalties of the two regressions, in rows; see `ridge_regression`. The exposure itself and
        the covariates are not penalised in stage 2.
    batch_size : int
        Rows of each fold in a step.
    first_stage_steps : int
        Steps of phi before each step of psi.
    most_rows : int
        Rows of a fold that the regressions of a validation are fitted to.
    generator : numpy Generator
    """

    training_rows = None

    def __init__(
        self,
        variables: DeepFeatureVariables,
        networks: tuple[StackedNetwork, StackedNetwork],
        optimisers: tuple[Adam, Adam],
        folds: Rows,
        validation: Rows,
        *,
        instrument_ridge: float,
        exposure_ridge: float,
        batch_size: int,
        first_stage_steps: int,
        most_rows: int,
        generator: np.random.Generator,
    ) -> None:
        self.variables = variables
        self.networks = networks
        self.optimisers = optimisers
        self.folds = folds
        self.validation = validation
        self.instrument_ridge = instrument_ridge
        self.batch_size = batch_size
        self.first_stage_steps = first_stage_steps
        self.generator = generator
        covariates = variables.inputs.shape[1] - 1
        penalised = [0.0, *[exposure_ridge] * networks[1].outputs, *[0.0] * covariates]
        self._penalties = torch.tensor([penalised], device=variables.inputs.device)
        self._fixed = self._columns(most_rows)

    def _take_members(self, kept: torch.Tensor) -> None:
        self.variables = self.variables.take(kept)
        self.validation = self.validation.take(kept)
        index, weight = self.folds.index, self.folds.weight
        self.folds = Rows(_of_folds(index, kept), _of_folds(weight, kept))

    # ------------------------------------------------------------------ the two stages

    def instrument_features(self, weights: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Values of phi of each fold's network, (2 members, rows, columns)."""
        own = weights.reshape(-1, self.networks[0].n_weights)
        inputs = self.variables.instruments_at(index)
        return torch.cat([inputs, self.networks[0](own, inputs)], 2)

    def exposure_features(self, weights: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Values of psi, (members, rows, 1 + outputs)."""
        inputs = self.variables.inputs[index]
        return torch.cat([inputs[..., :1], self.networks[1](weights, inputs)], 2)

    def stages(self, weights: Weights, rows: Rows) -> tuple[StackedRidge, StackedRidge]:
        """First stages of both folds, and the second stage on what each predicts in the other."""
        own = self.exposure_features(weights[1], _joined(rows.index))
        first = self._first_stage(weights[0], own.unflatten(1, (2, -1)).flatten(0, 1), rows)
        other = _flipped(rows.index)
        predicted = _joined(first.predict(self.instrument_features(weights[0], other)))
        index, weight = _joined(other), _joined(_flipped(rows.weight))
        columns = self._second_columns(predicted, index)
        outcome = self.variables.outcome[index].unsqueeze(2)
        return first, ridge_regression(columns, outcome, weight, self._penalties)

    def _first_stage(
        self, weights: torch.Tensor, features: torch.Tensor, rows: Rows
    ) -> StackedRidge:
        columns = self.instrument_features(weights, rows.index)
        return ridge_regression(columns, features, rows.weight, self.instrument_ridge)

    def _second_columns(self, features: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.cat([features, self.variables.inputs[index][..., 1:]], 2)

    # ------------------------------------------------------------------ training

    def _columns(self, most: int) -> torch.Tensor | slice:
        """Random places of the folds' lists, at most so many."""
        if self.folds.width <= most:
            return slice(None)
        chosen = self.generator.choice(self.folds.width, most, replace=False)
        return torch.as_tensor(chosen, device=self.folds.index.device)

    def _batch(self) -> Rows:
        return self.folds.columns(self._columns(self.batch_size))

    def step(self, batch: Rows | None) -> torch.Tensor:
        """Some steps of phi down the first loss, then one of psi down the second."""
        first, second = self.optimisers
        for _ in range(self.first_stage_steps):
            losses = self.first_stage_loss(first.weights, second.weights, self._batch())
            first.step(torch.autograd.grad(losses.sum(), first.weights)[0])
        weights = (first.weights.detach(), second.weights)
        losses = self.stages(weights, self._batch())[1].penalised_loss[:, 0]
        second.step(torch.autograd.grad(losses.sum(), second.weights)[0])
        return losses.detach()

    def first_stage_loss(
        self, instrument: torch.Tensor, exposure: torch.Tensor, rows: Rows
    ) -> torch.Tensor:
        """Penalised loss of stage 1, each feature in units of its variance, (2 members,)."""
        with torch.no_grad():
            features = self.exposure_features(exposure, _joined(rows.index))
            features = features.unflatten(1, (2, -1)).flatten(0, 1)
            share = (rows.weight / rows.weight.sum(1, keepdim=True)).unsqueeze(2)
            variance = (share * (features - (share * features).sum(1, keepdim=True)) ** 2).sum(1)
        loss = self._first_stage(instrument, features, rows).penalised_loss
        return (loss / variance.clamp_min(1e-10)).mean(1)

    def validation_loss(self, weights: Weights) -> torch.Tensor:
        """Mean squared error of the second stage on rows that no stage was fitted to."""
        first, second = self.stages(weights, self.folds.columns(self._fixed))
        rows = self.validation
        both = self.instrument_features(weights[0], rows.index.repeat_interleave(2, 0))
        predicted = first.predict(both).unflatten(0, (-1, 2)).mean(1)
        columns = self._second_columns(predicted, rows.index)
        error = self.variables.outcome[rows.index] - second.predict(columns)[..., 0]
        return rows.mean(error * error)
