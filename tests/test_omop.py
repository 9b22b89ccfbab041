from __future__ import annotations

import datetime
import hashlib
import re
import sqlite3
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import omop_postgres
import pandas as pd
import pytest

import mrfast
from mrfast.errors import InvalidInputError, MissingExtraError
from mrfast.io.omop import OmopWarning, queries
from mrfast.io.omop.genotypes import GenotypeReader
from mrfast.io.omop.index_dates import Periods, draw_index, merge_periods
from mrfast.simulation import omop_database

sa = pytest.importorskip("sqlalchemy")

OUTCOME, OTHER, DRUG, TEST = 100, 200, 300, 400
COLUMNS = {
    "person": "person_id gender_concept_id year_of_birth month_of_birth day_of_birth",
    "observation_period": "person_id observation_period_start_date observation_period_end_date",
    "condition_occurrence": "person_id condition_concept_id condition_start_date",
    "drug_exposure": "person_id drug_concept_id drug_exposure_start_date drug_exposure_end_date",
    "measurement": (
        "person_id measurement_concept_id measurement_date value_as_number unit_concept_id"
    ),
    "cohort": "cohort_definition_id subject_id cohort_start_date",
    "concept_ancestor": "ancestor_concept_id descendant_concept_id",
    "variant_occurrence": "person_id rs_id genotype reference_allele alternate_allele",
}
START, END = "2000-01-01", "2009-12-31"
TEXT = {"rs_id", "snp_name", "genotype", "reference_allele", "alternate_allele", "genetic_origin"}


def day(text):
    return datetime.date.fromisoformat(text)


def cdm(**tables):
    """A database in memory, from lists of rows; people 1 to n with an observation of ten years.

    A case, person 1 with the outcome on 2005-06-01, is there unless the conditions are given.
    """
    n = tables.pop("n", 6)
    defaults = {
        "person": [(i, 8532 if i % 2 else 8507, 1950 + i, 5, 20) for i in range(1, n + 1)],
        "observation_period": [(i, START, END) for i in range(1, n + 1)],
        "condition_occurrence": [(1, OUTCOME, "2005-06-01")],
        "variant_occurrence": [(i, "rs1", "0/1", "A", "G") for i in range(1, n + 1)],
    }
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    metadata = sa.MetaData()
    columns = COLUMNS | tables.pop("columns", {})
    rows = {name: [] for name in columns} | defaults | tables
    with engine.begin() as connection:
        for name, names in columns.items():
            kinds = [
                sa.Date() if column.endswith("date") else sa.String() if column in TEXT
                else sa.Float() if column == "value_as_number" else sa.Integer()
                for column in names.split()
            ]  # fmt: skip
            made = [sa.Column(c, kind) for c, kind in zip(names.split(), kinds, strict=True)]
            table = sa.Table(name, metadata, *made)
            table.create(connection)
            for row in rows[name]:
                values = dict(zip(names.split(), row, strict=True))
                for key in values:
                    if key.endswith("date") and values[key]:
                        values[key] = day(values[key])
                connection.execute(table.insert(), values)
    return engine


def read(engine, **options):
    options = {"instruments": ["rs1"], "outcome_concepts": OUTCOME} | options
    if options.get("outcome_cohort"):
        del options["outcome_concepts"]
    return mrfast.read_omop_cohort(engine, **options)


def people(cohort, outcome=None):
    frame = cohort.frame
    return list(
        frame["person_id"] if outcome is None else frame.person_id[frame.outcome == outcome]
    )


def excluded(cohort):
    counts = cohort.exclusions.set_index("reason")["people"]
    return {reason: int(count) for reason, count in counts.items() if count}


def column(cohort, name, table="covariates"):
    frame = getattr(cohort, table).set_index("person_id")
    return frame[name].to_dict()


TABLES = ("frame", "covariates", "alleles", "index", "exclusions", "genotype_report", "concepts")


def assert_same(first, second):
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name), check_exact=True)
    assert first.records == second.records
    for a, b in zip(first.frame.items(), second.frame.items(), strict=True):
        assert a[1].to_numpy().tobytes() == b[1].to_numpy().tobytes()


@pytest.fixture(scope="module")
def simulated():
    made = omop_database(n_persons=1500, snps=5, rng=7)
    yield made
    made.close()


def everything(simulated):
    return {
        "instruments": simulated.instruments,
        "outcome_concepts": simulated.outcome_concept,
        "negative_controls": simulated.negative_controls,
        "conditions": [simulated.condition],
        "drugs": 0.01,
        "measurements": simulated.measurement,
    }


@pytest.fixture(scope="module")
def cohort(simulated):
    return mrfast.read_omop_cohort(simulated.engine, **everything(simulated))


# ------------------------------------------------------------------- the simulated database


def test_cases_controls_and_dosages_are_the_true_ones(simulated, cohort):
    truth = simulated.people.set_index("person_id")
    status = truth["status"]
    assert people(cohort, 1) == sorted(status.index[status == "case"])
    assert people(cohort, 0) == sorted(status.index[status == "control"])
    assert excluded(cohort) == {
        "no_observation": (status == "unobserved").sum(),
        "washout": (status == "prevalent").sum(),
        "outcome_outside_observation": (status == "outside").sum(),
    }
    true = pd.DataFrame(simulated.dosages, index=truth.index, columns=simulated.alleles["snp"])
    read_ = cohort.frame.set_index("person_id")[true.columns]
    known = read_.notna()
    assert known.to_numpy().mean() > 0.95
    assert not known.to_numpy().all()
    wrong = (read_ != true.loc[read_.index]) & known
    assert wrong.to_numpy().sum() == 0
    cases = cohort.index[cohort.index["outcome"] == 1].set_index("person_id")["index_date"]
    pd.testing.assert_series_equal(
        cases, truth.loc[cases.index, "index_date"], check_names=False, check_dtype=False
    )


def test_the_frame_is_what_a_site_fit_takes(simulated, cohort):
    negative = [f"nc_outcome_{concept}" for concept in simulated.negative_controls]
    snps = list(simulated.instruments["snp"])
    assert list(cohort.frame) == ["person_id", "outcome", *snps, *negative]
    assert cohort.frame["person_id"].dtype == np.int64
    assert cohort.frame["person_id"].is_monotonic_increasing
    assert cohort.frame["person_id"].is_unique
    assert set(cohort.frame["outcome"]) == {0, 1}
    assert list(cohort.covariates["person_id"]) == people(cohort)
    assert cohort.covariates.notna().to_numpy().all()
    assert list(cohort.alleles) == ["snp", "coded_allele", "other_allele", "frequency"]
    merged = cohort.alleles.merge(simulated.alleles, on="snp")
    assert (merged["coded_allele"] == merged["alternate_allele"]).all()
    assert (merged["other_allele"] == merged["reference_allele"]).all()


def test_everybody_is_counted_once(cohort):
    assert cohort.n_cases + cohort.n_controls == len(cohort.frame)
    assert len(cohort.frame) + cohort.exclusions["people"].sum() == cohort.n_people == 1500
    text = str(cohort)
    assert f"{cohort.n_controls:,}" in text
    assert "fewer days observed" in text
    assert repr(cohort).startswith("OmopCohort(n_cases=")


def test_outcome_by_cohort_definition_is_the_same(simulated, cohort):
    options = everything(simulated)
    del options["outcome_concepts"]
    other = mrfast.read_omop_cohort(simulated.engine, outcome_cohort=1, **options)
    assert_same(cohort, other)


def test_reproducible_and_seeded(simulated, cohort):
    again = mrfast.read_omop_cohort(simulated.engine, **everything(simulated))
    assert_same(cohort, again)
    other = mrfast.read_omop_cohort(simulated.engine, **everything(simulated), rng=5)
    controls = (cohort.frame["outcome"] == 0).to_numpy()
    differs = cohort.index["index_date"] != other.index["index_date"]
    assert differs[controls].mean() > 0.9
    assert not differs[~controls].any()


def test_batches_do_not_matter(simulated, cohort, monkeypatch):
    monkeypatch.setattr(queries, "BATCH", 83)
    assert_same(cohort, mrfast.read_omop_cohort(simulated.engine, **everything(simulated)))


def test_covariates_and_negative_controls_mean_the_same_for_both(simulated, cohort):
    """The defect: controls indexed at the end of observation have no later negative controls,
    and covariates asked for by the outcome cohort are all zero in controls."""
    control = (cohort.frame["outcome"] == 0).to_numpy()
    later = cohort.frame[[f"nc_outcome_{c}" for c in simulated.negative_controls]]
    rates = later[control].mean(), later[~control].mean()
    assert (rates[0] > 0.1).all()
    pooled = later.mean()
    error = np.sqrt(pooled * (1 - pooled) * (1 / control.sum() + 1 / (~control).sum()))
    assert (abs(rates[0] - rates[1]) < 4 * error).all()
    history = cohort.covariates.filter(regex="^(condition|drug)_")
    assert history.shape[1] == 2
    assert (history[control].mean() > 0.05).all()
    seen = 1 - cohort.covariates.filter(regex="_missing$")
    assert (seen[control].mean() > 0.3).all()


def test_simulated_effect_is_the_true_one():
    made = omop_database(n_persons=8_000, snps=1, effect=0.5, untidy=False, rng=3)
    with made.engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT person_id, observation_period_start_date, year_of_birth FROM person "
                    "JOIN observation_period USING (person_id)")
        ).all()  # fmt: skip
    made.close()
    age = pd.Series({row[0]: int(row[1][:4]) - row[2] for row in rows})
    truth = made.people
    x = np.column_stack(
        [
            np.ones(len(truth)),
            truth["exposure"],
            truth["confounder"],
            age.loc[truth["person_id"]] - 50,
        ]
    )
    y = (truth["status"] == "case").to_numpy(float)
    b = np.zeros(4)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ b))
        information = x.T @ (x * (p * (1 - p))[:, None])
        b = b + np.linalg.solve(information, x.T @ (y - p))
    error = np.sqrt(np.diag(np.linalg.inv(information)))
    assert (abs(b[1:] - [made.effect, 0.5, 0.02]) < 4 * error[1:]).all()


def test_simulation_never_replaces_tables(simulated):
    with pytest.raises(InvalidInputError, match="without the tables"):
        omop_database(simulated.engine, n_persons=5)
    with pytest.raises(InvalidInputError, match="database"):
        omop_database(3)


# ---------------------------------------------------------------------------------- outcome


def test_outcome_in_the_washout_makes_neither_case_nor_control():
    """The defect: people in the outcome cohort who fail the washout are taken for controls."""
    engine = cdm(
        condition_occurrence=[
            (1, OUTCOME, "2005-06-01"),
            (2, OUTCOME, "2000-06-01"),  # in the washout,
            (2, OUTCOME, "2005-06-01"),  # and once more after it
            (3, OUTCOME, "1999-06-01"),  # before observation
            (4, OUTCOME, "2010-06-01"),  # after it
        ]
    )
    cohort = read(engine)
    assert people(cohort, 1) == [1]
    assert people(cohort, 0) == [5, 6]
    assert excluded(cohort) == {"washout": 1, "outcome_outside_observation": 2}
    assert cohort.exclusions["with_outcome"].sum() == 3


@pytest.mark.parametrize(("outcome", "is_case"), [("2000-12-30", False), ("2000-12-31", True)])
def test_washout_is_a_number_of_days(outcome, is_case):
    engine = cdm(condition_occurrence=[(1, OUTCOME, outcome), (2, OUTCOME, "2005-01-01")])
    assert (1 in people(read(engine, washout_days=365), 1)) == is_case


def test_descendants_of_the_outcome_count():
    tables = {
        "condition_occurrence": [(1, 101, "2005-06-01"), (2, 102, "2005-06-01")],
        "concept_ancestor": [(OUTCOME, OUTCOME), (OUTCOME, 101), (OUTCOME, 102), (102, 102)],
    }
    assert people(read(cdm(**tables)), 1) == [1, 2]
    both = read(cdm(**tables), outcome_concepts=[101, 102], include_descendants=False)
    assert people(both, 1) == [1, 2]
    with pytest.raises(InvalidInputError, match="at least one case"):
        read(cdm(**tables), include_descendants=False)


def test_earliest_record_is_the_index_whatever_the_order():
    days = ["2006-01-01", "2005-06-01", "2005-06-01", "2007-01-01"]
    engine = cdm(condition_occurrence=[(1, OUTCOME, text) for text in days])
    index = column(read(engine), "index_date", "index")
    assert index[1] == pd.Timestamp("2005-06-01")


def test_outcome_without_date_or_person_is_counted():
    engine = cdm(
        condition_occurrence=[(1, OUTCOME, "2005-06-01"), (2, OUTCOME, None), (77, OUTCOME, START)]
    )
    cohort = read(engine)
    assert 2 not in people(cohort)
    assert cohort.records["people with outcome records of which none has a date"] == 1
    assert cohort.records["people with an outcome who are not in PERSON"] == 1


def test_a_blank_date_does_not_hide_the_dated_record():
    """The defect: the database's least text is the blank, so that the case is lost."""
    engine = cdm()
    with engine.begin() as connection:
        for text in ("", "2004-06-01 12:00:00"):
            connection.exec_driver_sql(
                f"INSERT INTO condition_occurrence VALUES (1, {OUTCOME}, '{text}')"
            )
    cohort = read(engine)
    assert column(cohort, "index_date", "index")[1] == pd.Timestamp("2004-06-01")
    assert cohort.records["people with outcome records of which none has a date"] == 0


# ------------------------------------------------------------------------------ observation


def test_periods_that_overlap_or_touch_are_one():
    person = np.array([1, 0, 0, 0, 1, 2])
    first = np.array([10, 50, 1, 3, 12, 5])
    last = np.array([11, 60, 49, 20, 30, 5])
    merged = merge_periods(person, first, last)
    np.testing.assert_array_equal(merged.person, [0, 1, 2])
    np.testing.assert_array_equal(merged.first, [1, 10, 5])
    np.testing.assert_array_equal(merged.last, [60, 30, 5])
    apart = merge_periods(np.array([0, 0]), np.array([1, 5]), np.array([3, 9]))
    np.testing.assert_array_equal(apart.first, [1, 5])


def test_washout_is_counted_in_the_period_that_holds_the_index():
    """Days before a gap in observation do not count."""
    split = [(1, START, "2005-01-01"), (1, "2005-03-01", END)]
    joined = [(1, START, "2005-03-01"), (1, "2005-02-01", END)]
    others = [(i, START, END) for i in range(2, 7)]
    conditions = [(1, OUTCOME, "2005-06-01"), (2, OUTCOME, "2005-06-01")]
    cohort = read(cdm(observation_period=split + others, condition_occurrence=conditions))
    assert excluded(cohort) == {"washout": 1}
    cohort = read(cdm(observation_period=joined + others, condition_occurrence=conditions))
    assert people(cohort, 1) == [1, 2]


def test_unusable_periods_are_counted():
    periods = [
        (1, START, END),
        (2, START, END),
        (3, END, START),  # ends before it starts
        (4, START, None),
        (5, "2005-01-01", "2005-10-01"),  # too short for the washout
        (77, START, END),
    ]
    cohort = read(cdm(observation_period=periods))
    assert excluded(cohort) == {"no_observation": 3, "no_eligible_day": 1}
    assert cohort.records["observation periods without a valid start and end"] == 2
    assert cohort.records["observation periods of people who are not in PERSON"] == 1


def test_index_of_controls_is_a_case_day_in_their_own_eligible_time():
    conditions = [(1, OUTCOME, "2003-06-01"), (2, OUTCOME, "2007-06-01")]
    periods = [(i, START, END) for i in (1, 2, 3)]
    periods += [(4, START, "2005-01-01"), (5, "2004-01-01", END), (6, "2004-01-01", "2007-01-01")]
    cohort = read(cdm(condition_occurrence=conditions, observation_period=periods))
    index = column(cohort, "index_date", "index")
    assert index[4] == pd.Timestamp("2003-06-01")
    assert index[5] == pd.Timestamp("2007-06-01")
    assert index[3] in (index[4], index[5])
    assert excluded(cohort) == {"no_comparable_index": 1}


def test_index_by_time_since_the_beginning_of_observation():
    conditions = [(1, OUTCOME, "2003-06-01")]
    periods = [(1, START, END), (2, "2001-01-01", END), (3, START, "2003-01-01")]
    engine = cdm(n=3, condition_occurrence=conditions, observation_period=periods)
    cohort = read(engine, control_index="time")
    index = column(cohort, "index_date", "index")
    elapsed = pd.Timestamp("2003-06-01") - pd.Timestamp(START)
    assert index[2] == pd.Timestamp("2001-01-01") + elapsed
    assert excluded(cohort) == {"no_comparable_index": 1}


def test_index_of_controls_has_the_distribution_of_the_cases():
    """An outcome that happens regardless of who one is: cases and controls are then alike.

    The wrong way counts each case alike. Where ever more people are observed, late days are
    favoured twice, and controls sit later in their own time than cases do.
    """
    rng = np.random.default_rng(1)
    n, end = 40_000, 6000
    first = np.maximum(end + 1000 * np.log(rng.random(n)), 0).astype(np.int64)  # ever more people
    last = np.minimum(first + rng.integers(200, 3000, n), end)
    event = first + rng.exponential(20_000, n).astype(np.int64)
    case = event <= last
    controls = Periods(np.arange((~case).sum()), first[~case], last[~case])
    uniform = rng.random((~case).sum())
    row, index = draw_index(uniform, controls, event[case], (first, np.where(case, event, last)))
    found = row >= 0
    assert (row[found] == np.arange(len(row))[found]).all()
    assert found.mean() > 0.98
    assert (index >= controls.first)[found].all()
    assert (index <= controls.last)[found].all()

    def place(day):
        return ((day - controls.first) / np.maximum(controls.last - controls.first, 1))[found]

    error = np.sqrt(1 / 12 * (1 / case.sum() + 1 / found.sum()))
    assert abs(place(index).mean() - 0.5) < 4 * error
    days = np.sort(event[case])
    low, high = np.searchsorted(days, controls.first), np.searchsorted(days, controls.last, "right")
    picked = np.minimum((low + uniform * (high - low)).astype(int), len(days) - 1)
    assert place(days[picked]).mean() - 0.5 > 6 * error  # the wrong way


# ----------------------------------------------------------------- offset, age, sex, dates


def test_index_offset_moves_the_index_of_cases():
    """The defect: the offset is accepted and ignored."""
    cohort = read(cdm(), index_offset_days=-30)
    index = column(cohort, "index_date", "index")
    assert set(index.values()) == {pd.Timestamp("2005-05-02")}
    with pytest.raises(InvalidInputError, match="index_offset_days"):
        read(cdm(), index_offset_days=10)


def test_age_and_sex_are_covariates():
    """The defect: age and sex reach no model unless they are built by hand."""
    covariates = read(cdm()).covariates.set_index("person_id")
    assert list(covariates.columns) == ["age", "female", "index_year"]
    days = (day("2005-06-01") - day("1951-05-20")).days
    assert covariates.loc[1, "age"] == days / 365.25
    assert covariates["female"].to_dict() == {1: 1, 2: 0, 3: 1, 4: 0, 5: 1, 6: 0}
    assert (covariates["index_year"] == 2005).all()


def test_unknown_sex_and_incomplete_birth_dates():
    person = [(1, 8532, 1950, 5, None), (2, 0, 1950, None, None), (3, 8507, None, 1, 1)]
    cohort = read(cdm(n=3, person=person))
    assert column(cohort, "sex_unknown") == {1: 0, 2: 1}
    age = column(cohort, "age")
    assert age[1] == (day("2005-06-01") - day("1950-05-15")).days / 365.25
    assert age[2] == (day("2005-06-01") - day("1950-07-01")).days / 365.25
    assert excluded(cohort) == {"no_birth_year": 1}


def test_restriction_by_age_sex_and_dates():
    conditions = [
        (1, OUTCOME, "2005-06-01"),
        (2, OUTCOME, "2005-06-01"),
        (3, OUTCOME, "2008-01-01"),
    ]
    engine = cdm(n=8, condition_occurrence=conditions)
    cohort = read(engine, sex="female")
    assert people(cohort) == [1, 3, 5, 7]
    assert excluded(cohort) == {"sex": 4}
    cohort = read(engine, index_dates=("2005-01-01", datetime.date(2005, 12, 31)))
    assert people(cohort, 1) == [1, 2]
    assert excluded(cohort) == {"index_date": 1}
    assert set(column(cohort, "index_date", "index").values()) == {pd.Timestamp("2005-06-01")}
    cohort = read(engine, age=(53, None))  # person 1 is 54, person 2 53 years old at the index
    assert people(cohort, 1) == [1, 2, 3]
    ages = np.array(list(column(cohort, "age").values()))
    assert (ages >= 53).all()
    cohort = read(engine, age=(None, 53))
    assert people(cohort, 1) == [2]
    assert (np.array(list(column(cohort, "age").values())) < 54).all()
    assert excluded(cohort)["age"] == 2


@pytest.mark.parametrize(
    ("born", "index", "age"),
    [
        ((2001, 3, 1), "2019-03-01", 18),
        ((2001, 3, 1), "2019-02-28", 17),
        ((1997, 6, 1), "2007-06-01", 10),
        ((2000, 2, 29), "2018-02-28", 17),
        ((2000, 2, 29), "2018-03-01", 18),
    ],
)
def test_age_is_completed_at_the_birthday(born, index, age):
    """Wrong: 365.25 days for a year, by which some turn 18 the day after their birthday."""
    engine = cdm(
        person=[(1, 8507, *born), (2, 8507, 1950, 1, 1), (3, 8507, *born)],
        n=3,
        observation_period=[(i, START, "2021-12-31") for i in (1, 2, 3)],
        condition_occurrence=[(1, OUTCOME, index)],
    )
    assert people(read(engine, age=(age, age))) == [1, 3]
    for limits in ((age + 1, None), (None, age - 1)):
        with pytest.raises(InvalidInputError, match="age 1"):
            read(engine, age=limits)


def test_controls_per_case():
    cohort = read(cdm(n=30), controls_per_case=4)
    assert (cohort.n_cases, cohort.n_controls) == (1, 4)
    assert excluded(cohort) == {"not_sampled": 25}
    assert_same(cohort, read(cdm(n=30), controls_per_case=4))


# --------------------------------------------------------------- negative controls, covariates


def test_negative_controls_count_from_the_index_on_within_observation():
    days = {1: "2005-06-01", 2: "2005-05-31", 3: END, 4: "2010-01-01", 5: "2005-06-20"}
    conditions = [(1, OUTCOME, "2005-06-01")] + [(i, OTHER, text) for i, text in days.items()]
    engine = cdm(condition_occurrence=conditions)
    cohort = read(engine, negative_controls=OTHER)
    name = f"nc_outcome_{OTHER}"
    assert column(cohort, name, "frame") == {1: 1, 2: 0, 3: 1, 4: 0, 5: 1, 6: 0}
    cohort = read(engine, negative_controls=[OTHER, 201], negative_control_days=19)
    assert column(cohort, name, "frame") == {1: 1, 2: 0, 3: 0, 4: 0, 5: 1, 6: 0}
    assert not any(column(cohort, "nc_outcome_201", "frame").values())


def test_covariates_end_the_day_before_the_index():
    """The defect: the window holds the index day, on which the outcome itself is recorded."""
    days = {1: "2005-06-01", 2: "2005-05-31", 3: "2004-06-01", 4: "2004-05-31", 5: "2005-07-01"}
    conditions = [(1, OUTCOME, "2005-06-01")] + [(i, OTHER, text) for i, text in days.items()]
    cohort = read(cdm(condition_occurrence=conditions), conditions=[OTHER, OUTCOME])
    assert column(cohort, f"condition_{OTHER}") == {1: 0, 2: 1, 3: 1, 4: 0, 5: 0, 6: 0}
    assert not any(column(cohort, f"condition_{OUTCOME}").values())
    with pytest.raises(InvalidInputError, match="covariate_window"):
        read(cdm(), covariate_window=(-365, 0))


def test_drugs_count_while_they_are_taken():
    drugs = [
        (1, DRUG, "2005-06-01", "2005-07-01"),
        (2, DRUG, "2000-01-01", "2005-05-30"),
        (3, DRUG, "2000-01-01", "2004-05-31"),
        (4, DRUG, "2005-05-31", None),
        (5, 301, "2005-05-01", "2005-05-02"),
    ]
    ancestors = [(DRUG, DRUG), (DRUG, 301)]
    cohort = read(cdm(drug_exposure=drugs, concept_ancestor=ancestors), drugs=[DRUG])
    assert column(cohort, f"drug_{DRUG}") == {1: 0, 2: 1, 3: 0, 4: 1, 5: 1, 6: 0}


def test_all_conditions_of_a_prevalence():
    conditions = [(1, OUTCOME, "2005-06-01")]
    conditions += [(i, 201, "2005-05-01") for i in (1, 2, 3)] * 2
    conditions += [(4, 202, "2005-05-01"), (5, 0, "2005-05-01"), (6, 0, "2005-05-01")]
    conditions += [(i, 203, "2005-07-01") for i in range(1, 7)]
    cohort = read(cdm(condition_occurrence=conditions), conditions=0.3)
    assert [name for name in cohort.covariates if "condition" in name] == ["condition_201"]
    assert column(cohort, "condition_201") == {1: 1, 2: 1, 3: 1, 4: 0, 5: 0, 6: 0}
    assert list(cohort.concepts["concept_id"]) == [201]


def test_latest_measurement_in_the_common_unit():
    rows = [
        (1, TEST, "2005-05-01", 5.0, 1),
        (1, TEST, "2005-05-20", 7.0, 1),
        (1, TEST, "2005-06-01", 99.0, 1),  # the index day
        (2, TEST, "2005-05-20", 4.0, 1),
        (2, TEST, "2005-05-20", 4.0, 1),  # a duplicate
        (2, TEST, "2005-05-20", 6.0, 1),
        (3, TEST, "2005-05-20", 150.0, 2),  # another unit
        (4, TEST, "2005-05-20", None, 1),
    ]
    cohort = read(cdm(measurement=rows), measurements=[TEST])
    value, missing = (column(cohort, f"measurement_{TEST}{end}") for end in ("", "_missing"))
    assert value == {1: 7, 2: 5, 3: 6, 4: 6, 5: 6, 6: 6}  # the mean where missing
    assert missing == {1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 1}
    assert cohort.records["measurements in another unit than the most common one"] == 1
    with pytest.warns(OmopWarning, match="401"):
        cohort = read(cdm(measurement=rows), measurements=[401])
    assert not [name for name in cohort.covariates if "401" in name]


def test_own_table_of_covariates():
    table = pd.DataFrame({"person_id": [6, 1, 3, 99], "pc1": [0.6, 0.1, 0.3, 9.9]})
    cohort = read(cdm(), person_covariates=table)
    values = column(cohort, "pc1")
    assert values[1] == 0.1
    assert values[6] == 0.6
    assert np.isnan(values[2])
    assert cohort.records["people of the cohort who are not in person_covariates"] == 3
    for bad in (
        table.rename(columns={"pc1": "age"}),
        table.assign(person_id=1),
        table.drop(columns="person_id"),
        table.assign(person_id=["a", "b", "c", "d"]),
    ):
        with pytest.raises(InvalidInputError, match="person_covariates"):
            read(cdm(), person_covariates=bad)


# -------------------------------------------------------------------------------- genotypes


def dosage_of(genotype, reference="A", alternate="G", alleles=None):
    known = {} if alleles is None else {"rs1": alleles}
    reader = GenotypeReader(["rs1"], known, np.array([1, 2, 3]))
    rows = [(1, "rs1", genotype, reference, alternate, None)]
    rows += [(i, "rs1", "0/1", "A", "G", None) for i in (2, 3)]
    columns = [np.array(values, dtype=object) for values in zip(*rows, strict=True)]
    reader.add(columns[0].astype(np.int64), *columns[1:])
    found = reader.result(absent_is_reference=False)
    counts = found.report.iloc[0]
    reasons = [name for name in counts.index[5:] if counts[name] and name != "rows"]
    return found.dosages[0, 0], reasons


@pytest.mark.parametrize(
    ("genotype", "dosage"),
    [("0/0", 0), ("0|0", 0), ("0/1", 1), ("1/0", 1), ("0|1", 1), ("1|0", 1), ("1/1", 2),
     ("1.25e-1", 0.125), (".5", 0.5), ("1|1", 2), ("0", 0), ("1", 1), ("2", 2), ("1.6", 1.6),
     ("A/A", 0), ("A/G", 1), ("GG", 2), ("g|a", 1)],
)  # fmt: skip
def test_genotypes_count_the_alternate_allele(genotype, dosage):
    assert dosage_of(genotype) == (dosage, [])


@pytest.mark.parametrize(
    ("genotype", "reason"),
    [("./.", "no_call"), (".|.", "no_call"), (".", "no_call"), ("", "no_call"),
     (None, "no_call"), ("0/.", "half_call"), ("./1", "half_call"), ("A/T", "third_allele"),
     ("00", "unreadable"), ("01", "unreadable"), ("1_0", "unreadable"), ("-1", "unreadable"),
     ("0/2", "unreadable"), ("0/1/1", "unreadable"), ("2.1", "unreadable"),
     ("nan", "no_call"), ("inf", "unreadable"), ("heterozygous", "unreadable"),
     ("0/x", "unreadable"), ("N/N", "unreadable"), ("A/<DEL>", "unreadable")],
)  # fmt: skip
def test_genotypes_that_are_missing_say_why(genotype, reason):
    dosage, reasons = dosage_of(genotype)
    assert np.isnan(dosage)
    assert reasons == [reason]


def test_alleles_of_several_alternates():
    """The wrong ways: counting every digit above 0, or losing all of a multi-allelic site."""
    for genotype, dosage in [("0/2", 1), ("2/2", 2), ("0/0", 0), ("0/1", None), ("1/2", None)]:
        found, reasons = dosage_of(genotype, "A", "T,G", ("G", "A"))
        assert reasons == ([] if dosage is not None else ["third_allele"])
        assert found == dosage or dosage is None
    assert dosage_of("I/D", "I", "D", ("I", "D"))[0] == 1
    # 0/0 beside another alternate allele is still two copies of the reference.
    assert dosage_of("0/0", "A", "C", ("G", "A")) == (0, [])
    assert dosage_of("0/1", "A", "C", ("G", "A"))[1] == ["third_allele"]


def test_alternates_that_nothing_tells_apart_leave_the_snp_out_by_name():
    rows = [(i, "rs1", "0/2", "A", "G,T") for i in range(1, 7)]
    rows += [(i, "rs2", "0/1", "A", "G") for i in range(1, 7)]
    with pytest.warns(OmopWarning, match=r"rs1 \(alleles_differ\), rs3 \(no_rows\)"):
        cohort = read(cdm(variant_occurrence=rows), instruments=["rs1", "rs2", "rs3"])
    assert list(cohort.frame) == ["person_id", "outcome", "rs2"]
    assert "rs1: rows name different alleles" in str(cohort)
    instruments = pd.DataFrame({"snp": ["rs1"], "effect_allele": ["A"], "other_allele": ["T"]})
    cohort = read(cdm(variant_occurrence=rows), instruments=instruments.iloc[:1])
    assert cohort.alleles.iloc[0, :3].tolist() == ["rs1", "T", "A"]


def test_rows_that_write_the_alleles_the_other_way_round():
    """The wrong way: adding up digits of rows that count different alleles."""
    assert dosage_of("0/0", "G", "A") == (2, [])
    assert dosage_of("0/1", "G", "A") == (1, [])
    assert dosage_of("1/1", "G", "A") == (0, [])
    assert dosage_of("0.25", "G", "A") == (1.75, [])
    rows = [(i, "rs1", "0/0", *("AG" if i < 5 else "GA")) for i in range(1, 7)]
    cohort = read(cdm(variant_occurrence=rows))
    assert column(cohort, "rs1", "frame") == {1: 0, 2: 0, 3: 0, 4: 0, 5: 2, 6: 2}
    assert cohort.alleles["frequency"].tolist() == [4 / 12]


def test_rows_without_alleles():
    assert dosage_of("0/1", None, None) == (1, [])
    assert dosage_of("0/2", None, None)[1] == ["third_allele"]
    rows = [(i, "rs1", "0/1", None, None) for i in range(1, 7)]
    with pytest.raises(InvalidInputError, match="alleles_unknown: 1"):
        read(cdm(variant_occurrence=rows))
    rows[:2] = [(1, "rs1", "0/1", "A", "G"), (2, "rs1", "0/1", "G", "A")]
    cohort = read(cdm(variant_occurrence=rows))
    assert cohort.genotype_report["alleles_missing"].tolist() == [4]
    assert excluded(cohort) == {"not_genotyped": 4}


def test_repeated_and_contradictory_rows():
    """The wrong way: a join on repeated rows multiplies people."""
    rows = [(i, "rs1", "0/1", "A", "G") for i in range(1, 7)]
    rows += [(i, "rs2", "0/1", "A", "G") for i in range(1, 7)]
    rows += [(2, "rs1", "0|1", "A", "G"), (3, "rs1", "1/1", "A", "G"), (4, "rs1", "./.", "A", "G")]
    for order in (rows, rows[::-1]):
        cohort = read(cdm(variant_occurrence=order), instruments=["rs1", "rs2"])
        assert people(cohort) == [1, 2, 3, 4, 5, 6]
        dosages = column(cohort, "rs1", "frame")
        assert np.isnan(dosages.pop(3))
        assert set(dosages.values()) == {1}
        report = cohort.genotype_report.iloc[0]
        assert (report["duplicate"], report["disagreeing"], report["no_call"]) == (1, 2, 1)
        assert report["missing"] == 1
        assert cohort.frame["rs1"].dtype == np.float64
        assert cohort.frame["rs2"].dtype == np.int8


def test_absent_rows_are_missing_unless_the_table_holds_variants_only():
    rows = [(i, "rs1", "0/1", "A", "G") for i in (1, 2)] + [(3, "rs9", "1/1", "A", "G")]
    cohort = read(cdm(variant_occurrence=rows))
    assert people(cohort) == [1, 2]
    assert excluded(cohort) == {"not_genotyped": 4}
    cohort = read(cdm(variant_occurrence=rows), absent_is_reference=True)
    assert column(cohort, "rs1", "frame") == {1: 1, 2: 1, 3: 0}  # 4 to 6 were not genotyped
    assert excluded(cohort) == {"not_genotyped": 3}
    rows.append((3, "rs1", "./.", "A", "G"))
    rows.append((3, "rs2", "0/1", "A", "G"))
    cohort = read(
        cdm(variant_occurrence=rows), absent_is_reference=True, instruments=["rs1", "rs2"]
    )
    assert np.isnan(column(cohort, "rs1", "frame")[3])  # a call that failed is not absent


def test_table_of_variants_only_is_noticed():
    rows = [(i, snp, "0/1", "A", "G") for i in range(1, 31) for snp in ("rs1", "rs2") if i % 3]
    rows += [(30, "rs1", "1/1", "A", "G")]
    with pytest.warns(OmopWarning, match="absent_is_reference"):
        read(cdm(n=30, variant_occurrence=rows), instruments=["rs1", "rs2"])


def test_somatic_calls_are_not_genotypes():
    names = COLUMNS["variant_occurrence"] + " genetic_origin"
    rows = [(i, "rs1", "0/1", "A", "G", "germline") for i in range(1, 7)]
    rows += [(1, "rs1", "1/1", "A", "G", "Somatic"), (2, "rs1", "0/1", "A", "G", None)]
    engine = cdm(columns={"variant_occurrence": names}, variant_occurrence=rows)
    cohort = read(engine)
    assert set(column(cohort, "rs1", "frame").values()) == {1}
    assert cohort.genotype_report["somatic"].tolist() == [1]


def test_own_names_of_tables_and_columns():
    engine = cdm(
        columns={
            "variant_occurrence": "person_id rs_id",
            "gene_calls": "who snp_name call_text ref alt",
        },
        variant_occurrence=[],
        gene_calls=[(i, "1:2:A:G", i % 3, 5, 6) for i in range(1, 7)],
    )
    with pytest.raises(InvalidInputError, match="column genotype"):
        read(engine, instruments=["1:2:A:G"])
    cohort = read(
        engine,
        instruments=["1:2:A:G"],
        tables={"variant_occurrence": "gene_calls"},
        genotype_columns={"person_id": "who", "snp": "snp_name", "genotype": "call_text",
                          "reference_allele": "REF", "alternate_allele": "alt"},
    )  # fmt: skip
    assert column(cohort, "1:2:A:G", "frame") == {1: 1, 2: 2, 3: 0, 4: 1, 5: 2, 6: 0}


@pytest.mark.parametrize("link", ["specimen", "procedure_occurrence"])
def test_person_through_the_specimen_or_procedure(link):
    """The genomic extension's own table has no person_id."""
    engine = cdm(
        columns={
            link: f"{link}_id person_id",
            "variant_occurrence": f"{link}_id rs_id genotype reference_allele alternate_allele",
        },
        variant_occurrence=[(10 * i, "rs1", "0/1", "A", "G") for i in range(1, 7)],
        **{link: [(10 * i, i) for i in range(1, 7)]},
    )
    assert people(read(engine)) == [1, 2, 3, 4, 5, 6]


def test_a_view_serves_as_a_table():
    engine = cdm()
    with engine.begin() as connection:
        connection.execute(
            sa.text("CREATE VIEW adults AS SELECT * FROM person WHERE person_id < 5")
        )
    cohort = read(engine, tables={"person": "adults"})
    assert people(cohort) == [1, 2, 3, 4]
    assert cohort.records["genotypes of people who are not in PERSON"] == 2
    assert cohort.records["observation periods of people who are not in PERSON"] == 2


def test_names_are_identifiers_and_exist():
    for names in (
        {"tables": {"person": "person; DROP TABLE person"}},
        {"tables": {"person": 'per"son'}},
        {"tables": {"nonsense": "person"}},
        {"tables": "person"},
        {"schema": "a b"},
        {"schema": "a.b.c"},
        {"schema": ""},
        {"genotype_columns": {"snp": "rs_id--"}},
        {"genotype_columns": {"nonsense": "rs_id"}},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(names))):
            read(cdm(), **names)
    with pytest.raises(InvalidInputError, match=r"the table PERSON, received no table .*'people'"):
        read(cdm(), tables={"person": "people"})
    with pytest.raises(InvalidInputError, match=r"the column year_of_birth of PERSON"):
        read(cdm(columns={"person": "person_id gender_concept_id"}, person=[]))
    with pytest.raises(InvalidInputError, match=r"the column calls of VARIANT_OCCURRENCE"):
        read(cdm(), genotype_columns={"genotype": "calls"})


# --------------------------------------------------------------- the database stays as it is


def statements_of(engine):
    seen = []
    sa.event.listen(
        engine, "before_cursor_execute",
        lambda conn, cursor, statement, parameters, context, many: seen.append(
            (statement, parameters)
        ),
    )  # fmt: skip
    return seen


AWKWARD = "rs1'); DROP TABLE person; --"


def test_identifiers_are_never_part_of_a_statement():
    rows = [(i, snp, "0/1", "A", "G") for i in range(1, 7) for snp in ("rs1", AWKWARD)]
    engine = cdm(variant_occurrence=rows)
    seen = statements_of(engine)
    cohort = read(engine, instruments=["rs1", AWKWARD])
    assert list(cohort.frame)[2:] == ["rs1", AWKWARD]
    assert seen
    assert not any("DROP" in statement for statement, _ in seen)
    assert any(AWKWARD in parameters for _, parameters in seen)
    with pytest.warns(OmopWarning, match="no_rows"):
        read(engine, instruments=["rs1", "' OR 1=1 --"])


def test_only_select_statements(simulated):
    seen = statements_of(simulated.engine)
    mrfast.read_omop_cohort(simulated.engine, **everything(simulated))
    assert len(seen) > 10
    for statement, _ in seen:
        assert re.match(r"SELECT|PRAGMA (main\.)?table_", statement), statement
        assert "#" not in statement


def test_statements_compile_for_other_dialects(simulated):
    """What cannot be run here can at least be written: parameters stay parameters."""
    from sqlalchemy.dialects import mssql, mysql, oracle, postgresql

    seen = []

    def note(conn, element, *rest):
        if isinstance(element, sa.Select):
            seen.append(element)

    sa.event.listen(simulated.engine, "before_execute", note)
    mrfast.read_omop_cohort(simulated.engine, **everything(simulated))
    sa.event.remove(simulated.engine, "before_execute", note)
    assert len(seen) > 10
    for module in (mssql, mysql, oracle, postgresql):
        for statement in seen:
            text = str(statement.compile(dialect=module.dialect()))
            assert text.startswith("SELECT")
            assert not re.search(r"rs1000|20000000", text)


def test_duckdb_gives_the_same_bits(tmp_path, simulated, cohort):
    pytest.importorskip("duckdb_engine")
    path = tmp_path / "cdm.duckdb"
    made = omop_database(
        sa.create_engine(f"duckdb:///{path}", poolclass=sa.NullPool),
        n_persons=1500, snps=5, rng=7,
    )  # fmt: skip
    made.close()
    assert_same(cohort, mrfast.read_omop_cohort(path, **everything(simulated)))


def test_a_file_is_opened_for_reading_only(tmp_path, simulated, cohort):
    path = tmp_path / "cdm.sqlite"
    made = omop_database(path, n_persons=1500, snps=5, rng=7)
    made.close()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in (path, str(path), f"sqlite:///{path}", sa.make_url(f"sqlite:///{path}")):
        assert_same(cohort, mrfast.read_omop_cohort(name, **everything(simulated)))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["cdm.sqlite"]
    with queries.connected(path) as connection, pytest.raises(sa.exc.OperationalError):
        connection.execute(sa.text("DELETE FROM person"))
    for missing in (tmp_path / "none.sqlite", f"sqlite:///{tmp_path}/none.sqlite"):
        with pytest.raises(InvalidInputError, match="existing file"):
            read(missing)
    assert not (tmp_path / "none.sqlite").exists()


def test_connection_of_the_caller_stays_open(simulated, cohort):
    with simulated.engine.connect() as connection:
        assert_same(cohort, mrfast.read_omop_cohort(connection, **everything(simulated)))
        assert not connection.closed
        assert not connection.in_transaction()


def test_lists_longer_than_a_statement_may_hold():
    engine = cdm()
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    snps = [f"rs{i}" for i in range(1, 2500)]
    with pytest.warns(OmopWarning, match="2493 more"):
        cohort = read(engine, instruments=snps, outcome_concepts=range(1, 2500))
    assert list(cohort.frame)[2:] == ["rs1"]


def test_dates_as_drivers_and_databases_give_them():
    """DatabaseConnector stores dates in SQLite as seconds since 1970."""
    wanted = [-1, 0, queries.MISSING, 12_935, 12_935]
    for values in (
        [-86_400.0, 0.0, None, 1_117_584_000.0, 1_117_584_000],
        ["1969-12-31", "1970-01-01", "", "2005-06-01", "2005-06-01 23:59:59"],
        [day("1969-12-31"), day("1970-01-01"), None, datetime.datetime(2005, 6, 1, 23, 59),
         day("2005-06-01")],
    ):  # fmt: skip
        np.testing.assert_array_equal(queries._day("d", values), wanted)
    for bad in ("01/06/2005", "20050601", "2005-13-01", b"x", np.inf, np.nan, 1e300):
        with pytest.raises(InvalidInputError, match="dates"):
            queries._day("d", [bad])
    np.testing.assert_array_equal(
        queries._whole("i", [1, "2", 3.0, None]), [1, 2, 3, queries.MISSING]
    )
    for bad in ("x", 1.5, b"1x", 2**63, 2.0**63, "9223372036854775808", np.inf):
        with pytest.raises(InvalidInputError, match="whole numbers"):
            queries._whole("i", [bad])


# --------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"outcome_concepts": None}, "outcome_concepts: expected either"),
        ({"outcome_concepts": []}, "at least one concept"),
        ({"outcome_concepts": "100"}, "whole numbers"),
        ({"outcome_concepts": [1.5]}, "whole numbers"),
        ({"outcome_concepts": [True]}, "whole numbers"),
        ({"outcome_concepts": [1, 1]}, "distinct"),
        ({"outcome_concepts": 1 << 31}, "at most"),
        ({"instruments": []}, "at least one SNP"),
        ({"instruments": "rs1"}, "instruments"),
        ({"instruments": ["rs1", "rs1"]}, "distinct"),
        ({"instruments": [1]}, "identifiers as text"),
        ({"instruments": [" rs1"]}, "blanks"),
        ({"instruments": ["outcome"]}, "no other column"),
        ({"instruments": pd.DataFrame({"id": ["rs1"]})}, "a column snp"),
        ({"washout_days": -1}, "washout_days"),
        ({"age": (50, 40)}, "age"),
        ({"age": 40}, "age: expected two"),
        ({"sex": "F"}, "'female', 'male'"),
        ({"index_dates": ("2005", None)}, "index_dates"),
        ({"index_dates": ("2006-01-01", "2005-01-01")}, "first, last"),
        ({"control_index": "end"}, "'calendar', 'time'"),
        ({"controls_per_case": 0}, "controls_per_case"),
        ({"negative_controls": [OUTCOME]}, "no concept of the outcome"),
        ({"negative_control_days": -1}, "negative_control_days"),
        ({"conditions": 1.0}, "below 1"),
        ({"conditions": 5}, "conditions"),
        ({"covariate_window": (-1, -365)}, "covariate_window"),
        ({"covariate_window": (-365,)}, "two values"),
        ({"absent_is_reference": 1}, "absent_is_reference"),
        ({"rng": "x"}, "rng"),
    ],
)
def test_bad_arguments_are_named(options, argument):
    with pytest.raises(InvalidInputError, match=argument):
        read(cdm(), **options)


def test_repeated_people_are_refused():
    person = [(1, 8532, 1950, 1, 1), (1, 8532, 1950, 1, 1)]
    with pytest.raises(InvalidInputError, match="one row per person"):
        read(cdm(person=person))


def test_no_case_says_what_became_of_everyone():
    engine = cdm(condition_occurrence=[(1, OUTCOME, "2000-02-01")])
    with pytest.raises(InvalidInputError, match=r"at least one case, .*6 people.*washout 1"):
        read(engine)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hunter2%21@/none?host=/nonexistent",
        "postgresql+psycopg://me@/none?host=/nonexistent&password=hunter2%21",
        "nosuchdialect://me:hunter2%21@host/none",
        "postgresql+nosuchdriver://me:hunter2%21@host/none",
        "oracle+cx_Oracle://me:hunter2%21@host/none",
        "postgresql://me:hunter2%21@host:port/none",
    ],
)
def test_passwords_are_in_no_message(url):
    with pytest.raises((InvalidInputError, MissingExtraError)) as caught:
        read(url)
    text = "".join(traceback.format_exception(caught.value))
    text = text.replace(url, "") if "read(url)" in text else text
    assert "hunter2" not in text


def test_settings_hold_the_question_and_no_address(cohort):
    assert cohort.settings["washout_days"] == 365
    assert cohort.settings["index_dates"] == (None, None)
    assert cohort.settings["seed"] == 0
    assert "sqlite" not in repr(cohort.settings)


# -------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="module")
def postgres():
    if omop_postgres.programs() is None:
        pytest.skip("no PostgreSQL server programs here")
    with omop_postgres.server() as url:
        yield url


@pytest.fixture(scope="module")
def postgres_cdm(postgres, simulated):
    """The simulated tables, their rows in another order, in two schemas."""
    engine = sa.create_engine(postgres, poolclass=sa.NullPool)
    rng = np.random.default_rng(99)
    metadata = sa.MetaData()
    metadata.reflect(simulated.engine)
    with engine.begin() as connection, simulated.engine.connect() as source:
        for schema in ("cdm", "Results"):
            connection.execute(sa.schema.CreateSchema(schema))
        for name, table in metadata.tables.items():
            rows = [dict(row) for row in source.execute(table.select()).mappings()]
            copy = table.to_metadata(sa.MetaData(), schema="Results" if name == "cohort" else "cdm")
            copy.create(connection)
            connection.execute(copy.insert(), [rows[i] for i in rng.permutation(len(rows))])
    yield engine
    engine.dispose()


def test_postgres_does_not_outlive_tests_that_are_killed(postgres):
    program = (
        "import os, omop_postgres\n"
        "with omop_postgres.server() as url:\n"
        "    print(url, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    folder = str(Path(omop_postgres.__file__).parent)
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=90
    )
    place = Path(killed.stdout.split("host=")[1].strip())
    deadline = time.monotonic() + 30
    while place.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not place.exists()


def test_postgres_gives_the_same_bits(postgres, postgres_cdm, simulated, cohort):
    """The defect: queries of temporary tables named #x run on SQL Server alone."""
    seen = statements_of(postgres_cdm)
    options = everything(simulated) | {"schema": "cdm"}
    assert_same(cohort, mrfast.read_omop_cohort(postgres, **options))
    assert_same(cohort, mrfast.read_omop_cohort(postgres_cdm, **options))
    own = [statement for statement, _ in seen if "pg_catalog" not in statement]
    assert len(own) > 10
    assert all(statement.startswith("SELECT") for statement in own)
    del options["outcome_concepts"]
    options["tables"] = {"cohort": "Results.cohort"}
    assert_same(cohort, mrfast.read_omop_cohort(postgres, outcome_cohort=1, **options))


def test_postgres_options_give_the_same_bits(postgres, postgres_cdm, simulated):
    options = everything(simulated) | {
        "control_index": "time",
        "controls_per_case": 1.5,
        "age": (40, 80),
        "sex": "female",
        "index_dates": ("2007-01-01", "2012-12-31"),
        "absent_is_reference": True,
        "negative_control_days": 365,
        "conditions": 0.02,
    }
    first = mrfast.read_omop_cohort(simulated.engine, **options)
    second = mrfast.read_omop_cohort(postgres, schema="cdm", **options)
    assert_same(first, second)
    assert len(first.frame) + first.exclusions["people"].sum() == 1500


def test_postgres_session_cannot_write(postgres, postgres_cdm):
    with (
        pytest.raises(InvalidInputError, match="read-only transaction"),
        queries.connected(postgres) as connection,
    ):
        connection.execute(sa.text("DELETE FROM cdm.person"))


def test_postgres_engine_of_the_caller_can_still_write(postgres, postgres_cdm, simulated):
    engine = sa.create_engine(postgres)  # with a pool
    options = everything(simulated) | {"schema": "cdm", "negative_controls": ()}
    mrfast.read_omop_cohort(engine, **options)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE own (i integer)"))
        connection.execute(sa.text("DROP TABLE own"))
    engine.dispose()


def test_postgres_awkward_identifiers(postgres, postgres_cdm, simulated):
    with pytest.warns(OmopWarning, match="DROP"):
        cohort = mrfast.read_omop_cohort(
            postgres, instruments=["rs1000", AWKWARD], schema="cdm",
            outcome_concepts=simulated.outcome_concept,
        )  # fmt: skip
    assert cohort.n_people == 1500
    with pytest.raises(InvalidInputError, match=r"no table or view 'public\.person'"):
        read(postgres, schema="public")
