"""Design of the two studies behind the associations: `StudyDesign`.

Notation: X is the exposure, Y the outcome, G_j a candidate instrument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.ld_blocks import STATED_CORRELATION, read_only

__all__ = ["StudyDesign"]

SAMPLE_CORRELATION_ERRORS = 5.0
"""Correlations in a sample count as none up to this many standard errors, 1 / sqrt(N) each."""

_SIZE_DISAGREEMENT = 0.25  # between stated sample sizes and those that standard errors imply
_LARGEST_BERNOULLI_SD = 0.5


@dataclass(frozen=True, eq=False)
class StudyDesign:
    """Who is in the two studies, where the observational slope is from, what the outcome is.

    Attributes
    ----------
    n_exposure, n_outcome, n_shared : ndarray, shape (J,)
        People in the exposure study, in the outcome study and in both, per candidate.
    has_slope : bool
        Whether the slope of the outcome on the exposure was observed.
    se_observational : float or None
        Its standard error.
    n_observational : float or None
        Number of people behind it, where these are not those in both studies.
    negligible_correlation : float
        Largest correlation between candidates that counts as none in the sampling noise.
    binary : bool
        Whether the outcome is binary, its coefficients log odds ratios.
    bernoulli_sd : float or None
        sqrt(phi (1 - phi)), phi the proportion of cases in the outcome study.
    prevalence : float or None
        Proportion of cases in the population.
    notes : tuple of str
        What was assumed, in plain words.
    """

    n_exposure: Float
    n_outcome: Float
    n_shared: Float
    has_slope: bool = True
    se_observational: float | None = None
    n_observational: float | None = None
    negligible_correlation: float = STATED_CORRELATION
    binary: bool = False
    bernoulli_sd: float | None = None
    prevalence: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Keep frozen copies."""
        for name in ("n_exposure", "n_outcome", "n_shared"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @classmethod
    def one_sample(cls, n: float, j: int) -> StudyDesign:
        """Both studies of the same n people, and the correlations between candidates theirs."""
        size = np.full(j, n)
        return cls(
            size, size, size, negligible_correlation=SAMPLE_CORRELATION_ERRORS / math.sqrt(n)
        )

    @property
    def numbers(self) -> Float:
        """Everything but the notes, as a vector."""
        scalars = [
            math.nan if value is None else float(value)
            for value in (
                self.has_slope,
                self.se_observational,
                self.n_observational,
                self.negligible_correlation,
                self.binary,
                self.bernoulli_sd,
                self.prevalence,
            )
        ]
        return np.concatenate([self.n_exposure, self.n_outcome, self.n_shared, scalars])

    @property
    def is_one_sample(self) -> bool:
        """Whether the same people are behind all associations."""
        return bool(
            (self.n_exposure == self.n_shared).all() and (self.n_outcome == self.n_shared).all()
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


def shared_people(
    n_exposure: Float,
    n_outcome: Float,
    j: int,
    overlap: float | None,
    n_overlap: ArrayLike | None,
    notes: list[str],
) -> Float:
    """Number of people in both studies, shape (J,)."""
    smaller = np.broadcast_to(np.minimum(n_exposure, n_outcome), j)
    if n_overlap is None:
        if overlap is None:
            if np.ptp(n_exposure) + np.ptp(n_outcome) > 0 or n_exposure[0] != n_outcome[0]:
                notes.append(
                    "full overlap was assumed, all people of the smaller study being in both: the "
                    "sample sizes differ, and neither overlap nor n_overlap was stated"
                )
            return smaller
        return check.scalar("overlap", overlap, minimum=0, maximum=1) * smaller
    if overlap is not None:
        raise check.fail("n_overlap", "none where overlap is given", repr(n_overlap))
    if np.ndim(n_overlap) == 0:
        people = np.full(j, check.scalar("n_overlap", np.asarray(n_overlap).item(), minimum=0))
    else:
        people = check.float_array("n_overlap", n_overlap, ndim=1, shape=(j,))
    good = (people >= 0) & (people <= smaller)
    if not good.all():
        worst = int(np.argmin(good))
        raise check.fail(
            "n_overlap",
            "numbers from 0 to the smaller study's",
            f"{people[worst]:g} of {smaller[worst]:g} for variant {worst}",
        )
    return people


def observational_slope(
    slope: float | None,
    se: float | None,
    n: float | None,
    n_shared: Float,
    smaller: float,
    notes: list[str],
) -> tuple[float | None, float | None, float | None]:
    """Slope of Y on X, its standard error, and the number of people behind it."""
    if slope is None:
        if n_shared.any():
            raise check.fail(
                "beta_observational",
                "the observed slope of the outcome on the exposure (regress one on the other, "
                "adjusted as in the studies), which decides how the errors of overlapping studies "
                "are correlated; or overlap=0 if nobody is in both",
                None,
            )
        for name, value in (("se_observational", se), ("n_observational", n)):
            if value is not None:
                raise check.fail(name, "none without beta_observational", repr(value))
        notes.append(
            "no observational slope was given: nothing but the candidates informs about confounding"
        )
        return None, None, None
    value = check.scalar("beta_observational", slope)
    if se is not None:
        return value, check.scalar("se_observational", se, above=0), n
    if n is None and not np.median(n_shared) > 0:
        n = smaller
        notes.append(
            "neither se_observational nor n_observational was given: the slope counts as that of "
            f"{n:,.0f} people, as many as in the smaller study"
        )
    return value, None, n


def outcome_scale(
    outcome_type: str,
    case_fraction: float | None,
    prevalence: float | None,
    working_variance: float,
    notes: list[str],
) -> tuple[float | None, float | None]:
    """sqrt(phi (1 - phi)) and prevalence of a binary outcome; phi is the proportion of cases.

    `working_variance` is N Var(G) se^2 of the log odds ratios, which estimates 1/(phi (1 - phi)).
    """
    binary = check.choice("outcome_type", outcome_type, ("continuous", "binary")) == "binary"
    for name, proportion in (("case_fraction", case_fraction), ("prevalence", prevalence)):
        if proportion is not None:
            check.scalar(name, proportion, above=0, below=1)
            if not binary:
                raise check.fail(name, "none for a continuous outcome", repr(proportion))
    if not binary:
        return None, None
    population = None if prevalence is None else float(prevalence)
    if case_fraction is not None:
        return float(np.sqrt(case_fraction * (1 - case_fraction))), population
    sd = float(1 / np.sqrt(working_variance))
    if sd > _LARGEST_BERNOULLI_SD:
        notes.append(
            "the outcome's standard errors are smaller than those of log odds ratios with as many "
            "cases as controls; a proportion of cases of 1/2 was assumed"
        )
    return min(sd, _LARGEST_BERNOULLI_SD), population


def compare_sizes(
    study: str, stated: Float, residual: Float, std_error: Float, notes: list[str]
) -> None:
    """Note where standard errors imply other sample sizes than the stated ones.

    `residual` is Var(trait | G_j) / Var(G_j), which is N se^2.
    """
    implied = residual / std_error**2
    differ = int((np.abs(implied / stated - 1) > _SIZE_DISAGREEMENT).sum())
    if differ:
        notes.append(
            f"the {study}'s standard errors imply sample sizes that differ from the stated ones by "
            f"more than a quarter for {differ} of {len(std_error)} variants"
        )
