"""Tests of the outcome's regression on the predicted exposure: `reduced_form_tests`.

If the causal function is constant, so is E[Y | m], m being a linear prediction from the
instruments; if it is a line, E[Y | m] is one, whatever the residual's law. A third test asks
whether the residual's spread depends on m.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from mrfast._validation import Float
from mrfast.nonlinear.iv_data import IVData

__all__ = ["ReducedFormTests", "cross_fitted_prediction", "reduced_form_tests", "wald_p_value"]

_FOLDS = 5
_POWERS = 3


@dataclass(frozen=True)
class ReducedFormTests:
    """P-values.

    Attributes
    ----------
    no_effect_p_value : float
        That the outcome does not depend on the prediction, its square and its cube.
    linearity_p_value : float
        That it does not on the square and the cube.
    spread_p_value : float
        That the squared residual of the exposure does not depend on the prediction and its square.
    """

    no_effect_p_value: float
    linearity_p_value: float
    spread_p_value: float

    def to_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def cross_fitted_prediction(data: IVData, at: IVData | None = None) -> Float:
    """Least-squares predictions of the exposure of people who had no part in the regression.

    Folds are those of everybody's place (of their cluster's number) modulo 5. Penalised by one row
    a column.

    Parameters
    ----------
    data : IVData
    at : IVData, optional
        Other people to predict, from all of `data`.

    Returns
    -------
    ndarray of float64, shape: (n,)
    """
    columns = _design(data)
    weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
    groups = np.arange(data.n) if data.clusters is None else data.clusters
    folds = groups % _FOLDS
    products, sums = [], []
    for fold in range(_FOLDS):
        block = columns[folds == fold]
        weighted = block * weight[folds == fold, None]
        products.append(weighted.T @ block)
        sums.append(weighted.T @ data.exposure[folds == fold])
    gram, cross = np.sum(products, axis=0), np.sum(sums, axis=0)
    ridge = np.diag(gram.diagonal() / data.n)
    ridge[0, 0] = 0.0
    if at is not None:
        return np.asarray(_design(at) @ np.linalg.lstsq(gram + ridge, cross, rcond=None)[0])
    result = np.empty(data.n)
    for fold in range(_FOLDS):
        own = folds == fold
        left = np.linalg.lstsq(gram - products[fold] + ridge, cross - sums[fold], rcond=None)[0]
        result[own] = columns[own] @ left
    return result


def reduced_form_tests(data: IVData, outcome_data: IVData | None = None) -> ReducedFormTests:
    """Tests of no effect, of linearity and of the residual's spread.

    Parameters
    ----------
    data : IVData
    outcome_data : IVData, optional
        Other people who have the outcome; by default the same.

    Returns
    -------
    ReducedFormTests
    """
    own = cross_fitted_prediction(data)
    people = data if outcome_data is None else outcome_data
    prediction = own if outcome_data is None else cross_fitted_prediction(data, outcome_data)
    line, powers = _powers(people, prediction)
    base, curved = _powers(data, own)
    squares = (data.exposure - own) ** 2
    return ReducedFormTests(
        wald_p_value(people, people.outcome, line, powers),
        wald_p_value(people, people.outcome, np.column_stack([line, powers[:, :1]]), powers[:, 1:]),
        wald_p_value(data, squares, base, curved[:, :2]),
    )


def wald_p_value(people: IVData, target: Float, others: Float, tested: Float) -> float:
    """Wald test, robust to unequal variances and clusters, of columns of a regression.

    Parameters
    ----------
    people : IVData
        Their weights and clusters.
    target : ndarray, shape (n,)
    others, tested : ndarray, shape (n, k)
        Columns of the regression, and those whose coefficients are 0 under the hypothesis.

    Returns
    -------
    float
    """
    weight = np.ones(people.n) if people.sample_weight is None else people.sample_weight
    design = np.column_stack([others, tested])
    inverse = np.linalg.pinv((design * weight[:, None]).T @ design)
    coefficients = inverse @ (design.T @ (weight * target))
    scores = design * (weight * (target - design @ coefficients))[:, None]
    if people.clusters is not None:
        scores = _sums(scores, people.clusters)
    count = len(scores)
    covariance = inverse @ (scores.T @ scores) @ inverse * (count / (count - 1))
    at = slice(others.shape[1], None)
    effect = coefficients[at]
    statistic = float(effect @ np.linalg.pinv(covariance[at, at]) @ effect)
    return float(chdtrc(tested.shape[1], statistic))


def _design(data: IVData) -> Float:
    parts = [np.ones((data.n, 1)), data.instruments]
    if data.covariates is not None:
        parts.append(data.covariates)
    return np.concatenate(parts, axis=1, dtype=np.float64)


def _powers(people: IVData, prediction: Float) -> tuple[Float, Float]:
    """Intercept and covariates, and powers of the standardised prediction."""
    score = (prediction - prediction.mean()) / max(float(prediction.std()), 1e-300)
    base = [np.ones((people.n, 1))]
    if people.covariates is not None:
        base.append(people.covariates - people.covariates.mean(axis=0))
    return np.concatenate(base, axis=1), np.column_stack(
        [score**power for power in range(1, _POWERS + 1)]
    )


def _sums(rows: Float, clusters: NDArray[np.int64]) -> Float:
    """Sums of the rows of each cluster."""
    result = np.zeros((int(clusters.max()) + 1, rows.shape[1]))
    np.add.at(result, clusters, rows)
    return result[np.bincount(clusters, minlength=len(result)) > 0]
