"""Processor time of calls, and lines that set it beside a baseline's: what benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["header", "row", "seconds"]

_RUN = 0.02  # seconds that the calls of a run take at least
_WIDTH = 58


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Shortest processor time of a call; a run holds several calls of a fast function."""
    calls, used = 1, _timed(function, 1)
    while used < _RUN:
        calls *= 2
        used = _timed(function, calls)
    return min([used, *(_timed(function, calls) for _ in range(repeats - 1))]) / calls


def header(baseline: str) -> None:
    """First line of a table; `baseline` names what mrfast is compared with."""
    print(f"{'processor time':<{_WIDTH}} {'mrfast':>10} {baseline:>10} {'ratio':>8}")


def row(work: str, ours: float, baseline: float | None = None) -> None:
    """One line: seconds of mrfast, of the baseline if there is one, and their ratio."""
    line = f"{work:<{_WIDTH}} {_text(ours):>10}"
    if baseline is not None:
        line += f" {_text(baseline):>10} {baseline / ours:>8.1f}"
    print(line, flush=True)


def _timed(function: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        function()
    return time.process_time() - start


def _text(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
