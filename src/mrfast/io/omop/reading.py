"""A cohort out of an OMOP CDM 5.4 database: outcome, comparable controls, dosages, covariates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._optional import import_extra
from mrfast.io.omop import arguments
from mrfast.io.omop.arguments import FAR, SEX, Question
from mrfast.io.omop.assembly import assemble
from mrfast.io.omop.cohort import OmopCohort

if TYPE_CHECKING:
    import sqlalchemy

__all__ = ["read_omop_cohort"]


def read_omop_cohort(
    database: str | os.PathLike[str] | sqlalchemy.URL | sqlalchemy.Engine | sqlalchemy.Connection,
    *,
    instruments: Iterable[str] | pd.DataFrame | Any,
    outcome_concepts: int | Iterable[int] | None = None,
    outcome_cohort: int | None = None,
    include_descendants: bool = True,
    washout_days: int = 365,
    index_offset_days: int = 0,
    index_dates: tuple[object, object] = (None, None),
    age: tuple[float | None, float | None] = (None, None),
    sex: str | None = None,
    control_index: str = "calendar",
    controls_per_case: float | None = None,
    negative_controls: int | Iterable[int] = (),
    negative_control_days: int | None = None,
    conditions: Iterable[int] | float = (),
    drugs: Iterable[int] | float = (),
    measurements: int | Iterable[int] = (),
    covariate_window: tuple[int, int] = (-365, -1),
    person_covariates: pd.DataFrame | None = None,
    absent_is_reference: bool = False,
    schema: str | None = None,
    tables: Mapping[str, str] | None = None,
    genotype_columns: Mapping[str, str] | None = None,
    rng: object = 0,
) -> OmopCohort:
    """Cases, controls, dosages and covariates from an OMOP CDM 5.4 database.

    A case is a person whose first outcome record of all falls into an observation period, after
    at least `washout_days` of it. Whoever has an outcome record but is no case is no control
    either. A control gets an index from the cases' (see `control_index`), so that negative
    controls after the index and covariates before it mean the same for both.

    The database is only read. The result does not depend on its dialect nor on the order of its
    rows.

    Parameters
    ----------
    database : str, Path, sqlalchemy.URL, sqlalchemy.Engine or sqlalchemy.Connection
        A SQLAlchemy URL, or the path of an SQLite or DuckDB file.
    instruments : iterable of str, DataFrame or InstrumentTable
        SNP identifiers; with the columns snp, effect_allele and other_allele, the alleles that
        matter where a SNP has more than two.
    outcome_concepts : int or iterable of int, optional
        Condition concepts of the outcome.
    outcome_cohort : int, optional
        In place of concepts, the cohort_definition_id of a cohort in the table COHORT.
    include_descendants : bool
        Records of the descendants of a condition or drug concept count, by CONCEPT_ANCESTOR.
    washout_days : int
        Days of observation that must precede the index.
    index_offset_days : int
        The index lies so many days after the outcome; 0 or negative, e.g. -30 to keep the
        work-up of the outcome out of the covariates.
    index_dates : tuple of (date or None, date or None)
        First and last calendar date for the index.
    age : tuple of (float or None, float or None)
        Lowest and highest age at index, in completed years.
    sex : {"female", "male"}, optional
    control_index : {"calendar", "time"}
        Controls draw a case's calendar date, or a case's time since the beginning of observation,
        within their own eligible time, with the hazard's weights (`io.omop.index_dates`).
    controls_per_case : float, optional
        Keep a random sample of the controls, so many for each case.
    negative_controls : int or iterable of int
        Condition concepts that the exposure does not cause: ``nc_outcome_<id>`` is 1 where a
        record falls on or after the index, within the same observation period.
    negative_control_days : int, optional
        Only records up to so many days after the index count.
    conditions, drugs : iterable of int, or float
        Concepts whose records in the window become columns, or the share of the people that must
        have a concept for it to become one. A drug counts if its exposure overlaps the window.
    measurements : int or iterable of int
        Measurement concepts: the latest value in the window, in the most common unit. Missing
        values become the mean of the others, and a column ``..._missing`` says where.
    covariate_window : tuple of int
        First and last day of the covariates' window, relative to the index, inside the same
        observation period; at most -1.
    person_covariates : DataFrame, optional
        Further columns by person_id, e.g. principal components; joined to the covariates.
    absent_is_reference : bool
        The table of genotypes holds calls with an alternate allele only: a person who has rows in
        it, but none of a SNP, carries none. By default such a dosage is missing.
    schema : str, optional
        Schema of the tables.
    tables : mapping, optional
        Own names of tables, e.g. ``{"cohort": "results.cohort"}``.
    genotype_columns : mapping, optional
        Own names of the columns of VARIANT_OCCURRENCE: person_id, snp (rs_id by default),
        genotype, reference_allele, alternate_allele, genetic_origin.
    rng : int, Generator, SeedSequence or None
        Source of the controls' index dates; the default gives the same cohort every time.

    Returns
    -------
    OmopCohort

    Raises
    ------
    InvalidInputError
        An argument is not usable, a table or column is not there, the database refuses a query,
        or no case or no control is left.
    MissingExtraError
        SQLAlchemy, or the driver of the database, is not installed.

    Warns
    -----
    OmopWarning
        SNPs that were asked for are not in the cohort.
    """
    snps, alleles = arguments.instruments(instruments)
    concepts, cohort = arguments.outcome(outcome_concepts, outcome_cohort)
    negative = arguments.concepts("negative_controls", negative_controls)
    both = sorted(set(concepts) & set(negative))
    if both:
        raise check.fail("negative_controls", "no concept of the outcome", str(both[0]))
    question = Question(
        snps=snps,
        instrument_alleles=alleles,
        outcome_concepts=concepts,
        outcome_cohort=cohort,
        include_descendants=check.flag("include_descendants", include_descendants),
        washout_days=check.integer("washout_days", washout_days, minimum=0, maximum=FAR),
        index_offset_days=check.integer(
            "index_offset_days", index_offset_days, minimum=-FAR, maximum=0
        ),
        index_dates=arguments.calendar(index_dates),
        age=arguments.ages(age),
        sex=None if sex is None else check.choice("sex", sex, tuple(SEX)),
        control_index=check.choice("control_index", control_index, ("calendar", "time")),
        controls_per_case=(
            None
            if controls_per_case is None
            else check.scalar("controls_per_case", controls_per_case, above=0)
        ),
        negative_controls=negative,
        negative_control_days=check.integer(
            "negative_control_days",
            FAR if negative_control_days is None else negative_control_days,
            minimum=0,
            maximum=FAR,
        ),
        conditions=arguments.concepts_or_share("conditions", conditions),
        drugs=arguments.concepts_or_share("drugs", drugs),
        measurements=arguments.concepts("measurements", measurements),
        covariate_window=arguments.lookback(covariate_window),
        absent_is_reference=check.flag("absent_is_reference", absent_is_reference),
    )
    extra = arguments.person_table(person_covariates)
    generator = _runtime.generator(rng)
    import_extra("sqlalchemy", extra="omop", purpose="reading an OMOP database")
    from mrfast.io.omop.queries import CdmReader, connected

    with connected(database) as connection:
        reader = CdmReader(connection, schema, tables, genotype_columns)
        return assemble(reader, question, extra, generator, rng)
