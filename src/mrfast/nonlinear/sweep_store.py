"""The SQLite file of a sweep: every run with its options, result or error."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mrfast import _validation as check
from mrfast._files import content_checksum, nullable_json
from mrfast.errors import DamagedFileError, InvalidInputError

__all__ = ["DONE", "FAILED", "RESULTS", "WAITING", "SweepStore"]

WAITING, DONE, FAILED = "waiting", "done", "failed"
RESULTS = ("risk", "risk_std_error", "interval_width", "seconds", "cpu_seconds")
"""Numbers of a run that is done."""

_APPLICATION = 0x4D524653  # "MRFS", in the header of the file
_VERSION = 1
_SCHEMA = f"""
CREATE TABLE sweep (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    parameters TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT '{WAITING}',
    {", ".join(f"{name} REAL" for name in RESULTS)},
    messages TEXT,
    error TEXT,
    traceback TEXT
);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""


class SweepStore:
    """Open file of a sweep; one process at a time may have it.

    A run is written when it has ended, in one transaction: after a kill the file has all runs that
    had ended, and the others wait.

    Parameters
    ----------
    path : path of a file

    Raises
    ------
    DamagedFileError
        The file is damaged, of another kind or of an unknown version.
    InvalidInputError
        Another process has it open.
    OSError
        It cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, must_exist: bool = False) -> None:
        self.path = Path(path)
        if must_exist and not self.path.is_file():
            raise FileNotFoundError(2, "No such file", str(self.path))
        new = not self.path.exists() or not self.path.stat().st_size
        if new:
            with self.path.open("ab"):
                pass  # an error of the system for a place that cannot be written
        self._connection = sqlite3.connect(self.path, timeout=1.0, isolation_level=None)
        try:
            with self._reading():
                self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                if new:
                    self._connection.executescript(f"BEGIN EXCLUSIVE;{_SCHEMA}COMMIT;")
                else:
                    self._check_kind()
                    self._connection.execute("BEGIN EXCLUSIVE")  # kept until it is closed
                    self._connection.execute("COMMIT")
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def _check_kind(self) -> None:
        application = self._number("PRAGMA application_id")
        version = self._number("PRAGMA user_version")
        if application != _APPLICATION:
            raise DamagedFileError(
                f"database: expected the file of a sweep in {self.path}, received another database"
            )
        if version != _VERSION:
            raise DamagedFileError(
                f"database: expected format version {_VERSION} in {self.path}, received {version}"
            )

    def _number(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise InvalidInputError(
                    f"database: expected a file that no other process uses, received {self.path}, "
                    "which one has open"
                ) from error
            raise OSError(5, str(error), str(self.path)) from error
        except sqlite3.DatabaseError as error:
            raise DamagedFileError(
                f"database: expected the file of a sweep in {self.path}, received {error}"
            ) from error

    # ------------------------------------------------------------------ what is swept

    def get(self, key: str) -> Any:
        """Value of a key, None where there is none."""
        with self._reading():
            row = self._connection.execute(
                "SELECT value FROM sweep WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else _parsed(row[0], self.path)

    def put(self, key: str, value: Any) -> None:
        """Keep a value."""
        with self._reading():
            self._connection.execute(
                "INSERT OR REPLACE INTO sweep VALUES (?, ?)", (key, json.dumps(value))
            )

    def bind(self, configuration: Mapping[str, Any], data_checksum: str) -> None:
        """Tie the file to a configuration and data, or refuse others.

        Raises
        ------
        InvalidInputError
            The file belongs to another sweep; the message names what differs.
        """
        known = self.get("configuration")
        if known is None:
            with self._transaction():
                self.put("configuration", configuration)
                self.put("configuration_sha256", content_checksum(configuration))
                self.put("data_sha256", data_checksum)
            return
        if content_checksum(configuration) != self.get("configuration_sha256"):
            fresh = json.loads(json.dumps(configuration))
            differs = [name for name in fresh if fresh[name] != known.get(name)] or ["content"]
            name = differs[0]
            raise check.fail(
                "database",
                f"a new file, or one of a sweep with the same {name} ({_short(fresh.get(name))})",
                f"{self.path} of a sweep with {_short(known.get(name))}",
            )
        if data_checksum != self.get("data_sha256"):
            raise check.fail(
                "database", "a new file, or one of a sweep of the same data", f"{self.path}"
            )

    # ------------------------------------------------------------------ runs

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the runs that the file does not have yet; `rows` are all of them from the first."""
        with self._reading():
            known = self._number("SELECT COUNT(*) FROM runs")
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO runs (run, parameters) VALUES (?, ?)",
                [(i + 1, json.dumps(rows[i])) for i in range(known, len(rows))],
            )

    def retry_failed(self) -> None:
        """Let failed runs wait again."""
        with self._reading():
            self._connection.execute(
                f"UPDATE runs SET status = '{WAITING}', error = NULL, traceback = NULL "
                f"WHERE status = '{FAILED}'"
            )

    def waiting(self) -> list[tuple[int, dict[str, Any]]]:
        """Number and options of the runs that are not done, in order."""
        with self._reading():
            rows = self._connection.execute(
                f"SELECT run, parameters FROM runs WHERE status = '{WAITING}' ORDER BY run"
            ).fetchall()
        return [(int(run), _parsed(text, self.path)) for run, text in rows]

    def record(self, run: int, outcome: Mapping[str, Any]) -> None:
        """Keep the outcome of a run: an ``error`` with its ``traceback``, or the results."""
        failed = outcome.get("error") is not None
        values = nullable_json({name: outcome.get(name) for name in RESULTS})
        with self._reading():
            self._connection.execute(
                f"UPDATE runs SET status = ?, {', '.join(f'{name} = ?' for name in RESULTS)}, "
                "messages = ?, error = ?, traceback = ? WHERE run = ?",
                (
                    FAILED if failed else DONE,
                    *values.values(),
                    json.dumps(list(outcome.get("messages", ()))),
                    outcome.get("error"),
                    outcome.get("traceback"),
                    run,
                ),
            )

    def rows(self) -> list[dict[str, Any]]:
        """All runs: run, parameters, status, the results, messages, error and traceback."""
        names = ("run", "parameters", "status", *RESULTS, "messages", "error", "traceback")
        with self._reading():
            found = self._connection.execute(
                f"SELECT {', '.join(names)} FROM runs ORDER BY run"
            ).fetchall()
        table = [dict(zip(names, row, strict=True)) for row in found]
        for row in table:
            row["parameters"] = _parsed(row["parameters"], self.path)
            row["messages"] = _parsed(row["messages"] or "[]", self.path)
        return table

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._reading():
            self._connection.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DamagedFileError(f"database: expected JSON in {path}, received {error}") from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
