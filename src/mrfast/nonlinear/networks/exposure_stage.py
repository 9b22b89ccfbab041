"""From the networks of the first stage to the law of everybody's exposure: `ExposureDesign`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.nonlinear.exposure_law import Calibration, ExposureLaw, calibration
from mrfast.nonlinear.networks.divisions import Division

if TYPE_CHECKING:
    import torch

    from mrfast.nonlinear.networks.two_stage_networks import TwoStageNetworks

__all__ = ["ExposureDesign", "ExposureStage", "PredictedLaw", "Predictor", "Replicate", "Sample"]

_BLOCK = 20_000  # people whose law is predicted at once


@dataclass(frozen=True)
class Sample:
    """People of a stage, in standardised units.

    Attributes
    ----------
    columns : ndarray, shape (n, p + q)
        Instruments and covariates.
    exposure, outcome : ndarray, shape (n,)
        A binary outcome is 0 or 1.
    covariates : ndarray, shape (n, q), or None
    weight : ndarray, shape (n,)
    groups : ndarray of int64, shape (n,)
    """

    columns: Float
    exposure: Float
    outcome: Float
    covariates: Float | None
    weight: Float
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Replicate:
    """A fit to all people or to a bootstrap sample of them.

    Attributes
    ----------
    estimator : TwoStageNetworks
        Whose rates of learning and decay it uses.
    exposure_weight, outcome_weight : ndarray, shape (n,)
        Weights of the people of each stage; 0 for those not drawn.
    exposure_division, outcome_division : Division
        The same object where both stages have the same people.
    generator : numpy Generator
    """

    estimator: TwoStageNetworks
    exposure_weight: Float
    outcome_weight: Float
    exposure_division: Division
    outcome_division: Division
    generator: np.random.Generator


@dataclass(frozen=True)
class PredictedLaw:
    """Laws of some people's exposure from one network.

    Attributes
    ----------
    nodes : ndarray, shape (m, points)
    second : ndarray, shape (m, points), or None
        Independent draws, where the nodes are draws too.
    mean, variance : ndarray, shape (m,)
    """

    nodes: Float
    second: Float | None
    mean: Float
    variance: Float


@dataclass(frozen=True)
class ExposureStage:
    """What the first stage of some replicates leaves.

    Attributes
    ----------
    laws : list of ExposureLaw
        Of the people of the outcome's stage, one for each replicate.
    means : list of ndarray, shape (n,)
        Of these laws.
    weights : Tensor or None
        Of the networks, shape (replicates * networks, n_weights).
    diagnostics : dict
        Of the first replicate.
    """

    laws: list[ExposureLaw]
    means: list[Float]
    weights: torch.Tensor | None
    diagnostics: dict[str, Any]


Predictor = Callable[[int, Float, np.random.Generator], PredictedLaw]


class ExposureDesign:
    """Networks of the first stage of some replicates, one after the other.

    Parameters
    ----------
    sample : Sample
        People of the exposure's stage.
    replicates : sequence of Replicate

    Attributes
    ----------
    training, validation : ndarray, shape (members, n)
        Weights of the rows of each network.
    owner : ndarray of int64, shape (members,)
        Replicate of each network.
    """

    def __init__(self, sample: Sample, replicates: Sequence[Replicate]) -> None:
        self.sample, self.replicates = sample, replicates
        self.networks = len(replicates[0].exposure_division.exposure_training)
        self.owner = np.repeat(np.arange(len(replicates)), self.networks)
        self.training, self.validation = (
            np.concatenate(
                [
                    getattr(replicate.exposure_division, name) * replicate.exposure_weight
                    for replicate in replicates
                ]
            )
            for name in ("exposure_training", "exposure_validation")
        )

    def generators(self) -> list[np.random.Generator]:
        """One for each network."""
        return [
            child
            for replicate in self.replicates
            for child in replicate.generator.spawn(self.networks)
        ]

    def stage(
        self,
        predict: Predictor,
        probabilities: Float,
        second: Sample,
        weights: torch.Tensor | None,
        diagnostics: dict[str, Any],
    ) -> ExposureStage:
        """Laws of the people of the outcome's stage, calibrated where they are out of sample.

        Parameters
        ----------
        predict : callable
            Takes a network's place, columns of people and a generator.
        probabilities : ndarray, shape (points,)
        second : Sample
            People of the outcome's stage: those of the exposure's stage, or others, each of whom
            one of the networks predicts.
        weights : Tensor or None
            Kept for warm starts.
        diagnostics : dict
            Completed by those of the calibration.
        """
        laws: list[ExposureLaw] = []
        means: list[Float] = []
        for place, replicate in enumerate(self.replicates):
            division = replicate.exposure_division
            predicting = division.predicting
            law = self._predicted(predict, place, self.sample, predicting)
            people = np.arange(predicting.size)
            unseen = (predicting >= 0) & ~division.exposure_training[predicting, people]
            used = np.flatnonzero(unseen & (replicate.exposure_weight > 0))
            correction = calibration(
                law.mean[used],
                law.variance[used],
                self.sample.exposure[used],
                replicate.exposure_weight[used],
            )
            if place == 0:
                diagnostics |= self._quality(correction, law.mean[used], used)
            if second is not self.sample:
                several = np.arange(len(second.columns)) % self.networks
                law = self._predicted(predict, place, second, several)
            nodes, other = (
                None if draws is None else correction.apply(draws, law.mean)
                for draws in (law.nodes, law.second)
            )
            assert nodes is not None
            laws.append(ExposureLaw(nodes, probabilities, other))
            means.append(correction.intercept + correction.slope * law.mean)
        return ExposureStage(laws, means, weights, diagnostics)

    def _predicted(
        self, predict: Predictor, place: int, sample: Sample, by: NDArray[np.int64]
    ) -> PredictedLaw:
        """Laws of all people of a sample, each by one network of a replicate."""
        n = len(sample.columns)
        result: dict[str, Float] = {}
        for network in range(self.networks):
            rows = np.flatnonzero(by == network)
            for begin in range(0, rows.size, _BLOCK):
                block = rows[begin : begin + _BLOCK]
                law = predict(
                    place * self.networks + network,
                    sample.columns[block],
                    self.replicates[place].generator,
                )
                for name, values in vars(law).items():
                    if values is not None:
                        result.setdefault(name, np.zeros((n, *values.shape[1:])))[block] = values
        return PredictedLaw(
            result["nodes"], result.get("second"), result["mean"], result["variance"]
        )

    def _quality(
        self, correction: Calibration, mean: Float, used: NDArray[np.int64]
    ) -> dict[str, Any]:
        """How well the exposure of people is predicted whom the network has not seen."""
        x, w = self.sample.exposure[used], self.replicates[0].exposure_weight[used]
        level = w @ x / w.sum()
        fitted = correction.intercept + correction.slope * mean
        explained = 1 - float(w @ (x - fitted) ** 2) / float(w @ (x - level) ** 2)
        return {
            "exposure_r_squared_held_out": explained,
            "calibration_slope": correction.slope,
            "calibration_spread": correction.ratio,
        }
