"""Observation time, the days on which a person may enter, and the index dates of controls.

All days are whole numbers since 1970. Arrays are sorted by person, so that nothing here depends
on the order of rows in the database.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Periods", "birth_days", "birthdays", "draw_index", "first_days", "merge_periods"]

Days = NDArray[np.int64]
Array = NDArray[Any]

DAYS_PER_YEAR = 365.25
_SPAN = 1 << 32  # more than any number of days


class Periods(NamedTuple):
    """Stretches of time of people, by place in the sorted list of people; both ends belong."""

    person: Days
    first: Days
    last: Days

    def find(self, person: Days, day: Days) -> Days:
        """Row of the period that holds a person's day; -1 where none does."""
        row = np.searchsorted(self.person * _SPAN + self.first, person * _SPAN + day, "right") - 1
        inside = (row >= 0) & (self.person[row] == person) & (day <= self.last[row])
        return np.where(inside, row, -1)


def merge_periods(person: Days, first: Days, last: Days) -> Periods:
    """Join periods of a person that overlap or follow each other on the next day."""
    order = np.lexsort((last, first, person))
    person, first, last = person[order], first[order], last[order]
    if not person.size:
        return Periods(person, first, last)
    reach = np.maximum.accumulate(person * _SPAN + last) - person * _SPAN
    begins = np.ones(person.size, dtype=np.bool_)
    begins[1:] = (person[1:] != person[:-1]) | (first[1:] > reach[:-1] + 1)
    start = np.flatnonzero(begins)
    end = np.append(start[1:], person.size) - 1
    return Periods(person[start], first[start], reach[end])


def first_days(person: Days, day: Days, n_people: int, missing: int) -> Days:
    """Earliest day of each person, `missing` where there is none."""
    result = np.full(n_people, np.iinfo(np.int64).max)
    np.minimum.at(result, person, day)
    result[result == np.iinfo(np.int64).max] = missing
    return result


def birth_days(year: Days, month: Days, day: Days, missing: int) -> Days:
    """Day of birth; the middle of the month or year where the rest is not recorded."""
    known = year != missing
    with_month = known & (month >= 1) & (month <= 12)
    with_day = with_month & (day >= 1) & (day <= 31)
    years = np.where(known, year - 1970, 0).astype("datetime64[Y]")
    months = years.astype("datetime64[M]") + np.where(with_month, month - 1, 6)
    extra = np.where(with_day, day - 1, np.where(with_month, 14, 0))
    days = (months.astype("datetime64[D]") + extra).astype(np.int64)
    return np.where(known, days, missing)


def birthdays(birth: Days, age: float) -> Days:
    """Day on which people reach an age: a calendar birthday where the age is whole.

    Someone born on 29 February has the birthday of other years on 1 March.
    """
    years = int(age)
    born = birth.astype("datetime64[D]")
    month = born.astype("datetime64[M]")
    anniversary = (month + 12 * years).astype("datetime64[D]") + (born - month)
    rest = math.ceil((age - years) * DAYS_PER_YEAR)
    days: Days = anniversary.astype(np.int64) + rest
    return days


def draw_index(
    uniform: NDArray[np.float64],
    eligible: Periods,
    case_index: Days,
    at_risk: tuple[Days, Days],
) -> Days:
    """Draw an index for every control from the cases', within the control's eligible time.

    A case's index counts with one over the number of people at risk at that time, the increment
    of the Nelson-Aalen estimate of the cumulative hazard. Given when a person was eligible, the
    index of a control then has the distribution of that of a case to whom the outcome happens
    regardless of who they are. Counting all cases alike would favour the times in which most
    people were observed, once for the cases and once again for the controls.

    Parameters
    ----------
    uniform : ndarray, shape (n_people,)
        Uniform numbers, one for each person.
    eligible : Periods
        Eligible time of the controls, on the scale of `case_index`.
    case_index : ndarray
        Index of the cases: dates, or days since the beginning of observation.
    at_risk : tuple of ndarray
        First and last day of all eligible time, that of cases until their index.

    Returns
    -------
    ndarray, shape (2, n_people)
        The row of `eligible` that holds the index, and the index on that scale; -1 in the first
        where no case's index falls into the person's eligible time.
    """
    drawn = np.full((2, uniform.size), -1, dtype=np.int64)
    values = np.sort(case_index)
    began = np.searchsorted(np.sort(at_risk[0]), values, "right")
    ended = np.searchsorted(np.sort(at_risk[1]), values, "left")
    hazard = np.concatenate([[0.0], np.cumsum(1.0 / np.maximum(began - ended, 1))])
    left = np.searchsorted(values, eligible.first, "left")
    right = np.searchsorted(values, eligible.last, "right")
    rows = np.flatnonzero(right > left)
    if not rows.size:
        return drawn
    person, left, right = eligible.person[rows], left[rows], right[rows]
    mass = hazard[right] - hazard[left]
    until = np.cumsum(mass)
    people, start = np.unique(person, return_index=True)
    stop = np.append(start[1:], rows.size)
    before = np.where(start > 0, until[start - 1], 0.0)
    target = before + uniform[people] * (until[stop - 1] - before)
    chosen = np.clip(np.searchsorted(until, target, "right"), start, stop - 1)
    rest = target - np.where(chosen > 0, until[chosen - 1], 0.0)
    place = np.searchsorted(hazard, hazard[left[chosen]] + rest, "right") - 1
    drawn[0, people] = rows[chosen]
    drawn[1, people] = values[np.clip(place, left[chosen], right[chosen] - 1)]
    return drawn
