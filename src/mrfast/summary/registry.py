"""The methods by name: what each is, needs, and takes by default."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mrfast._validation import fail

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DEFAULT_METHODS", "METHODS", "Method", "find_method", "method_table"]


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

    def __call__(self, **arguments: Any) -> Any:
        """Run the method; what the entry fixes cannot be given."""
        for name in self.fixed:
            if name in arguments:
                raise fail(name, f"none, as {self.name!r} fixes it", repr(arguments[name]))
        return self.resolve()(**arguments, **{name: self.defaults[name] for name in self.fixed})


_ENTRIES: tuple[Method, ...] = ()

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ENTRIES})
"""All methods, by name."""

DEFAULT_METHODS = tuple(
    name for name in ("ivw", "egger", "weighted_median", "weighted_mode") if name in METHODS
)
"""What `mrfast.mr` runs without being told; each rests on other assumptions."""


def find_method(name: object, *, argument: str = "methods") -> Method:
    """The method of a name.

    Raises
    ------
    InvalidInputError
        Unknown name; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise fail(argument, f"names of methods ({', '.join(METHODS)})", repr(name))
    return METHODS[name]


def method_table() -> pd.DataFrame:
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
        for method in METHODS.values()
    )
