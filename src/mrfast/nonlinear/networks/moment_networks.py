"""What `DFIV` and `DeepGMM` share: exposure and outcome of the same people, several networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.estimator import Fit
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.network_curve import NetworkCurve, NetworkShape
from mrfast.nonlinear.network_function import ACTIVATIONS
from mrfast.nonlinear.networks.backend import DEVICES, chosen_device
from mrfast.nonlinear.networks.linear_location import (
    first_stage_f,
    linear_locations,
    standardised,
)
from mrfast.nonlinear.networks.network_estimator import NetworkEstimator, TrainingRun
from mrfast.nonlinear.networks.prediction_intervals import (
    CONFORMAL_SCORES,
    calibration_split,
    with_prediction_intervals,
)
from mrfast.nonlinear.networks.rows import bootstrap_counts, fold_codes, group_codes

if TYPE_CHECKING:
    import torch

__all__ = ["INSTRUMENT_INPUTS", "MomentNetworks", "MomentSample", "Replicate", "TrainedMembers"]

INSTRUMENT_INPUTS = ("score", "columns")
_MEMBERS_TOGETHER = 60  # networks in one training on a CPU
_WEAK, _TOO_WEAK = 20.0, 10.0


@dataclass(frozen=True)
class Replicate:
    """All people or a bootstrap sample of them, divided for each network.

    Attributes
    ----------
    weight : ndarray, shape (n,)
    parts : ndarray of int64, shape (networks, n)
        Part of each person; the last one validates.
    generator : numpy Generator
    """

    weight: Float
    parts: NDArray[np.int64]
    generator: np.random.Generator

    def rows(self, part: int) -> Float:
        """Weights of the rows of a part, (networks, n)."""
        return np.where(self.parts == part, self.weight, 0.0)


@dataclass(frozen=True)
class TrainedMembers:
    """Structural functions of some replicates.

    Attributes
    ----------
    weights : ndarray, shape (replicates * networks, n_weights)
        Of perceptrons of one output.
    linear : ndarray, shape (replicates * networks, 2 + q)
        Intercepts and slopes that their values are added to.
    best_epoch, best_loss : ndarray, shape (replicates * networks,)
    """

    weights: Float
    linear: Float
    best_epoch: NDArray[np.int64]
    best_loss: NDArray[np.float64]


class MomentSample:
    """People of a fit in standardised units.

    Attributes
    ----------
    columns : ndarray, shape (n, p + q)
        Instruments and covariates.
    inputs : ndarray, shape (n, 1 + q)
        Exposure and covariates.
    outcome : ndarray, shape (n,)
        In its own units if binary.
    weight : ndarray, shape (n,)
    groups : ndarray of int64, shape (n,)
    """

    def __init__(self, data: IVData, *, binary: bool) -> None:
        self.data = data
        self.binary = binary
        self.columns, shift, scale = standardised(data.instruments, data.covariates)
        x, y = data.exposure, data.outcome
        self.input_shift = np.concatenate([[x.mean()], shift[data.p :]])
        self.input_scale = np.concatenate([[x.std()], scale[data.p :]])
        self.outcome_shift = 0.0 if binary else float(y.mean())
        self.outcome_scale = 1.0 if binary else float(y.std())
        exposure = (x - self.input_shift[0]) / self.input_scale[0]
        self.inputs = np.column_stack([exposure, self.columns[:, data.p :]])
        self.outcome = (y - self.outcome_shift) / self.outcome_scale
        self.weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
        self.groups = group_codes(data.n, data.clusters)

    @property
    def exposure(self) -> Float:
        """First of the inputs, (n,)."""
        return self.inputs[:, 0]

    @property
    def covariates(self) -> Float | None:
        """The other inputs, (n, q)."""
        return self.inputs[:, 1:] if self.data.q else None

    def scores(self, training: Float, validation: Float) -> Float:
        """Linear predictions of the exposure, each from other rows, with variance 1.

        Parameters
        ----------
        training, validation : ndarray, shape (sets, n)
            Weights of the rows that a regression is fitted to, and that choose its penalty.

        Returns
        -------
        ndarray, shape (sets, n)
        """
        coefficients = linear_locations(self.columns, self.exposure, training, validation)[0]
        scores = np.stack([row[0] + self.columns @ row[1:] for row in coefficients])
        spread = scores.std(axis=1, keepdims=True)
        return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-12))

    def instruments(self, scores: Float, inputs: str, device: torch.device) -> torch.Tensor:
        """What networks of instruments see: scores and covariates of each set, or all columns.

        Returns
        -------
        Tensor, shape (sets, n, 1 + q) or (n, p + q)
        """
        import torch

        if inputs == "columns":
            return torch.as_tensor(self.columns, dtype=torch.float32, device=device)
        own = torch.as_tensor(scores, dtype=torch.float32, device=device).unsqueeze(2)
        if self.covariates is None:
            return own
        others = torch.as_tensor(self.covariates, dtype=torch.float32, device=device)
        return torch.cat([own, others.expand(len(own), *others.shape)], 2)

    def replicate(
        self,
        proportions: Float,
        networks: int,
        generator: np.random.Generator,
        *,
        resampled: bool,
    ) -> Replicate:
        """Everybody, or a bootstrap sample of the groups, drawn before any division."""
        counts = bootstrap_counts(self.groups, generator) if resampled else None
        weight = self.weight if counts is None else self.weight * counts
        parts = [fold_codes(self.groups, proportions, generator, counts) for _ in range(networks)]
        return Replicate(weight, np.stack(parts), generator)


class MomentNetworks(NetworkEstimator):
    """Base of `DFIV` and `DeepGMM`: everything but the networks' game.

    The curve is the mean of `n_networks` structural functions, each from its own division of the
    people and its own start; all of them, and those of bootstrap samples, are trained at once.
    """

    hidden: tuple[int, ...]
    outcome_hidden: tuple[int, ...]
    activation: str
    instrument_inputs: str
    learning_rate: float
    weight_decay: float
    outcome_learning_rate: float
    outcome_weight_decay: float
    batch_size: int
    max_epochs: int
    patience: int
    n_networks: int
    validation_proportion: float
    n_bootstrap: int
    calibration_proportion: float
    conformal_score: str
    outcome: str

    def _check_options(self) -> None:
        """Refuse options that are not usable; called by constructors."""
        for name in ("hidden", "outcome_hidden"):
            widths = getattr(self, name)
            if not np.iterable(widths) or not tuple(widths):
                raise check.fail(name, "a sequence of at least one width", repr(widths))
            setattr(self, name, tuple(check.integer(name, width, minimum=1) for width in widths))
        check.choice("activation", self.activation, ACTIVATIONS)
        check.choice("instrument_inputs", self.instrument_inputs, INSTRUMENT_INPUTS)
        for name in ("learning_rate", "outcome_learning_rate"):
            check.scalar(name, getattr(self, name), above=0.0)
        for name in ("weight_decay", "outcome_weight_decay"):
            check.scalar(name, getattr(self, name), minimum=0.0)
        check.integer("batch_size", self.batch_size, minimum=20)
        for name in ("max_epochs", "patience", "n_networks"):
            check.integer(name, getattr(self, name), minimum=1)
        check.scalar("validation_proportion", self.validation_proportion, above=0.0, maximum=0.5)
        check.scalar("calibration_proportion", self.calibration_proportion, minimum=0, maximum=0.5)
        check.choice("conformal_score", self.conformal_score, CONFORMAL_SCORES)
        if check.integer("n_bootstrap", self.n_bootstrap, minimum=0) == 1:
            raise check.fail("n_bootstrap", "0, or at least 2 for a spread", "1")
        check.choice("outcome", self.outcome, ("auto", "continuous", "binary"))
        check.choice("device", self.device, DEVICES)
        if self.n_threads is not None:
            _runtime.thread_count(self.n_threads)
        _runtime.generator(self.rng)

    @property
    @abstractmethod
    def _proportions(self) -> Float:
        """Shares of the parts of the people; the last part validates."""

    @abstractmethod
    def _train(
        self, sample: MomentSample, replicates: Sequence[Replicate], label: str
    ) -> TrainedMembers:
        """Train the networks of some replicates at once, through ``self._run``."""

    @abstractmethod
    def _shape(self, sample: MomentSample) -> NetworkShape:
        """How the trained members are evaluated."""

    def _fit(self, data: IVData) -> Fit:
        run: TrainingRun = self._run
        if run.stage2 is not None:
            raise check.fail(
                "stage2",
                f"None: {type(self).__name__} needs exposure and outcome of the same people",
                "other people",
            )
        if self.outcome == "binary" and not data.binary_outcome:
            raise check.fail("outcome", "0 and 1 only, as outcome='binary' says", "other values")
        binary = self.outcome == "binary" or (self.outcome == "auto" and data.binary_outcome)
        generators = _runtime.generator(self.rng).spawn(2 + self.n_bootstrap)
        people, calibration = calibration_split(data, self.calibration_proportion, generators[0])
        sample = MomentSample(people, binary=binary)
        replicates = [
            sample.replicate(self._proportions, self.n_networks, generator, resampled=place > 0)
            for place, generator in enumerate(generators[1:])
        ]
        main = self._train(sample, replicates[:1], "")
        trained = [main]
        device = chosen_device(self.device)
        most = _MEMBERS_TOGETHER if device.type == "cpu" else 10_000
        together = max(most // self.n_networks, 1)
        for begin in range(1, len(replicates), together):
            some = replicates[begin : begin + together]
            label = f", bootstrap samples {begin} to {begin + len(some) - 1}"
            trained.append(self._train(sample, some, label))
        low, high = np.quantile(people.exposure, [0.025, 0.975])
        curve = NetworkCurve(
            self._shape(sample),
            *(
                np.concatenate([getattr(part, name) for part in trained]).reshape(
                    len(replicates), self.n_networks, -1
                )
                for name in ("weights", "linear")
            ),
            central=(float(low), float(high)),
            full=(float(people.exposure.min()), float(people.exposure.max())),
            people=people.covariates,
        )
        strength = first_stage_f(
            sample.columns[:, : people.p], sample.covariates, sample.exposure, sample.weight
        )
        diagnostics: dict[str, Any] = {
            "first_stage_f": strength,
            "best_epochs": main.best_epoch.tolist(),
            "held_out_loss": float(main.best_loss.mean() * sample.outcome_scale**2),
            "spread_of_networks": _spread(curve),
        }
        if self.n_bootstrap:
            diagnostics["bootstrap_samples"] = self.n_bootstrap
        return with_prediction_intervals(
            Fit(curve, diagnostics, tuple(self._notes(strength, binary))),
            people,
            calibration,
            score=self.conformal_score,
            run=run,
            generator=generators[0],
            device=device,
        )

    def _notes(self, strength: float, binary: bool) -> list[str]:
        """What a reader of the fit should know."""
        notes = []
        if strength < _WEAK:
            word = "too weak for a curve" if strength < _TOO_WEAK else "weak"
            notes.append(
                f"the instruments are {word} (F = {strength:.1f}): the curve leans towards the "
                "confounded regression or towards nothing; SieveIV has intervals for this case"
            )
        if binary:
            notes.append(
                "the risk is identified by its moments, E[Y - f(X) | Z] = 0, that is for "
                "confounding that adds to the risk"
            )
        if self.n_bootstrap:
            notes.append("bootstrap limits do not allow for the bias of networks that stop early")
        return notes


def _spread(curve: NetworkCurve) -> float:
    """Median standard deviation, over the central 95%, of the fit's networks about their mean."""
    count = curve.weights.shape[1]
    if count < 2:
        return float("nan")
    x = np.linspace(*curve.central, 50)
    people = None if curve.people is None else curve.people.mean(axis=0)
    inputs = x[:, None] if people is None else np.column_stack([x, np.tile(people, (50, 1))])
    values = [
        curve.shape.values(weights, linear, inputs)
        for weights, linear in zip(curve.weights[0], curve.linear[0], strict=True)
    ]
    return float(np.median(np.std(values, axis=0, ddof=1)))
