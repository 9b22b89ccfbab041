"""Conformal prediction intervals beside the curves of networks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.conformal import ConformalCurve, ConstantShape, PredictionShape
from mrfast.nonlinear.estimator import Fit
from mrfast.nonlinear.iv_data import IVData
from mrfast.nonlinear.networks.rows import fold_codes, group_codes

if TYPE_CHECKING:
    import torch

    from mrfast.nonlinear.networks.network_estimator import TrainingRun

__all__ = ["CONFORMAL_SCORES", "calibration_split", "with_prediction_intervals"]

CONFORMAL_SCORES = ("absolute", "residual_network", "simultaneous_quantile")


def calibration_split(
    data: IVData, proportion: float, generator: np.random.Generator
) -> tuple[IVData, IVData | None]:
    """Set people aside for calibration; clusters stay together.

    Parameters
    ----------
    data : IVData
    proportion : float
        Of the people; 0 sets nobody aside.
    generator : numpy Generator

    Returns
    -------
    people of the fit, people of the calibration

    Raises
    ------
    InvalidInputError
        The outcome is binary: there is no interval to predict.
    """
    if not proportion:
        return data, None
    if data.binary_outcome:
        raise check.fail("calibration_proportion", "0 with an outcome of 0 and 1", f"{proportion}")
    groups = group_codes(data.n, data.clusters)
    parts = fold_codes(groups, np.array([1 - proportion, proportion]), generator)

    def people(part: int) -> IVData:
        taken = data.take(np.flatnonzero(parts == part))
        if taken.clusters is None:
            return taken
        codes = np.unique(taken.clusters, return_inverse=True)[1]
        return replace(taken, clusters=codes.reshape(taken.n).astype(np.int64))

    return people(0), people(1)


def with_prediction_intervals(
    fit: Fit,
    people: IVData,
    calibration: IVData | None,
    *,
    score: str,
    run: TrainingRun,
    generator: np.random.Generator,
    device: torch.device,
    nodes: Float | None = None,
    probabilities: Float | None = None,
) -> Fit:
    """Add ``interval="conformal"`` to a fit.

    Parameters
    ----------
    fit : Fit
    people, calibration : IVData
        As `calibration_split` gave them; without calibration the fit comes back as it is.
    score : str
        One of ``CONFORMAL_SCORES``.
    run : TrainingRun
    generator : numpy Generator
    device : torch.device
    nodes : ndarray, shape (n, k), optional
        For ``"simultaneous_quantile"``: points of the law of each person's exposure given the
        instruments, in the exposure's units; by default the exposure itself.
    probabilities : ndarray, shape (k,), optional
        Of the points.

    Returns
    -------
    Fit
    """
    if calibration is None:
        return fit
    from mrfast.nonlinear.networks.prediction_networks import (
        PredictionOptions,
        train_quantile_ends,
        train_residual_scale,
    )

    options = PredictionOptions()
    shape: PredictionShape = ConstantShape()
    if score == "residual_network":
        residuals = people.outcome - fit.curve.values(people.exposure, people.covariates)
        shape = train_residual_scale(
            residuals, people, options=options, run=run, generator=generator, device=device
        )
    elif score == "simultaneous_quantile":
        if nodes is None or probabilities is None:
            nodes, probabilities = people.exposure[:, None], np.ones(1)
        shape = train_quantile_ends(
            nodes,
            probabilities,
            people,
            options=options,
            run=run,
            generator=generator,
            device=device,
        )
    note = (
        f"conformal intervals are calibrated on {calibration.n:,} people who took no part in the "
        "fit; they cover the outcome of a new person as observed with at least their level, "
        "averaged over people, and are no limits of the causal curve"
    )
    return Fit(
        ConformalCurve.calibrated(fit.curve, shape, calibration),
        fit.diagnostics | {"calibration_people": calibration.n, "conformal_score": score},
        (*fit.messages, note),
    )
