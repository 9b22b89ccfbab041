"""The runs of a sweep: what one run does, in this process or in worker processes."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrfast._files import nullable_json
from mrfast._validation import Float
from mrfast.nonlinear.causal_curve import CausalCurve
from mrfast.nonlinear.estimator import InstrumentalVariableEstimator
from mrfast.nonlinear.held_out_risk import HeldOutRisk
from mrfast.nonlinear.iv_data import IVData

__all__ = ["SweepRuns", "work"]

_WIDTH_POINTS = 201  # of the curve, over the central 95% of the exposure
_ARRAYS = ("instruments", "exposure", "outcome", "covariates", "sample_weight", "clusters")
_NAMES = ("instrument_names", "covariate_names")
_PARTS = ("training", "held_out")
_ONE_THREAD = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR", "NUMBA")
_END = "end\n"
_LAST_WORDS = 500  # characters of what a worker wrote before it died
_TOGETHER = 16  # runs whose networks are trained as one
_ORDER = ("uniform", "bootstrap", "pointwise", "conformal")


Run = tuple[int, Mapping[str, Any]]
"""Number and options of a run."""


@dataclass
class SweepRuns:
    """What all runs of a sweep have in common.

    Attributes
    ----------
    estimator_type : type
        Class of the estimator.
    options : dict
        Options that no run changes.
    training, held_out : IVData
        People of the fits, and those of the risk.
    interval : str or None
        Kind of limits whose width is kept; None is the first there is of uniform, bootstrap,
        pointwise and conformal.
    level : float
        Of these limits.
    """

    estimator_type: type[InstrumentalVariableEstimator]
    options: dict[str, Any]
    training: IVData
    held_out: IVData
    interval: str | None
    level: float

    def __post_init__(self) -> None:
        self.risk = HeldOutRisk(self.training, self.held_out)

    def run(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Fit and measure once; an error is part of the outcome."""
        return self._outcomes(1, lambda: [self.fit(self.training, parameters)])[0]

    def run_batch(self, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Outcomes of runs that `batches` put together: networks trained as one.

        Their times are equal shares. Where training together fails, each is run by itself.
        """
        if len(batch) > 1:
            estimators = [self._estimator(parameters) for parameters in batch]
            fit_many: Any = self.estimator_type.fit_many  # type: ignore[attr-defined]
            outcomes = self._outcomes(
                len(batch), lambda: fit_many(estimators, **self.training.arguments)
            )
            if not any(outcome.get("error") for outcome in outcomes):
                return outcomes
        return [self.run(parameters) for parameters in batch]

    def batches(self, runs: Sequence[Run], n_workers: int) -> list[list[Run]]:
        """Runs in the groups in which they are done.

        Single ones, unless the class has ``fit_many``, which trains networks as one, and
        ``_shared``, the options that must then be equal.
        """
        kind: Any = self.estimator_type
        if not hasattr(kind, "fit_many"):
            return [[run] for run in runs]
        groups: dict[str, list[Run]] = {}
        for run in runs:
            key = f"run {run[0]}"
            with contextlib.suppress(Exception):  # the run itself will tell
                shared = kind._shared(self._estimator(run[1]))
                if not shared.get("n_bootstrap"):
                    key = repr(sorted(shared.items()))
            groups.setdefault(key, []).append(run)
        found = []
        for group in groups.values():
            size = min(_TOGETHER, -(-len(group) // n_workers))
            found += [group[i : i + size] for i in range(0, len(group), size)]
        return found

    def _outcomes(
        self, count: int, fit: Callable[[], Sequence[InstrumentalVariableEstimator]]
    ) -> list[dict[str, Any]]:
        """Outcomes of so many runs of one fit."""
        wall, cpu = time.perf_counter(), time.process_time()
        outcomes: list[dict[str, Any]] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                outcomes = [self._measured(fitted) for fitted in fit()]
            except Exception as error:  # whatever an estimator raises ends its run, not the sweep
                outcomes = [_failure(error) for _ in range(count)]
        told = [f"{warning.message}" for warning in caught]
        times = {
            "seconds": (time.perf_counter() - wall) / count,
            "cpu_seconds": (time.process_time() - cpu) / count,
        }
        return [
            {
                **outcome,
                "messages": list(dict.fromkeys([*outcome.get("messages", ()), *told])),
                **times,
            }
            for outcome in outcomes
        ]

    def fit(self, data: IVData, parameters: Mapping[str, Any]) -> InstrumentalVariableEstimator:
        """Estimator with these options, fitted."""
        return self._estimator(parameters).fit(**data.arguments)

    def _estimator(self, parameters: Mapping[str, Any]) -> InstrumentalVariableEstimator:
        given = {name: _frozen(value) for name, value in parameters.items()}
        return self.estimator_type(**{**self.options, **given})

    def _measured(self, fitted: InstrumentalVariableEstimator) -> dict[str, Any]:
        held_out = self.held_out
        x, people = held_out.exposure, held_out.covariates
        curve = fitted.effect(x) if people is None else fitted.effect_conditional(x, people)
        assert isinstance(curve, np.ndarray)
        if not np.isfinite(curve).all():
            bad = int((~np.isfinite(curve)).sum())
            raise ArithmeticError(f"the curve is not finite at {bad:,} of {len(x):,} people")
        estimate = self.risk(held_out.outcome - curve)
        return {
            "risk": estimate.risk,
            "risk_std_error": estimate.std_error,
            "interval_width": self._width(fitted),
            "messages": fitted.messages_,
        }

    def _width(self, fitted: InstrumentalVariableEstimator) -> float | None:
        """Mean width of the limits over the central 95% of the exposure; None without limits."""
        kinds = fitted.curve_.intervals
        if not kinds:
            return None
        kind = self.interval or next((kind for kind in _ORDER if kind in kinds), kinds[0])
        x: Float = np.linspace(*fitted.exposure_central_, _WIDTH_POINTS)
        curve = fitted.effect(x, interval=kind, level=self.level)
        assert isinstance(curve, CausalCurve)
        return float(np.mean(curve.upper - curve.lower))

    # ------------------------------------------------------------------ several processes

    def outcomes(self, runs: Sequence[Run], n_workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and outcome of every run, as they end.

        Parameters
        ----------
        runs : sequence of (int, mapping)
        n_workers : int
            With one the runs are in this process. Otherwise in so many new processes of one
            thread each, which map the data from files into memory.
        """
        batches = self.batches(runs, n_workers)
        if n_workers == 1:
            for batch in batches:
                outcomes = self.run_batch([parameters for _, parameters in batch])
                for (number, _), outcome in zip(batch, outcomes, strict=True):
                    yield number, outcome
            return
        with tempfile.TemporaryDirectory(prefix="mrfast-sweep-") as folder:
            self._write(Path(folder))
            with _Workers(Path(folder), batches, n_workers) as workers:
                yield from workers.outcomes()

    def _write(self, folder: Path) -> None:
        """Write what a worker needs."""
        names: dict[str, Any] = {}
        for part in _PARTS:
            data: IVData = getattr(self, part)
            for array in _ARRAYS:
                values = getattr(data, array)
                if values is not None:
                    np.save(folder / f"{part}_{array}.npy", values, allow_pickle=False)
            names[part] = {name: list(getattr(data, name)) for name in _NAMES}
        kind = self.estimator_type
        task = {
            "module": kind.__module__,
            "type": kind.__qualname__,
            "options": self.options,
            "interval": self.interval,
            "level": self.level,
            "names": names,
        }
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> SweepRuns:
        """Runs that `_write` wrote, the data mapped into memory."""
        task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        parts = {}
        for part in _PARTS:
            arrays = {
                array: np.load(path, mmap_mode="r", allow_pickle=False)
                for array in _ARRAYS
                if (path := folder / f"{part}_{array}.npy").exists()
            }
            labels: dict[str, Any] = {
                name: tuple(values) for name, values in task["names"][part].items()
            }
            parts[part] = IVData(**arrays, **labels)
        kind: Any = importlib.import_module(task["module"])
        for name in task["type"].split("."):
            kind = getattr(kind, name)
        options = {name: _frozen(value) for name, value in task["options"].items()}
        return cls(kind, options, **parts, interval=task["interval"], level=task["level"])


class _Workers:
    """Worker processes, each with a thread here that gives it one run after the other."""

    def __init__(self, folder: Path, batches: Sequence[list[Run]], n_workers: int) -> None:
        self._folder = folder
        self._waiting: queue.SimpleQueue[list[Run]] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[tuple[int, dict[str, Any]] | BaseException] = (
            queue.SimpleQueue()
        )
        for batch in batches:
            self._waiting.put(batch)
        self._n_runs = sum(map(len, batches))
        self._stopped = False
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._threads = [
            threading.Thread(target=self._serve, args=(place,), daemon=True)
            for place in range(min(n_workers, len(batches)))
        ]

    def __enter__(self) -> _Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        for process in list(self._processes.values()):
            process.kill()
        for thread in self._threads:
            thread.join()

    def outcomes(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for _ in range(self._n_runs):
            while True:
                with contextlib.suppress(queue.Empty):
                    ended = self._ended.get(timeout=0.2)  # so that Ctrl-C is seen
                    break
            if isinstance(ended, BaseException):
                raise ended
            yield ended

    def _serve(self, place: int) -> None:
        words = self._folder / f"worker_{place}.txt"
        process: subprocess.Popen[str] | None = None
        try:
            while not self._stopped:
                try:
                    batch = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if process is None:
                    process = self._processes[place] = self._started(words)
                answers = _asked(process, [parameters for _, parameters in batch])
                if answers is None and not self._stopped:
                    code = process.wait()
                    answers = [{"error": _death(code, words)}]
                    process.communicate()
                    process = None
                    if len(batch) > 1:  # which of them it was shows when each is run by itself
                        for run in batch:
                            self._waiting.put([run])
                        continue
                for (number, _), answer in zip(batch, answers or (), strict=False):
                    self._ended.put((number, answer))
        except BaseException as error:  # carried to the caller's thread
            self._ended.put(error)
        finally:
            if process is not None:
                with contextlib.suppress(OSError):
                    process.communicate(_END)

    def _started(self, words: Path) -> subprocess.Popen[str]:
        paths = os.pathsep.join(path for path in sys.path if path)
        threads = {f"{name}_NUM_THREADS": "1" for name in _ONE_THREAD}
        with words.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "mrfast.nonlinear._sweep_worker", str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                encoding="utf-8",
                env={**os.environ, **threads, "PYTHONPATH": paths},
            )


def _asked(
    process: subprocess.Popen[str], batch: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]] | None:
    """A worker's answers; None where it died."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(batch) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        return None
    answers: list[dict[str, Any]] | None = json.loads(line) if line.endswith("\n") else None
    return answers


def _death(code: int, words: Path) -> str:
    """What a run's error says when its process ended."""
    cause = f"with exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            cause = f"by signal {signal.Signals(-code).name}"
            if code == -9:
                cause += " (killed, perhaps for want of memory)"
    last = words.read_text(encoding="utf-8", errors="replace").strip()[-_LAST_WORDS:]
    return f"the worker process ended {cause}" + (f": {last}" if last else "")


def work(folder: str, answers: Callable[[str], None]) -> None:
    """Worker process: batches of runs from standard input, a line of JSON each, until it ends.

    Parameters
    ----------
    folder : str
        What the parent wrote.
    answers : callable
        Takes the line of an answer.
    """
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    runs = SweepRuns.read(Path(folder))
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            if line == _END:
                return
            answers(json.dumps(nullable_json(runs.run_batch(json.loads(line)))) + "\n")
    shutil.rmtree(folder, ignore_errors=True)  # the parent was killed; these are people's data


def _failure(error: Exception) -> dict[str, Any]:
    text = " ".join(str(error).splitlines())
    return {
        "error": f"{type(error).__name__}: {text}" if text else type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


def _frozen(value: Any) -> Any:
    """Lists, which JSON has, as the tuples that options are."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
