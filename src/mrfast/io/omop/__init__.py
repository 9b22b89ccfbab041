"""Cohorts out of OMOP CDM 5.4 databases."""

from __future__ import annotations

from mrfast.io.omop.cohort import OmopCohort, OmopWarning
from mrfast.io.omop.reading import read_omop_cohort

__all__ = ["OmopCohort", "OmopWarning", "read_omop_cohort"]
