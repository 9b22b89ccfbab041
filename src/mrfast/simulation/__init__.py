"""Cohorts with known truth, from seeded generators."""

from __future__ import annotations

from mrfast.simulation.estimands import Estimand, design_estimand, estimand
from mrfast.simulation.federated_cohorts import (
    FederatedSites,
    MedusaCohort,
    federated_sites,
    medusa_cohort,
)
from mrfast.simulation.medusa_tables import (
    MedusaSiteProfile,
    medusa_covariates,
    medusa_instruments,
    medusa_negative_controls,
    medusa_site_profiles,
)
from mrfast.simulation.omop_database import SimulatedOmopDatabase, omop_database
from mrfast.simulation.scenarios import (
    SimulatedCohort,
    SummaryStatistics,
    jam_mr,
    massive_model,
)
from mrfast.simulation.summary_tables import (
    SCENARIOS,
    Scenario,
    SimulatedSummary,
    summary_data,
)

__all__ = [
    "SCENARIOS",
    "Estimand",
    "FederatedSites",
    "MedusaCohort",
    "MedusaSiteProfile",
    "Scenario",
    "SimulatedCohort",
    "SimulatedOmopDatabase",
    "SimulatedSummary",
    "SummaryStatistics",
    "design_estimand",
    "estimand",
    "federated_sites",
    "jam_mr",
    "massive_model",
    "medusa_cohort",
    "medusa_covariates",
    "medusa_instruments",
    "medusa_negative_controls",
    "medusa_site_profiles",
    "omop_database",
    "summary_data",
]


def __dir__() -> list[str]:
    return sorted(__all__)
