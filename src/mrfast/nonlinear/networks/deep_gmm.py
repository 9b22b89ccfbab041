"""Deep generalised method of moments: `DeepGMM`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.network_curve import NetworkShape
from mrfast.nonlinear.networks.backend import chosen_device
from mrfast.nonlinear.networks.linear_location import linear_locations
from mrfast.nonlinear.networks.moment_networks import (
    MomentNetworks,
    MomentSample,
    Replicate,
    TrainedMembers,
)
from mrfast.nonlinear.networks.structural_function import linear_parts

__all__ = ["DeepGMM"]

_STEPS_PER_EPOCH = 5


class DeepGMM(MomentNetworks):
    """Causal curve whose residuals no function of the instruments predicts.

    A network h of exposure and covariates and an adversary, a network of instruments and
    covariates, are trained in turns: the adversary seeks the moments E[f(Z, C) (Y - h(X, C))] that
    are furthest from zero for their variance, h brings them towards zero. The network h adds to the
    line of two-stage least squares. What differs from the published method: the last layer of the
    adversary is the supremum in closed form instead of a step towards it; products of people's
    moments with themselves, which draw h to the confounded regression, are left out; training ends
    by the moments of fixed functions in people left out; and the curve is a mean over networks.

    Parameters
    ----------
    adversary_features : int
        Outputs of the adversary's network.
    hidden, outcome_hidden : sequence of int
        Widths of the hidden layers of the adversary and of h.
    activation : str
        ``"gelu"``, ``"leaky_relu"``, ``"relu"``, ``"silu"``, ``"softplus"`` or ``"tanh"``.
    instrument_inputs : str
        ``"score"``: the adversary sees the linear prediction of the exposure and the covariates;
        ``"columns"``: it sees all instruments, which asks for far more people.
    learning_rate, weight_decay : float
        Of the adversary.
    outcome_learning_rate, outcome_weight_decay : float
        Of h.
    adversary_steps : int
        Steps of the adversary before each of h.
    batch_size : int
        People in a step.
    max_epochs, patience : int
        An epoch has five steps of h. Training ends `patience` epochs after the lowest distance of
        the moments of the people left out, whose weights are used.
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
        ``"binary"`` makes h a log odds, of which probabilities enter the moments; ``"auto"`` does
        so if all outcomes are 0 or 1; ``"continuous"``.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    n_threads : int or None
        CPU threads of torch; None takes all. The last bits depend on it.
    rng : None, int or Generator

    References
    ----------
    Bennett, Kallus and Schnabel 2019, https://arxiv.org/abs/1905.12495
    """

    name = "deep_gmm"
    title = "Deep GMM"

    def __init__(
        self,
        *,
        adversary_features: int = 8,
        hidden: Sequence[int] = (64, 32),
        outcome_hidden: Sequence[int] = (64, 32),
        activation: str = "gelu",
        instrument_inputs: str = "score",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        outcome_learning_rate: float = 3e-3,
        outcome_weight_decay: float = 1e-4,
        adversary_steps: int = 1,
        batch_size: int = 2000,
        max_epochs: int = 200,
        patience: int = 20,
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
        self.adversary_features = check.integer(
            "adversary_features", adversary_features, minimum=1, maximum=256
        )
        self.hidden, self.outcome_hidden = tuple(hidden), tuple(outcome_hidden)
        self.activation, self.instrument_inputs = activation, instrument_inputs
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.outcome_learning_rate = outcome_learning_rate
        self.outcome_weight_decay = outcome_weight_decay
        self.adversary_steps = check.integer("adversary_steps", adversary_steps, minimum=1)
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
        return np.array([1 - self.validation_proportion, self.validation_proportion])

    def _shape(self, sample: MomentSample) -> NetworkShape:
        return NetworkShape(
            hidden=self.outcome_hidden,
            activation=self.activation,
            batch_norm=False,
            binary=sample.binary,
            input_shift=sample.input_shift,
            input_scale=sample.input_scale,
            outcome_shift=sample.outcome_shift,
            outcome_scale=sample.outcome_scale,
        )

    def _train(
        self, sample: MomentSample, replicates: Sequence[Replicate], label: str
    ) -> TrainedMembers:
        import torch

        from mrfast.nonlinear.networks.adversarial_moments import (
            AdversarialProblem,
            MomentVariables,
        )
        from mrfast.nonlinear.networks.optimiser import Adam
        from mrfast.nonlinear.networks.rows import Rows
        from mrfast.nonlinear.networks.stacked import StackedNetwork
        from mrfast.nonlinear.networks.training import TrainingOptions

        device, kind = chosen_device(self.device), torch.float32
        training, validation = (
            np.concatenate([replicate.rows(part) for replicate in replicates]) for part in range(2)
        )
        scores = sample.scores(training, validation)
        tests = torch.as_tensor(
            np.stack([_test_functions(score, sample.covariates) for score in scores]),
            dtype=kind,
            device=device,
        )
        variables = MomentVariables(
            sample.instruments(scores, self.instrument_inputs, device),
            tests,
            torch.as_tensor(sample.inputs, dtype=kind, device=device),
            torch.as_tensor(sample.outcome, dtype=kind, device=device),
        )
        coefficients, _ = linear_locations(sample.columns, sample.exposure, training, validation)
        linear = np.concatenate(
            [
                linear_parts(
                    row[0] + sample.columns @ row[1:],
                    sample.outcome,
                    sample.covariates,
                    weight[None],
                    binary=sample.binary,
                )
                for row, weight in zip(coefficients, training, strict=True)
            ]
        )
        networks = (
            StackedNetwork(
                variables.instruments.shape[-1],
                self.hidden,
                self.adversary_features,
                activation=self.activation,
            ),
            StackedNetwork(
                variables.inputs.shape[1],
                self.outcome_hidden,
                1,
                activation=self.activation,
                zero_output=True,
            ),
        )
        rates = (
            (self.learning_rate, self.weight_decay),
            (self.outcome_learning_rate, self.outcome_weight_decay),
        )
        optimisers = []
        for network, (rate, decay) in zip(networks, rates, strict=True):
            start = np.concatenate(
                [network.initial(each.generator.spawn(self.n_networks)) for each in replicates]
            )
            weights = torch.as_tensor(start, dtype=kind, device=device).requires_grad_()
            optimisers.append(
                Adam(weights, learning_rate=rate, weight_decay=decay, decayed=network.decayed)
            )
        problem = AdversarialProblem(
            variables,
            networks,
            (optimisers[0], optimisers[1]),
            torch.as_tensor(linear, dtype=kind, device=device),
            Rows.from_weights(training, dtype=kind, device=device),
            Rows.from_weights(validation, dtype=kind, device=device),
            binary=sample.binary,
            batch_size=self.batch_size,
            adversary_steps=self.adversary_steps,
            generator=replicates[0].generator,
        )
        options = TrainingOptions(None, self.max_epochs, self.patience, _STEPS_PER_EPOCH)
        done = self._run.train(problem, options, f"moment networks{label}")
        best = done.weights[1].detach().double().cpu().numpy()
        return TrainedMembers(best, linear, done.best_epoch, done.best_loss)


def _test_functions(score: Float, covariates: Float | None) -> Float:
    """Functions of instruments and covariates whose moments end the training, (n, k).

    Hermite polynomials of the linear prediction, up to the third, and with covariates these and
    their products with it.
    """
    columns = [np.ones_like(score), score, score**2 - 1, score**3 - 3 * score]
    if covariates is not None:
        columns += [*covariates.T, *(covariates * score[:, None]).T]
    return np.column_stack(columns)
