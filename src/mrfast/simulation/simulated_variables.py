"""Random variables that a `Simulation` draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._validation import Float

if TYPE_CHECKING:
    from mrfast.simulation._variates import Variates
    from mrfast.simulation.composed import Simulation

__all__ = [
    "Beta",
    "Exponential",
    "MultivariateNormal",
    "Normal",
    "Uniform",
    "Variable",
    "Variant",
    "Variants",
]

Setting = ArrayLike | str | Callable[["Simulation"], Any]
"""Value, the name of a parameter of the simulation, or a function of the simulation."""


class Variable(ABC):
    """Random variable of a name.

    The arguments of a distribution are numbers, names of parameters of the simulation, or
    functions of the simulation; where it is said, an array or a function may give each of the n
    people an own number.
    """

    name: str

    @abstractmethod
    def draw(self, simulation: Simulation, variates: Variates) -> NDArray[Any]:
        """Draw the variable.

        Parameters
        ----------
        simulation : Simulation
            With the parameters and variables that were added before.
        variates : Variates
            Source of random numbers.

        Returns
        -------
        ndarray, shape (n,) or (n, columns)
        """


@dataclass(frozen=True)
class Variant(Variable):
    """Genetic variant in Hardy-Weinberg proportions: Binomial(2, frequency), as int8.

    Attributes
    ----------
    name : str
    frequency : float, str or callable
        Of the counted allele, from 0 to 1.
    """

    name: str
    frequency: Setting

    def draw(self, simulation: Simulation, variates: Variates) -> NDArray[np.int8]:  # noqa: D102
        frequency = _number(self, "frequency", simulation, minimum=0.0, maximum=1.0)
        return variates.dosages(self.name, np.array([frequency]))[:, 0]


@dataclass(frozen=True, eq=False)
class Variants(Variable):
    """Independent genetic variants side by side: one array of int8, shape (n, p).

    The columns are ``name_1``, ..., ``name_p``.

    Attributes
    ----------
    name : str
    frequencies : array_like, str or callable, shape (p,)
        Of the counted alleles, from 0 to 1.
    """

    name: str
    frequencies: Setting

    def draw(self, simulation: Simulation, variates: Variates) -> NDArray[np.int8]:  # noqa: D102
        where = f"{self.name}.frequencies"
        values = np.atleast_1d(_resolved(self.frequencies, simulation, where))
        frequencies = check.float_array(where, values, ndim=1)
        if not ((frequencies >= 0) & (frequencies <= 1)).all() or not frequencies.size:
            raise check.fail(where, "at least one number, all from 0 to 1", f"{values}")
        return variates.dosages(self.name, frequencies)


@dataclass(frozen=True, eq=False)
class Normal(Variable):
    """Normal variable.

    Attributes
    ----------
    name : str
    mean, sd : float, str, callable or array, shape () or (n,)
        Mean and standard deviation; the latter is not negative.
    """

    name: str
    mean: Setting = 0.0
    sd: Setting = 1.0

    def draw(self, simulation: Simulation, variates: Variates) -> Float:  # noqa: D102
        mean = _numbers(self, "mean", simulation)
        sd = _numbers(self, "sd", simulation, minimum=0.0)
        return _moved(variates.normals(self.name), mean, sd)


@dataclass(frozen=True, eq=False)
class Uniform(Variable):
    """Uniform variable on [low, high).

    Attributes
    ----------
    name : str
    low, high : float, str, callable or array, shape () or (n,)
    """

    name: str
    low: Setting = 0.0
    high: Setting = 1.0

    def draw(self, simulation: Simulation, variates: Variates) -> Float:  # noqa: D102
        low = _numbers(self, "low", simulation)
        with np.errstate(over="ignore"):
            width = _numbers(self, "high", simulation) - low
        if np.any(width <= 0):
            raise check.fail(f"{self.name}.high", "numbers above low", "others")
        return _moved(variates.uniforms(self.name), low, width)


@dataclass(frozen=True)
class Beta(Variable):
    """Beta variable.

    Attributes
    ----------
    name : str
    a, b : float, str or callable
        Its two shapes, above 0.
    """

    name: str
    a: Setting
    b: Setting

    def draw(self, simulation: Simulation, variates: Variates) -> Float:  # noqa: D102
        a = _number(self, "a", simulation, above=0.0)
        b = _number(self, "b", simulation, above=0.0)
        return variates.betas(self.name, a, b)


@dataclass(frozen=True, eq=False)
class Exponential(Variable):
    """Exponential variable.

    Attributes
    ----------
    name : str
    scale : float, str, callable or array, shape () or (n,)
        Its mean, not negative.
    """

    name: str
    scale: Setting = 1.0

    def draw(self, simulation: Simulation, variates: Variates) -> Float:  # noqa: D102
        scale = _numbers(self, "scale", simulation, minimum=0.0)
        return _moved(variates.exponentials(self.name), np.zeros(()), scale)


@dataclass(frozen=True, eq=False)
class MultivariateNormal(Variable):
    """Normal vector; its columns are ``name_1``, ..., ``name_k``.

    Attributes
    ----------
    name : str
    mean : array_like, str or callable, shape (k,)
    covariance : array_like, str or callable, shape (k, k)
        Symmetric; directions without variance are allowed.
    """

    name: str
    mean: Setting
    covariance: Setting

    def draw(self, simulation: Simulation, variates: Variates) -> Float:  # noqa: D102
        mean = check.float_array(
            f"{self.name}.mean", _resolved(self.mean, simulation, f"{self.name}.mean"), ndim=1
        )
        if not mean.size:
            raise check.fail(f"{self.name}.mean", "at least one number", "none")
        where, k = f"{self.name}.covariance", len(mean)
        covariance = check.float_array(
            where, _resolved(self.covariance, simulation, where), ndim=2, shape=(k, k)
        )
        largest = float(np.abs(covariance).max(initial=0.0))
        if not np.allclose(covariance, covariance.T, rtol=1e-10, atol=1e-12 * largest):
            raise check.fail(where, "a symmetric matrix", "another")
        values, vectors = _runtime.symmetric_eigen((covariance + covariance.T) / 2)
        if values[0] < -1e-8 * largest:
            raise check.fail(where, "no negative variance in any direction", f"{values[0]:.3g}")
        root = vectors * np.sqrt(np.maximum(values, 0))
        out = np.empty((variates.n, k))
        out[:] = mean
        for j in range(k):
            noise = variates.normals(self.name, j)
            for i in range(k):
                out[:, i] += root[i, j] * noise
        return out


def _resolved(value: Setting, simulation: Simulation, where: str) -> Any:
    if isinstance(value, str):
        if value not in simulation.parameters:
            raise check.fail(where, "the name of a parameter that was set before", repr(value))
        return simulation.parameters[value]
    return value(simulation) if callable(value) else value


def _number(
    variable: Variable, argument: str, simulation: Simulation, **bounds: float | None
) -> float:
    where = f"{variable.name}.{argument}"
    return check.scalar(where, _resolved(getattr(variable, argument), simulation, where), **bounds)


def _numbers(
    variable: Variable, argument: str, simulation: Simulation, *, minimum: float | None = None
) -> Float:
    """One number, or one for each person."""
    where = f"{variable.name}.{argument}"
    given = _resolved(getattr(variable, argument), simulation, where)
    values = check.float_array(where, given, ndim=None).reshape(np.shape(given))
    if values.ndim and values.shape != (simulation.n,):
        raise check.fail(where, f"one number or {simulation.n} numbers", f"shape {values.shape}")
    if minimum is not None and np.any(values < minimum):
        raise check.fail(where, f"numbers of at least {minimum:g}", f"{values.min():g}")
    return values


def _moved(values: Float, shift: Float, scale: Float) -> Float:
    """Change location and scale in place."""
    with np.errstate(over="ignore", invalid="ignore"):  # told by the simulation
        if scale.ndim or scale != 1:
            values *= scale
        if shift.ndim or shift != 0:
            values += shift
    return values
