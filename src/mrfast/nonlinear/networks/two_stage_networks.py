"""Estimators in two stages of networks: the exposure's law, then the structural function."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.estimator import Fit
from mrfast.nonlinear.iv_data import IVData, iv_data
from mrfast.nonlinear.network_curve import NetworkCurve, NetworkShape
from mrfast.nonlinear.network_function import ACTIVATIONS
from mrfast.nonlinear.networks.backend import DEVICES, chosen_device, require_torch
from mrfast.nonlinear.networks.divisions import SPLITTINGS, Division, divide
from mrfast.nonlinear.networks.exposure_stage import ExposureStage, Replicate, Sample
from mrfast.nonlinear.networks.linear_location import first_stage_f, standardised
from mrfast.nonlinear.networks.network_estimator import NetworkEstimator, TrainingRun
from mrfast.nonlinear.networks.prediction_intervals import (
    CONFORMAL_SCORES,
    calibration_split,
    with_prediction_intervals,
)
from mrfast.nonlinear.networks.rows import bootstrap_counts, group_codes

if TYPE_CHECKING:
    import torch

__all__ = ["TwoStageNetworks", "by_member"]

_MEMBERS_TOGETHER = 60  # networks in one training on a CPU
_GRID = 128  # points of the exposure, without covariates
_STEPS_PER_EPOCH = 5  # there: all people are in each
_WEAK, _TOO_WEAK = 20.0, 10.0


class TwoStageNetworks(NetworkEstimator):
    """Base of `QuantileIV` and `DeepIV`: everything but the law of the exposure."""

    hidden: tuple[int, ...]
    outcome_hidden: tuple[int, ...]
    activation: str
    batch_norm: bool
    learning_rate: float
    weight_decay: float
    batch_size: int
    max_epochs: int
    patience: int
    outcome_learning_rate: float
    outcome_weight_decay: float
    outcome_batch_size: int
    outcome_max_epochs: int
    outcome_patience: int
    outcome_networks: int | None
    splitting: str
    folds: int
    validation_proportion: float
    n_bootstrap: int
    warm_start: bool
    outcome: str
    uncertainty: str | None = None
    calibration_proportion: float = 0.2

    def _check_options(self) -> None:
        """Refuse options that are not usable; called by constructors."""
        for name in ("hidden", "outcome_hidden"):
            widths = getattr(self, name)
            if isinstance(widths, (int, np.integer)) or not np.iterable(widths):
                raise check.fail(name, "a sequence of widths", repr(widths))
            setattr(self, name, tuple(check.integer(name, width, minimum=1) for width in widths))
        check.choice("activation", self.activation, ACTIVATIONS)
        check.flag("batch_norm", self.batch_norm)
        for name in ("learning_rate", "outcome_learning_rate"):
            check.scalar(name, getattr(self, name), above=0.0)
        for name in ("weight_decay", "outcome_weight_decay"):
            check.scalar(name, getattr(self, name), minimum=0.0)
        for name in ("batch_size", "outcome_batch_size"):
            check.integer(name, getattr(self, name), minimum=2)
        for name in ("max_epochs", "patience", "outcome_max_epochs", "outcome_patience"):
            check.integer(name, getattr(self, name), minimum=1)
        check.choice("splitting", self.splitting, SPLITTINGS)
        if self.outcome_networks is not None:
            check.integer("outcome_networks", self.outcome_networks, minimum=1, maximum=100)
        check.integer("folds", self.folds, minimum=2, maximum=20)
        check.scalar("validation_proportion", self.validation_proportion, above=0.0, below=1.0)
        if check.integer("n_bootstrap", self.n_bootstrap, minimum=0) == 1:
            raise check.fail("n_bootstrap", "0, or at least 2 for a spread", "1")
        check.flag("warm_start", self.warm_start)
        check.choice("outcome", self.outcome, ("auto", "continuous", "binary"))
        if self.uncertainty is not None:
            check.choice("uncertainty", self.uncertainty, CONFORMAL_SCORES)
        check.scalar("calibration_proportion", self.calibration_proportion, above=0.0, maximum=0.5)
        check.choice("device", self.device, DEVICES)
        if self.n_threads is not None:
            _runtime.thread_count(self.n_threads)
        if not isinstance(self.rng, np.random.Generator):
            _runtime.generator(self.rng)

    @abstractmethod
    def _exposure_stage(
        self,
        run: TrainingRun,
        first: Sample,
        second: Sample,
        replicates: Sequence[Replicate],
        label: str,
        start: torch.Tensor | None,
    ) -> ExposureStage:
        """Law of the exposure of the people of the outcome's stage, for each replicate."""

    # ------------------------------------------------------------------------- fitting

    def _fit(self, data: IVData) -> Fit:
        root = _runtime.generator(self.rng)
        if self.uncertainty is None:
            return self._fit_stages(data, root)[0]
        if self._run.stage2 is not None:
            raise check.fail("uncertainty", "None with other people in stage2", self.uncertainty)
        if data.binary_outcome:
            raise check.fail("uncertainty", "None with an outcome of 0 and 1", self.uncertainty)
        stream = root.spawn(1)[0]
        people, calibration = calibration_split(data, self.calibration_proportion, stream)
        fit, stage = self._fit_stages(people, root)
        law = stage.laws[0]
        return with_prediction_intervals(
            fit,
            people,
            calibration,
            score=self.uncertainty,
            run=self._run,
            generator=stream,
            device=chosen_device(self.device),
            nodes=people.exposure.mean() + people.exposure.std() * law.nodes,
            probabilities=law.probabilities,
        )

    def _fit_stages(self, data: IVData, root: np.random.Generator) -> tuple[Fit, ExposureStage]:
        """Both stages on all people and on bootstrap samples; the first stage of the former."""
        run = self._run
        task = _Task(self, data, run.stage2)
        generator, *others = root.spawn(1 + self.n_bootstrap)
        main = task.replicate(self, generator, None, None)
        stage, weights, linear, outcome = task.train(self, run, [main], "", None, None)
        pieces, lines = [weights], [linear]
        together = self._members_together() // task.networks or 1
        for begin in range(0, self.n_bootstrap, together):
            some = others[begin : begin + together]
            end = begin + len(some)
            samples = [
                task.replicate(self, child, child, main if self.warm_start else None)
                for child in some
            ]
            label = f", bootstrap samples {begin + 1} to {end}"
            starts = (stage.weights, weights[0]) if self.warm_start else (None, None)
            _, more, line, _ = task.train(self, run, samples, label, *starts)
            pieces.append(more)
            lines.append(line)
        curve = task.curve(np.concatenate(pieces), np.concatenate(lines), self)
        diagnostics = {**task.diagnostics, **stage.diagnostics, **outcome}
        if self.n_bootstrap:
            diagnostics["bootstrap_samples"] = self.n_bootstrap
        return Fit(curve, diagnostics, tuple(task.messages(self))), stage

    def _members_together(self) -> int:
        """Networks that are trained as one; more only fill a graphics processor."""
        return _MEMBERS_TOGETHER if chosen_device(self.device).type == "cpu" else 10_000

    @classmethod
    def fit_many(
        cls,
        estimators: Sequence[Self],
        instruments: object,
        exposure: object,
        outcome: object,
        covariates: object = None,
        *,
        sample_weight: object = None,
        clusters: object = None,
    ) -> list[Self]:
        """Fit several estimators to the same data as one batch of networks.

        They may differ in their rates of learning, weight decay and `rng`; all else is equal, and
        none has bootstrap samples.

        Parameters
        ----------
        estimators : sequence
        instruments, exposure, outcome, covariates, sample_weight, clusters
            See `fit`.

        Returns
        -------
        list
            The estimators, fitted.

        Raises
        ------
        InvalidInputError
            Others of their options differ.
        """
        require_torch(cls.__name__)
        if not estimators:
            return []
        data = iv_data(
            instruments,
            exposure,
            outcome,
            covariates,
            sample_weight=sample_weight,
            clusters=clusters,
        )
        first = estimators[0]
        for other in estimators:
            if cls._shared(other) != cls._shared(first) or type(other) is not type(first):
                raise check.fail(
                    "estimators",
                    f"options that differ in {', '.join(_BY_MEMBER)} only",
                    f"{other!r} beside {first!r}",
                )
        if first.n_bootstrap:
            raise check.fail("estimators", "n_bootstrap=0", str(first.n_bootstrap))
        if first.uncertainty is not None:
            raise check.fail("estimators", "uncertainty=None", repr(first.uncertainty))
        return first._fit_together(estimators, data)

    @staticmethod
    def _shared(estimator: TwoStageNetworks) -> dict[str, Any]:
        """Options that estimators trained together must share."""
        options = estimator.get_params()
        return {name: value for name, value in options.items() if name not in _BY_MEMBER}

    def _fit_together(self, estimators: Sequence[Self], data: IVData) -> list[Self]:
        from mrfast.nonlinear.networks.backend import limited_threads

        task = _Task(self, data, None)
        together = self._members_together() // task.networks or 1
        for begin in range(0, len(estimators), together):
            some = estimators[begin : begin + together]
            run = TrainingRun()
            replicates = [
                task.replicate(other, _runtime.generator(other.rng).spawn(1)[0], None, None)
                for other in some
            ]
            with limited_threads(self.n_threads):
                stage, weights, linear, outcome = task.train(self, run, replicates, "", None, None)
            for place, other in enumerate(some):
                curve = task.curve(weights[place : place + 1], linear[place : place + 1], other)
                diagnostics = dict(task.diagnostics)
                if place == 0:
                    diagnostics |= {**stage.diagnostics, **outcome}
                other._histories = run.histories
                other._keep(data, Fit(curve, diagnostics, tuple(task.messages(other))))
        return list(estimators)


_BY_MEMBER = (
    "learning_rate",
    "weight_decay",
    "outcome_learning_rate",
    "outcome_weight_decay",
    "rng",
)


class _Task:
    """Data of a fit in standardised units, and what is done with it for some replicates."""

    def __init__(self, estimator: TwoStageNetworks, data: IVData, stage2: IVData | None) -> None:
        outcome_data = data if stage2 is None else stage2
        if estimator.outcome == "binary" and not outcome_data.binary_outcome:
            raise check.fail("outcome", "0 and 1 only, as outcome='binary' says", "other values")
        self.binary = estimator.outcome == "binary" or (
            estimator.outcome == "auto" and outcome_data.binary_outcome
        )
        columns, shift, scale = standardised(data.instruments, data.covariates)
        self.exposure_shift = float(data.exposure.mean())
        self.exposure_scale = float(data.exposure.std())
        y = outcome_data.outcome
        self.outcome_shift = 0.0 if self.binary else float(y.mean())
        self.outcome_scale = 1.0 if self.binary else float(y.std())
        self.covariate_shift, self.covariate_scale = shift[data.p :], scale[data.p :]
        self.first = self._sample(data, columns)
        self.second = self.first
        self.outcome_data = outcome_data
        if stage2 is not None:
            parts = [stage2.instruments, stage2.covariates]
            others = np.concatenate(
                [np.asarray(part, dtype=np.float64) for part in parts if part is not None], axis=1
            )
            self.second = self._sample(stage2, (others - shift) / scale)
        self.data = data
        self.copies = estimator.outcome_networks or (1 if data.q else 3)
        self.diagnostics: dict[str, Any] = {
            "first_stage_f": first_stage_f(
                columns[:, : data.p], self.first.covariates, self.first.exposure, self.first.weight
            )
        }

    def _sample(self, data: IVData, columns: Float) -> Sample:
        weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
        return Sample(
            columns,
            (data.exposure - self.exposure_shift) / self.exposure_scale,
            (data.outcome - self.outcome_shift) / self.outcome_scale,
            columns[:, data.p :] if data.q else None,
            weight,
            group_codes(data.n, data.clusters),
        )

    @property
    def two_samples(self) -> bool:
        """Whether other people have the outcome."""
        return self.second is not self.first

    networks: int = 1

    def replicate(
        self,
        estimator: TwoStageNetworks,
        generator: np.random.Generator,
        resampling: np.random.Generator | None,
        division_of: Replicate | None,
    ) -> Replicate:
        """All people, or a bootstrap sample; divided anew or as another replicate."""
        samples = [self.first, self.second] if self.two_samples else [self.first]
        weights: list[Float] = []
        divisions: list[Division] = []
        for sample in samples:
            counts = None
            weight = sample.weight
            if resampling is not None:
                counts = bootstrap_counts(sample.groups, resampling)
                weight = weight * counts
            weights.append(weight)
            divisions.append(
                divide(
                    estimator.splitting,
                    sample.groups,
                    generator,
                    folds=estimator.folds,
                    validation_proportion=estimator.validation_proportion,
                    counts=counts,
                )
            )
        if division_of is not None:
            divisions = [division_of.exposure_division, division_of.outcome_division]
        self.networks = len(divisions[-1].outcome_training) * self.copies
        return Replicate(estimator, weights[0], weights[-1], divisions[0], divisions[-1], generator)

    def train(
        self,
        estimator: TwoStageNetworks,
        run: TrainingRun,
        replicates: Sequence[Replicate],
        label: str,
        exposure_start: torch.Tensor | None,
        outcome_start: Float | None,
    ) -> tuple[ExposureStage, Float, Float, dict[str, Any]]:
        """Both stages; weights and linear parts of the outcome networks, by replicate."""
        import torch

        from mrfast.nonlinear.networks.stacked import StackedNetwork
        from mrfast.nonlinear.networks.structural_function import (
            OutcomeRows,
            OutcomeTable,
            QuadraticRisk,
            exposure_grid,
            linear_parts,
            quadratic_risks,
        )
        from mrfast.nonlinear.networks.training import TrainingOptions

        device = chosen_device(estimator.device)
        stage = estimator._exposure_stage(
            run, self.first, self.second, replicates, label, exposure_start
        )
        sample = self.second
        members = [
            (r, f)
            for r, replicate in enumerate(replicates)
            for f in np.repeat(
                np.arange(len(replicate.outcome_division.outcome_training)),
                self.copies,
            )
        ]
        owner = np.array([r for r, _ in members])
        training, validation = (
            np.stack(
                [
                    getattr(replicates[r].outcome_division, name)[f] * replicates[r].outcome_weight
                    for r, f in members
                ]
            )
            for name in ("outcome_training", "outcome_validation")
        )
        network = StackedNetwork(
            1 + (0 if sample.covariates is None else sample.covariates.shape[1]),
            estimator.outcome_hidden,
            1,
            activation=estimator.activation,
            batch_norm=estimator.batch_norm,
            zero_output=True,
        )
        linear = np.concatenate(
            [
                linear_parts(
                    stage.means[r],
                    sample.outcome,
                    sample.covariates,
                    training[owner == r],
                    binary=self.binary,
                )
                for r in range(len(replicates))
            ]
        )
        if outcome_start is None:
            start = np.concatenate(
                [
                    network.initial(replicate.generator.spawn(self.networks))
                    for replicate in replicates
                ]
            )
        else:
            start = np.tile(outcome_start, (len(replicates), 1))
        options: dict[str, Any] = {
            "binary": self.binary,
            "learning_rate": by_member(replicates, owner, "outcome_learning_rate", device),
            "weight_decay": by_member(replicates, owner, "outcome_weight_decay", device),
            "generator": replicates[0].generator,
            "device": device,
        }
        problem: OutcomeTable | OutcomeRows
        if sample.covariates is None:
            grid = exposure_grid(self.first.exposure, _GRID)
            risks = []
            for law, replicate in zip(stage.laws, replicates, strict=True):
                division = replicate.outcome_division
                sets = np.concatenate([division.outcome_training, division.outcome_validation])
                risks.append(
                    quadratic_risks(law, sample.outcome, replicate.outcome_weight, sets, grid)
                )
            halves = [
                QuadraticRisk(
                    *(
                        np.concatenate(
                            [
                                np.repeat(part, self.copies, axis=0)
                                for risk in risks
                                for part in np.split(getattr(risk, name), 2)[half : half + 1]
                            ]
                        )
                        for name in ("matrix", "vector", "constant")
                    )
                )
                for half in range(2)
            ]
            problem = OutcomeTable(network, linear, start, halves[0], halves[1], grid, **options)
        else:
            problem = OutcomeRows(
                network,
                linear,
                start,
                stage.laws,
                owner,
                sample.outcome,
                sample.covariates,
                training,
                validation,
                **options,
            )
        problem.stopping_groups = owner
        done = run.train(
            problem,
            TrainingOptions(
                batch_size=estimator.outcome_batch_size,
                max_epochs=estimator.outcome_max_epochs,
                patience=estimator.outcome_patience,
                steps_per_epoch=_STEPS_PER_EPOCH if sample.covariates is None else 1,
            ),
            f"outcome network{label}",
        )
        weights = done.weights[0].to(torch.float64).cpu().numpy()
        shape = (len(replicates), self.networks, -1)
        diagnostics = {
            "outcome_epochs": int(done.best_epoch[: self.networks].max()),
            "held_out_risk": float(done.best_loss[: self.networks].mean() * self.outcome_scale**2),
        }
        return stage, weights.reshape(shape), linear.reshape(shape), diagnostics

    def curve(self, weights: Float, linear: Float, estimator: TwoStageNetworks) -> NetworkCurve:
        """Curve of the outcome networks, in the units of the data."""
        shape = NetworkShape(
            hidden=estimator.outcome_hidden,
            activation=estimator.activation,
            batch_norm=estimator.batch_norm,
            binary=self.binary,
            input_shift=np.concatenate([[self.exposure_shift], self.covariate_shift]),
            input_scale=np.concatenate([[self.exposure_scale], self.covariate_scale]),
            outcome_shift=self.outcome_shift,
            outcome_scale=self.outcome_scale,
        )
        x = self.data.exposure
        low, high = np.quantile(x, [0.025, 0.975])
        return NetworkCurve(
            shape,
            weights,
            linear,
            central=(float(low), float(high)),
            full=(float(x.min()), float(x.max())),
            people=self.outcome_data.covariates,
        )

    def messages(self, estimator: TwoStageNetworks) -> list[str]:
        """What a reader of the fit should know."""
        notes = []
        strength = self.diagnostics["first_stage_f"]
        if strength < _WEAK:
            word = "too weak for a curve" if strength < _TOO_WEAK else "weak"
            notes.append(
                f"the instruments are {word} (F = {strength:.1f}): the curve leans towards the "
                "confounded regression or towards nothing; SieveIV has intervals for this case"
            )
        if estimator.splitting == "single":
            notes.append("both stages were trained on the same people: their errors are dependent")
        if estimator.n_bootstrap:
            notes.append("bootstrap limits do not allow for the bias of networks that stop early")
        return notes


def by_member(
    replicates: Sequence[Replicate], owner: NDArray[np.int64], name: str, device: torch.device
) -> float | torch.Tensor:
    """Option of each member, as one number if all are equal."""
    values = [float(getattr(replicate.estimator, name)) for replicate in replicates]
    if len(set(values)) == 1:
        return values[0]
    import torch

    return torch.as_tensor(np.array(values)[owner, None], dtype=torch.float32, device=device)
