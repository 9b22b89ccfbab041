"""Cohorts with a binary outcome for federated Mendelian randomization: Medusa's simulator.

Equations: U1 ~ N(0, 1), U2 ~ Bernoulli(1/2), G_j ~ Binomial(2, p_j),
X = sum_j gamma_j G_j + c U1 + c U2 + N(0, 1), logit P(Y = 1) = alpha + theta X + c U1 + c U2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrfast import _runtime
from mrfast import _validation as check
from mrfast._validation import Float
from mrfast.simulation import estimands
from mrfast.simulation._federated_people import MISSING, Dosages, Outcome, draw_people, recoded
from mrfast.simulation.medusa_tables import association_table

if TYPE_CHECKING:
    import pandas as pd

    from mrfast.simulation.estimands import Estimand

__all__ = [
    "FederatedSites",
    "MedusaCohort",
    "federated_sites",
    "medusa_cohort",
]

_FIRST_PERSON = 10_000_000  # person ids of different sites do not meet below this many people

Names = Iterable[str]


@dataclass(frozen=True, eq=False, repr=False)
class MedusaCohort:
    """People of one site, the instruments' table of the exposure study, and the truth.

    Attributes
    ----------
    site_id : str
    snps : tuple of str
        SNPs that the site has, in the order of the dosages' columns.
    dosages : ndarray, shape (n, len(snps))
        In the site's own coding: int8 with -1 where missing, or float32 with NaN where missing
        if they are imputed.
    outcome : ndarray of int8, shape (n,)
    exposure : ndarray, shape (n,)
    confounders : ndarray, shape (n, 2)
        U1 and U2.
    person_id : ndarray of int64, shape (n,)
    alleles : pandas.DataFrame
        The site's coding: snp, coded_allele, other_allele, frequency (of the coded allele, in
        the site's population).
    instruments : pandas.DataFrame
        Of all J instruments: snp, effect_allele, other_allele, eaf, beta, std_error, p_value, n.
    ld : ndarray, shape (J, J), or None
        Correlations of the SNPs in the exposure study; None where they are independent.
    effect : float
        Structural log odds ratio theta per unit of exposure.
    gamma : ndarray, shape (J,)
        True effects of the effect alleles on the exposure, all of them in the model.
    eaf : ndarray, shape (J,)
        Frequencies of the effect alleles in the site's population.
    correlations : ndarray, shape (J - 1,)
        Of each SNP with the next one in the site's population.
    intercept, confounding : float
        alpha and c.
    genetic : ndarray, shape (n,)
        gamma'G of the true alleles.
    reliability : float
        Var of a recorded dosage with the missing ones at their mean, over that of the true one.
    """

    site_id: str
    snps: tuple[str, ...]
    dosages: Dosages
    outcome: NDArray[np.int8]
    exposure: Float
    confounders: Float
    person_id: NDArray[np.int64]
    alleles: pd.DataFrame
    instruments: pd.DataFrame
    ld: Float | None
    effect: float
    gamma: Float
    eaf: Float
    correlations: Float
    intercept: float
    confounding: float
    genetic: Float
    reliability: float

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def __len__(self) -> int:
        return len(self.outcome)

    def __repr__(self) -> str:
        return (
            f"MedusaCohort({self.site_id!r}, n={len(self)}, cases={self.n_cases}, "
            f"SNPs={len(self.snps)} of {len(self.gamma)})"
        )

    @property
    def n_cases(self) -> int:
        """Number of people with the outcome."""
        return int(self.outcome.sum(dtype=np.int64))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """person_id, outcome, a dosage column a SNP, confounder_1, confounder_2, exposure."""
        import pandas as pd

        dosages: Dosages = self.dosages
        if dosages.dtype == np.int8 and (dosages == MISSING).any():
            dosages = np.where(dosages == MISSING, np.nan, dosages).astype(np.float32)
        people = pd.DataFrame({"person_id": self.person_id, "outcome": self.outcome})
        others = pd.DataFrame(
            {
                "confounder_1": self.confounders[:, 0],
                "confounder_2": self.confounders[:, 1],
                "exposure": self.exposure,
            }
        )
        columns = pd.DataFrame(dosages, columns=list(self.snps), copy=True)
        return pd.concat([people, columns, others], axis=1)

    def score(self, weights: ArrayLike | None = None) -> Float:
        """Genetic score of every person, in the instruments' coding.

        Parameters
        ----------
        weights : array_like, shape (J,), optional
            Of all instruments, those of SNPs that the site lacks do not count; by default the
            coefficients of the instruments' table.

        Returns
        -------
        ndarray, shape (n,)
            Missing dosages count as the mean of the observed ones.
        """
        used = self._weights(weights)
        total = np.zeros(len(self))
        coded = dict(zip(self.alleles["snp"], self.alleles["coded_allele"], strict=True))
        effect_alleles = self.instruments["effect_allele"]
        position = {snp: j for j, snp in enumerate(self.instruments["snp"])}
        for column, snp in enumerate(self.snps):
            j = position[snp]
            dosage = self.dosages[:, column].astype(np.float64)
            absent = np.isnan(dosage) | (dosage == MISSING)
            if absent.any():
                dosage[absent] = dosage[~absent].mean() if not absent.all() else 0.0
            if coded[snp] != effect_alleles.iloc[j]:
                dosage = 2 - dosage
            total += used[j] * dosage
        return total

    def kappa(self, weights: ArrayLike | None = None) -> float:
        """Change of the exposure per unit of a score in the site's population: the truth.

        Parameters
        ----------
        weights : array_like, shape (J,), optional
            As in `score`.

        Returns
        -------
        float
            w'C gamma / w'C w for complete dosages with covariance C; less than complete ones
            change the two differently where SNPs are correlated.
        """
        w = self._weights(weights)
        r = self.reliability
        own = (r - r**2) * 2 * self.eaf * (1 - self.eaf)
        cw = estimands.times_covariance(self.eaf, self.correlations, w)
        spread = r**2 * float((w * cw).sum()) + float((own * w**2).sum())
        if not spread > 0:
            raise check.fail("weights", "a score of SNPs that the site has", "zeros")
        return r * float((self.gamma * cw).sum()) / spread

    def estimand_of(self, weights: ArrayLike | None = None) -> Estimand:
        """What a fit of a score of complete dosages and the confounders targets, with details.

        Parameters
        ----------
        weights : array_like, shape (J,), optional
            As in `score`, but the true effects by default.

        Returns
        -------
        Estimand
        """
        return estimands.estimand(
            self.effect,
            self.eaf,
            self.gamma,
            weights=self._weights(self.gamma if weights is None else weights),
            intercept=self.intercept,
            confounding=self.confounding,
            n=len(self),
            ld=self.correlations,
        )

    @cached_property
    def estimand(self) -> float:
        """Log odds ratio per unit of exposure that a fit given the confounders targets.

        Beside `effect`, the structural value; see docs/estimand.md.
        """
        return self.estimand_of().value

    def conditional_estimand(self, weights: ArrayLike | None = None) -> float:
        """The estimand given these people's alleles, recorded dosages and confounders.

        Parameters
        ----------
        weights : array_like, shape (J,), optional
            As in `score`, but the true effects by default.

        Returns
        -------
        float
        """
        w = self._weights(self.gamma if weights is None else weights)
        c, theta = self.confounding, self.effect
        eta = self.intercept + theta * self.genetic
        eta = eta + c * (1 + theta) * self.confounders.sum(axis=1)
        probability = estimands.logistic_mean(eta, theta)
        slope = estimands.design_estimand(probability, self.score(w), self.confounders)
        return slope / self.kappa(w)

    def _weights(self, weights: ArrayLike | None) -> Float:
        j = len(self.gamma)
        values = self.instruments["beta"].to_numpy() if weights is None else weights
        array = check.float_array("weights", values, ndim=1, shape=(j,))
        return np.where(self.instruments["snp"].isin(self.snps), array, 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class FederatedSites:
    """Sites with one table of instruments and one effect, and the truth.

    Attributes
    ----------
    sites : tuple of MedusaCohort
    instruments : pandas.DataFrame
        As in MedusaCohort, with the frequencies of the exposure study.
    ld : ndarray, shape (J, J), or None
        Correlations of the SNPs in the exposure study.
    effect : float
        Structural log odds ratio theta per unit of exposure.
    gamma : ndarray, shape (J,)
        True effects on the exposure.
    """

    sites: tuple[MedusaCohort, ...]
    instruments: pd.DataFrame
    ld: Float | None
    effect: float
    gamma: Float

    def __len__(self) -> int:
        return len(self.sites)

    def __iter__(self) -> Iterator[MedusaCohort]:
        return iter(self.sites)

    def __getitem__(self, index: int) -> MedusaCohort:
        return self.sites[index]

    def __repr__(self) -> str:
        sizes = ", ".join(str(len(site)) for site in self.sites)
        return f"FederatedSites(n=({sizes}), SNPs={len(self.gamma)}, effect={self.effect:g})"

    def kappa(self, weights: ArrayLike | None = None) -> Float:
        """Change of the exposure per unit of a score in each site's population, shape (K,)."""
        return np.array([site.kappa(weights) for site in self.sites])

    def estimand_of(self, weights: ArrayLike | None = None) -> Estimand:
        """What the pooled fit of a score targets, with details; the true effects by default."""
        sites, w = self.sites, self.gamma if weights is None else weights
        return estimands.estimand(
            self.effect,
            [site.eaf for site in sites],
            self.gamma,
            weights=[site._weights(w) for site in sites],
            intercept=[site.intercept for site in sites],
            confounding=sites[0].confounding,
            n=[len(site) for site in sites],
            ld=[site.correlations for site in sites],
        )

    @cached_property
    def estimand(self) -> float:
        """Log odds ratio per unit of exposure that the pooled fit targets; see `effect`."""
        return self.estimand_of().value


# ---------------------------------------------------------------------------- cohorts


def medusa_cohort(
    n: int = 5000,
    n_snps: int = 10,
    *,
    effect: float = 0.5,
    confounding: float = 0.3,
    effect_range: tuple[float, float] = (0.1, 0.5),
    eaf_range: tuple[float, float] = (0.1, 0.4),
    gamma: ArrayLike | None = None,
    eaf: ArrayLike | None = None,
    f_statistic: float | None = None,
    standard_errors: str = "proportional",
    intercept: float = 0.0,
    prevalence: float | None = None,
    ld: ArrayLike | None = None,
    missing: float = 0.0,
    imputation_r2: float = 1.0,
    swapped: Names = (),
    lacking: Names = (),
    site_id: str = "site_1",
    rng: object = None,
    n_threads: int | None = None,
) -> MedusaCohort:
    """Draw a cohort by the equations of Medusa's simulateMRData.

    Parameters
    ----------
    n : int
        Number of people.
    n_snps : int
        Number J of instruments, rs1 .. rsJ.
    effect : float
        theta: structural log odds ratio per unit of exposure.
    confounding : float
        c: coefficients of both confounders in the exposure and in the outcome.
    effect_range, eaf_range : (float, float)
        The effects on the exposure, gamma, and the frequencies of the effect alleles are uniform
        on these.
    gamma, eaf : array_like, shape (J,), optional
        The effects and frequencies themselves instead; they set `n_snps`.
    f_statistic : float, optional
        Mean F of the instruments in an exposure study of other people, with sampling errors.
        By default the table holds the true effects, as Medusa's does, with standard errors
        |gamma| / U(4, 8).
    standard_errors : {"proportional", "gwas"}
        With `f_statistic`: |gamma| / (sqrt(F) U(0.8, 1.2)), or proportional to
        1 / sqrt(2 p (1 - p)) as in a genome-wide study of one size.
    intercept : float
        alpha of the outcome model. Medusa's 0 makes 50 to 80 % cases.
    prevalence : float, optional
        Share of cases in the population instead, for which the intercept is solved.
    ld : float or array_like, shape (J - 1,), optional
        Correlation of each SNP with the next one, or the nearest that the frequencies allow.
        The table then holds marginal effects, with correlated errors.
    missing : float
        Share of dosages that are missing, completely at random.
    imputation_r2 : float
        Below 1: dosages are posterior means of the alleles given noisy measurements, with this
        share of the variance. Each SNP by itself, as from its own reads: with `ld`, neighbours
        then tell more about an allele than its dosage does, which no site can see, and `kappa`
        differs from what the dosages' covariance gives. The same holds for `missing` with `ld`.
    swapped : iterable of str
        SNPs of which the site counts the other allele.
    lacking : iterable of str
        SNPs that the site does not have; they still move the exposure.
    site_id : str
        Name of the site.
    rng : None, int, SeedSequence or Generator
        Source of randomness: fresh entropy, a seed, or a generator, which is advanced.
    n_threads : int, optional
        Number of threads; changes no draw.

    Returns
    -------
    MedusaCohort

    Raises
    ------
    InvalidInputError
        A number is out of its range, or a name is not one of the SNPs'.

    Examples
    --------
    >>> cohort = medusa_cohort(4000, 8, effect=0.4, rng=1)
    >>> cohort.effect, round(cohort.estimand, 4)
    (0.4, 0.3868)
    """
    return federated_sites(
        n,
        n_snps,
        n_sites=1,
        effect=effect,
        confounding=confounding,
        effect_range=effect_range,
        eaf_range=eaf_range,
        gamma=gamma,
        eaf=eaf,
        f_statistic=f_statistic,
        standard_errors=standard_errors,
        frequency_sd=0.0,
        intercept=intercept,
        prevalence=prevalence,
        ld=ld,
        missing=missing,
        imputation_r2=imputation_r2,
        swapped={site_id: swapped},
        lacking={site_id: lacking},
        site_ids=(site_id,),
        rng=rng,
        n_threads=n_threads,
    ).sites[0]


def federated_sites(
    n: int | Sequence[int] = 4000,
    n_snps: int = 8,
    *,
    n_sites: int = 3,
    effect: float = 0.4,
    confounding: float = 0.3,
    effect_range: tuple[float, float] = (0.1, 0.5),
    eaf_range: tuple[float, float] = (0.1, 0.4),
    gamma: ArrayLike | None = None,
    eaf: ArrayLike | None = None,
    f_statistic: float | None = 30.0,
    standard_errors: str = "proportional",
    frequency_sd: float = 0.5,
    intercept: float | Sequence[float] = 0.0,
    prevalence: float | Sequence[float] | None = None,
    ld: ArrayLike | None = None,
    missing: float = 0.0,
    imputation_r2: float = 1.0,
    swapped: Mapping[str, Names] | None = None,
    lacking: Mapping[str, Names] | None = None,
    site_ids: Sequence[str] | None = None,
    rng: object = None,
    n_threads: int | None = None,
) -> FederatedSites:
    """Draw several sites with one table of instruments.

    Parameters
    ----------
    n : int or sequence of int
        People at every site, or at each.
    n_snps, effect, confounding, effect_range, eaf_range, gamma, eaf, f_statistic, \
standard_errors, ld, missing, imputation_r2, rng, n_threads
        As in `medusa_cohort`; the frequencies are those of the exposure study.
    n_sites : int
        Number K of sites.
    frequency_sd : float
        A site's frequencies are expit(logit(p) + N(0, frequency_sd^2)).
    intercept, prevalence : float or sequence of float
        As in `medusa_cohort`, for all sites or for each.
    swapped, lacking : mapping of str to iterable of str, optional
        By site: SNPs of which it counts the other allele, and SNPs that it does not have.
    site_ids : sequence of str, optional
        site_1 .. site_K by default.

    Returns
    -------
    FederatedSites

    Raises
    ------
    InvalidInputError
        As in `medusa_cohort`.

    Examples
    --------
    >>> sites = federated_sites(2000, 8, f_statistic=30, prevalence=0.05, rng=1)
    >>> [site.site_id for site in sites], round(sites.estimand, 4)
    (['site_1', 'site_2', 'site_3'], 0.3962)
    """
    k = check.integer("n_sites", n_sites, minimum=1)
    sizes = _per_site_integers(n, k)
    ids = tuple(f"site_{i + 1}" for i in range(k)) if site_ids is None else site_ids
    names = check.name_tuple("site_ids", ids, length=k)
    theta = check.scalar("effect", effect)
    c = check.scalar("confounding", confounding)
    share = check.scalar("missing", missing, minimum=0, below=1)
    r2 = check.scalar("imputation_r2", imputation_r2, above=0, maximum=1)
    between = check.scalar("frequency_sd", frequency_sd, minimum=0)
    threads = _runtime.thread_count(n_threads)
    generator = _runtime.generator(rng)

    p, g = _parameters(n_snps, eaf, gamma, eaf_range, effect_range, generator)
    j = len(p)
    wanted = estimands.neighbour_correlations(ld, 1, j)[0]
    reference = _attainable(wanted, p)
    table = _exposure_study(p, g, reference, c, f_statistic, standard_errors, generator)
    snps = tuple(table["snp"])
    logit = np.log(p / (1 - p))
    frequencies = 1 / (1 + np.exp(-logit - between * generator.standard_normal((k, j))))
    frequencies = frequencies if between > 0 else np.repeat(p[None, :], k, axis=0)
    correlations = np.array([_attainable(wanted, row) for row in frequencies])
    alpha = _intercepts(intercept, prevalence, theta, frequencies, g, c, correlations)
    chosen_swapped = _by_site("swapped", swapped, names, snps)
    chosen_lacking = _by_site("lacking", lacking, names, snps)
    seeds = np.random.SeedSequence(generator.integers(2**32, size=4, dtype=np.uint32).tolist())
    matrix = estimands.correlation_matrix(reference) if reference.any() else None
    sites = []
    for i, seed in enumerate(seeds.spawn(k)):
        people = draw_people(
            sizes[i],
            frequencies[i],
            correlations[i],
            Outcome(g, theta, c, float(alpha[i])),
            share,
            r2,
            seed,
            threads,
        )
        absent, other = chosen_lacking[names[i]], chosen_swapped[names[i]]
        if absent.all():
            raise check.fail("lacking", f"a SNP that {names[i]!r} does have", "all of them")
        sites.append(
            MedusaCohort(
                site_id=names[i],
                snps=tuple(snp for snp, gone in zip(snps, absent, strict=True) if not gone),
                dosages=recoded(people.dosages, other, absent),
                outcome=people.outcome,
                exposure=people.exposure,
                confounders=people.confounders,
                person_id=np.arange(1, sizes[i] + 1, dtype=np.int64)
                + (i + 1) * _FIRST_PERSON * (k > 1),
                alleles=_site_alleles(table, frequencies[i], other, absent),
                instruments=table,
                ld=matrix,
                effect=theta,
                gamma=g,
                eaf=frequencies[i].copy(),
                correlations=correlations[i].copy(),
                intercept=float(alpha[i]),
                confounding=c,
                genetic=people.genetic,
                reliability=r2 * (1 - share),
            )
        )
    return FederatedSites(tuple(sites), table, matrix, theta, g)


# ------------------------------------------------------------------------- parameters


def _parameters(
    n_snps: int,
    eaf: ArrayLike | None,
    gamma: ArrayLike | None,
    eaf_range: tuple[float, float],
    effect_range: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[Float, Float]:
    """Frequencies and effects, given or drawn."""
    given = next((np.shape(a)[0] for a in (gamma, eaf) if a is not None and np.ndim(a) == 1), None)
    j = check.integer("n_snps", n_snps if given is None else given, minimum=1)
    low, high = _range("eaf_range", eaf_range)
    if not 0 < low <= high < 1:
        raise check.fail("eaf_range", "frequencies strictly between 0 and 1", eaf_range)
    p = generator.uniform(low, high, j)
    g = generator.uniform(*_range("effect_range", effect_range), j)
    if eaf is not None:
        p = check.proportion_array("eaf", eaf, length=j).copy()
    if gamma is not None:
        g = check.float_array("gamma", gamma, ndim=1, shape=(j,)).copy()
    if (g == 0).any():
        raise check.fail("gamma", "effects that are not 0", "an effect of 0")
    return p, g


def _range(argument: str, limits: tuple[float, float]) -> tuple[float, float]:
    if np.shape(limits) != (2,):
        raise check.fail(argument, "two numbers", limits)
    low, high = (check.scalar(argument, limit) for limit in limits)
    if low > high:
        raise check.fail(argument, "the lower limit first", limits)
    return low, high


def _attainable(wanted: Float, eaf: Float) -> Float:
    """The wanted correlations, or the nearest that alleles of these frequencies can have."""
    lowest, highest = estimands.attainable_correlations(eaf)
    return np.clip(wanted, lowest, np.minimum(highest, 1 - 1e-9))


def _exposure_study(
    p: Float,
    gamma: Float,
    correlations: Float,
    c: float,
    f_statistic: float | None,
    standard_errors: str,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """The association table of the exposure: marginal effects and their errors."""
    kind = check.choice("standard_errors", standard_errors, ("proportional", "gwas"))
    j = len(p)
    variance = 2 * p * (1 - p)
    cg = estimands.times_covariance(p, correlations, gamma)
    marginal = gamma if not correlations.any() else cg / variance
    total = float((gamma * cg).sum()) + 1.25 * c**2 + 1
    if f_statistic is None:
        std_error = np.abs(marginal) / generator.uniform(4, 8, j)
        beta = marginal.copy()
    else:
        f = check.scalar("f_statistic", f_statistic, above=0)
        spread = generator.uniform(0.8, 1.2, j)
        if kind == "proportional":
            std_error = np.abs(marginal) / (np.sqrt(f) * spread)
        else:
            std_error = np.sqrt((marginal**2 * variance).mean() / f / variance)
        noise = generator.standard_normal(j)
        for i, r in enumerate(correlations):
            noise[i + 1] = r * noise[i] + np.sqrt(1 - r**2) * noise[i + 1]
        beta = marginal + std_error * noise
    if (std_error == 0).any():
        raise check.fail("gamma", "marginal effects that are not 0", "an effect of 0")
    size = total / (variance * std_error**2)
    return association_table([f"rs{i + 1}" for i in range(j)], p, beta, std_error, size, generator)


def _intercepts(
    intercept: float | Sequence[float],
    prevalence: float | Sequence[float] | None,
    theta: float,
    frequencies: Float,
    gamma: Float,
    c: float,
    correlations: Float,
) -> Float:
    """Intercept of each site, given or solved."""
    k = len(frequencies)
    if prevalence is None:
        return _per_site_numbers("intercept", intercept, k)
    shares = check.proportion_array(
        "prevalence", _per_site_numbers("prevalence", prevalence, k), length=k
    )
    return np.array(
        [
            estimands.intercept_for_prevalence(float(s), theta, p, gamma, c, 1.0, r)
            for s, p, r in zip(shares, frequencies, correlations, strict=True)
        ]
    )


def _per_site_numbers(argument: str, values: float | Sequence[float], k: int) -> Float:
    if np.ndim(values) == 0:
        return np.full(k, check.scalar(argument, values))
    return check.float_array(argument, values, ndim=1, shape=(k,)).copy()


def _per_site_integers(n: int | Sequence[int], k: int) -> list[int]:
    values = [n] * k if np.ndim(n) == 0 else list(n)  # type: ignore[arg-type]
    if len(values) != k:
        raise check.fail("n", f"one number or {k}", f"{len(values)}")
    return [check.integer("n", value, minimum=1, maximum=_FIRST_PERSON - 1) for value in values]


def _by_site(
    argument: str,
    chosen: Mapping[str, Names] | None,
    site_ids: tuple[str, ...],
    snps: tuple[str, ...],
) -> dict[str, NDArray[np.bool_]]:
    """Which SNPs are named, for every site."""
    given = {} if chosen is None else dict(chosen)
    for name, names in given.items():
        if name not in site_ids:
            raise check.fail(argument, f"sites among {', '.join(site_ids)}", repr(name))
        unknown = [repr(names)] if isinstance(names, str) else sorted(set(names) - set(snps))
        if unknown:
            raise check.fail(argument, "names of SNPs", ", ".join(unknown))
    return {name: np.array([snp in set(given.get(name, ())) for snp in snps]) for name in site_ids}


def _site_alleles(
    instruments: pd.DataFrame,
    eaf: Float,
    swapped: NDArray[np.bool_],
    lacking: NDArray[np.bool_],
) -> pd.DataFrame:
    import pandas as pd

    effect, other = instruments["effect_allele"], instruments["other_allele"]
    table = pd.DataFrame(
        {
            "snp": instruments["snp"],
            "coded_allele": np.where(swapped, other, effect),
            "other_allele": np.where(swapped, effect, other),
            "frequency": np.where(swapped, 1 - eaf, eaf),
        }
    )
    return table[~lacking].reset_index(drop=True)
