"""Several multivariable methods on one data set: `mv_mr`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast.summary._least_squares import correlations
from mrfast.summary._multivariable import error_correlations, mv_associations
from mrfast.summary.mv_registry import DEFAULT_MV_METHODS, MV_METHODS
from mrfast.summary.registry import Method
from mrfast.summary.several_methods import attempt, chosen_methods, method_options

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MV_COLUMNS", "mv_mr"]

MV_COLUMNS = (
    "method",
    "exposure",
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
    "conditional_f_statistic",
    "note",
)
"""Columns of the table; empty where a method has no such number."""


def mv_mr(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    exposures: Sequence[object] | None = None,
    methods: Sequence[str] | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    exposure_correlation: Any = None,
    ld: Any = None,
    snps: Sequence[object] | None = None,
    ld_snps: Sequence[object] | None = None,
    rng: object = None,
    ci_level: float = 0.95,
) -> pd.DataFrame:
    """Run several multivariable methods and put their results into one table.

    Parameters
    ----------
    data : MVHarmonised, optional
        Result of `mrfast.mv_harmonise`, instead of the four arrays.
    beta_exposure, se_exposure : array_like, shape (J, K)
        One column an exposure; tables name the exposures by their columns.
    beta_outcome, se_outcome : array_like, shape (J,)
    exposures : sequence of str, optional
        Names, where there is no table.
    methods : sequence of str, or str, optional
        Names of `mrfast.summary.mv_registry.MV_METHODS`. Default: multivariable inverse-variance
        weighting, Egger regression and median.
    options : mapping of mapping, optional
        Options of single methods, ``{"mv_egger": {"orientation": "HDL"}}``.
    exposure_correlation : array_like, shape (K, K), optional
        Correlations of the errors of a SNP's associations with the exposures, for the methods
        that use them; see `mrfast.conditional_f`.
    ld, snps, ld_snps
        Correlations between SNPs, as in `mrfast.ivw`. Methods that cannot use them are refused.
    rng : None, int or numpy.random.Generator
        For methods that draw random numbers; as in `mrfast.mr`.
    ci_level : float, default 0.95

    Returns
    -------
    DataFrame
        One row a method and exposure, with the columns `MV_COLUMNS`. A method that has too few
        SNPs, or cannot use the data, has rows of missing numbers and the reason in ``note``.

    Raises
    ------
    InvalidInputError
        A method that is not known (the message lists those that are), bad arrays, or options
        that a method does not have.

    Examples
    --------
    >>> import mrfast
    >>> table = mrfast.mv_mr(
    ...     beta_exposure=[[0.10, 0.02], [0.05, 0.12], [0.11, 0.01], [0.01, 0.09]],
    ...     beta_outcome=[0.05, 0.01, 0.06, -0.01],
    ...     se_outcome=[0.01, 0.01, 0.01, 0.01],
    ...     exposures=["LDL", "HDL"],
    ...     methods="mv_ivw",
    ... )
    >>> table[["method", "exposure"]].values.tolist()
    [['mv_ivw', 'LDL'], ['mv_ivw', 'HDL']]
    """
    import pandas as pd

    from mrfast.data.mv_harmonisation import MVHarmonised

    names = DEFAULT_MV_METHODS if methods is None else chosen_methods(methods, MV_METHODS)
    given = method_options(options, names, MV_METHODS)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    arrays = (beta_exposure, se_exposure, beta_outcome, se_outcome)
    if data is not None:
        if any(array is not None for array in (*arrays, exposures)):
            raise check.fail("data", "harmonised data or the four arrays", "both")
        if not isinstance(data, MVHarmonised):
            raise check.fail("data", "a result of mrfast.mv_harmonise", type(data).__name__)
        beta_exposure, se_exposure, beta_outcome, se_outcome = data.arrays().values()
    if beta_exposure is None or beta_outcome is None or se_outcome is None:
        raise check.fail("data", "harmonised data, or the four arrays", "neither")
    checked = mv_associations(
        beta_exposure,
        se_exposure,
        beta_outcome,
        se_outcome,
        exposures=exposures,
        spare=0,
        needs_se_exposure=False,
    )
    if exposure_correlation is not None and se_exposure is None:
        raise check.fail("exposure_correlation", "None without se_exposure", "some")
    error_correlations("exposure_correlation", exposure_correlation, checked.exposures)
    if ld is not None:
        correlations(ld, snps, ld_snps, len(checked.by))
    columns = list(checked.exposures)
    shared: dict[str, Any] = {
        "beta_exposure": pd.DataFrame(checked.bx, columns=columns),
        "se_exposure": None if se_exposure is None else pd.DataFrame(checked.sx, columns=columns),
        "beta_outcome": checked.by,
        "se_outcome": checked.sy,
        "ci_level": level,
    }
    seed = int(generator(rng).integers(2**63)) if rng is not None else None
    rows: list[dict[str, Any]] = []
    for name in names:
        method = MV_METHODS[name]
        arguments = {**shared, **given.get(name, {})}
        if ld is not None:
            method.refuse_ld()
            arguments |= {"ld": ld, "snps": snps, "ld_snps": ld_snps}
        if exposure_correlation is not None and _correlated(method):
            arguments["exposure_correlation"] = exposure_correlation
        result = attempt(
            method,
            arguments,
            len(checked.by),
            minimum=method.minimum_snps + len(columns) - 1,
            seed=seed,
            strict=name in given,
        )
        rows += _rows(method, checked.exposures, len(checked.by), result)
    return pd.DataFrame(rows, columns=list(MV_COLUMNS))


def _correlated(method: Method) -> bool:
    return "exposure_correlation" in inspect.signature(method.resolve()).parameters


def _rows(
    method: Method, exposures: tuple[str, ...], n_snps: int, result: Any
) -> list[dict[str, Any]]:
    """Rows of a result, or of the reason why there is none."""
    empty: dict[str, Any] = dict.fromkeys(MV_COLUMNS, math.nan)
    empty |= {"n_snps": n_snps, "note": result if isinstance(result, str) else ""}
    found: dict[str, Any] = {}
    if not isinstance(result, str):
        found = {name: getattr(result, name) for name in MV_COLUMNS if hasattr(result, name)}
        found["note"] = "; ".join(result.messages)
    return [
        empty
        | {
            name: value[i] if isinstance(value, np.ndarray) else value
            for name, value in found.items()
        }
        | {"method": method.name, "exposure": exposure}
        for i, exposure in enumerate(exposures)
    ]
