"""mrfast: a fast back end for Mendelian randomization.

Names are imported when they are first used, so that ``import mrfast`` needs numpy only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrfast import compat as compat
    from mrfast import errors as errors
    from mrfast import nonlinear as nonlinear
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
    from mrfast.data.instruments import InstrumentTable as InstrumentTable
    from mrfast.data.moments import Moments as Moments
    from mrfast.data.mv_harmonisation import MVHarmonised as MVHarmonised
    from mrfast.data.mv_harmonisation import mv_harmonise as mv_harmonise
    from mrfast.federated.cohort import Cohort as Cohort
    from mrfast.federated.decision import DecisionThresholds as DecisionThresholds
    from mrfast.federated.decision import StudyDecision as StudyDecision
    from mrfast.federated.decision import study_decision as study_decision
    from mrfast.federated.diagnostics import allele_frequency_check as allele_frequency_check
    from mrfast.federated.diagnostics import missingness_check as missingness_check
    from mrfast.federated.estimate import FederatedEstimate as FederatedEstimate
    from mrfast.federated.estimate import federated_estimate as federated_estimate
    from mrfast.federated.estimate import leave_one_site_out as leave_one_site_out
    from mrfast.federated.first_stage import first_stage_f as first_stage_f
    from mrfast.federated.likelihood_profile import LikelihoodProfile as LikelihoodProfile
    from mrfast.federated.likelihood_profile import profile_likelihood as profile_likelihood
    from mrfast.federated.medusa_files import read_medusa_sites as read_medusa_sites
    from mrfast.federated.negative_controls import pool_negative_controls as pool_negative_controls
    from mrfast.federated.phenome_wide import phenome_wide_check as phenome_wide_check
    from mrfast.federated.pooling import PooledProfile as PooledProfile
    from mrfast.federated.pooling import pool as pool
    from mrfast.federated.samples import ancestry_check as ancestry_check
    from mrfast.federated.samples import overlap_check as overlap_check
    from mrfast.federated.site_fit import fit_site as fit_site
    from mrfast.federated.site_profile import SiteProfile as SiteProfile
    from mrfast.io.omop.cohort import OmopCohort as OmopCohort
    from mrfast.io.omop.reading import read_omop_cohort as read_omop_cohort
    from mrfast.io.tables import read_associations as read_associations
    from mrfast.nonlinear.evaluation import evaluate as evaluate
    from mrfast.nonlinear.hyperparameter_sweep import sweep as sweep
    from mrfast.summary.adjusted_profile import RAPSEstimate as RAPSEstimate
    from mrfast.summary.adjusted_profile import raps as raps
    from mrfast.summary.calibration import EmpiricalNull as EmpiricalNull
    from mrfast.summary.calibration import empirical_null as empirical_null
    from mrfast.summary.cis import CisEstimate as CisEstimate
    from mrfast.summary.cis import cis_mr as cis_mr
    from mrfast.summary.colocalisation import Colocalisation as Colocalisation
    from mrfast.summary.colocalisation import coloc as coloc
    from mrfast.summary.conditional_strength import ConditionalStrength as ConditionalStrength
    from mrfast.summary.conditional_strength import conditional_f as conditional_f
    from mrfast.summary.constrained_likelihood import (
        ConstrainedMLEstimate as ConstrainedMLEstimate,
    )
    from mrfast.summary.constrained_likelihood import constrained_ml as constrained_ml
    from mrfast.summary.contamination import ContaminationEstimate as ContaminationEstimate
    from mrfast.summary.contamination import contamination_mixture as contamination_mixture
    from mrfast.summary.debiased_methods import DebiasedEstimate as DebiasedEstimate
    from mrfast.summary.debiased_methods import PenalisedIVWEstimate as PenalisedIVWEstimate
    from mrfast.summary.debiased_methods import debiased_ivw as debiased_ivw
    from mrfast.summary.debiased_methods import penalised_ivw as penalised_ivw
    from mrfast.summary.directionality import SteigerTest as SteigerTest
    from mrfast.summary.directionality import steiger as steiger
    from mrfast.summary.directionality import steiger_filter as steiger_filter
    from mrfast.summary.directionality import variance_explained as variance_explained
    from mrfast.summary.egger_regression import EggerEstimate as EggerEstimate
    from mrfast.summary.egger_regression import egger as egger
    from mrfast.summary.estimate import MREstimate as MREstimate
    from mrfast.summary.heterogeneity_averaging import (
        HeterogeneityPenalisedEstimate as HeterogeneityPenalisedEstimate,
    )
    from mrfast.summary.heterogeneity_averaging import (
        heterogeneity_penalised as heterogeneity_penalised,
    )
    from mrfast.summary.heterogeneity_tests import Heterogeneity as Heterogeneity
    from mrfast.summary.heterogeneity_tests import heterogeneity as heterogeneity
    from mrfast.summary.influence_measures import Influence as Influence
    from mrfast.summary.influence_measures import influence as influence
    from mrfast.summary.instrument_selection import InstrumentSelection as InstrumentSelection
    from mrfast.summary.instrument_selection import clump as clump
    from mrfast.summary.instrument_selection import select_instruments as select_instruments
    from mrfast.summary.inverse_variance import IVWEstimate as IVWEstimate
    from mrfast.summary.inverse_variance import ivw as ivw
    from mrfast.summary.lasso_selection import LassoEstimate as LassoEstimate
    from mrfast.summary.lasso_selection import mr_lasso as mr_lasso
    from mrfast.summary.leaving_out import leave_one_out as leave_one_out
    from mrfast.summary.leaving_out import single_snp as single_snp
    from mrfast.summary.likelihood_method import LikelihoodEstimate as LikelihoodEstimate
    from mrfast.summary.likelihood_method import maximum_likelihood as maximum_likelihood
    from mrfast.summary.matrix_inputs import MatrixExposures as MatrixExposures
    from mrfast.summary.matrix_inputs import MatrixOutcomes as MatrixOutcomes
    from mrfast.summary.median_methods import MedianEstimate as MedianEstimate
    from mrfast.summary.median_methods import MedianLaw as MedianLaw
    from mrfast.summary.median_methods import median_law as median_law
    from mrfast.summary.median_methods import penalised_median as penalised_median
    from mrfast.summary.median_methods import simple_median as simple_median
    from mrfast.summary.median_methods import weighted_median as weighted_median
    from mrfast.summary.mode_methods import ModeEstimate as ModeEstimate
    from mrfast.summary.mode_methods import simple_mode as simple_mode
    from mrfast.summary.mode_methods import weighted_mode as weighted_mode
    from mrfast.summary.mv_constrained_likelihood import (
        MVConstrainedMLEstimate as MVConstrainedMLEstimate,
    )
    from mrfast.summary.mv_constrained_likelihood import mv_constrained_ml as mv_constrained_ml
    from mrfast.summary.mv_egger_regression import MVEggerEstimate as MVEggerEstimate
    from mrfast.summary.mv_egger_regression import mv_egger as mv_egger
    from mrfast.summary.mv_estimate import MVEstimate as MVEstimate
    from mrfast.summary.mv_inverse_variance import MVIVWEstimate as MVIVWEstimate
    from mrfast.summary.mv_inverse_variance import mv_ivw as mv_ivw
    from mrfast.summary.mv_lasso_selection import MVLassoEstimate as MVLassoEstimate
    from mrfast.summary.mv_lasso_selection import mv_lasso as mv_lasso
    from mrfast.summary.mv_median_regression import MVMedianEstimate as MVMedianEstimate
    from mrfast.summary.mv_median_regression import mv_median as mv_median
    from mrfast.summary.mv_several_methods import mv_mr as mv_mr
    from mrfast.summary.pair_scan import MRMatrix as MRMatrix
    from mrfast.summary.pair_scan import mr_matrix as mr_matrix
    from mrfast.summary.presso_test import MVPressoResult as MVPressoResult
    from mrfast.summary.presso_test import PressoResult as PressoResult
    from mrfast.summary.presso_test import mr_presso as mr_presso
    from mrfast.summary.presso_test import mv_presso as mv_presso
    from mrfast.summary.radial_regression import RadialEstimate as RadialEstimate
    from mrfast.summary.radial_regression import radial as radial
    from mrfast.summary.reference_panel import ld_matrix as ld_matrix
    from mrfast.summary.rucker_framework import RuckerEstimate as RuckerEstimate
    from mrfast.summary.rucker_framework import rucker as rucker
    from mrfast.summary.sensitivity_panel import Sensitivity as Sensitivity
    from mrfast.summary.sensitivity_panel import funnel as funnel
    from mrfast.summary.sensitivity_panel import sensitivity as sensitivity
    from mrfast.summary.several_methods import mr as mr
    from mrfast.summary.sign import SignEstimate as SignEstimate
    from mrfast.summary.sign import sign_test as sign_test
    from mrfast.summary.wald import WaldEstimate as WaldEstimate
    from mrfast.summary.wald import wald_ratio as wald_ratio

__version__ = "0.1.0"

_HOME = {
    "CisEstimate": "summary.cis",
    "Cohort": "federated.cohort",
    "Colocalisation": "summary.colocalisation",
    "ConditionalStrength": "summary.conditional_strength",
    "ContaminationEstimate": "summary.contamination",
    "DebiasedEstimate": "summary.debiased_methods",
    "ConstrainedMLEstimate": "summary.constrained_likelihood",
    "DecisionThresholds": "federated.decision",
    "EggerEstimate": "summary.egger_regression",
    "EmpiricalNull": "summary.calibration",
    "EvidenceCache": "bayes.evidence_cache",
    "FederatedEstimate": "federated.estimate",
    "Harmonised": "data.harmonisation",
    "Heterogeneity": "summary.heterogeneity_tests",
    "HeterogeneityPenalisedEstimate": "summary.heterogeneity_averaging",
    "IVWEstimate": "summary.inverse_variance",
    "IdentifiedPrior": "bayes.identified_prior",
    "Influence": "summary.influence_measures",
    "InstrumentSelection": "summary.instrument_selection",
    "InstrumentTable": "data.instruments",
    "LaplaceEvidence": "bayes.evidence",
    "LassoEstimate": "summary.lasso_selection",
    "LikelihoodEstimate": "summary.likelihood_method",
    "LikelihoodProfile": "federated.likelihood_profile",
    "LogPosterior": "bayes.model",
    "MREstimate": "summary.estimate",
    "MVConstrainedMLEstimate": "summary.mv_constrained_likelihood",
    "MVEggerEstimate": "summary.mv_egger_regression",
    "MVEstimate": "summary.mv_estimate",
    "MVHarmonised": "data.mv_harmonisation",
    "MVIVWEstimate": "summary.mv_inverse_variance",
    "MVLassoEstimate": "summary.mv_lasso_selection",
    "MVMedianEstimate": "summary.mv_median_regression",
    "MRMatrix": "summary.pair_scan",
    "MVPressoResult": "summary.presso_test",
    "MassiveResult": "bayes.result",
    "MatrixExposures": "summary.matrix_inputs",
    "MatrixOutcomes": "summary.matrix_inputs",
    "MedianEstimate": "summary.median_methods",
    "MedianLaw": "summary.median_methods",
    "ModeEstimate": "summary.mode_methods",
    "Moments": "data.moments",
    "OmopCohort": "io.omop.cohort",
    "PenalisedIVWEstimate": "summary.debiased_methods",
    "PooledProfile": "federated.pooling",
    "PressoResult": "summary.presso_test",
    "PriorSensitivity": "bayes.sensitivity",
    "RAPSEstimate": "summary.adjusted_profile",
    "RadialEstimate": "summary.radial_regression",
    "RuckerEstimate": "summary.rucker_framework",
    "Sensitivity": "summary.sensitivity_panel",
    "SignEstimate": "summary.sign",
    "SiteProfile": "federated.site_profile",
    "SlabPart": "bayes.identified_prior",
    "SpikeSlabPrior": "bayes.priors",
    "SteigerTest": "summary.directionality",
    "StudyDecision": "federated.decision",
    "WaldEstimate": "summary.wald",
    "allele_frequency_check": "federated.diagnostics",
    "ancestry_check": "federated.samples",
    "build_config": "_runtime",
    "cis_mr": "summary.cis",
    "clump": "summary.instrument_selection",
    "coloc": "summary.colocalisation",
    "conditional_f": "summary.conditional_strength",
    "contamination_mixture": "summary.contamination",
    "debiased_ivw": "summary.debiased_methods",
    "constrained_ml": "summary.constrained_likelihood",
    "egger": "summary.egger_regression",
    "empirical_null": "summary.calibration",
    "evaluate": "nonlinear.evaluation",
    "federated_estimate": "federated.estimate",
    "first_stage_f": "federated.first_stage",
    "fit_site": "federated.site_fit",
    "funnel": "summary.sensitivity_panel",
    "harmonise": "data.harmonisation",
    "heterogeneity": "summary.heterogeneity_tests",
    "heterogeneity_penalised": "summary.heterogeneity_averaging",
    "influence": "summary.influence_measures",
    "ivw": "summary.inverse_variance",
    "laplace_evidence": "bayes.evidence",
    "laplace_term": "bayes.evidence",
    "leave_one_out": "summary.leaving_out",
    "ld_matrix": "summary.reference_panel",
    "leave_one_site_out": "federated.estimate",
    "log_posterior": "bayes.model",
    "massive": "bayes.averaging",
    "maximum_likelihood": "summary.likelihood_method",
    "median_law": "summary.median_methods",
    "missingness_check": "federated.diagnostics",
    "mr": "summary.several_methods",
    "mr_lasso": "summary.lasso_selection",
    "mr_matrix": "summary.pair_scan",
    "mr_presso": "summary.presso_test",
    "mv_constrained_ml": "summary.mv_constrained_likelihood",
    "mv_egger": "summary.mv_egger_regression",
    "mv_harmonise": "data.mv_harmonisation",
    "mv_ivw": "summary.mv_inverse_variance",
    "mv_lasso": "summary.mv_lasso_selection",
    "mv_median": "summary.mv_median_regression",
    "mv_mr": "summary.mv_several_methods",
    "mv_presso": "summary.presso_test",
    "overlap_check": "federated.samples",
    "penalised_ivw": "summary.debiased_methods",
    "penalised_median": "summary.median_methods",
    "phenome_wide_check": "federated.phenome_wide",
    "pool": "federated.pooling",
    "pool_negative_controls": "federated.negative_controls",
    "prior_sensitivity": "bayes.sensitivity",
    "profile_likelihood": "federated.likelihood_profile",
    "raps": "summary.adjusted_profile",
    "radial": "summary.radial_regression",
    "read_associations": "io.tables",
    "read_medusa_sites": "federated.medusa_files",
    "read_omop_cohort": "io.omop.reading",
    "rucker": "summary.rucker_framework",
    "sensitivity": "summary.sensitivity_panel",
    "select_instruments": "summary.instrument_selection",
    "sign_test": "summary.sign",
    "simple_median": "summary.median_methods",
    "simple_mode": "summary.mode_methods",
    "single_snp": "summary.leaving_out",
    "steiger": "summary.directionality",
    "steiger_filter": "summary.directionality",
    "study_decision": "federated.decision",
    "sweep": "nonlinear.hyperparameter_sweep",
    "variance_explained": "summary.directionality",
    "wald_ratio": "summary.wald",
    "weighted_median": "summary.median_methods",
    "weighted_mode": "summary.mode_methods",
}
_SUBPACKAGES = ("compat", "errors", "nonlinear", "simulation")

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
