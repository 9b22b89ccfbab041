"""Are the instruments associated with covariates? `phenome_wide_check`.

An instrument that shifts something other than the exposure may reach the outcome by another way.
Every covariate is regressed on the dosages: logistic regression for zeros and ones, least squares
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._runtime import thread_count
from mrfast._validation import Float
from mrfast.federated._design import PackedDesign, covariate_array, numbers, pack, scales
from mrfast.federated._inputs import as_cohort, as_instruments, observed_dosages
from mrfast.federated._newton import maximise
from mrfast.federated.cohort import Cohort
from mrfast.federated.site_covariates import covariate_table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mrfast.data.instruments import InstrumentTable

__all__ = ["PhenomeWideCheck", "phenome_wide_check"]

_MODELS = ("joint", "marginal", "both")
_COLLINEAR = 1e-8  # share of a column's variance that the columns before it leave
_SEPARATED = 12.0  # log odds over the range of the dosages
_JITTER = 1e-12  # relative; collinear nuisance columns then do no harm


@dataclass(frozen=True, eq=False, repr=False)
class PhenomeWideCheck:
    """Result of `phenome_wide_check`.

    Attributes
    ----------
    table : DataFrame
        One row per covariate, SNP and model: ``snp``, ``covariate``, ``model`` (joint or
        marginal), ``family`` (logistic or linear), ``n``, ``beta``, ``std_error``, ``statistic``,
        ``p_value``, ``significant``, ``status`` ("ok", or why there is no estimate).
    n_tests : int
        Pairs of SNP and covariate with an estimate, in the model with more of them.
    threshold : float
        level / n_tests: p-values below it are significant (Bonferroni).
    """

    table: pd.DataFrame
    n_tests: int
    threshold: float

    @property
    def significant(self) -> pd.DataFrame:
        """The significant rows, the smallest p-value first."""
        rows = self.table[self.table["significant"]]
        return rows.sort_values("p_value", kind="stable").reset_index(drop=True)

    @property
    def any_significant(self) -> bool:
        """Whether an instrument is associated with a covariate."""
        return bool(self.table["significant"].any())

    def __repr__(self) -> str:
        without = int((self.table["status"] != "ok").sum())
        return (
            f"PhenomeWideCheck ({self.n_tests} pairs of SNP and covariate tested, "
            f"{int(self.table['significant'].sum())} with p below {self.threshold:.3g}, "
            f"{without} without an estimate)"
        )


class _Fit(NamedTuple):
    """Coefficients of the SNPs; NaN where the status is not "ok"."""

    n: int
    beta: Float
    std_error: Float
    status: list[str]


def phenome_wide_check(
    cohort: Cohort | pd.DataFrame,
    instruments: InstrumentTable | pd.DataFrame,
    covariates: pd.DataFrame | Sequence[str] | str | ArrayLike | None = None,
    *,
    model: str = "joint",
    adjust: pd.DataFrame | Sequence[str] | str | ArrayLike | None = None,
    level: float = 0.05,
    min_rows: int = 20,
    min_count: int = 5,
) -> PhenomeWideCheck:
    """Regress every covariate on the instruments' dosages.

    The table stays at the site, as it may rest on few persons.

    Parameters
    ----------
    cohort : Cohort or DataFrame
        Persons with their dosages.
    instruments : InstrumentTable or DataFrame, shape (J, ...)
        SNPs without a column in the cohort are reported so.
    covariates : DataFrame, sequence of str, or array_like, shape (n, q), optional
        Joined by the persons' identifiers as in `fit_site`. Text becomes one covariate per level
        but the first.
    model : {"joint", "marginal", "both"}, default "joint"
        All SNPs in one regression (persons with all dosages), or each SNP by itself (persons with
        its dosage).
    adjust : as `covariates`, optional
        Columns that enter every regression, such as principal components of ancestry.
    level : float, default 0.05
        Family-wise level, divided by the number of tests.
    min_rows : int, default 20
        Fewest persons of a regression.
    min_count : int, default 5
        Fewest zeros and fewest ones of a covariate for a logistic regression: Wald tests of
        rarer ones are not to be trusted.

    Returns
    -------
    PhenomeWideCheck
        p-values are Wald's: normal for logistic regression, Student's for least squares. A
        covariate that is constant or rare, and a SNP that is constant, collinear with those
        before it, or separates a covariate, is reported in ``status``.

    Raises
    ------
    InvalidInputError
        No covariates, no SNP of the instruments in the cohort, or columns that are not usable.
    """
    people, table = as_cohort(cohort), as_instruments(instruments)
    model = check.choice("model", model, _MODELS)
    level = check.scalar("level", level, above=0, below=1)
    min_rows = check.integer("min_rows", min_rows, minimum=3)
    min_count = check.integer("min_count", min_count, minimum=1)
    if covariates is None and people.covariates is None:
        raise check.fail("covariates", "covariates to test", "None")
    names, values = _numeric(people, covariates)
    nuisance = np.ones((1, people.n))
    if adjust is not None:
        nuisance = np.vstack([nuisance, _numeric(people, adjust)[1]])
    found, dosages = observed_dosages(people, table.snps)
    usable = ~np.isnan(nuisance).any(axis=0)

    rows: list[tuple[object, ...]] = []
    for kind in ("joint", "marginal") if model == "both" else (model,):
        blocks = [list(range(len(found)))] if kind == "joint" else [[j] for j in range(len(found))]
        for block in blocks:
            x = dosages[block]
            known: NDArray[np.bool_] = np.asarray(usable & ~np.isnan(x).any(axis=0))
            for members, present in _patterns(values, known):
                fits = _fits(
                    x[:, present],
                    nuisance[:, present],
                    values[members][:, present],
                    min_rows,
                    min_count,
                )
                for member, (family, fit) in zip(members, fits, strict=True):
                    df = np.inf if family == "logistic" else fit.n - len(block) - len(nuisance)
                    rows += [
                        (found[j], names[member], kind, family, fit.n, *numbers, df)
                        for j, *numbers in zip(
                            block, fit.beta, fit.std_error, fit.status, strict=True
                        )
                    ]
        rows += [
            (snp, name, kind, "", 0, np.nan, np.nan, "not in the cohort", np.inf)
            for snp in table.snps
            if snp not in set(found)
            for name in names
        ]
    columns = ("snp", "covariate", "model", "family", "n", "beta", "std_error", "status", "df")
    return _with_tests(pd.DataFrame(rows, columns=columns), table.snps, names, level)


def _with_tests(
    frame: pd.DataFrame, snps: Sequence[str], names: Sequence[str], level: float
) -> PhenomeWideCheck:
    """Order the rows and add p-values."""
    from scipy.special import ndtr, stdtr

    order = np.lexsort(
        (
            pd.Index(snps).get_indexer(pd.Index(frame["snp"])),
            pd.Index(names).get_indexer(pd.Index(frame["covariate"])),
            (frame["model"] == "marginal").to_numpy(),
        )
    )
    frame = frame.iloc[order].reset_index(drop=True)
    ratio = (frame["beta"] / frame["std_error"]).to_numpy()
    df = frame.pop("df").to_numpy()
    normal = np.isinf(df)
    with np.errstate(invalid="ignore"):
        p = 2 * np.where(normal, ndtr(-np.abs(ratio)), stdtr(np.where(normal, 1, df), -abs(ratio)))
    tested = frame["status"] == "ok"
    n_tests = int(tested.groupby(frame["model"]).sum().max())
    threshold = level / max(n_tests, 1)
    frame.insert(7, "statistic", ratio)
    frame.insert(8, "p_value", p)
    frame.insert(9, "significant", (p < threshold) & tested.to_numpy())
    return PhenomeWideCheck(frame, n_tests, threshold)


def _numeric(
    cohort: Cohort, covariates: pd.DataFrame | Sequence[str] | str | ArrayLike | None
) -> tuple[list[str], Float]:
    """Covariates as numbers, shape (q, n): one 0/1 row per level of a text but the first."""
    table = covariate_table(cohort, covariates)
    names: list[str] = []
    rows: list[Float] = []
    for name, values, levels in zip(table.names, table.columns, table.levels, strict=True):
        if levels is None:
            names.append(name)
            rows.append(values)
            continue
        for place in np.unique(values[~np.isnan(values)])[1:].astype(int):
            names.append(f"{name}[{levels[place]}]")
            rows.append(np.where(np.isnan(values), np.nan, (values == place).astype(np.float64)))
    if not rows:
        raise check.fail("covariates", "at least one covariate that varies", "none")
    return names, np.array(rows)


def _patterns(
    values: Float, rows: NDArray[np.bool_]
) -> Iterator[tuple[list[int], NDArray[np.intp]]]:
    """Covariates that are known of the same persons, with the places of these."""
    groups: dict[bytes, list[int]] = {}
    for place, row in enumerate(np.isnan(values)):
        groups.setdefault(np.packbits(row).tobytes(), []).append(place)
    for members in groups.values():
        yield members, np.flatnonzero(rows & ~np.isnan(values[members[0]]))


def _fits(
    x: Float, nuisance: Float, covariates: Float, min_rows: int, min_count: int
) -> list[tuple[str, _Fit]]:
    """Fits of covariates, shape (q, n), on dosages (k, n); no missing values."""
    k, n = x.shape
    status = _column_status(x, nuisance)
    kept = np.array([entry == "ok" for entry in status])
    binary = ((covariates == 0) | (covariates == 1)).all(axis=1)
    families = np.where(binary, "logistic", "linear")
    results: list[_Fit | None] = [None] * len(covariates)
    linear: list[int] = []
    width = len(nuisance) + int(kept.sum())
    enough = n >= max(min_rows, width + 2)
    logistic: list[int] = []
    for place, y in enumerate(covariates):
        reason = ""
        if not enough:
            reason = "too few persons"
        elif y.min() == y.max():
            reason = "constant covariate"
        elif binary[place] and min(y.sum(), n - y.sum()) < min_count:
            reason = "rare covariate"
        elif not kept.any():
            reason = "ok"  # the SNPs' own reasons
        if reason:
            own = [reason if entry == "ok" else entry for entry in status]
            results[place] = _Fit(n, np.full(k, np.nan), np.full(k, np.nan), own)
        else:
            (logistic if binary[place] else linear).append(place)
    if logistic:
        found = _logistic(x[kept], nuisance, covariates[logistic])
        for place, own_fit in zip(logistic, found, strict=True):
            results[place] = _spread(own_fit, n, status, kept)
    if linear:
        fitted = _least_squares(x[kept], nuisance, covariates[linear])
        for place, beta, error in zip(linear, *fitted, strict=True):
            results[place] = _spread((beta, error, ["ok"] * len(beta)), n, status, kept)
    return [(str(f), fit) for f, fit in zip(families, results, strict=True) if fit is not None]


def _spread(
    fitted: tuple[Float, Float, list[str]], n: int, status: list[str], kept: NDArray[np.bool_]
) -> _Fit:
    """Put the coefficients of the kept SNPs in their places."""
    beta, error = np.full(len(status), np.nan), np.full(len(status), np.nan)
    beta[kept], error[kept] = fitted[0], fitted[1]
    reasons = iter(fitted[2])
    return _Fit(n, beta, error, [next(reasons) if entry == "ok" else entry for entry in status])


def _column_status(x: Float, nuisance: Float) -> list[str]:
    """Which SNPs vary beyond the columns before them: Gram-Schmidt on correlations."""
    if x.shape[1] == 0:
        return ["ok"] * len(x)
    centred = x - x.mean(axis=1, keepdims=True)
    residual = _residuals(centred, nuisance)
    gram = np.einsum("in,jn->ij", residual, residual)
    total = np.einsum("in,in->i", centred, centred)
    status = []
    for j in range(len(x)):
        left = gram[j, j]
        if x[j].min() == x[j].max():
            status.append("constant SNP")
        elif not left > _COLLINEAR * total[j]:
            status.append("collinear SNP")
        else:
            status.append("ok")
            gram = gram - np.outer(gram[:, j], gram[j]) / left
    return status


def _residuals(rows: Float, nuisance: Float) -> Float:
    """Rows, shape (k, n), less their least-squares fit on the nuisance rows."""
    from scipy.linalg import cho_factor, cho_solve

    columns = nuisance.copy()
    columns[1:] -= nuisance[1:].mean(axis=1, keepdims=True)
    scale = np.sqrt((columns**2).mean(axis=1, keepdims=True))
    columns /= np.where(scale > 0, scale, 1)
    gram = np.einsum("in,jn->ij", columns, columns)
    gram[np.diag_indices_from(gram)] *= 1 + _JITTER
    factor = cho_factor(gram)
    for _ in range(2):  # the second pass takes off what rounding left
        fit = cho_solve(factor, np.einsum("in,kn->ik", columns, rows))
        rows = rows - np.einsum("ik,in->kn", fit, columns)
    return rows


def _least_squares(x: Float, nuisance: Float, covariates: Float) -> tuple[Float, Float]:
    """Coefficients and standard errors, shape (q, k)."""
    g = _residuals(x, nuisance)
    y = _residuals(covariates, nuisance)
    inverse = np.linalg.inv(np.einsum("in,jn->ij", g, g))
    beta = np.einsum("ij,jq->qi", inverse, np.einsum("jn,qn->jq", g, y))
    residual = y - np.einsum("qi,in->qn", beta, g)
    df = x.shape[1] - len(x) - len(nuisance)
    variance = np.einsum("qn,qn->q", residual, residual) / df
    return beta, np.sqrt(np.outer(variance, inverse.diagonal()))


def _sums(design: PackedDesign, at: Float, _: NDArray[np.intp]) -> tuple[Float, Float, Float]:
    return design.sums(at)


def _logistic(
    x: Float, nuisance: Float, outcomes: Float
) -> Iterator[tuple[Float, Float, list[str]]]:
    """Logistic regressions of outcomes (q, n): coefficients of dosages (k, n), errors, status."""
    threads, count = thread_count(None), None
    if len(nuisance) == 1 and len(x) == 1:  # equal rows are counted instead of repeated
        values, place = np.unique(x[0], return_inverse=True)
        count = np.bincount(place).astype(np.float64)
        x, nuisance = np.tile(values, (1, 2)), np.ones((1, 2 * len(values)))
    n, k = x.shape[1], len(x)
    columns, moments = covariate_array(
        np.ascontiguousarray(np.vstack([nuisance[1:], x[:-1]]).T), n, threads
    )
    last, spread = numbers("dosages", np.ascontiguousarray(x[-1]), (n,), threads)
    origin, factor, _ = scales(spread)
    extent = np.ptp(x, axis=1)
    for y in outcomes:
        share, weights, outcome = float(y.mean()), None, y
        if count is not None:
            ones = np.bincount(place, weights=y)
            weights = np.concatenate([count - ones, ones])
            outcome = np.repeat([0.0, 1.0], len(count))
        design = pack(
            outcome,
            columns,
            moments,
            exposure=last,
            exposure_centre=float(origin[0]),
            exposure_scale=float(factor[0]),
            weights=weights,
            threads=threads,
        )
        start = np.zeros((1, design.kept.size + 2))
        start[0, 0] = np.log(share / (1 - share))
        found = maximise(partial(_sums, design), start, start.shape[1])
        try:
            inverse = np.linalg.inv(found.information[0])[1:, 1:]
        except np.linalg.LinAlgError:  # no curvature is left
            nothing = np.full(k, np.nan)
            yield nothing, nothing, ["separated"] * k
            continue
        units = np.eye(len(inverse))  # from the packed columns' coefficients to those of the given
        units[:-1, :-1], units[-1, -1] = design.transform, factor[0]
        beta = (units @ (found.coefficients + found.step)[0, 1:])[-k:]
        variance = (units @ inverse @ units.T).diagonal()[-k:]
        apart = ~(np.abs(beta) * extent <= _SEPARATED)
        status = ["separated" if a else "ok" for a in apart]
        if not found.converged[0] and not apart.any():
            status = ["not converged"] * k
        good = np.array([entry == "ok" for entry in status])
        error = np.sqrt(np.maximum(variance, 0))
        yield np.where(good, beta, np.nan), np.where(good, error, np.nan), status
