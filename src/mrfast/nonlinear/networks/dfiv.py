"""Deep feature instrumental variable regression: `DFIV`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.network_curve import NetworkShape
from mrfast.nonlinear.networks.backend import chosen_device
from mrfast.nonlinear.networks.moment_networks import (
    MomentNetworks,
    MomentSample,
    Replicate,
    TrainedMembers,
)

if TYPE_CHECKING:
    import torch

    from mrfast.nonlinear.networks.stacked import StackedNetwork

__all__ = ["DFIV"]

_STEPS_PER_EPOCH = 5
_MOST_ROWS = 10_000  # of a fold, that the regressions of a validation are fitted to


class DFIV(MomentNetworks):
    """Causal curve that is linear in learnt features of the exposure.

    Stage 1 is a ridge regression of features of exposure and covariates on features of instruments
    and covariates, stage 2 one of the outcome on the predicted features and the covariates. The
    networks of the features are trained through both regressions in closed form. What differs from
    the published method: the penalties are in rows of data, so that they vanish as data grow and
    do not depend on the features' scale; the exposure itself is a feature that is not penalised;
    covariates enter the features of both stages; stage 1 predicts people whom it was not fitted to;
    and the curve is a mean over networks.

    Parameters
    ----------
    instrument_features, exposure_features : int
        Outputs of the two networks.
    hidden, outcome_hidden : sequence of int
        Widths of the hidden layers of the networks of instruments and of the exposure.
    activation : str
        ``"gelu"``, ``"leaky_relu"``, ``"relu"``, ``"silu"``, ``"softplus"`` or ``"tanh"``.
    instrument_inputs : str
        ``"score"``: the network of instruments sees their linear prediction of the exposure and
        the covariates; ``"columns"``: it sees all instruments, which asks for far more people.
    instrument_ridge, exposure_ridge : float
        Penalties of the two regressions, in rows.
    learning_rate, weight_decay : float
        Of the network of instruments.
    outcome_learning_rate, outcome_weight_decay : float
        Of the network of the exposure.
    first_stage_steps : int
        Steps of the network of instruments before each of the other.
    batch_size : int
        People of each fold in a step.
    max_epochs, patience : int
        An epoch has five steps of the exposure's network. Training ends `patience` epochs after
        the lowest loss of the people left out, whose weights are used.
    n_networks : int
        Structural functions that the curve is the mean of, each from its own division of people.
    validation_proportion : float
        Share of the people left out.
    n_bootstrap : int
        Bootstrap samples of people, or of their clusters, for limits.
    calibration_proportion : float
        Share of the people set aside for ``interval="conformal"``; 0 for no such interval.
    conformal_score : str
        ``"residual_network"``: width by exposure and covariates; ``"absolute"``: one width;
        ``"simultaneous_quantile"``: between learnt quantiles of the outcome.
    outcome : str
        ``"binary"``, in which case the curve, a risk, is kept between 0 and 1; ``"continuous"``;
        ``"auto"``, binary if all outcomes are 0 or 1.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    n_threads : int or None
        CPU threads of torch; None takes all. The last bits depend on it.
    rng : None, int or Generator

    References
    ----------
    Xu, Chen, Srinivasan, de Freitas, Doucet and Gretton 2021, https://arxiv.org/abs/2010.07154
    """

    name = "dfiv"
    title = "Deep feature IV"

    def __init__(
        self,
        *,
        instrument_features: int = 8,
        exposure_features: int = 8,
        hidden: Sequence[int] = (64, 32),
        outcome_hidden: Sequence[int] = (64, 32),
        activation: str = "gelu",
        instrument_inputs: str = "score",
        instrument_ridge: float = 10.0,
        exposure_ridge: float = 100.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        outcome_learning_rate: float = 1e-3,
        outcome_weight_decay: float = 1e-4,
        first_stage_steps: int = 1,
        batch_size: int = 2000,
        max_epochs: int = 60,
        patience: int = 10,
        n_networks: int = 4,
        validation_proportion: float = 0.2,
        n_bootstrap: int = 0,
        calibration_proportion: float = 0.0,
        conformal_score: str = "residual_network",
        outcome: str = "auto",
        device: str = "auto",
        n_threads: int | None = 1,
        rng: object = 0,
    ) -> None:
        self.instrument_features = check.integer(
            "instrument_features", instrument_features, minimum=1, maximum=256
        )
        self.exposure_features = check.integer(
            "exposure_features", exposure_features, minimum=1, maximum=256
        )
        self.hidden, self.outcome_hidden = tuple(hidden), tuple(outcome_hidden)
        self.activation, self.instrument_inputs = activation, instrument_inputs
        self.instrument_ridge = check.scalar("instrument_ridge", instrument_ridge, minimum=0.0)
        self.exposure_ridge = check.scalar("exposure_ridge", exposure_ridge, minimum=0.0)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.outcome_learning_rate = outcome_learning_rate
        self.outcome_weight_decay = outcome_weight_decay
        self.first_stage_steps = check.integer("first_stage_steps", first_stage_steps, minimum=1)
        self.batch_size, self.max_epochs, self.patience = batch_size, max_epochs, patience
        self.n_networks, self.validation_proportion = n_networks, validation_proportion
        self.n_bootstrap = n_bootstrap
        self.calibration_proportion = calibration_proportion
        self.conformal_score = conformal_score
        self.outcome = outcome
        self.device, self.n_threads, self.rng = device, n_threads, rng
        self._check_options()

    @property
    def _proportions(self) -> Float:
        fold = (1 - self.validation_proportion) / 2
        return np.array([fold, fold, self.validation_proportion])

    def _shape(self, sample: MomentSample) -> NetworkShape:
        return NetworkShape(
            hidden=self.outcome_hidden,
            activation=self.activation,
            batch_norm=False,
            binary=False,
            input_shift=sample.input_shift,
            input_scale=sample.input_scale,
            outcome_shift=sample.outcome_shift,
            outcome_scale=sample.outcome_scale,
            clipped=sample.binary,
        )

    def _train(
        self, sample: MomentSample, replicates: Sequence[Replicate], label: str
    ) -> TrainedMembers:
        import torch

        from mrfast.nonlinear.networks.deep_features import (
            DeepFeatureProblem,
            DeepFeatureVariables,
        )
        from mrfast.nonlinear.networks.optimiser import Adam
        from mrfast.nonlinear.networks.rows import Rows
        from mrfast.nonlinear.networks.stacked import StackedNetwork
        from mrfast.nonlinear.networks.training import TrainingOptions

        device, kind = chosen_device(self.device), torch.float32
        first, second, last = (
            np.concatenate([replicate.rows(part) for replicate in replicates]) for part in range(3)
        )
        members = len(last)
        folds = np.stack([first, second], axis=1).reshape(2 * members, -1)
        scores = sample.scores(folds, np.repeat(last, 2, axis=0))
        variables = DeepFeatureVariables(
            sample.instruments(scores, self.instrument_inputs, device),
            torch.as_tensor(sample.inputs, dtype=kind, device=device),
            torch.as_tensor(sample.outcome, dtype=kind, device=device),
        )
        networks = (
            StackedNetwork(
                variables.instruments.shape[-1],
                self.hidden,
                self.instrument_features,
                activation=self.activation,
            ),
            StackedNetwork(
                variables.inputs.shape[1],
                self.outcome_hidden,
                self.exposure_features,
                activation=self.activation,
            ),
        )
        starts = [
            np.concatenate(
                [
                    network.initial(replicate.generator.spawn(count * self.n_networks))
                    for replicate in replicates
                ]
            ).reshape(members, -1)
            for network, count in zip(networks, (2, 1), strict=True)
        ]
        rates = (
            (self.learning_rate, self.weight_decay, np.tile(networks[0].decayed, 2)),
            (self.outcome_learning_rate, self.outcome_weight_decay, networks[1].decayed),
        )
        optimisers = [
            Adam(
                torch.as_tensor(start, dtype=kind, device=device).requires_grad_(),
                learning_rate=rate,
                weight_decay=decay,
                decayed=decayed,
            )
            for start, (rate, decay, decayed) in zip(starts, rates, strict=True)
        ]
        problem = DeepFeatureProblem(
            variables,
            networks,
            (optimisers[0], optimisers[1]),
            Rows.from_weights(folds, dtype=kind, device=device),
            Rows.from_weights(last, dtype=kind, device=device),
            instrument_ridge=self.instrument_ridge,
            exposure_ridge=self.exposure_ridge,
            batch_size=self.batch_size,
            first_stage_steps=self.first_stage_steps,
            most_rows=_MOST_ROWS,
            generator=replicates[0].generator,
        )
        options = TrainingOptions(None, self.max_epochs, self.patience, _STEPS_PER_EPOCH)
        done = self._run.train(problem, options, f"feature networks{label}")
        pairs = []
        for member in torch.arange(members, device=device)[:, None]:  # all rows, little memory
            best = tuple(weights.detach()[member] for weights in done.weights)
            alone = problem.take(member)
            with torch.no_grad():
                line = alone.stages((best[0], best[1]), alone.folds)[1]
            pairs.append(
                _one_output(networks[1], best[1], line.coefficients[..., 0], line.offset()[:, 0, 0])
            )
        weights, linear = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        return TrainedMembers(weights, linear, done.best_epoch, done.best_loss)


def _one_output(
    network: StackedNetwork,
    weights: torch.Tensor,
    coefficients: torch.Tensor,
    offset: torch.Tensor,
) -> tuple[Float, Float]:
    """Networks of the one output that coefficients make of several, and linear parts.

    Parameters
    ----------
    network : StackedNetwork
    weights : Tensor, shape (members, n_weights)
    coefficients : Tensor, shape (members, 1 + outputs + q)
        Of the exposure, the outputs and the covariates.
    offset : Tensor, shape (members,)

    Returns
    -------
    weights : ndarray, shape (members, n_weights of the network of one output)
    linear : ndarray, shape (members, 2 + q)
    """
    import torch

    members, outputs = len(weights), network.outputs
    width = network.hidden[-1]
    split = weights.shape[1] - (width + 1) * outputs
    own = coefficients[:, 1 : 1 + outputs, None].double()
    last = weights[:, split : split + width * outputs].reshape(members, width, outputs).double()
    shift = weights[:, split + width * outputs :].reshape(members, 1, outputs).double()
    joined = [weights[:, :split].double(), (last @ own)[..., 0], (shift @ own)[..., 0]]
    line = [offset[:, None], coefficients[:, :1], coefficients[:, 1 + outputs :]]
    return (
        torch.cat(joined, 1).detach().cpu().numpy(),
        torch.cat(line, 1).detach().double().cpu().numpy(),
    )
