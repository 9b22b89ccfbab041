"""What single SNPs do to an estimate: `leave_one_out`, and the SNPs by themselves: `single_snp`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtr

from mrfast import _validation as check
from mrfast._runtime import generator
from mrfast._validation import Float
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.summary import _deletion
from mrfast.summary._data_sets import DataSet, data_sets
from mrfast.summary._inputs import WEIGHTS, Associations, outcome_error
from mrfast.summary._least_squares import correlations, labels_of
from mrfast.summary.estimate import Inference
from mrfast.summary.registry import Method, find_method

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ALL", "COLUMNS", "leave_one_out", "single_snp"]

ALL = "All"
"""What the column ``snp`` says in rows of all SNPs."""

COLUMNS = (
    "snp",
    "method",
    "n_snps",
    "estimate",
    "std_error",
    "ci_lower",
    "ci_upper",
    "p_value",
    "note",
)
"""Columns of the tables, after ``exposure`` and ``outcome`` where the data have them."""

_CLOSED = {"ivw": "random", "ivw_fixed": "fixed", "egger": "random"}  # with their models
_CLOSED_OPTIONS = {"model", "weights", "distribution"}


def leave_one_out(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    method: str = "ivw",
    options: Mapping[str, Any] | None = None,
    snps: Sequence[object] | None = None,
    ld: Any = None,
    ld_snps: Sequence[object] | None = None,
    rng: object = None,
    ci_level: float = 0.95,
) -> pd.DataFrame:
    """Estimates without each SNP in turn.

    Inverse-variance weighting and Egger regression take one pass over the SNPs (with first- or
    second-order weights); other methods run once a SNP.

    Parameters
    ----------
    data : Harmonised or DataFrame, optional
        As in `mrfast.mr`; its column ``snp`` names the SNPs. Several pairs of traits are allowed.
    beta_exposure, se_exposure, beta_outcome, se_outcome : array_like, shape (J,), or float
        One data set, instead of `data`.
    method : str, default "ivw"
        A name of the registry, `mrfast.summary.registry.METHODS`.
    options : mapping, optional
        Options of the method.
    snps : sequence of str, length J, optional
        Names of the SNPs of arrays; their positions otherwise.
    ld, ld_snps
        Correlations between SNPs, for one data set; as in `mrfast.ivw`.
    rng : None, int or numpy.random.Generator
        For methods that draw random numbers. All runs draw the same ones, so that they differ by
        the SNP alone.
    ci_level : float, default 0.95

    Returns
    -------
    DataFrame, shape (J + 1, ...)
        One row a SNP that is left out, in the order of the data, then one of all SNPs, with the
        columns `COLUMNS` (after ``exposure`` and ``outcome``, where `data` has them). ``snp`` is
        ``"All"`` in the last row. Where the other SNPs are too few, or the method fails without a
        SNP, numbers are missing and ``note`` says why.

    Raises
    ------
    InvalidInputError
        Bad arrays, an unknown method or option, too few SNPs for the method.

    Examples
    --------
    >>> import mrfast
    >>> table = mrfast.leave_one_out(
    ...     beta_exposure=[0.1, 0.2, 0.15], beta_outcome=[0.05, 0.11, 0.01],
    ...     se_outcome=[0.02, 0.02, 0.02], snps=["rs1", "rs2", "rs3"],
    ... )
    >>> table["estimate"].round(3).tolist()
    [0.376, 0.2, 0.54, 0.393]
    """
    import pandas as pd

    chosen = find_method(method, argument="method")
    own = chosen.checked_options(options)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    sets = data_sets(data, (beta_exposure, se_exposure, beta_outcome, se_outcome))
    if ld is not None and len(sets) > 1:
        raise check.fail("ld", "None with several data sets", f"{len(sets)} data sets")
    if ld is not None:
        chosen.refuse_ld()
    if snps is not None and len(sets) > 1:
        raise check.fail("snps", "None with several data sets", f"{len(sets)} data sets")
    entropy = [int(generator(rng).integers(2**63)), *chosen.name.encode()]
    frames = []
    for entry in sets:
        checked = entry.checked(chosen.minimum_snps)
        names = entry.snp_names(snps, len(checked.bx))
        run = _Run(entry, checked, chosen, own, entropy, level)
        if ld is not None:
            labelled = labels_of(ld, ld_snps) is not None
            run.ld = correlations(ld, names if labelled else None, ld_snps, len(names))
        frames.append(_frame(entry.labels, run.table(names)))
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


class _Run:
    """One method on one data set, with all SNPs and without each."""

    def __init__(
        self,
        entry: DataSet,
        data: Associations,
        method: Method,
        options: dict[str, Any],
        entropy: list[int],
        level: float,
    ) -> None:
        self._arrays = entry.arguments(data)
        self._data = data
        self._method = method
        self._options = options
        self._entropy = entropy
        self._level = level
        self.ld: Float | None = None

    def table(self, names: Sequence[str]) -> dict[str, Any]:
        """Columns of the table."""
        n = len(names)
        whole = self._estimate(None)
        found = {key: np.full(n, math.nan) for key in COLUMNS[3:8]}
        notes = [""] * n
        needed = self._method.minimum_snps
        if n - 1 < max(needed, 1):
            others = " beside the one that is left out" if needed <= 1 else "s"
            notes = [f"needs at least {max(needed, 1)} SNP{others}"] * n
        elif self._closed_form(n):
            self._without_fitting(found, notes)
        else:
            for j in range(n):
                try:
                    result = self._estimate(j)
                except (ConvergenceError, InvalidInputError) as error:
                    notes[j] = str(error)
                    continue
                for key, column in found.items():
                    column[j] = getattr(result, key)
        return {
            "snp": [*names, ALL],
            "method": self._method.name,
            "n_snps": [*[n - 1] * n, n],
            **{key: [*column, getattr(whole, key)] for key, column in found.items()},
            "note": [*notes, "; ".join(whole.messages)],
        }

    def _estimate(self, left_out: int | None) -> Any:
        arguments = dict(self._arrays)
        ld = self.ld
        if left_out is not None:
            for key, value in arguments.items():
                if value is not None:
                    arguments[key] = np.delete(value, left_out)
            if ld is not None:
                ld = np.delete(np.delete(ld, left_out, axis=0), left_out, axis=1)
        if ld is not None:
            arguments["ld"] = ld
        if self._method.random:
            arguments["rng"] = np.random.default_rng(self._entropy)
        return self._method(**arguments, **self._options, ci_level=self._level)

    def _closed_form(self, n: int) -> bool:
        return (
            self._method.name in _CLOSED
            and self.ld is None
            and set(self._options) <= _CLOSED_OPTIONS
            and self._options.get("weights", "first_order") != "simple"
            and self._options.get("model", "random") in ("random", "fixed")
            and n >= self._method.minimum_snps + 1
        )

    def _without_fitting(self, found: dict[str, Float], notes: list[str]) -> None:
        name, n = self._method.name, len(self._data.bx)
        options = {"weights": "first_order", "model": _CLOSED[name], **self._options}
        s = outcome_error(self._data, options["weights"])
        if name == "egger":
            fit = _deletion.line(self._data.bx, self._data.by, s)
            law, df = "t", n - 3
        else:
            fit = _deletion.through_origin(self._data.bx, self._data.by, s)
            law, df = "normal", n - 2
        assert fit is not None  # the fit of all SNPs has gone well
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt(fit.qs / df) if df else np.ones(n)
            error = np.sqrt(fit.slope_variances)
            if options["model"] == "random":
                error = error * np.maximum(1.0, spread)
        law = options.get("distribution", law)
        if law == "t" and df == 0:
            notes[:] = ["distribution: a single SNP has no t distribution"] * n
            return
        found.update(columns_of_inference(fit.slopes, error, law, df, self._level))
        for j in np.flatnonzero(np.isnan(fit.slopes)):
            notes[j] = "without this SNP the associations with the exposure do not differ"


def columns_of_inference(
    estimate: Float, error: Float, distribution: str, df: float, level: float
) -> dict[str, Float]:
    """Estimates, errors, limits and two-sided p-values, as arrays."""
    reach = Inference(distribution, df, level).reach * error
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = -np.abs(estimate / error)
        tail = ndtr(ratio) if distribution == "normal" else stdtr(df, ratio)
    return {
        "estimate": estimate,
        "std_error": error,
        "ci_lower": estimate - reach,
        "ci_upper": estimate + reach,
        "p_value": np.asarray(2 * tail),
    }


def single_snp(
    data: Any = None,
    *,
    beta_exposure: ArrayLike | None = None,
    se_exposure: ArrayLike | None = None,
    beta_outcome: ArrayLike | None = None,
    se_outcome: ArrayLike | None = None,
    weights: str = "first_order",
    methods: Sequence[str] = ("ivw", "egger"),
    snps: Sequence[object] | None = None,
    rng: object = None,
    ci_level: float = 0.95,
) -> pd.DataFrame:
    """Ratio estimate of every SNP by itself, and of all of them.

    Parameters
    ----------
    data, beta_exposure, se_exposure, beta_outcome, se_outcome
        As in `leave_one_out`.
    weights : {"first_order", "second_order", "simple"}, default "first_order"
        Of the ratios' errors, as in `mrfast.wald_ratio`; pooled rows have their own defaults.
    methods : sequence of str, default ("ivw", "egger")
        Names of the registry for the rows of all SNPs.
    snps : sequence of str, length J, optional
        Names of the SNPs of arrays; their positions otherwise.
    rng : None, int or numpy.random.Generator
        For pooled methods that draw random numbers.
    ci_level : float, default 0.95

    Returns
    -------
    DataFrame, shape (J + n_methods, ...)
        One row a SNP, with ``method`` ``"wald_ratio"``, then one a pooled method, whose ``snp`` is
        ``"All"``; columns `COLUMNS`. A SNP with no association with the exposure, and a pooled
        method with too few SNPs, have missing numbers and a ``note``.

    Raises
    ------
    InvalidInputError
        Bad arrays, an unknown method.

    Examples
    --------
    >>> import mrfast
    >>> table = mrfast.single_snp(
    ...     beta_exposure=[0.1, 0.2], beta_outcome=[0.05, 0.11], se_outcome=[0.02, 0.02],
    ...     methods=["ivw"],
    ... )
    >>> table["estimate"].round(3).tolist()
    [0.5, 0.55, 0.54]
    """
    import pandas as pd

    from mrfast.summary.several_methods import method_names, mr

    check.choice("weights", weights, WEIGHTS)
    level = check.scalar("ci_level", ci_level, above=0, below=1)
    pooled = method_names(methods)
    sets = data_sets(data, (beta_exposure, se_exposure, beta_outcome, se_outcome))
    if snps is not None and len(sets) > 1:
        raise check.fail("snps", "None with several data sets", f"{len(sets)} data sets")
    seed = None if rng is None else int(generator(rng).integers(2**63))
    frames = []
    for entry in sets:
        checked = entry.checked(1)
        names = entry.snp_names(snps, len(checked.bx))
        rows = _frame(entry.labels, _ratios(checked, entry, weights, level, names))
        if pooled:
            together = mr(**entry.arguments(checked), methods=pooled, rng=seed, ci_level=level)
            columns = {key: together[key].to_list() for key in COLUMNS[1:]}
            more = _frame(entry.labels, {"snp": [ALL] * len(pooled), **columns})
            rows = pd.concat([rows, more], ignore_index=True)
        frames.append(rows)
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def _ratios(
    data: Associations, entry: DataSet, weights: str, level: float, names: Sequence[str]
) -> dict[str, Any]:
    """Columns of the rows of single SNPs."""
    if weights == "second_order" and entry.arrays[1] is None:
        raise check.fail("se_exposure", "standard errors of beta_exposure", "None")
    n = len(data.bx)
    usable = data.bx != 0
    some = Associations(*(values[usable] for values in data))
    found = {key: np.full(n, math.nan) for key in COLUMNS[3:8]}
    error = outcome_error(some, weights) / np.abs(some.bx)
    for key, values in columns_of_inference(some.by / some.bx, error, "normal", 0, level).items():
        found[key][usable] = values
    return {
        "snp": list(names),
        "method": "wald_ratio",
        "n_snps": 1,
        **found,
        "note": ["" if good else "no association with the exposure" for good in usable],
    }


def _frame(labels: Mapping[str, str], columns: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(columns)[list(COLUMNS)]
    for place, (key, value) in enumerate(labels.items()):
        frame.insert(place, key, value)
    return frame
