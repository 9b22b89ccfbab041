"""The multivariable methods by name; see `mrfast.summary.registry`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mrfast.summary.registry import Method

__all__ = ["DEFAULT_MV_METHODS", "MV_METHODS"]

_SUMMARY = "mrfast.summary"

# minimum_snps: for one exposure; each further exposure needs one more.
_ENTRIES: tuple[Method, ...] = (
    Method(
        name="mv_ivw",
        function=f"{_SUMMARY}.mv_inverse_variance:mv_ivw",
        title="multivariable inverse-variance weighted, multiplicative random effects",
        reference="10.1093/aje/kwu283",
        minimum_snps=1,
        needs_se_exposure=False,
        accepts_ld=True,
        defaults={"model": "random", "distribution": "normal"},
    ),
    Method(
        name="mv_ivw_fixed",
        function=f"{_SUMMARY}.mv_inverse_variance:mv_ivw",
        title="multivariable inverse-variance weighted, fixed effect",
        reference="10.1093/aje/kwu283",
        minimum_snps=1,
        needs_se_exposure=False,
        accepts_ld=True,
        defaults={"model": "fixed", "distribution": "normal"},
        fixed=("model",),
    ),
    Method(
        name="mv_ivw_robust",
        function=f"{_SUMMARY}.mv_inverse_variance:mv_ivw",
        title="multivariable inverse-variance weighted, robust (MM-estimation)",
        reference="10.1002/sim.9156",
        minimum_snps=2,
        needs_se_exposure=False,
        defaults={"robust": True, "distribution": "normal"},
        fixed=("robust",),
    ),
    Method(
        name="mv_egger",
        function=f"{_SUMMARY}.mv_egger_regression:mv_egger",
        title="multivariable Egger regression",
        reference="10.1002/sim.7492",
        minimum_snps=3,
        needs_se_exposure=False,
        accepts_ld=True,
        defaults={"orientation": 0, "model": "random", "distribution": "t"},
    ),
    Method(
        name="mv_median",
        function=f"{_SUMMARY}.mv_median_regression:mv_median",
        title="multivariable median",
        reference="10.1002/sim.9156",
        minimum_snps=2,
        random=True,
        defaults={
            "weights": "first_order",
            "std_error": "bootstrap",
            "n_draws": 10_000,
            "distribution": "normal",
        },
    ),
    Method(
        name="mv_presso",
        function=f"{_SUMMARY}.presso_test:mv_presso",
        title="multivariable MR-PRESSO",
        reference="10.1038/s41588-018-0099-7",
        minimum_snps=4,
        random=True,
        defaults={"alpha": 0.05, "simulate": None, "dispersion": "estimated"},
    ),
    Method(
        name="mv_lasso",
        function=f"{_SUMMARY}.mv_lasso_selection:mv_lasso",
        title="multivariable MR-Lasso",
        reference="10.1002/sim.9156",
        minimum_snps=2,
        needs_se_exposure=False,
        defaults={
            "orientation": 0,
            "penalties": "sequence",
            "penalty": None,
            "distribution": "normal",
        },
    ),
    Method(
        name="mv_constrained_ml",
        function=f"{_SUMMARY}.mv_constrained_likelihood:mv_constrained_ml",
        title="multivariable constrained maximum likelihood, model average",
        reference="10.1016/j.ajhg.2023.02.014",
        minimum_snps=3,
        random=True,
        defaults={"n": None, "n_perturbations": 200, "overlap": 0.0},
    ),
)

MV_METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ENTRIES})
"""All multivariable methods, by name."""

DEFAULT_MV_METHODS = ("mv_ivw", "mv_egger", "mv_median")
"""What `mrfast.mv_mr` runs without being told; each rests on other assumptions."""
