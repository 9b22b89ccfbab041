"""Simulations that are put together from named parameters and variables."""

from __future__ import annotations

import copy
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.simulation._variates import Variates
from mrfast.simulation.simulated_variables import Variable
from mrfast.simulation.simulation_files import (
    Form,
    Progress,
    save_simulation,
    true_effect_content,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Parameters", "Simulation"]

Function = Callable[["Simulation"], Any]
Step = tuple[Literal["parameter", "variable"], str, Any]

_BLOCK = 2**14  # rows


class Parameters(Mapping[str, Any]):
    """Parameters of a simulation by name, in the order in which they were set.

    ``parameters["h2"] = 0.5`` sets a value; ``parameters["d"] = lambda sim: sim.rng.random(3)``
    one that is drawn again by `Simulation.resample`; a function may also have no argument. A
    name can be set once. Lists of numbers become arrays, which cannot be changed.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._values: dict[str, Any] = {}

    def __setitem__(self, name: str, value: object) -> None:
        self._simulation._add("parameter", name, value)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Parameters({self._values!r})"


class Simulation:
    """People with named variables, drawn from parameters and earlier variables in order.

    A variable's random numbers depend on the seed, the number of the draw, its own name and the
    row: another number of people, or further variables, leave them as they are.

    Parameters
    ----------
    n : int
        Number of people.
    rng : None, int, SeedSequence or Generator
        Source of randomness. A seed is kept as `seed`; anything else gives a fresh one.

    Attributes
    ----------
    n : int
    seed : int
        ``Simulation(n, rng=seed)`` draws the same.
    replicate : int
        Number of the draw: 0, then one more at each `resample`.
    parameters : Parameters

    Examples
    --------
    >>> from mrfast.simulation import Normal, Simulation, Variants
    >>> sim = Simulation(1000, rng=1)
    >>> sim.parameters["effects"] = lambda sim: sim.rng.uniform(0.1, 0.2, 20)
    >>> sim.add_variables([Variants("g", [0.3] * 20), Normal("u")])
    >>> @sim.variable
    ... def x(sim):
    ...     return sim.weighted_sum("g", sim.parameters["effects"]) + sim["u"]
    >>> sim["g"].shape, sim["x"].shape
    ((1000, 20), (1000,))
    """

    def __init__(self, n: int, *, rng: object = None) -> None:
        self.n = check.integer("n", n, minimum=1, maximum=2**32 - 1)
        if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
            _runtime.generator(rng)  # its check
            self.seed = int(rng)
        else:
            self.seed = int(_runtime.generator(rng).integers(2**63))
        self.replicate = 0
        self.parameters = Parameters(self)
        self._steps: list[Step] = []
        self._data: dict[str, NDArray[Any]] = {}
        self._columns: dict[str, tuple[str, int]] = {}
        self._making: tuple[str, np.random.Generator] | None = None
        self._true_effect: Callable[[Any], Any] | None = None

    def __repr__(self) -> str:
        names = check.listed(self.names) or "none"
        return f"Simulation(n={self.n}, seed={self.seed}, variables: {names})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables in order."""
        return tuple(self._data)

    @property
    def rng(self) -> np.random.Generator:
        """Generator of the parameter or variable whose function runs.

        Raises
        ------
        InvalidInputError
            Outside of such a function: what is drawn there could not be drawn again.
        """
        if self._making is None:
            raise check.fail("rng", "use inside a parameter's or variable's function", "elsewhere")
        return self._making[1]

    @property
    def true_effect(self) -> Callable[[ArrayLike], Float]:
        """E[Y | do(X = x)] as a function of arrays of x, which the user attaches.

        Raises
        ------
        InvalidInputError
            None was attached, or what is attached is not callable.
        """
        if self._true_effect is None:
            raise check.fail("true_effect", "a function that was attached before", "none")
        function = self._true_effect

        def effect(x: ArrayLike) -> Float:
            points = np.asarray(x, dtype=np.float64)
            values = np.asarray(function(points), dtype=np.float64)
            if values.shape not in (points.shape, ()):
                raise check.fail("true_effect", f"shape {points.shape}", f"shape {values.shape}")
            return np.array(np.broadcast_to(values, points.shape))

        return effect

    @true_effect.setter
    def true_effect(self, function: Callable[[Any], Any]) -> None:
        if not callable(function):
            raise check.fail("true_effect", "a function of x", type(function).__name__)
        self._true_effect = function

    def add_variable(self, variable: Variable | str, values: object = None) -> None:
        """Add a variable and draw it.

        Parameters
        ----------
        variable : Variable or str
            A random variable, or the name of one that `values` gives.
        values : float, array_like or callable, optional
            A constant, n numbers or rows, or a function, of the simulation or of nothing, that
            returns these.

        Raises
        ------
        InvalidInputError
            The name is taken, or the values are not n finite numbers or rows of them.
        """
        if not isinstance(variable, (Variable, str)):
            raise check.fail("variable", "a random variable or a name", repr(variable))
        if isinstance(variable, Variable):
            if values is not None:
                raise check.fail("values", "none beside a variable of its own law", "some")
            self._add("variable", variable.name, variable)
        elif values is None:
            raise check.fail("values", "a constant, an array or a function", "none")
        else:
            self._add("variable", variable, values)

    def add_variables(self, variables: Iterable[Variable]) -> None:
        """Add several variables in order.

        Parameters
        ----------
        variables : iterable of Variable
        """
        try:
            iter(variables)
        except TypeError as error:
            raise check.fail("variables", "several random variables", repr(variables)) from error
        for variable in variables:
            self.add_variable(variable)

    @overload
    def variable(self, function: Function) -> Function: ...
    @overload
    def variable(self, function: str) -> Callable[[Function], Function]: ...
    def variable(self, function: Function | str) -> Any:
        """Decorate a function of the simulation: it becomes a variable of its name.

        ``@sim.variable`` takes the function's name, ``@sim.variable("x")`` another one.
        """
        if isinstance(function, str):
            name = function

            def decorate(inner: Function) -> Function:
                self._add("variable", name, inner)
                return inner

            return decorate
        self._add("variable", function.__name__, function)
        return function

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Values of a variable, shape (n,) or (n, columns), or of one column; read-only."""
        if name in self._data:
            return self._data[name]
        if name in self._columns:
            variable, j = self._columns[name]
            return self._data[variable][:, j]
        later = any(kind == "variable" and step == name for kind, step, _ in self._steps)
        received = f"{name!r}, which comes later" if later else repr(name)
        raise check.fail("name", f"a variable among {check.listed(self.names) or 'none'}", received)

    def __contains__(self, name: object) -> bool:
        return name in self._data or name in self._columns

    def weighted_sum(self, names: str | Sequence[str], weights: ArrayLike) -> Float:
        """Sum of variables, each with its weight, without a matrix of floats.

        Parameters
        ----------
        names : str or sequence of str
            A variable with columns, such as `Variants`, or several variables or columns.
        weights : array_like, shape (columns,)

        Returns
        -------
        ndarray, shape (n,)
        """
        from mrfast import _core

        if isinstance(names, str):
            values = self[names]
            if values.ndim != 2:
                raise check.fail("names", "a variable with columns", repr(names))
            columns = list(values.T)
        else:
            values = None
            columns = [self[name] for name in names]
            if any(column.ndim != 1 for column in columns):
                raise check.fail("names", "variables without columns, or one with", "others")
        each = check.float_array("weights", weights, ndim=1, shape=(len(columns),))
        if values is not None and values.dtype == np.int8:
            return _core.simulation.weighted_sum(values, each)
        total, part = np.zeros(self.n), np.empty(self.n)
        for weight, column in zip(each, columns, strict=True):
            np.multiply(column, weight, out=part)
            total += part
        return total

    def elementwise(self, function: Callable[..., Any], *names: str) -> Float:
        """Apply a function to the same rows of variables, in blocks that stay in the cache.

        Parameters
        ----------
        function : callable
            From a part of each variable to an array of its rows; what it gives for a row may
            depend on that row alone.
        *names : str

        Returns
        -------
        ndarray, shape (n,)
        """
        values = [self[name] for name in names]
        out = np.empty(self.n)
        for start in range(0, self.n, _BLOCK):
            part = slice(start, min(start + _BLOCK, self.n))
            found = np.asarray(function(*(each[part] for each in values)))
            if found.shape not in (out[part].shape, ()):
                raise check.fail(
                    "function", f"values of shape {out[part].shape}", f"shape {found.shape}"
                )
            out[part] = found
        return out

    def resample(self, replicate: int | None = None) -> Simulation:
        """Draw every parameter and variable again, in the order in which they were added.

        Parameters
        ----------
        replicate : int, optional
            Number of the draw, by default the next one: draw 7 is the same whether the six
            before it were made or not.

        Returns
        -------
        Simulation
            Itself. If a function fails, it is as before.
        """
        before = self.replicate, self._data, self._columns, self.parameters._values
        self.replicate = (
            self.replicate + 1
            if replicate is None
            else check.integer("replicate", replicate, minimum=0)
        )
        self._data, self._columns, self.parameters._values = {}, {}, {}
        try:
            for kind, name, value in self._steps:
                self._make(kind, name, value)
        except BaseException:
            self.replicate, self._data, self._columns, self.parameters._values = before
            raise
        return self

    def to_frame(self) -> pd.DataFrame:
        """Table of the people, a column for each variable or each of its columns."""
        import pandas as pd

        columns: dict[str, NDArray[Any]] = {}
        for name, values in self._data.items():
            if values.ndim == 1:
                columns[name] = values
            else:
                columns |= {each: values[:, j] for j, each in enumerate(_names(name, values))}
        return pd.DataFrame(columns)

    def save(
        self,
        prefix: str | os.PathLike[str],
        *,
        form: Form = "csv.gz",
        exposure: str | None = None,
        progress: Progress = False,
    ) -> tuple[Path, Path]:
        """Write the people, and the parameters with the seed.

        Parameters
        ----------
        prefix : path-like
            The files are ``<prefix>_sim_data.csv.gz`` or ``.parquet``, and
            ``<prefix>_sim_parameters.json``.
        form : {"csv.gz", "parquet"}
        exposure : str, optional
            Variable over whose range the true effect is written as a table.
        progress : bool or callable
            True writes to standard error how far a text is; a callable takes the people done
            and all.

        Returns
        -------
        data, parameters : Path
        """
        content: dict[str, Any] = {
            "seed": self.seed,
            "replicate": self.replicate,
            "n": self.n,
            "parameters": dict(self.parameters),
            "variables": [
                {"name": name, **_described(value)}
                for kind, name, value in self._steps
                if kind == "variable"
            ],
        }
        if exposure is not None:
            text = getattr(self._true_effect, "text", None)
            content["true_effect"] = true_effect_content(text, self[exposure], self.true_effect)
        return save_simulation(self.to_frame(), content, prefix, form, progress)

    def _add(self, kind: Literal["parameter", "variable"], name: object, value: object) -> None:
        if not isinstance(name, str) or not name:
            raise check.fail("name", "a text that is not empty", repr(name))
        if self._making is not None:
            raise check.fail(kind, "no addition inside a function", f"{name!r}")
        if any(kind == other and name == step for other, step, _ in self._steps) or (
            kind == "variable" and name in self
        ):
            raise check.fail(kind, f"a name that no other {kind} has", repr(name))
        self._make(kind, name, value)
        self._steps.append((kind, name, value))

    def _make(self, kind: str, name: str, value: Any) -> None:
        place = f"{kind} {name}"
        self._making = place, self._variates().generator(place)
        try:
            if kind == "parameter":
                self.parameters._values[name] = _kept(_result(value, self))
                return
            if isinstance(value, Variable):
                values = value.draw(self, self._variates())
            else:
                values = self._shaped(name, _result(value, self), callable(value))
            _refuse_infinite(name, values)
        finally:
            self._making = None
        if values.ndim == 2:
            columns = {each: (name, j) for j, each in enumerate(_names(name, values))}
            taken = [each for each in columns if each in self]
            if taken:
                raise check.fail("variable", "names of columns that are free", repr(taken[0]))
            self._columns |= columns
        values.setflags(write=False)
        self._data[name] = values

    def _shaped(self, name: str, value: object, fresh: bool) -> NDArray[Any]:
        """Values as n numbers or rows of numbers; copied where others may hold them."""
        values = np.asarray(value)
        if values.dtype.kind not in "biuf":
            raise check.fail(name, "numbers", f"an array of {values.dtype}")
        if values.ndim == 0:
            values, fresh = np.full(self.n, values), True
        if values.ndim > 2 or values.shape[0] != self.n:
            raise check.fail(name, f"{self.n} numbers or rows", f"shape {values.shape}")
        if values.dtype == np.bool_:
            values, fresh = values.astype(np.int8), True
        mine = fresh and values.base is None and values.flags.writeable
        return values if mine else values.copy()

    def _variates(self) -> Variates:
        return Variates(self.seed, self.replicate, self.n)


def _names(name: str, values: NDArray[Any]) -> list[str]:
    return [f"{name}_{j + 1}" for j in range(values.shape[1])]


def _result(value: Any, simulation: Simulation) -> Any:
    """Value, or what a function of the simulation, or of nothing, returns."""
    if not callable(value):
        return value
    try:
        arguments = inspect.signature(value).parameters
    except (TypeError, ValueError):  # of some functions of C
        return value(simulation)
    return value(simulation) if arguments else value()


def _refuse_infinite(name: str, values: NDArray[Any]) -> None:
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        finite = math.isfinite(float(values.sum()))
    if not finite and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise check.fail(name, "finite numbers", f"{bad} that are not")


def _kept(value: Any) -> Any:
    """Parameter's value; arrays, and lists of numbers, are copied and frozen."""
    if not isinstance(value, (np.ndarray, list, tuple)):
        return value
    try:
        array = np.array(value)
    except ValueError:  # lists of unequal lengths
        return copy.deepcopy(value)
    if array.dtype.kind not in "biufc" and not isinstance(value, np.ndarray):
        return copy.deepcopy(value)
    array.setflags(write=False)
    return array


def _described(value: Any) -> dict[str, Any]:
    """What a variable was drawn from, for the file."""
    if isinstance(value, Variable):
        settings = {key: each for key, each in vars(value).items() if key != "name"}
        return {
            "law": type(value).__name__,
            **{key: "a function" if callable(each) else each for key, each in settings.items()},
        }
    if callable(value):
        return {"law": "function of the simulation"}
    values = np.asarray(value)
    return {"law": "constant", "value": values} if values.ndim == 0 else {"law": "given numbers"}
