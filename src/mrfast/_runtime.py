"""Threads, random numbers, columns of texts and the build report."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check

TextBuffers = tuple[NDArray[np.int64], NDArray[np.uint8], "NDArray[np.bool_] | None"]
"""Texts one after the other: where each begins, their letters in UTF-8, which are there."""

Texts = NDArray[np.object_] | TextBuffers
"""Column of texts: objects, of which None and NaN are missing, or buffers."""


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


def missing_texts(values: Texts, words: Sequence[str]) -> NDArray[np.bool_]:
    """Whether an element is None, NaN or one of a few words; the others are texts.

    Raises
    ------
    TypeError
        An element is something else.
    """
    from mrfast import _core

    return _core.texts.missing_or_among(values, list(words))


def match_texts(first: Texts, second: Texts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the texts of `first` as they occur, and find those of `second` among them.

    Returns
    -------
    first_codes, second_codes : ndarray of int64
        -1 for None and NaN, and for what `first` does not have.
    """
    from mrfast import _core

    return _core.texts.match(first, second)


def build_config() -> dict[str, str]:
    """How the extension was built: version, compiler, instruction dispatch.

    Returns
    -------
    dict of str
    """
    from mrfast import _core

    return dict(_core.build_config())
