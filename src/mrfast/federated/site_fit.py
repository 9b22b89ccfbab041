"""The analysis of one site: from persons and instruments to the profile that is pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mrfast import _validation as check
from mrfast._validation import Float, fail, listed
from mrfast.data.instruments import WEAK_F, InstrumentTable
from mrfast.errors import InvalidInputError
from mrfast.federated._design import prior_precision
from mrfast.federated._inputs import as_cohort, as_instruments
from mrfast.federated.analysed_persons import AnalysedPersons, analysed_persons
from mrfast.federated.cohort import Cohort
from mrfast.federated.further_fits import negative_control_table, snp_profile, snp_table
from mrfast.federated.likelihood_profile import LikelihoodProfile
from mrfast.federated.logistic import LogisticModel, site_nodes
from mrfast.federated.node_profile import NodeProfile
from mrfast.federated.privacy import check_identifier
from mrfast.federated.score import (
    SCORES,
    DosageCovariance,
    ExposureScale,
    ScoreWeights,
    exposure_scale,
    reference_covariance,
    score_weights,
    spread,
)
from mrfast.federated.scored_dosages import ScoredDosages
from mrfast.federated.site_covariates import Design
from mrfast.federated.site_profile import ScoreDefinition, SiteProfile, check_grid
from mrfast.federated.site_snps import SiteSnps, site_snps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["fit_site"]

_FEW_CASES = 50
_FREQUENCY_DIFFERENCE = 0.1
_MISSING_SHARE = 0.1


def fit_site(
    cohort: Cohort | pd.DataFrame,
    instruments: InstrumentTable | pd.DataFrame,
    *,
    covariates: pd.DataFrame | Sequence[str] | ArrayLike | None = None,
    site_id: str,
    score: str = "gamma",
    kappa: str = "dosages",
    impute: str = "cohort",
    per_snp: bool | str = False,
    grid: ArrayLike | None = None,
    alleles: pd.DataFrame | None = None,
    weights: Mapping[str, float] | None = None,
    negative_controls: bool | Sequence[str] | pd.DataFrame | None = None,
    study_id: str | None = None,
    effect_range: float = 1.0,
    min_count: int = 5,
    prior_variance: float | Sequence[float] | Mapping[str, float] | None = None,
    action: int = 2,
    eaf_tolerance: float = 0.08,
    n_threads: int | None = None,
) -> SiteProfile:
    r"""Fit one site: the profile log-likelihood of its allele score, with what pooling needs.

    The score of a person is :math:`S = \sum_j w_j G_j` with dosages G of the instruments' effect
    alleles, whatever allele the site counts. The logistic regression of the outcome on S and the
    covariates gives the profile; ``kappa`` says how much one unit of S moves the exposure. Persons
    without outcome or with a missing covariate are left out, and counted.

    Parameters
    ----------
    cohort : Cohort or DataFrame, shape (n, ...)
        Persons; see `Cohort.from_frame` for the columns.
    instruments : InstrumentTable or DataFrame, shape (J, ...)
        As the coordinator sent them; see `InstrumentTable.from_frame` for the columns.
    covariates : DataFrame, sequence of str, array-like of shape (n, p), or None
        A table joined by ``person_id``, ``personId`` or ``rowId``, or names of columns of the
        cohort, or numbers in the order of the cohort. Texts and categories become indicators.
    site_id : str
        Name of the site; "001" stays "001".
    score : {"gamma", "inverse_variance"}
        Weights: the effects on the exposure (under LD, given the other SNPs), or effects over
        squared standard errors as in Medusa.
    kappa : {"dosages", "allele_frequencies"}
        Covariance of the dosages from the analysed persons, given the covariates, or from the
        instruments' allele frequencies (and LD).
    impute : {"cohort", "instruments"}
        A missing dosage is twice the allele frequency, among the analysed persons or in the
        instruments' table. Observed dosages stay as they are, whole numbers or not.
    per_snp : bool or "profiles"
        Whether to fit every SNP by itself as well, on persons with a dosage of it, and whether to
        keep the profiles of these fits.
    grid : array-like, shape (m,), optional
        Ascending log odds ratios per unit of score at which the log-likelihood is wanted as
        numbers too (``log_likelihood``). The windows of the profiles are made to hold them, so that
        these are as exact there, unless that takes more than 512 nodes: ``messages`` says so.
    alleles : DataFrame, optional
        Alleles that the site's dosages count: ``snp``, ``coded_allele``, ``other_allele`` and, if
        known, ``frequency``. Without it they are taken to count the instruments' effect alleles.
    weights : mapping of SNP to float, optional
        Weights from a study that is independent of the instruments'; in place of ``score``.
    negative_controls : True, sequence of str, or DataFrame, optional
        Outcomes that the exposure cannot affect: columns of the cohort (True: those that begin
        with ``nc_outcome_``) or a table joined as the covariates.
    study_id : str, optional
        Name of the study, the same at all sites.
    effect_range : float, default 1
        Largest absolute effect of the exposure (log odds ratio) that the study considers: the
        profile is exact from minus to plus this times kappa, and within 8 standard errors of its
        maximum; but not beyond a log odds ratio of 10 per standard deviation of the score.
    min_count : int, default 5
        Smallest count that may leave the site: negative controls need as many cases and controls,
        SNPs of the score as many carriers of the rarer allele.
    prior_variance : float, sequence of p floats, or mapping of covariate to float, optional
        Variance of a normal prior with mean 0 on the coefficients of covariates, in their units:
        of all, of each column of the regression, or of those named; ``inf``: none. The profile is
        then that of the penalised likelihood.
    action : {1, 2, 3}
        Palindromic SNPs: trust their letters, read the strand off the frequencies, or drop them.
    eaf_tolerance : float, default 0.08
        A frequency nearer to 0.5 than this does not tell the strand.
    n_threads : int, optional
        By default all cores; the results do not depend on it.

    Returns
    -------
    SiteProfile
        Its ``harmonisation`` has a reason for every SNP, its ``messages`` say what was noticed.

    Raises
    ------
    InvalidInputError
        If the cohort, the instruments or an option are not usable, no SNP is left for the score,
        or there are no cases or no controls.
    ConvergenceError
        If the regression has no answer.
    """
    check_identifier("site_id", site_id)
    if study_id is not None:
        check_identifier("study_id", study_id)
    check.choice("score", score, SCORES)
    check.choice("kappa", kappa, ("dosages", "allele_frequencies"))
    check.choice("impute", impute, ("cohort", "instruments"))
    if per_snp not in (True, False, "profiles"):
        raise fail("per_snp", "True, False or 'profiles'", repr(per_snp))
    effect_range = check.scalar("effect_range", effect_range, above=0)
    min_count = check.integer("min_count", min_count, minimum=1)
    points = None if grid is None else check_grid(grid)
    table = as_instruments(instruments)
    given = None if weights is None else _weights(weights, table)
    persons = as_cohort(cohort)
    people = analysed_persons(persons, covariates)
    snps = site_snps(
        persons,
        people,
        table,
        alleles=alleles,
        weights=given,
        action=action,
        eaf_tolerance=eaf_tolerance,
        min_count=min_count,
    )
    model_weights = score_weights(table, snps.used, score=score, weights=given)
    dosages = ScoredDosages(
        persons,
        people.rows,
        [str(snps.columns[j]) for j in snps.used],
        snps.recoded[snps.used],
        _fill(table, snps, impute),
    )
    values = dosages.score(model_weights.weights)
    precision = prior_precision(
        prior_variance, people.design.names, left_out=people.design.constant
    )

    def model(outcome: Float, exposure: Float, rows: NDArray[np.bool_] | None) -> LogisticModel:
        columns = people.design.values
        return LogisticModel(
            outcome,
            exposure,
            columns if rows is None else columns[rows],
            names=people.design.names,
            prior_precision=precision,
            n_threads=n_threads,
        )

    try:
        main = model(people.outcome, values, None)
    except InvalidInputError as error:
        if not str(error).startswith("exposure"):
            raise
        raise fail("covariates", "a score that varies given them", "others") from error
    scale = _scale(table, model_weights, dosages, values, people.design, kappa)
    cover = None if points is None else (float(points[0]), float(points[-1]))
    profile = site_nodes(main, scale.kappa, effect_range=effect_range, cover=cover)
    messages = [
        *people.messages,
        *_cohort_remarks(table, snps, people),
        *_profile_remarks(main, profile, abs(scale.kappa) * effect_range, cover),
    ]
    singles, profiles, controls = None, None, None
    if per_snp:
        own_model = None if precision is None else model
        singles = snp_table(persons, people, table, snps, model=own_model, n_threads=n_threads)
        estimated = set(singles["snp"])
        without = [table.snps[j] for j in np.flatnonzero(snps.estimable)]
        without = [snp for snp in without if snp not in estimated]
        if without:
            messages.append(f"no estimate of the SNP by itself: {listed(without)}")
    if per_snp == "profiles" and singles is not None:
        profiles = {
            snp: snp_profile(persons, people, table, snps, snp, model, effect_range, cover)
            for snp in singles["snp"].astype(str)
        }
    if negative_controls is not None and negative_controls is not False:
        controls = negative_control_table(
            persons, people, values, negative_controls, model, min_count
        )
    return SiteProfile(
        site_id=site_id,
        study_id=study_id,
        profile=profile,
        score=ScoreDefinition(
            kind=model_weights.kind,
            snps=table.snps,
            effect_alleles=table.effect_alleles,
            other_alleles=table.other_alleles,
            weights=spread(model_weights.weights, snps.used, len(table)),
            noise_weights=scale.noise_weights,
            impute=impute,
            kappa_method=kappa,
            independent_weights=given is not None,
            instruments_checksum=table.checksum,
        ),
        counts=people.counts,
        kappa=scale.kappa,
        kappa_std_error=scale.std_error,
        kappa_weights=scale.kappa_weights,
        noise_trace=scale.noise_trace,
        instrument_beta=table.beta,
        instrument_std_error=table.std_error,
        instrument_ld=table.ld,
        per_snp=singles,
        per_snp_profiles=profiles,
        carriers=snps.carriers(table),
        harmonisation=snps.harmonisation(table),
        negative_controls=controls,
        diagnostics=_diagnostics(table, snps, people, main),
        effect_range=effect_range,
        grid=points,
        log_likelihood=None if points is None else _on_grid(main, profile, points),
        min_count=min_count,
        messages=tuple(messages),
    )


# ------------------------------------------------------------------------------ score and kappa


def _fill(instruments: InstrumentTable, snps: SiteSnps, impute: str) -> Float:
    """What stands for a missing dosage of the score's SNPs."""
    if impute == "cohort":
        return snps.mean[snps.used]
    eaf = instruments.eaf[snps.used]
    needed = np.isnan(eaf) & (snps.missing_share[snps.used] > 0)
    if needed.any():
        names = [instruments.snps[j] for j in snps.used[needed]]
        raise fail(
            "instruments",
            "allele frequencies of SNPs with missing dosages (or impute='cohort')",
            f"none for {listed(names)}",
        )
    return 2 * eaf


def _scale(
    instruments: InstrumentTable,
    weights: ScoreWeights,
    dosages: ScoredDosages,
    values: Float,
    design: Design,
    method: str,
) -> ExposureScale:
    if method == "dosages":
        covariance = dosages.covariance(
            weights.weights, values, design.values, matrix=weights.joint is not None
        )
    else:
        covariance = DosageCovariance.of(
            reference_covariance(instruments, weights.used), weights.weights
        )
    return exposure_scale(instruments, weights, covariance)


def _on_grid(model: LogisticModel, profile: NodeProfile, grid: Float) -> Float:
    """Log-likelihood on the grid: by the profile, or point by point where it does not hold it."""
    held = profile.lower <= grid[0] and grid[-1] <= profile.upper
    return profile(grid) if held else LikelihoodProfile(model)(grid)


# ------------------------------------------------------------------------------ options, remarks


def _weights(weights: Mapping[str, float], instruments: InstrumentTable) -> dict[str, float]:
    """Weights by SNP; a Series will do as well."""
    try:
        given = {str(snp): check.scalar("weights", weight) for snp, weight in dict(weights).items()}
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise fail("weights", "a mapping of SNP to number", type(weights).__name__) from error
    unknown = [snp for snp in given if snp not in instruments.snps]
    if unknown:
        raise fail("weights", "weights of instruments", f"one of {listed(unknown)}")
    return given


def _cohort_remarks(
    instruments: InstrumentTable, snps: SiteSnps, people: AnalysedPersons
) -> list[str]:
    """What the site should know about its SNPs and counts."""
    remarks = []
    names, used = instruments.snps, set(snps.used.tolist())
    dropped = [f"{names[j]} ({snps.reasons[j]})" for j in range(len(names)) if j not in used]
    if dropped:
        remarks.append(f"not in the score: {listed(dropped)}")
    if "kept_as_assumed" in snps.reasons:
        remarks.append("no table of alleles: dosages are taken to count the effect alleles")
    difference = np.abs(snps.mean / 2 - instruments.eaf)
    odd = [names[j] for j in snps.used if difference[j] > _FREQUENCY_DIFFERENCE]
    if odd:
        remarks.append(
            f"allele frequencies differ from the instruments' by more than "
            f"{_FREQUENCY_DIFFERENCE}: {listed(odd)}"
        )
    gaps = [names[j] for j in snps.used if snps.missing_share[j] > _MISSING_SHARE]
    if gaps:
        remarks.append(f"more than {_MISSING_SHARE:.0%} of dosages are missing: {listed(gaps)}")
    weak = [names[j] for j in snps.used if instruments.f_statistic[j] < WEAK_F]
    if weak:
        remarks.append(f"weak instruments, F below {WEAK_F:g}: {listed(weak)}")
    if people.counts.n_cases < _FEW_CASES:
        remarks.append(f"fewer than {_FEW_CASES} cases")
    return remarks


def _profile_remarks(
    model: LogisticModel,
    profile: NodeProfile,
    reach: float,
    cover: tuple[float, float] | None,
) -> list[str]:
    """What the site should know about the regression and the window of its profile."""
    remarks = []
    window = f"{profile.lower:.4g} to {profile.upper:.4g}"
    if cover is not None and not (profile.lower <= cover[0] and cover[1] <= profile.upper):
        remarks.append(
            "the grid is too wide for one window: log_likelihood is exact on all of it, the "
            f"profile from {window}, and goes on along its tangents"
        )
    if max(-profile.lower, profile.upper) < 0.999 * reach:
        remarks.append(
            f"effect_range asks for log odds ratios up to {reach:.4g} per unit of score, more than "
            f"the profile holds ({window}); give it in the units of the exposure"
        )
    if np.isfinite(profile.mle) and not (
        profile.inside(profile.mle - 7.9 * profile.std_error)
        and profile.inside(profile.mle + 7.9 * profile.std_error)
    ):
        remarks.append(
            f"the data hardly tell the log odds ratio ({profile.mle:.4g}, standard error "
            f"{profile.std_error:.4g}): its profile is exact from {window}, and goes on along its "
            "tangents"
        )
    if model.aliased:
        remarks.append(f"covariates that others explain, left out: {listed(model.aliased)}")
    separation = model.fit().separation
    return remarks if separation is None else [*remarks, separation]


def _diagnostics(
    instruments: InstrumentTable,
    snps: SiteSnps,
    people: AnalysedPersons,
    model: LogisticModel,
) -> dict[str, Any]:
    present = [j for j, column in enumerate(snps.columns) if column is not None]
    names = [instruments.snps[j] for j in present]
    f = instruments.f_statistic[snps.used]
    return {
        "low_case_count": people.counts.n_cases < _FEW_CASES,
        "weak_instruments": bool(np.any(f < WEAK_F)),
        "mean_f": float(np.mean(f)),
        "n_covariates": len(people.design.names) - len(model.aliased),
        "separation": model.fit().separation,
        "missing_share": pd.DataFrame({"snp": names, "missing_share": snps.missing_share[present]}),
        "eaf": pd.DataFrame({"snp": names, "eaf": snps.mean[present] / 2}),
        "aliased_covariates": model.aliased,
        "constant_covariates": people.design.constant,
    }
