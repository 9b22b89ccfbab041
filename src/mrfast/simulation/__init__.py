"""Cohorts with known truth, from seeded generators."""

from __future__ import annotations

from mrfast.simulation.omop_database import SimulatedOmopDatabase, omop_database
from mrfast.simulation.scenarios import (
    SimulatedCohort,
    SummaryStatistics,
    jam_mr,
    massive_model,
)

__all__ = [
    "SimulatedCohort",
    "SimulatedOmopDatabase",
    "SummaryStatistics",
    "jam_mr",
    "massive_model",
    "omop_database",
]


def __dir__() -> list[str]:
    return sorted(__all__)
