"""Where the runs of a sweep take their options from: lists, grids and random laws."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrfast import _validation as check
from mrfast._files import strict_json

__all__ = [
    "Grid",
    "ParameterSampler",
    "RandomUniform",
    "RandomUniformInt",
    "Values",
    "parameter_rows",
    "parameter_samplers",
    "sampler_from_json",
]

_LARGEST_GRID = 1_000_000  # values of one parameter, and combinations that are counted out
_LARGEST_SWEEP = 1_000_000  # runs


class ParameterSampler(ABC):
    """Law of one option over the runs of a sweep."""

    @property
    @abstractmethod
    def values(self) -> tuple[Any, ...] | None:
        """The values in order; None where they are drawn at random from a law."""

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> Any:
        """One value at random."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Description, as a sweep's file and its configuration have it."""


@dataclass(frozen=True)
class Values(ParameterSampler):
    """The values of a list; one alone is a literal.

    Parameters
    ----------
    items : sequence
        Numbers, texts, booleans, None, or sequences of these (the widths of a network's layers).

    Raises
    ------
    InvalidInputError
        There is none, one occurs twice, or one has no counterpart in JSON.
    """

    items: Sequence[Any]

    def __post_init__(self) -> None:
        if isinstance(self.items, (str, bytes)) or not np.iterable(self.items):
            raise check.fail("items", "a list of values", repr(self.items))
        items = tuple(_frozen(strict_json(item, "items")) for item in self.items)
        if not items:
            raise check.fail("items", "at least one value", "none")
        if len({_key(item) for item in items}) < len(items):
            raise check.fail("items", "distinct values", repr(list(items)))
        object.__setattr__(self, "items", items)

    @property
    def values(self) -> tuple[Any, ...]:
        """The values in order."""
        return tuple(self.items)

    def draw(self, generator: np.random.Generator) -> Any:
        """One of the values."""
        return self.items[int(generator.integers(len(self.items)))]

    def to_json(self) -> dict[str, Any]:
        """``{"sampler": "list", "values": …}``, or a literal's."""
        if len(self.items) == 1:
            return {"sampler": "literal", "value": strict_json(self.items[0])}
        return {"sampler": "list", "values": strict_json(list(self.items))}


@dataclass(frozen=True)
class Grid(ParameterSampler):
    """Equally spaced values, or equally spaced on the logarithmic scale.

    Parameters
    ----------
    start, stop : float
        Ends; both belong to the grid, `stop` where a step reaches it.
    n_values : int, optional
        Number of values; whole numbers where both ends and all values are.
    step : float, optional
        Distance of two values; instead of `n_values`. Whole numbers give whole numbers.
    log : bool, default False
        Geometric: each value is the one before times a constant. With `n_values`.

    Raises
    ------
    InvalidInputError
        Not exactly one of `n_values` and `step` is given, or they do not go with the ends.
    """

    start: float
    stop: float
    n_values: int | None = None
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        check.flag("log", self.log)
        start = check.scalar("start", self.start)
        stop = check.scalar("stop", self.stop)
        if stop < start:
            raise check.fail("stop", f"a number of at least start ({self.start})", repr(self.stop))
        if (self.n_values is None) == (self.step is None):
            raise check.fail("n_values", "either n_values or step", "both or neither")
        if self.log and (self.step is not None or start <= 0):
            raise check.fail("log", "n_values and a start above 0", f"start {self.start}")
        if self.n_values is not None:
            check.integer("n_values", self.n_values, minimum=1, maximum=_LARGEST_GRID)
        elif (stop - start) / check.scalar("step", self.step, above=0) >= _LARGEST_GRID:
            raise check.fail("step", f"at most {_LARGEST_GRID:,} values", repr(self.step))

    @property
    def values(self) -> tuple[float, ...]:
        """The values in order."""
        whole = (isinstance(v, (int, np.integer)) for v in (self.start, self.stop, self.step))
        if self.step is not None:
            if all(whole):
                return tuple(range(int(self.start), int(self.stop) + 1, int(self.step)))
            count = math.floor((self.stop - self.start) / self.step + 1e-9) + 1
            return tuple(float(self.start + i * self.step) for i in range(count))
        assert self.n_values is not None
        spaced = np.geomspace if self.log else np.linspace
        values = spaced(self.start, self.stop, int(self.n_values))
        nearest = np.round(values)
        ends = (isinstance(v, (int, np.integer)) for v in (self.start, self.stop))
        if all(ends) and np.allclose(values, nearest, rtol=1e-12, atol=1e-12):
            return tuple(map(int, nearest))
        return tuple(map(float, values))

    def draw(self, generator: np.random.Generator) -> Any:
        """One of the values."""
        values = self.values
        return values[int(generator.integers(len(values)))]

    def to_json(self) -> dict[str, Any]:
        """``{"sampler": "grid", …}``."""
        size = {"n_values": self.n_values} if self.step is None else {"step": self.step}
        ends = {"start": self.start, "stop": self.stop}
        return dict(strict_json({"sampler": "grid", **ends, **size, "log": self.log}))


@dataclass(frozen=True)
class RandomUniform(ParameterSampler):
    """Numbers from a uniform law, or from one whose logarithm is uniform.

    Parameters
    ----------
    low, high : float
        Ends of the law.
    log : bool, default False
        The logarithm is uniform; `low` must then be above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        check.flag("log", self.log)
        low = check.scalar("low", self.low, above=0 if self.log else None)
        check.scalar("high", self.high, above=low)

    @property
    def values(self) -> None:
        """None: any number between the ends."""

    def draw(self, generator: np.random.Generator) -> float:
        """One number."""
        if self.log:
            return float(np.exp(generator.uniform(np.log(self.low), np.log(self.high))))
        return float(generator.uniform(self.low, self.high))

    def to_json(self) -> dict[str, Any]:
        """``{"sampler": "random_uniform", …}``."""
        ends = {"low": self.low, "high": self.high, "log": self.log}
        return dict(strict_json({"sampler": "random_uniform", **ends}))


@dataclass(frozen=True)
class RandomUniformInt(ParameterSampler):
    """Whole numbers, each as probable as another.

    Parameters
    ----------
    low, high : int
        Smallest and largest number, both among them.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        limit = 2**53
        low = check.integer("low", self.low, minimum=-limit, maximum=limit)
        check.integer("high", self.high, minimum=low, maximum=limit)

    @property
    def values(self) -> None:
        """None: any whole number between the ends."""

    def draw(self, generator: np.random.Generator) -> int:
        """One number."""
        return int(generator.integers(int(self.low), int(self.high), endpoint=True))

    def to_json(self) -> dict[str, Any]:
        """``{"sampler": "random_uniform_int", …}``."""
        ends = {"low": self.low, "high": self.high}
        return dict(strict_json({"sampler": "random_uniform_int", **ends}))


def parameter_samplers(parameters: object) -> dict[str, ParameterSampler]:
    """Samplers by the names of options.

    Parameters
    ----------
    parameters : mapping
        A sampler, a list (`Values`), or one value for all runs. A tuple is one value.

    Raises
    ------
    InvalidInputError
        It is not such a mapping, or is empty.
    """
    if not isinstance(parameters, Mapping) or not parameters:
        raise check.fail("parameters", "a mapping of options to values or samplers", parameters)
    found: dict[str, ParameterSampler] = {}
    entries: Mapping[Any, Any] = parameters
    for name, value in entries.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise check.fail("parameters", "names of options", repr(name))
        if isinstance(value, ParameterSampler):
            found[name] = value
        elif isinstance(value, (list, np.ndarray)):
            found[name] = Values(list(value))
        else:
            found[name] = Values([value])
    return found


_SAMPLER_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # required, optional
    "grid": (("start", "stop"), ("n_values", "step", "log")),
    "list": (("values",), ()),
    "literal": (("value",), ()),
    "random_uniform": (("low", "high"), ("log",)),
    "random_uniform_int": (("low", "high"), ()),
}


def sampler_from_json(description: Mapping[str, Any], argument: str) -> ParameterSampler:
    """Make the sampler of a description such as ``{"sampler": "grid", "start": 0, …}``.

    Parameters
    ----------
    description : mapping
        ``sampler`` is one of grid, list, literal, random_uniform and random_uniform_int; the
        other entries are its arguments.
    argument : str
        What messages call it.

    Raises
    ------
    InvalidInputError
        The sampler is not known, or an entry is missing, not known or not valid.
    """
    kind = check.choice(f"{argument}.sampler", description.get("sampler"), tuple(_SAMPLER_KEYS))
    required, optional = _SAMPLER_KEYS[kind]
    given = {key: value for key, value in description.items() if key != "sampler"}
    lacking = [key for key in required if key not in given]
    unknown = [key for key in given if key not in (*required, *optional)]
    if lacking or unknown:
        raise check.fail(
            argument,
            f"the entries {', '.join((*required, *optional))} of a {kind} sampler",
            f"none named {lacking[0]}" if lacking else f"one named {unknown[0]!r}",
        )
    if kind == "literal":
        return Values([given["value"]])
    if kind == "list":
        return Values(given["values"])
    law: dict[str, type[ParameterSampler]] = {
        "grid": Grid,
        "random_uniform": RandomUniform,
        "random_uniform_int": RandomUniformInt,
    }
    return law[kind](**given)


def parameter_rows(
    samplers: Mapping[str, ParameterSampler], method: str, n_runs: int | None, seed: int
) -> list[dict[str, Any]]:
    """Options of every run.

    A grid is the Cartesian product, the last option varying fastest; `n_runs` below its size takes
    a random part of it without replacement. In a random sweep every run has draws of its own, so
    that more runs continue the same sequence; options with a finite number of values go through
    all of them in random order before one comes back.

    Parameters
    ----------
    samplers : mapping
    method : {"grid", "random"}
    n_runs : int or None
        None takes the whole grid.
    seed : int

    Returns
    -------
    list of dict

    Raises
    ------
    InvalidInputError
        A grid has a random option or is too large, or a random sweep does not say its size.
    """
    values = {name: sampler.values for name, sampler in samplers.items()}
    if method == "grid":
        drawn = [name for name, entry in values.items() if entry is None]
        if drawn:
            raise check.fail(
                "method", "'random', since an option has a random law", f"'grid' ({drawn[0]})"
            )
        sizes = [len(entry or ()) for entry in values.values()]
        total = math.prod(sizes)
        largest = _LARGEST_SWEEP if n_runs is None else 2**62
        if total > largest:
            raise check.fail("parameters", f"at most {largest:,} combinations", f"{total:,}")
        if n_runs is None or n_runs >= total:
            places: Iterable[tuple[int, ...]] = itertools.product(*map(range, sizes))
        else:
            generator = np.random.default_rng([seed, 0])
            flat = sorted(_distinct_integers(generator, total, n_runs))
            places = (_unravelled(index, sizes) for index in flat)
        return [
            {name: (entry or ())[i] for (name, entry), i in zip(values.items(), place, strict=True)}
            for place in places
        ]
    if n_runs is None:
        raise check.fail("n_runs", "the number of runs of a random sweep", "None")
    columns = {
        name: _column(sampler, n_runs, [seed, 1, *name.encode()])
        for name, sampler in samplers.items()
    }
    return [{name: column[i] for name, column in columns.items()} for i in range(n_runs)]


def _column(sampler: ParameterSampler, n_runs: int, seed: list[int]) -> list[Any]:
    """Values of one option over the runs; the first are the same for any number of them."""
    generator = np.random.default_rng(seed)
    values = sampler.values
    if values is None:
        return [sampler.draw(generator) for _ in range(n_runs)]
    column: list[Any] = []
    while len(column) < n_runs:
        column += [values[i] for i in generator.permutation(len(values))]
    return column[:n_runs]


def _distinct_integers(generator: np.random.Generator, below: int, count: int) -> set[int]:
    """So many different integers from 0 on, each set of them as probable as another."""
    chosen: set[int] = set()  # Floyd's algorithm
    for top in range(below - count, below):
        number = int(generator.integers(top + 1))
        chosen.add(top if number in chosen else number)
    return chosen


def _unravelled(index: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Place in the product of ranges."""
    place = []
    for size in reversed(sizes):
        index, remainder = divmod(index, size)
        place.append(remainder)
    return tuple(reversed(place))


def _frozen(value: Any) -> Any:
    """Lists as tuples, which an estimator may keep."""
    if isinstance(value, dict):
        expected = "numbers, texts, booleans, None or sequences of these"
        raise check.fail("items", expected, repr(value)[:80])
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _key(value: Any) -> Any:
    """Distinguishes 1 from True."""
    if isinstance(value, tuple):
        return tuple(map(_key, value))
    return (isinstance(value, bool), value)
