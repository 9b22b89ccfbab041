"""Strength of the instruments: `first_stage_f`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.instruments import WEAK_F, InstrumentTable
from mrfast.federated._inputs import as_cohort, as_instruments, observed_dosages
from mrfast.federated.cohort import Cohort
from mrfast.federated.site_covariates import covariate_table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


__all__ = ["FirstStage", "first_stage_f"]

_FEWEST_ROWS = 10
_CONSTANT = 1e-20  # of the sum of squares: what centring leaves of a constant
_COLLINEAR = 1e-9  # share of a column that the columns before it leave


@dataclass(frozen=True, eq=False, repr=False)
class FirstStage:
    """Result of `first_stage_f`.

    Attributes
    ----------
    table : DataFrame, shape (J, 4)
        ``snp``, ``f_statistic``, ``source`` ("instruments" or "cohort"), ``weak`` (F below 10).
    mean_f : float
        Mean of the single F statistics.
    joint_f : float
        F of all SNPs together. From instruments z' R^-1 z / J, which is `mean_f` without LD.
    score_f : float
        F of the score as one instrument; NaN where an allele frequency that it needs is unknown.
    source : {"instruments", "cohort"}
    """

    table: pd.DataFrame
    mean_f: float
    joint_f: float
    score_f: float
    source: str

    @property
    def weak(self) -> tuple[str, ...]:
        """SNPs whose F is below 10."""
        return tuple(self.table.loc[self.table["weak"], "snp"])

    def __repr__(self) -> str:
        return (
            f"FirstStage (from the {self.source}, {len(self.table)} SNPs): mean F "
            f"{self.mean_f:.4g}, joint F {self.joint_f:.4g}, score F {self.score_f:.4g}, "
            f"{len(self.weak)} weak"
        )


def first_stage_f(
    instruments: InstrumentTable | pd.DataFrame,
    *,
    cohort: Cohort | pd.DataFrame | None = None,
    exposure: str | ArrayLike = "exposure",
    covariates: pd.DataFrame | Sequence[str] | str | ArrayLike | None = None,
    score_weights: ArrayLike | None = None,
) -> FirstStage:
    """Strength of the instruments: F statistics of SNPs, of all of them, and of their score.

    Parameters
    ----------
    instruments : InstrumentTable or DataFrame, shape (J, ...)
    cohort : Cohort or DataFrame, optional
        A cohort in which the exposure is measured. Then F is that of the regression of the
        exposure on the dosages; without a cohort it is (beta / std_error)^2 of the instruments.
    exposure : str or array_like, shape (n,), default "exposure"
        Column of the cohort, or the values.
    covariates : optional
        As in `fit_site`; then every F is a partial one. Only with a cohort.
    score_weights : array_like, shape (J,), optional
        Weights of the score that are independent of `instruments`. Default: the efficient weights
        from `instruments` themselves. Without a cohort, `score_f` is then freed of what the noise
        of the weights adds to the score's apparent effect: 20 SNPs without any effect would show
        a score F near 20.

    Returns
    -------
    FirstStage

    Raises
    ------
    InvalidInputError
        Weights of another length or all zero, a cohort without the SNPs or with 10 persons or
        fewer of whom dosage and exposure are known.
    """
    table = as_instruments(instruments)
    weights = None
    if score_weights is not None:
        weights = check.float_array("score_weights", score_weights, ndim=1, shape=(len(table),))
        if not weights.any():
            raise check.fail("score_weights", "weights other than 0", "zeros only")
    if cohort is None:
        if covariates is not None:
            raise check.fail("covariates", "none without a cohort", "some")
        return _strength_in_instruments(table, weights)
    return _strength_in_cohort(table, as_cohort(cohort), exposure, covariates, weights)


def _strength_in_instruments(table: InstrumentTable, weights: Float | None) -> FirstStage:
    r = np.eye(len(table)) if table.ld is None else table.ld
    z = table.beta / table.std_error
    variance = 2 * table.eaf * (1 - table.eaf)
    covariance = table.covariance
    noise = 0.0
    if weights is None:
        b = np.sqrt(np.outer(variance, variance)) * np.linalg.inv(r)  # D C^-1 D, C = S R S
        a = np.einsum("ij,j->i", b, table.beta)
        noise = float((b * covariance).sum())
    else:
        a = np.where(weights == 0, 0.0, variance * weights)
    effect = (
        max(float((a * table.beta).sum()) - noise, 0.0)
        if weights is None
        else float((a * table.beta).sum())
    )
    error = float(np.einsum("i,ij,j->", a, covariance, a))
    return _first_stage(
        table.snps,
        table.f_statistic,
        float((z * np.linalg.solve(r, z)).mean()),
        effect**2 / error if error > 0 else float("nan"),
        "instruments",
    )


def _strength_in_cohort(
    table: InstrumentTable,
    cohort: Cohort,
    exposure: str | ArrayLike,
    covariates: pd.DataFrame | Sequence[str] | str | ArrayLike | None,
    weights: Float | None,
) -> FirstStage:
    if isinstance(exposure, str):
        column = cohort.columns([exposure], "exposure")[exposure]
        values = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values = np.asarray(exposure, dtype=np.float64)
    if values.shape != (cohort.n,):
        raise check.fail("exposure", f"shape ({cohort.n},)", f"shape {values.shape}")
    nuisance = np.ones((1, cohort.n))
    if covariates is not None:
        design = covariate_table(cohort, covariates)
        known = np.flatnonzero(design.complete)
        columns = np.full((len(design.design(known).names), cohort.n), np.nan)
        columns[:, known] = design.design(known).values.T
        nuisance = np.vstack([nuisance, columns])
    found, dosages = observed_dosages(cohort, table.snps)
    usable = ~np.isnan(values) & ~np.isnan(nuisance).any(axis=0)
    single = [
        _regression_f(values, dosages[j : j + 1], nuisance, usable, snp)
        for j, snp in enumerate(found)
    ]
    place = [table.snps.index(snp) for snp in found]
    if weights is None:
        variance = np.nanvar(dosages, axis=1)
        r = np.eye(len(place)) if table.ld is None else table.ld[np.ix_(place, place)]
        scale = np.sqrt(variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.linalg.solve(r, scale * table.beta[place]) / scale
        weights = np.where(variance > 0, weights, 0.0)
    else:
        weights = weights[place]
    score = np.einsum("j,jn->n", weights, dosages)[None, :]
    return _first_stage(
        tuple(found),
        np.array(single),
        _regression_f(values, dosages, nuisance, usable, "all SNPs together"),
        _regression_f(values, score, nuisance, usable, "the score"),
        "cohort",
    )


def _first_stage(
    snps: Sequence[str], f: Float, joint: float, score: float, source: str
) -> FirstStage:
    table = pd.DataFrame(
        {"snp": list(snps), "f_statistic": f, "source": source, "weak": f < WEAK_F}
    )
    return FirstStage(table, float(np.mean(f)), joint, score, source)


def _regression_f(
    response: Float, columns: Float, nuisance: Float, usable: NDArray[np.bool_], what: str
) -> float:
    """F of the columns, shape (k, n), beside the nuisance; NaN where they do not vary."""
    rows = usable & ~np.isnan(columns).any(axis=0)
    n, k = int(rows.sum()), len(columns)
    if n <= max(_FEWEST_ROWS, k + len(nuisance)):
        raise check.fail(
            "cohort", f"more than {_FEWEST_ROWS} persons with exposure and dosages ({what})", f"{n}"
        )
    block = np.concatenate([nuisance[1:], columns, response[None, :]])[:, rows]
    whole = np.einsum("in,in->i", block, block)
    block = block - block.mean(axis=1, keepdims=True)
    size = np.einsum("in,in->i", block, block)
    block = block * np.where(size > _CONSTANT * whole, 1 / np.sqrt(size + (size == 0)), 0)[:, None]
    gram = np.einsum("in,jn->ij", block, block)
    rank = 0
    sums = []  # residual sums of squares of the response, before and after the columns
    for j in range(len(gram) - 1):
        if j == len(nuisance) - 1:
            sums.append(gram[-1, -1])
        left = gram[j, j]
        if left > _COLLINEAR:
            gram = gram - np.outer(gram[:, j], gram[j]) / left
            rank += j >= len(nuisance) - 1
        gram[j, :] = gram[:, j] = 0.0
    if rank == 0 or not sums[0] > 0:
        return float("nan")
    df = n - rank - len(nuisance)
    return float((sums[0] - gram[-1, -1]) / rank / (gram[-1, -1] / df))
