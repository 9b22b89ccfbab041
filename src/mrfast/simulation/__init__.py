"""Cohorts with known truth, from seeded generators."""

from __future__ import annotations

from mrfast.simulation.composed import Simulation
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
from mrfast.simulation.nonlinear_scenarios import (
    NONLINEAR_SCENARIOS,
    NonlinearScenario,
    binary_outcome,
    burgess_2014,
    effect_modifier,
    families,
    measured_covariates,
    poster_simple,
    selected_sample,
    single_instrument,
    tian_2022,
    unobserved_modifier,
)
from mrfast.simulation.omop_database import SimulatedOmopDatabase, omop_database
from mrfast.simulation.scenarios import (
    SimulatedCohort,
    SummaryStatistics,
    jam_mr,
    massive_model,
)
from mrfast.simulation.simulated_iv import SimulatedIV
from mrfast.simulation.simulated_variables import (
    Beta,
    Exponential,
    MultivariateNormal,
    Normal,
    Uniform,
    Variant,
    Variants,
)
from mrfast.simulation.summary_tables import (
    SCENARIOS,
    Scenario,
    SimulatedSummary,
    summary_data,
)

__all__ = [
    "NONLINEAR_SCENARIOS",
    "SCENARIOS",
    "Beta",
    "Estimand",
    "Exponential",
    "FederatedSites",
    "MedusaCohort",
    "MedusaSiteProfile",
    "MultivariateNormal",
    "NonlinearScenario",
    "Normal",
    "Scenario",
    "SimulatedCohort",
    "SimulatedIV",
    "SimulatedOmopDatabase",
    "SimulatedSummary",
    "Simulation",
    "SummaryStatistics",
    "Uniform",
    "Variant",
    "Variants",
    "binary_outcome",
    "burgess_2014",
    "design_estimand",
    "effect_modifier",
    "estimand",
    "families",
    "federated_sites",
    "jam_mr",
    "massive_model",
    "measured_covariates",
    "medusa_cohort",
    "medusa_covariates",
    "medusa_instruments",
    "medusa_negative_controls",
    "medusa_site_profiles",
    "omop_database",
    "poster_simple",
    "selected_sample",
    "single_instrument",
    "summary_data",
    "tian_2022",
    "unobserved_modifier",
]


def __dir__() -> list[str]:
    return sorted(__all__)
