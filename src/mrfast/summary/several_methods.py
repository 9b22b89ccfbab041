"""Several methods on one data set: `mr`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.summary._data_sets import data_sets
from mrfast.summary.registry import DEFAULT_METHODS, METHODS, Method, find_method

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "attempt", "chosen_methods", "method_names", "method_options", "mr"]

COLUMNS = (
    "method",
    "n_snps",
    "estimate",
    "std_error",
    "ci_lower",
    "ci_upper",
    "p_value",
    "q",
    "q_df",
    "q_p_value",
    "i2",
    "intercept",
    "intercept_std_error",
    "intercept_p_value",
    "f_statistic",
    "note",
)
"""Columns of the table; empty where a method has no such number."""


def mr(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    methods: Sequence[str] | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    ld: Any = None,
    snps: Sequence[object] | None = None,
    ld_snps: Sequence[object] | None = None,
    rng: object = None,
    ci_level: float = 0.95,
) -> pd.DataFrame:
    """Run several methods and put their results into one table.

    Parameters
    ----------
    data : Harmonised or DataFrame, optional
        Result of `mrfast.harmonise` (its kept rows), or a table with columns ``beta_exposure``,
        ``se_exposure``, ``beta_outcome``, ``se_outcome``. Columns ``exposure`` and ``outcome``,
        where there, tell data sets apart: each pair gets its own rows. Rows whose column ``keep``
        is False are left out. Instead of the four arrays.
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
        One data set.
    methods : sequence of str, or str, optional
        Names of the registry, `mrfast.summary.registry.METHODS`. Default: inverse-variance
        weighting, Egger regression, weighted median and weighted mode. With one SNP the default is
        the Wald ratio.
    options : mapping of mapping, optional
        Options of single methods, ``{"egger": {"distribution": "normal"}}``. The sample size of
        ``"constrained_ml"``, unless given (``{"constrained_ml": {"n": 50_000}}``), is the smallest
        in the columns ``n_exposure`` and ``n_outcome`` of `data`, where there.
    ld, snps, ld_snps
        Correlations between SNPs, for one data set; as in `mrfast.ivw`. Methods that cannot use
        them are refused.
    rng : None, int or numpy.random.Generator
        For methods that draw random numbers. Each gets a stream of its own, by its
        name: what a method draws does not depend on which others run.
    ci_level : float, default 0.95

    Returns
    -------
    DataFrame
        One row a data set and method, with the columns `COLUMNS` (after ``exposure`` and
        ``outcome``, where `data` has them). A method that has too few SNPs, or none that it can
        use, has a row of missing numbers and the reason in ``note``.

    Raises
    ------
    InvalidInputError
        A method that is not known (the message lists those that are), bad arrays, or options
        that a method does not have.

    Examples
    --------
    >>> import mrfast
    >>> table = mrfast.mr(
    ...     beta_exposure=[0.1, 0.2, 0.15], se_exposure=[0.01, 0.01, 0.01],
    ...     beta_outcome=[0.05, 0.11, 0.07], se_outcome=[0.02, 0.02, 0.02],
    ...     methods=["ivw", "egger"],
    ... )
    >>> table["method"].tolist()
    ['ivw', 'egger']
    """
    import pandas as pd

    chosen = None if methods is None else chosen_methods(methods)
    given = method_options(options, chosen or (*DEFAULT_METHODS, "wald_ratio"))
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    arrays = (beta_exposure, se_exposure, beta_outcome, se_outcome)
    correlation = {"ld": ld, "snps": snps, "ld_snps": ld_snps}
    sets = data_sets(data, arrays)
    if ld is not None and len(sets) > 1:
        raise check.fail("ld", "None with several data sets", f"{len(sets)} data sets")
    seed = int(generator(rng).integers(2**63)) if rng is not None else None
    rows = []
    for entry in sets:
        checked = entry.checked(1)
        known = entry.arguments(checked)
        names = chosen
        if names is None:
            names = ("wald_ratio",) if len(checked.bx) == 1 else DEFAULT_METHODS
        smallest = entry.smallest_sample()
        for name in names:
            method = find_method(name)
            own = given.get(name, {})
            if smallest is not None and method.takes_sample_size:
                own = {"n": smallest} | own
            row = _row(method, known, own, correlation, seed, level, strict=name in given)
            rows.append(entry.labels | row)
    labels_used = list(sets[0].labels)
    return pd.DataFrame(rows, columns=[*labels_used, *COLUMNS])


def chosen_methods(
    methods: Sequence[str] | str, registry: Mapping[str, Method] = METHODS
) -> tuple[str, ...]:
    """Names that the registry knows."""
    names = method_names(methods, registry)
    if not names:
        raise check.fail("methods", "at least one name", "none")
    return names


def method_names(methods: Any, registry: Mapping[str, Method] = METHODS) -> tuple[str, ...]:
    """As `chosen_methods`; there may be none."""
    if not np.iterable(methods):
        raise check.fail("methods", "names of methods", repr(methods))
    names = (methods,) if isinstance(methods, str) else tuple(methods)
    for name in names:
        find_method(name, registry=registry)
    return names


def method_options(
    options: Any, chosen: tuple[str, ...] | None, registry: Mapping[str, Method] = METHODS
) -> dict[str, dict[str, Any]]:
    """Options by method; those of methods that do not run are an error, not a silence."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise check.fail("options", "a mapping of method names to options", repr(options))
    found = {}
    for name, entry in options.items():
        method = find_method(name, argument="options", registry=registry)
        if chosen is not None and name not in chosen:
            raise check.fail("options", f"options of the methods {', '.join(chosen)}", repr(name))
        found[name] = method.checked_options(entry)
    return found


def _row(
    method: Method,
    arrays: dict[str, Any],
    options: dict[str, Any],
    correlation: dict[str, Any],
    seed: int | None,
    level: float,
    *,
    strict: bool,
) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    row |= {"method": method.name, "n_snps": len(arrays["beta_exposure"]), "note": ""}
    arguments = {**arrays, "ci_level": level, **options}
    if correlation["ld"] is not None:
        method.refuse_ld()
        arguments |= correlation
    result = attempt(
        method,
        arguments,
        row["n_snps"],
        minimum=method.minimum_snps,
        seed=seed,
        strict=strict,
    )
    if isinstance(result, str):
        return row | {"note": result}
    found = {name: getattr(result, name) for name in COLUMNS if hasattr(result, name)}
    found["note"] = "; ".join(result.messages)
    return row | found | {"method": method.name}


def attempt(
    method: Method,
    arguments: dict[str, Any],
    n_snps: int,
    *,
    minimum: int,
    seed: int | None,
    strict: bool,
) -> Any:
    """Result of a method, or the reason (str) why there is none.

    Draws are a stream of the method's own, by its name. With `strict`, bad options are an error.
    """
    if method.random:
        entropy = None if seed is None else [seed, *method.name.encode()]
        arguments = {**arguments, "rng": np.random.default_rng(entropy)}
    if n_snps < minimum:
        return f"needs at least {minimum} SNP{'s' * (minimum > 1)}"
    if method.needs_se_exposure and arguments["se_exposure"] is None:
        return "needs se_exposure"
    try:
        return method(**arguments)
    except ConvergenceError as error:
        return str(error)
    except InvalidInputError as error:
        if strict:
            raise
        return str(error)
