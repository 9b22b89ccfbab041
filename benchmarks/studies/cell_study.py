"""The command of a study that consists of cells, and the CSV that a stopped one continues."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mrfast


def update(document: Path, name: str, tables: Iterable[str], table: Callable[[str], str]) -> None:
    """Put the tables of a study between their marks in a document."""
    text = document.read_text(encoding="utf-8")
    for kind in tables:
        mark = f"<!-- study: {name} {kind} -->\n"
        before, found, rest = text.partition(mark)
        if not found:
            raise SystemExit(f"{document}: no mark for the table {kind!r}")
        text = before + mark + table(kind) + rest[rest.index("<!-- end of study") :]
    document.write_text(text, encoding="utf-8")


def header(name: str, seed: int) -> str:
    """First line of the CSV: how it came about."""
    return (
        f"# seed {seed}; mrfast {mrfast.__version__}, numpy {np.__version__}, "
        f"Python {platform.python_version()}; "
        f"cd benchmarks/studies && python {name}.py --output {name}.csv\n"
    )


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Any]]:
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=5)


def main(
    name: str,
    description: str | None,
    *,
    seed: int,
    cells: Iterable[str],
    replicates: int,
    run_cell: Callable[..., list[dict[str, Any]]],
    tables: Iterable[str],
    markdown: Callable[[str, Path], str],
) -> None:
    """Run the cells that the CSV does not have yet, or write a table."""
    cells, tables, folder = list(cells), list(tables), Path(__file__).parent
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, help="CSV to write, and to continue")
    parser.add_argument("--cells", nargs="*", default=cells, choices=cells)
    parser.add_argument("--replicates", type=int, default=replicates)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", choices=tables)
    parser.add_argument("--document", type=Path, help="Markdown file whose tables to renew")
    arguments = parser.parse_args()
    if arguments.table is not None:
        sys.stdout.write(markdown(arguments.table, folder))
        return
    if arguments.document is not None:
        update(arguments.document, name, tables, lambda kind: markdown(kind, folder))
        return
    if arguments.output is None:
        parser.error("--output is required")
    path: Path = arguments.output
    rows = pd.read_csv(path, comment="#").to_dict("records") if path.exists() else []
    done = {row["cell"] for row in rows}
    with _mapper(arguments.workers) as mapper:
        for cell in arguments.cells:
            if cell in done:
                continue
            new = run_cell(cell, arguments.replicates, mapper=mapper)
            rows += new
            frame = pd.DataFrame(rows)
            part = path.with_suffix(".part")
            part.write_text(header(name, seed) + frame.to_csv(index=False, float_format="%.6g"))
            part.replace(path)
            print(pd.DataFrame(new).to_string(index=False), file=sys.stderr, flush=True)
