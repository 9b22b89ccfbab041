"""Cohorts drawn from the instrumental-variable model, with a confounder and pleiotropy.

Notation: G are the J candidate instruments (dosages), X the exposure, Y the outcome, U the
unmeasured confounder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.data.individual import MomentAccumulator, accumulate
from mrfast.data.moments import Moments

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SimulatedCohort", "SummaryStatistics", "jam_mr", "massive_model"]

_VECTORS = ("gamma", "alpha")
_SCALARS = ("beta", "kappa_X", "kappa_Y")
_SIGMAS = ("sigma_X", "sigma_Y")
_NATURAL = (*_VECTORS, *_SCALARS, *_SIGMAS)
_SCALE_FREE = (*(f"s{key}" for key in (*_VECTORS, *_SCALARS)), *_SIGMAS)

Individuals = tuple[NDArray[np.int8], Float, Float]


class SummaryStatistics(NamedTuple):
    """Association tables of the exposure and the outcome, and the observational slope.

    Attributes
    ----------
    exposure, outcome : pandas.DataFrame
        One row per candidate: snp, effect_allele, other_allele, eaf, beta, std_error, p_value, n.
    beta_observational : float
        Slope of the outcome on the exposure as observed, confounding included.
    """

    exposure: pd.DataFrame
    outcome: pd.DataFrame
    beta_observational: float


@dataclass(frozen=True, eq=False, repr=False)
class SimulatedCohort:
    """People drawn from a model, or their moments alone, with the truth.

    Attributes
    ----------
    n : int
        Number of people.
    eaf : ndarray, shape (J,)
        Frequencies of the effect alleles in the population.
    ploidy : int
        Number of alleles per person.
    parameters : dict
        The truth, in the model's own units (gamma, alpha, beta, kappa_X, kappa_Y, sigma_X,
        sigma_Y) and scale-free (sgamma, salpha, sbeta, skappa_X, skappa_Y).
    genotypes : ndarray of int8, shape (n, J), or None
        Dosages; None where the individuals were not kept.
    exposure, outcome : ndarray, shape (n,), or None
        None where the individuals were not kept.
    """

    n: int
    eaf: Float
    ploidy: int
    parameters: dict[str, Any]
    genotypes: NDArray[np.int8] | None = None
    exposure: Float | None = None
    outcome: Float | None = None
    _accumulator: MomentAccumulator | None = field(default=None)

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (self.eaf, self.genotypes, self.exposure, self.outcome):
            if array is not None:
                array.setflags(write=False)

    def __repr__(self) -> str:
        kept = "moments only" if self.genotypes is None else "individuals kept"
        return f"SimulatedCohort(n={self.n}, J={len(self.eaf)}, {kept})"

    @cached_property
    def moments(self) -> Moments:
        """Centred moments of (G, X, Y).

        Raises
        ------
        InvalidInputError
            A candidate came out constant (a rare allele in a small cohort), or n <= J.
        """
        accumulator = self._accumulator
        if accumulator is None:
            assert self.genotypes is not None
            assert self.exposure is not None
            assert self.outcome is not None
            accumulator = accumulate(self.genotypes, self.exposure, self.outcome)
        return Moments._from_accumulator(accumulator)

    def summary_statistics(
        self, outcome_cohort: SimulatedCohort | None = None
    ) -> SummaryStatistics:
        """Association tables as two genome-wide association studies would publish them.

        Every candidate by itself: least squares with an intercept, p values from Student's t
        with n - 2 degrees of freedom. The effect allele is called A and the other one C.

        Parameters
        ----------
        outcome_cohort : SimulatedCohort, optional
            Cohort of the outcome study: simulate a second one with the same frequencies and
            parameters, and another seed, for two samples without overlap; give `joined` cohorts
            with people in common for a partial one. By default both studies are of this cohort:
            one sample.

        Returns
        -------
        SummaryStatistics
            With the sample's allele frequencies, and the observational slope of this cohort.

        Raises
        ------
        InvalidInputError
            `outcome_cohort` has another number of candidates, or a cohort has no moments (see
            `moments`).
        """
        other = self if outcome_cohort is None else outcome_cohort
        if len(other.eaf) != len(self.eaf):
            raise check.fail(
                "outcome_cohort", f"a cohort with J = {len(self.eaf)}", f"J = {len(other.eaf)}"
            )
        covariance = self.moments.covariance_xy
        return SummaryStatistics(
            exposure=self._associations(0),
            outcome=other._associations(1),
            beta_observational=float(covariance[0, 1] / covariance[0, 0]),
        )

    def joined(self, other: SimulatedCohort) -> SimulatedCohort:
        """All people of this cohort and of another one.

        For two studies that share people, join the shared ones to those of either study, and
        pass one of the two cohorts to the other's `summary_statistics`.

        Parameters
        ----------
        other : SimulatedCohort
            With the same frequencies, ploidy and parameters.

        Returns
        -------
        SimulatedCohort

        Raises
        ------
        InvalidInputError
            The cohorts are of different populations, or the individuals were not kept.
        """
        for argument, cohort in (("self", self), ("other", other)):
            if cohort.genotypes is None:
                raise check.fail(argument, "a cohort with its individuals kept", repr(cohort))
        same = self.ploidy == other.ploidy and np.array_equal(self.eaf, other.eaf)
        if not same or any(
            not np.array_equal(value, other.parameters[key])
            for key, value in self.parameters.items()
        ):
            raise check.fail("other", "the same frequencies, ploidy and parameters", "others")
        genotypes, exposure, outcome = (
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("genotypes", "exposure", "outcome")
        )
        n = self.n + other.n
        return SimulatedCohort(
            n, self.eaf, self.ploidy, self.parameters, genotypes, exposure, outcome
        )

    def _associations(self, trait: int) -> pd.DataFrame:
        """Regressions of X (0) or Y (1) on every candidate by itself."""
        import pandas as pd
        from scipy.special import stdtr

        moments, degrees = self.moments, self.n - 2
        beta = moments.covariance_gxy[:, trait] / moments.variances
        residual = moments.covariance_xy[trait, trait] - beta**2 * moments.variances
        std_error = np.sqrt(np.maximum(residual, 0) / (degrees * moments.variances))
        with np.errstate(divide="ignore"):
            t = np.abs(beta) / std_error
        return pd.DataFrame(
            {
                "snp": list(moments.names),
                "effect_allele": "A",
                "other_allele": "C",
                "eaf": moments.means[:-2] / self.ploidy,
                "beta": beta,
                "std_error": std_error,
                "p_value": 2 * stdtr(degrees, -t),
                "n": self.n,
            }
        )


def massive_model(
    n: int,
    eaf: ArrayLike,
    parameters: Mapping[str, Any] | ArrayLike,
    *,
    rng: object = None,
    ploidy: int = 2,
    keep_individuals: bool = True,
    chunk_size: int | None = None,
) -> SimulatedCohort:
    """Draw a cohort from the model of MASSIVE.

    G_j ~ Binomial(ploidy, eaf_j), X = sum_j gamma_j G_j + kappa_X U + sigma_X eps_X and
    Y = sum_j alpha_j G_j + beta X + kappa_Y U + sigma_Y eps_Y, where U, eps_X and eps_Y are
    independent standard normal.

    Parameters
    ----------
    n : int
        Number of people.
    eaf : array_like, shape (J,)
        Frequencies of the effect alleles, strictly between 0 and 1.
    parameters : mapping or array_like, shape (2 J + 5,)
        One of three forms. In the model's own units: a mapping with the keys gamma (J,),
        alpha (J,), beta, kappa_X, kappa_Y, sigma_X, sigma_Y. Scale-free: a mapping with the keys
        sgamma = sd(G) gamma / sigma_X, salpha = sd(G) alpha / sigma_Y,
        sbeta = beta sigma_X / sigma_Y, skappa_X = kappa_X / sigma_X,
        skappa_Y = kappa_Y / sigma_Y, sigma_X, sigma_Y, with
        sd(G_j)^2 = ploidy eaf_j (1 - eaf_j). Or the vector sgamma_1 .. sgamma_J,
        salpha_1 .. salpha_J, sbeta, skappa_X, skappa_Y, log sigma_X, log sigma_Y. The
        `parameters` of a cohort hold both sets of keys and are accepted where these agree.
    rng : None, int, SeedSequence or Generator
        Source of randomness: fresh entropy, a seed, or a generator, which is advanced.
    ploidy : int
        Number of alleles per person, 1 to 127.
    keep_individuals : bool
        False streams the people through the moments and forgets them: for biobank size, where
        n x J dosages would not fit into memory.
    chunk_size : int, optional
        Rows drawn at a time; bounds the memory and changes no draw.

    Returns
    -------
    SimulatedCohort
        The same seed gives the same people whatever `chunk_size` and `keep_individuals`, and the
        same moments up to rounding.

    Raises
    ------
    InvalidInputError
        A number is out of its range, or the keys or the length of `parameters` are wrong.

    References
    ----------
    Bucur, Claassen, Heskes (2020), MASSIVE, PMLR 124.
    """
    people = check.integer("n", n, minimum=1)
    frequencies = np.atleast_1d(eaf)
    j = frequencies.shape[0] if frequencies.ndim == 1 else 0
    if j == 0:
        raise check.fail("eaf", "a vector of J >= 1 frequencies", f"shape {np.shape(eaf)}")
    p = check.proportion_array("eaf", frequencies, length=j).copy()
    m = check.integer("ploidy", ploidy, minimum=1, maximum=127)
    rows = max(1024, min(8192, 2**19 // j))
    if chunk_size is not None:
        rows = check.integer("chunk_size", chunk_size, minimum=1)
    truth = _both_scales(parameters, np.sqrt(m * p * (1 - p)))
    chunks = _draw(people, p, m, truth, _runtime.generator(rng), rows)
    if not keep_individuals:
        accumulator = MomentAccumulator(j)
        for g, x, y in chunks:
            accumulator.update(g, x, y)
        return SimulatedCohort(people, p, m, truth, _accumulator=accumulator)
    genotypes = np.empty((people, j), dtype=np.int8)
    exposure, outcome = np.empty(people), np.empty(people)
    start = 0
    for g, x, y in chunks:
        stop = start + len(x)
        genotypes[start:stop], exposure[start:stop], outcome[start:stop] = g, x, y
        start = stop
    return SimulatedCohort(people, p, m, truth, genotypes, exposure, outcome)


def jam_mr(
    n: int,
    n_valid: int,
    *,
    sigma: float = 1.0,
    effect: float = 0.0,
    n_variants: int = 10,
    as_printed: bool = False,
    rng: object = None,
    keep_individuals: bool = True,
) -> SimulatedCohort:
    """Draw a cohort from the JAM-MR scenario, on which MASSIVE was evaluated.

    eaf_j ~ U(0.1, 0.9), gamma_j = 0.5 + |N(0, 0.5^2)|,
    sigma_X = sigma_Y = kappa_X = kappa_Y = sigma, beta = effect. The direct effects on the
    outcome, as the authors' program has them, behind their Figure 5: alpha_j = 0 for the first
    K = `n_valid` variants, and +-N(0.7, 0.2^2), the sign by a fair coin, for the others.

    Parameters
    ----------
    n : int
        Number of people; 10^3 and 10^5 in the paper.
    n_valid : int
        K, from 0 to `n_variants`: number of valid instruments, which come first.
    sigma : float
        Standard deviations of the noises, and effects of the confounder; 1 and 4 in the paper.
    effect : float
        Effect of the exposure on the outcome; 0 and 0.3 in the paper.
    n_variants : int
        Number J of variants; 10 in the paper.
    as_printed : bool
        True follows Equation 4 as it is printed, alpha_j = +-1{j <= K} N(0, 0.2^2): there K
        counts the variants with a direct effect, which come first, and not the valid ones.
    rng : None, int, SeedSequence or Generator
        Source of randomness, for the parameters and the people.
    keep_individuals : bool
        As in `massive_model`.

    Returns
    -------
    SimulatedCohort

    Raises
    ------
    InvalidInputError
        A number is out of its range.

    References
    ----------
    Bucur, Claassen, Heskes (2020), MASSIVE, PMLR 124, Section 5.
    Gkatzionis, Burgess, Conti, Newcombe (2021), Bayesian variable selection with a pleiotropic
    loss function in Mendelian randomization (JAM-MR), Statistics in Medicine 40.
    """
    j = check.integer("n_variants", n_variants, minimum=1)
    k = check.integer("n_valid", n_valid, minimum=0, maximum=j)
    scale = check.scalar("sigma", sigma, above=0)
    slope = check.scalar("effect", effect)
    generator = _runtime.generator(rng)
    eaf = generator.uniform(0.1, 0.9, j)
    gamma = 0.5 + np.abs(generator.normal(0, 0.5, j))
    sign = generator.choice([-1.0, 1.0], j)
    first = np.arange(j) < k
    if as_printed:
        alpha = np.where(first, sign * generator.normal(0, 0.2, j), 0)
    else:
        alpha = np.where(first, 0, sign * generator.normal(0.7, 0.2, j))
    parameters = {
        "gamma": gamma,
        "alpha": alpha,
        "beta": slope,
        "kappa_X": scale,
        "kappa_Y": scale,
        "sigma_X": scale,
        "sigma_Y": scale,
    }
    return massive_model(n, eaf, parameters, rng=generator, keep_individuals=keep_individuals)


# ---------------------------------------------------------------------- parameters


def _both_scales(parameters: Mapping[str, Any] | ArrayLike, sd_g: Float) -> dict[str, Any]:
    """Check the parameters of any form, and return both sets of keys."""
    if not isinstance(parameters, Mapping):
        return _from_scale_free(_from_vector(parameters, len(sd_g)), sd_g)
    keys = set(parameters)
    if keys == {*_NATURAL, *_SCALE_FREE}:
        truth = _from_natural(_checked(parameters, _NATURAL, len(sd_g)), sd_g)
        for key, value in _checked(parameters, _SCALE_FREE, len(sd_g)).items():
            if not np.allclose(value, truth[key], rtol=1e-8, atol=1e-12):
                raise check.fail(
                    "parameters", f"both scales to agree, {key} = {truth[key]}", f"{key} = {value}"
                )
        return truth
    for wanted, convert in ((_SCALE_FREE, _from_scale_free), (_NATURAL, _from_natural)):
        if keys == set(wanted):
            return convert(_checked(parameters, wanted, len(sd_g)), sd_g)
    raise check.fail(
        "parameters",
        f"exactly the keys {', '.join(_NATURAL)}, or exactly {', '.join(_SCALE_FREE)}",
        ", ".join(str(key) for key in parameters) or "no key",
    )


def _checked(parameters: Mapping[str, Any], keys: tuple[str, ...], j: int) -> dict[str, Any]:
    """Values of the given keys, as arrays of length J and finite floats."""
    checked: dict[str, Any] = {}
    for key in keys:
        argument, value = f"parameters[{key!r}]", parameters[key]
        if key in _SIGMAS:
            checked[key] = check.scalar(argument, value, above=0)
        elif key.removeprefix("s") in _VECTORS:
            checked[key] = check.float_array(argument, value, ndim=1, shape=(j,)).copy()
        else:
            checked[key] = check.scalar(argument, value)
    return checked


def _from_vector(parameters: ArrayLike, j: int) -> dict[str, Any]:
    """Scale-free parameters from the vector that the model's functions take."""
    vector = check.float_array("parameters", parameters, ndim=1, shape=(2 * j + 5,))
    values = (vector[:j].copy(), vector[j : 2 * j].copy(), *map(float, vector[2 * j : 2 * j + 3]))
    with np.errstate(over="ignore", under="ignore"):
        sigmas = np.exp(vector[2 * j + 3 :])
    if not (np.isfinite(sigmas).all() and (sigmas > 0).all()):
        raise check.fail("parameters", "finite scales exp(log sigma) above 0", sigmas)
    return dict(zip(_SCALE_FREE, (*values, *map(float, sigmas)), strict=True))


def _from_scale_free(s: dict[str, Any], sd_g: Float) -> dict[str, Any]:
    natural = {
        "gamma": s["sgamma"] * s["sigma_X"] / sd_g,
        "alpha": s["salpha"] * s["sigma_Y"] / sd_g,
        "beta": s["sbeta"] * s["sigma_Y"] / s["sigma_X"],
        "kappa_X": s["skappa_X"] * s["sigma_X"],
        "kappa_Y": s["skappa_Y"] * s["sigma_Y"],
    }
    return _frozen({**natural, **s})


def _from_natural(t: dict[str, Any], sd_g: Float) -> dict[str, Any]:
    scale_free = {
        "sgamma": t["gamma"] * sd_g / t["sigma_X"],
        "salpha": t["alpha"] * sd_g / t["sigma_Y"],
        "sbeta": t["beta"] * t["sigma_X"] / t["sigma_Y"],
        "skappa_X": t["kappa_X"] / t["sigma_X"],
        "skappa_Y": t["kappa_Y"] / t["sigma_Y"],
    }
    return _frozen({**t, **scale_free})


def _frozen(truth: dict[str, Any]) -> dict[str, Any]:
    for value in truth.values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return truth


# ---------------------------------------------------------------------- people


def _draw(
    n: int,
    eaf: Float,
    ploidy: int,
    truth: Mapping[str, Any],
    rng: np.random.Generator,
    rows: int,
) -> Iterator[Individuals]:
    """Yield chunks of (G, X, Y), in arrays that the next chunk overwrites.

    Dosages and noises have a stream each, used row by row: chunks do not change the draws.
    """
    from mrfast.simulation._loops import simulate_rows

    seeds = np.random.SeedSequence(rng.integers(2**32, size=4, dtype=np.uint32).tolist())
    dosages, noises = (np.random.Generator(np.random.PCG64(seed)) for seed in seeds.spawn(2))
    thresholds = _distribution(ploidy, eaf)
    effects = np.column_stack([truth["gamma"], truth["alpha"]])
    scalars = np.array([truth[key] for key in (*_SCALARS, *_SIGMAS)])
    rows = min(rows, n)
    uniform, noise = np.empty((rows, len(eaf))), np.empty((rows, 3))
    g, x, y = np.empty(uniform.shape, dtype=np.int8), np.empty(rows), np.empty(rows)
    for start in range(0, n, rows):
        size = min(rows, n - start)
        dosages.random(out=uniform[:size])
        noises.standard_normal(out=noise[:size])
        simulate_rows(
            uniform[:size], noise[:size], thresholds, effects, scalars, g[:size], x[:size], y[:size]
        )
        yield g[:size], x[:size], y[:size]


def _distribution(ploidy: int, eaf: Float) -> Float:
    """P(G_j <= k) of the binomial dosages for k = 0 .. ploidy - 1, shape (J, ploidy)."""
    from scipy.special import bdtr

    return np.ascontiguousarray(bdtr(np.arange(ploidy, dtype=np.float64), ploidy, eaf[:, None]))
