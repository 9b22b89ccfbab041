"""Cohorts with known truth, from seeded generators."""

from __future__ import annotations

from mrfast.simulation.scenarios import (
    SimulatedCohort,
    SummaryStatistics,
    jam_mr,
    massive_model,
)

__all__ = ["SimulatedCohort", "SummaryStatistics", "jam_mr", "massive_model"]


def __dir__() -> list[str]:
    return sorted(__all__)
