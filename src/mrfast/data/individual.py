"""Moments of individual-level data, in one pass over blocks of rows.

Notation: G are the J candidate instruments, W = (X, Y, C) the exposure, the outcome and the
covariates. What is added up are G, W and the products G'G, G'W and W'W about a fixed origin. A
missing dosage counts as zero there, and the indicators M of what is missing bring M'G, M'W and
M'M: imputing a candidate's mean d puts G + M diag(d) in place of G, so the moments of the
imputed data follow from these sums although d is known at the end only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.errors import InvalidInputError

__all__ = ["MomentAccumulator", "accumulate"]

_Numbers = NDArray[Any]  # of any real type
_Indicators = NDArray[np.bool_]

_ROUNDING = 1e-11  # share of a sum of squares that counts as rounding error
_STRETCH = 64  # rows whose products BLAS adds up at a time
_EXACT_IN_FLOAT32 = 2**24  # whole numbers up to here are exact in single precision


class MomentAccumulator:
    """Means and second moments of (G, X, Y), from rows that arrive in chunks.

    Memory is bounded by a block of rows and the moments, whatever the chunks: larger chunks are
    taken apart. The origin is the mean of the first block, so a large mean costs no digits. The
    number of BLAS threads changes no bit of the sums.
    After an exception in `update` the accumulator holds a part of the chunk: discard it.

    Parameters
    ----------
    n_candidates : int
        Number J of candidate instruments.
    n_covariates : int
        Number C of covariates.

    Attributes
    ----------
    n : int
        Number of rows seen.
    missing_dosages : ndarray of int64, shape (J,)
        Number of missing dosages seen, per candidate.

    Raises
    ------
    InvalidInputError
        `n_candidates` is not a whole number >= 1, or `n_covariates` not one >= 0.
    """

    def __init__(self, n_candidates: int, n_covariates: int = 0) -> None:
        j = check.integer("n_candidates", n_candidates, minimum=1)
        k = 2 + check.integer("n_covariates", n_covariates, minimum=0)
        self.n = 0
        self._block_rows = max(1024, min(8192, 2**19 // (j + k)))
        self._whole_numbers = True  # so far; fractional dosages need double precision
        self._origin_g = np.full(j, np.nan)  # NaN until a value has been observed
        self._origin_w = np.full(k, np.nan)
        self._missing_dosages = np.zeros(j, dtype=np.int64)
        self._g = np.zeros(j)
        self._w = np.zeros(k)
        self._gg = np.zeros((j, j))
        self._gw = np.zeros((j, k))
        self._ww = np.zeros((k, k))
        self._missing_g: Float | None = None  # M'G, M'W and M'M: from the first missing value on
        self._missing_w = np.zeros((j, k))
        self._missing_missing: Float | None = None
        self._memory: dict[tuple[str, np.dtype[Any]], _Numbers] = {}

    def __repr__(self) -> str:
        j, k = self._gw.shape
        return f"MomentAccumulator(n={self.n}, n_candidates={j}, n_covariates={k - 2})"

    @property
    def missing_dosages(self) -> NDArray[np.int64]:
        """Number of missing dosages seen, per candidate, shape (J,)."""
        return self._missing_dosages.copy()

    # ------------------------------------------------------------------ rows

    def update(
        self,
        genotypes: ArrayLike,
        exposure: ArrayLike,
        outcome: ArrayLike,
        covariates: ArrayLike | None = None,
    ) -> None:
        """Add one chunk of rows.

        Parameters
        ----------
        genotypes : array_like, shape (n, J)
            Of any integer or floating type; missing values are NaN or, in a signed integer
            array, negative.
        exposure, outcome : array_like, shape (n,)
            Finite numbers.
        covariates : array_like, shape (n, C), optional
            Finite numbers; None where C = 0.

        Raises
        ------
        InvalidInputError
            Shapes differ, or a value is infinite, or missing outside of `genotypes`.
        """
        j, k = self._gw.shape
        g = _numbers("genotypes", genotypes, ndim=2)
        x = _numbers("exposure", exposure, ndim=1)
        y = _numbers("outcome", outcome, ndim=1)
        n = g.shape[0]
        c = np.zeros((n, 0)) if covariates is None else _numbers("covariates", covariates, ndim=2)
        for argument, array, shape in (
            ("genotypes", g, (n, j)),
            ("exposure", x, (n,)),
            ("outcome", y, (n,)),
            ("covariates", c, (n, k - 2)),
        ):
            if array.shape != shape:
                raise check.fail(argument, f"shape {shape}", f"shape {array.shape}")
        for start in range(0, n, self._block_rows):
            rows = slice(start, min(start + self._block_rows, n))
            with np.errstate(over="ignore", invalid="ignore"):  # overflow is found at the end
                self._add(g[rows], x[rows], y[rows], c[rows])

    def _add(self, g: _Numbers, x: _Numbers, y: _Numbers, c: _Numbers) -> None:
        """Add one block of rows."""
        w = self._centred_columns(x, y, c)
        z, missing = self._centred_candidates(g)
        if z.dtype == np.float32:
            self._g += np.ones(z.shape[0], dtype=z.dtype) @ z  # exact
        else:
            self._g += z.sum(axis=0)
        self._w += w.sum(axis=0)
        self._gg += z.T @ z
        self._gw += _product(self._doubles(z), w)
        self._ww += _product(w, w)
        if missing is not None:
            self._add_missing(missing, z, w)
        self.n += z.shape[0]

    def _add_missing(self, missing: _Indicators, z: _Numbers, w: Float) -> None:
        """Add the products of the missing indicators, of columns with missing values only."""
        if self._missing_g is None or self._missing_missing is None:
            self._missing_g = np.zeros_like(self._gg)
            self._missing_missing = np.zeros_like(self._gg)
        counts = np.count_nonzero(missing, axis=0)
        self._missing_dosages += counts
        columns = np.flatnonzero(counts)
        indicators = self._workspace("indicators", (z.shape[0], columns.size), z.dtype)
        np.copyto(indicators, missing if columns.size == z.shape[1] else missing[:, columns])
        if z.dtype == np.float32:
            self._missing_g[columns] += indicators.T @ z  # exact
        else:  # the product's last bits would depend on the number of BLAS threads
            for column in columns:
                self._missing_g[column] += z[missing[:, column]].sum(axis=0)
        self._missing_w[columns] += _product(self._doubles(indicators), w)
        self._missing_missing[np.ix_(columns, columns)] += indicators.T @ indicators

    def _workspace(self, use: str, shape: tuple[int, ...], dtype: Any) -> _Numbers:
        """Array to write on, its memory kept from block to block (fresh pages cost time)."""
        size = shape[0] * shape[1]
        flat = self._memory.get((use, np.dtype(dtype)))
        if flat is None or flat.size < size:
            flat = self._memory[use, np.dtype(dtype)] = np.empty(size, dtype=dtype)
        return flat[:size].reshape(shape)

    def _doubles(self, values: _Numbers) -> Float:
        """Values in double precision."""
        if values.dtype == np.float64:
            return values
        doubles = self._workspace("doubles", values.shape, np.float64)
        np.copyto(doubles, values)
        return doubles

    def _centred_columns(self, x: _Numbers, y: _Numbers, c: _Numbers) -> Float:
        """W = (X, Y, C) of a block about the origin, shape (rows, 2 + C)."""
        w = self._workspace("columns", (self._ww.shape[0], x.shape[0]), np.float64).T
        w[:, 0], w[:, 1], w[:, 2:] = x, y, c
        finite = np.isfinite(w)
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            place = f"{self.n + row}" if column < 2 else f"{self.n + row}, {column - 2}"
            argument = ("exposure", "outcome")[column] if column < 2 else "covariates"
            raise check.fail(
                argument, "finite numbers", f"{float(w[row, column])} at {argument}[{place}]"
            )
        if self.n == 0:
            self._origin_w = _typical(w, None)
        w -= self._origin_w
        return w

    def _centred_candidates(self, g: _Numbers) -> tuple[_Numbers, _Indicators | None]:
        """Candidates of a block about the origin, zero where missing, and what is missing.

        Small whole numbers, as dosages mostly are, stay as they are and in single precision:
        their products and the sums of these over the block are exact there, at twice the speed.
        """
        missing = self._missing_values(g)
        largest = self._largest(g)
        exact = g.shape[0] * largest * largest <= _EXACT_IN_FLOAT32 and self._whole(g, missing)
        unset = np.isnan(self._origin_g)
        if exact:
            self._origin_g[unset & (missing is None or ~missing.all(axis=0))] = 0
        single = exact and not np.nan_to_num(self._origin_g).any()
        z = self._workspace("candidates", g.shape, np.float32 if single else np.float64)
        np.copyto(z, g, casting="same_kind")
        if unset.any() and not exact:
            typical = _typical(z, missing)
            self._origin_g[unset] = (typical if g.dtype.kind == "f" else np.rint(typical))[unset]
        if not single:
            z -= self._origin_g
        if missing is not None:
            np.copyto(z, 0, where=missing)
        return z, missing

    def _missing_values(self, g: _Numbers) -> _Indicators | None:
        """Which dosages of a block are missing; None if none is."""
        missing: _Indicators = self._workspace("missing", g.shape, np.bool_)
        if g.dtype.kind == "f":
            np.isnan(g, out=missing)
        elif g.dtype.kind == "i" and g.min() < 0:
            np.less(g, 0, out=missing)
        else:
            return None
        return missing if missing.any() else None

    def _largest(self, g: _Numbers) -> float:
        """Largest absolute value of a block, refused if infinite; NaN if all is missing."""
        if g.dtype.kind != "f":
            return float(g.max())
        largest = max(float(np.fmax.reduce(g, axis=None)), -float(np.fmin.reduce(g, axis=None)))
        if np.isinf(largest):
            row, column = (int(i) for i in np.argwhere(np.isinf(g))[0])
            raise check.fail(
                "genotypes",
                "finite numbers, or NaN for a missing one",
                f"{float(g[row, column])} at genotypes[{self.n + row}, {column}]",
            )
        return largest

    def _whole(self, g: _Numbers, missing: _Indicators | None) -> bool:
        """Whether all dosages up to this block are whole numbers."""
        if g.dtype.kind == "f" and self._whole_numbers:
            rounded = np.rint(g, out=self._workspace("doubles", g.shape, np.float64))
            whole = np.equal(rounded, g, out=self._workspace("whole", g.shape, np.bool_))
            if missing is not None:
                whole |= missing
            self._whole_numbers = bool(whole.all())
        return self._whole_numbers or g.dtype.kind != "f"

    # ------------------------------------------------------------------ moments

    def covariance(self, center: bool = True) -> tuple[Float, Float]:
        """Means and covariance matrix of (G, X, Y), covariates projected out.

        Covariates that are collinear (a direction with less than 1e-11 of the largest variance)
        count once. Missing dosages are imputed to the candidate's mean before anything else.

        Parameters
        ----------
        center : bool
            Whether the covariates are projected out together with an intercept.

        Returns
        -------
        means : ndarray, shape (J + 2,)
            Means of (G, X, Y); without intercept but with covariates: of their residuals.
        covariance : ndarray, shape (J + 2, J + 2)
            Covariance matrix, divided by N, of (G, X, Y) or of their residuals.

        Raises
        ------
        InvalidInputError
            There are no rows, or a candidate is wholly missing, or a candidate, the exposure or
            the outcome is constant, explained by the covariates, or too large to be squared.
        """
        means, covariance = self._all_moments()
        size = self._gg.shape[0] + 2
        variances = covariance.diagonal()[:size].copy()
        if covariance.shape[0] > size:
            # about zero instead of the mean, the residuals' moments are those of a regression
            # without intercept
            raw = covariance if center else covariance + np.outer(means, means)
            slopes = _slopes(raw[size:, size:], raw[size:, :size])
            if not center:
                means[:size] -= slopes.T @ means[size:]
            across = slopes.T @ covariance[size:, :size]
            within = slopes.T @ covariance[size:, size:] @ slopes
            covariance = covariance[:size, :size] - across - across.T + within
            covariance = (covariance + covariance.T) / 2
            for i in np.flatnonzero(~(covariance.diagonal() > _ROUNDING * variances)):
                raise self._degenerate(
                    int(i), "values that vary given the covariates", "explained by these"
                )
        return means[:size].copy(), covariance

    def second_moments(self, center: bool = True) -> tuple[Float, Float]:
        """Means and second-moment matrix of (G, X, Y), covariates projected out.

        Parameters
        ----------
        center : bool
            True: second moments about the means, the covariance matrix, the covariates
            projected out together with an intercept. False: about zero, without intercept.

        Returns
        -------
        means : ndarray, shape (J + 2,)
            As from `covariance`.
        second : ndarray, shape (J + 2, J + 2)
            (1/N) R'R, with R the columns (G, X, Y), or their residuals where there are
            covariates; about the means where `center`.

        Raises
        ------
        InvalidInputError
            As `covariance`.
        """
        means, covariance = self.covariance(center)
        return means, covariance if center else covariance + np.outer(means, means)

    def _all_moments(self) -> tuple[Float, Float]:
        """Means and covariance matrix of (G, X, Y, C), missing dosages imputed."""
        j, k = self._gw.shape
        n = self.n
        if n == 0:
            raise check.fail("genotypes", "at least one row (N >= 1)", "N = 0")
        observed = n - self._missing_dosages
        if not observed.all():
            column = int(np.argmin(observed))
            raise check.fail(
                "genotypes",
                "observed values of every candidate",
                f"nothing but missing values in genotypes[:, {column}]",
            )
        imputed = self._g / observed
        totals = np.concatenate([self._g + imputed * self._missing_dosages, self._w])
        products = np.empty((j + k, j + k))
        products[:j, :j] = self._gg
        if self._missing_g is not None and self._missing_missing is not None:
            across = imputed[:, None] * self._missing_g
            products[:j, :j] += across + across.T
            products[:j, :j] += np.outer(imputed, imputed) * self._missing_missing
        products[:j, j:] = self._gw + imputed[:, None] * self._missing_w
        products[j:, :j] = products[:j, j:].T
        products[j:, j:] = self._ww
        with np.errstate(over="ignore", invalid="ignore"):
            # in this order, without rounding before the difference where all are whole numbers
            covariance = (n * products - np.outer(totals, totals)) / float(n) ** 2
        mean_squares = products.diagonal() / n
        for i in np.flatnonzero(~np.isfinite(covariance.diagonal())):
            raise self._degenerate(int(i), "numbers that can be squared", "too large")
        for i in np.flatnonzero(~(covariance.diagonal() > _ROUNDING * mean_squares)[: j + 2]):
            raise self._degenerate(int(i), "values that vary", "constant")
        means = totals / n + np.concatenate([self._origin_g, self._origin_w])
        return means, covariance

    def _degenerate(self, index: int, expected: str, received: str) -> InvalidInputError:
        """Build (not raise) the error for a column of (G, X, Y, C) that is of no use."""
        j = self._gg.shape[0]
        if index in (j, j + 1):
            argument = place = ("exposure", "outcome")[index - j]
        else:
            argument, column = ("genotypes", index) if index < j else ("covariates", index - j - 2)
            place = f"{argument}[:, {column}]"
        return check.fail(argument, expected, f"{place}, which is {received}")


def accumulate(
    genotypes: ArrayLike,
    exposure: ArrayLike,
    outcome: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    chunk_size: int | None = None,
) -> MomentAccumulator:
    """Accumulate the moments of a whole data set, in one pass.

    Parameters
    ----------
    genotypes : array_like, shape (N, J)
        Of any integer or floating type, possibly strided, read-only or memory-mapped; missing
        values are NaN or, in a signed integer array, negative.
    exposure, outcome : array_like, shape (N,)
        Finite numbers.
    covariates : array_like, shape (N, C), optional
        Finite numbers.
    chunk_size : int, optional
        Largest number of rows to convert at a time; chosen for the processor's cache by default.

    Returns
    -------
    MomentAccumulator

    Raises
    ------
    InvalidInputError
        There is no row or no column, shapes differ, or a value is not finite.
    """
    g = _numbers("genotypes", genotypes, ndim=2)
    x = _numbers("exposure", exposure, ndim=1)
    y = _numbers("outcome", outcome, ndim=1)
    c = None if covariates is None else _numbers("covariates", covariates, ndim=2)
    n, j = g.shape
    if n == 0 or j == 0:
        raise check.fail(
            "genotypes", "at least one row and one column (N, J >= 1)", f"shape {g.shape}"
        )
    for argument, array in (("exposure", x), ("outcome", y), ("covariates", c)):
        if array is not None and array.shape[0] != n:
            raise check.fail(
                argument, f"{n} rows, as genotypes has", f"{array.shape[0]} (shape {array.shape})"
            )
    step = n if chunk_size is None else check.integer("chunk_size", chunk_size, minimum=1)
    accumulator = MomentAccumulator(j, 0 if c is None else c.shape[1])
    for start in range(0, n, step):
        rows = slice(start, start + step)
        accumulator.update(g[rows], x[rows], y[rows], None if c is None else c[rows])
    return accumulator


def _numbers(argument: str, values: ArrayLike, *, ndim: int) -> _Numbers:
    """Convert to an array of real numbers, without a copy where it is one."""
    if isinstance(values, np.ma.MaskedArray):
        raise check.fail(argument, "a plain array (missing dosages as NaN, say)", "a masked array")
    try:
        array: _Numbers = np.asarray(values)
        if array.dtype.kind == "O":  # pandas columns with <NA>, lists with None
            array = (
                values.to_numpy(dtype=np.float64, na_value=np.nan)
                if hasattr(values, "to_numpy")
                else np.asarray(values, dtype=np.float64)
            )
    except (TypeError, ValueError) as error:
        raise check.fail(argument, "numbers", f"{type(values).__name__} ({error})") from error
    if array.dtype.kind not in "biuf":
        raise check.fail(argument, "real numbers", f"values of type {array.dtype}")
    if array.ndim != ndim:
        raise check.fail(argument, f"{ndim} dimension(s)", f"{array.ndim}")
    return array


def _product(a: Float, b: Float) -> Float:
    """Product a'b for a narrow b, the same bits whatever the number of BLAS threads.

    BLAS gets pieces that are too small for it to share out among threads, as it would in a way
    that depends on their number.
    """
    (n, p), q = a.shape, b.shape[1]
    total = np.zeros((p, q))
    width = 128 if q < 4 else max(1, 4096 // q)  # columns of a
    rows = _STRETCH * max(1, 2**18 // (min(width, p) * q))
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        whole = stop - (stop - start) % _STRETCH
        right = b[start:whole].T.reshape(q, -1, _STRETCH)
        for columns in (slice(i, i + width) for i in range(0, p, width)):
            left = a[start:whole].reshape(-1, _STRETCH, p)[:, :, columns]
            if q < 4:  # vector by vector is faster
                total[columns] += np.matmul(right[:, :, None], left)[:, :, 0].sum(axis=1).T
            else:
                pieces = np.matmul(left.transpose(0, 2, 1), right.transpose(1, 2, 0))
                total[columns] += pieces.sum(axis=0)
            total[columns] += a[whole:stop, columns].T @ b[whole:stop]
    return total


def _typical(values: Float, missing: _Indicators | None) -> Float:
    """Per column: mean of the observed values, exact where they are all equal; NaN if none."""
    observed = np.ones(values.shape, dtype=np.bool_) if missing is None else ~missing
    first = values[observed.argmax(axis=0), np.arange(values.shape[1])]
    constant = ((values == first) | ~observed).all(axis=0)
    count = np.maximum(observed.sum(axis=0), np.finfo(np.float64).tiny)
    typical: Float = np.where(constant, first, np.where(observed, values, 0).sum(axis=0) / count)
    return np.where(observed.any(axis=0), typical, np.nan)


def _slopes(within: Float, across: Float) -> Float:
    """Least-squares coefficients from the covariates' moments, shape (C, J + 2).

    The covariates are standardised; directions without variance get coefficients of zero.
    """
    scale = np.sqrt(np.maximum(within.diagonal(), 0))
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    eigenvalues, vectors = np.linalg.eigh(within * np.outer(inverse, inverse))
    vectors = vectors[:, eigenvalues > _ROUNDING * eigenvalues[-1]]
    eigenvalues = eigenvalues[eigenvalues > _ROUNDING * eigenvalues[-1]]
    basis = inverse[:, None] * vectors
    return np.asarray(basis @ ((basis.T @ across) / eigenvalues[:, None]))
