"""Are the instruments associated with covariates? `phenome_wide_check`.

An instrument that shifts something other than the exposure may reach the outcome by another way.
Every covariate is regressed on the dosages: logistic regression for zeros and ones, least squares
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.federated._inputs import as_cohort, as_instruments, observed_dosages
from mrfast.federated.cohort import Cohort
from mrfast.federated.site_covariates import covariate_table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mrfast.data.instruments import InstrumentTable

__all__ = ["PhenomeWideCheck", "phenome_wide_check"]

_MODELS = ("joint", "marginal", "both")
_COLLINEAR = 1e-8  # share of a column's variance that the columns before it leave
_ITERATIONS = 80
_DECREMENT = 1e-20  # of the log likelihood, at which Newton's method ends
_ROUNDING = 1e-14  # of the log likelihood, relative
_SLOW = 0.05  # of the decrement before: beyond it, the Hessian is computed anew
_SEPARATED = 12.0  # log odds over the range of the dosages
_FAR = 30.0  # log odds at which Newton's method need not go on
_HALVINGS = 30
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
    logistic = None
    if enough and kept.any() and binary.any():
        logistic = _LogisticRegression(nuisance, x[kept])
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
        elif not binary[place]:
            linear.append(place)
        elif logistic is not None:
            results[place] = _spread(logistic.fit(y), n, status, kept)
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

    scale = np.sqrt((nuisance**2).mean(axis=1, keepdims=True))
    columns = nuisance / np.where(scale > 0, scale, 1)
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


class _LogisticRegression:
    """Logistic regressions of many outcomes on nuisance rows (p, n) and dosages (k, n).

    `LogisticModel` packs one outcome with its rows; here one design serves every covariate, and
    the products of its columns start each of them near its maximum.
    """

    def __init__(self, nuisance: Float, x: Float) -> None:
        self._place: NDArray[np.intp] | None = None
        self._weight: Float | float = 1.0
        self._range = np.ptp(x, axis=1)
        if len(nuisance) == 1 and len(x) == 1:  # equal rows are counted instead of repeated
            values, place = np.unique(x[0], return_inverse=True)
            self._place = place
            self._weight = np.bincount(place).astype(np.float64)
            x, nuisance = values[None, :], np.ones((1, len(values)))
        rows = np.concatenate([x, nuisance[1:]])
        n = float(np.sum(self._weight * nuisance[0]))
        rows = rows - (rows * self._weight).sum(axis=1, keepdims=True) / n
        scale = np.sqrt((rows**2 * self._weight).sum(axis=1, keepdims=True) / n)
        scale[scale == 0] = 1
        self._x = np.concatenate([nuisance[:1], rows / scale])
        self._scale = scale[: len(x), 0]
        self._gram = self._information(np.ones(self._x.shape[1]))

    def fit(self, y: Float) -> tuple[Float, Float, list[str]]:
        """Coefficients of the dosages, their standard errors, and what became of each."""
        from scipy.linalg import LinAlgError

        try:
            beta, variance, converged = self._newton(y)
        except LinAlgError:  # no curvature is left
            beta = variance = np.full(len(self._scale), np.nan)
            return beta, variance, ["separated"] * len(beta)
        beta, error = beta / self._scale, np.sqrt(variance) / self._scale
        apart = np.abs(beta) * self._range > _SEPARATED
        if not converged and not apart.any():
            return beta * np.nan, error, ["not converged"] * len(beta)
        beta[apart] = error[apart] = np.nan
        return beta, error, ["separated" if a else "ok" for a in apart]

    def _newton(self, y: Float) -> tuple[Float, Float, bool]:
        """Newton's method, the Hessian kept while it serves."""
        from scipy.linalg import cho_factor, cho_solve

        ones: Float = (
            y
            if self._place is None
            else np.asarray(np.bincount(self._place, weights=y), dtype=np.float64)
        )
        share, k = float(y.mean()), len(self._scale)
        coefficients = np.zeros(len(self._x))
        coefficients[0] = np.log(share / (1 - share))
        value, fitted = self._value(coefficients, ones)
        factor = cho_factor(self._gram * share * (1 - share))
        fresh, previous, converged = True, np.inf, False
        for _ in range(_ITERATIONS):
            gradient = np.einsum("pn,n->p", self._x, ones - self._weight * fitted)
            step = cho_solve(factor, gradient)
            decrement = float((gradient * step).sum())
            if not fresh and decrement > _SLOW * previous:
                factor = cho_factor(self._information(fitted * (1 - fitted)))
                step = cho_solve(factor, gradient)
                decrement = float((gradient * step).sum())
            if decrement <= _DECREMENT:
                coefficients, converged = coefficients + step, True
                break
            for _ in range(_HALVINGS):
                proposed, at = self._value(coefficients + step, ones)
                if proposed >= value - _ROUNDING * abs(value):
                    break
                step = step / 2
            coefficients, value, fitted = coefficients + step, proposed, at
            fresh, previous = False, decrement
            if (np.abs(coefficients[1 : k + 1]) * self._range > _FAR * self._scale).any():
                break
        inverse = cho_solve(
            cho_factor(self._information(fitted * (1 - fitted))), np.eye(len(self._x))
        )
        return coefficients[1 : k + 1], inverse.diagonal()[1 : k + 1], converged

    def _value(self, coefficients: Float, ones: Float) -> tuple[float, Float]:
        """Log likelihood and probabilities."""
        eta = np.einsum("p,pn->n", coefficients, self._x)
        small = np.exp(-np.abs(eta))
        softplus = np.maximum(eta, 0) + np.log1p(small)
        fitted = np.where(eta >= 0, 1.0, small) / (1 + small)
        return float((ones * eta - self._weight * softplus).sum()), fitted

    def _information(self, variance: Float) -> Float:
        weighted = self._x * (self._weight * variance)
        gram: Float = np.einsum("in,jn->ij", self._x, weighted)
        gram[np.diag_indices_from(gram)] *= 1 + _JITTER
        return gram
