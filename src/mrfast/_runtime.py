"""Threads, random numbers and the build report."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check


def thread_count(n_threads: int | None) -> int:
    """Number of threads to use; ``None`` means every core this process may run on."""
    if n_threads is not None:
        return check.integer("n_threads", n_threads, minimum=1, maximum=1024)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def generator(rng: object) -> np.random.Generator:
    """Generator from ``None`` (fresh entropy), a seed, a SeedSequence or a Generator."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None or isinstance(rng, np.random.SeedSequence):
        return np.random.default_rng(rng)
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
        return np.random.default_rng(int(rng))
    raise check.fail("rng", "None, a non-negative seed or a numpy.random.Generator", repr(rng))


def symmetric_eigen(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, ascending, and eigenvectors, one a column, of a symmetric matrix.

    On one thread and without LAPACK, so that the bits do not depend on the threads of BLAS.
    """
    from mrfast import _core

    values, rows = _core.symmetric_eigen(np.ascontiguousarray(matrix, dtype=np.float64))
    return values, np.ascontiguousarray(rows.T)


def build_config() -> dict[str, str]:
    """How the extension was built: version, compiler, instruction dispatch.

    Returns
    -------
    dict of str
    """
    from mrfast import _core

    return dict(_core.build_config())
