"""Who trains and validates which network: cross-fitting, separate halves, or one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrfast._validation import Float
from mrfast.nonlinear.networks.rows import fold_codes

__all__ = ["SPLITTINGS", "Division", "divide"]

SPLITTINGS = ("cross_fitting", "separate", "single")


@dataclass(frozen=True)
class Division:
    """Rows of the networks of both stages; a matrix has a row for each network.

    Attributes
    ----------
    exposure_training, exposure_validation : ndarray of bool, shape (networks, n)
    predicting : ndarray of int64, shape (n,)
        Exposure network whose predictions of a person the outcome networks use; -1 for nobody.
    outcome_training, outcome_validation : ndarray of bool, shape (networks, n)
    """

    exposure_training: NDArray[np.bool_]
    exposure_validation: NDArray[np.bool_]
    predicting: NDArray[np.int64]
    outcome_training: NDArray[np.bool_]
    outcome_validation: NDArray[np.bool_]


def divide(
    splitting: str,
    groups: NDArray[np.int64],
    generator: np.random.Generator,
    *,
    folds: int,
    validation_proportion: float,
    counts: NDArray[np.int64] | None = None,
) -> Division:
    """Divide the groups of rows.

    ``"cross_fitting"`` leaves out one fold after the other: the exposure network that has not
    seen a fold predicts it, and the outcome network that has not seen it is stopped by it.
    ``"separate"`` gives each stage one half of the groups, ``"single"`` the same training rows to
    both, as is common; overfitting of the exposure then biases the curve towards the confounded
    regression.

    Parameters
    ----------
    splitting : str
        One of ``SPLITTINGS``.
    groups : ndarray of int64, shape (n,)
    generator : numpy Generator
    folds : int
        Of the cross-fitting.
    validation_proportion : float
        Share of the rows of a stage in the other splittings.
    counts : ndarray of int64, shape (n,), optional
        Times that rows occur in a bootstrap sample.

    Returns
    -------
    Division
    """
    n = groups.size
    if splitting == "cross_fitting":
        parts = fold_codes(groups, np.full(folds, 1 / folds), generator, counts)
        left_out = parts == np.arange(folds)[:, None]
        return Division(~left_out, left_out, parts, ~left_out, left_out)
    kept = 1 - validation_proportion
    if splitting == "single":
        shares: Float = np.array([kept, validation_proportion])
        validation = (fold_codes(groups, shares, generator, counts) == 1)[None]
        everybody = np.zeros(n, dtype=np.int64)
        return Division(~validation, validation, everybody, ~validation, validation)
    shares = np.array([kept, validation_proportion, kept, validation_proportion]) / 2
    parts = fold_codes(groups, shares, generator, counts)
    first, second, third, fourth = (parts[None] == part for part in range(4))
    return Division(first, second, np.where(parts >= 2, 0, -1), third, fourth)
