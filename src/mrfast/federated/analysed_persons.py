"""Who is analysed at a site, who is left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mrfast._validation import Float, fail, listed
from mrfast.federated.site_covariates import CovariateTable, Design, covariate_table
from mrfast.federated.site_profile import SiteCounts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from mrfast.federated.cohort import Cohort

__all__ = ["AnalysedPersons", "analysed_persons"]


@dataclass(frozen=True, eq=False)
class AnalysedPersons:
    """Persons with a known outcome and no covariate missing.

    Attributes
    ----------
    rows : ndarray of int, shape (n,), or slice
        Their rows in the cohort; a slice where that is everybody.
    outcome : ndarray, shape (n,)
    design : Design
        Their covariates.
    counts : SiteCounts
    messages : tuple of str
        What was noticed, for the site.
    """

    rows: NDArray[np.intp] | slice
    outcome: Float
    design: Design
    counts: SiteCounts
    messages: tuple[str, ...]


def analysed_persons(
    cohort: Cohort, covariates: pd.DataFrame | Sequence[str] | ArrayLike | None
) -> AnalysedPersons:
    """Find the persons to analyse.

    Parameters
    ----------
    cohort : Cohort
    covariates : DataFrame, sequence of str, array-like, or None
        As `covariate_table` takes them.

    Returns
    -------
    AnalysedPersons

    Raises
    ------
    InvalidInputError
        If no case or no control is left.
    """
    joined = covariate_table(cohort, covariates)
    known = np.logical_not(np.isnan(cohort.outcome))
    complete = known & joined.complete
    rows = slice(None) if complete.all() else np.flatnonzero(complete)
    outcome = cohort.outcome[rows]
    cases, total = int(np.count_nonzero(outcome)), int(outcome.size)
    if not 0 < cases < total:
        raise fail(
            "cohort",
            "cases and controls with complete covariates",
            f"{cases} cases and {total - cases} controls (of {cohort.n_cases} and "
            f"{cohort.n_controls} before)" + _why_incomplete(cohort, joined),
        )
    design = joined.design(rows)
    counts = SiteCounts(
        n=total,
        n_cases=cases,
        n_controls=total - cases,
        n_before=cohort.n_cases + cohort.n_controls,
        n_cases_before=cohort.n_cases,
        n_controls_before=cohort.n_controls,
    )
    messages = []
    unknown = cohort.n - int(np.count_nonzero(known))
    incomplete = int(np.count_nonzero(known)) - total
    if unknown:
        messages.append(f"{unknown} of {cohort.n} persons have no outcome, left out")
    if incomplete:
        messages.append(
            f"{incomplete} persons left out for want of covariates"
            + _why_incomplete(cohort, joined)
        )
    if joined.matched is not None:
        messages.append(joined.matched)
    if design.constant:
        messages.append(f"covariates that do not vary, left out: {listed(design.constant)}")
    return AnalysedPersons(rows, outcome, design, counts, tuple(messages))


def _why_incomplete(cohort: Cohort, joined: CovariateTable) -> str:
    parts = []
    if joined.n_without_row:
        parts.append(f"{joined.n_without_row} are not in the covariates' table")
    missing = np.count_nonzero(np.isnan(joined.columns), axis=1) - joined.n_without_row
    most = [(int(m), name) for m, name in zip(missing, joined.names, strict=True) if m > 0]
    parts += [f"{count} lack {name}" for count, name in sorted(most, reverse=True)[:5]]
    return f" ({', '.join(parts)})" if parts else ""
