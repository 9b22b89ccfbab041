"""Instrumental variable quantile networks: `QuantileIV`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.exposure_law import quantile_levels, quantile_nodes
from mrfast.nonlinear.networks.backend import chosen_device
from mrfast.nonlinear.networks.exposure_stage import (
    ExposureDesign,
    ExposureStage,
    PredictedLaw,
    Replicate,
    Sample,
)
from mrfast.nonlinear.networks.network_estimator import TrainingRun
from mrfast.nonlinear.networks.two_stage_networks import TwoStageNetworks, by_member

if TYPE_CHECKING:
    import torch

__all__ = ["QuantileIV"]

_TABLE_POINTS, _ROW_POINTS = 32, 6  # of the quadrature, without and with covariates


class QuantileIV(TwoStageNetworks):
    """Causal curve from networks for the quantiles of the exposure and for the outcome.

    The first network predicts quantiles of the exposure given instruments and covariates, which
    cannot cross, by the pinball loss; it adds to a ridge regression. The second, h, minimises the
    mean of (y - E[h(X, c) | z, c])^2, the expectation being a Gauss-Hermite sum over the predicted
    quantile function; it adds to the two-stage least squares line. With cross-fitting, nobody's
    quantiles come from a network that has seen that person's exposure, and the curve is the
    mean of the networks of all folds.

    Parameters
    ----------
    n_quantiles : int
        Levels (k - 1/2) / n_quantiles.
    hidden, outcome_hidden : sequence of int
        Widths of the hidden layers of the two networks.
    activation : str
        ``"gelu"``, ``"leaky_relu"``, ``"relu"``, ``"silu"``, ``"softplus"`` or ``"tanh"``.
    batch_norm : bool
        Normalise hidden layers by the batch.
    learning_rate, weight_decay, batch_size, max_epochs, patience
        Of the exposure network. Training ends `patience` epochs after the lowest loss of the
        people left out, whose weights are used.
    outcome_learning_rate, outcome_weight_decay, outcome_batch_size, outcome_max_epochs,
    outcome_patience
        Of the outcome network. Without covariates every step uses all people, and an epoch has
        five steps.
    outcome_networks : int or None
        Outcome networks on the same people, which differ in the weights that they begin with;
        the curve is the mean of all. None: 3 without covariates, where they cost little, else 1.
    splitting : str
        ``"cross_fitting"``; ``"separate"`` halves of the people for the two stages; ``"single"``,
        one split for both.
    folds : int
        Of the cross-fitting.
    validation_proportion : float
        Share of the people left out in the other splittings.
    n_bootstrap : int
        Bootstrap samples of people, or of their clusters, for limits; each is fitted in full, many
        at a time.
    warm_start : bool
        Begin the networks of bootstrap samples with those of the fit, and with its folds.
    uncertainty : str, optional
        Prediction intervals for the outcome, ``interval="conformal"``; no limits of the curve.
        ``"simultaneous_quantile"``: between quantiles of the outcome, all from one network q(x, c,
        level) whose mean over the exposure's law is compared with the outcome;
        ``"residual_network"``, ``"absolute"``: around the curve, of learnt or of constant width.
        All are calibrated on people who take no part in the fit.
    calibration_proportion : float
        Share of the people that is set aside for that.
    outcome : str
        ``"binary"`` makes h a log odds and averages probabilities; ``"auto"`` does so if all
        outcomes are 0 or 1; ``"continuous"``.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    n_threads : int or None
        CPU threads of torch; None takes all. The last bits depend on it.
    rng : None, int or Generator

    References
    ----------
    Hartford et al. 2017, https://proceedings.mlr.press/v70/hartford17a.html
    """

    name = "quantile_iv"
    title = "Quantile IV"

    def __init__(
        self,
        *,
        n_quantiles: int = 25,
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
        uncertainty: str | None = None,
        calibration_proportion: float = 0.2,
        outcome: str = "auto",
        device: str = "auto",
        n_threads: int | None = 1,
        rng: object = 0,
    ) -> None:
        self.n_quantiles = check.integer("n_quantiles", n_quantiles, minimum=3, maximum=1000)
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
        self.uncertainty = uncertainty
        self.calibration_proportion = calibration_proportion
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
        import torch

        from mrfast.nonlinear.networks.exposure_quantiles import QuantileProblem
        from mrfast.nonlinear.networks.stacked import StackedNetwork
        from mrfast.nonlinear.networks.training import TrainingOptions

        device = chosen_device(self.device)
        levels = quantile_levels(self.n_quantiles)
        design = ExposureDesign(first, replicates)
        problem = QuantileProblem(
            first.columns,
            first.exposure,
            design.training,
            design.validation,
            levels=levels,
            network=StackedNetwork(
                first.columns.shape[1],
                self.hidden,
                self.n_quantiles,
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

        points = _TABLE_POINTS if first.covariates is None else _ROW_POINTS
        to_nodes, probabilities = quantile_nodes(levels, points)

        def predict(member: int, columns: Float, _: np.random.Generator) -> PredictedLaw:
            place = torch.tensor([member], device=device)
            rows = torch.as_tensor(columns, dtype=torch.float32, device=device)
            with torch.no_grad():
                quantiles = problem.take(place).quantiles(done.weights[0][place], rows)[0]
            nodes = quantiles.double().cpu().numpy() @ to_nodes
            mean = nodes @ probabilities
            variance = (nodes - mean[:, None]) ** 2 @ probabilities
            return PredictedLaw(nodes, None, mean, variance)

        diagnostics = {"exposure_epochs": int(done.best_epoch[: design.networks].max())}
        return design.stage(predict, probabilities, second, done.weights[0], diagnostics)
