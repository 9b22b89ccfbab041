"""The arguments of `read_omop_cohort`, checked."""

from __future__ import annotations

import datetime
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mrfast import _validation as check

__all__ = [
    "FAR",
    "SEX",
    "Question",
    "ages",
    "calendar",
    "concept",
    "concepts",
    "concepts_or_share",
    "instruments",
    "lookback",
    "outcome",
    "person_table",
]

SEX = {"female": 8532, "male": 8507}  # standard concepts of PERSON.gender_concept_id
FAR = 1 << 24  # days; further than any date
_OLDEST = 200.0
_FIXED = ("person_id", "outcome")


@dataclass(frozen=True)
class Question:
    """The checked arguments of `read_omop_cohort`."""

    snps: tuple[str, ...]
    instrument_alleles: dict[str, tuple[str, str]]
    outcome_concepts: tuple[int, ...]
    outcome_cohort: int | None
    include_descendants: bool
    washout_days: int
    index_offset_days: int
    index_dates: tuple[int, int]
    age: tuple[float, float]
    sex: str | None
    control_index: str
    controls_per_case: float | None
    negative_controls: tuple[int, ...]
    negative_control_days: int
    conditions: tuple[int, ...] | float
    drugs: tuple[int, ...] | float
    measurements: tuple[int, ...]
    covariate_window: tuple[int, int]
    absent_is_reference: bool

    def settings(self, seed: object) -> dict[str, Any]:
        """The question as it may be printed and kept."""

        def date(day: int) -> str | None:
            return None if abs(day) == FAR else str(np.datetime64(day, "D"))

        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("snps", "instrument_alleles"):
            del kept[name]
        follow_up = self.negative_control_days
        return kept | {
            "index_dates": tuple(date(day) for day in self.index_dates),
            "negative_control_days": None if follow_up == FAR else follow_up,
            "seed": int(seed) if isinstance(seed, (int, np.integer)) else None,
        }


def instruments(given: Any) -> tuple[tuple[str, ...], dict[str, tuple[str, str]]]:
    """SNP identifiers, and the alleles of those whose alleles are known."""
    table = given if isinstance(given, pd.DataFrame) else getattr(given, "frame", given)
    alleles: dict[str, tuple[str, str]] = {}
    if isinstance(table, pd.DataFrame):
        name = next((name for name in ("snp", "snp_id") if name in table.columns), None)
        if name is None:
            raise check.fail("instruments", "a column snp", ", ".join(map(str, table.columns)))
        snps = list(table[name])
        if {"effect_allele", "other_allele"} <= set(table.columns):
            rows = zip(snps, table["effect_allele"], table["other_allele"], strict=True)
            alleles = {
                str(snp): (str(effect).upper(), str(other).upper())
                for snp, effect, other in rows
                if isinstance(effect, str) and isinstance(other, str)
            }
    elif isinstance(table, (str, bytes)) or not np.iterable(table):
        raise check.fail("instruments", "SNP identifiers or a table of them", repr(given))
    else:
        snps = list(table)
    for snp in snps:
        if not isinstance(snp, str) or snp != snp.strip() or not snp:
            raise check.fail("instruments", "identifiers as text without outer blanks", repr(snp))
        if snp in _FIXED or snp.startswith("nc_outcome_"):
            raise check.fail("instruments", "identifiers that name no other column", repr(snp))
    if not snps:
        raise check.fail("instruments", "at least one SNP", "none")
    return check.name_tuple("instruments", snps, length=len(snps)), alleles


def concept(argument: str, value: object) -> int:
    """Convert to a concept identifier."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise check.fail(argument, "whole numbers", repr(value)) from None
    return check.integer(argument, number, minimum=1, maximum=(1 << 31) - 1)


def concepts(argument: str, values: Any) -> tuple[int, ...]:
    """Convert to distinct concept identifiers."""
    if not np.iterable(values) or isinstance(values, (str, bytes)):
        values = (values,)
    result = tuple(concept(argument, value) for value in values)
    check.name_tuple(argument, result, length=len(result))
    return result


def concepts_or_share(argument: str, values: Any) -> tuple[int, ...] | float:
    """Convert to concept identifiers, or to a share of the people."""
    if isinstance(values, (float, np.floating)):
        return check.scalar(argument, values, above=0, below=1)
    if not np.iterable(values):
        raise check.fail(argument, "concepts, or a share between 0 and 1", repr(values))
    return concepts(argument, values)


def _pair(argument: str, value: Any) -> tuple[Any, Any]:
    if isinstance(value, (str, bytes)) or not np.iterable(value) or len(list(value)) != 2:
        raise check.fail(argument, "two values", repr(value))
    first, second = value
    return first, second


def _date(argument: str, value: object) -> int:
    try:
        if isinstance(value, str):
            value = datetime.date.fromisoformat(value)
        if isinstance(value, datetime.date):
            return value.toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError:
        pass
    raise check.fail(argument, "dates as YYYY-MM-DD or None", repr(value))


def outcome(of_concepts: Any, of_cohort: Any) -> tuple[tuple[int, ...], int | None]:
    """Concepts or cohort of the outcome: one of the two."""
    if (of_concepts is None) == (of_cohort is None):
        expected = "either outcome_concepts or outcome_cohort"
        raise check.fail("outcome_concepts", expected, "neither" if of_cohort is None else "both")
    if of_cohort is not None:
        return (), concept("outcome_cohort", of_cohort)
    chosen = concepts("outcome_concepts", of_concepts)
    if not chosen:
        raise check.fail("outcome_concepts", "at least one concept", "none")
    return chosen, None


def lookback(window: Any) -> tuple[int, int]:
    """Check the covariates' window, which ends before the index."""
    first, last = (
        check.integer("covariate_window", day, minimum=-FAR, maximum=-1)
        for day in _pair("covariate_window", window)
    )
    if first > last:
        raise check.fail("covariate_window", "(first day, last day)", repr(window))
    return first, last


def ages(limits: Any) -> tuple[float, float]:
    """Check the limits of age in years."""
    low, high = (
        check.scalar("age", default if limit is None else limit, minimum=0, maximum=_OLDEST)
        for limit, default in zip(_pair("age", limits), (0.0, _OLDEST), strict=True)
    )
    if low > high:
        raise check.fail("age", "(lowest, highest)", repr(limits))
    return low, high


def calendar(limits: Any) -> tuple[int, int]:
    """Check the limits of the index; days since 1970."""
    low, high = (
        default if limit is None else _date("index_dates", limit)
        for limit, default in zip(_pair("index_dates", limits), (-FAR, FAR), strict=True)
    )
    if low > high:
        raise check.fail("index_dates", "(first, last)", repr(limits))
    return low, high


def person_table(table: Any) -> pd.DataFrame | None:
    """Check the table of further covariates."""
    if table is None:
        return None
    if not isinstance(table, pd.DataFrame) or "person_id" not in table.columns:
        raise check.fail(
            "person_covariates", "a DataFrame with the column person_id", type(table).__name__
        )
    if table["person_id"].isna().any() or table["person_id"].duplicated().any():
        raise check.fail("person_covariates", "one row per person", "a repeated or missing id")
    if not pd.api.types.is_integer_dtype(table["person_id"]):
        raise check.fail(
            "person_covariates", "whole numbers in person_id", str(table["person_id"].dtype)
        )
    return table
