"""The methods by name: what each is, needs, and takes by default."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mrfast._validation import fail

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DEFAULT_METHODS", "METHODS", "Method", "find_method", "method_table"]

_SHARED = {"beta_exposure", "se_exposure", "beta_outcome", "se_outcome", "ci_level", "rng"}
_SHARED |= {"ld", "snps", "ld_snps", "exposures", "exposure_correlation"}  # no options of one


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of the registry.

    Attributes
    ----------
    name : str
    function : str
        Module and name of the function, ``"mrfast.summary.module:function"``.
    title : str
    reference : str
        DOI.
    minimum_snps : int
    needs_se_exposure : bool
    accepts_ld : bool
        Takes `ld`, the correlations between SNPs.
    random : bool
        Draws random numbers (takes `rng`), at least with some options.
    defaults : mapping
        The function's own defaults that shape the result, and what an entry fixes.
    fixed : tuple of str
        Options that this entry fixes: they tell it from others of the same function.
    """

    name: str
    function: str
    title: str
    reference: str
    minimum_snps: int
    needs_se_exposure: bool = True
    accepts_ld: bool = False
    random: bool = False
    defaults: Mapping[str, object] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()

    def resolve(self) -> Any:
        """The function itself."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)

    def refuse_ld(self) -> None:
        """Raise an error if the method cannot use `ld`."""
        if not self.accepts_ld:
            raise fail("ld", f"None with {self.name}, which takes SNPs as independent", "some")

    def checked_options(self, options: Any) -> dict[str, Any]:
        """Options of this method alone, none for None; unknown ones are refused."""
        if options is None:
            return {}
        if not isinstance(options, Mapping):
            raise fail("options", f"a mapping of options for {self.name}", repr(options))
        known = set(inspect.signature(self.resolve()).parameters) - _SHARED
        for key in options:
            if key not in known:
                listed = ", ".join(sorted(known))
                raise fail("options", f"options of {self.name} ({listed})", repr(key))
        return dict(options)

    @property
    def takes_sample_size(self) -> bool:
        """Whether the function has the argument `n`."""
        return "n" in inspect.signature(self.resolve()).parameters

    def __call__(self, **arguments: Any) -> Any:
        """Run the method; what the entry fixes cannot be given."""
        for name in self.fixed:
            if name in arguments:
                raise fail(name, f"none, as {self.name!r} fixes it", repr(arguments[name]))
        return self.resolve()(**arguments, **{name: self.defaults[name] for name in self.fixed})


_SUMMARY = "mrfast.summary"

_ENTRIES: tuple[Method, ...] = (
    Method(
        name="wald_ratio",
        function=f"{_SUMMARY}.wald:wald_ratio",
        title="Wald ratio",
        reference="10.1002/sim.3034",
        minimum_snps=1,
        needs_se_exposure=False,
        defaults={"weights": "first_order"},
    ),
    Method(
        name="ivw",
        function=f"{_SUMMARY}.inverse_variance:ivw",
        title="inverse-variance weighted, multiplicative random effects",
        reference="10.1002/sim.7221",
        minimum_snps=1,
        needs_se_exposure=False,
        accepts_ld=True,
        defaults={"model": "random", "weights": "first_order", "distribution": "normal"},
    ),
    Method(
        name="ivw_fixed",
        function=f"{_SUMMARY}.inverse_variance:ivw",
        title="inverse-variance weighted, fixed effect",
        reference="10.1002/gepi.21758",
        minimum_snps=1,
        needs_se_exposure=False,
        accepts_ld=True,
        defaults={"model": "fixed", "weights": "first_order", "distribution": "normal"},
        fixed=("model",),
    ),
    Method(
        name="ivw_robust",
        function=f"{_SUMMARY}.inverse_variance:ivw",
        title="inverse-variance weighted, MM-estimation",
        reference="10.1371/journal.pone.0222362",
        minimum_snps=2,
        needs_se_exposure=False,
        defaults={"robust": True, "weights": "first_order", "distribution": "normal"},
        fixed=("robust",),
    ),
    Method(
        name="ivw_penalised",
        function=f"{_SUMMARY}.inverse_variance:ivw",
        title="inverse-variance weighted, penalised weights",
        reference="10.1371/journal.pone.0222362",
        minimum_snps=2,
        needs_se_exposure=False,
        defaults={"penalised": True, "weights": "first_order", "distribution": "normal"},
        fixed=("penalised",),
    ),
    Method(
        name="egger",
        function=f"{_SUMMARY}.egger_regression:egger",
        title="Egger regression",
        reference="10.1093/ije/dyv080",
        minimum_snps=3,
        needs_se_exposure=False,
        accepts_ld=True,
        random=True,
        defaults={"model": "random", "weights": "first_order", "distribution": "t"},
    ),
    Method(
        name="egger_robust",
        function=f"{_SUMMARY}.egger_regression:egger",
        title="Egger regression, MM-estimation",
        reference="10.1371/journal.pone.0222362",
        minimum_snps=3,
        needs_se_exposure=False,
        defaults={"robust": True, "weights": "first_order", "distribution": "t"},
        fixed=("robust",),
    ),
    Method(
        name="rucker",
        function=f"{_SUMMARY}.rucker_framework:rucker",
        title="Ruecker's framework",
        reference="10.1093/biostatistics/kxq046",
        minimum_snps=3,
        needs_se_exposure=False,
        defaults={"alpha": 0.05},
    ),
    Method(
        name="sign_test",
        function=f"{_SUMMARY}.sign:sign_test",
        title="concordance of signs",
        reference="10.1093/biomet/26.4.404",
        minimum_snps=6,
        needs_se_exposure=False,
    ),
    Method(
        name="simple_median",
        function=f"{_SUMMARY}.median_methods:simple_median",
        title="simple median",
        reference="10.1002/gepi.21965",
        minimum_snps=3,
        random=True,
        defaults={"std_error": "auto", "distribution": "normal"},
    ),
    Method(
        name="weighted_median",
        function=f"{_SUMMARY}.median_methods:weighted_median",
        title="weighted median",
        reference="10.1002/gepi.21965",
        minimum_snps=3,
        random=True,
        defaults={"weights": "first_order", "std_error": "auto", "distribution": "normal"},
    ),
    Method(
        name="penalised_median",
        function=f"{_SUMMARY}.median_methods:penalised_median",
        title="penalised weighted median",
        reference="10.1002/gepi.21965",
        minimum_snps=3,
        random=True,
        defaults={
            "weights": "first_order",
            "penalty_factor": 20.0,
            "std_error": "auto",
            "distribution": "normal",
        },
    ),
    Method(
        name="simple_mode",
        function=f"{_SUMMARY}.mode_methods:simple_mode",
        title="simple mode",
        reference="10.1093/ije/dyx102",
        minimum_snps=3,
        random=True,
        defaults={"bandwidth_factor": 1.0, "maximum": "grid", "distribution": "t"},
    ),
    Method(
        name="weighted_mode",
        function=f"{_SUMMARY}.mode_methods:weighted_mode",
        title="weighted mode",
        reference="10.1093/ije/dyx102",
        minimum_snps=3,
        random=True,
        defaults={
            "weights": "second_order",
            "bandwidth_factor": 1.0,
            "maximum": "grid",
            "distribution": "t",
        },
    ),
    Method(
        name="mr_presso",
        function=f"{_SUMMARY}.presso_test:mr_presso",
        title="MR-PRESSO",
        reference="10.1038/s41588-018-0099-7",
        minimum_snps=4,
        random=True,
        defaults={"alpha": 0.05, "simulate": None, "dispersion": "estimated"},
    ),
    Method(
        name="contamination_mixture",
        function=f"{_SUMMARY}.contamination:contamination_mixture",
        title="contamination mixture",
        reference="10.1038/s41467-019-14156-4",
        minimum_snps=2,
        needs_se_exposure=False,
        defaults={"psi": None},
    ),
    Method(
        name="heterogeneity_penalised",
        function=f"{_SUMMARY}.heterogeneity_averaging:heterogeneity_penalised",
        title="heterogeneity-penalised model averaging",
        reference="10.1093/ije/dyy080",
        minimum_snps=2,
        needs_se_exposure=False,
        defaults={"prior": 0.5, "form": "exact", "single_snp_models": False},
    ),
    Method(
        name="mr_lasso",
        function=f"{_SUMMARY}.lasso_selection:mr_lasso",
        title="MR-Lasso",
        reference="10.1371/journal.pone.0222362",
        minimum_snps=2,
        needs_se_exposure=False,
        defaults={"penalties": "sequence", "penalty": None, "distribution": "normal"},
    ),
    Method(
        name="maximum_likelihood",
        function=f"{_SUMMARY}.likelihood_method:maximum_likelihood",
        title="maximum likelihood, multiplicative random effects",
        reference="10.1002/gepi.21758",
        minimum_snps=1,
        accepts_ld=True,
        defaults={"model": "random", "overlap": 0.0, "interval": "wald", "distribution": "normal"},
    ),
    Method(
        name="debiased_ivw",
        function=f"{_SUMMARY}.debiased_methods:debiased_ivw",
        title="debiased inverse-variance weighted",
        reference="10.1214/20-AOS2027",
        minimum_snps=1,
        defaults={"over_dispersion": True},
    ),
    Method(
        name="penalised_ivw",
        function=f"{_SUMMARY}.debiased_methods:penalised_ivw",
        title="penalised inverse-variance weighted",
        reference="10.1111/biom.13732",
        minimum_snps=1,
        random=True,
        defaults={"penalty": 1.0, "over_dispersion": True, "delta": 0.0, "interval": "auto"},
    ),
    Method(
        name="raps",
        function=f"{_SUMMARY}.adjusted_profile:raps",
        title="robust adjusted profile score",
        reference="10.1214/19-AOS1866",
        minimum_snps=1,
        defaults={"loss": "huber", "over_dispersion": True},
    ),
    Method(
        name="constrained_ml",
        function=f"{_SUMMARY}.constrained_likelihood:constrained_ml",
        title="constrained maximum likelihood, model average (cML-MA-BIC)",
        reference="10.1016/j.ajhg.2021.05.014",
        minimum_snps=3,
        random=True,
        defaults={"n": None, "n_perturbations": 200, "overlap": 0.0},
    ),
    Method(
        name="radial_ivw",
        function=f"{_SUMMARY}.radial_regression:radial",
        title="radial inverse-variance weighted, modified weights",
        reference="10.1093/ije/dyy101",
        minimum_snps=2,
        defaults={"regression": "ivw", "weights": "modified"},
        fixed=("regression",),
    ),
    Method(
        name="radial_egger",
        function=f"{_SUMMARY}.radial_regression:radial",
        title="radial Egger regression, modified weights",
        reference="10.1093/ije/dyy101",
        minimum_snps=3,
        defaults={"regression": "egger", "weights": "modified"},
        fixed=("regression",),
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ENTRIES})
"""All methods, by name."""

DEFAULT_METHODS = ("ivw", "egger", "weighted_median", "weighted_mode")
"""What `mrfast.mr` runs without being told; each rests on other assumptions."""


def find_method(
    name: object, *, argument: str = "methods", registry: Mapping[str, Method] = METHODS
) -> Method:
    """The method of a name.

    Raises
    ------
    InvalidInputError
        Unknown name; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in registry:
        raise fail(argument, f"names of methods ({', '.join(registry)})", repr(name))
    return registry[name]


def method_table(registry: Mapping[str, Method] = METHODS) -> pd.DataFrame:
    """The registry as a table, one row a method."""
    import pandas as pd

    return pd.DataFrame(
        {
            "method": method.name,
            "title": method.title,
            "reference": method.reference,
            "minimum_snps": method.minimum_snps,
            "needs_se_exposure": method.needs_se_exposure,
            "accepts_ld": method.accepts_ld,
            "random": method.random,
            "defaults": ", ".join(f"{key}={value!r}" for key, value in method.defaults.items()),
        }
        for method in registry.values()
    )
