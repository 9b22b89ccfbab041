"""A small OMOP CDM 5.4 database of people who never lived, with the causal effect known.

G are dosages of the alternate alleles, X the exposure, U an unmeasured confounder:

    X = sum_j gamma_j G_j + U + e,       e ~ N(0, 1)
    logit P(outcome) = a + effect (X - E X) + U / 2 + 0.02 (age - 50)

The outcome of a case falls on a day drawn uniformly from the case's observed time after the
first year, whatever the genotype. `effect` is the structural log odds ratio, given U and e; that of
a unit of exposure given the observed covariates alone is nearer to 0, as odds ratios do not
collapse.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast._validation import Float

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy

__all__ = ["SimulatedOmopDatabase", "omop_database"]

Array = NDArray[Any]

# Concepts from 2,000,000,000 on are for local use.
_LOCAL = 2_000_000_000
_OUTCOME, _OUTCOME_KINDS = _LOCAL + 1, (_LOCAL + 2, _LOCAL + 3)
_NEGATIVE = (_LOCAL + 11, _LOCAL + 12, _LOCAL + 13)
_COMORBIDITY, _DRUG, _MEASUREMENT = _LOCAL + 21, _LOCAL + 31, _LOCAL + 41
_FEMALE, _MALE = 8532, 8507
_UNITS = (8753, 8840)  # mmol/L, mg/dL
_NAMES = {
    _OUTCOME: "Simulated disease",
    _OUTCOME_KINDS[0]: "Simulated disease, first kind",
    _OUTCOME_KINDS[1]: "Simulated disease, second kind",
    _NEGATIVE[0]: "Simulated injury",
    _NEGATIVE[1]: "Simulated infection",
    _NEGATIVE[2]: "Simulated allergy",
    _COMORBIDITY: "Simulated comorbidity",
    _DRUG: "Simulated drug",
    _MEASUREMENT: "Simulated measurement",
}
_COLUMNS = {  # i: integer, d: date, f: number, s: text
    "person": "person_id:i gender_concept_id:i year_of_birth:i month_of_birth:i day_of_birth:i "
    "race_concept_id:i ethnicity_concept_id:i",
    "observation_period": "observation_period_id:i person_id:i observation_period_start_date:d "
    "observation_period_end_date:d period_type_concept_id:i",
    "condition_occurrence": "condition_occurrence_id:i person_id:i condition_concept_id:i "
    "condition_start_date:d condition_type_concept_id:i",
    "drug_exposure": "drug_exposure_id:i person_id:i drug_concept_id:i "
    "drug_exposure_start_date:d drug_exposure_end_date:d drug_type_concept_id:i",
    "measurement": "measurement_id:i person_id:i measurement_concept_id:i measurement_date:d "
    "measurement_type_concept_id:i value_as_number:f unit_concept_id:i",
    "cohort": "cohort_definition_id:i subject_id:i cohort_start_date:d cohort_end_date:d",
    "concept": "concept_id:i concept_name:s",
    "concept_ancestor": "ancestor_concept_id:i descendant_concept_id:i "
    "min_levels_of_separation:i max_levels_of_separation:i",
    "variant_occurrence": "variant_occurrence_id:i person_id:i rs_id:s reference_allele:s "
    "alternate_allele:s genotype:s",
}
_ROWS = 10_000  # rows of one INSERT


@dataclass(frozen=True, eq=False, repr=False)
class SimulatedOmopDatabase:
    """A simulated database, and what its people are like in truth.

    Attributes
    ----------
    engine : sqlalchemy.Engine
    schema : str or None
    instruments : pandas.DataFrame
        Associations with the exposure of another sample: snp, effect_allele, other_allele, eaf,
        beta, std_error, p_value, n. The effect allele is now the site's alternate allele, now
        its reference.
    alleles : pandas.DataFrame
        snp, alternate_allele, reference_allele.
    people : pandas.DataFrame
        person_id, status ("case", "control", "prevalent" for an outcome within the first year of
        observation, "outside" for one before it, "unobserved"), index_date (of cases), exposure,
        confounder.
    dosages : ndarray of int8, shape (n_persons, J)
        True dosages of the alternate alleles, in the order of `people`.
    gamma : ndarray, shape (J,)
        Effect of an alternate allele on the exposure.
    effect : float
        Log odds ratio of the outcome for one unit of the exposure, given confounder and age.
    outcome_concept, outcome_cohort : int
        The outcome as a condition, with two descendants, and as a cohort definition.
    negative_controls : tuple of int
        Conditions that neither the exposure nor the confounder causes.
    condition, drug, measurement : int
        Concepts for covariates; the confounder raises all three.
    """

    engine: sqlalchemy.Engine
    schema: str | None
    instruments: pd.DataFrame
    alleles: pd.DataFrame
    people: pd.DataFrame
    dosages: NDArray[np.int8]
    gamma: Float
    effect: float
    outcome_concept: int = _OUTCOME
    outcome_cohort: int = 1
    negative_controls: tuple[int, ...] = _NEGATIVE
    condition: int = _COMORBIDITY
    drug: int = _DRUG
    measurement: int = _MEASUREMENT

    def __repr__(self) -> str:
        return (
            f"SimulatedOmopDatabase({self.engine.dialect.name}, n_persons={len(self.people)}, "
            f"J={len(self.gamma)})"
        )

    def close(self) -> None:
        """Close the connections; a database in memory is gone."""
        self.engine.dispose()


def omop_database(
    database: str | os.PathLike[str] | sqlalchemy.Engine | None = None,
    *,
    n_persons: int = 2000,
    snps: int | Sequence[str] = 8,
    effect: float = 0.4,
    case_share: float = 0.3,
    untidy: bool = True,
    schema: str | None = None,
    rng: object = None,
) -> SimulatedOmopDatabase:
    """Write a synthetic CDM into a database, and return it with the truth.

    Parameters
    ----------
    database : str, Path or sqlalchemy.Engine, optional
        Path of an SQLite file, or an engine; by default SQLite in memory. Tables are created, and
        never replaced.
    n_persons : int
    snps : int or sequence of str
        Number of SNPs, or their identifiers.
    effect : float
        Causal log odds ratio per unit of the exposure.
    case_share : float
        About the share of people who get the outcome.
    untidy : bool
        As real tables are: people without observation, with gaps or overlapping periods,
        prevalent outcomes and outcomes outside observation, missing, half, phased and
        multi-allelic calls, genotype rows that are repeated, contradictory or absent.
    schema : str, optional
        An existing schema for the tables.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    SimulatedOmopDatabase

    Raises
    ------
    InvalidInputError
        An argument is not usable, or one of the tables exists.
    MissingExtraError
        SQLAlchemy is not installed.
    """
    n = check.integer("n_persons", n_persons, minimum=1, maximum=10_000_000)
    if isinstance(snps, (int, np.integer)) and not isinstance(snps, bool):
        names = [f"rs{1000 + j}" for j in range(check.integer("snps", snps, minimum=1))]
    else:
        names = list(snps)  # type: ignore[arg-type]
    ids = check.name_tuple("snps", names, length=len(names))
    effect = check.scalar("effect", effect)
    share = check.scalar("case_share", case_share, above=0, below=1)
    untidy = check.flag("untidy", untidy)
    generator = _runtime.generator(rng)
    sqlalchemy = import_extra("sqlalchemy", extra="omop", purpose="simulation.omop_database")

    simulated = _Population(generator, n, ids, effect, share, untidy)
    engine = _engine(sqlalchemy, database)
    _write(sqlalchemy, engine, schema, simulated.tables(), generator)
    return simulated.described(engine, schema)


class _Population:
    """Everyone's genotype, exposure, observation and outcome."""

    def __init__(
        self,
        generator: np.random.Generator,
        n: int,
        snps: tuple[str, ...],
        effect: float,
        share: float,
        untidy: bool,
    ) -> None:
        j = len(snps)
        self._generator, self._n, self._snps, self._effect = generator, n, snps, effect
        self._untidy = untidy
        letters = np.array([["G", "A"], ["T", "C"], ["A", "C"], ["C", "T"]])
        self._alternate, self._reference = letters[np.arange(j) % len(letters)].T
        self._frequency = generator.uniform(0.1, 0.4, j)
        self._gamma = generator.uniform(0.1, 0.4, j) * np.where(np.arange(j) % 3 == 2, -1, 1)
        self._person = np.sort(generator.choice(np.arange(1, 20 * n + 1), n, replace=False))
        self._dosages = generator.binomial(2, self._frequency, (n, j)).astype(np.int8)
        self._confounder = generator.standard_normal(n)
        noise = self._confounder + generator.standard_normal(n)
        self._exposure = (self._dosages * self._gamma).sum(axis=1) + noise
        self._female = generator.random(n) < 0.5
        start = generator.integers(_day("2005-01-01"), _day("2012-01-01"), n)
        self._start = start
        self._end = start + generator.integers(2 * 365, 10 * 365, n)
        self._birth = start - generator.integers(30 * 365, 70 * 365, n)
        age = (start - self._birth) / 365.25
        centred = self._exposure - 2 * (self._frequency * self._gamma).sum()
        logit = np.log(share / (1 - share)) + effect * centred
        logit += self._confounder / 2 + 0.02 * (age - 50)
        case = generator.random(n) < 1 / (1 + np.exp(-logit))
        self._event = generator.integers(start + 365, self._end + 1)
        self._status = np.where(case, "case", "control").astype(object)
        if untidy:
            kind = generator.random(n)
            prevalent, outside = kind < 0.03, (kind >= 0.03) & (kind < 0.05)
            self._event[prevalent] = (start + generator.integers(0, 365, n))[prevalent]
            self._event[outside] = (start - generator.integers(1, 1000, n))[outside]
            self._status[prevalent] = "prevalent"
            self._status[outside] = "outside"
            self._status[(kind >= 0.05) & (kind < 0.08)] = "unobserved"
        self._ill = self._status == "case"
        self._ill |= np.isin(self._status, ("prevalent", "outside"))

    def tables(self) -> Iterator[tuple[str, dict[str, Array]]]:
        """Columns of each table of the CDM."""
        generator, n, person = self._generator, self._n, self._person
        born = self._birth.astype("datetime64[D]")
        months = born.astype("datetime64[M]")
        yield (
            "person",
            {
                "person_id": person,
                "gender_concept_id": np.where(self._female, _FEMALE, _MALE),
                "year_of_birth": born.astype("datetime64[Y]").astype(int) + 1970,
                "month_of_birth": months.astype(int) % 12 + 1,
                "day_of_birth": (born - months).astype(int) + 1,
                "race_concept_id": np.zeros(n, dtype=int),
                "ethnicity_concept_id": np.zeros(n, dtype=int),
            },
        )
        who, first, last = self._periods()
        yield (
            "observation_period",
            {
                "person_id": person[who],
                "observation_period_start_date": first,
                "observation_period_end_date": last,
                "period_type_concept_id": np.zeros(len(who), dtype=int),
            },
        )
        ill = np.flatnonzero(self._ill)
        yield (
            "cohort",
            {
                "cohort_definition_id": np.ones(len(ill), dtype=int),
                "subject_id": person[ill],
                "cohort_start_date": self._event[ill],
                "cohort_end_date": self._event[ill] + 30,
            },
        )
        kinds = np.array([_OUTCOME, *_OUTCOME_KINDS])
        again = ill[generator.random(len(ill)) < 0.3]  # a second record, after the first
        who_parts = [ill, again]
        concept_parts = [generator.choice(kinds, len(ill)), generator.choice(kinds, len(again))]
        day_parts = [self._event[ill], self._event[again] + generator.integers(1, 400, len(again))]
        for concept in _NEGATIVE:
            whom, day = self._scattered(np.full(n, 0.08))
            who_parts.append(whom)
            concept_parts.append(np.full(len(whom), concept))
            day_parts.append(day)
        whom, day = self._scattered(0.2 * np.exp(0.5 * self._confounder))
        who_parts.append(whom)
        concept_parts.append(np.full(len(whom), _COMORBIDITY))
        day_parts.append(day)
        who = np.concatenate(who_parts)
        yield (
            "condition_occurrence",
            {
                "person_id": person[who],
                "condition_concept_id": np.concatenate(concept_parts),
                "condition_start_date": np.concatenate(day_parts),
                "condition_type_concept_id": np.zeros(len(who), dtype=int),
            },
        )
        who, day = self._scattered(0.2 * np.exp(0.3 * self._confounder))
        yield (
            "drug_exposure",
            {
                "person_id": person[who],
                "drug_concept_id": np.full(len(who), _DRUG),
                "drug_exposure_start_date": day,
                "drug_exposure_end_date": day + generator.integers(1, 90, len(who)),
                "drug_type_concept_id": np.zeros(len(who), dtype=int),
            },
        )
        who, day = self._scattered(np.full(n, 0.8))
        value = np.round(
            3 + 0.5 * self._confounder[who] + 0.3 * generator.standard_normal(len(who)), 2
        )
        american = self._untidy & (generator.random(len(who)) < 0.02)
        yield (
            "measurement",
            {
                "person_id": person[who],
                "measurement_concept_id": np.full(len(who), _MEASUREMENT),
                "measurement_date": day,
                "measurement_type_concept_id": np.zeros(len(who), dtype=int),
                "value_as_number": np.where(american, np.round(value * 38.67, 1), value),
                "unit_concept_id": np.where(american, _UNITS[1], _UNITS[0]),
            },
        )
        concepts = np.array(list(_NAMES))
        yield "concept", {"concept_id": concepts, "concept_name": np.array(list(_NAMES.values()))}
        levels = np.append(np.zeros(len(concepts), dtype=int), [1, 1])
        yield (
            "concept_ancestor",
            {
                "ancestor_concept_id": np.append(concepts, [_OUTCOME, _OUTCOME]),
                "descendant_concept_id": np.append(concepts, _OUTCOME_KINDS),
                "min_levels_of_separation": levels,
                "max_levels_of_separation": levels,
            },
        )
        yield "variant_occurrence", self._genotypes()

    def _periods(self) -> tuple[Array, Array, Array]:
        """Person, first and last day of observation; none holds an event in its gap."""
        who = np.flatnonzero(self._status != "unobserved")
        first, last = self._start[who], self._end[who]
        if not self._untidy:
            return who, first, last
        split = np.flatnonzero(self._generator.random(len(who)) < 0.1)
        # After a gap, before the person was first seen; or overlapping by a month.
        gap = self._generator.random(len(split)) < 0.5
        gap &= self._status[who[split]] != "outside"
        earlier_last = np.where(gap, first[split] - 200, first[split] + 30)
        earlier_first = np.where(gap, first[split] - 500, first[split])
        return (
            np.concatenate([who, who[split]]),
            np.concatenate([first, earlier_first]),
            np.concatenate([last, earlier_last]),
        )

    def _scattered(self, per_year: Float) -> tuple[Array, Array]:
        """Events at a constant rate over everyone's observation: person and day."""
        length = self._end - self._start + 1
        who = np.repeat(np.arange(self._n), self._generator.poisson(per_year * length / 365.25))
        day = self._start[who] + self._generator.integers(0, length[who])
        return who, day

    def _genotypes(self) -> dict[str, Array]:
        generator, j = self._generator, len(self._snps)
        who, snp = np.divmod(np.arange(self._n * j), j)
        dosage = self._dosages[who, snp]
        text = np.array(["0/0", "0/1", "1/1"], dtype=object)[dosage]
        alternate = self._alternate[snp].astype(object)
        if self._untidy:
            kind = generator.random(len(who))
            text[kind < 0.01] = "./."
            text[(kind >= 0.01) & (kind < 0.015)] = "0/."
            phased = (kind >= 0.015) & (kind < 0.1) & (dosage == 1)
            text[phased] = "1|0"
            if j > 1:  # the last SNP has a second, rare alternate allele
                last = snp == j - 1
                taken = {self._alternate[-1], self._reference[-1]}
                alternate[last] += "," + next(base for base in "ACGT" if base not in taken)
                text[last & (kind > 0.99)] = "0/2"
            absent = (kind >= 0.1) & (kind < 0.11)
            twice = np.flatnonzero((kind >= 0.11) & (kind < 0.125))
            contrary = (kind >= 0.12)[twice]
            extra = text[twice]
            extra[contrary] = np.array(["1/1", "0/0", "0/1"], dtype=object)[dosage[twice][contrary]]
            rows = np.append(np.flatnonzero(~absent), twice)
            text = np.append(text[~absent], extra)
            who, snp, alternate = who[rows], snp[rows], alternate[rows]
        return {
            "person_id": self._person[who],
            "rs_id": np.array(self._snps, dtype=object)[snp],
            "reference_allele": self._reference[snp].astype(object),
            "alternate_allele": alternate,
            "genotype": text,
        }

    def described(self, engine: sqlalchemy.Engine, schema: str | None) -> SimulatedOmopDatabase:
        """The truth, and the instruments of another sample of 100,000 people."""
        import pandas as pd
        from scipy import special

        size, p = 100_000, self._frequency
        swapped = np.arange(len(p)) % 2 == 1  # the effect allele is the site's reference
        error = 1.4 / np.sqrt(2 * p * (1 - p) * size)
        beta = np.where(swapped, -1, 1) * self._gamma
        beta = beta + error * self._generator.standard_normal(len(p))
        instruments = pd.DataFrame(
            {
                "snp": list(self._snps),
                "effect_allele": np.where(swapped, self._reference, self._alternate),
                "other_allele": np.where(swapped, self._alternate, self._reference),
                "eaf": np.where(swapped, 1 - p, p),
                "beta": beta,
                "std_error": error,
                "p_value": special.erfc(np.abs(beta / error) / np.sqrt(2)),
                "n": size,
            }
        )
        index = self._event.astype("datetime64[D]").astype("datetime64[s]")
        index[self._status != "case"] = np.datetime64("NaT")
        return SimulatedOmopDatabase(
            engine=engine,
            schema=schema,
            instruments=instruments,
            alleles=pd.DataFrame(
                {
                    "snp": list(self._snps),
                    "alternate_allele": self._alternate,
                    "reference_allele": self._reference,
                }
            ),
            people=pd.DataFrame(
                {
                    "person_id": self._person,
                    "status": self._status,
                    "index_date": index,
                    "exposure": self._exposure,
                    "confounder": self._confounder,
                }
            ),
            dosages=self._dosages,
            gamma=self._gamma,
            effect=self._effect,
        )


def _day(date: str) -> int:
    return int(np.datetime64(date, "D").astype(int))


def _engine(sqlalchemy: Any, database: object) -> sqlalchemy.Engine:
    if database is None:
        return sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)  # type: ignore[no-any-return]
    if isinstance(database, sqlalchemy.Engine):
        return database  # type: ignore[no-any-return]
    if isinstance(database, (str, Path)) and "://" not in str(database):
        url = sqlalchemy.URL.create("sqlite", database=str(database))
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)  # type: ignore[no-any-return]
    expected = "a SQLAlchemy engine, or the path of an SQLite file"
    raise check.fail("database", expected, type(database).__name__)


def _write(
    sqlalchemy: Any,
    engine: sqlalchemy.Engine,
    schema: str | None,
    tables: Iterator[tuple[str, Mapping[str, Array]]],
    generator: np.random.Generator,
) -> None:
    """Create the tables and fill them, with the rows in a random order."""
    types = {
        "i": sqlalchemy.Integer(),
        "d": sqlalchemy.Date(),
        "f": sqlalchemy.Numeric(asdecimal=False),
        "s": sqlalchemy.String(255),
    }
    metadata = sqlalchemy.MetaData(schema=schema)
    made = {
        name: sqlalchemy.Table(
            name,
            metadata,
            *(
                sqlalchemy.Column(column, types[kind])
                for column, kind in (entry.split(":") for entry in columns.split())
            ),
        )
        for name, columns in _COLUMNS.items()
    }
    with engine.begin() as connection:
        inspector = sqlalchemy.inspect(connection)
        for name in _COLUMNS:
            if inspector.has_table(name, schema=schema):
                raise check.fail("database", "one without the tables of a CDM", f"a table {name}")
        metadata.create_all(connection)
        for name, values in tables:
            columns = _COLUMNS[name].split()
            size = len(next(iter(values.values())))
            order = generator.permutation(size)
            listed: dict[str, list[Any]] = {}
            for entry in columns:
                column, kind = entry.split(":")
                value = values.get(column, np.arange(1, size + 1))[order]  # a key of its own
                listed[column] = (
                    value.astype("datetime64[D]").tolist() if kind == "d" else value.tolist()
                )
            for begin in range(0, size, _ROWS):
                chunk = [column[begin : begin + _ROWS] for column in listed.values()]
                rows = [dict(zip(listed, row, strict=True)) for row in zip(*chunk, strict=True)]
                connection.execute(made[name].insert(), rows)
