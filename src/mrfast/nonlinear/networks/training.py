"""Training of stacked networks: batches, early stopping of each member, best weights, resuming.

A problem says what its losses are; `train` does the rest for all members at once. A member that
has not improved for ``patience`` epochs is done, its best weights are kept, and the others go on
without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast.errors import ConvergenceError
from mrfast.nonlinear.networks.callbacks import EpochRecord, TrainingCallback
from mrfast.nonlinear.networks.checkpoints import Checkpoint
from mrfast.nonlinear.networks.optimiser import Adam
from mrfast.nonlinear.networks.rows import Rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trained", "TrainingHistory", "TrainingOptions", "TrainingProblem", "train"]

Weights = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class TrainingOptions:
    """How long and in what steps a problem is trained.

    Attributes
    ----------
    batch_size : int or None
        Rows of each member in a step; None takes all at once.
    max_epochs, patience : int
        Passes over the rows at most, and without improvement until a member is done.
    steps_per_epoch : int
        Steps between two validations where all rows are taken at once.
    """

    batch_size: int | None
    max_epochs: int
    patience: int
    steps_per_epoch: int = 1

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check.integer("batch_size", self.batch_size, minimum=2)
        check.integer("max_epochs", self.max_epochs, minimum=1)
        check.integer("patience", self.patience, minimum=1)
        check.integer("steps_per_epoch", self.steps_per_epoch, minimum=1)


class TrainingProblem:
    """What is trained: subclasses give the optimisers and the losses.

    Attributes
    ----------
    optimisers : tuple of Adam
        One for each group of weights, a matrix (members, n_weights) that it changes in place.
    training_rows : Rows or None
        What batches are cut from; None if the training loss has its rows in itself.
    generator : numpy Generator
        For what the losses draw; the order of the rows comes from it too.
    stopping_groups : ndarray of int64, shape (members,), or None
        Members that stop together, at the lowest mean of their validation losses, e.g. the folds
        of a cross-fitting; None lets each stop by itself.
    """

    stopping_groups: NDArray[np.int64] | None = None
    optimisers: tuple[Adam, ...]
    training_rows: Rows | None
    generator: np.random.Generator

    def training_loss(self, weights: Weights, batch: Rows | None) -> torch.Tensor:
        """Loss of each member on a batch, (members,); differentiated by the default `step`."""
        raise TypeError(f"{type(self).__name__} has no training loss")

    def validation_loss(self, weights: Weights) -> torch.Tensor:
        """Loss of each member that decides when it stops, (members,)."""
        raise TypeError(f"{type(self).__name__} has no validation loss")

    def step(self, batch: Rows | None) -> torch.Tensor:
        """One step of all optimisers down the training loss, which is returned, (members,).

        Problems that update their groups of weights in turn have their own.
        """
        weights = self.weights
        losses = self.training_loss(weights, batch)
        gradients = torch.autograd.grad(losses.sum(), weights)
        for optimiser, gradient in zip(self.optimisers, gradients, strict=True):
            optimiser.step(gradient)
        return losses.detach()

    @property
    def weights(self) -> Weights:
        """Weights of the members at present."""
        return tuple(optimiser.weights for optimiser in self.optimisers)

    def take(self, kept: torch.Tensor) -> Self:
        """Problem of some of the members, by their places.

        Subclasses that hold tensors by member cut these too, in `_take_members`.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.optimisers = tuple(optimiser.take(kept) for optimiser in self.optimisers)
        if self.training_rows is not None:
            other.training_rows = self.training_rows.take(kept)
        if self.stopping_groups is not None:
            other.stopping_groups = self.stopping_groups[kept.cpu().numpy()]
        other._take_members(kept)
        return other

    def _take_members(self, kept: torch.Tensor) -> None:
        """Cut own tensors to some of the members."""


@dataclass
class TrainingHistory:
    """Losses of every member by epoch; epoch 0 is before the first step."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: [] for name in ("stage", "member", "epoch", "training_loss", "validation_loss")
        }
    )

    def add(self, record: EpochRecord) -> None:
        """Append the losses of an epoch."""
        count = len(record.members)
        self.columns["stage"] += [record.stage] * count
        self.columns["member"] += record.members.tolist()
        self.columns["epoch"] += [record.epoch] * count
        self.columns["training_loss"] += record.training_loss.tolist()
        self.columns["validation_loss"] += record.validation_loss.tolist()

    def extend(self, other: TrainingHistory) -> None:
        """Append another history."""
        for name, values in self.columns.items():
            values += other.columns[name]

    def to_frame(self) -> pd.DataFrame:
        """Table with a row for each member and epoch."""
        import pandas as pd

        return pd.DataFrame(self.columns)


@dataclass(frozen=True)
class Trained:
    """Members with the weights of their best epochs.

    Attributes
    ----------
    weights : tuple of Tensor, shapes (members, n_weights)
    best_epoch : ndarray of int64, shape (members,)
    best_loss : ndarray, shape (members,)
        Validation loss there; the mean over those that stop together.
    epochs : int
        Passes until the last member was done.
    interrupted : bool
        Ctrl-C ended the training; the weights are the best so far.
    history : TrainingHistory
    """

    weights: Weights
    best_epoch: NDArray[np.int64]
    best_loss: NDArray[np.float64]
    epochs: int
    interrupted: bool
    history: TrainingHistory


class _Progress:
    """Best weights so far, which members still train, and all that a checkpoint must hold."""

    def __init__(self, problem: TrainingProblem) -> None:
        members = problem.optimisers[0].weights.shape[0]
        self.best = tuple(weights.detach().clone() for weights in problem.weights)
        self.best_loss = np.full(members, np.inf)
        self.best_epoch = np.zeros(members, dtype=np.int64)
        self.active = np.arange(members)  # members behind the rows of the problem's tensors
        self.done = np.zeros(members, dtype=np.bool_)
        self.epoch = 0

    def record(self, problem: TrainingProblem, losses: NDArray[np.float64], patience: int) -> None:
        """Take over what improved; members without finite loss or improvement are done."""
        running = ~self.done[self.active]
        groups = problem.stopping_groups
        if groups is not None:
            size = np.maximum(np.bincount(groups), 1)
            losses = (np.bincount(groups, losses) / size)[groups]
        better = running & (losses < self.best_loss[self.active])
        if better.any():
            improved = self.active[better]
            self.best_loss[improved] = losses[better]
            self.best_epoch[improved] = self.epoch
            places = torch.as_tensor(np.flatnonzero(better), device=self.best[0].device)
            into = torch.as_tensor(improved, device=self.best[0].device)
            for best, weights in zip(self.best, problem.weights, strict=True):
                best[into] = weights.detach()[places]
        late = self.epoch - self.best_epoch[self.active] >= patience
        self.done[self.active[late | ~np.isfinite(losses)]] = True

    def compact(self, problem: TrainingProblem) -> TrainingProblem:
        """Drop members that are done from the problem, once they are a quarter of it."""
        running = ~self.done[self.active]
        if running.all() or not running.any() or running.mean() > 0.75:
            return problem
        kept = np.flatnonzero(running)
        self.active = self.active[kept]
        return problem.take(torch.as_tensor(kept, device=self.best[0].device))


def train(
    problem: TrainingProblem,
    options: TrainingOptions,
    *,
    stage: str,
    callbacks: Sequence[TrainingCallback] = (),
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Train all members until each has stopped improving.

    Parameters
    ----------
    problem : TrainingProblem
        Its optimisers' weights are where training begins.
    options : TrainingOptions
    stage : str
        Name of the network, for the history, callbacks and files.
    callbacks : sequence of TrainingCallback
        Told of every epoch.
    checkpoint : Checkpoint, optional
        Where training is kept, and taken up again if that was interrupted.
    progress : callable, optional
        Receives the number of epochs done.

    Returns
    -------
    Trained

    Raises
    ------
    ConvergenceError
        A member never had a finite validation loss.
    """
    state = _Progress(problem)
    history = TrainingHistory()
    interrupted = False
    kept = None if checkpoint is None else checkpoint.read(stage)
    if kept is not None:
        problem = _resumed(problem, state, history, kept)
    try:
        if kept is None:
            _validate(problem, state, history, options, stage, callbacks, None)
        while not state.done.all() and state.epoch < options.max_epochs:
            losses = _epoch(problem, options)
            state.epoch += 1
            _validate(problem, state, history, options, stage, callbacks, losses)
            problem = state.compact(problem)
            if checkpoint is not None and checkpoint.due(state.epoch):
                _keep(checkpoint, stage, problem, state, history)
            if progress is not None:
                progress(state.epoch)
    except KeyboardInterrupt:
        if not np.isfinite(state.best_loss).all():
            raise
        interrupted = True
    if checkpoint is not None:
        _keep(checkpoint, stage, problem, state, history)
    if not np.isfinite(state.best_loss).all():
        raise ConvergenceError(
            f"training of the {stage}: no finite loss; a smaller learning rate may help"
        )
    return Trained(state.best, state.best_epoch, state.best_loss, state.epoch, interrupted, history)


def _epoch(problem: TrainingProblem, options: TrainingOptions) -> NDArray[np.float64]:
    """One pass over the training rows; mean loss of each member in the problem."""
    rows = problem.training_rows
    losses: list[torch.Tensor] = []
    if rows is None or options.batch_size is None or options.batch_size >= rows.width:
        losses = [problem.step(rows) for _ in range(options.steps_per_epoch)]
    else:
        # Batches of nearly equal sizes: no last one with a handful of rows.
        count = -(-rows.width // options.batch_size)
        order = torch.as_tensor(problem.generator.permutation(rows.width))
        for columns in order.to(rows.index.device).tensor_split(count):
            losses.append(problem.step(rows.columns(columns)))
    return np.asarray(torch.stack(losses).mean(0).double().cpu())


def _validate(
    problem: TrainingProblem,
    state: _Progress,
    history: TrainingHistory,
    options: TrainingOptions,
    stage: str,
    callbacks: Sequence[TrainingCallback],
    training: NDArray[np.float64] | None,
) -> None:
    with torch.no_grad():
        validation = problem.validation_loss(problem.weights).double().cpu().numpy()
    if training is None:
        training = np.full(validation.shape, np.nan)
    running = ~state.done[state.active]
    state.record(problem, validation, options.patience)
    record = EpochRecord(
        stage, state.epoch, state.active[running], training[running], validation[running]
    )
    history.add(record)
    for callback in callbacks:
        callback.on_epoch(record)


def _keep(
    checkpoint: Checkpoint,
    stage: str,
    problem: TrainingProblem,
    state: _Progress,
    history: TrainingHistory,
) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "best_loss": state.best_loss,
        "best_epoch": state.best_epoch,
        "active": state.active,
        "done": state.done,
    }
    for group, (best, optimiser) in enumerate(zip(state.best, problem.optimisers, strict=True)):
        arrays[f"best_{group}"] = best.cpu().numpy()
        arrays |= {f"{name}_{group}": values for name, values in optimiser.state().items()}
    for name, column in history.columns.items():
        if name != "stage":
            arrays[f"history_{name}"] = np.asarray(column)
    values = {
        "epoch": state.epoch,
        "steps": [optimiser.steps for optimiser in problem.optimisers],
        "generator": problem.generator.bit_generator.state,
    }
    checkpoint.write(stage, values, arrays)


def _resumed(
    problem: TrainingProblem,
    state: _Progress,
    history: TrainingHistory,
    kept: tuple[dict[str, Any], dict[str, NDArray[Any]]],
) -> TrainingProblem:
    """Problem and progress as they were when they were kept."""
    values, arrays = kept
    device = state.best[0].device
    state.epoch = int(values["epoch"])
    state.best_loss, state.best_epoch = arrays["best_loss"], arrays["best_epoch"]
    state.active, state.done = arrays["active"], arrays["done"]
    state.best = tuple(
        torch.as_tensor(arrays[f"best_{group}"], device=device) for group in range(len(state.best))
    )
    problem = problem.take(torch.as_tensor(state.active, device=device))
    for group, optimiser in enumerate(problem.optimisers):
        names = ("weights", "mean", "square")
        optimiser.restore(
            {name: arrays[f"{name}_{group}"] for name in names}, int(values["steps"][group])
        )
    problem.generator.bit_generator.state = values["generator"]
    for name, column in history.columns.items():
        if name != "stage":
            column += arrays[f"history_{name}"].tolist()
    history.columns["stage"] += [values["stage"]] * len(history.columns["epoch"])
    return problem
