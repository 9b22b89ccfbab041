"""Split conformal prediction: intervals for the outcome of a new person around a fitted curve.

Calibration people took no part in the fit. A score says how far the outcome of each is from the
curve; the interval holds what a new person's score may be, up to the conformal quantile of theirs.

What it covers: the outcome of a new person from the same population, whose exposure is what it
came to be, with at least the nominal probability, on average over people. It does not narrow as
data grow, says nothing about the uncertainty of the curve, and where the exposure is *set* holds
only as far as the outcome is the curve plus a term whose law does not depend on the exposure.

References
----------
Vovk, Gammerman and Shafer 2005, https://doi.org/10.1007/b106715; Tibshirani, Barber, Candes and
Ramdas 2019, https://arxiv.org/abs/1904.06019 (weights); Lee, Barber and Willett 2023,
https://arxiv.org/abs/2306.06342 (groups).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.estimator_names import curve_class
from mrfast.nonlinear.fitted_curve import FittedCurve
from mrfast.nonlinear.iv_data import IVData

__all__ = ["LEVELS", "ConformalCurve", "PredictionShape", "conformal_quantiles"]

LEVELS: Float = np.concatenate([np.arange(1, 100) / 100, [0.995, 0.999]])
"""Levels that are calibrated; one between two of them takes the upper one."""


def conformal_quantiles(
    scores: Float,
    levels: Float,
    *,
    sample_weight: Float | None = None,
    clusters: NDArray[np.int64] | None = None,
) -> Float:
    """What the score of a new person stays below with the given probabilities.

    The new person's own score counts as infinite. It has the weight of the heaviest cluster of
    the calibration, a cluster being one person where there are none: a new person brings a new
    cluster, whose weight is not known.

    Parameters
    ----------
    scores : ndarray of float64, shape: (n,)
    levels : ndarray of float64, shape: (k,)
    sample_weight : ndarray of float64, shape: (n,), optional
    clusters : ndarray of int64, shape: (n,), optional

    Returns
    -------
    ndarray of float64, shape: (k,)
        Infinite where there are too few people for a level.
    """
    weights = np.ones(len(scores)) if sample_weight is None else sample_weight
    heaviest = weights.max() if clusters is None else np.bincount(clusters, weights).max()
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order])
    needed = levels * (reached[-1] + heaviest)
    places = np.searchsorted(reached, needed * (1 - 1e-12), side="left")
    return np.asarray(np.append(scores[order], np.inf)[places])


class PredictionShape(ABC):
    """Interval before calibration, which moves both ends by a number of units.

    Attributes
    ----------
    kind : str
        Name in files, a key of ``SHAPES``.
    """

    kind: ClassVar[str]

    @abstractmethod
    def ends(
        self, level: float, centre: Float, x: Float, covariates: Float | None
    ) -> tuple[Float, Float, Float]:
        """Lower and upper end, and the unit by which calibration moves them, (m,) each.

        Parameters
        ----------
        level : float
        centre : ndarray of float64, shape: (m,)
            The curve there.
        x : ndarray of float64, shape: (m,)
        covariates : ndarray of float64, shape: (m, q), or None
            None stands for people whose covariates are not known.
        """

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """As of `FittedCurve.state`."""

    @classmethod
    @abstractmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """As of `FittedCurve.from_state`."""


class ConstantShape(PredictionShape):
    """The curve itself: intervals of the same width everywhere."""

    kind = "absolute"

    def ends(
        self, level: float, centre: Float, x: Float, covariates: Float | None
    ) -> tuple[Float, Float, Float]:
        """Curve, curve and 1, see `PredictionShape.ends`."""
        return centre, centre, np.ones(len(x))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Nothing."""
        return {}, {}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The shape."""
        return cls()


SHAPES: dict[str, str] = {
    "absolute": "conformal:ConstantShape",
    "residual_network": "network_shapes:ResidualScale",
    "simultaneous_quantile": "network_shapes:QuantileEnds",
}
"""Kind of a `PredictionShape`: module below ``mrfast.nonlinear`` and class."""


def shape_class(kind: str) -> type[PredictionShape]:
    """Class of a kind of `PredictionShape`."""
    module, _, name = SHAPES[check.choice("shape", kind, list(SHAPES))].partition(":")
    found: type[PredictionShape] = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    return found


class ConformalCurve(FittedCurve):
    """A fitted curve that also has conformal prediction intervals.

    Parameters
    ----------
    curve : FittedCurve
    shape : PredictionShape
    units : ndarray of float64, shape: (k, 2)
        How many units calibration moves the ends at each of ``LEVELS``: for people of known
        covariates, and of unknown ones.
    """

    kind = "conformal"

    def __init__(self, curve: FittedCurve, shape: PredictionShape, units: Float) -> None:
        self.curve = curve
        self.shape = shape
        self.units = units
        self.intervals = (*curve.intervals, "conformal")

    @classmethod
    def calibrated(cls, curve: FittedCurve, shape: PredictionShape, people: IVData) -> Self:
        """Calibrate on people who took no part in the fit of curve and shape.

        Parameters
        ----------
        curve : FittedCurve
        shape : PredictionShape
        people : IVData
        """
        used = None
        if people.clusters is not None:
            used = np.unique(people.clusters, return_inverse=True)[1].reshape(people.n)
        cases = [None] if people.covariates is None else [people.covariates, None]
        columns = []
        for covariates in cases:
            centre = curve.values(people.exposure, covariates)
            column = []
            for level in LEVELS:
                lower, upper, unit = shape.ends(float(level), centre, people.exposure, covariates)
                beyond = np.maximum(lower - people.outcome, people.outcome - upper)
                column.append(
                    conformal_quantiles(
                        beyond / unit,
                        np.array([level]),
                        sample_weight=people.sample_weight,
                        clusters=used,
                    )[0]
                )
            columns.append(column)
        return cls(curve, shape, np.array([columns[0], columns[-1]]).T)

    def values(self, x: Float, covariates: Float | None) -> Float:
        """That of the curve within, see `FittedCurve.values`."""
        return self.curve.values(x, covariates)

    def averaged(self, x: Float, people: Float) -> Float:
        """That of the curve within, see `FittedCurve.averaged`."""
        return self.curve.averaged(x, people)

    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """Prediction interval, or limits of the curve within, see `FittedCurve.limits`."""
        if interval != "conformal":
            return self.curve.limits(interval, level, x, covariates, reference)
        if reference is not None:
            raise check.fail("interval", "limits of a difference", "a prediction interval for Y")
        place = int(np.searchsorted(LEVELS, level - 1e-12))
        if place == len(LEVELS):
            raise check.fail("level", f"at most {LEVELS[-1]} for conformal intervals", f"{level}")
        centre = self.values(x, covariates)
        lower, upper, unit = self.shape.ends(float(LEVELS[place]), centre, x, covariates)
        moved = self.units[place, 0 if covariates is not None else 1] * unit
        return np.minimum(lower - moved, centre), np.maximum(upper + moved, centre)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """Limits of the curve within, see `FittedCurve.averaged_limits`."""
        if interval != "conformal":
            return self.curve.averaged_limits(interval, level, x, people, reference)
        return super().averaged_limits(interval, level, x, people, reference)

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """State of curve, shape and calibration, see `FittedCurve.state`."""
        curve, curve_arrays = self.curve.state(keep_covariates)
        shape, shape_arrays = self.shape.state()
        values = {
            "curve_kind": self.curve.kind,
            "curve": curve,
            "shape_kind": self.shape.kind,
            "shape": shape,
        }
        arrays = {f"of_curve_{name}": array for name, array in curve_arrays.items()}
        arrays |= {f"of_shape_{name}": array for name, array in shape_arrays.items()}
        return values, arrays | {"units": self.units}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state, see `FittedCurve.from_state`."""

        def of(prefix: str) -> dict[str, NDArray[Any]]:
            return {
                name.removeprefix(prefix): array
                for name, array in arrays.items()
                if name.startswith(prefix)
            }

        curve = curve_class(values["curve_kind"]).from_state(values["curve"], of("of_curve_"))
        shape = shape_class(values["shape_kind"]).from_state(values["shape"], of("of_shape_"))
        return cls(curve, shape, arrays["units"])
