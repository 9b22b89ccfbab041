"""Medusa's simulators of tables: instruments, site profiles, covariates, negative controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._validation import Float

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MedusaSiteProfile",
    "medusa_covariates",
    "medusa_instruments",
    "medusa_negative_controls",
    "medusa_site_profiles",
]

_PAIRS = ("AC", "AG", "CA", "CT", "GA", "GT", "TC", "TG")  # not palindromic


@dataclass(frozen=True, eq=False, repr=False)
class MedusaSiteProfile:
    """A quadratic profile log-likelihood as Medusa's simulator makes it: arrays only.

    Attributes
    ----------
    site_id : str
    grid : ndarray, shape (m,)
        Log odds ratios per unit of score.
    log_likelihood : ndarray, shape (m,)
        -information (grid - mle)^2 / 2, less its largest value.
    mle, information : float
    n_cases, n_controls : int
    snps : tuple of str
    weights, beta, std_error : ndarray, shape (5,)
        Of the score, shared by the sites.
    """

    site_id: str
    grid: Float
    log_likelihood: Float
    mle: float
    information: float
    n_cases: int
    n_controls: int
    snps: tuple[str, ...]
    weights: Float
    beta: Float
    std_error: Float

    def __repr__(self) -> str:
        return f"MedusaSiteProfile({self.site_id!r}, mle={self.mle:.4f}, cases={self.n_cases})"


def medusa_instruments(n_snps: int = 10, *, rng: object = None) -> pd.DataFrame:
    """Table of instruments by the equations of Medusa's simulateInstrumentTable.

    beta = +-U(0.1, 0.5), std_error ~ U(0.02, 0.08), eaf ~ U(0.05, 0.95); n is the size of the
    study that a trait of variance 1 would need for these standard errors.

    Parameters
    ----------
    n_snps : int
        Number of rows, 1 to 1,000,000.
    rng : None, int, SeedSequence or Generator
        Source of randomness.

    Returns
    -------
    pandas.DataFrame
        snp, effect_allele, other_allele, eaf, beta, std_error, p_value, n.

    Raises
    ------
    InvalidInputError
        `n_snps` is out of its range.
    """
    j = check.integer("n_snps", n_snps, minimum=1, maximum=1_000_000)
    generator = _runtime.generator(rng)
    beta = generator.uniform(0.1, 0.5, j) * generator.choice([-1.0, 1.0], j)
    std_error = generator.uniform(0.02, 0.08, j)
    numbers = generator.choice(8_000_000, j, replace=False) + 1_000_000
    eaf = generator.uniform(0.05, 0.95, j)
    size = 1 / (2 * eaf * (1 - eaf) * std_error**2)
    names = [f"rs{number}" for number in numbers]
    return association_table(names, eaf, beta, std_error, size, generator)


def medusa_site_profiles(
    n_sites: int = 3,
    grid: ArrayLike | None = None,
    *,
    true_beta: float = 0.5,
    n_per_site: int = 2000,
    rng: object = None,
) -> tuple[MedusaSiteProfile, ...]:
    """Quadratic profiles by the equations of Medusa's simulateSiteProfiles.

    mle ~ N(true_beta, 0.1^2), information 0.01 n U(0.8, 1.2), cases round(n U(0.05, 0.15)); one
    score of five SNPs with beta ~ U(0.1, 0.5), std_error ~ U(0.02, 0.08) and Medusa's weights
    beta / std_error^2, scaled to a sum of 1. `true_beta` is per unit of this score.

    Parameters
    ----------
    n_sites : int
    grid : array_like, shape (m,), optional
        Increasing; -3, -2.99 .. 3 by default.
    true_beta : float
    n_per_site : int
    rng : None, int, SeedSequence or Generator
        Source of randomness.

    Returns
    -------
    tuple of MedusaSiteProfile

    Raises
    ------
    InvalidInputError
        A number is out of its range, or the grid does not increase.
    """
    k = check.integer("n_sites", n_sites, minimum=1)
    people = check.integer("n_per_site", n_per_site, minimum=1)
    centre = check.scalar("true_beta", true_beta)
    points = np.linspace(-3, 3, 601) if grid is None else grid
    b = check.float_array("grid", points, ndim=1).copy()
    if len(b) < 2 or not (np.diff(b) > 0).all():
        raise check.fail("grid", "two or more increasing numbers", "others")
    generator = _runtime.generator(rng)
    beta, std_error = generator.uniform(0.1, 0.5, 5), generator.uniform(0.02, 0.08, 5)
    weights = beta / std_error**2
    weights = weights / np.abs(weights).sum()
    profiles = []
    for i in range(k):
        mle = float(generator.normal(centre, 0.1))
        information = 0.01 * people * float(generator.uniform(0.8, 1.2))
        values = -information / 2 * (b - mle) ** 2
        cases = round(people * float(generator.uniform(0.05, 0.15)))
        profiles.append(
            MedusaSiteProfile(
                site_id=f"site_{chr(ord('A') + i)}" if k <= 26 else f"site_{i + 1}",
                grid=b,
                log_likelihood=values - values.max(),
                mle=mle,
                information=information,
                n_cases=cases,
                n_controls=people - cases,
                snps=tuple(f"rs{s + 1}" for s in range(5)),
                weights=weights,
                beta=beta,
                std_error=std_error,
            )
        )
    return tuple(profiles)


def medusa_covariates(
    people: int | ArrayLike, n_covariates: int = 50, *, rng: object = None
) -> pd.DataFrame:
    """Covariates by the equations of Medusa's simulateCovariateData.

    The first half are 0/1 with a probability from U(0.01, 0.3) each, the others standard normal.

    Parameters
    ----------
    people : int or array_like, shape (n,)
        Number of people, whose ids are then 1 .. n, or their ids.
    n_covariates : int
    rng : None, int, SeedSequence or Generator
        Source of randomness.

    Returns
    -------
    pandas.DataFrame
        person_id, covariate_1, covariate_2, ...

    Raises
    ------
    InvalidInputError
        A number is out of its range, or an id comes twice.
    """
    ids = _person_ids(people)
    count = check.integer("n_covariates", n_covariates, minimum=1)
    generator = _runtime.generator(rng)
    binary = count // 2
    shares = generator.uniform(0.01, 0.3, binary)
    columns = [(generator.random(len(ids)) < share).astype(np.float64) for share in shares]
    columns += [generator.standard_normal(len(ids)) for _ in range(count - binary)]
    return _people_table(ids, "covariate", columns)


def medusa_negative_controls(
    people: int | ArrayLike, n_outcomes: int = 20, *, rng: object = None
) -> pd.DataFrame:
    """Outcomes that nothing causes, by Medusa's simulateNegativeControlOutcomes.

    0/1 with a probability from U(0.03, 0.15) each.

    Parameters
    ----------
    people : int or array_like, shape (n,)
        Number of people, whose ids are then 1 .. n, or their ids.
    n_outcomes : int
    rng : None, int, SeedSequence or Generator
        Source of randomness.

    Returns
    -------
    pandas.DataFrame
        person_id, nc_outcome_1, nc_outcome_2, ...

    Raises
    ------
    InvalidInputError
        A number is out of its range, or an id comes twice.
    """
    ids = _person_ids(people)
    count = check.integer("n_outcomes", n_outcomes, minimum=1)
    generator = _runtime.generator(rng)
    shares = generator.uniform(0.03, 0.15, count)
    columns = [(generator.random(len(ids)) < share).astype(np.int8) for share in shares]
    return _people_table(ids, "nc_outcome", columns)


def association_table(
    snps: list[str],
    eaf: Float,
    beta: Float,
    std_error: Float,
    size: Float,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Association table of instruments with drawn alleles."""
    import pandas as pd
    from scipy.special import ndtr

    pairs = generator.choice(_PAIRS, len(snps))
    return pd.DataFrame(
        {
            "snp": snps,
            "effect_allele": [str(pair)[0] for pair in pairs],
            "other_allele": [str(pair)[1] for pair in pairs],
            "eaf": eaf,
            "beta": beta,
            "std_error": std_error,
            "p_value": 2 * ndtr(-np.abs(beta / std_error)),
            "n": np.maximum(np.rint(size), 1).astype(np.int64),
        }
    )


def _person_ids(people: int | ArrayLike) -> NDArray[Any]:
    if np.ndim(people) == 0:
        return np.arange(1, check.integer("people", people, minimum=1) + 1, dtype=np.int64)
    ids = np.asarray(people)
    if ids.ndim != 1 or len(ids) == 0 or len(set(ids.tolist())) < len(ids):
        raise check.fail("people", "a number, or distinct ids", f"shape {ids.shape}, or repeats")
    return ids


def _people_table(
    ids: NDArray[Any],
    prefix: str,
    columns: Sequence[NDArray[Any]],
) -> pd.DataFrame:
    import pandas as pd

    named = {f"{prefix}_{i + 1}": column for i, column in enumerate(columns)}
    return pd.DataFrame({"person_id": ids, **named})
