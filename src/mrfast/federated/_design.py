"""Checked arrays of a logistic regression, scaled and packed for the kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast._validation import Float, fail
from mrfast.errors import InvalidInputError

_ROUNDING = 1e-11  # share of a column's sum of squares that counts as collinear
_ILL_CONDITIONED = 1e-4


@dataclass(frozen=True)
class PackedDesign:
    """Rows packed by the kernel, and what was done to their columns.

    Coefficients inside belong to the intercept, the packed covariates and the exposure, K in all.
    """

    rows: Any  # LogisticRows
    kept: NDArray[np.intp]  # covariates that are not aliased
    transform: Float  # (q, q): from the packed covariates' coefficients to those of the kept ones
    origin: Float  # (q,): subtracted from the kept covariates
    gram: Float  # (K, K): weighted products of the packed columns
    threads: int

    def sums(
        self,
        coefficients: Float,
        *,
        information: bool = True,
        plain: bool = False,
        dosages: NDArray[Any] | None = None,
        selection: list[int] | None = None,
        centre: Float | None = None,
        scale: Float | None = None,
    ) -> tuple[Float, Float, Float]:
        """Log likelihoods (m,), gradients (m, K), information (m, K, K) at coefficients (m, K)."""
        result: tuple[Float, Float, Float] = self.rows.evaluate(
            np.ascontiguousarray(coefficients),
            information=information,
            plain=plain,
            dosages=dosages,
            selection=selection or [],
            centre=np.empty(0) if centre is None else centre,
            scale=np.empty(0) if scale is None else scale,
            threads=self.threads,
        )
        return result


def pack(
    y: Float,
    x: NDArray[Any],
    moments: Float,
    *,
    exposure: NDArray[Any] | None,
    exposure_centre: float = 0.0,
    exposure_scale: float = 1.0,
    weights: NDArray[Any] | None = None,
    offset: NDArray[Any] | None = None,
    precision: Float | None = None,
    threads: int,
) -> PackedDesign:
    """Scale the covariates, leave out what is constant or collinear, pack the rows.

    Raises
    ------
    InvalidInputError
        The exposure is a combination of the covariates.
    """
    from mrfast._core import federated as kernel

    n, p = x.shape
    centre, scale, varies = scales(moments)
    kept = np.flatnonzero(varies)
    ridge = np.zeros(p) if precision is None else precision
    own = exposure is not None

    def packed(columns: NDArray[Any], at: Float, by: Float) -> tuple[Any, Float]:
        rows = kernel.LogisticRows(
            outcome=y,
            covariates=columns,
            exposure=exposure,
            centre=np.append(at, exposure_centre) if own else at,
            scale=np.append(by, exposure_scale) if own else by,
            weights=weights,
            offset=offset,
            threads=threads,
        )
        gram = rows.evaluate(
            np.zeros((1, columns.shape[1] + 2)),
            information=True,
            plain=True,
            dosages=None if own else np.broadcast_to(np.zeros((1, 1)), (n, 1)),
            selection=[] if own else [0],
            centre=np.zeros(0 if own else 1),
            scale=np.zeros(0 if own else 1),
            threads=threads,
        )[2][0]
        return rows, np.ascontiguousarray(gram if own else gram[:-1, :-1])

    rows, gram = packed(x[:, kept] if kept.size < p else x, centre[kept], scale[kept])
    prior = np.append(0.0, np.append(ridge[kept], np.zeros(1 if own else 0)))
    pivots, alias = collinear(gram, prior)
    if own and alias[-1]:
        raise fail("exposure", "values that vary given the covariates", "explained by these")
    if alias.any():
        keep = np.flatnonzero(~alias)
        pivots = pivots[keep]
        kept = kept[keep[1 : 1 + kept.size - int(alias.sum())] - 1]
        rows, gram = packed(x[:, kept], centre[kept], scale[kept])
    q = kept.size
    transform = np.diag(scale[kept])
    if np.any(pivots[1 : 1 + q] < _ILL_CONDITIONED):
        root = np.linalg.cholesky(gram[: 1 + q, : 1 + q] / n)[1:, 1:]
        transform = transform @ np.linalg.inv(root).T
        columns = np.einsum("ij,jk->ik", x[:, kept] - centre[kept], transform)
        rows, gram = packed(columns, np.zeros(q), np.ones(q))
    return PackedDesign(rows, kept, transform, centre[kept], gram, threads)


def binary_outcome(outcome: ArrayLike) -> Float:
    """Outcome as float64, checked to hold 0 and 1 only."""
    values = np.asarray(outcome)
    if values.dtype == object or values.dtype.kind in "cSUMm":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise fail("outcome", "0 and 1, or booleans", f"an array of {values.dtype}") from error
    if values.ndim != 1:
        raise fail("outcome", "1 dimension", str(values.ndim))
    if not values.size:
        raise fail("outcome", "at least one row", "none")
    y: Float = np.ascontiguousarray(values, dtype=np.float64)
    good = (y == 0) | (y == 1)
    if not good.all():
        i = int(np.argmin(good))
        raise fail("outcome", "0 and 1, or booleans", f"{float(y[i])!r} at outcome[{i}]")
    return y


def numbers(
    argument: str, values: ArrayLike, shape: tuple[int, ...], threads: int
) -> tuple[NDArray[Any], Float]:
    """float64 or float32 array of the shape, of finite numbers, and its columns' moments."""
    from mrfast._core import federated as kernel

    if np.ma.isMaskedArray(values):
        raise fail(argument, "an array without a mask", "a masked array")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise fail(argument, "numbers", f"{type(values).__name__} ({error})") from error
    if array.dtype.kind in "cSUMm":
        raise fail(argument, "real numbers", f"an array of {array.dtype}")
    if array.dtype not in (np.float64, np.float32) or not array.dtype.isnative:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise fail(argument, "numbers", f"an array of {array.dtype}") from error
    if array.ndim != len(shape):
        raise fail(argument, f"{len(shape)} dimension(s)", str(array.ndim))
    if array.shape != shape:
        raise fail(argument, f"shape {shape}", f"shape {array.shape}")
    matrix = array[:, None] if array.ndim == 1 else array
    moments: Float = kernel.column_moments(matrix, threads)
    if not moments[4].all():
        places = np.argwhere(~np.isfinite(array))
        if places.size:
            i = tuple(int(j) for j in places[0])
            raise fail(argument, "finite numbers", f"{float(array[i])!r} at {argument}{list(i)}")
        raise fail(argument, "numbers whose squares are finite", "larger ones")
    return array, moments


def covariate_array(
    covariates: ArrayLike | None, n: int, threads: int
) -> tuple[NDArray[Any], Float]:
    if covariates is None:
        return np.zeros((n, 0)), np.zeros((5, 0))
    array = np.asarray(covariates)
    if array.ndim != 2:
        raise fail("covariates", "2 dimensions, rows by covariates", str(array.ndim))
    return numbers("covariates", covariates, (n, array.shape[1]), threads)


def scales(moments: Float) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Origin and factor of columns, and which of them vary.

    Columns whose mean is small against their spread keep their origin, so that a rare category's
    rows alone carry its coefficient, to full relative precision.
    """
    mean, sd = moments[0], moments[1]
    varies = sd > 1e-12 * np.abs(mean)
    centre = np.where(np.abs(mean) > sd, mean, 0.0)
    return np.ascontiguousarray(centre), 1 / np.where(varies, sd, 1.0), varies


def collinear(gram: Float, precision: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Share of each column that those before it leave, and which columns leave nothing.

    Columns with a prior (precision above 0) are never left out, nor do they explain others.
    """
    k = gram.shape[0]
    squares = np.diag(gram)
    scale = np.divide(1.0, np.sqrt(squares), out=np.zeros(k), where=squares > 0)
    matrix = gram * scale * scale[:, None]
    pivots, alias = np.ones(k), np.zeros(k, dtype=np.bool_)
    for j in np.flatnonzero(precision == 0):
        pivots[j] = matrix[j, j]
        if pivots[j] < _ROUNDING:
            alias[j] = True
            continue
        matrix = matrix - np.outer(matrix[j], matrix[j]) / pivots[j]
    return pivots, alias


def prior_precision(
    variance: float | Sequence[float] | Mapping[str, float] | None,
    names: Sequence[str],
    *,
    left_out: Sequence[str] = (),
) -> Float | None:
    """One over the prior variance of every covariate's coefficient, shape (p,); 0: no prior.

    A mapping may name a covariate whose columns are ``name[level]``, or one that was left out.
    """
    if variance is None:
        return None
    expected = "numbers above 0, or inf for no prior"
    try:
        if hasattr(variance, "items"):
            values = np.full(len(names), np.inf)
            for name, own in variance.items():
                places = [n == name or n.startswith(f"{name}[") for n in names]
                if not any(places) and name not in left_out:
                    listed = ", ".join(names)
                    raise fail("prior_variance", f"names among {listed}", repr(name))
                values[places] = float(own)
        elif np.ndim(variance) == 0:
            values = np.full(len(names), float(variance))  # type: ignore[arg-type]
        else:
            values = np.asarray(variance, dtype=np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise fail("prior_variance", expected, repr(variance)[:80]) from error
    if values.shape != (len(names),):
        raise fail("prior_variance", f"{len(names)} numbers", f"shape {values.shape}")
    if not np.all(values > 0):
        raise fail("prior_variance", expected, repr(variance)[:80])
    result: Float = 1 / values
    return result
