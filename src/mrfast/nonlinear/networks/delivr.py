"""Networks of the linearly predicted exposure: `DeLIVR`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import MrfastWarning
from mrfast.nonlinear.estimator import Fit
from mrfast.nonlinear.exposure_law import quantile_levels, quantile_nodes
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.networks.exposure_stage import (
    ExposureDesign,
    ExposureStage,
    PredictedLaw,
    Replicate,
    Sample,
)
from mrfast.nonlinear.networks.linear_location import linear_locations, weighted_quantiles
from mrfast.nonlinear.networks.network_estimator import TrainingRun
from mrfast.nonlinear.networks.two_stage_networks import TwoStageNetworks
from mrfast.nonlinear.reduced_form import ReducedFormTests, reduced_form_tests

if TYPE_CHECKING:
    import torch

__all__ = ["DeLIVR"]

_RESIDUALS = ("averaged", "ignored")
_RESIDUAL_QUANTILES = 101
_TABLE_POINTS, _ROW_POINTS = 32, 10  # of the quadrature, without and with covariates
_DOUBT = 0.01  # p-value of a test below which its message is given


class DeLIVR(TwoStageNetworks):
    """Causal curve from a linear first stage and a network for the outcome.

    The exposure is a linear prediction m(z, c) plus a residual V. The published estimator, with
    ``residuals="ignored"``, regresses the outcome on m: what it learns is E[f(m + V) | m], which
    is the causal function f itself only where f is linear. Such a fit warns where the data say
    that f is not. By default the network h minimises the mean of (y - E_V[h(m + V, c)])^2, the
    expectation being over the residuals of the first stage: right where V does not depend on the
    instruments, which is tested. Where it does, `QuantileIV` and `DeepIV` learn its law.

    The tests of no effect and of linearity, in ``diagnostics_``, are regressions of the outcome on
    powers of the prediction of people whom it was not fitted to. They are valid for either kind of
    fit: E[Y | m] is constant if f is constant, and a line in m if f is a line.

    Parameters
    ----------
    residuals : str
        ``"averaged"`` or ``"ignored"``.
    outcome_hidden : sequence of int
        Widths of the hidden layers.
    activation : str
        ``"gelu"``, ``"leaky_relu"``, ``"relu"``, ``"silu"``, ``"softplus"`` or ``"tanh"``.
    batch_norm : bool
        Normalise hidden layers by the batch.
    outcome_learning_rate, outcome_weight_decay, outcome_batch_size, outcome_max_epochs,
    outcome_patience, outcome_networks
        Of the network, as of `QuantileIV`.
    splitting, folds, validation_proportion
        As of `QuantileIV`.
    n_bootstrap : int
        Bootstrap samples of people, or of their clusters, for limits.
    warm_start : bool
        Begin the networks of bootstrap samples with those of the fit, and with its folds.
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
    He, Liu, Lin, Zhuang and Pan 2023, https://doi.org/10.1093/biostatistics/kxac051
    """

    name = "delivr"
    title = "DeLIVR"

    # There is no network of the exposure.
    hidden = ()
    learning_rate = 1.0
    weight_decay = 0.0
    batch_size = 2
    max_epochs = patience = 1

    def __init__(
        self,
        *,
        residuals: str = "averaged",
        outcome_hidden: Sequence[int] = (64, 32),
        activation: str = "gelu",
        batch_norm: bool = False,
        outcome_learning_rate: float = 1e-3,
        outcome_weight_decay: float = 1e-4,
        outcome_batch_size: int = 1000,
        outcome_max_epochs: int = 1000,
        outcome_patience: int = 20,
        outcome_networks: int = 3,
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
        self.residuals = check.choice("residuals", residuals, _RESIDUALS)
        self.outcome_hidden = tuple(outcome_hidden)
        self.activation, self.batch_norm = activation, batch_norm
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
        design = ExposureDesign(first, replicates)
        coefficients, _ = linear_locations(
            first.columns, first.exposure, design.training, design.validation
        )
        levels = quantile_levels(_RESIDUAL_QUANTILES)
        points = _TABLE_POINTS if first.covariates is None else _ROW_POINTS
        to_nodes, shares = quantile_nodes(levels, points)
        ignored = self.residuals == "ignored"

        def predict(member: int, columns: Float, _: np.random.Generator) -> PredictedLaw:
            mean = coefficients[member, 0] + columns @ coefficients[member, 1:]
            if ignored:
                return PredictedLaw(mean[:, None], None, mean, np.zeros_like(mean))
            scatter = residual_nodes[member]
            variance = float(scatter**2 @ shares)
            return PredictedLaw(mean[:, None] + scatter, None, mean, np.full_like(mean, variance))

        residual_nodes = []
        for row, weight in zip(coefficients, design.training, strict=True):
            used = weight > 0
            errors = first.exposure[used] - row[0] - first.columns[used] @ row[1:]
            nodes = weighted_quantiles(errors, weight[used], levels) @ to_nodes
            residual_nodes.append(nodes - float(nodes @ shares))
        probabilities = np.ones(1) if ignored else shares
        return design.stage(predict, probabilities, second, None, {})

    def _fit(self, data: IVData) -> Fit:
        run: TrainingRun = self._run
        fit = super()._fit(data)
        tests = reduced_form_tests(data, run.stage2)
        return Fit(
            fit.curve,
            fit.diagnostics | tests.to_dict(),
            (*fit.messages, *self._notes(tests)),
        )

    def _notes(self, tests: ReducedFormTests) -> list[str]:
        """What a reader should know; a fit that must not be taken for the curve also warns."""
        notes = []
        if self.residuals == "ignored":
            text = (
                "this fit is E[Y | predicted exposure], which is the causal function only where "
                f"that is linear (p-value of linearity {tests.linearity_p_value:.2g})"
            )
            notes.append(text)
            if tests.linearity_p_value < _DOUBT:
                warnings.warn(f"{text}: use residuals='averaged'", MrfastWarning, stacklevel=5)
        elif tests.spread_p_value < _DOUBT:
            notes.append(
                "the spread of the exposure about its prediction changes with the prediction "
                f"(p-value {tests.spread_p_value:.2g}), which this estimator assumes it does not: "
                "compare QuantileIV"
            )
        return notes
