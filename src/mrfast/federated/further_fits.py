"""Further regressions of a site: single SNPs, and negative controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast._validation import Float, fail
from mrfast.data.associations import COLUMNS
from mrfast.errors import ConvergenceError, InvalidInputError
from mrfast.federated.dosage_scan import snp_scan
from mrfast.federated.logistic import LogisticModel, site_nodes
from mrfast.federated.scored_dosages import instrument_coding
from mrfast.federated.site_covariates import covariate_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mrfast.data.instruments import InstrumentTable
    from mrfast.federated.analysed_persons import AnalysedPersons
    from mrfast.federated.cohort import Cohort
    from mrfast.federated.node_profile import NodeProfile
    from mrfast.federated.site_snps import SiteSnps

__all__ = ["negative_control_table", "snp_profile", "snp_table"]

_CONTROL_PREFIX = "nc_outcome_"
_FEWEST_PERSONS = 20  # with a dosage, for an estimate of a single SNP

Model = Callable[[Float, Float, "NDArray[np.bool_] | None"], LogisticModel]
"""Regression of an outcome on an exposure, with the site's covariates, for some of its persons."""


def snp_table(
    cohort: Cohort,
    people: AnalysedPersons,
    instruments: InstrumentTable,
    snps: SiteSnps,
    *,
    model: Model | None = None,
    n_threads: int | None = None,
) -> pd.DataFrame:
    """Associations of single SNPs with the outcome, each on the persons with a dosage of it.

    Parameters
    ----------
    cohort : Cohort
    people : AnalysedPersons
    instruments : InstrumentTable
    snps : SiteSnps
    model : callable, optional
        See `Model`; for regressions with a prior, one by one.
    n_threads : int, optional

    Returns
    -------
    DataFrame, shape (k, ...)
        Columns of mrfast's association tables, for the instruments' effect alleles and with the
        cohort's own allele frequency; ``n_cases``, ``n_controls``, and the carriers of the rarer
        allele, ``carriers_cases`` and ``carriers_controls``. A SNP without an estimate has no row.
    """
    from scipy.special import ndtr

    places = np.flatnonzero(snps.estimable)
    parts = []
    for own, block in _blocks(cohort, people, snps, places):
        scan = snp_scan(people.outcome, block.T, people.design.values, n_threads=n_threads)
        beta, std_error = scan.beta, scan.std_error
        if model is not None:
            for i, values in enumerate(block):
                if np.isfinite(beta[i]):
                    fit = _single_model(cohort, people, values, model).fit()
                    beta[i], std_error[i] = fit.beta, fit.std_error
        good = np.isfinite(beta) & np.isfinite(std_error) & (scan.n >= _FEWEST_PERSONS)
        z = np.divide(beta, std_error, out=np.full(beta.size, np.nan), where=good)
        part = pd.DataFrame(
            {
                "eaf": scan.allele_frequency,
                "beta": beta,
                "std_error": std_error,
                "p_value": 2 * ndtr(-np.abs(z)),
                "n": scan.n,
                "n_cases": scan.n_cases,
                "n_controls": scan.n_controls,
                "carriers_cases": snps.carrier_counts[own, 1],
                "carriers_controls": snps.carrier_counts[own, 0],
            },
            index=own,
        )
        parts.append(part[good])
    names = [name for name in COLUMNS[:5] if name in instruments.frame.columns]
    table = instruments.frame[names].astype({"effect_allele": object, "other_allele": object})
    return table.join(pd.concat(parts), how="inner").reset_index(drop=True)


def snp_profile(
    cohort: Cohort,
    people: AnalysedPersons,
    instruments: InstrumentTable,
    snps: SiteSnps,
    snp: str,
    model: Model,
    effect_range: float,
    cover: tuple[float, float] | None = None,
) -> NodeProfile:
    """Profile of one SNP, on the persons with a dosage of it.

    Parameters
    ----------
    cohort : Cohort
    people : AnalysedPersons
    instruments : InstrumentTable
    snps : SiteSnps
    snp : str
    model : callable
        See `Model`.
    effect_range : float
        Largest effect of the exposure; times the SNP's effect on it, the window.
    cover : tuple of two floats, optional
        As `site_nodes` takes it.

    Returns
    -------
    NodeProfile
    """
    place = instruments.snps.index(snp)
    _, block = next(_blocks(cohort, people, snps, np.array([place])))
    own = _single_model(cohort, people, block[0], model)
    kappa = float(instruments.beta[place])
    return site_nodes(own, kappa, effect_range=effect_range, cover=cover)


def _single_model(
    cohort: Cohort, people: AnalysedPersons, dosages: NDArray[Any], model: Model
) -> LogisticModel:
    """Regression on the persons with a dosage."""
    missing = cohort.is_missing(dosages)
    if not missing.any():
        return model(people.outcome, dosages.astype(np.float64), None)
    observed = np.logical_not(missing)
    return model(people.outcome[observed], dosages[observed].astype(np.float64), observed)


def _blocks(
    cohort: Cohort, people: AnalysedPersons, snps: SiteSnps, places: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Places of some SNPs, and their dosages in the instruments' coding, shape (k, n)."""
    names = [str(snps.columns[j]) for j in places]
    for start, block in cohort.blocks(names, people.rows):
        own = places[start : start + block.shape[0]]
        yield own, instrument_coding(block, snps.recoded[own])


def negative_control_table(
    cohort: Cohort,
    people: AnalysedPersons,
    score: Float,
    asked: bool | Sequence[str] | pd.DataFrame,
    model: Model,
    min_count: int,
) -> pd.DataFrame:
    """Effects of the score on outcomes that the exposure cannot affect.

    Parameters
    ----------
    cohort : Cohort
    people : AnalysedPersons
    score : ndarray, shape (n,)
    asked : True, sequence of str, or DataFrame
        As `fit_site` takes them.
    model : callable
        See `Model`.
    min_count : int
        Fewest cases, and controls, for an estimate.

    Returns
    -------
    DataFrame
        Columns ``outcome``, ``beta``, ``std_error``, ``n_cases``, ``n_controls`` and ``reason``:
        "estimated", "few_cases", "separated" or "no_estimate" (the covariates explain the score
        among the persons with the outcome); beta is missing but in the first case.

    Raises
    ------
    InvalidInputError
        If an outcome is not there, or holds anything but 0, 1 and missing.
    """
    if isinstance(asked, pd.DataFrame):
        table = covariate_table(cohort, asked)
    else:
        if isinstance(asked, bool):
            names = [name for name in cohort.column_names if name.startswith(_CONTROL_PREFIX)]
        else:
            names = [asked] if isinstance(asked, str) else [str(name) for name in asked]
        if not names:
            raise fail("negative_controls", f"columns {_CONTROL_PREFIX}...", "none")
        cohort.columns(names, "negative_controls")
        table = covariate_table(cohort, names)
    rows = []
    for name, levels, column in zip(table.names, table.levels, table.columns, strict=True):
        outcome = column[people.rows]
        observed = np.logical_not(np.isnan(outcome))
        known = outcome[observed]
        if levels is not None or not np.isin(known, (0, 1)).all():
            raise fail("negative_controls", "outcomes of 0 and 1", f"others in {name}")
        cases = int(np.count_nonzero(known))
        beta, std_error, reason = np.nan, np.nan, "few_cases"
        if min(cases, known.size - cases) >= min_count:
            try:
                fit = model(known, score[observed], observed).fit()
            except (InvalidInputError, ConvergenceError):  # of this one outcome only
                reason = "no_estimate"
            else:
                reason = "separated"
                if math.isfinite(fit.beta):
                    beta, std_error, reason = fit.beta, fit.std_error, "estimated"
        rows.append((name, beta, std_error, cases, known.size - cases, reason))
    columns = ["outcome", "beta", "std_error", "n_cases", "n_controls", "reason"]
    return pd.DataFrame(rows, columns=columns)
