"""mrfast: a fast back end for Mendelian randomization.

Names are imported when they are first used, so that ``import mrfast`` needs numpy only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrfast import errors as errors
    from mrfast import simulation as simulation
    from mrfast._runtime import build_config as build_config
    from mrfast.bayes.averaging import massive as massive
    from mrfast.bayes.evidence import LaplaceEvidence as LaplaceEvidence
    from mrfast.bayes.evidence import laplace_evidence as laplace_evidence
    from mrfast.bayes.evidence import laplace_term as laplace_term
    from mrfast.bayes.evidence_cache import EvidenceCache as EvidenceCache
    from mrfast.bayes.identified_prior import IdentifiedPrior as IdentifiedPrior
    from mrfast.bayes.identified_prior import SlabPart as SlabPart
    from mrfast.bayes.model import LogPosterior as LogPosterior
    from mrfast.bayes.model import log_posterior as log_posterior
    from mrfast.bayes.priors import SpikeSlabPrior as SpikeSlabPrior
    from mrfast.bayes.result import MassiveResult as MassiveResult
    from mrfast.bayes.sensitivity import PriorSensitivity as PriorSensitivity
    from mrfast.bayes.sensitivity import prior_sensitivity as prior_sensitivity
    from mrfast.data.harmonisation import Harmonised as Harmonised
    from mrfast.data.harmonisation import harmonise as harmonise
    from mrfast.data.moments import Moments as Moments
    from mrfast.federated.likelihood_profile import LikelihoodProfile as LikelihoodProfile
    from mrfast.federated.likelihood_profile import profile_likelihood as profile_likelihood
    from mrfast.federated.medusa_files import read_medusa_sites as read_medusa_sites
    from mrfast.federated.site_profile import SiteProfile as SiteProfile
    from mrfast.io.omop.cohort import OmopCohort as OmopCohort
    from mrfast.io.omop.reading import read_omop_cohort as read_omop_cohort
    from mrfast.io.tables import read_associations as read_associations

__version__ = "0.1.0"

_HOME = {
    "EvidenceCache": "bayes.evidence_cache",
    "Harmonised": "data.harmonisation",
    "IdentifiedPrior": "bayes.identified_prior",
    "LaplaceEvidence": "bayes.evidence",
    "LikelihoodProfile": "federated.likelihood_profile",
    "LogPosterior": "bayes.model",
    "MassiveResult": "bayes.result",
    "Moments": "data.moments",
    "OmopCohort": "io.omop.cohort",
    "PriorSensitivity": "bayes.sensitivity",
    "SiteProfile": "federated.site_profile",
    "SlabPart": "bayes.identified_prior",
    "SpikeSlabPrior": "bayes.priors",
    "build_config": "_runtime",
    "harmonise": "data.harmonisation",
    "laplace_evidence": "bayes.evidence",
    "laplace_term": "bayes.evidence",
    "log_posterior": "bayes.model",
    "massive": "bayes.averaging",
    "prior_sensitivity": "bayes.sensitivity",
    "profile_likelihood": "federated.likelihood_profile",
    "read_associations": "io.tables",
    "read_medusa_sites": "federated.medusa_files",
    "read_omop_cohort": "io.omop.reading",
}
_SUBPACKAGES = ("errors", "simulation")

__all__ = ["__version__", *_HOME, *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"mrfast.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"mrfast.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'mrfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
