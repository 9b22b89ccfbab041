"""What a fit leaves for prediction: `FittedCurve`, and `LinearCurve` for linear estimators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mrfast import _validation as check
from mrfast._validation import Float

__all__ = ["INTERVALS", "FittedCurve", "LinearCurve"]

INTERVALS: Mapping[str, str] = {
    "pointwise": "pointwise interval for E[Y | do(X = x)]",
    "uniform": "uniform band for the whole curve E[Y | do(X = x)]",
    "bootstrap": "pointwise bootstrap interval for E[Y | do(X = x)]",
    "conformal": "conformal prediction interval for Y, not for the causal curve",
}
"""Kinds of limits, in words."""

_GRID = 200
_ROUNDING = 1e-7  # errors below this share of the largest are those of a difference that is zero


class FittedCurve(ABC):
    """A curve with its uncertainty, free of the data it came from.

    Attributes
    ----------
    kind : str
        Name in files, a key of ``estimator_names.CURVES``.
    intervals : tuple of str
        Keys of ``INTERVALS`` that `limits` knows.
    """

    kind: ClassVar[str]
    intervals: tuple[str, ...] = ()

    @abstractmethod
    def values(self, x: Float, covariates: Float | None) -> Float:
        """E[Y | do(X = x)].

        Parameters
        ----------
        x : ndarray of float64, shape: (m,)
        covariates : ndarray of float64, shape: (m, q), or None
            One row for each value of `x`; None averages over the people of the fit.

        Returns
        -------
        ndarray of float64, shape: (m,)
        """

    @abstractmethod
    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """Limits of the curve at `x`, or of its difference from the curve at `reference`.

        Parameters
        ----------
        interval : str
            One of ``intervals``.
        level : float
        x : ndarray of float64, shape: (m,)
        covariates : ndarray of float64, shape: (m, q), or None
        reference : ndarray of float64, shape: (m,), or None

        Returns
        -------
        lower, upper : ndarray of float64, shape: (m,)
        """

    def averaged(self, x: Float, people: Float) -> Float:
        """E[Y | do(X = x)], averaged over given people.

        Parameters
        ----------
        x : ndarray of float64, shape: (m,)
        people : ndarray of float64, shape: (r, q)
            Their covariates.

        Returns
        -------
        ndarray of float64, shape: (m,)
        """
        total = np.zeros(len(x))
        for person in people:
            total += self.values(x, _repeated(person, len(x)))
        return total / len(people)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """Limits of the average over given people, see `limits`.

        Raises
        ------
        InvalidInputError
            This kind of limits is known for single people, or for the people of the fit, only.
        """
        if len(people) == 1:
            return self.limits(interval, level, x, _repeated(people[0], len(x)), reference)
        raise check.fail(
            "covariates", f"one person, or None, with interval={interval!r}", f"{len(people)} rows"
        )

    @abstractmethod
    def state(self, keep_covariates: bool) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Values of JSON's types, and arrays, from which `from_state` makes the curve again.

        Parameters
        ----------
        keep_covariates : bool
            Whether rows of covariates of single people may be among the arrays.
        """

    @classmethod
    @abstractmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Curve of a state that `state` gave."""


class LinearCurve(FittedCurve):
    """A curve that is linear in coefficients, with draws from their law.

    Parameters
    ----------
    coefficients : ndarray of float64, shape: (k,)
    covariance : ndarray of float64, shape: (k, k)
        Its diagonal forms give the variances of pointwise limits.
    draws : ndarray of float64, shape: (b, k)
        From the law of the coefficients; they give the critical value of uniform bands.
    central : (float, float)
        Range of the exposure that uniform bands always cover: its central 95%.
    """

    intervals = ("pointwise", "uniform")

    def __init__(
        self, coefficients: Float, covariance: Float, draws: Float, central: tuple[float, float]
    ) -> None:
        self.coefficients = np.asarray(coefficients, dtype=np.float64)
        self.covariance = np.asarray(covariance, dtype=np.float64)
        self.draws = np.asarray(draws, dtype=np.float64)
        self.central = (float(central[0]), float(central[1]))

    @abstractmethod
    def basis(self, x: Float, covariates: Float | None) -> Float:
        """Rows whose products with the coefficients are the curve.

        Parameters
        ----------
        x : ndarray of float64, shape: (m,)
        covariates : ndarray of float64, shape: (m, q), or None
            None averages over the people of the fit.

        Returns
        -------
        ndarray of float64, shape: (m, k)
        """

    def values(self, x: Float, covariates: Float | None) -> Float:
        """E[Y | do(X = x)], see `FittedCurve.values`."""
        return _products(self.basis(x, covariates), self.coefficients)

    def standard_errors(self, rows: Float) -> Float:
        """Standard errors of linear functionals.

        Parameters
        ----------
        rows : ndarray of float64, shape: (m, k)

        Returns
        -------
        ndarray of float64, shape: (m,)
        """
        weighted = np.einsum("mk,kl->ml", rows, self.covariance)
        variance = np.einsum("ml,ml->m", weighted, rows)
        errors: Float = np.sqrt(np.maximum(variance, 0.0))
        return errors

    def critical_value(self, rows: Float, level: float) -> float:
        """Quantile of the largest standardised deviation of the draws over functionals.

        Parameters
        ----------
        rows : ndarray of float64, shape: (m, k)
        level : float

        Returns
        -------
        float
            At least that of one functional alone under the normal law.
        """
        errors = self.standard_errors(rows)
        used = errors > _ROUNDING * errors.max(initial=0.0)
        smallest = float(ndtri(0.5 + level / 2))
        if not used.any():
            return smallest
        standardised = rows[used] / errors[used, None]
        largest = np.zeros(len(self.draws))
        deviations = self.draws - self.coefficients
        for row in standardised:  # one functional at a time: stable bits, little memory
            np.maximum(largest, np.abs(_products(deviations, row)), out=largest)
        return max(float(np.quantile(largest, level)), smallest)

    def averaged(self, x: Float, people: Float) -> Float:
        """Average over given people, see `FittedCurve.averaged`."""
        return _products(self._averaged_basis(x, people), self.coefficients)

    def limits(
        self,
        interval: str,
        level: float,
        x: Float,
        covariates: Float | None,
        reference: Float | None,
    ) -> tuple[Float, Float]:
        """Limits at `x`, see `FittedCurve.limits`."""
        rows = self.basis(x, covariates)
        if reference is not None:
            rows = rows - self.basis(reference, covariates)
        people: list[Float | None] = [None]
        if covariates is not None:
            people = list(np.unique(covariates, axis=0)[:, None])
        grids = [self._grid_basis(person) for person in people] if interval == "uniform" else []
        references = None
        if reference is not None and interval == "uniform":
            values = np.unique(reference)
            references = [self._basis_of(values, person) for person in people]
        return self._limits_of(interval, level, rows, grids, references)

    def averaged_limits(
        self, interval: str, level: float, x: Float, people: Float, reference: Float | None
    ) -> tuple[Float, Float]:
        """Limits of the average over given people, see `FittedCurve.averaged_limits`."""
        rows = self._averaged_basis(x, people)
        references = None
        if reference is not None:
            rows = rows - self._averaged_basis(reference, people)
            references = [self._averaged_basis(np.unique(reference), people)]
        grids = []
        if interval == "uniform":
            grids = [self._averaged_basis(np.linspace(*self.central, _GRID), people)]
        return self._limits_of(interval, level, rows, grids, references)

    def _limits_of(
        self,
        interval: str,
        level: float,
        rows: Float,
        grids: list[Float],
        references: list[Float] | None,
    ) -> tuple[Float, Float]:
        """Limits of functionals; a uniform band also covers the grids, less their references."""
        centre = _products(rows, self.coefficients)
        errors = self.standard_errors(rows)
        if interval == "pointwise":
            factor = float(ndtri(0.5 + level / 2))
        else:
            if references is not None:
                pairs = zip(grids, references, strict=True)
                grids = [grid - row for grid, block in pairs for row in block]
            factor = self.critical_value(np.concatenate([rows, *grids]), level)
        return centre - factor * errors, centre + factor * errors

    def _grid_basis(self, person: Float | None) -> Float:
        return self._basis_of(np.linspace(*self.central, _GRID), person)

    def _basis_of(self, x: Float, person: Float | None) -> Float:
        return self.basis(x, None if person is None else _repeated(person.ravel(), len(x)))

    def _averaged_basis(self, x: Float, people: Float) -> Float:
        total = self._basis_of(x, people[0])
        for person in people[1:]:
            total = total + self._basis_of(x, person)
        return total / len(people)


def _products(rows: Float, vector: Float) -> Float:
    """Products of rows with a vector, without BLAS, whose bits depend on its threads."""
    result: Float = np.einsum("mk,k->m", rows, vector)
    return result


def _repeated(person: Float, length: int) -> Float:
    """The covariates of one person, once for each value of the exposure."""
    return np.broadcast_to(person, (length, len(person)))
