"""Two-sample summary data of independent SNPs, with known truth and chosen pleiotropy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.simulation.medusa_tables import association_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SCENARIOS", "Scenario", "SimulatedSummary", "summary_data"]

_LEAST_VARIANCE, _FURTHER_VARIANCE = 3e-4, 4e-4  # of the exposure, explained by a SNP

Pleiotropy = Callable[[int, np.random.Generator], tuple[Float, Float]]


@dataclass(frozen=True)
class Scenario:
    """What is wrong with the invalid SNPs.

    Attributes
    ----------
    name : str
    meaning : str
    share : float
        Of the SNPs that are invalid.
    pleiotropy : callable
        From a number of SNPs and a Generator to their further effects on the exposure (which go
        with the effects on the outcome) and their direct effects on the outcome.
    """

    name: str
    meaning: str
    share: float
    pleiotropy: Pleiotropy


def _direct(mean: float, sd: float) -> Pleiotropy:
    """Direct effects that are independent of the effects on the exposure."""
    return lambda count, rng: (np.zeros(count), rng.normal(mean, sd, count))


def _through_a_confounder(count: int, rng: np.random.Generator) -> tuple[Float, Float]:
    """Effects by way of a confounder of exposure and outcome, half as strong on the outcome."""
    through = np.abs(rng.normal(0.0, 0.03, count))
    return through, 0.5 * through + rng.normal(0.0, 0.003, count)


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario("none", "every SNP is valid", 0.0, _direct(0.0, 0.0)),
            Scenario("balanced", "direct effects N(0, 0.01^2)", 0.5, _direct(0.0, 0.01)),
            Scenario("directional", "direct effects N(0.01, 0.005^2)", 0.3, _direct(0.01, 0.005)),
            Scenario(
                "inside_violated",
                "effects h = |N(0, 0.03^2)| on a confounder: h on the exposure, "
                "h/2 + N(0, 0.003^2) on the outcome",
                0.3,
                _through_a_confounder,
            ),
            Scenario("outliers", "direct effects N(0.03, 0.02^2)", 0.3, _direct(0.03, 0.02)),
        )
    }
)
"""The scenarios by name."""


@dataclass(frozen=True, eq=False, repr=False)
class SimulatedSummary:
    """Associations of J SNPs with an exposure and an outcome of variance 1, with the truth.

    Attributes
    ----------
    beta_exposure, se_exposure, beta_outcome, se_outcome : ndarray, shape (J,)
        Per standard deviation of a SNP's dosage; the allele raises the exposure.
    theta : float
        Effect of the exposure on the outcome.
    gamma : ndarray, shape (J,)
        True effects on the exposure.
    alpha : ndarray, shape (J,)
        True effects on the outcome other than through the exposure.
    valid : ndarray of bool, shape (J,)
        SNPs that the scenario left valid.
    scenario : str
    n_exposure, n_outcome : int
        People in the two studies.
    """

    beta_exposure: Float
    se_exposure: Float
    beta_outcome: Float
    se_outcome: Float
    theta: float
    gamma: Float
    alpha: Float
    valid: NDArray[np.bool_]
    scenario: str
    n_exposure: int
    n_outcome: int

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (*self.arrays.values(), self.gamma, self.alpha, self.valid):
            array.setflags(write=False)

    def __repr__(self) -> str:
        return (
            f"SimulatedSummary({self.scenario!r}, J={len(self.gamma)}, theta={self.theta:g}, "
            f"{int((~self.valid).sum())} invalid)"
        )

    @property
    def arrays(self) -> dict[str, Float]:
        """The four arrays by the names that every method takes: ``ivw(**data.arrays)``."""
        return {
            "beta_exposure": self.beta_exposure,
            "se_exposure": self.se_exposure,
            "beta_outcome": self.beta_outcome,
            "se_outcome": self.se_outcome,
        }

    def tables(self, *, rng: object = None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Association tables of the exposure and the outcome, with drawn alleles.

        Parameters
        ----------
        rng : None, int, SeedSequence or Generator
            Of the alleles and their frequencies (0.1 to 0.9); no SNP is palindromic.

        Returns
        -------
        exposure, outcome : DataFrame
            snp (rs1, rs2, ...), effect_allele, other_allele, eaf, beta, std_error, p_value, n.
            Half of the SNPs, on average, are given for the allele that lowers the exposure.
        """
        from scipy.special import ndtr

        generator = _runtime.generator(rng)
        j = len(self.gamma)
        sign = generator.choice([-1.0, 1.0], j)
        exposure = association_table(
            [f"rs{i + 1}" for i in range(j)],
            generator.uniform(0.1, 0.9, j),
            sign * self.beta_exposure,
            self.se_exposure,
            np.full(j, float(self.n_exposure)),
            generator,
        )
        outcome = exposure.assign(
            beta=sign * self.beta_outcome,
            std_error=self.se_outcome,
            p_value=2 * ndtr(-np.abs(self.beta_outcome / self.se_outcome)),
            n=self.n_outcome,
        )
        return exposure, outcome


def summary_data(
    scenario: str = "none",
    n_snps: int = 50,
    n: int = 100_000,
    theta: float = 0.1,
    rng: object = None,
    *,
    n_outcome: int | None = None,
    share: float | None = None,
    overlap: float = 0.0,
) -> SimulatedSummary:
    """Simulate the summary data of two genome-wide association studies.

    A SNP explains 3e-4 plus Exponential(mean 4e-4) of the exposure's variance, its effect gamma_j
    is the root of this; some SNPs are made invalid; the associations are
    beta_exposure ~ N(gamma, 1/n) and beta_outcome ~ N(theta gamma + alpha, 1/n_outcome). No SNP
    is selected by its p-value, so there is no winner's curse.

    Parameters
    ----------
    scenario : {"none", "balanced", "directional", "inside_violated", "outliers"}
        What the invalid SNPs do (`mrfast.simulation.SCENARIOS`):

        - ``"none"``: all are valid.
        - ``"balanced"``: alpha ~ N(0, 0.01^2) for half of the SNPs.
        - ``"directional"``: alpha ~ N(0.01, 0.005^2) for 30%.
        - ``"inside_violated"``: for 30%, a confounder adds h, the size of a N(0, 0.03^2),
          to gamma and alpha = h/2 + N(0, 0.003^2), so that alpha goes with gamma.
        - ``"outliers"``: alpha ~ N(0.03, 0.02^2) for 30%.
    n_snps : int
        Number of SNPs J.
    n : int
        People in the study of the exposure.
    theta : float
        Effect of the exposure on the outcome, in standard deviations.
    rng : None, int, SeedSequence or Generator
        Source of randomness.
    n_outcome : int, optional
        People in the study of the outcome; `n` by default.
    share : float, optional
        Of the SNPs that are invalid, to the nearest whole number of SNPs, instead of the
        scenario's own; 0 alone with ``"none"``.
    overlap : float, default 0
        Correlation of the errors of a SNP's two associations, as people in both studies bring.

    Returns
    -------
    SimulatedSummary

    Raises
    ------
    InvalidInputError
        An unknown scenario, or a number out of its range.
    """
    chosen = SCENARIOS[check.choice("scenario", scenario, tuple(SCENARIOS))]
    j = check.integer("n_snps", n_snps, minimum=1, maximum=10_000_000)
    people = check.integer("n", n, minimum=10)
    others = people if n_outcome is None else check.integer("n_outcome", n_outcome, minimum=10)
    effect = check.scalar("theta", theta)
    if share is not None:
        share = check.scalar("share", share, minimum=0, maximum=1 if chosen.share else 0)
    psi = check.scalar("overlap", overlap, minimum=-1, maximum=1)
    generator = _runtime.generator(rng)
    gamma = np.sqrt(_LEAST_VARIANCE + generator.exponential(_FURTHER_VARIANCE, j))
    alpha = np.zeros(j)
    invalid = generator.permutation(j)[: round((chosen.share if share is None else share) * j)]
    further, direct = chosen.pleiotropy(len(invalid), generator)
    gamma[invalid] += further
    alpha[invalid] = direct
    valid = np.ones(j, dtype=np.bool_)
    valid[invalid] = False
    error = generator.standard_normal((2, j))
    sx, sy = people**-0.5, others**-0.5
    return SimulatedSummary(
        beta_exposure=gamma + sx * error[0],
        se_exposure=np.full(j, sx),
        beta_outcome=effect * gamma
        + alpha
        + sy * (psi * error[0] + np.sqrt(1 - psi**2) * error[1]),
        se_outcome=np.full(j, sy),
        theta=effect,
        gamma=gamma,
        alpha=alpha,
        valid=valid,
        scenario=scenario,
        n_exposure=people,
        n_outcome=others,
    )
