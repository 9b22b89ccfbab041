"""Logistic regressions of an outcome on many SNPs, each by itself, given the same covariates.

The model without a SNP is fitted once. One pass over the rows then gives every SNP's score and
information there, from which follows its score test and a first Newton step (`method="score"`);
further Newton steps, for all SNPs of a chunk in each pass, lead to the maximum (`method="full"`).
Rows where a SNP's dosage is missing are left out of that SNP's regression and of no other's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float, fail
from mrfast.errors import ConvergenceError
from mrfast.federated._design import PackedDesign, binary_outcome, covariate_array, pack
from mrfast.federated._newton import maximise, solve

__all__ = ["SnpScan", "snp_scan"]

_CHUNK = 64  # SNPs of a pass: what a cache line holds of int8 dosages
_ROUNDING = 1e-9  # share of a dosage's sum of squares that counts as explained by the covariates


@dataclass(frozen=True)
class SnpScan:
    """Estimates of J single-SNP logistic regressions; all arrays of shape (J,).

    Attributes
    ----------
    method : str
        ``"full"`` or ``"score"``.
    beta, std_error : ndarray
        Log odds ratio per copy of the coded allele and its standard error. NaN where there is no
        regression: no cases or no controls among the rows with a dosage, or a dosage that is
        constant there or explained by the covariates. With ``"full"``, infinite where the SNP
        separates cases from controls.
    score_z : ndarray
        Score test of no effect, standard normal without one.
    n, n_cases : ndarray of int64
        Rows with a dosage, and cases among them.
    carriers_cases, carriers_controls : ndarray of int64
        Carriers of at least one copy (dosage 0.5 or more) of the less frequent allele.
    dosage_mean : ndarray
        Mean dosage of the coded allele: twice its frequency.
    converged : ndarray of bool
        Whether the maximum was found; for ``"score"`` whether there is a regression at all.
    """

    method: str
    beta: Float
    std_error: Float
    score_z: Float
    n: NDArray[np.int64]
    n_cases: NDArray[np.int64]
    carriers_cases: NDArray[np.int64]
    carriers_controls: NDArray[np.int64]
    dosage_mean: Float
    converged: NDArray[np.bool_]

    @property
    def n_controls(self) -> NDArray[np.int64]:
        """Rows with a dosage that are controls, shape (J,)."""
        return self.n - self.n_cases

    @property
    def allele_frequency(self) -> Float:
        """Frequency of the coded allele among the rows with a dosage, shape (J,)."""
        return self.dosage_mean / 2

    def __len__(self) -> int:
        return self.beta.size

    def __repr__(self) -> str:
        return f"SnpScan({len(self)} SNPs, method={self.method!r})"


def snp_scan(
    outcome: ArrayLike,
    dosages: Any,
    covariates: ArrayLike | None = None,
    *,
    method: str = "full",
    chunk: int | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SnpScan:
    """Logistic regression of an outcome on each of J SNPs.

    Parameters
    ----------
    outcome : array-like, shape (n,)
        0 and 1, or booleans.
    dosages : array-like, shape (n, J)
        Copies of the coded allele, 0 to 2. Missing: NaN, or a negative number in a signed integer
        array. float64, float32 and int8 arrays of any strides, memory-mapped ones too, are read in
        place; other types are converted chunk by chunk.
    covariates : array-like, shape (n, p), optional
        An intercept is always included. Constant and collinear columns are left out.
    method : {"full", "score"}
        ``"full"``: maximum-likelihood estimates. ``"score"``: one Newton step from the model
        without the SNP, with the information there. Agrees with the score test, a single pass
        over the rows, and is accurate where effects are small.
    chunk : int, optional
        SNPs in memory and in one pass; default 64.
    n_threads : int, optional
        Default: all cores. The result is the same to the last bit for any number.
    progress : callable, optional
        Called as ``progress(done, J)`` after every chunk.

    Returns
    -------
    SnpScan

    Raises
    ------
    InvalidInputError
        Shapes differ, values are missing elsewhere than in `dosages`, dosages lie outside of
        0 to 2, or there are no cases or no controls.
    ConvergenceError
        The model without a SNP has no maximum.
    """
    method = check.choice("method", method, ("full", "score"))
    threads = thread_count(n_threads)
    size = _CHUNK if chunk is None else check.integer("chunk", chunk, minimum=1)
    if progress is not None and not callable(progress):
        raise fail("progress", "None or a callable", repr(progress))
    y = binary_outcome(outcome)
    g = _dosage_array(dosages, y.size)
    x, moments = covariate_array(covariates, y.size, threads)
    cases = int(y.sum())
    if not 0 < cases < y.size:
        missing = "no cases" if not cases else "no controls"
        raise fail("outcome", "cases and controls", f"{missing} among {y.size} rows")
    design = pack(y, x, moments, exposure=None, threads=threads)
    null = _Null(design, y)
    total = g.shape[1]
    results = [_empty()]
    for first in range(0, total, size):
        part = _kernel_array(g[:, first : first + size])
        results.append(_scan_chunk(design, null, part, first, method))
        if progress is not None:
            progress(min(first + size, total), total)
    columns = [np.concatenate(column) for column in zip(*results, strict=True)]
    return SnpScan(method, *columns)


class _Null:
    """The model without a SNP."""

    def __init__(self, design: PackedDesign, y: Float) -> None:
        k = design.kept.size + 2
        start = np.zeros((1, k))
        start[0, 0] = math.log(y.mean() / (1 - y.mean()))
        nothing = np.broadcast_to(np.zeros((1, 1)), (y.size, 1))
        one = np.ones(1)

        def objective(at: Float, _: NDArray[np.intp]) -> tuple[Float, Float, Float]:
            return design.sums(at, dosages=nothing, selection=[0], centre=one * 0, scale=one)

        found = maximise(objective, start, k - 1)
        if not found.converged[0]:
            raise ConvergenceError("the logistic regression on the covariates did not converge")
        self.coefficients = np.ascontiguousarray(found.coefficients[0, :-1])
        self.gradient = found.gradient[0, :-1]
        self.information = found.information[0, :-1, :-1]


def _empty() -> tuple[NDArray[Any], ...]:
    real, whole = np.empty(0), np.empty(0, dtype=np.int64)
    return real, real, real, whole, whole, whole, whole, real, np.empty(0, dtype=np.bool_)


def _scan_chunk(
    design: PackedDesign, null: _Null, dosages: NDArray[Any], first: int, method: str
) -> tuple[NDArray[Any], ...]:
    counts, scores, left_out = design.rows.score_dosages(null.coefficients, dosages, design.threads)
    m, k = counts.shape[0], null.coefficients.size
    n, cases, total, smallest, largest = (counts[:, i] for i in (0, 1, 6, 7, 8))
    _check_range(smallest, largest, first)
    gradient = np.empty((m, k + 1))
    gradient[:, :k] = null.gradient - left_out[:, :k]
    gradient[:, k] = scores[:, k + 1]
    information = np.empty((m, k + 1, k + 1))
    lower = left_out[:, k:].reshape(m, k, k)
    rest = lower + np.tril(lower, -1).transpose(0, 2, 1)
    information[:, :k, :k] = null.information - rest
    information[:, k, :k] = information[:, :k, k] = scores[:, :k]
    information[:, k, k] = scores[:, k]

    usable = (n > 0) & (cases > 0) & (cases < n) & (largest > smallest)
    beta, std_error, z = (np.full(m, np.nan) for _ in range(3))
    converged = np.zeros(m, dtype=np.bool_)
    mean = np.divide(total, n, out=np.full(m, np.nan), where=n > 0)
    at = np.flatnonzero(usable)
    curvature, score = _profiled(information[at], gradient[at])
    good = curvature > _ROUNDING * information[at, k, k]
    at, curvature, score = at[good], curvature[good], score[good]
    z[at] = score / np.sqrt(curvature)
    if method == "score" or not at.size:
        beta[at], std_error[at], converged[at] = score / curvature, curvature**-0.5, True
    else:
        steps = solve(information[at], gradient[at])
        beta[at], std_error[at], converged[at] = _full_fits(
            design, null, dosages, at, mean[at], steps
        )
    minor = mean <= 1
    return (
        beta,
        std_error,
        z,
        n.astype(np.int64),
        cases.astype(np.int64),
        np.where(minor, counts[:, 2], counts[:, 4]).astype(np.int64),
        np.where(minor, counts[:, 3], counts[:, 5]).astype(np.int64),
        mean,
        converged,
    )


def _profiled(information: Float, gradient: Float) -> tuple[Float, Float]:
    """Information and score of the last coefficient, the others profiled out."""
    cross = information[:, :-1, -1]
    slopes = solve(information[:, :-1, :-1], cross)
    curvature = information[:, -1, -1] - np.einsum("mi,mi->m", cross, slopes)
    return curvature, gradient[:, -1] - np.einsum("mi,mi->m", slopes, gradient[:, :-1])


def _full_fits(
    design: PackedDesign,
    null: _Null,
    dosages: NDArray[Any],
    at: NDArray[np.intp],
    mean: Float,
    steps: Float,
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Maxima of the regressions on the SNPs `at`, from one step beyond the null model."""
    # A common allele's dosages about their mean; a rare one's carriers alone carry its coefficient.
    spread = np.sqrt(mean * np.abs(1 - mean / 2))
    centre = np.where(mean > spread, mean, 0.0)
    scale = 1 / np.maximum(spread, 1e-3)
    inside = steps.copy()
    inside[:, -1] /= scale
    inside *= 1 / np.maximum(1.0, np.abs(inside[:, -1:]))
    start = np.append(null.coefficients, 0.0) + inside
    start[:, 0] += start[:, -1] * scale * centre

    def objective(coefficients: Float, which: NDArray[np.intp]) -> tuple[Float, Float, Float]:
        return design.sums(
            coefficients,
            dosages=dosages,
            selection=at[which].tolist(),
            centre=np.ascontiguousarray(centre[which]),
            scale=np.ascontiguousarray(scale[which]),
        )

    found = maximise(objective, start, start.shape[1])
    curvature, score = _profiled(found.information, found.gradient)
    curvature = np.maximum(
        curvature, 1e-300
    )  # nothing is left of it where the maximum is at infinity
    beta = (found.coefficients[:, -1] + score / curvature) * scale
    std_error = curvature**-0.5 * scale
    away = found.converged & (np.abs(found.step[:, -1]) > 1e-3)
    beta[away], std_error[away] = math.inf * np.sign(found.step[away, -1]), math.inf
    lost = ~found.converged
    beta[lost] = std_error[lost] = np.nan
    return beta, std_error, found.converged


def _dosage_array(dosages: Any, n: int) -> NDArray[Any]:
    if np.ma.isMaskedArray(dosages):
        raise fail("dosages", "an array without a mask", "a masked array")
    array = np.asarray(dosages)
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise fail("dosages", "numbers", "an array of objects") from error
    if array.dtype.kind not in "biuf":
        raise fail("dosages", "real numbers", f"an array of {array.dtype}")
    if array.ndim != 2:
        raise fail("dosages", "2 dimensions, rows by SNPs", str(array.ndim))
    if array.shape[0] != n:
        raise fail("dosages", f"{n} rows", str(array.shape[0]))
    return array


def _kernel_array(part: NDArray[Any]) -> NDArray[Any]:
    """A chunk in a type that the kernel reads."""
    if part.dtype in (np.float64, np.float32, np.int8) and part.dtype.isnative:
        return part
    if part.dtype == np.bool_:
        return part.astype(np.int8)
    values = part.astype(np.float64)
    if part.dtype.kind == "i":
        values[values < 0] = np.nan
    return values


def _check_range(smallest: Float, largest: Float, first: int) -> None:
    """Refuse what is no dosage; sums of probabilities may be above 2 by rounding."""
    for values, bad in ((smallest, smallest < -1e-6), (largest, largest > 2 + 1e-6)):
        if bad.any():
            j = int(np.argmax(bad))
            raise fail(
                "dosages",
                "numbers from 0 to 2, or missing values",
                f"{float(values[j])!r} in column {first + j}",
            )
