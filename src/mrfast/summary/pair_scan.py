"""Mendelian randomization of every exposure against every outcome: `mr_matrix`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrfast import _core
from mrfast import _validation as check
from mrfast._progress import progress_hook
from mrfast._runtime import build_config, thread_count
from mrfast._validation import Float
from mrfast.errors import InvalidInputError
from mrfast.summary.matrix_inputs import (
    Instruments,
    MatrixExposures,
    MatrixOutcomes,
    OutcomeBlock,
)
from mrfast.summary.matrix_store import (
    BlockRecord,
    FolderStore,
    MemoryStore,
    PairBlock,
    Settings,
    read_blocks,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MATRIX_METHODS", "MRMatrix", "mr_matrix"]

MATRIX_METHODS = ("ivw", "egger", "weighted_median", "wald_ratio")
"""Methods that `mr_matrix` knows, as they are called everywhere."""

_ALIASES = {"wald": "wald_ratio"}
_THREE = ("estimate", "std_error", "p_value")
_WIDEST = 256  # outcomes that the kernel takes at once
_LARGEST = 16_384  # outcomes in a block
_PAIRS = 1 << 20  # in a block of which few are kept; half of it where all are
_ENTRIES = 3 << 20  # SNPs times outcomes of a block: 130 MB with the kernel's copy
_MOST_IN_MEMORY = 20_000_000  # pairs


def _columns(methods: Sequence[str], leave_one_out: bool) -> list[str]:
    """Names of the numbers of a pair, in the order of the kernel."""
    names: list[str] = []
    if "ivw" in methods:
        names += [f"ivw_{part}" for part in (*_THREE, "q", "q_p_value")]
        if leave_one_out:
            names += ["leave_one_out_min", "leave_one_out_max"]
    if "egger" in methods:
        parts = ("intercept", "intercept_std_error", "intercept_p_value", "q", "q_p_value")
        names += [f"egger_{part}" for part in (*_THREE, *parts)]
    for method in ("weighted_median", "wald_ratio"):
        if method in methods:
            names += [f"{method}_{part}" for part in _THREE]
    return names


class MRMatrix:
    """Result of `mr_matrix`: the pairs that were kept, block by block.

    Attributes
    ----------
    path : Path or None
        Folder with the blocks.
    methods : tuple of str
    keep_p : float or None
    complete : bool
        False for the folder of a run that was interrupted.
    """

    def __init__(
        self,
        store: MemoryStore | FolderStore,
        methods: Sequence[str],
        keep_p: float | None,
        complete: bool,
        absent: int = 0,
    ) -> None:
        self._store = store
        self.methods, self.keep_p, self.complete = tuple(methods), keep_p, complete
        self.path = store.path
        self._absent = absent

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> MRMatrix:
        """Open the folder of an earlier run, finished or not.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        MRMatrix

        Raises
        ------
        InvalidInputError
            There is no such folder, or it is damaged.
        """
        store = FolderStore.open(path)
        settings = store.settings
        absent = int(store.exposures.get("absent", 0))
        return cls(store, settings.methods, settings.keep_p, store.is_complete, absent)

    @property
    def n_blocks(self) -> int:
        """Number of finished blocks."""
        return len(self._store.records)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the outcomes of the finished blocks."""
        return tuple(name for record in self._store.records for name in record.outcomes)

    @property
    def exposures(self) -> pd.DataFrame:
        """Table of the exposures: name, number of instruments, mean F."""
        import pandas as pd

        known = self._store.exposures
        strength = [np.nan if value is None else value for value in known["f_statistic"]]
        return pd.DataFrame(
            {"exposure": known["names"], "n_snps": known["n_snps"], "f_statistic": strength}
        )

    @property
    def counts(self) -> dict[str, int]:
        """Pairs in all, kept ones, those that each method could test; exposures, outcomes, blocks.

        ``instruments_absent`` counts instruments that the outcomes' source does not list.
        """
        records = self._store.records
        n_exposures, n_outcomes = len(self._store.exposures["names"]), len(self.outcomes)
        tested = np.sum([record.tested for record in records], axis=0, dtype=np.int64, initial=0)
        tested = np.broadcast_to(tested, len(MATRIX_METHODS))
        by_method = {
            f"tested_{name}": int(tested[MATRIX_METHODS.index(name)]) for name in self.methods
        }
        return {
            "pairs": n_exposures * n_outcomes,
            "kept": sum(record.rows for record in records),
            **by_method,
            "exposures": n_exposures,
            "outcomes": n_outcomes,
            "blocks": len(records),
            "instruments_absent": self._absent,
        }

    def read(self, block: int) -> pd.DataFrame:
        """Kept pairs of one block, one row a pair.

        Parameters
        ----------
        block : int
            0 to `n_blocks` - 1.

        Returns
        -------
        DataFrame
            Columns ``exposure``, ``outcome``, ``n_snps`` and those of the methods:
            ``ivw_estimate``, ``ivw_std_error``, ``ivw_p_value`` and so on.

        Raises
        ------
        InvalidInputError
            No such block, or its file was changed.
        """
        number = check.integer("block", block, minimum=0, maximum=max(self.n_blocks - 1, 0))
        if not self.n_blocks:
            raise check.fail("block", "a finished block", "none is there")
        return self._store.read(number)

    def blocks(self) -> Iterator[pd.DataFrame]:
        """Tables of all blocks, one after the other."""
        return read_blocks(self._store)

    def frame(self, *, tidy: bool = False, ci_level: float = 0.95) -> pd.DataFrame:
        """All kept pairs.

        Parameters
        ----------
        tidy : bool, default False
            One row a pair and method, with intervals, in the columns of `mrfast.mr`, instead of
            one row a pair.
        ci_level : float, default 0.95
            Of the intervals of the tidy form.

        Returns
        -------
        DataFrame
            Sorted by block, exposure, outcome.
        """
        import pandas as pd

        level = check.scalar("ci_level", ci_level, above=0, below=1)
        tables = [table.astype({"exposure": object, "outcome": object}) for table in self.blocks()]
        whole = pd.concat(tables, ignore_index=True) if tables else self._empty()
        return _tidy(whole, self.methods, level) if tidy else whole

    def _empty(self) -> pd.DataFrame:
        import pandas as pd

        loo = isinstance(self._store, FolderStore) and self._store.settings.leave_one_out
        return pd.DataFrame(columns=["exposure", "outcome", "n_snps", *_columns(self.methods, loo)])

    def matrix(self, column: str) -> Float:
        """One column as a matrix.

        Parameters
        ----------
        column : str
            Such as ``"ivw_estimate"``.

        Returns
        -------
        ndarray, shape (E, O)
            NaN for pairs that were not kept.
        """
        names = self._store.exposures["names"]
        place = {name: i for i, name in enumerate(names)}
        out = np.full((len(names), len(self.outcomes)), np.nan)
        first = 0
        for record, table in zip(self._store.records, self.blocks(), strict=True):
            if column not in table:
                known = ", ".join(map(str, table.columns[2:]))
                raise check.fail("column", f"one of {known}", repr(column))
            column_of = {name: first + i for i, name in enumerate(record.outcomes)}
            rows = [place[str(name)] for name in table["exposure"]]
            columns = [column_of[str(name)] for name in table["outcome"]]
            out[rows, columns] = table[column]
            first += len(record.outcomes)
        return out

    def plot(self, **options: Any) -> Any:
        """Figure of the p-values by outcome or group of outcomes.

        Parameters
        ----------
        **options
            Of `mrfast.plots.phewas.phewas_figure`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from mrfast.plots.phewas import phewas_figure

        return phewas_figure(self, **options)

    def summary(self) -> str:
        """What was tested and kept, in words."""
        counts = self.counts
        lines = [
            f"{counts['exposures']:,} exposures x {counts['outcomes']:,} outcomes = "
            f"{counts['pairs']:,} pairs{'' if self.complete else ' (run not finished)'}"
        ]
        lines += [f"  {name}: {counts[f'tested_{name}']:,} tested" for name in self.methods]
        rule = "all" if self.keep_p is None else f"those of p < {self.keep_p:g}"
        lines.append(f"{counts['kept']:,} kept ({rule})")
        if self._absent:
            lines.append(f"{self._absent:,} instruments are not among the outcomes' SNPs")
        if self.path is not None:
            lines.append(f"in {self.path} ({counts['blocks']:,} blocks)")
        return "\n".join(lines)

    def __repr__(self) -> str:
        counts = self.counts
        return f"<MRMatrix: {counts['pairs']:,} pairs, {counts['kept']:,} kept>"


def mr_matrix(
    exposures: Any,
    outcomes: Any,
    *,
    methods: Sequence[str] | str = ("ivw", "egger"),
    keep_p: float | None = None,
    keep_by: Sequence[str] | str | None = None,
    leave_one_out: bool = False,
    path: str | os.PathLike[str] | None = None,
    store: str = "parquet",
    dtype: str = "float64",
    block_size: int | None = None,
    n_threads: int | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> MRMatrix:
    """Run quick methods on every pair of an exposure and an outcome.

    Associations must be per copy of the same allele (see `mrfast.harmonise`) and the instruments of
    an exposure independent. A pair uses those instruments that its outcome has.

    Parameters
    ----------
    exposures : MatrixExposures, pair of matrices, or DataFrame
        Instruments of E exposures. ``(beta, se)`` of shape (P, E), NaN where a SNP is no
        instrument; or a table of columns ``exposure``, ``snp``, ``beta``, ``std_error``. See
        `mrfast.MatrixExposures` for lists and masks.
    outcomes : MatrixOutcomes, pair of matrices, DataFrame, or path of a Parquet file
        ``(beta, se)`` of shape (P, O), which may be memory-mapped, NaN where an outcome lacks a
        SNP; or a table of columns ``outcome``, ``snp``, ``beta``, ``std_error``. See
        `mrfast.MatrixOutcomes` for iterators and Parquet files.
    methods : sequence of {"ivw", "egger", "weighted_median", "wald_ratio"}
        As `mrfast.ivw` and the others with their defaults: multiplicative random effects, whose
        residual standard error is at least 1; Student's law for Egger regression; the robust
        standard error of the weighted median. ``"wald_ratio"`` is for pairs of one SNP.
    keep_p : float, optional
        Keep pairs of which a method of `keep_by` has a smaller p-value; default all pairs.
    keep_by : sequence of str, optional
        Methods that decide, among `methods`; all by default. The weighted median is then computed
        for the kept pairs only, unless it decides.
    leave_one_out : bool, default False
        Add the smallest and largest IVW estimate without one of the SNPs.
    path : path-like, optional
        Folder for the results, one file a block. A run that was interrupted is gone on with: the
        same call computes only the blocks that are not there, after it has checked that their
        input is the same. In memory by default.
    store : {"parquet", "npy"}, default "parquet"
        Files in `path`: Parquet (pyarrow, the extra ``io``), or arrays with named columns that
        ``numpy.load(file, mmap_mode="r")`` maps.
    dtype : {"float64", "float32"}, default "float64"
        Of the outcomes' numbers inside; sums are of float64. With float32 estimates are off by
        less than 1e-6 standard errors, and the run takes half the time and memory.
    block_size : int, optional
        Outcomes in a block, at most 16384. By default as many as take some 200 MB.
    n_threads : int or None
        None takes all cores. Results do not depend on it.
    progress : bool or callable
        A line on standard error; or a function of the pairs done and their number in all.

    Returns
    -------
    MRMatrix

    Raises
    ------
    InvalidInputError
        Bad numbers, SNPs that cannot be matched, a folder of another run or whose input changed.
    MissingExtraError
        ``store="parquet"`` without pyarrow.
    KeyboardInterrupt
        Ctrl-C, within a second; the folder can be gone on with.

    Examples
    --------
    >>> import numpy as np, mrfast
    >>> rng = np.random.default_rng(1)
    >>> bx, sy = rng.normal(0.1, 0.02, (30, 2)), np.full((30, 5), 0.02)
    >>> by = rng.normal(0, sy)
    >>> found = mrfast.mr_matrix((bx, np.full((30, 2), 0.01)), (by, sy))
    >>> found.counts["pairs"], list(found.frame().columns[:5])
    (10, ['exposure', 'outcome', 'n_snps', 'ivw_estimate', 'ivw_std_error'])
    """
    known, source = MatrixExposures.coerced(exposures), MatrixOutcomes.coerced(outcomes)
    chosen = _methods("methods", methods, MATRIX_METHODS)
    if keep_by is not None and keep_p is None:
        raise check.fail("keep_by", "None without keep_p", repr(keep_by))
    deciding = chosen if keep_by is None else _methods("keep_by", keep_by, chosen)
    threshold = None if keep_p is None else check.scalar("keep_p", keep_p, above=0, maximum=1)
    if check.flag("leave_one_out", leave_one_out) and "ivw" not in chosen:
        raise check.fail("leave_one_out", "False without the method ivw", "True")
    check.choice("store", store, ("parquet", "npy"))
    check.choice("dtype", dtype, ("float32", "float64"))
    threads = thread_count(n_threads)
    instruments = known.instruments(source)
    if "weighted_median" in chosen:
        _check_for_median(instruments)
    n_exposures = len(known.names)
    entries = _ENTRIES // instruments.n_snps
    pairs = _PAIRS // 2 if threshold is None else _PAIRS
    width = min(_LARGEST, pairs // n_exposures, max(min(_WIDEST, entries), entries // 4))
    width = max(1, width)
    if width > _WIDEST:
        width -= width % _WIDEST
    if block_size is not None:
        width = check.integer("block_size", block_size, minimum=1, maximum=_LARGEST)
    total = None if source.n_outcomes is None else source.n_outcomes * n_exposures
    place: MemoryStore | FolderStore
    described = {
        "names": list(known.names),
        "n_snps": np.diff(instruments.starts).tolist(),
        "f_statistic": [None if np.isnan(f) else float(f) for f in known.f_statistic],
        "absent": instruments.absent,
    }
    if path is None:
        if threshold is None and total is not None and total > _MOST_IN_MEMORY:
            raise check.fail(
                "path", f"a folder for more than {_MOST_IN_MEMORY:,} pairs, or keep_p", "None"
            )
        place = MemoryStore(described)
    else:
        settings = Settings(
            mrfast=build_config()["version"],
            exposures=_digest(instruments, described),
            methods=list(chosen),
            keep_by=list(deciding),
            keep_p=threshold,
            leave_one_out=leave_one_out,
            dtype=dtype,
            store=store,
            block_size=width,
        )
        place = FolderStore(Path(path), settings, described)

    columns = _columns(chosen, leave_one_out)

    def kernel(block: OutcomeBlock, part: slice) -> Any:
        found: Any = _core.matrix.pair_matrix(
            np.ascontiguousarray(block.beta[:, part]),
            np.ascontiguousarray(block.se[:, part]),
            starts=instruments.starts,
            rows=instruments.rows,
            bx=instruments.beta,
            sx=instruments.se,
            methods=list(chosen),
            deciding=list(deciding),
            keep_p=2.0 if threshold is None else threshold,
            leave_one_out=leave_one_out,
            single=dtype == "float32",
            threads=threads,
        )
        if len(found) == 2:
            raise _bad_entry(block, instruments, found[0], part.start + found[1])
        exposure, outcome, n_snps, values, tested = found
        return exposure, outcome + np.int32(part.start), n_snps, values, np.array(tested)

    def fit(block: OutcomeBlock) -> tuple[PairBlock, list[int]]:
        starts = range(0, len(block.names), _WIDEST)
        found = [kernel(block, slice(first, first + _WIDEST)) for first in starts]
        tested = sum(part[4] for part in found).tolist()
        if len(found) == 1:
            exposure, outcome, n_snps, values, _ = found[0]
        else:
            exposure, outcome, n_snps = (
                np.concatenate([part[k] for part in found]) for k in range(3)
            )
            order = np.lexsort((outcome, exposure))
            exposure, outcome, n_snps = exposure[order], outcome[order], n_snps[order]
            values = np.concatenate([part[3] for part in found], axis=1)[:, order]
        return PairBlock(exposure, outcome, n_snps, dict(zip(columns, values, strict=True))), tested

    with progress_hook(progress, total, "pairs", "mr_matrix") as hook:
        _run(source.blocks(instruments, width), place, fit, n_exposures, hook)
    return MRMatrix(place, chosen, threshold, True, instruments.absent)


def _run(
    blocks: Iterator[OutcomeBlock],
    place: MemoryStore | FolderStore,
    fit: Callable[[OutcomeBlock], tuple[PairBlock, list[int]]],
    n_exposures: int,
    hook: Callable[[int], None] | None,
) -> None:
    """Compute the blocks that are not there; each is written while the next one is computed."""
    seen: set[str] = set()
    number = 0
    with ThreadPoolExecutor(1) as writer:
        pending: Future[None] | None = None
        try:
            for number, block in enumerate(blocks, start=1):
                if not seen.isdisjoint(block.names):
                    twice = next(name for name in block.names if name in seen)
                    raise check.fail("outcomes", "every name once", f"{twice!r} several times")
                seen.update(block.names)
                digest = block.digest() if place.path is not None else ""
                done = place.finished(number - 1)
                if done is not None:
                    if (done.input, done.outcomes) != (digest, list(block.names)):
                        raise check.fail(
                            "outcomes",
                            f"the same input as the run in {place.path} had",
                            f"other numbers in block {number - 1}; choose a new folder",
                        )
                elif isinstance(place, FolderStore) and place.is_complete:
                    raise check.fail(
                        "outcomes", f"those of the finished run in {place.path}", "more of them"
                    )
                else:
                    pairs, tested = fit(block)
                    if pending is not None:
                        pending.result()
                    record = BlockRecord(
                        block=number - 1,
                        outcomes=list(block.names),
                        input=digest,
                        file="",
                        sha256="",
                        bytes=0,
                        rows=len(pairs.exposure),
                        tested=[int(count) for count in tested],
                    )
                    pending = writer.submit(place.add, record, pairs)
                if hook is not None:
                    hook(len(seen) * n_exposures)
            if pending is not None:
                pending.result()
        except KeyboardInterrupt as interrupt:
            if pending is not None:
                pending.result()
            if place.path is None:
                raise
            raise KeyboardInterrupt(
                f"{len(place.records):,} blocks are in {place.path}; the same call goes on"
            ) from interrupt
    if number < len(place.records):
        raise check.fail(
            "outcomes", f"those of the run in {place.path}", "fewer of them; choose a new folder"
        )
    if not number:
        raise check.fail("outcomes", "at least one outcome", "none")
    place.complete()


def _methods(argument: str, names: Sequence[str] | str, known: Sequence[str]) -> tuple[str, ...]:
    given = (names,) if isinstance(names, str) else tuple(names)
    if not given:
        raise check.fail(argument, "at least one method", "none")
    chosen = {check.choice(argument, _ALIASES.get(name, name), known) for name in given}
    return tuple(name for name in MATRIX_METHODS if name in chosen)


def _check_for_median(instruments: Instruments) -> None:
    if np.isnan(instruments.se).any():
        raise check.fail("exposures", "standard errors, for the weighted median", "none")
    if not instruments.beta.all():
        raise check.fail("exposures", "numbers other than 0, for the weighted median", "0")


def _digest(instruments: Instruments, described: Mapping[str, Any]) -> str:
    state = hashlib.sha256(json.dumps([described, instruments.snps]).encode())
    for array in (
        instruments.starts,
        instruments.rows,
        instruments.beta,
        instruments.se,
        instruments.places,
    ):
        state.update(b"none" if array is None else np.ascontiguousarray(array).data)
    return state.hexdigest()


def _bad_entry(
    block: OutcomeBlock, instruments: Instruments, snp: int, outcome: int
) -> InvalidInputError:
    if instruments.snps is not None:
        name = repr(instruments.snps[snp])
    else:
        name = f"row {snp if instruments.places is None else instruments.places[snp]}"
    return check.fail(
        "outcomes",
        "finite numbers, se above 0 and neither extreme (or NaN in both)",
        f"beta {block.beta[snp, outcome]!r}, se {block.se[snp, outcome]!r} "
        f"for SNP {name} of {block.names[outcome]!r}",
    )


def _tidy(whole: pd.DataFrame, methods: Sequence[str], level: float) -> pd.DataFrame:
    """One row a pair and method, with intervals."""
    import pandas as pd
    from scipy.special import ndtri, stdtrit

    tail = (1 - level) / 2
    parts = []
    for method in methods:
        part = whole[["exposure", "outcome", "n_snps"]].copy()
        part.insert(2, "method", method)
        n = whole["n_snps"].to_numpy(dtype=np.float64)
        estimate, error = (
            whole[f"{method}_{name}"].to_numpy(dtype=np.float64)
            for name in ("estimate", "std_error")
        )
        if method == "egger":
            reach = -stdtrit(np.where(n > 2, n - 2, np.nan), tail) * error
        else:
            reach = -ndtri(tail) * error
        part["estimate"], part["std_error"] = estimate, error
        part["ci_lower"], part["ci_upper"] = estimate - reach, estimate + reach
        part["p_value"] = whole[f"{method}_p_value"].to_numpy()
        for name in ("q", "q_p_value", "intercept", "intercept_std_error", "intercept_p_value"):
            column = f"{method}_{name}"
            part[name] = whole[column].to_numpy() if column in whole else np.nan
        parts.append(part)
    table = pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)
    return table
