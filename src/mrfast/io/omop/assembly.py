"""The steps from the tables of a database to a cohort."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast.io.omop.arguments import FAR, SEX, Question
from mrfast.io.omop.cohort import EXCLUSIONS, OmopCohort, OmopWarning
from mrfast.io.omop.covariates import Window, histories, latest_values
from mrfast.io.omop.genotypes import GenotypeReader, Genotypes
from mrfast.io.omop.index_dates import (
    DAYS_PER_YEAR,
    Array,
    Days,
    Periods,
    birth_days,
    birthdays,
    draw_index,
    first_days,
    merge_periods,
)

if TYPE_CHECKING:
    from mrfast.io.omop.queries import CdmReader

__all__ = ["assemble"]

_NO_DAY = np.iinfo(np.int64).min


@dataclass
class _People:
    """Everyone in PERSON, sorted; `status` is empty, "case", "control" or why excluded."""

    person: Days
    sex: Days
    birth: Days
    status: Array
    records: dict[str, int] = field(default_factory=dict)

    def place(self, person: Days) -> Days:
        """Place of each person; -1 of those who are not in PERSON."""
        place = np.searchsorted(self.person, person)
        place[place == len(self.person)] = 0
        return np.where(self.person[place] == person, place, -1)

    def exclude(self, who: Array, reason: str) -> None:
        """Give a reason to those of `who` that have none yet."""
        self.status[who & (self.status == "")] = reason


def assemble(
    reader: CdmReader,
    question: Question,
    extra: pd.DataFrame | None,
    generator: np.random.Generator,
    rng: object,
) -> OmopCohort:
    """Read everything, and say of everyone what became of them."""
    people = _people(reader)
    periods = _periods(reader, people)
    outcome = _outcome(reader, people, question)
    genotypes = _genotypes(reader, people, question)

    observed = np.zeros(len(people.person), dtype=np.bool_)
    observed[periods.person] = True
    people.exclude(~observed, "no_observation")
    people.exclude(people.birth == _NO_DAY, "no_birth_year")
    if question.sex is not None:
        people.exclude(people.sex != SEX[question.sex], "sex")
    people.exclude(~genotypes.genotyped, "not_genotyped")
    index, row = _index_dates(people, periods, outcome, question, generator)

    exclusions = _exclusions(people, outcome)
    _check_both(people, exclusions)

    rows = np.flatnonzero((people.status == "case") | (people.status == "control"))
    person, index, row = people.person[rows], index[rows], row[rows]
    first, last = periods.first[row], periods.last[row]
    dosages = genotypes.dosages[rows]
    alleles, report = _allele_tables(genotypes, dosages)
    columns: dict[str, int] = {}  # concepts of the columns that come from one
    frame: dict[str, Array] = {
        "person_id": person,
        "outcome": (people.status[rows] == "case").astype(np.int8),
        **{snp: _compact(dosages[:, j]) for j, snp in enumerate(genotypes.snps)},
    }
    until = np.minimum(last, index + question.negative_control_days)
    _add_negative_controls(reader, question, Window(person, index, until), frame, columns)
    window = Window(
        person,
        np.maximum(first, index + question.covariate_window[0]),
        index + question.covariate_window[1],
    )
    covariates = _demographics(people, rows, index)
    _add_histories(reader, question, window, covariates, columns)
    _add_measurements(reader, question, window, covariates, columns, people.records)
    table = pd.DataFrame(covariates)
    if extra is not None:
        table = _joined(table, extra, people.records)
    names = reader.concept_names(sorted(set(columns.values())))
    return OmopCohort(
        frame=pd.DataFrame(frame),
        covariates=table,
        alleles=alleles,
        index=pd.DataFrame(
            {
                "person_id": person,
                "outcome": frame["outcome"],
                "index_date": _dates(index),
                "observation_start": _dates(first),
                "observation_end": _dates(last),
            }
        ),
        exclusions=exclusions,
        genotype_report=report,
        records=people.records,
        concepts=pd.DataFrame(
            {
                "column": list(columns),
                "concept_id": list(columns.values()),
                "concept_name": [names.get(concept) for concept in columns.values()],
            }
        ),
        settings=question.settings(rng),
        n_people=len(people.person),
    )


def _check_both(people: _People, exclusions: pd.DataFrame) -> None:
    """Refuse a cohort without cases or without controls, and say where they went."""
    lost = exclusions[exclusions["people"] > 0]
    reasons = ", ".join(f"{r} {n}" for r, n in zip(lost["reason"], lost["people"], strict=True))
    for name in ("case", "control"):
        if not (people.status == name).any():
            received = f"none among {len(people.person)} people (excluded: {reasons or 'nobody'})"
            raise check.fail("database", f"at least one {name}", received)


def _compact(column: Array) -> Array:
    """Whole dosages without missing ones as int8."""
    whole = np.isfinite(column).all() and (column == np.round(column)).all()
    return column.astype(np.int8) if whole else np.ascontiguousarray(column)


def _dates(days: Days) -> Array:
    return days.astype("datetime64[D]").astype("datetime64[s]")


# ------------------------------------------------------------------------ people and index


def _people(reader: CdmReader) -> _People:
    person, sex, year, month, day = reader.people()
    if not person.size:
        raise check.fail("database", "at least one person in PERSON", "an empty table")
    order = np.argsort(person, kind="stable")
    person = person[order]
    if person[0] == _NO_DAY or (person[1:] == person[:-1]).any():
        raise check.fail("database", "one row per person in PERSON", "a repeated or missing id")
    birth = birth_days(year[order], month[order], day[order], _NO_DAY)
    status = np.full(len(person), "", dtype=object)
    return _People(person, sex[order], birth, status)


def _periods(reader: CdmReader, people: _People) -> Periods:
    person, first, last = reader.observation_periods()
    place = people.place(person)
    stranger = place < 0
    reversed_ = ~stranger & ((first == _NO_DAY) | (last == _NO_DAY) | (last < first))
    good = ~stranger & ~reversed_
    if not good.any():
        raise check.fail("database", "at least one valid observation period", "none")
    merged = merge_periods(place[good], first[good], last[good])
    people.records["observation periods of people who are not in PERSON"] = int(stranger.sum())
    people.records["observation periods without a valid start and end"] = int(reversed_.sum())
    people.records["observation periods joined to one that they touch or overlap"] = int(
        good.sum()
    ) - len(merged.person)
    return merged


def _outcome(reader: CdmReader, people: _People, question: Question) -> Days:
    """Day of the first outcome record of each person."""
    if question.outcome_cohort is not None:
        person, day = reader.cohort_entries(question.outcome_cohort)
    else:
        person, day = reader.conditions(question.outcome_concepts, question.include_descendants)
    place = people.place(person)
    people.records["people with an outcome who are not in PERSON"] = len(
        np.unique(person[place < 0])
    )
    good = place >= 0
    day = np.where(day == _NO_DAY, FAR, day)  # an outcome, though outside observation
    first = first_days(place[good], day[good], len(people.person), _NO_DAY)
    people.records["people with outcome records of which none has a date"] = int(
        (first == FAR).sum()
    )
    return first


def _index_dates(
    people: _People,
    periods: Periods,
    outcome: Days,
    question: Question,
    generator: np.random.Generator,
) -> tuple[Days, Days]:
    """Index of cases and controls, and the row of the observation period that holds it."""
    n = len(people.person)
    everyone = np.arange(n)
    with_outcome = outcome != _NO_DAY
    youngest, oldest = question.age
    grown, aged = birthdays(people.birth, youngest), birthdays(people.birth, oldest + 1) - 1

    outcome = np.where(with_outcome, outcome, -FAR)
    index = outcome + question.index_offset_days
    row = np.where(with_outcome, periods.find(everyone, outcome), -1)
    people.exclude(with_outcome & (row < 0), "outcome_outside_observation")
    too_early = index - periods.first[row] < question.washout_days
    people.exclude(with_outcome & too_early, "washout")
    people.exclude(with_outcome & ((index < grown) | (index > aged)), "age")
    outside = (index < question.index_dates[0]) | (index > question.index_dates[1])
    people.exclude(with_outcome & outside, "index_date")
    people.status[with_outcome & (people.status == "")] = "case"

    case = people.status == "case"
    eligible = Periods(
        periods.person,
        np.maximum(
            np.maximum(periods.first + question.washout_days, grown[periods.person]),
            question.index_dates[0],
        ),
        np.minimum(np.minimum(periods.last, aged[periods.person]), question.index_dates[1]),
    )
    candidate = people.status == ""
    until = np.where(case, index, FAR)[periods.person]
    at_risk = eligible._replace(last=np.minimum(eligible.last, until))
    usable = (at_risk.first <= at_risk.last) & (candidate | case)[periods.person]
    origin = np.where(question.control_index == "time", periods.first, 0)
    hopeful = np.zeros(n, dtype=np.bool_)
    hopeful[periods.person[usable]] = True
    people.exclude(~hopeful, "no_eligible_day")
    of_controls = np.flatnonzero(usable & candidate[periods.person])
    shift = origin[of_controls]
    chosen, drawn = draw_index(
        generator.random(n),
        Periods(
            periods.person[of_controls],
            eligible.first[of_controls] - shift,
            eligible.last[of_controls] - shift,
        ),
        index[case] - origin[row[case]],
        (at_risk.first[usable] - origin[usable], at_risk.last[usable] - origin[usable]),
    )
    people.exclude(chosen < 0, "no_comparable_index")
    found = chosen >= 0
    row[found] = of_controls[chosen[found]]
    index[found] = drawn[found] + origin[row[found]]
    control = people.status == ""
    if question.controls_per_case is not None:
        wanted = round(question.controls_per_case * int(case.sum()))
        order = generator.permutation(np.flatnonzero(control))
        people.status[order[wanted:]] = "not_sampled"
        control = people.status == ""
    people.status[control] = "control"
    return index, row


def _exclusions(people: _People, outcome: Days) -> pd.DataFrame:
    counts = {
        reason: (people.status == reason, (people.status == reason) & (outcome != _NO_DAY))
        for reason in EXCLUSIONS
    }
    return pd.DataFrame(
        {
            "reason": list(EXCLUSIONS),
            "description": list(EXCLUSIONS.values()),
            "people": [int(count[0].sum()) for count in counts.values()],
            "with_outcome": [int(count[1].sum()) for count in counts.values()],
        }
    )


# ----------------------------------------------------------------- genotypes and covariates


def _genotypes(reader: CdmReader, people: _People, question: Question) -> Genotypes:
    collected = GenotypeReader(question.snps, question.instrument_alleles, people.person)
    for batch in reader.genotypes(question.snps):
        collected.add(*batch)
    typed = None
    if question.absent_is_reference:
        typed = np.isin(people.person, reader.genotyped_people())
    genotypes = collected.result(absent_is_reference=question.absent_is_reference, typed=typed)
    people.records["genotypes of people who are not in PERSON"] = collected.unknown_people
    lost = genotypes.report[genotypes.report["reason"] != "used"]
    if not genotypes.snps:
        raise check.fail(
            "instruments",
            "at least one SNP with genotypes in the database",
            ", ".join(f"{r}: {n}" for r, n in lost["reason"].value_counts().sort_index().items()),
        )
    observed = np.isfinite(genotypes.dosages)
    variants_only = not (genotypes.dosages == 0).any() and not observed.all()
    if variants_only and not question.absent_is_reference and observed.sum() >= 20:
        warnings.warn(
            "no genotype of any SNP is homozygous for the reference, and many are missing: if the "
            "table holds calls with an alternate allele only, use absent_is_reference=True",
            OmopWarning,
            stacklevel=4,
        )
    if len(lost):
        shown = [f"{snp} ({why})" for snp, why in zip(lost["snp"], lost["reason"], strict=True)]
        more = "" if len(shown) <= 5 else f" and {len(shown) - 5} more (see genotype_report)"
        warnings.warn(
            f"SNPs that are not in the cohort: {', '.join(shown[:5])}{more}",
            OmopWarning,
            stacklevel=4,
        )
    return genotypes


def _allele_tables(genotypes: Genotypes, dosages: Array) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Alleles of the site, and the report with what is missing among cases and controls."""
    observed = np.isfinite(dosages)
    number = observed.sum(axis=0)
    total = np.where(observed, dosages, 0.0).sum(axis=0)
    frequency = np.where(number > 0, total / (2.0 * np.maximum(number, 1)), np.nan)
    alleles = pd.DataFrame(
        {
            "snp": list(genotypes.snps),
            "coded_allele": [coded for coded, _ in genotypes.alleles],
            "other_allele": [other for _, other in genotypes.alleles],
            "frequency": frequency,
        }
    )
    used = pd.DataFrame(
        {
            "snp": list(genotypes.snps),
            "missing": len(dosages) - number,
            "frequency": frequency,
        }
    )
    report = genotypes.report.merge(used, on="snp", how="left", sort=False)
    report["missing"] = report["missing"].fillna(len(dosages)).astype(np.int64)
    return alleles, report


def _demographics(people: _People, rows: Array, index: Days) -> dict[str, Array]:
    sex = people.sex[rows]
    year = index.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    covariates: dict[str, Array] = {
        "person_id": people.person[rows],
        "age": (index - people.birth[rows]) / DAYS_PER_YEAR,
        "female": (sex == SEX["female"]).astype(np.int8),
        "index_year": year,
    }
    unknown = ~np.isin(sex, list(SEX.values()))
    if unknown.any():
        covariates["sex_unknown"] = unknown.astype(np.int8)
    return covariates


def _add_negative_controls(
    reader: CdmReader,
    question: Question,
    window: Window,
    frame: dict[str, Array],
    columns: dict[str, int],
) -> None:
    wanted = question.negative_controls
    if not wanted:
        return
    events = reader.events("condition", wanted, question.include_descendants)
    for concept, flag in zip(wanted, histories(events, window, wanted)[1].T, strict=True):
        columns[f"nc_outcome_{concept}"] = concept
        frame[f"nc_outcome_{concept}"] = flag


def _add_histories(
    reader: CdmReader,
    question: Question,
    window: Window,
    covariates: dict[str, Array],
    columns: dict[str, int],
) -> None:
    for domain, wanted in (("condition", question.conditions), ("drug", question.drugs)):
        if isinstance(wanted, float):
            found = histories(reader.events(domain, None, False), window, None, wanted)
        elif wanted:
            found = histories(
                reader.events(domain, wanted, question.include_descendants), window, wanted
            )
        else:
            continue
        for concept, flag in zip(found[0], found[1].T, strict=True):
            columns[f"{domain}_{concept}"] = concept
            covariates[f"{domain}_{concept}"] = flag


def _add_measurements(
    reader: CdmReader,
    question: Question,
    window: Window,
    covariates: dict[str, Array],
    columns: dict[str, int],
    records: dict[str, int],
) -> None:
    if not question.measurements:
        return
    values, other_units = latest_values(
        reader.measurements(question.measurements), window, question.measurements
    )
    records["measurements in another unit than the most common one"] = int(other_units.sum())
    for j, concept in enumerate(question.measurements):
        column = values[:, j]
        missing = np.isnan(column)
        if missing.all():
            warnings.warn(
                f"measurement {concept}: nobody has a value in the window; no covariate",
                OmopWarning,
                stacklevel=4,
            )
            continue
        name = f"measurement_{concept}"
        columns[name] = concept
        covariates[name] = np.where(missing, column[~missing].mean(), column)
        if missing.any():
            covariates[f"{name}_missing"] = missing.astype(np.int8)


def _joined(table: pd.DataFrame, extra: pd.DataFrame, records: dict[str, int]) -> pd.DataFrame:
    common = [name for name in extra.columns if name in table.columns and name != "person_id"]
    if common:
        raise check.fail("person_covariates", "columns of other names", repr(common[0]))
    absent = ~table["person_id"].isin(extra["person_id"])
    records["people of the cohort who are not in person_covariates"] = int(absent.sum())
    return table.merge(extra, on="person_id", how="left", sort=False)
