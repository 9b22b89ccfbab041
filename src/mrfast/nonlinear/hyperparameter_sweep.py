"""Choice of an estimator's options: `sweep`, its result, and ml-mr's configuration files."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _validation as check
from mrfast._files import strict_json
from mrfast._progress import progress_hook
from mrfast._runtime import build_config, thread_count
from mrfast.errors import InvalidInputError
from mrfast.nonlinear.estimator import InstrumentalVariableEstimator
from mrfast.nonlinear.estimator_names import MODELS, estimator_class
from mrfast.nonlinear.fitted_curve import INTERVALS
from mrfast.nonlinear.fitted_files import load
from mrfast.nonlinear.iv_data import IVData, checked_part, iv_data
from mrfast.nonlinear.parameter_samplers import (
    ParameterSampler,
    parameter_rows,
    parameter_samplers,
)
from mrfast.nonlinear.sweep_runs import SweepRuns
from mrfast.nonlinear.sweep_store import DONE, FAILED, RESULTS, SweepStore

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CRITERIA", "SweepResult", "sweep"]

CRITERIA: Mapping[str, str] = {
    "risk": "unbiased risk on held-out people",
    "interval_width": "mean width of the limits over the central 95% of the exposure",
}
"""What the best run has least of."""

_COLUMNS = {"risk": "risk", "interval_width": "interval_width"}
_FEWEST_HELD_OUT = 100


class SweepResult:
    """Runs of a sweep with their options, results and errors.

    Attributes
    ----------
    estimator : str
        Name of the estimator, or of its class where it has none.
    criterion : {"risk", "interval_width"}
        What the best run has least of.
    parameters : tuple of str
        Names of the swept options.
    configuration : dict
        What was asked for, seed and versions included.
    messages : tuple of str
        What a reader should know.
    best : InstrumentalVariableEstimator
        The best run's options, fitted to all people.
    """

    def __init__(
        self,
        rows: list[dict[str, Any]],
        configuration: dict[str, Any],
        criterion: str,
        messages: tuple[str, ...] = (),
        best: InstrumentalVariableEstimator | None = None,
        best_folder: Path | None = None,
    ) -> None:
        self._rows = rows
        self.configuration = configuration
        self.criterion = criterion
        self.estimator = str(configuration["estimator"])
        self.parameters = tuple(configuration["parameters"])
        self._best = best
        self._best_folder = best_folder
        self.messages = (*messages, *self._told())

    @classmethod
    def load(cls, database: str | os.PathLike[str], *, criterion: str = "risk") -> SweepResult:
        """Read the file of a sweep, one that was interrupted included.

        Parameters
        ----------
        database : path of a file
        criterion : {"risk", "interval_width"}

        Returns
        -------
        SweepResult

        Raises
        ------
        DamagedFileError
            The file is damaged or of another kind.
        InvalidInputError
            A process has it open.
        OSError
            It cannot be read.
        """
        criterion = check.choice("criterion", criterion, tuple(CRITERIA))
        with SweepStore(database, must_exist=True) as store:
            configuration = store.get("configuration")
            if configuration is None:
                raise check.fail("database", "the file of a sweep that began", str(database))
            kept = store.get("best")
            result = cls(store.rows(), configuration, criterion)
        if kept is not None and kept == result._best_key():
            result._best_folder = _best_folder(Path(database))
        return result

    def to_frame(self) -> pd.DataFrame:
        """One row a run.

        Returns
        -------
        DataFrame
            ``run``; a column for each swept option; ``status`` (done, failed or waiting);
            ``risk``, ``risk_std_error`` and ``interval_width``; ``seconds`` and ``cpu_seconds``
            of fit and evaluation; ``messages``; ``error``.
        """
        import pandas as pd

        columns: dict[str, list[Any]] = {"run": [row["run"] for row in self._rows]}
        for name in self.parameters:
            label = name if name not in (*columns, "status", *RESULTS, "error") else f"{name}_"
            columns[label] = [_tuples(row["parameters"][name]) for row in self._rows]
        columns["status"] = [row["status"] for row in self._rows]
        for name in RESULTS:
            values = [math.nan if row[name] is None else row[name] for row in self._rows]
            columns[name] = values
        columns["messages"] = ["; ".join(row["messages"]) for row in self._rows]
        columns["error"] = [row["error"] or "" for row in self._rows]
        return pd.DataFrame(columns)

    @property
    def failures(self) -> pd.DataFrame:
        """Failed runs: ``run``, the options, ``error`` and ``traceback``."""
        table = self.to_frame()
        failed = table[table["status"] == FAILED]
        traces = {row["run"]: row["traceback"] or "" for row in self._rows}
        named = list(table.columns[1 : 1 + len(self.parameters)])
        result = failed[["run", *named, "error"]].reset_index(drop=True)
        result["traceback"] = [traces[run] for run in result["run"]]
        return result

    @property
    def n_done(self) -> int:
        """Number of runs that are done."""
        return sum(row["status"] == DONE for row in self._rows)

    @property
    def n_failed(self) -> int:
        """Number of runs that failed."""
        return sum(row["status"] == FAILED for row in self._rows)

    @property
    def best_run(self) -> int:
        """Number of the best run.

        Raises
        ------
        InvalidInputError
            No run is done, or none has what the criterion needs.
        """
        return int(self._best_row()["run"])

    @property
    def best_parameters(self) -> dict[str, Any]:
        """Options of the best run."""
        return {k: _tuples(v) for k, v in self._best_row()["parameters"].items()}

    @property
    def best(self) -> InstrumentalVariableEstimator:
        """The best run's options, fitted to all people.

        Raises
        ------
        InvalidInputError
            The sweep did not fit it (``refit=False``, or it was interrupted); sweep again with
            the same arguments, which only does what is missing.
        """
        if self._best is None and self._best_folder is not None:
            self._best = load(self._best_folder)
        if self._best is None:
            raise InvalidInputError(
                "best: expected a finished sweep with refit=True, received one without a final "
                f"fit; its options are {self.best_parameters}"
            )
        return self._best

    def plot(self) -> Any:
        """Draw the criterion against every option that varies.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        MissingExtraError
            matplotlib is not installed (plot extra).
        """
        from mrfast.plots.nonlinear_sweep import sweep_figure

        return sweep_figure(self)

    def __repr__(self) -> str:
        waiting = len(self._rows) - self.n_done - self.n_failed
        parts = [f"{self.estimator}: {self.n_done} of {len(self._rows)} runs done"]
        if self.n_failed:
            parts.append(f"{self.n_failed} failed")
        if waiting:
            parts.append(f"{waiting} waiting")
        return f"SweepResult({', '.join(parts)})"

    def __str__(self) -> str:
        lines = [repr(self)]
        if self._ranked():
            row = self._best_row()
            lines.append(f"  best run {row['run']} by {self.criterion}: {self.best_parameters}")
            if row["risk"] is not None:
                lines.append(
                    f"  risk {row['risk']:.4g} (standard error {row['risk_std_error']:.2g})"
                )
            if row["interval_width"] is not None:
                lines.append(f"  interval width {row['interval_width']:.4g}")
        return "\n".join([*lines, *(f"  note: {message}" for message in self.messages)])

    # ------------------------------------------------------------------ ranking

    def _ranked(self) -> list[dict[str, Any]]:
        """Runs that can be the best, the best first."""
        usable = [
            row for row in self._rows if row["status"] == DONE and row[self.criterion] is not None
        ]
        return sorted(usable, key=lambda row: (row[self.criterion], row["run"]))

    def _best_row(self) -> dict[str, Any]:
        ranked = self._ranked()
        if not ranked:
            first = next((row["error"] for row in self._rows if row["error"]), None)
            reason = f"none of {len(self._rows)} runs" + (
                f"; the first error: {first}" if first else ""
            )
            raise check.fail("criterion", f"a run that is done and has a {self.criterion}", reason)
        return ranked[0]

    def _best_key(self) -> dict[str, Any]:
        """What says whether a saved final fit is that of the best run."""
        ranked = self._ranked()
        return {"run": ranked[0]["run"]} if ranked else {}

    def _told(self) -> tuple[str, ...]:
        told = []
        if self.n_failed:
            texts = [str(row["error"]) for row in self._rows if row["status"] == FAILED]
            common = max(set(texts), key=texts.count)
            told.append(
                f"{self.n_failed} of {len(self._rows)} runs failed; most often "
                f"({texts.count(common)}): {common}"
            )
        ranked = self._ranked()
        if self.criterion == "risk" and len(ranked) > 1:
            limit = ranked[0]["risk"] + ranked[0]["risk_std_error"]
            near = sum(row["risk"] <= limit for row in ranked)
            if near > 1:
                told.append(
                    f"{near} of {len(ranked)} runs have a risk within one standard error of the "
                    "best: they can hardly be told apart by it"
                )
        if self.criterion == "interval_width":
            told.append(
                "the width of limits says nothing of the curve's bias: an estimator that smooths "
                "too much has narrow ones"
            )
        return tuple(told)


def sweep(
    estimator: str | type[InstrumentalVariableEstimator] | InstrumentalVariableEstimator,
    parameters: Mapping[str, Any],
    data: object,
    *,
    method: str | None = None,
    n_runs: int | None = None,
    rng: int = 0,
    n_workers: int | None = 1,
    database: str | os.PathLike[str] = "sweep.sqlite",
    criterion: str = "risk",
    held_out: float = 0.2,
    interval: str | None = None,
    level: float = 0.95,
    refit: bool = True,
    retry_failed: bool = False,
    progress: bool | Callable[[int, int], None] = False,
) -> SweepResult:
    """Fit an estimator with many options, and choose the best by an honest criterion.

    Every run fits to the same part of the people and is judged on the others, by the unbiased
    risk of `mrfast.nonlinear.held_out_risk`. The best options are then fitted to all people.

    The file `database` has every run when it has ended. The same call again, after a kill or an
    interruption, does what is missing; with a larger `n_runs` a random sweep goes on. A file of
    other data or of another configuration is refused.

    Parameters
    ----------
    estimator : str, class or InstrumentalVariableEstimator
        Name, such as ``"sieve_iv"``, or an estimator whose options hold where none is swept.
    parameters : mapping
        For each option a sampler of `mrfast.nonlinear` (`Grid`, `Values`, `RandomUniform`,
        `RandomUniformInt`), a list of values, or one value.
    data : IVData, mapping or simulated people
        The mapping has the arguments of `fit` by name.
    method : {"grid", "random"}, optional
        All combinations, or `n_runs` draws. By default a grid unless an option has a random law.
    n_runs : int, optional
        Of a random sweep; of a grid, the size of a random part of it.
    rng : int
        Seed of the split, of draws and of parts of grids. An estimator's own seed is its option.
    n_workers : int, optional
        With 1 the runs are in this process; otherwise in so many processes of one thread each.
        None is one for each processor.
    database : path of a file
    criterion : {"risk", "interval_width"}
        See `CRITERIA`. The file has both for every run.
    held_out : float
        Share of the people (of the clusters, where there are any) the risk is computed on.
    interval : str, optional
        Kind of limits whose width is kept, as in `effect`.
    level : float
        Of these limits.
    refit : bool
        Fit the best options to all people, and save this fit beside `database`.
    retry_failed : bool
        Also run again what failed before.
    progress : bool or callable
        Show how far it is, or a callable that takes the runs done and their number.

    Returns
    -------
    SweepResult

    Raises
    ------
    InvalidInputError
        An argument is not usable, no run succeeded, or the file belongs to another sweep.

    Examples
    --------
    >>> import mrfast, tempfile
    >>> from mrfast.nonlinear import DoublyRanked
    >>> data = mrfast.simulation.poster_simple(2_000, rng=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = mrfast.sweep(
    ...         DoublyRanked, {"n_strata": [4, 6]}, data, database=f"{folder}/sweep.sqlite"
    ...     )
    >>> result
    SweepResult(doubly_ranked: 2 of 2 runs done)
    """
    kind, base = _estimator(estimator)
    samplers = parameter_samplers(parameters)
    _check_options(kind, samplers)
    if method is None:
        method = "random" if any(s.values is None for s in samplers.values()) else "grid"
    method = check.choice("method", method, ("grid", "random"))
    if n_runs is not None:
        n_runs = check.integer("n_runs", n_runs, minimum=1, maximum=1_000_000)
    seed = check.integer("rng", rng, minimum=0)  # a sweep that goes on needs the same again
    workers = (
        thread_count(None)
        if n_workers is None
        else check.integer("n_workers", n_workers, minimum=1)
    )
    criterion = check.choice("criterion", criterion, tuple(CRITERIA))
    share = check.scalar("held_out", held_out, above=0.0, below=1.0)
    level = check.scalar("level", level, above=0.0, below=1.0)
    if interval is not None:
        interval = check.choice("interval", interval, tuple(INTERVALS))
    check.flag("refit", refit)
    check.flag("retry_failed", retry_failed)
    people = data if isinstance(data, IVData) else _data(data)
    rows = parameter_rows(samplers, method, n_runs, seed)
    training, testing = _split(people, share, seed)
    options = {name: value for name, value in base.items() if name not in samplers}
    if workers > 1:
        _check_importable(kind)
        if "n_threads" in _options_of(kind) and "n_threads" not in samplers:
            options["n_threads"] = 1
    configuration = {
        "estimator": getattr(kind, "name", kind.__qualname__),
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "options": strict_json({k: v for k, v in options.items() if k != "n_threads"}, "estimator"),
        "parameters": {name: sampler.to_json() for name, sampler in samplers.items()},
        "method": method,
        "grid_runs": n_runs if method == "grid" else None,
        "seed": seed,
        "held_out": share,
        "interval": interval,
        "level": level,
        "mrfast_version": build_config()["version"],
    }
    runs = SweepRuns(kind, options, training, testing, interval, level)
    with SweepStore(database) as store:
        store.bind(configuration, _checksum(people))
        store.add(rows)
        if retry_failed:
            store.retry_failed()
        waiting = store.waiting()
        done = len(store.rows()) - len(waiting)
        with progress_hook(progress, done + len(waiting), "runs", "sweep") as told:
            for number, outcome in runs.outcomes(waiting, min(workers, max(len(waiting), 1))):
                store.record(number, outcome)
                done += 1
                if told is not None:
                    told(done)
        result = SweepResult(store.rows(), store.get("configuration"), criterion, _notes(people))
        result._best_row()  # raises where nothing came out of it
        if refit:
            _fit_best(result, store, runs, people)
    return result


def _fit_best(result: SweepResult, store: SweepStore, runs: SweepRuns, data: IVData) -> None:
    """Fit the best options to all people, unless a saved fit is that."""
    folder, key = _best_folder(store.path), result._best_key()
    if store.get("best") == key and (folder / "meta.json").is_file():
        result._best_folder = folder
        return
    result._best = fitted = runs.fit(data, result._best_row()["parameters"])
    if result.estimator in MODELS:  # others cannot be read again
        fitted.save(folder)
        store.put("best", key)
        result._best_folder = folder


def _best_folder(database: Path) -> Path:
    return database.with_name(f"{database.stem}_best")


def _estimator(
    estimator: object,
) -> tuple[type[InstrumentalVariableEstimator], dict[str, Any]]:
    """Class and options that differ from its defaults or are not swept."""
    if isinstance(estimator, str):
        return estimator_class(estimator), {}
    if isinstance(estimator, type) and issubclass(estimator, InstrumentalVariableEstimator):
        return estimator, {}
    if isinstance(estimator, InstrumentalVariableEstimator):
        return type(estimator), estimator.get_params()
    raise check.fail("estimator", "a name, a class or an estimator", repr(estimator))


def _check_options(
    kind: type[InstrumentalVariableEstimator], samplers: Mapping[str, ParameterSampler]
) -> None:
    known = _options_of(kind)
    for name in samplers:
        if name not in known:
            raise check.fail(
                "parameters", f"options of {kind.__name__} ({', '.join(known)})", repr(name)
            )


def _options_of(kind: type[InstrumentalVariableEstimator]) -> list[str]:
    return list(inspect.signature(kind.__init__).parameters)[1:]


def _check_importable(kind: type[InstrumentalVariableEstimator]) -> None:
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise check.fail(
            "n_workers",
            "1, or an estimator of a module that other processes can import",
            f"several, and {kind.__qualname__} of {kind.__module__}",
        )


def _data(data: object) -> IVData:
    data = getattr(data, "arrays", data)  # simulated people
    if not isinstance(data, Mapping):
        raise check.fail("data", "an IVData, or the arguments of fit by name", type(data).__name__)
    names = list(inspect.signature(iv_data).parameters)
    unknown = [str(name) for name in data if name not in names]
    lacking = [name for name in names[:3] if name not in data]
    if unknown or lacking:
        received = f"{unknown[0]!r}" if unknown else f"no {lacking[0]}"
        raise check.fail("data", f"the entries {', '.join(names)}", received)
    return iv_data(**data)


def _split(data: IVData, share: float, seed: int) -> tuple[IVData, IVData]:
    """Random parts to fit to and to judge on; a cluster is in one of them."""
    generator = np.random.default_rng([seed, 2])
    if data.clusters is None:
        chosen = np.zeros(data.n, dtype=bool)
        chosen[generator.permutation(data.n)[: round(share * data.n)]] = True
    else:
        groups = int(data.clusters.max()) + 1
        picked = np.zeros(groups, dtype=bool)
        picked[generator.permutation(groups)[: max(1, round(share * groups))]] = True
        chosen = picked[data.clusters]
    held_out = int(chosen.sum())
    if held_out < _FEWEST_HELD_OUT:
        raise check.fail(
            "held_out", f"a share with at least {_FEWEST_HELD_OUT} people", f"{held_out} people"
        )
    return checked_part(data, ~chosen), data.take(chosen)


def _checksum(data: IVData) -> str:
    """SHA-256 of all arrays."""
    digest = hashlib.sha256()
    for name in ("instruments", "exposure", "outcome", "covariates", "sample_weight", "clusters"):
        values = getattr(data, name)
        if values is not None:
            array = np.ascontiguousarray(values)
            digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
            digest.update(array.data.cast("B"))
    return digest.hexdigest()


def _notes(data: IVData) -> tuple[str, ...]:
    if not data.binary_outcome:
        return ()
    return (
        "the outcome is binary: the risk tests E[Y - p(X) | Z] = 0, which a curve of probabilities "
        "need not meet where the confounder acts within a probit or logit model",
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
