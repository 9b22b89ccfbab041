"""Unbiased risk of any causal curve on people that it was not fitted to.

The moment condition E[Y - f(X, C) | Z, C] = 0 holds at the causal function, so that the risk of a
curve f is the mean square of rho(Z, C) = E[r | Z, C], with r = Y - f(X, C). The mean of r^2 is
another thing: the confounder makes it smallest for a curve that is wrong. With two independent
draws r', r'' of the residual at the same (Z, C) the product r' r'' is unbiased for rho^2. Two
people never have quite the same instruments, so the second draw is a regression: r_i times what
the regression of r on functions b(Z, C) predicts for i *without* i (or i's cluster). That is the
second-order U-statistic sum_i sum_{j != i} r_i r_j b_i' A_(-i) b_j / n. It is unbiased for the
mean of rho^2 whenever rho is in the span of b, for any size of the sample; with indicators of
groups as b it is the mean product of all pairs within a group. Directions outside the span are
not seen. With i itself among the others, the usual projected sum of squares, the risk would be
too large by about (number of functions) Var(r) / n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float
from mrfast.nonlinear.cross_fitted_score import transferred_score
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.splines import BSpline

__all__ = ["HeldOutRisk", "RiskEstimate"]

_FUNCTIONS = 8  # of the score
_LEVELS = 14  # a score with at most so many values has an indicator for each
_SMALLEST = 1e-9  # eigenvalues below this, relative to the largest, are dropped


@dataclass(frozen=True)
class RiskEstimate:
    """Risk of one curve.

    Attributes
    ----------
    risk : float
        In squared units of the outcome; may be below 0, as unbiased estimates of small squares are.
    std_error : float
        Of the risk, for the held-out people.
    """

    risk: float
    std_error: float


class HeldOutRisk:
    """Risk of curves on held-out people.

    Parameters
    ----------
    training : IVData
        People whose regression of the exposure on the instruments makes the score.
    held_out : IVData
        Other people, none of whose clusters is among those of `training`.

    Attributes
    ----------
    n_functions : int
        Functions of score and covariates in the regression of the residuals.

    References
    ----------
    Newey WK, Powell JL. Instrumental variable estimation of nonparametric models. Econometrica
    2003. doi:10.1111/1468-0262.00459. The leave-one-out form is that of jackknife instrumental
    variables, Angrist JD, Imbens GW, Krueger AB 1999,
    doi:10.1002/(SICI)1099-1255(199901/02)14:1<57::AID-JAE501>3.0.CO;2-G.
    """

    def __init__(self, training: IVData, held_out: IVData) -> None:
        weight = held_out.sample_weight
        self._weight = np.ones(held_out.n) if weight is None else weight
        own, transferred = transferred_score(
            training.instruments,
            training.exposure,
            training.covariates,
            training.sample_weight,
            held_out.instruments,
        )
        basis = _functions(own, transferred, held_out.covariates)
        # orthonormal under the weights, which also drops collinear functions
        values, vectors = symmetric_eigen(_gram(basis, self._weight))
        kept = values > _SMALLEST * values[-1]
        self._basis = _products(basis, vectors[:, kept] / np.sqrt(values[kept]))
        self._clusters = held_out.clusters
        self.n_functions = int(kept.sum())

    def __call__(self, residuals: Float) -> RiskEstimate:
        """Risk of a curve.

        Parameters
        ----------
        residuals : ndarray of float64, shape: (n,)
            Outcome less curve for the held-out people.

        Returns
        -------
        RiskEstimate
        """
        basis, weight = self._basis, self._weight
        other = self._without_own(residuals)
        total = float(weight.sum())
        risk = float((weight * residuals * other).sum()) / total
        # Variance of a second-order U-statistic: 4 sum a_i^2 has its linear part and the pairs'
        # own variance twice, of which one is taken off; the pairs' own is the least it can be.
        single = weight * residuals
        if self._clusters is not None:
            codes = np.unique(self._clusters, return_inverse=True)[1]
            linear = np.bincount(codes, weights=single * other).astype(np.float64)
            sums: Float = np.stack(
                [np.bincount(codes, weights=single * column) for column in basis.T], 1
            )
        else:
            linear, sums = single * other, single[:, None] * basis
        crossed = _gram(sums, np.ones(len(sums)))
        own = np.einsum("ik,ik->i", sums, sums)
        pairs = float((crossed**2).sum() - (own**2).sum())
        variance = max(4.0 * float((linear**2).sum()) - 2.0 * pairs, 2.0 * pairs)
        return RiskEstimate(risk, float(np.sqrt(max(variance, 0.0))) / total)

    def _without_own(self, residuals: Float) -> Float:
        """What the regression on everybody outside a person's cluster predicts for the person."""
        basis, weight = self._basis, self._weight
        fitted = _products(basis, np.einsum("ik,i->k", basis, weight * residuals)[:, None])[:, 0]
        if self._clusters is None:
            leverage = weight * np.einsum("ik,ik->i", basis, basis)
            return np.asarray((fitted - leverage * residuals) / _positive(1.0 - leverage))
        result = np.empty_like(fitted)
        for rows in _groups_by_size(self._clusters):  # (groups, members)
            own = basis[rows]
            hat = np.einsum("gik,gjk,gj->gij", own, own, weight[rows])
            shift = fitted[rows] - np.einsum("gij,gj->gi", hat, residuals[rows])
            # (I - H_gg)^-1 (fitted - H_gg r): the prediction with the whole group left out
            inverse = np.linalg.pinv(np.eye(rows.shape[1]) - hat)
            result[rows] = np.einsum("gij,gj->gi", inverse, shift)
        return result


def _functions(training: Float, held_out: Float, covariates: Float | None) -> Float:
    """Functions of the score, and the covariates, at the held-out people; they span constants."""
    levels = np.unique(held_out)
    if len(levels) <= _LEVELS:
        basis: Float = (held_out[:, None] == levels).astype(np.float64)
    else:
        # of the rank, so that no few people in a tail decide a function by themselves
        ordered = np.sort(training)
        rank = np.searchsorted(ordered, held_out, "left") + np.searchsorted(
            ordered, held_out, "right"
        )
        spline = BSpline(np.linspace(0.0, 1.0, _FUNCTIONS - 2))
        basis = spline.values(rank / (2.0 * len(ordered)))
    if covariates is None:
        return basis
    spread = covariates.std(axis=0)
    centred = (covariates - covariates.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return np.concatenate([basis, centred], axis=1)


def _gram(columns: Float, weight: Float) -> Float:
    """Sum of w b b', without BLAS: the same bits on any number of its threads."""
    return np.asarray(np.einsum("ik,il->kl", columns, columns * weight[:, None]))


def _products(columns: Float, matrix: Float) -> Float:
    return np.asarray(np.einsum("ik,kl->il", columns, matrix))


def _positive(values: Float) -> Float:
    """A person who alone decides a direction has no others: its prediction is then 0 / tiny."""
    return np.asarray(np.maximum(values, 1e-9))


def _groups_by_size(clusters: np.ndarray) -> list[np.ndarray]:
    """Rows of all clusters of one size, (clusters, members), for each size."""
    order = np.argsort(clusters, kind="stable")
    _, starts, counts = np.unique(clusters[order], return_index=True, return_counts=True)
    return [order[starts[counts == size][:, None] + np.arange(size)] for size in np.unique(counts)]
