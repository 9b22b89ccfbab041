"""The cohort that a site's database gives, with the account of everything left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mrfast.errors import MrfastWarning
from mrfast.io.omop.genotypes import SITE_REASONS

__all__ = ["EXCLUSIONS", "OmopCohort", "OmopWarning"]

EXCLUSIONS = {
    "no_observation": "no observation period",
    "no_birth_year": "the year of birth is missing",
    "sex": "not of the sex asked for",
    "not_genotyped": "no usable genotype of any of the SNPs",
    "outcome_outside_observation": "the first outcome record lies outside observation",
    "washout": "fewer days observed before the index than the washout asks for",
    "no_eligible_day": "no observed day fulfils washout, age and dates",
    "age": "not of the age asked for at the index",
    "index_date": "the index lies outside the dates asked for",
    "no_comparable_index": "no case's index falls into the time in which the person is eligible",
    "not_sampled": "left out by controls_per_case",
}


class OmopWarning(MrfastWarning):
    """A part of what was asked for is not in the cohort; the message says what and why."""


@dataclass(frozen=True, eq=False, repr=False)
class OmopCohort:
    """Cases and controls of a site, and everybody and everything that was left out.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row per person, by person: person_id, outcome (1 case, 0 control), one column of
        dosages per SNP, counted in the alternate allele, NaN where missing, and
        ``nc_outcome_<concept id>`` for each negative control. What `mrfast.fit_site` takes.
    covariates : pandas.DataFrame
        person_id, age at index in years, female, index_year, and what was asked for.
    alleles : pandas.DataFrame
        snp, coded_allele (the alternate one), other_allele, frequency of the coded allele among
        cases and controls.
    index : pandas.DataFrame
        person_id, outcome, index_date, and the observation period that it lies in.
    exclusions : pandas.DataFrame
        reason, description, people, with_outcome (of these, how many have an outcome record).
        Each excluded person counts once, under the first reason that applies.
    genotype_report : pandas.DataFrame
        One row per SNP that was asked for: whether it is used, rows in the table by what became
        of them, and, among cases and controls, the missing dosages and the frequency.
    records : dict
        Rows of other tables that were not used, by reason.
    concepts : pandas.DataFrame
        column, concept_id, concept_name of the columns that come from concepts.
    settings : dict
        What was asked for; never an address or a password.
    n_people : int
        Everyone in PERSON: cases, controls and excluded.
    """

    frame: pd.DataFrame
    covariates: pd.DataFrame
    alleles: pd.DataFrame
    index: pd.DataFrame
    exclusions: pd.DataFrame
    genotype_report: pd.DataFrame
    records: dict[str, int]
    concepts: pd.DataFrame
    settings: dict[str, Any]
    n_people: int

    @property
    def n_cases(self) -> int:
        """Number of cases."""
        return int((self.frame["outcome"] == 1).sum())

    @property
    def n_controls(self) -> int:
        """Number of controls."""
        return int((self.frame["outcome"] == 0).sum())

    def __repr__(self) -> str:
        return (
            f"OmopCohort(n_cases={self.n_cases}, n_controls={self.n_controls}, "
            f"n_snps={len(self.alleles)})"
        )

    def __str__(self) -> str:
        excluded = self.exclusions[self.exclusions["people"] > 0]
        lost = self.genotype_report[self.genotype_report["reason"] != "used"]
        asked = len(self.genotype_report)
        lines = [
            ("people in the database", self.n_people),
            *(
                (f"  - {description}", int(people))
                for description, people in zip(
                    excluded["description"], excluded["people"], strict=True
                )
            ),
            ("cases", self.n_cases),
            ("controls", self.n_controls),
            (f"SNPs (of {asked} asked for)", len(self.alleles)),
            *(
                (f"  - {snp}: {SITE_REASONS[reason]}", None)
                for snp, reason in zip(lost["snp"], lost["reason"], strict=True)
            ),
            ("covariates", self.covariates.shape[1] - 1),
            *((f"not used: {what}", count) for what, count in self.records.items() if count),
        ]
        width = max(len(text) for text, count in lines if count is not None) + 2
        return "\n".join(
            text if count is None else f"{text:<{width}}{count:>11,}" for text, count in lines
        )
