"""Curves made of fitted curves: of several, and of one on another scale of the exposure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.estimator_names import curve_class
from mrfast.nonlinear.fitted_curve import FittedCurve

__all__ = ["EnsembleCurve", "RescaledCurve"]

_FEWEST = 20  # members whose quantiles are limits


class EnsembleCurve(FittedCurve):
    """Median or mean of curves, with limits from their spread.

    Parameters
    ----------
    members : sequence of FittedCurve
    reduce : {"median", "mean"}
        The limits are the members' quantiles with the median, and mean plus and minus normal
        quantiles times the standard deviation with the mean.
    """

    kind = "ensemble"
    intervals = ("bootstrap",)

    def __init__(self, members: Sequence[FittedCurve], reduce: str) -> None:
        self.members = tuple(members)
        self.reduce = reduce

    def member_values(self, x: Float, covariates: Float | None) -> Float:
        """Curves of the members: (B, m)."""
        return np.stack([member.values(x, covariates) for member in self.members])

    def values(self, x: Float, covariates: Float | None) -> Float:
        """Median or mean of the members, see `FittedCurve.values`."""
        return self._centre(self.member_values(x, covariates))

    def averaged(self, x: Float, people: Float) -> Float:
        """Of the members' averages over people, see `FittedCurve.averaged`."""
        return self._centre(np.stack([member.averaged(x, people) for member in self.members]))

    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """Limits from the spread of the members, see `FittedCurve.limits`."""
        return self._spread(lambda c, at: c.values(at, covariates), level, x, reference)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """Limits of the average over people, see `FittedCurve.averaged_limits`."""
        return self._spread(lambda c, at: c.averaged(at, people), level, x, reference)

    def _spread(
        self,
        of: Callable[[FittedCurve, Float], Float],
        level: float,
        x: Float,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        curves = np.stack([of(member, x) for member in self.members])
        if reference is not None:
            curves = curves - np.stack([of(member, reference) for member in self.members])
        tail = (1.0 - level) / 2.0
        if self.reduce == "mean":
            reach = ndtri(1.0 - tail) * curves.std(axis=0, ddof=1)
            centre = curves.mean(axis=0)
            return centre - reach, centre + reach
        if len(curves) < _FEWEST:
            raise check.fail(
                "interval",
                f"None, reduce='mean' or at least {_FEWEST} members for quantiles",
                f"an ensemble of {len(curves)}",
            )
        lower, upper = np.quantile(curves, [tail, 1.0 - tail], axis=0)
        return lower, upper

    def _centre(self, curves: Float) -> Float:
        centre = np.median(curves, axis=0) if self.reduce == "median" else curves.mean(axis=0)
        return np.asarray(centre, dtype=np.float64)

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """States of the members, see `FittedCurve.state`."""
        values, arrays = _packed(self.members, keep_covariates)
        return {"reduce": self.reduce, "members": values}, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state."""
        return cls(_unpacked(values["members"], arrays), str(values["reduce"]))


class RescaledCurve(FittedCurve):
    """A curve of z = scale x + shift as a curve of x.

    Parameters
    ----------
    parent : FittedCurve
        Curve of z.
    shift, scale : float
    """

    kind = "rescaled"

    def __init__(self, parent: FittedCurve, shift: float, scale: float) -> None:
        self.parent = parent
        self.shift, self.scale = float(shift), float(scale)
        self.intervals = parent.intervals

    def _inside(self, x: Float) -> Float:
        return x * self.scale + self.shift

    def values(self, x: Float, covariates: Float | None) -> Float:
        """The parent's at z, see `FittedCurve.values`."""
        return self.parent.values(self._inside(x), covariates)

    def averaged(self, x: Float, people: Float) -> Float:
        """The parent's at z, see `FittedCurve.averaged`."""
        return self.parent.averaged(self._inside(x), people)

    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """The parent's at z, see `FittedCurve.limits`."""
        other = None if reference is None else self._inside(reference)
        return self.parent.limits(interval, level, self._inside(x), covariates, other)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """The parent's at z, see `FittedCurve.averaged_limits`."""
        other = None if reference is None else self._inside(reference)
        return self.parent.averaged_limits(interval, level, self._inside(x), people, other)

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """State of the parent and the scale, see `FittedCurve.state`."""
        values, arrays = _packed([self.parent], keep_covariates)
        return {"shift": self.shift, "scale": self.scale, "parent": values}, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state."""
        return cls(_unpacked(values["parent"], arrays)[0], values["shift"], values["scale"])


def _packed(
    curves: Sequence[FittedCurve], keep_covariates: bool
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """States of several curves in one; the arrays of the i-th begin with ``i_``."""
    states = [curve.state(keep_covariates) for curve in curves]
    values = [
        {"kind": curve.kind, "values": own} for curve, (own, _) in zip(curves, states, strict=True)
    ]
    arrays = {f"{i}_{name}": a for i, (_, own) in enumerate(states) for name, a in own.items()}
    return values, arrays


def _unpacked(
    values: Sequence[Mapping[str, Any]], arrays: Mapping[str, NDArray[Any]]
) -> list[FittedCurve]:
    curves = []
    for i, entry in enumerate(values):
        start = f"{i}_"
        own = {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}
        curves.append(curve_class(str(entry["kind"])).from_state(entry["values"], own))
    return curves
