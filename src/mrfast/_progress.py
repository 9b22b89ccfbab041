"""How far a long computation is, for people and for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mrfast import _validation as check

__all__ = ["ProgressLine", "progress_hook"]


class ProgressLine:
    """Writes how far a run is to standard error, from its third second on.

    One line that changes on a terminal, a line every ten seconds elsewhere.

    Parameters
    ----------
    total : int or None
        Number of steps, where that is known.
    unit : str
        What the steps are.
    task : str
        What the line begins with.
    """

    def __init__(self, total: int | None, unit: str, task: str = "massive") -> None:
        self._total, self._unit, self._task = total, unit, task
        self._begin = self._last = time.monotonic()
        self._open = False

    def __call__(self, done: int) -> None:
        """Say that so many steps are done."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - self._begin < 2 or not done or now - self._last < (0.2 if terminal else 10):
            return
        self._last = now
        elapsed = now - self._begin
        text = f"{self._task}: {done:,} {self._unit}, {elapsed:.0f} s"
        if self._total is not None:
            left = elapsed * (self._total - done) / done
            text = (
                f"{self._task}: {done:,} of {self._total:,} {self._unit}, {elapsed:.0f} s, "
                f"{left:.0f} s left"
            )
        sys.stderr.write(f"\r{text}   " if terminal else f"{text}\n")
        sys.stderr.flush()
        self._open = terminal

    def finish(self) -> None:
        """End the line."""
        if self._open:
            sys.stderr.write("\n")


@contextmanager
def progress_hook(
    progress: bool | Callable[[int, int], None],
    total: int | None,
    unit: str,
    task: str = "massive",
) -> Iterator[Callable[[int], None] | None]:
    """Callable for the kernel, taking the steps done; their number may not be known."""
    if not callable(progress) and not isinstance(progress, bool):
        raise check.fail("progress", "True, False or a callable", repr(progress))
    if callable(progress):
        yield lambda done: progress(done, done if total is None else total)
    elif progress:
        line = ProgressLine(total, unit, task)
        try:
            yield line
        finally:
            line.finish()
    else:
        yield None
