"""Data sets as methods take them: four arrays, or a table that holds one or several pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.harmonisation import Harmonised
from mrfast.errors import InvalidInputError
from mrfast.summary._inputs import Associations, associations

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = ("beta_exposure", "se_exposure", "beta_outcome", "se_outcome")
TRAITS = ("exposure", "outcome")


class DataSet(NamedTuple):
    """One exposure and one outcome.

    `labels` names them where the table does; `arrays` are in the order of `ARRAYS`, None where
    absent; `table` holds the kept rows, None where arrays were given.
    """

    labels: dict[str, str]
    arrays: tuple[Any, ...]
    table: pd.DataFrame | None

    def checked(self, minimum: int, *, nonzero: bool = False) -> Associations:
        """The arrays, checked; an error names the pair."""
        try:
            return associations(
                *self.arrays, minimum=minimum, needs_se_exposure=False, nonzero=nonzero
            )
        except InvalidInputError as error:
            if not self.labels:
                raise
            raise InvalidInputError(f"{', '.join(self.labels.values())}: {error}") from error

    def arguments(self, data: Associations) -> dict[str, Any]:
        """Arguments of a method, by name."""
        found: dict[str, Any] = dict(zip(ARRAYS, data, strict=True))
        if self.arrays[1] is None:
            found["se_exposure"] = None
        return found

    def snp_names(self, snps: Sequence[object] | None, n: int) -> tuple[str, ...]:
        """Identifiers of the SNPs: as given, those of the table, or their positions."""
        if snps is not None:
            names = () if isinstance(snps, str) or not np.iterable(snps) else tuple(snps)
            if len(names) != n:
                raise check.fail("snps", f"{n} names", repr(snps)[:80])
            return tuple(map(str, names))
        if self.table is not None and "snp" in self.table:
            return tuple(str(name) for name in self.table["snp"])
        return tuple(str(i) for i in range(n))

    def smallest_sample(self) -> int | None:
        """Smallest sample size of the table's columns n_exposure and n_outcome, if any."""
        sizes = [self.column(name) for name in ("n_exposure", "n_outcome")]
        return min((round(float(np.nanmin(n))) for n in sizes if n is not None), default=None)

    def column(self, name: str) -> Any:
        """A column of the table as float64; None where there is none, or no value in it."""
        if self.table is None or name not in self.table:
            return None
        values = _numbers(self.table, name)
        return None if np.isnan(values).all() else values


def data_sets(data: Any, arrays: tuple[Any, ...]) -> list[DataSet]:
    """The pairs of traits of a table, or the one data set of four arrays.

    Raises
    ------
    InvalidInputError
        Neither a table nor arrays, both, a column that is missing, or no row that is kept.
    """
    if data is None:
        if any(arrays[i] is None for i in (0, 2, 3)):
            raise check.fail("data", "a table, or the four arrays", "neither")
        return [DataSet({}, arrays, None)]
    if any(array is not None for array in arrays):
        raise check.fail("data", "a table or the four arrays", "both")
    table = _kept(data)
    traits = [name for name in TRAITS if name in table]
    if not traits:
        return [DataSet({}, _arrays(table), table)]
    groups = table.groupby(traits, sort=False, observed=True, dropna=False)
    return [
        DataSet(dict(zip(traits, map(str, key), strict=True)), _arrays(part), part)
        for key, part in groups
    ]


def one_data_set(
    data: Any, arrays: tuple[Any, ...], exposure: str | None = None, outcome: str | None = None
) -> DataSet:
    """The only data set, or the one of the traits named.

    Raises
    ------
    InvalidInputError
        As `data_sets`; no data set or several of these traits.
    """
    sets = data_sets(data, arrays)
    for trait, name in zip(TRAITS, (exposure, outcome), strict=True):
        if name is not None:
            known = dict.fromkeys(entry.labels.get(trait, "") for entry in sets)
            sets = [entry for entry in sets if entry.labels.get(trait) == str(name)]
            if not sets:
                raise check.fail(trait, f"one of {check.listed(known)}", repr(name))
    if len(sets) > 1:
        pairs = [" on ".join(entry.labels.values()) for entry in sets]
        raise check.fail(
            "data", "one exposure and one outcome (choose by exposure= and outcome=)",
            f"{len(sets)} pairs: {check.listed(pairs)}",
        )  # fmt: skip
    return sets[0]


def _kept(data: Any) -> pd.DataFrame:
    """Rows to be used."""
    import pandas as pd

    if isinstance(data, Harmonised):
        table = data.kept
    elif isinstance(data, pd.DataFrame):
        table = data
        if "keep" in table:
            table = table[_flags(table["keep"])]
    else:
        raise check.fail("data", "a Harmonised or a DataFrame", type(data).__name__)
    needed = [name for name in ARRAYS if name not in table and name != "se_exposure"]
    if needed:
        raise check.fail("data", f"a column {needed[0]}", f"columns {', '.join(map(str, table))}")
    if not len(table):
        raise check.fail("data", "at least one row that is kept", "none")
    return table


def _arrays(part: pd.DataFrame) -> tuple[Any, ...]:
    return tuple(_numbers(part, name) if name in part else None for name in ARRAYS)


def _numbers(table: pd.DataFrame, name: str) -> Float:
    """A column as float64, NaN where a value is missing."""
    try:
        return np.asarray(table[name].to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise check.fail("data", f"numbers in the column {name}", str(error)) from error


def _flags(column: pd.Series[Any]) -> NDArray[np.bool_]:
    """The column ``keep``; texts and missing values are refused, not taken for True."""
    flags = column.to_numpy(dtype=object)
    bad = [value for value in flags if value not in (True, False)]
    if bad:
        raise check.fail("data", "True or False in the column keep", repr(bad[0]))
    return flags.astype(bool)
