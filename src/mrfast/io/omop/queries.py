"""Reading an OMOP database: SELECT statements only, built by SQLAlchemy, streamed in batches.

Statements are expressions with bound parameters, so that they are written in the dialect of the
database and no value becomes SQL. Dates and numbers are turned into arrays here, and every
comparison of dates is made outside the database: the result does not depend on its dialect.
"""

from __future__ import annotations

import datetime
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mrfast import _validation as check
from mrfast.errors import InvalidInputError, MissingExtraError

__all__ = ["CdmReader", "connected"]

Array = NDArray[Any]
T = TypeVar("T")

MISSING = int(np.iinfo(np.int64).min)  # a missing whole number or date
_BEYOND = 1 << 63  # what 64 bits do not hold
BATCH = 50_000  # rows that are held at a time
CHUNK = 500  # values of one IN list; SQLite's oldest limit on parameters is 999

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_EPOCH = datetime.date(1970, 1, 1).toordinal()

# Name and type of the columns of OMOP CDM 5.4 that are read, by table.
_ID, _TEXT, _ANY = sa.BigInteger(), sa.String(), sa.types.NullType()
_COLUMNS: dict[str, dict[str, sa.types.TypeEngine[Any]]] = {
    "person": {
        "person_id": _ID,
        "gender_concept_id": _ID,
        "year_of_birth": _ID,
        "month_of_birth": _ID,
        "day_of_birth": _ID,
    },
    "observation_period": {
        "person_id": _ID,
        "observation_period_start_date": _ANY,
        "observation_period_end_date": _ANY,
    },
    "condition_occurrence": {
        "person_id": _ID,
        "condition_concept_id": _ID,
        "condition_start_date": _ANY,
    },
    "drug_exposure": {
        "person_id": _ID,
        "drug_concept_id": _ID,
        "drug_exposure_start_date": _ANY,
        "drug_exposure_end_date": _ANY,
    },
    "measurement": {
        "person_id": _ID,
        "measurement_concept_id": _ID,
        "measurement_date": _ANY,
        "value_as_number": _ANY,
        "unit_concept_id": _ID,
    },
    "cohort": {"cohort_definition_id": _ID, "subject_id": _ID, "cohort_start_date": _ANY},
    "concept": {"concept_id": _ID, "concept_name": _ANY},
    "concept_ancestor": {"ancestor_concept_id": _ID, "descendant_concept_id": _ID},
    "variant_occurrence": {
        "person_id": _ID,
        "snp": _TEXT,
        "genotype": _ANY,
        "reference_allele": _ANY,
        "alternate_allele": _ANY,
        "genetic_origin": _ANY,
    },
    "specimen": {"specimen_id": _ID, "person_id": _ID},
    "procedure_occurrence": {"procedure_occurrence_id": _ID, "person_id": _ID},
}
_OPTIONAL = {"month_of_birth", "day_of_birth", "drug_exposure_end_date", "genetic_origin"}
# How the genomic extension finds the person of a genotype where the table has no person_id.
_LINKS = {"specimen_id": "specimen", "procedure_occurrence_id": "procedure_occurrence"}
TABLES = tuple(_COLUMNS)
GENOTYPE_COLUMNS = tuple(_COLUMNS["variant_occurrence"])

# Concept, start and end of the events of a domain.
_EVENTS = {
    "condition": (
        "condition_occurrence",
        "condition_concept_id",
        "condition_start_date",
        "condition_start_date",
    ),
    "drug": (
        "drug_exposure",
        "drug_concept_id",
        "drug_exposure_start_date",
        "drug_exposure_end_date",
    ),
}


# --------------------------------------------------------------------------- connections


@contextmanager
def connected(database: object) -> Iterator[sa.Connection]:
    """Connection to a database that is only read.

    Parameters
    ----------
    database : sqlalchemy.Engine, sqlalchemy.Connection, sqlalchemy.URL, str or Path
        A string with "://" is a URL, any other one the path of an SQLite file (DuckDB where it
        ends in .duckdb or .ddb).

    Raises
    ------
    InvalidInputError
        The database cannot be opened or refuses a query. No message contains a password.
    MissingExtraError
        The driver of the URL's dialect is not installed.
    """
    secrets: list[str] = []
    engine: sa.Engine | None = None
    try:
        if isinstance(database, sa.Connection):
            begun = database.in_transaction()
            try:
                yield database
            finally:
                if not begun:
                    database.rollback()
            return
        if isinstance(database, sa.Engine):
            source = database
            secrets = _secrets(database.url)
        else:
            source = engine = _engine(database, secrets)
        with source.connect() as connection:
            if source.dialect.name == "postgresql":  # one snapshot for all queries
                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            yield connection
    except SQLAlchemyError as error:
        raise _unreadable(error, secrets) from None
    finally:
        if engine is not None:
            engine.dispose()


def _secrets(url: sa.URL) -> list[str]:
    """Everything in a URL that no message may contain."""
    found = [url.password] if url.password else []
    for key, value in url.query.items():
        if re.search("pass|pwd|secret|token|key", key, re.IGNORECASE):
            found += [value] if isinstance(value, str) else list(value)
    return [str(secret) for secret in found if secret]


def _unreadable(error: SQLAlchemyError, secrets: Sequence[str]) -> InvalidInputError:
    text = str(error.orig if isinstance(error, DBAPIError) and error.orig else error)
    text = " ".join(text.split())
    for secret in secrets:
        for form in {secret, quote(secret, safe="")}:
            text = text.replace(form, "***")
    return check.fail("database", "a database that can be read", f"the error {text!r}")


def _engine(database: object, secrets: list[str]) -> sa.Engine:
    if isinstance(database, str) and "://" in database:
        try:
            database = sa.make_url(database)
        except (ArgumentError, ValueError):
            expected = "a URL such as 'postgresql+psycopg://user@host/name'"
            raise check.fail("database", expected, "one that cannot be read") from None
    if isinstance(database, sa.URL):
        secrets += _secrets(database)
        path = database.database or ""
        if database.get_backend_name() == "sqlite" and path and path[:5] not in ("file:", ":memo"):
            database = Path(path)
    if isinstance(database, (str, os.PathLike)):
        return _file_engine(Path(database))
    if not isinstance(database, sa.URL):
        expected = "a SQLAlchemy engine, connection or URL, or the path of an SQLite file"
        raise check.fail("database", expected, type(database).__name__)
    try:
        return sa.create_engine(database, poolclass=NullPool, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{database.drivername} needs {error.name}, which is not installed: "
            f"pip install {error.name} (mrfast[omop] brings SQLAlchemy and SQLite only)"
        ) from None
    except NoSuchModuleError:
        raise check.fail(
            "database", "a dialect that SQLAlchemy knows", repr(database.drivername)
        ) from None


def _file_engine(path: Path) -> sa.Engine:
    """Engine for a database file, opened for reading only."""
    if not path.is_file():
        raise check.fail("database", "the path of an existing file", str(path))
    if path.suffix in (".duckdb", ".ddb"):
        url = sa.URL.create("duckdb", database=str(path))
        try:
            return sa.create_engine(url, poolclass=NullPool, connect_args={"read_only": True})
        except (ModuleNotFoundError, NoSuchModuleError):
            raise MissingExtraError(
                "reading a DuckDB file needs duckdb-engine, which is not installed: "
                "pip install duckdb-engine (mrfast[omop] brings SQLAlchemy and SQLite only)"
            ) from None
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    return sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool
    )


# -------------------------------------------------------------------------------- reading


class CdmReader:
    """Streams of columns out of the tables of a CDM.

    Parameters
    ----------
    connection : sqlalchemy.Connection
    schema : str or None
        Schema of all tables for which `tables` names none.
    tables : mapping
        Own names of tables by their names in the CDM, "table" or "schema.table".
    genotype_columns : mapping
        Own names of the columns of VARIANT_OCCURRENCE, by the names in `GENOTYPE_COLUMNS`.
    """

    def __init__(
        self,
        connection: sa.Connection,
        schema: str | None,
        tables: Mapping[str, str] | None,
        genotype_columns: Mapping[str, str] | None,
    ) -> None:
        self._connection = connection
        self._schema = None if schema is None else _names("schema", schema, 2)
        self._places = _renamed("tables", tables, TABLES, parts=3)
        self._genotype_columns = {"snp": "rs_id"} | _renamed(
            "genotype_columns", genotype_columns, GENOTYPE_COLUMNS, parts=1
        )
        self._known: dict[str, sa.TableClause] = {}

    # Tables ------------------------------------------------------------------------------

    def _place(self, name: str) -> tuple[str | None, str]:
        schema, _, table = self._places.get(name, name).rpartition(".")
        return schema or self._schema, table

    def has_table(self, name: str) -> bool:
        """Whether the database has a table or view of this name of the CDM."""
        schema, table = self._place(name)
        return sa.inspect(self._connection).has_table(table, schema=schema)

    def _table(self, name: str) -> sa.TableClause:
        """Table with the columns that are read, under their names in the CDM (``.key``)."""
        if name in self._known:
            return self._known[name]
        schema, table = self._place(name)
        where = table if schema is None else f"{schema}.{table}"
        if not self.has_table(name):
            raise check.fail("database", f"the table {name.upper()}", f"no table or view {where!r}")
        everything: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(
            sa.table(table, schema=schema)
        )
        with self._connection.execute(everything.where(sa.false())) as result:
            present = {str(column).casefold(): str(column) for column in result.keys()}  # noqa: SIM118
        wanted = {column: column for column in _COLUMNS[name]}
        optional = set(_OPTIONAL)
        if name == "variant_occurrence":
            wanted |= {link: link for link in _LINKS} | self._genotype_columns
            optional |= {"person_id", *_LINKS} - self._genotype_columns.keys()
        columns: list[sa.ColumnClause[Any]] = []
        for key, own in wanted.items():
            actual = present.get(own.casefold())
            if actual is not None:
                column = sa.column(actual, _COLUMNS[name].get(key, _ID))
                column.key = key
                columns.append(column)
            elif key not in optional:
                expected = f"the column {own} of {name.upper()}"
                raise check.fail("database", expected, f"{where} without it")
        self._known[name] = sa.table(table, *columns, schema=schema)
        return self._known[name]

    # Streams -----------------------------------------------------------------------------

    def _stream(self, statement: sa.Select[Any], *kinds: str) -> Iterator[tuple[Array, ...]]:
        """Columns of the rows, batch by batch; kinds: whole, day, number, text."""
        names = [str(column.key) for column in statement.selected_columns]
        result = self._connection.execute(statement, execution_options={"yield_per": BATCH})
        with result:
            for rows in result.partitions():
                values = zip(*rows, strict=True)
                yield tuple(
                    _ARRAYS[kind](name, column)
                    for kind, name, column in zip(kinds, names, values, strict=True)
                )

    def _all(self, statement: sa.Select[Any], *kinds: str) -> tuple[Array, ...]:
        """Columns of all rows."""
        batches = list(self._stream(statement, *kinds))
        empty = [_ARRAYS[kind]("", ()) for kind in kinds]
        return tuple(
            np.concatenate([nothing, *(batch[i] for batch in batches)])
            for i, nothing in enumerate(empty)
        )

    def people(self) -> tuple[Array, ...]:
        """Person, sex concept, year, month and day of birth."""
        table = self._table("person")
        names = list(_COLUMNS["person"])
        present = [name for name in names if name in table.c]
        read = dict(
            zip(
                present,
                self._all(
                    sa.select(*(table.c[name] for name in present)), *["whole"] * len(present)
                ),
                strict=True,
            )
        )
        nothing = np.full(len(read["person_id"]), MISSING)
        return tuple(read.get(name, nothing) for name in names)

    def observation_periods(self) -> tuple[Array, ...]:
        """Person, first and last day."""
        table = self._table("observation_period")
        return self._all(sa.select(*table.c), "whole", "day", "day")

    def cohort_entries(self, definition: int) -> tuple[Array, Array]:
        """Person and day of the entries into a cohort."""
        table = self._table("cohort")
        statement = sa.select(table.c["subject_id"], table.c["cohort_start_date"])
        statement = statement.where(table.c["cohort_definition_id"] == definition)
        people, days = self._all(statement, "whole", "day")
        return people, days

    def conditions(self, concepts: Sequence[int], descendants: bool) -> tuple[Array, Array]:
        """Person and day of the records of any of the conditions."""
        found = []
        table = self._table("condition_occurrence")
        wanted = sa.select(table.c["person_id"], table.c["condition_start_date"])
        for condition, source, _ in self._selected("condition", concepts, descendants):
            statement = wanted.select_from(source).where(condition)
            found.append(self._all(statement, "whole", "day"))
        people, days = (np.concatenate([part[i] for part in found]) for i in (0, 1))
        return people, days

    def _selected(
        self, domain: str, concepts: Sequence[int], descendants: bool
    ) -> Iterator[tuple[sa.ColumnElement[bool], sa.FromClause, sa.ColumnElement[int]]]:
        """Condition, source and the concept asked for, of all records of the concepts."""
        name, concept_name, *_ = _EVENTS[domain]
        table = self._table(name)
        concept = table.c[concept_name]
        for chunk in _chunks(concepts):
            yield concept.in_(chunk), table, concept
        if not descendants:
            return
        tree = self._table("concept_ancestor")
        ancestor, descendant = tree.c["ancestor_concept_id"], tree.c["descendant_concept_id"]
        for chunk in _chunks(concepts):
            below = ancestor.in_(chunk) & (ancestor != descendant)
            yield below, table.join(tree, descendant == concept), ancestor

    def events(
        self, domain: str, concepts: Sequence[int] | None, descendants: bool
    ) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Person, concept, first and last day, in batches.

        The concept is the one asked for, also where the record names a descendant of it; where
        None are asked for, that of the record.
        """
        name, concept_name, start_name, end_name = _EVENTS[domain]
        table = self._table(name)
        start = table.c[start_name]
        end = table.c.get(end_name, start)
        sources: Iterable[Any]
        if concepts is None:
            sources = [(table.c[concept_name] > 0, table, table.c[concept_name])]
        else:
            sources = self._selected(domain, concepts, descendants)
        for condition, source, concept in sources:
            statement = sa.select(
                table.c["person_id"], concept, start.label("start_date"), end.label("end_date")
            )
            statement = statement.select_from(source).where(condition)
            for people, kinds, first, last in self._stream(
                statement, "whole", "whole", "day", "day"
            ):
                yield people, kinds, first, np.where(last == MISSING, first, last)

    def measurements(self, concepts: Sequence[int]) -> Iterator[tuple[Array, ...]]:
        """Person, concept, day, value and unit, in batches."""
        table = self._table("measurement")
        kinds = ("whole", "whole", "day", "number", "whole")
        for chunk in _chunks(concepts):
            statement = sa.select(*table.c).where(table.c["measurement_concept_id"].in_(chunk))
            yield from self._stream(statement, *kinds)

    def concept_names(self, concepts: Sequence[int]) -> dict[int, str]:
        """Names of concepts, where the database has the table CONCEPT."""
        names: dict[int, str] = {}
        if self.has_table("concept"):
            table = self._table("concept")
            for chunk in _chunks(concepts):
                statement = sa.select(*table.c).where(table.c["concept_id"].in_(chunk))
                for ids, texts in self._stream(statement, "whole", "text"):
                    names |= {int(i): str(text) for i, text in zip(ids, texts, strict=True)}
        return names

    # Genotypes ---------------------------------------------------------------------------

    def _genotype_source(self) -> tuple[sa.TableClause, sa.FromClause, sa.ColumnElement[int]]:
        """Table of genotypes, where to select from, and the person."""
        table = self._table("variant_occurrence")
        if "person_id" in table.c:
            return table, table, table.c["person_id"]
        for link, name in _LINKS.items():
            if link in table.c and self.has_table(name):
                other = self._table(name)
                return (
                    table,
                    table.join(other, table.c[link] == other.c[link]),
                    other.c["person_id"],
                )
        raise check.fail(
            "database",
            "VARIANT_OCCURRENCE with a person_id, or SPECIMEN or PROCEDURE_OCCURRENCE",
            "genotypes that lead to no person",
        )

    def genotypes(self, snps: Sequence[str]) -> Iterator[tuple[Array, ...]]:
        """Person, SNP, genotype, reference and alternate allele, origin, in batches."""
        table, source, person = self._genotype_source()
        columns = [table.c[key] for key in GENOTYPE_COLUMNS[1:] if key in table.c]
        for chunk in _chunks(snps):
            statement = sa.select(person, *columns).select_from(source)
            statement = statement.where(table.c["snp"].in_(chunk))
            for batch in self._stream(statement, "whole", *["text"] * len(columns)):
                if len(columns) < len(GENOTYPE_COLUMNS) - 1:  # no origin
                    yield (*batch, np.full(len(batch[0]), None, dtype=object))
                else:
                    yield batch

    def genotyped_people(self) -> Array:
        """Everyone with at least one record in the table of genotypes."""
        _, source, person = self._genotype_source()
        return self._all(sa.select(person).select_from(source).distinct(), "whole")[0]


# ------------------------------------------------------------------------ names and values


def _names(argument: str, value: object, parts: int) -> str:
    """Check a name of up to `parts` identifiers, separated by full stops."""
    names = value.split(".") if isinstance(value, str) else []
    if not 1 <= len(names) <= parts or not all(_IDENTIFIER.fullmatch(name) for name in names):
        expected = "a name of letters, digits and underscores"
        raise check.fail(
            argument, expected + (", 'schema.table'" if parts > 2 else ""), repr(value)
        )
    return str(value)


def _renamed(
    argument: str, names: Mapping[str, str] | None, known: Sequence[str], *, parts: int
) -> dict[str, str]:
    if names is None:
        return {}
    if not isinstance(names, Mapping):
        raise check.fail(argument, "a mapping of names", type(names).__name__)
    for key in names:
        check.choice(argument, key, known)
    return {key: _names(f"{argument}[{key!r}]", name, parts) for key, name in names.items()}


def _chunks(values: Sequence[T]) -> Iterator[list[T]]:
    for begin in range(0, len(values), CHUNK):
        yield list(values[begin : begin + CHUNK])


def _bad(column: str, expected: str, value: object) -> InvalidInputError:
    return check.fail("database", f"{expected} in the column {column}", repr(value))


def _whole(column: str, values: Sequence[Any]) -> Array:
    if set(map(type, values)) <= {int} and max(map(abs, values), default=0) < _BEYOND:
        return np.array(values, dtype=np.int64)
    result = np.full(len(values), MISSING)
    for i, value in enumerate(values):
        if value is None or value == "":
            continue
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise _bad(column, "whole numbers", value) from None
        if abs(number) >= _BEYOND or (not isinstance(value, str) and number != value):
            raise _bad(column, "whole numbers", value)
        result[i] = number
    return result


def _number(column: str, values: Sequence[Any]) -> Array:
    result = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if value is None or value == "":
            continue
        try:
            result[i] = float(value)
        except (TypeError, ValueError):
            raise _bad(column, "numbers", value) from None
    return result


def _day(column: str, values: Sequence[Any]) -> Array:
    """Days since 1970; a batch has few different dates."""
    known = {value: _day_number(column, value) for value in set(values)}
    return np.array([known[value] for value in values], dtype=np.int64)


def _day_number(column: str, value: Any) -> int:
    """One date. Numbers are seconds since 1970, as DatabaseConnector stores dates in SQLite."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, datetime.date):  # a datetime is one as well
        return value.toordinal() - _EPOCH
    try:
        if isinstance(value, (int, float, Decimal)):
            days = int(value // 86_400)
            datetime.date.fromordinal(days + _EPOCH)
            return days
        if not isinstance(value, str) or not _ISO_DATE.match(value):
            raise ValueError
        return datetime.date.fromisoformat(value[:10]).toordinal() - _EPOCH
    except (ValueError, ArithmeticError):
        raise _bad(column, "dates as YYYY-MM-DD", value) from None


def _text(column: str, values: Sequence[Any]) -> Array:
    """Text without outer blanks; None where there is none."""
    known = {value: None if value is None else str(value).strip() for value in set(values)}
    result = np.empty(len(values), dtype=object)
    result[:] = [known[value] for value in values]
    return result


_ARRAYS = {"whole": _whole, "number": _number, "day": _day, "text": _text}
