"""Entry point of a sweep's worker process: ``python -m mrfast.nonlinear._sweep_worker FOLDER``."""

from __future__ import annotations

import os
import sys

from mrfast.nonlinear.sweep_runs import work

if __name__ == "__main__":
    # Answers have a stream of their own; what estimators print goes to standard error.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as stream:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def answer(line: str) -> None:
            """Send one line to the parent."""
            stream.write(line)
            stream.flush()

        work(sys.argv[1], answer)
