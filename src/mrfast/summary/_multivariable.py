"""Checks of the arrays of several exposures, and least squares on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._least_squares import labels_of

COLLINEAR = 1e-10
"""Smallest eigenvalue of scaled cross products below which no estimate follows."""

_SYMMETRIC = 1e-8
_PART = 1e-3  # share in a combination of exposures above which one is named


class MVAssociations(NamedTuple):
    """Associations of J SNPs with K exposures (x) and an outcome (y).

    They may be the caller's own arrays: never write into them. `bx` and `sx` have shape (J, K),
    `by` and `sy` (J,); `sx` is NaN where it was not given. `exposures` are the names.
    """

    bx: Float
    sx: Float
    by: Float
    sy: Float
    exposures: tuple[str, ...]


def mv_associations(
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    *,
    exposures: Sequence[object] | None = None,
    spare: int = 1,
    needs_se_exposure: bool = True,
) -> MVAssociations:
    """Check the arrays of a multivariable method.

    Parameters
    ----------
    beta_exposure, se_exposure : array_like, shape (J, K)
        One column an exposure; the names of a table's columns are those of the exposures.
        `se_exposure` may be None where it is not needed.
    beta_outcome, se_outcome : array_like, shape (J,)
        Tables and series are not sorted by their rows' labels; another order is an error.
    exposures : sequence of str, optional
        Names, where there is no table; default "exposure 1", "exposure 2", ...
    spare : int, default 1
        SNPs that the method needs beyond one an exposure.
    needs_se_exposure : bool, default True

    Raises
    ------
    InvalidInputError
        Shapes that do not fit, numbers that are not finite, standard errors not above 0, tables
        whose columns stand in different orders, too few SNPs, exposures that are collinear.
    """
    bx = check.float_array("beta_exposure", beta_exposure, ndim=2)
    j, k = bx.shape
    if k == 0:
        raise check.fail("beta_exposure", "at least one exposure", "none")
    names = _names(beta_exposure, exposures, k)
    if se_exposure is not None:
        sx = check.float_array("se_exposure", se_exposure, ndim=2, shape=(j, k), positive=True)
        columns = getattr(se_exposure, "columns", None)
        if columns is not None and hasattr(beta_exposure, "columns"):
            own = tuple(str(name) for name in columns)
            if own != names:
                raise check.fail(
                    "se_exposure",
                    f"the columns of beta_exposure in their order ({check.listed(names)})",
                    check.listed(own),
                )
    elif needs_se_exposure:
        raise check.fail("se_exposure", "standard errors of beta_exposure", "None")
    else:
        sx = np.full((j, k), np.nan)
    by = check.float_array("beta_outcome", beta_outcome, ndim=1, shape=(j,))
    sy = check.float_array("se_outcome", se_outcome, ndim=1, shape=(j,), positive=True)
    if j < k + spare:
        few = f"at least {counted(k + spare, 'SNP')} for {counted(k, 'exposure')}"
        raise check.fail("beta_exposure", few, f"{j}")
    for argument, values in (
        ("se_exposure", se_exposure),
        ("beta_outcome", beta_outcome),
        ("se_outcome", se_outcome),
    ):
        _check_order(argument, beta_exposure, values)
    scaled_inverse(bx / sy[:, None], names)
    return MVAssociations(bx, sx, by, sy, names)


def counted(count: int, what: str) -> str:
    """A number of things in words."""
    return f"{count} {what}{'s' * (count != 1)}"


def _check_order(argument: str, first: Any, second: Any) -> None:
    """Tables whose rows are labelled alike have to be in one order."""
    one: Any = getattr(first, "index", None)
    other: Any = getattr(second, "index", None)
    if not (hasattr(one, "equals") and hasattr(other, "equals")) or one.equals(other):
        return
    if len(one) == len(other) and set(one) == set(other):
        raise check.fail(argument, "the rows of beta_exposure in their order", "another order")


def _names(beta_exposure: ArrayLike, exposures: Sequence[object] | None, k: int) -> tuple[str, ...]:
    """Names of the exposures: columns of a table, those given, or numbers."""
    columns: Sequence[object] | None = getattr(beta_exposure, "columns", None)
    if columns is not None:
        if exposures is not None:
            raise check.fail("exposures", "none beside a table, which names its columns", "some")
        return check.name_tuple("beta_exposure", list(columns), length=k)
    if exposures is not None:
        return check.name_tuple("exposures", exposures, length=k)
    return tuple(f"exposure {i + 1}" for i in range(k))


def exposure_position(orientation: object, exposures: tuple[str, ...]) -> int:
    """Position of the exposure that alleles are turned by, given by position or name."""
    if isinstance(orientation, str):
        if orientation not in exposures:
            raise check.fail("orientation", f"one of {check.listed(exposures)}", repr(orientation))
        return exposures.index(orientation)
    return check.integer("orientation", orientation, minimum=0, maximum=len(exposures) - 1)


def error_correlations(argument: str, values: Any, exposures: tuple[str, ...]) -> Float:
    """Correlations of the errors of a SNP's associations, shape (K, K); None: independent.

    A table is brought into the order of `exposures` by its names.
    """
    k = len(exposures)
    if values is None:
        return np.eye(k)
    matrix = check.float_array(argument, getattr(values, "values", values), ndim=2, shape=(k, k))
    if hasattr(values, "columns"):
        labels = [str(name) for name in labels_of(values, None) or ()]
        if sorted(labels) != sorted(exposures):
            raise check.fail(
                argument, f"rows and columns {check.listed(exposures)}", check.listed(labels)
            )
        order = [labels.index(name) for name in exposures]
        matrix = matrix[np.ix_(order, order)]
    if np.abs(matrix - matrix.T).max() > _SYMMETRIC:
        raise check.fail(argument, "a symmetric matrix", "one that is not symmetric")
    if np.abs(matrix.diagonal() - 1).max() > _SYMMETRIC:
        raise check.fail(argument, "1 on the diagonal", f"{matrix.diagonal().tolist()}")
    if not np.linalg.eigvalsh(matrix)[0] > COLLINEAR:
        raise check.fail(argument, "a positive definite matrix", "one that is not")
    return np.asarray((matrix + matrix.T) / 2)


def scaled_inverse(columns: Float, names: tuple[str, ...] = ()) -> Float:
    """Inverse of the cross products of columns, shape (J, K); an error where they are collinear."""
    gram = np.einsum("ja,jb->ab", columns, columns)
    scale = np.sqrt(gram.diagonal())
    if not scale.all():
        which = names[int(np.argmin(scale))] if names else "an exposure"
        raise check.fail(
            "beta_exposure", "associations with every exposure", f"zeros only for {which}"
        )
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    if not values[0] > COLLINEAR:
        received = "collinear ones"
        if names:
            part = np.flatnonzero(np.abs(vectors[:, 0]) > _PART)
            received = f"{check.listed(names[i] for i in part)}: one is a combination of the rest"
        raise check.fail("beta_exposure", "exposures that are not collinear", received)
    root = vectors / scale[:, None]
    return np.asarray(np.einsum("ak,bk->ab", root / values, root))


def multiple_least_squares(columns: Float, response: Float) -> tuple[Float, Float, float]:
    """Coefficients of K columns, the inverse of their cross products, the residual square sum.

    A step on the residuals removes most of the rounding of the cross products.
    """
    inverse = scaled_inverse(columns)
    coefficients = np.zeros(columns.shape[1])
    residual = response
    for _ in range(2):
        coefficients = coefficients + np.einsum(
            "ab,b->a", inverse, np.einsum("ja,j->a", columns, residual)
        )
        residual = response - np.einsum("ja,a->j", columns, coefficients)
    return coefficients, inverse, float((residual**2).sum())
