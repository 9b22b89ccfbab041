"""Causal curves that networks give, evaluated without torch: `NetworkCurve`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import expit, ndtri

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.nonlinear.fitted_curve import FittedCurve
from mrfast.nonlinear.network_function import network_values

__all__ = ["NetworkCurve", "NetworkShape"]

_KNOTS = 48  # of an average over people, in between cubic
_GRID = 200  # of the uniform band
_MOST_PEOPLE = 2_000
_REPLICATE_PEOPLE = 300
_CHUNK = 20_000  # rows of a forward pass


@dataclass(frozen=True)
class NetworkShape:
    """Form of a structural function h(x, c) = linear part + network, on standardised values.

    Attributes
    ----------
    hidden : tuple of int
    activation : str
    batch_norm : bool
    binary : bool
        Whether h is a log odds; the curve is then the mean of the probabilities.
    input_shift, input_scale : ndarray, shape (1 + q,)
        Of exposure and covariates.
    outcome_shift, outcome_scale : float
    clipped : bool
        Keep the curve, a risk that is linear in the network, between 0 and 1.
    """

    hidden: tuple[int, ...]
    activation: str
    batch_norm: bool
    binary: bool
    input_shift: Float
    input_scale: Float
    outcome_shift: float = 0.0
    outcome_scale: float = 1.0
    clipped: bool = False

    def values(self, weights: Float, linear: Float, inputs: Float) -> Float:
        """E[Y | do(x), c] by one network.

        Parameters
        ----------
        weights : ndarray, shape (n_weights,)
        linear : ndarray, shape (2 + q,)
            Intercept and slopes of the linear part.
        inputs : ndarray, shape (m, 1 + q)
            Exposure and covariates in their own units.

        Returns
        -------
        ndarray, shape (m,)
        """
        scaled = (inputs - self.input_shift) / self.input_scale
        result = np.empty(len(scaled))
        for begin in range(0, len(scaled), _CHUNK):
            part = scaled[begin : begin + _CHUNK]
            network = network_values(
                weights,
                part,
                hidden=self.hidden,
                outputs=1,
                activation=self.activation,
                batch_norm=self.batch_norm,
            )[:, 0]
            result[begin : begin + _CHUNK] = linear[0] + part @ linear[1:] + network
        if self.binary:
            return np.asarray(expit(result))
        result = self.outcome_shift + self.outcome_scale * result
        return np.clip(result, 0.0, 1.0) if self.clipped else result


class NetworkCurve(FittedCurve):
    """Mean of networks, and the same of bootstrap samples for its limits.

    Parameters
    ----------
    shape : NetworkShape
    weights : ndarray, shape (1 + replicates, networks, n_weights)
        The fit first, then those of bootstrap samples.
    linear : ndarray, shape (1 + replicates, networks, 2 + q)
    central, full : (float, float)
        Central 95% and all of the exposure: what uniform bands cover, and the table of averages.
    people : ndarray, shape (r, q), or None
        Rows of covariates that averages are over; at most 2,000, evenly spaced, are used.
    table : ndarray, shape (1 + replicates, knots), optional
        Averages over the people, where these are not given any more.
    """

    kind = "network"

    def __init__(
        self,
        shape: NetworkShape,
        weights: Float,
        linear: Float,
        *,
        central: tuple[float, float],
        full: tuple[float, float],
        people: Float | None = None,
        table: Float | None = None,
    ) -> None:
        self.shape = shape
        self.weights = np.asarray(weights, dtype=np.float64)
        self.linear = np.asarray(linear, dtype=np.float64)
        self.central, self.full = central, full
        self.people = None if people is None else _spaced(people, _MOST_PEOPLE)
        self.table = table
        if self.table is None and self.people is not None:
            self.table = self._tabulated(self.people)
        if len(self.weights) > 1:
            self.intervals = ("pointwise", "uniform", "bootstrap")

    def values(self, x: Float, covariates: Float | None) -> Float:
        """E[Y | do(X = x)], see `FittedCurve.values`."""
        return np.asarray(self._at(x, covariates, slice(0, 1))[0])

    def averaged(self, x: Float, people: Float) -> Float:
        """Average over given people, see `FittedCurve.averaged`."""
        return np.asarray(self._averages(x, people, slice(0, 1))[0])

    def replicates(self, x: Float, covariates: Float | None) -> Float:
        """Curves of the bootstrap samples, shape (replicates, m)."""
        return self._at(x, covariates, slice(1, None))

    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """Limits at `x` from the bootstrap samples, see `FittedCurve.limits`.

        ``"bootstrap"`` takes quantiles of the samples' curves, ``"pointwise"`` normal quantiles
        times their standard deviation, and ``"uniform"`` the quantile over the samples of the
        largest standardised deviation on the central 95% of the exposure and at `x`.
        """
        every = slice(0, None)
        curves = self._at(x, covariates, every)
        if reference is not None:
            curves = curves - self._at(reference, covariates, every)
        factor = None
        if interval == "uniform":
            factor = self._critical_value(level, curves, covariates, reference)
        return _bootstrap_limits(interval, level, curves, factor)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """Limits of the average over given people, see `FittedCurve.averaged_limits`."""
        every = slice(0, None)
        curves = self._averages(x, people, every)
        if reference is not None:
            curves = curves - self._averages(reference, people, every)
        factor = None
        if interval == "uniform":
            grid = self._averages(np.linspace(*self.central, _GRID), people, every)
            blocks = [curves, grid]
            if reference is not None:
                ends = self._averages(np.unique(reference), people, every)
                blocks = [curves, *(grid - end[:, None] for end in ends.T)]
            factor = _largest_deviation(np.concatenate(blocks, axis=1), level)
        return _bootstrap_limits(interval, level, curves, factor)

    def _critical_value(
        self, level: float, curves: Float, covariates: Float | None, reference: Float | None
    ) -> float:
        grid = np.linspace(*self.central, _GRID)
        every = slice(0, None)
        blocks = [curves]
        for person in [None] if covariates is None else np.unique(covariates, axis=0):
            on_grid = self._at(grid, _repeated(person, _GRID), every)
            if reference is None:
                blocks.append(on_grid)
                continue
            ends = np.unique(reference)
            at_ends = self._at(ends, _repeated(person, len(ends)), every)
            blocks += [on_grid - end[:, None] for end in at_ends.T]
        return _largest_deviation(np.concatenate(blocks, axis=1), level)

    # ------------------------------------------------------------------ evaluation

    def _at(self, x: Float, covariates: Float | None, which: slice) -> Float:
        """Curves of some replicates, shape (replicates, m)."""
        if covariates is None and self.table is not None:
            return self._interpolated(x, which)
        columns = [x[:, None]] if covariates is None else [x[:, None], covariates]
        return self._networks(np.concatenate(columns, axis=1), which)

    def _networks(self, inputs: Float, which: slice) -> Float:
        return np.stack(
            [
                np.mean(
                    [self.shape.values(w, b, inputs) for w, b in zip(ws, bs, strict=True)], axis=0
                )
                for ws, bs in zip(self.weights[which], self.linear[which], strict=True)
            ]
        )

    def _averages(self, x: Float, people: Float, which: slice) -> Float:
        """Averages over people, shape (replicates, m)."""
        columns = []
        for value in x:
            inputs = np.column_stack([np.full(len(people), value), people])
            columns.append(self._networks(inputs, which).mean(axis=1))
        return np.stack(columns, axis=1)

    @property
    def _knots(self) -> Float:
        return np.linspace(*self.full, _KNOTS)

    def _tabulated(self, people: Float) -> Float:
        """Averages at the knots.

        Those of bootstrap samples are the fit's, plus their difference from it among fewer people.
        """
        table = self._averages(self._knots, people, slice(0, 1))
        if len(self.weights) == 1:
            return table
        few = self._averages(self._knots, _spaced(people, _REPLICATE_PEOPLE), slice(0, None))
        return np.asarray(table + (few - few[0]))

    def _interpolated(self, x: Float, which: slice) -> Float:
        """Cubic between the knots, and straight beyond the exposure's values."""
        assert self.table is not None
        knots = self._knots
        spline = CubicSpline(knots, self.table[which], axis=1, bc_type="natural")
        inside = np.clip(x, knots[0], knots[-1])
        return np.asarray(spline(inside) + spline(inside, 1) * (x - inside))

    # ------------------------------------------------------------------ files

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Values and arrays, see `FittedCurve.state`."""
        values = {
            "hidden": list(self.shape.hidden),
            "activation": self.shape.activation,
            "batch_norm": self.shape.batch_norm,
            "binary": self.shape.binary,
            "outcome_shift": self.shape.outcome_shift,
            "outcome_scale": self.shape.outcome_scale,
            "clipped": self.shape.clipped,
            "central": list(self.central),
            "full": list(self.full),
        }
        arrays: dict[str, NDArray[Any]] = {
            "weights": self.weights,
            "linear": self.linear,
            "input_shift": self.shape.input_shift,
            "input_scale": self.shape.input_scale,
        }
        if self.table is not None:
            arrays["table"] = self.table
        if keep_covariates and self.people is not None:
            arrays["people"] = self.people
        return values, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state."""
        shape = NetworkShape(
            hidden=tuple(int(width) for width in values["hidden"]),
            activation=str(values["activation"]),
            batch_norm=bool(values["batch_norm"]),
            binary=bool(values["binary"]),
            input_shift=arrays["input_shift"],
            input_scale=arrays["input_scale"],
            outcome_shift=float(values["outcome_shift"]),
            outcome_scale=float(values["outcome_scale"]),
            clipped=bool(values["clipped"]),
        )
        return cls(
            shape,
            arrays["weights"],
            arrays["linear"],
            central=(float(values["central"][0]), float(values["central"][1])),
            full=(float(values["full"][0]), float(values["full"][1])),
            people=arrays.get("people"),
            table=arrays.get("table"),
        )


def _bootstrap_limits(
    interval: str, level: float, curves: Float, factor: float | None
) -> tuple[Float, Float]:
    """Limits from the fit's curve, first, and those of the bootstrap samples."""
    check.choice("interval", interval, ("pointwise", "uniform", "bootstrap"))
    if interval == "bootstrap":
        lower, upper = np.quantile(curves[1:], [0.5 - level / 2, 0.5 + level / 2], axis=0)
        return lower, upper
    if factor is None:
        factor = float(ndtri(0.5 + level / 2))
    spread = curves[1:].std(axis=0, ddof=1)
    return curves[0] - factor * spread, curves[0] + factor * spread


def _largest_deviation(curves: Float, level: float) -> float:
    """Quantile over the samples of their largest standardised deviation."""
    samples = curves[1:]
    spread = samples.std(axis=0, ddof=1)
    used = spread > 1e-12 * max(float(np.abs(samples).max()), 1e-300)
    normal = float(ndtri(0.5 + level / 2))
    if not used.any():
        return normal
    deviations = np.abs(samples - samples.mean(axis=0))[:, used] / spread[used]
    return max(float(np.quantile(deviations.max(axis=1), level)), normal)


def _spaced(rows: Float, most: int) -> Float:
    """At most so many rows, evenly spaced among all and moved to the mean of all.

    With that mean, what is linear in the covariates is averaged as over all rows.
    """
    rows = np.asarray(rows, dtype=np.float64)
    if len(rows) <= most:
        return rows
    chosen = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    return np.asarray(chosen + (rows.mean(axis=0) - chosen.mean(axis=0)))


def _repeated(person: Float | None, length: int) -> Float | None:
    return None if person is None else np.broadcast_to(person, (length, len(person)))
