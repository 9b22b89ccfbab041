"""What estimators that train networks share: `NetworkEstimator`, `TrainingRun`."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from mrfast import _validation as check
from mrfast._files import content_checksum, nullable_json
from mrfast._progress import progress_hook
from mrfast.errors import MrfastWarning
from mrfast.nonlinear.estimator import Fit, InstrumentalVariableEstimator
from mrfast.nonlinear.iv_data import IVData, iv_data
from mrfast.nonlinear.networks.backend import limited_threads, require_torch

if TYPE_CHECKING:
    import pandas as pd

    from mrfast.nonlinear.networks.callbacks import TrainingCallback
    from mrfast.nonlinear.networks.training import (
        Trained,
        TrainingHistory,
        TrainingOptions,
        TrainingProblem,
    )

__all__ = ["NetworkEstimator", "TrainingRun"]

_EPOCHS_BETWEEN_CHECKPOINTS = 10


@dataclass
class TrainingRun:
    """The trainings of one fit: what watches them, where they are kept, what they left.

    Attributes
    ----------
    callbacks : sequence of TrainingCallback
    checkpoint : path-like or None
        Folder of the checkpoints.
    identity : str
        Checksum of data and options.
    progress : bool or callable
    stage2 : IVData or None
        People of the outcome's stage, where they are others.
    """

    callbacks: Sequence[TrainingCallback] = ()
    checkpoint: str | os.PathLike[str] | None = None
    identity: str = ""
    progress: bool | Callable[[int, int], None] = False
    stage2: IVData | None = None
    histories: list[TrainingHistory] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)

    def train(self, problem: TrainingProblem, options: TrainingOptions, stage: str) -> Trained:
        """Train a problem, see `train`; the history is kept."""
        from mrfast.nonlinear.networks.checkpoints import Checkpoint
        from mrfast.nonlinear.networks.training import train

        kept = None
        if self.checkpoint is not None:
            kept = Checkpoint(
                self.checkpoint, every=_EPOCHS_BETWEEN_CHECKPOINTS, identity=self.identity
            )
        with progress_hook(self.progress, None, "epochs", stage) as hook:
            done = train(
                problem,
                options,
                stage=stage,
                callbacks=self.callbacks,
                checkpoint=kept,
                progress=hook,
            )
        self.histories.append(done.history)
        if done.interrupted:
            self.interrupted.append(f"{stage} at epoch {done.epochs}")
        return done


class NetworkEstimator(InstrumentalVariableEstimator):
    """Base of estimators that train networks.

    Subclasses have the options ``device``, ``n_threads`` and ``rng``, and train in `_fit` through
    ``self._run.train``.

    Attributes
    ----------
    training_history_ : DataFrame
        Columns stage, member, epoch, training_loss, validation_loss; ``to_csv`` writes it.
    """

    device: str
    n_threads: int | None
    rng: object

    def fit(
        self,
        instruments: object,
        exposure: object,
        outcome: object = None,
        covariates: object = None,
        *,
        sample_weight: object = None,
        clusters: object = None,
        stage2: object = None,
        callbacks: Sequence[TrainingCallback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool | Callable[[int, int], None] = False,
    ) -> Self:
        """Fit to individual data.

        Ctrl-C ends the training of the present network with the best weights so far; the fit goes
        on with what follows, and a warning says so.

        Parameters
        ----------
        instruments : array-like or DataFrame, shape: (n,) or (n, p)
            Genotypes or scores.
        exposure : array-like, shape: (n,)
        outcome : array-like, shape: (n,)
            Not needed with `stage2`.
        covariates : array-like or DataFrame, shape: (n,) or (n, q), optional
        sample_weight : array-like, shape: (n,), optional
        clusters : array-like, shape: (n,), optional
            Groups that stay together in folds and bootstrap samples.
        stage2 : IVData, (instruments, outcome) or (instruments, outcome, covariates), optional
            Other people, in whom the outcome was measured, with the same instruments and
            covariates: two-sample estimation.
        callbacks : sequence of TrainingCallback
            Told of every epoch.
        checkpoint : path of a folder, optional
            Where training is kept; a fit that was interrupted goes on from there.
        progress : bool or callable
            Show epochs; a callable receives their number, twice, as their total is not known.

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            An argument is not usable, or the checkpoint belongs to other data or options.
        MissingExtraError
            torch is not installed (``mrfast[ml]``).
        ConvergenceError
            Training found no finite loss.
        """
        require_torch(type(self).__name__)
        if outcome is None and stage2 is None:
            raise check.fail("outcome", "values, or other people in stage2", "None")
        data = iv_data(
            instruments,
            exposure,
            exposure if outcome is None else outcome,
            covariates,
            sample_weight=sample_weight,
            clusters=clusters,
        )
        return self._trained_fit(data, stage2, callbacks, checkpoint, progress)

    def _trained_fit(
        self,
        data: IVData,
        stage2: object,
        callbacks: Sequence[TrainingCallback],
        checkpoint: str | os.PathLike[str] | None,
        progress: bool | Callable[[int, int], None],
    ) -> Self:
        second = None if stage2 is None else _second_sample(stage2, data)
        _check_callbacks(callbacks)
        identity = ""
        if checkpoint is not None:
            if isinstance(self.rng, np.random.Generator):
                raise check.fail("checkpoint", "a seed as rng, to begin alike", "a Generator")
            identity = content_checksum(
                {
                    "estimator": self.name,
                    "options": nullable_json(self.get_params()),
                    "data": [_digest(part) for part in (data, second) if part is not None],
                }
            )
        self._run = TrainingRun(callbacks, checkpoint, identity, progress, second)
        with limited_threads(self.n_threads):
            fit = self._fit(data)
        messages = list(fit.messages)
        if self._run.interrupted:
            text = f"interrupted: {'; '.join(self._run.interrupted)}; best weights so far are used"
            messages.append(text)
            warnings.warn(text, MrfastWarning, stacklevel=3)
        self._histories = self._run.histories
        del self._run
        return self._keep(data, Fit(fit.curve, fit.diagnostics, tuple(messages)))

    @property
    def training_history_(self) -> pd.DataFrame:
        """Losses by stage, member and epoch; a fit that was loaded has none."""
        import pandas as pd

        self._fitted()
        histories: list[TrainingHistory] = getattr(self, "_histories", [])
        frames = [history.to_frame() for history in histories]
        if not frames:
            names = ["stage", "member", "epoch", "training_loss", "validation_loss"]
            return pd.DataFrame({name: [] for name in names})
        return pd.concat(frames, ignore_index=True)


def _check_callbacks(callbacks: object) -> None:
    """Refuse what has no ``on_epoch``."""
    if not isinstance(callbacks, Sequence):
        raise check.fail("callbacks", "a sequence", type(callbacks).__name__)
    for callback in callbacks:
        if not callable(getattr(callback, "on_epoch", None)):
            raise check.fail("callbacks", "objects with on_epoch", type(callback).__name__)


def _second_sample(stage2: object, data: IVData) -> IVData:
    """Checked people of the outcome's stage; what they have as exposure is not used."""
    if isinstance(stage2, IVData):
        second = stage2
    elif isinstance(stage2, (tuple, list)) and len(stage2) in (2, 3):
        covariates = stage2[2] if len(stage2) == 3 else None
        second = iv_data(stage2[0], stage2[1], stage2[1], covariates)
    else:
        raise check.fail(
            "stage2",
            "IVData, (instruments, outcome) or (instruments, outcome, covariates)",
            type(stage2).__name__,
        )
    if (second.p, second.q) != (data.p, data.q):
        raise check.fail(
            "stage2",
            f"{data.p} instruments and {data.q} covariates as in the first sample",
            f"{second.p} and {second.q}",
        )
    for argument in ("instrument_names", "covariate_names"):
        ours, theirs = getattr(data, argument), getattr(second, argument)
        if ours != theirs:
            raise check.fail("stage2", f"the names {check.listed(ours)}", check.listed(theirs))
    return second


def _digest(data: IVData) -> str:
    """Checksum of all values."""
    total = hashlib.sha256()
    for values in (
        data.instruments,
        data.exposure,
        data.outcome,
        data.covariates,
        data.sample_weight,
        data.clusters,
    ):
        if values is not None:
            total.update(f"{values.dtype}{values.shape}".encode())
            total.update(np.ascontiguousarray(values).data)
    return total.hexdigest()
