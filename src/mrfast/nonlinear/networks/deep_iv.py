"""Deep instrumental variables: `DeepIV`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.networks.backend import chosen_device
from mrfast.nonlinear.networks.exposure_stage import (
    ExposureDesign,
    ExposureStage,
    PredictedLaw,
    Predictor,
    Replicate,
    Sample,
)
from mrfast.nonlinear.networks.network_estimator import TrainingRun
from mrfast.nonlinear.networks.two_stage_networks import TwoStageNetworks, by_member

if TYPE_CHECKING:
    import torch

__all__ = ["DeepIV"]

_FIRST_STAGES = ("mixture", "gaussian", "ridge")
_TABLE_DRAWS, _ROW_DRAWS = 32, 8  # of each of two independent sets, without and with covariates


class DeepIV(TwoStageNetworks):
    """Causal curve from a network for the density of the exposure and one for the outcome.

    The first network gives a mixture of normal laws by its likelihood. The second, h, minimises
    the mean of (h(x') - y)(h(x'') - y), where x' and x'' are independent sets of draws from the
    exposure's law of each person: unlike (h(x'') - y)^2 its expectation is the mean of
    (y - E[h(X, c) | z, c])^2 without the variance of h, in training and in validation.

    Parameters
    ----------
    first_stage : str
        ``"mixture"`` of normal laws, ``"gaussian"``: mean and variance from the network, or
        ``"ridge"``: normal residuals of one variance about a ridge regression.
    components : int
        Of the mixture.
    hidden, outcome_hidden : sequence of int
        Widths of the hidden layers of the two networks.
    activation, batch_norm, learning_rate, weight_decay, batch_size, max_epochs, patience,
    outcome_learning_rate, outcome_weight_decay, outcome_batch_size, outcome_max_epochs,
    outcome_patience, outcome_networks, splitting, folds, validation_proportion, n_bootstrap,
    warm_start, outcome, device, n_threads, rng
        As of `QuantileIV`.

    References
    ----------
    Hartford et al. 2017, https://proceedings.mlr.press/v70/hartford17a.html
    """

    name = "deep_iv"
    title = "Deep IV"

    def __init__(
        self,
        *,
        first_stage: str = "mixture",
        components: int = 5,
        hidden: Sequence[int] = (128, 64),
        outcome_hidden: Sequence[int] = (64, 32),
        activation: str = "gelu",
        batch_norm: bool = False,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 1000,
        max_epochs: int = 200,
        patience: int = 5,
        outcome_learning_rate: float = 1e-3,
        outcome_weight_decay: float = 1e-4,
        outcome_batch_size: int = 250,
        outcome_max_epochs: int = 1000,
        outcome_patience: int = 15,
        outcome_networks: int | None = None,
        splitting: str = "cross_fitting",
        folds: int = 5,
        validation_proportion: float = 0.2,
        n_bootstrap: int = 0,
        warm_start: bool = False,
        outcome: str = "auto",
        device: str = "auto",
        n_threads: int | None = 1,
        rng: object = 0,
    ) -> None:
        self.first_stage = check.choice("first_stage", first_stage, _FIRST_STAGES)
        self.components = check.integer("components", components, minimum=1, maximum=100)
        self.hidden, self.outcome_hidden = tuple(hidden), tuple(outcome_hidden)
        self.activation, self.batch_norm = activation, batch_norm
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.batch_size, self.max_epochs, self.patience = batch_size, max_epochs, patience
        self.outcome_learning_rate = outcome_learning_rate
        self.outcome_weight_decay = outcome_weight_decay
        self.outcome_batch_size = outcome_batch_size
        self.outcome_max_epochs = outcome_max_epochs
        self.outcome_patience = outcome_patience
        self.outcome_networks = outcome_networks
        self.splitting, self.folds = splitting, folds
        self.validation_proportion = validation_proportion
        self.n_bootstrap, self.warm_start = n_bootstrap, warm_start
        self.outcome = outcome
        self.device, self.n_threads, self.rng = device, n_threads, rng
        self._check_options()

    def _exposure_stage(
        self,
        run: TrainingRun,
        first: Sample,
        second: Sample,
        replicates: Sequence[Replicate],
        label: str,
        start: torch.Tensor | None,
    ) -> ExposureStage:
        draws = _TABLE_DRAWS if first.covariates is None else _ROW_DRAWS
        probabilities = np.full(draws, 1 / draws)
        design = ExposureDesign(first, replicates)
        if self.first_stage == "ridge":
            return design.stage(_ridge(design, draws), probabilities, second, None, {})

        import torch

        from mrfast.nonlinear.networks.exposure_densities import (
            DensityProblem,
            mixture_draws,
            mixture_moments,
        )
        from mrfast.nonlinear.networks.stacked import StackedNetwork
        from mrfast.nonlinear.networks.training import TrainingOptions

        device = chosen_device(self.device)
        components = self.components if self.first_stage == "mixture" else 1
        problem = DensityProblem(
            first.columns,
            first.exposure,
            design.training,
            design.validation,
            network=StackedNetwork(
                first.columns.shape[1],
                self.hidden,
                3 * components,
                activation=self.activation,
                batch_norm=self.batch_norm,
                zero_output=True,
            ),
            generators=design.generators(),
            generator=replicates[0].generator,
            learning_rate=by_member(replicates, design.owner, "learning_rate", device),
            weight_decay=by_member(replicates, design.owner, "weight_decay", device),
            device=device,
            start=None if start is None else start.repeat(len(replicates), 1),
        )
        done = run.train(
            problem,
            TrainingOptions(self.batch_size, self.max_epochs, self.patience),
            f"exposure network{label}",
        )

        def predict(member: int, columns: Float, generator: np.random.Generator) -> PredictedLaw:
            place = torch.tensor([member], device=device)
            rows = torch.as_tensor(columns, dtype=torch.float32, device=device)
            with torch.no_grad():
                log_weights, *others = problem.take(place).mixture(done.weights[0][place], rows)
            weights, means, scales = (
                part[0].double().cpu().numpy() for part in (log_weights.exp(), *others)
            )
            sets = [mixture_draws(weights, means, scales, draws, generator) for _ in range(2)]
            return PredictedLaw(sets[0], sets[1], *mixture_moments(weights, means, scales))

        diagnostics = {"exposure_epochs": int(done.best_epoch[: design.networks].max())}
        return design.stage(predict, probabilities, second, done.weights[0], diagnostics)


def _ridge(design: ExposureDesign, draws: int) -> Predictor:
    """Normal law of one variance about a ridge regression."""
    from mrfast.nonlinear.networks.linear_location import linear_locations

    sample = design.sample
    locations, scales = linear_locations(
        sample.columns, sample.exposure, design.training, design.validation
    )

    def predict(member: int, columns: Float, generator: np.random.Generator) -> PredictedLaw:
        mean = locations[member, 0] + columns @ locations[member, 1:]
        sets = [
            mean[:, None] + scales[member] * generator.standard_normal((len(mean), draws))
            for _ in range(2)
        ]
        return PredictedLaw(sets[0], sets[1], mean, np.full(len(mean), scales[member] ** 2))

    return predict
