"""Checks of the four arrays that every method takes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float

WEIGHTS = ("first_order", "second_order", "simple")
"""Values of every option `weights`: 1/V1, 1/V2 (see `ratio_variance`), equal."""


class Associations(NamedTuple):
    """Associations of J SNPs with exposure (x) and outcome (y), each of shape (J,).

    They may be the caller's own arrays: never write into them. `sx` is NaN where it was not given.
    """

    bx: Float
    sx: Float
    by: Float
    sy: Float


def associations(
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    *,
    minimum: int,
    needs_se_exposure: bool = True,
    nonzero: bool = False,
) -> Associations:
    """Check the arrays of a method; single numbers stand for one SNP.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
        `se_exposure` may be None where it is not needed.
    minimum : int
        SNPs that the method needs.
    needs_se_exposure : bool, default True
    nonzero : bool, default False
        The method divides by `beta_exposure`.

    Raises
    ------
    InvalidInputError
        Lengths that differ, numbers that are not finite, standard errors not above 0, too few
        SNPs, no SNP that is associated with the exposure.
    """
    bx = _vector("beta_exposure", beta_exposure)
    n = len(bx)
    by = _vector("beta_outcome", beta_outcome, length=n)
    sy = _vector("se_outcome", se_outcome, length=n, positive=True)
    if se_exposure is not None:
        sx = _vector("se_exposure", se_exposure, length=n, positive=True)
    elif needs_se_exposure:
        raise check.fail("se_exposure", "standard errors of beta_exposure", "None")
    else:
        sx = np.full(n, np.nan)
    if n < minimum:
        raise check.fail("beta_exposure", f"at least {minimum} SNP{'s' * (minimum > 1)}", f"{n}")
    if nonzero:
        if not bx.all():
            i = int(np.flatnonzero(bx == 0)[0])
            raise check.fail(
                "beta_exposure",
                "numbers other than 0, as the ratio of the associations is used",
                f"0 at beta_exposure[{i}]",
            )
    elif not bx.any():
        raise check.fail("beta_exposure", "an association with the exposure", "zeros only")
    return Associations(bx, sx, by, sy)


def _vector(
    argument: str, values: ArrayLike, *, length: int | None = None, positive: bool = False
) -> Float:
    """A checked float64 vector; the usual arrays pass without the cost of the full check."""
    array = values if type(values) is np.ndarray else None
    if array is None and isinstance(values, (list, tuple)):
        try:
            array = np.asarray(values)
        except ValueError:  # of unequal lengths: the full check says so
            array = None
    if (
        array is not None
        and array.dtype == np.float64
        and array.ndim == 1
        and array.flags.c_contiguous
        and len(array) == (len(array) if length is None else length)
        and len(array)
        and np.isfinite(array).all()
        and (not positive or array.min() > 0)
    ):
        return array
    if np.ndim(values) == 0 and not isinstance(values, (str, bytes)) and values is not None:
        return np.array([check.scalar(argument, values, above=0 if positive else None)])
    return check.float_array(
        argument, values, ndim=1, shape=None if length is None else (length,), positive=positive
    )


def outcome_error(data: Associations, weights: str, overlap: float = 0.0) -> Float:
    """Standard deviations of by about theta bx, whose inverse squares weight a regression.

    ``"first_order"``: sy; ``"second_order"``: the root of sy^2 + by^2 sx^2/bx^2
    - 2 overlap by sx sy/bx (delta method), with `overlap` the correlation of the two associations.
    """
    if weights != "second_order":
        return data.sy
    carried = data.by * data.sx / data.bx
    return np.sqrt(data.sy**2 + carried * (carried - 2 * overlap * data.sy))


def ratio_variance(data: Associations, weights: str) -> Float:
    """Variances of the ratios by/bx that the weights are the inverse of.

    ``"first_order"``: sy^2/bx^2; ``"second_order"`` adds by^2 sx^2/bx^4 (delta method, no sample
    overlap); ``"simple"``: 1. `data` has no zero in bx.
    """
    if weights == "simple":
        return np.ones(len(data.bx))
    first = (data.sy / data.bx) ** 2
    if weights == "first_order":
        return first
    return first + (data.by * data.sx / data.bx**2) ** 2
