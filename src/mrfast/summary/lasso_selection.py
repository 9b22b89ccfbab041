"""Lasso on the intercepts of SNPs: `mr_lasso`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _core
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.summary._inputs import associations
from mrfast.summary.estimate import (
    Inference,
    MREstimate,
    heterogeneity_fields,
    inference,
)

__all__ = ["LassoEstimate", "mr_lasso"]

PENALTIES = ("sequence", "path")
_LENGTH, _RANGE = 100, 1e-4  # of the sequence of penalties
_LEAST, _GAIN, _ALL = 5, 1e-5, 0.999  # where it ends: see `_sequence`
_QUANTILE = 3.841458820694124  # 95%, chi-squared with 1 df
_CONSTANT = 1e-12  # relative variance of a column that no intercept can use


@dataclass(frozen=True, kw_only=True)
class LassoEstimate(MREstimate):
    """Result of `mr_lasso`.

    Attributes
    ----------
    penalty : float
        Of the lasso, at the choice.
    valid : ndarray of bool, shape (J,)
        SNPs without an intercept: those of the estimate.
    n_valid : int
    lasso_estimate : float
        Slope of the penalised fit, before it is fitted again to the valid SNPs.
    intercepts : ndarray, shape (J,)
        Of the penalised fit, in the outcome's unit: pleiotropic effects.
    q, q_df, q_p_value, i2, residual_std_error : float
        Heterogeneity of the valid SNPs. They were chosen to agree: the p-value is too large.
    distribution : {"normal", "t"}
    """

    title = "MR-Lasso"

    penalty: float
    valid: NDArray[np.bool_]
    n_valid: int
    lasso_estimate: float
    intercepts: Float
    q: float
    q_df: int
    q_p_value: float
    i2: float
    residual_std_error: float
    distribution: str

    def _more_rows(self) -> list[tuple[str, str]]:
        return [
            ("valid SNPs", f"{self.n_valid} of {self.n_snps}, penalty {self.penalty:.4g}"),
            ("heterogeneity", f"Q = {self.q:.4g} on {self.q_df} df among them"),
        ]


def mr_lasso(
    *,
    beta_exposure: ArrayLike,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike,
    se_outcome: ArrayLike,
    penalties: str = "sequence",
    penalty: float | None = None,
    distribution: str = "normal",
    ci_level: float = 0.95,
) -> LassoEstimate:
    """MR-Lasso: inverse-variance weighting of the SNPs whose pleiotropic effect a lasso sets to 0.

    Each SNP gets an intercept a_j, and sum (by - a - theta bx)^2 / (2 J sy^2) + penalty sum d_j
    abs(a_j) is minimised; d_j is the standard deviation of the column of a_j once bx is projected
    out, with all SNPs oriented to a positive bx. Every solution is exact: the coefficients are
    piecewise linear in the penalty. Coming from small penalties, under which few SNPs are valid,
    the choice is the last one before the residual standard error of the valid SNPs rises by more
    than chi2(0.95, 1 df) / n_valid to above 1; without such a rise all SNPs are valid. It needs
    more than half of the SNPs to be valid.

    Parameters
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,)
        Associations per copy of the same allele. `se_exposure` is not used.
    penalties : {"sequence", "path"}, default "sequence"
        Where the rule looks: at 100 penalties, evenly spaced in logarithm from the first at which
        a SNP gets an intercept down to 1e-4 of it, ending where a step explains less than 1e-5 more
        of the variation or 99.9% are explained, as published; or at every penalty at which the
        set of valid SNPs changes. With one SNP at a time rises are smaller, and fewer SNPs are
        dropped.
    penalty : float, optional
        A penalty of your own, instead of the rule.
    distribution : {"normal", "t"}, default "normal"
        ``"t"`` has n_valid - 1 degrees of freedom.
    ci_level : float, default 0.95

    Returns
    -------
    LassoEstimate
        Standard error of multiplicative random effects on the valid SNPs (residual standard error
        at least 1). It takes as known which SNPs are valid.

    Raises
    ------
    InvalidInputError
        Bad arrays, fewer than 2 SNPs, a penalty that leaves fewer than 2 valid SNPs.

    References
    ----------
    Rees, Wood, Dudbridge, Burgess (2019), doi:10.1371/journal.pone.0222362.

    Examples
    --------
    >>> import mrfast
    >>> result = mrfast.mr_lasso(
    ...     beta_exposure=[0.1, 0.2, 0.15, 0.1, 0.12], se_exposure=[0.01] * 5,
    ...     beta_outcome=[0.05, 0.11, 0.07, -0.1, 0.06], se_outcome=[0.02] * 5,
    ... )
    >>> result.valid.tolist()
    [True, True, True, False, True]
    """
    data = associations(
        beta_exposure, se_exposure, beta_outcome, se_outcome, minimum=2, needs_se_exposure=False
    )
    level, own = lasso_options(penalties, penalty, distribution, ci_level)
    choice = select_valid(data.bx[:, None], data.by, data.sy, data.bx, penalties, own)
    n, df = len(data.by), choice.n_valid - 1
    found = heterogeneity_fields(choice.q, df)
    information = float(((data.bx / data.sy)[choice.valid] ** 2).sum())
    error = max(1.0, found["residual_std_error"]) / math.sqrt(information)
    return LassoEstimate(
        method="mr_lasso",
        n_snps=n,
        penalty=choice.penalty,
        valid=choice.valid,
        n_valid=choice.n_valid,
        lasso_estimate=float(choice.coefficients[0]),
        intercepts=choice.intercepts,
        distribution=distribution,
        messages=lasso_messages(choice, n),
        **found,
        **inference(float(choice.estimate[0]), error, Inference(distribution, df, level), level),
    )


def lasso_options(
    penalties: str, penalty: object, distribution: str, ci_level: object
) -> tuple[float, float | None]:
    """Checked level and penalty."""
    check.choice("penalties", penalties, PENALTIES)
    check.choice("distribution", distribution, ("normal", "t"))
    own = None if penalty is None else check.scalar("penalty", penalty, above=0)
    return check.scalar("ci_level", ci_level, above=0, below=1), own


class Selection(NamedTuple):
    """Valid SNPs of a lasso, their least-squares fit, and the penalised one."""

    penalty: float
    valid: NDArray[np.bool_]
    n_valid: int
    estimate: Float
    q: float
    coefficients: Float
    intercepts: Float


def select_valid(
    bx: Float, by: Float, sy: Float, orient: Float, penalties: str, penalty: float | None
) -> Selection:
    """The SNPs that the lasso leaves without intercept.

    Parameters
    ----------
    bx : ndarray, shape (J, K)
    by, sy : ndarray, shape (J,)
    orient : ndarray, shape (J,)
        SNPs are taken with the alleles that make these associations positive.
    penalties : {"sequence", "path"}
    penalty : float or None
        Instead of the rule.
    """
    n, k = bx.shape
    sign = np.where(orient < 0, -1.0, 1.0)
    columns = np.ascontiguousarray(bx * (sign / sy)[:, None])
    response = by * sign / sy
    scale = _column_scale(columns)
    lowest = _RANGE / 2 if penalty is None and penalties == "sequence" else 0.0
    ends, estimates, slopes, q, sizes, changed, signs = _core.mixture.lasso_path(
        columns, response, n * scale, lowest=lowest
    )

    def fit(piece: int, at: float) -> tuple[Float, Float]:
        """Coefficients and residuals of the penalised fit."""
        coefficients = estimates[piece] + (at * slopes[piece] if piece else 0.0)
        return coefficients, response - np.einsum("jk,k->j", columns, coefficients)

    def piece_at(at: float) -> int:
        return int((ends[1:] > at).sum())

    if penalty is not None:
        chosen, at = piece_at(penalty), penalty
        if sizes[chosen] <= k:
            raise check.fail("penalty", f"one that leaves more than {k} valid SNPs", f"{penalty!r}")
    elif len(ends) == 1:  # the SNPs agree without error
        chosen, at = 0, 0.0
    else:
        if penalties == "path":
            places = np.append(ends[1:], ends[-1])
            pieces = np.arange(len(ends))
        else:
            places = _sequence(float(ends[1]), q[0], n * scale, lambda at: fit(piece_at(at), at)[1])
            pieces = np.array([piece_at(at) for at in places])
        i = _rule(q[pieces], sizes[pieces], k)
        chosen, at = int(pieces[i]), float(places[i])
    state = np.zeros(n)
    state[changed[1 : chosen + 1]] = signs[1 : chosen + 1]  # the last change of a SNP counts
    valid = state == 0
    coefficients, residual = fit(chosen, at)
    threshold = np.where(valid, 0.0, at * n * scale)
    intercepts = np.where(valid, 0.0, residual - state * threshold) * sign * sy
    return Selection(
        at, valid, int(valid.sum()), estimates[chosen], float(q[chosen]), coefficients, intercepts
    )


def lasso_messages(choice: Selection, n: int) -> tuple[str, ...]:
    """What to say of a choice of SNPs."""
    dropped = n - choice.n_valid
    if 2 * choice.n_valid <= n:
        return (f"only {choice.n_valid} of {n} SNPs are valid: the method needs more than half",)
    if dropped:
        plural = "s were" if dropped > 1 else " was"
        return (
            f"{dropped} SNP{plural} dropped for disagreeing with the others; the standard error "
            "does not take account of that choice",
        )
    return ()


def _column_scale(columns: Float) -> Float:
    """Standard deviations of the columns of the identity, projected beside some columns."""
    n = len(columns)
    inverse = np.linalg.inv(np.einsum("ja,jb->ab", columns, columns))
    carried = np.einsum("ja,ab->jb", columns, inverse)
    leverage = np.einsum("ja,ja->j", carried, columns)
    mean = (1 - np.einsum("ja,a->j", carried, columns.sum(axis=0))) / n
    variance = (1 - leverage) / n - mean**2
    return np.sqrt(np.where(variance > _CONSTANT / n, variance, np.inf))


def _sequence(
    first: float, unexplained: float, threshold: Float, residuals: Callable[[float], Float]
) -> Float:
    """Penalties that are looked at, descending."""
    found: list[float] = []
    before = 0.0
    for at in first * _RANGE ** (np.arange(_LENGTH) / (_LENGTH - 1)):
        found.append(float(at))
        left = np.minimum(np.abs(residuals(float(at))), at * threshold)
        explained = 1 - float((left**2).sum()) / unexplained
        if len(found) >= _LEAST and (explained - before < _GAIN * explained or explained > _ALL):
            break
        before = explained
    return np.array(found)


def _rule(q: Float, sizes: NDArray[np.int64], k: int) -> int:
    """Which of the sets of valid SNPs, from large penalties to small ones, is chosen."""
    enough = sizes > k
    spread = np.sqrt(np.where(enough, q, np.nan) / np.where(enough, sizes - k, 1))
    rise = spread[:-1] - spread[1:]  # from a penalty to the next larger one
    too_much = (spread[:-1] > 1) & (rise > _QUANTILE / sizes[:-1])
    return int(np.flatnonzero(too_much)[-1]) + 1 if too_much.any() else 0
