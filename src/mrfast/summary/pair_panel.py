"""Inverse-variance weighting, Egger regression and Q of many pairs of traits at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _core
from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float

__all__ = ["ExposurePanel", "OutcomePanel", "PairResults", "fit_pairs"]

WIDEST = 256  # outcomes in a block of the kernel
PLANES = (
    "ivw",
    "ivw_std_error",
    "ivw_q",
    "egger",
    "egger_std_error",
    "intercept",
    "intercept_std_error",
    "egger_q",
)


class OutcomePanel:
    """Associations of P SNPs with O outcomes, as the kernel reads them.

    Parameters
    ----------
    beta, se : array_like, shape (P, O)
        NaN in both where an outcome lacks a SNP.
    dtype : {"float32", "float64"}, default "float32"
        Of the stored 1/se^2, beta/se^2 and beta^2/se^2; sums are always of float64. With float32
        estimates are off by less than 1e-6 standard errors.

    Raises
    ------
    InvalidInputError
        Shapes that differ, infinite numbers, NaN in one of the two only, standard errors not
        above 0 or beyond the range of `dtype`.
    """

    def __init__(self, beta: ArrayLike, se: ArrayLike, *, dtype: str = "float32") -> None:
        kind = np.dtype(check.choice("dtype", dtype, ("float32", "float64")))
        b, s = np.asarray(beta, dtype=np.float64), np.asarray(se, dtype=np.float64)
        if b.ndim != 2 or b.shape != s.shape:
            raise check.fail("beta", "a matrix of the shape of se", f"{b.shape} and {s.shape}")
        absent = np.isnan(b)
        if (absent != np.isnan(s)).any():
            raise check.fail("se", "NaN exactly where beta has it", "another pattern")
        if not (np.isfinite(b) | absent).all() or not ((s > 0) & np.isfinite(s) | absent).all():
            raise check.fail("beta, se", "finite numbers, se above 0 (or NaN)", "others")
        snps, outcomes = b.shape
        width = max(1, min(WIDEST, outcomes))
        self.packed = np.zeros((-(-outcomes // width), snps, 3, width), dtype=kind)
        for block, packed in enumerate(self.packed):
            part = slice(block * width, min((block + 1) * width, outcomes))
            size = part.stop - part.start
            z = np.where(absent[:, part], 0, b[:, part] / s[:, part])
            inverse = np.where(absent[:, part], 0, 1 / s[:, part])
            with np.errstate(over="ignore"):
                packed[:, 0, :size] = inverse * inverse
                packed[:, 1, :size] = z * inverse
                packed[:, 2, :size] = z * z
            small = (packed[:, 0, :size] == 0) & ~absent[:, part]
            if small.any() or not np.isfinite(packed).all():
                raise check.fail("beta, se", f"numbers within the range of {dtype}", "others")
        self.n_outcomes = outcomes
        self.has_missing = bool(absent.any())

    @property
    def n_snps(self) -> int:
        """Number P of SNPs."""
        return int(self.packed.shape[1])


class ExposurePanel:
    """Instruments of E exposures: for each the rows of the panel and the associations.

    Parameters
    ----------
    rows : sequence of array_like of int
        Rows of the outcome panel, one list an exposure; no row twice in a list.
    beta : sequence of array_like of float
        beta_exposure, in the same order.

    Raises
    ------
    InvalidInputError
        Lists whose lengths differ, repeated rows, numbers that are not finite.
    """

    def __init__(self, rows: Sequence[ArrayLike], beta: Sequence[ArrayLike]) -> None:
        if len(rows) != len(beta):
            raise check.fail("beta", f"{len(rows)} lists", f"{len(beta)}")
        lists, values = [], []
        for e, (entry, own) in enumerate(zip(rows, beta, strict=True)):
            row = np.asarray(entry, dtype=np.int64)
            if row.ndim != 1 or len(np.unique(row)) != len(row):
                raise check.fail(f"rows[{e}]", "distinct rows", "repeated ones")
            lists.append(row)
            values.append(check.float_array(f"beta[{e}]", own, ndim=1, shape=row.shape))
        self.starts = np.cumsum([0, *(len(row) for row in lists)], dtype=np.int64)
        self.rows = np.concatenate([*lists, np.empty(0, np.int64)])
        self.beta = np.concatenate([*values, np.empty(0)])

    @property
    def n_exposures(self) -> int:
        """Number E of exposures."""
        return len(self.starts) - 1


class PairResults(NamedTuple):
    """Results of E x O pairs, each of shape (E, O); views of one block.

    Multiplicative random effects, the residual standard error taken as at least 1. NaN where a
    pair has no SNP (Egger regression: fewer than 3, or associations of one size).
    """

    ivw: Float
    ivw_std_error: Float
    ivw_q: Float
    egger: Float
    egger_std_error: Float
    intercept: Float
    intercept_std_error: Float
    egger_q: Float
    n_snps: NDArray[np.int32]


def fit_pairs(
    exposures: ExposurePanel,
    outcomes: OutcomePanel,
    *,
    out: Float | None = None,
    n_threads: int | None = 1,
) -> PairResults:
    """Fit every exposure against every outcome.

    Parameters
    ----------
    exposures : ExposurePanel
    outcomes : OutcomePanel
    out : ndarray of float64, shape (8, E, O), optional
        Block to write into, for reuse.
    n_threads : int or None, default 1
        Over blocks of 256 outcomes; None means all cores. Results do not depend on it.

    Returns
    -------
    PairResults
        Views of `out`.
    """
    shape = (len(PLANES), exposures.n_exposures, outcomes.n_outcomes)
    if out is None:
        out = np.empty(shape)
    elif out.shape != shape or out.dtype != np.float64 or not out.flags.c_contiguous:
        raise check.fail("out", f"contiguous float64 of shape {shape}", f"{out.dtype} {out.shape}")
    if len(exposures.rows) and not 0 <= exposures.rows.min() <= exposures.rows.max() < (
        outcomes.n_snps
    ):
        raise check.fail("exposures", f"rows below {outcomes.n_snps}", f"{exposures.rows.max()}")
    if outcomes.has_missing:
        counts = np.empty(shape[1:], dtype=np.int32)
    else:
        sizes = np.diff(exposures.starts).astype(np.int32)
        counts = np.broadcast_to(sizes[:, None], shape[1:])
    core = _core.summary
    single = outcomes.packed.dtype == np.float32
    kernel: Any = core.fit_pairs_float if single else core.fit_pairs_double
    kernel(
        outcomes.packed,
        outcomes.n_outcomes,
        exposures.starts,
        exposures.rows,
        exposures.beta,
        out=out,
        counts=counts if outcomes.has_missing else None,
        threads=thread_count(n_threads),
    )
    return PairResults._make([*out, counts])
