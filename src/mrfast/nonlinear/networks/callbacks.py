"""What can watch a training: TensorBoard, Weights & Biases, or anything with ``on_epoch``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._optional import import_extra

__all__ = ["EpochRecord", "TensorBoardCallback", "TrainingCallback", "WandbCallback"]


@dataclass(frozen=True)
class EpochRecord:
    """Losses after an epoch.

    Attributes
    ----------
    stage : str
        Network that is trained, e.g. ``"exposure network"``.
    epoch : int
        0 before the first step.
    members : ndarray of int64, shape (m,)
        Networks that still train.
    training_loss, validation_loss : ndarray, shape (m,)
        NaN for the training loss of epoch 0.
    """

    stage: str
    epoch: int
    members: NDArray[np.int64]
    training_loss: NDArray[np.float64]
    validation_loss: NDArray[np.float64]


class TrainingCallback(Protocol):
    """Interface of what watches a training."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Receive the losses of an epoch."""


def _scalars(record: EpochRecord) -> dict[str, float]:
    """Losses by name, for one member or as means over several."""
    means = {
        "training_loss": record.training_loss.mean(),
        "validation_loss": record.validation_loss.mean(),
    }
    return {
        f"{record.stage}/{name}": float(value)
        for name, value in means.items()
        if np.isfinite(value)
    }


class TensorBoardCallback:
    """Write the mean losses of the networks that still train for TensorBoard.

    Parameters
    ----------
    folder : path-like
        Where the event files go.

    Raises
    ------
    MissingExtraError
        TensorBoard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        import_extra("tensorboard", extra="logging", purpose="TensorBoardCallback")
        module = import_extra(
            "torch.utils.tensorboard", extra="logging", purpose="TensorBoardCallback"
        )
        self._writer: Any = module.SummaryWriter(os.fspath(folder))

    def on_epoch(self, record: EpochRecord) -> None:
        """Write the losses of an epoch."""
        for name, value in _scalars(record).items():
            self._writer.add_scalar(name, value, record.epoch)

    def close(self) -> None:
        """Write what is left and close the files."""
        self._writer.close()


class WandbCallback:
    """Log the mean losses of the networks that still train to Weights & Biases.

    Parameters
    ----------
    project : str
    name : str, optional
        Of the run.
    mode : str
        ``"offline"`` writes files only and sends nothing; ``"online"`` sends to the service.
    folder : path-like, optional
        Where the files go.

    Raises
    ------
    MissingExtraError
        wandb is not installed.
    """

    def __init__(
        self,
        project: str,
        *,
        name: str | None = None,
        mode: str = "offline",
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        check.choice("mode", mode, ("offline", "online"))
        wandb: Any = import_extra("wandb", extra="logging", purpose="WandbCallback")
        self._run = wandb.init(
            project=project, name=name, mode=mode, dir=None if folder is None else os.fspath(folder)
        )

    def on_epoch(self, record: EpochRecord) -> None:
        """Log the losses of an epoch."""
        self._run.log({**_scalars(record), f"{record.stage}/epoch": record.epoch})

    def close(self) -> None:
        """End the run."""
        self._run.finish()
