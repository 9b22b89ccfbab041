"""What the records of a window around the index say: histories, later outcomes, measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast.io.omop.index_dates import Days

__all__ = ["Window", "histories", "latest_values"]

Array = NDArray[Any]
_COMPACT = 4_000_000  # pairs of person and concept that are held before duplicates go


class Window(NamedTuple):
    """People of the cohort, sorted, and the first and last day that counts for each of them."""

    person: Days
    first: Days
    last: Days

    def rows(self, person: Days, first: Days, last: Days) -> tuple[Array, Days]:
        """Which events of the batch overlap the window, and the places of their people."""
        place = np.searchsorted(self.person, person)
        place[place == len(self.person)] = 0
        inside = (self.person[place] == person) & (first <= self.last[place])
        inside &= last >= self.first[place]
        return inside, place[inside]


def histories(
    batches: Iterator[tuple[Array, ...]],
    window: Window,
    concepts: Sequence[int] | None,
    prevalence: float = 0.0,
) -> tuple[list[int], NDArray[np.int8]]:
    """Whether a person has a record in the window: a column for each concept.

    Parameters
    ----------
    batches : iterator of (person, concept, first day, last day)
    window : Window
    concepts : sequence of int or None
        None takes every concept that at least the share `prevalence` of the people has.

    Returns
    -------
    list of int, ndarray of int8 with shape (n_people, number of concepts)
    """
    pairs = np.empty(0, dtype=np.int64)
    waiting: list[Array] = []
    size = 0
    for person, concept, first, last in batches:
        inside, place = window.rows(person, first, last)
        kinds = concept[inside]
        if kinds.size and (kinds.min() < 0 or kinds.max() >= 1 << 31):
            raise check.fail("database", "concept identifiers below 2^31", str(kinds.max()))
        waiting.append(np.unique(place << 31 | kinds))
        size += waiting[-1].size
        if size > _COMPACT:
            pairs, waiting, size = np.unique(np.concatenate([pairs, *waiting])), [], 0
    pairs = np.unique(np.concatenate([pairs, *waiting]))
    place, kinds = pairs >> 31, pairs & ((1 << 31) - 1)
    if concepts is None:
        found, count = np.unique(kinds, return_counts=True)
        columns = found[count >= prevalence * len(window.person)]
    else:
        columns = np.array(concepts, dtype=np.int64)
    order = np.argsort(columns)
    spot = np.searchsorted(columns[order], kinds)
    spot[spot == columns.size] = 0
    flags = np.zeros((len(window.person), columns.size), dtype=np.int8)
    if columns.size:
        hit = columns[order][spot] == kinds
        flags[place[hit], order[spot[hit]]] = 1
    return [int(concept) for concept in columns], flags


def latest_values(
    batches: Iterator[tuple[Array, ...]], window: Window, concepts: Sequence[int]
) -> tuple[NDArray[np.float64], Days]:
    """Latest value of each measurement in the window, in its most common unit.

    Several values of the same day, identical ones once, are averaged.

    Parameters
    ----------
    batches : iterator of (person, concept, day, value, unit)
    window : Window
    concepts : sequence of int

    Returns
    -------
    ndarray, shape (n_people, number of concepts)
        NaN where there is no value.
    ndarray of int
        Values in the window in another unit than the most common one, by concept.
    """
    kept: list[list[Array]] = []
    for person, concept, day, value, unit in batches:
        inside, place = window.rows(person, day, day)
        columns = [place, concept[inside], day[inside], value[inside], unit[inside]]
        finite = np.isfinite(columns[3])
        kept.append([column[finite] for column in columns])
    result = np.full((len(window.person), len(concepts)), np.nan)
    other_units = np.zeros(len(concepts), dtype=np.int64)
    if not kept:
        return result, other_units
    place, concept, day, value, unit = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    for j, wanted in enumerate(concepts):
        rows = np.flatnonzero(concept == wanted)
        if not rows.size:
            continue
        units, count = np.unique(unit[rows], return_counts=True)
        common = unit[rows] == units[np.argmax(count)]  # the smallest of equals
        other_units[j] = int((~common).sum())
        rows = rows[common]
        last = np.full(len(window.person), np.iinfo(np.int64).min)
        np.maximum.at(last, place[rows], day[rows])
        rows = rows[day[rows] == last[place[rows]]]
        order = np.lexsort((value[rows], place[rows]))
        who, values = place[rows][order], value[rows][order]
        distinct = np.append(True, (who[1:] != who[:-1]) | (values[1:] != values[:-1]))
        who, values = who[distinct], values[distinct]
        start = np.flatnonzero(np.append(True, who[1:] != who[:-1]))
        number = np.diff(np.append(start, who.size))
        result[who[start], j] = np.add.reduceat(values, start) / number
    return result, other_units
