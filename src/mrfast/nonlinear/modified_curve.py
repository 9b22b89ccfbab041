"""Curve that effect modifiers change, and their functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mrfast._runtime import symmetric_eigen
from mrfast._validation import Float
from mrfast.nonlinear.control_residual import distinct_levels, standardised
from mrfast.nonlinear.fitted_curve import LinearCurve
from mrfast.nonlinear.sparse_rows import SparseRows, gram, row_sum
from mrfast.nonlinear.splines import BSpline, quantile_breakpoints

__all__ = ["ModifiedCurve", "ModifierBasis", "modifier_basis", "orthonormal"]

_MODIFIER_FUNCTIONS = 8
_MODIFIER_LEVELS = 5


@dataclass(frozen=True, eq=False)
class ModifierBasis:
    """Functions of a modifier, of mean zero and variance one, not correlated.

    Attributes
    ----------
    column : int
        Of the modifier among the covariates.
    location, scale : float
    spline : BSpline or None
        Of the standardised modifier; None for one with few levels.
    levels : ndarray or None
        Of the standardised modifier.
    restriction : ndarray (raw functions, s)
        The functions are the raw splines, or indicators of levels, times this.
    roughness : ndarray (s,)
        Integrals of their squared second derivatives; 0 for a line, and for levels.
    """

    column: int
    location: float
    scale: float
    spline: BSpline | None
    levels: Float | None
    restriction: Float
    roughness: Float

    @property
    def count(self) -> int:
        """Number of functions."""
        return len(self.roughness)

    def raw(self, values: Float) -> SparseRows:
        """Raw functions of values in their own units."""
        standard = (values - self.location) / self.scale
        if self.spline is not None:
            return SparseRows.of_spline(self.spline, standard)
        assert self.levels is not None
        middle = 0.5 * (self.levels[1:] + self.levels[:-1])
        index = np.searchsorted(middle, standard).astype(np.int16)[:, None]
        return SparseRows(index, np.ones((len(values), 1)), len(self.levels))

    def values(self, values: Float) -> Float:
        """Functions (m, s) of values in their own units."""
        return self.raw(values).toarray() @ self.restriction


def modifier_basis(column: int, values: Float, weight: Float, n_threads: int) -> ModifierBasis:
    """Functions of a modifier; one of at most five values has indicators."""
    standard, location, scale = standardised(values, weight)
    levels = distinct_levels(standard, _MODIFIER_LEVELS)
    spline, roughness = None, None
    if levels is None:
        spline = BSpline(quantile_breakpoints(standard, _MODIFIER_FUNCTIONS))
        roughness = spline.penalty(2)
    made = ModifierBasis(
        column, float(location), float(scale), spline, levels, np.eye(1), np.zeros(0)
    )
    raw = made.raw(values)
    if roughness is None:
        restriction, rough = orthonormal(raw, weight, np.eye(raw.width), raw.width, n_threads)
    else:
        restriction, rough = orthonormal(raw, weight, roughness, 1, n_threads)
    return replace(made, restriction=restriction, roughness=rough)


def orthonormal(
    raw: SparseRows, weight: Float, penalty: Float, n_smooth: int, n_threads: int
) -> tuple[Float, Float]:
    """Functions of mean 0 and variance 1 that are orthogonal and have a diagonal penalty.

    Parameters
    ----------
    raw : SparseRows
    weight : ndarray (n,)
    penalty : ndarray (raw.width, raw.width)
    n_smooth : int
        Directions, but for the constant, that it leaves free.
    n_threads : int

    Returns
    -------
    restriction : ndarray (raw.width, s)
    penalties : ndarray (s,)
    """
    total = weight.sum()
    mean = row_sum(raw, weight, n_threads) / total
    second = gram(raw, weight, n_threads) / total
    free = np.linalg.qr(np.column_stack([mean, np.eye(raw.width)]))[0][:, 1 : raw.width]
    values, vectors = symmetric_eigen(free.T @ second @ free)
    kept = values > 1e-9 * values[-1]
    free = free @ (vectors[:, kept] / np.sqrt(values[kept]))
    rough, vectors = symmetric_eigen(free.T @ penalty @ free)
    rough[:n_smooth] = 0.0
    return free @ vectors, rough


class ModifiedCurve(LinearCurve):
    """Causal curve that modifiers change.

    Parameters
    ----------
    spline, inner : BSpline
        Of the standardised exposure: of the average curve, and of the modification.
    inner_restriction : ndarray (raw functions, r)
    location, scale : float
        Mean and standard deviation of the exposure.
    modifiers : sequence of ModifierBasis
    others : ndarray of int (q - number of modifiers,)
        Columns of the covariates that act along a line.
    other_means, other_scales : ndarray
    coefficients, covariance, draws, central
        As in `LinearCurve`; the average curve first, then for each modifier the modification
        (functions of the exposure times functions of the modifier) and then the main effect, then
        the other covariates.
    """

    kind = "modified_sieve"

    def __init__(
        self,
        spline: BSpline,
        inner: BSpline,
        inner_restriction: Float,
        location: float,
        scale: float,
        modifiers: Sequence[ModifierBasis],
        others: NDArray[np.int64],
        other_means: Float,
        other_scales: Float,
        coefficients: Float,
        covariance: Float,
        draws: Float,
        central: tuple[float, float],
    ) -> None:
        super().__init__(coefficients, covariance, draws, central)
        self.spline = spline
        self.inner = inner
        self.inner_restriction = inner_restriction
        self.location = float(location)
        self.scale = float(scale)
        self.modifiers = tuple(modifiers)
        self.others = others
        self.other_means = other_means
        self.other_scales = other_scales

    def basis(self, x: Float, covariates: Float | None) -> Float:
        """Functions of the exposure and the modifiers; the latter have mean zero."""
        standard = (x - self.location) / self.scale
        table = np.zeros((len(x), len(self.coefficients)))
        start = self.spline.n_functions
        table[:, :start] = self.spline.values(standard)
        if covariates is None:
            return table
        inner = self.inner.values(standard) @ self.inner_restriction
        for modifier in self.modifiers:
            functions = modifier.values(covariates[:, modifier.column])
            products = (inner[:, :, None] * functions[:, None, :]).reshape(len(x), -1)
            for block in (products, functions):
                table[:, start : start + block.shape[1]] = block
                start += block.shape[1]
        table[:, start:] = (covariates[:, self.others] - self.other_means) / self.other_scales
        return table

    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Values and arrays; no person's covariates are among them."""
        values = {
            "location": self.location,
            "scale": self.scale,
            "central": list(self.central),
            "modifiers": [
                {"column": one.column, "location": one.location, "scale": one.scale}
                for one in self.modifiers
            ],
        }
        arrays: dict[str, NDArray[Any]] = {
            "breakpoints": self.spline.breakpoints,
            "inner_breakpoints": self.inner.breakpoints,
        }
        for name in _ARRAYS:
            arrays[name] = getattr(self, name)
        for number, one in enumerate(self.modifiers):
            points = one.levels if one.spline is None else one.spline.breakpoints
            assert points is not None
            arrays[f"modifier_{number}_points"] = points
            arrays[f"modifier_{number}_is_spline"] = np.array(one.spline is not None)
            arrays[f"modifier_{number}_restriction"] = one.restriction
            arrays[f"modifier_{number}_roughness"] = one.roughness
        return values, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state that `state` gave."""
        modifiers = []
        for number, one in enumerate(values["modifiers"]):
            points = arrays[f"modifier_{number}_points"]
            is_spline = bool(arrays[f"modifier_{number}_is_spline"])
            modifiers.append(
                ModifierBasis(
                    one["column"],
                    one["location"],
                    one["scale"],
                    BSpline(points) if is_spline else None,
                    None if is_spline else points,
                    arrays[f"modifier_{number}_restriction"],
                    arrays[f"modifier_{number}_roughness"],
                )
            )
        low, high = values["central"]
        return cls(
            BSpline(arrays["breakpoints"]),
            BSpline(arrays["inner_breakpoints"]),
            arrays["inner_restriction"],
            values["location"],
            values["scale"],
            modifiers,
            arrays["others"],
            arrays["other_means"],
            arrays["other_scales"],
            arrays["coefficients"],
            arrays["covariance"],
            arrays["draws"],
            (low, high),
        )


_ARRAYS = (
    "inner_restriction",
    "others",
    "other_means",
    "other_scales",
    "coefficients",
    "covariance",
    "draws",
)
